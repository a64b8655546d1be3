"""Countdown problems with streams of search: samples per CPU second against plain Python, and a whole data set.

Both sides draw the same samples (index by index), search each with the paper's mixture of strategies and write text:
ours Parquet shards with one worker, the peer, `countdown_peer`, JSON lines. The digests of the streams that both have
made must be equal, or the benchmark fails. The peer is also held against the 720 streams of the paper's own generator,
where `../shared` has them; that generator made 182 samples per second on another machine.

The second comparison is a data set, `--count` samples (20,000; 500,000 is the goal's size), made by the command with
two workers: seconds and peak memory of the process, torch for the manifest included, against the limits of 300 seconds
and 1,024 MiB for 500,000. Compiling (once for an installation, then read from disk) is outside the clock of the first.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
import time
from pathlib import Path

from benchmarks.harness import Result, alternate, line, main, median, peak_mib

MODULE = "benchmarks.countdown_generate"
OFFICIAL = Path(__file__).parents[2] / "shared" / "data" / "countdown" / "official_streams.jsonl.gz"
OURS, PEER, GOAL, SECONDS, MIB = 20_000, 1_000, 500_000, 300.0, 1024.0


def ours(count: int, same: int) -> Result:
    """Shards of `count` samples; the digest is that of the first `same` streams."""
    from heedful.data.countdown.instances import Instances
    from heedful.data.countdown.shards import ShardPlan, make_shard, read_shards

    plan = ShardPlan(Instances(), "train", count)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.monotonic()
        make_shard(ShardPlan(Instances(seed=1), "train", 10), folder, 0)
        compiling = time.monotonic() - began
        began, cpu = time.monotonic(), time.process_time()
        for number in range(plan.shards):
            make_shard(plan, folder, number)
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        digest, left = hashlib.sha256(), same
        for batch in read_shards(folder, "train", ["stream"], batch=min(same, 1000)):
            for text in batch.column("stream").to_pylist()[:left]:
                digest.update(text.encode())
                left -= 1
        size = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
    return {
        "rate": count / cpu,
        "seconds": seconds,
        "compiling": compiling,
        "mib": size,
        "peak_mib": peak_mib(),
        "digest": digest.hexdigest(),
    }


def peer(count: int) -> Result:
    """The same samples and streams in plain Python."""
    from benchmarks.countdown_peer import row

    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile("w") as out:
        began, cpu = time.monotonic(), time.process_time()
        for index in range(count):
            drawn, text = row(index)
            out.write(json.dumps({**drawn._asdict(), "stream": text}) + "\n")
            digest.update(text.encode())
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    return {"rate": count / cpu, "seconds": seconds, "peak_mib": peak_mib(), "digest": digest.hexdigest()}


def official() -> Result:
    """How many of the paper's own streams the peer and ours give to the byte; of none where they are not there."""
    from benchmarks.countdown_peer import stream
    from heedful.data.countdown.streams import Task, streams

    if not OFFICIAL.exists():
        return {"streams": 0, "peer": 0, "ours": 0}
    with gzip.open(OFFICIAL) as packed:
        rows = [json.loads(text) for text in packed]
    tasks = [Task(row["target"], row["nums"], row["strategy"], row["seed"] or 0) for row in rows]
    made = streams(tasks, legacy=True)
    return {
        "streams": len(rows),
        "ours": sum(one.text == row["stream"] for one, row in zip(made, rows, strict=True)),
        "peer": sum(
            stream(*task, legacy=True) == row["stream"] for task, row in zip(tasks, rows, strict=True)
        ),
    }


def data_set(count: int) -> Result:
    """The command with two workers."""
    from heedful.recipes.search_streams import Generate, generate_command

    with tempfile.TemporaryDirectory() as folder:
        began, cpu = time.monotonic(), time.process_time()
        generate_command(Generate(out=f"{folder}/set", samples=count, workers=2, quiet=True))
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        size = sum(file.stat().st_size for file in Path(folder, "set").iterdir()) / 2**20
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_mib": peak_mib(), "mib": size}


CHILDREN = {"ours": ours, "peer": peer, "official": official, "set": data_set}


def run_child(arm: str, **arguments: int) -> Result:
    """One run of one arm."""
    return CHILDREN[arm](**arguments)


def run(pairs: int, keep: Path | None, count: int, extra: int) -> list[str]:
    """The benchmark's lines. `--count N` with N of 1,000 or more is the size of the data set; else it is 20,000."""
    arms = {"ours": {"arm": "ours", "count": OURS, "same": PEER}, "peer": {"arm": "peer", "count": PEER}}
    results = alternate(MODULE, arms, pairs, keep)
    digests = {result["digest"] for found in results.values() for result in found}
    if len(digests) != 1:
        raise SystemExit("the streams of ours and the peer differ")
    size = count if count >= 1000 else OURS
    once = {
        "official": {"arm": "official"},
        "start": {"arm": "set", "count": 2},
        "set": {"arm": "set", "count": size},
    }
    single = {name: found[0] for name, found in alternate(MODULE, once, 1, keep).items()}
    known = single["official"]
    if known["ours"] != known["streams"] or known["peer"] != known["streams"]:
        raise SystemExit(f"not the paper's streams: {known}")
    told = (
        f"{OURS:,} samples against {PEER:,}, K=4, medians of {pairs} runs; the {PEER:,} streams that both made are "
        f"equal to the byte, and so are {known['streams']} of the paper's generator; compiling, before the clock, took "
        f"{median(results['ours'], 'compiling'):.1f} s"
    )
    rates = median(results["ours"], "rate"), median(results["peer"], "rate")
    made, begun = single["set"], single["start"]
    each = {name: (made[name] - begun[name]) / size for name in ("seconds", "cpu_seconds")}
    whole = made["seconds"] + each["seconds"] * (GOAL - size)
    how = "" if size == GOAL else f"extrapolated from {size:,} samples in {made['seconds']:.1f} s, "
    about = (
        f"{how}of which {begun['seconds']:.1f} s to start; 2 workers, {each['cpu_seconds'] * 1e6:.0f} CPU microseconds "
        f"a sample, {made['mib']:.0f} MiB on disk; no peer: the limit stands in its place"
    )
    return [
        line("countdown_generate", *rates, "samples per CPU second", told, more_is_better=True),
        line("countdown_generate/500k/time", whole, SECONDS, "s", about),
        line("countdown_generate/500k/memory", made["peak_mib"], MIB, "MiB", about),
    ]


if __name__ == "__main__":
    main(MODULE, run_child, run)
