"""CAL: offsets are learnt where predicted peaks really fall, by a mask estimated from every mini-batch.

Wang, Zhang, Zhu, Ge, "Low-resolution Human Pose Estimation", Pattern Recognition 126, 2022, arXiv:2109.09090. The trunk
is HRNet's up to stage 3; stage 4 exists twice, for heatmaps and for offsets. Training stage 1 weights the offset loss
by a fixed mask, stage 2 by the MGM mask (Eq. 11-13, 15), which is refitted on each batch, so that the effective batch
size is a hyperparameter of the method. Deviation: one Gaussian is fitted in closed form, not by EM.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrbench.codecs import heatmap as hm
from lrbench.codecs.offset import HeatmapOffset, OffsetMaps, inside
from lrbench.geometry import Frame, Grid, Size
from lrbench.losses import weighted_mse
from lrbench.method import Method, Stage
from lrbench.models.backbone import Backbone, Fusion
from lrbench.models.backbones import BACKBONES
from lrbench.models.heads import Headed
from lrbench.models.hrnet import HRNetSpec, HRNetTrunk, Transition
from lrbench.models.hrnet import Stage as ExchangeStage
from lrbench.models.network import PoseNetwork
from lrbench.models.resnet import BasicBlock
from lrbench.structures import COCO

PAPER = "Wang et al., Pattern Recognition 126, 2022, arXiv:2109.09090"
REPORTED: dict[str, dict[str, object]] = {
    "CAL": {},
    "CAL (offset mask: binary heatmap)": {"mask": "fixed", "fixed_mask": "disc"},
    "CAL (offset mask: MGM)": {"mask": "mgm"},
    "CAL (GMM components=1)": {"components": 1},
    "CAL (GMM components=2)": {"components": 2},
    "CAL (GMM components=3)": {"components": 3},
    "CAL (heatmap target: binary)": {"heatmap": "binary"},
    "CAL (heatmap target: Gaussian)": {"heatmap": "gaussian"},
    "CAL (offset loss: L2)": {"offset_loss": "l2"},
    "CAL (offset loss: Smooth L1)": {"offset_loss": "smooth_l1"},
    "CAL (offset loss: L1)": {"offset_loss": "l1"},
    "CAL (one-stage)": {"stages": "one"},
    "CAL (two-stage)": {"stages": "two"},
}
"""Names under which the paper reports it, and the settings they stand for: the rows of its Tables 3 to 7."""

OffsetLoss = Literal["l1", "l2", "smooth_l1"]
FixedMask = Literal["gaussian", "disc"]
WINDOW = 3
"""Half side of the mask window in cells: 7x7 at every resolution (released code)."""
FEWEST = 3
"""Displacements below which no covariance is fitted; the released code crashes on one and gives a zero mask on two."""


def build(
    size: Size,
    backbone: str = "hrnet_w32",
    sigma: float | None = None,
    mask_sigma: float | None = None,
    radius: float = 4.0,
    unit: float | None = None,
    offset_weight: float | None = None,
    mask: Literal["mgm", "fixed"] = "mgm",
    fixed_mask: FixedMask | None = None,
    components: int | None = None,
    heatmap: Literal["gaussian", "binary"] = "gaussian",
    offset_loss: OffsetLoss = "l1",
    stages: Literal["two", "one"] = "two",
    head_blocks: int = 2,
    offset_width: int | None = None,
    fusion: Fusion = "auto",
) -> Method[OffsetMaps]:
    """Compose CAL; the defaults are those of the released files per size and backbone (released configuration files).

    Args:
        size: of the crop.
        backbone: on others than HRNets there is one stage 4, and only the heads are two.
        sigma: of the heatmap targets, cells.
        mask_sigma: of the fixed Gaussian mask, cells.
        radius: of the disc in which offsets are defined, cells.
        unit: cells per unit of the offset maps.
        offset_weight: lambda, the weight of the offset loss.
        mask: ``mgm``, or ``fixed`` to keep the fixed mask in training stage 2 (Table 3).
        fixed_mask: of training stage 1.
        components: of the mixture (Table 4).
        heatmap: ``binary`` replaces the Gaussian target by the disc (Table 5).
        offset_loss: Table 6.
        stages: ``one`` trains with the final mask from the start (Table 7).
        head_blocks: residual blocks per head; 2 in the released code, 1 fits Table 9.
        offset_width: channels of the finest branch of HRNet's offset tail; the backbone's width by default.
        fusion: see `lrbench.models.backbone.Fusion`.
    """
    wide = backbone == "hrnet_w48"
    low = size.height < 256
    if sigma is None:
        # released at 64x48: 0.3 for W32, 0.5 for W48, with 250 epochs; other backbones get the 1 that heatmap methods
        # have there, because a sparser map is not learnt in a small budget and its scores stay under the rescoring
        sigma = {"hrnet_w32": 0.3, "hrnet_w48": 0.5}.get(backbone, 1.0) if size.height <= 64 else _by_height(size)
    mask_sigma = (sigma if low else 1.0) if mask_sigma is None else mask_sigma
    unit = (1.0 if wide else 1.5) if unit is None else unit
    offset_weight = (0.7 if low and not wide else 1.0) if offset_weight is None else offset_weight
    fixed: FixedMask = ("gaussian" if low else "disc") if fixed_mask is None else fixed_mask
    components = (1 if low else 2) if components is None else components
    if not 1 <= components <= 3:
        raise ValueError(f"components={components}: expected 1, 2 or 3")
    hm.check_positive(sigma=sigma, mask_sigma=mask_sigma, unit=unit, radius=radius)
    fusion = BACKBONES[backbone].resolve_fusion(fusion, size)
    frame = Frame(size, "corner")
    loss = partial(cal_loss, unit=unit, offset_weight=offset_weight, offset_loss=offset_loss, mask_sigma=mask_sigma)
    first = partial(loss, mask=fixed, components=0)
    final = partial(loss, mask=fixed, components=components if mask == "mgm" else 0)
    schedule: tuple[Stage[OffsetMaps], ...] = (
        Stage(epochs=210, loss=first if stages == "two" else final, milestones=(170, 200)),
    )
    if stages == "two":
        schedule += (Stage(epochs=40, loss=final, learning_rate=1e-5),)
    return Method(
        name="cal",
        paper=PAPER,
        backbone=backbone,
        frame=frame,
        codec=HeatmapOffset(
            grid=Grid(frame, stride=4),
            heatmap="gaussian" if heatmap == "gaussian" else "disc",
            sigma=sigma,
            radius=radius,
            unit=unit,
            reach=int(3 * sigma + 0.5),
        ),
        build_model=partial(
            cal_network,
            backbone=backbone,
            size=size,
            fusion=fusion,
            head_blocks=head_blocks,
            offset_width=offset_width,
        ),
        stages=schedule,
        settings={
            "sigma": sigma,
            "mask_sigma": mask_sigma,
            "unit": unit,
            "offset_weight": offset_weight,
            "fixed_mask": fixed,
            "components": components,
            "fusion": fusion,
        },
    )


def _by_height(size: Size) -> float:
    # released: 1 at 128x96, 2 at 256x192, 3 at 384x288; ours, in proportion: 0.75 at 96x72, 1.5 at 192x144
    return size.height / 128


def cal_loss(
    prediction: OffsetMaps,
    ideal: OffsetMaps,
    weight: Tensor,
    *,
    unit: float,
    offset_weight: float,
    offset_loss: OffsetLoss,
    mask: FixedMask,
    mask_sigma: float,
    components: int,
) -> dict[str, Tensor]:
    """Heatmap and masked offset loss (Eq. 14 and 15, as the released code averages them).

    The corners of the 7x7 MGM window reach past the disc, where the offset target is 0 (released code).

    Args:
        prediction, ideal: heatmap (B, K, H, W), offset (B, K, 2, H, W).
        weight: (B, K) in {0, 1}.
        unit: cells per unit of the offset maps.
        offset_weight: lambda.
        offset_loss: what is averaged.
        mask: the fixed mask, used where no mixture is fitted.
        mask_sigma: of the fixed Gaussian mask, cells.
        components: of the mixture; 0 keeps the fixed mask.
    """
    weights = displacement_mask(prediction.heatmap, ideal.heatmap, weight, components) if components else None
    if weights is None:
        disc = inside(ideal)
        weights = static_mask(ideal.offset, disc, unit=unit, sigma=mask_sigma) if mask == "gaussian" else disc
    weights = (weights * weight[..., None, None])[:, :, None]
    ours, target = weights * prediction.offset, weights * ideal.offset
    if offset_loss == "l1":
        offset = F.l1_loss(ours, target)
    elif offset_loss == "l2":
        offset = F.mse_loss(ours, target)
    else:
        offset = F.smooth_l1_loss(ours, target)
    return {
        "heatmap": weighted_mse(prediction.heatmap, ideal.heatmap, weight),
        "offset": offset_weight * offset,
    }


def static_mask(offset: Tensor, disc: Tensor, *, unit: float, sigma: float) -> Tensor:
    """exp(-d^2 / (2 sigma^2)) / sigma inside the disc, (B, K, H, W), from an ideal offset field (B, K, 2, H, W)."""
    squared = (offset * unit).square().sum(2)
    return torch.exp(-squared / (2 * sigma**2)) / sigma * disc


@torch.no_grad()
def displacement_mask(predicted: Tensor, target: Tensor, weight: Tensor, components: int) -> Tensor | None:
    """MGM: the density of peak displacements, pasted on the true cell of every labelled keypoint (Eq. 11 to 13).

    Args:
        predicted, target: heatmaps (B, K, H, W).
        weight: (B, K); keypoints of weight 0 neither count nor get a mask.
        components: of the mixture.

    Returns:
        (B, K, H, W), every map scaled to [0, 1]; None where fewer than `FEWEST` keypoints are labelled.
    """
    guess, _ = hm.peak(predicted)
    truth, _ = hm.peak(target)
    counted = weight > 0
    displacement = (guess - truth)[counted]
    if len(displacement) < FEWEST:
        return None
    density = displacement_density(displacement.double(), components)
    # the window amid so many zeros that the map of every true cell, the window around it, is a cut of the whole
    height, width = target.shape[-2:]
    x, y = width - 1 - WINDOW, height - 1 - WINDOW
    cuts = F.pad(density, (x, x, y, y)).unfold(0, height, 1).unfold(1, width, 1)
    maps = cuts[height - 1 - truth[..., 1], width - 1 - truth[..., 0]]
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return ((maps - low) / (high - low + 1e-5)).float() * counted.float()[..., None, None]


def displacement_density(displacement: Tensor, components: int) -> Tensor:
    """Mixture of Gaussians fitted to displacements (N, 2), sampled on the 7x7 integer grid, indexed [y, x].

    One component has a closed form: mean and population covariance, 1e-6 added to its diagonal as scikit-learn does.
    """
    grid = torch.arange(-WINDOW, WINDOW + 1, dtype=torch.float64, device=displacement.device)
    points = torch.stack(torch.meshgrid(grid, grid, indexing="xy"), -1)
    if components == 1:
        mean = displacement.mean(0)
        centred = displacement - mean
        covariance = centred.T @ centred / len(displacement)
        covariance = covariance + 1e-6 * torch.eye(2, dtype=covariance.dtype, device=covariance.device)
        away = points - mean
        squared = (away @ torch.linalg.inv(covariance) * away).sum(-1)
        volume: Tensor = 2 * torch.pi * torch.linalg.det(covariance).sqrt()
        return torch.exp(-0.5 * squared) / volume
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(components, covariance_type="full", random_state=0).fit(displacement.cpu().numpy())
    # the grid has to be float: scikit-learn truncates the Mahalanobis term of an integer one
    log = mixture.score_samples(points.reshape(-1, 2).cpu().numpy())
    return torch.as_tensor(log).exp().view(points.shape[:2]).to(displacement.device)


class Head(nn.Module):
    """Residual blocks and a 1x1 convolution; layer names as released.

    Args:
        channels: of the features.
        outputs: channels of the map.
        blocks: residual blocks.
        tag: ``hm`` or ``om``.
    """

    def __init__(self, channels: int, outputs: int, blocks: int, tag: str) -> None:
        super().__init__()
        for number in range(1, blocks):
            self.add_module(f"final_block{number}", BasicBlock(channels, channels))
        self.add_module(f"final_block_{tag}", BasicBlock(channels, channels))
        self.add_module(f"final_layer_{tag}", nn.Conv2d(channels, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, outputs, H, W)."""
        for layer in self.children():
            x = layer(x)
        return x


