"""The command line: parse, call the API, print. Heavy imports live inside the commands, so that --help is instant."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from lrbench.cells import Cell, UpscalerCell
    from lrbench.comparison import ResultFile
    from lrbench.console import Reporter
    from lrbench.method import Method
    from lrbench.records import Record
    from lrbench.report.formats import Layout
    from lrbench.timing import Stopwatch

FAILED, USAGE, DATA, INTERRUPTED = 1, 2, 3, 130
CORES = os.cpu_count() or 1
LOADERS = max(1, min(8, CORES // 2))  # one thread per two cores keeps up with the network and leaves it the cores
Overwrite = Literal["never", "failed", "always"]
Level = Literal["image", "crop", "height"]
PairsKind = Literal["bicubic", "matched"]
Figures = Literal["svg", "png", "both"]

app = typer.Typer(
    name="lrbench",
    help="Benchmark for human pose estimation from low-resolution images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Verify a dataset, or make the embedded one.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Res = Annotated[str, typer.Option("--res", help="Crop size, HEIGHTxWIDTH.", metavar="HxW")]
ResList = Annotated[list[str], typer.Option("--res", help="Crop size, HEIGHTxWIDTH; repeatable.", metavar="HxW")]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="synth, coco, or a folder in the layout of COCO, MPII or CrowdPose.",
        envvar="LRBENCH_DATA",
        metavar="DATA",
    ),
]
TrainData = Annotated[str | None, typer.Option("--train-data", help="Train on other data than --data.", metavar="DATA")]
Backbone = Annotated[str | None, typer.Option("--backbone", help="Default: the paper's; quick: its narrow stand-in.")]
Align = Annotated[
    str | None,
    typer.Option("--align", help="Rule of the crop: own, biased, dark, corner. Default: own; with an upscaler corner."),
]
Sr = Annotated[str, typer.Option("--sr", help="Upscaler in front of the network: a name, or a file of weights.")]
SrScale = Annotated[int, typer.Option("--sr-scale", "--scale", help="Factor of the upscaler.")]
SrBoundary = Annotated[str, typer.Option("--sr-boundary", help="u8 or float: pixels between upscaler and network.")]
SrMap = Annotated[str, typer.Option("--sr-map", help="composed (exact) or naive: how px of the enlarged crop go back.")]
SrPairs = Annotated[
    PairsKind, typer.Option("--sr-pairs", "--pairs", help="Upscaler's training: shrunk by bicubic, or as scored.")
]
SrEpochs = Annotated[int | None, typer.Option("--sr-epochs", help="Of an upscaler that has to be trained.")]
Pose = Annotated[
    str,
    typer.Option("--pose", help="What the network behind an upscaler is trained on: clean, up, sr, mix, joint, tdp."),
]
Clean = Annotated[
    Path | None, typer.Option("--clean", help="Weights for crops of the enlarged size, for --pose clean or a start.")
]
AdaptEpochs = Annotated[
    int | None, typer.Option("--adapt-epochs", help="Of a network that continues from a clean one; default a quarter.")
]
DegradeTrain = Annotated[
    str, typer.Option("--degrade-train", help="Training pixels: same as scored, none, mix, or a preset.")
]
Preset = Annotated[str, typer.Option("--lr-preset", help="How low-resolution pixels are made.")]
Severity = Annotated[int | None, typer.Option("--severity", help="Of --lr-preset, 1 (mild) to 5 (hard).")]
LrSeed = Annotated[int, typer.Option("--lr-seed", help="Of --lr-preset in scoring, where it draws random numbers.")]
Boxes = Annotated[str, typer.Option("--boxes", help="gt, or a COCO detection file.", metavar="gt|FILE")]
Flip = Annotated[bool, typer.Option("--flip/--no-flip", help="Average with the mirrored crop.")]
Split = Annotated[str, typer.Option("--split", help="Split that is scored.")]
TrainSplit = Annotated[str, typer.Option("--train-split", help="Split that is trained on.")]
RecipeName = Annotated[str | None, typer.Option("--recipe", help="quick (default on synth) or paper (elsewhere).")]
Epochs = Annotated[int | None, typer.Option("--epochs", help="Instead of the recipe's.")]
BatchSize = Annotated[int | None, typer.Option("--batch", help="Instead of the recipe's.")]
Seed = Annotated[int, typer.Option("--seed")]
SeedList = Annotated[list[int], typer.Option("--seed", help="Repeatable.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Precision = Annotated[str | None, typer.Option("--precision", help="Of training: 32-true, bf16-mixed ...")]
Compile = Annotated[
    bool | None,
    typer.Option("--compile/--no-compile", help="The network, for training. Default: on a GPU.", show_default=False),
]
Workers = Annotated[int, typer.Option("--workers", help="Threads that cut crops.", min=0)]
Cache = Annotated[
    float | None,
    typer.Option(
        "--cache", help="GB of disk for decoded pictures, 0 for none. Default: 32, if memory is too small.", min=0
    ),
]
Runs = Annotated[Path, typer.Option("--runs", help="Folder of training runs.")]
Results = Annotated[Path, typer.Option("--results", help="Folder of records.")]
Set = Annotated[list[str], typer.Option("--set", help="Override one number of the method.", metavar="KEY=VALUE")]
Plugin = Annotated[list[Path], typer.Option("--plugin", help="File that defines a method.", metavar="FILE")]
Weights = Annotated[Path | None, typer.Option("--weights", help="Score these weights instead of a run's.")]
Start = Annotated[Path | None, typer.Option("--start", help="Weights to begin training with; all that fits is used.")]
Pretrained = Annotated[
    list[str],
    typer.Option("--pretrained", help="Begin with this backbone: a file, or a name such as resnet50-19c8e357; "
                 "repeatable, each method takes its own.", metavar="FILE|NAME"),
]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Tracebacks of errors.")]


@contextmanager
def errors(verbose: bool = False) -> Iterator[None]:
    """Turn errors a user can cause into one line on stderr and the right exit code."""
    from lrbench.datasets.images import DataError

    code, message = 0, ""
    try:
        yield
    except typer.Exit:  # a RuntimeError, but no failure
        raise
    except KeyboardInterrupt:
        code, message = INTERRUPTED, "interrupted; whole epochs and finished files are kept, the same command continues"
    except DataError as error:
        code, message = DATA, str(error)
    except ValueError as error:
        code, message = USAGE, str(error)
    except (RuntimeError, FloatingPointError, OSError) as error:
        if verbose:
            raise
        code, message = FAILED, f"{type(error).__name__}: {error}" if isinstance(error, OSError) else str(error)
    if code:
        print(f"lrbench: {' '.join(message.split())}", file=sys.stderr, flush=True)
        raise typer.Exit(code)


def main() -> None:
    """Entry point of the command."""
    app()


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="See lrbench ls methods; or an upscaler, see lrbench ls upscalers.")],
    res: Res = "64x48",
    data: Data = "synth",
    backbone: Backbone = None,
    align: Align = None,
    sr: Sr = "none",
    sr_scale: SrScale = 4,
    sr_boundary: SrBoundary = "u8",
    sr_map: SrMap = "composed",
    sr_pairs: SrPairs = "bicubic",
    sr_epochs: SrEpochs = None,
    pose: Pose = "sr",
    clean: Clean = None,
    adapt_epochs: AdaptEpochs = None,
    features: Annotated[
        Path | None, typer.Option("--features", help="Of an upscaler: weights of VGG-19 or of a trained pose network.")
    ] = None,
    lr_preset: Preset = "paper",
    severity: Severity = None,
    degrade_train: DegradeTrain = "same",
    split: Split = "val",
    train_split: TrainSplit = "train",
    recipe: RecipeName = None,
    epochs: Epochs = None,
    batch: BatchSize = None,
    seed: Seed = 0,
    start: Start = None,
    pretrained: Pretrained = [],
    device: Device = "auto",
    precision: Precision = None,
    compile: Compile = None,
    workers: Workers = LOADERS,
    cache: Cache = None,
    runs: Runs = Path("runs"),
    settings: Set = [],
    plugin: Plugin = [],
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train one method, or an upscaler; the same command continues a run that was stopped."""
    given = dict(locals())
    with errors(verbose), reporter(quiet) as report:
        from lrbench.bench import Bench, check_writable
        from lrbench.method import method_names
        from lrbench.models.upscalers import UPSCALERS

        report.context = method
        quality: dict[str, Any] = {}
        if method in UPSCALERS and method not in method_names():
            upscaler = make_upscaler(given)
            check_writable(runs)
            bench = Bench(report)
            run, trained, quality = bench.train_upscaler(upscaler)
        elif features is not None:
            raise ValueError(f"--features {features}: belongs to the training of an upscaler, {method} is a method")
        else:
            cell = make_cell(given)
            check_writable(runs)
            report.say(announcement(cell))
            bench = Bench(report)
            run, trained = bench.train(cell)
        summary = {
            "run": str(run),
            "weights": str(trained.weights),
            "epochs": trained.epochs,
            "seconds": round(trained.seconds, 1),
            "images_per_second": trained.images_per_second,
            "data_wait": trained.data_wait,
            "times": {phase: round(seconds, 3) for phase, seconds in bench.times.seconds.items()},
            **({"quality": quality} if quality else {}),
        }
        report.say(where(bench.times))
        if as_json:
            print(json.dumps(summary))
            return
        speed = f", {trained.images_per_second:.0f} images/s" if trained.images_per_second else ""
        wait = f", {100 * trained.data_wait:.1f} % of it waiting for data" if trained.data_wait is not None else ""
        print(f"{method} {res}: {trained.epochs} epochs in {trained.seconds:.0f} s{speed}{wait}")
        if quality:
            from lrbench.report.summaries import quality_table

            show(quality_table(method, quality))
        print(f"run: {run}")


