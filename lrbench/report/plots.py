"""Figures from records: AP over resolution, severities and cost, by person height, per keypoint, and its errors.

What one line joins and what its label says: `lrbench.report.lines`. What all lines of a figure share stands below its
title. Measured is solid and filled, reported is dashed and hollow. Thin whiskers with caps are the spread over seeds,
wide pale bars are 95 % intervals over images: two sources of error, drawn in two ways.
"""

from __future__ import annotations

import gc
import itertools
import math
import multiprocessing
import os
import re
import signal
import statistics
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from lrbench.corruptions.corruption import SEVERITIES
from lrbench.geometry import Size
from lrbench.records import HeightBin, Record, newest, read_records
from lrbench.report.frontier import Point, front
from lrbench.report.lines import (
    COPY_HEIGHT,
    COPY_SEVERITY,
    CROP_SEVERITY,
    PLAIN,
    Line,
    Sweep,
    X,
    copy_amount,
    copy_height,
    copy_note,
    copy_preset,
    crop_preset,
    line_labels,
    lines_of,
    lines_over,
    shape_of,
    size_of,
)
from lrbench.report.renderers import Ruler, write_png, write_svg
from lrbench.report.reported import PLAIN_CROPS, Reported, data_in_words, find, reported_boxes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette without its yellow, which is too pale for lines on white; told apart by the colour blind."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
"""Nine markers to seven colours, so that pairs repeat only after 63 lines."""

ERROR_COLOURS = {
    "good": "#009E73",
    "jitter": "#56B4E9",
    "inversion": "#E69F00",
    "swap": "#CC79A7",
    "miss": "#D55E00",
}
"""Kinds of `lrbench.records.Diagnosis.errors`, from harmless to bad."""

INTERVALS = "wide bars: 95 % intervals over images"

DPI = 150

Format = Literal["svg", "png"]

WRITERS: Mapping[Format, Callable[[Figure, Path], None]] = {"svg": write_svg, "png": write_png}

FEWEST = 4
"""Figures that are worth a process."""

MARGIN = 3.0
"""Around what a figure consists of, points."""

K = TypeVar("K", int, "Scene", tuple[Any, ...])

LineStyle = Literal["-", "--", "none"]
"""Measured, reported, and points that no line joins."""


@dataclass(frozen=True)
class Series:
    """A reported curve: rows of one source, backbone and kind of boxes, by size."""

    line: Line
    words: str
    rows: tuple[Reported, ...]


def no_labels(method: str) -> tuple[str, ...]:
    """Labels of a method about which nothing is reported."""
    return ()


@dataclass(frozen=True)
class Drawing:
    """A figure that records are enough for.

    Attributes:
        kind: what it shows, the first words of its name.
        name: of its files, without suffix.
        lines: how many it compares.
        draw: makes it.
    """

    kind: str
    name: str
    lines: int
    draw: Callable[[], Figure]


class Scene(NamedTuple):
    """What was scored, as far as it decides which numbers stand in one figure.

    Attributes:
        dataset: name of the data.
        split: scored split.
        boxes: ``gt`` or the name of a detection file.
        flip: with the flip test.
        pixels: preset that cut the crops and its severity; empty for plain crops.
        upscaled: behind an upscaler.
        machine: that ran it, where that matters.
    """

    dataset: str
    split: str
    boxes: str
    flip: bool
    pixels: str
    upscaled: bool
    machine: str = ""

    @property
    def suffix(self) -> str:
        """Whatever is not as usual, for file names."""
        unusual = [
            "" if self.split == "val" else self.split,
            "" if self.boxes == "gt" else self.boxes,
            "" if self.flip else "no-flip",
            self.pixels,
            "upscaled" if self.upscaled else "",
            self.machine,
        ]
        return "".join(f"_{_slug(word)}" for word in unusual if word)


def plot(
    results: Path,
    out: Path | None = None,
    *,
    labels: Callable[[str], Sequence[str]] = no_labels,
    formats: Sequence[Format] = ("svg",),
) -> list[Path]:
    """Draw figures from all records below a folder.

    Where crops were not cut plainly, or data not scored plainly (another split, boxes of a detector, no flip test), a
    name ends in what was done instead. ``<HxW>`` is the crop.

    * ``ap_over_resolution_<dataset>``: AP over the height of the crop, mean over seeds with whiskers from the worst to
      the best, and what is reported for the same methods.
    * ``per_keypoint_<dataset>_<HxW>``: AP with one keypoint's OKS alone.
    * ``ap_over_macs_<dataset>_<HxW>`` and ``ap_over_latency_<dataset>_<HxW>_<device>``: AP over cost, with the Pareto
      front.
    * ``ap_by_person_height_<dataset>_<HxW>`` and ``errors_<dataset>_<HxW>``: of records with a diagnosis.
    * ``ap_over_severity_<dataset>_<HxW>_<preset>``: AP over the severity of the preset that cut the crops, where there
      are two for one line.
    * On copies that `lrbench degrade` made of the same data, named by the beginning of the hash of its annotation file:
      ``ap_over_severity_copies-<hash>_<split>_<amount>_<HxW>_<preset>`` over the severity of theirs, and
      ``ap_over_person_height_copies-<hash>_<split>_<preset>_<HxW>`` over the height of the persons.

    Records without what a figure shows are left out of it; superseded ones of all.

    Args:
        results: folder of records.
        out: folder for the figures, made if need be; ``results/figures`` when None.
        labels: names under which papers report a method, given the method's own name.
        formats: of the files.

    Returns:
        The files written.

    Raises:
        ValueError: no record below the folder, none with a number to draw, or a file that should be a record is none.
        OSError: the folder cannot be written.
    """
    records = newest(read_records(results))
    if not records:
        raise ValueError(f"results folder {results}: no records; make some with lrbench eval or lrbench compare")
    out = results / "figures" if out is None else out
    found = drawings(records, labels)
    if not found:
        raise ValueError(f"results folder {results}: {len(records)} records, none with an AP to draw")
    _save_all(found, out, formats)
    return [out / f"{drawing.name}.{kind}" for drawing in found for kind in formats]


