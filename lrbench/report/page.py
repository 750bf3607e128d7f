"""One self-contained HTML page from records: leaderboard, plots, and a page per method. It needs no network.

Rows that were scored under one protocol form a group with a letter, and a heading in words. What a plot may join by a
line is what `lrbench.report.lines` joins, in one group. Rows are written as HTML, so the tables can be read without
JavaScript; everything else is drawn by the page itself from the JSON in it. Everything from records is escaped, and the
page's security policy lets no script run but its own.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lrbench import published
from lrbench.datasets.images import DataError
from lrbench.geometry import Size
from lrbench.method import Listing, list_methods, load_method, reported_labels
from lrbench.records import Record, newest, read_records, record_path, write_atomic
from lrbench.report.lines import Line, at_one_size, line_labels, lines_of, size_of
from lrbench.report.numbers import ABSENT, METRIC_COLUMNS, interval, metric_heading, percent
from lrbench.report.plots import COLOURS, ERROR_COLOURS, MARKERS
from lrbench.report.reported import (
    PERCENTAGES,
    comparison,
    data_in_words,
    find,
    has_reported_measure,
    table_in_words,
)
from lrbench.report.sketches import Read, Sketches, sketches
from lrbench.report.tables import letters
from lrbench.structures import POSES, Rescoring

PROTOCOL = (
    "boxes", "flip", "crops", "severity", "copy", "copy severity", "copy height", "numbers", "referee",
)  # fmt: skip
"""Kinds of components (`lrbench.report.lines.Line`) that the rows of a group share."""

HASHES = ("data hash", "boxes hash")
"""Further ones, told only where two groups would read the same."""

TRAINING = ("training", "epochs", "start", "trained on", "trained pixels")
"""Kinds of components that say how a row was trained."""

FOREIGN = "predictions"
"""Name of the method in records of result files of other tools; their protocol is not known."""

WHITE_FOR_BLACK = {"#000000": "#FFFFFF"}
"""Colours of lines that a dark background needs."""

Beside = Callable[[Record], dict[str, Any] | None]
"""What is reported for a record, as `lrbench.report.reported.comparison` tells it; None for nothing."""


@dataclass(frozen=True)
class Row:
    """A row of the leaderboard.

    Attributes:
        record: what it shows.
        components: of its line.
        reported: what papers report for it, or None.
    """

    record: Record
    components: Mapping[str, str]
    reported: dict[str, Any] | None

    @property
    def settings(self) -> str:
        """Those in which it differs from a row that is otherwise alike; the file of a result of another tool."""
        call = self.record.call
        return str(call.settings.get("file", "")) if call.name == FOREIGN else self.components["settings"]

    @property
    def upscaler(self) -> str:
        """In front of the network; empty for none."""
        return "" if self.record.call.sr in ("", "none") else self.record.call.sr

    @property
    def front(self) -> str:
        """The upscaler, and what the network behind it was trained on; empty for none."""
        return ", ".join(filter(None, (self.upscaler, self.record.call.pose)))

    @property
    def training(self) -> str:
        """How the network was trained, in words; empty for results of other tools."""
        if self.record.call.name == FOREIGN:
            return ""
        return ", ".join(filter(None, (self.components[kind] for kind in TRAINING)))

    @property
    def costs(self) -> dict[str, float | None]:
        """Of upscaler and network together: millions of parameters, GMACs, milliseconds, crops per second."""
        cost = self.record.cost
        return {
            "params": None if cost.params is None else (cost.params + cost.params_sr) / 1e6,
            "macs": None if cost.macs is None else (cost.macs + cost.macs_sr) / 1e9,
            "latency": cost.latency_ms,
            "speed": cost.eval_images_per_second,
        }

    @property
    def metrics(self) -> dict[str, float | None]:
        """All metrics as fractions, those of other protocols behind COCO's."""
        return {**self.record.metrics.model_dump(), **self.record.further}

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals over images, by metric."""
        return {**self.record.ci95, **self.record.further_ci95}

    @property
    def notes(self) -> list[str]:
        """What sets its number apart from those of its group, a footnote each."""
        record = self.record
        if record.status != "done":
            return [f"failed: {record.reason.strip() or 'no reason given'}"]
        rule = Rescoring(record.protocol.rescoring, record.protocol.rescoring_form)
        return [rule.in_words] if rule.in_words and record.call.name != FOREIGN else []


@dataclass(frozen=True)
class Group:
    """Rows of one protocol.

    Attributes:
        letter: that marks them.
        words: the protocol.
        rows: best first.
        lines: what plots may join.
        drawn: persons as the rows' networks see them.
    """

    letter: str
    words: str
    rows: tuple[Row, ...]
    lines: tuple[Line, ...]
    drawn: Sketches | None = None

    @property
    def metric(self) -> str:
        """That rows are ranked by: AP, or the first that a row has."""
        return _ranked_by(self.rows)


@dataclass(frozen=True)
class Column:
    """One column of the leaderboard.

    Attributes:
        name: in links.
        heading: as printed.
        title: the heading in full.
        number: sorted by number, largest first; else by text.
    """

    name: str
    heading: str
    title: str
    number: bool = True


@dataclass
class Notes:
    """Footnotes and the letters that stand for them."""

    marks: dict[str, str] = field(default_factory=dict)

    def letters(self, texts: Iterable[str]) -> str:
        """Letters of some notes in their order, separated by commas; equal notes share one."""
        own = {self.marks.setdefault(text, letters(len(self.marks))) for text in texts}
        return ",".join(letter for letter in self.marks.values() if letter in own)


@dataclass
class Pool:
    """Values that many rows share, each kept once."""

    values: list[Any] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)

    def add(self, value: Any) -> int:
        """Place of a JSON value."""
        place = self.places.setdefault(json.dumps(value, sort_keys=True), len(self.values))
        if place == len(self.values):
            self.values.append(value)
        return place


def nothing_reported(record: Record) -> None:
    """For records about which nothing is reported."""


def no_predictions(record: Record) -> None:
    """For records without predictions."""


def write_page(results: Path, out: Path) -> Path:
    """Write ``index.html`` from all records below a folder, with what papers report beside them.

    Args:
        results: folder of records.
        out: folder of the page, made if need be.

    Returns:
        The file.

    Raises:
        ValueError: no record below the folder, or a file that should be a record is none.
        DataError: predictions beside a record are damaged.
        OSError: the folder cannot be written.
    """
    records = newest(read_records(results))
    if not records:
        raise ValueError(f"results folder {results}: no records; make some with lrbench eval or lrbench compare")
    read = partial(read_predictions, results)
    text = page(records, methods=list_methods(), beside=reported_beside, predictions=read)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "index.html", text.encode())
    return out / "index.html"


def page(
    records: Sequence[Record],
    *,
    methods: Sequence[Listing] = (),
    beside: Beside = nothing_reported,
    predictions: Read = no_predictions,
) -> str:
    """The page.

    Args:
        records: none superseded by another of the same key. Of several rows that differ in nothing but their time, the
            latest is shown, and the page says how many are not.
        methods: what is known of the records' methods.
        beside: what is reported for a record.
        predictions: of a record.
    """
    groups = groups_of(records, beside, predictions)
    shown = [row for group in groups for row in group.rows]
    columns = _columns(shown)
    notes, pool = Notes(), Pool()
    table = _table(groups, columns, notes)
    names = sorted({row.record.call.name for row in shown})
    data = {
        "columns": [column.name for column in columns],
        "numbers": [column.number for column in columns],
        "groups": [_group_data(group) for group in groups],
        "rows": [
            _row_data(row, number, columns, pool, group.drawn)
            for number, group in enumerate(groups)
            for row in group.rows
        ],
        "methods": names,
        "markers": MARKERS,
        "colours": len(COLOURS),
        "errors": list(ERROR_COLOURS),
    }
    data["pool"] = pool.values
    script, style = _asset("page.js"), f"{_palette()}\n{_asset('page.css')}"
    left_out = len(records) - len(shown)
    earlier = f", {left_out} earlier of the same rows left out" if left_out else ""
    sizes = sorted({Size.parse(row.record.call.res) for row in shown if row.record.call.res})
    times = sorted(row.record.provenance.utc for row in shown)
    return string.Template(_asset("page.html")).substitute(
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        style=style,
        script=script,
        summary=html.escape(
            f"{_counted(len(shown), 'record')} of {_counted(len(names), 'method')}{earlier}; newest {times[-1][:10]}"
        ),
        datasets=_options(sorted({row.record.protocol.dataset for row in shown})),
        sizes=_options(map(str, sizes)),
        upscalers=_options(sorted({row.upscaler or "none" for row in shown})),
        protocols=_options([(group.letter, f"{group.letter}: {group.words}") for group in groups]),
        table=table,
        legend=_definitions({group.letter: group.words for group in groups}),
        notes=_definitions({letter: text for text, letter in notes.marks.items()}),
        poses=_definitions({pose: POSES[pose] for pose in POSES if any(r.record.call.pose == pose for r in shown)}),
        methods=_method_list(names, methods, shown),
        articles="\n".join(_article(name, methods) for name in names),
        data=_embedded(data),
    )


def groups_of(records: Sequence[Record], beside: Beside, predictions: Read) -> list[Group]:
    """Records by protocol, data sets in order of their names; in each the largest group first.

    Args:
        records: to group.
        beside: what is reported for a record.
        predictions: of a record.
    """
    found: dict[tuple[str, ...], list[Line]] = {}
    for dataset in sorted({record.protocol.dataset for record in records}):
        for status in ("done", "failed"):  # a later failure does not replace a number
            mine = [r for r in records if r.protocol.dataset == dataset and r.status == status]
            for line in lines_of(mine):
                protocol = line.records[0].protocol
                foreign = FOREIGN if line.method == FOREIGN else ""
                shared = (line.components[kind] for kind in ("split", *PROTOCOL, *HASHES))
                found.setdefault((dataset, foreign, f"{protocol.oks_nms:g}", *shared), []).append(line)
    members = sorted(found.values(), key=lambda lines: (lines[0].records[0].protocol.dataset, -_records_in(lines)))
    told = Counter(_words(lines) for lines in members)
    groups = []
    for number, lines in enumerate(members):
        words = _words(lines)
        rows = [
            Row(record, at_one_size(replace(line, records=(record,))).components, beside(record))
            for line in lines
            for record in line.records
        ]
        done = [record for line in lines for record in line.records if record.status == "done"]
        metric = _ranked_by(rows)
        groups.append(
            Group(
                letters(number).upper(),
                words if told[words] == 1 else _words(lines, hashes=True),
                tuple(sorted(rows, key=partial(_rank, metric))),
                tuple(line for line in lines if line.records[0].status == "done"),
                sketches(done, predictions),
            )
        )
    return groups


def reported_beside(record: Record) -> dict[str, Any] | None:
    """What papers report for a record, and in what the protocols differ."""
    call = record.call
    if not call.res or call.name == FOREIGN or not has_reported_measure(record):
        return None
    size, differences = Size.parse(call.res), list[str]()
    try:
        method = load_method(call.name, size, call.backbone or None, **call.settings)
        row, differences = published.find(method, call.sr)
    except ValueError:  # of a plugin or another version, or composed for crops that an upscaler enlarges
        try:
            row = find(reported_labels(call.name), call.backbone, size, call.sr)
        except ValueError:
            return None
    return None if row is None else comparison(row, record, differences=differences)


def read_predictions(results: Path, record: Record) -> list[dict[str, Any]] | None:
    """Predictions that lie beside a record; None where there are none.

    Raises:
        DataError: the file is damaged.
    """
    path = record_path(results, record).with_name(f"{record.key}.predictions.json.gz")
    if not path.is_file():
        return None
    try:
        rows: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"predictions {path}: damaged ({error}); score the record again with lrbench eval") from None
    return rows


def _columns(rows: Sequence[Row]) -> list[Column]:
    """Those that any row has something for."""
    further = dict.fromkeys(name for row in rows for name in row.record.further)
    columns = [
        Column(
            "method",
            "Method",
            "with the settings in which a row differs from one that is otherwise alike",
            number=False,
        ),
        Column("res", "Size", "height x width of the crop, px"),
        Column(
            "sr", "Upscaler", "in front of the network, and what the network behind it was trained on", number=False
        ),
        Column("ap", "AP", "OKS average precision, %"),
        Column("ci95", "95 % interval", "of AP, or of what the row has instead, over images, %"),
        *(Column(name, heading, f"{heading}, %") for heading, name in METRIC_COLUMNS if name != "ap"),
        Column(
            "reported", "reported AP", "printed by a paper, not measured here; letters say how its protocol differs"
        ),
        *(Column(name, metric_heading(name), f"{metric_heading(name)}, %") for name in further),
        Column("params", "Params (M)", "million parameters of network and upscaler"),
        Column("macs", "GMACs", "billion multiply-adds for one crop, without its mirror image"),
        Column("latency", "ms", "latency of one crop: forward pass and decoding, median"),
        Column("speed", "images/s", "crops per second while scoring"),
        Column("backbone", "Backbone", "of the network", number=False),
        Column("training", "Training", "how the weights came about", number=False),
        Column("seed", "Seed", "of training"),
    ]
    needed = {"method", "res", "ap", "ci95"}
    texts = [_texts(row) for row in rows]
    return [c for c in columns if c.name in needed or any(text[c.name] != ABSENT for text in texts if c.name in text)]


def _texts(row: Row) -> dict[str, str]:
    """Cells of a row as printed, by column; without those of metrics it does not have."""
    record, costs = row.record, row.costs
    name = _ranked_by([row])
    told = "" if name == "ap" else f"{metric_heading(name)} "
    ends = row.intervals.get(name)
    cells = {
        "method": " ".join(filter(None, (record.call.name, row.settings))),
        "res": record.call.res,
        "sr": row.front,
        "ci95": f"{told}{interval(ends)}" if ends else "",
        **{name: percent(value) for name, value in row.metrics.items()},
        "reported": percent(row.reported["ap"]) if row.reported else "",
        "params": _decimals(costs["params"], 1),
        "macs": _decimals(costs["macs"], 3),
        "latency": _decimals(costs["latency"], 1),
        "speed": _decimals(costs["speed"], 0),
        "backbone": record.call.backbone,
        "training": row.training,
        "seed": "" if record.provenance.seed is None else str(record.provenance.seed),
    }
    return {name: text or ABSENT for name, text in cells.items()}


def _sort_values(row: Row, columns: Sequence[Column]) -> list[Any]:
    """What a row is sorted by in every column; None goes last in both directions."""
    texts, record = _texts(row), row.record
    size = Size.parse(record.call.res) if record.call.res else None
    values: dict[str, Any] = {
        **{name: _present(value) for name, value in row.metrics.items()},
        **row.costs,
        "res": size.height * size.width if size else None,
        "ci95": row.intervals.get(_ranked_by([row]), (None,))[0],
        "reported": row.reported["ap"] if row.reported else None,
        "seed": record.provenance.seed,
    }
    words = {c.name: None if texts[c.name] == ABSENT else texts[c.name].casefold() for c in columns if not c.number}
    return [_rounded(values.get(c.name)) if c.number else words[c.name] for c in columns]


def _table(groups: Sequence[Group], columns: Sequence[Column], notes: Notes) -> str:
    head = "".join(
        f'<th scope="col" class="{_kind(c)}" data-column="{html.escape(c.name)}" title="{html.escape(c.title)}">'
        f"{html.escape(c.heading)}</th>"
        for c in columns
    )
    lines = [f'<thead><tr><th scope="col" class="letter" title="protocol, see the legend">P</th>{head}</tr></thead>']
    number = 0
    for group in groups:
        words = html.escape(group.words)
        lines.append(
            f'<tbody data-group="{group.letter}"><tr class="group"><th scope="rowgroup" colspan="{len(columns) + 1}">'
        )
        lines.append(f"<span><b>{group.letter}</b> {words}</span></th></tr>")
        for row in group.rows:
            cells = "".join(_cell(row, texts, c, notes) for texts in [_texts(row)] for c in columns)
            failed = ' class="failed"' if row.record.status != "done" else ""
            lines.append(f'<tr data-row="{number}"{failed}><td class="letter">{group.letter}</td>{cells}</tr>')
            number += 1
        lines.append("</tbody>")
    return "\n".join(lines)


def _cell(row: Row, texts: Mapping[str, str], column: Column, notes: Notes) -> str:
    text = html.escape(texts.get(column.name, ABSENT))
    if column.name == "method":
        name, letters_of = row.record.call.name, notes.letters(row.notes)
        told = f'<a href="{_link("method", name, row.record.key)}">{html.escape(name)}</a>'
        marks = f" <sup>{letters_of}</sup>" if letters_of else ""
        settings = f"<small>{html.escape(row.settings)}</small>" if row.settings else ""
        # a narrow screen has no room for the column of upscalers
        front = f'<small class="narrow">{html.escape(row.front)}</small>' if row.front else ""
        return f'<th scope="row">{told}{marks}{settings}{front}</th>'
    if column.name == "reported" and row.reported:
        marks = notes.letters([*row.reported["protocol_differs"], _source(row.reported)])
        return f'<td class="number reported"><button type="button">{text} <sup>{marks}</sup></button></td>'
    return f'<td class="{_kind(column)}">{text}</td>'


def _kind(column: Column) -> str:
    kinds = ["number" if column.number else "text"]
    kinds += [column.name] if column.name in ("reported", "ap", "training", "sr") else []
    return " ".join(kinds)


def _group_data(group: Group) -> dict[str, Any]:
    cropped = [line for line in group.lines if line.records[0].call.res]
    labels, shared = line_labels(cropped) if cropped else ([], [])
    places = {row.record.key: number for number, row in enumerate(group.rows)}
    drawn = group.drawn
    lines = [
        {
            "method": line.method,
            "label": label,
            "points": [
                [str(size), size.height, [places[record.key] for record in members]]
                for size, members in line.points(size_of).items()
            ],
        }
        for line, label in zip(cropped, labels, strict=True)
    ]
    return {
        "letter": group.letter,
        "words": group.words,
        "shared": "; ".join(shared),
        "metric": group.metric,
        "heading": metric_heading(group.metric),
        "lines": lines,
        "drawn": drawn and {key: getattr(drawn, key) for key in ("reference", "images", "shares", "bones")},
    }


def _row_data(row: Row, group: int, columns: Sequence[Column], pool: Pool, drawn: Sketches | None) -> dict[str, Any]:
    """Everything the page shows of a row; metrics in percent, rounded far below what is printed."""
    record = row.record
    call, diagnosis = record.call, record.diagnosis
    intervals = row.intervals
    metrics = {
        metric_heading(name): [_percent(value), *map(_percent, intervals.get(name, ()))]
        for name, value in row.metrics.items()
        if _present(value) is not None
    }
    name = ", ".join(filter(None, (row.settings, row.upscaler, call.pose and f"pose {call.pose}")))
    data: dict[str, Any] = {
        "key": record.key,
        "group": group,
        "method": call.name,
        "name": name,
        "dataset": record.protocol.dataset,
        "res": call.res,
        "sr": row.upscaler or "none",
        "training": row.training,
        "backbone": call.backbone,
        "seed": record.provenance.seed,
        "notes": row.notes,
        "sort": _sort_values(row, columns),
        "metrics": metrics,
        "costs": {name: _rounded(value) for name, value in row.costs.items() if value is not None},
        "keypoints": pool.add(list(record.keypoint_ap)),
        "keypoint_ap": [_percent(ap) for ap in record.keypoint_ap.values()],
        "counts": pool.add(record.counts.model_dump()),
        "settings": pool.add(record.settings),
        "trained": pool.add(record.training and record.training.model_dump()),
        "protocol": pool.add(record.protocol.model_dump()),
        "upscaler": record.upscaler and pool.add(record.upscaler),
        "versions": pool.add(record.provenance.versions),
        "provenance": record.provenance.model_dump(exclude={"versions"}),
        "cost": record.cost.model_dump(exclude_none=True),
    }
    if diagnosis is not None:
        data["diagnosis"] = {
            "heights": [
                [b.low, b.high, b.persons, _percent(b.ap), *map(_percent, b.ci95 or ())] for b in diagnosis.heights
            ],
            "errors": {kind: _percent(share) for kind, share in diagnosis.errors.items()},
            "gains": {kind: _percent(gain) for kind, gain in diagnosis.gains.items()},
            "pck": {fraction: _percent(share) for fraction, share in diagnosis.pck.items()},
            "pixel_error": diagnosis.pixel_error,
            "crop_error": diagnosis.crop_error,
            "undetected": _percent(diagnosis.undetected),
        }
    if row.reported:
        own = {metric_heading(name): _percent(row.reported[name]) for name in PERCENTAGES if row.reported[name]}
        data["reported"] = {
            "metrics": own,
            "source": _source(row.reported),
            "same_data": row.reported["delta_ap"] is not None,
            "differs": pool.add(row.reported["protocol_differs"]),
        }
    if drawn is not None and record.key in drawn.figures:
        data["figures"] = drawn.figures[record.key]
    return data


def _method_list(names: Sequence[str], methods: Sequence[Listing], rows: Sequence[Row]) -> str:
    counts = Counter(row.record.call.name for row in rows)
    known = {listing.name: listing for listing in methods}
    return "\n".join(
        f'<li><a href="{_link("method", name)}">{html.escape(name)}</a> '
        f"<span>{html.escape(_summary(name, known.get(name)))} "
        f'<span class="dim">{_counted(counts[name], "record")}</span></span></li>'
        for name in names
    )


def _article(name: str, methods: Sequence[Listing]) -> str:
    listing = next((listing for listing in methods if listing.name == name), None)
    paper = f'<p class="dim">{_linked(listing.paper)}</p>' if listing and listing.paper else ""
    source = f'<p class="dim">Source: {html.escape(listing.source)}</p>' if listing else ""
    return (
        f'<article data-method="{html.escape(name)}"><h2>{html.escape(name)}</h2>'
        f"<p>{html.escape(_summary(name, listing))}</p>{paper}{source}"
        '<div class="records"></div></article>'
    )


def _summary(name: str, listing: Listing | None) -> str:
    if name == FOREIGN:
        return "Result files of other tools, scored here."
    if listing is None:
        return "Not installed where this page was made."
    return f"Cannot be loaded: {listing.error}" if listing.error else listing.summary


def _linked(paper: str) -> str:
    """A citation, its arXiv number a link."""
    link = r'<a href="https://arxiv.org/abs/\1" rel="noreferrer">arXiv:\1</a>'
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", link, html.escape(paper))


def _words(lines: Sequence[Line], *, hashes: bool = False) -> str:
    """The protocol of a group."""
    first = lines[0]
    protocol = first.records[0].protocol
    persons = sorted({record.counts.persons for line in lines for record in line.records})
    data = data_in_words(protocol.dataset, protocol.split, persons[0] if len(persons) == 1 else None)
    counted = "" if data[:1].isdigit() else f"{' or '.join(map(str, persons))} persons"
    kinds = [*PROTOCOL, *(HASHES if hashes else ())]
    told = [first.components[kind] for kind in kinds]
    if first.method == FOREIGN:  # a file does not say how it was made
        told = ["result files of other tools, boxes and flip test not known"]
        told += [first.components[kind] for kind in kinds if kind not in ("boxes", "flip", "crops")]
    elif protocol.oks_nms != type(protocol).model_fields["oks_nms"].default:
        told.append(f"NMS {protocol.oks_nms:g}")
    return "; ".join(filter(None, (f"{data}, {counted}" if counted else data, *told)))


def _records_in(lines: Sequence[Line]) -> int:
    return sum(len(line.records) for line in lines)


def _ranked_by(rows: Iterable[Row]) -> str:
    present = [name for row in rows for name, value in row.metrics.items() if _present(value) is not None]
    return next((name for name in ("ap", *present) if name in present), "ap")


def _rank(metric: str, row: Row) -> tuple[float, str, str]:
    value = _present(row.metrics.get(metric))
    return (2.0 if value is None else -value), row.record.call.name, row.record.key


def _source(reported: Mapping[str, Any]) -> str:
    scored = " ".join(filter(None, (reported["dataset"], reported["split"], reported["boxes"])))
    return f"reported by {table_in_words(reported['source'], reported['table'])} ({scored})"


def _present(value: float | None) -> float | None:
    """None also for COCO's -1, which means the same."""
    return None if value is None or value < 0 else value


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else round(100 * fraction, 4)


