"""A robot without physics for the tests of the recorder: a square that moves, two cameras that can break."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from heedful.data.episodes import Feature, Info
from heedful.data.robot import Observation
from heedful.errors import HeedfulError

SIZE = (32, 48, 3)
CAMERAS = ("observation.images.left", "observation.images.wrist")


class ToyOperator:
    """Moves for `steps` steps, the first of them with the grip released."""

    def __init__(self, steps: int) -> None:
        self.left, self.done = steps, False

    def act(self) -> Any:
        self.left -= 1
        self.done = self.left < 0
        return None if self.left % 5 == 0 or self.done else np.full(7, 0.1)


class ToyRobot:
    """broken: what the wrist camera gives: "none" no picture, "hangs" always the same, "shape" one of another size.

    camera_hz: pictures a second by the clock, of which observe returns the newest at once; 0: a new one whenever asked.
    """

    def __init__(
        self, *, steps: int = 12, pause: float = 0.0, fps: float = 15, camera_hz: float = 0.0
    ) -> None:
        features = {name: Feature("video", SIZE, ["height", "width", "channels"]) for name in CAMERAS}
        features |= {"observation.state": Feature("float32", (7,)), "action": Feature("float32", (7,))}
        self.info = Info(fps, "toy", features)
        self.steps, self.pause, self.camera_hz = steps, pause, camera_hz
        self.broken = ""
        self.good = True
        self.at = np.zeros(7)
        self.count = 0
        self.connected = self.stopped = False
        self.tasks: list[str] = []

    def connect(self) -> None:
        self.connected = True

    def observe(self) -> Observation:
        if not self.connected:
            raise HeedfulError("the toy is not connected")
        time.sleep(self.pause)
        self.count = int(time.monotonic() * self.camera_hz) if self.camera_hz else self.count + 1
        picture = np.full(SIZE, int(self.count * 7 % 256), np.uint8)
        pictures: dict[str, Any] = dict.fromkeys(CAMERAS, picture)
        captured: dict[str, float] = {camera: float(self.count) for camera in CAMERAS}
        if self.broken == "none":
            pictures[CAMERAS[1]] = None
        elif self.broken == "hangs":
            captured[CAMERAS[1]] = 1.0
        elif self.broken == "shape":
            pictures[CAMERAS[1]] = picture[:8]
        return Observation({"observation.state": self.at.copy()}, pictures, captured)

    def act(self, action: Any) -> Mapping[str, Any]:
        told = np.zeros(7) if action is None else np.asarray(action)
        self.stopped = action is None
        self.at = self.at + told
        return {"action": told}

    def reset(self, task: str) -> None:
        self.tasks.append(task)
        self.at = np.zeros(7)

    def meta(self) -> Mapping[str, Any]:
        return {"robot_serial": "toy-1"}

    def close(self) -> None:
        self.connected = False

    def operator(self) -> ToyOperator:
        return ToyOperator(self.steps)

    def succeeded(self) -> bool:
        return self.good


def robot() -> ToyRobot:
    """For `--robot toy_robot.py:robot`; $TOY_PAUSE slows it down, $TOY_FPS are its frames a second."""
    fps, pause = (float(os.environ.get(name, own)) for name, own in (("TOY_FPS", "15"), ("TOY_PAUSE", "0")))
    return ToyRobot(steps=12, pause=pause, fps=fps)


def lame() -> object:
    """No robot at all."""
    return object()
