"""Training of upscalers on person crops: pairs, losses and schedules as a course.

Without a judge an upscaler starts as bicubic interpolation and learns to be closer to the pixels and their gradients.
With one, a frozen network (VGG-19, or a pose network), pictures are compared by what it sees in them, and a second
network learns to tell them from originals (released settings of ESRGAN and of SPSR, arXiv:2003.13081).
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from lrbench.augmentation import Augmentation
from lrbench.datasets.images import DataError
from lrbench.fidelity import Fidelity, mean, per_picture
from lrbench.fitting import WEIGHTS, Update
from lrbench.models.network import count_parameters
from lrbench.models.upscalers import UPSCALERS
from lrbench.models.upscalers.adversarial import UNetDiscriminator, discriminator_loss, generator_loss
from lrbench.models.upscalers.gradients import (
    RELEASED_ADVERSARIAL_WEIGHT,
    RELEASED_FEATURE_WEIGHT,
    gradient_map,
    psnr_loss,
    released_loss,
)
from lrbench.models.upscalers.perceptual import Judge, perceptual_loss
from lrbench.models.upscalers.spsr import (
    PICTURE_PADDING,
    RELEASED_GRADIENT_ADVERSARIAL_WEIGHT,
    StructuredPicture,
    released_structure_loss,
    structure_loss,
)
from lrbench.models.upscalers.upscaler import Residual, Upscaler, initialise
from lrbench.pairs import Jitter, Pair, Pairs
from lrbench.recipes import cosine
from lrbench.structures import unknown
from lrbench.training import as_floats
from lrbench.weights import copy_matching, stating

SMALL = 2_000_000
"""Parameters up to which the shorter of the paper recipe's two budgets is enough."""

FUSION = "f_"
"""Layers of SPSR that alone are trained at first when the rest was taken from another file (released code) ..."""

FUSION_SHARE = 0.01
"""... for this share of the run: 5,000 of 500,000 steps."""


@dataclass(frozen=True, kw_only=True)
class UpscalerRecipe:
    """Numbers of an upscaler's training.

    Attributes:
        name: on the command line.
        epochs: passes over the training persons; None for as many as `iterations` need.
        iterations: steps of networks up to `SMALL` parameters, and of larger ones.
        batch: pairs per step.
        peak_rate, last_rate: learning rate at the start and at the end, a cosine between.
        betas: of Adam.
        averaging: of the weights over the steps, which is what is kept; less in the first steps.
        clip: largest norm of gradients, where there is a discriminator.
        held_out: persons of the training split to validate on, at most.
        augmentation: views of the persons.
        jitter: what pairs vary in besides.
    """

    name: str
    epochs: int | None = None
    iterations: tuple[int, int] = (100_000, 300_000)
    batch: int = 64
    peak_rate: float = 2e-4
    last_rate: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.99)
    averaging: float = 0.999
    clip: float = 1.0
    held_out: int = 1000
    augmentation: Augmentation = field(default_factory=partial(Augmentation, half_body=0.0, scale=0.25))
    jitter: Jitter = field(default_factory=partial(Jitter, patch=128))


RECIPES = {
    "paper": UpscalerRecipe(name="paper"),
    # a larger rate and smaller batches: what learns most in minutes on two processor cores
    "quick": UpscalerRecipe(name="quick", epochs=8, batch=8, peak_rate=5e-4, held_out=48),
}


def load_upscaler_recipe(name: str, *, epochs: int | None = None, batch: int | None = None) -> UpscalerRecipe:
    """A recipe by name, with overrides.

    Raises:
        ValueError: unknown name, or a number below 1.
    """
    if name not in RECIPES:
        raise ValueError(unknown("recipe", name, RECIPES))
    given = {key: value for key, value in (("epochs", epochs), ("batch", batch)) if value is not None}
    for key, value in given.items():
        if value < 1:
            raise ValueError(f"{key} {value} of an upscaler: expected at least 1")
    return dataclasses.replace(RECIPES[name], **given)  # type: ignore[arg-type]


