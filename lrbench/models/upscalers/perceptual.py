"""Frozen networks as judges of pictures: two pictures are close if what a network sees in them is close.

VGG-19's last convolution is the judge of the released perceptual upscalers (ESRGAN, SPSR); its weights come from a
file. A pose network needs no file: it looks for what keypoints are found by (the idea of SR4IR, Kim et al., CVPR 2024,
arXiv:2404.01692).
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrbench.datasets.images import DataError
from lrbench.models.network import MEAN, STD, PoseNetwork
from lrbench.weights import read_weights

VGG19_WIDTHS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels, and how many convolutions have them before the resolution is halved (Simonyan and Zisserman, ICLR 2015,
arXiv:1409.1556, Table 1, E)."""

POSE_LEVELS = (("stage2", "stage3"), ("layer2", "layer3"))
"""Layers that are compared: of HRNets and Lite-HRNets, and of ResNets."""


class Judge(nn.Module):
    """A network that never changes, seen through its feature maps; it stays in eval mode whatever it is a part of."""

    def train(self, mode: bool = True) -> Judge:
        """Nothing changes."""
        super().train(False)
        return self

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, h, w) RGB in [0, 1] -> feature maps (B, C, H, W) of one or more levels; gradients reach the pixels."""
        raise NotImplementedError


class VGG19(Judge):
    """VGG-19 up to its last convolution (conv5_4), before that one's ReLU; layer names of torchvision."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width, count in VGG19_WIDTHS:
            for _ in range(count):
                # in place: no convolution needs its own output for its gradient, and maps are large
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-2])
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, h, w) RGB in [0, 1] -> one map (B, 512, h / 16, w / 16), sides rounded down."""
        return [self.features((pixels - self.mean) / self.std)]


def load_vgg(path: Path) -> VGG19:
    """VGG-19 with the weights of a file; its classifier is not read.

    Args:
        path: of torchvision's ImageNet weights, or of anything with these names.

    Raises:
        DataError: not a file of tensors, or not all of VGG-19's are among them.
    """
    network, tensors = VGG19(), read_weights(path)
    state = network.state_dict()
    unfit = [name for name, own in state.items() if name not in tensors or tensors[name].shape != own.shape]
    if unfit:
        raise DataError(
            f"weights {path}: no VGG-19, {len(unfit)} of its {len(state)} tensors missing or of another shape (first "
            f"{unfit[0]}); give torchvision's vgg19 (without batch norm)"
        )
    network.load_state_dict({name: tensors[name] for name in state})
    return network


class PoseFeatures(Judge):
    """Two levels of a pose network's trunk (see `POSE_LEVELS`); of several branches the finest.

    Args:
        pose: any network on an HRNet, Lite-HRNet or ResNet; frozen from now on. Its `front` is passed by: pictures are
            judged as they are.

    Raises:
        ValueError: the network has no such trunk.
    """

    def __init__(self, pose: PoseNetwork[Any]) -> None:
        super().__init__()
        self.levels = _levels(pose.network)
        self.pose = pose
        self.requires_grad_(False).eval()

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, h, w) RGB in [0, 1] -> two maps (B, C, H, W)."""
        maps: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: Tensor | list[Tensor]) -> None:
            maps.append(output if isinstance(output, Tensor) else output[0])
            if len(maps) == len(self.levels):
                raise _Enough

        hooks = [self.pose.network.get_submodule(name).register_forward_hook(keep) for name in self.levels]
        try:
            with suppress(_Enough):
                self.pose.read(pixels)
        finally:
            for hook in hooks:
                hook.remove()
        return maps


class _Enough(Exception):
    """The last level is computed; the rest of the network, up to half of its cost, has nothing to say."""


def _levels(network: nn.Module) -> tuple[str, str]:
    """Names of the layers of a network that are compared."""
    for name, module in network.named_modules():
        layers = dict(module.named_children())
        for first, second in POSE_LEVELS:
            if first in layers and second in layers:
                prefix = f"{name}." if name else ""
                return prefix + first, prefix + second
    kinds = ", ".join(" and ".join(pair) for pair in POSE_LEVELS)
    raise ValueError(
        f"{type(network).__name__} has no features to compare: expected layers {kinds}; take a method on an HRNet, "
        "Lite-HRNet or ResNet"
    )


def perceptual_loss(picture: Tensor, target: Tensor, features: Judge, *, weight: float) -> dict[str, Tensor]:
    """Mean absolute difference of feature maps, mean over the levels.

    Args:
        picture: (B, 3, h, w), what the upscaler made.
        target: (B, 3, h, w) in [0, 1].
        features: what both are seen through.
        weight: of the term.

    Returns:
        ``features``.
    """
    with torch.no_grad():
        expected = features(target)
    distances = [F.l1_loss(ours, theirs) for ours, theirs in zip(features(picture), expected, strict=True)]
    return {"features": weight * torch.stack(distances).mean()}
