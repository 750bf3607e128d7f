"""How far a number can be trusted: COCO's metrics on resampled images, their intervals, and paired differences.

The unit that is resampled is the image, with everything in it. Persons of one picture are not independent: they share
light, blur and crowd, and a false positive belongs to the picture, not to a person. Intervals are percentiles of the
bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, Sec. 13.3).

Two sources of chance are kept apart. *Other pictures*: the same trained networks on another sample of images, which
the bootstrap tells. *Another training*: the same images after training with another seed, which only several seeds
tell. Neither covers the other.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrbench.datasets.images import DataError
from lrbench.records import METRICS, write_atomic
from lrbench.structures import unknown

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Counts = NDArray[np.int32]
Weights = NDArray[np.integer[Any]] | Flags
"""How many times each image is there."""

RECALLS: Array = np.linspace(0, 1, 101)
"""Where pycocotools reads precision."""

LEVEL = 0.95
"""Of all intervals."""

_AREAS = {"_m": "medium", "_l": "large"}
_THRESHOLDS = {"50": 0.5, "75": 0.75}
_BLOCK = 1 << 16  # detections times resamples at once: what lies between the steps stays in a core's cache


@dataclass(frozen=True, eq=False)
class Matches:
    """Which detections of which images count as right, for every area range and OKS threshold.

    All that COCO's metrics need of annotations and results: I images, D detections, A area ranges, T thresholds.

    Attributes:
        images: (I,) int64 ids, ascending, the order in which pycocotools scores; images without anything included.
        areas: names of the ranges; pycocotools' are ``all``, ``medium`` and ``large``.
        thresholds: (T,) OKS.
        image: (D,) int32 row in `images`, detections from highest to lowest score, ties as pycocotools orders them.
        score: (D,) float64.
        matched: (A, T, D) with a person.
        ignored: (A, T, D) neither right nor wrong: matched with a person that does not count, or outside of the range.
        persons: (A, I) int32 persons that count.
    """

    images: NDArray[np.int64]
    areas: tuple[str, ...]
    thresholds: Array
    image: Counts
    score: Array
    matched: Flags
    ignored: Flags
    persons: Counts

    @classmethod
    def of(cls, evaluator: Any) -> Matches:
        """Read a pycocotools `COCOeval` of one category after its `evaluate()`.

        Raises:
            ValueError: `evaluate()` did not run, there are several categories, or recalls other than `RECALLS`.
        """
        if not evaluator.evalImgs:
            raise ValueError("the evaluator has no matches; call its evaluate() on at least one image first")
        params = evaluator._paramsEval  # what evaluate() ran with; `params` may have changed since
        if params.useCats and len(params.catIds) != 1:
            raise ValueError(f"the evaluator has {len(params.catIds)} categories, expected one; set params.catIds")
        if not np.array_equal(params.recThrs, RECALLS):
            raise ValueError(f"the evaluator reads precision at {len(params.recThrs)} recalls, expected 0, 0.01, ... 1")
        images, thresholds = np.array(params.imgIds, np.int64), np.array(params.iouThrs, np.float64)
        ranges = [evaluator.evalImgs[a * len(images) :][: len(images)] for a in range(len(params.areaRng))]
        # detections are the same in every range
        image = np.repeat(np.arange(len(images)), [len(e["dtScores"]) if e else 0 for e in ranges[0]])
        score = np.array([s for e in ranges[0] if e for s in e["dtScores"]], np.float64)
        order = np.argsort(-score, kind="mergesort")

        def flags(key: str) -> Flags:
            nothing = np.zeros((len(thresholds), 0), bool)
            rows = [np.concatenate([nothing, *(e[key] != 0 for e in seen if e)], axis=1)[:, order] for seen in ranges]
            return np.stack(rows)

        return cls(
            images=images,
            areas=tuple(params.areaRngLbl),
            thresholds=thresholds,
            image=image[order].astype(np.int32),
            score=score[order],
            matched=flags("dtMatches"),
            ignored=flags("dtIgnore"),
            persons=np.array([[np.sum(e["gtIgnore"] == 0) if e else 0 for e in seen] for seen in ranges], np.int32),
        )

    def metrics(self, weights: Weights | None = None) -> dict[str, float | None]:
        """COCO's ten numbers, what pycocotools gives for the images so drawn, copies of an image side by side.

        Args:
            weights: (I,) how many times each image is there; once without. Flags choose a subset.

        Returns:
            Fractions by name; None where no person of the kind is there, or the evaluator had no such area range.

        Raises:
            ValueError: weights of another shape, or neither whole numbers from 0 nor flags.
        """
        once: Weights = np.ones(len(self.images), np.int32) if weights is None else weights
        values = self.resampled(once[None])[0].tolist()
        return {name: None if math.isnan(v) else v for name, v in zip(METRICS, values, strict=True)}

    def resampled(self, weights: Weights) -> Array:
        """The ten metrics of many draws, (R, 10) in the order of `METRICS`; nan where `metrics` has None.

        Args:
            weights: (R, I) as `draw` gives them.

        Raises:
            ValueError: as in `metrics`.
        """
        precision, recall = self.accumulate(weights)
        values = np.full((len(precision), len(METRICS)), np.nan)
        for column, name in enumerate(METRICS):
            area = _AREAS.get(name[2:], "all")
            threshold = _THRESHOLDS.get(name[2:])
            chosen = self.thresholds == threshold if threshold else np.ones(len(self.thresholds), bool)
            if area in self.areas and chosen.any():
                curve = precision if name.startswith("ap") else recall
                # contiguous: the order of the sum, and with it the last digit, must not depend on the number of draws
                values[:, column] = np.ascontiguousarray(curve[:, self.areas.index(area)][:, chosen]).mean(axis=1)
        return values

    def accumulate(self, weights: Weights) -> tuple[Array, Array]:
        """Precision, mean over `RECALLS`, and greatest recall, for every draw, area range and threshold.

        Args:
            weights: (R, I) how many times each image is there.

        Returns:
            Twice (R, A, T), nan where no person of the range is there.

        Raises:
            ValueError: as in `metrics`.
        """
        if weights.ndim != 2 or weights.shape[1] != len(self.images) or weights.dtype.kind not in "iub":
            given = f"{weights.dtype} {weights.shape[1:]}"
            raise ValueError(f"weights are {given}, expected a whole number for each of {len(self.images)} images")
        if weights.size and weights.min() < 0:
            raise ValueError(f"weights have {weights.min()}, expected how many times each image is there, 0 or more")
        drawn = np.ascontiguousarray(weights, np.int32)
        persons = drawn @ self.persons.T  # (R, A)
        shape = (len(drawn), len(self.areas), len(self.thresholds))
        precision, recall = np.zeros(shape), np.zeros(shape)

        def fill(place: tuple[int, int]) -> None:
            a, t = place
            precision[:, a, t], recall[:, a, t] = self._curve(a, t, drawn, np.maximum(persons[:, a], 1))

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy lets go of the interpreter's lock in what takes long
            list(pool.map(fill, product(range(shape[1]), range(shape[2]))))
        for values in (precision, recall):
            values[persons == 0] = np.nan
        return precision, recall

    def _curve(self, a: int, t: int, weights: Counts, persons: Counts) -> tuple[Array, Array]:
        """`accumulate` for one area range and threshold: twice (R,).

        Precision grows along a run of right detections and falls along a run of wrong ones, so only the ends of runs of
        right ones decide the envelope, and only there it is computed. A run that a draw leaves out changes nothing: it
        repeats the recall of the run before, with no greater precision.
        """
        precision, recall = np.zeros(len(weights)), np.zeros(len(weights))
        image, right, copy = self._rows(a, t, weights.max(axis=0, initial=0))
        if not right.any():
            return precision, recall
        bounds = np.concatenate([[0], np.flatnonzero(right[1:] != right[:-1]) + 1, [len(right)]])
        begins = np.flatnonzero(right[bounds[:-1]])
        start, end = bounds[begins], bounds[begins + 1]
        image = image[: end[-1]]  # what comes after the last right one changes nothing
        copy = None if copy is None else copy[: end[-1]]
        step = max(1, _BLOCK // len(image))
        for block in (slice(i, i + step) for i in range(0, len(weights), step)):
            drawn = weights[block].take(image, axis=1)
            if copy is not None:
                drawn = np.where(copy < 0, drawn, drawn > copy)
            counted = np.zeros((len(drawn), len(image) + 1), np.int32)
            np.cumsum(drawn, axis=1, out=counted[:, 1:])
            after = counted.take(end, axis=1)
            found = np.cumsum(after - counted.take(start, axis=1), axis=1, dtype=np.int32)
            # a column more, of zeros, for recalls that are not reached
            envelope = np.zeros((len(drawn), len(end) + 1))
            np.divide(found, after + np.spacing(1), out=envelope[:, :-1])  # tp / (tp + fp), pycocotools' way
            np.maximum.accumulate(envelope[:, ::-1], axis=1, out=envelope[:, ::-1])
            recalls = found / persons[block, None]
            reached = np.stack([np.searchsorted(row, RECALLS) for row in recalls])
            precision[block] = np.take_along_axis(envelope, reached, axis=1).mean(axis=1)
            recall[block] = recalls[:, -1]
        return precision, recall

    def _rows(self, a: int, t: int, copies: Counts) -> tuple[NDArray[np.intp], Flags, NDArray[np.intp] | None]:
        """Detections that are not ignored, in the order in which copies of images are scored.

        Equal scores within one image are the one case where drawing an image twice is not counting its detections
        twice: right, wrong, right, wrong is another curve than right, right, wrong, wrong. Such ties are written out
        copy by copy.

        Args:
            a, t: area range and threshold.
            copies: (I,) how many of each image are there at most.

        Returns:
            (n,) rows of images; (n,) whether right; (n,) of which copy, from 0, -1 for rows that stand for all copies,
            or None where all do.
        """
        kept = np.flatnonzero(~self.ignored[a, t])
        image, right, tie = self.image[kept].astype(np.intp), self.matched[a, t, kept], self._tie[kept]
        begin = np.flatnonzero(np.diff(tie, prepend=-1))
        size = np.diff(begin, append=len(tie))
        found = np.add.reduceat(right, begin, dtype=np.intp) if len(begin) else size
        mixed = (found > 0) & (found < size)
        if not mixed.any():
            return image, right, None
        times = np.where(mixed, copies[image[begin]], 1)
        group = np.repeat(np.arange(len(begin)), times)
        copy = np.where(mixed[group], _ranges(np.zeros_like(times), times), -1)
        rows = _ranges(begin[group], size[group])
        return image[rows], right[rows], np.repeat(copy, size[group])

    @cached_property
    def _tie(self) -> NDArray[np.intp]:
        """(D,) which detections have equal scores in one image: numbered from 0."""
        new = (np.diff(self.score) != 0) | (np.diff(self.image) != 0)
        return np.concatenate([[0], np.cumsum(new)])[: len(self.score)]

    def save(self, path: Path) -> None:
        """Write one safetensors file, flags packed to bits.

        Raises:
            OSError: the folder cannot be written.
        """
        from safetensors.numpy import save

        tensors: dict[str, NDArray[Any]] = {
            "images": self.images,
            "thresholds": self.thresholds,
            "image": self.image,
            "score": self.score,
            "matched": np.packbits(self.matched, axis=-1),
            "ignored": np.packbits(self.ignored, axis=-1),
            "persons": self.persons,
        }
        # one entry: safetensors writes several in random order, and equal matches shall be equal files
        about = json.dumps({"areas": self.areas, "sha256": _digest(tensors)})
        write_atomic(path, save(tensors, {"matches": about}))

    @classmethod
    def load(cls, path: Path) -> Matches:
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing or damaged, or something else.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "np") as file:
                about = json.loads((file.metadata() or {})["matches"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if _digest(tensors) != about["sha256"]:
                raise ValueError("its sum is wrong")
            detections = len(tensors["score"])
            for name in ("matched", "ignored"):
                tensors[name] = np.unpackbits(tensors[name], axis=-1, count=detections).astype(bool)
            return cls(areas=tuple(about["areas"]), **tensors)
        except FileNotFoundError:
            raise DataError(f"{path} does not exist; score the predictions again to make it") from None
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is damaged or no file of matches ({error}); score again to make it") from None


def _ranges(begin: NDArray[np.intp], size: NDArray[np.intp]) -> NDArray[np.intp]:
    """Whole numbers from each begin on, as many as its size, one after the other."""
    places: NDArray[np.intp] = np.arange(size.sum()) + np.repeat(begin - (np.cumsum(size) - size), size)
    return places


def _digest(tensors: dict[str, NDArray[Any]]) -> str:
    """Sha256 of names and bytes."""
    sum_ = hashlib.sha256()
    for name in sorted(tensors):
        sum_.update(name.encode() + tensors[name].tobytes())
    return sum_.hexdigest()


def draw(images: int, resamples: int, seed: int) -> Counts:
    """How often each image is in each resample, (R, I): as many images as there are, with replacement.

    It knows nothing of what was scored, so two methods on the same images meet the same resamples, and their difference
    is paired. A single image says nothing of others: it is never drawn, so that nothing has an interval.

    Raises:
        ValueError: no images, or no resamples.
    """
    if images < 1 or resamples < 1:
        raise ValueError(f"{resamples} resamples of {images} images; expected at least one of each")
    rng = np.random.default_rng(seed)
    counts = np.zeros((resamples, images), np.int32)
    for row in counts if images > 1 else ():
        row[:] = np.bincount(rng.integers(0, images, images), minlength=images)
    return counts


def bootstrap(matches: Matches, *, resamples: int = 1000, seed: int = 0) -> Array:
    """The ten metrics of resamples of the images, (R, 10) in the order of `METRICS`.

    Nan where a resample has no person of the kind.
    """
    return matches.resampled(draw(len(matches.images), resamples, seed))


def interval(samples: Array) -> tuple[float, float] | None:
    """Percentile interval of resampled values (R,), nan left out; None where all are."""
    known = samples[~np.isnan(samples)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high


def intervals(samples: Array) -> dict[str, tuple[float, float]]:
    """Percentile intervals of what `bootstrap` gives, by metric; metrics that were never defined are left out."""
    pairs = zip(METRICS, map(interval, samples.T), strict=True)
    return {name: ends for name, ends in pairs if ends is not None}


@dataclass(frozen=True)
class Summary:
    """One metric over several trainings.

    Attributes:
        mean, low, high: mean over the trainings, and its 95 % interval over images with these very trainings.
        std: between trainings (n - 1); None for a single one.
        smallest, largest: of the trainings.
        n: trainings.
    """

    mean: float
    low: float
    high: float
    std: float | None
    smallest: float
    largest: float
    n: int


@dataclass(frozen=True, eq=False)
class Seeds:
    """One method after one or several trainings, all scored on the same images, and resampled once for all questions.

    Attributes:
        runs: S trainings.
        values: (S, 10) metrics, nan where not defined.
        samples: (S, R, 10) of each as `bootstrap` gives them, the same resamples for all; `intervals` reads one.
        seed: of the resamples.
    """

    runs: tuple[Matches, ...]
    values: Array
    samples: Array
    seed: int

    @classmethod
    def of(cls, runs: Sequence[Matches], *, resamples: int = 1000, seed: int = 0) -> Seeds:
        """Score and resample trainings.

        Raises:
            ValueError: no run, or runs that were not scored on the same images and persons.
        """
        if not runs:
            raise ValueError("no runs given; expected the matches of at least one training")
        for run in runs[1:]:
            _same_images(runs[0], run)
        weights = draw(len(runs[0].images), resamples, seed)
        once = np.ones_like(weights[:1])
        values = np.concatenate([run.resampled(once) for run in runs])
        return cls(tuple(runs), values, np.stack([run.resampled(weights) for run in runs]), seed)

    def summary(self) -> dict[str, Summary]:
        """By metric; metrics that are not defined on these images are left out."""
        known = intervals(self.samples.mean(axis=0))
        found = {}
        for name, column in zip(METRICS, self.values.T, strict=True):
            if name in known:
                std = float(column.std(ddof=1)) if len(column) > 1 else None
                ends = float(column.min()), float(column.max())
                found[name] = Summary(float(column.mean()), *known[name], std, *ends, len(column))
        return found


@dataclass(frozen=True)
class Difference:
    """By how much one method is better than another in one metric, and two answers to how sure that is.

    `low` to `high` is about *other pictures*: the same trainings on another sample of images. `seed_error` is about
    *another training*: the same images, and other seeds. Neither covers the other: with a narrow interval over images,
    training again may still turn the order around, and trainings that agree may all owe it to these images.

    Attributes:
        metric: name.
        value: mean over the seeds of the one minus mean over the seeds of the other, as a fraction.
        low, high: 95 % interval over images, from resamples that both share.
        seed_error: standard error of the value by the spread between seeds; None unless both have at least two.
        seed_low, seed_high: 95 % interval of Welch's t with it.
    """

    metric: str
    value: float
    low: float
    high: float
    seed_error: float | None = None
    seed_low: float | None = None
    seed_high: float | None = None

    @property
    def resolved(self) -> bool:
        """Whether the interval over images excludes 0, and so does that over seeds, where there is one."""
        over_images = self.low > 0 or self.high < 0
        over_seeds = self.seed_low is None or self.seed_high is None or self.seed_low > 0 or self.seed_high < 0
        return over_images and over_seeds


def difference(a: Seeds, b: Seeds, metric: str = "ap") -> Difference | None:
    """Paired difference a - b of two methods on the same images; None where the metric is not defined on them.

    Raises:
        ValueError: unknown metric, other images or persons, or other resamples.
    """
    if metric not in METRICS:
        raise ValueError(unknown("metric", metric, METRICS))
    _same_images(a.runs[0], b.runs[0])
    if (a.seed, a.samples.shape[1]) != (b.seed, b.samples.shape[1]):
        raise ValueError(
            f"a has {a.samples.shape[1]} resamples of seed {a.seed}, b {b.samples.shape[1]} of seed {b.seed}; "
            "a paired difference needs the same"
        )
    column = METRICS.index(metric)
    ends = interval(a.samples[..., column].mean(axis=0) - b.samples[..., column].mean(axis=0))
    ours, theirs = a.values[:, column], b.values[:, column]
    value = float(ours.mean() - theirs.mean())
    if ends is None or math.isnan(value):
        return None
    if min(len(ours), len(theirs)) < 2:
        return Difference(metric, value, *ends)
    error, half = _welch(ours, theirs)
    return Difference(metric, value, *ends, error, value - half, value + half)


def _welch(a: Array, b: Array) -> tuple[float, float]:
    """Standard error of the difference of means, and half its interval (Welch, Biometrika 34, 1947)."""
    from scipy.special import stdtrit

    shares = [float(v.var(ddof=1)) / len(v) for v in (a, b)]
    if not sum(shares):
        return 0.0, 0.0
    error = math.sqrt(sum(shares))
    freedom = sum(shares) ** 2 / sum(s**2 / (len(v) - 1) for s, v in zip(shares, (a, b), strict=True))
    return error, error * float(stdtrit(freedom, (1 + LEVEL) / 2))


def _same_images(a: Matches, b: Matches) -> None:
    """Raise ValueError where a comparison would not be paired."""
    if not np.array_equal(a.images, b.images):
        raise ValueError(f"scored on different images ({len(a.images)} and {len(b.images)}); score both on one split")
    if a.areas != b.areas or not np.array_equal(a.persons, b.persons):
        raise ValueError("scored with different persons on the same images; score both with one annotation file")
