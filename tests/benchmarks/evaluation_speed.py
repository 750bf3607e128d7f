"""By hand: images per second of an evaluation over those of the bare network, mirrored pass included in both.

``python tests/benchmarks/evaluation_speed.py --data FOLDER [--backbone hrnet_w32] [--res 64x48] [--batch 128]
[--rounds 5] [--keep]``. One side is what ``eval_images_per_second`` of a record counts: crops, network, flip test,
decoding, mapping back, rescoring and suppression (`lrbench.inference.predict`, `lrbench.evaluation.to_results`), from
JPEG files, from decoded pictures (``--cache``), and from crops that another row of a comparison has cut. The other
is the forward pass of as many resident batches and of their mirror images. Nobody has trained these weights: their maps
are noise, and as many boxes are suppressed as chance will have it.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import tempfile
from functools import partial

import measure
import numpy as np
import torch

from lrbench import evaluation
from lrbench.bench import Bench
from lrbench.cells import Cell
from lrbench.datasets.decoded import DecodedPictures
from lrbench.datasets.images import ImageStore
from lrbench.geometry import Size
from lrbench.inference import both_passes, predict, silent
from lrbench.loading import Crops
from lrbench.method import Method
from lrbench.models.network import PoseNetwork

EXPECTED = {
    "from JPEG files": "decoding is 0.4 ms of a core a person: 3 % of W32's 13 ms, a fifth of W16's 2 ms",
    "from decoded pictures": "a crop is 0.08 ms: under 1 % of W32's forward pass",
    "from cut crops": "decoding of maps and suppression alone: under 2 %",
}


def main() -> None:
    parser = measure.parser(__doc__, rounds=5)
    parser.add_argument("--data", default="synth")
    parser.add_argument("--method", default="hrnet")
    parser.add_argument("--backbone", default="hrnet_w32")
    parser.add_argument("--res", default="64x48")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--workers", type=int, default=max(1, min(8, (os.cpu_count() or 1) // 2)))
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    bench = Bench()
    cell = Cell(method=options.method, res=Size.parse(options.res), backbone=options.backbone, data=options.data)
    method = cell.compose()
    model = method.build_model().to(options.device).eval()
    crops = bench.crops(cell.data, cell.split, method, cell.preset())
    images = crops.store.images
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LRBENCH_CACHE"] = folder
        on_disk = ImageStore(images, 0)
        decoded = DecodedPictures(images, np.unique(crops.persons.image), 1 << 40)
        decoded.open(2, silent)
        on_disk.decoded = decoded
        resident = next(crops.batches(options.batch, 0)).pixels.to(options.device).float().div(255)
        parts = [
            min(options.batch, len(crops.persons) - first) for first in range(0, len(crops.persons), options.batch)
        ]
        sources = {
            "from JPEG files": dataclasses.replace(crops, store=ImageStore(images, 0)),
            "from decoded pictures": dataclasses.replace(crops, store=on_disk),
            "from cut crops": dataclasses.replace(crops, kept={}),
        }
        sides = {"bare network": partial(bare, model, resident, parts)}
        for name, source in sources.items():
            sides[name] = partial(evaluated, method, model, source, options.batch, options.workers, options.device)
        taken = measure.in_turns(sides, options.rounds)
    persons = len(crops.persons)
    label = f"{options.method} {options.backbone} {options.res}, batch {options.batch}, {options.device}"
    lines = [
        measure.Line(
            what=f"evaluation {name}, {label}: images/s over the bare network's",
            bar=">= 0.95",
            rounds=measure.ratios(taken["bare network"], taken[name]),
            sides={f"{side}, images/s": round(persons / statistics.median(taken[side]), 1)
                   for side in ("bare network", name)},
            expected=EXPECTED[name],
            came=f"{persons} persons",
        )
        for name in sources
    ]  # fmt: skip
    measure.keep(f"evaluation_speed_{options.method}_{options.backbone}", lines, write=options.keep)


@torch.inference_mode()
def bare(model: PoseNetwork, resident: torch.Tensor, parts: list[int]) -> None:
    """Forward passes of as many crops and of their mirror images."""
    for size in parts:
        plain, _ = both_passes(model, resident[:size])
    plain[0].sum().item()


def evaluated(method: Method, model: PoseNetwork, crops: Crops, batch: int, workers: int, device: str) -> None:
    """What an evaluation does before it scores."""
    predictions = predict(method, model, crops, batch=batch, workers=workers, device=device)
    evaluation.to_results(predictions, method.rescoring)


if __name__ == "__main__":
    main()
