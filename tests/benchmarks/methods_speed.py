"""Images per second of every method on this processor, side by side: forward, flip test, decoding; no data loading.

``python tests/benchmarks/methods_speed.py [--res 64x48] [--backbone hrnet_w16] [--out FILE]``. Every method runs on its
own stand-in for processors and on the given backbones. Rounds of all methods alternate, and the median round counts, so
that a busy minute does not fall on one method alone; read the ratios.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch

from lrbench.geometry import Size
from lrbench.inference import flip_test
from lrbench.method import costs, default_backbone, list_methods, load_method


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--res", action="append", default=[])
    parser.add_argument("--backbone", action="append", default=[])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    rows = []
    for res in options.res or ["64x48", "128x96"]:
        size = Size.parse(res)
        pixels = torch.rand(options.batch, 3, size.height, size.width)
        built = {}
        for listed in list_methods():
            own = default_backbone(listed.name, narrow=True)
            for backbone in dict.fromkeys([own, *(options.backbone if own else [])]):
                method = load_method(listed.name, size, backbone or None)
                built[listed.name, backbone] = (method, method.build_model().eval())
        seconds: dict[tuple[str, str], list[float]] = {key: [] for key in built}
        with torch.inference_mode():
            for _ in range(options.rounds + 1):
                for key, (method, model) in built.items():
                    begin = time.perf_counter()
                    method.codec.decode(flip_test(model, method.codec, pixels))
                    seconds[key].append(time.perf_counter() - begin)
        for (name, backbone), (method, _) in built.items():
            speed = options.batch / statistics.median(seconds[name, backbone][1:])  # the first round warms up
            params, macs = costs(method)
            rows.append({"method": name, "backbone": backbone, "res": res, "params": params, "macs": macs,
                         "images_per_second": round(speed, 1)})  # fmt: skip
            print(f"{res:>8} {name:16} {backbone:13} {macs / 1e9:7.3f} GMACs {speed:8.1f} images/s")
    if options.out is not None:
        facts = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads(),
                 "torch": torch.__version__, "batch": options.batch, "flip": True, "precision": "float32",
                 "rows": rows}  # fmt: skip
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
