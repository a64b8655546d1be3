"""The simulated table as a `Robot`: what a person or a script can record demonstrations on without any hardware."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.data.robot import Observation
from heedful.data.table import Table
from heedful.data.table.episodes import VARIANTS, looked, scene_meta, table_frame, table_info, task_meta
from heedful.data.table.operator import Operator
from heedful.data.table.scene import CAMERAS, draw_scene
from heedful.data.table.tasks import Task, draw_layout, draw_task, tasks_of
from heedful.errors import HeedfulError

Array = NDArray[np.float64]
KINDS: Mapping[str, tuple[str, ...]] = {
    "Open or close slidable objects": ("open", "close"),
    "Move object into or out of container": ("put in", "put on"),
    "Move object to a new position and orientation": ("lift", "stack", "push", "tip"),
}
"""Which of the table's verbs belong to which of DROID's kinds of task."""


class TableRobot:
    """Scene `number` of a seed. Each reset is a new episode: reset k is a function of (seed, number, k, task) alone."""

    def __init__(self, number: int = 0, *, seed: int = 0, size: tuple[int, int] = (180, 320)) -> None:
        whole = table_info(size, outcome=False)
        own = {n: f for n, f in whole.features.items() if n not in ("skip_action", "is_first")}
        self.info = type(whole)(whole.fps, whole.robot_type, own, extra=whole.extra)
        self.number, self.seed, self.size = number, seed, size
        self.resets = 0
        self.task: Task | None = None
        """The task that was chosen at the last reset."""
        self.instructions: tuple[str, str, str] = ("", "", "")
        self._table: Table | None = None
        self._seen: dict[str, Any] = {}
        self._drawn = 0

    @property
    def table(self) -> Table:
        """The simulation. Raises HeedfulError before `connect`."""
        if self._table is None:
            raise HeedfulError("the table is not connected")
        return self._table

    def feasible(self) -> list[str]:
        """Which of DROID's kinds of task can be done at this scene."""
        verbs = {task.verb for task in tasks_of(draw_scene(self.seed, self.number))}
        return [kind for kind, of in KINDS.items() if verbs & {*of}]

    def connect(self) -> None:
        """Build the scene and lay it out."""
        if self._table is None:
            self._table = Table(draw_scene(self.seed, self.number), size=self.size)
            self.reset("")

    def reset(self, task: str) -> None:
        """Lay the scene out anew for a task of the kind that is asked for, or any where that is none of them."""
        rng = np.random.default_rng([self.seed, self.number, self.resets, 6])
        self.resets += 1
        scene = self.table.scene
        verbs = {verb for kind, of in KINDS.items() if kind in task for verb in of}
        fitting = [one for one in tasks_of(scene) if one.verb in verbs]
        self.task = fitting[int(rng.integers(len(fitting)))] if fitting else draw_task(scene, rng)
        self._seen = looked(self.table, self.table.reset(draw_layout(scene, self.task, rng)))
        self.instructions = self.task.instructions(rng)
        self._drawn += 1
        self._operator_rng = rng

    def operator(self) -> Operator:
        """A scripted operator for the task of the last reset."""
        if self.task is None:
            raise HeedfulError("the table has not been reset")
        return Operator(self.table, self.task, self._operator_rng)

    def succeeded(self) -> bool:
        """Whether the task of the last reset is done now (privileged)."""
        return self.task is not None and self.table.succeeded(self.task)

    def observe(self) -> Observation:
        """What the table looks like now."""
        columns = {
            "observation.state.joint_position": self._seen["joint_position"],
            "observation.state.cartesian_position": self._seen["cartesian_position"],
            "observation.state.gripper_position": self._seen["gripper_position"],
            "observation.state": np.concatenate(
                [self._seen["joint_position"], self._seen["gripper_position"]]
            ),
            **{f"camera_extrinsics.{camera}": self._seen["extrinsics"][camera] for camera in CAMERAS},
        }
        self._drawn += 1
        pictures = {f"observation.images.{camera}": self._seen[camera] for camera in CAMERAS}
        return Observation(columns, pictures, dict.fromkeys(pictures, float(self._drawn)))

    def act(self, action: Array | None) -> Mapping[str, Any]:
        """One step of the simulation."""
        before = self._seen
        after = self.table.hold() if action is None else self.table.act(action)
        frame = table_frame(self.table, before, action is None, False, "droid")
        self._seen = looked(self.table, after)
        return {
            name: frame[name] for name in ("action", "action.original", *(f"action.{v}" for v in VARIANTS))
        }

    def meta(self) -> Mapping[str, Any]:
        """Scene, calibration, and the simulator's own verdict, kept beside what the person says."""
        row = {k: v for k, v in scene_meta(self.table).items() if k not in ("building", "scene_id")}
        told = task_meta(self.task, self.instructions) if self.task else {}
        told.pop("current_task", None)
        return {**row, **told, "simulated_scene": self.number, "simulator_success": self.succeeded()}

    def close(self) -> None:
        """Give the simulation back."""
        if self._table is not None:
            self._table.close()
            self._table = None
