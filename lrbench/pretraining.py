"""Makes the shipped trunk of a narrow backbone: ``python -m lrbench.pretraining METHOD --backbone NAME``.

A heatmap under a squared error first learns to predict nothing, and four minutes on two processor cores are hardly
enough to leave that plateau. So the quick recipe starts every method from the same trunk (stem and stages 1 to 3),
trained here on the embedded dataset for longer. Everything above the trunk is thrown away, and the network that trains
it should have a head for heatmaps and one for offsets: no method finds its own head in the file. The record beside the
file says which method's network and settings these were.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from lrbench.bench import Bench
from lrbench.cells import Cell
from lrbench.console import Reporter
from lrbench.degradation import load_preset
from lrbench.geometry import Size
from lrbench.method import describe, parse_settings, plain
from lrbench.models.backbones import BACKBONES
from lrbench.provenance import provenance
from lrbench.recipes import QUICK
from lrbench.records import write_atomic
from lrbench.training import processor_precision, train

SIZE = Size(64, 48)


def main() -> None:
    """Train the trunk and write it, with its record, into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", help="whose network and losses train the trunk")
    parser.add_argument("--backbone", default="hrnet_w16", choices=sorted({s.narrow for s in BACKBONES.values()}))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "models" / "pretrained")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    recipe = dataclasses.replace(QUICK, name="pretraining", epochs=options.epochs, start="scratch")
    settings = parse_settings(options.method, options.settings)
    cell = Cell(method=options.method, res=SIZE, backbone=options.backbone, settings=settings)
    method = cell.compose()
    with Reporter() as report:
        bench = Bench(report)
        dataset = bench.dataset(cell.data, cell.train_split)
        facts = {
            "method": options.method,
            "backbone": options.backbone,
            "res": str(SIZE),
            "task": describe(method),
            "recipe": plain(recipe),
            "data": f"{dataset.name}/{cell.train_split}",
            "data_hash": dataset.hash,
            "persons": len(dataset.persons),
            "seed": cell.seed,
        }
        run = options.runs / "pretraining" / options.backbone
        trained = train(
            method,
            bench.crops(cell.data, cell.train_split, method, load_preset(cell.lr_preset)),
            recipe,
            run=run,
            identity=facts,
            seed=cell.seed,
            precision=processor_precision("cpu"),
            workers=options.workers,
            progress=report,
        )
    weights = load_file(trained.weights)
    trunk = {
        name: value for name, value in weights.items() if name.split(".")[0] in BACKBONES[options.backbone].shipped
    }
    # half precision halves the file; batch-norm variances can be large, so statistics stay float32
    packed = {k: v.half() if v.ndim == 4 else v for k, v in trunk.items()}
    data = save({k: v.contiguous() for k, v in packed.items()}, {"backbone": options.backbone})
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomic(options.out / f"{options.backbone}.safetensors", data)
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    facts |= {"seconds": round(trained.seconds), "last_epoch": last, "bytes": len(data)}
    facts["provenance"] = provenance(options.method, "", cell.seed, "cpu", processor_precision("cpu")).model_dump()
    facts["torch"] = torch.__version__
    write_atomic(options.out / f"{options.backbone}.json", (json.dumps(facts, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
