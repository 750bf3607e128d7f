"""The degradations of this package by name."""

from __future__ import annotations

from lrbench.corruptions.bsrgan import BSRGAN
from lrbench.corruptions.camera import Sensor, Surveillance
from lrbench.corruptions.corruption import Corruption
from lrbench.corruptions.imagenet_c import Blur, Gauss, Jpeg, Shot
from lrbench.corruptions.realesrgan import RealESRGAN
from lrbench.structures import unknown

CORRUPTIONS: dict[str, type[Corruption]] = {
    "sensor": Sensor,
    "surveillance": Surveillance,
    "realesrgan": RealESRGAN,
    "bsrgan": BSRGAN,
    "jpeg": Jpeg,
    "gauss": Gauss,
    "blur": Blur,
    "shot": Shot,
}
"""By the name they are asked for."""

SUMMARIES: dict[str, str] = {
    "sensor": "distance and low light: lens, pixel area, photon and read noise",
    "surveillance": "surveillance camera: lens, motion, noise, sharpening, H.264 (JPEG without PyAV)",
    "realesrgan": "blur, resize, noise and JPEG twice (Real-ESRGAN)",
    "bsrgan": "blur, resize, noise and JPEG in random order (BSRGAN); for training",
    "jpeg": "antialias, then JPEG as in ImageNet-C",
    "gauss": "antialias, then normal noise as in ImageNet-C",
    "blur": "antialias, then Gaussian blur as in ImageNet-C",
    "shot": "antialias, then Poisson noise as in ImageNet-C",
}
"""One line each, for lists."""


def load_corruption(name: str, severity: int = 0) -> Corruption:
    """The degradation of that name.

    Args:
        name: of `CORRUPTIONS`, or ``surveillance-jpeg`` for what ``surveillance`` is without PyAV.
        severity: 1 to 5; 0 for ``realesrgan`` and ``bsrgan``.

    Raises:
        ValueError: no such degradation or severity.
    """
    if name == "surveillance-jpeg":
        return Surveillance.coded(severity, "jpeg")
    if name not in CORRUPTIONS:
        raise ValueError(unknown("degradation", name, CORRUPTIONS))
    return CORRUPTIONS[name].at(severity)
