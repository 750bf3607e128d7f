"""Heads that two or more methods put on a backbone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn

from lrbench.geometry import Size
from lrbench.models.backbone import Backbone, Fusion, cut_to
from lrbench.models.backbones import BACKBONES
from lrbench.models.network import PoseNetwork
from lrbench.structures import COCO

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
        """Normalised pictures (B, 3, h, w) -> the backbone's maps at stride 4, 8, ..., without surplus cells."""
        maps = self._backbone[0](x)
        return [cut_to(m, x, 4 * 2**level) for level, m in enumerate(maps)]


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
        # cut last, so that the network is the released one where that has surplus columns
        return cut_to(self.final_layer(self._backbone[0](x)[0]), x, 4)


class BinNetwork(Headed):
    """Logits over bins of x and of y: flattened maps per keypoint, and one linear layer per axis (released SimCC code).

    The linear layers are shared by all keypoints; layer names as released. It takes any backbone; for one of the listed
    see `bin_network`.

    Args:
        backbone: its last map is read.
        size: of the crops, px.
        bins: along x and along y.
        stride: px of the crop per cell of that map, whose sides are rounded up.
        per_keypoint: maps per keypoint, neighbouring channels; 1 on stride-4 maps, more without up-sampling.
        keypoints: how many.
    """

    # the convolution feeds the linear layers, which emit: small, it only delays learning
    output_layers = ()

    def __init__(
        self,
        backbone: Backbone,
        size: Size,
        bins: tuple[int, int],
        *,
        stride: int = 4,
        per_keypoint: int = 1,
        keypoints: int = len(COCO),
    ) -> None:
        super().__init__(backbone)
        cells = -(-size.height // stride) * -(-size.width // stride)
        self.final_layer = nn.Conv2d(backbone.channels[-1], per_keypoint * keypoints, 1)
        self.keypoints = keypoints
        self.mlp_head_x = nn.Linear(per_keypoint * cells, bins[0])
        self.mlp_head_y = nn.Linear(per_keypoint * cells, bins[1])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pictures (B, 3, h, w) -> logits (B, K, bins of x), (B, K, bins of y)."""
        maps = self.final_layer(self.features(x)[-1])
        flat = maps.reshape(len(maps), self.keypoints, -1)
        return self.mlp_head_x(flat), self.mlp_head_y(flat)


def map_network(
    backbone: str,
    size: Size,
    fusion: Fusion,
    pack: Callable[[Tensor], P],
    per_keypoint: int = 1,
    *,
    bgr: bool = False,
    keypoints: int = len(COCO),
) -> PoseNetwork[P]:
    """A backbone with `per_keypoint` maps for every keypoint.

    Args:
        backbone: name.
        size: of the crops, px.
        fusion: see `Fusion`.
        pack: turns maps (B, per_keypoint K, H, W) into the codec's tuple.
        per_keypoint: maps per keypoint.
        bgr: the network was trained on BGR pictures.
        keypoints: how many.
    """
    network = MapNetwork(BACKBONES[backbone].finest(size, fusion), per_keypoint * keypoints)
    return PoseNetwork(network, pack, bgr=bgr)


def bin_network(
    backbone: str,
    size: Size,
    fusion: Fusion,
    bins: tuple[int, int],
    pack: Callable[[tuple[Tensor, Tensor]], P],
    *,
    upsampled: bool = True,
    per_keypoint: int = 1,
    bgr: bool = False,
    keypoints: int = len(COCO),
) -> PoseNetwork[P]:
    """A backbone and linear layers over bins of x and of y.

    A method with a backbone of its own puts `BinNetwork` on it, and the same `pack` around both.

    Args:
        backbone: name.
        size: of the crops, px.
        fusion: see `Fusion`.
        bins: along x and along y.
        pack: turns logits (B, K, bins of x) and (B, K, bins of y) into the codec's tuple.
        upsampled: read the stride-4 map; else the last map of the backbone, at stride 32.
        per_keypoint: maps per keypoint.
        bgr: the network was trained on BGR pictures.
        keypoints: how many.
    """
    spec = BACKBONES[backbone]
    features, stride = (spec.finest(size, fusion), 4) if upsampled else (spec.pyramid(size, fusion), 32)
    network = BinNetwork(features, size, bins, stride=stride, per_keypoint=per_keypoint, keypoints=keypoints)
    return PoseNetwork(network, pack, bgr=bgr)
