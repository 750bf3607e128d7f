"""Lite-HRNet (Yu et al., CVPR 2021, arXiv:2104.06403): HRNet of shuffle blocks whose 1x1 convolutions became weights.

Our reading of what is generally known of it: neither the paper nor a released file was at hand, so the names in the
state dict are ours, checkpoints made elsewhere do not load, and details may differ. Choices: both convolutions of the
cross-resolution weighting have a batch norm, those of the spatial weighting a bias; maps are averaged over windows as
wide as the factor between two strides, and up-sampled by that factor without aligning corners, so that sizes which do
not divide by 32 are merely cut (see `lrbench.models.backbone.Fusion`).

With a 17-channel head at 256x192: 1.13M parameters and 206M multiply-adds (published 1.1M, 205M) with 18 layers, 1.76M
and 317M (1.8M, 319M) with 30.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrbench.geometry import Size
from lrbench.models.backbone import Backbone, Fusion, crop_or_official, cut

STEM = 32
CHANNELS = (40, 80, 160, 320)
"""Of the branches at strides 4, 8, 16 and 32."""
BLOCKS = 2
"""Conditional channel weighting blocks per module."""
CROSS_REDUCTION, SPATIAL_REDUCTION = 8, 4
"""Of the channels between the two convolutions that compute weights."""


@dataclass(frozen=True)
class LiteHRNetSpec:
    """Depth of a Lite-HRNet.

    Attributes:
        modules: per stage with two, three and four branches.
    """

    modules: tuple[int, int, int]

    narrow = "hrnet_w16"
    shipped = ()

    @property
    def summary(self) -> str:
        """What it is, in one line."""
        return f"Lite-HRNet, width {CHANNELS[0]}, {self.modules} modules in stages 2 to 4, for real time"

    def resolve_fusion(self, fusion: Fusion, size: Size) -> Fusion:
        """The concrete rule behind ``auto`` at a size.

        Raises:
            ValueError: see `lrbench.models.backbone.crop_or_official`.
        """
        return crop_or_official(fusion, size, "Lite-HRNet")

    def finest(self, size: Size, fusion: Fusion = "auto") -> MergedLiteHRNet:
        """All branches merged into the one at stride 4, as the paper's heatmap network."""
        self.resolve_fusion(fusion, size)
        return MergedLiteHRNet(self)

    def pyramid(self, size: Size, fusion: Fusion = "auto") -> LiteHRNet:
        """The four branches."""
        self.resolve_fusion(fusion, size)
        return LiteHRNet(self)


class LiteHRNet(Backbone):
    """Stem and three stages of two, three and four branches.

    Args:
        spec: depth.
    """

    def __init__(self, spec: LiteHRNetSpec) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolution(3, STEM, 3, 2), nn.ReLU(), StridedShuffle(STEM))
        before: tuple[int, ...] = (STEM,)
        for number, modules in enumerate(spec.modules, 2):
            channels = CHANNELS[:number]
            self.add_module(f"transition{number}", Transition(before, channels))
            self.add_module(f"stage{number}", nn.Sequential(*(Module(channels) for _ in range(modules))))
            before = channels
        self.channels = before

    def forward(self, x: Tensor) -> list[Tensor]:
        """Normalised pictures (B, 3, h, w) -> maps at strides 4, 8, 16 and 32."""
        branches = [self.stem(x)]
        for number in range(2, len(CHANNELS) + 1):
            branches = self.get_submodule(f"transition{number}")(branches)
            branches = self.get_submodule(f"stage{number}")(branches)
        return branches


class MergedLiteHRNet(LiteHRNet):
    """Lite-HRNet and the iterative merge of its branches, one map at stride 4.

    Args:
        spec: depth.
    """

    def __init__(self, spec: LiteHRNetSpec) -> None:
        super().__init__(spec)
        outputs = (self.channels[0], *self.channels[:-1])
        self.merge = nn.ModuleList(
            nn.Sequential(*separable(i, o, 1), nn.ReLU()) for i, o in zip(self.channels, outputs, strict=True)
        )
        self.channels = outputs[:1]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Normalised pictures (B, 3, h, w) -> one map (B, C, h / 4, w / 4)."""
        merged: Tensor | None = None
        for branch, layer in reversed(list(zip(super().forward(x), self.merge, strict=True))):
            merged = layer(branch if merged is None else branch + enlarged(merged, 2, branch, "bilinear"))
        assert merged is not None
        return [merged]


class StridedShuffle(nn.Module):
    """ShuffleNet V2's unit of stride 2: both paths see every channel, and each gives half of them.

    Args:
        channels: in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.path1 = nn.Sequential(*separable(channels, half, 2), nn.ReLU())
        self.path2 = nn.Sequential(
            convolution(channels, channels, 1), nn.ReLU(), *separable(channels, half, 2), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / 2, W / 2)."""
        return shuffled(self.path1(x), self.path2(x))


class Transition(nn.ModuleList):
    """Opens the branches of the next stage: the existing ones pass (or change channels), a new one is strided down."""

    def __init__(self, before: Sequence[int], after: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for i, channels in enumerate(after):
            source, stride = (before[i], 1) if i < len(before) else (before[-1], 2)
            same = source == channels and stride == 1
            layers.append(nn.Identity() if same else nn.Sequential(*separable(source, channels, stride), nn.ReLU()))
        super().__init__(layers)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """Branches of one stage -> those of the next, one more."""
        return [layer(x) for layer, x in zip(self, [*branches, branches[-1]], strict=True)]


class Module(nn.Module):
    """Conditional channel weighting blocks, then every branch sums all branches.

    Args:
        channels: of the branches.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Weighting(channels) for _ in range(BLOCKS)))
        self.fuse = nn.ModuleList(
            nn.ModuleList(exchange(channels, source, target) for source in range(len(channels)))
            for target in range(len(channels))
        )

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """Branches (B, C_i, H_i, W_i), finest first -> the fused ones."""
        branches = self.blocks(branches)
        outputs = []
        for target, paths in enumerate(self.fuse):
            assert isinstance(paths, nn.ModuleList)
            total = branches[target]
            for source, (path, x) in enumerate(zip(paths, branches, strict=True)):
                if source > target:
                    total = total + enlarged(path(x), 2 ** (source - target), total)
                elif source < target:
                    total = total + path(x)
            outputs.append(F.relu(total))
        return outputs


