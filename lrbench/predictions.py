"""Result files: COCO keypoint results of any tool, scored; and results of degraded copies in original coordinates."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lrbench import evaluation, pckh, records, scoring
from lrbench.datasets import open_dataset
from lrbench.datasets.coco import PERSON, Dataset, is_finite, is_whole
from lrbench.datasets.images import DataError
from lrbench.inference import Progress, silent
from lrbench.provenance import provenance

KEYS = ("image_id", "category_id", "keypoints", "score")
"""What COCO asks for in each row of a keypoint result."""

MOST = 20
"""Results of an image that COCO counts."""


def evaluate_predictions(
    path: Path, data: str, split: str, results: Path, *, name: str | None = None, progress: Progress = silent
) -> records.Record:
    """Score a COCO keypoint result of any tool; needs the annotations, no pictures.

    What was changed in the file's rows, or looks unusual in them, is kept under ``notes`` in the record's settings.

    Args:
        path: JSON as mmpose, ultralytics, detectron2 and others write it, or the same gzipped (``.gz``).
        data: dataset or folder.
        split: of it.
        results: folder of the records.
        name: what tables call the predictions, for example ``mmpose rtmpose-m``; kept in the call's settings.
        progress: called while data is made.

    Raises:
        ValueError: the name is no line of text.
        DataError: the file is no such result, or belongs to other pictures.
    """
    if name is not None and not (name.strip() and name.isprintable()):
        raise ValueError(f"name {name!r}: expected a line of text that tables can show")
    dataset = open_dataset(data, split, need_images=False, progress=progress)
    skeleton = dataset.persons.skeleton
    rows, notes = checked(
        read_results(path),
        images={int(i): p.name for i, p in zip(dataset.images.id, dataset.images.path, strict=True)},
        of=f"{dataset.name}/{split}",
        keypoints=len(skeleton),
        where=f"predictions {path}",
        also=("person",) if dataset.metric == "pckh" else (),
    )
    truth, scored = in_original_coordinates(dataset, rows)
    scores = scoring.score(dataset, truth, scored)
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    protocol = records.Protocol(
        dataset=dataset.name,
        split=split,
        data_hash=dataset.hash,
        boxes="unknown",
        flip=False,
        align="unknown",
        decoder={},
        degradation={"dataset": dataset.source} if dataset.source else {},
        rescoring=0.0,
        oks_nms=1.0,
        referee=pckh.REFEREE if dataset.metric == "pckh" else evaluation.referees(),
    )
    record = records.Record(
        key=records.key_of("predictions", protocol.model_dump(), sha),
        call=records.MethodCall(
            name="predictions",
            backbone="",
            sr="none",
            res="",
            settings={"file": path.name, **({} if name is None else {"name": name.strip()})},
        ),
        training=None,
        protocol=protocol,
        **scores.of_record(),
        counts=records.Counts(
            images=len(dataset.images.id), persons=len(dataset.persons), crops=0, predictions=len(scored)
        ),
        cost=records.Cost(),
        provenance=provenance("", sha, None, "cpu", "-"),
        settings={"notes": notes},
    )
    records.write_record(results, record, scored, scores.matches)
    return record


def checked(
    rows: Sequence[Any],
    *,
    images: Mapping[int, str] | None,
    of: str,
    keypoints: int,
    where: str,
    also: Sequence[str] = (),
) -> tuple[list[dict[str, Any]], list[str]]:
    """A COCO keypoint result of any tool, with nothing left in its rows but COCO's four keys.

    Of the others ``bbox`` and ``segmentation`` matter: with them pycocotools sorts unmatched results into AP(M) and
    AP(L) by their area, without them by the extent of the keypoints.

    Args:
        rows: results as they were read.
        images: file names by image id; None takes any id.
        of: what the images are called in messages.
        keypoints: how many a person has.
        where: how messages start.
        also: further keys that rows keep.

    Returns:
        The rows in their order, and notes on what was changed or looks unusual.

    Raises:
        DataError: a row is damaged, of another category than person, or of an unknown image.
    """
    kept = []
    for number, row in enumerate(rows):
        here = f"{where}, row {number}"
        try:
            image_id, category, points, confidence = (row[key] for key in KEYS)
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{here}: expected {', '.join(KEYS[:-1])} and {KEYS[-1]}") from None
        if not (is_whole(image_id) or isinstance(image_id, str)):
            raise DataError(f"{here}: image_id {image_id!r}, expected a whole number or the name of a file")
        if not (is_whole(category) and category == PERSON):
            hint = "; the tool counts categories from 0, write 1 instead" if category == 0 else ""
            raise DataError(f"{here}: category_id {category!r}, expected {PERSON} (person){hint}")
        whole = isinstance(points, list | tuple) and len(points) == 3 * keypoints
        if not whole or not all(map(is_finite, [*points, confidence])):
            raise DataError(f"{here}: expected {3 * keypoints} finite numbers as keypoints, and a finite score")
        told = {"image_id": image_id, "category_id": PERSON, "keypoints": list(points), "score": confidence}
        kept.append(told | {key: row[key] for key in also if key in row})
    notes = _resolve_images(kept, images, of, where)
    for key in ("bbox", "segmentation"):
        if count := sum(key in row for row in rows):
            notes.append(
                f"{key} of {count} results left out: AP(M) and AP(L) would sort results by it, not by their keypoints"
            )
    if count := len(repeated(kept)):
        notes.append(f"{count} results repeat another one (same image, keypoints and score); each of them counts")
    crowded = sum(n > MOST for n in Counter(row["image_id"] for row in kept).values())
    if crowded:
        notes.append(f"{crowded} images have more than {MOST} results; COCO counts the best {MOST} of an image")
    return kept, notes


def repeated(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Rows that say what an earlier one says: same image, keypoints and score."""
    seen: set[tuple[Any, ...]] = set()
    again = []
    for number, row in enumerate(rows):
        says = (row["image_id"], row["score"], *row["keypoints"])
        if says in seen:
            again.append(number)
        seen.add(says)
    return again


