"""Result files: COCO keypoint results of any tool, scored; and results of degraded copies in original coordinates."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lrbench import evaluation, records
from lrbench.datasets import open_dataset
from lrbench.datasets.coco import Dataset
from lrbench.datasets.images import DataError
from lrbench.inference import Progress, silent
from lrbench.provenance import provenance


def evaluate_predictions(
    path: Path, data: str, split: str, results: Path, *, progress: Progress = silent
) -> records.Record:
    """Score a COCO keypoint result of any tool; needs the annotations, no pictures.

    Raises:
        DataError: the file is none, or belongs to other pictures.
    """
    dataset = open_dataset(data, split, need_images=False, progress=progress)
    rows = _read_results(path, dataset)
    truth, scored = in_original_coordinates(dataset, rows)
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
        referee=f"pycocotools {version('pycocotools')}",
    )
    record = records.Record(
        key=records.key_of("predictions", protocol.model_dump(), sha),
        call=records.MethodCall(name="predictions", backbone="", sr="none", res="", settings={"file": path.name}),
        training=None,
        protocol=protocol,
        metrics=evaluation.score(truth, scored),
        keypoint_ap=evaluation.score_keypoints(truth, scored),
        counts=records.Counts(
            images=len(dataset.images.id), persons=len(dataset.persons), crops=0, predictions=len(scored)
        ),
        cost=records.Cost(),
        provenance=provenance("", sha, None, "cpu", "-"),
        settings={},
    )
    records.write_record(results, record, scored)
    return record


def _read_results(path: Path, dataset: Dataset) -> list[dict[str, Any]]:
    from lrbench.structures import KEYPOINTS

    try:
        data = path.read_bytes()
        rows = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except gzip.BadGzipFile as error:
        raise DataError(f"predictions {path}: damaged ({error})") from None
    except OSError as error:
        raise DataError(f"predictions {path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise DataError(f"predictions {path}: not valid JSON ({error})") from None
    if not isinstance(rows, list):
        raise DataError(f"predictions {path}: expected a list of COCO keypoint results, found {type(rows).__name__}")
    known = set(dataset.images.id.tolist())
    for number, row in enumerate(rows):
        where = f"predictions {path}, row {number}"
        try:
            image_id, keypoints = int(row["image_id"]), [float(v) for v in row["keypoints"]]
            finite = all(map(math.isfinite, [*keypoints, float(row["score"])]))
            int(row["category_id"])
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{where}: expected image_id, category_id, keypoints and score") from None
        if len(keypoints) != 3 * len(KEYPOINTS) or not finite:
            raise DataError(f"{where}: expected {3 * len(KEYPOINTS)} finite numbers as keypoints, and a finite score")
        if image_id not in known:
            raise DataError(f"{where}: image {image_id} is not in {dataset.name}/{dataset.split}")
    return rows


def in_original_coordinates(
    dataset: Dataset, results: list[dict[str, Any]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Truth and results in the coordinates of the original photographs, also for a degraded copy."""
    truth = json.loads(dataset.annotation_file.read_bytes())
    if "lrbench" not in truth:
        return truth, results
    from lrbench.datasets.degraded import original_annotations, original_results

    return original_annotations(truth), original_results(results, truth)
