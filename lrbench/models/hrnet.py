"""Pose HRNet with the official state-dict names (released HRNet code).

The network keeps a branch at stride 4 and adds one of half the resolution per stage. Three input sizes break the
official one, because a branch cannot be added back after it was rounded up: 64x48, 96x72 and 192x144.
`lrbench.models.backbone.Fusion` names what is done about it; the choice is part of a method's settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from lrbench.geometry import Size
from lrbench.models.backbone import Backbone, Fusion, check_fusion, cut
from lrbench.models.resnet import BasicBlock, Bottleneck


@dataclass(frozen=True)
class HRNetSpec:
    """Widths and depths of an HRNet.

    Attributes:
        width: channels of the stride-4 branch; every further branch has twice as many.
        stem: channels of the stem and of the bottlenecks of layer1.
        bottlenecks: how many layer1 has.
        modules: per stage 2, 3, 4.
        blocks: residual blocks per branch of a module.
    """

    width: int
    stem: int = 64
    bottlenecks: int = 4
    modules: tuple[int, int, int] = (1, 4, 3)
    blocks: int = 4

    narrow = "hrnet_w16"
    shipped = ("conv1", "bn1", "conv2", "bn2", "layer1", "transition1", "stage2", "transition2", "stage3")

    @property
    def summary(self) -> str:
        """What it is, in one line."""
        return f"HRNet, width {self.width}, {self.blocks} blocks, {self.modules} modules in stages 2 to 4"

    def channels(self, branches: int) -> tuple[int, ...]:
        """Channels of the first branches."""
        return tuple(self.width * 2**i for i in range(branches))

    def resolve_fusion(self, fusion: Fusion, size: Size) -> Fusion:
        """The concrete rule behind ``auto`` at a size.

        Raises:
            ValueError: see `lrbench.models.backbone.check_fusion`.
        """
        fits = check_fusion(fusion, size, "HRNet")
        if fusion != "auto":
            return fusion
        if fits:
            return "official"
        return "three-branch" if size == Size(64, 48) else "crop"

    def branches(self, size: Size, fusion: Fusion) -> int:
        """Of stage 4: three where the rule for this size says so."""
        return 3 if self.resolve_fusion(fusion, size) == "three-branch" else 4

    def finest(self, size: Size, fusion: Fusion = "auto", *, widen: bool = False) -> HRNet:
        """The stride-4 branch, as the released heatmap networks."""
        return HRNet(self, self.branches(size, fusion), widen=widen)

    def pyramid(self, size: Size, fusion: Fusion = "auto") -> HRNet:
        """All branches of stage 4."""
        branches = self.branches(size, fusion)
        return HRNet(self, branches, outputs=branches)


def conv_bn(inputs: int, outputs: int, stride: int, *, relu: bool) -> nn.Sequential:
    """3x3 convolution and batch norm."""
    layers = [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


class Halving(Protocol):
    """Makes a layer that halves the resolution, sides rounded up."""

    def __call__(self, inputs: int, outputs: int, *, relu: bool) -> nn.Module:
        """(B, inputs, H, W) -> (B, outputs, H / 2, W / 2); without `relu` its output is about to be summed."""


def strided(inputs: int, outputs: int, *, relu: bool) -> nn.Module:
    """The official way to halve: a 3x3 convolution of stride 2 and batch norm."""
    return conv_bn(inputs, outputs, 2, relu=relu)


class Module(nn.Module):
    """One exchange unit: residual blocks on every branch, then every output sums all branches.

    Args:
        inputs: channels of the incoming branches.
        channels: channels inside the module.
        blocks: residual blocks per branch.
        outputs: how many branches leave the module.
        widen: channels of output 0 where it is to be wider (UDP's last fusion), else None.
        halve: makes the layers that halve the resolution.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        channels: Sequence[int],
        blocks: int,
        outputs: int,
        widen: int | None = None,
        halve: Halving = strided,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(BasicBlock(i, c), *(BasicBlock(c, c) for _ in range(blocks - 1)))
            for i, c in zip(inputs, channels, strict=True)
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList([self._path(channels, j, i, widen, halve) for j in range(len(channels))])  # type: ignore[misc]
            for i in range(outputs)
        )

    @staticmethod
    def _path(channels: Sequence[int], source: int, target: int, widen: int | None, halve: Halving) -> nn.Module | None:
        wide = widen or channels[target]
        if source > target:  # up-sampled in forward
            return nn.Sequential(nn.Conv2d(channels[source], wide, 1, bias=False), nn.BatchNorm2d(wide))
        if source == target:
            return nn.Sequential(nn.Conv2d(channels[source], wide, 1, bias=False)) if widen else None
        steps = target - source
        return nn.Sequential(
            *(halve(channels[source], channels[source], relu=True) for _ in range(steps - 1)),
            halve(channels[source], channels[target], relu=False),
        )

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """Branches (B, C_i, H_i, W_i), finest first -> the fused ones."""
        branches = [blocks(x) for blocks, x in zip(self.branches, branches, strict=True)]
        outputs = []
        for i, row in enumerate(self.fuse_layers):
            size = branches[i].shape[-2:]
            total: Tensor | None = None
            assert isinstance(row, nn.ModuleList)
            for j, (path, x) in enumerate(zip(row, branches, strict=True)):
                y = x if path is None else path(x)
                if j > i:
                    y = cut(F.interpolate(y, scale_factor=float(2 ** (j - i)), mode="nearest"), size[0], size[1])
                total = y if total is None else total + y
            assert total is not None
            outputs.append(F.relu(total))
        return outputs


