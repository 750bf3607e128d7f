"""Articulated 3D people: body proportions, poses within joint limits, and forward kinematics.

Body frame: x towards the person's own left, y up, z to the front (right-handed). Bones hang along -y at rest, so the
all-zero pose stands upright with hanging arms. Lengths are metres, angles radians.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Support = Literal["ground", "chair", "stool", "bench", "air"]

KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip


def rotation_x(angle: float) -> Array:
    """Rotation about x, (3, 3); a positive angle turns up (y) towards the front (z)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def rotation_y(angle: float) -> Array:
    """Rotation about y, (3, 3); a positive angle turns the front (z) towards the left (x)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def rotation_z(angle: float) -> Array:
    """Rotation about z, (3, 3); a positive angle turns the left (x) towards up (y)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, kw_only=True)
class BodyShape:
    """One person's build; every length but `height` is a multiple of it or a factor around one."""

    height: float
    girth: float
    shoulders: float
    hips: float
    head: float
    legs: float
    feminine: bool
    child: bool


def sample_shape(rng: np.random.Generator) -> BodyShape:
    """A child or an adult, slim to heavy."""
    child = rng.random() < 0.15
    feminine = bool(rng.random() < 0.5)
    heavy = rng.random() < 0.2
    girth = rng.uniform(1.08, 1.32) if heavy else rng.normal(0.98, 0.06)
    if child:
        height = rng.uniform(0.95, 1.5)
        youth = (1.6 - height) / 0.65
        return BodyShape(
            height=height, girth=float(np.clip(girth, 0.85, 1.2)) * (1.0 + 0.08 * youth), shoulders=0.94, hips=0.95,
            head=1.0 + 0.42 * youth, legs=1.0 - 0.09 * youth, feminine=feminine, child=True,
        )  # fmt: skip
    height = rng.normal(1.64 if feminine else 1.77, 0.065)
    return BodyShape(
        height=float(np.clip(height, 1.45, 2.0)),
        girth=float(np.clip(girth, 0.84, 1.35)) * (0.95 if feminine else 1.0),
        shoulders=float(rng.normal(0.93 if feminine else 1.03, 0.03)),
        hips=float(rng.normal(1.06 if feminine else 0.98, 0.03)),
        head=float(rng.normal(1.03, 0.03)),
        legs=float(rng.normal(1.0, 0.02)),
        feminine=feminine,
        child=False,
    )


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Shoulder and elbow angles, or a `reach` target that overrides them.

    `reach` is the wrist in the chest frame, in body heights from the base of the neck, given for the LEFT arm (the
    right arm mirrors it); `pole` is where the elbow points, in the same frame.
    """

    flex: float = 0.0
    abduct: float = 0.12
    twist: float = 0.2
    elbow: float = 0.15
    wrist: float = 0.0
    reach: tuple[float, float, float] | None = None
    pole: tuple[float, float, float] = (0.6, -0.6, -0.5)


@dataclass(frozen=True, kw_only=True)
class Leg:
    """Hip and knee angles; the ankle levels the foot as far as it bends, plus `ankle`."""

    flex: float = 0.0
    abduct: float = 0.05
    twist: float = 0.12
    knee: float = 0.03
    ankle: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Pose:
    """One posture; index 0 of `arms` and `legs` is the left side."""

    name: str
    tilt: Array = field(default_factory=lambda: np.eye(3))
    spine: tuple[float, float, float] = (0.0, 0.0, 0.0)  # forward bend, bend to the right, twist to the left
    neck: tuple[float, float, float] = (0.0, 0.0, 0.0)  # turn to the left, nod, tilt to the right
    arms: tuple[Arm, Arm] = (Arm(), Arm())
    legs: tuple[Leg, Leg] = (Leg(), Leg())
    support: Support = "ground"
    lift: float = 0.0
    item: str = ""


def mirror(pose: Pose) -> Pose:
    """The same posture with left and right exchanged."""
    flip = np.diag([-1.0, 1.0, 1.0])
    return replace(
        pose,
        tilt=flip @ pose.tilt @ flip,
        spine=(pose.spine[0], -pose.spine[1], -pose.spine[2]),
        neck=(-pose.neck[0], pose.neck[1], -pose.neck[2]),
        arms=(pose.arms[1], pose.arms[0]),
        legs=(pose.legs[1], pose.legs[0]),
    )


# --- arms: gestures that many postures share -------------------------------------------------------------------------


def _relaxed(rng: np.random.Generator) -> Arm:
    return Arm(
        flex=rng.normal(0.0, 0.15),
        abduct=rng.uniform(0.1, 0.3),
        twist=rng.uniform(0.1, 0.7),
        elbow=rng.uniform(0.1, 0.6),
    )


def _on_hip(rng: np.random.Generator) -> Arm:
    return Arm(reach=(0.1, -0.235 + rng.normal(0, 0.01), 0.02), pole=(1.0, -0.1, rng.uniform(-0.7, -0.2)), wrist=0.5)


def _in_pocket(rng: np.random.Generator) -> Arm:
    return Arm(reach=(0.105, -0.30, 0.02), pole=(0.7, 0.0, rng.uniform(-1.2, -0.6)))


def _on_chest(rng: np.random.Generator) -> Arm:
    return Arm(reach=(rng.uniform(-0.08, -0.02), rng.uniform(-0.16, -0.1), 0.1), pole=(0.7, -0.9, -0.1))


def _at_face(rng: np.random.Generator) -> Arm:
    return Arm(reach=(rng.uniform(0.0, 0.07), rng.uniform(0.02, 0.1), rng.uniform(0.06, 0.12)), pole=(0.6, -1.0, 0.1))


def _holding(rng: np.random.Generator) -> Arm:
    return Arm(
        reach=(rng.uniform(0.0, 0.09), rng.uniform(-0.2, -0.06), rng.uniform(0.13, 0.24)), pole=(0.8, -0.9, -0.3)
    )


def _waving(rng: np.random.Generator) -> Arm:
    return Arm(
        flex=0.0, abduct=rng.uniform(1.3, 2.2), twist=-np.pi / 2 * rng.uniform(0.6, 1.2), elbow=rng.uniform(0.6, 1.9)
    )


def _overhead(rng: np.random.Generator) -> Arm:
    return Arm(
        flex=rng.uniform(2.4, 3.05),
        abduct=rng.uniform(0.05, 0.5),
        twist=rng.normal(0, 0.3),
        elbow=rng.uniform(0.0, 0.8),
    )


def _sideways(rng: np.random.Generator) -> Arm:
    return Arm(
        flex=rng.uniform(-0.2, 0.4),
        abduct=rng.uniform(1.1, 1.7),
        twist=rng.uniform(-0.6, 0.6),
        elbow=rng.uniform(0, 0.5),
    )


def _forward(rng: np.random.Generator) -> Arm:
    return Arm(
        flex=rng.uniform(0.9, 1.8), abduct=rng.uniform(-0.15, 0.3), twist=rng.normal(0, 0.4), elbow=rng.uniform(0, 0.6)
    )


def _behind(rng: np.random.Generator) -> Arm:
    return Arm(reach=(rng.uniform(-0.02, 0.04), -0.27, -0.09), pole=(0.9, -0.2, -0.6))


_GESTURES: Sequence[tuple[float, Callable[[np.random.Generator], Arm]]] = (
    (0.40, _relaxed), (0.10, _on_hip), (0.09, _in_pocket), (0.05, _on_chest), (0.09, _at_face), (0.12, _holding),
    (0.05, _waving), (0.03, _overhead), (0.03, _sideways), (0.04, _forward),
)  # fmt: skip


def _gesture(rng: np.random.Generator) -> Arm:
    weights = np.array([w for w, _ in _GESTURES])
    return _GESTURES[int(rng.choice(len(weights), p=weights / weights.sum()))][1](rng)


def _two_arms(rng: np.random.Generator) -> tuple[Arm, Arm]:
    roll = rng.random()
    if roll < 0.42:
        return _relaxed(rng), _relaxed(rng)
    if roll < 0.5:  # crossed, or both hands meeting in front
        return _on_chest(rng), _on_chest(rng)
    if roll < 0.56:
        return replace(_holding(rng), reach=(-0.01, -0.29, 0.1)), replace(_holding(rng), reach=(-0.01, -0.28, 0.11))
    if roll < 0.6:
        return _behind(rng), _behind(rng)
    if roll < 0.7:
        same = _GESTURES[int(rng.integers(1, 6))][1]
        return same(rng), same(rng)
    return _gesture(rng), _gesture(rng)


def _neck(rng: np.random.Generator, spread: float = 0.4, nod: float = 0.05) -> tuple[float, float, float]:
    turn = float(np.clip(rng.normal(0, spread), -1.15, 1.15))
    return turn, float(np.clip(rng.normal(nod, 0.18), -0.7, 0.7)), float(rng.normal(0, 0.1))


# --- postures ---------------------------------------------------------------------------------------------------------


def _standing(rng: np.random.Generator) -> Pose:
    shift = (
        rng.uniform(0, 0.14) if rng.random() < 0.6 else 0.0
    )  # contrapposto: the free leg bends, the trunk leans back
    stance = rng.uniform(0.02, 0.16) + (0.15 if rng.random() < 0.12 else 0.0)
    legs = (
        Leg(abduct=stance - 0.3 * shift, twist=rng.uniform(0, 0.35), knee=rng.uniform(0, 0.05)),
        Leg(
            flex=1.5 * shift + rng.normal(0, 0.03), abduct=stance + 0.4 * shift, twist=rng.uniform(0, 0.5),
            knee=2.6 * shift + rng.uniform(0, 0.08),
        ),
    )  # fmt: skip
    return Pose(
        name="standing", tilt=rotation_z(-0.5 * shift), spine=(rng.normal(0.02, 0.06), -shift, rng.normal(0, 0.12)),
        neck=_neck(rng), arms=_two_arms(rng), legs=legs,
    )  # fmt: skip


def _striding(rng: np.random.Generator, name: str, swing: float, knee: float, elbow: float, lean: float) -> Pose:
    """Legs and arms in opposite phase; the knee of the leg that swings forward bends most."""
    phase = rng.uniform(0, 2 * np.pi)
    legs, arms = [], []
    for offset in (0.0, np.pi):
        angle = phase + offset
        forward = np.sin(angle)
        lifted = max(0.0, np.cos(angle - 0.4))  # just before and while it swings forward
        legs.append(
            Leg(
                flex=swing * forward + 0.3 * lean + 0.45 * knee * lifted, abduct=rng.uniform(0.0, 0.06),
                twist=rng.uniform(0, 0.15), knee=0.08 + knee * lifted + 0.12 * knee * (forward < -0.5),
                ankle=0.35 * (forward < -0.6),
            )
        )  # fmt: skip
        arms.append(
            Arm(
                flex=-swing * 0.95 * forward + rng.normal(0, 0.08), abduct=rng.uniform(0.08, 0.25),
                twist=rng.uniform(0.1, 0.5), elbow=elbow + max(0.0, -forward) * 0.5 + rng.uniform(0, 0.2),
            )
        )  # fmt: skip
    if name == "walking" and rng.random() < 0.4:
        arms[0] = _gesture(rng)
    twist = -0.25 * swing * np.sin(phase)
    return Pose(
        name=name, spine=(lean, 0.0, twist), neck=_neck(rng, 0.3, -0.5 * lean), arms=(arms[0], arms[1]),
        legs=(legs[0], legs[1]), lift=0.0 if name == "walking" else float(rng.uniform(0, 0.05)),
    )  # fmt: skip


def _walking(rng: np.random.Generator) -> Pose:
    return _striding(
        rng, "walking", rng.uniform(0.28, 0.5), rng.uniform(0.5, 0.9), rng.uniform(0.1, 0.4), rng.uniform(0, 0.1)
    )


def _running(rng: np.random.Generator) -> Pose:
    return _striding(
        rng, "running", rng.uniform(0.6, 1.0), rng.uniform(1.2, 1.9), rng.uniform(1.2, 1.7), rng.uniform(0.1, 0.35)
    )


def _sitting(rng: np.random.Generator) -> Pose:
    recline = rng.uniform(-0.25, 0.35)
    spread = rng.uniform(0.03, 0.4)

    def leg() -> Leg:
        flex = rng.uniform(1.4, 1.62)
        return Leg(
            flex=flex,
            abduct=spread + rng.normal(0, 0.05),
            twist=rng.uniform(-0.1, 0.1),
            knee=flex + rng.uniform(-0.3, 0.25),
        )

    def arm() -> Arm:
        if rng.random() < 0.55:  # a hand on the own thigh
            return Arm(reach=(rng.uniform(0.0, 0.09), -0.24, rng.uniform(0.13, 0.24)), pole=(0.8, -0.4, -0.7))
        return _gesture(rng) if rng.random() < 0.5 else _holding(rng)

    legs = [leg(), leg()]
    if rng.random() < 0.15:  # one leg crossed over the other
        legs[0] = Leg(flex=1.85, abduct=-0.28, twist=0.1, knee=1.6)
    support: Support = "chair" if rng.random() < 0.55 else ("stool" if rng.random() < 0.5 else "bench")
    return Pose(
        name="sitting", spine=(recline, rng.normal(0, 0.05), rng.normal(0, 0.12)), neck=_neck(rng, 0.4, 0.12),
        arms=(arm(), arm()), legs=(legs[0], legs[1]), support=support,
    )  # fmt: skip


def _sitting_on_ground(rng: np.random.Generator) -> Pose:
    if rng.random() < 0.5:  # cross-legged
        legs = tuple(
            Leg(flex=rng.uniform(1.55, 1.8), abduct=rng.uniform(0.65, 0.9), twist=0.9, knee=rng.uniform(2.0, 2.3))
            for _ in "lr"
        )
    else:
        legs = tuple(
            Leg(flex=1.5 + 0.45 * k, abduct=rng.uniform(0, 0.25), twist=0.1, knee=0.1 + 1.1 * k)
            for k in rng.uniform(0, 1.2, 2)
        )
    arms = (
        Arm(reach=(0.07, -0.22, 0.17), pole=(0.9, -0.6, -0.2))
        if rng.random() < 0.6
        else Arm(flex=-0.7, abduct=0.25, elbow=0.1),
        Arm(reach=(0.07, -0.2, 0.19), pole=(0.9, -0.6, -0.2))
        if rng.random() < 0.6
        else Arm(flex=-0.7, abduct=0.25, elbow=0.1),
    )
    return Pose(
        name="ground", spine=(rng.uniform(-0.1, 0.4), 0.0, rng.normal(0, 0.1)), neck=_neck(rng, 0.4, 0.1), arms=arms,
        legs=(legs[0], legs[1]),
    )  # fmt: skip


def _arms_raised(rng: np.random.Generator) -> Pose:
    pose = _standing(rng)
    first = _overhead if rng.random() < 0.5 else _waving
    second = first if rng.random() < 0.5 else (_gesture if rng.random() < 0.6 else _sideways)
    return replace(pose, name="raised", arms=(first(rng), second(rng)), neck=_neck(rng, 0.3, -0.1))


def _crouching(rng: np.random.Generator) -> Pose:
    flex, knee = rng.uniform(1.5, 2.1), rng.uniform(1.7, 2.4)
    legs = [
        Leg(flex=flex + rng.normal(0, 0.1), abduct=rng.uniform(0.1, 0.4), twist=0.25, knee=knee + rng.normal(0, 0.1))
        for _ in "lr"
    ]
    if rng.random() < 0.35:  # one knee on the ground
        legs[1] = Leg(flex=rng.uniform(0.0, 0.3), abduct=0.05, knee=rng.uniform(1.6, 1.9), ankle=0.6)
        legs[0] = Leg(flex=1.5, abduct=0.15, knee=1.55)
    arms = (_holding(rng), _forward(rng) if rng.random() < 0.4 else _holding(rng))
    return Pose(
        name="crouching",
        tilt=rotation_x(0.15),
        spine=(rng.uniform(0.3, 0.8), 0.0, rng.normal(0, 0.1)),
        neck=_neck(rng, 0.4, -0.2),
        arms=arms,
        legs=(legs[0], legs[1]),
    )


def _bending(rng: np.random.Generator) -> Pose:
    bend = rng.uniform(0.5, 1.1)
    legs = tuple(
        Leg(flex=bend * 0.7 + rng.uniform(0, 0.3), abduct=rng.uniform(0.03, 0.2), knee=rng.uniform(0.0, 0.7))
        for _ in "lr"
    )
    arms = tuple(Arm(flex=rng.uniform(0.5, 1.5), abduct=rng.uniform(0, 0.2), elbow=rng.uniform(0.0, 0.7)) for _ in "lr")
    return Pose(
        name="bending", tilt=rotation_x(bend * 0.7), spine=(bend * 0.6, 0.0, rng.normal(0, 0.12)),
        neck=_neck(rng, 0.3, -0.35), arms=(arms[0], arms[1]), legs=(legs[0], legs[1]),
    )  # fmt: skip


def _lying(rng: np.random.Generator) -> Pose:
    side = int(rng.integers(3))  # on the back, on the belly, on one side
    tilt = rotation_x(np.pi / 2 if side == 1 else -np.pi / 2)
    if side == 2:
        tilt = tilt @ rotation_y(np.pi / 2)
    bend = rng.uniform(0, 1.1) if side != 1 else 0.0
    legs = [
        Leg(
            flex=bend * rng.uniform(0.5, 1.1),
            abduct=rng.uniform(0, 0.3),
            knee=0.05 + 1.7 * bend * rng.uniform(0.6, 1.0),
            ankle=0.5,
        )
        for _ in "lr"
    ]
    arms = [
        Arm(flex=rng.uniform(-0.15, 0.05), abduct=rng.uniform(0.15, 1.2), elbow=rng.uniform(0.0, 1.4) * (side != 1))
        for _ in "lr"
    ]
    if side == 2:  # the lower arm and leg cannot spread into the ground
        arms[0] = Arm(flex=rng.uniform(0.5, 2.6), abduct=0.0, elbow=rng.uniform(0.0, 1.2))
        arms[1] = Arm(flex=rng.uniform(0.0, 1.0), abduct=0.05, elbow=rng.uniform(0.0, 1.0))
        legs[0] = replace(legs[0], abduct=0.0)
    if rng.random() < 0.35:
        arms[0] = Arm(reach=(0.03, 0.1, -0.03), pole=(1.0, 0.3, 0.1))  # a hand under the head
    return Pose(
        name="lying",
        tilt=tilt,
        spine=(0.0 if side != 1 else -rng.uniform(0, 0.4), rng.normal(0, 0.1), rng.normal(0, 0.15)),
        neck=_neck(rng, 0.4, 0.1 if side != 1 else -0.5),
        arms=(arms[0], arms[1]),
        legs=(legs[0], legs[1]),
    )


def _swinging(rng: np.random.Generator) -> Pose:
    arms = (
        Arm(flex=rng.uniform(0.3, 2.8), abduct=rng.uniform(0.4, 1.2), elbow=rng.uniform(0.1, 0.9)),
        _sideways(rng),
    )
    return Pose(
        name="swinging",
        spine=(rng.uniform(0.1, 0.4), rng.normal(0, 0.15), rng.normal(0, 0.4)),
        neck=_neck(rng, 0.4),
        arms=arms,
        legs=(Leg(flex=0.55, abduct=0.25, knee=0.6), Leg(flex=-0.1, abduct=0.3, knee=0.35)),
        item=str(rng.choice(["racket", "bat"])),
    )


def _kicking(rng: np.random.Generator) -> Pose:
    kick = Leg(flex=rng.uniform(0.6, 1.4), abduct=0.15, knee=rng.uniform(0.05, 0.9), ankle=0.4)
    return Pose(
        name="kicking",
        spine=(-0.1, rng.normal(0, 0.1), rng.normal(0, 0.25)),
        neck=_neck(rng, 0.2, 0.25),
        arms=(Arm(flex=-0.6, abduct=0.8, elbow=0.5), _sideways(rng)),
        legs=(kick, Leg(flex=-0.1, abduct=0.1, knee=0.3)),
        item="ball",
    )


def _jumping(rng: np.random.Generator) -> Pose:
    def leg() -> Leg:
        return Leg(flex=rng.uniform(0.0, 1.0), abduct=rng.uniform(0.05, 0.5), knee=rng.uniform(0.2, 1.6), ankle=0.5)

    return Pose(
        name="jumping",
        spine=(rng.uniform(-0.2, 0.3), 0.0, 0.0),
        neck=_neck(rng, 0.2, -0.1),
        arms=(_overhead(rng), _sideways(rng)),
        legs=(leg(), leg()),
        support="air",
        lift=rng.uniform(0.1, 0.5),
    )


def _riding(rng: np.random.Generator) -> Pose:
    def leg() -> Leg:
        return Leg(flex=rng.uniform(0.6, 1.0), abduct=rng.uniform(0.08, 0.25), knee=rng.uniform(0.9, 1.3))

    def arm() -> Arm:
        return Arm(flex=rng.uniform(0.2, 0.9), abduct=rng.uniform(0.2, 1.2), elbow=rng.uniform(0.2, 1.2))

    return Pose(
        name="riding",
        tilt=rotation_x(0.25),
        spine=(rng.uniform(0.2, 0.6), rng.normal(0, 0.1), rng.normal(0, 0.2)),
        neck=_neck(rng, 0.2, -0.3),
        arms=(arm(), arm()),
        legs=(leg(), leg()),
        item="board",
    )


_POSTURES: Sequence[tuple[float, Callable[[np.random.Generator], Pose]]] = (
    (0.33, _standing), (0.16, _walking), (0.09, _running), (0.14, _sitting), (0.03, _sitting_on_ground),
    (0.06, _arms_raised), (0.045, _crouching), (0.04, _bending), (0.04, _lying), (0.03, _swinging), (0.025, _kicking),
    (0.02, _jumping), (0.025, _riding),
)  # fmt: skip


_NAMES = tuple(family.__name__ for _, family in _POSTURES)
_LOW = {
    "_sitting": 0.7,
    "_sitting_on_ground": 2.0,
    "_crouching": 1.5,
    "_lying": 2.5,
}  # factors for boxes that must be low


def sample_pose(rng: np.random.Generator, *, upright: bool = True) -> Pose:
    """A posture from one of the families, mirrored half of the time so that left and right are exchangeable.

    Without `upright` everybody sits, crouches or lies: boxes that are wide for their height.
    """
    weights = np.array([w for w, _ in _POSTURES]) * (
        1.0 if upright else np.array([_LOW.get(name, 0.0) for name in _NAMES])
    )
    pose = _POSTURES[int(rng.choice(len(weights), p=weights / weights.sum()))][1](rng)
    return mirror(pose) if rng.random() < 0.5 else pose


# --- kinematics -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Limb:
    """Joint positions (3,) and bone frames (3, 3): columns left, up along the bone, front."""

    root: Array
    middle: Array
    end: Array
    upper: Array
    lower: Array
    tip: Array


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A posed skeleton in its own upright frame, feet (or whatever is lowest) on y = 0."""

    pose: Pose
    shape: BodyShape
    pelvis: Array
    pelvis_frame: Array
    neck: Array
    chest_frame: Array
    head: Array
    head_frame: Array
    arms: tuple[Limb, Limb]
    legs: tuple[Limb, Limb]

    def moved(self, rotation: Array, offset: Array) -> Figure:
        """The figure turned by `rotation` (3, 3) and then shifted by `offset` (3,)."""

        def limb(x: Limb) -> Limb:
            return Limb(
                root=rotation @ x.root + offset, middle=rotation @ x.middle + offset, end=rotation @ x.end + offset,
                upper=rotation @ x.upper, lower=rotation @ x.lower, tip=rotation @ x.tip,
            )  # fmt: skip

        return replace(
            self, pelvis=rotation @ self.pelvis + offset, pelvis_frame=rotation @ self.pelvis_frame,
            neck=rotation @ self.neck + offset, chest_frame=rotation @ self.chest_frame,
            head=rotation @ self.head + offset, head_frame=rotation @ self.head_frame,
            arms=(limb(self.arms[0]), limb(self.arms[1])), legs=(limb(self.legs[0]), limb(self.legs[1])),
        )  # fmt: skip

    def keypoints(self) -> Array:
        """The COCO keypoints, (17, 3) metres: face points on the skin, joints at their centres."""
        size = self.shape.height * self.shape.head
        face = np.array(
            [
                [0, -0.016, 0.064],
                [0.0185, 0.003, 0.047],
                [-0.0185, 0.003, 0.047],
                [0.046, -0.004, -0.002],
                [-0.046, -0.004, -0.002],
            ]
        )
        points = list(self.head + (face * size) @ self.head_frame.T)
        for limbs in (self.arms, self.legs):
            for joint in ("root", "middle", "end"):
                points += [getattr(limb, joint) for limb in limbs]
        return np.array(points)


