"""Scores: what a record gets, and the check of two implementations against each other."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_crowdpose
import tiny_mpii

from lrbench import evaluation, scoring, statistics
from lrbench.bench import Bench
from lrbench.cells import Cell
from lrbench.crowding import easy_medium_hard
from lrbench.datasets import open_dataset
from lrbench.datasets.coco import Rules
from lrbench.diagnosis import PCK_ALPHAS
from lrbench.geometry import Size
from lrbench.pckh import PCKhCounts
from lrbench.predictions import evaluate_predictions
from lrbench.records import Metrics, Record, predictions_path
from lrbench.structures import CROWDPOSE


@pytest.fixture
def truth(tiny_data: Path) -> dict:
    return tiny.read(tiny_data)


def test_scores_are_those_of_the_parts(tiny_data: Path, truth: dict):
    dataset, results = open_dataset(str(tiny_data), "val"), tiny.guesses(truth, 3)
    scores = scoring.score(dataset, truth, results, crop_scale={a["id"]: 0.5 for a in truth["annotations"]})
    assert scores.metrics == evaluation.score(truth, results)
    assert scores.keypoint_ap == evaluation.score_keypoints(truth, results)
    assert scores.ci95 == statistics.intervals(statistics.bootstrap(scores.matches, resamples=1000, seed=0))
    assert scores.ci95["ap"][0] <= scores.metrics.ap <= scores.ci95["ap"][1]
    assert scores.diagnosis.crop_error == pytest.approx(0.5 * scores.diagnosis.pixel_error)
    assert scores.bootstrap == scoring.BOOTSTRAP
    assert "matches" not in scores.of_record()


def test_no_results_are_scored_as_nothing(tiny_data: Path, truth: dict):
    scores = scoring.score(open_dataset(str(tiny_data), "val"), truth, [])
    assert (scores.metrics.ap, scores.diagnosis.undetected) == (0, 1)
    assert scores.ci95["ap"] == (0, 0)


def test_another_accumulation_is_refused(tiny_data: Path, truth: dict, monkeypatch: pytest.MonkeyPatch):
    of = statistics.Matches.of
    wrong = classmethod(lambda cls, evaluator: dataclasses.replace(m := of(evaluator), matched=~m.matched))
    monkeypatch.setattr(statistics.Matches, "of", wrong)
    with pytest.raises(RuntimeError, match=r"^ap is \S+ by pycocotools and \S+ by our accumulation"):
        scoring.score(open_dataset(str(tiny_data), "val"), truth, tiny.guesses(truth, 3))


def kept(results: Path, record: Record) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(gzip.decompress(predictions_path(results, record).read_bytes()))
    return rows


def evaluated(data: Path, folder: Path) -> Record:
    """The mean pose on a data set, after its training."""
    where = {"data": str(data), "runs": folder / "runs", "results": folder / "results"}
    cell = Cell(method="meanpose", res=Size(64, 64), recipe="quick", workers=0, **where)
    bench = Bench()
    bench.prepare(cell)
    return bench.evaluate(cell)


def test_mpii_is_scored_by_pckh(tmp_path: Path):
    data = tiny_mpii.write(tmp_path / "mpii")
    record = evaluated(data, tmp_path)
    rows = kept(tmp_path / "results", record)
    counts = PCKhCounts.of(open_dataset(str(data), "val").truth(), rows)
    assert record.metrics == Metrics()
    assert record.further == counts.metrics()
    assert 0 < record.further["pckh50"] < 1
    low, high = record.further_ci95["pckh50"]
    assert low <= record.further["pckh50"] <= high
    drawn = [counts.metrics(w)["pckh50"] for w in statistics.draw(len(counts.images), 1000, 0)]
    assert (low, high) == statistics.interval(np.array([np.nan if v is None else v for v in drawn]))
    assert len(rows) == record.counts.persons == record.counts.crops
    # the same as a file of another tool
    file = tmp_path / "tool.json"
    file.write_text(json.dumps(rows))
    again = evaluate_predictions(file, str(data), "val", tmp_path / "other")
    assert (again.further, again.further_ci95) == (record.further, record.further_ci95)
    assert record.diagnosis is None
    assert (
        scoring.headline(open_dataset(str(data), "val"), open_dataset(str(data), "val").truth(), rows)
        == (record.further["pckh50"])
    )


def test_crowdpose_has_no_sizes_in_an_audit_and_a_ceiling_either(tmp_path: Path):
    root = tiny_crowdpose.write(tmp_path / "crowd")
    found = Bench().ceiling(Cell(method="hrnet", res=Size(64, 48), data=str(root), recipe="quick"))
    assert found["metrics"]["ap"] > 0.5
    assert (found["metrics"]["ap_m"], found["metrics"]["ar_m"]) == (None, None)
    assert set(found["ci95"]) == {"ap", "ap50", "ap75", "ar", "ar50", "ar75"}
    truth = open_dataset(str(root), "val").truth()
    assert scoring.measured(truth, [], CROWDPOSE)[0].ap_m is None


def test_crowdpose_tells_easy_from_hard_pictures_and_no_sizes(tmp_path: Path):
    data = tiny_crowdpose.write(tmp_path / "crowd")
    dataset = open_dataset(str(data), "val")
    truth = dataset.truth()
    scores = scoring.score(dataset, truth, tiny.guesses(truth, 3))
    assert scores.further == easy_medium_hard(truth, tiny.guesses(truth, 3))
    assert scores.metrics.ap > 0
    assert (scores.metrics.ap_m, scores.metrics.ar_l) == (None, None)
    assert {"ap", "ar"} <= set(scores.ci95) <= {"ap", "ap50", "ap75", "ar", "ar50", "ar75"}
    for name, (low, high) in scores.further_ci95.items():
        assert low <= scores.further[name] <= high


def slow_pck(truth: dict[str, Any], results: list[dict[str, Any]], alpha: float) -> float:
    """Share of labelled keypoints within `alpha` times the longer side of the box, each person with its own result."""
    right = total = 0
    for person, result in zip(truth["annotations"], results, strict=True):
        points, found = (np.reshape(row["keypoints"], (-1, 3)) for row in (person, result))
        labelled = points[:, 2] > 0
        apart = np.linalg.norm((points - found)[labelled, :2], axis=1)
        right += (apart <= alpha * max(person["bbox"][2:])).sum()
        total += labelled.sum()
    return right / total


@pytest.mark.parametrize("area", [None, 1.0])
def test_without_areas_pck_counts(tiny_data: Path, truth: dict[str, Any], area: float | None):
    """Also where the area that somebody made up would leave everybody without a match."""
    if area is not None:
        truth["annotations"] = [{**a, "area": area} for a in truth["annotations"]]
    dataset = dataclasses.replace(open_dataset(str(tiny_data), "val"), rules=Rules(metric="pck"))
    results = tiny.guesses(truth, 6)
    scores = scoring.score(dataset, truth, results)
    expected = {f"pck{round(100 * alpha):02d}": slow_pck(truth, results, alpha) for alpha in PCK_ALPHAS}
    assert scores.further == pytest.approx(expected)
    assert list(scores.diagnosis.pck.values()) == list(scores.further.values())
    assert scores.metrics == Metrics()
    assert (scores.diagnosis.errors, scores.diagnosis.heights, scores.matches) == ({}, [], None)
    low, high = scores.further_ci95["pck10"]
    assert low < scores.further["pck10"] < high
    assert scoring.headline(dataset, truth, results) == scores.further["pck10"]
