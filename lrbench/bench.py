"""Cells of a comparison: train one, score it, keep its record. The commands are thin over these functions."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from lrbench import evaluation, pckh, records, scoring
from lrbench.adaptation import COURSES, partner_of
from lrbench.allocation import keep_freed_memory
from lrbench.cells import Cell, Computing, UpscalerCell
from lrbench.compilation import compiles
from lrbench.datasets import open_dataset
from lrbench.datasets.coco import Dataset, read_detections
from lrbench.datasets.decoded import DecodedPictures
from lrbench.datasets.images import DataError, ImageStore, Pixels
from lrbench.degradation import Preset, load_preset
from lrbench.fitting import LAST, WEIGHTS, Trained, fit, summary
from lrbench.geometry import Frame, Size, enlarged_size
from lrbench.inference import Progress, predict, silent, to_image
from lrbench.latency import latency_ms
from lrbench.loading import Crops
from lrbench.method import Method, costs, default_backbone, describe, load_method, plain, upscaler_costs
from lrbench.models.backbones import BACKBONES
from lrbench.models.network import PoseNetwork
from lrbench.models.upscalers import UPSCALERS
from lrbench.models.upscalers.perceptual import Judge, PoseFeatures, load_vgg
from lrbench.pairs import Pairs, detailed, split_off
from lrbench.predictions import in_original_coordinates
from lrbench.provenance import code_hash, peak_memory, provenance, training_hash
from lrbench.recipes import Recipe, plan
from lrbench.structures import Persons, Predictions
from lrbench.timing import Stopwatch
from lrbench.training import Validate, processor_precision, train
from lrbench.upscaler_training import UpscalerCourse, quality
from lrbench.upscaling import TOGETHER, open_upscaler, starting_tensors
from lrbench.weights import (
    Fit,
    Start,
    fits,
    load_weights,
    match,
    pretrained_backbone,
    read_weights,
    renamed,
    shipped,
    started_from,
    stated,
)

QUALITY = "quality.json"
"""In the folder of an upscaler's run: how close its pictures are, see `Bench.train_upscaler`."""


LATENCY_SECONDS = 0.3
"""How long the latency of one crop is measured."""

KEPT = 2**30
"""Bytes of crops, and of enlarged crops, that a bench keeps so that rows share them."""


@dataclass(frozen=True)
class Opened:
    """A cell ready to be scored.

    Attributes:
        cell: with the weights of its upscaler, on the backbone that its weights are of.
        method: composed.
        weights: of the pose network.
        training: how they came about; None for weights that no run of ours made.
        trained: what their run left.
        upscaler: how the upscaler in front was trained, and its quality; None where no run of ours made it.
    """

    cell: Cell
    method: Method[Any]
    weights: Path
    training: records.Training | None
    trained: Trained | None
    upscaler: dict[str, Any] | None

    def model(self) -> tuple[PoseNetwork[Any], Fit]:
        """The network with its weights, and what the file had for it.

        Raises:
            DataError: the weights are not those of the network.
        """
        model = self.method.build_model()
        return model, load_weights(model.network, self.weights, self.method.name)


