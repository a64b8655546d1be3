"""A small world of text for preference tuning: templated descriptions of very different length, a small transformer
that has learned to write them (pi_ref), and pairs of its own answers under several labels.

Lengths are those of a gamma law (mean about 40 tokens). Labels, as in section 4 of Tajwar et al. 2024:

- min: the shorter answer is preferred. No answer that pi_ref has seen is as short as the best ones.
- mode: the answer nearer to pi_ref's mean length is preferred.
- skew: min, on pairs half of which are cut to lengths of an exponential law, so that they hardly cover pi_ref. A cut
  answer ends where it was cut: its end token is learned from as any other.
- gold: a graded reward of what is described, with Bradley-Terry noise; see `gold`.

This file names no torch at its top: `gold` is also loaded as a judge.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from heedful.evals.texts import words
from heedful.run import derive_seed

if TYPE_CHECKING:
    from heedful.recipes.prefer import Config
    from heedful.run import Run

Label = Literal["min", "mode", "skew", "gold"]

PLACES = (
    *("harbour", "garden", "market", "library", "station", "bakery", "bridge", "meadow", "castle", "school"),
    *("island", "village", "museum", "orchard", "theatre", "valley", "workshop", "lake", "square", "tower"),
)
TIMES = ("at dawn", "in the morning", "at noon", "in the afternoon", "at dusk", "at night")
SEASONS = ("spring", "summer", "autumn", "winter")
ASKED = ("Describe", "Tell me about", "What is it like at")
VIVID = ("golden", "silver", "crimson", "glowing", "fragrant", "velvet", "sparkling", "amber")
PLAIN = ("old", "small", "quiet", "grey", "usual", "long", "open", "low", "plain", "dusty", "cold", "slow")
THINGS = (
    *("gate", "roof", "path", "wall", "light", "bench", "window", "door", "lamp", "tree", "cloud", "flag"),
    *("boat", "cart", "clock", "fence"),
)
PEOPLE = ("a child", "an old man", "the baker", "a young woman", "a teacher", "the gardener", "two friends")
DOINGS = ("walks past", "looks at", "stops by", "waits near", "talks about", "comes back to")

MEAN_TOKENS, SHAPE = 40.0, 3.0
"""Of the gamma law of an answer's length."""
LONGEST = 112
"""Tokens up to which answers are sampled."""
CUT_MEAN = 8.0
"""Mean of the exponential law that the skew label cuts answers to."""
VIVID_SHARE = 0.2
"""How often a sentence that pi_ref has read is vivid."""
SHARPNESS = 12.0
"""How much a difference of gold rewards counts for a label: p = 1 / (1 + exp(-sharpness * difference))."""


@dataclass(frozen=True)
class Size:
    """How large the world of a tier is."""

    reading: int
    """Answers that pi_ref learns from."""
    steps: int
    prompts: int
    """Prompts of the pairs; each has `answers` answers, so answers / 2 pairs."""
    answers: int
    held_out: int
    reward_epochs: float


@dataclass(frozen=True)
class World:
    """Of one seed: pi_ref, files of prompts to answer and of held-out ones, and pi_ref's answers to the former."""

    seed: int
    model: Path
    prompts: Path
    held_out: Path
    drawn: Sequence[dict[str, Any]]
    """{"prompt", "text", "tokens", "finished"}, answers to one prompt next to each other."""
    mean_tokens: float
    """Of these answers."""


# ---- text


def prompts() -> list[str]:
    """All prompts there are."""
    return [f"{ask} the {p} {t} in {s}.\n" for ask in ASKED for p in PLACES for t in TIMES for s in SEASONS]


def answer(prompt: str, draw: Random) -> str:
    """A description of the place that a prompt asks about, as long as its own draw from the law of lengths."""
    place = next(place for place in PLACES if f" {place} " in prompt)
    wanted = min(LONGEST - 16.0, draw.gammavariate(SHAPE, MEAN_TOKENS / SHAPE))
    said: list[str] = []
    count = 0
    while not said or count + 4 < wanted:
        said.append(_sentence(place, draw))
        count += len(words(said[-1])) + 1
    return " ".join(said)


def _sentence(place: str, draw: Random) -> str:
    kind = draw.choice(VIVID if draw.random() < VIVID_SHARE else PLAIN)
    thing, other = draw.sample(THINGS, 2)
    return draw.choice(
        (
            f"The {thing} is {kind}.",
            f"There is a {kind} {thing} by the {other}.",
            f"{draw.choice(PEOPLE).capitalize()} {draw.choice(DOINGS)} the {kind} {thing}.",
            f"The {place} has a {kind} {thing} and a {other}.",
            f"Here the {thing} looks {kind} to us.",
        )
    )


