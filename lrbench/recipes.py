"""Recipes: how much training, and in what manner. The same for every method of a comparison."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lrbench.augmentation import Augmentation
from lrbench.geometry import Size
from lrbench.structures import unknown

if TYPE_CHECKING:  # figures, which ask for the epochs of a recipe, are drawn without torch
    from lrbench.method import Method, Stage
    from lrbench.models.network import Initialisation


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Numbers of a training run that do not belong to a method.

    Attributes:
        name: on the command line.
        epochs: of all stages together, shared out in the paper's proportion; None for the paper's own.
        batch: persons per step; None for the paper's own.
        initialisation: of the network.
        schedule: ``paper`` takes each stage's rate and milestones; ``cosine`` warms up to `peak_rate` and falls to zero
            over the whole run, all stages together.
        peak_rate: of the cosine.
        warm_up: steps.
        loss_scale: the loss is multiplied by this before the backward pass; it lifts the gradients of sparse targets
            above Adam's epsilon.
        augmentation: of the training views.
        select: which weights are kept: ``last``, or ``best`` by AP on the validation split, as the papers did.
        start: ``scratch``, or ``pretrained`` for the shipped trunk of the backbone where there is one.
    """

    name: str
    epochs: int | None
    batch: int | None
    initialisation: Initialisation
    schedule: Literal["paper", "cosine"]
    augmentation: Augmentation
    peak_rate: float = 0.0
    warm_up: int = 0
    loss_scale: float = 1.0
    select: Literal["last", "best"] = "last"
    start: Literal["scratch", "pretrained"] = "scratch"


PAPER = Recipe(
    name="paper",
    epochs=None,
    batch=None,
    initialisation="paper",
    schedule="paper",
    augmentation=Augmentation(),
    select="best",
)
"""The papers' epochs, batch sizes and rates; from scratch, because ImageNet weights cannot be shipped."""

QUICK = Recipe(
    name="quick",
    epochs=8,
    batch=64,
    initialisation="residual",
    schedule="cosine",
    peak_rate=3e-3,
    warm_up=30,
    loss_scale=1000.0,
    augmentation=Augmentation(half_body=0.0, scale=0.25, rotation=30.0),
    start="pretrained",
)
"""Learns in minutes on two processor cores; its epochs are those of 64x48, larger crops get fewer (`load_recipe`)."""

RECIPES = {"quick": QUICK, "paper": PAPER}


def load_recipe(name: str, size: Size) -> Recipe:
    """A recipe by name, with its budget for a crop size.

    The quick one keeps its time roughly within bounds: 8 epochs at 64x48, 3 at 128x96, never fewer than 2.

    Raises:
        ValueError: unknown name.
    """
    if name not in RECIPES:
        raise ValueError(unknown("recipe", name, RECIPES))
    recipe = RECIPES[name]
    if recipe is not QUICK or recipe.epochs is None:
        return recipe
    share = 64 * 48 / (size.height * size.width)
    return dataclasses.replace(recipe, epochs=max(2, round(recipe.epochs * min(1.0, share) ** 0.7)))


@dataclass(frozen=True)
class Plan:
    """One stage as it will be run.

    Attributes:
        stage: of the method.
        first, last: its epochs, counted over the whole run, last not included.
    """

    stage: Stage[Any]
    first: int
    last: int


def plan(method: Method[Any], recipe: Recipe) -> list[Plan]:
    """Share out a recipe's epochs among the stages of a method; every stage gets at least one."""
    stages = method.stages
    if not stages:
        return []
    paper = [s.epochs for s in stages]
    epochs = paper
    if recipe.epochs is not None:
        epochs = [max(1, round(recipe.epochs * e / sum(paper))) for e in paper]
        longest = max(range(len(epochs)), key=epochs.__getitem__)
        epochs[longest] = max(1, recipe.epochs - (sum(epochs) - epochs[longest]))
    plans, first = [], 0
    for stage, count in zip(stages, epochs, strict=True):
        plans.append(Plan(stage, first, first + count))
        first += count
    return plans


def learning_rate(recipe: Recipe, plans: list[Plan], epoch: int, step: int, steps_per_epoch: int) -> float:
    """Rate of one step.

    Args:
        recipe: of the run.
        plans: of the run.
        epoch: counted over the whole run.
        step: counted over the whole run.
        steps_per_epoch: full batches of the training split.
    """
    if recipe.schedule == "cosine":
        total = plans[-1].last * steps_per_epoch
        if step < recipe.warm_up:
            return recipe.peak_rate * (step + 1) / recipe.warm_up
        progress = (step - recipe.warm_up) / max(1, total - recipe.warm_up)
        return cosine(progress, recipe.peak_rate)
    current = next(p for p in plans if p.first <= epoch < p.last)
    # milestones are epochs of the paper's length; the released scheduler is stepped at the start of an epoch
    stretch = (current.last - current.first) / current.stage.epochs
    passed = sum(epoch - current.first >= m * stretch for m in current.stage.milestones)
    return float(current.stage.learning_rate * 0.1**passed)


def cosine(share: float, high: float, low: float = 0.0) -> float:
    """A rate that falls from `high` to `low` along half a cosine; `share` of the way is done."""
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * share))
