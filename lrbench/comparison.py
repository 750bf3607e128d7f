"""Comparisons: which rows, each trained where it has to be, scored and set beside what was reported for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lrbench import evaluation, published
from lrbench.bench import Bench, MissingWeights, sr_label, start_of
from lrbench.cells import SHARED_ALIGN, Cell
from lrbench.controls import BICUBIC, SECOND_PRESET, Control, controls, row_of, upscalers_of
from lrbench.datasets import layout_of
from lrbench.datasets.coco import RULES as COCO_RULES
from lrbench.datasets.images import DataError
from lrbench.geometry import Size
from lrbench.inference import Progress, silent
from lrbench.method import costs, parse_settings, plain, setting_names, upscaler_costs
from lrbench.models.backbones import BACKBONES
from lrbench.predictions import evaluate_predictions
from lrbench.ranking import ranked
from lrbench.records import Record
from lrbench.report import reported
from lrbench.report.reported import Reported
from lrbench.report.seeds import matches_below
from lrbench.statistics import Matches
from lrbench.structures import POSES, Rescoring, unknown
from lrbench.training import TrainingError

Overwrite = Literal["never", "failed", "always"]


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """Predictions of another tool, as a row of a comparison.

    Attributes:
        path: of a COCO keypoint result.
        name: of the row; None for that of the file.
        data, split: that they belong to.
        results: folder of the record.
    """

    path: Path
    name: str | None
    data: str
    split: str
    results: Path


@dataclass(frozen=True)
class Planned:
    """One row of a comparison before it is run.

    Attributes:
        cell: what to measure; None for a row that is only reported, or of a result file.
        beside: the reported row to set beside it; None looks for one.
        reason: why nothing is measured.
        row: letter of the row in a table with controls, see `lrbench.controls.ROWS`.
        file: predictions of another tool to score.
    """

    cell: Cell | None
    beside: Reported | None = None
    reason: str = ""
    row: str = ""
    file: ResultFile | None = None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which rows a comparison has.

    Attributes:
        methods, sizes, seeds: one row each; without methods or sizes those of a table.
        upscalers: names or files, ``none`` among them for the method on the small crop. Empty for no upscaler, in a
            table for its own and the usual ones.
        poses: see `lrbench.structures.POSES`. Empty for ``sr``, in printed rows of a table for ``clean``.
        presets: of low-resolution pixels, that of a table's printed rows first. Empty for the cell's, in a table with
            controls `SECOND_PRESET` as well.
        controls: add control rows to the printed ones of a table (`lrbench.controls`).
        settings: ``KEY=VALUE`` texts; each method takes those it has.
        clean: weights of networks for crops of the enlarged size, by method.
    """

    methods: Sequence[str] = ()
    sizes: Sequence[Size] = ()
    seeds: Sequence[int] = (0,)
    upscalers: Sequence[str] = ()
    poses: Sequence[str] = ()
    presets: Sequence[str] = ()
    controls: bool = True
    settings: Sequence[str] = ()
    clean: Mapping[str, Path] = field(default_factory=dict)

    def apply(self, cell: Cell, method: str, res: Size, settings: Mapping[str, Any] | None = None) -> Cell:
        """A cell as a row of this method, with what the selection has for it.

        Raises:
            ValueError: an unknown method, or a setting of the wrong kind.
        """
        known = setting_names(method)
        own = {key: value for key, value in cell.settings.items() if key in known}
        own |= parse_settings(method, [text for text in self.settings if text.partition("=")[0] in known])
        own |= settings or {}
        return replace(cell, method=method, res=res, settings=own, clean=self.clean.get(method, cell.clean))

    def seeded(self, cell: Cell, beside: Reported | None = None, row: str = "") -> list[Planned]:
        """One row per seed.

        Raises:
            ValueError: the cell cannot be composed.
        """
        check(cell)
        return [Planned(replace(cell, seed=seed), beside, row=row) for seed in self.seeds]


def check(cell: Cell) -> None:
    """Refuse wrong usage before any work begins.

    Raises:
        ValueError: there is some.
    """
    cell.compose()
    cell.training_recipe()
    cell.training_preset()
    cell.torch_device()
    if (wanted := cell.upscaler_cell()) is not None:
        wanted.check()


def plan_methods(cell: Cell, selection: Selection) -> list[Planned]:
    """Every method at every size, behind every upscaler and on all pixels that are asked for.

    Args:
        cell: what all rows share; its method and size are not read.
        selection: of the rows.

    Raises:
        ValueError: wrong usage.
    """
    planned: list[Planned] = []
    for size in selection.sizes:
        for preset in selection.presets or (cell.lr_preset,):
            for upscaler in selection.upscalers or (cell.sr,):
                for pose in (cell.pose,) if upscaler == "none" else selection.poses or (cell.pose,):
                    row = replace(cell, lr_preset=preset, sr=upscaler, pose=pose)
                    for name in selection.methods:
                        planned += selection.seeded(selection.apply(row, name, size))
    return _on_shared_pixels(_once(planned))


