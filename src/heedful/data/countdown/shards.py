"""Data sets of streams as Parquet shards, made by any number of workers and never all in memory.

A folder holds `train-00000.parquet` and so on; each shard has the samples of its own numbers, a pure function of the
settings, so one worker or eight, one start or five give the same bytes. A shard is done when the file of its name
exists: the same command again makes what is missing. Workers are threads; the compiled code runs without Python's lock.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heedful.atomic import write_file
from heedful.data.countdown.game import MOST, OPERATORS, STRATEGIES, tree_size
from heedful.data.countdown.instances import Drawn, Instances, draw
from heedful.data.countdown.streams import Traces, survey, traces
from heedful.errors import HeedfulError

if TYPE_CHECKING:
    import pyarrow as pa

    from heedful.run import Run

# Only six numbers have searches longer than this; one of them could take hundreds of megabytes of text.
LIMIT = 50_000
# Names of columns; pyarrow's own annotations know only true and false.
DICTIONARY: Any = ["strategy"]
STATISTICS: Any = ["index"]


@dataclass(frozen=True)
class ShardPlan:
    """What a data set holds: samples 0 to `samples` - 1 of a side, `shard` of them in a file."""

    instances: Instances
    side: str
    samples: int
    shard: int = 10_000
    text: bool = True
    tokens: bool = False
    difficulty: bool = False
    legacy: bool = False
    limit: int = LIMIT

    @property
    def shards(self) -> int:
        """How many files."""
        return -(-self.samples // self.shard)

    def path(self, folder: Path, number: int) -> Path:
        """Where shard `number` lies."""
        return folder / f"{self.side}-{number:05}.parquet"


def make_shards(
    plan: ShardPlan, run: Run, *, workers: int = 1, on_done: Callable[[int], None] = lambda done: None
) -> bool:
    """Make the shards that are missing from the run's folder; False when `on_done` stopped it.

    on_done: called with how many shards there are, at the start and after each; where it raises StopIteration, the
    shards being made are finished and no more are begun.
    Raises HeedfulError when the settings allow no problem, or the disk is full; finished shards stay.
    """
    missing = [n for n in range(plan.shards) if not plan.path(run.folder, n).exists()]
    done, rest, going = plan.shards - len(missing), iter(missing), set[Future[None]]()
    with ThreadPoolExecutor(workers) as pool:
        try:
            on_done(done)
            going = {pool.submit(make_shard, plan, run.folder, n) for n in islice(rest, workers)}
            while going:
                finished, going = wait(going, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                    done += 1
                    going |= {pool.submit(make_shard, plan, run.folder, n) for n in islice(rest, 1)}
                    on_done(done)
        except StopIteration:
            return False
    return True


def make_shard(plan: ShardPlan, folder: Path, number: int) -> None:
    """Write one shard."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    start = number * plan.shard
    drawn = draw(plan.instances, plan.side, start, min(plan.shard, plan.samples - start))
    schema = _schema(plan)
    sink = pa.BufferOutputStream()
    first = 0
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=DICTIONARY,
        write_statistics=STATISTICS,
    ) as writer:
        for part in traces(
            drawn.problems,
            drawn.strategies,
            drawn.seeds,
            legacy=plan.legacy,
            cap=plan.instances.cap,
            limit=plan.limit,
            text=plan.text,
            tokens=plan.tokens,
        ):
            rows = slice(first, first + len(part.explored))
            some = Drawn(*(column[rows] for column in drawn))
            writer.write_table(pa.table(_columns(plan, some, part, start + first), schema=schema))
            first = rows.stop
    write_file(plan.path(folder, number), sink.getvalue().to_pybytes())


def read_shards(
    folder: str | Path, side: str, columns: Sequence[str] | None = None, *, batch: int = 1024
) -> Iterator[pa.RecordBatch]:
    """The rows of a side in order, `batch` at a time, from a folder of shards.

    Raises HeedfulError when there are none, or one cannot be read.
    """
    import pyarrow.parquet as pq

    files = sorted(Path(folder).glob(f"{side}-*.parquet"))
    if not files:
        raise HeedfulError(f"{folder} has no shards of the side {side}")
    for file in files:
        try:
            with pq.ParquetFile(file) as opened:
                yield from opened.iter_batches(batch, columns=list(columns) if columns else None)
        except (OSError, ValueError) as error:
            raise HeedfulError(f"{file} cannot be read: {error}; delete it and make it again") from error


