"""Scenes of the simulated table as MJCF: the arm, its gripper and cameras, the table and what lies on it.

Primitive shapes only, no mesh files. Lengths are metres, angles radians; the base of the arm is the origin. Contacts
are what costs: links of the arm touch things but not each other, and things lie on an unseen plane at the height of
the table, which goes on beyond its edges and is many times cheaper than a box. What has left the table is told by its
place (`Table.fallen`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heedful.data.table.arm import CHAIN, FLANGE, HIGHEST, LOWEST, TIP, rotation_of
from heedful.data.table.objects import (
    DRAWER_HALF,
    DRAWER_OUT,
    FIXTURES,
    GAP,
    Colour,
    Shape,
    Thing,
    shape_xml,
)
from heedful.data.table.scene import (
    BACK,
    DRAWER_AT,
    FRONT,
    OPENING,
    SIDE,
    SUBSTEPS,
    WRIST,
    WRIST_FIELD,
    Scene,
)

Array = NDArray[np.float64]
UNFELT = 'contype="0" conaffinity="0"'
WORLD = 'contype="1" conaffinity="3" friction="0.9 0.01 0.0005" condim="4"'
PAD = 'contype="2" conaffinity="1" friction="1.8 0.05 0.001" condim="4" solref="0.008 1"'
ARM = 'contype="2" conaffinity="1"'
SHELL, DARK, STEEL = (0.90, 0.90, 0.91), (0.17, 0.17, 0.19), (0.75, 0.75, 0.77)
GAINS = ((4500, 280), (4500, 280), (3500, 220), (3500, 220), (2000, 130), (2000, 130), (2000, 130))
"""Stiffness and damping of each joint's position servo, near those of MuJoCo Menagerie's Panda."""
TORQUES = (87, 87, 87, 87, 30, 30, 30)
MASSES = (4.97, 0.65, 3.23, 3.59, 1.23, 1.67, 0.74)
QUARTER = np.pi / 2


def write_mjcf(scene: Scene, size: tuple[int, int] = (180, 320), more: str = "") -> str:
    """The scene as the text of an MJCF file. size: (height, width) of its pictures; more: bodies beside the scene's."""
    bright = scene.brightness
    towards = (0.5 - scene.light[0], -scene.light[1], -scene.light[2])
    parts = [
        '<compiler angle="radian" eulerseq="XYZ" autolimits="true"/>',
        f'<option timestep="{1 / 15 / SUBSTEPS:.9f}" integrator="implicitfast" cone="elliptic" impratio="10"',
        'iterations="30"><flag autoreset="disable"/></option><size memory="2M"/><visual>',
        '<quality offsamples="0" shadowsize="1024" numslices="12" numstacks="6" numquads="1"/>',
        f'<map znear="0.01" zfar="8"/><global offwidth="{size[1]}" offheight="{size[0]}"/>',
        f'<headlight ambient="{_n((0.32 * bright,) * 3)}" diffuse="0.22 0.22 0.22" specular="0 0 0"/></visual>',
        f'<asset><texture name="table" type="2d" builtin="{scene.pattern}" width="64" height="64"',
        f'rgb1="{_n(scene.colours[0])}" rgb2="{_n(scene.colours[1])}"/>',
        '<material name="table" texture="table" texrepeat="6 8" specular="0.1" reflectance="0"/></asset>',
        f'<worldbody><light pos="{_n(scene.light)}" dir="{_n(towards)}" directional="true" castshadow="true"',
        f'diffuse="{_n((0.62 * bright, 0.62 * bright, 0.60 * bright))}" specular="0.15 0.15 0.15"/>',
        _room(scene),
        _table(scene),
        _camera("exterior_1_left", scene.cameras[0].pose(), scene.cameras[0].field),
        _camera("exterior_2_left", scene.cameras[1].pose(), scene.cameras[1].field),
        _arm(),
        *(_fixture(name, scene) for name in scene.fixtures),
        _cabinet(scene) if scene.drawer else "",
        *(_thing(i, thing) for i, thing in enumerate(scene.things)),
        more,
        '</worldbody><equality><joint joint1="finger_right" joint2="finger_left" polycoef="0 1 0 0 0"',
        'solref="0.005 1"/></equality><tendon><fixed name="fingers"><joint joint="finger_left" coef="0.5"/>',
        '<joint joint="finger_right" coef="0.5"/></fixed></tendon>',
        _actuators(),
    ]
    return f'<mujoco model="table {scene.number}">' + "\n".join(parts) + "</mujoco>"