class Bench:
    """Opens each dataset once and keeps its decoded pictures for all cells.

    Crops that are scored are cut once, whichever methods read them, and enlarged once per upscaler.

    Args:
        progress: reports long work.

    Attributes:
        times: where the time goes.
    """

    def __init__(self, progress: Progress = silent) -> None:
        keep_freed_memory()
        cv2.setNumThreads(1)  # crops are cut by threads of ours, one each
        self.progress = progress
        self.times = Stopwatch()
        self._datasets: dict[tuple[str, str], Dataset] = {}
        self._stores: dict[tuple[str, str], ImageStore] = {}
        self._cut: dict[str, dict[int, Pixels]] = {}
        self._enlarged: dict[str, list[torch.Tensor]] = {}

    def dataset(self, data: str, split: str) -> Dataset:
        """One split, read once."""
        key = (data, split)
        if key not in self._datasets:
            with self.times("opening data"):
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
        return self._crops(data, split, method.frame, preset, persons, seed)

    def _crops(
        self, data: str, split: str, frame: Frame, preset: Preset, persons: Persons | None = None, seed: int = 0
    ) -> Crops:
        dataset = self.dataset(data, split)
        store = self._stores.setdefault((data, split), ImageStore(dataset.images))
        return Crops(store, dataset.persons if persons is None else persons, frame, preset, seed)

    def _keep_pictures(self, crops: Crops, cell: Computing) -> None:
        """Keep decoded pictures on disk, where that was asked for or memory does not hold them."""
        store, rows = crops.store, np.unique(crops.persons.image)
        if cell.cache == 0 or store.decoded is not None:
            return
        decoded = DecodedPictures(store.images, rows, None if cell.cache is None else int(cell.cache * 1e9))
        if cell.cache is None and decoded.bytes <= store.limit:
            return
        with self.times("decoded pictures"):
            decoded.open(max(cell.workers, 1), self.progress)
        store.decoded = decoded
        self._say(
            f"decoded pictures: {len(decoded)} of {len(rows)} in {decoded.folder} ({decoded.bytes / 1e9:.1f} GB for "
            "all; --cache GB sets the limit, lrbench data clear removes them)"
        )

    def prepare(self, cell: Cell) -> None:
        """Train all that a cell needs and does not have: the upscaler, a clean network, itself.

        Raises: see `train`.
        """
        cell.compose()  # wrong usage shows before anything is trained
        cell = self.with_upscaler(cell, may_train=True)
        if cell.trained_as().weights is None:
            self.train(cell)

    def train(self, cell: Cell) -> tuple[Path, Trained]:
        """Train a cell and whatever it builds on, or continue or find its run.

        Returns:
            the run's folder, and what it left.

        Raises:
            ValueError: wrong usage.
            DataError: data or starting weights missing, damaged or refused.
            TrainingError: training cannot go on.
        """
        cell.compose()  # wrong usage shows before anything is trained
        cell = self.with_upscaler(cell, may_train=True).trained_as()
        if cell.weights is not None:
            raise ValueError(
                f"{cell.weights}: these weights of {cell.method} are used as they are, so there is nothing to train"
            )
        if cell.continues_clean and cell.clean is None:
            self.train(cell.clean_cell())
        method, recipe = cell.compose(), cell.training_recipe()
        crops = self.crops(cell.train_data or cell.data, cell.train_split, method, cell.training_preset())
        if not len(crops.persons):
            raise DataError(f"{cell.train_data or cell.data}/{cell.train_split}: annotates nobody to train on")
        device = cell.torch_device()
        precision = cell.precision or processor_precision(device)
        identity = self._identity(cell, method, recipe, precision)
        run = run_folder(cell, identity)
        if not _finished(run, identity["epochs"]):
            self._keep_pictures(crops, cell)
        options: dict[str, Any] = {
            "seed": cell.seed,
            "workers": cell.workers,
            "start": {} if (run / "state.pt").exists() else self.starting_weights(cell),
            "validate": self._validation(cell, method, device) if recipe.select == "best" else None,
        }
        keep: dict[str, Any] = {
            "run": run,
            "identity": identity,
            "device": device,
            "precision": precision,
            "times": self.times,
        }
        if method.stages and method.upscaling is not None and method.upscaling.pose in COURSES:
            course = COURSES[method.upscaling.pose](method, crops, recipe, **options)
            return run, fit(course, progress=self.progress, **keep)
        trained = train(method, crops, recipe, compile=cell.compile, progress=self.progress, **options, **keep)
        self._say_what_failed(run)
        return run, trained

    def _say_what_failed(self, run: Path) -> None:
        """Why a network that was to be compiled was trained as it is."""
        history = _history(run)
        if history and "compile_failure" in history[-1]:
            self._say(f"not compiled, trained as it is: {history[-1]['compile_failure']}")

    def _validation(self, cell: Cell, method: Method[Any], device: str) -> Validate:
        """Scores a model on the scored split."""
        dataset = self.dataset(cell.data, cell.split)
        truth = dataset.truth()
        crops = self.crops(cell.data, cell.split, method, cell.preset(), seed=cell.lr_seed)
        # of annotated persons, whatever boxes are scored in the end
        crops = dataclasses.replace(crops, kept=self._pixels(dataclasses.replace(cell, boxes="gt"), method, crops))

        def validate(model: PoseNetwork[Any]) -> float:
            predictions = predict(method, model, crops, workers=cell.workers, device=device)
            return scoring.headline(dataset, truth, _results(predictions, method, crops, dataset))

        return validate

    def train_upscaler(self, cell: UpscalerCell) -> tuple[Path, Trained, dict[str, Any]]:
        """Train an upscaler, or continue or find its run.

        Returns:
            the run's folder, what it left, and ``quality.json``: PSNR (dB) and SSIM of the luma and the mean absolute
            difference of gradient maps, on persons of the training split that were held out, beside bicubic's.

        Raises:
            ValueError: wrong usage.
            DataError: data or weights missing, damaged or refused.
            TrainingError: training cannot go on.
        """
        course, identity, run = self._upscaler_course(cell)
        device = cell.torch_device()
        if not _finished(run, course.epochs):
            self._keep_pictures(course.pairs.crops, cell)
        trained = fit(
            course,
            run=run,
            identity=identity,
            device=device,
            precision=identity["precision"],
            progress=self.progress,
            times=self.times,
        )
        path = run / QUALITY
        if not path.exists():
            networks = {"upscaler": open_upscaler(trained.weights), "bicubic": UPSCALERS["bicubic"].build(cell.scale)}
            scores = {
                name: dataclasses.asdict(quality(network.to(device).eval(), course.held, workers=cell.workers))
                for name, network in networks.items()
            }
            facts = {"persons": len(course.held.crops.persons), **scores["upscaler"], "bicubic": scores["bicubic"]}
            records.write_atomic(path, (json.dumps(facts, indent=1) + "\n").encode())
        return run, trained, json.loads(path.read_text())

    def with_upscaler(self, cell: Cell, *, may_train: bool = False) -> Cell:
        """A cell with the weights of its upscaler, where that has to be trained.

        Raises:
            MissingWeights: it was not trained yet, and may not be.
        """
        wanted = cell.upscaler_cell()
        if wanted is None:
            return cell
        if may_train:
            return dataclasses.replace(cell, sr_weights=self.train_upscaler(wanted)[1].weights)
        course, _, run = self._upscaler_course(wanted)
        if not _finished(run, course.epochs):
            raise MissingWeights(
                f"upscaler {wanted.upscaler} x{wanted.scale} has no finished run of these settings in {wanted.runs}; "
                f"run lrbench train {wanted.upscaler} --res {wanted.res} --scale {wanted.scale} --data {wanted.data}, "
                "or give a file: --sr FILE"
            )
        return dataclasses.replace(cell, sr_weights=run / WEIGHTS)

    def _upscaler_course(self, cell: UpscalerCell) -> tuple[UpscalerCourse, dict[str, Any], Path]:
        """The training of an upscaler, what it is, and the folder of its run."""
        cell.check()
        recipe, dataset = cell.training_recipe(), self.dataset(cell.data, cell.train_split)
        # any alignment will do: both crops of a pair share it
        crops = self._crops(cell.data, cell.train_split, Frame(cell.res, "biased"), cell.preset())
        rows = detailed(crops, cell.scale)
        if len(set(crops.persons.image[rows].tolist())) < 2:
            raise MissingWeights(
                f"data {cell.data}/{cell.train_split}: persons high enough to teach detail at "
                f"{enlarged_size(cell.res, cell.scale)} are in fewer than two pictures; train on smaller crops or on "
                "other data"
            )
        learning, held = split_off(crops, rows, recipe.held_out)
        judge = judge_from(cell.features) if cell.features else None
        # what a pose network sees in a patch of a person is not what it sees in the person
        jitter = dataclasses.replace(recipe.jitter, patch=None) if isinstance(judge, PoseFeatures) else recipe.jitter
        pairs = Pairs(crops=learning, scale=cell.scale, kind=cell.pairs, jitter=jitter)
        start = started_from(cell.start) if cell.start else Start()
        tensors, residual = starting_tensors(cell.start, cell.upscaler) if cell.start else ({}, "bicubic")
        course = UpscalerCourse(
            cell.upscaler,
            cell.scale,
            pairs,
            dataclasses.replace(pairs, crops=held, jitter=None),
            recipe,
            seed=cell.seed,
            workers=cell.workers,
            judge=judge,
            start=tensors,
            residual=residual,
        )
        identity = {
            "upscaler": cell.upscaler,
            "scale": cell.scale,
            "res": str(cell.res),
            "pairs": cell.pairs,
            "lr_preset": cell.preset().plain if cell.pairs == "matched" else None,
            "features": hashlib.sha256(cell.features.read_bytes()).hexdigest() if cell.features else "",
            "recipe": plain(dataclasses.replace(recipe, jitter=jitter)),
            "epochs": course.epochs,
            "data": f"{dataset.name}/{cell.train_split}",
            "data_hash": dataset.hash,
            "persons": len(learning.persons),
            "persons_hash": dataset.persons.hash,
            "seed": cell.seed,
            "precision": cell.precision or processor_precision(cell.torch_device()),
            "start": start.name,
            "code": training_hash("", selects=False),
            "torch": torch.__version__,
        }
        return course, identity, cell.runs / dataset.name / str(cell.res) / cell.upscaler / records.key_of(identity)

    def starting_weights(self, cell: Cell) -> dict[str, torch.Tensor]:
        """What a cell's training begins with, by the names of its network; empty for a start from scratch.

        Raises:
            ValueError: wrong usage.
            DataError: a file is missing, damaged or refused, or has nothing for the method.
        """
        method = cell.compose()
        start = self._start_of(cell, cell.training_recipe(), method)
        if not start.tensors:
            return {}
        fit = match(method.build_model().network.state_dict(), start.tensors, start.allowed)
        if not fit.used and (cell.start or cell.pretrained):
            raise DataError(f"{start.label}: none of its {len(start.tensors)} tensors fits {method.name} at {cell.res}")
        self._say(f"{method.name} {cell.res} starts from {start.label}: {fit}")
        return renamed(start.tensors, fit)

    def _start_of(self, cell: Cell, recipe: Recipe, method: Method[Any]) -> Start:
        """As `start_of`, and for a network that continues from a clean one, that one's weights."""
        if not (cell.continues_clean and method.stages):
            return start_of(cell, recipe, method)
        clean = cell.clean_cell()
        path, _, _ = self._weights(clean, clean.compose())
        start = started_from(path)
        return dataclasses.replace(start, name=f"clean {cell.enlarged} {start.name}", label=f"clean weights {path}")

    def open(self, cell: Cell) -> Opened:
        """A cell with the weights it is scored with.

        Raises:
            ValueError: wrong usage.
            DataError: weights missing, damaged or refused.
        """
        cell = on_fitting_backbone(cell)
        together = (choice := cell.upscaling()) is not None and choice.pose in TOGETHER
        if not (together and cell.weights is not None and partner_of(cell.weights).is_file()):
            cell = self.with_upscaler(cell)
        method, source = cell.compose(), cell.trained_as()
        weights, training, trained = self._weights(source, method if source is cell else source.compose())
        upscaler = _upscaler_of(method)
        if together:
            if not partner_of(weights).is_file():
                raise DataError(f"weights {weights}: {partner_of(weights).name}, trained with them, is not beside them")
            assert method.upscaling is not None
            method = dataclasses.replace(cell, sr_weights=partner_of(weights)).compose()
            upscaler = {**(upscaler or {}), "further": method.upscaling.pose, "quality": None}
        return Opened(cell, method, weights, training, trained, upscaler)

    def evaluate(self, cell: Cell, *, overwrite: bool = True) -> records.Record:
        """Score a cell's weights and keep the record; a kept record of the same key is returned as it is.

        Raises:
            ValueError: wrong usage.
            DataError: data or weights missing, damaged or refused.
        """
        opened = self.open(cell)
        cell, method, preset = opened.cell, opened.method, cell.preset()
        dataset = self.dataset(cell.data, cell.split)
        protocol = self._protocol(cell, method, dataset, preset)
        sha = hashlib.sha256(opened.weights.read_bytes()).hexdigest()
        key = records.key_of(describe(method), code_hash(cell.method), protocol.model_dump(), sha, cell.seed)
        if not overwrite and (kept := find_record(cell, method, dataset, key)) is not None:
            return kept
        model, fit = opened.model()
        if cell.weights:
            self._say(f"weights {cell.weights}: {fit}")
        crops, device = self._scored_crops(cell, method), cell.torch_device()
        if cell.cache:  # scoring reads every picture once, so it is kept only for those who ask
            self._keep_pictures(crops, cell)
        enlarged = self._pictures(cell, method, crops)
        reused = bool(enlarged)  # another row has paid for the upscaler
        begin = time.perf_counter()
        results = self._predicted(cell, method, model, crops, enlarged)
        seconds = time.perf_counter() - begin
        truth, scored = in_original_coordinates(dataset, results)
        with self.times("scoring"):
            scores = scoring.score(dataset, truth, scored, crop_scale=crop_scale(crops, dataset))
        (params, macs), (params_sr, macs_sr) = costs(method), upscaler_costs(method)
        record = records.Record(
            key=key,
            call=records.MethodCall(
                name=method.name,
                backbone=method.backbone,
                sr=sr_label(method),
                pose="" if method.upscaling is None else method.upscaling.pose,
                res=str(cell.res),
                settings={k: plain(v) for k, v in method.settings.items()},
            ),
            training=opened.training,
            upscaler=opened.upscaler,
            protocol=protocol,
            **scores.of_record(),
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
                train_seconds=opened.trained.seconds if opened.trained else None,
                train_images_per_second=opened.trained.images_per_second if opened.trained else None,
                data_wait=opened.trained.data_wait if opened.trained else None,
                eval_seconds=seconds,
                eval_images_per_second=None if reused else len(crops.persons) / seconds,
                latency_ms=latency_ms(
                    method,
                    model,
                    flip=cell.flip,
                    generator=torch.Generator().manual_seed(0),
                    device=device,
                    seconds=LATENCY_SECONDS,
                ),
                peak_memory=peak_memory(device),
            ),
            provenance=provenance(
                cell.method, sha, cell.seed, device, "32-true", weights_used=str(fit) if cell.weights else ""
            ),
            settings=describe(method),
        )
        records.write_record(cell.results, record, scored, scores.matches)
        return record

    def results(self, cell: Cell) -> list[dict[str, Any]]:
        """COCO keypoint results of a cell's weights, not scored, so that pictures need no annotations.

        Raises: see `evaluate`.
        """
        opened = self.open(cell)
        model, _ = opened.model()
        return self._predicted(opened.cell, opened.method, model, self._scored_crops(opened.cell, opened.method))

    def _scored_crops(self, cell: Cell, method: Method[Any]) -> Crops:
        """Crops of the annotated or detected persons of the scored split."""
        crops = self.crops(cell.data, cell.split, method, cell.preset(), self.scored_persons(cell), cell.lr_seed)
        return dataclasses.replace(crops, kept=self._pixels(cell, method, crops))

    def scored_persons(self, cell: Cell) -> Persons:
        """The annotated or detected persons of the scored split.

        Raises:
            ValueError: there are none, or the measure of the data does not take detected ones.
            DataError: data or detections missing or damaged.
        """
        dataset = self.dataset(cell.data, cell.split)
        if cell.boxes != "gt":
            if dataset.metric == "pckh":
                raise ValueError(f"--boxes {cell.boxes}: PCKh asks for the joints of each annotated person; use gt")
            return read_detections(_boxes_file(cell), dataset.images, dataset.persons.skeleton)
        if not len(dataset.persons):
            raise ValueError(
                f"--boxes gt: {dataset.name}/{cell.split} annotates nobody; give --boxes FILE of detections"
            )
        return dataset.persons

    def _predicted(
        self,
        cell: Cell,
        method: Method[Any],
        model: PoseNetwork[Any],
        crops: Crops,
        enlarged: list[torch.Tensor] | None = None,
    ) -> list[dict[str, Any]]:
        """Persons after rescoring and suppression."""
        predictions = predict(
            method,
            model,
            crops,
            flip=cell.flip,
            workers=cell.workers,
            device=cell.torch_device(),
            enlarged=enlarged,
            progress=self.progress,
            times=self.times,
        )
        with self.times("suppression"):
            return _results(predictions, method, crops, self.dataset(cell.data, cell.split))

    def _pixels(self, cell: Cell, method: Method[Any], crops: Crops) -> dict[int, Pixels] | None:
        """Crops that other rows have cut, to which these are added; None where they are too many to keep."""
        if _bytes(crops, method.frame.size) > KEPT // 4:
            return None
        return self._cut.setdefault(_pixels_key(cell, method), {})

    def _pictures(self, cell: Cell, method: Method[Any], crops: Crops) -> list[torch.Tensor] | None:
        """Enlarged crops that another row has made, or an empty list to keep them in; None where they are not kept."""
        choice = method.upscaling
        if choice is None or choice.boundary != "u8":
            return None
        size = _bytes(crops, cell.enlarged)
        key = records.key_of(_pixels_key(cell, method), choice.upscaler, choice.sha256, choice.scale)
        while self._enlarged and key not in self._enlarged and size * (1 + len(self._enlarged)) > KEPT:
            self._enlarged.pop(next(iter(self._enlarged)))
        return self._enlarged.setdefault(key, []) if size <= KEPT else None

    def ceiling(self, cell: Cell) -> dict[str, Any]:
        """What a perfect network could reach, decode(encode(truth)): ``metrics``, ``ci95`` and ``n_persons``."""
        method, dataset = cell.compose(), self.dataset(cell.data, cell.split)
        crops = self.crops(cell.data, cell.split, method, load_preset("none"))
        if dataset.metric != "oks":
            raise ValueError(f"ceiling: {dataset.name} is not scored by AP, and it tells nothing else")
        results = _results(perfect(method, crops), method, crops, dataset)
        metrics, matches = scoring.measured(*in_original_coordinates(dataset, results), dataset.persons.skeleton)
        intervals = {name: list(ends) for name, ends in scoring.intervals(matches, metrics).items()}
        return {"metrics": metrics.model_dump(), "ci95": intervals, "n_persons": len(dataset.persons)}

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
            "persons_hash": dataset.persons.hash,
            "lr_preset": cell.training_preset().plain,
            "seed": cell.seed,
            "precision": precision,
            **({"compile": True} if _compiles(cell, method) else {}),
            "start": self._start_of(cell, recipe, method).name,
            "code": training_hash(cell.method, selects=recipe.select == "best"),
            "torch": torch.__version__,
        }

    def _weights(self, cell: Cell, method: Method[Any]) -> tuple[Path, records.Training | None, Trained | None]:
        given = cell.weights
        if given is not None:
            if not given.is_file():
                raise DataError(f"weights {given}: no such file")
            ours = given.name in (WEIGHTS, LAST)
            return given, _training_of(given.parent) if ours else None, None
        recipe = cell.training_recipe()
        precision = cell.precision or processor_precision(cell.torch_device())
        identity = self._identity(cell, method, recipe, precision)
        run = run_folder(cell, identity)
        if not _finished(run, identity["epochs"]):
            raise MissingWeights(
                f"{method.name} at {cell.res} has no finished run of these settings in {cell.runs}; run lrbench train "
                f"{method.name} --res {cell.res} --data {cell.train_data or cell.data}, or give --weights"
            )
        return run / WEIGHTS, _training_of(run), _trained(run)

    def _protocol(self, cell: Cell, method: Method[Any], dataset: Dataset, preset: Preset) -> records.Protocol:
        boxes, boxes_hash = "gt", ""
        if cell.boxes != "gt":
            path = _boxes_file(cell)
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
            **_scoring_of(dataset, method),
        )


