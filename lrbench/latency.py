"""How long one person takes: upscaler, network and decoding of a single crop."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from lrbench.inference import flip_test
from lrbench.method import Method
from lrbench.models.network import PoseNetwork

WARM_UP = 2
"""Passes before the first that counts: they choose kernels and ask for memory."""


@torch.inference_mode()
def latency_ms(
    method: Method[Any],
    model: PoseNetwork[Any],
    *,
    flip: bool,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    rounds: tuple[int, int] = (5, 200),
    seconds: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Median time of one crop, in float32, from pixels on the device to keypoints on the device.

    The passes are those of `lrbench.inference.predict`: what stands in front of the network runs once, and a flip test
    is one batched pass of two. Noise stands for the crop: no network here takes longer for some pictures than for
    others.

    Args:
        method: whose codec reads the prediction.
        model: with or without weights.
        flip: average with the mirrored crop.
        generator: of the crop's pixels, on the CPU.
        device: where the model runs.
        rounds: fewest and most passes that are timed.
        seconds: no further pass starts once the timed ones took as long, beyond the fewest.
        clock: seconds from any start.

    Returns:
        Milliseconds.
    """
    device = torch.device(device)
    model = model.to(device).eval()
    size = method.frame.size
    pixels = torch.rand(1, 3, size.height, size.width, generator=generator).to(device)

    def now() -> float:
        if device.type == "cuda":  # whose work is only queued
            torch.cuda.synchronize(device)
        return clock()

    def one_pass() -> float:
        begin = now()
        prediction = flip_test(model, method.codec, pixels, method.skeleton) if flip else model(pixels)
        method.codec.decode(prediction)
        return now() - begin

    for _ in range(WARM_UP):
        one_pass()
    fewest, most = rounds
    times: list[float] = []
    while len(times) < fewest or (len(times) < most and sum(times) < seconds):
        times.append(one_pass())
    return 1000 * statistics.median(times)
