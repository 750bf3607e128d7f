"""Direct regression: a backbone, global average pooling, linear layers; no grid is left (released RLE code)."""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrbench.geometry import Size
from lrbench.models.backbone import Fusion
from lrbench.models.backbones import BACKBONES
from lrbench.models.resnet import ResNetSpec
from lrbench.structures import COCO


class Readout(nn.Module):
    """Linear layer on a pooled vector, which may be normalised first (released RLE code).

    Args:
        inputs: length of the vector.
        outputs: of the layer.
        normed: divide the product, not the bias, by the norm of the vector.
    """

    def __init__(self, inputs: int, outputs: int, *, normed: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.normed = normed

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        return torch.as_tensor(self.linear(F.normalize(pooled, dim=1) if self.normed else pooled))


class PooledRegression(nn.Module):
    """Two numbers per keypoint, straight from the pooled maps of a backbone.

    A ResNet's last map is pooled, as released. Other backbones have parallel branches, most channels on the coarse
    ones, and pooling the finest alone would leave 32 numbers (HRNet-W32) for 34 coordinates: all are pooled and joined.

    Args:
        backbone: name.
        size: of the crops, px.
        fusion: see `Fusion`.
        normed: see `Readout`.
        keypoints: how many.
    """

    output_layers: tuple[str, ...] = ()

    def __init__(self, backbone: str, size: Size, fusion: Fusion, *, normed: bool, keypoints: int = len(COCO)) -> None:
        super().__init__()
        spec = BACKBONES[backbone]
        self.preact = spec.pyramid(size, fusion)
        self.pooled_maps = slice(-1, None) if isinstance(spec, ResNetSpec) else slice(None)
        self.features = sum(self.preact.channels[self.pooled_maps])
        self.keypoints = keypoints
        self.fc_coord = Readout(self.features, 2 * keypoints, normed=normed)

    def pool(self, x: Tensor) -> Tensor:
        """Normalised pictures (B, 3, h, w) -> means over space (B, features), at least float32."""
        maps = self.preact(x)[self.pooled_maps]
        return torch.cat([m.mean((-2, -1), dtype=torch.promote_types(m.dtype, torch.float32)) for m in maps], 1)

    def read(self, layer: Readout, pooled: Tensor) -> Tensor:
        """Means (B, features) -> (B, K, 2), never in half precision: its steps are 0.1 px at 64x48, 0.5 at 256x192."""
        # tensors without numbers, with which shapes are checked and multiply-adds counted, know no autocast
        exact = nullcontext() if pooled.is_meta else torch.autocast(pooled.device.type, enabled=False)
        with exact:
            return torch.as_tensor(layer(pooled)).view(len(pooled), self.keypoints, 2)
