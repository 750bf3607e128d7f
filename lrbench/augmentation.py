"""Training views: half body, scale, rotation, flip, in the published order (released HRNet code)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lrbench.geometry import Float, Frame, Region
from lrbench.structures import COCO, Skeleton

HALF_BODY_PADDING = 1.5


Number = Float | float


class Draws(NamedTuple):
    """The six random numbers of one view, or (...) those of several: u uniform on [0, 1), n standard normal."""

    u_halfbody: Number
    n_halfbody: Number
    n_scale: Number
    u_rotate: Number
    n_rotate: Number
    u_flip: Number


class View(NamedTuple):
    """How a person is cropped once; or how several are, stacked in front.

    Attributes:
        region: in image px of the (mirrored, if `flip`) picture.
        rotation: (...) degrees.
        flip: (...) the picture is mirrored before it is cropped.
    """

    region: Region
    rotation: Number
    flip: NDArray[np.bool_] | bool


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Strength of the training views; the defaults are HRNet's, which UDP, DARK and CAL share."""

    half_body: float = 0.3
    scale: float = 0.35
    rotation: float = 45.0
    rotation_probability: float = 0.6
    flip: float = 0.5

    def draw(self, rng: np.random.Generator) -> Draws:
        """Draw the numbers of one view; always all six, so that no draw shifts another."""
        u, n = rng.random(3), rng.standard_normal(3)
        return Draws(u[0], n[0], n[1], u[1], n[2], u[2])

    def draw_each(self, generators: Sequence[np.random.Generator]) -> Draws:
        """Draw the numbers of several views, each from its own generator."""
        return Draws(*np.array([self.draw(rng) for rng in generators]).T)

    def view(
        self,
        frame: Frame,
        region: Region,
        keypoints: Float,
        visible: NDArray[Any],
        draws: Draws,
        width: NDArray[np.int32] | int,
        skeleton: Skeleton = COCO,
    ) -> View:
        """Turn draws into views.

        Args:
            frame: of the crop.
            region: of the unaugmented person, image px.
            keypoints: (..., K, 2) image px.
            visible: (..., K) above 0 where labelled.
            draws: the random numbers.
            width: (...) of the picture, px.
            skeleton: of the keypoints; one without an upper body has no half-body views.
        """
        labelled = visible > 0
        if skeleton.upper_body:
            halved = (labelled.sum(-1) > skeleton.half_body_above) & (np.asarray(draws.u_halfbody) < self.half_body)
            upper = np.asarray(draws.n_halfbody) < 0.5
            half = half_body(frame, region, keypoints, labelled, upper=upper, skeleton=skeleton)
            region = where(halved, half, region)
        factor = np.clip(1 + self.scale * np.asarray(draws.n_scale), 1 - self.scale, 1 + self.scale)
        turned = np.clip(self.rotation * np.asarray(draws.n_rotate), -2 * self.rotation, 2 * self.rotation)
        rotation = np.where(np.asarray(draws.u_rotate) <= self.rotation_probability, turned, 0.0)
        flip = np.asarray(draws.u_flip) <= self.flip
        center = region.center.copy()
        center[..., 0] = np.where(flip, np.asarray(width) - 1 - center[..., 0], center[..., 0])
        return View(Region(center, region.side * factor[..., None]), rotation, flip)


def half_body(
    frame: Frame,
    region: Region,
    keypoints: Float,
    labelled: NDArray[np.bool_],
    *,
    upper: NDArray[np.bool_] | bool,
    skeleton: Skeleton = COCO,
) -> Region:
    """Regions around the upper or the lower half of bodies; the given ones where too few keypoints are labelled.

    `upper` is wanted when a *normal* deviate is below 0.5, so for 69 % of the views (released HRNet code).

    Args:
        frame: of the crop.
        region: of the whole body.
        keypoints: (..., K, 2) image px.
        labelled: (..., K)
        upper: (...) which half is wanted.
        skeleton: of the keypoints.
    """
    is_upper = np.isin(np.arange(len(skeleton)), skeleton.upper_body)
    above, below = labelled & is_upper, labelled & ~is_upper
    take_upper = (upper & (above.sum(-1) > 2)) | (below.sum(-1) <= 2)
    chosen = np.where(take_upper[..., None], above, below)[..., None]
    count = chosen.sum(-2)
    highest, lowest = np.where(chosen, keypoints, -np.inf).max(-2), np.where(chosen, keypoints, np.inf).min(-2)
    extent = np.where(count, highest - lowest + frame.end_pixel, 0)
    middle = np.where(chosen, keypoints, 0).sum(-2) / np.maximum(count, 1)
    enough = (count[..., 0] >= 2) & (extent.max(-1) > 0)
    return where(enough, Region(middle, frame.fit_aspect(extent) * HALF_BODY_PADDING), region)


def where(condition: NDArray[np.bool_], yes: Region, no: Region) -> Region:
    """One region where a condition (...) holds, the other elsewhere."""
    chosen = condition[..., None]
    return Region(np.where(chosen, yes.center, no.center), np.where(chosen, yes.side, no.side))


def mirror_keypoints(
    keypoints: Float, visible: NDArray[Any], width: NDArray[np.int32] | int, skeleton: Skeleton = COCO
) -> tuple[Float, NDArray[Any]]:
    """Keypoints (..., K, 2) and flags (..., K) of pictures of widths (...) mirrored, left and right exchanged."""
    order = skeleton.mirror_order
    mirrored = keypoints[..., order, :]
    mirrored[..., 0] = np.asarray(width)[..., None] - 1 - mirrored[..., 0]
    return mirrored, visible[..., order]
