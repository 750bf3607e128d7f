"""Arrays that took long to read, kept in the user's cache folder: named by their key, verified, bounded.

A file holds them as safetensors with a sha256 over key, names, shapes and bytes. Whatever does not agree with it, be it
damaged, cut off or put there by something else, is as good as not there: the arrays are read from their source again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

LEAST = 20_000_000
"""Bytes from which on a file is worth it: smaller ones are read in half a second."""

MOST = 500_000_000
"""Bytes that are kept; COCO's train2017 takes 56 million of them."""

ABANDONED = 3600.0
"""Seconds after which a file that was not written to its end belongs to nobody."""


def folder() -> Path:
    """Where the files lie."""
    from lrbench.datasets import cache_folder  # that package reads by modules that keep arrays here

    return cache_folder() / "annotations"


def get(key: str) -> tuple[Arrays, dict[str, Any]] | None:
    """What `put` was given under a key; None where it is not there as it was given."""
    from safetensors import safe_open

    path = _path(key)
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata()
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _digest(key, arrays, metadata["about"]) != metadata["sha256"]:
            return None
        about: dict[str, Any] = json.loads(metadata["about"])
    except Exception:  # no such file, or whatever damaged bytes lead safetensors to
        return None
    with suppress(OSError):
        os.utime(path)  # what was used last is removed last
    return arrays, about


def put(key: str, arrays: Arrays, about: Mapping[str, Any]) -> None:
    """Keep arrays; a folder that cannot be written costs the next reading its time, nothing else.

    Args:
        key: of hexadecimal digits; tells what they come from, and what read it.
        arrays: numbers in any shapes.
        about: JSON that goes with them.
    """
    from safetensors.numpy import save

    from lrbench.records import write_atomic

    text = json.dumps(about)
    packed = {name: np.ascontiguousarray(array) for name, array in arrays.items()}  # safetensors does not look
    with suppress(OSError):
        folder().mkdir(parents=True, exist_ok=True)
        write_atomic(_path(key), save(packed, {"about": text, "sha256": _digest(key, packed, text)}))
        _tidy()


def clear() -> int:
    """Remove everything that is kept.

    Returns:
        Bytes that this made free.
    """
    freed = 0
    for path in (*folder().glob("*.safetensors"), *_unfinished()):
        with suppress(OSError):
            size = path.stat().st_size
            path.unlink()
            freed += size
    return freed


def remove_abandoned(unfinished: Iterable[Path]) -> None:
    """Remove files that killed processes were writing; those that were touched lately may still be written."""
    for path in unfinished:
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - ABANDONED:
                path.unlink()


def _path(key: str) -> Path:
    return folder() / f"{key}.safetensors"


def _unfinished() -> list[Path]:
    """What `lrbench.records.write_atomic` leaves behind when it is killed, and what it is writing."""
    return list(folder().glob(".*.safetensors.*"))


def _tidy() -> None:
    """Remove what is beyond the bound, used longest ago first, and what nobody is writing any more."""
    remove_abandoned(_unfinished())
    used = sorted(((path.stat(), path) for path in folder().glob("*.safetensors")), key=lambda u: -u[0].st_mtime)
    total = used[0][0].st_size if used else 0
    for stat, path in used[1:]:
        total += stat.st_size
        if total > MOST:
            path.unlink()


def _digest(key: str, arrays: Arrays, about: str) -> str:
    digest = hashlib.sha256(f"{key}\n{about}\n".encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()
