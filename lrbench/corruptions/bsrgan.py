"""The shuffled degradation of BSRGAN (Zhang et al., ICCV 2021; arXiv:2103.14006, Sec. 3), for training.

The random order makes results very uneven, so it diversifies training and is no preset to evaluate with. Numbers of
the released utils_blindsr.py, degradation_bsrgan. Deviations: pictures are first brought to 4 times the target; the
noise of a camera's raw processing, which happens with chance 0.25 and needs a model of a camera, is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from lrbench.corruptions.blur import filtered, gaussian
from lrbench.corruptions.compression import JPEG_BLOCK, grid_offset, jpeg
from lrbench.corruptions.corruption import Corruption, check_severity
from lrbench.corruptions.noise import correlated_noise, gaussian_noise
from lrbench.corruptions.resampling import Interpolation, Single, at_scale, bicubic, resize
from lrbench.geometry import Float, Size

INTERPOLATIONS: tuple[Interpolation, ...] = ("linear", "cubic", "area")
"""Drawn with equal chance; the first two are not antialiased."""


@dataclass(frozen=True, kw_only=True)
class BSRGAN(Corruption):
    """Two blurs, two shrinks, noise and JPEG in random order, and JPEG again. s is the factor still to shrink by.

    Attributes:
        scale: the picture is first brought to this many times the target: s at the start.
        halve: chance of a shrink by 2 before everything else.
        turned: chance that a blur is a turned Gaussian with two variances of 0 to variance_base + s px^2; else it is a
            round one with sigma 0 to sigma_base + sigma_slope s px.
        variance_base: see `turned`.
        sigma_base: see `turned`.
        sigma_slope: see `turned`.
        side_min: smallest side of a blur kernel, odd px.
        side_max: largest side.
        interpolated: chance that the first shrink interpolates, by 1 to stride_max s; else it blurs and keeps every
            s-th pixel.
        stride_max: see `interpolated`.
        stride_side: side of that blur's kernel, px.
        stride_sigma_min: smallest sigma of that blur, px.
        stride_sigma_slope: its largest sigma divided by s.
        noise_min: smallest sigma of the noise, 255ths, whole ones.
        noise_max: largest sigma.
        colour: share of noise that is independent per colour.
        grey: share of noise that is the same for the three colours; the rest has a random covariance.
        compressed: chance of the first JPEG; the last always happens.
        quality_min: smallest JPEG quality.
        quality_max: largest JPEG quality.
    """

    scale: int = 4
    halve: float = 0.25
    turned: float = 0.5
    variance_base: float = 4.0
    sigma_base: float = 2.0
    sigma_slope: float = 0.2
    side_min: int = 7
    side_max: int = 25
    interpolated: float = 0.75
    stride_max: float = 2.0
    stride_side: int = 25
    stride_sigma_min: float = 0.1
    stride_sigma_slope: float = 0.6
    noise_min: int = 2
    noise_max: int = 25
    colour: float = 0.4
    grey: float = 0.4
    compressed: float = 0.9
    quality_min: int = 30
    quality_max: int = 95

    @property
    def name(self) -> str:
        """See `Corruption`."""
        return "bsrgan"

    @classmethod
    def at(cls, severity: int) -> Self:
        """See `Corruption`; there are no severities."""
        check_severity("bsrgan", severity, graded=False)
        return cls()

    def apply(self, picture: Single, size: Size, rng: np.random.Generator, *, cropped: bool) -> Single:
        """See `Corruption`."""
        picture, s = at_scale(picture, size, self.scale), self.scale
        if s % 2 == 0 and rng.random() < self.halve:
            s //= 2
            picture = self._halved(picture, Size(size.height * s, size.width * s), rng)
        shrunk = False
        for step in rng.permutation(("blur", "blur", "shrink", "shrink", "noise", "jpeg")):
            if step == "blur":
                picture = self._blurred(picture, s, rng)
            elif step == "noise":
                picture = self._noisy(picture, rng)
            elif step == "jpeg":
                picture = self._compressed(picture, rng, cropped) if rng.random() < self.compressed else picture
            elif not shrunk:
                picture, shrunk = self._shrunk(picture, s, rng), True
            else:
                picture = resize(picture, size, _any(rng))
        return self._compressed(picture, rng, cropped)

    @staticmethod
    def _halved(picture: Single, size: Size, rng: np.random.Generator) -> Single:
        return bicubic(picture, size) if rng.random() < 0.5 else resize(picture, size, _any(rng))

    def _blurred(self, picture: Single, s: int, rng: np.random.Generator) -> Single:
        side = 2 * int(rng.integers(self.side_min // 2, self.side_max // 2 + 1)) + 1
        return filtered(picture, self._kernel(side, s, rng))

    def _kernel(self, side: int, s: int, rng: np.random.Generator) -> Float:
        # 1 - U[0, 1) is never 0, which no Gaussian may have for a sigma
        if rng.random() < self.turned:
            sigma_x, sigma_y = np.sqrt((self.variance_base + s) * (1 - rng.random(2)))
            return gaussian(side, sigma_x, sigma_y, rng.uniform(0, math.pi))
        sigma = (self.sigma_base + self.sigma_slope * s) * (1 - rng.random())
        return gaussian(side, sigma, sigma)

    def _shrunk(self, picture: Single, s: int, rng: np.random.Generator) -> Single:
        """The first of the two shrinks, to any size."""
        height, width = picture.shape[:2]
        if rng.random() < self.interpolated:
            factor = rng.uniform(1, self.stride_max * s)
            size = Size(max(1, round(height / factor)), max(1, round(width / factor)))
            return resize(picture, size, _any(rng))
        sigma = rng.uniform(self.stride_sigma_min, max(self.stride_sigma_min, self.stride_sigma_slope * s))
        # small px u lies at s u + (s - 1) / 2, not at the s u that the slice takes
        kernel = gaussian(self.stride_side, sigma, sigma, shift=(s - 1) / 2)
        return np.ascontiguousarray(filtered(picture, kernel)[::s, ::s])

    def _noisy(self, picture: Single, rng: np.random.Generator) -> Single:
        sigma, kind = int(rng.integers(self.noise_min, self.noise_max + 1)) / 255, rng.random()
        if kind < self.colour + self.grey:
            return gaussian_noise(picture, sigma, rng, grey=bool(kind < self.grey))
        axes, _ = np.linalg.qr(rng.random((3, 3)))
        return correlated_noise(picture, sigma**2 * (axes * rng.random(3)) @ axes.T, rng)

    def _compressed(self, picture: Single, rng: np.random.Generator, cropped: bool) -> Single:
        quality = int(rng.integers(self.quality_min, self.quality_max + 1))
        return jpeg(picture, quality, grid_offset(JPEG_BLOCK, rng, cropped=cropped))


def _any(rng: np.random.Generator) -> Interpolation:
    return INTERPOLATIONS[rng.integers(len(INTERPOLATIONS))]
