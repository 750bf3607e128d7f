"""What papers report: read, found again by method and size, and set against what was measured.

The CSV files in ``reported/`` hold one row per printed number, in percent, with a note that says under which protocol
it was printed. A reported number is never a measured one: `comparison` lists, in words, everything in which the two
protocols are known to differ, and everything the paper leaves open.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from lrbench.geometry import Size
from lrbench.records import Counts, Metrics, Protocol, Record, Training
from lrbench.structures import COCO

COLUMNS = (
    "source", "table", "dataset", "split", "method", "backbone", "sr", "input_h", "input_w", "params_m", "gflops",
    "ap", "ap50", "ap75", "ap_m", "ap_l", "ar", "note",
)  # fmt: skip
"""Header of every CSV file."""

PERCENTAGES = ("ap", "ap50", "ap75", "ap_m", "ap_l", "ar")
"""Columns in percent; fractions once read."""

COCO_PERSONS = {"train2017": 149_813, "val2017": 6_352}
"""Persons with keypoints in the whole COCO splits; a run on fewer is not a run on COCO."""

PLAIN_CROPS = ("paper", "none")
"""Degradations whose crops are the published code's: bilinear, without a filter."""

READ_AT_011 = ("deep-high-resolution-net", "microsoft/human-pose-estimation", "DarkPose", "UDP-Pose")
"""Sources whose code prints PCKh at 0.11 as PCKh@0.1; the last two took its evaluation from the first."""

LOW_RESOLUTION_PAPER = "arXiv:2109.09090"
"""The one paper that compares several methods at 64x48 and 128x96 under one protocol; its rows win over the others'."""


@dataclass(frozen=True)
class Reported:
    """One row that a paper or its repository prints.

    Attributes:
        source: the paper or page.
        table: of the source, as the source calls it.
        dataset, split: what was scored, for example ``COCO`` and ``val2017``; the split is empty when not stated.
        method, backbone: as printed.
        sr: upscaler in front of the network, ``none`` for none.
        size: of the crop before any upscaler; None when not stated.
        params_m: parameters, millions.
        gflops: as printed, which for most papers are multiply-adds, 1e9.
        ap, ap50, ap75, ap_m, ap_l, ar: fractions; None when not printed.
        note: everything else known about the row, clauses separated by semicolons.
    """

    source: str
    table: str
    dataset: str
    split: str
    method: str
    backbone: str
    sr: str
    size: Size | None
    params_m: float | None
    gflops: float | None
    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_m: float | None
    ap_l: float | None
    ar: float | None
    note: str


@dataclass(frozen=True)
class PublishedTable:
    """One line of the list of published tables.

    Attributes:
        name: file and table, for example ``sr/2``.
        title: source and table in words, with what was scored.
        sizes: of the crops, smallest first.
        rows: how many.
    """

    name: str
    title: str
    sizes: tuple[Size, ...]
    rows: int


@cache
def read_reported() -> tuple[Reported, ...]:
    """Every reported row, file by file in order of their names.

    Raises:
        ValueError: a bad row; the message names file and line.
    """
    return tuple(row for rows in _files().values() for row in rows)


def read_csv(text: str, name: str) -> tuple[Reported, ...]:
    """Rows of one CSV file.

    Args:
        text: of the file.
        name: of the file, for messages.

    Raises:
        ValueError: another header, a row with too few or too many cells, no source or method, half a size, or a number
            that is none or, for a percentage, outside of 0 to 100.
    """
    reader = csv.reader(io.StringIO(text))
    header = next(reader, [])
    if tuple(header) != COLUMNS:
        raise ValueError(f"{name} line 1: the header is {','.join(header)!r}; expected {','.join(COLUMNS)!r}")
    rows = []
    for cells in reader:
        try:
            if len(cells) != len(COLUMNS):
                raise ValueError(f"{len(cells)} cells, expected {len(COLUMNS)}")
            rows.append(_row(dict(zip(COLUMNS, cells, strict=True))))
        except ValueError as error:
            raise ValueError(f"{name} line {reader.line_num}: {error}") from None
    return tuple(rows)


