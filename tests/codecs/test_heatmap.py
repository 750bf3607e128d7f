"""Parts of the heatmap codec against slow versions: peaks, blurs, Newton steps, factors of targets."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from lrbench.codecs import heatmap as hm
from lrbench.geometry import Frame, Grid, Size
from lrbench.method import load_method


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filtered(heatmap: np.ndarray, kernel: int, border: str) -> np.ndarray:
    """One map, as the released decoders blur it."""
    if border == "reflect":
        return cv2.GaussianBlur(heatmap, (kernel, kernel), 0)
    padded = cv2.GaussianBlur(np.pad(heatmap, kernel // 2), (kernel, kernel), 0)
    return padded[kernel // 2 : -(kernel // 2), kernel // 2 : -(kernel // 2)]


class TestPeak:
    def test_the_first_of_ties_wins(self):
        maps = torch.zeros(1, 2, 4, 3)
        maps[0, 0, [1, 2], [2, 0]] = 0.5
        maps[0, 1] = 1.0
        cells, score = hm.peak(maps)
        assert cells.tolist() == [[[2, 1], [0, 0]]]
        assert score.tolist() == [[0.5, 1.0]]

    def test_a_map_without_a_positive_value_is_put_on_the_first_cell(self):
        cells, score = hm.peak(torch.full((1, 1, 3, 3), -1.0).index_fill(-1, torch.tensor([2]), -0.25))
        assert cells.tolist() == [[[0, 0]]]
        assert score.item() == -0.25

    @pytest.mark.parametrize("where", [0, 7, 11])
    def test_nan_is_refused_wherever_it_is(self, where):
        maps = noise(1, 2, 4, 3)
        maps[0, 1].view(-1)[where] = float("nan")
        with pytest.raises(FloatingPointError, match="NaN"):
            hm.peak(maps)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
    def test_types_and_memory_formats_agree(self, dtype):
        maps = noise(3, 5, 8, 6).to(dtype)
        expected = maps.double().flatten(2).argmax(-1)
        for laid in (maps, maps.to(memory_format=torch.channels_last), maps.mT.contiguous().mT):
            cells, score = hm.peak(laid)
            assert torch.equal(cells[..., 1] * 6 + cells[..., 0], expected)
            assert torch.equal(score, maps.amax((-2, -1)))


@pytest.mark.parametrize(
    ("name", "settings"), [("dark", {}), ("udp", {"form": "gaussian"}), ("udp", {"blur_offset": 7}), ("cal", {})]
)
def test_decoding_in_parts_is_decoding_at_once(name, settings, monkeypatch):
    codec = load_method(name, Size(64, 48), **settings).codec
    xy = torch.tensor([48.0, 64.0]) * torch.rand(7, 17, 2, generator=torch.Generator().manual_seed(0))
    ideal, _ = codec.encode(xy, torch.ones(7, 17))
    noisy = ideal._replace(heatmap=ideal.heatmap + 0.1 * noise(*ideal.heatmap.shape))
    whole = codec.decode(noisy)
    for cells in (1, 3 * 17 * 16 * 12):  # one crop and three crops at a time
        monkeypatch.setattr(hm, "PART", cells)
        parts = codec.decode(noisy)
        torch.testing.assert_close(parts.xy, whole.xy, atol=1e-5, rtol=0)
        assert torch.equal(parts.score, whole.score)


class TestBlurs:
    @pytest.mark.parametrize("border", ["zero", "reflect"])
    @pytest.mark.parametrize("kernel", [3, 5, 7, 9, 11, 15])
    def test_is_opencvs(self, kernel, border):
        maps = noise(2, 3, 16, 12)
        ours = hm.blurred(maps, kernel, border=border)  # type: ignore[arg-type]
        theirs = [[filtered(heatmap, kernel, border) for heatmap in row] for row in maps.double().numpy()]
        np.testing.assert_allclose(ours, theirs, atol=1e-14)

    @pytest.mark.parametrize("border", ["zero", "reflect"])
    @pytest.mark.parametrize("kernel", [3, 5, 7, 15])
    def test_maps_smaller_than_the_kernel(self, kernel, border):
        """Every cell is the weighted sum of those around it, zeros or mirror images beyond the ends."""
        maps = noise(1, 1, 3, 2).double()
        taps = cv2.getGaussianKernel(kernel, 0, cv2.CV_64F)[:, 0]
        expected = torch.zeros(3, 2, dtype=torch.float64)
        for y, x, j, i in np.ndindex(3, 2, kernel, kernel):
            v, u = y + j - kernel // 2, x + i - kernel // 2
            if border == "reflect":
                v, u = ([0, 1, 2, 1][v % 4], [0, 1][u % 2])
            if 0 <= v < 3 and 0 <= u < 2:
                expected[y, x] += taps[j] * taps[i] * maps[0, 0, v, u]
        torch.testing.assert_close(hm.blurred(maps, kernel, border=border)[0, 0], expected)  # type: ignore[arg-type]

    @pytest.mark.parametrize("kernel", [3, 7, 15])
    def test_at_one_cell_is_that_of_the_whole_map(self, kernel):
        maps = noise(2, 3, 2, 8, 6)
        whole = hm.blurred(maps, kernel, border="reflect")
        for y, x in [(0, 0), (7, 5), (3, 1), (6, 4)]:
            cell = torch.full((2, 3, 1), x), torch.full((2, 3, 1), y)
            torch.testing.assert_close(hm.blurred_at(maps, *cell, kernel), whole[..., y, x], atol=1e-14, rtol=0)

    def test_an_even_kernel_is_refused(self):
        cell = torch.zeros(1, 1, dtype=torch.long)
        for call in (lambda: hm.blurred(noise(1, 1, 4, 4), 4, border="zero"),
                     lambda: hm.blurred_at(noise(1, 1, 4, 4), cell, cell, 4)):  # fmt: skip
            with pytest.raises(ValueError, match="blur kernel 4: expected an odd side, for example 5"):
                call()

    def test_batch_is_a_stack_of_singles(self):
        maps = noise(6, 2, 8, 6)
        for border, kernel in [("zero", 3), ("zero", 11), ("reflect", 7)]:
            whole = hm.blurred(maps, kernel, border=border)  # type: ignore[arg-type]
            for n in range(6):
                single = hm.blurred(maps[n : n + 1], kernel, border=border)  # type: ignore[arg-type]
                torch.testing.assert_close(single[0], whole[n], atol=1e-15, rtol=0)


def value(heatmap: np.ndarray, x: int, y: int) -> float:
    height, width = heatmap.shape
    return float(heatmap[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])


def newton(dx: float, dy: float, dxx: float, dyy: float, dxy: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    return -np.linalg.solve([[dxx, dxy], [dxy, dyy]], [dx, dy])


class TestNewtonSteps:
    """Against steps on the logarithm of the whole map, one joint at a time."""

    maps = (2 * noise(4, 5, 16, 12, seed=1)).exp() + 0.01 * noise(4, 5, 16, 12, seed=2)

    @pytest.mark.parametrize("kernel", [3, 11])
    def test_dark(self, kernel):
        cells, _ = hm.peak(self.maps)
        ours = hm.taylor_step(self.maps, cells, blur=kernel, guard="published")
        stepped = 0
        for n, k in np.ndindex(4, 5):
            heatmap = self.maps[n, k].double().numpy()
            smooth = filtered(heatmap, kernel, "zero")
            log = np.log(np.maximum(smooth * heatmap.max() / smooth.max(), 1e-10))
            x, y = cells[n, k].tolist()
            expected = np.array([x, y], float)
            if 1 < x < 10 and 1 < y < 14:
                stepped += 1
                expected += newton(
                    (log[y, x + 1] - log[y, x - 1]) / 2,
                    (log[y + 1, x] - log[y - 1, x]) / 2,
                    (log[y, x + 2] - 2 * log[y, x] + log[y, x - 2]) / 4,
                    (log[y + 2, x] - 2 * log[y, x] + log[y - 2, x]) / 4,
                    (log[y + 1, x + 1] - log[y - 1, x + 1] - log[y + 1, x - 1] + log[y - 1, x - 1]) / 4,
                )
            np.testing.assert_allclose(ours[n, k], expected, rtol=1e-9)
        assert 0 < stepped < 20

    @pytest.mark.parametrize("kernel", [3, 7])
    def test_udp(self, kernel):
        cells, _ = hm.peak(self.maps)
        ours = hm.taylor_step_udp(self.maps, cells, blur=kernel)
        for n, k in np.ndindex(4, 5):
            heatmap = self.maps[n, k].double().numpy()
            smooth = filtered(heatmap, kernel, "reflect")
            scaled = (smooth - smooth.min()) / (smooth.max() - smooth.min()) * heatmap.max()
            log = np.log(scaled.clip(0.001, 50))
            x, y = cells[n, k].tolist()
            middle, right, left = (value(log, x + step, y) for step in (0, 1, -1))
            below, above = value(log, x, y + 1), value(log, x, y - 1)
            corners = value(log, x + 1, y + 1) + value(log, x - 1, y - 1)
            dxy = (corners - right - left - below - above + 2 * middle) / 2
            dxx, dyy = right - 2 * middle + left, below - 2 * middle + above
            expected = np.array([x, y], float)
            if dxx * dyy != dxy * dxy:
                expected += newton((right - left) / 2, (below - above) / 2, dxx, dyy, dxy)
            np.testing.assert_allclose(ours[n, k], expected, rtol=1e-8)


@pytest.mark.parametrize("center", ["exact", "rounded"])
@pytest.mark.parametrize("window", [True, False])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
def test_targets_are_the_gaussian_of_every_cell(center, window, sigma):
    """Cell by cell, for joints inside, beyond every side and far away; exactly zero where nothing trains."""
    grid = Grid(Frame(Size(32, 24), "biased"), stride=4)
    xy = torch.tensor([[10.3, 17.9], [-5.0, 3.0], [27.0, 40.0], [400.0, 5.0], [12.0, 16.0]]).double()[None]
    visible = torch.tensor([[1.0, 1, 2, 1, 0]]).double()
    codec = hm.Heatmap(grid=grid, sigma=sigma, center=center, window=window, refine=hm.argmax)
    maps, weight = codec.encode(xy, visible)
    half = int(3 * sigma)
    for k, (px, py) in enumerate(xy[0].tolist()):
        nearest = int(px / 4 + 0.5), int(py / 4 + 0.5)
        cx, cy = nearest if center == "rounded" else (px / 4, py / 4)
        for y, x in np.ndindex(8, 6):
            near = not window or max(abs(x - nearest[0]), abs(y - nearest[1])) <= half
            expected = math.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2)) * near * weight[0, k].item()
            assert maps.heatmap[0, k, y, x].item() == pytest.approx(expected, rel=1e-6, abs=1e-37)
    assert weight[0, 3:].tolist() == [0, 0]
