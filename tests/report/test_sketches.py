from __future__ import annotations

from typing import Any

import numpy as np
from sample_records import record

from lrbench.records import Record
from lrbench.report.sketches import SHARES, SIDE, sketches
from lrbench.structures import COCO

POSE = np.random.default_rng(0).uniform(0, 80, (17, 2))


def person(image: int, score: float, shift: float = 0.0, pose: np.ndarray = POSE) -> dict[str, Any]:
    keypoints = np.concatenate([pose + shift, np.full((len(pose), 1), 0.5)], 1)
    return {"image_id": image, "category_id": 1, "score": score, "keypoints": keypoints.ravel().tolist()}


def read_from(files: dict[str, list[dict[str, Any]] | None]) -> Any:
    def read(own: Record) -> list[dict[str, Any]] | None:
        return files.get(own.key)

    return read


def test_persons_are_those_of_the_best_record_at_fixed_shares():
    best, other = record("one", "64x48", 0.5), record("two", "64x48", 0.2)
    crowd = [person(number, score=number) for number in range(101)]
    drawn = sketches([other, best], read_from({best.key: crowd, other.key: crowd[::-1]}))
    assert drawn is not None
    assert drawn.reference == best.key
    assert drawn.shares == SHARES
    assert drawn.images == SHARES  # of 101 persons with scores 0 to 100, the share is the score
    assert drawn.bones == COCO.bones
    assert drawn.figures[best.key] == drawn.figures[other.key]


def test_the_reference_fills_the_square_but_for_its_margin():
    best = record("one", "64x48", 0.5)
    drawn = sketches([best], read_from({best.key: [person(1, 1.0)]}))
    assert drawn is not None
    (figure,) = drawn.figures[best.key]
    points = np.array(figure).reshape(-1, 2)
    longer = int(np.argmax(np.ptp(POSE, axis=0)))
    assert points.min(0)[longer] == round(SIDE * 0.2 / 1.4)
    assert points.max(0)[longer] == round(SIDE * 1.2 / 1.4)


def test_a_person_is_the_nearest_prediction_in_the_same_picture_or_none():
    best = record("one", "64x48", 0.5)
    near, far, elsewhere, silent = (record(name, "64x48", 0.1) for name in ("near", "far", "elsewhere", "silent"))
    drawn = sketches(
        [best, near, far, elsewhere, silent],
        read_from(
            {
                best.key: [person(7, 1.0)],
                near.key: [person(7, 0.9, 500.0), person(7, 0.1, 3.0), person(8, 1.0)],
                far.key: [person(7, 0.9, 500.0)],
                elsewhere.key: [person(8, 1.0)],
            }
        ),
    )
    assert drawn is not None
    (reference,), (found,) = drawn.figures[best.key], drawn.figures[near.key]
    moved = (np.array(found) - np.array(reference)) / (SIDE / (np.ptp(POSE, axis=0).max() * 1.4))
    np.testing.assert_allclose(moved, 3.0, atol=1.2)
    assert drawn.figures[far.key] == (None,)
    assert drawn.figures[elsewhere.key] == (None,)
    assert silent.key not in drawn.figures


def test_the_next_record_chooses_where_the_best_has_no_predictions():
    best, other = record("one", "64x48", 0.5), record("two", "64x48", 0.2)
    drawn = sketches([best, other], read_from({best.key: [], other.key: [person(3, 1.0)]}))
    assert drawn is not None
    assert (drawn.reference, drawn.images) == (other.key, (3,))
    assert drawn.figures[best.key] == (None,)
    assert sketches([best, other], read_from({})) is None


def test_unknown_numbers_of_keypoints_are_drawn_without_bones():
    best = record("one", "64x48", 0.5)
    drawn = sketches([best], read_from({best.key: [person(1, 1.0, pose=POSE[:5])]}))
    assert drawn is not None
    assert drawn.bones == ()
    (figure,) = drawn.figures[best.key]
    assert figure is not None
    assert len(figure) == 10
