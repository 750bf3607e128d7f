"""Image + region -> the pixels of a crop."""

from __future__ import annotations

import cv2
import numpy as np

from lrbench.datasets.images import Pixels
from lrbench.geometry import Float, Size


def cut(image: Pixels, matrix: Float, size: Size) -> Pixels:
    """Sample a crop bilinearly, black outside the picture, without any low-pass filter.

    This is what every published top-down pipeline does, and what the degradation ``paper`` means: a crop much smaller
    than the person is an aliased point sampling.

    Args:
        image: (H, W, 3) uint8.
        matrix: (2, 3) image px -> crop px.
        size: of the crop.

    Returns:
        (h, w, 3) uint8
    """
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    back = cv2.invertAffineTransform(matrix)
    warped = cv2.warpAffine(image, back, (size.width, size.height), flags=flags, borderValue=(0, 0, 0))
    return np.asarray(warped, np.uint8)
