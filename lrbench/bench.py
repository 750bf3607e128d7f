"""Cells of a comparison: train one, score it, keep its record. The commands are thin over these functions."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import json
import math
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import lrbench
from lrbench import evaluation, records
from lrbench.datasets import open_dataset
from lrbench.datasets.coco import Dataset, read_detections
from lrbench.datasets.images import DataError, ImageStore
from lrbench.degradation import Preset, load_preset
from lrbench.geometry import Size
from lrbench.inference import Progress, predict, silent, to_image
from lrbench.loading import Crops
from lrbench.method import Method, costs, default_backbone, describe, load_method, plain, upscaler_costs
from lrbench.models.backbones import BACKBONES
from lrbench.models.network import PoseNetwork
from lrbench.recipes import Recipe, load_recipe, plan
from lrbench.structures import Persons, Predictions
from lrbench.training import Trained, processor_precision, summary, train
from lrbench.weights import (
    Start,
    fits,
    load_weights,
    match,
    pretrained_backbone,
    read_weights,
    renamed,
    shipped,
    started_from,
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One method under one protocol: everything the options of train, eval and compare say.

    Attributes:
        method: name.
        res: of the crop.
        backbone: name; None for the recipe's usual one.
        sr: upscaler in front of the network, a name or a file of weights.
        sr_scale, sr_boundary, sr_map: see `lrbench.upscaling.Upscaling`.
        settings: of the method.
        data: ``synth``, ``coco`` or a folder.
        train_data: what the weights are trained on; None for `data`.
        split: that is scored.
        train_split: that is trained on.
        recipe: name; None for ``quick`` on synth and ``paper`` elsewhere.
        epochs, batch: instead of the recipe's.
        seed: of everything random in training.
        lr_preset: how low-resolution pixels are made, in training and in scoring.
        severity: of presets that have severities; None for the usual one.
        lr_seed: of the random numbers of presets that draw, in scoring.
        boxes: ``gt`` or a detection file.
        flip: average with the mirrored crop.
        weights: a file to score instead of a trained run.
        start: weights to begin training with; all that fits is used.
        pretrained: files or names of backbones to begin training with; each method takes that of its backbone.
        device, precision, workers: how to compute.
        runs, results: folders.
    """

    method: str
    res: Size
    backbone: str | None = None
    sr: str = "none"
    sr_scale: int = 4
    sr_boundary: str = "u8"
    sr_map: str = "composed"
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: str = "synth"
    train_data: str | None = None
    split: str = "val"
    train_split: str = "train"
    recipe: str | None = None
    epochs: int | None = None
    batch: int | None = None
    seed: int = 0
    lr_preset: str = "paper"
    severity: int | None = None
    lr_seed: int = 0
    boxes: str = "gt"
    flip: bool = True
    weights: Path | None = None
    start: Path | None = None
    pretrained: Sequence[str] = ()
    device: str = "auto"
    precision: str | None = None
    workers: int = 2
    runs: Path = Path("runs")
    results: Path = Path("results")

    def compose(self) -> Method[Any]:
        """The method of this cell.

        Raises:
            ValueError: an unknown name or setting, or a size the network cannot take.
        """
        backbone = self.backbone or default_backbone(self.method, narrow=self.training_recipe().name == "quick")
        return load_method(
            self.method,
            self.res,
            backbone,
            self.sr,
            sr_scale=self.sr_scale,
            sr_boundary=self.sr_boundary,
            sr_map=self.sr_map,
            **self.settings,
        )

    def training_recipe(self) -> Recipe:
        """The recipe with this cell's overrides.

        Raises:
            ValueError: unknown name, or a number below 1.
        """
        for name in ("epochs", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} {value}: expected at least 1")
        recipe = load_recipe(
            self.recipe or ("quick" if (self.train_data or self.data) == "synth" else "paper"), self.res
        )
        given = {k: v for k in ("epochs", "batch") if (v := getattr(self, k)) is not None}
        return dataclasses.replace(recipe, **given)

    def preset(self) -> Preset:
        """How low-resolution pixels are made.

        Raises:
            ValueError: an unknown name, or a severity it does not have.
        """
        return load_preset(self.lr_preset, self.severity)

    def torch_device(self) -> str:
        """Where to compute: ``cuda`` if there is one, else ``cpu``.

        Raises:
            ValueError: a device this machine or this torch does not have.
        """
        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"--device {self.device}: expected auto, cpu or cuda")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                "--device cuda: torch sees no CUDA device; use --device cpu or install a CUDA build of torch"
            )
        return self.device


