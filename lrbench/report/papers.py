"""Published tables in their papers' own layout, with what was measured beside each printed number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lrbench.cells import SHARED_ALIGN
from lrbench.geometry import Size
from lrbench.method import load_method
from lrbench.published import Entry, entries, measurements
from lrbench.records import Record, newest
from lrbench.report import reported
from lrbench.report.formats import Cell, Column, Group, Interval, Layout
from lrbench.report.leaderboard import INTERVAL_WORDS, Scoring, by_scoring, split_notes
from lrbench.report.lines import Line, lines_of
from lrbench.report.numbers import FURTHER_HEADINGS, METRIC_COLUMNS, metric_heading
from lrbench.report.reported import PERCENTAGES, Reported, has_reported_measure
from lrbench.report.seeds import ReadMatches, interval, latest, mean, metric, no_matches, pooled

MEASURED_ANYWAY = ("ar", *FURTHER_HEADINGS)
"""Metrics that have a measured column besides the table's first one, where the paper prints them."""

METRIC_CLAUSE = re.compile(r"PCKh@|AP_(easy|medium|hard)=")
"""What a note says of a metric, not of the row."""


@dataclass(frozen=True)
class Measured:
    """What was measured for one printed row.

    Attributes:
        records: seeds of one thing.
        ends: 95 % interval of the table's first metric over images, in percent.
        delta: measured - reported of the table's first metric, in percent points; None where not formed.
        bounds: its 95 % interval.
        notes: everything in which the protocols differ, and why there is no difference.
    """

    records: Sequence[Record] = ()
    ends: Interval | None = None
    delta: float | None = None
    bounds: Interval | None = None
    notes: tuple[str, ...] = ()


def paper_table(name: str, records: Sequence[Record], matches: ReadMatches = no_matches) -> Layout:
    """A published table as its paper prints it, followed by what was measured.

    Rows and columns are those that the paper prints, in its order; columns it leaves empty are left out. One group of
    measured columns follows for every protocol under which at least one row was measured: the newest record of each
    row, averaged over its seeds. Protocols of other pixels than the paper's are only named, unless there are no others.
    A difference is formed only where both were scored on the whole of COCO val2017.

    Args:
        name: of the table, for example ``cal/8``.
        records: in any order; those that measure no row are left out.
        matches: of the records, for intervals of several seeds.

    Raises:
        ValueError: no such table.
    """
    printed = entries(name)
    rows = [entry.reported for entry in printed]
    metrics = [metric for metric in (*_coco_metrics(), *_further_metrics(rows)) if any(_value(r, metric) for r in rows)]
    first, shared = metrics[0] if metrics else "ap", any(row.sr != "none" for row in rows)
    found = {
        scoring: [_measured(entry, members, first, scoring, matches, shared_pixels=shared) for entry in printed]
        for scoring, members in by_scoring(newest(records)).items()
    }
    found = {scoring: measured for scoring, measured in found.items() if any(row.records for row in measured)}
    degraded = [scoring for scoring in found if not scoring.plain and any(other.plain for other in found)]
    found = {scoring: measured for scoring, measured in found.items() if scoring not in degraded}
    columns = [*_stub(printed), *_printed_columns(rows, metrics)]
    captions = ["Italic: as printed by the source, without an interval. Not italic: measured here"]
    if not found:
        columns += _measured_columns("measured", [Measured()] * len(rows), metrics)
        captions.append("nothing of this table was measured yet")
    for scoring, measured in found.items():
        heading = _heading(scoring, list(found))
        columns += _measured_columns(heading, measured, metrics)
        captions.append(f"{heading}: {scoring.in_words}")
    every = [row for measured in found.values() for row in measured]
    if any(row.delta is not None for row in every):
        captions.append("diff: measured - reported; it still holds every difference of protocol in the footnotes")
    if any(row.ends is not None for row in every):
        captions.append(INTERVAL_WORDS)
    if any(row.bounds is not None for row in every):
        captions.append("95% CI of diff: as that of the measured number; the reported one counts as exact")
    if any(len(row.records) > 1 for row in every):
        captions.append("mean ± standard deviation over seeds (n of them)")
    if degraded:
        pixels = dict.fromkeys(scoring.pixels for scoring in degraded)
        captions.append(f"rows were also measured on other pixels, not shown here: {', '.join(pixels)}")
    title = next(table.title for table in reported.tables() if table.name == name)
    breaks = {i for i in range(len(rows) - 1) if rows[i].size != rows[i + 1].size}
    return Layout(
        f"{name}: {title}", columns, [f"{caption[0].upper()}{caption[1:]}." for caption in captions], frozenset(breaks)
    )


