"""HRNet: high resolution throughout the network, Gaussian heatmaps around the nearest cell, a quarter-cell step."""

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

PAPER = "Sun et al., CVPR 2019, arXiv:1902.09212"
REPORTED: dict[str, dict[str, object]] = {
    "HRNet": {},
    "HRNet, biased encoding, 0.25 shift": {"step": "quarter"},
    "HRNet, biased encoding, argmax only (no shift)": {"step": "none"},
    "Simple head": {},
}
"""Names under which papers report it, and the settings they stand for."""


def build(
    size: Size,
    backbone: str = "hrnet_w32",
    sigma: float | None = None,
    step: Literal["quarter", "none"] = "quarter",
    fusion: Fusion = "auto",
) -> Method[Heatmaps]:
    """Compose HRNet.

    Args:
        size: of the crop.
        backbone: of the network.
        sigma: of the targets, cells; released: 2 at 256x192, 3 at 384x288; 1 below 192x144, as DARK has it at 128x96.
        step: ``quarter`` moves a decoded peak a quarter cell toward its higher neighbour, as released.
        fusion: see `lrbench.models.backbone.Fusion`.
    """
    sigma = default_sigma(size) if sigma is None else sigma
    fusion = BACKBONES[backbone].resolve_fusion(fusion, size)
    frame = Frame(size, "biased")
    refine = quarter_step if step == "quarter" else argmax
    return Method(
        name="hrnet",
        paper=PAPER,
        backbone=backbone,
        frame=frame,
        codec=Heatmap(grid=Grid(frame, stride=4), sigma=sigma, center="rounded", window=True, refine=refine),
        build_model=partial(map_network, backbone=backbone, size=size, fusion=fusion, pack=Heatmaps),
        stages=(Stage(epochs=210, loss=heatmap_loss, milestones=(170, 200)),),
        settings={"sigma": sigma, "fusion": fusion},
    )
