"""Rescoring, OKS-NMS and AP against the published evaluation and pycocotools."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lrbench.evaluation import oks, oks_nms, rescore, score, to_results
from lrbench.records import METRICS
from lrbench.structures import Predictions, Rescoring

pytestmark = pytest.mark.golden


def stats(golden, gt, dt):
    truth = json.loads((golden.root / f"scoring/{gt}.json").read_text())
    results = json.loads((golden.root / "scoring/dt.json").read_text()) if isinstance(dt, str) else dt
    metrics = score(truth, results)
    return [getattr(metrics, name) for name in METRICS]


@pytest.mark.parametrize(("key", "gt"), [("dt", "gt"), ("dt_vs_gt_no_large", "gt_no_large")])
def test_ten_numbers(golden, key, gt):
    theirs = [v if v > -1 else None for v in golden.json("scoring/expected_stats")[key]]
    assert stats(golden, gt, "dt") == pytest.approx(theirs, abs=1e-9)


def test_perfect_predictions(golden):
    truth = json.loads((golden.root / "scoring/gt.json").read_text())
    results = [
        {"image_id": a["image_id"], "category_id": 1, "keypoints": a["keypoints"], "score": 0.9}
        for a in truth["annotations"]
        if a.get("num_keypoints", 0)
    ]
    assert stats(golden, "gt", results) == pytest.approx(golden.json("scoring/expected_stats")["perfect"], abs=1e-9)


@pytest.mark.parametrize("confident", [0.2, 0.02])
def test_rescoring_and_suppression(golden, confident):
    arrays = golden.arrays("scoring/rescoring_and_nms")
    preds, boxes, image_id = (arrays[k].astype(float) for k in ("preds", "boxes", "image_id"))
    ours = rescore(boxes[:, 5], preds[:, :, 2], Rescoring(confident))
    kept = []
    for image in dict.fromkeys(image_id.tolist()):
        rows = np.flatnonzero(image_id == image)
        kept += rows[oks_nms(preds[rows], boxes[rows, 4], ours[rows])].tolist()
    assert kept == arrays[f"vis{confident}_kept_rows_in_output_order"].tolist()
    np.testing.assert_allclose(ours[kept], arrays[f"vis{confident}_score"], atol=1e-9)
    if confident == 0.2:
        results = to_results(Predictions(arrays["image_id"], preds, boxes[:, 4], boxes[:, 5]))
        truth = json.loads((golden.root / "scoring/gt.json").read_text())
        metrics = score(truth, results)
        theirs = golden.json("scoring/rescoring_and_nms_expected_stats")["vis0.2"]
        assert [getattr(metrics, n) for n in METRICS] == pytest.approx(list(theirs.values()), abs=1e-9)


def test_oks(golden):
    arrays = golden.arrays("scoring/rescoring_and_nms")
    keypoints, area, scores = (arrays[f"oks_{k}"] for k in ("keypoints", "area", "score"))
    matrix = np.array([oks(keypoints[i], area[i], keypoints, area) for i in range(len(area))])
    np.testing.assert_allclose(matrix, arrays["oks_matrix"], atol=1e-9)
    for threshold in (0.9, 0.5, 0.2):
        kept = oks_nms(keypoints, area, scores, threshold)
        assert kept.tolist() == arrays[f"oks_nms_keep_{threshold}"].tolist()
