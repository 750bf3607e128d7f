"""Tables for the console and for Markdown.

Measured columns come first. What papers report stands in a group of its own behind a rule, dim and in italics, and
every way in which its protocol differs from the measured one is a letter there and a line below the table.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lrbench.controls import ROWS
from lrbench.degradation import load_preset
from lrbench.report.numbers import ABSENT, FURTHER_HEADINGS, METRIC_COLUMNS, interval, metric_heading, percent, signed
from lrbench.report.reported import data_in_words, degradation_in_words, table_in_words
from lrbench.scoring import BOOTSTRAP, HEADLINE
from lrbench.structures import POSES

EXPENDABLE = (
    "Backbone", "backbone", "ms", "Params (M)", "GMACs", "AP(M)", "AP(L)", "AP75", "AP50", "AR", "diff 95% CI",
    "AP 95% CI",
)  # fmt: skip
"""Columns that give way on a narrow console, in this order, and a line below it says so. ``Backbone`` does only where
all rows have the same, which that line then names; ``backbone`` is the report's, which a footnote names as well."""

OVER_IMAGES = f"95% CI: over images ({BOOTSTRAP.resamples:,} resamples), so for other pictures, not another training."
"""Below tables with intervals."""

RULED = box.Box("    \n    \n----\n    \n    \n    \n    \n    \n", ascii=True)
"""A line of hyphens below the heading and nothing else, the same in a terminal, a pipe and a log file."""

Group = Literal["measured", "reported"]


@dataclass
class Column:
    """One column: heading, cells from top to bottom, and which of the two kinds of numbers it belongs to."""

    heading: str
    cells: list[str]
    group: Group = "measured"
    left: bool = False


@dataclass
class Sheet:
    """A table before it is drawn.

    Attributes:
        title: lines above the table: data, protocol.
        columns: from left to right, those of the reported group last.
        marks: text of every footnote -> its letter.
        captions: lines below the footnotes.
        breaks: rows after which the crop's size changes.
    """

    title: list[str]
    columns: list[Column] = field(default_factory=list)
    marks: dict[str, str] = field(default_factory=dict)
    captions: list[str] = field(default_factory=list)
    breaks: set[int] = field(default_factory=set)

    def mark(self, text: str) -> str:
        """Letter of a footnote; equal texts share one."""
        return self.marks.setdefault(text, letters(len(self.marks)))

    def expendable(self) -> dict[str, str]:
        """Columns that may be left out, in this order, and how a line below the table calls each."""
        words = {column.heading: column.heading for column in self.columns}
        words["backbone"] = "backbone of the report"
        (backbones,) = (set(column.cells) for column in self.columns if column.heading == "Backbone")
        if len(backbones) == 1:
            words["Backbone"] = f"Backbone ({backbones.pop()} in every row)"
        else:
            del words["Backbone"]
        present = {column.heading for column in self.columns} & words.keys()
        return {heading: words[heading] for heading in EXPENDABLE if heading in present}


