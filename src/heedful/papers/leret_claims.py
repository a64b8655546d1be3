"""The claims of LeReT, from the results of arms alone. A value is made of the writers' means over test questions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np

from heedful.papers.leret_arms import NAMES, SIZES, Size, arms_of, numbered
from heedful.papers.leret_intervals import Means, Value, over_all, settled, tau
from heedful.papers.results import Claim, Tier
from heedful.papers.seeds import NO_LEAD, Done

TITLES = {
    "world": "generated world",
    "foldoc": "FOLDOC",
    "real-bm25": "real questions, BM25",
    "real-dense": "real questions, MiniLM",
}
LADDER = ("base", "few_shot", "cd", "leret")
STEPS = {
    ("few_shot", "base"): "HotpotQA, Llama: 64.8 against 54.7; Gemma: 66.7 against 70.9",
    ("cd", "few_shot"): "HotpotQA, Llama: 69.8 against 64.8; HoVer, Llama: 66.9 against 57.3",
    ("leret", "cd"): "HotpotQA, Llama: 77.1 against 69.8; HoVer, Llama: 76.9 against 66.9",
}
SMOKE = "not in the smoke tier, whose model has learned next to nothing"


def claims(done: Done, tier: Tier, setup: str, seeds: Sequence[int]) -> list[Claim]:
    """All claims about a setup."""
    size = SIZES[tier][setup]
    own = list(numbered(seeds, size))
    found: list[Claim] = []

    def say(
        text: str, paper: str, value: Value, bound: float = NO_LEAD, note: str = "", needs: Sequence[str] = ()
    ) -> None:
        full = f"{TITLES[setup]}: {text}"
        why = SMOKE if tier == "smoke" else _why_not(done, setup, size, own, needs)
        single, interval = ([], None) if tier == "smoke" else over_all(value, done, setup, own)
        if not single:
            found.append(Claim(full, paper, note=why or "not run yet"))
            return
        count = f"{len(single)} seed{'s' if len(single) > 1 else ''}"
        over = "seeds and questions" if len(single) > 1 else "questions alone, so of this one training"
        told = "; ".join(part for part in (note, f"{count}, interval over {over}", why) if part)
        holds = settled(single, interval, bound)
        found.append(Claim(full, paper, float(np.mean(single)), interval, holds, told))

    if size.data.kind == "real":
        _real(say)
        for run in (run for run in ADDED if run in size.runs):
            _added(say, run)
    else:
        _main(say, setup)
    return found


def _why_not(done: Done, setup: str, size: Size, seeds: Sequence[int], needs: Sequence[str]) -> str:
    """Why a writer has no result in some seeds."""
    left_out = [NAMES[name] for name in needs if name not in arms_of(size)]
    if left_out:
        return f"not among the runs of this setup, for their cost: {', '.join(left_out)}"
    reasons: dict[str, list[str]] = {}
    for seed in seeds:
        for name in needs:
            result = done.get((setup, name, seed), {})
            if "failed" in result:
                reasons.setdefault(result["failed"], []).append(f"seed {seed}, {NAMES[name]}")
    if len(reasons) == 1:
        return next(iter(reasons))
    return "; ".join(f"{', '.join(where)}: {why}" for why, where in reasons.items())


def recall(mean: Means, writer: str, hop: int = -1) -> np.ndarray:
    """The share of gold passages that are in the context after a hop; -1: the last."""
    return mean(writer, "recall", hop)


def lead(first: str, second: str, name: str = "recall") -> Value:
    """How far one writer is ahead of another one after the last hop."""
    return lambda mean: mean(first, name, -1) - mean(second, name, -1)


def gain(mean: Means, hop: int) -> np.ndarray:
    """What LeReT adds to the recall of the base model after a hop."""
    return recall(mean, "leret", hop) - recall(mean, "base", hop)


def least_growth(mean: Means) -> np.ndarray:
    """The least that the gain grows by from one hop to the next."""
    gains = [gain(mean, hop) for hop in range(mean.hops("leret"))]
    return reduce(np.minimum, [after - before for before, after in pairwise(gains)])


def closed(mean: Means) -> np.ndarray:
    """The share of the way from the base model to the feasible oracle that LeReT goes; NaN where there is no way."""
    way = recall(mean, "feasible") - recall(mean, "base")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(way > NO_LEAD, (recall(mean, "leret") - recall(mean, "base")) / way, np.nan)


def agreement(mean: Means) -> np.ndarray:
    """Kendall's tau of the writers' recall and their readers' exact match."""
    return tau([recall(mean, w) for w in LADDER], [mean(w, "em") for w in LADDER])


