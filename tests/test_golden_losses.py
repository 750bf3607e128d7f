"""Losses and the displacement mask against the published code."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from lrbench.codecs.heatmap import Heatmaps
from lrbench.codecs.offset import OffsetMaps
from lrbench.geometry import Size
from lrbench.losses import heatmap_loss, weighted_mse
from lrbench.method import load_method
from lrbench.methods.cal import cal_loss, displacement_mask
from lrbench.methods.udp import interleaved, offset_loss

pytestmark = pytest.mark.golden
sizes = pytest.mark.parametrize("size", ["64x48", "128x96"])


def targets(golden, codec, size, n):
    arrays = golden.arrays(f"targets/joints_{size}")
    first = golden.facts["loss_first_row"]
    rows = slice(first, first + n)
    joints, visible = torch.from_numpy(arrays["joints"][rows, :, :2]), torch.from_numpy(arrays["visible"][rows, :, 0])
    return codec.encode(joints, visible.double())


@sizes
def test_heatmap_mse(golden, size):
    arrays = golden.arrays("losses/hrnet")
    noise = torch.from_numpy(golden.arrays(f"losses/predictions_{size}")["heatmap_noise"])
    ideal, weight = targets(golden, load_method("hrnet", Size.parse(size), sigma=1.0).codec, size, len(noise))
    prediction = (0.7 * ideal.heatmap + noise).requires_grad_()
    loss = sum(heatmap_loss(Heatmaps(prediction), ideal, weight).values())
    loss.backward()
    assert loss.item() == pytest.approx(arrays[f"mse_{size}"][0], rel=1e-5)
    assert prediction.grad.norm().item() == pytest.approx(arrays[f"mse_{size}_gradient_norm"][0], rel=1e-5)
    np.testing.assert_allclose(prediction.grad[1], arrays[f"mse_{size}_gradient_sample1"], rtol=1e-4, atol=1e-9)
    unweighted = weighted_mse(prediction, ideal.heatmap, torch.ones_like(weight))
    assert unweighted.item() == pytest.approx(arrays[f"mse_unweighted_{size}"][0], rel=1e-5)


@sizes
def test_udp_mse(golden, size):
    arrays = golden.arrays("losses/udp")
    noise = torch.from_numpy(golden.arrays(f"losses/predictions_{size}")["udp"])
    ideal, weight = targets(golden, load_method("udp", Size.parse(size), radius=4.0).codec, size, len(noise))
    disc = ideal.heatmap[:, :, None]
    target = torch.cat([disc, ideal.offset], 2).flatten(1, 2)
    prediction = (0.7 * target + noise).requires_grad_()
    terms = offset_loss(interleaved(prediction), ideal, weight)
    sum(terms.values()).backward()
    ours = [terms["heatmap"].item(), terms["offset"].item()]
    assert ours == pytest.approx(arrays[f"mse_{size}_heatmap_offset"].tolist(), rel=1e-5)
    assert prediction.grad.norm().item() == pytest.approx(arrays[f"mse_{size}_gradient_norm"][0], rel=1e-5)
    np.testing.assert_allclose(prediction.grad[1], arrays[f"mse_{size}_gradient_sample1"], rtol=1e-4, atol=1e-9)


@sizes
@pytest.mark.parametrize("width", ["w32", "w48"])
def test_cal(golden, size, width):
    arrays = golden.arrays("losses/cal")
    prefix = f"{width}_{size}_"
    heatmap = torch.from_numpy(arrays[f"{prefix}prediction_heatmap"])
    noise = torch.from_numpy(golden.arrays(f"losses/predictions_{size}")["offset"])
    sigma, mask_sigma, unit, weight_of_offset = map(float, arrays[f"{prefix}sigma_masksigma_stdev_lambda"])
    method = load_method("cal", Size.parse(size), f"hrnet_{width}", sigma=sigma, unit=unit)
    assert method.settings["offset_weight"] == weight_of_offset
    ideal, weight = targets(golden, method.codec, size, len(heatmap))
    released = ideal.offset.flatten(1, 2)
    loss = partial(cal_loss, unit=unit, offset_weight=weight_of_offset, mask_sigma=mask_sigma, offset_loss="l1")
    variants = {
        "stage1_static": partial(loss, mask="gaussian", components=0),
        "stage1_disc": partial(loss, mask="disc", components=0),
        "stage1_static_smoothl1": partial(loss, mask="gaussian", components=0, offset_loss="smooth_l1"),
        "stage2": partial(loss, mask="gaussian", components=1),
    }
    for name, variant in variants.items():
        maps = heatmap.clone().requires_grad_()
        field = (0.5 * released + noise).requires_grad_()
        terms = variant(OffsetMaps(maps, field.unflatten(1, (-1, 2))), ideal, weight)
        total = sum(terms.values())
        total.backward()
        ours = [total.item(), terms["offset"].item() / weight_of_offset]
        assert ours == pytest.approx(arrays[f"{prefix}{name}"].tolist(), rel=1e-5), name
        norms = [maps.grad.norm().item(), field.grad.norm().item()]
        assert norms == pytest.approx(arrays[f"{prefix}{name}_gradient_norm"].tolist(), rel=1e-4), name
        for kind, gradient in (("heatmap", maps.grad), ("offset", field.grad)):
            stored = arrays.get(f"{prefix}{name}_gradient_{kind}1")
            if stored is not None:
                np.testing.assert_allclose(gradient[1], stored, rtol=1e-3, atol=1e-8)
    mask = displacement_mask(heatmap, ideal.heatmap, weight, 1)
    np.testing.assert_allclose(mask, arrays[f"{prefix}mgm"], atol=1e-5)
    perfect = displacement_mask(ideal.heatmap, ideal.heatmap, weight, 1)
    np.testing.assert_allclose(perfect.sum((-2, -1)), arrays[f"{prefix}mgm_perfect_prediction_sum"], atol=1e-4)
    np.testing.assert_allclose(perfect.amax((-2, -1)), arrays[f"{prefix}mgm_perfect_prediction_max"], atol=1e-5)
