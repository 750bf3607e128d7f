"""Annotations -> persons: layouts, the published sample rule, clipping, hashes, refusals, detections."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny

from lrbench.datasets import open_dataset, skeleton_of
from lrbench.datasets.coco import Records, clip_box, find_annotations, find_images, read, read_detections, skim
from lrbench.datasets.images import DataError, read_image
from lrbench.evaluation import score, score_keypoints
from lrbench.structures import COCO

LAYOUTS = {  # folder of pictures, name in the annotation file, splits that must find them
    "images/val": ("images/{split}", "{split}", ["val"]),
    "coco with images": ("images/{split}2017", "{split}2017", ["val", "val2017"]),
    "coco without": ("{split}2017", "{split}2017", ["val", "val2017"]),
    "split/images": ("{split}/images", "{split}", ["val"]),
    "split": ("{split}", "{split}", ["val"]),
    "all in one": ("images", "{split}", ["val"]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, layout: str):
    folder, names, splits = LAYOUTS[layout]
    root = tiny.write(tmp_path / "data", folder=folder, names=names)
    for split in splits:
        dataset = read(root, split)
        assert dataset.name == "data"
        assert dataset.split == split
        assert dataset.annotation_file == root / "annotations" / f"person_keypoints_{names.format(split='val')}.json"
        assert [path.parent for path in dataset.images.path] == [root / folder.format(split="val")] * 3
        assert len(dataset.persons) == 9
        assert read_image(dataset.images.path[0]).shape[:2] == tuple(dataset.images.size[0])


def test_split_that_stands_there_literally_goes_first(tmp_path: Path):
    root = tiny.write(tmp_path / "data")
    shutil.copytree(root / "images" / "train", root / "images" / "val2017")
    shutil.copy(tiny.annotations(root, "train"), tiny.annotations(root, "val2017"))
    assert len(read(root, "val").images.id) == 3
    assert len(read(root, "val2017").images.id) == 4


def test_missing_parts_say_what_there_is(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LRBENCH_COCO", raising=False)
    with pytest.raises(DataError, match="no annotations of split 'test'; splits found: train, val"):
        find_annotations(tiny_copy, "test")
    with pytest.raises(DataError, match=r"looked for images/test, test/images, test, images/test2017"):
        find_images(tiny_copy.parent, "test")
    with pytest.raises(DataError, match="not a folder"):
        open_dataset(str(tiny_copy / "nowhere"), "val")
    with pytest.raises(DataError, match="LRBENCH_COCO"):
        open_dataset("coco", "val")
    tiny.image(tiny_copy, row=1).unlink()
    with pytest.raises(DataError, match=r"1 of 3 pictures of split 'val' are missing .* the first is 0+201\.jpg"):
        read(tiny_copy, "val")
    assert len(read(tiny_copy, "val", need_images=False).persons) == 9
    shutil.rmtree(tiny_copy / "images")
    assert len(read(tiny_copy, "val", need_images=False).persons) == 9


def test_folder_of_no_layout_says_what_was_expected(tmp_path: Path):
    (tmp_path / "annotations").mkdir()
    assert skeleton_of(str(tmp_path)) is skeleton_of(str(tmp_path / "nowhere")) is COCO
    with pytest.raises(DataError, match=r"expected annotations/person_.*annot/.* \(MPII\), or json/crowdpose_"):
        open_dataset(str(tmp_path), "val")


def test_coco_is_the_folder_that_the_environment_names(tiny_data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LRBENCH_COCO", str(tiny_data))
    assert len(open_dataset("coco", "val").persons) == 9


def test_arrays(tiny_data: Path):
    dataset = read(tiny_data, "val")
    assert dataset.metric == "oks"
    assert dataset.truth() == tiny.read(tiny_data)
    persons, images, raw = dataset.persons, dataset.images, tiny.read(tiny_data)
    assert persons.id.dtype == persons.image.dtype == images.id.dtype == np.int64
    assert persons.box.dtype == persons.keypoints.dtype == persons.score.dtype == np.float64
    assert persons.visible.dtype == np.int8
    assert images.size.dtype == np.int32
    assert images.size.tolist() == [[i["height"], i["width"]] for i in raw["images"]]
    assert images.id.tolist() == [i["id"] for i in raw["images"]]
    assert persons.box.shape == (9, 4)
    assert persons.keypoints.shape == (9, 17, 2)
    assert persons.annotated
    assert (persons.score == 1).all()
    assert persons.id.tolist() == [a["id"] for a in raw["annotations"]]
    assert images.id[persons.image].tolist() == [a["image_id"] for a in raw["annotations"]]
    keypoints = np.array([a["keypoints"] for a in raw["annotations"]]).reshape(9, 17, 3)
    np.testing.assert_array_equal(persons.keypoints, keypoints[..., :2])
    np.testing.assert_array_equal(persons.visible, keypoints[..., 2])
    assert set(persons.visible.ravel()) == {0, 1, 2}
    # from x2 = x + w - 1 and back
    np.testing.assert_allclose(persons.box, [a["bbox"] for a in raw["annotations"]], rtol=1e-14)
    assert dataset.dropped == {}


def test_position_of_an_unlabelled_keypoint_is_zero(tiny_copy: Path):
    with tiny.change(tiny_copy) as data:
        data["annotations"][0]["keypoints"][12:15] = [33, 44, 0]
    assert read(tiny_copy, "val").persons.keypoints[0, 4].tolist() == [0, 0]


def test_dropped(tiny_copy: Path):
    with tiny.change(tiny_copy) as data:
        first = data["annotations"][0]

        def add(number: int, **changes: object) -> None:
            data["annotations"].append({**first, "id": number, **changes})

        add(1, category_id=2)
        add(2, category_id=2, keypoints=None)
        add(3, iscrowd=1, keypoints=[0] * 51, num_keypoints=0)
        add(4, area=0)
        add(5, keypoints=[0] * 51, num_keypoints=0, bbox=[0, 0, 0, 0])
        add(6, bbox=[500, 10, 20, 20])
        add(7, bbox=[10, -3.0, 20, 20])  # clipped, kept
        del data["annotations"][1]["keypoints"], data["annotations"][1]["num_keypoints"]  # as in plain instance files
    dataset = read(tiny_copy, "val")
    assert dataset.dropped == {
        "other category": 2, "crowd": 1, "no labelled keypoint": 2, "area 0": 1, "box outside the image": 1
    }  # fmt: skip
    assert len(dataset.persons) == 9 - 1 + 1
    assert dataset.persons.box[dataset.persons.id == 7].tolist() == [[10, 0, 20, 20]]


@pytest.mark.parametrize(
    ("where", "change", "message"),
    [
        ("annotations", {"id": 0}, "annotation 0: .* expected ids from 1"),  # pycocotools takes 0 for unmatched
        ("annotations", {"id": "7"}, "annotation 7: expected integers id"),
        ("annotations", {"image_id": 200.5}, "annotation 2001: expected integers id"),
        ("annotations", {"category_id": 1e999}, "annotation 2001: expected integers id"),
        ("annotations", {"iscrowd": "0"}, "annotation 2001: iscrowd '0', expected 0 or 1"),
        ("annotations", {"num_keypoints": 0}, "annotation 2001: num_keypoints is 0, but 16 keypoints are labelled"),
        ("annotations", {"keypoints": [0] * 51}, "annotation 2001: num_keypoints is 16, but 0 keypoints are labelled"),
        ("images", {"id": "201"}, "image 201: expected id, file_name, height and width"),
        ("images", {"height": 1e999}, "image 201: expected id, file_name, height and width"),
        ("images", {"width": 160.5}, "image 201: expected id, file_name, height and width"),
    ],
)
def test_numbers_that_are_none_are_refused(tiny_copy: Path, where: str, change: dict, message: str):
    with tiny.change(tiny_copy) as data:
        data[where][1] |= change
    with pytest.raises(DataError, match=message) as caught:
        read(tiny_copy, "val")
    assert "\n" not in str(caught.value)


def test_other_keypoints_are_refused_even_if_there_are_17(tiny_copy: Path):
    def name(keypoints: list[str]) -> None:
        with tiny.change(tiny_copy) as data:
            data["categories"][0]["keypoints"] = keypoints

    before = read(tiny_copy, "val").persons.hash
    for same in ([], [k.replace("_", " ").title() for k in COCO.keypoints]):
        name(same)
        assert read(tiny_copy, "val").persons.hash == before
    for other in (COCO.keypoints[::-1], COCO.keypoints[:-1], ["left_eye", "right_eye", "nose", *COCO.keypoints[3:]]):
        name(list(other))
        with pytest.raises(
            DataError, match=r"category 1 lists the keypoints .*; expected those of COCO in their order"
        ):
            read(tiny_copy, "val")


class TestTruth:
    """What is scored against is what was read, complete for pycocotools."""

    def perfect(self, root: Path) -> float | None:
        dataset = read(root, "val")
        rows = [
            {
                "image_id": int(dataset.images.id[image]),
                "category_id": 1,
                "keypoints": np.column_stack([xy, np.ones(17)]).ravel().tolist(),
                "score": 0.9,
            }
            for image, xy in zip(dataset.persons.image, dataset.persons.keypoints, strict=True)
        ]
        assert set(score_keypoints(dataset.truth(), rows).values()) <= {1, None}
        return score(dataset.truth(), rows).ap

    @pytest.mark.parametrize("missing", ["num_keypoints", "iscrowd"])
    def test_what_reading_does_without(self, tiny_data: Path, tiny_copy: Path, missing: str):
        with tiny.change(tiny_copy) as data:
            for annotation in data["annotations"]:
                del annotation[missing]
        assert read(tiny_copy, "val").truth() == tiny.read(tiny_data)
        assert self.perfect(tiny_copy) == 1

    def test_unlabelled_persons_and_other_categories(self, tiny_copy: Path):
        with tiny.change(tiny_copy) as data:
            first = data["annotations"][0]
            boxed = {k: first[k] for k in ("image_id", "bbox", "area")}
            data["annotations"].append({"id": 1, "category_id": 1, **boxed})
            data["annotations"].append({"id": 2, "category_id": 2, **boxed})
            data["annotations"].append({**first, "id": 3, "category_id": 2})  # an animal with keypoints
            data["categories"].append({"id": 2, "name": "dog"})
        truth = read(tiny_copy, "val").truth()
        assert [a["id"] for a in truth["annotations"] if a["id"] < 10] == [1]
        assert truth["annotations"][-1]["num_keypoints"] == truth["annotations"][-1]["iscrowd"] == 0
        assert [c["id"] for c in truth["categories"]] == [1]
        assert self.perfect(tiny_copy) == 1

    def test_a_crowd_has_a_place(self, tiny_copy: Path):
        with tiny.change(tiny_copy) as data:
            image = data["images"][0]["id"]
            data["annotations"].append({"id": 1, "image_id": image, "category_id": 1, "iscrowd": 1})
        dataset = read(tiny_copy, "val")
        with pytest.raises(DataError, match=r"annotation 1: scoring asks of crowds .* bbox \[x, y, w, h\] and area"):
            dataset.truth()


def test_nobody_to_choose(tiny_copy: Path):
    data = tiny.read(tiny_copy)
    tiny.annotations(tiny_copy).unlink()
    lists = json.dumps({key: data[key] for key in ("images", "categories")})
    (tiny_copy / "annotations" / "image_info_val.json").write_text(lists)
    with pytest.raises(ValueError, match="val annotates nobody"):
        read(tiny_copy, "val").row_of(None)


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        # in a picture 100 wide and 80 high; x2 = min(99, x1 + w - 1), back as w = x2 - x1 + 1
        ((10, 20, 30, 40), (10, 20, 30, 40)),
        ((-5, 20, 30, 40), (0, 20, 30, 40)),  # what is cut at the near side is not taken from the far one
        ((90, 20, 30, 40), (90, 20, 10, 40)),
        ((10, 70, 30, 40), (10, 70, 30, 10)),
        ((0, 0, 100, 80), (0, 0, 100, 80)),
        ((0, 0, 101, 81), (0, 0, 100, 80)),
        ((10.5, 20.25, 30.5, 0.5), (10.5, 20.25, 30.5, 1)),  # max(0, h - 1) = 0: one pixel
        ((99, 79, 5, 5), (99, 79, 1, 1)),
        ((99.5, 0, 5, 5), None),
        ((100, 0, 5, 5), None),
        ((0, 80, 5, 5), None),
    ],
)
def test_clip_box(box, clipped):
    assert clip_box(box, 100, 80) == clipped


def test_hash_follows_annotations_and_pictures(tiny_copy: Path):
    before = read(tiny_copy, "val").hash
    assert read(tiny_copy, "val").hash == before
    assert read(tiny_copy, "train").hash != before
    picture = tiny.image(tiny_copy)
    content = picture.read_bytes()
    picture.write_bytes(content + b"\0")
    assert read(tiny_copy, "val").hash != before
    picture.write_bytes(content)
    assert read(tiny_copy, "val").hash == before
    with tiny.change(tiny_copy) as data:
        data["annotations"][0]["keypoints"][0] += 0.5
    assert read(tiny_copy, "val").hash != before


def test_hash_is_that_of_the_files_and_pictures(tiny_copy: Path):
    folder = tiny_copy / "images" / "val"
    (folder / "part").mkdir()
    tiny.image(tiny_copy, row=0).rename(folder / "part" / "..jpg")
    tiny.image(tiny_copy, row=1).unlink()
    with tiny.change(tiny_copy) as data:
        data["images"][0]["file_name"] = "./part//..jpg"
    last = folder / data["images"][2]["file_name"]
    text = (
        f"..jpg {(folder / 'part' / '..jpg').stat().st_size}\n000000000201.jpg -\n{last.name} {last.stat().st_size}\n"
    )
    digest = hashlib.sha256(tiny.annotations(tiny_copy).read_bytes() + text.encode())
    assert read(tiny_copy, "val", need_images=False).hash == digest.hexdigest()


class TestSkim:
    """Annotations read one at a time are those of the standard library, whatever it takes for JSON."""

    def same(self, content: bytes) -> None:
        whole, skimmed = json.loads(content), skim(content, Path("file"))
        looked_at = {
            "images": {"id", "file_name", "height", "width"},
            "annotations": {
                "id", "image_id", "category_id", "iscrowd", "num_keypoints", "keypoints", "bbox", "area"
            },
        }  # fmt: skip
        for key, names in looked_at.items():
            expected = [{k: v for k, v in row.items() if k in names} for row in whole[key]]
            found = [{k: v for k, v in row.items() if k in names} for row in skimmed[key]]
            # by their text, which tells 1 from 1.0, 0.0 from -0.0, and every last bit
            assert repr([sorted(row.items()) for row in found]) == repr([sorted(row.items()) for row in expected])
            assert len(skimmed[key]) == len(expected)
        assert skimmed["categories"] == whole["categories"]
        assert skimmed.get("lrbench") == whole.get("lrbench")

    def test_numbers(self, tiny_data: Path):
        data, rng = tiny.read(tiny_data), np.random.default_rng(0)
        values = [*rng.normal(0, 1e3, 2000).tolist(), *rng.uniform(-320, 308, 2000), 5e-324, 2.2250738585072011e-308]
        for annotation in data["annotations"]:
            annotation["keypoints"] = [*values, *(round(v, 2) for v in values), *(10.0 ** rng.uniform(-9, 9, 99))]
            annotation["bbox"] = [-0.0, 0, 2**53 + 1, 2**63, 2**64, -(2**63) - 1]
        content = json.dumps(data).encode()
        assert isinstance(skim(content, Path("file"))["annotations"], Records)
        self.same(content)
        for text in (
            b"1E+2",
            b"1e-7",
            b"0.1e1",
            b"179769313486231580793e289",
            b"9007199254740993.0",
            b"1e400",
            b"-1e400",
        ):
            self.same(content.replace(b"-0.0", text))
        for text in (b"NaN", b"Infinity", b"1.0000000000000000000000000000000000001"):
            self.same(content.replace(b"-0.0", text))

    @pytest.mark.parametrize("name", ["a.jpg", "b\u00e4r.jpg", "\U0001f600", "\ud800.jpg", 'q"\\/\t', "\0"])
    def test_text(self, tiny_data: Path, name: str):
        data = tiny.read(tiny_data) | {"lrbench": {"note": name}}
        data["images"][1]["file_name"] = data["images"][0]["coco_url"] = name
        self.same(json.dumps(data).encode())
        if name != "\ud800.jpg":
            for encoding in ("utf-8", "utf-8-sig", "utf-16"):
                self.same(json.dumps(data, ensure_ascii=False).encode(encoding))

    def test_any_order_and_twice_the_same_key(self, tiny_data: Path):
        data = tiny.read(tiny_data)
        data["annotations"][0] = {k: data["annotations"][0][k] for k in reversed(data["annotations"][0])}
        text = json.dumps({key: data[key] for key in reversed(data)}, indent=2)
        self.same(text.encode())
        self.same(text.replace('"iscrowd": 0', '"iscrowd": 1, "segmentation": [[1, 2.5]], "iscrowd": 0').encode())

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda text: text[: len(text) // 2], "not valid JSON"),
            (lambda text: text + "]", "not valid JSON \\(Extra data: line 1"),
            (lambda text: text.replace('"area"', "area", 1), r"not valid JSON \(Expecting property name .*char \d+\)"),
            (lambda text: text.replace("jpg", "j\udcffpg", 1), "not valid JSON .*can't decode byte 0xff"),
            (lambda text: f"[{text}]", "expected an object with images and annotations, found list"),
            (
                lambda text: text.replace('"annotations": [', '"annotations": [7, '),
                "list of objects under 'annotations'",
            ),
            (lambda text: text.replace('"images": [', '"images": [[], '), "list of objects under 'images'"),
            (lambda text: text.replace('"images"', '"pictures"'), "list of objects under 'images'"),
            (lambda text: text.replace('"categories": [', '"categories": [1, '), "list of objects under 'categories'"),
            (lambda text: '{"images": 3, "annotations": {}}', "list of objects under 'images'"),
            (lambda text: text.replace('"id": 202', '"id": 201'), "image id 201 stands twice"),
        ],
    )
    def test_refusals_are_told_in_full(self, tiny_copy: Path, change, message: str):
        path = tiny.annotations(tiny_copy)
        path.write_bytes(change(path.read_text()).encode("utf-8", "surrogateescape"))
        with pytest.raises(DataError, match=message) as caught:
            read(tiny_copy, "val")
        assert str(path) in str(caught.value)

    def test_a_byte_that_is_no_text_is_refused_where_nobody_looks(self, tiny_copy: Path):
        path = tiny.annotations(tiny_copy)
        path.write_bytes(path.read_bytes().replace(b'{"id"', b'{"url": "\xff", "id"', 1))
        with pytest.raises(DataError, match="not valid JSON"):
            read(tiny_copy, "val")


class TestDetections:
    def write(self, root: Path, *rows: object) -> Path:
        path = root / "boxes.json"
        path.write_text(json.dumps(list(rows)))
        return path

    def row(self, **changes: object) -> dict:
        return {"image_id": 201, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.25, **changes}

    def test_boxes_and_scores_are_kept_as_they_are(self, tiny_copy: Path):
        images = read(tiny_copy, "val").images
        beyond = [-20.5, -3, 400, 500]  # far outside the picture on all sides
        path = self.write(
            tiny_copy,
            self.row(),
            self.row(category_id=3, bbox=[0, 0, 0, 0]),
            self.row(bbox=beyond, score=0.0),
            self.row(image_id=200, score=-1.5),
        )
        persons = read_detections(path, images)
        assert not persons.annotated
        assert persons.box.tolist() == [[10, 20, 30, 40], beyond, [10, 20, 30, 40]]
        assert persons.score.tolist() == [0.25, 0.0, -1.5]
        assert persons.id.tolist() == [0, 2, 3]
        assert images.id[persons.image].tolist() == [201, 201, 200]
        assert persons.box.dtype == persons.score.dtype == persons.keypoints.dtype == np.float64
        assert persons.keypoints.shape == (3, 17, 2)
        assert persons.visible.dtype == np.int8
        assert not persons.visible.any()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"image_id": 7}, "row 1: image 7 is not in this split"),
            ({"image_id": 201.5}, "row 1: expected image_id"),
            ({"image_id": 1e999}, "row 1: expected image_id"),
            ({"bbox": [1, 2, 0, 4]}, "row 1: box"),
            ({"bbox": [1, 2, 3, -4]}, "row 1: box"),
            ({"bbox": [1, 2, 3]}, "row 1: box"),
            ({"bbox": [1, 2, 3, float("nan")]}, "row 1: box"),
            ({"score": float("inf")}, "row 1: box"),
            ({"score": None}, "row 1: expected image_id, category_id, bbox"),
            ({"bbox": "1 2 3 4"}, "row 1: expected"),
        ],
    )
    def test_refusals_name_the_row(self, tiny_copy: Path, changes: dict, message: str):
        path = self.write(tiny_copy, self.row(), self.row(**changes))
        with pytest.raises(DataError, match=message):
            read_detections(path, read(tiny_copy, "val").images)

    def test_no_person(self, tiny_copy: Path):
        with pytest.raises(DataError, match="no box of category 1"):
            read_detections(self.write(tiny_copy, self.row(category_id=2)), read(tiny_copy, "val").images)


@pytest.mark.coco
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_photographs(coco_slice: Path, split: str):
    dataset = read(coco_slice, split)
    raw = json.loads(dataset.annotation_file.read_bytes())
    size = {i["id"]: (i["width"], i["height"]) for i in raw["images"]}

    def reason(a: dict) -> str:  # the published rule, step by step and on its own
        if a["category_id"] != 1:
            return "other category"
        if a["iscrowd"]:
            return "crowd"
        if sum(v > 0 for v in a["keypoints"][2::3]) == 0:
            return "no labelled keypoint"
        (x, y, w, h), (width, height) = a["bbox"], size[a["image_id"]]
        x1, y1 = max(0, x), max(0, y)
        x2, y2 = min(width - 1, x1 + max(0, w - 1)), min(height - 1, y1 + max(0, h - 1))
        if a["area"] <= 0:
            return "area 0"
        return "" if x2 >= x1 and y2 >= y1 else "box outside the image"

    reasons = Counter(reason(a) for a in raw["annotations"])
    assert len(dataset.persons) == reasons.pop("")
    assert dataset.dropped == dict(reasons)
    assert len(dataset.persons) > 500
    assert (dataset.persons.visible > 0).any(1).all()
    assert dataset.persons.keypoints.shape[1] == len(COCO)
    for row in range(20):
        height, width = (int(v) for v in dataset.images.size[row])
        assert read_image(dataset.images.path[row], (height, width)).shape == (height, width, 3)


def test_names_that_coco_does_not_know_tell_nothing(tiny_copy: Path):
    with tiny.change(tiny_copy) as data:
        data["categories"][0]["keypoints"] = [f"k{k}" for k in range(17)]
    assert len(read(tiny_copy, "val").persons) == 9
