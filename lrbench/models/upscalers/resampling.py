"""Enlarging by a kernel, without parameters: the controls in every table, and the skip that networks start from."""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Kernel = Literal["bicubic", "lanczos"]
"""``bicubic``: Keys 1981 with slope -1/2, as MATLAB's imresize. ``lanczos``: sinc windowed by sinc, three lobes."""

RADIUS: dict[Kernel, int] = {"bicubic": 2, "lanczos": 3}
"""Half the width of the kernels, in pixels of the small picture."""


def enlarged(pixels: Tensor, scale: int, kernel: Kernel = "bicubic") -> Tensor:
    """Enlarge by a whole factor: pixel u of the result lies at (u + 0.5) / scale - 0.5 of the picture.

    Outside the picture lies its mirror image, edge pixel twice, as in `lrbench.degradation.imresize`. Weights sum to
    one. Written as sums rather than as a convolution, so that autocast does not take its precision.

    Args:
        pixels: (B, C, h, w), both sides no smaller than the kernel's radius.
        scale: whole factor.
        kernel: see `Kernel`.

    Returns:
        (B, C, scale h, scale w), not clamped: both kernels overshoot.

    Raises:
        ValueError: a side is smaller than the kernel's radius.
    """
    if min(pixels.shape[-2:]) < RADIUS[kernel]:
        size = "x".join(str(side) for side in pixels.shape[-2:])
        raise ValueError(f"{kernel} cannot enlarge {size}: both sides must be at least {RADIUS[kernel]} pixels")
    weights = torch.as_tensor(_weights(scale, kernel), dtype=pixels.dtype, device=pixels.device)
    return _stretched(_stretched(pixels, weights).transpose(-1, -2), weights).transpose(-1, -2).contiguous()


def _stretched(x: Tensor, weights: Tensor) -> Tensor:
    """Enlarge (..., n) along its last axis to (..., scale n)."""
    radius, n = len(weights) // 2, x.shape[-1]
    x = torch.cat([x[..., :radius].flip(-1), x, x[..., -radius:].flip(-1)], -1)
    y = x[..., :n, None] * weights[0]
    for tap in range(1, len(weights)):
        y = y + x[..., tap : tap + n, None] * weights[tap]
    return y.flatten(-2)


@cache
def _weights(scale: int, kernel: Kernel) -> NDArray[np.float64]:
    """(2 radius + 1, scale): of pixels i - radius .. i + radius for the pixels that pixel i becomes."""
    radius = RADIUS[kernel]
    offset = (np.arange(scale) + 0.5) / scale - 0.5
    distance = np.abs(offset - np.arange(-radius, radius + 1)[:, None])
    weights = _keys(distance) if kernel == "bicubic" else np.sinc(distance) * np.sinc(distance / radius)
    weights = np.where(distance < radius, weights, 0.0)
    return np.asarray(weights / weights.sum(axis=0))


def _keys(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cubic convolution (Keys 1981) with slope -1/2 at distance 1, at distances up to 2."""
    return np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2)