def find(labels: Sequence[str], backbone: str, size: Size, sr: str = "none") -> Reported | None:
    """What is reported for a method at one size.

    Only COCO rows with an AP at exactly this size and with the same upscaler count. Of several, the first wins by:

    1. backbone: the same one; else the one of the same family whose number (width, depth) is nearest as a ratio, the
       smaller one on a tie (``resnet_18`` finds ResNet-50 before ResNet-101); else other families, by name;
    2. split: val2017, test-dev2017, others;
    3. training data: COCO alone before COCO with more;
    4. source: the low-resolution paper, so that the rows of one comparison come from one place, before others;
    5. table of that paper: 8 (the comparison), 2, others;
    6. order of `labels`, then of the files.

    Args:
        labels: names under which papers report the method, matched whole but regardless of case.
        backbone: as this project or a paper spells it: ``resnet_50`` and ``ResNet-50`` are the same.
        size: of the crop before any upscaler.
        sr: the upscaler.

    Returns:
        The row, or None when nothing is reported at that size.
    """
    ranks = {label.casefold(): rank for rank, label in reversed(list(enumerate(labels)))}
    candidates = [
        row
        for row in read_reported()
        if row.dataset == "COCO"
        and row.ap is not None
        and row.size == size
        and row.method.casefold() in ranks
        and _plain(row.sr) == _plain(sr or "none")
    ]

    def preference(row: Reported) -> tuple[Any, ...]:
        from_paper = row.source == LOW_RESOLUTION_PAPER
        return (
            _distance(backbone, row.backbone),
            {"val2017": 0, "test-dev2017": 1}.get(row.split, 2),
            extra_training_data(row) != "",
            not from_paper,
            {"8": 0, "2": 1}.get(row.table, 2) if from_paper else 0,
            ranks[row.method.casefold()],
        )

    return min(candidates, key=preference, default=None)


def tables() -> list[PublishedTable]:
    """All published tables, in order of their files."""
    listed = []
    for name, rows in _tables().items():
        scored = dict.fromkeys(f"{row.dataset} {row.split}".strip() for row in rows)
        title = f"{table_in_words(rows[0].source, rows[0].table)}: {', '.join(scored)}"
        sizes = tuple(sorted({row.size for row in rows if row.size is not None}))
        listed.append(PublishedTable(name, title, sizes, len(rows)))
    return listed


def table(name: str) -> tuple[Reported, ...]:
    """Rows of a published table.

    Raises:
        ValueError: no such table; the message has the closest names.
    """
    known = _tables()
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"for example {', '.join(list(known)[-3:])}"
    raise ValueError(f"unknown table {name!r}; {hint}")


def comparison(
    reported: Reported,
    record: Record | None = None,
    metrics: Metrics | None = None,
    *,
    backbone: str = "",
    differences: Sequence[str] = (),
) -> dict[str, Any]:
    """A reported row as the ``reported`` object of a row of results.

    Args:
        reported: the row.
        record: what was measured; None when nothing was.
        metrics: to compare with; those of the record when None.
        backbone: of the row when there is no record.
        differences: further ones that the caller knows of, in words.

    Returns:
        Plain JSON: where the number comes from, its metrics as fractions, ``delta_ap`` = measured - reported, and
        ``protocol_differs``. ``delta_ap`` is None unless both were scored on the whole of COCO val2017: a difference
        between two datasets says nothing. It still mixes every difference that ``protocol_differs`` lists.
    """
    listed = list(differences)
    delta = None
    if record is None:
        listed += protocol_differences(reported, backbone=backbone)
    else:
        listed += protocol_differences(
            reported,
            backbone=record.call.backbone or backbone,
            protocol=record.protocol,
            training=record.training,
            counts=record.counts,
        )
        if record.training is None:
            listed.append("training: none recorded")
        if record.call.res and reported.size is not None and record.call.res != str(reported.size):
            listed.append(f"size: {record.call.res}, reported at {reported.size}")
        if _plain(record.call.sr or "none") != _plain(reported.sr):
            listed.append(f"upscaler: {record.call.sr}, reported with {reported.sr}")
        measured = (metrics or record.metrics).ap
        on_coco = is_coco(record.protocol.dataset, record.protocol.split, record.counts.persons, "val2017")
        same_data = on_coco and (reported.dataset, reported.split) == ("COCO", "val2017")
        if same_data and measured is not None and reported.ap is not None:
            delta = round(measured - reported.ap, 6)
    return {
        "source": reported.source,
        "table": reported.table,
        "dataset": reported.dataset,
        "split": reported.split,
        "method": reported.method,
        "backbone": reported.backbone,
        "size": None if reported.size is None else str(reported.size),
        "sr": reported.sr,
        "boxes": reported_boxes(reported),
        **{name: getattr(reported, name) for name in PERCENTAGES},
        "delta_ap": delta,
        "protocol_differs": list(dict.fromkeys(listed)),
        "note": reported.note,
    }


