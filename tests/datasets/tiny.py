"""A tiny dataset in COCO layout: a few smooth-noise JPEGs with people on them, splits train and val."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lrbench.structures import COCO

PICTURES = {"train": 4, "val": 3}
PERSONS = 3
"""Labelled persons per picture, so 12 to train on and 9 to score."""


def write(root: Path, *, folder: str = "images/{split}", names: str = "{split}") -> Path:
    """Write both splits.

    Args:
        root: folder to write into.
        folder: where the pictures of a split lie.
        names: what the annotation file calls a split.
    """
    (root / "annotations").mkdir(parents=True)
    for number, (split, pictures) in enumerate(PICTURES.items()):
        rng = np.random.default_rng(number)
        target = root / folder.format(split=split)
        target.mkdir(parents=True, exist_ok=True)
        data: dict[str, Any] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 1, "name": "person", "keypoints": list(COCO.keypoints), "skeleton": []}],
        }
        for i in range(pictures):
            image_id, height, width = 100 * (number + 1) + i, 120 + 2 * i, 161 + 3 * i
            name = f"{image_id:012d}.jpg"
            cv2.imwrite(str(target / name), picture(rng, height, width))
            data["images"].append({"id": image_id, "file_name": name, "height": height, "width": width})
            for k in range(PERSONS):
                data["annotations"].append(person(rng, 10 * image_id + k, image_id, 8 + 50 * k))
        (root / "annotations" / f"person_keypoints_{names.format(split=split)}.json").write_text(json.dumps(data))
    return root


def picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Smooth noise (h, w, 3) uint8."""
    noise = cv2.GaussianBlur(rng.uniform(0, 255, (height, width, 3)), (0, 0), 4)
    return cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def person(rng: np.random.Generator, number: int, image_id: int, left: float) -> dict[str, Any]:
    """An annotation with 16 of 17 keypoints labelled, about 40 px wide and 80 px high."""
    x, y, w, h = (round(float(v), 2) for v in (left, rng.uniform(4, 20), rng.uniform(36, 44), rng.uniform(78, 90)))
    points = rng.uniform((x, y), (x + w, y + h), (len(COCO), 2)).round(1)
    flags = rng.integers(1, 3, len(COCO))
    flags[4] = 0
    points[4] = 0
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [x, y, w, h],
        "area": round(0.6 * w * h, 2),
        "keypoints": np.column_stack([points, flags]).ravel().tolist(),
        "num_keypoints": int((flags > 0).sum()),
    }


def annotations(root: Path, split: str = "val") -> Path:
    """The annotation file of a split."""
    return root / "annotations" / f"person_keypoints_{split}.json"


def read(root: Path, split: str = "val") -> dict[str, Any]:
    """The annotations of a split."""
    return json.loads(annotations(root, split).read_text())


@contextmanager
def change(root: Path, split: str = "val") -> Iterator[dict[str, Any]]:
    """Change the annotations of a split in place."""
    data = read(root, split)
    yield data
    annotations(root, split).write_text(json.dumps(data))


def image(root: Path, split: str = "val", row: int = 0) -> Path:
    """A picture of a split in the usual layout."""
    return root / "images" / split / read(root, split)["images"][row]["file_name"]


def guesses(truth: dict[str, Any], spread: float) -> list[dict[str, Any]]:
    """Results that are off by a normal number of px, of random score."""
    rng = np.random.default_rng(0)
    rows = []
    for found in truth["annotations"]:
        points = np.array(found["keypoints"]).reshape(-1, 3)
        points[:, :2] += rng.normal(0, spread, points[:, :2].shape)
        told = {"keypoints": points.ravel().tolist(), "score": float(rng.random())}
        rows.append({"image_id": found["image_id"], "category_id": 1, **told})
    return rows