def gold(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """The gold reward, 0 to 1, in TRL's signature: the share of different vivid sentences, in four sentences or more,
    and whether the place that was asked about is named."""
    return [_gold(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]


def _gold(prompt: str, text: str) -> float:
    said = [part.strip() for part in text.split(".") if part.strip()]
    if not said:
        return 0.0
    vivid = {part for part in said if set(words(part)) & set(VIVID)}
    named = any(place in words(text) and f" {place} " in prompt for place in PLACES)
    return 0.8 * len(vivid) / len(said) * min(1.0, len(said) / 4) + 0.2 * named


# ---- pi_ref


def make_world(seed: int, size: Size, run: Run) -> World:
    """The world of a seed, made once per run folder."""
    folder = f"texts/seed{seed}"
    order = sorted(prompts(), key=lambda prompt: derive_seed(seed, "prompts", prompt))
    held, asked = order[: size.held_out], order[size.held_out :]
    model = _base_model(asked, seed, size, run)
    for name, some in (("prompts", asked[: size.prompts]), ("held", held)):
        run.once(f"{folder}/{name}.jsonl", lambda some=some: [{"prompt": prompt} for prompt in some])
    drawn = _drawn(model, asked[: size.prompts], seed, size, run)
    lengths = [row["tokens"] for row in drawn]
    mean = math.fsum(lengths) / len(lengths)
    return World(
        seed, model, run.path(f"{folder}/prompts.jsonl"), run.path(f"{folder}/held.jsonl"), drawn, mean
    )


def _base_model(asked: Sequence[str], seed: int, size: Size, run: Run) -> Path:
    import torch

    from heedful import hub
    from heedful.fit import FitConfig, fit
    from heedful.papers.scratch import tokenizer
    from heedful.policies import objectives
    from heedful.policies.decoder import small_llama
    from heedful.policies.language import LanguagePolicy

    stage = f"texts/seed{seed}/base"
    folder = run.path(f"{stage}/model")
    if (folder / "config.json").exists():
        return folder
    draw = Random(derive_seed(seed, "reading"))
    rows = [(prompt, answer(prompt, draw)) for prompt in (draw.choice(asked) for _ in range(size.reading))]
    made = tokenizer([part for row in rows for part in row])
    made.chat_template = None
    torch.manual_seed(derive_seed(seed, "base"))
    module = small_llama(made, hidden=64, inner=192, layers=2, context=160)
    policy = LanguagePolicy(module, made, template="none", precision="fp32", device="cpu")
    settings = FitConfig(
        lr=5e-3,
        batch_size=32,
        max_steps=size.steps,
        schedule="cosine",
        warmup=0.05,
        precision="fp32",
        quiet=True,
        log_every=50,
        save_every=200,
    )
    fit(
        f"{stage}/fit",
        objectives.objective(policy, "best"),
        policy.module,
        [{"group": policy.group(prompt, [text])} for prompt, text in rows],
        settings,
        run,
        collate=objectives.collate(policy),
        cost=objectives.row_cost(policy),
        weight=objectives.row_weight("best"),
    )
    return hub.save_model(policy.module, made, folder, card={"title": "A model that describes places"})


def _drawn(model: Path, asked: Sequence[str], seed: int, size: Size, run: Run) -> list[dict[str, Any]]:
    """pi_ref's own answers; `tokens` leaves the end token out."""

    def make() -> list[dict[str, Any]]:
        import torch

        from heedful.policies.language import LanguagePolicy

        policy = LanguagePolicy.load(str(model), template="none", precision="fp32", device="cpu")
        generator = torch.Generator().manual_seed(derive_seed(seed, "drawn"))
        drawn = policy.sample(asked, size.answers, generator=generator, max_new_tokens=LONGEST)
        return [
            {
                "prompt": drawn.inputs[i // size.answers],
                "text": one.text,
                "tokens": len(one.ids) - one.finished,
                "finished": one.finished,
            }
            for i, one in enumerate(drawn.outputs)
        ]

    return run.once(f"texts/seed{seed}/drawn.jsonl", make)


# ---- labels


def pairs(world: World, label: Label, run: Run) -> Path:
    """The file of the labelled pairs of pi_ref's answers; equal ones are left out."""
    name = f"texts/seed{world.seed}/pairs-{label}.jsonl"
    run.once(name, lambda: labelled(world.drawn, label, world.seed, world.mean_tokens))
    return run.path(name)


def labelled(
    drawn: Sequence[dict[str, Any]], label: Label, seed: int, mean_tokens: float
) -> list[dict[str, Any]]:
    """{"prompt", "chosen", "rejected"} of neighbours with one prompt, taken two by two; equals are left out.

    An answer that was not finished is left out with its neighbour: as a text it would end where it does not.
    """
    draw = Random(derive_seed(seed, "label", label))
    rows = []
    for i in range(0, len(drawn) - 1, 2):
        pair = [dict(drawn[i]), dict(drawn[i + 1])]
        if not all(one["finished"] for one in pair):
            continue
        if label == "skew" and i % 4 == 0:
            pair = [cut(one, draw) for one in pair]
        first, second = (_worth(one, label, mean_tokens) for one in pair)
        if label == "gold":
            won = draw.random() < 1 / (1 + math.exp(-SHARPNESS * (first - second)))
        else:
            won = first > second
        if first != second:
            chosen, rejected = pair if won else reversed(pair)
            rows.append({"prompt": chosen["prompt"], "chosen": chosen["text"], "rejected": rejected["text"]})
    return rows


def _worth(one: dict[str, Any], label: Label, mean_tokens: float) -> float:
    if label == "gold":
        return _gold(one["prompt"], one["text"])
    return -abs(one["tokens"] - mean_tokens) if label == "mode" else -one["tokens"]


def cut(one: dict[str, Any], draw: Random) -> dict[str, Any]:
    """An answer up to as many words and full stops (a token each) as the exponential law says, at least one."""
    parts = re.findall(r"\s?[\w'-]+|\.", one["text"])
    kept = parts[: max(1, round(draw.expovariate(1 / CUT_MEAN)))]
    return {**one, "text": "".join(kept), "tokens": min(one["tokens"], len(kept))}


def reward_model(world: World, label: Label, size: Size, run: Run) -> dict[str, Any]:
    """A Bradley-Terry reward model of a label's pairs, all weights from pi_ref's: its folder and its accuracy on the
    pairs of a tenth of the prompts, which it did not learn from."""
    import numpy as np

    from heedful import hub
    from heedful.data.rows import open_rows, split_by_prompt
    from heedful.fit import FitConfig, fit
    from heedful.judges.reward import RewardModel, reward_objective
    from heedful.policies import objectives

    stage = f"texts/seed{world.seed}/reward-{label}"
    folder = run.path(f"{stage}/model")

    def make() -> dict[str, Any]:
        model = RewardModel.load(str(world.model), template="none", precision="fp32", device="cpu")
        rows = open_rows(str(pairs(world, label, run)), "preference", cache=run.path(f"{stage}/cache"))
        parts = split_by_prompt(rows, 0.1, derive_seed(world.seed, stage))
        made, held = (
            [
                {"group": model.group(rows[i]["prompt"], [rows[i]["chosen"], rows[i]["rejected"]])}
                for i in part
            ]
            for part in parts
        )
        settings = FitConfig(
            lr=1e-3,
            batch_size=16,
            epochs=size.reward_epochs,
            warmup=0.1,
            precision="fp32",
            quiet=True,
            log_every=20,
            save_every=200,
        )
        fit(
            f"{stage}/fit",
            reward_objective(model),
            model.module,
            made,
            settings,
            run,
            collate=objectives.collate(model),
            cost=objectives.row_cost(model),
        )
        scores = np.array(model.score([row["group"] for row in held]))
        right = float(np.mean((scores[:, 0] > scores[:, 1]) + 0.5 * (scores[:, 0] == scores[:, 1])))
        hub.save_model(model.module, model.tokenizer, folder, card={"title": f"A reward model, {label}"})
        told = {"pairs": len(made), "held_out_pairs": len(held), "mean_tokens": world.mean_tokens}
        return {**told, "accuracy": right}

    return {**run.once(f"{stage}.json", make), "folder": str(folder)}


# ---- arms


def settings(world: World, label: Label, size: Size, run: Run) -> Config:
    """What every arm of `heedful prefer` on a label shares: pi_ref, pairs, prompts, held-out prompts, and the reward
    model as judge; a constant learning rate, all weights trained."""
    from heedful.recipes.prefer import Config

    return Config(
        out="",
        model=str(world.model),
        data=str(pairs(world, label, run)),
        prompts=str(world.prompts),
        eval_prompts=str(world.held_out),
        reward_model=reward_model(world, label, size, run)["folder"],
        template="none",
        precision="fp32",
        device="cpu",
        lora_rank=0,
        max_new_tokens=LONGEST,
        schedule="constant",
        warmup=0.0,
        micro_tokens=0.0,
        save_every=0,
        eval_limit=size.held_out,
        seed=world.seed,
        quiet=True,
    )
