"""The file for COCO's test server: what stands in it, under which name, and what is never written."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lrbench.datasets.images import DataError
from lrbench.submission import IMAGE_INFO, export_testdev


def row(image_id: Any = 1, score: float = 0.5, **changes: Any) -> dict[str, Any]:
    keypoints = [float(v) + image_id / 8 for v in range(51)]
    return {"image_id": image_id, "category_id": 1, "keypoints": keypoints, "score": score, **changes}


@pytest.fixture
def image_info(tmp_path: Path) -> Path:
    """As COCO's: images and categories, no annotations."""
    path = tmp_path / IMAGE_INFO
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "height": 9, "width": 9} for i in (1, 2, 3, 4)]
    path.write_text(json.dumps({"info": {}, "images": images, "categories": [{"id": 1, "name": "person"}]}))
    return path


def test_the_server_reads_back_what_was_predicted(tmp_path: Path, image_info: Path):
    results = [row(2), row(1, 0.1 + 0.2), row(2, 1e-20)]
    written = export_testdev(results, tmp_path / "a" / "b", name="lr_pose-1", image_info=image_info)
    stem = "person_keypoints_test-dev2017_lr_pose-1_results"
    assert written.path == tmp_path / "a" / "b" / f"{stem}.zip"
    assert [p.name for p in written.path.parent.iterdir()] == [f"{stem}.zip"]
    with zipfile.ZipFile(written.path) as archive:
        assert archive.namelist() == [f"{stem}.json"]
        assert json.loads(archive.read(f"{stem}.json")) == results
    assert (written.results, written.images) == (3, 2)
    assert written.notes == ("2 of 4 images have no result",)


def test_nothing_but_the_four_keys(tmp_path: Path, image_info: Path):
    results = [row(i, bbox=[0, 0, 1, 1], center=[0, 0]) for i in (1, 2, 3, 4)]
    written = export_testdev(results, tmp_path, name="x", image_info=image_info)
    with zipfile.ZipFile(written.path) as archive:
        rows = json.loads(archive.read(archive.namelist()[0]))
    assert rows == [row(i) for i in (1, 2, 3, 4)]
    assert len(written.notes) == 1
    assert written.notes[0].startswith("bbox of 4 results left out")


def test_the_same_results_give_the_same_bytes(tmp_path: Path, image_info: Path):
    a = export_testdev([row()], tmp_path / "a", name="x", image_info=image_info).path
    b = export_testdev([row()], tmp_path / "b", name="x", image_info=image_info).path
    assert a.read_bytes() == b.read_bytes()
    with zipfile.ZipFile(a) as archive:
        assert archive.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)
    export_testdev([row(2)], tmp_path / "b", name="x", image_info=image_info)
    assert a.read_bytes() != b.read_bytes()


def test_crowded_images_are_noted_and_nothing_is_cut(tmp_path: Path, image_info: Path):
    results = [row(i, n / 100) for i in (1, 2, 3, 4) for n in range(19 + i)]
    written = export_testdev(results, tmp_path, name="x", image_info=image_info)
    assert written.results == len(results) == 86
    assert written.notes == ("3 images have more than 20 results; COCO counts the best 20 of an image",)


def test_without_a_list_of_images(tmp_path: Path):
    written = export_testdev([row(77)], tmp_path, name="x")
    assert written.notes == ("image ids not checked: no image_info file was given",)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../a", "a.b", "é", "a\n"])
def test_names_that_the_server_does_not_take(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match=r"algorithm name .* expected letters"):
        export_testdev([row()], tmp_path / "out", name=name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], "no results"),
        ([row(), row(9)], "row 1: image 9 is not in image_info_test-dev2017.json"),
        ([row(), row(2), row()], "row 2: image 1 has the same keypoints and score before; 1 rows repeat"),
        ([row(keypoints=[1.0] * 50)], "row 0: expected 51 finite numbers"),
        ([row(keypoints=[float("nan")] * 51)], "row 0: expected 51 finite numbers"),
        ([row(score=float("inf"))], "row 0: expected 51 finite numbers as keypoints, and a finite score"),
        ([row(category_id=2)], "row 0: category_id 2, expected 1"),
        ([{"image_id": 1}], "row 0: expected image_id, category_id, keypoints and score"),
    ],
)
def test_results_that_would_waste_an_upload(tmp_path: Path, image_info: Path, results: list, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        export_testdev(results, tmp_path / "out", name="x", image_info=image_info)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_equal_poses_of_other_scores_or_images_are_no_repetition(tmp_path: Path):
    pose = row()["keypoints"]
    assert export_testdev([row(1), row(2, keypoints=pose), row(1, 0.4)], tmp_path, name="x").results == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "not valid JSON"),
        ("[]", "expected an object"),
        ("{}", "expected a list of objects under 'images'"),
        ('{"images": [{"id": 1}]}', "expected id and file_name of every image"),
    ],
)
def test_a_list_of_images_that_is_none(tmp_path: Path, content: str | None, message: str):
    path = tmp_path / "image_info.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=rf"image_info\.json: .*{message}"):
        export_testdev([row()], tmp_path / "out", name="x", image_info=path)


def test_names_of_files_are_ids_here_too(tmp_path: Path, image_info: Path):
    written = export_testdev([row() | {"image_id": "000000000003"}], tmp_path, name="x", image_info=image_info)
    with zipfile.ZipFile(written.path) as archive:
        assert json.loads(archive.read(archive.namelist()[0]))[0]["image_id"] == 3
    assert written.notes[0].startswith("image ids are names of files")


def test_a_file_is_no_place_to_write_into(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "a.zip"):
        with pytest.raises(ValueError, match=r"expected a folder; .* person_keypoints_test-dev2017_x_results\.zip"):
            export_testdev([row()], out, name="x")
