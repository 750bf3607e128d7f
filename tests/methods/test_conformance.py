"""Every method that `list_methods` names builds, emits its codec's shapes, and has finite losses and gradients."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lrbench.geometry import Size
from lrbench.method import describe, list_methods, load_method, parse_settings
from lrbench.models.backbones import BACKBONES
from lrbench.models.network import initialise
from lrbench.structures import COCO

METHODS = [row.name for row in list_methods()]
SIZES = ["64x48", "96x72", "128x96", "192x144", "64x64", "128x128"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", METHODS)
def test_shapes_losses_gradients(name, size):
    method = load_method(name, Size.parse(size), "hrnet_w16")
    model = method.build_model()
    initialise(model.network, "residual", torch.Generator().manual_seed(0))
    pixels = torch.rand(2, 3, method.frame.size.height, method.frame.size.width)
    extent = torch.tensor([method.frame.size.width - 1.0, method.frame.size.height - 1.0])
    xy = torch.rand(2, len(COCO), 2) * extent
    ideal, weight = method.codec.encode(xy, torch.ones(2, len(COCO)))
    prediction = model.train()(pixels)
    assert [f.shape for f in prediction] == [f.shape for f in ideal]
    assert weight.shape == (2, len(COCO))
    for stage in method.stages:
        model.zero_grad()
        terms = stage.terms(model.network, model(pixels), ideal, weight)
        sum(terms.values()).backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert all(torch.isfinite(t) for t in terms.values())
        assert all(torch.isfinite(g).all() for g in gradients)
        assert any(g.abs().max() > 0 for g in gradients)
        # a batch with no labelled keypoint costs nothing and does not crash
        empty, nothing = method.codec.encode(xy, torch.zeros(2, len(COCO)))
        assert sum(stage.terms(model.network, prediction, empty, nothing).values()).item() == 0
        # repeating the batch leaves the loss as it is
        twice = [type(t)(*(torch.cat([f, f]) for f in t)) for t in (prediction, ideal)]
        doubled = stage.terms(model.network, *twice, torch.cat([weight, weight]))
        once = stage.terms(model.network, prediction, ideal, weight)
        for key, value in once.items():
            torch.testing.assert_close(doubled[key], value, rtol=1e-4, atol=1e-7)
    decoded = method.codec.decode(model.eval()(pixels))
    assert decoded.xy.shape == (2, len(COCO), 2)


PAIRS = [
    *((backbone, "64x48") for backbone in ("hrnet_w48", "resnet18_w32", "resnet50", "litehrnet18")),
    *((backbone, "192x144") for backbone in ("resnet18_w32", "litehrnet30")),
    *((backbone, size) for backbone in ("hrnet_w32", "resnet50") for size in ("256x192", "384x288")),
    ("resnet18_w32", "96x72"),
    ("resnet18_w32", "64x64"),
]


@pytest.mark.parametrize(("backbone", "size"), PAIRS)
@pytest.mark.parametrize("name", METHODS)
def test_any_backbone_at_any_size(name, backbone, size):
    """Shapes without numbers: on torch's meta device."""
    if (name, backbone[:4]) == ("mgil", "lite"):  # the one refusal: what rebuilds a backbone's layers has to know them
        with pytest.raises(ValueError, match=f"mgil has no form on {backbone}; choose one of"):
            load_method(name, Size.parse(size), backbone)
        return
    method = load_method(name, Size.parse(size), backbone)
    ideal, _ = method.codec.encode(torch.ones(1, len(COCO), 2), torch.ones(1, len(COCO)))
    with torch.device("meta"):
        prediction = method.build_model().train()(torch.empty(1, 3, method.frame.size.height, method.frame.size.width))
    assert [f.shape for f in prediction] == [f.shape for f in ideal]


@pytest.mark.parametrize("name", METHODS)
def test_description_is_json_and_complete(name):
    import json

    method = load_method(name, Size(64, 48))
    text = json.dumps(describe(method))
    assert "lambda" not in text
    assert str(method.frame.size) in text


def test_cal_ablations_are_settings():
    for text in ("mask=fixed", "components=3", "heatmap=binary", "offset_loss=l2", "stages=one", "fixed_mask=disc"):
        settings = parse_settings("cal", [text])
        method = load_method("cal", Size(128, 96), **settings)
        key, value = next(iter(settings.items()))
        assert describe(method)["settings"][key] == value
        assert describe(method) != describe(load_method("cal", Size(128, 96)))


@pytest.mark.parametrize("components", [1, 2, 3])
def test_cal_mixtures_run(components):
    method = load_method("cal", Size(64, 48), "hrnet_w16", components=components)
    xy = torch.rand(4, len(COCO), 2) * torch.tensor([47.0, 63.0])
    ideal, weight = method.codec.encode(xy, torch.ones(4, len(COCO)))
    noisy = type(ideal)(ideal.heatmap + 0.3 * torch.rand_like(ideal.heatmap), ideal.offset)
    terms = method.stages[-1].loss(noisy, ideal, weight)
    assert all(torch.isfinite(t) for t in terms.values())


def test_unknown_names_offer_the_closest():
    with pytest.raises(ValueError, match="unknown method 'hrnt'; did you mean hrnet"):
        load_method("hrnt")
    with pytest.raises(ValueError, match=r"unknown backbone 'hrnet_w23'; did you mean hrnet_w"):
        load_method("cal", backbone="hrnet_w23")
    with pytest.raises(ValueError, match="unknown setting of cal 'sigmaa'; did you mean sigma"):
        load_method("cal", sigmaa=1.0)
    with pytest.raises(ValueError, match="expected one of l1, l2, smooth_l1"):
        parse_settings("cal", ["offset_loss=l3"])


@pytest.mark.parametrize("size", ["64x48", "96x72", "192x144"])
def test_official_network_refuses_what_it_cannot_take(size):
    with pytest.raises(ValueError, match="must be multiples of 32"):
        load_method("hrnet", Size.parse(size), fusion="official")


@pytest.mark.parametrize("fusion", ["three-branch", "crop"])
@pytest.mark.parametrize("size", ["64x48", "96x72", "128x96", "192x144", "256x192", "384x288"])
def test_either_rule_can_be_asked_for_at_any_size(size, fusion):
    method = load_method("cal", Size.parse(size), "hrnet_w16", fusion=fusion)
    with torch.no_grad():
        maps = method.build_model().eval()(torch.rand(1, 3, method.frame.size.height, method.frame.size.width))
    assert maps.heatmap.shape[-2:] == (method.frame.size.height // 4, method.frame.size.width // 4)


def test_default_rule_per_size():
    rules = {s: load_method("hrnet", Size.parse(s)).settings["fusion"] for s in ("64x48", "96x72", "128x96", "192x144")}
    assert rules == {"64x48": "three-branch", "96x72": "crop", "128x96": "official", "192x144": "crop"}


def test_backbones_are_frozen_facts():
    assert {"hrnet_w16", "hrnet_w32", "hrnet_w48"} <= set(BACKBONES)
    with pytest.raises(dataclasses.FrozenInstanceError):
        BACKBONES["hrnet_w32"].width = 1
