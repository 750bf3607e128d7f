"""Where a number comes from: the code, the libraries, the machine."""

from __future__ import annotations

import hashlib
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import torch

import lrbench
from lrbench import records

BESIDE = (
    "__init__",
    "allocation",
    "api",
    "audit",
    "bench",
    "cells",
    "cli",
    "comparison",
    "console",
    "controls",
    "latency",
    "listing",
    "predictions",
    "pretraining",
    "provenance",
    "published",
    "ranking",
    "records",
    "reevaluation",
    "submission",
    "timing",
)
"""Modules that decide no number of a record."""

NOT_READING = ("__init__", "cache", "decoded", "degraded", "mapping")
"""Modules among those of datasets that decide neither what annotations are read as nor what pictures."""

SCORING = ("crowding", "diagnosis", "evaluation", "inference", "matching", "pckh", "referee", "scoring", "statistics")
"""Modules that decide what weights score, not the weights, unless an epoch is selected by its score."""


@lru_cache(maxsize=64)
def code_hash(method: str) -> str:
    """sha256 over the sources that decide a score: all below the commands, and a method's file if one is named."""
    readers = [p for p in (_root() / "datasets").glob("*.py") if p.stem not in NOT_READING]
    return _hash([*_sources(BESIDE), *readers], method)


@lru_cache(maxsize=64)
def training_hash(method: str, *, selects: bool) -> str:
    """sha256 over the sources that decide weights.

    What annotations are read as is not told by sources, see `lrbench.structures.Persons.hash`.

    Args:
        method: whose file belongs to them; empty for none.
        selects: the weights are those of the epoch with the best score.
    """
    return _hash([*_sources(BESIDE if selects else BESIDE + SCORING), _root() / "datasets" / "images.py"], method)


def _root() -> Path:
    return Path(lrbench.__file__).parent


def _sources(without: Sequence[str]) -> list[Path]:
    """Modules below the commands but for some, and the packages they compose."""
    paths = [p for p in _root().glob("*.py") if p.stem not in without]
    return paths + [p for folder in ("codecs", "models", "corruptions") for p in (_root() / folder).rglob("*.py")]


def _hash(paths: Sequence[Path], method: str) -> str:
    from lrbench.method import source_file

    digest = hashlib.sha256()
    for path in [*sorted(paths), *([source_file(method)] if method else [])]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def provenance(
    method: str, weights_sha: str, seed: int | None, device: str, precision: str, *, weights_used: str = ""
) -> records.Provenance:
    """Versions, device and time of a measurement."""
    packages = ("torch", "numpy", "opencv-python-headless", "pycocotools", "scikit-learn", "lightning-fabric")
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return records.Provenance(
        lrbench=lrbench.__version__,
        commit=commit(),
        code_hash=code_hash(method) if method else "",
        versions={"python": platform.python_version(), **{p: version(p) for p in packages}},
        weights_sha256=weights_sha,
        weights_used=weights_used,
        seed=seed,
        device=f"{device} ({name})",
        precision=precision,
        threads=torch.get_num_threads(),
        utc=datetime.now(UTC).isoformat(timespec="seconds"),
    )


@lru_cache(maxsize=1)
def commit() -> str:
    """Commit of the checkout lrbench runs from, with ``+changes`` where files differ; empty for an installed copy."""
    try:
        run = ["git", "-C", str(_root())]
        head = subprocess.run([*run, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run(
            [*run, "status", "--porcelain", "--", "."], capture_output=True, text=True, check=True
        ).stdout
        return f"{head[:12]}+changes" if dirty.strip() else head[:12]
    except (OSError, subprocess.CalledProcessError):
        return ""


def peak_memory(device: str) -> int:
    """Bytes: allocated on a GPU, resident set of this process on a CPU."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