def _stub(printed: Sequence[Entry]) -> list[Column]:
    """What a row is, as printed; rows that nothing here measures say why."""
    rows = [entry.reported for entry in printed]
    columns = [Column("Method", [Cell(e.reported.method, (e.reason,) if e.reason else ()) for e in printed])]
    for heading, words in (
        ("Variant", _variants(rows)),
        ("Backbone", [row.backbone or None for row in rows]),
        ("Upscaler", ["" if row.sr == "none" else row.sr for row in rows]),
        ("Input size", [None if row.size is None else str(row.size) for row in rows]),
    ):
        if any(words):
            columns.append(Column(heading, [Cell(word) for word in words]))
    return columns


def _variants(rows: Sequence[Reported]) -> list[str]:
    """What the notes say in which rows of one name, backbone and size differ."""
    alike: dict[tuple[object, ...], list[Reported]] = {}
    for row in rows:
        alike.setdefault(_name(row), []).append(row)
    words = []
    for row in rows:
        others = [_clauses(other) for other in alike[_name(row)]]
        own = [clause for clause in _clauses(row) if not all(clause in clauses for clauses in others)]
        words.append("; ".join(own))
    return words


def _name(row: Reported) -> tuple[object, ...]:
    return row.method, row.backbone, row.sr, row.size


def _clauses(row: Reported) -> list[str]:
    return [clause for clause in row.note.split("; ") if clause and not METRIC_CLAUSE.search(clause)]


def _printed_columns(rows: Sequence[Reported], metrics: Sequence[str]) -> list[Column]:
    group = Group("reported", reported=True)
    columns = []
    for heading, costs in (("Params (M)", [r.params_m for r in rows]), ("GFLOPs", [r.gflops for r in rows])):
        if any(cost is not None for cost in costs):
            columns.append(Column(heading, [Cell(cost) for cost in costs], group, decimals=_decimals(costs)))
    for name in metrics:
        values = [_value(row, name) for row in rows]
        cells = [
            Cell(None if value is None else 100 * value, _caveats(row, name) if value is not None else ())
            for row, value in zip(rows, values, strict=True)
        ]
        columns.append(Column(metric_heading(name), cells, group))
    return columns


def _decimals(numbers: Sequence[float | None]) -> int:
    """Digits after the point, as many as any number was printed with."""
    return max(len(f"{number:g}".partition(".")[2]) for number in numbers if number is not None)


def _measured_columns(heading: str, measured: Sequence[Measured], metrics: Sequence[str]) -> list[Column]:
    """The first metric, its difference to the reported one with its interval, and some others."""
    shared, own = split_notes([row.notes for row in measured if row.records])
    notes = iter(own)
    group = Group(heading, notes=shared)
    first, *others = metrics or ["ap"]
    cells = [Cell(pooled(row.records, first), next(notes)) if row.records else Cell(None) for row in measured]
    columns = [
        Column(metric_heading(first), cells, group),
        Column("95% CI", [Cell(row.ends) for row in measured], group),
        Column("diff", [Cell(row.delta) for row in measured], group, signed=True),
        Column("95% CI of diff", [Cell(row.bounds) for row in measured], group, signed=True),
    ]
    for name in others:
        if name in MEASURED_ANYWAY:
            values = [pooled(row.records, name) for row in measured]
            columns.append(Column(metric_heading(name), [Cell(value) for value in values], group))
    return columns


