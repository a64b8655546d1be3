"""What `heedful prefer` reads: pairs, prompts, held-out parts, and the judge they come with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import torch

from heedful.data.rows import Rows, open_rows, parse_columns, split_by_prompt
from heedful.errors import HeedfulError
from heedful.feedback import Feedback, Judge, Samples
from heedful.fit import FitConfig, fit
from heedful.hub import is_reward_model, save_model
from heedful.judges.reward import RewardModel, reward_objective
from heedful.judges.rules import parse_judge
from heedful.policies import objectives
from heedful.policies.backbone import Lora
from heedful.policies.language import Completion, LanguagePolicy
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.prefer import Config


@dataclass
class Part(Sequence[dict[str, Any]]):
    """Some rows of a file, read from disk when they are asked for."""

    rows: Rows
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, i: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, i: slice) -> Part: ...
    def __getitem__(self, i: int | slice) -> dict[str, Any] | Part:
        if isinstance(i, slice):
            return Part(self.rows, self.indices[i])
        return self.rows[int(self.indices[i])]


@dataclass
class Data:
    """Training and held-out parts; `columns` holds, for each prompt, the row it came from (for judges)."""

    pairs: Sequence[dict[str, Any]] = ()
    eval_pairs: Sequence[dict[str, Any]] = ()
    prompts: list[Any] = field(default_factory=list)
    eval_prompts: list[Any] = field(default_factory=list)
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def load(cfg: Config, run: Run) -> Data:
    """Read and check every file; hold out prompts where no held-out file is given.

    Raises HeedfulError listing everything wrong in the files, and when nothing is left to train or test on.
    """
    data = Data()
    columns = parse_columns(cfg.columns)

    def read(path: str, kind: str) -> Rows:
        return open_rows(path, kind=kind, columns=columns, cache=run.path("cache"))

    def parts(path: str, held: str, kind: str) -> tuple[Part, Part]:
        rows = read(path, kind)
        if held:
            other = read(held, kind)
            train = {_key(row["prompt"]) for row in rows}
            both = [i for i in range(len(other)) if _key(other[i]["prompt"]) in train]
            if both:
                raise HeedfulError(
                    f"{held}: {len(both)} prompts are also in {path} (the first is row {both[0] + 1}); "
                    "held-out prompts must not be trained on"
                )
            return Part(rows, range(len(rows))), Part(other, range(len(other)))
        train_rows, held_rows = split_by_prompt(rows, cfg.eval_share, run.seed)
        if not len(train_rows) or not len(held_rows):
            raise HeedfulError(
                f"{path} has {len(rows)} rows: holding out {cfg.eval_share:.0%} of its prompts leaves nothing to "
                "train or test on; give a held-out file or change --eval-share"
            )
        return Part(rows, train_rows), Part(rows, held_rows)

    if cfg.data:
        data.pairs, data.eval_pairs = parts(cfg.data, cfg.eval_data, "preference")
        data.facts |= {"training pairs": len(data.pairs), "held-out pairs": len(data.eval_pairs)}
    if cfg.prompts:
        train, held = parts(cfg.prompts, cfg.eval_prompts, "prompt")
    elif cfg.eval_prompts:
        rows = read(cfg.eval_prompts, "prompt")
        train, held = data.pairs, Part(rows, range(len(rows)))
    else:
        train, held = data.pairs, data.eval_pairs
    data.prompts = _prompts(train, data.columns)
    data.eval_prompts = _prompts(held, data.columns)[: cfg.eval_limit]
    data.facts |= {"training prompts": len(data.prompts), "held-out prompts": len(data.eval_prompts)}
    return data


def _key(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(f"{m['role']}: {m['content']}" for m in prompt)


def _prompts(rows: Sequence[dict[str, Any]], columns: dict[str, dict[str, Any]]) -> list[Any]:
    """Each prompt once, in order."""
    seen: dict[str, Any] = {}
    for i in range(len(rows)):
        row = rows[i]
        key = _key(row["prompt"])
        seen.setdefault(key, row["prompt"])
        columns.setdefault(key, {k: v for k, v in row.items() if k not in ("prompt", "chosen", "rejected")})
    return list(seen.values())


def judge(cfg: Config, data: Data, run: Run, how: dict[str, Any]) -> Judge | None:
    """The judge of the options: a rule, a function, a saved reward model, or one fitted to the pairs here.

    Raises HeedfulError when a reward model must be fitted and there are no pairs.
    """
    if cfg.judge:
        columns = data.columns
        return parse_judge(cfg.judge, columns=lambda prompt: columns.get(_key(prompt), {}))
    if not cfg.reward_model:
        return None
    if is_reward_model(cfg.reward_model):
        return RewardModel.load(cfg.reward_model, **how)
    if not len(data.pairs):
        raise HeedfulError(f"--reward-model {cfg.reward_model} must be fitted to pairs: give --data")
    return fit_reward_model(cfg, data, run, how)


def fit_reward_model(cfg: Config, data: Data, run: Run, how: dict[str, Any]) -> RewardModel:
    """Fit a Bradley-Terry reward model to the training pairs; it is saved as reward_model/."""
    model = RewardModel.load(
        cfg.reward_model, lora=Lora(cfg.lora_rank or 16, cfg.lora_alpha), seed=run.seed_for("reward"), **how
    )

    def rows(part: Sequence[dict[str, Any]]) -> list[objectives.Row]:
        return [
            {
                "group": model.group(row["prompt"], [row["chosen"], row["rejected"]]),
                "margin": [float(row.get("margin") or 0.0)],
            }
            for row in part
        ]

    settings = FitConfig(
        lr=cfg.learning_rate,
        batch_size=cfg.batch_size,
        warmup=0.1,
        micro_cost=cfg.micro_tokens,
        precision=model.precision,
        save_every=cfg.save_every,
        keep=cfg.keep,
        quiet=cfg.quiet,
    )
    fit(
        "reward",
        reward_objective(model),
        model.module,
        rows(data.pairs),
        settings,
        run,
        collate=objectives.collate(model),
        cost=objectives.row_cost(model),
    )
    held = rows(data.eval_pairs)
    scores = run.once("reward/held_out.json", lambda: model.score([row["group"] for row in held]))
    right = sum((a > b) + 0.5 * (a == b) for a, b in scores)
    data.facts["reward model: held-out accuracy"] = round(right / max(1, len(scores)), 4)
    if run.rank == 0:
        card = {
            "base_model": cfg.reward_model,
            "method": "bradley_terry",
            "feedback": cfg.data,
            "metrics": {"held-out accuracy": right / max(1, len(scores)), "held-out pairs": len(scores)},
        }
        save_model(model.module, model.tokenizer, run.path("reward_model"), card=card)
    return model


def less_kl(policy: LanguagePolicy, samples: Samples, feedback: Feedback, kl: float, run: Run) -> Feedback:
    """Scores less kl times the samples' log-ratio to the start model."""
    n = samples.n
    groups = [policy.group(p, samples.outputs[i * n : (i + 1) * n]) for i, p in enumerate(samples.inputs)]
    with policy.reference():
        start = torch.tensor(policy.cached_logps(groups, run))
    drawn = torch.tensor([o.logp for o in samples.outputs]).view_as(feedback.score)
    return Feedback(score=feedback.score - kl * (drawn - start), notes=feedback.notes)


def keep_rows(rows: Sequence[dict[str, Any]], name: str, run: Run) -> None:
    """Write the selected rows for people to read, with TRL's column names."""

    def plain(row: dict[str, Any]) -> dict[str, Any]:
        names = {"input": "prompt", "output": "completion"}
        return {names.get(k, k): v.text if isinstance(v, Completion) else v for k, v in row.items()}

    run.once(name, lambda: [plain(row) for row in rows])
