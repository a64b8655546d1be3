"""How the arms of `heedful critique` are compared: answers to held-out prompts, an evaluator, win rates.

Verdicts are kept under the evaluator's name, so that another evaluator can look at the same answers later.

Letters: P held-out prompts, N answers per prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heedful.atomic import write_file
from heedful.config import content_hash
from heedful.errors import HeedfulError
from heedful.evals.intervals import Interval, paired_bootstrap
from heedful.evals.texts import words
from heedful.evals.winrates import Judged, length_controlled, length_controlled_gap, win_share
from heedful.feedback import Samples
from heedful.judges.comparing import check_useful
from heedful.policies.stages import sample_once
from heedful.recipes.critique_arms import policy_of
from heedful.recipes.critique_data import Data, done
from heedful.recipes.settings import sampling
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.judges.comparing import Comparer
    from heedful.recipes.critique import Config
    from heedful.recipes.critique_roles import Roles

TRIED = 32
"""Training prompts on which critic and evaluator are tried before anything is learned."""
BASE = "base"
GAPS = (
    ("feedback", "critic_sft"),
    ("critic_feedback", "critic_sft"),
    ("teacher_sft", "feedback"),
    ("teacher_start", "feedback"),
    ("teacher_start", "teacher_sft"),
    ("critic_start", "critic_feedback"),
)
"""Whose win rates are compared: (a, b), b less a."""


@dataclass
class Tried:
    """Who wins by a judge's verdicts on the critic's answer against the teacher's to some training prompts."""

    wins: Interval | None
    counts: dict[str, int]


