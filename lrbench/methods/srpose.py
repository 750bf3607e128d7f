"""SRPose: heatmaps are super-resolved on every level of the features, coarse to fine, up to the crop's own resolution.

A top-down neck joins four levels; each has an SR head of its own, and all but the last exist for training only.
Deviations: where a side is no multiple of 32 the released network compares maps of different widths or fails; here
whatever is up-sampled is cut to the finer grid, first rows and columns kept, which moves no cell. The batch of 64 is
our reading of 32 per GPU on an unknown number of GPUs; warm-up and augmentation are the recipe's. The mirrored map is
not shifted in the flip test (``flip_shift=released`` shifts it by one px, which puts half a px of bias into the mean).
Keypoints without a positive value go to (0, 0), as elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrbench.codecs.superresolved import LevelMaps, SuperResolvedLevels, default_sigma, superresolved
from lrbench.geometry import Frame, Size
from lrbench.losses import weighted_mse
from lrbench.method import Method, Stage
from lrbench.models.backbone import Backbone, Fusion, crop_or_official, cut
from lrbench.models.backbones import BACKBONES
from lrbench.models.network import Initialisation, PoseNetwork, reset_as_torch
from lrbench.models.sr_head import keypoint_encoder, predictor, shuffle
from lrbench.structures import COCO

PAPER = "Wang et al., ACM MM 2023, arXiv:2307.16765"
REPORTED = ("SRPose",)
"""Names under which papers report it."""

LOW_WEIGHT = 1e-4
"""Weight of the stride-32 heatmap in the loss (released code)."""


def build(
    size: Size,
    backbone: str = "hrnet_w32",
    sigma: float | None = None,
    step: Literal["quarter", "none"] = "quarter",
    flip_shift: Literal["exact", "released"] = "exact",
    fusion: Fusion = "auto",
) -> Method[LevelMaps]:
    """Compose SRPose.

    Args:
        size: of the crop.
        backbone: of the network; its maps at strides 4, 8, 16 and 32 are used, no deconvolutions.
        sigma: of the targets, px; 4 up to 128 rows, 6 at 192, 8 at 256 (released), 12 at 384.
        step: ``quarter`` moves a decoded peak a quarter px toward its higher neighbour, as released; ``none`` is
            "w/o Post." in the released tables.
        flip_shift: of the mirrored map; ``exact`` none, ``released`` one px.
        fusion: ``auto``, ``official`` or ``crop``: all four levels are needed at every size.
    """
    sigma = default_sigma(size) if sigma is None else sigma
    fusion = crop_or_official(fusion, size, "SRPose")
    frame = Frame(size, "biased")
    return Method(
        name="srpose",
        paper=PAPER,
        backbone=backbone,
        frame=frame,
        codec=SuperResolvedLevels(finest=superresolved(frame, sigma, step, flip_shift)),
        build_model=partial(srpose_network, backbone=backbone, size=size, fusion=fusion),
        stages=(Stage(epochs=210, loss=srpose_loss, learning_rate=5e-4, milestones=(170, 200)),),
        batch=64,
        settings={"sigma": sigma, "fusion": fusion},
    )


def srpose_loss(prediction: LevelMaps, ideal: LevelMaps, weight: Tensor) -> dict[str, Tensor]:
    """Mean squared error of every map, without a factor 1/2; the lowest one counts little (released code).

    Args:
        prediction, ideal: maps of a network in train mode.
        weight: (B, K) in {0, 1}.
    """
    return {
        name: 2 * (LOW_WEIGHT if name == "low" else 1.0) * weighted_mse(ours, theirs, weight)
        for name, ours, theirs in zip(LevelMaps._fields, prediction, ideal, strict=True)
    }


@dataclass(frozen=True)
class Level:
    """One level of the neck and the SR head on it (released configuration).

    Attributes:
        width: channels.
        depth: maps per keypoint.
        factor: by which the head's map is finer than the level.
        kernel: side of the head's predictor, cells.
    """

    width: int
    depth: int
    factor: int
    kernel: int


LEVELS = (Level(256, 16, 8, 3), Level(128, 8, 4, 5), Level(64, 4, 2, 7), Level(32, 4, 4, 9))
"""Strides 32, 16, 8 and 4; the kernels grow with the resolution."""


class Refinement(nn.Module):
    """Residual block: depthwise 7x7, batch norm, and per cell to four times the channels and back.

    Follows the released code, without ConvNeXt's layer scale; the paper's figure draws another order.

    Args:
        channels: in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.BatchNorm2d(channels)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same."""
        y = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        step: Tensor = self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + step.permute(0, 3, 1, 2)


class Predictor(nn.Module):
    """The predictor of an SR head and its pixel shuffle, under the released name.

    Args:
        level: whose head it is.
        keypoints: how many.
    """

    def __init__(self, level: Level, keypoints: int) -> None:
        super().__init__()
        self.conv = predictor(level.depth, level.factor, level.kernel, keypoints)
        self.factor = level.factor

    def forward(self, x: Tensor) -> Tensor:
        """(B, K depth, H, W) -> (B, K, factor H, factor W)."""
        return shuffle(self.conv(x), self.factor)


class KeypointHead(nn.Module):
    """Neck and SR heads, with the released layer names; lists run from coarse to fine.

    Args:
        channels: of the backbone's maps at strides 32, 16, 8 and 4.
        keypoints: how many.
    """

    def __init__(self, channels: tuple[int, ...], keypoints: int) -> None:
        super().__init__()
        widths = [level.width for level in LEVELS]
        self.lr_head = nn.Sequential(nn.Conv2d(channels[0], keypoints, 1), nn.ReLU())
        self.lr_fuse = nn.Sequential(nn.Conv2d(keypoints, widths[0], 1), nn.ReLU())
        pairs = list(pairwise(widths))
        self.pre_interpolate = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(coarse, coarse, 3, padding=1, groups=coarse),
                nn.Conv2d(coarse, fine, 1),
                nn.BatchNorm2d(fine),
                nn.ReLU(),
            )
            for coarse, fine in pairs
        )
        self.pre_fuse = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, width, 1), nn.BatchNorm2d(width), nn.ReLU())
            for inputs, width in zip(channels, widths, strict=True)
        )
        self.fuse = nn.ModuleList(nn.Conv2d(2 * fine, fine, 1) for _, fine in pairs)
        self.post_fuse = nn.ModuleList(nn.Sequential(Refinement(fine), Refinement(fine)) for _, fine in pairs)
        self.kp_encoder = nn.ModuleList(keypoint_encoder(level.width, level.depth, keypoints) for level in LEVELS)
        self.converge = nn.ModuleList(Predictor(level, keypoints) for level in LEVELS)

    def neck(self, maps: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Backbone maps, coarse to fine -> the low-resolution heatmap and the levels (B, width, H, W)."""
        low = self.lr_head(maps[0])
        levels = [self.pre_fuse[0](maps[0]) + self.lr_fuse(low)]
        for i, skip in enumerate(maps[1:]):
            up = F.interpolate(self.pre_interpolate[i](levels[-1]), scale_factor=2.0, mode="nearest")
            up = cut(up, skip.shape[-2], skip.shape[-1])
            levels.append(self.post_fuse[i](self.fuse[i](torch.cat([up, self.pre_fuse[i + 1](skip)], 1))))
        return low, levels

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Backbone maps at strides 32, 16, 8, 4 -> heatmaps, coarse to fine; the finest alone in eval mode."""
        low, levels = self.neck(maps)
        finest: Tensor = self.converge[-1](self.kp_encoder[-1](levels[-1]))
        if not self.training:
            return [finest]
        height, width = maps[-1].shape[-2:]
        heads = list(zip(self.kp_encoder, self.converge, levels, strict=True))[:-1]
        return [low, *(cut(converge(encode(level)), height, width) for encode, converge, level in heads), finest]


class SRPose(nn.Module):
    """Backbone, neck and heads.

    Args:
        backbone: with maps at strides 4, 8, 16 and 32.
        keypoints: how many.
    """

    output_layers = tuple(f"keypoint_head.converge.{i}.conv" for i in range(len(LEVELS)))

    def __init__(self, backbone: Backbone, keypoints: int = len(COCO)) -> None:
        super().__init__()
        self.backbone = backbone
        self.keypoint_head = KeypointHead(backbone.channels[::-1], keypoints)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Normalised pictures (B, 3, h, w) -> heatmaps, coarse to fine; the finest alone in eval mode."""
        return list(self.keypoint_head(self.backbone(x)[::-1]))

    def initialise(self, scheme: Initialisation, generator: torch.Generator) -> None:
        """For ``paper``, neck and encoders as torch has them; the predictors start at N(0, 0.001) in any case."""
        if scheme == "paper":
            for name, layer in self.named_modules():
                inside = name.startswith("keypoint_head.") and name not in self.output_layers
                if inside and isinstance(layer, nn.Conv2d):
                    reset_as_torch(layer, generator)


def srpose_network(backbone: str, size: Size, fusion: Fusion, keypoints: int = len(COCO)) -> PoseNetwork[LevelMaps]:
    """SRPose on the four levels of a backbone."""
    return PoseNetwork(SRPose(BACKBONES[backbone].pyramid(size, fusion), keypoints), named)


def named(maps: list[Tensor]) -> LevelMaps:
    """Maps in the network's order, coarse to fine -> by name; those that eval mode leaves out have sides of 0."""
    *coarse, finest = maps
    absent = finest.new_zeros(*finest.shape[:2], 0, 0)
    return LevelMaps(finest, *(coarse or [absent] * 4))
