"""What `heedful critique` learns from: prompts, the start's tenth, the held-out part, and who answered what.

The budget is counted in prompts: each of the full arms uses every training prompt once, for an answer to imitate or
for a verdict of the critic. A prompt that one of them has no answer to is taken out of all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from heedful.atomic import write_file
from heedful.data.rows import Rows, open_rows, parse_columns, prompt_key, split_by_prompt
from heedful.errors import HeedfulError
from heedful.policies.asking import excerpt
from heedful.processes import gather
from heedful.recipes.prefer_data import Part, refuse_shared
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.critique import Config
    from heedful.recipes.critique_roles import Roles, Writer


@dataclass
class Data:
    """Training prompts (those of the start first), held-out prompts, and the answers to them.

    teacher, critic: an answer to each of `start` and then `rest`; baseline: to each of `held`, None for the base's own,
    which it has yet to give.
    """

    start: list[Any]
    rest: list[Any]
    held: list[Any]
    row_of: dict[bytes, tuple[Part, int]]
    teacher: list[str] = field(default_factory=list)
    critic: list[str] = field(default_factory=list)
    baseline: list[str] | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def train(self) -> list[Any]:
        """All training prompts."""
        return [*self.start, *self.rest]

    def columns(self, prompt: Any) -> Mapping[str, Any]:
        """The further columns of a prompt's row, for judges that are functions."""
        part, i = self.row_of[prompt_key(prompt)]
        return {k: v for k, v in part[i].items() if k not in ("prompt", "completion", "response")}

    def answers(self, whose: str, part: str) -> tuple[list[Any], list[str]]:
        """(prompts, answers) of "teacher" or "critic" on "start", "rest" or "all"."""
        texts, first = self.teacher if whose == "teacher" else self.critic, len(self.start)
        if part == "start":
            return self.start, texts[:first]
        return (self.rest, texts[first:]) if part == "rest" else (self.train, texts)


def load(cfg: Config, run: Run) -> Data:
    """Read and split the prompts. Raises HeedfulError for faulty files and when a part would be empty."""
    facts: dict[str, Any] = {}
    pool, source = _pool(cfg, run, facts)
    if cfg.eval_prompts:
        rows = open_rows(
            cfg.eval_prompts,
            "prompt",
            parse_columns(cfg.columns),
            run.path("cache"),
            drop_faulty=cfg.drop_faulty_rows,
        )
        count_faulty(rows, facts)
        held = Part(rows, range(len(rows)))
        refuse_shared(pool, source, held, cfg.eval_prompts)
    else:
        train, out = split_by_prompt(pool, cfg.eval_share, run.seed)
        pool, held = _some(pool, train), _some(pool, out)
    rest, start = split_by_prompt(pool, cfg.start_share, run.seed_for("start"))
    row_of: dict[bytes, tuple[Part, int]] = {}
    data = Data(
        start=_prompts(_some(pool, start), row_of),
        rest=_prompts(_some(pool, rest), row_of),
        held=_prompts(held, row_of)[: cfg.eval_limit],
        row_of=row_of,
        facts=facts,
    )
    if not (data.start and data.rest and data.held):
        raise HeedfulError(
            f"{source} has {len(data.train)} training prompts and {len(data.held)} held-out ones after splitting: "
            "the start, the rest and the held-out part each need one at least; give more prompts, or change "
            "--eval-share or --start-share"
        )
    return data


def _pool(cfg: Config, run: Run, facts: dict[str, Any]) -> tuple[Part, str]:
    """The rows that training prompts are taken from, and their file."""
    if cfg.prompts:
        rows = open_rows(
            cfg.prompts,
            "prompt",
            parse_columns(cfg.columns),
            run.path("cache"),
            drop_faulty=cfg.drop_faulty_rows,
        )
        count_faulty(rows, facts)
        return Part(rows, range(len(rows))), cfg.prompts
    from heedful.recipes.critique_roles import answer_rows, file_of

    path, generator = file_of(cfg.teacher)
    rows, kept = answer_rows(path, generator, "teacher", cfg, facts, run)
    return Part(rows, kept), path


def count_faulty(rows: Rows, facts: dict[str, Any]) -> None:
    """Note for the report how many rows of a file were left out for their errors."""
    if rows.report.faulty_rows:
        facts[f"faulty rows left out of {rows.path}"] = rows.report.faulty_rows


def _some(part: Part, places: Sequence[int]) -> Part:
    return Part(part.rows, [int(part.indices[i]) for i in places])


def _prompts(part: Part, row_of: dict[bytes, tuple[Part, int]]) -> list[Any]:
    """The different prompts of a part, in order."""
    found = []
    for i, row in enumerate(part):
        key = prompt_key(row["prompt"])
        if key not in row_of:
            row_of[key] = (part, i)
            found.append(row["prompt"])
    return found


# ---- answers


