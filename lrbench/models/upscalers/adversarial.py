"""A second network that learns to tell enlarged pictures from originals, and the losses of both.

The U-Net is Real-ESRGAN's (Wang et al., ICCVW 2021, arXiv:2107.10833), which takes any size; spectral norm: Miyato et
al., ICLR 2018, arXiv:1802.05957. The relativistic average loss (Jolicoeur-Martineau, ICLR 2019, arXiv:1807.00734) has
the form of the released ESRGAN code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from lrbench.models.network import reset_as_torch

POWER_ITERATIONS = 15
"""With which the singular vectors of fresh weights are found (torch's number); each training pass adds one."""


class UNetDiscriminator(nn.Module):
    """One logit per pixel, higher where the picture looks like an original.

    Takes sizes from 8x8; where 8 does not divide, as in gradient maps with two pixels more, decoder maps are brought to
    the size of the encoder's.

    Args:
        width: channels at full resolution; 64 as published.
    """

    def __init__(self, *, width: int = 64) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, width, 3, padding=1)
        self.conv1 = _halving(width, 2 * width)
        self.conv2 = _halving(2 * width, 4 * width)
        self.conv3 = _halving(4 * width, 8 * width)
        self.conv4 = _normed(8 * width, 4 * width)
        self.conv5 = _normed(4 * width, 2 * width)
        self.conv6 = _normed(2 * width, width)
        self.conv7 = _normed(width, width)
        self.conv8 = _normed(width, width)
        self.conv9 = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) -> logits (B, 1, h, w)."""
        full = _leaky(self.conv0(pixels))
        half = _leaky(self.conv1(full))
        quarter = _leaky(self.conv2(half))
        x = _leaky(self.conv3(quarter))
        for layer, skip in ((self.conv4, quarter), (self.conv5, half), (self.conv6, full)):
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = _leaky(layer(x)) + skip
        x = _leaky(self.conv8(_leaky(self.conv7(x))))
        return self.conv9(x)  # type: ignore[no-any-return]

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Fill all parameters anew, as torch does by itself, and the singular vectors of spectral norms.

        Args:
            generator: the only source of randomness.
        """
        training = self.training
        self.train()  # in which reading a weight iterates
        for layer in self.children():
            assert isinstance(layer, nn.Conv2d)
            if not is_parametrized(layer):
                reset_as_torch(layer, generator)
                continue
            normed = layer.get_submodule("parametrizations.weight")
            assert isinstance(normed, ParametrizationList)
            bound = normed.original[0].numel() ** -0.5
            nn.init.uniform_(normed.original, -bound, bound, generator=generator)
            for vector in normed.buffers():
                nn.init.normal_(vector, generator=generator)
                vector /= vector.norm()
            for _ in range(POWER_ITERATIONS):
                normed()
        self.train(training)


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Relativistic average loss: originals should look more real than enlarged pictures do on average, and vice versa.

    Means are taken over the batch and all pixels; the logits of one kind are compared with the mean of the other.

    Args:
        real: logits of originals, of any shape.
        fake: logits of enlarged pictures, which must not pass gradients to the upscaler.

    Returns:
        A number, log 2 where the discriminator cannot tell.
    """
    return (_cross_entropy(real - fake.mean(), 1) + _cross_entropy(fake - real.mean(), 0)) / 2


def generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The same with the labels exchanged: enlarged pictures should look more real than originals do on average.

    Args:
        real: logits of originals.
        fake: logits of enlarged pictures.
    """
    return discriminator_loss(fake, real)


def _cross_entropy(logits: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def _normed(inputs: int, outputs: int) -> nn.Module:
    """3x3 convolution whose weight, as a matrix with a row per output, has spectral norm 1."""
    return spectral_norm(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))


def _halving(inputs: int, outputs: int) -> nn.Module:
    """4x4 convolution to half the size, normed likewise."""
    return spectral_norm(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False))


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)
