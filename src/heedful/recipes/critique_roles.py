"""The roles of `heedful critique`: who answers, who judges, each a model, a server or a file.

A role is a piece of text on the command line and a function here: a `Writer` gives answers to prompts, a `Comparer`
(judges/comparing.py) says which of two answers is better. Models are loaded when they are first asked, and once where
two roles name the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from heedful.data.problems import HUB, format_of
from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.data.rows import Rows
    from heedful.judges.comparing import Comparer, Comparison
    from heedful.recipes.critique import Config
    from heedful.recipes.critique_data import Data
    from heedful.run import Run

Writer = Callable[[Sequence[Any]], Sequence[str | None]]
"""Prompts -> an answer to each; None where there is none."""
Kind = Literal["server", "file", "function", "model"]


@dataclass
class Roles:
    """Who does what.

    critic: None where verdicts are there already, as `verdicts` (prompt, chosen, rejected). baseline: None for the
    base itself. names: of each role, for messages, cards and stages. contents: of the files behind the roles, or of
    anything else that their answers or verdicts depend on. files: the judges that are files of verdicts.
    """

    teacher: Writer
    critic: Comparer | None
    critic_answers: Writer
    evaluator: Comparer
    baseline: Writer | None = None
    verdicts: Rows | None = None
    names: dict[str, str] = field(default_factory=dict)
    contents: dict[str, Any] = field(default_factory=dict)
    files: frozenset[str] = frozenset()

    def name(self, role: str) -> str:
        """What the role is called."""
        return self.names.get(role, f"the {role.replace('_', ' ')}")

    def looks_up(self, role: str) -> bool:
        """Whether a judge is a file of verdicts."""
        return role in self.files

    def source(self, role: str) -> list[Any]:
        """What the role's answers or verdicts depend on: two equal ones give the same."""
        return [self.name(role), self.contents.get(role)]


def kind_of(spec: str) -> Kind:
    """What a role's text names, from the text alone."""
    if spec.startswith(("http://", "https://")):
        return "server"
    if spec.startswith("rule:") or ".py:" in spec:
        return "function"
    if spec.startswith(HUB) or format_of(file_of(spec)[0]):
        return "file"
    return "model"


def file_of(spec: str) -> tuple[str, str]:
    """(path, generator) of a file of answers, `answers.jsonl#gpt4`; the generator may be empty."""
    path, mark, generator = spec.rpartition("#")
    return (path, generator) if mark and format_of(path) else (spec, "")


def can_write(spec: str) -> bool | None:
    """Whether a role can write answers; None: a model, whose folder must be looked at."""
    return {"server": True, "file": False, "function": False, "model": None}[kind_of(spec)]


