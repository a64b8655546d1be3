"""One episode being recorded: observe, read the controls, act, write the frame; at the robot's rate.

Frames are written as they come, so that a kill loses this episode and no other. While the deadman grip is
released frames are written too, with an action of zero and `skip_action` true, as DROID's recorder does; `heedful demos
trim` takes them away.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from heedful.data.episodes import Feature, Info
from heedful.data.episodes.write import EpisodeWriter
from heedful.data.robot import Liveness, Observation, Robot, check_cameras
from heedful.data.teleop import Mark, Teleop
from heedful.errors import HeedfulError
from heedful.recipes.demos_record_session import INSTRUCTIONS, OUTCOME, Kept, Session

LONGEST = 10 * 60
"""Seconds after which an episode is ended: somebody has forgotten it."""


def recorded_info(robot: Robot) -> Info:
    """The columns of what is recorded on a robot: its own, and those of the recorder.

    Raises HeedfulError where the robot has no `action` or names a column of the recorder's.
    """
    own = robot.info.features
    extra = {"skip_action": Feature("bool", (1,)), "is_first": Feature("bool", (1,))}
    clash = [name for name in extra if name in own]
    if clash or "action" not in own:
        why = f"names the recorder's own {clash[0]!r}" if clash else "has no column `action`"
        raise HeedfulError(f"the robot {robot.info.robot_type!r} {why}; see docs/robots.md")
    return replace(robot.info, features={**own, **extra})


class Take:
    """An episode in hand, from the robot's reset on. practice: nothing is written. Refuses unless every camera is live.

    step() once every 1 / fps seconds until it returns a mark, then end(mark), or forget(). Raises HeedfulError, and
    forgets the episode, where the robot fails or a camera dies. However it ends, the robot is told to stand still.
    """

    def __init__(
        self,
        session: Session,
        robot: Robot,
        teleop: Teleop,
        task: str,
        *,
        practice: bool = False,
        codec: str = "h264",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        missing = session.missing()
        if missing and not practice:
            raise HeedfulError(f"say first: {', '.join(missing)}")
        self.session, self.robot, self.teleop, self.task, self.practice = (
            session,
            robot,
            teleop,
            task,
            practice,
        )
        self.frames = self.idle = self.late = 0
        self.name = session.new_name()
        self._clock = clock
        self._watch = Liveness(robot.info)
        self._writer: EpisodeWriter | None = None
        try:
            robot.reset(task)
            check_cameras(robot)
            self.seen: Observation = robot.observe()
            if not practice:
                self._writer = EpisodeWriter(session.place(self.name), recorded_info(robot), codec=codec)
            teleop.begin()
        except BaseException:
            self.forget()
            raise
        self._next = clock()

    def step(self) -> Mark:
        """One frame. Returns a mark when the person has given one; the frame of that moment is not kept."""
        try:
            self.seen = self.robot.observe()
            wrong = self._watch.look(self.seen)
            if wrong:
                raise HeedfulError(f"{'; '.join(wrong)}: the episode was thrown away")
            controls = self.teleop.read()
            if controls.mark:
                return controls.mark
            told = self.robot.act(controls.action)
            if self._writer is not None:
                self._writer.add_frame(self._frame(told, controls.action is None))
        except BaseException:
            self.forget()
            raise
        self.frames += 1
        self.idle += controls.action is None
        if self.frames >= LONGEST * self.robot.info.fps:
            return "failure"
        return ""

    def wait(self) -> None:
        """Sleep until the next frame is due; counts those that are late by more than half a frame."""
        self._next += 1 / self.robot.info.fps
        left = self._next - self._clock()
        if left > 0:
            time.sleep(left)
        elif -left > 0.5 / self.robot.info.fps:
            self.late += 1
            self._next = self._clock()

    def end(self, mark: Mark) -> Kept | None:
        """Save the episode as a failure, then mark it; None for one that was practice, thrown away, or has no frame."""
        try:
            self.robot.act(None)  # first: the files take a while
            if self._writer is None or mark == "discard" or not self.frames:
                self.forget()
                return None
            spoken, meta = self._said()
            self._writer.save_episode(spoken or self.task, meta)
            self._writer.finalize()
        except BaseException:
            self.forget()
            raise
        self._writer = None
        kept = self.session.keep(self.name)
        return self.session.mark(kept.name, True) if mark == "success" else kept

    def forget(self) -> None:
        """Throw the episode in hand away."""
        # What went wrong before is what is told, not that the robot cannot be stopped either.
        with suppress(Exception):
            self.robot.act(None)
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.discard()
            finally:
                writer.close()
                self.session.throw_away(self.name)

    def _said(self) -> tuple[list[str], dict[str, Any]]:
        """The robot's own instructions, and the episode's row."""
        state = self.session.state
        meta = {
            "uuid": f"{state.building}+{self.robot.info.robot_type}+{self.name}",
            "collector_id": state.collector,
            "building": state.building,
            "scene_id": state.scene_id,
            "date": self.name[:10],
            "current_task": self.task,
            OUTCOME: False,
            "idle_frames": self.idle,
            "late_frames": self.late,
        }
        told = {name: value for name, value in self.robot.meta().items() if name not in meta}
        return [text for name in INSTRUCTIONS if (text := told.get(name))], {**meta, **told}

    def _frame(self, told: Any, skipped: bool) -> dict[str, Any]:
        return {
            **self.seen.columns,
            **self.seen.pictures,
            **told,
            "skip_action": skipped,
            "is_first": self.frames == 0,
        }
