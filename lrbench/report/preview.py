"""Contact sheet: one person through every degradation and size, to look at before a data set is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lrbench.corruptions.corruption import seed_of
from lrbench.datasets.coco import Dataset
from lrbench.datasets.images import ImageStore, Pixels
from lrbench.degradation import Preset, crop, load_preset, presets
from lrbench.geometry import Frame, Size

SIZES = tuple(Size(*sides) for sides in ((64, 48), (96, 72), (128, 96), (256, 192)))
"""Crops of the sheet's columns."""


def preview(
    dataset: Dataset, out: Path, *, person: int | None = None, severity: int | None = None, seed: int = 0
) -> Path:
    """Draw the sheet.

    Args:
        dataset: with pictures.
        out: PNG file to write.
        person: annotation id; None for the largest one of those with most labelled keypoints.
        severity: of presets that have severities; None for the usual one.
        seed: of presets that draw.

    Returns:
        `out`.

    Raises:
        ValueError: no such person.
    """
    persons, row = dataset.persons, dataset.row_of(person)
    image = ImageStore(dataset.images)[int(persons.image[row])]
    names = list(presets())
    figure = Figure(figsize=(1.6 * len(names), 2.3 * len(SIZES)), layout="constrained")
    axes = figure.subplots(len(SIZES), len(names), squeeze=False)
    for line, size in zip(axes, SIZES, strict=True):
        for axis, name in zip(line, names, strict=True):
            axis.imshow(_crop(image, dataset, row, size, name, severity, seed), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if size is SIZES[0]:
                axis.set_title(_title(name, severity), fontsize=9)
        line[0].set_ylabel(str(size), fontsize=9)
    figure.suptitle(f"{dataset.name}/{dataset.split}, person {int(persons.id[row])}, level crop", fontsize=10)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)
    return out


def _crop(image: Pixels, dataset: Dataset, row: int, size: Size, name: str, severity: int | None, seed: int) -> Pixels:
    preset = _preset(name, severity)
    frame = Frame(size, "biased")
    matrix = frame.matrix(frame.region(dataset.persons.box[row], annotated=True))
    number, person = int(dataset.images.id[dataset.persons.image[row]]), int(dataset.persons.id[row])
    rng = np.random.default_rng(seed_of(preset.name, "crop", preset.severity, size, seed, number, person))
    return crop(image, matrix, size, preset, rng)


def _title(name: str, severity: int | None) -> str:
    preset = _preset(name, severity)
    return f"{preset.name}\nseverity {preset.severity}" if preset.severity else f"{preset.name}\n"


def _preset(name: str, severity: int | None) -> Preset:
    """The preset; at its severity if it has any."""
    usual = load_preset(name)
    return load_preset(name, severity) if usual.severity and severity is not None else usual
