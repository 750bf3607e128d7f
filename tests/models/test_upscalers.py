"""Upscalers: published counts, exact resampling, the bicubic start, SPSR's branch, losses, and released weights."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrbench.datasets.images import DataError
from lrbench.degradation import imresize
from lrbench.geometry import Size
from lrbench.models.network import count_macs, count_parameters
from lrbench.models.upscalers import UPSCALERS
from lrbench.models.upscalers.compact import ESPCN, FSRCNN, SRVGG
from lrbench.models.upscalers.edsr import edsr, rcan
from lrbench.models.upscalers.gradients import (
    RELEASED_ADVERSARIAL_WEIGHT,
    RELEASED_FEATURE_WEIGHT,
    gradient_map,
    psnr_loss,
    released_loss,
)
from lrbench.models.upscalers.natsr import NatSR
from lrbench.models.upscalers.released import INSTALL, identify, load_upscaler, load_with_spandrel, recognise
from lrbench.models.upscalers.resampling import enlarged
from lrbench.models.upscalers.rrdb import INITIAL, RRDB, DenseBlock, RRDBNet
from lrbench.models.upscalers.span import SPAN
from lrbench.models.upscalers.spsr import (
    RELEASED_GRADIENT_ADVERSARIAL_WEIGHT,
    SPSR,
    TAPS,
    StructuredPicture,
    released_structure_loss,
    structure_loss,
)
from lrbench.models.upscalers.srresnet import MSRResNet, SRResNet
from lrbench.models.upscalers.upscaler import DIV2K_MEAN, Upscaler, initialise
from lrbench.weights import CONTAINERS

# parameters, and 1e9 multiply-adds of one 64x48 crop to 256x192, as counted of the published networks
COUNTS = {
    "bicubic": (0, 0.0),
    "lanczos": (0, 0.0),
    "espcn": (37_200, 0.11),
    "fsrcnn": (24_683, 0.07),
    "srvgg_tiny": (89_040, 0.27),  # ours, not published
    "srvgg": (621_424, 1.90),
    "srvgg32": (1_213_296, 3.71),
    "span": (426_288, 1.31),
    "span52": (498_208, 1.53),
    "srresnet": (1_549_462, 6.81),
    "srgan": (1_549_462, 6.81),
    "msrresnet": (1_517_571, 7.79),
    "edsr": (1_517_571, 6.09),
    "edsr_wide": (43_089_923, 154.4),
    "natsr": (4_959_235, 16.66),
    "rrdb6": (4_467_779, 17.53),
    "rrdb": (16_697_987, 55.07),
    "esrgan": (16_697_987, 55.07),
    "rcan": (15_592_355, 48.90),
    "spsr_tiny": (1_418_982, 9.66),  # ours, not published
    "spsr": (24_796_230, 160.97),
}
SIZES = ("64x48", "50x37")  # nothing depends on the size but for odd sides
LEARNED = [name for name, spec in UPSCALERS.items() if spec.learned]

# every family, small enough to run
SMALL: dict[str, Callable[[int], Upscaler]] = {
    "espcn": ESPCN,
    "fsrcnn": FSRCNN,
    "srvgg": partial(SRVGG, width=4, depth=2),
    "span": partial(SPAN, width=4),
    "srresnet": partial(SRResNet, width=4, depth=2),
    "srgan": partial(SRResNet, width=4, depth=2),
    "msrresnet": partial(MSRResNet, width=4, depth=2),
    "edsr": partial(edsr, width=4, depth=2, strength=0.1),
    "rcan": partial(rcan, width=4, groups=2, blocks=2, reduction=2),
    "natsr": partial(NatSR, width=4),
    "rrdb": partial(RRDBNet, width=4, blocks=2),
    "esrgan": partial(RRDBNet, width=4, blocks=2),
    "spsr": partial(SPSR, width=4, blocks=21),
    "spsr growth": partial(SPSR, width=4, blocks=20, growth=3),
}


def on_meta(name: str, scale: int = 4) -> Upscaler:
    with torch.device("meta"):
        return UPSCALERS[name].build(scale)


def filled(make: Callable[[int], Upscaler], scale: int = 4, seed: int = 0) -> Upscaler:
    network = make(scale)
    initialise(network, torch.Generator().manual_seed(seed))
    return network.eval()


def picture(height: int, width: int, batch: int = 2, seed: int = 1) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- the registry


def test_every_upscaler_is_counted_and_described():
    assert set(COUNTS) == set(UPSCALERS)
    for spec in UPSCALERS.values():
        assert spec.summary and "\n" not in spec.summary
        assert re.search(r"\b(19|20)\d\d\b", spec.paper)
        with pytest.raises(FrozenInstanceError):
            spec.summary = ""  # type: ignore[misc]


def test_stand_ins_for_processors():
    assert {name: spec.narrow for name, spec in UPSCALERS.items() if spec.narrow} == {"spsr": "spsr_tiny"}
    wide, narrow = UPSCALERS["spsr"], UPSCALERS["spsr_tiny"]
    assert narrow.scales == wide.scales and narrow.learned and narrow.paper == wide.paper


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name: str):
    params, gmacs = COUNTS[name]
    network = on_meta(name)
    assert count_parameters(network) == params
    macs = count_macs(network, Size(64, 48))
    if name == "spsr":  # the published count includes the 1x1 convolution that only training needs
        macs += 256 * 192 * 64 * 3
    assert macs / 1e9 == pytest.approx(gmacs, abs=0.05 if gmacs == 154.4 else 0.005)


@pytest.mark.parametrize(
    ("network", "params", "gmacs"), [(ESPCN, 24_752, 0.08), (FSRCNN, 12_809, 0.04)], ids=["espcn", "fsrcnn"]
)
def test_counts_on_luminance(network: type[ESPCN] | type[FSRCNN], params: int, gmacs: float):
    with torch.device("meta"):
        luminance, x = network(4, channels=1), torch.zeros(1, 1, 64, 48)
    assert luminance(x).shape == (1, 1, 256, 192)
    assert count_parameters(luminance) == params
    weights = sum(module.weight.numel() for module in luminance.modules() if hasattr(module, "kernel_size"))
    assert weights * 64 * 48 / 1e9 == pytest.approx(gmacs, abs=0.005)  # all layers work on the small picture


@pytest.mark.parametrize("name", UPSCALERS)
def test_shapes(name: str):
    for scale in UPSCALERS[name].scales:
        network = on_meta(name, scale).eval()
        for size in map(Size.parse, SIZES):
            x = torch.zeros(2, 3, size.height, size.width, device="meta")
            assert network(x).shape == (2, 3, scale * size.height, scale * size.width)


def test_what_cannot_be_built():
    with pytest.raises(ValueError, match="scale 3 is not available; choose one of 2, 4"):
        UPSCALERS["edsr"].build(3)
    with pytest.raises(ValueError, match="Resampling has no last convolution"):
        UPSCALERS["bicubic"].build(4, "bicubic")
    with pytest.raises(ValueError, match="SPSR cannot have 19 RRDBs"), torch.device("meta"):
        SPSR(4, blocks=19)


# ---------------------------------------------------------------- resampling


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(2, 5), (9, 7), (16, 12)])
def test_bicubic_is_imresize_up_to_the_border(height: int, width: int, scale: int):
    x = picture(height, width)
    for given, made in zip(x, enlarged(x, scale), strict=True):
        expected = imresize(given.permute(1, 2, 0).numpy(), Size(scale * height, scale * width))
        np.testing.assert_allclose(made.permute(1, 2, 0).numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("kernel", ["bicubic", "lanczos"])
def test_resampling_is_pillows_inside(kernel: Any, scale: int):
    image = pytest.importorskip("PIL.Image")
    x = picture(14, 11, batch=1)
    rule = {"bicubic": image.Resampling.BICUBIC, "lanczos": image.Resampling.LANCZOS}[kernel]
    plane = image.fromarray(x[0, 0].numpy(), mode="F").resize((11 * scale, 14 * scale), rule)
    inside = np.s_[3 * scale : -3 * scale, 3 * scale : -3 * scale]  # at the border Pillow drops what lies outside
    np.testing.assert_allclose(enlarged(x, scale, kernel)[0, 0].numpy()[inside], np.asarray(plane)[inside], atol=2e-6)


@pytest.mark.parametrize("kernel", ["bicubic", "lanczos"])
def test_resampling_keeps_constants_mirrors_and_places(kernel: Any):
    flat = torch.full((1, 3, 6, 5), 0.3, dtype=torch.float64)
    torch.testing.assert_close(enlarged(flat, 4, kernel), torch.full((1, 3, 24, 20), 0.3, dtype=torch.float64))
    x = picture(9, 8)
    torch.testing.assert_close(enlarged(x.flip(-1), 4, kernel), enlarged(x, 4, kernel).flip(-1))
    # a blob stays where it was: u = (u' + 0.5) / 4 - 0.5
    row, column = torch.meshgrid(torch.arange(30.0), torch.arange(24.0), indexing="ij")
    blob = torch.exp(-((row - 13.3) ** 2 + (column - 11.8) ** 2) / 8)
    large = enlarged(blob[None, None], 4, kernel)[0, 0]
    down, right = large.sum(1) @ torch.arange(120.0), large.sum(0) @ torch.arange(96.0)
    for found, placed in ((down, 13.3), (right, 11.8)):
        assert float((found / large.sum() + 0.5) / 4 - 0.5) == pytest.approx(placed, abs=2e-3)


def test_resampling_refuses_less_than_its_kernel():
    with pytest.raises(ValueError, match="lanczos cannot enlarge 2x9: both sides must be at least 3 pixels"):
        enlarged(picture(2, 9), 4, "lanczos")


# ---------------------------------------------------------------- what networks are made of


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("name", SMALL)
def test_untrained_is_exactly_bicubic(name: str, scale: int):
    network = SMALL[name](scale)
    network.start_as_bicubic()
    x = picture(6, 5)
    for again in (False, True):
        if again:
            initialise(network, torch.Generator().manual_seed(3))
        for training in (True, False):
            made = network.train(training)(x)
            assert torch.equal(made.picture if isinstance(made, StructuredPicture) else made, enlarged(x, scale))
            assert torch.equal(network.enlarge(x), enlarged(x, scale))
    # and it can leave that place
    psnr_loss(network(x), torch.zeros(2, 3, 6 * scale, 5 * scale))["pixels"].backward()
    last = network.get_submodule(network.last)
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in last.parameters())


def test_autocast_leaves_the_bicubic_picture_alone():
    network, x = UPSCALERS["srvgg_tiny"].build(4, "bicubic"), picture(6, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(x), enlarged(x, 4))


@pytest.mark.parametrize("name", LEARNED)
def test_every_registered_network_has_a_last_convolution(name: str):
    network = on_meta(name)
    assert isinstance(network.get_submodule(network.last), nn.Conv2d | nn.ConvTranspose2d)


@pytest.mark.parametrize("name", SMALL)
def test_the_input_is_not_written_to_and_pictures_do_not_mix(name: str):
    network, x = filled(SMALL[name]), picture(6, 5, batch=3)
    before = x.clone()
    with torch.no_grad():
        together = network(x)
        assert torch.equal(x, before)
        torch.testing.assert_close(together[1:2], network(x[1:2]), atol=1e-5, rtol=1e-4)
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("name", SMALL)
def test_initialisation_is_the_generators(name: str):
    networks = [filled(SMALL[name], seed=seed) for seed in (0, 0, 1)]
    first, again, other = (torch.cat([p.flatten() for p in n.parameters()]) for n in networks)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.isfinite(networks[0](picture(6, 5))).all()


def test_dense_blocks_start_small():
    block = next(m for m in filled(partial(RRDBNet, blocks=1)).modules() if isinstance(m, DenseBlock))
    layer = block.get_submodule("conv4.0")
    assert isinstance(layer, nn.Conv2d) and layer.bias is not None
    assert float(layer.weight.detach().std()) == pytest.approx(INITIAL * (2 / layer.weight[0].numel()) ** 0.5, rel=0.05)
    assert not layer.bias.any()


def test_growth_of_dense_blocks():
    shapes = [tuple(layer.weight.shape[:2]) for layer in DenseBlock(6, 5).modules() if isinstance(layer, nn.Conv2d)]
    assert shapes == [(5, 6), (5, 11), (5, 16), (5, 21), (6, 26)]
    with torch.device("meta"):
        assert RRDB(6)(torch.zeros(1, 6, 4, 4)).shape == (1, 6, 4, 4)
        assert RRDB(6).get_submodule("RDB3.conv4.0").out_channels == 32


def test_released_networks_add_to_what_they_were_published_with():
    x = picture(6, 5)
    silenced = {}
    for name in ("srvgg", "msrresnet", "edsr", "rcan", "rrdb"):
        network = filled(SMALL[name])
        nn.init.zeros_(network.get_submodule(network.last).weight)  # type: ignore[arg-type]
        nn.init.zeros_(network.get_submodule(network.last).bias)  # type: ignore[arg-type]
        silenced[name] = network(x)
    assert torch.equal(silenced["srvgg"], x.repeat_interleave(4, -1).repeat_interleave(4, -2))
    torch.testing.assert_close(silenced["msrresnet"], F.interpolate(x, size=(24, 20), mode="bilinear"))
    colour = torch.tensor(DIV2K_MEAN).view(3, 1, 1).expand(2, 3, 24, 20)
    assert torch.equal(silenced["edsr"], colour) and torch.equal(silenced["rcan"], colour)
    assert not silenced["rrdb"].any()


def test_edsr_sees_0_to_255_minus_the_mean():
    network, x = filled(SMALL["edsr"], 2), picture(6, 5)
    state = network.state_dict()

    def conv(name: str, y: Tensor) -> Tensor:
        return F.conv2d(y, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    mean = 255 * torch.tensor(DIV2K_MEAN).view(3, 1, 1)
    y = start = conv("conv_first", 255 * x - mean)
    for block in range(2):
        y = y + 0.1 * conv(f"body.{block}.conv2", F.relu(conv(f"body.{block}.conv1", y)))
    y = F.pixel_shuffle(conv("upsample.0", start + conv("conv_after_body", y)), 2)
    torch.testing.assert_close(network(x), (conv("conv_last", y) + mean) / 255, atol=1e-5, rtol=1e-4)


def test_natsrs_shortcuts():
    network = NatSR(2, width=4)
    for name, parameter in network.named_parameters():
        if ".fuse." in name:
            nn.init.zeros_(parameter)  # dense blocks pass their input on
    seen: list[Tensor] = []
    network.conv_after_stages.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = picture(6, 5)
    network(x)
    # b = 2a, c = 2b + a = 5a, d = 2c = 10a, e = 2d + c + a = 26a
    torch.testing.assert_close(seen[0], 26 * network.conv_first(x))


def test_a_network_learns_more_than_bicubic():
    network = SRVGG(2, width=8, depth=2)
    network.start_as_bicubic()
    initialise(network, torch.Generator().manual_seed(0))
    target = F.interpolate(picture(8, 8, seed=5), scale_factor=4.0, mode="nearest")  # edges, which bicubic blurs
    small = F.avg_pool2d(target, 2)
    before = sum(psnr_loss(enlarged(small, 2), target).values())
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        sum(psnr_loss(network(small), target).values()).backward()
        optimizer.step()
    with torch.no_grad():
        assert sum(psnr_loss(network(small), target).values()) < 0.8 * before


# ---------------------------------------------------------------- gradient maps and losses


@pytest.mark.parametrize("padding", [1, 2])
def test_gradient_map_is_the_formula(padding: int):
    x = picture(4, 5)
    framed = np.zeros((2, 3, 4 + 2 * padding, 5 + 2 * padding), np.float32)
    framed[:, :, padding:-padding, padding:-padding] = x.numpy()
    expected = np.zeros((2, 3, 2 + 2 * padding, 3 + 2 * padding), np.float32)
    for i in range(expected.shape[2]):
        for j in range(expected.shape[3]):
            vertical = framed[:, :, i + 2, j + 1] - framed[:, :, i, j + 1]
            horizontal = framed[:, :, i + 1, j + 2] - framed[:, :, i + 1, j]
            expected[:, :, i, j] = np.sqrt(vertical**2 + horizontal**2 + 1e-6)
    np.testing.assert_allclose(gradient_map(x, padding).numpy(), expected, rtol=1e-5)


def test_gradient_map_has_a_gradient_where_the_picture_is_flat():
    x = torch.zeros(1, 3, 4, 4, requires_grad=True)
    made = gradient_map(x)
    made.sum().backward()
    torch.testing.assert_close(made.detach(), torch.full((1, 3, 4, 4), 1e-3))
    assert x.grad is not None and torch.isfinite(x.grad).all()


def test_losses_are_their_formulas():
    made, target, branch = picture(6, 5), picture(6, 5, seed=2), picture(6, 5, seed=3)
    terms = psnr_loss(made, target)
    assert terms["pixels"] == (made - target).abs().mean()
    torch.testing.assert_close(terms["gradient"], 0.1 * (gradient_map(made) - gradient_map(target)).abs().mean())
    assert psnr_loss(made, target, gradient_weight=0.5)["gradient"] == pytest.approx(5 * float(terms["gradient"]))
    structured = structure_loss(StructuredPicture(made, branch), target)
    torch.testing.assert_close(structured.pop("branch"), 0.5 * (branch - gradient_map(target)).abs().mean())
    assert structured == terms
    perfect = structure_loss(StructuredPicture(target, gradient_map(target)), target)
    assert not any(float(term) for term in perfect.values())


def test_released_losses_are_their_formulas():
    made, target, branch = picture(6, 5), picture(6, 5, seed=2), picture(6, 5, seed=3)
    terms = released_loss(made, target)
    assert list(terms) == ["pixels"]
    torch.testing.assert_close(terms["pixels"], 0.01 * (made - target).abs().mean())
    structured = released_structure_loss(StructuredPicture(made, branch), target)
    assert list(structured) == ["pixels", "gradient", "branch"] and structured["pixels"] == terms["pixels"]
    wide = gradient_map(made, 2) - gradient_map(target, 2)
    assert wide.shape[-2:] == (8, 7)
    torch.testing.assert_close(structured["gradient"], 0.01 * (wide**2).mean())
    torch.testing.assert_close(structured["branch"], 0.5 * (branch - gradient_map(target)).abs().mean())
    perfect = released_structure_loss(StructuredPicture(target, gradient_map(target)), target)
    assert not any(float(term) for term in perfect.values())
    # the terms of other networks, which the training adds
    weights = (RELEASED_FEATURE_WEIGHT, RELEASED_ADVERSARIAL_WEIGHT, RELEASED_GRADIENT_ADVERSARIAL_WEIGHT)
    assert weights == (1.0, 0.005, 0.005)


# ---------------------------------------------------------------- SPSR


def spsr_by_hand(state: Mapping[str, Tensor], x: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """SPSR at x4 as a flat list of operations on released names."""

    def conv(name: str, y: Tensor) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(y, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def lrelu(y: Tensor) -> Tensor:
        return torch.where(y > 0, y, 0.2 * y)

    def rrdb(name: str, y: Tensor) -> Tensor:
        start = y
        for dense in range(1, 4):
            seen = [y]
            for number in range(1, 5):
                seen.append(lrelu(conv(f"{name}.RDB{dense}.conv{number}.0", torch.cat(seen, 1))))
            y = y + 0.2 * conv(f"{name}.RDB{dense}.conv5.0", torch.cat(seen, 1))
        return start + 0.2 * y

    def up(y: Tensor) -> Tensor:
        return y.repeat_interleave(2, -1).repeat_interleave(2, -2)

    y = shallow = conv("model.0", x)
    taps = []
    for block in range(blocks):
        y = rrdb(f"model.1.sub.{block}", y)
        taps += [y] if block + 1 in TAPS else []
    y = shallow + conv(f"model.1.sub.{blocks}", y)
    y = lrelu(conv("model.6", up(lrelu(conv("model.3", up(y))))))
    painted = conv("HR_conv1_new.0", lrelu(conv("model.8", y)))
    g = start = conv("b_fea_conv.0", gradient_map(x))
    for number, tap in enumerate(taps, 1):
        g = conv(f"b_concat_{number}.0", rrdb(f"b_block_{number}", torch.cat([g, tap], 1)))
    g = start + conv("b_LR_conv.0", g)
    g = lrelu(conv("b_module.4", up(lrelu(conv("b_module.1", up(g))))))
    g = conv("b_module.8", lrelu(conv("b_module.6", g)))
    fused = conv("f_concat.0", rrdb("f_block", torch.cat([g, painted], 1)))
    return conv("f_HR_conv1.0", lrelu(conv("f_HR_conv0.0", fused))), conv("conv_w.0", g)


def test_spsr_is_its_description():
    network, x = filled(SMALL["spsr"]), picture(6, 5)
    expected, gradients = spsr_by_hand(network.state_dict(), x, 21)
    torch.testing.assert_close(network(x), expected)
    made = network.train()(x)
    assert isinstance(made, StructuredPicture)
    torch.testing.assert_close(made.picture, expected)
    torch.testing.assert_close(made.gradients, gradients)
    assert isinstance(network.enlarge(x), Tensor)
    sum(structure_loss(made, picture(24, 20)).values()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


# ---------------------------------------------------------------- released weights


def spsr_file(blocks: int = 23) -> dict[str, Tensor]:
    """What the released file holds, in empty tensors."""
    with torch.device("meta"):
        state = dict(SPSR(4, blocks=blocks).state_dict())
        for direction in "hv":
            state[f"get_g_nopadding.weight_{direction}"] = torch.zeros(1, 1, 3, 3)
    for kind in ("weight", "bias"):
        state[f"HR_conv0_new.0.{kind}"] = state[f"model.8.{kind}"]
    return state


def spelled(state: Mapping[str, Tensor], *rules: tuple[str, str]) -> dict[str, Tensor]:
    """Tensors under other names: the first rule that fits the whole of a layer's name counts."""
    names = {}
    for name in state:
        layer, _, kind = name.rpartition(".")
        found = [m.expand(theirs) for ours, theirs in rules if (m := re.fullmatch(ours, layer))]
        names[name] = f"{found[0]}.{kind}" if found else name
    assert len(set(names.values())) == len(state)
    return {names[name]: tensor for name, tensor in state.items()}


