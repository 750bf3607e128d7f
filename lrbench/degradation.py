"""How low-resolution pixels are made; it belongs to the benchmark, not to a method.

A preset says how many pixels become few. It works on three levels: ``crop`` (each person's crop is made small, as in
the tables of low-resolution papers), ``image`` (the whole photograph is made small, so that small people become tiny)
and ``height`` (each person's surroundings are made small, until the person is so many px high). Here are the presets
that only resample; those with blur, noise and compression are in `lrbench.corruptions`.

Measured share of the contrast that survives a shrink by 4, by cycles per small pixel. Up to 0.5 it should be 1; above,
what is left comes back as a false pattern (aliasing) and should be 0:

==========================  =====  =====  =====  =====  =====  =====  =====
preset                      0.1    0.25   0.45   0.6    0.8    0.97   1.3
==========================  =====  =====  =====  =====  =====  =====  =====
``paper``                   1.00   0.98   0.94   0.89   0.81   0.72   0.52
``antialias``               1.00   0.94   0.61   0.27   0.03   0.00   0.01
==========================  =====  =====  =====  =====  =====  =====  =====
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from lrbench.crop import cut
from lrbench.datasets.images import Pixels
from lrbench.geometry import Float, Size, apply, invert
from lrbench.structures import unknown

Level = Literal["image", "crop", "height"]
LEVELS: tuple[Level, ...] = ("image", "crop", "height")

Single = NDArray[np.float32]


class Sampling(Protocol):
    """How many pixels become few. Implementations are frozen dataclasses that hold every number they use."""

    def crop(self, image: Pixels, matrix: Float, size: Size, rng: np.random.Generator) -> Pixels:
        """Image (H, W, 3) and map image px -> crop px (2, 3) to the pixels of the crop (h, w, 3)."""
        ...

    def shrink(self, image: Pixels, size: Size, rng: np.random.Generator) -> Pixels:
        """Image (H, W, 3) to the whole image at another size (h, w, 3)."""
        ...


@dataclass(frozen=True)
class Untouched:
    """No degradation beyond what feeding a network needs: crops are cut bilinearly, images stay as they are."""

    def crop(self, image: Pixels, matrix: Float, size: Size, rng: np.random.Generator) -> Pixels:
        """See `Sampling`; a crop has to get its size somehow, and this is the bilinear cut all networks use."""
        return cut(image, matrix, size)

    def shrink(self, image: Pixels, size: Size, rng: np.random.Generator) -> Pixels:
        """See `Sampling`.

        Raises:
            ValueError: another size than the image's was asked for.
        """
        height, width = image.shape[:2]
        if (height, width) != (size.height, size.width):
            raise ValueError(
                f"preset none leaves images as they are: image {height}x{width}, asked for {size}; "
                "use scale 1, or preset antialias or paper to shrink"
            )
        return image


@dataclass(frozen=True)
class PointSampling:
    """Bilinear interpolation between the four nearest pixels, without a low-pass filter: aliased."""

    def crop(self, image: Pixels, matrix: Float, size: Size, rng: np.random.Generator) -> Pixels:
        """See `Sampling`; the crop of every published top-down pipeline."""
        return cut(image, matrix, size)

    def shrink(self, image: Pixels, size: Size, rng: np.random.Generator) -> Pixels:
        """See `Sampling`; our literal analogue for whole images, which no paper that we know of reports."""
        small = cv2.resize(image, (size.width, size.height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(small, np.uint8)


@dataclass(frozen=True)
class Bicubic:
    """Bicubic interpolation with the kernel widened by the shrink factor, as MATLAB's imresize does.

    Attributes:
        a: slope of the cubic kernel at 1 (MATLAB: -0.5; Keys 1981, Eq. 4).
        finer: a crop is first sampled bilinearly on a grid at least this many times finer ...
        finest_side: ... and then on one fine enough for the photograph, unless its longer side gets longer than this.
    """

    a: float = -0.5
    finer: int = 4
    finest_side: int = 4096

    def crop(self, image: Pixels, matrix: Float, size: Size, rng: np.random.Generator) -> Pixels:
        """See `Sampling`; any rotation, any alignment. A crop that enlarges the image is cut bilinearly."""
        step = shrink_factor(matrix)
        if step <= 1:
            return cut(image, matrix, size)
        k = self.oversampling(step, size)
        fine = _warp_fine(image, matrix, size, k)
        return _to_pixels(imresize(fine, size, a=self.a))

    def shrink(self, image: Pixels, size: Size, rng: np.random.Generator) -> Pixels:
        """See `Sampling`; the factors are exactly w' / w and h' / h."""
        return _to_pixels(imresize(image.astype(np.float32), size, a=self.a))

    def oversampling(self, step: float, size: Size) -> int:
        """How many times finer the first grid of a crop is: 4, 8, 16 ... so that it does not skip image px.

        Args:
            step: image px per crop px.
            size: of the crop.
        """
        k = self.finer
        while k < step and 2 * k * max(size.height, size.width) <= self.finest_side:
            k *= 2
        return k


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One way to make low-resolution pixels.

    Attributes:
        name: as in records.
        summary: one line for lists.
        sampling: holds every number.
        severity: 1 (mild) to 5 (hard); 0 for presets without.
        random: it draws, so it wants a generator.
    """

    name: str
    summary: str
    sampling: Sampling
    severity: int = 0
    random: bool = False

    @property
    def plain(self) -> dict[str, Any]:
        """The preset as JSON for records and manifests: name, severity if there are any, every number."""
        graded = {"severity": self.severity} if self.severity else {}
        numbers = {key: _plain(value) for key, value in vars(self.sampling).items()}
        return {"name": self.name, **graded, "sampling": type(self.sampling).__name__, **numbers}


