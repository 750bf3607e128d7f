"""Blur kernels, each with sum 1, and what applies them.

Sigmas, radii and lengths are in px of the picture that is blurred: a lens of sigma t px of a picture that will be s
times smaller has sigma s t here. Beyond its border a picture is mirrored, the edge pixel twice.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from lrbench.corruptions.resampling import Single
from lrbench.geometry import Float

_SUBSAMPLES = 32  # points per px of what is drawn into a kernel


def support(sigma: float) -> int:
    """Odd side of a kernel that leaves nothing to see of a Gaussian: 2 ceil(3 sigma) + 1."""
    return 2 * math.ceil(3 * sigma) + 1


def gaussian(
    size: int, sigma_x: float, sigma_y: float, angle: float = 0.0, *, beta: float = 1.0, shift: float = 0.0
) -> Float:
    """Generalised Gaussian exp(-0.5 q^beta), q the squared Mahalanobis distance.

    Args:
        size: side of the kernel, odd.
        sigma_x: px along the axis at `angle`; its covariance is R(angle) diag(sigma_x^2, sigma_y^2) R(angle)^T.
        sigma_y: px across it.
        angle: radians, from x towards y.
        beta: 1 is the Gaussian, smaller is more pointed, larger is flatter.
        shift: px to the right and down by which its middle misses the middle of the kernel.

    Returns:
        (size, size)
    """
    return _normalised(np.exp(-0.5 * _distance(size, sigma_x, sigma_y, angle, shift) ** beta))


def plateau(size: int, sigma_x: float, sigma_y: float, angle: float, beta: float) -> Float:
    """1 / (1 + q^beta), flat in the middle; arguments as in `gaussian`."""
    return _normalised(1 / (1 + _distance(size, sigma_x, sigma_y, angle, 0.0) ** beta))


def sinc(size: int, cutoff: float) -> Float:
    """Ideal circular low-pass filter cut off by its square: the ringing of sharpening and compression.

    c J1(c r) / (2 pi r), and c^2 / (4 pi) in the middle (Real-ESRGAN, arXiv:2107.10833, Eq. 6).

    Args:
        size: side of the kernel, odd.
        cutoff: c in radians per px; pi passes nearly everything.

    Returns:
        (size, size)
    """
    x, y = _axes(size)
    r = np.hypot(x, y)
    with np.errstate(invalid="ignore", divide="ignore"):
        ring = cutoff * bessel_j1(cutoff * r) / (2 * np.pi * r)
    return _normalised(np.where(r > 0, ring, cutoff**2 / (4 * np.pi)))


def disk(radius: float) -> Float:
    """Defocus: a disk of that radius in px; px that it covers in part count in part."""
    side = 2 * math.ceil(radius) + 1
    fine = np.arange(side * _SUBSAMPLES) / _SUBSAMPLES + 0.5 / _SUBSAMPLES - side / 2
    covered = fine[:, None] ** 2 + fine**2 <= radius**2
    return _normalised(covered.reshape(side, _SUBSAMPLES, side, _SUBSAMPLES).mean(axis=(1, 3)))


def line(length: float, angle: float) -> Float:
    """Uniform motion: a line of that length in px at an angle in radians, from x towards y."""
    radius, count = math.ceil(length / 2), max(1, math.ceil(_SUBSAMPLES * length))
    along = ((np.arange(count) + 0.5) / count - 0.5) * length
    kernel = np.zeros((2 * radius + 2, 2 * radius + 2))  # one row and column more, for the upper neighbours of 0
    x, y = along * math.cos(angle) + radius, along * math.sin(angle) + radius
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    x, y = x - column, y - row
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):  # shared by the four nearest px, so that the middle is exact
        np.add.at(kernel, (row + down, column + right), np.abs(1 - down - y) * np.abs(1 - right - x))
    return _normalised(kernel[:-1, :-1])


def bessel_j1(x: Float) -> Float:
    """Bessel function of the first kind and order 1, to about 1e-15 for the x of kernels.

    1 / pi times the integral of cos(t - x sin t) over t from 0 to pi (DLMF 10.9.2); the midpoint rule with n points
    misses it by J_(2n - 1)(x), nothing once 2n is well above x.
    """
    count = 32 + int(np.max(np.abs(x), initial=0.0))
    t = (np.arange(count) + 0.5) * (np.pi / count)
    return np.asarray(np.cos(t - x[..., None] * np.sin(t)).mean(axis=-1), np.float64)


def filtered(picture: Single, kernel: Float) -> Single:
    """The picture (H, W, 3) averaged with the weights of a kernel (n, n): out(p) = sum of kernel(d) picture(p + d)."""
    return np.asarray(cv2.filter2D(picture, -1, kernel, borderType=cv2.BORDER_REFLECT), np.float32)


def gaussian_blur(picture: Single, sigma: float) -> Single:
    """The picture (H, W, 3) under a round Gaussian of that sigma in px; 0 leaves it alone."""
    if sigma == 0:
        return picture
    side = support(sigma)
    blurred = cv2.GaussianBlur(picture, (side, side), sigma, sigmaY=sigma, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, np.float32)


def sharpened(picture: Single, amount: float, sigma: float) -> Single:
    """Unsharp mask: the picture plus `amount` times what a Gaussian of that sigma in px takes away, in [0, 1]."""
    return np.clip(picture + np.float32(amount) * (picture - gaussian_blur(picture, sigma)), 0, 1)


def _axes(size: int) -> tuple[Float, Float]:
    """Offsets from the middle of a kernel: x (1, size) and y (size, 1)."""
    offset = np.arange(size, dtype=np.float64) - (size - 1) / 2
    return offset[None, :], offset[:, None]


def _distance(size: int, sigma_x: float, sigma_y: float, angle: float, shift: float) -> Float:
    """Squared Mahalanobis distances (size, size)."""
    x, y = _axes(size)
    x, y = x - shift, y - shift
    along, across = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    return np.asarray((along / sigma_x) ** 2 + (across / sigma_y) ** 2)


def _normalised(kernel: Float) -> Float:
    return np.asarray(kernel / kernel.sum())
