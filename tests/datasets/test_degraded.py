"""Low-resolution copies: annotations there and back, scores, resuming, refusing."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
import tiny_crowdpose
import tiny_mpii
from pycocotools import mask as rle
from pycocotools.coco import COCO as Annotations
from pycocotools.cocoeval import COCOeval

from lrbench.datasets import coco, degraded
from lrbench.datasets.degraded import degrade, map_detections, original_annotations, original_results, verify
from lrbench.datasets.images import DataError, read_image
from lrbench.geometry import Size
from lrbench.structures import COCO

IMAGE = {"preset": "antialias", "scale": 4.0}
CROP = {"preset": "antialias", "level": "crop", "size": Size(64, 48)}
HEIGHT = {"preset": "antialias", "level": "height", "height": 40}
NOISY = {"preset": "sensor", "severity": 4, "level": "crop", "size": Size(64, 48), "seed": 3}
ALL = pytest.mark.parametrize("how", [IMAGE, CROP, HEIGHT, NOISY], ids=["image", "crop", "height", "sensor"])
BOTH = pytest.mark.parametrize("how", [IMAGE, CROP], ids=["image", "crop"])


def make_source(root: Path, pictures: int = 20) -> Path:
    """Pictures of unequal, odd sizes with two labelled people each, a crowd and an unlabelled person in the first."""
    rng = np.random.default_rng(7)
    images, annotations = [], []
    (root / "images" / "val").mkdir(parents=True)
    (root / "annotations").mkdir()
    for number in range(1, pictures + 1):
        height, width = 150 + 3 * (number % 5), 201 + 2 * (number % 3)
        pixels = cv2.GaussianBlur(rng.uniform(0, 255, (height, width, 3)), (0, 0), 2).clip(0, 255).astype(np.uint8)
        name = f"photo {number}.png"
        cv2.imwrite(str(root / "images" / "val" / name), pixels)
        images.append({"id": number, "file_name": name, "width": width, "height": height, "licence": 3})
        for person in range(2):
            x, y = 20 + 90 * person + rng.uniform(0, 9), rng.uniform(5, 20)
            w, h = rng.uniform(50, 70), rng.uniform(90, 115)
            points = rng.uniform((x, y), (x + w, y + h), (17, 2)).round(1)
            flags = rng.integers(1, 3, 17)
            flags[3] = 0
            keypoints = [
                v
                for point, flag in zip(points.tolist(), flags.tolist(), strict=True)
                for v in (*(point if flag else (0, 0)), flag)
            ]
            annotations.append(
                {
                    "id": 100 * number + person,
                    "image_id": number,
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": [x, y, w, h],
                    "area": 0.6 * w * h,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                    "keypoints": keypoints,
                    "num_keypoints": 16,
                }
            )
    mask = np.zeros((images[0]["height"], images[0]["width"]), np.uint8, order="F")
    mask[40:100, 60:140] = 1
    counts = np.diff(np.flatnonzero(np.diff(np.concatenate([[2], mask.ravel(order="F"), [2]])))).tolist()
    for number, segmentation in ((1, {"size": list(mask.shape), "counts": counts}), (2, None)):
        annotations.append(
            {
                "id": number,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": int(segmentation is not None),
                "bbox": [60, 40, 80, 60],
                "area": 4800,
                "segmentation": segmentation or [[60, 40, 140, 40, 140, 100]],
                "keypoints": [0] * 51,
                "num_keypoints": 0,
            }
        )
    data = {
        "info": {"year": 2020},
        "licences": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO.keypoints), "skeleton": []}],
    }
    (root / "annotations" / "person_keypoints_val.json").write_text(json.dumps(data))
    return root


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    return make_source(tmp_path_factory.mktemp("source") / "photos")


def annotations_of(root: Path) -> dict:
    return json.loads((root / "annotations" / "person_keypoints_val.json").read_text())


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def truth_as_results(data: dict) -> list[dict]:
    """A perfect prediction, as a network that sees the copy would write it."""
    results = []
    for annotation in data["annotations"]:
        if annotation.get("lrbench_source_num_keypoints", annotation["num_keypoints"]):
            keypoints = [float(v) for v in annotation["keypoints"]]
            keypoints[2::3] = [1.0] * 17
            results.append({"image_id": annotation["image_id"], "category_id": 1, "keypoints": keypoints, "score": 0.9})
    return results


def score(truth: dict, results: list[dict]) -> np.ndarray:
    with contextlib.redirect_stdout(io.StringIO()):
        referee = Annotations()
        referee.dataset = json.loads(json.dumps(truth))
        referee.createIndex()
        evaluation = COCOeval(referee, referee.loadRes(results), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


class TestAnnotations:
    @ALL
    def test_there_and_back(self, source, tmp_path, how):
        degrade(source, tmp_path / "out", workers=1, **how)
        before, after = annotations_of(source), original_annotations(annotations_of(tmp_path / "out"))
        assert after["images"] == before["images"]
        assert [k for k in after if k.startswith("lrbench")] == []
        assert len(after["annotations"]) == len(before["annotations"])
        by_id = {a["id"]: a for a in after["annotations"]}
        for annotation in before["annotations"]:
            back = by_id[annotation["id"]]
            assert set(annotation) - set(back) <= {"segmentation"}
            assert np.abs(np.subtract(back["keypoints"], annotation["keypoints"])).max() < 1e-6
            assert back["bbox"] == annotation["bbox"]
            assert back["area"] == annotation["area"]
            assert back["image_id"] == annotation["image_id"]
            assert back["num_keypoints"] == annotation["num_keypoints"]
            if not annotation["iscrowd"] and annotation["num_keypoints"]:
                assert np.abs(np.subtract(back["segmentation"], annotation["segmentation"])).max() < 1e-6

    @ALL
    def test_there_and_back_by_the_map_alone(self, source, tmp_path, how):
        """Without the source's own numbers that a copy keeps."""
        degrade(source, tmp_path / "out", workers=1, **how)
        before, copy = annotations_of(source), annotations_of(tmp_path / "out")
        kept = ("bbox", "area", "keypoints", "num_keypoints")
        for annotation in copy["annotations"]:
            for key in kept:
                annotation.pop(f"lrbench_source_{key}", None)
        by_id = {a["id"]: a for a in before["annotations"]}
        mapped = {a["id"] for a in copy["annotations"]}
        for back in original_annotations(copy)["annotations"]:
            for key in kept if back["id"] in mapped else ():
                assert np.abs(np.subtract(back[key], by_id[back["id"]][key])).max() < 1e-6
        people = [a for a in copy["annotations"] if a["num_keypoints"]]
        assert len(people) == 40
        results = [{k: a[k] for k in ("image_id", "category_id", "keypoints", "bbox")} for a in people]
        for row, annotation in zip(original_results(results, copy), people, strict=True):
            truth = by_id[annotation["id"]]
            points, labelled = (np.reshape(a["keypoints"], (17, 3)) for a in (row, truth))
            seen = labelled[:, 2] > 0
            assert np.abs(points[seen, :2] - labelled[seen, :2]).max() < 1e-6
            assert np.abs(np.subtract(row["bbox"], truth["bbox"])).max() < 1e-6
            assert row["image_id"] == truth["image_id"]

    def test_the_law_of_resized_pictures(self, source, tmp_path):
        degrade(source, tmp_path / "out", workers=1, **IMAGE)
        before, copy = annotations_of(source), annotations_of(tmp_path / "out")
        for image, small in zip(before["images"], copy["images"], strict=True):
            assert small["width"] == round(image["width"] / 4)
            assert small["height"] == round(image["height"] / 4)
            assert small["lrbench_scale"] == [small["width"] / image["width"], small["height"] / image["height"]]
            assert small["lrbench_source_size"] == [image["width"], image["height"]]
            assert small["licence"] == 3
        scales = {image["id"]: image["lrbench_scale"] for image in copy["images"]}
        for annotation, small in zip(before["annotations"], copy["annotations"], strict=True):
            sx, sy = scales[annotation["image_id"]]
            keypoints, moved = (np.reshape(a["keypoints"], (17, 3)) for a in (annotation, small))
            labelled = keypoints[:, 2] > 0
            assert np.allclose(moved[labelled, 0], (keypoints[labelled, 0] + 0.5) * sx - 0.5)
            assert np.allclose(moved[labelled, 1], (keypoints[labelled, 1] + 0.5) * sy - 0.5)
            assert not moved[~labelled].any()
            assert np.array_equal(moved[:, 2], keypoints[:, 2])
            assert np.allclose(small["bbox"], np.multiply(annotation["bbox"], [sx, sy, sx, sy]))
            assert small["area"] == pytest.approx(annotation["area"] * sx * sy)
            assert small["lrbench_source_bbox"] == annotation["bbox"]
            assert small["lrbench_source_area"] == annotation["area"]
            if not annotation["iscrowd"]:
                polygon = np.multiply(np.reshape(annotation["segmentation"][0], (-1, 2)), [sx, sy])
                assert np.allclose(small["segmentation"][0], polygon.ravel())

    @pytest.mark.parametrize("packed", [False, True])
    def test_crowd_masks_survive(self, source, tmp_path, packed):
        origin = tmp_path / "source"
        shutil.copytree(source, origin)
        data = annotations_of(origin)
        crowd = next(a for a in data["annotations"] if a["iscrowd"])
        full = crowd["segmentation"]
        if packed:
            encoded = rle.frPyObjects(full, *full["size"])
            crowd["segmentation"] = {"size": full["size"], "counts": encoded["counts"].decode()}
            (origin / "annotations" / "person_keypoints_val.json").write_text(json.dumps(data))
        degrade(origin, tmp_path / "out", workers=1, **IMAGE)
        with contextlib.redirect_stdout(io.StringIO()):
            copy = Annotations(str(tmp_path / "out" / "annotations" / "person_keypoints_val.json"))
        small = copy.loadAnns([crowd["id"]])[0]
        assert isinstance(small["segmentation"]["counts"], str if packed else list)
        mask, image = copy.annToMask(small), copy.loadImgs([1])[0]
        assert mask.shape == (image["height"], image["width"])
        sx, sy = image["lrbench_scale"]
        rows, columns = np.nonzero(mask)
        # the square from 60, 40 to 140, 100, to the nearest pixel
        assert np.allclose([columns.min(), columns.max() + 1], [60 * sx, 140 * sx], atol=0.51)
        assert np.allclose([rows.min(), rows.max() + 1], [40 * sy, 100 * sy], atol=0.51)
        assert mask.sum() == (np.ptp(columns) + 1) * (np.ptp(rows) + 1)
        back = next(a for a in original_annotations(annotations_of(tmp_path / "out"))["annotations"] if a["iscrowd"])
        assert back["segmentation"]["size"] == full["size"]

    def test_a_keypoint_outside_its_crop(self, source, tmp_path):
        origin = tmp_path / "source"
        shutil.copytree(source, origin)
        data = annotations_of(origin)
        data["annotations"][0]["keypoints"][:3] = [195.0, 140.0, 2]
        (origin / "annotations" / "person_keypoints_val.json").write_text(json.dumps(data))
        degrade(origin, tmp_path / "out", workers=1, **CROP)
        copy = annotations_of(tmp_path / "out")
        matrix = np.array(copy["images"][0]["lrbench_matrix"])
        assert copy["annotations"][0]["keypoints"][:3] == [*(matrix @ [195.0, 140.0, 1]), 2]
        assert coco.read(tmp_path / "out", "val").persons.visible[0, 0] == 2
        assert original_annotations(copy)["annotations"][0]["keypoints"][:3] == [195.0, 140.0, 2]

    @ALL
    def test_a_perfect_prediction_scores_one_in_original_coordinates(self, source, tmp_path, how):
        degrade(source, tmp_path / "out", workers=1, **how)
        copy = annotations_of(tmp_path / "out")
        results = original_results(truth_as_results(copy), copy)
        for truth in (annotations_of(source), original_annotations(copy)):
            stats = score(truth, results)
            assert stats[[0, 3]] == pytest.approx(1.0)  # AP and AP of medium persons; none is large
            assert stats[5] == pytest.approx(1.0)
        # half a px of a picture shrunk by four, the usual mistake, must show; in a crop it is less than one source px
        error = 0.5 if how is IMAGE else 2.0
        wrong = truth_as_results(copy)
        for row in wrong:
            row["keypoints"] = [v + error * (i % 3 < 2) for i, v in enumerate(row["keypoints"])]
        assert score(annotations_of(source), original_results(wrong, copy))[0] < 0.999

    def test_results_with_box_and_area(self, source, tmp_path):
        degrade(source, tmp_path / "out", workers=1, **CROP)
        copy = annotations_of(tmp_path / "out")
        small = copy["annotations"][4]
        row = {k: small[k] for k in ("image_id", "category_id", "keypoints", "bbox", "area")}
        back = original_results([row], copy)[0]
        origin = next(a for a in annotations_of(source)["annotations"] if a["id"] == small["id"])
        assert back["bbox"] == pytest.approx(origin["bbox"])
        assert back["area"] == pytest.approx(origin["area"])
        assert back["image_id"] == origin["image_id"]

    def test_plain_files_pass_unchanged(self, source):
        data = annotations_of(source)
        results = truth_as_results(data)
        assert original_annotations(data) is data
        assert original_results(results, data) == results

    def test_results_of_an_unknown_picture(self, source, tmp_path):
        degrade(source, tmp_path / "out", workers=1, **IMAGE)
        copy = annotations_of(tmp_path / "out")
        with pytest.raises(DataError, match="result 0: 999"):
            original_results([{"image_id": 999, "keypoints": [0] * 51}], copy)
        with pytest.raises(DataError, match="flat list"):
            original_results([{"image_id": 1, "keypoints": [0] * 50}], copy)

    def test_detections(self, source, tmp_path):
        boxes = tmp_path / "boxes.json"
        rows = [{"image_id": 3, "category_id": 1, "bbox": [10.5, 20, 40, 80], "score": 0.7}]
        boxes.write_text(json.dumps(rows))
        made = degrade(source, tmp_path / "out", workers=1, boxes=boxes, **IMAGE)
        path = tmp_path / "out" / "annotations" / "detections_val.json"
        assert "annotations/detections_val.json" in made["files"]
        dataset = coco.read(tmp_path / "out", "val")
        detected = coco.read_detections(path, dataset.images)
        image = annotations_of(tmp_path / "out")["images"][2]
        sx, sy = image["lrbench_scale"]
        assert np.allclose(detected.box[0], [10.5 * sx, 20 * sy, 40 * sx, 80 * sy])
        with pytest.raises(DataError, match="detection 0: image 3 is not in this split"):
            map_detections(rows, {1: (0.25, 0.25)})
        boxes.write_text(json.dumps(rows * 2))
        with pytest.raises(DataError, match=r"detections_val.json would change"):
            degrade(source, tmp_path / "out", workers=1, boxes=boxes, **IMAGE)


