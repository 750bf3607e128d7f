"""MPII in the layout that the released HRNet code reads: ``annot/<split>.json``, ``annot/gt_valid.mat``, ``images``.

A person comes with a centre and a scale, height / 200 px, instead of a box, and pixels are counted from 1. The released
loader moves the centre down by 15 * scale and multiplies the scale by 1.25; the crop is the square of 200 * scale px
about that centre. The box given here is the one that `lrbench.geometry.Frame.region` makes that crop of, by its own
padding of 1.25: exactly so for ``biased`` and ``corner`` frames, while ``dark`` ones, which count both end pixels of a
box, become 1.25 px larger. Boxes reach beyond the picture where crops do.

Scoring needs ``annot/gt_<split>.mat``, which has the head boxes; it is released for ``valid`` only. Without it a split
can be trained on and predicted, not scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrbench.datasets.coco import PERSON, Dataset, Json, Rules, assemble, find_images, load, no_annotations, picture_in
from lrbench.datasets.images import DataError
from lrbench.structures import MPII

RULES = Rules(skeleton=MPII, metric="pckh", clipped=False, inside=False)

SIDE = 200.0
"""Px of a person of scale 1."""

DOWN = 15.0
"""Px by which the centre of a person of scale 1 moves down, so that less of the feet is cut off."""


def found(root: Path) -> bool:
    """Whether a folder is in this layout."""
    return any((root / "annot" / f"{file}.json").is_file() for file in ("train", "valid", "trainval", "test"))


def find_annotations(root: Path, split: str) -> Path:
    """Annotation file of a split: ``annot/<split>.json``, where ``val`` is ``valid``.

    Raises:
        DataError: no such file; the message lists the splits that exist.
    """
    for name in (split, "valid" if split == "val" else split):
        path = root / "annot" / f"{name}.json"
        if path.is_file():
            return path
    raise no_annotations(root, split, [p.stem for p in root.glob("annot/*.json")], expected="annot/<split>.json")


def read(root: Path, split: str, *, name: str | None = None, need_images: bool = True) -> Dataset:
    """Read one split of an MPII folder.

    Images are numbered from 1 in the order in which they first occur, persons by their row in the file, from 1.

    Args:
        root: the folder with ``annot`` and ``images``.
        split: ``train``, ``val`` or ``valid``, ``trainval``. ``test`` has no joints.
        name: what tables call the dataset; the folder's name by default.
        need_images: refuse a dataset with missing pictures. Without them their sizes stay 0: the files do not tell.

    Raises:
        DataError: anything missing, unreadable or contradictory, with the row it concerns.
    """
    path = find_annotations(root, split)
    heads = path.with_name(f"gt_{path.stem}.mat")
    return assemble(
        root,
        split,
        name,
        path,
        partial(_annotations, path, find_images(root, split) if need_images else None),
        RULES,
        need_images=need_images,
        truth=partial(_truth, path, heads),
        further_files=(heads,) if heads.is_file() else (),
    )


def _annotations(path: Path, folder: Path | None = None) -> Json:
    """A released file as COCO annotations, pixels counted from 0.

    Args:
        path: the JSON.
        folder: of the pictures, whose sizes the file does not tell; None leaves them 0.
    """
    images: dict[str, Json] = {}
    annotations = []
    for number, row in enumerate(load(path, expected=list), 1):
        where = f"{path}: annotation {number}"
        name = row.get("image") if isinstance(row, dict) else None
        if not isinstance(name, str):
            raise DataError(f"{where}: expected an object with image, center, scale, joints and joints_vis")
        if name not in images:
            height, width = (0, 0) if folder is None else _size_of(picture_in(folder, name, where))
            images[name] = {"id": len(images) + 1, "file_name": name, "height": height, "width": width}
        keypoints, box = _keypoints(row, where), _box(row, where)
        annotations.append(
            {
                "id": number,
                "image_id": images[name]["id"],
                "category_id": PERSON,
                "iscrowd": 0,
                "keypoints": keypoints.ravel().tolist(),
                "num_keypoints": int((keypoints[:, 2] > 0).sum()),
                "bbox": box,
                "area": box[2] * box[3],
            }
        )
    category = {"id": PERSON, "name": "person", "keypoints": list(MPII.keypoints), "skeleton": []}
    return {"images": list(images.values()), "annotations": annotations, "categories": [category]}


def _truth(path: Path, heads: Path) -> Json:
    """As `_annotations`, with the joints of the scoring file and with ``head_box`` [x1, y1, x2, y2] of every person.

    Raises:
        DataError: there is no such file, or it is of other persons.
    """
    if not heads.is_file():
        raise DataError(f"{heads}: no such file; PCKh needs its head boxes, which are released for split val only")
    data = _annotations(path)
    persons = data["annotations"]
    k, n = len(MPII), len(persons)
    missing, positions, corners = _read_mat(
        heads, {"jnt_missing": (k, n), "pos_gt_src": (k, 2, n), "headboxes_src": (2, 2, n)}
    )
    labelled = missing.T == 0
    joints = np.where(labelled[:, :, None], positions.transpose(2, 0, 1) - 1, 0.0)
    boxes = corners.transpose(2, 0, 1).reshape(n, 4) - 1
    for person, xy, flags, box in zip(persons, joints, labelled, boxes, strict=True):
        if not np.isfinite([*xy.ravel(), *box]).all() or (box[:2] == box[2:]).all():
            raise DataError(f"{heads}: person {person['id']}: expected finite joints and a head box with an extent")
        person["keypoints"] = np.column_stack([xy, 2 * flags]).ravel().tolist()
        person["num_keypoints"] = int(flags.sum())
        person["head_box"] = box.tolist()
    return data


def _read_mat(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> list[NDArray[np.float64]]:
    """Arrays of a MATLAB file, by name and shape."""
    from scipy.io import loadmat

    try:
        content = loadmat(path)
        arrays = [np.asarray(content[key], np.float64) for key in shapes]
    except Exception as error:  # whatever damaged bytes lead scipy to
        raise DataError(f"{path}: cannot be read as a MATLAB file with {', '.join(shapes)} ({error})") from None
    for (key, shape), array in zip(shapes.items(), arrays, strict=True):
        if array.shape != shape:
            given, expected = ("x".join(map(str, sides)) for sides in (array.shape, shape))
            raise DataError(f"{path}: {key} is {given}, expected {expected}, a column for each person of the split")
    return arrays


def _size_of(path: Path) -> tuple[int, int]:
    """Height and width of a picture by its header, not turned as its EXIF says; zeros where there is no file."""
    from PIL import Image  # comes with matplotlib; OpenCV can only decode the whole picture

    if not path.is_file():
        return 0, 0
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError:
        raise DataError(f"image {path}: no picture whose size can be read; restore the file") from None


def _keypoints(row: Json, where: str) -> NDArray[np.float64]:
    """Joints (16, 3) of a person, x and y counted from 0; zero where not labelled."""
    if "joints" not in row:
        raise DataError(f"{where}: has no joints, as MPII's test persons; use split train, val or trainval")
    try:
        joints = np.asarray(row["joints"], np.float64).reshape(len(MPII), 2)
        labelled = np.asarray(row["joints_vis"], np.float64).reshape(len(MPII), 1) > 0
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{where}: expected joints, {len(MPII)} of x and y, and as many joints_vis") from None
    return np.where(labelled, np.column_stack([joints - 1, np.full(len(MPII), 2.0)]), 0.0)


def _box(row: Json, where: str) -> list[float]:
    """Box x, y, width, height of which `Frame.region` makes the released crop, if it is taken as an annotated one."""
    try:
        (x, y), scale = (float(v) for v in row["center"]), float(row["scale"])
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{where}: expected center [x, y] and scale") from None
    if not np.isfinite([x, y, scale]).all() or scale <= 0:
        raise DataError(f"{where}: center ({x:g}, {y:g}) and scale {scale:g}; expected finite numbers, a scale above 0")
    side = SIDE * scale
    # annotated boxes lose a pixel per side before they are padded
    return [x - 1 - side / 2, y - 1 + DOWN * scale - side / 2, side + 1, side + 1]
