"""Who is matched with whom: many questions about one result, answered at once.

pycocotools matches image by image, once per range of area and OKS threshold, in Python. AP of 17 keypoints, by height,
or after errors were mended asks the same of the same pairs of person and prediction, only with other OKS or with other
persons ignored. Each such question is a *lane* here, and numpy goes through the ranks of the predictions for all
images, lanes and thresholds together. The rules are those of pycocotools (``cocoeval.py``: ``computeOks``,
``evaluateImg``, ``accumulate``), and `Pairs.of` only hands out pairs whose OKS and matches it has found to be those of
pycocotools on the very same set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrbench.statistics import RECALLS, Matches

Float = NDArray[np.float64]
Whole = NDArray[np.int64]
Bool = NDArray[np.bool_]

_BLOCK = 512  # images at once: what lies between the steps stays in a core's cache


@dataclass(frozen=True, eq=False)
class Pairs:
    """Persons and predictions of an evaluator as arrays, and all pairs of them that share an image.

    I images, P persons, D predictions, N pairs, K keypoints, T thresholds; A lanes. Persons and predictions are listed
    image by image; of predictions only those that count, from highest to lowest score; pairs prediction by prediction.

    Attributes:
        images: (I,) ids, ascending.
        persons, predictions: (I,) how many each image has.
        person_id: (P,) annotation ids.
        truth: (P, K, 3) px of the image, and the flag: labelled if above 0.
        area: (P,) px².
        box: (P, 4) x, y, width, height, px.
        crowd: (P,)
        never: (P,) crowds and persons without labelled keypoints, which count in no range of areas.
        afar: (P,) whether its area is outside of the range of all areas.
        predicted: (D, K, 3) px of the image, and the score.
        score: (D,)
        outside: (D,) whether it is ignored where it is unmatched, for its area.
        oks: (N,) of pycocotools.
        sigmas: (K,) of OKS.
        thresholds: (T,) OKS.
    """

    images: Whole
    persons: Whole
    predictions: Whole
    person_id: Whole
    truth: Float
    area: Float
    box: Float
    crowd: Bool
    never: Bool
    afar: Bool
    predicted: Float
    score: Float
    outside: Bool
    oks: Float
    sigmas: Float
    thresholds: Float

    @classmethod
    def of(cls, evaluator: Any) -> Pairs:
        """Read an evaluator of `lrbench.evaluation.accumulated`, by pycocotools and for all areas.

        Raises:
            ValueError: see `Matches.of`.
            RuntimeError: our OKS or matches differ from the evaluator's.
        """
        theirs = Matches.of(evaluator)
        params = evaluator._paramsEval
        keys = [(image, category) for image in params.imgIds for category in params.catIds]
        k = len(params.kpt_oks_sigmas)
        persons = [evaluator._gts[key] for key in keys]
        predictions = [found["dtIds"] if found else [] for found in evaluator.evalImgs[: len(keys)]]
        listed = [person for here in persons for person in here]
        found = evaluator.cocoDt.loadAnns([i for here in predictions for i in here])
        usual = theirs.areas.index("all")
        low, high = params.areaRng[usual]

        def out(area: Float) -> Bool:
            return np.asarray((area < low) | (area > high))

        area = np.array([person["area"] for person in listed], np.float64)
        pairs = cls(
            images=theirs.images,
            persons=np.array([len(here) for here in persons], np.int64),
            predictions=np.array([len(here) for here in predictions], np.int64),
            person_id=np.array([person["id"] for person in listed], np.int64),
            truth=_keypoints(listed, k),
            area=area,
            box=np.array([person["bbox"] for person in listed], np.float64).reshape(-1, 4),
            crowd=np.array([bool(person["iscrowd"]) for person in listed], bool),
            never=np.array([bool(person["ignore"]) for person in listed], bool),
            afar=out(area),
            predicted=_keypoints(found, k),
            score=np.array([one["score"] for one in found], np.float64),
            outside=out(np.array([one["area"] for one in found], np.float64)),
            oks=np.concatenate([np.ravel(evaluator.ious[key]) for key in keys]),
            sigmas=np.array(params.kpt_oks_sigmas, np.float64),
            thresholds=theirs.thresholds,
        )
        ours = pairs.matches(pairs.oks[None], pairs.ignored[None], pairs.outside[None])
        similar = np.allclose(pairs.similarity(), pairs.oks, rtol=1e-12, atol=1e-12, equal_nan=True)
        if not similar or any(
            not np.array_equal(getattr(ours, flags)[0], getattr(theirs, flags)[usual])
            for flags in ("matched", "ignored", "persons")
        ):
            raise RuntimeError(f"{'matches' if similar else 'OKS'} of pycocotools and ours differ; please report this")
        return pairs

    @cached_property
    def ignored(self) -> Bool:
        """(P,) persons that do not count for AP."""
        return np.asarray(self.never | self.afar)

    @cached_property
    def labelled(self) -> Bool:
        """(P, K)"""
        return np.asarray(self.truth[:, :, 2] > 0)

    @cached_property
    def prediction(self) -> Whole:
        """(N,) row of each pair's prediction."""
        return np.repeat(np.arange(len(self.score)), np.repeat(self.persons, self.predictions))

    @cached_property
    def person(self) -> Whole:
        """(N,) row of each pair's person."""
        size = np.repeat(self.persons, self.predictions)  # (D,)
        first = np.repeat(np.cumsum(self.persons) - self.persons, self.predictions)
        return np.asarray(np.arange(size.sum()) + np.repeat(first - self._first_pair, size))

    def similarity(self, at: Whole | None = None, keypoints: Float | None = None) -> Float:
        """OKS of pairs, (n,), the sums in the order of pycocotools.

        Args:
            at: (n,) rows of pairs; None for all.
            keypoints: (n, K, 2) px, in place of those predicted.
        """
        at = np.arange(len(self.prediction)) if at is None else at
        person = self.person[at]
        found = self.predicted[self.prediction[at], :, :2] if keypoints is None else keypoints
        labelled = self.labelled[person]
        anything = labelled.any(axis=1, keepdims=True)
        apart = np.where(anything, self._to_truth(found, person), self._to_box(found, person))
        similar = self._falling(apart, person, self.sigmas)
        counted = labelled | ~anything
        number = counted.sum(1)
        values = np.zeros(len(at))
        for count in np.unique(number):  # as many terms as pycocotools adds: another order is another last digit
            rows = number == count
            values[rows] = similar[rows][counted[rows]].reshape(-1, count).sum(1) / count
        return values

    def of_keypoints(self) -> Float:
        """OKS of all pairs were there one keypoint only, (K, N).

        A person without it has no labelled keypoint then, so that the distance to its box counts.
        """
        found = self.predicted[self.prediction, :, :2]
        values = self._falling(self._to_truth(found, self.person), self.person, self.sigmas).T.copy()
        for k, labelled in enumerate(self.labelled[self.person].T):
            rows = np.flatnonzero(~labelled)
            person = self.person[rows]
            apart = self._to_box(found[rows, k : k + 1], person)
            values[k, rows] = self._falling(apart, person, self.sigmas).sum(1) / len(self.sigmas)
        return values

    def _to_truth(self, found: Float, person: Whole) -> Float:
        """Squared distances (n, K) of keypoints (n, K, 2) to those of persons (n,), px²."""
        across, down = np.moveaxis(found - self.truth[person, :, :2], 2, 0)
        return np.asarray(across**2 + down**2)

    def _to_box(self, found: Float, person: Whole) -> Float:
        """The same to boxes, made thrice as wide and high."""
        corner, size = self.box[person, None, :2], self.box[person, None, 2:]
        outside = np.maximum(0, (corner - size) - found) + np.maximum(0, found - (corner + size * 2))
        across, down = np.moveaxis(outside, 2, 0)
        return np.asarray(across**2 + down**2)

    def _falling(self, squared: Float, person: Whole, sigmas: Float) -> Float:
        """exp(-d² / 2 s² k²), (n, K); np.spacing(1) keeps a division by zero areas away, as in pycocotools."""
        area = self.area[person, None] + np.spacing(1)
        return np.asarray(np.exp(-(squared / (sigmas * 2) ** 2 / area / 2)))

    def matches(self, oks: Float, ignored: Bool, outside: Bool, names: Sequence[str] = ("all",)) -> Matches:
        """All lanes matched, as `Matches` with lanes in place of ranges of area.

        Args:
            oks: (A, N)
            ignored: (A, P) persons that do not count.
            outside: (A, D) predictions that do not count where they are unmatched.
            names: of the lanes.
        """
        nobody = np.zeros((len(oks), 1), bool)
        partner = self.partners(oks, ignored, self.thresholds)
        # -1, nobody, reads the last entry. pycocotools keeps the id of the person, and takes 0 for nobody
        matched = np.append(self.person_id != 0, False)[partner]
        passed = np.take_along_axis(np.hstack([ignored, nobody])[:, None], partner, axis=2)
        passed |= ~matched & outside[:, None]
        order = np.argsort(-self.score, kind="mergesort")
        row = np.arange(len(self.images))
        of_person = np.repeat(row, self.persons)
        return Matches(
            images=self.images,
            areas=tuple(names),
            thresholds=self.thresholds,
            image=np.repeat(row, self.predictions)[order].astype(np.int32),
            score=self.score[order],
            matched=matched[:, :, order],
            ignored=passed[:, :, order],
            persons=np.array([np.bincount(of_person[~lane], minlength=len(row)) for lane in ignored], np.int32),
        )

    def partners(self, oks: Float, ignored: Bool, thresholds: Float) -> Whole:
        """Row of the person that each prediction is matched with, -1 for none: (A, T, D).

        The best prediction of an image chooses first: of persons that count and are still free the most similar one,
        the last of equals; if there is none from the threshold on, one that is ignored, by the same rule. Only a crowd
        can be chosen again.

        Args:
            oks: (A, N)
            ignored: (A, P) persons that do not count.
            thresholds: (T,) OKS from which on.
        """
        found = np.full((len(oks), len(thresholds), len(self.score)), -1)
        least = np.minimum(thresholds, 1 - 1e-10)[:, None]
        for first_person, first_prediction, persons, predictions in self._blocks():
            rows = first_person + np.arange(persons)[:, None]  # (persons, images)
            passed, free = ignored[:, rows], np.ones((persons, *found.shape[:2], len(first_person)), bool)
            for rank in range(predictions[0]):
                # images with a prediction of this rank are the first ones
                n = int(np.count_nonzero(predictions > rank))
                prediction = first_prediction[:n] + rank
                pair = self._first_pair[prediction]
                best = np.broadcast_to(least, (*found.shape[:2], n)).copy()
                chosen = np.full(best.shape, -1)
                for skipped in (False, True):
                    unmatched = chosen < 0
                    for person in range(persons):
                        similar = oks[:, pair + person][:, None]
                        lanes = (passed[:, person, None, :n] == skipped) & ~(similar < best)
                        better = lanes & unmatched & free[person, :, :, :n]
                        np.copyto(best, similar, where=better)
                        np.copyto(chosen, person, where=better)
                for person in range(persons):
                    free[person, :, :, :n] &= (chosen != person) | self.crowd[rows[person, :n]]
                found[:, :, prediction] = np.where(chosen < 0, -1, chosen + first_person[:n])
        return found

    @cached_property
    def _first_pair(self) -> Whole:
        """(D,)"""
        size = np.repeat(self.persons, self.predictions)
        return np.asarray(np.cumsum(size) - size)

    def _blocks(self) -> Iterator[tuple[Whole, Whole, int, Whole]]:
        """Images with equally many persons, those with the most predictions first.

        Yields:
            rows of their first persons and predictions, number of persons, and numbers of predictions.
        """
        first_person = np.cumsum(self.persons) - self.persons
        first_prediction = np.cumsum(self.predictions) - self.predictions
        for persons in np.unique(self.persons[self.predictions > 0]).tolist():
            images = np.flatnonzero((self.persons == persons) & (self.predictions > 0))
            images = images[np.argsort(-self.predictions[images], kind="stable")]
            for rows in (images[i : i + _BLOCK] for i in range(0, len(images), _BLOCK)):
                yield first_person[rows], first_prediction[rows], persons, self.predictions[rows]


