"""Backgrounds: rooms and landscapes with textured ground in perspective, furniture-like and limb-like clutter."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from lrbench.datasets.synth.body import any_colour
from lrbench.datasets.synth.camera import Camera
from lrbench.datasets.synth.materials import Colour, noise_tile, scaled
from lrbench.datasets.synth.skeleton import Array

_GROUNDS: tuple[tuple[str, Colour], ...] = (
    ("rough", (0.33, 0.45, 0.2)), ("rough", (0.42, 0.42, 0.42)), ("rough", (0.76, 0.68, 0.52)),
    ("tiles", (0.7, 0.66, 0.6)), ("planks", (0.55, 0.38, 0.24)), ("bricks", (0.58, 0.45, 0.4)),
    ("rough", (0.88, 0.9, 0.93)), ("rough", (0.3, 0.5, 0.28)),
)  # fmt: skip


def colour_255(colour: Colour, factor: float = 1.0) -> tuple[float, float, float]:
    """RGB in [0, 1] to [0, 255]."""
    r, g, b = scaled(colour, factor)
    return 255 * r, 255 * g, 255 * b


def muted(rng: np.random.Generator) -> Colour:
    """A wall or furniture colour."""
    c = np.array(any_colour(rng))
    mixed = rng.uniform(0.25, 0.75) * (c - c.mean()) + rng.uniform(0.3, 0.85)
    r, g, b = np.clip(mixed, 0.05, 0.97).tolist()
    return r, g, b


@cache
def texture(kind: str) -> Array:
    """Brightness factors (512, 512) uint8, 128 means one; tiles seamlessly."""
    fine, coarse = np.tile(noise_tile(0.8, 6), (2, 2)), np.tile(noise_tile(2.4, 7), (2, 2))
    value = 1.0 + 0.07 * fine + 0.09 * coarse
    y, x = np.mgrid[0:512, 0:512]
    if kind == "tiles":
        value = 1.0 + 0.03 * fine + 0.03 * coarse
        value[(x % 64 < 2) | (y % 64 < 2)] *= 0.7
    elif kind == "planks":
        value = 1.0 + 0.06 * np.tile(np.roll(noise_tile(1.6, 8), 40, 1)[::8], (16, 2)) + 0.04 * coarse
        value *= 1.0 + 0.1 * np.sin(37.0 * (y // 32))
        value[y % 32 < 2] *= 0.65
    elif kind == "bricks":
        shift = (y // 16) % 2 * 16
        value *= 1.0 + 0.08 * np.sin(12.9 * (y // 16) + 78.2 * ((x + shift) // 32 % 16))
        value[(y % 16 < 2) | ((x + shift) % 32 < 2)] = 1.25
    elif kind == "panels":
        value = 1.0 + 0.015 * fine + 0.02 * coarse
        value[x % 128 < 3] *= 0.8
    elif kind == "plain":
        value = 1.0 + 0.015 * fine + 0.035 * coarse
    return np.asarray(np.clip(128 * value, 0, 255), np.uint8)


def tinted(factors: Array, colour: Colour) -> Array:
    """A brightness texture (h, w) uint8 times a colour, (h, w, 3) uint8."""
    return np.asarray(cv2.merge([cv2.convertScaleAbs(factors, alpha=2.0 * c) for c in colour]))


def _crop(kind: str, width: int, height: int, rng: np.random.Generator, zoom: float = 1.0) -> Array:
    tile = texture(kind)
    w, h = max(2, int(width / zoom)), max(2, int(height / zoom))
    x, y = int(rng.integers(512)), int(rng.integers(512))
    rows, columns = (np.arange(h) + y) & 511, (np.arange(w) + x) & 511
    return np.asarray(cv2.resize(tile[rows[:, None], columns], (width, height), interpolation=cv2.INTER_LINEAR))


def _sky(canvas: Array, bottom: int, rng: np.random.Generator) -> None:
    width = canvas.shape[1]
    high = (
        np.array([rng.uniform(0.3, 0.6), rng.uniform(0.5, 0.72), rng.uniform(0.78, 0.95)])
        if rng.random() < 0.65
        else np.full(3, rng.uniform(0.55, 0.85))
    )
    low = np.clip(high + rng.uniform(0.1, 0.3), 0, 1)
    t = np.linspace(0, 1, bottom)[:, None, None]
    sky = np.repeat((255 * (high * (1 - t) + low * t)).astype(np.float32), width, axis=1)
    cloud = np.tile(noise_tile(3.2, int(rng.integers(4))), (2, 3))
    cloud = cv2.resize(cloud[: bottom // 2 + 2, : width // 2 + 2], (width, bottom), interpolation=cv2.INTER_LINEAR)
    sky += (np.clip(cloud + rng.uniform(-1, 0.4), 0, 2) * 40)[..., None]
    canvas[:bottom] = np.clip(sky, 0, 255).astype(np.uint8)


def _ground(canvas: Array, camera: Camera, rng: np.random.Generator, indoor: bool) -> None:
    """Texture mapped by the homography between the ground plane and the image."""
    height, width = canvas.shape[:2]
    kind, colour = _GROUNDS[int(rng.choice([1, 3, 4, 7] if indoor else 8))]
    red, green, blue = rng.uniform(0.75, 1.15) * rng.uniform(0.96, 1.04, 3)
    colour = scaled(colour, red, green, blue)
    scale = rng.uniform(60, 140)  # texels per metre
    k = np.array([[camera.focal, 0, camera.centre[0]], [0, camera.focal, camera.centre[1]], [0, 0, 1.0]])
    plane = np.stack(
        [camera.rotation[:, 0] / scale, camera.rotation[:, 2] / scale, -camera.rotation[:, 1] * camera.altitude], axis=1
    )
    to_image = k @ plane
    x, y = np.meshgrid(np.arange(0, width, 8, dtype=np.float64), np.arange(0, height, 4, dtype=np.float64))
    on_plane = np.linalg.inv(to_image) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    on_plane /= np.where(np.abs(on_plane[2]) < 1e-9, 1e-9, on_plane[2])
    depth = (to_image[2] @ on_plane).reshape(x.shape)
    visible = depth > 0  # the rest of the plane lies behind the camera, i.e. above the horizon
    depth = np.clip(np.where(visible, depth, 1e6), 0, 1e6)
    u, v = on_plane[0].reshape(x.shape), on_plane[1].reshape(x.shape)
    # a coarse grid is enough: it is interpolated at half resolution, and the tile wraps only after that
    size, half = (width, height), ((width + 1) // 2, (height + 1) // 2)
    maps = [cv2.resize(np.clip(m, -1e6, 1e6).astype(np.float32), half).astype(np.int32) & 511 for m in (u, v)]
    fade = cv2.resize((1.0 / (1.0 + (depth * scale / camera.focal / 1.5) ** 2)).astype(np.float32), half)
    factors = (128 + (texture(kind)[maps[1], maps[0]].astype(np.float32) - 128) * fade).astype(np.uint8)
    mask = cv2.resize(visible.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    cv2.copyTo(cv2.resize(tinted(factors, colour), size, interpolation=cv2.INTER_LINEAR), mask, canvas)


def _wall(canvas: Array, bottom: int, rng: np.random.Generator) -> None:
    """A back wall with skirting board, windows, doors, pictures and shelves."""
    width = canvas.shape[1]
    kind = ("plain", "plain", "panels", "bricks", "tiles")[int(rng.integers(5))]
    wall = muted(rng)
    canvas[:bottom] = tinted(_crop(kind, width, bottom, rng, rng.uniform(0.7, 2.2)), wall)
    cv2.rectangle(canvas, (0, bottom - max(3, bottom // 40)), (width, bottom), colour_255(muted(rng)), -1)
    for _ in range(int(rng.integers(1, 6))):
        w, h = int(rng.uniform(30, 190)), int(rng.uniform(30, 200))
        x, y = int(rng.uniform(-40, width)), int(rng.uniform(-40, max(1, bottom - h)))
        frame = colour_255(muted(rng))
        kind_of = rng.random()
        if kind_of < 0.4:  # a window
            cv2.rectangle(canvas, (x, y), (x + w, y + h), frame, -1)
            pane = colour_255((0.75, 0.85, 0.95), rng.uniform(0.5, 1.05))
            cv2.rectangle(canvas, (x + 5, y + 5), (x + w // 2 - 2, y + h - 5), pane, -1)
            cv2.rectangle(canvas, (x + w // 2 + 2, y + 5), (x + w - 5, y + h - 5), pane, -1)
        elif kind_of < 0.65:  # a picture or a poster
            cv2.rectangle(canvas, (x, y), (x + w, y + h), frame, -1)
            for _ in range(5):
                p = rng.uniform([x, y], [x + w, y + h], (3, 2)).astype(np.int32)
                cv2.fillConvexPoly(canvas, p, colour_255(any_colour(rng)), cv2.LINE_AA)
            cv2.rectangle(canvas, (x, y), (x + w, y + h), colour_255(any_colour(rng)), 3)
        elif kind_of < 0.8:  # a door
            cv2.rectangle(canvas, (x, y), (x + w // 2 + 30, bottom), frame, -1)
            cv2.rectangle(canvas, (x, y), (x + w // 2 + 30, bottom), colour_255(muted(rng)), 4)
        else:  # a shelf with books
            cv2.rectangle(canvas, (x, y), (x + w, y + h), frame, -1)
            for row in range(y + 22, y + h, 26):
                for column in range(x + 4, x + w - 8, 8):
                    top = row - int(rng.integers(10, 20))
                    cv2.rectangle(canvas, (column, top), (column + 6, row), colour_255(any_colour(rng)), -1)


def _building(canvas: Array, bottom: int, rng: np.random.Generator) -> None:
    x, w, h = int(rng.uniform(-60, canvas.shape[1])), int(rng.uniform(50, 240)), int(rng.uniform(0.3, 1.2) * bottom)
    x0, x1, y0 = max(0, x), min(canvas.shape[1], x + w), max(0, bottom - h)
    if x1 - x0 < 8 or bottom - y0 < 8:
        return
    canvas[y0:bottom, x0:x1] = tinted(
        _crop("bricks" if rng.random() < 0.4 else "plain", x1 - x0, bottom - y0, rng), muted(rng)
    )
    step, glass = int(rng.integers(14, 34)), colour_255((0.35, 0.42, 0.5), rng.uniform(0.4, 1.7))
    for row in range(y0 + 6, bottom - step, step + 6):
        for column in range(x0 + 5, x1 - step // 2, step):
            cv2.rectangle(canvas, (column, row), (column + step // 2, row + int(step * 0.7)), glass, -1)


def leaves(
    canvas: Array, centre: tuple[float, float], radius: float, rng: np.random.Generator, colour: Colour
) -> Array:
    """Foliage: noisy blobs of `colour`; returns the mask (h, w) uint8 of what was drawn."""
    height, width = canvas.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    for _ in range(12):
        p = np.array(centre) + rng.normal(0, 0.45, 2) * radius
        cv2.circle(mask, (int(p[0]), int(p[1])), int(radius * rng.uniform(0.25, 0.5)), 1, -1)
    x0, y0 = (max(0, int(c - 2.2 * radius)) for c in centre)
    x1, y1 = min(width, int(centre[0] + 2.2 * radius)), min(height, int(centre[1] + 2.2 * radius))
    if x1 <= x0 or y1 <= y0:
        return np.zeros_like(mask)
    zoom = float(np.clip(radius / 60, 0.5, 2.5))
    rows, columns = ((np.arange(n) / zoom).astype(np.int32) & 255 for n in (y1 - y0, x1 - x0))
    value = np.roll(noise_tile(1.2, 9), int(rng.integers(256)), 1)[rows[:, None], columns]
    part = mask[y0:y1, x0:x1] * (value > -0.9).astype(np.uint8)
    mask[:] = 0
    mask[y0:y1, x0:x1] = part
    cv2.copyTo(tinted(np.clip(128 + 42 * value, 20, 255).astype(np.uint8), colour), part, canvas[y0:y1, x0:x1])
    return mask


def _green(rng: np.random.Generator) -> Colour:
    v = rng.uniform(0.5, 1.2)
    return 0.26 * v, rng.uniform(0.34, 0.5) * v, 0.16 * v


def _landscape(canvas: Array, bottom: int, rng: np.random.Generator) -> None:
    width = canvas.shape[1]
    _sky(canvas, bottom, rng)
    if rng.random() < 0.5:  # hills
        x = np.arange(0, width + 20, 20)
        ridge = bottom - rng.uniform(10, 60) * (
            1.2 + np.sin(x / rng.uniform(50, 140) + rng.uniform(0, 6)) + 0.3 * np.sin(x / 23)
        )
        outline = np.stack([np.r_[x, width + 20, 0], np.r_[ridge, bottom, bottom]], axis=1).astype(np.int32)
        cv2.fillPoly(canvas, [outline], colour_255(_green(rng)), cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 5))):
        _building(canvas, bottom, rng)
    for _ in range(int(rng.integers(0, 5))):
        root, tall = rng.uniform(0, width), rng.uniform(0.2, 0.9) * bottom
        thick = max(2, int(tall * 0.05))
        bark = colour_255((0.3, 0.22, 0.15))
        cv2.line(canvas, (int(root), bottom), (int(root), int(bottom - tall)), bark, thick, cv2.LINE_AA)
        for _ in range(2):
            cv2.line(
                canvas,
                (int(root), int(bottom - tall * 0.6)),
                (int(root + rng.normal(0, 0.3) * tall), int(bottom - tall)),
                bark,
                max(1, thick // 2),
                cv2.LINE_AA,
            )
        leaves(canvas, (root, bottom - tall), 0.35 * tall, rng, _green(rng))
    for _ in range(int(rng.integers(0, 4))):  # lamp posts and signs
        post, top = int(rng.uniform(0, width)), bottom - int(rng.uniform(0.3, 1.0) * bottom)
        cv2.line(canvas, (post, bottom), (post, top), colour_255(muted(rng)), int(rng.integers(2, 7)), cv2.LINE_AA)
        cv2.rectangle(canvas, (post - 10, top), (post + 12, top + 16), colour_255(any_colour(rng)), -1)
    if rng.random() < 0.3:  # a fence
        step = int(rng.integers(8, 30))
        colour = colour_255(muted(rng))
        for post in range(int(rng.integers(step)), width, step):
            cv2.line(canvas, (post, bottom + 6), (post, bottom - 40), colour, max(1, step // 5))
        cv2.line(canvas, (0, bottom - 32), (width, bottom - 32), colour, 3)


def _clutter(canvas: Array, camera: Camera, rng: np.random.Generator) -> None:
    """Coloured shapes and jointed sticks in skin and cloth colours: the things a pose network mistakes for limbs."""
    height, width = canvas.shape[:2]
    for _ in range(int(rng.integers(0, 4))):
        p = rng.uniform([0, 0.3 * height], [width, height])
        slab = cv2.boxPoints((p.tolist(), rng.uniform(8, 90, 2).tolist(), float(rng.normal(0, 12))))
        cv2.fillConvexPoly(canvas, slab.astype(np.int32), colour_255(muted(rng)), cv2.LINE_AA)
        cv2.polylines(canvas, [slab.astype(np.int32)], True, colour_255(muted(rng), 0.7), 2, cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 5))):
        colour = (0.8, 0.6, 0.47) if rng.random() < 0.4 else any_colour(rng)
        p = rng.uniform([0, 0.2 * height], [width, height])
        thick, angle = rng.uniform(3, 22), rng.uniform(0, 2 * np.pi)
        for _ in range(int(rng.integers(1, 4))):
            q = p + thick * rng.uniform(2.5, 6) * np.array([np.cos(angle), np.sin(angle)])
            ends = [(int(e[0]), int(e[1])) for e in (p, q)]
            for share, factor in ((1.0, 0.7), (0.66, 0.9), (0.3, 1.05)):  # three strokes make it look round
                cv2.line(canvas, ends[0], ends[1], colour_255(colour, factor), max(1, int(thick * share)), cv2.LINE_AA)
            p, angle, thick = q, angle + rng.normal(0, 0.9), max(2.0, thick * 0.8)


def _lines(canvas: Array, camera: Camera, rng: np.random.Generator) -> None:
    """Road or court markings on the ground."""
    colour = colour_255((0.93, 0.93, 0.9), rng.uniform(0.75, 1.0))
    for _ in range(int(rng.integers(1, 4))):
        x, z, across = rng.uniform(-6, 6), rng.uniform(-25, -3), rng.random() < 0.5
        far = np.array([[x - 12, 0, z], [x + 12, 0, z], [x + 12, 0, z - 0.15], [x - 12, 0, z - 0.15]])
        long = np.array([[x, 0, -3.0], [x + 0.12, 0, -3.0], [x + 0.12, 0, -60], [x, 0, -60]])
        points, depth = camera.project(far if across else long)
        if depth.min() > 0.3:
            cv2.fillConvexPoly(canvas, np.clip(points, -9000, 9000).astype(np.int32), colour, cv2.LINE_AA)


def draw_backdrop(camera: Camera, rng: np.random.Generator) -> tuple[Array, bool]:
    """An image (h, w, 3) uint8 RGB without people, slightly out of focus, and whether it is indoors."""
    canvas = np.zeros((camera.height, camera.width, 3), np.uint8)
    indoor = bool(rng.random() < 0.4)
    distance = rng.uniform(9, 20) if indoor else 60.0
    edge = camera.horizon + camera.focal * camera.altitude / distance
    bottom = int(np.clip(edge, 0, camera.height))
    _ground(canvas, camera, rng, indoor)
    if not indoor and rng.random() < 0.35:
        _lines(canvas, camera, rng)
    if bottom > 8:
        (_wall if indoor else _landscape)(canvas, bottom, rng)
    _clutter(canvas, camera, rng)
    blur = int(rng.choice([0, 0, 3, 5, 9]))
    return (cv2.stackBlur(canvas, (blur, blur)) if blur else canvas), indoor
