"""The claims of Stream of Search, from the results of arms alone. A value is one number per seed; intervals are over
seeds, each with test problems of its own, and one seed decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from heedful.papers.results import Claim, Tier
from heedful.papers.seeds import Done, Get, claim
from heedful.papers.sos_arms import LEAST_SOLVED, MOST_WRONG, NAMES, SIZES
from heedful.papers.sos_measure import (
    INPUTS,
    TARGETS,
    WORDS,
    correlations,
    equal_tries,
    mean,
    passed,
    solved,
    wrong_operations,
)

PAPER = "K = 4, 257 million parameters"
OP = f"{PAPER}: 51.3% against 25.7% (second hand)"
FIGURES = {
    ("star", INPUTS): f"{PAPER}: about 56% against 51.3% (second hand)",
    ("star", TARGETS): "no number at hand",
    ("apa", INPUTS): f"{PAPER}: 56.5% against 50.5% (their code's logs)",
    ("apa", TARGETS): f"{PAPER}: 54.2% after APA (their code's logs)",
    ("star", "unsolved"): f"{PAPER}: 36.4% against 29.3%",
    ("apa", "unsolved"): f"{PAPER}: 35.9% against 29.3%",
    ("star", "difficult"): f"{PAPER}: 4.0% against 1.4%",
    ("apa", "difficult"): f"{PAPER}: 2.7% against 1.4%",
    ("star", "arithmetic"): f"{PAPER}: 1.93 against 2.25 a stream",
    ("apa", "arithmetic"): f"{PAPER}: 0.67 against 2.25 a stream",
}
BUDGETS = {"op_tokens": "the same tokens of the optimiser", "op_problems": "the same problems"}
Say = Callable[..., None]


def claims(done: Done, tier: Tier, setup: str, seeds: Sequence[int]) -> list[Claim]:
    """All claims about a setup; those about arms that it does not have are left out."""
    found: list[Claim] = []
    size, numbers = SIZES[tier][setup], setup.upper()

    def say(text: str, paper: str, value: Callable[[Get], float], *, of: str = "", **limit: Any) -> None:
        made = claim(f"{numbers}: {text}", paper, value, done, tier, seeds, **limit)
        why = _why_not(of, setup, done)
        if why:
            made = replace(made, note="; ".join([made.note, why] if made.measured is not None else [why]))
        found.append(made)

    def of(get: Get, method: str) -> Any:
        return get(setup, method)

    if "star" in size.arms:
        _gate(say, of)
    for op, budget in BUDGETS.items():
        _ahead(say, of, op, budget, size.tries)
    say(
        "one greedy stream of SoS solves more than as many optimal paths as its tokens pay for, where any of them may "
        "be right, on held-out inputs (measured: the lead)",
        "not in the paper; parallel answers beat searches at equal compute in Qin et al. 2025 (2504.07052)",
        lambda get: (
            solved(of(get, "sos"), INPUTS)
            - passed(of(get, "op_tokens"), INPUTS, equal_tries(of(get, "sos"), of(get, "op_tokens"), INPUTS))
        ),
    )
    say(
        "SoS solves fewer problems with held-out targets than with held-out inputs (measured: how many fewer)",
        "a bit lower (second hand)",
        lambda get: solved(of(get, "sos"), INPUTS) - solved(of(get, "sos"), TARGETS),
    )
    say(
        "what SoS solves goes along with what DFS-sum solves more than with any other strategy (measured: its "
        "correlation less the highest other one)",
        f"{PAPER}: highest with DFS-sum, about .57 (second hand)",
        lambda get: _ahead_of_others(correlations(of(get, "sos"), of(get, "symbolic")), "dfs-sum"),
    )
    for method in ("star", "apa"):
        if method in size.arms:
            _improves(say, of, method)
    return found


def _why_not(method: str, setup: str, done: Done) -> str:
    """Why a method has no result in some seeds."""
    reasons = [
        f"seed {seed}: {result['failed']}"
        for (where, name, seed), result in sorted(done.items())
        if (where, name) == (setup, method) and "failed" in result
    ]
    return "; ".join(reasons)


def _gate(say: Say, of: Callable[[Get, str], Any]) -> None:
    ours = "a gate of our protocol: without it there is nothing to learn from"
    say(
        f"SoS computes fewer than {MOST_WRONG:.0%} of its operations wrongly (measured: the share)",
        ours,
        lambda get: wrong_operations(of(get, "sos")),
        bound=MOST_WRONG,
        above=False,
    )
    say(
        f"SoS solves more than {LEAST_SOLVED:.0%} of problems with held-out inputs (measured: the share)",
        ours,
        lambda get: solved(of(get, "sos"), INPUTS),
        bound=LEAST_SOLVED,
    )


def _ahead(say: Say, of: Callable[[Get, str], Any], op: str, budget: str, tries: int) -> None:
    for side, name in WORDS.items():
        said = OP if side == INPUTS else "similar (second hand)"
        say(
            f"SoS is ahead of optimal paths, with {budget}, on {name}, greedily (measured: the lead)",
            said,
            lambda get, side=side: solved(of(get, "sos"), side) - solved(of(get, op), side),
        )
        say(
            f"SoS is ahead of optimal paths, with {budget}, on {name}, in pass@{tries} (measured: the lead)",
            "not in the paper",
            lambda get, side=side: passed(of(get, "sos"), side) - passed(of(get, op), side),
        )


def _improves(say: Say, of: Callable[[Get, str], Any], method: str) -> None:
    title = NAMES[method].rpartition(" ")[2]
    control = f"more_{method}"
    for side, name in WORDS.items():
        say(
            f"{title} solves more than SoS, on {name} (measured: the gain)",
            FIGURES[method, side],
            lambda get, side=side: solved(of(get, method), side) - solved(of(get, "sos"), side),
            of=method,
        )
    say(
        f"{title} solves more than SoS trained on with as much compute, on held-out inputs (measured: the lead)",
        "not in the paper",
        lambda get: solved(of(get, method), INPUTS) - solved(of(get, control), INPUTS),
        of=method,
    )
    for group in ("unsolved", "difficult"):
        say(
            f"{title} solves more of the {group} problems than SoS (measured: the gain)",
            FIGURES[method, group],
            lambda get, group=group: solved(of(get, method), group) - solved(of(get, "sos"), group),
            of=method,
        )
    say(
        f"{title} solves at least 36% of the unsolved problems (measured: the share)",
        f"{FIGURES[method, 'unsolved'].partition(' against')[0]}; 36% in the abstract",
        lambda get: solved(of(get, method), "unsolved"),
        of=method,
        bound=0.36,
    )
    say(
        f"{title} makes fewer errors of arithmetic a stream than SoS, on held-out inputs (measured: how many fewer)",
        FIGURES[method, "arithmetic"],
        lambda get: mean(of(get, "sos"), INPUTS, "arithmetic") - mean(of(get, method), INPUTS, "arithmetic"),
        of=method,
    )


def _ahead_of_others(values: dict[str, float], name: str) -> float:
    known = {key: value for key, value in values.items() if value == value}
    others = [value for key, value in known.items() if key != name]
    return known[name] - max(others) if name in known and others else float("nan")