class Weighting(nn.Module):
    """Conditional channel weighting: a shuffle block without 1x1 convolutions.

    Half of the channels of every branch pass; the others are weighted across branches, convolved per channel, and
    weighted within their branch.

    Args:
        channels: of the branches, even.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        halves = [c // 2 for c in channels]
        self.across = CrossResolutionWeighting(halves)
        self.depthwise = nn.ModuleList(convolution(c, c, 3, groups=c) for c in halves)
        self.within = nn.ModuleList(SpatialWeighting(c) for c in halves)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """Branches (B, C_i, H_i, W_i) -> the same shapes."""
        halves = [x.chunk(2, 1) for x in branches]
        active = self.across([half for _, half in halves])
        layers = zip(self.depthwise, self.within, strict=True)
        active = [within(depthwise(x)) for (depthwise, within), x in zip(layers, active, strict=True)]
        return [shuffled(kept, x) for (kept, _), x in zip(halves, active, strict=True)]


class CrossResolutionWeighting(nn.Module):
    """Weights of all channels at every position of the coarsest branch, from all branches there.

    Args:
        channels: of the branches.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        total = sum(channels)
        self.channels = tuple(channels)
        self.reduce = convolution(total, total // CROSS_REDUCTION, 1)
        self.expand = convolution(total // CROSS_REDUCTION, total, 1)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """Branches (B, C_i, H_i, W_i), each of half the size of the one before -> the weighted ones."""
        factors = [2**i for i in reversed(range(len(branches)))]
        # at the border a window that does not fit averages what it covers; equals adaptive pooling where sizes divide
        pooled = [F.avg_pool2d(x, f, ceil_mode=True) for x, f in zip(branches, factors, strict=True)]
        weights = torch.sigmoid(self.expand(F.relu(self.reduce(torch.cat(pooled, 1)))))
        parts = torch.split(weights, list(self.channels), 1)
        return [x * enlarged(w, f, x) for x, w, f in zip(branches, parts, factors, strict=True)]


class SpatialWeighting(nn.Module):
    """One weight per channel from the mean over its map.

    Args:
        channels: of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // SPATIAL_REDUCTION, 1)
        self.expand = nn.Conv2d(channels // SPATIAL_REDUCTION, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        mean = x.mean((-2, -1), keepdim=True)
        return x * torch.sigmoid(self.expand(F.relu(self.reduce(mean))))


def exchange(channels: Sequence[int], source: int, target: int) -> nn.Module:
    """The path from one branch of a module to another; one to a finer branch is up-sampled by the module."""
    if source == target:
        return nn.Identity()
    if source > target:
        return convolution(channels[source], channels[target], 1)
    layers: list[nn.Module] = []
    for _ in range(target - source - 1):
        layers += [*separable(channels[source], channels[source], 2), nn.ReLU()]
    return nn.Sequential(*layers, *separable(channels[source], channels[target], 2))


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution that keeps the size, but for its stride, and batch norm."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


def separable(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, nn.Module]:
    """Depthwise 3x3 and 1x1 convolution, each with batch norm."""
    return convolution(inputs, inputs, 3, stride, groups=inputs), convolution(inputs, outputs, 1)


def enlarged(x: Tensor, factor: int, like: Tensor, mode: str = "nearest") -> Tensor:
    """Up-sample (B, C, H, W) by a whole factor and cut it to the size of another map."""
    if factor == 1:
        return x
    align = None if mode == "nearest" else False
    y = F.interpolate(x, scale_factor=float(factor), mode=mode, align_corners=align)
    return cut(y, like.shape[-2], like.shape[-1])


def shuffled(a: Tensor, b: Tensor) -> Tensor:
    """Interleave the channels of two maps (B, C, H, W): a, b, a, b, ..."""
    return torch.stack([a, b], 2).flatten(1, 2)
