"""Small console tables: one record, ceilings, listings."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from lrbench.records import METRICS, Record

LABELS = ("AP", "AP50", "AP75", "AP(M)", "AP(L)", "AR", "AR50", "AR75", "AR(M)", "AR(L)")


def percent(value: float | None) -> str:
    """A fraction as percent with one decimal; "-" for what was not measured."""
    return "-" if value is None else f"{100 * value:.1f}"


def record_summary(record: Record) -> Table:
    """The ten numbers of one record."""
    call, protocol = record.call, record.protocol
    name = " ".join(part for part in (call.name, call.backbone, call.res) if part)
    trained = f", trained on {record.training.data}, recipe {record.training.recipe}" if record.training else ""
    table = Table(
        title=f"{name} on {protocol.dataset}/{protocol.split}{trained}",
        caption=f"{record.counts.persons} persons in {record.counts.images} images, boxes {protocol.boxes}, "
        f"flip {'on' if protocol.flip else 'off'}, record {record.key}",
    )
    for label in LABELS:
        table.add_column(label, justify="right")
    table.add_row(*(percent(getattr(record.metrics, metric)) for metric in METRICS))
    return table


def ceiling_table(title: dict[str, Any], rows: list[dict[str, Any]]) -> Table:
    """AP of perfect predictions, per method and size."""
    table = Table(
        title=f"Ceiling: decode(encode(truth)) on {title['dataset']}/{title['split']}, boxes {title['boxes']}, no flip"
    )
    table.add_column("Method")
    table.add_column("Size")
    for label in LABELS[:6]:
        table.add_column(label, justify="right")
    for row in rows:
        table.add_row(row["method"], row["res"], *(percent(row["metrics"][metric]) for metric in METRICS[:6]))
    return table


def listing_table(kind: str, rows: list[dict[str, Any]]) -> Table:
    """Names and what they are."""
    table = Table(title=kind, show_lines=False)
    for column in ("name", "summary", "paper", "source"):
        table.add_column(column)
    for row in rows:
        error = row["error"]
        table.add_row(
            row["name"], f"cannot be loaded: {error}" if error else row["summary"], row["paper"], row["source"]
        )
    return table
