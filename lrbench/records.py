"""Records: one JSON file per measured number, with everything that decided it. Never edited, only superseded."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from lrbench.statistics import Matches

SCHEMA = 1

METRICS = ("ap", "ap50", "ap75", "ap_m", "ap_l", "ar", "ar50", "ar75", "ar_m", "ar_l")
"""COCO's ten keypoint numbers, in pycocotools' order."""


def _no_path(text: str) -> str:
    if text in (".", "..") or any(character in text for character in "/\\\0"):
        raise ValueError(f"{text!r} is part of the path of a record, so it may not lead to another folder")
    return text


Name = Annotated[str, AfterValidator(_no_path)]
"""Part of the path at which a record lies, see `record_path`."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Metrics(_Part):
    """COCO keypoint metrics as fractions; None where COCO has no person of that kind. None prints as "-"."""

    ap: float | None = None
    ap50: float | None = None
    ap75: float | None = None
    ap_m: float | None = None
    ap_l: float | None = None
    ar: float | None = None
    ar50: float | None = None
    ar75: float | None = None
    ar_m: float | None = None
    ar_l: float | None = None


class MethodCall(_Part):
    """Enough to compose the method again.

    Attributes:
        name: of the method; ``predictions`` for a result file of another tool.
        backbone: empty for methods without a network.
        sr: upscaler in front of the network, ``none`` for none.
        pose: what the network behind an upscaler was trained on, see `lrbench.structures.POSES`; empty without one.
        res: ``HxW`` of the crop; empty for a result file.
        settings: arguments of the method's `build`, resolved.
    """

    name: Name
    backbone: str
    sr: str
    pose: str = ""
    res: Name
    settings: dict[str, Any]


class Training(_Part):
    """How the weights came about.

    Attributes:
        recipe: ``quick`` or ``paper``, or ``none`` for methods without training.
        data: dataset and split trained on, for example ``synth/train``.
        data_hash: of that split.
        persons: how many labelled persons it has.
        epochs: run.
        batch: persons per step.
        start: ``scratch``, or what the weights started from.
        numbers: every number of the recipe.
        degradation: how the crops were made that were trained on; empty in records that do not say.
    """

    recipe: str
    data: str
    data_hash: str
    persons: int
    epochs: int
    batch: int
    start: str
    numbers: dict[str, Any]
    degradation: dict[str, Any] = {}


class Protocol(_Part):
    """How predictions were made and scored. Rows that differ here never stand side by side without a mark.

    Attributes:
        dataset: name of the data.
        split: scored split.
        data_hash: of that split.
        boxes: ``gt`` or the name of a detection file.
        boxes_hash: sha256 of the detection file, or empty.
        flip: predictions averaged with those of the mirrored crop.
        align: rule of the crop.
        decoder: how positions are read from the maps.
        degradation: how low-resolution pixels were made, ``paper`` for plain bilinear crops.
        rescoring: keypoints above this score count for the score of a person.
        rescoring_form: how they count, see `lrbench.structures.Rescoring`.
        oks_nms: persons more similar than this to a better one are dropped.
        referee: what computed the metrics.
    """

    dataset: Name
    split: str
    data_hash: str
    boxes: str
    boxes_hash: str = ""
    flip: bool
    align: str
    decoder: dict[str, Any]
    degradation: dict[str, Any]
    rescoring: float = 0.2
    rescoring_form: Literal["product", "sum"] = "product"
    oks_nms: float = 0.9
    referee: str


class Counts(_Part):
    """Pictures scored, persons with keypoints in them, crops predicted, and predictions left after NMS."""

    images: int
    persons: int
    crops: int
    predictions: int


class Cost(_Part):
    """What it took; None where not measured.

    Attributes:
        train_seconds, eval_seconds: wall time.
        train_images_per_second, eval_images_per_second: crops.
        data_wait: share of training time spent waiting for crops.
        latency_ms: of one crop: forward pass (with its mirror image, where the protocol has it) and decoding, median.
        peak_memory: bytes (resident set on CPU, allocated on GPU).
        params: all parameters of the network.
        macs: multiply-adds, one crop, no flip.
        params_sr, macs_sr: of the upscaler, part of no other number.
    """

    params: int | None = None
    macs: int | None = None
    params_sr: int = 0
    macs_sr: int = 0
    train_seconds: float | None = None
    train_images_per_second: float | None = None
    data_wait: float | None = None
    eval_seconds: float | None = None
    eval_images_per_second: float | None = None
    latency_ms: float | None = None
    peak_memory: int | None = None


class Bootstrap(_Part):
    """How intervals were drawn: resamples of the images of the split, with replacement (`lrbench.statistics`)."""

    resamples: int
    seed: int


class HeightBin(_Part):
    """AP of the persons whose box is at least `low` and less than `high` image px high; None for no upper end."""

    low: float
    high: float | None
    persons: int
    ap: float | None
    ci95: tuple[float, float] | None = None


