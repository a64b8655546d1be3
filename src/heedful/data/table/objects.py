"""What can lie on the simulated table: twelve objects, and a bowl, a plate, a block and a drawer. Primitives only.

Sizes are in metres and half-extents as MuJoCo has them; the origin of a thing is its middle, except for the fixtures,
whose origin is where they touch the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Shape:
    """One primitive of a thing: MuJoCo's type, size, place, z-axis or Euler turn (rad), and a colour of its own."""

    kind: str
    size: tuple[float, ...]
    at: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    colour: Colour | None = None
    solid: bool = True


@dataclass(frozen=True)
class Thing:
    """An object. rest: height of its middle when it lies; across: what the fingers close on; radius: room it needs.

    grip: height of the finger tips above the table when they take it; upright: whether it can be knocked over.
    """

    name: str
    colour: Colour
    shapes: tuple[Shape, ...]
    mass: float
    rest: float
    across: float
    radius: float
    grip: float
    upright: bool = False
    rolls: bool = False


RED, BLUE, GREEN = (0.80, 0.12, 0.10), (0.13, 0.28, 0.75), (0.10, 0.50, 0.22)
YELLOW, ORANGE, PINK = (0.95, 0.80, 0.15), (0.95, 0.45, 0.08), (0.93, 0.50, 0.62)
WHITE, PURPLE, BROWN = (0.92, 0.92, 0.90), (0.45, 0.20, 0.60), (0.52, 0.33, 0.17)
BLACK, GREY = (0.08, 0.08, 0.09), (0.55, 0.56, 0.58)


def _bent(colour: Colour) -> tuple[Shape, ...]:
    return (
        Shape("capsule", (0.016, 0.024), (0, 0, 0), (0, np.pi / 2, 0), colour),
        Shape("capsule", (0.014, 0.020), (0.040, 0.010, 0), (0, np.pi / 2, 0.55), colour),
        Shape("capsule", (0.014, 0.020), (-0.040, 0.010, 0), (0, np.pi / 2, -0.55), colour),
        Shape("capsule", (0.006, 0.008), (0.064, 0.026, 0), (0, np.pi / 2, 0.7), BROWN),
    )