def plan_table(table: str, cell: Cell, selection: Selection) -> list[Planned]:
    """Rows of a published table as they will be run; rows that cannot be measured here stay, with the reason.

    Rows with an upscaler are followed by their controls.

    Args:
        table: its name, for example ``cal/8``.
        cell: what all rows share; its backbone, where it names one, replaces those of the table; its method and size
            are not read.
        selection: of the rows.

    Raises:
        ValueError: no such table, or nothing of it is asked for.
    """
    printed: list[Planned] = []
    again: dict[tuple[Any, ...], list[Planned]] = {}
    controlled: dict[tuple[Any, ...], list[Planned]] = {}
    for pose in selection.poses:
        if pose not in POSES:  # below, it would be a row's reason
            raise ValueError(unknown("choice of pose", pose, POSES))
    first, *others = selection.presets or (cell.lr_preset, SECOND_PRESET)
    entries = published.entries(table, selection.methods, list(map(str, selection.sizes)))
    if not entries:
        raise ValueError(f"table {table} has no row of these methods and sizes; see lrbench ls tables")
    if (selection.upscalers or selection.poses) and all(entry.reported.sr == "none" for entry in entries):
        raise ValueError(f"table {table} has no row with an upscaler; name methods instead of a table to add one")
    for entry in entries:
        if not entry.method:
            printed.append(Planned(None, entry.reported, entry.reason))
            continue
        try:
            row = _of_entry(replace(cell, lr_preset=first), entry, selection)
            key = (row.method, str(row.settings), row.backbone, row.res)
            if entry.reported.sr == "none":
                printed += selection.seeded(row, entry.reported, "A")
                pixels = [replace(row, lr_preset=preset) for preset in others]
                again[key] = [item for other in pixels for item in selection.seeded(other, row="F")]
                continue
            names = upscalers_of(entry.reported.sr, selection.upscalers, quick=row.recipe_name == "quick")
            own = names[0] if names else BICUBIC
            for pose in selection.poses or ("clean",):
                printed += selection.seeded(replace(row, sr=own, pose=pose), entry.reported, row_of(own, pose))
                if not selection.controls:
                    pixels = [replace(row, sr=own, pose=pose, lr_preset=preset) for preset in others]
                    again.setdefault(key, []).extend(item for other in pixels for item in selection.seeded(other))
            if key not in controlled:
                rows = controls(names, selection.poses, first, others)
                controlled[key] = [item for c in rows for item in selection.seeded(_as(row, c), row=c.row)]
                controlled[key] += selection.seeded(replace(row, sr=own, pose="clean").clean_cell(), row="H")
        except ValueError as error:  # an upscaler or a size that this version does not have
            printed.append(Planned(None, entry.reported, str(error)))
    if controlled and selection.controls:
        beside = [item for key in again | controlled for item in again.get(key, []) + controlled.get(key, [])]
        return _on_shared_pixels(_once([*printed, *sorted(beside, key=_letter)]))
    # letters only tell controls from what is printed
    beside = [item for rows in again.values() for item in rows] if selection.presets else []
    return _on_shared_pixels(_once([replace(item, row="") for item in [*printed, *beside]]))


def _as(cell: Cell, control: Control) -> Cell:
    return replace(cell, lr_preset=control.lr_preset, sr=control.sr, pose=control.pose or cell.pose)


def _letter(item: Planned) -> str:
    return item.row


def _once(planned: list[Planned]) -> list[Planned]:
    """The same rows; one that measures what an earlier one does is left out, but for printed ones."""
    kept: list[Planned] = []
    seen: list[Cell] = []
    for item in planned:
        if item.cell is not None:
            choice = item.cell.upscaling()
            measured = item.cell if choice is None else replace(item.cell, pose=choice.pose)
            if measured in seen and item.beside is None:
                continue
            seen.append(measured)
        kept.append(item)
    return kept


def _on_shared_pixels(planned: list[Planned]) -> list[Planned]:
    """The same rows; where one has an upscaler, all read crops of the alignment that those have."""
    if not any(item.cell is not None and item.cell.sr != "none" for item in planned):
        return planned
    return [
        item
        if item.cell is None or item.cell.align is not None
        else replace(item, cell=replace(item.cell, align=SHARED_ALIGN))
        for item in planned
    ]


