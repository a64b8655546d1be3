"""What a pair of policies acts with in `heedful correct run`: the simulated PackTable, or a robot with a driver."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from heedful.data.episodes import LANGUAGE_FEATURES, Info
from heedful.data.pack_table import PackTable
from heedful.data.pack_table.expert import TASK, pack_frame, pack_info
from heedful.data.robot import Liveness, Observation, Robot, check_cameras
from heedful.errors import HeedfulError

STATE = "state"
"""What a pair calls the robot's numbers."""


class Pace:
    """Sleeps until the next control step is due."""

    def __init__(self, fps: float) -> None:
        self.fps, self._due = fps, time.monotonic()

    def wait(self) -> None:
        """Where the step has taken too long, the next one is not hurried."""
        self._due = max(self._due + 1 / self.fps, time.monotonic() - 1 / self.fps)
        time.sleep(max(0.0, self._due - time.monotonic()))


class PackBody(PackTable):
    """PackTable, and what is recorded of it. settings: of `PackTable`."""

    task = TASK

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.info = pack_info(tuple(settings.get("size", (64, 64))))

    def frame(self, seen: Mapping[str, Any], action: np.ndarray) -> dict[str, Any]:
        """The frame of a step."""
        return pack_frame(seen, action)

    def stand_still(self) -> None:
        """Nothing moves between two steps of the simulation."""

    def meta(self) -> dict[str, Any]:
        """What the simulator knows of the episode: which stages are done."""
        return {"stage_name": list(self.stages), "stage_done": list(self.stages.values())}


class RobotBody:
    """A robot whose column `action` is what it is asked to do, seven velocities (docs/robots.md).

    cameras: the pair's name of each picture, and its column; state: the column of the numbers. The episode ends when
    somebody says so. Raises HeedfulError for a robot without these columns.
    """

    over = succeeded = False

    def __init__(self, robot: Robot, cameras: Mapping[str, str], state: str, task: str) -> None:
        have = robot.info.features
        lacking = [name for name in (*cameras.values(), state, "action") if name not in have]
        if lacking:
            raise HeedfulError(f"the robot has no {', '.join(lacking)}, which the policies were trained with")
        if have["action"].shape != (7,):
            raise HeedfulError(
                f"the robot's column `action` has the shape {have['action'].shape}, not (7,): it must be what the "
                "robot is asked to do, Cartesian and gripper velocity (docs/robots.md), since the low level learns it"
            )
        self.robot, self.cameras, self.column, self.task = robot, cameras, state, task
        self.info: Info = replace(robot.info, features={**have, **LANGUAGE_FEATURES})
        self.stages: dict[str, bool] = {}
        self._watch = Liveness(robot.info)
        self._told: Mapping[str, Any] = {}
        robot.connect()

    def reset(self, seed: int) -> dict[str, Any]:
        """The robot goes to its reset pose; every camera must be live."""
        self.robot.reset(self.task)
        check_cameras(self.robot)
        self._pace = Pace(self.info.fps)
        return self._look()

    def act(self, action: np.ndarray) -> dict[str, Any]:
        """One step, and what is seen when the next one is due. Raises HeedfulError when a camera dies."""
        self._told = self.robot.act(np.asarray(action, np.float64))
        self._pace.wait()
        return self._look()

    def frame(self, seen: Mapping[str, Any], action: np.ndarray) -> dict[str, Any]:
        """The frame of the step that was begun last."""
        looked: Observation = seen["observation"]
        return {**looked.columns, **looked.pictures, **self._told}

    def stand_still(self) -> None:
        """The episode has ended, in whatever way."""
        self.robot.act(None)

    def meta(self) -> dict[str, Any]:
        """What the driver says of the episode."""
        return dict(self.robot.meta())

    def close(self) -> None:
        """The robot stands still and is let go of."""
        # What went wrong before is what is told, not that the robot cannot be stopped either.
        with suppress(Exception):
            self.robot.act(None)
        self.robot.close()

    def _look(self) -> dict[str, Any]:
        looked = self.robot.observe()
        wrong = self._watch.look(looked)
        if wrong:
            raise HeedfulError(f"{'; '.join(wrong)}: the episode was thrown away")
        pictures = {name: looked.pictures[column] for name, column in self.cameras.items()}
        return {**pictures, STATE: looked.columns[self.column], "observation": looked}