THINGS: Mapping[str, Thing] = {
    thing.name: thing
    for thing in (
        Thing("red block", RED, (Shape("box", (0.021, 0.021, 0.021)),), 0.05, 0.021, 0.042, 0.030, 0.016),
        Thing("blue block", BLUE, (Shape("box", (0.028, 0.018, 0.018)),), 0.05, 0.018, 0.036, 0.034, 0.014),
        Thing(
            "yellow ball", YELLOW, (Shape("sphere", (0.025,)),), 0.03, 0.025, 0.050, 0.026, 0.020, rolls=True
        ),
        Thing(
            "orange",
            ORANGE,
            (Shape("ellipsoid", (0.032, 0.032, 0.029)),),
            0.08,
            0.029,
            0.064,
            0.034,
            0.024,
            rolls=True,
        ),
        Thing(
            "carrot",
            ORANGE,
            (
                Shape("capsule", (0.014, 0.035), (0, 0, 0), (0, np.pi / 2, 0)),
                Shape("capsule", (0.011, 0.022), (-0.045, 0, 0), (0, np.pi / 2, 0)),
                Shape("box", (0.018, 0.009, 0.006), (0.062, 0, 0), colour=GREEN),
            ),
            *(0.04, 0.014, 0.028, 0.075, 0.010),
        ),
        Thing("banana", YELLOW, _bent(YELLOW), 0.06, 0.016, 0.032, 0.075, 0.012),
        Thing(
            "marker",
            BLACK,
            (
                Shape("box", (0.048, 0.010, 0.010)),
                Shape("box", (0.016, 0.0105, 0.0105), (0.058, 0, 0), colour=RED),
            ),
            *(0.02, 0.010, 0.020, 0.074, 0.008),
        ),
        Thing(
            "sponge",
            PINK,
            (
                Shape("box", (0.042, 0.028, 0.010), (0, 0, 0.005)),
                Shape("box", (0.042, 0.028, 0.005), (0, 0, -0.010), colour=GREEN),
            ),
            *(0.02, 0.015, 0.056, 0.052, 0.012),
        ),
        Thing(
            "can",
            BLUE,
            (
                Shape("cylinder", (0.027, 0.042)),
                Shape("cylinder", (0.025, 0.044), colour=GREY, solid=False),
                Shape("cylinder", (0.0274, 0.012), colour=WHITE, solid=False),
            ),
            *(0.07, 0.042, 0.054, 0.030, 0.045),
            upright=True,
        ),
        Thing(
            "bottle",
            GREEN,
            (
                Shape("cylinder", (0.024, 0.045), (0, 0, -0.015)),
                Shape("capsule", (0.012, 0.016), (0, 0, 0.040)),
                Shape("cylinder", (0.014, 0.008), (0, 0, 0.062), colour=WHITE),
                Shape("cylinder", (0.0244, 0.018), (0, 0, -0.018), colour=WHITE, solid=False),
            ),
            *(0.07, 0.060, 0.048, 0.030, 0.050),
            upright=True,
        ),
        Thing(
            "mug",
            WHITE,
            (
                Shape("cylinder", (0.030, 0.036)),
                Shape("cylinder", (0.026, 0.0365), colour=(0.30, 0.20, 0.14), solid=False),
                Shape("capsule", (0.006, 0.016), (0.046, 0, 0), colour=WHITE),
                Shape("capsule", (0.006, 0.008), (0.036, 0, 0.018), (0, np.pi / 2, 0), WHITE),
                Shape("capsule", (0.006, 0.008), (0.036, 0, -0.018), (0, np.pi / 2, 0), WHITE),
            ),
            *(0.08, 0.036, 0.060, 0.054, 0.040),
            upright=True,
        ),
        Thing(
            "cup",
            PURPLE,
            (
                Shape("cylinder", (0.026, 0.034)),
                Shape("cylinder", (0.029, 0.006), (0, 0, 0.030)),
                Shape("cylinder", (0.024, 0.0365), colour=(0.16, 0.06, 0.22), solid=False),
            ),
            *(0.04, 0.036, 0.052, 0.030, 0.036),
            upright=True,
        ),
    )
}
"""The twelve objects by name."""

DISTRACTORS: tuple[Thing, ...] = (
    Thing(
        "teal star",
        (0.05, 0.55, 0.55),
        (Shape("box", (0.03, 0.012, 0.012)), Shape("box", (0.012, 0.03, 0.012))),
        0.04,
        0.012,
        0.024,
        0.034,
        0.01,
    ),
    Thing(
        "magenta tube",
        (0.85, 0.10, 0.55),
        (Shape("capsule", (0.016, 0.03), turn=(0, np.pi / 2, 0)),),
        0.04,
        0.016,
        0.032,
        0.05,
        0.012,
    ),
    Thing(
        "lime cone",
        (0.60, 0.90, 0.15),
        (Shape("cylinder", (0.030, 0.01), (0, 0, -0.02)), Shape("cylinder", (0.018, 0.02), (0, 0, 0.01))),
        0.04,
        0.03,
        0.036,
        0.034,
        0.03,
    ),
    Thing(
        "cream box",
        (0.90, 0.82, 0.62),
        (Shape("box", (0.035, 0.024, 0.03)),),
        0.05,
        0.03,
        0.048,
        0.045,
        0.026,
    ),
    Thing(
        "navy puck", (0.08, 0.10, 0.30), (Shape("cylinder", (0.03, 0.012)),), 0.04, 0.012, 0.06, 0.034, 0.01
    ),
)
"""What is in no training scene, for tests of distraction."""


