"""Kernels: sum, middle, width and known values; and what applies them."""

from __future__ import annotations

import numpy as np
import pytest

from lrbench.corruptions.blur import (
    bessel_j1,
    disk,
    filtered,
    gaussian,
    gaussian_blur,
    line,
    plateau,
    sharpened,
    sinc,
    support,
)

KERNELS = {
    "round": gaussian(support(1.3), 1.3, 1.3),
    "turned": gaussian(21, 3.0, 1.1, 0.7),
    "pointed": gaussian(15, 1.5, 0.8, -2.0, beta=0.5),
    "flat": gaussian(15, 2.0, 2.0, beta=4.0),
    "plateau": plateau(21, 1.5, 0.6, 1.1, 1.7),
    "sinc": sinc(21, 2.0),
    "sinc of all frequencies": sinc(7, np.pi),
    "disk": disk(3.4),
    "line": line(5.3, 0.9),
    "short line": line(0.4, -2.2),
    "no line": line(0.0, 1.0),
}


def moments(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middle x, y and covariance of a kernel about its central px."""
    radius = kernel.shape[0] // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    offsets = np.stack([x, y]).reshape(2, -1)
    middle = offsets @ kernel.ravel()
    away = offsets - middle[:, None]
    return middle, (away * kernel.ravel()) @ away.T


def turned(along: float, across: float, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s], [s, c]])
    return turn @ np.diag([along, across]) @ turn.T


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_every_kernel_is_odd_sums_to_one_and_moves_nothing(kernel):
    assert kernel.shape[0] == kernel.shape[1]
    assert kernel.shape[0] % 2 == 1
    assert kernel.sum() == pytest.approx(1, abs=1e-12)
    assert np.abs(moments(kernel)[0]).max() < 1e-9


class TestShapes:
    def test_gaussian_covariance(self):
        for sigmas, angle in (((1.5, 1.5), 0.0), ((3.0, 1.0), 0.6), ((1.0, 2.5), -1.2)):
            kernel = gaussian(41, *sigmas, angle)
            assert moments(kernel)[1] == pytest.approx(turned(sigmas[0] ** 2, sigmas[1] ** 2, angle), abs=1e-3)

    def test_support_leaves_nothing_to_see(self):
        assert [support(s) for s in (0.2, 1.0, 1.6, 7.2)] == [3, 7, 11, 45]
        assert gaussian(support(2.0), 2.0, 2.0)[support(2.0) // 2, 0] < 0.012 * gaussian(13, 2.0, 2.0).max()

    def test_generalised_and_plateau_values(self):
        beta, at = 1.7, (2.0 / 1.5) ** 2
        bell, flat = gaussian(9, 1.5, 1.5, beta=beta), plateau(9, 1.5, 1.5, 0.0, beta)
        assert bell[4, 6] / bell[4, 4] == pytest.approx(np.exp(-0.5 * at**beta))
        assert flat[6, 4] / flat[4, 4] == pytest.approx(1 / (1 + at**beta))

    def test_a_shifted_gaussian_lies_to_the_right_and_below(self):
        assert moments(gaussian(25, 2.0, 2.0, shift=1.5))[0] == pytest.approx([1.5, 1.5], abs=1e-5)

    def test_disk(self):
        kernel = disk(3.0)
        assert kernel.shape == (7, 7)
        assert kernel[3, 3] == pytest.approx(1 / (9 * np.pi), rel=0.01)
        assert kernel[0, 0] == 0
        assert moments(disk(5.5))[1] == pytest.approx(np.eye(2) * 5.5**2 / 4, rel=0.02, abs=1e-9)

    @pytest.mark.parametrize("angle", [0.0, 0.5, np.pi / 2, 2.6])
    def test_line(self, angle):
        middle, covariance = moments(line(8.0, angle))
        assert middle == pytest.approx([0, 0], abs=1e-9)
        # a uniform line has length^2 / 12; sharing its points between px adds at most a quarter of a px^2
        extra = covariance - turned(8.0**2 / 12, 0.0, angle)
        assert extra.diagonal().min() > -0.01
        assert extra.diagonal().max() < 0.26
        assert np.abs(extra[0, 1]) < 0.05

    def test_horizontal_line_of_three_pixels(self):
        assert line(3.0, 0.0)[2] == pytest.approx([1 / 24, 7 / 24, 1 / 3, 7 / 24, 1 / 24], abs=0.01)
        assert line(0.0, 1.0).tolist() == [[1.0]]

    def test_sinc_passes_low_frequencies_and_stops_high_ones(self):
        size, cutoff = 81, 1.2
        kernel, x = sinc(size, cutoff), np.arange(size) - size // 2
        gains = [float((kernel * np.cos(f * x)[None, :]).sum()) for f in (0.3, 0.6, 0.9, 1.6, 2.2)]
        assert gains[:3] == pytest.approx([1, 1, 1], abs=0.12)
        assert gains[3:] == pytest.approx([0, 0], abs=0.12)
        # the step between the middle's limit and its neighbours
        assert kernel[40, 40] / kernel[40, 41] == pytest.approx(cutoff / (2 * 0.4982890575672155), rel=1e-9)


class TestBessel:
    KNOWN: tuple[tuple[float, float], ...] = (  # Abramowitz and Stegun, table 9.1, and the first zero
        (0.0, 0.0),
        (0.5, 0.2422684577),
        (1.0, 0.4400505857),
        (3.8317059702, 0.0),
        (5.0, -0.3275791376),
        (10.0, 0.0434727462),
    )

    def test_known_values(self):
        for x, value in self.KNOWN:
            assert bessel_j1(np.array([x]))[0] == pytest.approx(value, abs=1e-10)

    def test_against_scipy(self):
        special = pytest.importorskip("scipy.special")
        x = np.linspace(0, 60, 400).reshape(20, 20)
        assert np.abs(bessel_j1(x) - special.j1(x)).max() < 1e-13

    def test_the_recurrence_at_large_x(self):
        # J0' = -J1, with J0 by its own integral
        def j0(x: float) -> float:
            return float(np.cos(x * np.sin((np.arange(200) + 0.5) * np.pi / 200)).mean())

        for x in (7.0, 20.0, 44.0):
            assert bessel_j1(np.array([x]))[0] == pytest.approx(-(j0(x + 1e-5) - j0(x - 1e-5)) / 2e-5, abs=1e-8)


class TestApplying:
    def test_filter_is_the_weighted_mean(self):
        rng = np.random.default_rng(0)
        picture, kernel = rng.random((9, 11, 3), np.float32), gaussian(3, 1.0, 0.7, 0.4, shift=0.3)
        expected = (kernel[:, :, None] * picture[3:6, 6:9]).sum(axis=(0, 1))
        assert filtered(picture, kernel)[4, 7] == pytest.approx(expected, abs=1e-6)

    def test_large_kernels_agree_with_the_sum_too(self):
        picture = np.random.default_rng(1).random((60, 64, 3), np.float32)
        kernel = gaussian(31, 6.0, 3.0, 0.8, shift=1.5)
        expected = (kernel[:, :, None] * picture[15:46, 20:51]).sum(axis=(0, 1))
        assert filtered(picture, kernel)[30, 35] == pytest.approx(expected, abs=1e-5)

    def test_round_blur_is_its_kernel(self):
        picture = np.random.default_rng(2).random((20, 24, 3), np.float32)
        expected = filtered(picture, gaussian(support(1.8), 1.8, 1.8))
        assert np.abs(gaussian_blur(picture, 1.8) - expected).max() < 1e-5
        assert gaussian_blur(picture, 0.0) is picture

    @pytest.mark.parametrize("shape", [(1, 1), (1, 5), (3, 2)])
    def test_constants_stay_even_in_pictures_smaller_than_the_kernel(self, shape):
        picture = np.full((*shape, 3), 0.3, np.float32)
        for blurred in (gaussian_blur(picture, 2.0), filtered(picture, line(9.0, 1.0)), sharpened(picture, 0.5, 1.0)):
            assert blurred.shape == picture.shape
            assert np.abs(blurred - 0.3).max() < 1e-5

    def test_sharpening_steepens_an_edge_within_range(self):
        picture = np.repeat(np.repeat([[0.2, 0.8]], 8, axis=1), 12, axis=0).astype(np.float32)[:, :, None].repeat(3, 2)
        sharp = sharpened(picture, 0.5, 1.0)
        assert sharp[6, 8, 0] > 0.85
        assert sharp[6, 7, 0] < 0.15
        assert sharpened(np.float32(5) * (picture - 0.2), 0.5, 1.0).max() <= 1
