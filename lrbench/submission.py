"""The file that COCO's test server takes (cocodataset.org, upload of keypoint results for test-dev 2017)."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrbench.datasets.coco import listed, load
from lrbench.datasets.images import DataError
from lrbench.predictions import checked, repeated
from lrbench.records import write_atomic
from lrbench.structures import COCO

STEM = "person_keypoints_test-dev2017_{}_results"
"""What the server asks the file to be called, by name of the algorithm."""

IMAGE_INFO = "image_info_test-dev2017.json"
"""COCO's list of the images, in the folder ``annotations``."""

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip can state; the same results give the same bytes."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What was written.

    Attributes:
        path: of the zip.
        results: persons in it.
        images: images that have any.
        notes: what to look at before an upload is spent, one line each.
    """

    path: Path
    results: int
    images: int
    notes: tuple[str, ...]


def export_testdev(
    results: Sequence[Mapping[str, Any]], out: Path, *, name: str, image_info: Path | None = None
) -> Submission:
    """Write results on COCO test-dev as the server takes them, each row with nothing but the four keys it asks for.

    Args:
        results: a COCO keypoint result.
        out: folder to write into; it is made.
        name: of the algorithm, part of the file's name.
        image_info: COCO's `IMAGE_INFO`, or a list like it; None checks no image ids.

    Raises:
        ValueError: the name has other characters than the server takes, `out` is a file, or there are no results.
        DataError: a row is damaged, of an unknown image or stands twice; `image_info` cannot be read.
        OSError: the folder cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"algorithm name {name!r}: expected letters A-Z a-z, digits, _ and - only")
    if out.suffix == ".zip" or out.is_file():
        raise ValueError(f"{out}: expected a folder; the server prescribes the file's name, {STEM.format(name)}.zip")
    if not results:
        raise ValueError("no results, so there is nothing to submit")
    names = None if image_info is None else _image_names(image_info)
    of = "" if image_info is None else image_info.name
    rows, notes = checked(results, images=names, of=of, keypoints=len(COCO), where="submission")
    if twice := repeated(rows):
        raise DataError(
            f"submission, row {twice[0]}: image {rows[twice[0]]['image_id']} has the same keypoints and score before; "
            f"{len(twice)} rows repeat others, give each person once"
        )
    images = {row["image_id"] for row in rows}
    if names is None:
        notes.append("image ids not checked: no image_info file was given")
    elif missing := len(names) - len(images):
        notes.append(f"{missing} of {len(names)} images have no result")
    stem = STEM.format(name)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{stem}.zip"
    write_atomic(path, _zipped(f"{stem}.json", json.dumps(rows, separators=(",", ":")).encode()))
    return Submission(path=path, results=len(rows), images=len(images), notes=tuple(notes))


def _image_names(path: Path) -> dict[int, str]:
    """File names by image id."""
    images = listed(load(path), "images", path)
    try:
        return {int(image["id"]): str(image["file_name"]) for image in images}
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}: expected id and file_name of every image, as in {IMAGE_INFO}") from None


def _zipped(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(name, EPOCH)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.create_system, info.external_attr = 3, 0o644 << 16  # a plain file of Unix, wherever it is written
        archive.writestr(info, data)
    return buffer.getvalue()
