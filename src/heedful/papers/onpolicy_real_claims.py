"""What is claimed of SmolLM2 with real preferences (`onpolicy_real`), and the tables behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from heedful.evals.intervals import Interval, paired_bootstrap
from heedful.evals.winrates import Judged, length_controlled, length_controlled_gap, win_share
from heedful.papers import rlaif_verdicts as verdicts
from heedful.papers.onpolicy_real import METHODS, SIZES, run_arms
from heedful.papers.results import Claim, Part, Table, Tier, Value
from heedful.papers.rlaif_real_claims import ABSENT
from heedful.papers.seeds import Result, decided

if TYPE_CHECKING:
    from heedful.run import Run

SIDES = "chosen and rejected: AlpacaFarm DPO -.05 and -.088, Pref-FT +.0105 both; UltraFeedback +.6, -.25, 3.6, 3.3"


def real_part(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Part:
    """Claims about SmolLM2 with real preferences, of the first seed; without the data a part that says so."""
    folder = verdicts.data_folder()
    done = {} if folder is None else run_arms(tier, seeds[0], folder, run, until)
    told = [f"Real preferences: {ABSENT}."] if folder is None else []
    if folder is not None:
        arms = SIZES[tier].arms
        told.append(
            f"Real preferences: {sum(arm in done for arm in arms)} of {len(arms)} runs are done, one seed."
        )
    if len(done) < 2:  # the judges alone
        return Part(claims(done, tier, folder is not None), notes=told)
    return Part(claims(done, tier, True), [arms_table(done), judges_table(done)], notes=told)


def claims(done: dict[str, Result], tier: Tier, present: bool) -> list[Claim]:
    """What the paper's full-scale runs show, computed from the results alone; present: whether the data is there."""
    found = []

    def say(
        text: str,
        paper: str,
        needs: Sequence[str],
        value: Callable[[], Interval],
        bound: float = 1e-9,
        above: bool = True,
        unit: str = "prompts",
    ) -> None:
        claim = f"Real preferences: {text}"
        if not present or tier == "smoke" or any(arm not in done for arm in needs):
            why = ABSENT if not present else "not run yet"
            why = "not in the smoke tier, whose model knows nothing" if present and tier == "smoke" else why
            found.append(Claim(claim, paper, note=why))
            return
        got = value()
        interval = (got.low, got.high) if got.known else None
        holds = decided(got.estimate, interval, bound, above)
        note = f"one seed, interval over {got.n} {unit}"
        found.append(Claim(claim, paper, got.estimate, interval, holds, note))

    for a, b, paper in (
        (
            "dpo",
            "sft",
            "gold reward, gain over the start: +.135 and -.01 on AlpacaFarm, +1.69 and +.5 on UltraFeedback",
        ),
        ("ipo", "sft", "a headline: negative gradients beat offline likelihood; no number for IPO"),
        ("dpo_online", "dpo", "a headline: on-policy samples help; no number at this size"),
    ):
        say(
            f"by the reward model of the same pairs {METHODS[a][0]} ends higher than {METHODS[b][0]} (measured: the "
            "lead in score)",
            paper,
            (a, b),
            lambda a=a, b=b: paired_bootstrap(*(_column(done[m], "score_after") for m in (b, a))),
        )
    for method in ("sft", "dpo", "ipo", "dpo_online"):
        say(
            f"by the evaluator {METHODS[method][0]} beats the start model at equal length (measured: the win rate)",
            "not in the paper; is the gain more than length?",
            (method,),
            lambda m=method: length_controlled(judged(done[m], "p")),
            0.5 + 1e-9,
        )
    say(
        "by the evaluator, at equal length, on-policy DPO wins more often against the start model than DPO (measured: "
        "the lead in win rate)",
        "not in the paper",
        ("dpo", "dpo_online"),
        lambda: length_controlled_gap(judged(done["dpo"], "p"), judged(done["dpo_online"], "p")),
    )
    for text, paper, method, name, above in (
        ("DPO separates held-out pairs (measured: h_w - h_l, nats)", SIDES, "dpo", "h_w_minus_h_l", True),
        (
            "DPO lowers the implicit reward of chosen answers too (measured: h_w, nats)",
            SIDES,
            "dpo",
            "h_w",
            False,
        ),
        (
            "Pref-FT raises the implicit reward of rejected answers too (measured: h_l, nats)",
            SIDES,
            "sft",
            "h_l",
            True,
        ),
    ):
        say(
            text,
            paper,
            (method,),
            lambda m=method, n=name: _interval(done[m], n),
            1e-9 if above else -1e-9,
            above,
            "pairs",
        )
    return found


