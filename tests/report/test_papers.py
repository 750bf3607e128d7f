from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from sample_records import record
from test_upscaled import matches

from lrbench import published
from lrbench.geometry import Size
from lrbench.method import load_method, plain
from lrbench.published import entries
from lrbench.records import Metrics, Record
from lrbench.report.formats import Column, Interval, Layout, Spread, console, csv_text, latex, markdown
from lrbench.report.papers import paper_table
from lrbench.report.reported import PERCENTAGES, read_reported, table, tables
from lrbench.statistics import Seeds


def measured(method: str, res: str, ap: float, **changes: Any) -> Record:
    """As `lrbench eval` writes it: with the method's settings and own alignment, on COCO unless said otherwise."""
    metrics = Metrics(ap=ap, ar=changes.pop("ar", ap + 0.05))
    further = {"ci95": changes.pop("ci95", {}), "further": changes.pop("further", {})}
    align = changes.pop("align", None)
    usual = {
        "dataset": "coco",
        "persons": 6352,
        "recipe": "paper",
        "train_data": "coco/train",
        "train_persons": 149_813,
    }
    sr = changes.pop("sr", "none")
    own = load_method(method, Size.parse(res), changes.get("backbone", "hrnet_w32"), **changes.pop("given", {}))
    settings = {key: plain(value) for key, value in own.settings.items()}
    made = record(method, res, ap, **usual | {"recipe": "paper", "settings": settings} | changes)
    protocol = made.protocol.model_copy(update={"align": align or own.frame.align})
    assert made.training is not None
    training = made.training.model_copy(update={"start": changes.get("start", "imagenet")})
    call = made.call.model_copy(update={"sr": sr, "pose": "" if sr == "none" else "clean"})
    changed = {"metrics": metrics, "protocol": protocol, "training": training, "call": call} | further
    return made.model_copy(update=changed)


def column(layout: Layout, heading: str, group: str = "") -> Column:
    found = [c for c in layout.columns if c.heading == heading and (c.group.heading if c.group else "") == group]
    assert len(found) == 1, [(c.heading, c.group) for c in layout.columns]
    return found[0]


def texts(layout: Layout, heading: str, group: str = "") -> list[str]:
    chosen = column(layout, heading, group)
    return [chosen.text(row) for row in range(layout.rows)]


def test_rows_and_columns_are_the_papers():
    layout = paper_table("cal/9", [])
    rows = table("cal/9")
    assert layout.title == "cal/9: arXiv:2109.09090, table 9: COCO test-dev2017, COCO val2017"
    assert texts(layout, "Method") == [row.method for row in rows]
    for heading, values in (
        ("Params (M)", [row.params_m for row in rows]),
        ("AP(M)", [None if row.ap_m is None else 100 * row.ap_m for row in rows]),
    ):
        assert texts(layout, heading, "reported") == ["-" if v is None else f"{v:.1f}" for v in values]
    # table 8 prints neither parameters nor operations
    assert [c.heading for c in paper_table("cal/8", []).columns if c.reported] == [
        "AP", "AP50", "AP75", "AP(M)", "AP(L)", "AR",
    ]  # fmt: skip
    assert paper_table("cal/8", []).breaks == {7}
    assert texts(paper_table("srpose/coco-val-top-down", []), "GFLOPs", "reported")[:5:2] == ["5.46", "5.77", "4.61"]


def test_what_was_never_measured_is_absent():
    layout = paper_table("cal/8", [])
    for heading in ("AP", "diff", "95% CI of diff", "AR"):
        assert set(texts(layout, heading, "measured")) == {"-"}
    assert "Nothing of this table was measured yet." in layout.captions


def test_rows_that_nothing_here_measures_say_why():
    notes = [cell.notes for cell in column(paper_table("cal/9", []), "Method").cells]
    assert notes == [(entry.reason,) if entry.reason else () for entry in entries("cal/9")]
    assert ("reported only: no method here has this name",) in notes


