"""How the cost of the network grows with batch and crop size, and how far it is from what the machine could do.

``python tests/benchmarks/growth.py [--seconds 10] [--keep]``, on Linux. Every cell is a process of its own, because
memory is that of a process: training steps (`step_speed.our_step`) or evaluated batches (flip test and decoding in
float32, as `lrbench.inference.predict` has it), on a batch that lies in memory. Cells that an
earlier one of their axis foretells to outgrow the free memory, or to take longer than ``--seconds`` per batch, are left
out, and the row says why.

The machine's limits are measured, too: multiply-adds of large matrices in float32 and bfloat16, and a copy of large
arrays. A step has three times the multiply-adds of its forward pass. Its traffic is at least every convolution and
batch norm reading its input and writing its output once per pass, in the width of a number, and every parameter and
its two moments being read and written. A row's limit is the slower of the two; caches hold small maps, so that traffic
is not all of it memory's.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measure import Line, keep, parser, seconds
from step_speed import our_step, resident_batch
from torch import Tensor, nn

from lrbench.allocation import keep_freed_memory
from lrbench.geometry import Size
from lrbench.inference import flip_test
from lrbench.method import Method, costs, load_method
from lrbench.training import processor_precision

SIZES = ("64x48", "96x72", "128x96", "192x144", "256x192", "384x288")
BATCHES = (8, 32, 128, 512, 1024)
AT_BATCH, AT_SIZE = 16, "64x48"
"""Where the other axis is cut."""


@dataclass(frozen=True)
class Cell:
    """One process.

    Attributes:
        task: ``training`` or ``evaluation``.
        backbone: of HRNet.
        res: of the crop.
        batch: crops.
    """

    task: str
    backbone: str
    res: str
    batch: int

    @property
    def method(self) -> Method[Any]:
        """Composed."""
        return load_method("hrnet", Size.parse(self.res), self.backbone)

    @property
    def work(self) -> float:
        """Share of the axes, to foretell a cell from another one: pixels."""
        size = Size.parse(self.res)
        return float(size.height * size.width * self.batch)


def axes(backbone: str) -> list[list[Cell]]:
    """Cells that grow, axis by axis."""
    made = []
    for task in ("training", "evaluation"):
        made.append([Cell(task, backbone, AT_SIZE, batch) for batch in BATCHES])
        made.append([Cell(task, backbone, res, AT_BATCH) for res in SIZES])
    return made


def run(cell: Cell, threads: int, most: float) -> dict[str, Any]:
    """What a process of its own says about a cell."""
    command = [sys.executable, __file__, "--cell", json.dumps(asdict(cell)), "--threads", str(threads)]
    command += ["--seconds", str(most)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"skipped": f"failed: {(done.stderr.strip().splitlines() or ['killed'])[-1]}"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure_cell(cell: Cell, most: float) -> dict[str, Any]:
    """Images per second and peak memory; a round warms up, then as many as fit a tenth of `most`."""
    keep_freed_memory()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    method = cell.method
    resident = resident_batch(method, cell.batch)
    before = in_file("/proc/self/status", "VmRSS")
    if cell.task == "training":
        step, _ = our_step(method, resident, precision=processor_precision("cpu"))
        work: Callable[[], Any] = step
    else:
        model = method.build_model().eval()

        def work() -> Any:
            with torch.inference_mode():
                return method.codec.decode(flip_test(model, method.codec, resident.pixels.float().div_(255)))

    warm = seconds(work)
    times = [seconds(work) for _ in range(max(1, min(10, int(most / 10 / warm))))]
    return {
        "seconds": sorted(times)[len(times) // 2],
        "rounds": len(times),
        # getrusage would tell the peak of the parent, which a process begins with
        "peak_mb": in_file("/proc/self/status", "VmHWM"),
        "start_mb": before,
    }


def in_file(path: str, name: str) -> float:
    """A size that Linux tells, MB."""
    line = next(line for line in Path(path).read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def limits() -> dict[str, float]:
    """The machine's best: multiply-add as two, per second, by number format; bytes per second of a copy."""
    best = {}
    for name, kind in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        for side in (512, 1024, 2048):
            a, b = (torch.rand(side, side).to(kind) for _ in range(2))
            multiply = partial(torch.mm, a, b)
            rate = 2 * side**3 / min(seconds(multiply) for _ in range(8))
            best[name] = max(rate, best.get(name, 0.0))
    source = torch.rand(2**27)
    target = torch.empty_like(source)
    target.copy_(source)
    best["bytes"] = 2 * source.nbytes / min(seconds(partial(target.copy_, source)) for _ in range(7))
    return best


