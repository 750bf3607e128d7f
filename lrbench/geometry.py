"""Sizes, crop frames and map grids: the only file that converts coordinates.

Pixel coordinates have x right, y down and (0, 0) at the CENTRE of the top-left pixel. Three alignment rules are in
circulation for top-down pose estimation. Each is self-consistent and none may be mixed with another; here each is one
row of `ALIGNMENTS`, so that a crop, a target and a decoder which share a `Frame` cannot disagree:

* ``biased`` (HRNet, SimpleBaseline, SimCC): scale W / w, cell = px / stride. Mirroring the input moves every joint by
  stride - 1 px on the map, so the mirrored map has to be shifted by one cell.
* ``dark`` (DarkPose): scale (W - 1) / (w - 1) from the x side for both axes, about the centre (W - 1) / 2.
* ``corner`` (UDP, CAL): the centres of the first and the last pixel lie on the sides of the box, x and y scale apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Alignment = Literal["biased", "dark", "corner"]

PADDING = 1.25
"""Growth of a box before it is cropped (HRNet and all that follow it)."""


@dataclass(frozen=True, order=True)
class Size:
    """Height and width in pixels or cells; printed and parsed as ``64x48``, height first."""

    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"size {self.height}x{self.width}: both sides must be at least 1")

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``HxW``.

        Raises:
            ValueError: the text is not two positive integers with an x between them.
        """
        match = re.fullmatch(r"\s*(\d+)\s*[xX×]\s*(\d+)\s*", text)
        if match is None:
            raise ValueError(f"size {text!r}: expected HEIGHTxWIDTH, for example 64x48")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True)
class Region:
    """The part of an image that becomes a crop; or the parts of several, stacked in front.

    Attributes:
        center: (..., 2) x and y, image px.
        side: (..., 2) width and height, image px, aspect fixed and padding included.
    """

    center: Float
    side: Float

    @property
    def area(self) -> Float:
        """(...) area in px², as OKS-NMS of the released code uses it."""
        return np.asarray(self.side[..., 0] * self.side[..., 1])


@dataclass(frozen=True)
class Frame:
    """A crop: its size in px and the rule that aligns it with the image."""

    size: Size
    align: Alignment

    def region(self, box: Float, *, annotated: bool, padding: float = PADDING) -> Region:
        """Grow a box to the aspect of the crop and pad it.

        Args:
            box: (..., 4) x, y, width, height in image px.
            annotated: the box is an annotation (clipped to the image) rather than a detection. The released biased
                and corner code reduces annotated boxes to (w - 1, h - 1) and leaves detections as they are, which
                puts their centres half a pixel apart (golden README, section 10, item 1).
            padding: factor by which both sides grow.

        Raises:
            ValueError: a box has no extent at all, so no crop can be cut from it.
        """
        corner, extent = box[..., :2], box[..., 2:]
        if self.align == "dark":  # DarkPose adds the pixel back and centres on (w - 1) / 2
            center = corner + 0.5 * (extent - 1)
        else:
            extent = extent - 1 if annotated else extent
            center = corner + 0.5 * extent
        if (without := extent.max(-1) <= 0).any():
            first = box[without].reshape(-1, 4)[0].tolist()
            raise ValueError(f"box {first} has no extent; expected width and height above 1 px")
        return Region(center, self.fit_aspect(extent) * padding)

    @property
    def end_pixel(self) -> float:
        """Px added to the distance of two pixels to give an extent: DarkPose counts both ends, the others do not."""
        return 1.0 if self.align == "dark" else 0.0

    def fit_aspect(self, extent: Float) -> Float:
        """Grow the shorter of two sides (..., 2), width and height, until w / h is the aspect of the crop."""
        aspect = self.size.width / self.size.height
        w, h = extent[..., 0], extent[..., 1]
        narrow = w < aspect * h
        return np.stack([np.where(narrow, h * aspect, w), np.where(narrow, h, w / aspect)], -1)

    def matrix(self, region: Region, rotation: Float | float = 0.0) -> Float:
        """Affine map image px -> crop px.

        Args:
            region: what to crop.
            rotation: (...) degrees. In the ``corner`` rule the released code turns the other way round than in the two
                others; kept, because training draws are symmetric and golden arrays are not.

        Returns:
            (..., 2, 3)
        """
        size = np.array([self.size.width, self.size.height], np.float64)
        if self.align == "corner":
            # p' = (R^T (p - c) + side / 2) * (size - 1) / side
            sense, scale = -1, (size - 1) / region.side
            origin = 0.5 * region.side * scale
        else:
            # p' = R (p - c) * a + middle, one factor a for both axes
            end = 0 if self.align == "biased" else 1
            sense, scale = 1, np.broadcast_to((size[0] - end) / (region.side[..., :1] - end), region.side.shape)
            origin = 0.5 * (size - end)
        angle = np.radians(rotation)
        c, s = np.cos(angle), sense * np.sin(angle)
        matrix = np.empty((*region.side.shape, 3))
        matrix[..., 0, 0], matrix[..., 0, 1] = c * scale[..., 0], s * scale[..., 0]
        matrix[..., 1, 0], matrix[..., 1, 1] = -s * scale[..., 1], c * scale[..., 1]
        matrix[..., 2] = 0
        matrix[..., 2] = origin - apply(matrix, region.center)
        return matrix

    def to_image(self, region: Region) -> Float:
        """Affine map crop px -> image px of an unturned crop: (..., 2, 3)."""
        return invert(self.matrix(region))


