from __future__ import annotations

import itertools

import numpy as np
import pytest
from sample_records import record

from lrbench.geometry import Size
from lrbench.records import Record
from lrbench.report.lines import Line, lines_of
from lrbench.report.resolution import summary


def line(*points: tuple[str, float | None]) -> Line:
    (found,) = lines_of([record("one", res, ap, seed=n) for n, (res, ap) in enumerate(points)])
    return found


def curve(aps: dict[int, float], octave: np.ndarray) -> np.ndarray:
    return np.interp(octave, np.log2(list(aps)), list(aps.values()))


def test_area_is_the_mean_over_octaves():
    found = summary(line(("64x48", 0.2), ("128x96", 0.4), ("256x192", 0.5)))
    assert found.area == pytest.approx((0.3 + 0.45) / 2)
    assert found.sizes == (Size(64, 48), Size(256, 192))
    # against a fine sum over the same curve, for uneven steps
    uneven = {64: 0.2, 96: 0.45, 256: 0.5, 384: 0.48}
    found = summary(line(*((f"{h}x{h * 3 // 4}", ap) for h, ap in uneven.items())))
    fine = (np.arange(400_000) + 0.5) / 400_000 * np.log2(384 / 64) + np.log2(64)
    assert found.area == pytest.approx(curve(uneven, fine).mean(), abs=1e-8)


def test_a_flat_line():
    found = summary(line(("64x48", 0.3), ("256x192", 0.3)))
    assert found.area == pytest.approx(0.3)
    assert found.half is None
    assert found.half_in_words == "below 64x48"


@pytest.mark.parametrize(
    ("aps", "half", "words"),
    [
        ((0.1, 0.4, 0.6), 2 ** (6 + 2 / 3), "102 px"),
        ((0.2, 0.4), 64, "64 px"),
        ((0.0, 0.3, 0.6), 128, "128 px"),
        ((0.21, 0.4), None, "below 64x48"),
        # falls below twice: what is lost nearest to the largest size
        ((0.1, 0.5, 0.2, 0.6), 2 ** (8 + 0.25), "304 px"),
        ((0.4, 0.0), None, "-"),
    ],
)
def test_half_of_the_ap(aps: tuple[float, ...], half: float | None, words: str):
    sizes = ("64x48", "128x96", "256x192", "512x384")
    found = summary(line(*zip(sizes, aps, strict=False)))
    assert found.half == (None if half is None else pytest.approx(half))
    assert found.half_in_words == words
    if found.half is not None:
        assert curve({64 * 2**n: ap for n, ap in enumerate(aps)}, np.log2([found.half]))[0] == pytest.approx(
            aps[-1] / 2
        )


def test_means_over_seeds_and_order_of_records():
    records: list[Record] = [record("one", "128x96", ap, seed=s) for s, ap in enumerate((0.3, 0.5))]
    records += [record("one", "64x48", ap, seed=s) for s, ap in enumerate((0.1, 0.2))]
    for order in itertools.permutations(records):
        (one,) = lines_of(order)
        found = summary(one)
        assert {str(size): ap for size, ap in found.aps.items()} == pytest.approx({"64x48": 0.15, "128x96": 0.4})
        assert found.half == pytest.approx(2 ** (6 + (0.2 - 0.15) / (0.4 - 0.15)))


def test_what_prints_as_nothing_has_nothing_to_lose():
    assert summary(line(("64x48", 0.0003), ("128x96", 0.0004))).half_in_words == "-"
    assert summary(line(("64x48", 0.001), ("128x96", 0.001))).half_in_words == "below 64x48"


def test_one_size_is_too_few():
    with pytest.raises(ValueError, match="one: AP at 64x48, expected two sizes"):
        summary(line(("64x48", 0.2), ("128x96", None)))
    with pytest.raises(ValueError, match="AP at no size"):
        summary(line(("64x48", None)))
