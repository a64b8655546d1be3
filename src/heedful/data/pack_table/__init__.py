"""PackTable: a long task. Open a bin, put three things into it in their order, close it; five numbers an action, 15 Hz.

    table = PackTable()
    seen = table.reset(7)                         # top, wrist: pictures; state: tips x, y, z, yaw, gripper
    seen = table.act([0.2, 0, -0.1, 0, 1])        # velocities of x, y, z, yaw and gripper, in [-1, 1]
    table.stages                                  # privileged: which of the eight stages are done

It is the simulated Franka table with the flange kept vertical, and a bin whose lid slides (Yell At Your Robot's long
tasks, arXiv 2403.12910, in small). Reset `seed` is a function of the seed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heedful.data.table import Layout, Table
from heedful.data.table.arm import MOST_RADIANS, RESET, forward, rotation_of, rotation_vector
from heedful.data.table.mjcf import STEEL, WORLD, geom_xml
from heedful.data.table.objects import GREEN, THINGS, Shape
from heedful.data.table.scene import CameraPose, Scene
from heedful.errors import HeedfulError

Array = NDArray[np.float64]
ORDER = ("red block", "sponge", "blue block")
"""The things, in the order in which they have to go into the bin."""
SPONGE = replace(
    THINGS["sponge"],
    shapes=(
        Shape("box", (0.028, 0.020, 0.010), (0, 0, 0.005)),
        Shape("box", (0.028, 0.020, 0.005), (0, 0, -0.010), colour=GREEN),
    ),
    across=0.040,
    radius=0.035,
)
"""Smaller than the other table's: the fingers take it as they take the blocks, whatever its yaw, which a small low
level learns last."""
STAGES = ("open", *(f"{verb} {thing}" for thing in ORDER for verb in ("take", "put")), "close")
LONGEST = 600
"""Steps of an episode."""
BIN = (0.50, 0.20)
INSIDE = (0.095, 0.072)
"""Half the bin's inside along x and y."""
WALL = 0.075
LID_OUT = 0.165
"""How far the lid slides, to the left."""
OPENED, CLOSED = 0.13, 0.015
KNOB_HEIGHT = WALL + 0.033
"""Of the middle of the lid's knob above the table."""
FIELD = 42.0
"""Vertical, of the outer camera (degrees): bin, things and arm fill the picture; a block is some 5 of 64 pixels."""
STATE = ("x", "y", "z", "yaw", "gripper")


def _bin() -> str:
    wide, deep = INSIDE
    brown, lid = (0.45, 0.33, 0.22), (0.30, 0.42, 0.55)
    walls = (
        ((wide, deep, 0.003), (0, 0, 0.003)),
        ((0.004, deep + 0.004, WALL / 2), (wide + 0.004, 0, WALL / 2)),
        ((0.004, deep + 0.004, WALL / 2), (-wide - 0.004, 0, WALL / 2)),
        ((wide + 0.004, 0.004, WALL / 2), (0, deep + 0.004, WALL / 2)),
        ((wide + 0.004, 0.004, WALL / 2), (0, -deep - 0.004, WALL / 2)),
    )
    return (
        f'<body name="bin" pos="{BIN[0]} {BIN[1]} 0">'
        + "".join(geom_xml("box", half, at, brown, WORLD) for half, at in walls)
        + f'<body name="lid"><joint name="lid" type="slide" axis="0 1 0" range="0 {LID_OUT}" damping="3" '
        + 'frictionloss="0.5"/>'
        + geom_xml(
            "box", (wide + 0.010, deep + 0.010, 0.004), (0, 0, WALL + 0.009), lid, WORLD, more='mass="0.15"'
        )
        + geom_xml(
            "box",
            (0.032, 0.007, 0.022),
            (0, -0.045, KNOB_HEIGHT),
            STEEL,
            WORLD,
            more='name="knob" mass="0.02"',
        )
        + "</body></body>"
    )


def _scene(jitter: float, seed: int) -> Scene:
    rng = np.random.default_rng([seed, 11])
    shift = rng.normal(0, jitter, (2, 3)) if jitter else np.zeros((2, 3))
    top = CameraPose(
        _three(np.array([0.74, 0.0, 0.74]) + shift[0]),
        _three(np.array([0.48, 0.0, 0.02]) + shift[1] / 2),
        FIELD,
    )
    return Scene(
        number=0,
        height=0.0,
        pattern="flat",
        colours=((0.62, 0.60, 0.56), (0.62, 0.60, 0.56)),
        room=((0.35, 0.34, 0.36), (0.70, 0.71, 0.73)),
        light=(0.2, -0.5, 2.0),
        brightness=0.9,
        things=tuple(SPONGE if name == SPONGE.name else THINGS[name] for name in ORDER),
        fixtures=(),
        fixture_colours={},
        drawer="",
        cameras=(top, top),
        offset=(0.0, 0.0),
    )


def _three(values: Array) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z