def drawings(records: Iterable[Record], labels: Callable[[str], Sequence[str]] = no_labels) -> list[Drawing]:
    """All figures that records are enough for; nothing is drawn before it is asked for.

    Args:
        records: the newest of each key.
        labels: as in `plot`.
    """
    done = [record for record in records if record.status == "done"]
    scored = [record for record in done if record.metrics.ap is not None and record.call.res]
    found: list[Drawing] = []
    for dataset in sorted({record.protocol.dataset for record in done}):
        found += _resolutions([record for record in scored if record.protocol.dataset == dataset], labels)
        found += _details([record for record in done if record.protocol.dataset == dataset])
    return [*found, *_crop_severities(scored), *_copy_severities(scored), *_heights(scored)]


def _resolutions(records: Sequence[Record], labels: Callable[[str], Sequence[str]]) -> Iterator[Drawing]:
    """Figures over resolution on one dataset: of scenes with several sizes, or else of the first."""
    scenes = _grouped(records, _scene)
    several = [scene for scene, own in scenes.items() if len({record.call.res for record in own}) > 1]
    for scene in several or list(scenes)[:1]:
        lines, kind = lines_of(scenes[scene]), "ap_over_resolution"
        yield Drawing(
            kind, f"{kind}_{_slug(scene.dataset)}{scene.suffix}", len(lines), partial(_over_resolution, lines, labels)
        )


def _details(records: Sequence[Record]) -> Iterator[Drawing]:
    """Figures of one scene and size."""
    for kind, has, where, draw in (
        ("per_keypoint", _has_keypoints, _scene, _per_keypoint),
        ("ap_over_macs", _has_macs, _scene_of_costs, _over_macs),
        ("ap_over_latency", _has_latency, _scene_of_latencies, _over_latency),
        ("ap_by_person_height", _has_heights, _scene, _by_height),
        ("errors", _has_errors, _scene, _error_bars),
    ):
        for (scene, *_), own in _grouped(filter(has, records), partial(_place, where)).items():
            lines, res = lines_of(own), own[0].call.res or "any"
            yield Drawing(kind, f"{kind}_{_slug(scene.dataset)}_{res}{scene.suffix}", len(lines), partial(draw, lines))


def _place(where: Callable[[Record], Scene], record: Record) -> tuple[Scene, int, int]:
    """Scene and size of a record, in the order of figures."""
    return (where(record), *_by_size(record.call.res))


def _scene(record: Record) -> Scene:
    protocol, (preset, severity) = record.protocol, crop_preset(record)
    pixels = "" if preset in PLAIN_CROPS else f"{preset} severity {severity}" if severity else preset
    upscaled = record.call.sr not in ("", "none")
    return Scene(protocol.dataset, protocol.split, protocol.boxes, protocol.flip, pixels, upscaled)


def _scene_of_costs(record: Record) -> Scene:
    """An upscaler is one more way to spend multiply-adds on the same pixels."""
    return _scene(record)._replace(upscaled=False)


def _scene_of_latencies(record: Record) -> Scene:
    """Of two machines no latency says anything about the other's."""
    return _scene_of_costs(record)._replace(machine=_machine(record))


def _machine(record: Record) -> str:
    """What a latency depends on besides the method."""
    own = record.provenance
    threads = f"{own.threads} thread{'' if own.threads == 1 else 's'}"
    return ", ".join([own.device, *([threads] if own.device.startswith("cpu") else []), own.precision])


def _macs(record: Record) -> float | None:
    """Multiply-adds of upscaler and network, 1e9."""
    return None if record.cost.macs is None else (record.cost.macs + record.cost.macs_sr) / 1e9


def _latency(record: Record) -> float | None:
    return record.cost.latency_ms


def _has_keypoints(record: Record) -> bool:
    return any(ap is not None for ap in record.keypoint_ap.values())


