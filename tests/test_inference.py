"""From crops to keypoints in the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lrbench import structures
from lrbench.datasets.coco import read
from lrbench.datasets.images import ImageStore
from lrbench.degradation import load_preset
from lrbench.geometry import Size
from lrbench.inference import flip_test, predict, to_image
from lrbench.loading import Crops
from lrbench.method import load_method
from lrbench.models.network import initialise
from lrbench.structures import Batch, mirror_index

SIZE = Size(64, 48)
METHODS = ["hrnet", "dark", "udp", "cal"]


def setup(root: Path, name: str) -> tuple[Any, Any, Crops]:
    method = load_method(name, SIZE, "hrnet_w16")
    dataset = read(root, "val")
    model = method.build_model()
    if method.stages:
        initialise(model.network, "residual", torch.Generator().manual_seed(0))
    return method, model, Crops(ImageStore(dataset.images), dataset.persons, method.frame, load_preset("paper"))


@pytest.mark.parametrize("name", METHODS)
def test_crop_pixels_map_back_to_the_picture(tiny_data: Path, name: str):
    _, _, crops = setup(tiny_data, name)
    batch: Batch = next(iter(crops.batches(9, 0)))
    keypoints = np.concatenate([batch.keypoints.numpy(), batch.visible.numpy()[..., None]], -1).astype(float)
    predictions = to_image(crops, keypoints)
    persons = crops.persons
    labelled = persons.visible > 0
    np.testing.assert_allclose(predictions.keypoints[..., :2][labelled], persons.keypoints[labelled], atol=1e-4)
    np.testing.assert_array_equal(predictions.keypoints[..., 2], batch.visible.numpy())
    assert predictions.image_id.tolist() == crops.store.images.id[persons.image].tolist()
    # the box, grown to 3:4, then by 1.25 on each side
    w, h = persons.box[:, 2], persons.box[:, 3]
    assert (predictions.area >= 1.25**2 * (w - 1) * (h - 1)).all()


@pytest.mark.parametrize("name", METHODS)
def test_prediction_does_not_depend_on_batches_or_workers(tiny_data: Path, name: str):
    method, model, crops = setup(tiny_data, name)
    a = predict(method, model, crops, batch=9, workers=0)
    b = predict(method, model, crops, batch=4, workers=3)
    np.testing.assert_allclose(a.keypoints, b.keypoints, atol=1e-2)
    assert a.keypoints.shape == (9, 17, 3)
    assert np.isfinite(a.keypoints).all()
    assert not model.training


@pytest.mark.parametrize("name", METHODS)
def test_flip_test_is_the_mean_of_both_passes(tiny_data: Path, name: str):
    method, model, crops = setup(tiny_data, name)
    pixels = next(iter(crops.batches(4, 0))).pixels.float() / 255
    model.eval()
    with torch.no_grad():
        plain, mirrored = model(pixels), method.codec.unflip(model(pixels.flip(-1)), mirror_index())
        both = flip_test(model, method.codec, pixels)
        assert type(both) is type(plain)
        for field, x, y in zip(both, plain, mirrored, strict=True):
            torch.testing.assert_close(field, (x + y) / 2, rtol=1e-4, atol=1e-6)
        assert any(not torch.allclose(x, y) for x, y in zip(plain, mirrored, strict=True))


def test_flip_of_a_mirrored_input_is_the_mirrored_output(tiny_data: Path):
    """With exact mirror symmetry (cal: corner grid), the flip test of a mirrored crop is the mirrored flip test."""
    method, model, crops = setup(tiny_data, "cal")
    pixels = next(iter(crops.batches(4, 0))).pixels.float() / 255
    model.eval()
    with torch.no_grad():
        plain = flip_test(model, method.codec, pixels)
        back = method.codec.unflip(flip_test(model, method.codec, pixels.flip(-1)), mirror_index())
    for x, y in zip(plain, back, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)


def test_flip_changes_the_prediction_of_an_asymmetric_network(tiny_data: Path):
    method, model, crops = setup(tiny_data, "hrnet")
    with_flip = predict(method, model, crops, flip=True, workers=0)
    without = predict(method, model, crops, flip=False, workers=0)
    assert not np.allclose(with_flip.keypoints, without.keypoints)


def test_average():
    model = load_method("hrnet", SIZE, "hrnet_w16").build_model().eval()
    a, b = (model(torch.rand(2, 3, 64, 48)) for _ in range(2))
    mean = structures.mean(a, b)
    assert type(mean) is type(a)
    torch.testing.assert_close(mean[0], (a[0] + b[0]) / 2)


def test_progress_counts_persons(tiny_data: Path):
    method, model, crops = setup(tiny_data, "meanpose")
    heard: list[tuple[str, int, int]] = []
    predict(method, model, crops, batch=4, workers=0, progress=lambda w, d, t, n: heard.append((w, d, t)))
    assert heard == [("predict", 4, 9), ("predict", 8, 9), ("predict", 9, 9)]
