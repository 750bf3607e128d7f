"""By hand: ``python tests/benchmarks/synth_speed.py [images]`` prints the cost per image and what it buys.

The whole default data set must stay under 90 s on two cores, i.e. about 170 CPU seconds with the start of the workers.
"""

from __future__ import annotations

import sys
import time

import cv2
import numpy as np

from lrbench.datasets.synth import SynthSpec
from lrbench.datasets.synth.build import image_generator
from lrbench.datasets.synth.scene import render_scene


def main(count: int) -> None:
    """Render `count` train images and print CPU time, persons and quantiles of their heights."""
    cv2.setNumThreads(1)
    spec = SynthSpec()
    render_scene(image_generator(spec, "warm-up", 0), spec.width, spec.height)
    start = time.process_time()
    annotations = []
    for index in range(count):
        image, found = render_scene(image_generator(spec, "train", index), spec.width, spec.height)
        cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, spec.jpeg_quality])
        annotations += found
    seconds = time.process_time() - start
    heights = [a["bbox"][3] for a in annotations if a["num_keypoints"]]
    total = spec.train_images + spec.val_images
    print(f"{1000 * seconds / count:.1f} ms per image, {seconds / count * total:.0f} CPU s for all {total} images")
    print(f"{len(heights) / count:.2f} labelled persons and {len(annotations) / count:.2f} annotations per image")
    print("box heights at 5/25/50/75/95 %:", np.quantile(heights, [0.05, 0.25, 0.5, 0.75, 0.95]).round(), "px")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
