"""Tables and plots of Stream of Search, from the results of arms alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from heedful.evals.intervals import paired_bootstrap
from heedful.evals.streams import accuracy_by_budget
from heedful.papers.onpolicy_arms import got, mean_and_half
from heedful.papers.results import Plot, Series, Table, Value
from heedful.papers.seeds import Done, Result
from heedful.papers.sos_arms import MIXTURE, NAMES
from heedful.papers.sos_measure import (
    HARD,
    INPUTS,
    SETS,
    WORDS,
    correlations,
    mean,
    mixture,
    passed,
    solved,
    wrong_operations,
)

KINDS = ("arithmetic", "formatting", "exploration", "other")
POINTS = 8
"""Token budgets of the table and the plot."""
PAIRS = (
    ("sos", "op_tokens"),
    ("sos", "op_problems"),
    ("star", "sos"),
    ("apa", "sos"),
    ("star", "more_star"),
    ("apa", "more_apa"),
)


def tables(done: Done, setup: str) -> list[Table]:
    """All tables of a setup, those without rows left out."""
    made = [
        accuracy_table(done, setup),
        strategy_table(done, setup),
        pass_table(done, setup),
        budget_table(done, setup),
        error_table(done, setup),
        hard_table(done, setup),
        *alignment_tables(done, setup),
        seed_table(done, setup),
    ]
    return [table for table in made if table.rows]


def arms(done: Done, setup: str) -> list[tuple[str, list[Result]]]:
    """(name, results over seeds) of the arms that were measured."""
    found = [(method, got(done, setup, method)) for method in NAMES]
    return [(method, results) for method, results in found if results]


def accuracy_table(done: Done, setup: str) -> Table:
    """Greedy accuracy under both verifiers, and what each arm took."""
    rows: list[list[Value]] = []
    for method, results in arms(done, setup):
        before, own = (fmean(r[name] for r in results) / 1e6 for name in ("before", "work"))
        row: list[Value] = [NAMES[method], len(results), before + own, own if before else None]
        for side in SETS:
            row += mean_and_half([solved(r, side) for r in results])
            row.append(fmean(mean(r, side, "legacy") for r in results))
        rows.append(row)
    known = got(done, setup, "symbolic")
    if rows and known:
        row = [MIXTURE, len(known), None, None]
        for side in SETS:
            row += [*mean_and_half([mixture(r, side) for r in known]), None]
        rows.append(row)
    columns = ["arm", "seeds", "million tokens", "of them after SoS"]
    for side in SETS:
        columns += [WORDS[side], "±", "as the paper's code counts"]
    note = (
        "Shares of problems that the greedy stream solves, with a rating above 0; ± half the 95% interval over seeds. "
        "Tokens are those trained on, prompts included; one that is drawn or scored counts as a third."
    )
    return Table(f"{setup.upper()}: accuracy", columns, rows, note)


def strategy_table(done: Done, setup: str) -> Table:
    """What each symbolic strategy solves, with one seed of the shuffles, which seldom decides what is solved."""
    known = got(done, setup, "symbolic")
    rows = [
        [name, known[0]["weights"][name], *(_strategy(known, side, name) for side in SETS)]
        for name in (known[0]["weights"] if known else ())
    ]
    columns = ["strategy", "share of the streams", *WORDS.values()]
    return Table(
        f"{setup.upper()}: symbolic strategies", columns, rows, "On the test problems, means over seeds."
    )


def _strategy(known: Sequence[Result], side: str, name: str) -> float:
    return fmean(fmean(r["sets"][side]["solved"][name]) for r in known)


def pass_table(done: Done, setup: str) -> Table:
    """Pass@k for k = 1, 2, 4, ..."""
    rows: list[list[Value]] = []
    ks: list[int] = []
    for method, results in arms(done, setup):
        most = len(results[0]["sets"][INPUTS]["pass"])
        ks = [k for k in (1, 2, 4, 8, 16) if k <= most]
        for side in SETS:
            shares = [fmean(passed(r, side, k) for r in results) for k in ks]
            length = fmean(r["sets"][side]["tries_tokens"] for r in results)
            rows.append([NAMES[method], WORDS[side], *shares, length])
    columns = ["arm", "test set", *(f"pass@{k}" for k in ks), "tokens a stream"]
    return Table(f"{setup.upper()}: pass@k", columns, rows, "At temperature 0.8, means over seeds.")


def budgets(done: Done, setup: str) -> list[int]:
    """Even numbers of tokens up to the longest greedy stream."""
    every = [
        max(r["sets"][side]["tokens"]) for _, results in arms(done, setup) for r in results for side in SETS
    ]
    longest = max(every, default=POINTS)
    return sorted({max(1, round(longest * i / POINTS)) for i in range(1, POINTS + 1)})


def by_budget(results: Sequence[Result], side: str, grid: Sequence[int]) -> list[float]:
    """Accuracy within each budget, a mean over seeds."""
    told = [
        dict(accuracy_by_budget(r["sets"][side]["solved"], r["sets"][side]["tokens"], grid)) for r in results
    ]
    return [fmean(one[budget] for one in told) for budget in grid]


def budget_table(done: Done, setup: str) -> Table:
    """Accuracy of greedy streams that are cut off after so many tokens."""
    grid = budgets(done, setup)
    rows = [
        [NAMES[method], WORDS[side], *by_budget(results, side, grid)]
        for method, results in arms(done, setup)
        for side in SETS
    ]
    columns = ["arm", "test set", *(f"{budget} tokens" for budget in grid)]
    return Table(f"{setup.upper()}: accuracy against token budget", columns, rows)


def error_table(done: Done, setup: str) -> Table:
    """The paper's census of errors by stream."""
    rows: list[list[Value]] = []
    for method, results in arms(done, setup):
        for side in SETS:
            names = (*KINDS, "explored", "tokens")
            row = [fmean(mean(r, side, name) for r in results) for name in names]
            wrong = _known_mean([wrong_operations(r, side) for r in results])
            rows.append(
                [NAMES[method], WORDS[side], *row, wrong, 1 - fmean(mean(r, side, "ended") for r in results)]
            )
    columns = ["arm", "test set", *KINDS, "operations", "tokens", "wrong operations", "do not end"]
    note = "By greedy stream up to its first goal, means over seeds; the last two: shares of operations and of streams."
    return Table(f"{setup.upper()}: errors", columns, rows, note)


