"""`heedful search streams | verify | generate`: streams of search for Countdown (Gandhi et al. 2024, arXiv 2404.03683).

Departures from the paper's code, each on purpose; --legacy undoes the first, for comparisons to the byte:

1. A breadth-first search does not visit a finished leaf again, which was more than half of its states.
2. An optimal path takes each operand once, also where two are equal.
3. The split is by problem (target and inputs in any order), not by the list of operations that solves it.
4. The verifier replays every state on the way to the goal from the root, and evaluates no text.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from typing import BinaryIO

    from heedful.data.countdown.shards import ShardPlan

VOLATILE = ("workers", "quiet", "json")
CHUNK = 1024
SHOWN = 20


@dataclass(frozen=True)
class Streams:
    """Write the stream of search of every row of a file: what one of twelve symbolic strategies does on its problem."""

    problems: str
    """Rows with `target`, `nums` (2 to 6 numbers), `strategy` and `seed` (may be null): .jsonl or Parquet."""
    out: str = ""
    """Where to write the rows with `stream`, `solved` and `explored`, as .jsonl; the default is standard output."""
    legacy: bool = False
    """As the paper's code writes them: breadth-first search visits finished leaves again."""
    language: Literal["text", "compact"] = "text"
    """The paper's text, or the compact language with one token for a number."""
    cap: int = 0
    """The largest result that is a legal move; 0 is no limit."""
    limit: int = 0
    """Most operations explored; the stream then breaks off. 0 is no limit."""


@dataclass(frozen=True)
class Verify:
    """Check streams, a model's too: is the goal really reached, what would the paper's code say, what went wrong."""

    file: Positional[Annotated[str, arg(metavar="FILE")]]
    """Rows with `target`, `nums` and `stream` (the paper's text or the compact language): .jsonl or Parquet."""
    out: str = ""
    """Where to write the rows with the verdicts, as .jsonl; the default is standard output."""


@dataclass(frozen=True)
class Generate:
    """Draw problems, search them and write Parquet shards. The same command again makes what is missing."""

    out: str = "runs/countdown"
    """The folder of the shards."""
    samples: int = 10_000
    """How many."""
    side: Literal["train", "heldout-inputs", "heldout-targets"] = "train"
    """Problems to learn from, held-out inputs of the same targets, or held-out targets."""
    seed: int = 0
    """Another seed gives other samples, never ones of another side."""
    numbers: tuple[int, int] = (4, 4)
    """Fewest and most numbers of a problem, 2 to 6."""
    inputs: tuple[int, int] = (1, 99)
    """The smallest and the largest number."""
    targets: tuple[int, int] = (10, 100)
    """The smallest and the largest target."""
    cap: int = 0
    """The largest result that is a legal move; 0 is no limit."""
    strategy: str = "mixture"
    """`mixture` (the paper's), or one of the twelve, such as `dfs-sum` or `bfs-mult-3`."""
    beams: int = 5
    """The widest beam in the mixture."""
    held_targets: float = 0.1
    """Share of the targets that are held out."""
    held_inputs: float = 0.1
    """Share of the other problems that are held out."""
    language: Literal["text", "compact", "both"] = "text"
    """Text in the column `stream`, token ids in the column `ids`, or both."""
    difficulty: bool = False
    """Also count all solutions of each problem and run all twelve strategies on it."""
    legacy: bool = False
    """Streams as the paper's code writes them: breadth-first search visits finished leaves again."""
    limit: int = 50_000
    """Most operations a search explores; only six numbers come that far. 0 is no limit."""
    shard: int = 10_000
    """Samples in a file."""
    workers: int = 1
    """Threads; the files are the same for any number."""
    json: bool = False
    """Print the summary as JSON."""
    quiet: bool = False
    """Print nothing but errors."""