@dataclass(frozen=True)
class Mixture:
    """One of several presets for every picture, drawn with equal chance: for training, never for scoring.

    Attributes:
        parts: the presets; one that is named twice is drawn twice as often.
    """

    parts: tuple[Preset, ...]

    @classmethod
    def of(cls, plain: Preset, scored: Preset) -> Preset:
        """Half plain, half as scored; of a preset with severities, all of them alike."""
        hard: tuple[Preset, ...] = (scored,)
        if scored.severity:
            from lrbench.corruptions.corruption import SEVERITIES

            hard = tuple(load_preset(scored.name, severity) for severity in SEVERITIES)
        parts = (plain,) * len(hard) + hard
        return Preset(name=f"mix-{scored.name}", summary="half plain", sampling=cls(parts), random=True)

    def crop(self, image: Pixels, matrix: Float, size: Size, rng: np.random.Generator) -> Pixels:
        """See `Sampling`."""
        return self._drawn(rng).sampling.crop(image, matrix, size, rng)

    def shrink(self, image: Pixels, size: Size, rng: np.random.Generator) -> Pixels:
        """See `Sampling`."""
        return self._drawn(rng).sampling.shrink(image, size, rng)

    def _drawn(self, rng: np.random.Generator) -> Preset:
        return self.parts[int(rng.integers(len(self.parts)))]


def _plain(value: Any) -> Any:
    return [part.plain for part in value] if isinstance(value, tuple) and isinstance(value[0], Preset) else value


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(name="none", summary="no degradation: images untouched, crops cut bilinearly", sampling=Untouched()),
        Preset(name="paper", summary="bilinear without a filter, aliased, as published", sampling=PointSampling()),
        Preset(name="antialias", summary="bicubic with a widened kernel (MATLAB imresize)", sampling=Bicubic()),
    )
}
"""The presets that only resample, by name."""

USUAL_SEVERITY = 3
"""Of presets with severities, where none is asked for."""


