"""What a recorder asks of a robot: connect, observe, act, reset. A driver for a real arm is one class that does this.

docs/robots.md is the guide for drivers. The simulated table is one too (`table.robot.TableRobot`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from heedful.data.episodes import Info
from heedful.errors import HeedfulError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Observation:
    """What the robot sees and feels at one moment.

    columns: a value for each column of `Robot.info` that is no picture and no action. pictures: by column name, uint8
    RGB; None where the camera gives none. captured: a number by camera that grows with every new picture (its time, or
    a count): where it stays the same the camera hangs.
    """

    columns: Mapping[str, Any]
    pictures: Mapping[str, NDArray[np.uint8] | None]
    captured: Mapping[str, float]


class Robot(Protocol):
    """A robot with cameras. All calls come from one thread, `act` and `observe` `info.fps` times a second.

    info: frames a second, name of the robot, and every column of a frame but `skip_action` and `is_first`.
    """

    info: Info

    def connect(self) -> None:
        """Reach robot and cameras. Raises HeedfulError saying what does not answer and what to do about it."""
        ...

    def observe(self) -> Observation:
        """The newest observation, without waiting for more than one frame's time."""
        ...

    def act(self, action: Array | None) -> Mapping[str, Any]:
        """Begin one step and return at once the action columns of the frame.

        action: (7,), Cartesian velocity in the base frame and gripper velocity, each in [-1, 1] as shares of what a
        step may move (`table.arm.MOST_METRES`, `MOST_RADIANS`, `MOST_GRIPPER`). None: the deadman grip is released, or
        the episode has ended, by an error too; the robot must stand still, and the columns say that nothing was asked.
        """
        ...

    def reset(self, task: str) -> None:
        """Open the gripper, go to the reset pose and wait until there. task: what is to be done next."""
        ...

    def meta(self) -> Mapping[str, Any]:
        """What else the episode's row shall say: serial numbers, calibration."""
        ...

    def close(self) -> None:
        """Let go of robot and cameras; must work at any moment."""
        ...


@dataclass
class Liveness:
    """Watches whether every camera is live. Observations must come at the robot's rate."""

    info: Info
    _last: dict[str, float] = field(default_factory=dict)
    _stale: dict[str, int] = field(default_factory=dict)
    _new: dict[str, int] = field(default_factory=dict)

    @property
    def patience(self) -> int:
        """How many observations in a row may bring no new picture."""
        # A camera may be slower than the robot, but not for a whole second.
        return max(3, round(self.info.fps))

    @property
    def waited_for(self) -> list[str]:
        """Cameras of which no second picture has been seen yet."""
        return [camera for camera in self.info.cameras if self._new.get(camera, 0) < 2]

    def look(self, seen: Observation) -> list[str]:
        """What is wrong with the cameras, in words; empty when all are live. Counts as one observation."""
        wrong: list[str] = []
        for camera in self.info.cameras:
            picture, shape = seen.pictures.get(camera), self.info.features[camera].shape
            captured = seen.captured.get(camera)
            if picture is None:
                wrong.append(f"{camera} gives no picture")
            elif picture.dtype != np.uint8 or picture.shape != shape:
                wrong.append(f"{camera} gives {picture.dtype} {picture.shape}, not uint8 {shape}")
            elif captured is None or not np.isfinite(captured):
                wrong.append(f"{camera} does not say when its picture was taken")
            else:
                fresh = captured > self._last.get(camera, -np.inf)
                self._stale[camera] = 0 if fresh else self._stale.get(camera, 0) + 1
                self._new[camera] = self._new.get(camera, 0) + fresh
                self._last[camera] = captured
                if self._stale[camera] > self.patience:
                    wrong.append(f"{camera} hangs: no new picture in {self._stale[camera]} observations")
        return wrong


def check_cameras(robot: Robot) -> None:
    """Observe at the robot's rate until every camera has brought a second picture; for about a second at most.

    Raises HeedfulError where one does not. DROID refuses to record likewise (six streams, of three stereo cameras).
    """
    if not robot.info.cameras:
        raise HeedfulError(f"the robot {robot.info.robot_type!r} names no camera; demonstrations need one")
    watch, due = Liveness(robot.info), time.monotonic()
    wrong: list[str] = []
    for _ in range(watch.patience + 2):
        # A driver that keeps the newest picture answers at once: asked faster, it has nothing new to give.
        time.sleep(max(0.0, due - time.monotonic()))
        due += 1 / robot.info.fps
        wrong = watch.look(robot.observe())
        if not wrong and not watch.waited_for:
            return
    wrong = wrong or [f"{camera} gives no second picture" for camera in watch.waited_for]
    raise HeedfulError(f"not every camera is live, so nothing is recorded: {'; '.join(wrong)}")


def open_robot(spec: str, *, seed: int = 0, size: tuple[int, int] = (180, 320)) -> Robot:
    """The robot of `table`, `table:NUMBER` (a scene of the simulated table) or `path.py:function`.

    The function takes nothing and returns a robot. Raises HeedfulError where there is none, or where what is returned
    lacks a method.
    """
    if spec == "table" or spec.startswith("table:"):
        from heedful.data.table.robot import TableRobot

        number = spec.partition(":")[2] or "0"
        if not number.isdecimal():
            raise HeedfulError(f"--robot {spec}: the number of a scene is expected after the colon")
        return TableRobot(int(number), seed=seed, size=size)
    path, colon, name = spec.rpartition(":")
    if not colon or not path.endswith(".py") or not name:
        raise HeedfulError(f"--robot {spec!r} is not table, table:NUMBER or path.py:function")
    from heedful.python_files import function_of

    made: Any = function_of(Path(path).expanduser(), name, "robot")()
    lacking = [
        p for p in ("info", "connect", "observe", "act", "reset", "meta", "close") if not hasattr(made, p)
    ]
    if lacking or not isinstance(made.info, Info):
        what = (
            f"has no {', '.join(lacking)}"
            if lacking
            else "has an `info` that is no heedful.data.episodes.Info"
        )
        raise HeedfulError(f"{spec}: the robot {what}; see docs/robots.md")
    return made