def _measured(
    entry: Entry,
    records: Sequence[Record],
    first: str,
    scoring: Scoring,
    matches: ReadMatches,
    *,
    shared_pixels: bool,
) -> Measured:
    """What was measured for a row under one protocol: the newest record of its kind and the other seeds of that."""
    row = entry.reported
    fitting = [record for record in measurements(entry, records) if metric(record, first) is not None]
    lines = lines_of(record for record in fitting if _same_keypoints(row, record))
    if not lines:
        return Measured()

    def preference(line: Line) -> tuple[bool, bool, str]:
        new = latest(line.records)
        # a network that was trained on other pixels than were scored is no row of a paper
        usual = not line.components["trained pixels"]
        wanted = SHARED_ALIGN if shared_pixels else _own_alignment(new)
        return usual, new.protocol.align == wanted, new.provenance.utc

    line = max(lines, key=preference)
    new = latest(line.records)
    value = mean(pooled(line.records, first))
    assert value is not None
    metrics = new.metrics.model_copy(update={"ap": value / 100}) if first == "ap" else new.metrics
    beside = reported.comparison(row, new, metrics, differences=_own_differences(new))
    delta, bounds = None, None
    if first == "ap" and beside["delta_ap"] is not None and row.ap is not None:
        delta, bounds = 100 * beside["delta_ap"], interval(line.records, first, matches, less=row.ap)
    elif _value(row, first) is not None:
        beside["protocol_differs"].append(_not_formed(row, scoring))
    return Measured(
        line.records, interval(line.records, first, matches), delta, bounds, tuple(beside["protocol_differs"])
    )


def _same_keypoints(row: Reported, record: Record) -> bool:
    """Whether the AP of a record is of the keypoints of a row: CrowdPose's and COCO's measure nothing of each other."""
    if row.dataset == "CrowdPose":
        return "ap_easy" in record.further
    return record.metrics.ap is None or has_reported_measure(record)


def _not_formed(row: Reported, scoring: Scoring) -> str:
    """Why there is no difference."""
    theirs = f"{row.dataset} {row.split}".strip()
    reported_on = "" if theirs == "COCO val2017" else f", reported on {theirs}"
    return f"difference not formed: scored on {scoring.data}{reported_on}"


def _own_differences(record: Record) -> list[str]:
    """In words, whether crops were cut by another rule than the method's own, to share pixels with other rows."""
    rule, own = record.protocol.align, _own_alignment(record)
    return [] if rule == own else [f"crops: cut by the rule {rule}, the method's own is {own}"]


def _own_alignment(record: Record) -> str:
    call = record.call
    return str(load_method(call.name, Size.parse(call.res), call.backbone or None).frame.align)


def _heading(scoring: Scoring, others: Sequence[Scoring]) -> str:
    """The data, and of the protocol what tells two groups of the table apart."""
    told = ["COCO val2017" if scoring.on_coco else scoring.dataset]
    alike = [other for other in others if (other.dataset, other.on_coco) == (scoring.dataset, scoring.on_coco)]
    for kind, words in scoring.parts.items():
        if any(other.parts[kind] != words for other in alike):
            detected = {other.boxes for other in alike} - {"gt"}
            # the caption names the file; a heading does where there are several
            told.append("detected boxes" if kind == "boxes" and detected == {scoring.boxes} else words)
            alike = [other for other in alike if other.parts[kind] == words]
    return f"measured on {', '.join(told)}"


def _coco_metrics() -> list[str]:
    return [name for _, name in METRIC_COLUMNS]


def _further_metrics(rows: Sequence[Reported]) -> list[str]:
    """Names that the notes have, those of all joints first."""
    names = dict.fromkeys(name for row in rows for name in reported.further_metrics(row))
    return [*(name for name in FURTHER_HEADINGS if name in names), *(n for n in names if n not in FURTHER_HEADINGS)]


def _value(row: Reported, name: str) -> float | None:
    if name in PERCENTAGES:
        value: float | None = getattr(row, name)
        return value
    return reported.further_metrics(row).get(name)


def _caveats(row: Reported, name: str) -> tuple[str, ...]:
    """What has to be known of a printed number itself."""
    if name == "pckh11":
        return ("printed as PCKh@0.1; this source's code reads its table at 0.11",)
    return ()
