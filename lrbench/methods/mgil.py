"""MGIL: every layer that halves the resolution becomes a unit that first moves all pixels into channels.

A unit has a fine branch (FLIE: 3x3 convolutions around a space-to-channel step, so that no pixel is skipped), a coarse
branch (CII: a dilated strided convolution) and a gate that weighs the two per image (MGAF). The paper's body was not at
hand, its authors' code was: on HRNets this is *MGIL-HRNet as in the authors' released code* (stem, new branches, and
all but the last strided step of every fusion path; without its layers that never run), on ResNets it is *an MGIL-ResNet
of our reading*, since the released one builds a plain ResNet. Agreement with the paper's numbers is claimed for
neither. A unit has some fifteen times the multiply-adds of what it replaces, so compare at equal cost, and with the
same head: the default is SimCC's, as in all released configurations.

Deviations: maps with an odd side are padded by zeros on the right and below before a unit, where the released code
fails; the released weight decay never reaches its optimiser and is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrbench.codecs.heatmap import Heatmap, Heatmaps, default_sigma, quarter_step
from lrbench.codecs.simcc import AxisBins, Bins, log_probabilities
from lrbench.geometry import Frame, Grid, Size
from lrbench.losses import bin_loss, heatmap_loss
from lrbench.method import Method, Stage
from lrbench.models.backbone import Backbone, Fusion
from lrbench.models.backbones import BACKBONES
from lrbench.models.heads import BinNetwork, MapNetwork
from lrbench.models.hrnet import HRNet, HRNetSpec, strided
from lrbench.models.network import PoseNetwork
from lrbench.models.resnet import BasicBlock, Bottleneck, DeconvolvedResNet, ResNetSpec
from lrbench.structures import COCO, Rescoring

PAPER = "Gu et al., 2024, arXiv:2405.12247"
REPORTED = ("MGIL",)
"""Names under which papers report it."""

Form = Literal["full", "sum", "fine", "coarse"]
"""Of a unit: gated sum of both branches, plain sum, or one branch alone. Units of a stem are never gated."""
Layer = Literal["full", "sum", "fine", "coarse", "strided"]
"""A `Form`, or ``strided`` for the backbone as it is."""
Variant = Literal["released", "r2", "r2-stem", "r2s", "r3"]
"""Readings of MGIL-ResNet, all but the first ours.

