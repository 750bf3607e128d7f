"""Coordinate codec: a network that emits positions itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from lrbench.geometry import Frame
from lrbench.structures import Keypoints, mean


class Coordinates(NamedTuple):
    """What a regression network emits.

    Attributes:
        xy: (B, K, 2) px of the crop.
        score: (B, K).
    """

    xy: Tensor
    score: Tensor


@dataclass(frozen=True, kw_only=True)
class CropCoordinates:
    """Positions in px of the crop, as they are."""

    frame: Frame

    def encode(self, keypoints: Tensor, visible: Tensor) -> tuple[Coordinates, Tensor]:
        """Crop px (B, K, 2), visible (B, K) -> the same, scores 1, weight (B, K) in {0, 1}."""
        weight = (visible > 0).float()
        return Coordinates(keypoints.float(), weight), weight

    def decode(self, prediction: Coordinates) -> Keypoints:
        """Nothing to decode."""
        return Keypoints(prediction.xy.float(), prediction.score.float())

    def unflip(self, prediction: Coordinates, order: Tensor) -> Coordinates:
        """Undo a mirrored input; `order` (K,) exchanges left and right."""
        xy = prediction.xy[:, order].clone()
        xy[..., 0] = self.frame.size.width - 1 - xy[..., 0]
        return Coordinates(xy, prediction.score[:, order])

    def average(self, plain: Coordinates, unflipped: Coordinates) -> Coordinates:
        """Mean of both, field by field."""
        return mean(plain, unflipped)
