"""Crops: mirrored views, independence of order and threads, epochs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from lrbench.augmentation import Augmentation, View, mirror_keypoints
from lrbench.datasets.coco import read
from lrbench.datasets.images import ImageStore
from lrbench.degradation import crop, load_preset
from lrbench.geometry import Frame, Region, Size, apply
from lrbench.loading import Crops

STILL = Augmentation(half_body=0, scale=0, rotation=0, flip=-1)


@pytest.fixture(scope="module", params=["biased", "dark", "corner"])
def crops(request, tiny_data: Path) -> Crops:
    return make(tiny_data, request.param)


def make(root: Path, align: str = "corner", preset: str = "paper", split: str = "train") -> Crops:
    dataset = read(root, split)
    return Crops(ImageStore(dataset.images), dataset.persons, Frame(Size(64, 48), align), load_preset(preset))


@pytest.mark.parametrize("preset", ["paper", "antialias"])
@pytest.mark.parametrize("rotation", [0.0, 30.0])
@pytest.mark.parametrize("align", ["biased", "dark", "corner"])
def test_flip_is_a_crop_of_the_mirrored_picture(tiny_data: Path, align: str, rotation: float, preset: str):
    crops = make(tiny_data, align, preset)
    for row in (0, 4, 11):
        image = crops.store[int(crops.persons.image[row])]
        width = image.shape[1]
        plain = crops.frame.region(crops.persons.box[row], annotated=True)
        region = Region(np.array([width - 1 - plain.center[0], plain.center[1]]), plain.side)
        pixels, xy, labelled = crops.sample(row, View(region, rotation, True))
        matrix = crops.frame.matrix(region, rotation)
        mirrored = crop(np.ascontiguousarray(image[:, ::-1]), matrix, crops.frame.size, crops.preset)
        assert np.abs(pixels.astype(int) - mirrored).max() <= 1
        points, flags = mirror_keypoints(crops.persons.keypoints[row], crops.persons.visible[row], width)
        np.testing.assert_array_equal(labelled, flags > 0)
        np.testing.assert_allclose(xy[labelled], apply(matrix, points)[labelled], atol=1e-9)
        assert not xy[~labelled].any()
        # and it is another picture than the plain one
        assert np.abs(crops.sample(row, View(plain, 0.0, False))[0].astype(int) - pixels).max() > 20


def test_noise_belongs_to_the_person_and_the_seed(tiny_data: Path):
    """Scored crops of presets that draw depend neither on order nor on threads; training views draw anew per epoch."""
    crops = dataclasses.replace(make(tiny_data, split="val"), preset=load_preset("sensor", 5))
    whole = torch.cat([batch.pixels for batch in crops.batches(4, 2)])
    for row in (2, 0):
        assert torch.equal(crops.batch([row]).pixels[0], whole[row])
    other = dataclasses.replace(crops, seed=1)
    assert not torch.equal(other.batch([0]).pixels, crops.batch([0]).pixels)
    epochs = [next(iter(crops.epoch(2, 0, Augmentation(), 0, epoch))).pixels for epoch in (0, 0, 1)]
    assert torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[0], epochs[2])


def test_keypoints_lie_where_the_pixels_say(crops: Crops):
    # a crop and the picture agree at a keypoint: both are smooth, so their colours are close there
    for row in range(6):
        pixels, xy, labelled = crops.sample(row, crops.view(row))
        image = crops.store[int(crops.persons.image[row])]
        for k in np.flatnonzero(labelled):
            u, v = np.rint(xy[k]).astype(int)
            x, y = np.rint(crops.persons.keypoints[row, k]).astype(int)
            if 0 <= u < 48 and 0 <= v < 64 and y < image.shape[0] and x < image.shape[1]:
                assert np.abs(pixels[v, u].astype(int) - image[y, x]).max() < 40


def equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_batch_types(crops: Crops):
    batch = crops.batch([0, 5, 7])
    assert batch.pixels.shape == (3, 3, 64, 48)
    assert batch.pixels.dtype == torch.uint8
    assert batch.keypoints.shape == (3, 17, 2)
    assert batch.visible.shape == (3, 17)
    assert batch.keypoints.dtype == batch.visible.dtype == torch.float32
    assert (batch.visible.sum(1) == 16).all()  # flags 1 and 2 count alike
    assert batch.visible.unique().tolist() == [0, 1]


def test_views_do_not_depend_on_workers(crops: Crops):
    alone = list(crops.epoch(4, 0, Augmentation(), seed=3, epoch=1))
    assert len(alone) == 3
    for workers in (1, 3):
        threaded = list(crops.epoch(4, workers, Augmentation(), seed=3, epoch=1))
        assert all(equal(a, b) for a, b in zip(alone, threaded, strict=True))
    plain = [list(crops.batches(5, workers)) for workers in (0, 2)]
    assert [len(b.pixels) for b in plain[0]] == [5, 5, 2]
    assert all(equal(a, b) for a, b in zip(*plain, strict=True))


def test_views_do_not_depend_on_order(crops: Crops):
    seeds = [[3, 1, row] for row in range(12)]
    forth = crops.batch(range(12), Augmentation(), seeds)
    back = crops.batch(range(11, -1, -1), Augmentation(), seeds[::-1])
    assert equal(forth, [field.flip(0) for field in back])
    alone = crops.batch([7], Augmentation(), [seeds[7]])
    assert equal(alone, [field[7:8] for field in forth])
    assert not torch.equal(alone.pixels, crops.batch([7], Augmentation(), [[3, 2, 7]]).pixels)


def rows_of(crops: Crops, batches) -> list[int]:
    plain = crops.batch(range(len(crops.persons))).pixels
    assert len(plain.flatten(1).unique(dim=0)) == len(plain)
    return [row for batch in batches for p in batch.pixels for row in torch.where((plain == p).flatten(1).all(1))[0]]


def test_epoch_visits_each_person_once_and_drops_what_fills_no_batch(tiny_data: Path):
    crops = make(tiny_data)
    whole = [int(r) for r in rows_of(crops, crops.epoch(4, 2, STILL, seed=0, epoch=0))]
    assert sorted(whole) == list(range(12))
    assert whole != list(range(12))
    batches = list(crops.epoch(5, 2, STILL, seed=0, epoch=0))
    assert [len(b.pixels) for b in batches] == [5, 5]
    part = [int(r) for r in rows_of(crops, batches)]
    assert part == whole[:10]  # the order is a fact of seed and epoch, not of the batch size
    others = [[int(r) for r in rows_of(crops, crops.epoch(4, 0, STILL, seed=s, epoch=e))] for s, e in ((0, 1), (1, 0))]
    assert len({tuple(whole), *map(tuple, others)}) == 3


def test_fewer_persons_than_a_batch(tiny_data: Path):
    batches = list(make(tiny_data).epoch(64, 0, STILL, seed=0, epoch=0))
    assert [len(b.pixels) for b in batches] == [12]


def test_error_of_a_thread_reaches_the_consumer(tiny_copy: Path):
    from lrbench.datasets.images import DataError

    crops = make(tiny_copy)
    crops.store.images.path[2].unlink()
    with pytest.raises(DataError, match="No such file"):
        list(crops.batches(2, 3))


def test_leaving_early_stops_the_threads(tiny_data: Path):
    import threading

    batches = make(tiny_data).batches(1, 2)
    next(batches)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("crops")]
