"""Cells: everything that the options of train, eval and compare say about one method, or one upscaler."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import torch

from lrbench.augmentation import Augmentation
from lrbench.datasets import shared_skeleton, skeleton_of
from lrbench.degradation import Mixture, Preset, load_preset
from lrbench.geometry import Alignment, Size, enlarged_size
from lrbench.method import Method, default_backbone, load_method
from lrbench.models.upscalers import UPSCALERS
from lrbench.pairs import Kind
from lrbench.recipes import Recipe, load_recipe
from lrbench.structures import MPII, unknown
from lrbench.upscaler_training import UpscalerRecipe, load_upscaler_recipe
from lrbench.upscaling import Upscaling, upscaling

SHARED_ALIGN: Alignment = "corner"
"""Of crops that an upscaler enlarges, and of rows that stand beside such: as CAL's released code cuts them."""

MPII_AUGMENTATION = Augmentation(half_body=0.0, scale=0.25, rotation=30.0)
"""Weaker than COCO's, and without half bodies (released HRNet configuration for MPII)."""

ADAPTED_SHARE = 0.25
"""Epochs of a pose network that continues from a clean one, as a share of that one's."""


@dataclass(frozen=True, kw_only=True)
class Computing:
    """Where and how to compute, and where runs lie.

    Attributes:
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: of training; None for what the device is good at.
        workers: threads that cut crops.
        cache: GB of disk for decoded pictures, 0 for none; None keeps them there where memory does not hold them, see
            `lrbench.datasets.decoded`.
        runs: folder of training runs.
    """

    device: str = "auto"
    precision: str | None = None
    workers: int = 2
    cache: float | None = None
    runs: Path = Path("runs")

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


