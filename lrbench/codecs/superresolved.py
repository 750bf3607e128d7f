"""Super-resolved heatmap codec: Gaussian targets as fine as the crop, and their coarser copies for supervision.

Released code followed: SRPose (arXiv:2307.16765). One deviation: a keypoint without a positive value is put on cell
(0, 0), as in all other released code, where SRPose's takes the maximum of the bottom-right block of 16x16 cells; its
search in blocks, which needs sides that are multiples of 16, is an argmax everywhere else. Letters: B batch,
K keypoints, h w px and cells alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from lrbench.codecs import heatmap as hm
from lrbench.codecs.heatmap import Heatmaps
from lrbench.geometry import Frame, Grid, Size
from lrbench.structures import Keypoints, mean


class LevelMaps(NamedTuple):
    """What a network with heads on several levels emits; only the first map is decoded.

    In eval mode the others are not computed: their sides are 0.

    Attributes:
        heatmap: (B, K, h, w), from the stride-4 level.
        low: (B, K, h / 32, w / 32), sides rounded up, after a ReLU.
        level5, level4, level3: (B, K, h / 4, w / 4), from the levels of stride 32, 16 and 8.
    """

    heatmap: Tensor
    low: Tensor
    level5: Tensor
    level4: Tensor
    level3: Tensor


@dataclass(frozen=True, kw_only=True)
class SuperResolved:
    """Gaussian bumps around the nearest pixel in, peaks out.

    Attributes:
        grid: the map, of stride 1.
        sigma: width of the Gaussian, px; it is cut off 3 sigma from its centre.
        refine: how the peak becomes a position.
        shift: px by which a mirrored map moves right.
    """

    grid: Grid
    sigma: float
    refine: hm.Refinement
    shift: int

    def __post_init__(self) -> None:
        hm.check_positive(sigma=self.sigma)

    def encode(self, keypoints: Tensor, visible: Tensor) -> tuple[Heatmaps, Tensor]:
        """Ideal heatmaps of labelled keypoints.

        Args:
            keypoints: (B, K, 2) px of the crop; computed in this dtype.
            visible: (B, K) above 0 where labelled.

        Returns:
            maps (B, K, h, w) float32 and weight (B, K) in {0, 1}, 0 where the Gaussian lies outside the crop.
        """
        nearest, half = hm.nearest_cell(hm.to_cells(self.grid, keypoints)), int(3 * self.sigma)
        weight = hm.labelled(visible) * hm.touches_map(self.grid, nearest, half, slack=1)
        distances = hm.axis_distances(self.grid, nearest.to(keypoints.dtype))
        x, y = (hm.gaussian(distance, self.sigma) for distance in distances)
        near_x, near_y = hm.window(self.grid, nearest, half)
        maps = hm.outer(x * near_x, y * near_y * weight[..., None])
        return Heatmaps(maps.float()), weight.float()

    def decode(self, prediction: Heatmaps) -> Keypoints:
        """Positions in px of the crop; the score is the value of the map at its peak."""
        hm.check_size(self.grid, prediction.heatmap)
        cells, score = hm.peak(prediction.heatmap)
        return Keypoints(hm.to_px(self.grid, self.refine(prediction.heatmap, cells)).float(), score.float())

    def unflip(self, prediction: Heatmaps, order: Tensor) -> Heatmaps:
        """Undo a mirrored input: mirror the map, exchange left and right by `order` (K,), shift."""
        return Heatmaps(hm.mirror_maps(prediction.heatmap[:, order], self.shift))

    def average(self, plain: Heatmaps, unflipped: Heatmaps) -> Heatmaps:
        """Mean of both."""
        return mean(plain, unflipped)


@dataclass(frozen=True, kw_only=True)
class SuperResolvedLevels:
    """The same, with coarser copies of the target for the heads that only train.

    Attributes:
        finest: encodes and decodes the map that counts.
    """

    finest: SuperResolved

    def encode(self, keypoints: Tensor, visible: Tensor) -> tuple[LevelMaps, Tensor]:
        """Ideal maps of labelled keypoints; the coarser ones are averages over blocks of 4x4 and of 32x32 px.

        Where a side is no multiple of 32, the last block is averaged over the px that exist, so that cell i begins at
        px 32 i at every size; adaptive pooling, which is the same elsewhere, would move it.

        Args:
            keypoints: (B, K, 2) px of the crop.
            visible: (B, K) above 0 where labelled.
        """
        maps, weight = self.finest.encode(keypoints, visible)
        quarter = F.avg_pool2d(maps.heatmap, 4)
        return LevelMaps(maps.heatmap, F.avg_pool2d(quarter, 8, ceil_mode=True), quarter, quarter, quarter), weight

    def decode(self, prediction: LevelMaps) -> Keypoints:
        """Positions in px of the crop and scores, of the finest map."""
        return self.finest.decode(Heatmaps(prediction.heatmap))

    def unflip(self, prediction: LevelMaps, order: Tensor) -> LevelMaps:
        """Undo a mirrored input; blocks of px mirror onto each other, so the coarser maps need no shift."""
        heatmap = self.finest.unflip(Heatmaps(prediction.heatmap), order).heatmap
        return LevelMaps(heatmap, *(maps[:, order].flip(-1) for maps in prediction[1:]))

    def average(self, plain: LevelMaps, unflipped: LevelMaps) -> LevelMaps:
        """Mean of both, field by field."""
        return mean(plain, unflipped)


def superresolved(
    frame: Frame, sigma: float, step: Literal["quarter", "none"], flip_shift: Literal["exact", "released"]
) -> SuperResolved:
    """The codec behind the settings of the methods that use it.

    Args:
        frame: the crop.
        sigma: of the targets, px.
        step: ``quarter`` moves a decoded peak a quarter px toward its higher neighbour.
        flip_shift: of a mirrored map: ``exact`` none, as the grid asks; ``released`` one px.
    """
    grid = Grid(frame, stride=1)
    return SuperResolved(
        grid=grid,
        sigma=sigma,
        refine=hm.quarter_step if step == "quarter" else hm.argmax,
        shift=grid.mirror_shift if flip_shift == "exact" else 1,
    )


def default_sigma(size: Size) -> float:
    """Width of a Gaussian target in px for a crop size: released 8 at 256x192.

    Ours: in proportion to the height above, 12 at 384x288, and below, 6 at 192x144, but not under 4, with which
    128x96 and smaller crops keep a peak on the coarser copies.
    """
    return max(4.0, size.height / 32)
