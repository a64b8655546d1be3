"""AI feedback and imitation with real answers and real verdicts: SmolLM2 on the prompts of AlpacaEval.

The weak teacher is text-davinci-003, the critic's own answers are GPT-4's, both as AlpacaEval has them. Nobody can ask
GPT-4 here, so the critic is a reward model of its real verdicts, and the evaluator another one, of other prompts and
other features. Prompts are split by their id into four: to learn on, held out, and one part for each judge.

Answers are judged and imitated up to a length that a CPU can sample; `heedful critique` reports win rates at equal
length beside the plain ones. One seed; intervals are over held-out prompts, and hold for this evaluator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heedful.config import from_plain
from heedful.evals.intervals import share
from heedful.papers import rlaif_verdicts as verdicts
from heedful.papers.results import Tier
from heedful.recipes import critique
from heedful.recipes.critique_arms import shortened
from heedful.recipes.critique_roles import Roles
from heedful.run import Run, open_run

if TYPE_CHECKING:
    from heedful.papers.rlaif_verdicts import Array, Reward
    from heedful.policies.language import LanguagePolicy

WEAK, STRONG, BASELINE = "text_davinci_003", "gpt4", "text_davinci_003"
LEARNING: dict[str, Any] = {"learning_rate": 5e-4, "start_epochs": 3.0, "feedback_learning_rate": 2e-4}
"""Fixed beforehand at what suits adapters of a model of this size; nothing was tuned on the held-out prompts."""
TESTED = 4
"""Verdicts on each held-out prompt that the judges are tested on."""
PART = 20
"""Prompts whose features share a file."""
NEAR = 0.05


@dataclass(frozen=True)
class Size:
    """Prompts of each part, tokens of an answer, and the longest prompt, in tokens."""

    train: int
    held_out: int
    critic: int
    evaluator: int
    tokens: int
    longest_prompt: int


SIZES: dict[Tier, Size] = {
    "smoke": Size(train=24, held_out=12, critic=20, evaluator=20, tokens=24, longest_prompt=160),
    "main": Size(train=180, held_out=180, critic=190, evaluator=190, tokens=120, longest_prompt=200),
}


@dataclass
class World:
    """Prompt ids of each part, prompts by id, answers by generator and prompt, verdicts by id."""

    parts: dict[str, list[Any]]
    prompts: dict[Any, str]
    answers: dict[str, dict[str, str]]
    verdicts: dict[Any, list[dict[str, Any]]]


def compared(tier: Tier, seed: int, folder: Path, run: Run, until: float | None) -> dict[str, Any] | None:
    """result.json with what the judges are worth; None when `until` came first."""
    name = f"real/seed{seed}"
    if run.path(f"{name}.json").exists():
        return run.once(f"{name}.json", dict)
    size = SIZES[tier]
    if until is not None and time.monotonic() > until:
        return None
    model = _model(tier, folder, run)
    policy = _policy(model)
    world = load(folder, size, seed, policy)
    judges = fitted(world, size, policy, name, run, until)
    if judges is None:
        return None
    cfg = config(world, size, seed, model, name, run)
    made = roles(world, size, judges, policy)
    with open_run(run.path(name), cfg, seed=seed, command="reproduce") as own:
        result = critique.run(cfg, own, roles=made, until=until)
    if result is None:
        return None
    facts = {
        "critic": quality(world, judges["critic"], states(size, policy)),
        "evaluator": quality(world, judges["evaluator"], verdicts.counted(cutter(policy, size))),
    }
    return run.once(f"{name}.json", lambda: {"result": result, "judges": facts})


def _model(tier: Tier, folder: Path, run: Run) -> str:
    """SmolLM2, or in the smoke tier a small assistant made on the spot."""
    if tier == "main":
        return "smollm2"
    from heedful.papers.scratch import scratch_assistant

    rows = verdicts.read(folder / verdicts.OUTPUTS)[:60]
    return str(scratch_assistant([row["prompt"][:200] for row in rows], run))


def _policy(model: str) -> LanguagePolicy:
    from heedful.policies.language import LanguagePolicy

    return LanguagePolicy.load(model, device="cpu")


def load(folder: Path, size: Size, seed: int, policy: LanguagePolicy) -> World:
    """The data, split by prompt id; prompts that are too long, or that somebody did not answer, are left out."""
    answers: dict[str, dict[str, str]] = {WEAK: {}, STRONG: {}}
    prompts: dict[Any, str] = {}
    for row in verdicts.read(folder / verdicts.OUTPUTS):
        if row["generator"] in answers and row["response"].strip():
            answers[row["generator"]][row["prompt"]] = row["response"]
            prompts[row["prompt_id"]] = row["prompt"]
    said: dict[Any, list[dict[str, Any]]] = {}
    for row in verdicts.read(folder / verdicts.VERDICTS):
        if row["chosen"].strip() and row["rejected"].strip():
            said.setdefault(row["prompt_id"], []).append(row)
    usable = [
        i
        for i in verdicts.shuffled(list(prompts), seed)
        if i in said
        and all(prompts[i] in of for of in answers.values())
        and len(policy.encoder.prompt(prompts[i])) <= size.longest_prompt
    ]
    parts, first = {}, 0
    for name in ("train", "held_out", "critic", "evaluator"):
        count = getattr(size, name)
        parts[name] = usable[first : first + count]
        first += count
    return World(parts, prompts, answers, said)


def config(world: World, size: Size, seed: int, model: str, name: str, run: Run) -> critique.Config:
    """The settings of the comparison, with its prompts written down."""
    files = {}
    for part in ("train", "held_out"):
        files[part] = f"{name}-{part}.jsonl"
        run.once(files[part], lambda part=part: [{"prompt": world.prompts[i]} for i in world.parts[part]])
    return critique.Config(
        out="",
        model=model,
        prompts=str(run.path(files["train"])),
        eval_prompts=str(run.path(files["held_out"])),
        train_tokens=size.tokens,
        max_new_tokens=size.tokens,
        eval_limit=size.held_out,
        **LEARNING,
        seed=seed,
        device="cpu",
        quiet=True,
    )


# ---- judges


def cutter(policy: LanguagePolicy, size: Size) -> Callable[[str], str]:
    """A text up to as many tokens as the models here may write."""

    def cut(text: str) -> str:
        ids = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
        return text if len(ids) <= size.tokens else policy.encoder.decode(ids[: size.tokens])

    return cut


def states(size: Size, policy: LanguagePolicy) -> verdicts.Features:
    """Mean hidden states of the base over an answer's first tokens, and the logarithm of how many tokens it has."""

    def features(prompts: Sequence[str], answers: Sequence[str]) -> Array:
        given = [[shortened(policy, p, a, size.tokens)] for p, a in zip(prompts, answers, strict=True)]
        lengths = [[np.log(len(one[0].ids))] for one in given]
        return np.concatenate([verdicts.mean_states(policy, prompts, given), np.array(lengths)], axis=1)

    return features


