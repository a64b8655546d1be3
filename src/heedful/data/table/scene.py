"""Scenes of the simulated table, drawn at random. `table.mjcf` writes them for MuJoCo.

What differs between scenes is what differs between DROID's rooms: the height, colour and pattern of the table, the
light, the floor and walls, which things lie there, where the two exterior cameras stand, and where on the table the
work is done. The robot's base is the origin, x points away from it, z up; metres and radians.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from heedful.data.table.arm import add_pose, euler_of
from heedful.data.table.objects import DISTRACTORS, THINGS, Colour, Thing, changed

Array = NDArray[np.float64]
Variant = Literal["", "distractors", "instance", "camera"]
CAMERAS = ("exterior_1_left", "exterior_2_left", "wrist_left")
OPENING = 0.085
"""Between the finger pads when the gripper is open (m)."""
SUBSTEPS = 16
"""Steps of physics in a control step of 1/15 s."""
WRIST_FIELD, EXTERIOR_FIELD = 80.0, 52.0
"""Vertical fields of view (degrees)."""
WRIST = (0.075, 0.0, 0.005, -0.32, 0.0, np.pi / 2)
"""Where the wrist camera sits in the flange frame, as a pose with OpenCV's axes."""
BACK, FRONT, SIDE = 0.20, 1.05, 0.62
"""The table's near and far edge (x) and half its width (y)."""
DRAWER_AT = (0.62, 0.33)
"""Where the cabinet stands, or on the other side of the table."""


@dataclass(frozen=True)
class CameraPose:
    """Where a camera is (m) and what it looks at (m), in the base frame; field: of view, vertical (degrees)."""

    at: tuple[float, float, float]
    towards: tuple[float, float, float]
    field: float = EXTERIOR_FIELD

    def pose(self) -> Array:
        """(6,) in DROID's convention: position and Euler angles of a frame with OpenCV's axes (z forward, y down)."""
        at, to = np.array(self.at), np.array(self.towards)
        forward = (to - at) / np.linalg.norm(to - at)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        return np.concatenate([at, euler_of(np.stack([right, np.cross(forward, right), forward], axis=1))])


@dataclass(frozen=True)
class Scene:
    """One table. Everything that stays as it is from episode to episode of a scene."""

    number: int
    height: float
    """Of the table top above the robot's base."""
    pattern: Literal["flat", "checker", "gradient"]
    colours: tuple[Colour, Colour]
    """The table's; the second one is the pattern's."""
    room: tuple[Colour, Colour]
    """Floor and walls."""
    light: tuple[float, float, float]
    brightness: float
    things: tuple[Thing, ...]
    fixtures: tuple[str, ...]
    fixture_colours: Mapping[str, Colour]
    drawer: Literal["", "left", "right"]
    cameras: tuple[CameraPose, CameraPose]
    offset: tuple[float, float]
    """Of the middle of the work from (0.50, 0)."""
    calibration: tuple[tuple[float, ...], tuple[float, ...]] = field(default=((0.0,) * 6, (0.0,) * 6))
    """Errors of the noisy copy of the exterior cameras' calibration: m and rad, added to the true pose."""

    @property
    def middle(self) -> tuple[float, float]:
        """The middle of where things lie (x, y)."""
        return 0.50 + self.offset[0], self.offset[1]


