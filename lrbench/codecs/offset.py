"""Heatmap plus offset codec: a coarse cell from a heatmap, the rest of the way from an offset field.

The ancestor is G-RMI; UDP uses it with a disc and blurs, CAL with a Gaussian and neither. Letters: B batch,
K keypoints, H W cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lrbench.codecs import heatmap as hm
from lrbench.geometry import Grid
from lrbench.structures import Keypoints, mean


class OffsetMaps(NamedTuple):
    """What an offset network emits.

    Attributes:
        heatmap: (B, K, H, W).
        offset: (B, K, 2, H, W), x then y, from the cell to the joint, in units of `HeatmapOffset.unit` cells.
    """

    heatmap: Tensor
    offset: Tensor


@dataclass(frozen=True, kw_only=True)
class HeatmapOffset:
    """Peak cell plus the offset found there.

    Attributes:
        grid: the map.
        heatmap: target of the heatmap: ``disc`` (1 within `radius`) or ``gaussian`` (at the real position, whole map).
        sigma: of the Gaussian, in cells.
        radius: of the disc, in cells; offsets are supervised inside it.
        unit: cells per unit of the offset maps.
        reach: half side, in cells, of the window that has to touch the map for a keypoint to train; None for no test
            (UDP trains an empty class map for keypoints far outside).
        blur_heatmap: side of the Gaussian blur of the heatmap before its peak is sought; None for no blur.
        blur_offset: the same for both offset maps.
    """

    grid: Grid
    heatmap: Literal["disc", "gaussian"]
    sigma: float
    radius: float
    unit: float
    reach: int | None = None
    blur_heatmap: int | None = None
    blur_offset: int | None = None

    def __post_init__(self) -> None:
        hm.check_positive(radius=self.radius, unit=self.unit)
        if self.heatmap == "gaussian":
            hm.check_positive(sigma=self.sigma)

    def encode(self, keypoints: Tensor, visible: Tensor) -> tuple[OffsetMaps, Tensor]:
        """Ideal maps; the offsets are zero outside the disc, which `inside` gives back.

        Args:
            keypoints: (B, K, 2) px of the crop; computed in this dtype.
            visible: (B, K) above 0 where labelled.

        Returns:
            maps, float32, and weight (B, K) in {0, 1}; both maps are 0 where the weight is.
        """
        cells = hm.to_cells(self.grid, keypoints)
        weight = hm.labelled(visible)
        if self.reach is not None:
            weight = weight * hm.touches_map(self.grid, hm.nearest_cell(cells), self.reach, slack=0)
        dx, dy = hm.axis_distances(self.grid, cells)
        shape = (*dx.shape[:2], self.grid.size.height, self.grid.size.width)
        offset = torch.stack([-dx[..., None, :].expand(shape), -dy[..., :, None].expand(shape)], 2)
        disc = ((offset / self.radius).square().sum(2) <= 1) * weight[..., None, None]
        if self.heatmap == "disc":
            maps = disc
        else:
            maps = hm.gaussian(self.grid, cells, self.sigma, weight)
            # the released code drops what float32 could not tell from 0 beside the map's maximum
            maps = torch.where(maps < torch.finfo(torch.float32).eps * maps.amax((-2, -1), keepdim=True), 0.0, maps)
        return OffsetMaps(maps.float(), (offset / self.unit * disc[:, :, None]).float()), weight.float()

    def decode(self, prediction: OffsetMaps) -> Keypoints:
        """Positions in px of the crop; the score is the (blurred) heatmap at its peak."""
        hm.check_size(self.grid, prediction.heatmap)
        maps, offset = prediction.heatmap.double(), prediction.offset.double() * self.unit
        if self.blur_heatmap is not None:
            # rounded, so that a constant map stays one and its first cell wins
            maps = hm.blurred(maps, self.blur_heatmap, border="reflect").float()
        if self.blur_offset is not None:
            offset = hm.blurred(offset, self.blur_offset, border="reflect")
        cells, score = hm.peak(maps)
        x, y = cells.unbind(-1)
        step = torch.stack([hm.at(offset[:, :, 0], x, y), hm.at(offset[:, :, 1], x, y)], -1)
        return Keypoints(hm.to_px(self.grid, cells.to(step.dtype) + step).float(), score.float())

    def unflip(self, prediction: OffsetMaps, order: Tensor) -> OffsetMaps:
        """Undo a mirrored input: mirror maps, exchange left and right by `order` (K,), turn x offsets round."""
        shift = self.grid.mirror_shift
        heatmap = hm.mirror_maps(prediction.heatmap[:, order], shift)
        offset = hm.mirror_maps(prediction.offset[:, order], shift)
        return OffsetMaps(heatmap, offset * offset.new_tensor([-1.0, 1.0]).view(2, 1, 1))

    def average(self, plain: OffsetMaps, unflipped: OffsetMaps) -> OffsetMaps:
        """Mean of both, field by field."""
        return mean(plain, unflipped)


def inside(ideal: OffsetMaps) -> Tensor:
    """1 on the cells of the disc in which an ideal offset field is defined, else 0: (B, K, H, W).

    The field is zero outside the disc, and inside it only where a joint lies exactly on a cell; there a Gaussian
    heatmap is 1, as a disc is everywhere.
    """
    return ((ideal.offset != 0).any(2) | (ideal.heatmap == 1)).to(ideal.offset.dtype)


def interleaved(maps: Tensor) -> OffsetMaps:
    """(B, 3K, H, W), per keypoint class, x, y -> maps."""
    maps = maps.reshape(len(maps), -1, 3, *maps.shape[-2:])
    return OffsetMaps(maps[:, :, 0], maps[:, :, 1:])
