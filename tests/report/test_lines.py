from __future__ import annotations

from typing import Any

import pytest
from sample_records import on_copy, record

from lrbench.records import Record
from lrbench.report.lines import (
    COPY_HEIGHT,
    COPY_SEVERITY,
    CROP_SEVERITY,
    Line,
    copy_height,
    copy_severity,
    crop_severity,
    line_labels,
    lines_of,
    lines_over,
)


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
        ({"crop": "sensor", "severity": 2}, ["pixels: crops sensor, severity 2", "plain crops"]),
        ({"decoder": {"grid": {"blur": 3}}}, ["grid.blur=3", "no grid.blur"]),
        ({"settings": {"radius": 5}, "decoder": {"radius": 5}}, ["no radius", "radius=5"]),
        ({"settings": {"radius": 5}}, ["no radius", "radius=5"]),
        ({"upscaling": {"boundary": "u8"}}, ["no upscaler", "upscaler edsr x4"]),
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
    assert line.superseded == 1


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({"crop": "sensor", "severity": 2}, {"crop": "sensor", "severity": 3}, ["severity 2", "severity 3"]),
        (
            {"crop": "sensor", "severity": 2, "numbers": {"lens": 0.6}},
            {"crop": "sensor", "severity": 2},
            ["", "lens=0.6"],
        ),
    ],
)
def test_other_pixels_are_another_line_over_size(one: dict[str, Any], other: dict[str, Any], words: list[str]):
    lines = lines_of([record("one", "64x48", 0.2, **one), record("one", "128x96", 0.3, **other)])
    assert sorted(line_labels(lines)[0]) == [f"one, {word}" if word else "one" for word in words]


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({"height": 32}, {"height": 48}, ["persons 32 px high", "persons 48 px high"]),
        (
            {"height": 32, "preset": "jpeg", "copy_severity": 1},
            {"height": 32, "preset": "jpeg", "copy_severity": 2},
            ["images of severity 1", "images of severity 2"],
        ),
        (
            {"scale": 2.0},
            {"scale": 4.0},
            ["images antialias scale 2.0 level image", "images antialias scale 4.0 level image"],
        ),
    ],
)
def test_other_copies_of_one_name_are_other_lines_over_size(
    one: dict[str, Any], other: dict[str, Any], words: list[str]
):
    same = {"dataset": "copy", "data_hash": "same"}
    lines = lines_of([on_copy("one", 0.2, **one, **same), on_copy("one", 0.3, **other, **same)])
    assert line_labels(lines)[0] == [f"one, {word}" for word in words]


def test_what_stands_behind_an_upscaler_divides_lines():
    given = [
        {"upscaling": {"boundary": "u8"}, "pose": "up"},
        {"upscaling": {"boundary": "u8"}, "pose": "sr"},
        {"upscaling": {"boundary": "float"}, "pose": "sr"},
    ]
    lines = lines_of(record("one", "64x48", 0.2, **choice) for choice in given)
    assert line_labels(lines)[0] == [
        "one, pose network sr",
        "one, pose network sr, float pixels between",
        "one, pose network up",
    ]


def test_seeds_of_pixels_are_repeats():
    (line,) = lines_of(
        [record("one", "64x48", ap, crop="sensor", severity=3, pixel_seed=s) for s, ap in ((0, 0.2), (1, 0.4))]
    )
    assert [r.metrics.ap for r in line.records] == [0.2, 0.4]
    assert line.superseded == 0


def sensor(severity: int, weights: str, **changes: Any) -> Record:
    return record("one", "64x48", severity / 10, crop="sensor", severity=severity, weights=weights, **changes)


def plain(weights: str, **changes: Any) -> Record:
    return record("one", "64x48", 0.9, weights=weights, **changes)


def weights_at(line: Line, place: Any) -> dict[int, list[str]]:
    """Hashes of the weights by place."""
    points = line.points(place)
    return {at: sorted(r.provenance.weights_sha256 for r in records) for at, records in points.items()}


def over_severity(records: list[Record]) -> dict[str, dict[int, list[str]]]:
    lines = lines_over(CROP_SEVERITY, records)
    return dict(zip(line_labels(lines)[0], (weights_at(line, crop_severity) for line in lines), strict=True))


def test_one_network_and_one_trained_at_each_severity():
    records = [plain("p"), *(sensor(s, "p") for s in (1, 2, 3)), *(sensor(s, f"at {s}") for s in (1, 2, 3))]
    assert over_severity(records) == {
        "one, one network": {0: ["p"], 1: ["p"], 2: ["p"], 3: ["p"]},
        "one, trained at each severity": {1: ["at 1"], 2: ["at 2"], 3: ["at 3"]},
    }


