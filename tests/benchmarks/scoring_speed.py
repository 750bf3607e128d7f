"""By hand: what everything a record says of predictions costs beside one evaluation by pycocotools of the same set.

``python tests/benchmarks/scoring_speed.py [--images 5000] [--persons 6352] [--rounds 5] [--keep]``. Two made sets
(`bootstrap_speed.made_set`): one detection per person, and 20 per image. One evaluation is what its manual says: index,
results, matching, accumulation and summary, on copies, for it writes into what it is given (copying is below 1 %). The
whole is `lrbench.scoring.score`; its parts are also measured alone, each with an evaluation of its own.
"""

from __future__ import annotations

import contextlib
import io
import statistics
from functools import partial
from types import SimpleNamespace
from typing import Any

import measure
from bootstrap_speed import made_set
from pycocotools.coco import COCO as Annotations
from pycocotools.cocoeval import COCOeval

from lrbench.diagnosis import diagnose
from lrbench.evaluation import score_keypoints
from lrbench.scoring import BOOTSTRAP, measured, score
from lrbench.structures import COCO

SETS = {"one detection per person": 0, "20 detections per image": 20}
WHOLE = "all of a record"
EXPECTED = (
    "22 evaluations before: 14 for AP per keypoint, 5.8 for the diagnosis. With one evaluation shared, and all that "
    "differs only in OKS or in who is ignored matched at once by numpy, 4: the evaluation, two bootstraps, little else."
)
CAME = (
    "As expected or better. What is left is the evaluation itself and the intervals of metrics and of AP by height, "
    "1,000 resamples each. Numbers are as they were to the last digit; OKS and matches are checked each time."
)


def main() -> None:
    parser = measure.parser(__doc__, rounds=5)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--persons", type=int, default=6352)
    options = parser.parse_args()
    dataset: Any = SimpleNamespace(metric="oks", persons=SimpleNamespace(skeleton=COCO))
    lines = []
    for name, at_least in SETS.items():
        truth, results = made_set(options.images, options.persons, at_least, None)
        sides = {
            "pycocotools": partial(evaluate, truth, results),
            WHOLE: partial(score, dataset, truth, results),
            "metrics (measured)": partial(measured, truth, results),
            "AP per keypoint (score_keypoints)": partial(score_keypoints, truth, results),
            "diagnosis (diagnose)": partial(diagnose, truth, results, **BOOTSTRAP.model_dump()),
        }
        taken = measure.in_turns(sides, options.rounds)
        one = taken.pop("pycocotools")
        for what, seconds in taken.items():
            barred = what == WHOLE and not at_least
            line = measure.Line(
                what=f"scoring, {what}, {options.persons} persons, {name}: pycocotools evaluations",
                bar="<= 6" if barred else "",
                rounds=measure.ratios(seconds, one),
                sides={
                    "one evaluation, s": statistics.median(one),
                    "ours, s": statistics.median(seconds),
                },
                expected=EXPECTED if barred else "",
                came=CAME if barred else "",
            )
            lines.append(line)
    measure.keep("scoring_speed", lines, write=options.keep)


def evaluate(truth: dict[str, Any], results: list[dict[str, Any]]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = Annotations()
        annotations.dataset = {**truth, "annotations": [dict(row) for row in truth["annotations"]]}
        annotations.createIndex()
        evaluator = COCOeval(annotations, annotations.loadRes([dict(row) for row in results]), "keypoints")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()


if __name__ == "__main__":
    main()
