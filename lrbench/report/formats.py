"""One description of a table, and how it looks as Markdown, LaTeX, CSV and on the console.

A `Layout` holds values, not text: numbers keep their digits for CSV and are rounded only where they are printed. What
papers report is set in italics everywhere, and each footnote is one letter for all places that share its text.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lrbench.report.numbers import ABSENT
from lrbench.report.tables import letters


class Interval(NamedTuple):
    """Both ends of a confidence interval."""

    low: float
    high: float


class Spread(NamedTuple):
    """Several runs of one thing: mean, sample standard deviation, and how many."""

    mean: float
    sd: float
    n: int


Value = str | float | Interval | Spread | None
"""Of one cell; None for what is not known, which prints as `ABSENT`."""


@dataclass(frozen=True)
class Cell:
    """One value and what has to be said of it below the table."""

    value: Value
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """Columns under one heading.

    Attributes:
        heading: in words.
        reported: these numbers were read in a paper, not measured.
        notes: footnotes that are true of every number below.
    """

    heading: str
    reported: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        heading: in a word.
        cells: from top to bottom.
        group: heading that it shares with its neighbours; None for the columns that say what a row is.
        decimals: digits that are printed after the point.
        signed: numbers are differences and print with their sign.
    """

    heading: str
    cells: Sequence[Cell]
    group: Group | None = None
    decimals: int = 1
    signed: bool = False

    @property
    def left(self) -> bool:
        """Words stand at the left, numbers at the right."""
        return any(isinstance(cell.value, str) for cell in self.cells)

    @property
    def reported(self) -> bool:
        """Its numbers were read in a paper."""
        return self.group is not None and self.group.reported

    def text(self, row: int) -> str:
        """A value as it is printed."""
        value = self.cells[row].value
        if isinstance(value, str):
            return _flat(value)
        if value is None:
            return ABSENT
        if isinstance(value, Interval):
            return f"{self._number(value.low)}..{self._number(value.high)}"
        if isinstance(value, Spread):
            return f"{self._number(value.mean)} ± {value.sd:.{self.decimals}f} (n={value.n})"
        return self._number(value)

    def _number(self, number: float) -> str:
        text = f"{number:{'+' if self.signed else ''}.{self.decimals}f}"
        return text.replace("-", "+" if self.signed else "") if float(text) == 0 else text


@dataclass(frozen=True)
class Layout:
    """A table before it is drawn.

    Attributes:
        title: one line.
        columns: from left to right, columns of one group side by side, those without one first.
        captions: lines below the footnotes.
        breaks: rows after which a line is drawn.
    """

    title: str
    columns: Sequence[Column]
    captions: Sequence[str] = ()
    breaks: frozenset[int] = field(default_factory=frozenset)

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.columns[0].cells)

    def footnotes(self) -> dict[str, str]:
        """Text of every footnote -> its letter, in reading order: headings first, then row by row."""
        notes = [note for column in self.columns if column.group for note in column.group.notes]
        notes += [note for row in range(self.rows) for column in self.columns for note in column.cells[row].notes]
        return {note: letters(number) for number, note in enumerate(dict.fromkeys(map(_flat, notes)))}

    def groups(self) -> list[tuple[Group | None, list[Column]]]:
        """Columns by the heading they share."""
        return [(group, list(columns)) for group, columns in groupby(self.columns, key=lambda column: column.group)]


def markdown(layout: Layout, *, folded: bool = False) -> str:
    """A table in GitHub's Markdown, footnotes as a list below it.

    Args:
        layout: the table.
        folded: shows the title alone until a reader opens it.

    Returns:
        Text that ends in a newline.
    """
    marks = layout.footnotes()

    def noted(text: str, notes: Sequence[str], reported: bool) -> str:
        text = _markdown_text(text)
        text = f"*{text}*" if reported and text not in ("", ABSENT) else text
        return f"{text} <sup>{_letters(notes, marks)}</sup>" if notes else text

    headings = []
    for group, columns in layout.groups():
        for number, column in enumerate(columns):
            words = [] if group is None else [noted(group.heading, group.notes if number == 0 else (), group.reported)]
            headings.append("<br>".join([*words, noted(column.heading, (), column.reported)]))
    title = _markdown_text(layout.title)
    lines = [f"<details><summary>{title}</summary>" if folded else f"**{title}**", "", _markdown_line(headings)]
    lines.append(_markdown_line(":--" if column.left else "--:" for column in layout.columns))
    for row in range(layout.rows):
        cells = (noted(column.text(row), column.cells[row].notes, column.reported) for column in layout.columns)
        lines.append(_markdown_line(cells))
    if marks:
        lines += ["", *(f"- <sup>{letter}</sup> {_markdown_text(note)}" for note, letter in marks.items())]
    if layout.captions:
        lines += ["", *(f"{_markdown_text(line)}  " for line in layout.captions)]
    if folded:
        lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


