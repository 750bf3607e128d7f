"""Cells: keys, rows, what is trained and scored again and what is not, sizes of the networks."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lrbench import evaluation
from lrbench.bench import Bench, MissingWeights, check_writable, run_folder
from lrbench.cells import Cell
from lrbench.comparison import protocol_of, run_row
from lrbench.datasets.images import DataError
from lrbench.geometry import Size
from lrbench.method import costs, load_method
from lrbench.predictions import evaluate_predictions
from lrbench.records import read_record

# CAL paper / released networks: parameters and multiply-adds (convolutions only) with 17 keypoints
NETWORKS = [
    ("cal", "hrnet_w32", "64x48", 17_846_739, 576_718_848),
    ("cal", "hrnet_w48", "64x48", 39_546_819, 1_203_121_152),
    ("cal", "hrnet_w32", "128x96", 49_314_131, 2_697_338_880),
    ("cal", "hrnet_w48", "128x96", 110_322_435, 5_691_027_456),
    ("hrnet", "hrnet_w32", "64x48", 12_802_417, 429_004_800),
    ("hrnet", "hrnet_w48", "64x48", 28_207_937, 870_921_216),
    ("hrnet", "hrnet_w32", "128x96", 28_536_113, 1_911_250_944),
    ("hrnet", "hrnet_w48", "128x96", 63_595_745, 3_922_956_288),
    ("hrnet", "hrnet_w32", "256x192", 28_536_113, 7_645_003_776),
    ("hrnet", "hrnet_w48", "256x192", 63_595_745, 15_691_825_152),
    ("hrnet", "hrnet_w32", "384x288", 28_536_113, 17_201_258_496),
    ("hrnet", "hrnet_w48", "384x288", 63_595_745, 35_306_606_592),
    ("udp", "hrnet_w32", "128x96", 28_589_811, None),
    ("udp", "hrnet_w48", "128x96", 63_711_603, None),
]


@pytest.mark.parametrize(("name", "backbone", "size", "params", "macs"), NETWORKS)
def test_networks_have_the_published_size(name: str, backbone: str, size: str, params: int, macs: int | None):
    method = load_method(name, Size.parse(size), backbone)
    if macs is None:
        assert sum(p.numel() for p in method.build_model().parameters()) == params
    else:
        assert costs(method) == (params, macs)


def cell(data: Path, runs: Path, results: Path, method: str = "meanpose", **changes: Any) -> Cell:
    options = {"recipe": "quick", "epochs": 1, "batch": 4, "device": "cpu", "precision": "32-true", "workers": 0}
    return Cell(method=method, res=Size(64, 48), data=str(data), runs=runs, results=results, **(options | changes))


@pytest.fixture
def detections(tmp_path: Path) -> Path:
    path = tmp_path / "boxes.json"
    rows = [{"image_id": i, "category_id": 1, "bbox": [10, 10, 50, 90], "score": 0.5} for i in (200, 202)]
    path.write_text(json.dumps(rows))
    return path


def test_epochs_are_selected_on_annotated_persons_and_leave_no_crops_to_detected_ones(
    tiny_data: Path, tmp_path: Path, detections: Path
):
    own = cell(tiny_data, tmp_path / "runs", tmp_path / "results", "hrnet", recipe="paper", backbone="hrnet_w16")
    own = dataclasses.replace(own, boxes=str(detections))
    bench = Bench()
    bench.train(own)
    together = bench.results(own)
    assert together == Bench().results(own)
    assert len(together) <= 2


def test_key_changes_with_all_that_decides_the_number(tiny_data, tiny_copy, trained, tmp_path, detections):
    plain = cell(tiny_data, trained, tmp_path / "r")
    weights = {"weights": next(trained.rglob("meanpose/*/weights.safetensors"))}
    with (tiny_copy / "annotations" / "person_keypoints_val.json").open("a") as file:
        file.write("\n")
    variants = {
        "plain": plain,
        "flip": dataclasses.replace(plain, flip=False),
        "boxes": dataclasses.replace(plain, boxes=str(detections)),
        "preset": dataclasses.replace(plain, lr_preset="antialias", **weights),
        "split": dataclasses.replace(plain, split="train"),
        "seed": dataclasses.replace(plain, seed=1, **weights),
        "annotations": dataclasses.replace(plain, data=str(tiny_copy), **weights),
        "size": dataclasses.replace(plain, res=Size(128, 96), **weights),
        "method": dataclasses.replace(plain, method="hrnet"),
    }
    records = {name: Bench().evaluate(v) for name, v in variants.items()}
    assert len({r.key for r in records.values()}) == len(variants)
    assert Bench().evaluate(plain).key == records["plain"].key
    # how the numbers were computed decides nothing
    assert Bench().evaluate(dataclasses.replace(plain, workers=2)).key == records["plain"].key
    assert records["flip"].protocol.flip is False
    assert (records["boxes"].protocol.boxes, records["boxes"].counts.crops) == ("boxes.json", 2)
    assert records["boxes"].protocol.boxes_hash == hashlib.sha256(detections.read_bytes()).hexdigest()
    assert records["split"].counts.persons == 12
    assert records["plain"].counts.model_dump() == {"images": 3, "persons": 9, "crops": 9, "predictions": 9}


def test_predictions_scored_again_give_the_same_metrics(tiny_data, trained, tmp_path):
    for name in ("hrnet", "meanpose"):
        record = Bench().evaluate(cell(tiny_data, trained, tmp_path / "r", name))
        folder = tmp_path / "r" / "tiny" / "64x48" / name
        assert read_record(folder / f"{record.key}.json") == record
        kept = json.loads(gzip.decompress((folder / f"{record.key}.predictions.json.gz").read_bytes()))
        assert len(kept) == record.counts.predictions
        assert all("bbox" not in row for row in kept)
        truth = json.loads((tiny_data / "annotations" / "person_keypoints_val.json").read_text())
        assert evaluation.score(truth, kept) == record.metrics
        assert evaluation.score_keypoints(truth, kept) == record.keypoint_ap
        (tmp_path / "kept.json").write_text(json.dumps(kept))
        again = evaluate_predictions(tmp_path / "kept.json", str(tiny_data), "val", tmp_path / "r")
        assert again.metrics == record.metrics
        assert again.call.name == "predictions"


def test_scoring_twice_gives_the_same_predictions(tiny_data, trained, tmp_path):
    files = []
    for results in (tmp_path / "a", tmp_path / "b"):
        Bench().evaluate(cell(tiny_data, trained, results, "hrnet"))
        files.append([(p.relative_to(results), p.read_bytes()) for p in results.rglob("*.gz")])
    assert files[0] == files[1]


def test_kept_record_is_not_scored_again(tiny_data, trained, tmp_path, monkeypatch):
    plain = cell(tiny_data, trained, tmp_path / "r", "hrnet")
    record = Bench().evaluate(plain)
    monkeypatch.setattr("lrbench.bench.predict", None)  # would fail
    assert Bench().evaluate(plain, overwrite=False) == record
    with pytest.raises(TypeError):
        Bench().evaluate(plain)


def test_record_says_what_was_done(tiny_data, trained, tmp_path):
    record = Bench().evaluate(cell(tiny_data, trained, tmp_path / "r", "hrnet"))
    weights = next(trained.rglob("hrnet/*/weights.safetensors"))
    assert record.provenance.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert record.provenance.seed == 0
    assert record.provenance.versions["torch"] == torch.__version__ or record.provenance.versions["torch"]
    assert record.call.model_dump() | {"settings": {}} == {
        "name": "hrnet", "backbone": "hrnet_w16", "sr": "none", "pose": "", "res": "64x48", "settings": {}
    }  # fmt: skip
    assert record.training is not None
    assert (record.training.recipe, record.training.epochs, record.training.batch) == ("quick", 1, 4)
    assert (record.training.data, record.training.persons) == ("tiny/train", 12)
    assert record.cost.params == 1_068_193
    assert record.cost.train_seconds > 0
    assert record.protocol.align == "biased"
    assert record.metrics.ap_l is None


def test_row_of_a_missing_run(tiny_data, tmp_path):
    plain = cell(tiny_data, tmp_path / "runs", tmp_path / "r", "hrnet")
    row = run_row(Bench(), plain, may_train=False)[0]
    assert row["status"] == "missing"
    assert "lrbench train hrnet --res 64x48" in row["reason"]
    assert row["metrics"] is None
    assert (row["params"], row["macs"]) == (1_068_193, 42_126_336)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(MissingWeights):
        Bench().evaluate(plain)


@pytest.mark.parametrize(
    "change", [{"epochs": 2}, {"batch": 3}, {"seed": 1}, {"precision": "bf16-mixed"}, {"lr_preset": "antialias"}]
)
def test_run_of_other_settings_is_another_run(tiny_data, trained, tmp_path, change):
    plain = cell(tiny_data, trained, tmp_path / "r", "hrnet")
    assert run_row(Bench(), plain, may_train=False)[0]["status"] == "done"
    assert run_row(Bench(), dataclasses.replace(plain, **change), may_train=False)[0]["status"] == "missing"


def test_workers_and_split_to_score_are_not_part_of_a_run(tiny_data, trained, tmp_path):
    plain = cell(tiny_data, trained, tmp_path / "r", "hrnet", workers=2, split="train", flip=False)
    assert run_row(Bench(), plain, may_train=False)[0]["status"] == "done"


def test_unfinished_run_is_not_scored(tiny_data, tmp_path):
    def kill(what: str, done: int, total: int, note: str = "") -> None:
        if (what, done) == ("epoch", 1):
            raise KeyboardInterrupt

    plain = cell(tiny_data, tmp_path / "runs", tmp_path / "r", "hrnet", recipe="paper", epochs=2, backbone="hrnet_w16")
    with pytest.raises(KeyboardInterrupt):
        Bench(kill).train(plain)
    assert run_row(Bench(), plain, may_train=False)[0]["status"] == "missing"


def test_protocol(tiny_data, trained, tmp_path):
    cells = [cell(tiny_data, trained, tmp_path, seed=seed) for seed in (1, 0)]
    protocol = protocol_of(Bench(), cells)
    expected = {
        "dataset": "tiny", "split": "val", "n_images": 3, "n_persons": 9, "train_data": "tiny/train",
        "train_persons": 12, "boxes": "gt", "flip": True, "lr_preset": "paper", "recipe": "quick", "rescoring": 0.2,
        "oks_nms": 0.9, "seeds": [0, 1], "degradation": None,
    }  # fmt: skip
    assert {key: protocol[key] for key in expected} == expected
    assert len(protocol["data_hash"]) == 64


def test_run_folder(tmp_path):
    folder = run_folder(cell(tmp_path, Path("runs"), tmp_path), {"data": "tiny/train"})
    assert folder.parent == Path("runs/tiny/64x48/meanpose")
    assert len(folder.name) == 16


def test_writable(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_text("kept")
    for folder in (tmp_path / "file", tmp_path / "file" / "results"):
        with pytest.raises(ValueError, match="cannot be written"):
            check_writable(folder)
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("{}", "expected a list of COCO keypoint results, found dict"),
        ([{"image_id": 200}], "row 0: expected image_id, category_id, keypoints and score"),
        ([{"image_id": 200, "category_id": 1, "keypoints": [1] * 50, "score": 1}], "row 0: expected 51 finite numbers"),
        (
            [{"image_id": 200, "category_id": 1, "keypoints": [float("nan")] * 51, "score": 1}],
            "row 0: expected 51 finite",
        ),
        (
            [{"image_id": 200, "category_id": 1, "keypoints": [1] * 51, "score": float("inf")}],
            "row 0: expected 51 finite",
        ),
        ([{"image_id": 7, "category_id": 1, "keypoints": [1] * 51, "score": 1}], "row 0: image 7 is not in tiny/val"),
        ([[1, 2]], "row 0: expected"),
    ],
)
def test_result_files_of_other_tools(tiny_data, tmp_path, content, message):
    path = tmp_path / "p.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError, match=message):
        evaluate_predictions(path, str(tiny_data), "val", tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_result_file_without_results(tiny_data, tmp_path):
    (tmp_path / "p.json").write_text("[]")
    record = evaluate_predictions(tmp_path / "p.json", str(tiny_data), "val", tmp_path / "r")
    assert record.metrics.ap == 0
    assert record.counts.predictions == 0
