"""What a results folder holds, in one Markdown page: ``python -m lrbench.report.overview results/`` writes its README.

One table for every set of rows that may stand side by side: same data, boxes, flip test, pixels, recipe and training
data. Columns are sizes; how a method scores persons otherwise than usual is marked. What was scored behind upscalers,
with the methods on the same small crops beside it, has tables of its own, in which pixels are a column.
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
from lrbench.records import Record, Training, newest, read_records, write_atomic
from lrbench.report.numbers import ABSENT, percent
from lrbench.report.reported import data_in_words, degradation_in_words
from lrbench.report.tables import compare_markdown, letters
from lrbench.structures import POSES, Rescoring

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
    done = [
        record
        for record in newest(read_records(results))
        if record.status == "done" and record.call.res and record.metrics.ap is not None
    ]
    for record in done:
        if record.call.sr == "none" and record.protocol.align == _own_alignment(record):
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
        parts += [f"## {heading}", "", *_table(_latest(groups[heading]), speeds), ""]
    for heading, rows in _behind_upscalers(done).items():
        parts += [f"## Behind upscalers: {heading}", "", *rows, ""]
    if speeds:
        parts += [f"Images/s: {speeds['note']}.", ""]
    return "\n".join(parts)


def _behind_upscalers(records: Sequence[Record]) -> dict[str, list[str]]:
    """Tables of records with an upscaler, by heading, each with the methods on the same small crops."""
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        if record.call.sr != "none":
            group = (_heading(record, pixels=False), record.call.res, record.protocol.align)
            groups.setdefault(group, []).append(record)
    tables = {}
    for (heading, res, align), members in groups.items():
        presets = {_preset(record) for record in members}
        beside = [
            record
            for record in records
            if (record.call.sr, record.call.res, record.protocol.align) == ("none", res, align)
            and _preset(record) in presets
            and _heading(record, pixels=False) == heading
        ]
        rows = [_row(record) for record in sorted(_latest([*beside, *members]), key=_order)]
        choices = members[0].settings["upscaling"]
        shared = {"sr_boundary": choices["boundary"], "sr_map": choices["mapping"]}
        lines = compare_markdown(shared, rows).splitlines()
        first = next(number for number, line in enumerate(lines) if line.startswith("|"))  # the heading is its title
        tables[f"{heading}; crops {res}"] = lines[first:]
    return tables


def _order(record: Record) -> tuple[Any, ...]:
    pose = list(POSES).index(record.call.pose) if record.call.pose else -1
    return _preset(record) == "antialias", _preset(record), pose, record.call.sr, record.call.name, record.key


def _row(record: Record) -> dict[str, Any]:
    """A record as a row of a comparison."""
    call, cost, training = record.call, record.cost, record.training
    return {
        "method": call.name,
        "backbone": call.backbone,
        "sr": call.sr,
        "pose": call.pose,
        "upscaler": record.upscaler,
        "res": call.res,
        "lr_preset": _preset(record),
        "align": record.protocol.align,
        "seed": record.provenance.seed,
        "status": "done",
        "metrics": record.metrics.model_dump(),
        "params": (cost.params or 0) + cost.params_sr,
        "macs": (cost.macs or 0) + cost.macs_sr,
        "n_persons": record.counts.persons,
        "notes": [f"{training.epochs} {'epoch' if training.epochs == 1 else 'epochs'}{_begun(training)}"]
        if training
        else [],
    }


def _begun(training: Training) -> str:
    return " from the clean network" if training.start.startswith("clean") else ""


def _preset(record: Record) -> str:
    return degradation_in_words(record.protocol.degradation).removeprefix("crops ")


def _own_alignment(record: Record) -> str:
    """Rule by which a method's crops are cut unless it shares its pixels; that of the record for a foreign method."""
    call = record.call
    try:
        return str(load_method(call.name, Size.parse(call.res), call.backbone or None).frame.align)
    except ValueError:
        return record.protocol.align


def _latest(records: Sequence[Record]) -> list[Record]:
    """One record of each row, size and seed: the latest; earlier ones are of earlier versions of the code."""
    kept: dict[tuple[Any, ...], Record] = {}
    for record in sorted(records, key=lambda r: (r.provenance.utc, r.key)):
        call, epochs = record.call, record.training.epochs if record.training else 0
        upscaling = json.dumps(record.settings.get("upscaling"), sort_keys=True)
        kept[(_cell(record), call.res, _preset(record), upscaling, epochs, record.provenance.seed)] = record
    return list(kept.values())


def _heading(record: Record, *, pixels: bool = True) -> str:
    """Everything that rows of one table share, but for the pixels where they are a column."""
    protocol, training = record.protocol, record.training
    made = degradation_in_words(protocol.degradation)
    words = [
        data_in_words(protocol.dataset, protocol.split, record.counts.persons) + f", {record.counts.persons} persons",
        "GT boxes" if protocol.boxes == "gt" else f"boxes from {protocol.boxes}",
        "flip test" if protocol.flip else "no flip test",
    ]
    if pixels:
        words.append("plain crops" if made == "paper" else f"pixels: {made}")
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
