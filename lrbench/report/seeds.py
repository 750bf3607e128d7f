"""One row for the records of several seeds: the mean, its spread between seeds, and its interval over images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean, stdev

from lrbench.records import METRICS, Record, matches_path
from lrbench.report.formats import Interval, Spread, Value
from lrbench.statistics import Matches, Seeds

ReadMatches = Callable[[Record], Matches | None]
"""What the predictions of a record matched; None where that is not known."""


def no_matches(record: Record) -> None:
    """For records without matches."""


def matches_below(results: Path) -> ReadMatches:
    """Reads the matches beside a record of a results folder, each file once.

    The reader raises `lrbench.datasets.images.DataError` for a damaged file.
    """

    @cache
    def read(path: Path) -> Matches | None:
        return Matches.load(path) if path.is_file() else None

    return lambda record: read(matches_path(results, record))


def seeds_of(records: Sequence[Record], matches: ReadMatches) -> Seeds | None:
    """Records of several seeds, resampled together; None unless all have matches."""
    found = [own for record in records if (own := matches(record)) is not None]
    return Seeds.of(found) if found and len(found) == len(records) else None


def latest(records: Iterable[Record]) -> Record:
    """The last one written."""
    return max(records, key=lambda record: (record.provenance.utc, record.key))


def metric(record: Record, name: str) -> float | None:
    """A metric of a record as a fraction; None for what was not measured."""
    value = getattr(record.metrics, name) if name in METRICS else record.further.get(name)
    return None if value is None or value < 0 else float(value)


def pooled(records: Sequence[Record], name: str) -> Value:
    """A metric over seeds, in percent."""
    return spread([100 * value for record in records if (value := metric(record, name)) is not None])


def spread(values: Sequence[float]) -> Value:
    """One number, or several of different seeds; None for none."""
    if len(values) > 1:
        return Spread(fmean(values), stdev(values), len(values))
    return values[0] if values else None


def mean(value: Value) -> float | None:
    """The number of a cell; None for what is none."""
    return value.mean if isinstance(value, Spread) else value if isinstance(value, float) else None


def interval(records: Sequence[Record], name: str, matches: ReadMatches, less: float = 0.0) -> Interval | None:
    """The 95 % interval over images of what `pooled` gives, in percent.

    Of one record it is the record's own. Of several seeds it is that of their mean, from resamples that all share; None
    where one of them has no matches, and for metrics that matches do not tell.

    Args:
        records: of one row.
        name: of the metric.
        matches: of the records.
        less: what is subtracted from both ends, a fraction.
    """
    ends: tuple[float, float] | None = None
    if len(records) == 1:
        (record,) = records
        ends = (record.ci95 if name in METRICS else record.further_ci95).get(name)
    elif name in METRICS and (seeds := seeds_of(records, matches)) is not None:
        summary = seeds.summary().get(name)
        ends = None if summary is None else (summary.low, summary.high)
    return None if ends is None else Interval(*(100 * (end - less) for end in ends))
