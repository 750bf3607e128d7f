"""How AP falls with the resolution: one number for a whole line, and where half of its AP is lost.

Both are read off the piecewise linear curve through the line's points over log2 of the crop's height, so that halving
the resolution is the same step at every size. A point is the mean over seeds.
"""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass

from lrbench.geometry import Size
from lrbench.report.lines import Line, size_of
from lrbench.report.numbers import ABSENT, percent


@dataclass(frozen=True)
class ResolutionSummary:
    """What one line says about resolution.

    Attributes:
        aps: AP by size of the crop, fractions, mean over seeds; smallest size first.
        area: area under AP over log2(height) by the trapezoid rule, divided by the width of the range: the mean AP over
            the octaves from the smallest to the largest size. To be compared over the same range only.
        half: height of the crop, px, at which AP is half of that at the largest size, by linear interpolation in
            log2(height); of several such heights the largest. None where AP never falls so low within the range, or is
            0 at the largest size.
    """

    aps: dict[Size, float]
    area: float
    half: float | None

    @property
    def sizes(self) -> tuple[Size, Size]:
        """The range: its smallest and its largest size."""
        return min(self.aps), max(self.aps)

    @property
    def half_in_words(self) -> str:
        """``97 px``; ``below 64x48`` for a line that keeps more than half, `-` for one whose AP is printed as 0."""
        smallest, largest = self.sizes
        if percent(self.aps[largest]) == percent(0):
            return ABSENT
        return f"below {smallest}" if self.half is None else f"{self.half:.0f} px"


def summary(line: Line) -> ResolutionSummary:
    """Area under AP over resolution, and the resolution at which half of the AP is lost.

    Args:
        line: records of one method over crop sizes, under one protocol (`lrbench.report.lines.lines_of`); records
            without AP are left out.

    Raises:
        ValueError: AP at fewer than two sizes.
    """
    aps: dict[Size, float] = {}
    for size, records in line.points(size_of).items():
        measured = [record.metrics.ap for record in records if record.metrics.ap is not None]
        if measured:
            aps[size] = statistics.fmean(measured)
    if len(aps) < 2:
        found = ", ".join(map(str, aps)) or "no size"
        raise ValueError(f"{line.method}: AP at {found}, expected two sizes or more; score it at another --res")
    octaves = [math.log2(size.height) for size in aps]
    values = list(aps.values())
    pairs = list(itertools.pairwise(zip(octaves, values, strict=True)))
    area = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairs) / (octaves[-1] - octaves[0])
    target = values[-1] / 2
    # downwards from the largest size: what is lost there first counts
    crossing = next((pair for pair in reversed(pairs) if pair[0][1] <= target), None)
    half = None
    if crossing is not None and target > 0:
        (x0, y0), (x1, y1) = crossing
        half = 2 ** (x0 + (x1 - x0) * (target - y0) / (y1 - y0))
    return ResolutionSummary(aps, area, half)
