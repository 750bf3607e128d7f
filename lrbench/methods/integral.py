"""Integral regression: the expected position under a softmaxed heatmap, differentiable and without quantisation.

Two papers, two forms: ``ipr`` (Sun et al.: L1 on coordinates, coordinates averaged over the flip) and ``dsnt`` (Nibali
et al.: cells tile the crop, the map is drawn towards a Gaussian by the Jensen-Shannon divergence, logits averaged).
Deviations: trained by Adam on COCO (the releases use MPII and Human3.6M); `distance` is L1 in cells by default, which
keeps the coordinate term alive at low resolution, ``euclidean`` is DSNT's own. Scores are the probability within two
cells of the position; mmpose scores every keypoint 1.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor

from lrbench.codecs.integral import Integral, SoftMaps, js_divergence
from lrbench.geometry import Frame, Grid, Size
from lrbench.method import Method, Stage
from lrbench.models.backbone import Fusion
from lrbench.models.backbones import BACKBONES
from lrbench.models.heads import map_network

PAPER = "Sun et al., ECCV 2018, arXiv:1711.08229; Nibali et al., 2018, arXiv:1801.07372"
REPORTED: dict[str, dict[str, object]] = {
    "DSNT": {},
    "DSNT (soft-argmax, SmoothL1 + JS)": {},
    "IPR": {"form": "ipr"},
    "IPR (integral pose regression)": {"form": "ipr"},
    "IPR (soft-argmax, SmoothL1 + heatmap MSE)": {"form": "ipr"},
    "IPR (quoted by CAL paper)": {"form": "ipr"},
}
"""Names under which papers report it, and the settings they stand for."""

Distance = Literal["l1", "euclidean"]


def build(
    size: Size,
    backbone: str = "resnet50",
    form: Literal["dsnt", "ipr"] = "dsnt",
    distance: Distance = "l1",
    divergence_weight: float | None = None,
    sigma: float = 1.0,
    beta: float = 1.0,
    fusion: Fusion = "auto",
) -> Method[SoftMaps]:
    """Compose integral regression.

    Args:
        size: of the crop.
        backbone: of the network.
        form: see the file's first lines.
        distance: between coordinates: ``l1`` in cells, or ``euclidean`` in units of half the crop (DSNT).
        divergence_weight: of the Jensen-Shannon term; 1 for ``dsnt``, 0 for ``ipr``.
        sigma: of the Gaussian that the map is drawn towards, cells; released DSNT: 1.
        beta: factor of the logits before the softmax.
        fusion: see `lrbench.models.backbone.Fusion`.
    """
    fusion = BACKBONES[backbone].resolve_fusion(fusion, size)
    divergence_weight = (1.0 if form == "dsnt" else 0.0) if divergence_weight is None else divergence_weight
    frame = Frame(size, "biased")
    codec = Integral(
        grid=Grid(frame, stride=4, tiled=form == "dsnt"),
        sigma=sigma,
        beta=beta,
        flip="logits" if form == "dsnt" else "coordinates",
    )
    loss = partial(integral_loss, codec=codec, distance=distance, divergence_weight=divergence_weight)
    schedule = {"dsnt": (120, (60, 90)), "ipr": (300, (270, 290))}
    epochs, milestones = schedule[form]
    return Method(
        name="integral",
        paper=PAPER,
        backbone=backbone,
        frame=frame,
        codec=codec,
        build_model=partial(map_network, backbone=backbone, size=size, fusion=fusion, pack=codec.emit),
        stages=(Stage(epochs=epochs, loss=loss, milestones=milestones),),
        batch=32 if form == "dsnt" else 128,
        settings={"divergence_weight": divergence_weight, "fusion": fusion},
    )


def integral_loss(
    prediction: SoftMaps,
    ideal: SoftMaps,
    weight: Tensor,
    *,
    codec: Integral,
    distance: Distance,
    divergence_weight: float,
) -> dict[str, Tensor]:
    """Distance of the expected positions and divergence of the maps, both averaged over labelled keypoints.

    Args:
        prediction, ideal: logits (B, K, H, W), xy (B, K, 2) px.
        weight: (B, K) in {0, 1}.
        codec: whose grid gives the units, and whose softmax is taken.
        distance: see `build`.
        divergence_weight: see `build`.
    """
    away = prediction.xy - ideal.xy
    if distance == "l1":
        length = (away / away.new_tensor(codec.grid.pitch)).abs().sum(-1)
    else:
        size = codec.grid.frame.size
        # the small constant keeps the gradient of the root finite where prediction and label agree
        length = ((2 * away / away.new_tensor([size.width, size.height])).square().sum(-1) + 1e-12).sqrt()
    count = weight.sum().clamp_min(1)
    terms = {"position": (weight * length).sum() / count}
    if divergence_weight:
        divergence = js_divergence(codec.probability(prediction.logits), codec.probability(ideal.logits))
        terms["divergence"] = divergence_weight * (weight * divergence).sum() / count
    return terms