``released``: the plain ResNet that the released code builds. ``r2``: the strided 3x3 convolution of layers 2 to 4
becomes a unit. ``r2-stem``: and the strided convolution and the pooling of the stem. ``r2s``: and the shortcuts of
layers 2 to 4 keep all pixels. ``r3``: the bottleneck of the released classification network, with the dilated
shortcut that it defines and then overwrites; plain stem.
"""


def build(
    size: Size,
    backbone: str = "hrnet_w32",
    variant: Variant | None = None,
    unit: Layer = "full",
    replace_last_fuse: bool = False,
    dropout: float | None = None,
    head: Literal["simcc", "heatmap"] = "simcc",
    split: float | None = None,
    smoothing: float | None = None,
    sigma: float | None = None,
    fusion: Fusion = "auto",
) -> Method[Any]:
    """Compose MGIL.

    Args:
        size: of the crop.
        backbone: of the network.
        variant: see `Variant`; ResNets only, by default ``r2-stem``.
        unit: see `Layer`; ``strided`` is there for comparisons with equal head and recipe.
        replace_last_fuse: see `Units`; HRNets only.
        dropout: of the gates; released: 0.5 on HRNets, none on ResNets.
        head: what is predicted; all released configurations have ``simcc``.
        split: bins per px; released: 2 on HRNets, 3 on ResNets.
        smoothing: of the labels of bins; released: 0.1 up to 64x64, 0.2 at 128x128; 0.1 from 256 rows on, as SimCC.
        sigma: of the targets of ``head=heatmap``, cells; as in HRNet.
        fusion: see `lrbench.models.backbone.Fusion`.

    Raises:
        ValueError: neither HRNet nor ResNet, or a setting of the other kind.
    """
    spec = BACKBONES[backbone]
    hrnet = isinstance(spec, HRNetSpec)
    variant = _resolve_variant(backbone, variant, replace_last_fuse)
    dropout = (0.5 if hrnet else 0.0) if dropout is None else dropout
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout:g}: expected at least 0 and below 1")
    fusion = spec.resolve_fusion(fusion, size)
    frame = Frame(size, "biased")
    network = partial(
        mgil_backbone,
        backbone=backbone,
        size=size,
        fusion=fusion,
        variant=variant,
        unit=unit,
        dropout=dropout,
        replace_last_fuse=replace_last_fuse,
    )
    if head == "heatmap":
        sigma = default_sigma(size) if sigma is None else sigma
        grid = Grid(frame, stride=4)
        codec: Any = Heatmap(grid=grid, sigma=sigma, center="rounded", window=True, refine=quarter_step)
        model: Any = partial(map_model, features=network)
        loss: Any = heatmap_loss
        rescoring = Rescoring()
        settings: dict[str, Any] = {"sigma": sigma}
    else:
        split = (2.0 if hrnet else 3.0) if split is None else split
        smoothing = (0.2 if 128 <= size.height < 256 else 0.1) if smoothing is None else smoothing
        codec = AxisBins(frame=frame, split=split, labels="one-hot", smoothing=smoothing)
        model = partial(bin_model, features=network, size=size, bins=codec.bins)
        loss = partial(bin_loss, form="nmt")
        # probabilities of a bin, small where bins are many; from 256 rows on as released for SimCC
        rescoring = Rescoring(confident=0.02 if size.height < 256 else 0.01)
        settings = {"split": split, "smoothing": smoothing}
    epochs, milestones = (210, (170, 200)) if hrnet else (140, (90, 120))
    return Method(
        name="mgil",
        paper=PAPER,
        backbone=backbone,
        frame=frame,
        codec=codec,
        build_model=model,
        stages=(Stage(epochs=epochs, loss=loss, milestones=milestones),),
        settings={**settings, "variant": variant, "dropout": dropout, "fusion": fusion},
        rescoring=rescoring,
    )


def _resolve_variant(backbone: str, variant: Variant | None, replace_last_fuse: bool) -> Variant | None:
    """The reading of a ResNet, None on HRNets; a ValueError where a setting does not belong to the backbone."""
    spec = BACKBONES[backbone]
    if isinstance(spec, HRNetSpec):
        if variant is not None:
            raise ValueError(f"variant={variant}: only ResNets have readings, not {backbone}; leave it out")
        return None
    if not isinstance(spec, ResNetSpec):
        known = [name for name, other in BACKBONES.items() if isinstance(other, HRNetSpec | ResNetSpec)]
        raise ValueError(f"mgil has no form on {backbone}; choose one of {', '.join(known)}")
    if replace_last_fuse:
        raise ValueError(f"replace_last_fuse=true: only HRNets have fusion paths, not {backbone}; leave it out")
    return variant or "r2-stem"


def mgil_backbone(
    backbone: str,
    size: Size,
    fusion: Fusion,
    variant: Variant | None,
    unit: Layer,
    dropout: float,
    replace_last_fuse: bool,
) -> Backbone:
    """A backbone with units, one map at stride 4; see `build` for the arguments."""
    spec = BACKBONES[backbone]
    if unit == "strided" or variant == "released":
        return spec.finest(size, fusion)
    units = Units(unit, dropout, replace_last_fuse)
    if isinstance(spec, HRNetSpec):
        return MGILHRNet(spec, spec.branches(size, fusion), units)
    assert isinstance(spec, ResNetSpec)
    assert variant is not None
    return MGILResNet(spec, variant, units)


class ReleasedBinNetwork(BinNetwork):
    """The head of the released networks, whose files hold layers that never run: the former stem and parts of units."""

    left_over = (
        *(f"{layer}.*" for layer in ("conv1", "bn1", "conv2", "bn2")),
        *(
            f"{place}*.{layer}.*"
            for place in ("spd_conv_", "transition", "stage?.?.fuse_layers.")
            for layer in ("conv3", "bn3", "ECA", "channel_layer", "spatial_layer")
        ),
    )


def bin_model(
    features: Callable[[], Backbone], size: Size, bins: tuple[int, int], keypoints: int = len(COCO)
) -> PoseNetwork[Bins]:
    """Logits over bins of x and of y; layer names as released.

    Args:
        features: makes the backbone.
        size: of the crops, px.
        bins: along x and along y.
        keypoints: how many.
    """
    return PoseNetwork(ReleasedBinNetwork(features(), size, bins, keypoints=keypoints), log_probabilities)


def map_model(features: Callable[[], Backbone], keypoints: int = len(COCO)) -> PoseNetwork[Heatmaps]:
    """One map per keypoint; layer names as released.

    Args:
        features: makes the backbone.
        keypoints: how many.
    """
    return PoseNetwork(MapNetwork(features(), keypoints), Heatmaps)


def space_to_channels(x: Tensor) -> Tensor:
    """SCT: (B, C, H, W) with even sides -> (B, 4C, H / 2, W / 2), invertible; no pixel is lost.

    Channel blocks are the pixels at (row, column) parity (0, 0), (1, 0), (0, 1), (1, 1) (released code; torch's
    `pixel_unshuffle` interleaves them).
    """
    return torch.cat([x[..., dy::2, dx::2] for dx in (0, 1) for dy in (0, 1)], 1)


def even(x: Tensor) -> Tensor:
    """Zeros on the right and below where a side of (B, C, H, W) is odd, so that half of it is rounded up."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x