def _n(values: Sequence[float]) -> str:
    return " ".join(f"{v:.5f}" for v in values)


def geom_xml(
    kind: str,
    size: Sequence[float],
    at: Sequence[float] = (0, 0, 0),
    colour: Colour = SHELL,
    feel: str = UNFELT,
    *,
    turn: Sequence[float] = (),
    more: str = "",
) -> str:
    """A `<geom>`; feel: how it touches; more: further attributes."""
    turned = f'euler="{_n(turn)}"' if turn else ""
    return (
        f'<geom type="{kind}" size="{_n(size)}" pos="{_n(at)}" {turned} rgba="{_n(colour)} 1" {feel} {more}/>'
    )


def _camera(name: str, pose: Array, field: float) -> str:
    """MuJoCo's cameras look along -z with y up; ours (OpenCV's) look along z with y down."""
    turn = rotation_of(pose[3:])
    axes = [*turn[:, 0].tolist(), *(-turn[:, 1]).tolist()]
    return f'<camera name="{name}" pos="{_n(pose[:3].tolist())}" xyaxes="{_n(axes)}" fovy="{field}"/>'


def _room(scene: Scene) -> str:
    floor, wall = scene.room
    walls = (((0.02, 3), (3, 0)), ((0.02, 3), (-3, 0)), ((3, 0.02), (0, 3)), ((3, 0.02), (0, -3)))
    return geom_xml("box", (3, 3, 0.01), (0, 0, -0.76), floor) + "".join(
        geom_xml("box", (*half, 1.6), (*at, 0.8), wall) for half, at in walls
    )


def _table(scene: Scene) -> str:
    half, middle = (FRONT - BACK) / 2, (FRONT + BACK) / 2
    legs = "".join(
        geom_xml("box", (0.025, 0.025, 0.345), (x, y, -0.385), (0.3, 0.3, 0.32))
        for x in (BACK + 0.05, FRONT - 0.05)
        for y in (-SIDE + 0.05, SIDE - 0.05)
    )
    return (
        f'<body name="table" pos="0 0 {scene.height:.5f}">'
        f'<geom name="table" type="box" size="{half} {SIDE} 0.02" pos="{middle} 0 -0.02" material="table" {UNFELT}/>'
        f'<geom name="top" type="plane" size="3 3 0.1" rgba="0 0 0 0" {WORLD}/>{legs}</body>'
    )


# ---- the arm


def _link(
    size: float,
    half: float,
    at: tuple[float, float, float],
    colour: Colour = SHELL,
    turn: Sequence[float] = (),
    feel: str = ARM,
) -> str:
    return geom_xml("capsule", (size, half), at, colour, feel, turn=turn, more='mass="0"')


