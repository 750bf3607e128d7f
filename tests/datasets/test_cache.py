"""The cache of large annotation files: same dataset with and without, damage, changes, bounds."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from safetensors.numpy import save

from lrbench.datasets import cache, coco
from lrbench.datasets.coco import Dataset, read
from lrbench.datasets.images import DataError
from lrbench.structures import Images, Persons


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of which all files are worth it."""
    monkeypatch.setenv("LRBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "LEAST", 0)
    return tmp_path / "cache" / "annotations"


@pytest.fixture
def only_cached(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Call `forbid` of it to make every further reading of a file fail."""

    def forbid() -> None:
        def skim(content: bytes, path: Path) -> Any:
            raise AssertionError(f"{path} is read though it is kept")

        monkeypatch.setattr(coco, "skim", skim)

    monkeypatch.forbid = forbid  # type: ignore[attr-defined]
    return monkeypatch


def uncached(root: Path, split: str = "val", **options: Any) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "LEAST", 10**9)
        return read(root, split, **options)


def assert_same(a: Dataset, b: Dataset) -> None:
    """Every field of both, arrays bit by bit."""
    for field in dataclasses.fields(Dataset):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if field.name == "digest":
            assert one.hexdigest() == other.hexdigest()
        elif field.name == "truth":
            assert one() == other()
        elif isinstance(one, Images | Persons):
            for part in dataclasses.fields(one):
                x, y = getattr(one, part.name), getattr(other, part.name)
                assert type(x) is type(y), part.name
                if isinstance(x, np.ndarray):
                    assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes()), part.name
                else:
                    assert x == y, part.name
        else:
            assert one == other, field.name
    assert a.hash == b.hash
    assert a.persons.hash == b.persons.hash


def plain(data: dict) -> None:
    """As it is."""


def various(data: dict) -> None:
    first = data["annotations"][0]
    data["annotations"] += [
        {**first, "id": 1, "category_id": 2},
        {**first, "id": 2, "iscrowd": 1},
        {**first, "id": 3, "area": 0},
        {**first, "id": 4, "keypoints": [0] * 51, "num_keypoints": 0},
        {**first, "id": 5, "bbox": [-3.1, 7, 20.7, 1e-3], "score": 3},
    ]


def crops(data: dict) -> None:
    data["lrbench"] = {"level": "crop", "size": "64x48", "numbers": {"a": 0.1, "b": [1, None]}}
    data["annotations"][0]["keypoints"][:3] = [-50, 1000, 2]


@pytest.mark.parametrize("change", [plain, various, crops])
def test_same_dataset(tiny_copy: Path, only_cached: Any, change: Any):
    with tiny.change(tiny_copy) as data:
        change(data)
    first = read(tiny_copy, "val")
    only_cached.forbid()
    cached = read(tiny_copy, "val")
    only_cached.undo()
    plainly = uncached(tiny_copy)
    assert_same(first, plainly)
    assert_same(cached, plainly)
    assert cached.persons.keypoints.flags.writeable == plainly.persons.keypoints.flags.writeable


def test_same_names_of_pictures(tiny_copy: Path, only_cached: Any):
    folder = tiny_copy / "images" / "val"
    names = ["ein Bild\u00e4.jpg", "part/one.jpg", 'q"\\.jpg']
    (folder / "part").mkdir()
    with tiny.change(tiny_copy) as data:
        for image, name in zip(data["images"], names, strict=True):
            (folder / image["file_name"]).rename(folder / name)
            image["file_name"] = name
    read(tiny_copy, "val")
    only_cached.forbid()
    cached = read(tiny_copy, "val")
    assert list(cached.images.path) == [folder / name for name in names]
    only_cached.undo()
    assert_same(cached, uncached(tiny_copy))


def test_same_pictures_without_annotations(tiny_copy: Path, only_cached: Any):
    data = tiny.read(tiny_copy)
    lists = json.dumps({key: data[key] for key in ("images", "categories")})
    (tiny_copy / "annotations" / "image_info_test-dev.json").write_text(lists)
    shutil.copytree(tiny_copy / "images" / "val", tiny_copy / "test2017")
    read(tiny_copy, "test-dev")
    only_cached.forbid()
    cached = read(tiny_copy, "test-dev")
    assert len(cached.images.id) == 3
    assert len(cached.persons) == 0
    with pytest.raises(DataError, match="nothing can be scored"):
        cached.truth()
    # the same bytes under the name of a labelled split are another thing
    only_cached.undo()
    shutil.copy(cached.annotation_file, tiny.annotations(tiny_copy))
    with pytest.raises(DataError, match="expected a list of objects under 'annotations'"):
        read(tiny_copy, "val")


def test_where_the_folder_lies_is_not_kept(tiny_copy: Path, tmp_path: Path, only_cached: Any):
    read(tiny_copy, "val")
    moved = tiny_copy.rename(tmp_path / "moved")
    only_cached.forbid()
    cached = read(moved, "val", name="other")
    assert cached.name == "other"
    assert cached.annotation_file == tiny.annotations(moved)
    assert {path.parent for path in cached.images.path} == {moved / "images" / "val"}
    assert cached.truth() == tiny.read(moved)


def entry(kept: Path) -> Path:
    (path,) = kept.iterdir()
    return path


def test_not_one_damaged_byte_is_trusted(tiny_data: Path, kept: Path):
    read(tiny_data, "val")
    path = entry(kept)
    whole = path.read_bytes()
    for place in [*range(0, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        assert cache.get(path.stem) is None, place
    path.write_bytes(whole)
    assert cache.get(path.stem) is not None


@pytest.mark.parametrize("damage", ["half", "empty", "longer", "no safetensors", "other arrays", "a folder"])
def test_damaged_entries_are_made_again(tiny_data: Path, kept: Path, only_cached: Any, damage: str):
    before = read(tiny_data, "val")
    path = entry(kept)
    whole = path.read_bytes()
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        content = {
            "half": whole[: len(whole) // 2],
            "empty": b"",
            "longer": whole + b"\0",
            "no safetensors": b"\xff" * 1000,
            "other arrays": save({"id": np.zeros(3)}, {"about": "{}", "sha256": "0" * 64}),
        }[damage]
        path.write_bytes(content)
    assert_same(read(tiny_data, "val"), before)
    if damage != "a folder":  # which nothing of ours removes
        only_cached.forbid()
        assert_same(read(tiny_data, "val"), before)


def test_an_entry_under_another_key_is_foreign(tiny_data: Path, kept: Path):
    train = read(tiny_data, "train")
    path = entry(kept)
    val = read(tiny_data, "val")
    (other,) = set(kept.iterdir()) - {path}
    shutil.copy(path, other)
    assert_same(read(tiny_data, "val"), val)
    assert len(train.persons) != len(val.persons)


def test_changed_annotations_code_or_rules_are_read_anew(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch):
    read(tiny_copy, "val")
    stat = tiny.annotations(tiny_copy).stat()
    with tiny.change(tiny_copy) as data:
        x = data["annotations"][0]["keypoints"][0]
        data["annotations"][0]["keypoints"][0] = round(x + (0.1 if f"{x + 0.1:.1f}"[0] == f"{x:.1f}"[0] else -0.1), 1)
    os.utime(tiny.annotations(tiny_copy), ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert_same(read(tiny_copy, "val"), uncached(tiny_copy))
    path, digest = tiny.annotations(tiny_copy), read(tiny_copy, "val").digest
    assert digest is not None
    keys = {coco._key(path, digest, coco.RULES), coco._key(path, digest, dataclasses.replace(coco.RULES, inside=False))}
    monkeypatch.setattr(coco, "_code", lambda: "another version")
    keys.add(coco._key(path, digest, coco.RULES))
    assert len(keys) == 3


def test_a_file_that_changes_while_it_is_read_is_kept_as_what_was_read(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tiny.annotations(tiny_copy)
    before = path.read_bytes()

    def replaced(key: str) -> None:
        with tiny.change(tiny_copy) as data:
            data["annotations"].pop()

    with monkeypatch.context() as patch:
        patch.setattr(cache, "get", replaced)
        assert len(read(tiny_copy, "val").persons) == 8
    assert len(read(tiny_copy, "val").persons) == 8
    path.write_bytes(before)
    assert len(read(tiny_copy, "val").persons) == 9


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("annotations", {"id": 0}),
        ("annotations", {"id": "7"}),
        ("annotations", {"image_id": 7}),
        ("annotations", {"iscrowd": "0"}),
        ("annotations", {"num_keypoints": 0}),
        ("annotations", {"keypoints": [0] * 50}),
        ("annotations", {"keypoints": [1, 2, 3] * 17}),
        ("annotations", {"keypoints": [1e4, 2, 2] * 17}),
        ("annotations", {"bbox": [1, 2, 3]}),
        ("annotations", {"area": None}),
        ("images", {"file_name": "../a.jpg"}),
        ("images", {"id": 200}),
        ("categories", {"keypoints": ["nose"]}),
    ],
)
def test_errors_stay_and_are_not_kept(tiny_copy: Path, kept: Path, where: str, change: dict):
    with tiny.change(tiny_copy) as data:
        data[where][-1] |= change
    with pytest.raises(DataError) as plainly:
        uncached(tiny_copy)
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            read(tiny_copy, "val")
        assert str(caught.value) == str(plainly.value)
    assert not kept.exists()


def test_pictures_are_looked_for_each_time(tiny_copy: Path, only_cached: Any):
    read(tiny_copy, "val")
    tiny.image(tiny_copy, row=1).unlink()
    only_cached.forbid()
    with pytest.raises(DataError, match=r"1 of 3 pictures of split 'val' are missing .* the first is 0+201\.jpg"):
        read(tiny_copy, "val")
    assert len(read(tiny_copy, "val", need_images=False).persons) == 9


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LRBENCH_CACHE", str(tmp_path / "file"))
    assert_same(read(tiny_data, "val"), read(tiny_data, "val"))
    assert cache.clear() == 0


def test_small_files_are_not_kept(tiny_data: Path, kept: Path, monkeypatch: pytest.MonkeyPatch):
    size = tiny.annotations(tiny_data).stat().st_size
    monkeypatch.setattr(cache, "LEAST", size + 1)
    read(tiny_data, "val")
    assert not kept.exists()
    monkeypatch.setattr(cache, "LEAST", size)
    read(tiny_data, "val")
    assert entry(kept).suffix == ".safetensors"


def used(name: str, ago: float) -> None:
    """Put an entry that was used so many seconds ago."""
    cache.put(name, {"a": np.arange(1000)}, {})
    os.utime(cache.folder() / f"{name}.safetensors", (time.time() - ago,) * 2)


def test_what_was_used_longest_ago_is_removed(kept: Path, monkeypatch: pytest.MonkeyPatch):
    for name, ago in (("a", 300), ("b", 200), ("c", 100)):
        used(name, ago)
    assert cache.get("a") is not None  # used just now
    size = (kept / "a.safetensors").stat().st_size
    monkeypatch.setattr(cache, "MOST", 3 * size)
    cache.put("d", {"a": np.arange(1000)}, {})
    assert {path.stem for path in kept.iterdir()} == {"a", "c", "d"}
    monkeypatch.setattr(cache, "MOST", 1)
    cache.put("e", {"a": np.arange(1000)}, {})
    assert {path.stem for path in kept.iterdir()} == {"e"}


def test_what_a_killed_process_left_is_removed_once_it_is_old(tiny_data: Path, kept: Path):
    before = read(tiny_data, "val")
    path = entry(kept)
    old, young = kept / f".{path.name}.abc", kept / f".{path.name}.xyz"
    for left in (old, young):
        left.write_bytes(path.read_bytes()[:100])
    path.unlink()
    os.utime(old, (time.time() - cache.ABANDONED - 60,) * 2)
    assert_same(read(tiny_data, "val"), before)
    assert set(kept.iterdir()) == {path, young}


def test_clear(kept: Path):
    assert cache.clear() == 0
    used("a", 1)
    used("b", 1)
    (kept / ".c.safetensors.abc").write_bytes(bytes(10))
    size = (kept / "a.safetensors").stat().st_size
    assert cache.clear() == 2 * size + 10
    assert list(kept.iterdir()) == []
    assert cache.get("a") is None


def test_arrays_and_notes_come_back_as_they_were():
    arrays = {"x": np.arange(6, dtype=np.int8).reshape(2, 3).T, "nobody": np.zeros((0, 17, 2)), "size": np.int32([7])}
    cache.put("k", arrays, {"names": ["\u00e4", '"'], "n": None})
    found = cache.get("k")
    assert found is not None
    assert found[1] == {"names": ["\u00e4", '"'], "n": None}
    assert found[0].keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[0][name], array, strict=True)
