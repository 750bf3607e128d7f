"""Figures from records: AP over resolution, and AP per keypoint.

A line joins records that differ in nothing but size and seed. Whatever else differs between the lines of a figure
stands in their labels; what all of them share stands in the title. Measured is solid and filled, reported is dashed
and hollow.
"""

from __future__ import annotations

import math
import re
import statistics
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lrbench.geometry import Size
from lrbench.recipes import RECIPES, load_recipe
from lrbench.records import Protocol, Record, Training, newest, read_records
from lrbench.report.reported import (
    Reported,
    abbreviated,
    data_in_words,
    degradation_in_words,
    find,
    reported_boxes,
)
from lrbench.structures import Rescoring

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette without its yellow, which is too pale for lines on white; told apart by the colour blind."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
"""Nine markers to seven colours, so that pairs repeat only after 63 lines."""

DPI = 150

LineStyle = Literal["-", "--", "none"]
"""Measured, reported, and points that no line joins."""


@dataclass(frozen=True)
class Line:
    """Records that differ in nothing but size and seed.

    Attributes:
        method: its name.
        components: kind of difference -> its words, everything that decides a number besides size and seed.
        records: one per size and seed.
    """

    method: str
    components: Mapping[str, str]
    records: tuple[Record, ...]

    @property
    def sizes(self) -> list[Size]:
        """Sizes of its crops, smallest first."""
        return sorted({Size.parse(record.call.res) for record in self.records if record.call.res})

    def at(self, size: Size) -> list[Record]:
        """Records of one size, one per seed."""
        return [record for record in self.records if record.call.res == str(size)]


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
    keypoint's OKS alone. Records without AP, or without keypoint AP, are left out of the figure concerned; superseded
    ones of both.

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
    for dataset in sorted({record.protocol.dataset for record in records}):
        mine = [record for record in records if record.protocol.dataset == dataset and record.status == "done"]
        scored = [record for record in mine if record.metrics.ap is not None and record.call.res]
        if scored:
            written += _save(_over_resolution(lines_of(scored), labels), out, f"ap_over_resolution_{_slug(dataset)}")
        detailed = [record for record in mine if any(ap is not None for ap in record.keypoint_ap.values())]
        for res in sorted({record.call.res for record in detailed}, key=_by_size):
            lines = lines_of(record for record in detailed if record.call.res == res)
            written += _save(_per_keypoint(lines), out, f"per_keypoint_{_slug(dataset)}_{res or 'any'}")
    if not written:
        raise ValueError(f"results folder {results}: {len(records)} records, none with an AP to draw")
    return written


def lines_of(records: Iterable[Record]) -> list[Line]:
    """Group records into lines; of several with the same seed at the same size the latest counts.

    Settings of a method may follow the crop's size, so they divide a line only where they differ at one size.
    """
    by_protocol: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        key = (record.call.name, tuple(_protocol_components(record).items()))
        by_protocol.setdefault(key, []).append(record)
    lines = []
    for (method, components), members in by_protocol.items():
        varying = _varying_settings(members)
        groups: dict[str, list[Record]] = {}
        for record in members:
            settings = _settings(record)
            words = ", ".join(f"{n}={settings[n]}" if n in settings else f"no {n}" for n in varying)
            groups.setdefault(words, []).append(record)
        for words, group in sorted(groups.items()):
            latest: dict[tuple[str, int | None], Record] = {}
            for record in sorted(group, key=lambda r: (r.provenance.utc, r.key)):
                latest[record.call.res, record.provenance.seed] = record
            lines.append(Line(method, {**dict(components), "settings": words}, tuple(latest.values())))
    return sorted(lines, key=lambda line: (line.method, tuple(line.components.values())))


def line_labels(lines: Sequence[Line]) -> tuple[list[str], list[str]]:
    """Labels of lines, and what all lines share.

    Returns:
        One label per line: the method, and every component in which any two lines of the figure differ; hashes only
        where nothing else tells two lines apart. And the words of the components that all lines share.
    """
    kinds = [kind for kind in lines[0].components if not kind.endswith("hash")]
    hashes = [kind for kind in lines[0].components if kind.endswith("hash")]
    shown, shared = [], []
    for kind in kinds:
        values = {line.components[kind] for line in lines} - {""}
        if len(values) > 1 or kind == "settings":
            shown.append(kind)
        elif values and kind != "split":  # the title names the split
            shared.append(values.pop())
    for kind in hashes:
        if len({_told(line, [*shown, kind]) for line in lines}) > len({_told(line, shown) for line in lines}):
            shown.append(kind)
    labels = [", ".join(word for word in _told(line, shown) if word) for line in lines]
    return labels, shared


