"""What the page of `heedful correct run --person web` shows and does. One thread has the robot; the page talks to it.

A line that the page has sent is answered once it is on the disk and counts, which is at the robot's next control step.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from concurrent.futures import Future
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from heedful.data.corrections import SPOKEN, TYPED, Correction
from heedful.data.pack_table.people import TypedPerson
from heedful.errors import HeedfulError
from heedful.policies.override import PERSON
from heedful.recipes.correct_bodies import Pace
from heedful.recipes.correct_live import Answer, Moment
from heedful.recipes.correct_session import Mark, Saved, Session
from heedful.report_values import clean
from heedful.serve.answers import jpeg
from heedful.serve.speech import Hear

SHOWN = 6
"""Candidates of the high level."""
PATIENCE = 30
"""Seconds that the page waits for the robot's thread."""


class Talk(TypedPerson):
    """Lines of a page. Each has a promise of what became of it, kept when the robot has heard it."""

    def __init__(self) -> None:
        super().__init__()
        self.source = TYPED
        self._sources: deque[str] = deque()
        self._promised: deque[Future[Answer]] = deque()
        self._lock = threading.Lock()

    def begin(self) -> None:
        """An episode begins; what has been said since it was asked for is meant for it."""

    def promise(self, words: str, source: str) -> Future[Answer]:
        """Take a line. Raises HeedfulError when too many wait."""
        with self._lock:
            if not self.hear(words):
                raise HeedfulError("too much at once: wait for what you said to be heard")
            self._sources.append(source)
            self._promised.append(Future())
            return self._promised[-1]

    def say(self, table: Any, command: str) -> str | None:
        """The oldest line that has not been said; `source` is how it came."""
        with self._lock:
            words = super().say(table, command)
            if words is not None:
                self.source = self._sources.popleft()
            return words

    def told(self, answer: Answer) -> None:
        """Keep the oldest promise."""
        with self._lock:
            self._promised.popleft().set_result(answer)

    def over(self) -> None:
        """The episode has ended: what is still waiting was said too late."""
        with self._lock:
            while super().say(None, "") is not None:
                pass
            self._sources.clear()
            while self._promised:
                self._promised.popleft().set_exception(
                    HeedfulError("the episode is over: that came too late")
                )


