"""MGIL: its units against their definition, its networks against the published one and the counts of its note."""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lrbench.geometry import Size
from lrbench.method import describe, load_method, parse_settings
from lrbench.methods.mgil import Gate, SpaceToChannels, Unit, even, gate_kernel, space_to_channels
from lrbench.models.hrnet import strided
from lrbench.models.network import count_macs, count_parameters, initialise
from lrbench.structures import COCO


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(backbone, size, **settings):
    return load_method("mgil", Size.parse(size), backbone, **settings).build_model().network


@pytest.mark.golden
def test_published_network(golden):
    name = "networks/mgil_hrnet_w32_64x64_k2"
    facts, arrays = golden.json(name), golden.arrays(name)
    n, _, h, w = facts["input"]
    model = network("hrnet_w32", f"{h}x{w}")
    golden.fill(model)
    state = model.state_dict()
    shapes = {
        k.decode(): tuple(int(v) for v in shape if v >= 0)
        for k, shape in zip(arrays["state_names"], arrays["state_shapes"], strict=True)
    }
    assert {k: tuple(v.shape) for k, v in state.items()}.items() <= shapes.items()
    left = shapes.keys() - state.keys()
    assert all(any(fnmatchcase(name, pattern) for pattern in model.left_over) for name in left)
    assert count_parameters(model) == facts["params_used_by_eval_forward"] == 39_581_352
    assert count_macs(model, Size(h, w)) == sum(facts["macs"][kind] for kind in ("conv", "linear", "conv1d"))
    with torch.no_grad():
        results = model.eval()(torch.from_numpy(golden.image(n, h, w)))
    for i, result in enumerate(results):
        ours = result.numpy()
        if f"out{i}" in arrays:
            theirs = arrays[f"out{i}"]
        else:
            ours, theirs = ours.ravel()[arrays[f"out{i}_flat_index"]], arrays[f"out{i}_at_index"]
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * theirs.std(), rtol=0)


def test_space_to_channels_is_pixel_unshuffle_in_another_order():
    x = noise(2, 5, 6, 8)
    theirs = F.pixel_unshuffle(x, 2).view(2, 5, 4, 3, 4)
    # blocks (dy, dx) = (0, 0), (1, 0), (0, 1), (1, 1); theirs counts 2 dy + dx inside every channel
    assert torch.equal(space_to_channels(x), theirs[:, :, [0, 2, 1, 3]].transpose(1, 2).reshape(2, 20, 3, 4))


def test_a_convolution_after_space_to_channels_is_a_larger_strided_one():
    x, weight = noise(2, 3, 8, 6).double(), noise(5, 12, 3, 3, seed=1).double()
    taps = weight.view(5, 2, 2, 3, 3, 3).permute(0, 3, 4, 2, 5, 1).reshape(5, 3, 6, 6)  # o, dx, dy, c, i, j
    torch.testing.assert_close(F.conv2d(space_to_channels(x), weight, padding=1), F.conv2d(x, taps, None, 2, 2))


def test_coarse_branch_reads_even_rows_and_columns_only():
    unit, x = Unit(3, 4, "full", 0.0, stem=True), noise(2, 3, 8, 12)
    expected = F.conv2d(x[..., ::2, ::2], unit.conv2_dila.weight, padding=1)
    torch.testing.assert_close(unit.coarse(x), expected)