def summary(plan: ShardPlan, folder: Path) -> dict[str, Any]:
    """How many samples there are, how many are solved, by strategy too, and how long the streams are."""
    counts, solved = np.zeros((2, len(STRATEGIES)), np.int64)
    totals = {"explored": 0}
    totals |= {name: 0 for name, made in (("characters", plan.text), ("tokens", plan.tokens)) if made}
    columns = ["strategy", "solved", *totals]
    for batch in read_shards(folder, plan.side, columns, batch=2**16):
        which = np.array([STRATEGIES.index(name) for name in batch.column("strategy").to_pylist()])
        won = batch.column("solved").to_numpy(zero_copy_only=False)
        counts += np.bincount(which, minlength=len(STRATEGIES))
        solved += np.bincount(which[won], minlength=len(STRATEGIES))
        for column in totals:
            totals[column] += int(batch.column(column).to_numpy().sum())
    return {
        "samples": int(counts.sum()),
        "solved": float(solved.sum() / counts.sum()),
        "solved_by_strategy": {
            name: won / count
            for name, won, count in zip(STRATEGIES, solved.tolist(), counts.tolist())
            if count
        },
        **{f"mean_{name}": total / int(counts.sum()) for name, total in totals.items()},
    }


def _schema(plan: ShardPlan) -> pa.Schema:
    import pyarrow as pa

    fields: list[tuple[str, Any]] = [
        ("index", pa.int64()),
        ("target", pa.int64()),
        ("nums", pa.list_(pa.int64())),
        ("strategy", pa.string()),
        ("seed", pa.int64()),
        ("solved", pa.bool_()),
        ("explored", pa.int64()),
        ("rating", pa.float64()),
        ("solution", pa.list_(pa.string())),
    ]
    if plan.difficulty:
        fields += [("solutions", pa.int64()), ("ends", pa.int64()), ("difficult", pa.bool_())]
        fields.append(("explored_by", pa.list_(pa.int64(), len(STRATEGIES))))
    if plan.text:
        fields += [("characters", pa.int64()), ("stream", pa.large_string())]
    if plan.tokens:
        fields += [("tokens", pa.int64()), ("ids", pa.large_list(pa.int16()))]
    settings = json.dumps(dataclasses.asdict(plan), sort_keys=True)
    return pa.schema(fields, metadata={"heedful.countdown": settings})


def _columns(plan: ShardPlan, drawn: Drawn, made: Traces, start: int) -> dict[str, Any]:
    """The rows of some samples as Arrow arrays; text and tokens are not copied."""
    import pyarrow as pa

    count = len(drawn.problems)
    sizes = drawn.problems[:, 1]
    every = np.arange(drawn.problems.shape[1] - 2) < sizes[:, None]
    solved = made.solved.astype(bool)
    most = np.array([tree_size(size) for size in range(MOST + 1)])[sizes]
    used = np.arange(drawn.solutions.shape[1]) < sizes[:, None] - 1
    operations = [
        f"{left}{OPERATORS[operator]}{right}={result}"
        for operator, left, right, result in drawn.solutions[used].tolist()
    ]
    columns: dict[str, Any] = {
        "index": np.arange(start, start + count),
        "target": drawn.problems[:, 0],
        "nums": pa.ListArray.from_arrays(_offsets(np.cumsum(sizes), np.int32), drawn.problems[:, 2:][every]),
        "strategy": pa.array(np.array(STRATEGIES)[drawn.strategies]),
        "seed": drawn.seeds,
        "solved": solved,
        "explored": made.explored,
        "rating": np.where(solved, np.maximum(0, 1 - (made.explored + 1) / most), 0),
        "solution": pa.ListArray.from_arrays(_offsets(np.cumsum(sizes - 1), np.int32), pa.array(operations)),
    }
    if plan.difficulty:
        options = {"cap": plan.instances.cap, "legacy": plan.legacy}
        leaves, explored_by = survey(drawn.problems, drawn.seeds, **options)
        columns |= {"solutions": leaves[:, 0], "ends": leaves[:, 1], "difficult": ~explored_by.any(axis=1)}
        columns["explored_by"] = pa.FixedSizeListArray.from_arrays(explored_by.ravel(), len(STRATEGIES))
    if plan.text:
        columns["characters"] = np.diff(made.text_ends, prepend=0)
        ends = pa.py_buffer(_offsets(made.text_ends, np.int64))
        columns["stream"] = pa.LargeStringArray.from_buffers(count, ends, pa.py_buffer(made.text))
    if plan.tokens:
        columns["tokens"] = np.diff(made.token_ends, prepend=0)
        columns["ids"] = pa.LargeListArray.from_arrays(_offsets(made.token_ends, np.int64), made.tokens)
    return columns


def _offsets(ends: np.ndarray, kind: type) -> np.ndarray:
    return np.concatenate([np.zeros(1, kind), ends.astype(kind)])