def open_roles(cfg: Config, run: Run, data: Data) -> Roles:
    """The roles that the options name. Raises HeedfulError, before anything is learned, for unusable files."""
    from heedful.recipes.critique_data import count_faulty

    models = Models(cfg, run)
    writer = (cfg.critic, cfg.critic_model)
    if cfg.critic_answers:
        writer = (cfg.critic_answers, cfg.critic_answers_model)
    if not cfg.critic_answers and models.is_reward(cfg.critic):
        raise HeedfulError(
            f"the critic {cfg.critic} is a reward model, which writes no answers: give --critic-answers"
        )
    critic, verdicts = None, None
    if kind_of(cfg.critic) == "file":
        verdicts = verdict_rows(cfg.critic, cfg, run)
        count_faulty(verdicts, data.facts)
    else:
        critic = critic_of(cfg.critic, cfg.critic_model, "critic", cfg, models, data, run)
    baseline = None
    if cfg.baseline:
        baseline = writer_of(cfg.baseline, cfg.baseline_model, "baseline", cfg, models, data, run)
    named = {
        "teacher": label(cfg.teacher, cfg.teacher_model),
        "critic": label(cfg.critic, cfg.critic_model),
        "critic_answers": label(*writer),
        "evaluator": label(cfg.evaluator, cfg.evaluator_model),
        "baseline": label(cfg.baseline, cfg.baseline_model) if cfg.baseline else f"{cfg.model} (the base)",
    }
    specs = {"teacher": cfg.teacher, "critic_answers": writer[0], "baseline": cfg.baseline}
    contents: dict[str, Any] = {role: content_of(spec) for role, spec in specs.items()}
    for role, spec in (("critic", cfg.critic), ("evaluator", cfg.evaluator)):
        contents[role] = content_of(spec)
        if kind_of(spec) in ("server", "model"):
            contents[role] = [cfg.disagreement, cfg.retries, cfg.judge_tokens]
    return Roles(
        teacher=writer_of(cfg.teacher, cfg.teacher_model, "teacher", cfg, models, data, run),
        critic=critic,
        critic_answers=writer_of(*writer, "critic_answers", cfg, models, data, run),
        evaluator=critic_of(cfg.evaluator, cfg.evaluator_model, "evaluator", cfg, models, data, run),
        baseline=baseline,
        verdicts=verdicts,
        names=named,
        contents=contents,
        files=frozenset(
            role
            for role, spec in (("critic", cfg.critic), ("evaluator", cfg.evaluator))
            if kind_of(spec) == "file"
        ),
    )


def label(spec: str, model: str) -> str:
    """A role in words."""
    return f"{model} at {spec}" if model else spec


def content_of(spec: str) -> str | None:
    """The sha256 of the file that a role names, None where it names none here."""
    from heedful.manifest import sha256_of

    kind = kind_of(spec)
    if kind == "file":
        return sha256_of(Path(file_of(spec)[0]))
    if kind == "function" and ".py:" in spec:
        return sha256_of(Path(spec.rpartition(":")[0]))
    return None


# ---- models


class Models:
    """Models by name, loaded when first asked for."""

    def __init__(self, cfg: Config, run: Run) -> None:
        self.cfg, self.run = cfg, run
        self.loaded: dict[tuple[str, str], Any] = {}

    def is_reward(self, spec: str) -> bool:
        """Whether a role is a saved reward model."""
        from heedful.hub import is_reward_model

        return kind_of(spec) == "model" and is_reward_model(spec)

    def get(self, spec: str, model: str) -> Any:
        """A language model, a reward model or a server, ready to be asked."""
        key = (spec, model)
        if key not in self.loaded:
            self.loaded[key] = self._load(spec, model)
        return self.loaded[key]

    def _load(self, spec: str, model: str) -> Any:
        if kind_of(spec) == "server":
            from heedful.policies.remote import RemotePolicy

            return RemotePolicy(spec, model)
        how: dict[str, Any] = {"precision": self.cfg.precision, "device": self.cfg.device}
        if self.is_reward(spec):
            from heedful.judges.reward import RewardModel

            return RewardModel.load(spec, **how)
        from heedful.policies.language import LanguagePolicy

        return LanguagePolicy.load(spec, **how)


# ---- writers


def writer_of(spec: str, model: str, role: str, cfg: Config, models: Models, data: Data, run: Run) -> Writer:
    """Who writes the answers of a role: a file that has them, or a model that is asked."""
    if kind_of(spec) == "file":
        path, generator = file_of(spec)
        known = answers_by_prompt(path, generator, role, cfg, data.facts, run)

        def look_up(prompts: Sequence[Any]) -> list[str | None]:
            from heedful.data.rows import prompt_key

            return [known.get(prompt_key(prompt)) for prompt in prompts]

        return look_up

    def write(prompts: Sequence[Any]) -> Sequence[str | None]:
        from heedful.judges import prompted

        if models.is_reward(spec):
            raise HeedfulError(
                f"the {role.replace('_', ' ')} {spec} is a reward model, which writes no answers"
            )
        ask = prompted.teacher(
            models.get(spec, model),
            run=run,
            seed=run.seed_for(role),
            name=role,
            max_new_tokens=cfg.max_new_tokens,
            temperature=cfg.eval_temperature,
            quiet=cfg.quiet,
        )
        return ask(prompts)

    return write


