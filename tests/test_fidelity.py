"""PSNR, SSIM and gradient distance against loops over pixels, known values, and what must not matter."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from lrbench.fidelity import BORDER, HIGHEST_PSNR, Fidelity, fidelity, luma, mean, per_picture, psnr, ssim

FIELDS = ("psnr", "ssim", "gradient_l1")


def picture(height: int = 23, width: int = 20, batch: int = 2, seed: int = 1) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def plain(colour: tuple[float, float, float], size: int = 20) -> Tensor:
    return torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, size, size)


def levels(pixels: Tensor) -> np.ndarray:
    """8-bit pixels (h, w, 3), as a file would hold them."""
    return np.rint(np.clip(pixels.numpy().astype(np.float64), 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def slow_luma(image: np.ndarray) -> np.ndarray:
    out = np.zeros(image.shape[:2])
    for i, j in np.ndindex(*out.shape):
        red, green, blue = (int(v) / 255 for v in image[i, j])
        out[i, j] = 16 + 65.481 * red + 128.553 * green + 24.966 * blue
    return out


def slow_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Window by window, with its weights in two dimensions and centred moments."""
    window = np.array([[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / 4.5) for j in range(11)] for i in range(11)])
    window /= window.sum()
    small, large = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            x, y = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            both = (window * (x - mx) * (y - my)).sum()
            found.append(
                (2 * mx * my + small) * (2 * both + large) / ((mx**2 + my**2 + small) * (vx + vy + large)),
            )
    return sum(found) / len(found)


def slow_gradient_l1(a: np.ndarray, b: np.ndarray) -> float:
    def steepness(image: np.ndarray) -> np.ndarray:
        framed = np.pad(image / 255, ((1, 1), (1, 1), (0, 0)))
        out = np.zeros(image.shape)
        for i, j, c in np.ndindex(*out.shape):
            down = framed[i + 2, j + 1, c] - framed[i, j + 1, c]
            right = framed[i + 1, j + 2, c] - framed[i + 1, j, c]
            out[i, j, c] = math.sqrt(down**2 + right**2 + 1e-6)
        return out

    return float(np.abs(steepness(a) - steepness(b)).mean())


def test_against_loops():
    # out of [0, 1] and between 8-bit levels, as what a network emits; similar enough for a telling SSIM
    target = picture()
    made = target + 0.8 * (picture(seed=2) - 0.5)
    cut = np.s_[4:-4, 4:-4]
    for scores, ours, theirs in zip(per_picture(made, target), made, target, strict=True):
        a, b = levels(ours), levels(theirs)
        x, y = slow_luma(a)[cut], slow_luma(b)[cut]
        assert scores.psnr == pytest.approx(cv2.PSNR(x, y), abs=1e-9)
        assert scores.ssim == pytest.approx(slow_ssim(x, y), abs=1e-12)
        assert 0.3 < scores.ssim < 0.95
        assert scores.gradient_l1 == pytest.approx(slow_gradient_l1(a, b), abs=1e-12)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((0, 0, 0), 16),
        ((1, 1, 1), 235),
        ((1, 0, 0), 81.481),
        ((0, 1, 0), 144.553),
        ((0, 0, 1), 40.966),
        ((0.5004, 0.5004, 0.5004), 16 + 219 * 128 / 255),  # 127.6 is stored as 128
        ((-3, 2, 0.001), 144.553),  # clamped; a quarter of a level is none
    ],
)
def test_luma_of_colours(colour: tuple[float, float, float], expected: float):
    assert luma(plain(colour)).dtype == torch.float64
    torch.testing.assert_close(luma(plain(colour)), torch.full((1, 20, 20), expected, dtype=torch.float64))


def test_plain_pictures_have_known_values():
    grey, lighter = plain((100 / 255,) * 3), plain((110 / 255,) * 3)
    scores = fidelity(lighter, grey)
    y, step = 16 + 219 * 100 / 255, 219 * 10 / 255
    assert scores.psnr == pytest.approx(20 * math.log10(255 / step))
    # no contrast, no structure: SSIM is the luminance term alone
    constant = 2.55**2
    expected = (2 * y * (y + step) + constant) / (y**2 + (y + step) ** 2 + constant)
    assert scores.ssim == pytest.approx(expected, abs=1e-9)