@pytest.mark.parametrize(("height", "width"), [(7, 6), (3, 5), (1, 1), (4, 8)])
def test_odd_sides_are_padded_and_rounded_up(height, width):
    x = noise(2, 3, height, width)
    half = (-(-height // 2), -(-width // 2))
    unit = Unit(3, 4, "full", 0.5).eval()
    assert unit(x).shape == (2, 4, *half)
    assert SpaceToChannels()(x).shape == (2, 12, *half)
    assert strided(3, 4, relu=True).eval()(x).shape == (2, 4, *half)
    torch.testing.assert_close(unit(x), unit(even(x)))
    assert even(x)[..., height:, :].abs().sum() == even(x)[..., width:].abs().sum() == 0


def test_gate():
    gate = Gate(8, 0.5).eval()
    fine, coarse = 3 * noise(5, 8, 4, 4), noise(5, 8, 4, 4, seed=1)
    alpha = gate.weights(fine, coarse)
    torch.testing.assert_close(alpha.sum(1), torch.ones(5))
    assert alpha.shape == (5, 2)
    expected = alpha[:, :1, None, None] * fine + alpha[:, 1:, None, None] * coarse
    torch.testing.assert_close(gate(fine, coarse), expected)
    # where the ReLU leaves nothing of both logits, the branches count equally
    nn.init.constant_(gate.linear.weight, -1)
    torch.testing.assert_close(gate.weights(fine, coarse), torch.full((5, 2), 0.5))


def test_gate_drops_in_training_alone_and_by_the_global_seed():
    gate, x, draws = Gate(64, 0.5), noise(2, 64, 4, 4).abs(), []
    nn.init.constant_(gate.conv1.weight, 0.2)
    nn.init.normal_(gate.linear.weight, generator=torch.Generator().manual_seed(0))
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(gate.weights(x, x + 1))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    gate.eval()
    assert torch.equal(gate.weights(x, x + 1), gate.weights(x, x + 1))


def test_gate_kernels():
    widths = {32: 3, 48: 3, 64: 5, 96: 5, 128: 5, 192: 5, 256: 5, 384: 5, 512: 5, 1024: 7, 2048: 7}
    assert {c: gate_kernel(2 * c) for c in widths} == widths


@pytest.mark.parametrize(
    ("inputs", "outputs", "stem", "count"),
    [
        (64, 64, False, 447_685),
        (256, 64, False, 668_869),
        (64, 128, False, 1_640_837),
        (128, 256, False, 6_558_469),
        (32, 32, False, 112_227),
        (3, 64, True, 372_992),
        (64, 64, True, 443_264),
    ],
)
def test_parameters_of_a_unit(inputs, outputs, stem, count):
    assert count_parameters(Unit(inputs, outputs, "full", 0.5, stem=stem)) == count


# parameters without the linear layers of the head, and with them at three sizes; giga multiply-adds there
COUNTS = {
    ("hrnet_w32", "strided"): (28_536_113, 28_601_905, 0.638, 29_060_913, 2.557, 31_289_521, 7.692),
    ("hrnet_w32", "full"): (39_515_560, 39_581_352, 1.361, 40_040_360, 5.449, 42_268_968, 16.366),
    ("hrnet_w32", "all"): (97_683_429, 97_749_221, 2.049, 98_208_229, 8.202, 100_436_837, 24.626),
    ("hrnet_w48", "strided"): (63_595_745, 63_661_537, 1.309, 64_120_545, 5.240, 66_349_153, 15.739),
    ("hrnet_w48", "full"): (87_205_656, 87_271_448, 2.261, 87_730_456, 9.048, 89_959_064, 27.165),
}


@pytest.mark.parametrize(("backbone", "unit"), COUNTS)
def test_counts_of_hrnets(backbone, unit):
    settings = {"replace_last_fuse": True} if unit == "all" else {"unit": unit}
    bare, *expected = COUNTS[backbone, unit]
    with torch.device("meta"):
        assert count_parameters(network(backbone, "64x64", head="heatmap", **settings)) == bare
        found = []
        for size in ("64x64", "128x128", "256x192"):
            model = network(backbone, size, **settings)
            found += [count_parameters(model), round(macs(model, size) / 1e9, 3)]
    assert found == expected


def macs(model, size):
    """`count_macs` of a network without storage."""
    with torch.device("meta"):
        return count_macs(model, Size.parse(size))


@pytest.mark.parametrize(
    ("unit", "parameters", "multiply_adds"),
    # coarse: the note's 28.65 and 0.644 have two 1x1 convolutions in the stem, which no released stem has
    [("fine", 38.69, 1.329), ("coarse", 28.65 - 0.008, 0.644 - 0.005), ("full", 39.52, 1.360)],
)
def test_counts_of_ablations(unit, parameters, multiply_adds):
    with torch.device("meta"):
        model = network("hrnet_w32", "64x64", head="heatmap", unit=unit)
    assert count_parameters(model) / 1e6 == pytest.approx(parameters, abs=0.006)
    assert macs(model, "64x64") / 1e9 == pytest.approx(multiply_adds, abs=0.0006)


@pytest.mark.parametrize(
    ("variant", "parameters", "multiply_adds"),
    [
        ("released", 34.10, 0.454),
        ("r2", 68.52, 0.853),
        ("r2-stem", 69.33, 1.372),
        ("r2s", 77.58, 1.447),
        ("r3", 71.29, 0.879),
    ],
)
def test_counts_of_resnet_readings(variant, parameters, multiply_adds):
    with torch.device("meta"):
        model = network("resnet50", "64x64", variant=variant)
    assert round(count_parameters(model) / 1e6, 2) == parameters
    assert round(macs(model, "64x64") / 1e9, 3) == multiply_adds


def test_what_is_halved_by_what():
    with torch.device("meta"):
        model = network("hrnet_w32", "64x64")
    units = [name for name, module in model.named_modules() if isinstance(module, Unit)]
    plain = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2) and "dila" not in n]
    assert len([n for n in units if n.startswith("spd_conv")]) == 2
    assert len([n for n in units if n.startswith("transition")]) == 3
    assert len([n for n in units if n.startswith("stage3")]) == 4
    assert len([n for n in units if n.startswith("stage4")]) == 8
    assert [len([n for n in plain if n.startswith(s)]) for s in ("stage2", "stage3", "stage4")] == [1, 12, 12]
    assert len(plain) == 25


