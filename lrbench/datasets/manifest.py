"""Manifests: what a low-resolution copy was made from, by what, and the hash of everything in it.

``manifest.json`` is written when a copy is complete. Until then ``manifest.<split>.part`` says what is being made and
which pictures are done, so that an interrupted run can go on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import lrbench
from lrbench.datasets.images import DataError, Pixels
from lrbench.degradation import Level
from lrbench.records import write_atomic

FORMAT = 1

_RECIPE = ("preset", "level", "scale", "size", "height", "seed")  # must agree between the splits of one folder


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One split of a low-resolution copy: what was asked for, what made it, what came out.

    Attributes:
        split: for example ``val``.
        preset: its name and numbers, `Preset.plain`.
        level: ``image``, ``crop`` or ``height``.
        scale: factor by which pictures were divided; None at other levels than ``image``.
        size: ``HxW`` of the crops; None at other levels than ``crop``.
        height: of the persons, px; None at other levels than ``height``.
        seed: of presets that draw.
        source: name of the annotation file that was read.
        source_sha256: of its bytes.
        versions: of lrbench and of the libraries that touch pixels.
        images: file name -> sha256 of its pixels (`pixel_hash`).
        files: annotation and detection files, relative to the folder -> sha256 of their bytes.
    """

    split: str
    preset: dict[str, Any]
    level: Level
    scale: float | None
    size: str | None
    seed: int
    source: str
    source_sha256: str
    versions: dict[str, str]
    images: dict[str, str]
    files: dict[str, str]
    height: int | None = None


def versions() -> dict[str, str]:
    """Of lrbench and of the libraries that decide the content of a copy."""
    return {
        "lrbench": lrbench.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "pycocotools": version("pycocotools"),
    }


def pixel_hash(image: Pixels) -> str:
    """sha256 of size and RGB bytes of (h, w, 3) uint8: independent of how a file packs them."""
    return sha256(f"{'x'.join(map(str, image.shape))}\n".encode() + image.tobytes())


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def in_words(value: Any) -> str:
    """One field of a manifest, for messages."""
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def read_manifests(out: Path) -> dict[str, Manifest]:
    """Manifests of the complete splits of a copy; empty where there is none.

    Raises:
        DataError: unreadable, or of another format.
    """
    path = out / "manifest.json"
    try:
        data = json.loads(path.read_bytes())
        if data["format"] == FORMAT:
            return {split: Manifest(**values) for split, values in data["splits"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise DataError(f"{path}: not a manifest of lrbench degrade; choose another folder") from None
    raise DataError(f"{path}: format {data['format']}, this version reads {FORMAT}; degrade into a new folder")


def write_manifest(out: Path, done: Manifest) -> None:
    """Add a complete split to the manifest of a folder, and end its journal.

    Raises:
        OSError: the folder cannot be written.
    """
    splits = {m.split: dataclasses.asdict(m) for m in (*read_manifests(out).values(), done)}
    whole = {"format": FORMAT, "splits": dict(sorted(splits.items()))}
    write_atomic(out / "manifest.json", (json.dumps(whole, indent=1) + "\n").encode())
    journal_of(out, done.split).unlink(missing_ok=True)


def journal_of(out: Path, split: str) -> Path:
    """Where the hashes of a split are kept until it is complete."""
    return out / f"manifest.{split}.part"


def journal_line(value: dict[str, Any]) -> bytes:
    """One line of a journal."""
    return (json.dumps(value) + "\n").encode()


def begin(out: Path, wanted: Manifest) -> Manifest:
    """Claim a folder for a split: check that it is free or holds the same recipe, and start the journal.

    Returns:
        `wanted` with what earlier runs say they have made.

    Raises:
        DataError: the folder holds something else.
        OSError: the folder cannot be written.
    """
    done = read_manifests(out)
    begun = {m.split: m for m in map(_read_journal, sorted(out.glob("manifest.*.part")))}
    for found in (begun | done).values():
        _check_same(out, found, wanted, _RECIPE)
    # a name that starts with a dot is what a journal is called before it is whole
    if not begun and not done and out.is_dir() and any(not p.name.startswith(".manifest.") for p in out.iterdir()):
        raise DataError(f"out folder {out}: not empty and not written by lrbench degrade; choose another folder")
    earlier = done.get(wanted.split, begun.get(wanted.split))
    if earlier is not None:
        # a folder made by two versions of a library could not be made again by either
        _check_same(out, earlier, wanted, ("source_sha256", "versions"))
        wanted = dataclasses.replace(wanted, images=earlier.images)
    if wanted.split in done:
        files = done[wanted.split].files
        for name, digest in wanted.files.items():
            if files.get(name, digest) != digest:
                raise DataError(f"out folder {out}: {name} would change; choose another folder or delete this one")
        wanted = dataclasses.replace(wanted, files=dict(sorted((files | wanted.files).items())))
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(journal_of(out, wanted.split), journal_line(dataclasses.asdict(wanted)))
    return wanted


def _read_journal(path: Path) -> Manifest:
    """What an interrupted run wrote: first its manifest, then one line of hashes per source picture."""
    first, *rest = path.read_bytes().split(b"\n")
    try:
        begun = Manifest(**json.loads(first))
    except (ValueError, TypeError):
        raise DataError(f"{path}: not written by lrbench degrade; choose another folder") from None
    images = dict(begun.images)
    for line in rest:
        try:
            images |= json.loads(line)
        except ValueError:  # the line that was being written when the run was stopped
            break
    return dataclasses.replace(begun, images=images)


def _check_same(out: Path, found: Manifest, wanted: Manifest, keys: Sequence[str]) -> None:
    for key in keys:
        there, asked = getattr(found, key), getattr(wanted, key)
        if there != asked:
            raise DataError(
                f"out folder {out} holds split {found.split} with {key} {in_words(there)}; "
                f"asked for {in_words(asked)}; choose another folder or delete this one"
            )