def _scoring_of(dataset: Dataset, method: Method[Any]) -> dict[str, Any]:
    """How persons are scored and suppressed, as a protocol says it; PCKh takes every annotated person as it is."""
    if dataset.metric == "pckh":
        return {"rescoring": 0.0, "oks_nms": 1.0, "referee": pckh.REFEREE}
    return {
        "rescoring": method.rescoring.confident,
        "rescoring_form": method.rescoring.form,
        "oks_nms": evaluation.OKS_NMS,
        "referee": evaluation.referees(),
    }


def on_fitting_backbone(cell: Cell) -> Cell:
    """A cell with given weights and no backbone, on the backbone whose network the weights are of.

    The recipe's usual one is tried first; where none fits it is the one that the file states, if it states one, and
    loading says what is wrong.
    """
    if cell.weights is None or cell.backbone is not None or not cell.compose().backbone:
        return cell
    tensors = read_weights(cell.weights)
    for name in (cell.compose().backbone, default_backbone(cell.method), *BACKBONES):
        candidate = dataclasses.replace(cell, backbone=name)
        # whatever stands in front has weights of its own, which need not be read here
        bare = dataclasses.replace(candidate, res=candidate.enlarged, sr="none")
        with contextlib.suppress(ValueError), torch.device("meta"):  # not every method takes every backbone
            if fits(bare.compose().build_model().network, tensors):
                return candidate
    return dataclasses.replace(cell, backbone=stated(cell.weights).get("backbone") or None)


