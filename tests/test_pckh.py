"""PCKh against a plain loop over the definition, its thresholds, groups, and counts by picture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from lrbench.datasets.images import DataError
from lrbench.pckh import COUNTED, GROUPS, THRESHOLDS, PCKhCounts, correct, pckh, to_results
from lrbench.structures import MPII, Persons, Predictions


def scene(seed: int = 0, persons: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Predictions, truth, flags of missing joints and head boxes, with errors of about the threshold."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0, 300, (persons, 16, 2))
    corner = rng.uniform(0, 300, (persons, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(10, 60, (persons, 2))], axis=1)
    return (
        truth + rng.normal(0, rng.choice([2, 4, 15], (persons, 1, 1)), truth.shape),
        truth,
        rng.random((persons, 16)) < 0.2,
        boxes,
    )


def by_definition(predicted: Any, truth: Any, missing: Any, boxes: Any, threshold: float) -> dict[str, float]:
    """One joint of one person after the other, by the names of the joints."""
    share: dict[str, float] = {}
    hits = total = 0
    for k, name in enumerate(MPII.keypoints):
        right = labelled = 0
        for n in range(len(truth)):
            if missing[n][k]:
                continue
            x1, y1, x2, y2 = boxes[n]
            head = 0.6 * math.hypot(x2 - x1, y2 - y1)
            labelled += 1
            right += math.dist(predicted[n][k], truth[n][k]) <= threshold * head
        share[name] = right / labelled
        if name not in ("pelvis", "thorax"):
            hits, total = hits + right, total + labelled
    groups = {g: (share[f"left_{g}"] + share[f"right_{g}"]) / 2 for g in GROUPS if g != "head"}
    return {"head": share["head_top"], **groups, "mean": hits / total}


@pytest.mark.parametrize("threshold", [0.5, 0.11, 0.1])
def test_definition(threshold: float):
    expected = by_definition(*scene(), threshold)
    assert 0.05 < expected["mean"] < 0.95
    assert len(set(expected.values())) == 8
    assert pckh(*scene(), threshold) == pytest.approx(expected, abs=1e-12)


def test_groups_are_the_joints_of_their_names():
    for group, joints in GROUPS.items():
        names = {"head_top"} if group == "head" else {f"left_{group}", f"right_{group}"}
        assert {MPII.keypoints[k] for k in joints} == names
    assert [MPII.keypoints[k] for k in range(16) if k not in COUNTED] == ["pelvis", "thorax"]


def test_by_hand():
    """A head box of 30x40 px has a diagonal of 50, so the head is 30 px long."""
    truth = np.full((1, 16, 2), 100.0)
    predicted = truth.copy()
    predicted[0, 0, 0] += 15  # right ankle: 0.5 heads, which is still found
    predicted[0, 5, 1] -= 15.01  # left ankle: just beyond
    predicted[0, 10, 0] += 3.15  # right wrist: 0.105 heads, where PCKh@0.1 and the released "PCKh@0.1" differ
    predicted[0, 6] = predicted[0, 7] = 0  # pelvis and thorax are in no number
    missing = np.zeros((1, 16), bool)
    missing[0, 9] = True
    given = predicted, truth, missing, np.array([[10.0, 20, 40, 60]])
    assert correct(*given, 0.5).sum() == 12
    at_half = {**dict.fromkeys(GROUPS, 1.0), "head": None, "ankle": 0.5, "mean": 12 / 13}
    assert pckh(*given) == at_half
    assert pckh(*given, 0.11)["wrist"] == 1
    assert pckh(*given, 0.1)["wrist"] == 0.5
    assert pckh(*given, 0.1)["mean"] == pytest.approx(10 / 13)


def annotated(given: tuple[np.ndarray, ...], images: np.ndarray) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same persons as annotations and results; person n has id 7 n + 3."""
    predicted, truth, missing, boxes = given
    annotations, results = [], []
    for n, image in enumerate(images.tolist()):
        flags = np.where(missing[n], 0, 2)
        keypoints = np.column_stack([truth[n], flags]).ravel().tolist()
        annotations.append({"id": 7 * n + 3, "image_id": image, "keypoints": keypoints, "head_box": boxes[n].tolist()})
        points = np.column_stack([predicted[n], np.ones(16)]).ravel().tolist()
        results.append({"image_id": image, "person": 7 * n + 3, "keypoints": points})
    return {"images": [{"id": i} for i in (5, 2, 9, 4)], "annotations": annotations}, results