def latex(layout: Layout) -> str:
    r"""A LaTeX ``table`` that needs ``\usepackage{booktabs}`` and nothing else, footnotes below it in plain text.

    Returns:
        Text that ends in a newline.
    """
    marks = layout.footnotes()

    def noted(text: str, notes: Sequence[str], reported: bool) -> str:
        text = _latex_text(text)
        text = rf"\textit{{{text}}}" if reported and text not in ("", ABSENT) else text
        return rf"{text}\textsuperscript{{{_letters(notes, marks)}}}" if notes else text

    spec = "".join("l" if column.left else "r" for column in layout.columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex_text(layout.title)}}}",
        rf"\begin{{tabular}}{{{spec}}}",
    ]
    lines.append(r"\toprule")
    if any(column.group for column in layout.columns):
        heads, rules, first = [], [], 1
        for group, columns in layout.groups():
            last = first + len(columns) - 1
            if group is None:
                heads += [""] * len(columns)
            else:
                heads.append(
                    rf"\multicolumn{{{len(columns)}}}{{c}}{{{noted(group.heading, group.notes, group.reported)}}}"
                )
                rules.append(rf"\cmidrule(lr){{{first}-{last}}}")
            first = last + 1
        lines += [_latex_line(heads), " ".join(rules)]
    lines += [_latex_line(noted(column.heading, (), column.reported) for column in layout.columns), r"\midrule"]
    for row in range(layout.rows):
        cells = (noted(column.text(row), column.cells[row].notes, column.reported) for column in layout.columns)
        lines.append(_latex_line(cells))
        if row in layout.breaks and row + 1 < layout.rows:
            lines.append(r"\midrule")
    lines += [r"\bottomrule", r"\end{tabular}"]
    below = [rf"\textsuperscript{{{letter}}} {_latex_text(note)}" for note, letter in marks.items()]
    below += [_latex_text(line) for line in layout.captions]
    if below:
        lines += [
            "",
            r"\smallskip",
            r"\begin{minipage}{\linewidth}\footnotesize",
            "\\\\\n".join(below),
            r"\end{minipage}",
        ]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def csv_text(*layouts: Layout) -> str:
    """Tables as one CSV file: one header line, one line per row, the title in the first column, footnotes in the last.

    Numbers have up to four decimals, in the units of the headings; what is not known is an empty field. An interval
    takes two fields, ``low`` and ``high``, several runs three: the mean, ``sd`` and ``n``. Columns that only some of
    the tables have are empty in the others.
    """
    lines = [line for layout in layouts for line in records_of(layout)]
    header = dict.fromkeys(name for line in lines for name in line)
    names = [*(name for name in header if name != "footnotes"), "footnotes"]
    file = io.StringIO()
    writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def console(layout: Layout) -> ConsoleLayout:
    """A table to print with rich."""
    return ConsoleLayout(layout)


class ConsoleLayout:
    """A table for the console; groups of columns that do not fit beside each other follow below each other."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Title, one table or several, footnotes, captions."""
        marks = self.layout.footnotes()
        yield Text(_flat(self.layout.title), style="bold")
        for columns in self._blocks(options.max_width, marks):
            yield Text()
            yield from _console_lines(self.layout, _drawn(self.layout, columns, marks))
        if marks or self.layout.captions:
            yield Text()
        for note, letter in marks.items():
            line = Table.grid(padding=(0, 1))
            line.add_column(no_wrap=True, min_width=2)
            line.add_column()
            line.add_row(Text(letter), Text(note))
            yield Padding(line, (0, 0, 0, 1), expand=False)
        for caption in self.layout.captions:
            yield Padding(Text(_flat(caption), style="dim"), (0, 0, 0, 1), expand=False)

    def _blocks(self, width: int, marks: Mapping[str, str]) -> list[list[Column]]:
        """As few tables as the width allows; each begins with the columns that say what a row is."""

        def fit(columns: Sequence[Column]) -> bool:
            return _width(_drawn(self.layout, columns, marks)) <= width

        stub = [column for column in self.layout.columns if column.group is None]
        blocks = [stub]
        for columns in (columns for group, columns in self.layout.groups() if group is not None):
            for piece in [columns] if fit([*stub, *columns]) else [[column] for column in columns]:
                if len(blocks[-1]) > len(stub) and not fit([*blocks[-1], *piece]):
                    blocks.append(stub)
                blocks[-1] = [*blocks[-1], *piece]
        return blocks


@dataclass
class _Drawn:
    """A column as text: its cells, their width, and the heading of its group above the first column of that."""

    column: Column
    cells: list[str]
    width: int
    above: str = ""

    def padded(self, text: str) -> str:
        return text.ljust(self.width) if self.column.left else text.rjust(self.width)

    @property
    def style(self) -> str:
        return "dim italic" if self.column.reported else ""


GAP = 2
"""Blanks between columns of the console."""


