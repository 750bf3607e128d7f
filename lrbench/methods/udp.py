"""UDP: crops aligned by pixel centres, a class disc and offsets (or a Gaussian) as targets.

Two forms are released: ``offset`` ("combined" target, with a widened last fusion) and ``gaussian``. Deviation: the
released 15x15 and 7x7 blurs and the radius of 4 cells belong to a 64x48 map and destroy a 16x12 one, so below 256x192
radius and blur shrink with the map and the offsets are not blurred; `radius`, `blur_heatmap` and `blur_offset` bring
the released numbers back.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from torch import Tensor

from lrbench.codecs.heatmap import Heatmap, Heatmaps, Refinement, argmax, default_sigma, taylor_step_udp
from lrbench.codecs.offset import HeatmapOffset, OffsetMaps, interleaved
from lrbench.geometry import Frame, Grid, Size
from lrbench.losses import heatmap_loss, weighted_mse
from lrbench.method import Method, Stage
from lrbench.models.backbone import Fusion
from lrbench.models.backbones import BACKBONES
from lrbench.models.heads import MapNetwork, map_network
from lrbench.models.hrnet import HRNetSpec
from lrbench.models.network import PoseNetwork
from lrbench.structures import COCO

PAPER = "Huang et al., CVPR 2020, arXiv:1911.07524"
REPORTED: dict[str, dict[str, object]] = {
    "UDP": {},
    "UDP(offset)": {"form": "offset"},
    "UDP(gaussian)": {"form": "gaussian"},
    "UDPv1": {"form": "offset", "radius": 3.5},
}
"""Names under which papers report it, and the settings they stand for."""


def build(
    size: Size,
    backbone: str = "hrnet_w32",
    form: Literal["offset", "gaussian"] = "offset",
    radius: float | None = None,
    blur_heatmap: int | None = None,
    blur_offset: int | None = None,
    sigma: float | None = None,
    fusion: Fusion = "auto",
) -> Method[Any]:
    """Compose UDP.

    Args:
        size: of the crop.
        backbone: of the network.
        form: of the targets.
        radius: of the disc, and unit of the offsets, cells; released 4.0.
        blur_heatmap: side of the blur before the peak is sought, 0 for none; released 15 (``gaussian``: 7).
        blur_offset: side of the blur of the offset maps, 0 for none; released 7.
        sigma: of the Gaussian form, cells.
        fusion: see `lrbench.models.backbone.Fusion`.
    """
    fusion = BACKBONES[backbone].resolve_fusion(fusion, size)
    frame = Frame(size, "corner")
    grid = Grid(frame, stride=4)
    stages: tuple[Stage[Any], ...]
    if form == "gaussian":
        sigma = default_sigma(size) if sigma is None else sigma
        blur = 7 if blur_heatmap is None else blur_heatmap
        refine: Refinement = partial(taylor_step_udp, blur=blur) if blur else argmax
        codec: Any = Heatmap(grid=grid, sigma=sigma, center="exact", window=True, refine=refine)
        network: Any = partial(map_network, backbone=backbone, size=size, fusion=fusion, pack=Heatmaps)
        stages = (Stage(epochs=210, loss=heatmap_loss, milestones=(170, 200)),)
        settings: dict[str, Any] = {"sigma": sigma, "blur_heatmap": blur}
    else:
        released = size.height >= 256
        # 3.5 cells on a 64-row map, in proportion below, not under 1.5
        radius = (4.0 if released else max(1.5, 3.5 * grid.size.height / 64)) if radius is None else radius
        blur = (15 if released else 2 * round(radius) + 1) if blur_heatmap is None else blur_heatmap
        blur_offset = (7 if released else 0) if blur_offset is None else blur_offset
        codec = HeatmapOffset(
            grid=grid,
            heatmap="disc",
            sigma=0.0,
            radius=radius,
            unit=radius,
            blur_heatmap=blur or None,
            blur_offset=blur_offset or None,
        )
        network = partial(offset_network, backbone=backbone, size=size, fusion=fusion)
        stages = (Stage(epochs=210, loss=offset_loss, milestones=(170, 200)),)
        settings = {"radius": radius, "blur_heatmap": blur, "blur_offset": blur_offset}
    return Method(
        name="udp",
        paper=PAPER,
        backbone=backbone,
        frame=frame,
        codec=codec,
        build_model=network,
        stages=stages,
        settings={**settings, "fusion": fusion},
    )


def offset_loss(prediction: OffsetMaps, ideal: OffsetMaps, weight: Tensor) -> dict[str, Tensor]:
    """Squared error of the class map everywhere, of the offsets inside the disc (released UDP code).

    Each term is 0.5 of a mean over all pixels; x and y are two terms, hence the factor 2 on their joint mean.
    """
    disc = ideal.heatmap[:, :, None]
    offset = (disc * (prediction.offset - ideal.offset)).square().mean()
    return {"heatmap": weighted_mse(prediction.heatmap, ideal.heatmap, weight), "offset": 0.5 * 2 * offset}


def offset_network(backbone: str, size: Size, fusion: Fusion, keypoints: int = len(COCO)) -> PoseNetwork[OffsetMaps]:
    """Three maps per keypoint; HRNet's last fusion is four times as wide (released UDP code)."""
    spec = BACKBONES[backbone]
    if not isinstance(spec, HRNetSpec):
        return map_network(backbone, size, fusion, interleaved, per_keypoint=3, keypoints=keypoints)
    network = MapNetwork(spec.finest(size, fusion, widen=True), 3 * keypoints)
    return PoseNetwork(network, interleaved)
