"""Fixtures: a tiny dataset, and the golden arrays and real photographs, which tests use when they are at hand."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# more threads on networks this small mostly wait for each other; read when torch is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")
# a shell's background job starts with Ctrl-C ignored, and so would every process that a test starts and interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
# tests share helpers by plain import: `tiny`, `reference`; "datasets" itself would meet the package of that name
sys.path += [str(Path(__file__).parent), str(Path(__file__).parent / "datasets")]


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

    def fill(self, network: Any, prefix: str = "") -> None:
        """Give a network the values that its parameters' names stand for."""
        import torch

        state = network.state_dict()
        values = {k: np.asarray(self.value(prefix + k, tuple(v.shape)), np.float32) for k, v in state.items()}
        network.load_state_dict({k: torch.from_numpy(v).to(state[k].dtype) for k, v in values.items()})

    def check_step(self, network: Any, outputs: list[Any], facts: dict) -> None:
        """Loss, gradients and running statistics of one training step in float64 that gave these outputs."""
        import torch

        loss = sum(
            (out * torch.from_numpy(self.normal(f"cotangent:{i}", tuple(out.shape)))).mean()
            for i, out in enumerate(outputs)
        )
        loss.backward()
        assert loss.item() == pytest.approx(facts["loss"], rel=1e-8, abs=1e-12)
        norms = {k: float(p.grad.norm()) for k, p in network.named_parameters() if p.grad is not None}
        # gradients that are zero in exact arithmetic (a bias before a batch norm) are rounding noise in both runs
        assert norms == pytest.approx(dict(facts["gradient_norm"]), rel=1e-8, abs=1e-12)
        sums = {k: float(b.sum()) for k, b in network.named_buffers() if k in dict(facts["running_stat_sum"])}
        assert sums == pytest.approx(dict(facts["running_stat_sum"]), rel=1e-8, abs=1e-10)

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


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset, for tests that only read it."""
    import tiny

    return tiny.write(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture
def tiny_copy(tiny_data: Path, tmp_path: Path) -> Path:
    """A copy of the tiny dataset, for tests that damage it."""
    return Path(shutil.copytree(tiny_data, tmp_path / "tiny"))


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Call `lrbench` in an empty working folder; returns exit code, stdout and stderr."""
    from typer.testing import CliRunner

    import lrbench.method
    from lrbench.cli import app

    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(lrbench.method, "_plugins", {})
    for name in ("LRBENCH_DATA", "LRBENCH_COCO"):
        monkeypatch.delenv(name, raising=False)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="session")
def trained(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with hrnet (one epoch) and meanpose trained on the tiny dataset."""
    from lrbench.bench import Bench
    from lrbench.cells import Cell
    from lrbench.geometry import Size

    runs = tmp_path_factory.mktemp("runs")
    for name in ("hrnet", "meanpose"):
        Bench().train(
            Cell(
                method=name,
                res=Size(64, 48),
                data=str(tiny_data),
                recipe="quick",
                epochs=1,
                batch=4,
                device="cpu",
                precision="32-true",
                workers=0,
                runs=runs,
            )
        )
    return runs


@pytest.fixture(autouse=True)
def _short_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latency of a network is measured as briefly as possible: no test reads the number."""
    if "lrbench.bench" in sys.modules:  # tests of other modules import nothing for it
        monkeypatch.setattr("lrbench.bench.LATENCY_SECONDS", 0.0)
