"""`heedful audit` with the TF-IDF probe at 10,000, 100,000 and a million pairs: seconds and memory against the limits.

There is no peer: no tool was found that compares preference files. What stands in its place are the limits that the
audit must keep for a million pairs, 600 seconds and 4,096 MiB on two cores, at every size; each note has the seconds
and the memory of all sizes. The whole job is timed, from the JSONL file to the page: reading, fingerprints, features,
every fit with three seeds, intervals, report. Above 200,000 pairs the probe leaves out pairs of words, so that the cost
of a pair falls.

The pairs are generated: prompts of 12 words, answers of 60 words on average from a vocabulary of 20,000 with Zipf's
frequencies; one answer in each pair has a few words that decide who wins, and a tenth of the labels is wrong.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.harness import Result, alternate, line, main, median, peak_mib

MODULE = "benchmarks.audit_million"
SIZES = (10_000, 100_000, 1_000_000)
SECONDS, MIB = 600.0, 4096.0
VOCABULARY, WORDS, CHUNK = 20_000, 60, 10_000


def write_pairs(path: Path, count: int) -> None:
    """A file of generated pairs, a pure function of `count`."""
    rng = np.random.default_rng(20240909)
    words = np.array([f"w{i:x}" for i in range(VOCABULARY)])
    chances = 1 / np.arange(1, VOCABULARY + 1)
    cumulative = np.cumsum(chances / chances.sum())
    with path.open("w") as out:
        for start in range(0, count, CHUNK):
            n = min(CHUNK, count - start)
            lengths = np.clip(rng.lognormal(np.log(WORDS) - 0.18, 0.6, (n, 2)), 5, 400).astype(int)
            ids = np.searchsorted(cumulative, rng.random(int(lengths.sum()) + 12 * n))
            drawn = words[np.minimum(ids, VOCABULARY - 1)]
            wrong, at = rng.random(n) < 0.1, 0
            good, bad = rng.integers(0, 50, (n, 2)), rng.integers(0, 50, (n, 2))
            for i in range(n):
                parts = []
                for length in (12, *lengths[i]):
                    parts.append(" ".join(drawn[at : at + length]))
                    at += length
                answers = [
                    f"{parts[1]} good{good[i, 0]} good{good[i, 1]}",
                    f"{parts[2]} bad{bad[i, 0]} bad{bad[i, 1]}",
                ]
                chosen, rejected = answers[::-1] if wrong[i] else answers
                row = {"prompt": f"{parts[0]} {start + i}", "chosen": chosen, "rejected": rejected}
                out.write(json.dumps(row) + "\n")


def run_child(count: int, folder: str) -> Result:
    """One audit of `count` generated pairs, its features made anew."""
    from heedful.recipes.audit import Config
    from heedful.recipes.audit import main as audit

    place = Path(folder)
    file = place / f"pairs-{count}.jsonl"
    if not file.exists():
        beside = file.with_suffix(".tmp")
        write_pairs(beside, count)
        beside.rename(file)
    work = Path(tempfile.mkdtemp(prefix="audit-", dir=place))
    try:
        began, cpu = time.monotonic(), time.process_time()
        audit(Config(files=(str(file),), out=str(work / "run"), cache=str(work / "features"), quiet=True))
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        found = json.loads((work / "run" / "result.json").read_text())["files"][0]
        disk = sum(f.stat().st_size for f in work.rglob("*") if f.is_file()) / 2**20
    finally:
        shutil.rmtree(work)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_mib": peak_mib(),
        "disk_mib": disk,
        "file_mib": file.stat().st_size / 2**20,
        "accuracy": found["probe_accuracy"]["estimate"],
        "below": found["labels_below_threshold"],
    }


def run(pairs: int, keep: Path | None, count: int, extra: int) -> list[str]:
    """The benchmark's lines: time and memory at each size. `--pairs` runs of each; one is enough for a million.

    `--count N` with N of 1,000 or more takes the sizes up to N only, or N itself where it is below all of them.
    """
    sizes = [n for n in SIZES if count < 1000 or n <= count] or [count]
    folder = Path(tempfile.gettempdir()) / "heedful-audit-million"
    folder.mkdir(exist_ok=True)
    arms = {f"{n}": {"count": n, "folder": str(folder)} for n in sizes}
    results = alternate(MODULE, arms, 1 if pairs == 5 else pairs, keep)
    growth = "; ".join(
        f"{n:,} pairs {median(results[f'{n}'], 'seconds'):.0f} s, {median(results[f'{n}'], 'peak_mib'):,.0f} MiB"
        for n in sizes
    )
    lines = []
    for n in sizes:
        found = results[f"{n}"]
        told = (
            f"{n:,} generated pairs ({median(found, 'file_mib'):,.0f} MiB); CPU {median(found, 'cpu_seconds'):.0f} s, "
            f"{median(found, 'seconds') / n * 1e4:.2f} s for each 10,000, {median(found, 'disk_mib'):,.0f} MiB on "
            f"disk, held-out accuracy {median(found, 'accuracy'):.3f}; growth: {growth}; no "
            "peer: the limit stands in its place"
        )
        lines += [
            line(f"audit_million/{n}/time", median(found, "seconds"), SECONDS, "s", told),
            line(f"audit_million/{n}/memory", median(found, "peak_mib"), MIB, "MiB", told),
        ]
    return lines


if __name__ == "__main__":
    main(MODULE, run_child, run)