def test_plain_point_of_networks_trained_at_each_severity():
    """It is of a network that was scored at no severity; theirs on plain crops would be another line's."""
    records = [plain("p"), plain("at 1", utc="2025-02-01T00:00:00Z"), sensor(1, "at 1"), sensor(2, "at 2")]
    assert over_severity(records) == {"one, trained at each severity": {0: ["p"], 1: ["at 1"], 2: ["at 2"]}}


def test_networks_of_several_seeds():
    one = [sensor(s, f"seed {seed}", seed=seed) for s in (1, 2) for seed in (0, 1)]
    each = [sensor(s, f"{seed} at {s}", seed=seed) for s in (1, 2) for seed in (0, 1)]
    assert over_severity(one + each) == {
        "one, one network": {1: ["seed 0", "seed 1"], 2: ["seed 0", "seed 1"]},
        "one, trained at each severity": {1: ["0 at 1", "1 at 1"], 2: ["0 at 2", "1 at 2"]},
    }


def test_two_networks_of_one_seed_are_never_joined():
    records = [sensor(s, weights) for s in (1, 2) for weights in ("aaaa", "bbbb")] + [plain("aaaa"), plain("cccc")]
    assert over_severity(records) == {
        "one, one network, weights aaaa": {0: ["aaaa"], 1: ["aaaa"], 2: ["aaaa"]},
        "one, one network, weights bbbb": {1: ["bbbb"], 2: ["bbbb"]},
    }


def test_networks_that_could_belong_to_any_line_stand_alone():
    records = [sensor(1, "aaaa"), sensor(2, "bbbb"), sensor(2, "cccc")]
    assert over_severity(records) == {
        "one, scored at one severity, weights aaaa": {1: ["aaaa"]},
        "one, scored at one severity, weights bbbb": {2: ["bbbb"]},
        "one, scored at one severity, weights cccc": {2: ["cccc"]},
    }


@pytest.mark.parametrize(
    "change",
    [{"flip": False}, {"settings": {"radius": 5}}, {"data_hash": "cccc"}, {"train_hash": "cccc"}, {"split": "x"}],
)
def test_severities_of_other_protocols_are_other_lines(change: dict[str, Any]):
    assert len(lines_over(CROP_SEVERITY, [sensor(1, "w"), sensor(2, "w"), sensor(3, "w", **change)])) == 2


def test_other_numbers_of_one_severity_are_another_line():
    records = [sensor(1, "w"), sensor(2, "w", numbers={"white": 1000.0}), sensor(3, "w")]
    assert over_severity(records) == {
        "one, one network": {1: ["w"], 3: ["w"]},
        "one, white=1000.0, scored at one severity": {2: ["w"]},
    }


def test_copies_of_several_severities():
    records = [
        on_copy("one", 0.5, preset="jpeg", copy_severity=1, scale=4.0, weights="w"),
        on_copy("one", 0.4, preset="jpeg", copy_severity=2, scale=4.0, weights="w"),
        on_copy("one", 0.6, preset="paper", scale=4.0, weights="w"),
    ]
    (line,) = lines_over(COPY_SEVERITY, records)
    assert weights_at(line, copy_severity) == {0: ["w"], 1: ["w"], 2: ["w"]}


def trained_on_copies(heights: tuple[int, ...]) -> list[Record]:
    """A network for each copy, trained on that copy."""
    return [
        on_copy(
            "one", 0.5, height=h, weights=f"at {h}",
            train_data=f"copy-antialias-0-{h}/train", train_hash=str(h), train_persons=1000 - h,
        )
        for h in heights
    ]  # fmt: skip


def test_heights():
    anywhere = [on_copy("one", 0.5, height=h, weights="p", train_data="coco/train") for h in (32, 64)]
    # trained on one of the copies, and scored on both
    both = [
        on_copy("one", 0.5, height=h, weights="b", train_data="copy-antialias-0-64/train", train_hash="64")
        for h in (32, 64)
    ]
    lines = lines_over(COPY_HEIGHT, [*anywhere, *both, *trained_on_copies((32, 48, 64))])
    labels, _ = line_labels(lines)
    assert dict(zip(labels, (weights_at(line, copy_height) for line in lines), strict=True)) == {
        "one, on each copy's own training split, trained at each height": {32: ["at 32"], 48: ["at 48"], 64: ["at 64"]},
        "one, trained on 100 persons of coco/train, one network": {32: ["p"], 64: ["p"]},
        "one, trained on 100 persons of copy-antialias-0-64/train, one network": {32: ["b"], 64: ["b"]},
    }
