"""By hand: persons per second and core of the loader beside a textbook pipeline, on the training split of a dataset.

``python tests/benchmarks/loader_speed.py --data FOLDER [--res 64x48] [--textbook 300] [--rounds 5] [--keep]``. The
textbook side does for every person what the released top-down loaders do (protocol.md: 2 to 4): read the JPEG, turn it
to RGB, augment, mirror the picture, warp it, map the joints one by one, make the targets joint by joint, normalise. It
is checked against ours, person by person, with the same draws. Ours is an epoch of `lrbench.loading.Crops` in one
thread, with targets encoded and pixels normalised, too. Both are timed by the processor time of one thread, which other
programs on the machine disturb least.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import cv2
import measure
import numpy as np
import torch

from lrbench.augmentation import Augmentation, Draws
from lrbench.datasets import open_dataset
from lrbench.datasets.decoded import DecodedPictures
from lrbench.datasets.images import ImageStore
from lrbench.degradation import PRESETS
from lrbench.geometry import Size
from lrbench.inference import silent
from lrbench.loading import Crops, shuffled
from lrbench.method import load_method
from lrbench.models.network import MEAN, STD
from lrbench.structures import COCO
from lrbench.training import as_floats

EXPECTED = (
    "decoding is 1.0 of about 2.7 ms a person and joint-by-joint work most of the rest; without both a person costs "
    "its warp (0.06 ms), its generator (0.01 ms) and some Python: 20 to 30x"
)
BATCH = 64
AUGMENTATION = Augmentation()


def main() -> None:
    parser = measure.parser(__doc__, rounds=5)
    parser.add_argument("--data", default="synth")
    parser.add_argument("--res", default="64x48")
    parser.add_argument("--textbook", type=int, default=300, help="persons a round on that side")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    size = Size.parse(options.res)
    method = load_method("hrnet", size, "hrnet_w16")
    dataset = open_dataset(options.data, "train")
    memory = Crops(ImageStore(dataset.images, 1 << 40), dataset.persons, method.frame, PRESETS["paper"])
    cold = dataclasses.replace(memory, store=ImageStore(dataset.images, 0))
    disk = dataclasses.replace(memory, store=ImageStore(dataset.images, 0))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LRBENCH_CACHE"] = folder
        decoded = DecodedPictures(dataset.images, np.unique(dataset.persons.image), 1 << 40)
        decoded.open(1, silent)
        disk.store.decoded = decoded
        largest = check(memory, method, 64)
        sides: dict[str, Callable[[int], int]] = {
            "textbook": lambda r: textbook_epoch(memory, method, r, options.textbook),
            "ours, pictures in memory": lambda r: our_epoch(memory, method, r),
            "ours, pictures on disk": lambda r: our_epoch(disk, method, r),
            "ours, every picture decoded": lambda r: our_epoch(cold, method, r, options.textbook // BATCH + 1),
        }
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(options.rounds + 1):
            for name, work in sides.items():
                begin = time.process_time()
                persons = work(number)
                if number:
                    rates[name].append(persons / (time.process_time() - begin))
    base = rates["textbook"]
    medians = {f"{name}, persons/s": round(statistics.median(values), 1) for name, values in rates.items()}
    lines = [
        measure.Line(
            what=f"loader alone, {size}, one core, {name.removeprefix('ours, ')}, against a textbook pipeline",
            bar=">= 15" if name != "ours, every picture decoded" else "",
            rounds=measure.ratios(rates[name], base),
            sides={key: value for key, value in medians.items() if key.startswith((name, "textbook"))},
            expected=EXPECTED if "memory" in name else "",
            came=f"{dataset.name}/train, {len(dataset.persons)} persons of {len(dataset.images.id)} pictures",
        )
        for name in sides
        if name != "textbook"
    ]
    growth = people(memory, method)
    measure.keep(
        f"loader_speed_{size}",
        lines,
        write=options.keep,
        further={"check": largest, "persons": growth},
    )


def our_epoch(crops: Crops, method: Any, epoch: int, batches: int | None = None) -> int:
    """An epoch of ours, or some batches of one; returns the persons."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    persons = 0
    for number, batch in enumerate(crops.epoch(BATCH, 0, AUGMENTATION, 0, epoch)):
        if number == batches:
            break
        method.codec.encode(batch.keypoints, batch.visible)
        _ = (as_floats(batch.pixels) - mean) / std
        persons += len(batch.pixels)
    return persons