def answer_rows(
    path: str, generator: str, role: str, cfg: Config, facts: dict[str, Any], run: Run
) -> tuple[Rows, list[int]]:
    """The checked rows of a file of answers, and which of them are the generator's. Rows without an answer are left
    out, so that their prompts are found missing, and counted in `facts`.

    Raises HeedfulError with the generators there are when none is named and there are several, or the one named is
    not there.
    """
    from heedful.data.rows import open_rows, parse_columns
    from heedful.recipes.critique_data import count_faulty

    columns = {"completion": "response", **parse_columns(cfg.columns)}
    rows = open_rows(path, "prompt_completion", columns, run.path("cache"), drop_faulty=True)
    count_faulty(rows, facts)
    found = [str(row.get("generator") or "") for row in rows]
    names = list(dict.fromkeys(found))
    listed = ", ".join(name for name in names if name)
    option = f"--{role.replace('_', '-')}"
    if generator and generator not in names:
        raise HeedfulError(f"{path} has no answers of {generator!r}; {option} {path}#NAME, NAME of: {listed}")
    if not generator and len(names) > 1:
        raise HeedfulError(
            f"{path} has answers of several generators; name one: {option} {path}#NAME, NAME of: {listed}"
        )
    return rows, [i for i, name in enumerate(found) if not generator or name == generator]


def answers_by_prompt(
    path: str, generator: str, role: str, cfg: Config, facts: dict[str, Any], run: Run
) -> dict[bytes, str]:
    """The first answer to each prompt of a file, by `prompt_key`; how many further ones there are is in `facts`."""
    from heedful.data.rows import prompt_key

    rows, kept = answer_rows(path, generator, role, cfg, facts, run)
    known: dict[bytes, str] = {}
    for i in kept:
        row = rows[i]
        known.setdefault(prompt_key(row["prompt"]), row["completion"])
    if len(known) < len(kept):
        facts[f"further answers of the {role.replace('_', ' ')} to the same prompts, not used"] = len(
            kept
        ) - len(known)
    return known


# ---- critics


def critic_of(
    spec: str, model: str, role: str, cfg: Config, models: Models, data: Data, run: Run
) -> Comparer:
    """Who says which of two answers is better."""
    kind = kind_of(spec)
    if kind == "function":
        from heedful.judges.comparing import by_score
        from heedful.judges.rules import parse_judge

        return by_score(parse_judge(spec, columns=data.columns))
    if kind == "file":
        if not Path(spec).is_file() and not spec.startswith(HUB):
            raise HeedfulError(f"the {role}'s file {spec} does not exist")
        from heedful.data.rows import parse_columns
        from heedful.judges.comparing import from_verdicts

        return from_verdicts(spec, parse_columns(cfg.columns))

    def compare(prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> Comparison:
        from heedful.judges import prompted
        from heedful.judges.comparing import by_score

        judge = models.get(spec, model)
        if models.is_reward(spec):
            return by_score(judge)(prompts, first, second)
        asked = prompted.comparer(
            judge,
            run=run,
            seed=run.seed_for(role),
            name=role,
            quiet=cfg.quiet,
            disagreement=cfg.disagreement,
            retries=cfg.retries,
            max_new_tokens=cfg.judge_tokens,
        )
        return asked(prompts, first, second)

    return compare


def verdict_rows(path: str, cfg: Config, run: Run) -> Rows:
    """The checked rows of a file of verdicts: prompt, chosen, rejected."""
    from heedful.data.rows import open_rows, parse_columns

    return open_rows(path, "preference", parse_columns(cfg.columns), run.path("cache"), drop_faulty=True)
