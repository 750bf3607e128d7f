"""What every choice of a protocol is worth, as a table for the console."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lrbench.audit import GROUPS
from lrbench.report.numbers import ABSENT, METRIC_COLUMNS, percent, signed
from lrbench.report.tables import RULED

DECLARED = "*"
"""Behind the value that the method declares, or the options of the run."""

EXPENDABLE = ("AP(M)", "AP(L)", "AR", "AP75", "AP50")
"""Columns that give way on a narrow console, in this order, and a line below it says so."""


def audit_table(document: Mapping[str, Any]) -> AuditTable:
    """An audit, for the console: a block of rows per choice, the declared value first, and warnings below.

    Args:
        document: `lrbench.audit.Audit.to_json`.

    Returns:
        Something to print with rich.
    """
    return AuditTable(document)


class AuditTable:
    """An audit for the console; fits itself to the width it is given."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Title, table, notes, warnings."""
        unlimited = options.update(width=10_000)
        for count in range(len(EXPENDABLE) + 1):
            left_out = EXPENDABLE[:count]
            table = self._table(left_out)
            if Measurement.get(console, unlimited, table).maximum <= options.max_width:
                break
        for number, line in enumerate(title(self.document)):
            yield Text(line, style="bold" if number == 0 else "")
        yield table
        yield Text()
        narrow = [f"Too narrow for: {', '.join(left_out)}."] if left_out else []
        for line in [*notes(self.document), *narrow]:
            yield Padding(Text(line, style="dim"), (0, 0, 0, 1), expand=False)
        for line in self.document["warnings"]:
            yield Padding(Text(f"Warning: {line}."), (0, 0, 0, 1), expand=False)

    def _table(self, left_out: tuple[str, ...]) -> Table:
        shown = [(heading, name) for heading, name in METRIC_COLUMNS if heading not in left_out]
        table = Table(box=RULED, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        table.add_column("Choice", no_wrap=True)
        table.add_column("Value")
        for heading, _ in shown:
            table.add_column(heading, justify="right", no_wrap=True, style="bold" if heading == "AP" else "")
        table.add_column("diff", justify="right", no_wrap=True)
        table.add_column("95% CI", justify="right", no_wrap=True)
        rows = self.document["rows"]
        choices = [row["choice"] for row in rows]
        for row, before, after in zip(rows, [None, *choices[:-1]], [*choices[1:], None], strict=True):
            table.add_row(
                Text(GROUPS[row["choice"]] if row["choice"] != before else ""),
                Text(f"{row['value']} {DECLARED}" if row["declared"] else row["value"]),
                *(Text(percent((row["metrics"] or {}).get(name))) for _, name in shown),
                Text(signed(row["difference"])),
                Text(interval(row)),
                end_section=row["choice"] != after,
            )
        return table


def title(document: Mapping[str, Any]) -> list[str]:
    """Method, data and record of an audit, in two lines."""
    call, protocol = document["call"], document["protocol"]
    front = call["sr"] if call["sr"] != "none" else ""
    name = " ".join(filter(None, [call["name"], call["backbone"], front, call["res"]]))
    return [
        f"Audit of {name} on {protocol['dataset']} {protocol['split']}, {document['counts']['persons']} persons",
        f"record {document['key']}, weights {document['weights_sha256'][:12]}",
    ]


def notes(document: Mapping[str, Any]) -> list[str]:
    """What the marks mean, and why some rows have no numbers."""
    absent: dict[str, list[str]] = {}
    for row in document["rows"]:
        if row["reason"]:
            absent.setdefault(row["reason"], []).append(row["value"])
    return [
        f"{DECLARED} as declared. diff: AP minus that of the declared value, its 95 % interval over images by paired "
        "bootstrap, ! where that excludes 0.",
        *(f"{', '.join(values)}: {reason}." for reason, values in absent.items()),
    ]


def interval(row: Mapping[str, Any]) -> str:
    """The interval of a row's difference, with an exclamation mark where the difference is resolved."""
    if row["ci95"] is None:
        return ABSENT
    low, high = (signed(bound) for bound in row["ci95"])
    return f"{low}..{high}{'!' if row['resolved'] else ' '}"
