"""DARK: unbiased Gaussian targets, and a Newton step on the logarithm of the smoothed heatmap.

The alignment is the released code's own, which the paper does not mention; its flip test needs no shift.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from lrbench.codecs.heatmap import Heatmap, Heatmaps, default_blur, default_sigma, taylor_step
from lrbench.geometry import Frame, Grid, Size
from lrbench.losses import heatmap_loss
from lrbench.method import Method, Stage
from lrbench.models.backbone import Fusion
from lrbench.models.backbones import BACKBONES
from lrbench.models.heads import map_network

PAPER = "Zhang et al., CVPR 2020, arXiv:1910.06278"
REPORTED = ("DARK", "HRNet+DARK", "SimpleBaseline+DARK", "HRNet+DARK (unbiased encoding, DARK decoding)")
"""Names under which papers report it."""


def build(
    size: Size,
    backbone: str = "hrnet_w32",
    sigma: float | None = None,
    blur: int | None = None,
    guard: Literal["published", "padded"] = "published",
    fusion: Fusion = "auto",
) -> Method[Heatmaps]:
    """Compose DARK.

    Args:
        size: of the crop.
        backbone: of the network.
        sigma: of the targets, cells; released: 1 at 128x96, 2 at 256x192, 3 at 384x288.
        blur: side of the smoothing kernel, see `lrbench.codecs.heatmap.default_blur`.
        guard: see `lrbench.codecs.heatmap.taylor_step`.
        fusion: see `lrbench.models.backbone.Fusion`.
    """
    sigma = default_sigma(size) if sigma is None else sigma
    blur = default_blur(size) if blur is None else blur
    fusion = BACKBONES[backbone].resolve_fusion(fusion, size)
    frame = Frame(size, "dark")
    refine = partial(taylor_step, blur=blur, guard=guard)
    return Method(
        name="dark",
        paper=PAPER,
        backbone=backbone,
        frame=frame,
        codec=Heatmap(grid=Grid(frame, stride=4), sigma=sigma, center="exact", window=False, refine=refine),
        build_model=partial(map_network, backbone=backbone, size=size, fusion=fusion, pack=Heatmaps),
        stages=(Stage(epochs=210, loss=heatmap_loss, milestones=(170, 200)),),
        settings={"sigma": sigma, "blur": blur, "fusion": fusion},
    )
