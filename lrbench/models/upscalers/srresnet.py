"""SRResNet, the generator of SRGAN, and MSRResNet, its form without batch norm.

SRResNet: Ledig et al., CVPR 2017, arXiv:1609.04802, Fig. 4. MSRResNet: released BasicSR code, with its layer names.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lrbench.models.upscalers.upscaler import Upscaler, convolution, doublings


class NormalisedBlock(nn.Module):
    """Two convolutions with batch norm, PReLU between them, and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = convolution(width, width), nn.BatchNorm2d(width)
        self.prelu = nn.PReLU()
        self.conv2, self.bn2 = convolution(width, width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        return x + self.bn2(self.conv2(self.prelu(self.bn1(self.conv1(x)))))  # type: ignore[no-any-return]


class SRResNet(Upscaler):
    """Residual blocks with batch norm under a long shortcut, then pixel shuffles. Must be in eval mode at test.

    Args:
        scale: 2 or 4.
        width: channels.
        depth: residual blocks.
    """

    last = "conv_last"

    def __init__(self, scale: int, *, width: int = 64, depth: int = 16) -> None:
        super().__init__(scale)
        self.first = nn.Sequential(convolution(3, width, 9), nn.PReLU())
        self.body = nn.Sequential(
            *(NormalisedBlock(width) for _ in range(depth)), convolution(width, width), nn.BatchNorm2d(width)
        )
        steps: list[nn.Module] = []
        for _ in range(doublings(scale)):
            steps += [convolution(width, 4 * width), nn.PixelShuffle(2), nn.PReLU()]
        self.upsample = nn.Sequential(*steps)
        self.conv_last = convolution(width, 3, 9)

    def details(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 3, scale h, scale w)."""
        x = self.first(pixels)
        return self.conv_last(self.upsample(x + self.body(x)))  # type: ignore[no-any-return]


class PlainBlock(nn.Module):
    """Two convolutions, ReLU between them, and a shortcut.

    Args:
        width: channels.
        strength: factor of what is added to the shortcut.
    """

    def __init__(self, width: int, strength: float = 1.0) -> None:
        super().__init__()
        self.conv1, self.conv2 = convolution(width, width), convolution(width, width)
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        return x + self.strength * self.conv2(F.relu(self.conv1(x)))  # type: ignore[no-any-return]


class MSRResNet(Upscaler):
    """Residual blocks without batch norm, pixel shuffles, and the picture enlarged bilinearly.

    Args:
        scale: 2 or 4.
        width: channels.
        depth: residual blocks.
    """

    last = "conv_last"

    def __init__(self, scale: int, *, width: int = 64, depth: int = 16) -> None:
        super().__init__(scale)
        self.conv_first = convolution(3, width)
        self.body = nn.Sequential(*(PlainBlock(width) for _ in range(depth)))
        self.upconv1 = convolution(width, 4 * width)
        if scale == 4:
            self.upconv2 = convolution(width, 4 * width)
        self.conv_hr = convolution(width, width)
        self.conv_last = convolution(width, 3)

    def details(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 3, scale h, scale w)."""
        x = self.body(F.leaky_relu(self.conv_first(pixels), 0.1))
        x = F.leaky_relu(F.pixel_shuffle(self.upconv1(x), 2), 0.1)
        if self.scale == 4:
            x = F.leaky_relu(F.pixel_shuffle(self.upconv2(x), 2), 0.1)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), 0.1))  # type: ignore[no-any-return]

    def base(self, pixels: Tensor) -> Tensor:
        """Bilinear, at pixel centres."""
        return F.interpolate(pixels, scale_factor=float(self.scale), mode="bilinear", align_corners=False)
