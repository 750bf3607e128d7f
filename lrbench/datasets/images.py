"""Pictures: strict reading, and a bounded store of decoded ones."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from lrbench.structures import Images

Pixels = NDArray[np.uint8]

_ENDINGS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND"}  # first bytes of a file -> what must stand near its end


class DataError(ValueError):
    """Data or weights are missing, damaged or refused; the message names the file and what to do."""


def read_image(path: Path, size: tuple[int, int] | None = None) -> Pixels:
    """Decode a picture as (h, w, 3) uint8 RGB, ignoring its EXIF orientation, as the released code does.

    Args:
        path: the file.
        size: height and width that its annotation promises, px.

    Raises:
        DataError: the file is missing, truncated, no picture, or of another size.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"image {path}: cannot be read ({error.strerror}); restore the file") from None
    for start, end in _ENDINGS.items():
        # decoders fill a truncated picture with grey and only warn
        if data.startswith(start) and end not in data[-1024:]:
            raise DataError(f"image {path}: truncated after {len(data)} bytes; restore the file")
    buffer = np.frombuffer(data, np.uint8)
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(buffer, flags) if len(buffer) else None
    if image is None:
        raise DataError(f"image {path}: {len(data)} bytes that are no picture OpenCV can decode; restore the file")
    if size is not None and image.shape[:2] != size:
        height, width = image.shape[:2]
        raise DataError(f"image {path}: {height}x{width} px, its annotation says {size[0]}x{size[1]}")
    return np.asarray(image, np.uint8)


class OnDisk(Protocol):
    """Decoded pictures that lie on disk, see `lrbench.datasets.decoded`."""

    def __getitem__(self, row: int) -> Pixels | None: ...


class ImageStore:
    """Decoded pictures, kept in memory up to a limit; safe to use from several threads.

    Nothing is ever dropped: epochs visit every picture once, in random order, and a least-recently-used store would
    throw each one away just before it is wanted again.

    Attributes:
        images: the pictures.
        limit: bytes that decoded ones may take in memory.
        decoded: where others are looked for before they are decoded; None for nowhere.
    """

    decoded: OnDisk | None = None

    def __init__(self, images: Images, limit_bytes: int | None = None) -> None:
        self.images = images
        self.limit = spare_memory() if limit_bytes is None else limit_bytes
        self._used = 0
        self._kept: dict[int, Pixels] = {}
        self._lock = threading.Lock()

    def __getitem__(self, row: int) -> Pixels:
        """Picture of row `row`, (h, w, 3) uint8 RGB.

        Raises:
            DataError: see `read_image`.
        """
        if (kept := self._kept.get(row)) is not None:
            return kept
        if self.decoded is not None and (mapped := self.decoded[row]) is not None:
            return mapped
        height, width = (int(side) for side in self.images.size[row])
        image = read_image(self.images.path[row], (height, width))
        with self._lock:
            if row not in self._kept and self._used + image.nbytes <= self.limit:
                self._kept[row] = image
                self._used += image.nbytes
        return image


def spare_memory() -> int:
    """Bytes that decoded pictures may take: a quarter of what is free, at most 4 GiB."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2 << 30
    return min(free // 4, 4 << 30)
