"""Pictures: strict reading, and a store that keeps to its limit."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny

from lrbench.datasets.coco import read
from lrbench.datasets.images import DataError, ImageStore, read_image, spare_memory


@pytest.fixture
def pixels() -> np.ndarray:
    return tiny.picture(np.random.default_rng(3), 90, 130)


def encoded(pixels: np.ndarray, ending: str) -> bytes:
    return cv2.imencode(ending, pixels)[1].tobytes()


def test_png_is_exact_and_rgb(tmp_path: Path, pixels: np.ndarray):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(pixels[..., ::-1], ".png"))
    image = read_image(path, (90, 130))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels)


def test_grey_becomes_three_equal_channels(tmp_path: Path, pixels: np.ndarray):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(pixels[..., 0], ".png"))
    np.testing.assert_array_equal(read_image(path), np.repeat(pixels[..., :1], 3, 2))


def test_exif_orientation_is_ignored(tmp_path: Path, pixels: np.ndarray):
    plain = encoded(pixels, ".jpg")
    # an APP1 block that says "turn by 90 degrees" (orientation 6), right after the start of the picture
    body = b"Exif\0\0" + b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + b"\0\0\0\0"
    turned = plain[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + plain[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape[:2] == (130, 90)
    (tmp_path / "plain.jpg").write_bytes(plain)
    (tmp_path / "turned.jpg").write_bytes(turned)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.jpg"), read_image(tmp_path / "plain.jpg"))


@pytest.mark.parametrize("ending", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated(tmp_path: Path, pixels: np.ndarray, ending: str, share: float):
    data = encoded(pixels, ending)
    path = tmp_path / f"a{ending}"
    # the last 12 bytes of a PNG are its end mark, the last 2 those of a JPEG
    keep = min(int(share * len(data)), len(data) - 12)
    path.write_bytes(data[:keep])
    with pytest.raises(DataError, match=rf"a\{ending}: truncated after {keep} bytes"):
        read_image(path)


@pytest.mark.parametrize("data", [b"", b"hello", b"<html></html>", bytes(3000), b"\xff\xd8" + bytes(50) + b"\xff\xd9"])
def test_no_picture(tmp_path: Path, data: bytes):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"a\.jpg: {len(data)} bytes that are no picture"):
        read_image(path)


def test_hole_in_the_middle_of_a_png(tmp_path: Path, pixels: np.ndarray):
    data = bytearray(encoded(pixels, ".png"))
    third = len(data) // 3
    data[third : 2 * third] = bytes(third)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.png"):
        read_image(path)


def test_missing_and_folder(tmp_path: Path):
    with pytest.raises(DataError, match="No such file"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path)


def test_other_size_than_annotated(tmp_path: Path, pixels: np.ndarray):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(pixels, ".png"))
    with pytest.raises(DataError, match=r"90x130 px, its annotation says 130x90"):
        read_image(path, (130, 90))


class TestStore:
    def test_exact(self, tiny_data: Path):
        images = read(tiny_data, "train").images
        store = ImageStore(images)
        for _ in range(2):
            for row, path in enumerate(images.path):
                np.testing.assert_array_equal(store[row], read_image(path))

    @pytest.mark.parametrize("kept", [0, 1, 3, 4])
    def test_keeps_what_fits_its_limit(self, tiny_copy: Path, kept: int):
        images = read(tiny_copy, "train").images
        sizes = [3 * int(h) * int(w) for h, w in images.size]
        limit = sum(sizes[:kept])
        store = ImageStore(images, limit)
        first = [store[row].copy() for row in range(4)]
        for path in images.path:
            path.unlink()
        for row in range(4):  # what was kept is there without its file, nothing else is
            if row < kept:
                np.testing.assert_array_equal(store[row], first[row])
            else:
                with pytest.raises(DataError, match="No such file"):
                    store[row]

    def test_one_byte_less_keeps_one_picture_less(self, tiny_copy: Path):
        images = read(tiny_copy, "train").images
        store = ImageStore(images, 3 * int(images.size[0].prod()) - 1)
        store[0]
        images.path[0].unlink()
        with pytest.raises(DataError):
            store[0]

    def test_default_limit(self):
        assert 0 < spare_memory() <= 4 << 30
