"""A pinhole camera above a ground plane.

World frame: x to the right, y up, z towards the camera (right-handed), metres, ground at y = 0, camera above the
origin. A figure with yaw 0 faces the camera, so its left side is on the right of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lrbench.datasets.synth.skeleton import Array, rotation_x, rotation_z


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Focal length in px, principal point at the image centre, height in metres, pitch (down) and roll in radians."""

    width: int
    height: int
    focal: float
    altitude: float
    pitch: float
    roll: float

    @cached_property
    def rotation(self) -> Array:
        """World to camera axes (x right, y down, z forward), (3, 3)."""
        return np.asarray(rotation_z(self.roll) @ rotation_x(self.pitch) @ np.diag([1.0, -1.0, -1.0]))

    @property
    def centre(self) -> tuple[float, float]:
        """Principal point, px."""
        return (self.width - 1) / 2, (self.height - 1) / 2

    @property
    def horizon(self) -> float:
        """Row of the horizon at the image centre, px; may lie outside the image."""
        return self.centre[1] - self.focal * float(np.tan(self.pitch))

    def to_camera(self, points: Array) -> Array:
        """World points (..., 3) in camera axes, metres."""
        return np.asarray((points - np.array([0.0, self.altitude, 0.0])) @ self.rotation.T)

    def project(self, points: Array) -> tuple[Array, Array]:
        """World points (N, 3) to pixels (N, 2) and depths (N,) in metres; depths below 0.05 are clamped."""
        seen = self.to_camera(points)
        depth = np.maximum(seen[:, 2], 0.05)
        return seen[:, :2] * (self.focal / depth)[:, None] + np.array(self.centre), depth