def test_a_picture_without_difference():
    x = picture()
    assert fidelity(x, x) == Fidelity(HIGHEST_PSNR, pytest.approx(1.0, abs=1e-12), 0.0)
    assert fidelity(x, x + 1e-6 * picture(seed=2)) == fidelity(x, x)  # below what 8 bit hold
    # so one perfect picture leaves a mean finite
    assert fidelity(torch.cat([x, x]), torch.cat([x, 1 - x])).psnr < HIGHEST_PSNR


def test_one_level_in_one_pixel():
    x = plain((0.0, 0.0, 0.0), size=108).contiguous()
    y = x.clone()
    y[0, 0, 50, 50] = 1 / 255
    # mean squared difference (65.481 / 255)^2 / 100^2, which is below the limit
    expected = 20 * math.log10(255 * 100 / (65.481 / 255))
    assert expected < HIGHEST_PSNR and fidelity(y, x).psnr == pytest.approx(expected, abs=1e-6)


def test_the_border_counts_for_gradients_only():
    x = picture(24, 28)
    y = x.clone()
    y[..., :BORDER], y[..., -BORDER:], y[..., :BORDER, :], y[..., -BORDER:, :] = 0.0, 1.0, 1.0, 0.0
    scores = fidelity(y, x)
    assert scores.psnr == HIGHEST_PSNR and scores.ssim == pytest.approx(1.0, abs=1e-12) and scores.gradient_l1 > 0.1
    y[..., BORDER, BORDER] += 0.5
    assert fidelity(y, x).psnr < HIGHEST_PSNR


def test_symmetry_and_mirrors():
    x, y = picture(), picture(seed=2)
    scores = fidelity(x, y)
    for other in (fidelity(y, x), fidelity(x.flip(-1), y.flip(-1)), fidelity(x.mT, y.mT)):
        assert [getattr(other, name) for name in FIELDS] == pytest.approx([getattr(scores, name) for name in FIELDS])


def test_means_do_not_depend_on_batches():
    x, y = picture(batch=5), picture(batch=5, seed=2)
    batched = [score for part in (slice(0, 3), slice(3, 5)) for score in per_picture(x[part], y[part])]
    singles = [score for n in range(5) for score in per_picture(x[n : n + 1], y[n : n + 1])]
    for name in FIELDS:
        expected = sum(getattr(score, name) for score in singles) / 5
        for whole in (fidelity(x, y), mean(batched), mean(singles)):
            assert getattr(whole, name) == pytest.approx(expected, rel=1e-12)
            assert type(getattr(whole, name)) is float


def test_planes_on_their_own():
    x, y = luma(picture()), luma(picture(seed=2))
    assert psnr(x, y).shape == ssim(x, y).shape == (2,)
    assert float(psnr(x, x + 1)[0]) == pytest.approx(20 * math.log10(255))
    assert float(psnr(x, x)[0]) == HIGHEST_PSNR


def test_scoring_leaves_no_graph():
    x = picture().requires_grad_()
    assert per_picture(x, picture(seed=2)) and x.grad is None


def test_what_cannot_be_scored():
    with pytest.raises(ValueError, match=r"pictures \(2, 3, 23, 20\) and targets \(2, 3, 20, 23\)"):
        fidelity(picture(), picture(20, 23))
    with pytest.raises(ValueError, match=r"expected \(B, 3, h, w\)"):
        fidelity(picture()[:, :1], picture()[:, :1])
    with pytest.raises(ValueError, match="pictures of 32x18 px are too small for SSIM: at least 19x19 px"):
        fidelity(picture(32, 18), picture(32, 18))
    assert len(per_picture(picture(19, 19), picture(19, 19))) == 2
    with pytest.raises(ValueError, match="fidelity of no pictures"):
        mean([])
