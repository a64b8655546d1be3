"""A policy at the simulated table: trials in and out of distribution, side by side, each seeded by its number.

A trial is a task, a start of the held-out scene (`table.sets.draw_trial`) and a setting: the scene as demonstrations
have it, or with distractors, other instances of its objects, or moved cameras (DROID, section 5). All policies meet the
same starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from heedful.data.episodes.copy import resized
from heedful.data.table import Table
from heedful.data.table.arm import HERTZ
from heedful.data.table.scene import Variant, vary
from heedful.data.table.sets import draw_trial, held_out_scene
from heedful.data.table.tasks import Task
from heedful.errors import HeedfulError
from heedful.evals.video import Film
from heedful.policies.actions import ActionPolicy, stack
from heedful.policies.actions.chunks import executed
from heedful.policies.droid import Actions, command_of, state_of
from heedful.policies.history import FrameHistory
from heedful.run import derive_seed

HELD = 5
"""Steps in a row (a third of a second) for which a task must be done, so that a moment of luck is no success."""
MOVED, STILL = 0.01, 30
"""Metres from the start that count as a first motion; steps within as many metres that count as being stuck."""
PREFIX = "observation.images."
ENLARGED = 4


@dataclass(frozen=True)
class Acting:
    """How a policy acts: what it is shown and what its numbers mean. drawn: size of a camera's own pictures; size: of
    those it is shown; steps: of a chunk, that are carried out; table_seed: of the simulated table it has learned at."""

    cameras: tuple[str, ...]
    size: int
    drawn: tuple[int, int]
    actions: Actions
    history: int
    steps: int
    fps: float
    table_seed: int | None = None


@dataclass
class _Place:
    """A table, and the trial that runs at it."""

    table: Table
    index: int
    instruction: str
    history: FrameHistory
    seen: dict[str, Any]
    film: Film | None
    tips: list[NDArray[np.float64]] = field(default_factory=list)
    nearest: float = np.inf
    held: int = 0
    broken: str = ""

    @property
    def success(self) -> bool:
        return self.held >= HELD


class Trials:
    """Trials of one seed and setting: `parallel` tables, used again for further trials. A context manager.

    Raises HeedfulError for a camera that the table does not have, and for a rate that is not the table's.
    """

    def __init__(
        self, acting: Acting, *, seed: int, setting: Variant = "", parallel: int = 8, max_steps: int = 300
    ) -> None:
        if acting.fps != HERTZ:
            raise HeedfulError(f"the table runs at {HERTZ} steps a second; the policy acts at {acting.fps:g}")
        self.acting, self.seed, self.max_steps = acting, seed, max_steps
        self.setting: Variant = setting
        scene = vary(held_out_scene(seed), setting, seed)
        names = [camera.removeprefix(PREFIX) for camera in acting.cameras]
        self._tables = [Table(scene, size=acting.drawn, cameras=names) for _ in range(parallel)]

    def run(
        self,
        policy: ActionPolicy,
        task: Task,
        indices: Sequence[int],
        *,
        generator: torch.Generator,
        film: Callable[[int], Path | None] = lambda index: None,
    ) -> list[dict[str, Any]]:
        """Trials `indices` of a task, at most as many as there are tables: {index, instruction, success, steps,
        first_motion, stuck, nearest} each, or {index, broken} where the simulation broke.

        first_motion: the step at which the arm had moved by `MOVED`, null where it never did; stuck: whether it stood
        still for `STILL` steps before the task was done; nearest: how near the finger tips came to the object (m). The
        policy draws from `generator` alone. film: where to write a film of a trial.
        """
        places = [
            self._begin(table, task, i, film(i)) for table, i in zip(self._tables, indices, strict=False)
        ]
        if len(places) < len(indices):
            raise HeedfulError(f"{len(indices)} trials need as many tables; there are {len(self._tables)}")
        for first in range(0, self.max_steps, self.acting.steps):
            running = [p for p in places if not (p.success or p.broken)]
            if not running:
                break
            shown = stack([{**p.history.read(), "task": p.instruction} for p in running])
            chunks = policy.act(shown, generator=generator)[:, 0].cpu()
            done = executed(chunks, steps=self.acting.steps, past=self.acting.history - 1).numpy()
            unseen = self.acting.steps - self.acting.history
            for place, actions in zip(running, done, strict=True):
                for k, action in enumerate(actions[: self.max_steps - first]):
                    # the policy is shown none of the frames before, and drawing them costs more than the physics
                    self._step(place, task, action, shown=k >= unseen or place.film is not None)
                    if place.success or place.broken:
                        break
        for place in places:
            if place.film is not None:
                place.film.close()
        return [_told(place) for place in places]

    def close(self) -> None:
        """Give the tables back."""
        for table in self._tables:
            table.close()

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, table: Table, task: Task, index: int, film: Path | None) -> _Place:
        _, layout = draw_trial(self.seed, index, task, self.setting)
        rng = np.random.default_rng(derive_seed(self.seed, "instruction", task.name, index))
        spoken = task.instructions(rng)[0]
        seen = table.reset(layout)
        recorded = None if film is None else Film(film, HERTZ)
        place = _Place(table, index, spoken, FrameHistory(self.acting.history), seen, recorded)
        self._look(place)
        self._note(place, task)
        return place

    def _step(self, place: _Place, task: Task, action: NDArray[np.float32], *, shown: bool) -> None:
        command = command_of(action, place.seen["cartesian_position"], self.acting.actions)
        try:
            place.table.move(command, "cartesian_position")
        except HeedfulError as error:
            place.broken = str(error)
            return
        place.seen = place.table.observe(pictures=shown)
        if shown:
            self._look(place)
        self._note(place, task)
        place.held = place.held + 1 if place.table.succeeded(task) else 0

    def _look(self, place: _Place) -> None:
        seen = place.seen
        pictures = {
            camera: resized(seen[camera.removeprefix(PREFIX)], (self.acting.size, self.acting.size))
            for camera in self.acting.cameras
        }
        state = state_of(seen["cartesian_position"], seen["gripper_position"])
        # copied: PIL's pictures cannot be written to, which torch warns of
        shown = {name: picture.transpose(2, 0, 1).copy() for name, picture in pictures.items()}
        place.history.add({"state": state, **shown})
        if place.film is not None:
            beside = np.concatenate(list(pictures.values()), axis=1)
            place.film.add(beside.repeat(ENLARGED, 0).repeat(ENLARGED, 1))

    @staticmethod
    def _note(place: _Place, task: Task) -> None:
        tip = place.table.tip
        place.tips.append(tip)
        goal = place.table.place(task.thing).at if task.thing else place.table.handle
        place.nearest = min(place.nearest, float(np.linalg.norm(tip - goal)))


def _told(place: _Place) -> dict[str, Any]:
    if place.broken:
        return {"index": place.index, "broken": place.broken}
    tips = np.stack(place.tips)
    away = np.linalg.norm(tips - tips[0], axis=1) > MOVED
    return {
        "index": place.index,
        "instruction": place.instruction,
        "success": int(place.success),
        "steps": len(tips) - 1,
        "first_motion": int(away.argmax()) if away.any() else None,
        "stuck": int(stood_still(tips)),
        "nearest": round(place.nearest, 4),
    }


def stood_still(tips: NDArray[np.float64], steps: int = STILL, within: float = MOVED) -> bool:
    """Whether the finger tips (T, 3) were within so many metres of one place for so many steps in a row."""
    for first in range(len(tips) - steps):
        if (np.linalg.norm(tips[first : first + steps + 1] - tips[first], axis=1) < within).all():
            return True
    return False
