"""By hand: what an upscaler costs in front of a pose network beside the upscaler itself.

``python tests/benchmarks/upscaler_speed.py [--upscaler srvgg_tiny ...] [--batch 32] [--res 64x48] [--rounds 9]``. On
this processor, in float32, two forwards alternate: the upscaler alone, and the front of a pose network
(`lrbench.upscaling.Front`: upscaler, clamp, 8-bit rounding), which is all that a network with an upscaler does before
it reads its pixels. Medians over the rounds count; ratios are taken within a round, so that a busy minute does not fall
on one side. The aim is 1.10 at most.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from lrbench.geometry import Size
from lrbench.models.upscalers import UPSCALERS
from lrbench.upscaling import Front


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upscaler", action="append", default=[])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--res", default="64x48")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/upscaler_speed.json"))
    options = parser.parse_args()
    size = Size.parse(options.res)
    pixels = torch.rand(options.batch, 3, size.height, size.width, generator=torch.Generator().manual_seed(0))
    rows = []
    for name in options.upscaler or ["srvgg_tiny", "srvgg", "edsr"]:
        seconds = measure(name, pixels, options.rounds)
        ratio = spread([front / bare for bare, front in zip(seconds["bare"], seconds["front"], strict=True)], 4)
        milliseconds = {side: spread([1000 * s for s in values], 2) for side, values in seconds.items()}
        speed = round(options.batch / statistics.median(seconds["front"]), 1)
        rows.append({"upscaler": name, "milliseconds": milliseconds, "ratio": ratio, "crops_per_second": speed})
        print(
            f"{name:12} bare {milliseconds['bare']['median']:8.1f} ms, "
            f"front {milliseconds['front']['median']:8.1f} ms, "
            f"ratio {ratio['median']:.3f} ({ratio['min']:.3f} to {ratio['max']:.3f})"
        )
    facts = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads(),
             "torch": torch.__version__, "batch": options.batch, "res": str(size), "scale": 4, "boundary": "u8",
             "precision": "float32", "rounds": options.rounds, "rows": rows}  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(facts, indent=1) + "\n")


def measure(name: str, pixels: Tensor, rounds: int) -> dict[str, list[float]]:
    """Wall seconds per round of each side."""
    torch.manual_seed(0)
    upscaler = UPSCALERS[name].build(4).eval()
    sides: dict[str, Callable[[Tensor], Tensor]] = {"bare": upscaler, "front": Front(upscaler, "u8")}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for side, forward in sides.items():
                begin = time.perf_counter()
                forward(pixels)
                seconds[side].append(time.perf_counter() - begin)
    return {side: values[1:] for side, values in seconds.items()}  # the first round warms up


def spread(values: list[float], digits: int) -> dict[str, float]:
    """Median and range."""
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }


if __name__ == "__main__":
    main()
