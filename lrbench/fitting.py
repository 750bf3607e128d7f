"""The training loop: epochs, batches, optimiser steps, and runs that continue where they stopped.

Nothing in it knows what is trained; that is a `Course`.
"""

from __future__ import annotations

import io
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from lrbench.datasets.images import DataError
from lrbench.inference import Progress, silent
from lrbench.records import write_atomic
from lrbench.timing import NETWORK, WAITING, Stopwatch

B = TypeVar("B", bound=tuple[Any, ...])

UNREAD = 15
"""Steps that a GPU may be ahead of the losses that were read from it."""

WEIGHTS = "weights.safetensors"
"""The chosen weights of a run."""

LAST = "last.safetensors"
"""Those of its last epoch."""


@dataclass(frozen=True)
class Trained:
    """What a run leaves besides its files.

    Attributes:
        weights: file of the chosen weights.
        epochs: run, over all sessions.
        seconds: of training, over all sessions.
        images_per_second: crops, median over epochs; None where nothing was stepped.
        data_wait: share of the time spent waiting for crops; None where nothing was stepped.
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


@dataclass(frozen=True, kw_only=True)
class Update:
    """One optimiser (Adam) and the loss it follows; every batch moves it one step.

    Attributes:
        parameters: that it moves.
        partners: that it moves `partner_rate` times as fast.
        terms: (batch, share of the run that is done, from 0 to 1) -> named terms of the loss, to be added.
        rate: learning rate of a step, counted over the whole run.
        name: tells several updates of one course apart in ``metrics.jsonl``; empty for the one whose loss is reported.
        betas: of Adam.
        weight_decay: decoupled from the gradient (AdamW).
        loss_scale: the loss is multiplied by this before the backward pass.
        clip: largest norm of the gradient; None for any.
    """

    parameters: Sequence[nn.Parameter]
    terms: Callable[[Any, float], Mapping[str, Tensor]]
    rate: Callable[[int], float]
    name: str = ""
    partners: Sequence[nn.Parameter] = ()
    partner_rate: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    loss_scale: float = 1.0
    clip: float | None = None


class Course(Protocol):
    """What is trained, on which batches, by which updates.

    Attributes:
        name: for messages.
        networks: all that has state, by name; complete before `setup`.
        epochs: of the whole run.
        steps: per epoch.
        batch: crops per step.
        seed: of what networks draw for themselves (dropout).
        criterion: what `validate` computes, as ``metrics.jsonl`` calls it.
    """

    name: str
    networks: Mapping[str, nn.Module]
    epochs: int
    steps: int
    batch: int
    seed: int
    criterion: str

    def setup(self, fabric: Fabric) -> Sequence[Update]:
        """Bring the networks where they are trained; called once, after their state was restored."""

    def begin(self, epoch: int) -> Mapping[str, Any]:
        """Prepare an epoch; what it returns goes into ``metrics.jsonl``."""

    def batches(self, epoch: int) -> Iterator[Any]:
        """Batches of an epoch, named tuples of tensors, `steps` of them."""

    def stepped(self) -> None:
        """Called after all updates of a batch."""

    def validate(self) -> float | None:
        """Score the networks, higher is better, to keep the best; None keeps the last."""

    def files(self) -> Mapping[str, bytes]:
        """What is kept of the networks as they are, by file name; `WEIGHTS` is among them."""


def fit(
    course: Course,
    *,
    run: Path,
    identity: Mapping[str, Any],
    device: str = "cpu",
    precision: str = "32-true",
    progress: Progress = silent,
    times: Stopwatch | None = None,
) -> Trained:
    """Train, or continue where an earlier session stopped.

    A finished run is not trained again. A run that was killed continues from its last whole epoch and ends in the same
    weights, bit for bit on CPU: whatever is drawn is drawn anew from (seed, epoch), so no random state is carried.

    Args:
        course: what to train.
        run: folder of the run.
        identity: what the run is; kept in ``settings.json``, and has to agree on continuing.
        device: ``cpu``, ``cuda`` ...
        precision: Fabric's name.
        progress: called per step.
        times: told where the time goes.

    Raises:
        TrainingError: the folder holds another run, or the loss is no longer finite.
        OSError: the folder cannot be written.
    """
    times = times or Stopwatch()
    claim(run, identity)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces its precision on stderr
    fabric = Fabric(accelerator=device, devices=1, precision=precision)  # type: ignore[arg-type]
    state = _restored(run, course.networks)
    updates = course.setup(fabric)
    plain = [_optimizer(update) for update in updates]
    for optimizer, saved in zip(plain, state["optimizers"] if state else [], strict=False):
        optimizer.load_state_dict(saved)
    optimizers = [fabric.setup_optimizers(optimizer) for optimizer in plain]
    history: list[dict[str, Any]] = list(state["history"]) if state else []
    best = max((h[course.criterion] for h in history if h.get(course.criterion) is not None), default=-math.inf)
    for epoch in range(len(history), course.epochs):
        with times("setting up"):
            facts = course.begin(epoch)
        line = _epoch(course, list(zip(updates, optimizers, strict=True)), fabric, epoch, progress, times)
        with times("validation"):
            value = course.validate()
        with times("writing files"):
            if value is not None:
                line[course.criterion] = value
                if value > best:
                    best = value
                    _keep(run, course)
            history.append({"epoch": epoch, **facts, **line})
            _checkpoint(run, course, plain, history)
        progress(
            "epoch", epoch + 1, course.epochs, f"loss {line['loss']:.4g}, {line['images_per_second']:.0f} images/s"
        )
    if not (run / WEIGHTS).exists():
        _keep(run, course)
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
    return Trained(run / WEIGHTS, len(history), seconds, rates[len(rates) // 2], waits)


def claim(run: Path, identity: Mapping[str, Any]) -> None:
    """Make the folder of a run, and write what the run is.

    Raises:
        TrainingError: it holds another run.
    """
    run.mkdir(parents=True, exist_ok=True)
    path = run / "settings.json"
    text = json.dumps(identity, indent=1, sort_keys=True) + "\n"
    if not path.exists():
        write_atomic(path, text.encode())
    elif path.read_text() != text:
        raise TrainingError(f"run folder {run}: holds a run of other settings; give another --runs folder or remove it")


class Sums:
    """Sums of losses and their terms over the steps of an epoch.

    Reading a number from a GPU waits for all that the host has asked of it, so several steps are read at once.

    Args:
        unread: steps whose losses may wait to be read.
    """

    def __init__(self, unread: int) -> None:
        self.total: dict[str, float] = {}
        self._unread: list[Mapping[str, Tensor]] = []
        self._most, self._steps = unread, 0

    def add(self, losses: Mapping[str, Tensor], *, last: bool) -> tuple[int, float] | None:
        """Add what one step gave, by name; the last one makes the sums whole.

        Returns:
            step and value of the first loss that is not finite, of those that were read; None where all are.
        """
        self._unread.append({name: term.detach() for name, term in losses.items()})
        if not last and len(self._unread) <= self._most:
            return None
        values = torch.stack([term.double() for step in self._unread for term in step.values()]).tolist()
        for step in self._unread:
            for name in step:
                value = values.pop(0)
                if name.endswith("loss") and not math.isfinite(value):
                    return self._steps, value
                self.total[name] = self.total.get(name, 0.0) + value
            self._steps += 1
        self._unread = []
        return None

    def mean(self, name: str) -> float:
        """Of a term over the steps that were read; NaN before any was."""
        return self.total[name] / self._steps if self._steps else math.nan


def staged(batches: Iterator[B], device: torch.device) -> Iterator[B]:
    """Named tuples of tensors on a device; each is copied to a GPU while the one before it is used."""
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def move() -> B | None:
        batch = next(batches, None)
        if batch is None:
            return None
        with torch.cuda.stream(stream):
            moved = type(batch)(*(field.pin_memory().to(device, non_blocking=True) for field in batch))
        stream.synchronize()
        return moved

    pool = ThreadPoolExecutor(1, thread_name_prefix="copies")
    try:
        coming = pool.submit(move)
        while (batch := coming.result()) is not None:
            coming = pool.submit(move)
            for field in batch:
                field.record_stream(torch.cuda.current_stream(device))  # its memory is not given to a later copy
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _epoch(
    course: Course,
    updates: Sequence[tuple[Update, Any]],
    fabric: Fabric,
    epoch: int,
    progress: Progress,
    times: Stopwatch,
) -> dict[str, Any]:
    """One pass over the training data; returns the means that go into ``metrics.jsonl``."""
    steps, batch = course.steps, course.batch
    total, begin, waited = course.epochs * steps, time.perf_counter(), times.seconds.get(WAITING, 0.0)
    sums = Sums(unread=0 if fabric.device.type == "cpu" else UNREAD)
    # what a network draws for itself (dropout) depends on the epoch alone, so that a continued run draws the same
    torch.manual_seed(1_000_003 * course.seed + epoch)
    batches = staged(course.batches(epoch), fabric.device)
    for i in range(steps):
        with times(WAITING):
            loaded = next(batches)
        step = epoch * steps + i
        with times(NETWORK):
            losses: dict[str, Tensor] = {}
            for update, optimizer in updates:
                for group in optimizer.param_groups:
                    group["lr"] = update.rate(step) * group["pace"]
                optimizer.zero_grad()
                terms = update.terms(loaded, step / total)
                loss = sum(terms.values(), torch.zeros((), device=fabric.device))
                fabric.backward(loss * update.loss_scale)
                if update.clip is not None:
                    nn.utils.clip_grad_norm_([*update.parameters, *update.partners], update.clip)
                optimizer.step()
                losses |= {f"{update.name} {name}".lstrip(): term for name, term in {"loss": loss, **terms}.items()}
            course.stepped()
            unsound = sums.add(losses, last=i == steps - 1)
        if unsound is not None:
            raise TrainingError(
                f"{course.name}: the loss is {unsound[1]} in epoch {epoch + 1}, step {unsound[0] + 1}; "
                "the last whole epoch is kept; try --precision 32-true"
            )
        elapsed = time.perf_counter() - begin
        speed = (i + 1) * batch / elapsed
        left = (total - step - 1) * batch / speed
        progress("train", step + 1, total, f"loss {sums.mean('loss'):.4g}, {speed:.0f} images/s, {left:.0f} s left")
    seconds = time.perf_counter() - begin
    return {
        **{name: sums.mean(name) for name in sums.total},
        "learning_rate": next(update.rate(step) for update, _ in updates if not update.name),
        "seconds": seconds,
        "images_per_second": steps * batch / seconds,
        "data_wait": (times.seconds[WAITING] - waited) / seconds,
    }


def _optimizer(update: Update) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [{"params": update.parameters, "pace": 1.0}]
    if update.partners:
        groups.append({"params": update.partners, "pace": update.partner_rate})
    if update.weight_decay:
        return torch.optim.AdamW(groups, lr=1e-3, betas=update.betas, weight_decay=update.weight_decay, fused=True)
    return torch.optim.Adam(groups, lr=1e-3, betas=update.betas, fused=True)


def _restored(run: Path, networks: Mapping[str, nn.Module]) -> dict[str, Any] | None:
    """The state of a run, given to the networks; None where nothing was trained yet."""
    path = run / "state.pt"
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        for name, network in networks.items():
            network.load_state_dict(state["networks"][name])
        return {"optimizers": state["optimizers"], "history": json.loads(state["history"])}
    except Exception as error:  # torch raises many kinds for a damaged file
        first = str(error).split("\n", 1)[0]
        raise DamagedRun(f"run folder {run}: state.pt is damaged ({first}); remove the folder to start again") from None


def _checkpoint(run: Path, course: Course, optimizers: Sequence[Any], history: list[dict[str, Any]]) -> None:
    # state.pt alone decides where a run continues; it is written first, so nothing after it can be ahead of it
    buffer = io.BytesIO()
    state = {
        "networks": {name: network.state_dict() for name, network in course.networks.items()},
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "history": json.dumps(history),
    }
    torch.save(state, buffer)
    write_atomic(run / "state.pt", buffer.getvalue())
    lines = "".join(json.dumps(line) + "\n" for line in history)
    write_atomic(run / "metrics.jsonl", lines.encode())
    for name, content in course.files().items():
        write_atomic(run / (LAST if name == WEIGHTS else f"last_{name}"), content)


def _keep(run: Path, course: Course) -> None:
    # WEIGHTS last: where it is, the others are
    for name, content in sorted(course.files().items(), key=_chosen_last):
        write_atomic(run / name, content)


def _chosen_last(file: tuple[str, bytes]) -> bool:
    return file[0] == WEIGHTS