class Bench:
    """Opens each dataset once and keeps its decoded pictures for all cells.

    Args:
        progress: reports long work.
    """

    def __init__(self, progress: Progress = silent) -> None:
        self.progress = progress
        self._datasets: dict[tuple[str, str], Dataset] = {}
        self._stores: dict[tuple[str, str], ImageStore] = {}

    def dataset(self, data: str, split: str) -> Dataset:
        """One split, read once."""
        key = (data, split)
        if key not in self._datasets:
            self._datasets[key] = open_dataset(data, split, progress=self.progress)
        return self._datasets[key]

    def crops(
        self,
        data: str,
        split: str,
        method: Method[Any],
        preset: Preset,
        persons: Persons | None = None,
        seed: int = 0,
    ) -> Crops:
        """Persons of a split as crops of a method; `seed` is that of presets that draw."""
        dataset = self.dataset(data, split)
        store = self._stores.setdefault((data, split), ImageStore(dataset.images))
        return Crops(store, dataset.persons if persons is None else persons, method.frame, preset, seed)

    def train(self, cell: Cell) -> tuple[Path, Trained]:
        """Train a cell, or continue or find its run.

        Returns:
            the run's folder, and what it left.

        Raises:
            ValueError: wrong usage.
            DataError: data or starting weights missing, damaged or refused.
            TrainingError: training cannot go on.
        """
        method, recipe, preset = cell.compose(), cell.training_recipe(), cell.preset()
        data = cell.train_data or cell.data
        crops = self.crops(data, cell.train_split, method, preset)
        device = cell.torch_device()
        precision = cell.precision or processor_precision(device)
        identity = self._identity(cell, method, recipe, precision)
        run = run_folder(cell, identity)
        continues = (run / "state.pt").exists()
        start = {} if continues else self.starting_weights(cell)
        validate = None
        if recipe.select == "best" and method.stages:
            scored = self.dataset(cell.data, cell.split)
            truth = json.loads(scored.annotation_file.read_bytes())
            val = self.crops(cell.data, cell.split, method, preset, seed=cell.lr_seed)

            def validate(model: PoseNetwork[Any]) -> float:
                results = evaluation.to_results(
                    predict(method, model, val, workers=cell.workers, device=device), method.rescoring
                )
                model.train()
                return evaluation.score(truth, results).ap or 0.0

        trained = train(
            method,
            crops,
            recipe,
            run=run,
            identity=identity,
            seed=cell.seed,
            device=device,
            precision=precision,
            workers=cell.workers,
            start=start,
            validate=validate,
            progress=self.progress,
        )
        return run, trained

    def starting_weights(self, cell: Cell) -> dict[str, torch.Tensor]:
        """What a cell's training begins with, by the names of its network; empty for a start from scratch.

        Raises:
            ValueError: wrong usage.
            DataError: a file is missing, damaged or refused, or has nothing for the method.
        """
        method = cell.compose()
        start = start_of(cell, cell.training_recipe(), method)
        if not start.tensors:
            return {}
        fit = match(method.build_model().network.state_dict(), start.tensors, start.allowed)
        if not fit.used and (cell.start or cell.pretrained):
            raise DataError(f"{start.label}: none of its {len(start.tensors)} tensors fits {method.name} at {cell.res}")
        self._say(f"{method.name} {cell.res} starts from {start.label}: {fit}")
        return renamed(start.tensors, fit)

    def evaluate(self, cell: Cell, *, overwrite: bool = True) -> records.Record:
        """Score a cell's weights and keep the record; a kept record of the same key is returned as it is.

        Raises:
            ValueError: wrong usage.
            DataError: data or weights missing, damaged or refused.
        """
        cell = on_fitting_backbone(cell)
        method, preset = cell.compose(), cell.preset()
        dataset = self.dataset(cell.data, cell.split)
        weights, training, trained = self._weights(cell, method)
        protocol = self._protocol(cell, method, dataset, preset)
        sha = hashlib.sha256(weights.read_bytes()).hexdigest()
        key = records.key_of(describe(method), code_hash(cell.method), protocol.model_dump(), sha, cell.seed)
        if not overwrite and (kept := find_record(cell, method, dataset, key)) is not None:
            return kept
        model = method.build_model()
        fit = load_weights(model.network, weights, method.name)
        if cell.weights:
            self._say(f"weights {cell.weights}: {fit}")
        persons = None if cell.boxes == "gt" else read_detections(Path(cell.boxes), dataset.images)
        crops = self.crops(cell.data, cell.split, method, preset, persons, cell.lr_seed)
        device = cell.torch_device()
        begin = time.perf_counter()
        predictions = predict(
            method, model, crops, flip=cell.flip, workers=cell.workers, device=device, progress=self.progress
        )
        seconds = time.perf_counter() - begin
        results = evaluation.to_results(predictions, method.rescoring)
        truth, scored = _original(dataset, results)
        (params, macs), (params_sr, macs_sr) = costs(method), upscaler_costs(method)
        record = records.Record(
            key=key,
            call=records.MethodCall(
                name=method.name,
                backbone=method.backbone,
                sr=sr_label(method),
                res=str(cell.res),
                settings={k: plain(v) for k, v in method.settings.items()},
            ),
            training=training,
            protocol=protocol,
            metrics=evaluation.score(truth, scored),
            keypoint_ap=evaluation.score_keypoints(truth, scored),
            counts=records.Counts(
                images=len(dataset.images.id),
                persons=len(dataset.persons),
                crops=len(crops.persons),
                predictions=len(scored),
            ),
            cost=records.Cost(
                params=params,
                macs=macs,
                params_sr=params_sr,
                macs_sr=macs_sr,
                train_seconds=trained.seconds if trained else None,
                train_images_per_second=trained.images_per_second if trained else None,
                data_wait=trained.data_wait if trained else None,
                eval_seconds=seconds,
                eval_images_per_second=len(crops.persons) / seconds,
                peak_memory=peak_memory(device),
            ),
            provenance=provenance(
                cell.method, sha, cell.seed, device, "32-true", weights_used=str(fit) if cell.weights else ""
            ),
            settings=describe(method),
        )
        records.write_record(cell.results, record, scored)
        return record

    def ceiling(self, cell: Cell) -> tuple[records.Metrics, int]:
        """Metrics of decode(encode(truth)): what a perfect network could reach, and how many persons were scored."""
        method, dataset = cell.compose(), self.dataset(cell.data, cell.split)
        crops = self.crops(cell.data, cell.split, method, load_preset("none"))
        results = evaluation.to_results(perfect(method, crops), method.rescoring)
        return evaluation.score(json.loads(dataset.annotation_file.read_bytes()), results), len(dataset.persons)

    def _say(self, text: str) -> None:
        """One line for people, where the progress has a voice (`lrbench.console.Reporter`)."""
        say = getattr(self.progress, "say", None)
        if say is not None:
            say(text)

    def _identity(self, cell: Cell, method: Method[Any], recipe: Recipe, precision: str) -> dict[str, Any]:
        data = cell.train_data or cell.data
        dataset = self.dataset(data, cell.train_split)
        plans = plan(method, recipe)
        return {
            "method": method.name,
            "backbone": method.backbone,
            "sr": sr_label(method),
            "res": str(cell.res),
            "settings": describe(method),
            "recipe": plain(recipe),
            "epochs": plans[-1].last if plans else 0,
            "data": f"{dataset.name}/{cell.train_split}",
            "data_hash": dataset.hash,
            "persons": len(dataset.persons),
            "lr_preset": cell.preset().plain,
            "seed": cell.seed,
            "precision": precision,
            "start": start_of(cell, recipe, method).name,
            "code": code_hash(cell.method),
            "torch": torch.__version__,
        }

    def _weights(self, cell: Cell, method: Method[Any]) -> tuple[Path, records.Training | None, Trained | None]:
        if cell.weights is not None:
            if not cell.weights.is_file():
                raise DataError(f"weights {cell.weights}: no such file")
            ours = cell.weights.name in ("weights.safetensors", "last.safetensors")
            return cell.weights, _training_of(cell.weights.parent) if ours else None, None
        recipe = cell.training_recipe()
        precision = cell.precision or processor_precision(cell.torch_device())
        identity = self._identity(cell, method, recipe, precision)
        run = run_folder(cell, identity)
        weights, trained = run / "weights.safetensors", _trained(run)
        # a run that keeps its best epoch has weights before it is finished
        if not weights.exists() or (trained.epochs if trained else 0) < identity["epochs"]:
            raise MissingWeights(
                f"{method.name} at {cell.res} has no finished run of these settings in {cell.runs}; run lrbench train "
                f"{method.name} --res {cell.res} --data {cell.train_data or cell.data}, or give --weights"
            )
        return weights, _training_of(run), trained

    def _protocol(self, cell: Cell, method: Method[Any], dataset: Dataset, preset: Preset) -> records.Protocol:
        boxes, boxes_hash = "gt", ""
        if cell.boxes != "gt":
            path = Path(cell.boxes)
            if not path.is_file():
                raise DataError(f"--boxes {cell.boxes}: no such file; expected gt or a COCO detection result")
            boxes, boxes_hash = path.name, hashlib.sha256(path.read_bytes()).hexdigest()
        degradation: dict[str, Any] = {"crop": preset.plain, **({"seed": cell.lr_seed} if preset.random else {})}
        if dataset.source:
            degradation["dataset"] = dataset.source
        return records.Protocol(
            dataset=dataset.name,
            split=cell.split,
            data_hash=dataset.hash,
            boxes=boxes,
            boxes_hash=boxes_hash,
            flip=cell.flip,
            align=method.frame.align,
            decoder=plain(method.codec),
            degradation=degradation,
            rescoring=method.rescoring.confident,
            rescoring_form=method.rescoring.form,
            oks_nms=evaluation.OKS_NMS,
            referee=f"pycocotools {version('pycocotools')}",
        )