def draw_scene(seed: int, number: int, *, fixed_cameras: bool = False) -> Scene:
    """Scene `number` of a seed; the same for the same two numbers. fixed_cameras: all scenes of a seed share them."""
    rng = np.random.default_rng([seed, number, 1])
    base = np.array([0.5, 0.45, 0.4]) + rng.uniform(-0.3, 0.35, 3) * rng.choice([0.35, 1.0])
    tint = base * rng.uniform(0.65, 0.95)
    names = list(THINGS)
    chosen = [names[i] for i in rng.permutation(len(names))[: int(rng.integers(3, 6))]]
    # Something has to be there for each kind of task that the fixtures allow.
    fixtures = ("bowl", "plate", "wooden block")
    keep = [fixtures[i] for i in sorted(rng.permutation(3)[: int(rng.integers(1, 3))])]
    drawer = rng.choice(np.array(["", "left", "right"]), p=[0.4, 0.3, 0.3])
    cameras = np.random.default_rng([seed, 0 if fixed_cameras else number, 2])
    calibration = rng.normal(0, 1, (2, 6)) * np.array([0.01] * 3 + [0.015] * 3)
    shifted = rng.uniform(size=2) < 0.1
    calibration[shifted] *= 6
    return Scene(
        number=number,
        height=float(rng.uniform(-0.05, 0.06)),
        pattern=("flat", "checker", "gradient")[int(rng.integers(3))],
        colours=(_colour(base), _colour(tint)),
        room=(
            _colour(rng.uniform(0.15, 0.6) + rng.uniform(-0.1, 0.1, 3)),
            _colour(rng.uniform(0.45, 0.9) + rng.uniform(-0.12, 0.12, 3)),
        ),
        light=(float(rng.uniform(-0.6, 1.4)), float(rng.uniform(-1.2, 1.2)), float(rng.uniform(1.4, 2.4))),
        brightness=float(rng.uniform(0.55, 1.0)),
        things=tuple(THINGS[name] for name in chosen),
        fixtures=tuple(keep),
        fixture_colours={name: _fixture_colour(name, rng) for name in (*fixtures, "drawer")},
        drawer=str(drawer),  # pyright: ignore[reportArgumentType]
        cameras=(_stand(cameras, 1), _stand(cameras, -1)),
        offset=(float(rng.uniform(-0.03, 0.03)), float(rng.uniform(-0.06, 0.06))),
        calibration=(tuple(calibration[0].tolist()), tuple(calibration[1].tolist())),
    )


def vary(scene: Scene, variant: Variant, seed: int) -> Scene:
    """The scene as a test out of distribution has it (DROID, section 5): more clutter, new instances, moved cameras.

    distractors: three things that are in no scene. instance: each object in another colour and up to a fifth larger or
    smaller. camera: both exterior cameras 5 to 10 cm elsewhere. Raises nothing for "", which changes nothing.
    """
    rng = np.random.default_rng([seed, scene.number, 3])
    if variant == "distractors":
        extra = tuple(DISTRACTORS[i] for i in rng.permutation(len(DISTRACTORS))[:3])
        return replace(scene, things=(*scene.things, *extra))
    if variant == "instance":
        return replace(
            scene,
            things=tuple(
                changed(t, _colour(rng.uniform(0.05, 0.95, 3)), float(rng.choice([0.82, 0.9, 1.1, 1.2])))
                for t in scene.things
            ),
        )
    if variant == "camera":
        moved = []
        for camera in scene.cameras:
            way = rng.normal(size=3)
            way *= rng.uniform(0.05, 0.10) / np.linalg.norm(way)
            moved.append(replace(camera, at=_three(np.array(camera.at) + way)))
        return replace(scene, cameras=(moved[0], moved[1]))
    return scene


def noisy_calibration(scene: Scene, camera: int) -> Array:
    """(6,): the pose of exterior camera 0 or 1 as a calibration with errors has it."""
    return add_pose(scene.calibration[camera], scene.cameras[camera].pose())


def _stand(rng: np.random.Generator, side: int) -> CameraPose:
    angle = side * rng.uniform(0.75, 1.75)
    far, high = rng.uniform(0.70, 0.92), rng.uniform(0.32, 0.60)
    aim = np.array([0.46, 0.0, 0.15]) + rng.uniform(-0.04, 0.04, 3)
    return CameraPose(_three(aim + np.array([far * np.cos(angle), far * np.sin(angle), high])), _three(aim))


def _fixture_colour(name: str, rng: np.random.Generator) -> Colour:
    if name == "wooden block":
        return _colour(np.array([0.62, 0.43, 0.24]) * rng.uniform(0.8, 1.15))
    if name == "drawer":
        return _colour(np.array([0.55, 0.40, 0.27]) * rng.uniform(0.6, 1.3) + rng.uniform(-0.05, 0.05, 3))
    return _colour(rng.uniform(0.35, 0.95, 3))


def _colour(values: Array) -> Colour:
    r, g, b = np.clip(values, 0.04, 0.97).round(3).tolist()
    return r, g, b


def _three(values: Array) -> tuple[float, float, float]:
    x, y, z = values.round(4).tolist()
    return x, y, z
