"""Decoding and mapping back against the published validation loops."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from lrbench.codecs.heatmap import Heatmaps, argmax, mirror_maps, quarter_step, taylor_step, taylor_step_udp, to_cells
from lrbench.codecs.offset import OffsetMaps
from lrbench.geometry import Region, Size, apply
from lrbench.method import load_method
from lrbench.structures import mirror_index

pytestmark = pytest.mark.golden
grids = pytest.mark.parametrize("cells", ["16x12", "32x24", "64x48"])


def inputs(golden, cells):
    maps = golden.arrays(f"decoding/maps_{cells}")
    size = Size(4 * Size.parse(cells).height, 4 * Size.parse(cells).width)
    return maps, size


def tensors(maps):
    plain = torch.from_numpy(maps["heatmap"]), torch.from_numpy(maps["offset"]).unflatten(1, (-1, 2))
    mirrored = (
        torch.from_numpy(maps["heatmap_of_mirrored"]),
        torch.from_numpy(maps["offset_of_mirrored"]).unflatten(1, (-1, 2)),
    )
    return plain, mirrored


def check(method, codec, prediction, maps, arrays, prefix):
    if f"{prefix}_preds" not in arrays:
        pytest.skip(f"this golden set has no {prefix}")
    keypoints = codec.decode(prediction)
    preds, cells = arrays[f"{prefix}_preds"], arrays[f"{prefix}_map_xy"]
    n = len(preds)
    ours = to_cells(codec.grid, keypoints.xy.double()).numpy()[:n]
    good = np.isfinite(cells)
    np.testing.assert_allclose(ours[good], cells[good], atol=1e-4)
    frame, xy = method.frame, keypoints.xy.double().numpy()
    for row in range(n):
        region = Region(maps["center"][row].astype(float), maps["scale"][row].astype(float) * 200)
        image = apply(frame.to_image(region), xy[row])
        known = np.isfinite(preds[row, :, :2])
        np.testing.assert_allclose(image[known], preds[row, :, :2][known], atol=1e-3)
        if f"{prefix}_boxes" in arrays:
            assert region.area == pytest.approx(arrays[f"{prefix}_boxes"][row, 4], rel=1e-6)
    np.testing.assert_allclose(keypoints.score.numpy()[:n], preds[..., 2], atol=1e-5)


def flip_candidates(maps):
    """What the network returned for the mirrored crop, in both possible states of the stored arrays.

    The published flip steps work in place: on left and right of the heatmap, on everything of CAL's offset field.
    Where the golden set was made by feeding one stored array to several variants in turn, every second variant
    therefore met arrays that were already exchanged.
    """
    _, (heatmap, offset) = tensors(maps)
    yield heatmap, offset
    swapped = offset[:, mirror_index()].flip(-1) * torch.tensor([-1.0, 1.0]).view(2, 1, 1)
    yield heatmap[:, mirror_index()], swapped


def check_flip(method, codec, plain, unflipped, maps, arrays, prefix):
    """One of the two states must reproduce every number."""
    failures = []
    for mirrored in unflipped:
        try:
            check(method, codec, average(plain, mirrored), maps, arrays, prefix)
        except AssertionError as error:
            failures.append(error)
        else:
            return
    raise failures[0]


def average(a, b):
    return type(a)(*(0.5 * (x + y) for x, y in zip(a, b, strict=True)))


def maps_of(maps):
    return tensors(maps)[1][0]


def run(method, codec, flip, maps, arrays, prefix):
    plain = Heatmaps(tensors(maps)[0][0])
    if flip == "single":
        check(method, codec, plain, maps, arrays, prefix)
    else:
        unflipped = [codec.unflip(Heatmaps(h), mirror_index()) for h, _ in flip_candidates(maps)]
        check_flip(method, codec, plain, unflipped, maps, arrays, prefix)


@grids
@pytest.mark.parametrize("post", [0, 1])
@pytest.mark.parametrize("flip", ["single", "flip"])
def test_hrnet(golden, cells, post, flip):
    maps, size = inputs(golden, cells)
    arrays = golden.arrays(f"decoding/hrnet_{cells}")
    method = load_method("hrnet", size)
    codec = dataclasses.replace(method.codec, refine=quarter_step if post else argmax)
    plain = Heatmaps(tensors(maps)[0][0])
    found = [k for k in arrays if k.startswith(f"post{post}") and k.endswith(f"_{flip}_preds")]
    assert found
    for key in found:
        prefix = key.removesuffix("_preds")
        if flip == "single":
            check(method, codec, plain, maps, arrays, prefix)
            continue
        shift = int("shift1" in prefix)
        assert codec.grid.mirror_shift == 1
        unflipped = [Heatmaps(mirror_maps(h[:, mirror_index()], shift)) for h, _ in flip_candidates(maps)]
        if shift:
            torch.testing.assert_close(unflipped[0], codec.unflip(Heatmaps(maps_of(maps)), mirror_index()))
        check_flip(method, codec, plain, unflipped, maps, arrays, prefix)


@grids
@pytest.mark.parametrize("flip", ["single", "flip"])
@pytest.mark.parametrize("blur", [3, 7, 11])
def test_dark(golden, cells, flip, blur):
    maps, size = inputs(golden, cells)
    arrays = golden.arrays(f"decoding/dark_{cells}")
    method = load_method("dark", size)
    codec = dataclasses.replace(method.codec, refine=partial(taylor_step, blur=blur, guard="published"))
    run(method, codec, flip, maps, arrays, f"blur{blur}_{flip}")


@grids
@pytest.mark.parametrize("flip", ["single", "flip"])
@pytest.mark.parametrize("post", [0, 1])
def test_udp_gaussian(golden, cells, flip, post):
    maps, size = inputs(golden, cells)
    arrays = golden.arrays(f"decoding/udp_{cells}")
    method = load_method("udp", size, form="gaussian")
    codec = dataclasses.replace(method.codec, refine=partial(taylor_step_udp, blur=7) if post else argmax)
    run(method, codec, flip, maps, arrays, f"gaussian_post{post}_{flip}")


@grids
@pytest.mark.parametrize("flip", ["single", "flip"])
@pytest.mark.parametrize("variant", ["udp 4.0", "udp 3.5", "cal 1.5", "cal 1.0"])
def test_offsets(golden, cells, flip, variant):
    maps, size = inputs(golden, cells)
    tag, number = variant.split()
    arrays = golden.arrays(f"decoding/{tag}_{cells}")
    if tag == "udp":
        method = load_method("udp", size, radius=float(number), blur_heatmap=15, blur_offset=7)
        prefix = f"offset_kpd{number}_{flip}"
    else:
        method = load_method("cal", size, unit=float(number))
        prefix = f"stdev{number}_{flip}"
    plain = OffsetMaps(*tensors(maps)[0])
    if flip == "single":
        check(method, method.codec, plain, maps, arrays, prefix)
    else:
        unflipped = [method.codec.unflip(OffsetMaps(*m), mirror_index()) for m in flip_candidates(maps)]
        check_flip(method, method.codec, plain, unflipped, maps, arrays, prefix)