class TestPictures:
    @pytest.mark.parametrize(
        "preset", [{"preset": "paper"}, {"preset": "antialias"}, {"preset": "blur", "severity": 1}], ids=str
    )
    @pytest.mark.parametrize("how", [IMAGE, CROP, HEIGHT], ids=["image", "crop", "height"])
    def test_a_blob_ends_where_its_annotation_says(self, tmp_path, how, preset):
        source = make_source(tmp_path / "source", pictures=3)
        data = annotations_of(source)
        for annotation in data["annotations"][::2][:3]:  # the first keypoint of one person per picture
            x, y = annotation["keypoints"][:2]
            image = data["images"][annotation["image_id"] - 1]
            rows, columns = np.mgrid[: image["height"], : image["width"]]
            height = annotation["bbox"][3]
            step = {"image": 4, "crop": height * 1.25 / 64, "height": height / 40}[how.get("level", "image")]
            value = 250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (1.0 * step) ** 2))
            cv2.imwrite(str(source / "images" / "val" / image["file_name"]), np.repeat(value[:, :, None], 3, axis=2))
        degrade(source, tmp_path / "out", workers=1, **(how | preset))
        copy = annotations_of(tmp_path / "out")
        files = {image["id"]: image["file_name"] for image in copy["images"]}
        checked = 0
        for annotation in copy["annotations"][::2][:3]:
            small = read_image(tmp_path / "out" / "images" / "val" / files[annotation["image_id"]])[:, :, 0].astype(
                float
            )
            x, y = annotation["keypoints"][:2]
            if not (5 < x < small.shape[1] - 6 and 5 < y < small.shape[0] - 6):
                continue  # cut off by the border
            rows, columns = np.mgrid[: small.shape[0], : small.shape[1]]
            found = np.array([(small * columns).sum(), (small * rows).sum()]) / small.sum()
            assert np.abs(found - (x, y)).max() < 0.02
            checked += 1
        assert checked

    def test_persons_of_one_height(self, tmp_path):
        source = make_source(tmp_path / "photos", 3)
        path = source / "annotations" / "person_keypoints_val.json"
        data = json.loads(path.read_text())
        data["annotations"][0]["bbox"][3] = 30.0  # of six persons, one is no higher than 40 px
        path.write_text(json.dumps(data))
        degrade(source, tmp_path / "out", workers=1, **HEIGHT)
        copy = json.loads((tmp_path / "out" / "annotations" / "person_keypoints_val.json").read_text())
        assert copy["lrbench"]["left_out"] == 1
        assert len(copy["annotations"]) == len(copy["images"]) == 5
        for annotation in copy["annotations"]:
            assert annotation["bbox"][3] == pytest.approx(40)
            small = next(i for i in copy["images"] if i["id"] == annotation["image_id"])
            x, _, w, h = annotation["bbox"]
            # half of the longer side lies around the box, up to rounding of the picture
            assert x == pytest.approx(0.5 * max(w, h))
            assert small["height"] == pytest.approx(h + max(w, h), abs=0.5)
        # whoever was left out is no ground truth either
        assert data["annotations"][0]["id"] not in {a["id"] for a in original_annotations(copy)["annotations"]}

    @pytest.mark.parametrize("change", [{"seed": 4}, {"severity": 2}])
    def test_seed_and_severity_change_the_pixels(self, source, tmp_path, change):
        one = degrade(source, tmp_path / "one", workers=1, **NOISY)
        other = degrade(source, tmp_path / "other", workers=1, **(NOISY | change))
        assert one["images"].keys() == other["images"].keys()
        assert not set(one["images"].values()) & set(other["images"].values())

    @ALL
    def test_pycocotools_and_our_reader_open_the_copy(self, source, tmp_path, how):
        degrade(source, tmp_path / "out", workers=1, **how)
        with contextlib.redirect_stdout(io.StringIO()):
            copy = Annotations(str(tmp_path / "out" / "annotations" / "person_keypoints_val.json"))
        dataset = coco.read(tmp_path / "out", "val")
        assert len(dataset.persons) == 40
        assert dataset.source["level"] == how.get("level", "image")
        assert dataset.source["severity"] == how.get("severity")
        if how is not NOISY:
            assert dataset.source["numbers"]["a"] == -0.5
        for number, path, size in zip(dataset.images.id, dataset.images.path, dataset.images.size, strict=True):
            assert path.name == f"{number:012d}.png"
            assert copy.loadImgs([int(number)])[0]["file_name"] == path.name
            read_image(path, tuple(int(v) for v in size))

    def test_none_is_the_decoded_picture(self, source, tmp_path):
        degrade(source, tmp_path / "out", preset="none", scale=1, workers=1)
        before = read_image(source / "images" / "val" / "photo 3.png")
        assert np.array_equal(read_image(tmp_path / "out" / "images" / "val" / "000000000003.png"), before)

    def test_real_photographs(self, coco_slice, tmp_path):
        data = json.loads(coco.find_annotations(coco_slice, "val").read_text())
        folder = coco.find_images(coco_slice, "val")
        chosen = {a["image_id"] for a in data["annotations"] if a.get("num_keypoints")}
        data["images"] = [i for i in data["images"] if i["id"] in chosen][:6]
        kept = {i["id"] for i in data["images"]}
        data["annotations"] = [a for a in data["annotations"] if a["image_id"] in kept]
        (tmp_path / "few" / "annotations").mkdir(parents=True)
        (tmp_path / "few" / "images" / "val").mkdir(parents=True)
        (tmp_path / "few" / "annotations" / "person_keypoints_val.json").write_text(json.dumps(data))
        for image in data["images"]:
            shutil.copy(folder / image["file_name"], tmp_path / "few" / "images" / "val" / image["file_name"])
        for name, how in (("image", IMAGE), ("crop", CROP)):
            out = tmp_path / name
            degrade(tmp_path / "few", out, workers=1, **how)
            copy = annotations_of(out)
            coco.read(out, "val")
            truth = original_annotations(copy)
            results = original_results(truth_as_results(copy), copy)
            assert score(truth, results)[0] == pytest.approx(1.0)
            assert np.array_equal(score(truth, results), score(data, results))
            assert verify(out, tmp_path / "few", workers=1) == []


