"""Objects among the people: seats, tables, crates, cars, poles, plants and umbrellas."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lrbench.datasets.synth.backdrop import colour_255, leaves, muted
from lrbench.datasets.synth.body import any_colour
from lrbench.datasets.synth.camera import Camera
from lrbench.datasets.synth.materials import Colour
from lrbench.datasets.synth.skeleton import Array, Figure, rotation_y

OBJECT = 0  # the owner of pixels that belong to no person

_FACES = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
_BRIGHTNESS = (0.72, 0.85, 0.5, 1.08, 0.62, 0.95)


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """The picture so far: RGB (h, w, 3) uint8, and which person owns each pixel, (h, w) int16, 0 for none."""

    image: Array
    owner: Array


@dataclass(frozen=True, kw_only=True)
class Box:
    """A cuboid: centre and size (width, height, length) in metres, turned by `yaw` about the vertical."""

    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float
    colour: Colour


def polygon(canvas: Canvas, points: Array, colour: tuple[float, float, float]) -> None:
    """Fill a convex polygon (N, 2) px in front of everything drawn so far."""
    outline = np.round(np.clip(points, -8000, 8000) * 8).astype(np.int32)
    cv2.fillConvexPoly(canvas.image, outline, colour, cv2.LINE_AA, 3)
    cv2.fillConvexPoly(canvas.owner, outline, OBJECT, cv2.LINE_8, 3)


def draw_boxes(canvas: Canvas, camera: Camera, boxes: list[Box]) -> None:
    """Draw cuboids from far to near; those too close to the camera are left out."""
    for box in sorted(boxes, key=lambda b: -float(camera.to_camera(np.array(b.centre))[2])):
        corners = (
            np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]) * box.size
        ) @ rotation_y(box.yaw).T
        points, depth = camera.project(corners + np.array(box.centre))
        if depth.min() < 0.2:
            continue
        for face, brightness in zip(_FACES, _BRIGHTNESS, strict=True):
            quad = points[list(face)]
            d1, d2 = quad[2] - quad[0], quad[3] - quad[1]
            if d1[0] * d2[1] - d1[1] * d2[0] < 0:  # seen from outside
                polygon(canvas, quad, colour_255(box.colour, brightness))


def seat_boxes(figure: Figure, rng: np.random.Generator) -> tuple[list[Box], list[Box]]:
    """Furniture under a sitting figure: what lies behind it and what (seen from the back) lies in front of it."""
    kind, h = figure.pose.support, figure.shape.height
    front = figure.pelvis_frame[:, 2]
    yaw = float(np.arctan2(front[0], front[2]))
    top = float(figure.pelvis[1]) - 0.062 * h * figure.shape.girth
    forward = np.array([np.sin(yaw), 0.0, np.cos(yaw)])
    colour = muted(rng)
    centre = figure.pelvis * [1, 0, 1] + forward * 0.05

    def box(along: float, across: float, low: float, high: float, size: tuple[float, float]) -> Box:
        p = centre + forward * along + np.array([forward[2], 0, -forward[0]]) * across
        return Box(centre=(p[0], (low + high) / 2, p[2]), size=(size[0], high - low, size[1]), yaw=yaw, colour=colour)

    if kind == "stool":
        return [box(0, 0, 0, top, (0.42, 0.42))], []
    if kind == "bench":
        return [
            box(0, 0, top - 0.07, top, (1.6, 0.45)),
            box(0, -0.7, 0, top - 0.07, (0.08, 0.4)),
            box(0, 0.7, 0, top - 0.07, (0.08, 0.4)),
        ], []
    legs = [box(a, c, 0, top - 0.05, (0.045, 0.045)) for a in (-0.2, 0.2) for c in (-0.2, 0.2)]
    back = [
        box(-0.27, 0, top + 0.12, top + 0.45, (0.46, 0.04)),
        box(-0.27, -0.2, 0, top + 0.14, (0.04, 0.04)),
        box(-0.27, 0.2, 0, top + 0.14, (0.04, 0.04)),
    ]
    base = [box(0, 0, top - 0.05, top, (0.47, 0.47)), *legs]
    return (base, back) if forward[2] < -0.15 else (base + back, [])


def _table(p: Array, yaw: float, rng: np.random.Generator) -> list[Box]:
    width, length, height = rng.uniform(0.7, 1.8), rng.uniform(0.6, 0.9), rng.uniform(0.55, 0.9)
    colour = muted(rng)
    turn = rotation_y(yaw)

    def part(offset: tuple[float, float, float], size: tuple[float, float, float], own: Colour) -> Box:
        q = p + turn @ np.array(offset)
        return Box(centre=(q[0], q[1], q[2]), size=size, yaw=yaw, colour=own)

    parts = [part((0, height, 0), (width, 0.05, length), colour)]
    parts += [
        part((x * (width / 2 - 0.06), height / 2, z * (length / 2 - 0.06)), (0.06, height, 0.06), colour)
        for x in (-1, 1)
        for z in (-1, 1)
    ]
    for _ in range(int(rng.integers(0, 4))):
        tall = rng.uniform(0.05, 0.28)
        parts.append(
            part(
                (rng.uniform(-0.4, 0.4) * width, height + 0.025 + tall / 2, rng.uniform(-0.3, 0.3) * length),
                (rng.uniform(0.05, 0.3), tall, 0.12),
                any_colour(rng),
            )
        )
    return parts


def _car(p: Array, yaw: float, canvas: Canvas, camera: Camera, rng: np.random.Generator) -> None:
    colour, turn = any_colour(rng), rotation_y(yaw)
    cabin = p + turn @ np.array([0.0, 1.1, -0.15])
    boxes = [Box(centre=(p[0], 0.6, p[2]), size=(1.75, 0.6, 4.2), yaw=yaw, colour=colour)]
    glass = (0.25, 0.3, 0.36)
    boxes.append(Box(centre=(cabin[0], cabin[1], cabin[2]), size=(1.5, 0.45, 2.1), yaw=yaw, colour=glass))
    boxes.append(Box(centre=(cabin[0], 1.36, cabin[2]), size=(1.55, 0.06, 2.2), yaw=yaw, colour=colour))
    draw_boxes(canvas, camera, boxes[:1])
    draw_boxes(canvas, camera, boxes[1:2])
    draw_boxes(canvas, camera, boxes[2:])
    near = 1.0 if (turn @ np.array([1.0, 0, 0]))[2] > 0 else -1.0
    angle = np.linspace(0, 2 * np.pi, 18, endpoint=False)
    for along in (-1.35, 1.35):
        for radius, own in ((0.33, (0.08, 0.08, 0.08)), (0.18, (0.6, 0.6, 0.62))):
            rim = (
                np.stack(
                    [np.full(18, near * 0.89), 0.33 + radius * np.sin(angle), along + radius * np.cos(angle)], axis=1
                )
                @ turn.T
                + p
            )
            points, depth = camera.project(rim)
            if depth.min() > 0.3:
                polygon(canvas, points, colour_255(own))


def draw_occluder(canvas: Canvas, camera: Camera, place: Array, rng: np.random.Generator, indoor: bool) -> None:
    """One random object standing at `place` (3,) on the ground, in front of everything drawn so far."""
    kind = int(rng.choice([0, 1, 2, 3, 3, 5] if indoor else [1, 1, 2, 3, 3, 4, 5, 6]))
    yaw = rng.uniform(-np.pi, np.pi)
    x, z = float(place[0]), float(place[2])
    points, depth = camera.project(np.array([[x, 0, z], [x, 1.0, z]]))
    scale = camera.focal / float(depth[0])
    if kind == 0:
        draw_boxes(canvas, camera, _table(place, yaw, rng))
    elif kind == 1:
        size = rng.uniform(0.25, 0.9, 3)
        draw_boxes(
            canvas,
            camera,
            [Box(centre=(x, size[1] / 2, z), size=(size[0], size[1], size[2]), yaw=yaw, colour=muted(rng))],
        )
    elif kind == 2:  # a pole or a pillar
        width, colour = rng.uniform(0.04, 0.25), muted(rng)
        top = camera.project(np.array([[x, rng.uniform(1.8, 5.0), z]]))[0][0]
        for share, brightness in ((0.5, 0.6), (0.35, 0.8), (0.15, 1.0)):
            half = np.array([share * width * scale, 0.0])
            polygon(
                canvas,
                np.array([points[0] - half, points[0] + half, top + half, top - half]),
                colour_255(colour, brightness),
            )
    elif kind == 3:  # a plant in a pot
        draw_boxes(canvas, camera, [Box(centre=(x, 0.18, z), size=(0.34, 0.36, 0.34), yaw=yaw, colour=muted(rng))])
        tall = rng.uniform(0.55, 1.1)
        centre = camera.project(np.array([[x, tall, z]]))[0][0]
        green = rng.uniform(0.5, 1.2)
        mask = leaves(
            canvas.image,
            (float(np.clip(centre[0], -2e3, 2e3)), float(np.clip(centre[1], -2e3, 2e3))),
            float(min(0.45 * scale, 260)),
            rng,
            (0.25 * green, 0.42 * green, 0.17 * green),
        )
        canvas.owner[mask > 0] = OBJECT
    elif kind == 4:
        _car(place, yaw, canvas, camera, rng)
    elif kind == 5:  # a rail or a low wall
        height = rng.uniform(0.35, 0.95)
        draw_boxes(
            canvas,
            camera,
            [
                Box(
                    centre=(x, height / 2, z),
                    size=(rng.uniform(1.0, 4.0), height, 0.12),
                    yaw=rng.normal(0, 0.3),
                    colour=muted(rng),
                )
            ],
        )
    else:  # a parasol
        _parasol(canvas, camera, place, rng)


def _parasol(canvas: Canvas, camera: Camera, place: Array, rng: np.random.Generator) -> None:
    first, second = any_colour(rng), any_colour(rng)
    angle = np.linspace(0, 2 * np.pi, 9)
    height = rng.uniform(2.0, 2.5)
    rim = np.stack([1.2 * np.cos(angle), np.full(9, height - 0.45), 1.2 * np.sin(angle)], axis=1) + place
    points, depth = camera.project(np.concatenate([rim, place + np.array([[0, height, 0], [0, 0, 0]])]))
    if depth.min() < 0.4:
        return
    half = np.array([0.02 * camera.focal / depth[-1], 0])
    polygon(
        canvas, np.array([points[-1] - half, points[-1] + half, points[-2] + half, points[-2] - half]), (200, 200, 200)
    )
    for k in sorted(range(8), key=lambda i: -depth[i]):
        polygon(canvas, points[[k, k + 1, 9]], colour_255(first if k % 2 else second, 0.8 + 0.03 * k))
