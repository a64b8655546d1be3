"""Countdown's searchers, to the byte: against the paper's own streams, against plain Python, against kept digests.

The digests in countdown_streams.json are of streams that `benchmarks/countdown_peer.py` made. Write them anew:

    UPDATE_COUNTDOWN_STREAMS=1 .venv/bin/python -m pytest tests/test_countdown.py
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import countdown_peer as peer

from heedful.data.countdown import compiled, searchers, twister
from heedful.data.countdown.game import STRATEGIES, Operation, check, fault, outcome, take, tree_size
from heedful.data.countdown.instances import Instances, draw
from heedful.data.countdown.streams import Task, difficulties, stream, streams, traces
from heedful.errors import HeedfulError

ROOT = Path(__file__).parent.parent
OFFICIAL = ROOT.parent / "shared" / "data" / "countdown" / "official_streams.jsonl.gz"
KEPT = Path(__file__).with_name("countdown_streams.json")
PROBLEMS = [
    (13, [9, 4]),
    (32, [24, 16, 26]),
    (24, [4, 9, 3]),
    (72, [12, 2, 12]),
    (97, [1, 50, 2, 3]),
    (36, [6, 6, 6, 6]),
    (83, [64, 51, 83, 81]),
]
LONGER = [(61, [7, 22, 50, 3, 18]), (58, [15, 78, 49, 29, 2, 7])]


def tasks(problems: list[tuple[int, list[int]]]) -> list[Task]:
    return [Task(t, n, s, 7 * i + 1) for t, n in problems for i, s in enumerate(STRATEGIES)]


# ---- to the byte


def test_legacy_streams_are_those_of_the_papers_code() -> None:
    if not OFFICIAL.exists():
        pytest.skip(f"{OFFICIAL} is not here; the digests and the peer are tested all the same")
    with gzip.open(OFFICIAL) as packed:
        rows = [json.loads(text) for text in packed]
    made = streams([Task(r["target"], r["nums"], r["strategy"], r["seed"] or 0) for r in rows], legacy=True)
    wrong = [i for i, (one, row) in enumerate(zip(made, rows, strict=True)) if one.text != row["stream"]]
    assert len(rows) == 720 and wrong == []


@pytest.mark.parametrize("legacy", [False, True])
def test_streams_are_those_of_plain_python(legacy: bool) -> None:
    rng = random.Random(11)
    drawn = [(rng.randint(2, 120), [rng.randint(0, 30) for _ in range(k)]) for k in (2, 3, 3, 3, 4, 4)]
    for task, one in zip(
        tasks(PROBLEMS + drawn), streams(tasks(PROBLEMS + drawn), legacy=legacy), strict=True
    ):
        assert one.text == peer.stream(*task, legacy=legacy), task
        assert one.solved == ("Goal Reached" in one.text)
        assert one.explored == one.text.count("Exploring")


def test_streams_are_those_that_were_kept() -> None:
    names = [(task, legacy) for legacy in (False, True) for task in tasks(PROBLEMS + LONGER)]
    if os.environ.get("UPDATE_COUNTDOWN_STREAMS"):
        texts = [peer.stream(*task, legacy=legacy) for task, legacy in names]
        digests = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]
        KEPT.write_text(json.dumps({"first": texts[13], "digests": digests}, indent=0) + "\n")
    kept = json.loads(KEPT.read_text())
    made = [one.text for legacy in (False, True) for one in streams(tasks(PROBLEMS + LONGER), legacy=legacy)]
    assert made[13] == kept["first"]
    found = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in made]
    assert [names[i] for i in range(len(names)) if found[i] != kept["digests"][i]] == []
    assert len(kept["digests"]) == len(names) == 216 and len(set(found)) > 90


@pytest.mark.parametrize("seed", [0, 1, -5, 2**32, 2**40 + 17, 2**63 - 1])
def test_shuffles_are_those_of_python(seed: int) -> None:
    state, rng = np.empty(625, np.int64), random.Random(seed)
    twister.seed_twister(state, seed)
    for count in (2, 5, 3, 60) * 12:
        ours, theirs = np.arange(count), list(range(count))
        twister.shuffle(state, ours, count)
        rng.shuffle(theirs)
        assert ours.tolist() == theirs


# ---- what a search is


def test_finished_leaves_are_visited_again_in_legacy_only() -> None:
    def leaves(text: str) -> int:
        heads = [line.split(", Operations")[0] for line in text.splitlines() if line.startswith("Current")]
        return sum("," not in head for head in heads)

    task = (83, [64, 51, 83, 81], "bfs-mult-3", 203)
    now, before = stream(*task), stream(*task, legacy=True)
    assert leaves(now.text) == 0 < leaves(before.text)
    assert len(now.text) < len(before.text)
    deep = stream(97, [1, 50, 2, 3], "dfs-sum")
    assert leaves(deep.text) == 0 and deep.text == stream(97, [1, 50, 2, 3], "dfs-sum", legacy=True).text


def test_a_limit_breaks_a_stream_off_and_a_cap_forbids_results() -> None:
    for strategy in ("dfs-sum", "bfs-sum-4"):
        whole = stream(97, [1, 50, 2, 3], strategy, 2)
        short = stream(97, [1, 50, 2, 3], strategy, 2, limit=9)
        assert whole.explored > 9 == short.explored and not short.solved
        assert whole.text.startswith(short.text) and short.text.count("Exploring") == 9
        capped = stream(97, [1, 50, 2, 3], strategy, 2, cap=100)
        results = [
            int(line.split("=")[1].split(",")[0]) for line in capped.text.splitlines() if "Expl" in line
        ]
        assert max(results) <= 100 < 150
        assert capped.text == peer.stream(97, [1, 50, 2, 3], strategy, 2, cap=100)


def test_the_mixture_succeeds_as_often_as_the_papers() -> None:
    drawn = draw(Instances(), "train", 0, 20_000)
    solved, explored = [], []
    for part in traces(*drawn[:3], text=False, tokens=False):
        solved += part.solved.tolist()
        explored += part.explored.tolist()
    accuracy = np.mean([s and e + 1 < tree_size(4) for s, e in zip(solved, explored, strict=True)])
    assert len(solved) == 20_000 and 0.55 < accuracy < 0.59


def ends(target: int, numbers: tuple[int, ...]) -> list[bool]:
    """Each end of the whole tree: is it the target."""
    if len(numbers) == 1:
        return [numbers[0] == target]
    found = []
    for nums, _ in peer.children(list(numbers), 0):
        found += ends(target, tuple(nums))
    return found


def test_difficulty_is_exact() -> None:
    problems = [(t, n) for t, n in PROBLEMS if len(n) < 4] + [(97, [1, 50, 2, 3]), (50, [1, 1, 1, 1])]
    for (target, numbers), hard in zip(problems, difficulties(problems, seed=5), strict=True):
        every = ends(target, tuple(numbers))
        assert (hard.solutions, hard.ends, hard.solvable) == (sum(every), len(every), any(every))
        by_strategy = [stream(target, numbers, strategy, 5) for strategy in STRATEGIES]
        assert hard.explored == tuple(one.explored if one.solved else 0 for one in by_strategy)
        assert hard.difficult == (not any(one.solved for one in by_strategy))
    assert not difficulties([(50, [1, 1, 1, 1])])[0].solvable


def test_the_share_of_difficult_problems_is_the_papers() -> None:
    drawn = draw(Instances(), "train", 0, 2000).problems.tolist()
    hard = difficulties([(t, numbers[:k]) for t, k, *numbers in drawn])
    assert all(one.solvable for one in hard)
    assert 0.12 < np.mean([one.difficult for one in hard]) < 0.17  # the specification measured 14.5%


# ---- rules


def test_the_rules_of_the_game() -> None:
    assert [outcome(7, sign, 2) for sign in "+*-/"] == [9, 14, 5, None]
    assert (outcome(2, "-", 7), outcome(8, "/", 2), outcome(8, "/", 0)) == (None, 4, None)
    for a, b in [(7, 2), (2, 7), (6, 6), (0, 5), (5, 0), (0, 0)]:
        made = [searchers.move(a, b, operator) for operator in range(4)]
        told = [f"{x}{'+*-/'[o]}{y}={z}" for o, (legal, x, y, z) in enumerate(made) if legal]
        assert told == [text for _, text in peer.moves(a, b)]
    assert take([5, 3, 5], Operation(5, "+", 5, 10)) == (3, 10)
    assert take([5, 3], Operation(5, "+", 5, 10)) is None
    assert [tree_size(k) for k in range(2, 7)] == [4, 48, 1152, 46_080, 2_764_800]


@pytest.mark.parametrize(
    ("problem", "field", "told"),
    [
        (("3", [1, 2]), "target", "a whole number, not text"),
        ((True, [1, 2]), "target", "a whole number"),
        ((0, [1, 2]), "target", "from 1 to"),
        ((3, [1]), "nums", "2 to 6 numbers, not 1"),
        ((3, [1] * 7), "nums", "2 to 6 numbers, not 7"),
        ((3, [1, -2]), "nums", "-2 is"),
        ((3, [1, 2.0]), "nums", "whole numbers"),
        ((3, "12"), "nums", "whole numbers"),
        ((3, [2**27, 2**27]), "nums", "too large"),
        ((3, [1, 2], "bfs-sum-6"), "strategy", "one of dfs-sum"),
        ((1, [1, 2], "dfs-mult"), "target", "at least 2"),
        ((3, [1, 2], "dfs-sum", 0.5), "seed", "a whole number or null"),
        ((3, [1, 2], "dfs-sum", 2**63), "seed", "must be between"),
    ],
)
def test_problems_against_the_rules_are_refused(problem: Any, field: str, told: str) -> None:
    found = fault(*problem)
    assert found is not None and found[0] == field and told in found[1]
    with pytest.raises(HeedfulError, match=field):
        check(*problem)


def test_the_largest_numbers_are_exact() -> None:
    low = 2**26
    one = stream(10, [low - 1, low - 1], "dfs-mult", cap=0)
    assert one.text.startswith(f"Current State: 10:[{low - 1}, {low - 1}]")
    wide = stream(10, [low - 1, low - 1], "bfs-sum-5")
    assert f"{low - 1}*{low - 1}={(low - 1) ** 2}" in wide.text
    assert wide.text == peer.stream(10, [low - 1, low - 1], "bfs-sum-5")


# ---- compiling


def test_without_a_place_for_machine_code_each_process_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import caching

    def three(n: int) -> int:
        return n + 3

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    made = compiled.entry(three)
    assert made(4) == 7 and made._cache.cache_path is None  # type: ignore[attr-defined]


def test_a_change_in_any_compiled_file_is_seen() -> None:
    from heedful.data.countdown import sampler, writers

    for function in (sampler.draw, writers.trace):
        assert function._cache._cache_file._source_stamp == compiled.STAMP  # type: ignore[attr-defined]
    using = [
        path.name
        for path in Path(compiled.__file__).parent.glob("*.py")
        if "compiled import" in path.read_text()
    ]
    assert set(using) <= set(compiled.FILES)


def test_help_and_check_do_not_load_numba(tmp_path: Path) -> None:
    data = tmp_path / "a.jsonl"
    data.write_text('{"prompt": "A?", "chosen": "b", "rejected": "c"}\n')
    code = "import sys\nfrom heedful.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "print(sorted({'numba', 'torch', 'pyarrow'} & set(sys.modules)))"
    for arguments in (["search", "generate", "--help"], ["check", str(data)]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.stdout.endswith("\n[]\n"), done.stdout + done.stderr
