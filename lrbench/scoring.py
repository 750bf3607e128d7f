"""What a record says of predictions, whichever method or tool made them: metrics, intervals, diagnosis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrbench import evaluation, statistics
from lrbench.crowding import subsets
from lrbench.datasets.coco import Dataset, Metric
from lrbench.diagnosis import MATCHED, PCK_ALPHAS, diagnose, match, right
from lrbench.matching import Pairs
from lrbench.pckh import PCKhCounts
from lrbench.records import METRICS, Bootstrap, Diagnosis, Metrics
from lrbench.statistics import Matches
from lrbench.structures import COCO, CROWDPOSE, Skeleton

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


HEADLINE: Mapping[Metric, str] = {"oks": "ap", "pckh": "pckh50", "pck": "pck10"}
"""The number by which methods are ranked and epochs selected, by measure of the dataset."""


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
        results: COCO keypoint results in the same; for MPII see `lrbench.pckh.to_results`.
        crop_scale: px of the network's input per image px, by annotation id; None where they are not known.

    Raises:
        DataError: results do not belong to the persons annotated.
        RuntimeError: our matching or accumulation and pycocotools' differ, so that no interval can be trusted.
    """
    if dataset.metric == "pckh":
        counts = PCKhCounts.of(truth, results)
        return _of_further(counts.metrics(), [counts.metrics(drawn) for drawn in _draws(len(counts.images))])
    skeleton = dataset.persons.skeleton
    evaluator = evaluation.accumulated(truth, results, skeleton)  # once for all that follows
    metrics, matches = _measured(evaluator, skeleton)
    pairs = Pairs.of(evaluator)
    least = 0.0 if dataset.metric == "pck" else MATCHED  # there, areas are invented
    options = BOOTSTRAP.model_dump()
    found = diagnose(truth, results, skeleton, crop_scale=crop_scale, least=least, pairs=pairs, **options)
    if dataset.metric == "pck":
        told = Diagnosis(pck=found.pck, pixel_error=found.pixel_error, crop_error=found.crop_error)
        return dataclasses.replace(_pck(pairs), diagnosis=told)
    scores = Scores(
        metrics=metrics,
        keypoint_ap=evaluation.score_keypoints(truth, results, skeleton, pairs=pairs),
        ci95=intervals(matches, metrics),
        bootstrap=BOOTSTRAP,
        further={},
        further_ci95={},
        diagnosis=found,
        matches=matches,
    )
    return scores if skeleton != CROWDPOSE else _with_crowding(scores, truth, matches)


def headline(dataset: Dataset, truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> float:
    """The number by which an epoch is selected, a fraction; 0 where it is not defined. See `score`."""
    if dataset.metric == "pckh":
        return PCKhCounts.of(truth, results).metrics()[HEADLINE["pckh"]] or 0.0
    if dataset.metric == "pck":
        evaluator = evaluation.accumulated(truth, results, dataset.persons.skeleton, areas=("all",))
        return _pck(Pairs.of(evaluator)).further[HEADLINE["pck"]] or 0.0
    return evaluation.score(truth, results, dataset.persons.skeleton).ap or 0.0


def _draws(images: int) -> NDArray[np.int32]:
    return statistics.draw(images, BOOTSTRAP.resamples, BOOTSTRAP.seed)


def _of_further(values: Mapping[str, float | None], drawn: Sequence[Mapping[str, float | None]]) -> Scores:
    """Scores by another measure than OKS, with the same of every resample."""
    ends = {}
    for name in values:
        samples = np.array([np.nan if (value := each[name]) is None else value for each in drawn])
        if (found := statistics.interval(samples)) is not None:
            ends[name] = found
    return Scores(
        metrics=Metrics(),
        keypoint_ap={},
        ci95={},
        bootstrap=BOOTSTRAP,
        further=values,
        further_ci95=ends,
        diagnosis=None,
        matches=None,
    )


def _pck(pairs: Pairs) -> Scores:
    """PCK as `lrbench.diagnosis.pck` has it, ``pck05``, ``pck10`` and ``pck20``, with intervals over images."""
    matching = match(pairs, least=0.0)
    images, image = np.unique(matching.image, return_inverse=True)
    hits, labelled = np.zeros((len(PCK_ALPHAS), len(images))), np.zeros(len(images))
    np.add.at(labelled, image, matching.labelled.sum(1))
    for row, alpha in zip(hits, PCK_ALPHAS, strict=True):
        np.add.at(row, image, right(matching, alpha).sum(1))
    names = [f"pck{round(100 * alpha):02d}" for alpha in PCK_ALPHAS]

    def shares(drawn: NDArray[Any]) -> dict[str, float | None]:
        total = float(drawn @ labelled)
        return {n: float(drawn @ row) / total if total else None for n, row in zip(names, hits, strict=True)}

    return _of_further(shares(np.ones(len(images))), [shares(drawn) for drawn in _draws(len(images))])


def _with_crowding(scores: Scores, truth: Mapping[str, Any], matches: Matches) -> Scores:
    """The same, with AP of easy, medium and hard pictures."""
    drawn, column = _draws(len(matches.images)), METRICS.index("ap")
    values, ends = {}, {}
    for name, chosen in subsets(truth, matches.images).items():
        values[name] = matches.metrics(chosen)["ap"]
        if (found := statistics.interval(matches.resampled(drawn * chosen)[:, column])) is not None:
            ends[name] = found
    return dataclasses.replace(scores, further=values, further_ci95=ends)


def measured(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], skeleton: Skeleton = COCO
) -> tuple[Metrics, Matches]:
    """COCO's ten metrics by pycocotools, without sizes for CrowdPose, which has none, and what they come from.

    Raises:
        RuntimeError: see `score`.
    """
    return _measured(evaluation.accumulated(truth, results, skeleton), skeleton)


def _measured(evaluator: Any, skeleton: Skeleton) -> tuple[Metrics, Matches]:
    """`measured` of an evaluator of all ranges of area."""
    metrics, matches = evaluation.summarised(evaluator), Matches.of(evaluator)
    _check(metrics, matches)
    if skeleton == CROWDPOSE:
        metrics = metrics.model_copy(update={name: None for name in METRICS if name.endswith(("_m", "_l"))})
    return metrics, matches


def intervals(matches: Matches, metrics: Metrics) -> dict[str, tuple[float, float]]:
    """95 % intervals over images of the metrics that are told."""
    samples = statistics.bootstrap(matches, resamples=BOOTSTRAP.resamples, seed=BOOTSTRAP.seed)
    return {name: e for name, e in statistics.intervals(samples).items() if getattr(metrics, name) is not None}


def _check(metrics: Metrics, matches: Matches) -> None:
    """Two implementations of one number, compared wherever both are at hand."""
    for name, ours in matches.metrics().items():
        theirs = getattr(metrics, name)
        if (ours is None) != (theirs is None) or (ours is not None and not math.isclose(ours, theirs, abs_tol=1e-9)):
            raise RuntimeError(f"{name} is {theirs} by pycocotools and {ours} by our accumulation; please report this")