def traffic(method: Method[Any]) -> int:
    """Numbers that convolutions and batch norms of one crop read and write in a forward pass."""
    network, total = method.build_model().network.eval(), 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += inputs[0].numel() + output.numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(add)
    size = method.frame.size
    with torch.inference_mode():
        network(torch.zeros(1, 3, size.height, size.width))
    return total


def limited(cell: Cell, row: dict[str, Any], best: dict[str, float]) -> dict[str, Any]:
    """A measured cell beside its limits."""
    parameters, macs = costs(cell.method)
    training = cell.task == "training"
    passes = 3 if training else 2  # forward and two backward products; plain and mirrored
    half = training and processor_precision("cpu") == "bf16-mixed"
    # Adam reads a parameter, its gradient and two moments, and writes all but the gradient
    moved = cell.batch * passes * traffic(cell.method) * (2 if half else 4) + parameters * (28 if training else 4)
    flop = 2 * macs * cell.batch * passes
    least = {"arithmetic": flop / best["bfloat16" if half else "float32"], "memory": moved / best["bytes"]}
    bound = max(least, key=lambda name: least[name])
    return {
        **asdict(cell),
        "images_per_second": round(cell.batch / row["seconds"], 1),
        "peak_mb": round(row["peak_mb"]),
        "start_mb": round(row["start_mb"]),
        "rounds": row["rounds"],
        "gflop_per_second": round(flop / row["seconds"] / 1e9, 1),
        "share_of_arithmetic": round(least["arithmetic"] / row["seconds"], 3),
        "share_of_memory": round(least["memory"] / row["seconds"], 3),
        "bound": bound,
    }


def foretold(cell: Cell, last: tuple[Cell, dict[str, Any]] | None, most: float) -> str:
    """Why a cell is not worth a try, by the last one that was measured on its axis; empty where it is."""
    if last is None:
        return ""
    before, row = last
    times = cell.work / before.work
    if row["seconds"] * times > most:
        return f"a batch would take about {row['seconds'] * times:.0f} s"
    memory = row["start_mb"] + (row["peak_mb"] - row["start_mb"]) * times
    if memory > 0.8 * in_file("/proc/meminfo", "MemAvailable"):
        return f"would take about {memory / 1024:.0f} GB"
    return ""


def main() -> None:
    options = parser(__doc__, rounds=1)
    options.add_argument("--seconds", type=float, default=10.0, help="longest round of a cell")
    options.add_argument("--threads", type=int, default=os.cpu_count())
    options.add_argument("--backbone", action="append", default=[])
    options.add_argument("--cell", help=argparse.SUPPRESS)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    if given.cell:
        print(json.dumps(measure_cell(Cell(**json.loads(given.cell)), given.seconds)))
        return
    begin, best, taken = time.perf_counter(), limits(), []
    for backbone in given.backbone or ["hrnet_w16", "hrnet_w32"]:
        for axis in axes(backbone):
            last: tuple[Cell, dict[str, Any]] | None = None
            for cell in axis:
                reason = foretold(cell, last, given.seconds)
                row = {"skipped": reason} if reason else run(cell, given.threads, given.seconds)
                last = last if "skipped" in row else (cell, row)
                taken.append((cell, row))
    # once more, because the first minute may have been a busy one
    best = {name: max(value, best[name]) for name, value in limits().items()}
    rows = [{**asdict(c), **row} if "skipped" in row else limited(c, row, best) for c, row in taken]
    for row in rows:
        print(json.dumps(row))
    print({name: f"{value / 1e9:.1f} G/s" for name, value in best.items()})
    measured = [row for row in rows if "skipped" not in row]
    lines = [
        Line(
            what=f"nearest to the machine's limit: {task}, {backbone}",
            bar="",
            unit="share",
            rounds=[max(nearest(row) for row in measured if (row["task"], row["backbone"]) == (task, backbone))],
        )
        for task, backbone in dict.fromkeys((row["task"], row["backbone"]) for row in measured)
    ]
    facts = {"limits": best, "rows": rows, "seconds": round(time.perf_counter() - begin)}
    keep("growth", lines, write=given.keep, further=facts)


def nearest(row: dict[str, Any]) -> float:
    """Share of the limit that binds it."""
    return float(max(row["share_of_arithmetic"], row["share_of_memory"]))


if __name__ == "__main__":
    main()