def _column(result: Result, name: str) -> list[list[float]]:
    return [row[name] for row in sorted(result["held"], key=lambda row: row["prompt"])]


def _interval(result: Result, name: str) -> Interval:
    """A change in result.json with its interval over held-out pairs."""
    nan = float("nan")
    low, high = (result.get(f"{name}_change_{end}", nan) for end in ("low", "high"))
    return Interval(result[f"{name}_change"], low, high, int(result["held_out_pairs"]))


def judged(result: Result, by: str) -> Judged:
    """An arm's answers against the start model's: by "p", the evaluator's probability, or "score", the reward model's
    verdict."""
    before, after = (np.array(_column(result, f"score_{side}"), dtype=float) for side in ("before", "after"))
    wins = np.array(_column(result, "p")) if by == "p" else (after > before) + 0.5 * (after == before)
    longer = np.array(_column(result, "words_after"), dtype=float) - np.array(_column(result, "words_before"))
    return Judged(wins, longer)


# ---- tables


def arms_table(done: dict[str, Result]) -> Table:
    """Every arm: scores, win rates plain and at equal length, lengths, implicit rewards."""
    rows = []
    for method, (name, _) in METHODS.items():
        if method in done:
            r = done[method]
            row: list[Value] = [name, r["answer_length_before"], r["answer_length_after"]]
            row += [r["judge_score_change"], _span(_interval(r, "judge_score"))]
            for by in ("score", "p"):
                for rate in (win_share, length_controlled):
                    got = rate(judged(r, by))
                    row += [got.estimate, _span(got)]
            rows.append([*row, r["h_w"], r["h_l"], r["preference_accuracy"], r["kl"]])
    columns = ["method", "words before", "after", "change of score", "95%"]
    for by in ("reward model", "evaluator"):
        for kind in ("win rate", "at equal length"):
            columns += [f"{kind}, {by}", f"95% ({kind}, {by})"]
    note = (
        "Held-out prompts, one seed, intervals over prompts. Win rates are against the start model's answers. "
        "On-policy DPO was trained on the reward model's scores, which therefore say little of it; the evaluator is "
        "of other prompts. h_w, h_l: implicit rewards of held-out pairs, in nats; accuracy: pairs with h_w above h_l."
    )
    return Table("Real preferences: every arm", [*columns, "h_w", "h_l", "accuracy", "KL"], rows, note)


def _span(got: Interval) -> str:
    return f"{got.low:.3f} to {got.high:.3f}" if got.known else ""


def judges_table(done: dict[str, Result]) -> Table:
    """How often each judge orders held-out pairs as GPT-4 did."""
    told = done["judges"]
    pairs, prompts = told["pairs"], told["prompts"]
    rows = [[name, value, pairs["held"]] for name, value in told["accuracy"].items()]
    note = (
        f"The reward model is of {pairs['train']} pairs of {prompts['train']} prompts, the evaluator of "
        f"{pairs['evaluator']} of {prompts['evaluator']} others; held out are {prompts['held']} prompts."
    )
    return Table("Real preferences: the judges", ["judge", "agrees with GPT-4", "held-out pairs"], rows, note)
