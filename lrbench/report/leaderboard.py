"""All records as tables: one for every protocol and size of crop, one row for all seeds of one thing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lrbench.geometry import Size
from lrbench.method import load_method, setting_names
from lrbench.published import find
from lrbench.records import Record, newest
from lrbench.report.formats import Cell, Column, Group, Layout
from lrbench.report.lines import Line, at_one_size, lines_of
from lrbench.report.numbers import FURTHER_HEADINGS, METRIC_COLUMNS, metric_heading
from lrbench.report.reported import (
    comparison,
    data_in_words,
    degradation_in_words,
    has_reported_measure,
    is_coco,
    table_in_words,
)
from lrbench.report.seeds import ReadMatches, interval, latest, mean, metric, no_matches, pooled
from lrbench.report.tables import protocol_in_words

SHOWN_APART = ("backbone", "sr", "pose", "settings")
"""Kinds of differences between rows that have a column."""

IN_TITLE = (
    "split", "boxes", "flip", "crops", "severity", "copy", "copy severity", "copy height", "data hash", "boxes hash",
    "shape",
)  # fmt: skip
"""Kinds that all rows of a table share."""

INTERVAL_WORDS = "95% CI: over the images scored; it does not hold what another training changes"
"""Said below every table with intervals."""

MEASURED, COST, REPORTED = Group("measured"), Group("cost"), Group("reported", reported=True)


@dataclass(frozen=True)
class Scoring:
    """What was scored and how: numbers of rows in which this differs never stand in one column."""

    dataset: str
    split: str
    data_hash: str
    persons: int
    boxes: str
    boxes_hash: str
    flip: bool
    pixels: str

    @classmethod
    def of(cls, record: Record) -> Scoring:
        """That of a record."""
        protocol = record.protocol
        return cls(
            dataset=protocol.dataset,
            split=protocol.split,
            data_hash=protocol.data_hash,
            persons=record.counts.persons,
            boxes=protocol.boxes,
            boxes_hash=protocol.boxes_hash,
            flip=protocol.flip,
            pixels=degradation_in_words(protocol.degradation),
        )

    @property
    def on_coco(self) -> bool:
        """The whole of COCO val2017."""
        return is_coco(self.dataset, self.split, self.persons, "val2017")

    @property
    def data(self) -> str:
        """What was scored, in words."""
        return data_in_words(self.dataset, self.split, self.persons)

    @property
    def plain(self) -> bool:
        """Crops are cut as papers cut them, from pictures as they are."""
        return self.pixels == "paper"

    @property
    def parts(self) -> dict[str, str]:
        """In words, by what they are of."""
        shared = protocol_in_words({"boxes": self.boxes, "flip": self.flip}).split("; ")
        return {
            "data": f"{self.dataset} {self.split}",
            **dict(zip(("boxes", "flip"), shared, strict=True)),
            "pixels": "plain crops" if self.plain else f"pixels: {self.pixels}",
            "boxes hash": f"boxes {self.boxes_hash[:8]}" if self.boxes_hash else "",
            "data hash": f"data {self.data_hash[:8]}",
        }

    @property
    def in_words(self) -> str:
        """All of it, in one line."""
        counted = self.data if self.data[0].isdigit() else f"{self.data}, {self.persons} persons"
        return "; ".join([counted, *(self.parts[kind] for kind in ("boxes", "flip", "pixels"))])


def by_scoring(records: Iterable[Record]) -> dict[Scoring, list[Record]]:
    """Records by what was scored: COCO first, plain crops before others, then by name."""
    groups: dict[Scoring, list[Record]] = {}
    for record in records:
        groups.setdefault(Scoring.of(record), []).append(record)
    return {
        key: groups[key] for key in sorted(groups, key=lambda s: (not s.on_coco, not s.plain, s.in_words, s.data_hash))
    }


def leaderboard(records: Iterable[Record], matches: ReadMatches = no_matches) -> list[Layout]:
    """One table per protocol and size, best first: by AP, or where none has it by the first metric that any has.

    Seeds of one row are averaged. What else differs between two rows of a table (training, scoring of persons) is a
    footnote of the row; what all share is a caption.

    Args:
        records: in any order; failed ones and ones without a metric are left out.
        matches: of the records, for intervals of several seeds.
    """
    scored = [r for r in newest(records) if r.status == "done" and any(metric(r, name) is not None for name in _NAMES)]
    layouts = []
    for scoring, members in by_scoring(scored).items():
        sizes = {record.call.res for record in members}
        for res in sorted(sizes, key=lambda res: Size.parse(res) if res else Size(1, 1)):
            layouts.append(_table(scoring, res, [r for r in members if r.call.res == res], matches))
    return layouts


def split_notes(notes: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Notes that all share, and what is left of each."""
    shared = tuple(note for note in notes[0] if all(note in others for others in notes)) if notes else ()
    return shared, [tuple(note for note in own if note not in shared) for own in notes]


_NAMES = (*(name for _, name in METRIC_COLUMNS), *FURTHER_HEADINGS)


