"""Training of CAL-W32 at 64x48 in bfloat16 on a GPU: what compiling gains, and whether the loader keeps up.

``python tests/benchmarks/gpu_speed.py [--minutes 9] [--keep]``: one call of no more than ten minutes; without a GPU it
says so. It measures, the most important first:

* steps on a batch that lies on the GPU, as they are and compiled (`lrbench.compilation`: CUDA graphs), in turns, at the
  paper's batch, with the memory of both;
* epochs of a training by `lrbench.fitting.fit` on the embedded dataset, its train split taken as often as makes an
  epoch of several seconds, against the compiled step on the GPU's own batch;
* steps at other batch sizes, as long as the time lasts: each has to be compiled anew.

The loss is that of CAL's second stage, the dearer one. ``--device cpu --smoke`` runs all of it anywhere on a network of
four layers, to check this script; its figures mean nothing.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import Line, in_turns, keep, parser, ratios
from step_speed import Step, our_step, resident_batch
from torch import Tensor, nn

from lrbench.bench import Bench
from lrbench.degradation import load_preset
from lrbench.fitting import fit
from lrbench.geometry import Size
from lrbench.loading import Crops
from lrbench.method import Method, load_method
from lrbench.methods.cal import paired
from lrbench.models.network import PoseNetwork
from lrbench.recipes import QUICK
from lrbench.training import PoseCourse

OTHERS = (512, 32, 1024, 256, 64)
"""Batches after the paper's."""
PRECISION = "bf16-mixed"
EXPECTED = (
    "3 to 5x: a step launches some 4,000 kernels, which takes the host 40 ms or more whatever the batch; the "
    "arithmetic of 128 crops, 0.44 TFLOP, takes the GPU a few milliseconds"
)


class Four(nn.Module):
    """What CAL decodes, from four layers."""

    output_layers = ("heatmap", "offset")

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8)
        self.heatmap, self.offset = nn.Conv2d(8, 17, 1), nn.Conv2d(8, 34, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(self.stem(x)).relu()
        return self.heatmap(x), self.offset(x)


def four_layers() -> PoseNetwork[Any]:
    return PoseNetwork(Four(), paired)


def steps(step: Step, count: int) -> None:
    """Some steps, the last loss read: the host waits for the device once."""
    for _ in range(count - 1):
        step()
    step().item()


def at_batch(method: Method[Any], batch: int, *, device: str, rounds: int, count: int) -> dict[str, Any]:
    """Eager and compiled steps at one batch size, in turns: images/s of every round, memory, time to compile."""
    resident = resident_batch(method, batch, device)
    sides, facts = {}, {"batch": batch}
    for name, compile in (("eager", False), ("compiled", True)):
        held = memory(device)
        step, told = our_step(method, resident, precision=PRECISION, device=device, compile=compile)
        steps(step, 4)
        sides[name] = partial(steps, step, count)
        facts[f"{name}_mb"] = (peak_memory(device) - held) / 2**20
        facts |= {key: told[key] for key in ("compile_seconds", "compile_failure") if key in told}
    taken = in_turns(sides, rounds)
    facts |= {name: [count * batch / value for value in values] for name, values in taken.items()}
    return facts | {"ratios": ratios(taken["eager"], taken["compiled"])}


def memory(device: str) -> int:
    """Allocated now; the peak is counted from here on."""
    gc.collect()
    if device == "cpu":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return int(torch.cuda.memory_allocated())


def peak_memory(device: str) -> int:
    """Largest since `memory` was asked; 0 on a CPU."""
    return 0 if device == "cpu" else int(torch.cuda.max_memory_allocated())


def crops_of(method: Method[Any], persons: int) -> Crops:
    """The embedded train split, as often as makes this many persons."""
    crops = Bench().crops("synth", "train", method, load_preset("paper"))
    rows = np.resize(np.arange(len(crops.persons)), max(persons, len(crops.persons)))
    per_person = ("id", "image", "box", "score", "keypoints", "visible")
    repeated = {name: getattr(crops.persons, name)[rows] for name in per_person}
    return dataclasses.replace(crops, persons=dataclasses.replace(crops.persons, **repeated))


def epochs(method: Method[Any], crops: Crops, batch: int, *, device: str, workers: int) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` of a training but the first, in which pictures are decoded."""
    recipe = dataclasses.replace(QUICK, epochs=4, batch=batch)
    course = PoseCourse(method, crops, recipe, workers=workers, compile=True)
    with tempfile.TemporaryDirectory() as folder:
        fit(course, run=Path(folder), identity={}, device=device, precision=PRECISION)
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[1:]]


def main() -> None:
    begin = time.perf_counter()
    options = parser(__doc__, rounds=5)
    options.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    options.add_argument("--smoke", action="store_true", help="four layers and a few crops")
    options.add_argument("--minutes", type=float, default=9.0, help="after which no further batch size is begun")
    options.add_argument("--workers", type=int, default=os.cpu_count())
    given = options.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here; nothing measured")
        return
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # as `lrbench.fitting.fit` does
    method = load_method("cal", Size(64, 48), "hrnet_w32")
    method = dataclasses.replace(method, stages=method.stages[-1:])
    batch, others, persons, count = method.batch, OTHERS, 60_000, 20
    if given.smoke:
        method = dataclasses.replace(method, build_model=four_layers)
        batch, others, persons, count = 4, (8,), 0, 2
    measure_at = partial(at_batch, method, device=given.device, rounds=given.rounds, count=count)

    rows, longest = [measure_at(batch)], time.perf_counter() - begin
    best = statistics.median(rows[0]["compiled"])
    trained = epochs(method, crops_of(method, persons), batch, device=given.device, workers=given.workers)
    for other in others:
        started = time.perf_counter()
        if started - begin + longest > 60 * given.minutes:
            rows.append({"batch": other, "skipped": "no time left"})
            continue
        rows.append(measure_at(other))
        longest = max(longest, time.perf_counter() - started)

    name = f"cal on {'four layers' if given.smoke else 'hrnet_w32'}, 64x48, bfloat16"
    bars = ("", "", "") if given.smoke else (">= 0.9", "<= 0.03", ">= 2")
    lines = [
        Line(
            what=f"{name}: training epochs over compiled steps on the GPU's own batch, batch {batch}",
            bar=bars[0],
            rounds=[line["images_per_second"] / best for line in trained],
            sides={
                "training, images/s": statistics.median(line["images_per_second"] for line in trained),
                "resident, images/s": best,
            },
        ),
        Line(
            what=f"{name}: share of an epoch spent waiting for crops, batch {batch}",
            bar=bars[1],
            unit="share",
            rounds=[line["data_wait"] for line in trained],
        ),
    ]
    for row in rows:
        if "skipped" not in row:
            sides = {f"{side}, images/s": statistics.median(row[side]) for side in ("eager", "compiled")}
            sides |= {f"{side}, MB": row[f"{side}_mb"] for side in ("eager", "compiled")}
            lines.append(
                Line(
                    what=f"{name}: compiled step over eager, batch {row['batch']}",
                    bar=bars[2] if row["batch"] == batch else "",
                    rounds=row["ratios"],
                    sides=sides,
                    expected=EXPECTED if row["batch"] == batch else "",
                    came=str(row.get("compile_failure", "")),
                )
            )
        print(json.dumps(row))
    further = {"rows": rows, "epochs": trained, "seconds": round(time.perf_counter() - begin)}
    keep("gpu", lines, write=given.keep and not given.smoke, further=further)


if __name__ == "__main__":
    main()
