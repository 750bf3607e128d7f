"""G-RMI: a disc around every keypoint and offsets inside it, joined by Hough voting; the ancestor of UDP.

There is no official code: targets, losses and voting follow the paper as third parties describe it, on the trunks of
this benchmark instead of an atrous ResNet-101, with UDP's crop. Deviations: the disc keeps the paper's share of the
height (25 of 353 px), but not less than one cell; votes are collected on the pixels of the crop and read at the centre
of mass of the 3x3 pixels around the highest; no second loss on an intermediate layer; logits are counted from the
share of the map that a disc covers, so that training does not begin by unlearning one half for every cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lrbench.codecs import heatmap as hm
from lrbench.codecs.offset import HeatmapOffset, OffsetMaps, interleaved
from lrbench.geometry import Frame, Grid, Size
from lrbench.method import Method, Stage
from lrbench.models.backbone import Fusion
from lrbench.models.backbones import BACKBONES
from lrbench.models.heads import map_network
from lrbench.structures import Keypoints

PAPER = "Papandreou et al., CVPR 2017, arXiv:1701.01779"
REPORTED = ("G-RMI",)
"""Names under which papers report it."""

CERTAIN = 12.0
"""Logit of an ideal disc: its probabilities are 1 and 0 to five digits."""


@dataclass(frozen=True, kw_only=True)
class HoughVoting:
    """Every cell votes, with the probability of its disc, for the pixel its offset points to.

    Attributes:
        maps: encodes discs and offsets; offsets are in units of the radius.
    """

    maps: HeatmapOffset

    def encode(self, keypoints: Tensor, visible: Tensor) -> tuple[OffsetMaps, Tensor]:
        """Logits of the discs and offsets inside them.

        Args:
            keypoints: (B, K, 2) px of the crop.
            visible: (B, K) above 0 where labelled.

        Returns:
            maps, float32, and weight (B, K) in {0, 1}.
        """
        ideal, weight = self.maps.encode(keypoints, visible)
        return OffsetMaps(CERTAIN * (2 * ideal.heatmap - 1), ideal.offset), weight

    def decode(self, prediction: OffsetMaps) -> Keypoints:
        """Positions in px of the crop; the score is the share of a whole disc that votes for them."""
        votes, (left, top) = self.votes(prediction)
        # the sum over 3x3 pixels does not depend on where between the pixels the votes fall
        near = F.avg_pool2d(votes, 3, 1, 1, divisor_override=1)
        cells, score = hm.peak(near)
        x, y = cells.unbind(-1)
        moments = [torch.zeros_like(score) for _ in range(3)]
        height, width = votes.shape[-2:]
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                inside = (x + dx >= 0) & (x + dx < width) & (y + dy >= 0) & (y + dy < height)
                mass = hm.at(votes, x + dx, y + dy) * inside
                for i, value in enumerate((mass, dx * mass, dy * mass)):
                    moments[i] = moments[i] + value
        mass = moments[0].clamp_min(1e-12)
        xy = torch.stack([x + moments[1] / mass - left, y + moments[2] / mass - top], -1)
        return Keypoints(xy.float(), score.float())

    def votes(self, prediction: OffsetMaps) -> tuple[Tensor, tuple[int, int]]:
        """Votes on the pixels of the crop and of a margin around it, in parts of a whole disc.

        Returns:
            (B, K, height, width) float64, and the margin left and above, px.
        """
        grid = self.maps.grid
        hm.check_size(grid, prediction.heatmap)
        size = grid.frame.size
        weight = prediction.heatmap.double().sigmoid() / (math.pi * self.maps.radius**2)
        shape = weight.shape
        cells = torch.stack(
            torch.meshgrid(
                torch.arange(shape[-1], dtype=weight.dtype, device=weight.device),
                torch.arange(shape[-2], dtype=weight.dtype, device=weight.device),
                indexing="xy",
            ),
            -1,
        )
        offset = prediction.offset.double().permute(0, 1, 3, 4, 2) * self.maps.unit
        margin = max(grid.stride, math.ceil(self.maps.radius * grid.stride))
        target = hm.to_px(grid, cells + offset) + margin
        width, height = size.width + 2 * margin, size.height + 2 * margin
        votes = weight.new_zeros((*shape[:2], height * width))
        low = target.floor()
        for dy in (0, 1):
            for dx in (0, 1):
                corner = low + low.new_tensor([dx, dy])
                share = (1 - (target - corner).abs()).clamp_min(0).prod(-1)  # bilinear kernel
                x, y = corner.unbind(-1)
                inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
                index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
                votes.scatter_add_(2, index.long().flatten(2), (weight * share * inside).flatten(2))
        return votes.view(*shape[:2], height, width), (margin, margin)

    def unflip(self, prediction: OffsetMaps, order: Tensor) -> OffsetMaps:
        """Undo a mirrored input, as for any offset maps."""
        return self.maps.unflip(prediction, order)

    def average(self, plain: OffsetMaps, unflipped: OffsetMaps) -> OffsetMaps:
        """Mean of logits and offsets, cell by cell."""
        return self.maps.average(plain, unflipped)


def build(
    size: Size,
    backbone: str = "resnet101",
    radius: float | None = None,
    disc_weight: float = 4.0,
    offset_weight: float = 1.0,
    fusion: Fusion = "auto",
) -> Method[OffsetMaps]:
    """Compose G-RMI.

    Args:
        size: of the crop.
        backbone: of the network.
        radius: of the disc, and unit of the offsets, cells; 25 / 353 of the map's height, but at least 1.
        disc_weight, offset_weight: of the two losses; the paper has 4 and 1.
        fusion: see `lrbench.models.backbone.Fusion`.
    """
    fusion = BACKBONES[backbone].resolve_fusion(fusion, size)
    frame = Frame(size, "corner")
    grid = Grid(frame, stride=4)
    radius = max(1.0, 25 / 353 * grid.size.height) if radius is None else radius
    maps = HeatmapOffset(grid=grid, heatmap="disc", sigma=0.0, radius=radius, unit=radius)
    share = min(0.5, math.pi * radius**2 / (grid.size.height * grid.size.width))
    pack = partial(above, level=math.log(share / (1 - share)))
    loss = partial(grmi_loss, disc_weight=disc_weight, offset_weight=offset_weight)
    return Method(
        name="grmi",
        paper=PAPER,
        backbone=backbone,
        frame=frame,
        codec=HoughVoting(maps=maps),
        build_model=partial(map_network, backbone=backbone, size=size, fusion=fusion, pack=pack, per_keypoint=3),
        stages=(Stage(epochs=210, loss=loss, milestones=(170, 200)),),
        settings={"radius": radius, "fusion": fusion},
    )


def above(maps: Tensor, level: float) -> OffsetMaps:
    """(B, 3K, H, W), per keypoint disc, x, y -> maps, the logits of the discs counted from a level."""
    heatmap, offset = interleaved(maps)
    return OffsetMaps(heatmap + level, offset)


def grmi_loss(
    prediction: OffsetMaps, ideal: OffsetMaps, weight: Tensor, *, disc_weight: float, offset_weight: float
) -> dict[str, Tensor]:
    """Logistic loss of the discs on all cells, Huber loss of the offsets inside them; means over all cells.

    Args:
        prediction, ideal: logits (B, K, H, W), offset (B, K, 2, H, W).
        weight: (B, K) in {0, 1}.
        disc_weight, offset_weight: see `build`.
    """
    disc = (ideal.heatmap > 0).to(prediction.heatmap.dtype)
    logistic = F.binary_cross_entropy_with_logits(prediction.heatmap, disc, reduction="none")
    huber = F.huber_loss(prediction.offset, ideal.offset, reduction="none").sum(2)
    where = weight[..., None, None]
    return {
        "disc": disc_weight * (where * logistic).mean(),
        "offset": offset_weight * (where * disc * huber).mean(),
    }
