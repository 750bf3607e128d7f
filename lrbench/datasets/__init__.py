"""Datasets by name: ``synth`` (embedded), ``coco`` (a full download), or a folder.

What lies in a folder tells its layout: COCO, MPII, CrowdPose, or LSP-extended, see `LAYOUTS`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import platformdirs

from lrbench.datasets import coco, crowdpose, lspet, mpii
from lrbench.datasets.coco import Dataset, Rules
from lrbench.datasets.images import DataError
from lrbench.structures import Skeleton

if TYPE_CHECKING:
    from lrbench.inference import Progress

SYNTH, COCO = "synth", "coco"


class Layout(Protocol):
    """What a module of `LAYOUTS` has."""

    @property
    def RULES(self) -> Rules:
        """What is a sample, and how it is scored."""

    def found(self, root: Path) -> bool:
        """Whether a folder is in this layout, told by the names of its files."""

    def read(self, root: Path, split: str, *, name: str | None, need_images: bool) -> Dataset:
        """One split."""


LAYOUTS: tuple[Layout, ...] = (lspet, coco, mpii, crowdpose)
"""The first that fits a folder reads it."""


def cache_folder() -> Path:
    """Where data made by lrbench is kept: ``LRBENCH_CACHE``, else the user's cache folder."""
    given = os.environ.get("LRBENCH_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("lrbench"))


def default_data() -> str:
    """``LRBENCH_DATA``, else ``synth``."""
    return os.environ.get("LRBENCH_DATA") or SYNTH


def folder_of(data: str, *, workers: int | None = None, progress: Progress | None = None) -> tuple[str, Path]:
    """Name and folder of a dataset; ``synth`` is made on first use.

    Args:
        data: ``synth``, ``coco`` or a folder.
        workers: processes that make ``synth``; by default one per core.
        progress: called while it is made.

    Raises:
        DataError: no such folder.
    """
    if data == SYNTH:
        from lrbench.datasets.synth import SynthSpec, build
        from lrbench.records import key_of

        spec = SynthSpec()
        root = cache_folder() / f"synth-{key_of(vars(spec))}"
        report = None if progress is None else (lambda done, total: progress("make synth", done, total, ""))
        root.parent.mkdir(parents=True, exist_ok=True)
        return SYNTH, build(root, spec, workers=workers or os.cpu_count() or 1, progress=report)
    if data == COCO:
        given = os.environ.get("LRBENCH_COCO")
        if not given:
            raise DataError("--data coco: set LRBENCH_COCO to a COCO 2017 folder, or give its path as --data PATH")
        data = given
    root = Path(data)
    if not root.is_dir():
        raise DataError(
            f"--data {data}: not a folder; expected synth, coco or a folder in the layout of COCO, MPII or CrowdPose"
        )
    return root.resolve().name, root


def layout_of(data: str) -> Layout:
    """The layout of a dataset: COCO's for names, and for folders that fit none: reading them says what is missing."""
    if data in (SYNTH, COCO):
        return coco
    return next((layout for layout in LAYOUTS if layout.found(Path(data))), coco)


def skeleton_of(data: str) -> Skeleton:
    """Which keypoints a dataset labels, told by the layout of its folder; nothing is read or made."""
    return layout_of(data).RULES.skeleton


def shared_skeleton(data: str, train_data: str | None = None) -> Skeleton:
    """Which keypoints a method estimates that is trained and scored on these data; see `skeleton_of`.

    Args:
        data: that is scored.
        train_data: that is trained on; None for the same.

    Raises:
        ValueError: they label different ones.
    """
    scored, trained = skeleton_of(data), skeleton_of(train_data or data)
    if scored != trained:
        raise ValueError(
            f"--train-data {train_data}: labels the {len(trained)} keypoints of {trained.name}, --data {data} the "
            f"{len(scored)} of {scored.name}; train and score on data of the same keypoints"
        )
    return scored


def open_dataset(data: str, split: str, *, need_images: bool = True, progress: Progress | None = None) -> Dataset:
    """Read one split of a dataset given by name or folder.

    Raises:
        DataError: anything missing, unreadable or contradictory.
    """
    name, root = folder_of(data, progress=progress)
    return layout_of(data).read(root, split, name=name, need_images=need_images)
