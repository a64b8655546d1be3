"""Runs ours and the peer's program alternately, each in a fresh process, and prints one JSON line.

A fresh process for every run, because peak memory and caches of one must not help or hurt the other. Every
finished run is kept in `--keep FILE`, so that an interrupted benchmark goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Result = dict[str, Any]


def child(module: str, arguments: Mapping[str, Any]) -> Result:
    """Run `python -m module --child JSON` and return the JSON of its last line."""
    command = [sys.executable, "-m", module, "--child", json.dumps(dict(arguments))]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{module} {arguments} failed with status {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def alternate(
    module: str, arms: Mapping[str, Mapping[str, Any]], pairs: int, keep: Path | None
) -> dict[str, list[Result]]:
    """`pairs` runs of every arm, alternating; runs found in `keep` are not done again."""
    done: dict[str, list[Result]] = {arm: [] for arm in arms}
    if keep is not None and keep.exists():
        for line in keep.read_text().splitlines():
            row = json.loads(line)
            if row["module"] == module and row["arm"] in done and row["arguments"] == dict(arms[row["arm"]]):
                done[row["arm"]].append(row["result"])
    for i in range(pairs):
        for arm, arguments in arms.items():
            if len(done[arm]) > i:
                continue
            began = time.monotonic()
            result = child(module, arguments)
            done[arm].append(result)
            print(
                f"{arm} {i + 1}/{pairs}: {time.monotonic() - began:.0f} s {brief(result)}",
                file=sys.stderr,
                flush=True,
            )
            if keep is not None:
                with keep.open("a") as lines:
                    row = {"module": module, "arm": arm, "arguments": dict(arguments), "result": result}
                    lines.write(json.dumps(row) + "\n")
    return done


def brief(result: Result) -> str:
    """The numbers of a result, without its lists."""
    return " ".join(f"{k}={v:.4g}" for k, v in result.items() if isinstance(v, int | float))


def median(results: list[Result], key: str) -> float:
    """Median of one number over runs."""
    return statistics.median(r[key] for r in results)


def line(name: str, ours: float, peer: float, unit: str, note: str, *, more_is_better: bool = False) -> str:
    """The benchmark's JSON line; ratio > 1 means ours is better."""
    ratio = ours / peer if more_is_better else peer / ours
    row = {"name": name, "ours": round(ours, 3), "peer": round(peer, 3), "ratio": round(ratio, 3)}
    return json.dumps({**row, "unit": unit, "note": note}, ensure_ascii=False)


def main(
    module: str,
    run_child: Callable[..., Result],
    run: Callable[..., list[str]],
    *,
    count: int = 64,
    settings: Sequence[str] = (),
) -> None:
    """The command line of a benchmark: without arguments the whole of it, `--child` one run of one arm.

    run: called with pairs, keep, count and extra. count: how many pairs, prompts or rows a run has where --count does
    not say. settings: where a benchmark has several, their names; `run` is told which of them to do.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--pairs", type=int, default=5, help="alternating pairs of runs (5)")
    told = f"preference pairs, prompts or rows in a run ({count})"
    parser.add_argument("--count", type=int, default=count, help=told)
    parser.add_argument("--extra", type=int, default=3, help="runs of the peer at its other setting (3)")
    parser.add_argument("--keep", type=Path, help="file that keeps finished runs")
    parser.add_argument(
        "--append", type=Path, help="also append the lines to this file, e.g. benchmarks/results.jsonl"
    )
    if settings:
        parser.add_argument(
            "--setting", choices=settings, action="append", help="only this one; may be repeated"
        )
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run_child(**json.loads(options.child))))
        return
    only = {"settings": options.setting} if settings and options.setting else {}
    for text in run(options.pairs, options.keep, options.count, options.extra, **only):
        print(text)
        if options.append:
            with options.append.open("a") as lines:
                lines.write(text + "\n")


def peak_mib() -> float:
    """The most memory this process has had resident, in MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