def _has_macs(record: Record) -> bool:
    return record.metrics.ap is not None and bool(record.call.res) and bool(_macs(record))


def _has_latency(record: Record) -> bool:
    return record.metrics.ap is not None and bool(record.call.res) and bool(_latency(record))


def _has_heights(record: Record) -> bool:
    return record.diagnosis is not None and any(own.ap is not None for own in record.diagnosis.heights)


def _has_errors(record: Record) -> bool:
    return record.diagnosis is not None and bool(record.diagnosis.errors)


def _over_resolution(lines: Sequence[Line], labels: Callable[[str], Sequence[str]]) -> Figure:
    names, shared = line_labels(lines)
    sizes = sorted({size for line in lines for size in line.points(size_of)})
    reported = _reported_series(lines, sizes, labels)
    figure = _figure(10, max(4.8, 1.2 + 0.42 * (len(lines) + len(reported))))
    axes = figure.add_subplot()
    handles = []
    for number, (line, name, (colour, marker)) in enumerate(zip(lines, names, _styles(lines), strict=True)):
        points = line.points(size_of)
        aside = _aside(number, len(lines))
        _draw_points(axes, {size.height * aside: own for size, own in points.items()}, colour, marker, "-")
        handles.append(_handle(name, colour, marker, "-"))
        for series in (s for s in reported if s.line is line):
            values = [100 * row.ap for row in series.rows if row.ap is not None]
            heights = [row.size.height * aside for row in series.rows if row.size is not None]
            # hollow and larger: a ring where it meets the measured point
            axes.plot(heights, values, "--", color=colour, marker=marker, mfc="none", ms=9, lw=1.3, zorder=4)
            handles.append(_handle(f"{line.method}: {series.words}", colour, marker, "--"))
    _resolution_axis(axes, sizes)
    _ap_axis(axes)
    title = f"AP over resolution, measured on {_data(lines)}"
    if reported:
        shared = [*shared, "dashed and hollow: reported by papers, not measured here"]
    _finish(figure, axes, title, [*shared, *_intervals(lines)], _repeats(lines, size_of), handles)
    return figure


def _crop_severities(records: Sequence[Record]) -> Iterator[Drawing]:
    """Figures over the severity of the preset that cut the crops."""
    where = _grouped(records, lambda record: (record.protocol.dataset, record.call.res))
    for (dataset, res), here in where.items():
        for preset, lines in _swept(here, CROP_SEVERITY, crop_preset):
            title = f"AP over severity of {preset} at {res}, measured on {_data(lines)}"
            draw = partial(_over_severity, lines, CROP_SEVERITY, title, plain="plain crops")
            name = f"ap_over_severity_{_slug(dataset)}_{res}_{_slug(preset)}"
            yield Drawing("ap_over_severity", name, len(lines), draw)


def _copy_severities(records: Sequence[Record]) -> Iterator[Drawing]:
    """Figures over the severity of the preset that made the scored copies."""
    where = _grouped(_of_copies(records), lambda record: (*_source(record), copy_amount(record), record.call.res))
    for (source, split, amount, res), here in where.items():
        for preset, lines in _swept(here, COPY_SEVERITY, copy_preset):
            title = f"AP over severity of {preset}, {amount}, at {res}, measured on {_copies(lines)}"
            name = f"ap_over_severity_copies-{source}_{_slug(split)}_{_slug(amount)}_{res}_{_slug(preset)}"
            notes = [f"{_persons(here)} persons", _datasets(lines, COPY_SEVERITY)]
            draw = partial(_over_severity, lines, COPY_SEVERITY, title, notes, plain="plain copies")
            yield Drawing("ap_over_severity", name, len(lines), draw)


def _heights(records: Sequence[Record]) -> Iterator[Drawing]:
    """Figures over the height of the persons in the scored copies."""
    copies = [record for record in _of_copies(records) if copy_note(record)["level"] == "height"]
    where = _grouped(copies, lambda record: (*_source(record), copy_preset(record), record.call.res))
    for (source, split, (preset, severity), res), here in where.items():
        lines = lines_over(COPY_HEIGHT, here)
        if any(len(line.points(copy_height)) > 1 for line in lines):
            words = f"{preset} severity {severity}" if severity else preset
            title = f"AP over person height at {res}, {words}, measured on {_copies(lines)}"
            name = f"ap_over_person_height_copies-{source}_{_slug(split)}_{_slug(words)}_{res}"
            yield Drawing("ap_over_person_height", name, len(lines), partial(_over_height, lines, title))


def _swept(
    records: Sequence[Record], sweep: Sweep, preset: Callable[[Record], tuple[str, int]]
) -> Iterator[tuple[str, list[Line]]]:
    """Names of presets of which something was scored at two severities, and their lines with plain points."""
    for name in sorted({name for name, severity in map(preset, records) if severity != PLAIN}):
        lines = lines_over(sweep, (record for record in records if preset(record)[0] in (name, *PLAIN_CROPS)))
        if any(len(line.points(sweep.place).keys() - {PLAIN}) > 1 for line in lines):
            yield name, lines


