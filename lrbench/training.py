"""Training of pose networks: the stages of a method as a course. Nothing in it knows which method it trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from lrbench.compilation import Compiled, compiles
from lrbench.fitting import WEIGHTS, DamagedRun, Trained, TrainingError, Update, claim, fit, summary
from lrbench.inference import Progress, silent
from lrbench.loading import Crops
from lrbench.method import Method
from lrbench.models.network import PoseNetwork, initialise
from lrbench.recipes import Recipe, learning_rate, plan
from lrbench.records import write_atomic
from lrbench.structures import Batch
from lrbench.timing import Stopwatch
from lrbench.weights import copy_matching, stating

__all__ = ["DamagedRun", "PoseCourse", "Trained", "TrainingError", "processor_precision", "summary", "train"]

Validate = Callable[[PoseNetwork[Any]], float]
"""Scores a model on the validation split, higher is better."""


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
    compile: bool | None = None,
    workers: int = 2,
    start: Mapping[str, Tensor] | None = None,
    validate: Validate | None = None,
    progress: Progress = silent,
    times: Stopwatch | None = None,
) -> Trained:
    """Train a method, or continue where an earlier session stopped; see `lrbench.fitting.fit`.

    Args:
        method: what to train.
        crops: of the training split.
        recipe: how.
        run: folder of the run.
        identity: what the run is; kept in ``settings.json``, and has to agree on continuing.
        seed: of initialisation, order and views.
        device: ``cpu``, ``cuda`` ...
        precision: Fabric's name; by default bf16 where the processor has it.
        compile: see `PoseCourse`.
        workers: threads that cut crops.
        start: weights to begin with, by name; those that fit are used.
        validate: scores a model after every epoch; needed where the recipe selects the best.
        progress: called per step.
        times: told where the time goes.

    Raises:
        TrainingError: the folder holds another run, or the loss is no longer finite.
        OSError: the folder cannot be written.
    """
    if not method.stages:
        return _estimate(method, crops, recipe, run, identity, workers)
    course = PoseCourse(
        method, crops, recipe, seed=seed, workers=workers, start=start, validate=validate, compile=compile
    )
    precision = precision or processor_precision(device)
    return fit(course, run=run, identity=identity, device=device, precision=precision, progress=progress, times=times)


class PoseCourse:
    """The stages of a method on the crops of a split.

    Args:
        method: what to train.
        crops: of the training split.
        recipe: how.
        seed: of initialisation, order and views.
        workers: threads that cut crops.
        start: weights to begin with, by name; those that fit are used.
        validate: scores the model after every epoch, where the recipe selects the best.
        compile: the model, for the steps of the training; by default on GPUs alone. Where that fails, the line of the
            epoch in ``metrics.jsonl`` says why, and the model is trained as it is.
    """

    criterion = "val_ap"

    def __init__(
        self,
        method: Method[Any],
        crops: Crops,
        recipe: Recipe,
        *,
        seed: int = 0,
        workers: int = 2,
        start: Mapping[str, Tensor] | None = None,
        validate: Validate | None = None,
        compile: bool | None = None,
    ) -> None:
        self.name, self.seed, self.workers = method.name, seed, workers
        self.method, self.crops, self.recipe = method, crops, recipe
        self.score = validate if recipe.select == "best" else None
        self.plans = plan(method, recipe)
        self.epochs = self.plans[-1].last
        self.batch = min(recipe.batch or method.batch, len(crops.persons))
        self.steps = max(1, len(crops.persons) // self.batch)
        self.stage = self.plans[0].stage
        model: PoseNetwork[Any] = method.build_model()
        initialise(model.network, recipe.initialisation, torch.Generator().manual_seed(seed))
        if start:
            copy_matching(model.network, start)
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.networks: Mapping[str, nn.Module] = {"pose": self.model.network}
        self.compile = compile
        self.compiled: Compiled | None = None
        self.rehearsed = -1

    def setup(self, fabric: Fabric) -> Sequence[Update]:
        """See `lrbench.fitting.Course`."""
        self.fabric = fabric
        self.compiled = Compiled(self.model) if compiles(self.compile, fabric.device.type) else None
        self.wrapped = fabric.setup_module(self.compiled or self.model)
        return [self.update(self.terms)]

    def update(self, terms: Callable[[Any, float], Mapping[str, Tensor]]) -> Update:
        """The optimiser of the pose network, by the recipe, for a loss."""
        parameters = list(self.model.network.parameters())
        return Update(parameters=parameters, terms=terms, rate=self.rate, loss_scale=self.recipe.loss_scale)

    def rate(self, step: int) -> float:
        """Of the recipe and the stage that the step lies in."""
        return learning_rate(self.recipe, self.plans, step // self.steps, step, self.steps)

    def terms(self, batch: Batch, share: float) -> Mapping[str, Tensor]:
        """The loss of the present stage."""
        ideal, weight = self.method.codec.encode(batch.keypoints, batch.visible)
        return self.stage.terms(self.model.network, self.wrapped(as_floats(batch.pixels)), ideal, weight)

    def begin(self, epoch: int) -> Mapping[str, Any]:
        """See `lrbench.fitting.Course`."""
        number, current = next((i, p) for i, p in enumerate(self.plans) if p.first <= epoch < p.last)
        self.stage = current.stage
        prefixes = self.stage.train_only
        for name, parameter in self.model.network.named_parameters():
            parameter.requires_grad_(not prefixes or name.startswith(prefixes))
        self.model.train()
        return {"stage": number, **self._compilation(number)}

    def batches(self, epoch: int) -> Iterator[Any]:
        """See `lrbench.fitting.Course`."""
        return self.crops.epoch(self.batch, self.workers, self.recipe.augmentation, self.seed, epoch)

    def stepped(self) -> None:
        """See `lrbench.fitting.Course`."""

    def validate(self) -> float | None:
        """See `lrbench.fitting.Course`."""
        return self.score(self.model) if self.score is not None else None

    def files(self) -> Mapping[str, bytes]:
        """See `lrbench.fitting.Course`."""
        return {WEIGHTS: packed(self.model.network, method=self.method)}

    def _compilation(self, stage: int) -> dict[str, Any]:
        """Facts of an epoch; compiles at the start of a stage, because other parameters may train in it."""
        if self.compiled is None:
            return {}
        facts: dict[str, Any] = {}
        if stage != self.rehearsed:
            begin, self.rehearsed = time.perf_counter(), stage
            self.compiled.rehearse(self._rehearsal, device=self.fabric.device.type)
            facts["compile_seconds"] = time.perf_counter() - begin
        failure = self.compiled.failure
        return {**facts, "compiled": not failure, **({"compile_failure": failure} if failure else {})}

    def _rehearsal(self) -> None:
        """Forward and backward pass of a black batch."""
        size = self.crops.frame.size
        black = torch.zeros(self.batch, 3, size.height, size.width, dtype=torch.uint8, device=self.fabric.device)
        prediction = self.wrapped(as_floats(black))
        self.fabric.backward(torch.stack([field.float().mean() for field in prediction]).sum())


def as_floats(pixels: Tensor) -> Tensor:
    """Pixels (B, 3, h, w) uint8 as networks take them: float32 in [0, 1], channels last in memory."""
    return pixels.float().div_(255).contiguous(memory_format=torch.channels_last)


def packed(network: nn.Module, *, method: Method[Any]) -> bytes:
    """A file of a method's weights; it says what they are of."""
    return stating(network, {"method": method.name, "res": str(method.frame.size), "backbone": method.backbone})


def _estimate(
    method: Method[Any], crops: Crops, recipe: Recipe, run: Path, identity: Mapping[str, Any], workers: int
) -> Trained:
    """Fit a method that has no stages, in one pass."""
    assert method.estimate is not None, f"{method.name} has neither stages nor an estimate"
    claim(run, identity)
    begin, path = time.perf_counter(), run / WEIGHTS
    if not path.exists():
        model = method.build_model()
        method.estimate(model, crops.batches(recipe.batch or method.batch, workers))
        write_atomic(path, packed(model.network, method=method))
    return Trained(path, 0, time.perf_counter() - begin, None, None)