_LYING, _ALONG = (QUARTER, 0, 0), (0, QUARTER, 0)
LINKS = (
    # The first one is behind the table and touches nothing.
    _link(0.058, 0.11, (0, 0, -0.15), feel=UNFELT) + _link(0.060, 0.035, (0, 0, 0), DARK, _LYING, UNFELT),
    _link(0.057, 0.05, (0, -0.03, 0), turn=_LYING) + _link(0.057, 0.06, (0, -0.11, 0), turn=_LYING),
    _link(0.055, 0.055, (0, 0, -0.125))
    + _link(0.052, 0.05, (0.045, 0, -0.035), turn=(0, 0.9, 0))
    + _link(0.053, 0.03, (0.0825, 0, 0), DARK, _LYING),
    _link(0.052, 0.045, (-0.045, 0.03, 0), turn=_ALONG) + _link(0.052, 0.05, (-0.0825, 0.06, 0), turn=_LYING),
    _link(0.053, 0.045, (0, 0, -0.245))
    + _link(0.034, 0.10, (0, 0.045, -0.11))
    + _link(0.048, 0.02, (0, 0, 0), DARK, _LYING),
    _link(0.048, 0.03, (0.03, 0, 0), turn=_ALONG) + _link(0.046, 0.02, (0.088, 0, 0), DARK),
    _link(0.044, 0.03, (0, 0, 0.045)),
)
"""What each link looks like, in its own frame."""


def _arm() -> str:
    """The chain, each link in the frame of the one before (Craig's convention), and the gripper at its end."""
    opened = ""
    for i, (a, d, alpha) in enumerate(CHAIN):
        offset = (a, -np.sin(alpha) * d, np.cos(alpha) * d)
        opened += (
            f'<body name="link{i + 1}" pos="{_n(offset)}" euler="{alpha:.8f} 0 0" gravcomp="1">'
            f'<inertial pos="0 0 0" mass="{MASSES[i]}" diaginertia="0.02 0.02 0.01"/><joint name="joint{i + 1}"'
            f' axis="0 0 1" range="{LOWEST[i]} {HIGHEST[i]}" armature="0.1" damping="1"/>{LINKS[i]}'
        )
    base = (
        geom_xml("cylinder", (0.085, 0.02), (-0.01, 0, 0.02), DARK)
        + geom_xml("capsule", (0.065, 0.047), (-0.015, 0, 0.095), SHELL, turn=(0, 0.32, 0))
        + geom_xml("box", (0.13, 0.13, 0.36), (-0.02, 0, -0.38), (0.28, 0.28, 0.30))
    )
    return base + opened + _gripper() + "</body>" * len(CHAIN)


def _gripper() -> str:
    still = 'mass="0"'
    return (
        f'<body name="gripper" pos="0 0 {FLANGE}" gravcomp="1">'
        '<inertial pos="0 0 0.04" mass="0.8" diaginertia="0.001 0.001 0.001"/>'
        + geom_xml("cylinder", (0.036, 0.014), (0, 0, 0.012), DARK, ARM, more=still)
        + geom_xml("box", (0.024, 0.052, 0.024), (0, 0, 0.048), (0.22, 0.22, 0.24), ARM, more=still)
        + geom_xml("box", (0.012, 0.06, 0.012), (0.062, 0, -0.012), (0.1, 0.1, 0.1), more=still)
        + _camera("wrist_left", np.array(WRIST), WRIST_FIELD)
        + _finger("left", 1)
        + _finger("right", -1)
        + "</body>"
    )


def _finger(name: str, side: int) -> str:
    """A finger that is at its middle when closed, and moves outwards as its joint grows."""
    still, pad = 'mass="0"', f'name="pad_{name}" mass="0"'
    return (
        f'<body name="finger_{name}" gravcomp="1">'
        '<inertial pos="0 0 0.1" mass="0.06" diaginertia="1e-4 1e-4 1e-4"/>'
        f'<joint name="finger_{name}" type="slide" axis="0 {side} 0" range="0 {OPENING / 2}" armature="0.1" '
        'damping="4"/>'
        + geom_xml("box", (0.010, 0.006, 0.026), (0, side * 0.014, 0.094), (0.3, 0.3, 0.32), ARM, more=still)
        + geom_xml(
            "box", (0.011, 0.005, 0.022), (0, side * 0.005, TIP - 0.018), (0.12, 0.12, 0.12), PAD, more=pad
        )
        + "</body>"
    )