@app.command()
def eval(
    method: Annotated[str | None, typer.Argument(help="None with --predictions.")] = None,
    res: Annotated[
        str | None,
        typer.Option("--res", help="Crop size, HEIGHTxWIDTH. Default: that of --weights, else 64x48.", metavar="HxW"),
    ] = None,
    data: Data = "synth",
    train_data: TrainData = None,
    backbone: Backbone = None,
    align: Align = None,
    sr: Sr = "none",
    sr_scale: SrScale = 4,
    sr_boundary: SrBoundary = "u8",
    sr_map: SrMap = "composed",
    sr_pairs: SrPairs = "bicubic",
    sr_epochs: SrEpochs = None,
    pose: Pose = "sr",
    clean: Clean = None,
    adapt_epochs: AdaptEpochs = None,
    lr_preset: Preset = "paper",
    severity: Severity = None,
    lr_seed: LrSeed = 0,
    degrade_train: DegradeTrain = "same",
    boxes: Boxes = "gt",
    flip: Flip = True,
    split: Split = "val",
    train_split: TrainSplit = "train",
    recipe: RecipeName = None,
    epochs: Epochs = None,
    batch: BatchSize = None,
    seed: Seed = 0,
    weights: Weights = None,
    start: Start = None,
    pretrained: Pretrained = [],
    predictions: Annotated[Path | None, typer.Option("--predictions", help="Score a COCO keypoint result.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="What tables call --predictions.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Score the kept predictions of all records of --data again; no METHOD.")
    ] = False,
    with_audit: Annotated[
        bool, typer.Option("--audit", help="Decode one forward pass in every published way: what each choice is worth.")
    ] = False,
    export: Annotated[
        Path | None, typer.Option("--export-testdev", help="Write a COCO test-dev submission.", metavar="FOLDER")
    ] = None,
    device: Device = "auto",
    precision: Precision = None,
    compile: Compile = None,
    workers: Workers = LOADERS,
    cache: Cache = None,
    runs: Runs = Path("runs"),
    results: Results = Path("results"),
    settings: Set = [],
    plugin: Plugin = [],
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score a trained method, a file of weights, or the result file of another tool, and keep the record."""
    given = dict(locals())
    with errors(verbose), reporter(quiet) as report:
        from lrbench.bench import Bench, check_writable
        from lrbench.predictions import evaluate_predictions
        from lrbench.report.summaries import record_summary
        from lrbench.weights import stated_size

        check_one_of(given)
        if export is not None:
            written = submit(given, export, report)
            report.close()
            print(json.dumps(written) if as_json else "\n".join([written["file"], *written["notes"]]))
            return
        check_writable(results)
        if again:
            from lrbench.reevaluation import score_again

            paths = list(map(str, score_again(results, data, split, progress=report)))
            report.close()
            print(json.dumps({"records": paths}) if as_json else "\n".join(paths))
            return
        audited = None
        if predictions is not None:
            record = evaluate_predictions(predictions, data, split, results, name=name, progress=report)
        else:
            size = res or (stated_size(weights) if weights else None) or "64x48"
            cell = make_cell(given | {"res": size})
            report.context = cell.method
            bench = Bench(report)
            if with_audit:
                from lrbench.audit import audit, check

                check(bench.dataset(data, split))
            record = bench.evaluate(cell)
            if with_audit:
                audited = audit(bench, cell, record).to_json()
            report.say(where(bench.times))
        report.close()
        if as_json:
            print(json.dumps({**record.to_json(), **({"audit": audited} if audited else {})}))
        else:
            show(record_summary(record))
            if audited:
                from lrbench.report.audits import audit_table

                show(audit_table(audited))


@app.command()
def compare(
    methods: Annotated[list[str] | None, typer.Argument(help="See lrbench ls methods; none with --table.")] = None,
    res: Annotated[
        list[str] | None,
        typer.Option(
            "--res", help="Crop size, HEIGHTxWIDTH; repeatable. Default: 64x48, or the table's.", metavar="HxW"
        ),
    ] = None,
    table: Annotated[
        str | None, typer.Option("--table", help="A published table, for example cal/8; see lrbench ls tables.")
    ] = None,
    data: Data = "synth",
    train_data: TrainData = None,
    backbone: Backbone = None,
    align: Align = None,
    sr: Annotated[
        list[str], typer.Option("--sr", help="Upscaler: a name, a file of weights, or none; repeatable.")
    ] = [],
    sr_scale: SrScale = 4,
    sr_boundary: SrBoundary = "u8",
    sr_map: SrMap = "composed",
    sr_pairs: SrPairs = "bicubic",
    sr_epochs: SrEpochs = None,
    pose: Annotated[
        list[str],
        typer.Option(
            "--pose", help="What networks behind upscalers are trained on: clean, up, sr, mix, joint, tdp; repeatable."
        ),
    ] = [],
    clean: Annotated[
        list[str],
        typer.Option("--clean", help="Weights for crops of the enlarged size; repeatable.", metavar="METHOD=FILE"),
    ] = [],
    adapt_epochs: AdaptEpochs = None,
    with_controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="Control rows in a table with upscalers.")
    ] = True,
    lr_preset: Annotated[
        list[str], typer.Option("--lr-preset", help="How low-resolution pixels are made; repeatable. Default: paper.")
    ] = [],
    severity: Severity = None,
    lr_seed: LrSeed = 0,
    degrade_train: DegradeTrain = "same",
    boxes: Boxes = "gt",
    flip: Flip = True,
    split: Split = "val",
    train_split: TrainSplit = "train",
    recipe: RecipeName = None,
    epochs: Epochs = None,
    batch: BatchSize = None,
    seed: SeedList = [0],
    start: Start = None,
    pretrained: Pretrained = [],
    may_train: Annotated[bool, typer.Option("--train/--no-train", help="Train what is missing.")] = True,
    overwrite: Annotated[Overwrite, typer.Option("--overwrite", help="Score again what has a record.")] = "never",
    predictions: Annotated[
        list[str],
        typer.Option(
            "--predictions", help="A COCO keypoint result of another tool as a row; repeatable.", metavar="[NAME=]FILE"
        ),
    ] = [],
    strip: Annotated[
        Path | None, typer.Option("--strip", help="Draw one person through all rows, in a PNG file.", metavar="FILE")
    ] = None,
    person: Annotated[int | None, typer.Option("--person", help="Annotation id, for --strip.")] = None,
    device: Device = "auto",
    precision: Precision = None,
    compile: Compile = None,
    workers: Workers = LOADERS,
    cache: Cache = None,
    runs: Runs = Path("runs"),
    results: Results = Path("results"),
    settings: Set = [],
    plugin: Plugin = [],
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train what is missing, score all under one protocol, and print one table beside the papers' numbers."""
    given = dict(locals())
    with errors(verbose), reporter(quiet) as report:
        from lrbench.bench import Bench, check_writable
        from lrbench.cells import Cell
        from lrbench.comparison import Planned, Selection, plan_methods, plan_table, run_planned
        from lrbench.geometry import Size
        from lrbench.method import load_plugin

        if not methods and table is None and not predictions:
            raise ValueError("compare needs at least one METHOD, --table NAME, or --predictions FILE")
        for path in plugin:
            load_plugin(path)
        if table is None and set(sr) <= {"none"}:
            check_upscaler_options(given)
        selection = Selection(
            methods=methods or (),
            sizes=[Size.parse(size) for size in res or ([] if table else ["64x48"])],
            seeds=seed,
            upscalers=sr,
            poses=pose,
            presets=lr_preset,
            controls=with_controls,
            settings=settings,
            clean=by_method(clean),
        )
        repeated = ("sr", "pose", "lr_preset", "seed", "clean", "settings", "res")
        shared = Cell(method="", res=Size(64, 48), **fields_of(Cell, given, but=repeated))
        planned = plan_methods(shared, selection) if table is None else plan_table(table, shared, selection)
        planned += [Planned(None, file=file) for file in result_files(predictions, data, split, results)]
        check_settings([item.cell.method for item in planned if item.cell] if table else methods or [], settings)
        check_writable(runs)
        check_writable(results)
        cells = [item.cell for item in planned if item.cell]
        if cells:
            report.say(announcement(cells[0]))

        def begin(number: int, cell: Cell) -> None:
            front = "" if cell.sr == "none" else f" {Path(cell.sr).name} {cell.pose}"
            report.context = f"[{number}/{len(planned)}] {cell.method} {cell.res}{front}"

        bench = Bench(report)
        if strip is not None and cells:
            bench.dataset(data, split).row_of(person)  # a person that is not there shows before anything is trained
        outcome = run_planned(bench, planned, may_train=may_train, overwrite=overwrite, begin=begin)
        report.say(where(bench.times))
        if as_json:
            print(json.dumps(outcome))
        else:
            from lrbench.report.tables import compare_table

            show(compare_table(outcome["protocol"], outcome["rows"], outcome["ranked"]))
        if strip is not None and cells:
            from lrbench.report.strip import strip as draw

            report.say(f"strip: {draw(bench, cells, strip, person=person)}")
    if any(row["status"] == "failed" for row in outcome["rows"]):
        raise typer.Exit(FAILED)


@app.command()
def ceiling(
    methods: Annotated[list[str] | None, typer.Argument(help="Default: all.")] = None,
    res: ResList = ["64x48"],
    data: Data = "synth",
    split: Split = "val",
    settings: Set = [],
    plugin: Plugin = [],
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """AP of decode(encode(truth)): what a perfect network could reach with each method's codec."""
    with errors(verbose), reporter(quiet) as report:
        from lrbench.bench import Bench
        from lrbench.cells import Cell
        from lrbench.comparison import Selection
        from lrbench.geometry import Size
        from lrbench.method import load_plugin, method_names
        from lrbench.report.summaries import ceiling_table

        bench = Bench(report)
        for path in plugin:
            load_plugin(path)
        names = methods or method_names()
        check_settings(names, settings)
        selection = Selection(settings=settings)
        shared = Cell(method="", res=Size(64, 48), data=data, split=split, recipe="quick")
        cells = [selection.apply(shared, name, Size.parse(size)) for name in names for size in res]
        rows = []
        for cell in cells:
            rows.append({"method": cell.method, "res": str(cell.res), **bench.ceiling(cell)})
        report.close()
        dataset = bench.dataset(data, split)
        title = {"dataset": dataset.name, "split": split, "boxes": "gt", "data_hash": dataset.hash}
        if as_json:
            print(json.dumps({"protocol": title, "rows": rows}))
        else:
            show(ceiling_table(title, rows))


@app.command()
def degrade(
    source: Annotated[Path, typer.Argument(help="Dataset in COCO layout.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; with --preview, a PNG file.")],
    preset: Annotated[str, typer.Option("--preset", help="See lrbench ls degradations.")] = "antialias",
    level: Annotated[Level, typer.Option("--level")] = "image",
    scale: Annotated[float | None, typer.Option("--scale", help="Shrink factor of images.")] = None,
    res: Annotated[str | None, typer.Option("--res", help="Size of crops, HxW.")] = None,
    height: Annotated[int | None, typer.Option("--height", help="Of persons in px, level height.")] = None,
    severity: Annotated[int | None, typer.Option("--severity", help="1 (mild) to 5 (hard).")] = None,
    boxes: Annotated[Path | None, typer.Option("--boxes", help="Detection file to map along.")] = None,
    split: Split = "val",
    seed: Seed = 0,
    workers: Annotated[int, typer.Option("--workers", help="Processes.", min=1)] = CORES,
    preview: Annotated[bool, typer.Option("--preview", help="Draw one person through all presets and sizes.")] = False,
    person: Annotated[int | None, typer.Option("--person", help="Annotation id, for --preview.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Recompute and list differences; write nothing.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a low-resolution copy of a dataset, annotations mapped exactly."""
    with errors(verbose), reporter(quiet) as report:
        from lrbench.datasets import degraded
        from lrbench.geometry import Size

        if preview:
            from lrbench.datasets.coco import read
            from lrbench.report.preview import preview as draw

            path = draw(read(source, split), out, person=person, severity=severity, seed=seed)
            print(json.dumps({"file": str(path)}) if as_json else path)
            return
        if verify:
            differences = degraded.verify(out, source)
            report.close()
            if as_json:
                print(json.dumps({"out": str(out), "differences": differences}))
            else:
                print("\n".join(differences) or f"{out}: identical")
            raise typer.Exit(FAILED if differences else 0)
        manifest = degraded.degrade(
            source,
            out,
            split=split,
            preset=preset,
            level=level,
            scale=scale,
            size=Size.parse(res) if res else None,
            height=height,
            severity=severity,
            seed=seed,
            workers=workers,
            boxes=boxes,
            progress=lambda done, total: report("degrade", done, total),
        )
        report.close()
        if as_json:
            print(json.dumps(manifest))
        else:
            print(f"{out}: {len(manifest['images'])} images, preset {preset}, level {level}")


@app.command()
def plot(
    results: Annotated[Path, typer.Argument(help="Folder of records.")] = Path("results"),
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the figures.")] = None,
    files: Annotated[Figures, typer.Option("--format", help="Of the files.")] = "svg",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Draw AP over resolution, per keypoint, over severity and over person height, from records."""
    with errors(verbose):
        from lrbench.listing import reported_labels
        from lrbench.report.plots import plot as draw

        paths = draw(results, out, labels=reported_labels, formats=("svg", "png") if files == "both" else (files,))
        print(json.dumps({"files": [str(p) for p in paths]}) if as_json else "\n".join(map(str, paths)))


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="Folder of records.")] = Path("results"),
    table: Annotated[
        list[str],
        typer.Option(
            "--table",
            help="Published tables in their own layout, for example cal/8; repeatable. "
            "Default: a leaderboard of all records.",
        ),
    ] = [],
    html: Annotated[
        Path | None, typer.Option("--html", help="Folder for one self-contained page of all records.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="File to write the tables to.")] = None,
    latex: Annotated[Path | None, typer.Option("--latex", help="The same, for LaTeX with booktabs.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="The same, as comma-separated values.")] = None,
    readme: Annotated[
        bool, typer.Option("--readme", help="Write README.md and its figures into the folder of records.")
    ] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Set what was measured beside what was reported: tables, in files too, and a page to browse."""
    with errors(verbose):
        from lrbench.records import newest, read_records, write_atomic
        from lrbench.report import formats

        files: list[Path] = []
        layouts = []
        if table or markdown or latex or csv or not (html or readme):
            layouts = tables_of(newest(read_records(results)), table, results)
        for path, text in (
            (markdown, "\n".join(map(formats.markdown, layouts))),
            (latex, "\n".join(map(formats.latex, layouts))),
            (csv, formats.csv_text(*layouts)),
        ):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, text.encode())
                files.append(path)
        if html is not None:
            from lrbench.report.page import write_page

            files.append(write_page(results, html))
        if readme:
            from lrbench.report import readme as page_of_results

            files += page_of_results.write(results)
        if as_json:
            tables = [{"title": layout.title, "rows": formats.records_of(layout)} for layout in layouts]
            print(json.dumps({"files": list(map(str, files)), "tables": tables}))
        elif files:
            print("\n".join(map(str, files)))
        else:
            for number, layout in enumerate(layouts):
                show("\n" if number else "")
                show(formats.console(layout))


@app.command()
def describe(
    method: Annotated[str, typer.Argument()],
    res: Res = "64x48",
    backbone: Backbone = None,
    sr: Sr = "none",
    sr_scale: SrScale = 4,
    sr_boundary: SrBoundary = "u8",
    sr_map: SrMap = "composed",
    settings: Set = [],
    plugin: Plugin = [],
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Parameters, multiply-adds, shapes and every setting of a method."""
    with errors(verbose):
        cell = make_cell({**locals(), "recipe": "paper"})
        facts = description(cell.compose())
        if as_json:
            print(json.dumps(facts))
        else:
            from rich.pretty import Pretty

            print(f"{facts['method']} {facts['backbone']} {facts['res']}".replace("  ", " "))
            print(f"parameters {facts['params']:,}, multiply-adds {facts['macs']:,}, outputs {facts['outputs']}")
            show(Pretty(facts["settings"], expand_all=True))


@app.command("ls")
def list_names(
    kind: Annotated[
        str, typer.Argument(help="methods, backbones, upscalers, degradations, datasets, tables.")
    ] = "methods",
    plugin: Plugin = [],
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List what there is; methods with their papers, the sizes they take, parameters and multiply-adds."""
    with errors(verbose), reporter(quiet) as report:
        from lrbench.listing import listing

        rows = listing(kind, plugin, report)
        report.close()
        if as_json:
            print(json.dumps({kind: rows}))
        else:
            from lrbench.report.summaries import listing_table

            show(listing_table(kind, rows))


@data_app.command("check")
def data_check(
    data: Data = "synth",
    split: Annotated[list[str], typer.Option("--split", help="Repeatable.")] = ["train", "val"],
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Read every annotation and decode every picture; stop at the first that is wrong."""
    with errors(verbose), reporter(quiet) as report:
        from lrbench.datasets import open_dataset
        from lrbench.datasets.images import read_image

        facts: list[dict[str, Any]] = []
        for name in split:
            dataset = open_dataset(data, name, progress=report)
            for row, path in enumerate(dataset.images.path):
                height, width = (int(v) for v in dataset.images.size[row])
                read_image(path, (height, width))
                report(f"check {name}", row + 1, len(dataset.images.path))
            facts.append({"dataset": dataset.name, "split": name, "images": len(dataset.images.id),
                          "persons": len(dataset.persons), "left_out": dict(dataset.dropped),
                          "hash": dataset.hash})  # fmt: skip
        report.close()
        if as_json:
            print(json.dumps({"splits": facts}))
        else:
            for fact in facts:
                left = ", ".join(f"{n} {reason}" for reason, n in fact["left_out"].items()) or "none"
                print(f"{fact['dataset']}/{fact['split']}: {fact['images']} images, {fact['persons']} persons to crop; "
                      f"annotations left out: {left}; hash {fact['hash'][:16]}")  # fmt: skip


@data_app.command("synth")
def data_synth(
    workers: Annotated[int, typer.Option("--workers", help="Processes.", min=1)] = CORES,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make the embedded dataset, if it is not there yet, and print where it lies."""
    with errors(verbose), reporter(quiet) as report:
        from lrbench.datasets import folder_of

        _, root = folder_of("synth", workers=workers, progress=report)
        report.close()
        print(root)


@data_app.command("clear")
def data_clear(as_json: Json = False, verbose: Verbose = False) -> None:
    """Remove what was kept to be faster next time: decoded pictures and read annotations; no run, no dataset."""
    with errors(verbose):
        from lrbench.datasets import cache, decoded

        freed = {"annotations": cache.clear(), "pictures": decoded.clear()}
        if as_json:
            print(json.dumps({"freed_bytes": freed}))
        else:
            for kind, number in freed.items():
                print(f"{kind}: {number / 1e6:.1f} MB removed")


def where(times: Stopwatch) -> str:
    """The line that long work ends with."""
    return f"where the time went: {times.in_words or 'nothing was left to do'}"


@contextmanager
def reporter(quiet: bool) -> Iterator[Reporter]:
    """Progress on stderr."""
    from lrbench.console import Reporter

    with Reporter(quiet) as report:
        yield report


def make_cell(given: Mapping[str, Any]) -> Cell:
    """A cell from the options of a command; wrong usage shows before any work begins.

    Args:
        given: options by name, among them ``method``, ``res``, ``settings`` and ``plugin``.
    """
    from lrbench.cells import Cell
    from lrbench.comparison import check
    from lrbench.geometry import Size
    from lrbench.method import load_plugin, parse_settings

    for path in given["plugin"]:
        load_plugin(path)
    method = given["method"]
    chosen = {"res": Size.parse(given["res"]), "settings": parse_settings(method, given["settings"])}
    if given["sr"] == "none":
        check_upscaler_options(given)
    cell = Cell(**fields_of(Cell, given) | chosen)
    check(cell)
    if cell.clean is not None:
        check_file(f"--clean {cell.clean}", cell.clean)
    return cell


def make_upscaler(given: Mapping[str, Any]) -> UpscalerCell:
    """The training of an upscaler from the options of a command.

    Raises:
        ValueError: wrong usage, or an option that only methods have.
    """
    from lrbench.cells import Cell, UpscalerCell
    from lrbench.geometry import Size

    name = given["method"]
    if given["settings"]:
        raise ValueError(f"--set {given['settings'][0]}: {name} is an upscaler and has no settings")
    beside = {f.name for f in dataclasses.fields(Cell)} - {f.name for f in dataclasses.fields(UpscalerCell)}
    for field in dataclasses.fields(Cell):
        renamed = ("method", "settings", "sr_scale", "sr_pairs")
        default = [] if field.name == "pretrained" else field.default
        if field.name in beside and field.name not in renamed and given.get(field.name, default) != default:
            option = f"--{field.name.replace('_', '-')} {given[field.name]}"
            raise ValueError(f"{option}: belongs to the training of methods, {name} is an upscaler")
    named = {"upscaler": name, "res": Size.parse(given["res"]), "scale": given["sr_scale"], "pairs": given["sr_pairs"]}
    cell = UpscalerCell(**fields_of(UpscalerCell, given) | named)
    cell.check()
    return cell


def fields_of(kind: type[Any], given: Mapping[str, Any], but: Sequence[str] = ()) -> dict[str, Any]:
    """Those of a command's options that are fields of a cell, but for some."""
    return {f.name: given[f.name] for f in dataclasses.fields(kind) if f.name in given and f.name not in but}


def check_upscaler_options(given: Mapping[str, Any]) -> None:
    """Refuse options of upscalers where there is none.

    Args:
        given: options by name; of repeatable ones the list.

    Raises:
        ValueError: there is one.
    """
    from lrbench.cells import Cell

    theirs = ("sr_boundary", "sr_epochs", "sr_map", "sr_pairs", "sr_scale", "pose", "clean", "adapt_epochs")
    for field in dataclasses.fields(Cell):
        value = given.get(field.name, field.default)
        if field.name in theirs and value not in (field.default, []):
            option = f"--{field.name.replace('_', '-')} {' '.join(value) if isinstance(value, list) else value}"
            raise ValueError(f"{option}: there is no upscaler; give --sr NAME, see lrbench ls upscalers")


def tables_of(found: Sequence[Record], names: Sequence[str], results: Path) -> list[Layout]:
    """Published tables of these names; without names a leaderboard of all records, and what they say of resolution.

    Raises:
        ValueError: no such table, or no records for a leaderboard.
    """
    from lrbench.report.leaderboard import leaderboard
    from lrbench.report.papers import paper_table
    from lrbench.report.readme import resolutions
    from lrbench.report.seeds import matches_below

    matches = matches_below(results)
    if names:
        return [paper_table(name, found, matches) for name in names]
    if not found:
        raise ValueError(f"results {results}: no records; make some with lrbench eval or lrbench compare")
    return [*leaderboard(found, matches), *resolutions(found)]


def check_one_of(given: Mapping[str, Any]) -> None:
    """Refuse options of eval that do not go together.

    Raises:
        ValueError: they do not.
    """
    method, predictions, again = given["method"], given["predictions"], given["again"]
    if (method is not None) + (predictions is not None) + again != 1:
        raise ValueError("eval needs one of: a METHOD, --predictions FILE, or --again")
    if method is None and given["with_audit"]:
        raise ValueError("--audit: decodes the maps of a network, so it needs a METHOD")
    if predictions is None and given["name"] is not None and given["export"] is None:
        raise ValueError(f"--name {given['name']}: names a file of --predictions")
    if given["with_audit"] and given["export"] is not None:
        raise ValueError("--audit: scores against annotations, --export-testdev scores nothing; give one of them")
    if again and given["export"] is not None:
        raise ValueError("--export-testdev: writes the predictions of a METHOD, or those of --predictions FILE")


def submit(given: Mapping[str, Any], folder: Path, report: Reporter) -> dict[str, Any]:
    """Write the submission that ``--export-testdev`` asks for; returns its JSON.

    Raises:
        ValueError, DataError: see `lrbench.submission.export_testdev`.
    """
    from lrbench.bench import Bench
    from lrbench.datasets import folder_of, skeleton_of
    from lrbench.predictions import read_results
    from lrbench.structures import COCO
    from lrbench.submission import IMAGE_INFO, export_testdev
    from lrbench.weights import stated_size

    path, info = given["predictions"], folder_of(given["data"])[1] / "annotations" / IMAGE_INFO
    if path is not None:
        rows, name = read_results(path), given["name"] or re.sub(r"[^A-Za-z0-9_-]+", "-", path.name.partition(".")[0])
    else:
        size = given["res"] or (stated_size(given["weights"]) if given["weights"] else None) or "64x48"
        cell = make_cell({**given, "res": size})
        if skeleton_of(cell.data) != COCO:
            raise ValueError(f"--export-testdev: COCO's server takes COCO's keypoints, {cell.data} has others")
        report.context = cell.method
        rows, name = Bench(report).results(cell), given["name"] or cell.method
    written = export_testdev(rows, folder, name=name, image_info=info if info.is_file() else None)
    return {
        "file": str(written.path),
        "results": written.results,
        "images": written.images,
        "notes": list(written.notes),
    }


def check_file(option: str, path: Path) -> None:
    """Refuse a file that is not there before any work begins.

    Args:
        option: as it was given, for the message.
        path: of the file.

    Raises:
        DataError: it is not.
    """
    from lrbench.datasets.images import DataError

    if not path.is_file():
        raise DataError(f"{option}: no such file")


def by_method(texts: Sequence[str]) -> dict[str, Path]:
    """Read ``METHOD=FILE`` texts.

    Raises:
        ValueError: no equals sign, or an unknown method.
        DataError: no such file.
    """
    from lrbench.method import method_names
    from lrbench.structures import unknown

    files = {}
    for text in texts:
        method, equals, path = text.partition("=")
        if not equals:
            raise ValueError(f"--clean {text}: expected METHOD=FILE, for example hrnet=pose_hrnet_w32_256x192.pth")
        if method not in method_names():
            raise ValueError(unknown("method", method, method_names()))
        check_file(f"--clean {text}", Path(path))
        files[method] = Path(path)
    return files


def result_files(texts: Sequence[str], data: str, split: str, results: Path) -> list[ResultFile]:
    """Read ``[NAME=]FILE`` texts.

    Raises:
        DataError: no such file.
    """
    from lrbench.comparison import ResultFile

    files = []
    for text in texts:
        name, equals, path = text.rpartition("=")
        if Path(text).is_file():  # its own name may have an equals sign
            name, equals, path = "", "", text
        check_file(f"--predictions {text}", Path(path))
        files.append(
            ResultFile(path=Path(path), name=name if equals else None, data=data, split=split, results=results)
        )
    return files


def check_settings(methods: Sequence[str], settings: Sequence[str]) -> None:
    """Refuse a setting that none of several methods has.

    Raises:
        ValueError: there is one, or a method is unknown.
    """
    from lrbench.method import setting_names
    from lrbench.structures import unknown

    known = sorted({key for name in methods for key in setting_names(name)})
    for text in settings:
        if text.partition("=")[0] not in known:
            raise ValueError(unknown(f"setting of {', '.join(methods)}", text.partition("=")[0], known))


def announcement(cell: Cell) -> str:
    """What is about to run, in one line."""
    from lrbench.recipes import plan

    recipe, method = cell.training_recipe(), cell.compose()
    begin = cell.start or ", ".join(cell.pretrained) or recipe.start
    if cell.continues_clean and method.stages:
        begin = f"a clean network of {cell.enlarged}"
    plans = plan(method, recipe)
    epochs = f"{plans[-1].last} epochs of batch {recipe.batch or method.batch}, " if plans else ""
    return (
        f"data {cell.train_data or cell.data}/{cell.train_split} -> {cell.data}/{cell.split}, recipe {recipe.name}: "
        f"{epochs}{recipe.initialisation} initialisation, {recipe.schedule} schedule, start {begin}, "
        f"seed {cell.seed}, device {cell.torch_device()}"
    )


def description(method: Method[Any]) -> dict[str, Any]:
    """The JSON of `lrbench describe`."""
    import torch

    from lrbench import method as methods

    model = method.build_model().eval()
    size = method.frame.size
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, size.height, size.width))
    params, macs = methods.costs(method)
    return {
        "method": method.name,
        "backbone": method.backbone,
        "res": str(size),
        "params": params,
        "macs": macs,
        "macs_sr": methods.upscaler_costs(method)[1],
        "outputs": {name: list(value.shape) for name, value in outputs._asdict().items()},
        "settings": methods.describe(method),
    }


def show(renderable: Any) -> None:
    """Print a rich renderable on stdout; plain and wide enough in a pipe."""
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=int(os.environ.get("COLUMNS", "120")))
    console.print(renderable)
