"""Hough voting against a slow version, and what the paper fixes."""

from __future__ import annotations

import math

import pytest
import torch

from lrbench.codecs.offset import OffsetMaps
from lrbench.geometry import Size
from lrbench.method import load_method
from lrbench.methods.grmi import CERTAIN, grmi_loss

SIZE = Size(32, 24)


def slow_votes(codec, heatmap, offset, margin):
    """One cell after the other: (height, width) of one keypoint."""
    grid, radius = codec.maps.grid, codec.maps.radius
    height, width = SIZE.height + 2 * margin, SIZE.width + 2 * margin
    votes = torch.zeros(height, width, dtype=torch.float64)
    (px, py), (ox, oy) = grid.pitch, grid.offset
    for j in range(heatmap.shape[0]):
        for i in range(heatmap.shape[1]):
            weight = 1 / (1 + math.exp(-heatmap[j, i].item())) / (math.pi * radius**2)
            x = (i + offset[0, j, i].item() * radius - ox) * px + margin
            y = (j + offset[1, j, i].item() * radius - oy) * py + margin
            for v in range(height):
                for u in range(width):
                    votes[v, u] += weight * max(0, 1 - abs(u - x)) * max(0, 1 - abs(v - y))
    return votes


def test_votes_against_the_slow_version():
    codec = load_method("grmi", SIZE).codec
    generator = torch.Generator().manual_seed(0)
    heatmap = torch.randn(1, 17, 8, 6, generator=generator)
    offset = 2 * torch.randn(1, 17, 2, 8, 6, generator=generator)
    votes, (left, top) = codec.votes(OffsetMaps(heatmap, offset))
    assert left == top
    for k in (0, 5, 16):
        torch.testing.assert_close(votes[0, k], slow_votes(codec, heatmap[0, k], offset[0, k], left))


def test_a_whole_disc_scores_one():
    method = load_method("grmi", Size(128, 96), radius=6.0)
    xy = torch.full((1, 17, 2), 48.3)
    score = method.codec.decode(method.codec.encode(xy, torch.ones(1, 17))[0]).score
    # cells are counted, not areas: pi 6^2 of them, about
    assert score.min().item() == pytest.approx(1, abs=0.03)


def test_keypoints_outside_are_found_from_inside():
    """Votes may leave the crop by a radius."""
    method = load_method("grmi", Size(128, 96))
    xy = torch.tensor([-4.0, 60.0]).expand(1, 17, 2)
    decoded = method.codec.decode(method.codec.encode(xy, torch.ones(1, 17))[0])
    assert (decoded.xy - xy).abs().max() < 1e-3


def test_radius_keeps_the_papers_share_of_the_height():
    for size, cells in ((Size(256, 192), 4.53), (Size(128, 96), 2.27), (Size(64, 48), 1.13), (Size(32, 24), 1.0)):
        assert load_method("grmi", size).settings["radius"] == pytest.approx(cells, abs=0.005)


def test_an_untrained_network_expects_discs_of_their_size():
    method = load_method("grmi", Size(64, 48), "hrnet_w16")
    pack = method.build_model().pack
    share = pack(torch.zeros(1, 51, 16, 12)).heatmap.sigmoid().sum((-2, -1)) / (16 * 12)
    assert share.min().item() == pytest.approx(math.pi * method.settings["radius"] ** 2 / (16 * 12), rel=1e-4)


def test_loss_by_hand():
    """One keypoint, one cell in the disc of two: logits 0 and offsets off by 0.5 and 2 radii."""
    ideal = OffsetMaps(torch.tensor([[[[CERTAIN, -CERTAIN]]]]), torch.zeros(1, 1, 2, 1, 2))
    offset = torch.tensor([0.5, 9.0, 2.0, 9.0]).view(1, 1, 2, 1, 2)
    terms = grmi_loss(
        OffsetMaps(torch.zeros(1, 1, 1, 2), offset), ideal, torch.ones(1, 1), disc_weight=4.0, offset_weight=1.0
    )
    assert terms["disc"].item() == pytest.approx(4 * math.log(2))
    assert terms["offset"].item() == pytest.approx((0.5 * 0.25 + (2 - 0.5)) / 2)
