from __future__ import annotations

from collections import Counter
from dataclasses import replace
from importlib import resources
from typing import Any

import pytest

from lrbench.geometry import Size
from lrbench.records import Cost, Counts, MethodCall, Metrics, Protocol, Provenance, Record, Training
from lrbench.report.reported import (
    COLUMNS,
    PERCENTAGES,
    comparison,
    data_in_words,
    degradation_in_words,
    extra_training_data,
    find,
    further_metrics,
    read_csv,
    read_reported,
    reported_boxes,
    table,
    tables,
)

PAPER = "arXiv:2109.09090"
LOW = Size(64, 48)
HEADER = ",".join(COLUMNS)


def measured(
    ap: float | None = 0.6,
    *,
    dataset: str = "coco",
    split: str = "val",
    persons: int = 6352,
    boxes: str = "gt",
    flip: bool = True,
    backbone: str = "hrnet_w32",
    res: str = "64x48",
    trained: bool = True,
    **changes: Any,
) -> Record:
    numbers = {
        "recipe": "paper",
        "data": "coco/train",
        "data_hash": "t",
        "persons": 149_813,
        "epochs": 210,
        "batch": 128,
        "start": "imagenet",
        "numbers": {},
    }
    return Record(
        key="k",
        call=MethodCall(name="m", backbone=backbone, sr="none", res=res, settings={}),
        training=Training(**(numbers | changes)) if trained else None,
        protocol=Protocol(
            dataset=dataset,
            split=split,
            data_hash="d",
            boxes=boxes,
            flip=flip,
            align="corner",
            decoder={},
            degradation={"crop": {"name": "paper"}},
            referee="r",
        ),
        metrics=Metrics(ap=ap),
        counts=Counts(images=1, persons=persons, crops=persons, predictions=persons),
        cost=Cost(),
        provenance=Provenance(
            lrbench="0",
            commit="",
            code_hash="",
            versions={},
            weights_sha256="",
            seed=0,
            device="cpu",
            precision="float32",
            threads=1,
            utc="2025-01-01T00:00:00Z",
        ),
        settings={},
    )


def test_every_file_has_its_rows():
    folder = resources.files("lrbench.report") / "reported"
    counts = {p.name: len(read_csv(p.read_text(encoding="utf-8"), p.name)) for p in folder.iterdir()}
    assert counts == {
        "baselines.csv": 278,
        "cal_2109.09090.csv": 58,
        "integral_1711.08229_1801.07372.csv": 4,
        "mgil_2405.12247.csv": 1,
        "rle_2107.11291.csv": 20,
        "simcc_2107.03332.csv": 87,
        "sr.csv": 10,
        "srpose_2307.16765.csv": 38,
    }
    assert len(read_reported()) == sum(counts.values())


def test_metrics_are_fractions():
    for row in read_reported():
        for name in PERCENTAGES:
            value = getattr(row, name)
            assert value is None or 0 <= value <= 1, row
    assert max(row.ap for row in read_reported() if row.ap is not None) > 0.7


def test_size_of_an_upscaled_row_is_that_of_the_crop():
    assert {row.size for row in table("cal/2")} == {LOW}
    assert table("cal/2")[4].sr == "SPSR x4"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,1,COCO,val2017,m,b,,64,48,,,much,,,,,,", "x.csv line 3: ap is 'much'; expected a number"),
        ("a,1,COCO,val2017,m,b,,64,48,,,101,,,,,,", "x.csv line 3: ap is 101; expected percent"),
        ("a,1,COCO,val2017,m,b,,64,48,,,-1,,,,,,", "x.csv line 3: ap is -1; expected a number of at least 0"),
        ("a,1,COCO,val2017,m,b,,64,,,,10,,,,,,", "x.csv line 3: size '64x'"),
        ("a,1,COCO,val2017,,b,,64,48,,,10,,,,,,", "x.csv line 3: method is empty"),
        ("a,1,COCO", "x.csv line 3: 3 cells, expected 18"),
    ],
)
def test_bad_row_names_file_and_line(line: str, message: str):
    good = "a,1,COCO,val2017,m,b,,64,48,,,10,,,,,,"
    with pytest.raises(ValueError, match=message):
        read_csv(f"{HEADER}\n{good}\n{line}\n", "x.csv")


def test_bad_header():
    with pytest.raises(ValueError, match=r"x\.csv line 1: the header"):
        read_csv("source,ap\n", "x.csv")


@pytest.mark.parametrize(
    ("labels", "backbone", "ap"),
    [
        (("HRNet",), "hrnet_w32", 0.297),
        (("HRNet",), "HRNet-W32", 0.297),
        (("HRNet",), "hrnet_w48", 0.324),
        (("UDP",), "hrnet_w32", 0.474),
        (("DARK", "HRNet+DARK"), "hrnet_w32", 0.473),
        (("CAL",), "hrnet_w32", 0.584),
        (("CAL",), "hrnet_w48", 0.615),
        (("CAL", "CAL (one-stage)"), "hrnet_w32", 0.584),
    ],
)
def test_find_at_64x48(labels: tuple[str, ...], backbone: str, ap: float):
    row = find(labels, backbone, LOW)
    assert row is not None
    assert (row.ap, row.source, row.table, row.split) == (ap, PAPER, "8", "val2017")


