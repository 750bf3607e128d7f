from __future__ import annotations

from typing import Any

import pytest
from sample_records import record
from test_upscaled import matches

from lrbench.records import Cost, Metrics, Record
from lrbench.report.formats import Column, Interval, Layout, Spread, console, csv_text, latex, markdown
from lrbench.report.leaderboard import leaderboard, split_notes
from lrbench.statistics import Seeds


def scored(method: str, ap: float, **changes: Any) -> Record:
    further = {key: changes.pop(key) for key in ("ci95", "cost", "further", "metrics") if key in changes}
    res = changes.pop("res", "64x48")
    return record(method, res, ap, **changes).model_copy(update={"metrics": Metrics(ap=ap, ar=0.5), **further})


def column(layout: Layout, heading: str, group: str = "") -> Column:
    (found,) = (c for c in layout.columns if c.heading == heading and (c.group.heading if c.group else "") == group)
    return found


def values(layout: Layout, heading: str, group: str = "") -> list[Any]:
    return [cell.value for cell in column(layout, heading, group).cells]


def test_one_table_per_protocol_and_size():
    records = [
        scored("hrnet", 0.1),
        scored("hrnet", 0.2, res="128x96"),
        scored("hrnet", 0.3, flip=False),
        scored("hrnet", 0.4, boxes="yolo.json"),
        scored("hrnet", 0.5, crop="antialias"),
        scored("hrnet", 0.6, data_hash="cccc"),
        scored("hrnet", 0.7, dataset="coco", split="val2017", persons=6352),
        record("hrnet", "64x48", None),
        scored("hrnet", 0.8, status="failed"),
    ]
    layouts = leaderboard(records)
    data = "synth val (rendered pictures, not COCO), 10 persons"
    assert [(layout.title, values(layout, "AP", "measured")) for layout in layouts] == [
        ("COCO val2017, 6352 persons; GT boxes; flip test; plain crops; crops 64x48", [70.0]),
        (f"{data}; GT boxes; flip test; plain crops; crops 64x48", [10.0]),
        (f"{data}; GT boxes; flip test; plain crops; crops 128x96", [20.0]),
        (f"{data}; GT boxes; flip test; plain crops; crops 64x48", [60.0]),
        (f"{data}; GT boxes; no flip test; plain crops; crops 64x48", [30.0]),
        (f"{data}; boxes from yolo.json; flip test; plain crops; crops 64x48", [40.0]),
        (f"{data}; GT boxes; flip test; pixels: crops antialias; crops 64x48", [50.0]),
    ]


def test_best_first_and_seeds_pooled():
    records = [
        scored("udp", 0.2),
        *(scored("cal", ap, seed=seed) for seed, ap in enumerate((0.28, 0.30, 0.35))),
        scored("dark", 0.33, backbone="hrnet_w48"),
        scored("udp", 0.1, utc="2020-01-01T00:00:00Z"),
    ]
    (layout,) = leaderboard(records)
    assert values(layout, "Method") == ["dark", "cal", "udp"]
    assert values(layout, "Backbone") == ["hrnet_w48", "hrnet_w32", "hrnet_w32"]
    # of 28, 30, 35: mean 31, variance (9 + 1 + 16) / 2
    assert values(layout, "AP", "measured") == [33.0, pytest.approx(Spread(31.0, 13**0.5, 3)), 20.0]
    assert values(layout, "AR", "measured")[1] == Spread(50.0, 0.0, 3)


def test_intervals_and_costs_of_the_newest():
    cost = Cost(params=1_500_000, macs=57_000_000, params_sr=500_000, macs_sr=3_000_000, latency_ms=4.25)
    records = [scored("cal", 0.3, ci95={"ap": (0.28, 0.33)}, cost=cost), scored("udp", 0.2)]
    (layout,) = leaderboard(records)
    assert values(layout, "AP 95% CI", "measured") == [pytest.approx(Interval(28.0, 33.0)), None]
    assert values(layout, "Params (M)", "cost") == [2.0, None]
    assert values(layout, "GMACs", "cost") == [pytest.approx(0.06), None]
    assert values(layout, "Latency (ms)", "cost") == [4.25, None]
    assert column(layout, "Latency (ms)", "cost").text(1) == "-"


def test_what_differs_is_a_footnote_and_what_is_shared_a_caption():
    records = [scored("cal", 0.3), scored("udp", 0.2, recipe="paper"), scored("dark", 0.1)]
    (layout,) = leaderboard(records)
    notes = [cell.notes for cell in column(layout, "Method").cells]
    assert notes == [("recipe quick",), ("recipe paper",), ("recipe quick",)]
    assert layout.captions[0].startswith("All rows: scored by r, ")
    assert "trained on 100 persons of synth/train" in layout.captions[0]
    assert "Settings" not in [c.heading for c in layout.columns]


