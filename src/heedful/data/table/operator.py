"""A scripted operator: does a task at the simulated table by waypoints, as a person with a controller would.

It sees everything (privileged), moves with the gains of DROID's teleoperation, lets go of the deadman grip now and
then, trembles a little, and in some episodes makes one mistake on purpose. Whether an episode succeeded is asked of the
simulator afterwards, never taken from the plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from heedful.data.table import Table
from heedful.data.table.arm import TIP, forward, rotation_of, rotation_vector
from heedful.data.table.objects import BLOCK_HEIGHT, BOWL_HEIGHT, DRAWER_OUT, GAP, PLATE_HEIGHT, Thing
from heedful.data.table.tasks import DIRECTIONS, Task

Array = NDArray[np.float64]
Mistake = Literal["", "miss", "drop", "beside", "stop"]
GAIN_METRES, GAIN_RADIANS, GAIN_GRIPPER = 5.0, 2.0, 3.0
"""DROID's teleoperation: velocity by metre, radian and gripper travel of error."""
MISTAKES = 0.15
"""How often a mistake is made on purpose. With what goes wrong by itself, about 18% of episodes fail, as in DROID."""
LONGEST = 300
"""Steps after which the operator gives up: 20 s."""
OPEN, CLOSED = 0.0, 1.0


@dataclass(frozen=True)
class Waypoint:
    """Where the finger tips go. at: (x, y, z) m; yaw rad; grip 0 open to 1 closed; near: what counts as there (m).

    wait: steps to stay there, for the fingers to close or open; slow: share of the usual speed.
    """

    at: tuple[float, float, float]
    yaw: float
    grip: float
    near: float = 0.012
    wait: int = 0
    slow: float = 1.0


