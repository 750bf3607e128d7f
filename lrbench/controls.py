"""Rows that a table with upscalers needs before its gains can be read: what is super-resolution, what is not.

A pose network behind an upscaler may win because its map is larger, because it was trained on enlarged crops, or
because the crops were aliased and the upscaler smoothed them. Each control changes one of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lrbench.models.upscalers import UPSCALERS
from lrbench.weights import stated

BICUBIC = "bicubic"

USUAL_UPSCALERS = ("edsr", "srvgg", "rrdb")
"""Beside a table's own: cheaper and dearer networks trained in the same manner."""

QUICK_UPSCALERS = ("edsr", "srvgg")
"""Of these, the ones that a processor can afford."""

SECOND_PRESET = "antialias"
"""Pixels that a verdict on ``paper`` has to survive."""


@dataclass(frozen=True)
class Control:
    """What is changed in a row of a table.

    Attributes:
        row: letter of the row, for readers of the table.
        lr_preset: how low-resolution pixels are made.
        sr: upscaler; ``none`` for the method on the small crop.
        pose: see `lrbench.structures.POSES`; empty without an upscaler.
    """

    row: str
    lr_preset: str
    sr: str = "none"
    pose: str = ""


ROWS = {
    "A": "the method on the small crop",
    "B": "enlarged by bicubic interpolation, the network trained on clean crops; what enlarging alone does",
    "C": "super-resolved, the network trained on clean crops; as published",
    "D": "bicubic, the network trained on such crops; how far plain retraining goes",
    "E": "super-resolved, the network trained on what the upscaler makes; the fair baseline",
    "G": "behind an upscaler, the network trained in another way",
    "F": "all of these on other pixels; whether the verdict is about aliasing",
    "H": "the clean network on clean crops of the enlarged size; the ceiling",
}
"""What each letter stands for."""


def row_of(sr: str, pose: str) -> str:
    """Letter of a row with an upscaler, on the pixels of the printed rows."""
    if pose == "clean":
        return "B" if sr == BICUBIC else "C"
    if sr == BICUBIC and pose in ("up", "sr"):  # the same thing
        return "D"
    return "E" if pose == "sr" else "G"


def controls(upscalers: Sequence[str], poses: Sequence[str], preset: str, others: Sequence[str]) -> list[Control]:
    """Rows with an upscaler of a method, those that are printed among them.

    Args:
        upscalers: all of them, names or files, without bicubic interpolation.
        poses: asked for besides ``clean`` and ``sr``.
        preset: of the low-resolution pixels of the printed rows.
        others: presets on which everything is done again.
    """
    further = [pose for pose in poses if pose not in ("clean", "up", "sr")]
    fronts = [(BICUBIC, "clean"), *((name, "clean") for name in upscalers)]
    fronts += [(BICUBIC, "up"), *((name, pose) for pose in ("sr", *further) for name in upscalers)]
    block = [Control(row_of(*front), preset, *front) for front in fronts]
    return block + [Control("F", other, *front) for other in others for front in fronts]


def upscalers_of(label: str, given: Sequence[str], *, quick: bool) -> list[str]:
    """Upscalers of a table's rows, the one that stands for the printed name first.

    Args:
        label: as printed, for example ``SPSR x4``.
        given: by the user, names or files; empty for the usual ones.
        quick: on a processor: narrow stand-ins, and no expensive ones beside.
    """
    own = label.split()[0].casefold()
    if given:
        learned = [name for name in given if name not in ("none", BICUBIC)]
        return sorted(learned, key=lambda name: not _network_of(name).startswith(own))
    narrow = UPSCALERS[own].narrow if own in UPSCALERS else ""
    first = narrow if quick and narrow else own
    usual = QUICK_UPSCALERS if quick else USUAL_UPSCALERS
    return [first, *(name for name in usual if name != first)]


def _network_of(given: str) -> str:
    """An upscaler's name in lower case; of a file what it says of itself, or else its own name."""
    name = given if given in UPSCALERS else stated(Path(given)).get("upscaler") or Path(given).stem
    return str(name).casefold()