class CompareTable:
    """A comparison for the console; fits itself to the width it is given."""

    def __init__(self, sheet: Sheet) -> None:
        self.sheet = sheet

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Title, table, footnotes; columns of `EXPENDABLE` are left out while the table is too wide."""
        left_out: list[str] = []
        unlimited = options.update(width=10_000)
        gap = 1
        drawn = _draw(self.sheet, left_out, gap)
        expendable = self.sheet.expendable()
        for heading in ("", *expendable):
            if Measurement.get(console, unlimited, drawn).maximum <= options.max_width:
                break
            if heading:
                left_out.append(heading)
            else:
                gap = 0
            drawn = _draw(self.sheet, left_out, gap)
        for number, line in enumerate(self.sheet.title):
            yield Text(line, style="bold" if number == 0 else "")
        yield drawn
        if self.sheet.marks or self.sheet.captions:
            yield Text()
        for text, letter in self.sheet.marks.items():
            note = Table.grid(padding=(0, 1))
            note.add_column(no_wrap=True, min_width=2)
            note.add_column()
            note.add_row(Text(letter), Text(text))
            yield Padding(note, (0, 0, 0, 1), expand=False)
        captions = list(self.sheet.captions)
        if left_out:
            captions.append(f"Too narrow for: {', '.join(expendable[heading] for heading in left_out)}.")
        for line in captions:
            yield Padding(Text(line, style="dim"), (0, 0, 0, 1), expand=False)


def compare_table(
    protocol: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], ranked: Sequence[Mapping[str, Any]] = ()
) -> CompareTable:
    """Rows of one comparison, for the console.

    Args:
        protocol: what all rows share. Read are ``dataset``, ``split``, ``boxes``, ``flip``, ``lr_preset``,
            ``degradation`` (how the images of the dataset were made), ``recipe``, ``train_data`` and
            ``train_persons``; what is absent is not printed.
        rows: as ``compare --json`` prints them; metrics are fractions, ``params`` and ``macs`` counts.
        ranked: see `lrbench.ranking.ranked`; seeds of a method become one row.

    Returns:
        Something to print with rich.
    """
    return CompareTable(_sheet(protocol, rows, ranked))


def compare_markdown(
    protocol: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], ranked: Sequence[Mapping[str, Any]] = ()
) -> str:
    """Rows of one comparison as GitHub Markdown, reported numbers in italics, footnotes below.

    Args:
        protocol: as in `compare_table`.
        rows, ranked: as in `compare_table`.

    Returns:
        Text that ends in a newline.
    """
    sheet = _sheet(protocol, rows, ranked)
    headings, aligns, cells = [], [], []
    marks = next((column.cells for column in sheet.columns if column.heading == ""), [])
    for column in sheet.columns:
        if column.heading == "":
            continue
        reported = column.group == "reported"
        headings.append(f"*reported {column.heading}*" if reported else column.heading)
        aligns.append(":--" if column.left else "--:")
        values = [_escape(cell) for cell in column.cells]
        if reported:
            values = [f"*{value}*" if value not in ("", ABSENT) else value for value in values]
            if column.heading == "AP":
                values = [f"{v} <sup>{m}</sup>" if m else v for v, m in zip(values, marks, strict=True)]
        cells.append(values)
    first, *others = sheet.title
    lines = [f"**{_escape(first)}**  ", *(f"{_escape(line)}  " for line in others), ""]
    lines += [_line(headings), _line(aligns), *(_line(row) for row in zip(*cells, strict=True))]
    if sheet.marks:
        lines += ["", *(f"- <sup>{letter}</sup> {_escape(text)}" for text, letter in sheet.marks.items())]
    if sheet.captions:
        lines += ["", *(f"{_escape(line)}  " for line in sheet.captions)]
    return "\n".join(lines) + "\n"


def letters(index: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    alphabet = string.ascii_lowercase
    head, tail = divmod(index, len(alphabet))
    return (letters(head - 1) if head else "") + alphabet[tail]


def protocol_in_words(protocol: Mapping[str, Any]) -> str:
    """Boxes, flip test, pixels and training of a comparison, as far as they are given, in one line."""
    parts = []
    if protocol.get("boxes"):
        parts.append("GT boxes" if protocol["boxes"] == "gt" else f"boxes from {protocol['boxes']}")
    if protocol.get("flip") is not None:
        parts.append("flip test" if protocol["flip"] else "no flip test")
    if protocol.get("lr_preset") or protocol.get("degradation"):
        made = {"crop": protocol.get("lr_preset"), "severity": protocol.get("severity")}
        name = degradation_in_words({**made, "dataset": protocol.get("degradation")})
        parts.append("plain crops" if name == "paper" else f"pixels: {name}")
    if protocol.get("recipe"):
        parts.append(f"recipe {protocol['recipe']}")
    if protocol.get("train_data"):
        persons = f" ({protocol['train_persons']} persons)" if protocol.get("train_persons") is not None else ""
        parts.append(f"trained on {protocol['train_data']}{persons}")
    return "; ".join(parts)


def upscaling_in_words(protocol: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was chosen in rows with an upscaler, a line each; empty where there are none.

    Args:
        protocol: read are ``sr_boundary`` and ``sr_map``.
        rows: as in `compare_table`.
    """
    enlarged = [row for row in rows if row.get("pose")]
    if not enlarged:
        return []
    letters_used = {row.get("row") for row in rows}
    lines = [f"Row {letter}: {words}." for letter, words in ROWS.items() if letter in letters_used]
    sizes = {row.get("res") for row in enlarged}
    rules = _distinct(row.get("align") for row in rows if row.get("res") in sizes)
    one = f"cut once per person by the rule {rules[0]}, and read by every row of the size"
    several = f"cut by each method's own rule ({', '.join(rules)}), so not all rows read the same"
    presets = [f"{name}: {load_preset(name).summary}" for name in _distinct(row.get("lr_preset") for row in rows)]
    lines.append("; ".join([f"Pixels: {one if len(rules) == 1 else several}", *presets]) + ".")
    poses = [f"{pose}: {words}" for pose, words in POSES.items() if pose in {row.get("pose") for row in enlarged}]
    lines.append(f"Pose {'; '.join(poses)}.")
    between = {
        "u8": "8-bit pixels between upscaler and network",
        "float": "Pixels between upscaler and network not rounded",
    }
    back = {"composed": "coordinates mapped back exactly", "naive": "coordinates mapped back as if crops were native"}
    chosen = (between.get(str(protocol.get("sr_boundary"))), back.get(str(protocol.get("sr_map"))))
    costs = "Params and GMACs are those of upscaler and pose network together"
    lines.append("; ".join([*filter(None, chosen), costs]) + ".")
    trained = (f"{row['sr']}: {upscaler_in_words(facts)}." for row in enlarged if (facts := row.get("upscaler")))
    return [*lines, *dict.fromkeys(trained)]


