"""`heedful search improve`: a model that searches in text learns from its own streams, scored by a verifier.

star  Self-taught reasoner (Zelikman et al. 2022) as in Gandhi et al. 2024: sample, keep what is solved, imitate it from
      the base model on. Every round samples from the newest model and fine-tunes the base (as in its replications; the
      paper's own code is unclear). No hints.
apa   Advantage-induced policy alignment (Zhu et al. 2023), see search_apa.
dpo   Direct preference optimisation on pairs of the model's own streams, solved against not, round by round.
grpo  Clipped policy gradient on scores less their group's mean (Shao et al. 2024), not divided by the group's deviation
      and summed over tokens (Liu et al. 2025), which removes two biases.

dpo and grpo are the driver of `heedful prefer`. Problems are other samples of the training side in every round; what is
decided while learning is decided on samples of their own; test sets are only measured, before and after.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from heedful.errors import HeedfulError, NothingToLearn
from heedful.recipes.search import VOLATILE, tell
from heedful.recipes.search_world import FILE, Settings, World, open_world, world_files, world_of, world_text
from heedful.recipes.settings import fit_config

if TYPE_CHECKING:
    from heedful.policies.language import LanguagePolicy
    from heedful.run import Run

METHODS: dict[str, dict[str, Any]] = {
    "star": {
        "rounds": 3,
        "problems": 10_000,
        "n": 1,
        "temperature": 0.8,
        "learning_rate": 3e-4,
        "epochs": 2.0,
    },
    "apa": {"rounds": 60, "problems": 256, "n": 1, "temperature": 1.0, "learning_rate": 1e-4, "epochs": 2.0},
    "dpo": {"rounds": 20, "problems": 128, "n": 8, "temperature": 1.0, "learning_rate": 5e-5, "epochs": 1.0},
    "grpo": {"rounds": 60, "problems": 32, "n": 8, "temperature": 1.0, "learning_rate": 1e-4, "epochs": 1.0},
}
"""What an option is where it is not given."""
OPTION_OF = {
    "above": (0.0, ("star",)),
    "lam": (2.0, ("apa",)),
    "value_coef": (10.0, ("apa",)),
    "gae_lambda": (0.95, ("apa",)),
    "critic_rounds": (5, ("apa",)),
    "check_every": (5, ("apa",)),
    "check_problems": (256, ("apa",)),
    "patience": (8, ("apa",)),
    "beta": (0.1, ("dpo",)),
    "clip": (0.2, ("grpo",)),
    "betas": ((0.9, 0.95), ("star", "apa")),
}


@dataclass(frozen=True)
class Config:
    """Improve a model on what its verifier says about its own streams."""

    out: str = "runs/search-improve"
    """The run folder. The same command again resumes it."""
    model: str = "runs/search"
    """Where to start: a run of `heedful search`, or any model folder with --prompts and --judge."""
    method: Literal["star", "apa", "dpo", "grpo"] = "star"
    """star: imitate what is solved. apa: with a critic. dpo: pairs of solved and not. grpo: group advantages."""
    prompts: str = ""
    """Your own problems, instead of those of the model's run."""
    eval_prompts: str = ""
    """Your own held-out problems."""
    judge: str = ""
    """Your own verifier, `path.py:function`, instead of that of the model's run."""

    rounds: int = 0
    """Rounds of sampling and learning; 0: star 3, apa and grpo 60, dpo 20."""
    problems: int = 0
    """Problems of a round; 0: star 10,000, apa 256, dpo 128, grpo 32."""
    n: int = 0
    """Streams for each problem; 0: star and apa 1, dpo and grpo 8."""
    temperature: float = -1.0
    """Of sampling; below 0: star 0.8, else 1."""
    learning_rate: float = 0.0
    """Peak learning rate of AdamW; 0: star 3e-4, apa and grpo 1e-4, dpo 5e-5."""
    epochs: float = 0.0
    """Passes over a round's rows; 0: star and apa 2, dpo and grpo 1."""
    above: float = 0.0
    """star: keep streams with a score above this."""
    lam: float = 2.0
    """apa: what advantages are divided by (lambda): large stays near the reference."""
    value_coef: float = 10.0
    """apa: weight of the critic's loss."""
    gae_lambda: float = 0.95
    """apa: lambda of generalised advantage estimation."""
    critic_rounds: int = 5
    """apa: rounds of streams that the critic alone learns from first."""
    check_every: int = 5
    """apa: rounds between looks at the problems set apart for it."""
    check_problems: int = 256
    """apa: how many those are."""
    patience: int = 8
    """apa: looks without a better moving average of the score until the policy becomes the reference."""
    beta: float = 0.1
    """dpo: strength of the reference."""
    clip: float = 0.2
    """grpo: ratio clip."""

    batch_size: int = 32
    """Streams per step; of dpo pairs, of grpo problems with their streams."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How the learning rate falls, over all rounds (star: over each)."""
    warmup: float = 0.02
    """Steps of warm-up, or a share when below 1."""
    weight_decay: float = 0.0
    """Of AdamW."""
    betas: tuple[float, float] = (0.9, 0.95)
    """star and apa: AdamW's decay rates of the gradient's mean and square (dpo and grpo: 0.9 and 0.999)."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    micro_tokens: float = 8192.0
    """Tokens per forward pass; lower it when memory runs out, the result is the same."""
    save_every: int = 0
    """Steps between checkpoints within a round; 0: none, a kill costs the round's learning."""
    keep: int = 1
    """Checkpoints kept."""
    log_every: int = 1
    """Steps between metric rows."""

    eval_problems: int = 500
    """Problems of each test set that are answered before and after, always with the most likely token."""
    max_new_tokens: int = 0
    """Longest stream; 0: what the context has room for."""
    max_rows: int = 256
    """Streams drawn at the same time."""
    seed: int = 0
    """Of everything."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the forward pass."""
    json: bool = False
    """Print result.json on standard output."""
    quiet: bool = False
    """No progress display."""