class Operator:
    """Does `task` at `table`, whose episode has just begun. Two operators of one generator state act alike.

    mistake: made on purpose; None draws whether and which. pauses: whether the grip is let go of now and then.
    """

    def __init__(
        self,
        table: Table,
        task: Task,
        rng: np.random.Generator,
        *,
        mistake: Mistake | None = None,
        pauses: bool = True,
    ) -> None:
        self.table, self.task, self.rng, self.pauses = table, task, rng, pauses
        drawn = self._draw_mistake() if rng.uniform() < MISTAKES else ""
        self.mistake: Mistake = drawn if mistake is None else mistake
        self.speed = float(rng.uniform(0.3, 0.8))
        self.tremble = float(rng.uniform(0.005, 0.03))
        self.done = False
        """Whether the operator has finished, or given up."""
        self._shake = np.zeros(6)
        self._released = self._pause(0.6, 3, 20)
        self._waypoints = self._plan()
        self._at: Waypoint | None = None
        self._waited = self._spent = self._steps = 0
        self._grip = OPEN

    def act(self) -> Array | None:
        """The next Cartesian velocity action (7,), or None where the grip is released. `done` says when it is over."""
        self._steps += 1
        if self._steps > LONGEST:
            self.done = True
        if self._released > 0 or self.done:
            self._released -= 1
            return None
        if self._at is None and not self._advance():
            return None
        assert self._at is not None
        action, near = self._towards(self._at)
        self._spent += 1
        if (near and self._waited >= self._at.wait) or self._spent > 90:
            self._at = None
        elif near:
            self._waited += 1
        return action

    # ---- moving

    def _advance(self) -> bool:
        self._at = next(self._waypoints, None)
        self._waited = self._spent = 0
        if self._at is None:
            self.done = True
            return False
        self._released = self._pause(0.22, 3, 24)
        if self._released > 0:
            self._released -= 1
            return False
        return True

    def _pause(self, chance: float, shortest: int, longest: int) -> int:
        drawn, length = self.rng.uniform() < chance, int(self.rng.integers(shortest, longest))
        return length if drawn and self.pauses else 0

    def _towards(self, to: Waypoint) -> tuple[Array, bool]:
        action, near = steer(self.table, to, self.speed * to.slow)
        self._shake = 0.8 * self._shake + 0.6 * self.rng.normal(0, self.tremble, 6)
        action[:6] = np.clip(action[:6] + self._shake, -1, 1)
        return action, near

    # ---- planning

    def _plan(self) -> Iterator[Waypoint]:
        """The waypoints; each stage looks where things are when it begins."""
        verb = self.task.verb
        stages = {
            "lift": self._lift,
            "push": self._push,
            "tip": self._tip,
            "open": self._open,
            "close": self._close,
        }.get(verb, self._put)
        waypoints = stages()
        if self.mistake != "stop":
            return waypoints
        return (w for i, w in enumerate(waypoints) if i < _STOPS[verb])

    def _draw_mistake(self) -> Mistake:
        kinds: tuple[Mistake, ...] = {
            "lift": ("miss", "drop", "stop"),
            "push": ("stop", "miss"),
            "tip": ("stop", "miss"),
            "open": ("stop", "miss"),
            "close": ("stop",),
        }.get(self.task.verb, ("miss", "drop", "beside", "stop"))
        return kinds[int(self.rng.integers(len(kinds)))]

    def _aside(self, least: float, most: float) -> Array:
        angle, far = self.rng.uniform(-np.pi, np.pi), self.rng.uniform(least, most)
        return np.array([far * np.cos(angle), far * np.sin(angle)])

    def _thing(self) -> Thing:
        return next(t for t in self.table.scene.things if t.name == self.task.thing)

    def _take(self) -> Iterator[Waypoint]:
        thing, here = self._thing(), self.table.place(self.task.thing)
        yaw = grasp_yaw(thing, here.turn)
        x, y = here.at[:2] + (self._aside(0.045, 0.07) if self.mistake == "miss" else self._aside(0, 0.003))
        low = here.at[2] - thing.rest + max(thing.grip, 0.008)
        yield Waypoint((x, y, low + 0.10 + thing.rest), yaw, OPEN, near=0.02)
        yield Waypoint((x, y, low), yaw, OPEN, near=0.007, slow=0.7)
        yield Waypoint((x, y, low), yaw, CLOSED, near=0.02, wait=7)
        yield Waypoint((x, y, low + 0.13), yaw, CLOSED, near=0.025)

    def _lift(self) -> Iterator[Waypoint]:
        yield from self._take()
        x, y, z = self.table.tip
        _, _, yaw = forward(self.table.joints)[3:]
        yield Waypoint((x, y, z), yaw, OPEN if self.mistake == "drop" else CLOSED, near=0.03, wait=6)

    def _put(self) -> Iterator[Waypoint]:
        yield from self._take()
        thing, there = self._thing(), self.table.place(self.task.target)
        _, _, yaw = forward(self.table.joints)[3:]
        x, y = there.at[:2] + (self._aside(0.13, 0.16) if self.mistake == "beside" else self._aside(0, 0.006))
        over = {"put in": BOWL_HEIGHT + 0.012, "put on": PLATE_HEIGHT + 0.004, "stack": BLOCK_HEIGHT + 0.004}
        low = there.at[2] + max(thing.grip, 0.008) + over[self.task.verb]
        high = max(low + 0.10, there.at[2] + 0.20)
        if self.mistake == "drop":
            mid = (self.table.tip[:2] + np.array([x, y])) / 2
            yield Waypoint((*mid, high), yaw, CLOSED, near=0.03)
            yield Waypoint((*mid, high), yaw, OPEN, near=0.04, wait=6)
            return
        yield Waypoint((x, y, high), yaw, CLOSED, near=0.012, slow=0.9)
        yield Waypoint((x, y, low), yaw, CLOSED, near=0.008, slow=0.6)
        yield Waypoint((x, y, low), yaw, OPEN, near=0.02, wait=6)
        yield Waypoint((x, y, low + 0.12), yaw, OPEN, near=0.03)

    def _push(self) -> Iterator[Waypoint]:
        thing, here = self._thing(), self.table.place(self.task.thing)
        way = np.array(DIRECTIONS[self.task.target])
        yaw = 0.0 if way[0] else np.pi / 2
        side = np.array([-way[1], way[0]]) * (0.10 if self.mistake == "miss" else 0.0)
        start = here.at[:2] - way * (_extent(thing, here.turn, way) + 0.035) + side
        end = here.at[:2] + way * 0.105 + side
        low = here.at[2] - thing.rest + 0.014
        yield Waypoint((*start, low + 0.13), yaw, 0.45, near=0.02)
        yield Waypoint((*start, low), yaw, 0.45, near=0.012, wait=2)
        yield Waypoint((*end, low), yaw, 0.45, near=0.015, slow=0.6)
        yield Waypoint((*end, low + 0.12), yaw, 0.45, near=0.03)

    def _tip(self) -> Iterator[Waypoint]:
        thing, here = self._thing(), self.table.place(self.task.thing)
        way = np.array([0.0, 1.0 if self.rng.uniform() < 0.5 else -1.0])
        side = np.array([0.08, 0.0]) if self.mistake == "miss" else np.zeros(2)
        start = here.at[:2] - way * (thing.radius + 0.04) + side
        end = here.at[:2] + way * 0.07 + side
        high = here.at[2] + 0.6 * thing.rest
        yield Waypoint((*start, high + 0.10), 0.0, CLOSED, near=0.02)
        yield Waypoint((*start, high), 0.0, CLOSED, near=0.012, wait=2)
        yield Waypoint((*end, high), 0.0, CLOSED, near=0.015)
        yield Waypoint((*end, high + 0.12), 0.0, CLOSED, near=0.03)

    def _open(self) -> Iterator[Waypoint]:
        bar = self.table.handle
        x = bar[0] + (-0.04 if self.mistake == "miss" else GAP / 2 + 0.0035)
        y, low = bar[1], bar[2] - 0.014
        yield Waypoint((x, y, low + 0.13), 0.0, CLOSED, near=0.012)
        yield Waypoint((x, y, low), 0.0, CLOSED, near=0.007, slow=0.6)
        yield Waypoint((x - 0.9 * DRAWER_OUT, y, low), 0.0, CLOSED, near=0.015, slow=0.7)
        yield Waypoint((x - 0.9 * DRAWER_OUT, y, low + 0.12), 0.0, CLOSED, near=0.03)

    def _close(self) -> Iterator[Waypoint]:
        bar, out = self.table.handle, self.table.drawer
        x, y, low = bar[0] - 0.05, bar[1], bar[2] - 0.01
        yield Waypoint((x, y, low + 0.13), 0.0, CLOSED, near=0.02)
        yield Waypoint((x, y, low), 0.0, CLOSED, near=0.012, slow=0.7)
        yield Waypoint((x + 0.04 + out, y, low), 0.0, CLOSED, near=0.012, slow=0.7)
        yield Waypoint((x, y, low + 0.12), 0.0, CLOSED, near=0.03)