def _ball(side: float, flex: float, abduct: float, twist: float) -> Array:
    """Frame of a bone in a ball joint; abduction turns about y when the bone points forward, about z when it hangs."""
    spread = rotation_y(side * abduct * np.sin(flex)) @ rotation_z(side * abduct * np.cos(flex))
    return spread @ rotation_x(-flex) @ rotation_y(side * twist)


def _unit(v: Array) -> Array:
    return np.asarray(v / max(float(np.sqrt(v @ v)), 1e-9))


def _reach(root: Array, target: Array, upper: float, lower: float, pole: Array) -> tuple[Array, Array, Array]:
    """Elbow and both bone frames of a two-bone arm whose wrist goes to `target` or as near as the elbow allows."""
    line = target - root
    shortest = np.sqrt(upper**2 + lower**2 + 2 * upper * lower * np.cos(2.5))  # the elbow folds to 143 degrees at most
    distance = float(np.clip(np.sqrt(line @ line), shortest, 0.995 * (upper + lower)))
    along = _unit(line)
    cosine = (upper**2 + distance**2 - lower**2) / (2 * upper * distance)
    out = _unit(pole - (pole @ along) * along)
    elbow = root + upper * (cosine * along + np.sqrt(max(0.0, 1 - cosine**2)) * out)
    wrist = root + distance * along
    frames = []
    for start, stop in ((root, elbow), (elbow, wrist)):
        up = _unit(start - stop)
        front = _unit(-out + (out @ up) * up)
        frames.append(np.stack([np.cross(up, front), up, front], axis=1))
    return elbow, frames[0], frames[1]