def sr_label(method: Method[Any]) -> str:
    """The upscaler of a method as records and tables call it; ``none`` for none."""
    return "none" if method.upscaling is None else str(method.upscaling.label)


class MissingWeights(DataError):
    """Nothing was trained yet, or nothing can be on these data."""


def perfect(method: Method[Any], crops: Crops) -> Predictions:
    """Decode what the codec encodes of the true keypoints."""
    parts = []
    for batch in crops.batches(256, 0):
        ideal, _ = method.codec.encode(batch.keypoints.double(), batch.visible.double())
        decoded = method.codec.decode(ideal)
        parts.append(torch.cat([decoded.xy, decoded.score[..., None]], -1).double().numpy())
    return to_image(crops, np.concatenate(parts))


def _results(predictions: Predictions, method: Method[Any], crops: Crops, dataset: Dataset) -> list[dict[str, Any]]:
    """Results as the measure of a dataset takes them: each annotated person, or who is left after suppression."""
    if dataset.metric == "pckh":
        return pckh.to_results(predictions, crops.persons)
    return evaluation.to_results(predictions, method.rescoring)


def _boxes_file(cell: Cell) -> Path:
    path = Path(cell.boxes)
    if not path.is_file():
        raise DataError(f"--boxes {cell.boxes}: no such file; expected gt or a COCO detection result")
    return path


