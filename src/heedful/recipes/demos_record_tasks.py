"""What a collector is asked to do next: DROID's tasks, their weights, and its prompts to change the scene.

Khazatsky et al. 2024, section 3 and the collection interface (`gui_parameters.py`, `text.py`, `gui.py`): 14 kinds of
task with equal weight; with probability 0.1 one that the collector has typed, and with 0.1 several at once, of four
forms; with 0.2 a change of the scene is asked for before the next episode; every 100 saved episodes the robot moves.

One departure: DROID's weights are undefined where nothing is ticked, or nothing typed; here the other list is
then drawn from alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from heedful.errors import HeedfulError

KINDS = (
    "Press button (ex: light switch, elevators, microwave button)",
    "Open or close hinged object (ex: hinged door, microwave, oven, book, dryer, toilet, box)",
    "Open or close slidable objects (ex: toaster, drawers, sliding doors, dressers)",
    "Turn twistable object (ex: faucets, lamps, stove knobs)",
    "Move object into or out of container (ex: drawer, clothes hamper, plate, trashcan, washer)",
    "Move lid on or off of container (ex: pot, cup, pill bottle)",
    "Move object to a new position and orientation (ex: grasping, relocating, flipping)",
    "Use cup to pour something granular (ex: nuts, rice, dried pasta, coffee beans)",
    "Use object to pick up something (ex: spoon + almonds, spatula + bread, fork + banana)",
    "Use cloth to clean something (ex: table, window, mirror, plate)",
    "Use object to stir something (ex: almonds in a bowl, dried pasta in a pot)",
    "Open or close curtain (ex: blanket on bed, shower curtain, shades)",
    "Hang or unhang object (ex: towel on hook, clothes over chair)",
    "Fold, spread out, or clump object (ex: cloth, charging cord, clothes)",
)
"""DROID's kinds of task, as its collectors read them."""
TYPED, SEVERAL, SCENE_CHANGE = 0.1, 0.1, 0.2
"""Probabilities of a typed task, of several at once, and of a change of the scene."""
MOVE_EVERY = 100
"""Saved episodes after which the robot moves to another place."""
MOVE = "Move the robot to an entirely new place"
CHANGES = (
    "Change the table height slightly (1-6 inches)",
    "Change the table height significantly (6+ inches)",
    "Move the table position and angle slightly (1-6 square inches, 1-15 degrees)",
    "Move the table position and angle significantly (6+ square inches, 15+ degrees)",
    "Move a varied camera's pose significantly and recalibrate",
    "Add an object to the scene",
    "Remove (if applicable) an object from the scene",
    "If possible, change the lighting in the room (ex: dim a light, close a window)",
)
LONGEST_SCENE, MOST_IN_SCENE, STALE_SCENE = 20 * 60, 100, 60 * 60
"""Seconds and episodes that DROID's collectors stay at a scene, and seconds after which it asks about an old one."""


def kinds_of(ticked: Sequence[str]) -> tuple[str, ...]:
    """The kinds of task that are meant by their beginnings or numbers (1 to 14), in order, each once.

    Raises HeedfulError for what is none, or is the beginning of several.
    """
    found: list[str] = []
    for name in ticked:
        wanted = name.strip()
        if wanted.isdecimal():
            fitting = [KINDS[int(wanted) - 1]] if 1 <= int(wanted) <= len(KINDS) else []
        else:
            fitting = [kind for kind in KINDS if wanted and kind.lower().startswith(wanted.lower())]
        if len(fitting) != 1:
            told = "\n".join(f"  {i:2d} {kind}" for i, kind in enumerate(KINDS, 1))
            why = "is the beginning of several" if fitting else "is no kind of task"
            raise HeedfulError(f"{name!r} {why}; give numbers or beginnings of\n{told}")
        found += fitting
    return tuple(dict.fromkeys(found))


def draw_task(ticked: Sequence[str], typed: Sequence[str], rng: np.random.Generator) -> str:
    """The next task: one of the ticked kinds or typed tasks, or with probability 0.1 several at once.

    Raises HeedfulError where nothing is ticked and nothing typed.
    """
    if not ticked and not typed:
        raise HeedfulError("there are no tasks to draw from: tick some, or type some of your own")
    if rng.uniform() >= SEVERAL:
        return _single(ticked, typed, rng)
    form = int(rng.integers(4))
    parts = [_single(ticked, typed, rng) for _ in range(form)]
    return (
        "Do anything you like that takes several steps",
        "Do any task, and then reset the scene. Suggested: {}",
        "Do any two tasks one after the other. Suggested: {}; {}",
        "Do any three tasks one after the other. Suggested: {}; {}; {}",
    )[form].format(*parts)


def _single(ticked: Sequence[str], typed: Sequence[str], rng: np.random.Generator) -> str:
    of_typed = typed if not ticked or (typed and rng.uniform() < TYPED) else ticked
    return of_typed[int(rng.integers(len(of_typed)))]


def draw_change(saved: int, rng: np.random.Generator) -> str:
    """The change of the scene that is asked for before the next episode; "" for none. saved: episodes so far."""
    if saved > 0 and saved % MOVE_EVERY == 0:
        return MOVE
    if rng.uniform() < SCENE_CHANGE:
        return CHANGES[int(rng.integers(len(CHANGES)))]
    return ""
