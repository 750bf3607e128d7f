"""The super-resolution head: heatmaps finer than the features they come from (SRPose, arXiv:2307.16765).

Every keypoint gets a few maps of its own; a large kernel turns them into the r x r sub-cells of each cell, which pixel
shuffle lays out. Shared by the stand-alone head and by the heads on the levels of SRPose's neck. Released code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrbench.models.backbone import Backbone, cut_to
from lrbench.models.heads import Headed
from lrbench.models.network import Initialisation, reset_as_torch
from lrbench.structures import COCO


def keypoint_encoder(channels: int, depth: int, keypoints: int) -> nn.Sequential:
    """Features (B, channels, H, W) -> `depth` maps per keypoint, (B, K depth, H, W)."""
    return nn.Sequential(nn.Conv2d(channels, keypoints * depth, 1), nn.ReLU())


def predictor(depth: int, factor: int, kernel: int, keypoints: int) -> nn.Conv2d:
    """(B, K depth, H, W) -> `factor`^2 sub-cells per cell, (B, K factor^2, H, W); keypoints do not mix.

    Args:
        depth: maps per keypoint.
        factor: by which the map will be finer than the features.
        kernel: side, in cells, odd.
        keypoints: how many.
    """
    return nn.Conv2d(keypoints * depth, keypoints * factor**2, kernel, padding=kernel // 2, groups=keypoints)


def shuffle(cells: Tensor, factor: int) -> Tensor:
    """Sub-cells as channels, (B, K factor^2, H, W) -> (B, K, factor H, factor W).

    Channel q factor^2 + a factor + b of cell (i, j) goes to keypoint q, row i factor + a, column j factor + b. The copy
    pays: targets are contiguous, and maps in channels-last order are slow to compare with them and to search.
    """
    return F.pixel_shuffle(cells, factor).contiguous()


class SRHead(Headed):
    """A backbone and one head on its stride-4 map, whose output is as fine as the crop.

    The released code has this head for bottom-up networks only, under these names and beside a tag head; with the same
    numbers it has the published parameters and multiply-adds of the top-down rows.

    Args:
        backbone: with one map.
        keypoints: how many.
    """

    output_layers = ("heatmap_head",)

    def __init__(self, backbone: Backbone, keypoints: int = len(COCO)) -> None:
        super().__init__(backbone)
        self.kp_encoder = keypoint_encoder(backbone.channels[0], depth=4, keypoints=keypoints)
        self.heatmap_head = predictor(depth=4, factor=4, kernel=9, keypoints=keypoints)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pictures (B, 3, h, w) -> heatmaps (B, K, h, w)."""
        (maps,) = self._backbone[0](x)
        cells = self.heatmap_head(self.kp_encoder(maps))
        # surplus cells of the backbone still count as neighbours, as in the released networks
        return shuffle(cut_to(cells, x, 4), 4)

    def initialise(self, scheme: Initialisation, generator: torch.Generator) -> None:
        """For ``paper``, the encoder as torch has it; the predictor starts at N(0, 0.001) in any case."""
        if scheme == "paper":
            encoder = self.kp_encoder[0]
            assert isinstance(encoder, nn.Conv2d)
            reset_as_torch(encoder, generator)
