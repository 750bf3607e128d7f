from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lrbench.records import (
    Cost,
    Counts,
    MethodCall,
    Metrics,
    Protocol,
    Provenance,
    Record,
    Training,
    key_of,
    write_record,
)
from lrbench.report.plots import line_labels, lines_of, plot
from lrbench.structures import KEYPOINTS


def record(method: str, res: str, ap: float | None, **changes: Any) -> Record:
    given: dict[str, Any] = {
        "seed": 0,
        "flip": True,
        "boxes": "gt",
        "backbone": "hrnet_w32",
        "dataset": "synth",
        "split": "val",
        "recipe": "quick",
        "data_hash": "aaaa",
        "crop": "paper",
        "decoder": {},
        "settings": {},
        "status": "done",
        "utc": "2025-01-01T00:00:00Z",
        "keypoint_ap": {name: None if ap is None or name == "nose" else ap for name in KEYPOINTS},
    } | changes
    return Record(
        key=key_of(method, res, given),
        status=given["status"],
        call=MethodCall(name=method, backbone=given["backbone"], sr="none", res=res, settings=given["settings"]),
        training=Training(
            recipe=given["recipe"],
            data="synth/train",
            data_hash="bbbb",
            persons=100,
            epochs=2,
            batch=8,
            start="scratch",
            numbers={},
        ),
        protocol=Protocol(
            dataset=given["dataset"],
            split=given["split"],
            data_hash=given["data_hash"],
            boxes=given["boxes"],
            flip=given["flip"],
            align="corner",
            decoder=given["decoder"],
            degradation={"crop": {"name": given["crop"]}},
            referee="r",
        ),
        metrics=Metrics(ap=ap),
        keypoint_ap=given["keypoint_ap"],
        counts=Counts(images=1, persons=10, crops=10, predictions=10),
        cost=Cost(),
        provenance=Provenance(
            lrbench="0",
            commit="",
            code_hash="",
            versions={},
            weights_sha256="",
            seed=given["seed"],
            device="cpu",
            precision="float32",
            threads=1,
            utc=given["utc"],
        ),
        settings={},
    )


def labels(method: str) -> tuple[str, ...]:
    return {"one": ("HRNet",), "two": ("UDP",)}.get(method, ())


def write(folder: Path, records: list[Record]) -> Path:
    for each in records:
        write_record(folder, each)
    return folder


def svg_words(path: Path) -> str:
    """What is drawn as text; SVG keeps it in comments beside the glyphs."""
    lines = path.read_text().splitlines()
    return " ".join(line.strip().removeprefix("<!--").removesuffix("-->").strip() for line in lines if "<!--" in line)


def test_figures(tmp_path: Path):
    results = write(
        tmp_path / "results",
        [
            record("one", "64x48", 0.2),
            record("one", "64x48", 0.3, seed=1),
            record("one", "128x96", 0.4),
            record("one", "256x192", None),
            record("two", "64x48", 0.5),
            record("two", "96x72", None, status="failed", keypoint_ap={}),
        ],
    )
    paths = plot(results, tmp_path / "out", labels=labels)
    names = ["ap_over_resolution_synth", "per_keypoint_synth_64x48", "per_keypoint_synth_128x96"]
    assert [path.name for path in paths] == [f"{name}.{kind}" for name in names for kind in ("png", "svg")]
    for path in paths:
        assert path.stat().st_size > 5000
        start = path.read_bytes()[:8]
        assert start == b"\x89PNG\r\n\x1a\n" if path.suffix == ".png" else start.startswith(b"<?xml")
    words = svg_words(tmp_path / "out" / "ap_over_resolution_synth.svg")
    assert "measured on synth val (rendered pictures, not COCO)" in words
    assert "one: reported, COCO val2017," in words
    assert "HRNet-W32, GT boxes (inferred)" in words
    assert "64x48" in words
    assert "mean over seeds" in words
    words = svg_words(tmp_path / "out" / "per_keypoint_synth_64x48.svg")
    assert "left shoulder" in words
    assert "-: not measured" in words