def test_a_difference_with_its_interval():
    one = measured("cal", "64x48", 0.574, ci95={"ap": (0.564, 0.584)})
    layout = paper_table("cal/8", [one])
    group = "measured on COCO val2017"
    assert texts(layout, "AP", group)[3] == "57.4"
    assert texts(layout, "95% CI", group)[3] == "56.4..58.4"
    assert texts(layout, "diff", group)[3] == "-1.0"
    assert texts(layout, "95% CI of diff", group)[3] == "-2.0..+0.0"
    assert column(layout, "95% CI of diff", group).cells[3].value == pytest.approx(Interval(-2.0, 0.0))
    assert texts(layout, "AR", group)[3] == "62.4"
    # the table has 16 rows, and only this one was measured; its protocol is the paper's
    assert [text for text in texts(layout, "AP", group) if text != "-"] == ["57.4"]
    assert layout.footnotes() == {}


def test_no_difference_to_another_dataset():
    one = measured("cal", "64x48", 0.2, dataset="coco-slice", persons=709, ci95={"ap": (0.1, 0.3)})
    layout = paper_table("cal/8", [one])
    group = "measured on coco-slice"
    assert texts(layout, "AP", group)[3] == "20.0"
    assert set(texts(layout, "diff", group)) == set(texts(layout, "95% CI of diff", group)) == {"-"}
    assert list(layout.footnotes()) == [
        "data: coco-slice val (not COCO val2017), reported on COCO val2017",
        "difference not formed: scored on coco-slice val (not COCO val2017)",
    ]


def test_no_difference_to_another_split_of_coco():
    one = measured("cal", "128x96", 0.7, backbone="hrnet_w48")
    layout = paper_table("cal/1", [one])
    assert set(texts(layout, "diff", "measured on COCO val2017")) == {"-"}
    reason = "difference not formed: scored on COCO val2017, reported on COCO test-dev2017"
    assert reason in layout.footnotes()


def test_a_row_is_its_settings():
    records = [measured("cal", "128x96", ap, given={"stages": kind}) for kind, ap in (("one", 0.73), ("two", 0.74))]
    group = "measured on COCO val2017"
    assert texts(paper_table("cal/7", records), "AP", group) == ["73.0", "74.0"]
    assert texts(paper_table("cal/6", records), "AP", group) == ["-", "-", "74.0"]
    unusual = measured("cal", "128x96", 0.5, given={"radius": 3.0})
    assert texts(paper_table("cal/7", [unusual]), "AP", "measured") == ["-", "-"]


def test_rows_that_only_their_notes_tell_apart():
    layout = paper_table("simcc/coco-val", [measured("hrnet", "64x64", 0.3, given={"step": "none"})])
    values = dict(zip(
        zip(*(texts(layout, heading) for heading in ("Method", "Backbone", "Input size", "Variant")), strict=True),
        texts(layout, "AP", "measured on COCO val2017"),
        strict=True,
    ))  # fmt: skip
    name = ("HRNet", "HRNet-W32", "64x64")
    assert values[*name, "extra post-processing (quarter-offset) = N"] == "30.0"
    assert values[*name, "extra post-processing (quarter-offset) = Y"] == "-"


def test_exact_backbone_before_its_stand_in():
    narrow = measured("udp", "64x48", 0.1, backbone="hrnet_w16", utc="2025-02-01T00:00:00Z")
    exact = measured("udp", "64x48", 0.4)
    group = "measured on COCO val2017"
    layout = paper_table("cal/8", [narrow])
    assert [texts(layout, "AP", group)[row] for row in (1, 5)] == ["10.0", "10.0"]
    notes = [column(layout, "AP", group).cells[row].notes for row in (1, 5)]
    assert notes == [(f"backbone: hrnet_w16, reported HRNet-W{width}",) for width in (32, 48)]
    both = paper_table("cal/8", [narrow, exact])
    assert [texts(both, "AP", group)[row] for row in (1, 5)] == ["40.0", "10.0"]


