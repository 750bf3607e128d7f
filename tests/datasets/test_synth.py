"""The embedded data set: determinism, COCO's layout and invariants, the look in numbers, and the atomic build."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO as Annotations

from lrbench.datasets.synth import SynthSpec, build
from lrbench.datasets.synth.annotations import run_lengths
from lrbench.datasets.synth.build import image_generator
from lrbench.datasets.synth.scene import render_scene

SMALL = SynthSpec(seed=3, train_images=20, val_images=6)
SAMPLE = 200


def files_under(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def small_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("synth") / "two", SMALL, workers=2)


@pytest.fixture(scope="module")
def scenes() -> list[tuple[tuple[int, int], list[dict[str, Any]]]]:
    """Sizes and annotations of the first train images of the default data set."""
    spec = SynthSpec()
    found = []
    for index in range(SAMPLE):
        image, annotations = render_scene(image_generator(spec, "train", index), spec.width, spec.height)
        found.append((image.shape[:2], annotations))
    return found


@pytest.fixture(scope="module")
def labelled(scenes: list[tuple[tuple[int, int], list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    return [a for _, annotations in scenes for a in annotations if a["num_keypoints"] > 0]


@pytest.mark.parametrize("workers", [1, 3])
def test_bytes_do_not_depend_on_workers(small_root: Path, tmp_path: Path, workers: int) -> None:
    assert files_under(build(tmp_path / "again", SMALL, workers=workers)) == files_under(small_root)


def test_another_seed_is_another_data_set(tmp_path: Path, small_root: Path) -> None:
    spec = SynthSpec(seed=4, train_images=1, val_images=0)
    other = build(tmp_path / "other", spec, workers=1)
    name = "images/train/000000000001.jpg"
    assert (other / name).read_bytes() != (small_root / name).read_bytes()


@pytest.mark.parametrize(("split", "count"), [("train", 20), ("val", 6)])
def test_layout_is_cocos(small_root: Path, split: str, count: int) -> None:
    path = small_root / "annotations" / f"person_keypoints_{split}.json"
    with contextlib.redirect_stdout(io.StringIO()):
        coco = Annotations(str(path))
    assert len(coco.imgs) == count == len(list((small_root / "images" / split).iterdir()))
    assert "rendered by lrbench" in coco.dataset["info"]["description"]
    category = coco.cats[1]
    assert (
        len(category["keypoints"]) == 17
        and len(category["skeleton"]) == 19
        and category["keypoints"][5] == "left_shoulder"
    )
    for image in coco.imgs.values():
        assert (small_root / "images" / split / image["file_name"]).is_file() and len(image["file_name"]) == 16
    for annotation in coco.anns.values():
        assert coco.annToMask(annotation).any()


def test_ids_are_unique_over_both_splits(small_root: Path) -> None:
    images, annotations = [], []
    for split in ("train", "val"):
        document = json.loads((small_root / "annotations" / f"person_keypoints_{split}.json").read_text())
        images += [x["id"] for x in document["images"]]
        annotations += [x["id"] for x in document["annotations"]]
    assert len(set(images)) == 26 == len(images)
    assert len(set(annotations)) == len(annotations)


def test_keypoints_keep_cocos_rules(scenes: list[tuple[tuple[int, int], list[dict[str, Any]]]]) -> None:
    flags = set()
    for (height, width), found in scenes:
        for a in found:
            points = np.array(a["keypoints"], float).reshape(17, 3)
            x, y, v = points.T
            flags |= set(v.tolist())
            assert (points[v == 0] == 0).all()
            shown = v > 0
            assert (x[shown] <= width - 1).all() and (y[shown] <= height - 1).all() and (points >= 0).all()
            assert a["num_keypoints"] == shown.sum()
            assert a["area"] >= 32**2 or a["num_keypoints"] == 0
    assert flags == {0.0, 1.0, 2.0}


def test_boxes_and_areas_are_those_of_the_masks(scenes: list[tuple[tuple[int, int], list[dict[str, Any]]]]) -> None:
    from pycocotools import mask as masks

    for (height, width), found in scenes:
        for a in found:
            x, y, w, h = a["bbox"]
            assert x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= width and y + h <= height
            assert 0 < a["area"] <= w * h
            if a["iscrowd"]:
                rle = masks.frPyObjects(a["segmentation"], height, width)
                assert masks.area(rle) == a["area"]
                assert masks.toBbox(rle).tolist() == a["bbox"]
            else:  # polygons run through pixel centres, so they stay within the mask's extent
                corners = np.concatenate([np.reshape(p, (-1, 2)) for p in a["segmentation"]])
                assert (corners >= [x, y]).all() and (corners <= [x + w, y + h]).all()


def test_there_are_crowds_and_unlabelled_small_persons(
    scenes: list[tuple[tuple[int, int], list[dict[str, Any]]]],
) -> None:
    every = [a for _, annotations in scenes for a in annotations]
    crowds = [a for a in every if a["iscrowd"]]
    assert crowds and all(a["num_keypoints"] == 0 and isinstance(a["segmentation"], dict) for a in crowds)
    assert any(a["area"] < 32**2 and not a["iscrowd"] for a in every)


def test_box_heights_follow_coco(labelled: list[dict[str, Any]]) -> None:
    heights = np.quantile([a["bbox"][3] for a in labelled], [0.05, 0.25, 0.5, 0.75, 0.95])
    np.testing.assert_allclose(heights, [55, 95, 150, 270, 450], rtol=0.15)


def test_the_left_side_is_the_persons_own(labelled: list[dict[str, Any]]) -> None:
    """Seen from the front, the left shoulder is on the right of the image; from behind the reverse."""
    front, back = [], []
    for a in labelled:
        p = np.array(a["keypoints"], float).reshape(17, 3)
        if not (p[[5, 6, 11, 12], 2] > 0).all():
            continue
        trunk = p[11:13, :2].mean(axis=0) - p[5:7, :2].mean(axis=0)
        if trunk[1] < 2 * abs(trunk[0]):
            continue
        across = p[5, 0] - p[6, 0]
        if (p[:3, 2] == 2).all():
            front.append(across > 0)
        elif (p[:3, 2] == 0).all() and (p[5:7, 2] == 2).all() and p[:3].sum() == 0:
            back.append(across < 0)
    assert len(front) > 50 and np.mean(front) > 0.9
    assert len(back) > 20 and np.mean(back) > 0.6  # some of these only have their heads outside the image


def test_left_and_right_are_exchangeable(labelled: list[dict[str, Any]]) -> None:
    """Both sides are visible equally often, so mirroring the images changes no statistics."""
    v = np.array([np.reshape(a["keypoints"], (17, 3))[:, 2] == 2 for a in labelled])
    pairs = np.arange(1, 17).reshape(8, 2)
    difference = v[:, pairs[:, 0]].mean(axis=0) - v[:, pairs[:, 1]].mean(axis=0)
    assert np.abs(difference).max() < 4.0 * np.sqrt(0.5 / len(labelled))


def test_run_lengths_start_with_zeros_and_go_down_columns() -> None:
    mask = np.array([[True, False], [True, True]])
    assert run_lengths(mask) == {"counts": [0, 2, 1, 1], "size": [2, 2]}


def test_a_finished_root_is_not_rebuilt(small_root: Path) -> None:
    calls: list[tuple[int, int]] = []
    before = {path: path.stat().st_mtime_ns for path in small_root.rglob("*")}
    assert build(small_root, SMALL, progress=lambda done, total: calls.append((done, total))) == small_root
    assert calls == [] and before == {path: path.stat().st_mtime_ns for path in small_root.rglob("*")}


def test_progress_counts_to_the_total(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    build(tmp_path / "r", SynthSpec(train_images=13, val_images=1), workers=1, progress=lambda *c: calls.append(c))
    assert calls == [(8, 14), (13, 14), (14, 14)]


@pytest.mark.parametrize("damage", ["spec", "syntax", "annotations", "image", "manifest"])
def test_a_changed_root_is_refused(tmp_path: Path, damage: str) -> None:
    spec = SynthSpec(train_images=1, val_images=1)
    root = build(tmp_path / "r", spec, workers=1)
    manifest = root / "manifest.json"
    if damage == "spec":
        manifest.write_text(manifest.read_text().replace('"seed":0', '"seed":1'))
    elif damage == "syntax":
        manifest.write_text("{")
    elif damage == "annotations":
        (root / "annotations" / "person_keypoints_val.json").write_text("{}")
    elif damage == "image":
        next((root / "images" / "val").iterdir()).unlink()
    else:
        manifest.unlink()
    with pytest.raises(ValueError, match="delete that folder"):
        build(root, spec, workers=1)


def test_nonsense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers is 0"):
        build(tmp_path / "r", SMALL, workers=0)
    with pytest.raises(ValueError, match="at least one image"):
        build(tmp_path / "r", SynthSpec(train_images=0, val_images=0))
    assert not (tmp_path / "r").exists()


def test_two_builds_at_once_leave_one_whole_copy(tmp_path: Path, small_root: Path) -> None:
    spec = SynthSpec(seed=3, train_images=3, val_images=1)
    context = multiprocessing.get_context("spawn")
    rivals = [context.Process(target=_build_one, args=(tmp_path / "r", spec)) for _ in range(2)]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join(60)
    assert [rival.exitcode for rival in rivals] == [0, 0]
    assert build(tmp_path / "r", spec) == tmp_path / "r"
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def _build_one(root: Path, spec: SynthSpec) -> None:
    build(root, spec, workers=1)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_ended_build_leaves_nothing_complete(tmp_path: Path, how: signal.Signals) -> None:
    script = tmp_path / "make.py"
    script.write_text(
        "from pathlib import Path\nfrom lrbench.datasets.synth import SynthSpec, build\n"
        "if __name__ == '__main__':\n"
        "    spec = SynthSpec(train_images=2000)\n"
        f"    build(Path({str(tmp_path / 'r')!r}), spec, progress=lambda *c: print('on', flush=True))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
        cwd=Path(__file__).parents[2], start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"on\n"
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does: the whole group
    else:
        process.kill()  # the workers must notice by themselves
    process.wait(30)
    process.stdout.close()
    assert not (tmp_path / "r").exists()
    for _ in range(100):
        if not _group_alive(process.pid):
            break
        time.sleep(0.1)
    assert not _group_alive(process.pid)
    if how == signal.SIGINT:
        assert [path.name for path in tmp_path.iterdir()] == ["make.py"]


def _group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
