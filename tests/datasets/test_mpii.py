"""MPII's layout: counting from 1, centre and scale, the scoring file, refusals, and the way through training."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny_mpii

from lrbench import pckh
from lrbench.bench import Bench
from lrbench.cells import Cell
from lrbench.datasets import open_dataset, skeleton_of
from lrbench.datasets.images import DataError
from lrbench.datasets.mpii import read
from lrbench.geometry import Frame, Size, apply
from lrbench.inference import predict
from lrbench.method import load_method
from lrbench.structures import MPII
from lrbench.training import packed


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_mpii.write(tmp_path_factory.mktemp("data") / "mpii")


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(root, tmp_path / "mpii"))


def test_layout_is_recognised(root: Path):
    assert skeleton_of(str(root)) is MPII
    dataset = open_dataset(str(root), "val")
    assert (dataset.name, dataset.split, dataset.metric) == ("mpii", "val", "pckh")
    assert dataset.annotation_file == root / "annot" / "valid.json"
    assert dataset.persons.skeleton is MPII
    assert read(root, "valid").hash == dataset.hash
    assert len(open_dataset(str(root), "train").persons) == 7


def test_arrays(root: Path):
    dataset, rows = read(root, "val"), tiny_mpii.read(root)
    persons, images = dataset.persons, dataset.images
    assert dataset.dropped == {"no labelled keypoint": 1}
    assert persons.id.tolist() == [1, 2, 3, 4, 5]
    assert images.id.tolist() == [1, 2, 3]
    assert [p.name for p in images.path] == list(dict.fromkeys(r["image"] for r in rows))
    assert images.size.tolist() == [list(cv2.imread(str(p)).shape[:2]) for p in images.path]
    assert [images.path[i].name for i in persons.image] == [r["image"] for r in rows[:5]]
    for row, person in enumerate(rows[:5]):
        for k in range(16):
            expected = (np.array(person["joints"][k]) - 1).tolist() if person["joints_vis"][k] else [0, 0]
            assert persons.keypoints[row, k].tolist() == expected
    assert (persons.visible > 0).sum(1).tolist() == [15] * 5
    assert persons.annotated


@pytest.mark.parametrize("size", [Size(256, 256), Size(64, 64), Size(128, 96), Size(48, 64)])
@pytest.mark.parametrize("align", ["biased", "corner", "dark"])
def test_region_is_the_released_one(root: Path, size: Size, align: Any):
    persons = read(root, "val").persons
    frame = Frame(size, align)
    for row, person in enumerate(tiny_mpii.read(root)[:5]):
        (x, y), scale = person["center"], person["scale"]
        y, scale = y + 15 * scale, scale * 1.25
        region = frame.region(persons.box[row], annotated=persons.annotated)
        np.testing.assert_allclose(region.center, (x - 1, y - 1), rtol=0, atol=1e-9)
        # a square of 200 px times the scale, whose shorter side grows to the aspect of the crop
        side = 200 * scale + (1.25 if align == "dark" else 0)
        longer = max(1, size.width / size.height), max(1, size.height / size.width)
        np.testing.assert_allclose(region.side, side * np.array(longer), rtol=1e-12)


def test_truth_is_the_scoring_file_counted_from_zero(copy: Path):
    rows = tiny_mpii.read(copy)
    moved = np.array([r["joints"] for r in rows]).transpose(1, 2, 0) + 0.25
    tiny_mpii.write_scoring_file(copy, pos_gt_src=moved)
    before = read(copy, "val").persons.keypoints
    truth = read(copy, "val").truth()
    assert [a["id"] for a in truth["annotations"]] == [1, 2, 3, 4, 5, 6]
    assert [a["image_id"] for a in truth["annotations"]] == [1, 1, 2, 2, 3, 3]
    keypoints = np.array([a["keypoints"] for a in truth["annotations"]]).reshape(6, 16, 3)
    labelled = keypoints[:5, :, 2] > 0
    assert not keypoints[5].any()
    np.testing.assert_allclose(keypoints[:5, :, :2][labelled], before[labelled] + 0.25, atol=1e-9)
    for person, row in zip(truth["annotations"], rows, strict=True):
        x1, y1, x2, y2 = person["head_box"]
        assert (x2 - x1, y2 - y1) == pytest.approx((20, 15))
        assert ((x1 + x2) / 2 + 1, (y1 + y2) / 2 + 1) == pytest.approx(row["joints"][9])


def test_scoring_file_belongs_to_the_hash(copy: Path):
    before = read(copy, "val").hash
    tiny_mpii.write_scoring_file(copy, headboxes_src=np.ones((2, 2, 6)))
    assert read(copy, "val").hash != before


def test_without_scoring_file_everything_but_scoring_works(copy: Path):
    (copy / "annot" / "gt_valid.mat").unlink()
    dataset = read(copy, "val")
    assert len(dataset.persons) == 5
    with pytest.raises(DataError, match=r"gt_valid\.mat: no such file; PCKh needs its head boxes"):
        dataset.truth()


def test_without_pictures(copy: Path):
    shutil.rmtree(copy / "images")
    dataset = read(copy, "val", need_images=False)
    assert len(dataset.truth()["annotations"]) == 6
    assert not dataset.images.size.any()
    with pytest.raises(DataError, match="no pictures of split 'val'"):
        read(copy, "val")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "../valid.json"}, r"annotation 2: file_name '\.\./valid\.json' leaves the data folder"),
        ({"image": "nobody.jpg"}, r"1 of 4 pictures of split 'val' are missing .* the first is nobody\.jpg"),
        ({"image": None}, "annotation 2: expected an object with image, center"),
        ({"scale": 0}, r"annotation 2: center .* and scale 0; expected finite numbers, a scale above 0"),
        ({"scale": "tall"}, r"annotation 2: expected center \[x, y\] and scale"),
        ({"center": [1, 2, 3]}, r"annotation 2: expected center \[x, y\] and scale"),
        ({"center": [float("nan"), 2]}, r"annotation 2: center \(nan, 2\)"),
        ({"joints": [[1, 2]] * 15}, "annotation 2: expected joints, 16 of x and y"),
        ({"joints": [[float("inf"), 2]] * 16}, "annotation 2: keypoints must be finite"),
        ({"joints_vis": [1] * 15}, "annotation 2: expected joints, 16 of x and y"),
        ({"joints": None, "joints_vis": None}, "annotation 2: has no joints, as MPII's test persons"),
    ],
)
def test_refusals_name_the_row(copy: Path, change: dict[str, Any], message: str):
    rows = tiny_mpii.read(copy)
    rows[1] = {k: v for k, v in (rows[1] | change).items() if v is not None}
    tiny_mpii.rewrite(copy, rows)
    with pytest.raises(DataError, match=message) as caught:
        read(copy, "val")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [{"images": []}, [3], []])
def test_not_such_a_file(copy: Path, content: Any):
    tiny_mpii.rewrite(copy, content)
    with pytest.raises(DataError, match=r"valid\.json: "):
        read(copy, "val")


def test_missing_split_and_damaged_picture(copy: Path):
    with pytest.raises(DataError, match="no annotations of split 'test'; splits found: train, valid"):
        read(copy, "test")
    (copy / "images" / tiny_mpii.read(copy)[0]["image"]).write_bytes(b"no picture")
    with pytest.raises(DataError, match="no picture whose size can be read"):
        read(copy, "val")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: tiny_mpii.write_scoring_file(root, jnt_missing=None), "jnt_missing"),
        (
            lambda root: tiny_mpii.write_scoring_file(root, pos_gt_src=np.zeros((16, 2, 5))),
            "pos_gt_src is 16x2x5, expected 16x2x6",
        ),
        (
            lambda root: tiny_mpii.write_scoring_file(root, headboxes_src=np.zeros((2, 2, 6))),
            "person 1: expected finite joints and a head box with an extent",
        ),
        (lambda root: (root / "annot" / "gt_valid.mat").write_bytes(b"abc" * 99), "cannot be read as a MATLAB file"),
        (lambda root: tiny_mpii.rewrite(root, tiny_mpii.read(root)[:3]), "16x6, expected 16x3"),
    ],
)
def test_scoring_file_of_something_else(copy: Path, damage: Callable[[Path], Any], message: str):
    damage(copy)
    dataset = read(copy, "val")
    with pytest.raises(DataError, match=rf"gt_valid\.mat: .*{message}") as caught:
        dataset.truth()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["meanpose", "hrnet"])
def test_trained_and_predicted(root: Path, tmp_path: Path, method: str):
    cell = Cell(
        method=method, res=Size(64, 64), data=str(root), recipe="quick", epochs=1, batch=4, device="cpu",
        precision="32-true", workers=0, runs=tmp_path,
    )  # fmt: skip
    bench = Bench()
    bench.train(cell)
    opened = bench.open(cell)
    model, _ = opened.model()
    crops = bench.crops(cell.data, cell.split, opened.method, cell.preset())
    predictions = predict(opened.method, model, crops, workers=0)
    assert predictions.keypoints.shape == (5, 16, 3)
    counts = pckh.PCKhCounts.of(
        bench.dataset(cell.data, cell.split).truth(), pckh.to_results(predictions, crops.persons)
    )
    assert counts.counted.sum() == 5 * 15
    assert 0 <= counts.metrics()["pckh50"] <= 1


def test_truth_in_crops_is_found(root: Path):
    """Joints that go into the crop and back come out where the scoring file has them."""
    method = load_method("hrnet", Size(64, 64), "hrnet_w16", skeleton=MPII)
    crops = Bench().crops(str(root), "val", method, Cell(method="hrnet", res=Size(64, 64)).preset())
    batch = crops.batch(range(5))
    keypoints = np.zeros((5, 16, 3))
    for row in range(5):
        matrix = crops.frame.to_image(crops.frame.region(crops.persons.box[row], annotated=True))
        keypoints[row, :, :2] = apply(matrix, batch.keypoints[row].double().numpy())
    results = [
        {"image_id": row // 2 + 1, "person": row + 1, "keypoints": points.ravel().tolist()}
        for row, points in enumerate(keypoints)
    ]
    scores = pckh.PCKhCounts.of(read(root, "val").truth(), results).metrics()
    assert scores == dict.fromkeys(scores, 1.0)


def test_data_of_other_keypoints_are_refused_before_any_work(root: Path, tiny_data: Path):
    for data, train_data, words in ((root, tiny_data, "17 .* coco"), (tiny_data, root, "16 .* mpii")):
        cell = Cell(method="hrnet", res=Size(64, 64), data=str(data), train_data=str(train_data))
        with pytest.raises(ValueError, match=f"--train-data .*: labels the {words}"):
            cell.compose()
    assert Cell(method="hrnet", res=Size(64, 64), data=str(root), train_data=str(root)).compose().skeleton is MPII


def test_weights_for_other_keypoints_differ_in_nothing_else(root: Path, tiny_data: Path, tmp_path: Path):
    """The file states its backbone, so the message is about the keypoints."""
    method, path = load_method("hrnet", Size(64, 64), "hrnet_w16", skeleton=MPII), tmp_path / "weights.safetensors"
    path.write_bytes(packed(method.build_model().network, method=method))
    cell = Cell(method="hrnet", res=Size(64, 64), data=str(tiny_data), weights=path, device="cpu", runs=tmp_path)
    with pytest.raises(DataError, match=r"0 tensors missing, 0 unknown, 2 of another shape, for example final_layer"):
        Bench().open(cell).model()
    assert Bench().open(dataclasses.replace(cell, data=str(root))).method.backbone == "hrnet_w16"
