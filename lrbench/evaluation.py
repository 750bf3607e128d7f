"""From keypoints in image px to COCO's numbers: rescoring, OKS-NMS, and a referee."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrbench.datasets.coco import PERSON
from lrbench.matching import Pairs, average_precisions
from lrbench.records import METRICS, Metrics
from lrbench.referee import Referee, chosen, referee
from lrbench.structures import COCO, Predictions, Rescoring, Skeleton

Array = NDArray[np.float64]

OKS_NMS = 0.9
"""A person more similar than this to one of higher score is dropped (released HRNet code)."""


def rescore(box_score: Array, keypoint_scores: Array, rule: Rescoring = Rescoring()) -> Array:
    """Scores of persons, (N,); the product is 0 where no keypoint counts.

    Args:
        box_score: (N,)
        keypoint_scores: (N, K)
        rule: see `Rescoring`.
    """
    if rule.form == "sum":
        return np.asarray(box_score + keypoint_scores.mean(1) + keypoint_scores.max(1))
    counted = keypoint_scores > rule.confident
    total = np.where(counted, keypoint_scores, 0).sum(1)
    return np.asarray(box_score * total / np.maximum(counted.sum(1), 1))


def oks(keypoints: Array, area: float, others: Array, areas: Array, skeleton: Skeleton = COCO) -> Array:
    """Similarity of one prediction with others, all keypoints counted (released HRNet code).

    Args:
        keypoints: (K, 2 or more) px.
        area: px².
        others: (N, K, 2 or more) px.
        areas: (N,) px².
        skeleton: of the keypoints.

    Returns:
        (N,) in [0, 1].
    """
    squared = ((others[:, :, :2] - keypoints[None, :, :2]) ** 2).sum(2)
    variance = (2 * np.array(skeleton.sigmas)) ** 2
    # np.spacing(1) keeps a division by zero areas away, as in pycocotools
    scaled = squared / variance / ((area + areas) / 2 + np.spacing(1))[:, None] / 2
    return np.asarray(np.exp(-scaled).mean(1))


def oks_nms(
    keypoints: Array, area: Array, score: Array, threshold: float = OKS_NMS, skeleton: Skeleton = COCO
) -> NDArray[np.int64]:
    """Greedy suppression within one picture: rows to keep, best first.

    Args:
        keypoints: (N, K, 2 or more) px.
        area: (N,) px².
        score: (N,)
        threshold: rows more similar than this to a kept one are dropped.
        skeleton: of the keypoints.
    """
    order = np.argsort(score)[::-1]  # not stable on purpose: the released code breaks ties this way
    keep = []
    while len(order):
        best, rest = order[0], order[1:]
        keep.append(best)
        similarity = oks(keypoints[best], area[best], keypoints[rest], area[rest], skeleton)
        order = rest[similarity <= threshold]
    return np.array(keep, np.int64)


def to_results(
    predictions: Predictions, rule: Rescoring = Rescoring(), *, nms: float = OKS_NMS
) -> list[dict[str, Any]]:
    """Rescore, suppress, and lay out as a COCO keypoint result, picture by picture, best persons first.

    No `bbox` is written: it would change the areas by which pycocotools sorts unmatched detections into AP(M), AP(L).

    Args:
        predictions: of all pictures.
        rule: of rescoring.
        nms: persons more similar than this to a better one are dropped; 1 drops nobody.
    """
    score = rescore(predictions.box_score, predictions.keypoints[:, :, 2], rule)
    rows_of: dict[int, list[int]] = {}
    for row, image_id in enumerate(predictions.image_id.tolist()):
        rows_of.setdefault(image_id, []).append(row)
    results = []
    for image_id, rows in rows_of.items():
        keep = [0]
        if len(rows) > 1:
            keypoints, area = predictions.keypoints[rows], predictions.area[rows]
            keep = oks_nms(keypoints, area, score[rows], nms, predictions.skeleton).tolist()
        for row in (rows[kept] for kept in keep):
            results.append(
                {
                    "image_id": image_id,
                    "category_id": PERSON,
                    "keypoints": predictions.keypoints[row].ravel().tolist(),
                    "score": float(score[row]),
                }
            )
    return results


def referees() -> str:
    """Who computes the numbers of a record, with versions."""
    usual, keypoints = referee("pycocotools"), chosen()
    return str(usual) if keypoints == usual else f"{usual}, AP per keypoint {keypoints}"


def score(annotations: Mapping[str, Any], results: Sequence[Mapping[str, Any]], skeleton: Skeleton = COCO) -> Metrics:
    """COCO's ten keypoint metrics by pycocotools, as fractions.

    Args:
        annotations: a COCO keypoint file.
        results: a COCO keypoint result.
        skeleton: of the keypoints.
    """
    return summarised(accumulated(annotations, results, skeleton))


def summarised(evaluator: Any) -> Metrics:
    """The ten numbers of an evaluator of all areas (`accumulated`)."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.summarize()
    # pycocotools says -1 where there is no person of that kind
    return Metrics(**{k: float(v) if v > -1 else None for k, v in zip(METRICS, evaluator.stats, strict=True)})


