"""A folder of recorded demonstrations, as DROID's collectors keep one.

    FOLDER/session.json              who collects where, the scene, what can be done there, how many tasks were drawn
    FOLDER/failure/NAME/             one episode, a LeRobotDataset v3 of its own: every episode is saved here first
    FOLDER/success/NAME/             moved here, by one rename, when it is marked a success; and back, when revised
    FOLDER/.recording/NAME/          the episode in hand
    FOLDER/.lock                     held by the one recorder at work; marks need none

An episode's row in `meta/episodes` says what was marked; a folder that a kill left on the wrong side of a rename is
moved when it is marked again, or the session recorded in again. `heedful demos merge FOLDER/success/* --out DATA` makes
one data set of them.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from heedful.atomic import make_folder, sync, write_file
from heedful.data.episodes import Episode
from heedful.errors import HeedfulError
from heedful.recipes.demos_record_tasks import (
    LONGEST_SCENE,
    MOST_IN_SCENE,
    MOVE,
    STALE_SCENE,
    draw_change,
    draw_task,
)
from heedful.run import lock_folder

SUCCESS, FAILURE, RECORDING = "success", "failure", ".recording"
OUTCOME = "is_episode_successful"
INSTRUCTIONS = ("language_instruction", "language_instruction_2", "language_instruction_3")


@dataclass(frozen=True)
class State:
    """What session.json holds. scene_since: seconds since 1970; drawn: tasks drawn so far, which sets the next one."""

    collector: str = ""
    building: str = ""
    scene_id: str = ""
    scene_since: float = 0.0
    ticked: tuple[str, ...] = ()
    typed: tuple[str, ...] = ()
    seed: int = 0
    drawn: int = 0
    saved: int = 0


@dataclass(frozen=True)
class Prompt:
    """What is asked for next. change: of the scene, before it; warnings: what should be looked at first."""

    task: str
    change: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kept:
    """An episode of the session. folder: where it is now."""

    folder: Path
    success: bool
    task: str
    frames: int
    instructions: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its folder, which stays the same."""
        return self.folder.name


