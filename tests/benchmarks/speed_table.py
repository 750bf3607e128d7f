"""Make ``results/speed.md`` of what the speed benchmarks kept: ``python tests/benchmarks/speed_table.py``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "results" / "benchmarks"
NOTES = Path(__file__).parents[2] / "results" / "speed_notes.md"


def page(folder: Path = FOLDER, notes: Path = NOTES) -> str:
    """The page: the notes, a table of all lines, and what was expected and what came of it."""
    files = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    kept = {name: document for name, document in files.items() if "lines" in document}
    parts = [notes.read_text().rstrip(), "", "## Bars", "", *_table(kept), "", "## Expected, and what came of it", ""]
    parts += _stories(kept)
    parts += ["", "## Machines", "", *_machines(kept)]
    return "\n".join(parts) + "\n"


def _table(kept: Mapping[str, Any]) -> Iterable[str]:
    yield "| what | measured (lowest to highest round) | bar | | sides |"
    yield "|---|---|---|---|---|"
    for document in kept.values():
        for line in document["lines"]:
            rounds, unit = sorted(line["rounds"]), line["unit"]
            middle, low, high = (_number(value, unit) for value in (_median(rounds), rounds[0], rounds[-1]))
            verdict = {None: "", True: "holds", False: "**missed**"}[line["holds"]]
            sides = "; ".join(f"{name} {value:g}" for name, value in line["sides"].items())
            yield f"| {line['what']} | {middle} ({low} to {high}) | {_bar(line['bar'], unit)} | {verdict} | {sides} |"


def _stories(kept: Mapping[str, Any]) -> Iterable[str]:
    for document in kept.values():
        for line in document["lines"]:
            if line["expected"] or line["came"]:
                expected = f" Expected: {line['expected'].rstrip('.')}." if line["expected"] else ""
                came = f" {line['came'].rstrip('.')}." if line["came"] else ""
                yield f"- **{line['what']}**.{expected}{came}"


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
