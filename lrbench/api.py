"""The commands as functions: same names, same options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lrbench.bench import Bench, Cell
from lrbench.comparison import Overwrite, Planned, on_table_backbone, plan_table, run_planned
from lrbench.geometry import Size
from lrbench.inference import Progress, silent
from lrbench.published import Entry, upscaler_of
from lrbench.records import Record


def train(method: str, res: str = "64x48", *, progress: Progress = silent, **options: Any) -> Path:
    """Train one method, or continue or find its run; returns the run's folder.

    Args:
        method: name.
        res: ``HxW``.
        progress: called with (what, done, total, note).
        options: other fields of `lrbench.bench.Cell`, for example ``data``, ``recipe``, ``seed``, ``runs``.

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
    res: str | Sequence[str] = "64x48",
    *,
    table: str | None = None,
    seeds: Sequence[int] = (0,),
    may_train: bool = True,
    overwrite: Overwrite = "never",
    progress: Progress = silent,
    **options: Any,
) -> dict[str, Any]:
    """Train what is missing, score all under one protocol; returns ``{"protocol": ..., "rows": [...]}``.

    With `table`, a published one such as ``cal/8``, its rows say methods, sizes and settings; `methods`, where given,
    chooses among them.

    Args, Raises: see `train`.
    """

    def beside(entry: Entry, seed: int) -> Cell:
        assert entry.reported.size is not None
        settings = {**options.get("settings", {}), **entry.settings}
        fields = {
            **options,
            "settings": settings,
            "sr": upscaler_of(entry.reported.sr, options.get("sr", "none")),
            "seed": seed,
        }
        return on_table_backbone(Cell(method=entry.method, res=entry.reported.size, **fields), entry)

    if table is not None:
        planned = plan_table(table, beside, methods=methods, seeds=seeds)
    else:
        sizes = [res] if isinstance(res, str) else list(res)
        planned = [
            Planned(Cell(method=name, res=Size.parse(size), seed=seed, **options))
            for size in sizes
            for name in methods
            for seed in seeds
        ]
    return run_planned(Bench(progress), planned, may_train=may_train, overwrite=overwrite)
