"""Result files of other tools: what is taken, what is refused, and the published figures of real ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from lrbench.datasets.images import DataError
from lrbench.evaluation import score
from lrbench.predictions import checked, evaluate_predictions, repeated
from lrbench.records import METRICS, Record, record_path

IMAGES = {139: "000000000139.jpg", 785: "000000000785.jpg", 7: "street.png"}


def row(image_id: Any = 139, **changes: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": 1, "keypoints": [1.5] * 51, "score": 0.5, **changes}


def check(rows: list[Any], images: dict[int, str] | None = IMAGES, keypoints: int = 17) -> tuple[list, list]:
    return checked(rows, images=images, of="street/val", keypoints=keypoints, where="predictions p.json")


def ids(rows: list[dict[str, Any]], images: dict[int, str] | None = IMAGES) -> list[int]:
    return [r["image_id"] for r in check(rows, images)[0]]


def perfect(root: Path) -> list[dict[str, Any]]:
    """The truth of the tiny dataset as results."""
    return [
        {"image_id": a["image_id"], "category_id": 1, "keypoints": a["keypoints"], "score": 0.9}
        for a in tiny.read(root)["annotations"]
    ]


def evaluate(rows: list[dict[str, Any]], root: Path, folder: Path, **options: Any) -> tuple[Record, list[dict]]:
    """Record and the rows that were scored."""
    folder.mkdir()
    (folder / "p.json").write_text(json.dumps(rows))
    record = evaluate_predictions(folder / "p.json", str(root), "val", folder / "results", **options)
    kept = record_path(folder / "results", record).with_name(f"{record.key}.predictions.json.gz")
    return record, json.loads(gzip.decompress(kept.read_bytes()))


class TestRows:
    def test_only_the_four_keys_stay(self):
        mmpose = row(id=3, keypoint_scores=[1] * 17, area=5.0)
        hrnet = row(785, center=[1, 2], scale=[1, 1])
        rows, notes = check([mmpose, hrnet])
        assert rows == [row(), row(785)]
        assert notes == []

    def test_boxes_are_left_out_and_said_so(self):
        rows, notes = check([row(bbox=[0, 0, 1, 1]), row(785, bbox=[0, 0, 1, 1], segmentation=[]), row(7)])
        assert rows == [row(), row(785), row(7)]
        assert [note.split(" left")[0] for note in notes] == ["bbox of 2 results", "segmentation of 1 results"]

    def test_what_is_given_is_not_changed(self):
        given = [row("street", bbox=[0, 0, 1, 1])]
        before = json.dumps(given)
        check(given)
        assert json.dumps(given) == before

    def test_as_many_keypoints_as_the_skeleton_has(self):
        assert len(check([row(keypoints=[1] * 42)], keypoints=14)[0]) == 1
        with pytest.raises(DataError, match="expected 42 finite numbers"):
            check([row()], keypoints=14)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (row(category_id=0), "row 1: category_id 0, expected 1 .person.; .* from 0, write 1"),
            (row(category_id=2), "row 1: category_id 2, expected 1 .person.$"),
            (row(category_id="1"), "row 1: category_id '1', expected 1"),
            (row(category_id=True), "row 1: category_id True"),
            (row(None), "row 1: image_id None, expected a whole number or the name"),
            (row(139.5), "row 1: image_id 139.5, expected a whole number"),
            (row(float("nan")), "row 1: image_id nan, expected a whole number"),
            (row(keypoints=[[1, 2, 3]] * 17), "row 1: expected 51 finite numbers"),
            (row(keypoints=["1"] * 51), "row 1: expected 51 finite numbers"),
            (row(keypoints=[10**400] * 51), "row 1: expected 51 finite numbers"),
            (row(keypoints=[float("inf")] * 51), "row 1: expected 51 finite numbers"),
            (row(keypoints=None), "row 1: expected 51 finite numbers"),
            (row(score=float("nan")), "row 1: expected 51 finite numbers as keypoints, and a finite score"),
            (row(score="0.5"), "and a finite score"),
            ({"image_id": 139, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}, "row 1: expected image_id, "),
            ("text", "row 1: expected image_id, category_id, keypoints and score"),
            (None, "row 1: expected image_id, category_id, keypoints and score"),
        ],
    )
    def test_damaged_rows_are_refused(self, wrong: Any, message: str):
        with pytest.raises(DataError, match=message) as caught:
            check([row(), wrong])
        assert str(caught.value).startswith("predictions p.json, row 1: ")
        assert "\n" not in str(caught.value)

    def test_repeated_rows_and_crowded_images_are_noted(self):
        rows = [row(score=n / 100) for n in range(21)] + [row(785, score=n / 100) for n in range(20)]
        kept, notes = check([*rows, row(785, score=0.0)])
        assert len(kept) == 42
        assert repeated(kept) == [41]
        assert notes[0].startswith("1 results repeat another one")
        assert notes[1].startswith("2 images have more than 20 results")
        assert check(rows)[1] == [notes[1].replace("2 images", "1 images")]


class TestImages:
    def test_numbers_are_ids(self):
        assert ids([row(139), row(785.0), row(7)]) == [139, 785, 7]
        assert all(type(i) is int for i in ids([row(785.0)]))

    @pytest.mark.parametrize("text", ["000000000139", "000000000139.jpg"])
    def test_names_of_files_are_mapped_and_noted(self, text: str):
        rows, notes = check([row(text), row("street")])
        assert [r["image_id"] for r in rows] == [139, 7]
        assert notes == ["image ids are names of files; taken for the ids of street/val"]

    def test_a_number_may_be_the_name_of_a_file(self):
        """Ultralytics turns stems of digits into numbers, whatever the ids are."""
        images = {101: "0.jpg", 102: "1.jpg", 103: "2.jpg"}
        assert ids([row(2), row(0), row(1)], images) == [103, 101, 102]
        assert check([row(2)], images)[1]
        assert ids([row(102)], images) == [102]

    def test_numbers_are_ids_first_and_text_is_a_name_first(self):
        images = {1: "2.jpg", 2: "1.jpg"}
        assert ids([row(1), row(2)], images) == [1, 2]
        assert ids([row("1"), row("2")], images) == [2, 1]

    def test_ids_as_text(self):
        rows, notes = check([row("139"), row("7")])
        assert [r["image_id"] for r in rows] == [139, 7]
        assert notes == []

    def test_all_rows_are_read_the_same_way(self):
        images = {101: "0.jpg", 102: "1.jpg", 103: "2.jpg"}
        with pytest.raises(DataError, match="row 1: image 0 is not in street/val"):
            check([row(102), row(0)], images)  # an id, and the name of a file

    def test_a_name_of_two_files_is_refused(self):
        with pytest.raises(DataError, match="row 0: image a is not in street/val"):
            check([row("a")], {1: "x/a.jpg", 2: "y/a.png"})
        assert ids([row("a.png")], {1: "x/a.jpg", 2: "y/a.png"}) == [2]

    @pytest.mark.parametrize("unknown", [8, "000000000008", "139.png"])
    def test_unknown_images_are_refused(self, unknown: Any):
        with pytest.raises(DataError, match=rf"p.json, row 1: image {unknown} is not in street/val"):
            check([row("street" if isinstance(unknown, str) else 7), row(unknown)])

    def test_without_a_list_of_images_any_number_is_taken(self):
        assert ids([row(5), row(6.0)], None) == [5, 6]
        with pytest.raises(DataError, match="image ids are text"):
            check([row("5")], None)


class TestRecord:
    def test_file_names_and_boxes(self, tiny_data: Path, tmp_path: Path):
        plain, _ = evaluate(perfect(tiny_data), tiny_data, tmp_path / "a")
        rows = [{**r, "image_id": f"{r['image_id']:012d}", "bbox": [0, 0, 500, 500]} for r in perfect(tiny_data)]
        record, scored = evaluate(rows, tiny_data, tmp_path / "b", name="ultralytics yolo-pose")
        assert record.metrics == plain.metrics
        assert record.metrics.ap == 1
        assert scored == perfect(tiny_data)
        assert [note.split(";")[0].split(" left")[0] for note in record.settings["notes"]] == [
            "image ids are names of files",
            "bbox of 9 results",
        ]
        assert record.call.settings == {"file": "p.json", "name": "ultralytics yolo-pose"}
        assert plain.call.settings == {"file": "p.json"}
        assert plain.settings["notes"] == []

    def test_a_box_would_have_changed_the_number(self, tiny_data: Path, tmp_path: Path):
        """A stray result of medium extent counts against AP(M), unless a large box hides it."""
        stray = row(tiny.read(tiny_data)["images"][0]["id"], keypoints=[0, 0, 1] * 16 + [50, 50, 1], score=0.95)
        rows = [r | {"bbox": [0, 0, 500, 500]} for r in [*perfect(tiny_data), stray]]
        assert score(tiny.read(tiny_data), rows).ap_m == 1
        record, _ = evaluate(rows, tiny_data, tmp_path / "a")
        assert record.metrics.ap_m is not None
        assert record.metrics.ap_m < 1

    def test_the_name_decides_no_number(self, tiny_data: Path, tmp_path: Path):
        keys = {evaluate(perfect(tiny_data), tiny_data, tmp_path / n, name=n)[0].key for n in ("a", "b")}
        assert len(keys) == 1

    @pytest.mark.parametrize("name", ["", " ", "two\nlines"])
    def test_a_name_is_a_line(self, tiny_data: Path, tmp_path: Path, name: str):
        with pytest.raises(ValueError, match="expected a line of text"):
            evaluate([], tiny_data, tmp_path / "a", name=name)

    def test_damaged_gzip(self, tiny_data: Path, tmp_path: Path):
        packed = gzip.compress(json.dumps(perfect(tiny_data)).encode())
        path = tmp_path / "p.json.gz"
        path.write_bytes(packed)
        assert evaluate_predictions(path, str(tiny_data), "val", tmp_path / "r").metrics.ap == 1
        for damaged in (packed[:-20], packed[:40] + b"\xff" * 40 + packed[80:], b"[]"):
            path.write_bytes(damaged)
            with pytest.raises(DataError, match=r"p\.json\.gz: damaged"):
                evaluate_predictions(path, str(tiny_data), "val", tmp_path / "r")


OPENPOSE = "lightweight_openpose_val2017subset"
FIGURES = [
    *((f"{OPENPOSE}/results_{letter}", first) for letter in "abc" for first in (None, 60)),
    ("faster_coco_eval_keypoints/results", None),
    ("xtcocotools_example_coco/results", None),
    ("crowdpose_example/results", None),
]
"""Result file, and how many images of lowest id are scored; None for all."""


def key_of(first: int | None) -> str:
    return "stats" if first is None else f"stats_first_{first}_image_ids"


@pytest.fixture(scope="module")
def fixtures(coco_slice: Path) -> Path:
    folder = coco_slice.parent / "evaluator-fixtures"
    if not folder.is_dir():
        pytest.skip("no evaluator-fixtures beside the folder that LRBENCH_COCO names")
    return folder


def lay_out(gt: Path, file: Path, first: int | None) -> set[int]:
    """Write an annotation file, of all images or of those of lowest id; returns the ids."""
    truth = json.loads(gt.read_text())
    kept = set(sorted(image["id"] for image in truth["images"])[:first])
    truth["images"] = [image for image in truth["images"] if image["id"] in kept]
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] in kept]
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(truth))
    return kept


@pytest.mark.coco
@pytest.mark.parametrize(("name", "first"), FIGURES)
def test_published_figures(fixtures: Path, tmp_path: Path, name: str, first: int | None):
    """Real result files, to the last digit that was published."""
    published = json.loads((fixtures / "expected.json").read_text())
    metrics = dict(zip(published["stat_names"], METRICS, strict=True))
    expected = published["fixtures"][name]
    layout = "json/crowdpose_val" if "crowdpose" in name else "annotations/person_keypoints_val"
    results = fixtures / f"{name}.json"
    kept = lay_out(results.parent / "gt.json", tmp_path / "data" / f"{layout}.json", first)
    rows = json.loads(results.read_text())
    record, scored = evaluate([r for r in rows if r["image_id"] in kept], tmp_path / "data", tmp_path / "r")
    if first is None:
        assert len(scored) == expected.get("n_results", len(rows))
    figures = {metrics[stat]: value for stat, value in expected[key_of(first)].items() if stat in metrics}
    assert set(figures) >= {"ap", "ap50", "ap75", "ar", "ar50", "ar75"}  # CrowdPose has no ranges of area
    assert {metric: getattr(record.metrics, metric) for metric in figures} == pytest.approx(figures, abs=5e-7)


@pytest.mark.coco
def test_every_figure_is_covered(fixtures: Path):
    published = json.loads((fixtures / "expected.json").read_text())["fixtures"]
    there = {
        (name, key) for name, entry in published.items() for key, value in entry.items() if isinstance(value, dict)
    }
    assert there == {(name, key_of(first)) for name, first in FIGURES}
