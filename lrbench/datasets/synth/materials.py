"""What surfaces look like: procedural cloth, skin, faces, hair and shoes, and the light on them.

Garment coordinates are in body heights: x to the wearer's left, y up, z to the front, from the base of the neck for
torso garments, from the head's centre for faces, from the upper joint for sleeves and trouser legs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import cv2
import numpy as np

from lrbench.datasets.synth.render import Surface
from lrbench.datasets.synth.skeleton import Array

Pattern = Literal["plain", "bands", "pinstripes", "checks", "plaid", "dots", "blocks", "denim", "camouflage", "flowers"]
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)
TILE = 256
Colour = tuple[float, float, float]  # RGB in [0, 1]


def scaled(colour: Colour, red: float, green: float | None = None, blue: float | None = None) -> Colour:
    """A colour times one factor, or one per channel, kept within [0, 1]."""
    factors = red, red if green is None else green, red if blue is None else blue
    r, g, b = (min(1.0, max(0.0, float(c) * f)) for c, f in zip(colour, factors, strict=True))
    return r, g, b


@cache
def noise_tile(exponent: float, variant: int = 0) -> Array:
    """Periodic noise (256, 256) with power spectrum f^-exponent, mean 0, standard deviation 1, clipped to +-2.5."""
    rng = np.random.default_rng([1913, round(exponent * 100), variant])
    fy, fx = np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None]
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((TILE, TILE))) * frequency ** (-exponent / 2)
    spectrum[0, 0] = 0.0
    tile = np.fft.irfft2(spectrum, s=(TILE, TILE))
    return np.asarray(np.clip(tile / tile.std(), -2.5, 2.5), np.float32)


def sample_tile(tile: Array, u: Array, v: Array) -> Array:
    """Tile values at texel coordinates, nearest neighbour, periodic."""
    return np.asarray(tile[v.astype(np.int32) & (TILE - 1), u.astype(np.int32) & (TILE - 1)])


@cache
def glyph(text: str) -> Array:
    """Text as a bitmap (32, 48) of zeros and ones, row 0 at the top."""
    image = np.zeros((32, 48), np.uint8)
    size, _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, 1.0, 3)
    scale = min(46 / size[0], 30 / size[1])
    cv2.putText(
        image,
        text,
        (int(24 - size[0] * scale / 2), int(16 + size[1] * scale / 2)),
        cv2.FONT_HERSHEY_DUPLEX,
        scale,
        255,
        3,
    )
    return (image > 100).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Light:
    """Direction towards the light in camera axes, its strength, and the ambient light, RGB factors."""

    direction: Array
    diffuse: Array
    ambient: Array


@dataclass(frozen=True, kw_only=True)
class TorsoDecor:
    """What tells the front of a top from its back."""

    neckline: float = 0.02  # depth of the V, body heights
    opening: Literal["none", "buttons", "zip", "open", "tie"] = "none"
    inner: Colour = (0.9, 0.9, 0.9)
    print_front: str = ""
    print_back: str = ""
    print_mirror: bool = False
    straps: Colour | None = None
    skin: Colour = (0.8, 0.6, 0.5)
    hem: float = -0.30


@dataclass(frozen=True, kw_only=True)
class Face:
    """Colours and features painted on the front of a head."""

    iris: Colour
    brow: Colour
    lips: Colour
    beard: float = 0.0
    glasses: Literal["none", "clear", "dark"] = "none"
    smile: float = 0.3
    hairline: float = 0.035


@dataclass(frozen=True, kw_only=True)
class Material:
    """Colours in RGB [0, 1]; `period` of the pattern in body heights."""

    kind: Literal["plain", "cloth", "skin", "head", "hair", "shoe"]
    colour: Colour
    second: Colour = (0.5, 0.5, 0.5)
    third: Colour = (0.2, 0.2, 0.2)
    pattern: Pattern = "plain"
    period: float = 0.03
    gloss: float = 0.0
    offset: float = 0.0  # shifts the noise, so that two garments differ
    decor: TorsoDecor | None = None
    face: Face | None = None


def _blend(base: Array, colour: Colour, weight: Array) -> Array:
    return np.asarray(base + (np.array(colour, np.float32)[:, None] - base) * weight)


def _filled(colour: Colour, count: int) -> Array:
    return np.repeat(np.array(colour, np.float32)[:, None], count, axis=1)


def _pattern(m: Material, x: Array, y: Array, wrap: Array) -> Array:
    """Albedo (3, P) of cloth before prints; `wrap` is the arc length around the limb or trunk."""
    base = _filled(m.colour, len(x))
    u, v = wrap / m.period, y / m.period
    if m.pattern == "bands":
        return _blend(base, m.second, (v % 1.0 < 0.45).astype(np.float32))
    if m.pattern == "pinstripes":
        return _blend(base, m.second, (u % 1.0 < 0.3).astype(np.float32))
    if m.pattern == "checks":
        return _blend(base, m.second, ((u % 2.0 < 1.0) ^ (v % 2.0 < 1.0)).astype(np.float32))
    if m.pattern == "plaid":
        weight = 0.45 * (u % 1.0 < 0.4) + 0.45 * (v % 1.0 < 0.4)
        base = _blend(base, m.second, weight.astype(np.float32))
        thin = (u % 1.0 > 0.66) & (u % 1.0 < 0.76) | (v % 1.0 > 0.66) & (v % 1.0 < 0.76)
        return _blend(base, m.third, 0.7 * thin.astype(np.float32))
    if m.pattern == "dots":
        odd = np.floor(v) % 2 * 0.5
        return _blend(base, m.second, (((u + odd) % 1.0 - 0.5) ** 2 + (v % 1.0 - 0.5) ** 2 < 0.075).astype(np.float32))
    if m.pattern == "blocks":
        return _blend(base, m.second, (y < -0.1 - m.period).astype(np.float32))
    if m.pattern == "denim":
        grain = sample_tile(noise_tile(0.6), wrap * 2600, y * 900 + 300 * m.offset)
        return base * (1.0 + 0.16 * grain)
    if m.pattern in ("camouflage", "flowers"):
        rough = noise_tile(2.6, 1) if m.pattern == "camouflage" else noise_tile(1.6, 2)
        value = sample_tile(rough, wrap * 500 + 500 * m.offset, y * 500)
        base = _blend(base, m.second, (value > 0.35).astype(np.float32))
        return _blend(base, m.third, (value < -0.7).astype(np.float32))
    return base


def _print(
    base: Array, text: str, colour: Colour, x: Array, y: Array, where: Array, centre: float, half: float
) -> Array:
    """Letters over an area `half` wide on either side; x grows to the reader's right."""
    column = ((x / half + 1.0) * 24).astype(np.int32)
    row = ((centre - y) / (half * 0.67) * 16 + 16).astype(np.int32)
    inside = where & (column >= 0) & (column < 48) & (row >= 0) & (row < 32)
    weight = glyph(text)[np.clip(row, 0, 31), np.clip(column, 0, 47)] * inside
    return _blend(base, colour, weight)


