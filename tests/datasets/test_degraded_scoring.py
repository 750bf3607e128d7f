"""The truth of a low-resolution copy, predicted on the copy and scored as `lrbench eval` does, is perfect."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import tiny

from lrbench.bench import Bench
from lrbench.cells import Cell
from lrbench.datasets import coco
from lrbench.datasets.degraded import degrade
from lrbench.degradation import presets
from lrbench.geometry import Size
from lrbench.predictions import evaluate_predictions
from lrbench.records import record_path

HEIGHT = 84
"""About the median of the nine people, so that some of them are left out."""

LEVELS = {
    "image": {"scale": 3.0},
    "crop": {"level": "crop", "size": Size(64, 48)},
    "height": {"level": "height", "height": HEIGHT},
}


def truth_of(root) -> list[dict]:
    """A perfect prediction by something that has only seen the copy."""
    rows = []
    for annotation in tiny.read(root)["annotations"]:
        keypoints = [float(v) for v in annotation["keypoints"]]
        keypoints[2::3] = [1.0] * 17
        rows.append({"image_id": annotation["image_id"], "category_id": 1, "keypoints": keypoints, "score": 0.9})
    return rows


def evaluate(root, rows: list[dict], folder) -> tuple:
    """Record and scored rows."""
    folder.mkdir()
    path = folder / "truth.json"
    path.write_text(json.dumps(rows))
    record = evaluate_predictions(path, str(root), "val", folder)
    written = record_path(folder, record).with_name(f"{record.key}.predictions.json.gz")
    return record, json.loads(gzip.decompress(written.read_bytes()))


@pytest.mark.parametrize("preset", presets())
@pytest.mark.parametrize("level", LEVELS)
def test_truth_scores_one(tiny_data, tmp_path, preset, level):
    how = LEVELS[level] | ({"scale": 1.0} if (preset, level) == ("none", "image") else {})
    out = tmp_path / "copy"
    manifest = degrade(tiny_data, out, preset=preset, workers=1, **how)
    record, scored = evaluate(out, truth_of(out), tmp_path / "results")

    before = {a["id"]: a for a in tiny.read(tiny_data)["annotations"]}
    copied = tiny.read(out)["annotations"]
    left_out = [a for a in before.values() if coco_height(tiny_data, a) <= HEIGHT] if level == "height" else []
    assert (0 < len(left_out) < len(before)) == (level == "height")
    assert len(copied) == len(scored) == record.counts.predictions == len(before) - len(left_out)
    assert {a["id"] for a in copied}.isdisjoint(a["id"] for a in left_out)

    # predictions arrive in the photographs' px, of which no threshold of OKS would show a thousandth
    for row, annotation in zip(scored, copied, strict=True):
        source = before[annotation["id"]]
        points, truth = (np.reshape(a["keypoints"], (17, 3)) for a in (row, source))
        labelled = truth[:, 2] > 0
        assert np.abs(points[labelled, :2] - truth[labelled, :2]).max() < 1e-6
        assert row["image_id"] == source["image_id"]

    metrics = record.metrics
    assert metrics.ap == metrics.ap50 == metrics.ap75 == metrics.ap_m == 1.0
    assert metrics.ar == metrics.ar50 == metrics.ar75 == metrics.ar_m == 1.0
    assert metrics.ap_l is metrics.ar_l is None  # as in the photographs, however small people are in the copy
    assert set(record.keypoint_ap.values()) == {1.0, None}
    assert record.protocol.degradation["dataset"]["preset"] == manifest["preset"]["name"]


@pytest.mark.parametrize("level", LEVELS)
def test_a_person_not_found_does_count(tiny_data, tmp_path, level):
    out = tmp_path / "copy"
    degrade(tiny_data, out, preset="paper", workers=1, **LEVELS[level])
    rows = truth_of(out)
    record, _ = evaluate(out, rows[1:], tmp_path / "results")
    assert record.metrics.ar == pytest.approx(1 - 1 / len(rows))
    assert record.metrics.ap < 1


def test_predictions_in_the_photographs_px_are_not_taken(tiny_data, tmp_path):
    """The copy's px are expected; what forgets to map is far off, not nearly right."""
    out = tmp_path / "copy"
    degrade(tiny_data, out, preset="paper", workers=1, **LEVELS["image"])
    record, _ = evaluate(out, truth_of(tiny_data), tmp_path / "results")
    assert record.metrics.ap < 0.1


def test_the_ceiling_is_in_original_coordinates(tiny_data, tmp_path):
    """In the copy's own px everybody would be small, and in no range of areas."""
    degrade(tiny_data, tmp_path / "copy", preset="antialias", workers=1, scale=4.0)
    cell = Cell(method="udp", res=Size(64, 48), data=str(tmp_path / "copy"), recipe="quick")
    metrics = Bench().ceiling(cell)["metrics"]
    assert metrics["ap_m"] == metrics["ap"] > 0.9
    assert metrics["ap_l"] is None


def coco_height(root, annotation: dict) -> float:
    """Of a box clipped to its picture, as persons are read."""
    image = next(i for i in tiny.read(root)["images"] if i["id"] == annotation["image_id"])
    return coco.clip_box(annotation["bbox"], image["width"], image["height"])[3]
