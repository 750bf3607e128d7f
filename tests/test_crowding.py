"""Easy, medium and hard: which pictures belong where, and AP as pycocotools gives it for each set by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrbench.crowding import easy_medium_hard, subsets
from lrbench.datasets.crowdpose import AREA_SHARE
from lrbench.evaluation import accumulated
from lrbench.statistics import Matches
from lrbench.structures import CROWDPOSE

Json = dict[str, Any]


def test_bounds():
    """Easy below 0.2, medium from there to below 0.8, hard from 0.8; the published index goes beyond 1."""
    index = {1: 0.0, 2: 0.199, 3: 0.2, 4: 0.5, 5: 0.799, 6: 0.8, 7: 3.02, 8: 0}
    truth = {"images": [{"id": i, "crowdIndex": v} for i, v in index.items()] + [{"id": 9}]}
    found = subsets(truth, np.arange(9, 0, -1))
    assert {k: np.flatnonzero(v[::-1]).tolist() for k, v in found.items()} == {
        "ap_easy": [0, 1, 7],
        "ap_medium": [2, 3, 4],
        "ap_hard": [5, 6],
    }


def scene(pictures: int = 24) -> tuple[Json, list[Json]]:
    """Persons with predictions of every quality, some of nobody, in pictures of every crowd index."""
    rng = np.random.default_rng(5)
    truth: Json = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    results = []
    for image in rng.permutation(pictures).tolist():
        truth["images"].append({"id": image, "crowdIndex": image / pictures})
        for _ in range(int(rng.integers(0, 5))):
            x, y, w, h = rng.uniform((0, 0, 40, 80), (200, 200, 120, 240))
            points = rng.uniform((x, y), (x + w, y + h), (14, 2))
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": image,
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": [x, y, w, h],
                    "area": AREA_SHARE * w * h,
                    "num_keypoints": 12,
                    "keypoints": np.column_stack([points, np.ones(14)]).ravel().tolist(),
                }
            )
            points = points + rng.normal(0, rng.choice([2, 8, 30]), (14, 2))
            keypoints = np.column_stack([points, np.ones(14)]).ravel().tolist()
            score = float(rng.choice([0.2, 0.5, 0.9]))  # ties, too
            results.append({"image_id": image, "category_id": 1, "keypoints": keypoints, "score": score})
    return truth, results


def by_itself(truth: Json, results: list[Json], chosen: set[int]) -> float:
    """AP of pycocotools for a file of these pictures alone."""
    part = {
        **truth,
        "images": [i for i in truth["images"] if i["id"] in chosen],
        "annotations": [a for a in truth["annotations"] if a["image_id"] in chosen],
    }
    evaluator = accumulated(part, [r for r in results if r["image_id"] in chosen], CROWDPOSE, areas=("all",))
    return float(evaluator.eval["precision"].mean())


def test_each_set_is_scored_for_itself():
    truth, results = scene()
    found = easy_medium_hard(truth, results)
    assert list(found) == ["ap_easy", "ap_medium", "ap_hard"]
    for name, chosen in (("easy", range(5)), ("medium", range(5, 20)), ("hard", range(20, 24))):
        expected = by_itself(truth, results, set(chosen))
        assert 0.01 < expected < 0.99
        assert found[f"ap_{name}"] == pytest.approx(expected, abs=1e-12)
    assert len(set(found.values())) == 3


def test_set_without_persons_is_not_measured():
    truth, results = scene()
    for image in truth["images"]:
        image["crowdIndex"] = min(image["crowdIndex"], 0.5)
    assert easy_medium_hard(truth, results)["ap_hard"] is None


@pytest.mark.coco
def test_published_example(coco_slice: Path):
    """The numbers that upstream expects of its own example, by another evaluator."""
    folder = coco_slice.parent / "evaluator-fixtures"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    expected = json.loads((folder / "expected.json").read_text())["fixtures"]["crowdpose_example/results"]["stats"]
    truth = json.loads((folder / "crowdpose_example" / "gt.json").read_text())
    results = json.loads((folder / "crowdpose_example" / "results.json").read_text())
    for annotation in truth["annotations"]:
        annotation["area"] = AREA_SHARE * annotation["bbox"][2] * annotation["bbox"][3]
    whole = Matches.of(accumulated(truth, results, CROWDPOSE, areas=("all",))).metrics()
    for name in ("AP", "AP50", "AP75", "AR", "AR50", "AR75"):
        assert whole[name.lower()] == pytest.approx(expected[name], abs=1e-9)
    found = easy_medium_hard(truth, results)
    assert {k: round(v, 4) for k, v in found.items()} == {k.lower(): v for k, v in expected.items() if "_" in k}
