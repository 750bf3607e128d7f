"""Pictures at another size, and crops before they are shrunk. No operation here moves anything by half a pixel."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from lrbench.datasets.images import Pixels
from lrbench.degradation import Bicubic, Single, imresize, shrink_factor
from lrbench.geometry import Float, Size, apply, invert

__all__ = ["Interpolation", "Single", "at_scale", "bicubic", "inside", "resize", "to_float", "to_pixels", "warp"]

Interpolation = Literal["linear", "cubic", "area"]

_FLAGS = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC, "area": cv2.INTER_AREA}


def to_float(image: Pixels) -> Single:
    """Image (H, W, 3) uint8 as float32 in [0, 1]."""
    return np.asarray(image.astype(np.float32) / np.float32(255))


def to_pixels(picture: Single) -> Pixels:
    """Picture (H, W, 3) in [0, 1] as uint8, rounded; what lies outside is clipped."""
    return np.asarray(np.clip(np.rint(picture * np.float32(255)), 0, 255), np.uint8)


def resize(picture: Single, size: Size, how: Interpolation) -> Single:
    """The picture (H, W, 3) at another size (h, w, 3); pixel x moves to (x + 0.5) w / W - 0.5.

    Args:
        picture: the picture.
        size: of the result.
        how: ``area`` averages exactly the px, or parts of px, that each small px covers, as a sensor does; ``linear``
            and ``cubic`` have no low-pass filter and alias where they shrink.

    Returns:
        (h, w, 3) in [0, 1]; the overshoot of ``cubic`` is clipped.
    """
    small = np.asarray(cv2.resize(picture, (size.width, size.height), interpolation=_FLAGS[how]), np.float32)
    return np.clip(small, 0, 1) if how == "cubic" else small


def bicubic(picture: Single, size: Size) -> Single:
    """The antialiased bicubic shrink of preset ``antialias``: (H, W, 3) -> (h, w, 3), overshoot clipped."""
    return np.clip(imresize(picture, size), 0, 1)


def at_scale(picture: Single, size: Size, scale: int) -> Single:
    """The picture at `scale` times a size: averaged where it is larger, interpolated bilinearly where it is smaller."""
    wanted = Size(size.height * scale, size.width * scale)
    height, width = picture.shape[:2]
    if (height, width) == (wanted.height, wanted.width):
        return picture
    return resize(picture, wanted, "area" if height >= wanted.height and width >= wanted.width else "linear")


def warp(image: Pixels, matrix: Float, size: Size, *, finer: int, finest_side: int) -> Single:
    """A crop on a grid k times finer, sampled bilinearly; beyond the image its edge pixels go on.

    k is 1 where the crop enlarges the image, and else `finer`, 2 `finer`, ... until the grid does not skip image px.

    Args:
        image: (H, W, 3) uint8.
        matrix: (2, 3) image px -> crop px.
        size: of the crop.
        finer: smallest k of a crop that shrinks.
        finest_side: px that the longer side of the grid may have.

    Returns:
        (h k, w k, 3) in [0, 1]
    """
    step = shrink_factor(matrix)
    k = 1 if step <= 1 else Bicubic(finer=finer, finest_side=finest_side).oversampling(step, size)
    inverse = invert(matrix)
    fine = inverse / k  # crop px u = (u_fine + 0.5) / k - 0.5
    fine[:, 2] = apply(inverse, np.full(2, 0.5 / k - 0.5))
    # only the part that is seen becomes float: a photograph is much larger than most of the people in it
    end = np.array(image.shape[1::-1])
    corners = apply(inverse, _corners(size, 0.5))
    left, top = np.clip(np.floor(corners.min(axis=0)) - 2, 0, end - 1).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)) + 3, (left + 1, top + 1), end).astype(int)
    fine[:, 2] -= (left, top)
    part = to_float(image[top:bottom, left:right])
    flags, side = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, (size.width * k, size.height * k)
    return np.asarray(cv2.warpAffine(part, fine, side, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.float32)


def inside(image: Pixels, matrix: Float, size: Size) -> Single:
    """1 for crop px whose centres lie in the image, 0 for the others: (h, w, 1).

    Args:
        image: (H, W, 3)
        matrix: (2, 3) image px -> crop px.
        size: of the crop.
    """
    inverse, end = invert(matrix), np.array(image.shape[1::-1]) - 0.5

    def within(points: Float) -> Float:
        at = apply(inverse, points)
        return np.asarray(((at >= -0.5) & (at <= end)).all(axis=-1), np.float64)

    if within(_corners(size, 0.0)).all():
        return np.ones((size.height, size.width, 1), np.float32)
    y, x = np.mgrid[: size.height, : size.width]
    return within(np.stack([x, y], axis=-1).astype(np.float64))[:, :, None].astype(np.float32)


def _corners(size: Size, margin: float) -> Float:
    """Corners of a crop (4, 2), `margin` px beyond the centres of its outermost px."""
    ends = [(-margin, side - 1 + margin) for side in (size.width, size.height)]
    return np.array([(x, y) for x in ends[0] for y in ends[1]])
