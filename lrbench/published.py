"""Published tables as comparisons: which cell of ours stands beside each row that a paper printed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from lrbench.geometry import Size, enlarged_size
from lrbench.method import Method, default_backbone, load_method, method_names, plain, reported_settings, setting_names
from lrbench.models.backbones import BACKBONES
from lrbench.models.upscalers import UPSCALERS
from lrbench.records import Record
from lrbench.report import reported
from lrbench.report.reported import Reported

Candidate = tuple[str, dict[str, Any]]
"""One of our methods and the settings that a name stands for."""

STATED = ((re.compile(r"without quarter-pixel|\(quarter-offset\) = N|\(0\.25 shift\)=N"), {"step": "none"}),)
"""Settings that tables state beside a row's name, by what the note says of them."""

OTHER_SYSTEMS = (
    (re.compile(r"\bbottom-up\b"), "a bottom-up system, and every method here is top-down"),
    (re.compile(r"\bmodel ensemble\b"), "an ensemble of networks"),
)
"""What a note may say of a row that one network on crops of persons cannot measure."""


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
        candidates = known.get(row.method.casefold(), [])
        if (methods and not any(name in methods for name, _ in candidates)) or (wanted and row.size not in wanted):
            continue
        chosen.append(_entry(row, candidates))
    return chosen


def ours() -> dict[str, list[Candidate]]:
    """Names under which papers report what is here, in lower case -> what each may stand for.

    More than one where papers call by one name what is a method per kind of backbone here.
    """
    known: dict[str, list[Candidate]] = {}
    for name in method_names():
        with suppress(ValueError):  # one that cannot be loaded has no names; the list of methods shows its error
            for label, settings in reported_settings(name).items():
                known.setdefault(label.casefold(), []).append((name, settings))
    return known


def measurements(entry: Entry, records: Iterable[Record]) -> list[Record]:
    """Records that measure a row: its method at its size, every setting the row's or else the method's usual one.

    Those on the printed backbone and upscaler; where there are none, those on their narrow stand-ins. Behind an
    upscaler, those of a network that was trained on clean crops, as published.
    """
    if not entry.method:
        return []
    fitting = [record for record in records if _fits(entry, record)]
    printed = entry.reported.sr
    upscalers = [printed]
    if printed != "none":
        name, _, scale = printed.casefold().partition(" ")
        upscalers += [f"{UPSCALERS[name].narrow} {scale}"] if name in UPSCALERS else []
    for backbone, upscaler in product((entry.backbone, BACKBONES[entry.backbone].narrow), upscalers):
        found = [r for r in fitting if r.call.backbone == backbone and _plain(r.call.sr) == _plain(upscaler)]
        if found:
            return found
    return []


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


def _entry(row: Reported, candidates: Sequence[Candidate]) -> Entry:
    for pattern, words in OTHER_SYSTEMS:
        if pattern.search(row.note):
            return Entry(row, reason=f"reported only: {words}")
    if not candidates:
        return Entry(row, reason="reported only: no method here has this name")
    backbone = backbone_of(row.backbone)
    if backbone is None:
        return Entry(row, reason=f"reported only: {row.backbone or 'an unnamed backbone'} is not a backbone here")
    if row.size is None:
        return Entry(row, reason="reported only: no size is stated")
    fitting = [c for c in candidates if _usual_kind(c[0], backbone)] if len(candidates) > 1 else []
    name, settings = (fitting or candidates)[0]
    for pattern, stated in STATED:  # a method that has no such choice always does what the note says
        if pattern.search(row.note) and stated.keys() <= set(setting_names(name)):
            settings = {**settings, **stated}
    return Entry(row, name, settings, backbone)


def _usual_kind(method: str, backbone: str) -> bool:
    """Whether a method's own backbone is of the same kind as this one."""
    own = default_backbone(method)
    return bool(own) and type(BACKBONES[own]) is type(BACKBONES[backbone])


def _fits(entry: Entry, record: Record) -> bool:
    call, size = record.call, entry.reported.size
    if record.status != "done" or call.name != entry.method or size is None or call.res != str(size):
        return False
    if call.sr != "none":
        if call.pose != "clean":
            return False
        size = enlarged_size(size, int(call.sr.rpartition(" x")[2]))
    usual = load_method(call.name, size, call.backbone or None, **entry.settings).settings
    # a record may be older than a setting
    return all(plain(usual[key]) == value for key, value in call.settings.items() if key in usual)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())
