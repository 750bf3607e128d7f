"""By hand: what CAL's mask of displacements (MGM) costs in a training step.

``python tests/benchmarks/mgm_speed.py [--rounds 9] [--keep]``. A step is what `lrbench.training` does of one batch that
is in memory: targets, forward, loss, backward and Adam, in the precision that training takes on this processor, with
the batch of the ``quick`` recipe. In turns: a step with the mask, a step with the fixed one, and the mask alone, of the
maps that the network gives. The share is that of the mask alone in the step with it; the difference of the two steps,
which the fixed mask's own cost lowers and the machine's noise blurs, is stated.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable
from functools import partial

import torch
from lightning_fabric import Fabric
from measure import Line, in_turns, keep, parser

from lrbench.geometry import Size
from lrbench.method import load_method
from lrbench.methods.cal import displacement_mask
from lrbench.models.network import initialise
from lrbench.recipes import QUICK
from lrbench.structures import COCO
from lrbench.training import as_floats, processor_precision

SIZE = Size(64, 48)


def main() -> None:
    options = parser(__doc__, rounds=9).parse_args()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces its precision
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lines = []
    for backbone in ("hrnet_w16", "hrnet_w32"):
        taken = in_turns(sides(backbone, device), options.rounds)
        sizes = {f"{side}, ms": round(1e3 * statistics.median(values), 3) for side, values in taken.items()}
        with_mask = taken["step with the mask"]
        what = f"CAL {backbone}, batch {QUICK.batch} at {SIZE}, {processor_precision(device)} on {device}"
        lines += [
            Line(
                what=f"share of the MGM in a step: {what}",
                bar="<= 0.03",
                rounds=[mask / step for mask, step in zip(taken["mask alone"], with_mask, strict=True)],
                unit="share",
                sides=sizes,
                expected="a third of before, by one search for the peaks and a window cut out instead of indexed",
            ),
            Line(
                what=f"step with the MGM over one with the fixed mask: {what}",
                bar="",
                rounds=[a / b for a, b in zip(with_mask, taken["step with the fixed mask"], strict=True)],
            ),
        ]
    keep("mgm_speed", lines, write=options.keep)


def sides(backbone: str, device: str) -> dict[str, Callable[[], object]]:
    """What is measured, of one backbone."""
    generator = torch.Generator().manual_seed(0)
    method = load_method("cal", SIZE, backbone)
    model = method.build_model()
    initialise(model.network, QUICK.initialisation, generator)
    fabric = Fabric(accelerator=device, devices=1, precision=processor_precision(device))
    wrapped = fabric.setup_module(model.to(memory_format=torch.channels_last))
    optimizer = fabric.setup_optimizers(torch.optim.Adam(model.network.parameters(), lr=1e-3, fused=True))
    batch = QUICK.batch or method.batch
    shape = (batch, 3, SIZE.height, SIZE.width)
    pixels = torch.randint(256, shape, generator=generator, dtype=torch.uint8).to(device)
    spread = torch.randn(batch, len(COCO), 2, generator=generator)
    keypoints = ((0.5 + 0.2 * spread) * torch.tensor([SIZE.width, SIZE.height])).to(device)
    visible = (torch.rand(batch, len(COCO), generator=generator) < 0.8).float().to(device)
    fixed, final = method.stages

    def step(stage: object) -> None:
        ideal, weight = method.codec.encode(keypoints, visible)
        terms = stage.terms(model.network, wrapped(as_floats(pixels)), ideal, weight)  # type: ignore[attr-defined]
        optimizer.zero_grad()
        fabric.backward(sum(terms.values()) * QUICK.loss_scale)
        optimizer.step()
        finish()

    ideal, weight = method.codec.encode(keypoints, visible)
    heatmap = wrapped(as_floats(pixels)).heatmap.detach()

    def mask() -> None:
        displacement_mask(heatmap, ideal.heatmap, weight, final.loss.keywords["components"])
        finish()

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    return {
        "step with the mask": partial(step, final),
        "step with the fixed mask": partial(step, fixed),
        "mask alone": mask,
    }


if __name__ == "__main__":
    main()
