"""Crops in batches, cut by threads ahead of the consumer.

OpenCV releases the interpreter lock while it decodes and warps, so threads are enough, share one store of decoded
pictures, and leave nothing behind when interrupted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from lrbench.augmentation import Augmentation, Draws, View, mirror_keypoints
from lrbench.corruptions.corruption import seed_of
from lrbench.datasets.images import ImageStore, Pixels
from lrbench.degradation import Preset, crop
from lrbench.geometry import Float, Frame, apply
from lrbench.structures import Batch, Persons

B = TypeVar("B")

Rows = int | NDArray[np.int64]
"""One person, or (...) several."""


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

    def view(self, rows: Rows, augmentation: Augmentation | None = None, draws: Draws | None = None) -> View:
        """Where the crops of some persons lie, or that of one; augmented where an augmentation and draws are given."""
        persons = self.persons
        region = self.frame.region(persons.box[rows], annotated=persons.annotated)
        if augmentation is None or draws is None:
            still = np.zeros(np.shape(rows))
            return View(region, still, still > 0)
        keypoints, visible, width = persons.keypoints[rows], persons.visible[rows], self._width(rows)
        return augmentation.view(self.frame, region, keypoints, visible, draws, width, persons.skeleton)

    def place(self, rows: Rows, view: View) -> tuple[Float, Float, NDArray[np.bool_]]:
        """Where views of some persons lie, or that of one.

        Args:
            rows: (...) of the persons.
            view: (...) where their crops lie.

        Returns:
            maps px of the stored picture -> crop px (..., 2, 3), keypoints (..., K, 2) crop px, flags (..., K).
        """
        width = self._width(rows)
        flip = np.asarray(view.flip)[..., None]
        xy, visible = self.persons.keypoints[rows], self.persons.visible[rows]
        mirrored, exchanged = mirror_keypoints(xy, visible, width, self.persons.skeleton)
        labelled = np.where(flip, exchanged, visible) > 0
        matrix = self.frame.matrix(view.region, view.rotation)
        points = apply(matrix[..., None, :, :], np.where(flip[..., None], mirrored, xy))
        # the mirrored picture is never made: x -> width - 1 - x goes into the matrix
        pixels_matrix = matrix.copy()
        pixels_matrix[..., 2] += np.where(flip, matrix[..., 0] * (width[..., None] - 1), 0)
        pixels_matrix[..., 0] *= np.where(flip, -1, 1)
        return pixels_matrix, np.where(labelled[..., None], points, 0.0), labelled

    def _width(self, rows: Rows) -> NDArray[np.int32]:
        """Of the pictures of persons, px."""
        return np.asarray(self.store.images.size[self.persons.image[rows], 1])

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
        generators = [np.random.default_rng(list(seed)) for seed in seeds]
        draws = augmentation.draw_each(generators) if augmentation is not None and generators else None
        persons = np.asarray(rows)
        matrices, xy, labelled = self.place(persons, self.view(persons, augmentation, draws))
        pixels = np.empty((len(rows), self.frame.size.height, self.frame.size.width, 3), np.uint8)
        for i, row in enumerate(rows):
            pixels[i] = self.pixels(row, matrices[i], generators[i] if generators else None)
        return Batch(
            torch.from_numpy(pixels).permute(0, 3, 1, 2),
            torch.from_numpy(xy).float(),
            torch.from_numpy(labelled).float(),
        )

    def batches(self, size: int, workers: int) -> Iterator[Batch]:
        """All persons in order, unaugmented; the last batch may be smaller."""
        return prefetch(self.batch, [(rows,) for rows in in_order(len(self.persons), size)], workers)

    def epoch(self, size: int, workers: int, augmentation: Augmentation, seed: int, epoch: int) -> Iterator[Batch]:
        """One shuffled, augmented pass; what does not fill a batch is left for another epoch."""
        parts = shuffled(len(self.persons), size, seed, epoch)
        return prefetch(self.batch, ((rows, augmentation, seeds) for rows, seeds in parts), workers)


def in_order(persons: int, size: int) -> list[list[int]]:
    """Rows of one pass in order, batch by batch; the last may be smaller."""
    return [list(range(first, min(first + size, persons))) for first in range(0, persons, size)]


def shuffled(persons: int, size: int, seed: int, epoch: int) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Rows of one shuffled pass, batch by batch, and the seeds of their views; an incomplete batch is left out.

    A view depends on seed, epoch and row alone, so neither workers nor interruptions change it.
    """
    order = np.random.default_rng([seed, epoch]).permutation(persons)
    for i in range(max(1, persons // size)):
        rows = order[i * size : (i + 1) * size].tolist()
        yield rows, [[seed, epoch, row] for row in rows]


def prefetch(make: Callable[..., B], jobs: Iterable[tuple[Any, ...]], workers: int) -> Iterator[B]:
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
