"""Soft-argmax against the values of the specification and slow versions; both papers' forms and the debiased one."""

from __future__ import annotations

import math

import pytest
import torch

from lrbench.codecs.heatmap import to_cells
from lrbench.codecs.integral import Integral, SoftMaps, js_divergence
from lrbench.geometry import Frame, Grid, Size
from lrbench.inference import flip_test
from lrbench.method import costs, load_method
from lrbench.methods.integral import integral_loss
from lrbench.models.network import PoseNetwork
from lrbench.structures import mirror_index


def codec(size=Size(16, 12), tiled=False, **changes):
    return Integral(grid=Grid(Frame(size, "biased"), 4, tiled), **{"sigma": 1.0} | changes)


def test_expectation_of_a_known_map():
    """A 4x3 map of zeros but for a logit of 2 in row 1, column 2 (worked out by hand)."""
    logits = torch.zeros(1, 1, 4, 3)
    logits[0, 0, 1, 2] = 2
    expected = torch.tensor([1.3474379579, 1.3262810210])
    for tiled in (False, True):
        xy = codec(tiled=tiled).expectation(logits)
        torch.testing.assert_close(to_cells(codec(tiled=tiled).grid, xy)[0, 0], expected, atol=1e-6, rtol=0)
    size = torch.tensor([12.0, 16.0])
    plain = codec().expectation(logits)[0, 0] / size
    torch.testing.assert_close(plain, torch.tensor([0.449146, 0.331570]), atol=1e-6, rtol=0)
    tiles = (2 * codec(tiled=True).expectation(logits)[0, 0] + 1) / size - 1
    torch.testing.assert_close(tiles, torch.tensor([0.231625, -0.086859]), atol=1e-6, rtol=0)


def test_compensation_follows_its_formula():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 17, 4, 3, generator=generator)
    size = torch.tensor([12.0, 16.0])
    biased = codec(beta=10.0).expectation(logits) / size
    c = logits.exp().sum((-2, -1))[..., None]
    expected = c / (c - 1) * (biased - 1 / (2 * c)) * size
    torch.testing.assert_close(codec(beta=10.0, compensate=True).expectation(logits), expected)


def test_compensation_stays_finite_where_a_map_is_all_background():
    assert codec(compensate=True).expectation(torch.full((1, 1, 4, 3), -50.0)).isfinite().all()


def test_divergence_is_bounded_by_log_2_and_meets_the_definition():
    p = torch.zeros(1, 1, 2, 2)
    q = torch.zeros(1, 1, 2, 2)
    p[..., 0, 0], q[..., 1, 1] = 1, 1
    assert js_divergence(p, q).item() == pytest.approx(math.log(2), rel=1e-6)
    p, q = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.4, 0.3, 0.2, 0.1])
    m = (p + q) / 2
    slow = 0.5 * sum(a * math.log(a / c) + b * math.log(b / c) for a, b, c in zip(p, q, m, strict=True))
    assert js_divergence(p.view(1, 1, 2, 2), q.view(1, 1, 2, 2)).item() == pytest.approx(float(slow), rel=1e-6)


def test_loss_by_hand():
    xy = torch.zeros(1, 2, 2)
    off = torch.tensor([[[4.0, -8.0], [40.0, 40.0]]])
    prediction, ideal = SoftMaps(torch.zeros(1, 2, 4, 3), off), SoftMaps(torch.zeros(1, 2, 4, 3), xy)
    weight = torch.tensor([[1.0, 0.0]])
    terms = integral_loss(prediction, ideal, weight, codec=codec(), distance="l1", divergence_weight=1.0)
    assert terms["position"].item() == pytest.approx(1 + 2), "cells of 4 px, the labelled keypoint alone"
    assert terms["divergence"].item() == 0
    terms = integral_loss(prediction, ideal, weight, codec=codec(), distance="euclidean", divergence_weight=0.0)
    assert terms["position"].item() == pytest.approx(math.hypot(2 * 4 / 12, 2 * 8 / 16), rel=1e-5)
    assert "divergence" not in terms


@pytest.mark.parametrize(("name", "settings"), [("integral", {}), ("integral", {"form": "ipr"}), ("debias", {})])
def test_flip_test_of_a_mirror_symmetric_network_changes_nothing(name, settings):
    """A network that answers a mirrored crop with the mirrored answer has to come out of the flip test as it was."""
    method = load_method(name, Size(64, 48), "hrnet_w16", **settings)
    generator = torch.Generator().manual_seed(0)
    xy = 8 + torch.rand(4, 17, 2, generator=generator) * torch.tensor([31.0, 47.0])
    mirrored = xy[:, mirror_index()].clone()
    mirrored[..., 0] = 47 - mirrored[..., 0]
    answers = {
        0.0: method.codec.encode(xy, torch.ones(4, 17))[0],
        1.0: method.codec.encode(mirrored, torch.ones(4, 17))[0],
    }

    def answer(pixels):
        halves = [answers[float(pixels[i, 0, 0, 0])] for i in (0, len(pixels) // 2)]
        return SoftMaps(*(torch.cat(fields) for fields in zip(*halves, strict=True)))

    pixels = torch.zeros(4, 3, 64, 48)
    pixels[..., -1] = 1  # tells a crop from its mirror image
    network = PoseNetwork(torch.nn.Identity(), answer, mean=(0, 0, 0), std=(1, 1, 1))
    decoded = method.codec.decode(flip_test(network, method.codec, pixels))
    assert (decoded.xy - xy).abs().max() < (0.35 if method.codec.flip == "logits" else 1e-4)


def test_the_operator_has_no_parameters():
    size = Size(256, 256)
    assert costs(load_method("integral", size, "resnet50")) == costs(load_method("simplebaseline", size, "resnet50"))
    assert costs(load_method("integral", size, "resnet50"))[0] == 33_999_697
