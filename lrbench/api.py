"""The commands as functions: same names, same options; a repeatable option is a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrbench.bench import Bench
from lrbench.cells import Cell
from lrbench.comparison import Overwrite, Selection, plan_methods, plan_table, run_planned
from lrbench.geometry import Size
from lrbench.inference import Progress, silent
from lrbench.records import Record


def train(method: str, res: str = "64x48", *, progress: Progress = silent, **options: Any) -> Path:
    """Train one method, or continue or find its run; returns the run's folder.

    Args:
        method: name.
        res: ``HxW``.
        progress: called with (what, done, total, note).
        options: other fields of `lrbench.cells.Cell`, for example ``data``, ``recipe``, ``seed``, ``runs``.

    Raises:
        ValueError: wrong usage.
        lrbench.training.TrainingError: training cannot go on.
    """
    run, _ = Bench(progress).train(Cell(method=method, res=Size.parse(res), **options))
    return run


def evaluate(method: str, res: str = "64x48", *, progress: Progress = silent, **options: Any) -> Record:
    """Score a trained method, or a file of weights (``weights=``), and keep the record.

    Args, Raises: see `train`.
    """
    return Bench(progress).evaluate(Cell(method=method, res=Size.parse(res), **options))


def compare(
    methods: Sequence[str] = (),
    res: str | Sequence[str] | None = None,
    *,
    table: str | None = None,
    seeds: Sequence[int] = (0,),
    upscalers: Sequence[str] = (),
    poses: Sequence[str] = (),
    presets: Sequence[str] = (),
    controls: bool = True,
    clean: Mapping[str, Path] | None = None,
    may_train: bool = True,
    overwrite: Overwrite = "never",
    progress: Progress = silent,
    **options: Any,
) -> dict[str, Any]:
    """Train what is missing, score all under one protocol; returns ``{"protocol": ..., "rows": [...]}``.

    With `table`, a published one such as ``cal/8``, its rows say methods, sizes and settings; `methods` and `res`,
    where given, choose among them.

    Args:
        methods: names.
        res: ``HxW``, or several; None for 64x48, or all of the table.
        table: name of a published table.
        seeds: one row each.
        upscalers, poses, presets, controls, clean: see `lrbench.comparison.Selection`.
        may_train: train what is missing.
        overwrite: score again what has a record.
        progress: called with (what, done, total, note).
        options: other fields of `lrbench.cells.Cell`.

    Raises: see `train`.
    """
    sizes = [res] if isinstance(res, str) else list(res or ([] if table else ["64x48"]))
    chosen = Selection(
        methods=methods,
        sizes=[Size.parse(size) for size in sizes],
        seeds=seeds,
        upscalers=upscalers,
        poses=poses,
        presets=presets,
        controls=controls,
        clean=clean or {},
    )
    cell = Cell(method="", res=Size(64, 48), **options)
    planned = plan_methods(cell, chosen) if table is None else plan_table(table, cell, chosen)
    return run_planned(Bench(progress), planned, may_train=may_train, overwrite=overwrite)