def changed(thing: Thing, colour: Colour, scale: float) -> Thing:
    """The same kind of thing in another colour and size: a new instance, for tests of generalisation."""
    shapes = tuple(
        replace(
            s,
            size=tuple(scale * v for v in s.size),
            at=(scale * s.at[0], scale * s.at[1], scale * s.at[2]),
            colour=colour if s.colour in (None, thing.colour) else s.colour,
        )
        for s in thing.shapes
    )
    return replace(
        thing,
        colour=colour,
        shapes=shapes,
        rest=scale * thing.rest,
        across=scale * thing.across,
        radius=scale * thing.radius,
        grip=scale * thing.grip,
    )


# ---- fixtures


def _ring(radius: float, height: float, thick: float, count: int, lean: float) -> tuple[Shape, ...]:
    """Walls around a circle that lean outwards by `lean` (rad)."""
    half = radius * np.tan(np.pi / count) + thick
    turned = np.arange(count) * 2 * np.pi / count
    middle = radius + height * np.tan(lean) / 2
    # They end just above the table: contacts of so many walls with it would cost most of the time.
    up = height / 2 * np.cos(lean) + thick * np.sin(lean) + 0.002
    return tuple(
        Shape(
            "box",
            (thick, float(half), height / 2),
            (float(middle * np.cos(a)), float(middle * np.sin(a)), float(up)),
            (0, lean, float(a)),
        )
        for a in turned
    )


BOWL_RADIUS, BOWL_HEIGHT = 0.068, 0.040
PLATE_RADIUS, PLATE_HEIGHT = 0.085, 0.010
BLOCK_HALF, BLOCK_HEIGHT = 0.040, 0.050
DRAWER_HALF = (0.10, 0.09, 0.055)
"""Half the length (along x), width and height of the cabinet around the drawer."""
DRAWER_OUT = 0.12
"""How far the drawer comes out (m)."""
GAP = 0.042
"""Between the drawer's front and its handle, where the closed fingers go in."""

BOWL = (
    Shape("cylinder", (BOWL_RADIUS, 0.004), (0, 0, 0.004)),
    *_ring(BOWL_RADIUS, BOWL_HEIGHT, 0.004, 14, 0.35),
)
PLATE = (
    Shape("cylinder", (PLATE_RADIUS, 0.004), (0, 0, 0.004)),
    *_ring(PLATE_RADIUS, 0.010, 0.003, 14, 0.9),
    Shape("cylinder", (PLATE_RADIUS * 0.7, 0.0045), (0, 0, 0.004), colour=(0.80, 0.80, 0.78), solid=False),
)
BLOCK = (Shape("box", (BLOCK_HALF, BLOCK_HALF, BLOCK_HEIGHT / 2), (0, 0, BLOCK_HEIGHT / 2)),)
FIXTURES: Mapping[str, tuple[tuple[Shape, ...], float, float]] = {
    "bowl": (BOWL, 0.5, 0.092),
    "plate": (PLATE, 0.5, 0.105),
    "wooden block": (BLOCK, 1.0, 0.060),
}
"""Shapes, mass and the room it needs of what objects are put into, on or upon. The drawer has a body of its own."""


def shape_xml(shape: Shape, colour: Colour, *, mass: float, touching: str, material: str = "") -> str:
    """The `<geom>` of a shape; mass: of this geom; touching: contact attributes of a solid one."""
    r, g, b = shape.colour or colour
    turn = f' euler="{_numbers(shape.turn)}"' if any(shape.turn) else ""
    paint = f' material="{material}"' if material else f' rgba="{r:.3f} {g:.3f} {b:.3f} 1"'
    feel = f' mass="{mass:.5f}" {touching}' if shape.solid else ' mass="0" contype="0" conaffinity="0"'
    return f'<geom type="{shape.kind}" size="{_numbers(shape.size)}" pos="{_numbers(shape.at)}"{turn}{paint}{feel}/>'


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{v:.6g}" for v in values)
