"""Audits: what every choice between network and AP is worth, one choice changed at a time.

The network runs once per set of boxes, on every crop and on its mirror image. Its predictions are then averaged,
decoded, scored and suppressed in each of the ways that published code has, beside the one that was declared.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from lrbench import evaluation
from lrbench.bench import Bench
from lrbench.cells import Cell
from lrbench.codecs import heatmap as hm
from lrbench.codecs.heatmap import Heatmap, Refinement
from lrbench.codecs.integral import Integral, SoftMaps
from lrbench.codecs.offset import HeatmapOffset, OffsetMaps
from lrbench.codecs.simcc import AxisBins, FlipShift
from lrbench.codecs.superresolved import SuperResolved, SuperResolvedLevels
from lrbench.datasets.coco import Dataset, read_detections
from lrbench.geometry import Grid, Size
from lrbench.inference import Progress, both_passes, silent, to_image
from lrbench.loading import Crops
from lrbench.method import Codec
from lrbench.models.network import PoseNetwork
from lrbench.predictions import in_original_coordinates
from lrbench.records import Metrics, Record
from lrbench.scoring import BOOTSTRAP, measured
from lrbench.statistics import Difference, Seeds, difference
from lrbench.structures import Keypoints, Predictions, Rescoring, mirror_index
from lrbench.upscaling import EnlargedCodec

P = TypeVar("P")

Group = Literal["flip", "decoder", "scores", "boxes"]
"""What a choice is about: the flip test, how a position is read, how persons are scored and suppressed, the crops."""

RULES: tuple[Group, ...] = ("flip", "decoder", "scores")
"""Choices that a method makes; the boxes belong to the benchmark."""

GROUPS: Mapping[Group, str] = {
    "flip": "flip test",
    "decoder": "decoder",
    "scores": "person scores",
    "boxes": "boxes",
}
"""In words."""

VISIBLE = 0.0005
"""A difference in AP that prints as 0.1."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One value of one choice, everything else as declared.

    Attributes:
        group: the choice.
        value: in words.
        declared: this is how the method, or the options of the run, have it.
        metrics: None where the value does not exist here.
        difference: in AP to the declared one; None for itself, and where there is no AP.
        reason: why there are no metrics.
    """

    group: Group
    value: str
    declared: bool = False
    metrics: Metrics | None = None
    difference: Difference | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, metrics and the difference as fractions."""
        gain = self.difference
        return {
            "choice": self.group,
            "value": self.value,
            "declared": self.declared,
            "metrics": None if self.metrics is None else self.metrics.model_dump(),
            "difference": None if gain is None else gain.value,
            "ci95": None if gain is None else [gain.low, gain.high],
            "resolved": None if gain is None else gain.resolved,
            "reason": self.reason,
        }


