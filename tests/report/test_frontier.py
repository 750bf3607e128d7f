from __future__ import annotations

import random

import pytest

from lrbench.report.frontier import Point, front


def dominates(a: Point, b: Point) -> bool:
    return a.cost <= b.cost and a.ap >= b.ap and (a.cost < b.cost or a.ap > b.ap)


@pytest.mark.parametrize("seed", range(40))
def test_front_is_what_nothing_dominates(seed: int):
    draw = random.Random(seed)
    # few distinct values, so that ties in one and in both are common
    points = [Point(draw.randrange(6), draw.randrange(6) / 10) for _ in range(draw.randrange(25))]
    expected = [not any(dominates(other, point) for other in points) for point in points]
    assert front(points) == expected
    if points:
        assert any(expected)


def test_ties():
    # equal cost keeps the better, equal AP the cheaper, equal both keeps both
    assert front([Point(1, 0.5), Point(1, 0.6), Point(2, 0.6), Point(1, 0.6)]) == [False, True, False, True]


def test_nothing_costs_nothing():
    assert front([]) == []
    assert front([Point(0, 0.0), Point(3, 0.0), Point(3, 0.1)]) == [True, False, True]


@pytest.mark.parametrize("point", [Point(float("nan"), 0.5), Point(1.0, float("nan"))])
def test_what_is_no_number(point: Point):
    with pytest.raises(ValueError, match="not a number"):
        front([Point(1, 0.5), point])
