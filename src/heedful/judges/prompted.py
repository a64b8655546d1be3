"""A language model as critic of two answers, as scorer of one, as teacher, and as reviser.

A local model (`LanguagePolicy`) judges by the probabilities it gives to the possible verdicts: nothing is generated
and nothing has to be parsed. A served one (`RemotePolicy`, or whatever else only samples) writes a reply, which is
parsed strictly and asked for again a bounded number of times. Every call is kept by its content in the run folder
(`policies.calls`), and `usage` is the table of what it all took.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from heedful.errors import HeedfulError
from heedful.evals.texts import words
from heedful.feedback import Feedback, Judge, Samples
from heedful.judges import prompted_text
from heedful.judges.comparing import TIE, Comparer, Comparison, Disagreement, both_orders, same_length
from heedful.judges.prompted_text import DEFAULT_CRITERION
from heedful.policies.asking import Replies, Sampler, answer_block, ask, parse_choice
from heedful.policies.calls import Calls
from heedful.policies.calls import usage as usage

if TYPE_CHECKING:
    from heedful.run import Run

CHOICES = {"A": 0.0, "B": 1.0, "TIE": TIE}
"""What a verdict says of the answer that is shown second."""
WIDEST = 100
"""Points of a scorer's scale; a model cannot tell more apart, and a local one computes each of them."""


# ---- critic


