"""By hand: encode and decode of DARK, UDP and CAL beside loops over joints in numpy and OpenCV.

``python tests/benchmarks/codecs_speed.py [--rounds 9] [--keep]``. Both sides get the same keypoints or maps in one
process, in turns, and have to give the same numbers first: targets within 1e-5, positions within 1e-3 px. Targets are
float32, as in training; maps are targets of different heights with noise. The loops are those of the released codes as
their descriptions have them: a Gaussian, a disc, a blur or a Newton step (with `numpy.matrix`) per joint. The bars are
for 128 crops of 64x48 and for loops that do everything per joint; the released decoders find all peaks in one call of
numpy, which is stated beside them ("peaks in one call"). UDP has the released radius and blurs there (4 cells, 15 and
7), and ours for this size (1.5 cells, a blur of 5) beside it. Python's lock keeps the loops on one core in any case.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from measure import Line, in_turns, keep, parser, ratios

from lrbench.codecs.heatmap import Heatmap, Heatmaps
from lrbench.codecs.offset import HeatmapOffset, OffsetMaps
from lrbench.geometry import Size
from lrbench.method import load_method
from lrbench.structures import COCO

Array = np.ndarray[Any, np.dtype[Any]]
BATCH, SIZE = 128, Size(64, 48)
RELEASED_UDP = {"radius": 4.0, "blur_heatmap": 15, "blur_offset": 7}
EXPECTED = {
    "encode": "UDP and CAL a tenth of before: factors along the axes, whose product alone touches whole maps",
    "decode": "a tenth of before: logarithms at the peak's neighbours alone, one search for it, two products per blur",
}
CAME = {
    "encode DARK": "0.75 ms before; what is left is one product of two factors, and 30 calls on small tensors.",
    "encode UDP": "9.9 ms before; four passes over whole maps are left.",
    "encode CAL": "8.7 ms before; most of the exponentials underflowed, which is slow, and are no longer computed.",
    "decode DARK": "22 ms before; two thirds of what is left is the blur in float64.",
    "decode UDP": (
        "10 ms before with our blurs. Not more, because the peak is that of the blurred map: in float64, as records "
        "need it, two products over 2,176 maps take about 1 ms, and OpenCV's blur of so small a map only 2 us."
    ),
    "decode CAL": "6.5 ms before; half of what is left is the search for the peak, in SIMD by numpy.",
}


def main() -> None:
    options = parser(__doc__, rounds=9).parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    # after a network has run, the C allocator keeps memory of this size for the next tensor
    torch.empty(31 * 2**20, dtype=torch.uint8)
    lines = []
    for threads in (1, 2):
        for case in cases(SIZE, BATCH):
            case.check()
            torch.set_num_threads(threads)
            lines.append(case.line(options.rounds, threads))
            torch.set_num_threads(1)
    rows = []
    for size, batch in [(SIZE, 8), (SIZE, 1024), (Size(128, 96), BATCH), (Size(256, 192), BATCH)]:
        for case in cases(size, batch):
            case.check()
            taken = {side: statistics.median(values) for side, values in case.seconds(2).items()}
            ratio = taken["loops"] / taken["ours"]
            rows.append({"what": case.name, "size": str(size), "batch": batch, "ratio": round(ratio, 1),
                         "ms": {side: round(1e3 * value, 3) for side, value in taken.items()}})  # fmt: skip
            print(f"{case.name}, {batch} crops {size}: {ratio:.1f}x, ours {1e3 * taken['ours']:.3g} ms")
    keep("codecs_speed", lines, write=options.keep, further={"one core, other sizes and batches": rows})


@dataclass(frozen=True, kw_only=True)
class Case:
    """One conversion, both ways.

    Attributes:
        name: for the table.
        bar: whether the issue's bar is on it.
        loops, ours: do it, and return the same arrays.
        tolerance: largest difference of their numbers.
        crops: how many, and of what size, in words.
    """

    name: str
    bar: bool
    loops: Callable[[], Sequence[Array]]
    ours: Callable[[], Sequence[torch.Tensor]]
    tolerance: float
    crops: str

    def check(self) -> None:
        """Stop where the sides differ."""
        for theirs, mine in zip(self.loops(), self.ours(), strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs, atol=self.tolerance, rtol=0, err_msg=self.name)

    def seconds(self, rounds: int) -> dict[str, list[float]]:
        """Per call and round; ours is the mean of ten calls."""
        taken = in_turns({"loops": self.loops, "ours": partial(ten_times, self.ours)}, rounds)
        return {"loops": taken["loops"], "ours": [value / 10 for value in taken["ours"]]}

    def line(self, rounds: int, threads: int) -> Line:
        """The row of the table."""
        taken = self.seconds(rounds)
        return Line(
            what=f"{self.name}, {self.crops}, {threads} core{'s' * (threads > 1)}",
            bar=">= 50" if self.bar else "",
            rounds=ratios(taken["loops"], taken["ours"]),
            sides={f"{side}, ms": round(1e3 * statistics.median(values), 3) for side, values in taken.items()},
            expected=EXPECTED[self.name.split()[0]],
            came=CAME[self.name.split(",")[0]],
        )


def ten_times(work: Callable[[], Any]) -> None:
    with torch.inference_mode():
        for _ in range(10):
            work()


def cases(size: Size, batch: int) -> Iterator[Case]:
    """All conversions of a batch of made poses."""
    generator = torch.Generator().manual_seed(0)
    sides = torch.tensor([size.width, size.height])
    joints = (0.5 + 0.2 * torch.randn(batch, len(COCO), 2, generator=generator)) * sides
    visible = (torch.rand(batch, len(COCO), generator=generator) < 0.8).float()
    crops = f"{batch} crops {size}"
    for name, settings in [("DARK", {}), ("UDP", RELEASED_UDP), ("UDP, our blurs", {}), ("CAL", {})]:
        codec: Any = load_method(name.split(",")[0].lower(), size, **settings).codec
        ideal, _ = codec.encode(joints, visible)
        height = torch.rand(batch, len(COCO), 1, 1, generator=generator)
        noisy = ideal.heatmap * height + 0.02 * torch.randn(ideal.heatmap.shape, generator=generator)
        maps = ideal._replace(heatmap=noisy)
        encoder = dark_targets if name == "DARK" else offset_targets
        yield Case(
            name=f"encode {name}",
            bar="our" not in name,
            loops=partial(encoder, codec, joints.numpy(), visible.numpy()),
            ours=partial(encode, codec, joints, visible),
            tolerance=1e-5,
            crops=crops,
        )
        decoder = dark_positions if name == "DARK" else offset_positions
        arrays = [field.numpy() for field in maps]
        for together in (False, True):
            yield Case(
                name=f"decode {name}" + ", peaks in one call" * together,
                bar="our" not in name and not together,
                loops=partial(decoder, codec, *arrays, together=together),
                ours=partial(decode, codec, maps),
                tolerance=1e-3,
                crops=crops,
            )


def encode(codec: Any, joints: torch.Tensor, visible: torch.Tensor) -> Sequence[torch.Tensor]:
    ideal, weight = codec.encode(joints, visible)
    return (*ideal, weight)


def decode(codec: Any, maps: Heatmaps | OffsetMaps) -> Sequence[torch.Tensor]:
    decoded = codec.decode(maps)
    return decoded.xy, decoded.score


def gaussian(x: float, y: float, size: Size, sigma: float) -> Array:
    """A Gaussian around a cell, on the whole map."""
    columns, rows = np.arange(size.width, dtype=np.float32), np.arange(size.height, dtype=np.float32)[:, None]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))


def dark_targets(codec: Heatmap, joints: Array, visible: Array) -> Sequence[Array]:
    """Heatmaps and weights, joint by joint."""
    size, half = codec.grid.size, 3 * codec.sigma
    maps = np.zeros((*visible.shape, size.height, size.width), np.float32)
    weight = np.zeros(visible.shape, np.float32)
    for n in range(len(joints)):
        for k in range(joints.shape[1]):
            x, y = joints[n, k] / codec.grid.pitch + codec.grid.offset
            left, top, right, bottom = int(x - half), int(y - half), int(x + half + 1), int(y + half + 1)
            if visible[n, k] < 0.5 or left >= size.width or top >= size.height or right < 0 or bottom < 0:
                continue
            weight[n, k] = 1
            maps[n, k] = gaussian(x, y, size, codec.sigma)
    return maps, weight


def offset_targets(codec: HeatmapOffset, joints: Array, visible: Array) -> Sequence[Array]:
    """Heatmaps or discs, offsets and weights, joint by joint."""
    size = codec.grid.size
    maps = np.zeros((*visible.shape, size.height, size.width), np.float32)
    offset = np.zeros((*visible.shape, 2, size.height, size.width), np.float32)
    weight = np.zeros(visible.shape, np.float32)
    for n in range(len(joints)):
        for k in range(joints.shape[1]):
            x, y = joints[n, k] / codec.grid.pitch + codec.grid.offset
            if visible[n, k] < 0.5:
                continue
            if codec.reach is not None:
                near_x, near_y = int(x + 0.5), int(y + 0.5)
                if near_x - codec.reach >= size.width or near_y - codec.reach >= size.height:
                    continue
                if near_x + codec.reach + 1 <= 0 or near_y + codec.reach + 1 <= 0:
                    continue
            weight[n, k] = 1
            columns, rows = np.meshgrid(np.arange(size.width), np.arange(size.height))
            dx, dy = x - columns, y - rows
            disc = (dx / codec.radius) ** 2 + (dy / codec.radius) ** 2 <= 1
            offset[n, k, 0][disc] = dx[disc] / codec.unit
            offset[n, k, 1][disc] = dy[disc] / codec.unit
            if codec.heatmap == "disc":
                maps[n, k][disc] = 1
            else:
                bump = gaussian(x, y, size, codec.sigma)
                bump[bump < np.finfo(np.float32).eps * bump.max()] = 0
                maps[n, k] = bump
    return maps, offset, weight


def peaks(maps: Array, together: bool) -> tuple[Array, Array]:
    """First largest cell of every map as x, y, and its value; cell (0, 0) where that is not positive."""
    people, keypoints, _, width = maps.shape
    if together:
        flat = maps.reshape(people, keypoints, -1)
        index, score = flat.argmax(2), flat.max(2)
        cells = np.stack([index % width, index // width], 2) * (score > 0)[..., None]
        return cells.astype(np.float64), score
    cells, score = np.zeros((people, keypoints, 2)), np.zeros((people, keypoints), np.float32)
    for n in range(people):
        for k in range(keypoints):
            heatmap = maps[n, k]
            y, x = np.unravel_index(np.argmax(heatmap), heatmap.shape)
            score[n, k] = heatmap[y, x]
            if score[n, k] > 0:
                cells[n, k] = x, y
    return cells, score


def dark_positions(codec: Heatmap, maps: Array, *, together: bool) -> Sequence[Array]:
    """Positions in px and scores, joint by joint: blur, logarithm, Newton step."""
    kernel: int = codec.refine.keywords["blur"]  # type: ignore[attr-defined]
    height, width = maps.shape[2:]
    inner = slice(kernel // 2, kernel // 2 + height), slice(kernel // 2, kernel // 2 + width)
    cells, score = peaks(maps, together)
    for n in range(len(maps)):
        for k in range(maps.shape[1]):
            padded = np.zeros((height + kernel - 1, width + kernel - 1))
            padded[inner] = maps[n, k]
            smooth = cv2.GaussianBlur(padded, (kernel, kernel), 0)[inner]
            log = np.log(np.maximum(smooth * (maps[n, k].max() / smooth.max()), 1e-10))
            cells[n, k] += newton_step(log, int(cells[n, k, 0]), int(cells[n, k, 1]))
    return to_px(codec, cells), score


def newton_step(log: Array, x: int, y: int) -> Array:
    """Of one joint; none within two cells of the border."""
    height, width = log.shape
    if not (1 < x < width - 2 and 1 < y < height - 2):
        return np.zeros(2)
    dx = 0.5 * (log[y, x + 1] - log[y, x - 1])
    dy = 0.5 * (log[y + 1, x] - log[y - 1, x])
    dxx = 0.25 * (log[y, x + 2] - 2 * log[y, x] + log[y, x - 2])
    dyy = 0.25 * (log[y + 2, x] - 2 * log[y, x] + log[y - 2, x])
    dxy = 0.25 * (log[y + 1, x + 1] - log[y - 1, x + 1] - log[y + 1, x - 1] + log[y - 1, x - 1])
    if dxx * dyy - dxy**2 == 0:
        return np.zeros(2)
    gradient, hessian = np.matrix([[dx], [dy]]), np.matrix([[dxx, dxy], [dxy, dyy]])
    return np.asarray(-hessian.I * gradient)[:, 0]


def offset_positions(codec: HeatmapOffset, maps: Array, offset: Array, *, together: bool) -> Sequence[Array]:
    """Positions in px and scores, joint by joint: blurs, peak, the offset found there."""
    maps, offset = maps.copy(), offset * codec.unit
    for n in range(len(maps)):
        for k in range(maps.shape[1]):
            if codec.blur_heatmap is not None:
                maps[n, k] = cv2.GaussianBlur(maps[n, k], (codec.blur_heatmap, codec.blur_heatmap), 0)
            if codec.blur_offset is not None:
                for axis in (0, 1):
                    side = (codec.blur_offset, codec.blur_offset)
                    offset[n, k, axis] = cv2.GaussianBlur(offset[n, k, axis], side, 0)
    cells, score = peaks(maps, together)
    for n in range(len(maps)):
        for k in range(maps.shape[1]):
            x, y = int(cells[n, k, 0]), int(cells[n, k, 1])
            cells[n, k, 0] += offset[n, k, 0, y, x]
            cells[n, k, 1] += offset[n, k, 1, y, x]
    return to_px(codec, cells), score


def to_px(codec: Heatmap | HeatmapOffset, cells: Array) -> Array:
    """Cells -> crop px, all joints in one go."""
    return (cells - codec.grid.offset) * codec.grid.pitch


if __name__ == "__main__":
    main()
