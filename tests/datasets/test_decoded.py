"""Decoded pictures on disk: the same pixels, whatever happened to the files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from lrbench.augmentation import Augmentation
from lrbench.datasets import decoded
from lrbench.datasets.coco import read
from lrbench.datasets.decoded import DecodedPictures
from lrbench.datasets.images import DataError, ImageStore
from lrbench.degradation import load_preset
from lrbench.geometry import Frame, Size
from lrbench.inference import silent
from lrbench.loading import Crops


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("LRBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pictures"


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(decoded, "SHARD", 40_000)


def opened(root: Path, limit: int | None = None, rows: list[int] | None = None) -> tuple[DecodedPictures, ImageStore]:
    images = read(root, "train").images
    some = np.arange(len(images.id)) if rows is None else np.array(rows)
    pictures = DecodedPictures(images, some, limit)
    pictures.open(2, silent)
    return pictures, ImageStore(images, limit_bytes=0)


@pytest.mark.parametrize("preset", ["paper", "antialias", "sensor"])
def test_crops_are_equal_with_and_without(tiny_data: Path, preset: str, small_shards):
    dataset = read(tiny_data, "train")
    plain, kept = ImageStore(dataset.images, limit_bytes=0), ImageStore(dataset.images, limit_bytes=0)
    kept.decoded, _ = opened(tiny_data)
    frame = Frame(Size(64, 48), "corner")
    sides = [Crops(store, dataset.persons, frame, load_preset(preset)) for store in (plain, kept)]
    for batches in zip(*(side.epoch(4, 2, Augmentation(), 0, 1) for side in sides), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


def test_pictures_are_kept_and_found_again(tiny_data: Path, folder: Path, small_shards, monkeypatch):
    pictures, store = opened(tiny_data)
    assert len(list(folder.glob("*/*.u8"))) > 1
    assert len(pictures) == len(store.images.id)
    for row in range(len(pictures)):
        np.testing.assert_array_equal(pictures[row], store[row])
        assert not pictures[row].flags.writeable
    monkeypatch.setattr(decoded, "read_image", None)  # nothing is decoded a second time
    again, _ = opened(tiny_data)
    assert all(np.array_equal(again[row], store[row]) for row in range(len(again)))


def test_only_rows_that_are_asked_for(tiny_data: Path):
    pictures, store = opened(tiny_data, rows=[1, 3])
    assert [row for row in range(4) if pictures[row] is not None] == [1, 3]
    store.decoded = pictures
    assert store[0].shape[2] == 3


@pytest.mark.parametrize("harm", ["flip", "cut", "seal", "no seal"])
def test_a_damaged_shard_is_made_again(tiny_data: Path, folder: Path, harm: str, small_shards):
    opened(tiny_data)
    shard = sorted(folder.glob("*/*.u8"))[1]
    content = shard.read_bytes()
    if harm == "flip":
        shard.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    elif harm == "cut":
        shard.write_bytes(content[:-1])
    elif harm == "seal":
        shard.with_suffix(".sha256").write_text("0" * 64)
    else:  # killed between the two writes
        shard.with_suffix(".sha256").unlink()
    pictures, store = opened(tiny_data)
    assert shard.read_bytes() == content
    assert all(np.array_equal(pictures[row], store[row]) for row in range(len(pictures)))


def test_an_interruption_keeps_whole_shards(tiny_data: Path, folder: Path, small_shards):
    def stop(what: str, done: int, total: int, note: str = "") -> None:
        if done == 2:
            raise KeyboardInterrupt

    images = read(tiny_data, "train").images
    with pytest.raises(KeyboardInterrupt):
        DecodedPictures(images, np.arange(len(images.id))).open(2, stop)
    written = {path: path.stat().st_mtime_ns for path in folder.glob("*/*.u8")}
    assert len(written) == 2
    opened(tiny_data)
    assert all(path.stat().st_mtime_ns == then for path, then in written.items())


def test_a_changed_picture_is_another_set(tiny_copy: Path, folder: Path):
    opened(tiny_copy)
    picture = read(tiny_copy, "train").images.path[0]
    os.utime(picture, ns=(1, 1))
    opened(tiny_copy)
    assert len(list(folder.iterdir())) == 2


def test_a_missing_picture_is_told(tiny_copy: Path):
    read(tiny_copy, "train").images.path[2].unlink()
    images = read(tiny_copy, "train", need_images=False).images
    with pytest.raises(DataError, match="cannot be read"):
        DecodedPictures(images, np.arange(len(images.id))).open(1, silent)


def test_the_limit_holds(tiny_data: Path, folder: Path, small_shards):
    whole, store = opened(tiny_data)
    limit = whole.bytes // 2
    decoded.clear()
    assert not folder.exists()
    part, store = opened(tiny_data, limit)
    assert 0 < len(part) < len(whole)
    assert sum(path.stat().st_size for path in folder.glob("*/*.u8")) <= limit
    store.decoded = part
    assert all(store[row].shape[:2] == tuple(store.images.size[row]) for row in range(len(whole)))


def test_others_make_room_the_oldest_first(tiny_data: Path, folder: Path):
    whole, _ = opened(tiny_data)
    for name, age in (("old", 100), ("older", 50), ("young", 2e9)):
        (folder / name).mkdir()
        (folder / name / "00000.u8").write_bytes(bytes(1000))
        os.utime(folder / name, (age, age))
    opened(tiny_data, whole.bytes + 2500)
    assert {path.name for path in folder.iterdir()} == {whole.folder.name, "old", "young"}


def test_a_folder_that_cannot_be_written_costs_time_only(tiny_data: Path, folder: Path):
    folder.parent.mkdir()
    folder.write_text("in the way")
    pictures, _ = opened(tiny_data)
    assert len(pictures) == 0


def test_clear_says_what_it_freed(tiny_data: Path, folder: Path):
    pictures, _ = opened(tiny_data)
    assert decoded.clear() >= pictures.bytes
    assert decoded.clear() == 0
