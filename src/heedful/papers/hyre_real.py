"""HyRe on real answers: five kinds of persons, as rules over what ten generators wrote to the prompts of AlpacaEval.

concise and verbose prefer fewer and more words, plain and markdown fewer and more marks (list items, headings, bold),
strong prefers the generator that GPT-4 prefers. Training persons label pairs of the training prompts, all of them
mixed; a held-out person labels a few pairs of other prompts and is tested on the rest. A tenth of all labels is wrong,
of the test none. A pair that a rule is indifferent to is not asked about.

Two worlds: a new person of a known kind, and a person of a kind that no training person had.

Letters: N pairs, D features, n labels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.evals import texts
from heedful.judges import probes
from heedful.judges.answer_features import STYLE, AnswerFeatures, How, pair_features
from heedful.judges.personal import PersonalReward
from heedful.papers.hyre_cases import ARMS, WORDS, Person, mean_over, scored, served, worst
from heedful.papers.results import Claim, Part, Plot, Series, Table, Tier
from heedful.papers.rlaif_verdicts import OUTPUTS, data_folder, read, shuffled
from heedful.papers.seeds import bounded, over_seeds
from heedful.run import Run

Array = NDArray[np.float64]
KINDS = ("concise", "verbose", "plain", "strong", "markdown")
EACH, PER_PROMPT, WRONG = 5, 12, 0.1
"""Training persons of each kind; pairs of each prompt; share of labels that are wrong."""
PARTS = (0.6, 0.8)
"""Where, of the prompts, those of the labels begin, and those of the test."""
COUNTS, DRAWS, MOST_SEEDS = (1, 5, 10, 20), 20, 5
BUILDERS = ("prior", "bootstrap", "pca", "annotator", "mixture", "epinet")
UNSEEN_BUILDERS = ("prior", "pca", "annotator")
FEATURES = {"words and style": True, "words": False}
STRENGTH = {
    "gpt4": 0.96, "gpt4_0613": 0.96, "gpt4_0613_concise": 0.96, "gpt4_0613_verbose": 0.96,
    "gpt-3.5-turbo-0301": 0.90, "text_davinci_003": 0.5, "phi-2": 0.30, "alpaca-7b": 0.26,
    "text_davinci_001": 0.14,
}  # fmt: skip
"""Share of GPT-4's verdicts won against text_davinci_003, in the verdicts that come with the answers; those of gpt4
stand for its later versions, and gemma-2b-it has none."""


@dataclass(frozen=True)
class Answers:
    """Pairs of answers to the same prompts.

    pairs: (prompt, one, other); part: (N,) 0 training, 1 labels, 2 test; wants: by kind (N,), above 0 where the kind
    prefers the first answer, 0 where it does not mind.
    """

    pairs: list[tuple[str, str, str]]
    part: NDArray[np.int64]
    wants: dict[str, Array]


def marks(text: str) -> float:
    """List items, headings and bold passages."""
    return sum(STYLE[name](text) for name in ("list items", "headings", "bold"))


def answers_of(rows: Sequence[dict[str, Any]], seed: int, prompts: int = 0) -> Answers:
    """Pairs and what each kind of person makes of them. prompts: at most so many, 0 for all."""
    by_prompt: dict[str, dict[str, str]] = {}
    asked: dict[str, str] = {}
    for row in rows:
        if row["response"].strip():
            by_prompt.setdefault(row["prompt_id"], {})[row["generator"]] = row["response"]
            asked[row["prompt_id"]] = row["prompt"]
    order = shuffled(sorted(by_prompt), f"hyre {seed}")[: prompts or None]
    rng = np.random.default_rng([seed, 40])
    pairs, part, told = [], [], {kind: [] for kind in KINDS}
    for i, prompt in enumerate(order):
        given = by_prompt[prompt]
        both = list(combinations(sorted(given), 2))
        for at in rng.permutation(len(both))[:PER_PROMPT]:
            one, other = both[at] if rng.random() < 0.5 else both[at][::-1]
            pairs.append((asked[prompt], given[one], given[other]))
            part.append(sum(i / len(order) >= start for start in PARTS))
            words = len(texts.words(given[one])) - len(texts.words(given[other]))
            marked = marks(given[one]) - marks(given[other])
            known = one in STRENGTH and other in STRENGTH
            stronger = STRENGTH[one] - STRENGTH[other] if known else 0.0
            values = {
                "concise": -words,
                "verbose": words,
                "plain": -marked,
                "strong": stronger,
                "markdown": marked,
            }
            for kind, value in values.items():
                told[kind].append(float(value))
    return Answers(pairs, np.array(part), {kind: np.array(value) for kind, value in told.items()})


def features_of(answers: Answers, style: bool, seed: int, folder: Path, key: str) -> tuple[Array, Array]:
    """(first, second), (N, D) each: TF-IDF, its SVD, and counts of style if wanted, learned from the training pairs."""
    how = How(name="tfidf", style=style)
    make = pair_features(how.name)
    parts = probes.cached_parts(folder, key, len(answers.pairs), lambda: answers.pairs, make)
    train = answers.part == 0
    some = [pair for pair, here in zip(answers.pairs, train, strict=True) if here]
    made = AnswerFeatures.learn(how, parts, train, some, seed=seed)
    first, second = made.placed(parts, np.ones(len(train), bool), answers.pairs)
    return first.astype(float), second.astype(float)


def fitted(
    answers: Answers, sides: tuple[Array, Array], builder: Any, kinds: Sequence[str], seed: int
) -> PersonalReward:
    """Heads of a builder on the training pairs, each labelled by one of the persons of these kinds, scaled by the
    pairs that labels are asked for."""
    rng = np.random.default_rng([seed, 41])
    train = np.flatnonzero(answers.part == 0)
    person = rng.integers(0, EACH * len(kinds), len(train))
    wants = np.stack([answers.wants[kind][train] for kind in kinds])[person // EACH, np.arange(len(train))]
    wrong = rng.random(len(train)) < WRONG
    kept = wants != 0
    wins = (wants > 0) ^ wrong
    at, first = train[kept], wins[kept, None]
    chosen = np.where(first, sides[0][at], sides[1][at])
    rejected = np.where(first, sides[1][at], sides[0][at])
    names = [f"{kinds[p // EACH]} {p % EACH + 1}" for p in person[kept]]
    who = names if builder in ("annotator", "mixture") else None
    heads = len(kinds) if builder == "mixture" else 100
    reward = PersonalReward(builder=builder, heads=heads, seed=seed).fit(chosen, rejected, annotators=who)
    pool = answers.part == 1
    return reward.set_pool(sides[0][pool], sides[1][pool])


def person_of(answers: Answers, sides: tuple[Array, Array], kind: str, seed: int, draw: int) -> Person:
    """One draw of a held-out person's labels; the test pairs are the same for all draws of a seed."""
    wants = answers.wants[kind]
    rng = np.random.default_rng([seed, 42, KINDS.index(kind), draw])
    given = rng.choice(np.flatnonzero((answers.part == 1) & (wants != 0)), COUNTS[-1], replace=False)
    test = np.flatnonzero((answers.part == 2) & (wants != 0))
    labels = ((wants[given] > 0) ^ (rng.random(len(given)) < WRONG)).astype(float)
    first, second = sides
    return Person(first[given], second[given], labels, first[test], second[test], wants[test] > 0)


