"""The data sets of the simulated table: DROID's comparison in small (diverse, narrow, OXE-like, full, in-domain).

Episode `index` of a set is a function of (set, seed, index): the order, the number of workers and what was made before
do not matter. A set that was interrupted goes on where it ended.

| set        | scenes | episodes a scene | what for                                                              |
|------------|--------|------------------|-----------------------------------------------------------------------|
| diverse    | 60     | 20               | DROID's diversity                                                     |
| narrow     | 3      | 400              | as many episodes, few scenes (the first three of diverse)             |
| oxe        | 60     | 20               | other scenes, the same cameras in all, another convention of actions  |
| full       | 120    | 20               | twice as much: diverse is its first half                              |
| in_domain  | 1      | 3 tasks x 40     | a held-out scene; demonstrations that succeed                         |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from heedful.data.episodes.write import EpisodeWriter
from heedful.data.table import Layout, Table
from heedful.data.table.episodes import Convention, Recorded, run_episode, table_info
from heedful.data.table.scene import Scene, Variant, draw_scene, vary
from heedful.data.table.tasks import Task, draw_layout, draw_task, tasks_of
from heedful.errors import HeedfulError

HELD_OUT = 10_000
"""Numbers of scenes from here on are in no training set but `in_domain`."""
IN_DOMAIN_TASKS, IN_DOMAIN_EPISODES = 3, 40
ATTEMPTS = 30


@dataclass(frozen=True)
class TableSet:
    """What a data set is made of. first: number of its first scene."""

    name: str
    scenes: int
    per_scene: int
    convention: Convention = "droid"
    first: int = 0
    fixed_cameras: bool = False
    successes: bool = False
    """Only episodes that succeed; each is tried anew until it does."""

    @property
    def episodes(self) -> int:
        """How many episodes it has."""
        return self.scenes * self.per_scene


SETS = {
    one.name: one
    for one in (
        TableSet("diverse", 60, 20),
        TableSet("narrow", 3, 400),
        TableSet("oxe", 60, 20, convention="delta", first=5_000, fixed_cameras=True),
        TableSet("full", 120, 20),
        TableSet("in_domain", 1, IN_DOMAIN_TASKS * IN_DOMAIN_EPISODES, first=HELD_OUT, successes=True),
    )
}


def set_of(name: str, per_scene: int = 0) -> TableSet:
    """The set of a name, with so many episodes of a scene (0: its own number). Raises HeedfulError for an unknown one,
    and for another number of episodes of `in_domain`, whose tasks each have theirs."""
    if name not in SETS:
        raise HeedfulError(f"there is no data set {name!r} of the table; choose one of {', '.join(SETS)}")
    if per_scene < 0 or (per_scene and SETS[name].successes):
        raise HeedfulError(f"the set {name} cannot have {per_scene} episodes of a scene")
    return replace(SETS[name], per_scene=per_scene) if per_scene else SETS[name]


def held_out_scene(seed: int) -> Scene:
    """The scene of `in_domain`: the first of the held-out ones at which its three kinds of task can be asked for."""
    for number in range(HELD_OUT, HELD_OUT + 200):
        scene = draw_scene(seed, number)
        if len({task.verb for task in tasks_of(scene)} & set(_IN_DOMAIN)) >= IN_DOMAIN_TASKS:
            return scene
    raise HeedfulError(f"seed {seed} has no held-out scene with {IN_DOMAIN_TASKS} tasks")


_IN_DOMAIN = ("put in", "put on", "stack", "open", "lift")


def in_domain_tasks(seed: int) -> list[Task]:
    """The three tasks of the held-out scene, of three verbs; objects are not shared where that can be."""
    rng = np.random.default_rng([seed, HELD_OUT, 5])
    possible = tasks_of(held_out_scene(seed))
    chosen: list[Task] = []
    for verb in _IN_DOMAIN:
        taken = {task.thing for task in chosen}
        of_verb = [task for task in possible if task.verb == verb]
        fresh = [task for task in of_verb if task.thing not in taken] or of_verb
        if fresh and len(chosen) < IN_DOMAIN_TASKS:
            chosen.append(fresh[int(rng.integers(len(fresh)))])
    return chosen


def draw_trial(seed: int, index: int, task: Task, variant: Variant = "") -> tuple[Scene, Layout]:
    """Scene and start of evaluation `index` of an in-domain task; the same layouts for every variant that allows it.

    Layouts are others than those of the demonstrations. Variants: see `table.scene.vary`.
    """
    scene = held_out_scene(seed)
    varied = vary(scene, variant, seed)
    layout = draw_layout(scene, task, np.random.default_rng([seed, 7, index]))
    if {t.name for t in varied.things} == {t.name for t in scene.things}:
        return varied, layout
    # Where more things lie, they are put between the others, which stay where they are.
    return varied, _filled(varied, task, layout, np.random.default_rng([seed, 8, index]))


def _filled(scene: Scene, task: Task, layout: Layout, rng: np.random.Generator) -> Layout:
    from heedful.data.table.tasks import free_place

    places = dict(layout.places)
    for thing in scene.things:
        if thing.name not in places:
            found = free_place(scene, task, thing.name, places, rng, tries=3000, wide=True)
            if found is None:
                raise HeedfulError(f"scene {scene.number} has no room for the {thing.name}")
            places[thing.name] = found
    return replace(layout, places=places)


def make_episode(name: str, seed: int, index: int, size: tuple[int, int], per_scene: int = 0) -> Recorded:
    """Episode `index` of a set, from nothing else than these. Raises HeedfulError for an index it does not have."""
    made = set_of(name, per_scene)
    if not 0 <= index < made.episodes:
        raise HeedfulError(f"the set {name} has episodes 0 to {made.episodes - 1}, not {index}")
    if made.successes:
        return _demonstration(made, seed, index, size)
    number = made.first + index // made.per_scene
    table = _table(seed, number, size, made.fixed_cameras)
    rng = np.random.default_rng([seed, made.first, made.per_scene, index, 4])
    task = draw_task(table.scene, rng)
    done = run_episode(table, draw_layout(table.scene, task, rng), task, rng, convention=made.convention)
    return _known(done, made, seed, index, rng)


def _demonstration(made: TableSet, seed: int, index: int, size: tuple[int, int]) -> Recorded:
    scene = held_out_scene(seed)
    table = _table(seed, scene.number, size, made.fixed_cameras)
    task = in_domain_tasks(seed)[index // IN_DOMAIN_EPISODES]
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng([seed, HELD_OUT, index, attempt, 4])
        done = run_episode(
            table, draw_layout(scene, task, rng), task, rng, mistake="", convention=made.convention
        )
        if done.meta["is_episode_successful"]:
            return _known(done, made, seed, index, rng)
    raise HeedfulError(f"{task.name} did not succeed in {ATTEMPTS} attempts at scene {scene.number}")


def _known(done: Recorded, made: TableSet, seed: int, index: int, rng: np.random.Generator) -> Recorded:
    collector = f"collector {int(rng.integers(6))}"
    uuid = f"SIM+{made.name}+{seed}+{index:06d}"
    return replace(
        done, meta={"uuid": uuid, "collector_id": collector, "set": made.name, "seed": seed, **done.meta}
    )


@lru_cache(maxsize=1)
def _table(seed: int, number: int, size: tuple[int, int], fixed_cameras: bool) -> Table:
    """The table of a scene; kept for the next episode, which is usually at the same one."""
    return Table(draw_scene(seed, number, fixed_cameras=fixed_cameras), size=size)


def generate(
    folder: str | Path,
    name: str,
    *,
    seed: int = 0,
    episodes: int = 0,
    per_scene: int = 0,
    size: tuple[int, int] = (128, 128),
    codec: str = "h264",
    workers: int = 1,
    told: Callable[[int, int], None] | None = None,
) -> int:
    """Write a set as LeRobotDataset v3; returns how many episodes the folder now holds.

    episodes: of the set's, the first so many; 0: all. per_scene: another number of episodes of each scene, which are
    then other episodes. A folder that holds some of them is continued, and one of another set, seed or number refused.
    workers: processes; the files are the same for any number of them. told(done, all) is called after each episode.
    Raises HeedfulError for a folder that holds something else.
    """
    made = set_of(name, per_scene)
    count = min(episodes or made.episodes, made.episodes)
    info = table_info(size, made.convention)
    known: dict[str, Any] = {"table_set": name, "table_seed": seed}
    if per_scene:
        known["table_per_scene"] = per_scene
    info = replace(info, extra={**info.extra, **known})
    _check_folder(Path(folder), known)
    with EpisodeWriter(folder, info, codec=codec) as writer:
        begun = writer.info.total_episodes
        for episode in _made(name, seed, range(begun, count), size, per_scene, workers):
            for frame in episode.frames:
                writer.add_frame(frame)
            writer.save_episode(episode.instructions, episode.meta)
            if told:
                told(writer.info.total_episodes, count)
        return writer.info.total_episodes


def _made(
    name: str, seed: int, indices: range, size: tuple[int, int], per_scene: int, workers: int
) -> Iterator[Recorded]:
    if workers <= 1:
        yield from (make_episode(name, seed, index, size, per_scene) for index in indices)
        _table.cache_clear()  # an OpenGL context that is left until Python ends cannot be closed any more
        return
    # Fresh processes: an OpenGL context does not survive a fork. A few episodes ahead of the writer, not all.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting: list[Future[Recorded]] = []
        for index in indices:
            waiting.append(pool.submit(make_episode, name, seed, index, size, per_scene))
            if len(waiting) > 2 * workers:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()


def _check_folder(folder: Path, known: Mapping[str, Any]) -> None:
    from heedful.model_folder import read_json

    place = folder.expanduser() / "meta" / "info.json"
    if place.exists():
        there = read_json(place)
        told = {name: there[name] for name in ("table_set", "table_seed", "table_per_scene") if name in there}
        if told != known:
            raise HeedfulError(
                f"{folder} holds {_words(told) or 'another data set'}, not {_words(known)}: choose another folder"
            )


def _words(known: Mapping[str, Any]) -> str:
    if not known:
        return ""
    many = f" with {known['table_per_scene']} episodes of a scene" if "table_per_scene" in known else ""
    return f"{known.get('table_set')!r} of seed {known.get('table_seed')}{many}"