def _arm(arm: Arm, side: float, shoulder: Array, chest: Array, neck: Array, shape: BodyShape) -> Limb:
    upper, lower = 0.172 * shape.height, 0.145 * shape.height
    if arm.reach is None:
        frame = chest @ _ball(side, arm.flex, arm.abduct, -arm.twist)
        elbow = shoulder - upper * frame[:, 1]
        fore = frame @ rotation_x(-float(np.clip(arm.elbow, 0.0, 2.5)))
    else:
        flip = np.array([side, 1.0, 1.0])
        target = neck + chest @ (flip * np.array(arm.reach) * shape.height)
        elbow, frame, fore = _reach(shoulder, target, upper, lower, chest @ (flip * np.array(arm.pole)))
    return Limb(
        root=shoulder, middle=elbow, end=elbow - lower * fore[:, 1], upper=frame, lower=fore,
        tip=fore @ rotation_y(-side * 1.3) @ rotation_x(-arm.wrist),
    )  # fmt: skip


def _leg(leg: Leg, side: float, hip: Array, pelvis: Array, shape: BodyShape) -> Limb:
    bone = 0.243 * shape.height * shape.legs
    knee_angle = float(np.clip(leg.knee, 0.0, 2.5))
    frame = pelvis @ _ball(side, leg.flex, leg.abduct, leg.twist)
    shin = frame @ rotation_x(knee_angle)
    knee = hip - bone * frame[:, 1]
    level = float(np.clip(leg.flex - knee_angle, -0.4, 0.6)) + leg.ankle
    return Limb(
        root=hip, middle=knee, end=knee - bone * shin[:, 1], upper=frame, lower=shin, tip=shin @ rotation_x(level)
    )


