"""Decoded pictures on disk: a small crop costs far less than the JPEG it is cut from, so each is decoded once for all.

Whole pictures are kept, not windows of them: the pixels of a crop then are those of a crop without a cache, bit for
bit (OpenCV samples in float32, so a window cut off beforehand gives other last bits), and the persons of one picture
share it. They lie in shards, files of plain uint8 that are mapped into memory; the system keeps in memory what is used,
once for all processes and threads.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lrbench.datasets.cache import remove_abandoned
from lrbench.datasets.images import Pixels, read_image
from lrbench.records import write_atomic
from lrbench.structures import Images

SHARD = 2**26
"""Bytes of a shard, unless one picture takes more."""

MOST = 32 * 10**9
"""Bytes that all shards together may take, unless the user says otherwise; never more than half of the free disk."""

Progress = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class Shard:
    """Some pictures in one file.

    Attributes:
        rows: of the pictures, as they follow each other.
        starts: of each in the file, bytes.
        size: of the file, bytes.
        path: of the file; beside it lies ``.sha256``, written last.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    size: int
    path: Path

    @property
    def seal(self) -> Path:
        """File with the sha256 of the pixels."""
        return self.path.with_suffix(".sha256")

    def map(self) -> Pixels | None:
        """The pixels of all, read-only; None where the file is not as it was written.

        All of it is read for the comparison, so what is asked for later is in memory, if there is enough.
        """
        try:
            if self.path.stat().st_size != self.size:
                return None
            # a plain array over the map: indexing a memmap costs more than a small crop
            pixels = np.asarray(np.memmap(self.path, np.uint8, "r"))
            return pixels if hashlib.sha256(pixels.data).hexdigest() == self.seal.read_text() else None
        except OSError:
            return None


class DecodedPictures:
    """Decoded pictures of a dataset, by row.

    Args:
        images: of the dataset.
        rows: of the pictures to keep.
        limit: bytes that the shards of all datasets may take; None for `MOST`. What is over is not kept.
    """

    def __init__(self, images: Images, rows: NDArray[np.int64], limit: int | None = None) -> None:
        self._images = images
        self._limit = limit
        self.bytes = int(_bytes(images, rows).sum())
        self.folder = folder() / _key(images, rows)
        self._shards = list(_shards(images, rows, self.folder))
        self._kept: dict[int, Pixels] = {}

    def __getitem__(self, row: int) -> Pixels | None:
        """A picture (h, w, 3) uint8 RGB, read-only; None where it is not kept."""
        return self._kept.get(row)

    def __len__(self) -> int:
        return len(self._kept)

    def open(self, workers: int, progress: Progress) -> None:
        """Map what is kept, and keep what is not, as far as the limit goes.

        Whole shards survive an interruption. Each is read once to compare its sha256; one that differs is made again.

        Args:
            workers: threads.
            progress: called per shard.

        Raises:
            DataError: see `lrbench.datasets.images.read_image`.
        """
        left = self._make_room()
        with ThreadPoolExecutor(max(workers, 1), thread_name_prefix="decode") as pool:
            found = pool.map(Shard.map, self._shards)
            for number, (shard, pixels) in enumerate(zip(self._shards, found, strict=True)):
                left -= shard.size
                if pixels is None:
                    pixels = self._write(shard, pool) if left >= 0 else None
                if pixels is None:
                    break
                self._share_out(shard, pixels)
                progress("decoded pictures", number + 1, len(self._shards), f"{self.bytes / 1e9:.1f} GB on disk")

    def _write(self, shard: Shard, pool: ThreadPoolExecutor) -> Pixels | None:
        """Decode the pictures of a shard into its file, and map it; None where the disk does not take it."""
        pixels = np.empty(shard.size, np.uint8)
        for start, image in zip(shard.starts, pool.map(self._decoded, shard.rows.tolist()), strict=True):
            pixels[start : start + image.size] = image.ravel()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            shard.seal.unlink(missing_ok=True)
            write_atomic(shard.path, pixels.data)
            write_atomic(shard.seal, hashlib.sha256(pixels.data).hexdigest().encode())
        except OSError:
            return None
        return shard.map()

    def _decoded(self, row: int) -> Pixels:
        height, width = (int(side) for side in self._images.size[row])
        return read_image(self._images.path[row], (height, width))

    def _share_out(self, shard: Shard, pixels: Pixels) -> None:
        for row, start in zip(shard.rows.tolist(), shard.starts.tolist(), strict=True):
            height, width = (int(side) for side in self._images.size[row])
            self._kept[row] = pixels[start : start + 3 * height * width].reshape(height, width, 3)

    def _make_room(self) -> int:
        """Bytes that this dataset may take, after others have made room, those that were used longest ago first."""
        parent = self.folder.parent
        free = shutil.disk_usage(next(place for place in self.folder.parents if place.exists())).free
        used = {place: _size_of(place) for place in parent.glob("*") if place.is_dir()}
        limit = min(MOST, sum(used.values()) + free // 2) if self._limit is None else self._limit
        others = sorted(used.keys() - {self.folder}, key=_last_used)
        while others and sum(used[place] for place in others) + self.bytes > limit:
            shutil.rmtree(others.pop(0), ignore_errors=True)
        remove_abandoned(self.folder.glob(".*"))
        with suppress(OSError):
            os.utime(self.folder)
        return limit - sum(used[place] for place in others)


def folder() -> Path:
    """Where the shards of all datasets lie, one folder each."""
    from lrbench.datasets import cache_folder  # that package imports this module's neighbours

    return cache_folder() / "pictures"


def clear() -> int:
    """Remove everything that is kept.

    Returns:
        Bytes that this made free.
    """
    freed = _size_of(folder())
    shutil.rmtree(folder(), ignore_errors=True)
    return freed


def _shards(images: Images, rows: NDArray[np.int64], place: Path) -> Iterator[Shard]:
    sizes = _bytes(images, rows)
    ends = np.cumsum(sizes)
    first = number = 0
    while first < len(rows):
        begin = int(ends[first] - sizes[first])
        last = max(int(np.searchsorted(ends, begin + SHARD, "right")), first + 1)
        starts = ends[first:last] - sizes[first:last] - begin
        yield Shard(rows[first:last], starts, int(ends[last - 1]) - begin, place / f"{number:05d}.u8")
        first, number = last, number + 1


def _bytes(images: Images, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(3 * images.size[rows].astype(np.int64).prod(1))


def _key(images: Images, rows: NDArray[np.int64]) -> str:
    """Of the files that are decoded, by name, length and time of change, and of what decodes them."""
    digest = hashlib.sha256(f"OpenCV {cv2.__version__}, shards of {SHARD}".encode())
    for row in rows.tolist():
        path = images.path[row]
        with suppress(OSError):  # a missing picture is told when it is read
            stat = path.stat()
            digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns} {images.size[row]}\n".encode())
    return digest.hexdigest()[:16]


def _size_of(place: Path) -> int:
    return sum(_sizes(place.rglob("*")))


def _sizes(paths: Iterable[Path]) -> Iterator[int]:
    for path in paths:
        with suppress(OSError):
            if path.is_file():
                yield path.stat().st_size


def _last_used(place: Path) -> float:
    with suppress(OSError):
        return place.stat().st_mtime
    return 0.0
