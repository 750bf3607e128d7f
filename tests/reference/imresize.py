"""MATLAB's imresize(..., 'bicubic') with antialiasing, one pixel at a time."""

from __future__ import annotations

import math

import numpy as np


def kernel(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    if x <= 2:
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return 0.0


def mirrored(j: int, n: int) -> int:
    while not 0 <= j < n:
        j = -1 - j if j < 0 else 2 * n - 1 - j
    return j


def resize_line(line: list[float], out: int) -> list[float]:
    n = len(line)
    f = out / n
    result = []
    for i in range(out):
        u = (i + 0.5) / f - 0.5
        total = weights = 0.0
        for j in range(math.floor(u - 2 / f) - 1, math.ceil(u + 2 / f) + 2):
            weight = f * kernel(f * (u - j))
            total += weight * line[mirrored(j, n)]
            weights += weight
        result.append(total / weights)
    return result


def imresize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, C) -> (height, width, C), for shrinking."""
    channels = []
    for c in range(image.shape[2]):
        columns = [resize_line(list(column), height) for column in image[:, :, c].T.astype(float)]
        rows = [resize_line(list(row), width) for row in np.array(columns).T]
        channels.append(np.array(rows))
    return np.stack(channels, axis=-1)
