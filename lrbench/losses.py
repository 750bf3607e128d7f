"""Losses that two or more methods use. All return named terms; the training loop adds them."""

from __future__ import annotations

from torch import Tensor

from lrbench.codecs.heatmap import Heatmaps


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