def crop_scale(crops: Crops, dataset: Dataset) -> dict[int, float] | None:
    """Px of the crop per image px, by annotation; None for detections and for copies, whose pixels are others."""
    if not crops.persons.annotated or dataset.source:
        return None
    frame, persons = crops.frame, crops.persons
    maps = frame.matrix(frame.region(persons.box, annotated=True))[..., :2]
    return dict(zip(persons.id.tolist(), np.sqrt(np.abs(np.linalg.det(maps))).tolist(), strict=True))


def _compiles(cell: Cell, method: Method[Any]) -> bool:
    """Whether a cell's network is compiled for training, which may move last bits; courses with an upscaler do not."""
    together = method.upscaling is not None and method.upscaling.pose in COURSES
    return bool(method.stages) and not together and compiles(cell.compile, cell.torch_device())


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
        degradation=identity["lr_preset"],
    )


def _trained(run: Path) -> Trained | None:
    history = _history(run)
    return None if history is None else summary(run, history)


def _history(run: Path) -> list[dict[str, Any]] | None:
    """Lines of a run's ``metrics.jsonl``, one per epoch; None before the first was written."""
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else None


def _finished(run: Path, epochs: int) -> bool:
    """A run that keeps its best epoch has weights before it is finished."""
    trained = _trained(run)
    return (run / WEIGHTS).exists() and (trained.epochs if trained else 0) >= epochs


