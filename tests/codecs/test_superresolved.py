"""Targets as fine as the crop, their coarser copies, and decoding, against the published code and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lrbench.codecs.heatmap import Heatmaps, peak
from lrbench.codecs.superresolved import LevelMaps, SuperResolvedLevels, default_sigma, superresolved
from lrbench.geometry import Frame, Region, Size, apply
from lrbench.structures import mirror_index


def codec_of(size, sigma=4.0, step="quarter", flip_shift="exact"):
    return superresolved(Frame(size, "biased"), sigma, step, flip_shift)


def single(size, x, y, **settings):
    codec = codec_of(size, **settings)
    return codec, *codec.encode(torch.tensor([[[x, y]]]), torch.ones(1, 1))


@pytest.mark.golden
@pytest.mark.parametrize("size", ["64x48", "128x96", "256x192"])
def test_targets(golden, size):
    arrays = golden.arrays(f"targets/srpose_{size}")
    joints = golden.arrays(f"targets/joints_{size}")
    tested = 0
    for key, theirs in arrays.items():
        kind, _, rest = key.partition("_sigma")
        if kind != "target":
            continue
        sigma, _, pooled = rest.partition("_pooled_")
        codec = SuperResolvedLevels(finest=codec_of(Size.parse(size), float(sigma)))
        ideal, weight = codec.encode(
            torch.from_numpy(joints["joints"][..., :2]), torch.from_numpy(joints["visible"][..., 0]).double()
        )
        ours = ideal.heatmap
        if pooled:
            ours = next(m for m in (ideal.low, ideal.level3) if f"{m.shape[-2]}x{m.shape[-1]}" == pooled)
        n, k = theirs.shape[:2]
        np.testing.assert_allclose(ours.numpy()[:n, :k], theirs, atol=1e-6)
        np.testing.assert_array_equal(weight.numpy()[: len(arrays["weight"]), :, None], arrays["weight"])
        tested += 1
    assert tested


def candidates(maps, name):
    """Both states of the stored array: published flip steps swap left and right in place (see the heatmap tests)."""
    stored = torch.from_numpy(maps[name])
    yield stored
    yield stored[:, mirror_index()]


@pytest.mark.golden
@pytest.mark.parametrize("cells", ["32x24", "64x48"])
@pytest.mark.parametrize("variant", ["single", "flip_shift0", "flip_shift1"])
def test_decoding(golden, cells, variant):
    maps, arrays = golden.arrays(f"decoding/maps_{cells}"), golden.arrays(f"decoding/srpose_{cells}")
    if f"{variant}_preds" not in arrays:
        pytest.skip(f"this golden set has no {variant}")
    size = Size.parse(cells)
    codec = codec_of(size, flip_shift="released" if variant == "flip_shift1" else "exact")
    plain = Heatmaps(torch.from_numpy(maps["heatmap"]))
    if variant == "single":
        return check(codec, plain, maps, arrays, variant)
    failures = []
    for mirrored in candidates(maps, "heatmap_of_mirrored"):
        try:
            return check(
                codec, codec.average(plain, codec.unflip(Heatmaps(mirrored), mirror_index())), maps, arrays, variant
            )
        except AssertionError as error:
            failures.append(error)
    raise failures[0]


def check(codec, prediction, maps, arrays, variant):
    preds = arrays[f"{variant}_preds"]
    averaged = arrays.get(f"{variant}_averaged")
    if averaged is not None:
        np.testing.assert_allclose(prediction.heatmap.numpy()[: len(averaged)], averaged, atol=1e-6)
    keypoints = codec.decode(prediction)
    # without a positive value the released decoder takes the maximum of the bottom-right 16x16 block, we (0, 0); and it
    # sees whole blocks only: of 24 columns the last eight can never win
    cells, score = peak(prediction.heatmap)
    whole = torch.tensor([16 * (side // 16) for side in (codec.grid.size.width, codec.grid.size.height)])
    positive = (score > 0).numpy()
    comparable = positive & (cells < whole).all(-1).numpy()
    for row in range(len(preds)):
        region = Region(maps["center"][row].astype(float), maps["scale"][row].astype(float) * 200)
        image = apply(codec.grid.frame.to_image(region), keypoints.xy[row].double().numpy())
        good = comparable[row]
        np.testing.assert_allclose(image[good], preds[row, good, :2], atol=1e-3)
        np.testing.assert_allclose(keypoints.score.numpy()[row, good], preds[row, good, 2], atol=1e-5)
        assert (keypoints.xy[row][torch.from_numpy(~positive[row])] == 0).all()


def test_rounds_to_the_nearest_pixel_and_cuts_off_at_three_sigma():
    _, ideal, weight = single(Size(64, 48), 20.4, 30.5)
    maps = ideal.heatmap[0, 0]
    assert maps[31, 20] == 1
    assert maps[31, 20 + 12] == pytest.approx(np.exp(-4.5))
    assert maps[31, 20 + 13] == 0
    assert weight.item() == 1


def test_a_keypoint_far_outside_has_neither_map_nor_weight():
    _, ideal, weight = single(Size(64, 48), -20.0, 30.0)
    assert weight.item() == 0
    assert (ideal.heatmap == 0).all()


def test_the_step_is_a_quarter_pixel():
    size = Size(64, 48)
    maps = torch.zeros(1, 1, 64, 48)
    maps[0, 0, 10, 20], maps[0, 0, 10, 21], maps[0, 0, 9, 20] = 1.0, 0.5, 0.5
    assert codec_of(size).decode(Heatmaps(maps)).xy.tolist() == [[[20.25, 9.75]]]
    assert codec_of(size, step="none").decode(Heatmaps(maps)).xy.tolist() == [[[20.0, 10.0]]]


def test_exact_flip_leaves_nothing_and_the_released_shift_one_pixel():
    size, order = Size(64, 48), mirror_index()
    xy = torch.randint(8, 40, (3, 17, 2)).double()
    mirrored = xy[:, order].clone()
    mirrored[..., 0] = 47 - mirrored[..., 0]
    for flip_shift, error in (("exact", 0.0), ("released", 1.0)):
        codec = SuperResolvedLevels(finest=codec_of(size, flip_shift=flip_shift))
        unflipped = codec.unflip(codec.encode(mirrored, torch.ones(3, 17))[0], order)
        assert isinstance(unflipped, LevelMaps)
        difference = codec.decode(unflipped).xy - xy
        assert (difference[..., 0] == error).all()
        assert (difference[..., 1] == 0).all()


def test_coarser_copies_are_adaptive_averages_where_the_stride_fits():
    codec = SuperResolvedLevels(finest=codec_of(Size(128, 96)))
    ideal, _ = codec.encode(torch.rand(2, 17, 2) * 90, torch.ones(2, 17))
    pool = torch.nn.functional.adaptive_avg_pool2d
    torch.testing.assert_close(ideal.low, pool(ideal.heatmap, (4, 3)))
    for maps in (ideal.level5, ideal.level4, ideal.level3):
        torch.testing.assert_close(maps, pool(ideal.heatmap, (32, 24)))


def test_the_last_block_of_a_size_that_does_not_fit_holds_the_pixels_there_are():
    codec = SuperResolvedLevels(finest=codec_of(Size(64, 48)))
    ideal, _ = codec.encode(torch.tensor([[[40.0, 16.0]]]), torch.ones(1, 1))
    blocks = ideal.heatmap[0, 0]
    expected = [[blocks[:32, :32].mean(), blocks[:32, 32:].mean()], [blocks[32:, :32].mean(), blocks[32:, 32:].mean()]]
    torch.testing.assert_close(ideal.low[0, 0], torch.tensor(expected))


def test_maps_that_eval_mode_leaves_out_pass_through_the_flip_test():
    codec, order = SuperResolvedLevels(finest=codec_of(Size(64, 48))), mirror_index()
    absent = torch.zeros(2, 17, 0, 0)
    prediction = LevelMaps(torch.rand(2, 17, 64, 48), *[absent] * 4)
    averaged = codec.average(prediction, codec.unflip(prediction, order))
    assert [tuple(m.shape[-2:]) for m in averaged] == [(64, 48)] + [(0, 0)] * 4


def test_default_sigma_per_height():
    sigmas = [default_sigma(Size(h, 48)) for h in (64, 96, 128, 192, 256, 384)]
    assert sigmas == [4, 4, 4, 6, 8, 12]


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_sigma_has_to_be_positive(sigma):
    with pytest.raises(ValueError, match="sigma"):
        codec_of(Size(64, 48), sigma)
