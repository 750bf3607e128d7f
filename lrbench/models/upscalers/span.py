"""SPAN (Wan et al., CVPRW 2024, arXiv:2311.12770): attention without parameters, from a block's own output.

The form for inference, in which every convolution is one 3x3. Released files hold the form for training, in which it is
folded from several; `lrbench.models.upscalers.released.load_with_spandrel` opens those.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrbench.models.upscalers.upscaler import DIV2K_MEAN, Upscaler, convolution


class AttentionBlock(nn.Module):
    """Three convolutions whose output is scaled by how far it is from zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (convolution(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) -> the output, and the feature behind the first convolution; both of the same shape."""
        inner = F.silu(self.conv1(x))
        y = self.conv3(F.silu(self.conv2(inner)))
        return (x + y) * (torch.sigmoid(y) - 0.5), inner


class SPAN(Upscaler):
    """Six attention blocks, of which four features are joined, and a pixel shuffle.

    Works on pixels 0..255 minus the mean colour of DIV2K (released code): on [0, 1] the attention starts near zero and
    six blocks of it extinguish the picture. The output is RGB in [0, 1] at once.

    Args:
        scale: whole factor.
        width: channels.
    """

    last = "conv_last"
    mean: Tensor

    def __init__(self, scale: int, *, width: int = 48) -> None:
        super().__init__(scale)
        self.conv_first = convolution(3, width)
        self.blocks = nn.ModuleList(AttentionBlock(width) for _ in range(6))
        self.conv_after_blocks = convolution(width, width)
        self.join = convolution(4 * width, width, 1)
        self.conv_last = convolution(width, 3 * scale**2)
        self.register_buffer("mean", torch.tensor(DIV2K_MEAN).view(3, 1, 1), persistent=False)

    def details(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 3, scale h, scale w)."""
        first = x = self.conv_first(255 * (pixels - self.mean))
        outputs = []
        for block in self.blocks:
            x, inner = block(x)
            outputs.append(x)
        joined = self.join(torch.cat([first, self.conv_after_blocks(x), outputs[0], inner], 1))
        return F.pixel_shuffle(self.conv_last(joined), self.scale)
