"""Shrinking: where things end, how much contrast stays, and how much comes back as a false pattern."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from reference import imresize as slow

from lrbench.crop import cut
from lrbench.degradation import PRESETS, Bicubic, crop, imresize, load_preset, shrink, shrink_factor
from lrbench.geometry import Frame, Region, Size, apply, rescale

NONE, PAPER, ANTIALIAS = (PRESETS[name] for name in ("none", "paper", "antialias"))


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3))
    return cv2.GaussianBlur(noise, (0, 0), 1.0).clip(0, 255).astype(np.uint8)


def blob(height: int, width: int, center: np.ndarray, sigma: float) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    value = 250 * np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * sigma**2))
    return np.repeat(np.rint(value).astype(np.uint8)[:, :, None], 3, axis=2)


def centroid(image: np.ndarray) -> np.ndarray:
    weight = image[:, :, 0].astype(float)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


def wave(height: int, width: int, cycles: float) -> np.ndarray:
    """Vertical stripes with so many cycles per px and amplitude 100."""
    row = 128 + 100 * np.cos(2 * np.pi * cycles * np.arange(width) + 0.4)
    return np.repeat(np.tile(np.rint(row).astype(np.uint8), (height, 1))[:, :, None], 3, axis=2)


def contrast(image: np.ndarray, cycles: float, margin: int) -> float:
    """Share of amplitude 100 that is left at a frequency in cycles per px, which may be folded; borders left out."""
    row = image[image.shape[0] // 2, margin:-margin, 0].astype(float)
    x = np.arange(len(row)) + margin
    basis = np.stack([np.ones(len(row)), np.cos(2 * np.pi * cycles * x), np.sin(2 * np.pi * cycles * x)], axis=1)
    _, c, s = np.linalg.lstsq(basis, row, rcond=None)[0]
    return float(np.hypot(c, s) / 100)


def region_of(frame: Frame, center: tuple[float, float], factor: float) -> Region:
    return Region(np.array(center), np.array([frame.size.width, frame.size.height]) * factor)


class TestImresize:
    @pytest.mark.parametrize(
        ("height", "width", "size"),
        [(24, 32, Size(6, 8)), (37, 29, Size(11, 9)), (33, 20, Size(32, 19)), (9, 7, Size(1, 2)), (5, 3, Size(5, 3))],
    )
    def test_agrees_with_one_pixel_at_a_time(self, height, width, size):
        image = np.random.default_rng(1).uniform(0, 255, (height, width, 3)).astype(np.float32)
        expected = slow.imresize(image, size.height, size.width)
        assert np.abs(imresize(image, size) - expected).max() < 1e-3

    def test_agrees_on_a_picture_of_many_blocks(self):
        image = photo(90, 300)[:, :, :1].astype(np.float32)
        expected = slow.imresize(image, 40, 70)
        assert np.abs(imresize(image, Size(40, 70)) - expected).max() < 1e-3

    def test_commutes_with_mirroring_where_the_width_is_a_multiple(self):
        image = photo(48, 64).astype(np.float32)
        mirrored = imresize(np.ascontiguousarray(image[:, ::-1]), Size(12, 16))
        assert np.abs(mirrored - imresize(image, Size(12, 16))[:, ::-1]).max() < 1e-3

    def test_keeps_a_constant_at_every_border(self):
        image = np.full((50, 41, 3), 77, np.float32)
        assert np.abs(imresize(image, Size(13, 7)) - 77).max() < 1e-4

    def test_uses_one_thread(self):
        image = photo(480, 640).astype(np.float32)
        imresize(image, Size(120, 160))
        wall, processor = time.perf_counter(), time.process_time()
        for _ in range(20):
            imresize(image, Size(120, 160))
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        assert processor < 1.5 * wall


class TestWhere:
    """A blob about one small pixel wide ends where the coordinates say."""

    @pytest.mark.parametrize("scale", [2.0, 3.3, 4.0, 7.0])
    @pytest.mark.parametrize("preset", [PAPER, ANTIALIAS], ids=lambda p: p.name)
    def test_image_level(self, preset, scale):
        height, width = 301, 407
        size = Size(round(height / scale), round(width / scale))
        for center in np.random.default_rng(0).uniform((150, 100), (250, 200), (4, 2)):
            small = shrink(blob(height, width, center, sigma=scale), preset, size)
            expected = rescale(center, (size.width / width, size.height / height))
            assert np.abs(centroid(small) - expected).max() < 0.02

    def test_none_at_image_level_moves_nothing(self):
        image = photo(20, 30)
        assert np.array_equal(shrink(image, NONE, Size(20, 30)), image)

    @pytest.mark.parametrize("rotation", [0.0, 33.0, -120.0])
    @pytest.mark.parametrize("factor", [0.6, 0.9, 1.5, 3.0, 6.0, 9.0])
    @pytest.mark.parametrize("align", ["biased", "dark", "corner"])
    @pytest.mark.parametrize("preset", [NONE, PAPER, ANTIALIAS], ids=lambda p: p.name)
    def test_crop_level(self, preset, align, factor, rotation):
        frame = Frame(Size(64, 48), align)
        matrix = frame.matrix(region_of(frame, (301.3, 322.8), factor), rotation)
        for shift in np.random.default_rng(0).uniform(-4, 4, (3, 2)) * factor:
            center = np.array([300.0, 320.0]) + shift
            # where the crop enlarges, a blob of one crop px would be too sharp for the photograph itself
            sigma = factor if factor > 1 else 2.0
            small = crop(blob(640, 600, center, sigma), matrix, frame.size, preset)
            assert np.abs(centroid(small) - apply(matrix, center)).max() < 0.02

    @pytest.mark.parametrize("align", ["biased", "dark", "corner"])
    def test_shrink_factor_is_photo_px_per_crop_px(self, align):
        frame = Frame(Size(64, 48), align)
        for factor in (0.5, 2.0, 9.0):
            for rotation in (0.0, 40.0):
                matrix = frame.matrix(region_of(frame, (100, 90), factor), rotation)
                # the two other rules count to the centre of the last pixel, so a few percent more
                assert shrink_factor(matrix) == pytest.approx(factor, rel=1e-9 if align == "biased" else 0.03)

    def test_a_mirrored_matrix_gives_the_mirrored_crop(self):
        frame = Frame(Size(32, 24), "corner")
        image = photo(200, 160)
        matrix = frame.matrix(region_of(frame, (83.0, 97.0), 4.3), 20)
        flip = matrix.copy()
        flip[:, 2] += matrix[:, 0] * (image.shape[1] - 1)
        flip[:, 0] = -matrix[:, 0]
        expected = crop(np.ascontiguousarray(image[:, ::-1]), matrix, frame.size, ANTIALIAS)
        assert np.abs(crop(image, flip, frame.size, ANTIALIAS).astype(int) - expected).max() <= 1


class TestContrast:
    KEEP, LEAK = (0.1, 0.25, 0.45), (0.6, 0.8, 0.97, 1.3)

    @pytest.mark.parametrize(
        ("preset", "shares"),
        [
            (ANTIALIAS, (1.00, 0.94, 0.61, 0.27, 0.03, 0.00, 0.01)),
            (PAPER, (1.00, 0.98, 0.94, 0.89, 0.81, 0.72, 0.52)),
        ],
        ids=["antialias", "paper"],
    )
    def test_whole_images_shrunk_by_four(self, preset, shares):
        for cycles, share in zip(self.KEEP + self.LEAK, shares, strict=True):
            small = shrink(wave(40, 1600, cycles / 4), preset, Size(10, 400))
            assert contrast(small, cycles, margin=8) == pytest.approx(share, abs=0.02), cycles

    @pytest.mark.parametrize("factor", [3.0, 6.0, 9.0])
    @pytest.mark.parametrize("cycles", [0.6, 0.8, 1.3])
    def test_paper_crops_alias(self, factor, cycles):
        # at t in [0, 1] between two photo px bilinear leaves |1 - t + t e^iw| of a wave with w radians per photo px;
        # with a whole factor t is the same in the whole crop, so it is swept
        expected = np.sqrt(1 - (1 - np.cos(2 * np.pi * cycles / factor)) / 3)  # root mean square over t
        shares = [self.of_crop(PAPER, factor, cycles, shift=t) for t in np.arange(8) / 8]
        assert np.sqrt(np.mean(np.square(shares))) == pytest.approx(expected, abs=0.02)
        assert expected > 0.6

    def test_paper_crops_alias_between_whole_factors(self):
        for cycles, share in zip((0.6, 0.8, 1.3), (0.92, 0.86, 0.67), strict=True):  # sinc^2 of cycles per photo px
            assert share == pytest.approx(np.sinc(cycles / 3.8) ** 2, abs=0.01)
            shares = [self.of_crop(PAPER, 3.8, cycles, shift=t) for t in np.arange(8) / 8]
            assert np.mean(shares) == pytest.approx(share, abs=0.02)

    @pytest.mark.parametrize("rotation", [0.0, 30.0])
    @pytest.mark.parametrize("factor", [2.0, 2.7, 3.8, 4.5, 6.0, 8.0, 9.0])
    def test_antialiased_crops_do_not(self, factor, rotation):
        assert 0.19 <= self.of_crop(ANTIALIAS, factor, 0.6, rotation) <= 0.29
        assert 0.00 <= self.of_crop(ANTIALIAS, factor, 0.8, rotation) <= 0.05
        assert 0.00 <= self.of_crop(ANTIALIAS, factor, 1.3, rotation) <= 0.10
        for cycles, share in zip(self.KEEP, (1.00, 0.94, 0.61), strict=True):
            # sampling the photograph bilinearly costs sinc^2 of the cycles per photo px along its two axes
            angle = np.radians(rotation)
            sampled = np.prod(np.sinc(np.array([np.cos(angle), np.sin(angle)]) * cycles / factor) ** 2)
            assert self.of_crop(ANTIALIAS, factor, cycles, rotation) == pytest.approx(share * sampled, abs=0.02)

    def test_a_tiny_crop_of_a_huge_person_does_not_alias_either(self):
        # 24 photo px per crop px: a grid only 16 times finer would itself skip photo px
        assert self.of_crop(ANTIALIAS, 24.0, 0.8, size=Size(8, 48)) < 0.05
        assert self.of_crop(ANTIALIAS, 24.0, 15.3, size=Size(8, 48)) < 0.05

    @staticmethod
    def of_crop(preset, factor, cycles, rotation=0.0, size=None, shift=0.0):
        """Contrast left of stripes that are vertical in the crop."""
        frame = Frame(size or Size(16, 48), "biased")
        side = int(np.ceil(factor * 56))
        angle = np.radians(rotation)
        y, x = np.mgrid[:side, :side] - (side - 1) / 2
        along = (np.cos(angle) * x + np.sin(angle) * y) * cycles / factor
        stripes = np.rint(128 + 100 * np.cos(2 * np.pi * along + 0.4)).astype(np.uint8)
        image = np.repeat(stripes[:, :, None], 3, axis=2)
        matrix = frame.matrix(region_of(frame, ((side - 1) / 2 + shift, (side - 1) / 2), factor), rotation)
        return contrast(crop(image, matrix, frame.size, preset), cycles, margin=4)


class TestCrops:
    @pytest.mark.parametrize("preset", [NONE, PAPER], ids=lambda p: p.name)
    def test_plain_presets_are_the_bilinear_cut(self, preset):
        frame = Frame(Size(64, 48), "corner")
        matrix = frame.matrix(region_of(frame, (150, 120), 3.1), 12)
        image = photo(240, 320)
        assert np.array_equal(crop(image, matrix, frame.size, preset), cut(image, matrix, frame.size))

    def test_antialias_cuts_plainly_where_it_enlarges(self):
        frame = Frame(Size(64, 48), "biased")
        matrix = frame.matrix(region_of(frame, (40, 50), 0.9))
        image = photo(100, 100)
        assert np.array_equal(crop(image, matrix, frame.size, ANTIALIAS), cut(image, matrix, frame.size))

    def test_black_outside_the_picture(self):
        frame = Frame(Size(16, 12), "biased")
        image = np.full((60, 60, 3), 200, np.uint8)
        away = crop(image, frame.matrix(region_of(frame, (900, 900), 3)), frame.size, ANTIALIAS)
        assert not away.any()
        half = crop(image, frame.matrix(region_of(frame, (0, 30), 3)), frame.size, ANTIALIAS)
        assert not half[:, :3].any()
        assert (half[:, 9:] == 200).all()

    def test_only_the_seen_part_decides(self):
        frame = Frame(Size(32, 24), "dark")
        image = photo(300, 400)
        matrix = frame.matrix(region_of(frame, (200, 150), 3.0), 25)
        small = crop(image, matrix, frame.size, ANTIALIAS)
        image[:20] = image[-20:] = 255
        assert np.array_equal(crop(image, matrix, frame.size, ANTIALIAS), small)

    def test_finer_grids(self):
        sampling, size = Bicubic(), Size(64, 48)
        assert [sampling.oversampling(f, size) for f in (1.2, 4.0, 4.1, 8.0, 8.1, 16.0, 16.1)] == [
            4,
            4,
            8,
            8,
            16,
            16,
            32,
        ]
        # a box of a hundred photographs must not take all memory
        assert sampling.oversampling(1e6, size) * 64 <= 4096


class TestMessages:
    def test_unknown_preset(self):
        with pytest.raises(ValueError, match=r"unknown degradation 'antialas'; did you mean antialias\?"):
            load_preset("antialas")

    def test_none_does_not_shrink(self):
        with pytest.raises(ValueError, match="image 20x30, asked for 10x15; use scale 1"):
            shrink(photo(20, 30), NONE, Size(10, 15))

    @pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda p: p.name)
    def test_enlarging_is_refused(self, preset):
        with pytest.raises(ValueError, match="larger than the image"):
            shrink(photo(20, 30), preset, Size(20, 31))

    def test_plain_form_holds_every_number(self):
        assert ANTIALIAS.plain == {
            "name": "antialias",
            "sampling": "Bicubic",
            "a": -0.5,
            "finer": 4,
            "finest_side": 4096,
        }
        assert PAPER.plain == {"name": "paper", "sampling": "PointSampling"}
