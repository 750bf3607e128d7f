"""Gradient maps of pictures, and the losses of every upscaler: ours, and the pixels' part of the released one.

The released loss has two more terms: the distance of features (`lrbench.models.upscalers.perceptual`) and
what a discriminator says (`lrbench.models.upscalers.adversarial`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

RELEASED_PIXEL_WEIGHT = 0.01
"""Of the distance of pixels when a perceptual upscaler is trained (released settings of ESRGAN and SPSR, as below)."""

RELEASED_FEATURE_WEIGHT = 1.0
"""Of the distance of features."""

RELEASED_ADVERSARIAL_WEIGHT = 0.005
"""Of the relativistic loss of the pictures."""


def gradient_map(pixels: Tensor, padding: int = 1) -> Tensor:
    """How steep every channel is at every pixel: sqrt(v^2 + h^2 + 1e-6) (SPSR, released code).

    v is the lower minus the upper neighbour, h the right minus the left one. Black lies outside the picture, so its
    border is steep.

    Args:
        pixels: (B, C, h, w).
        padding: pixels of black that are put around the picture, of which the outermost get no value: 1 keeps the size;
            SPSR's released losses on the picture use 2.

    Returns:
        (B, C, h + 2 (padding - 1), w + 2 (padding - 1)), at least 1e-3.
    """
    x = F.pad(pixels, (padding,) * 4)
    vertical = x[..., 2:, 1:-1] - x[..., :-2, 1:-1]
    horizontal = x[..., 1:-1, 2:] - x[..., 1:-1, :-2]
    return torch.sqrt(vertical**2 + horizontal**2 + 1e-6)


def psnr_loss(picture: Tensor, target: Tensor, *, gradient_weight: float = 0.1) -> dict[str, Tensor]:
    """Distance to the high-resolution picture, and of the gradient maps, which keeps edges sharp.

    On photographs, bicubic at x4 has an L1 of 0.019 to 0.027 and a gradient L1 of 0.030 to 0.049, so with the default
    weight the second term is about a sixth of the first. Raise it to 0.5 if edges stay soft.

    Args:
        picture: (B, 3, h, w), what the upscaler made.
        target: (B, 3, h, w) in [0, 1].
        gradient_weight: of the second term.

    Returns:
        ``pixels`` and ``gradient``, to be added.
    """
    steepness = F.l1_loss(gradient_map(picture), gradient_map(target))
    return {"pixels": F.l1_loss(picture, target), "gradient": gradient_weight * steepness}


def released_loss(picture: Tensor, target: Tensor) -> dict[str, Tensor]:
    """The pixels' part of the loss of ESRGAN's and SPSR's released networks, which keeps colours in place.

    Args:
        picture: (B, 3, h, w), what the upscaler made.
        target: (B, 3, h, w) in [0, 1].

    Returns:
        ``pixels``.
    """
    return {"pixels": RELEASED_PIXEL_WEIGHT * F.l1_loss(picture, target)}