def presets() -> dict[str, str]:
    """Names of all presets, and what each does in one line."""
    from lrbench.corruptions.presets import SUMMARIES

    return {name: preset.summary for name, preset in PRESETS.items()} | SUMMARIES


def load_preset(name: str, severity: int | None = None) -> Preset:
    """The preset of that name.

    Args:
        name: one of `presets`, or a name that a record or manifest has.
        severity: 1 to 5, for presets with severities; None for the usual one.

    Raises:
        ValueError: no such preset, with the closest names; or a severity that it does not have.
    """
    # they build on this module
    from lrbench.corruptions.presets import CORRUPTIONS, SUMMARIES, load_corruption

    if name in PRESETS:
        if severity:
            raise ValueError(f"preset {name} has no severities: severity {severity}; leave it out")
        return PRESETS[name]
    base = name.partition("-")[0]
    if base not in CORRUPTIONS:
        raise ValueError(unknown("degradation", name, presets()))
    if severity is None:
        severity = USUAL_SEVERITY if CORRUPTIONS[base].graded else 0
    corruption = load_corruption(name, severity)
    return Preset(name=corruption.name, summary=SUMMARIES[base], sampling=corruption, severity=severity, random=True)


def crop(image: Pixels, matrix: Float, size: Size, preset: Preset, rng: np.random.Generator | None = None) -> Pixels:
    """Cut a low-resolution crop from an image; thread-safe.

    Args:
        image: (H, W, 3) uint8.
        matrix: (2, 3) image px -> crop px, for example `Frame.matrix`.
        size: of the crop.
        preset: how.
        rng: where its random numbers come from; None for presets that draw none.

    Returns:
        (h, w, 3) uint8, black where the crop leaves the image.
    """
    return preset.sampling.crop(image, matrix, size, _generator(preset, rng))


def shrink(image: Pixels, preset: Preset, size: Size, rng: np.random.Generator | None = None) -> Pixels:
    """Make a whole image small. Pixel x moves to (x + 0.5) w' / w - 0.5, with the exact factor of each side.

    Args:
        image: (H, W, 3) uint8.
        preset: how.
        size: of the result; not larger than the image.
        rng: where its random numbers come from; None for presets that draw none.

    Returns:
        (h, w, 3) uint8

    Raises:
        ValueError: the size is larger than the image, or preset ``none`` was asked to shrink.
    """
    height, width = image.shape[:2]
    if size.height > height or size.width > width:
        raise ValueError(f"size {size} is larger than the image, {height}x{width}; degradation only shrinks")
    return preset.sampling.shrink(image, size, _generator(preset, rng))


def _generator(preset: Preset, rng: np.random.Generator | None) -> np.random.Generator:
    assert rng is not None or not preset.random, f"preset {preset.name} draws; pass a generator"
    return _UNUSED if rng is None else rng


_UNUSED = np.random.default_rng(0)


def shrink_factor(matrix: Float) -> float:
    """Image px per crop px of a map image px -> crop px (2, 3), along the crop's axis that shrinks more."""
    # column u of the inverse is the way in the image from one crop pixel to its right neighbour, column v to the lower
    return float(np.linalg.norm(invert(matrix)[:, :2], axis=0).max())


def imresize(image: Single, size: Size, *, a: float = -0.5) -> Single:
    """MATLAB's imresize(..., 'bicubic') with antialiasing, and its border: mirrored with the edge pixel twice.

    With f = out / in along one axis, row i takes from row j the weight f k(f (u_i - j)), u_i = (i + 0.5) / f - 0.5,
    normalised to sum 1; k is the cubic kernel of Keys 1981 with slope `a`. Enlarging does not widen the kernel.

    Args:
        image: (H, W, C) float32.
        size: of the result.
        a: slope of the kernel at 1.

    Returns:
        (h, w, C) float32, not clipped: the kernel overshoots.
    """
    channels = image.shape[2]
    rows = _resize_rows(image.reshape(image.shape[0], -1), size.height, a)
    across = rows.reshape(size.height, -1, channels).transpose(1, 0, 2)
    columns = _resize_rows(across.reshape(image.shape[1], -1), size.width, a)
    return np.ascontiguousarray(columns.reshape(size.width, size.height, channels).transpose(1, 0, 2))