def test_the_newest_record_counts_and_seeds_are_averaged():
    old = measured("dark", "64x48", 0.9)
    seeds = [
        measured(
            "dark", "64x48", ap, seed=seed, utc=f"2025-02-0{seed + 1}T00:00:00Z", ci95={"ap": (ap - 0.01, ap + 0.02)}
        )
        for seed, ap in enumerate((0.40, 0.42, 0.47))
    ]
    runs = {seed: matches([i % (seed + 2) != 0 for i in range(60)]) for seed in range(3)}
    layout = paper_table("cal/8", [old, *seeds], lambda each: runs[each.provenance.seed])
    group = "measured on COCO val2017"
    value = column(layout, "AP", group).cells[2].value
    # sample standard deviation of 40, 42, 47: sqrt((9 + 1 + 16) / 2)
    assert value == pytest.approx(Spread(43.0, 13**0.5, 3))
    assert texts(layout, "AP", group)[2] == "43.0 ± 3.6 (n=3)"
    assert texts(layout, "diff", group)[2] == "-4.3"
    expected = Seeds.of(list(runs.values())).summary()["ap"]
    low, high = 100 * expected.low, 100 * expected.high
    assert column(layout, "95% CI", group).cells[2].value == pytest.approx(Interval(low, high))
    assert column(layout, "95% CI of diff", group).cells[2].value == pytest.approx(Interval(low - 47.3, high - 47.3))
    assert texts(paper_table("cal/8", seeds), "95% CI", group)[2] == "-"
    assert "Mean ± standard deviation over seeds (n of them)." in layout.captions


def test_one_group_of_columns_per_protocol():
    records = [
        measured("cal", "64x48", 0.5),
        measured("cal", "64x48", 0.4, flip=False),
        measured("cal", "64x48", 0.3, dataset="synth", persons=300),
        measured("cal", "64x48", 0.2, crop="antialias"),
    ]
    layout = paper_table("cal/8", records)
    groups = {c.group.heading: c.group.notes for c in layout.columns if c.group and not c.reported}
    assert list(groups) == [
        "measured on COCO val2017, flip test", "measured on COCO val2017, no flip test", "measured on synth",
    ]  # fmt: skip
    assert "flip test: off, reported with it" in groups["measured on COCO val2017, no flip test"]
    assert "Rows were also measured on other pixels, not shown here: crops antialias." in layout.captions
    alone = paper_table("cal/8", records[-1:])
    assert texts(alone, "AP", "measured on COCO val2017")[3] == "20.0"
    assert "pixels: crops antialias, reported on plain crops" in alone.footnotes()


def test_upscaled_rows_and_their_stand_ins():
    settings = load_method("udp", Size(256, 192), "hrnet_w32").settings
    changes = {"settings": {key: plain(value) for key, value in settings.items()}, "upscaling": {"sha256": "u"}}
    tiny = measured("udp", "64x48", 0.30, sr="spsr_tiny x4", **changes)
    own = measured("udp", "64x48", 0.35, sr="spsr x4", **changes)
    small = measured("udp", "64x48", 0.40)
    group = "measured on COCO val2017"
    assert texts(paper_table("cal/2", [tiny, small]), "AP", group)[2:8] == ["40.0", "-", "-", "-", "30.0", "-"]
    layout = paper_table("cal/2", [tiny, own, small])
    assert texts(layout, "AP", group)[6] == "35.0"
    assert texts(layout, "Upscaler") == ["", "", "", "", *["SPSR x4"] * 4, "", ""]


def test_rows_beside_upscaled_ones_share_their_pixels():
    own = measured("hrnet", "64x48", 0.31, utc="2025-02-01T00:00:00Z")
    shared = measured("hrnet", "64x48", 0.30, align="corner")
    group = "measured on COCO val2017"
    assert texts(paper_table("cal/8", [own, shared]), "AP", group)[0] == "31.0"
    layout = paper_table("cal/2", [own, shared])
    assert texts(layout, "AP", group)[0] == "30.0"
    assert "crops: cut by the rule corner, the method's own is biased" in layout.footnotes()


