"""Training views, their distribution and their edges; golden tests compare them with the released code."""

from __future__ import annotations

import numpy as np
import pytest

from lrbench.augmentation import Augmentation, Draws, half_body, mirror_keypoints
from lrbench.geometry import Frame, Region, Size
from lrbench.structures import COCO

FRAME = Frame(Size(64, 48), "corner")
REGION = Region(np.array([40.0, 50.0]), np.array([75.0, 100.0]))
STILL = Draws(u_halfbody=0.99, n_halfbody=0.0, n_scale=0.0, u_rotate=0.99, n_rotate=1.0, u_flip=0.99)


def body() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform((20, 10), (60, 90), (17, 2)), np.full(17, 2)


def view(augmentation: Augmentation | None = None, **draws: float):
    xy, visible = body()
    return (augmentation or Augmentation()).view(FRAME, REGION, xy, visible, STILL._replace(**draws), 200)


def test_nothing_drawn_changes_nothing():
    still = view()
    np.testing.assert_array_equal(still.region.center, REGION.center)
    np.testing.assert_array_equal(still.region.side, REGION.side)
    assert still.rotation == 0
    assert not still.flip


@pytest.mark.parametrize(("n", "factor"), [(1.0, 1.35), (-1.0, 0.65), (9.0, 1.35), (-9.0, 0.65), (0.5, 1.175)])
def test_scale_is_clipped(n: float, factor: float):
    np.testing.assert_allclose(view(n_scale=n).region.side, REGION.side * factor)


@pytest.mark.parametrize(("n", "angle"), [(1.0, 45), (-0.5, -22.5), (5.0, 90), (-5.0, -90)])
def test_rotation_is_clipped(n: float, angle: float):
    assert view(u_rotate=0.6, n_rotate=n).rotation == pytest.approx(angle)
    assert view(u_rotate=0.61, n_rotate=n).rotation == 0


def test_flip_moves_the_centre():
    flipped = view(u_flip=0.5)
    assert flipped.flip
    assert flipped.region.center.tolist() == [200 - 1 - 40, 50]
    assert not view(u_flip=0.51).flip


@pytest.mark.parametrize(("n", "upper"), [(0.49, True), (0.51, False)])
def test_half_body(n: float, upper: bool):
    xy, _ = body()
    chosen = [k for k in range(17) if (k in COCO.upper_body) == upper]
    region = view(u_halfbody=0.29, n_halfbody=n).region
    np.testing.assert_allclose(region.center, xy[chosen].mean(0))
    extent = xy[chosen].max(0) - xy[chosen].min(0)
    assert (region.side >= 1.5 * extent - 1e-9).all()
    assert np.isclose(region.side, 1.5 * extent).any()
    assert region.side[0] / region.side[1] == pytest.approx(48 / 64)
    assert view(u_halfbody=0.31, n_halfbody=n).region.side.tolist() == REGION.side.tolist()


@pytest.mark.parametrize(("count", "cropped"), [(8, False), (9, True)])
def test_half_body_needs_more_than_eight_keypoints(count: int, cropped: bool):
    xy, visible = body()
    visible[count:] = 0
    draws = STILL._replace(u_halfbody=0.0)
    region = Augmentation().view(FRAME, REGION, xy, visible, draws, 200).region
    assert (region.side.tolist() != REGION.side.tolist()) is cropped


def test_half_body_falls_back_to_the_other_half():
    xy, _ = body()
    labelled = np.isin(np.arange(17), (*COCO.upper_body, 11, 12))  # only two below
    np.testing.assert_allclose(half_body(FRAME, REGION, xy, labelled, upper=False).center, xy[:11].mean(0))
    labelled = np.isin(np.arange(17), (0, 1, 11, 12, 13))  # only two above
    np.testing.assert_allclose(half_body(FRAME, REGION, xy, labelled, upper=True).center, xy[11:14].mean(0))
    labelled = np.zeros(17, bool)
    labelled[3] = True
    for points, few in ((xy, labelled), (np.ones((17, 2)), np.ones(17, bool))):
        kept = half_body(FRAME, REGION, points, few, upper=True)
        assert (kept.center.tolist(), kept.side.tolist()) == (REGION.center.tolist(), REGION.side.tolist())


def test_draws_are_six_numbers_of_their_own_generator():
    augmentation = Augmentation()
    assert augmentation.draw(np.random.default_rng(5)) == augmentation.draw(np.random.default_rng(5))
    assert augmentation.draw(np.random.default_rng(5)) != augmentation.draw(np.random.default_rng(6))
    # strengths take part in no draw, so one strength never shifts another's number
    assert augmentation.draw(np.random.default_rng(5)) == Augmentation(flip=0, half_body=0).draw(
        np.random.default_rng(5)
    )


def test_shares_are_the_published_ones():
    rng, augmentation = np.random.default_rng(1), Augmentation()
    xy, visible = body()
    views = [augmentation.view(FRAME, REGION, xy, visible, augmentation.draw(rng), 200) for _ in range(4000)]
    assert np.mean([v.flip for v in views]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([v.rotation != 0 for v in views]) == pytest.approx(0.6, abs=0.03)
    halves = [v for v in views if v.region.center[1] != 50]
    assert len(halves) / len(views) == pytest.approx(0.3, abs=0.03)
    upper = xy[list(COCO.upper_body)].mean(0)[1]
    # the released code compares a normal number with 0.5: 69 % upper halves
    assert np.mean([np.isclose(v.region.center[1], upper) for v in halves]) == pytest.approx(0.69, abs=0.05)


def test_mirrored_keypoints():
    xy, visible = body()
    visible = np.arange(17) % 3
    mirrored, flags = mirror_keypoints(xy, visible, 200)
    for k, name in enumerate(COCO.keypoints):
        side = name.split("_")[0]
        source = COCO.keypoints.index(name.replace(side, {"left": "right", "right": "left"}.get(side, side), 1))
        assert mirrored[k].tolist() == [199 - xy[source][0], xy[source][1]]
        assert flags[k] == visible[source]
    back, again = mirror_keypoints(mirrored, flags, 200)
    np.testing.assert_allclose(back, xy)
    np.testing.assert_array_equal(again, visible)