class Session:
    """The session of a folder; made or gone on with. clock: seconds since 1970. A recorder must `lock` it first.

    Raises HeedfulError for a folder that holds something else.
    """

    def __init__(self, folder: str | Path, *, seed: int = 0, clock: Callable[[], float] = time.time) -> None:
        self.folder, self.clock = Path(folder).expanduser(), clock
        self._file = self.folder / "session.json"
        if self.folder.exists() and not self._file.exists() and any(self.folder.iterdir()):
            raise HeedfulError(f"{self.folder} is no session of `heedful demos record`, and not empty")
        for part in (SUCCESS, FAILURE, RECORDING):
            make_folder(self.folder / part)
        self._release: Callable[[], None] = lambda: None
        if not self._file.exists():
            self.state = State(seed=seed)
            self._write()
        self.state = self._read()

    def lock(self) -> None:
        """Keep other recorders out until `close`, and make good what a kill left.

        Raises HeedfulError where another recorder is at work here.
        """
        self._release = lock_folder(self.folder)
        self.state = self._read()  # another recorder may have gone on since
        self._settle()
        self._write()

    def close(self) -> None:
        """Let another recorder in."""
        self._release()

    # ---- who, where, what

    def set_up(
        self,
        *,
        collector: str | None = None,
        building: str | None = None,
        ticked: Sequence[str] | None = None,
        typed: Sequence[str] | None = None,
    ) -> None:
        """Say who collects, where, and what can be done at this scene; None leaves a thing as it is.

        Raises HeedfulError for a name of fewer than two words and a building of fewer than three letters, as DROID
        does: one person must not appear under several spellings.
        """
        now = self.state
        if collector is not None:
            if len(collector.split()) < 2:
                raise HeedfulError(
                    f"collector {collector!r}: give the first and the last name, always spelt alike"
                )
            now = replace(now, collector=" ".join(collector.split()))
        if building is not None:
            if len(building.strip()) < 3:
                raise HeedfulError(f"building {building!r}: give its name, always spelt alike")
            now = replace(now, building=building.strip())
        if ticked is not None:
            now = replace(now, ticked=tuple(ticked))
        if typed is not None:
            now = replace(now, typed=tuple(dict.fromkeys(t for one in typed if (t := " ".join(one.split())))))
        self.state = now
        self._write()

    def new_scene(self) -> str:
        """The scene has changed (robot, table or cameras moved): it gets a new id, which is returned."""
        scene = f"{int(np.random.default_rng(uuid.uuid4().int % 2**63).integers(10**10)):010d}"
        self.state = replace(self.state, scene_id=scene, scene_since=self.clock())
        self._write()
        return scene

    def missing(self) -> list[str]:
        """What has to be said before anything is recorded."""
        now = self.state
        wanted = {
            "who collects": now.collector,
            "the building": now.building,
            "whether the scene is new": now.scene_id,
            "tasks that can be done here": now.ticked + now.typed,
        }
        return [what for what, value in wanted.items() if not value]

    # ---- what next

    def prompt(self) -> Prompt:
        """What is asked for next; the same one until `next_task`, however often the program is started anew."""
        now = self.state
        rng = np.random.default_rng([now.seed, now.drawn, 9])
        task = draw_task(now.ticked, now.typed, rng)
        change = draw_change(now.saved, rng)
        # Only once: a resampled task does not ask for the robot to be moved again.
        moved_since = now.scene_since and self._saved_in_scene() == 0
        return Prompt(task, "" if change == MOVE and moved_since else change, tuple(self._warnings()))

    def next_task(self) -> Prompt:
        """Draw another task."""
        self.state = replace(self.state, drawn=self.state.drawn + 1)
        self._write()
        return self.prompt()

    def _warnings(self) -> list[str]:
        age, here = self.clock() - self.state.scene_since, self._saved_in_scene()
        told: list[str] = []
        if age > STALE_SCENE:
            told.append("no scene change has been marked for over an hour: is this still the same scene?")
        elif age > LONGEST_SCENE or here >= MOST_IN_SCENE:
            told.append(f"{here} episodes in {age / 60:.0f} minutes at this scene: time for a new one")
        return told

    def _saved_in_scene(self) -> int:
        return sum(one.meta.get("scene_id") == self.state.scene_id for one in self.episodes())

    # ---- episodes

    def new_name(self) -> str:
        """The name of the next episode: its time, and something that no other has."""
        now = self.clock()
        # millionths, so that names sort as the episodes were recorded
        part = f"{int(now % 1 * 1e6):06d}-{uuid.uuid4().hex[:8]}"
        return time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime(now)) + f"-{part}"

    def place(self, name: str) -> Path:
        """Where an episode is written while it is in hand."""
        return self.folder / RECORDING / name

    def keep(self, name: str) -> Kept:
        """The episode in hand has been saved: it goes to failure/, by one rename, until it is marked otherwise."""
        to = self.folder / FAILURE / name
        os.replace(self.place(name), to)
        sync(to.parent)
        self.state = replace(self.state, saved=self.state.saved + 1, drawn=self.state.drawn + 1)
        self._write()
        return self._kept(to)

    def throw_away(self, name: str) -> None:
        """Forget the episode in hand."""
        shutil.rmtree(self.place(name), ignore_errors=True)

    def find(self, name: str) -> Kept:
        """An episode by name. Raises HeedfulError where there is none."""
        for one in self.episodes():
            if one.name == name:
                return one
        raise HeedfulError(f"{self.folder} has no episode {name!r}")

    def mark(self, name: str, success: bool) -> Kept:
        """Say that an episode succeeded or failed; may be said anew at any time. Its folder moves accordingly."""
        one = self.find(name)
        if one.meta.get(OUTCOME) != success:
            change_row(one.folder, {OUTCOME: success})
        return self._move(one.folder, success)

    def describe(self, name: str, instructions: Sequence[str]) -> Kept:
        """Give an episode up to three instructions in words, in place of earlier ones.

        Raises HeedfulError for none, more than three, or an empty one.
        """
        told = [" ".join(text.split()) for text in instructions]
        if not 1 <= len(told) <= len(INSTRUCTIONS) or not all(told):
            raise HeedfulError(f"one to {len(INSTRUCTIONS)} instructions are needed, none of them empty")
        place = self.find(name).folder
        told += [""] * (len(INSTRUCTIONS) - len(told))
        spoken = list(dict.fromkeys(text for text in told if text))
        change_row(place, {**dict(zip(INSTRUCTIONS, told, strict=True)), "tasks": spoken})
        _follow_row(place)
        return self._kept(place)

    def episodes(self) -> list[Kept]:
        """All episodes, the oldest first."""
        known = self.__dict__.setdefault("_known", {})
        found: list[Kept] = []
        for part in (SUCCESS, FAILURE):
            for place in (self.folder / part).iterdir():
                row = place / _ROW
                try:
                    stamp = (row.stat().st_mtime_ns, row.stat().st_ino)
                    if known.get(place, (None,))[0] != stamp:
                        known[place] = (stamp, self._kept(place))
                except (OSError, HeedfulError):
                    if row.exists():
                        raise
                    continue  # no episode, or a mark from another terminal has just moved it
                found.append(known[place][1])
        return sorted(found, key=lambda one: one.name)

    def _kept(self, place: Path) -> Kept:
        from heedful.data.episodes.lerobot import LeRobotEpisodes

        episode: Episode = LeRobotEpisodes(place).episode(0)
        told = tuple(text for name in INSTRUCTIONS if (text := episode.meta.get(name)))
        task = str(episode.meta.get("current_task", episode.tasks[0]))
        return Kept(place, place.parent.name == SUCCESS, task, episode.length, told, episode.meta)

    def _move(self, place: Path, success: bool) -> Kept:
        to = self.folder / (SUCCESS if success else FAILURE) / place.name
        if to != place:
            os.replace(place, to)
            sync(to.parent)
            sync(place.parent)
        return self._kept(to)

    # ---- files

    def _settle(self) -> None:
        """Make good what a kill left: forget the episode in hand, finish what a mark or an instruction had begun.

        Without the lock that would be the episode that another recorder has in hand.
        """
        for left in (self.folder / RECORDING).iterdir():
            if (left / _ROW).exists() and (left / "meta" / "info.json").exists() and _whole(left):
                os.replace(left, self.folder / FAILURE / left.name)  # saved, and not yet moved
            else:
                shutil.rmtree(left, ignore_errors=True)
        for one in self.episodes():
            marked = one.meta.get(OUTCOME)
            place = one.folder
            if isinstance(marked, bool) and marked != one.success:
                place = self._move(one.folder, marked).folder
            _follow_row(place)
        self.state = replace(self.state, saved=max(self.state.saved, len(self.episodes())))

    def _read(self) -> State:
        try:
            told = json.loads(self._file.read_text())
            told |= {name: tuple(map(str, told[name])) for name in ("ticked", "typed")}
            return State(**told)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise HeedfulError(f"{self._file} cannot be read ({error}); episodes are not touched") from error

    def _write(self) -> None:
        write_file(self._file, (json.dumps(asdict(self.state), ensure_ascii=False, indent=1) + "\n").encode())