def score_keypoints(
    annotations: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    skeleton: Skeleton = COCO,
    *,
    pairs: Pairs | None = None,
) -> dict[str, float | None]:
    """AP of every keypoint alone: OKS of that keypoint only, persons without it ignored.

    Matched by `lrbench.matching`, or by as many evaluations as there are keypoints of the referee that
    `lrbench.referee.VARIABLE` names.

    Args:
        annotations: a COCO keypoint file.
        results: a COCO keypoint result.
        skeleton: of the keypoints.
        pairs: of these annotations and results, where they are known.

    Raises:
        RuntimeError: see `Pairs.of`.
    """
    if chosen() != referee("pycocotools"):
        return one_by_one(annotations, results, skeleton, chosen())
    pairs = pairs or Pairs.of(accumulated(annotations, results, skeleton, areas=("all",)))
    # without a box or a mask the area is the extent of the keypoints, which one alone has not
    sized = any(results[0].get(key) for key in ("bbox", "segmentation")) if results else False
    ignored = pairs.crowd | ~pairs.labelled.T | pairs.afar
    outside = np.broadcast_to(pairs.outside & sized, (len(skeleton), len(pairs.score)))
    matches = pairs.matches(pairs.of_keypoints(), ignored, outside, skeleton.keypoints)
    return dict(zip(skeleton.keypoints, average_precisions(matches), strict=True))


def one_by_one(
    annotations: Mapping[str, Any], results: Sequence[Mapping[str, Any]], skeleton: Skeleton, by: Referee
) -> dict[str, float | None]:
    """What `score_keypoints` gives, by a whole evaluation of a referee for each keypoint."""
    scores: dict[str, float | None] = {}
    for k, name in enumerate(skeleton.keypoints):
        # a person without the keypoint is ignored by the distance of all predicted ones to its box, so all
        # are put where this one is
        alone = [{**r, "keypoints": list(r["keypoints"][3 * k : 3 * k + 3]) * len(skeleton)} for r in results]
        reduced = []
        for annotation in annotations["annotations"]:
            keypoints = np.array(annotation.get("keypoints", np.zeros(3 * len(skeleton)))).reshape(-1, 3)
            keypoints[np.arange(len(skeleton)) != k] = 0
            count = int(keypoints[k, 2] > 0)
            reduced.append({**annotation, "keypoints": keypoints.ravel().tolist(), "num_keypoints": count})
        evaluator = accumulated({**annotations, "annotations": reduced}, alone, skeleton, areas=("all",), by=by)
        scores[name] = average_precision(evaluator)
    return scores


def average_precision(evaluator: Any, area: int = 0) -> float | None:
    """AP of an evaluator's range of area, a fraction; None where it has no person (`accumulated`)."""
    precision = evaluator.eval["precision"][:, :, :, area]
    counted = precision[precision > -1]
    return float(counted.mean()) if len(counted) else None


def _nobody(annotations: Mapping[str, Any], skeleton: Skeleton) -> dict[str, Any]:
    """A person far outside the first picture: pycocotools cannot read a result without any."""
    far = [-1e6, -1e6, 0.0] * len(skeleton)
    return {"image_id": annotations["images"][0]["id"], "category_id": PERSON, "keypoints": far, "score": 0.0}


def accumulated(
    annotations: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    skeleton: Skeleton = COCO,
    *,
    areas: Sequence[str] | None = None,
    by: Referee | None = None,
) -> Any:
    """An evaluator with pycocotools' interface, after matching and accumulation.

    Args:
        annotations: a COCO keypoint file; pycocotools asks for ``area`` of every person.
        results: a COCO keypoint result.
        skeleton: of the keypoints.
        areas: labels of the ranges of area that are looked at, of ``all``, ``medium`` and ``large``; None for all.
        by: whose evaluator; None for pycocotools'.

    Raises:
        ValueError: the skeleton has no sigmas.
    """
    if not skeleton.sigmas:
        raise ValueError(f"skeleton {skeleton.name!r} has no sigmas, which OKS needs; score it by PCKh instead")
    found = results or [_nobody(annotations, skeleton)]
    return (by or referee("pycocotools")).accumulated(annotations, found, skeleton, areas=areas)