def on_fitting_backbone(cell: Cell) -> Cell:
    """A cell with given weights and no backbone, on the backbone whose network the weights are of.

    The recipe's usual one is tried first; where none fits it stays, and loading says what is wrong.
    """
    if cell.weights is None or cell.backbone is not None or not cell.compose().backbone:
        return cell
    tensors = read_weights(cell.weights)
    for name in (cell.compose().backbone, default_backbone(cell.method), *BACKBONES):
        candidate = dataclasses.replace(cell, backbone=name)
        with contextlib.suppress(ValueError), torch.device("meta"):  # not every method takes every backbone
            if fits(candidate.compose().build_model().network, tensors):
                return candidate
    return cell


def sr_label(method: Method[Any]) -> str:
    """The upscaler of a method as records and tables call it; ``none`` for none."""
    return "none" if method.upscaling is None else str(method.upscaling.label)


def evaluate_predictions(
    path: Path, data: str, split: str, results: Path, *, progress: Progress = silent
) -> records.Record:
    """Score a COCO keypoint result of any tool; needs the annotations, no pictures.

    Raises:
        DataError: the file is none, or belongs to other pictures.
    """
    dataset = open_dataset(data, split, need_images=False, progress=progress)
    rows = _read_results(path, dataset)
    truth, scored = _original(dataset, rows)
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    protocol = records.Protocol(
        dataset=dataset.name,
        split=split,
        data_hash=dataset.hash,
        boxes="unknown",
        flip=False,
        align="unknown",
        decoder={},
        degradation={"dataset": dataset.source} if dataset.source else {},
        rescoring=0.0,
        oks_nms=1.0,
        referee=f"pycocotools {version('pycocotools')}",
    )
    record = records.Record(
        key=records.key_of("predictions", protocol.model_dump(), sha),
        call=records.MethodCall(name="predictions", backbone="", sr="none", res="", settings={"file": path.name}),
        training=None,
        protocol=protocol,
        metrics=evaluation.score(truth, scored),
        keypoint_ap=evaluation.score_keypoints(truth, scored),
        counts=records.Counts(
            images=len(dataset.images.id), persons=len(dataset.persons), crops=0, predictions=len(scored)
        ),
        cost=records.Cost(),
        provenance=provenance("", sha, None, "cpu", "-"),
        settings={},
    )
    records.write_record(results, record, scored)
    return record


