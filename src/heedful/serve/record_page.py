"""What the page of `heedful demos record --web` shows and does. One thread has the robot; the page asks it for things.

The robot moves only while a page keeps saying which keys are held: a tab that is closed, a lost connection, or a person
who has let go, stop it within `Keys.hold` seconds.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from queue import Empty, SimpleQueue
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from heedful.data.robot import Observation, Robot, open_robot
from heedful.data.teleop import Keys, Mark, Teleop, open_teleop
from heedful.errors import HeedfulError
from heedful.recipes.demos_record import Record, open_session
from heedful.recipes.demos_record_take import Take
from heedful.recipes.demos_record_tasks import KINDS
from heedful.report_values import clean
from heedful.serve.answers import jpeg

SHOWN = 40
"""Episodes that the page lists, the newest first."""
QUIET = 0.15
"""Seconds between pictures while nothing is recorded."""


class RecordPage:
    """The page of one session. start() reaches the robot; stop() lets go of it.

    Raises HeedfulError as `open_session`, `open_robot` and `open_teleop` do.
    """

    def __init__(self, options: Record) -> None:
        self.options = options
        self.robot: Robot = open_robot(options.robot, seed=options.seed, size=options.size)
        self.session = open_session(options, self.robot)
        self.keys = Keys()
        self.teleop: Teleop = (
            self.keys if options.teleop == "keyboard" else open_teleop(options.teleop, self.robot)
        )
        self._asked: SimpleQueue[tuple[Callable[[], Any], Future[None]]] = SimpleQueue()
        self._take: Take | None = None
        self._pictures: dict[str, NDArray[np.uint8]] = {}
        self._count = 0
        self._problem = ""
        self._said = ""
        self._connected = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="robot", daemon=True)

    def start(self) -> None:
        """Begin to talk to the robot."""
        self._thread.start()

    def stop(self) -> None:
        """Throw the episode in hand away and let go of the robot."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(10)

    # ---- what the page asks for; called from the server's threads

    def state(self) -> dict[str, Any]:
        """All that the page shows."""
        now, take = self.session.state, self._take
        missing = self.session.missing()
        prompt = None if missing else self.session.prompt()
        kept = self.session.episodes()
        return {
            "phase": "recording" if take else "setup" if missing else "ready",
            "connected": self._connected,
            "problem": clean(self._problem),
            "said": clean(self._said),
            "robot": self.robot.info.robot_type,
            "teleop": self.options.teleop,
            "cameras": list(self.robot.info.cameras),
            "pictures": self._count,
            "collector": clean(now.collector),
            "building": clean(now.building),
            "scene": now.scene_id,
            "kinds": list(KINDS),
            "ticked": [KINDS.index(kind) for kind in now.ticked if kind in KINDS],
            "typed": clean("; ".join(now.typed)),
            "missing": missing,
            "prompt": None
            if prompt is None
            else {"task": clean(prompt.task), "change": prompt.change, "warnings": list(prompt.warnings)},
            "here": clean(next(iter(getattr(self.robot, "instructions", ())), "")),
            "take": None
            if take is None
            else {
                "task": clean(take.task),
                "practice": take.practice,
                "frames": take.frames,
                "idle": take.idle,
                "late": take.late,
                "seconds": take.frames / self.robot.info.fps,
            },
            "saved": len(kept),
            "successes": sum(one.success for one in kept),
            "episodes": [
                {
                    "name": one.name,
                    "success": one.success,
                    "task": clean(one.task),
                    "frames": one.frames,
                    "language": clean("\n".join(one.instructions)),
                }
                for one in kept[::-1][:SHOWN]
            ],
        }

    def picture(self, camera: str) -> bytes:
        """The newest picture of a camera as JPEG. Raises HeedfulError where there is none."""
        found = self._pictures.get(camera)
        if found is None:
            raise HeedfulError(f"there is no picture of {clean(camera)!r} yet")
        return jpeg(found)

    def set_up(self, collector: str, building: str, ticked: Sequence[Any], typed: str) -> None:
        """Say who collects, where, and what can be done here."""
        if not all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < len(KINDS) for i in ticked):
            raise HeedfulError(f"kinds of task are numbers from 0 to {len(KINDS) - 1}")
        self.session.set_up(
            collector=collector, building=building, ticked=[KINDS[i] for i in ticked], typed=typed.split(";")
        )

    def begin(self, practice: bool) -> None:
        """Reset the robot and begin an episode of the task that is asked for."""

        def do() -> None:
            if self._take is not None:
                raise HeedfulError("an episode is being recorded already")
            missing = [] if practice else self.session.missing()
            if missing:
                raise HeedfulError(f"say first: {', '.join(missing)}")
            task = "practice" if practice else self.session.prompt().task
            self._take = Take(
                self.session, self.robot, self.teleop, task, practice=practice, codec=self.options.codec
            )
            self._said = "practice: nothing is saved" if practice else "recording"

        self._ask(do)

    def end(self, mark: str) -> None:
        """End the episode in hand: success, failure or discard."""
        if mark not in get_args(Mark) or not mark:
            raise HeedfulError(f"an episode ends as success, failure or discard, not {clean(mark)!r}")

        def do() -> None:
            if self._take is None:
                raise HeedfulError("no episode is being recorded")
            self._end(mark)  # type: ignore[arg-type]

        self._ask(do)

    def next_task(self) -> None:
        """Draw another task."""

        def do() -> None:
            self._idle()
            self.session.next_task()

        self._ask(do)

    def new_scene(self) -> None:
        """The scene has changed."""

        def do() -> None:
            self._idle()
            self.session.new_scene()

        self._ask(do)

    def mark(self, name: str, success: bool) -> None:
        """Revise what an episode was."""
        self._ask(lambda: self.session.mark(name, success))

    def describe(self, name: str, texts: Sequence[Any]) -> None:
        """Say in words what an episode shows."""
        if not all(isinstance(text, str) for text in texts):
            raise HeedfulError("instructions are text")
        self._ask(lambda: self.session.describe(name, [text for text in texts if text.strip()]))

    def held(self, keys: Sequence[Any]) -> None:
        """Which keys are held at this moment."""
        if not keys:
            self.keys.release()
        for key in keys:
            if isinstance(key, str) and len(key) == 1:
                self.keys.press(key)

    # ---- the robot's thread

    def _idle(self) -> None:
        if self._take is not None:
            raise HeedfulError("an episode is being recorded; end it first")

    def _ask(self, do: Callable[[], Any]) -> None:
        """Have something done between two steps of the robot; raises what it raises."""
        done: Future[None] = Future()
        self._asked.put((do, done))
        try:
            done.result(timeout=60)
        except TimeoutError as error:
            raise HeedfulError(
                "the robot does not answer; look at it, and at this program's terminal"
            ) from error

    def _run(self) -> None:
        with closing(self.session), closing(self.robot):
            try:
                self._until_stopped()
            finally:
                if self._take is not None:
                    self._take.forget()

    def _until_stopped(self) -> None:
        while not self._stopping.is_set():
            try:
                if not self._connected:
                    self.robot.connect()
                    self._connected, self._problem = True, ""
                self._serve_asked()
                if self._take is not None:
                    self._step(self._take)
                else:
                    self._show(self.robot.observe())
                    self._stopping.wait(QUIET)
            except Exception as error:
                self._problem, take, self._take = str(error), self._take, None
                if take is not None:
                    take.forget()
                if not isinstance(error, HeedfulError):
                    traceback.print_exc()
                    self._problem = "the program met an error of its own; its terminal says which one"
                self._serve_asked()
                self._stopping.wait(0.5)

    def _serve_asked(self) -> None:
        while True:
            try:
                do, done = self._asked.get_nowait()
            except Empty:
                return
            try:
                do()
            except Exception as error:
                done.set_exception(error)
            else:
                self._problem = ""
                done.set_result(None)

    def _step(self, take: Take) -> None:
        mark = take.step()
        self._show(take.seen)
        if mark:
            self._end(mark)
        else:
            take.wait()

    def _end(self, mark: Mark) -> None:
        take, self._take = self._take, None
        assert take is not None
        kept = take.end(mark)
        self._said = (
            "nothing was saved" if kept is None else f"saved as a {'success' if kept.success else 'failure'}"
        )

    def _show(self, seen: Observation) -> None:
        self._pictures = {name: picture for name, picture in seen.pictures.items() if picture is not None}
        self._count += 1
