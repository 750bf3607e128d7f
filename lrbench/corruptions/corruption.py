"""How a degradation serves whole pictures and crops, and the seeds of its random numbers."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from lrbench.corruptions.resampling import Single, inside, to_float, to_pixels, warp
from lrbench.datasets.images import Pixels
from lrbench.geometry import Float, Size

SEVERITIES = (1, 2, 3, 4, 5)
"""From mild to hard, as in ImageNet-C."""


@dataclass(frozen=True, kw_only=True)
class Corruption(ABC):
    """A degradation that may blur, add noise and compress. Its `vars` are plain numbers and words, for records.

    Attributes:
        finer: a crop is first sampled bilinearly on a grid at least this many times finer ...
        finest_side: ... and then on one fine enough for the photograph, unless its longer side gets longer than this.
    """

    finer: int = 4
    finest_side: int = 4096

    graded: ClassVar[bool] = False
    """It comes in severities 1 to 5."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What records call it."""

    @classmethod
    @abstractmethod
    def at(cls, severity: int) -> Self:
        """The degradation of a severity, 1 to 5; 0 for degradations without severities."""

    @abstractmethod
    def apply(self, picture: Single, size: Size, rng: np.random.Generator, *, cropped: bool) -> Single:
        """Make a picture small, with all that a camera does to it.

        Args:
            picture: (H, W, 3) float32 sRGB in [0, 1].
            size: of the result, not larger.
            rng: where all random numbers come from.
            cropped: the result is a crop of the file it stands for, so block grids may start anywhere.

        Returns:
            (h, w, 3) in [0, 1], not rounded.
        """

    def shrink(self, image: Pixels, size: Size, rng: np.random.Generator) -> Pixels:
        """Image (H, W, 3) to the whole image at another, not larger size (h, w, 3); the factors are w / W and h / H."""
        return to_pixels(self.apply(to_float(image), size, rng, cropped=False))

    def crop(self, image: Pixels, matrix: Float, size: Size, rng: np.random.Generator) -> Pixels:
        """A crop as if cut from a degraded photograph, of whatever is the size of the crop's px.

        Blur, noise and compression see the edge of the image repeated beyond it; then what lies outside gets black, so
        that there is neither noise nor a false edge. A crop that enlarges the image is cut bilinearly first.

        Args:
            image: (H, W, 3) uint8.
            matrix: (2, 3) image px -> crop px; any rotation.
            size: of the crop.
            rng: where all random numbers come from.

        Returns:
            (h, w, 3) uint8
        """
        picture = warp(image, matrix, size, finer=self.finer, finest_side=self.finest_side)
        return to_pixels(self.apply(picture, size, rng, cropped=True) * inside(image, matrix, size))


def check_severity(name: str, severity: int, *, graded: bool = True) -> None:
    """Refuse severities that do not exist.

    Raises:
        ValueError: not in 1 to 5, or not 0 where there are none.
    """
    if graded and severity not in SEVERITIES:
        raise ValueError(f"preset {name}: severity {severity}; expected 1 (mild) to 5 (hard)")
    if not graded and severity != 0:
        raise ValueError(f"preset {name} has no severities: severity {severity}; leave it out")


def seed_of(
    preset: str,
    level: str,
    severity: int,
    scale: float | Size,
    run_seed: int,
    image_id: int,
    annotation_id: int | None = None,
) -> int:
    """Seed for `numpy.random.default_rng`, one per picture or crop, so that neither order nor workers matter.

    Args:
        preset: name as in records.
        level: ``image``, ``crop`` or ``height``.
        severity: 0 where there are none.
        scale: factor by which pictures shrink, size of the crops, or height of the persons in px.
        run_seed: chosen by the user.
        image_id: of the annotation file.
        annotation_id: of the person, for crops.

    Returns:
        The first 8 bytes of the SHA-256 of these words, as a big-endian integer.
    """
    amount = str(scale) if isinstance(scale, Size) else f"{scale:.12g}"  # 4 and 4.0 are the same
    words = ["lrbench-degrade/1", preset, level, severity, amount, run_seed, image_id]
    if annotation_id is not None:
        words.append(annotation_id)
    return int.from_bytes(hashlib.sha256("|".join(map(str, words)).encode()).digest()[:8], "big")
