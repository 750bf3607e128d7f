"""ResNet with the official state-dict names, and the three deconvolutions of SimpleBaseline (released code).

The stride lies in the 3x3 convolution of a bottleneck ("PyTorch style"). Maps are rounded up: at 64x48 the last one is
2x2 and three deconvolutions give 16x16, of which the first twelve columns are the crop's (see
`lrbench.models.backbone.cut`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from lrbench.geometry import Size
from lrbench.models.backbone import Backbone, Fusion, crop_or_official, projection


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the shortcut is projected where channels change."""

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = projection(inputs, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, channels, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 to four times the channels, and a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        outputs = channels * self.expansion
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = projection(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 4 channels, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


@dataclass(frozen=True)
class ResNetSpec:
    """Depths and width of a ResNet.

    Attributes:
        blocks: per layer 1 to 4.
        width: channels of the stem; every layer has twice as many as the one before.
        deconvolution: channels of SimpleBaseline's three deconvolutions.
        bottleneck: bottlenecks instead of basic blocks.
    """

    blocks: tuple[int, int, int, int]
    width: int = 64
    deconvolution: int = 256
    bottleneck: bool = True

    narrow = "resnet18_w32"
    shipped = ("conv1", "bn1", "layer1", "layer2", "layer3")

    @property
    def summary(self) -> str:
        """What it is, in one line."""
        kind = "bottlenecks" if self.bottleneck else "basic blocks"
        return f"ResNet, width {self.width}, {self.blocks} {kind}; deconvolutions of {self.deconvolution} channels"

    def resolve_fusion(self, fusion: Fusion, size: Size) -> Fusion:
        """The concrete rule behind ``auto`` at a size.

        Raises:
            ValueError: see `lrbench.models.backbone.crop_or_official`.
        """
        return crop_or_official(fusion, size, "ResNet")

    def finest(self, size: Size, fusion: Fusion = "auto") -> DeconvolvedResNet:
        """Layer 4 brought back to stride 4 by three deconvolutions (SimpleBaseline)."""
        self.resolve_fusion(fusion, size)
        return DeconvolvedResNet(self)

    def pyramid(self, size: Size, fusion: Fusion = "auto") -> ResNet:
        """The outputs of layers 1 to 4."""
        self.resolve_fusion(fusion, size)
        return ResNet(self)


class ResNet(Backbone):
    """Stem and four layers, without pooling and classifier.

    Args:
        spec: depths and width.
    """

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, spec.width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(spec.width)
        block = Bottleneck if spec.bottleneck else BasicBlock
        inputs, channels = spec.width, []
        for number, count in enumerate(spec.blocks):
            width = spec.width * 2**number
            first = block(inputs, width, 1 if number == 0 else 2)
            inputs = width * block.expansion
            self.add_module(
                f"layer{number + 1}", nn.Sequential(first, *(block(inputs, width) for _ in range(count - 1)))
            )
            channels.append(inputs)
        self.channels = tuple(channels)

    def stem(self, x: Tensor) -> Tensor:
        """Normalised pictures (B, 3, h, w) -> (B, C, h/4, w/4), the input of layer1."""
        return F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Normalised pictures (B, 3, h, w) -> maps at strides 4, 8, 16 and 32."""
        x = self.stem(x)
        maps = []
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
            maps.append(x)
        return maps


class DeconvolvedResNet(ResNet):
    """ResNet and three deconvolutions, one map at stride 4.

    Args:
        spec: depths and width.
    """

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__(spec)
        self.deconv_layers = deconvolutions(self.channels[-1], spec.deconvolution)
        self.channels = (spec.deconvolution,)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Normalised pictures (B, 3, h, w) -> one map at stride 4, with surplus cells where 32 does not divide."""
        return [self.deconv_layers(super().forward(x)[-1])]


def deconvolutions(inputs: int, channels: int) -> nn.Sequential:
    """Three 4x4 transposed convolutions of stride 2, each with batch norm and ReLU (SimpleBaseline)."""
    layers: list[nn.Module] = []
    for number in range(3):
        layers += [
            nn.ConvTranspose2d(inputs if number == 0 else channels, channels, 4, 2, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)