def one_seed(rows: Sequence[dict[str, Any]], seed: int, tier: Tier, folder: Path) -> dict[str, Any]:
    """All arms: {world: {features: {builder: {kind: ...}}}}, mean over draws."""
    answers = answers_of(rows, seed, 0 if tier == "main" else 80)
    draws = DRAWS if tier == "main" else 3
    found: dict[str, Any] = {"known": {}, "unseen": {}}
    for name, style in FEATURES.items():
        sides = features_of(answers, style, seed, folder, f"hyre {tier} {seed} 1")
        people = {kind: [person_of(answers, sides, kind, seed, d) for d in range(draws)] for kind in KINDS}

        def all_draws(
            reward: PersonalReward, kind: str, people: dict[str, list[Person]] = people
        ) -> dict[str, Any]:
            ready = scored(reward, people[kind][0])
            return mean_over([served(reward, person, COUNTS, ready) for person in people[kind]])

        found["known"][name], found["unseen"][name] = {}, {}
        for builder in BUILDERS:
            reward = fitted(answers, sides, builder, KINDS, seed)
            found["known"][name][builder] = {kind: all_draws(reward, kind) for kind in KINDS}
        for builder in UNSEEN_BUILDERS:
            found["unseen"][name][builder] = {}
            for kind in KINDS:
                others = [other for other in KINDS if other != kind]
                reward = fitted(answers, sides, builder, others, seed)
                found["unseen"][name][builder][kind] = all_draws(reward, kind)
    return found


