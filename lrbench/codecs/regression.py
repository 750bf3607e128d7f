"""Regression codecs: positions as fractions of the crop's sides, so that no number depends on the resolution.

Released RLE code counts from the middle of the crop, u = x / W - 0.5; mmpose from its first pixel, u = x / W. Both
divide the px coordinate of a pixel centre by the side, hence the half pixel in `CropFractions.mirrored`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lrbench.geometry import Size


class Fractions(NamedTuple):
    """Positions alone.

    Attributes:
        uv: (B, K, 2) fractions of width and height, from the origin of `CropFractions`.
    """

    uv: Tensor


class ScaledFractions(NamedTuple):
    """Positions and how far off they may be.

    Attributes:
        uv: (B, K, 2) fractions of width and height, from the origin of `CropFractions`.
        sigma: (B, K, 2) scale of the error along x and y, in the same unit, in (0, 1); zero in an ideal prediction.
    """

    uv: Tensor
    sigma: Tensor


@dataclass(frozen=True, kw_only=True)
class CropFractions:
    """The unit of regressed positions: uv = px / (W, H) - origin.

    Attributes:
        size: of the crop.
        origin: fraction that is called zero: 0.5 in the released RLE code, 0 in mmpose.
    """

    size: Size
    origin: float

    def from_px(self, xy: Tensor) -> Tensor:
        """Crop px (B, K, 2) -> fractions."""
        return xy / self._sides(xy) - self.origin

    def to_px(self, uv: Tensor) -> Tensor:
        """Fractions (B, K, 2) -> crop px.

        Raises:
            FloatingPointError: a fraction is NaN.
        """
        if uv.isnan().any():
            raise FloatingPointError("the network returned NaN; training has diverged or its weights are damaged")
        return (uv + self.origin) * self._sides(uv)

    def mirrored(self, uv: Tensor) -> Tensor:
        """The same points (B, K, 2) of the mirrored crop.

        x' = W - 1 - x, so u' = 1 - 2 origin - 1 / W - u. The 1 / W is exact; the released RLE code writes it as
        1 / (4 x the width of a heatmap that it does not have).
        """
        u = 1 - 2 * self.origin - 1 / self.size.width - uv[..., 0]
        return torch.stack([u, uv[..., 1]], -1)

    def _sides(self, like: Tensor) -> Tensor:
        return like.new_tensor([self.size.width, self.size.height])
