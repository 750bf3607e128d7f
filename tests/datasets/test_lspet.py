"""LSP-extended: recognised by its file, split by id, counted from zero, copies included."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny

from lrbench.datasets import open_dataset, skeleton_of
from lrbench.datasets.degraded import degrade, original_annotations
from lrbench.datasets.images import DataError
from lrbench.datasets.lspet import read
from lrbench.geometry import Size
from lrbench.structures import COCO

IDS = (1, 5, 9, 10, 24)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One person each in five pictures, whose id is that of the picture, without a face."""
    root = tmp_path_factory.mktemp("data") / "lsp"
    (root / "annotations").mkdir(parents=True)
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    data: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    for number in IDS:
        cv2.imwrite(str(root / "images" / f"im{number:05d}.jpg"), tiny.picture(rng, 120, 96))
        data["images"].append({"id": number, "file_name": f"im{number:05d}.jpg", "height": 120, "width": 96})
        person = tiny.person(rng, number, number, 20)
        person["keypoints"][:15] = [0] * 15
        data["annotations"].append(person | {"lsp_keypoints": [0] * 42})
    (root / "annotations" / "person_keypoints_lspet.json").write_text(json.dumps(data))
    return root


def raw(root: Path) -> dict[int, np.ndarray]:
    """Keypoints in the file, by person."""
    data = json.loads((root / "annotations" / "person_keypoints_lspet.json").read_text())
    return {a["id"]: np.array(a["keypoints"]).reshape(17, 3) for a in data["annotations"]}


def test_recognised(root: Path):
    assert skeleton_of(str(root)) is COCO
    dataset = open_dataset(str(root), "lspet")
    assert (dataset.name, dataset.metric) == ("lsp", "pck")


def test_splits_go_by_id(root: Path):
    ids = {split: read(root, split).images.id.tolist() for split in ("lspet", "train", "val")}
    assert ids == {"lspet": list(IDS), "train": [1, 9, 24], "val": [5, 10]}
    for split, chosen in ids.items():
        dataset = read(root, split)
        assert dataset.persons.id.tolist() == chosen
        truth = dataset.truth()
        assert [i["id"] for i in truth["images"]] == [a["image_id"] for a in truth["annotations"]] == chosen
    assert len({read(root, split).hash for split in ids}) == 3
    with pytest.raises(DataError, match="no annotations of split 'test'; splits found: lspet, train, val"):
        read(root, "test")


def test_pixels_are_counted_from_zero(root: Path):
    dataset = read(root, "lspet")
    for row, (number, points) in enumerate(raw(root).items()):
        labelled = points[:, 2] > 0
        assert not labelled[:5].any()
        expected = np.where(labelled[:, None], points[:, :2] - 1, 0)
        np.testing.assert_allclose(dataset.persons.keypoints[row], expected, atol=1e-12)
        truth = np.array(dataset.truth()["annotations"][row]["keypoints"]).reshape(17, 3)
        assert dataset.truth()["annotations"][row]["id"] == number
        np.testing.assert_allclose(truth[:, :2], expected, atol=1e-12)
        np.testing.assert_array_equal(truth[:, 2], points[:, 2])


@pytest.mark.parametrize("how", [{"level": "image", "scale": 2.0}, {"level": "crop", "size": Size(32, 24)}])
def test_copies_are_split_and_scored_as_their_source(root: Path, tmp_path: Path, how: dict):
    out = tmp_path / "out"
    degrade(root, out, preset="antialias", split="lspet", workers=1, **how)
    assert open_dataset(str(out), "lspet").metric == "pck"
    for split, chosen in (("train", [1, 9, 24]), ("val", [5, 10])):
        copied, source = read(out, split), read(root, split)
        assert copied.persons.id.tolist() == chosen
        assert copied.source["level"] == how["level"]
        back, whole = original_annotations(copied.truth()), source.truth()
        assert [i["id"] for i in back["images"]] == chosen
        for ours, theirs in zip(back["annotations"], whole["annotations"], strict=True):
            assert (ours["id"], ours["image_id"]) == (theirs["id"], theirs["image_id"])
            np.testing.assert_allclose(ours["keypoints"], theirs["keypoints"], atol=1e-9)


@pytest.mark.parametrize(
    ("where", "change", "message"),
    [
        ("annotations", {"keypoints": [1] * 42}, "annotation 5: keypoints of length 42, expected 51 numbers"),
        ("annotations", {"image_id": 7}, "annotation 5: its image 7 is not in the file"),
        ("images", {"id": 1}, "image id 1 stands twice"),
        ("images", {"id": None}, "image None: expected id, file_name"),
    ],
)
def test_refusals(root: Path, tmp_path: Path, where: str, change: dict, message: str):
    shutil.copytree(root, tmp_path / "lsp")
    path = tmp_path / "lsp" / "annotations" / "person_keypoints_lspet.json"
    data = json.loads(path.read_text())
    data[where][1] |= change
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=message):
        read(tmp_path / "lsp", "lspet")


@pytest.mark.coco
def test_real_photographs():
    """In the folder that LRBENCH_LSPET names, or beside the one of LRBENCH_COCO."""
    beside = os.environ.get("LRBENCH_COCO")
    folder = os.environ.get("LRBENCH_LSPET") or (beside and str(Path(beside).parent / "lspet-slice"))
    if not folder or not Path(folder).is_dir():
        pytest.skip("no LSP-extended: LRBENCH_LSPET is not set, and no lspet-slice lies beside LRBENCH_COCO")
    sizes = {split: len(open_dataset(folder, split).persons) for split in ("lspet", "train", "val")}
    assert sizes["lspet"] == sizes["train"] + sizes["val"]
    assert 0.15 < sizes["val"] / sizes["lspet"] < 0.25
    persons = open_dataset(folder, "val").persons
    assert not persons.visible[:, :5].any()
    assert ((persons.visible > 0).sum(1) >= 7).all()
