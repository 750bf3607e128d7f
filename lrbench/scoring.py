"""What a record says of predictions, whichever method or tool made them: metrics, intervals, diagnosis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from lrbench import evaluation, statistics
from lrbench.datasets.coco import Dataset
from lrbench.diagnosis import diagnose
from lrbench.records import Bootstrap, Diagnosis, Metrics
from lrbench.statistics import Matches
from lrbench.structures import COCO, Skeleton

BOOTSTRAP = Bootstrap(resamples=1000, seed=0)
"""Of the intervals in records; equal for all, so that differences between records are paired."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Everything of a record that follows from predictions and annotations; see `lrbench.records.Record`.

    Attributes:
        matches: which predictions count as right; None where OKS is not the measure.
    """

    metrics: Metrics
    keypoint_ap: Mapping[str, float | None]
    ci95: Mapping[str, tuple[float, float]]
    bootstrap: Bootstrap | None
    further: Mapping[str, float | None]
    further_ci95: Mapping[str, tuple[float, float]]
    diagnosis: Diagnosis | None
    matches: Matches | None

    def of_record(self) -> dict[str, Any]:
        """The fields that a record has."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "matches"}


def score(
    dataset: Dataset,
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    crop_scale: Mapping[int, float] | None = None,
) -> Scores:
    """Score predictions.

    Args:
        dataset: whose measure counts.
        truth: its annotations, in the coordinates of the original photographs.
        results: COCO keypoint results in the same.
        crop_scale: px of the network's input per image px, by annotation id; None where they are not known.

    Raises:
        RuntimeError: our accumulation and pycocotools' differ, so that no interval can be trusted.
    """
    skeleton = dataset.persons.skeleton
    metrics, matches = measured(truth, results, skeleton)
    return Scores(
        metrics=metrics,
        keypoint_ap=evaluation.score_keypoints(truth, results, skeleton),
        ci95=intervals(matches),
        bootstrap=BOOTSTRAP,
        further={},
        further_ci95={},
        diagnosis=diagnose(truth, results, skeleton, crop_scale=crop_scale),
        matches=matches,
    )


def measured(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], skeleton: Skeleton = COCO
) -> tuple[Metrics, Matches]:
    """COCO's ten metrics by pycocotools, and what they come from.

    Raises:
        RuntimeError: see `score`.
    """
    evaluator = evaluation.accumulated(truth, results, skeleton)
    metrics, matches = evaluation.summarised(evaluator), Matches.of(evaluator)
    _check(metrics, matches)
    return metrics, matches


def intervals(matches: Matches) -> dict[str, tuple[float, float]]:
    """95 % intervals over images, by metric."""
    return statistics.intervals(statistics.bootstrap(matches, resamples=BOOTSTRAP.resamples, seed=BOOTSTRAP.seed))


def _check(metrics: Metrics, matches: Matches) -> None:
    """Two implementations of one number, compared wherever both are at hand."""
    for name, ours in matches.metrics().items():
        theirs = getattr(metrics, name)
        if (ours is None) != (theirs is None) or (ours is not None and not math.isclose(ours, theirs, abs_tol=1e-9)):
            raise RuntimeError(f"{name} is {theirs} by pycocotools and {ours} by our accumulation; please report this")
