"""Training of pose networks behind upscalers that looks at more than the upscaler's pictures, or trains it as well.

``mix`` shows the pose network clean crops, bicubic ones and the upscaler's, a third each. ``joint`` trains both
networks by the loss of the pose and the distance of the pictures. ``tdp``, after SR4IR (Kim et al., CVPR 2024,
arXiv:2404.01692; the idea and its numbers, no code), trains them in turns: the upscaler by the distance of pictures and
of what the pose network sees in them, the pose network by pictures, originals and patchworks of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from lrbench.degradation import PRESETS
from lrbench.fitting import LAST, Course, Update
from lrbench.models.network import PoseNetwork
from lrbench.models.upscalers import UPSCALERS
from lrbench.models.upscalers.perceptual import PoseFeatures, perceptual_loss
from lrbench.pairs import Pair, Pairs
from lrbench.recipes import cosine
from lrbench.training import PoseCourse, as_floats
from lrbench.upscaler_training import packed
from lrbench.upscaling import Front

UPSCALER = "upscaler.safetensors"
"""The upscaler that a run trained together with its pose network, beside the weights of that."""

PICTURE_WEIGHT = (1.0, 0.1)
"""Of the distance of pictures in joint training, at the start and at the end of a run."""

PACE = 0.1
"""Learning rate of the upscaler in joint training, as a share of the pose network's."""

TDP_RATE, TDP_LAST_RATE, TDP_DECAY = 1e-4, 1e-6, 0.01
"""Of the upscaler in turns: a cosine, and AdamW's weight decay."""

TDP_RAMP = 1 / 30
"""Share of a run in which that rate rises; training diverges without (SR4IR: one epoch of 30)."""

TDP_FEATURES_FROM = 0.1
"""Share of a run after which features are compared."""

PATCHES = 8
"""Cells along each side of a patchwork."""


def partner_of(weights: Path) -> Path:
    """The upscaler that was trained together with a pose network, from the file of that one's weights."""
    return weights.with_name(f"last_{UPSCALER}" if weights.name == LAST else UPSCALER)


class Reading(nn.Module):
    """A pose network without what stands in front of it."""

    def __init__(self, model: PoseNetwork[Any]) -> None:
        super().__init__()
        self.model = model

    def forward(self, pictures: Tensor) -> Any:
        """Enlarged crops (B, 3, h, w), RGB in [0, 1] -> prediction."""
        return self.model.read(pictures)


class MixCourse(PoseCourse):
    """The pose network on clean, bicubic and super-resolved crops, a third each; the upscaler stays as it is.

    Args: see `PoseCourse`; the method has an upscaler.
    """

    sharp = PRESETS["none"]  # as clean crops are cut

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        choice, front = self.method.upscaling, self.model.front
        assert isinstance(front, Front)
        self.front = front
        self.pairs = Pairs(crops=self.crops, scale=choice.scale, kind="matched", sharp=self.sharp)
        self.bicubic = Front(UPSCALERS["bicubic"].build(choice.scale), choice.boundary)
        self.generator = torch.Generator()

    def setup(self, fabric: Fabric) -> Sequence[Update]:
        """See `lrbench.fitting.Course`."""
        self.autocast = fabric.autocast
        self.reading = fabric.setup_module(Reading(self.model))
        return self.updates()

    def updates(self) -> Sequence[Update]:
        """The optimisers."""
        return [self.update(self.terms)]

    def begin(self, epoch: int) -> Mapping[str, Any]:
        """See `lrbench.fitting.Course`."""
        self.generator.manual_seed(1_000_003 * self.seed + epoch)
        return super().begin(epoch)

    def batches(self, epoch: int) -> Iterator[Any]:
        """See `lrbench.fitting.Course`."""
        return self.pairs.epoch(self.batch, self.workers, self.recipe.augmentation, self.seed, epoch)

    def terms(self, batch: Pair, share: float) -> Mapping[str, Tensor]:  # type: ignore[override]  # has more
        """The loss of the pose."""
        small = as_floats(batch.pixels)
        with self.autocast():
            pictures = torch.stack([as_floats(batch.target), self.bicubic(small), self.front(small)])
        chosen = torch.randint(3, (len(small),), generator=self.generator).to(small.device)
        return self.pose_terms(pictures[chosen, torch.arange(len(small), device=small.device)], batch)

    def pose_terms(self, pictures: Tensor, batch: Pair) -> Mapping[str, Tensor]:
        """The loss of the present stage; there may be several pictures per person, one whole batch after the other."""
        times = len(pictures) // len(batch.keypoints)
        ideal, weight = self.method.codec.encode(batch.keypoints.repeat(times, 1, 1), batch.visible.repeat(times, 1))
        return self.stage.terms(self.model.network, self.reading(pictures), ideal, weight)


