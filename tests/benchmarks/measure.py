"""What the speed benchmarks share: sides measured in turns in one process, and lines of ``results/speed.md``.

A benchmark measures each of its sides once per round, one after the other, so that a busy minute falls on all of them;
a ratio is taken within a round, and the median round counts. It gives its lines to `keep`, which writes
``results/benchmarks/<name>.json``; ``python tests/benchmarks/speed_table.py`` makes ``results/speed.md`` of those.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "results"
FOLDER = RESULTS / "benchmarks"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of the table.

    Attributes:
        what: was measured, in words of the table.
        bar: what it has to reach, for example ``>= 15`` or ``<= 0.03``; empty for what is only stated.
        rounds: the value of every round, in `unit`.
        unit: ``x`` (a ratio), ``share`` (printed in percent), ``s``, ``MB``, ``images/s`` ...
        sides: median of each side, by name, with its unit in the name: ``{"textbook, persons/s": 371.0}``.
        expected: the gain that was written down before the change.
        came: what came of it, and what else a reader has to know.
    """

    what: str
    bar: str
    rounds: Sequence[float]
    unit: str = "x"
    sides: Mapping[str, float] = dataclasses.field(default_factory=dict)
    expected: str = ""
    came: str = ""

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.rounds)

    @property
    def holds(self) -> bool | None:
        """Whether the median reaches the bar; None without one."""
        if not self.bar:
            return None
        sign, limit = self.bar.split()
        return {"<=": self.median <= float(limit), ">=": self.median >= float(limit)}[sign]


def seconds(work: Callable[[], Any], repeats: int = 1) -> float:
    """Time of one call, the mean over some repeats."""
    begin = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - begin) / repeats


def in_turns(sides: Mapping[str, Callable[[], Any]], rounds: int, *, repeats: int = 1) -> dict[str, list[float]]:
    """Seconds per call of each side, one value a round; a first round of all sides warms up and is not kept."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, work in sides.items():
            value = seconds(work, repeats)
            if number:
                taken[name].append(value)
    return taken


def ratios(slow: Sequence[float], fast: Sequence[float]) -> list[float]:
    """Round by round, how many times the second side is faster."""
    return [a / b for a, b in zip(slow, fast, strict=True)]


def parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Options that all benchmarks have: ``--rounds`` and ``--keep``."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds)
    made.add_argument("--keep", action="store_true", help="write results/benchmarks/<name>.json")
    return made


def keep(name: str, lines: Sequence[Line], *, write: bool, further: Mapping[str, Any] | None = None) -> None:
    """Print lines; write them with the facts of the machine where asked.

    Args:
        name: of the file.
        lines: of the table.
        write: the file, too.
        further: facts and figures that belong to the benchmark.
    """
    for line in lines:
        low, high = min(line.rounds), max(line.rounds)
        verdict = {None: "", True: "  holds", False: "  MISSED"}[line.holds]
        print(f"{line.what}: {line.median:.4g} ({low:.4g} to {high:.4g}) {line.unit}  {line.bar}{verdict}")
    if not write:
        return
    rows = [
        {**dataclasses.asdict(line), "rounds": [float(f"{v:.5g}") for v in line.rounds], "holds": line.holds}
        for line in lines
    ]
    document = {"machine": machine(), "lines": rows, **(further or {})}
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """On what, with what, and how busy it was."""
    import cv2
    import numpy as np
    import torch

    return {
        "processor": processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
        "opencv": cv2.__version__, "load_average": [round(v, 2) for v in os.getloadavg()],
    }  # fmt: skip


def processor() -> str:
    """Model name, where the system tells."""
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
