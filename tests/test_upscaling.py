"""Super-resolution before pose: coordinates, the flip test, what is recorded, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lrbench.geometry import Frame, Size, apply, enlargement
from lrbench.inference import flip_test
from lrbench.method import costs, describe, load_method, upscaler_costs
from lrbench.models.upscalers import UPSCALERS
from lrbench.structures import COCO
from lrbench.upscaling import upscaling

SMALL = Size(64, 48)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of the smallest network that is recognised by its names."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("sr") / "small.safetensors"
    save_file(UPSCALERS["srvgg_tiny"].build(4).state_dict(), path)
    return path


def test_composed_is_the_law_of_enlarged_pixels():
    for align in ("biased", "dark", "corner"):
        points = np.array([[0.0, 0.0], [-0.5, -0.5], [47.5, 63.5]])
        large = apply(enlargement(Frame(SMALL, align), 4, "composed"), points)
        np.testing.assert_allclose(large, [[1.5, 1.5], [-0.5, -0.5], [191.5, 255.5]], atol=1e-9)


@pytest.mark.parametrize(("align", "left", "right"), [("biased", 1.5, 1.5), ("corner", 1.53, -1.53)])
def test_naive_is_off_by_what_the_frames_say(align, left, right):
    """At the first and at the last column of the enlarged crop, px of it."""
    frame = Frame(SMALL, align)
    composed, naive = (enlargement(frame, 4, rule) for rule in ("composed", "naive"))
    for column, expected in ((0.0, left), (191.0, right)):
        u = (column - naive[0, 2]) / naive[0, 0]  # where naive believes the column to be in the small crop
        assert apply(composed, np.array([u, 0.0]))[0] - column == pytest.approx(expected, abs=0.04)


def test_a_blob_stays_where_it_was():
    method = load_method("hrnet", SMALL, "hrnet_w16", upscaling("bicubic", boundary="float"))
    x, y = np.meshgrid(np.arange(48), np.arange(64))
    for center in ((20.3, 31.8), (24.0, 40.5)):
        blob = np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * 2.5**2))
        pixels = torch.from_numpy(np.broadcast_to(blob, (1, 3, 64, 48)).copy()).float()
        large = method.build_model().prepare(pixels)[0, 0].double().numpy()
        v, u = np.mgrid[:256, :192]
        found = np.array([(large * u).sum(), (large * v).sum()]) / large.sum()
        expected = apply(enlargement(method.frame, 4, "composed"), np.array(center))
        assert np.abs(found - expected).max() < 0.02 * 4


@pytest.mark.parametrize("name", ["hrnet", "udp", "simcc", "integral", "rle", "srpose"])
@pytest.mark.parametrize("rule", ["composed", "naive"])
def test_round_trip_in_px_of_the_small_crop(name, rule):
    codec = load_method(name, SMALL, "hrnet_w16", upscaling("bicubic", mapping=rule)).codec
    generator = torch.Generator().manual_seed(0)
    xy = 6 + torch.rand(8, len(COCO), 2, generator=generator) * torch.tensor([35.0, 51.0])
    ideal, weight = codec.encode(xy, torch.ones(8, len(COCO)))
    assert weight.min() == 1
    # a quarter of what the codec misses at 256x192
    assert (codec.decode(ideal).xy - xy).abs().max() <= 0.6


def test_the_upscaler_runs_once_and_its_picture_is_mirrored(weights):
    method = load_method("udp", SMALL, "hrnet_w16", str(weights))
    model = method.build_model().eval()
    calls = []
    model.front.register_forward_hook(lambda *_: calls.append(1))
    pixels = torch.rand(2, 3, 64, 48)
    with torch.no_grad():
        averaged = flip_test(model, method.codec, pixels)
        large = model.prepare(pixels)
        mirrored = model.read(large.flip(-1))
    assert len(calls) == 2  # one of them is ours
    order = torch.arange(17)
    assert averaged.heatmap.shape == method.codec.unflip(mirrored, order).heatmap.shape


def test_pixels_between_are_those_of_a_file():
    pixels = torch.rand(1, 3, 64, 48)
    rounded, plain = (
        load_method("hrnet", SMALL, "hrnet_w16", upscaling("lanczos", boundary=b)).build_model().prepare(pixels)
        for b in ("u8", "float")
    )
    assert torch.equal((255 * rounded).round() / 255, rounded)
    assert 0 < (rounded - plain).abs().max() <= 0.5 / 255 + 1e-6
    assert plain.min() >= 0
    assert plain.max() <= 1


def test_costs_are_counted_apart(weights):
    plain = load_method("hrnet", Size(256, 192), "hrnet_w16")
    with_sr = load_method("hrnet", SMALL, "hrnet_w16", str(weights))
    assert costs(with_sr) == costs(plain)
    assert upscaler_costs(plain) == (0, 0)
    params, macs = upscaler_costs(with_sr)
    assert params == sum(p.numel() for p in UPSCALERS["srvgg_tiny"].build(4).parameters())
    assert macs > 1e8
    assert describe(with_sr)["upscaling"]["sha256"]


def test_training_leaves_the_upscaler_alone(cli, tiny_data, weights):
    words = ["--data", tiny_data, "--recipe", "quick", "--epochs", 1, "--batch", 4, "--workers", 0, "--device", "cpu"]
    words += ["--precision", "32-true", "--res", "32x24", "--sr", weights, "-q"]
    result = cli("compare", "hrnet", *words, "--json")
    assert result.exit_code == 0, result.stderr
    row = json.loads(result.stdout)["rows"][0]
    assert (row["sr"], row["status"]) == ("small x4", "done")
    assert row["macs"] > row["params"]
    trained = json.loads(cli("train", "hrnet", *words, "--json").stdout)["weights"]
    from safetensors.torch import load_file

    names = load_file(trained)
    assert "conv1.weight" in names
    assert not any("upscaler" in name or name.startswith("body") for name in names)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--sr", "bicubik"], 2, "unknown upscaler 'bicubik'; did you mean bicubic? (or give a file of weights)"),
        (["--sr", "bicubic", "--sr-scale", 3], 2, "scale 3; choose one of 2, 4"),
        (["--sr", "bicubic", "--sr-map", "exact"], 2, "expected u8 or float, composed or naive"),
    ],
)
def test_refusals(cli, words, code, message):
    result = cli("describe", "hrnet", *words)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_untrained_upscaler_is_described_but_not_scored(cli, tiny_data):
    facts = json.loads(cli("describe", "hrnet", "--sr", "edsr", "--json").stdout)
    assert facts["macs_sr"] > 6e9
    assert facts["settings"]["upscaling"]["sha256"] == ""
    words = ("--res", "16x12", "--data", tiny_data, "--recipe", "quick", "--device", "cpu", "-q")
    result = cli("eval", "hrnet", "--sr", "edsr", *words)
    assert result.exit_code == 3
    (line,) = result.stderr.splitlines()
    assert line.startswith(
        "lrbench: upscaler edsr x4 has no finished run of these settings in runs; run lrbench train "
    )
    assert f"lrbench train edsr --res 16x12 --scale 4 --data {tiny_data}" in line
    assert "--sr FILE" in line


def test_a_file_of_another_scale_is_refused(weights):
    method = load_method("hrnet", Size(128, 96), "hrnet_w16", upscaling(str(weights), 2))
    with pytest.raises(ValueError, match="enlarges 4 times, asked for 2"):
        method.build_model()
