"""The runs behind `heedful compare-methods`: splits, the start model's answers, learning rates, one run a method.

splits/               the canonical rows: train, tune (to choose learning rates on), test (to report on)
start/<seed>/         what does not depend on the method: the start model's held-out answers, lent to every run
tuning/, arms/        one folder of `heedful prefer` each
results/              what became of each run; a run with a result is not opened again
"""

from __future__ import annotations

import gc
import json
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from heedful.atomic import remove_folder, write_file
from heedful.data.rows import prompt_key, split_by_prompt
from heedful.errors import HeedfulError, NotFinite, NothingToLearn
from heedful.hub import is_reward_model
from heedful.processes import gather
from heedful.recipes import prefer, prefer_data
from heedful.recipes.compare_plan import Arm, Budget, arm_config, base_config, budget, measured_every
from heedful.run import Run, open_run

if TYPE_CHECKING:
    from heedful.recipes.compare_methods import Config

Split = Literal["tune", "test"]
OURS = (*prefer.VOLATILE, "out", "data", "eval_data", "prompts", "eval_prompts", "reward_model")
"""Settings of a run that may change: paths inside the run folder change when it is moved."""
LENT = ("before/samples.jsonl", "before/feedback.jsonl", "before/gold.jsonl")
EVERYTHING = 10**9


@dataclass
class Work:
    """A comparison that has been prepared: its splits, and its judge where that had to be fitted."""

    cfg: Config
    run: Run
    prompts: int
    """Training prompts."""
    facts: dict[str, Any]
    reward_model: str = ""

    @property
    def seeds(self) -> list[int]:
        """The reported seeds of training: those after the one that learning rates are chosen with."""
        return [self.cfg.seed + 1 + i for i in range(self.cfg.seeds)]


@dataclass(frozen=True)
class Choice:
    """A method's learning rate. scores: what each rate reached on the tuning prompts, None where it failed."""

    rate: float
    scores: dict[float, float | None]
    failed: str = ""


@dataclass(frozen=True)
class Ran:
    """One run of a method: prefer's result.json and where it lies, or why it failed."""

    folder: Path
    seed: int
    result: dict[str, Any]
    failed: str = ""


def there(name: str, run: Run) -> bool:
    """Whether a file is in the run folder, as rank 0 sees it."""
    return gather(run.path(name).exists(), run.world)[0]


def prepare(cfg: Config, run: Run) -> Work:
    """Split the data, fit the reward model where there is one to fit.

    Raises HeedfulError as `heedful prefer` does for the data, and when the held-out prompts are too few for both parts.
    """
    told = run.once("splits.json", lambda: _split(cfg, run))
    work = Work(cfg, run, told["training prompts"], told["facts"])
    work.reward_model = _reward_model(work)
    return work


# ---- splits


def _split(cfg: Config, run: Run) -> dict[str, Any]:
    """Write the canonical rows of each part; held-out prompts are apart from training ones in every file."""
    named = {n: getattr(cfg, n) for n in ("data", "prompts", "eval_data", "eval_prompts", "columns")}
    base = replace(
        base_config(cfg, cfg.seed), **named, drop_faulty_rows=cfg.drop_faulty_rows, eval_limit=EVERYTHING
    )
    data = prefer_data.load(base, run)
    share = cfg.tune_share if len(cfg.learning_rates) > 1 else 0.0
    side: dict[bytes, Split] = {}
    for prompts in (data.eval_prompts, [row["prompt"] for row in data.eval_pairs]):
        rows = [{"prompt": prompt} for prompt in prompts if prompt_key(prompt) not in side]
        # not run.seed itself, whose ranks have already decided who is held out
        ranked_by = run.seed_for("tune")
        test, tune = split_by_prompt(rows, share, ranked_by) if share else (range(len(rows)), ())
        side |= {prompt_key(rows[i]["prompt"]): "test" for i in test}
        side |= {prompt_key(rows[i]["prompt"]): "tune" for i in tune}
    facts = {name: count for name, count in data.facts.items() if "left out" in name or "warnings" in name}

    parts: dict[str, list[dict[str, Any]]] = {}
    if cfg.data:
        parts["pairs.train"] = list(data.pairs)
        for split in ("tune", "test"):
            parts[f"pairs.{split}"] = [
                row for row in data.eval_pairs if side[prompt_key(row["prompt"])] == split
            ]
    training = [prompt for prompt in data.prompts if prompt_key(prompt) not in side]
    if len(training) < len(data.prompts):
        facts["training prompts left out, being in the held-out pairs"] = len(data.prompts) - len(training)
    if cfg.prompts:
        parts["prompts.train"] = [{**data.columns(prompt), "prompt": prompt} for prompt in training]
    for split in ("tune", "test"):
        chosen = [prompt for prompt in data.eval_prompts if side[prompt_key(prompt)] == split]
        parts[f"prompts.{split}"] = [{**data.columns(prompt), "prompt": prompt} for prompt in chosen]
        facts[f"held-out prompts: {split}"] = min(cfg.eval_limit, len(chosen))
    needed = ("test", "tune") if share else ("test",)
    empty = [name for name, rows in parts.items() if not rows and not (name.endswith("tune") and not share)]
    if empty or not training:
        raise HeedfulError(
            f"{len(training)} training prompts and {len(side)} held-out ones leave nothing for {', '.join(empty)}: "
            f"each of {', '.join(needed)} and training needs some; change --eval-share or --tune-share, or give more"
        )
    for name, rows in parts.items():
        write_file(run.path(f"splits/{name}.jsonl"), "".join(json.dumps(row) + "\n" for row in rows).encode())
    facts = {"training prompts": len(training), "training pairs": len(parts.get("pairs.train", [])), **facts}
    return {"training prompts": len(training), "facts": {k: v for k, v in facts.items() if v}}


