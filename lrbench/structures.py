"""What crosses a module border: keypoint conventions, persons, batches, predictions."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # worker processes that only touch pictures start without torch
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Skeleton:
    """Which keypoints a dataset labels, and how they are scored.

    Attributes:
        name: of the convention.
        keypoints: names in the dataset's order; left is the person's own left.
        pairs: keypoints that change places when a picture is mirrored.
        bones: to draw, as pairs of keypoint indices.
        sigmas: per-keypoint standard deviations as a share of the person's size; OKS uses twice these. Empty where the
            dataset is not scored by OKS.
        upper_body: keypoints above the hips, for the half-body augmentation; empty where the released code has none.
        half_body_above: how many keypoints have to be labelled, and one more, for that augmentation.
    """

    name: str
    keypoints: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    bones: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]
    upper_body: tuple[int, ...]
    half_body_above: int = 8

    def __len__(self) -> int:
        return len(self.keypoints)

    @cached_property
    def mirror_order(self) -> NDArray[np.int64]:
        """Permutation (K,) that exchanges left and right."""
        order = np.arange(len(self))
        for left, right in self.pairs:
            order[left], order[right] = right, left
        return order


COCO = Skeleton(
    name="coco",
    keypoints=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle",
    ),
    pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    bones=(
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
        (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    ),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
        0.089,
    ),
    upper_body=tuple(range(11)),
)  # fmt: skip
"""COCO's 17 keypoints (cocodataset.org, keypoint evaluation); half body as in the released HRNet code."""

MPII = Skeleton(
    name="mpii",
    keypoints=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax",
        "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow",
        "left_wrist",
    ),
    pairs=((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
    bones=(
        (0, 1), (1, 2), (2, 6), (3, 6), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (7, 12), (12, 11), (11, 10), (7, 13),
        (13, 14), (14, 15),
    ),
    sigmas=(),
    upper_body=(),
)  # fmt: skip
"""MPII's 16 joints (released HRNet code); scored by PCKh, without half-body augmentation."""

CROWDPOSE = Skeleton(
    name="crowdpose",
    keypoints=(
        "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
        "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "head", "neck",
    ),
    pairs=((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11)),
    bones=(
        (12, 13), (13, 0), (13, 1), (0, 2), (2, 4), (1, 3), (3, 5), (0, 6), (1, 7), (6, 7), (6, 8), (8, 10), (7, 9),
        (9, 11),
    ),
    sigmas=(0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079, 0.079),
    upper_body=(0, 1, 2, 3, 4, 5, 12, 13),
    half_body_above=6,
)  # fmt: skip
"""CrowdPose's 14 keypoints (released evaluation code)."""


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


@dataclass(frozen=True)
class Paths:
    """Files below one folder, by row: names, which become paths when they are asked for.

    COCO's 118,287 names take 9 MB; as paths they would take 27 MB, and a second to make.
    """

    folder: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> Path:
        return self.folder / self.names[row]

    def __iter__(self) -> Iterator[Path]:
        return (self.folder / name for name in self.names)


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
    path: Paths


@dataclass(frozen=True, eq=False)
class Persons:
    """The persons to crop, as flat arrays of length N.

    Attributes:
        id: (N,) int64 annotation id, or the row of the detection file.
        image: (N,) int64 row of the picture in `Images`.
        box: (N, 4) float64 x, y, width, height, image px.
        score: (N,) float64 box score; 1 for annotated boxes.
        keypoints: (N, K, 2) float64 image px; zero where not labelled.
        visible: (N, K) int8 COCO flag 0, 1 or 2.
        annotated: boxes are annotations, not detections.
        skeleton: which keypoints these are.
    """

    id: NDArray[np.int64]
    image: NDArray[np.int64]
    box: NDArray[np.float64]
    score: NDArray[np.float64]
    keypoints: NDArray[np.float64]
    visible: NDArray[np.int8]
    annotated: bool
    skeleton: Skeleton = COCO

    def __len__(self) -> int:
        return len(self.id)

    @property
    def hash(self) -> str:
        """sha256 over everything that is trained on besides the pictures."""
        digest = hashlib.sha256(f"{self.skeleton} {self.annotated}".encode())
        for array in (self.id, self.image, self.box, self.keypoints, self.visible):
            digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Predictions:
    """Keypoints of persons in image px.

    Attributes:
        image_id: (N,) int64.
        keypoints: (N, K, 3) float64 x, y, confidence.
        area: (N,) float64 area of the padded crop, px² (OKS-NMS of the released code uses it).
        box_score: (N,) float64.
        skeleton: which keypoints these are.
    """

    image_id: NDArray[np.int64]
    keypoints: NDArray[np.float64]
    area: NDArray[np.float64]
    box_score: NDArray[np.float64]
    skeleton: Skeleton = COCO


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


def mirror_index(device: torch.device | str = "cpu", skeleton: Skeleton = COCO) -> Tensor:
    """`Skeleton.mirror_order` as a tensor."""
    import torch

    return torch.as_tensor(skeleton.mirror_order, device=device)