class CALNetwork(HRNetTrunk):
    """HRNet with its fourth stage twice: one tail for heatmaps, one for offsets.

    Args:
        spec: widths and depths.
        branches: of both fourth stages.
        head_blocks: residual blocks per head.
        offset_width: channels of the finest branch of the offset tail.
        keypoints: how many.
    """

    output_layers = ("head_hm.final_layer_hm", "head_om.final_layer_om")

    def __init__(
        self,
        spec: HRNetSpec,
        branches: int,
        head_blocks: int = 2,
        offset_width: int | None = None,
        keypoints: int = len(COCO),
    ) -> None:
        super().__init__(spec)
        channels = spec.channels(branches)
        offset_width = offset_width or spec.width
        depth = spec.modules[2]
        self.transition3 = Transition(spec.channels(3), channels)
        self.stage4 = ExchangeStage(spec, depth, channels, channels, outputs=1)
        self.transition3_om = Transition(spec.channels(3), channels)
        self.stage4_om = ExchangeStage(spec, depth, channels, (offset_width, *channels[1:]), outputs=1)
        self.head_hm = Head(spec.width, keypoints, head_blocks, "hm")
        self.head_om = Head(offset_width, 2 * keypoints, head_blocks, "om")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pictures (B, 3, h, w) -> heatmaps (B, K, H, W), offsets (B, 2K, H, W) as x, y per keypoint."""
        shared = self.trunk(x)
        heatmap = self.stage4(self.transition3(shared))[0]
        offset = self.stage4_om(self.transition3_om(shared))[0]
        return self.head_hm(heatmap), self.head_om(offset)


class TwoHeads(Headed):
    """Two heads on one map: CAL on backbones without branches, as the authors' own first network (released history).

    Args:
        backbone: with one map.
        head_blocks: residual blocks per head.
        keypoints: how many.
    """

    output_layers = CALNetwork.output_layers

    def __init__(self, backbone: Backbone, head_blocks: int, keypoints: int = len(COCO)) -> None:
        super().__init__(backbone)
        channels = backbone.channels[0]
        self.head_hm = Head(channels, keypoints, head_blocks, "hm")
        self.head_om = Head(channels, 2 * keypoints, head_blocks, "om")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pictures (B, 3, h, w) -> heatmaps (B, K, H, W), offsets (B, 2K, H, W) as x, y per keypoint."""
        maps = self.features(x)[0]
        return self.head_hm(maps), self.head_om(maps)


def cal_network(
    backbone: str,
    size: Size,
    fusion: Fusion,
    head_blocks: int,
    offset_width: int | None,
    keypoints: int = len(COCO),
) -> PoseNetwork[OffsetMaps]:
    """The two-tailed network."""
    spec = BACKBONES[backbone]
    if isinstance(spec, HRNetSpec):
        branches = spec.branches(size, fusion)
        return PoseNetwork(CALNetwork(spec, branches, head_blocks, offset_width, keypoints), paired)
    if offset_width is not None:
        raise ValueError(f"offset_width={offset_width}: only HRNets have an offset tail of their own, not {backbone}")
    return PoseNetwork(TwoHeads(spec.finest(size, fusion), head_blocks, keypoints), paired)


def paired(outputs: tuple[Tensor, Tensor]) -> OffsetMaps:
    """Heatmaps and (B, 2K, H, W) offsets -> maps."""
    heatmap, offset = outputs
    return OffsetMaps(heatmap, offset.reshape(len(offset), -1, 2, *offset.shape[-2:]))
