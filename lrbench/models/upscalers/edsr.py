"""EDSR, and RCAN, which is EDSR's frame around another body; layer names of the released BasicSR networks.

EDSR: Lim et al., CVPRW 2017, arXiv:1707.02921. RCAN: Zhang et al., ECCV 2018, arXiv:1807.02758. Both were released for
pixels 0..255 minus the mean colour of DIV2K, which is done inside; the output is brought back in the same way.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lrbench.models.upscalers.srresnet import PlainBlock
from lrbench.models.upscalers.upscaler import DIV2K_MEAN, Upscaler, convolution, shuffled_steps


class MeanShifted(Upscaler):
    """A body of residual blocks under a long shortcut, then pixel shuffles, on pixels 0..255 minus a mean colour.

    Args:
        scale: 2 or 4.
        body: (B, width, h, w) -> the same shape.
        width: channels.
    """

    last = "conv_last"
    mean: Tensor

    def __init__(self, scale: int, body: nn.Module, width: int) -> None:
        super().__init__(scale)
        self.conv_first = convolution(3, width)
        self.body = body
        self.conv_after_body = convolution(width, width)
        self.upsample = nn.Sequential(*shuffled_steps(scale, width))
        self.conv_last = convolution(width, 3)
        self.register_buffer("mean", torch.tensor(DIV2K_MEAN).view(3, 1, 1), persistent=False)

    def details(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) RGB in [0, 1] -> (B, 3, scale h, scale w), the difference to the mean colour."""
        x = self.conv_first(255 * (pixels - self.mean))
        x = x + self.conv_after_body(self.body(x))
        return self.conv_last(self.upsample(x)) / 255  # type: ignore[no-any-return]

    def base(self, pixels: Tensor) -> Tensor:
        """The mean colour (3, 1, 1)."""
        return self.mean


def edsr(scale: int, *, width: int = 64, depth: int = 16, strength: float = 1.0) -> MeanShifted:
    """EDSR; by default the baseline.

    Args:
        scale: 2 or 4.
        width: channels.
        depth: residual blocks.
        strength: factor of what blocks add to their shortcut; 0.1 in the wide network, which is unstable without.
    """
    return MeanShifted(scale, nn.Sequential(*(PlainBlock(width, strength) for _ in range(depth))), width)


def rcan(scale: int, *, width: int = 64, groups: int = 10, blocks: int = 20, reduction: int = 16) -> MeanShifted:
    """RCAN.

    Args:
        scale: 2 or 4.
        width: channels.
        groups: residual groups.
        blocks: attention blocks per group.
        reduction: channels per hidden channel of the attention.
    """
    return MeanShifted(scale, nn.Sequential(*(Group(width, blocks, reduction) for _ in range(groups))), width)


class Group(nn.Module):
    """Attention blocks and a convolution under a shortcut."""

    def __init__(self, width: int, blocks: int, reduction: int) -> None:
        super().__init__()
        self.residual_group = nn.Sequential(*(AttentionBlock(width, reduction) for _ in range(blocks)))
        self.conv = convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        return x + self.conv(self.residual_group(x))  # type: ignore[no-any-return]


class AttentionBlock(nn.Module):
    """Two convolutions, channel attention, and a shortcut."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.rcab = nn.Sequential(
            convolution(width, width), nn.ReLU(), convolution(width, width), ChannelAttention(width, reduction)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        return x + self.rcab(x)  # type: ignore[no-any-return]


class ChannelAttention(nn.Module):
    """Scales every channel by a number in (0, 1) that all channels' means decide."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            convolution(width, width // reduction, 1),
            nn.ReLU(),
            convolution(width // reduction, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        return x * self.attention(x)  # type: ignore[no-any-return]