def textbook_epoch(crops: Crops, method: Any, epoch: int, persons: int) -> int:
    """As many persons of a shuffled epoch, one by one, gathered in batches."""
    rows, seeds = next(shuffled(len(crops.persons), persons, 0, epoch))
    kept = []
    for row, seed in zip(rows, seeds, strict=True):
        kept.append(textbook(crops, method, row, AUGMENTATION.draw(np.random.default_rng(seed))))
        if len(kept) == BATCH:
            _ = [torch.stack(field) for field in zip(*kept, strict=True)]
            kept = []
    return len(rows)


def textbook(crops: Crops, method: Any, row: int, draws: Draws) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One training sample: normalised pixels (3, h, w), heatmaps (K, H, W), weights (K,)."""
    persons, size, grid = crops.persons, crops.frame.size, method.codec.grid
    path = str(crops.store.images.path[int(persons.image[row])])
    picture = cv2.cvtColor(cv2.imread(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION), cv2.COLOR_BGR2RGB)
    joints, visible = persons.keypoints[row].copy(), persons.visible[row] > 0
    x, y, w, h = persons.box[row]
    center, side = box_to_center(x, y, w - 1, h - 1, size, 1.25)
    if visible.sum() > 8 and draws.u_halfbody < 0.3:
        center, side = half_body(joints, visible, draws, size) or (center, side)
    side = side * np.clip(1 + 0.35 * draws.n_scale, 0.65, 1.35)
    rotation = np.clip(45 * draws.n_rotate, -90, 90) if draws.u_rotate <= 0.6 else 0
    if draws.u_flip <= 0.5:
        picture = picture[:, ::-1, :]
        joints[:, 0] = picture.shape[1] - joints[:, 0] - 1
        for left, right in COCO.pairs:
            joints[[left, right]], visible[[left, right]] = joints[[right, left]], visible[[right, left]]
        center[0] = picture.shape[1] - center[0] - 1
    matrix = three_points(center, side, rotation, size)
    pixels = cv2.warpAffine(picture, matrix, (size.width, size.height), flags=cv2.INTER_LINEAR)
    for k in range(len(joints)):
        if visible[k]:
            joints[k] = matrix @ np.array([joints[k][0], joints[k][1], 1.0])
    maps, weight = targets(joints, visible, grid.size, grid.stride, method.codec.sigma)
    tensor = torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float().div(255)
    for channel, mean, std in zip(tensor, MEAN, STD, strict=True):
        channel.sub_(mean).div_(std)
    return tensor, torch.from_numpy(maps), torch.from_numpy(weight)


def box_to_center(x: float, y: float, w: float, h: float, size: Size, padding: float) -> tuple[np.ndarray, np.ndarray]:
    aspect = size.width / size.height
    center = np.array([x + w * 0.5, y + h * 0.5])
    if w > aspect * h:
        h = w / aspect
    elif w < aspect * h:
        w = h * aspect
    return center, np.array([w, h]) * padding


def half_body(joints: Any, visible: Any, draws: Draws, size: Size) -> tuple[np.ndarray, np.ndarray] | None:
    upper, lower = [], []
    for k in range(len(joints)):
        if visible[k]:
            (upper if k in COCO.upper_body else lower).append(joints[k])
    chosen = upper if (draws.n_halfbody < 0.5 and len(upper) > 2) or len(lower) <= 2 else lower
    if len(chosen) < 2:
        return None
    points = np.array(chosen)
    low, high = points.min(0), points.max(0)
    _, side = box_to_center(*low, *(high - low), size, 1.5)
    return points.mean(0), side


def three_points(center: np.ndarray, side: np.ndarray, rotation: float, size: Size) -> np.ndarray:
    """The affine map of the released code, from three pairs of points."""
    angle = np.pi * rotation / 180
    up = np.array([0, side[0] * -0.5])
    up = np.array([up[0] * np.cos(angle) - up[1] * np.sin(angle), up[0] * np.sin(angle) + up[1] * np.cos(angle)])
    source, target = np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32)
    source[0], source[1] = center, center + up
    target[0] = [size.width * 0.5, size.height * 0.5]
    target[1] = target[0] + np.array([0, size.width * -0.5])
    for points in (source, target):
        away = points[0] - points[1]
        points[2] = points[1] + np.array([-away[1], away[0]], np.float32)
    return cv2.getAffineTransform(source, target)


def targets(joints: Any, visible: Any, cells: Size, stride: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """HRNet's Gaussians, joint by joint."""
    maps = np.zeros((len(joints), cells.height, cells.width), np.float32)
    weight = visible.astype(np.float32)
    reach = sigma * 3
    for k in range(len(joints)):
        x, y = int(joints[k][0] / stride + 0.5), int(joints[k][1] / stride + 0.5)
        left, top, right, bottom = int(x - reach), int(y - reach), int(x + reach + 1), int(y + reach + 1)
        if left >= cells.width or top >= cells.height or right < 0 or bottom < 0:
            weight[k] = 0
            continue
        span = np.arange(0, 2 * reach + 1, 1, np.float32)
        middle = span.size // 2
        bump = np.exp(-((span - middle) ** 2 + (span[:, None] - middle) ** 2) / (2 * sigma**2))
        from_x, to_x = max(0, -left), min(right, cells.width) - left
        from_y, to_y = max(0, -top), min(bottom, cells.height) - top
        if weight[k] > 0.5:
            maps[k][max(0, top) : min(bottom, cells.height), max(0, left) : min(right, cells.width)] = bump[
                from_y:to_y, from_x:to_x
            ]
    return maps, weight


