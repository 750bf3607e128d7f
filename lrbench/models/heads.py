"""Heads that two or more methods put on a backbone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from lrbench.geometry import Size
from lrbench.models.backbone import Backbone, Fusion
from lrbench.models.backbones import BACKBONES
from lrbench.models.network import PoseNetwork
from lrbench.structures import KEYPOINTS

P = TypeVar("P")


class Headed(nn.Module):
    """A backbone and the layers on top of it in one flat name space, as in the released checkpoints.

    The backbone's layers become ours by name; itself it is kept out of sight, or every name would occur twice.

    Args:
        backbone: what the head stands on.
    """

    output_layers: tuple[str, ...] = ()
    """Names of the layers that emit what is decoded; they are initialised small."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self._backbone = (backbone,)
        for name, layer in backbone.named_children():
            self.add_module(name, layer)

    def features(self, x: Tensor) -> list[Tensor]:
        """Normalised pictures (B, 3, h, w) -> the backbone's maps."""
        return list(self._backbone[0](x))


class MapNetwork(Headed):
    """One 1x1 convolution on a stride-4 map (HRNet, SimpleBaseline and all heatmap methods on them).

    Args:
        backbone: with one map.
        outputs: channels of the head.
    """

    output_layers = ("final_layer",)

    def __init__(self, backbone: Backbone, outputs: int) -> None:
        super().__init__(backbone)
        self.final_layer = nn.Conv2d(backbone.channels[0], outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pictures (B, 3, h, w) -> maps (B, outputs, h / 4, w / 4)."""
        return torch.as_tensor(self.final_layer(self.features(x)[0]))


class BinNetwork(Headed):
    """Logits over bins of x and of y: maps, flattened per keypoint, and one linear layer per axis (released SimCC code).

    Args:
        backbone: its last map is read.
        cells: of that map.
        bins: along x and along y.
        per_keypoint: maps per keypoint; 1 on stride-4 maps, more without up-sampling.
    """

    output_layers = ("final_layer",)

    def __init__(self, backbone: Backbone, cells: int, bins: tuple[int, int], per_keypoint: int = 1) -> None:
        super().__init__(backbone)
        self.final_layer = nn.Conv2d(backbone.channels[-1], per_keypoint * len(KEYPOINTS), 1)
        self.mlp_head_x = nn.Linear(per_keypoint * cells, bins[0])
        self.mlp_head_y = nn.Linear(per_keypoint * cells, bins[1])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pictures (B, 3, h, w) -> logits (B, K, bins of x), (B, K, bins of y)."""
        maps = self.final_layer(self.features(x)[-1])
        flat = maps.reshape(len(maps), len(KEYPOINTS), -1)
        return self.mlp_head_x(flat), self.mlp_head_y(flat)


def map_network(
    backbone: str,
    size: Size,
    fusion: Fusion,
    pack: Callable[[Tensor], P],
    per_keypoint: int = 1,
    *,
    bgr: bool = False,
) -> PoseNetwork[P]:
    """A backbone with `per_keypoint` maps for every keypoint.

    Args:
        backbone: name.
        size: of the crops, px.
        fusion: see `Fusion`.
        pack: turns maps (B, per_keypoint K, H, W) into the codec's tuple.
        per_keypoint: maps per keypoint.
        bgr: the network was trained on BGR pictures.
    """
    network = MapNetwork(BACKBONES[backbone].finest(size, fusion), per_keypoint * len(KEYPOINTS))
    return PoseNetwork(network, pack, bgr=bgr)