def _over_severity(lines: Sequence[Line], sweep: Sweep, title: str, notes: Sequence[str] = (), *, plain: str) -> Figure:
    names, shared = line_labels(lines)
    figure = _figure(10, max(4.8, 1.2 + 0.42 * len(lines)))
    axes = figure.add_subplot()
    handles = []
    for number, (line, name, (colour, marker)) in enumerate(zip(lines, names, _styles(lines), strict=True)):
        # a little to the side, less than a quarter, so that equal numbers do not hide each other
        aside = (number - (len(lines) - 1) / 2) / (2 * max(8, len(lines)))
        points = line.points(sweep.place)
        swept = {place: records for place, records in points.items() if place != PLAIN}
        _draw_points(axes, {place + aside: own for place, own in swept.items()}, colour, marker, "-")
        if PLAIN in points:
            _draw_points(axes, {PLAIN + aside: points[PLAIN]}, colour, marker, "none", hollow=True)
        handles.append(_handle(name, colour, marker, "-"))
    has_plain = any(PLAIN in line.points(sweep.place) for line in lines)
    ticks = {**({PLAIN: "plain"} if has_plain else {}), **{severity: str(severity) for severity in SEVERITIES}}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xlim(min(ticks) - 0.4, max(ticks) + 0.4)
    axes.set_xlabel("severity, 1 (mild) to 5 (hard)")
    _ap_axis(axes)
    open_points = [f"open: {plain}, preset {' or '.join(PLAIN_CROPS)}"] if has_plain else []
    _finish(
        figure, axes, title, [*shared, *notes, *open_points, *_intervals(lines)], _repeats(lines, sweep.place), handles
    )
    return figure


def _over_height(lines: Sequence[Line], title: str) -> Figure:
    names, shared = line_labels(lines)
    figure = _figure(10, max(4.8, 1.2 + 0.42 * len(lines)))
    axes = figure.add_subplot()
    handles = []
    for number, (line, name, (colour, marker)) in enumerate(zip(lines, names, _styles(lines), strict=True)):
        points = line.points(copy_height)
        aside = _aside(number, len(lines))
        _draw_points(axes, {height * aside: own for height, own in points.items()}, colour, marker, "-")
        handles.append(_handle(name, colour, marker, "-"))
    _height_axis(axes, [record for line in lines for record in line.records])
    _ap_axis(axes)
    left_out = "n persons scored: those who are not higher in the photograph are left out"
    shared = [*shared, _datasets(lines, COPY_HEIGHT), left_out, *_intervals(lines)]
    _finish(figure, axes, title, shared, _repeats(lines, copy_height), handles)
    return figure


def _per_keypoint(lines: Sequence[Line]) -> Figure:
    names, shared = line_labels(lines)
    keypoints = list(dict.fromkeys(name for line in lines for record in line.records for name in record.keypoint_ap))
    figure = _figure(12, max(4.8, 1.4 + 0.42 * len(lines)))
    axes = figure.add_subplot()
    handles = []
    for number, (line, name, (colour, marker)) in enumerate(zip(lines, names, _styles(lines), strict=True)):
        handles.append(_handle(name, colour, marker, "none"))
        groups: dict[float, list[float]] = {}
        for position, keypoint in enumerate(keypoints):
            found = [record.keypoint_ap.get(keypoint) for record in line.records]
            groups[position + _beside(number, len(lines))] = [100 * ap for ap in found if ap is not None]
        measured = {x: aps for x, aps in groups.items() if aps}
        _draw_means(axes, list(measured), list(measured.values()), colour, marker, "none")
        for x in groups.keys() - measured.keys():
            # an empty place would read as zero
            axes.annotate("-", (x, 0), (0, 4), textcoords="offset points", color=colour, ha="center", size=15)
    words = [keypoint.replace("_", " ") for keypoint in keypoints]
    _bands(axes, words, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_ylim(0, 100)
    axes.set_ylabel("AP with this keypoint's OKS alone (%)")
    axes.grid(axis="y", color="0.85")
    res = lines[0].records[0].call.res
    title = f"AP per keypoint{f' at {res}' if res else ''}, measured on {_data(lines)}"
    absent = any(record.keypoint_ap.get(k) is None for line in lines for record in line.records for k in keypoints)
    if absent:
        shared = [*shared, "-: not measured"]
    _finish(figure, axes, title, shared, _repeats(lines, lambda record: record.call.res), handles)
    return figure


def _over_macs(lines: Sequence[Line]) -> Figure:
    return _over_cost(lines, _macs, "GMACs", "of one crop, upscaler included")


def _over_latency(lines: Sequence[Line]) -> Figure:
    return _over_cost(lines, _latency, "latency", f"of one crop (ms), {_machine(lines[0].records[0])}")


def _over_cost(lines: Sequence[Line], cost: Callable[[Record], float | None], word: str, details: str) -> Figure:
    """AP over a cost; `word` names it, `details` say of what and in which unit."""
    names, shared = line_labels(lines)
    figure = _figure(10, max(4.8, 1.2 + 0.42 * len(lines)))
    axes = figure.add_subplot()
    handles, points = [], []
    for line, name, (colour, marker) in zip(lines, names, _styles(lines), strict=True):
        spent = statistics.fmean(value for record in line.records if (value := cost(record)) is not None)
        _draw_points(axes, {spent: line.records}, colour, marker, "none")
        handles.append(_handle(name, colour, marker, "none"))
        points.append(Point(spent, statistics.fmean(record.metrics.ap or 0.0 for record in line.records)))
    best = sorted(point for point, kept in zip(points, front(points), strict=True) if kept)
    axes.step([point.cost for point in best], [100 * point.ap for point in best], "0.6", where="post", lw=1.2, zorder=1)
    axes.set_xscale("log")
    axes.set_xlim(min(points).cost / 1.25, max(points).cost * 1.25)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"{word} {details}")
    _ap_axis(axes)
    title = f"AP over {word} at {lines[0].records[0].call.res}, measured on {_data(lines)}"
    shared = [*shared, "grey: Pareto front, to which nothing is cheaper and no worse", *_intervals(lines)]
    _finish(figure, axes, title, shared, _repeats(lines, size_of), handles)
    return figure


