"""Make ``results/speed.md`` of what the speed benchmarks kept: ``python tests/benchmarks/speed_table.py``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]

FOLDER = Path(__file__).parents[2] / "results" / "benchmarks"
NOTES = Path(__file__).parents[2] / "results" / "speed_notes.md"


def page(folder: Path = FOLDER, notes: Path = NOTES) -> str:
    """The page: the notes, what has a bar, what is only stated, expectations, growth, machines."""
    files = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    kept = {name: document for name, document in files.items() if "lines" in document}
    lines = [line for document in kept.values() for line in document["lines"]]
    parts = [notes.read_text().rstrip(), "", "## Bars", "", *_table([line for line in lines if line["bar"]])]
    parts += ["", "## Expected, and what came of it", "", *_stories(lines)]
    parts += ["", "## How cost grows", "", *_growth(kept)]
    parts += ["", "## Beside these", "", *_table([line for line in lines if not line["bar"]])]
    parts += ["", "## Machines", "", *_machines(kept)]
    return "\n".join(parts) + "\n"


def _table(lines: Iterable[Line]) -> Iterable[str]:
    yield "| what | measured (lowest to highest round) | bar | | sides |"
    yield "|---|---|---|---|---|"
    for line in lines:
        rounds, unit = sorted(line["rounds"]), line["unit"]
        middle, low, high = (_number(value, unit) for value in (_median(rounds), rounds[0], rounds[-1]))
        verdict = {None: "", True: "holds", False: "**missed**"}[line["holds"]]
        sides = "; ".join(f"{name} {value:.4g}" for name, value in line["sides"].items())
        yield f"| {line['what']} | {middle} ({low} to {high}) | {_bar(line['bar'], unit)} | {verdict} | {sides} |"


def _stories(lines: Iterable[Line]) -> Iterable[str]:
    """What was written of lines, once for all that it was written of."""
    told: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        if line["expected"] or line["came"]:
            told.setdefault((line["expected"].rstrip("."), line["came"].rstrip(".")), []).append(line["what"])
    for (expected, came), names in told.items():
        words = [f"Expected: {expected}." if expected else "", f"{came}." if came else ""]
        yield f"- **{'; '.join(names)}**. {' '.join(filter(None, words))}"


def _growth(kept: Mapping[str, Any]) -> Iterable[str]:
    """Further lists of rows that benchmarks kept, as they are."""
    for name, document in kept.items():
        for key, rows in document.items():
            if key == "lines" or not isinstance(rows, list) or not rows or not isinstance(rows[0], dict):
                continue
            columns = list(dict.fromkeys(column for row in rows for column in row))
            yield f"`{name}`, {key}:"
            yield ""
            yield f"| {' | '.join(column.replace('_', ' ') for column in columns)} |"
            yield f"|{'---|' * len(columns)}"
            for row in rows:
                yield f"| {' | '.join(_cell(row.get(column)) for column in columns)} |"
            yield ""


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _machines(kept: Mapping[str, Any]) -> Iterable[str]:
    for name, document in kept.items():
        facts = document["machine"]
        device = f", {facts['gpu']}" if facts["gpu"] else ""
        load = ", ".join(f"{value:g}" for value in facts["load_average"])
        yield (
            f"- `{name}`: {facts['processor']}, {facts['cores']} cores, {facts['threads']} threads{device}; torch "
            f"{facts['torch']}, OpenCV {facts['opencv']}, numpy {facts['numpy']}; load at the end {load}"
        )


def _median(values: list[float]) -> float:
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def _number(value: float, unit: str) -> str:
    if unit == "share":
        return f"{100 * value:.1f} %"
    return f"{value:.3g}{'x' if unit == 'x' else f' {unit}'}" if value < 1000 else f"{value:.0f} {unit}"


def _bar(bar: str, unit: str) -> str:
    if not bar:
        return ""
    sign, limit = bar.split()
    return f"{sign} {_number(float(limit), unit)}".replace(">=", "≥").replace("<=", "≤")


if __name__ == "__main__":
    (FOLDER.parent / "speed.md").write_text(page())