class CorrectPage:
    """The page of one session. start() reaches the robot; stop() throws the episode in hand away and lets go of it."""

    def __init__(self, session: Session, hear: Hear | None = None) -> None:
        self.session, self.hear = session, hear
        self._talk = Talk()
        self._mark: Mark = ""
        self._phase, self._connected = "ready", False
        self._problem = self._said = ""
        self._moment: Moment | None = None
        self._parts: list[tuple[int, str, bool]] = []
        self._pictures: dict[str, NDArray[np.uint8]] = {}
        self._count, self._index = 0, max(0, session.done - 1)
        self._saved: Saved | None = None
        self._begun, self._idle = threading.Event(), threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="robot", daemon=True)

    def start(self) -> None:
        """Begin to talk to the robot."""
        self._thread.start()

    def stop(self) -> None:
        """Throw the episode in hand away and let go of the robot."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(PATIENCE)

    # ---- what the page asks for; called from the server's threads

    def state(self) -> dict[str, Any]:
        """All that the page shows."""
        moment, session, fps = self._moment, self.session, self.session.fps
        state = moment.state if moment else None
        proposal = moment.proposal if moment else None
        by_person = state is not None and state.source == PERSON
        whole = session.timing.held(state.command) if state else 0
        left = whole - (state.step - state.said_at) if state and by_person else 0
        rows = session.rows(self._index)
        return {
            "phase": self._phase,
            "connected": self._connected,
            "problem": clean(self._problem),
            "said": clean(self._said),
            "run": clean(str(session.options.run)),
            "episode": self._index,
            "done": session.done,
            "more": session.left,
            "simulated": not session.options.robot,
            "speech": self.hear is not None,
            "cameras": list(self._pictures),
            "pictures": self._count,
            "seconds": (state.step + 1) / fps if state else 0.0,
            "command": clean(state.command) if state else "",
            "by": "person" if by_person else "robot",
            "held": {"left": left / fps, "whole": whole / fps} if by_person else None,
            "candidates": [[clean(c), float(p)] for c, p in proposal.candidates[:SHOWN]] if proposal else [],
            "undoable": self._phase == "running" and any(row.status == "accepted" for row in rows),
            "rows": [self._row(row) for row in rows],
            "parts": [[step / fps, clean(command), person] for step, command, person in self._parts],
            "stages": [[name, bool(done)] for name, done in self._stages().items()],
            "commands": [clean(command) for command in session.talker.snapper.bank],
        }

    def picture(self, camera: str) -> bytes:
        """The newest picture of a camera as JPEG. Raises HeedfulError where there is none."""
        found = self._pictures.get(camera)
        if found is None:
            raise HeedfulError(f"there is no picture of {clean(camera)!r} yet")
        return jpeg(found)

    def begin(self) -> None:
        """Begin an episode."""
        if self._phase != "ready":
            raise HeedfulError("an episode is running already")
        if not self.session.left:
            raise HeedfulError("all episodes that were wanted are there: start with more --episodes")
        if not self._connected:
            raise HeedfulError("the robot does not answer yet")
        self._mark, self._phase = "", "running"
        self._idle.clear()
        self._begun.set()

    def end(self, mark: str) -> None:
        """End the episode in hand; it is on the disk, or thrown away, when this returns."""
        if mark not in get_args(Mark) or not mark:
            raise HeedfulError(f"an episode ends as end, success, failure or drop, not {clean(mark)!r}")
        if self._phase != "running":
            raise HeedfulError("no episode is running")
        self._mark = mark  # type: ignore[assignment]
        if not self._idle.wait(PATIENCE):
            raise HeedfulError("the robot does not answer; look at it, and at this program's terminal")

    def say(self, words: str, source: str) -> None:
        """Tell the robot what to do, or "undo"; it has been heard, and is on the disk, when this returns."""
        if not words.strip():
            raise HeedfulError("nothing was said")
        if source not in (TYPED, SPOKEN):
            raise HeedfulError(f"a line is {TYPED} or {SPOKEN}")
        if self._phase != "running":
            raise HeedfulError("no episode is running: begin one first")
        promise = self._talk.promise(words, source)
        if self._phase != "running":
            self._talk.over()
        try:
            self._said = promise.result(PATIENCE).text
        except TimeoutError as error:
            raise HeedfulError(
                "the robot does not answer; look at it, and at this program's terminal"
            ) from error

    def listen(self, sound: bytes) -> str:
        """What was said into a microphone (`speech.RATE`); "" where it was not understood."""
        if self.hear is None:
            raise HeedfulError("nothing here understands speech: pip install 'heedful[speech]'")
        return self.hear(sound)

    # ---- the robot's thread

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self.session.connect()
                    self._connected = True
                    if self._begun.wait(0.1):
                        self._take()
                except Exception as error:
                    self._problem = str(error)
                    if not isinstance(error, HeedfulError):
                        traceback.print_exc()
                        self._problem = "the program met an error of its own; its terminal says which one"
                    self._stopping.wait(0.5)
        finally:
            self.session.release()

    def _take(self) -> None:
        session = self.session
        self._begun.clear()
        self._index, self._moment, self._problem, self._said = session.done, None, "", ""
        self._parts = []
        self._pace = Pace(session.fps)
        try:
            self._saved = session.take(
                self._talk,
                lambda: self._talk.source,
                each=self._step,
                told=self._talk.told,
                until=self._until,
            )
            self._said = str(self._saved) if self._saved else "this episode was not kept"
        finally:
            self._phase = "ready"
            self._talk.over()
            self._idle.set()

    def _until(self) -> Mark:
        return "drop" if self._stopping.is_set() else self._mark

    def _step(self, moment: Moment) -> None:
        state = moment.state
        part = (state.command, state.source == PERSON)
        if not self._parts or self._parts[-1][1:] != part:
            self._parts = [*self._parts, (state.step, *part)]
        self._pictures = {n: one for n, one in moment.seen.items() if getattr(one, "ndim", 0) == 3}
        self._moment = moment
        self._count += 1
        self._pace.wait()

    # ---- parts of what is shown

    def _stages(self) -> dict[str, bool]:
        if self._phase == "ready" and self._saved is not None:
            return self._saved.stages
        return dict(self.session.body.stages) if self.session.body is not None else {}

    def _row(self, row: Correction) -> dict[str, Any]:
        return {
            "id": row.id,
            "seconds": row.step / self.session.fps,
            "words": clean(row.words),
            "command": clean(row.command or ""),
            "overridden": clean(row.overridden),
            "status": row.status,
            "source": row.source,
            "reason": clean(row.reason),
            "runner_up": clean(row.runner_up or ""),
        }
