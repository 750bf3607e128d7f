"""COCO records: category, polygons, run lengths, and the visibility flags an annotator would give."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from lrbench.datasets.synth.skeleton import KEYPOINTS, Array

CATEGORY: dict[str, Any] = {
    "supercategory": "person",
    "id": 1,
    "name": "person",
    "keypoints": list(KEYPOINTS),
    "skeleton": [
        [16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7], [6, 8], [7, 9], [8, 10], [9, 11],
        [2, 3], [1, 2], [1, 3], [2, 4], [3, 5], [4, 6], [5, 7],
    ],
}  # fmt: skip

SMALLEST_LABELLED_AREA = 32**2  # px; COCO labels no keypoints on small persons


def polygons(mask: Array) -> list[list[float]]:
    """Outer contours of a mask (h, w) as COCO polygons, simplified to half a pixel; empty when nothing has an area."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    result = []
    for contour in found:
        points = cv2.approxPolyDP(contour, 0.5, True)[:, 0]
        if len(points) >= 3 and cv2.contourArea(contour) >= 4:
            result.append([float(v) for v in points.ravel()])
    return result


def run_lengths(mask: Array) -> dict[str, Any]:
    """Uncompressed COCO run-length encoding of a mask (h, w): column-major, starting with the zeros."""
    flat = mask.astype(np.int8).ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    if flat[0]:
        counts.insert(0, 0)
    return {"counts": counts, "size": list(mask.shape)}


def mask_box(mask: Array) -> list[float]:
    """COCO box [x, y, w, h] of the mask's extent, px, origin at the corner of the first pixel."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return [float(columns[0]), float(rows[0]), float(columns[-1] - columns[0] + 1), float(rows[-1] - rows[0] + 1)]


def label_keypoints(
    points: Array, hidden_by_self: Array, hidden_by_other: Array, size: tuple[int, int], rng: np.random.Generator
) -> Array:
    """Visibility as COCO's annotators give it, (17, 3): x, y, v.

    Outside the image is always 0. Joints hidden behind the own body are usually guessed, those behind others less
    often, and the face of someone seen from behind is hardly ever labelled.

    Args:
        points: (17, 2) px.
        hidden_by_self, hidden_by_other: (17,) bool.
        size: image width, height in px.
        rng: the image's generator.
    """
    guess_face, guess = rng.random() < 0.1, rng.random(17)
    result = np.zeros((17, 3))
    for k, (x, y) in enumerate(np.round(points, 2)):
        if not (0 <= x <= size[0] - 1 and 0 <= y <= size[1] - 1):
            continue
        if hidden_by_self[k] or hidden_by_other[k]:
            chance = 0.65 if hidden_by_other[k] else 0.92
            if k < 3:
                chance = 0.9 * guess_face + 0.05
            elif k < 5:
                chance = 0.25
            if guess[k] > chance:
                continue
            result[k] = x, y, 1
        else:
            result[k] = x, y, 2
    return result


def person_annotation(mask: Array, keypoints: Array, visible_share: float) -> dict[str, Any]:
    """COCO annotation of one person, without ids; persons too small or too hidden lose their keypoints."""
    area = int(np.count_nonzero(mask))
    if area < SMALLEST_LABELLED_AREA or visible_share < 0.15:
        keypoints = np.zeros((17, 3))
    flat: list[float] = []
    for x, y, v in keypoints.tolist():
        flat += [x, y, int(v)]
    shapes = polygons(mask)
    return {
        "category_id": 1,
        "iscrowd": 0,
        "area": area,
        "bbox": mask_box(mask),
        "segmentation": shapes or [_box_polygon(mask_box(mask))],
        "num_keypoints": int(np.count_nonzero(keypoints[:, 2])),
        "keypoints": flat,
    }


def crowd_annotation(mask: Array) -> dict[str, Any]:
    """COCO annotation of a region with many people who are not told apart."""
    return {
        "category_id": 1,
        "iscrowd": 1,
        "area": int(np.count_nonzero(mask)),
        "bbox": mask_box(mask),
        "segmentation": run_lengths(mask),
        "num_keypoints": 0,
        "keypoints": [0] * 51,
    }


def _box_polygon(box: list[float]) -> list[float]:
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]