def _by_height(lines: Sequence[Line]) -> Figure:
    names, shared = line_labels(lines)
    figure = _figure(10, max(4.8, 1.2 + 0.42 * len(lines)))
    axes = figure.add_subplot()
    handles = []
    bins = height_bins(record for line in lines for record in line.records)
    for number, (line, name, (colour, marker)) in enumerate(zip(lines, names, _styles(lines), strict=True)):
        own = height_bins(line.records)
        places = {place + _beside(number, len(lines)): own.get(ends, []) for place, ends in enumerate(bins)}
        found = {x: aps for x, members in places.items() if (aps := [100 * b.ap for b in members if b.ap is not None])}
        _draw_intervals(axes, {x: [b.ci95 for b in members] for x, members in places.items()}, colour)
        _draw_means(axes, list(found), list(found.values()), colour, marker, "none")
        handles.append(_handle(name, colour, marker, "none"))
    words = [f"{ends_in_words(*ends)}\nn={counted(own.persons for own in found)}" for ends, found in bins.items()]
    _bands(axes, words)
    axes.set_xlabel("height of the annotated box (px), n persons")
    _ap_axis(axes)
    res = lines[0].records[0].call.res
    title = f"AP by person height{f' at {res}' if res else ''}, measured on {_data(lines)}"
    if any(each.ci95 for found in bins.values() for each in found):
        shared = [*shared, _intervals_in_words(lines)]
    _finish(figure, axes, title, shared, _repeats(lines, lambda record: record.call.res), handles)
    return figure


def height_bins(records: Iterable[Record]) -> dict[tuple[float, float | None], list[HeightBin]]:
    """Bins of person height of several records by their two ends, lowest first."""
    found: dict[tuple[float, float | None], list[HeightBin]] = {}
    for record in records:
        for own in record.diagnosis.heights if record.diagnosis else ():
            found.setdefault((own.low, own.high), []).append(own)
    return dict(sorted(found.items(), key=lambda item: (item[0][0], item[0][1] or math.inf)))


def ends_in_words(low: float, high: float | None) -> str:
    """Of a bin of person height, px: ``below 32``, ``32 to 64``, ``256 and more``."""
    if high is None:
        return f"{low:g} and more"
    return f"{low:g} to {high:g}" if low else f"below {high:g}"


def _error_bars(lines: Sequence[Line]) -> Figure:
    names, shared = line_labels(lines)
    figure = _figure(11, 1.6 + 0.42 * len(lines))
    axes = figure.add_subplot()
    means = [error_shares(line.records) for line in lines]
    order = sorted(range(len(lines)), key=lambda number: means[number]["good"])
    left = [0.0] * len(lines)
    for kind, colour in ERROR_COLOURS.items():
        widths = [100 * means[number][kind] for number in order]
        axes.barh(range(len(lines)), widths, left=left, color=colour, height=0.75, label=kind)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.tick_params(axis="y", length=0)
    axes.set_yticks(range(len(lines)), [textwrap.fill(names[number], 60) for number in order], fontsize=8)
    axes.set_xlim(0, 100)
    axes.set_ylim(-0.6, len(lines) - 0.4)
    axes.set_xlabel("labelled keypoints of matched persons (%)")
    lost = [[r.diagnosis.undetected for r in lines[number].records if r.diagnosis] for number in order]
    for place, shares in enumerate(lost):
        told = [share for share in shares if share is not None]
        words = f"{100 * statistics.fmean(told):.1f}" if told else "-"
        axes.annotate(words, (1, place), (6, 0), ("axes fraction", "data"), "offset points", va="center", fontsize=8)
    res = lines[0].records[0].call.res
    title = f"Errors of keypoints{f' at {res}' if res else ''}, measured on {_data(lines)}"
    shared = [*shared, "right of the bars: persons that no prediction was matched with (%)"]
    handles = [Patch(color=colour, label=kind) for kind, colour in ERROR_COLOURS.items()]
    _finish(figure, axes, title, shared, _repeats(lines, lambda record: record.call.res), handles)
    return figure