class TestCounts:
    images = np.random.default_rng(1).choice([5, 2, 9], 40)  # nobody is in picture 4

    def test_metrics_are_those_of_all_persons(self):
        truth, results = annotated(scene(), self.images)
        scores = PCKhCounts.of(truth, results[::-1]).metrics()
        assert list(scores) == [*THRESHOLDS, *(f"pckh50_{group}" for group in GROUPS)]
        for name, threshold in THRESHOLDS.items():
            assert scores[name] == pytest.approx(by_definition(*scene(), threshold)["mean"], abs=1e-12)
        groups = {k.removeprefix("pckh50_"): v for k, v in scores.items() if "_" in k}
        whole = by_definition(*scene(), 0.5)
        assert groups == pytest.approx({k: whole[k] for k in GROUPS}, abs=1e-12)
        assert scores["pckh10"] < scores["pckh11"] < scores["pckh50"]

    def test_weights_are_copies_of_pictures(self):
        counts = PCKhCounts.of(*annotated(scene(), self.images))
        assert counts.images.tolist() == [5, 2, 9, 4]
        drawn = {5: 2, 2: 0, 9: 3, 4: 1}
        again = np.concatenate([np.flatnonzero(self.images == i) for i, n in drawn.items() for _ in range(n)])
        whole = pckh(*(array[again] for array in scene()))
        scores = counts.metrics(np.array([drawn[i] for i in counts.images.tolist()]))
        assert scores["pckh50"] == pytest.approx(whole["mean"], abs=1e-12)
        assert scores["pckh50_knee"] == pytest.approx(whole["knee"], abs=1e-12)
        assert set(counts.metrics(np.array([0, 0, 0, 1])).values()) == {None}

    def test_person_without_prediction_is_missed(self):
        _, truth, missing, boxes = scene()
        everything = annotated((truth, truth, missing, boxes), self.images)
        assert PCKhCounts.of(*everything).metrics()["pckh10"] == 1
        scores = PCKhCounts.of(everything[0], everything[1][10:]).metrics()
        counted = ~missing[:, COUNTED]
        assert scores["pckh50"] == pytest.approx(counted[10:].sum() / counted.sum(), abs=1e-12)
        assert PCKhCounts.of(everything[0], []).metrics()["pckh50"] == 0

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"person": 4}, "result 1: person 4; expected ids of annotated persons, each once"),
            ({"person": 3}, "result 1: person 3; expected ids of annotated persons, each once"),
            ({"person": None}, "result 1: person None"),
            ({"person": [10]}, r"result 1: person \[10\]"),
            ({"image_id": 4}, r"result 1: person 10 is in image \d, not in 4"),
            ({"keypoints": [1.0] * 47}, "result 1: expected 16 keypoints"),
            ({"keypoints": None}, "result 1: expected 16 keypoints"),
        ],
    )
    def test_refusals(self, change: dict[str, Any], message: str):
        truth, results = annotated(scene(), self.images)
        results[1] |= change
        with pytest.raises(DataError, match=message):
            PCKhCounts.of(truth, results)


def test_results_are_those_of_the_persons():
    predicted, truth, missing, boxes = scene(persons=3)
    persons = Persons(
        id=np.array([3, 10, 17]),
        image=np.array([1, 0, 1]),
        box=np.ones((3, 4)),
        score=np.ones(3),
        keypoints=truth,
        visible=np.where(missing, 0, 2).astype(np.int8),
        annotated=True,
        skeleton=MPII,
    )
    scores = np.linspace(0, 1, 48).reshape(3, 16, 1)
    predictions = Predictions(
        np.array([2, 5, 2]), np.concatenate([predicted, scores], axis=2), np.ones(3), np.ones(3), MPII
    )
    results = to_results(predictions, persons)
    assert [(r["image_id"], r["person"], r["category_id"]) for r in results] == [(2, 3, 1), (5, 10, 1), (2, 17, 1)]
    assert results[1]["score"] == pytest.approx(scores[1].mean())
    counts = PCKhCounts.of(annotated((predicted, truth, missing, boxes), np.array([2, 5, 2]))[0], results)
    assert counts.metrics()["pckh50"] == pytest.approx(pckh(predicted, truth, missing, boxes)["mean"])
    detected = Persons(**{**vars(persons), "annotated": False})
    with pytest.raises(ValueError, match="use --boxes gt"):
        to_results(predictions, detected)
