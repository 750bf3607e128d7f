from __future__ import annotations

from pathlib import Path

import pytest
from sample_records import record
from test_upscaled import matches

from lrbench.records import Record, matches_path, write_record
from lrbench.report.formats import Interval, Spread
from lrbench.report.seeds import interval, latest, matches_below, mean, metric, no_matches, pooled, spread
from lrbench.statistics import Seeds

RUNS = [matches([i % step != 0 for i in range(60)]) for step in (2, 3, 4)]


def of_seeds(count: int) -> list[Record]:
    """Records of as many seeds, with intervals of their own that are nothing like those of their matches."""
    records = [record("one", "64x48", 0.1 * (seed + 4), seed=seed, utc=f"2025-01-0{seed + 1}") for seed in range(count)]
    changes = {"ci95": {"ap": (0.01, 0.02)}, "further": {"pck10": 0.3}, "further_ci95": {"pck10": (0.25, 0.5)}}
    return [each.model_copy(update=changes) for each in records]


def written(folder: Path, records: list[Record]) -> list[Record]:
    for each, own in zip(records, RUNS, strict=False):
        write_record(folder, each, matches=own)
    return records


def test_the_interval_of_one_run_is_its_own():
    assert interval(of_seeds(1), "ap", no_matches) == pytest.approx(Interval(1.0, 2.0))
    assert interval(of_seeds(1), "ap", no_matches, less=0.015) == pytest.approx(Interval(-0.5, 0.5))
    assert interval(of_seeds(1), "pck10", no_matches) == pytest.approx(Interval(25.0, 50.0))
    assert interval(of_seeds(1), "ap75", no_matches) is None


def test_the_interval_of_several_seeds_is_that_of_their_mean(tmp_path: Path):
    records = written(tmp_path, of_seeds(3))
    expected = Seeds.of(RUNS).summary()["ap"]
    found = interval(records, "ap", matches_below(tmp_path), less=0.25)
    assert found == pytest.approx(Interval(100 * (expected.low - 0.25), 100 * (expected.high - 0.25)))
    for run in RUNS:  # no seed's own interval would do
        alone = Seeds.of([run]).summary()["ap"]
        assert abs(alone.low - expected.low) > 0.01


def test_no_interval_where_the_mean_has_none(tmp_path: Path):
    records = written(tmp_path, of_seeds(3))
    read = matches_below(tmp_path)
    assert interval(records, "ap", no_matches) is None
    assert interval(records, "pck10", read) is None
    assert interval(records, "ap", read) is not None
    matches_path(tmp_path, records[1]).unlink()
    assert interval(records, "ap", matches_below(tmp_path)) is None
    assert interval([], "ap", read) is None


def test_pooled_metrics():
    records = of_seeds(2)
    assert pooled(records, "ap") == Spread(pytest.approx(45.0), pytest.approx(50**0.5), 2)
    assert mean(pooled(records, "ap")) == pytest.approx(45.0)
    assert (pooled(records[:1], "pck10"), pooled(records, "ap75"), pooled([], "ap")) == (30.0, None, None)
    assert [mean(value) for value in (3.0, None, "words", spread([]))] == [3.0, None, None, None]
    assert metric(record("one", "64x48", -1.0), "ap") is None
    assert latest(records) is records[1]
