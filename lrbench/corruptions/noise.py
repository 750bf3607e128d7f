"""Noise of a sensor, and the noises of the super-resolution and robustness literature. Results lie in [0, 1]."""

from __future__ import annotations

import math

import numpy as np

from lrbench.corruptions.resampling import Single
from lrbench.geometry import Float

_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # luma of ITU-R BT.601, as OpenCV's RGB2GRAY


def to_linear(picture: Single) -> Single:
    """SRGB values as shares of the light of white (IEC 61966-2-1); both in [0, 1]."""
    return np.where(picture <= 0.04045, picture / 12.92, ((picture + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_srgb(light: Single) -> Single:
    """Shares of the light of white as sRGB values; inverse of `to_linear`."""
    curve = 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(light <= 0.0031308, 12.92 * light, curve).astype(np.float32)


def sensor_noise(picture: Single, white: float, read: float, rng: np.random.Generator) -> Single:
    """Photon and read noise, in linear light and independent per px and colour.

    A px of light x counts Poisson(white x) + Normal(0, read) electrons, so its signal-to-noise ratio is
    white x / sqrt(white x + read^2). Correlation by demosaicing is left out.

    Args:
        picture: (H, W, 3) sRGB; values outside [0, 1], which have no light, are clipped.
        white: electrons at white.
        read: standard deviation of the read noise, electrons.
        rng: where the noise comes from.
    """
    light = to_linear(np.clip(picture, 0, 1))
    electrons = rng.poisson(white * light.astype(np.float64)) + rng.normal(0.0, read, light.shape)
    return to_srgb(np.clip(electrons / white, 0, 1).astype(np.float32))


def gaussian_noise(picture: Single, sigma: float, rng: np.random.Generator, *, grey: bool = False) -> Single:
    """Normal noise of that sigma (1 is white) on sRGB values; `grey` gives the three colours the same draw."""
    shape = (*picture.shape[:2], 1 if grey else 3)
    noise = rng.standard_normal(shape, np.float32) * np.float32(sigma)
    return np.asarray(np.clip(picture + noise, 0, 1), np.float32)


def correlated_noise(picture: Single, covariance: Float, rng: np.random.Generator) -> Single:
    """Normal noise whose colours have a covariance (3, 3), positive semidefinite, in units of white squared."""
    values, axes = np.linalg.eigh(covariance)
    root = (axes * np.sqrt(np.maximum(values, 0))).astype(np.float32)  # root root^T = covariance
    noise = rng.standard_normal(picture.shape, np.float32) @ root.T
    return np.asarray(np.clip(picture + noise, 0, 1), np.float32)


def poisson_noise(picture: Single, scale: float, rng: np.random.Generator, *, grey: bool = False) -> Single:
    """Poisson noise of Real-ESRGAN, on sRGB values.

    A picture, rounded to 8 bits, of so many distinct values is a count of v photons at white, v the next power of two;
    what Poisson(v x) / v misses of x is added, times `scale` (BasicSR: data/degradations.py).

    Args:
        picture: (H, W, 3); clipped first, because no Poisson law has a negative mean.
        scale: factor of the noise.
        rng: where the noise comes from.
        grey: the same noise for the three colours, drawn for the luma.
    """
    base = (picture @ _GREY)[:, :, None] if grey else picture
    base = np.rint(np.clip(base, 0, 1) * np.float32(255)).astype(np.uint8)
    photons = 2.0 ** math.ceil(math.log2(np.count_nonzero(np.bincount(base.ravel()))))
    mean = base / 255.0
    noise = rng.poisson(photons * mean) / photons - mean
    return np.asarray(np.clip(picture + scale * noise, 0, 1), np.float32)


def shot_noise(picture: Single, photons: float, rng: np.random.Generator) -> Single:
    """Poisson noise of ImageNet-C, on sRGB values: Poisson(photons x) / photons; x is clipped to [0, 1] first."""
    counts = rng.poisson(photons * np.clip(picture, 0, 1).astype(np.float64))
    return np.clip(counts / photons, 0, 1).astype(np.float32)
