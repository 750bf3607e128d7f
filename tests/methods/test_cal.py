"""CAL's mask of displacements against a slow version, joint by joint."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lrbench.codecs import heatmap as hm
from lrbench.methods.cal import FEWEST, WINDOW, displacement_density, displacement_mask


def maps(height: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(6, 4, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("height", "width"), [(16, 12), (8, 6), (6, 9), (4, 3), (2, 2)])
@pytest.mark.parametrize("components", [1, 2])
def test_mask_is_the_density_around_the_true_cell(height, width, components):
    predicted, target = maps(height, width, 0), maps(height, width, 1)
    weight = (torch.rand(6, 4, generator=torch.Generator().manual_seed(2)) < 0.8).float()
    ours = displacement_mask(predicted, target, weight, components)
    assert ours is not None
    guess, truth = hm.peak(predicted)[0], hm.peak(target)[0]
    density = displacement_density((guess - truth)[weight > 0].double(), components).numpy()
    for n, k in np.ndindex(6, 4):
        expected = np.zeros((height, width))
        if weight[n, k]:
            for y, x in np.ndindex(height, width):
                dx, dy = x - truth[n, k, 0].item(), y - truth[n, k, 1].item()
                if max(abs(dx), abs(dy)) <= WINDOW:
                    expected[y, x] = density[dy + WINDOW, dx + WINDOW]
            expected = (expected - expected.min()) / (expected.max() - expected.min() + 1e-5)
        np.testing.assert_array_equal(ours[n, k], expected.astype(np.float32))


@pytest.mark.parametrize("counted", [0, FEWEST - 1, FEWEST])
def test_too_few_displacements_give_no_mask(counted):
    weight = torch.zeros(6, 4)
    weight[0, :counted] = 1
    mask = displacement_mask(maps(8, 6, 0), maps(8, 6, 1), weight, 1)
    assert (mask is None) == (counted < FEWEST)


def test_precision_and_memory_format_of_the_prediction_do_not_matter():
    """Only its peaks count, which a network emits channels last and, inside autocast, in bfloat16."""
    predicted, target = maps(8, 6, 0).bfloat16(), maps(8, 6, 1)
    weight = torch.ones(6, 4)
    expected = displacement_mask(predicted.double(), target, weight, 1)
    assert expected is not None
    for given in (predicted, predicted.float(), predicted.float().to(memory_format=torch.channels_last)):
        ours = displacement_mask(given.requires_grad_(), target, weight, 1)
        assert ours is not None
        assert torch.equal(ours, expected)
        assert not ours.requires_grad
