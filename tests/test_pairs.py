"""Pairs of crops: exactly aligned, drawn alike whoever asks, split by picture."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lrbench.augmentation import Augmentation, View
from lrbench.datasets.coco import read
from lrbench.datasets.images import ImageStore
from lrbench.degradation import load_preset
from lrbench.geometry import Frame, Region, Size
from lrbench.loading import Crops
from lrbench.pairs import DETAIL, Jitter, Pairs, detailed, split_off

ROTATION = Augmentation(half_body=0.0, rotation_probability=1.0)


def pairs_of(root, align="biased", **options):
    dataset = read(root, "train")
    frame = Frame(Size(16, 12), align)
    crops = Crops(ImageStore(dataset.images), dataset.persons, frame, load_preset(options.pop("preset", "paper")))
    return Pairs(crops=crops, scale=4, **options)


@pytest.mark.parametrize("align", ["biased", "dark", "corner"])
def test_matched_pairs_are_aligned_whatever_the_frame(tiny_data, align):
    """Without aliasing, the small crop cut from the photograph is the large one made small, up to rounding."""
    matched = pairs_of(tiny_data, align, kind="matched", preset="antialias")
    made = dataclasses.replace(matched, kind="bicubic")
    for flip in (False, True):
        view = View(Region(np.array([70.0, 58.0]), np.array([60.0, 80.0])), 20.0, flip)
        (cut, target, xy, _), (shrunk, same, _, _) = matched.sample(0, view), made.sample(0, view)
        assert np.array_equal(target, same)
        assert target.shape == (64, 48, 3)
        inner = np.abs(cut.astype(int) - shrunk.astype(int))[2:-2, 2:-2]
        assert inner.mean() < 0.6
        assert inner.max() <= 6
        assert xy.shape == (17, 2)


def test_half_a_pixel_would_show(tiny_data):
    """The tolerance above is smaller than what the mistake makes that it looks for."""
    made = pairs_of(tiny_data, "corner", kind="matched", preset="antialias")
    view = View(Region(np.array([70.0, 58.0]), np.array([60.0, 80.0])), 0.0, False)
    there, _, _, _ = made.sample(0, view)
    away, _, _, _ = made.sample(0, view._replace(region=Region(np.array([72.5, 58.0]), np.array([60.0, 80.0]))))
    assert np.abs(there.astype(int) - away.astype(int))[2:-2, 2:-2].mean() > 1.2


def test_bicubic_pairs_are_the_large_crop_made_small(tiny_data):
    from lrbench.degradation import shrink

    small, target, _, _ = pairs_of(tiny_data).sample(1, pairs_of(tiny_data).crops.view(1))
    assert np.array_equal(small, shrink(target, load_preset("antialias"), Size(16, 12)))


def test_patches_and_colours_agree(tiny_data):
    from lrbench.degradation import shrink

    pairs = pairs_of(tiny_data, jitter=Jitter(shift=0.0, colour=0.1))
    rng = np.random.default_rng(0)
    small, target, _, _ = pairs.sample(0, pairs.crops.view(0), rng)
    plain = pairs.sample(0, pairs.crops.view(0))[1]
    gain = target[20:40, 10:30].mean((0, 1)) / plain[20:40, 10:30].mean((0, 1))
    assert np.abs(gain - 1).max() > 0.005
    assert np.abs(gain - 1).max() <= 0.11
    assert np.array_equal(small, shrink(target, load_preset("antialias"), Size(16, 12)))
    patchy = dataclasses.replace(pairs, jitter=Jitter(shift=0.0, colour=0.0, patch=32))
    cut, square, _, _ = patchy.sample(0, pairs.crops.view(0), np.random.default_rng(1))
    assert (cut.shape, square.shape) == ((8, 8, 3), (32, 32, 3))
    whole_small, whole, _, _ = pairs.sample(0, pairs.crops.view(0))
    places = [(y, x) for y in range(9) for x in range(5) if np.array_equal(whole_small[y : y + 8, x : x + 8], cut)]
    assert any(np.array_equal(whole[4 * y : 4 * y + 32, 4 * x : 4 * x + 32], square) for y, x in places)


def test_workers_and_order_change_nothing(tiny_data):
    pairs = pairs_of(tiny_data, jitter=Jitter(patch=32), kind="matched")
    first = list(pairs.epoch(4, 0, ROTATION, seed=3, epoch=1))
    second = list(pairs.epoch(4, 3, ROTATION, seed=3, epoch=1))
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    other = next(pairs.epoch(4, 0, ROTATION, seed=3, epoch=2))
    assert not torch.equal(other.target, first[0].target)
    assert first[0].pixels.shape == (4, 3, 8, 8)
    assert first[0].target.dtype == torch.uint8


def test_only_persons_with_detail_and_no_common_picture(tiny_data):
    crops = pairs_of(tiny_data).crops
    rows = detailed(crops, 4)
    heights = [crops.frame.region(box, annotated=True).side[1] for box in crops.persons.box]
    assert rows.tolist() == [row for row, height in enumerate(heights) if height >= DETAIL * 64]
    assert detailed(crops, 8).size == 0  # nobody is 112 px high
    learning, held = split_off(crops, rows, 1000)
    assert len(learning.persons) + len(held.persons) == len(rows)
    assert not set(learning.persons.image) & set(held.persons.image)
    assert len(held.persons) >= 1
    assert split_off(crops, rows, 1000)[1].persons.id.tolist() == held.persons.id.tolist()
