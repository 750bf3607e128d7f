"""The stand-alone SR head against the published one, its counts, its settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lrbench.geometry import Size
from lrbench.method import costs, load_method, parse_settings
from lrbench.models.backbone import Backbone
from lrbench.models.network import initialise
from lrbench.models.resnet import deconvolutions
from lrbench.models.sr_head import SRHead


class Features(Backbone):
    """Stands for a backbone with a given map, or for its deconvolutions; does not look at the picture."""

    def __init__(self, channels, *, deconvolved):
        super().__init__()
        self.channels = (256 if deconvolved else channels,)
        if deconvolved:
            self.deconv_layers = deconvolutions(channels, 256)

    def forward(self, x):
        return [self.deconv_layers(self.maps) if hasattr(self, "deconv_layers") else self.maps]


@pytest.mark.golden
@pytest.mark.parametrize("name", ["sr_head_32ch", "sr_head_2048ch_deconv"])
def test_head_gives_the_published_heatmaps(golden, name):
    facts, arrays = golden.json(f"networks/{name}"), golden.arrays(f"networks/{name}")
    n, channels, h, w = facts["input"]
    features = Features(channels, deconvolved="deconv" in name)
    head = SRHead(features)
    state = {f"keypoint_head.{k}": tuple(v.shape) for k, v in head.state_dict().items()}
    theirs = [
        (k.decode(), tuple(int(s) for s in shape if s >= 0))
        for k, shape in zip(arrays["state_names"], arrays["state_shapes"], strict=True)
    ]
    assert list(state.items()) == [(k, s) for k, s in theirs if "tag_head" not in k]
    golden.fill(head, "keypoint_head.")
    stored = golden.normal(f"feature:{n}x{channels}x{h}x{w}", (n, channels, h, w))
    features.maps = torch.from_numpy(stored.astype(np.float32))
    _, both, height, width = facts["outputs"][0]
    with torch.no_grad():
        ours = head.eval()(torch.zeros(n, 3, height, width)).numpy()
    assert ours.shape[2:] == (height, width)
    # channels 17 to 33 of the published output are tags
    if "out0" in arrays:
        expected = arrays["out0"]
        np.testing.assert_allclose(ours, expected[:, :17], atol=1e-4 * expected.std(), rtol=0)
        return
    sample, channel, y, x = np.unravel_index(arrays["out0_flat_index"], (n, both, height, width))
    heatmaps = channel < 17
    expected = arrays["out0_at_index"]
    np.testing.assert_allclose(
        ours[sample[heatmaps], channel[heatmaps], y[heatmaps], x[heatmaps]],
        expected[heatmaps],
        atol=1e-4 * expected.std(),
        rtol=0,
    )


def test_published_numbers_of_the_top_down_rows():
    """SRPose specification, section 9: the head adds 0.09 million parameters to HRNet-W32's 28.54."""
    size = Size(256, 192)
    parameters, macs = costs(load_method("srhead", size, "hrnet_w32"))
    plain, plain_macs = costs(load_method("hrnet", size, "hrnet_w32"))
    assert parameters - plain + 17 * 33 == 90_644
    assert (macs - plain_macs) / 1e9 == pytest.approx(7.98 - 7.70, abs=0.01)
    parameters, macs = costs(load_method("srhead", size, "resnet50"))
    plain, plain_macs = costs(load_method("simplebaseline", size, "resnet50"))
    assert parameters / 1e6 == pytest.approx(23.51 + 10.59, abs=0.005)
    assert (macs - plain_macs) / 1e9 == pytest.approx(5.77 - 5.46, abs=0.01)


@pytest.mark.parametrize("size", ["64x48", "96x72", "128x96", "64x64"])
@pytest.mark.parametrize("backbone", ["hrnet_w16", "resnet18_w32"])
def test_maps_are_as_fine_as_the_crop(size, backbone):
    method = load_method("srhead", Size.parse(size), backbone)
    h, w = method.frame.size.height, method.frame.size.width
    with torch.no_grad():
        maps = method.build_model().eval()(torch.rand(1, 3, h, w))
    assert maps.heatmap.shape == (1, 17, h, w)


def test_paper_initialisation():
    network = load_method("srhead", backbone="hrnet_w16").build_model().network
    initialise(network, "paper", torch.Generator().manual_seed(0))
    assert network.heatmap_head.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert (network.heatmap_head.bias == 0).all()
    # uniform within 1 / sqrt(16), as torch has it
    encoder = network.kp_encoder[0].weight
    assert 0.2 < encoder.abs().max() <= 0.25


def test_loss_has_no_half():
    method = load_method("srhead", backbone="hrnet_w16")
    ideal, weight = method.codec.encode(torch.full((2, 17, 2), 20.0), torch.ones(2, 17))
    prediction = type(ideal)(ideal.heatmap + 0.5)
    terms = method.stages[0].loss(prediction, ideal, weight)
    assert {k: v.item() for k, v in terms.items()} == pytest.approx({"heatmap": 0.25}, rel=1e-5)


def test_settings():
    settings = parse_settings("srhead", ["sigma=2", "step=none", "flip_shift=released", "fusion=crop"])
    method = load_method("srhead", **settings)
    assert method.codec.sigma == 2
    assert method.codec.shift == 1
    assert method.codec.refine.__name__ == "argmax"
    assert load_method("srhead").codec.shift == 0
