"""Training views: half body, scale, rotation, flip, in the published order (released HRNet code)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lrbench.geometry import Float, Frame, Region
from lrbench.structures import COCO, Skeleton

HALF_BODY_PADDING = 1.5


class Draws(NamedTuple):
    """The six random numbers of one view: u uniform on [0, 1), n standard normal."""

    u_halfbody: float
    n_halfbody: float
    n_scale: float
    u_rotate: float
    n_rotate: float
    u_flip: float


class View(NamedTuple):
    """How a person is cropped once.

    Attributes:
        region: in image px of the (mirrored, if `flip`) picture.
        rotation: degrees.
        flip: the picture is mirrored before it is cropped.
    """

    region: Region
    rotation: float
    flip: bool


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

    def view(
        self,
        frame: Frame,
        region: Region,
        keypoints: Float,
        visible: Float,
        draws: Draws,
        width: int,
        skeleton: Skeleton = COCO,
    ) -> View:
        """Turn draws into a view.

        Args:
            frame: of the crop.
            region: of the unaugmented person, image px.
            keypoints: (K, 2) image px.
            visible: (K,) above 0 where labelled.
            draws: the random numbers.
            width: of the picture, px.
            skeleton: of the keypoints; one without an upper body has no half-body views.
        """
        labelled = visible > 0
        if skeleton.upper_body and labelled.sum() > skeleton.half_body_above and draws.u_halfbody < self.half_body:
            upper = draws.n_halfbody < 0.5
            region = half_body(frame, region, keypoints, labelled, upper=upper, skeleton=skeleton)
        factor = float(np.clip(1 + self.scale * draws.n_scale, 1 - self.scale, 1 + self.scale))
        rotation = 0.0
        if draws.u_rotate <= self.rotation_probability:
            rotation = float(np.clip(self.rotation * draws.n_rotate, -2 * self.rotation, 2 * self.rotation))
        flip = draws.u_flip <= self.flip
        center = np.array([width - 1 - region.center[0], region.center[1]]) if flip else region.center
        return View(Region(center, region.side * factor), rotation, bool(flip))


def half_body(
    frame: Frame,
    region: Region,
    keypoints: Float,
    labelled: NDArray[np.bool_],
    *,
    upper: bool,
    skeleton: Skeleton = COCO,
) -> Region:
    """Region around the upper or the lower half of a body; the given one where too few keypoints are labelled.

    `upper` is wanted when a *normal* deviate is below 0.5, so for 69 % of the views (released HRNet code).
    """
    is_upper = np.isin(np.arange(len(skeleton)), skeleton.upper_body)
    above, below = labelled & is_upper, labelled & ~is_upper
    chosen = above if (upper and above.sum() > 2) or below.sum() <= 2 else below
    if chosen.sum() < 2:
        return region
    points = keypoints[chosen]
    extent = points.max(0) - points.min(0) + frame.end_pixel
    if extent.max() <= 0:
        return region
    return Region(points.mean(0), frame.fit_aspect(float(extent[0]), float(extent[1])) * HALF_BODY_PADDING)


def mirror_keypoints(keypoints: Float, visible: Float, width: int, skeleton: Skeleton = COCO) -> tuple[Float, Float]:
    """Keypoints (K, 2) and flags (K,) of the mirrored picture, left and right exchanged."""
    order = skeleton.mirror_order
    mirrored = keypoints[order].copy()
    mirrored[:, 0] = width - 1 - mirrored[:, 0]
    return mirrored, visible[order]
