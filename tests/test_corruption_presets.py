"""Degradations as wholes: numbers, where things end, what contrast stays, seeds, both levels."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import get_args

import cv2
import numpy as np
import pytest
import torch

from lrbench.corruptions import realesrgan
from lrbench.corruptions.blur import gaussian_blur, sharpened
from lrbench.corruptions.bsrgan import BSRGAN
from lrbench.corruptions.camera import Sensor, Surveillance
from lrbench.corruptions.corruption import Corruption, seed_of
from lrbench.corruptions.imagenet_c import Blur, Gauss, Jpeg, Shot
from lrbench.corruptions.noise import to_linear
from lrbench.corruptions.presets import CORRUPTIONS, SUMMARIES, load_corruption
from lrbench.corruptions.realesrgan import RealESRGAN
from lrbench.corruptions.resampling import at_scale, bicubic, inside, resize, to_float, to_pixels, warp
from lrbench.geometry import Alignment, Frame, Region, Size, apply, enlargement, invert, rescale
from lrbench.models.upscalers import UPSCALERS

CLEAN = dataclasses.replace(Sensor.at(1), white=None)
"""The deterministic part of a sensor: lens and pixel area."""

QUIET: dict[str, Corruption] = {
    "sensor": CLEAN,
    "surveillance": dataclasses.replace(Surveillance.coded(5, "jpeg"), white=None, quality=100),
    "realesrgan": RealESRGAN(
        noise_min=0.0,
        noise_max=0.0,
        noise_max2=0.0,
        poisson_min=0.0,
        poisson_max=0.0,
        poisson_max2=0.0,
        quality_min=100.0,
        quality_max=100.0,
    ),
    "bsrgan": BSRGAN(noise_min=0, noise_max=0, quality_min=100, quality_max=100),
    "jpeg": dataclasses.replace(Jpeg.at(1), quality=100),
    "gauss": dataclasses.replace(Gauss.at(1), sigma=0.0),
    "blur": Blur.at(1),
    "shot": dataclasses.replace(Shot.at(1), photons=1e12),
}
"""All presets without noise and nearly without compression."""


def every(*severities: int) -> list[Corruption]:
    """All presets without video, at some severities; at a single one those that have none."""
    loaded = []
    for name, kind in CORRUPTIONS.items():
        name = "surveillance-jpeg" if name == "surveillance" else name
        loaded += [load_corruption(name, severity) for severity in (severities if kind.graded else (0,))]
    return loaded


def label(corruption: object) -> str | None:
    if not isinstance(corruption, Corruption):
        return None
    return f"{corruption.name}-{vars(corruption).get('severity', 0)}"


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = generator(seed).uniform(0, 255, (height, width, 3))
    return cv2.GaussianBlur(noise, (0, 0), 1.0).clip(0, 255).astype(np.uint8)


def blob(height: int, width: int, center: np.ndarray, sigma: float) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    value = 0.25 + 0.5 * np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * sigma**2))
    return np.repeat(value.astype(np.float32)[:, :, None], 3, axis=2)


def centroid(picture: np.ndarray, near: np.ndarray, sigma: float = 2.0) -> np.ndarray:
    """Middle of a blob under a Gaussian window that follows it, so that noise far away does not count."""
    value = picture.mean(axis=2).astype(float)
    value -= np.median(np.concatenate([value[:2].ravel(), value[-2:].ravel(), value[:, :2].ravel()]))
    y, x = np.mgrid[: value.shape[0], : value.shape[1]]
    at = np.array(near, float)
    for _ in range(60):
        weight = value * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * sigma**2))
        at = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
    return at


def wave(height: int, width: int, cycles: float) -> np.ndarray:
    """Vertical stripes with so many cycles per px and amplitude 0.4."""
    row = 0.5 + 0.4 * np.cos(2 * np.pi * cycles * np.arange(width) + 0.4)
    return np.repeat(np.tile(row.astype(np.float32), (height, 1))[:, :, None], 3, axis=2)


def contrast(picture: np.ndarray, cycles: float, margin: int = 8) -> float:
    """Share of amplitude 0.4 that is left at a frequency in cycles per px, which may be folded."""
    row = picture[picture.shape[0] // 2, margin:-margin, 0].astype(float)
    x = np.arange(len(row)) + margin
    basis = np.stack([np.ones(len(row)), np.cos(2 * np.pi * cycles * x), np.sin(2 * np.pi * cycles * x)], axis=1)
    _, c, s = np.linalg.lstsq(basis, row, rcond=None)[0]
    return float(np.hypot(c, s) / 0.4)


def frame_matrix(align: str, factor: float, rotation: float, center: tuple[float, float]) -> np.ndarray:
    frame = Frame(Size(64, 48), align)
    return frame.matrix(Region(np.array(center), np.array([48, 64]) * factor), rotation)


class TestNumbers:
    def test_severities(self):
        def numbers(name: str, key: str) -> list[float]:
            return [vars(load_corruption(name, severity))[key] for severity in range(1, 6)]

        assert numbers("sensor", "white") == [5000, 2000, 800, 300, 120]
        assert numbers("sensor", "read") == [2, 3, 4, 6, 8]
        assert numbers("surveillance-jpeg", "white") == [None, 5000, 2000, 800, 300]
        assert numbers("surveillance-jpeg", "read") == [0, 2, 3, 4, 6]
        assert numbers("surveillance-jpeg", "motion") == [0, 0, 1, 2, 3]
        assert numbers("surveillance-jpeg", "crf") == [23, 28, 33, 38, 43]
        assert numbers("surveillance-jpeg", "quality") == [60, 45, 30, 20, 12]
        assert numbers("jpeg", "quality") == [25, 18, 15, 10, 7]
        assert numbers("gauss", "sigma") == [0.08, 0.12, 0.18, 0.26, 0.38]
        assert numbers("blur", "sigma") == [1, 2, 3, 4, 6]
        assert numbers("shot", "photons") == [60, 25, 12, 5, 3]

    @pytest.mark.parametrize("corruption", every(1, 2, 3, 4, 5), ids=label)
    def test_are_plain_and_survive_json(self, corruption):
        assert json.loads(json.dumps(vars(corruption))) == vars(corruption)

    def test_each_has_a_summary_and_its_name(self):
        assert list(SUMMARIES) == list(CORRUPTIONS)
        for name, kind in CORRUPTIONS.items():
            assert load_corruption(name, 1 if kind.graded else 0).name.removesuffix("-jpeg") == name

    def test_shares_of_blurs_leave_some_for_turned_plateaus(self):
        c = RealESRGAN()
        used = c.round_share + c.turned_share + c.general_round_share + c.general_turned_share + c.plateau_round_share
        assert 1 - used == pytest.approx(0.03)


class TestMessages:
    def test_unknown_name(self):
        with pytest.raises(ValueError, match=r"unknown degradation 'sensr'; did you mean sensor\?"):
            load_corruption("sensr", 1)
        with pytest.raises(ValueError, match="unknown degradation 'xyz'; known: sensor, surveillance, realesrgan"):
            load_corruption("xyz")

    @pytest.mark.parametrize("name", [n for n, kind in CORRUPTIONS.items() if kind.graded])
    @pytest.mark.parametrize("severity", [0, 6])
    def test_severities_that_do_not_exist(self, name, severity):
        with pytest.raises(ValueError, match=rf"preset {name}: severity {severity}; expected 1 \(mild\) to 5 \(hard\)"):
            load_corruption(name, severity)

    @pytest.mark.parametrize("name", ["realesrgan", "bsrgan"])
    def test_severities_of_what_has_none(self, name):
        with pytest.raises(ValueError, match=f"preset {name} has no severities: severity 2"):
            load_corruption(name, 2)


class TestSeeds:
    def test_is_the_hash_of_its_words(self):
        words = b"lrbench-degrade/1|sensor|crop|3|64x48|7|139|12345"
        expected = int.from_bytes(hashlib.sha256(words).digest()[:8], "big")
        assert seed_of("sensor", "crop", 3, Size(64, 48), 7, 139, 12345) == expected
        words = b"lrbench-degrade/1|bsrgan|image|0|4|0|139"
        expected = int.from_bytes(hashlib.sha256(words).digest()[:8], "big")
        assert seed_of("bsrgan", "image", 0, 4.0, 0, 139) == seed_of("bsrgan", "image", 0, 4, 0, 139) == expected

    def test_every_word_counts(self):
        base = ("sensor", "crop", 3, 4.0, 7, 139, 12345)
        others = ("shot", "image", 2, 4.1, 8, 140, 12346)
        seeds = {seed_of(*base[:i], other, *base[i + 1 :]) for i, other in enumerate(others)}
        assert len(seeds | {seed_of(*base), seed_of(*base[:-1])}) == len(others) + 2

    @pytest.mark.parametrize("corruption", every(4), ids=label)
    def test_decide_everything_whatever_the_order(self, corruption):
        images, size = [photo(61, 83, seed) for seed in range(3)], Size(15, 21)
        originals = [image.copy() for image in images]
        matrix = frame_matrix("biased", 1.7, 20, (40, 30))
        np_state, state = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002 the one nobody may use

        def both(i: int) -> tuple[np.ndarray, np.ndarray]:
            return (
                corruption.shrink(images[i], size, generator(i)),
                corruption.crop(images[i], matrix, Size(64, 48), generator(i)),
            )

        forward = [both(i) for i in range(3)]
        backward = [both(i) for i in reversed(range(3))][::-1]
        for one, other in zip(forward, backward, strict=True):
            assert np.array_equal(one[0], other[0])
            assert np.array_equal(one[1], other[1])
        assert np.array_equal(np.random.get_state()[1], np_state)  # noqa: NPY002
        assert random.getstate() == state
        assert all(np.array_equal(a, b) for a, b in zip(images, originals, strict=True))

    @pytest.mark.parametrize("corruption", every(4), ids=label)
    def test_another_seed_is_another_crop_unless_nothing_is_drawn(self, corruption):
        image, matrix = photo(90, 80), frame_matrix("biased", 1.2, 0, (40, 45))
        one, other = (corruption.crop(image, matrix, Size(64, 48), generator(seed)) for seed in (0, 1))
        assert np.array_equal(one, other) == (corruption.name == "blur")


class TestShapes:
    @pytest.mark.parametrize("corruption", every(5), ids=label)
    @pytest.mark.parametrize(
        ("shape", "size"),
        [((61, 83), Size(15, 21)), ((3, 5), Size(1, 1)), ((40, 40), Size(40, 40)), ((37, 200), Size(36, 20))],
        ids=str,
    )
    def test_pictures_of_any_size_become_uint8(self, corruption, shape, size):
        small = corruption.shrink(photo(*shape), size, generator())
        assert small.shape == (size.height, size.width, 3)
        assert small.dtype == np.uint8

    @pytest.mark.parametrize("corruption", every(5), ids=label)
    @pytest.mark.parametrize("factor", [0.5, 1.0, 3.3, 9.0])
    def test_crops(self, corruption, factor):
        crop = corruption.crop(photo(90, 80), frame_matrix("corner", factor, 15, (40, 45)), Size(64, 48), generator())
        assert crop.shape == (64, 48, 3)
        assert crop.dtype == np.uint8

    def test_rounding_there_and_back(self):
        pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
        assert np.array_equal(to_pixels(to_float(pixels)), pixels)
        assert to_pixels(np.array([-0.1, 0.0021, 1.2], np.float32)).tolist() == [0, 1, 255]


class TestResampling:
    @pytest.mark.parametrize(("shape", "size"), [((37, 29), Size(11, 9)), ((24, 32), Size(6, 8)), ((9, 7), Size(1, 2))])
    def test_area_is_the_exact_mean_of_what_a_pixel_covers(self, shape, size):
        def shares(n: int, m: int) -> np.ndarray:
            edge, start = np.arange(m + 1) * n / m, np.arange(n)
            covered = np.minimum(edge[1:, None], start + 1) - np.maximum(edge[:-1, None], start)
            return np.clip(covered, 0, None) * m / n

        picture = generator().random((*shape, 3), np.float32)
        expected = np.einsum("ih,jw,hwc->ijc", shares(shape[0], size.height), shares(shape[1], size.width), picture)
        assert np.abs(resize(picture, size, "area") - expected).max() < 1e-5

    def test_overshoot_is_clipped(self):
        edge = np.repeat([0.0, 1.0], 20).astype(np.float32)[None, :, None].repeat(40, 0).repeat(3, 2)
        for small in (resize(edge, Size(40, 33), "cubic"), bicubic(edge, Size(10, 11))):
            assert small.min() == 0
            assert small.max() == 1
        for seed in range(30):
            small = RealESRGAN().apply(edge, Size(10, 10), generator(seed), cropped=False)
            assert 0 <= small.min() <= small.max() <= 1

    def test_scale_is_reached_from_both_sides(self):
        for shape in ((400, 300), (40, 30), (22, 16), (161, 119)):
            assert at_scale(to_float(photo(*shape)), Size(10, 8), 4).shape == (40, 32, 3)
        picture = to_float(photo(40, 32))
        assert at_scale(picture, Size(10, 8), 4) is picture

    @pytest.mark.parametrize("rotation", [0.0, 40.0])
    def test_inside_is_where_the_image_is(self, rotation):
        image = np.full((90, 80, 3), 200, np.uint8)
        matrix = frame_matrix("dark", 1.7, rotation, (70, 20))
        mask = inside(image, matrix, Size(64, 48))
        cut = cv2.warpAffine(image, matrix, (48, 64), flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0))
        assert mask.shape == (64, 48, 1)
        # a bilinear cut fades out over one px of the image about its edge, and is half as bright on it
        assert np.count_nonzero((mask[:, :, 0] > 0) != (cut[:, :, 0] > 99)) < 4
        assert 0.3 < mask.mean() < 0.9

    def test_a_crop_within_the_image_has_no_outside(self):
        assert inside(photo(90, 80), frame_matrix("biased", 1.0, 10, (40, 45)), Size(64, 48)).all()


class TestWhere:
    """A blob a bit wider than a small pixel ends where the coordinates say."""

    @pytest.mark.parametrize("scale", [2.0, 3.3, 4.0, 7.0])
    def test_deterministic_parts_at_image_level(self, scale):
        height, width = 201, 227
        size = Size(round(height / scale), round(width / scale))
        factors = (size.width / width, size.height / height)
        parts = {
            "area": lambda p: resize(p, size, "area"),
            "bicubic": lambda p: bicubic(p, size),
            "linear": lambda p: resize(p, size, "linear"),
            "cubic": lambda p: resize(p, size, "cubic"),
            "scale": lambda p: at_scale(p, Size(size.height // 2, size.width // 2), 2),
            "lens": lambda p: CLEAN.apply(p, size, generator(), cropped=False),
            "blur": lambda p: load_corruption("blur", 1).apply(p, size, generator(), cropped=False),
            "mask": lambda p: sharpened(resize(p, size, "area"), 0.5, 1.0),
        }
        for center in generator().uniform((90, 80), (140, 120), (2, 2)):
            picture = blob(height, width, center, 1.5 * scale)
            for name, part in parts.items():
                small = part(picture)
                scales = (small.shape[1] / width, small.shape[0] / height) if name == "scale" else factors
                expected = rescale(center, scales)
                assert np.abs(centroid(small, expected) - expected).max() < 0.02, name

    @staticmethod
    def quiet(name: str, make: Callable[[Corruption, np.random.Generator], np.ndarray]) -> np.ndarray:
        """What a preset without noise makes, in [0, 1]; the mean of some draws where blurs and sizes are drawn too."""
        draws = 24 if name in ("realesrgan", "bsrgan") else 1
        return np.mean([to_float(make(QUIET[name], generator(seed))) for seed in range(draws)], axis=0)

    @pytest.mark.parametrize("name", QUIET)
    @pytest.mark.parametrize("scale", [2.0, 3.3, 4.0, 7.0])
    def test_presets_without_noise_at_image_level(self, name, scale):
        height, width, center = 201, 227, np.array([113.4, 96.8])
        size, image = Size(round(height / scale), round(width / scale)), to_pixels(blob(201, 227, center, 1.5 * scale))
        small = self.quiet(name, lambda corruption, rng: corruption.shrink(image, size, rng))
        expected = rescale(center, (size.width / width, size.height / height))
        assert np.abs(centroid(small, expected) - expected).max() < 0.02

    @pytest.mark.parametrize("name", QUIET)
    @pytest.mark.parametrize(("factor", "rotation"), [(0.6, 0.0), (1.5, 33.0), (3.0, 0.0), (6.0, 33.0), (9.0, 0.0)])
    @pytest.mark.parametrize("align", get_args(Alignment))
    def test_presets_without_noise_at_crop_level(self, name, factor, rotation, align):
        """And after bicubic enlargement, through the composed map, in px of the small crop."""
        size, matrix = Size(64, 48), frame_matrix(align, factor, rotation, (301.3, 322.8))
        center = np.array([300.0, 320.0]) + generator().uniform(-4, 4, 2) * factor
        # enlarged bilinearly, a blob hardly wider than a px of the photograph is no blob any more
        image = to_pixels(blob(640, 600, center, max(1.5 * factor, 2.0)))
        small = self.quiet(name, lambda corruption, rng: corruption.crop(image, matrix, size, rng))
        expected = apply(matrix, center)
        assert np.abs(centroid(small, expected) - expected).max() < 0.02

        pixels = torch.from_numpy(small).permute(2, 0, 1)[None].float()
        large = UPSCALERS["bicubic"].build(4)(pixels)[0].permute(1, 2, 0).numpy()
        composed = enlargement(Frame(size, align), 4, "composed")
        found = centroid(large, apply(composed, expected), sigma=8.0)
        assert np.abs(apply(invert(composed), found) - expected).max() < 0.02

    @pytest.mark.parametrize("s", [2, 4])
    def test_every_s_th_pixel_after_the_shifted_kernel(self, s):
        stride = dataclasses.replace(BSRGAN(), interpolated=0.0)
        center = np.array([55.7, 46.9])
        for seed in range(5):
            small = stride._shrunk(blob(96, 112, center, 1.5 * s), s, generator(seed))
            expected = rescale(center, (1 / s, 1 / s))
            assert np.abs(centroid(small, expected) - expected).max() < 0.02

    # blurs beyond 2 px are wider than the picture of this test, and draw nothing
    @pytest.mark.parametrize(
        "corruption", [c for c in every(1, 3, 5) if c.name != "blur" or vars(c)["sigma"] < 2], ids=label
    )
    def test_mean_of_many_draws(self, corruption):
        self.assert_mean_moves_nothing(corruption, draws=200)

    @pytest.mark.parametrize("severity", [1, 3])
    def test_mean_of_many_clips(self, severity):
        pytest.importorskip("av")
        self.assert_mean_moves_nothing(Surveillance.coded(severity, "h264"), draws=60)

    @staticmethod
    def assert_mean_moves_nothing(corruption: Corruption, draws: int) -> None:
        # as a crop, and at four places: where blocks end pulls at a blob, and only their grid is drawn
        size, misses = Size(24, 28), []
        for place, center in enumerate(generator().uniform((46, 38), (66, 58), (4, 2))):
            picture, seeds = blob(96, 112, center, 6.0), range(place * draws, (place + 1) * draws)
            mean = np.mean([corruption.apply(picture, size, generator(i), cropped=True) for i in seeds], axis=0)
            expected = rescale(center, (0.25, 0.25))
            misses.append(centroid(mean, expected) - expected)
        assert np.abs(np.mean(misses, axis=0)).max() < 0.05

    def test_flipping_before_or_after_is_the_same_where_the_width_is_a_multiple(self):
        image = photo(48, 64)
        flipped = np.ascontiguousarray(image[:, ::-1])
        for corruption in (CLEAN, load_corruption("blur", 2)):
            one = corruption.shrink(image, Size(12, 16), generator())
            other = corruption.shrink(flipped, Size(12, 16), generator())[:, ::-1]
            assert np.abs(one.astype(int) - other).max() <= 1


class TestContrast:
    """Shares of contrast left of waves with 0.1 ... 1.3 cycles per small px."""

    CYCLES = (0.1, 0.25, 0.45, 0.6, 0.8, 0.97, 1.3)
    BICUBIC = (1.00, 0.94, 0.61, 0.27, 0.03, 0.00, 0.01)
    AREA = (0.98, 0.91, 0.71, 0.52, 0.25, 0.03, 0.24)
    SOFT = (0.95, 0.72, 0.35, 0.15, 0.03, 0.01, 0.00)

    def test_area(self):
        for cycles, share in zip(self.CYCLES, self.AREA, strict=True):
            small = resize(wave(40, 1600, cycles / 4), Size(10, 400), "area")
            assert contrast(small, cycles) == pytest.approx(share, abs=0.02), cycles

    @pytest.mark.parametrize(
        ("corruption", "shares"),
        [
            (QUIET["jpeg"], BICUBIC),
            (QUIET["gauss"], BICUBIC),
            (QUIET["shot"], BICUBIC),
            (dataclasses.replace(QUIET["blur"], sigma=0.0), BICUBIC),
            (dataclasses.replace(CLEAN, lens=0.0), AREA),
            (dataclasses.replace(QUIET["surveillance"], lens=0.0, motion=0.0, amount=0.0), AREA),
        ],
        ids=label,
    )
    def test_samplers_of_whole_presets(self, corruption, shares):
        for cycles, share in zip(self.CYCLES, shares, strict=True):
            image = to_pixels(wave(40, 1600, cycles / 4))
            small = to_float(corruption.shrink(image, Size(10, 400), generator()))
            assert contrast(small, cycles) == pytest.approx(share, abs=0.02), cycles

    def test_gaussian_of_half_a_small_pixel_then_bilinear(self):
        for cycles, share in zip(self.CYCLES, self.SOFT, strict=True):
            small = resize(gaussian_blur(wave(40, 1600, cycles / 4), 0.5 * 4), Size(10, 400), "linear")
            assert contrast(small, cycles) == pytest.approx(share, abs=0.02), cycles

    @pytest.mark.parametrize("scale", [2, 4, 8])
    def test_a_lens_means_the_same_at_every_scale(self, scale):
        for cycles in (0.1, 0.25, 0.45):
            stripes = wave(10 * scale, 400 * scale, cycles / scale)
            small = CLEAN.apply(stripes, Size(10, 400), generator(), cropped=False)
            # box of one px times the Gaussian; the box of few samples is a little weaker
            lens = np.exp(-2 * (np.pi * CLEAN.lens * cycles) ** 2)
            box = np.sin(np.pi * cycles) / (scale * np.sin(np.pi * cycles / scale))
            assert contrast(small, cycles) == pytest.approx(lens * box, abs=0.02)

    @pytest.mark.parametrize("factor", [2.7, 6.0, 9.0])
    def test_crops_are_averaged_as_pictures_are(self, factor):
        size = Size(8, 48)
        sharp = dataclasses.replace(CLEAN, lens=0.0)
        side = int(factor * 56)
        for cycles in (0.25, 0.6, 1.3):
            image = to_pixels(wave(side, side, cycles / factor))
            region = Region(np.array([(side - 1) / 2] * 2), np.array([48, 8]) * factor)
            picture = warp(image, Frame(size, "biased").matrix(region), size, finer=4, finest_side=4096)
            small = sharp.apply(picture, size, generator(), cropped=True)
            # the box, and what bilinear sampling of the photograph has cost before
            share = abs(np.sinc(cycles)) * np.sinc(cycles / factor) ** 2
            assert contrast(small, cycles, margin=4) == pytest.approx(share, abs=0.04)


class TestLevels:
    EXACT = np.array([[1 / 4, 0, -3 / 8], [0, 1 / 4, -3 / 8]])
    """Every 4x4 px become one: a crop that is the whole picture."""

    # without those whose block grids start anywhere in a crop
    @pytest.mark.parametrize(
        "corruption", [CLEAN, *(load_corruption(name, 2) for name in ("sensor", "gauss", "blur", "shot"))], ids=label
    )
    def test_a_crop_of_the_whole_picture_is_the_whole_picture(self, corruption):
        image, size = photo(128, 96), Size(32, 24)
        whole = corruption.shrink(image, size, generator())
        cropped = corruption.crop(image, self.EXACT, size, generator())
        assert np.abs(whole.astype(int) - cropped).max() <= 1

    @pytest.mark.parametrize("corruption", every(3), ids=label)
    def test_black_outside_the_picture_without_noise(self, corruption):
        size, image = Size(16, 12), np.full((60, 60, 3), 200, np.uint8)
        frame = Frame(size, "biased")
        away, half = (
            corruption.crop(image, frame.matrix(Region(np.array(c), np.array([36.0, 48.0]))), size, generator())
            for c in ((900.0, 900.0), (0.0, 30.0))
        )
        assert not away.any()
        assert not half[:, :6].any()
        assert half[:, 6:].mean() > 120

    def test_no_false_edge_at_the_end_of_the_picture(self):
        image, size = np.full((60, 60, 3), 200, np.uint8), Size(16, 12)
        matrix = Frame(size, "biased").matrix(Region(np.array([0.0, 30.0]), np.array([36.0, 48.0])))
        for corruption in (CLEAN, load_corruption("jpeg", 5), load_corruption("blur", 5)):
            assert np.abs(corruption.crop(image, matrix, size, generator())[:, 6:].astype(int) - 200).max() <= 3

    def test_only_the_seen_part_decides(self):
        image, matrix = photo(300, 400), frame_matrix("dark", 3.0, 25, (200, 150))
        sensor = Sensor.at(3)
        small = sensor.crop(image, matrix, Size(64, 48), generator())
        image[:15] = image[-15:] = 255
        assert np.array_equal(sensor.crop(image, matrix, Size(64, 48), generator()), small)

    @pytest.mark.parametrize("name", ["realesrgan", "bsrgan"])
    def test_learned_ones_mean_the_same_at_every_scale(self, name):
        """A picture twice as large in every direction ends as the same small one."""
        picture = to_float(photo(64, 96))
        twice = picture.repeat(2, axis=0).repeat(2, axis=1)
        corruption, size = load_corruption(name), Size(16, 24)
        for seed in range(4):
            one, other = (corruption.apply(p, size, generator(seed), cropped=False) for p in (picture, twice))
            assert np.abs(one - other).max() < 1e-4


class TestVariety:
    @pytest.mark.parametrize("scale", [1, 4])
    def test_noise_is_that_of_small_pixels(self, scale):
        flat, size = np.full((60 * scale, 60 * scale, 3), 124, np.uint8), Size(60, 60)  # 0.2 of the light of white
        sensor, camera = Sensor.at(3), dataclasses.replace(Surveillance.coded(4, "jpeg"), amount=0.0, quality=100)
        luma = np.array([0.299, 0.587, 0.114])  # the only thing that JPEG keeps of each px
        for corruption in (sensor, camera):
            light = to_linear(to_float(corruption.shrink(flat, size, generator()))) @ luma
            assert light.mean() / light.std() == pytest.approx(12.06 / np.linalg.norm(luma), rel=0.06)

    def test_motion_smears_by_its_length_in_small_pixels(self):
        camera = dataclasses.replace(
            Surveillance.coded(5, "jpeg"), white=None, lens=0.0, amount=0.0, motion=12.0, quality=100
        )
        y, x = np.mgrid[:60, :60] - 29.5
        for scale in (1, 4):
            picture, angles = blob(60 * scale, 60 * scale, np.full(2, 29.5 * scale + (scale - 1) / 2), 2.0 * scale), []
            for seed in range(3):
                value = camera.apply(picture, Size(60, 60), generator(seed), cropped=False).mean(axis=2) - 64 / 255
                value[value < 0.01] = 0
                spread = np.cov(np.stack([x.ravel(), y.ravel()]), aweights=value.ravel())
                across, along = np.linalg.eigvalsh(spread)
                assert along - across == pytest.approx(12**2 / 12, rel=0.12)
                angles.append(spread[0, 1])
            assert len({round(a) for a in angles}) > 1

    def test_blurs_of_real_esrgan(self, monkeypatch):
        seen: Counter[str] = Counter()

        def counted(name: str) -> Callable[..., np.ndarray]:
            made = getattr(realesrgan, name)

            def count(*args: float, **options: float) -> np.ndarray:
                seen["generalised" if "beta" in options else name] += 1
                return made(*args, **options)

            return count

        for name in ("gaussian", "plateau", "sinc"):
            monkeypatch.setattr(realesrgan, name, counted(name))
        corruption, rng = RealESRGAN(), generator()
        sides = {corruption._kernel(rng, 3.0).shape[0] for _ in range(4000)}
        assert sides == set(range(7, 22, 2))
        shares = {name: count / 4000 for name, count in seen.items()}
        expected = {"gaussian": 0.63, "generalised": 0.135, "plateau": 0.135, "sinc": 0.1}
        assert shares == pytest.approx(expected, abs=0.03)
        kernels = [corruption._kernel(rng, 3.0) for _ in range(1000)]
        turned = [k for k in kernels if not np.allclose(k, k.T)]
        assert len(turned) / 1000 == pytest.approx(0.9 * (0.25 + 0.03 + 0.03), abs=0.04)

    def test_kernels_of_bsrgan(self):
        c, rng = BSRGAN(), generator()
        made = [c._kernel(9, 4, rng) for _ in range(500)]
        assert all(np.isfinite(k).all() and k.sum() == pytest.approx(1) for k in made)
        turned = [k for k in made if not np.allclose(k, k.T)]
        assert len(turned) / len(made) == pytest.approx(0.5, abs=0.07)
