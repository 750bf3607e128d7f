"""One image: camera, backdrop, people and objects from far to near, and their annotations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np

from lrbench.datasets.synth.annotations import crowd_annotation, label_keypoints, person_annotation
from lrbench.datasets.synth.backdrop import draw_backdrop
from lrbench.datasets.synth.body import Outfit, build_body, sample_outfit
from lrbench.datasets.synth.camera import Camera
from lrbench.datasets.synth.materials import Light, noise_tile, shade
from lrbench.datasets.synth.props import Canvas, draw_boxes, draw_occluder, seat_boxes
from lrbench.datasets.synth.render import Buffers, Projected, occlusion, project, rasterise, surface
from lrbench.datasets.synth.skeleton import Array, Figure, pose_figure, rotation_y, sample_pose, sample_shape

# Heights of labelled boxes to aim at, px in an image 480 px high: quantiles of COCO's, corrected for what truncation,
# occlusion and the loss of small persons take away.
_QUANTILES = np.array([0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0])
_HEIGHTS = np.array([34.0, 44.0, 63.0, 100.0, 230.0, 545.0, 800.0])
# Thickness in body heights between a joint and the skin in front of it, with a margin; COCO order.
_DEPTHS = np.array(
    [0.02, 0.015, 0.015, 0.025, 0.025]
    + [0.055] * 2
    + [0.042] * 2
    + [0.036] * 2
    + [0.085] * 2
    + [0.055] * 2
    + [0.045] * 2
)


@dataclass(frozen=True, kw_only=True)
class Person:
    """A figure placed in the world, dressed and projected."""

    figure: Figure
    outfit: Outfit
    solids: Projected
    points: Array  # (17, 2) px
    depths: Array  # (17,) m
    box: Array  # (4,) px, around the keypoints with a margin: x0, y0, x1, y1

    @property
    def distance(self) -> float:
        """Depth of the figure's middle, m."""
        return self.solids.depth


@dataclass(frozen=True, kw_only=True)
class Sprite:
    """A rendered person before composition; the window may be smaller than the figure where it leaves the image."""

    x0: int
    y0: int
    colours: Array  # (h, w, 3) float32, times alpha
    alpha: Array  # (h, w) float32
    hidden_by_self: Array  # (17,) bool
    full_area: float  # px, including what lies outside the image


def _sample_height(rng: np.random.Generator, image_height: int) -> float:
    return float(np.exp(np.interp(rng.random(), _QUANTILES, np.log(_HEIGHTS)))) * image_height / 480


def _sample_camera(rng: np.random.Generator, width: int, height: int, tallest: float) -> Camera:
    """A camera that shows the tallest person near the middle of the image."""
    focal = width * float(np.exp(rng.uniform(np.log(0.75), np.log(1.7))))
    roll = rng.random()
    altitude = (
        rng.uniform(1.2, 1.75) if roll < 0.6 else (rng.uniform(0.5, 1.1) if roll < 0.78 else rng.uniform(1.9, 3.6))
    )
    centre = height * rng.normal(0.53, 0.07)
    if tallest > 0.8 * height and rng.random() < 0.85:  # photographers cut feet rather than heads
        centre = 0.5 * tallest + height * rng.uniform(0.02, 0.16)
    horizon = centre + (0.85 - altitude) * tallest / 1.7
    horizon = float(np.clip(horizon, -0.5 * height, 0.8 * height))
    pitch = float(np.arctan(((height - 1) / 2 - horizon) / focal))
    tilt = rng.normal(0, 0.02) if rng.random() < 0.85 else rng.normal(0, 0.12)
    return Camera(width=width, height=height, focal=focal, altitude=float(altitude), pitch=pitch, roll=float(tilt))


