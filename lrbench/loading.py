"""Crops in batches, cut by threads ahead of the consumer.

OpenCV releases the interpreter lock while it decodes and warps, so threads are enough, share one store of decoded
pictures, and leave nothing behind when interrupted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from lrbench.augmentation import Augmentation, View, mirror_keypoints
from lrbench.corruptions.corruption import seed_of
from lrbench.datasets.images import ImageStore, Pixels
from lrbench.degradation import Preset, crop
from lrbench.geometry import Float, Frame, apply
from lrbench.structures import Batch, Persons

B = TypeVar("B")


@dataclass(frozen=True, eq=False)
class Crops:
    """Persons as crops of a frame.

    Attributes:
        store: their pictures.
        persons: whom to crop.
        frame: size and alignment.
        preset: how low-resolution pixels are made.
        seed: of presets that draw, for crops that are not augmented.
        kept: crops that are not augmented, by row, to be cut once; None cuts them whenever they are asked for.
    """

    store: ImageStore
    persons: Persons
    frame: Frame
    preset: Preset
    seed: int = 0
    kept: dict[int, Pixels] | None = None

    def view(self, row: int, augmentation: Augmentation | None, rng: np.random.Generator | None) -> View:
        """Where the crop of a person lies; augmented where an augmentation and its generator are given."""
        persons = self.persons
        region = self.frame.region(persons.box[row], annotated=persons.annotated)
        if augmentation is None or rng is None:
            return View(region, 0.0, False)
        width = int(self.store.images.size[persons.image[row], 1])
        draws = augmentation.draw(rng)
        keypoints, visible = persons.keypoints[row], persons.visible[row]
        return augmentation.view(self.frame, region, keypoints, visible, draws, width, persons.skeleton)

    def place(self, row: int, view: View) -> tuple[Float, Float, NDArray[np.bool_]]:
        """Where one view of a person lies.

        Args:
            row: of the person.
            view: where its crop lies.

        Returns:
            map px of the stored picture -> crop px (2, 3), keypoints (K, 2) crop px, flags (K,).
        """
        xy, visible = self.persons.keypoints[row], self.persons.visible[row]
        matrix = self.frame.matrix(view.region, view.rotation)
        pixels_matrix = matrix
        if view.flip:
            width = int(self.store.images.size[self.persons.image[row], 1])
            xy, visible = mirror_keypoints(xy, visible, width, self.persons.skeleton)
            # the mirrored picture is never made: x -> width - 1 - x goes into the matrix
            pixels_matrix = matrix.copy()
            pixels_matrix[:, 2] += matrix[:, 0] * (width - 1)
            pixels_matrix[:, 0] = -matrix[:, 0]
        labelled = visible > 0
        return pixels_matrix, np.where(labelled[:, None], apply(matrix, xy), 0.0), labelled

    def sample(
        self, row: int, view: View, rng: np.random.Generator | None = None
    ) -> tuple[Pixels, Float, NDArray[np.bool_]]:
        """Pixels (h, w, 3) uint8, keypoints (K, 2) crop px, and flags (K,) of one view of a person.

        Args:
            row: of the person.
            view: where its crop lies.
            rng: of presets that draw; None for the generator that belongs to the person and `seed`.
        """
        matrix, xy, labelled = self.place(row, view)
        return self.pixels(row, matrix, rng), xy, labelled

    def pixels(self, row: int, matrix: Float, rng: np.random.Generator | None = None) -> Pixels:
        """The crop (h, w, 3) uint8 of a person's picture under a map picture px -> crop px; `rng` as in `sample`."""
        if rng is not None:
            return self._cut(row, matrix, rng)
        if self.kept is not None and row in self.kept:
            return self.kept[row]
        pixels = self._cut(row, matrix, np.random.default_rng(self._seed_of(row)) if self.preset.random else None)
        if self.kept is not None:
            self.kept[row] = pixels
        return pixels

    def _cut(self, row: int, matrix: Float, rng: np.random.Generator | None) -> Pixels:
        return crop(self.store[int(self.persons.image[row])], matrix, self.frame.size, self.preset, rng)

    def _seed_of(self, row: int) -> int:
        image = int(self.store.images.id[self.persons.image[row]])
        person, preset = int(self.persons.id[row]), self.preset
        return seed_of(preset.name, "crop", preset.severity, self.frame.size, self.seed, image, person)

    def batch(
        self, rows: Sequence[int], augmentation: Augmentation | None = None, seeds: Sequence[Sequence[int]] = ()
    ) -> Batch:
        """Crops of some persons; each person's view is drawn from its own generator, so order does not matter."""
        samples = []
        for i, row in enumerate(rows):
            rng = np.random.default_rng(list(seeds[i])) if seeds else None
            samples.append(self.sample(row, self.view(row, augmentation, rng), rng))
        pixels = torch.from_numpy(np.stack([s[0] for s in samples])).permute(0, 3, 1, 2)
        keypoints = torch.from_numpy(np.stack([s[1] for s in samples])).float()
        return Batch(pixels, keypoints, torch.from_numpy(np.stack([s[2] for s in samples])).float())

    def batches(self, size: int, workers: int) -> Iterator[Batch]:
        """All persons in order, unaugmented; the last batch may be smaller."""
        return prefetch(self.batch, [(rows,) for rows in in_order(len(self.persons), size)], workers)

    def epoch(self, size: int, workers: int, augmentation: Augmentation, seed: int, epoch: int) -> Iterator[Batch]:
        """One shuffled, augmented pass; what does not fill a batch is left for another epoch."""
        parts = shuffled(len(self.persons), size, seed, epoch)
        return prefetch(self.batch, [(rows, augmentation, seeds) for rows, seeds in parts], workers)


def in_order(persons: int, size: int) -> list[list[int]]:
    """Rows of one pass in order, batch by batch; the last may be smaller."""
    return [list(range(first, min(first + size, persons))) for first in range(0, persons, size)]


def shuffled(persons: int, size: int, seed: int, epoch: int) -> list[tuple[list[int], list[list[int]]]]:
    """Rows of one shuffled pass, batch by batch, and the seeds of their views; an incomplete batch is left out.

    A view depends on seed, epoch and row alone, so neither workers nor interruptions change it.
    """
    order = np.random.default_rng([seed, epoch]).permutation(persons)
    parts = [order[i * size : (i + 1) * size].tolist() for i in range(max(1, persons // size))]
    return [(rows, [[seed, epoch, row] for row in rows]) for rows in parts]


def prefetch(make: Callable[..., B], jobs: Sequence[tuple[Any, ...]], workers: int) -> Iterator[B]:
    """What `make` gives for each job, in order, made by threads ahead of the consumer.

    Args:
        make: thread-safe.
        jobs: its arguments.
        workers: threads; 0 makes each when it is asked for.
    """
    if workers == 0:
        for job in jobs:
            yield make(*job)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="crops")
    waiting: deque[Future[B]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(make, *job))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
