"""Published tables as comparisons: every row is there, with what measures it or the reason why nothing does."""

from __future__ import annotations

import json
from functools import cache

import pytest

from lrbench import published
from lrbench.method import load_method, setting_names
from lrbench.published import entries, find
from lrbench.report.reported import tables

ABLATIONS = {
    "cal/3": [{"mask": "fixed", "fixed_mask": "disc"}, {"mask": "mgm"}],
    "cal/4": [{"components": n} for n in (1, 2, 3)] * 2,
    "cal/5": [{"heatmap": "binary"}, {"heatmap": "gaussian"}],
    "cal/6": [{"offset_loss": kind} for kind in ("l2", "smooth_l1", "l1")],
    "cal/7": [{"stages": "one"}, {"stages": "two"}],
}


@pytest.mark.parametrize("table", ABLATIONS)
def test_ablation_tables_are_settings(table):
    rows = entries(table)
    assert [dict(row.settings) for row in rows] == ABLATIONS[table]
    for row in rows:
        method = load_method(row.method, row.reported.size, row.backbone, **row.settings)
        assert all(method.settings[key] == value for key, value in row.settings.items())


def test_rows_on_other_systems_are_reported_only():
    rows = {row.reported.method: row for row in entries("cal/9")}
    for label in ("RMPE", "CPN", "CPN (ensemble)"):
        assert rows[label].method == ""
        assert rows[label].reason.startswith("reported only")
    assert rows["CAL"].method == "cal"
    assert rows["IPR"].settings == {"form": "ipr"}


def test_what_a_note_states_is_a_setting():
    rows = [row for row in entries("srpose/coco-val-top-down") if row.method]
    assert {(row.reported.method, row.settings.get("step")) for row in rows} >= {
        ("SR head", None), ("SR head", "none"), ("SRPose", None), ("SRPose", "none"),
    }  # fmt: skip
    assert all(("step" in row.settings) == ("without quarter-pixel" in row.reported.note) for row in rows)
    labels = {row.method for row in entries("simcc/coco-val") if "step" in row.settings}
    assert labels == {"hrnet", "simplebaseline"}  # SimCC has no such step to leave out


def test_every_row_is_measured_or_says_why_not(monkeypatch):
    monkeypatch.setattr(published, "ours", cache(published.ours))  # the same for all of them
    for table in tables():
        for row in entries(table.name):
            assert bool(row.method) != bool(row.reason)
            assert not row.method or row.settings.keys() <= set(setting_names(row.method))


def test_other_systems_are_reported_only():
    reasons = {row.reason for row in entries("srpose/coco-val-bottom-up")}
    assert reasons == {"reported only: a bottom-up system, and every method here is top-down"}
    *others, ensemble = entries("baselines/darkpose-readme/results-on-coco-test-dev2017")
    assert ensemble.reason == "reported only: an ensemble of networks"
    assert all(row.method for row in others)


def test_one_name_of_two_methods_is_that_of_the_backbone(monkeypatch):
    both = [("simplebaseline", {}), ("hrnet", {})]
    monkeypatch.setattr(published, "ours", lambda: {"simple head": both})
    rows = [row for row in entries("srpose/coco-val-top-down") if row.reported.method == "Simple head"]
    assert {(row.backbone, row.method) for row in rows if row.method} == {
        ("resnet50", "simplebaseline"), ("hrnet_w32", "hrnet"),
    }  # fmt: skip


def test_methods_and_sizes_choose_among_rows():
    assert {row.method for row in entries("cal/8", ["cal", "dark"])} == {"cal", "dark"}
    assert {str(row.reported.size) for row in entries("cal/8", sizes=["64x48"])} == {"64x48"}


def test_a_setting_finds_its_own_report():
    size = (128, 96)
    assert find(load_method("cal", size))[0].table == "8"
    row, differences = find(load_method("cal", size, heatmap="binary"))
    assert (row.method, differences) == ("CAL (heatmap target: binary)", [])
    row, differences = find(load_method("cal", size, radius=3.0))
    assert (row.method, row.table) == ("CAL", "8")
    assert differences == ["settings: radius=3.0, not the method's usual ones"]


def test_compare_shows_a_published_table(cli, tiny_data):
    result = cli("compare", "--table", "cal/9", "--data", tiny_data, "--recipe", "quick", "--no-train", "--json")
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    assert len(rows) == len(entries("cal/9"))
    assert {row["status"] for row in rows} == {"missing"}
    assert all(row["reported"]["table"] == "9" for row in rows)
    assert {row["backbone"] for row in rows if row["method"] == "cal"} == {"hrnet_w16"}


def test_compare_runs_a_published_table(cli, tiny_data):
    words = ["--data", tiny_data, "--recipe", "quick", "--epochs", 2, "--batch", 4, "--workers", 0, "--device", "cpu"]
    result = cli("compare", "--table", "cal/7", *words, "--precision", "32-true", "--json")
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    assert [(row["settings"], row["status"]) for row in rows] == [
        ({"stages": "one"}, "done"),
        ({"stages": "two"}, "done"),
    ]
    assert [row["reported"]["ap"] for row in rows] == [0.737, 0.743]


def test_compare_wants_methods_or_a_table(cli):
    result = cli("compare")
    assert result.exit_code == 2
    assert result.stderr.startswith("lrbench: compare needs at least one METHOD")
    result = cli("compare", "--table", "cal/88")
    assert result.exit_code == 2
    assert "unknown table 'cal/88'; did you mean cal/8" in result.stderr
