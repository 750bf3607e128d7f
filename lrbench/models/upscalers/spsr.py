"""SPSR: a branch that predicts the gradient map of the large picture guides the branch that paints it.

Ma et al., CVPR 2020, arXiv:2003.13081. Written from a description of the released network, with its layer names; the
released file stores one layer twice (``HR_conv0_new.0`` is ``model.8``) and two fixed kernels, which are not kept here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrbench.models.upscalers.gradients import gradient_map, psnr_loss, released_loss
from lrbench.models.upscalers.rrdb import GROWTH, RRDB, Trunk, repeated_steps
from lrbench.models.upscalers.upscaler import Upscaler, convolution

TAPS = (5, 10, 15, 20)
"""RRDBs of the trunk, counted from 1, whose outputs the gradient branch sees."""

RELEASED_GRADIENT_WEIGHT = 0.01
"""Of the squared distance between gradient maps of the pictures (released settings, as below)."""

RELEASED_BRANCH_WEIGHT = 0.5
"""Of the distance between the branch's map and that of the target."""

RELEASED_GRADIENT_ADVERSARIAL_WEIGHT = 0.005
"""Of what the second discriminator says, which sees gradient maps of the pictures with `PICTURE_PADDING`. The first
one, and the features, have the weights of all perceptual networks (`lrbench.models.upscalers.gradients`)."""

PICTURE_PADDING = 2
"""Of gradient maps of pictures in released losses; that of the branch's target is 1 (see `gradient_map`)."""


class StructuredPicture(NamedTuple):
    """What SPSR emits while it is trained.

    Attributes:
        picture: (B, 3, scale h, scale w) RGB.
        gradients: (B, 3, scale h, scale w), the predicted gradient map of the picture.
    """

    picture: Tensor
    gradients: Tensor


class SPSR(Upscaler):
    """A picture branch, a gradient branch, and their fusion.

    Args:
        scale: 2 or 4.
        width: channels.
        blocks: RRDBs of the trunk, at least 20.
        growth: of dense blocks, see `lrbench.models.upscalers.rrdb.DenseBlock`.
    """

    last = "f_HR_conv1.0"

    def __init__(self, scale: int, *, width: int = 64, blocks: int = 23, growth: int = GROWTH) -> None:
        super().__init__(scale)
        if blocks < TAPS[-1]:
            raise ValueError(f"SPSR cannot have {blocks} RRDBs: its gradient branch looks at number {TAPS[-1]}")
        trunk = Trunk(width, blocks, growth)
        self.model = nn.Sequential(convolution(3, width), trunk, *repeated_steps(scale, width))
        self.HR_conv1_new = nn.Sequential(convolution(width, width))
        self.b_fea_conv = nn.Sequential(convolution(3, width))
        for number in range(1, len(TAPS) + 1):
            self.add_module(f"b_block_{number}", RRDB(2 * width, growth))
            self.add_module(f"b_concat_{number}", nn.Sequential(convolution(2 * width, width)))
        self.b_LR_conv = nn.Sequential(convolution(width, width))
        self.b_module = nn.Sequential(*repeated_steps(scale, width), convolution(width, width))
        self.conv_w = nn.Sequential(convolution(width, 3, 1))
        self.f_block = RRDB(2 * width, growth)
        self.f_concat = nn.Sequential(convolution(2 * width, width))
        self.f_HR_conv0 = nn.Sequential(convolution(width, width), nn.LeakyReLU(0.2))
        self.f_HR_conv1 = nn.Sequential(convolution(width, 3))

    def details(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 3, scale h, scale w)."""
        return self._fused(*self._branches(pixels))

    def forward(self, pixels: Tensor) -> Tensor | StructuredPicture:  # type: ignore[override]  # more in training
        """(B, 3, h, w) -> the picture (B, 3, scale h, scale w); in training with the gradient map of the branch."""
        if not self.training:
            return self.enlarge(pixels)
        painted, steepness = self._branches(pixels)
        picture = self.finished(self._fused(painted, steepness), pixels)
        return StructuredPicture(picture, self.conv_w(steepness))

    def _branches(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, h, w) -> features (B, width, scale h, scale w) of the picture branch and of the gradient branch."""
        first, trunk, *enlarging = self.model
        assert isinstance(trunk, Trunk)
        deep, taps = trunk.tapped(first(pixels), TAPS)
        for layer in enlarging:
            deep = layer(deep)
        start = gradients = self.b_fea_conv(gradient_map(pixels))
        for number, tap in enumerate(taps, 1):
            mixed = self.get_submodule(f"b_block_{number}")(torch.cat([gradients, tap], 1))
            gradients = self.get_submodule(f"b_concat_{number}")(mixed)
        return self.HR_conv1_new(deep), self.b_module(start + self.b_LR_conv(gradients))

    def _fused(self, painted: Tensor, steepness: Tensor) -> Tensor:
        """Features of both branches -> (B, 3, scale h, scale w)."""
        x = self.f_concat(self.f_block(torch.cat([steepness, painted], 1)))
        return self.f_HR_conv1(self.f_HR_conv0(x))  # type: ignore[no-any-return]


def structure_loss(
    output: StructuredPicture,
    target: Tensor,
    *,
    gradient_weight: float = 0.1,
    branch_weight: float = RELEASED_BRANCH_WEIGHT,
) -> dict[str, Tensor]:
    """`psnr_loss` of the picture, and the distance of the branch's map to that of the target (released weight).

    Args:
        output: of the network in training mode.
        target: (B, 3, scale h, scale w) in [0, 1].
        gradient_weight: see `psnr_loss`.
        branch_weight: of the last term.

    Returns:
        ``pixels``, ``gradient`` and ``branch``, to be added.
    """
    branch = F.l1_loss(output.gradients, gradient_map(target))
    return {**psnr_loss(output.picture, target, gradient_weight=gradient_weight), "branch": branch_weight * branch}


def released_structure_loss(output: StructuredPicture, target: Tensor) -> dict[str, Tensor]:
    """What SPSR was released with, but for features and the two discriminators, which are other networks' to say.

    Args:
        output: of the network in training mode.
        target: (B, 3, scale h, scale w) in [0, 1].

    Returns:
        ``pixels``, ``gradient`` and ``branch``, to be added.
    """
    ours, theirs = (gradient_map(pixels, PICTURE_PADDING) for pixels in (output.picture, target))
    return {
        **released_loss(output.picture, target),
        "gradient": RELEASED_GRADIENT_WEIGHT * F.mse_loss(ours, theirs),
        "branch": RELEASED_BRANCH_WEIGHT * F.l1_loss(output.gradients, gradient_map(target)),
    }
