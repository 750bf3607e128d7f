"""One factor each, with the constants of ImageNet-C (Hendrycks and Dietterich, ICLR 2019; arXiv:1903.12261).

The picture is first made small as by preset ``antialias``; the factor is applied to the small one. ImageNet-C applies
it to pictures of 224 px, so on smaller ones the same number is harder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from lrbench.corruptions.blur import gaussian_blur
from lrbench.corruptions.compression import JPEG_BLOCK, grid_offset, jpeg
from lrbench.corruptions.corruption import Corruption, check_severity
from lrbench.corruptions.noise import gaussian_noise, shot_noise
from lrbench.corruptions.resampling import Single, bicubic
from lrbench.geometry import Size


@dataclass(frozen=True, kw_only=True)
class Jpeg(Corruption):
    """Compression.

    Attributes:
        severity: 1 to 5.
        quality: of libjpeg.
    """

    severity: int
    quality: int

    graded: ClassVar[bool] = True
    QUALITY: ClassVar[tuple[int, ...]] = (25, 18, 15, 10, 7)

    @property
    def name(self) -> str:
        """See `Corruption`."""
        return "jpeg"

    @classmethod
    def at(cls, severity: int) -> Self:
        """See `Corruption`."""
        check_severity("jpeg", severity)
        return cls(severity=severity, quality=cls.QUALITY[severity - 1])

    def apply(self, picture: Single, size: Size, rng: np.random.Generator, *, cropped: bool) -> Single:
        """See `Corruption`."""
        return jpeg(bicubic(picture, size), self.quality, grid_offset(JPEG_BLOCK, rng, cropped=cropped))


@dataclass(frozen=True, kw_only=True)
class Gauss(Corruption):
    """Normal noise on sRGB values, independent per colour.

    Attributes:
        severity: 1 to 5.
        sigma: its standard deviation; 1 is white.
    """

    severity: int
    sigma: float

    graded: ClassVar[bool] = True
    SIGMA: ClassVar[tuple[float, ...]] = (0.08, 0.12, 0.18, 0.26, 0.38)

    @property
    def name(self) -> str:
        """See `Corruption`."""
        return "gauss"

    @classmethod
    def at(cls, severity: int) -> Self:
        """See `Corruption`."""
        check_severity("gauss", severity)
        return cls(severity=severity, sigma=cls.SIGMA[severity - 1])

    def apply(self, picture: Single, size: Size, rng: np.random.Generator, *, cropped: bool) -> Single:
        """See `Corruption`."""
        return gaussian_noise(bicubic(picture, size), self.sigma, rng)


@dataclass(frozen=True, kw_only=True)
class Blur(Corruption):
    """A Gaussian over the small picture; draws nothing.

    Attributes:
        severity: 1 to 5.
        sigma: px of the small picture.
    """

    severity: int
    sigma: float

    graded: ClassVar[bool] = True
    SIGMA: ClassVar[tuple[float, ...]] = (1.0, 2.0, 3.0, 4.0, 6.0)

    @property
    def name(self) -> str:
        """See `Corruption`."""
        return "blur"

    @classmethod
    def at(cls, severity: int) -> Self:
        """See `Corruption`."""
        check_severity("blur", severity)
        return cls(severity=severity, sigma=cls.SIGMA[severity - 1])

    def apply(self, picture: Single, size: Size, rng: np.random.Generator, *, cropped: bool) -> Single:
        """See `Corruption`."""
        return gaussian_blur(bicubic(picture, size), self.sigma)


@dataclass(frozen=True, kw_only=True)
class Shot(Corruption):
    """Poisson noise on sRGB values.

    Attributes:
        severity: 1 to 5.
        photons: at white.
    """

    severity: int
    photons: float

    graded: ClassVar[bool] = True
    PHOTONS: ClassVar[tuple[float, ...]] = (60.0, 25.0, 12.0, 5.0, 3.0)

    @property
    def name(self) -> str:
        """See `Corruption`."""
        return "shot"

    @classmethod
    def at(cls, severity: int) -> Self:
        """See `Corruption`."""
        check_severity("shot", severity)
        return cls(severity=severity, photons=cls.PHOTONS[severity - 1])

    def apply(self, picture: Single, size: Size, rng: np.random.Generator, *, cropped: bool) -> Single:
        """See `Corruption`."""
        return shot_noise(bicubic(picture, size), self.photons, rng)
