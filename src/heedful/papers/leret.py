"""LeReT: grounding by trying, language models that learn what to search for (Hsu et al. 2024, arXiv 2410.23214).

The paper's text was not at hand: its figures are those of its results table, and its ablations, whose numbers are not
public, say "no number at hand". It has Llama-3-8B and Gemma-2-9B on HotpotQA and HoVer over all of Wikipedia. Here, on
a CPU's budget:

1. SmolLM2-135M with adapters, on three sets of questions: a generated world and FOLDOC, three seeds each, and 200 real
   questions of HotpotQA and MuSiQue over 13,921 passages, one split, with BM25 and with MiniLM.
2. Two hops everywhere, some 50 training questions a seed where the paper has 22,612, and 40 words of each passage.
3. The arms by temperature, with two iterations and with another retriever have one seed, in the world alone. Not run at
   all, for their cost, but to be had with options of `heedful retrieve train`: DPO, recall as reward, all pairs,
   rewards by answers, SFT on all samples, demonstrations of the first hop alone.
4. In the world learning rates are chosen on dev questions of the first seed, two values each for imitation and for
   preferences; FOLDOC and the real questions have the defaults of `heedful retrieve train`. Few-shot prompts are chosen
   on training questions, as in the paper; the temperature of the arm that has one is fixed at 1. No test question has a
   part in any choice.
5. Demonstrations are of all hops: a small model does not carry over what it saw of the first hop. Each of three prompts
   writes two queries, at a temperature of 0.7 (four at 1 in the world, where the model is surer of what it writes); the
   paper's four prompts write one each, nearly greedily.
6. The passages are searched with BM25, and with MiniLM where another retriever is asked for; the paper has ColBERT.
7. The readers are rules, not a large model: in the world one that answers right where all is found. The real questions
   are not answered.
8. In the world SmolLM2 practises first on 300 questions of another world: half of the queries it imitates are right,
   half ask for a name that the best passage happens to mention, and half of them follow demonstrations of the same
   way. Without that it writes answers, not queries: in a trial none of 288 second queries found what was missing, so
   that there was nothing to learn from, nor did any of 32 after three, six or ten demonstrations of right ones. The
   paper's models read well enough. FOLDOC and the real questions have SmolLM2 as it comes.
9. See `heedful retrieve train` for what training does otherwise than the paper's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from heedful.papers.leret_arms import NAMES, SIZES, Size, arms_of, numbered, run_arms
from heedful.papers.leret_claims import TITLES, claims
from heedful.papers.leret_page import plots, tables
from heedful.papers.leret_setups import missing
from heedful.papers.results import Part, Results, Tier, joined
from heedful.papers.seeds import Done, setup_by_setup

if TYPE_CHECKING:
    from heedful.run import Run

TITLE = "LeReT: grounding by trying"
SEEDS = {"smoke": 1, "main": 3}


def run(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Results:
    """Every setup, one after the other; see `heedful.papers.reproduce` for what is filled in afterwards."""
    sizes = SIZES[tier]
    parts = [
        setup_part(done, tier, setup, own)
        for setup, own, done in setup_by_setup(
            {setup: list(numbered(seeds, size)) for setup, size in sizes.items()},
            lambda setup, seed, until: run_arms(tier, setup, seed, run, until),
            lambda setup, seed: arms_of(sizes[setup], seed),
            until,
        )
    ]
    budget = Part(notes=[told] if (told := budget_of(tier)) else [])
    return joined("leret", TITLE, [*parts, budget])


def setup_part(done: Done, tier: Tier, setup: str, seeds: Sequence[int]) -> Part:
    """Claims, tables and plots of a setup."""
    return Part(
        claims(done, tier, setup, seeds),
        tables(done, setup, seeds),
        plots(done, setup, seeds),
        notes(done, setup, SIZES[tier][setup], seeds),
    )


def budget_of(tier: Tier) -> str:
    """What the tier should take; "" where it is minutes."""
    hours = {setup: size.hours for setup, size in SIZES[tier].items() if size.hours}
    if not hours:
        return ""
    each = ", ".join(f"{TITLES[setup]} {h:g}" for setup, h in hours.items())
    return (
        f"Budget: about {sum(hours.values()):.1f} hours of one free CPU core, as estimated from a trial before it was "
        f"run, and before the world had practice ({each}); "
        "sizes were chosen to fit it."
    )


def notes(done: Done, setup: str, size: Size, seeds: Sequence[int]) -> list[str]:
    """What was trained, how many arms are done, and why others are not."""
    title = TITLES[setup][0].upper() + TITLES[setup][1:]
    why = missing(size.data, size.retriever())
    if why and not any(r.get("recall") for (where, *_), r in done.items() if where == setup):
        return [f"{title}: not run, {why}."]
    data, options = size.data, size.options
    start = "a decoder made here in seconds" if data.writer else "SmolLM2-135M with an adapter"
    if data.practice:
        start += f", after practice on {data.practice} questions of another world"
    every = [(setup, name, seed) for seed in seeds for name in arms_of(size, seed)]
    count = sum(arm in done for arm in every)
    told = [
        f"{title}: {data.train} questions to learn from and {data.test} to be tested on for each seed, "
        f"{options['hops']} hops of {options['k']} passages by {options.get('retriever', 'bm25')}; "
        f"the model is {start}.",
        f"{title}: {count} of {len(every)} arms are done.",
    ]
    failed = {
        (NAMES[name], seed): result["failed"]
        for (where, name, seed), result in sorted(done.items())
        if where == setup and name in NAMES and "failed" in result
    }
    told += [f"{title}, seed {seed}, {name}: no result, {reason}." for (name, seed), reason in failed.items()]
    return told
