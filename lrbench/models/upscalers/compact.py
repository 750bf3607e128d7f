"""Small networks that work on the small picture until the last layer: ESPCN, FSRCNN and SRVGG.

ESPCN: Shi et al., CVPR 2016, arXiv:1609.05158. FSRCNN: Dong et al., ECCV 2016, arXiv:1608.00367; the
nine taps of its deconvolution are centred as well as an odd number can be, a choice of ours. SRVGG: Wang et al., ICCVW
2021, arXiv:2107.10833 (released Real-ESRGAN code, with its layer names).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrbench.models.upscalers.upscaler import Upscaler, convolution


class ESPCN(Upscaler):
    """Three convolutions and a pixel shuffle.

    Args:
        scale: whole factor.
        channels: of the picture: 3, or 1 for the published networks on luminance.
    """

    last = "network.4"

    def __init__(self, scale: int, *, channels: int = 3) -> None:
        super().__init__(scale)
        self.network = nn.Sequential(
            convolution(channels, 64, 5),
            nn.Tanh(),
            convolution(64, 32),
            nn.Tanh(),
            convolution(32, channels * scale**2),
            nn.PixelShuffle(scale),
        )

    def details(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 3, scale h, scale w)."""
        return self.network(pixels)  # type: ignore[no-any-return]


class FSRCNN(Upscaler):
    """FSRCNN(56, 12, 4): shrinks the channels, maps, expands them again and deconvolves.

    Args:
        scale: whole factor.
        channels: of the picture: 3, or 1 for the published networks on luminance.
    """

    def __init__(self, scale: int, *, channels: int = 3) -> None:
        super().__init__(scale)
        layers: list[nn.Module] = []
        widths = ((channels, 56, 5), (56, 12, 1), *[(12, 12, 3)] * 4, (12, 56, 1))
        for inputs, outputs, kernel in widths:
            layers += [convolution(inputs, outputs, kernel), nn.PReLU(outputs)]
        surplus = (9 - scale) % 2
        deconvolution = nn.ConvTranspose2d(56, channels, 9, scale, (9 - scale + surplus) // 2, surplus)
        self.network = nn.Sequential(*layers, deconvolution)
        self.last = f"network.{len(layers)}"

    def details(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 3, scale h, scale w)."""
        return self.network(pixels)  # type: ignore[no-any-return]


class SRVGG(Upscaler):
    """A plain row of convolutions, a pixel shuffle, and the picture enlarged by repetition; released layer names.

    Args:
        scale: whole factor.
        width: channels.
        depth: convolutions between the first and the last.
    """

    def __init__(self, scale: int, *, width: int = 64, depth: int = 16) -> None:
        super().__init__(scale)
        layers: list[nn.Module] = []
        for number in range(depth + 1):
            layers += [convolution(width if number else 3, width), nn.PReLU(width)]
        self.body = nn.Sequential(*layers, convolution(width, 3 * scale**2))
        self.last = f"body.{len(layers)}"

    def details(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 3, scale h, scale w)."""
        return F.pixel_shuffle(self.body(pixels), self.scale)

    def initialise(self, generator: torch.Generator) -> None:
        """He et al.'s for PReLU; torch's own, without a shortcut, leaves a ten-thousandth after seventeen layers."""
        for layer in self.body:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=0.25, nonlinearity="leaky_relu", generator=generator)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def base(self, pixels: Tensor) -> Tensor:
        """Every pixel repeated."""
        return F.interpolate(pixels, scale_factor=float(self.scale), mode="nearest")
