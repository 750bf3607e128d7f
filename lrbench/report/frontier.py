"""Pareto front: which of several points no other one beats in both AP and cost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple


class Point(NamedTuple):
    """One method: what it costs, in any unit, and its AP."""

    cost: float
    ap: float


def front(points: Sequence[Point]) -> list[bool]:
    """Which points are not dominated.

    One point dominates another if it costs no more, has no less AP, and is better in one of the two. So of equal cost
    the higher AP stays, of equal AP the lower cost, and points equal in both stay together.

    Args:
        points: in any order.

    Returns:
        One truth value per point, in their order.

    Raises:
        ValueError: a cost or an AP that is not a number.
    """
    if any(math.isnan(value) for point in points for value in point):
        raise ValueError("Pareto front: a cost or an AP is not a number; leave out what was not measured")
    kept = [False] * len(points)
    best = -math.inf
    order = sorted(range(len(points)), key=lambda i: points[i].cost)
    for _, equal in itertools.groupby(order, key=lambda i: points[i].cost):
        same_cost = list(equal)
        top = max(points[i].ap for i in same_cost)
        if top > best:
            for i in same_cost:
                kept[i] = points[i].ap == top
            best = top
    return kept
