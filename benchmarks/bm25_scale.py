"""BM25 over 10,000, 100,000 and a million passages: building and asking, against bm25s as its documentation uses it.

The peer reads the same JSONL file into a list, tokenizes with the same stop words and stems, indexes, and saves index
and passages; its queries are answered from the saved index, mapped from disk, with its compiled backend. Ours checks
every row, keeps a list of titles beside the passages, builds in parts that survive a kill, and breaks ties. Scores are
the same; the note has the largest difference of a best score, and how often the best passage is the same.

Building and asking are processes of their own, so that their memory is seen apart. Queries are asked one by one, as a
writer of queries does that waits for each answer; compiling, some seconds once, is outside of the clock. Time is CPU
seconds of the process; wall seconds are in the note. Passages and questions are of the generated world.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import Result, alternate, line, main, median, peak_mib

MODULE = "benchmarks.bm25_scale"
SIZES = (10_000, 100_000, 1_000_000)
QUERIES, WARM, K = 200, 5, 3
Found = list[tuple[str, float]]
"""The id and the score of the best passage of each query."""


def write_corpus(path: Path, count: int) -> None:
    """The passages of a generated world, a pure function of `count`."""
    from heedful.data.hops.world import World

    world = World(0, count)
    with path.open("w") as out:
        for i in range(count):
            out.write(json.dumps(world[i]._asdict()) + "\n")


def questions(count: int) -> list[str]:
    """What is asked, of the same world."""
    from heedful.data.hops.world import World

    return [question.question for question in World(0, count).questions("test", QUERIES + WARM)]


def our_build(source: Path, folder: Path) -> None:
    """An index folder of ours."""
    from heedful.judges.search_index import build_index

    build_index(source, folder, "bm25")


def our_search(folder: Path) -> Callable[[str], Found]:
    """What answers a query from it."""
    from heedful.judges.search_index import open_index

    _, retriever = open_index(folder, "bm25")
    return lambda query: [(hit.passage.id, hit.score) for hit in retriever([query], K)[0]]


def peer_build(source: Path, folder: Path) -> None:
    """bm25s's index with its corpus."""
    import bm25s
    import Stemmer

    with source.open() as rows:
        corpus = [json.loads(row) for row in rows]
    texts = [f"{row['title']}\n{row['text']}" for row in corpus]
    tokens = bm25s.tokenize(texts, stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False)
    index = bm25s.BM25(k1=0.9, b=0.4, backend="numba")
    index.index(tokens, show_progress=False)
    index.save(folder, corpus=corpus, show_progress=False)


def peer_search(folder: Path) -> Callable[[str], Found]:
    """What answers a query from it."""
    import bm25s
    import Stemmer

    index = bm25s.BM25.load(folder, mmap=True, load_corpus=True, show_progress=False)
    index.activate_numba_scorer()
    stemmer = Stemmer.Stemmer("english")

    def search(query: str) -> Found:
        tokens = bm25s.tokenize(query, stopwords="en", stemmer=stemmer, show_progress=False)
        rows, scores = index.retrieve(tokens, k=K, show_progress=False, n_threads=1)
        return [(row["id"], float(score)) for row, score in zip(rows[0], scores[0], strict=True)]

    return search


SIDES: dict[str, tuple[Callable[[Path, Path], None], Callable[[Path], Callable[[str], Found]]]] = {
    "ours": (our_build, our_search),
    "peer": (peer_build, peer_search),
}


def run_child(side: str, stage: str, count: int, folder: str) -> Result:
    """One build of an index, or `QUERIES` queries to one, which is built first where it is missing."""
    place = Path(folder)
    source, index = place / f"corpus-{count}.jsonl", place / f"{side}-{count}"
    if not source.exists():
        beside = source.with_suffix(".tmp")
        write_corpus(beside, count)
        beside.rename(source)
        if stage == "build":  # what it took to make the file is not to be seen in the memory of the build
            from benchmarks.harness import child

            return child(MODULE, {"side": side, "stage": stage, "count": count, "folder": folder})
    build, search = SIDES[side]
    if stage == "build":
        shutil.rmtree(index, ignore_errors=True)
        began, cpu = time.monotonic(), time.process_time()
        build(source, index)
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        disk = sum(f.stat().st_size for f in index.rglob("*") if f.is_file()) / 2**20
        return {"seconds": seconds, "cpu_seconds": cpu, "peak_mib": peak_mib(), "disk_mib": disk}
    if not index.exists():
        build(source, index)
    asked = questions(count)
    began = time.monotonic()
    answer = search(index)
    for query in asked[:WARM]:
        answer(query)
    opened = time.monotonic() - began
    began, cpu = time.monotonic(), time.process_time()
    found = [answer(query) for query in asked[WARM:]]
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    return {
        "seconds": seconds,
        "milliseconds": 1000 * cpu / QUERIES,
        "opened": opened,
        "peak_mib": peak_mib(),
        "best": [hits[0] for hits in found],
    }


def agreement(ours: list[Any], theirs: list[Any]) -> str:
    """How far the best hits of both are the same, in words."""
    apart = max(abs(a[1] - b[1]) for a, b in zip(ours, theirs, strict=True))
    same = sum(a[0] == b[0] for a, b in zip(ours, theirs, strict=True))
    return f"best scores differ by {apart:.1g} at most, {same} of {len(ours)} best passages are the same"


def run(pairs: int, keep: Path | None, count: int, extra: int) -> list[str]:
    """The benchmark's lines at each size. `--pairs` runs of each side and stage; one is enough for a million.

    `--count N` with N of 1,000 or more takes the sizes up to N only, or N itself where it is below all of them.
    """
    sizes = [n for n in SIZES if count < 1000 or n <= count] or [count]
    folder = Path(tempfile.gettempdir()) / "heedful-bm25-scale"
    folder.mkdir(exist_ok=True)
    lines = []
    for n in sizes:
        arms = {
            f"{side} {stage} {n}": {"side": side, "stage": stage, "count": n, "folder": str(folder)}
            for stage in ("build", "query")
            for side in SIDES
        }
        results = alternate(MODULE, arms, pairs, keep)
        built = {side: results[f"{side} build {n}"] for side in SIDES}
        asked = {side: results[f"{side} query {n}"] for side in SIDES}
        building = (
            f"{n:,} generated passages from a JSONL file, {len(built['ours'])} runs of each; wall "
            f"{median(built['ours'], 'seconds'):.1f} s and {median(built['peer'], 'seconds'):.1f} s"
        )
        asking = (
            f"{QUERIES} questions to {n:,} passages, one by one, {K} hits each; opening, compiling and the first "
            f"{WARM} took {median(asked['ours'], 'opened'):.1f} s and {median(asked['peer'], 'opened'):.1f} s; "
            + agreement(asked["ours"][0]["best"], asked["peer"][0]["best"])
        )
        for name, found, key, unit, note in (
            ("build", built, "cpu_seconds", "CPU s", building),
            ("build_memory", built, "peak_mib", "MiB", building),
            ("disk", built, "disk_mib", "MiB", building),
            ("query", asked, "milliseconds", "CPU ms", asking),
            ("query_memory", asked, "peak_mib", "MiB", asking),
        ):
            ours, theirs = median(found["ours"], key), median(found["peer"], key)
            lines.append(line(f"bm25_scale/{n}/{name}", ours, theirs, unit, note))
    return lines


if __name__ == "__main__":
    main(MODULE, run_child, run)
