"""What `heedful prefer` reads: pairs, prompts, held-out parts, and the judge they come with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from heedful.data.rows import Rows, open_rows, parse_columns, prompt_key, split_by_prompt
from heedful.errors import HeedfulError
from heedful.evals.heldout import PAIRS
from heedful.feedback import Judge
from heedful.fit import FitConfig, fit
from heedful.hub import is_reward_model, resolve, save_model
from heedful.judges.reward import RewardModel, reward_objective
from heedful.judges.rules import parse_judge
from heedful.manifest import sha256_of
from heedful.policies import objectives
from heedful.policies.backbone import Backbone, Lora
from heedful.policies.language import Completion, LanguagePolicy
from heedful.policies.packing import Group
from heedful.recipes.personalize_judge import is_personal, personal_judge
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

    def where(self, i: int) -> str:
        """File and line of a row."""
        return self.rows.where(int(self.indices[i]))


@dataclass
class Data:
    """Training and held-out parts. `row_of` tells, for each prompt by its `prompt_key`, a row it came from."""

    pairs: Sequence[dict[str, Any]] = ()
    eval_pairs: Sequence[dict[str, Any]] = ()
    prompts: list[Any] = field(default_factory=list)
    eval_prompts: list[Any] = field(default_factory=list)
    row_of: dict[bytes, tuple[Part, int]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def columns(self, prompt: Any) -> dict[str, Any]:
        """The further columns of a prompt's row, for judges."""
        part, i = self.row_of[prompt_key(prompt)]
        return {k: v for k, v in part[i].items() if k not in ("prompt", "chosen", "rejected")}


def load(cfg: Config, run: Run) -> Data:
    """Read and check every file; hold out prompts where no held-out file is given.

    Raises HeedfulError listing everything wrong in the files, and when nothing is left to train or test on.
    """
    data = Data()
    columns = parse_columns(cfg.columns)

    def read(path: str, kind: str) -> Rows:
        rows = open_rows(
            path, kind, columns=columns, cache=run.path("cache"), drop_faulty=cfg.drop_faulty_rows
        )
        for name, count in (
            ("faulty rows left out", "faulty_rows"),
            ("warnings (heedful check)", "warnings"),
        ):
            if getattr(rows.report, count):
                data.facts[f"{Path(path).name}: {name}"] = getattr(rows.report, count)
        return rows

    def parts(path: str, held: str, kind: str) -> tuple[Part, Part]:
        rows = read(path, kind)
        if held:
            train = Part(rows, range(len(rows)))
            other = read(held, kind)
            refuse_shared(train, path, Part(other, range(len(other))), held)
            return train, Part(other, range(len(other)))
        train_rows, held_rows = split_by_prompt(rows, cfg.eval_share, run.seed)
        if not len(train_rows) or not len(held_rows):
            raise HeedfulError(
                f"{path} has {len(rows)} rows: holding out {cfg.eval_share:.0%} of its prompts leaves nothing to "
                "train or test on; give a held-out file or change --eval-share"
            )
        return Part(rows, train_rows), Part(rows, held_rows)

    if cfg.data:
        train, held = parts(cfg.data, cfg.eval_data, "preference")
        data.pairs, data.eval_pairs = train, held
        unused = cfg.rounds > 0 and bool(cfg.prompts) and not cfg.reward_model
        name = "training pairs (not learned from, the judge scores samples)" if unused else "training pairs"
        data.facts |= {name: len(train), "held-out pairs": len(held)}
        asked = train
        if cfg.prompts:
            train, held = parts(cfg.prompts, cfg.eval_prompts, "prompt")
            held = unseen(asked, cfg.data, held, cfg.eval_prompts, data.facts)
        elif cfg.eval_prompts:
            rows = read(cfg.eval_prompts, "prompt")
            held = Part(rows, range(len(rows)))
            refuse_shared(train, cfg.data, held, cfg.eval_prompts)
    else:
        train, held = parts(cfg.prompts, cfg.eval_prompts, "prompt")
    if cfg.rounds:
        data.prompts = _prompts(train, data.row_of, len(train))
    if cfg.offline_share and isinstance(data.pairs, Part):
        _prompts(data.pairs, data.row_of, len(data.pairs))  # judges may ask for their columns
        data.facts["training prompts"] = len(data.prompts)
    data.eval_prompts = _prompts(held, data.row_of, cfg.eval_limit)
    data.facts["held-out prompts"] = len(data.eval_prompts)
    return data


def refuse_shared(train: Part, path: str, held: Part, held_path: str) -> None:
    """Raises HeedfulError when a prompt of `held` is also one of `train`."""
    known = {prompt_key(row["prompt"]) for row in train}
    both = [i for i, row in enumerate(held) if prompt_key(row["prompt"]) in known]
    if both:
        raise HeedfulError(
            f"{held_path}: {len(both)} prompts are also in {path} (the first is {held.where(both[0])}); "
            "held-out prompts must not be trained on"
        )


def unseen(train: Part, path: str, held: Part, held_path: str, facts: dict[str, Any]) -> Part:
    """`held` without the prompts of `train`, which a reward model learns from; their number goes to `facts`.

    Raises HeedfulError when the user named the held-out file (its rows are not ours to drop), or none are left.
    """
    if held_path:
        refuse_shared(train, path, held, held_path)
        return held
    known = {prompt_key(row["prompt"]) for row in train}
    left = [index for index, row in zip(held.indices, held) if prompt_key(row["prompt"]) not in known]
    if not left:
        raise HeedfulError(f"every held-out prompt is also in {path}: give other prompts with --eval-prompts")
    if len(left) < len(held):
        facts["held-out prompts left out, being in the training pairs"] = len(held) - len(left)
    return Part(held.rows, left)


