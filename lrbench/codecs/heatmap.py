"""Heatmap codec: Gaussian targets, and the published ways to read a sub-cell position from a heatmap.

Released code followed: HRNet (rounded centre, quarter step), DarkPose (real centre, Taylor step), UDP (real centre in a
window, its own Taylor step). Letters: B batch, K keypoints, H W cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrbench.geometry import Grid, Size
from lrbench.structures import Keypoints, mean


class Heatmaps(NamedTuple):
    """What a heatmap network emits.

    Attributes:
        heatmap: (B, K, H, W), no activation.
    """

    heatmap: Tensor


Refinement = Callable[[Tensor, Tensor], Tensor]
"""(maps (B, K, H, W), peak cells (B, K, 2) int64) -> sub-cell positions (B, K, 2), float64."""


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """Gaussian bumps in, sub-cell peaks out.

    Attributes:
        grid: the map.
        sigma: width of the Gaussian, in cells.
        center: ``rounded`` puts the peak on the nearest cell (HRNet), ``exact`` on the joint (DARK, UDP).
        window: cut the Gaussian off 3 sigma from the nearest cell (HRNet, UDP) or draw it on the whole map (DARK).
        refine: how the peak cell becomes a position.
    """

    grid: Grid
    sigma: float
    center: Literal["rounded", "exact"]
    window: bool
    refine: Refinement

    def __post_init__(self) -> None:
        check_positive(sigma=self.sigma)

    def encode(self, keypoints: Tensor, visible: Tensor) -> tuple[Heatmaps, Tensor]:
        """Ideal heatmaps of labelled keypoints.

        A keypoint outside the crop still trains, on the flank of its bump, while its 3 sigma window touches the map
        or ends right before it (the released test is ``< 0``, not ``<= 0``, and leaves weight 1 on an empty map).

        Args:
            keypoints: (B, K, 2) px of the crop; computed in this dtype.
            visible: (B, K) above 0 where labelled.

        Returns:
            maps (B, K, H, W) float32 and weight (B, K) in {0, 1}.
        """
        cells = to_cells(self.grid, keypoints)
        nearest = nearest_cell(cells)
        half = int(3 * self.sigma)
        # without a window the released code (DARK) tests the interval around the joint itself, not around its cell
        weight = labelled(visible) * touches_map(self.grid, nearest if self.window else cells, half, slack=1)
        center = nearest.to(cells.dtype) if self.center == "rounded" else cells
        x, y = (gaussian(distance, self.sigma) for distance in axis_distances(self.grid, center))
        if self.window:
            x, y = (bump * near for bump, near in zip((x, y), window(self.grid, nearest, half), strict=True))
        return Heatmaps(outer(x, y * weight[..., None]).float()), weight.float()

    def decode(self, prediction: Heatmaps) -> Keypoints:
        """Positions in px of the crop; the score is the value of the map at its peak."""
        check_size(self.grid, prediction.heatmap)
        return in_parts(self._decode, prediction)

    def _decode(self, prediction: Heatmaps) -> Keypoints:
        cells, score = peak(prediction.heatmap)
        return Keypoints(to_px(self.grid, self.refine(prediction.heatmap, cells)).float(), score.float())

    def unflip(self, prediction: Heatmaps, order: Tensor) -> Heatmaps:
        """Undo a mirrored input: mirror the map, exchange left and right by `order` (K,), shift as the grid asks."""
        return Heatmaps(mirror_maps(prediction.heatmap[:, order], self.grid.mirror_shift))

    def average(self, plain: Heatmaps, unflipped: Heatmaps) -> Heatmaps:
        """Mean of both, field by field."""
        return mean(plain, unflipped)


def default_sigma(size: Size) -> float:
    """Width of a Gaussian target in cells for a crop size: released 1 at 128x96, 2 at 256x192, 3 at 384x288."""
    return 3.0 if size.height >= 384 else 2.0 if size.height >= 192 else 1.0


def default_blur(size: Size) -> int:
    """Side of DARK's smoothing kernel, cells: 11, but 3 at 128x96 (released, W32), which is taken below 192 rows."""
    return 11 if size.height >= 192 else 3


def check_positive(**numbers: float) -> None:
    """Refuse a number that has to be finite and above 0.

    Raises:
        ValueError: one is not; the message names it.
    """
    for name, value in numbers.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}={value:g}: expected a finite number above 0")


def to_cells(grid: Grid, px: Tensor) -> Tensor:
    """Crop px (..., 2) -> cells (..., 2)."""
    return px / px.new_tensor(grid.pitch) + px.new_tensor(grid.offset)