class Diagnosis(_Part):
    """What AP does not tell (`lrbench.diagnosis`).

    Attributes:
        heights: AP by height of the persons, lowest first.
        pck: share of labelled keypoints within a fraction of the longer side of the box, by fraction as text.
        pixel_error: median distance to labelled keypoints, image px.
        crop_error: the same in px of the network's input; None for results of other tools.
        errors: shares of the labelled keypoints of matched persons: ``good``, ``jitter``, ``inversion``, ``swap``,
            ``miss`` (Ronchi and Perona, ICCV 2017).
        gains: AP that would be won by mending all errors of a kind, by kind.
        undetected: share of persons that no prediction was matched with.
    """

    heights: list[HeightBin] = []
    pck: dict[str, float | None] = {}
    pixel_error: float | None = None
    crop_error: float | None = None
    errors: dict[str, float] = {}
    gains: dict[str, float | None] = {}
    undetected: float | None = None


class Provenance(_Part):
    """Where a number comes from.

    Attributes:
        weights_used: what a file given by the user had for the network, in words; empty for a run's own weights.
        scored_again: commit and UTC time at which kept predictions were scored last; empty where that was at once.
    """

    lrbench: str
    commit: str
    code_hash: str
    versions: dict[str, str]
    weights_sha256: str
    weights_used: str = ""
    scored_again: str = ""
    seed: int | None
    device: str
    precision: str
    threads: int
    utc: str


class Record(_Part):
    """One scored run.

    Attributes:
        key: hash of everything that decides the number (`key_of`).
        status: ``done`` or ``failed``.
        reason: of a failure.
        upscaler: how the upscaler in front was trained, and its quality; None where no run of ours made it.
        keypoint_ap: AP with one keypoint's OKS alone, by name of the keypoint.
        ci95: 95 % intervals by metric, over images; empty where not computed.
        bootstrap: how they were drawn.
        further: metrics of other protocols as fractions, for example ``pckh50`` or ``ap_easy``; None as in `Metrics`.
        further_ci95: their intervals.
        diagnosis: None in records that have none.
    """

    schema_: int = SCHEMA
    key: Name
    status: Literal["done", "failed"] = "done"
    reason: str = ""
    call: MethodCall
    training: Training | None
    upscaler: dict[str, Any] | None = None
    protocol: Protocol
    metrics: Metrics
    keypoint_ap: dict[str, float | None] = {}
    ci95: dict[str, tuple[float, float]] = {}
    bootstrap: Bootstrap | None = None
    further: dict[str, float | None] = {}
    further_ci95: dict[str, tuple[float, float]] = {}
    diagnosis: Diagnosis | None = None
    counts: Counts
    cost: Cost
    provenance: Provenance
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, the schema's number under ``schema``."""
        data = self.model_dump(mode="json")
        return {"schema": data.pop("schema_"), **data}


def key_of(*parts: Any) -> str:
    """First 16 hex digits of the sha256 of JSON-serialisable parts."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def record_path(results: Path, record: Record) -> Path:
    """``results/<dataset>/<HxW>/<method>/<key>.json``."""
    return results / record.protocol.dataset / (record.call.res or "any") / record.call.name / f"{record.key}.json"


def predictions_path(results: Path, record: Record) -> Path:
    """Where its predictions lie."""
    return record_path(results, record).with_name(f"{record.key}.predictions.json.gz")


def matches_path(results: Path, record: Record) -> Path:
    """Where its `lrbench.statistics.Matches` lie."""
    return record_path(results, record).with_name(f"{record.key}.matches.safetensors")


def write_record(
    results: Path,
    record: Record,
    predictions: list[dict[str, Any]] | None = None,
    matches: Matches | None = None,
) -> Path:
    """Write a record, and beside it its predictions as a COCO keypoint result, gzipped, and what they matched.

    Raises:
        OSError: the folder cannot be written.
    """
    path = record_path(results, record)
    path.parent.mkdir(parents=True, exist_ok=True)
    if predictions is not None:
        packed = gzip.compress(json.dumps(predictions).encode(), mtime=0)
        write_atomic(predictions_path(results, record), packed)
    if matches is not None:
        matches.save(matches_path(results, record))
    write_atomic(path, (json.dumps(record.to_json(), indent=1) + "\n").encode())
    return path


def read_record(path: Path) -> Record:
    """Read one record.

    Raises:
        ValueError: not a record, or of another schema; the message names the file.
    """
    try:
        data = json.loads(path.read_bytes())
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise ValueError(f"schema {data.get('schema') if isinstance(data, dict) else None}, expected {SCHEMA}")
        return Record(schema_=data.pop("schema"), **data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"record {path}: {where}: {first['msg']}") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"record {path}: {error}") from None


def read_records(results: Path) -> list[Record]:
    """All records below a folder, in order of their paths.

    Raises:
        ValueError: a file that should be a record is none.
    """
    paths = sorted(p for p in results.glob("*/*/*/*.json") if not p.name.endswith(".predictions.json"))
    return [read_record(path) for path in paths]


def newest(records: Iterable[Record]) -> list[Record]:
    """Records without those that a later one of the same key supersedes."""
    kept: dict[str, Record] = {}
    for record in sorted(records, key=lambda r: r.provenance.utc):
        kept[record.key] = record
    return list(kept.values())


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write a file so that a reader sees the old one or the whole new one, also after a crash.

    Raises:
        OSError: the folder cannot be written.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