def test_default_folder_and_no_reported_curve(tmp_path: Path):
    results = write(tmp_path, [record("one", "64x48", 0.2, keypoint_ap={})])
    paths = plot(results)
    assert paths == [tmp_path / "figures" / f"ap_over_resolution_synth.{kind}" for kind in ("png", "svg")]
    assert "reported" not in svg_words(paths[1])


def test_same_records_same_picture(tmp_path: Path):
    results = write(tmp_path, [record("one", "64x48", 0.2)])
    first = [path.read_bytes() for path in plot(results, tmp_path / "a", labels=labels)]
    assert first == [path.read_bytes() for path in plot(results, tmp_path / "b", labels=labels)]


def test_one_figure_per_dataset(tmp_path: Path):
    results = write(
        tmp_path,
        [record("one", "64x48", 0.2, keypoint_ap={}), record("one", "64x48", 0.2, dataset="my data", keypoint_ap={})],
    )
    assert [path.stem for path in plot(results)][::2] == ["ap_over_resolution_my-data", "ap_over_resolution_synth"]


def test_result_file_without_a_crop_size(tmp_path: Path):
    results = write(tmp_path, [record("predictions", "", 0.2, backbone="")])
    assert [path.stem for path in plot(results)] == ["per_keypoint_synth_any"] * 2


def test_nothing_to_draw(tmp_path: Path):
    with pytest.raises(ValueError, match="no records"):
        plot(tmp_path)
    write(tmp_path, [record("one", "64x48", None)])
    with pytest.raises(ValueError, match="1 records, none with an AP"):
        plot(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"flip": False}, ["flip test", "no flip test"]),
        ({"boxes": "yolo.json"}, ["GT boxes", "boxes from yolo.json"]),
        ({"recipe": "paper"}, ["recipe paper", "recipe quick"]),
        ({"backbone": "hrnet_w48"}, ["hrnet_w32", "hrnet_w48"]),
        ({"split": "test"}, ["test", "val"]),
        ({"data_hash": "cccc"}, ["data aaaa", "data cccc"]),
        ({"crop": "antialias"}, ["pixels: crops antialias", "plain crops"]),
        ({"decoder": {"grid": {"blur": 3}}}, ["grid.blur=3", "no grid.blur"]),
        ({"settings": {"radius": 5}, "decoder": {"radius": 5}}, ["no radius", "radius=5"]),
        ({"settings": {"radius": 5}}, ["no radius", "radius=5"]),
    ],
)
def test_other_protocol_is_another_line(change: dict[str, Any], words: list[str]):
    lines = lines_of([record("one", "64x48", 0.2), record("one", "128x96", 0.3), record("one", "64x48", 0.4, **change)])
    assert len(lines) == 2
    assert sorted(line_labels(lines)[0]) == sorted(f"one, {word}" for word in words)


def test_a_difference_between_methods_is_marked_too():
    lines = lines_of([record("one", "64x48", 0.2), record("two", "64x48", 0.3, flip=False)])
    labels, shared = line_labels(lines)
    assert labels == ["one, flip test", "two, no flip test"]
    assert "GT boxes" in shared
    assert "flip test" not in shared


def test_settings_that_follow_the_size_keep_one_line():
    records = [record("one", "64x48", 0.2, settings={"sigma": 1}), record("one", "128x96", 0.3, settings={"sigma": 2})]
    (line,) = lines_of(records)
    assert line_labels([line])[0] == ["one"]


def test_square_crops_are_another_line():
    assert len(lines_of([record("one", "64x48", 0.2), record("one", "128x128", 0.3)])) == 2


def test_latest_record_of_a_seed_counts():
    (line,) = lines_of([record("one", "64x48", 0.3, utc="2025-02-01T00:00:00Z"), record("one", "64x48", 0.2)])
    assert [r.metrics.ap for r in line.records] == [0.3]
