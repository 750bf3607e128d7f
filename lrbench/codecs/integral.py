"""Integral codec: the expected position under a softmaxed map (soft-argmax), with the grids papers use.

IPR (arXiv:1711.08229) and mmpose say that cell i is pixel stride * i, DSNT (arXiv:1801.07372) that cells tile the crop;
`lrbench.geometry.Grid` knows both. Letters: B batch, K keypoints, H W cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lrbench.codecs import heatmap as hm
from lrbench.geometry import Grid
from lrbench.structures import Keypoints, mean

NEAR = 2.0
"""Cells around a position whose probability counts for its score."""


class SoftMaps(NamedTuple):
    """What an integral network emits.

    Attributes:
        logits: (B, K, H, W).
        xy: (B, K, 2) px of the crop, the expectation under the softmax of the logits.
    """

    logits: Tensor
    xy: Tensor


@dataclass(frozen=True, kw_only=True)
class Integral:
    """Expectation of position; no peak, no refinement.

    Attributes:
        grid: of the map.
        sigma: of the Gaussian that the map is drawn towards, in cells.
        center: of that Gaussian: ``exact``, or ``rounded`` to a cell (mmpose).
        beta: the logits are multiplied by this before the softmax.
        compensate: undo the pull of the background towards the middle (Gu et al., ICCV 2021, as mmpose has it).
        flip: what the flip test averages: ``coordinates`` (IPR) or ``logits`` (DSNT).
    """

    grid: Grid
    sigma: float
    center: Literal["exact", "rounded"] = "exact"
    beta: float = 1.0
    compensate: bool = False
    flip: Literal["coordinates", "logits"] = "logits"

    def __post_init__(self) -> None:
        hm.check_positive(sigma=self.sigma, beta=self.beta)

    def emit(self, logits: Tensor) -> SoftMaps:
        """Logits (B, K, H, W) -> logits and expected positions."""
        logits = logits.float()
        return SoftMaps(logits, self.expectation(logits))

    def probability(self, logits: Tensor) -> Tensor:
        """Softmax of beta times the logits over all cells, (B, K, H, W)."""
        return (self.beta * logits).flatten(2).softmax(-1).view_as(logits)

    def expectation(self, logits: Tensor) -> Tensor:
        """Expected position (B, K, 2) in px of the crop."""
        p = self.probability(logits)
        x = (p.sum(-2) * torch.arange(p.shape[-1], dtype=p.dtype, device=p.device)).sum(-1)
        y = (p.sum(-1) * torch.arange(p.shape[-2], dtype=p.dtype, device=p.device)).sum(-1)
        xy = hm.to_px(self.grid, torch.stack([x, y], -1))
        if not self.compensate:
            return xy
        # x' = C / (C - 1) (x - 1 / (2 C)) in units of the crop, C = sum exp(logits); 1 / C is kept below a half, where
        # a map of nothing but background would turn the position round
        size = xy.new_tensor([self.grid.frame.size.width, self.grid.frame.size.height])
        share = (-logits.flatten(2).logsumexp(-1)).exp().clamp_max(0.5)[..., None]
        return (xy / size - share / 2) / (1 - share) * size

    def encode(self, keypoints: Tensor, visible: Tensor) -> tuple[SoftMaps, Tensor]:
        """The positions themselves, and logits whose softmax is the Gaussian around each.

        Args:
            keypoints: (B, K, 2) px of the crop.
            visible: (B, K) above 0 where labelled.

        Returns:
            maps and positions, float32, and weight (B, K) in {0, 1}.
        """
        cells = hm.to_cells(self.grid, keypoints)
        if self.center == "rounded":
            cells = hm.nearest_cell(cells).to(cells.dtype)
        dx, dy = hm.axis_distances(self.grid, cells)
        squared = dx.square()[..., None, :] + dy.square()[..., :, None]
        logits = -squared / (2 * self.sigma**2 * self.beta)
        return SoftMaps(logits.float(), keypoints.float()), hm.labelled(visible).float()

    def decode(self, prediction: SoftMaps) -> Keypoints:
        """Positions in px of the crop; the score is the probability within two cells of the position."""
        hm.check_size(self.grid, prediction.logits)
        cells = hm.to_cells(self.grid, prediction.xy)
        dx, dy = hm.axis_distances(self.grid, cells)
        near = dx.square()[..., None, :] + dy.square()[..., :, None] <= NEAR**2
        score = (self.probability(prediction.logits) * near).sum((-2, -1))
        if score.isnan().any():
            raise FloatingPointError("the network returned NaN; training has diverged or its weights are damaged")
        return Keypoints(prediction.xy.float(), score.float())

    def unflip(self, prediction: SoftMaps, order: Tensor) -> SoftMaps:
        """Undo a mirrored input: mirror maps and positions, exchange left and right by `order` (K,)."""
        logits = hm.mirror_maps(prediction.logits[:, order], self.grid.mirror_shift)
        xy = prediction.xy[:, order].clone()
        xy[..., 0] = self.grid.frame.size.width - 1 - xy[..., 0]
        return SoftMaps(logits, xy)

    def average(self, plain: SoftMaps, unflipped: SoftMaps) -> SoftMaps:
        """Mean of the coordinates, or of the logits with their expectation taken anew."""
        both = mean(plain, unflipped)
        return both if self.flip == "coordinates" else self.emit(both.logits)


def js_divergence(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence of maps (B, K, H, W), (B, K) in [0, log 2] (released DSNT code, eps 1e-24)."""
    # 1e-24 added inside the logarithms as released; float32 holds it
    middle = ((p + q) / 2 + 1e-24).log()
    divergence = p * ((p + 1e-24).log() - middle) + q * ((q + 1e-24).log() - middle)
    return 0.5 * divergence.sum((-2, -1))
