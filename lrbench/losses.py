"""Losses that two or more methods use. All return named terms; the training loop adds them."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from lrbench.codecs.heatmap import Heatmaps
from lrbench.codecs.simcc import Bins

BinLoss = Literal["nmt", "nmtnorm", "kl"]
"""Names of the released SimCC code: ``nmt`` sums over the N bins of an axis and the K keypoints; ``nmtnorm`` averages
over both and is K N times smaller; ``kl`` ("KLDiscret") is the latter's name on Gaussian labels."""


def weighted_mse(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """0.5 mean (w (prediction - target))^2 over everything, unlabelled keypoints included (released HRNet code).

    So the gradient scales with the share of labelled keypoints, as in all published runs.

    Args:
        prediction, target: (B, K, H, W).
        weight: (B, K).
    """
    return 0.5 * (weight[..., None, None] * (prediction - target)).square().mean()


def heatmap_loss(prediction: Heatmaps, ideal: Heatmaps, weight: Tensor) -> dict[str, Tensor]:
    """Mean squared error of heatmaps (SimpleBaseline, HRNet, DARK, UDP's Gaussian form)."""
    return {"heatmap": weighted_mse(prediction.heatmap, ideal.heatmap, weight)}


def bin_loss(prediction: Bins, ideal: Bins, weight: Tensor, *, form: BinLoss) -> dict[str, Tensor]:
    """Kullback-Leibler divergence of the predicted from the ideal bins, a term per axis (released SimCC code).

    KL = sum or mean over bins of t (log t - log p), where labels t may be 0 and need not sum to 1. Both forms average
    over the batch, unlabelled keypoints included.

    Args:
        prediction, ideal: log p and log t, (B, K, N) per axis.
        weight: (B, K).
        form: what is summed and what averaged.
    """
    terms = {}
    for axis, log_p, log_t in zip(Bins._fields, prediction, ideal, strict=True):
        # from t and not from log t, of which 0 log 0 would be NaN
        divergence = F.kl_div(log_p, log_t.exp(), reduction="none")
        if form == "nmt":
            terms[axis] = (weight * divergence.sum(-1)).sum(-1).mean()
        else:
            terms[axis] = (weight * divergence.mean(-1)).mean()
    return terms