def _rounded(value: float | None) -> float | None:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _decimals(value: float | None, places: int) -> str:
    return ABSENT if value is None else f"{value:.{places}f}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _options(values: Iterable[str | tuple[str, str]]) -> str:
    pairs = [(value, value) if isinstance(value, str) else value for value in values]
    return "".join(f'<option value="{html.escape(v)}">{html.escape(words)}</option>' for v, words in pairs)


def _definitions(terms: Mapping[str, str]) -> str:
    return "".join(
        f"<div><dt>{html.escape(term)}</dt><dd>{html.escape(words)}</dd></div>" for term, words in terms.items()
    )


def _link(*parts: str) -> str:
    """Address of a view of the page, as the value of an attribute."""
    return html.escape("#/" + "/".join(quote(part, safe="") for part in parts))


def _embedded(data: Any) -> str:
    """JSON that ends no script element, whatever text is in it."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _palette() -> str:
    """The colours of the figures as variables: of methods by their number, and of errors by their kind."""
    methods = [f"--series-{n}: light-dark({c}, {WHITE_FOR_BLACK.get(c, c)});" for n, c in enumerate(COLOURS)]
    errors = [f"--{kind}: {colour};" for kind, colour in ERROR_COLOURS.items()]
    return f":root {{ {' '.join(methods + errors)} }}"


def _hash(text: str) -> str:
    """Source expression that allows one inline script or style, and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    return (resources.files("lrbench.report") / "page_assets" / name).read_text(encoding="utf-8")