def _told(line: Line, kinds: Sequence[str]) -> tuple[str, ...]:
    """What a label with these components says of a line."""
    return (line.method, *(line.components[kind] for kind in kinds))


def _protocol_components(record: Record) -> dict[str, str]:
    """Everything besides method, settings, size and seed that decides a number, in words; empty for not applicable."""
    protocol, training, call = record.protocol, record.training, record.call
    size = Size.parse(call.res) if call.res else None
    degradation = degradation_in_words(protocol.degradation)
    components = {
        "split": protocol.split,
        "boxes": "GT boxes" if protocol.boxes == "gt" else f"boxes from {protocol.boxes}",
        "flip": "flip test" if protocol.flip else "no flip test",
        "degradation": "plain crops" if degradation == "paper" else f"pixels: {degradation}",
        "scoring": _scoring(protocol),
        "referee": f"scored by {protocol.referee}",
        "shape": f"crops {_shape(size)}" if size else "",
        "backbone": call.backbone,
        "sr": "no upscaler" if call.sr in ("", "none") else f"upscaler {call.sr}",
        "training": "untrained",
        "epochs": "",
        "start": "",
        "trained on": "",
    }
    if training is not None and training.recipe != "none":
        components |= {
            "training": f"recipe {training.recipe}",
            "epochs": _epochs(training, size),
            "start": f"from {abbreviated(training.start)}",
            "trained on": f"trained on {training.persons} persons of {training.data}",
        }
    return components | {
        "data hash": f"data {protocol.data_hash[:8]}",
        "boxes hash": f"boxes {protocol.boxes_hash[:8]}" if protocol.boxes_hash else "",
        "training data hash": f"training data {training.data_hash[:8]}" if training else "",
    }


USUAL_NMS = Protocol.model_fields["oks_nms"].default


def _scoring(protocol: Protocol) -> str:
    """How persons are scored and suppressed, where it is not the usual rule."""
    rule = Rescoring(protocol.rescoring, protocol.rescoring_form)
    words = "" if rule == Rescoring() else f"rescoring {rule.form} {rule.confident:g}"
    return ", ".join(filter(None, [words, "" if protocol.oks_nms == USUAL_NMS else f"NMS {protocol.oks_nms:g}"]))


def _epochs(training: Training, size: Size | None) -> str:
    """How long was trained, where it is not what the recipe itself has for the size."""
    own = training.numbers.get("epochs") is None
    if size is not None and training.recipe in RECIPES:
        own = own or load_recipe(training.recipe, size).epochs == training.epochs
    return "its own epochs" if own else f"{training.epochs} epochs"


def _settings(record: Record) -> dict[str, str]:
    """Every number of method, decoder and recipe that may follow the size, nested ones by their path."""
    call = _flat(record.call.settings)
    # the decoder repeats settings of the method
    decoder = {name: v for name, v in _flat(record.protocol.decoder).items() if name.rpartition(".")[2] not in call}
    recipe = {**_flat(record.training.numbers), "batch": str(record.training.batch)} if record.training else {}
    return {**decoder, **recipe, "align": record.protocol.align, **call}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = f"{value:g}" if isinstance(value, float) else str(value)
    return flat


def _varying_settings(records: Sequence[Record]) -> list[str]:
    varying: dict[str, None] = {}
    for res in dict.fromkeys(record.call.res for record in records):
        here = [_settings(record) for record in records if record.call.res == res]
        for name in dict.fromkeys(name for settings in here for name in settings):
            if len({settings.get(name) for settings in here}) > 1:
                varying[name] = None
    return sorted(varying)