def test_weights_of_plain_hrnets_fill_all_but_the_units():
    with torch.device("meta"):
        plain, model = network("hrnet_w32", "64x64", unit="strided"), network("hrnet_w32", "64x64")
    # ImageNet weights of HRNets have no output layers
    theirs = {k: p.shape for k, p in plain.named_parameters() if not k.startswith(("final_layer", "mlp_head"))}
    loaded = sum(p.numel() for k, p in model.named_parameters() if theirs.get(k) == p.shape)
    assert loaded / 1e6 == pytest.approx(27.81, abs=0.005)
    assert loaded / count_parameters(model) == pytest.approx(0.70, abs=0.005)


@pytest.mark.parametrize("variant", ["released", "r2", "r2-stem", "r2s", "r3"])
@pytest.mark.parametrize("size", ["64x48", "96x72"])
def test_resnet_readings_run_at_sizes_with_odd_maps(variant, size):
    backbone = "resnet50" if variant == "r3" else "resnet18_w32"
    method = load_method("mgil", Size.parse(size), backbone, variant=variant)
    model = method.build_model()
    with torch.no_grad():
        prediction = model.eval()(torch.rand(1, 3, method.frame.size.height, method.frame.size.width))
    bins = method.frame.size.width * 3, method.frame.size.height * 3
    assert (prediction.x.shape[-1], prediction.y.shape[-1]) == method.codec.bins == bins


@pytest.mark.parametrize("backbone", ["hrnet_w16", "resnet18_w32"])
@pytest.mark.parametrize("unit", ["full", "sum", "fine", "coarse", "strided"])
@pytest.mark.parametrize("head", ["simcc", "heatmap"])
def test_every_unit_learns(backbone, unit, head):
    method = load_method("mgil", Size(64, 48), backbone, unit=unit, head=head)
    model = method.build_model().train()
    initialise(model.network, "residual", torch.Generator().manual_seed(0))
    xy = torch.rand(2, len(COCO), 2) * 40
    ideal, weight = method.codec.encode(xy, torch.ones(2, len(COCO)))
    terms = method.stages[0].terms(model.network, model(torch.rand(2, 3, 64, 48)), ideal, weight)
    sum(terms.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters()), "no dead layer"


def test_released_recipe_is_the_default():
    small, large = (load_method("mgil", Size.parse(s)) for s in ("64x64", "128x128"))
    assert (small.codec.split, small.codec.smoothing, large.codec.smoothing) == (2, 0.1, 0.2)
    assert small.settings["dropout"] == 0.5
    assert small.rescoring.confident == large.rescoring.confident == 0.02
    assert [(s.epochs, s.milestones, s.learning_rate) for s in small.stages] == [(210, (170, 200), 1e-3)]
    resnet = load_method("mgil", Size(64, 64), "resnet50")
    assert (resnet.settings["variant"], resnet.settings["dropout"], resnet.codec.split) == ("r2-stem", 0.0, 3)
    assert "resnet50" in str(describe(resnet)["model"])


def test_settings_parse():
    texts = ["unit=fine", "replace_last_fuse=true", "dropout=0", "split=3", "head=heatmap", "variant=none"]
    assert list(parse_settings("mgil", texts).values()) == ["fine", True, 0.0, 3.0, "heatmap", None]
    assert parse_settings("mgil", ["variant=r2s"]) == {"variant": "r2s"}


@pytest.mark.parametrize(
    ("backbone", "settings", "message"),
    [
        ("hrnet_w16", {"variant": "r2"}, "only ResNets have readings"),
        ("resnet50", {"replace_last_fuse": True}, "only HRNets have fusion paths"),
        ("hrnet_w16", {"dropout": 1.0}, "dropout=1: expected at least 0 and below 1"),
        ("resnet18_w32", {"variant": "r3"}, "r3 is a form of bottlenecks"),
        ("resnet50", {"variant": "r3", "unit": "fine"}, "has no such units"),
    ],
)
def test_refusals(backbone, settings, message):
    with pytest.raises(ValueError, match=message):
        load_method("mgil", Size(64, 64), backbone, **settings).build_model()
