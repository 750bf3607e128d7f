"""Training: one loop over the stages of a method. Nothing in it knows which method it runs."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors.torch import save

from lrbench.datasets.images import DataError
from lrbench.inference import Progress, silent
from lrbench.loading import Crops
from lrbench.method import Method
from lrbench.models.network import PoseNetwork, initialise
from lrbench.recipes import Recipe, learning_rate, plan
from lrbench.records import write_atomic
from lrbench.weights import copy_matching

Validate = Callable[[PoseNetwork[Any]], float]
"""Scores a model on the validation split, higher is better."""


@dataclass(frozen=True)
class Trained:
    """What a run leaves besides its files.

    Attributes:
        weights: file of the chosen weights.
        epochs: run, over all sessions.
        seconds: of training, over all sessions.
        images_per_second: crops, median over epochs; None where nothing was stepped.
        data_wait: share of the time spent waiting for crops.
    """

    weights: Path
    epochs: int
    seconds: float
    images_per_second: float | None
    data_wait: float | None


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


class DamagedRun(TrainingError, DataError):
    """A file of a run cannot be read."""


def processor_precision(device: str) -> str:
    """``bf16-mixed`` where the processor computes in it, else ``32-true``."""
    if device == "cuda" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    cpu = torch.cpu
    fast = getattr(cpu, "_is_avx512_bf16_supported", bool)() or getattr(cpu, "_is_amx_tile_supported", bool)()
    return "bf16-mixed" if device == "cpu" and fast else "32-true"


def train(
    method: Method[Any],
    crops: Crops,
    recipe: Recipe,
    *,
    run: Path,
    identity: Mapping[str, Any],
    seed: int = 0,
    device: str = "cpu",
    precision: str | None = None,
    workers: int = 2,
    start: Mapping[str, torch.Tensor] | None = None,
    validate: Validate | None = None,
    progress: Progress = silent,
) -> Trained:
    """Train a method, or continue where an earlier session stopped.

    A finished run is not trained again. A run that was killed continues from its last whole epoch and ends in the same
    weights, bit for bit on CPU: every crop is drawn from (seed, epoch, person), so no random state is carried.

    Args:
        method: what to train.
        crops: of the training split.
        recipe: how.
        run: folder of the run.
        identity: what the run is; kept in ``settings.json``, and has to agree on continuing.
        seed: of initialisation, order and views.
        device: ``cpu``, ``cuda`` ...
        precision: Fabric's name; by default bf16 where the processor has it.
        workers: threads that cut crops.
        start: weights to begin with, by name; those that fit are used.
        validate: scores a model after every epoch; needed where the recipe selects the best.
        progress: called per step.

    Raises:
        TrainingError: the folder holds another run, or the loss is no longer finite.
        OSError: the folder cannot be written.
    """
    run.mkdir(parents=True, exist_ok=True)
    _claim(run, identity)
    precision = precision or processor_precision(device)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces its precision on stderr
    fabric = Fabric(accelerator=device, devices=1, precision=precision)  # type: ignore[arg-type]
    model = method.build_model()
    generator = torch.Generator().manual_seed(seed)
    initialise(model.network, recipe.initialisation, generator)
    if start:
        copy_matching(model.network, start)
    plans = plan(method, recipe)
    if not plans:
        assert method.estimate is not None, f"{method.name} has neither stages nor an estimate"
        begin = time.perf_counter()
        if not (run / "weights.safetensors").exists():
            method.estimate(model, crops.batches(recipe.batch or method.batch, workers))
            _save(run / "weights.safetensors", model, method)
        return Trained(run / "weights.safetensors", 0, time.perf_counter() - begin, None, None)

    batch = min(recipe.batch or method.batch, len(crops.persons))
    steps = max(1, len(crops.persons) // batch)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    history = _resume(run, model, optimizer)
    wrapped, optimizer = fabric.setup(model, optimizer)
    best = max((h["val_ap"] for h in history if h.get("val_ap") is not None), default=None)
    total = plans[-1].last
    for current in plans:
        for name, parameter in model.network.named_parameters():
            prefixes = current.stage.train_only
            parameter.requires_grad_(not prefixes or name.startswith(prefixes))
        for epoch in range(max(current.first, len(history)), current.last):
            line = _epoch(
                method, wrapped, optimizer, fabric, crops, recipe, plans, epoch, steps, batch, seed, workers, progress
            )
            if validate is not None and recipe.select == "best":
                line["val_ap"] = validate(model)
                if best is None or line["val_ap"] > best:
                    best = line["val_ap"]
                    _save(run / "weights.safetensors", model, method)
            history.append({"epoch": epoch, "stage": plans.index(current), **line})
            _checkpoint(run, model, optimizer, history, method)
            progress("epoch", epoch + 1, total, f"loss {line['loss']:.4g}, {line['images_per_second']:.0f} images/s")
    if not (run / "weights.safetensors").exists():
        _save(run / "weights.safetensors", model, method)
    return summary(run, history)


def summary(run: Path, history: Sequence[Mapping[str, Any]]) -> Trained:
    """What the lines of a run's ``metrics.jsonl`` add up to.

    Args:
        run: folder of the run.
        history: one line per epoch, at least one.
    """
    seconds = sum(line["seconds"] for line in history)
    rates = sorted(line["images_per_second"] for line in history)
    waits = sum(line["data_wait"] * line["seconds"] for line in history) / max(seconds, 1e-9)
    return Trained(run / "weights.safetensors", len(history), seconds, rates[len(rates) // 2], waits)


def _epoch(
    method: Method[Any],
    model: Any,
    optimizer: Any,
    fabric: Fabric,
    crops: Crops,
    recipe: Recipe,
    plans: list[Any],
    epoch: int,
    steps: int,
    batch: int,
    seed: int,
    workers: int,
    progress: Progress,
) -> dict[str, Any]:
    """One pass over the training persons; returns the means that go into ``metrics.jsonl``."""
    stage = next(p.stage for p in plans if p.first <= epoch < p.last)
    total, begin, waited = plans[-1].last * steps, time.perf_counter(), 0.0
    network = model.module.network
    sums: dict[str, float] = {}
    model.train()
    # what a network draws for itself (dropout) depends on the epoch alone, so that a continued run draws the same
    torch.manual_seed(1_000_003 * seed + epoch)
    batches = crops.epoch(batch, workers, recipe.augmentation, seed, epoch)
    for i in range(steps):
        asked = time.perf_counter()
        loaded = next(batches)
        waited += time.perf_counter() - asked
        step = epoch * steps + i
        rate = learning_rate(recipe, plans, epoch, step, steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        pixels, keypoints, visible = (field.to(fabric.device) for field in loaded)
        pixels = pixels.float().div_(255).contiguous(memory_format=torch.channels_last)
        ideal, weight = method.codec.encode(keypoints, visible)
        prediction = model(pixels)
        terms = stage.terms(network, prediction, ideal, weight)
        loss = sum(terms.values(), torch.zeros((), device=fabric.device))
        if not torch.isfinite(loss):
            raise TrainingError(
                f"{method.name}: the loss is {loss.item()} in epoch {epoch + 1}, step {i + 1}; "
                "the last whole epoch is kept; try --precision 32-true"
            )
        optimizer.zero_grad()
        fabric.backward(loss * recipe.loss_scale)
        optimizer.step()
        for name, term in {"loss": loss, **terms}.items():
            sums[name] = sums.get(name, 0.0) + term.item()
        elapsed = time.perf_counter() - begin
        speed = (i + 1) * batch / elapsed
        left = (total - step - 1) * batch / speed
        progress(
            "train", step + 1, total, f"loss {sums['loss'] / (i + 1):.4g}, {speed:.0f} images/s, {left:.0f} s left"
        )
    seconds = time.perf_counter() - begin
    means = {name: value / steps for name, value in sums.items()}
    return {
        **means,
        "learning_rate": rate,
        "seconds": seconds,
        "images_per_second": steps * batch / seconds,
        "data_wait": waited / seconds,
    }


def _claim(run: Path, identity: Mapping[str, Any]) -> None:
    path = run / "settings.json"
    text = json.dumps(identity, indent=1, sort_keys=True) + "\n"
    if not path.exists():
        write_atomic(path, text.encode())
    elif path.read_text() != text:
        raise TrainingError(f"run folder {run}: holds a run of other settings; give another --runs folder or remove it")


def _resume(run: Path, model: PoseNetwork[Any], optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    path = run / "state.pt"
    if not path.exists():
        return []
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        return list(json.loads(state["history"]))
    except Exception as error:  # torch raises many kinds for a damaged file
        first = str(error).split("\n", 1)[0]
        raise DamagedRun(f"run folder {run}: state.pt is damaged ({first}); remove the folder to start again") from None


def _checkpoint(
    run: Path, model: PoseNetwork[Any], optimizer: Any, history: list[dict[str, Any]], method: Method[Any]
) -> None:
    # state.pt alone decides where a run continues; it is written first, so nothing after it can be ahead of it
    buffer = io.BytesIO()
    state = {
        "network": model.network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": json.dumps(history),
    }
    torch.save(state, buffer)
    write_atomic(run / "state.pt", buffer.getvalue())
    lines = "".join(json.dumps(line) + "\n" for line in history)
    write_atomic(run / "metrics.jsonl", lines.encode())
    _save(run / "last.safetensors", model, method)


def _save(path: Path, model: PoseNetwork[Any], method: Method[Any]) -> None:
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.network.state_dict().items()}
    about = {"method": method.name, "res": str(method.frame.size), "backbone": method.backbone}
    # one entry: safetensors writes several in random order, and equal weights shall be equal files
    write_atomic(path, save(tensors, {"lrbench": json.dumps(about)}))
