"""Fixtures: the golden arrays and the real photographs, which tests use when they are at hand."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest


def folder_from(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    path = Path(value)
    if not path.is_dir():
        pytest.skip(f"{variable}={value} is not a folder")
    return path


class Golden:
    """A folder of arrays computed by the published code; the layout is described in its own README."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.facts = json.loads((root / "set.json").read_text())

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        path = self.root / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"{name}.npz is not in this golden set")
        with np.load(path) as file:
            return dict(file)

    def json(self, name: str) -> dict:
        path = self.root / f"{name}.json"
        if not path.exists():
            pytest.skip(f"{name}.json is not in this golden set")
        return json.loads(path.read_text())

    def uniform(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        generator = np.random.Generator(np.random.PCG64(zlib.crc32((self.facts["salt"] + name).encode())))
        return generator.random(int(np.prod(shape))).reshape(shape)

    def normal(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        return (2 * self.uniform(name, shape) - 1) * np.sqrt(3)

    def value(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The filling rule of networks, by parameter name."""
        last = name.rsplit(".", 1)[-1]
        if last == "num_batches_tracked":
            return np.zeros(shape)
        z = self.normal(name, shape)
        if last in ("running_mean", "bias"):
            return 0.05 * z
        if last == "running_var":
            return 1 + 0.1 * np.abs(z)
        return 0.6 + 0.1 * z if len(shape) == 1 else np.sqrt(2 / np.prod(shape[1:])) * z

    def image(self, n: int, h: int, w: int) -> np.ndarray:
        coarse = self.normal(f"image:coarse:{n}x3x{h}x{w}", (n, 3, h // 8, w // 8))
        fine = self.normal(f"image:fine:{n}x3x{h}x{w}", (n, 3, h, w))
        return (coarse.repeat(8, 2).repeat(8, 3) + 0.5 * fine).astype(np.float32)


@pytest.fixture(scope="session")
def golden() -> Golden:
    return Golden(folder_from("LRBENCH_GOLDEN"))


@pytest.fixture(scope="session")
def coco_slice() -> Path:
    """Real COCO photographs in COCO layout, with splits train and val."""
    return folder_from("LRBENCH_COCO")