@dataclass(frozen=True, kw_only=True)
class UpscalerCell(Computing):
    """One upscaler and how it is trained.

    Attributes:
        upscaler: name.
        res: of the small crops.
        scale: factor.
        pairs: see `lrbench.pairs.Kind`.
        features: weights of VGG-19, or of a pose network that one of our runs trained, for the perceptual loss; None
            for pixels and gradients alone.
        data: ``synth``, ``coco`` or a folder.
        train_split: of it.
        recipe: name; None for ``quick`` on synth and ``paper`` elsewhere.
        epochs, batch: instead of the recipe's.
        seed: of everything random.
        lr_preset, severity: of ``matched`` pairs.
        start: weights to begin with; all that fits is used.
    """

    upscaler: str
    res: Size
    scale: int = 4
    pairs: Kind = "bicubic"
    features: Path | None = None
    data: str = "synth"
    train_split: str = "train"
    recipe: str | None = None
    epochs: int | None = None
    batch: int | None = None
    seed: int = 0
    lr_preset: str = "paper"
    severity: int | None = None
    start: Path | None = None

    def check(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            ValueError: it cannot; the message says what can.
        """
        spec = UPSCALERS[self.upscaler]
        if not spec.learned:
            raise ValueError(f"upscaler {self.upscaler} has nothing to train; use it by --sr {self.upscaler}")
        if self.scale not in spec.scales:
            known = ", ".join(map(str, spec.scales))
            raise ValueError(f"upscaler {self.upscaler}: scale {self.scale}; choose one of {known}")
        if spec.judged and self.features is None:
            raise ValueError(
                f"upscaler {self.upscaler} is a network that others judge while it is trained; give --features FILE, "
                "weights of VGG-19 or of a pose network"
            )
        if self.pairs not in ("bicubic", "matched"):
            raise ValueError(f"pairs {self.pairs!r}: expected bicubic or matched")
        self.training_recipe()
        self.preset()
        self.torch_device()

    def training_recipe(self) -> UpscalerRecipe:
        """The recipe with this cell's overrides.

        Raises:
            ValueError: unknown name, or a number below 1.
        """
        name = self.recipe or ("quick" if self.data == "synth" else "paper")
        return load_upscaler_recipe(name, epochs=self.epochs, batch=self.batch)

    def preset(self) -> Preset:
        """How the small crops of ``matched`` pairs are made.

        Raises:
            ValueError: an unknown name, or a severity it does not have.
        """
        return load_preset(self.lr_preset, self.severity)


@dataclass(frozen=True, kw_only=True)
class Cell(Computing):
    """One method under one protocol.

    Attributes:
        method: name.
        res: of the crop.
        backbone: name; None for the recipe's usual one.
        align: rule of the crop, ``biased``, ``dark``, ``corner`` or ``own`` (the method's); with one rule methods of
            different ones read the same pixels. None: its own, but `SHARED_ALIGN` before an upscaler.
        sr: upscaler in front of the network, a name or a file of weights.
        sr_scale, sr_boundary, sr_map: see `lrbench.upscaling.Upscaling`.
        sr_pairs, sr_epochs: of the training of an upscaler that is given by its name, see `UpscalerCell`.
        sr_weights: of an upscaler that is given by its name; None for those of its run.
        pose: what the network behind an upscaler is trained on, see `lrbench.structures.POSES`.
        clean: weights of a pose network for crops of the enlarged size; None for those of its run.
        adapt_epochs: of a network that continues from a clean one; None for a quarter of that one's.
        settings: of the method.
        data: ``synth``, ``coco`` or a folder.
        train_data: what the weights are trained on; None for `data`.
        split: that is scored.
        train_split: that is trained on.
        recipe: name; None for ``quick`` on synth and ``paper`` elsewhere.
        epochs, batch: instead of the recipe's.
        seed: of everything random in training.
        lr_preset: how low-resolution pixels are made.
        severity: of presets that have severities; None for the usual one.
        lr_seed: of the random numbers of presets that draw, in scoring.
        degrade_train: what is trained on: ``same`` pixels as are scored, ``none`` (plain crops), ``mix`` of both, or
            the name of another preset.
        compile: the network, for training; None for GPUs alone, see `lrbench.compilation`.
        boxes: ``gt`` or a detection file.
        flip: average with the mirrored crop.
        weights: a file to score instead of a trained run.
        start: weights to begin training with; all that fits is used.
        pretrained: files or names of backbones to begin training with; each method takes that of its backbone.
        results: folder of records.
    """

    method: str
    res: Size
    backbone: str | None = None
    align: str | None = None
    sr: str = "none"
    sr_scale: int = 4
    sr_boundary: str = "u8"
    sr_map: str = "composed"
    sr_pairs: Kind = "bicubic"
    sr_epochs: int | None = None
    sr_weights: Path | None = None
    pose: str = "sr"
    clean: Path | None = None
    adapt_epochs: int | None = None
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
    degrade_train: str = "same"
    compile: bool | None = None
    boxes: str = "gt"
    flip: bool = True
    weights: Path | None = None
    start: Path | None = None
    pretrained: Sequence[str] = ()
    results: Path = Path("results")

    def compose(self) -> Method[Any]:
        """The method of this cell.

        Raises:
            ValueError: an unknown name or setting, or a size the network cannot take.
        """
        backbone = self.backbone or default_backbone(self.method, narrow=self.recipe_name == "quick")
        choice, align = self.upscaling(), self.align
        if align is None:
            align = "own" if choice is None else SHARED_ALIGN
        if align not in ("own", *get_args(Alignment)):
            raise ValueError(unknown("alignment", align, ("own", *get_args(Alignment))))
        rule = None if align == "own" else cast(Alignment, align)
        skeleton = shared_skeleton(self.data, self.train_data)
        return load_method(self.method, self.res, backbone, choice, align=rule, skeleton=skeleton, **self.settings)

    def upscaling(self) -> Upscaling | None:
        """What stands in front of the network.

        Raises:
            ValueError: an unknown name or choice.
        """
        if self.sr in ("", "none"):
            return None
        return upscaling(self.sr, self.sr_scale, self.sr_boundary, self.sr_map, self.pose, self.sr_weights)

    @property
    def recipe_name(self) -> str:
        """``quick`` on synth and ``paper`` elsewhere, unless another is asked for."""
        return self.recipe or ("quick" if (self.train_data or self.data) == "synth" else "paper")

    @property
    def enlarged(self) -> Size:
        """What the pose network takes."""
        return self.res if self.upscaling() is None else enlarged_size(self.res, self.sr_scale)

    @property
    def continues_clean(self) -> bool:
        """The network is trained from the weights of a clean one, of its size and settings.

        Where two networks are trained together, always; otherwise in short recipes, whose budget is too small for a
        network of its own per upscaler.
        """
        choice = self.upscaling()
        if choice is None or choice.pose == "clean" or self.start is not None or self.pretrained:
            return False
        return choice.pose in ("joint", "tdp") or self.recipe_name == "quick"

    def training_recipe(self) -> Recipe:
        """The recipe with this cell's overrides.

        Raises:
            ValueError: unknown name, or a number below 1.
        """
        for name in ("epochs", "batch", "adapt_epochs", "sr_epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} {value}: expected at least 1")
        recipe = load_recipe(self.recipe_name, self.enlarged)
        given: dict[str, Any] = {k: v for k in ("epochs", "batch") if (v := getattr(self, k)) is not None}
        if recipe.name == "paper" and skeleton_of(self.train_data or self.data) == MPII:
            given["augmentation"] = MPII_AUGMENTATION
        recipe = dataclasses.replace(recipe, **given)
        if not self.continues_clean:
            return recipe
        epochs = self.adapt_epochs
        if epochs is None:
            full = recipe.epochs or sum(stage.epochs for stage in self.compose().stages)
            epochs = max(1, round(ADAPTED_SHARE * full))
        return dataclasses.replace(recipe, epochs=epochs)

    def preset(self) -> Preset:
        """How low-resolution pixels are made.

        Raises:
            ValueError: an unknown name, or a severity it does not have.
        """
        return load_preset(self.lr_preset, self.severity)

    def training_preset(self) -> Preset:
        """How those are made that are trained on.

        Raises:
            ValueError: an unknown name.
        """
        scored, name = self.preset(), self.degrade_train
        if name == "same":
            return scored
        if name == "mix":
            return Mixture.of(load_preset("none"), scored)
        return load_preset(name)

    def upscaler_cell(self) -> UpscalerCell | None:
        """The training of the upscaler, where one is given by its name and has to be trained."""
        choice = self.upscaling()
        if choice is None or not choice.untrained:
            return None
        return UpscalerCell(
            upscaler=choice.upscaler,
            res=self.res,
            scale=self.sr_scale,
            pairs=self.sr_pairs,
            data=self.train_data or self.data,
            train_split=self.train_split,
            recipe=self.recipe_name,
            epochs=self.sr_epochs,
            seed=self.seed,
            lr_preset=self.lr_preset,
            severity=self.severity,
            **self._computing(),
        )

    def trained_as(self) -> Cell:
        """The cell whose weights this one has: of clean crops, of crops enlarged by interpolation, or itself."""
        choice = self.upscaling()
        if choice is None or self.weights is not None:
            return self
        if choice.pose == "clean":
            return self.clean_cell()
        if choice.pose == "up" and self.sr != "bicubic":
            return dataclasses.replace(self, sr="bicubic", sr_weights=None)
        return self

    def clean_cell(self) -> Cell:
        """The same method on native crops of the enlarged size, plain and of its own alignment."""
        own = (
            "method", "backbone", "settings", "data", "train_data", "split", "train_split", "recipe", "epochs", "batch",
            "seed", "boxes", "flip", "start", "pretrained", "results",
        )  # fmt: skip
        kept = {name: getattr(self, name) for name in own}
        return Cell(res=self.enlarged, align="own", weights=self.clean, **kept, **self._computing())

    def _computing(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(Computing)}