class Stage(nn.Sequential):
    """Exchange units in a row; the last one may emit fewer branches."""

    def __init__(
        self,
        spec: HRNetSpec,
        modules: int,
        inputs: Sequence[int],
        channels: Sequence[int],
        outputs: int | None = None,
        widen: int | None = None,
        halve: Halving = strided,
    ) -> None:
        last = modules - 1
        super().__init__(
            *(
                Module(
                    inputs if m == 0 else channels,
                    channels,
                    spec.blocks,
                    (outputs or len(channels)) if m == last else len(channels),
                    widen if m == last else None,
                    halve,
                )
                for m in range(modules)
            )
        )


class Transition(nn.ModuleList):
    """Opens the branches of the next stage: the existing ones pass (or change channels), a new one is strided down."""

    def __init__(self, before: Sequence[int], after: Sequence[int], halve: Halving = strided) -> None:
        paths: list[nn.Module | None] = []
        for i, channels in enumerate(after):
            if i < len(before):
                paths.append(conv_bn(before[i], channels, 1, relu=True) if before[i] != channels else None)
            else:
                paths.append(nn.Sequential(halve(before[-1], channels, relu=True)))
        super().__init__(paths)  # type: ignore[arg-type]  # torch registers None as an absent module

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """Branches of one stage -> those of the next."""
        return [
            branches[i] if path is None else path(branches[-1] if i >= len(branches) else branches[i])
            for i, path in enumerate(self)
        ]


class HRNetTrunk(nn.Module):
    """Stem and stages 1 to 3, which all HRNet methods share.

    Args:
        spec: widths and depths.
        halve: makes the layers that open and feed the branches of lower resolution.
    """

    def __init__(self, spec: HRNetSpec, halve: Halving = strided) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, spec.stem, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(spec.stem)
        self.conv2 = nn.Conv2d(spec.stem, spec.stem, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(spec.stem)
        wide = spec.stem * Bottleneck.expansion
        self.layer1 = nn.Sequential(
            Bottleneck(spec.stem, spec.stem), *(Bottleneck(wide, spec.stem) for _ in range(spec.bottlenecks - 1))
        )
        two, three = spec.channels(2), spec.channels(3)
        self.transition1 = Transition((wide,), two, halve)
        self.stage2 = Stage(spec, spec.modules[0], two, two, halve=halve)
        self.transition2 = Transition(two, three, halve)
        self.stage3 = Stage(spec, spec.modules[1], three, three, halve=halve)

    def stem(self, x: Tensor) -> Tensor:
        """Normalised pictures (B, 3, h, w) -> (B, C, h/4, w/4), the input of layer1."""
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)))

    def trunk(self, x: Tensor) -> list[Tensor]:
        """Normalised pictures (B, 3, h, w) -> three branches, (B, C, h/4, w/4) first."""
        branches = self.transition1([self.layer1(self.stem(x))])
        branches = self.transition2(self.stage2(branches))
        return list(self.stage3(branches))


class HRNet(HRNetTrunk, Backbone):
    """All four stages.

    Args:
        spec: widths and depths.
        branches: of stage 4.
        outputs: branches that leave it.
        widen: the last fusion has four times the channels (UDP's released network).
        halve: makes the layers that open and feed the branches of lower resolution.
    """

    def __init__(
        self,
        spec: HRNetSpec,
        branches: int = 4,
        outputs: int = 1,
        *,
        widen: bool = False,
        halve: Halving = strided,
    ) -> None:
        super().__init__(spec, halve)
        channels = spec.channels(branches)
        wide = 4 * spec.width if widen else None
        self.transition3 = Transition(spec.channels(3), channels, halve)
        self.stage4 = Stage(spec, spec.modules[2], channels, channels, outputs=outputs, widen=wide, halve=halve)
        self.channels = (wide or spec.width, *channels[1:outputs])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Normalised pictures (B, 3, h, w) -> the branches that leave stage 4."""
        return list(self.stage4(self.transition3(self.trunk(x))))
