"""Super-resolution before pose: the upscaler is the first module of the network, and everything else stays as it is.

The crop keeps its size and frame; codec and network are those of the enlarged size. Pixels are clamped, and by default
rounded to the 256 levels that a file between the two would hold.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast, get_args

import torch
from torch import Tensor, nn

from lrbench.datasets.images import DataError
from lrbench.geometry import CoordinateMap, Frame, enlargement, invert
from lrbench.method import BESIDE, Codec, Method
from lrbench.models.network import PoseNetwork
from lrbench.models.upscalers import UPSCALERS
from lrbench.models.upscalers.released import identify, load_upscaler
from lrbench.models.upscalers.upscaler import Residual, Upscaler
from lrbench.structures import POSES, Keypoints, unknown
from lrbench.weights import read_weights, stated

P = TypeVar("P")

Boundary = Literal["u8", "float"]
"""Pixels between upscaler and pose network: clamped and rounded to 8 bit, as in a file, or clamped only."""


TOGETHER = ("joint", "tdp")
"""Choices of `lrbench.structures.POSES` that train the upscaler, too."""


@dataclass(frozen=True, kw_only=True)
class Upscaling:
    """What stands in front of a pose network.

    Attributes:
        upscaler: a name of `lrbench.models.upscalers.UPSCALERS`, or that of a file.
        sha256: of its weights; empty for upscalers without, and for one that is still to be trained.
        scale: whole factor.
        boundary: see `Boundary`.
        mapping: see `lrbench.geometry.CoordinateMap`.
        pose: what the pose network was trained on, see `lrbench.structures.POSES`.
        weights: where they lie; None for upscalers without, and for one that is still to be trained.
    """

    upscaler: str
    sha256: str = ""
    scale: int = 4
    boundary: Boundary = "u8"
    mapping: CoordinateMap = "composed"
    pose: str = "sr"
    weights: Path | None = field(default=None, metadata=BESIDE)

    @property
    def label(self) -> str:
        """For tables: ``bicubic x4``."""
        return f"{self.upscaler} x{self.scale}"

    @property
    def untrained(self) -> bool:
        """It has to be trained before it can be used."""
        return self.weights is None and UPSCALERS[self.upscaler].learned


def upscaling(
    upscaler: str,
    scale: int = 4,
    boundary: str = "u8",
    mapping: str = "composed",
    pose: str = "sr",
    weights: Path | None = None,
) -> Upscaling:
    """Check a choice of upscaler.

    Args:
        upscaler: a name, or a file of weights.
        scale, boundary, mapping, pose: see `Upscaling`.
        weights: of the name; None for an upscaler that has none, or is still to be trained.

    Raises:
        ValueError: an unknown name, or a scale it cannot have.
        DataError: the file cannot be read.
    """
    if boundary not in ("u8", "float") or mapping not in ("composed", "naive"):
        raise ValueError(f"upscaling boundary={boundary} map={mapping}: expected u8 or float, composed or naive")
    if pose not in POSES:
        raise ValueError(unknown("choice of pose", pose, POSES))
    spec, name = UPSCALERS.get(upscaler), upscaler
    if spec is None:
        file = Path(upscaler)
        if not file.is_file():
            raise ValueError(f"{unknown('upscaler', upscaler, UPSCALERS)} (or give a file of weights)")
        name, weights = str(stated(file).get("upscaler") or file.stem), weights or file
    elif scale not in spec.scales:
        raise ValueError(f"upscaler {upscaler}: scale {scale}; choose one of {', '.join(map(str, spec.scales))}")
    if name == "bicubic" and pose == "sr":
        pose = "up"  # the same thing
    if pose in TOGETHER:
        ours = UPSCALERS.get(name)
        if ours is None:
            raise ValueError(f"upscaler {upscaler} with pose={pose}: only upscalers that lrbench trained can go on")
        if not ours.learned:
            raise ValueError(f"upscaler {name} with pose={pose}: it has nothing to train; choose clean, up, sr or mix")
    return Upscaling(
        upscaler=name,
        sha256=hashlib.sha256(weights.read_bytes()).hexdigest() if weights else "",
        scale=scale,
        boundary=cast(Boundary, boundary),
        mapping=cast(CoordinateMap, mapping),
        pose=pose,
        weights=weights,
    )


def before(method: Method[P], small: Frame, choice: Upscaling) -> Method[P]:
    """A method of enlarged crops, with the upscaler in front, as a method of small ones.

    Args:
        method: composed for the enlarged size.
        small: frame of the crops.
        choice: what enlarges them.
    """
    return dataclasses.replace(
        method,
        frame=small,
        upscaling=choice,
        codec=EnlargedCodec(inner=method.codec, frame=small, scale=choice.scale, mapping=choice.mapping),
        build_model=partial(enlarging_network, pose=method.build_model, choice=choice),
    )


@dataclass(frozen=True, kw_only=True)
class EnlargedCodec(Generic[P]):
    """The codec of the enlarged crop, in px of the small one.

    Attributes:
        inner: of the enlarged crop.
        frame: of the small crop.
        scale: between the two.
        mapping: see `lrbench.geometry.CoordinateMap`.
    """

    inner: Codec[P]
    frame: Frame
    scale: int
    mapping: CoordinateMap

    def encode(self, keypoints: Tensor, visible: Tensor) -> tuple[P, Tensor]:
        """Small crop px (B, K, 2), visible (B, K) -> the ideal prediction and its weight (B, K)."""
        matrix = keypoints.new_tensor(enlargement(self.frame, self.scale, self.mapping))
        return self.inner.encode(keypoints @ matrix[:, :2].T + matrix[:, 2], visible)

    def decode(self, prediction: P) -> Keypoints:
        """Prediction -> small crop px and scores."""
        large = self.inner.decode(prediction)
        matrix = large.xy.new_tensor(invert(enlargement(self.frame, self.scale, self.mapping)))
        return Keypoints(large.xy @ matrix[:, :2].T + matrix[:, 2], large.score)

    def unflip(self, prediction: P, order: Tensor) -> P:
        """Undo a mirrored input; the enlarged crop is mirrored, not the small one."""
        return self.inner.unflip(prediction, order)

    def average(self, plain: P, unflipped: P) -> P:
        """As for the enlarged crop."""
        return self.inner.average(plain, unflipped)


class Front(nn.Module):
    """An upscaler, always in eval mode and without gradients, and the pixels a file would hold.

    Args:
        upscaler: RGB in [0, 1] in and out.
        boundary: see `Boundary`.
    """

    def __init__(self, upscaler: Upscaler, boundary: Boundary) -> None:
        super().__init__()
        self.upscaler = upscaler.eval()
        self.boundary = boundary

    def train(self, mode: bool = True) -> Front:
        """The upscaler stays as it is."""
        self.training = mode
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 3, scale h, scale w), RGB in [0, 1]."""
        with torch.no_grad():
            picture: Tensor = self.upscaler(pixels).float().clamp(0, 1)
            return picture.mul_(255).round_().div_(255) if self.boundary == "u8" else picture


