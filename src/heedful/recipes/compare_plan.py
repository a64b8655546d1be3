"""What `heedful compare-methods` compares: methods as they are written, their budgets, what does not go together."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from heedful.errors import HeedfulError
from heedful.recipes import plan, prefer
from heedful.recipes.settings import out_of_range

if TYPE_CHECKING:
    from heedful.recipes.compare_methods import Config

OPTIONS = (*plan.OPTION_OF, "beta", "reference_decay", "kl_horizon", "rounds", "epochs")
"""Options of prefer that a method may have to itself. The others are the comparison's, or would change its budget."""
OWN = ("out", "data", "prompts", "eval_data", "eval_prompts", "columns", "drop_faulty_rows", "reward_model")
OWN += ("rounds", "prompts_per_round", "epochs", "seed", "preset", "dry_run", "json")
"""Options of prefer that a comparison also has and gives each run otherwise."""


@dataclass(frozen=True)
class Arm:
    """One of the methods compared: how it learns, from what, with which options of its own."""

    method: str
    online: bool
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def label(self) -> str:
        """As it is written: `dpo:online:beta=0.5`."""
        given = "".join(f":{name}={value}" for name, value in self.options)
        return f"{self.method}:{'online' if self.online else 'offline'}{given}"

    @property
    def name(self) -> str:
        """For folders: `dpo-online-beta-0.5`."""
        return re.sub(r"[^a-zA-Z0-9._]+", "-", self.label)

    @property
    def key(self) -> str:
        """For result.json: `dpo_online_beta_0_5`."""
        return re.sub(r"\W+", "_", self.label)

    @property
    def pushes_down(self) -> bool | None:
        """Whether it has a negative gradient (Table 1 of the paper); None where that depends on the scores' signs."""
        options = dict(self.options)
        if self.method in ("reinforce", "ppo", "apa"):
            no_baseline = options.get("baseline") == "none" and (
                self.method != "ppo" or not options.get("value_coef", 0.1)
            )
            return None if no_baseline else True
        if self.method == "best":
            return options.get("negative", "none") != "none"
        return self.method not in ("sft", "rwr")

    @property
    def contrastive(self) -> bool:
        """Whether it learns from pairs by pushing one side down: the methods that may lower h_w."""
        return self.method in plan.FROM_PAIRS and self.method != "sft"

    def without(self, *names: str) -> tuple[Any, ...]:
        """Everything about it but these options."""
        return self.method, self.online, tuple(sorted(o for o in self.options if o[0] not in names))


def parse_arm(text: str) -> Arm:
    """A method as the command line has it. Raises HeedfulError for what is none."""
    method, *parts = (part.strip() for part in text.split(":"))
    if method not in plan.FROM_PAIRS + plan.FROM_SAMPLES:
        known = ", ".join(plan.FROM_PAIRS + plan.FROM_SAMPLES)
        raise HeedfulError(f"--methods {text!r}: there is no method {method!r}; choose one of {known}")
    online = parts[:1] != ["offline"]
    if parts[:1] in (["offline"], ["online"]):
        parts = parts[1:]
    options: dict[str, Any] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise HeedfulError(
                f"--methods {text!r}: {part!r} is neither online, offline nor option=value, such as beta=0.5"
            )
        if name not in OPTIONS:
            raise HeedfulError(
                f"--methods {text!r}: {name!r} is no option that a method may have to itself ({', '.join(OPTIONS)})"
            )
        if name in options:
            raise HeedfulError(f"--methods {text!r}: {name} is given twice")
        options[name] = _value(name, value.strip(), text)
    return Arm(method, online, tuple(options.items()))


def _value(name: str, value: str, text: str) -> Any:
    kind = get_type_hints(prefer.Config)[name]
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        raise HeedfulError(f"--methods {text!r}: {name} must be one of {', '.join(get_args(kind))}")
    try:
        return kind(value)
    except ValueError:
        raise HeedfulError(f"--methods {text!r}: {name}={value} is no number") from None


def arms_of(cfg: Config) -> list[Arm]:
    """The methods compared, in order; without --methods those of the paper that the data allow.

    Raises HeedfulError for one that is none, or that comes twice.
    """
    texts = [part for text in cfg.methods for part in text.split(",") if part.strip()]
    if not texts:
        texts = ["dpo", "best", "ppo", *(["dpo:offline", "sft:offline"] if cfg.data else [])]
    arms = [parse_arm(text) for text in texts]
    for i, arm in enumerate(arms):
        if arm.name in [other.name for other in arms[:i]]:
            raise HeedfulError(f"--methods: {arm.label} comes twice")
    return arms


