"""CrowdPose's layout: where files lie, areas, refusals, and the way through training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_crowdpose

from lrbench import evaluation
from lrbench.bench import Bench
from lrbench.cells import Cell
from lrbench.crowding import easy_medium_hard
from lrbench.datasets import open_dataset, skeleton_of
from lrbench.datasets.coco import read_detections
from lrbench.datasets.crowdpose import read
from lrbench.datasets.images import DataError
from lrbench.geometry import Size
from lrbench.inference import predict
from lrbench.structures import CROWDPOSE


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_crowdpose.write(tmp_path_factory.mktemp("data") / "crowd")


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(root, tmp_path / "crowd"))


@pytest.mark.parametrize("folder", ["json", "annotations", "."])
def test_layout_is_recognised(tmp_path: Path, folder: str):
    root = tiny_crowdpose.write(tmp_path / "crowd", folder)
    assert skeleton_of(str(root)) is CROWDPOSE
    dataset = open_dataset(str(root), "val")
    assert (dataset.name, dataset.split, dataset.metric) == ("crowd", "val", "oks")
    assert dataset.annotation_file == root / folder / "crowdpose_val.json"
    assert dataset.persons.skeleton is CROWDPOSE
    assert dataset.persons.keypoints.shape == (12, 14, 2)
    assert {path.parent for path in dataset.images.path} == {root / "images"}
    assert open_dataset(str(root), "train").hash != dataset.hash


def test_areas_are_a_share_of_the_boxes(copy: Path):
    with tiny_crowdpose.change(copy) as data:
        data["annotations"][0]["area"] = 1.0  # whatever a file says, the official tool does not look at it
        data["annotations"][1] |= {"bbox": [1.0, 2, 30, 40], "keypoints": [0] * 42, "num_keypoints": 0}
    dataset = read(copy, "val")
    truth = dataset.truth()
    assert truth["annotations"][1]["area"] == pytest.approx(0.53 * 30 * 40)
    for annotation in truth["annotations"]:
        assert annotation["area"] == pytest.approx(0.53 * annotation["bbox"][2] * annotation["bbox"][3])
    assert dataset.dropped == {"no labelled keypoint": 1}
    assert len(dataset.persons) == 11


def test_keypoints_may_lie_outside_of_the_picture(copy: Path):
    with tiny_crowdpose.change(copy) as data:
        data["annotations"][0]["keypoints"][:3] = [-30, 500, 1]
    assert read(copy, "val").persons.keypoints[0, 0].tolist() == [-30, 500]


def test_detections_have_its_keypoints(copy: Path):
    path = copy / "boxes.json"
    path.write_text(json.dumps([{"image_id": 200, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.5}]))
    dataset = read(copy, "val")
    assert read_detections(path, dataset.images, dataset.persons.skeleton).keypoints.shape == (1, 14, 2)


def test_annotations_alone_are_enough_to_score(copy: Path):
    shutil.rmtree(copy / "images")
    assert len(read(copy, "val", need_images=False).truth()["annotations"]) == 12
    with pytest.raises(DataError, match="no pictures of split 'val'"):
        read(copy, "val")


@pytest.mark.parametrize(
    ("where", "change", "message"),
    [
        ("images", {"crowdIndex": "full"}, "image 201: crowdIndex 'full', expected a number"),
        ("images", {"id": 200}, "image id 200 stands twice"),
        ("images", {"file_name": "../json/crowdpose_val.json"}, "image 201: file_name .* leaves the data folder"),
        ("annotations", {"bbox": None}, r"annotation 2001: expected bbox \[x, y, w, h\], which gives its area"),
        ("annotations", {"bbox": [1, 2, 0, 4]}, "annotation 2001: box"),
        ("annotations", {"keypoints": [1] * 51}, "annotation 2001: keypoints of length 51, expected 42 numbers"),
        ("annotations", {"image_id": 7}, "annotation 2001: its image 7 is not in the file"),
        ("annotations", {"id": 2000}, "annotation 2000: the id stands twice"),
    ],
)
def test_refusals(copy: Path, where: str, change: dict[str, Any], message: str):
    with tiny_crowdpose.change(copy) as data:
        data[where][1] |= change
    with pytest.raises(DataError, match=rf"crowdpose_val\.json: {message}") as caught:
        read(copy, "val")
    assert "\n" not in str(caught.value)


def test_missing_split(copy: Path):
    with pytest.raises(DataError, match="no annotations of split 'test'; splits found: train, val"):
        open_dataset(str(copy), "test")


@pytest.mark.parametrize("method", ["meanpose", "hrnet"])
def test_trained_predicted_and_scored(root: Path, tmp_path: Path, method: str):
    cell = Cell(
        method=method, res=Size(64, 48), data=str(root), recipe="quick", epochs=1, batch=4, device="cpu",
        precision="32-true", workers=0, runs=tmp_path,
    )  # fmt: skip
    bench = Bench()
    bench.train(cell)
    opened = bench.open(cell)
    model, _ = opened.model()
    crops = bench.crops(cell.data, cell.split, opened.method, cell.preset())
    predictions = predict(opened.method, model, crops, workers=0)
    assert predictions.keypoints.shape == (12, 14, 3)
    results = evaluation.to_results(predictions, opened.method.rescoring)
    scores = easy_medium_hard(bench.dataset(cell.data, cell.split).truth(), results)
    assert all(0 <= value <= 1 for value in scores.values())


def test_truth_scores_one(root: Path):
    dataset = read(root, "val")
    results = [
        {
            "image_id": int(dataset.images.id[image]),
            "category_id": 1,
            "keypoints": np.column_stack([xy, np.ones(14)]).ravel().tolist(),
            "score": 1.0,
        }
        for image, xy in zip(dataset.persons.image, dataset.persons.keypoints, strict=True)
    ]
    assert easy_medium_hard(dataset.truth(), results) == pytest.approx({"ap_easy": 1, "ap_medium": 1, "ap_hard": 1})