def _base(work: Work, split: Split, seed: int) -> prefer.Config:
    """The settings that all runs on one part of the held-out prompts share."""
    cfg = work.cfg

    def part(name: str) -> str:
        return str(work.run.path(f"splits/{name}.jsonl"))

    named = {"reward_model": work.reward_model}
    if cfg.data:
        named |= {"data": part("pairs.train"), "eval_data": part(f"pairs.{split}")}
    if cfg.prompts:
        named |= {"prompts": part("prompts.train")}
    if cfg.prompts or cfg.eval_prompts:
        named |= {"eval_prompts": part(f"prompts.{split}")}
    return replace(base_config(cfg, seed), **named)


def _how(cfg: prefer.Config) -> dict[str, Any]:
    return {"template": cfg.template, "precision": cfg.precision, "device": cfg.device}


def _reward_model(work: Work) -> str:
    """The saved reward model that judges: as named, or fitted here once, so that all methods have the same."""
    cfg, run = work.cfg, work.run
    if not cfg.reward_model or is_reward_model(cfg.reward_model):
        return cfg.reward_model
    if not there("reward_model.json", run):
        base = replace(
            _base(work, "test", cfg.seed),
            reward_model=cfg.reward_model,
            learning_rate=cfg.reward_learning_rate,
        )
        data = prefer_data.load(base, run)
        prefer_data.judge(base, data, run, _how(base))
        name = "reward model: held-out accuracy"
        run.once("reward_model.json", lambda: {name: data.facts[name]})
    work.facts |= run.once("reward_model.json", dict)
    return str(run.path("reward_model"))


# ---- the start model


def start(work: Work, split: Split, seed: int) -> Path:
    """The folder with the start model's answers to one part of the held-out prompts, made once.

    Of the reported part it keeps `before/pairs.json`, how close the two answers of each held-out pair are, and, with
    the first seed, `probe`: --best-of samples of every prompt.
    """
    folder = work.run.path(f"start/{split}-seed{seed}")
    if not there(f"start/{split}-seed{seed}/done.json", work.run):
        with open_run(folder, {"start": work.cfg.model, "split": split}, seed=seed) as own:
            _say(work, f"the start model, {split} prompts, seed {seed}")
            _answer(work, own, split, seed)
            own.once("done.json", dict)
        gc.collect()
    return folder


def _answer(work: Work, own: Run, split: Split, seed: int) -> None:
    from heedful.evals import heldout
    from heedful.policies.stages import judge_once, sample_once
    from heedful.recipes.compare_pairs import closeness

    base = _base(work, split, seed)
    data = prefer_data.load(base, own)
    judge, gold = (
        prefer_data.judge(base, data, own, _how(base)),
        prefer_data.gold_judge(base, data, _how(base)),
    )
    policy = _policy(base, own)
    ask = _ask(base)
    before = heldout.answer(policy, data.eval_prompts, judge, "before", own, n=base.eval_n, **ask)
    if gold is not None:
        heldout.gold_scores(gold, before, "before", own)
    if split == "test":
        close = closeness(policy, data.eval_pairs or heldout.as_pairs(before), own)
        own.once("before/pairs.json", lambda: close)
        if seed == work.seeds[0]:
            assert judge is not None
            probe = sample_once(policy, data.eval_prompts, work.cfg.best_of, "probe/samples", own, **ask)
            judge_once(judge, probe, "probe/feedback", own)


def _ask(base: prefer.Config) -> dict[str, Any]:
    from heedful.recipes.settings import sampling

    return {"quiet": base.quiet, **sampling(base)}