def _stand(rng: np.random.Generator, camera: Camera, height: float, near: float | None, low: bool) -> Figure:
    """A random figure about `height` px tall on the ground, close to column `near` (px) if one is given."""
    shape = sample_shape(rng)
    figure = pose_figure(sample_pose(rng, upright=not low), shape)
    share = {"lying": 0.36, "ground": 0.5, "crouching": 0.62, "sitting": 0.74}.get(figure.pose.name, 1.0)
    distance = max(0.9, camera.focal * share * shape.height / height)
    yaw = rng.uniform(-np.pi, np.pi) if rng.random() < 0.45 else rng.normal(0.0, 0.6)
    tall = height > 0.6 * camera.height
    across = rng.uniform(0.15, 0.85) if tall else rng.uniform(0.02, 0.98)
    if tall and rng.random() < 0.18:  # cut by the left or right border
        across = rng.uniform(-0.05, 0.1) if rng.random() < 0.5 else rng.uniform(0.9, 1.05)
    column = across * camera.width if near is None else near + rng.normal(0, 0.45) * height
    x = (column - camera.centre[0]) / camera.focal * distance
    return figure.moved(rotation_y(yaw - float(np.arctan2(x, distance)) * 0.5), np.array([x, 0.0, -distance]))


def _place(
    rng: np.random.Generator,
    camera: Camera,
    height: float,
    near: float | None,
    others: list[Person],
    *,
    small: bool = False,
) -> Person | None:
    """A dressed person, or None when too much of it would lie outside the image or share the place of `others`.

    A `small` one is drawn with less detail and needs no keypoints; a low box with enough pixels to be labelled belongs
    to someone who sits, crouches or lies, so others below a sixth of the image rarely stand.
    """
    low = not small and height < 0.165 * camera.height and rng.random() < 0.9
    figure = _stand(rng, camera, height, near, low)
    depth = float(camera.to_camera(0.5 * (figure.neck + figure.pelvis))[2])
    points, depths = camera.project(figure.keypoints())
    box = _around(points, 0.09 * figure.shape.height * camera.focal / max(depth, 0.1))
    image_box = np.array([0.0, 0.0, camera.width, camera.height])
    if depth < 0.7 or _shared(box, image_box) < 0.3 * _size(box):
        return None
    if not small and any(_shared(box, o.box) > 0.6 * min(_size(box), _size(o.box)) for o in others):
        return None
    outfit = sample_outfit(rng, figure.shape, figure.pose.name in ("standing", "walking", "raised"))
    solids = project(build_body(figure, outfit, detailed=height > 90), camera, depth)
    return Person(figure=figure, outfit=outfit, solids=solids, points=points, depths=depths, box=box)


def _around(points: Array, margin: float) -> Array:
    return np.concatenate([points.min(axis=0) - margin, points.max(axis=0) + margin])


def _size(box: Array) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _shared(a: Array, b: Array) -> float:
    """Area common to two boxes (x0, y0, x1, y1), px."""
    return float(max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1])))


def _window(person: Person, camera: Camera) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = person.solids.box
    left, top = max(0, int(x0) - 2), max(0, int(y0) - 2)
    right, bottom = min(camera.width, int(x1) + 3), min(camera.height, int(y1) + 3)
    # even sizes keep one and a half sub-pixels per pixel whole
    return left, top, left + (right - left + 1) // 2 * 2, top + (bottom - top + 1) // 2 * 2