def hard_table(done: Done, setup: str) -> Table:
    """Unsolved and difficult problems."""
    rows: list[list[Value]] = []
    for method, results in arms(done, setup):
        row: list[Value] = [NAMES[method]]
        for group in HARD:
            some = [r for r in results if group in r["sets"]]
            row.append(sum(len(r["sets"][group]["solved"]) for r in some))
            row += mean_and_half([solved(r, group) for r in some]) if some else [None, None]
        rows.append(row)
    known = got(done, setup, "symbolic")
    shares = [
        f"{fmean(len(r['pool'][group]) / r['pool']['problems'] for r in known):.1%} are {group}"
        for group in HARD
        if known
    ]
    note = (
        "Problems with held-out inputs. Unsolved: the strategy that was drawn for the problem does not solve it; "
        f"difficult: none of the twelve does. Of {known[0]['pool']['problems'] if known else 0:,} problems a seed "
        f"{' and '.join(shares)}."
    )
    columns = ["arm", "unsolved", "of these solved", "±", "difficult", "of these solved", "±"]
    return Table(f"{setup.upper()}: unsolved and difficult problems", columns, rows, note)


def alignment_tables(done: Done, setup: str) -> list[Table]:
    """How alike each arm and each strategy are, in what is solved and in which states are visited."""
    found = arms(done, setup)
    phi, states = {}, {}
    for method, results in found:
        known = [
            done[setup, "symbolic", seed]
            for (where, name, seed), result in sorted(done.items())
            if (where, name) == (setup, method) and "failed" not in result
        ]
        phi[method] = [correlations(r, one) for r, one in zip(results, known, strict=True)]
        states[method] = [r["sets"][INPUTS]["states"] for r in results]
    names = list(phi["sos"][0]) if "sos" in phi else []

    def table(title: str, values: Mapping[str, Sequence[Mapping[str, float | None]]], note: str) -> Table:
        rows = [[name, *(_known_mean([one[name] for one in values[m]]) for m, _ in found)] for name in names]
        return Table(f"{setup.upper()}: {title}", ["strategy", *(NAMES[m] for m, _ in found)], rows, note)

    solves = "The correlation (phi) of what both solve, over all test problems; no figure where one solves all or none."
    visits = "States that both visit over those of the one that visits more, on the problems of the arms' own reports."
    return [
        table("alignment in what is solved", phi, solves),
        table("alignment in which states are visited", states, visits),
    ]


def _known_mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and value == value]
    return fmean(known) if known else None


def seed_table(done: Done, setup: str) -> Table:
    """Each comparison in each seed, with its interval over problems."""
    rows: list[list[Value]] = []
    for first, second in PAIRS:
        for seed in sorted({seed for where, _, seed in done if where == setup}):
            one, other = done.get((setup, first, seed)), done.get((setup, second, seed))
            if one is None or other is None or "failed" in one or "failed" in other:
                continue
            for side in SETS:
                change = paired_bootstrap(
                    other["sets"][side]["solved"], one["sets"][side]["solved"], samples=2000
                )
                low, high = change.bounds() or (None, None)
                rows.append(
                    [f"{NAMES[first]}, less {NAMES[second]}", WORDS[side], seed, change.estimate, low, high]
                )
    columns = ["comparison", "test set", "seed", "difference", "from", "to"]
    note = "Greedy accuracy on the same problems; 95% intervals from a paired bootstrap over problems."
    return Table(f"{setup.upper()}: seed by seed", columns, rows, note)


def plots(done: Done, setup: str) -> list[Plot]:
    """Accuracy against the tokens of a stream, on both test sets."""
    grid = budgets(done, setup)
    made: list[Plot] = []
    for side, name in WORDS.items():
        series = [
            Series(NAMES[method], list(grid), by_budget(results, side, grid))
            for method, results in arms(done, setup)
        ]
        title = f"{setup.upper()}: accuracy within so many tokens, {name}"
        if series:
            made.append(
                Plot(title, "tokens of a stream", "accuracy", series, "Greedy streams, means over seeds.")
            )
    return made