def _read_results(path: Path, dataset: Dataset) -> list[dict[str, Any]]:
    from lrbench.structures import KEYPOINTS

    try:
        data = path.read_bytes()
        rows = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except gzip.BadGzipFile as error:
        raise DataError(f"predictions {path}: damaged ({error})") from None
    except OSError as error:
        raise DataError(f"predictions {path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise DataError(f"predictions {path}: not valid JSON ({error})") from None
    if not isinstance(rows, list):
        raise DataError(f"predictions {path}: expected a list of COCO keypoint results, found {type(rows).__name__}")
    known = set(dataset.images.id.tolist())
    for number, row in enumerate(rows):
        where = f"predictions {path}, row {number}"
        try:
            image_id, keypoints = int(row["image_id"]), [float(v) for v in row["keypoints"]]
            finite = all(map(math.isfinite, [*keypoints, float(row["score"])]))
            int(row["category_id"])
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{where}: expected image_id, category_id, keypoints and score") from None
        if len(keypoints) != 3 * len(KEYPOINTS) or not finite:
            raise DataError(f"{where}: expected {3 * len(KEYPOINTS)} finite numbers as keypoints, and a finite score")
        if image_id not in known:
            raise DataError(f"{where}: image {image_id} is not in {dataset.name}/{dataset.split}")
    return rows


class MissingWeights(DataError):
    """Nothing was trained yet."""


def perfect(method: Method[Any], crops: Crops) -> Predictions:
    """Decode what the codec encodes of the true keypoints."""
    import numpy as np

    parts = []
    for batch in crops.batches(256, 0):
        ideal, _ = method.codec.encode(batch.keypoints.double(), batch.visible.double())
        decoded = method.codec.decode(ideal)
        parts.append(torch.cat([decoded.xy, decoded.score[..., None]], -1).double().numpy())
    return to_image(crops, np.concatenate(parts))


def run_folder(cell: Cell, identity: Mapping[str, Any]) -> Path:
    """``runs/<dataset>/<HxW>/<method>/<key>``."""
    dataset = str(identity["data"]).split("/", 1)[0]
    return cell.runs / dataset / str(cell.res) / cell.method / records.key_of(identity)


def find_record(cell: Cell, method: Method[Any], dataset: Dataset, key: str) -> records.Record | None:
    """A kept record of this key."""
    path = cell.results / dataset.name / str(cell.res) / method.name / f"{key}.json"
    return records.read_record(path) if path.exists() else None


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written, before hours are spent.

    Raises:
        ValueError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".lrbench-writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ValueError(f"folder {folder}: cannot be written ({error.strerror}); choose another one") from None


@lru_cache(maxsize=64)
def code_hash(method: str) -> str:
    """sha256 over the sources that decide a number: the method's file and everything below the commands."""
    from lrbench.method import source_file

    root = Path(lrbench.__file__).parent
    beside = (
        "__init__",
        "api",
        "bench",
        "cli",
        "comparison",
        "console",
        "listing",
        "pretraining",
        "published",
        "records",
    )
    paths = [p for p in root.glob("*.py") if p.stem not in beside]
    paths += [p for folder in ("codecs", "models", "corruptions") for p in (root / folder).rglob("*.py")]
    paths += [root / "datasets" / name for name in ("coco.py", "images.py")]
    digest = hashlib.sha256()
    for path in [*sorted(paths), source_file(method)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def provenance(
    method: str, weights_sha: str, seed: int | None, device: str, precision: str, *, weights_used: str = ""
) -> records.Provenance:
    """Versions, device and time of a measurement."""
    packages = ("torch", "numpy", "opencv-python-headless", "pycocotools", "scikit-learn", "lightning-fabric")
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return records.Provenance(
        lrbench=lrbench.__version__,
        commit=commit(),
        code_hash=code_hash(method) if method else "",
        versions={"python": platform.python_version(), **{p: version(p) for p in packages}},
        weights_sha256=weights_sha,
        weights_used=weights_used,
        seed=seed,
        device=f"{device} ({name})",
        precision=precision,
        threads=torch.get_num_threads(),
        utc=datetime.now(UTC).isoformat(timespec="seconds"),
    )


@lru_cache(maxsize=1)
def commit() -> str:
    """Commit of the checkout lrbench runs from, with ``+changes`` where files differ; empty for an installed copy."""
    root = Path(lrbench.__file__).parent
    try:
        run = ["git", "-C", str(root)]
        head = subprocess.run([*run, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run(
            [*run, "status", "--porcelain", "--", "."], capture_output=True, text=True, check=True
        ).stdout
        return f"{head[:12]}+changes" if dirty.strip() else head[:12]
    except (OSError, subprocess.CalledProcessError):
        return ""


def peak_memory(device: str) -> int:
    """Bytes: allocated on a GPU, resident set of this process on a CPU."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def start_of(cell: Cell, recipe: Recipe, method: Method[Any]) -> Start:
    """What a training begins with; methods that are not trained begin with nothing."""
    if cell.start is not None and cell.pretrained:
        raise ValueError("--start and --pretrained both say what to begin with; give one of them")
    if not method.stages:
        return Start()
    if cell.start is not None:
        return started_from(cell.start)
    if cell.pretrained:
        given = [cell.pretrained] if isinstance(cell.pretrained, str) else cell.pretrained
        return pretrained_backbone(given, method.backbone)
    return shipped(method.backbone) if recipe.start == "pretrained" else Start()


def _training_of(run: Path) -> records.Training | None:
    path = run / "settings.json"
    if not path.is_file():
        return None
    identity = json.loads(path.read_text())
    return records.Training(
        recipe=identity["recipe"]["name"] if identity["epochs"] else "none",
        data=identity["data"],
        data_hash=identity["data_hash"],
        persons=identity["persons"],
        epochs=identity["epochs"],
        batch=identity["recipe"]["batch"] or identity["settings"]["batch"],
        start=identity["start"],
        numbers=identity["recipe"],
    )


def _trained(run: Path) -> Trained | None:
    path = run / "metrics.jsonl"
    if not path.is_file():
        return None
    return summary(run, [json.loads(line) for line in path.read_text().splitlines()])


def _original(dataset: Dataset, results: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Truth and results in the coordinates of the original photographs, also for a degraded copy."""
    truth = json.loads(dataset.annotation_file.read_bytes())
    if "lrbench" not in truth:
        return truth, results
    from lrbench.datasets.degraded import original_annotations, original_results

    return original_annotations(truth), original_results(results, truth)
