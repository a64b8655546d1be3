"""Before and after a run of `heedful critique`: what does not go together, what it will cost, what came out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.recipes import plan
from heedful.recipes.critique_roles import can_write, file_of, kind_of
from heedful.recipes.settings import out_of_range

if TYPE_CHECKING:
    from heedful.recipes.critique import Config

WRITERS = ("teacher", "critic_answers", "baseline")
JUDGES = ("critic", "evaluator")
ASKED_ABOUT = ("disagreement", "judge_tokens", "retries")


def problems(cfg: Config) -> list[str]:
    """Why these options cannot run, each a sentence; empty when they can."""
    wrong = []
    for role, what in (
        ("teacher", "whose answers are imitated first"),
        ("critic", "who prefers one answer to another"),
        ("evaluator", "who compares the arms"),
    ):
        if not getattr(cfg, role):
            wrong.append(f"give --{role} (a model, a server or a file), {what}")
    wrong += _roles(cfg)
    if not cfg.prompts and cfg.teacher and kind_of(cfg.teacher) != "file":
        wrong.append("give --prompts FILE; only a --teacher that is a file of answers brings its own prompts")
    if cfg.n < 2 and cfg.pairs == "samples" and not _verdicts(cfg):
        wrong.append(
            "--pairs samples compares samples of a prompt: --n must be at least 2, or --pairs teacher"
        )
    if _verdicts(cfg) and (cfg.n != 2 or cfg.pairs != "samples") and cfg.preset != "paper":
        wrong.append(
            "a --critic that is a file of verdicts brings its own pairs: --n and --pairs have no meaning"
        )
    wrong += out_of_range(
        cfg,
        at_least_one=(
            *("n", "train_tokens", "max_new_tokens", "judge_tokens", "batch_size"),
            *("eval_limit", "eval_n", "max_rows", "keep"),
        ),
        not_negative=(
            *(
                "learning_rate",
                "feedback_learning_rate",
                "warmup",
                "weight_decay",
                "clip_norm",
                "micro_tokens",
            ),
            *("save_every", "log_every", "retries", "eval_temperature"),
        ),
        above_zero=("epochs", "start_epochs", "feedback_epochs", "beta"),
    )
    for name in ("start_share", "eval_share"):
        if not 0 < getattr(cfg, name) < 1:
            wrong.append(f"--{name.replace('_', '-')} must be between 0 and 1")
    for name in ("lora_rank", "seed"):
        if getattr(cfg, name) < 0:
            wrong.append(f"--{name.replace('_', '-')} must be 0 or more")
    return wrong


def _roles(cfg: Config) -> list[str]:
    """What is wrong with how the roles are named."""
    wrong = []
    for role in (*WRITERS, *JUDGES):
        spec, option = getattr(cfg, role), f"--{role.replace('_', '-')}"
        model = getattr(cfg, f"{role}_model")
        if not spec:
            if model:
                wrong.append(f"{option}-model has no meaning without {option} URL")
            continue
        kind = kind_of(spec)
        if kind == "server" and not model:
            wrong.append(f"{option} {spec} is a server: name the model on it with {option}-model")
        if kind != "server" and model:
            wrong.append(f"{option}-model is the name of a model on a server, and {option} {spec} is none")
        if role in WRITERS and kind == "function":
            wrong.append(f"{option} {spec} judges answers and writes none: name a model, a server or a file")
        if kind == "file" and not spec.startswith("hub:") and not Path(file_of(spec)[0]).is_file():
            wrong.append(f"{option}: there is no file {file_of(spec)[0]}")
    if cfg.critic and not cfg.critic_answers and can_write(cfg.critic) is False:
        wrong.append(
            f"the critic {cfg.critic} writes no answers, and imitation of the critic is always compared: give its "
            "answers (a model, a server or a file) with --critic-answers"
        )
    return wrong


def _verdicts(cfg: Config) -> bool:
    return bool(cfg.critic) and kind_of(cfg.critic) == "file"


def still_open(cfg: Config) -> list[str]:
    """Settings that nothing in the run folder depends on yet, so that a run stopped by a role can go on with another:
    the writers until all answers are kept, how a language model is asked for verdicts until those of the critic are,
    and so long the critic itself, unless the answers that are kept are its own."""
    folder, judging = Path(cfg.out), [*ASKED_ABOUT, "critic", "critic_model"]
    if not (folder / "answers" / "sources.json").exists():
        return [*judging, *(name for role in WRITERS for name in (role, f"{role}_model"))]
    verdicts = ("critic.json", "feedback/feedback.jsonl", "critic_feedback/feedback.jsonl")
    if any((folder / "arms" / name).exists() for name in verdicts):
        return []
    return judging if cfg.critic_answers else [*ASKED_ABOUT]


def describe(cfg: Config) -> str:
    """The roles, the budget of each arm, the memory and the cost; no model is loaded, nothing is asked or written."""
    path = cfg.prompts or file_of(cfg.teacher)[0]
    generator = "" if cfg.prompts else file_of(cfg.teacher)[1]
    prompts = _count(path, generator)
    held = min(
        cfg.eval_limit, _count(cfg.eval_prompts) if cfg.eval_prompts else round(cfg.eval_share * prompts)
    )
    train = prompts if cfg.eval_prompts else prompts - round(cfg.eval_share * prompts)
    start = max(1, round(cfg.start_share * train))
    rest = train - start
    pairs = (
        0
        if _verdicts(cfg)
        else (cfg.n + (cfg.pairs == "teacher")) * (cfg.n + (cfg.pairs == "teacher") - 1) // 2
    )
    steps = [
        2 * _steps(train, cfg.epochs, cfg),
        2 * _steps(start, cfg.start_epochs, cfg),
        2 * _steps(rest, cfg.feedback_epochs, cfg),
    ]
    tokens = cfg.batch_size * (
        (steps[0] + steps[1]) * (64 + cfg.train_tokens) + steps[2] * (64 + 2 * cfg.max_new_tokens)
    )
    drawn = (
        (0 if _verdicts(cfg) else 2 * rest * cfg.n) + 6 * held * cfg.eval_n + (0 if cfg.baseline else held)
    )
    roles = "\n".join(
        f"  {role.replace('_', ' '):<15}{told}"
        for role, told in (
            ("teacher", _told(cfg.teacher, cfg.teacher_model)),
            ("critic", _told(cfg.critic, cfg.critic_model)),
            ("critic_answers", _told(cfg.critic_answers, cfg.critic_answers_model) or "the critic's own"),
            ("evaluator", _told(cfg.evaluator, cfg.evaluator_model)),
            ("baseline", _told(cfg.baseline, cfg.baseline_model) or f"{cfg.model}, the base"),
        )
    )
    budget = "\n".join(
        [
            f"  imitation of the teacher             {train:>6} answers",
            f"  teacher start, then AI feedback      {start:>6} answers, then verdicts on {rest} prompts",
            f"  imitation of the critic              {train:>6} answers",
            f"  strong start, then AI feedback       {start:>6} answers, then verdicts on {rest} prompts",
        ]
    )
    asked = (
        f"asked of roles: {train} answers of the teacher and {train} of the critic (unless files have them), "
        f"{2 * rest * pairs:,} verdicts of the critic, {(6 + bool(cfg.baseline)) * held * cfg.eval_n:,} of the "
        "evaluator; a language model is asked twice for each. Their own memory and cost are not in this plan."
    )
    told = plan.resources(
        cfg,
        trained=f"{'LoRA' if cfg.lora_rank else 'all'} by sft and {cfg.method}",
        lora_rank=cfg.lora_rank,
        data=f"{train:,} training prompts, {held:,} held out",
        stages=6,
        steps=sum(steps),
        tokens=tokens,
        drawn=drawn,
    )
    return f"roles\n{roles}\nbudget: {train} prompts for each of\n{budget}\n{asked}\n\n{told}"


def _told(spec: str, model: str) -> str:
    return f"{model} at {spec}" if model else spec


def _steps(rows: int, epochs: float, cfg: Config) -> int:
    return max(1, round(epochs * -(-rows // cfg.batch_size)))


def _count(path: str, generator: str = "") -> int:
    from heedful.data.rows import read

    return sum(1 for row in read(path) if not generator or row.get("generator") == generator)


def closing(cfg: Config) -> str:
    """What a finished run says in the terminal: the summary of its report, each arm, and where things are."""
    import json

    from heedful.recipes.critique_arms import ARMS

    folder = Path(cfg.out)
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    told = {"base": "the base"} | {name: arm.about for name, arm in ARMS.items()}
    width = max(map(len, told.values()))
    table = [f"  {'':<{width}}  {'win rate':<22}  at equal length"]
    for name, about in told.items():
        if f"{name}_win" in result:
            sides = [_share(result, f"{name}_{what}") for what in ("win", "lc_win")]
            table.append(f"  {about:<{width}}  {sides[0]:<22}  {sides[1]}")
    warnings = [f"warning: {text}" for text in report["warnings"]]
    places = [f"report: {folder / 'report.html'}", f"models: {folder / 'arms'}/*/model"]
    return "\n".join([*report["summary"], "", *table, *warnings, "", *places])


def _share(result: dict[str, Any], name: str) -> str:
    if f"{name}_low" not in result:
        return f"{result[name]:.1%}"
    return f"{result[name]:.1%} ({result[f'{name}_low']:.1%} to {result[f'{name}_high']:.1%})"
