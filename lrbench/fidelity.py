"""How close enlarged pictures are to the originals, as papers on super-resolution measure it.

Of the 8-bit pictures that files would hold. PSNR and SSIM are those of their luma without a border, as the published
tables for x4 have them; of RGB, or of another SSIM, the numbers differ by more than networks do, and belong into no
common column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor

from lrbench.models.upscalers.gradients import gradient_map

LUMA = (65.481, 128.553, 24.966)
"""ITU-R BT.601 for R, G, B in [0, 1], black at 16 and white at 235 (MATLAB's rgb2ycbcr)."""

BORDER = 4
"""Px cut off on every side before PSNR and SSIM, as many as the usual scale of x4."""

PEAK = 255.0
"""Of PSNR and SSIM, although luma stays between 16 and 235 (as published)."""

HIGHEST_PSNR = 100.0
"""dB. What pictures without any difference get instead of infinity, so that means stay finite; one level of blue in one
pixel of 256x192 would be 115."""

WINDOW, SIGMA = 11, 1.5
"""Of SSIM's Gaussian, px."""


@dataclass(frozen=True)
class Fidelity:
    """Closeness of one picture, or the mean of many.

    Attributes:
        psnr: of the luma, dB, at most `HIGHEST_PSNR`; higher is closer.
        ssim: of the luma, at most 1; higher is closer.
        gradient_l1: mean absolute difference of the RGB gradient maps, whole picture, at least 0; lower is closer.
    """

    psnr: float
    ssim: float
    gradient_l1: float


def fidelity(pictures: Tensor, targets: Tensor) -> Fidelity:
    """Mean over the pictures of a batch; for several batches collect `per_picture` and take the `mean` once.

    Args:
        pictures, targets: see `per_picture`.
    """
    return mean(per_picture(pictures, targets))


@torch.no_grad()
def per_picture(pictures: Tensor, targets: Tensor) -> list[Fidelity]:
    """Closeness of every picture of a batch.

    Args:
        pictures: (B, 3, h, w) RGB, clamped to [0, 1] and rounded to 8 bit here, as are the targets.
        targets: (B, 3, h, w), the originals.

    Raises:
        ValueError: two different shapes, no RGB pictures, or pictures too small for SSIM's window.
    """
    if pictures.shape != targets.shape or pictures.ndim != 4 or pictures.shape[1] != 3:
        raise ValueError(f"pictures {tuple(pictures.shape)} and targets {tuple(targets.shape)}: expected (B, 3, h, w)")
    height, width = pictures.shape[-2:]
    least = WINDOW + 2 * BORDER
    if min(height, width) < least:
        raise ValueError(f"pictures of {height}x{width} px are too small for SSIM: at least {least}x{least} px")
    inside = (..., slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    planes = luma(pictures)[inside], luma(targets)[inside]
    steepness = (gradient_map(_as_stored(pictures)) - gradient_map(_as_stored(targets))).abs().mean((1, 2, 3))
    columns = torch.stack([psnr(*planes), ssim(*planes), steepness], 1)
    return [Fidelity(*row) for row in columns.tolist()]


def mean(scores: Sequence[Fidelity]) -> Fidelity:
    """Mean over pictures, each of the same weight, however they were batched.

    Raises:
        ValueError: there are none.
    """
    if not scores:
        raise ValueError("fidelity of no pictures; give at least one")
    return Fidelity(*(fmean(column) for column in zip(*map(astuple, scores), strict=True)))


def luma(pixels: Tensor) -> Tensor:
    """RGB (B, 3, h, w) in [0, 1], rounded to 8 bit first -> Y (B, h, w), 16 to 235, float64 and not rounded."""
    weights = torch.tensor(LUMA, dtype=torch.float64, device=pixels.device)
    return 16 + torch.einsum("bchw,c->bhw", _as_stored(pixels), weights)


def psnr(planes: Tensor, targets: Tensor) -> Tensor:
    """10 log10(255^2 / mean squared difference) in dB, at most `HIGHEST_PSNR`.

    Args:
        planes, targets: (B, h, w), 0 to 255.

    Returns:
        (B,).
    """
    squared = (planes - targets).square().mean((-2, -1))
    return (10 * torch.log10(PEAK**2 / squared)).clamp(max=HIGHEST_PSNR)


def ssim(planes: Tensor, targets: Tensor) -> Tensor:
    """Structural similarity (Wang et al., IEEE Transactions on Image Processing 13(4), 2004, Eq. 13).

    Averaged over the windows that lie inside the picture.

    Args:
        planes, targets: (B, h, w), 0 to 255, no smaller than the window.

    Returns:
        (B,), at most 1.
    """
    small, large = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2  # C1, C2
    moments = torch.stack([planes, targets, planes**2, targets**2, planes * targets], 1)
    x, y, xx, yy, xy = _blurred(moments).unbind(1)
    luminance = (2 * x * y + small) / (x**2 + y**2 + small)
    # E[ab] - E[a] E[b]: contrast and structure in one
    structure = (2 * (xy - x * y) + large) / (xx - x**2 + yy - y**2 + large)
    return (luminance * structure).mean((-2, -1))


def _blurred(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, h - 10, w - 10): weighted by SSIM's Gaussian, one axis after the other."""
    distance = torch.arange(WINDOW, dtype=maps.dtype, device=maps.device) - WINDOW // 2
    weights = torch.exp(-(distance**2) / (2 * SIGMA**2))
    weights = weights / weights.sum()
    x = maps.flatten(0, 1)[:, None]
    x = F.conv2d(F.conv2d(x, weights[None, None, :, None]), weights[None, None, None])
    return x.view(*maps.shape[:2], *x.shape[-2:])


def _as_stored(pixels: Tensor) -> Tensor:
    """Pixels of a file: clamped to [0, 1] and rounded to 8 bit, float64."""
    return (255 * pixels.double().clamp(0, 1)).round() / 255
