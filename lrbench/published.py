"""Published tables as comparisons: which cell of ours stands beside each row that a paper printed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from lrbench.geometry import Size
from lrbench.method import Method, load_method, method_names, reported_settings
from lrbench.models.backbones import BACKBONES
from lrbench.report import reported
from lrbench.report.reported import Reported


@dataclass(frozen=True)
class Entry:
    """One row of a published table, and what measures it here.

    Attributes:
        reported: as printed.
        method: our name; empty where nothing of ours measures the row.
        settings: of the method, which the row's name stands for.
        backbone: our name.
        reason: why nothing measures it.
    """

    reported: Reported
    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    backbone: str = ""
    reason: str = ""


def entries(table: str, methods: Sequence[str] = (), sizes: Sequence[str] = ()) -> list[Entry]:
    """Rows of a published table with what measures them.

    Args:
        table: its name, for example ``cal/8``.
        methods: only these; empty for all.
        sizes: only these, ``HxW``; empty for all.

    Raises:
        ValueError: no such table.
    """
    known, chosen = ours(), []
    wanted = {Size.parse(size) for size in sizes}
    for row in reported.table(table):
        found = known.get(row.method.casefold())
        if (methods and (found is None or found[0] not in methods)) or (wanted and row.size not in wanted):
            continue
        chosen.append(_entry(row, found))
    return chosen


def ours() -> dict[str, tuple[str, dict[str, Any]]]:
    """Names under which papers report what is here, in lower case -> our method and the settings it stands for."""
    known: dict[str, tuple[str, dict[str, Any]]] = {}
    for name in method_names():
        with suppress(ValueError):  # one that cannot be loaded has no names; the list of methods shows its error
            for label, settings in reported_settings(name).items():
                known.setdefault(label.casefold(), (name, settings))
    return known


def backbone_of(label: str) -> str | None:
    """Our name of a backbone as papers spell it: ``HRNet-W32`` is hrnet_w32."""
    return next((name for name in BACKBONES if _plain(name) == _plain(label)), None)


def find(method: Method[Any], sr: str = "none") -> tuple[Reported | None, list[str]]:
    """What is reported for a method, and in which settings it differs from that, in words.

    A report of the very settings is preferred to one of the method in general.
    """
    size = method.frame.size
    usual = load_method(method.name, size, method.backbone or None).settings
    changed = {key for key, value in method.settings.items() if usual.get(key) != value}
    groups: dict[frozenset[str], list[str]] = {}
    for label, settings in reported_settings(method.name).items():
        if all(method.settings.get(key) == value for key, value in settings.items()):
            groups.setdefault(frozenset(changed & settings.keys()), []).append(label)
    for explained in sorted(groups, key=len, reverse=True):
        row = reported.find(groups[explained], method.backbone, size, sr)
        if row is not None:
            return row, differing(method, changed - explained)
    return None, []


def differing(method: Method[Any], keys: set[str] | frozenset[str]) -> list[str]:
    """One note on settings that are not the method's usual ones; empty for none."""
    words = ", ".join(f"{key}={method.settings[key]}" for key in sorted(keys))
    return [f"settings: {words}, not the method's usual ones"] if words else []


def _entry(row: Reported, found: tuple[str, dict[str, Any]] | None) -> Entry:
    if found is None:
        return Entry(row, reason="reported only: no method here has this name")
    backbone = backbone_of(row.backbone)
    if backbone is None:
        return Entry(row, reason=f"reported only: {row.backbone or 'an unnamed backbone'} is not a backbone here")
    if row.size is None:
        return Entry(row, reason="reported only: no size is stated")
    name, settings = found
    return Entry(row, name, settings, backbone)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())