def test_rows_of_one_comparison_come_from_one_source():
    for labels, ap in [(("HRNet",), 0.615), (("DARK", "HRNet+DARK"), 0.728)]:
        row = find(labels, "hrnet_w32", Size(128, 96))
        assert row is not None
        assert (row.source, row.ap) == (PAPER, ap)
    elsewhere = find(("HRNet+DARK",), "hrnet_w32", Size(256, 192))
    assert elsewhere is not None
    assert elsewhere.source != PAPER
    assert elsewhere.ap == 0.756


@pytest.mark.parametrize(
    ("backbone", "found"),
    [("hrnet_w16", "HRNet-W32"), ("hrnet_w44", "HRNet-W48"), ("resnet_50", "HRNet-W32"), ("", "HRNet-W32")],
)
def test_nearest_backbone(backbone: str, found: str):
    row = find(("HRNet",), backbone, LOW)
    assert row is not None
    assert row.backbone == found


def test_other_backbone_is_a_difference():
    row = find(("CAL",), "hrnet_w16", LOW)
    assert row is not None
    assert comparison(row, backbone="hrnet_w16")["protocol_differs"] == ["backbone: hrnet_w16, reported HRNet-W32"]
    assert comparison(row, backbone="hrnet_w32")["protocol_differs"] == []


def test_nothing_reported():
    assert find(("HRNet",), "hrnet_w32", Size(96, 72)) is None
    assert find((), "hrnet_w32", LOW) is None
    assert find(("HRNet",), "hrnet_w32", LOW, sr="bicubic") is None


def test_upscaler_must_be_the_same():
    row = find(("HRNet",), "hrnet_w32", LOW, sr="spsr_x4")
    assert row is not None
    assert (row.ap, row.sr) == (0.5, "SPSR x4")
    assert find(("CAL",), "hrnet_w32", LOW, sr="spsr_x4") is None


def test_tables_list_every_row_once():
    listed = {t.name: t for t in tables()}
    assert sum(t.rows for t in listed.values()) == len(read_reported())
    assert listed["cal/8"].rows == 16
    assert listed["cal/8"].sizes == (LOW, Size(128, 96))
    assert listed["cal/8"].title == f"{PAPER}, table 8: COCO val2017"
    assert Counter(name.split("/")[0] for name in listed).keys() == {
        "baselines", "cal", "integral", "mgil", "rle", "simcc", "sr", "srpose",
    }  # fmt: skip
    assert all(table(name) for name in listed)


def test_unknown_table_names_the_closest():
    with pytest.raises(ValueError, match=r"unknown table 'cal/88'; did you mean .*cal/8"):
        table("cal/88")


def test_boxes_from_the_notes():
    assert {reported_boxes(row) for number in range(2, 9) for row in table(f"cal/{number}")} == {"GT boxes (inferred)"}
    assert {reported_boxes(row) for row in table("cal/1")} == {"detector boxes"}
    assert reported_boxes(table("cal/9")[-1]) == "detector boxes (65.1 AP)"
    assert {reported_boxes(row) for row in table("srpose/coco-val-top-down")} == {"detector boxes (56.4 AP)"}
    assert reported_boxes(replace(table("cal/8")[0], note="flip test")) == "boxes not stated"


def test_further_training_data_from_the_notes():
    assert extra_training_data(table("cal/8")[0]) == ""
    notes = {extra_training_data(row) for row in read_reported()}
    assert {"AI Challenger data", "AIC+COCO training", "train: COCO+AIC+MPII"} <= notes


@pytest.mark.parametrize(
    ("note", "metrics"),
    [
        ("PCKh@0.5 mean=88.5; PCKh@0.1 mean=34.0 (true 0.10)", {"pckh50": 0.885, "pckh10": 0.34}),
        ("PCKh@0.1 mean=37.7 (repo evaluates this at threshold 0.11)", {"pckh11": 0.377}),
        ("PCKh@0.5=86.1 PCKh@0.1=27.7", {"pckh50": 0.861, "pckh10": 0.277}),
        ("metric PCKh@0.1: head=12.9 mean=9.2; flip test", {"pckh10_head": 0.129, "pckh10": 0.092}),
        ("AP_easy=74.0; AP_medium=67.4; x=1", {"ap_easy": 0.74, "ap_medium": 0.674}),
        ("detector boxes (person AP 56.4); flip test", {}),
    ],
)
def test_metrics_of_other_protocols_from_the_notes(note: str, metrics: dict[str, float]):
    assert further_metrics(replace(table("cal/8")[0], note=note)) == metrics


def test_every_row_of_other_datasets_has_a_number():
    others = [row for row in read_reported() if row.dataset != "COCO"]
    assert {row.dataset for row in others} == {"MPII", "CrowdPose"}
    assert all(further_metrics(row) for row in others)
    assert not any(further_metrics(row) for row in read_reported() if row.dataset == "COCO")


