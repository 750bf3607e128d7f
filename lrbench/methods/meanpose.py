"""Mean pose: the training set's average pose in the crop, without a network; the floor of every comparison."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

from lrbench.codecs.coordinates import Coordinates, CropCoordinates
from lrbench.geometry import Frame, Size
from lrbench.method import Method
from lrbench.models.network import PoseNetwork
from lrbench.structures import COCO, Batch

PAPER = "none: a baseline of this benchmark"
REPORTED = ()


def build(size: Size) -> Method[Coordinates]:
    """Compose the mean pose.

    Args:
        size: of the crop.
    """
    frame = Frame(size, "corner")
    return Method(
        name="meanpose",
        paper=PAPER,
        backbone="",
        frame=frame,
        codec=CropCoordinates(frame=frame),
        build_model=partial(mean_pose, size=size),
        stages=(),
        estimate=estimate,
    )


class MeanPose(nn.Module):
    """The same pose for every picture.

    Args:
        size: of the crop; the untrained pose is its middle.
        keypoints: how many.
    """

    output_layers = ()
    pose: Tensor

    def __init__(self, size: Size, keypoints: int) -> None:
        super().__init__()
        middle = torch.tensor([(size.width - 1) / 2, (size.height - 1) / 2])
        self.register_buffer("pose", middle.repeat(keypoints, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, K, 2) px."""
        return self.pose.expand(len(x), -1, -1)


def mean_pose(size: Size, keypoints: int = len(COCO)) -> PoseNetwork[Coordinates]:
    """An untrained mean pose."""
    return PoseNetwork(MeanPose(size, keypoints), certain)


def certain(xy: Tensor) -> Coordinates:
    """Positions with score 1."""
    return Coordinates(xy, torch.ones_like(xy[..., 0]))


def estimate(model: PoseNetwork[Coordinates], batches: Iterable[Batch]) -> None:
    """Average the labelled keypoints of unaugmented crops, in place."""
    network = model.network
    assert isinstance(network, MeanPose)
    total = torch.zeros(len(network.pose), 2, dtype=torch.float64)
    count = torch.zeros(len(network.pose), 1, dtype=torch.float64)
    for batch in batches:
        total += (batch.keypoints * batch.visible[..., None]).sum(0).double()
        count += batch.visible.sum(0)[:, None].double()
    network.pose = torch.where(count > 0, total / count.clamp_min(1), network.pose.double()).float()