def _torso(base: Array, m: Material, decor: TorsoDecor, x: Array, y: Array, z: Array) -> Array:
    front, wide = z > 0, np.abs(x)
    if decor.print_front:
        sign = -1.0 if decor.print_mirror else 1.0
        base = _print(base, decor.print_front, m.third, sign * x, y, front, -0.10, 0.055)
    if decor.print_back:
        sign = 1.0 if decor.print_mirror else -1.0
        base = _print(base, decor.print_back, m.third, sign * x, y, ~front, -0.12, 0.075)
    if decor.opening == "open":
        base = _blend(base, decor.inner, (front & (wide < 0.022 - 0.08 * np.minimum(y, 0))).astype(np.float32))
    elif decor.opening in ("zip", "buttons"):
        base = _blend(base, scaled(m.colour, 0.45), (front & (wide < 0.0035)).astype(np.float32))
        if decor.opening == "buttons":
            dots = front & (wide**2 + ((y % 0.045) - 0.022) ** 2 < 0.006**2)
            base = _blend(base, m.third, dots.astype(np.float32))
    elif decor.opening == "tie":
        base = _blend(
            base,
            (0.95, 0.95, 0.95),
            (front & (wide < 0.03 + 0.12 * np.minimum(y + 0.14, 0.0) + 0.014)).astype(np.float32),
        )
        base = _blend(
            base, m.third, (front & (wide < 0.008 - 0.04 * np.minimum(y + 0.02, 0)) & (y > -0.2)).astype(np.float32)
        )
    collar = (y > -decor.neckline + 1.7 * wide) & front | (y > -0.004 + 0.25 * wide)
    base = _blend(base, decor.skin, collar.astype(np.float32))
    if decor.straps is not None:
        base = _blend(base, decor.straps, (front & (np.abs(wide - 0.062) < 0.013) & (y > -0.16)).astype(np.float32))
    return base


