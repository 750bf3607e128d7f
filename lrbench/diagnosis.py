"""What AP does not tell: who was not found, how far off keypoints are and in which way, AP by height of the persons.

Persons are matched with predictions as pycocotools matches them (per image, best score first, the best 20, crowds and
persons without labelled keypoints ignored), but from OKS 0.1 on instead of 0.5, so that bad predictions are looked at
as well. AP by height is matched like any AP.

Errors after Ronchi and Perona, "Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation" (ICCV 2017, Sec.
3.1), from memory: the threshold 0.1, the bounds 0.5 and 0.85 and the kinds. A predicted keypoint p has with a labelled
location j of a person of area s² the similarity

    ks(p, j) = exp(-|p - j|² / (2 s² k_j²)),  k_j twice the sigma of j.

With its own location: from 0.85 on it is ``good``, from 0.5 on ``jitter``. Below, it has a ks of 0.5 or more with the
same keypoint of the other side of its person (``inversion``), or with that keypoint of another person of the image, of
either side (``swap``), whichever is more similar, its own person first; or with none (``miss``). Choices of ours, where
the source is silent or not at hand: s and k belong to the location, and to mend a keypoint is to put it exactly where
it belongs, scores as they were.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrbench.evaluation import accumulated, average_precision
from lrbench.records import Diagnosis, HeightBin
from lrbench.statistics import Matches, draw, interval
from lrbench.structures import COCO, Skeleton

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

MATCHED = 0.1
"""OKS from which on a prediction is matched with a person (Ronchi and Perona)."""

GOOD, NEAR = 0.85, 0.5
"""Keypoint similarities that bound a good keypoint and a jittered, inverted or swapped one (Ronchi and Perona)."""

KINDS = ("good", "jitter", "inversion", "swap", "miss")

PCK_ALPHAS = (0.05, 0.1, 0.2)
"""Shares of the longer side of the box."""

HEIGHTS = (0.0, 32.0, 64.0, 96.0, 128.0, 256.0)
"""Where bins of height begin, image px; each ends where the next begins, the last nowhere."""


@dataclass(frozen=True, eq=False)
class Matching:
    """The P persons that count, image by image, and the predictions they were matched with.

    Attributes:
        image: (P,) image ids; the persons of an image follow each other.
        person: (P,) annotation ids.
        prediction: (P,) ids that pycocotools gave the predictions, from 1; 0 for persons without.
        predicted: (P, K, 2) px of the image; NaN for persons without.
        truth: (P, K, 2) px of the image.
        labelled: (P, K)
        area: (P,) px².
        box: (P, 2) width and height, px.
    """

    image: NDArray[np.int64]
    person: NDArray[np.int64]
    prediction: NDArray[np.int64]
    predicted: Float
    truth: Float
    labelled: Bool
    area: Float
    box: Float

    @property
    def matched(self) -> Bool:
        """(P,)"""
        return self.prediction > 0

    @property
    def distance(self) -> Float:
        """(P, K) px of the image; NaN for persons without a prediction."""
        return np.asarray(np.linalg.norm(self.predicted - self.truth, axis=2))


def diagnose(
    annotations: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    skeleton: Skeleton = COCO,
    *,
    crop_scale: Mapping[int, float] | None = None,
    heights: Sequence[float] = HEIGHTS,
    resamples: int = 1000,
    seed: int = 0,
    least: float = MATCHED,
) -> Diagnosis:
    """Everything there is to say of a result but its metrics.

    Args:
        annotations: a COCO keypoint file.
        results: a COCO keypoint result.
        skeleton: of the keypoints.
        crop_scale: px of the network's input per px of the image, by annotation id; persons without one do not count
            for `Diagnosis.crop_error`. None leaves it out.
        heights: where bins begin, ascending, px.
        resamples, seed: of the intervals of `Diagnosis.heights`.
        least: see `match`.

    Raises:
        ValueError: the skeleton has no sigmas, or the heights do not ascend.
    """
    if not skeleton.sigmas:
        raise ValueError(f"skeleton {skeleton.name!r} has no sigmas, which OKS needs; score it by PCKh instead")
    if any(low >= high for low, high in pairwise(heights)):
        raise ValueError(f"heights {tuple(heights)}: each must be above the one before, for example {HEIGHTS}")
    evaluator = accumulated(annotations, results, skeleton, areas=("all",))
    matching = match(evaluator, skeleton, least)
    kinds = kinds_of_errors(matching, skeleton)
    distances = np.where(matching.labelled, matching.distance, np.nan)
    crop_error = None
    if crop_scale is not None:
        scale = np.array([crop_scale.get(person, np.nan) for person in matching.person.tolist()])
        crop_error = _median(distances * scale[:, None])
    found = kinds[kinds >= 0]
    return Diagnosis(
        heights=by_height(evaluator, matching, heights, resamples=resamples, seed=seed),
        pck={f"{alpha:g}": pck(matching, alpha) for alpha in PCK_ALPHAS},
        pixel_error=_median(distances),
        crop_error=crop_error,
        errors={name: float((found == i).mean()) for i, name in enumerate(KINDS)} if len(found) else {},
        gains=gains(evaluator, matching, kinds),
        undetected=float(1 - matching.matched.mean()) if len(matching.person) else None,
    )


def match(evaluator: Any, skeleton: Skeleton = COCO, least: float = MATCHED) -> Matching:
    """Match persons with predictions.

    Args:
        evaluator: of `lrbench.evaluation.accumulated`, for all areas.
        skeleton: of the keypoints.
        least: OKS from which on; 0 takes whatever a picture has, where areas are nothing to go by.
    """
    low = _evaluated(evaluator, known=evaluator.ious, iouThrs=np.array([least]))
    rows = [
        (image["image_id"], person, int(prediction))
        for image in low.evalImgs
        if image is not None
        for person, prediction, ignored in zip(image["gtIds"], image["gtMatches"][0], image["gtIgnore"], strict=True)
        if not ignored
    ]
    k = len(skeleton)
    persons = evaluator.cocoGt.loadAnns([person for _, person, _ in rows])
    ids = np.array([prediction for _, _, prediction in rows], np.int64)
    predicted = np.full((len(rows), k, 2), np.nan)
    predicted[ids > 0] = _keypoints(evaluator.cocoDt.loadAnns(ids[ids > 0].tolist()), k)[:, :, :2]
    truth = _keypoints(persons, k)
    return Matching(
        image=np.array([image for image, _, _ in rows], np.int64),
        person=np.array([person for _, person, _ in rows], np.int64),
        prediction=ids,
        predicted=predicted,
        truth=truth[:, :, :2],
        labelled=truth[:, :, 2] > 0,
        area=np.array([person["area"] for person in persons], np.float64),
        box=np.array([person["bbox"][2:] for person in persons], np.float64).reshape(-1, 2),
    )


def pck(matching: Matching, alpha: float) -> float | None:
    """Share of labelled keypoints within `alpha` times the longer side of the box; those of undetected persons are not.

    None where nothing is labelled.
    """
    return float(right(matching, alpha)[matching.labelled].mean()) if matching.labelled.any() else None


def right(matching: Matching, alpha: float) -> Bool:
    """Labelled keypoints that `pck` counts as right, (P, K)."""
    near = matching.distance <= alpha * matching.box.max(1)[:, None]  # NaN is not
    return np.asarray(near & matching.labelled)


def kinds_of_errors(matching: Matching, skeleton: Skeleton = COCO) -> NDArray[np.int64]:
    """Index in `KINDS` of every labelled keypoint of a matched person, -1 for all others: (P, K)."""
    kinds = np.full(matching.labelled.shape, -1)
    # a keypoint is mistaken for itself or for its counterpart, not for any other that lies near
    alike = np.eye(len(skeleton)) + np.eye(len(skeleton))[skeleton.mirror_order] > 0
    falloff = 2 * (2 * np.array(skeleton.sigmas)) ** 2
    borders = np.flatnonzero(np.diff(matching.image)) + 1
    for rows in np.split(np.arange(len(matching.image)), borders):
        own = np.flatnonzero(matching.matched[rows])  # n of N persons
        predicted, truth, area = matching.predicted[rows[own]], matching.truth[rows], matching.area[rows, None]
        squared = ((predicted[:, :, None, None] - truth) ** 2).sum(-1)
        # (n, K, N, K): keypoint of a prediction, location of a person; np.spacing(1) as in pycocotools
        similarity = np.exp(-squared / falloff / (area + np.spacing(1))) * matching.labelled[rows]
        similarity *= alike[:, None]
        same_person = similarity[np.arange(len(own)), :, own]  # (n, K, K)
        correct = np.diagonal(same_person, axis1=1, axis2=2)
        inverted = np.where(np.eye(len(skeleton), dtype=bool), 0, same_person).max(2)
        closest = similarity.max((2, 3), initial=0)
        kinds[rows[own]] = np.select(
            [correct >= GOOD, correct >= NEAR, (inverted >= NEAR) & (inverted >= closest), closest >= NEAR],
            [KINDS.index(kind) for kind in KINDS[:-1]],
            KINDS.index("miss"),
        )
    return np.where(matching.labelled, kinds, -1)


def gains(evaluator: Any, matching: Matching, kinds: NDArray[np.int64]) -> dict[str, float | None]:
    """AP won by putting all keypoints of a kind of error where they belong, by kind; None without persons.

    Args:
        evaluator: of `lrbench.evaluation.accumulated`, for all areas.
        matching: of its persons.
        kinds: (P, K) of `kinds_of_errors`.
    """
    before = average_precision(evaluator)
    won: dict[str, float | None] = {}
    for kind, name in enumerate(KINDS[1:], 1):
        wrong = kinds == kind
        rows = np.flatnonzero(wrong.any(1))
        ids = matching.prediction[rows].tolist()
        mended = _keypoints(evaluator.cocoDt.loadAnns(ids), kinds.shape[1])
        mended[wrong[rows], :2] = matching.truth[wrong]
        changed = {i: {"keypoints": keypoints.ravel().tolist()} for i, keypoints in zip(ids, mended, strict=True)}
        images = set(matching.image[rows].tolist())
        known = {key: value for key, value in evaluator.ious.items() if key[0] not in images}
        after = average_precision(_evaluated(evaluator, predictions=changed, known=known))
        won[name] = None if before is None or after is None else after - before
    return won


def by_height(
    evaluator: Any, matching: Matching, heights: Sequence[float] = HEIGHTS, *, resamples: int, seed: int
) -> list[HeightBin]:
    """AP by height of the person's box.

    What lies outside a bin is ignored as pycocotools ignores what lies outside a range of area: persons by the height
    of their box, unmatched predictions by the vertical extent of their keypoints.

    Args:
        evaluator: of `lrbench.evaluation.accumulated`, for all areas.
        matching: of its persons.
        heights: where bins begin, ascending, px.
        resamples, seed: see `lrbench.statistics.bootstrap`.
    """
    # pycocotools only knows ranges of area, with both ends inside; where OKS are known, it needs areas for nothing else
    persons = {i: {"area": person["bbox"][3]} for i, person in evaluator.cocoGt.anns.items()}
    rows = {i: found["keypoints"][1::3] for i, found in evaluator.cocoDt.anns.items()}
    predictions = {i: {"area": max(y) - min(y)} for i, y in rows.items()}
    ends = list(pairwise([*heights, np.inf]))
    ranges = [(low, np.nextafter(high, low)) for low, high in ends]
    labels = [f"{low:g}" for low in heights]
    known = evaluator.ious
    binned = _evaluated(
        evaluator, persons=persons, predictions=predictions, known=known, areaRng=ranges, areaRngLbl=labels
    )
    matches = Matches.of(binned)
    precision, _ = matches.accumulate(draw(len(matches.images), resamples, seed))
    box = matching.box[:, 1]
    return [
        HeightBin(
            low=low,
            high=high if high < np.inf else None,
            persons=int(((box >= low) & (box < high)).sum()),
            ap=average_precision(binned, area),
            ci95=interval(precision[:, area].mean(1)),
        )
        for area, (low, high) in enumerate(ends)
    ]


def _evaluated(
    evaluator: Any,
    *,
    known: Mapping[tuple[int, int], Any],
    persons: Mapping[int, Mapping[str, Any]] = {},
    predictions: Mapping[int, Mapping[str, Any]] = {},
    **params: Any,
) -> Any:
    """A further evaluator after matching and accumulation, for the same persons and predictions with changes.

    Args:
        evaluator: is left as it is.
        known: OKS that hold, by image and category; computing them is the most of an evaluation.
        persons, predictions: fields to change, by id.
        **params: fields of pycocotools' parameters to change.
    """
    new = copy.copy(evaluator)
    new.cocoGt, new.cocoDt = _changed(evaluator.cocoGt, persons), _changed(evaluator.cocoDt, predictions)
    new.params = copy.copy(evaluator.params)
    for name, value in params.items():
        setattr(new.params, name, value)
    compute = new.computeOks

    def oks(image: int, category: int) -> Any:
        key = (image, category)
        return known[key] if key in known else compute(image, category)

    new.computeOks = oks
    with contextlib.redirect_stdout(io.StringIO()):
        new.evaluate()
        new.accumulate()
    return new


def _changed(index: Any, fields: Mapping[int, Mapping[str, Any]]) -> Any:
    """pycocotools' index of annotations, with fields of some changed."""
    new = copy.copy(index)
    new.anns = index.anns | {i: index.anns[i] | dict(changes) for i, changes in fields.items()}
    return new


def _keypoints(annotations: Sequence[Mapping[str, Any]], k: int) -> Float:
    """(N, K, 3)"""
    return np.array([annotation["keypoints"] for annotation in annotations], np.float64).reshape(-1, k, 3)


def _median(values: Float) -> float | None:
    """Of those that are not NaN; None without any."""
    counted = values[~np.isnan(values)]
    return float(np.median(counted)) if len(counted) else None
