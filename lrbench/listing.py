"""What `lrbench ls` lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lrbench.method import list_methods, load_plugin, unknown

KINDS = ("methods", "backbones", "degradations", "datasets", "tables")


def listing(kind: str, plugins: list[Path]) -> list[dict[str, Any]]:
    """Rows of one kind: name, summary, paper, source, error.

    Raises:
        ValueError: unknown kind, or a plugin that cannot be loaded.
    """
    if kind not in KINDS:
        raise ValueError(unknown("kind", kind, KINDS))
    for path in plugins:
        load_plugin(path)
    if kind == "methods":
        return [vars(row) for row in list_methods()]
    return [_row(name, summary) for name, summary in _names(kind)]


def _row(name: str, summary: str) -> dict[str, Any]:
    return {"name": name, "summary": summary, "paper": "", "source": "built-in", "error": None}


def _names(kind: str) -> list[tuple[str, str]]:
    if kind == "backbones":
        from lrbench.models.backbones import BACKBONES

        return [(name, spec.summary) for name, spec in BACKBONES.items()]
    if kind == "degradations":
        from lrbench.degradation import PRESETS

        return [(name, type(preset).__doc__ or "") for name, preset in PRESETS.items()]
    if kind == "datasets":
        return [
            ("synth", "embedded: rendered pictures of people, made on first use"),
            ("coco", "the folder named by LRBENCH_COCO"),
            ("PATH", "any folder in COCO layout"),
        ]
    from lrbench.report.reported import tables

    return [(table.name, f"{table.title}, {table.rows} rows") for table in tables()]