_ROW = Path("meta") / "episodes" / "chunk-000" / "file-000.parquet"


def _whole(place: Path) -> bool:
    from heedful.data.episodes.lerobot import LeRobotEpisodes

    try:
        return len(LeRobotEpisodes(place)) == 1
    except HeedfulError:
        return False


def change_row(folder: Path, values: Mapping[str, bool | str | list[str]]) -> None:
    """Change columns of the one row of an episode's meta/episodes, whole or not at all. "" takes text away.

    Raises HeedfulError where the row cannot be read.
    """
    import pyarrow as pa

    from heedful.data.episodes.tables import open_table, write_table

    file = folder / _ROW
    # Read into memory: the file is about to be replaced.
    table = open_table(file, "the episode's row").read()
    for name, value in values.items():
        kind = pa.bool_() if isinstance(value, bool) else pa.string()
        if isinstance(value, list):
            kind = pa.list_(kind)
        column = pa.array([None if value == "" else value], type=kind)
        at = table.schema.get_field_index(name)
        table = table.append_column(name, column) if at < 0 else table.set_column(at, name, column)
    write_table(file, table)


def _follow_row(folder: Path) -> None:
    """Make meta/tasks.parquet and info.json say what the row says; the first instruction is every frame's."""
    from heedful.data.episodes.lerobot import LeRobotEpisodes
    from heedful.data.episodes.write import write_info, write_tasks

    there = LeRobotEpisodes(folder)
    spoken = {text: i for i, text in enumerate(there.episode(0).tasks)}
    if there.tasks != spoken:
        write_tasks(folder, spoken)
        write_info(folder, there.info, len(spoken))
