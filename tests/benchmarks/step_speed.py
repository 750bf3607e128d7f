"""Training steps on a batch that lies in memory: lrbench's, and the plain eager float32 step of the same network.

``python tests/benchmarks/step_speed.py [--compile] [--keep]``. Both sides start from the same weights and see the same
batch. The plain side is the loop of the field: NCHW, float32, ``torch.optim.Adam`` as it comes, targets made in
advance, as a loader's workers do; ours (`lrbench.training.PoseCourse`) makes its targets within the step. Freed memory
is kept for both (`lrbench.allocation`), which the plain loop would not have by itself. What each ingredient does alone
is measured on the plain side. ``--compile`` adds the compiled step, which takes minutes to compile.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from measure import Line, in_turns, keep, parser, ratios
from torch import Tensor

from lrbench.allocation import keep_freed_memory
from lrbench.geometry import Frame, Size
from lrbench.method import Method, load_method
from lrbench.recipes import QUICK
from lrbench.structures import Batch
from lrbench.training import PoseCourse, processor_precision

Step = Callable[[], Tensor]
"""One step of a training; gives its loss."""

INGREDIENTS: dict[str, dict[str, bool]] = {
    "bfloat16 alone": {"half": True},
    "channels last alone": {"channels_last": True},
    "fused optimiser alone": {"fused": True},
}


@dataclass(frozen=True)
class Resident:
    """As much of `lrbench.loading.Crops` as a course asks for before its first batch."""

    persons: range
    frame: Frame


def resident_batch(method: Method[Any], size: int, device: str = "cpu") -> Batch:
    """Noise with four of five keypoints labelled, somewhere in the crop."""
    generator, frame = torch.Generator().manual_seed(1), method.frame.size
    pixels = torch.randint(0, 256, (size, 3, frame.height, frame.width), dtype=torch.uint8, generator=generator)
    where = torch.rand(size, len(method.skeleton), 2, generator=generator)
    visible = (torch.rand(size, len(method.skeleton), generator=generator) < 0.8).float()
    keypoints = where * torch.tensor([frame.width - 1.0, frame.height - 1.0]) * visible[..., None]
    return Batch(*(field.to(device) for field in (pixels, keypoints, visible)))


def course_of(method: Method[Any], batch: int, **options: Any) -> PoseCourse:
    """The training of a method by the quick recipe, from fresh weights."""
    crops: Any = Resident(range(batch), method.frame)
    return PoseCourse(method, crops, dataclasses.replace(QUICK, batch=batch), **options)


def our_step(
    method: Method[Any], batch: Batch, *, precision: str, device: str = "cpu", compile: bool = False
) -> tuple[Step, Mapping[str, Any]]:
    """What `lrbench.fitting.fit` does with each batch, and what was found out on compiling."""
    fabric = Fabric(accelerator=device, devices=1, precision=precision)  # type: ignore[arg-type]
    course = course_of(method, len(batch.pixels), compile=compile)
    (update,) = course.setup(fabric)
    optimizer = fabric.setup_optimizers(torch.optim.Adam(update.parameters, lr=1e-3, betas=update.betas, fused=True))
    facts = course.begin(0)

    def step() -> Tensor:
        loss = torch.stack(list(update.terms(batch, 0.0).values())).sum()
        optimizer.zero_grad()
        fabric.backward(loss * update.loss_scale)
        optimizer.step()
        return loss.detach()

    return step, facts


def plain_step(
    method: Method[Any], batch: Batch, *, half: bool = False, channels_last: bool = False, fused: bool = False
) -> Step:
    """The usual loop on a CPU, with single ingredients of ours where asked for."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = course_of(method, len(batch.pixels)).model.to(memory_format=layout).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused or None)
    pixels = (batch.pixels.float() / 255).to(memory_format=layout)
    ideal, weight = method.codec.encode(batch.keypoints, batch.visible)
    stage = method.stages[0]

    def step() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            prediction = model(pixels)
        prediction = type(prediction)(*(field.float() for field in prediction))
        loss = torch.stack(list(stage.terms(model.network, prediction, ideal, weight).values())).sum()
        optimizer.zero_grad()
        (loss * QUICK.loss_scale).backward()
        optimizer.step()
        return loss.detach()

    return step


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--threads", type=int, default=os.cpu_count())
    options.add_argument("--compile", action="store_true", help="measure the compiled step, too: minutes")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # as `lrbench.fitting.fit` does
    precision = processor_precision("cpu")
    lines: list[Line] = []
    further: dict[str, Any] = {"precision": precision}

    def compare(name: str, backbone: str, batch: int, *, bar: str = "", note: str = "", **text: str) -> None:
        method = load_method(name, Size(64, 48), backbone)
        resident = resident_batch(method, batch)
        sides: dict[str, Step] = {
            "plain": plain_step(method, resident),
            "ours": our_step(method, resident, precision=precision)[0],
        }
        same_loss(sides)
        taken = in_turns(sides, given.rounds)
        lines.append(
            Line(
                what=f"training step, {name} on {backbone}, 64x48, batch {batch}{note}: plain eager float32 over ours",
                bar=bar,
                rounds=ratios(taken["plain"], taken["ours"]),
                sides={f"{side}, images/s": batch / statistics.median(times) for side, times in taken.items()},
                **text,
            )
        )

    compare(
        "hrnet", "hrnet_w32", 32, bar=">= 1.3",
        expected="1.5x: convolutions are three quarters of the step, and bfloat16 is multiplied about twice as fast",
        came=f"Held before: {precision}, channels last and a fused Adam were there. In-place ReLUs and sums gain "
        "nothing (1.00x over nine rounds) and were not kept; compiling takes 250 s for 1.04x and is off on processors.",
    )  # fmt: skip
    compare("hrnet", "hrnet_w32", 64, bar=">= 1.3", note=" (`quick`)")
    compare("hrnet", "hrnet_w32", 128, bar=">= 1.3", note=" (the paper's)")
    compare("hrnet", "hrnet_w32", 8)
    compare("hrnet", "hrnet_w16", 64, note=" (`quick`)")
    compare("cal", "hrnet_w32", 32)
    compare("cal", "hrnet_w16", 64, note=" (`quick`)")

    method = load_method("hrnet", Size(64, 48), "hrnet_w32")
    resident = resident_batch(method, 32)
    sides = {"plain": plain_step(method, resident)}
    sides |= {name: plain_step(method, resident, **flags) for name, flags in INGREDIENTS.items()}
    if given.compile:
        sides["ours"], _ = our_step(method, resident, precision=precision)
        sides["ours, compiled"], compilation = our_step(method, resident, precision=precision, compile=True)
        further |= compilation
    same_loss(sides)
    taken = in_turns(sides, given.rounds)
    for name in list(sides)[1:]:
        lines.append(
            Line(
                what=f"training step, hrnet on hrnet_w32, 64x48, batch 32: plain eager float32 over {name}",
                bar="",
                rounds=ratios(taken["plain"], taken[name]),
                sides={f"{side}, images/s": 32 / statistics.median(taken[side]) for side in ("plain", name)},
            )
        )
    keep("step", lines, write=given.keep, further=further)


def same_loss(sides: dict[str, Step]) -> None:
    """Every side starts at the loss of the first one, up to bfloat16's rounding."""
    first, *others = (step().item() for step in sides.values())
    for name, loss in zip(list(sides)[1:], others, strict=True):
        assert abs(loss - first) < 0.02 * first, f"{name}: a loss of {loss}, not {first}"


if __name__ == "__main__":
    main()
