"""Epochs and rates."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest

from lrbench.geometry import Size
from lrbench.method import list_methods, load_method
from lrbench.recipes import PAPER, QUICK, RECIPES, Recipe, learning_rate, load_recipe, plan

CAL = load_method("cal", (64, 48), "hrnet_w16")
HRNET = load_method("hrnet", (64, 48), "hrnet_w16")


def with_epochs(epochs: int, recipe: Recipe = QUICK) -> Recipe:
    return dataclasses.replace(recipe, epochs=epochs)


@pytest.mark.parametrize("epochs", [2, 3, 4, 5, 6, 7, 10, 13, 25, 100, 249, 250, 251, 1000])
def test_all_epochs_are_shared_out(epochs: int):
    first, second = plan(CAL, with_epochs(epochs))
    assert first.first == 0
    assert first.last == second.first
    assert second.last == epochs
    assert first.last >= 1
    assert second.last - second.first >= 1
    assert second.last - second.first == max(1, round(epochs * 40 / 250))


def test_every_stage_gets_an_epoch_even_where_there_are_fewer():
    assert [(p.first, p.last) for p in plan(CAL, with_epochs(1))] == [(0, 1), (1, 2)]


def test_papers_own():
    assert [(p.first, p.last) for p in plan(CAL, PAPER)] == [(0, 210), (210, 250)]
    assert [(p.first, p.last) for p in plan(HRNET, PAPER)] == [(0, 210)]
    assert plan(load_method("meanpose"), PAPER) == []


@pytest.mark.parametrize("name", [row.name for row in list_methods()])
@pytest.mark.parametrize("epochs", [7, 30])
def test_stages_follow_each_other(name: str, epochs: int):
    method = load_method(name, (64, 48), "hrnet_w16")
    plans = plan(method, with_epochs(epochs))
    assert [p.stage for p in plans] == list(method.stages)
    edges = [0, *(p.last for p in plans)]
    assert [p.first for p in plans] == edges[:-1]
    assert edges[-1] == (epochs if plans else 0)


def rates(method, recipe: Recipe, steps: int) -> list[float]:
    plans = plan(method, recipe)
    return [learning_rate(recipe, plans, epoch, epoch * steps, steps) for epoch in range(plans[-1].last)]


def test_paper_milestones():
    rate = rates(CAL, PAPER, 7)
    assert len(rate) == 250
    assert rate[:170] == [1e-3] * 170
    assert rate[170:200] == pytest.approx([1e-4] * 30)
    assert rate[200:210] == pytest.approx([1e-5] * 10)
    assert rate[210:] == [1e-5] * 40
    assert rates(HRNET, PAPER, 7) == rate[:210]


def test_paper_milestones_shrink_with_the_stage():
    rate = rates(HRNET, with_epochs(21, PAPER), 7)
    assert rate[:17] == [1e-3] * 17
    assert rate[17:20] == pytest.approx([1e-4] * 3)
    assert rate[20:] == pytest.approx([1e-5])


def test_cosine():
    steps, recipe = 20, with_epochs(10)
    plans = plan(CAL, recipe)
    rate = [learning_rate(recipe, plans, s // steps, s, steps) for s in range(10 * steps)]
    assert recipe.warm_up == 30
    assert rate[:30] == pytest.approx([recipe.peak_rate * (s + 1) / 30 for s in range(30)])
    assert rate[29] == rate[30] == max(rate) == recipe.peak_rate
    assert all(a > b for a, b in pairwise(rate[30:]))  # over the border of stages, too
    middle = 30 + (200 - 30) // 2
    assert rate[middle] == pytest.approx(recipe.peak_rate / 2)
    assert 0 < rate[-1] < 1e-3 * recipe.peak_rate


def test_run_shorter_than_its_warm_up():
    recipe = with_epochs(2)
    plans = plan(HRNET, recipe)
    rate = [learning_rate(recipe, plans, s // 3, s, 3) for s in range(6)]
    assert rate == pytest.approx([recipe.peak_rate * (s + 1) / 30 for s in range(6)])


@pytest.mark.parametrize(
    ("size", "epochs"), [("32x24", 8), ("64x48", 8), ("128x96", 3), ("256x192", 2), ("384x288", 2)]
)
def test_quick_recipe_has_fewer_epochs_for_larger_crops(size: str, epochs: int):
    assert load_recipe("quick", Size.parse(size)) == with_epochs(epochs)
    assert load_recipe("paper", Size.parse(size)).epochs is None


def test_names():
    assert load_recipe("quick", Size(64, 48)) == QUICK
    assert load_recipe("paper", Size(64, 48)) is PAPER
    assert set(RECIPES) == {"quick", "paper"}
    with pytest.raises(ValueError, match=r"unknown recipe 'quik'; did you mean quick\?"):
        load_recipe("quik", Size(64, 48))
