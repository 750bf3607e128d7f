"""By hand: does training wait for crops? Epochs of the real loader in turns with the same steps on one resident batch.

``python tests/benchmarks/training_speed.py --data FOLDER [--method cal] [--res 64x48] [--backbone hrnet_w16]
[--steps 40] [--workers N] [--rounds 5] [--keep]``. Both sides are `lrbench.fitting`'s own epoch over a `PoseCourse`;
the resident side only gets the same batch again and again. Pictures are decoded before the first round, as they are
from the second epoch of a training on. Run it on an idle machine: on two cores anything else that runs takes its part
of a step's slower thread.
"""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure
from lightning_fabric import Fabric

from lrbench.bench import Bench
from lrbench.cells import Cell
from lrbench.fitting import _epoch, _optimizer
from lrbench.geometry import Size
from lrbench.inference import silent
from lrbench.timing import Stopwatch
from lrbench.training import PoseCourse, processor_precision

EXPECTED = (
    "a crop costs 0.1 ms of one core and a step of this network 2 ms of both per crop, so at least 2.5 % of the "
    "processor goes to the loader: 0.97 to 0.98, and less than 1 % waiting"
)


class Resident(PoseCourse):
    """The same training on one batch."""

    def batches(self, epoch: int) -> Iterator[Any]:
        """The first batch for ever."""
        return itertools.repeat(next(super().batches(0)))


def main() -> None:
    parser = measure.parser(__doc__, rounds=5)
    parser.add_argument("--data", default="synth")
    parser.add_argument("--method", default="hrnet")
    parser.add_argument("--res", action="append", default=[])
    parser.add_argument("--backbone", default=None)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--workers", type=int, default=max(1, min(8, (os.cpu_count() or 1) // 2)))
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    lines, rows = [], []
    for res in options.res or ["64x48", "128x96"]:
        bench = Bench()
        cell = Cell(
            method=options.method, res=Size.parse(res), backbone=options.backbone, data=options.data, recipe="quick",
            batch=options.batch, runs=Path("unused"),
        )  # fmt: skip
        method, recipe = cell.compose(), cell.training_recipe()
        crops = bench.crops(cell.data, cell.train_split, method, cell.training_preset())
        fabric = Fabric(accelerator=options.device, devices=1, precision=processor_precision(options.device))
        sides = {}
        for name, kind in (("resident", Resident), ("loaded", PoseCourse)):
            course = kind(method, crops, recipe, workers=options.workers)
            updates = course.setup(fabric)
            pairs = [(update, fabric.setup_optimizers(_optimizer(update))) for update in updates]
            sides[name] = (course, pairs)
        for row in set(crops.persons.image.tolist()):
            crops.store[row]
        measured: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for number in range(options.rounds + 1):
            for name, (course, pairs) in sides.items():
                course.steps = options.steps
                course.begin(0)
                line = _epoch(course, pairs, fabric, number, silent, Stopwatch())
                if number:
                    measured[name].append(line)
        rates = {name: [line["images_per_second"] for line in found] for name, found in measured.items()}
        waits = [line["data_wait"] for line in measured["loaded"]]
        label = f"{options.method} {method.backbone} {res}, batch {sides['loaded'][0].batch}, {options.device}"
        told = {f"{name}, images/s": round(statistics.median(values), 1) for name, values in rates.items()}
        came = f"{options.steps} steps a round, {options.workers} loader thread(s)"
        lines += [
            measure.Line(
                what=f"training, {label}: share of time waiting for crops", bar="<= 0.03", unit="share", rounds=waits,
                expected=EXPECTED, came=came,
            ),
            measure.Line(
                what=f"training, {label}: images/s over those on one resident batch", bar=">= 0.97",
                rounds=measure.ratios(rates["loaded"], rates["resident"]), sides=told, came=came,
            ),
        ]  # fmt: skip
        rows.append({"res": res, **rates})
    name = "_".join(["training_speed", options.method, options.backbone or "quick", *(row["res"] for row in rows)])
    measure.keep(name, lines, write=options.keep, further={"images_per_second": rows})


if __name__ == "__main__":
    main()