def _actuators() -> str:
    joints = "".join(
        f'<position name="joint{i + 1}" joint="joint{i + 1}" kp="{kp}" kv="{kv}" '
        f'ctrlrange="{LOWEST[i]} {HIGHEST[i]}" forcerange="{-torque} {torque}"/>'
        for i, ((kp, kv), torque) in enumerate(zip(GAINS, TORQUES, strict=True))
    )
    grip = f'kp="900" kv="40" ctrlrange="0 {OPENING / 2}" forcerange="-45 45"'
    return f'<actuator>{joints}<position name="gripper" tendon="fingers" {grip}/></actuator>'


# ---- things


def _shapes(shapes: Sequence[Shape], colour: Colour, mass: float) -> str:
    solid = sum(shape.solid for shape in shapes)
    return "".join(shape_xml(shape, colour, mass=mass / solid, touching=WORLD) for shape in shapes)


def _thing(i: int, thing: Thing) -> str:
    # Balls would roll for ever: a little drag of the air settles them.
    drag = 4e-5 if thing.rolls else 4e-6
    return (
        f'<body name="thing{i}" pos="{0.3 + 0.15 * i:.3f} 2 1"><joint name="thing{i}" type="free" damping="{drag}"/>'
        f"{_shapes(thing.shapes, thing.colour, thing.mass)}</body>"
    )


def _fixture(name: str, scene: Scene) -> str:
    shapes, mass, _ = FIXTURES[name]
    return (
        f'<body name="{name}" pos="0.5 3 1"><joint name="{name}" type="free" damping="1e-4"/>'
        f"{_shapes(shapes, scene.fixture_colours[name], mass)}</body>"
    )


def _cabinet(scene: Scene) -> str:
    """A cabinet with one drawer that slides out towards the robot, with a bar for a handle."""
    length, width, high = DRAWER_HALF
    place = (DRAWER_AT[0], DRAWER_AT[1] * (1 if scene.drawer == "left" else -1), scene.height)
    colour = scene.fixture_colours["drawer"]
    dark: Colour = (0.7 * colour[0], 0.7 * colour[1], 0.7 * colour[2])
    walls = (
        ((length, width, 0.006), (0, 0, 2 * high - 0.006)),
        ((length, width, 0.006), (0, 0, 0.006)),
        ((length, 0.006, high), (0, width - 0.006, high)),
        ((length, 0.006, high), (0, -width + 0.006, high)),
        ((0.006, width, high), (length - 0.006, 0, high)),
    )
    inside, front = width - 0.018, -length - 0.008
    bar = front - 0.008 - GAP
    tray = (
        ((0.008, width - 0.004, high - 0.012), (front, 0, high)),
        ((length - 0.012, inside, 0.004), (-0.004, 0, 0.022)),
        ((length - 0.012, 0.004, 0.026), (-0.004, inside, 0.046)),
        ((length - 0.012, 0.004, 0.026), (-0.004, -inside, 0.046)),
    )
    post = ((front + bar) / 2, abs(front - bar) / 2)
    return (
        f'<body name="cabinet" pos="{_n(place)}">'
        + "".join(geom_xml("box", half, at, colour, WORLD) for half, at in walls)
        + f'<body name="drawer"><joint name="drawer" type="slide" axis="-1 0 0" range="0 {DRAWER_OUT}" damping="3" '
        + 'frictionloss="0.6"/>'
        + "".join(geom_xml("box", half, at, dark, WORLD, more='mass="0.05"') for half, at in tray)
        + geom_xml(
            "capsule",
            (0.007, 0.045),
            (bar, 0, high),
            STEEL,
            WORLD,
            turn=_LYING,
            more='name="handle" mass="0.02"',
        )
        + "".join(
            geom_xml(
                "capsule",
                (0.005, post[1]),
                (post[0], side * 0.045, high),
                STEEL,
                WORLD,
                turn=_ALONG,
                more='mass="0.01"',
            )
            for side in (1, -1)
        )
        + "</body></body>"
    )