@dataclass(frozen=True, kw_only=True)
class Audit:
    """All choices behind one record.

    Attributes:
        record: of what was declared.
        rows: the declared value of each choice first, then the others.
    """

    record: Record
    rows: tuple[Row, ...]

    @property
    def warnings(self) -> list[str]:
        """A line for every rule of the method that another one beats here, by enough to be seen in print."""
        lines = []
        for group in RULES:
            (declared,) = (row for row in self.rows if row.group == group and row.declared)
            gains = {row.value: row.difference for row in self.rows if row.group == group and row.difference}
            best = max(gains, key=lambda value: gains[value].value, default=None)
            if best is not None and (gain := gains[best]).value >= VISIBLE:
                sure = "resolved" if gain.resolved else "not resolved"
                lines.append(
                    f'{GROUPS[group]}: declared "{declared.value}" is not the best here: "{best}" is '
                    f"{100 * gain.value:+.1f} AP ({sure})"
                )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: what was audited, the rows, and the warnings."""
        record = self.record.to_json()
        kept = ("key", "call", "training", "protocol", "counts")
        return {
            **{name: record[name] for name in kept},
            "bootstrap": BOOTSTRAP.model_dump(),
            "weights_sha256": self.record.provenance.weights_sha256,
            "rows": [row.to_json() for row in self.rows],
            "warnings": self.warnings,
        }


class Decoder(Protocol):
    """The half of a codec that reads predictions."""

    def decode(self, prediction: Any) -> Keypoints:
        """Prediction -> crop px and scores."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the predictions of a crop and of its mirror image become keypoints.

    Attributes:
        mirror: mirrors back and averages; None reads the crop alone.
        decoder: reads what comes of it.
    """

    mirror: Codec[Any] | None
    decoder: Decoder

    def __call__(self, plain: Any, mirrored: Any, order: Tensor) -> Keypoints:
        """Predictions of the crops and of the mirrored crops; `order` (K,) exchanges left and right."""
        if self.mirror is None:
            return self.decoder.decode(plain)
        return self.decoder.decode(self.mirror.average(plain, self.mirror.unflip(mirrored, order)))


def audit(bench: Bench, cell: Cell, record: Record) -> Audit:
    """Score a cell under every alternative to what it declares; keeps nothing.

    Args:
        bench: opens data and weights; its progress reports.
        cell: with boxes from a detection file, annotated ones are the alternative; the other way round there is none.
        record: of this cell (`Bench.evaluate`).

    Raises:
        ValueError: wrong usage, or data that are not scored by OKS.
        DataError: data or weights missing, damaged or refused.
    """
    dataset = bench.dataset(cell.data, cell.split)
    check(dataset)
    opened = bench.open(cell)
    cell, method = opened.cell, opened.method
    skeleton, rule, codec = dataset.persons.skeleton, method.rescoring, method.codec
    model, _ = opened.model()

    def read(boxes: str, readings: Sequence[Reading]) -> list[Predictions]:
        persons = None if boxes == "gt" else read_detections(Path(boxes), dataset.images, skeleton)
        return read_all(
            model,
            bench.crops(cell.data, cell.split, method, cell.preset(), persons, cell.lr_seed),
            readings,
            flip=cell.flip,
            workers=cell.workers,
            device=cell.torch_device(),
            progress=bench.progress,
        )

    def scored(results: list[dict[str, Any]]) -> tuple[Metrics, Seeds]:
        metrics, matches = measured(*in_original_coordinates(dataset, results), skeleton)
        return metrics, Seeds.of([matches], **BOOTSTRAP.model_dump())

    declared = Reading(mirror=codec if cell.flip else None, decoder=codec)
    (flip, decoder), readings = readings_of(codec, declared)
    values: dict[Group, str] = {"flip": flip, "decoder": decoder, "scores": USUAL, "boxes": record.protocol.boxes}
    predictions, *others = read(cell.boxes, [declared, *readings.values()])
    results: dict[tuple[Group, str], list[dict[str, Any]]] = {
        **{choice: evaluation.to_results(other, rule) for choice, other in zip(readings, others, strict=True)},
        **{("scores", value): other for value, other in scored_otherwise(predictions, rule).items()},
    }
    if cell.boxes != "gt":
        (of_annotated,) = read("gt", [declared])
        results["boxes", "gt"] = evaluation.to_results(of_annotated, rule)

    metrics, resampled = scored(evaluation.to_results(predictions, rule))
    rows = [Row(group=group, value=value, declared=True, metrics=metrics) for group, value in values.items()]
    for (group, value), result in results.items():
        other, others_resampled = scored(result)
        gain = difference(others_resampled, resampled)
        rows.append(Row(group=group, value=value, metrics=other, difference=gain))
    rows += missing(codec, cell)
    return Audit(record=record, rows=tuple(row for group in GROUPS for row in rows if row.group == group))


def check(dataset: Dataset) -> None:
    """Refuse data that cannot be audited, before any work begins.

    Raises:
        ValueError: they are not scored by OKS.
    """
    if dataset.metric != "oks":
        raise ValueError(
            f"audit: {dataset.name} is scored by {dataset.metric}, not by AP; audit on COCO or CrowdPose data"
        )


@torch.inference_mode()
def read_all(
    model: PoseNetwork[Any],
    crops: Crops,
    readings: Sequence[Reading],
    *,
    flip: bool = True,
    batch: int = 128,
    workers: int = 2,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> list[Predictions]:
    """Predictions of persons under several readings, from one pass of the network over crops and mirrored crops.

    Only keypoints are kept, maps are read batch by batch.

    Args:
        model: with weights.
        crops: of the persons.
        readings: see `Reading`.
        flip: crops and mirror images go through the network in one batch, as `predict` has it with its flip test; else
            apart. Rounding depends on it.
        batch, workers, device, progress: see `predict`.
    """
    model = model.to(device).eval()
    persons, done, start = crops.persons, 0, time.perf_counter()
    keypoints = np.zeros((len(readings), len(persons), len(persons.skeleton), 3))
    for loaded in crops.batches(batch, workers):
        seen = model.prepare(loaded.pixels.to(device).float().div_(255))
        plain, mirrored = both_passes(model, seen) if flip else (model.read(seen), model.read(seen.flip(-1)))
        rows = slice(done, done + len(seen))
        for reading, found in zip(readings, keypoints, strict=True):
            decoded = reading(plain, mirrored, mirror_index(seen.device, persons.skeleton))
            found[rows, :, :2] = decoded.xy.cpu().numpy()
            found[rows, :, 2] = decoded.score.cpu().numpy()
        done += len(seen)
        progress("audit", done, len(persons), f"{done / (time.perf_counter() - start):.0f} images/s")
    return [to_image(crops, found) for found in keypoints]


def readings_of(codec: Codec[Any], declared: Reading) -> tuple[tuple[str, str], dict[tuple[Group, str], Reading]]:
    """Readings that differ from the declared one in the flip test or in the decoder.

    Args:
        codec: of the method.
        declared: with this codec or no flip test, decoded by this codec.

    Returns:
        names of the declared flip test and decoder, and the others by choice and name.
    """
    flip, flips = flip_tests(codec)
    decoder, decoders = decoders_of(codec)
    flip = "none" if declared.mirror is None else flip
    readings: dict[tuple[Group, str], Reading] = {
        **{("flip", name): dataclasses.replace(declared, mirror=other) for name, other in flips.items()},
        **{("decoder", name): dataclasses.replace(declared, decoder=other) for name, other in decoders.items()},
    }
    for name in (("flip", flip), ("decoder", decoder)):
        readings.pop(name, None)
    return (flip, decoder), readings


def flip_tests(codec: Codec[Any]) -> tuple[str, dict[str, Codec[Any] | None]]:
    """The flip test of a codec, and codecs of all that can be made by name; None for no flip test."""
    shift, codecs = mirrored_by(codec)
    tests = {_shift_in_words(n): other for n, other in (codecs or {0: codec}).items()}
    return _shift_in_words(shift), {"none": None, **tests}


def mirrored_by(codec: Codec[Any]) -> tuple[int, dict[int, Codec[Any]]]:
    """By how many cells a codec moves a mirrored-back map, and codecs that differ from it in nothing else.

    Returns:
        0 and nothing for codecs that mirror positions, not maps.
    """
    match codec:
        case Heatmap() | HeatmapOffset() | Integral(flip="logits"):
            grid = codec.grid
            grids = {n: ShiftedGrid(grid.frame, grid.stride, grid.tiled, n) for n in {0, 1, grid.mirror_shift}}
            return grid.mirror_shift, {n: dataclasses.replace(codec, grid=other) for n, other in sorted(grids.items())}
        case SuperResolved():
            shifts = sorted({0, 1, codec.shift, codec.grid.mirror_shift})
            return codec.shift, {n: dataclasses.replace(codec, shift=n) for n in shifts}
        case AxisBins():
            others = (dataclasses.replace(codec, flip_shift=rule) for rule in get_args(FlipShift))
            return codec.shift, {other.shift: other for other in sorted(others, key=lambda other: other.shift)}
    for name, part in _parts(codec).items():
        shift, codecs = mirrored_by(part)
        if codecs:
            around: Any = codec
            return shift, {n: dataclasses.replace(around, **{name: inner}) for n, inner in codecs.items()}
    return 0, {}


@dataclass(frozen=True)
class ShiftedGrid(Grid):
    """A grid that moves mirrored-back maps by a number of cells of its own, whatever its alignment asks for.

    Attributes:
        shift: cells to the right.
    """

    shift: int = 0

    @property
    def mirror_shift(self) -> int:
        """`shift`."""
        return self.shift


def decoders_of(codec: Codec[Any]) -> tuple[str, dict[str, Decoder]]:
    """The way in which a codec reads positions, and decoders of those that can be used by name.

    Returns:
        the type of the codec and nothing where positions are not read from one heatmap.
    """
    match codec:
        case Heatmap() | SuperResolved():
            steps = refinements(codec.grid.frame.size)
            return _step_in_words(codec.refine), {n: dataclasses.replace(codec, refine=s) for n, s in steps.items()}
        case HeatmapOffset() | Integral():
            steps = refinements(codec.grid.frame.size)
            name = "offset" if isinstance(codec, HeatmapOffset) else "expectation"
            return name, {n: AtPeak(codec=codec, refine=step) for n, step in steps.items()}
        case EnlargedCodec() | SuperResolvedLevels():  # they decode what they hold
            ((field, part),) = _parts(codec).items()
            name, decoders = decoders_of(part)
            around: Any = codec
            return name, {n: dataclasses.replace(around, **{field: inner}) for n, inner in decoders.items()}
    return type(codec).__name__, {}


@dataclass(frozen=True, kw_only=True)
class AtPeak:
    """The heatmap of a codec that does not stop at its peak, read there; scores stay the codec's own.

    Attributes:
        codec: that is declared.
        refine: how the peak cell becomes a position.
    """

    codec: HeatmapOffset | Integral
    refine: Refinement

    def decode(self, prediction: OffsetMaps | SoftMaps) -> Keypoints:
        """Positions in px of the crop, and scores."""
        maps = self.heatmap(prediction)
        cells, _ = hm.peak(maps)
        score = self.codec.decode(prediction).score  # type: ignore[arg-type]
        return Keypoints(hm.to_px(self.codec.grid, self.refine(maps, cells)).float(), score)

    def heatmap(self, prediction: OffsetMaps | SoftMaps) -> Tensor:
        """The map (B, K, H, W) float64 whose peak is sought: blurred as declared, or the probability of each cell."""
        if isinstance(self.codec, Integral):
            assert isinstance(prediction, SoftMaps)
            return self.codec.probability(prediction.logits).double()
        assert isinstance(prediction, OffsetMaps)
        maps, blur = prediction.heatmap.double(), self.codec.blur_heatmap
        # rounded as the codec rounds, for the same peak
        return maps if blur is None else hm.blurred(maps, blur, border="reflect").float().double()


def refinements(size: Size) -> dict[str, Refinement]:
    """Published ways from the peak cell to a position, by name.

    Args:
        size: of the crop.
    """
    taylor = partial(hm.taylor_step, blur=hm.default_blur(size), guard="published")
    return {_step_in_words(step): step for step in (hm.argmax, hm.quarter_step, taylor)}


USUAL = "rescored, NMS"
"""How persons are scored and suppressed by every method."""


def scored_otherwise(predictions: Predictions, rule: Rescoring) -> dict[str, list[dict[str, Any]]]:
    """COCO results without rescoring, without suppression, and without both.

    Args:
        predictions: of persons.
        rule: that is declared.
    """
    keypoints = predictions.keypoints.copy()
    keypoints[:, :, 2] = 1.0  # leaves the score of the box alone
    by_box = dataclasses.replace(predictions, keypoints=keypoints)
    return {
        "box scores, NMS": evaluation.to_results(by_box),
        "rescored, no NMS": evaluation.to_results(predictions, rule, nms=1.0),
        "box scores, no NMS": evaluation.to_results(by_box, nms=1.0),
    }


def missing(codec: Codec[Any], cell: Cell) -> list[Row]:
    """Rows of choices that do not exist for a codec or a cell, and why."""
    rows = []
    if not mirrored_by(codec)[1]:
        reason = "does not apply: positions are mirrored, and no map that could be shifted"
        rows.append(Row(group="flip", value=_shift_in_words(1), reason=reason))
    if not decoders_of(codec)[1]:
        reason = f"does not apply: {type(codec).__name__} does not read positions from one heatmap"
        rows += [Row(group="decoder", value=step, reason=reason) for step in refinements(cell.res)]
    if cell.boxes == "gt":
        rows.append(Row(group="boxes", value="detections", reason="no detection file given: --boxes FILE"))
    return rows


def _shift_in_words(shift: int) -> str:
    return f"flip, shifted by {shift}" if shift else "flip"


def _step_in_words(step: Refinement) -> str:
    """Name of a refinement: ``argmax``, ``quarter``, ``taylor``, ``taylor_udp``, or of somebody else's function."""
    function = step.func if isinstance(step, partial) else step
    return str(getattr(function, "__name__", type(function).__name__)).replace("_step", "")


def _parts(codec: Any) -> dict[str, Codec[Any]]:
    """The codecs that a codec is built around, by the names of its fields."""
    if not dataclasses.is_dataclass(codec):
        return {}
    values = {field.name: getattr(codec, field.name) for field in dataclasses.fields(codec)}
    return {name: value for name, value in values.items() if hasattr(value, "unflip")}
