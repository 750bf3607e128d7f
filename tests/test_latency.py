"""What is timed and how often; the clock is a list, never the wall's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from lrbench.geometry import Size
from lrbench.latency import WARM_UP, latency_ms
from lrbench.method import Method, load_method
from lrbench.models.network import PoseNetwork

SIZE = Size(64, 48)


class Clock:
    """Passes take the given seconds, warm-up first, the last of them for ever."""

    def __init__(self, *passes: float) -> None:
        self.passes = passes
        self.reads = 0
        self.ticks = self._ticks()

    def _ticks(self) -> Iterator[float]:
        time, number = 100.0, 0
        while True:
            yield time
            time += self.passes[min(number, len(self.passes) - 1)]
            yield time
            time, number = time + 1000.0, number + 1  # what lies between two passes is not counted

    def __call__(self) -> float:
        self.reads += 1
        return next(self.ticks)

    @property
    def timed(self) -> int:
        return self.reads // 2 - WARM_UP


class Seen:
    """Shapes that the parts were called with."""

    def __init__(self, name: str = "hrnet", front: bool = False) -> None:
        self.method: Method[Any] = load_method(name, SIZE, "hrnet_w16" if name != "meanpose" else None)
        self.model: PoseNetwork[Any] = self.method.build_model()
        self.front: list[tuple[int, ...]] = []
        self.network: list[tuple[int, ...]] = []
        self.pixels: list[torch.Tensor] = []
        self.model.network.register_forward_pre_hook(self._network)
        if front:
            self.model.front = nn.Identity()
            self.model.front.register_forward_pre_hook(lambda _, given: self.front.append(tuple(given[0].shape)))

    def _network(self, network: nn.Module, given: tuple[torch.Tensor]) -> None:
        self.network.append(tuple(given[0].shape))
        self.pixels.append(given[0])
        assert not network.training
        assert not torch.is_grad_enabled()

    def latency(self, clock: Clock, *, flip: bool = False, **options: Any) -> float:
        generator = torch.Generator().manual_seed(options.pop("seed", 0))
        return latency_ms(self.method, self.model, flip=flip, generator=generator, clock=clock, **options)


@pytest.mark.parametrize("name", ["hrnet", "meanpose"])
@pytest.mark.parametrize("flip", [False, True])
def test_one_person_in_one_pass(name: str, flip: bool):
    seen, clock = Seen(name, front=True), Clock(0.3)
    seen.latency(clock, flip=flip)
    passes = clock.timed + WARM_UP
    assert seen.network == [(2 if flip else 1, 3, 64, 48)] * passes
    assert seen.front == [(1, 3, 64, 48)] * passes  # once, also where the network sees a mirrored picture


def test_float32_noise_from_the_generator():
    first, same, other = Seen("meanpose"), Seen("meanpose"), Seen("meanpose")
    first.latency(Clock(1.0))
    same.latency(Clock(1.0))
    other.latency(Clock(1.0), seed=1)
    assert first.pixels[0].dtype == torch.float32
    torch.testing.assert_close(first.pixels[0], same.pixels[0], rtol=0, atol=0)
    torch.testing.assert_close(first.pixels[0], first.pixels[-1], rtol=0, atol=0)
    assert not torch.equal(first.pixels[0], other.pixels[0])


def test_the_median_in_ms_without_the_warm_up():
    warm = [50.0] * WARM_UP
    assert Seen("meanpose").latency(Clock(*warm, 2.0, 9.0, 1.0, 3.0, 90.0)) == pytest.approx(3000)
    timed = Clock(*warm, 0.25, 0.5, 0.125, 0.0625, 0.03125, 0.03125)  # six passes of one second
    assert Seen("meanpose").latency(timed) == pytest.approx(1000 * (0.0625 + 0.125) / 2)
    assert timed.timed == 6


@pytest.mark.parametrize(
    ("seconds", "passes"), [(10.0, 5), (0.25, 5), (0.125, 8), (1 / 64, 64), (1e-6, 200), (0.0, 200)]
)
def test_about_a_second_of_passes(seconds: float, passes: int):
    clock = Clock(seconds)
    Seen("meanpose").latency(clock)
    assert clock.timed == passes


def test_other_bounds():
    clock = Clock(0.125)
    Seen("meanpose").latency(clock, rounds=(1, 3), seconds=0.25)
    assert clock.timed == 2
    clock = Clock(0.125)
    Seen("meanpose").latency(clock, rounds=(1, 3))
    assert clock.timed == 3


def test_decoding_is_part_of_it(monkeypatch: pytest.MonkeyPatch):
    seen, clock, decoded = Seen("hrnet"), Clock(0.3), []
    codec = type(seen.method.codec)
    real = codec.decode

    def decode(self: Any, prediction: Any) -> Any:
        decoded.append(clock.reads)
        return real(self, prediction)

    monkeypatch.setattr(codec, "decode", decode)
    seen.latency(clock)
    assert decoded == list(range(1, clock.reads, 2))  # each between two readings of the clock


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_clock_waits_for_the_device(monkeypatch: pytest.MonkeyPatch):
    seen, clock, waited = Seen("hrnet"), Clock(0.3), []
    real = torch.cuda.synchronize
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: (waited.append(clock.reads), real(device)))
    seen.latency(clock, device="cuda")
    assert waited == list(range(clock.reads))  # once before each reading
    assert seen.pixels[0].is_cuda
