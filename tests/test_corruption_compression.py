"""JPEG and H.264: what they are, where their grids lie, what is said where PyAV is missing."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

from lrbench.corruptions.camera import Surveillance
from lrbench.corruptions.compression import grid_offset, h264, h264_versions, has_h264, jpeg
from lrbench.corruptions.presets import load_corruption
from lrbench.corruptions.resampling import to_float, to_pixels
from lrbench.geometry import Size


def photo(height: int, width: int, seed: int = 0, *, grey: bool = False) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    if grey:
        smooth = smooth.mean(axis=2, keepdims=True).repeat(3, axis=2)
    return to_float(to_pixels((0.5 + smooth).astype(np.float32)))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def no_pyav(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)


class TestJpeg:
    @pytest.mark.parametrize("shape", [(40, 56), (41, 55), (3, 1)])
    def test_is_a_file_of_opencv(self, shape):
        picture = photo(*shape)
        _, data = cv2.imencode(".jpg", to_pixels(picture)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 30])
        expected = cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1]
        assert np.array_equal(to_pixels(jpeg(picture, 30)), expected)

    @pytest.mark.parametrize("offset", [(0, 0), (3, 5), (7, 0)])
    def test_blocks_lie_where_the_offset_says(self, offset):
        coarse = jpeg(photo(96, 112, grey=True), 5, offset)[:, :, 0]
        for axis in (0, 1):
            edges = np.abs(np.diff(coarse, axis=axis)).mean(axis=1 - axis)
            by_phase = [edges[phase::8].mean() for phase in range(8)]
            assert np.argmax(by_phase) == (7 - offset[axis]) % 8

    def test_worse_quality_is_farther_away(self):
        picture = photo(48, 64)
        errors = [float(np.square(jpeg(picture, q) - picture).mean()) for q in (95, 60, 30, 10)]
        assert errors == sorted(errors)

    def test_crops_draw_the_whole_grid_and_pictures_none(self):
        rng = generator()
        offsets = {grid_offset(8, rng, cropped=True) for _ in range(1500)}
        assert offsets == {(y, x) for y in range(8) for x in range(8)}
        state = rng.bit_generator.state
        assert grid_offset(8, rng, cropped=False) == (0, 0)
        assert rng.bit_generator.state == state

    def test_too_large_a_picture_is_an_error_of_one_line(self):
        with pytest.raises(ValueError, match="picture 1x70000: OpenCV cannot make a JPEG of it"):
            jpeg(np.zeros((1, 70000, 3), np.float32), 30)


class TestWithoutPyAV:
    def test_the_error_says_what_to_install(self, no_pyav):
        assert not has_h264()
        assert h264_versions() == {}
        with pytest.raises(RuntimeError, match=r"pip install 'lrbench\[video\]', or use preset surveillance-jpeg"):
            h264(photo(16, 16), 30, generator(), frames=8, shake=2)

    def test_surveillance_falls_back_to_jpeg_and_says_so(self, no_pyav):
        camera = load_corruption("surveillance", 3)
        assert camera.name == "surveillance-jpeg"
        assert vars(camera)["codec"] == "jpeg"
        assert camera == load_corruption("surveillance-jpeg", 3)
        small = camera.shrink(to_pixels(photo(40, 56)), Size(10, 14), generator())
        assert small.shape == (10, 14, 3)

    def test_an_explicit_codec_is_never_replaced(self, no_pyav):
        with pytest.raises(RuntimeError, match="needs PyAV"):
            Surveillance.coded(3, "h264").shrink(to_pixels(photo(40, 56)), Size(10, 14), generator())


class TestH264:
    @pytest.fixture(autouse=True)
    def _pyav(self):
        pytest.importorskip("av")

    def clip(self, picture, crf, seed=0, **options):
        return h264(picture, crf, generator(seed), **{"frames": 8, "shake": 2, **options})

    def test_surveillance_uses_it(self):
        camera = load_corruption("surveillance", 3)
        assert (camera.name, vars(camera)["codec"], vars(camera)["crf"]) == ("surveillance", "h264", 33)
        assert set(h264_versions()) == {"av", "libavcodec"}

    @pytest.mark.parametrize("shape", [(33, 47), (16, 16), (1, 1), (64, 48)])
    @pytest.mark.parametrize("offset", [(0, 0), (5, 10)])
    def test_the_shift_is_undone(self, shape, offset):
        picture = photo(*shape, grey=True)
        for seed in range(3):
            assert np.abs(self.clip(picture, 4, seed, offset=offset) - picture).max() < 6 / 255

    def test_repeating_gives_the_same_pixels(self):
        picture = photo(60, 44)
        first = self.clip(picture, 33)
        assert np.array_equal(first, self.clip(picture, 33))
        assert not np.array_equal(first, self.clip(picture, 33, seed=1))

    def test_worse_rates_are_farther_away(self):
        picture = photo(64, 96)
        errors = [float(np.square(self.clip(picture, crf) - picture).mean()) for crf in (23, 28, 33, 38, 43)]
        assert errors == sorted(errors)
