"""Kept predictions scored again: metrics of today for records of yesterday, without a network."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lrbench import records, scoring
from lrbench.datasets import open_dataset
from lrbench.datasets.coco import Dataset
from lrbench.datasets.images import DataError
from lrbench.inference import Progress, silent
from lrbench.predictions import in_original_coordinates
from lrbench.provenance import commit
from lrbench.records import METRICS, Record


def score_again(results: Path, data: str, split: str, *, progress: Progress = silent) -> list[Path]:
    """Score the kept predictions of all records of one split, and write the records with what they lacked.

    A record keeps its key: what decides its number has not changed, so the number may not either.

    Args:
        results: folder of records.
        data: dataset or folder that they were scored on.
        split: of it.
        progress: called per record.

    Returns:
        the records written.

    Raises:
        DataError: none is of this data, predictions are missing, or a metric has another value than it had.
    """
    dataset = open_dataset(data, split, need_images=False, progress=progress)
    found = [
        r for r in records.read_records(results) if (r.protocol.dataset, r.protocol.split) == (dataset.name, split)
    ]
    known = [r for r in found if r.status == "done" and r.protocol.data_hash == dataset.hash]
    if not known:
        other = f"; {len(found)} are of other data of this name" if found else ""
        raise DataError(f"results {results}: no record of {dataset.name}/{split}{other}")
    truth, _ = in_original_coordinates(dataset, [])
    written = []
    for number, record in enumerate(known, 1):
        written.append(_again(results, record, dataset, truth))
        progress("score", number, len(known), f"{record.call.name} {record.call.res}")
    return written


def _again(results: Path, record: Record, dataset: Dataset, truth: dict[str, Any]) -> Path:
    path = records.predictions_path(results, record)
    try:
        predictions = json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"predictions {path}: missing or damaged ({error}); evaluate again to make them") from None
    scores = scoring.score(dataset, truth, predictions)
    if moved := list(_moved(record, scores)):
        raise DataError(f"record {path.parent / record.key}.json: scored again it differs ({', '.join(moved)})")
    diagnosis = scores.diagnosis
    if diagnosis is not None and record.diagnosis is not None:  # what needs the crops cannot be known again
        diagnosis = diagnosis.model_copy(update={"crop_error": record.diagnosis.crop_error})
    at = f"{commit()} {datetime.now(UTC).isoformat(timespec='seconds')}"
    provenance = record.provenance.model_copy(update={"scored_again": at})
    again = record.model_copy(update={**scores.of_record(), "diagnosis": diagnosis, "provenance": provenance})
    return records.write_record(results, again, matches=scores.matches)


def _moved(record: Record, scores: scoring.Scores) -> Iterator[str]:
    pairs = {name: (getattr(record.metrics, name), getattr(scores.metrics, name)) for name in METRICS}
    # records may be older than a further metric, but what they have stays
    pairs |= {name: (was, scores.further.get(name)) for name, was in record.further.items()}
    for name, (was, now) in pairs.items():
        if (was is None) != (now is None) or (was is not None and not math.isclose(was, now, abs_tol=1e-9)):
            yield f"{name} {was} -> {now}"
