"""Cameras that are far away: a plain sensor, and a surveillance camera with its motion, sharpening and codec.

Lens and pixel area act on sRGB values, like every other shrink here; photons are counted in linear light. The numbers
are the project's own proposals, not calibrated against footage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np

from lrbench.corruptions.blur import filtered, gaussian_blur, line, sharpened
from lrbench.corruptions.compression import H264_BLOCK, JPEG_BLOCK, grid_offset, h264, has_h264, jpeg
from lrbench.corruptions.corruption import Corruption, check_severity
from lrbench.corruptions.noise import sensor_noise
from lrbench.corruptions.resampling import Single, resize
from lrbench.geometry import Size

WHITE = (5000.0, 2000.0, 800.0, 300.0, 120.0)
"""Electrons at white by severity. With `READ`, mid grey (0.2 of white) has signal-to-noise 31.6 19.8 12.1 6.1 2.6."""
READ = (2.0, 3.0, 4.0, 6.0, 8.0)
"""Standard deviation of the read noise by severity, electrons."""


@dataclass(frozen=True, kw_only=True)
class Sensor(Corruption):
    """Distance and low light: lens, pixel area, photon and read noise.

    Attributes:
        severity: 1 to 5, of the noise.
        lens: sigma of the lens, px of the small picture; 0.3 to 0.6 is a lens about as good as its sensor.
        white: electrons at white; None for no noise at all.
        read: standard deviation of the read noise, electrons.
    """

    severity: int
    lens: float = 0.45
    white: float | None
    read: float

    graded: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """See `Corruption`."""
        return "sensor"

    @classmethod
    def at(cls, severity: int) -> Self:
        """See `Corruption`."""
        check_severity("sensor", severity)
        return cls(severity=severity, white=WHITE[severity - 1], read=READ[severity - 1])

    def apply(self, picture: Single, size: Size, rng: np.random.Generator, *, cropped: bool) -> Single:
        """See `Corruption`."""
        picture = gaussian_blur(picture, self.lens * _factor(picture, size))
        small = resize(picture, size, "area")
        return small if self.white is None else sensor_noise(small, self.white, self.read, rng)


@dataclass(frozen=True, kw_only=True)
class Surveillance(Corruption):
    """A surveillance camera: lens, motion, pixel area, noise, sharpening, video.

    Attributes:
        severity: 1 to 5.
        lens: sigma of the lens, px of the small picture.
        motion: length of the way that the scene moves while the shutter is open, in a random direction, px of the
            small picture.
        white: electrons at white; None for no noise. Severity n has the noise of `Sensor` n - 1.
        read: standard deviation of the read noise, electrons.
        amount: of the unsharp mask.
        radius: sigma of the unsharp mask, px of the small picture.
        codec: ``h264``, or ``jpeg`` where PyAV is missing; the name tells them apart.
        crf: constant rate factor of ``h264``.
        frames: length of its clip.
        shake: largest shift of a frame, px.
        quality: of ``jpeg``.
    """

    severity: int
    lens: float = 0.6
    motion: float
    white: float | None
    read: float
    amount: float = 0.5
    radius: float = 1.0
    codec: Literal["h264", "jpeg"]
    crf: int
    frames: int = 8
    shake: int = 2
    quality: int

    graded: ClassVar[bool] = True
    MOTION: ClassVar[tuple[float, ...]] = (0.0, 0.0, 1.0, 2.0, 3.0)
    CRF: ClassVar[tuple[int, ...]] = (23, 28, 33, 38, 43)
    QUALITY: ClassVar[tuple[int, ...]] = (60, 45, 30, 20, 12)

    @property
    def name(self) -> str:
        """``surveillance``, or ``surveillance-jpeg`` without video."""
        return "surveillance" if self.codec == "h264" else "surveillance-jpeg"

    @classmethod
    def at(cls, severity: int) -> Self:
        """The camera of a severity; with H.264 where PyAV is installed, else with JPEG, which its name says."""
        return cls.coded(severity, "h264" if has_h264() else "jpeg")

    @classmethod
    def coded(cls, severity: int, codec: Literal["h264", "jpeg"]) -> Self:
        """The camera of a severity with that codec, whether or not it is installed."""
        check_severity("surveillance", severity)
        i = severity - 1
        return cls(
            severity=severity,
            motion=cls.MOTION[i],
            white=None if i == 0 else WHITE[i - 1],
            read=0.0 if i == 0 else READ[i - 1],
            codec=codec,
            crf=cls.CRF[i],
            quality=cls.QUALITY[i],
        )

    def apply(self, picture: Single, size: Size, rng: np.random.Generator, *, cropped: bool) -> Single:
        """See `Corruption`.

        Raises:
            RuntimeError: codec ``h264`` without PyAV.
        """
        s = _factor(picture, size)
        picture = gaussian_blur(picture, self.lens * s)
        if self.motion > 0:
            picture = filtered(picture, line(self.motion * s, rng.uniform(0, math.pi)))
        small = resize(picture, size, "area")
        if self.white is not None:
            small = sensor_noise(small, self.white, self.read, rng)
        small = sharpened(small, self.amount, self.radius)
        if self.codec == "jpeg":
            return jpeg(small, self.quality, grid_offset(JPEG_BLOCK, rng, cropped=cropped))
        offset = grid_offset(H264_BLOCK, rng, cropped=cropped)
        return h264(small, self.crf, rng, frames=self.frames, shake=self.shake, offset=offset)


def _factor(picture: Single, size: Size) -> float:
    """Px of the picture per px of the small one; the mean of both sides, whose rounding differs a little."""
    height, width = picture.shape[:2]
    return math.sqrt(height / size.height * width / size.width)