def to_px(grid: Grid, cells: Tensor) -> Tensor:
    """Cells (..., 2) -> crop px (..., 2)."""
    return (cells - cells.new_tensor(grid.offset)) * cells.new_tensor(grid.pitch)


def nearest_cell(cells: Tensor) -> Tensor:
    """int(x + 0.5), truncation toward zero: cells from -1.5 to -0.5 give 0, as in all released code."""
    return (cells + 0.5).trunc().long()


def labelled(visible: Tensor) -> Tensor:
    """COCO flags 1 and 2 count alike."""
    return (visible > 0).to(visible.dtype)


def touches_map(grid: Grid, center: Tensor, half: int, *, slack: int) -> Tensor:
    """Whether the window of +-half cells about a position reaches the map (slack 0) or its neighbourhood (slack 1).

    Real positions are truncated toward zero after half was taken or added, as int() does in the released code.
    """
    size = torch.tensor([grid.size.width, grid.size.height], device=center.device)
    return (((center - half).trunc() < size) & ((center + half + 1).trunc() > -slack)).all(-1).float()


def gaussian(distance: Tensor, sigma: float) -> Tensor:
    """exp(-d^2 / (2 sigma^2)) of distances on one axis, (B, K, N); the map is the `outer` product of both axes."""
    return torch.exp(-distance.square() / (2 * sigma**2))


def outer(x: Tensor, y: Tensor) -> Tensor:
    """Product of what depends on x alone, (B, K, W), and on y alone, (B, K, H): (B, K, H, W).

    Targets are made of such factors: whole maps are many times larger and are touched as seldom as can be.
    """
    return y[..., :, None] * x[..., None, :]


def axis_distances(grid: Grid, center: Tensor) -> tuple[Tensor, Tensor]:
    """Cell minus centre along x, (B, K, W), and along y, (B, K, H)."""
    x = torch.arange(grid.size.width, dtype=center.dtype, device=center.device)
    y = torch.arange(grid.size.height, dtype=center.dtype, device=center.device)
    return x - center[..., 0:1], y - center[..., 1:2]