def _policy(base: prefer.Config, own: Run) -> Any:
    """The start model as `prefer.run` loads it: an adapter that is all zeros changes no bit of what is drawn."""
    from heedful.policies.backbone import Lora
    from heedful.policies.language import LanguagePolicy

    lora = Lora(base.lora_rank, base.lora_alpha) if base.lora_rank else None
    policy = LanguagePolicy.load(base.model, lora=lora, seed=own.seed_for("adapter"), **_how(base))
    policy.keep_reference()
    return policy


# ---- methods


def granted(work: Work, arm: Arm) -> Budget:
    """The budget of every run of a method."""
    return budget(work.cfg, arm, work.prompts)


def choose(work: Work, arm: Arm) -> Choice:
    """The learning rate with the best mean score on the tuning prompts; of equals the lower.

    Every rate gets the whole budget and the same seed, which is none of the reported ones. What judges is the judge
    that is learned from: --gold only measures.
    """
    rates = sorted(work.cfg.learning_rates)
    if len(rates) == 1:
        return Choice(rates[0], {})
    runs = {rate: _ran(work, arm, rate, work.cfg.seed, "tune") for rate in rates}
    scores = {rate: None if ran.failed else ran.result["judge_score_after"] for rate, ran in runs.items()}
    known = {rate: score for rate, score in scores.items() if score is not None}
    if not known:
        return Choice(rates[0], scores, failed=runs[rates[0]].failed)
    return Choice(max(known, key=lambda rate: known[rate]), scores)


def report_arm(work: Work, arm: Arm, rate: float, seed: int) -> Ran:
    """One reported run of a method at its chosen learning rate."""
    return _ran(work, arm, rate, seed, "test")


def run_config(work: Work, arm: Arm, rate: float, seed: int, split: Split) -> prefer.Config:
    """The settings of one run, as `heedful prefer` would have them."""
    made = arm_config(_base(work, split, seed), work.cfg, arm, granted(work, arm), rate)
    every = measured_every(work.cfg, made.rounds) if split == "test" else 0
    return replace(made, eval_rounds=every, out=str(_folder(work, arm, rate, seed, split)))


def _folder(work: Work, arm: Arm, rate: float, seed: int, split: Split) -> Path:
    if split == "tune":
        return work.run.path(f"tuning/{arm.name}/rate-{rate:g}")
    return work.run.path(f"arms/{arm.name}/seed{seed}")


def _ran(work: Work, arm: Arm, rate: float, seed: int, split: Split) -> Ran:
    folder = _folder(work, arm, rate, seed, split)
    name = f"results/{folder.relative_to(work.run.folder)}.json"
    made: dict[str, Any] = {}
    if not there(name, work.run):
        _say(work, f"{arm.label}, learning rate {rate:g}, {split} prompts, seed {seed}")
        made = _run(work, arm, run_config(work, arm, rate, seed, split), split)
        gc.collect()
    told = work.run.once(name, lambda: made)
    if split == "tune" and work.run.rank == 0:
        _forget_weights(folder)
    return Ran(folder, seed, told["result"], told["failed"])


def _run(work: Work, arm: Arm, cfg: prefer.Config, split: Split) -> dict[str, Any]:
    """Lend it the start model's answers, and run it; what came of it."""
    from heedful.recipes.compare_pairs import pair_rewards

    lent = start(work, split, cfg.seed)
    files = [f for f in (cfg.data, cfg.prompts, cfg.eval_data, cfg.eval_prompts) if f]
    with open_run(cfg.out, cfg, seed=cfg.seed, data=files, volatile=OURS) as own:
        for name in LENT:
            if (lent / name).exists():
                own.once(name, lambda name=name: _rows(lent / name))
        try:
            result = prefer.run(cfg, own)
            if split == "test" and arm.contrastive:
                pair_rewards(cfg, own, _policy(cfg, own))
        except (NotFinite, NothingToLearn) as error:
            return {"result": {}, "failed": str(error)}
    if "judge_score_after" not in result:
        raise HeedfulError(
            f"{arm.label}: the judge has no opinion on any held-out answer, so nothing can be compared"
        )
    return {"result": result, "failed": ""}


def _rows(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as lines:
        return [json.loads(line) for line in lines]


def _forget_weights(folder: Path) -> None:
    """A run to choose a rate by has told its score; a model for each would fill the disk."""
    with suppress(OSError):
        for weights in (folder / "model", *folder.glob("round*/final")):
            remove_folder(weights)


def _say(work: Work, text: str) -> None:
    if not work.cfg.quiet:
        print(f"== {text}", file=sys.stderr)