RRDB_BASICSR = (
    (r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0", r"body.\1.rdb\2.conv\3"),
    (r"model\.1\.sub\.\d+", "conv_body"),
    (r"model\.0", "conv_first"),
    (r"model\.3", "conv_up1"),
    (r"model\.6", "conv_up2"),
    (r"model\.8", "conv_hr"),
    (r"model\.10", "conv_last"),
)
RRDB_ESRGAN = (
    (r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0", r"RRDB_trunk.\1.RDB\2.conv\3"),
    (r"model\.1\.sub\.\d+", "trunk_conv"),
    (r"model\.0", "conv_first"),
    (r"model\.3", "upconv1"),
    (r"model\.6", "upconv2"),
    (r"model\.8", "HRconv"),
    (r"model\.10", "conv_last"),
)
FRAME = ((r"conv_first", "head.0"), (r"upsample\.(\d)", r"tail.0.\1"), (r"conv_last", "tail.1"))
EDSR = (*FRAME, (r"body\.(\d+)\.conv1", r"body.\1.body.0"), (r"body\.(\d+)\.conv2", r"body.\1.body.2"))
RCAN = (
    *FRAME,
    (r"body\.(\d+)\.residual_group\.(\d+)\.rcab\.3\.attention\.1", r"body.\1.body.\2.body.3.conv_du.0"),
    (r"body\.(\d+)\.residual_group\.(\d+)\.rcab\.3\.attention\.3", r"body.\1.body.\2.body.3.conv_du.2"),
    (r"body\.(\d+)\.residual_group\.(\d+)\.rcab\.(\d)", r"body.\1.body.\2.body.\3"),
    (r"body\.(\d+)\.conv", r"body.\1.body.20"),
    (r"conv_after_body", "body.10"),
)


def mean_layers(brightest: float = 255.0) -> dict[str, Tensor]:
    """Layers of official EDSR and RCAN files that subtract the mean colour and add it again."""
    shift, identity = brightest * torch.tensor(DIV2K_MEAN), torch.eye(3).view(3, 3, 1, 1)
    return {
        "sub_mean.weight": identity,
        "sub_mean.bias": -shift,
        "add_mean.weight": identity,
        "add_mean.bias": shift,
    }


SPELLINGS = {
    "rrdb first": ("rrdb", 4, ()),
    "rrdb first x2": ("rrdb6", 2, ()),
    "rrdb esrgan": ("rrdb", 4, RRDB_ESRGAN),
    "rrdb basicsr": ("rrdb6", 4, RRDB_BASICSR),
    "rcan": ("rcan", 4, RCAN),
    "rcan basicsr": ("rcan", 2, ()),
    "edsr": ("edsr", 4, (*EDSR, ("conv_after_body", "body.16"))),
    "edsr wide": ("edsr_wide", 4, (*EDSR, ("conv_after_body", "body.32"))),
    "edsr basicsr": ("edsr", 2, ()),
    "msrresnet": ("msrresnet", 4, ()),
    "srvgg": ("srvgg", 4, ()),
    "srvgg32 x2": ("srvgg32", 2, ()),
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_released_spellings_are_recognised(case: str):
    name, scale, rules = SPELLINGS[case]
    state = on_meta(name, scale).state_dict()
    theirs = spelled(state, *rules)
    if "head.0.weight" in theirs:
        theirs |= mean_layers()
    found = identify(theirs)
    assert found is not None and (found.name, found.scale) == (name, scale) and recognise(theirs) == name
    # every tensor went to the layer it came from
    assert all(found.tensors[key] is tensor for key, tensor in state.items()) and len(found.tensors) == len(state)


def test_spsrs_file_is_recognised_before_esrgans():
    file = spsr_file()
    assert len(file) == 884
    assert recognise(file) == "spsr"
    # which it would be taken for by the layers it begins with
    assert {"model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"} <= set(file)


def test_spsr_starts_from_rrdb():
    trunk, spsr = on_meta("rrdb").state_dict(), on_meta("spsr").state_dict()
    shared = {name: tensor for name, tensor in trunk.items() if not name.startswith("model.10.")}
    assert all(spsr[name].shape == tensor.shape for name, tensor in shared.items()) and len(shared) == 700


def test_near_misses_are_not_ours():
    assert recognise({}) is None
    assert recognise(spsr_file(blocks=22)) is None
    with torch.device("meta"):
        real = spelled(RRDBNet(4).state_dict(), *RRDB_BASICSR) | {"conv_first.weight": torch.zeros(64, 12, 3, 3)}
    assert recognise(real) is None  # Real-ESRGAN x2, which shuffles pixels down first
    official = spelled(on_meta("edsr").state_dict(), *EDSR, ("conv_after_body", "body.16"))
    assert recognise(official | mean_layers()) == "edsr"
    assert recognise(official) is None  # trained without the mean
    assert recognise(official | mean_layers(1.0)) is None  # trained on pixels 0..1
    assert recognise(on_meta("espcn").state_dict()) is None  # never released in torch


@pytest.mark.parametrize("scale", [2, 4])
def test_the_narrow_spsr_is_recognised(scale: int):
    state = on_meta("spsr_tiny", scale).state_dict()
    found = identify(state)
    assert found is not None and (found.name, found.scale) == ("spsr_tiny", scale)
    assert set(found.tensors) == set(state)


@pytest.mark.parametrize("suffix", ["safetensors", "pth", *CONTAINERS])
def test_a_file_is_loaded(suffix: str, tmp_path: Path):
    network, x = filled(UPSCALERS["srvgg_tiny"].build), picture(6, 5)
    if suffix == "safetensors":
        from safetensors.torch import save_file

        path = tmp_path / "net.safetensors"
        save_file(network.state_dict(), path)
    else:
        path = tmp_path / "net.pth"
        torch.save(network.state_dict() if suffix == "pth" else {suffix: network.state_dict()}, path)
    loaded = load_upscaler(path)
    assert not loaded.training and loaded.residual == "released"
    assert torch.equal(loaded(x), network(x))


def test_spsrs_file_is_loaded(tmp_path: Path):
    # one number per tensor is enough, and makes a small file
    tensors = {name: torch.full((1,), 1e-3).expand(tensor.shape) for name, tensor in spsr_file().items()}
    torch.save(tensors, tmp_path / "spsr.pth")
    loaded = load_upscaler(tmp_path / "spsr.pth")
    assert isinstance(loaded, SPSR) and all(torch.all(p == 1e-3) for p in loaded.parameters())


# ---------------------------------------------------------------- spandrel


class Meddling(nn.Module):
    """A community network with the habits of spandrel's: writes to its input, knows multiples of 8 only."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] % 8 == 0 and x.shape[-2] % 8 == 0
        x *= 255
        return self.gain * F.interpolate(x, scale_factor=2.0) / 255


class Description:
    """What spandrel says of a network."""

    model = Meddling()
    architecture = SimpleNamespace(name="Meddling")
    size_requirements = SimpleNamespace(get_padding=lambda width, height: (-width % 8, -height % 8))
    input_channels = output_channels = 3

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def __call__(self, x: Tensor) -> Tensor:
        raise AssertionError("runs without gradients and clamps")


@pytest.fixture
def unknown(tmp_path: Path) -> Path:
    torch.save({"gain": torch.tensor(1.0)}, tmp_path / "unknown.pth")
    return tmp_path / "unknown.pth"


def spandrel_that(monkeypatch: pytest.MonkeyPatch, load: Callable[[Any], Any], read: Callable[[Any], Any]) -> None:
    loader = SimpleNamespace(load_state_dict_from_file=read, load_from_state_dict=load)
    fake = SimpleNamespace(ModelLoader=lambda: loader, ImageModelDescriptor=Description)
    monkeypatch.setitem(sys.modules, "spandrel", fake)  # type: ignore[arg-type]


def test_community_networks(monkeypatch: pytest.MonkeyPatch, unknown: Path):
    spandrel_that(monkeypatch, lambda tensors: Description(2), torch.load)
    network = load_upscaler(unknown)
    x = picture(6, 13) * 3 - 1
    before = x.clone()
    made = network(x)
    assert torch.equal(x, before)
    torch.testing.assert_close(made, x.repeat_interleave(2, -1).repeat_interleave(2, -2))  # cut, not clamped
    made.sum().backward()
    assert Description.model.gain.grad is not None and not network.training
    with pytest.raises(ValueError, match="no last convolution"):
        network.start_as_bicubic()


def test_spsr_never_reaches_spandrel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    tensors = {name: torch.zeros(1).expand(tensor.shape) for name, tensor in spsr_file().items()}
    spandrel_that(monkeypatch, lambda tensors: pytest.fail("taken for ESRGAN"), lambda path: tensors)
    assert isinstance(load_with_spandrel(tmp_path / "spsr.pth"), SPSR)


def test_without_spandrel(monkeypatch: pytest.MonkeyPatch, unknown: Path):
    monkeypatch.setitem(sys.modules, "spandrel", None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=re.escape(INSTALL)) as caught:
        load_upscaler(unknown)
    assert "\n" not in str(caught.value) and str(unknown) in str(caught.value)


@pytest.mark.parametrize(
    "failure",
    [
        ModuleNotFoundError("No module named 'torchvision'", name="torchvision"),
        RuntimeError("operator torchvision::nms does not exist"),
    ],
)
def test_with_a_broken_torchvision(monkeypatch: pytest.MonkeyPatch, unknown: Path, failure: Exception):
    def broken(name: str) -> None:
        raise failure

    monkeypatch.setattr("lrbench.models.upscalers.released.importlib", SimpleNamespace(import_module=broken))
    with pytest.raises(DataError, match=r"spandrel cannot be imported .*torchvision.* belongs to torch"):
        load_upscaler(unknown)


def test_what_spandrel_cannot_open(monkeypatch: pytest.MonkeyPatch, unknown: Path):
    spandrel_that(monkeypatch, lambda tensors: Description(1), torch.load)
    with pytest.raises(DataError, match="Meddling, which does not enlarge RGB pictures"):
        load_upscaler(unknown)

    def refuse(tensors: Any) -> None:
        raise RuntimeError("Missing key(s)\nand a long list")

    spandrel_that(monkeypatch, refuse, torch.load)
    with pytest.raises(DataError, match=r"no upscaler that lrbench or spandrel knows \(Missing key\(s\)\)"):
        load_upscaler(unknown)


@pytest.mark.parametrize("name", ["rrdb6", "srvgg_tiny", "rcan"])
def test_networks_are_those_of_spandrel(name: str):
    spandrel = pytest.importorskip("spandrel", exc_type=ImportError)
    network, x = filled(UPSCALERS[name].build), picture(8, 6)
    theirs = spelled(network.state_dict(), *(RCAN if name == "rcan" else ()))
    if name == "rcan":
        theirs |= mean_layers()
    with torch.no_grad():
        made = spandrel.ModelLoader().load_from_state_dict(theirs).model(x.clone())
        torch.testing.assert_close(network(x), made, atol=1e-5, rtol=1e-4)
