"""A run: one folder of finished stages. A stage is done when the file of its final name exists.

config.yaml     the settings; the same command again resumes, a changed one is refused with the difference
manifest.json   versions, commit, data sha256, device, seed, command, start times
metrics.jsonl   one row per logged step: {"stage", "step", "time", ...}
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import platform
import shlex
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.atomic import make_folder, write_file, writing
from heedful.config import content_hash, defaults_of, difference, dump_yaml, load_yaml, to_plain
from heedful.errors import HeedfulError
from heedful.manifest import commit, device_name, sha256_of, versions
from heedful.processes import gather, join_processes

if TYPE_CHECKING:
    from torch import Generator

FORMATS = (".json", ".jsonl", ".safetensors")


def derive_seed(seed: int, *parts: str | int) -> int:
    """A 63-bit seed that is a pure function of the run's seed and what it is for: (stage, step, ...)."""
    text = json.dumps([seed, *parts]).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


class Run:
    """A folder being written by this process; make one with `open_run`. A context manager.

    `rank` and `world` number the processes of a torchrun job; only rank 0 writes.
    """

    def __init__(
        self, folder: Path, config: dict[str, Any], seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self.folder, self.config, self.seed, self.rank, self.world = folder, config, seed, rank, world
        self._release: Callable[[], None] = _nothing_held
        self._earlier = {_row_key(row) for row in read_metrics(folder)} if rank == 0 else set()

    def path(self, name: str | Path) -> Path:
        """Where `name` lies. Raises `HeedfulError` for a name that leads out of the folder."""
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise HeedfulError(f"{str(name)!r} leads out of the run folder {self.folder}")
        return self.folder / name

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` returned the first time: rank 0 calls it, every later call reads the file.

        The suffix of `name` is the format: `.json`, `.jsonl` (a list of rows) or `.safetensors` (tensors by
        name, on the CPU). The value is always the one read back, so a resumed program sees what the first
        one saw. A long stage loses little to a kill when made in parts: `round0/samples.part-0003.jsonl`.
        Raises `HeedfulError` when the file cannot be written or read back.
        """
        path = self.path(name)
        if path.suffix not in FORMATS:
            raise HeedfulError(f"once({name!r}): the name must end in {', '.join(FORMATS)}")
        if self.rank == 0 and not path.exists():
            write_file(path, _encode(path, make()))
        gather(None, self.world)
        if not path.exists():
            raise HeedfulError(
                f"process {self.rank} does not see {path}: all processes need one shared file system"
            )
        return _decode(path)

    def there(self, name: str) -> bool:
        """Whether a file of the run exists, as rank 0 sees it: all processes must agree on what is left to do."""
        return gather(self.path(name).exists(), self.world)[0]

    def in_parts(
        self,
        name: str,
        count: int,
        size: int,
        part: Callable[[int], Any],
        *,
        each: Callable[[int, list[Any]], None] | None = None,
    ) -> list[Any]:
        """The rows of `<name>.jsonl`, `count` of them made `size` at a time, so that a kill costs one part.

        part(first): the rows from `first` on. each(first, rows): called after every part that was not done before the
        whole was. The parts are removed when the whole is there.
        """
        rows: list[Any] = []
        for first in range(0, 0 if self.there(f"{name}.jsonl") else count, size):
            made = self.once(f"{name}.part-{first // size:04d}.jsonl", lambda first=first: part(first))
            if each is not None:
                each(first, made)
            rows += made
        rows = self.once(f"{name}.jsonl", lambda: rows)
        if self.rank == 0:
            for left in self.path(name).parent.glob(f"{self.path(name).name}.part-*.jsonl"):
                left.unlink()
        return rows

    def log(self, step: int, metrics: Mapping[str, Any], *, stage: str = "") -> None:
        """Append one row to metrics.jsonl, whole or not at all. Non-finite values become null.

        A row that an earlier start of this run wrote (same stage, step and names) is not written again.
        """
        row = {"stage": stage, "step": step, "time": round(time.time(), 3)}
        row |= {key: _number(value) for key, value in metrics.items()}
        if self.rank != 0 or _row_key(row) in self._earlier:
            return
        path = self.folder / "metrics.jsonl"
        data = (json.dumps(row, ensure_ascii=False) + "\n").encode()
        with writing(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                size = os.fstat(descriptor).st_size
                written = os.write(descriptor, data)
                if written < len(data):
                    os.ftruncate(descriptor, size)
                    raise OSError(28, "No space left on device")
            finally:
                os.close(descriptor)

    def drop_metrics(self, stage: str, from_step: int) -> int:
        """Remove the stage's rows with `step >= from_step`; returns how many. For a stage that is redone."""
        if self.rank != 0:
            return 0
        rows = list(read_metrics(self.folder))
        keep = [row for row in rows if row.get("stage") != stage or row.get("step", -1) < from_step]
        if len(keep) < len(rows):
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in keep)
            write_file(self.folder / "metrics.jsonl", "".join(lines).encode())
        self._earlier = {key for key in self._earlier if key[0] != stage or key[1] < from_step}
        return len(rows) - len(keep)

    def sync_metrics(self) -> None:
        """Flush metrics.jsonl to the disk, so that a checkpoint never outlives the rows that led to it."""
        path = self.folder / "metrics.jsonl"
        if self.rank == 0 and path.exists():
            with writing(path):
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def seed_for(self, *parts: str | int) -> int:
        """`derive_seed` of this run's seed."""
        return derive_seed(self.seed, *parts)

    def generator(self, *parts: str | int, device: str = "cpu") -> Generator:
        """A torch generator whose stream is a pure function of (seed, *parts)."""
        import torch

        return torch.Generator(device).manual_seed(self.seed_for(*parts))

    def close(self) -> None:
        """Let other processes open the folder."""
        self._release()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_run(
    folder: str | Path,
    config: Any,
    *,
    seed: int,
    command: str | Sequence[str] | None = None,
    data: Sequence[str | Path] = (),
    volatile: Sequence[str] = (),
) -> Run:
    """Open `folder` for writing, new or to resume.

    config: a dataclass or plain values. A run that began before an option existed has it at its default, or at its
    metadata "before" where the default does something else than was done then. volatile: dotted names of settings that
    may change between starts. command: what to type to start it again; the program's own arguments by default. data:
    the files whose sha256 the manifest keeps; names that are no files are kept as they are.

    Raises `HeedfulError` when another process has the folder open, when the config, the seed or a data file
    differs from the one the run began with (every difference is listed), or when it cannot be written. A folder in
    which nothing has been done yet takes on other settings and data: the run begins anew.
    """
    folder = Path(folder)
    rank, world = join_processes()
    defaults = defaults_of(config)
    config = {str(key): value for key, value in to_plain(config).items()}
    release: Callable[[], None] = _nothing_held
    if rank == 0:
        make_folder(folder)
        release = lock_folder(folder)
        try:
            _begin(folder, config, defaults, seed, command, data, volatile)
            _repair_metrics(folder / "metrics.jsonl")
        except BaseException:
            release()
            raise
    gather(None, world)
    if not (folder / "config.yaml").exists():
        release()
        raise HeedfulError(f"process {rank} does not see {folder}: all processes need one shared file system")
    run = Run(folder, config, seed, rank, world)
    run._release = release
    weakref.finalize(run, release)
    return run


def read_metrics(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of metrics.jsonl in order; a line torn by a kill is passed over. No file, no rows."""
    path = Path(folder) / "metrics.jsonl"
    if not path.exists():
        return
    with path.open("rb") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row


def _begin(
    folder: Path,
    config: dict[str, Any],
    defaults: Mapping[str, Any],
    seed: int,
    command: str | Sequence[str] | None,
    data: Sequence[str | Path],
    volatile: Sequence[str],
) -> None:
    """Compare with what the run began with, then write config.yaml and manifest.json."""
    if not isinstance(command, str):
        command = shlex.join(command or sys.argv)
    hashes = {str(name): sha256_of(Path(name)) for name in data}
    manifest: dict[str, Any] = {
        "versions": versions(),
        "commit": commit(),
        "command": command,
        "device": device_name(),
        "seed": seed,
        "data": hashes,
        "config_hash": content_hash(config),
        "started": [],
    }
    config_path, manifest_path = folder / "config.yaml", folder / "manifest.json"
    before: dict[str, Any] = {}
    if manifest_path.exists():
        before = load_yaml(manifest_path)
    if config_path.exists() and before:
        lines = difference({**defaults, **load_yaml(config_path)}, config, volatile)
        lines += difference({"seed": before.get("seed", seed)}, {"seed": seed})
        lines += [
            f"data file {name} has changed since the run began"
            for name, sha in hashes.items()
            if before.get("data", {}).get(name, sha) != sha
        ]
        if lines and not _untouched(folder):
            listed = "\n  ".join(lines)
            raise HeedfulError(
                f"{folder} holds a run with other settings:\n  {listed}\n"
                "Use the old settings to resume it, or another output folder for the new ones."
            )
        if not lines:
            manifest = {**manifest, **before, "config_hash": manifest["config_hash"]}
    start = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "command": command, "versions": versions()}
    manifest["started"] = [*manifest["started"], start]
    write_file(manifest_path, (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())
    text = dump_yaml(config).encode()
    if not config_path.exists() or config_path.read_bytes() != text:
        write_file(config_path, text)


def _untouched(folder: Path) -> bool:
    """Whether a run folder holds nothing but what opening it and reading data leave there."""
    metrics = folder / "metrics.jsonl"
    kept = {"config.yaml", "manifest.json", ".lock", "cache", "sessions.json", metrics.name}
    empty = not metrics.exists() or not metrics.stat().st_size
    return empty and all(path.name in kept for path in folder.iterdir())


def _nothing_held() -> None:
    """What closing does where no lock was taken: rank 0 alone takes it."""


def lock_folder(folder: Path) -> Callable[[], None]:
    """Hold a folder that is there for this process, until what is returned is called or the process ends.

    Raises `HeedfulError` naming who has it where another process does.
    """
    path = folder / ".lock"
    with writing(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            raise HeedfulError(f"cannot lock {path}: {error.strerror}; use a local folder") from error
        raise HeedfulError(
            f"{folder} is in use by {owner}: wait for it to end, or choose another output folder"
        ) from None
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
    except OSError as error:
        os.close(descriptor)
        raise HeedfulError(f"cannot write {path}: {error.strerror}") from error
    open_descriptors = [descriptor]

    def release() -> None:
        while open_descriptors:
            os.close(open_descriptors.pop())

    return release


def _repair_metrics(path: Path) -> None:
    """Cut off a last line that a kill left unfinished."""
    if not path.exists():
        return
    with writing(path):
        descriptor = os.open(path, os.O_RDWR)
        try:
            size = end = os.fstat(descriptor).st_size
            while end > 0:
                begin = max(0, end - 65536)
                newline = os.pread(descriptor, end - begin, begin).rfind(b"\n")
                if newline >= 0:
                    end = begin + newline + 1
                    break
                end = begin
            if end < size:
                os.ftruncate(descriptor, end)
        finally:
            os.close(descriptor)


def _row_key(row: Mapping[str, Any]) -> tuple[str, int, str]:
    names = sys.intern(" ".join(sorted(key for key in row if key not in ("stage", "step", "time"))))
    return str(row.get("stage", "")), int(row.get("step", -1)), names


def _number(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _encode(path: Path, value: Any) -> bytes:
    if path.suffix == ".safetensors":
        from safetensors.torch import save

        return save({name: tensor.detach().cpu().contiguous() for name, tensor in value.items()})
    if path.suffix == ".jsonl":
        if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
            raise TypeError(f"{path.name}: a list of rows is needed, not {type(value).__name__}")
        return b"".join(_json(path, row) for row in value)
    return _json(path, value)


def _json(path: Path, value: Any) -> bytes:
    try:
        return (json.dumps(value, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(value) + "\n").encode()
    except TypeError as error:
        raise TypeError(f"{path.name}: {error}") from error


def _decode(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.suffix == ".jsonl":
            with path.open("rb") as lines:
                return [json.loads(line) for line in lines]
        return json.loads(path.read_bytes())
    except Exception as error:
        raise HeedfulError(
            f"{path} cannot be read back ({error}); delete it and run the same command again"
        ) from error