def _head(m: Material, face: Face, x: Array, y: Array, z: Array) -> Array:
    """Face features in head heights of 0.13 body heights; a little larger than life, so that they survive sampling."""
    base = _filled(m.colour, len(x))
    if not len(x):
        return base
    wide, front = np.abs(x), z > 0.008

    def paint(colour: Colour, where: Array, weight: float = 1.0) -> None:
        nonlocal base
        base = _blend(base, colour, weight * (where & front).astype(np.float32))

    red = scaled(m.colour, 1.06, 0.82, 0.8)
    paint(red, (wide - 0.024) ** 2 + (y + 0.022) ** 2 < 0.012**2, 0.45)
    if face.beard > 0:
        jaw = (y < -0.028 + 0.35 * np.maximum(wide - 0.02, 0) * 2) & ~((wide < 0.018) & (np.abs(y + 0.038) < 0.005))
        base = _blend(base, face.brow, face.beard * (jaw & (z > -0.012)).astype(np.float32))
        paint(face.brow, (wide < 0.018) & (np.abs(y + 0.0295) < 0.003), face.beard)
    shade = scaled(m.colour, 0.78)
    paint(shade, ((wide - 0.0185) / 0.013) ** 2 + ((y - 0.004) / 0.0095) ** 2 < 1, 0.6)
    paint((0.97, 0.96, 0.95), ((wide - 0.0185) / 0.0098) ** 2 + ((y - 0.003) / 0.0056) ** 2 < 1)
    paint(face.iris, ((wide - 0.0185) / 0.0047) ** 2 + ((y - 0.003) / 0.0052) ** 2 < 1)
    paint((0.05, 0.04, 0.04), ((wide - 0.0185) / 0.0024) ** 2 + ((y - 0.003) / 0.0027) ** 2 < 1)
    paint(
        (0.12, 0.08, 0.07),
        (np.abs(wide - 0.0185) < 0.0105) & (np.abs(y - 0.0085 + 12 * (wide - 0.0185) ** 2) < 0.0014),
        0.8,
    )
    paint(face.brow, (np.abs(wide - 0.0195) < 0.0115) & (np.abs(y - 0.0165 + 16 * (wide - 0.018) ** 2) < 0.0024), 0.9)
    paint((0.35, 0.16, 0.14), (np.abs(wide - 0.0048) < 0.002) & (np.abs(y + 0.0235) < 0.0016), 0.7)
    curve = y + 0.0385 - face.smile * 14 * wide**2
    paint(face.lips, (wide < 0.0165) & (np.abs(curve) < 0.0046 * (1.05 - (wide / 0.0165) ** 2)))
    paint((0.3, 0.1, 0.1), (wide < 0.015) & (np.abs(curve) < 0.001), 0.8)
    if face.glasses != "none":
        ring = np.sqrt(((wide - 0.0195) / 0.0145) ** 2 + ((y - 0.002) / 0.0115) ** 2)
        if face.glasses == "dark":
            paint((0.06, 0.06, 0.07), ring < 1.05)
        paint((0.08, 0.07, 0.07), (np.abs(ring - 0.97) < 0.12) | ((wide < 0.006) & (np.abs(y - 0.004) < 0.0018)))
        base = _blend(
            base, (0.08, 0.07, 0.07), ((wide > 0.033) & (np.abs(y - 0.004) < 0.002) & (z > -0.01)).astype(np.float32)
        )
    return base