def error_shares(records: Sequence[Record]) -> dict[str, float]:
    """Share of every kind of error, mean over seeds; of records that have them."""
    found = [record.diagnosis.errors for record in records if record.diagnosis and record.diagnosis.errors]
    return {kind: statistics.fmean(shares.get(kind, 0.0) for shares in found) for kind in ERROR_COLOURS}


def _reported_series(
    lines: Sequence[Line], sizes: Sequence[Size], labels: Callable[[str], Sequence[str]]
) -> list[Series]:
    """Reported curves at the measured sizes; one per method, source, backbone and kind of boxes."""
    series: list[Series] = []
    for line in lines:
        call = line.records[0].call
        names, shapes = labels(line.method), {shape_of(own) for own in line.points(size_of)}
        groups: dict[tuple[str, str], list[Reported]] = {}
        for size in (size for size in sizes if shape_of(size) in shapes):
            row = find(names, call.backbone, size, call.sr or "none")
            if row is not None:
                words = f"{row.dataset} {row.split}, {row.backbone}, {reported_boxes(row)}"
                groups.setdefault((words, row.source), []).append(row)
        for (words, _), rows in groups.items():
            # curves of one method look alike, so each says where it is
            where = f" at {' and '.join(str(row.size) for row in rows)}" if len(groups) > 1 else ""
            # two lines of one method may find the same rows: draw them once
            if not any(other.line.method == line.method and other.rows == tuple(rows) for other in series):
                series.append(Series(line, f"reported{where}, {words}", tuple(rows)))
    return series


def _styles(lines: Sequence[Line]) -> list[tuple[str, str]]:
    """Colour and marker of every line: one of each per method, but other markers for further lines of a method."""
    methods = list(dict.fromkeys(line.method for line in lines))
    styles = []
    for index, line in enumerate(lines):
        number = methods.index(line.method)
        variant = sum(other.method == line.method for other in lines[:index])
        # the step keeps variants of one method from borrowing the marker of the next method
        styles.append((COLOURS[number % len(COLOURS)], MARKERS[(number + 4 * variant) % len(MARKERS)]))
    return styles


def _aside(number: int, lines: int) -> float:
    """Factor that moves a line to the side, at most 1/14 of an octave, so that equal numbers do not hide each other."""
    return float(2 ** ((number - (lines - 1) / 2) / (7 * max(4, lines))))


def _draw_points(
    axes: Axes,
    points: Mapping[float, Sequence[Record]],
    colour: str,
    marker: str,
    line: LineStyle,
    *,
    hollow: bool = False,
) -> None:
    """AP of the records at every x: means with their spread, and behind them the intervals over images."""  # fmt: skip
    aps = [[100 * record.metrics.ap for record in own if record.metrics.ap is not None] for own in points.values()]
    _draw_intervals(axes, {x: [record.ci95.get("ap") for record in own] for x, own in points.items()}, colour)
    _draw_means(axes, list(points), aps, colour, marker, line, hollow=hollow)


def _draw_intervals(axes: Axes, intervals: Mapping[float, Sequence[tuple[float, float] | None]], colour: str) -> None:
    """95 % intervals of fractions at every x; of several seeds, which share the images, the mean of their ends."""
    known = {x: ends for x, own in intervals.items() if (ends := [each for each in own if each is not None])}
    if known:
        lows, highs = ([statistics.fmean(100 * ends[i] for ends in own) for own in known.values()] for i in (0, 1))
        axes.vlines(list(known), lows, highs, color=colour, alpha=0.3, lw=5, zorder=2)


def _draw_means(
    axes: Axes,
    x: Sequence[float],
    groups: Sequence[Sequence[float]],
    colour: str,
    marker: str,
    line: LineStyle,
    *,
    hollow: bool = False,
) -> None:
    means = [statistics.fmean(group) for group in groups]
    below = [max(0.0, mean - min(group)) for mean, group in zip(means, groups, strict=True)]
    above = [max(0.0, max(group) - mean) for mean, group in zip(means, groups, strict=True)]
    whiskers = [below, above] if any(len(group) > 1 for group in groups) else None
    axes.errorbar(
        x, means, yerr=whiskers, color=colour, marker=marker, linestyle=line, ms=7, lw=1.8, capsize=4, zorder=3,
        mfc="white" if hollow else colour,
    )  # fmt: skip


def _beside(number: int, lines: int) -> float:
    """Where a line stands within a band of width 1."""
    return 0.8 * (number - (lines - 1) / 2) / lines