@pytest.mark.parametrize(
    ("note", "start", "difference"),
    [
        ("", "imagenet", None),
        ("", "scratch", "start: random weights, reported start not stated"),
        ("ImageNet backbone", "imagenet", None),
        ("ImageNet backbone", "scratch", "start: random weights, reported from ImageNet weights"),
        ("trained from scratch (no ImageNet)", "scratch", None),
        ("trained from scratch (no ImageNet)", "imagenet", "start: imagenet, reported from random weights"),
        (
            "backbone pre-trained on COCO heatmaps",
            "imagenet",
            "start: imagenet, reported from weights of COCO heatmaps",
        ),
        ("initialised from a COCO heatmap model", "x", "start: x, reported from weights of COCO heatmap model"),
    ],
)
def test_start_of_training(note: str, start: str, difference: str | None):
    row = replace(table("cal/8")[0], note=f"flip test; GT boxes; {note}", backbone="hrnet_w32")
    expected = [] if difference is None else [difference]
    assert comparison(row, measured(start=start))["protocol_differs"] == expected


def test_every_table_states_its_source_and_number():
    for row in read_reported():
        assert row.source
        assert row.table


def test_equal_protocols_differ_in_nothing():
    row = find(("CAL",), "hrnet_w32", LOW)
    assert row is not None
    # the tables do not say where training started; ImageNet weights are what all of these papers use
    given = comparison(row, measured(0.6))
    assert given["protocol_differs"] == []
    assert given["delta_ap"] == pytest.approx(0.016)
    assert given["boxes"] == "GT boxes (inferred)"
    assert (given["source"], given["table"], given["split"], given["ap"]) == (PAPER, "8", "val2017", 0.584)


def test_every_difference_is_named():
    row = find(("CAL",), "hrnet_w32", LOW)
    assert row is not None
    record = measured(
        dataset="synth", persons=300, boxes="yolo.json", flip=False, backbone="hrnet_w16", res="96x72",
        recipe="quick", epochs=18, data="synth/train", start="scratch",
    )  # fmt: skip
    given = comparison(row, record, differences=["said by the caller"])
    assert given["delta_ap"] is None
    assert given["protocol_differs"] == [
        "said by the caller",
        "data: synth val (rendered pictures, not COCO), reported on COCO val2017",
        "boxes: file yolo.json, reported with GT boxes (inferred)",
        "flip test: off, reported with it",
        "backbone: hrnet_w16, reported HRNet-W32",
        "recipe: quick, 18 epochs, not the paper's",
        "training data: synth/train, reported with COCO train2017",
        "start: random weights, reported start not stated",
        "size: 96x72, reported at 64x48",
    ]


def test_part_of_coco_is_not_coco():
    row = find(("CAL",), "hrnet_w32", LOW)
    assert row is not None
    given = comparison(row, measured(persons=100))
    assert given["delta_ap"] is None
    assert given["protocol_differs"] == [
        "data: 100 persons of COCO val2017, not all 6352, reported on COCO val2017",
    ]
    assert comparison(row, measured(**{"persons": 6352, "data": "coco/val"}))["protocol_differs"] == [
        "training data: coco/val, reported with COCO train2017"
    ]


def test_part_of_the_training_data_is_named():
    row = find(("CAL",), "hrnet_w32", LOW)
    assert row is not None
    record = measured()
    assert record.training is not None
    record = record.model_copy(update={"training": record.training.model_copy(update={"persons": 2000})})
    assert comparison(row, record)["protocol_differs"] == [
        "training data: 2000 persons of COCO train2017, reported with COCO train2017"
    ]


def test_other_split_has_no_difference_in_ap():
    row = table("cal/1")[-1]
    given = comparison(row, measured(res="128x96", backbone="hrnet_w48"))
    assert given["delta_ap"] is None
    assert given["protocol_differs"] == [
        "data: COCO val2017, reported on COCO test-dev2017",
        "boxes: GT, reported with detector boxes",
    ]


def test_not_measured_and_not_trained():
    row = table("cal/8")[0]
    given = comparison(row, measured(None, trained=False))
    assert given["delta_ap"] is None
    assert given["protocol_differs"] == ["training: none recorded"]


def test_silent_reports_are_marked():
    row = replace(table("cal/8")[0], note="")
    assert comparison(row, measured())["protocol_differs"] == [
        "boxes: GT, reported ones not stated",
        "flip test: on, not stated in the report",
    ]


def test_words():
    assert data_in_words("coco", "val2017", 6352) == "COCO val2017"
    assert data_in_words("mine", "val") == "mine val (not COCO val2017)"
    assert degradation_in_words({}) == "paper"
    assert degradation_in_words({"crop": {"name": "paper", "sampling": "PointSampling"}}) == "paper"
    assert degradation_in_words({"crop": "none"}) == "paper"
    assert degradation_in_words({"crop": {"name": "antialias"}}) == "crops antialias"
    made = {"preset": "antialias", "scale": 4, "size": None}
    assert degradation_in_words({"crop": {"name": "none"}, "dataset": made}) == "images antialias scale 4"
