"""Correct a robot in this terminal: lines are typed while it moves, and count at the next control step.

A line is printed when the command changes, and for every line that was typed: what it was taken for, and what came
next to it. Nothing is drawn over what is being typed.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from io import TextIOWrapper

from heedful.data.corrections import TYPED
from heedful.data.pack_table.people import TypedPerson
from heedful.data.problems import printable
from heedful.policies.override import PERSON
from heedful.recipes.correct_bodies import Pace
from heedful.recipes.correct_live import Answer, Moment
from heedful.recipes.correct_session import Mark, Session

SHOWN = 3
"""Candidates of the high level."""
HELP = """Type what the robot should do, and Enter: it counts within one control step. Besides:
  undo       take the last correction back, also when it is over
  ?          what the high level thinks, and these words
  done       the episode ends here and is kept; `success` and `failure` also say how it went
  drop       throw the episode away
  quit       the episode ends here and is kept, and so does the session
"""
ENDS: dict[str, Mark] = {
    "done": "end",
    "success": "success",
    "failure": "failure",
    "drop": "drop",
    "quit": "end",
}


class Terminal(TypedPerson):
    """A person at a keyboard. lines: what is typed, read in a thread of its own; show: prints a line."""

    def __init__(self, lines: Iterable[str], show: Callable[[str], None], fps: float) -> None:
        super().__init__()
        self._lines, self._show, self._fps = lines, show, fps
        self._waiting = self._running = self._gone = False
        self._answered = threading.Event()
        self.mark: Mark = ""
        self.quitting = False
        self._shown: tuple[str, str] | None = None
        self._moment: Moment | None = None
        self._keyboard = threading.Thread(target=self._read, name="keyboard", daemon=True)

    # ---- in the keyboard's thread

    def _read(self) -> None:
        try:
            for line in self._lines:
                self._take(line.strip())
        except (OSError, ValueError):
            pass  # the terminal was closed
        self._gone = True

    def _take(self, line: str) -> None:
        word = line.lower()
        if word == "?":
            self._show(self._thoughts() + HELP)
        elif not self._running:
            self.quitting |= word in ("quit", "q")
            if self._waiting and not word:
                self._running, self.mark = True, ""
            if self._running or self.quitting:
                self._answered.set()
            elif word:
                self._show(f"{printable(line)!r} not taken: no episode is running")
        elif word in ENDS:
            self.mark, self.quitting = ENDS[word], self.quitting or word == "quit"
        elif line and not self.hear(line):
            self._show(f"{printable(line)!r} not taken: too much at once")

    def _thoughts(self) -> str:
        proposal = self._moment.proposal if self._moment else None
        if proposal is None:
            return ""
        best = ", ".join(f"{command} ({p:.2f})" for command, p in proposal.candidates[:SHOWN])
        return f"the high level's candidates: {best}\n"

    # ---- in the robot's thread

    def ready(self, number: int) -> bool:
        """Wait for Enter before an episode; False when the person has had enough."""
        self._show(f"episode {number}: Enter begins, quit ends")
        self._waiting = True
        if not self._keyboard.is_alive() and not self._gone:
            self._keyboard.start()
        while not self._answered.wait(0.1) and not self._gone:
            pass
        self._waiting = False
        self._answered.clear()
        return self._running and not self.quitting

    def begin(self) -> None:
        """An episode begins. What was typed since Enter is meant for it."""
        self._shown, self._moment = None, None
        self._pace = Pace(self._fps)

    def over(self) -> None:
        """The episode has ended."""
        self._running = False
        while (line := self.say(None, "")) is not None:
            self._show(f"{printable(line)!r} not taken: the episode is over")

    def step(self, moment: Moment) -> None:
        """Show a command that is new, and wait until the next step is due."""
        state, self._moment = moment.state, moment
        now = (state.command, state.source)
        if now != self._shown:
            self._shown = now
            beside = "" if state.source == PERSON else self._beside(moment)
            who = "you" if state.source == PERSON else "robot"
            self._show(f"{state.step / self._fps:6.1f} s  {who:>5}  {printable(state.command)}{beside}")
        self._pace.wait()

    def _beside(self, moment: Moment) -> str:
        candidates = moment.proposal.candidates if moment.proposal else ()
        if not candidates:
            return ""
        others = ", ".join(f"{command} {p:.2f}" for command, p in candidates[1:SHOWN])
        return f"  ({candidates[0][1]:.2f}{'; ' if others else ''}{others})"

    def told(self, answer: Answer) -> None:
        """Show what became of a line."""
        self._show(f"          {printable(answer.text)}")


def in_the_terminal(
    session: Session,
    lines: Iterable[str] | None = None,
    show: Callable[[str], None] = lambda line: print(line, flush=True),
) -> None:
    """Episodes until as many as wanted are there, or the person has had enough. Ctrl-C throws the one in hand away.

    lines: what is typed, this program's standard input by default. show: prints a line.
    """
    if lines is None and isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # a terminal may send what is no UTF-8
    person = Terminal(sys.stdin if lines is None else lines, show, session.fps)
    show(f"{session.folder}: {session.done} episodes\n{HELP}")
    session.connect()
    while session.left and not person.quitting and person.ready(session.done):
        try:
            saved = session.take(person, TYPED, each=person.step, told=person.told, until=lambda: person.mark)
        except KeyboardInterrupt:
            show("\nstopped: this episode is not kept; the same command goes on")
            return
        finally:
            person.over()
        show(str(saved) if saved else "not kept")
    person.over()
