"""Small console tables: one record, ceilings, listings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lrbench.records import METRICS, HeightBin, Record
from lrbench.report.numbers import interval, metric_heading, percent, signed

LABELS = ("AP", "AP50", "AP75", "AP(M)", "AP(L)", "AR", "AR50", "AR75", "AR(M)", "AR(L)")

COSTS = (("params", 1e6), ("macs", 1e9))
"""Of a network: key in a listing, and the unit in which it is printed."""


def record_summary(record: Record) -> Group:
    """The numbers of one record: COCO's ten and those of other protocols with their intervals, and the diagnosis."""
    call, protocol = record.call, record.protocol
    name = " ".join(part for part in (call.name, call.backbone, call.res) if part)
    trained = f", trained on {record.training.data}, recipe {record.training.recipe}" if record.training else ""
    title = f"{name} on {protocol.dataset}/{protocol.split}{trained}"
    made = [] if call.name == "predictions" else [f"boxes {protocol.boxes}", f"flip {'on' if protocol.flip else 'off'}"]
    about = ", ".join(
        [f"{record.counts.persons} persons in {record.counts.images} images", *made, f"record {record.key}"]
    )
    table = Table()
    rows = [(label, getattr(record.metrics, name), name) for label, name in zip(LABELS, METRICS, strict=True)]
    if all(value is None for _, value, _ in rows) and record.further:  # another measure than OKS
        rows = []
    intervals = {**record.ci95, **record.further_ci95}
    rows += [(metric_heading(name), value, name) for name, value in record.further.items()]
    table.add_column("", justify="left")
    table.add_column("%", justify="right")
    table.add_column("95 % interval", justify="right")
    for label, value, name in rows:
        table.add_row(label, percent(value), interval(intervals.get(name)))
    notes = [f"note: {note}" for note in record.settings.get("notes") or ()]
    return Group(Text(title, style="bold"), Text(about), table, *map(Text, [*notes, *diagnosis_in_words(record)]))


def diagnosis_in_words(record: Record) -> list[str]:
    """What AP does not tell of a record, a line each; nothing for records that do not say."""
    lines = []
    if record.bootstrap is not None:
        lines.append(f"intervals: over images ({record.bootstrap.resamples:,} resamples), not over trainings")
    told = record.diagnosis
    if told is None:
        return lines
    if told.heights:
        bins = (
            f"{_height(found)} {percent(found.ap)} ({interval(found.ci95)}; {found.persons})"
            for found in told.heights
            if found.persons
        )
        lines.append(f"AP by height of the person in px (interval; persons): {', '.join(bins)}")
    kinds = ", ".join(f"{kind} {percent(share)}" for kind, share in told.errors.items())
    if told.undetected is not None:
        matched = f"keypoints of matched persons, %: {kinds}; " if kinds else ""
        lines.append(f"{matched}persons not found: {percent(told.undetected)} %")
    if kinds:
        gains = ", ".join(f"{kind} {signed(gain)}" for kind, gain in told.gains.items())
        lines.append(f"AP if all errors of a kind were mended: {gains}")
    if told.pck:
        shares = ", ".join(f"PCK@{share} {percent(value)}" for share, value in told.pck.items())
        medians = [(told.pixel_error, "of the image"), (told.crop_error, "of the crop")]
        off = ", ".join(f"{error:.1f} px {where}" for error, where in medians if error is not None)
        lines.append(f"{shares} of the longer side of the box; median error {off or '-'}")
    if record.cost.latency_ms is not None:
        lines.append(f"one crop takes {record.cost.latency_ms:.1f} ms on {record.provenance.device}")
    return lines


def _height(found: HeightBin) -> str:
    return f"from {found.low:g}" if found.high is None else f"{found.low:g} to {found.high:g}"


def ceiling_table(title: dict[str, Any], rows: list[dict[str, Any]]) -> Table:
    """AP of perfect predictions, per method and size."""
    table = Table(
        title=f"Ceiling: decode(encode(truth)) on {title['dataset']}/{title['split']}, boxes {title['boxes']}, no flip"
    )
    table.add_column("Method")
    table.add_column("Size")
    for label in LABELS[:6]:
        table.add_column(label, justify="right")
    table.add_column("AP 95 % CI", justify="right")
    for row in rows:
        numbers = (percent(row["metrics"][metric]) for metric in METRICS[:6])
        table.add_row(row["method"], row["res"], *numbers, interval(row["ci95"].get("ap")))
    return table


def listing_table(kind: str, rows: list[dict[str, Any]]) -> Table:
    """Names and what they are; methods with sizes and costs."""
    if kind == "methods":
        return method_table(rows)
    table = Table(title=kind, show_lines=False)
    for column in ("name", "summary", "source"):
        table.add_column(column)
    for row in rows:
        table.add_row(row["name"], _idea(row), row["source"])
    return table


def method_table(rows: list[dict[str, Any]]) -> Table:
    """Methods: the idea, the paper, its backbone, the sizes it takes, and what it costs there."""
    counted = list(dict.fromkeys(size for row in rows for size in row["params"]))
    table = Table(title="methods", caption="params and multiply-adds with the backbone shown", show_lines=True)
    table.add_column("name", no_wrap=True)
    table.add_column("idea and paper", ratio=1)
    table.add_column("backbone", no_wrap=True)
    table.add_column("sizes", width=15)
    for column in ("params (M)", "GMACs"):
        table.add_column("\n".join([column, *counted]), justify="right", no_wrap=True)
    for row in rows:
        source = [] if row["source"] == "built-in" else [row["source"]]
        table.add_row(
            escape("\n".join([row["name"], *source])),
            escape("\n".join(filter(None, [_idea(row), row["paper"]]))),
            row["backbone"] or "-",
            " ".join(row["sizes"]),
            *("\n".join(_amount(row[key].get(size), unit) for size in counted) for key, unit in COSTS),
        )
    return table


def _idea(row: dict[str, Any]) -> str:
    return f"cannot be loaded: {row['error']}" if row["error"] else str(row["summary"])


def _amount(count: int | None, unit: float) -> str:
    """A count in a unit, with three digits or two decimals; "-" for none."""
    return "-" if count is None else f"{count / unit:.{1 if count >= 10 * unit else 2}f}"


def quality_table(name: str, quality: Mapping[str, Any]) -> Table:
    """How close an upscaler's pictures are, beside bicubic interpolation's.

    Args:
        name: of the upscaler.
        quality: as `lrbench.bench.Bench.train_upscaler` returns it.
    """
    table = Table(
        title=f"{quality['persons']} persons of the training split, held out; luma of 8-bit crops, border 4 px"
    )
    table.add_column("Upscaler")
    for label in ("PSNR (dB)", "SSIM", "gradient L1"):
        table.add_column(label, justify="right")
    for label, scores in ((name, quality), ("bicubic", quality["bicubic"])):
        table.add_row(label, f"{scores['psnr']:.2f}", f"{scores['ssim']:.4f}", f"{scores['gradient_l1']:.5f}")
    return table