def check(crops: Crops, method: Any, persons: int) -> dict[str, float]:
    """Largest differences between both sides, of crops (levels of 255), maps and weights."""
    rows, seeds = next(shuffled(len(crops.persons), persons, 0, 0))
    batch = crops.batch(rows, AUGMENTATION, seeds)
    maps, weight = method.codec.encode(batch.keypoints, batch.visible)
    off = {"pixels": 0.0, "maps": 0.0, "weights": 0.0}
    std, mean = torch.tensor(STD).view(3, 1, 1), torch.tensor(MEAN).view(3, 1, 1)
    for i, (row, seed) in enumerate(zip(rows, seeds, strict=True)):
        theirs = textbook(crops, method, row, AUGMENTATION.draw(np.random.default_rng(seed)))
        levels = (255 * (theirs[0] * std + mean)).round()
        # the share of pixels that differ by more than a mirrored picture's rounding, see golden geometry
        off["pixels"] = max(off["pixels"], float((levels - batch.pixels[i]).abs().gt(8).float().mean()))
        off["maps"] = max(off["maps"], float((theirs[1] - maps.heatmap[i]).abs().max()))
        off["weights"] = max(off["weights"], float((theirs[2] - weight[i]).abs().max()))
    assert off["pixels"] < 0.01, off
    assert off["maps"] < 1e-5, off
    assert off["weights"] == 0, off
    return off


def people(crops: Crops, method: Any) -> list[dict[str, float]]:
    """How an epoch begins and goes on with the number of persons: the same ones, repeated."""
    rows = []
    for wanted in (1_000, 10_000, 50_000, 150_000):
        repeated = np.resize(np.arange(len(crops.persons)), wanted)
        names = ("id", "image", "box", "score", "keypoints", "visible")
        persons = dataclasses.replace(crops.persons, **{name: getattr(crops.persons, name)[repeated] for name in names})
        many = dataclasses.replace(crops, persons=persons)
        begin = time.process_time()
        next(many.epoch(BATCH, 0, AUGMENTATION, 0, 0))
        first = time.process_time() - begin
        begin = time.process_time()
        done = our_epoch(many, method, 1, 40)
        rate = done / (time.process_time() - begin)
        rows.append({"persons": wanted, "first_batch_s": round(first, 4), "persons_per_second": round(rate, 1)})
        print(rows[-1])
    return rows


if __name__ == "__main__":
    main()
