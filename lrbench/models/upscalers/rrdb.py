"""RRDB, the generator of ESRGAN (Wang et al., ECCVW 2018, arXiv:1809.00219), with the layer names of its first release.

The same names open SPSR's trunk, which is started from RRDB's weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lrbench.models.upscalers.upscaler import Upscaler, convolution, doublings

GROWTH = 32
"""Channels that each convolution of a published dense block adds."""

STRENGTH = 0.2
"""Factor of what dense blocks, and rows of them, add to their shortcut."""

INITIAL = 0.1
"""Dense blocks start as Kaiming times this (Sec. 3.1; as released, the other layers start as torch's)."""


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the input and all earlier ones' outputs, and a shortcut.

    Args:
        width: channels that come and go.
        growth: channels that each convolution but the last adds.
    """

    def __init__(self, width: int, growth: int = GROWTH) -> None:
        super().__init__()
        for number in range(4):
            layer = convolution(width + number * growth, growth)
            self.add_module(f"conv{number + 1}", nn.Sequential(layer, nn.LeakyReLU(0.2)))
        self.conv5 = nn.Sequential(convolution(width + 4 * growth, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        seen = x
        for number in range(1, 5):
            seen = torch.cat([seen, self.get_submodule(f"conv{number}")(seen)], 1)
        return x + STRENGTH * self.conv5(seen)  # type: ignore[no-any-return]

    def initialise(self, generator: torch.Generator) -> None:
        """Kaiming times `INITIAL`, biases zero."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                with torch.no_grad():
                    layer.weight *= INITIAL
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)


class RRDB(nn.Module):
    """Three dense blocks under a shortcut.

    Args:
        width, growth: see `DenseBlock`.
    """

    def __init__(self, width: int, growth: int = GROWTH) -> None:
        super().__init__()
        self.RDB1, self.RDB2, self.RDB3 = (DenseBlock(width, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        return x + STRENGTH * self.RDB3(self.RDB2(self.RDB1(x)))  # type: ignore[no-any-return]


class Trunk(nn.Module):
    """A row of RRDBs and a convolution under a shortcut.

    Args:
        width, growth: see `DenseBlock`.
        blocks: RRDBs.
    """

    def __init__(self, width: int, blocks: int, growth: int = GROWTH) -> None:
        super().__init__()
        self.sub = nn.Sequential(*(RRDB(width, growth) for _ in range(blocks)), convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        return x + self.sub(x)  # type: ignore[no-any-return]

    def tapped(self, x: Tensor, taps: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """What `forward` returns, and the outputs of some RRDBs, counted from 1."""
        y, outputs = x, []
        for number, layer in enumerate(self.sub, 1):
            y = layer(y)
            if number in taps:
                outputs.append(y)
        return x + y, outputs


class RRDBNet(Upscaler):
    """A trunk of RRDBs, then repetitions of every pixel, each followed by a convolution.

    Args:
        scale: 2 or 4. Released networks of scale 2 that shuffle pixels down first are others.
        width: channels.
        blocks: RRDBs.
    """

    def __init__(self, scale: int, *, width: int = 64, blocks: int = 23) -> None:
        super().__init__(scale)
        layers = [convolution(3, width), Trunk(width, blocks), *repeated_steps(scale, width)]
        self.model = nn.Sequential(*layers, convolution(width, 3))
        self.last = f"model.{len(layers)}"

    def details(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 3, scale h, scale w)."""
        return self.model(pixels)  # type: ignore[no-any-return]


def repeated_steps(scale: int, width: int) -> list[nn.Module]:
    """Per factor 2 every pixel repeated, a convolution and LeakyReLU; then one more convolution and LeakyReLU."""
    layers: list[nn.Module] = []
    for _ in range(doublings(scale)):
        layers += [nn.Upsample(scale_factor=2.0, mode="nearest"), convolution(width, width), nn.LeakyReLU(0.2)]
    return [*layers, convolution(width, width), nn.LeakyReLU(0.2)]
