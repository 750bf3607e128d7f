"""CrowdPose as it is released: ``json/crowdpose_<split>.json`` and ``images``.

COCO annotations of 14 keypoints, without areas: the official tool takes 0.53 of the box instead, for OKS too. Pictures
say how crowded they are (``crowdIndex``), by which AP is told apart, see `lrbench.crowding`. Keypoints may lie outside
of the picture.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

from lrbench.datasets.coco import Dataset, Json, Rules, assemble, listed, load, no_annotations
from lrbench.datasets.images import DataError
from lrbench.structures import CROWDPOSE

RULES = Rules(skeleton=CROWDPOSE, inside=False, counted=False)
"""``num_keypoints`` leaves out head and neck; persons of whom nothing else is labelled are ignored, as released."""

AREA_SHARE = 0.53
"""Area of a person as a share of its box (official evaluation tool)."""

_FOLDERS = ("json", "annotations", ".")
_PREFIX = "crowdpose_"


def found(root: Path) -> bool:
    """Whether a folder is in this layout."""
    return bool(_files(root))


def _files(root: Path) -> list[Path]:
    return [path for folder in _FOLDERS for path in sorted((root / folder).glob(f"{_PREFIX}*.json"))]


def find_annotations(root: Path, split: str) -> Path:
    """Annotation file of a split: ``crowdpose_<split>.json`` in ``json``, ``annotations`` or the folder itself.

    Raises:
        DataError: no such file; the message lists the splits that exist.
    """
    by_split = {path.stem.removeprefix(_PREFIX): path for path in reversed(_files(root))}
    if split not in by_split:
        raise no_annotations(root, split, list(by_split), expected="json/crowdpose_<split>.json")
    return by_split[split]


def read(root: Path, split: str, *, name: str | None = None, need_images: bool = True) -> Dataset:
    """Read one split of a CrowdPose folder.

    Args:
        root: the folder.
        split: ``train``, ``val``, ``trainval`` or ``test``.
        name: what tables call the dataset; the folder's name by default.
        need_images: refuse a dataset with missing pictures. Scoring a result file needs none.

    Raises:
        DataError: anything missing, unreadable or contradictory, with the id it concerns.
    """
    path = find_annotations(root, split)
    return assemble(root, split, name, path, partial(_annotations, path), RULES, need_images=need_images)


def _annotations(path: Path) -> Json:
    """A released file with the areas that its evaluation takes."""
    data: Json = load(path)
    for image in listed(data, "images", path):
        crowd = image.get("crowdIndex", 0)
        if not isinstance(crowd, int | float) or not math.isfinite(crowd):
            raise DataError(f"{path}: image {image.get('id')}: crowdIndex {crowd!r}, expected a number")
    for annotation in listed(data, "annotations", path):
        try:
            _, _, width, height = (float(v) for v in annotation["bbox"])
        except (KeyError, TypeError, ValueError):
            number = annotation.get("id")
            raise DataError(f"{path}: annotation {number}: expected bbox [x, y, w, h], which gives its area") from None
        annotation["area"] = AREA_SHARE * width * height
    return data
