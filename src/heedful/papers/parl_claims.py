"""The claims of PA-RL, from the results of arms alone. A value is one number per seed; intervals are over seeds, and
one seed decides nothing. Where a claim is about several classes of policies, it is about the mean over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

from heedful.papers.parl_arms import GOAL, arms_of, at, episodes_to_goal, marks, raw
from heedful.papers.parl_sizes import NOISE, SIZES, Setup
from heedful.papers.results import Claim, Tier
from heedful.papers.seeds import Done, Get, Result, claim

Value = Callable[[Callable[[str], Result]], float]
"""From what gives the results of one class, by arm, of a seed, to a number."""
AHEAD = "40 to 70%, 50 to 90% and 50 to 100% on real robots, online (their site)"
NOT_THERE = "not in the paper; its reviewers missed it"
CHOICE, BEST = "critic's choice", "offline, critic's choice"


def reranked(of: Callable[[str], Result]) -> float:
    """Success of the best of the clone's samples, by a critic whose targets are ranked and not climbed."""
    return at(of("global"), CHOICE, "search")


def claims(done: Done, tier: Tier, name: str, seeds: Sequence[int]) -> list[Claim]:
    """All claims about a setup; those about arms that it does not have are left out."""
    setup, found = SIZES[tier][name], []
    there = {arm for _, arm in arms_of(setup)}
    data = "near-optimal actions" if setup.near else "no near-optimal actions"

    def say(text: str, paper: str, value: Value, needs: Sequence[str], kinds: Sequence[str]) -> None:
        kinds = [kind for kind in kinds if kind in setup.policies]
        if not kinds or not there.issuperset(needs):
            return

        def over_kinds(get: Get) -> float:
            return fmean(value(lambda arm, kind=kind: get(name, f"{kind}/{arm}")) for kind in kinds)

        made = claim(f"{setup.about}: {text}", paper, over_kinds, done, tier, seeds)
        found.append(_with_failures(made, done, name, [f"{k}/{arm}" for k in kinds for arm in needs]))

    every = setup.policies
    for kind in every:
        say(
            f"the {kind} policy that learned improved actions succeeds more often, by itself, than the clone it was "
            "(measured: how much)",
            AHEAD,
            lambda of: raw(of("parl")) - raw(of("clone")),
            ("clone", "parl"),
            (kind,),
        )
    say(
        "the clone succeeds more often where its samples are ranked by the critic (measured: how much)",
        "ranking alone is what IDQL does; no number for it with this critic",
        lambda of: reranked(of) - raw(of("clone")),
        ("clone", "global"),
        every,
    )
    say(
        "the best of the clone's samples succeed more often where they are climbed from than where they are ranked "
        "alone (measured: how much)",
        "climbing helps on narrow data (a review)",
        lambda of: at(of("parl"), CHOICE, "search") - reranked(of),
        ("parl", "global"),
        every,
    )
    say(
        "PA-RL's policy is ahead of weighted cloning by a critic of the same kind, both acting by themselves; the data "
        f"have {data} (measured: the lead)",
        NOT_THERE,
        lambda of: raw(of("parl")) - raw(of("awr")),
        ("parl", "awr"),
        every,
    )
    say(
        "PA-RL is ahead of IDQL, both acting by the critic's choice (measured: the lead)",
        "ahead offline on 7 of 8 tasks, all but kitchen-complete (read off a figure of their site)",
        lambda of: at(of("parl"), BEST, "search") - at(of("idql"), CHOICE, "search"),
        ("parl", "idql"),
        NOISE,
    )
    for arm, without, paper in (
        ("global", "climbing", "climbing helps on narrow data (a review)"),
        ("local", "ranking", "ranking is essential on diverse data (a review)"),
    ):
        say(
            f"PA-RL's policy by itself is worse without {without} (measured: how much)",
            paper,
            lambda of, arm=arm: raw(of("parl")) - raw(of(arm)),
            ("parl", arm),
            every,
        )
    if "online-parl" in there:
        found += online_claims(done, tier, name, setup, seeds)
    return found


def online_claims(done: Done, tier: Tier, name: str, setup: Setup, seeds: Sequence[int]) -> list[Claim]:
    """What episodes collected in the environment are worth."""

    def of(get: Get, arm: str, kind: str = "diffusion") -> Result:
        return get(name, f"{kind}/{arm}")

    def sooner(get: Get, arm: str, kind: str) -> float:
        return float(episodes_to_goal(of(get, arm, kind)) - episodes_to_goal(of(get, "online-parl")))

    values: list[tuple[str, str, Callable[[Get], float], str]] = [
        (
            "PA-RL succeeds more often after its online episodes than before them (measured: how much)",
            "on all tasks (read off a figure of their site)",
            lambda get: marks(of(get, "online-parl"))[-1][1] - marks(of(get, "online-parl"))[0][1],
            "diffusion/online-parl",
        ),
        (
            f"PA-RL is the first to reach {GOAL:.0%} success, before Cal-QL of a Gaussian (measured: how many "
            "episodes earlier)",
            "ahead on the large mazes, equal on the small ones (read off a figure of their site)",
            lambda get: sooner(get, "online-calql", "gaussian"),
            "gaussian/online-calql",
        ),
        (
            f"PA-RL is the first to reach {GOAL:.0%} success, before IDQL with a frozen policy (measured: how many "
            "episodes earlier)",
            "ahead on all tasks (read off a figure of their site)",
            lambda get: sooner(get, "online-idql", "diffusion"),
            "diffusion/online-idql",
        ),
    ]
    made = []
    for text, paper, value, arm in values:
        one = claim(f"{setup.about}: {text}", paper, value, done, tier, seeds)
        made.append(_with_failures(one, done, name, [arm, "diffusion/online-parl"]))
    return made


def _with_failures(made: Claim, done: Done, name: str, arms: Sequence[str]) -> Claim:
    reasons = sorted(
        f"{arm}, seed {seed}: {result['failed']}"
        for (where, arm, seed), result in done.items()
        if where == name and arm in arms and "failed" in result
    )
    if not reasons:
        return made
    return replace(made, note="; ".join([*([made.note] if made.note else []), *reasons]))
