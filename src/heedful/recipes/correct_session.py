"""A folder of corrected episodes that is being recorded, and the pair that acts in it.

An episode counts once it is saved. A kill loses the one in hand; the rows that it had are marked as lost when the
folder is opened again, and nobody learns from them (`data.corrections.recorded`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from heedful.errors import HeedfulError
from heedful.recipes.correct_eval import LIVE

if TYPE_CHECKING:
    from heedful.data.corrections import Correction, CorrectionLog
    from heedful.data.episodes.write import EpisodeWriter
    from heedful.policies.override import Timing
    from heedful.recipes.correct_live import Answer, Moment, Speaks, Taken
    from heedful.recipes.correct_run import Options

Mark = Literal["", "end", "success", "failure", "drop"]
"""How a person ends an episode; "": not yet. `drop` throws it away."""
VOLATILE = ("person", "episodes")
LONGEST = 10 * 60
"""Seconds after which an episode is ended: somebody has forgotten it."""
SEEDS = 1_000_000
"""Episodes of one --seed."""


@dataclass(frozen=True)
class Saved:
    """An episode on the disk. rows: what was said in it."""

    index: int
    steps: int
    succeeded: bool
    stages: dict[str, bool]
    rows: list[Correction]

    def __str__(self) -> str:
        """A line for the terminal."""
        done = f", {sum(self.stages.values())} of {len(self.stages)} stages" if self.stages else ""
        counted = sum(row.status == "accepted" for row in self.rows)
        return (
            f"episode {self.index}: {'success' if self.succeeded else 'failure'}{done}, {self.steps} steps, "
            f"{counted} correction{'' if counted == 1 else 's'}"
        )


class Session:
    """A folder of corrected episodes that is being recorded, and the pair that acts in it.

    talker: see `correct_live.Pair`. body: makes what acts, when the first episode begins, in the thread that takes it.
    """

    def __init__(
        self,
        options: Options,
        talker: Any,
        timing: Timing,
        body: Callable[[], Any],
        writer: EpisodeWriter,
        log: CorrectionLog,
    ) -> None:
        self.options, self.talker, self.timing, self.log = options, talker, timing, log
        self._make, self._writer = body, writer
        self.body: Any = None
        self.folder = Path(options.out)
        log.lose(self.done)

    @property
    def done(self) -> int:
        """How many episodes are saved."""
        return self._writer.info.total_episodes

    @property
    def left(self) -> bool:
        """Whether more are wanted."""
        return not self.options.episodes or self.done < self.options.episodes

    @property
    def fps(self) -> float:
        """Control steps a second."""
        return self._writer.info.fps

    def seed(self) -> int:
        """Of the next episode's reset."""
        return LIVE + self.options.seed * SEEDS + self.done

    def connect(self) -> Any:
        """What acts, made at the first call."""
        if self.body is None:
            self.body = self._make()
        return self.body

    def take(
        self,
        person: Speaks,
        source: str | Callable[[], str],
        *,
        each: Callable[[Moment], None] | None = None,
        told: Callable[[Answer], None] | None = None,
        until: Callable[[], Mark] = lambda: "",
    ) -> Saved | None:
        """Record the next episode; None when it was dropped or has no step.

        each, told: as in `correct_live.take`. Whatever is raised on the way throws the episode away; so does a kill.
        However it ends, what acts is told to stand still.
        """
        from heedful.recipes import correct_live

        index, seed, body = self.done, self.seed(), self.connect()
        longest = round(LONGEST * self.fps)
        count = 0

        def step(moment: Moment) -> None:
            nonlocal count
            count += 1
            self._writer.add_frame(body.frame(moment.seen, moment.action))
            if each is not None:
                each(moment)

        try:
            taken = correct_live.take(
                body, self.talker, person, self.log, self.timing, episode=index, seed=seed, source=source,
                each=step, told=told, until=lambda: bool(until()) or count >= longest,
            )  # fmt: skip
            body.stand_still()  # first: the files take a while
            if until() == "drop" or not taken.commands:
                return None
            return self._save(index, seed, taken, until())
        except BaseException:
            with suppress(Exception):
                body.stand_still()
            raise
        finally:
            if self.done == index:
                self._forget(index)

    def _save(self, index: int, seed: int, taken: Taken, mark: Mark) -> Saved:
        from heedful.data.corrections import language_events, subtasks
        from heedful.data.episodes import LanguageRow

        rows = self.rows(index)
        spoken = [*subtasks(taken.commands, self.fps), *language_events(rows, self.fps)]
        succeeded = taken.succeeded or mark == "success"
        asked: dict[str, Any] = {}
        if taken.asked:
            best = [said.candidates[0][1] if said.candidates else 1.0 for _, said in taken.asked]
            asked = {
                "asked_step": [step for step, _ in taken.asked],
                "asked_command": [said.command for _, said in taken.asked],
                "asked_probability": [float(p) for p in best],
            }
        meta = {
            "seed": seed,
            "is_episode_successful": succeeded,
            "corrected_by": self.options.person,
            "ended_by": "person" if mark else "task",
            **asked,
        }
        told = {name: value for name, value in self.body.meta().items() if name not in meta}
        self._writer.save_episode(self.body.task, {**meta, **told}, [LanguageRow(**row) for row in spoken])
        return Saved(index, len(taken.commands), succeeded, taken.stages, rows)

    def _forget(self, index: int) -> None:
        try:
            self._writer.discard()
        finally:
            self.log.lose(index)

    def rows(self, episode: int) -> list[Correction]:
        """What was said in an episode, whether it is saved or in hand."""
        return [row for row in self.log.rows(episode=episode) if row.status != "lost"]

    def release(self) -> None:
        """Let go of what acts, in the thread that `connect` was called in."""
        body, self.body = self.body, None
        if body is not None:
            body.close()

    def end(self) -> None:
        """Let go of what acts, and put the folder in order."""
        try:
            self.release()
        finally:
            self._writer.finalize()


