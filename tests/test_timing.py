"""Phases that add up to the time between."""

from __future__ import annotations

import pytest

from lrbench import timing
from lrbench.timing import Stopwatch


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    return now


def test_what_runs_inside_is_taken_from_what_is_around(clock):
    times = Stopwatch()
    with times("outer"):
        clock[0] = 1.0
        with times("inner"):
            clock[0] = 3.0
        clock[0] = 3.5
    clock[0] = 10.0  # between phases nothing is counted
    with times("inner"):
        clock[0] = 11.0
    assert times.seconds == {"outer": 1.5, "inner": 3.0}
    assert times.in_words == "4.5 s: inner 66.7 %, outer 33.3 %"


def test_an_error_ends_its_phase(clock):
    times = Stopwatch()

    def breaks() -> None:
        with times("a"):
            clock[0] = 2.0
            raise KeyError

    with pytest.raises(KeyError):
        breaks()
    clock[0] = 5.0
    with times("b"):
        clock[0] = 6.0
    assert times.seconds == {"a": 2.0, "b": 1.0}


def test_small_parts_are_not_worth_words(clock):
    times = Stopwatch()
    assert times.in_words == ""
    with times("long"):
        clock[0] = 100.0
    with times("short"):
        clock[0] += 0.01
    assert times.in_words == "100.0 s: long 100.0 %"