def fitted(
    world: World, size: Size, policy: LanguagePolicy, name: str, run: Run, until: float | None
) -> dict[str, Reward] | None:
    """Critic and evaluator, fitted to the verdicts on their own prompts; None when `until` came first."""
    for first in range(0, len(world.parts["critic"]), PART):
        if until is not None and time.monotonic() > until:
            return None
        ids = world.parts["critic"][first : first + PART]
        run.once(_part(name, first), lambda ids=ids: _states_of(world, ids, size, policy))

    def critic() -> dict[str, Any]:
        known: dict[tuple[str, str], Array] = {}
        for first in range(0, len(world.parts["critic"]), PART):
            rows = run.once(_part(name, first), dict)["states"].double().numpy()
            pairs = _answers(world, world.parts["critic"][first : first + PART])
            known |= dict(zip(pairs, rows, strict=True))
        said = [row for i in world.parts["critic"] for row in world.verdicts[i]]
        chosen, rejected = (
            np.array([known[r["prompt"], r[side]] for r in said]) for side in ("chosen", "rejected")
        )
        components = min(verdicts.COMPONENTS, len(said) // 8)
        return asdict(
            verdicts.fit_reward(chosen, rejected, [r["prompt"] for r in said], components=components)
        )

    def evaluator() -> dict[str, Any]:
        said = [row for i in world.parts["evaluator"] for row in world.verdicts[i]]
        features = verdicts.counted(cutter(policy, size))
        chosen, rejected = _sides(said, features)
        return asdict(verdicts.fit_reward(chosen, rejected, [r["prompt"] for r in said]))

    made = {
        "critic": run.once(f"{name}-critic.json", critic),
        "evaluator": run.once(f"{name}-evaluator.json", evaluator),
    }
    return {role: from_plain(verdicts.Reward, plain, role) for role, plain in made.items()}


def _part(name: str, first: int) -> str:
    return f"{name}-states.part-{first // PART:03d}.safetensors"


def _answers(world: World, ids: Sequence[Any]) -> list[tuple[str, str]]:
    """The different answers that the verdicts on these prompts are about, prompt by prompt."""
    found: dict[tuple[str, str], None] = {}
    for i in ids:
        for row in world.verdicts[i]:
            found |= {(row["prompt"], row["chosen"]): None, (row["prompt"], row["rejected"]): None}
    return list(found)


def _states_of(world: World, ids: Sequence[Any], size: Size, policy: LanguagePolicy) -> dict[str, Any]:
    """Features of all those answers; a prompt is encoded once for its answers."""
    import torch

    grouped: dict[str, list[Any]] = {}
    for prompt, text in _answers(world, ids):
        grouped.setdefault(prompt, []).append(shortened(policy, prompt, text, size.tokens))
    means = verdicts.mean_states(policy, list(grouped), list(grouped.values()))
    lengths = np.array([[np.log(len(one.ids))] for given in grouped.values() for one in given])
    return {"states": torch.tensor(np.concatenate([means, lengths], axis=1), dtype=torch.float32)}


def _sides(said: Sequence[dict[str, Any]], features: verdicts.Features) -> tuple[Array, Array]:
    prompts = [row["prompt"] for row in said]
    chosen, rejected = (features(prompts, [row[side] for row in said]) for side in ("chosen", "rejected"))
    return chosen, rejected


def quality(world: World, reward: Reward, features: verdicts.Features) -> dict[str, Any]:
    """How often a judge orders real answers to the held-out prompts as GPT-4 did, with the interval over prompts."""
    ids = world.parts["held_out"]
    per_prompt = []
    for i in ids:
        some = verdicts.shuffled(range(len(world.verdicts[i])), i)[:TESTED]
        chosen, rejected = _sides([world.verdicts[i][at] for at in some], features)
        per_prompt.append(verdicts.right(reward, chosen, rejected).tolist())
    found = share(per_prompt)
    return {
        "accuracy": found.estimate,
        "low": found.low,
        "high": found.high,
        "prompts": len(ids),
        "verdicts": sum(map(len, per_prompt)),
        "ridge": reward.ridge,
    }


def roles(world: World, size: Size, judges: dict[str, Reward], policy: LanguagePolicy) -> Roles:
    """Real answers as teacher, critic's answers and baseline; reward models as critic and evaluator."""
    cut = cutter(policy, size)
    return Roles(
        teacher=lambda prompts: [world.answers[WEAK].get(p) for p in prompts],
        critic=verdicts.comparer(judges["critic"], states(size, policy)),
        critic_answers=lambda prompts: [world.answers[STRONG].get(p) for p in prompts],
        evaluator=verdicts.comparer(judges["evaluator"], verdicts.counted(cut)),
        baseline=lambda prompts: [cut(world.answers[BASELINE][p]) for p in prompts],
        names={
            "teacher": WEAK,
            "critic": "a reward model of GPT-4's verdicts (hidden states)",
            "critic_answers": STRONG,
            "evaluator": "another reward model of GPT-4's verdicts (counts in the text)",
            "baseline": BASELINE,
        },
    )
