"""Heatmap plus offset codec: a coarse cell from a heatmap, the rest of the way from an offset field.

The ancestor is G-RMI; UDP uses it with a disc and blurs, CAL with a Gaussian and neither. Letters: B batch,
K keypoints, H W cells.
"""

from __future__ import annotations

import math
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
        # no cell is within reach of a keypoint that does not train
        across = (dy / self.radius).square().masked_fill((weight == 0)[..., None], torch.inf)
        disc = (across[..., :, None] + (dx / self.radius).square()[..., None, :]).le_(1).float()
        offset = disc.new_empty(*disc.shape[:2], 2, *disc.shape[2:])
        torch.mul((-dx / self.unit).float()[..., None, :], disc, out=offset[:, :, 0])
        torch.mul((-dy / self.unit).float()[..., :, None], disc, out=offset[:, :, 1])
        if self.heatmap == "disc":
            return OffsetMaps(disc, offset), weight.float()
        # what is dropped below need not be computed: exponentials that underflow are slow, and at sigma 0.3 most would
        far = math.inf if self.reach is None else math.hypot(self.reach + 1.5, 6 * self.sigma)
        x, y = (hm.gaussian(distance.clamp(-far, far), self.sigma) for distance in (dx, dy))
        y = y * weight[..., None]
        maps = hm.outer(x, y)
        # the released code drops what float32 could not tell from 0 beside the map's maximum
        least = torch.finfo(torch.float32).eps * (x.amax(-1) * y.amax(-1))
        maps *= maps.clone().ge_(least[..., None, None])
        return OffsetMaps(maps.float(), offset), weight.float()

    def decode(self, prediction: OffsetMaps) -> Keypoints:
        """Positions in px of the crop; the score is the (blurred) heatmap at its peak."""
        hm.check_size(self.grid, prediction.heatmap)
        return hm.in_parts(self._decode, prediction)

    def _decode(self, prediction: OffsetMaps) -> Keypoints:
        maps = prediction.heatmap
        if self.blur_heatmap is not None:
            # rounded, so that a constant map stays one and its first cell wins
            maps = hm.blurred(maps, self.blur_heatmap, border="reflect").float()
        cells, score = hm.peak(maps)
        x, y = cells[..., 0:1], cells[..., 1:2]  # of both offsets
        if self.blur_offset is None:
            step = hm.at(prediction.offset, x, y).double()
        else:
            step = hm.blurred_at(prediction.offset, x, y, self.blur_offset)
        return Keypoints(hm.to_px(self.grid, cells + step * self.unit).float(), score.float())

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
    x, y = ideal.offset.unbind(2)
    return ((x != 0) | (y != 0) | (ideal.heatmap == 1)).to(ideal.offset.dtype)


def interleaved(maps: Tensor) -> OffsetMaps:
    """(B, 3K, H, W), per keypoint class, x, y -> maps."""
    maps = maps.reshape(len(maps), -1, 3, *maps.shape[-2:])
    return OffsetMaps(maps[:, :, 0], maps[:, :, 1:])