def main(cfg: Config) -> int:
    """What `heedful search improve` does; the exit status."""
    from heedful.run import open_run

    cfg = settle(cfg)
    settings = world_of(cfg.model, prompts=cfg.prompts, eval_prompts=cfg.eval_prompts, judge=cfg.judge)
    with open_run(cfg.out, cfg, seed=cfg.seed, data=world_files(settings), volatile=VOLATILE) as opened:
        cfg = replace(cfg, quiet=True, json=False) if opened.rank else cfg
        result = run(cfg, settings, opened)
    tell(cfg, result)
    return 0


def settle(cfg: Config) -> Config:
    """Fill in what the method decides. Raises HeedfulError for options that are out of range or not the method's."""
    own = METHODS[cfg.method]
    given = {name: getattr(cfg, name) for name in own}
    filled = {k: own[k] if v < 0 or (v == 0 and k != "temperature") else v for k, v in given.items()}
    wrong = [
        f"--{name.replace('_', '-')} is an option of {' and '.join(methods)}, not of {cfg.method}"
        for name, (default, methods) in OPTION_OF.items()
        if cfg.method not in methods and getattr(cfg, name) != default
    ]
    for name, value in given.items():
        if value < 0 and name != "temperature":
            wrong.append(f"--{name.replace('_', '-')} must not be below 0")
    cfg = replace(cfg, **filled)
    for name in (
        "rounds",
        "problems",
        "n",
        "batch_size",
        "max_rows",
        "check_every",
        "check_problems",
        "patience",
    ):
        if getattr(cfg, name) < 1:
            wrong.append(f"--{name.replace('_', '-')} must be at least 1")
    for name in ("eval_problems", "max_new_tokens", "critic_rounds", "value_coef"):
        if getattr(cfg, name) < 0:
            wrong.append(f"--{name.replace('_', '-')} must be 0 or more")
    for name in ("lam", "beta", "clip"):
        if not 0 < getattr(cfg, name) < math.inf:
            wrong.append(f"--{name} must be above 0")
    if not 0 <= cfg.gae_lambda <= 1:
        wrong.append("--gae-lambda must be from 0 to 1")
    if not math.isfinite(cfg.above):
        wrong.append("--above must be a number")
    if cfg.method in ("dpo", "grpo") and cfg.n < 2:
        wrong.append(f"--n must be at least 2: {cfg.method} compares the streams of one problem")
    if cfg.temperature == 0:
        wrong.append("--temperature must be above 0: streams that are all the same teach nothing")
    if wrong:
        raise HeedfulError("; ".join(wrong))
    return cfg


def run(cfg: Config, settings: Settings, run: Run) -> dict[str, Any]:
    """Measure, learn in rounds, save the model, measure again; returns result.json. Resumes where it stopped."""
    from heedful import hub
    from heedful.policies.language import LanguagePolicy
    from heedful.recipes import search_apa, search_driver, search_measure, search_pictures, search_report

    policy = LanguagePolicy.load(
        cfg.model, template="none", small=True, precision=cfg.precision, device=cfg.device
    )
    world = open_world(settings, policy.tokenizer)
    run.once(FILE, lambda: world_text(settings))

    def measured(when: str) -> dict[str, search_measure.Measured]:
        if not cfg.eval_problems:
            return {}
        return {
            name: search_measure.greedy(policy, world, prompts(cfg.eval_problems), f"{when}/{name}", run, cfg)
            for name, prompts in world.tests.items()
        }

    before = measured("before")
    learn = {"star": star, "apa": search_apa.learn}.get(cfg.method, search_driver.learn)
    told = learn(cfg, policy, world, run)
    if run.rank == 0:
        card = {"title": f"A decoder improved by {cfg.method}", "base_model": cfg.model, "method": cfg.method}
        hub.save_model(policy.module, policy.tokenizer, run.path("model"), card=card)
    after = measured("after")
    drawn = search_pictures.pictures({"before": before, "after": after}, world, policy.context, run)
    return search_report.finish_improvement(cfg, before, after, world.facts, told, drawn, run)