def protocol_differences(
    reported: Reported,
    *,
    backbone: str = "",
    protocol: Protocol | None = None,
    training: Training | None = None,
    counts: Counts | None = None,
) -> list[str]:
    """In what a measurement differs from a reported one, or may differ because the report does not say.

    Args:
        reported: the row.
        backbone: of the measurement; empty for unknown or none.
        protocol: of the measurement; None leaves its differences out.
        training: of the measured weights; None leaves its differences out.
        counts: of the measurement; with them a part of COCO is not taken for COCO.

    Returns:
        One short sentence each, the thing that differs first: ``backbone: resnet_18, reported ResNet-50``.
    """
    listed = []
    if protocol is not None:
        listed += _scoring_differences(reported, protocol, counts)
    if backbone and _plain(backbone) != _plain(reported.backbone):
        listed.append(f"backbone: {backbone}, reported {reported.backbone or 'without naming one'}")
    if training is not None:
        listed += _training_differences(reported, training)
    return listed


def reported_boxes(reported: Reported) -> str:
    """Boxes of a reported row, from its note: of annotations, of a detector, or ``boxes not stated``.

    The low-resolution paper's tables 2 to 8 do not state them; their notes say that annotated boxes are inferred.
    """
    note = reported.note
    if re.search(r"GT boxes \(?inferred|probably GT boxes", note):
        return "GT boxes (inferred)"
    if re.search(r"GT boxes|boxes: Ground Truth", note):
        return "GT boxes"
    if re.search(r"detect(or|ion)", note, re.IGNORECASE):
        quality = re.search(r"person AP (\d\d\.\d)|(\d\d\.\d)[- ]AP", note)
        return f"detector boxes ({quality[1] or quality[2]} AP)" if quality else "detector boxes"
    return "boxes not stated"


def further_metrics(reported: Reported) -> dict[str, float]:
    """Metrics of other protocols than COCO's, which rows have in their notes, as fractions by their names in records.

    ``pckh50`` and ``pckh10``, of all joints, ``pckh50_wrist`` of one; ``ap_easy``, ``ap_medium`` and ``ap_hard``. What
    the released HRNet code and its descendants print as PCKh@0.1 is ``pckh11``, see `lrbench.pckh`.
    """
    found = {}
    for threshold, numbers in re.findall(r"PCKh@0\.(\d)(.*?)(?=PCKh@|;|$)", reported.note):
        for joint, number in re.findall(r"(\w*)=(\d+\.?\d*)", numbers):
            name = "pckh11" if threshold == "1" and _read_at_011(reported) else f"pckh{threshold}0"
            name += "" if joint in ("", "mean") else f"_{joint}"
            found[name] = round(float(number) / 100, 6)
    for level, number in re.findall(r"AP_(easy|medium|hard)=(\d+\.?\d*)", reported.note):
        found[f"ap_{level}"] = round(float(number) / 100, 6)
    return found


def has_reported_measure(record: Record) -> bool:
    """Whether a record has what `find` finds: AP of COCO's keypoints."""
    return record.metrics.ap is not None and set(record.keypoint_ap) <= set(COCO.keypoints)


def _read_at_011(reported: Reported) -> bool:
    return "0.11" in reported.note or any(code in reported.source for code in READ_AT_011)


def reported_start(reported: Reported) -> str:
    """What the training of a reported row started from, from its note; empty where that is not stated."""
    note = reported.note
    if "scratch" in note or "no ImageNet" in note:
        return "random weights"
    weights = re.search(r"pre-trained on ([^;,]+)|initialised from an? ([^;,]+)", note)
    if weights:
        return f"weights of {weights[1] or weights[2]}"
    return "ImageNet weights" if "ImageNet" in note else ""


