"""The arms of `heedful critique`: what each learns from, at the same budget of prompts, and how it is learned.

An arm's model is saved when it has been learned, and loaded from there by what comes after it, so that a resumed run
goes on from the same weights as one that was not stopped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from heedful import hub
from heedful.atomic import write_file
from heedful.data.rows import prompt_key
from heedful.errors import HeedfulError
from heedful.feedback import Samples, pairs
from heedful.fit import FitConfig, fit
from heedful.policies import objectives
from heedful.policies.backbone import Lora
from heedful.policies.language import Completion, LanguagePolicy
from heedful.policies.stages import judge_once, sample_once
from heedful.recipes.critique_data import Data, check_budget, done, freeze
from heedful.recipes.settings import fit_config, sampling
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.judges.comparing import Comparer, Comparison
    from heedful.recipes.critique import Config
    from heedful.recipes.critique_roles import Roles


@dataclass(frozen=True)
class Arm:
    """What an arm learns from: whose answers on which part, or, after another arm, AI feedback on the rest."""

    about: str
    whose: Literal["teacher", "critic"]
    part: Literal["all", "start", "rest"]
    after: str = ""


ARMS = {
    "teacher_start": Arm("imitation of the teacher, start only", "teacher", "start"),
    "feedback": Arm("teacher start, then AI feedback", "teacher", "rest", after="teacher_start"),
    "critic_start": Arm("imitation of the critic, start only", "critic", "start"),
    "critic_feedback": Arm("strong start, then AI feedback", "critic", "rest", after="critic_start"),
    "teacher_sft": Arm("imitation of the teacher", "teacher", "all"),
    "critic_sft": Arm("imitation of the critic", "critic", "all"),
}
"""In the order in which they are learned. The start is the tenth, unless --start-share says otherwise."""
FULL = ("teacher_sft", "feedback", "critic_sft", "critic_feedback")
"""The arms that use the whole budget."""


@dataclass
class Learned:
    """What an arm used: prompts to imitate on, prompts that verdicts were asked for on or are there for, rows learned
    from, and counts."""

    imitated: int
    asked: int
    rows: int
    counts: dict[str, int]


def in_order(names: Sequence[str] | None) -> list[str]:
    """These arms, or all, with those they start from, in the order in which they are learned."""
    wanted = set(ARMS if names is None else names)
    wanted |= {ARMS[name].after for name in wanted} - {""}
    return [name for name in ARMS if name in wanted]


def prompts_of(name: str, data: Data) -> list[Any]:
    """Every prompt that an arm uses, that of its start included."""
    arm = ARMS[name]
    own, _ = data.answers(arm.whose, arm.part)
    return [*(prompts_of(arm.after, data) if arm.after else []), *own]


def learn(name: str, cfg: Config, data: Data, roles: Roles, run: Run) -> Learned:
    """Learn one arm and save its model as arms/<name>/model. What it starts from must have been learned.

    Raises HeedfulError when the full arms would not use the same prompts, and when the critic's verdicts teach
    nothing, with what became of them; what was learned and sampled before stays.
    """
    check_budget({full: prompts_of(full, data) for full in FULL})
    if ARMS[name].part == "rest":
        return _feedback(name, cfg, data, roles, run)
    return _imitation(name, cfg, data, roles, run)


def model_of(name: str, cfg: Config, run: Run) -> str:
    """Where the model of an arm is; "" is the base."""
    return str(run.path(f"arms/{name}/model")) if name else cfg.model


def policy_of(name: str, cfg: Config, run: Run, *, train: bool) -> LanguagePolicy:
    """The model of an arm, with a new adapter where it is to be trained on."""
    lora = Lora(cfg.lora_rank, cfg.lora_alpha) if cfg.lora_rank and train else None
    return LanguagePolicy.load(
        model_of(name, cfg, run),
        lora=lora,
        seed=run.seed_for("adapter"),
        template=cfg.template,
        precision=cfg.precision,
        device=cfg.device,
    )


# ---- imitation


def _imitation(name: str, cfg: Config, data: Data, roles: Roles, run: Run) -> Learned:
    arm = ARMS[name]
    prompts, texts = data.answers(arm.whose, arm.part)
    counts = run.once(f"arms/{name}/counts.json", dict) if done(f"arms/{name}/model", run) else None
    if counts is None:
        policy = policy_of("", cfg, run, train=True)
        outputs = [
            shortened(policy, p, text, cfg.train_tokens) for p, text in zip(prompts, texts, strict=True)
        ]
        cut = sum(not output.finished for output in outputs)
        counts = run.once(f"arms/{name}/counts.json", lambda: {"answers_cut": cut})
        made = [{"group": policy.group(p, [output])} for p, output in zip(prompts, outputs, strict=True)]
        epochs = cfg.epochs if arm.part == "all" else cfg.start_epochs
        settings = replace(fit_config(cfg, policy.precision), epochs=epochs)
        _fit(f"arms/{name}/sft", "best", policy, made, settings, run)
        _save(name, policy, cfg, {"method": "sft", "feedback": roles.name(_role(arm.whose))}, run)
    return Learned(len(prompts), 0, len(prompts), counts)


def shortened(policy: LanguagePolicy, prompt: Any, text: str, most: int) -> Completion:
    """An answer as its tokens, cut after `most` of them; where it is cut, no end token is taught.

    Raises HeedfulError when the prompt leaves no room for an answer in the model's context.
    """
    room = policy.context - len(policy.encoder.prompt(prompt))
    if room < 2:
        raise HeedfulError(
            f"a prompt fills the model's context of {policy.context} tokens: {str(prompt)[:60]!r}"
        )
    ids = policy.encoder.completion(prompt, text)
    kept = ids[: min(most, room)]
    return Completion(text, tuple(kept), len(kept) == len(ids), 0.0)


def _role(whose: str) -> str:
    return "critic_answers" if whose == "critic" else whose


# ---- AI feedback


def _feedback(name: str, cfg: Config, data: Data, roles: Roles, run: Run) -> Learned:
    arm = ARMS[name]
    chosen, counts = (
        _given(name, data, roles, run) if roles.critic is None else _asked(name, cfg, data, roles, run)
    )
    if not done(f"arms/{name}/model", run):
        policy = policy_of(arm.after, cfg, run, train=True)
        policy.keep_reference()
        most = max(cfg.train_tokens, cfg.max_new_tokens)
        rows = [
            {side: _tokens(policy, row["input"], row[side], most) for side in ("chosen", "rejected")}
            | {"prompt": row["input"]}
            for row in chosen
        ]
        shown = "" if cfg.quiet else f"arms/{name}/reference"
        made = objectives.pair_rows(policy, rows, cfg.method, run, shown=shown)
        settings = replace(
            fit_config(cfg, policy.precision), lr=cfg.feedback_learning_rate, epochs=cfg.feedback_epochs
        )
        _fit(f"arms/{name}/{cfg.method}", cfg.method, policy, made, settings, run, beta=cfg.beta)
        _save(name, policy, cfg, {"method": cfg.method, "feedback": roles.name("critic")}, run)
    judged = len(data.rest) - counts.get("prompts_without_verdict", 0)
    return Learned(len(data.start), judged, len(chosen), counts)


def _tokens(policy: LanguagePolicy, prompt: Any, answer: Any, most: int) -> Completion:
    """A sample as it was drawn; a text as its tokens."""
    return answer if isinstance(answer, Completion) else shortened(policy, prompt, str(answer), most)


def _given(name: str, data: Data, roles: Roles, run: Run) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The pairs of a file of verdicts that belong to the rest of the prompts."""
    assert roles.verdicts is not None
    wanted = {prompt_key(prompt) for prompt in data.rest}
    rows = [
        {"input": row["prompt"], "chosen": row["chosen"], "rejected": row["rejected"]}
        for row in roles.verdicts
        if prompt_key(row["prompt"]) in wanted
    ]
    answered = len({prompt_key(row["input"]) for row in rows})
    if not rows:
        raise HeedfulError(
            f"none of the {len(roles.verdicts)} verdicts in {roles.name('critic')} is about one of the "
            f"{len(wanted)} prompts that AI feedback is for; what was learned before is kept"
        )
    freeze("arms/critic.json", {"critic": roles.source("critic")}, run)
    counts = {"pairs": len(rows), "prompts_without_verdict": len(wanted) - answered}
    keep_pairs(rows, name, run)
    return rows, counts


