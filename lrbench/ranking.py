"""Rows of a comparison put in order: seeds of a method together, and how far each method is from the best.

Only rows of one crop size and one kind of pixels are ranked among each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lrbench.scoring import BOOTSTRAP
from lrbench.statistics import Difference, Matches, Seeds, Summary, difference

RANKED_BY = "ap"
"""Metric by which a method is the best."""

UNKNOWN = ("", "")
"""Size and pixels of another tool's predictions; they are ranked where there is one of each only."""

_SAME = ("row", "method", "backbone", "sr", "pose", "res", "lr_preset", "align")
"""Keys of a row that all seeds of a method share, with its settings.

Where they and the seed are those of an earlier row, it is no further training, but another row: a second one of a
published table that the same cell measures, or a second file of another tool.
"""


def ranked(rows: Sequence[Mapping[str, Any]], matches: Sequence[Matches | None]) -> list[dict[str, Any]]:
    """Methods of a comparison, each over its seeds.

    Args:
        rows: of a comparison, see `lrbench.comparison.empty_row`.
        matches: of each row; None for rows that were not measured.

    Returns:
        In the order of the rows, one object per method that was measured: ``rows``, its places in them; ``seeds``;
        ``metrics``, for each that the rows have, the ``mean`` over seeds, its ``ci95`` over images, and ``std``,
        ``min`` and ``max`` over seeds (std None with one); and ``difference`` in AP to the best method of its size and
        pixels, None for that one itself: ``to`` (its places), ``value``, ``ci95`` over images, ``seed_error`` and
        ``seed_ci95`` over seeds (None unless both have two or more), and whether it is ``resolved``.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    met = Counter[tuple[Any, ...]]()
    for place, (row, found) in enumerate(zip(rows, matches, strict=True)):
        same = (*(str(row.get(name)) for name in _SAME), str(row.get("settings")))
        met[same, row.get("seed")] += 1
        if found is not None:
            groups.setdefault((same, met[same, row.get("seed")]), []).append(place)
    sizes = {_block(rows[places[0]]) for places in groups.values()} - {UNKNOWN}
    blocks = {key: sizes if len(sizes) == 1 else {_block(rows[places[0]])} for key, places in groups.items()}
    pooled = {key: _pool([matches[place] for place in places]) for key, places in groups.items()}
    summaries = {key: seeds.summary() for key, seeds in pooled.items()}
    listed = []
    for key, places in groups.items():
        best = max((other for other in groups if blocks[other] == blocks[key]), key=lambda k: _mean(summaries[k]))
        gap = None if best == key else difference(pooled[key], pooled[best], RANKED_BY)
        listed.append(
            {
                "rows": places,
                "seeds": [rows[place].get("seed") for place in places],
                "metrics": {
                    name: _plain(summary)
                    for name, summary in summaries[key].items()
                    if rows[places[0]]["metrics"][name] is not None  # CrowdPose has no sizes
                },
                "difference": None if gap is None else {"to": groups[best], **_gap(gap)},
            }
        )
    return listed


def _pool(runs: Sequence[Matches | None]) -> Seeds:
    return Seeds.of([run for run in runs if run is not None], resamples=BOOTSTRAP.resamples, seed=BOOTSTRAP.seed)


def _block(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row.get("res") or "", row.get("lr_preset") or ""


def _mean(summary: Mapping[str, Summary]) -> float:
    return summary[RANKED_BY].mean if RANKED_BY in summary else -1.0


def _plain(summary: Summary) -> dict[str, Any]:
    return {
        "mean": summary.mean,
        "ci95": [summary.low, summary.high],
        "std": summary.std,
        "min": summary.smallest,
        "max": summary.largest,
    }


def _gap(gap: Difference) -> dict[str, Any]:
    over_seeds = gap.seed_low is not None and gap.seed_high is not None
    return {
        "value": gap.value,
        "ci95": [gap.low, gap.high],
        "seed_error": gap.seed_error,
        "seed_ci95": [gap.seed_low, gap.seed_high] if over_seeds else None,
        "resolved": gap.resolved,
    }
