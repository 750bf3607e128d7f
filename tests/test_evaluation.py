"""Scores: equal to a plain pycocotools run, and to slow versions of the steps before it."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO as Annotations
from pycocotools.cocoeval import COCOeval
from reference import scoring as slow

from lrbench.evaluation import oks, oks_nms, rescore, score, score_keypoints, to_results
from lrbench.records import METRICS
from lrbench.structures import COCO, Predictions, Rescoring

NAMES = [{"id": 1, "name": "person", "keypoints": list(COCO.keypoints), "skeleton": []}]


def random_set(seed: int, pictures: int = 12, noise: float = 4.0) -> tuple[dict, list[dict]]:
    """Annotations and results: small, medium and large people, crowds, people without keypoints, empty pictures."""
    rng = np.random.default_rng(seed)
    images = [{"id": i, "width": 640, "height": 480, "file_name": f"{i}.jpg"} for i in range(1, pictures + 1)]
    annotations, results = [], []
    for image in images[1:]:  # the first has neither people nor results, the second no people
        for _ in range(0 if image["id"] == 2 else rng.integers(1, 5)):
            side = int(rng.choice([25, 60, 200]))
            x, y = rng.uniform(0, 400, 2)
            points = rng.uniform((x, y), (x + side, y + 1.5 * side), (17, 2))
            flags = rng.choice([0, 1, 2], 17, p=[0.3, 0.2, 0.5]) * (rng.random() > 0.1)
            crowd = int(rng.random() < 0.15)
            keypoints = np.column_stack([points * (flags > 0)[:, None], flags]) * (1 - crowd)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": 1,
                    "iscrowd": crowd,
                    "bbox": [x, y, side, 1.5 * side],
                    "area": 0.8 * side * side,
                    "keypoints": keypoints.ravel().tolist(),
                    "num_keypoints": int((keypoints[:, 2] > 0).sum()),
                }
            )
            for _ in range(rng.integers(0, 3)):
                shifted = points + rng.normal(0, noise * side / 60, (17, 2))
                results.append(result(image["id"], shifted, round(rng.random(), 1)))  # one decimal: many ties
    for _ in range(30):  # more than the 20 that COCO counts
        results.append(result(3, rng.uniform(0, 400, (17, 2)), round(rng.random(), 1)))
    results.append(result(2, rng.uniform(0, 400, (17, 2)), 0.5))
    order = rng.permutation(len(results))
    return {"images": images, "annotations": annotations, "categories": NAMES}, [results[i] for i in order]


def result(image_id: int, points: np.ndarray, confidence: float) -> dict:
    keypoints = np.column_stack([points, np.full(17, 0.7)])
    return {"image_id": image_id, "category_id": 1, "keypoints": keypoints.ravel().tolist(), "score": confidence}


def apart() -> tuple[dict, list[dict]]:
    """One person per picture, a fifth of their keypoints not labelled, and perfect results for all seventeen."""
    rng = np.random.default_rng(0)
    truth: dict = {"images": [{"id": i, "width": 640, "height": 480} for i in range(1, 13)], "categories": NAMES}
    truth["annotations"], results = [], []
    for image in truth["images"]:
        points = rng.uniform((100, 100), (200, 300), (17, 2))
        flags = rng.choice([0, 2], 17, p=[0.2, 0.8])
        truth["annotations"].append(
            {
                "id": image["id"],
                "image_id": image["id"],
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [100, 100, 100, 200],
                "area": 12000,
                "keypoints": np.column_stack([points * (flags > 0)[:, None], flags]).ravel().tolist(),
                "num_keypoints": int((flags > 0).sum()),
            }
        )
        results.append(result(image["id"], points, 0.9))
    return truth, results


def plain(folder: Path, truth: dict, results: list[dict]) -> list[float]:
    """What anybody gets who follows the manual of pycocotools."""
    (folder / "gt.json").write_text(json.dumps(truth))
    (folder / "dt.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        gt = Annotations(str(folder / "gt.json"))
        evaluator = COCOeval(gt, gt.loadRes(str(folder / "dt.json")), "keypoints")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats.tolist()


def perfect(truth: dict) -> list[dict]:
    return [
        {"image_id": a["image_id"], "category_id": 1, "keypoints": list(a["keypoints"]), "score": 0.9}
        for a in truth["annotations"]
        if a["num_keypoints"]
    ]


@pytest.mark.parametrize("seed", range(6))
def test_equals_pycocotools(tmp_path: Path, seed: int):
    truth, results = random_set(seed)
    before = copy.deepcopy((truth, results))
    theirs = plain(tmp_path, truth, results)
    ours = score(truth, results).model_dump()
    assert list(ours) == list(METRICS)
    assert list(ours.values()) == [None if v == -1 else v for v in theirs]
    assert 0.05 < theirs[0] < 0.95  # the set says something
    assert (truth, results) == before  # pycocotools writes into what it is given; we do not


def test_number_that_coco_does_not_have_is_none(tmp_path: Path):
    truth, results = random_set(0)
    truth["annotations"] = [a for a in truth["annotations"] if a["area"] < 96**2]
    theirs = plain(tmp_path, truth, results)
    assert theirs[4] == theirs[9] == -1
    metrics = score(truth, results)
    assert metrics.ap_l is None
    assert metrics.ar_l is None
    assert metrics.ap == theirs[0] > 0


def test_perfect_and_empty():
    truth, _ = random_set(1)
    assert score(truth, perfect(truth)).ap == 1
    assert set(score(truth, []).model_dump().values()) == {0.0}
    assert set(score_keypoints(truth, []).values()) == {0.0}


def test_perfect_keypoints():
    truth, results = apart()
    assert all(any(a["keypoints"][3 * k + 2] for a in truth["annotations"]) for k in range(17))
    assert sum(a["num_keypoints"] for a in truth["annotations"]) < 12 * 17  # persons without a keypoint are ignored
    assert score_keypoints(truth, results) == dict.fromkeys(COCO.keypoints, pytest.approx(1.0))


@pytest.mark.parametrize("shift", [90, 300])  # inside, and outside of the box made thrice as big
@pytest.mark.parametrize("k", [0, 9, 16])
def test_only_the_wrong_keypoint_drops(k: int, shift: float):
    truth, results = apart()
    for row in results:
        row["keypoints"][3 * k] += shift
    scores = score_keypoints(truth, results)
    assert scores.pop(COCO.keypoints[k]) == 0
    assert list(scores.values()) == pytest.approx([1.0] * 16)


def test_keypoint_that_nobody_has_is_none():
    truth, results = apart()
    for a in truth["annotations"]:
        a["keypoints"][15:18] = [0, 0, 0]
        a["num_keypoints"] = sum(v > 0 for v in a["keypoints"][2::3])
    scores = score_keypoints(truth, results)
    assert scores.pop("left_shoulder") is None
    assert list(scores.values()) == pytest.approx([1.0] * 16)


def test_rescore_against_the_slow_version():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 0.6, (50, 17))
    scores[3], scores[4], scores[5] = 0.1, 0.2, -1  # nothing above; exactly at the threshold; negative
    box = rng.random(50)
    for confident in (0.2, 0.02):
        theirs = [slow.rescore(b, s, confident) for b, s in zip(box.tolist(), scores.tolist(), strict=True)]
        np.testing.assert_allclose(rescore(box, scores, Rescoring(confident)), theirs, rtol=1e-12)
    assert rescore(box, scores)[3:6].tolist() == [0, 0, 0]


def clones(seed: int, n: int = 25) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.uniform(50, 400, (5, 17, 2))
    keypoints = centres[rng.integers(0, 5, n)] + rng.normal(0, rng.uniform(0, 8, (n, 1, 1)), (n, 17, 2))
    return keypoints, rng.uniform(2000, 20000, n), rng.permutation(n) / n


@pytest.mark.parametrize("seed", range(5))
def test_suppression_against_the_slow_version(seed: int):
    keypoints, area, confidence = clones(seed)
    for threshold in (0.5, 0.9):
        theirs = slow.oks_nms(keypoints.tolist(), area.tolist(), confidence.tolist(), threshold)
        assert oks_nms(keypoints, area, confidence, threshold).tolist() == theirs
    assert 5 <= len(theirs) < 25
    similarity = oks(keypoints[0], area[0], keypoints, area)
    one_by_one = [slow.oks(keypoints[0], area[0], k, a) for k, a in zip(keypoints, area, strict=True)]
    np.testing.assert_allclose(similarity, one_by_one, rtol=1e-9)
    assert similarity[0] == 1


def test_suppression_edges():
    keypoints, area, _ = clones(0, 2)
    assert oks_nms(keypoints[:0], area[:0], np.zeros(0)).tolist() == []
    assert oks_nms(keypoints[:1], area[:1], np.ones(1)).tolist() == [0]
    twins = keypoints[[0, 0]]
    assert oks_nms(twins, np.full(2, 5000.0), np.array([0.2, 0.3])).tolist() == [1]
    assert len(oks_nms(twins, np.full(2, 5000.0), np.array([0.2, 0.3]), threshold=1.0)) == 2
    assert oks_nms(twins, np.zeros(2), np.array([0.2, 0.3])).tolist() == [1]  # no division by zero


def test_results_of_predictions():
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(0, 300, (5, 17, 3))
    keypoints[:, :, 2] = rng.uniform(0.3, 1, (5, 17))
    keypoints[3, :, :2] = keypoints[1, :, :2]  # the same pose twice in picture 7, and once in picture 8
    keypoints[4, :, :2] = keypoints[1, :, :2]
    keypoints[1, :, 2], keypoints[3, :, 2] = 0.5, 0.8
    predictions = Predictions(np.array([7, 7, 8, 7, 8]), keypoints, np.full(5, 9000.0), np.array([0.9, 1, 1, 1, 1.0]))
    results = to_results(predictions)
    assert all(set(row) == {"image_id", "category_id", "keypoints", "score"} for row in results)
    assert {row["category_id"] for row in results} == {1}
    assert [row["image_id"] for row in results] == [7, 7, 8, 8]
    assert 1 not in [np.flatnonzero((keypoints == np.reshape(r["keypoints"], (17, 3))).all((1, 2)))[0] for r in results]
    best = results[np.argmax([row["score"] for row in results[:2]])]
    assert best["score"] == pytest.approx(0.8)
    np.testing.assert_array_equal(np.reshape(best["keypoints"], (17, 3)), keypoints[3])
    json.dumps(results)


def test_no_predictions():
    empty = Predictions(np.zeros(0, np.int64), np.zeros((0, 17, 3)), np.zeros(0), np.zeros(0))
    assert to_results(empty) == []
