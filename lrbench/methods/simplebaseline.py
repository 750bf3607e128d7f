"""SimpleBaseline: a ResNet and three deconvolutions are enough for heatmaps."""

from __future__ import annotations

from functools import partial
from typing import Literal

from lrbench.codecs.heatmap import Heatmap, Heatmaps, argmax, default_sigma, quarter_step
from lrbench.geometry import Frame, Grid, Size
from lrbench.losses import heatmap_loss
from lrbench.method import Method, Stage
from lrbench.models.backbone import Fusion
from lrbench.models.backbones import BACKBONES
from lrbench.models.heads import map_network

PAPER = "Xiao et al., ECCV 2018, arXiv:1804.06208"
REPORTED = ("SimpleBaseline", "Simple Baseline", "Simple head", "SimBa")
"""Names under which papers report it."""


def build(
    size: Size,
    backbone: str = "resnet50",
    sigma: float | None = None,
    step: Literal["quarter", "none"] = "quarter",
    colour: Literal["rgb", "bgr"] = "rgb",
    fusion: Fusion = "auto",
) -> Method[Heatmaps]:
    """Compose SimpleBaseline.

    Args:
        size: of the crop.
        backbone: of the network.
        sigma: of the targets, cells; released: 2 at 256x192, 3 at 384x288; 1 below 192x144, as DARK has it at 128x96.
        step: ``quarter`` moves a decoded peak a quarter cell toward its higher neighbour, as released.
        colour: ``bgr`` for the official checkpoints, which were trained on BGR pictures with the statistics of RGB.
        fusion: see `lrbench.models.backbone.Fusion`.
    """
    sigma = default_sigma(size) if sigma is None else sigma
    fusion = BACKBONES[backbone].resolve_fusion(fusion, size)
    frame = Frame(size, "biased")
    refine = quarter_step if step == "quarter" else argmax
    return Method(
        name="simplebaseline",
        paper=PAPER,
        backbone=backbone,
        frame=frame,
        codec=Heatmap(grid=Grid(frame, stride=4), sigma=sigma, center="rounded", window=True, refine=refine),
        build_model=partial(
            map_network, backbone=backbone, size=size, fusion=fusion, pack=Heatmaps, bgr=colour == "bgr"
        ),
        stages=(Stage(epochs=140, loss=heatmap_loss, milestones=(90, 120)),),
        settings={"sigma": sigma, "fusion": fusion},
    )