def _over_resolution(lines: Sequence[Line], labels: Callable[[str], Sequence[str]]) -> Figure:
    names, shared = line_labels(lines)
    sizes = sorted({size for line in lines for size in line.sizes})
    reported = _reported_series(lines, sizes, labels)
    figure = _figure(10, max(4.8, 1.2 + 0.42 * (len(lines) + len(reported))))
    axes = figure.add_subplot()
    handles = []
    for number, (line, name, (colour, marker)) in enumerate(zip(lines, names, _styles(lines), strict=True)):
        # a little to the side, at most 1/14 of an octave, so that equal numbers do not hide each other
        aside = 2 ** ((number - (len(lines) - 1) / 2) / (7 * max(4, len(lines))))
        aps = [[100 * r.metrics.ap for r in line.at(s) if r.metrics.ap is not None] for s in line.sizes]
        _draw_means(axes, [s.height * aside for s in line.sizes], aps, colour, marker, "-")
        handles.append(_handle(name, colour, marker, "-"))
        for series in (s for s in reported if s.line is line):
            values = [100 * row.ap for row in series.rows if row.ap is not None]
            heights = [row.size.height * aside for row in series.rows if row.size is not None]
            # hollow and larger: a ring where it meets the measured point
            axes.plot(heights, values, "--", color=colour, marker=marker, mfc="none", ms=9, lw=1.3, zorder=4)
            handles.append(_handle(f"{line.method}: {series.words}", colour, marker, "--"))
    _resolution_axis(axes, sizes)
    axes.set_ylabel("AP (%)")
    top = max([*(y for line in axes.get_lines() for y in _numbers(line.get_ydata())), 10.0])
    axes.set_ylim(0, min(100, 10 * math.ceil((top + 3) / 10)))
    axes.grid(axis="y", color="0.9")
    title = f"AP over resolution, measured on {_data(lines)}"
    if reported:
        shared = [*shared, "dashed and hollow: reported by papers, not measured here"]
    _finish(figure, axes, title, shared, _seeds(lines), handles)
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
    _finish(figure, axes, title, shared, _seeds(lines), handles)
    return figure


def _reported_series(
    lines: Sequence[Line], sizes: Sequence[Size], labels: Callable[[str], Sequence[str]]
) -> list[Series]:
    """Reported curves at the measured sizes; one per method, source, backbone and kind of boxes."""
    series: list[Series] = []
    for line in lines:
        call = line.records[0].call
        groups: dict[tuple[str, str], list[Reported]] = {}
        for size in (size for size in sizes if _shape(size) in {_shape(own) for own in line.sizes}):
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


def _draw_means(
    axes: Axes, x: Sequence[float], groups: Sequence[Sequence[float]], colour: str, marker: str, line: LineStyle
) -> None:
    means = [statistics.fmean(group) for group in groups]
    below = [max(0.0, mean - min(group)) for mean, group in zip(means, groups, strict=True)]
    above = [max(0.0, max(group) - mean) for mean, group in zip(means, groups, strict=True)]
    whiskers = [below, above] if any(len(group) > 1 for group in groups) else None
    axes.errorbar(
        x, means, yerr=whiskers, color=colour, marker=marker, linestyle=line, ms=7, lw=1.8, capsize=4, zorder=3
    )


def _resolution_axis(axes: Axes, sizes: Sequence[Size]) -> None:
    at: dict[int, list[str]] = {}
    for size in sizes:
        at.setdefault(size.height, []).append(str(size))
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(at) / 2**0.35, max(at) * 2**0.35)
    axes.set_xticks(list(at), ["\n".join(names) for names in at.values()])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("crop, height x width (px)")


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


def _seeds(lines: Sequence[Line]) -> str:
    seeds = {record.provenance.seed for line in lines for record in line.records}
    several = any(len(line.at(size)) > 1 for line in lines for size in line.sizes)
    if several:
        return "mean over seeds, whiskers from worst to best"
    named = sorted(seed for seed in seeds if seed is not None)
    return f"seed {', '.join(map(str, named))}" if named else ""


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: nothing global, no window
    return figure


def _finish(
    figure: Figure, axes: Axes, title: str, shared: Sequence[str], seeds: str, handles: Sequence[Line2D]
) -> None:
    details = "; ".join([*shared, *([seeds] if seeds else [])])
    columns = int(figure.get_figwidth() * 13)
    heading = "\n".join(textwrap.wrap(title, columns))
    figure.suptitle(heading, x=0.01, ha="left", fontsize=12, weight="bold")
    axes.set_title("\n".join(textwrap.wrap(details, columns - 36)), loc="left", fontsize=8, color="0.35")
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


def _shape(size: Size) -> str:
    """Height to width in lowest terms: 4:3."""
    ratio = Fraction(size.height, size.width)
    return f"{ratio.numerator}:{ratio.denominator}"


def _by_size(res: str) -> tuple[int, int]:
    size = Size.parse(res) if res else None
    return (size.height, size.width) if size else (0, 0)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "data"


def _numbers(values: Any) -> list[float]:
    return [float(value) for value in values]
