"""What a results folder holds, in one Markdown page: ``python -m lrbench.report.overview results/`` writes its README.

One table for every set of rows that may stand side by side: same data, boxes, flip test, pixels, recipe and training
data. Columns are sizes; how a method scores persons otherwise than usual is marked.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lrbench.geometry import Size
from lrbench.method import load_method
from lrbench.records import Record, newest, read_records, write_atomic
from lrbench.report.reported import data_in_words, degradation_in_words
from lrbench.report.tables import ABSENT, letters, percent
from lrbench.structures import Rescoring

SPEEDS = Path("benchmarks") / "methods_speed.json"
"""Images per second by method, backbone and size, as tests/benchmarks/methods_speed.py writes them."""

Cell = tuple[str, str, str, str]
"""Method, backbone, unusual settings, and how persons are scored where that is not the usual rule."""


def overview(results: Path) -> str:
    """The page.

    Args:
        results: folder of records.

    Raises:
        ValueError: a file that should be a record is none.
    """
    speeds = _speeds(results / SPEEDS)
    groups: dict[str, list[Record]] = {}
    for record in newest(read_records(results)):
        if record.status == "done" and record.call.res and record.metrics.ap is not None:
            groups.setdefault(_heading(record), []).append(record)
    # what needs no training stands in every table of its data
    for base in [h for h in groups if "; recipe " not in h]:
        trained = [h for h in groups if h.startswith(f"{base}; recipe ")]
        for heading in trained:
            groups[heading] += groups[base]
        if trained:
            del groups[base]
    parts = ["# Results", "", "Generated from the records in this folder by `python -m lrbench.report.overview`.", ""]
    for heading in sorted(groups):
        parts += [f"## {heading}", "", *_table(groups[heading], speeds), ""]
    if speeds:
        parts += [f"Images/s: {speeds['note']}.", ""]
    return "\n".join(parts)


def _heading(record: Record) -> str:
    """Everything that rows of one table share."""
    protocol, training = record.protocol, record.training
    made = degradation_in_words(protocol.degradation)
    words = [
        data_in_words(protocol.dataset, protocol.split, record.counts.persons) + f", {record.counts.persons} persons",
        "GT boxes" if protocol.boxes == "gt" else f"boxes from {protocol.boxes}",
        "flip test" if protocol.flip else "no flip test",
        "plain crops" if made == "paper" else f"pixels: {made}",
    ]
    if training is not None and training.recipe != "none":
        words.append(f"recipe {training.recipe} on {training.data}, {training.persons} persons")
    return "; ".join(words)


def _table(records: Sequence[Record], speeds: Mapping[str, Any]) -> list[str]:
    sizes = sorted({r.call.res for r in records}, key=lambda res: Size.parse(res))
    rows: dict[Cell, dict[str, list[Record]]] = {}
    for record in records:
        rows.setdefault(_cell(record), {}).setdefault(record.call.res, []).append(record)
    marks: dict[str, str] = {}
    heads, usual = ["Method", "Backbone"], dict[str, int]()
    for res in sizes:
        usual[res] = _usual_epochs(r for r in records if r.call.res == res)
        budget = f" ({usual[res]} epochs)" if usual[res] else ""
        heads += [f"AP {res}{budget}", "AR", "M params", "GMACs", "images/s"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "|".join([":--", ":--", *["--:"] * (len(heads) - 2)]) + "|"]
    for cell in sorted(rows, key=lambda cell: -max(_mean(rows[cell][res], "ap") for res in rows[cell])):
        method, backbone, settings, note = cell
        mark = f" <sup>{marks.setdefault(note, letters(len(marks)))}</sup>" if note else ""
        name = f"{method} {settings}".strip() + mark
        values = [name, backbone or ABSENT]
        for res in sizes:
            members = rows[cell].get(res, [])
            if not members:
                values += [ABSENT] * 5
                continue
            cost = members[0].cost
            values += [
                percent(_mean(members, "ap")) + _other_epochs(members, usual[res]),
                percent(_mean(members, "ar")),
                f"{(cost.params or 0) / 1e6:.2f}",
                f"{(cost.macs or 0) / 1e9:.3f}",
                speeds.get("rows", {}).get((method, backbone, res), ABSENT),
            ]
        lines.append("| " + " | ".join(values) + " |")
    lines += ["", *(f"- <sup>{letter}</sup> {text}" for text, letter in marks.items())]
    seeds = sorted({r.provenance.seed for r in records if r.provenance.seed is not None})
    return [*lines, *([""] if marks else []), f"Seeds: {', '.join(map(str, seeds))}; several are averaged."]


def _cell(record: Record) -> Cell:
    """The row of a record."""
    call = record.call
    try:
        usual = load_method(call.name, Size.parse(call.res), call.backbone or None).settings
    except ValueError:  # a plugin that is not here
        usual = {}
    changed = {k: v for k, v in call.settings.items() if k in usual and usual[k] != v}
    words = " ".join(f"{key}={value}" for key, value in sorted(changed.items()))
    protocol = record.protocol
    return call.name, call.backbone, words, Rescoring(protocol.rescoring, protocol.rescoring_form).in_words


def _usual_epochs(records: Iterable[Record]) -> int:
    """Of most trained records of a column; 0 where none is."""
    counts = Counter(r.training.epochs for r in records if r.training is not None and r.training.epochs)
    return counts.most_common(1)[0][0] if counts else 0


def _other_epochs(records: Sequence[Record], usual: int) -> str:
    """`` (2 epochs)`` behind a number whose training was longer or shorter than that of its column."""
    own = sorted({r.training.epochs for r in records if r.training is not None and r.training.epochs})
    word = "epoch" if own == [1] else "epochs"
    return f" ({' or '.join(map(str, own))} {word})" if own and own != [usual] else ""


def _mean(records: Sequence[Record], name: str) -> float:
    """Over seeds."""
    values = [float(getattr(record.metrics, name) or 0.0) for record in records]
    return sum(values) / len(values)


def _speeds(path: Path) -> dict[str, Any]:
    """Images per second by (method, backbone, size), as text, and in words how they were measured."""
    if not path.is_file():
        return {}
    facts = json.loads(path.read_text())
    rows = {(r["method"], r["backbone"], r["res"]): f"{r['images_per_second']:.0f}" for r in facts["rows"]}
    note = (
        f"forward, flip test and decoding of {facts['batch']} crops at once on {facts['processor']}, "
        f"{facts['threads']} threads, {facts['precision']}, torch {facts['torch']}; all methods in one run, read the "
        "ratios"
    )
    return {"rows": rows, "note": note}


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
    write_atomic(folder / "README.md", overview(folder).encode())