def upscaler_in_words(facts: Mapping[str, Any]) -> str:
    """How an upscaler was trained, and how close its pictures are, as far as a record says so."""
    told = []
    if "epochs" in facts:
        epochs = f"{facts['epochs']} epoch{'' if facts['epochs'] == 1 else 's'}"
        judged = ", perceptual loss" if facts.get("features") else ""
        told.append(f"{epochs} of {facts['persons']} persons of {facts['data']}, {facts['pairs']} pairs{judged}")
    if facts.get("further"):
        told.append(f"trained {'further ' if told else ''}with each pose network ({facts['further']})")
    if quality := facts.get("quality"):
        gain = quality["psnr"] - quality["bicubic"]["psnr"]
        told.append(f"PSNR {quality['psnr']:.2f} dB, {gain:+.2f} to bicubic, on {quality['persons']} others")
    return "; ".join(told)


def pooled(rows: Sequence[Mapping[str, Any]], ranked: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a comparison with all seeds of a method in the first of them.

    Args:
        rows, ranked: as in `compare_table`.

    Returns:
        Rows with means over seeds as their metrics, ``seed`` a text where they are several, and with ``std``,
        ``by_seed`` and ``gap``, as far as `ranked` has them.
    """
    first = {method["rows"][0]: method for method in ranked}
    merged = {place for method in ranked for place in method["rows"][1:]}
    listed = []
    for place, row in enumerate(rows):
        method = first.get(place)
        if method is None:
            listed += [] if place in merged else [dict(row)]
            continue
        known = method["metrics"]
        told = {**(row.get("metrics") or {}), **{name: numbers["mean"] for name, numbers in known.items()}}
        ends = {name: numbers["ci95"] for name, numbers in known.items()}
        reported = row.get("reported")
        if reported and reported.get("delta_ap") is not None and "ap" in known:
            reported = {**reported, "delta_ap": known["ap"]["mean"] - reported["ap"]}
        several = len(method["rows"]) > 1
        listed.append(
            {
                **row,
                "metrics": told,
                "ci95": ends,
                "reported": reported,
                "std": known["ap"]["std"] if several and "ap" in known else None,
                "seed": ", ".join(map(str, method["seeds"])) if several else row.get("seed"),
                "by_seed": [(rows[at].get("metrics") or {}).get("ap") for at in method["rows"]] if several else [],
                "gap": method["difference"],
            }
        )
    return listed


def _sheet(
    protocol: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], ranked: Sequence[Mapping[str, Any]] = ()
) -> Sheet:
    seeds = _distinct(row.get("seed") for row in rows)
    rows = pooled(rows, ranked)
    persons = _distinct(row.get("n_persons") for row in rows if row.get("metrics"))
    sizes = _distinct(row.get("res") for row in rows)
    upscalers = _distinct(row.get("sr") for row in rows)
    pixels = _distinct(row.get("lr_preset") for row in rows)
    poses = _distinct(row.get("pose") for row in rows)
    if len(pixels) > 1:  # a column says which row has which
        protocol = {key: value for key, value in protocol.items() if key not in ("lr_preset", "severity")}
    sheet = Sheet(_title(protocol, persons, sizes, seeds, upscalers))

    if any(row.get("row") for row in rows):
        sheet.columns.append(Column("Row", [str(row.get("row") or "") for row in rows], left=True))
        sheet.breaks = {i for i in range(len(rows) - 1) if rows[i].get("row") != rows[i + 1].get("row")}
    sheet.columns.append(Column("Method", [_method(sheet, row, persons) for row in rows], left=True))
    sheet.columns.append(Column("Backbone", [row.get("backbone") or ABSENT for row in rows], left=True))
    if len(sizes) > 1:
        sheet.columns.append(Column("Size", [row.get("res") or ABSENT for row in rows], left=True))
        sheet.breaks |= {i for i in range(len(rows) - 1) if rows[i].get("res") != rows[i + 1].get("res")}
    if len(pixels) > 1:
        sheet.columns.append(Column("Pixels", [row.get("lr_preset") or ABSENT for row in rows], left=True))
    if len(upscalers) > 1:
        sheet.columns.append(Column("Upscaler", [row.get("sr") or "none" for row in rows], left=True))
    if poses:
        sheet.columns.append(Column("Pose", [row.get("pose") or "" for row in rows], left=True))
    given = [row.get("seed") for row in rows]
    if len(_distinct(given)) > 1:  # where all rows have the same ones, the title says which
        sheet.columns.append(Column("Seed", [ABSENT if seed is None else str(seed) for seed in given]))
    sheet.columns.append(Column("Params (M)", [_scaled(row.get("params"), 1e6, 1) for row in rows]))
    sheet.columns.append(Column("GMACs", [_scaled(row.get("macs"), 1e9, 2) for row in rows]))
    if any(row.get("latency_ms") is not None for row in rows):
        sheet.columns.append(Column("ms", [_scaled(row.get("latency_ms"), 1, 1) for row in rows]))
    further = _distinct(name for row in rows for name in row.get("further") or {} if name in FURTHER_HEADINGS)
    known = [(label, name) for label, name in METRIC_COLUMNS if not further or _any_metric(rows, name)]
    for label, name in known:
        sheet.columns.append(Column(label, [percent((row.get("metrics") or {}).get(name)) for row in rows]))
        if name == "ap":
            _add_uncertainty(sheet, rows)
    for name in further:
        values = [percent((row.get("further") or {}).get(name)) for row in rows]
        sheet.columns.append(Column(metric_heading(name), values))
        if name in HEADLINE.values():
            ends = [interval((row.get("further_ci95") or {}).get(name)) for row in rows]
            sheet.columns.append(Column(f"{metric_heading(name)} 95% CI", ends))
            sheet.captions.append(OVER_IMAGES)
    _add_reported(sheet, rows)
    sheet.captions += upscaling_in_words(protocol, rows)
    return sheet


def _any_metric(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any((row.get("metrics") or {}).get(name) is not None for row in rows)


def _add_uncertainty(sheet: Sheet, rows: Sequence[Mapping[str, Any]]) -> None:
    """Columns that say how far AP can be trusted, and lines below that say what they are."""
    if any((row.get("ci95") or {}).get("ap") for row in rows):
        sheet.columns.append(Column("AP 95% CI", [interval((row.get("ci95") or {}).get("ap")) for row in rows]))
        sheet.captions.append(OVER_IMAGES)
    if any(row.get("by_seed") for row in rows):
        spread = [row.get("std") for row in rows]
        sheet.columns.append(Column("± seeds", [ABSENT if std is None else f"{100 * std:.1f}" for std in spread]))
        apart = ("row", "method", "res", "lr_preset", "sr", "pose")
        shown = [name for name in apart if name == "method" or len(_distinct(row.get(name) for row in rows)) > 1]
        by_seed = (
            " ".join([*(str(row[name]) for name in shown if row.get(name)), *map(percent, row["by_seed"])])
            for row in rows
            if row.get("by_seed")
        )
        sheet.captions.append(
            "± seeds: standard deviation of AP between trainings; numbers are means over seeds. AP by seed: "
            f"{', '.join(by_seed)}."
        )
    gaps = [row.get("gap") for row in rows]
    if any(gaps):
        empty = ["" if "gap" in row else ABSENT for row in rows]  # the best of its size, and what was not compared
        told = [
            (signed(gap["value"]), interval(gap["ci95"], signs=True), "yes" if gap["resolved"] else "no")
            if gap
            else (blank, blank, blank)
            for gap, blank in zip(gaps, empty, strict=True)
        ]
        values, ends, resolved = map(list, zip(*told, strict=True))
        sheet.columns.append(Column("to best", values))
        sheet.columns.append(Column("diff 95% CI", ends))
        sheet.columns.append(Column("resolved", resolved, left=True))
        with_seeds = [gap["seed_ci95"] is not None for gap in gaps if gap]
        over_seeds = " and, where both have several seeds, over seeds" if any(with_seeds) else ""
        over_seeds = " and over seeds" if all(with_seeds) else over_seeds
        sheet.captions.append(
            "to best: AP minus that of the best row of the same size and pixels, paired over images; resolved: its 95% "
            f"interval over images{over_seeds} excludes 0."
        )


def _title(
    protocol: Mapping[str, Any], persons: list[Any], sizes: list[Any], seeds: list[Any], upscalers: list[Any]
) -> list[str]:
    scored = persons[0] if len(persons) == 1 else None
    data = "unnamed data"
    if protocol.get("dataset"):
        data = data_in_words(str(protocol["dataset"]), str(protocol.get("split") or ""), scored)
    line = f"Measured on {data}"
    if scored is not None and not data[0].isdigit():
        line += f", {scored} persons"
    details = [f"crops {', '.join(map(str, sizes))}"] if sizes else []
    details += [words] if (words := protocol_in_words(protocol)) else []
    if seeds:
        details.append(f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}")
    if len(upscalers) == 1 and upscalers != ["none"]:
        details.append(f"upscaler {upscalers[0]}")
    return [line, "; ".join(details)] if details else [line]


def _method(sheet: Sheet, row: Mapping[str, Any], persons: list[Any]) -> str:
    """Name of the method, with a letter when the row has no numbers or was scored on other persons than the rest."""
    given = " ".join(f"{key}={value}" for key, value in (row.get("settings") or {}).items())
    name = f"{row.get('method') or ABSENT} {given}".rstrip()
    if row.get("status", "done") != "done":
        reason = str(row.get("reason") or "no reason given").strip()
        letter = sheet.mark(f"{name}: {row['status']}, {reason}")
        return f"{name} ({letter})"
    notes = [f"scored on {row['n_persons']} persons"] if len(persons) > 1 and row.get("n_persons") is not None else []
    letters_of = [sheet.mark(note) for note in [*notes, *(row.get("notes") or ())]]
    return f"{name} ({','.join(letters_of)})" if letters_of else name


def _add_reported(sheet: Sheet, rows: Sequence[Mapping[str, Any]]) -> None:
    reported = [row.get("reported") or {} for row in rows]
    if not any(reported):
        return
    sheet.columns.append(Column("AP", [percent(given.get("ap")) for given in reported], "reported"))
    marks = [[sheet.mark(text) for text in given.get("protocol_differs") or ()] for given in reported]
    sheet.columns.append(
        Column("", [("" if max(map(len, m), default=1) == 1 else ",").join(m) for m in marks], "reported", left=True)
    )
    if any(given.get("delta_ap") is not None for given in reported):
        sheet.columns.append(Column("diff", [signed(given.get("delta_ap")) for given in reported], "reported"))
    if any(_other_backbone(row, given) for row, given in zip(rows, reported, strict=True)):
        cells = [_other_backbone(row, given) for row, given in zip(rows, reported, strict=True)]
        sheet.columns.append(Column("backbone", cells, "reported", left=True))
    for source in dict.fromkeys(_source(given) for given in reported if given):
        sheet.captions.append(f"Reported, not measured here: {source}.")


def _other_backbone(row: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Backbone of the report where it is among the differences."""
    differs = any(str(text).startswith("backbone:") for text in given.get("protocol_differs") or ())
    return str(given.get("backbone") or ABSENT) if differs and row.get("backbone") else ""


def _source(given: Mapping[str, Any]) -> str:
    source = table_in_words(str(given.get("source", "unknown source")), str(given.get("table") or "")).rstrip(", ")
    scored = " ".join(filter(None, (given.get("dataset"), given.get("split"))))
    return f"{source} ({', '.join(filter(None, (scored, given.get('boxes'))))})"


def _scaled(count: float | None, unit: float, decimals: int) -> str:
    return ABSENT if count is None else f"{count / unit:.{decimals}f}"


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(value for value in values if value is not None and value != ""))


