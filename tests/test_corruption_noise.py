"""Noise: its strength, its light, what clips."""

from __future__ import annotations

import numpy as np
import pytest

from lrbench.corruptions.camera import READ, WHITE
from lrbench.corruptions.noise import (
    correlated_noise,
    gaussian_noise,
    poisson_noise,
    sensor_noise,
    shot_noise,
    to_linear,
    to_srgb,
)


def flat(value: float, side: int = 120) -> np.ndarray:
    return np.full((side, side, 3), value, np.float32)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class TestLight:
    def test_known_values(self):
        srgb = np.array([0, 0.04045, 0.5, 1], np.float32)
        light = np.array([0, 0.04045 / 12.92, 0.2140411, 1], np.float32)
        assert to_linear(srgb) == pytest.approx(light, abs=1e-6)
        assert to_srgb(light) == pytest.approx(srgb, abs=1e-6)

    def test_there_and_back(self):
        values = np.linspace(0, 1, 1001, dtype=np.float32)
        assert np.abs(to_srgb(to_linear(values)) - values).max() < 2e-6
        assert to_srgb(values).dtype == to_linear(values).dtype == np.float32


class TestSensor:
    @pytest.mark.parametrize(
        ("severity", "expected"), list(zip(range(1, 6), (31.6, 19.8, 12.1, 6.1, 2.6), strict=True)), ids=str
    )
    def test_signal_to_noise_at_mid_grey(self, severity, expected):
        white, read = WHITE[severity - 1], READ[severity - 1]
        noisy = sensor_noise(to_srgb(flat(0.2)), white, read, generator())
        light = to_linear(noisy).astype(float)
        assert light.mean() / light.std() == pytest.approx(expected, rel=0.05)
        assert light.mean() == pytest.approx(0.2, rel=0.02)

    def test_noise_is_independent_per_pixel_and_colour(self):
        noisy = sensor_noise(flat(0.5), 800, 4, generator()) - 0.5
        colours = np.corrcoef(noisy.reshape(-1, 3).T)
        neighbours = np.corrcoef(noisy[:, :-1].ravel(), noisy[:, 1:].ravel())
        assert np.abs(colours - np.eye(3)).max() < 0.03
        assert abs(neighbours[0, 1]) < 0.03

    def test_values_without_light_are_clipped(self):
        noisy = sensor_noise(np.concatenate([flat(-0.2, 8), flat(1.3, 8)]), 300, 6, generator())
        assert np.isfinite(noisy).all()
        assert noisy.min() >= 0
        assert noisy.max() <= 1


class TestLiterature:
    def test_gaussian(self):
        noise = gaussian_noise(flat(0.5), 0.08, generator()) - 0.5
        assert noise.std() == pytest.approx(0.08, rel=0.02)
        assert np.abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.03

    def test_grey_noise_has_one_draw_for_three_colours(self):
        for noisy in (
            gaussian_noise(flat(0.5), 0.08, generator(), grey=True),
            poisson_noise(flat(0.5), 0.2, generator(), grey=True),
        ):
            assert np.ptp(noisy, axis=2).max() == 0
            assert noisy.std() > 0.05

    def test_covariance(self):
        covariance = np.array([[4.0, 2.0, 0.0], [2.0, 3.0, -1.0], [0.0, -1.0, 1.0]]) / 1000
        noise = correlated_noise(flat(0.5), covariance, generator()) - 0.5
        assert np.cov(noise.reshape(-1, 3).T) == pytest.approx(covariance, abs=1.5e-4)

    def test_poisson_counts_distinct_values(self):
        # 200 values of 255 are used: 256 photons at white
        picture = (np.arange(120 * 120 * 3) % 200 + 20).reshape(120, 120, 3).astype(np.float32) / 255
        noise = poisson_noise(picture, 1.0, generator()) - picture
        middle = np.abs(picture - 0.5) < 0.05
        assert noise[middle].std() == pytest.approx(np.sqrt(0.5 / 256), rel=0.03)
        few = np.where(picture > 0.5, np.float32(0.5), np.float32(0.25))  # 2 values, 2 photons
        noise = poisson_noise(few, 0.1, generator()) - few
        assert noise[few == 0.5].std() == pytest.approx(0.1 * np.sqrt(0.5 / 2), rel=0.03)

    def test_a_constant_picture_has_one_photon(self):
        noise = poisson_noise(flat(102 / 255), 0.1, generator()) - np.float32(102 / 255)
        assert noise.std() == pytest.approx(0.1 * np.sqrt(0.4), rel=0.03)

    def test_shot(self):
        noise = shot_noise(flat(0.4), 60, generator()) - 0.4
        assert noise.std() == pytest.approx(np.sqrt(0.4 / 60), rel=0.03)

    @pytest.mark.parametrize("value", [-0.1, 1.2])
    def test_poisson_noises_clip_first(self, value):
        for noisy in (
            poisson_noise(flat(value, 8), 1.0, generator()),
            poisson_noise(flat(value, 8), 1.0, generator(), grey=True),
            shot_noise(flat(value, 8), 60, generator()),
        ):
            assert noisy.min() >= 0
            assert noisy.max() <= 1
            assert noisy.dtype == np.float32
            if value < 0:  # no light, no noise
                assert noisy.max() == 0