def pose_figure(pose: Pose, shape: BodyShape) -> Figure:
    """Forward kinematics; the lowest point of the result touches y = 0, plus the pose's lift."""
    h = shape.height
    bend, lean, twist = pose.spine
    pelvis_frame = pose.tilt
    half = rotation_y(twist / 2) @ rotation_x(bend / 2) @ rotation_z(-lean / 2)
    waist = pelvis_frame @ (np.array([0, 0.10, 0.0]) * h)
    chest = pelvis_frame @ half @ half
    neck = waist + pelvis_frame @ half @ (np.array([0, 0.06, 0]) * h) + chest @ (np.array([0, 0.13, 0]) * h)
    turn, nod, roll = pose.neck
    head_frame = chest @ rotation_y(turn) @ rotation_x(nod) @ rotation_z(-roll)
    head = (
        neck
        + chest @ (np.array([0, 0.028, 0.006]) * h)
        + head_frame @ (np.array([0, 0.082 * (0.35 + 0.65 * shape.head), 0.008]) * h)
    )
    arms, legs = [], []
    for side, arm, leg in zip((1.0, -1.0), pose.arms, pose.legs, strict=True):
        raised = (
            max(0.0, float(np.sin(min(abs(arm.abduct), 1.6)) * 0.5 + (1 - np.cos(arm.flex)) * 0.35))
            if arm.reach is None
            else 0.05
        )
        shoulder = neck + chest @ (np.array([side * 0.103 * shape.shoulders, -0.022 + 0.022 * raised, -0.004]) * h)
        arms.append(_arm(arm, side, shoulder, chest, neck, shape))
        hip = pelvis_frame @ (np.array([side * 0.052 * shape.hips, -0.002, 0]) * h)
        legs.append(_leg(leg, side, hip, pelvis_frame, shape))
    figure = Figure(
        pose=pose, shape=shape, pelvis=np.zeros(3), pelvis_frame=pelvis_frame, neck=neck, chest_frame=chest, head=head,
        head_frame=head_frame, arms=(arms[0], arms[1]), legs=(legs[0], legs[1]),
    )  # fmt: skip
    return figure.moved(np.eye(3), np.array([0.0, pose.lift - _lowest(figure), 0.0]))


def _lowest(figure: Figure) -> float:
    h = figure.shape.height
    thick = figure.shape.girth * h
    low = [figure.head[1] - 0.055 * h, figure.neck[1] - 0.05 * thick, figure.pelvis[1] - 0.066 * thick]
    for limb in figure.legs:
        low.append(limb.middle[1] - 0.034 * thick)
        foot = limb.end + (np.array([[0, -0.052, -0.03], [0, -0.052, 0.1]]) * h) @ limb.tip.T
        low += list(foot[:, 1])
    if figure.pose.support == "ground" and figure.pose.name not in ("standing", "walking", "running"):
        for limb in figure.arms:
            low += [limb.middle[1] - 0.025 * h, limb.end[1] - 0.02 * h]
    return float(min(low))