def _drawn(layout: Layout, columns: Sequence[Column], marks: Mapping[str, str]) -> list[_Drawn]:
    drawn = []
    for group, members in groupby(columns, key=lambda column: column.group):
        span = []
        for column in members:
            notes = (_letters(cell.notes, marks) for cell in column.cells)
            cells = [f"{column.text(row)} {letter}".rstrip() for row, letter in enumerate(notes)]
            span.append(_Drawn(column, cells, max(map(len, [column.heading, *cells]))))
        if group is not None:
            span[0].above = f"{_flat(group.heading)} {_letters(group.notes, marks)}".rstrip()
            span[-1].width += max(0, len(span[0].above) - _width(span))
        drawn += span
    return drawn


def _width(drawn: Sequence[_Drawn]) -> int:
    return sum(one.width for one in drawn) + GAP * (len(drawn) - 1)


def _console_lines(layout: Layout, block: Sequence[_Drawn]) -> Iterator[Text]:
    if any(one.above for one in block):
        above = Text(overflow="fold")
        for group, members in groupby(block, key=lambda one: one.column.group):
            span = list(members)
            style = "" if group is None else "dim italic" if group.reported else "bold"
            words = f" {span[0].above} " if _width(span) >= len(span[0].above) + 2 else span[0].above
            above.append(words.center(_width(span), "-") if group else " " * _width(span), style=style)
            above.append(" " * GAP)
        above.rstrip()
        yield above
    rule = Text("-" * _width(block), overflow="fold")
    yield _console_line([(one.padded(one.column.heading), one.style or "bold") for one in block])
    yield rule
    for row in range(layout.rows):
        yield _console_line([(one.padded(one.cells[row]), one.style) for one in block])
        if row in layout.breaks and row + 1 < layout.rows:
            yield rule


def _console_line(cells: Iterable[tuple[str, str]]) -> Text:
    """Padded texts with their styles."""
    line = Text(overflow="fold")
    for number, (text, style) in enumerate(cells):
        line.append(" " * GAP if number else "").append(text, style=style)
    line.rstrip()
    return line


def records_of(layout: Layout) -> list[dict[str, str]]:
    """Rows as `csv_text` writes them, by name of the field."""
    lines = []
    for row in range(layout.rows):
        line = {"table": _flat(layout.title)}
        notes: list[str] = []
        for column in layout.columns:
            name = _flat(f"{column.group.heading}: {column.heading}" if column.group else column.heading)
            line |= {f"{name} {part}".rstrip(): text for part, text in _csv_fields(column, row).items()}
            if column.group is not None and column.cells[row].value is not None:
                notes += column.group.notes
            notes += column.cells[row].notes
        lines.append({**line, "footnotes": "; ".join(dict.fromkeys(map(_flat, notes)))})
    return lines


def _csv_fields(column: Column, row: int) -> dict[str, str]:
    """Fields of a cell by what each is called behind the heading; of one that is absent, those of its column."""
    value = column.cells[row].value
    fields: dict[str, str] = {}
    for cell in column.cells:
        parts = cell.value._fields if isinstance(cell.value, Interval | Spread) else ("mean",)
        fields |= {"" if part == "mean" else part: "" for part in parts}
    if any(isinstance(cell.value, Interval) for cell in column.cells):
        fields.pop("", None)
    if isinstance(value, Interval | Spread):
        fields |= {"" if k == "mean" else k: _digits(v) for k, v in value._asdict().items()}
    elif value is not None:
        fields[""] = _flat(value) if isinstance(value, str) else _digits(value)
    return fields


def _digits(number: float) -> str:
    text = f"{number:.4f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _letters(notes: Sequence[str], marks: Mapping[str, str]) -> str:
    places = list(marks)
    return ",".join(marks[note] for note in sorted(map(_flat, notes), key=places.index))


def _flat(text: str) -> str:
    """One line, without doubled blanks."""
    return " ".join(text.split())


MARKDOWN_SPECIAL = {ord(c): f"\\{c}" for c in "\\|*`[]#~$"} | {38: "&amp;", 60: "&lt;", 62: "&gt;"}


def _markdown_text(text: str) -> str:
    escaped = _flat(text).translate(MARKDOWN_SPECIAL)
    # inside of words, as in hrnet_w32, an underscore means nothing
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", escaped)


def _markdown_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


LATEX_SPECIAL = {ord(c): rf"\{c}" for c in "{}&%$#_"} | {
    ord("\\"): r"\textbackslash{}",
    ord("~"): r"\textasciitilde{}",
    ord("^"): r"\textasciicircum{}",
    ord("<"): r"\textless{}",
    ord(">"): r"\textgreater{}",
    ord("|"): r"\textbar{}",
    ord("±"): r"$\pm$",
}


def _latex_text(text: str) -> str:
    escaped = _flat(text).translate(LATEX_SPECIAL).replace("--", "-{}-")
    # minus and plus of numbers, not hyphens: -0.3, +1.2, -1.0..0.4
    return re.sub(r"(?:^|(?<=\.\.))([-+])(?=\d)", r"$\1$", escaped)


def _latex_line(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"
