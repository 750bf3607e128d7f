"""What crosses a module border: keypoint conventions, persons, batches, predictions."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # worker processes that only touch pictures start without torch
    import torch
    from torch import Tensor

KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
"""The 17 COCO keypoints, in COCO's order; left is the person's own left."""

PAIRS = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16))
"""Keypoints that change places when a picture is mirrored."""

SKELETON = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
    (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip
"""Bones to draw, as pairs of keypoint indices (COCO's skeleton, counted from 0)."""

SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
"""COCO's per-keypoint standard deviations; OKS uses twice these (cocodataset.org, keypoint evaluation)."""

UPPER_BODY = tuple(range(11))
"""Keypoints above the hips, for the half-body augmentation (released HRNet code)."""


def mirror_order() -> NDArray[np.int64]:
    """Permutation (17,) that exchanges left and right."""
    order = np.arange(len(KEYPOINTS))
    for left, right in PAIRS:
        order[left], order[right] = right, left
    return order


class Keypoints(NamedTuple):
    """What a codec decodes.

    Attributes:
        xy: (B, K, 2) px of the crop.
        score: (B, K) confidence, in the method's own units.
    """

    xy: Tensor
    score: Tensor


class Batch(NamedTuple):
    """What a loader hands to the training loop.

    Attributes:
        pixels: (B, 3, h, w) uint8 RGB.
        keypoints: (B, K, 2) float32, px of the crop; zero where not labelled.
        visible: (B, K) float32, 1 for labelled keypoints (COCO flags 1 and 2), else 0.
    """

    pixels: Tensor
    keypoints: Tensor
    visible: Tensor


@dataclass(frozen=True, eq=False)
class Images:
    """The pictures of a dataset, as flat arrays of length I.

    Attributes:
        id: (I,) int64.
        size: (I, 2) int32 height and width, px.
        path: where each picture lies.
    """

    id: NDArray[np.int64]
    size: NDArray[np.int32]
    path: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class Persons:
    """The persons to crop, as flat arrays of length N.

    Attributes:
        id: (N,) int64 annotation id, or the row of the detection file.
        image: (N,) int64 row of the picture in `Images`.
        box: (N, 4) float64 x, y, width, height, image px.
        score: (N,) float64 box score; 1 for annotated boxes.
        keypoints: (N, 17, 2) float64 image px; zero where not labelled.
        visible: (N, 17) int8 COCO flag 0, 1 or 2.
        annotated: boxes are annotations, not detections.
    """

    id: NDArray[np.int64]
    image: NDArray[np.int64]
    box: NDArray[np.float64]
    score: NDArray[np.float64]
    keypoints: NDArray[np.float64]
    visible: NDArray[np.int8]
    annotated: bool

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Keypoints of persons in image px.

    Attributes:
        image_id: (N,) int64.
        keypoints: (N, 17, 3) float64 x, y, confidence.
        area: (N,) float64 area of the padded crop, px² (OKS-NMS of the released code uses it).
        box_score: (N,) float64.
    """

    image_id: NDArray[np.int64]
    keypoints: NDArray[np.float64]
    area: NDArray[np.float64]
    box_score: NDArray[np.float64]


@dataclass(frozen=True)
class Rescoring:
    """How the score of a person comes from its box and keypoints.

    Attributes:
        confident: keypoints above this score count; it follows the scale of a method's scores.
        form: ``product`` of the box score and the mean of the keypoints that count (released HRNet code), or ``sum`` of
            the box score, the mean and the largest of all keypoints (released RLE code).
    """

    confident: float = 0.2
    form: Literal["product", "sum"] = "product"

    @property
    def in_words(self) -> str:
        """In what it differs from the usual rule, for footnotes; empty for the usual one."""
        usual = Rescoring()
        if self.form != usual.form:
            return "person scores: box + mean + largest keypoint score (released RLE code)"
        if self.confident != usual.confident:
            return f"person scores: keypoints above {self.confident:g} count, not {usual.confident:g}"
        return ""


POSES = {
    "clean": "trained on crops of the enlarged size, cut from the photograph",
    "up": "trained on small crops enlarged by bicubic interpolation",
    "sr": "trained on what this upscaler makes",
    "mix": "trained on a third of each",
    "joint": "trained together with the upscaler, by pose and picture",
    "tdp": "trained in turns with the upscaler, pictures compared by the pose network's features",
}
"""Choices of what the pose network behind an upscaler is trained on."""

T = TypeVar("T", bound=tuple[Any, ...])


def mean(a: T, b: T) -> T:
    """Mean of two named tuples of tensors, field by field."""
    return type(a)(*(0.5 * (x + y) for x, y in zip(a, b, strict=True)))


def unknown(kind: str, given: str, known: Iterable[str]) -> str:
    """Message for a name that does not exist, closest names first."""
    names = list(known)
    close = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names) or 'none'}"
    return f"unknown {kind} {given!r}; {hint}"


def mirror_index(device: torch.device | str = "cpu") -> Tensor:
    """`mirror_order` as a tensor."""
    import torch

    return torch.as_tensor(mirror_order(), device=device)