def _albedo(m: Material, texture: Array, wrap: Array) -> Array:
    x, y, z = texture
    if m.kind == "cloth":
        arc = wrap * 0.075 if m.decor is not None else wrap * 0.04
        base = _pattern(m, x, y, arc)
        if m.decor is not None:
            base = _torso(base, m, m.decor, x, y, z)
        return base
    if m.kind == "head" and m.face is not None:
        return _head(m, m.face, x, y, z)
    base = _filled(m.colour, len(x))
    if m.kind == "hair":
        return base * (1.0 + 0.17 * sample_tile(noise_tile(1.0, 3), np.arctan2(x, z) * 90, y * 300 + 200 * m.offset))
    if m.kind == "shoe":
        base = _blend(base, m.second, (y < -0.043).astype(np.float32))
        return _blend(
            base, m.third, ((np.abs(y + 0.022) < 0.004) | (np.abs(z - 0.03) < 0.006)).astype(np.float32) * (y > -0.043)
        )
    return base


def shade(
    seen: Surface, material_of: Array, materials: list[Material], height: float, light: Light, ambient_shadow: Array
) -> Array:
    """Colours (3, P) in [0, 255] of the visible sub-pixels.

    Args:
        seen: what the rasteriser found.
        material_of: (N,) material index of each solid.
        materials: the palette.
        height: body height, m; the unit of garment coordinates.
        light: the scene's light.
        ambient_shadow: (P,) in [0, 1].
    """
    kinds = material_of[seen.solid]
    texture = seen.texture / np.float32(height)
    colours = np.empty((3, len(kinds)), np.float32)
    folds = np.ones(len(kinds), np.float32)
    gloss = np.zeros(len(materials), np.float32)
    for i, m in enumerate(materials):
        where = np.flatnonzero(kinds == i)
        gloss[i] = m.gloss
        if not len(where):
            continue
        part = texture[:, where]
        wrap = seen.wrap[where]
        colours[:, where] = _albedo(m, part, wrap)
        if m.kind == "cloth":  # creases: bright and dark folds, longer across the limb than along it
            folds[where] += 0.13 * sample_tile(noise_tile(2.2, 4), wrap * 40 + 97 * m.offset, part[1] * 420 + 60 * wrap)
        elif m.kind in ("skin", "head"):
            folds[where] += 0.035 * sample_tile(noise_tile(1.8, 5), part[0] * 600, part[1] * 600)
    toward = light.direction.astype(np.float32)
    n = seen.normal
    lambert = toward[0] * n[0] + toward[1] * n[1] + toward[2] * n[2]
    diffuse = np.clip(0.8 * lambert + 0.2, 0.0, 1.0)
    grazing = 1.0 + n[2]
    rim = 1.0 - 0.3 * grazing * grazing
    sky = 0.86 - 0.14 * n[1]
    shadow = (1.0 - 0.65 * ambient_shadow) * rim * folds
    shine = gloss[kinds] * np.clip(lambert, 0, 1) ** 12
    for c in range(3):
        colours[c] *= (light.ambient[c] * sky + light.diffuse[c] * diffuse) * shadow
        colours[c] += shine
    colours *= 255.0
    return np.clip(colours, 0.0, 255.0, out=colours)
