"""Flesh and clothes: turns a posed skeleton into solids with materials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from lrbench.datasets.synth.materials import PATTERNS, Colour, Face, Material, TorsoDecor, scaled
from lrbench.datasets.synth.render import Solids
from lrbench.datasets.synth.skeleton import Array, BodyShape, Figure, Limb

SKIN, HEAD, HAIR, TOP, SLEEVE, BOTTOM, SHOE, HAT, BAG, ITEM, LIPS = range(11)

_SKINS: tuple[Colour, ...] = (
    (0.98, 0.84, 0.75),
    (0.94, 0.77, 0.65),
    (0.89, 0.70, 0.56),
    (0.80, 0.60, 0.45),
    (0.66, 0.46, 0.33),
    (0.50, 0.33, 0.23),
    (0.36, 0.24, 0.17),
)
_HAIRS: tuple[Colour, ...] = (
    (0.07, 0.06, 0.06),
    (0.10, 0.08, 0.07),
    (0.18, 0.11, 0.07),
    (0.28, 0.17, 0.10),
    (0.45, 0.29, 0.16),
    (0.72, 0.56, 0.33),
    (0.55, 0.22, 0.10),
    (0.60, 0.60, 0.60),
    (0.85, 0.85, 0.84),
)
_IRISES: tuple[Colour, ...] = ((0.25, 0.14, 0.07), (0.33, 0.2, 0.1), (0.3, 0.45, 0.6), (0.35, 0.45, 0.3))
_PRINTS = ("LR", "NYC", "USA", "KEEP", "SKY", "UNI", "+", "#1", "BIKE", "O", "XX", "A")
_DARKS: tuple[Colour, ...] = (
    (0.08, 0.08, 0.10),
    (0.12, 0.14, 0.22),
    (0.2, 0.2, 0.21),
    (0.27, 0.22, 0.17),
    (0.17, 0.2, 0.15),
)


@dataclass(frozen=True, kw_only=True)
class Outfit:
    """What one person wears and how the hair is cut."""

    materials: list[Material]
    sleeves: Literal["none", "short", "long"]
    legs: Literal["long", "shorts", "tight", "skirt", "dress"]
    loose: float
    flare: float
    hair: Literal["bald", "short", "medium", "long", "tail", "bun", "afro"]
    hat: Literal["none", "cap", "brim", "beanie", "helmet"]
    bag: Literal["none", "backpack", "shoulder", "handbag"]
    hood: bool
    boots: bool


def any_colour(rng: np.random.Generator) -> Colour:
    """A garment colour: often muted or near black and white, sometimes bright."""
    roll = rng.random()
    if roll < 0.22:
        v = rng.uniform(0.05, 0.25)
        return v, v, v * rng.uniform(1.0, 1.2)
    if roll < 0.36:
        v = rng.uniform(0.78, 0.97)
        return v, v, v * rng.uniform(0.9, 1.0)
    hue, value = rng.uniform(0, 6), rng.uniform(0.3, 0.95)
    saturation = rng.uniform(0.5, 0.95) if roll < 0.7 else rng.uniform(0.1, 0.45)
    ramp = [float(np.clip(abs((hue + k) % 6 - 3) - 1, 0, 1)) for k in (0, 4, 2)]
    r, g, b = (value * (1 - saturation + saturation * c) for c in ramp)
    return r, g, b


def _cloth(
    rng: np.random.Generator, plain: float, colour: Colour | None = None, decor: TorsoDecor | None = None
) -> Material:
    pattern = "plain" if rng.random() < plain else PATTERNS[int(rng.integers(1, len(PATTERNS)))]
    return Material(
        kind="cloth",
        colour=colour or any_colour(rng),
        second=any_colour(rng),
        third=any_colour(rng),
        pattern=pattern,
        period=float(np.exp(rng.uniform(np.log(0.012), np.log(0.05)))),
        offset=float(rng.uniform(0, 9)),
        decor=decor,
    )


def _pick(rng: np.random.Generator, **weights: float) -> Any:  # one of the names: a literal type of the caller's
    names = list(weights)
    p = np.array(list(weights.values()))
    return names[int(rng.choice(len(names), p=p / p.sum()))]


def sample_outfit(rng: np.random.Generator, shape: BodyShape, upright: bool) -> Outfit:
    """Clothes for a body; skirts only for upright postures, where a single cone hangs right."""
    skin = _SKINS[int(rng.integers(len(_SKINS)))]
    hair_colour = _HAIRS[int(rng.integers(4 if skin[0] < 0.7 else len(_HAIRS)))]
    if shape.child and hair_colour[2] > 0.55:
        hair_colour = _HAIRS[3]
    opening = _pick(rng, none=0.55, buttons=0.15, zip=0.12, open=0.1, tie=0.06)
    decor = TorsoDecor(
        neckline=float(rng.choice([0.008, 0.02, 0.03, 0.06])),
        opening=opening,
        inner=any_colour(rng),
        print_front=str(rng.choice(_PRINTS)) if opening == "none" and rng.random() < 0.4 else "",
        print_back=str(rng.integers(1, 100)) if rng.random() < 0.25 else "",
        print_mirror=bool(rng.random() < 0.5),
        skin=skin,
    )
    bag = _pick(rng, none=0.8, backpack=0.1, shoulder=0.04, handbag=0.06)
    bag_colour = any_colour(rng)
    if bag == "backpack":
        decor = TorsoDecor(
            neckline=decor.neckline, opening=decor.opening, inner=decor.inner, straps=bag_colour, skin=skin
        )
    top = _cloth(rng, 0.5, decor=decor)
    sleeve = replace(top, decor=None)
    if rng.random() < 0.08:
        sleeve = Material(kind="cloth", colour=top.second)
    legs = _pick(rng, long=0.55, shorts=0.2, tight=0.08, skirt=0.08, dress=0.07)
    if legs in ("skirt", "dress") and not (upright and shape.feminine):
        legs = "tight" if shape.feminine else "long"
    trousers = _DARKS[int(rng.integers(len(_DARKS)))] if rng.random() < 0.5 else None
    bottom = _cloth(rng, 0.75, trousers)
    if legs == "long" and rng.random() < 0.4:
        blue = rng.uniform(0.6, 1.5)
        bottom = Material(kind="cloth", colour=(0.2 * blue, 0.28 * blue, 0.42 * blue), pattern="denim", offset=1.0)
    if legs == "dress":
        bottom = replace(top, decor=None)
    dark = min(skin[0], 0.75)
    face = Face(
        iris=_IRISES[int(rng.integers(2 if skin[0] < 0.7 else 4))],
        brow=scaled(hair_colour, 0.6),
        lips=scaled((dark, *skin[1:]), *((0.98, 0.52, 0.55) if shape.feminine else (0.9, 0.68, 0.68))),
        beard=float(rng.uniform(0.25, 0.95)) if not shape.feminine and not shape.child and rng.random() < 0.35 else 0.0,
        glasses=_pick(rng, none=0.76, clear=0.12, dark=0.12),
        smile=float(rng.uniform(-0.1, 1.0)),
    )
    if shape.feminine:
        style = _pick(rng, short=0.08, medium=0.22, long=0.38, tail=0.2, bun=0.12)
    else:
        style = _pick(rng, bald=0.1, short=0.7, medium=0.12, afro=0.05)
    shoe = any_colour(rng) if rng.random() < 0.5 else _DARKS[int(rng.integers(3))]
    palette = [
        Material(kind="skin", colour=skin, gloss=0.05),
        Material(kind="head", colour=skin, face=face, gloss=0.05),
        Material(kind="hair", colour=hair_colour, gloss=0.12, offset=float(rng.uniform(0, 9))),
        top,
        sleeve,
        bottom,
        Material(
            kind="shoe",
            colour=shoe,
            second=(0.92, 0.92, 0.9) if rng.random() < 0.5 else (0.1, 0.1, 0.1),
            third=any_colour(rng),
        ),
        Material(kind="plain", colour=any_colour(rng), gloss=0.08),
        Material(kind="plain", colour=bag_colour),
        Material(kind="plain", colour=any_colour(rng), gloss=0.25),
        Material(kind="plain", colour=scaled(skin, 0.93)),
    ]
    return Outfit(
        materials=palette,
        sleeves=_pick(rng, none=0.13, short=0.42, long=0.45),
        legs=legs,
        loose=float(rng.uniform(0.002, 0.011)),
        flare=float(rng.uniform(0.0, 0.012)) if rng.random() < 0.4 else 0.0,
        hair=style,
        hat=_pick(rng, none=0.76, cap=0.1, brim=0.04, beanie=0.06, helmet=0.04),
        bag=bag,
        hood=opening == "zip" or rng.random() < 0.06,
        boots=bool(rng.random() < 0.12),
    )


class _Builder:
    """Collects the solids of one figure; all local lengths are body heights."""

    def __init__(self, figure: Figure, outfit: Outfit, detailed: bool) -> None:
        self.solids = Solids()
        self.figure, self.outfit, self.detailed = figure, outfit, detailed
        self.h = figure.shape.height
        self.girth = figure.shape.girth
        self.trunk = (figure.chest_frame, figure.neck)
        self.lower = (figure.pelvis_frame, figure.pelvis + figure.pelvis_frame @ np.array([0, 0.29, 0]) * self.h)

    def at(self, origin: Array, frame: Array, x: float, y: float, z: float) -> Array:
        return np.asarray(origin + frame @ np.array([x * self.h, y * self.h, z * self.h]))

    def tube(
        self,
        a: Array,
        b: Array,
        ra: float,
        rb: float,
        material: int,
        frame: Array,
        *,
        flat: float = 1.0,
        bulge: float = 0.0,
        flat_end: bool = False,
        texture: tuple[Array, Array] | None = None,
    ) -> None:
        h = self.h
        self.solids.capsule(
            a, b, ra * h, rb * h, material, frame=frame, flat=flat, bulge=bulge * h, flat_end=flat_end, texture=texture
        )

    def ball(
        self,
        centre: Array,
        radii: tuple[float, float, float],
        material: int,
        frame: Array,
        *,
        keep: tuple[float, float, float, float] = (0.0, 0.0, 0.0, -9.0),
        texture: tuple[Array, Array] | None = None,
    ) -> None:
        h = self.h
        self.solids.ellipsoid(
            centre, (radii[0] * h, radii[1] * h, radii[2] * h), material, frame=frame, keep=keep, texture=texture
        )

    # --- trunk --------------------------------------------------------------------------------------------------------

    def torso(self) -> None:
        f, g, shape = self.figure, self.girth, self.figure.shape
        chest, pelvis = f.chest_frame, f.pelvis_frame
        slack = 0.45 * self.outfit.loose
        wide = 0.5 + 0.5 * shape.shoulders
        belly = max(0.0, g - 1.05)
        top = self.trunk
        waist = (0.062 if shape.feminine else 0.069) * g + slack
        ribs_low, ribs_high = self.at(f.neck, chest, 0, -0.14, 0.0), self.at(f.neck, chest, 0, -0.083, 0.0)
        navel = self.at(f.pelvis, pelvis, 0, 0.075, 0.002 + 0.06 * belly)
        self.tube(
            ribs_high, ribs_low, 0.083 * g * wide + slack, 0.076 * g * wide + slack, TOP, chest, flat=0.68, texture=top
        )
        self.tube(ribs_low, navel, 0.076 * g * wide + slack, waist, TOP, chest, flat=0.70 + belly, texture=top)
        hip_wide = 0.083 * g * shape.hips
        tucked = self.outfit.legs in ("skirt", "dress")
        hem = self.at(f.pelvis, pelvis, 0, 0.035 if tucked else -0.012, 0.0)
        self.tube(
            navel,
            hem,
            waist,
            hip_wide + 0.009 + 2 * slack,
            TOP,
            pelvis,
            flat=0.76 + 0.6 * belly,
            flat_end=True,
            texture=self.lower,
        )
        self.ball(
            self.at(f.pelvis, pelvis, 0, -0.008, 0),
            (hip_wide + 0.004 + slack, 0.065 * g, 0.062 * g + slack),
            BOTTOM,
            pelvis,
            texture=self.lower,
        )
        if self.outfit.hood:
            self.ball(self.at(f.neck, chest, 0, 0.0, -0.045), (0.055, 0.032, 0.03), SLEEVE, chest, texture=top)
        throat = self.at(f.neck, chest, 0, -0.01, -0.004)
        self.tube(throat, self.at(f.head, f.head_frame, 0, -0.022, -0.008), 0.031 * g, 0.028 * g, LIPS, chest)
        for side in (1.0, -1.0):
            self.flank(side, slack)

    def flank(self, side: float, slack: float) -> None:
        """Shoulder, breast and buttock of one side."""
        f, g, top = self.figure, self.girth, self.trunk
        chest, pelvis = f.chest_frame, f.pelvis_frame
        arm = f.arms[0 if side > 0 else 1]
        collar, tip = (
            self.at(f.neck, chest, side * 0.018, 0.006, -0.008),
            self.at(arm.root, chest, -side * 0.012, 0.006, 0),
        )
        self.tube(collar, tip, 0.024 * g, 0.027 * g + 0.4 * slack, TOP, chest, texture=top)
        armpit = self.at(f.neck, chest, side * 0.045, -0.085, 0.004)
        self.tube(arm.root, armpit, 0.030 * g + slack, 0.05 * g + slack, TOP, chest, flat=0.85, texture=top)
        if not self.detailed:
            return
        buttock = self.at(f.pelvis, pelvis, side * 0.036, -0.02, -0.026 * g)
        self.ball(buttock, (0.044 * g, 0.047 * g, 0.043 * g), BOTTOM, pelvis, texture=self.lower)
        if f.shape.feminine and not f.shape.child:
            breast = self.at(f.neck, chest, side * 0.037, -0.105, 0.046 * g)
            self.ball(breast, (0.036 * g, 0.034 * g, 0.028 * g), TOP, chest, texture=top)

    def skirt(self) -> None:
        f = self.figure
        down = -(f.legs[0].upper[:, 1] + f.legs[1].upper[:, 1])
        down = down / np.sqrt(down @ down)
        length = 0.2 + 0.016 * self.outfit.flare * 1000
        start = self.at(f.pelvis, f.pelvis_frame, 0, 0.03, 0)
        spread = 0.5 * float(np.sqrt(((f.legs[0].middle - f.legs[1].middle) ** 2).sum())) / self.h
        low = max(0.10, spread * length / 0.26 + 0.055) * self.girth
        self.tube(
            start,
            start + down * length * self.h,
            0.078 * self.girth,
            low,
            BOTTOM,
            f.pelvis_frame,
            flat=0.85,
            flat_end=True,
        )

    # --- limbs --------------------------------------------------------------------------------------------------------

    def arm(self, limb: Limb) -> None:
        g, sleeves, loose = self.girth, self.outfit.sleeves, self.outfit.loose
        slim = 0.9 if self.figure.shape.feminine else 1.0
        covered = sleeves == "long"
        slack = loose if covered else 0.0
        skin = SLEEVE if covered else SKIN
        self.tube(
            limb.root,
            limb.middle,
            0.0275 * g * slim + slack,
            0.0215 * g * slim + slack,
            skin,
            limb.upper,
            bulge=0.004 * g,
        )
        self.tube(
            limb.middle,
            limb.end,
            0.0215 * g * slim + slack,
            0.0145 * g * slim + 0.8 * slack,
            skin,
            limb.lower,
            bulge=0.004 * g,
        )
        if sleeves == "short":
            cut = limb.root + (0.45 + 12 * loose) * (limb.middle - limb.root)
            self.tube(
                limb.root,
                cut,
                0.031 * g * slim + loose,
                0.0285 * g * slim + 1.3 * loose,
                SLEEVE,
                limb.upper,
                flat_end=True,
            )
        palm = self.at(limb.end, limb.tip, 0, -0.044, 0)
        wrist_frame = limb.tip
        self.tube(limb.end, palm, 0.0135, 0.0205, LIPS, wrist_frame, flat=0.5)
        if self.detailed:
            curl = self.at(palm, limb.tip, 0, -0.034, 0.012)
            self.tube(palm, curl, 0.0195, 0.012, SKIN, wrist_frame, flat=0.5)
            side = 1.0 if float(limb.tip[:, 0] @ (self.figure.neck - limb.end)) > 0 else -1.0
            self.tube(
                self.at(limb.end, limb.tip, side * 0.01, -0.018, 0.006),
                self.at(limb.end, limb.tip, side * 0.026, -0.045, 0.014),
                0.0085,
                0.0065,
                LIPS,
                wrist_frame,
            )

    def leg(self, limb: Limb) -> None:
        g, outfit = self.girth, self.outfit
        covered = outfit.legs in ("long", "tight")
        slack = outfit.loose * (0.8 if outfit.legs == "long" else 0.15) if covered else 0.0
        skin = BOTTOM if covered else SKIN
        flare = outfit.flare if outfit.legs == "long" else 0.0
        self.tube(limb.root, limb.middle, 0.05 * g + slack, 0.0315 * g + slack, skin, limb.upper, bulge=0.006 * g)
        ankle = limb.middle + 0.97 * (limb.end - limb.middle)
        self.tube(
            limb.middle,
            ankle,
            0.031 * g + slack,
            0.0185 * g + slack + flare,
            skin,
            limb.lower,
            bulge=0.003 * g if slack > 0.003 else 0.0075 * g,
            flat_end=False,
        )
        if not covered and self.detailed:
            calf = self.at(limb.middle, limb.lower, 0, -0.07, -0.011)
            self.ball(calf, (0.029 * g, 0.062, 0.03 * g), SKIN, limb.lower)
        if outfit.legs == "shorts":
            cut = limb.root + (0.55 + 30 * outfit.loose) * (limb.middle - limb.root)
            self.tube(
                limb.root,
                cut,
                0.054 * g + outfit.loose,
                0.048 * g + 1.5 * outfit.loose,
                BOTTOM,
                limb.upper,
                flat_end=True,
            )
        foot = limb.tip
        up = np.stack([foot[:, 0], -foot[:, 2], foot[:, 1]], axis=1)  # along the foot, squashed in height
        texture = (foot, limb.end)
        heel, ball = self.at(limb.end, foot, 0, -0.031, -0.014), self.at(limb.end, foot, 0, -0.036, 0.062)
        self.tube(heel, ball, 0.0215, 0.0245, SHOE, up, flat=0.75, texture=texture)
        self.tube(ball, self.at(limb.end, foot, 0, -0.038, 0.086), 0.0245, 0.0195, SHOE, up, flat=0.68, texture=texture)
        if self.detailed:
            ankle, instep = self.at(limb.end, foot, 0, -0.012, -0.004), self.at(limb.end, foot, 0, -0.03, 0.05)
            self.tube(ankle, instep, 0.0215, 0.0185, SHOE, up, texture=texture)
        if outfit.boots:
            self.tube(self.at(limb.end, limb.lower, 0, 0.09, 0), limb.end, 0.036 * g, 0.024, SHOE, limb.lower)

    # --- head ---------------------------------------------------------------------------------------------------------

    def head(self) -> None:
        f, k = self.figure, self.figure.shape.head
        frame, centre = f.head_frame, f.head
        # face coordinates are those of an adult head, whatever the size of this one
        texture = (frame / k, centre)

        def p(x: float, y: float, z: float) -> Array:
            return self.at(centre, frame, x * k, y * k, z * k)

        def ball(
            x: float,
            y: float,
            z: float,
            radii: tuple[float, float, float],
            material: int,
            **more: tuple[float, float, float, float],
        ) -> None:
            self.ball(p(x, y, z), (radii[0] * k, radii[1] * k, radii[2] * k), material, frame, texture=texture, **more)

        jaw = 0.034 if f.shape.feminine or f.shape.child else 0.0375
        ball(0, 0.013, -0.004, (0.0445, 0.052, 0.056), HEAD)
        ball(0, -0.022, 0.011, (jaw, 0.044, 0.041), HEAD)
        self.tube(p(0, 0.004, 0.049), p(0, -0.0165, 0.058), 0.0042 * k, 0.0082 * k, LIPS, frame)
        for side in (1.0, -1.0):
            ball(side * 0.0445, -0.004, -0.004, (0.007, 0.0165, 0.0105), LIPS)
        self.hair(ball, p, k)

    def hair(self, ball: Callable[..., None], p: Callable[[float, float, float], Array], k: float) -> None:
        outfit, f = self.outfit, self.figure
        style = outfit.hair
        tilted = (0.0, 0.66, -0.75, 0.02 if style == "short" else -0.06)
        thick = 0.012 if style == "afro" else 0.0
        if style != "bald":
            ball(0, 0.017, -0.007, (0.0485 + thick, 0.055 + thick, 0.0595 + thick), HAIR, keep=tilted)
        if style == "afro":
            ball(0, 0.02, -0.02, (0.064, 0.064, 0.06), HAIR, keep=(0.0, 0.6, -0.8, -0.12))
        if style in ("medium", "long", "tail", "bun"):
            ball(0, -0.006, -0.02, (0.047, 0.052, 0.043), HAIR, keep=(0.0, 0.1, -1.0, -0.25))
        if style in ("long", "medium"):
            drop = -0.11 if style == "long" else -0.055
            back = (
                f.neck + f.chest_frame @ np.array([0, drop * 0.45, -0.058 * self.girth]) * self.h
                if style == "long"
                else p(0, drop, -0.035)
            )
            self.tube(p(0, 0.0, -0.024), back, 0.048 * k, 0.042 * k, HAIR, f.head_frame, flat=0.55)
            for side in (1.0, -1.0):
                self.tube(
                    p(side * 0.041, 0.02, -0.004),
                    p(side * 0.043, drop * 0.75, -0.012),
                    0.0125 * k,
                    0.013 * k,
                    HAIR,
                    f.head_frame,
                )
        elif style == "tail":
            self.tube(p(0, 0.02, -0.06), p(0, -0.075, -0.088), 0.018 * k, 0.01 * k, HAIR, f.head_frame, bulge=0.006)
        elif style == "bun":
            ball(0, 0.05, -0.05, (0.026, 0.024, 0.024), HAIR)
        self.hat(ball, p, k)

    def hat(self, ball: Callable[..., None], p: Callable[[float, float, float], Array], k: float) -> None:
        hat, frame = self.outfit.hat, self.figure.head_frame
        if hat == "none":
            return
        low = {"cap": 0.22, "brim": 0.25, "beanie": 0.12, "helmet": 0.1}[hat]
        extra = 0.006 if hat == "helmet" else 0.0
        ball(0, 0.017, -0.005, (0.052 + extra, 0.058 + extra, 0.063 + extra), HAT, keep=(0.0, 0.985, -0.17, low))
        flat = np.stack([frame[:, 0], -frame[:, 2], frame[:, 1]], axis=1)
        if hat == "cap":
            self.tube(p(0, 0.035, 0.035), p(0, 0.03, 0.072), 0.038 * k, 0.034 * k, HAT, flat, flat=0.1)
        elif hat == "brim":
            ball(0, 0.033, -0.002, (0.088, 0.006, 0.092), HAT)

    # --- things carried -----------------------------------------------------------------------------------------------

    def carried(self) -> None:
        f, bag = self.figure, self.outfit.bag
        chest = f.chest_frame
        if bag == "backpack":
            self.tube(
                self.at(f.neck, chest, 0, -0.055, -0.085),
                self.at(f.neck, chest, 0, -0.2, -0.095),
                0.062,
                0.072,
                BAG,
                chest,
                flat=0.72,
            )
            self.ball(self.at(f.neck, chest, 0, -0.2, -0.14), (0.05, 0.045, 0.022), ITEM, chest)
        side = (
            1.0 if f.neck[0] * 1000 % 2 < 1 else -1.0
        )  # either side, by an arbitrary digit of where the person stands
        arm = f.arms[0 if side > 0 else 1]
        if bag == "shoulder":
            self.tube(
                self.at(f.neck, chest, -side * 0.06, 0.015, 0.02),
                self.at(f.pelvis, f.pelvis_frame, side * 0.09, 0.05, 0.05),
                0.008,
                0.008,
                BAG,
                chest,
            )
            self.tube(
                self.at(f.neck, chest, -side * 0.06, 0.015, -0.03),
                self.at(f.pelvis, f.pelvis_frame, side * 0.09, 0.05, -0.04),
                0.008,
                0.008,
                BAG,
                chest,
            )
            self.ball(
                self.at(f.pelvis, f.pelvis_frame, side * 0.115, -0.01, 0.0), (0.022, 0.05, 0.065), BAG, f.pelvis_frame
            )
        elif bag == "handbag" and f.pose.name in ("standing", "walking"):
            grip = self.at(arm.end, arm.tip, 0, -0.06, 0)
            hang = grip + np.array([0, -0.1, 0]) * self.h
            self.tube(grip, hang, 0.007, 0.01, BAG, np.eye(3))
            self.ball(hang + np.array([0, -0.045, 0]) * self.h, (0.024, 0.055, 0.07), BAG, chest)
        self.item()

    def item(self) -> None:
        f = self.figure
        arm, leg = f.arms[0], f.legs[0]
        if f.pose.item in ("racket", "bat"):
            hand = self.at(arm.end, arm.tip, 0, -0.045, 0)
            end = self.at(hand, arm.lower, 0, -0.16, 0.16)
            if f.pose.item == "bat":
                self.tube(hand, self.at(hand, arm.lower, 0, -0.28, 0.28), 0.01, 0.019, ITEM, arm.lower)
            else:
                self.tube(hand, end, 0.01, 0.007, ITEM, arm.lower)
                centre = self.at(hand, arm.lower, 0, -0.25, 0.25)
                self.tube(end, centre + 0.3 * (centre - end), 0.05, 0.068, ITEM, arm.lower, flat=0.06)
        elif f.pose.item == "ball":
            self.ball(self.at(leg.end, leg.tip, 0.0, 0.03, 0.22), (0.062, 0.062, 0.062), ITEM, np.eye(3))
        elif f.pose.item == "board":
            middle = 0.5 * (f.legs[0].end + f.legs[1].end) - np.array([0, 0.062, 0]) * self.h
            across = f.legs[0].end - f.legs[1].end
            across = across / np.sqrt(across @ across + 1e-9)
            flat = np.stack([np.cross(across, [0, 1, 0]), across, [0, 1, 0]], axis=1)
            self.tube(middle - across * 0.3 * self.h, middle + across * 0.3 * self.h, 0.05, 0.05, ITEM, flat, flat=0.18)


def build_body(figure: Figure, outfit: Outfit, *, detailed: bool = True) -> Solids:
    """All solids of one dressed person; without `detailed`, fingers and the finer shapes are left out."""
    builder = _Builder(figure, outfit, detailed)
    builder.torso()
    for limb in figure.arms:
        builder.arm(limb)
    for limb in figure.legs:
        builder.leg(limb)
    if outfit.legs in ("skirt", "dress"):
        builder.skirt()
    builder.head()
    builder.carried()
    return builder.solids