def average_precisions(matches: Matches) -> list[float | None]:
    """AP of every lane, a fraction; None where it has no person.

    `Matches.accumulate` is made for many draws and takes means by threshold; here it is one mean over all thresholds
    and recalls, as pycocotools takes it, to the last digit.
    """
    values: list[float | None] = []
    for matched, ignored, persons in zip(matches.matched, matches.ignored, matches.persons.sum(1), strict=True):
        found, after = np.cumsum(matched & ~ignored, axis=1), np.cumsum(~ignored, axis=1)  # (T, D)
        precision = np.zeros((len(found), found.shape[1] + 1))  # a column more, for recalls that are not reached
        np.divide(found, after + np.spacing(1), out=precision[:, :-1])  # tp / (tp + fp), pycocotools' way
        np.maximum.accumulate(precision[:, ::-1], axis=1, out=precision[:, ::-1])
        reached = np.stack([np.searchsorted(row, RECALLS) for row in found / max(persons, 1)])
        values.append(float(np.take_along_axis(precision, reached, axis=1).ravel().mean()) if persons else None)
    return values


def _keypoints(annotations: Sequence[Mapping[str, Any]], k: int) -> Float:
    """(N, K, 3); zeros where an annotation has none, which pycocotools allows in images without predictions."""
    nothing = [0.0] * (3 * k)
    return np.array([row.get("keypoints", nothing) for row in annotations], np.float64).reshape(-1, k, 3)
