"""`heedful correct run`: a trained pair acts, a person corrects it in words, and everything is recorded.

    DIR/meta, data, videos     the episodes, a LeRobotDataset v3: commands that were followed in `language_persistent`,
                               corrections that counted in `language_events`
    DIR/corrections.jsonl      every line that was said, and what became of it
    DIR/summary.json           stages, successes and interventions, with intervals

The same command goes on where it was interrupted (`correct_session`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.recipes.correct_session import Session


@dataclass(frozen=True)
class Options:
    """Let a trained pair act and correct it in words: a script does, or you do, in this terminal or on a page."""

    run: Positional[Annotated[str, arg(metavar="RUN")]]
    """A run of `heedful correct train` or `heedful correct learn`."""
    out: str = "runs/corrections"
    """Where episodes and corrections go. The same command again goes on; a killed one loses the episode in hand."""
    person: Literal["scripted", "terminal", "web", "nobody"] = "scripted"
    """Who corrects. `nobody` measures the pair on its own."""
    episodes: int = 10
    """How many in all; terminal and web: 0 goes on until you stop."""
    seed: int = 0
    """Of the episodes' beginnings and of the scripted person; no demonstration or measurement begins alike."""
    wrong: float = 0.0
    """scripted: how often the wrong thing is said, from 0 to 1."""
    delay: tuple[float, float] = (0.5, 1.0)
    """scripted: least and most seconds from seeing a mistake to speaking."""
    robot: str = ""
    """A robot of your own, `path.py:function` (docs/robots.md); "": the PackTable that the pair was trained for."""
    task: str = ""
    """robot: what is to be done, in words."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    dry_run: bool = False
    """Say what would be done, and stop."""
    json: bool = False
    """Print the summary as JSON."""
    quiet: bool = False
    """Print nothing on the way."""
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
        return self.person == "web" and not self.dry_run


def main(options: Options) -> int:
    """Run `heedful correct run` in this terminal. Raises HeedfulError when it cannot start, or the robot fails."""
    check(options)
    if options.dry_run:
        print(describe(options))
        return 0
    if options.on_a_page:
        raise HeedfulError(
            "a page is served by `heedful correct run --person web` (heedful.serve.correct_app)"
        )
    from heedful.recipes.correct_session import open_session

    with open_session(options) as session:
        if options.person == "terminal":
            from heedful.recipes.correct_terminal import in_the_terminal

            in_the_terminal(session)
        else:
            _scripted(session)
        show_summary(session)
    return 0


def check(options: Options) -> None:
    """Raise HeedfulError where the options cannot run, with all the reasons."""
    wrong = problems(options)
    if wrong:
        raise HeedfulError("; ".join(wrong))


def problems(options: Options) -> list[str]:
    """Why these options cannot run, each a sentence; empty when they can."""
    wrong = []
    live = options.person in ("terminal", "web")
    if options.episodes < (0 if live else 1):
        wrong.append(f"--episodes {options.episodes}: at least {0 if live else 1}")
    if not 0 <= options.wrong <= 1:
        wrong.append("--wrong must be from 0 to 1")
    if not 0 <= options.delay[0] <= options.delay[1]:
        wrong.append("--delay needs two numbers of seconds, the least first")
    if options.seed < 0:
        wrong.append("--seed must be 0 or more")
    if options.robot and not live:
        wrong.append("--robot needs --person terminal or web: the other two need the simulator's eyes")
    if options.robot and not options.task.strip():
        wrong.append("--robot needs --task: what is to be done, in words")
    if options.task and not options.robot:
        wrong.append("--task has no meaning without --robot: PackTable has a task of its own")
    return wrong


def describe(options: Options) -> str:
    """What would be done."""
    from heedful.recipes.correct_models import open_talker

    talker = open_talker(options.run, device="cpu")
    timing, fps = talker.timing, talker.fps
    many = f"{options.episodes} episodes" if options.episodes else "episodes until you stop"
    return "\n".join(
        [
            f"plan: {many}, corrected by {options.person}, to {options.out}",
            f"  pair         {options.run}: {len(talker.snapper.bank)} commands",
            f"  acts at      {options.robot or 'PackTable'}, {fps:g} control steps a second",
            f"  corrections  held {timing.hold / fps:g} s at most, {timing.pre_roll / fps:g} s before them kept, "
            f"the high level asked every {timing.every / fps:g} s",
            "nothing was run (--dry-run)",
        ]
    )


def _scripted(session: Session) -> None:
    from heedful.data.corrections import SCRIPTED
    from heedful.data.pack_table.people import ScriptedPerson
    from heedful.recipes.correct_live import Nobody
    from heedful.run import derive_seed

    options = session.options
    while session.left:
        person: Any = Nobody()
        if options.person == "scripted":
            seed = derive_seed(options.seed, "person", session.done)
            person = ScriptedPerson(seed, slips=options.wrong, delay=options.delay)
        saved = session.take(person, SCRIPTED)
        if not options.quiet and not options.json:
            print(saved, flush=True)


def show_summary(session: Session) -> None:
    """Write the summary and print it."""
    from heedful.recipes.correct_summary import text, write_summary

    found = write_summary(session.folder)
    print(json.dumps(found) if session.options.json else text(found))


COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {"run": (Options, main)}
