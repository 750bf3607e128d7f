"""What `lrbench ls` lists.

Sizes and counts of a method take a network to build, and the names of backbones and upscalers take torch. What is built
in is therefore listed once and shipped as ``listing.json``, which ``python -m lrbench.listing`` writes; it holds while
the files in `SOURCES` are those it was made of. Every other row (of a plugin, or of edited code) is kept in the cache
folder until lrbench, torch or the file that defines the method changes.
"""

from __future__ import annotations

import hashlib
import json
import pkgutil
import re
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lrbench
from lrbench.geometry import Size
from lrbench.structures import unknown

if TYPE_CHECKING:
    from lrbench.inference import Progress
    from lrbench.method import Listing, Method

KINDS = ("methods", "backbones", "upscalers", "degradations", "datasets", "tables")
SIZES = tuple(
    Size(*sides) for sides in ((64, 48), (64, 64), (96, 72), (128, 96), (128, 128), (192, 144), (256, 192), (384, 288))
)
"""Crops that papers use and that a listing tries, smallest first."""

COUNTED = (Size(64, 48), Size(256, 192))
"""Crops at which a listing counts parameters and multiply-adds."""

SOURCES = (
    "listing.py", "method.py", "published.py", "codecs/*.py", "methods/*.py", "models/**/*.py", "report/reported.py",
    "report/reported/*.csv",
)  # fmt: skip
"""Files of lrbench that decide a row of the listing."""

SHIPPED = Path(lrbench.__file__).with_name("listing.json")
"""Rows by kind of all that is built in, and the names under which papers report its methods."""

SHIPPED_KINDS = ("methods", "backbones", "upscalers", "tables")
"""Kinds that take torch to list; the others are as quick to make as to read."""


def listing(kind: str, plugins: list[Path], progress: Progress | None = None) -> list[dict[str, Any]]:
    """Rows of one kind: name, summary, paper, source, error, and what only this kind has.

    Methods also have year, backbone, sizes they take, and params and macs by size; tables have ``reported_only``, the
    names of methods that are not ours.

    Args:
        kind: one of `KINDS`.
        plugins: files that define methods.
        progress: called while networks are counted.

    Raises:
        ValueError: unknown kind, or a plugin that cannot be loaded.
    """
    if kind not in KINDS:
        raise ValueError(unknown("kind", kind, KINDS))
    if kind in SHIPPED_KINDS and not plugins and _only_built_in() and (ready := shipped()):
        rows: list[dict[str, Any]] = ready["rows"][kind]
        return rows
    if kind == "methods":
        return method_rows(plugins, progress)
    if plugins:
        from lrbench.method import load_plugin

        for path in plugins:
            load_plugin(path)
    return table_rows() if kind == "tables" else [_row(name, summary) for name, summary in _names(kind)]


def method_rows(plugins: list[Path], progress: Progress | None = None) -> list[dict[str, Any]]:
    """All methods, built-in first; one that cannot be loaded is a row with its error.

    Args, Raises: see `listing`.
    """
    shelf = Shelf()
    if not plugins and _only_built_in():
        kept = [shelf.row(path.stem, "built-in", path) for path in built_in_files()]
        if None not in kept:
            return [row for row in kept if row is not None]
    from lrbench.method import list_methods, load_plugin

    for plugin in plugins:
        load_plugin(plugin)
    listed, ready = list_methods(), shipped()
    counted = {row["name"]: row for row in ready["rows"]["methods"]} if ready else {}
    rows = [
        counted[item.name]
        if item.source == "built-in" and item.name in counted
        else _method_row(shelf, item, number, len(listed), progress)
        for number, item in enumerate(listed)
    ]
    if shelf.changed:
        if progress is not None:
            progress("count networks", len(rows), len(rows), "")
        shelf.save()
    return rows


@cache
def shipped() -> dict[str, Any] | None:
    """What `built_in` gave when this code was written; None where a file that decides it was changed since."""
    with suppress(OSError, ValueError, KeyError, TypeError):  # absent, or no file of ours
        ready: dict[str, Any] = json.loads(SHIPPED.read_bytes())
        if ready["code"] == _code():
            return ready
    return None


def built_in() -> dict[str, Any]:
    """What ships: the hash of its sources, rows by kind, and names under which papers report each method.

    Raises:
        Exception: whatever the network of a method raises.
    """
    from lrbench import method

    methods = [item for item in method.list_methods() if item.source == "built-in"]
    rows = {kind: [_row(name, summary) for name, summary in _names(kind)] for kind in ("backbones", "upscalers")}
    return {
        "code": _code(),
        "rows": {"methods": [_described(i) | facts(i.name) for i in methods], **rows, "tables": table_rows()},
        "labels": {item.name: list(method.reported_labels(item.name)) for item in methods},
    }


def reported_labels(name: str) -> tuple[str, ...]:
    """`lrbench.method.reported_labels`, without torch where the shipped listing knows all there is."""
    if _only_built_in() and (ready := shipped()):
        return tuple(ready["labels"].get(name, ()))
    from lrbench import method

    return method.reported_labels(name)


def built_in_files() -> list[Path]:
    """The files that define the built-in methods, in the order in which they are listed."""
    folder = Path(lrbench.__file__).parent / "methods"
    return [folder / f"{info.name}.py" for info in pkgutil.iter_modules([str(folder)])]


