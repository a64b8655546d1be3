"""A real model and real preferences: SmolLM2-135M on GPT-4's verdicts about answers to AlpacaEval's prompts.

Pref-FT, DPO and IPO learn from a few hundred pairs, on-policy DPO from the judgement of a reward model of the same
pairs. Prompts are split by their id: to learn on, held out, and the rest for an evaluator that no arm and no reward
model has to do with. It is linear in what can be counted in an answer (`rlaif_verdicts.counted`).

1. Pairs are those whose prompt and answers have at most 60 words each, so that a CPU can train on whole answers.
2. All arms take the same number of steps of 8 pairs, with adapters, at the same settings (`LEARNING`), fixed
   beforehand; nothing was tuned.
3. GPT-4 prefers the longer answer in two of three of these pairs. So every score stands beside the win rate over the
   start model at equal length (`evals.winrates`).

One seed; intervals are over held-out prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heedful.config import from_plain
from heedful.evals.texts import words
from heedful.papers import rlaif_verdicts as verdicts
from heedful.papers.onpolicy_arms import attempt, finished, rows_of
from heedful.papers.results import Tier
from heedful.papers.seeds import Result
from heedful.run import Run, open_run

if TYPE_CHECKING:
    from heedful.recipes.prefer import Config

LONGEST = 60
"""Words of a prompt and of an answer."""
EVALUATOR_LONGEST = 100
"""Words of an answer that the evaluator learns from."""
PER_PROMPT = 2
"""Most pairs of a prompt."""
BATCH = 8
LEARNING = {"learning_rate": 2e-4, "batch_size": BATCH, "beta": 0.1}
REWARD_RATE = 5e-4
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("Pref-FT", {"method": "sft"}),
    "dpo": ("DPO", {"method": "dpo"}),
    "ipo": ("IPO", {"method": "ipo"}),
    "dpo_online": ("on-policy DPO", {"method": "dpo", "n": 2}),
}


@dataclass(frozen=True)
class Size:
    """pairs to learn from, held-out prompts and answers to each, rounds on-policy, tokens of an answer, the arms."""

    pairs: int
    held_out: int
    held_answers: int
    rounds: int
    tokens: int
    arms: tuple[str, ...]


SIZES: dict[Tier, Size] = {
    "smoke": Size(pairs=24, held_out=6, held_answers=1, rounds=1, tokens=16, arms=("sft", "dpo_online")),
    "main": Size(pairs=256, held_out=80, held_answers=1, rounds=8, tokens=112, arms=tuple(METHODS)),
}


def run_arms(tier: Tier, seed: int, folder: Path, run: Run, until: float | None) -> dict[str, Result]:
    """Every arm that is done or can be begun before `until`, with the facts about the judges under "judges"."""
    done: dict[str, Result] = {}
    judged = attempt(f"real/seed{seed}/judges.json", lambda: _judges(tier, seed, folder, run), run, until)
    if judged is None:
        return done
    done["judges"] = judged
    for method in SIZES[tier].arms:
        name = f"real/seed{seed}/{method}"

        def make(method: str = method, name: str = name) -> Result:
            cfg = config(method, seed, tier, folder, run)
            return {**finished(cfg, name, run), "held": held(run.path(name), judged["evaluator"])}

        result = attempt(f"{name}.json", make, run, until)
        if result is not None:
            done[method] = result
    return done


# ---- data


def split(rows: Sequence[dict[str, Any]], size: Size, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Pairs to learn from, held-out pairs, and the verdicts for the evaluator; no prompt is in two of the parts. Of a
    prompt there are at most two pairs in the first two."""
    usable: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        sides = [row["chosen"], row["rejected"]]
        longest = max(map(_count, sides))
        if all(map(str.strip, sides)) and longest <= EVALUATOR_LONGEST and _count(row["prompt"]) <= LONGEST:
            usable.setdefault(row["prompt_id"], []).append({**row, "short": longest <= LONGEST})
    parts: dict[str, list[dict[str, Any]]] = {"held": [], "train": [], "evaluator": []}
    held = 0
    for i in verdicts.shuffled(list(usable), seed):
        short = [row for row in usable[i] if row["short"]]
        if short and held < size.held_out:
            held += 1
            parts["held"] += short[:PER_PROMPT]
        elif short and len(parts["train"]) < size.pairs:
            parts["train"] += short[: min(PER_PROMPT, size.pairs - len(parts["train"]))]
        else:
            parts["evaluator"] += usable[i]
    return parts


def _count(text: str) -> int:
    return len(words(text))