def enlarging_network(pose: Callable[[], PoseNetwork[Any]], choice: Upscaling) -> PoseNetwork[Any]:
    """A pose network behind an upscaler.

    Raises:
        DataError: the upscaler's file cannot be opened, or has another scale.
    """
    model = pose()
    upscaler = open_upscaler(choice.weights) if choice.weights else UPSCALERS[choice.upscaler].build(choice.scale)
    if upscaler.scale != choice.scale:
        raise DataError(f"upscaler {choice.weights}: enlarges {upscaler.scale} times, asked for {choice.scale}")
    model.front = Front(upscaler.requires_grad_(False), choice.boundary)
    return model


def open_upscaler(path: Path) -> Upscaler:
    """An upscaler from a file: of one of our runs, of a published network, or of one that spandrel knows.

    Raises:
        DataError: not a file of tensors; no network has these layers; or spandrel is needed and cannot be had.
    """
    about = stated(path)
    if str(about.get("upscaler")) not in UPSCALERS:
        return load_upscaler(path)
    residual = _stated_residual(path, about)
    try:
        upscaler = UPSCALERS[about["upscaler"]].build(int(about["scale"]), residual)
        upscaler.load_state_dict(read_weights(path))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        words = " ".join(str(error).split())
        raise DataError(f"weights {path}: damaged, not those of {about['upscaler']} as it says ({words})") from None
    return upscaler.eval()


def starting_tensors(path: Path, name: str) -> tuple[Mapping[str, Tensor], Residual]:
    """What a file has for the training of an upscaler.

    Args:
        path: weights of that upscaler, or of one that shares layers with it, as RRDB does with SPSR.
        name: of the upscaler.

    Returns:
        Tensors by our names, and what details are added to: as in the file where it is of the very network, else to
        the bicubic picture.

    Raises:
        DataError: not a file of tensors, or a damaged one.
    """
    tensors, about = read_weights(path), stated(path)
    network = UPSCALERS[name].network
    told = UPSCALERS.get(str(about.get("upscaler")))
    if told is not None:
        return tensors, _stated_residual(path, about) if told.network is network else "bicubic"
    found = identify(tensors)
    if found is None:
        return tensors, "bicubic"
    return found.tensors, "released" if UPSCALERS[found.name].network is network else "bicubic"


def _stated_residual(path: Path, about: Mapping[str, Any]) -> Residual:
    """What details are added to in a file of our own; another picture than in those of released networks.

    Raises:
        DataError: the file does not say.
    """
    residual = about.get("residual")
    if residual not in get_args(Residual):
        raise DataError(f"weights {path}: damaged, adds details to {residual!r}; expected bicubic or released")
    return cast(Residual, residual)