@contextmanager
def open_session(options: Options) -> Iterator[Session]:
    """The session of --out, new or gone on with; it is put in order at the end, also after an error.

    Raises HeedfulError where RUN is no trained pair, the folder was made with other settings or by another pair, or
    something else is in it.
    """
    from heedful.data.corrections import CorrectionLog
    from heedful.data.episodes.write import EpisodeWriter
    from heedful.device import pick_device
    from heedful.recipes.correct_models import open_talker, pair_folder
    from heedful.run import open_run

    talker = open_talker(options.run, device=pick_device(options.device))
    body, info = _body(options, talker)
    folder = Path(options.out).expanduser()
    _begin_data_set(folder, info)
    kept = ("run", "person", "episodes", "wrong", "delay", "robot", "task")
    config = {name: getattr(options, name) for name in kept}
    made_of = sorted((pair_folder(options.run) or Path(options.run).expanduser()).rglob("*.safetensors"))
    run = open_run(folder, config, seed=options.seed, volatile=VOLATILE, data=made_of)
    try:
        writer = EpisodeWriter(folder, info)
        session = Session(
            options, talker, talker.timing, body, writer, CorrectionLog(folder / "corrections.jsonl")
        )
        try:
            yield session
        finally:
            session.end()
    finally:
        run.close()


def _body(options: Options, talker: Any) -> tuple[Callable[[], Any], Any]:
    from heedful.recipes.correct_bodies import PackBody, RobotBody

    making = talker.making
    if options.robot:
        from heedful.data.robot import open_robot

        found = RobotBody(
            open_robot(options.robot, seed=options.seed), making.cameras, making.state, options.task
        )
        return lambda: found, found.info
    if making.world is None:
        raise HeedfulError(f"{options.run} was not trained for PackTable: give --robot and --task")
    from heedful.data.pack_table.expert import pack_info

    settings = {**making.world, "size": tuple(making.world["size"])}
    return lambda: PackBody(**settings), pack_info(settings["size"])


def _begin_data_set(folder: Path, info: Any) -> None:
    """A data set without episodes: what stands beside it may come before its first one."""
    from heedful.data.episodes.meta import whole_info, write_info, write_tasks

    if (folder / "meta" / "info.json").exists():
        return
    others = [p for p in folder.glob("*") if p.name not in ("meta", ".writing")]
    # A kill of this function leaves no more than these two.
    others += [p for p in (folder / "meta").glob("*") if p.name != "tasks.parquet" and p.suffix != ".tmp"]
    if others:
        raise HeedfulError(f"{folder} is not empty and holds no corrected episodes: choose another --out")
    (folder / "meta").mkdir(parents=True, exist_ok=True)
    write_tasks(folder, {})
    write_info(folder, whole_info(info), 0)
