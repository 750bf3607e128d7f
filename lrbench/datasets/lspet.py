"""Leeds Sports Pose Extended in COCO layout: ``annotations/person_keypoints_lspet.json`` and ``images``.

One person of each picture is labelled, without the five keypoints of the face. Boxes and areas are derived from the
joints, so AP would measure invented areas: predictions are scored by PCK. Positions are MATLAB's, counted from 1, and
one px is taken from them; in a low-resolution copy that is one px of the source.

There are no official splits. ``lspet`` is all of it, ``val`` the pictures whose id is a multiple of 5 and ``train`` the
others: a rule on ids, so that copies are split as their source.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lrbench.datasets.coco import Dataset, Json, Rules, assemble, keypoints_of, listed, load, no_annotations
from lrbench.structures import COCO

RULES = Rules(metric="pck")

ALL = "lspet"
"""Name of the split that the file holds."""

HELD_OUT = 5
"""One picture of so many is for validation."""


def found(root: Path) -> bool:
    """Whether a folder is in this layout."""
    return _file(root).is_file()


def _file(root: Path) -> Path:
    return root / "annotations" / f"person_keypoints_{ALL}.json"


def read(root: Path, split: str, *, name: str | None = None, need_images: bool = True) -> Dataset:
    """Read one split.

    Args:
        root: the folder.
        split: ``lspet``, ``train`` or ``val``.
        name: what tables call the dataset; the folder's name by default.
        need_images: refuse a dataset with missing pictures. Scoring a result file needs none.

    Raises:
        DataError: anything missing, unreadable or contradictory, with the id it concerns.
    """
    path, splits = _file(root), (ALL, "train", "val")
    if not path.is_file() or split not in splits:
        raise no_annotations(root, split, splits if path.is_file() else (), expected=f"annotations/{path.name}")
    annotations = partial(_annotations, path, split)
    return assemble(root, split, name, path, annotations, RULES, need_images=need_images, pictures=ALL)


def _annotations(path: Path, split: str) -> Json:
    """The pictures of a split with their persons, pixels counted from 0."""
    data: Json = load(path)
    images = listed(data, "images", path)
    others = {str(image.get("id")) for image in images if not _belongs(image, split)}
    steps = {str(image.get("id")): image.get("lrbench_scale", (1.0, 1.0)) for image in images}
    annotations = []
    for annotation in listed(data, "annotations", path):
        image = str(annotation.get("image_id"))
        if image in others:
            continue
        where = f"{path}: annotation {annotation.get('id')}"
        moved = {"keypoints": _from_zero(annotation, where, steps.get(image, (1.0, 1.0)))}
        if "lrbench_source_keypoints" in annotation:
            before = {"keypoints": annotation["lrbench_source_keypoints"]}
            moved["lrbench_source_keypoints"] = _from_zero(before, where, (1.0, 1.0))
        annotations.append(annotation | moved)
    chosen = {key: [i for i in data[key] if _belongs(i, split)] for key in ("images", "lrbench_images") if key in data}
    return data | chosen | {"annotations": annotations}


def _belongs(image: Json, split: str) -> bool:
    number = image.get("lrbench_source_image_id", image.get("id"))
    held_out = isinstance(number, int) and number % HELD_OUT == 0
    return split == ALL or held_out == (split == "val")


def _from_zero(annotation: Json, where: str, step: tuple[float, float]) -> list[float]:
    """Keypoints of an annotation, with a step of x and y taken from the labelled ones."""
    keypoints = keypoints_of(annotation, where, COCO)
    keypoints[keypoints[:, 2] > 0, :2] -= step
    flat: list[float] = keypoints.ravel().tolist()
    return flat
