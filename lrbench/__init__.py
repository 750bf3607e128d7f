"""Benchmark for human pose estimation from low-resolution images.

The names below are the public API; they are resolved on first use, so that `lrbench --help` is instant.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "compare": "lrbench.api",
    "evaluate": "lrbench.api",
    "train": "lrbench.api",
    "predict": "lrbench.inference",
    "list_methods": "lrbench.method",
    "load_method": "lrbench.method",
    "Record": "lrbench.records",
    "read_records": "lrbench.records",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lrbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
