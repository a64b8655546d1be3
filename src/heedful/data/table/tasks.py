"""What can be asked for at the simulated table: eight verbs, their instructions, and privileged checks of success."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from heedful.data.table.arm import RESET
from heedful.data.table.objects import (
    BLOCK_HALF,
    BLOCK_HEIGHT,
    BOWL_RADIUS,
    DRAWER_HALF,
    DRAWER_OUT,
    PLATE_RADIUS,
    THINGS,
)
from heedful.data.table.scene import DRAWER_AT, Scene
from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.data.table import Layout, Table

Verb = Literal["lift", "put in", "put on", "stack", "push", "tip", "open", "close"]
VERBS: tuple[Verb, ...] = ("lift", "put in", "put on", "stack", "push", "tip", "open", "close")
DIRECTIONS: Mapping[str, tuple[float, float]] = {
    "left": (0, 1),
    "right": (0, -1),
    "away from the robot": (1, 0),
}
"""As the robot sees them: left is +y."""
LIFTED, PUSHED, OPENED, CLOSED, TIPPED = 0.08, 0.07, 0.07, 0.015, 0.6
"""Metres up, metres along, metres out, metres left open, and the cosine of the lean, that count as done."""
TEMPLATES: Mapping[Verb, tuple[str, ...]] = {
    "lift": (
        "pick up the {0}",
        "lift the {0} off the table",
        "grab the {0} and hold it up",
        "take the {0} in the gripper",
    ),
    "put in": (
        "put the {0} in the {1}",
        "place the {0} into the {1}",
        "move the {0} to the inside of the {1}",
        "drop the {0} in the {1}",
    ),
    "put on": (
        "put the {0} on the {1}",
        "place the {0} onto the {1}",
        "set the {0} down on the {1}",
        "move the {0} to the {1}",
    ),
    "stack": (
        "stack the {0} on the {1}",
        "place the {0} on top of the {1}",
        "balance the {0} on the {1}",
        "put the {0} up on the {1}",
    ),
    "push": (
        "push the {0} {1}",
        "slide the {0} {1}",
        "shove the {0} {1} on the table",
        "move the {0} {1} without picking it up",
    ),
    "tip": ("knock over the {0}", "tip the {0} over", "make the {0} fall on its side", "push the {0} over"),
    "open": (
        "open the drawer",
        "pull the drawer open",
        "slide the drawer out",
        "open the top drawer of the cabinet",
    ),
    "close": (
        "close the drawer",
        "push the drawer shut",
        "slide the drawer in",
        "shut the drawer of the cabinet",
    ),
}
TARGETS: Mapping[Verb, str] = {"put in": "bowl", "put on": "plate", "stack": "wooden block"}
STACKED = ("red block", "blue block", "sponge", "can", "mug", "cup", "bottle")
"""What lies or stands still on a block."""


@dataclass(frozen=True)
class Task:
    """One thing to do. thing: the object, "" for the drawer; target: a fixture, or the direction of a push."""

    verb: Verb
    thing: str = ""
    target: str = ""

    @property
    def name(self) -> str:
        """Short and unique: `put in: carrot, bowl`."""
        return f"{self.verb}: {', '.join(part for part in (self.thing or 'drawer', self.target) if part)}"

    def instructions(self, rng: np.random.Generator) -> tuple[str, str, str]:
        """Three different wordings, drawn from the templates."""
        target = self.target
        if self.verb == "push":
            target = target if target.startswith("away") else f"to the {target}"
        words = TEMPLATES[self.verb]
        a, b, c = (words[i].format(self.thing, target) for i in rng.permutation(len(words))[:3])
        return a, b, c

    def done(self, table: Table) -> bool:
        """Whether it is done at this moment; asks the simulator."""
        return _CHECKS[self.verb](table, self)


def tasks_of(scene: Scene) -> list[Task]:
    """All that can be asked for at a table, in a fixed order."""
    found: list[Task] = []
    for thing in scene.things:
        if thing.name not in THINGS:
            continue
        found.append(Task("lift", thing.name))
        found += [
            Task(verb, thing.name, fixture)
            for verb, fixture in TARGETS.items()
            if fixture in scene.fixtures and (verb != "stack" or thing.name in STACKED)
        ]
        if thing.upright:
            found.append(Task("tip", thing.name))
        if not thing.rolls and not thing.upright:
            found += [Task("push", thing.name, direction) for direction in DIRECTIONS]
    if scene.drawer:
        found += [Task("open"), Task("close")]
    return found


def draw_task(scene: Scene, rng: np.random.Generator) -> Task:
    """A task, every verb that is possible being as likely."""
    possible = tasks_of(scene)
    verbs = list(dict.fromkeys(task.verb for task in possible))
    verb = verbs[int(rng.integers(len(verbs)))]
    of_verb = [task for task in possible if task.verb == verb]
    return of_verb[int(rng.integers(len(of_verb)))]


def draw_layout(scene: Scene, task: Task, rng: np.random.Generator) -> Layout:
    """Where things lie at the start of an episode, apart from each other and within reach.

    Raises HeedfulError where they cannot lie apart, that is, where the scene is too full.
    """
    from heedful.data.table import Layout, room_of

    names = [*scene.fixtures, *(t.name for t in scene.things)]
    # The large ones first: they are the hardest to find room for.
    names.sort(key=lambda name: -room_of(scene, name))
    for attempt in range(240):
        places: dict[str, tuple[float, float, float]] = {}
        for name in names:
            # A full table is used to its edges first, and only then are the things put closer together.
            spare = 1.0 if attempt < 80 else 0.3
            found = free_place(scene, task, name, places, rng, wide=attempt >= 20, spare=spare)
            if found is None:
                break
            places[name] = found
        if len(places) == len(names):
            out = 0.9 * DRAWER_OUT if task.verb == "close" else 0.0
            joints = RESET + rng.normal(0, 0.02, 7)
            return Layout(places, out if scene.drawer else 0.0, tuple(joints.tolist()))
    raise HeedfulError(f"scene {scene.number} has no room for {len(names)} things")


def free_place(
    scene: Scene,
    task: Task,
    name: str,
    places: Mapping[str, tuple[float, float, float]],
    rng: np.random.Generator,
    *,
    tries: int = 60,
    wide: bool = False,
    spare: float = 1.0,
) -> tuple[float, float, float] | None:
    """(x, y, yaw) where a thing can lie apart from those of `places`; None where none is found.

    wide: anywhere within reach; spare: share of the usual room around things.
    """
    far_x, far_y = (0.20, 0.38) if wide else (0.16, 0.27)
    for _ in range(tries):
        x = float(scene.middle[0] + rng.uniform(-far_x, far_x))
        y = float(scene.middle[1] + rng.uniform(-far_y, far_y))
        if _free(scene, task, name, x, y, places, spare):
            return x, y, float(rng.uniform(-np.pi, np.pi))
    return None


def _free(
    scene: Scene,
    task: Task,
    name: str,
    x: float,
    y: float,
    places: Mapping[str, tuple[float, float, float]],
    spare: float,
) -> bool:
    from heedful.data.table import room_of

    mine = room_of(scene, name)
    # The gripper needs room around what it takes, a push needs room ahead of it.
    wanted = spare * (0.025 if name == task.thing else 0.012)
    for other, (ox, oy, _) in places.items():
        more = spare * 0.025 if other == task.thing else wanted
        if np.hypot(x - ox, y - oy) < mine + room_of(scene, other) + more:
            return False
        for one, (px, py), two in ((name, (x, y), (ox, oy)), (other, (ox, oy), (x, y))):
            if task.verb == "push" and one == task.thing:
                dx, dy = DIRECTIONS[task.target]
                radius = room_of(scene, other if one == name else name)
                along = (two[0] - px) * dx + (two[1] - py) * dy
                across = abs((two[0] - px) * dy - (two[1] - py) * dx)
                if -0.12 < along < 0.24 and across < radius + 0.03 + 0.02 * spare:
                    return False
    if scene.drawer:
        side = 1 if scene.drawer == "left" else -1
        near = DRAWER_AT[0] - DRAWER_HALF[0] - DRAWER_OUT - 0.10
        if x > near - mine and side * y > abs(DRAWER_AT[1]) - DRAWER_HALF[1] - mine - 0.03:
            return False
    return 0.34 < x < 0.70 and abs(y) < 0.37


# ---- checks


def _lifted(table: Table, task: Task) -> bool:
    here = table.place(task.thing)
    return here.touched and bool(here.at[2] > table.start[task.thing].at[2] + LIFTED)


def _let_go(table: Table, task: Task) -> bool:
    here = table.place(task.thing)
    return not here.touched and bool(np.linalg.norm(table.tip - here.at) > 0.03)


def _inside(radius: float, above: float) -> Callable[[Table, Task], bool]:
    def check(table: Table, task: Task) -> bool:
        here, there = table.place(task.thing), table.place(task.target)
        over = here.at[2] - there.at[2]
        near = np.hypot(*(here.at - there.at)[:2]) < radius
        return bool(near and 0 < over < above and there.turn[2, 2] > 0.8) and _let_go(table, task)

    return check


def _stacked(table: Table, task: Task) -> bool:
    here, there = table.place(task.thing), table.place(task.target)
    over = here.at[2] - there.at[2]
    near = np.hypot(*(here.at - there.at)[:2]) < BLOCK_HALF
    return bool(near and over > BLOCK_HEIGHT - 0.002 and over < BLOCK_HEIGHT + 0.09) and _let_go(table, task)


def _pushed(table: Table, task: Task) -> bool:
    moved = table.place(task.thing).at - table.start[task.thing].at
    way = np.array(DIRECTIONS[task.target])
    along, across = moved[:2] @ way, abs(moved[0] * way[1] - moved[1] * way[0])
    return bool(along > PUSHED and across < along and abs(moved[2]) < 0.03)


def _tipped(table: Table, task: Task) -> bool:
    here = table.place(task.thing)
    return bool(abs(here.turn[2, 2]) < TIPPED) and not table.fallen


_CHECKS: Mapping[Verb, Callable[[Table, Task], bool]] = {
    "lift": _lifted,
    "put in": _inside(BOWL_RADIUS, 0.075),
    "put on": _inside(PLATE_RADIUS, 0.080),
    "stack": _stacked,
    "push": _pushed,
    "tip": _tipped,
    "open": lambda table, task: table.drawer > OPENED,
    "close": lambda table, task: table.drawer < CLOSED,
}


def verbs_and_objects(tasks: Sequence[Task]) -> dict[tuple[str, str], int]:
    """How often each (verb, object) is asked for: the truth that a diversity report is measured against."""
    counted: dict[tuple[str, str], int] = {}
    for task in tasks:
        pair = (task.verb, task.thing or "drawer")
        counted[pair] = counted.get(pair, 0) + 1
    return counted
