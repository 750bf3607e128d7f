"""Bins: labels, decoding, mirroring and losses, by hand and against the published code."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from lrbench.codecs.simcc import AxisBins, Bins, log_probabilities
from lrbench.geometry import Frame, Region, Size, apply
from lrbench.losses import bin_loss
from lrbench.structures import COCO, mirror_index

SMALL = Frame(Size(64, 48), "biased")
golden_sizes = pytest.mark.parametrize("size", ["64x48", "128x96", "256x192"])


def codec_of(size: str, split: float = 2.0, **fields) -> AxisBins:
    return AxisBins(frame=Frame(Size.parse(size), "biased"), split=split, **{"labels": "one-hot", **fields})


def joint(x: float, y: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([[[x, y]]], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)


def random_joints(size: Size, margin: float, n: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    unit = torch.rand(n, len(COCO), 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    span = torch.tensor([size.width - 1 - 2 * margin, size.height - 1 - 2 * margin])
    return margin + unit * span, torch.ones(n, len(COCO), dtype=torch.float64)


def test_one_hot_labels():
    ideal, weight = codec_of("64x48", 3.0, smoothing=0.1).encode(*joint(10.5, 63.6))
    # 31.5 rounds to the even bin; 190.8 to 191, the last one
    assert ideal.x.exp().argmax() == 32
    assert ideal.y.exp().argmax() == 191
    assert ideal.x.exp().max() == pytest.approx(0.9)
    assert ideal.x.exp().min() == pytest.approx(0.1 / 143)
    assert ideal.x.exp().sum() == pytest.approx(1.0, abs=1e-5)
    assert weight == 1


@pytest.mark.parametrize(("x", "weight"), [(-0.1, 1.0), (-0.2, 0.0), (47.8, 1.0), (47.9, 0.0)])
def test_one_hot_labels_end_with_the_bins(x, weight):
    assert codec_of("64x48", 3.0).encode(*joint(x, 20.0))[1] == weight


def test_no_smoothing_is_a_finite_loss():
    codec = codec_of("64x48", smoothing=0.0)
    ideal, weight = codec.encode(*joint(10.0, 20.0))
    decoded = codec.decode(ideal)
    assert decoded.xy.tolist() == [[[10.0, 20.0]]]
    assert decoded.score == 1
    flat = log_probabilities((torch.zeros(1, 1, 96), torch.zeros(1, 1, 128)))
    assert bin_loss(flat, ideal, weight, form="nmt")["x"].item() == pytest.approx(math.log(96), rel=1e-6)


def test_gaussian_labels():
    codec = AxisBins(frame=Frame(Size(8, 8), "biased"), split=2.0, labels="gaussian", sigma=4.0)
    ideal, weight = codec.encode(*joint(3.3, 3.3))
    labels = ideal.x[0, 0].exp()
    assert labels[:4].tolist() == pytest.approx([0.025566, 0.037432, 0.051484, 0.066521], abs=1e-6)
    assert labels.sum().item() == pytest.approx(0.9495857331, abs=1e-6), "mass beyond the axis is lost"
    flat = log_probabilities((torch.zeros(1, 1, 16), torch.zeros(1, 1, 16)))
    assert bin_loss(flat, ideal, weight, form="kl")["x"].item() == pytest.approx(0.0049619574, abs=1e-8)


@pytest.mark.parametrize(("x", "weight"), [(-13.9, 1.0), (-14.1, 0.0), (59.9, 1.0), (60.0, 0.0)])
def test_gaussian_labels_reach_three_sigma_in_px(x, weight):
    """12 px for 4 bins, and bounds are truncated toward zero, which gives the left side one px more."""
    codec = AxisBins(frame=SMALL, split=3.0, labels="gaussian", sigma=4.0)
    assert codec.encode(*joint(x, 20.0))[1] == weight


@pytest.mark.parametrize(("form", "value"), [("nmt", 1.0719121630), ("nmtnorm", 0.2679780407)])
def test_loss_of_four_bins(form, value):
    prediction = log_probabilities((torch.arange(4.0).view(1, 1, 4), torch.arange(4.0).view(1, 1, 4)))
    codec = AxisBins(frame=Frame(Size(4, 4), "biased"), split=1.0, labels="one-hot", smoothing=0.1)
    ideal, weight = codec.encode(*joint(2.0, 2.0))
    terms = bin_loss(prediction, ideal, weight, form=form)
    assert [t.item() for t in terms.values()] == pytest.approx([value, value], rel=1e-6)


def test_loss_forms_differ_by_keypoints_times_bins():
    prediction = log_probabilities((torch.randn(3, 17, 96), torch.randn(3, 17, 128)))
    ideal, weight = codec_of("64x48").encode(*random_joints(Size(64, 48), 4, 3))
    large, small = (bin_loss(prediction, ideal, weight, form=form) for form in ("nmt", "nmtnorm"))
    torch.testing.assert_close(large["x"], 17 * 96 * small["x"])
    torch.testing.assert_close(large["y"], 17 * 128 * small["y"])


@pytest.mark.parametrize("labels", ["one-hot", "gaussian"])
@pytest.mark.parametrize("split", [1.0, 1.5, 2.0, 3.0])
def test_round_trip_is_half_a_bin(labels, split):
    codec = codec_of("64x48", split, labels=labels)
    xy, visible = random_joints(Size(64, 48), 1)
    decoded = codec.decode(codec.encode(xy, visible)[0])
    assert (decoded.xy - xy).abs().max() <= 0.5 / split + 1e-5


@pytest.mark.parametrize("labels", ["one-hot", "gaussian"])
@pytest.mark.parametrize(
    ("split", "rule", "bins"),
    [
        (1.0, "exact", 0.0), (2.0, "exact", 0.0), (3.0, "exact", 0.0), (1.5, "exact", 0.5),
        (2.0, "released", 0.0), (3.0, "released", 1.0), (1.5, "released", -0.5), (2.0, "none", 1.0),
    ],
)  # fmt: skip
def test_what_the_flip_shift_leaves(labels, split, rule, bins):
    """Mean displacement of a mirrored-back prediction, in bins."""
    codec = codec_of("64x48", split, labels=labels, flip_shift=rule)
    xy, visible = random_joints(Size(64, 48), 4, 200)
    order = mirror_index()
    mirrored = xy[:, order].clone()
    mirrored[..., 0] = 47 - mirrored[..., 0]
    unflipped = codec.unflip(codec.encode(mirrored, visible)[0], order)
    ideal = codec.encode(xy, visible)[0]
    moved = (codec.decode(unflipped).xy - codec.decode(ideal).xy) * split
    assert moved[..., 0].mean() == pytest.approx(bins, abs=0.03)
    assert moved[..., 1].abs().max() < 1e-5
    if bins == 0:
        assert moved.abs().max() < 1e-4
        if labels == "one-hot":
            torch.testing.assert_close(unflipped, ideal)


def test_averages():
    """SimDR: the mean of probabilities; SimDR*: of logits."""
    a, b = torch.randn(2, 1, 17, 96), torch.randn(2, 1, 17, 128)
    first, second = (log_probabilities((a[i], b[i])) for i in range(2))
    ours = codec_of("64x48").average(first, second).x.exp()
    torch.testing.assert_close(ours, 0.5 * (a[0].softmax(-1) + a[1].softmax(-1)))
    ours = codec_of("64x48", labels="gaussian").average(first, second).x.softmax(-1)
    torch.testing.assert_close(ours, (0.5 * (a[0] + a[1])).softmax(-1))


def test_scores_are_the_larger_and_the_smaller_maximum():
    prediction = log_probabilities((5 * torch.eye(96)[None, 7:8], torch.eye(128)[None, 9:10]))
    tops = [field.softmax(-1).max().item() for field in prediction]
    assert codec_of("64x48").decode(prediction).score.item() == pytest.approx(max(tops))
    assert codec_of("64x48", labels="gaussian").decode(prediction).score.item() == pytest.approx(min(tops))


def test_half_precision_logits_are_normalised_in_float32():
    prediction = log_probabilities((torch.randn(1, 17, 96).bfloat16(), torch.randn(1, 17, 128).half()))
    assert {field.dtype for field in prediction} == {torch.float32}
    assert prediction.x.exp().sum(-1).sub(1).abs().max() < 1e-5


def test_refusals():
    with pytest.raises(ValueError, match=r"gives 83\.2 by 62\.4 bins; choose a split"):
        codec_of("64x48", 1.3)
    with pytest.raises(ValueError, match="split=0: expected at least 1 bin per px"):
        codec_of("64x48", 0.0)
    with pytest.raises(ValueError, match="smoothing=1: expected at least 0 and below 1"):
        codec_of("64x48", smoothing=1.0)
    ideal, _ = codec_of("64x48", 3.0).encode(*joint(3.0, 3.0))
    with pytest.raises(ValueError, match="144 bins of x and 192 of y, the codec expects 96 and 128"):
        codec_of("64x48", 2.0).decode(ideal)
    ideal.x[0, 0, 5] = float("nan")
    with pytest.raises(FloatingPointError, match="NaN"):
        codec_of("64x48", 3.0).decode(ideal)


def published_joints(golden, size):
    arrays = golden.arrays(f"targets/joints_{size}")
    return torch.from_numpy(arrays["joints"][..., :2]), torch.from_numpy(arrays["visible"][..., 0].astype(float))


@pytest.mark.golden
@golden_sizes
def test_published_targets(golden, size):
    joints, visible = published_joints(golden, size)
    arrays = golden.arrays(f"targets/simcc_{size}")
    tested = 0
    for key, theirs in arrays.items():
        n = len(theirs)
        if key.startswith("simdr") and key.endswith("_bins"):
            codec = codec_of(size, float(key.removeprefix("simdr_k").removesuffix("_bins")))
            ideal, weight = codec.encode(joints[:n], visible[:n])
            ours = torch.stack([field.argmax(-1) for field in ideal], -1).numpy()
            counted = weight.numpy() > 0
            np.testing.assert_array_equal(ours[counted], theirs[counted])
            np.testing.assert_array_equal(weight[..., None], arrays[key.replace("bins", "weight")])
            tested += 1
        elif key.startswith("sa_simdr") and key.endswith("_x"):
            stem = key.removesuffix("_x")
            split, sigma = (float(part[length:]) for part, length in zip(stem.split("_")[2:], (1, 5), strict=True))
            codec = codec_of(size, split, labels="gaussian", sigma=sigma)
            ideal, weight = codec.encode(joints[:n], visible[:n])
            np.testing.assert_array_equal(weight[..., None], arrays[f"{stem}_weight"])
            for axis, field in zip("xy", ideal, strict=True):
                counted = (weight > 0).numpy()
                np.testing.assert_allclose(field.exp().numpy()[counted], arrays[f"{stem}_{axis}"][counted], atol=1e-6)
            tested += 1
    assert tested


@pytest.mark.golden
@pytest.mark.parametrize("labels", ["one-hot", "gaussian"])
@pytest.mark.parametrize("run", ["64x48_k3", "64x64_k3", "128x96_k2", "384x288_k1.5"])
def test_published_decoding(golden, run, labels):
    logits = golden.arrays(f"decoding/simcc_logits_{run}")
    arrays = golden.arrays(f"decoding/simcc_{run}")
    size, split = run.split("_k")
    released = codec_of(size, float(split), labels=labels, flip_shift="released")
    plain = log_probabilities((torch.from_numpy(logits["x"]), torch.from_numpy(logits["y"])))
    mirrored = log_probabilities((torch.from_numpy(logits["x_of_mirrored"]), torch.from_numpy(logits["y_of_mirrored"])))
    prefix = "simdr" if labels == "one-hot" else "sa_simdr"
    check(released, plain, logits, arrays[f"{prefix}_single_preds"])
    swapped = Bins(*(field[:, mirror_index()] for field in mirrored))
    for shift, rule in enumerate(("none", "released")):
        codec = dataclasses.replace(released, flip_shift=rule)
        # the published loop exchanges left and right in place, so that of two variants fed with one stored array the
        # second met it exchanged already: one of the two states must reproduce every number
        failures = []
        for state in (mirrored, swapped):
            averaged = codec.average(plain, codec.unflip(state, mirror_index()))
            try:
                check(codec, averaged, logits, arrays[f"{prefix}_flip1_shift{shift}_preds"])
            except AssertionError as error:
                failures.append(error)
        assert len(failures) < 2, failures[0]


def check(codec, prediction, logits, theirs):
    """Image px and scores of the first rows."""
    keypoints = codec.decode(prediction)
    for row in range(len(theirs)):
        region = Region(logits["center"][row].astype(float), logits["scale"][row].astype(float) * 200)
        image = apply(codec.frame.to_image(region), keypoints.xy[row].double().numpy())
        np.testing.assert_allclose(image, theirs[row, :, :2], atol=1e-3)
    np.testing.assert_allclose(keypoints.score[: len(theirs)], theirs[..., 2], atol=1e-5)


@pytest.mark.golden
@pytest.mark.parametrize("run", ["64x48_k3", "128x96_k2"])
def test_published_losses(golden, run):
    size, split = run.split("_k")
    arrays, logits = golden.arrays("losses/simcc"), golden.arrays(f"losses/simcc_logits_{run}")
    joints, visible = published_joints(golden, size)
    first = golden.facts["loss_first_row"]
    rows = slice(first, first + len(logits["x"]))
    tested = 0
    for key, theirs in arrays.items():
        if not key.endswith(f"_{size}"):
            continue
        form, number = key.removesuffix(f"_{size}").rsplit("_", 1)
        if form == "kl_discret":
            form, codec = "kl", codec_of(size, float(split), labels="gaussian", sigma=float(number[5:]))
        else:
            codec = codec_of(size, float(split), smoothing=float(number[3:]))
        ideal, weight = codec.encode(joints[rows], visible[rows])
        x, y = (torch.from_numpy(logits[axis]).requires_grad_() for axis in "xy")
        loss = sum(bin_loss(log_probabilities((x, y)), ideal, weight, form=form).values())
        loss.backward()
        assert loss.item() == pytest.approx(theirs[0], rel=1e-5), key
        norms = [x.grad.norm().item(), y.grad.norm().item()]
        assert norms == pytest.approx(arrays[f"{key}_gradient_norm"].tolist(), rel=1e-5), key
        if f"{key}_gradient_x1" in arrays and len(x) > 1:
            sample = arrays[f"{key}_gradient_x1"]
            np.testing.assert_allclose(x.grad[1], sample, rtol=1e-4, atol=1e-5 * np.abs(sample).max(), err_msg=key)
        tested += 1
    assert tested