def _upscaler_of(method: Method[Any]) -> dict[str, Any] | None:
    """How the upscaler in front of a method was trained, and its quality, where a run of ours says so."""
    path = None if method.upscaling is None else method.upscaling.weights
    if path is None or not (path.parent / "settings.json").is_file():
        return None
    told = path.parent / QUALITY
    facts = json.loads((path.parent / "settings.json").read_text())
    if "upscaler" not in facts:  # the run of a pose network, which trained the upscaler, too
        return None
    return {**facts, "quality": json.loads(told.read_text()) if told.is_file() else None}


def _bytes(crops: Crops, size: Size) -> int:
    return 3 * size.height * size.width * len(crops.persons)


def _pixels_key(cell: Cell, method: Method[Any]) -> str:
    """Everything that decides the pixels of scored crops."""
    scored = (cell.data, cell.split, cell.boxes, cell.lr_seed)
    return records.key_of(scored, cell.preset().plain, plain(method.frame))


def judge_from(path: Path) -> Judge:
    """A frozen network that compares pictures, from a file: a pose network that a run of ours trained, or VGG-19.

    Raises:
        DataError: neither.
        ValueError: the pose network has no features to compare.
    """
    about = stated(path)
    if "method" not in about:
        return load_vgg(path)
    model = load_method(about["method"], Size.parse(about["res"]), about["backbone"] or None).build_model()
    load_weights(model.network, path, about["method"])
    return PoseFeatures(model)