@dataclass(frozen=True)
class Budget:
    """What one run of a method may use; the same for all, in all."""

    rounds: int
    prompts_per_round: int
    steps_per_round: int

    @property
    def steps(self) -> int:
        """Gradient steps of the run."""
        return self.rounds * self.steps_per_round

    @property
    def prompts(self) -> int:
        """Prompts, or pairs of --data, that it takes over all rounds."""
        return self.rounds * self.prompts_per_round


def budget(cfg: Config, arm: Arm, prompts: int) -> Budget:
    """Rounds, prompts and steps of a method; prompts: how many there are, for --prompts-per-round 0.

    `rounds=` makes rounds longer or shorter at equal steps and prompts in all: staler or fresher samples. `epochs=`
    passes more often over fewer prompts at equal steps: more reuse. Raises HeedfulError where that gives no whole
    numbers.
    """
    per_round = cfg.prompts_per_round or prompts
    steps = max(1, math.ceil(round(cfg.epochs * math.ceil(per_round / cfg.batch_size), 6)))
    own = dict(arm.options)
    if "epochs" in own:
        share = per_round * cfg.epochs / own["epochs"]
        if own["epochs"] < cfg.epochs or share < 1 or share != int(share):
            raise HeedfulError(
                f"{arm.label}: at equal steps, epochs={own['epochs']:g} passes over {share:g} prompts a round "
                f"({per_round} at {cfg.epochs:g}); choose no fewer than {cfg.epochs:g}, that give a whole number"
            )
        per_round = int(share)
    rounds = own.get("rounds", cfg.rounds)
    if rounds < 1 or cfg.rounds * per_round % rounds or cfg.rounds * steps % rounds:
        raise HeedfulError(
            f"{arm.label}: {cfg.rounds * per_round} prompts and {cfg.rounds * steps} steps cannot be split evenly over "
            f"{rounds} rounds; choose a number that divides both"
        )
    return Budget(rounds, cfg.rounds * per_round // rounds, cfg.rounds * steps // rounds)


def base_config(cfg: Config, seed: int) -> prefer.Config:
    """The settings that all runs of a comparison share."""
    own = {field.name for field in fields(cfg)} - set(OWN)
    shared = {f.name: getattr(cfg, f.name) for f in fields(prefer.Config) if f.name in own}
    return prefer.Config(**shared, rounds=1, seed=seed)


def arm_config(base: prefer.Config, cfg: Config, arm: Arm, granted: Budget, rate: float) -> prefer.Config:
    """The settings of one run of a method, those of `heedful prefer`."""
    own = {name: value for name, value in arm.options if name != "rounds"}
    return replace(
        base,
        method=arm.method,
        learning_rate=rate,
        offline_share=0.0 if arm.online else 1.0,
        **{
            "rounds": granted.rounds,
            "prompts_per_round": granted.prompts_per_round,
            "max_steps": granted.steps_per_round,
            "epochs": cfg.epochs,
            **own,
        },
    )


def problems(cfg: Config) -> list[str]:
    """Why these options cannot run, each a sentence; empty when they can."""
    wrong = []
    if not cfg.data and not cfg.prompts:
        wrong.append("give --data FILE (preference pairs), --prompts FILE, or both")
    if not cfg.judge and not cfg.reward_model:
        wrong.append(
            "methods are compared by a score of held-out answers: give --judge, or --reward-model to fit one to --data"
        )
    if not cfg.learning_rates or any(not 0 < rate < math.inf for rate in cfg.learning_rates):
        wrong.append("--learning-rates must be numbers above 0")
    if len(set(cfg.learning_rates)) < len(cfg.learning_rates):
        wrong.append("--learning-rates has one twice")
    wrong += out_of_range(
        cfg,
        at_least_one=("seeds", "rounds", "n", "batch_size", "eval_limit", "eval_n"),
        not_negative=("prompts_per_round", "curve_points"),
        above_zero=("epochs", "reward_learning_rate"),
    )
    if cfg.best_of < 2:
        wrong.append("--best-of must be at least 2")
    if not 0 < cfg.tune_share < 1:
        wrong.append("--tune-share must be between 0 and 1")
    if wrong:
        return list(dict.fromkeys(wrong))
    try:
        arms = arms_of(cfg)
    except HeedfulError as error:
        return [str(error)]
    if len(arms) < 2:
        wrong.append(f"name at least two --methods; {arms[0].label} alone is a run of `heedful prefer`")
    for arm in arms:
        wrong += _problems_of(cfg, arm)
    return list(dict.fromkeys(wrong))


def _problems_of(cfg: Config, arm: Arm) -> list[str]:
    if not arm.online and not cfg.data:
        return [f"{arm.label} learns from pairs: give --data"]
    base = replace(
        base_config(cfg, cfg.seed),
        **{
            name: getattr(cfg, name)
            for name in ("data", "prompts", "eval_data", "eval_prompts", "reward_model")
        },
    )
    try:
        granted = budget(cfg, arm, cfg.prompts_per_round or cfg.batch_size)
    except HeedfulError as error:
        if cfg.prompts_per_round:
            return [str(error)]
        granted = Budget(cfg.rounds, cfg.batch_size, 1)  # of how many prompts, only the files will tell
    wrong = plan.problems(arm_config(base, cfg, arm, granted, cfg.learning_rates[0]))
    return [text if text.startswith("--judge") else f"{arm.label}: {text}" for text in wrong]


def measured_every(cfg: Config, rounds: int) -> int:
    """Rounds between measurements of the held-out prompts; 0 for none."""
    return max(1, rounds // cfg.curve_points) if cfg.curve_points else 0


def describe(cfg: Config) -> str:
    """The methods with their budgets, the memory and the cost of all runs; nothing is loaded."""
    rows, prompts = _count(cfg.data), _count(cfg.prompts)
    asked = prompts or rows
    given = cfg.eval_prompts if cfg.prompts else cfg.eval_data
    held = _count(given) if given else round(cfg.eval_share * asked)
    training = asked if given else asked - held
    tuned = len(cfg.learning_rates) > 1
    told = min(cfg.eval_limit, round(held * (1 - cfg.tune_share)) if tuned else held) * cfg.eval_n
    chosen_on = min(cfg.eval_limit, round(held * cfg.tune_share)) * cfg.eval_n if tuned else 0
    arms, lines, steps, tokens = arms_of(cfg), [], 0, 0
    drawn = chosen_on + cfg.seeds * told + told // cfg.eval_n * cfg.best_of
    tuning = len(cfg.learning_rates) if tuned else 0
    for arm in arms:
        granted = budget(cfg, arm, training)
        samples = granted.prompts * cfg.n if arm.online else 0
        source = f"{samples:,} samples" if arm.online else f"{granted.prompts:,} pairs"
        lines.append(f"  {arm.label:<32} {granted.steps:>6,} steps in {granted.rounds:,} rounds, {source}")
        steps += (tuning + cfg.seeds) * granted.steps
        completions = 2 if arm.method in plan.FROM_PAIRS or not arm.online else cfg.n
        tokens += (
            (tuning + cfg.seeds) * granted.steps * cfg.batch_size * (64 + completions * cfg.max_new_tokens)
        )
        every = measured_every(cfg, granted.rounds)
        looks = 1 + (granted.rounds // every if every else 0)
        drawn += (tuning + cfg.seeds) * samples + tuning * chosen_on + cfg.seeds * looks * told
    choice = f"{tuning} learning rates each, on held-out prompts of their own, and " if tuned else ""
    return "\n".join(
        [
            f"methods: {choice}{cfg.seeds} reported seed(s) each",
            *lines,
            "",
            plan.resources(
                cfg,
                trained=f"{'LoRA' if cfg.lora_rank else 'all'} by each of {len(arms)} methods",
                lora_rank=cfg.lora_rank,
                data=f"{rows:,} pairs, {prompts:,} prompts, about {held:,} held out",
                stages=len(arms) * (tuning + cfg.seeds),
                steps=steps,
                tokens=tokens,
                drawn=drawn,
            ),
        ]
    )


def _count(path: str) -> int:
    from heedful.data.rows import read

    return sum(1 for _ in read(path)) if path else 0


def closing(cfg: Config) -> str:
    """What a finished comparison says in the terminal: its advice, a line for each method, and where things are."""
    import json

    folder = Path(cfg.out)
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    table = report["tables"][0]
    shown = [row[:5] for row in (table["columns"], *table["rows"])]
    widths = [max(len(row[i]) for row in shown) for i in range(5)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]
    warnings = [f"warning: {text}" for text in report["warnings"]]
    places = [f"report: {folder / 'report.html'}", f"models: {folder / 'arms'}/*/seed*/model"]
    return "\n".join([*report["summary"], "", *lines, *warnings, "", *places])
