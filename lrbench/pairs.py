"""Small crops and the large ones they come from, exactly aligned: what upscalers learn from.

Px u of a large crop is px (u + 0.5) / scale - 0.5 of the small one, whatever the alignment of the frame.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrbench.augmentation import Augmentation, View
from lrbench.datasets.images import Pixels
from lrbench.degradation import PRESETS, Preset, crop, shrink
from lrbench.geometry import Float, Region, Size, compose, enlarged_size, enlargement
from lrbench.loading import Crops, in_order, prefetch, shuffled
from lrbench.structures import Persons

Kind = Literal["bicubic", "matched"]
"""How the small crop of a pair is made.

``bicubic``: from the large one by antialiased bicubic interpolation, as training sets of super-resolution papers are.
``matched``: from the photograph, by the degradation that is scored.
"""

DETAIL = 0.875
"""Share of a large crop's height that a person's padded box has to have: smaller persons would only teach blur."""


class Pair(NamedTuple):
    """What `Pairs` hands to a training loop.

    Attributes:
        pixels: (B, 3, h, w) uint8 RGB.
        target: (B, 3, scale h, scale w) uint8 RGB.
        keypoints: (B, K, 2) float32, px of the small crop; zero where not labelled.
        visible: (B, K) float32, 1 for labelled keypoints, else 0.
    """

    pixels: Tensor
    target: Tensor
    keypoints: Tensor
    visible: Tensor


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """What training pairs vary in besides the views of pose training.

    Attributes:
        shift: of the crop, as a share of its sides.
        colour: of each channel's brightness, as a share.
        patch: px; side of a square of the large crop that is cut out at random; None for all of it.
    """

    shift: float = 0.1
    colour: float = 0.1
    patch: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Persons as pairs of crops.

    Attributes:
        crops: the small ones; their preset makes ``matched`` pairs.
        scale: between the two.
        kind: see `Kind`.
        sharp: how large crops are cut.
        jitter: of augmented pairs; None for none.
    """

    crops: Crops
    scale: int
    kind: Kind = "bicubic"
    sharp: Preset = PRESETS["antialias"]
    jitter: Jitter | None = None

    @property
    def large(self) -> Size:
        """Of the large crops."""
        return enlarged_size(self.crops.frame.size, self.scale)

    def sample(
        self, row: int, view: View, rng: np.random.Generator | None = None
    ) -> tuple[Pixels, Pixels, Float, NDArray[np.bool_]]:
        """Small pixels, large pixels, keypoints (K, 2) px of the small crop, and flags (K,) of one view of a person.

        Args:
            row: of the person.
            view: where its crop lies.
            rng: of `jitter` and of presets that draw; None for no jitter and the person's own generator.
        """
        crops, gain = self.crops, None
        if self.jitter is not None and rng is not None:
            shift = rng.uniform(-self.jitter.shift, self.jitter.shift, 2)
            gain = 1 + rng.uniform(-self.jitter.colour, self.jitter.colour, 3)
            view = view._replace(region=Region(view.region.center + shift * view.region.side, view.region.side))
        matrix, xy, labelled = crops.place(row, view)
        to_large = compose(enlargement(crops.frame, self.scale, "composed"), matrix)
        image = crops.store[int(crops.persons.image[row])]
        target = _coloured(crop(image, to_large, self.large, self.sharp, rng), gain)
        if self.kind == "matched":
            small = _coloured(crops.pixels(row, matrix, rng), gain)
        else:
            small = shrink(target, PRESETS["antialias"], crops.frame.size)
        if self.jitter is not None and self.jitter.patch is not None and rng is not None:
            small, target = _patch(small, target, self.jitter.patch, rng)
        return small, target, xy, labelled

    def batch(
        self, rows: Sequence[int], augmentation: Augmentation | None = None, seeds: Sequence[Sequence[int]] = ()
    ) -> Pair:
        """Pairs of some persons; each is drawn from its own generator, so order does not matter."""
        samples = []
        for i, row in enumerate(rows):
            rng = np.random.default_rng(list(seeds[i])) if seeds else None
            draws = augmentation.draw(rng) if augmentation is not None and rng is not None else None
            samples.append(self.sample(row, self.crops.view(row, augmentation, draws), rng))
        pixels, target = (torch.from_numpy(np.stack([s[i] for s in samples])).permute(0, 3, 1, 2) for i in (0, 1))
        xy, labelled = (torch.from_numpy(np.stack([s[i] for s in samples])).float() for i in (2, 3))
        return Pair(pixels, target, xy, labelled)

    def batches(self, size: int, workers: int) -> Iterator[Pair]:
        """All persons in order, unaugmented; the last batch may be smaller."""
        return prefetch(self.batch, [(rows,) for rows in in_order(len(self.crops.persons), size)], workers)

    def epoch(self, size: int, workers: int, augmentation: Augmentation, seed: int, epoch: int) -> Iterator[Pair]:
        """One shuffled, augmented pass; what does not fill a batch is left for another epoch."""
        parts = shuffled(len(self.crops.persons), size, seed, epoch)
        return prefetch(self.batch, ((rows, augmentation, seeds) for rows, seeds in parts), workers)


def detailed(crops: Crops, scale: int) -> NDArray[np.int64]:
    """Rows of the persons who are high enough in their photograph to teach detail, see `DETAIL`."""
    persons, frame = crops.persons, crops.frame
    heights = frame.region(persons.box, annotated=persons.annotated).side[:, 1]
    return np.flatnonzero(heights >= DETAIL * scale * frame.size.height)


def split_off(crops: Crops, rows: NDArray[np.int64], most: int) -> tuple[Crops, Crops]:
    """Crops to train on and crops to validate on, without a common picture.

    Args:
        crops: of a training split.
        rows: of the persons to take.
        most: persons to validate on, at most a tenth of all; pictures are taken in the order of their ids' hash.
    """
    images = crops.persons.image[rows]
    ids = crops.store.images.id
    order = sorted(set(images.tolist()), key=lambda image: hashlib.sha256(str(ids[image]).encode()).digest())
    wanted, held = min(most, max(1, len(rows) // 10)), set[int]()
    for image in order:
        if np.isin(images, list(held)).sum() >= wanted:
            break
        held.add(image)
    aside = np.isin(images, list(held))
    return tuple(  # type: ignore[return-value]
        dataclasses.replace(crops, persons=some(crops.persons, rows[part])) for part in (~aside, aside)
    )


def some(persons: Persons, rows: NDArray[np.int64]) -> Persons:
    """Some of the persons, in the given order."""
    names = ("id", "image", "box", "score", "keypoints", "visible")
    return dataclasses.replace(persons, **{name: getattr(persons, name)[rows] for name in names})


def _coloured(pixels: Pixels, gain: Float | None) -> Pixels:
    return pixels if gain is None else np.clip(np.rint(pixels * gain), 0, 255).astype(np.uint8)


def _patch(small: Pixels, target: Pixels, side: int, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """The same square of both, `side` px of the large one."""
    scale = target.shape[0] // small.shape[0]
    n = min(side // scale, *small.shape[:2])
    top, left = (int(rng.integers(length - n + 1)) for length in small.shape[:2])
    return (
        small[top : top + n, left : left + n],
        target[scale * top : scale * (top + n), scale * left : scale * (left + n)],
    )
