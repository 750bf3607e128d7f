"""What computes COCO's numbers: pycocotools, or faster-coco-eval once it has proven to give the same ones."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, get_args

import numpy as np

from lrbench.structures import COCO, CROWDPOSE, Skeleton, unknown

Name = Literal["pycocotools", "faster-coco-eval"]

VARIABLE = "LRBENCH_REFEREE"
"""Environment variable that names the referee; pycocotools where it is not set."""

TOLERANCE = 1e-12
"""By how much numbers of two referees may differ."""


@dataclass(frozen=True)
class Referee:
    """A pair of classes with pycocotools' interface.

    Attributes:
        name: of the distribution.
        version: of the distribution.
        annotations: class of annotations and results, pycocotools' ``COCO``.
        evaluator: class that scores them, pycocotools' ``COCOeval``.
        per_image: evaluators tell what they matched in each image (``evalImgs``); those of faster-coco-eval do not.
    """

    name: Name
    version: str
    annotations: Any
    evaluator: Any
    per_image: bool

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def accumulated(
        self,
        annotations: Mapping[str, Any],
        results: Sequence[Mapping[str, Any]],
        skeleton: Skeleton = COCO,
        *,
        areas: Sequence[str] | None = None,
    ) -> Any:
        """The evaluator after matching and accumulation.

        Args:
            annotations: a COCO keypoint file; ``area`` is needed of every person.
            results: a COCO keypoint result of at least one person.
            skeleton: of the keypoints.
            areas: labels of the ranges of area that are looked at, of ``all``, ``medium`` and ``large``; None for all.
        """
        with contextlib.redirect_stdout(io.StringIO()):
            truth = self.annotations()
            # evaluators write into what they are given
            truth.dataset = {**annotations, "annotations": [dict(a) for a in annotations["annotations"]]}
            truth.createIndex()
            evaluator = self.evaluator(truth, truth.loadRes([dict(r) for r in results]), "keypoints")
            evaluator.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
            if areas is not None:
                chosen = [i for i, label in enumerate(evaluator.params.areaRngLbl) if label in areas]
                evaluator.params.areaRng = [evaluator.params.areaRng[i] for i in chosen]
                evaluator.params.areaRngLbl = [evaluator.params.areaRngLbl[i] for i in chosen]
            evaluator.evaluate()
            evaluator.accumulate()
        return evaluator


def chosen() -> Referee:
    """The referee that `VARIABLE` names.

    Raises:
        ValueError: see `referee`.
    """
    name = os.environ.get(VARIABLE) or "pycocotools"
    if name not in get_args(Name):
        raise ValueError(f"{VARIABLE}: {unknown('referee', name, get_args(Name))}")
    return referee(name)


@lru_cache
def referee(name: Name) -> Referee:
    """A referee by name; faster-coco-eval is compared with pycocotools when it is first asked for.

    Raises:
        ValueError: it is not installed, or its numbers are not those of pycocotools.
    """
    if name == "pycocotools":
        from pycocotools.coco import COCO as Annotations
        from pycocotools.cocoeval import COCOeval

        return Referee(name, version(name), Annotations, COCOeval, per_image=True)
    try:
        module, installed = importlib.import_module("faster_coco_eval"), version(name)
    except (ImportError, PackageNotFoundError) as error:
        raise ValueError(
            f"referee {name} cannot be imported ({error}); pip install 'lrbench[fast]', or unset {VARIABLE}"
        ) from None
    found = Referee(name, installed, module.COCO, module.COCOeval_faster, per_image=False)
    if fault := disagreement(found, referee("pycocotools")):
        raise ValueError(f"referee {found} is refused: {fault}; unset {VARIABLE} to score with pycocotools")
    return found


def disagreement(candidate: Referee, trusted: Referee) -> str:
    """In what two referees differ on the fixed set of `examination`, in words; empty where they agree.

    All is compared that scoring reads: interpolated precision, recall and the ten numbers, for two skeletons, and for
    all ranges of area as for one.
    """
    for skeleton in (COCO, CROWDPOSE):
        truth, results = examination(skeleton)
        for areas in (None, ("all",)):
            expected = _figures(trusted.accumulated(truth, results, skeleton, areas=areas), summary=areas is None)
            try:
                given = _figures(candidate.accumulated(truth, results, skeleton, areas=areas), summary=areas is None)
            except Exception as error:  # whatever another release does with our calls
                return f"it fails on the self-test ({type(error).__name__}: {error})".replace("\n", " ")
            for what, right in expected.items():
                if given[what].shape != right.shape:
                    return f"its {what} has shape {given[what].shape}, that of {trusted} {right.shape}"
                apart = np.abs(given[what] - right)
                if not (apart <= TOLERANCE).all():  # also where a number is none
                    return f"its {what} differs from that of {trusted} by {apart.max():.1e} on the self-test"
    return ""


def examination(skeleton: Skeleton) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations and results, always the same, in which everything occurs that scoring has a rule for.

    An image without anything (1), without people (2), with more results than count (3); people of all sizes, crowds,
    people without keypoints; equal scores, and results in no order.
    """
    rng = np.random.default_rng(0)
    k = len(skeleton)
    images = [{"id": i, "width": 640, "height": 480} for i in range(1, 25)]
    annotations: list[dict[str, Any]] = []
    results = [_result(2, rng.uniform(0, 400, (k, 2)), 0.5)]
    results += [_result(3, rng.uniform(0, 400, (k, 2)), round(rng.random(), 1)) for _ in range(25)]
    for image in range(3, len(images) + 1):
        for _ in range(rng.integers(1, 5)):
            side = float(rng.choice([25, 60, 200]))
            x, y = rng.uniform(0, 400, 2)
            points = rng.uniform((x, y), (x + side, y + 1.5 * side), (k, 2))
            crowd = bool(rng.random() < 0.15)
            ignored = crowd or rng.random() < 0.15
            flags = np.zeros(k) if ignored else rng.choice([0, 1, 2], k, p=[0.3, 0.2, 0.5])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": 1,
                    "iscrowd": int(crowd),
                    "bbox": [x, y, side, 1.5 * side],
                    "area": 0.8 * side * side,
                    "keypoints": np.column_stack([points * (flags > 0)[:, None], flags]).ravel().tolist(),
                    "num_keypoints": int((flags > 0).sum()),
                }
            )
            for _ in range(rng.integers(0, 3)):
                error = side * rng.choice([0.01, 0.03, 0.06])
                results.append(_result(image, points + rng.normal(0, error, (k, 2)), round(rng.random(), 1)))
    truth = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    return truth, [results[i] for i in rng.permutation(len(results))]


def _result(image: int, points: np.ndarray[Any, np.dtype[np.float64]], score: float) -> dict[str, Any]:
    keypoints = np.column_stack([points, np.ones(len(points))]).ravel().tolist()
    return {"image_id": image, "category_id": 1, "keypoints": keypoints, "score": score}


def _figures(evaluator: Any, *, summary: bool) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    figures = {what: np.asarray(evaluator.eval[what], np.float64) for what in ("precision", "recall")}
    if summary:  # which needs all ranges of area
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator.summarize()
        figures["summary"] = np.asarray(evaluator.stats, np.float64)
    return figures