def _files(tier: Tier, seed: int, folder: Path, run: Run) -> dict[str, Path]:
    """The parts as files: train and held (pairs), and the prompts of each."""
    names = {
        name: f"real/seed{seed}/{name}.jsonl" for name in ("train", "held", "train-prompts", "held-prompts")
    }
    if not all(run.path(name).exists() for name in names.values()):
        parts = split(verdicts.read(folder / verdicts.VERDICTS), SIZES[tier], seed)
        for name in ("train", "held"):
            pairs = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in parts[name]]
            asked = [{"prompt": prompt} for prompt in dict.fromkeys(row["prompt"] for row in pairs)]
            run.once(names[name], lambda pairs=pairs: pairs)
            run.once(names[f"{name}-prompts"], lambda asked=asked: asked)
    return {name: run.path(path) for name, path in names.items()}


def model(tier: Tier, folder: Path, run: Run) -> str:
    """SmolLM2, or in the smoke tier a small assistant made on the spot."""
    if tier == "main":
        return "smollm2"
    from heedful.papers.scratch import scratch_assistant

    some = verdicts.read(folder / verdicts.VERDICTS)[:400:10]
    return str(scratch_assistant([row["prompt"][:120] for row in some], run, steps=40))


def config(method: str, seed: int, tier: Tier, folder: Path, run: Run) -> Config:
    """The settings of an arm."""
    from heedful.recipes.prefer import Config

    size, files = SIZES[tier], _files(tier, seed, folder, run)
    online: dict[str, Any] = {"rounds": 0}
    if method == "dpo_online":
        online = {
            "prompts": str(files["train-prompts"]),
            "eval_prompts": str(files["held-prompts"]),
            "rounds": size.rounds,
            "prompts_per_round": size.pairs // size.rounds,
        }
    return Config(
        out="",
        model=model(tier, folder, run),
        data=str(files["train"]),
        eval_data=str(files["held"]),
        reward_model=str(run.path(f"real/seed{seed}/reward/reward_model")),
        max_new_tokens=size.tokens,
        eval_limit=size.held_out,
        eval_n=size.held_answers,
        device="cpu",
        seed=seed,
        quiet=True,
        **LEARNING,
        **METHODS[method][1],
        **online,
    )


# ---- judges


def _judges(tier: Tier, seed: int, folder: Path, run: Run) -> dict[str, Any]:
    """Fit the reward model of the training pairs, which the arms use, and the evaluator; what both are worth on the
    held-out pairs."""
    from dataclasses import replace

    from heedful.recipes import prefer_data

    base = model(tier, folder, run)
    cfg = replace(
        config("dpo", seed, tier, folder, run), reward_model=base, learning_rate=REWARD_RATE, method="sft"
    )
    with open_run(run.path(f"real/seed{seed}/reward"), cfg, seed=seed, command="reproduce") as own:
        data = prefer_data.load(cfg, own)
        prefer_data.fit_reward_model(
            cfg, data, own, {"template": "auto", "precision": "auto", "device": "cpu"}
        )
    parts = split(verdicts.read(folder / verdicts.VERDICTS), SIZES[tier], seed)
    features = verdicts.counted(lambda text: text)
    evaluator = verdicts.fit_reward(
        *_sides(parts["evaluator"], features), [row["prompt"] for row in parts["evaluator"]]
    )
    right = verdicts.right(evaluator, *_sides(parts["held"], features))
    longer = [_count(row["chosen"]) > _count(row["rejected"]) for row in parts["held"]]
    return {
        "evaluator": asdict(evaluator),
        "accuracy": {
            "the reward model": data.facts["reward model: held-out accuracy"],
            "the evaluator": float(right.mean()),
            "the longer answer": float(np.mean(longer)),
        },
        "pairs": {name: len(rows) for name, rows in parts.items()},
        "prompts": {name: len({row["prompt_id"] for row in rows}) for name, rows in parts.items()},
    }


def _sides(rows: Sequence[dict[str, Any]], features: verdicts.Features) -> tuple[Any, Any]:
    prompts = [row["prompt"] for row in rows]
    return features(prompts, [row["chosen"] for row in rows]), features(
        prompts, [row["rejected"] for row in rows]
    )


def held(folder: Path, evaluator: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each held-out prompt: words, scores and what the evaluator says, a list over its answers each.

    p: the evaluator's probability that the answer is better than the start model's from the same random numbers.
    """
    judge = verdicts.comparer(
        from_plain(verdicts.Reward, evaluator, "evaluator"), verdicts.counted(lambda text: text)
    )
    rows = rows_of(folder / "heldout.jsonl")
    prompts = [row["prompt"] for row in rows]
    before, after = ([row[side]["text"] for row in rows] for side in ("before", "after"))
    better = judge(prompts, before, after).p.tolist()
    found: dict[str, dict[str, Any]] = {}
    for row, p in zip(rows, better, strict=True):
        one = found.setdefault(row["prompt"], {"prompt": row["prompt"], "p": []})
        one["p"].append(p)
        for side in ("before", "after"):
            for key in ("words", "score"):
                one.setdefault(f"{key}_{side}", []).append(row[side][key])
    return list(found.values())
