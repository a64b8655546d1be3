"""What can be said at PackTable: 25 commands in three wordings each, and what an arm does that follows one.

Six of them are nudges: small moves that repair what the large commands leave undone. A low level has to have learned
them, since nothing that it cannot do can be asked of it (Yell At Your Robot, arXiv 2403.12910).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from heedful.data.pack_table import BIN, CLOSED, INSIDE, KNOB_HEIGHT, LID_OUT, OPENED, ORDER, WALL, PackTable
from heedful.data.table.operator import Waypoint, grasp_yaw
from heedful.errors import HeedfulError

SHUT = 0.93
"""A gripper that is closed further has nothing between its fingers."""
CLEAR = 0.13
"""Metres above the table from which on the hand is on its way up from the bin."""
NUDGE = 0.03
"""Metres of a nudge."""
NUDGES: Mapping[str, tuple[float, float, float]] = {
    "move forward a bit": (1, 0, 0),
    "move back a bit": (-1, 0, 0),
    "move left a bit": (0, 1, 0),
    "move right a bit": (0, -1, 0),
    "go higher": (0, 0, 1),
    "go lower": (0, 0, -1),
}
OPEN_BIN, CLOSE_BIN, PLACE, RELEASE = "open the bin", "close the bin", "put it in the bin", "let go"
RETRY, WRONG, WAIT, HOME, OVER_BIN = (
    "try again",
    "not that one",
    "wait",
    "go back to the start",
    "go over the bin",
)
TURN_LEFT, TURN_RIGHT = "turn the hand left", "turn the hand right"
OPEN_HAND, CLOSE_HAND = "open the gripper", "close the gripper"
COMMANDS: Mapping[str, tuple[str, str, str]] = {
    OPEN_BIN: (OPEN_BIN, "slide the lid open", "get the lid off the bin"),
    CLOSE_BIN: (CLOSE_BIN, "slide the lid shut", "put the lid back over the bin"),
    **{f"pick up the {t}": (f"pick up the {t}", f"grab the {t}", f"take the {t}") for t in ORDER},
    PLACE: (PLACE, "place it inside the bin", "bring it into the bin"),
    RELEASE: (RELEASE, "release it", "drop it there"),
    **{f"go over the {t}": (f"go over the {t}", f"move above the {t}", f"hover over the {t}") for t in ORDER},
    OVER_BIN: (OVER_BIN, "move above the bin", "hover over the bin"),
    HOME: (HOME, "go home", "move to your starting pose"),
    "move forward a bit": ("move forward a bit", "a little further away from you", "reach out a little"),
    "move back a bit": ("move back a bit", "a little closer to you", "come back a little"),
    "move left a bit": ("move left a bit", "a little to the left", "go left slightly"),
    "move right a bit": ("move right a bit", "a little to the right", "go right slightly"),
    "go higher": ("go higher", "move up a bit", "raise the hand a little"),
    "go lower": ("go lower", "move down a bit", "lower the hand a little"),
    TURN_LEFT: (TURN_LEFT, "rotate to the left a bit", "twist anticlockwise a little"),
    TURN_RIGHT: (TURN_RIGHT, "rotate to the right a bit", "twist clockwise a little"),
    OPEN_HAND: (OPEN_HAND, "open your hand", "spread the fingers"),
    CLOSE_HAND: (CLOSE_HAND, "close your hand", "shut the fingers"),
    RETRY: (RETRY, "you missed, once more", "that did not work, do it again"),
    WRONG: (WRONG, "that is the wrong thing, put it back", "put that back on the table"),
    WAIT: (WAIT, "stop", "hold still"),
}
"""Each command, and its three wordings, the command itself first."""
WORDINGS: Mapping[str, str] = {text: command for command, texts in COMMANDS.items() for text in texts}
"""Which command a wording stands for."""


def pick(thing: str) -> str:
    """The command that takes a thing."""
    return f"pick up the {thing}"


def due(table: PackTable) -> str:
    """The command that is right now, for somebody who knows everything; "" when all is done.

    It is the oracle that a high level is measured against, and what the scripted person goes by.
    """
    wanted, held = table.wanted, table.held
    if not wanted:
        return "" if table.lid < CLOSED else CLOSE_BIN
    if held and held != wanted:
        return WRONG
    if table.lid < OPENED:
        return OPEN_BIN if not held else WRONG
    if not held:
        return pick(wanted)
    x, y, z = table.table.tip
    over = abs(x - BIN[0]) < INSIDE[0] and abs(y - BIN[1]) < INSIDE[1]
    if not over and not table.lifted(held):
        return pick(wanted)  # gripped is not taken: the lift belongs to it
    low = abs(x - BIN[0]) < 0.075 and abs(y - BIN[1]) < 0.05 and z < WALL + 0.06
    return RELEASE if low else PLACE


def advised(table: PackTable, command: str) -> str:
    """What somebody who knows everything says to a robot that follows `command`: that until it is done, then what is
    due, and to try again where nothing was gripped. "" when all is done.

    A command is done where a demonstration of it ends: a low level has never seen the next one begin earlier.
    """
    held, closed = table.held, table.table.gripper > SHUT
    x, y, z = table.table.tip
    near_bin = abs(x - BIN[0]) < 0.12 and y > BIN[1] - 0.12
    if near_bin and z < CLEAR and not held and command in (RELEASE, OPEN_BIN) and table.lid > OPENED:
        return command
    if command == CLOSE_BIN and z < CLEAR and table.lid < CLOSED:
        return command
    right = due(table)
    missed = command == right and closed and not held and not near_bin
    return RETRY if right.startswith("pick up") and (command == RETRY or missed) else right


def follow(
    table: PackTable, command: str, rng: np.random.Generator, *, off: tuple[float, float] = (0.0, 0.0)
) -> Iterator[Waypoint]:
    """What an expert does to follow a command from where the arm is now. off: an error of its aim (m), for mistakes.

    Raises HeedfulError for what is no command.
    """
    x, y, z = table.table.tip.tolist()
    yaw = _level(float(table.state[3]))
    grip = 1.0 if table.held or table.table.gripper > 0.5 else 0.0
    if command in NUDGES:
        way = NUDGE * np.array(NUDGES[command])
        yield Waypoint((x + way[0], y + way[1], max(z + way[2], 0.012)), yaw, grip, near=0.008)
    elif command in (TURN_LEFT, TURN_RIGHT):
        turned = yaw + (0.3 if command == TURN_LEFT else -0.3)
        yield Waypoint((x, y, z), turned, grip, near=0.012)
    elif command in (OPEN_HAND, CLOSE_HAND):
        yield Waypoint((x, y, z), yaw, float(command == CLOSE_HAND), near=0.02, wait=7)
    elif command == WAIT:
        yield Waypoint((x, y, z), yaw, grip, near=0.05, wait=14)
    elif command == HOME:
        yield Waypoint((0.42, -0.05, 0.27), 0.0, grip, near=0.02)
    elif command == OVER_BIN:
        yield Waypoint((BIN[0] + off[0], BIN[1] + off[1], 0.24), yaw, grip, near=0.02)
    elif command in (OPEN_BIN, CLOSE_BIN):
        yield from _slide(table, 1 if command == OPEN_BIN else -1, off)
    elif command == PLACE:
        # Each thing has its own side of the bin, so that they do not pile up.
        side = 0.055 * (ORDER.index(table.held) - 1) if table.held else 0.0
        aim = (
            BIN[0] + side + off[0] + rng.uniform(-0.01, 0.01),
            BIN[1] + off[1] + rng.uniform(-0.015, 0.015),
        )
        yield Waypoint((x, y, max(z, 0.20)), yaw, 1.0, near=0.04)
        yield Waypoint((*aim, 0.20), yaw, 1.0, near=0.02)
        yield Waypoint((*aim, WALL + 0.035), yaw, 1.0, near=0.012, slow=0.7)
    elif command == RELEASE:
        yield Waypoint((x, y, z), yaw, 0.0, near=0.03, wait=5)
        yield Waypoint((x, y, max(z + 0.10, 0.20)), yaw, 0.0, near=0.03)
    elif command == WRONG:
        put: tuple[float, float] = (x, y)
        if y > 0.04:  # over or near the bin: back to where things lie
            put = (0.46 + rng.uniform(-0.04, 0.04), -0.14 + rng.uniform(-0.08, 0.08))
        yield Waypoint((*put, max(z, 0.14)), yaw, 1.0, near=0.03)
        yield Waypoint((*put, 0.022), yaw, 1.0, near=0.015, slow=0.7)
        yield Waypoint((*put, 0.022), yaw, 0.0, near=0.03, wait=5)
        yield Waypoint((*put, 0.15), yaw, 0.0, near=0.03)
    elif command == RETRY:
        near = min(ORDER, key=lambda t: float(np.hypot(*(table.table.place(t).at - table.table.tip)[:2])))
        yield Waypoint((x, y, max(z, 0.10)), yaw, 0.0, near=0.03)
        yield from _take(table, near, off)
    elif command in COMMANDS:
        thing = command.split(" the ", 1)[1]
        if command.startswith("pick"):
            yield from _take(table, thing, off)
        else:
            at = table.table.place(thing)
            yield Waypoint((at.at[0] + off[0], at.at[1] + off[1], 0.13), yaw, grip, near=0.015)
    else:
        raise HeedfulError(f"{command!r} is no command of PackTable; there are {', '.join(COMMANDS)}")


def _level(yaw: float) -> float:
    """A yaw within a quarter turn of straight; the fingers look the same after half a turn."""
    return yaw - np.pi * round(yaw / np.pi)


def _take(table: PackTable, thing: str, off: tuple[float, float]) -> Iterator[Waypoint]:
    one, at = next(t for t in table.table.scene.things if t.name == thing), table.table.place(thing)
    yaw = grasp_yaw(one, at.turn)
    x, y = at.at[:2] + np.array(off)
    low = at.at[2] - one.rest + max(one.grip, 0.008)
    yield Waypoint((x, y, low + 0.10), yaw, 0.0, near=0.02)
    yield Waypoint((x, y, low), yaw, 0.0, near=0.007, slow=0.7)
    yield Waypoint((x, y, low), yaw, 1.0, near=0.02, wait=7)
    yield Waypoint((x, y, low + 0.16), yaw, 1.0, near=0.03)


def _slide(table: PackTable, way: int, off: tuple[float, float]) -> Iterator[Waypoint]:
    """Push the lid by its knob: way 1 opens, -1 closes."""
    knob = table.knob
    start, left = knob[1] - way * 0.045, LID_OUT - table.lid if way > 0 else table.lid
    x, low = knob[0] + off[0], KNOB_HEIGHT - 0.006
    end = start + way * (left + 0.045 - 0.016)
    yield Waypoint((x, start, 0.20), 0.0, 1.0, near=0.025)
    yield Waypoint((x, start, low), 0.0, 1.0, near=0.012, slow=0.7)
    yield Waypoint((x, end, low), 0.0, 1.0, near=0.008, slow=0.7)
    yield Waypoint((x, end - way * 0.02, 0.21), 0.0, 1.0, near=0.03)