def _draw(sheet: Sheet, left_out: Sequence[str], gap: int) -> Table:
    drawn = Table(box=RULED, pad_edge=False, padding=(0, 0, 0, gap), show_edge=False)
    shown = [column for column in sheet.columns if column.heading == "" or column.heading not in left_out]
    ruled = False
    grid: list[list[str]] = []
    for column in shown:
        reported = column.group == "reported"
        if reported and not ruled:
            ruled = True
            drawn.add_column(Text("|\n|"), no_wrap=True, style="dim")
            grid.append(["|"] * len(column.cells))
        heading = column.heading.replace(" ", "\n", 1)
        if reported:
            heading = f"reported\n{heading}" if column.heading == "AP" else f"\n{heading}"
        drawn.add_column(
            Text(heading if "\n" in heading else f"\n{heading}", justify="left" if column.left else "right"),
            justify="left" if column.left else "right",
            style="dim italic" if reported else "bold" if column.heading == "AP" else "",
            header_style="dim italic" if reported else "bold",
            no_wrap=True,
            min_width=max(map(len, [*heading.split("\n"), *column.cells])),
        )
        grid.append(column.cells)
    for number, cells in enumerate(zip(*grid, strict=True)):
        drawn.add_row(*(Text(cell) for cell in cells), end_section=number in sheet.breaks)
    return drawn


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;").replace("\n", " ")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