class SpaceToChannels(nn.Module):
    """`space_to_channels` of maps with sides of any parity."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4C, H / 2, W / 2), sides rounded up."""
        return space_to_channels(even(x))


class Gate(nn.Module):
    """MGAF: two weights per image that add up to 1 (released code).

    Args:
        channels: of each of the two branches.
        dropout: share of pooled values that training drops.
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        kernel = gate_kernel(2 * channels)
        self.conv1 = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(2 * channels, 2, bias=False)

    def weights(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """(B, 2) in (0, 1), fine first.

        Args:
            fine, coarse: (B, C, H, W).
        """
        pooled = torch.cat([fine.mean((-2, -1)), coarse.mean((-2, -1))], 1)
        mixed = F.relu(self.conv1(pooled[:, None])[:, 0])
        # the ReLU before the softmax is the released code's
        return F.relu(self.linear(self.dropout(mixed))).softmax(1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Two (B, C, H, W) -> their weighted sum."""
        alpha = self.weights(fine, coarse)[..., None, None, None]
        return alpha[:, 0] * fine + alpha[:, 1] * coarse


def gate_kernel(channels: int) -> int:
    """Odd width of the 1-D convolution over so many channels (ECA's rule): |log2 C + 1| / 2, cut and made odd."""
    width = int(abs((math.log2(channels) + 1) / 2))
    return width + 1 - width % 2


