"""The discriminator against a flat list of operations, its norms and its randomness; relativistic losses by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lrbench.models.network import count_parameters
from lrbench.models.upscalers.adversarial import UNetDiscriminator, discriminator_loss, generator_loss
from lrbench.models.upscalers.gradients import gradient_map

NORMED = range(1, 9)


def discriminator(seed: int = 0, width: int = 4) -> UNetDiscriminator:
    network = UNetDiscriminator(width=width)
    network.initialise(torch.Generator().manual_seed(seed))
    return network


def picture(height: int, width: int, batch: int = 2, seed: int = 1) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def original(network: UNetDiscriminator, number: int) -> Tensor:
    return network.state_dict()[f"conv{number}.parametrizations.weight.original"]


# ---------------------------------------------------------------- the network


def test_published_count():
    with torch.device("meta"):
        network = UNetDiscriminator()
    assert count_parameters(network) == 4_376_897
    assert network(torch.zeros(1, 3, 256, 192, device="meta")).shape == (1, 1, 256, 192)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (64, 48), (66, 50), (13, 9)])
def test_one_logit_per_pixel(height: int, width: int):
    made = discriminator()(picture(height, width))
    assert made.shape == (2, 1, height, width) and torch.isfinite(made).all()


def by_hand(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    def conv(number: int, y: Tensor, stride: int = 1) -> Tensor:
        name = f"conv{number}"
        if f"{name}.weight" in state:
            return F.conv2d(y, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)
        norm = f"{name}.parametrizations.weight"
        weight, u, v = state[f"{norm}.original"], state[f"{norm}.0._u"], state[f"{norm}.0._v"]
        return F.conv2d(y, weight / (u @ weight.flatten(1) @ v), stride=stride, padding=1)

    def lrelu(y: Tensor) -> Tensor:
        return torch.where(y > 0, y, 0.2 * y)

    def up(y: Tensor) -> Tensor:
        return F.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=False)

    x0 = lrelu(conv(0, x))
    x1 = lrelu(conv(1, x0, 2))
    x2 = lrelu(conv(2, x1, 2))
    x3 = lrelu(conv(3, x2, 2))
    y = lrelu(conv(4, up(x3))) + x2
    y = lrelu(conv(5, up(y))) + x1
    y = lrelu(conv(6, up(y))) + x0
    return conv(9, lrelu(conv(8, lrelu(conv(7, y)))))


def test_it_is_its_description():
    network, x = discriminator().eval(), picture(24, 16)
    torch.testing.assert_close(network(x), by_hand(network.state_dict(), x))


def test_spectral_norms_are_one():
    network = discriminator(width=16).train()
    layers = [network.get_submodule(f"conv{number}") for number in NORMED]
    norms = [torch.linalg.matrix_norm(original(network, n).flatten(1), 2) for n in NORMED]
    assert min(abs(float(norm) - 1) for norm in norms) > 0.05  # or there would be nothing to norm
    # fifteen iterations bring it near, and each pass in training mode nearer
    for passes, near in ((0, 0.1), (100, 1e-2)):
        with torch.no_grad():
            for _ in range(passes):
                network(picture(8, 8))
            for layer in layers:
                assert float(torch.linalg.matrix_norm(layer.weight.flatten(1), 2)) == pytest.approx(1, abs=near)
    for number in (0, 9):
        assert not hasattr(network.get_submodule(f"conv{number}"), "parametrizations")


def test_initialisation_is_the_generators():
    torch.manual_seed(0)
    first = discriminator(seed=0)
    torch.manual_seed(1)
    again, other = discriminator(seed=0), discriminator(seed=1)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
        assert not torch.equal(tensor, other.state_dict()[name]), name
    # within 1 / sqrt(fan in), as torch fills convolutions
    for number, fan in ((1, 4 * 16), (4, 32 * 9)):
        weight = original(first, number)
        assert 0.9 * fan**-0.5 < float(weight.abs().max()) <= fan**-0.5
    assert first.training and not discriminator().eval().training
    frozen = discriminator().eval()
    frozen.initialise(torch.Generator().manual_seed(0))
    assert not frozen.training


def test_initialisation_leaves_the_global_state_alone():
    network = UNetDiscriminator(width=4)
    before = torch.get_rng_state()
    network.initialise(torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())


def steps(network: UNetDiscriminator, count: int) -> None:
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for number in range(count):
        optimizer.zero_grad()
        discriminator_loss(network(picture(16, 16)), network(picture(16, 16, seed=5 + number) / 2)).backward()
        optimizer.step()


def test_a_training_is_resumed_from_its_state_dict():
    whole, first = discriminator(), discriminator()
    steps(whole, 2)
    steps(first, 1)
    resumed = discriminator(seed=9)
    resumed.load_state_dict(first.state_dict())
    optimizer = torch.optim.SGD(resumed.parameters(), 0.1)
    discriminator_loss(resumed(picture(16, 16)), resumed(picture(16, 16, seed=6) / 2)).backward()
    optimizer.step()
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_eval_mode_changes_nothing():
    network = discriminator().eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert torch.equal(network(picture(16, 16)), network(picture(16, 16)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_it_learns_to_tell_sharp_from_blurred():
    network = discriminator(width=8)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for number in range(30):
        sharp = picture(16, 16, batch=4, seed=number)
        blurred = F.avg_pool2d(sharp, 3, 1, 1)
        optimizer.zero_grad()
        loss = discriminator_loss(network(gradient_map(sharp, 2)), network(gradient_map(blurred, 2)))
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * math.log(2)


# ---------------------------------------------------------------- losses


def slow_loss(real: list[float], fake: list[float]) -> float:
    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    mean_real, mean_fake = sum(real) / len(real), sum(fake) / len(fake)
    first = -sum(math.log(sigmoid(x - mean_fake)) for x in real) / len(real)
    second = -sum(math.log(1 - sigmoid(x - mean_real)) for x in fake) / len(fake)
    return (first + second) / 2


def test_losses_are_their_formulas():
    real, fake = [0.3, -1.2, 2.0], [0.1, 0.4, -3.0, 1.5]  # means are over each kind, so counts may differ
    assert float(discriminator_loss(torch.tensor(real), torch.tensor(fake))) == pytest.approx(slow_loss(real, fake))
    # labels exchanged: 0 for real - mean fake, 1 for fake - mean real
    assert float(generator_loss(torch.tensor(real), torch.tensor(fake))) == pytest.approx(slow_loss(fake, real))


def test_losses_at_known_places():
    same = torch.full((2, 1, 4, 4), 1.7)
    assert float(discriminator_loss(same, same)) == pytest.approx(math.log(2))
    assert float(generator_loss(same, same)) == pytest.approx(math.log(2))
    # only differences count
    real, fake = same + 3, same
    shifted = discriminator_loss(real + 10, fake + 10)
    torch.testing.assert_close(shifted, discriminator_loss(real, fake))
    assert float(shifted) == pytest.approx(math.log1p(math.exp(-3)))
    assert float(generator_loss(real, fake)) == pytest.approx(math.log1p(math.exp(3)))
    # certain and right, or wrong: finite
    assert float(discriminator_loss(same + 500, same)) == 0
    assert float(generator_loss(same + 500, same)) == pytest.approx(500)


def test_losses_pull_in_opposite_directions():
    real, fake = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    down, up = (torch.autograd.grad(loss(real, fake), fake)[0] for loss in (discriminator_loss, generator_loss))
    assert (down > 0).all() and (up < 0).all()
    torch.testing.assert_close(down, -up)
