from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_records import record

from lrbench.records import Record, matches_path, write_record
from lrbench.report.formats import Interval, Layout
from lrbench.report.seeds import matches_below, no_matches
from lrbench.report.upscaled import super_resolution
from lrbench.statistics import Matches, Seeds, difference


def behind(sr: str, pose: str, ap: float, **changes: Any) -> Record:
    """A record of a method behind an upscaler that enlarges four times."""
    chosen = {"upscaler": sr, "scale": 4, "boundary": "u8", "mapping": "composed", "pose": pose}
    weights = "clean" if pose == "clean" else f"{sr} {pose}"
    found = record("one", "64x48", ap, upscaling=chosen, pose=pose, **{"weights": weights} | changes)
    return found.model_copy(update={"call": found.call.model_copy(update={"sr": f"{sr} x4"})})


RECORDS = [
    record("one", "64x48", 0.1, weights="small"),
    record("one", "64x48", 0.2, weights="small", crop="antialias"),
    behind("bicubic", "clean", 0.3),
    behind("bicubic", "clean", 0.25, crop="antialias"),
    behind("edsr", "clean", 0.28),
    behind("edsr", "clean", 0.375, crop="antialias"),
    behind("bicubic", "up", 0.29),
    behind("edsr", "sr", 0.31),
    behind("edsr", "joint", 0.33),
    record("one", "256x192", 0.6, weights="clean"),
    # not of the table: another network, other pixels, another method
    record("one", "256x192", 0.7, weights="other"),
    record("one", "64x48", 0.15, weights="small", crop="sensor", severity=3),
    record("two", "64x48", 0.5),
]


def rows(table: Layout) -> list[list[str]]:
    return [[column.text(row) for column in table.columns] for row in range(table.rows)]


def values(table: Layout, heading: str, group: str) -> list[Any]:
    (found,) = (c for c in table.columns if c.group is not None and (c.heading, c.group.heading) == (heading, group))
    return [cell.value for cell in found.cells]


def test_rows_by_letter_and_pixels_side_by_side(tmp_path: Path):
    (table,) = super_resolution(RECORDS, no_matches)
    assert table.title.startswith("one, hrnet_w32: synth val (rendered pictures, not COCO), 10 persons; GT boxes; flip")
    assert table.title.endswith("; crops 64x48")
    assert "plain" not in table.title
    assert [row[:4] for row in rows(table)] == [
        ["A", "none", "", "64x48"],
        ["B", "bicubic x4", "clean", "64x48"],
        ["C", "edsr x4", "clean", "64x48"],
        ["D", "bicubic x4", "up", "64x48"],
        ["E", "edsr x4", "sr", "64x48"],
        ["G", "edsr x4", "joint", "64x48"],
        ["H", "none", "", "256x192"],
    ]
    assert values(table, "AP", "pixels paper") == pytest.approx([10, 30, 28, 29, 31, 33, 60])
    assert values(table, "AP", "pixels antialias") == [20.0, 25.0, 37.5, None, None, None, None]
    gaps = values(table, "to B", "pixels paper")
    assert (gaps[1], gaps[6]) == (None, None)
    assert [gaps[0], *gaps[2:6]] == pytest.approx([-20, -2, -1, 1, 3])
    assert values(table, "to B", "pixels antialias")[2] == pytest.approx(12.5)
    words = "\n".join(table.captions)
    assert "Row E: super-resolved, the network trained on what the upscaler makes" in words
    assert "Row F is the further columns: all of these on other pixels" in words
    assert "cut once per person by the rule corner" in words
    assert "8-bit pixels between upscaler and network" in words


def test_the_latest_of_each_seed_counts(tmp_path: Path):
    later = behind("edsr", "clean", 0.4, utc="2025-02-01T00:00:00Z", weights="clean")
    other = behind("edsr", "clean", 0.5, seed=1, weights="clean")
    (table,) = super_resolution([*RECORDS[2:3], later, *RECORDS[4:5], other], no_matches)
    assert rows(table)[1][5] == "45.0 ± 7.1 (n=2)"


def matches(right: list[bool]) -> Matches:
    """One person and one prediction in each image."""
    count = len(right)
    flags = np.broadcast_to(np.array(right), (3, 10, count)).copy()
    return Matches(
        images=np.arange(count),
        areas=("all", "medium", "large"),
        thresholds=np.linspace(0.5, 0.95, 10),
        image=np.arange(count, dtype=np.int32),
        score=np.linspace(1, 0.5, count),
        matched=flags,
        ignored=np.zeros_like(flags),
        persons=np.ones((3, count), np.int32),
    )


def test_intervals_of_differences_are_paired(tmp_path: Path):
    base, better, lone = RECORDS[2], RECORDS[4], RECORDS[7]
    kept = {base.key: matches([i % 3 == 0 for i in range(60)]), better.key: matches([i % 2 == 0 for i in range(60)])}
    for each in (base, better, lone):
        write_record(tmp_path, each)
        if each.key in kept:
            kept[each.key].save(matches_path(tmp_path, each))
    (table,) = super_resolution([base, better, lone], matches_below(tmp_path))
    expected = difference(Seeds.of([kept[better.key]]), Seeds.of([kept[base.key]]))
    assert expected is not None
    assert values(table, "to B", "pixels paper") == [None, pytest.approx(100 * expected.value), pytest.approx(1.0)]
    ends = values(table, "to B 95% CI", "pixels paper")
    assert ends == [None, Interval(100 * expected.low, 100 * expected.high), None]
    assert ends[1].low < 100 * expected.value < ends[1].high


def test_no_upscaler_no_table(tmp_path: Path):
    assert not list(super_resolution([record("one", "64x48", 0.1)], no_matches))
