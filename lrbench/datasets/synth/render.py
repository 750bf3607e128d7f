"""Z-buffered rasteriser for tapered elliptical capsules and ellipsoids, in two passes.

Every solid is affinely squashed until it is a chain of spheres and its rays are parallel to z; the nearest surface
point of such a chain has a closed form. The first pass keeps depth, solid and normal of the front-most point, the
second one (`Surface`) turns visible pixels into normals and garment coordinates once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from lrbench.datasets.synth.camera import Camera
from lrbench.datasets.synth.skeleton import Array


@dataclass
class Solids:
    """Solids in world coordinates, collected one by one; see `capsule` and `ellipsoid`."""

    a: list[Array] = field(default_factory=list)
    b: list[Array] = field(default_factory=list)
    radii: list[tuple[float, float, float]] = field(default_factory=list)  # at a, at b, bulge between
    frames: list[Array] = field(default_factory=list)
    squash: list[tuple[float, float, float]] = field(default_factory=list)
    keep: list[tuple[float, float, float, float]] = field(default_factory=list)
    flat_end: list[bool] = field(default_factory=list)
    materials: list[int] = field(default_factory=list)
    texture_frames: list[Array] = field(default_factory=list)
    texture_origins: list[Array] = field(default_factory=list)

    def capsule(
        self, a: Array, b: Array, ra: float, rb: float, material: int, *, frame: Array, flat: float = 1.0,
        bulge: float = 0.0, flat_end: bool = False, texture: tuple[Array, Array] | None = None,
    ) -> None:  # fmt: skip
        """Chain of spheres from `a` to `b` (m), squashed by `flat` along the frame's front axis.

        `bulge` (m) is added to the radius a third of the way along; `flat_end` cuts the chain square at `b`.
        `texture` is the frame (3, 3) and origin (3,) of the garment coordinates; default: the frame, at `a`.
        """
        axis = a - b
        length = float(np.sqrt(axis @ axis))
        up = axis / length if length > 1e-6 else frame[:, 1]
        front = frame[:, 2] - (frame[:, 2] @ up) * up
        norm = float(np.sqrt(front @ front))
        if norm < 1e-3:
            front = frame[:, 1] - (frame[:, 1] @ up) * up
            norm = float(np.sqrt(front @ front))
        front = front / norm
        u0, u1, u2 = up.tolist()
        f0, f1, f2 = front.tolist()
        side = np.array([u1 * f2 - u2 * f1, u2 * f0 - u0 * f2, u0 * f1 - u1 * f0])  # np.cross takes ten times as long
        own = np.array([side, up, front]).T
        self._add(
            a, b, (ra, rb, bulge), own, (1.0, 1.0, flat), (0.0, 0.0, 0.0, -9.0), flat_end, material, texture or (own, a)
        )

    def ellipsoid(
        self, centre: Array, radii: tuple[float, float, float], material: int, *, frame: Array,
        keep: tuple[float, float, float, float] = (0.0, 0.0, 0.0, -9.0), texture: tuple[Array, Array] | None = None,
    ) -> None:  # fmt: skip
        """Ellipsoid with half axes `radii` (m) along the frame's axes.

        Only points whose position p on the unit sphere satisfies ``keep[:3] @ p > keep[3]`` are drawn.
        """
        self._add(centre, centre, (1.0, 1.0, 0.0), frame, radii, keep, False, material, texture or (frame, centre))

    def _add(
        self, a: Array, b: Array, radii: tuple[float, float, float], frame: Array, squash: tuple[float, float, float],
        keep: tuple[float, float, float, float], flat_end: bool, material: int, texture: tuple[Array, Array],
    ) -> None:  # fmt: skip
        self.a.append(a)
        self.b.append(b)
        self.radii.append(radii)
        self.frames.append(frame)
        self.squash.append(squash)
        self.keep.append(keep)
        self.flat_end.append(flat_end)
        self.materials.append(material)
        self.texture_frames.append(texture[0])
        self.texture_origins.append(texture[1])


@dataclass(frozen=True, kw_only=True)
class Projected:
    """Solids in pixels of one camera; all arrays have length N, one row per solid."""

    a: Array  # (N, 3) px; z in px of the figure's mean scale, 0 at its mean depth
    radii: Array  # (N, 3) px (factors for ellipsoids)
    squash_rays: Array  # (N, 3, 3) K: pixel offset from a -> squashed space whose rays run along z
    axis: Array  # (N, 2) length and depth difference of the chain in squashed space
    boxes: Array  # (N, 4) x0, y0, x1, y1 px
    keep: Array  # (N, 4) half space in squashed space
    flat_end: Array
    materials: Array
    texture: Array  # (N, 3, 3) pixel offset from a -> garment coordinates, m
    texture_start: Array  # (N, 3) garment coordinates of a, m
    scale: float  # px per m at the mean depth
    depth: float  # mean depth, m

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Bounding box of everything, px."""
        low, high = self.boxes[:, :2].min(axis=0), self.boxes[:, 2:].max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def project(solids: Solids, camera: Camera, depth: float) -> Projected:
    """Solids seen by `camera`, each with the scale of its own depth."""
    a, b = np.array(solids.a), np.array(solids.b)
    frames, squash, radii = np.array(solids.frames), np.array(solids.squash), np.array(solids.radii)
    scale = camera.focal / depth
    seen = camera.to_camera(np.stack([a, b]))
    z = np.maximum(seen[..., 2:], 0.15)
    pixels = np.concatenate([seen[..., :2] * camera.focal / z + np.array(camera.centre), (z - depth) * scale], axis=2)
    local = camera.focal / z.mean(axis=0)  # (N, 1) px per m
    axes = camera.rotation @ frames
    chains = (a != b).any(axis=1)
    factors = np.where(chains[:, None], squash, squash * local)
    radii = np.where(chains[:, None], radii * local, radii)
    g = np.swapaxes(axes, 1, 2) / factors[:, :, None]
    ray = g[:, :, 2]
    e3 = ray / np.linalg.norm(ray, axis=1, keepdims=True)
    d = np.einsum("nij,nj->ni", g, pixels[1] - pixels[0])
    flat = d - (d * e3).sum(axis=1, keepdims=True) * e3
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    other = np.cross(e3, np.where(np.abs(e3[:, :1]) < 0.8, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]))
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    e1 = np.where(norm > 1e-3, flat / np.maximum(norm, 1e-9), other)
    basis = np.stack([e1, np.cross(e3, e1), e3], axis=1)
    extent = (
        np.sqrt(((axes * factors[:, None, :]) ** 2).sum(axis=2))[:, :2]
        * (radii[:, :2].max(axis=1) + radii[:, 2])[:, None]
    )
    keep = np.array(solids.keep)
    half_space = np.concatenate([np.einsum("nij,nj->ni", basis, keep[:, :3]), keep[:, 3:]], axis=1)
    to_texture = np.swapaxes(np.array(solids.texture_frames), 1, 2)
    return Projected(
        a=pixels[0], radii=radii, squash_rays=basis @ g, axis=np.stack([norm[:, 0], (d * e3).sum(axis=1)], axis=1),
        boxes=np.concatenate([pixels[..., :2].min(axis=0) - extent, pixels[..., :2].max(axis=0) + extent], axis=1),
        keep=half_space, flat_end=np.array(solids.flat_end), materials=np.array(solids.materials),
        texture=to_texture @ camera.rotation.T / local[:, :, None],
        texture_start=np.einsum("nij,nj->ni", to_texture, a - np.array(solids.texture_origins)),
        scale=scale, depth=depth,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Buffers:
    """Front-most surface per sub-pixel of a window; `solid` is -1 where nothing was drawn."""

    x0: int
    y0: int
    supersampling: float
    depth: Array  # (h, w) px relative to the mean depth
    solid: Array  # (h, w) int16
    normal: Array  # (2, h, w) squashed normal, its z is the remaining negative root


def rasterise(solids: Projected, window: tuple[int, int, int, int], supersampling: float) -> Buffers:
    """Draw all solids into `window` (x0, y0, x1, y1 px, half-open) at `supersampling` sub-pixels per pixel and axis."""
    x0, y0, x1, y1 = window
    s = supersampling
    w, h = round((x1 - x0) * s), round((y1 - y0) * s)
    depth = np.full((h, w), 1e9, np.float32)
    index = np.full((h, w), -1, np.int16)
    nx_all, ny_all = np.zeros((h, w), np.float32), np.zeros((h, w), np.float32)
    xs = ((np.arange(w) + 0.5) / s - 0.5 + x0).astype(np.float32)
    ys = ((np.arange(h) + 0.5) / s - 0.5 + y0).astype(np.float32)[:, None]
    limits = np.array([x0, y0, x0, y0])
    spans = ((solids.boxes - limits + 0.5) * s).astype(np.int64) + np.array([-1, -1, 2, 2])
    spans = np.clip(spans, 0, [w, h, w, h])
    a, k, axes, radii, keeps = (
        x.tolist() for x in (solids.a, solids.squash_rays, solids.axis, solids.radii, solids.keep)
    )
    for n, (c0, r0, c1, r1) in enumerate(spans.tolist()):
        if c1 <= c0 or r1 <= r0:
            continue
        k0, k1, k2 = k[n]
        dx, dy = xs[c0:c1] - a[n][0], ys[r0:r1] - a[n][1]
        x, y = k0[0] * dx + k0[1] * dy, k1[0] * dx + k1[1] * dy
        inside, z, nx, ny = _nearest(x, y, axes[n], radii[n], keeps[n], bool(solids.flat_end[n]))
        z -= k2[0] * dx + k2[1] * dy
        z *= 1.0 / k2[2]
        z += a[n][2]
        place = (slice(r0, r1), slice(c0, c1))
        inside &= z < depth[place]
        np.copyto(depth[place], z, where=inside)
        np.copyto(nx_all[place], nx, where=inside)
        np.copyto(ny_all[place], ny, where=inside)
        np.copyto(index[place], n, where=inside)
    return Buffers(x0=x0, y0=y0, supersampling=s, depth=depth, solid=index, normal=np.stack([nx_all, ny_all]))


def _nearest(
    x: Array, y: Array, axis: list[float], radii: list[float], keep: list[float], flat_end: bool
) -> tuple[Array, Array, Array, Array]:
    """Nearest surface point of a chain of spheres along x, seen along z: mask, depth and unit normal x, y.

    A cylinder of radius r tilted by phi is touched at ``w sin(phi)`` towards its nearer end, w the half chord at the
    pixel; the clamp to the chain makes the caps. A taper moves the point towards the thicker end likewise.
    """
    length, rise = axis
    ra, rb, bulge = radii
    chord: Array
    ex: Array
    radius: Array
    along: Array
    root: Array
    if length < 1e-3 and abs(rise) < 1e-3:  # a sphere
        nx, ny = x / ra, y / ra
        root = 1.0 - nx * nx
        root -= ny * ny
        inside = root > 0
        np.maximum(root, 0.0, out=root)
        np.sqrt(root, out=root)
        if keep[3] > -5:
            inside &= keep[0] * nx + keep[1] * ny - keep[2] * root > keep[3]
        return inside, root * -ra, nx, ny
    length = max(length, 1e-3)
    full = float(np.hypot(length, rise))
    slope = (rb - ra) / length
    along = np.minimum(np.maximum(x, 0.0), length)
    radius = along * slope
    radius += ra
    if bulge:
        radius += _bulge(along * (1.0 / length), bulge)
    square = y * y
    chord = radius * radius
    chord -= square
    np.maximum(chord, 0.0, out=chord)
    np.sqrt(chord, out=chord)
    chord *= -rise / full
    chord += x
    if abs(rb - ra) > 1e-6:
        chord += radius * ((rb - ra) / full)
    along = np.minimum(np.maximum(chord, 0.0), length)
    radius = along * slope
    radius += ra
    if bulge:
        radius += _bulge(along * (1.0 / length), bulge)
    ex = x - along
    root = radius * radius
    root -= ex * ex
    root -= square
    if length < 2.5 * max(ra, rb) and abs(rb - ra) > 0.02 * max(ra, rb):
        # pointing at the camera: the thicker end shows around the nearer, thinner one
        for _ in range(2):
            needed = (1.05 * np.sqrt(ex * ex + square) - ra) / slope
            along = np.where(root > 0, along, np.clip(needed, 0.0, length)).astype(np.float32)
            radius = along * slope + ra
            if bulge:
                radius += _bulge(along * (1.0 / length), bulge)
            ex = x - along
            root = radius * radius - ex * ex - square
    inside = root > 0
    if flat_end:
        inside &= chord <= length
    np.maximum(root, 0.0, out=root)
    np.sqrt(root, out=root)
    z = along * (rise / length)
    z -= root
    np.maximum(radius, 1e-3, out=radius)
    ex /= radius
    return inside, z, ex, y / radius


def _bulge(t: Array, height: float) -> Array:
    """A hump over [0, 1] with its peak `height` at one third."""
    rest = 1.0 - t
    rest *= rest
    rest *= t
    rest *= 6.75 * height
    return rest


@dataclass(frozen=True, kw_only=True)
class Surface:
    """The P visible sub-pixels: flat index into the window, solid, unit normal (3, P), garment coordinates (3, P) m."""

    pixels: Array
    solid: Array
    normal: Array
    texture: Array
    wrap: Array  # (P,) angle around the solid's own axis, 0 at its front, radians


def surface(buffers: Buffers, solids: Projected) -> Surface:
    """Normals in camera axes and garment coordinates of everything visible."""
    w = buffers.depth.shape[1]
    pixels = np.flatnonzero(buffers.solid.ravel() >= 0)
    solid = buffers.solid.ravel()[pixels].astype(np.intp)
    nx, ny = (buffers.normal[i].ravel()[pixels] for i in (0, 1))
    nz = -np.sqrt(np.maximum(1.0 - nx * nx - ny * ny, 0.0))
    k = solids.squash_rays.astype(np.float32).reshape(-1, 9)
    normal = np.empty((3, len(pixels)), np.float32)
    for i in range(3):
        normal[i] = k[:, i][solid] * nx + k[:, 3 + i][solid] * ny + k[:, 6 + i][solid] * nz
    normal /= np.sqrt((normal * normal).sum(axis=0)) + 1e-9
    a = solids.a.astype(np.float32)
    s = buffers.supersampling
    dx = ((pixels % w).astype(np.float32) + 0.5) / s - 0.5 + buffers.x0 - a[:, 0][solid]
    dy = ((pixels // w).astype(np.float32) + 0.5) / s - 0.5 + buffers.y0 - a[:, 1][solid]
    dz = buffers.depth.ravel()[pixels] - a[:, 2][solid]
    t = solids.texture.astype(np.float32).reshape(-1, 9)
    start = solids.texture_start.astype(np.float32)
    texture = np.empty((3, len(pixels)), np.float32)
    for i in range(3):
        texture[i] = (
            start[:, i][solid] + t[:, 3 * i][solid] * dx + t[:, 3 * i + 1][solid] * dy + t[:, 3 * i + 2][solid] * dz
        )
    front = cv2.phase(texture[2], texture[0]).ravel()
    front[front > np.pi] -= 2 * np.pi
    return Surface(pixels=pixels, solid=solid, normal=normal, texture=texture, wrap=front)


def occlusion(buffers: Buffers, radius: float) -> Array:
    """Ambient occlusion (h, w) in [0, 1]: how far a sub-pixel lies behind its surroundings within `radius` px."""
    seen = buffers.solid >= 0
    if not seen.any():
        return np.zeros(buffers.depth.shape, np.float32)
    depth = np.where(seen, buffers.depth, buffers.depth[seen].max())
    size = max(3, int(radius * buffers.supersampling) | 1)
    around = cv2.blur(depth, (size, size), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(np.clip((depth - around) / radius, 0.0, 1.0), np.float32)