def _table(scoring: Scoring, res: str, records: Sequence[Record], matches: ReadMatches) -> Layout:
    lines = [at_one_size(line) for line in lines_of(records)]
    has = [name for name in _NAMES if any(metric(record, name) is not None for record in records)]
    # the metrics that rows are ranked by; where there is AP, everything else only breaks ties
    lines.sort(key=lambda line: (*(-(mean(pooled(line.records, name)) or 0.0) for name in has), *_order(line)))
    news = [latest(line.records) for line in lines]
    notes, captions = _differences(lines)
    names = [Cell(line.method, note) for line, note in zip(lines, notes, strict=True)]
    columns = [
        Column("Method", names),
        Column("Backbone", [Cell(line.components["backbone"] or None) for line in lines]),
    ]
    for heading, words in (
        ("Upscaler", ["" if new.call.sr == "none" else new.call.sr for new in news]),
        ("Pose", [new.call.pose for new in news]),
        ("Settings", [line.components["settings"] for line in lines]),
    ):
        if any(words):
            columns.append(Column(heading, [Cell(word) for word in words]))
    for name in has:
        heading = metric_heading(name)
        columns.append(Column(heading, [Cell(pooled(line.records, name)) for line in lines], MEASURED))
        if name == has[0]:
            ends = [interval(line.records, name, matches) for line in lines]
            columns.append(Column(f"{heading} 95% CI", [Cell(each) for each in ends], MEASURED))
    costs = [new.cost for new in news]
    columns += [
        Column("Params (M)", [Cell(amount(c.params, c.params_sr, 1e6)) for c in costs], COST, decimals=2),
        Column("GMACs", [Cell(amount(c.macs, c.macs_sr, 1e9)) for c in costs], COST, decimals=3),
        Column("Latency (ms)", [Cell(cost.latency_ms) for cost in costs], COST, decimals=2),
    ]
    columns += _reported(lines, news)
    if any(len(line.records) > 1 for line in lines):
        captions.append("mean ± standard deviation over seeds (n of them)")
    if any(new.ci95 or new.further_ci95 for new in news):
        captions.append(INTERVAL_WORDS)
    title = scoring.in_words + (f"; crops {res}" if res else "")
    return Layout(title, columns, [f"{caption[0].upper()}{caption[1:]}." for caption in captions])


def _order(line: Line) -> tuple[str, ...]:
    return (line.method, *line.components.values())


def _differences(lines: Sequence[Line]) -> tuple[list[tuple[str, ...]], list[str]]:
    """A note for each row on what it does not share with the others, and what all share."""
    kinds = [kind for kind in lines[0].components if kind not in (*SHOWN_APART, *IN_TITLE)]
    plain = [kind for kind in kinds if not kind.endswith("hash")]
    differing = [kind for kind in plain if len({line.components[kind] for line in lines}) > 1]
    for kind in kinds:  # a hash, only where nothing else tells two rows apart
        if kind not in plain and _told_apart(lines, [*differing, kind]) > _told_apart(lines, differing):
            differing.append(kind)
    notes = [", ".join(filter(None, (line.components[kind] for kind in differing))) for line in lines]
    shared = ", ".join(filter(None, (lines[0].components[kind] for kind in plain if kind not in differing)))
    return [(note,) if note else () for note in notes], [f"all rows: {shared}"] if shared else []


def _told_apart(lines: Sequence[Line], kinds: Sequence[str]) -> int:
    return len({(line.method, *(line.components[kind] for kind in (*SHOWN_APART, *kinds))) for line in lines})


def _reported(lines: Sequence[Line], news: Sequence[Record]) -> list[Column]:
    """What papers report for the rows, with everything in which the protocols differ."""
    found = [_beside(line, new) for line, new in zip(lines, news, strict=True)]
    given = [row for row in found if row is not None]
    if not given:
        return []
    shared, own = split_notes([row["protocol_differs"] for row in given])
    notes = iter(own)
    group = Group(REPORTED.heading, reported=True, notes=shared)
    percents = [None if row is None or row["ap"] is None else 100 * row["ap"] for row in found]
    cells = [Cell(None) if row is None else Cell(ap, next(notes)) for row, ap in zip(found, percents, strict=True)]
    columns = [
        Column("AP", cells, group),
        Column(
            "Source",
            [Cell(None if row is None else table_in_words(row["source"], row["table"])) for row in found],
            group,
        ),
    ]
    if any(row["delta_ap"] is not None for row in given):
        deltas = [None if row is None or row["delta_ap"] is None else 100 * row["delta_ap"] for row in found]
        columns.insert(1, Column("diff", [Cell(delta) for delta in deltas], group, signed=True))
    return columns


def _beside(line: Line, new: Record) -> dict[str, Any] | None:
    """The reported row for a row of records; None where nothing is reported."""
    call = new.call
    if not has_reported_measure(new):
        return None
    try:
        known = setting_names(call.name)
        settings = {key: value for key, value in call.settings.items() if key in known}
        method = load_method(call.name, Size.parse(call.res), call.backbone or None, **settings)
    except ValueError:  # a result file of another tool, or a plugin that is not here
        return None
    row, differences = find(method, call.sr)
    if row is None:
        return None
    ap = fmean(value for record in line.records if (value := metric(record, "ap")) is not None)
    return comparison(row, new, new.metrics.model_copy(update={"ap": ap}), differences=differences)


def amount(own: int | None, upscaler: int, unit: float) -> float | None:
    """Parameters or multiply-adds of network and upscaler together; None where not measured."""
    return None if own is None else (own + upscaler) / unit