def _prompts(rows: Part, row_of: dict[bytes, tuple[Part, int]], limit: int) -> list[Any]:
    """The first `limit` different prompts, in order."""
    prompts: list[Any] = []
    for i, row in enumerate(rows):
        if len(prompts) == limit:
            break
        key = prompt_key(row["prompt"])
        if key not in row_of:
            row_of[key] = (rows, i)
            prompts.append(row["prompt"])
    return prompts


def check_lengths(cfg: Config, policy: LanguagePolicy, data: Data) -> None:
    """Raises HeedfulError naming every row that the model's context does not hold: prompts with the longest sample they
    may get, held-out pairs that are measured, pairs that are learned from."""
    asked = [*data.eval_prompts, *(data.prompts if cfg.offline_share < 1 else ())]
    longest = Completion("", (0,) * cfg.max_new_tokens, False, 0.0)

    def where(i: int) -> str:
        part, row = data.row_of[prompt_key(asked[i])]
        return part.where(row)

    try:
        objectives.check_lengths(len(asked), lambda i: policy.group(asked[i], [longest]), where)
    except HeedfulError as error:
        raise HeedfulError(
            f"{error}\nA completion counts as --max-new-tokens {cfg.max_new_tokens}: lower it, or shorten or leave "
            "out these prompts."
        ) from None
    check_pairs(policy, data.eval_pairs[:PAIRS])
    if not cfg.rounds or cfg.offline_share:
        check_pairs(policy, data.pairs)


def check_pairs(model: Backbone, pairs: Sequence[dict[str, Any]]) -> None:
    """Raises HeedfulError naming every pair that the model's context does not hold."""

    def group(i: int) -> Group:
        row = pairs[i]
        return model.group(row["prompt"], [row["chosen"], row["rejected"]])

    try:
        objectives.check_lengths(len(pairs), group, getattr(pairs, "where", lambda i: f"pair {i + 1}"))
    except HeedfulError as error:
        raise HeedfulError(f"{error}\nShorten or leave out these rows: an answer is never cut.") from None


def is_fitted(cfg: Config) -> bool:
    """Whether the judge is a reward model that must be fitted first."""
    return bool(cfg.reward_model and not cfg.judge) and not is_reward_model(cfg.reward_model)


def judge(cfg: Config, data: Data, run: Run, how: dict[str, Any]) -> Judge | None:
    """The judge of the options: a rule, a function, a person, a saved reward model, or one fitted to the pairs here.

    Raises HeedfulError when a reward model must be fitted and there are no pairs.
    """
    if is_personal(cfg.judge):
        return personal_judge(cfg.judge, device=how["device"])
    if cfg.judge:
        return parse_judge(cfg.judge, columns=data.columns)
    if not cfg.reward_model:
        return None
    if is_reward_model(cfg.reward_model):
        return RewardModel.load(cfg.reward_model, **how)
    if not len(data.pairs):
        raise HeedfulError(f"--reward-model {cfg.reward_model} must be fitted to pairs: give --data")
    return fit_reward_model(cfg, data, run, how)


def gold_judge(cfg: Config, data: Data, how: dict[str, Any]) -> Judge | None:
    """The judge that only measures: a rule, a function, a person or a saved reward model; None without --gold.

    Raises HeedfulError as `parse_judge` does, and for a model that is no reward model.
    """
    if not cfg.gold:
        return None
    if is_personal(cfg.gold):
        return personal_judge(cfg.gold, device=how["device"])
    if cfg.gold.startswith("rule:") or ".py:" in cfg.gold:
        return parse_judge(cfg.gold, columns=data.columns)
    if not is_reward_model(cfg.gold):
        raise HeedfulError(
            f"--gold {cfg.gold} is no reward model; it only measures, so it must be fitted already"
        )
    return RewardModel.load(cfg.gold, **how)


def model_files(*names: str) -> list[str]:
    """Weights and settings of the model folders among these: what they say decides a run, so it must not go on with
    others."""
    folders = [Path(resolve(name)) for name in names if name and Path(name).expanduser().is_dir()]
    return [
        str(file)
        for folder in folders
        for file in sorted(folder.iterdir())
        if file.suffix in (".safetensors", ".json")
    ]


def judge_files(cfg: Config) -> dict[str, str | None]:
    """The Python files that judge, each with its sha256."""
    files = [spec.rpartition(":")[0] for spec in (cfg.judge, cfg.gold)]
    return {file: sha256_of(Path(file).expanduser()) for file in files if file.endswith(".py")}


def changed(files: dict[str, str | None], run: Run) -> list[str]:
    """Warns of judges' files that are no longer those the run began with: correcting one is allowed."""
    began = run.once("judges.json", lambda: files) if files else {}
    return [
        f"{file} has changed since the run began: some of the answers were judged by an earlier form of it."
        for file, content in files.items()
        if began.get(file, content) != content
    ]


def fit_reward_model(cfg: Config, data: Data, run: Run, how: dict[str, Any]) -> RewardModel:
    """Fit a Bradley-Terry reward model to the training pairs; it is saved as reward_model/.

    Raises HeedfulError naming every pair, held out or not, that is longer than its context.
    """
    model = RewardModel.load(
        cfg.reward_model, lora=Lora(cfg.lora_rank or 16, cfg.lora_alpha), seed=run.seed_for("reward"), **how
    )

    for pairs in (data.pairs, data.eval_pairs):
        check_pairs(model, pairs)

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
