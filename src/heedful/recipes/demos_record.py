"""`heedful demos record`: collect demonstrations as DROID did, on the simulated table or on a robot of your own.

Khazatsky et al. 2024 (DROID), section 3 and its collection interface, is the protocol: who collects, where, whether the
scene is new, which tasks can be done; a task is drawn; the episode is saved as a failure and moved when it is marked a
success; scene changes are asked for. Departures from it, each on purpose:

1. Every episode is a data set in LeRobot's format at once, not HDF5 and SVO to be converted.
2. The task of an episode that was recorded is not drawn again; one that was resampled or thrown away may be.
3. There is no calibration page: a driver gives the calibration it has (`Robot.meta`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.data.robot import Robot
    from heedful.data.teleop import Mark, Teleop
    from heedful.recipes.demos_record_session import Kept, Session


@dataclass(frozen=True)
class Record:
    """Collect demonstrations: on the simulated table, or on a robot of your own (docs/robots.md)."""

    out: Positional[Annotated[str, arg(metavar="FOLDER")]]
    """Where episodes go: FOLDER/success and FOLDER/failure. The same folder again goes on."""
    robot: str = "table"
    """`table`, `table:NUMBER` (a scene of the simulated table), or `path.py:function` that returns a robot."""
    teleop: str = "keyboard"
    """`keyboard`, `gamepad`, `gamepad:DEVICE`, or `scripted` (the simulated table's own operator)."""
    collector: str = ""
    """Who collects: first and last name."""
    building: str = ""
    """Where."""
    new_scene: bool = False
    """The scene is another one than last time: robot, table or cameras have moved."""
    tasks: tuple[str, ...] = ()
    """Which of DROID's 14 kinds of task can be done here, by number or beginning; the table knows by itself."""
    own_tasks: tuple[str, ...] = ()
    """Tasks of your own."""
    practice: bool = False
    """Move the robot and save nothing."""
    episodes: int = 0
    """Stop after so many; 0: when you do. `scripted` makes 1 by default."""
    size: tuple[int, int] = (180, 320)
    """Height and width of the simulated table's pictures."""
    codec: Literal["h264", "av1"] = "h264"
    """Of the videos."""
    seed: int = 0
    """Of the tasks that are drawn, and of the simulated table."""
    web: bool = False
    """Collect on a local web page instead of in this terminal."""
    port: int = 8765
    """web: the port; 0 takes any that is free."""
    host: str = "127.0.0.1"
    """web: the address to listen at; other computers reach another one, which needs --token."""
    token: str = ""
    """web: a secret of 16 or more characters that every request must know; `auto` makes one. Else $HEEDFUL_TOKEN."""
    allow_host: tuple[str, ...] = ()
    """web: more names that the page is reached by."""

    @property
    def on_a_page(self) -> bool:
        """Whether it runs on a page and not in the terminal."""
        return self.web


@dataclass(frozen=True)
class MarkEpisode:
    """Say afterwards whether an episode succeeded, or what it is in words."""

    episode: Positional[Annotated[str, arg(metavar="EPISODE")]]
    """An episode's folder: FOLDER/success/NAME or FOLDER/failure/NAME."""
    outcome: Literal["", "success", "failure"] = ""
    """What it was; its folder moves accordingly."""
    language: tuple[str, ...] = ()
    """One to three instructions, in place of earlier ones."""


def record(options: Record) -> int:
    """Run `heedful demos record` in this terminal. Raises HeedfulError when it cannot start, or the robot fails."""
    from heedful.data.robot import open_robot
    from heedful.data.teleop import open_teleop

    robot = open_robot(options.robot, seed=options.seed, size=options.size)
    with closing(open_session(options, robot)) as session:
        robot.connect()
        with closing(robot), closing(open_teleop(options.teleop, robot)) as teleop:
            return _collect(options, session, robot, teleop)


def mark(options: MarkEpisode) -> int:
    """Run `heedful demos mark`. Raises HeedfulError where the folder is no episode of a session."""
    from heedful.recipes.demos_record_session import FAILURE, SUCCESS, Session

    place = Path(options.episode).expanduser().absolute()
    if not place.is_dir() or place.parent.name not in (SUCCESS, FAILURE):
        raise HeedfulError(f"{place} is no episode: FOLDER/success/NAME or FOLDER/failure/NAME is expected")
    if not (place.parent.parent / "session.json").exists():
        raise HeedfulError(f"{place.parent.parent} is no session of `heedful demos record`")
    if not options.outcome and not options.language:
        raise HeedfulError("say something of it: --outcome success, --outcome failure or --language TEXT")
    session = Session(place.parent.parent)
    kept = session.find(place.name)
    if options.language:
        kept = session.describe(place.name, options.language)
    if options.outcome:
        kept = session.mark(place.name, options.outcome == "success")
    print(
        json.dumps(
            {"episode": str(kept.folder), "success": kept.success, "language": list(kept.instructions)}
        )
    )
    return 0


def open_session(options: Record, robot: Robot) -> Session:
    """The session of --out, locked, with what the options say of it.

    Raises HeedfulError for what makes no sense, and where another recorder is at work there.
    """
    from heedful.recipes.demos_record_session import Session
    from heedful.recipes.demos_record_tasks import kinds_of

    if options.episodes < 0:
        raise HeedfulError(f"--episodes {options.episodes}: 0 or more are possible")
    session = Session(options.out, seed=options.seed)
    session.lock()
    try:
        possible = getattr(robot, "feasible", None)
        ticked = kinds_of(options.tasks) if options.tasks else None
        if ticked is None and not session.state.ticked and not options.own_tasks and possible is not None:
            ticked = kinds_of(possible())
        session.set_up(
            collector=options.collector or None,
            building=options.building or None,
            ticked=ticked,
            typed=options.own_tasks or None,
        )
        if options.new_scene:
            session.new_scene()
    except BaseException:
        session.close()
        raise
    return session


# ---- in a terminal


def _collect(options: Record, session: Session, robot: Robot, teleop: Teleop) -> int:
    from heedful.data.teleop import HELP

    scripted = options.teleop == "scripted"
    if scripted and not session.state.scene_id and not options.practice:
        session.new_scene()
    missing = [] if options.practice else session.missing()
    if missing:
        raise HeedfulError(f"say first: {', '.join(missing)} (--collector, --building, --new-scene, --tasks)")
    wanted = options.episodes or (1 if scripted else 0)
    print(f"{session.folder}: {len(session.episodes())} episodes. {'' if scripted else HELP}", flush=True)
    taken = 0
    try:
        while not wanted or taken < wanted:
            task = _agree(options, session, teleop, scripted)
            if task is None:
                break
            kept = _take(options, session, robot, teleop, task)
            taken += 1
            if kept is not None:
                _told(kept)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on", file=sys.stderr)
    return 0


def _agree(options: Record, session: Session, teleop: Teleop, scripted: bool) -> str | None:
    """The task that is done next; None when the person has had enough. Prompts of the protocol are shown first."""
    if options.practice:
        return "practice"
    while True:
        prompt = session.prompt()
        for warning in prompt.warnings:
            print(f"! {warning}")
        if prompt.change:
            print(f"change the scene first: {prompt.change}")
        print(f"next task: {prompt.task}", flush=True)
        if scripted:
            return prompt.task
        answer = _asked(teleop, "Enter begins, b draws another task, s marks a new scene, q ends: ")
        if answer == "q":
            return None
        if answer == "s":
            print(f"scene {session.new_scene()}")
        elif answer == "b":
            session.next_task()
        else:
            return prompt.task


def _asked(teleop: Teleop, question: str) -> str:
    """The first letter of a line that is typed; the keyboard is lent back to the terminal meanwhile."""
    from heedful.data.teleop import Terminal

    if isinstance(teleop, Terminal):
        teleop.pause()
    try:
        return input(question).strip().lower()[:1]
    except EOFError:
        return "q"
    finally:
        if isinstance(teleop, Terminal):
            teleop.resume()


def _take(options: Record, session: Session, robot: Robot, teleop: Teleop, task: str) -> Kept | None:
    from heedful.recipes.demos_record_take import Take

    take = Take(session, robot, teleop, task, practice=options.practice, codec=options.codec)
    # The table's own operator has all the time of the simulation; anything else has a clock, and so have its cameras.
    hurried = options.teleop == "scripted" and options.robot.partition(":")[0] == "table"
    said: Mark = ""
    try:
        while not said:
            said = take.step()
            if not hurried and not said:
                take.wait()
        return take.end(said)
    except BaseException:
        take.forget()
        raise


def _told(kept: Kept) -> None:
    print(
        f"{'success' if kept.success else 'failure'}: {kept.frames} frames, {kept.meta.get('idle_frames', 0)} idle, "
        f"{kept.folder}",
        flush=True,
    )


COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "record": (Record, record),
    "mark": (MarkEpisode, mark),
}
