"""The tables of meta/ of a LeRobotDataset: one row an episode, and the instructions. What cannot be read is named."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from heedful.data.episodes import Info
from heedful.data.episodes.meta import read_lines
from heedful.data.episodes.tables import open_table, plain_values
from heedful.errors import HeedfulError

FIXED = ("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index")
NEEDED = (
    *("episode_index", "length", "data/chunk_index", "data/file_index", "dataset_from_index"),
    "tasks",
)
VIDEO_PLACE = ("chunk_index", "file_index", "from_timestamp")
Rows = dict[str, list[Any]]


def read_rows(
    files: list[Path], info: Info, folder: Path, with_stats: bool = False
) -> tuple[Rows, list[str], dict[int, str]]:
    """(columns of meta/episodes, one value an episode; files that cannot be read; {episode: why its row cannot be}).

    What cannot be read is None in the columns. Raises HeedfulError where rows are twice or out of order.
    """
    rows: Rows = {}
    broken: list[str] = []
    lost: dict[int, str] = {}
    order: list[int] = []
    for file in files:
        try:
            values, bad = _rows_of(file, info, with_stats)
        except HeedfulError as error:
            broken.append(str(error))
            continue
        for name in {**rows, **values}:
            rows.setdefault(name, [None] * len(order))
            rows[name] += values.get(name, [None] * len(values["episode_index"]))
        order += values["episode_index"]
        lost |= bad
    total = info.total_episodes
    told = (
        f"{folder}: meta/info.json counts {total} episodes, and meta/episodes has rows of {len(order)}, not 0, 1, 2 "
        "and on: a recording that was stopped before it was finalised, or rows lost in editing"
    )
    order = order[:total]
    if None in order or any(a >= b for a, b in pairwise(order)):
        raise HeedfulError(told)
    missing = set(range(total)) - set(order)
    lost |= {i: f"episode {i} has no row: {'; '.join(broken) or told}" for i in missing}
    at = {i: k for k, i in enumerate(order)}
    names = rows or dict.fromkeys(FIXED)
    found = {n: [rows[n][at[i]] if i in at else None for i in range(total)] for n in names}
    return found, broken, {i: lost[i] for i in range(total) if i in lost}


def _rows_of(file: Path, info: Info, with_stats: bool) -> tuple[Rows, dict[int, str]]:
    """(columns of one file, {episode: what is wrong with its row})."""
    opened = open_table(file, "rows of meta/episodes")
    wanted = [n for n in opened.schema_arrow.names if with_stats or not n.startswith("stats/")]
    missing = [name for name in _needed(wanted, info) if name not in wanted]
    if missing:
        raise HeedfulError(
            f"{file} has no column {missing[0]!r}, without which the frames of its episodes are not found: restore the "
            "file from a copy, or make the data set again from its source (heedful demos convert)"
        )
    try:
        table = opened.read(columns=wanted)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise HeedfulError(f"{file} is damaged: {str(error).splitlines()[0]}") from error
    values: Rows = {}
    bad: dict[int, str] = {}
    episodes = table.column("episode_index").to_pylist()
    for name in wanted:
        values[name], wrong = plain_values(table.column(name))
        if name in NEEDED[:-1]:
            wrong |= {row: "has no value" for row, value in enumerate(values[name]) if value is None}
        for row, why in wrong.items():
            bad.setdefault(episodes[row], f"{file}: {name!r} of episode {episodes[row]} {why}")
    return values, bad


def _needed(names: list[str], info: Info) -> list[str]:
    """The columns that a file must have. An episode may lack a camera; one that has it must say where it is."""
    needed = list(NEEDED)
    for camera in info.cameras:
        place = [f"videos/{camera}/{part}" for part in VIDEO_PLACE]
        needed += place if any(name in names for name in place) else []
    return needed


def read_episode_lines(folder: Path) -> Rows:
    """meta/episodes.jsonl of v2 as columns. Raises HeedfulError naming the file and what is wrong."""
    file = folder / "meta" / "episodes.jsonl"
    lines = read_lines(file)
    for name in ("episode_index", "length"):
        if any(not isinstance(row.get(name), int) for row in lines):
            raise HeedfulError(f"{file}: every line needs {name!r}, a whole number")
    lines.sort(key=lambda row: row["episode_index"])
    if [row["episode_index"] for row in lines] != list(range(len(lines))):
        raise HeedfulError(f"{file}: the episodes are not 0, 1, 2 and on")
    names = dict.fromkeys(name for row in lines for name in row)
    return {name: [row.get(name) for row in lines] for name in (*FIXED[:3], *names)}


def read_tasks(folder: Path, v3: bool) -> tuple[dict[str, int], list[str]]:
    """({instruction: task_index}, what is wrong with those that are left out: they are not UTF-8 text).

    Raises HeedfulError naming the file where it cannot be read at all.
    """
    if not v3:
        file = folder / "meta" / "tasks.jsonl"
        lines = read_lines(file)
        if any("task" not in row or not isinstance(row.get("task_index"), int) for row in lines):
            raise HeedfulError(f"{file}: every line needs 'task' and 'task_index'")
        return {str(row["task"]): row["task_index"] for row in lines}, []
    file = folder / "meta" / "tasks.parquet"
    opened = open_table(file, "the instructions")
    try:
        table = opened.read()
    except (pa.ArrowException, OSError) as error:
        raise HeedfulError(f"{file} is damaged: {str(error).splitlines()[0]}") from error
    text = [n for n in table.schema.names if n != "task_index"]
    if "task_index" not in table.schema.names or not text:
        raise HeedfulError(
            f"{file} needs a column task_index and the instructions; it has {table.schema.names}"
        )
    numbers = table.column("task_index").to_pylist()
    words, bad = plain_values(table.column(text[0]))
    told = [f"{file}: the instruction of task_index {numbers[row]} {why}" for row, why in bad.items()]
    return {
        word or "": number
        for row, (word, number) in enumerate(zip(words, numbers, strict=True))
        if row not in bad
    }, told