def test_settings_have_a_column():
    records = [scored("cal", 0.3, settings={"sigma": 1.0}), scored("cal", 0.2, settings={"sigma": 2.0})]
    (layout,) = leaderboard(records)
    assert values(layout, "Settings") == ["sigma=1", "sigma=2"]


def test_reported_numbers_stand_beside_with_marks():
    records = [scored("cal", 0.3), scored("meanpose", 0.1, backbone="")]
    (layout,) = leaderboard(records)
    assert values(layout, "AP", "reported") == [pytest.approx(58.4), None]
    assert values(layout, "Source", "reported") == ["arXiv:2109.09090, table 8", None]
    (group,) = {c.group for c in layout.columns if c.reported}
    assert "data: synth val (rendered pictures, not COCO), reported on COCO val2017" in group.notes
    assert "diff" not in [c.heading for c in layout.columns]
    assert values(layout, "Backbone") == ["hrnet_w32", None]


def test_a_difference_on_coco():
    (layout,) = leaderboard([scored("cal", 0.574, dataset="coco", persons=6352)])
    assert [column(layout, "diff", "reported").text(0)] == ["-1.0"]


def test_results_of_other_tools_have_tables_too():
    foreign = scored("predictions", 0.4, res="", backbone="")
    (layout,) = leaderboard([foreign])
    assert layout.title.endswith("plain crops")
    assert not any(c.reported for c in layout.columns)


def test_metrics_of_other_protocols():
    mpii = scored("hrnet", 0.0, metrics=Metrics(), further={"pckh50": 0.85})
    other = scored("udp", 0.0, metrics=Metrics(), further={"pckh50": 0.9})
    (layout,) = leaderboard([mpii, other])
    assert values(layout, "Method") == ["udp", "hrnet"]
    assert values(layout, "PCKh@0.5", "measured") == [90.0, 85.0]
    assert "AP" not in [c.heading for c in layout.columns]


def test_the_first_metric_that_rows_have_ranks_them_and_has_the_interval():
    records = [
        scored(name, 0.0, metrics=Metrics(), further={"pck05": pck, "pck10": 0.5}).model_copy(
            update={"further_ci95": {"pck05": (pck - 0.01, pck + 0.02), "pck10": (0.4, 0.6)}}
        )
        for name, pck in (("cal", 0.1), ("udp", 0.2))
    ]
    (layout,) = leaderboard(records)
    assert values(layout, "Method") == ["udp", "cal"]
    measured = [c.heading for c in layout.columns if c.group and c.group.heading == "measured"]
    assert measured == ["PCK@0.05", "PCK@0.05 95% CI", "PCK@0.1"]
    assert values(layout, "PCK@0.05 95% CI", "measured")[0] == pytest.approx(Interval(19.0, 22.0))
    assert any(caption.startswith("95% CI: over the images scored;") for caption in layout.captions)


def test_the_interval_of_seeds_is_of_their_mean():
    runs = {seed: matches([i % (seed + 2) != 0 for i in range(60)]) for seed in (0, 1)}
    records = [scored("cal", 0.3 + seed / 10, seed=seed, ci95={"ap": (0.1, 0.2)}) for seed in runs]
    (layout,) = leaderboard(records, lambda each: runs[each.provenance.seed])
    expected = Seeds.of(list(runs.values())).summary()["ap"]
    ends = Interval(100 * expected.low, 100 * expected.high)
    assert values(layout, "AP 95% CI", "measured") == [pytest.approx(ends)]
    (layout,) = leaderboard(records)
    assert values(layout, "AP 95% CI", "measured") == [None]


def test_epochs_are_counted_and_not_called_the_recipes_own():
    (layout,) = leaderboard([scored("cal", 0.3), scored("udp", 0.2)])
    assert "recipe quick, 2 epochs" in layout.captions[0]


def test_every_format_takes_them():
    layouts = leaderboard([scored("cal", 0.3), scored("cal", 0.2, res="128x96")])
    for layout in layouts:
        assert "| cal " in markdown(layout)
        assert "cal &" in latex(layout).replace("\\textsuperscript{}", "")
        assert console(layout)
    assert csv_text(*layouts).count("\n") == 3


def test_notes_that_all_share():
    assert split_notes([]) == ((), [])
    assert split_notes([["a", "b"], ["b", "c", "a"]]) == (("a", "b"), [(), ("c",)])


def test_nothing():
    assert leaderboard([]) == []
