"""Scores: what a record gets, and the check of two implementations against each other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tiny

from lrbench import evaluation, scoring, statistics
from lrbench.datasets import open_dataset


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
