"""RLE: coordinates regressed with a scale each, by maximum likelihood under an error density that is learnt along.

Li et al., "Human Pose Regression with Residual Log-likelihood Estimation", ICCV 2021, arXiv:2107.11291. A small
normalising flow, shared by all keypoints, learns by how much the standardised error differs from a simple density; it
is part of the network and its checkpoints, serves the loss alone, and costs nothing at test time.

The released loss is not the one that one would derive: the flow's density counts twice, and the base density has a
Gaussian normaliser and a slope of 1 / sqrt(2). The paper's numbers belong to it, so it is the default (`loss`).

Deviations: the flip test exchanges left and right of sigma too, which the released code forgets (it does not use sigma
afterwards). Boxes of a detector are not reduced by one pixel, as with every other method here; the released code
reduces them like annotated ones. Annotated boxes that begin outside the image are clipped as HRNet's loader does.
Training views are those of the recipe. HRNets, which have no released form, pool all their branches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from lrbench.codecs.regression import CropFractions, ScaledFractions
from lrbench.geometry import Frame, Size
from lrbench.method import Method, Stage
from lrbench.models.backbone import Fusion
from lrbench.models.backbones import BACKBONES
from lrbench.models.network import Initialisation, PoseNetwork
from lrbench.models.regression import PooledRegression, Readout
from lrbench.structures import COCO, Keypoints, Rescoring, mean

PAPER = "Li et al., ICCV 2021, arXiv:2107.11291"
REPORTED = ("RLE", "RLE regression")
"""Names under which papers report it."""

Form = Literal["released", "mmpose", "derived"]
MEAN, STD = (0.406, 0.457, 0.480), (1.0, 1.0, 1.0)
"""Of R, G and B: the released code subtracts and does not divide."""
COUPLINGS, HIDDEN = 6, 64
"""Layers of the flow, and width of their networks (released code)."""
SMALLEST = 1e-9
"""Added to sigma, far below any float32 digit of a useful one: a saturated sigmoid must not divide by zero."""


def build(
    size: Size, backbone: str = "resnet50", loss: Form = "released", fusion: Fusion = "auto"
) -> Method[ScaledFractions]:
    """Compose RLE.

    Args:
        size: of the crop.
        backbone: of the network.
        loss: ``released``: the official code's; ``mmpose``: the same with a true Laplace base density; ``derived``: the
            negative log-likelihood of Laplace times flow, each counted once. See `rle_loss`.
        fusion: see `lrbench.models.backbone.Fusion`; it matters for HRNets only.
    """
    fusion = BACKBONES[backbone].resolve_fusion(fusion, size)
    return Method(
        name="rle",
        paper=PAPER,
        backbone=backbone,
        frame=Frame(size, "biased"),
        codec=LikelyPosition(unit=CropFractions(size=size, origin=0.5)),
        build_model=partial(rle_network, backbone=backbone, size=size, fusion=fusion),
        stages=(Stage(epochs=270, loss=partial(rle_loss, form=loss), milestones=(170, 200), learned=True),),
        batch=256,
        settings={"fusion": fusion},
        rescoring=Rescoring(form="sum"),
    )


@dataclass(frozen=True, kw_only=True)
class LikelyPosition:
    """The regressed mean is the position, one minus the mean scale its confidence (released RLE code).

    Attributes:
        unit: of positions and scales.
    """

    unit: CropFractions

    def encode(self, keypoints: Tensor, visible: Tensor) -> tuple[ScaledFractions, Tensor]:
        """The positions themselves with no error; labelled keypoints outside the crop train too (released code).

        Args:
            keypoints: (B, K, 2) px of the crop; computed in this dtype.
            visible: (B, K) above 0 where labelled.

        Returns:
            fractions and scales, float32, and weight (B, K) in {0, 1}.
        """
        uv = self.unit.from_px(keypoints).float()
        return ScaledFractions(uv, torch.zeros_like(uv)), (visible > 0).float()

    def decode(self, prediction: ScaledFractions) -> Keypoints:
        """Positions in px of the crop, score 1 - mean of the two scales."""
        return Keypoints(self.unit.to_px(prediction.uv).float(), 1 - prediction.sigma.float().mean(-1))

    def unflip(self, prediction: ScaledFractions, order: Tensor) -> ScaledFractions:
        """Undo a mirrored input; `order` (K,) exchanges left and right, of the scales too."""
        return ScaledFractions(self.unit.mirrored(prediction.uv[:, order]), prediction.sigma[:, order])

    def average(self, plain: ScaledFractions, unflipped: ScaledFractions) -> ScaledFractions:
        """Mean of positions and of scales; the latter is the mean of the scores."""
        return mean(plain, unflipped)


def rle_loss(
    prediction: ScaledFractions, ideal: ScaledFractions, weight: Tensor, *, network: nn.Module, form: Form
) -> dict[str, Tensor]:
    """Negative log-likelihood of the true positions, summed over axes and keypoints, per crop.

    With d = u - u*, e = d / sigma, and G the flow's density of the pair e, for each axis of a keypoint:

    * ``released``: (log sigma - log G(e)) + log(sqrt(2 pi) sigma) + |d| / (sqrt(2) sigma)
    * ``mmpose``: (log sigma - log G(e)) + log(2 sigma) + |e|
    * ``derived``: log sigma - log G(e) / 2 + log 2 + |e|

    In the first two, G therefore counts twice per keypoint, and so does every sigma.

    Args:
        prediction, ideal: positions and scales (B, K, 2); the ideal scales are not used.
        weight: (B, K) in [0, 1]; zero leaves a keypoint out.
        network: whose layer `flow` is G.
        form: see above.

    Returns:
        ``flow``, the part with G and log sigma, and ``base``, the rest.
    """
    sigma = prediction.sigma + SMALLEST
    distance = prediction.uv - ideal.uv
    log_density = network.get_submodule("flow")(distance / sigma)
    flow = sigma.log().sum(-1) - (1 if form == "derived" else 2) * log_density
    if form == "released":
        base = (math.sqrt(2 * math.pi) * sigma).log() + distance.abs() / (math.sqrt(2) * sigma)
    else:
        base = (distance / sigma).abs() + (2 * (sigma if form == "mmpose" else torch.ones_like(sigma))).log()
    terms = {"flow": flow, "base": base.sum(-1)}
    return {name: (weight * term).sum() / len(weight) for name, term in terms.items()}


class RealNVP(nn.Module):
    """Normalising flow of six affine couplings on the plane, from N(0, 1) (released RLE code).

    Every coupling keeps the coordinate whose mask is 1, and shifts and scales the other by what two small networks make
    of the kept one.
    """

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(COUPLINGS // 2, 1))
        self.t = nn.ModuleList(small_network() for _ in range(COUPLINGS))
        self.s = nn.ModuleList(small_network(nn.Tanh()) for _ in range(COUPLINGS))

    def forward(self, e: Tensor) -> Tensor:
        """Standardised errors (..., 2) -> their log density (...)."""
        z, log_determinant = e, torch.zeros_like(e[..., 0])
        for mask, shift, scale in reversed(list(zip(self.mask, self.t, self.s, strict=True))):
            kept, moves = mask * z, 1 - mask
            s = moves * scale(kept)
            z = kept + moves * (z - shift(kept)) * (-s).exp()
            log_determinant = log_determinant - s.sum(-1)
        return log_determinant - z.square().sum(-1) / 2 - math.log(2 * math.pi)


def small_network(*last: nn.Module) -> nn.Sequential:
    """2 -> 64 -> 64 -> 2 numbers."""
    first = (nn.Linear(2, HIDDEN), nn.LeakyReLU(), nn.Linear(HIDDEN, HIDDEN), nn.LeakyReLU())
    return nn.Sequential(*first, nn.Linear(HIDDEN, 2), *last)


class RLENetwork(PooledRegression):
    """Positions and scales, and the flow that their loss needs.

    Args:
        backbone, size, fusion, keypoints: see `PooledRegression`.
    """

    def __init__(self, backbone: str, size: Size, fusion: Fusion, keypoints: int = len(COCO)) -> None:
        super().__init__(backbone, size, fusion, normed=True, keypoints=keypoints)
        self.fc_sigma = Readout(self.features, 2 * keypoints, normed=False)
        self.flow = RealNVP()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pictures (B, 3, h, w) -> positions and scales (B, K, 2)."""
        pooled = self.pool(x)
        return self.read(self.fc_coord, pooled), self.read(self.fc_sigma, pooled).sigmoid()

    def initialise(self, scheme: Initialisation, generator: torch.Generator) -> None:
        """Weights of both heads Xavier uniform with gain 0.01 under every scheme; the flow keeps torch's (released)."""
        for head in (self.fc_coord, self.fc_sigma):
            nn.init.xavier_uniform_(head.linear.weight, gain=0.01, generator=generator)


def rle_network(backbone: str, size: Size, fusion: Fusion, keypoints: int = len(COCO)) -> PoseNetwork[ScaledFractions]:
    """An untrained network."""
    return PoseNetwork(RLENetwork(backbone, size, fusion, keypoints), pack, mean=MEAN, std=STD)


def pack(output: tuple[Tensor, Tensor]) -> ScaledFractions:
    """Positions and scales -> prediction."""
    return ScaledFractions(*output)
