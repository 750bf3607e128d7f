"""Tables of what upscalers are worth: the rows of a table with controls, by letter, from records."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from lrbench.controls import ROWS, row_of
from lrbench.geometry import Size, enlarged_size
from lrbench.records import Record
from lrbench.report.formats import Cell, Column, Group, Interval, Layout
from lrbench.report.leaderboard import Scoring, amount
from lrbench.report.reported import PLAIN_CROPS, degradation_in_words
from lrbench.report.seeds import ReadMatches, interval, pooled, seeds_of
from lrbench.report.tables import upscaling_in_words
from lrbench.statistics import difference

Rows = dict[tuple[str, str, str], dict[str, list[Record]]]
"""Records by letter, upscaler and choice of pose, then by pixels."""

PLAIN = "paper"
"""Pixels of the published code."""


def super_resolution(records: Sequence[Record], matches: ReadMatches) -> Iterator[Layout]:
    """One table for each method behind upscalers: rows A to H (`lrbench.controls.ROWS`), kinds of pixels side by side.

    Row F of that list, everything again on other pixels, is the further columns. Differences are to row B on the same
    pixels, enlarging that needs no learning; their intervals are paired, from the matches beside the records.

    Args:
        records: with AP.
        matches: of the records.
    """
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        if record.call.sr != "none" and record.call.res:
            groups.setdefault(_task(record), []).append(record)
    for _, upscaled in sorted(groups.items(), key=lambda item: str(item[0])):
        yield _table(upscaled, _rows(upscaled, records), matches)


def _rows(upscaled: Sequence[Record], records: Iterable[Record]) -> Rows:
    rows: Rows = {}

    def add(letter: str, pose: str, record: Record) -> None:
        rows.setdefault((letter, record.call.sr, pose), {}).setdefault(_pixels(record), []).append(record)

    pixels = {_pixels(record) for record in upscaled}
    clean = {
        (record.provenance.weights_sha256, str(_seen(record))) for record in upscaled if record.call.pose == "clean"
    }
    for record in upscaled:
        add(row_of(record.call.sr.split()[0], record.call.pose), record.call.pose, record)
    for record in records:
        if record.call.sr != "none" or record.protocol.data_hash != upscaled[0].protocol.data_hash:
            continue
        if _task(record) == _task(upscaled[0]) and _pixels(record) in pixels:
            add("A", "", record)
        # the very networks of rows B and C, on crops of the size that they saw there
        if (record.provenance.weights_sha256, record.call.res) in clean:
            add("H", "", record)
    order = list(ROWS)
    return {key: _latest_of_seeds(rows[key]) for key in sorted(rows, key=lambda key: (order.index(key[0]), key[1:]))}


def _table(upscaled: Sequence[Record], rows: Rows, matches: ReadMatches) -> Layout:
    first = upscaled[0]
    pixels = sorted({_pixels(record) for record in upscaled}, key=lambda words: (words != PLAIN, words))
    sizes = [next(iter(by_pixels.values()))[0].call.res for by_pixels in rows.values()]
    columns = [
        Column("Row", [Cell(letter) for letter, _, _ in rows]),
        Column("Upscaler", [Cell(sr) for _, sr, _ in rows]),
        Column("Pose", [Cell(pose) for _, _, pose in rows]),
        Column("Crops", [Cell(size) for size in sizes]),
        Column("GMACs", [Cell(_macs(by_pixels)) for by_pixels in rows.values()], decimals=2),
    ]
    for words in pixels:
        group = Group(f"pixels {words}")
        own = [by_pixels.get(words, []) for by_pixels in rows.values()]
        columns.append(Column("AP", [Cell(pooled(each, "ap")) for each in own], group))
        columns.append(Column("95% CI", [Cell(interval(each, "ap", matches)) for each in own], group))
        reference = next((each for (letter, _, _), each in zip(rows, own, strict=True) if letter == "B"), [])
        gaps = [
            _gap(each, reference, matches) if each and reference and letter not in "BH" else (None, None)
            for (letter, _, _), each in zip(rows, own, strict=True)
        ]
        columns.append(Column("to B", [Cell(gap) for gap, _ in gaps], group, signed=True))
        columns.append(Column("to B 95% CI", [Cell(ends) for _, ends in gaps], group, signed=True))
    scored = Scoring.of(first).in_words.rpartition("; ")[0]  # pixels are columns
    title = f"{first.call.name}, {first.call.backbone}: {scored}; crops {first.call.res}"
    return Layout(title, columns, _captions(upscaled, rows, pixels))


def _captions(upscaled: Sequence[Record], rows: Rows, pixels: Sequence[str]) -> list[str]:
    """What the letters, pixels, poses and upscalers are."""
    choice = upscaled[0].settings.get("upscaling") or {}
    told = [
        {
            "row": letter,
            "sr": sr,
            "pose": pose,
            "align": None if letter == "H" else record.protocol.align,  # it reads no small crops
            "lr_preset": words.split()[0],
            "upscaler": record.upscaler,
        }
        for words in pixels
        for (letter, sr, pose), by_pixels in rows.items()
        for record in by_pixels.get(words, [])
    ]
    lines = upscaling_in_words({"sr_boundary": choice.get("boundary"), "sr_map": choice.get("mapping")}, told)
    if len(pixels) > 1:
        lines.append(f"Row F is the further columns: {ROWS['F']}.")
    return [*lines, "To B: AP minus that of row B on the same pixels, and its paired interval over images."]


def _gap(own: Sequence[Record], reference: Sequence[Record], matches: ReadMatches) -> tuple[float, Interval | None]:
    """Difference of two rows in AP, percent, and its paired interval where all their records have matches."""
    ours, theirs = seeds_of(own, matches), seeds_of(reference, matches)
    paired = difference(ours, theirs) if ours is not None and theirs is not None else None
    if paired is not None:
        return 100 * paired.value, Interval(100 * paired.low, 100 * paired.high)
    mean, other = (statistics.fmean(record.metrics.ap or 0.0 for record in row) for row in (own, reference))
    return 100 * (mean - other), None


def _task(record: Record) -> tuple[Any, ...]:
    """What all rows of a table but H share: method, size and alignment of the crops, and how they are scored."""
    call, scoring = record.call, replace(Scoring.of(record), pixels="")
    return (call.name, call.backbone, call.res, record.protocol.align, *vars(scoring).values())


def _pixels(record: Record) -> str:
    words = degradation_in_words(record.protocol.degradation)
    return PLAIN if words in PLAIN_CROPS else words.removeprefix("crops ")


def _seen(record: Record) -> Size:
    """Size of the crops that the network behind an upscaler sees."""
    return enlarged_size(Size.parse(record.call.res), int(record.settings["upscaling"]["scale"]))


def _macs(by_pixels: dict[str, list[Record]]) -> float | None:
    """Multiply-adds of upscaler and network, 1e9."""
    cost = next(iter(by_pixels.values()))[0].cost
    return amount(cost.macs, cost.macs_sr, 1e9)


def _latest_of_seeds(by_pixels: dict[str, list[Record]]) -> dict[str, list[Record]]:
    """Of every seed the latest record; earlier ones are of earlier versions of the code."""
    kept: dict[str, dict[int | None, Record]] = {}
    for words, records in by_pixels.items():
        for record in sorted(records, key=lambda r: (r.provenance.utc, r.key)):
            kept.setdefault(words, {})[record.provenance.seed] = record
    return {words: list(of_seeds.values()) for words, of_seeds in kept.items()}