def extra_training_data(reported: Reported) -> str:
    """The clause of a note that names training data besides COCO; empty for none."""
    for clause in re.split(r"; |, (?=trained)", reported.note):
        if re.search(r"AI Challenger|\bAIC\b|in-house|COCO\+", clause):
            return clause.removeprefix("+ ").strip()
    return ""


def table_in_words(source: str, table: str) -> str:
    """Where a number is printed: ``arXiv:2109.09090, table 8``."""
    return f"{source}, table {table}" if table.isdigit() else f"{source}, {table}"


def is_coco(dataset: str, split: str, persons: int | None, coco_split: str) -> bool:
    """Whether data is the whole of a COCO split: by its name, and by its number of persons where that is known."""
    named = dataset.casefold() in ("coco", "coco2017") and split in (coco_split, coco_split.removesuffix("2017"))
    return named and persons in (None, COCO_PERSONS[coco_split])


def data_in_words(dataset: str, split: str, persons: int | None = None) -> str:
    """Name of measured data, with what keeps it from being COCO: ``synth val (rendered pictures, not COCO)``.

    Args:
        dataset: its name.
        split: scored split.
        persons: scored; None when unknown.
    """
    if is_coco(dataset, split, persons, "val2017"):
        return "COCO val2017"
    if is_coco(dataset, split, None, "val2017"):
        return f"{persons} persons of COCO val2017, not all {COCO_PERSONS['val2017']}"
    kind = "rendered pictures, not COCO" if dataset == "synth" else "not COCO val2017"
    return f"{dataset} {split} ({kind})"


def degradation_in_words(degradation: Mapping[str, Any]) -> str:
    """How low-resolution pixels were made, in words; ``paper`` for plain bilinear crops of images as they are.

    Args:
        degradation: as records keep it: ``crop`` is the preset that cut the crops, ``dataset``, if there, says how the
            images themselves had been made small.
    """
    crop = degradation.get("crop") or "paper"
    name = str(crop["name"] if isinstance(crop, Mapping) else crop)
    severity = crop.get("severity") if isinstance(crop, Mapping) else degradation.get("severity")
    words = [] if name in PLAIN_CROPS else [f"crops {name}" + (f" severity {severity}" if severity else "")]
    made = degradation.get("dataset")
    if made:
        details = [f"{key} {made[key]}" for key in ("scale", "size", "level", "severity") if made.get(key) is not None]
        words.append(" ".join(["images", str(made.get("preset", "degraded")), *details]))
    return " and ".join(words) or "paper"


def _scoring_differences(reported: Reported, protocol: Protocol, counts: Counts | None) -> list[str]:
    listed = []
    persons = counts.persons if counts is not None else None
    scored = f"{reported.dataset} {reported.split or '(split not stated)'}"
    data = data_in_words(protocol.dataset, protocol.split, persons)
    if data != scored:
        listed.append(f"data: {data}, reported on {scored}")
    boxes = reported_boxes(reported)
    annotated = protocol.boxes == "gt"
    mine = "GT" if annotated else f"file {protocol.boxes}"
    if "not stated" in boxes:
        listed.append(f"boxes: {mine}, reported ones not stated")
    elif annotated != boxes.startswith("GT") or not annotated:
        # two detection files are equal only if somebody compared them, so a file always differs
        listed.append(f"boxes: {mine}, reported with {boxes}")
    states = "flip test" in reported.note
    if not states:
        listed.append(f"flip test: {'on' if protocol.flip else 'off'}, not stated in the report")
    elif not protocol.flip:
        listed.append("flip test: off, reported with it")
    degradation = degradation_in_words(protocol.degradation)
    if degradation != "paper":
        listed.append(f"pixels: {degradation}, reported on plain crops")
    return listed


