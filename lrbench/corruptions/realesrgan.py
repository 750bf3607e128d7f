"""The second-order degradation of Real-ESRGAN (Wang et al., ICCVW 2021; arXiv:2107.10833, Sec. 3).

Numbers of the released options/train_realesrgan_x4plus.yml: blur, resize, noise and JPEG twice, with ringing.
Deviations: pictures are first brought to 4 times the target, the only scale the numbers were made for (else blur in px
would mean less the larger the photograph); JPEG is libjpeg's; every picture has its own draws, so no queue is needed;
targets are not sharpened, because there are none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from lrbench.corruptions.blur import filtered, gaussian, plateau, sinc
from lrbench.corruptions.compression import JPEG_BLOCK, grid_offset, jpeg
from lrbench.corruptions.corruption import Corruption, check_severity
from lrbench.corruptions.noise import gaussian_noise, poisson_noise
from lrbench.corruptions.resampling import Interpolation, Single, at_scale, resize
from lrbench.geometry import Float, Size

INTERPOLATIONS: tuple[Interpolation, ...] = ("area", "linear", "cubic")
"""Drawn with equal chance; the last two are not antialiased."""


@dataclass(frozen=True, kw_only=True)
class RealESRGAN(Corruption):
    """Blur, resize, noise and JPEG, twice; a name ending in 2 belongs to the second pass.

    Attributes:
        scale: the picture is first brought to this many times the target.
        size_min: smallest side of a blur kernel, odd px.
        size_max: largest side.
        ringing: chance that a blur is a sinc; cut off at cutoff_small to pi radians per px if its side is below
            size_large, else at cutoff_large to pi.
        size_large: see `ringing`.
        cutoff_small: see `ringing`.
        cutoff_large: see `ringing`.
        round_share: share of round Gaussians among the other blurs.
        turned_share: of Gaussians with two sigmas at any angle; further ...
        general_round_share: ... of generalised round Gaussians,
        general_turned_share: of generalised turned ones,
        plateau_round_share: of round plateaus; what is left are turned plateaus.
        beta_min: smallest exponent of generalised Gaussians; one half of them has beta_min to 1, the other 1 to ...
        beta_max: ... this.
        plateau_beta_max: largest exponent of plateaus, of which one half has 1.
        sigma_min: smallest sigma of a blur, px.
        sigma_max: largest sigma of the first blur, px.
        sigma_max2: of the second.
        blur2: chance of a second blur; the first always happens.
        up: chance that the first resize enlarges, by 1 to up_max.
        up_max: see `up`.
        down: chance that it shrinks, by down_min to 1; else the size stays.
        down_min: see `down`.
        up2: as `up`, for the second resize, whose factor is relative to the target.
        up_max2: see `up2`.
        down2: as `down`, for the second resize.
        down_min2: see `down2`.
        normal: chance that noise is normal, with sigma noise_min to noise_max 255ths; else it is Poisson noise.
        noise_min: see `normal`.
        noise_max: see `normal`.
        noise_max2: noise_max of the second pass.
        poisson_min: smallest scale of Poisson noise.
        poisson_max: largest scale.
        poisson_max2: largest scale in the second pass.
        grey: chance that the three colours get the same noise.
        quality_min: smallest JPEG quality.
        quality_max: largest JPEG quality.
        last_ringing: chance of a sinc after the resize to the target, cut off at cutoff_small to pi.
        jpeg_last: chance that the second JPEG follows that resize instead of preceding it.
    """

    scale: int = 4
    size_min: int = 7
    size_max: int = 21
    ringing: float = 0.1
    size_large: int = 13
    cutoff_small: float = math.pi / 3
    cutoff_large: float = math.pi / 5
    round_share: float = 0.45
    turned_share: float = 0.25
    general_round_share: float = 0.12
    general_turned_share: float = 0.03
    plateau_round_share: float = 0.12
    beta_min: float = 0.5
    beta_max: float = 4.0
    plateau_beta_max: float = 2.0
    sigma_min: float = 0.2
    sigma_max: float = 3.0
    sigma_max2: float = 1.5
    blur2: float = 0.8
    up: float = 0.2
    up_max: float = 1.5
    down: float = 0.7
    down_min: float = 0.15
    up2: float = 0.3
    up_max2: float = 1.2
    down2: float = 0.4
    down_min2: float = 0.3
    normal: float = 0.5
    noise_min: float = 1.0
    noise_max: float = 30.0
    noise_max2: float = 25.0
    poisson_min: float = 0.05
    poisson_max: float = 3.0
    poisson_max2: float = 2.5
    grey: float = 0.4
    quality_min: float = 30.0
    quality_max: float = 95.0
    last_ringing: float = 0.8
    jpeg_last: float = 0.5

    @property
    def name(self) -> str:
        """See `Corruption`."""
        return "realesrgan"

    @classmethod
    def at(cls, severity: int) -> Self:
        """See `Corruption`; there are no severities."""
        check_severity("realesrgan", severity, graded=False)
        return cls()

    def apply(self, picture: Single, size: Size, rng: np.random.Generator, *, cropped: bool) -> Single:
        """See `Corruption`."""
        full = Size(size.height * self.scale, size.width * self.scale)
        picture = filtered(at_scale(picture, size, self.scale), self._kernel(rng, self.sigma_max))
        picture = self._resized(picture, full, self._factor(rng, self.up, self.up_max, self.down, self.down_min), rng)
        picture = self._noisy(picture, rng, self.noise_max, self.poisson_max)
        picture = self._compressed(picture, rng, cropped)

        if rng.random() < self.blur2:
            picture = filtered(picture, self._kernel(rng, self.sigma_max2))
        factor = self._factor(rng, self.up2, self.up_max2, self.down2, self.down_min2)
        picture = self._resized(picture, size, factor, rng)
        picture = self._noisy(picture, rng, self.noise_max2, self.poisson_max2)
        if rng.random() < self.jpeg_last:
            return self._compressed(self._finished(picture, size, rng), rng, cropped)
        return self._finished(self._compressed(picture, rng, cropped), size, rng)

    def _kernel(self, rng: np.random.Generator, sigma_max: float) -> Float:
        side = self._side(rng)
        if rng.random() < self.ringing:
            low = self.cutoff_small if side < self.size_large else self.cutoff_large
            return sinc(side, rng.uniform(low, math.pi))
        shares = (self.round_share, self.turned_share, self.general_round_share, self.general_turned_share)
        kind = int(np.searchsorted(np.cumsum((*shares, self.plateau_round_share)), rng.random(), side="right"))
        sigma_x = sigma_y = rng.uniform(self.sigma_min, sigma_max)
        angle = 0.0
        if kind % 2:  # the turned ones
            sigma_y, angle = rng.uniform(self.sigma_min, sigma_max), rng.uniform(-math.pi, math.pi)
        if kind < 2:
            return gaussian(side, sigma_x, sigma_y, angle)
        if kind < 4:
            return gaussian(side, sigma_x, sigma_y, angle, beta=self._beta(rng, self.beta_min, self.beta_max))
        return plateau(side, sigma_x, sigma_y, angle, self._beta(rng, 1.0, self.plateau_beta_max))

    def _side(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.size_min // 2, self.size_max // 2 + 1)) * 2 + 1

    @staticmethod
    def _beta(rng: np.random.Generator, low: float, high: float) -> float:
        return float(rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high))

    @staticmethod
    def _factor(rng: np.random.Generator, up: float, up_max: float, down: float, down_min: float) -> float:
        draw = rng.random()
        if draw < up:
            return float(rng.uniform(1, up_max))
        return float(rng.uniform(down_min, 1)) if draw < up + down else 1.0

    @staticmethod
    def _resized(picture: Single, base: Size, factor: float, rng: np.random.Generator) -> Single:
        """The picture at `factor` times a size."""
        sides = (max(1, round(side * factor)) for side in (base.height, base.width))
        return resize(picture, Size(*sides), INTERPOLATIONS[rng.integers(len(INTERPOLATIONS))])

    def _noisy(self, picture: Single, rng: np.random.Generator, noise_max: float, poisson_max: float) -> Single:
        grey = bool(rng.random() < self.grey)
        if rng.random() < self.normal:
            return gaussian_noise(picture, rng.uniform(self.noise_min, noise_max) / 255, rng, grey=grey)
        return poisson_noise(picture, rng.uniform(self.poisson_min, poisson_max), rng, grey=grey)

    def _compressed(self, picture: Single, rng: np.random.Generator, cropped: bool) -> Single:
        quality = round(rng.uniform(self.quality_min, self.quality_max))
        return jpeg(picture, quality, grid_offset(JPEG_BLOCK, rng, cropped=cropped))

    def _finished(self, picture: Single, size: Size, rng: np.random.Generator) -> Single:
        """The picture at the target's size, perhaps with ringing, in [0, 1]."""
        picture = self._resized(picture, size, 1.0, rng)
        if rng.random() < self.last_ringing:
            picture = filtered(picture, sinc(self._side(rng), rng.uniform(self.cutoff_small, math.pi)))
        return np.clip(picture, 0, 1)