def answered(data: Data, roles: Roles, cfg: Config, run: Run) -> None:
    """Have teacher and critic answer the training prompts, and the baseline the held-out ones; kept as answers/*.jsonl
    in the columns that --teacher reads. Prompts without an answer leave every arm, or stop the run.

    Raises HeedfulError with the prompts that have no answer, unless they are to be dropped, and when none are left.
    """
    teacher = _answers(roles.teacher, data.train, "teacher", "training", roles, cfg, run)
    critic = _answers(roles.critic_answers, data.train, "critic_answers", "training", roles, cfg, run)
    whole = [t is not None and c is not None for t, c in zip(teacher, critic, strict=True)]
    first, dropped = len(data.start), whole.count(False)
    data.teacher, data.critic = (
        [text for text, good in zip(texts, whole, strict=True) if good and text is not None]
        for texts in (teacher, critic)
    )
    data.start, data.rest = (
        [prompt for prompt, good in zip(part, flags, strict=True) if good]
        for part, flags in ((data.start, whole[:first]), (data.rest, whole[first:]))
    )
    if roles.baseline is not None:
        texts = _answers(roles.baseline, data.held, "baseline", "held-out", roles, cfg, run)
        known = [(prompt, text) for prompt, text in zip(data.held, texts, strict=True) if text is not None]
        dropped += len(data.held) - len(known)
        data.held, data.baseline = [prompt for prompt, _ in known], [text for _, text in known]
    if dropped:
        data.facts["prompts left out of every arm, an answer being missing"] = dropped
    if not (data.start and data.rest and data.held):
        raise HeedfulError(
            f"after leaving out {dropped} prompts without answers, {len(data.start)} are left for the start, "
            f"{len(data.rest)} for the rest and {len(data.held)} held out; each needs one at least"
        )
    sources = {role: roles.source(role) for role in ("teacher", "critic_answers", "baseline")}
    freeze("answers/sources.json", sources, run)


def done(name: str, run: Run) -> bool:
    """Whether a stage is finished, as rank 0 sees it: all processes must agree on it."""
    return gather(run.path(name).exists(), run.world)[0]


def freeze(name: str, facts: dict[str, Any], run: Run) -> None:
    """Keep what later stages depend on. Raises HeedfulError when an earlier start depended on something else."""
    kept = run.once(name, lambda: facts)
    changed = [key for key in facts if kept.get(key) != facts[key]]
    if changed:
        raise HeedfulError(
            f"{run.path(name)}: {', '.join(changed)} is not what it was when the run began to learn from it "
            f"(was {kept.get(changed[0])}, is {facts[changed[0]]}); use the old one, or another --out"
        )


def _answers(
    writer: Writer, prompts: Sequence[Any], role: str, part: str, roles: Roles, cfg: Config, run: Run
) -> list[str | None]:
    """The answers of a role, kept once they are complete, so that a file may be completed and the command run again,
    or once what is missing may be dropped; with whose they are, as answers/<role>.source.json. Those of another one, or
    of a file that has changed since, are asked for anew as long as nothing can have been learned from them."""
    who, path = f"the {role.replace('_', ' ')} {roles.name(role)}", run.path(f"answers/{role}.jsonl")
    source = run.path(f"answers/{role}.source.json")
    replaceable = run.rank == 0 and source.exists() and not run.path("answers/sources.json").exists()
    if replaceable and json.loads(source.read_bytes()) != roles.source(role):
        path.unlink(missing_ok=True)

    def make() -> list[dict[str, Any]]:
        texts = [text if text is not None and text.strip() else None for text in writer(prompts)]
        if len(texts) != len(prompts):
            raise HeedfulError(f"{who} gave {len(texts)} answers to {len(prompts)} prompts")
        lacking = [prompt for prompt, text in zip(prompts, texts, strict=True) if text is None]
        if lacking and not cfg.drop_missing:
            shown = ", ".join(repr(excerpt(str(prompt))[:60]) for prompt in lacking[:3])
            raise HeedfulError(
                f"{who} has no answer to {len(lacking)} of {len(prompts)} {part} prompts, such as {shown}. Give the "
                "missing answers, or leave these prompts out of every arm with --drop-missing"
            )
        # before the answers: a kill between the two must not leave them without it
        write_file(source, json.dumps(roles.source(role)).encode())
        rows = [{"prompt": p, "response": text} for p, text in zip(prompts, texts, strict=True)]
        return [{**row, "generator": roles.name(role)} for row in rows]

    rows = run.once(f"answers/{role}.jsonl", make)
    if [row["prompt"] for row in rows] != list(prompts):
        raise HeedfulError(
            f"{path} does not hold answers to these prompts; delete it and run the command again"
        )
    return [row["response"] for row in rows]


def check_budget(used: Mapping[str, Sequence[Any]]) -> None:
    """Raises HeedfulError unless all these arms use the very same prompts, each once."""
    keys = {name: sorted(map(prompt_key, prompts)) for name, prompts in used.items()}
    first = next(iter(keys))
    for name, found in keys.items():
        if found != keys[first] or len(set(found)) != len(found):
            raise HeedfulError(
                f"the arms {first} and {name} do not use the same prompts once each ({len(keys[first])} and "
                f"{len(found)}): the comparison would not be at equal budget"
            )
