"""The offset codec cell by cell, and the blurs of its decoder."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from lrbench.codecs import heatmap as hm
from lrbench.codecs.offset import HeatmapOffset, OffsetMaps, inside
from lrbench.geometry import Frame, Grid, Size

GRID = Grid(Frame(Size(32, 24), "corner"), stride=4)
EPSILON = float(np.finfo(np.float32).eps)


@pytest.mark.parametrize("heatmap", ["disc", "gaussian"])
@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("reach", [None, 1])
def test_targets_cell_by_cell(heatmap, sigma, reach):
    """Joints inside, on a cell, around the edge of what trains, and unlabelled; also what the Gaussian drops."""
    codec = HeatmapOffset(grid=GRID, heatmap=heatmap, sigma=sigma, radius=1.5, unit=1.25, reach=reach)
    generator = torch.Generator().manual_seed(0)
    cells = torch.rand(1, 40, 2, generator=generator, dtype=torch.float64) * torch.tensor([10.0, 12.0]) - 2.5
    cells[0, 0] = torch.tensor([2.0, 3.0])
    visible = torch.ones(1, 40).double()
    visible[0, 1:4] = 0
    ideal, weight = codec.encode(hm.to_px(GRID, cells), visible)
    for k, (cx, cy) in enumerate(cells[0].tolist()):
        near = int(cx + 0.5), int(cy + 0.5)
        touches = reach is None or all(v - reach < n and v + reach + 1 > 0 for v, n in zip(near, (6, 8), strict=True))
        trains = bool(visible[0, k]) and touches
        assert weight[0, k] == trains
        bump = [[math.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2)) for x in range(6)] for y in range(8)]
        least = EPSILON * max(map(max, bump))
        for y, x in np.ndindex(8, 6):
            disc = trains and (x - cx) ** 2 + (y - cy) ** 2 <= 1.5**2
            expected = [(cx - x) / 1.25 * disc, (cy - y) / 1.25 * disc]
            assert ideal.offset[0, k, :, y, x].tolist() == pytest.approx(expected, abs=1e-6)
            drawn = (bump[y][x] if bump[y][x] >= least else 0.0) * trains if heatmap == "gaussian" else float(disc)
            assert ideal.heatmap[0, k, y, x].item() == pytest.approx(drawn, rel=1e-6, abs=0)
            assert inside(ideal)[0, k, y, x] == disc


def test_blurs_at_the_peak_are_those_of_whole_maps():
    generator = torch.Generator().manual_seed(0)
    prediction = OffsetMaps(
        torch.rand(5, 3, 8, 6, generator=generator), torch.randn(5, 3, 2, 8, 6, generator=generator)
    )
    codec = HeatmapOffset(grid=GRID, heatmap="disc", sigma=0.0, radius=4.0, unit=4.0, blur_heatmap=5, blur_offset=7)
    plain = dataclasses.replace(codec, blur_heatmap=None, blur_offset=None)
    blurred = OffsetMaps(
        hm.blurred(prediction.heatmap, 5, border="reflect").float(), hm.blurred(prediction.offset, 7, border="reflect")
    )
    ours, whole = codec.decode(prediction), plain.decode(blurred)
    torch.testing.assert_close(ours.xy, whole.xy, atol=1e-5, rtol=0)
    assert torch.equal(ours.score, whole.score)
    for n in range(5):
        single = codec.decode(OffsetMaps(*(field[n : n + 1] for field in prediction)))
        torch.testing.assert_close(single.xy[0], ours.xy[n], atol=1e-5, rtol=0)


def test_a_constant_map_has_its_peak_on_the_first_cell_after_a_blur():
    codec = HeatmapOffset(grid=GRID, heatmap="disc", sigma=0.0, radius=4.0, unit=4.0, blur_heatmap=15)
    decoded = codec.decode(OffsetMaps(torch.full((1, 1, 8, 6), 0.3), torch.zeros(1, 1, 2, 8, 6)))
    assert decoded.xy.tolist() == [[[0.0, 0.0]]]
