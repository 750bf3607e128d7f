"""Numbers as they are printed everywhere, and what their columns are called."""

from __future__ import annotations

from collections.abc import Sequence

ABSENT = "-"
"""Printed for what was not measured or not reported; never 0 or -1."""

METRIC_COLUMNS = (
    ("AP", "ap"),
    ("AP50", "ap50"),
    ("AP75", "ap75"),
    ("AP(M)", "ap_m"),
    ("AP(L)", "ap_l"),
    ("AR", "ar"),
)
"""Headings of COCO's metrics in tables, and their names in a record."""

FURTHER_HEADINGS = {
    "pckh50": "PCKh@0.5",
    "pckh10": "PCKh@0.1",
    "pckh11": "PCKh@0.11",
    "pck05": "PCK@0.05",
    "pck10": "PCK@0.1",
    "pck20": "PCK@0.2",
    "ap_easy": "AP(easy)",
    "ap_medium": "AP(medium)",
    "ap_hard": "AP(hard)",
}
"""Headings of other metrics by their names in a record; joints of one are in `metric_heading`."""


def metric_heading(name: str) -> str:
    """What a metric is called: ``ap_m`` is AP(M), ``pckh50_head`` PCKh@0.5 (head)."""
    known = {**{name: heading for heading, name in METRIC_COLUMNS}, **FURTHER_HEADINGS}
    whole, _, part = name.partition("_")
    if name in known:
        return known[name]
    whole = known.get(whole, whole.upper())
    if not part:
        return whole
    return f"{whole}({part.upper()})" if len(part) == 1 else f"{whole} ({part})"


def percent(fraction: float | None) -> str:
    """A fraction in percent with one decimal; `ABSENT` for None and for COCO's -1, which means the same."""
    return ABSENT if fraction is None or fraction < 0 else f"{100 * fraction:.1f}"


def signed(fraction: float | None) -> str:
    """A difference of fractions in percent, with its sign; `ABSENT` for None."""
    return ABSENT if fraction is None else f"{100 * fraction:+.1f}"


def interval(ends: Sequence[float] | None, *, signs: bool = False) -> str:
    """Both ends of an interval in percent, with signs for one of a difference; `ABSENT` for None."""
    return ABSENT if ends is None else "..".join((signed if signs else percent)(end) for end in ends)