@dataclass
class Measured:
    """Win rates against the baseline by arm. gaps: of two arms' win rates, (plain, at equal lengths)."""

    wins: dict[str, Interval] = field(default_factory=dict)
    controlled: dict[str, Interval] = field(default_factory=dict)
    words: dict[str, float] = field(default_factory=dict)
    gaps: dict[tuple[str, str], tuple[Interval, Interval]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    texts: dict[str, list[list[str]]] = field(default_factory=dict)
    scores: dict[str, list[list[float]]] = field(default_factory=dict)
    baseline: list[str] = field(default_factory=list)
    missing: str = ""


def try_out(data: Data, roles: Roles, run: Run) -> dict[str, Tried]:
    """Have critic and evaluator judge some of the critic's answers against the teacher's, before anything is learned.

    It says how far the teacher is from the critic, and a judge that says nothing readable is found in a minute.
    Raises HeedfulError then. Files of verdicts are not tried.
    """
    some, found = data.train[:TRIED], {}
    for role, comparer in (("critic", roles.critic), ("evaluator", roles.evaluator)):
        if comparer is None or roles.looks_up(role):
            continue
        counts: dict[str, int] = {}
        stage = f"tried/{key_of(role, roles)}"
        try:
            p = compare_once(
                comparer,
                some,
                data.teacher[:TRIED],
                data.critic[:TRIED],
                stage,
                run,
                counts,
                who(role, roles),
            )
        except HeedfulError as error:
            raise HeedfulError(
                f"{error}\nIt was tried on the critic's answers against the teacher's; nothing was learned yet, and "
                f"all answers are kept in {run.path('answers')}. Give another {role}, or delete "
                f"{run.path('calls') / f'{role}.jsonl'} to ask this one anew"
            ) from error
        found[role] = Tried(win_share(Judged(p[:, None], np.zeros((len(p), 1)))), counts)
    return found


def who(role: str, roles: Roles) -> str:
    """A judge as messages name it."""
    return f"the {role} {roles.name(role)}"


def key_of(role: str, roles: Roles) -> str:
    """A folder name for a judge's verdicts: equal for equal judges only."""
    name = re.sub(r"[^a-z0-9]+", "-", roles.name(role).lower()).strip("-")[-40:]
    return f"{name}-{content_hash(roles.source(role))[:8]}"


def compare_once(
    comparer: Comparer,
    prompts: Sequence[Any],
    first: Sequence[str],
    second: Sequence[str],
    stage: str,
    run: Run,
    counts: dict[str, int],
    who: str = "",
) -> NDArray[np.float64]:
    """The probabilities (N,) that `second` is better, NaN without an opinion, kept as <stage>.json with the counts,
    which are added to `counts`. Equal texts are a tie and are not asked about.

    Raises HeedfulError, where the judge is named, when it has no opinion on any pair.
    """

    def make() -> dict[str, Any]:
        own: dict[str, int] = {}
        asked = [i for i in range(len(prompts)) if first[i] != second[i]]
        p = np.full(len(prompts), 0.5)
        if asked:
            said = comparer(*([side[i] for i in asked] for side in (prompts, first, second)))
            if who and bool(said.p.isnan().all()):
                check_useful(said, who)
            p[asked] = said.p.double().numpy()
            own = {name: int(count) for name, count in said.counts.items()}
        own |= {"identical": len(prompts) - len(asked), "no_opinion": int(np.isnan(p).sum())}
        return {"p": [None if np.isnan(value) else float(value) for value in p], "counts": own}

    kept = run.once(f"{stage}.json", make)
    if len(kept["p"]) != len(prompts):
        raise HeedfulError(
            f"{run.path(stage)}.json has {len(kept['p'])} verdicts for {len(prompts)} pairs; delete it"
        )
    for name, count in kept["counts"].items():
        counts[name] = counts.get(name, 0) + count
    return np.array([np.nan if value is None else value for value in kept["p"]])


# ---- answers


def answer(name: str, cfg: Config, data: Data, run: Run) -> Samples:
    """The answers of an arm, or of the base, to the held-out prompts, kept as arms/<name>/answers.jsonl. All arms draw
    from the same random streams."""
    stage = f"arms/{name}/answers"
    policy: Any = None
    if not done(f"{stage}.jsonl", run):
        policy = policy_of("" if name == BASE else name, cfg, run, train=False)
    how = {**sampling(cfg), "temperature": cfg.eval_temperature}
    return sample_once(policy, data.held, cfg.eval_n, stage, run, quiet=cfg.quiet, stream="held-out", **how)


def measure(arms: Sequence[str], cfg: Config, data: Data, roles: Roles, run: Run) -> Measured:
    """Win rates of the arms (and of the base, unless it is the baseline itself) with intervals.

    Raises HeedfulError when the evaluator has no opinion on any answer of an arm.
    """
    made = Measured()
    made.baseline = data.baseline or baseline_of_base(cfg, data, run)
    judged: dict[str, Judged] = {}
    lacking: list[dict[str, Any]] = []
    names = [*([BASE] if data.baseline is not None else []), *arms]
    for name in names:
        samples = answer(name, cfg, data, run)
        judged[name] = _judge(name, samples, made, roles, run, lacking)
    _missing(lacking, made, roles, run)
    for name in names:
        if np.isnan(judged[name].wins).all():
            raise HeedfulError(f"the evaluator has no verdict on the arm {name}: {made.missing}")
        made.wins[name] = win_share(judged[name], seed=run.seed)
        made.controlled[name] = length_controlled(judged[name], seed=run.seed)
        made.scores[name] = judged[name].wins.tolist()
    for a, b in GAPS:
        if a in judged and b in judged and _overlap(judged[a], judged[b]):
            plain = paired_bootstrap(judged[a].wins, judged[b].wins, seed=run.seed)
            made.gaps[a, b] = (plain, length_controlled_gap(judged[a], judged[b], seed=run.seed))
    return made


def _overlap(a: Judged, b: Judged) -> bool:
    return bool((~np.isnan(a.wins).all(1) & ~np.isnan(b.wins).all(1)).any())


def baseline_of_base(cfg: Config, data: Data, run: Run) -> list[str]:
    """One answer of the base to each held-out prompt, from random streams of its own."""
    stage = "answers/base"
    policy: Any = None
    if not done(f"{stage}.jsonl", run):
        policy = policy_of("", cfg, run, train=False)
    how = {**sampling(cfg), "temperature": cfg.eval_temperature}
    drawn = sample_once(policy, data.held, 1, stage, run, quiet=cfg.quiet, **how)
    return [str(output) for output in drawn.outputs]


def _judge(
    name: str, samples: Samples, made: Measured, roles: Roles, run: Run, lacking: list[dict[str, Any]]
) -> Judged:
    n = samples.n
    prompts = [prompt for prompt in samples.inputs for _ in range(n)]
    theirs = [text for text in made.baseline for _ in range(n)]
    ours = [str(output) for output in samples.outputs]
    stage = f"evaluations/{key_of('evaluator', roles)}/{name}"
    named = "" if roles.looks_up("evaluator") else who("evaluator", roles)
    p = compare_once(roles.evaluator, prompts, theirs, ours, stage, run, made.counts, named)
    lacking += [
        {"prompt": prompts[i], "first": theirs[i], "second": ours[i], "arm": name}
        for i in np.flatnonzero(np.isnan(p))
    ]
    shape = (len(samples.inputs), n)
    lengths = [[len(words(text)) for text in side] for side in (theirs, ours)]
    longer = np.array(lengths[1], dtype=float) - np.array(lengths[0], dtype=float)
    made.words[name] = float(np.mean(lengths[1]))
    made.texts[name] = [ours[i * n : (i + 1) * n] for i in range(len(samples.inputs))]
    return Judged(p.reshape(shape), longer.reshape(shape))


def _missing(lacking: list[dict[str, Any]], made: Measured, roles: Roles, run: Run) -> None:
    """Write down the pairs that a file of verdicts lacks, so that they can be judged and added to it."""
    if not lacking or not roles.looks_up("evaluator"):
        return
    path = run.path(f"evaluations/{key_of('evaluator', roles)}/missing.jsonl")
    if run.rank == 0:
        write_file(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lacking).encode())
    made.missing = (
        f"{roles.name('evaluator')} lacks {len(lacking)} verdicts on held-out answers; the pairs are in {path}. Have "
        "them judged, add them to the file (columns prompt, chosen, rejected), and run the same command again."
    )