def streams_command(options: Streams) -> int:
    """Run `heedful search streams`."""
    if options.cap < 0 or options.limit < 0:
        raise HeedfulError("--cap and --limit must be 0 or more")
    check_rows(options.problems, _task_fault)
    from heedful.data.countdown.streams import Task, streams
    from heedful.data.countdown.vocabulary import TOKENS

    def made(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        tasks = [Task(row["target"], row["nums"], row["strategy"], row.get("seed") or 0) for row in rows]
        done = streams(tasks, legacy=options.legacy, cap=options.cap, limit=options.limit)
        for row, one in zip(rows, done, strict=True):
            compact = " ".join(TOKENS[token] for token in one.tokens[1:-1])
            text = compact if options.language == "compact" else one.text
            yield {**row, "stream": text, "solved": one.solved, "explored": one.explored}

    count = _write(options.problems, options.out, made)
    if options.out:
        print(f"{count:,} streams in {options.out}", file=sys.stderr)
    return 0


def verify_command(options: Verify) -> int:
    """Run `heedful search verify`."""
    check_rows(options.file, stream_fault)
    totals: dict[str, float] = {}

    def made(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for row in rows:
            verdicts = verdicts_of(row["stream"], row["target"], row["nums"])
            counted = {
                "strict": verdicts["strict"],
                "legacy": verdicts["legacy"],
                "strict_rated": verdicts["rating"] > 0,
                "legacy_rated": verdicts["legacy_rating"] > 0,
                **verdicts["errors"],
            }
            for name, value in counted.items():
                totals[name] = totals.get(name, 0) + value
            yield {**row, **verdicts}

    count = _write(options.file, options.out, made)
    if count:
        share = {name: f"{100 * total / count:.1f}%" for name, total in totals.items()}
        errors = ", ".join(f"{kind} {totals[kind] / count:.2f}" for kind in list(totals)[4:])
        print(
            f"{count:,} streams: strict {share['strict']} (rated above 0: {share['strict_rated']}), "
            f"as the paper's code {share['legacy']} ({share['legacy_rated']})\nerrors in a stream: {errors}",
            file=sys.stderr,
        )
    return 0


def verdicts_of(stream: str, target: int, nums: list[int]) -> dict[str, Any]:
    """What `heedful search verify` adds to a row: both verdicts with reasons and ratings, and the error census."""
    from heedful.data.countdown import codec
    from heedful.data.countdown.paper_verdict import paper_verdict
    from heedful.data.countdown.replay import replay

    if codec.is_compact(stream):
        stream = codec.decode(stream, lenient=True)
    strict, legacy = replay(stream, target, nums), paper_verdict(stream)
    return {
        "strict": strict.solved,
        "reason": strict.reason,
        "rating": strict.rating,
        "legacy": legacy.accepted,
        "legacy_reason": "" if legacy.accepted else legacy.reason,
        "legacy_rating": legacy.rating,
        "explored": strict.explored,
        "nodes": len(strict.nodes),
        "errors": strict.census(),
    }


def generate_command(options: Generate) -> int:
    """Run `heedful search generate`."""
    from heedful.data.countdown.shards import make_shards, summary
    from heedful.progress import Progress
    from heedful.run import open_run
    from heedful.signals import leave_on, noted_signals

    plan = shard_plan(options)
    with (
        open_run(options.out, options, seed=options.seed, volatile=VOLATILE) as run,
        noted_signals() as arrived,
    ):
        began, first = time.monotonic(), -1
        with Progress("shards", plan.shards, unit="samples", quiet=options.quiet) as progress:

            def told(done: int) -> None:
                nonlocal first
                first = done if first < 0 else first
                speed = (done - first) * plan.shard / max(1e-9, time.monotonic() - began)
                progress.show(done, f"{speed:,.0f} samples/s")
                if arrived:
                    raise StopIteration

            if not make_shards(plan, run, workers=options.workers, on_done=told):
                leave_on(arrived[0])
        result = run.once("result.json", lambda: summary(plan, run.folder))
    if options.json:
        print(json.dumps(result))
    elif not options.quiet:
        print(f"{result['samples']:,} samples, {100 * result['solved']:.1f}% solved, in {options.out}")
    return 0


def shard_plan(options: Generate) -> ShardPlan:
    """The options as a plan. Raises HeedfulError with what is wrong."""
    from heedful.data.countdown.instances import Instances
    from heedful.data.countdown.shards import ShardPlan

    least = {"samples": 1, "shard": 1, "workers": 1, "limit": 0, "cap": 0}
    wrong = [
        f"--{name} must be at least {low}" for name, low in least.items() if getattr(options, name) < low
    ]
    if wrong:
        raise HeedfulError("; ".join(wrong))
    return ShardPlan(
        Instances(
            options.seed,
            options.numbers,
            options.inputs,
            options.targets,
            options.cap,
            options.strategy,
            options.beams,
            options.held_targets,
            options.held_inputs,
        ),
        options.side,
        options.samples,
        options.shard,
        options.language != "compact",
        options.language != "text",
        options.difficulty,
        options.legacy,
        options.limit,
    )


COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "streams": (Streams, streams_command),
    "verify": (Verify, verify_command),
    "generate": (Generate, generate_command),
}


# ---- rows


def check_rows(path: str, fault: Callable[[dict[str, Any]], tuple[str, str] | None]) -> None:
    """Read a file through and raise HeedfulError with everything that is wrong with its rows, the first 20 shown."""
    from heedful.data.formats import scan
    from heedful.data.problems import Problem

    shown: list[str] = []
    wrong = count = 0
    for item in scan(path):
        found = list(item.problems)
        if item.row is not None:
            count += 1
            told = fault(item.row)
            found += [Problem(path, item.line, *told)] if told else []
        wrong += len(found)
        shown += [str(problem) for problem in found][: SHOWN - len(shown)]
    if wrong > len(shown):
        shown.append(f"… and {wrong - len(shown):,} more")
    if not count and not wrong:
        shown.append(f"{path}: has no rows")
    if shown:
        raise HeedfulError("\n".join(shown))


def _missing(row: dict[str, Any], *names: str) -> tuple[str, str] | None:
    return next(((name, "is missing") for name in names if name not in row), None)


def _task_fault(row: dict[str, Any]) -> tuple[str, str] | None:
    from heedful.data.countdown.game import STRATEGIES, fault

    known = row.get("strategy")
    odd = "strategy", f"must be one of {', '.join(STRATEGIES)}"
    return (
        _missing(row, "target", "nums", "strategy")
        or (None if isinstance(known, str) and known else odd)
        or fault(row["target"], row["nums"], known or "", row.get("seed"))
    )


def stream_fault(row: dict[str, Any]) -> tuple[str, str] | None:
    """(field, what is wrong with it) of a row of target, nums and stream, or None."""
    from heedful.data.countdown.game import fault

    odd = None if isinstance(row.get("stream"), str) else ("stream", "must be text")
    return _missing(row, "target", "nums", "stream") or odd or fault(row["target"], row["nums"])


def _write(path: str, out: str, made: Callable[[list[dict[str, Any]]], Iterator[dict[str, Any]]]) -> int:
    """Write what `made` makes of the rows of a file, some at a time; how many there were."""
    from heedful.data.rows import read

    if out and Path(out).resolve() == Path(path).resolve():
        raise HeedfulError(f"--out {out} is the file that is read; choose another name")
    count, some = 0, []
    with _target(out) as put:
        for row in read(path):
            some.append(row)
            if len(some) == CHUNK:
                count += _put(put, made(some))
                some = []
        count += _put(put, made(some))
    return count


def _put(put: BinaryIO, rows: Iterator[dict[str, Any]]) -> int:
    count = 0
    for row in rows:
        put.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        count += 1
    return count


@contextmanager
def _target(out: str) -> Iterator[BinaryIO]:
    from heedful.atomic import appearing

    with appearing(Path(out)) if out else nullcontext(sys.stdout.buffer) as put:
        yield put