class JointCourse(MixCourse):
    """Both networks by one loss."""

    sharp = PRESETS["antialias"]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.upscaler = self.front.upscaler.requires_grad_(True)
        self.networks = {**self.networks, "upscaler": self.upscaler}

    def setup(self, fabric: Fabric) -> Sequence[Update]:
        """See `lrbench.fitting.Course`."""
        self.enlarging = fabric.setup_module(self.upscaler)
        return super().setup(fabric)

    def updates(self) -> Sequence[Update]:
        """See `MixCourse`."""
        both = Update(
            parameters=list(self.model.network.parameters()),
            partners=list(self.upscaler.parameters()),
            partner_rate=PACE,
            terms=self.terms,
            rate=self.rate,
            loss_scale=self.recipe.loss_scale,
        )
        return [both]

    def enlarged(self, batch: Pair) -> Tensor:
        """Pictures (B, 3, scale h, scale w), not clamped, with gradients; the upscaler's batch norms do not move."""
        self.upscaler.eval()
        return torch.as_tensor(self.enlarging(as_floats(batch.pixels))).float()

    def terms(self, batch: Pair, share: float) -> Mapping[str, Tensor]:  # type: ignore[override]  # as in MixCourse
        """The loss of the pose, and the distance of the pictures, which counts less and less."""
        picture = self.enlarged(batch)
        first, last = PICTURE_WEIGHT
        weight = first + (last - first) * share
        terms = dict(self.pose_terms(picture.clamp(0, 1), batch))
        return {**terms, "picture": weight * F.l1_loss(picture, as_floats(batch.target))}

    def files(self) -> Mapping[str, bytes]:
        """See `lrbench.fitting.Course`."""
        return {**super().files(), UPSCALER: packed(self.upscaler, name=self.method.upscaling.upscaler)}


class TaskDrivenCourse(JointCourse):
    """Both networks in turns, the upscaler first."""

    def updates(self) -> Sequence[Update]:
        """See `MixCourse`."""
        self.judge = PoseFeatures(self.model)
        self.upscaler.requires_grad_(True)  # a judge freezes all it has; `begin` does the same for the pose network
        picture = Update(
            parameters=list(self.upscaler.parameters()),
            terms=self.picture_terms,
            rate=self.picture_rate,
            weight_decay=TDP_DECAY,
            name="upscaler",
        )
        return [picture, self.update(self.terms)]

    def picture_rate(self, step: int) -> float:
        """Up in a line, down in a cosine."""
        share = step / (self.epochs * self.steps)
        if share < TDP_RAMP:
            return TDP_RATE * (step + 1) / (TDP_RAMP * self.epochs * self.steps + 1)
        return cosine(share, TDP_RATE, TDP_LAST_RATE)

    def picture_terms(self, batch: Pair, share: float) -> Mapping[str, Tensor]:
        """Distance of the pictures, and of what the pose network, frozen for this step, sees in them."""
        picture, target = self.enlarged(batch), as_floats(batch.target)
        terms = {"picture": F.l1_loss(picture, target)}
        if share >= TDP_FEATURES_FROM:
            network = self.model.network
            trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
            network.eval().requires_grad_(False)
            with self.autocast():
                terms |= perceptual_loss(picture, target, self.judge, weight=1.0)
            network.train()
            for parameter in trained:
                parameter.requires_grad_(True)
        return terms

    def terms(self, batch: Pair, share: float) -> Mapping[str, Tensor]:  # type: ignore[override]  # as in MixCourse
        """The loss of the pose on pictures, originals and patchworks, a third each."""
        with torch.no_grad():
            made, target = self.enlarged(batch).clamp(0, 1), as_floats(batch.target)
        cells = torch.rand(len(made), 1, PATCHES, PATCHES, generator=self.generator) < 0.5
        mask = F.interpolate(cells.float(), size=made.shape[-2:]).bool().to(made.device)
        return self.pose_terms(torch.cat([made, target, torch.where(mask, made, target)]), batch)


COURSES: Mapping[str, Callable[..., Course]] = {"mix": MixCourse, "joint": JointCourse, "tdp": TaskDrivenCourse}
"""By choice of pose; for the others the pose network is trained as it stands."""