def informative(mean: Means) -> np.ndarray:
    """How much more often queries of different prompts differ in worth than queries of one prompt at a temperature."""
    return mean("leret", "informative") - mean("temperature", "informative")


def _main(say: Any, setup: str) -> None:
    for (better, worse), paper in STEPS.items():
        say(
            f"1. {NAMES[better]} finds more than {NAMES[worse]} (measured: the lead in recall after the last hop)",
            paper,
            lead(better, worse),
            needs=(better, worse),
        )
    say(
        "2. LeReT goes at least half the way from base to what can be known (measured: the share)",
        "a bar of our protocol",
        closed,
        bound=0.5,
        needs=("base", "leret"),
    )
    say(
        "2. LeReT is at least 4 points of recall ahead of LeReT-CD (measured: the lead)",
        "7.3 to 12.5 points",
        lead("leret", "cd"),
        bound=0.04,
        needs=("leret", "cd"),
    )
    say(
        "3. LeReT gains more with every hop (measured: the least that the gain over base grows by from hop to hop)",
        "HoVer, Llama: gains of 7.9, 19.8, 24.3 and 26.9 points",
        least_growth,
        needs=("base", "leret"),
    )
    say(
        "4. readers answer better where more is found: exact match ranks base, few-shot, LeReT-CD and LeReT as recall "
        "does (measured: Kendall's tau)",
        "HotpotQA, Llama: 41.0, 47.1, 49.3 and 52.5",
        agreement,
        bound=0.5,
        note="the reader is a rule that answers right where all is found"
        if setup == "world"
        else "the reader is a rule",
        needs=LADDER,
    )
    say(
        "5. few-shot prompts give more questions with queries of different worth than a temperature does (measured: "
        "how much larger their share is)",
        "claimed, no number at hand",
        informative,
        needs=("leret", "temperature"),
    )
    say(
        "5. queries of few-shot prompts teach more than as many by temperature (measured: the lead in recall)",
        "claimed, no number at hand",
        lead("leret", "temperature"),
        needs=("leret", "temperature"),
    )
    say(
        "6. two iterations do not find less than one over the same questions (measured: the lead in recall)",
        "two beat one, no number at hand",
        lead("iterative", "leret"),
        bound=0.0,
        needs=("iterative", "leret"),
    )
    say(
        "7. with another retriever, and trained with it, LeReT finds more than base (measured: the lead in recall)",
        "with Azure AI Search in place of ColBERT, no number at hand",
        lead("leret_dense", "base_dense"),
        needs=("leret_dense", "base_dense"),
    )


def _real(say: Any) -> None:
    for better, worse in (("few_shot", "base"), ("leret", "base"), ("leret", "few_shot")):
        say(
            f"{NAMES[better]} finds more than {NAMES[worse]} (measured: the lead in recall after two hops)",
            "HotpotQA, Llama: 54.7 base, 64.8 few-shot, 77.1 LeReT",
            lead(better, worse),
            needs=(better, worse),
        )
    for rule, words in (
        ("passage", "a naive second query"),
        ("double", "the question with twice the passages"),
    ):
        say(
            f"LeReT finds more than {words} (measured: the lead in recall after two hops)",
            "not in the paper",
            lead("leret", rule),
            needs=("leret",),
        )


ADDED: dict[str, tuple[str, str, tuple[tuple[str, str], ...]]] = {
    "with_rules": (
        "LeReT that tries the question and the best passage's title too",
        "added when LeReT alone was seen to find no more than rules",
        (
            ("leret", "LeReT"),
            ("question", "the question alone"),
            ("passage", "a naive second query"),
        ),
    ),
    "fresh": (
        "LeReT where passages found before are skipped for the next best",
        "added when LeReT was seen to ask the question again",
        (
            ("base_fresh", "base where they are skipped"),
            ("few_shot_fresh", "few-shot where they are skipped"),
            ("leret", "LeReT where they are kept"),
            ("passage", "a naive second query"),
            ("double", "the question with twice the passages"),
        ),
    ),
}
"""By run that the paper does not have: what it is called, why it was added, and what it is compared with."""


def _added(say: Any, run: str) -> None:
    called, note, others = ADDED[run]
    for other, words in others:
        say(
            f"{called} finds more than {words} (measured: the lead in recall after two hops)",
            "not in the paper",
            lead(run, other),
            note=note,
            needs=(run,),
        )
