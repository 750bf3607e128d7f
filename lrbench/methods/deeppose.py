"""DeepPose: joint positions regressed directly from pooled features, by a plain loss; the baseline of RLE's tables.

Toshev & Szegedy, "DeepPose: Human Pose Estimation via Deep Neural Networks", CVPR 2014, arXiv:1312.4659, in the form
that today's tables call "plain regression": mmpose's SmoothL1 on coordinates in [0, 1]. The cascade of the paper, its
AlexNet and its L2 loss are left out. The network has no confidence: every keypoint scores 1, as in mmpose, so that a
person scores what its box does. Deviations: no warm-up; RLE's name of the head; HRNets pool all their branches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrbench.codecs.regression import CropFractions, Fractions
from lrbench.geometry import Frame, Size
from lrbench.method import Method, Stage
from lrbench.models.backbone import Fusion
from lrbench.models.backbones import BACKBONES
from lrbench.models.network import Initialisation, PoseNetwork
from lrbench.models.regression import PooledRegression
from lrbench.structures import COCO, Keypoints, mean

PAPER = "Toshev & Szegedy, CVPR 2014, arXiv:1312.4659"
REPORTED = ("DeepPose regression", "DeepPose regression (SmoothL1)")
"""Names under which papers report it."""


def build(size: Size, backbone: str = "resnet50", fusion: Fusion = "auto") -> Method[Fractions]:
    """Compose plain regression.

    Args:
        size: of the crop.
        backbone: of the network; the paper's is AlexNet, mmpose's tables use ResNets.
        fusion: see `lrbench.models.backbone.Fusion`; it matters for HRNets only.
    """
    fusion = BACKBONES[backbone].resolve_fusion(fusion, size)
    return Method(
        name="deeppose",
        paper=PAPER,
        backbone=backbone,
        frame=Frame(size, "biased"),
        codec=PlainRegression(unit=CropFractions(size=size, origin=0.0)),
        build_model=partial(deeppose_network, backbone=backbone, size=size, fusion=fusion),
        stages=(Stage(epochs=210, loss=smooth_l1, milestones=(170, 200)),),
        batch=512,
        settings={"fusion": fusion},
    )


@dataclass(frozen=True, kw_only=True)
class PlainRegression:
    """Positions as fractions, no confidence.

    Attributes:
        unit: of the positions.
    """

    unit: CropFractions

    def encode(self, keypoints: Tensor, visible: Tensor) -> tuple[Fractions, Tensor]:
        """The positions themselves; keypoints outside the crop do not train (mmpose).

        Args:
            keypoints: (B, K, 2) px of the crop; computed in this dtype.
            visible: (B, K) above 0 where labelled.

        Returns:
            fractions, float32, and weight (B, K) in {0, 1}.
        """
        last = keypoints.new_tensor([self.unit.size.width - 1, self.unit.size.height - 1])
        inside = ((keypoints >= 0) & (keypoints <= last)).all(-1)
        return Fractions(self.unit.from_px(keypoints).float()), ((visible > 0) & inside).float()

    def decode(self, prediction: Fractions) -> Keypoints:
        """Positions in px of the crop, scores 1."""
        xy = self.unit.to_px(prediction.uv).float()
        return Keypoints(xy, torch.ones_like(xy[..., 0]))

    def unflip(self, prediction: Fractions, order: Tensor) -> Fractions:
        """Undo a mirrored input; `order` (K,) exchanges left and right."""
        return Fractions(self.unit.mirrored(prediction.uv[:, order]))

    def average(self, plain: Fractions, unflipped: Fractions) -> Fractions:
        """Mean of the positions."""
        return mean(plain, unflipped)


def smooth_l1(prediction: Fractions, ideal: Fractions, weight: Tensor) -> dict[str, Tensor]:
    """SmoothL1 with beta 1 of weighted fractions, mean over everything, unlabelled keypoints included (mmpose).

    Fractions differ by less than 1, so it is half a squared error almost everywhere.
    """
    w = weight[..., None]
    return {"position": F.smooth_l1_loss(w * prediction.uv, w * ideal.uv, beta=1.0)}


class DeepPoseNetwork(PooledRegression):
    """Positions (B, K, 2) in fractions of the crop.

    Args:
        backbone, size, fusion, keypoints: see `PooledRegression`.
    """

    def __init__(self, backbone: str, size: Size, fusion: Fusion, keypoints: int = len(COCO)) -> None:
        super().__init__(backbone, size, fusion, normed=False, keypoints=keypoints)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pictures (B, 3, h, w) -> (B, K, 2)."""
        return self.read(self.fc_coord, self.pool(x))

    def initialise(self, scheme: Initialisation, generator: torch.Generator) -> None:
        """The head N(0, 0.01) without bias, under every scheme (mmpose)."""
        nn.init.normal_(self.fc_coord.linear.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.fc_coord.linear.bias)


def deeppose_network(backbone: str, size: Size, fusion: Fusion, keypoints: int = len(COCO)) -> PoseNetwork[Fractions]:
    """An untrained network."""
    return PoseNetwork(DeepPoseNetwork(backbone, size, fusion, keypoints), Fractions)
