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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrbench.evaluation import accumulated
from lrbench.matching import Pairs, average_precisions
from lrbench.records import Diagnosis, HeightBin
from lrbench.statistics import draw, interval
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
        prediction: (P,) rows in `Pairs`; -1 for persons without.
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
        return self.prediction >= 0

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
    pairs: Pairs | None = None,
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
        pairs: of these annotations and results, where they are known.

    Raises:
        ValueError: the skeleton has no sigmas, or the heights do not ascend.
        RuntimeError: see `Pairs.of`.
    """
    if any(low >= high for low, high in pairwise(heights)):
        raise ValueError(f"heights {tuple(heights)}: each must be above the one before, for example {HEIGHTS}")
    pairs = pairs or Pairs.of(accumulated(annotations, results, skeleton, areas=("all",)))
    matching = match(pairs, least)
    kinds = kinds_of_errors(matching, skeleton)
    distances = np.where(matching.labelled, matching.distance, np.nan)
    crop_error = None
    if crop_scale is not None:
        scale = np.array([crop_scale.get(person, np.nan) for person in matching.person.tolist()])
        crop_error = _median(distances * scale[:, None])
    found = kinds[kinds >= 0]
    return Diagnosis(
        heights=by_height(pairs, matching, heights, resamples=resamples, seed=seed),
        pck={f"{alpha:g}": pck(matching, alpha) for alpha in PCK_ALPHAS},
        pixel_error=_median(distances),
        crop_error=crop_error,
        errors={name: float((found == i).mean()) for i, name in enumerate(KINDS)} if len(found) else {},
        gains=gains(pairs, matching, kinds),
        undetected=float(1 - matching.matched.mean()) if len(matching.person) else None,
    )


def match(pairs: Pairs, least: float = MATCHED) -> Matching:
    """Match persons with predictions.

    Args:
        pairs: of an evaluation.
        least: OKS from which on; 0 takes whatever a picture has, where areas are nothing to go by.
    """
    ((partner,),) = pairs.partners(pairs.oks[None], pairs.ignored[None], np.array([least]))
    chosen = np.flatnonzero(partner >= 0)
    prediction = np.full(len(pairs.person_id), -1)
    prediction[partner[chosen]] = chosen  # a crowd may have several, but does not count
    rows = np.flatnonzero(~pairs.ignored)
    prediction = prediction[rows]
    predicted = np.full((len(rows), len(pairs.sigmas), 2), np.nan)
    predicted[prediction >= 0] = pairs.predicted[prediction[prediction >= 0], :, :2]
    return Matching(
        image=np.repeat(pairs.images, pairs.persons)[rows],
        person=pairs.person_id[rows],
        prediction=prediction,
        predicted=predicted,
        truth=pairs.truth[rows, :, :2],
        labelled=pairs.labelled[rows],
        area=pairs.area[rows],
        box=pairs.box[rows, 2:],
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
    # a keypoint is mistaken for itself or for its counterpart, not for any other that lies near
    mirror = np.array(skeleton.mirror_order)
    falloff = 2 * (2 * np.array(skeleton.sigmas)) ** 2
    own = np.flatnonzero(matching.matched)  # n of P persons
    # every prediction with all M persons of its image
    _, image, number = np.unique(matching.image, return_inverse=True, return_counts=True)
    beside = number[image[own]]
    begin = np.cumsum(beside) - beside  # (n,) where the M of each begin
    prediction = np.repeat(own, beside)
    person = np.arange(len(prediction)) + np.repeat(np.cumsum(number)[image[own]] - beside - begin, beside)

    def similarity(location: NDArray[np.int64]) -> Float:
        """Of all predicted keypoints with one location each, (n M, K); np.spacing(1) as in pycocotools."""
        squared = ((matching.predicted[prediction] - matching.truth[person][:, location]) ** 2).sum(-1)
        area = matching.area[person, None] + np.spacing(1)
        return np.asarray(np.exp(-squared / falloff[location] / area) * matching.labelled[person][:, location])

    same, other = similarity(np.arange(len(skeleton))), similarity(mirror)
    correct = same[person == prediction]
    inverted = np.where(mirror == np.arange(len(skeleton)), 0, other[person == prediction])
    closest = np.maximum.reduceat(np.maximum(same, other), begin) if len(own) else correct
    kinds = np.full(matching.labelled.shape, -1)
    kinds[own] = np.select(
        [correct >= GOOD, correct >= NEAR, (inverted >= NEAR) & (inverted >= closest), closest >= NEAR],
        [KINDS.index(kind) for kind in KINDS[:-1]],
        KINDS.index("miss"),
    )
    return np.where(matching.labelled, kinds, -1)


def gains(pairs: Pairs, matching: Matching, kinds: NDArray[np.int64]) -> dict[str, float | None]:
    """AP won by putting all keypoints of a kind of error where they belong, by kind; None without persons.

    Args:
        pairs: of an evaluation.
        matching: of its persons.
        kinds: (P, K) of `kinds_of_errors`.
    """
    lanes = np.tile(pairs.oks, (len(KINDS), 1))  # as it is, in place of what is good, and mended
    for kind, oks in enumerate(lanes[1:], 1):
        wrong = kinds == kind
        mended = pairs.predicted[:, :, :2].copy()
        rows = wrong.any(1)
        mended[matching.prediction[rows]] = np.where(wrong[..., None], matching.truth, matching.predicted)[rows]
        changed = np.zeros(len(mended), bool)
        changed[matching.prediction[rows]] = True
        at = np.flatnonzero(changed[pairs.prediction])
        oks[at] = pairs.similarity(at, mended[pairs.prediction[at]])
    ignored, outside = (np.tile(flags, (len(lanes), 1)) for flags in (pairs.ignored, pairs.outside))
    matches = pairs.matches(lanes, ignored, outside, KINDS)
    before, *afters = average_precisions(matches)
    return {
        name: None if before is None or after is None else after - before
        for name, after in zip(KINDS[1:], afters, strict=True)
    }


def by_height(
    pairs: Pairs, matching: Matching, heights: Sequence[float] = HEIGHTS, *, resamples: int, seed: int
) -> list[HeightBin]:
    """AP by height of the person's box.

    What lies outside a bin is ignored as pycocotools ignores what lies outside a range of area: persons by the height
    of their box, unmatched predictions by the vertical extent of their keypoints.

    Args:
        pairs: of an evaluation.
        matching: of its persons.
        heights: where bins begin, ascending, px.
        resamples, seed: see `lrbench.statistics.bootstrap`.
    """
    ends = list(pairwise([*heights, np.inf]))
    bounds = np.array(ends)[:, :, None]
    height, extent = pairs.box[:, 3], np.ptp(pairs.predicted[:, :, 1], axis=1)
    ignored = (height < bounds[:, 0]) | (height >= bounds[:, 1]) | pairs.never
    outside = (extent < bounds[:, 0]) | (extent >= bounds[:, 1])
    oks = np.tile(pairs.oks, (len(ends), 1))
    matches = pairs.matches(oks, ignored, outside, [f"{low:g}" for low in heights])
    precision, _ = matches.accumulate(draw(len(matches.images), resamples, seed))
    box = matching.box[:, 1]
    return [
        HeightBin(
            low=low,
            high=high if high < np.inf else None,
            persons=int(((box >= low) & (box < high)).sum()),
            ap=ap,
            ci95=interval(precision[:, area].mean(1)),
        )
        for area, ((low, high), ap) in enumerate(zip(ends, average_precisions(matches), strict=True))
    ]


def _median(values: Float) -> float | None:
    """Of those that are not NaN; None without any."""
    counted = values[~np.isnan(values)]
    return float(np.median(counted)) if len(counted) else None
