"""Targets against the published encoders."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lrbench.codecs.heatmap import to_cells, to_px
from lrbench.codecs.offset import inside
from lrbench.geometry import Size
from lrbench.method import load_method
from lrbench.methods.cal import static_mask

pytestmark = pytest.mark.golden
sizes = pytest.mark.parametrize("size", ["64x48", "128x96", "256x192"])


def joints_of(golden, size):
    arrays = golden.arrays(f"targets/joints_{size}")
    return torch.from_numpy(arrays["joints"][..., :2]), torch.from_numpy(arrays["visible"][..., 0].astype(float))


def check(ours, theirs):
    np.testing.assert_allclose(np.asarray(ours)[: len(theirs)], theirs, atol=1e-6)


@sizes
@pytest.mark.parametrize("tag", ["hrnet", "dark", "udp"])
def test_heatmaps(golden, size, tag):
    joints, visible = joints_of(golden, size)
    arrays = golden.arrays(f"targets/{tag}_{size}")
    method = load_method(tag, Size.parse(size), **({"form": "gaussian"} if tag == "udp" else {}))
    if tag == "dark" and len(arrays["joints_on_map"]):
        rows = len(arrays["joints_on_map"])
        # joints_on_map is the published encoder's input, in its own map frame; our grid must reach it from crop px
        theirs = torch.from_numpy(arrays["joints_on_map"][..., :2])
        labelled = visible[:rows] > 0
        np.testing.assert_allclose(to_cells(method.codec.grid, joints[:rows])[labelled], theirs[labelled], atol=1e-4)
        joints = to_px(method.codec.grid, theirs)
        visible = visible[:rows]
    tested = 0
    for key, theirs in arrays.items():
        if key.startswith("heatmap_sigma"):
            sigma = key.removeprefix("heatmap_sigma")
            codec = dataclasses.replace(method.codec, sigma=float(sigma))
            ideal, weight = codec.encode(joints, visible)
            check(ideal.heatmap, theirs)
            check(weight[..., None], arrays[f"weight_sigma{sigma}"])
            tested += 1
    assert tested


@sizes
def test_udp_offsets(golden, size):
    joints, visible = joints_of(golden, size)
    arrays = golden.arrays(f"targets/udp_{size}")
    tested = 0
    for key, theirs in arrays.items():
        if key.startswith("offset_kpd"):
            radius = key.removeprefix("offset_kpd")
            codec = load_method("udp", Size.parse(size), radius=float(radius)).codec
            ideal, weight = codec.encode(joints, visible)
            disc = ideal.heatmap[:, :, None]
            ours = torch.cat([disc, ideal.offset], 2).flatten(1, 2)
            check(ours, theirs)
            check(weight[..., None], arrays[f"weight_kpd{radius}"])
            tested += 1
    assert tested


@sizes
@pytest.mark.parametrize("width", ["w32", "w48"])
def test_cal(golden, size, width):
    joints, visible = joints_of(golden, size)
    arrays = golden.arrays(f"targets/cal_{size}")
    if f"{width}_heatmap" not in arrays:
        pytest.skip(f"this golden set has no {width} targets at {size}")
    sigma, mask_sigma, unit, radius = map(float, arrays[f"{width}_sigma_masksigma_stdev_radius"])
    method = load_method("cal", Size.parse(size), f"hrnet_{width}", sigma=sigma, unit=unit, radius=radius)
    ideal, weight = method.codec.encode(joints, visible)
    disc = inside(ideal)
    check(weight[..., None], arrays[f"{width}_weight"])
    check(ideal.heatmap, arrays[f"{width}_heatmap"])
    check(disc, arrays[f"{width}_disc"])
    check(ideal.offset.flatten(1, 2), arrays[f"{width}_offset"])
    check(static_mask(ideal.offset, disc, unit=unit, sigma=mask_sigma), arrays[f"{width}_mask"])
    if width == "w48" and "binary_target_type_heatmap" in arrays:
        binary = load_method("cal", Size.parse(size), f"hrnet_{width}", sigma=sigma, unit=unit, heatmap="binary")
        check(binary.codec.encode(joints, visible)[0].heatmap, arrays["binary_target_type_heatmap"])


@pytest.mark.parametrize("width", ["w32", "w48"])
def test_cal_defaults_are_the_released_ones(golden, width):
    for size in ("64x48", "128x96"):
        arrays = golden.arrays(f"targets/cal_{size}")
        settings = load_method("cal", Size.parse(size), f"hrnet_{width}").settings
        ours = [settings[k] for k in ("sigma", "mask_sigma", "unit", "radius")]
        assert ours == arrays[f"{width}_sigma_masksigma_stdev_radius"].tolist()