def _bands(axes: Axes, words: Sequence[str], **style: Any) -> None:
    """An axis of categories, every second one shaded; `style` of their words."""
    for position in range(0, len(words), 2):
        axes.axvspan(position - 0.5, position + 0.5, color="0.95", zorder=0)
    axes.tick_params(axis="x", length=0)  # before there are ticks that would have to follow
    axes.set_xticks(range(len(words)), words, **style)
    axes.set_xlim(-0.5, len(words) - 0.5)


def _resolution_axis(axes: Axes, sizes: Sequence[Size]) -> None:
    at: dict[int, list[str]] = {}
    for size in sizes:
        at.setdefault(size.height, []).append(str(size))
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(at) / 2**0.35, max(at) * 2**0.35)
    axes.set_xticks(list(at), ["\n".join(names) for names in at.values()])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("crop, height x width (px)")


def _height_axis(axes: Axes, records: Sequence[Record]) -> None:
    at = _grouped(records, copy_height)
    heights, words = list(at), [f"{height}\nn={_persons(own)}" for height, own in at.items()]
    octaves = math.log2(heights[-1] / heights[0]) + 0.7
    if any(math.log2(b / a) < octaves / 14 for a, b in itertools.pairwise(heights)):
        # too near for labels of this size side by side
        words[1::2] = [f"\n\n{word}" for word in words[1::2]]
    axes.set_xscale("log", base=2)
    axes.set_xlim(heights[0] / 2**0.35, heights[-1] * 2**0.35)
    axes.set_xticks(heights, words, fontsize=8)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("height of the annotated box (px)")


def _ap_axis(axes: Axes) -> None:
    """From 0 to a little above the largest AP drawn."""
    axes.set_ylabel("AP (%)")
    top = max(float(axes.dataLim.ymax), 10.0)
    axes.set_ylim(0, min(100, 10 * math.ceil((top + 3) / 10)))
    axes.grid(axis="y", color="0.9")


def _handle(label: str, colour: str, marker: str, line: LineStyle) -> Line2D:
    hollow = line == "--"
    return Line2D(
        [], [], color=colour, marker=marker, linestyle=line, ms=8 if hollow else 7, mfc="none" if hollow else colour,
        label="\n".join(textwrap.wrap(label, 38)),
    )  # fmt: skip


def _data(lines: Sequence[Line]) -> str:
    records = [record for line in lines for record in line.records]
    protocol = records[0].protocol
    splits = {record.protocol.split for record in records}
    persons = {record.counts.persons for record in records}
    split = " and ".join(sorted(splits))
    return data_in_words(protocol.dataset, split, persons.pop() if len(persons) == 1 else None)


def _of_copies(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if copy_note(record)]


def _source(record: Record) -> tuple[str, str]:
    """What a copy was made from: beginning of the hash of its annotation file, and split."""
    return str(copy_note(record)["source_sha256"])[:8], record.protocol.split


def _copies(lines: Sequence[Line]) -> str:
    """What the copies of a figure were made from; folders' names say nothing, and this is not the source itself."""
    record = lines[0].records[0]
    digest, split = _source(record)
    return f"{split} of low-resolution copies of {copy_note(record)['source']} (sha256 {digest})"


def _persons(records: Iterable[Record]) -> str:
    return counted(record.counts.persons for record in records)


def counted(persons: Iterable[int]) -> str:
    """One number where all agree: ``709``, else ``709 or 710``."""
    return " or ".join(map(str, sorted(set(persons))))


def _datasets(lines: Sequence[Line], sweep: Sweep) -> str:
    """Names of the copies, in the order of their places."""
    records = sorted((record for line in lines for record in line.records), key=sweep.place)
    return f"data {', '.join(dict.fromkeys(record.protocol.dataset for record in records))}"


def _grouped(records: Iterable[Record], key: Callable[[Record], K]) -> dict[K, list[Record]]:
    """Records by a key, in its order."""
    groups: dict[K, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return dict(sorted(groups.items()))


def _repeats(lines: Sequence[Line], place: Callable[[Record], X]) -> str:
    """What became of several records of one line and place, in words."""
    seeds = {record.provenance.seed for line in lines for record in line.records}
    named = sorted(seed for seed in seeds if seed is not None)
    words = [f"seed {', '.join(map(str, named))}"] if named else []
    if any(len(records) > 1 for line in lines for records in line.points(place).values()):
        words = ["mean over seeds, whiskers from worst to best"]
    superseded = sum(line.superseded for line in lines)
    if superseded:
        words.append(f"the latest record of each seed counts, {superseded} earlier left out")
    return "; ".join(words)


def _intervals(lines: Sequence[Line]) -> list[str]:
    """What the wide bars are, where there are any."""
    measured = any("ap" in record.ci95 for line in lines for record in line.records)
    return [_intervals_in_words(lines)] if measured else []


def _intervals_in_words(lines: Sequence[Line]) -> str:
    several = any(len({record.provenance.seed for record in line.records}) > 1 for line in lines)
    return f"{INTERVALS}, of several seeds the mean of their ends" if several else INTERVALS


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=DPI)  # no pyplot: nothing global, no window


