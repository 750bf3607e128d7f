"""Debiased integral regression: soft-argmax whose pull towards the middle of the map is computed and undone.

The background cells of a softmaxed map keep probability and draw the expectation to the centre. Compensation, losses
and numbers are those of mmpose, the only code at hand; its formula removes the mass of one background cell. Below 192
rows the Gaussian that the map is drawn towards is one cell wide, not two, and lies on the keypoint, not on the nearest
cell, which would be up to half a cell of four px away from the coordinate target. Scores are the probability within two
cells of the position; mmpose scores every keypoint 1.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from lrbench.codecs.integral import Integral, SoftMaps, js_divergence
from lrbench.geometry import Frame, Grid, Size
from lrbench.method import Method, Stage
from lrbench.models.backbone import Fusion
from lrbench.models.backbones import BACKBONES
from lrbench.models.heads import map_network

PAPER = "Gu et al., ICCV 2021"
REPORTED = ("Debiased-IPR", "Debias-IPR (beta 10, SmoothL1 + JS)")
"""Names under which papers report it."""


def build(
    size: Size,
    backbone: str = "resnet50",
    sigma: float | None = None,
    center: Literal["exact", "rounded"] | None = None,
    beta: float = 10.0,
    fusion: Fusion = "auto",
) -> Method[SoftMaps]:
    """Compose debiased integral regression.

    Args:
        size: of the crop.
        backbone: of the network.
        sigma: of the Gaussian that the map is drawn towards, cells; mmpose: 2, here 1 below 192 rows.
        center: of that Gaussian; mmpose: ``rounded`` to a cell, here ``exact`` below 192 rows.
        beta: factor of the logits before the softmax; mmpose: 10.
        fusion: see `lrbench.models.backbone.Fusion`.
    """
    fusion = BACKBONES[backbone].resolve_fusion(fusion, size)
    low = size.height < 192
    sigma = (1.0 if low else 2.0) if sigma is None else sigma
    center = ("exact" if low else "rounded") if center is None else center
    frame = Frame(size, "biased")
    codec = Integral(
        grid=Grid(frame, stride=4), sigma=sigma, center=center, beta=beta, compensate=True, flip="coordinates"
    )
    return Method(
        name="debias",
        paper=PAPER,
        backbone=backbone,
        frame=frame,
        codec=codec,
        build_model=partial(map_network, backbone=backbone, size=size, fusion=fusion, pack=codec.emit),
        stages=(Stage(epochs=210, loss=partial(debias_loss, codec=codec), learning_rate=5e-4, milestones=(170, 200)),),
        batch=512,
        settings={"sigma": sigma, "center": center, "fusion": fusion},
    )


def debias_loss(prediction: SoftMaps, ideal: SoftMaps, weight: Tensor, *, codec: Integral) -> dict[str, Tensor]:
    """Smooth L1 of coordinates in units of the crop, averaged, and the divergence of the maps, summed per person.

    Args:
        prediction, ideal: logits (B, K, H, W), xy (B, K, 2) px.
        weight: (B, K) in {0, 1}.
        codec: whose softmax is taken.
    """
    size = codec.grid.frame.size
    unit = weight[..., None] / prediction.xy.new_tensor([size.width, size.height])
    position = F.smooth_l1_loss(prediction.xy * unit, ideal.xy * unit)
    divergence = js_divergence(codec.probability(prediction.logits), codec.probability(ideal.logits))
    return {"position": position, "divergence": (weight * divergence).sum(-1).mean()}