class Shelf:
    """Rows of methods in the cache folder, all made by the present lrbench and torch.

    Attributes:
        path: of the file.
        code: hash of the present lrbench and torch.
        changed: a row was put on it and not yet written.
    """

    def __init__(self) -> None:
        from lrbench.datasets import cache_folder

        self.path = cache_folder() / "methods.json"
        self.code = _digest(version("torch").encode(), _code().encode())
        self.changed = False
        self._rows: dict[str, dict[str, Any]] = {}
        with suppress(OSError, ValueError, KeyError, TypeError):  # absent, or no file of ours: counted anew
            kept = json.loads(self.path.read_bytes())
            if kept["code"] == self.code:
                self._rows = dict(kept["rows"])

    def row(self, name: str, source: str, path: Path) -> dict[str, Any] | None:
        """The kept row of a method.

        Args:
            name: of the method.
            source: where it is from, with the version of a distribution.
            path: the file that defines it.
        """
        return self._rows.get(self._key(name, source, path))

    def keep(self, path: Path, row: dict[str, Any]) -> None:
        """Put a row on the shelf; `save` writes it."""
        self._rows[self._key(row["name"], row["source"], path)] = row
        self.changed = True

    def save(self) -> None:
        """Write all rows; a folder that cannot be written costs the next listing its time, nothing else."""
        from lrbench.records import write_atomic

        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, json.dumps({"code": self.code, "rows": self._rows}).encode())
            self.changed = False

    @staticmethod
    def _key(name: str, source: str, path: Path) -> str:
        return _digest(name.encode(), source.encode(), path.read_bytes())


def facts(name: str) -> dict[str, Any]:
    """What building the networks of a method tells: backbone, sizes, params and macs by size.

    Raises:
        ValueError: it takes no size at all.
        Exception: whatever else a plugin raises.
    """
    from lrbench.method import default_backbone, load_method

    sizes: list[str] = []
    params: dict[str, int] = {}
    macs: dict[str, int] = {}
    refusal: ValueError | None = None
    for size in SIZES:
        try:
            method = load_method(name, size)
            if size in COUNTED:
                params[str(size)], macs[str(size)] = counts(method)
            sizes.append(str(size))
        except ValueError as error:
            refusal = refusal or error
    if refusal is not None and not sizes:
        raise refusal
    return {"backbone": default_backbone(name), "sizes": sizes, "params": params, "macs": macs}


def counts(method: Method[Any]) -> tuple[int, int]:
    """Parameters and multiply-adds of a method, without memory or arithmetic where its network allows it."""
    import torch

    from lrbench.method import costs
    from lrbench.models.network import count_macs, count_parameters

    try:
        with torch.device("meta"):
            model = method.build_model()
        return count_parameters(model), count_macs(model, method.frame.size)
    except Exception:  # a network that looks at numbers has to be made of numbers
        return costs(method)


def year(paper: str) -> int | None:
    """Year of a citation: the first number that looks like one, else that of its arXiv number."""
    plain = re.search(r"\b(?:19|20)\d\d\b", re.sub(r"arXiv:\S+", "", paper))
    if plain:
        return int(plain[0])
    number = re.search(r"arXiv:(\d\d)\d\d\.", paper)
    return 2000 + int(number[1]) if number else None


def table_rows() -> list[dict[str, Any]]:
    """Published tables; rows of methods that are not ours are named, as nothing will be measured beside them."""
    from lrbench.published import ours
    from lrbench.report.reported import table, tables

    known, rows = ours(), []
    for item in tables():
        others = [row.method for row in table(item.name) if row.method.casefold() not in known]
        names = list(dict.fromkeys(others))
        listed = f"; {len(others)} of a method that is not one of ours ({', '.join(names)}): reported only"
        summary = f"{item.title}, {item.rows} rows{listed if names else ''}"
        rows.append({**_row(item.name, summary), "reported_only": names})
    return rows


def _method_row(shelf: Shelf, item: Listing, number: int, total: int, progress: Progress | None) -> dict[str, Any]:
    from lrbench.method import source_file

    row = _described(item)
    if item.error is not None:
        return row
    try:
        path = source_file(item.name)
        kept = shelf.row(item.name, item.source, path)
        if kept is not None:
            return kept
        if progress is not None:
            progress("count networks", number, total, item.name)
        row |= facts(item.name)
        shelf.keep(path, row)
    except Exception as error:  # as above: a broken method is a row with its error
        row["error"] = f"{type(error).__name__}: {error}"
    return row


def _described(item: Listing) -> dict[str, Any]:
    """The row of a method of which nothing was counted."""
    return {**vars(item), "year": year(item.paper), "backbone": "", "sizes": [], "params": {}, "macs": {}}


def _only_built_in() -> bool:
    """Whether no method can come from elsewhere: none is installed, and no file can have been loaded."""
    return "lrbench.method" not in sys.modules and not _installed()


@cache
def _installed() -> bool:
    """Whether a distribution brings methods."""
    return bool(entry_points(group="lrbench.methods"))


def _code() -> str:
    """Hash of `SOURCES`."""
    root = Path(lrbench.__file__).parent
    return _digest(*(path.read_bytes() for pattern in SOURCES for path in sorted(root.glob(pattern))))


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]


def _row(name: str, summary: str) -> dict[str, Any]:
    return {"name": name, "summary": summary, "paper": "", "source": "built-in", "error": None}


def _names(kind: str) -> list[tuple[str, str]]:
    if kind == "backbones":
        from lrbench.models.backbones import BACKBONES

        return [(name, spec.summary) for name, spec in BACKBONES.items()]
    if kind == "upscalers":
        from lrbench.models.upscalers import UPSCALERS

        return [(name, spec.summary) for name, spec in UPSCALERS.items()]
    if kind == "degradations":
        from lrbench.degradation import presets

        return list(presets().items())
    return [
        ("synth", "embedded: rendered pictures of people, made on first use"),
        ("coco", "the folder named by LRBENCH_COCO"),
        ("PATH", "any folder in the layout of COCO, MPII, CrowdPose or LSP-extended"),
    ]


if __name__ == "__main__":
    SHIPPED.write_text(json.dumps(built_in(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
