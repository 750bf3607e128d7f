"""A tiny dataset in CrowdPose's released layout: smooth noise with persons on it, splits train and val."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tiny

from lrbench.structures import CROWDPOSE

CROWDED = (0.0, 0.2, 0.79, 0.8)
"""Crowd index of the pictures of each split."""

PERSONS = 3


def write(root: Path, folder: str = "json") -> Path:
    """Write both splits.

    Args:
        root: folder to write into.
        folder: of the annotations.
    """
    (root / folder).mkdir(parents=True)
    (root / "images").mkdir()
    for number, split in enumerate(("train", "val")):
        rng = np.random.default_rng(number)
        data: dict[str, Any] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 1, "name": "person", "keypoints": list(CROWDPOSE.keypoints), "skeleton": []}],
        }
        for i, crowded in enumerate(CROWDED):
            image_id, height, width = 100 * (number + 1) + i, 120 + 2 * i, 161 + 3 * i
            cv2.imwrite(str(root / "images" / f"{image_id}.jpg"), tiny.picture(rng, height, width))
            image = {"id": image_id, "file_name": f"{image_id}.jpg", "height": height, "width": width}
            data["images"].append(image | {"crowdIndex": crowded})
            data["annotations"] += [person(rng, 10 * image_id + k, image_id, 8 + 50 * k) for k in range(PERSONS)]
        (root / folder / f"crowdpose_{split}.json").write_text(json.dumps(data))
    return root


def person(rng: np.random.Generator, number: int, image_id: int, left: float) -> dict[str, Any]:
    """An annotation without area, with 13 of 14 keypoints; head and neck are not in ``num_keypoints``."""
    x, y, w, h = (round(float(v), 2) for v in (left, rng.uniform(4, 20), rng.uniform(36, 44), rng.uniform(78, 90)))
    points = rng.uniform((x, y), (x + w, y + h), (len(CROWDPOSE), 2)).round(1)
    flags = rng.integers(1, 3, len(CROWDPOSE))
    flags[4] = 0
    points[4] = 0
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [x, y, w, h],
        "keypoints": np.column_stack([points, flags]).ravel().tolist(),
        "num_keypoints": int((flags[:12] > 0).sum()),
    }


@contextmanager
def change(root: Path, split: str = "val") -> Iterator[dict[str, Any]]:
    """Change the annotations of a split in place."""
    path = root / "json" / f"crowdpose_{split}.json"
    data = json.loads(path.read_text())
    yield data
    path.write_text(json.dumps(data))