def _finish(
    figure: Figure, axes: Axes, title: str, shared: Sequence[str], repeats: str, handles: Sequence[Artist]
) -> None:
    # both stay clear of the legend, whose labels are wrapped too
    room = figure.get_figwidth() - 2.8
    heading = "\n".join(textwrap.wrap(title, int(9.4 * room), break_on_hyphens=False))
    details = "; ".join(filter(None, [*shared, repeats]))
    wrapped = textwrap.wrap(details, int(13 * room), break_on_hyphens=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    points, gap = 8, 0.9
    lines = sum(str(handle.get_label()).count("\n") + 1 for handle in handles)
    # an outside legend does not make room for itself below
    needed = 0.4 + points * (1.4 * lines + gap * len(handles)) / 72
    figure.set_figheight(max(figure.get_figheight(), needed))
    _arrange(
        axes,
        heading=figure.suptitle(heading, x=0.01, ha="left", fontsize=12, weight="bold"),
        details=axes.set_title("\n".join(wrapped), loc="left", fontsize=8, color="0.35", y=1.0),
        legend=figure.legend(
            handles=list(handles), loc="upper right", fontsize=points, frameon=False, labelspacing=gap, handlelength=3,
        ),
    )  # fmt: skip


def _arrange(axes: Axes, *, heading: Text, details: Text, legend: Legend) -> None:
    """Give the axes the room that is left below heading and details and beside the legend.

    Every text is measured once, and labels of axes are then fixed. Matplotlib's constrained layout does the same by
    measuring everything four times, twice per format, which took longer than drawing.
    """
    figure, renderer = axes.figure, Ruler(axes.figure.dpi)
    pad = MARGIN * figure.dpi / 72
    width, height = figure.bbox.size
    heading.set_y(1 - pad / height)
    above = heading.get_window_extent(renderer).height + details.get_window_extent(renderer).height + 4 * pad
    beside = width - legend.get_window_extent(renderer).x0 + 2 * pad
    axes.set_position((0.1, 0.1, 0.9 - beside / width, 0.9 - above / height))
    inner = axes.bbox.frozen()
    outer = Bbox.union(
        [
            *(box for axis in (axes.xaxis, axes.yaxis) if (box := axis.get_tightbbox(renderer)) is not None),
            *(text.get_window_extent(renderer) for text in axes.texts),
        ]
    )
    labels = inner.y0 - axes.xaxis.label.get_position()[1], inner.x0 - axes.yaxis.label.get_position()[0]
    left, bottom = pad + max(0, inner.x0 - outer.x0), pad + max(0, inner.y0 - outer.y0)
    right = width - beside - max(0, outer.x1 - inner.x1)
    axes.set_position((left / width, bottom / height, (right - left) / width, (height - above - bottom) / height))
    axes.xaxis.set_label_coords(0.5, -labels[0] / axes.bbox.height)
    axes.yaxis.set_label_coords(-labels[1] / axes.bbox.width, 0.5)


def _save_all(found: Sequence[Drawing], out: Path, formats: Sequence[Format]) -> None:
    """Draw and write figures, a share of them in every process.

    Raises:
        OSError: the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    ordered = sorted(found, key=lambda drawing: drawing.lines)
    count = max(1, min(_processors(), len(ordered) // FEWEST))
    own, *others = [ordered[number::count] for number in range(count)]
    processes = [
        multiprocessing.get_context("fork").Process(target=_save_or_exit, args=(share, out, formats))
        for share in others
    ]
    gc.freeze()  # records and modules stay, and need not be searched for garbage again and again
    for process in processes:
        process.start()
    try:
        _save_each(own, out, formats)
        for process, share in zip(processes, others, strict=True):
            process.join()
            if process.exitcode:  # drawn here, its error can be told
                _save_each(share, out, formats)
    finally:
        gc.unfreeze()
        for process in processes:
            process.terminate()


def _processors() -> int:
    """How many processes may draw: one where this one must not fork, which threads of others do not survive."""
    safe = sys.platform == "linux" and "torch" not in sys.modules and threading.active_count() == 1
    return len(os.sched_getaffinity(0)) if safe and not multiprocessing.current_process().daemon else 1


def _save_or_exit(drawings: Sequence[Drawing], out: Path, formats: Sequence[Format]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is told by the parent
    try:
        _save_each(drawings, out, formats)
    except Exception:
        sys.exit(1)


def _save_each(drawings: Sequence[Drawing], out: Path, formats: Sequence[Format]) -> None:
    for drawing in drawings:
        figure = drawing.draw()
        for kind in formats:
            WRITERS[kind](figure, out / f"{drawing.name}.{kind}")


def save_svg(figure: Figure, out: Path, name: str) -> Path:
    """Write ``<name>.svg``; the same records give the same file.

    Raises:
        OSError: the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.svg"
    write_svg(figure, path)
    return path


def _by_size(res: str) -> tuple[int, int]:
    size = Size.parse(res) if res else None
    return (size.height, size.width) if size else (0, 0)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "data"
