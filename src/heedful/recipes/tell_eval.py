"""What `heedful tell` measures on prompts that nothing was trained on: adherence by kind, drift, repetition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from heedful.data.scopes import KINDS, Scope
from heedful.evals import language
from heedful.evals import scope as scoring
from heedful.evals.intervals import Interval, paired_bootstrap, share
from heedful.evals.texts import repetition
from heedful.judges.effects import Effect, adheres, change, written
from heedful.policies.language import LanguagePolicy
from heedful.recipes import tell_methods
from heedful.recipes.tell_data import sample_kinds
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.tell import Config

NOISE = 48
"""Out-of-scope prompts that the start model answers a second time, for the noise floor."""
NAMES = {"in": "in scope", "near": "near scope", "general": "general"}


@dataclass
class Measured:
    """Scores with intervals, rows of the report, held-out rows by kind, warnings, and flat numbers.

    judged: whether a judge compared the answers; then a side's score of 1 says that it was preferred, not what it has.
    """

    scores: dict[str, Interval]
    rows: list[dict[str, Any]]
    held: dict[str, list[dict[str, Any]]]
    warnings: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    judged: bool = False


def answers(
    cfg: Config, policy: LanguagePolicy, scope: Scope, name: str, run: Run, *, method: str = ""
) -> dict[str, list[str]]:
    """One answer to each test prompt by kind; before and after draw from the same random streams.

    method: an in-context method puts the sentence into the prompt, and its answers are taken out of its completions.
    """
    asks = bool(method) and tell_methods.method(method).weights is None
    prompts: dict[str, Sequence[Any]] = {kind: scope.test[kind] for kind in KINDS}
    if asks:
        prompts = {kind: tell_methods.ask(method, scope.content, prompts[kind]) for kind in KINDS}
    drawn = sample_kinds(cfg, policy, prompts, name, run, stream="test")
    if not asks:
        return {kind: [str(o) for o in outputs] for kind, outputs in drawn.items()}
    return {
        kind: [tell_methods.answer_of(method, str(o)) for o in outputs] for kind, outputs in drawn.items()
    }


def measure(
    cfg: Config,
    policy: LanguagePolicy,
    scope: Scope,
    before: dict[str, list[str]],
    after: dict[str, list[str]],
    again: dict[str, list[str]],
    run: Run,
) -> Measured:
    """Everything the report says, each number with its interval where it can have one."""
    trained = tell_methods.method(cfg.method).weights is not None
    h = {kind: changes(cfg, scope, kind, before[kind], after[kind], run) for kind in KINDS}
    held = {kind: held_rows(scope, kind, before[kind], after[kind], h[kind]) for kind in KINDS}
    floor = noise_floor(cfg, scope, before, again, run)
    measured = scored(held, floor, run.seed, judged=not scope.effects)
    rows, numbers = measured.rows, measured.numbers

    same = share(kept_words(before["general"], after["general"]), seed=run.seed)
    alone = kept_words(before["general"][: len(again["general"])], again["general"])
    note = f"token F1 with the start model's; the start model with itself, drawn again: {np.mean(alone):.0%}"
    name = "words kept on general prompts"
    rows.append(language.interval_row(name, 1.0, same.shifted(-1.0), "none", "share", note))
    numbers |= {"general_token_f1": same.estimate, "general_token_f1_noise": float(np.mean(alone))}
    if trained:
        nll = general_nll(policy, scope, before, run)
        rows.append(nll)
        numbers |= {"perplexity_before": nll["before"], "perplexity_after": nll["after"]}
    for kind in ("in", "general"):
        loops = [[[repetition(t)] for t in side[kind]] for side in (before, after)]
        rows.append(
            language.row(f"repetition, {NAMES[kind]}", *loops, better="lower", unit="share", seed=run.seed)
        )
        numbers[f"repetition_{kind}_before"], numbers[f"repetition_{kind}_after"] = (
            scoring.repetition_rate(before[kind]),
            scoring.repetition_rate(after[kind]),
        )
    measured.warnings = warnings(cfg, measured.scores, numbers)
    return measured


def kept_words(before: Sequence[str], after: Sequence[str]) -> list[float]:
    """Token F1 of each pair of answers."""
    return [scoring.token_f1(b, a) for b, a in zip(before, after, strict=True)]


def scored(
    held: dict[str, list[dict[str, Any]]], floor: Interval, seed: int, *, judged: bool = False
) -> Measured:
    """The scores of held-out rows: adherence before and after by kind, S_in, S_near, S_general, S_out, S_overall."""
    scores = scoring.scores({kind: [row["h"] for row in held[kind]] for kind in KINDS}, seed=seed)
    rows = [adherence_row(kind, held[kind], seed, judged=judged) for kind in KINDS]
    names = ("s_in", "s_near", "s_general", "s_out", "s_overall")
    rows += [score_row(name, scores[name], floor) for name in names]
    numbers: dict[str, float] = {}
    for name, interval in {**scores, "noise_floor": floor}.items():
        numbers |= {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return Measured(scores, rows, held, numbers=numbers, judged=judged)


def held_rows(
    scope: Scope, kind: str, before: Sequence[str], after: Sequence[str], h: Sequence[int]
) -> list[dict[str, Any]]:
    """Rows of heldout.jsonl: prompt, answers before and after with 1 or 0 for the effect, the kind, and h."""
    if scope.effects:
        has = adheres if kind == "in" else written
        sides = [
            [has(scope.effects, text, start=start) for text, start in zip(texts, before, strict=True)]
            for texts in (before, after)
        ]
    else:  # a judge compares; what it said is all that is known
        sides = [[change < 0 for change in h], [change > 0 for change in h]]
    flags = [[[float(flag)] for flag in side] for side in sides]
    rows = language.heldout_rows(scope.test[kind], before, after, flags[0], flags[1])
    return [{**row, "kind": kind, "h": change} for row, change in zip(rows, h, strict=True)]


def leak(effects: Sequence[Effect], before: str, after: str) -> int:
    """h out of scope: whether the effects are written after, minus whether they were before."""
    return written(effects, after, start=before) - written(effects, before, start=after)


def changes(
    cfg: Config,
    scope: Scope,
    kind: str,
    before: Sequence[str],
    after: Sequence[str],
    run: Run,
    name: str = "judged",
) -> list[int]:
    """h of every prompt of a kind: by rule, or by an LLM judge asked in both orders where no rule is known."""
    if scope.effects:
        differs = change if kind == "in" else leak
        return [differs(scope.effects, b, a) for b, a in zip(before, after, strict=True)]
    from heedful.judges.prompted import compare_adherence
    from heedful.recipes.tell_scope import teacher

    def ask() -> dict[str, Any]:
        # The replies are stages of their own, so a kill costs few of them.
        how: dict[str, Any] = {"seed": run.seed, "run": run, "name": f"{name}/{kind}.replies"}
        verdicts = compare_adherence(teacher(cfg), scope.effect, scope.test[kind], before, after, **how)
        told = ("ties", "disagreements", "unparsable", "retried")
        return {"h": list(verdicts.h), **{key: getattr(verdicts, key) for key in told}}

    fresh = {} if run.there(f"{name}/{kind}.json") else ask()
    return run.once(f"{name}/{kind}.json", lambda: fresh)["h"]


def adherence_name(kind: str, judged: bool) -> str:
    """What the row of a kind is called in the report."""
    return f"{'judged the better of the two' if judged else 'has the effect'}, {NAMES[kind]}"


def adherence_row(
    kind: str, held: Sequence[dict[str, Any]], seed: int, *, judged: bool = False
) -> dict[str, Any]:
    """Share of answers with the effect, before and after; of a judge, of prompts for which it preferred the answer of
    that side."""
    sides = [[[row[side]["score"]] for row in held] for side in ("before", "after")]
    better = "higher" if kind == "in" else "lower"
    note = {
        "in": "the effect, and a real answer around it",
        "near": "close to the scope, but outside it",
        "general": "everything else",
    }[kind]
    if judged:
        note = "which of the two answers follows the sentence better; a tie counts for neither"
    return language.row(
        adherence_name(kind, judged), *sides, better=better, unit="share", note=note, seed=seed
    )


def score_row(name: str, score: Interval, floor: Interval) -> dict[str, Any]:
    """One of the paper's scores; its start is what it would be had nothing changed."""
    start = 0.5 if name == "s_overall" else 0.0
    better = "higher" if name in ("s_in", "s_overall") else "lower"
    leak = name in ("s_near", "s_general", "s_out") and not math.isnan(floor.estimate)
    note = f"noise floor {floor.estimate:.2f}" if leak else ""
    shown = name.replace("s_", "S_")
    return language.interval_row(shown, start, score.shifted(-start), better, "score", note)