class TestRepeating:
    @ALL
    def test_workers_do_not_matter(self, source, tmp_path, how):
        seen = []
        one = degrade(source, tmp_path / "one", workers=1, **how)
        two = degrade(source, tmp_path / "two", workers=2, progress=lambda *step: seen.append(step), **how)
        assert one == two
        assert contents(tmp_path / "one") == contents(tmp_path / "two")
        assert seen == [(count, 20) for count in range(1, 21)]

    @ALL
    def test_an_interrupted_run_goes_on(self, source, tmp_path, how, monkeypatch):
        whole = degrade(source, tmp_path / "whole", workers=1, **how)

        def stop(done: int, total: int) -> None:
            if done == 7:
                raise KeyboardInterrupt

        out = tmp_path / "out"
        with pytest.raises(KeyboardInterrupt):
            degrade(source, out, workers=1, progress=stop, **how)
        assert not (out / "manifest.json").exists()
        with (out / "manifest.val.part").open("ab") as log:
            log.write(b'{"000000000009.p')  # killed in the middle of a line
        first = min((out / "images" / "val").iterdir())
        first.write_bytes(first.read_bytes()[:50])  # and a file lost its end
        made = []
        plain = degraded._pixels
        monkeypatch.setattr(
            degraded, "_pixels", lambda preset, job, todo: made.extend(todo) or plain(preset, job, todo)
        )
        assert degrade(source, out, workers=1, **how) == whole
        assert contents(out) == contents(tmp_path / "whole")
        assert len(made) == len(whole["images"]) - (6 if how is IMAGE else 13)
        made.clear()
        assert degrade(source, out, workers=1, **how) == whole
        assert made == []
        assert contents(out) == contents(tmp_path / "whole")

    @pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
    def test_stopping_leaves_no_workers(self, tmp_path, kind):
        source = make_source(tmp_path / "source", pictures=160)
        code = (
            "import sys; from pathlib import Path; from lrbench.datasets.degraded import degrade\n"
            "from multiprocessing import active_children as c\n"
            "if __name__ == '__main__':\n"
            "    tell = lambda done, total: print(*[p.pid for p in c()], flush=True)\n"
            "    degrade(Path(sys.argv[1]), Path(sys.argv[2]), preset='antialias', scale=4, progress=tell)\n"
        )
        script = tmp_path / "script.py"
        script.write_text(code)
        command = [sys.executable, str(script), str(source), str(tmp_path / "out")]
        environment = os.environ | {"PYTHONPATH": str(Path(coco.__file__).parents[2])}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        ) as run:
            workers = [int(v) for v in run.stdout.readline().split()]
            run.send_signal(kind)
            run.wait()
        deadline = time.monotonic() + 10
        while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        left = [pid for pid in workers if alive(pid)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert len(workers) == 2
        assert run.returncode != 0
        assert left == []
        done = degrade(source, tmp_path / "out", preset="antialias", scale=4, workers=1)
        assert len(done["images"]) == 160

    def test_splits_share_a_folder_if_made_alike(self, source, tmp_path):
        origin = tmp_path / "source"
        shutil.copytree(source, origin)
        shutil.copytree(origin / "images" / "val", origin / "images" / "train")
        shutil.copy(
            origin / "annotations" / "person_keypoints_val.json", origin / "annotations" / "person_keypoints_train.json"
        )
        degrade(origin, tmp_path / "out", workers=1, **IMAGE)
        degrade(origin, tmp_path / "out", split="train", workers=1, **IMAGE)
        assert set(json.loads((tmp_path / "out" / "manifest.json").read_text())["splits"]) == {"train", "val"}
        assert verify(tmp_path / "out", origin, workers=1) == []
        with pytest.raises(DataError, match=r"holds split train with scale 4\.0; asked for 2\.0"):
            degrade(origin, tmp_path / "out", split="train", preset="antialias", scale=2, workers=1)

    @ALL
    def test_verify(self, source, tmp_path, how):
        out = tmp_path / "out"
        degrade(source, out, workers=1, **how)
        assert verify(out, source, workers=2) == []
        first, second, third = sorted((out / "images" / "val").iterdir())[:3]
        pixels = cv2.imread(str(first))
        pixels[0, 0] ^= 1
        cv2.imwrite(str(first), pixels)
        second.unlink()
        (out / "images" / "val" / "more.png").write_bytes(b"")
        copy = annotations_of(out)
        copy["annotations"][0]["bbox"][0] += 1e-9
        (out / "annotations" / "person_keypoints_val.json").write_text(json.dumps(copy))
        manifest = json.loads((out / "manifest.json").read_text())
        manifest["splits"]["val"]["images"][third.name] = "0" * 64
        (out / "manifest.json").write_text(json.dumps(manifest))
        lines = verify(out, source, workers=1)
        assert lines == [
            "annotations/person_keypoints_val.json: not the file of the manifest",
            "more.png: not part of the copy",
            f"{first.name}: its pixels are not those of the manifest",
            f"{second.name}: missing or damaged",
            f"{third.name}: its pixels are not those of the manifest",
        ]

    def test_verify_sees_a_changed_source(self, tmp_path):
        source = make_source(tmp_path / "source", pictures=2)
        degrade(source, tmp_path / "out", workers=1, **IMAGE)
        path = source / "images" / "val" / "photo 2.png"
        cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
        assert verify(tmp_path / "out", source, workers=1) == [
            "000000000002.png: made again from the source, its pixels differ"
        ]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


class TestRefusing:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"preset": "antialis", "scale": 2}, "unknown degradation 'antialis'; did you mean antialias"),
            ({"preset": "paper"}, "level image needs a scale"),
            ({"preset": "paper", "scale": 2, "size": Size(8, 8)}, "level image needs a scale"),
            ({"preset": "paper", "scale": 0}, "scale 0: expected at least 1"),
            ({"preset": "paper", "scale": -2}, "scale -2: expected at least 1"),
            ({"preset": "paper", "scale": 0.5}, "scale 0.5: expected at least 1"),
            ({"preset": "paper", "scale": float("nan")}, "scale nan"),
            ({"preset": "none", "scale": 2}, "preset none leaves images as they are"),
            ({"preset": "paper", "level": "crop"}, "level crop needs the size"),
            ({"preset": "paper", "level": "crop", "size": Size(8, 8), "scale": 2}, "level crop needs the size"),
            ({"preset": "paper", "level": "crop", "size": Size(8, 8), "boxes": Path("b")}, "takes no boxes"),
            ({"preset": "paper", "level": "person", "scale": 2}, "unknown level 'person'"),
            ({"preset": "paper", "level": "height"}, "level height needs the height of the persons"),
            ({"preset": "paper", "level": "height", "height": 0}, "height 0: expected at least 1 px"),
            ({"preset": "paper", "level": "height", "height": 9, "scale": 2}, "and no scale or size"),
            ({"preset": "paper", "scale": 2, "severity": 3}, "preset paper has no severities"),
            ({"preset": "sensor", "scale": 2, "severity": 6}, "expected 1 .mild. to 5 .hard."),
            ({"preset": "paper", "scale": 2, "workers": 0}, "workers 0"),
        ],
    )
    def test_arguments(self, source, tmp_path, arguments, message):
        with pytest.raises(ValueError, match=message) as caught:
            degrade(source, tmp_path / "out", **arguments)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()

    def test_folders_inside_one_another(self, source):
        for out in (source, source / "small", source.parent, source / "images" / ".."):
            with pytest.raises(ValueError, match="contain one another"):
                degrade(source, out, **IMAGE)

    def test_somebody_elses_folder(self, source, tmp_path):
        (tmp_path / "thesis.tex").write_text("")
        with pytest.raises(DataError, match="not empty and not written by lrbench degrade"):
            degrade(source, tmp_path, workers=1, **IMAGE)
        (tmp_path / "manifest.json").write_text("{}")
        with pytest.raises(DataError, match="not a manifest of lrbench degrade"):
            degrade(source, tmp_path, workers=1, **IMAGE)
        assert {p.name for p in tmp_path.iterdir()} == {"thesis.tex", "manifest.json"}

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"scale": 2.0}, "split val with scale 4.0; asked for 2.0; choose another folder or delete this one"),
            ({"preset": "paper"}, "preset name antialias, .* asked for name paper"),
            ({"seed": 1}, "seed 0; asked for 1"),
            ({"level": "crop", "scale": None, "size": Size(8, 6)}, "level image; asked for crop"),
        ],
    )
    @pytest.mark.parametrize("complete", [True, False])
    def test_another_recipe(self, source, tmp_path, change, message, complete):
        def stop(done: int, total: int) -> None:
            if not complete:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            degrade(source, tmp_path / "out", workers=1, progress=stop, **IMAGE)
        before = contents(tmp_path / "out")
        with pytest.raises(DataError, match=message):
            degrade(source, tmp_path / "out", workers=1, **{**IMAGE, **change})
        assert contents(tmp_path / "out") == before

    def test_another_source_or_library(self, source, tmp_path, monkeypatch):
        degrade(source, tmp_path / "out", workers=1, **IMAGE)
        monkeypatch.setattr(cv2, "__version__", "0.0")
        with pytest.raises(DataError, match=r"versions .*; asked for .*opencv 0.0"):
            degrade(source, tmp_path / "out", workers=1, **IMAGE)
        monkeypatch.undo()
        other = make_source(tmp_path / "source", pictures=3)
        with pytest.raises(DataError, match="source_sha256"):
            degrade(other, tmp_path / "out", workers=1, **IMAGE)

    @pytest.mark.parametrize(("write", "name"), [(tiny_mpii.write, "mpii"), (tiny_crowdpose.write, "crowdpose")])
    def test_other_layouts(self, tmp_path, write, name):
        root = write(tmp_path / "source")
        with pytest.raises(
            DataError, match=f"source .*: in the layout of {name}; copies are made of COCO layouts only"
        ):
            degrade(root, tmp_path / "out", workers=1, **IMAGE)
        assert not (tmp_path / "out").exists()

    def test_pictures_without_annotations(self, tiny_copy, tmp_path):
        whole = tiny.annotations(tiny_copy)
        lists = {key: value for key, value in tiny.read(tiny_copy).items() if key != "annotations"}
        (whole.parent / "image_info_val.json").write_text(json.dumps(lists))
        whole.unlink()
        with pytest.raises(DataError, match=r"image_info_val\.json: lists pictures without annotations"):
            degrade(tiny_copy, tmp_path / "out", workers=1, **IMAGE)

    def test_a_copy_of_a_copy(self, source, tmp_path):
        degrade(source, tmp_path / "out", workers=1, **IMAGE)
        with pytest.raises(DataError, match="is itself a low-resolution copy"):
            degrade(tmp_path / "out", tmp_path / "again", workers=1, **IMAGE)

    def test_a_damaged_picture(self, tmp_path):
        source = make_source(tmp_path / "source")
        path = source / "images" / "val" / "photo 2.png"
        path.write_bytes(path.read_bytes()[:-40])
        for workers in (1, 2):
            with pytest.raises(DataError, match=r"photo 2.png: truncated"):
                degrade(source, tmp_path / "out", workers=workers, **IMAGE)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("segmentation", [[1.0, 2.0, 3.0]]),
            ("segmentation", {"counts": "x"}),
            ("bbox", [1, 2]),
            ("keypoints", [1, 2]),
        ],
    )
    def test_a_malformed_annotation(self, tmp_path, key, value):
        source = make_source(tmp_path / "source", pictures=1)
        data = annotations_of(source)
        data["annotations"][-2][key] = value
        (source / "annotations" / "person_keypoints_val.json").write_text(json.dumps(data))
        with pytest.raises(DataError, match=r"annotation 1: "):
            degrade(source, tmp_path / "out", workers=1, **IMAGE)

    def test_a_folder_that_cannot_be_written(self, source, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(DataError, match=r"cannot be written \(Not a directory\); choose a folder"):
            degrade(source, tmp_path / "file" / "out", workers=1, **IMAGE)
        with pytest.raises(ValueError, match="is a file; choose a folder"):
            degrade(source, tmp_path / "file", workers=1, **IMAGE)
        with pytest.raises(DataError, match="expected a folder written by lrbench degrade"):
            verify(tmp_path, source)
