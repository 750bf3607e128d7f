"""Ranked rows: seeds together, differences to the best of the same size and pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lrbench.ranking import ranked
from lrbench.records import METRICS
from lrbench.scoring import BOOTSTRAP
from lrbench.statistics import Matches, Seeds, difference

IMAGES = 30


def matches(right: float, seed: int = 0) -> Matches:
    """Two persons per image, one prediction each, of which about a share is right at every threshold."""
    rng = np.random.default_rng(seed)
    thresholds, image = np.linspace(0.5, 0.95, 10), np.repeat(np.arange(IMAGES), 2).astype(np.int32)
    order = rng.permutation(len(image))
    good = (rng.random(len(image)) < right)[None, None].repeat(10, 1)
    return Matches(
        images=np.arange(1, IMAGES + 1),
        areas=("all",),
        thresholds=thresholds,
        image=image[order],
        score=np.linspace(1, 0, len(image)),
        matched=good,
        ignored=np.zeros_like(good),
        persons=np.full((1, IMAGES), 2, np.int32),
    )


def row(method: str, seed: int | None = 0, res: str = "64x48", preset: str = "paper", **changes: Any) -> dict[str, Any]:
    told = {"metrics": dict.fromkeys(METRICS, 0.5), "settings": {}}
    return {"method": method, "seed": seed, "res": res, "lr_preset": preset, **told, **changes}


def test_every_method_is_compared_with_the_best_of_its_size():
    rows = [row("a"), row("b"), row("c", res="128x96"), row("missing")]
    found = [matches(0.5, 1), matches(0.9, 2), matches(0.95, 3), None]
    a, b, c = ranked(rows, found)
    assert [m["rows"] for m in (a, b, c)] == [[0], [1], [2]]
    assert b["difference"] is None
    assert c["difference"] is None  # alone at its size, though better than both
    assert a["difference"]["to"] == [1]
    ours, theirs = (Seeds.of([m], resamples=BOOTSTRAP.resamples, seed=BOOTSTRAP.seed) for m in found[:2])
    expected = difference(ours, theirs)
    assert a["difference"]["value"] == expected.value == pytest.approx(ours.values[0, 0] - theirs.values[0, 0])
    assert a["difference"]["ci95"] == [expected.low, expected.high]
    assert a["difference"]["resolved"]
    assert a["difference"]["seed_ci95"] is None
    assert a["metrics"]["ap"]["std"] is None


def test_seeds_of_a_method_are_one():
    rows = [row("a", 0), row("b", 0), row("a", 1), row("b", 1), row("a", 0, settings={"sigma": 2})]
    found = [matches(0.8, 1), matches(0.6, 2), matches(0.84, 3), matches(0.62, 4), matches(0.1, 5)]
    a, b, other = ranked(rows, found)
    assert [m["rows"] for m in (a, b, other)] == [[0, 2], [1, 3], [4]]
    assert a["seeds"] == [0, 1]
    single = [m.metrics()["ap"] for m in (found[0], found[2])]
    assert a["metrics"]["ap"]["mean"] == pytest.approx(np.mean(single))
    assert a["metrics"]["ap"]["std"] == pytest.approx(np.std(single, ddof=1))
    assert [a["metrics"]["ap"]["min"], a["metrics"]["ap"]["max"]] == pytest.approx(sorted(single))
    assert b["difference"]["seed_error"] > 0
    assert b["difference"]["seed_ci95"][0] < b["difference"]["value"] < b["difference"]["seed_ci95"][1]
    assert other["difference"]["to"] == [0, 2]
    assert other["difference"]["seed_ci95"] is None


def test_pixels_are_not_ranked_with_each_other():
    a, b = ranked([row("a"), row("a", preset="antialias")], [matches(0.5, 1), matches(0.9, 2)])
    assert (a["difference"], b["difference"]) == (None, None)


def test_predictions_of_another_tool_are_ranked_where_there_is_one_size():
    tool = row("tool", None, res="", preset="")
    found = [matches(0.5, 1), matches(0.9, 2), matches(0.7, 3)]
    a, theirs, _ = ranked([row("a"), tool, row("b")], found)
    assert theirs["difference"] is None
    assert a["difference"]["to"] == [1]
    a, theirs, b = ranked([row("a"), tool, row("b", res="128x96")], found)
    assert [m["difference"] for m in (a, theirs, b)] == [None, None, None]


def test_the_same_predictions_differ_by_nothing():
    same = matches(0.7, 1)
    _, second = ranked([row("a"), row("b")], [same, same])
    assert second["difference"]["value"] == 0
    assert second["difference"]["ci95"] == [0, 0]
    assert not second["difference"]["resolved"]


def test_a_cell_that_stands_twice_is_not_another_seed():
    """Two rows of a published table that one narrow backbone measures, or two files of one name: no trainings."""
    rows = [row("a", 0), row("a", 1), row("a", 0), row("a", 1), row("x.json", None), row("x.json", None)]
    first, second = matches(0.8, 1), matches(0.84, 2)
    listed = ranked(rows, [first, second, first, second, matches(0.3, 3), matches(0.5, 4)])
    assert [m["rows"] for m in listed] == [[0, 1], [2, 3], [4], [5]]
    assert listed[0]["metrics"] == listed[1]["metrics"]
    assert [m["metrics"]["ap"]["std"] for m in listed[2:]] == [None, None]


def test_a_seed_that_was_not_measured_does_not_move_the_others():
    rows = [row("a", 0), row("a", 1), row("a", 0), row("a", 1)]
    listed = ranked(rows, [None, matches(0.8, 1), matches(0.7, 2), matches(0.8, 1)])
    assert [m["rows"] for m in listed] == [[1], [2, 3]]


def test_metrics_that_rows_do_not_tell_are_not_told():
    told = {"ap": 0.5, "ap_m": None}
    (found,) = ranked([row("a", metrics=dict.fromkeys(METRICS) | told)], [matches(0.5, 1)])
    assert set(found["metrics"]) == {"ap"}