def star(cfg: Config, policy: LanguagePolicy, world: World, run: Run) -> dict[str, Any]:
    """Rounds of: sample, keep what is solved, fine-tune the base on it. Returns what was kept, by round.

    Raises NothingToLearn when a round solves nothing.
    """
    import copy

    from heedful.policies.decoder import fit_tokens, token_rows
    from heedful.policies.packing import Group
    from heedful.stage import finished

    base = copy.deepcopy(policy.module.state_dict())
    done = 0
    while done < cfg.rounds and finished(f"round{done}", run):
        done += 1
    history: list[dict[str, Any]] = []
    for r in range(cfg.rounds):
        kept: Sequence[Group] = ()
        if r >= done:
            kept, counts = _solved(cfg, policy, world, r, run)
            if not kept:
                raise NothingToLearn(f"round {r}: {_nothing(cfg, counts)}")
            record = run.once(f"round{r}/round.json", lambda counts=counts: counts)
        else:
            record = run.once(f"round{r}/round.json", dict)
        run.log(r + 1, record, stage="rounds")
        history.append(record)
        if r < done - 1:
            continue  # its weights are those of no later round
        policy.module.load_state_dict(base)
        rows = token_rows(kept, policy.context) if kept else ()
        fit_tokens(f"round{r}", policy, rows, fit_config(cfg, policy.precision), run)
    return {"rounds": history}


def _solved(
    cfg: Config, policy: LanguagePolicy, world: World, r: int, run: Run
) -> tuple[list[Any], dict[str, Any]]:
    """Streams of round r that are solved, each once and up to its goal, and counts."""
    from heedful.policies.packing import Group

    samples, feedback = draw(cfg, policy, world, r, run)
    seen: dict[tuple[str, tuple[int, ...]], None] = {}
    right = 0
    scores = feedback.score.flatten().tolist()
    for i, (out, score) in enumerate(zip(samples.outputs, scores, strict=True)):
        if not score > cfg.above:
            continue
        right += 1
        ids = world.trim(out.ids)
        if ids and ids[-1] == policy.encoder.end:
            seen.setdefault((samples.inputs[i // samples.n], tuple(ids)))
    kept = [Group(policy.encoder.prompt(prompt), [list(ids)]) for prompt, ids in seen]
    known = [s for s in scores if s == s]
    return kept, {
        "streams": len(samples.outputs),
        "judged": len(known),
        "solved": right / max(1, len(samples.outputs)),
        "score": sum(known) / max(1, len(known)),
        "kept": len(kept),
        "tokens": sum(len(out.ids) for out in samples.outputs) / max(1, len(samples.outputs)),
    }


def _nothing(cfg: Config, counts: Mapping[str, Any]) -> str:
    """Why there is nothing to imitate, and what to do."""
    streams = counts["streams"]
    if not counts["judged"]:
        return f"the verifier gave no opinion on any of {streams} streams; look at what it returns"
    if counts["solved"]:
        return (
            f"none of the {round(counts['solved'] * streams)} solved streams of {streams} comes to its end, so there "
            "is nothing to imitate; give a larger --max-new-tokens, or a model with a longer context"
        )
    over = f" above --above {cfg.above:g}" if cfg.above else ""
    return (
        f"none of {streams} streams is solved{over}, so there is nothing to imitate; pretrain longer, or give easier "
        "problems"
    )


def draw(cfg: Config, policy: LanguagePolicy, world: World, r: int, run: Run) -> Any:
    """(Samples, Feedback) of round r: fresh problems, judged; kept in the run folder."""
    from heedful.policies.stages import sample_and_judge
    from heedful.recipes.search_measure import room

    prompts = world.train(r * cfg.problems, cfg.problems)
    return sample_and_judge(
        policy,
        prompts,
        cfg.n,
        world.judge,
        (f"round{r}/samples", f"round{r}/feedback"),
        run,
        quiet=cfg.quiet,
        temperature=cfg.temperature,
        max_new_tokens=room(policy, prompts, cfg.max_new_tokens),
        max_rows=cfg.max_rows,
    )
