"""Tables and plots of LeReT, from the results of arms alone."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from heedful.evals.intervals import paired_bootstrap
from heedful.papers.leret_arms import NAMES
from heedful.papers.leret_claims import TITLES, lead, recall
from heedful.papers.leret_intervals import over_all
from heedful.papers.leret_rules import WORDS
from heedful.papers.onpolicy_arms import got
from heedful.papers.results import Plot, Series, Table, Value
from heedful.papers.seeds import Done, Result

CALLED = {**WORDS, **NAMES}
PAIRS = (
    *(
        ("few_shot", "base"),
        ("few_shot_first", "base"),
        ("cd", "few_shot"),
        ("leret", "cd"),
        ("leret", "base"),
    ),
    *(
        ("leret", "few_shot"),
        ("leret", "passage"),
        ("leret", "sft_all"),
        ("leret", "dpo"),
        ("leret", "recall"),
    ),
    *(("with_rules", "leret"), ("with_rules", "question"), ("with_rules", "passage")),
    *(("fresh", "base_fresh"), ("fresh", "few_shot_fresh"), ("fresh", "leret")),
    *(("fresh", "passage"), ("fresh", "double")),
    *(("leret", "all_pairs"), ("leret", "answer"), ("leret", "temperature"), ("iterative", "leret")),
    *(("leret_dense", "base_dense"), ("transfer_dense", "base_dense"), ("leret_dense", "transfer_dense")),
)
DRAWN = ("question", "base", "few_shot", "cd", "leret", "feasible")
TRIED = ("tried_prompts", "tried_informative", "tried_queries", "tried_pairs", "training_searches")


def tables(done: Done, setup: str, seeds: Sequence[int]) -> list[Table]:
    """All tables of a setup, those without rows left out."""
    made = [
        found_table(done, setup),
        every_table(done, setup),
        lead_table(done, setup, seeds),
        seed_table(done, setup, seeds),
        tried_table(done, setup),
        tuned_table(done, setup),
    ]
    return [table for table in made if table.rows]


def writers(done: Done, setup: str) -> list[tuple[str, list[Result]]]:
    """(name, results over seeds) of rules and writers that were measured."""
    found = [(name, [r for r in got(done, setup, name) if r.get("recall")]) for name in CALLED]
    return [(name, results) for name, results in found if results]


def mean(result: Result, name: str, hop: int | None = None) -> float | None:
    """The mean of what is known."""
    row = result.get(name) or []
    if row and hop is not None:
        row = row[hop] if -len(row) <= hop < len(row) else []
    known = [value for value in row if value is not None]
    return fmean(known) if known else None


def over(results: Sequence[Result], name: str, hop: int | None = None) -> float | None:
    """The same over seeds."""
    known = [value for r in results if (value := mean(r, name, hop)) is not None]
    return fmean(known) if known else None


def found_table(done: Done, setup: str) -> Table:
    """Recall after each hop, average precision, answers and the words of a query."""
    found = writers(done, setup)
    hops = max((len(results[0]["recall"]) for _, results in found), default=0)
    rows: list[list[Value]] = []
    for name, results in found:
        row: list[Value] = [CALLED[name], len(results)]
        row += [over(results, "recall", hop) for hop in range(hops)]
        row += [over(results, "ap", -1), over(results, "em"), over(results, "words")]
        rows.append(row)
    columns = ["writer", "seeds", *(f"recall, hop {h}" for h in range(1, hops + 1))]
    columns += ["average precision", "exact match", "words of a query"]
    note = (
        "Means over test questions and seeds; average precision and the reader's exact match after the last hop. Rules "
        "stand above the writers that are models."
    )
    return Table(f"{TITLES[setup]}: what every writer finds", columns, rows, note)


def every_table(done: Done, setup: str) -> Table:
    """What rules find for all real questions, by their source."""
    known = done.get((setup, "every", 0), {})
    sources = sorted({source for one in known.values() for source in one})
    rows: list[list[Value]] = [
        [WORDS[name], *(known[name].get(s) for s in sources)] for name in WORDS if name in known
    ]
    note = "Recall after two hops, over all questions there are; the oracle is told what no writer can know."
    return Table(f"{TITLES[setup]}: rules on all questions", ["rule", *sources], rows, note)


def lead_table(done: Done, setup: str, seeds: Sequence[int]) -> Table:
    """Each comparison over all seeds."""
    rows: list[list[Value]] = []
    for first, second in PAIRS:
        row: list[Value] = [f"{CALLED[first]}, less {CALLED[second]}"]
        for name in ("recall", "ap"):
            single, interval = over_all(lead(first, second, name), done, setup, seeds)
            row += [len(single)] if name == "recall" else []
            row += [float(np.mean(single)) if single else None, *(interval or (None, None))]
        if row[1]:
            rows.append(row)
    columns = ["comparison", "seeds", "recall", "from", "to", "average precision", "from ", "to "]
    note = (
        "Differences after the last hop, with 95% intervals of a paired bootstrap over seeds and questions (with one "
        "seed over questions alone)."
    )
    return Table(f"{TITLES[setup]}: comparisons", columns, rows, note)


def seed_table(done: Done, setup: str, seeds: Sequence[int]) -> Table:
    """Each comparison in each seed, with its interval over questions."""
    rows: list[list[Value]] = []
    for first, second in PAIRS:
        for seed in seeds:
            pair = [done.get((setup, name, seed), {}).get("recall") for name in (first, second)]
            if not all(pair):
                continue
            after, before = (one[-1] for one in pair)  # type: ignore[index]
            change = paired_bootstrap(before, after, samples=2000)
            low, high = change.bounds() or (None, None)
            rows.append([f"{CALLED[first]}, less {CALLED[second]}", seed, change.estimate, low, high])
    columns = ["comparison", "seed", "difference", "from", "to"]
    note = "Recall after the last hop; 95% intervals from a paired bootstrap over questions."
    return Table(f"{TITLES[setup]}: seed by seed", columns, rows, note)


def tried_table(done: Done, setup: str) -> Table:
    """What each run learned from."""
    rows: list[list[Value]] = []
    for name in NAMES:
        counts = [r["counts"] for r in got(done, setup, name) if r.get("counts", {}).get("tried_prompts")]
        if counts:
            told = [fmean(one.get(key, 0) for one in counts) for key in TRIED]
            rows.append([NAMES[name], len(counts), told[1] / told[0], *told])
    columns = ["writer", "seeds", "share of different worth", "questions and hops", "of different worth"]
    columns += ["queries", "pairs", "searches"]
    note = (
        "Of the training questions, means over seeds; what ties teaches nothing, but to SFT on all samples."
    )
    return Table(f"{TITLES[setup]}: what was tried", columns, rows, note)


def tuned_table(done: Done, setup: str) -> Table:
    """What the dev questions chose."""
    rows = done.get((setup, "tuned", 0), {}).get("rows", [])
    note = (
        "Recall on dev questions of the first seed after the last hop, one option after the other; the best value was "
        "taken, for all seeds. Runs that are not named here take what LeReT takes."
    )
    return Table(
        f"{TITLES[setup]}: options chosen on dev questions", ["run", "option", "value", "recall"], rows, note
    )


def plots(done: Done, setup: str, seeds: Sequence[int]) -> list[Plot]:
    """Recall by hop, with intervals."""
    series = []
    for name in DRAWN:
        results = [r for r in got(done, setup, name) if r.get("recall")]
        if not results:
            continue
        points = [
            over_all(lambda m, name=name, hop=hop: recall(m, name, hop), done, setup, seeds, 500)
            for hop in range(len(results[0]["recall"]))
        ]
        if not all(single for single, _ in points):
            continue
        middle = [float(np.mean(single)) for single, _ in points]
        bands = [interval or (y, y) for y, (_, interval) in zip(middle, points, strict=True)]
        series.append(
            Series(
                CALLED[name],
                list(range(1, len(points) + 1)),
                middle,
                [low for low, _ in bands],
                [high for _, high in bands],
            )
        )
    if not series:
        return []
    note = "Means over seeds, with 95% intervals over seeds and questions."
    return [Plot(f"{TITLES[setup]}: recall by hop", "hop", "recall of gold passages", series, note)]
