"""Lite-HRNet: shapes at every size, published counts, determinism, gradients, and every method on it."""

from __future__ import annotations

import pytest
import torch

from lrbench.geometry import Size
from lrbench.method import load_method, method_names
from lrbench.models.backbones import BACKBONES
from lrbench.models.heads import MapNetwork
from lrbench.models.litehrnet import CHANNELS, CrossResolutionWeighting, LiteHRNet, shuffled
from lrbench.models.network import count_macs, count_parameters, initialise
from lrbench.structures import COCO

SIZES = ["64x48", "96x72", "128x96", "192x144", "256x192", "384x288", "64x64", "128x128"]
SPEC = BACKBONES["litehrnet18"]


@pytest.fixture(scope="module")
def network() -> MapNetwork:
    network = MapNetwork(SPEC.finest(Size(64, 48)), len(COCO))
    initialise(network, "residual", torch.Generator().manual_seed(0))
    return network.eval()


def pixels(size: Size, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, size.height, size.width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["litehrnet18", "litehrnet30"])
@pytest.mark.parametrize("text", SIZES)
def test_shapes(name: str, text: str):
    size = Size.parse(text)
    with torch.device("meta"):
        finest, pyramid, x = BACKBONES[name].finest(size), BACKBONES[name].pyramid(size), pixels(size, 1).to("meta")
    assert [tuple(m.shape) for m in finest(x)] == [(1, 40, size.height // 4, size.width // 4)]
    shapes = [(1, c, -(-size.height // s), -(-size.width // s)) for c, s in zip(CHANNELS, (4, 8, 16, 32), strict=True)]
    assert [tuple(m.shape) for m in pyramid(x)] == shapes
    assert (finest.channels, pyramid.channels) == ((40,), CHANNELS)
    assert SPEC.resolve_fusion("auto", size) == ("crop" if size.height % 32 or size.width % 32 else "official")


@pytest.mark.parametrize(("name", "params", "macs"), [("litehrnet18", 1.1e6, 205.2e6), ("litehrnet30", 1.8e6, 319.2e6)])
def test_published_counts(name: str, params: float, macs: float):
    size = Size(256, 192)
    with torch.device("meta"):
        network = MapNetwork(BACKBONES[name].finest(size), len(COCO))
    assert count_parameters(network) == pytest.approx(params, rel=0.03)
    assert count_macs(network, size) == pytest.approx(macs, rel=0.01)


def test_sizes_that_cannot_be_taken():
    with pytest.raises(ValueError, match="Lite-HRNet cannot take 50x50: both sides must be multiples of 4"):
        SPEC.finest(Size(50, 50))
    with pytest.raises(ValueError, match="the official Lite-HRNet cannot take 64x48: both sides must be multiples"):
        SPEC.pyramid(Size(64, 48), "official")
    with pytest.raises(ValueError, match="three-branch is HRNet's"):
        SPEC.finest(Size(64, 48), "three-branch")


@pytest.mark.parametrize("text", ["64x48", "128x96"])
def test_eval_is_a_function_of_each_picture(network: MapNetwork, text: str):
    x = pixels(Size.parse(text), 3)
    with torch.no_grad():
        together = network(x)
        assert torch.equal(together, network(x))
        torch.testing.assert_close(together[1:2], network(x[1:2]), rtol=1e-4, atol=1e-5 * float(together.std()))
    assert not torch.equal(together[0], together[1])


def test_a_mirrored_picture_gives_another_map(network: MapNetwork):
    x = pixels(Size(64, 48))
    with torch.no_grad():
        plain, mirrored = network(x), network(x.flip(-1)).flip(-1)
    # strided convolutions begin at the left border, so the flip test averages two different opinions
    assert (plain - mirrored).abs().mean() > 1e-3 * plain.std()


@pytest.mark.parametrize("text", ["64x48", "96x72", "128x96"])
@pytest.mark.parametrize("scheme", ["paper", "residual"])
def test_gradients(text: str, scheme: str):
    size = Size.parse(text)
    network = MapNetwork(SPEC.finest(size), len(COCO)).train()
    initialise(network, scheme, torch.Generator().manual_seed(0))
    (network(pixels(size)) - 1).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert sum(bool(p.grad.any()) for p in network.parameters()) > 0.95 * len(list(network.parameters()))


def test_cutting_keeps_the_alignment():
    """A picture whose right part is missing is weighted there as the whole one, window by window."""
    layer = CrossResolutionWeighting((4, 4)).eval()
    fine, coarse = torch.randn(1, 4, 4, 6), torch.randn(1, 4, 2, 3)
    with torch.no_grad():
        whole = layer([fine, coarse])
        part = layer([fine[..., :4], coarse[..., :2]])
        odd = layer([fine[..., :5], coarse])
    for a, b in zip(whole, part, strict=True):
        torch.testing.assert_close(a[..., : b.shape[-1]], b)
    torch.testing.assert_close(whole[0][..., :4], odd[0][..., :4])


def test_pooling_is_adaptive_where_sizes_divide():
    layer = CrossResolutionWeighting((4, 6, 8)).eval()
    branches = [torch.randn(2, c, 8 // 2**i, 12 // 2**i) for i, c in enumerate((4, 6, 8))]
    with torch.no_grad():
        pooled = torch.cat([torch.nn.functional.adaptive_avg_pool2d(x, (2, 3)) for x in branches], 1)
        weights = torch.sigmoid(layer.expand(torch.relu(layer.reduce(pooled)))).split((4, 6, 8), 1)
        slow = [x * torch.nn.functional.interpolate(w, x.shape[-2:]) for x, w in zip(branches, weights, strict=True)]
        for ours, theirs in zip(layer(branches), slow, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_shuffle_interleaves():
    a, b = torch.arange(3.0).view(1, 3, 1, 1), torch.arange(10.0, 13.0).view(1, 3, 1, 1)
    assert shuffled(a, b).flatten().tolist() == [0, 10, 1, 11, 2, 12]


def test_both_networks_share_their_trunk():
    size = Size(64, 48)
    merged, plain = SPEC.finest(size), SPEC.pyramid(size)
    assert isinstance(plain, LiteHRNet)
    left = plain.load_state_dict(merged.state_dict(), strict=False)
    assert not left.missing_keys
    assert all(key.startswith("merge.") for key in left.unexpected_keys)


@pytest.mark.parametrize("name", method_names())
def test_every_method_composes_with_it(name: str):
    try:
        method = load_method(name, Size(64, 48), "litehrnet18")
    except ValueError as error:  # a method that rebuilds the insides of a network says so
        if "has no form on litehrnet18; choose one of" not in str(error):
            raise
        pytest.skip(str(error))
    if not method.backbone:
        pytest.skip("has no network")
    model = method.build_model()
    initialise(model.network, "residual", torch.Generator().manual_seed(0))
    keypoints = torch.full((2, len(COCO), 2), 20.0)
    ideal, _ = method.codec.encode(keypoints, torch.ones(2, len(COCO)))
    with torch.no_grad():
        assert [f.shape for f in model.train()(torch.rand(2, 3, 64, 48))] == [f.shape for f in ideal]
        decoded = method.codec.decode(model.eval()(torch.rand(2, 3, 64, 48)))
    assert decoded.xy.shape == keypoints.shape
    assert torch.isfinite(decoded.xy).all()
