"""SRPose against the published network, its losses, its counts, and what happens at sizes that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lrbench.codecs.superresolved import LevelMaps
from lrbench.geometry import Size
from lrbench.inference import flip_test
from lrbench.method import load_method, parse_settings
from lrbench.methods.srpose import named
from lrbench.models.network import count_macs, count_parameters, initialise
from lrbench.weights import copy_matching, pretrained

NETWORKS = {
    "srpose_hrnet_w32_128x96": "hrnet_w32",
    "srpose_hrnet_w32_256x192": "hrnet_w32",
    "srpose_r50_128x96": "resnet50",
    "srpose_r50_256x192": "resnet50",
}


def build(golden, name, dtype=torch.float32):
    facts = golden.json(f"networks/{name}")
    size = Size(*facts["input"][2:])
    model = load_method("srpose", size, NETWORKS[name]).build_model()
    golden.fill(model.network)
    return facts, size, model, model.network.to(dtype)


def compare(ours, arrays, key, **tolerance):
    if key in arrays:
        np.testing.assert_allclose(ours, arrays[key], **tolerance)
    else:
        np.testing.assert_allclose(ours.ravel()[arrays[f"{key}_flat_index"]], arrays[f"{key}_at_index"], **tolerance)


@pytest.mark.golden
@pytest.mark.parametrize("name", NETWORKS)
def test_names_counts_and_outputs(golden, name):
    facts, size, model, network = build(golden, name)
    arrays = golden.arrays(f"networks/{name}")
    theirs = [
        (n.decode(), tuple(int(v) for v in s if v >= 0))
        for n, s in zip(arrays["state_names"], arrays["state_shapes"], strict=True)
    ]
    assert [(k, tuple(v.shape)) for k, v in network.state_dict().items()] == theirs
    assert count_parameters(model) == facts["params"]
    assert count_macs(model, size) == facts["macs"]["conv"] + facts["macs"]["linear"]
    n, _, h, w = facts["input"]
    (result,) = network.eval()(torch.from_numpy(golden.image(n, h, w)))
    result.mean().backward()
    unused = {k for k, p in network.named_parameters() if p.grad is None}
    assert unused == set(facts["parameters_not_in_eval_forward"])
    used = sum(p.numel() for p in network.parameters() if p.grad is not None)
    assert used == facts["params_used_by_eval_forward"]
    ours = result.detach().numpy()
    compare(ours, arrays, "out0", atol=1e-4 * ours.std(), rtol=0)


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in NETWORKS if "128x96" in n])
def test_training_step_in_float64(golden, name):
    facts, _, _, network = build(golden, name, torch.float64)
    if "train" not in facts:
        pytest.skip("this golden set has no training step for it")
    arrays = golden.arrays(f"networks/{name}")
    n, _, h, w = facts["input"]
    results = network.train()(torch.from_numpy(golden.image(n, h, w)).double())
    assert [list(r.shape) for r in results] == facts["train"]["outputs"]
    for i, result in enumerate(results):
        # small maps are stored in float32
        compare(result.detach().numpy(), arrays, f"train_out{i}", rtol=1e-6, atol=1e-6 * result.std().item())
    golden.check_step(network, results, facts["train"])


@pytest.mark.golden
@pytest.mark.parametrize("size", ["128x96", "256x192"])
def test_losses(golden, size):
    arrays, n = golden.arrays("losses/srpose"), golden.facts["srpose_loss_batch"]
    joints = golden.arrays(f"targets/joints_{size}")
    method = load_method("srpose", Size.parse(size), "hrnet_w16")
    ideal, weight = method.codec.encode(
        torch.from_numpy(joints["joints"][:n, :, :2]), torch.from_numpy(joints["visible"][:n, :, 0]).double()
    )
    order = ("low", "level5", "level4", "level3", "heatmap")
    leaves = []
    for i, name in enumerate(order):
        shape = tuple(getattr(ideal, name).shape)
        values = 0.3 * golden.normal(f"srpose:prediction:{i}:{size}", shape)
        leaves.append(torch.from_numpy(values.astype(np.float32)).requires_grad_())
    terms = method.stages[0].loss(named(leaves), ideal, weight)
    sum(terms.values()).backward()
    assert [terms[name].item() for name in order] == pytest.approx(arrays[f"terms_{size}"].tolist(), rel=1e-5)
    assert sum(terms.values()).item() == pytest.approx(float(arrays[f"total_{size}"]), rel=1e-5)
    norms = [leaf.grad.norm().item() for leaf in leaves]
    assert norms == pytest.approx(arrays[f"gradient_norms_{size}"].tolist(), rel=1e-5)


def test_published_parameters():
    """SRPose specification, section 9: 0.649 and 1.289 million beside the backbone; the training heads add 0.318."""
    for backbone, inference in (("hrnet_w32", 0.649), ("resnet50", 1.289)):
        head = load_method("srpose", backbone=backbone).build_model().network.keypoint_head
        training = [
            sum(p.numel() for module in (head.kp_encoder[i], head.converge[i]) for p in module.parameters())
            for i in range(4)
        ]
        assert training == [227_664, 72_216, 17_816, 90_644]
        assert (count_parameters(head) - sum(training[:3])) / 1e6 == pytest.approx(inference, abs=5e-4)


@pytest.mark.parametrize("size", ["64x48", "96x72", "192x144", "64x64"])
@pytest.mark.parametrize("backbone", ["hrnet_w16", "resnet18_w32"])
def test_maps_at_sizes_that_do_not_fit(size, backbone):
    method = load_method("srpose", Size.parse(size), backbone)
    h, w = method.frame.size.height, method.frame.size.width
    maps = method.build_model().train()(torch.rand(2, 3, h, w))
    sides = [tuple(m.shape[-2:]) for m in maps]
    assert sides == [(h, w), (-(-h // 32), -(-w // 32))] + 3 * [(h // 4, w // 4)]


def test_cutting_keeps_cells_where_they_are():
    """The left of the maps at 64x48 is that of the features padded to 64x64; only what looks across the cut differs."""
    head = load_method("srpose", Size(64, 48), "hrnet_w16").build_model().network.keypoint_head.eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    strides, channels = (32, 16, 8, 4), (128, 64, 32, 16)
    padded = [torch.rand(1, c, 64 // s, 64 // s, generator=generator) for c, s in zip(channels, strides, strict=True)]
    cut = [maps[..., : -(-48 // s)] for maps, s in zip(padded, strides, strict=True)]
    with torch.no_grad():
        (theirs,), (ours,) = head(padded), head(cut)
    assert ours.shape == (1, 17, 64, 48)
    difference = (ours - theirs[..., :48]).abs().amax((0, 1, 2)) / theirs.std()
    assert difference[:4].max() < 0.02 < difference[44:].max()


def test_starts_from_the_shipped_trunk():
    network = load_method("srpose", backbone="hrnet_w16").build_model().network
    trunk = pretrained("hrnet_w16")
    copy_matching(network, trunk)
    for name, value in trunk.items():
        assert torch.equal(network.state_dict()[f"backbone.{name}"], value)


def test_eval_mode_computes_the_finest_map_alone():
    method = load_method("srpose", backbone="hrnet_w16")
    model = method.build_model().eval()
    pixels = torch.rand(2, 3, 64, 48)
    with torch.inference_mode():
        prediction = flip_test(model, method.codec, pixels)
    assert isinstance(prediction, LevelMaps)
    assert [tuple(m.shape) for m in prediction] == [(2, 17, 64, 48)] + [(2, 17, 0, 0)] * 4
    assert method.codec.decode(prediction).xy.shape == (2, 17, 2)


def test_paper_initialisation():
    network = load_method("srpose", backbone="hrnet_w16").build_model().network
    initialise(network, "paper", torch.Generator().manual_seed(0))
    head = network.keypoint_head
    for predictor in head.converge:
        assert predictor.conv.weight.std().item() == pytest.approx(0.001, rel=0.05)
        assert (predictor.conv.bias == 0).all()
    # uniform within 1 / sqrt(fan in), as torch has it
    assert 0.9 / 7 < head.post_fuse[0][0].dwconv.weight.abs().max() <= 1 / 7
    again = load_method("srpose", backbone="hrnet_w16").build_model().network
    initialise(again, "paper", torch.Generator().manual_seed(0))
    for a, b in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_settings_and_refusals():
    settings = parse_settings("srpose", ["sigma=2", "step=none", "flip_shift=released"])
    codec = load_method("srpose", **settings).codec.finest
    assert (codec.sigma, codec.shift, codec.refine.__name__) == (2, 1, "argmax")
    assert load_method("srpose").settings["fusion"] == "crop"
    assert load_method("srpose", Size(128, 96)).settings["fusion"] == "official"
    with pytest.raises(ValueError, match="SRPose takes auto, official or crop"):
        load_method("srpose", fusion="three-branch")
    with pytest.raises(ValueError, match="must be multiples of 32"):
        load_method("srpose", fusion="official")
    with pytest.raises(ValueError, match="must be multiples of 4"):
        load_method("srpose", Size(62, 48))
