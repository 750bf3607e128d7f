"""Plain regression: the properties that its loss and codec promise."""

from __future__ import annotations

import pytest
import torch

from lrbench.codecs.regression import Fractions
from lrbench.geometry import Size
from lrbench.method import load_method
from lrbench.methods.deeppose import smooth_l1
from lrbench.models.network import count_parameters, initialise
from lrbench.structures import Rescoring, mirror_index


@pytest.mark.parametrize(("backbone", "millions"), [("resnet50", 23.58), ("resnet101", 42.57), ("resnet152", 58.21)])
def test_parameters_are_the_reported_ones(backbone, millions):
    """mmpose's page of speeds, plain regression."""
    assert count_parameters(load_method("deeppose", Size(256, 192), backbone).build_model()) / 1e6 == pytest.approx(
        millions, abs=5e-3
    )


def test_smooth_l1_by_hand():
    torch.manual_seed(0)
    ours, theirs = torch.rand(3, 17, 2), 3 * torch.rand(3, 17, 2)
    weight = (torch.rand(3, 17) > 0.4).float()
    total = 0.0
    for b in range(3):
        for k in range(17):
            for a in range(2):
                d = abs(weight[b, k] * (ours[b, k, a] - theirs[b, k, a])).item()
                total += 0.5 * d * d if d < 1 else d - 0.5
    loss = smooth_l1(Fractions(ours), Fractions(theirs), weight)["position"]
    assert loss.item() == pytest.approx(total / (3 * 17 * 2), rel=1e-5)


def test_keypoints_outside_the_crop_do_not_train():
    codec = load_method("deeppose", Size(64, 48)).codec
    xy = torch.tensor([[[0.0, 0.0], [47.0, 63.0], [47.1, 63.0], [20.0, -0.1], [20.0, 20.0]]])
    ideal, weight = codec.encode(xy, torch.tensor([[1.0, 2.0, 1.0, 1.0, 0.0]]))
    assert weight.tolist() == [[1, 1, 0, 0, 0]]
    assert ideal.uv[0, 1].tolist() == pytest.approx([47 / 48, 63 / 64])
    decoded = codec.decode(ideal)
    assert (decoded.xy - xy).abs().max() < 1e-4
    assert decoded.score.tolist() == [[1.0] * 5]


def test_mirroring_is_exact():
    codec, order = load_method("deeppose", Size(64, 48)).codec, mirror_index()
    xy = torch.rand(2, 17, 2) * torch.tensor([47.0, 63.0])
    mirrored = xy[:, order].clone()
    mirrored[..., 0] = 47 - mirrored[..., 0]
    visible = torch.ones(2, 17)
    unflipped = codec.unflip(codec.encode(mirrored, visible)[0], order)
    torch.testing.assert_close(unflipped, codec.encode(xy, visible)[0], atol=1e-6, rtol=0)


def test_initialisation_and_recipe():
    method = load_method("deeppose", Size(64, 48), "hrnet_w16")
    network = method.build_model().network
    initialise(network, "residual", torch.Generator().manual_seed(0))
    assert network.fc_coord.linear.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert network.fc_coord.linear.bias.abs().max() == 0
    (stage,) = method.stages
    assert (stage.epochs, stage.milestones) == (210, (170, 200))
    assert method.rescoring == Rescoring()
