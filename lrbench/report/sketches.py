"""Stick figures of predicted persons, for reports: photographs are left out, their licences rarely allow a copy.

The persons are the same for all records of a group, so that what differs between two figures is the prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrbench.records import Record
from lrbench.structures import COCO, CROWDPOSE, MPII

SHARES = (95, 75, 50, 25, 5)
"""Persons that are drawn, by the share of persons that the reference scores no higher, percent."""

SIDE = 100
"""Of the square a person is drawn in; coordinates are rounded to whole units."""

MARGIN = 0.2
"""Around the reference's keypoints, as a share of the longer side of what they span."""

SKELETONS = {len(skeleton): skeleton for skeleton in (COCO, MPII, CROWDPOSE)}

Read = Callable[[Record], Sequence[Mapping[str, Any]] | None]
"""Predictions of a record as a COCO keypoint result; None where there are none."""


@dataclass(frozen=True)
class Sketches:
    """Persons as the records of a group see them.

    Attributes:
        reference: key of the record that chose the persons.
        images: id of each person's picture.
        shares: of `SHARES`, one per person.
        bones: pairs of keypoint indices; empty for a number of keypoints that no known skeleton has.
        figures: key of the record -> per person x0, y0, x1, y1, ... in units of `SIDE`, or None where the record has
            no prediction that is near.
    """

    reference: str
    images: tuple[int, ...]
    shares: tuple[int, ...]
    bones: tuple[tuple[int, int], ...]
    figures: Mapping[str, tuple[tuple[int, ...] | None, ...]]


def sketches(records: Sequence[Record], read: Read) -> Sketches | None:
    """Choose persons, and find them again in the predictions of every record.

    The reference is the record with the highest AP, of equals that with the first key. In every other record a person
    is the prediction in the same picture whose keypoints lie nearest on average, unless that is more than half the
    square away.

    Args:
        records: of one group: the same pictures and the same keypoints.
        read: their predictions.

    Returns:
        None where no record has predictions.
    """
    for reference in sorted(records, key=_rank):
        persons = sorted(read(reference) or (), key=lambda person: float(person["score"]))
        if persons:
            break
    else:
        return None
    shares = {round((len(persons) - 1) * share / 100): share for share in SHARES}
    chosen = [persons[place] for place in shares]
    wanted = [_positions(person) for person in chosen]
    images = tuple(int(person["image_id"]) for person in chosen)
    figures = {}
    for record in records:
        rows = read(record)
        if rows is None:
            continue
        near: dict[int, list[NDArray[np.float64]]] = {image: [] for image in images}
        for row in rows:
            if row["image_id"] in near:
                near[row["image_id"]].append(_positions(row))
        figures[record.key] = tuple(_figure(person, near[image]) for person, image in zip(wanted, images, strict=True))
    skeleton = SKELETONS.get(len(wanted[0]))
    return Sketches(reference.key, images, tuple(shares.values()), skeleton.bones if skeleton else (), figures)


def _rank(record: Record) -> tuple[float, str]:
    return -(record.metrics.ap or 0.0), record.key


def _positions(person: Mapping[str, Any]) -> NDArray[np.float64]:
    """Keypoints (K, 2) of a prediction, image px."""
    return np.asarray(person["keypoints"], np.float64).reshape(-1, 3)[:, :2]


def _figure(reference: NDArray[np.float64], candidates: Sequence[NDArray[np.float64]]) -> tuple[int, ...] | None:
    """The nearest candidate in the square around the reference; None where none is near."""
    low, high = reference.min(0), reference.max(0)
    span = max(1.0, float((high - low).max())) * (1 + 2 * MARGIN)
    distances = [
        float(np.linalg.norm(own - reference, axis=1).mean()) if own.shape == reference.shape else np.inf
        for own in candidates
    ]
    if not distances or min(distances) > span / 2:
        return None
    nearest = candidates[int(np.argmin(distances))]
    units = (nearest - (low + high) / 2) * (SIDE / span) + SIDE / 2
    # one keypoint far away must not draw over other figures
    return tuple(np.rint(units.clip(0, SIDE)).astype(int).ravel().tolist())