def _render(person: Person, camera: Camera, light: Light) -> Sprite:
    window = _window(person, camera)
    tall = person.solids.box[3] - person.solids.box[1]
    fine = 3.0 if tall < 45 else (2.0 if tall < 120 else (1.5 if tall < 220 else 1.0))
    buffers = rasterise(person.solids, window, fine)
    seen = surface(buffers, person.solids)
    shadow = occlusion(buffers, 0.08 * person.solids.scale).ravel()[seen.pixels]
    colours = shade(seen, person.solids.materials, person.outfit.materials, person.figure.shape.height, light, shadow)
    rows, columns = buffers.depth.shape
    layers = np.zeros((rows * columns, 4), np.float32)
    layers[seen.pixels, :3] = colours.T
    layers[seen.pixels, 3] = 1.0
    layers = layers.reshape(rows, columns, 4)
    if fine > 1:
        layers = cv2.resize(layers, (window[2] - window[0], window[3] - window[1]), interpolation=cv2.INTER_AREA)
    else:  # soft edges without the cost of supersampling
        layers = cv2.GaussianBlur(layers, (3, 3), 0.55)
    keep_w, keep_h = camera.width - window[0], camera.height - window[1]
    layers = layers[:keep_h, :keep_w]
    alpha = np.ascontiguousarray(layers[..., 3])
    x0, y0, x1, y1 = person.solids.box
    whole = max((x1 - x0) * (y1 - y0), 1.0) / max((window[2] - window[0]) * (window[3] - window[1]), 1)
    return Sprite(
        x0=window[0], y0=window[1], colours=layers[..., :3], alpha=alpha, hidden_by_self=_hidden(person, buffers),
        full_area=float((alpha > 0.5).sum()) * max(1.0, whole),
    )  # fmt: skip


def _hidden(person: Person, buffers: Buffers) -> Array:
    """Which keypoints (17,) lie farther behind the person's own front-most surface than their limb is thick."""
    s = buffers.supersampling
    column = np.round((person.points[:, 0] - buffers.x0 + 0.5) * s - 0.5).astype(int)
    row = np.round((person.points[:, 1] - buffers.y0 + 0.5) * s - 0.5).astype(int)
    rows, columns = buffers.depth.shape
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    front = buffers.depth[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)]
    behind = (person.depths - person.solids.depth) * person.solids.scale - front
    shape = person.figure.shape
    limit = _DEPTHS * shape.height * person.solids.scale * np.where(np.arange(17) < 5, shape.head, shape.girth)
    return np.asarray(inside & (front < 1e8) & (behind > limit))


def _compose(canvas: Canvas, sprite: Sprite, owner: int) -> None:
    h, w = sprite.alpha.shape
    place = (slice(sprite.y0, sprite.y0 + h), slice(sprite.x0, sprite.x0 + w))
    mixed = canvas.image[place].astype(np.float32)
    mixed *= (1.0 - sprite.alpha)[..., None]
    mixed += sprite.colours
    canvas.image[place] = mixed.astype(np.uint8)
    canvas.owner[place][sprite.alpha > 0.5] = owner