def window(grid: Grid, nearest: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """1 within +-half cells of a cell, else 0, along x, (B, K, W), and along y, (B, K, H)."""
    dx, dy = axis_distances(grid, nearest)
    return (dx.abs() <= half).float(), (dy.abs() <= half).float()


def check_size(grid: Grid, maps: Tensor) -> None:
    """Refuse maps of another size than the grid's.

    Raises:
        ValueError: they differ.
    """
    if maps.shape[-2:] != (grid.size.height, grid.size.width):
        raise ValueError(
            f"the model returned maps {maps.shape[-2]}x{maps.shape[-1]}, the codec expects {grid.size} "
            f"for crops {grid.frame.size}; give the model's head and the grid the same stride (here {grid.stride})"
        )


P = TypeVar("P", bound=tuple[Any, ...])
PART = 2**19
"""Cells that are decoded at a time on a processor: 4 MB of float64, about what its caches hold."""


def in_parts(decode: Callable[[P], Keypoints], prediction: P) -> Keypoints:
    """Decode a batch part by part, where maps are so many that blurring them would wait for main memory.

    Args:
        decode: of a part.
        prediction: named tuple of tensors (B, ...), heatmaps (B, K, H, W) first.
    """
    maps: Tensor = prediction[0]
    crops = max(1, PART // maps.shape[1:].numel())
    if maps.device.type != "cpu" or len(maps) <= crops:
        return decode(prediction)
    parts = zip(*(field.split(crops) for field in prediction), strict=True)
    decoded = [decode(type(prediction)(*part)) for part in parts]
    return Keypoints(*(torch.cat(fields) for fields in zip(*decoded, strict=True)))


def peak(maps: Tensor) -> tuple[Tensor, Tensor]:
    """First largest cell of every map (B, K, H, W), and its value.

    A map without a positive value has its peak put on cell (0, 0), as in all released code; its score stays the raw
    maximum.

    Returns:
        cells (B, K, 2) int64 as x, y, and score (B, K).

    Raises:
        FloatingPointError: a map holds NaN.
    """
    width = maps.shape[-1]
    flat = maps.flatten(2).contiguous()
    # ties: the first cell wins, on every device
    if flat.device.type == "cpu" and flat.dtype.itemsize >= 4:
        index = torch.from_numpy(flat.detach().numpy().argmax(-1))  # in SIMD, which torch's is not: 8 times faster
    else:
        index = flat.argmax(-1)
    score = flat.gather(-1, index[..., None])[..., 0]
    if score.amin().isnan():
        raise FloatingPointError("the network returned NaN; training has diverged or its weights are damaged")
    index = index * (score > 0)
    row = index // width
    return torch.stack([index - row * width, row], -1), score


def mirror_maps(maps: Tensor, shift: int) -> Tensor:
    """Mirror (..., W) maps; then move them `shift` cells right, the columns that enter repeat the first one."""
    mirrored = maps.flip(-1)
    return torch.cat([mirrored[..., :shift], mirrored[..., :-shift]], -1) if shift else mirrored


def argmax(maps: Tensor, cells: Tensor) -> Tensor:
    """No refinement: the centre of the peak cell."""
    return cells.double()


def quarter_step(maps: Tensor, cells: Tensor) -> Tensor:
    """A quarter cell toward the higher neighbour on each axis (released HRNet code).

    Skipped on columns 0, 1 and W - 1 and on rows 0, 1 and H - 1, though column 1 has both neighbours.
    """
    height, width = maps.shape[-2:]
    x, y = cells.unbind(-1)
    inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    dx = at(maps, x + 1, y) - at(maps, x - 1, y)
    dy = at(maps, x, y + 1) - at(maps, x, y - 1)
    step = 0.25 * torch.stack([dx.sign(), dy.sign()], -1)
    return cells.double() + step * inside[..., None]


def taylor_step(maps: Tensor, cells: Tensor, *, blur: int, guard: Literal["published", "padded"]) -> Tensor:
    """DARK: one Newton step on the logarithm of the smoothed map (released DarkPose code).

    The peak stays that of the raw map; the step is neither clipped nor tested for a maximum.

    Args:
        maps: (B, K, H, W).
        cells: (B, K, 2) peaks.
        blur: side of OpenCV's Gaussian kernel, odd.
        guard: ``published`` skips the step within two cells of the border, which on a 16x12 map is half of all cells.
            ``padded`` steps there too, from the nearest cell that has all neighbours, with unit-step second
            differences, which need one cell less. For small kernels: the zeros outside the map, of which a kernel of
            11 draws in five columns, bend the logarithm by more than the step repairs.
    """
    height, width = maps.shape[-2:]
    smooth = blurred(maps, blur, border="zero")
    # modulation: the smoothed map gets its old maximum back
    gain = maps.amax((-2, -1)).double() / smooth.amax((-2, -1))
    x, y = cells.unbind(-1)
    inside = ((x > 1) & (x < width - 2) & (y > 1) & (y < height - 2))[..., None]
    position = torch.where(inside, cells + _log_step(smooth, gain, cells, reach=2), cells.double())
    if guard == "published":
        return position
    inner = cells.clamp(cells.new_tensor([1, 1]), cells.new_tensor([width - 2, height - 2]))
    shifted = inner + _log_step(smooth, gain, inner, reach=1)
    # nothing holds the step where a map has no peak; and a map of zeros has no logarithm
    near = ((shifted - cells).abs() <= 1).all(-1, keepdim=True)
    return torch.where(near & ~inside, shifted, position)


def _log_step(smooth: Tensor, gain: Tensor, cells: Tensor, *, reach: Literal[1, 2]) -> Tensor:
    """Newton step (B, K, 2) on the logarithm of maps times gain (B, K), second differences over +-`reach` cells."""
    steps = NEIGHBOURS + ARMS if reach == 2 else NEIGHBOURS
    log = (around(smooth, cells, steps) * gain[..., None]).clamp_min(1e-10).log()
    middle, right, left, below, above, below_right, above_right, below_left, above_left, *arms = log.unbind(-1)
    dx, dy = 0.5 * (right - left), 0.5 * (below - above)
    dxy = 0.25 * (below_right - above_right - below_left + above_left)
    right, left, below, above = arms or (right, left, below, above)
    dxx = (right - 2 * middle + left) / reach**2
    dyy = (below - 2 * middle + above) / reach**2
    return newton(dx, dy, dxx, dyy, dxy)


def taylor_step_udp(maps: Tensor, cells: Tensor, *, blur: int) -> Tensor:
    """UDP's Newton step: unit-step second differences, edge padding, no border guard (released UDP code).

    A constant map is rescaled by 0 / 0 there and gives NaN; here it takes no step.
    """
    smooth = blurred(maps, blur, border="reflect")
    low, high, old = (v[..., None] for v in (smooth.amin((-2, -1)), smooth.amax((-2, -1)), maps.amax((-2, -1))))
    log = ((around(smooth, cells, NEIGHBOURS) - low) / (high - low) * old.double()).clamp(0.001, 50).log()
    middle, right, left, below, above, below_right, _, _, above_left = log.unbind(-1)
    dxy = 0.5 * (below_right - right - below + 2 * middle - left - above + above_left)  # 7-point stencil
    dxx, dyy = right - 2 * middle + left, below - 2 * middle + above
    step = newton(0.5 * (right - left), 0.5 * (below - above), dxx, dyy, dxy)
    return cells.double() + torch.where(step.isfinite(), step, 0.0)


def newton(dx: Tensor, dy: Tensor, dxx: Tensor, dyy: Tensor, dxy: Tensor) -> Tensor:
    """-Hessian^-1 gradient, (B, K, 2); zero where the Hessian is singular."""
    determinant = dxx * dyy - dxy * dxy
    step = -torch.stack([dyy * dx - dxy * dy, dxx * dy - dxy * dx], -1) / determinant[..., None]
    return torch.where((determinant != 0)[..., None], step, 0.0)


def at(maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Values of maps (..., H, W) at cells, the border repeated outside.

    Args:
        maps: of any leading dimensions.
        x, y: of as many, or 1 where maps share their cells; further ones are cells of the same map.
    """
    height, width = maps.shape[-2:]
    leading = maps.shape[:-2]
    index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    cells, index = index.shape[len(leading) :], index.reshape(*index.shape[: len(leading)], -1)
    return maps.flatten(-2).gather(-1, index.expand(*leading, -1)).view(*leading, *cells)


NEIGHBOURS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
"""Steps in x and y from a cell to itself and the eight cells around it."""
ARMS = ((2, 0), (-2, 0), (0, 2), (0, -2))
"""Steps to the cells after the next on both axes."""


def around(maps: Tensor, cells: Tensor, steps: tuple[tuple[int, int], ...]) -> Tensor:
    """Values of (B, K, H, W) at N steps from a cell (B, K, 2), the border repeated outside: (B, K, N)."""
    x, y = (cells[..., None, :] + cells.new_tensor(steps)).unbind(-1)
    return at(maps, x, y)


def blurred(maps: Tensor, kernel: int, *, border: Literal["zero", "reflect"]) -> Tensor:
    """OpenCV's GaussianBlur with a kernel of this odd side and automatic sigma, on (..., H, W), in float64.

    Sides 3 to 9 are fixed tables there, not samples of a Gaussian. ``reflect`` does not
    repeat the border cell (OpenCV's default, BORDER_REFLECT_101).

    Raises:
        ValueError: the kernel is even.
    """
    height, width = maps.shape[-2:]
    rows, columns = (
        torch.as_tensor(_blur_matrix(side, kernel, border), device=maps.device) for side in (height, width)
    )
    # all maps in two products, each of which turns the axis that the other one needs to the end
    across = columns @ maps.double().reshape(-1, width).T
    both: Tensor = rows @ across.reshape(-1, height).T
    return both.view(height, width, -1).permute(2, 0, 1).view(maps.shape)


def blurred_at(maps: Tensor, x: Tensor, y: Tensor, kernel: int) -> Tensor:
    """Values of maps (..., H, W), `blurred` with the reflected border, at one cell of each, float64.

    Args:
        maps: of any leading dimensions.
        x, y: of as many, or 1 where maps share their cells.
        kernel: side of the blur, odd.
    """
    taps = torch.as_tensor(_taps(kernel), device=maps.device)
    steps = torch.arange(kernel, device=x.device) - kernel // 2
    columns = _reflected(x[..., None, None] + steps, maps.shape[-1])
    rows = _reflected(y[..., None, None] + steps[:, None], maps.shape[-2])
    value: Tensor = at(maps, columns, rows).flatten(-2).double() @ torch.outer(taps, taps).flatten()
    return value


def _reflected(index: Tensor, n: int) -> Tensor:
    """Where an index beyond 0 ... n - 1 falls when the ends are mirrors and not repeated."""
    index = index.remainder(2 * (n - 1))
    return torch.minimum(index, 2 * (n - 1) - index)


def _taps(kernel: int) -> NDArray[np.float64]:
    """OpenCV's Gaussian of a side, odd."""
    if kernel % 2 == 0:
        raise ValueError(f"blur kernel {kernel}: expected an odd side, for example {kernel + 1}")
    return np.asarray(cv2.getGaussianKernel(kernel, 0, cv2.CV_64F)[:, 0], np.float64)


@lru_cache(maxsize=64)
def _blur_matrix(n: int, kernel: int, border: str) -> NDArray[np.float64]:
    """Banded (n, n) matrix of a 1-D blur, the border rule folded in: maps are small, and a product is one call."""
    matrix = np.zeros((n, n))
    for row in range(n):
        for tap, value in enumerate(_taps(kernel)):
            column = row + tap - kernel // 2
            if border == "reflect" and n > 1:
                column = int(abs(math.remainder(column, 2 * (n - 1))))
            if 0 <= column < n:
                matrix[row, column] += value
    return matrix
