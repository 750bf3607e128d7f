"""Every method learns eight crops by heart, which a wrong loss, target or decoding cannot do."""

from __future__ import annotations

import pytest
import torch

from lrbench.geometry import Size
from lrbench.inference import flip_test
from lrbench.method import default_backbone, list_methods, load_method
from lrbench.models.network import initialise
from lrbench.structures import COCO
from lrbench.weights import copy_matching, shipped

METHODS = [row.name for row in list_methods() if load_method(row.name, (64, 48)).stages]
SIZE = Size(64, 48)
NEAR = 1.5
"""px above the mean error of its ideal prediction that a method has to come to; untrained it is about 20."""
STEPS, EVERY = 600, 30


def crops():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(8, 3, 8, 6, generator=generator).repeat_interleave(8, 2).repeat_interleave(8, 3)
    pixels = (coarse + 0.2 * torch.rand(8, 3, SIZE.height, SIZE.width, generator=generator)).clamp(0, 1)
    extent = torch.tensor([SIZE.width - 9.0, SIZE.height - 9.0])
    return pixels, 4 + torch.rand(8, len(COCO), 2, generator=generator) * extent


def error(codec, prediction, xy):
    return (codec.decode(prediction).xy - xy).norm(dim=-1).mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_overfits_eight_crops(name):
    method = load_method(name, SIZE, default_backbone(name, narrow=True))
    model, codec = method.build_model(), method.codec
    initialise(model.network, "residual", torch.Generator().manual_seed(0))
    start = shipped(method.backbone)
    copy_matching(model.network, start.tensors)
    torch.manual_seed(0)
    pixels, xy = crops()
    ideal, weight = codec.encode(xy, torch.ones(xy.shape[:2]))
    ceiling = error(codec, ideal, xy)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    reached = []
    for step in range(1, STEPS + 1):
        terms = method.stages[-1].terms(model.network, model.train()(pixels), ideal, weight)
        optimizer.zero_grad()
        (1000 * sum(terms.values())).backward()
        optimizer.step()
        if step % EVERY == 0:
            with torch.no_grad():
                reached.append(error(codec, model.eval()(pixels), xy))
            if reached[-1] < ceiling + NEAR:
                break
    assert reached[-1] < ceiling + NEAR, f"mean error in px {[round(e, 1) for e in reached]}, ideal {ceiling:.1f}"
    # the mirrored crops are no part of what was learnt, so only the plain half of the flip test can be asked for
    with torch.no_grad():
        assert torch.isfinite(codec.decode(flip_test(model.eval(), codec, pixels)).xy).all()