def _cast_shadows(canvas: Canvas, camera: Camera, people: list[Person], sun: Array, strength: float) -> None:
    """Darken the ground where the bones, projected along the sun (or straight down), fall."""
    mask = np.zeros((camera.height // 2, camera.width // 2), np.uint8)
    for person in people:
        figure = person.figure
        lines = [(figure.neck, figure.pelvis, 0.2), (figure.head, figure.neck, 0.12)]
        for limb, thick in zip((*figure.arms, *figure.legs), (0.07, 0.07, 0.11, 0.11), strict=True):
            lines += [(limb.root, limb.middle, thick), (limb.middle, limb.end, thick)]
        ends = np.array([point for a, b, _ in lines for point in (a, b)])
        points, depth = camera.project(ends + sun * (ends[:, 1:2] / max(-float(sun[1]), 0.1)))
        if depth.min() < 0.3 or np.abs(points).max() > 4000:
            continue
        p = (points / 2).astype(int).tolist()
        for k, (_, _, thick) in enumerate(lines):
            cv2.line(mask, p[2 * k], p[2 * k + 1], 255, max(1, int(thick * camera.focal / depth[2 * k] / 2)))
    soft = cv2.resize(cv2.blur(mask, (5, 5)), (camera.width, camera.height), interpolation=cv2.INTER_LINEAR)
    factor = 255 - cv2.convertScaleAbs(soft, alpha=strength)
    np.copyto(canvas.image, cv2.multiply(canvas.image, cv2.merge([factor] * 3), scale=1 / 255))


def _sample_light(rng: np.random.Generator, indoor: bool) -> tuple[Light, Array, float]:
    """The light in camera axes, the direction in which the sun shines in the world, and the strength of shadows."""
    direction = np.array([rng.uniform(-0.8, 0.8), -rng.uniform(0.4, 0.9), -rng.uniform(0.1, 0.8)])
    direction /= np.linalg.norm(direction)
    tint = np.array([1.0 + rng.normal(0, 0.04), 1.0, 1.0 + rng.normal(0, 0.05)])
    diffuse = rng.uniform(0.4, 0.8)
    ambient = rng.uniform(0.92, 1.22) - 0.75 * diffuse
    light = Light(direction=direction, diffuse=diffuse * tint * [1.04, 1.0, 0.94], ambient=ambient * tint)
    shines = np.array([-direction[0], direction[1], -direction[2]]) if not indoor else np.array([0.0, -1.0, 0.0])
    return light, shines, (rng.uniform(0.25, 0.6) if not indoor else rng.uniform(0.15, 0.35))


def _populate(rng: np.random.Generator, width: int, height: int) -> tuple[Camera, list[Person]]:
    """Camera and labelled-size people of one image; a few stand close together."""
    count = int(rng.choice([1, 2, 3, 4, 5, 6, 8], p=[0.15, 0.2, 0.19, 0.17, 0.13, 0.1, 0.06]))
    heights = sorted((_sample_height(rng, height) for _ in range(count)), reverse=True)
    camera = _sample_camera(rng, width, height, heights[0])
    people: list[Person] = []
    for tall in heights:
        near = None
        if people and rng.random() < 0.4:
            neighbour = people[int(rng.integers(len(people)))]
            near = float(neighbour.points[:, 0].mean())
            if rng.random() < 0.5:
                tall = float(neighbour.solids.box[3] - neighbour.solids.box[1]) * rng.uniform(0.85, 1.1)
        for _ in range(4):
            person = _place(rng, camera, tall, near, people)
            if person is not None:
                people.append(person)
                break
            near = None
    if rng.random() < 0.2:
        for _ in range(int(rng.integers(1, 4))):
            person = _place(rng, camera, rng.uniform(0.03, 0.08) * height, None, people, small=True)
            if person is not None:
                people.append(person)
    return camera, people


def _crowd(rng: np.random.Generator, camera: Camera) -> list[Person]:
    """Many small people around one spot."""
    height, column = rng.uniform(0.035, 0.085) * camera.height, rng.uniform(0.15, 0.85) * camera.width
    people: list[Person] = []
    for _ in range(int(rng.integers(9, 18))):
        place = column + rng.normal(0, 1.6) * height
        person = _place(rng, camera, height * rng.uniform(0.9, 1.1), place, people, small=True)
        if person is not None:
            people.append(person)
    return people if len(people) >= 6 else []


def _develop(image: Array, rng: np.random.Generator) -> Array:
    """What a camera adds: exposure and colour cast, vignette, a little blur and sensor noise."""
    gain = np.exp(rng.normal(0, [0.05, 0.03, 0.06])) * np.exp(rng.normal(0, 0.07))
    ramp = np.arange(256)[:, None] / 255
    curve = np.clip(255 * (ramp ** np.exp(rng.normal(0, 0.1))) * gain, 0, 255).astype(np.uint8)
    image = cv2.LUT(image, curve.reshape(256, 1, 3))
    height, width = image.shape[:2]
    if rng.random() < 0.35:
        y, x = np.linspace(-1, 1, 30)[:, None], np.linspace(-1, 1, 40)
        fall = np.clip(255 * (1 - rng.uniform(0.05, 0.22) * (x * x + y * y)), 0, 255).astype(np.uint8)
        image = cv2.multiply(image, cv2.merge([cv2.resize(fall, (width, height))] * 3), scale=1 / 255)
    if rng.random() < 0.15:
        image = cv2.GaussianBlur(image, (3, 3), rng.uniform(0.4, 0.9))
    grain = _grain(int(rng.integers(1, 9)), height // 256 + 2, width // 256 + 2)
    top, left = (int(v) for v in rng.integers(0, 256, 2))
    return np.asarray(cv2.add(image, grain[top : top + height, left : left + width], dtype=cv2.CV_8U))


@cache
def _grain(level: int, down: int, across: int) -> Array:
    """Sensor noise (256 down, 256 across, 3) int16 with a standard deviation of 0.6 times `level`."""
    tile = np.tile((noise_tile(0.0, 10) * 0.6 * level).astype(np.int16), (down, across))
    return np.stack([tile, np.roll(tile, 61, 1), np.roll(tile, 149, 1)], axis=2)


def render_scene(rng: np.random.Generator, width: int, height: int) -> tuple[Array, list[dict[str, Any]]]:
    """One image and its annotations.

    Args:
        rng: the image's own generator; the result is a function of its state.
        width, height: px of a full image; one in ten is upright and one in ten is lower.

    Returns:
        (h, w, 3) uint8 RGB, and COCO annotations without ids.
    """
    form = rng.random()
    if form < 0.1:
        width, height = height, width
    elif form < 0.2:
        height = height * 8 // 9
    camera, people = _populate(rng, width, height)
    crowd = _crowd(rng, camera) if rng.random() < 0.05 else []
    image, indoor = draw_backdrop(camera, rng)
    canvas = Canvas(image=image, owner=np.zeros((height, width), np.int16))
    light, sun, strength = _sample_light(rng, indoor)
    _cast_shadows(canvas, camera, people + crowd, sun, strength)
    return _paint(canvas, camera, people, crowd, light, indoor, rng)


def _paint(
    canvas: Canvas,
    camera: Camera,
    people: list[Person],
    crowd: list[Person],
    light: Light,
    indoor: bool,
    rng: np.random.Generator,
) -> tuple[Array, list[dict[str, Any]]]:
    """Draw from far to near, then read each person's visible mask off the owners."""
    everyone = sorted([(p, False) for p in people] + [(p, True) for p in crowd], key=lambda entry: -entry[0].distance)
    crowd_owner = len(people) + 1
    sprites: list[tuple[Person, Sprite]] = []
    for person, in_crowd in everyone:
        behind, before = seat_boxes(person.figure, rng) if person.figure.pose.name == "sitting" else ([], [])
        draw_boxes(canvas, camera, behind)
        sprite = _render(person, camera, light)
        if not in_crowd:
            sprites.append((person, sprite))
        _compose(canvas, sprite, crowd_owner if in_crowd else len(sprites))
        draw_boxes(canvas, camera, before)
        if not in_crowd and rng.random() < 0.13:  # something stands in front of this person
            ray = person.figure.pelvis * [1, 0, 1]
            share = rng.uniform(0.6, 0.85)
            place = ray * share + np.array([rng.normal(0, 0.35), 0, 0])
            if -place[2] > 1.0:
                draw_occluder(canvas, camera, place, rng, indoor)
    annotations = []
    for number, (person, sprite) in enumerate(sprites, start=1):
        mask = canvas.owner == number
        if np.count_nonzero(mask) < 12:
            continue
        keypoints = _label(person, sprite, mask, rng)
        annotations.append(person_annotation(mask, keypoints, float(mask.sum()) / max(sprite.full_area, 1.0)))
    mask = canvas.owner == crowd_owner
    if crowd and np.count_nonzero(mask) > 60:
        annotations.append(crowd_annotation(mask))
    return _develop(canvas.image, rng), annotations


def _label(person: Person, sprite: Sprite, mask: Array, rng: np.random.Generator) -> Array:
    height, width = mask.shape
    columns = np.clip(np.round(person.points[:, 0]), 0, width - 1).astype(int)
    rows = np.clip(np.round(person.points[:, 1]), 0, height - 1).astype(int)
    # a joint at the rim of the body may fall beside the mask, so its neighbours count too
    near = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    return label_keypoints(person.points, sprite.hidden_by_self, near[rows, columns] == 0, (width, height), rng)