def _resolve_images(rows: list[dict[str, Any]], images: Mapping[int, str] | None, of: str, where: str) -> list[str]:
    """Put image ids into rows that may have names of files in their place; all rows are read the same way.

    Numbers are ids if all of them can be, and otherwise file names without their ending; text the other way round.

    Returns:
        A note where they were names.
    """
    given = [row["image_id"] for row in rows]
    has_text = any(isinstance(value, str) for value in given)
    if images is None:
        if has_text:
            raise DataError(f"{where}: image ids are text; expected numbers, or a list of images to find them in")
        by_id: dict[Any, int] = {value: int(value) for value in given}
        by_file: dict[Any, int] = {}
    else:
        by_id = {key: image for image in images for key in (image, str(image))}
        by_file = _by_file(images)
    for known in (by_file, by_id) if has_text else (by_id, by_file):
        if all(value in known for value in given):
            for row, value in zip(rows, given, strict=True):
                row["image_id"] = known[value]
            return [f"image ids are names of files; taken for the ids of {of}"] if known is by_file else []
    unknown = [n for n, value in enumerate(given) if value not in by_id and value not in by_file]
    # where every row is known in one of the ways, but not all in the same
    unknown += [n for n, value in enumerate(given) if value not in (by_file if has_text else by_id)]
    number = unknown[0]
    raise DataError(f"{where}, row {number}: image {given[number]} is not in {of}")


def _by_file(images: Mapping[int, str]) -> dict[str | int, int]:
    """Image ids by name of the file, with and without its ending, and by the number it is; ambiguous ones left out."""
    found: dict[str | int, set[int]] = {}
    for image, name in images.items():
        path = PurePosixPath(name)
        keys: set[str | int] = {path.name, path.stem}
        if path.stem.isdecimal():
            keys.add(int(path.stem))
        for key in keys:
            found.setdefault(key, set()).add(image)
    return {key: min(ids) for key, ids in found.items() if len(ids) == 1}


def read_results(path: Path) -> list[Any]:
    """Rows of a result file, which may be gzipped (``.gz``); `checked` looks at them.

    Raises:
        DataError: the file cannot be read, or is no list.
    """
    try:
        data = path.read_bytes()
        rows = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"predictions {path}: damaged ({error})") from None
    except OSError as error:
        raise DataError(f"predictions {path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise DataError(f"predictions {path}: not valid JSON ({error})") from None
    if not isinstance(rows, list):
        raise DataError(f"predictions {path}: expected a list of COCO keypoint results, found {type(rows).__name__}")
    return rows


def in_original_coordinates(
    dataset: Dataset, results: list[dict[str, Any]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Truth and results in the coordinates of the original photographs, also for a degraded copy."""
    truth = dataset.truth()
    if not dataset.source:
        return truth, results
    from lrbench.datasets.degraded import original_annotations, original_results

    return original_annotations(truth), original_results(results, truth)
