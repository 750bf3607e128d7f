"""Comparisons: which rows, each trained where it has to be, scored and set beside what was reported for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lrbench import evaluation, published
from lrbench.bench import Bench, Cell, MissingWeights, sr_label, start_of
from lrbench.method import costs, plain, upscaler_costs
from lrbench.models.backbones import BACKBONES
from lrbench.report import reported
from lrbench.report.reported import Reported
from lrbench.structures import Rescoring
from lrbench.training import TrainingError

Overwrite = Literal["never", "failed", "always"]


@dataclass(frozen=True)
class Planned:
    """One row of a comparison before it is run.

    Attributes:
        cell: what to measure; None for a row that is only reported.
        beside: the reported row to set beside it; None looks for one.
        reason: why nothing is measured.
    """

    cell: Cell | None
    beside: Reported | None = None
    reason: str = ""


def plan_table(
    table: str,
    make: Callable[[published.Entry, int], Cell],
    *,
    methods: Sequence[str] = (),
    sizes: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
) -> list[Planned]:
    """Rows of a published table as they will be run; rows that cannot be measured here stay, with the reason.

    Args:
        table: its name, for example ``cal/8``.
        make: makes the cell of a row, given a seed.
        methods, sizes: only these; empty for all.
        seeds: one row each.

    Raises:
        ValueError: no such table, or nothing of it is asked for.
    """
    planned = []
    for entry in published.entries(table, methods, sizes):
        if not entry.method:
            planned.append(Planned(None, entry.reported, entry.reason))
            continue
        try:
            planned += [Planned(make(entry, seed), entry.reported) for seed in seeds]
        except ValueError as error:  # an upscaler or a size that this version does not have
            planned.append(Planned(None, entry.reported, str(error)))
    if not planned:
        raise ValueError(f"table {table} has no row of these methods and sizes; see lrbench ls tables")
    return planned


def on_table_backbone(cell: Cell, entry: published.Entry) -> Cell:
    """A cell on the backbone it names; where it names none, on that of a table's row or its narrow stand-in.

    Raises:
        ValueError: the method cannot take it.
    """
    if cell.backbone is None:
        quick = cell.training_recipe().name == "quick"
        name = BACKBONES[entry.backbone].narrow if quick else entry.backbone
        cell = dataclasses.replace(cell, backbone=name)
    cell.compose()
    return cell


def run_planned(
    bench: Bench,
    planned: Sequence[Planned],
    *,
    may_train: bool = True,
    overwrite: Overwrite = "never",
    begin: Callable[[int, Cell], None] | None = None,
) -> dict[str, Any]:
    """Run the rows of a comparison in order.

    Args:
        bench: opens the data.
        planned: the rows.
        may_train: train what is missing.
        overwrite: score again what has a record.
        begin: called before each row that is measured, with its number, from 1.

    Returns:
        ``{"protocol": ..., "rows": [...]}``

    Raises:
        ValueError, DataError: weights to begin with cannot be used, which shows before the first row is run.
    """
    for item in planned:
        if item.cell is not None:
            start_of(item.cell, item.cell.training_recipe(), item.cell.compose())
    rows = []
    for number, item in enumerate(planned, 1):
        if item.cell is None:
            assert item.beside is not None
            rows.append(reported_only(item.beside, item.reason))
        else:
            if begin is not None:
                begin(number, item.cell)
            rows.append(run_row(bench, item.cell, may_train=may_train, overwrite=overwrite, beside=item.beside))
    cells = [p.cell for p in planned if p.cell is not None]
    return {"protocol": protocol_of(bench, cells) if cells else {}, "rows": rows}


def run_row(
    bench: Bench,
    cell: Cell,
    *,
    may_train: bool = True,
    overwrite: Overwrite = "never",
    beside: Reported | None = None,
) -> dict[str, Any]:
    """One row of a comparison; a failure is a row that says so, not an exception.

    Args:
        bench: opens the data.
        cell: what to measure.
        may_train: train what is missing.
        overwrite: score again what has a record.
        beside: the reported row to set beside it; None looks for one.
    """
    method = cell.compose()
    row = empty_row() | {
        "method": method.name,
        "backbone": method.backbone,
        "sr": sr_label(method),
        "res": str(cell.res),
        "seed": cell.seed,
        "settings": {key: plain(value) for key, value in cell.settings.items()},
        "notes": [words] if (words := method.rescoring.in_words) else [],
    }
    # SR and pose added up: a comparison asks what the whole row costs
    row["params"], row["macs"] = (sum(pair) for pair in zip(costs(method), upscaler_costs(method), strict=True))
    record = None
    try:
        if may_train and cell.weights is None:
            bench.train(cell)
        record = bench.evaluate(cell, overwrite=overwrite == "always")
        row["status"] = "done"
    except MissingWeights as error:
        row["reason"] = str(error)
    except (TrainingError, FloatingPointError, RuntimeError) as error:
        row.update(status="failed", reason=str(error).split("\n", 1)[0])
    if record is not None:
        row["metrics"] = record.metrics.model_dump()
        row["ci95"] = {k: list(v) for k, v in record.ci95.items()}
        row["n_images"], row["n_persons"] = record.counts.images, record.counts.persons
    found, differences = (beside, []) if beside is not None else published.find(method, sr_label(method))
    if found is not None:
        row["reported"] = reported.comparison(found, record, backbone=method.backbone, differences=differences)
    return row


def empty_row() -> dict[str, Any]:
    """A row of a comparison of which nothing is known yet."""
    return {
        "method": "",
        "backbone": "",
        "sr": "none",
        "res": "",
        "seed": None,
        "settings": {},
        "status": "missing",
        "reason": "",
        "metrics": None,
        "ci95": {},
        "notes": [],
        "reported": None,
        "params": None,
        "macs": None,
        "n_images": None,
        "n_persons": None,
    }


def reported_only(beside: Reported, reason: str) -> dict[str, Any]:
    """A row of a published table that nothing here measures."""
    return empty_row() | {
        "method": beside.method,
        "backbone": beside.backbone,
        "sr": beside.sr,
        "res": str(beside.size or ""),
        "reason": reason,
        "reported": reported.comparison(beside),
    }


def protocol_of(bench: Bench, cells: Sequence[Cell]) -> dict[str, Any]:
    """What all rows of a comparison share; the seeds are listed."""
    cell = cells[0]
    dataset = bench.dataset(cell.data, cell.split)
    trained = bench.dataset(cell.train_data or cell.data, cell.train_split)
    recipe = cell.training_recipe()
    return {
        "dataset": dataset.name,
        "split": cell.split,
        "data_hash": dataset.hash,
        "n_images": len(dataset.images.id),
        "n_persons": len(dataset.persons),
        "train_data": f"{trained.name}/{cell.train_split}",
        "train_persons": len(trained.persons),
        "boxes": cell.boxes if cell.boxes == "gt" else Path(cell.boxes).name,
        "flip": cell.flip,
        "lr_preset": cell.preset().name,
        "severity": cell.preset().severity or None,
        "degradation": dataset.source or None,
        "recipe": recipe.name,
        "recipe_numbers": plain(recipe),
        "rescoring": Rescoring().confident,
        "oks_nms": evaluation.OKS_NMS,
        "seeds": sorted({c.seed for c in cells}),
    }