def steer(table: Table, to: Waypoint, speed: float) -> tuple[Array, bool]:
    """((7,), near): the Cartesian velocity action towards a waypoint, and whether the arm is there.

    speed: the largest length of its position and of its turn, as a share of what a step may move.
    """
    pose = forward(table.joints)
    # The tips are to be at the waypoint with the flange straight above them.
    missing = np.array(to.at) + np.array([0, 0, TIP]) - pose[:3]
    twist = rotation_vector(rotation_of(np.array([np.pi, 0, to.yaw])) @ rotation_of(pose[3:]).T)
    velocity = np.concatenate([GAIN_METRES * missing, GAIN_RADIANS * twist])
    for part in (velocity[:3], velocity[3:]):
        part *= min(1.0, speed / max(float(np.linalg.norm(part)), 1e-9))
    # On what is held the fingers never meet; they go on pressing.
    grip = 1.0 if to.grip == CLOSED else GAIN_GRIPPER * (to.grip - table.gripper)
    near = float(np.linalg.norm(missing)) < to.near and float(np.linalg.norm(twist)) < 0.08
    return np.concatenate([velocity, [np.clip(grip, -1, 1)]]), near


_STOPS = {"lift": 3, "put in": 4, "put on": 4, "stack": 4, "push": 2, "tip": 2, "open": 2, "close": 2}
"""How many waypoints are done before the operator stops for no reason."""


def grasp_yaw(thing: Thing, turn: Array) -> float:
    """The yaw (rad, in +-pi/2) at which the fingers close across a thing that lies turned by `turn` (3, 3).

    Of round things any will do, and it is 0; of others the fingers close along the thing's own y.
    """
    first = thing.shapes[0]
    if thing.rolls or (thing.upright and thing.name != "mug"):
        return 0.0
    square = first.kind == "box" and len(thing.shapes) == 1 and len(set(first.size)) == 1
    period = np.pi / 2 if square else np.pi
    yaw = float(np.arctan2(turn[1, 0], turn[0, 0]))
    return yaw - period * round(yaw / period)


def _extent(thing: Thing, turn: Array, way: Array) -> float:
    """How far a thing reaches from its middle along a direction (x, y)."""
    along = abs(float(turn[:2, 0] @ way))
    return along * thing.radius + (1 - along) * thing.across / 2