class Unit(nn.Module):
    """One MGIL unit; layer names as released.

    Args:
        inputs, outputs: channels.
        form: which branches there are and how they are joined.
        dropout: of the gate.
        stem: no 1x1 convolution in the coarse branch and no gate (released code).
        relu: end in a ReLU.
    """

    def __init__(
        self, inputs: int, outputs: int, form: Form, dropout: float, *, stem: bool = False, relu: bool = True
    ) -> None:
        super().__init__()
        self.form, self.relu = form, relu
        if form != "coarse":
            self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(4 * outputs)
            self.conv2 = nn.Conv2d(4 * outputs, 2 * outputs, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(2 * outputs)
            self.conv2_2 = nn.Conv2d(2 * outputs, outputs, 3, padding=1, bias=False)
            self.bn2_2 = nn.BatchNorm2d(outputs)
        if form != "fine":
            self.conv2_dila = nn.Conv2d(inputs, outputs, 3, 2, padding=2, dilation=2, bias=False)
            self.conv2_1X1 = None if stem else nn.Conv2d(outputs, outputs, 1)
        self.eca = Gate(outputs, dropout) if form == "full" and not stem else None

    def fine(self, x: Tensor) -> Tensor:
        """FLIE: (B, inputs, H, W) with even sides -> (B, outputs, H / 2, W / 2)."""
        y = F.relu(self.bn1(space_to_channels(self.conv1(x))))
        y = F.relu(self.bn2(self.conv2(y)))
        return torch.as_tensor(self.bn2_2(self.conv2_2(y)))

    def coarse(self, x: Tensor) -> Tensor:
        """CII: (B, inputs, H, W) -> (B, outputs, H / 2, W / 2); it reads even rows and columns only."""
        y = self.conv2_dila(x)
        return torch.as_tensor(y if self.conv2_1X1 is None else self.conv2_1X1(y))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / 2, W / 2), sides rounded up."""
        x = even(x)
        if self.form == "fine":
            y = self.fine(x)
        elif self.form == "coarse":
            y = self.coarse(x)
        else:
            fine, coarse = self.fine(x), self.coarse(x)
            y = fine + coarse if self.eca is None else self.eca(fine, coarse)
        return F.relu(y) if self.relu else y


@dataclass(frozen=True)
class Units:
    """How all units of a network are made.

    Attributes:
        form: see `Form`.
        dropout: of the gates.
        last_fuse: HRNet's last strided step of every fusion path becomes a unit too (without its ReLU, as what it
            replaces); the released code keeps the convolution there.
    """

    form: Form
    dropout: float
    last_fuse: bool = False

    def __call__(self, inputs: int, outputs: int, *, relu: bool) -> nn.Module:
        """A layer that halves the resolution inside a network (see `lrbench.models.hrnet.Halving`)."""
        if relu or self.last_fuse:
            return Unit(inputs, outputs, self.form, self.dropout, relu=relu)
        return strided(inputs, outputs, relu=relu)

    def stem(self, inputs: int, outputs: int) -> nn.Module:
        """A layer that halves the resolution in a stem."""
        return nn.Sequential(Unit(inputs, outputs, self.form, self.dropout, stem=True))


class MGILHRNet(HRNet):
    """HRNet whose stem, new branches and fusion paths are halved by units (released code).

    Args:
        spec: widths and depths.
        branches: of stage 4.
        units: how units are made.
    """

    def __init__(self, spec: HRNetSpec, branches: int, units: Units) -> None:
        super().__init__(spec, branches, halve=units)
        del self.conv1, self.bn1, self.conv2, self.bn2  # the released code keeps them and never runs them
        self.spd_conv_1 = units.stem(3, spec.stem)
        self.spd_conv_2 = units.stem(spec.stem, spec.stem)

    def stem(self, x: Tensor) -> Tensor:
        """Normalised pictures (B, 3, h, w) -> (B, C, h/4, w/4), the input of layer1."""
        return torch.as_tensor(self.spd_conv_2(self.spd_conv_1(x)))


class MGILResNet(DeconvolvedResNet):
    """ResNet with deconvolutions, halved by units (our readings; the names of their layers are ours).

    Args:
        spec: depths and width.
        variant: see `Variant`; not ``released``.
        units: how units are made.

    Raises:
        ValueError: ``r3`` without bottlenecks.
    """

    def __init__(self, spec: ResNetSpec, variant: Variant, units: Units) -> None:
        super().__init__(spec)
        self.unit_stem = variant in ("r2-stem", "r2s")
        if self.unit_stem:
            del self.conv1, self.bn1
            self.spd_conv_1 = units.stem(3, spec.width)
            self.spd_conv_2 = units.stem(spec.width, spec.width)
        for number in (2, 3, 4):
            layer = self.get_submodule(f"layer{number}")
            assert isinstance(layer, nn.Sequential)
            first = layer[0]
            assert isinstance(first, BasicBlock | Bottleneck)
            if variant == "r3":
                layer[0] = lossless_bottleneck(first, units)
            else:
                put_unit(first, units, shortcut=variant == "r2s")

    def stem(self, x: Tensor) -> Tensor:
        """Normalised pictures (B, 3, h, w) -> (B, C, h/4, w/4), the input of layer1."""
        return torch.as_tensor(self.spd_conv_2(self.spd_conv_1(x))) if self.unit_stem else super().stem(x)


def put_unit(block: BasicBlock | Bottleneck, units: Units, *, shortcut: bool) -> None:
    """Replace the strided 3x3 convolution of a residual block, and the batch norm after it, by a unit (R2).

    Args:
        block: the first of its layer.
        units: how units are made.
        shortcut: its strided 1x1 convolution reads all pixels too (R2s).
    """
    name, norm = ("conv2", "bn2") if isinstance(block, Bottleneck) else ("conv1", "bn1")
    old = block.get_submodule(name)
    assert isinstance(old, nn.Conv2d)
    setattr(block, name, units(old.in_channels, old.out_channels, relu=True))
    setattr(block, norm, nn.Identity())
    if shortcut:
        assert block.downsample is not None
        old = block.downsample[0]
        assert isinstance(old, nn.Conv2d)
        wide = nn.Conv2d(4 * old.in_channels, old.out_channels, 1, bias=False)
        block.downsample = nn.Sequential(SpaceToChannels(), wide, nn.BatchNorm2d(old.out_channels))


def pointwise(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 convolution, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class LosslessBottleneck(nn.Module):
    """R3: a bottleneck whose middle moves pixels into channels, gated against a dilated shortcut.

    Args:
        inputs: channels.
        channels: of the middle; four times as many leave.
        dropout: of the gate.
    """

    def __init__(self, inputs: int, channels: int, dropout: float) -> None:
        super().__init__()
        outputs = 4 * channels
        self.main = nn.Sequential(
            *pointwise(inputs, channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            SpaceToChannels(),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            *pointwise(outputs, outputs),
            *pointwise(outputs, outputs),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, 2, padding=2, dilation=2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            *pointwise(outputs, outputs),
        )
        self.eca = Gate(outputs, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 4 channels, H / 2, W / 2), sides rounded up."""
        return torch.as_tensor(self.eca(self.main(x), self.shortcut(x)))


def lossless_bottleneck(block: BasicBlock | Bottleneck, units: Units) -> LosslessBottleneck:
    """The R3 form of a bottleneck.

    Raises:
        ValueError: a basic block, or a form of units that R3 does not have.
    """
    if not isinstance(block, Bottleneck):
        raise ValueError("variant=r3 is a form of bottlenecks; on ResNets of basic blocks choose r2, r2-stem or r2s")
    if units.form != "full":
        raise ValueError(f"unit={units.form}: variant=r3 has no such units; choose unit=full, or another variant")
    return LosslessBottleneck(block.conv1.in_channels, block.conv1.out_channels, units.dropout)