def test_metrics_of_other_protocols():
    one = measured("hrnet", "256x256", 0.0, dataset="mpii", further={"pckh50": 0.9, "pckh10": 0.33, "pckh11": 0.37})
    one = one.model_copy(update={"metrics": Metrics()})
    layout = paper_table("baselines/deep-high-resolution-net.pytorch-readme/results-on-mpii-val", [one])
    assert [c.heading for c in layout.columns if c.reported] == ["PCKh@0.5", "PCKh@0.11"]
    assert texts(layout, "PCKh@0.5", "reported") == ["88.5", "89.1", "89.6", "90.3"]
    assert texts(layout, "PCKh@0.5", "measured on mpii") == ["-", "-", "-", "90.0"]
    assert texts(layout, "PCKh@0.11", "measured on mpii") == ["-", "-", "-", "37.0"]
    assert any("reads its table at 0.11" in note for note in layout.footnotes())
    crowd = paper_table("simcc/crowdpose", [])
    headings = ["AP", "AP50", "AP75", "AP(easy)", "AP(medium)", "AP(hard)"]
    assert [c.heading for c in crowd.columns if c.reported] == headings


def test_other_keypoints_measure_nothing():
    coco = measured("hrnet", "256x192", 0.7, dataset="mine")
    crowd = measured("hrnet", "256x192", 0.6, dataset="crowdpose", further={"ap_easy": 0.7})
    crowd = crowd.model_copy(update={"keypoint_ap": {"top_head": 0.6, "left_hip": 0.5}})
    headings = {
        name: {c.group.heading for c in paper_table(name, [coco, crowd]).columns if c.group}
        for name in ("simcc/crowdpose", "simcc/coco-val")
    }
    assert headings["simcc/crowdpose"] == {"reported", "measured on crowdpose"}
    assert headings["simcc/coco-val"] == {"reported", "measured on mine"}


def test_a_heading_is_short_and_its_caption_names_the_file():
    records = [measured("cal", "64x48", 0.5), measured("cal", "64x48", 0.4, boxes="long_name.json")]
    layout = paper_table("cal/8", records)
    groups = list(dict.fromkeys(c.group.heading for c in layout.columns if c.group and not c.group.reported))
    assert groups == ["measured on COCO val2017, GT boxes", "measured on COCO val2017, detected boxes"]
    assert any(
        caption.startswith(f"{groups[1][0].upper()}{groups[1][1:]}: ") and "long_name.json" in caption
        for caption in layout.captions
    )
    layout = paper_table("cal/8", [*records, measured("cal", "64x48", 0.3, boxes="other.json")])
    told = {c.group.heading for c in layout.columns if c.group}
    assert "measured on COCO val2017, boxes from other.json" in told


def test_every_table_in_every_format(monkeypatch):
    monkeypatch.setattr(published, "ours", cache(published.ours))  # the same for all of them
    one, printed = measured("cal", "64x48", 0.5), 0
    for known in tables():
        layout = paper_table(known.name, [one])
        assert layout.rows == known.rows
        assert all(len(chosen.cells) == known.rows for chosen in layout.columns)
        assert markdown(layout).count("\n| ") == known.rows + 2
        assert latex(layout).count("\\toprule") == 1
        assert csv_text(layout).count("\n") == known.rows + 1
        assert console(layout)
        headings = ("AP", "AP50", "AP75", "AP(M)", "AP(L)", "AR")
        columns = [chosen for chosen in layout.columns if chosen.reported and chosen.heading in headings]
        printed += sum(cell.value is not None for chosen in columns for cell in chosen.cells)
    assert printed == sum(getattr(row, name) is not None for row in read_reported() for name in PERCENTAGES)


def test_unknown_table():
    with pytest.raises(ValueError, match="unknown table 'cal/88'; did you mean"):
        paper_table("cal/88", [])
