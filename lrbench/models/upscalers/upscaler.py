"""What every upscaler has in common: RGB in [0, 1] on both sides, a base that details are added to, initialisation."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lrbench.models.network import reset_as_torch
from lrbench.models.upscalers.resampling import Kernel, enlarged

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour of the training set of most super-resolution networks, RGB in [0, 1] (released EDSR code)."""

Residual = Literal["released", "bicubic"]
"""What the network's details are added to.

``released``: what the published network adds, mostly nothing; its weights need that. ``bicubic``: for training from
scratch; the bicubic enlargement. The last convolution starts at zero, so that an untrained network is exactly bicubic.
"""


class Upscaler(nn.Module):
    """RGB in [0, 1], (B, 3, h, w) -> (B, 3, scale h, scale w), not clamped; the input is never written to.

    Args:
        scale: whole factor.

    Attributes:
        last: name of the layer whose output becomes the picture; empty where there is none.
        residual: see `Residual`.
    """

    last = ""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.residual: Residual = "released"

    def details(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 3, scale h, scale w), the part that the layers compute."""
        raise NotImplementedError

    def base(self, pixels: Tensor) -> Tensor | float:
        """What the published network adds its details to: a picture, a colour or nothing."""
        return 0.0

    def enlarge(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 3, scale h, scale w), whatever else the network emits while it is trained."""
        return self.finished(self.details(pixels), pixels)

    def finished(self, details: Tensor, pixels: Tensor) -> Tensor:
        """The picture (B, 3, scale h, scale w) from its details and the small one (B, 3, h, w)."""
        if self.residual == "bicubic":
            return details + enlarged(pixels, self.scale)
        return details + self.base(pixels)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 3, scale h, scale w)."""
        return self.enlarge(pixels)

    def start_as_bicubic(self) -> None:
        """Set the last convolution to zero and add to the bicubic enlargement from now on.

        Raises:
            ValueError: there is no last convolution.
        """
        if not self.last:
            raise ValueError(f"{type(self).__name__} has no last convolution to start at zero; leave residual=released")
        self.residual = "bicubic"
        _zero(self.get_submodule(self.last))


class Resampling(Upscaler):
    """Enlarges by a kernel; has no parameters.

    Args:
        scale: whole factor.
        kernel: see `Kernel`.
    """

    def __init__(self, scale: int, *, kernel: Kernel) -> None:
        super().__init__(scale)
        self.kernel: Kernel = kernel

    def details(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 3, scale h, scale w)."""
        return enlarged(pixels, self.scale, self.kernel)


def initialise(network: Upscaler, generator: torch.Generator) -> None:
    """Fill all parameters anew, as torch does by itself.

    Layers of which a paper says otherwise have a method `initialise(generator)`. The last convolution of a network that
    starts as bicubic is zero again.

    Args:
        network: any upscaler.
        generator: the only source of randomness.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            reset_as_torch(module, generator)
        elif isinstance(module, nn.ConvTranspose2d):
            bound = module.weight[0].numel() ** -0.5
            for parameter in module.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
        elif isinstance(module, nn.BatchNorm2d | nn.PReLU):
            module.reset_parameters()
    for module in network.modules():
        own = getattr(module, "initialise", None)
        if own is not None:
            own(generator)
    if network.residual == "bicubic":
        _zero(network.get_submodule(network.last))


def convolution(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    """Convolution that keeps the size, zero border, with bias."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


def doublings(scale: int) -> int:
    """How many steps of factor 2 make a scale."""
    return scale.bit_length() - 1


def shuffled_steps(scale: int, channels: int) -> list[nn.Module]:
    """Per factor 2 a convolution to four times the channels and a pixel shuffle."""
    return [
        layer for _ in range(doublings(scale)) for layer in (convolution(channels, 4 * channels), nn.PixelShuffle(2))
    ]


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
