"""The generator of NatSR (Soh et al., CVPR 2019, arXiv:1911.03624): dense blocks under shortcuts of several lengths.

The released network is TensorFlow's; layer names are ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrbench.models.upscalers.upscaler import Upscaler, convolution, shuffled_steps

STRENGTH = 0.1
"""Factor of what a dense block adds to its shortcut."""


class FusedBlock(nn.Module):
    """Five convolutions, each of which sees the input and all earlier outputs, fused by a 1x1 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convolution(number * width, width) for number in range(1, 6))
        self.fuse = convolution(6 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        seen = x
        for conv in self.convs:
            seen = torch.cat([seen, F.relu(conv(seen))], 1)
        return x + STRENGTH * self.fuse(seen)  # type: ignore[no-any-return]


class NatSR(Upscaler):
    """Four stages of two dense blocks under fractal shortcuts, then pixel shuffles.

    Args:
        scale: 2 or 4.
        width: channels.
    """

    last = "conv_last"

    def __init__(self, scale: int, *, width: int = 64) -> None:
        super().__init__(scale)
        self.conv_first = convolution(3, width)
        self.stages = nn.ModuleList(nn.Sequential(FusedBlock(width), FusedBlock(width)) for _ in range(4))
        self.conv_after_stages = convolution(width, width)
        self.upsample = nn.Sequential(*shuffled_steps(scale, width))
        self.conv_last = convolution(width, 3)

    def details(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 3, scale h, scale w)."""
        one, two, three, four = self.stages
        a = self.conv_first(pixels)
        b = one(a) + a
        c = two(b) + b + a
        d = three(c) + c
        e = four(d) + d + c + a
        return self.conv_last(self.upsample(self.conv_after_stages(e) + a))  # type: ignore[no-any-return]
