"""Figures from records: AP over resolution, over the severity of a degradation, over person height, and per keypoint.

What one line joins and what its label says: `lrbench.report.lines`. What all lines of a figure share stands below its
title. Measured is solid and filled, reported is dashed and hollow.
"""

from __future__ import annotations

import itertools
import math
import re
import statistics
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lrbench.corruptions.corruption import SEVERITIES
from lrbench.geometry import Size
from lrbench.records import Record, newest, read_records
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
from lrbench.report.reported import PLAIN_CROPS, Reported, data_in_words, find, reported_boxes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette without its yellow, which is too pale for lines on white; told apart by the colour blind."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
"""Nine markers to seven colours, so that pairs repeat only after 63 lines."""

DPI = 150

K = TypeVar("K", int, tuple[Any, ...])

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


def plot(results: Path, out: Path | None = None, *, labels: Callable[[str], Sequence[str]] = no_labels) -> list[Path]:
    """Draw figures from all records below a folder, as PNG and SVG.

    ``ap_over_resolution_<dataset>`` has AP over the height of the crop, mean over seeds with whiskers from the worst
    to the best, and what is reported for the same methods. ``per_keypoint_<dataset>_<HxW>`` has AP with one
    keypoint's OKS alone.

    ``ap_over_severity_<dataset>_<HxW>_<preset>`` has AP over the severity of the preset that cut the crops, where
    there are two for one line. Likewise on copies that `lrbench degrade` made of the same data, named by the beginning
    of the hash of its annotation file: ``ap_over_severity_copies-<hash>_<split>_<amount>_<HxW>_<preset>`` over the
    severity of theirs, and ``ap_over_person_height_copies-<hash>_<split>_<preset>_<HxW>`` over the height of the
    persons.

    Records without AP, or without keypoint AP, are left out of the figure concerned; superseded ones of all.

    Args:
        results: folder of records.
        out: folder for the figures, made if need be; ``results/figures`` when None.
        labels: names under which papers report a method, given the method's own name.

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
    written = []
    done = [record for record in records if record.status == "done"]
    scored = [record for record in done if record.metrics.ap is not None and record.call.res]
    for dataset in sorted({record.protocol.dataset for record in done}):
        mine = [record for record in done if record.protocol.dataset == dataset]
        if sized := [record for record in scored if record.protocol.dataset == dataset]:
            written += _save(_over_resolution(lines_of(sized), labels), out, f"ap_over_resolution_{_slug(dataset)}")
        detailed = [record for record in mine if any(ap is not None for ap in record.keypoint_ap.values())]
        for res in sorted({record.call.res for record in detailed}, key=_by_size):
            lines = lines_of(record for record in detailed if record.call.res == res)
            written += _save(_per_keypoint(lines), out, f"per_keypoint_{_slug(dataset)}_{res or 'any'}")
    for name, figure in (*_crop_severities(scored), *_copy_severities(scored), *_heights(scored)):
        written += _save(figure, out, name)
    if not written:
        raise ValueError(f"results folder {results}: {len(records)} records, none with an AP to draw")
    return written


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
        _draw_means(axes, [s.height * aside for s in points], _aps(points.values()), colour, marker, "-")
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
    _finish(figure, axes, title, shared, _repeats(lines, size_of), handles)
    return figure


def _crop_severities(records: Sequence[Record]) -> Iterator[tuple[str, Figure]]:
    """Figures over the severity of the preset that cut the crops, and their names."""
    where = _grouped(records, lambda record: (record.protocol.dataset, record.call.res))
    for (dataset, res), here in where.items():
        for preset, lines in _swept(here, CROP_SEVERITY, crop_preset):
            title = f"AP over severity of {preset} at {res}, measured on {_data(lines)}"
            figure = _over_severity(lines, CROP_SEVERITY, title, plain="plain crops")
            yield f"ap_over_severity_{_slug(dataset)}_{res}_{_slug(preset)}", figure


def _copy_severities(records: Sequence[Record]) -> Iterator[tuple[str, Figure]]:
    """Figures over the severity of the preset that made the scored copies, and their names."""
    where = _grouped(_of_copies(records), lambda record: (*_source(record), copy_amount(record), record.call.res))
    for (source, split, amount, res), here in where.items():
        for preset, lines in _swept(here, COPY_SEVERITY, copy_preset):
            title = f"AP over severity of {preset}, {amount}, at {res}, measured on {_copies(lines)}"
            name = f"ap_over_severity_copies-{source}_{_slug(split)}_{_slug(amount)}_{res}_{_slug(preset)}"
            notes = [f"{_persons(here)} persons", _datasets(lines, COPY_SEVERITY)]
            yield name, _over_severity(lines, COPY_SEVERITY, title, notes, plain="plain copies")


def _heights(records: Sequence[Record]) -> Iterator[tuple[str, Figure]]:
    """Figures over the height of the persons in the scored copies, and their names."""
    copies = [record for record in _of_copies(records) if copy_note(record)["level"] == "height"]
    where = _grouped(copies, lambda record: (*_source(record), copy_preset(record), record.call.res))
    for (source, split, (preset, severity), res), here in where.items():
        lines = lines_over(COPY_HEIGHT, here)
        if any(len(line.points(copy_height)) > 1 for line in lines):
            words = f"{preset} severity {severity}" if severity else preset
            title = f"AP over person height at {res}, {words}, measured on {_copies(lines)}"
            name = f"ap_over_person_height_copies-{source}_{_slug(split)}_{_slug(words)}_{res}"
            yield name, _over_height(lines, title)


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
        _draw_means(axes, [place + aside for place in swept], _aps(swept.values()), colour, marker, "-")
        if PLAIN in points:
            _draw_means(axes, [PLAIN + aside], _aps([points[PLAIN]]), colour, marker, "none", hollow=True)
        handles.append(_handle(name, colour, marker, "-"))
    has_plain = any(PLAIN in line.points(sweep.place) for line in lines)
    ticks = {**({PLAIN: "plain"} if has_plain else {}), **{severity: str(severity) for severity in SEVERITIES}}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xlim(min(ticks) - 0.4, max(ticks) + 0.4)
    axes.set_xlabel("severity, 1 (mild) to 5 (hard)")
    _ap_axis(axes)
    open_points = [f"open: {plain}, preset {' or '.join(PLAIN_CROPS)}"] if has_plain else []
    _finish(figure, axes, title, [*shared, *notes, *open_points], _repeats(lines, sweep.place), handles)
    return figure


def _over_height(lines: Sequence[Line], title: str) -> Figure:
    names, shared = line_labels(lines)
    figure = _figure(10, max(4.8, 1.2 + 0.42 * len(lines)))
    axes = figure.add_subplot()
    handles = []
    for number, (line, name, (colour, marker)) in enumerate(zip(lines, names, _styles(lines), strict=True)):
        points = line.points(copy_height)
        aside = _aside(number, len(lines))
        _draw_means(axes, [height * aside for height in points], _aps(points.values()), colour, marker, "-")
        handles.append(_handle(name, colour, marker, "-"))
    _height_axis(axes, [record for line in lines for record in line.records])
    _ap_axis(axes)
    left_out = "n persons scored: those who are not higher in the photograph are left out"
    _finish(
        figure, axes, title, [*shared, _datasets(lines, COPY_HEIGHT), left_out], _repeats(lines, copy_height), handles
    )
    return figure


def _per_keypoint(lines: Sequence[Line]) -> Figure:
    names, shared = line_labels(lines)
    keypoints = list(dict.fromkeys(name for line in lines for record in line.records for name in record.keypoint_ap))
    figure = _figure(12, max(4.8, 1.4 + 0.42 * len(lines)))
    axes = figure.add_subplot()
    handles = []
    step = 0.8 / len(lines)
    for number, (line, name, (colour, marker)) in enumerate(zip(lines, names, _styles(lines), strict=True)):
        handles.append(_handle(name, colour, marker, "none"))
        for position, keypoint in enumerate(keypoints):
            x = position + (number - (len(lines) - 1) / 2) * step
            found = [record.keypoint_ap.get(keypoint) for record in line.records]
            aps = [100 * ap for ap in found if ap is not None]
            if aps:
                _draw_means(axes, [x], [aps], colour, marker, "none")
            else:
                # an empty place would read as zero
                axes.annotate("-", (x, 0), (0, 4), textcoords="offset points", color=colour, ha="center", size=15)
    for position in range(0, len(keypoints), 2):
        axes.axvspan(position - 0.5, position + 0.5, color="0.95", zorder=0)
    words = [keypoint.replace("_", " ") for keypoint in keypoints]
    axes.set_xticks(range(len(keypoints)), words, rotation=40, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.5, len(keypoints) - 0.5)
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


def _reported_series(
    lines: Sequence[Line], sizes: Sequence[Size], labels: Callable[[str], Sequence[str]]
) -> list[Series]:
    """Reported curves at the measured sizes; one per method, source, backbone and kind of boxes."""
    series: list[Series] = []
    for line in lines:
        call = line.records[0].call
        groups: dict[tuple[str, str], list[Reported]] = {}
        for size in (size for size in sizes if shape_of(size) in {shape_of(own) for own in line.points(size_of)}):
            row = find(labels(line.method), call.backbone, size, call.sr or "none")
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


def _aps(points: Iterable[Sequence[Record]]) -> list[list[float]]:
    """AP of the records of every point, percent."""
    return [[100 * record.metrics.ap for record in records if record.metrics.ap is not None] for records in points]


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
    top = max([*(y for line in axes.get_lines() for y in _numbers(line.get_ydata())), 10.0])
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


def _persons(records: Sequence[Record]) -> str:
    return " or ".join(map(str, sorted({record.counts.persons for record in records})))


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


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: nothing global, no window
    return figure


def _finish(
    figure: Figure, axes: Axes, title: str, shared: Sequence[str], repeats: str, handles: Sequence[Line2D]
) -> None:
    # both stay clear of the legend, whose labels are wrapped too
    columns = int(10 * (figure.get_figwidth() - 2.8))
    heading = "\n".join(textwrap.wrap(title, columns, break_on_hyphens=False))
    figure.suptitle(heading, x=0.01, ha="left", fontsize=12, weight="bold")
    details = "; ".join(filter(None, [*shared, repeats]))
    wrapped = textwrap.wrap(details, int(1.3 * columns), break_on_hyphens=False)
    axes.set_title("\n".join(wrapped), loc="left", fontsize=8, color="0.35")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    points, gap = 8, 0.9
    lines = sum(str(handle.get_label()).count("\n") + 1 for handle in handles)
    # an outside legend does not make room for itself below
    needed = 0.4 + points * (1.4 * lines + gap * len(handles)) / 72
    figure.set_figheight(max(figure.get_figheight(), needed))
    figure.legend(
        handles=list(handles), loc="outside right upper", fontsize=points, frameon=False, labelspacing=gap,
        handlelength=3,
    )  # fmt: skip


def _save(figure: Figure, out: Path, name: str) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{name}.png", out / f"{name}.svg"]
    figure.savefig(paths[0])
    # without a date and with fixed ids, the same records give the same file
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def _by_size(res: str) -> tuple[int, int]:
    size = Size.parse(res) if res else None
    return (size.height, size.width) if size else (0, 0)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "data"


def _numbers(values: Any) -> list[float]:
    return [float(value) for value in values]