def _asked(
    name: str, cfg: Config, data: Data, roles: Roles, run: Run
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Pairs from samples of the started model, by what the critic says of them."""
    from heedful.judges.comparing import as_judge

    assert roles.critic is not None
    arm = ARMS[name]
    prompts, texts = data.answers(arm.whose, "rest")
    samples = sampled(name, cfg, prompts, run)
    if cfg.pairs == "teacher":
        groups = [[*samples.group(i), texts[i]] for i in range(len(prompts))]
        samples = Samples(samples.inputs, [output for group in groups for output in group], samples.n + 1)
    feedback = judge_once(as_judge(checked(name, roles, run)), samples, f"arms/{name}/feedback", run)
    said = json.loads(run.path(f"arms/{name}/verdicts.json").read_bytes())
    if said["critic"] != roles.source("critic"):
        raise HeedfulError(
            f"{run.path(f'arms/{name}/feedback.jsonl')} has the verdicts of the critic {said['critic'][0]}, not of "
            f"{roles.name('critic')}; name that critic, or another --out"
        )
    selected = pairs(samples, feedback)
    if not selected.rows:
        raise HeedfulError(
            f"{arm.about}: no pair is left to learn from ({selected.counts}); what was learned is kept in {run.folder}"
        )
    keep_pairs(selected.rows, name, run)
    return selected.rows, {f"critic_{key}": value for key, value in said["counts"].items()} | selected.counts


def sampled(name: str, cfg: Config, prompts: Sequence[Any], run: Run) -> Samples:
    """Samples of the model that a feedback arm starts from, kept as arms/<name>/samples.jsonl."""
    stage = f"arms/{name}/samples"
    policy: Any = None
    if not done(f"{stage}.jsonl", run):
        policy = policy_of(ARMS[name].after, cfg, run, train=False)
    return sample_once(policy, prompts, cfg.n, stage, run, quiet=cfg.quiet, **sampling(cfg))


def checked(name: str, roles: Roles, run: Run) -> Comparer:
    """The critic, whose counts are kept as arms/<name>/verdicts.json, and which raises HeedfulError when its verdicts
    teach nothing. It sees texts: token ids would be another model's."""
    from heedful.judges.comparing import check_useful

    critic = roles.critic
    assert critic is not None

    def compare(prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> Comparison:
        found = critic(prompts, list(map(str, first)), list(map(str, second)))
        try:
            check_useful(found, f"the critic {roles.name('critic')}")
        except HeedfulError as error:
            raise HeedfulError(
                f"{ARMS[name].about}: {error}\nWhat was learned, sampled and asked so far is kept in {run.folder}; the "
                "same command goes on from there, also with another --critic where --critic-answers is given"
            ) from error
        kept = {"critic": roles.source("critic"), "counts": found.counts}
        write_file(run.path(f"arms/{name}/verdicts.json"), json.dumps(kept).encode())
        return found

    return compare


def keep_pairs(rows: Sequence[dict[str, Any]], name: str, run: Run) -> None:
    """Write the pairs for people to read, and as a file of verdicts that another run can take as its --critic."""
    names = {"prompt": "input", "chosen": "chosen", "rejected": "rejected"}
    run.once(
        f"arms/{name}/rows.jsonl",
        lambda: [
            {key: row[own] if key == "prompt" else str(row[own]) for key, own in names.items()}
            for row in rows
        ],
    )


# ---- both


def _fit(
    stage: str,
    method: str,
    policy: LanguagePolicy,
    rows: Sequence[Any],
    settings: FitConfig,
    run: Run,
    **options: Any,
) -> None:
    fit(
        stage,
        objectives.objective(policy, method, **options),
        policy.module,
        rows,
        settings,
        run,
        collate=objectives.collate(policy),
        cost=objectives.row_cost(policy),
        weight=objectives.row_weight(method),
    )


def _save(name: str, policy: LanguagePolicy, cfg: Config, facts: dict[str, Any], run: Run) -> Path:
    """The model with its card; every process sees it afterwards."""
    folder = run.path(f"arms/{name}/model")
    card = {
        "base_model": cfg.model,
        "summary": [f"The arm `{ARMS[name].about}` of `heedful critique`."],
        **facts,
    }
    if run.rank == 0:
        hub.save_model(policy.module, policy.tokenizer, folder, card=card)
    done(f"arms/{name}/model", run)
    return folder
