"""Scoring of poses, one number at a time: slow and obvious."""

from __future__ import annotations

import math
from typing import Any

SIGMAS = [
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
    0.089,
]  # fmt: skip
"""cocodataset.org, keypoint evaluation."""


def rescore(box_score: float, keypoint_scores: list[float], confident: float) -> float:
    counted = [s for s in keypoint_scores if s > confident]
    return box_score * sum(counted) / len(counted) if counted else 0.0


def oks(a: list[list[float]], area_a: float, b: list[list[float]], area_b: float) -> float:
    total = 0.0
    for k, sigma in enumerate(SIGMAS):
        d2 = (a[k][0] - b[k][0]) ** 2 + (a[k][1] - b[k][1]) ** 2
        total += math.exp(-d2 / (2 * ((area_a + area_b) / 2) * (2 * sigma) ** 2))
    return total / len(SIGMAS)


def oks_nms(keypoints: list[Any], area: list[float], score: list[float], threshold: float) -> list[int]:
    """Take the best that is left; throw away everything more similar to it than the threshold; repeat."""
    left, kept = set(range(len(score))), []
    while left:
        best = max(left, key=lambda i: score[i])
        kept.append(best)
        left.remove(best)
        left -= {i for i in left if oks(keypoints[best], area[best], keypoints[i], area[i]) > threshold}
    return kept
