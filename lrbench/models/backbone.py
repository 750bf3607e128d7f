"""What a backbone is: maps at the strides a head asks for, and how sizes that do not divide are handled."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor, nn

from lrbench.geometry import Size

Fusion = Literal["auto", "official", "three-branch", "crop"]
"""How a backbone copes with sizes that are no multiple of 32.

``official``: as released, sizes that do not fit are refused. ``three-branch``: HRNet's stage 4 has the first three
branches only, as the released CAL files at 64x48. ``crop``: up-sample, then cut the surplus right columns and bottom
rows, which keeps the alignment of the sizes that fit (bit-identical there). ``auto``: official where it fits,
three-branch for HRNets at 64x48, crop elsewhere.
"""


class Backbone(nn.Module):
    """Normalised pictures (B, 3, h, w) -> a list of maps, finest first.

    Attributes:
        channels: of every map.
    """

    channels: tuple[int, ...]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, h, w) -> [(B, C, h / stride, w / stride), ...], sides rounded up."""
        raise NotImplementedError


class BackboneSpec(Protocol):
    """One line of the list of backbones; builds its network for what a head needs."""

    @property
    def summary(self) -> str:
        """What it is, in one line."""

    @property
    def narrow(self) -> str:
        """Name of the backbone that stands in for it on a processor."""

    @property
    def shipped(self) -> tuple[str, ...]:
        """Prefixes of the layers that every method on it starts from, where such weights are shipped."""

    def finest(self, size: Size, fusion: Fusion = "auto") -> Backbone:
        """One map at stride 4, sized h / 4 by w / 4."""

    def pyramid(self, size: Size, fusion: Fusion = "auto") -> Backbone:
        """Maps at strides 4, 8, 16, 32."""

    def resolve_fusion(self, fusion: Fusion, size: Size) -> Fusion:
        """The concrete rule behind ``auto``; ValueError where a size cannot be taken."""


def check_fusion(fusion: Fusion, size: Size, name: str) -> bool:
    """Whether a size divides by 32.

    Raises:
        ValueError: an unknown rule, a size that is no multiple of 4, or ``official`` at a size that does not fit.
    """
    if fusion not in ("auto", "official", "three-branch", "crop"):
        raise ValueError(f"fusion {fusion!r}: expected auto, official, three-branch or crop")
    if size.height % 4 or size.width % 4:
        raise ValueError(f"{name} cannot take {size}: both sides must be multiples of 4; try 64x48 or 128x96")
    fits = size.height % 32 == 0 and size.width % 32 == 0
    if fusion == "official" and not fits:
        others = "fusion=three-branch, fusion=crop" if name == "HRNet" else "fusion=crop"
        raise ValueError(
            f"the official {name} cannot take {size}: both sides must be multiples of 32; "
            f"use {others} or a size such as 128x96"
        )
    return fits


def crop_or_official(fusion: Fusion, size: Size, name: str) -> Fusion:
    """The rule of backbones without branches to drop.

    Raises:
        ValueError: see `check_fusion`; ``three-branch`` is HRNet's.
    """
    fits = check_fusion(fusion, size, name)
    if fusion == "three-branch":
        raise ValueError(f"fusion=three-branch is HRNet's; {name} takes auto, official or crop")
    return fusion if fusion != "auto" else "official" if fits else "crop"


def cut(maps: Tensor, height: int, width: int) -> Tensor:
    """The first rows and columns of (..., H, W).

    Stride-2 convolutions sample positions 0, 2, 4, ...: output k lies at input 2k, so cutting the surplus on the right
    and below keeps the alignment of sizes that divide.
    """
    return maps[..., :height, :width]


def cut_to(maps: Tensor, pixels: Tensor, stride: int) -> Tensor:
    """The cells of (..., H, W) that belong to pictures (..., h, w): h and w over the stride, rounded up."""
    return cut(maps, -(-pixels.shape[-2] // stride), -(-pixels.shape[-1] // stride))


def projection(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential | None:
    """1x1 convolution for a shortcut whose channels or resolution change."""
    if inputs == outputs and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