def _training_differences(reported: Reported, training: Training) -> list[str]:
    listed = []
    if training.recipe == "none":
        listed.append("training: none")
        return listed
    if training.recipe != "paper":
        listed.append(f"recipe: {training.recipe}, {training.epochs} epochs, not the paper's")
    dataset, _, split = training.data.partition("/")
    extra = extra_training_data(reported)
    if not is_coco(dataset, split, training.persons, "train2017"):
        part = is_coco(dataset, split, None, "train2017")
        data = f"{training.persons} persons of COCO train2017" if part else training.data
        listed.append(f"training data: {data}, reported with {extra or 'COCO train2017'}")
    elif extra:
        listed.append(f"training data: COCO train2017, reported with {extra}")
    start, theirs = training.start, reported_start(reported)
    # the tables that do not say it are of papers that all begin with ImageNet weights
    same = start == "scratch" if theirs == "random weights" else start.startswith("imagenet") and "COCO" not in theirs
    if not same:
        mine = "random weights" if start == "scratch" else abbreviated(start)
        listed.append(f"start: {mine}, reported {f'from {theirs}' if theirs else 'start not stated'}")
    return listed


@cache
def _files() -> dict[str, tuple[Reported, ...]]:
    folder = resources.files("lrbench.report") / "reported"
    paths = sorted((p for p in folder.iterdir() if p.name.endswith(".csv")), key=lambda p: p.name)
    return {path.name: read_csv(path.read_text(encoding="utf-8"), path.name) for path in paths}


@cache
def _tables() -> dict[str, tuple[Reported, ...]]:
    named: dict[str, tuple[Reported, ...]] = {}
    for file, rows in _files().items():
        groups: dict[tuple[str, str], list[Reported]] = {}
        for row in rows:
            groups.setdefault((row.source, row.table), []).append(row)
        prefix = file.removesuffix(".csv").partition("_")[0]
        # a table's own name is enough, unless two sources of the file use the same one
        ambiguous = len({title for _, title in groups}) < len(groups)
        for (source, title), members in groups.items():
            page = re.sub(r" \(.*|github\.com/[^/]+/", "", source)
            parts = [prefix, *([_slug(page)] if ambiguous else []), _slug(title)]
            name = "/".join(parts)
            assert name not in named, f"two published tables are called {name}"
            named[name] = tuple(members)
    return named


def _row(cells: Mapping[str, str]) -> Reported:
    for name in ("source", "dataset", "method"):
        if not cells[name]:
            raise ValueError(f"{name} is empty")
    numbers = {name: _number(name, cells[name]) for name in ("params_m", "gflops", *PERCENTAGES)}
    for name in PERCENTAGES:
        value = numbers[name]
        if value is not None:
            if value > 100:
                raise ValueError(f"{name} is {cells[name]}; expected percent, 0 to 100")
            numbers[name] = round(value / 100, 6)
    return Reported(
        source=cells["source"],
        table=cells["table"],
        dataset=cells["dataset"],
        split=cells["split"],
        method=cells["method"],
        backbone=cells["backbone"],
        sr=cells["sr"] or "none",
        size=_size(cells),
        note=cells["note"],
        **numbers,
    )


def _number(name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}; expected a number") from None
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} is {text}; expected a number of at least 0")
    return value


def _size(cells: Mapping[str, str]) -> Size | None:
    height, width = cells["input_h"], cells["input_w"]
    if not height and not width:
        return None
    size = Size.parse(f"{height}x{width}")
    # rows with an upscaler may give the network's input; the crop that was enlarged is then in the note
    crop = re.match(r"source crop (\d+x\d+)", cells["note"])
    return Size.parse(crop[1]) if crop else size


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _slug(text: str) -> str:
    """A name for the command line: words joined by hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", text.casefold()).strip("-")


def _distance(wanted: str, offered: str) -> tuple[Any, ...]:
    """Sorts backbones by nearness to a wanted one: itself, its family by ratio of their numbers, then by name."""
    if _plain(wanted) == _plain(offered):
        return (0,)
    family, number = _family(wanted)
    other, other_number = _family(offered)
    if family == other and number and other_number:
        return (1, round(abs(math.log(other_number / number)), 9), other_number)
    return (2, other, other_number)


def _family(backbone: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.*?)(\d+)", _plain(backbone))
    return (match[1], int(match[2])) if match else (_plain(backbone), 0)


def abbreviated(text: str) -> str:
    """Hashes cut to eight hexadecimal digits, for people; records keep them longer."""
    return re.sub(r"\b(sha256:[0-9a-f]{8})[0-9a-f]+", r"\1", text)
