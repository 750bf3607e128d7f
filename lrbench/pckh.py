"""PCKh, MPII's measure: a joint is found if it is predicted within a share of the head's length (released HRNet code).

The length is 0.6 of the diagonal of the head box. Joints that are not labelled do not count; those of a person without
prediction are missed. A group of joints has the mean of its left and its right rate, ``mean`` is the rate of all joints
but pelvis and thorax.

Three thresholds are kept apart: what the released HRNet code, and SimpleBaseline and DARK with it, prints as "PCKh@0.1"
is the value at 0.11, four points higher for HRNet-W32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrbench.datasets.coco import PERSON, Json, is_whole
from lrbench.datasets.images import DataError
from lrbench.structures import MPII, Persons, Predictions

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

REFEREE = "lrbench.pckh"
"""What records call the one who counts."""

SC_BIAS = 0.6
"""Length of a head as a share of the diagonal of its box."""

THRESHOLDS = {"pckh50": 0.5, "pckh10": 0.1, "pckh11": 0.11}
"""Shares of the length of the head, by name of the metric; ``pckh11`` is what HRNet's tables call PCKh@0.1."""

GROUPS = {
    "head": (9,),
    "shoulder": (12, 13),
    "elbow": (11, 14),
    "wrist": (10, 15),
    "hip": (2, 3),
    "knee": (1, 4),
    "ankle": (0, 5),
}
"""Joints of `lrbench.structures.MPII`, in the order in which tables print them."""

COUNTED = [k for k, name in enumerate(MPII.keypoints) if name not in ("pelvis", "thorax")]
"""Joints of the mean; the upper neck is one of them, though of no group."""


def correct(predicted: Array, truth: Array, missing: Flags, head_boxes: Array, threshold: float) -> Flags:
    """Which joints are found.

    Args:
        predicted, truth: (N, 16, 2) px.
        missing: (N, 16) joints that are not labelled.
        head_boxes: (N, 4) two opposite corners x1, y1, x2, y2, px.
        threshold: share of the length of the head, itself included.

    Returns:
        (N, 16), False where missing.
    """
    length = SC_BIAS * np.linalg.norm(head_boxes[:, 2:] - head_boxes[:, :2], axis=1)
    # divided as the released code does, so that ties fall alike
    distance = np.linalg.norm(predicted - truth, axis=2) / length[:, None]
    return np.asarray((distance <= threshold) & ~missing)


def rates(hits: NDArray[Any], counted: NDArray[Any]) -> dict[str, float | None]:
    """Found shares by group, and their ``mean``; None where nothing is labelled.

    Args:
        hits: (16,) how often each joint is found.
        counted: (16,) how often it is labelled.
    """
    shares: dict[str, float | None] = {}
    for group, joints in GROUPS.items():
        sides = [hits[k] / counted[k] for k in joints if counted[k]]
        shares[group] = float(np.mean(sides)) if sides else None
    total = counted[COUNTED].sum()
    return shares | {"mean": float(hits[COUNTED].sum() / total) if total else None}


def pckh(
    predicted: Array, truth: Array, missing: Flags, head_boxes: Array, threshold: float = 0.5
) -> dict[str, float | None]:
    """PCKh by group and ``mean``, as fractions; arguments as in `correct`."""
    found = correct(predicted, truth, missing, head_boxes, threshold)
    return rates(found.sum(0), (~missing).sum(0))


@dataclass(frozen=True, eq=False)
class PCKhCounts:
    """Found and labelled joints of every picture, which can be drawn again and again.

    Attributes:
        images: (I,) int64 ids.
        hits: (3, I, 16) found joints, for each of `THRESHOLDS`.
        counted: (I, 16) labelled joints.
    """

    images: NDArray[np.int64]
    hits: NDArray[np.int64]
    counted: NDArray[np.int64]

    @classmethod
    def of(cls, truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> PCKhCounts:
        """Compare results with annotations.

        Args:
            truth: COCO annotations with ``head_box`` of every person (`lrbench.datasets.mpii`).
            results: as `to_results` gives them; at most one for each person.

        Raises:
            DataError: a result without person, of an unknown one, of one that has another, or with malformed keypoints.
        """
        persons = truth["annotations"]
        row_of = {person["id"]: row for row, person in enumerate(persons)}
        predicted = np.full((len(persons), len(MPII), 2), np.inf)
        for number, result in enumerate(results):
            given, image = result.get("person"), result.get("image_id")
            row = row_of.pop(given, None) if is_whole(given) else None
            if row is None:
                raise DataError(f"result {number}: person {given!r}; expected ids of annotated persons, each once")
            if image != persons[row]["image_id"]:
                raise DataError(
                    f"result {number}: person {given} is in image {persons[row]['image_id']}, not in {image!r}"
                )
            try:
                predicted[row] = np.asarray(result["keypoints"], np.float64).reshape(len(MPII), 3)[:, :2]
            except (KeyError, TypeError, ValueError):
                raise DataError(f"result {number}: expected {len(MPII)} keypoints as x, y, score ...") from None
        labelled = np.array([p["keypoints"] for p in persons], np.float64).reshape(-1, len(MPII), 3)
        missing = labelled[:, :, 2] == 0
        heads = np.array([p["head_box"] for p in persons], np.float64).reshape(-1, 4)
        images = np.array([image["id"] for image in truth["images"]], np.int64)
        place = {int(number): i for i, number in enumerate(images)}
        image = np.array([place[p["image_id"]] for p in persons], np.int64)

        def by_image(flags: Flags) -> NDArray[np.int64]:
            counts = np.zeros((len(images), len(MPII)), np.int64)
            np.add.at(counts, image, flags)
            return counts

        found = [correct(predicted, labelled[:, :, :2], missing, heads, share) for share in THRESHOLDS.values()]
        return cls(images, np.stack([by_image(flags) for flags in found]), by_image(~missing))

    def metrics(self, weights: NDArray[np.integer[Any]] | None = None) -> dict[str, float | None]:
        """``pckh50``, ``pckh10`` and ``pckh11`` of all joints, and ``pckh50_head`` ... of the groups, as fractions.

        Args:
            weights: (I,) how many times each picture is there; once without.
        """
        once = np.ones(len(self.images), np.int64) if weights is None else weights
        by_threshold = [rates(once @ hits, once @ self.counted) for hits in self.hits]
        scores = {name: shares["mean"] for name, shares in zip(THRESHOLDS, by_threshold, strict=True)}
        return scores | {f"pckh50_{group}": by_threshold[0][group] for group in GROUPS}


def to_results(predictions: Predictions, persons: Persons) -> list[Json]:
    """One result for each person, as MPII is scored: no rescoring, no suppression; ``person`` is the annotation's id.

    Args:
        predictions: of these persons, in their order.
        persons: annotated ones.

    Raises:
        ValueError: they are detections, which belong to nobody.
    """
    if not persons.annotated:
        raise ValueError("PCKh asks where the joints of each annotated person are, not who is there; use --boxes gt")
    return [
        {
            "image_id": int(image),
            "category_id": PERSON,
            "person": int(person),
            "keypoints": [float(v) for v in keypoints.ravel()],
            "score": float(keypoints[:, 2].mean()),
        }
        for image, person, keypoints in zip(predictions.image_id, persons.id, predictions.keypoints, strict=True)
    ]
