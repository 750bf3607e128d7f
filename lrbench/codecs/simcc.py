"""Axis codec: a position as two classifications, one over bins of x and one over bins of y (SimCC, formerly SimDR).

Bin j of an axis lies at px j / split, so a peak is at most half a bin off and nothing is refined. Released code
followed: leeyegy/SimCC, in both of its forms, "SimDR" (one-hot labels) and "SimDR*" (Gaussian labels).
Letters: B batch, K keypoints, N bins of an axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lrbench.codecs.heatmap import check_positive, labelled, peak
from lrbench.geometry import Frame
from lrbench.structures import Keypoints, mean

Labels = Literal["one-hot", "gaussian"]
FlipShift = Literal["exact", "released", "none"]
"""Whole bins by which a mirrored-back axis of x is moved toward lower bins: split - 1, always 1, or 0 (mmpose)."""


class Bins(NamedTuple):
    """What a network emits over the bins of both axes: natural logarithms of probabilities, see `log_probabilities`.

    Gaussian labels do not sum to 1, and averaged logits are off by a constant; `AxisBins` minds neither.

    Attributes:
        x: (B, K, bins along x).
        y: (B, K, bins along y).
    """

    x: Tensor
    y: Tensor


def log_probabilities(logits: tuple[Tensor, Tensor]) -> Bins:
    """A network's logits, normalised per axis, in float32 whatever they were computed in.

    The released code does it in its losses and in its decoder; here it is done once, for both.

    Args:
        logits: (B, K, bins along x), (B, K, bins along y).
    """
    x, y = (F.log_softmax(axis, -1, dtype=torch.float32) for axis in logits)
    return Bins(x, y)


@dataclass(frozen=True, kw_only=True)
class AxisBins:
    """One-hot or Gaussian labels over bins in, the largest bin of each axis out.

    Attributes:
        frame: the crop.
        split: bins per px (k), at least 1, not necessarily whole.
        labels: ``one-hot`` (SimDR) puts 1 - smoothing on the nearest bin and shares the rest out evenly; ``gaussian``
            (SimDR*) draws a density around the joint itself, whose mass beyond the ends of the axis is lost.
        smoothing: of one-hot labels, 0 or more and below 1.
        sigma: of Gaussian labels, in bins.
        flip_shift: see `FlipShift`. With one bin there remains 1/3 px at split 3, with ``exact`` nothing where the
            split is whole; else the shift is rounded, half to even, and at split 1.5 there remains half a bin.
    """

    frame: Frame
    split: float
    labels: Labels
    smoothing: float = 0.1
    sigma: float = 4.0
    flip_shift: FlipShift = "exact"

    def __post_init__(self) -> None:
        check_positive(sigma=self.sigma)
        if not (math.isfinite(self.split) and self.split >= 1):
            raise ValueError(f"split={self.split:g}: expected at least 1 bin per px")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing={self.smoothing:g}: expected at least 0 and below 1")
        height, width = self.frame.size.height * self.split, self.frame.size.width * self.split
        if height % 1 or width % 1:
            raise ValueError(
                f"split={self.split:g} at {self.frame.size} gives {height:g} by {width:g} bins; "
                "choose a split that gives whole numbers, for example 2"
            )

    @property
    def bins(self) -> tuple[int, int]:
        """Along x and along y."""
        return int(self.frame.size.width * self.split), int(self.frame.size.height * self.split)

    @property
    def shift(self) -> int:
        """Bins by which an axis of x that was mirrored back is moved toward lower ones.

        A joint at px u comes back from the mirrored pass at bin (split W - 1) - split (W - 1 - u), which exceeds
        split u by split - 1.
        """
        return {"exact": round(self.split - 1), "released": 1, "none": 0}[self.flip_shift]

    def encode(self, keypoints: Tensor, visible: Tensor) -> tuple[Bins, Tensor]:
        """Ideal predictions of labelled keypoints: the logarithms of the labels, -inf where a label is 0.

        Args:
            keypoints: (B, K, 2) px of the crop; computed in this dtype.
            visible: (B, K) above 0 where labelled.

        Returns:
            fields (B, K, N) float32, and weight (B, K) in {0, 1}.
        """
        center = keypoints * self.split
        if self.labels == "one-hot":
            center = center.round()  # half to even, as numpy does in the released code
            x, y = (self._one_hot(center[..., axis], count) for axis, count in enumerate(self.bins))
            met = (center >= 0) & (center < center.new_tensor(self.bins))
        else:
            x, y = (self._gaussian(center[..., axis], count) for axis, count in enumerate(self.bins))
            met = self._touched(keypoints)
        weight = labelled(visible) * met.all(-1)
        return Bins(x.float(), y.float()), weight.float()

    def decode(self, prediction: Bins) -> Keypoints:
        """Positions in px of the crop; the score is the larger of the two maxima, for Gaussian labels the smaller.

        Raises:
            ValueError: another number of bins than the codec's.
            FloatingPointError: a field holds NaN.
        """
        found = prediction.x.shape[-1], prediction.y.shape[-1]
        if found != self.bins:
            raise ValueError(
                f"the model returned {found[0]} bins of x and {found[1]} of y, the codec expects {self.bins[0]} and "
                f"{self.bins[1]} for crops {self.frame.size}; give the model the size and split (here {self.split:g})"
            )
        # an axis is a map of one row
        (x, score_x), (y, score_y) = (peak(field.softmax(-1)[..., None, :]) for field in prediction)
        xy = torch.stack([x[..., 0], y[..., 0]], -1) / self.split
        score = torch.maximum(score_x, score_y) if self.labels == "one-hot" else torch.minimum(score_x, score_y)
        return Keypoints(xy.float(), score.float())

    def unflip(self, prediction: Bins, order: Tensor) -> Bins:
        """Undo a mirrored input: exchange left and right by `order` (K,), reverse x, shift it; its last bin repeats."""
        x = prediction.x[:, order].flip(-1)
        repeated = x[..., -1:].expand(*x.shape[:-1], self.shift)
        return Bins(torch.cat([x[..., self.shift :], repeated], -1), prediction.y[:, order])

    def average(self, plain: Bins, unflipped: Bins) -> Bins:
        """SimDR averages probabilities, of which this gives the logarithms; SimDR* averages logits (released code)."""
        if self.labels == "gaussian":
            return mean(plain, unflipped)
        pairs = zip(plain, unflipped, strict=True)
        x, y = (torch.logaddexp(a.log_softmax(-1), b.log_softmax(-1)) - math.log(2) for a, b in pairs)
        return Bins(x, y)

    def _one_hot(self, index: Tensor, count: int) -> Tensor:
        """Logarithm of smoothed labels: (B, K) -> (B, K, N)."""
        rest = self.smoothing / (count - 1)
        log_rest = math.log(rest) if rest else -math.inf
        hit = torch.arange(count, device=index.device) == index[..., None]
        return torch.where(hit, math.log1p(-self.smoothing), log_rest)

    def _gaussian(self, center: Tensor, count: int) -> Tensor:
        """Logarithm of exp(-d^2 / (2 sigma^2)) / (sigma sqrt(2 pi)): (B, K) -> (B, K, N)."""
        distance = torch.arange(count, dtype=center.dtype, device=center.device) - center[..., None]
        return -distance.square() / (2 * self.sigma**2) - math.log(self.sigma * math.sqrt(2 * math.pi))

    def _touched(self, keypoints: Tensor) -> Tensor:
        """Whether px +- 3 sigma reaches the crop, per axis (B, K, 2).

        The released test: sigma is in bins and yet counted in px, and bounds are truncated toward zero.
        """
        size = keypoints.new_tensor([self.frame.size.width, self.frame.size.height])
        reach = 3 * self.sigma
        return ((keypoints - reach).trunc() < size) & ((keypoints + reach + 1).trunc() >= 0)
