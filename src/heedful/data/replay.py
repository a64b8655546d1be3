"""A replay buffer on disk: episodes appended whole, read through memory maps, intact after SIGKILL at any moment.

meta.json       the columns: name, type and shape of one row
column-NN.bin   rows of one column, one behind the other, little-endian
episodes.jsonl  one line for each whole episode: {"rows", ...}; what lies beyond the last line was never added

An episode of S steps takes S + 1 rows, one for each state; its last row has a state alone. So a state is stored once,
not twice as `observation` and `next_observation`, and candidate actions of a state serve both (see `actions.cache`).

Letters: S steps of an episode, A numbers of an action, R rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.atomic import make_folder, sync, write_all, write_file, writing
from heedful.errors import HeedfulError

Array = NDArray[Any]
FORMAT = "heedful-replay-1"
STEP = {"reward": ("<f4", ()), "terminal": ("|u1", ())}
"""What every step has beside observation and action."""


@dataclass
class Episode:
    """One episode of S steps. observations: by name, (S + 1, ...) each, the state after the last step included.

    action (S, A); reward (S,); terminal (S,): whether the task ended there, not whether time ran out. info: what else
    is known of it, as JSON values: "task" (what was asked for), "success", "seed".
    """

    observations: dict[str, Array]
    action: Array
    reward: Array
    terminal: Array
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """S."""
        return len(self.reward)


class ReplayBuffer:
    """Episodes in a folder; a folder that is there is opened as it was left.

    shapes: of one observation by name, (S,) for numbers (kept as float32), (C, H, W) for images (uint8). actions: A.
    One process writes at a time. Raises HeedfulError when the folder holds other columns or is damaged.
    """

    def __init__(self, folder: str | Path, shapes: Mapping[str, Sequence[int]], actions: int) -> None:
        self.folder = Path(folder)
        self.shapes, self.actions = {n: tuple(s) for n, s in shapes.items()}, actions
        self.columns = {
            **{f"observation/{n}": ("|u1" if len(s) == 3 else "<f4", s) for n, s in self.shapes.items()},
            "action": ("<f4", (actions,)),
            **STEP,
        }
        make_folder(self.folder)
        self._describe()
        self.infos = self._read_log()
        self.ends = np.cumsum([info["rows"] for info in self.infos], dtype=np.int64)
        self._maps: dict[str, Array] = {}
        self._check_files()

    @property
    def episodes(self) -> int:
        """How many episodes there are."""
        return len(self.infos)

    @property
    def rows(self) -> int:
        """R: states of all episodes."""
        return int(self.ends[-1]) if len(self.ends) else 0

    # ---- writing

    def add(self, episode: Episode) -> int:
        """Append an episode; its number. Once this returns, it is on the disk.

        Raises HeedfulError naming the episode, the step and the field of what is wrong, or the file that cannot be
        written; the buffer then is as it was.
        """
        return self.extend([episode])

    def extend(self, episodes: Sequence[Episode]) -> int:
        """Append several episodes with one flush to the disk; the number of the first.

        A kill meanwhile leaves none of them, or the first ones, whole. Raises HeedfulError as `add` does.
        """
        number, start = self.episodes, self.rows
        parts = [self._columns_of(episode, number + i) for i, episode in enumerate(episodes)]
        if not parts:
            return number
        columns = {name: np.concatenate([part[name] for part in parts]) for name in self.columns}
        infos = [{"rows": episode.steps + 1, **episode.info} for episode in episodes]
        lines = "".join(json.dumps(info, ensure_ascii=False) + "\n" for info in infos)
        try:
            for name, values in columns.items():
                path = self._path(name)
                with writing(path):
                    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
                    try:
                        os.lseek(descriptor, start * self._width(name), os.SEEK_SET)
                        write_all(descriptor, values.tobytes())
                        os.fsync(descriptor)
                    finally:
                        os.close(descriptor)
            self._append(lines.encode())
        except HeedfulError:
            self._cut(start)
            raise
        self.infos += infos
        self.ends = np.append(self.ends, start + np.cumsum([info["rows"] for info in infos], dtype=np.int64))
        self._maps = {}
        return number

    def truncate(self, episodes: int) -> None:
        """Keep the first `episodes`, as where a run goes back to an earlier checkpoint."""
        if not 0 <= episodes <= self.episodes:
            raise HeedfulError(f"{self.folder} has {self.episodes} episodes; {episodes} cannot be kept")
        kept = "".join(json.dumps(info, ensure_ascii=False) + "\n" for info in self.infos[:episodes])
        write_file(self.folder / "episodes.jsonl", kept.encode())
        self.infos, self.ends, self._maps = self.infos[:episodes], self.ends[:episodes], {}
        self._cut(self.rows)

    # ---- reading

    def column(self, name: str) -> Array:
        """All rows of a column, (R, ...), read from the disk as they are used."""
        if name not in self._maps:
            kind, shape = self.columns[name]
            if self.rows:
                whole = np.memmap(self._path(name), dtype=kind, mode="r", shape=(self.rows, *shape))
            else:
                whole = np.zeros((0, *shape), dtype=kind)
            self._maps[name] = whole
        return self._maps[name]

    def episode(self, number: int) -> Episode:
        """One episode, copied out of the files."""
        end = int(self.ends[number])
        part = slice(end - self.infos[number]["rows"], end)
        steps = slice(part.start, end - 1)
        return Episode(
            {name: np.array(self.column(f"observation/{name}")[part]) for name in self.shapes},
            np.array(self.column("action")[steps]),
            np.array(self.column("reward")[steps]),
            np.array(self.column("terminal")[steps]).astype(bool),
            {key: value for key, value in self.infos[number].items() if key != "rows"},
        )

    # ---- the files

    def _path(self, name: str) -> Path:
        return self.folder / f"column-{list(self.columns).index(name):02d}.bin"

    def _width(self, name: str) -> int:
        kind, shape = self.columns[name]
        return np.dtype(kind).itemsize * int(np.prod(shape, dtype=np.int64))

    def _describe(self) -> None:
        path = self.folder / "meta.json"
        said = {
            "format": FORMAT,
            "columns": [[name, kind, list(s)] for name, (kind, s) in self.columns.items()],
        }
        if not path.exists():
            write_file(path, (json.dumps(said, indent=1) + "\n").encode())
            return
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise HeedfulError(f"cannot read {path}: {error}; delete the folder to collect anew") from error
        if found != said:
            raise HeedfulError(
                f"{path} describes other columns: {found.get('columns')} instead of {said['columns']}; "
                "use another folder for data of this shape"
            )

    def _read_log(self) -> list[dict[str, Any]]:
        """Whole lines; one that a kill left unfinished is cut off, so that the next does not run into it."""
        path = self.folder / "episodes.jsonl"
        if not path.exists():
            return []
        with writing(path):
            data = path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if len(whole) < len(data):
                os.truncate(path, len(whole))
        try:
            return [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise HeedfulError(f"{path} is damaged: {error}; delete {self.folder} to collect anew") from error

    def _check_files(self) -> None:
        for name in self.columns:
            path, wanted = self._path(name), self.rows * self._width(name)
            size = path.stat().st_size if path.exists() else 0
            if size < wanted:
                raise HeedfulError(
                    f"{path} has {size} bytes of {wanted}; delete {self.folder} to collect anew"
                )
        self._cut(self.rows)

    def _append(self, line: bytes) -> None:
        path = self.folder / "episodes.jsonl"
        with writing(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                size = os.fstat(descriptor).st_size
                if size == 0:
                    sync(self.folder)  # the names of all files, before the line that counts on them
                try:
                    write_all(descriptor, line)
                    os.fsync(descriptor)
                except OSError:
                    with suppress(OSError):
                        os.ftruncate(descriptor, size)
                    raise
            finally:
                os.close(descriptor)

    def _cut(self, rows: int) -> None:
        """Give back what lies beyond the last whole episode."""
        for name in self.columns:
            path, wanted = self._path(name), rows * self._width(name)
            if path.exists() and path.stat().st_size > wanted:
                with suppress(OSError):
                    os.truncate(path, wanted)

    # ---- what is refused

    def _columns_of(self, episode: Episode, number: int) -> dict[str, Array]:
        where, steps = f"episode {number}", episode.steps
        if steps < 1:
            raise HeedfulError(f"{where} has no step")
        if set(episode.observations) != set(self.shapes):
            raise HeedfulError(
                f"{where} observes {', '.join(episode.observations) or 'nothing'}; "
                f"{', '.join(self.shapes)} are expected"
            )
        whole: dict[str, Array] = {}
        for name, shape in self.shapes.items():
            whole[f"observation/{name}"] = _shaped(
                episode.observations[name], (steps + 1, *shape), f"{where}, observation {name!r}"
            )
        whole["action"] = _shaped(episode.action, (steps, self.actions), f"{where}, action")
        whole["reward"] = _shaped(episode.reward, (steps,), f"{where}, reward")
        terminal = _shaped(episode.terminal, (steps,), f"{where}, terminal")
        if not set(np.unique(terminal)) <= {0, 1}:
            raise HeedfulError(f"{where}: terminals are yes or no, not {np.unique(terminal)[:5].tolist()}")
        whole["terminal"] = terminal
        out = {}
        for name, values in whole.items():
            kind, shape = self.columns[name]
            typed = values.astype(kind)
            if kind == "|u1" and len(shape) == 3 and not np.array_equal(typed, values):
                raise HeedfulError(f"{where}, {name}: an image is whole numbers from 0 to 255")
            out[name] = np.concatenate([typed, np.zeros((1, *shape), kind)]) if len(typed) == steps else typed
        return out


def _shaped(values: Array, shape: tuple[int, ...], what: str) -> Array:
    found = np.asarray(values)
    if found.shape != shape:
        raise HeedfulError(f"{what} has the shape {found.shape}; {shape} is expected")
    if found.dtype.kind == "f":
        bad = ~np.isfinite(found)
        if bad.any():
            place = np.argwhere(bad)[0].tolist()
            raise HeedfulError(
                f"{what}, step {place[0]}: {found[tuple(place)]} is not finite; correct or drop the episode"
            )
    return found
