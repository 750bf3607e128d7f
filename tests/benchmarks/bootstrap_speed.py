"""By hand: what a bootstrap over images costs beside one evaluation by pycocotools of the same set.

``python tests/benchmarks/bootstrap_speed.py [--images 5000] [--persons 11000] [--resamples 1000] [--rounds 5]
[--decimals N] [--out FILE]``. Two made sets: one detection per person, and 20 detections per image, which are the
persons' and clutter near them. In one process the two sides alternate: `evaluate`, `accumulate` and `summarize` of
pycocotools, reading not counted, and `lrbench.statistics.bootstrap` on all cores. Medians over the rounds count, the
ratio is taken within a round. The aim is 4 at most. ``--decimals`` rounds the scores, which makes ties: those between
right and wrong detections of one image cost more.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lrbench.records import METRICS
from lrbench.statistics import Matches, bootstrap

SETS = {"one per person": 0, "20 per image": 20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--persons", type=int, default=11000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--decimals", type=int, default=None)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    rows = {}
    for name, at_least in SETS.items():
        truth, results = made_set(options.images, options.persons, at_least, options.decimals)
        with contextlib.redirect_stdout(io.StringIO()):
            annotations = COCO()
            annotations.dataset = truth
            annotations.createIndex()
            evaluator = COCOeval(annotations, annotations.loadRes(results), "keypoints")
        sides: dict[str, list[float]] = {"pycocotools": [], "bootstrap": []}
        for _ in range(options.rounds):
            sides["pycocotools"].append(seconds(partial(evaluate, evaluator)))
            matches = Matches.of(evaluator)
            sides["bootstrap"].append(seconds(partial(bootstrap, matches, resamples=options.resamples)))
        ratios = [ours / theirs for theirs, ours in zip(*sides.values(), strict=True)]
        again = [np.nan if v is None else v for v in matches.metrics().values()]
        rows[name] = {
            "detections": len(matches.score),
            "ap": round(float(evaluator.stats[0]), 4),
            "largest_difference": float(np.nanmax(np.abs(np.subtract(again, evaluator.stats)))),
            "seconds": {side: round(statistics.median(taken), 3) for side, taken in sides.items()},
            "ratio": round(statistics.median(ratios), 3),
            "ratios": [round(r, 3) for r in ratios],
        }
        print(f"{name}: {rows[name]}")
    if options.out is not None:
        facts = {
            "images": options.images, "persons": options.persons, "resamples": options.resamples,
            "decimals": options.decimals, "metrics": len(METRICS), "rounds": options.rounds, "cores": os.cpu_count(),
            "processor": platform.processor() or platform.machine(), "numpy": np.__version__,
            "load_average": [round(v, 2) for v in os.getloadavg()], "sets": rows,
        }  # fmt: skip
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


def seconds(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def evaluate(evaluator: Any) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()


def made_set(images: int, persons: int, at_least: int, decimals: int | None) -> tuple[dict[str, Any], list[Any]]:
    """Persons of all sizes in random images, found with errors of many sizes, the better the surer.

    Args:
        images, persons: how many.
        at_least: detections of each image, filled up with clutter; 0 for one per person.
        decimals: of the scores; None for all.
    """
    rng = np.random.default_rng(0)
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []

    def detect(image: int, points: np.ndarray, error: float) -> None:
        found = np.column_stack([points, np.ones(17)]).ravel().tolist()
        sure = float(np.exp(-error) * rng.uniform(0.6, 1))
        score = sure if decimals is None else round(sure, decimals)
        results.append({"image_id": image, "category_id": 1, "keypoints": found, "score": score})

    for image in range(1, images + 1):
        here = persons * image // images - persons * (image - 1) // images
        known = []
        for _ in range(here):
            height = float(np.exp(rng.uniform(np.log(40), np.log(400))))
            corner, size = rng.uniform(0, 300, 2), np.array([0.5 * height, height])
            points = rng.uniform(corner, corner + size, (17, 2))
            visible = np.where(rng.random(17) < 0.7, 2, 0)
            keypoints = np.column_stack([points, visible]) * (visible > 0)[:, None]
            known.append((points, height))
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": image, "category_id": 1, "iscrowd": 0,
                    "bbox": [*corner.tolist(), *size.tolist()], "area": 0.35 * height**2,
                    "keypoints": keypoints.ravel().tolist(), "num_keypoints": int((visible > 0).sum()),
                }
            )  # fmt: skip
            error = float(rng.exponential(0.5))
            detect(image, points + rng.normal(0, 0.06 * error * height, (17, 2)), error)
        for _ in range(max(at_least - here, 0)):
            points, height = known[rng.integers(here)] if known else (rng.uniform(0, 300, (17, 2)), 100.0)
            error = float(rng.uniform(1, 4))
            detect(image, points + rng.normal(0, 0.15 * error * height, (17, 2)), error)
    pictures = [{"id": i, "width": 640, "height": 480} for i in range(1, images + 1)]
    people = [{"id": 1, "name": "person"}]
    return {"images": pictures, "annotations": annotations, "categories": people}, results


if __name__ == "__main__":
    main()
