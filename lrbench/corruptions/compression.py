"""What JPEG files and H.264 videos do to a picture.

JPEG comes with OpenCV. H.264 needs PyAV, the optional extra ``lrbench[video]``: its wheels bundle x264, which is under
the GPL. Repeating gives the same pixels; another build of x264 or of libjpeg may not.
"""

from __future__ import annotations

import importlib
import importlib.util
from fractions import Fraction
from typing import Any

import cv2
import numpy as np

from lrbench.corruptions.resampling import Single, to_float, to_pixels
from lrbench.datasets.images import Pixels

JPEG_BLOCK = 8
"""Px per side of the blocks that JPEG transforms."""
H264_BLOCK = 16
"""Px per side of the macroblocks of H.264."""

Offset = tuple[int, int]
"""Px along y and x from the start of a block grid to the picture."""


def grid_offset(block: int, rng: np.random.Generator, *, cropped: bool) -> Offset:
    """Where the block grid lies: at the corner of a whole picture, anywhere in a crop.

    Without this all blocks of all crops would lie at the same places of the persons.

    Args:
        block: px per side of a block.
        rng: used for crops only.
        cropped: the picture is a crop of the file it stands for.
    """
    if not cropped:
        return 0, 0
    y, x = rng.integers(0, block, 2)
    return int(y), int(x)


def jpeg(picture: Single, quality: int, offset: Offset = (0, 0)) -> Single:
    """The picture after it was a JPEG file of 4:2:0 colours.

    Args:
        picture: (H, W, 3), rounded to 8 bits first.
        quality: of libjpeg, 1 to 100.
        offset: of the picture from the grid of 8x8 blocks; filled by repeating its edge.

    Returns:
        (H, W, 3) of whole 255ths.
    """
    top, left = offset
    padded = cv2.copyMakeBorder(_to_bgr(picture), top, 0, left, 0, cv2.BORDER_REPLICATE)
    fine, data = cv2.imencode(".jpg", padded, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not fine:
        height, width = picture.shape[:2]
        raise ValueError(f"picture {height}x{width}: OpenCV cannot make a JPEG of it; the format ends at 65500 px")
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return to_float(np.asarray(cv2.cvtColor(decoded[top:, left:], cv2.COLOR_BGR2RGB), np.uint8))


def has_h264() -> bool:
    """PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def h264_versions() -> dict[str, str]:
    """Versions that decide the pixels of `h264`, for manifests; empty without PyAV."""
    if not has_h264():
        return {}
    av = _pyav()
    return {"av": av.__version__, "libavcodec": ".".join(map(str, av.library_versions["libavcodec"]))}


def h264(
    picture: Single, crf: int, rng: np.random.Generator, *, frames: int, shake: int, offset: Offset = (0, 0)
) -> Single:
    """The picture as the last frame of a short H.264 clip filmed by a camera that shakes.

    One intra frame is nearly a JPEG; prediction from frame to frame is what smears. x264, preset veryfast, yuv420p,
    25 frames per second, one thread.

    Args:
        picture: (H, W, 3), rounded to 8 bits first.
        crf: constant rate factor, 0 (lossless) to 51.
        rng: where the shake comes from.
        frames: length of the clip.
        shake: each frame is shifted by 0 to this many px along x and y; the last one's shift is undone.
        offset: of the picture from the grid of 16x16 macroblocks; filled by repeating its edge.

    Returns:
        (H, W, 3) of whole 255ths.

    Raises:
        RuntimeError: PyAV is not installed.
    """
    height, width = picture.shape[:2]
    top, left = offset
    # H.264 in 4:2:0 needs even sides
    tall, wide = (side + shake + (side + shake) % 2 for side in (height + top, width + left))
    image, border = to_pixels(picture), cv2.BORDER_REPLICATE
    padding = (top + shake, tall - height - top, left + shake, wide - width - left)
    scene = np.asarray(cv2.copyMakeBorder(image, *padding, border), np.uint8)
    shifts = rng.integers(0, shake + 1, (frames, 2))
    # in a frame that shows `scene` from (shake - y, shake - x) on, the picture is y px lower and x px further right
    clip = [scene[shake - y : shake - y + tall, shake - x : shake - x + wide] for y, x in shifts]
    y, x = shifts[-1] + offset
    return to_float(_last_frame(clip, crf)[y : y + height, x : x + width])


def _last_frame(clip: list[Pixels], crf: int) -> Pixels:
    """Last frame (H, W, 3) of a clip after encoding and decoding."""
    av = _pyav()
    encoder, decoder = av.CodecContext.create("libx264", "w"), av.CodecContext.create("h264", "r")
    encoder.thread_count = decoder.thread_count = 1  # x264's result depends on the number of threads
    encoder.height, encoder.width = clip[0].shape[:2]
    encoder.pix_fmt, encoder.framerate, encoder.time_base = "yuv420p", Fraction(25), Fraction(1, 25)
    encoder.options = {"preset": "veryfast", "crf": str(crf)}
    packets = []
    for time, pixels in enumerate(clip):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = time, encoder.time_base
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoded = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    assert len(decoded) == len(clip)
    return np.asarray(decoded[-1].to_ndarray(format="rgb24"), np.uint8)


def _pyav() -> Any:
    try:
        return importlib.import_module("av")
    except ImportError:
        raise RuntimeError(
            "H.264 needs PyAV, which is not installed; pip install 'lrbench[video]', or use preset surveillance-jpeg"
        ) from None


def _to_bgr(picture: Single) -> Pixels:
    return np.asarray(cv2.cvtColor(to_pixels(picture), cv2.COLOR_RGB2BGR), np.uint8)
