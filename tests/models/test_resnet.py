"""ResNets with deconvolutions against the counts of the released networks."""

from __future__ import annotations

import pytest

from lrbench.geometry import Size
from lrbench.method import costs, load_method

# parameters, and 1e9 multiply-adds with a transposed convolution counted on its input grid, as the official networks
# have them; at 64x48 and 192x144 the surplus columns are computed before they are cut off
COUNTS = {
    "resnet50": (33_999_697, {"64x48": 0.383, "128x96": 1.357, "192x144": 3.185, "256x192": 5.426, "384x288": 12.209}),
    "resnet101": (52_991_825, {"64x48": 0.610, "128x96": 2.266, "256x192": 9.063}),
    "resnet152": (68_635_473, {"64x48": 0.838, "128x96": 3.175, "256x192": 12.699}),
}


@pytest.mark.parametrize("backbone", COUNTS)
def test_counts(backbone):
    params, macs = COUNTS[backbone]
    for size, expected in macs.items():
        counted = costs(load_method("simplebaseline", Size.parse(size), backbone))
        assert counted[0] == params
        assert counted[1] / 1e9 == pytest.approx(expected, abs=6e-4)


def test_three_branches_are_refused():
    with pytest.raises(ValueError, match="three-branch is HRNet's"):
        load_method("simplebaseline", Size(64, 48), "resnet50", fusion="three-branch")