class PackTable:
    """size: (height, width) of both pictures, None for physics alone. camera_jitter: m, drawn from camera_seed.

    action_noise: standard deviation of what is added to each action, drawn from the reset's seed: a low level that is
    not perfect.
    """

    def __init__(
        self,
        *,
        size: tuple[int, int] | None = (64, 64),
        camera_jitter: float = 0.0,
        camera_seed: int = 0,
        action_noise: float = 0.0,
    ) -> None:
        cameras = ("exterior_1_left", "wrist_left") if size else ()
        self.table = Table(
            _scene(camera_jitter, camera_seed), size=size or (64, 64), cameras=cameras, more=_bin()
        )
        self.action_noise = action_noise
        self._lid = int(self.table.model.joint("lid").qposadr[0])
        self._knob = self.table.model.geom("knob").id
        self.stages = dict.fromkeys(STAGES, False)
        """Which stages are done; once done they stay so, but for `close`, which holds only while it is true."""
        self._noise = np.random.default_rng(0)

    def reset(self, seed: int) -> dict[str, Any]:
        """A new episode: things lie apart in front of the bin, the lid is closed, the arm is a little off its pose."""
        rng = np.random.default_rng([seed, 12])
        places: dict[str, tuple[float, float, float]] = {}
        while len(places) < len(ORDER):
            x, y = rng.uniform((0.40, -0.24), (0.62, 0.04))
            if all(np.hypot(x - a, y - b) > 0.125 for a, b, _ in places.values()):
                places[ORDER[len(places)]] = (float(x), float(y), float(rng.uniform(-np.pi, np.pi)))
            elif rng.uniform() < 0.02:
                places.clear()  # two may lie so that there is no room for a third
        joints = RESET + rng.normal(0, 0.02, 7)
        self._noise = np.random.default_rng([seed, 13])
        self.table.reset(Layout(places, joints=tuple(joints.tolist())))
        self.stages = dict.fromkeys(STAGES, False)
        return self.observe()

    def act(self, action: ArrayLike) -> dict[str, Any]:
        """One step. action: (5,), velocities of x, y, z, yaw and gripper, in [-1, 1] as shares of a step's limits.

        Raises HeedfulError for anything else.
        """
        given = np.asarray(action, np.float64)
        if given.shape != (5,) or not np.isfinite(given).all():
            raise HeedfulError(f"an action of PackTable is 5 finite numbers, not {given.tolist()}")
        given = np.clip(given + self._noise.normal(0, 1, 5) * self.action_noise, -1, 1)
        pose = forward(self.table.joints)
        wanted = rotation_of(np.array([np.pi, 0, pose[5] + given[3] * MOST_RADIANS]))
        twist = rotation_vector(wanted @ rotation_of(pose[3:]).T) / MOST_RADIANS
        self.table.move(np.concatenate([given[:3], twist, given[4:]]))
        self._note_stages()
        return self.observe()

    def observe(self) -> dict[str, Any]:
        """top and wrist: pictures (H, W, 3); state: (5,)."""
        seen = self.table.observe()
        shown = {"top": "exterior_1_left", "wrist": "wrist_left"}
        pictures = {name: seen[camera] for name, camera in shown.items() if camera in seen}
        return {**pictures, "state": self.state}

    def close(self) -> None:
        """Give the pictures' memory back."""
        self.table.close()

    @property
    def state(self) -> Array:
        """(5,): x, y, z of between the finger tips (m), yaw (rad), gripper (0 open to 1 closed)."""
        return np.array([*self.table.tip, forward(self.table.joints)[5], self.table.gripper])

    @property
    def over(self) -> bool:
        """Whether the task is done, or its time."""
        return self.succeeded or self.table.steps >= LONGEST

    # ---- what only the simulator knows

    @property
    def succeeded(self) -> bool:
        """Whether everything is done now."""
        return all(self.stages.values())

    @property
    def lid(self) -> float:
        """How far the lid is open (m)."""
        return float(self.table.data.qpos[self._lid])

    @property
    def knob(self) -> Array:
        """(3,) m: the middle of the lid's knob."""
        return self.table.data.geom_xpos[self._knob].copy()

    def inside(self, thing: str) -> bool:
        """Whether a thing lies in the bin, let go of."""
        at = self.table.place(thing)
        within = np.abs(at.at[:2] - np.array(BIN)) < np.array(INSIDE) + 0.005
        return bool(within.all() and at.at[2] < WALL and not at.touched)

    @property
    def held(self) -> str:
        """The thing between the fingers; "" for none."""
        for thing in ORDER:
            at = self.table.place(thing)
            if at.touched and self.table.gripper > 0.2 and np.linalg.norm(at.at - self.table.tip) < 0.06:
                return thing
        return ""

    def lifted(self, thing: str) -> bool:
        """Whether a thing is well above where it lay."""
        return bool(self.table.place(thing).at[2] > self.table.start[thing].at[2] + 0.05)

    @property
    def wanted(self) -> str:
        """The thing that has to go into the bin next; "" when all are there."""
        return next((thing for thing in ORDER if not self.inside(thing)), "")

    def _note_stages(self) -> None:
        done = self.stages
        done["open"] |= self.lid > OPENED
        before = True
        for thing in ORDER:
            here = self.inside(thing)
            # Only in their order: what goes in too early does not count until the others are there.
            done[f"take {thing}"] |= before and done["open"] and self.held == thing and self.lifted(thing)
            done[f"put {thing}"] |= before and here and done[f"take {thing}"]
            before = before and done[f"put {thing}"]
        done["close"] = before and self.lid < CLOSED and not self.wanted
