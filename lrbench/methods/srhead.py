"""SR head: a large kernel per keypoint and pixel shuffle turn stride-4 features into heatmaps as fine as the crop.

The drop-in head of the SRPose paper on any backbone, without its neck; a map of full resolution leaves hardly any
quantisation error. Training is SRPose's, with one loss instead of five. Deviations: the batch of 64 is our reading of
32 per GPU on an unknown number of GPUs; warm-up and augmentation are the recipe's; the mirrored map is not shifted in
the flip test (``flip_shift=released`` shifts it by one px, which puts half a px of bias into the mean); keypoints
without a positive value go to (0, 0), as elsewhere.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor

from lrbench.codecs.heatmap import Heatmaps
from lrbench.codecs.superresolved import default_sigma, superresolved
from lrbench.geometry import Frame, Size
from lrbench.losses import weighted_mse
from lrbench.method import Method, Stage
from lrbench.models.backbone import Fusion
from lrbench.models.backbones import BACKBONES
from lrbench.models.network import PoseNetwork
from lrbench.models.sr_head import SRHead
from lrbench.structures import COCO

PAPER = "Wang et al., ACM MM 2023, arXiv:2307.16765"
REPORTED = ("SR head",)
"""Names under which papers report it."""


def build(
    size: Size,
    backbone: str = "hrnet_w32",
    sigma: float | None = None,
    step: Literal["quarter", "none"] = "quarter",
    flip_shift: Literal["exact", "released"] = "exact",
    fusion: Fusion = "auto",
) -> Method[Heatmaps]:
    """Compose a backbone with the SR head.

    Args:
        size: of the crop.
        backbone: of the network; ResNets come with their three deconvolutions.
        sigma: of the targets, px; 4 up to 128 rows, 6 at 192, 8 at 256 (released), 12 at 384.
        step: ``quarter`` moves a decoded peak a quarter px toward its higher neighbour, as released; ``none`` is
            "w/o Post." in the released tables.
        flip_shift: of the mirrored map; ``exact`` none, ``released`` one px.
        fusion: see `lrbench.models.backbone.Fusion`.
    """
    sigma = default_sigma(size) if sigma is None else sigma
    fusion = BACKBONES[backbone].resolve_fusion(fusion, size)
    frame = Frame(size, "biased")
    return Method(
        name="srhead",
        paper=PAPER,
        backbone=backbone,
        frame=frame,
        codec=superresolved(frame, sigma, step, flip_shift),
        build_model=partial(sr_head_network, backbone=backbone, size=size, fusion=fusion),
        stages=(Stage(epochs=210, loss=sr_head_loss, learning_rate=5e-4, milestones=(170, 200)),),
        batch=64,
        settings={"sigma": sigma, "fusion": fusion},
    )


def sr_head_network(backbone: str, size: Size, fusion: Fusion, keypoints: int = len(COCO)) -> PoseNetwork[Heatmaps]:
    """The stride-4 map of a backbone under the head."""
    return PoseNetwork(SRHead(BACKBONES[backbone].finest(size, fusion), keypoints), Heatmaps)


def sr_head_loss(prediction: Heatmaps, ideal: Heatmaps, weight: Tensor) -> dict[str, Tensor]:
    """Mean squared error of heatmaps (B, K, h, w), without a factor 1/2 (released code); weight (B, K)."""
    return {"heatmap": 2 * weighted_mse(prediction.heatmap, ideal.heatmap, weight)}