def real_part(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Part:
    """The claims about real answers; "not run" where the data is not there or the time is up."""
    folder = data_folder()
    done = []
    if folder is not None:
        rows = read(folder / OUTPUTS)
        for seed in seeds[:MOST_SEEDS]:
            if until is None or time.monotonic() < until:
                make = partial(one_seed, rows, seed, tier, run.path("features"))
                done.append(run.once(f"real/seed{seed}.json", make))
    claims = _claims(done)
    if folder is None:
        note = "not run: ../shared/data/preferences is not there"
        return Part([Claim(one.claim, one.paper, note=note) for one in claims])
    if tier == "smoke":
        note = "not in the smoke tier, which has a tenth of the prompts and 3 draws"
        claims = [Claim(one.claim, one.paper, note=note) for one in claims]
    return Part(claims, _tables(done), _plots(done), [ABOUT]) if done else Part(claims)


ABOUT = (
    "Real answers: TF-IDF of words, its SVD, with and without counts of style; MiniLM is not used. Persons are rules, "
    "so their tastes are sharper than people's."
)
WITH = "words and style"


def kind_mean(found: dict[str, Any], arm: str, at: int) -> float:
    """Mean over the five kinds; found: {kind: ...} of one builder."""
    return float(np.mean([found[kind][arm][at] for kind in KINDS]))


def _claims(done: Sequence[dict[str, Any]]) -> list[Claim]:
    def lead(world: str, builder: str, a: str, b: str, count: int, features: str = WITH) -> list[float]:
        at = COUNTS.index(count)
        heads = [one[world][features][builder] for one in done]
        return [kind_mean(found, a, at) - kind_mean(found, b, at) for found in heads]

    none = "not in the paper; it has +20% over 32 tasks (abstract)"
    made = []
    for builder, words in (("prior", "random priors"), ("annotator", "one of each training person")):
        made.append(
            bounded(
                f"Real answers, known kinds, heads with {words}: five labels are better than the uniform mean by .05 "
                "(measured: the gain, mean over kinds)",
                none,
                lead("known", builder, "reweighting", "uniform", 5),
                0.05,
            )
        )
    for builder, words, count in (
        ("prior", "random priors", 20),
        ("annotator", "one of each training person", 5),
        ("annotator", "one of each training person", 20),
    ):
        made.append(
            bounded(
                f"Real answers, known kinds, heads with {words}: with {count} labels reweighting is better than "
                "fine-tuning, by cross-validation (measured: the lead, mean over kinds)",
                none,
                lead("known", builder, "reweighting", "fine_tuned", count),
                1e-9,
            )
        )
    made.append(
        bounded(
            "Real answers, a kind that no training person had, heads with one of each training person: with 5 labels "
            "reweighting is better than fine-tuning, by cross-validation (measured: the lead, mean over kinds)",
            none,
            lead("unseen", "annotator", "reweighting", "fine_tuned", 5),
            1e-9,
        )
    )
    cells = []
    for one in done:
        row = []
        for found in (
            f for world in one.values() for by_builder in world.values() for f in by_builder.values()
        ):
            for at in range(1, len(COUNTS)):
                best = max(kind_mean(found, arm, at) for arm in ("reweighting", "single"))
                row.append(kind_mean(found, "diagnosed", at) - best)
        cells.append(row)
    made.append(
        worst(
            "Real answers, all worlds, features and heads: from five labels on, what the diagnosis uses is at most .02 "
            "below the better of reweighting and the single head (measured: the worst mean over kinds and seeds)",
            cells,
            -0.02,
        )
    )
    return made


def _tables(done: Sequence[dict[str, Any]]) -> list[Table]:
    labels = [f"{n} label{'s' if n > 1 else ''}" for n in COUNTS]
    titles = {
        "known": "a new person of a known kind",
        "unseen": "a person of a kind that no training person had",
    }
    tables = []
    for world, title in titles.items():
        rows = []
        for features in FEATURES:
            for builder in done[0][world][features]:
                found = [one[world][features][builder] for one in done]
                for arm in (*ARMS, "effective"):
                    values = [
                        np.mean([kind_mean(one, arm, at) for one in found]) for at in range(len(COUNTS))
                    ]
                    name = WORDS.get(arm, "effective heads")
                    rows.append([features, builder, name, *(round(float(v), 3) for v in values)])
        note = f"Mean over the five kinds, {len(done)} seed(s), up to {DRAWS} draws of the labels each."
        tables.append(Table(f"Real answers: {title}", ["features", "heads", "arm", *labels], rows, note))
    rows = []
    for builder in done[0]["known"][WITH]:
        for arm in ("single", "fine_tuned", "reweighting", "diagnosed"):
            at = COUNTS.index(5)
            values = [np.mean([one["known"][WITH][builder][kind][arm][at] for one in done]) for kind in KINDS]
            rows.append([builder, WORDS[arm], *(round(float(v), 3) for v in values)])
    tables.append(Table(f"Real answers: by kind, five labels, {WITH}", ["heads", "arm", *KINDS], rows))
    return tables


def _plots(done: Sequence[dict[str, Any]]) -> list[Plot]:
    series = []
    for builder, arm in (
        ("annotator", "uniform"),
        ("annotator", "fine_tuned"),
        ("prior", "reweighting"),
        ("pca", "reweighting"),
        ("annotator", "reweighting"),
    ):
        at = [
            over_seeds([kind_mean(one["known"][WITH][builder], arm, i) for one in done])
            for i in range(len(COUNTS))
        ]
        low, high = ([ends[side] if ends else None for _, ends in at] for side in (0, 1))
        name = f"{WORDS[arm]}, {builder} heads" if arm == "reweighting" else WORDS[arm]
        series.append(Series(name, list(COUNTS), [value for value, _ in at], low, high))
    return [Plot("Real answers: a new person of a known kind", "labels", "accuracy, mean over kinds", series)]