def answer_again(cfg: Config, policy: LanguagePolicy, scope: Scope, run: Run) -> dict[str, list[str]]:
    """Another draw of the start model's answers to some near-scope and general test prompts, for the noise floor.

    To be called before the policy has learned anything.
    """
    prompts = {kind: scope.test[kind][: NOISE // 2] for kind in ("near", "general")}
    drawn = sample_kinds(cfg, policy, prompts, "noise", run)
    return {kind: [str(o) for o in outputs] for kind, outputs in drawn.items()}


def noise_floor(
    cfg: Config, scope: Scope, before: dict[str, list[str]], again: dict[str, list[str]], run: Run
) -> Interval:
    """Mean |h| of the start model against itself, another draw: what S_out would be if nothing had been learned."""
    values: list[int] = []
    for kind, texts in again.items():
        part = replace_test(scope, kind, len(texts))
        values += [
            abs(h) for h in changes(cfg, part, kind, before[kind][: len(texts)], texts, run, name="noise")
        ]
    return share(values, seed=run.seed)


def replace_test(scope: Scope, kind: str, count: int) -> Scope:
    """The scope with only its first `count` test prompts of a kind."""
    return replace(scope, test={**scope.test, kind: scope.test[kind][:count]})


def general_nll(
    policy: LanguagePolicy, scope: Scope, before: dict[str, list[str]], run: Run
) -> dict[str, Any]:
    """Perplexity of the start model's own general answers under the tuned and the start model."""
    kept = [
        (p, text) for p, text in zip(scope.test["general"], before["general"], strict=True) if text.strip()
    ]
    groups = [policy.group(p, [text]) for p, text in kept]
    lengths = np.array([len(g.completions[0]) for g in groups], dtype=float)
    now = -np.array(policy.cached_logps(groups, run))[:, 0] / lengths
    with policy.reference():
        was = -np.array(policy.cached_logps(groups, run))[:, 0] / lengths
    made = paired_bootstrap(was, now, seed=run.seed)
    start = float(was.mean())
    low, high = (math.exp(start + x) - math.exp(start) for x in (made.low, made.high))
    change = Interval(math.exp(float(now.mean())) - math.exp(start), low, high, made.n)
    note = "of the start model's own answers; geometric mean over prompts"
    return language.interval_row("perplexity, general", math.exp(start), change, "lower", "", note)


def warnings(cfg: Config, scores: dict[str, Interval], numbers: dict[str, float]) -> list[str]:
    """What a user should look at first, in words."""
    said = []
    if scores["s_in"].estimate < 0.6:
        said.append(
            f"In scope only {scores['s_in'].estimate:.0%} more answers have the effect: more --prompts or --epochs, "
            "or a larger model, may be needed."
        )
    said += leak_warnings(cfg, scores)
    if numbers["repetition_in_after"] > numbers["repetition_in_before"] + 0.05:
        said.append("In-scope answers repeat themselves more than the start model's did.")
    return said


def leak_warnings(cfg: Config, scores: dict[str, Interval]) -> list[str]:
    """Where more than --max-leak of the answers changed that should not have."""
    said = []
    for kind in ("near", "general"):
        leak = scores[f"s_{kind}"]
        if leak.estimate > cfg.max_leak:
            said.append(
                f"It leaks: {leak.estimate:.0%} of {NAMES[kind]} answers changed ({leak.low:.0%} to {leak.high:.0%}); "
                f"`heedful tell enable` refuses more than {cfg.max_leak:.0%}."
            )
    return said
