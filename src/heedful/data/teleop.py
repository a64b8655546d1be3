"""How a person, or a script, moves a robot: held keys, a gamepad, or the simulated table's operator.

All give the same: an action of seven velocities in [-1, 1] (`robot.Robot.act`), or None while the deadman grip is
released, and now and then a mark: the episode succeeded, failed, or is to be thrown away.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from heedful.errors import HeedfulError

Array = NDArray[np.float64]
Mark = Literal["", "success", "failure", "discard"]


@dataclass(frozen=True)
class Controls:
    """What the person does at this moment. action: (7,), or None while the grip is released."""

    action: Array | None = None
    mark: Mark = ""


class Teleop(Protocol):
    """Where the controls come from."""

    def begin(self) -> None:
        """An episode begins: forget what came before."""
        ...

    def read(self) -> Controls:
        """The controls now; never waits."""
        ...

    def close(self) -> None:
        """Let go of the device."""
        ...


KEYS: Mapping[str, tuple[int, float]] = {
    "w": (0, 1), "s": (0, -1), "a": (1, 1), "d": (1, -1), "r": (2, 1), "f": (2, -1),
    "j": (3, 1), "l": (3, -1), "i": (4, 1), "k": (4, -1), "q": (5, 1), "e": (5, -1),
    "c": (6, 1), "o": (6, -1),
}  # fmt: skip
"""Which key moves what: x, y, z, roll, pitch, yaw, gripper (closing is up). The space bar only holds the grip."""
MARKS: Mapping[str, Mark] = {"y": "success", "n": "failure", "x": "discard"}
HELP = (
    "w/s x · a/d y · r/f up, down · q/e yaw · i/k pitch · j/l roll · c/o close, open · space: hold · "
    "y/n/x: success, failure, throw away"
)


class Keys:
    """Keys that move while they are held. No key for `hold` seconds is a released grip.

    A terminal tells of a held key by repeating it, a web page by telling what is held several times a second; where
    that stops, for whatever reason, the robot stops too. speed: share of the most that a step may move.
    """

    def __init__(
        self, speed: float = 0.35, hold: float = 0.4, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.speed, self.hold, self.clock = speed, hold, clock
        self._pressed: dict[str, float] = {}
        self._mark: Mark = ""

    def begin(self) -> None:
        """Forget keys and marks."""
        self._pressed.clear()
        self._mark = ""

    def press(self, key: str) -> None:
        """A key is down at this moment; unknown keys are ignored."""
        if key in MARKS:
            self._mark = MARKS[key]
        elif key in KEYS or key == " ":
            self._pressed[key] = self.clock()

    def release(self) -> None:
        """No key is held any more."""
        self._pressed.clear()

    def read(self) -> Controls:
        """What the held keys ask for, opposite keys cancelling out."""
        now = self.clock()
        self._pressed = {key: at for key, at in self._pressed.items() if now - at <= self.hold}
        mark, self._mark = self._mark, ""
        if not self._pressed:
            return Controls(None, mark)
        action = np.zeros(7)
        for key in self._pressed:
            if key in KEYS:
                axis, way = KEYS[key]
                action[axis] += way
        action[:6] *= self.speed
        return Controls(np.clip(action, -1, 1), mark)

    def close(self) -> None:
        """Nothing to let go of."""


class Terminal(Keys):
    """Keys of this terminal, read one by one; close() gives the terminal back as it was."""

    def __init__(self, speed: float = 0.35) -> None:
        # A terminal waits half a second before it begins to repeat a key.
        super().__init__(speed, hold=0.6)
        import sys
        import termios
        import tty

        if not sys.stdin.isatty():
            raise HeedfulError("--teleop keyboard needs a terminal; use --web, or --teleop scripted")
        self._termios, self._tty, self._file = termios, tty, sys.stdin.fileno()
        self._before = termios.tcgetattr(self._file)
        tty.setcbreak(self._file)

    def read(self) -> Controls:
        """What has been typed since the last time."""
        import select

        while select.select([self._file], [], [], 0)[0]:
            typed = os.read(self._file, 64)
            if not typed:
                break
            for key in typed.decode("utf-8", "replace").lower():
                self.press(key)
        return super().read()

    def pause(self) -> None:
        """Give the terminal back for a line to be typed."""
        self._termios.tcsetattr(self._file, self._termios.TCSADRAIN, self._before)

    def resume(self) -> None:
        """Take single keys again."""
        self._tty.setcbreak(self._file)

    def close(self) -> None:
        """Give the terminal back."""
        self.pause()


class Gamepad:
    """A gamepad through Linux's joystick device: sticks move, a shoulder button is the deadman grip.

    Left stick: x and y; right stick: up and down, and yaw; triggers: close (right) and open (left); button 5 held: the
    grip; buttons 0, 1, 3 (A, B, Y): success, failure, throw away. Numbers are those of Linux's xpad driver.
    """

    GRIP, SUCCESS, FAILURE, DISCARD = 5, 0, 1, 3
    AXES = ((1, 0, -1.0), (0, 1, -1.0), (4, 2, -1.0), (3, 5, -1.0))
    DEADZONE = 0.12

    def __init__(self, device: str = "/dev/input/js0", speed: float = 0.6) -> None:
        self.speed = speed
        try:
            self._file = os.open(device, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise HeedfulError(
                f"the gamepad {device} cannot be opened ({error.strerror}): plug it in, or name it as gamepad:DEVICE"
            ) from error
        self._device, self._rest = device, b""
        self._axes: dict[int, float] = {}
        self._buttons: dict[int, bool] = {}
        self._mark: Mark = ""

    def begin(self) -> None:
        """Forget marks; what is held stays held."""
        self.read()
        self._mark = ""

    def read(self) -> Controls:
        """The sticks now. Raises HeedfulError when the gamepad has gone."""
        self._take_events()
        mark, self._mark = self._mark, ""
        if not self._buttons.get(self.GRIP):
            return Controls(None, mark)
        action = np.zeros(7)
        for axis, to, way in self.AXES:
            value = self._axes.get(axis, 0.0)
            action[to] = way * self.speed * value if abs(value) > self.DEADZONE else 0.0
        # Triggers rest at -1; before they have been touched they say 0, which must not count as half pressed.
        close, opening = ((self._axes.get(n, -1.0) + 1) / 2 for n in (5, 2))
        action[6] = close - opening
        return Controls(np.clip(action, -1, 1), mark)

    def _take_events(self) -> None:
        while True:
            try:
                data = os.read(self._file, 8 * 64)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    return
                raise HeedfulError(f"the gamepad {self._device} has gone ({error.strerror})") from error
            if not data:
                return
            data = self._rest + data
            whole = len(data) - len(data) % 8
            self._rest = data[whole:]
            for _, value, kind, number in struct.iter_unpack("<IhBB", data[:whole]):
                self._take(value, kind, number)

    def _take(self, value: int, kind: int, number: int) -> None:
        first = bool(kind & 0x80)  # the state at the start, told as events
        if kind & 0x02 and not (first and number in (2, 5)):
            self._axes[number] = value / 32767
        elif kind & 0x01:
            self._buttons[number] = bool(value)
            marks: dict[int, Mark] = {
                self.SUCCESS: "success",
                self.FAILURE: "failure",
                self.DISCARD: "discard",
            }
            if value and not first and number in marks:
                self._mark = marks[number]

    def close(self) -> None:
        """Close the device."""
        os.close(self._file)


class Scripted:
    """The operator of the simulated table; marks what the simulator says of the outcome."""

    def __init__(self, robot: Any) -> None:
        if not hasattr(robot, "operator"):
            raise HeedfulError(
                "--teleop scripted needs the simulated table (--robot table), or a robot with an operator()"
            )
        self.robot = robot
        self._operator: Any = None

    def begin(self) -> None:
        """A new operator for the task of the robot's last reset."""
        self._operator = self.robot.operator()

    def read(self) -> Controls:
        """The operator's next action."""
        action = self._operator.act()
        if self._operator.done:
            return Controls(None, "success" if self.robot.succeeded() else "failure")
        return Controls(action)

    def close(self) -> None:
        """Nothing to let go of."""


def open_teleop(spec: str, robot: Any) -> Teleop:
    """`keyboard`, `gamepad`, `gamepad:DEVICE` or `scripted`. Raises HeedfulError where it cannot be had."""
    kind, _, device = spec.partition(":")
    if kind == "keyboard":
        return Terminal()
    if kind == "gamepad":
        return Gamepad(device) if device else Gamepad()
    if kind == "scripted":
        return Scripted(robot)
    raise HeedfulError(f"--teleop {spec!r} is not keyboard, gamepad, gamepad:DEVICE or scripted")