def _of_entry(cell: Cell, entry: published.Entry, selection: Selection) -> Cell:
    """A cell as the method of a table's row; on that row's backbone or its narrow stand-in, where it names none."""
    assert entry.reported.size is not None
    row = selection.apply(cell, entry.method, entry.reported.size, entry.settings)
    if row.backbone is not None:
        return row
    narrow = row.recipe_name == "quick"
    return replace(row, backbone=BACKBONES[entry.backbone].narrow if narrow else entry.backbone)


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
        ``{"protocol": ..., "rows": [...], "ranked": [...]}``, for the last see `lrbench.ranking.ranked`.

    Raises:
        ValueError, DataError: the referee, the boxes, weights to begin with, or a result file cannot be used, which
            shows before anything is trained.
    """
    cells = [item.cell for item in planned if item.cell is not None]
    evaluation.referees()
    if cells:
        bench.scored_persons(cells[0])  # all rows have the same
    for cell in cells:
        if not cell.continues_clean:
            start_of(cell, cell.training_recipe(), cell.compose())
    files = {file: file_row(file, bench.progress) for item in planned if (file := item.file) is not None}
    rows: list[dict[str, Any]] = []
    found: list[Matches | None] = []
    for number, item in enumerate(planned, 1):
        record, results = None, Path()
        if item.file is not None:
            row, record = files[item.file]
            results = item.file.results
        elif item.cell is None:
            assert item.beside is not None
            row = reported_only(item.beside, item.reason)
        else:
            if begin is not None:
                begin(number, item.cell)
            row, record = run_row(bench, item.cell, may_train=may_train, overwrite=overwrite, beside=item.beside)
            row["row"], results = item.row, item.cell.results
        rows.append(row)
        try:
            found.append(None if record is None else matches_below(results)(record))
        except DataError as error:  # what was measured stands, but cannot be compared
            found.append(None)
            row["notes"].append(str(error))
    protocol = protocol_of(bench, cells) if cells else {}
    if not cells and files:
        about = next(record for _, record in files.values()).protocol
        protocol = {name: getattr(about, name) for name in ("dataset", "split", "data_hash")}
    return {"protocol": protocol, "rows": rows, "ranked": ranked(rows, found)}


def run_row(
    bench: Bench,
    cell: Cell,
    *,
    may_train: bool = True,
    overwrite: Overwrite = "never",
    beside: Reported | None = None,
) -> tuple[dict[str, Any], Record | None]:
    """One row of a comparison and its record; a failure is a row that says so, not an exception.

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
        "pose": "" if method.upscaling is None else method.upscaling.pose,
        "res": str(cell.res),
        "lr_preset": cell.preset().name,
        "align": method.frame.align,
        "seed": cell.seed,
        "settings": {key: plain(value) for key, value in cell.settings.items()},
        "notes": [words] if (words := method.rescoring.in_words) else [],
    }
    # SR and pose added up: a comparison asks what the whole row costs
    row["params"], row["macs"] = (sum(pair) for pair in zip(costs(method), upscaler_costs(method), strict=True))
    record = None
    try:
        if may_train:
            bench.prepare(cell)
        record = bench.evaluate(cell, overwrite=overwrite == "always")
        row |= _measured(record)
    except MissingWeights as error:
        row["reason"] = str(error)
    except (TrainingError, FloatingPointError, RuntimeError) as error:
        row.update(status="failed", reason=str(error).split("\n", 1)[0])
    found, differences = beside, list[str]()
    if found is None and layout_of(cell.data).RULES == COCO_RULES:  # AP of other keypoints is another number
        found, differences = published.find(method, sr_label(method))
    if found is not None:
        row["reported"] = reported.comparison(found, record, backbone=method.backbone, differences=differences)
    return row, record


def file_row(file: ResultFile, progress: Progress = silent) -> tuple[dict[str, Any], Record]:
    """Predictions of another tool as a row, and their record.

    Raises: see `lrbench.predictions.evaluate_predictions`.
    """
    record = evaluate_predictions(file.path, file.data, file.split, file.results, name=file.name, progress=progress)
    known = _measured(record)
    return empty_row() | known | {
        "method": file.name or file.path.name,
        "notes": list(record.settings["notes"]),
    }, record


def _measured(record: Record) -> dict[str, Any]:
    """What a row has of its record."""
    return {
        "status": "done",
        "metrics": record.metrics.model_dump(),
        "ci95": {name: list(ends) for name, ends in record.ci95.items()},
        "further": dict(record.further),
        "further_ci95": {name: list(ends) for name, ends in record.further_ci95.items()},
        "upscaler": record.upscaler,
        "latency_ms": record.cost.latency_ms,
        "n_images": record.counts.images,
        "n_persons": record.counts.persons,
    }


def empty_row() -> dict[str, Any]:
    """A row of a comparison of which nothing is known yet."""
    return {
        "method": "",
        "backbone": "",
        "row": "",
        "sr": "none",
        "pose": "",
        "upscaler": None,
        "res": "",
        "lr_preset": "",
        "align": "",
        "seed": None,
        "settings": {},
        "status": "missing",
        "reason": "",
        "metrics": None,
        "ci95": {},
        "further": {},
        "further_ci95": {},
        "latency_ms": None,
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
        "degrade_train": cell.degrade_train,
        "sr_boundary": cell.sr_boundary,
        "sr_map": cell.sr_map,
        "degradation": dataset.source or None,
        "recipe": recipe.name,
        "recipe_numbers": plain(recipe),
        "rescoring": Rescoring().confident,
        "oks_nms": evaluation.OKS_NMS,
        "seeds": sorted({c.seed for c in cells}),
    }