class UpscalerCourse:
    """An upscaler on pairs of crops.

    Args:
        name: in `UPSCALERS`.
        scale: factor.
        pairs: to train on.
        held: to validate on.
        recipe: how.
        seed: of initialisation, order and views.
        workers: threads that cut crops.
        judge: what else pictures are compared by; None for pixels and gradients alone.
        start: weights to begin with, by name; those that fit are used.
        residual: what the network's details are added to; ``released`` where it begins with all of a published one's.

    Raises:
        DataError: nothing of `start` fits.
    """

    criterion = "val_psnr"

    def __init__(
        self,
        name: str,
        scale: int,
        pairs: Pairs,
        held: Pairs,
        recipe: UpscalerRecipe,
        *,
        seed: int = 0,
        workers: int = 2,
        judge: Judge | None = None,
        start: Mapping[str, Tensor] | None = None,
        residual: Residual = "bicubic",
    ) -> None:
        self.name, self.scale, self.seed, self.workers = name, scale, seed, workers
        self.pairs, self.held, self.recipe, self.judge = pairs, held, recipe, judge
        persons = len(pairs.crops.persons)
        self.batch = min(recipe.batch, persons)
        self.steps = max(1, persons // self.batch)
        self.network = UPSCALERS[name].build(scale, residual)
        self.epochs = recipe.epochs or math.ceil(self._iterations() / self.steps)
        generator = torch.Generator().manual_seed(seed)
        initialise(self.network, generator)
        self.started = bool(start)
        if start and not copy_matching(self.network, start).used:
            raise DataError(f"none of the {len(start)} tensors to start with fits {name}")
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.step = 0
        networks: dict[str, nn.Module] = {"upscaler": self.network, "average": self.average}
        self.against: dict[str, nn.Module] = {}
        if judge is not None:
            for part in ("discriminator", "edges") if self._structured else ("discriminator",):
                networks[part] = self.against[part] = discriminator = UNetDiscriminator()
                discriminator.initialise(generator)
        self.networks: Mapping[str, nn.Module] = networks

    @property
    def _structured(self) -> bool:
        """The upscaler also predicts gradient maps."""
        return hasattr(self.network, "conv_w")

    def _iterations(self) -> int:
        return self.recipe.iterations[count_parameters(self.network) > SMALL]

    def setup(self, fabric: Fabric) -> Sequence[Update]:
        """See `lrbench.fitting.Course`."""
        self.wrapped = fabric.setup_module(self.network)
        self.average.to(fabric.device)
        common: dict[str, Any] = {"rate": self.rate, "betas": self.recipe.betas}
        own = list(self.network.parameters())
        if self.judge is None:
            return [Update(parameters=own, terms=self.psnr_terms, **common)]
        self.judge.to(fabric.device)
        self.autocast = fabric.autocast
        theirs = [p for discriminator in self.against.values() for p in discriminator.parameters()]
        self.against = {name: fabric.setup_module(discriminator) for name, discriminator in self.against.items()}
        common["clip"] = self.recipe.clip
        return [
            Update(parameters=own, terms=self.perceptual_terms, **common),
            Update(parameters=theirs, terms=self.discriminator_terms, name="discriminator", **common),
        ]

    def rate(self, step: int) -> float:
        """A cosine from the recipe's first to its last rate."""
        return cosine(step / (self.epochs * self.steps), self.recipe.peak_rate, self.recipe.last_rate)

    def psnr_terms(self, batch: Pair, share: float) -> Mapping[str, Tensor]:
        """Distance of pixels and of gradient maps."""
        output, target = self.wrapped(as_floats(batch.pixels)), as_floats(batch.target)
        return structure_loss(output, target) if isinstance(output, StructuredPicture) else psnr_loss(output, target)

    def perceptual_terms(self, batch: Pair, share: float) -> Mapping[str, Tensor]:
        """Distance of pixels and features, and what the discriminators say of the pictures."""
        assert self.judge is not None
        self._release(share)
        output, target = self.wrapped(as_floats(batch.pixels)), as_floats(batch.target)
        if isinstance(output, StructuredPicture):
            picture, terms = output.picture, released_structure_loss(output, target)
        else:
            picture, terms = output, released_loss(output, target)
        with self.autocast():
            terms |= perceptual_loss(picture, target, self.judge, weight=RELEASED_FEATURE_WEIGHT)
        self.made = picture.detach()  # the discriminators look at the same pictures
        for name, discriminator in self.against.items():
            discriminator.requires_grad_(False)
            seen, real, weight = self._seen(name, picture, target)
            terms[name] = weight * generator_loss(discriminator(real).detach(), discriminator(seen))
            discriminator.requires_grad_(True)
        return terms

    def discriminator_terms(self, batch: Pair, share: float) -> Mapping[str, Tensor]:
        """How badly originals and pictures are told apart."""
        terms = {}
        for name, discriminator in self.against.items():
            seen, real, _ = self._seen(name, self.made, as_floats(batch.target))
            terms[name] = discriminator_loss(discriminator(real), discriminator(seen))
        return terms

    def _seen(self, name: str, picture: Tensor, target: Tensor) -> tuple[Tensor, Tensor, float]:
        """What a discriminator sees of both, and the weight of its opinion."""
        if name == "discriminator":
            return picture, target, RELEASED_ADVERSARIAL_WEIGHT
        steep = partial(gradient_map, padding=PICTURE_PADDING)
        return steep(picture), steep(target), RELEASED_GRADIENT_ADVERSARIAL_WEIGHT

    def _release(self, share: float) -> None:
        """Train the fusion alone, or everything."""
        alone = self._structured and self.started and share < FUSION_SHARE
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(not alone or name.startswith(FUSION))

    def begin(self, epoch: int) -> Mapping[str, Any]:
        """See `lrbench.fitting.Course`."""
        self.step = epoch * self.steps
        self.network.train()
        return {}

    def batches(self, epoch: int) -> Iterator[Any]:
        """See `lrbench.fitting.Course`."""
        return self.pairs.epoch(self.batch, self.workers, self.recipe.augmentation, self.seed, epoch)

    @torch.no_grad()
    def stepped(self) -> None:
        """Move the average."""
        self.step += 1
        keep = min(self.recipe.averaging, self.step / (self.step + 10))
        for average, now in zip(self.average.parameters(), self.network.parameters(), strict=True):
            average.lerp_(now, 1 - keep)
        for kept, buffer in zip(self.average.buffers(), self.network.buffers(), strict=True):
            kept.copy_(buffer)

    def validate(self) -> float | None:
        """PSNR of the averaged weights; None for pictures that are not trained for it."""
        if self.judge is not None:
            return None
        return quality(self.average, self.held, batch=self.batch, workers=self.workers).psnr

    def files(self) -> Mapping[str, bytes]:
        """See `lrbench.fitting.Course`."""
        return {WEIGHTS: packed(self.average, name=self.name)}


def packed(network: Upscaler, *, name: str) -> bytes:
    """A file of an upscaler's weights; it says what they are of.

    Args:
        network: whose.
        name: in `UPSCALERS`.
    """
    return stating(network, {"upscaler": name, "scale": network.scale, "residual": network.residual})


@torch.inference_mode()
def quality(network: Upscaler, pairs: Pairs, *, batch: int = 16, workers: int = 2) -> Fidelity:
    """Mean closeness of what an upscaler makes to the crops it should have made, in float32.

    Args:
        network: in eval mode.
        pairs: of the persons, unaugmented.
        batch: pairs at once.
        workers: threads that cut crops.
    """
    tensors = [*network.parameters(), *network.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    scores: list[Fidelity] = []
    for pair in pairs.batches(batch, workers):
        made = network(as_floats(pair.pixels.to(device)))
        scores += per_picture(made, as_floats(pair.target.to(device)))
    return mean(scores)