@dataclass(frozen=True)
class Grid:
    """The map a network emits over a frame: one cell for every `stride` px.

    cell = px / pitch + offset, per axis; the alignment rule of the frame decides both.

    Attributes:
        frame: the crop.
        stride: px per cell.
        tiled: cells are areas that tile the crop, cell = (px + 0.5) / stride - 0.5 (DSNT), instead of points; for
            ``biased`` frames.
    """

    frame: Frame
    stride: int
    tiled: bool = False

    def __post_init__(self) -> None:
        size = self.frame.size
        if size.height % self.stride or size.width % self.stride:
            raise ValueError(
                f"size {size} is not a multiple of the map's stride {self.stride}; "
                f"choose sides divisible by {self.stride}, for example 64x48"
            )
        assert not self.tiled or self.frame.align == "biased"
        if min(self.size.height, self.size.width) < 2:
            raise ValueError(f"size {size} gives a map of {self.size}; both sides of the map need at least 2 cells")

    @property
    def size(self) -> Size:
        """Height and width of the map, in cells."""
        return Size(self.frame.size.height // self.stride, self.frame.size.width // self.stride)

    @property
    def pitch(self) -> tuple[float, float]:
        """Px per cell along x and y."""
        crop, cells = self.frame.size, self.size
        if self.frame.align == "biased":
            return float(self.stride), float(self.stride)
        x = (crop.width - 1) / (cells.width - 1)
        return (x, x) if self.frame.align == "dark" else (x, (crop.height - 1) / (cells.height - 1))

    @property
    def offset(self) -> tuple[float, float]:
        """Cell coordinates of the crop's first pixel."""
        if self.tiled:
            return 0.5 / self.stride - 0.5, 0.5 / self.stride - 0.5
        if self.frame.align != "dark":
            return 0.0, 0.0
        # both are centred: cell = (px - (H - 1) / 2) / pitch + (H' - 1) / 2, not zero along y, whose pitch is that of x
        return 0.0, 0.5 * (self.size.height - 1) - 0.5 * (self.frame.size.height - 1) / self.pitch[1]

    @property
    def mirror_shift(self) -> int:
        """Whole cells by which a mirrored-back map must move right to lie on the plain one.

        A joint at px u comes back from the mirrored pass at cell (W' - 1) - cell(W - 1 - u), which misses cell(u) by
        (W - 1) / pitch + 2 offset - (W' - 1): 0.75 cells for the biased rule at stride 4, nothing for the others. The
        released code moves the map by one whole cell, which leaves 0.25.
        """
        return round((self.frame.size.width - 1) / self.pitch[0] + 2 * self.offset[0] - (self.size.width - 1))


CoordinateMap = Literal["composed", "naive"]
"""How px of an enlarged crop go back to px of the crop.

``composed``: exactly, (u + 0.5) / scale - 0.5. ``naive``: as if the enlarged crop were a native one of that size, which
for crops that are not aligned by pixel areas is off by up to 1.5 px of the 256x192 crop at scale 4.
"""


def enlargement(frame: Frame, scale: int, rule: CoordinateMap) -> Float:
    """Affine map px of a crop -> px of the same crop enlarged by an upscaler: (2, 3).

    Args:
        frame: of the crop.
        scale: of the upscaler.
        rule: see `CoordinateMap`.
    """
    if rule == "composed":
        return np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]], np.float64)
    large = Frame(enlarged_size(frame.size, scale), frame.align)
    # any region will do: the native crops of one region are each other's scaling
    region = Region(np.zeros(2), frame.fit_aspect(np.array([100.0, 100.0])))
    return compose(large.matrix(region), frame.to_image(region))


def enlarged_size(size: Size, scale: int) -> Size:
    """Both sides times a whole factor."""
    return Size(size.height * scale, size.width * scale)


def invert(matrix: Float) -> Float:
    """Inverse of an affine map: (..., 2, 3) -> (..., 2, 3)."""
    inverse = np.zeros_like(matrix)
    inverse[..., :2] = np.linalg.inv(matrix[..., :2])
    inverse[..., 2] = -apply(inverse, matrix[..., 2])
    return inverse


def compose(second: Float, first: Float) -> Float:
    """The affine map (2, 3) that does one map (2, 3) and then another."""
    return np.column_stack([second[:, :2] @ first[:, :2], apply(second, first[:, 2])])


def apply(matrix: Float, points: Float) -> Float:
    """Map points (..., 2) by an affine map (2, 3), or by as many (..., 2, 3)."""
    x, y = points[..., None, 0], points[..., None, 1]
    return np.asarray(matrix[..., 0] * x + matrix[..., 1] * y + matrix[..., 2])


def rescale(points: Float, scale: tuple[float, float]) -> Float:
    """Move pixel-index coordinates (..., 2) into an image whose sides were multiplied by `scale` (x, y)."""
    return np.asarray((points + 0.5) * np.asarray(scale) - 0.5)