_BLOCK = 8  # output rows that share one dense block of weights; wider blocks waste products with zero
_PRODUCTS = 1 << 18  # multiply-adds per matrix product: OpenBLAS starts threads above, which costs more than it gains


def _resize_rows(image: Single, rows: int, a: float) -> Single:
    """Resize (n, m) along its first axis to (rows, m)."""
    columns = image.shape[1]
    out = np.empty((rows, columns), np.float32)
    for first, start, weights in _weight_blocks(image.shape[0], rows, a):
        count, taps = weights.shape
        width = max(1, _PRODUCTS // weights.size)
        for left in range(0, columns, width):
            part = image[start : start + taps, left : left + width]
            np.matmul(weights, part, out=out[first : first + count, left : left + width])
    return out


@functools.lru_cache(maxsize=512)
def _weight_blocks(n: int, rows: int, a: float) -> tuple[tuple[int, int, Single], ...]:
    """Weights that resize n rows to `rows`, as blocks (first output row, first input row, (count, taps) weights)."""
    f = rows / n
    widen = min(f, 1.0)
    center = (np.arange(rows) + 0.5) / f - 0.5
    taps = np.arange(int(np.ceil(4 / widen)) + 2)
    index = np.floor(center - 2 / widen).astype(np.int64)[:, None] + taps
    weight = _cubic(widen * (center[:, None] - index), a)
    weight /= weight.sum(axis=1, keepdims=True)
    index %= 2 * n  # mirrored with the edge pixel twice: 0 1 .. n-1 n-1 .. 1 0, and again
    index = np.minimum(index, 2 * n - 1 - index)
    blocks: list[tuple[int, int, Single]] = []
    for first in range(0, rows, _BLOCK):
        here, value = index[first : first + _BLOCK], weight[first : first + _BLOCK]
        used = here[value != 0]
        start, stop = int(used.min()), int(used.max()) + 1
        dense = np.zeros((len(here), stop - start))
        row, tap = np.nonzero(value)
        np.add.at(dense, (row, here[row, tap] - start), value[row, tap])
        single = dense.astype(np.float32)
        single.setflags(write=False)  # every caller gets the same array
        blocks.append((first, start, single))
    return tuple(blocks)


def _cubic(x: Float, a: float) -> Float:
    """Cubic convolution kernel (Keys 1981, Eq. 4), zero from 2 on."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _warp_fine(image: Pixels, matrix: Float, size: Size, k: int) -> Single:
    """Sample a crop bilinearly on a grid k times finer: (h k, w k, 3) float32, black outside the image."""
    height, width = image.shape[:2]
    inverse = invert(matrix)
    fine = inverse / k  # crop px u = (u_fine + 0.5) / k - 0.5
    fine[:, 2] = apply(inverse, np.full(2, 0.5 / k - 0.5))
    # only the part that is seen becomes float: a photograph is much larger than most of the people in it
    corners = apply(inverse, np.array([(x, y) for x in (-0.5, size.width - 0.5) for y in (-0.5, size.height - 0.5)]))
    left, top = (int(v) for v in np.clip(np.floor(corners.min(axis=0)) - 2, 0, (width, height)))
    right, bottom = (int(v) for v in np.clip(np.ceil(corners.max(axis=0)) + 3, 0, (width, height)))
    shape = (size.height * k, size.width * k)
    if right <= left or bottom <= top:
        return np.zeros((*shape, 3), np.float32)
    fine[:, 2] -= (left, top)
    part = image[top:bottom, left:right].astype(np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(part, fine, shape[::-1], flags=flags, borderValue=(0, 0, 0)), np.float32)


def _to_pixels(image: Single) -> Pixels:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