def comparer(
    model: Any,
    *,
    run: Run,
    seed: int,
    name: str = "critic",
    criterion: str = DEFAULT_CRITERION,
    disagreement: Disagreement = "nan",
    retries: int = 2,
    max_new_tokens: int = 256,
    quiet: bool = False,
) -> Comparer:
    """A critic of two answers to a prompt, asked in both orders; see `comparing.both_orders`.

    A local model gives p by the odds of the letters A and B as its reply. Any other is asked for A, B or TIE, the first
    time at temperature 0, and again at most `retries` times, at temperature 0.7, where its reply cannot be read.
    name: its calls are kept as `calls/<name>.jsonl`. To counts are added: asked and cached (questions), retried.
    Must be called by process 0 alone, that is inside `run.once` or `judge_once`, in a job of several.
    Raises HeedfulError for an empty criterion, and when it is called for what the model raises, with the number of
    answers that are kept.
    """
    _not_empty(criterion)
    calls = Calls(run, name, quiet=quiet)
    local = _is_local(model)

    def compare(prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> Comparison:
        same_length(prompts, first, second)
        before = calls.asked, calls.cached
        replies: Replies[str] = Replies([])
        mass: list[float] = []

        def look(shown: Sequence[tuple[int, str, str]]) -> list[float | None]:
            nonlocal replies
            questions = [
                prompted_text.better(criterion, prompts[i], a, b, by_letter=local) for i, a, b in shown
            ]
            if local:
                verdicts = [_share(logps) for logps in calls.choice_logps(model, questions, _LETTERS)]
                mass.extend(total for _, total in filter(None, verdicts))
                return [None if verdict is None else verdict[0][1] for verdict in verdicts]
            replies = ask(
                model,
                questions,
                lambda reply: parse_choice(reply, list(CHOICES)),
                seed=seed,
                name=name,
                calls=calls,
                retries=retries,
                greedy_first=True,
                max_new_tokens=max_new_tokens,
            )
            return [None if said is None else CHOICES[said] for said in replies.values]

        comparison = both_orders(first, second, look, disagreement=disagreement)
        comparison.counts |= {
            "retried": replies.unparsable - replies.values.count(None),
            "asked": calls.asked - before[0],
            "cached": calls.cached - before[1],
        }
        if mass:
            comparison.rates["choices"] = math.fsum(mass) / len(mass)
        comparison.examples = replies.examples
        return comparison

    return compare


_LETTERS = [prompted_text.VERDICT + letter for letter in "AB"]


def _share(logps: Sequence[float]) -> tuple[list[float], float] | None:
    """(share of each choice among them, their probability together); None where the model gives no number."""
    if not all(map(math.isfinite, logps)):
        return None
    values = torch.tensor(logps, dtype=torch.float64)
    return values.softmax(0).tolist(), float(values.logsumexp(0).exp())


# ---- scorer


def scorer(
    model: Any,
    *,
    run: Run,
    seed: int,
    name: str = "scorer",
    criterion: str = DEFAULT_CRITERION,
    scale: tuple[int, int] = (1, 10),
    retries: int = 2,
    max_new_tokens: int = 256,
    quiet: bool = False,
) -> Judge:
    """A judge that gives each answer a number from scale[0] to scale[1]; NaN where it gives none that can be read.

    A local model's number is the mean over the scale by the probability of each whole number as its reply (Liu et al.
    2023, G-Eval, arXiv 2303.16634, section 2). Any other model is asked for one whole number, and again as in
    `comparer`. Must be called by process 0 alone, as in `judge_once`.
    Raises HeedfulError for an empty criterion and a scale that is none.
    """
    _not_empty(criterion)
    low, high = scale
    if not (type(low) is type(high) is int and low < high <= low + WIDEST):
        raise HeedfulError(
            f"a scale is two whole numbers, at most {WIDEST} apart, the lower first, not {scale}"
        )
    points = range(low, high + 1)
    calls = Calls(run, name, quiet=quiet)
    local = _is_local(model)

    def parse(reply: str) -> int | None:
        said = re.fullmatch(r"-?[0-9]{1,9}", (answer_block(reply) or "").strip())
        return int(said[0]) if said and int(said[0]) in points else None

    def judge(samples: Samples) -> Feedback:
        questions = [
            prompted_text.rate(criterion, samples.inputs[i // samples.n], str(output), scale, by_number=local)
            for i, output in enumerate(samples.outputs)
        ]
        scores: list[float | None]
        if local:
            numbers = [f"{prompted_text.SCORE}{point}" for point in points]
            shares = map(_share, calls.choice_logps(model, questions, numbers))
            scores = [
                None if s is None else math.fsum(p * point for p, point in zip(s[0], points)) for s in shares
            ]
        else:
            scores = [
                *ask(
                    model,
                    questions,
                    parse,
                    seed=seed,
                    name=name,
                    calls=calls,
                    retries=retries,
                    greedy_first=True,
                    max_new_tokens=max_new_tokens,
                ).values
            ]
        score = torch.tensor([math.nan if s is None else float(s) for s in scores])
        notes = ["no readable score" if s is None else "" for s in scores]
        return Feedback(score=score.view(len(samples.inputs), samples.n), notes=notes)

    return judge


# ---- teacher and reviser


def teacher(
    model: Any,
    *,
    run: Run,
    seed: int,
    name: str = "teacher",
    max_new_tokens: int = 512,
    temperature: float = 0.7,
    retries: int = 2,
    quiet: bool = False,
) -> Callable[[Sequence[Any]], list[str | None]]:
    """A model that answers prompts, texts or lists of messages, to be imitated; None where it stays silent.

    What a reasoning model writes up to `</think>` is dropped. An answer that reaches `max_new_tokens` is given as far
    as it goes and counted in `usage` as cut. Equal prompts get the same answer.
    """
    calls = Calls(run, name, quiet=quiet)

    def answer(prompts: Sequence[Any]) -> list[str | None]:
        return ask(
            model,
            prompts,
            lambda reply: reply.rpartition("</think>")[2].strip() or None,
            seed=seed,
            name=name,
            calls=calls,
            retries=retries if temperature > 0 else 0,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
        ).values

    return answer


def reviser(
    model: Any,
    *,
    run: Run,
    seed: int,
    name: str = "reviser",
    max_new_tokens: int = 768,
    temperature: float = 0.7,
    retries: int = 2,
    quiet: bool = False,
) -> Callable[[Sequence[Any], Sequence[str], str], list[str | None]]:
    """A model that changes (prompts, answers) as an instruction says; None where its reply cannot be read.

    Raises HeedfulError, when called, for an empty instruction and for prompts and answers that differ in number.
    """
    calls = Calls(run, name, quiet=quiet)

    def revise(prompts: Sequence[Any], answers: Sequence[str], instruction: str) -> list[str | None]:
        if len(prompts) != len(answers):
            raise HeedfulError(f"there are {len(prompts)} prompts but {len(answers)} answers to revise")
        if not words(instruction):
            raise HeedfulError("there is no instruction to revise answers by; say what should be different")
        return ask(
            model,
            [prompted_text.revise(p, a, instruction) for p, a in zip(prompts, answers, strict=True)],
            prompted_text.parse_revision,
            seed=seed,
            name=name,
            calls=calls,
            retries=retries if temperature > 0 else 0,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
        ).values

    return revise


# ---- whether answers have an effect


@dataclass
class Verdicts:
    """What the judge said about N pairs of answers.

    h: N of -1 (the answer before follows the effect better), 0, 1 (the answer after does). The zeros are the sum of
    ties (both orders say so, or the answers are equal and were not asked about), disagreements (the two orders say
    different things) and unparsable (no readable verdict in one order at least). retried: replies that could not be
    read, and examples of them.
    """

    h: list[int]
    ties: int = 0
    disagreements: int = 0
    unparsable: int = 0
    retried: int = 0
    examples: list[str] = field(default_factory=list)


def compare_adherence(
    policy: Sampler,
    effect_text: str,
    prompts: Sequence[str],
    before: Sequence[str],
    after: Sequence[str],
    *,
    seed: int,
    run: Run | None = None,
    name: str = "judge/adherence",
    retries: int = 3,
    max_new_tokens: int = 256,
) -> Verdicts:
    """Which of two answers to each prompt follows the effect better, by a model asked in both orders.

    The model is told the effect in words and never the scope. The first try is at temperature 0; replies that cannot
    be read are asked for again, at most `retries` times, at temperature 0.7. In a run the replies are kept as
    `name.json`; as every other stage of a run, this must not be called from inside `run.once`.
    Raises HeedfulError when prompts and answers differ in number or the effect is empty.
    """
    if not len(prompts) == len(before) == len(after):
        raise HeedfulError(
            f"there are {len(prompts)} prompts, but {len(before)} answers before and {len(after)} after to compare"
        )
    if not words(effect_text):
        raise HeedfulError('there is no effect to judge by; give it with --effect "..."')
    replies: Replies[str] = Replies([])

    def look(shown: Sequence[tuple[int, str, str]]) -> list[float | None]:
        nonlocal replies
        replies = ask(
            policy,
            [prompted_text.adherence(effect_text, prompts[i], a, b) for i, a, b in shown],
            lambda reply: parse_choice(reply, list(CHOICES)),
            seed=seed,
            name=name,
            run=run,
            retries=retries,
            greedy_first=True,
            max_new_tokens=max_new_tokens,
        )
        return [None if said is None else CHOICES[said] for said in replies.values]

    comparison = both_orders(before, after, look)
    h = [(p > TIE) - (p < TIE) for p in comparison.p.tolist()]
    return Verdicts(h, **comparison.counts, retried=replies.unparsable, examples=replies.examples)


def _is_local(model: Any) -> bool:
    """Whether the model says how likely a given reply is."""
    return hasattr(model, "sequence_logps")


def _not_empty(criterion: str) -> None:
    if not words(criterion):
        raise HeedfulError("there is no criterion to judge by; say in a sentence what makes an answer better")
