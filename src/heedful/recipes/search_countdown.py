"""Countdown as a world of `heedful search`: problems, streams and solutions as token ids, and the strict verifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from heedful.data.countdown import codec
from heedful.data.countdown.game import take
from heedful.data.countdown.instances import SIDES, Drawn, Instances, draw, held_out_targets, solution
from heedful.data.countdown.replay import replay
from heedful.data.countdown.streams import traces
from heedful.data.countdown.tokenizer import compact_tokenizer
from heedful.data.countdown.vocabulary import END, ID, START
from heedful.evals.streams import Searches, strategies
from heedful.feedback import Feedback, Samples
from heedful.policies.decoder import TokenRows
from heedful.recipes.search_world import Settings, World

CHUNK = 20_000  # problems drawn and searched at a time
# Samples are numbered without end, so what learns later takes others than pretraining did.
IMPROVE, VALIDATE = 1 << 40, 1 << 41


def instances_of(settings: Settings) -> Instances:
    """What is drawn."""
    return Instances(
        seed=settings.seed,
        numbers=(settings.numbers, settings.numbers),
        inputs=settings.inputs,
        targets=settings.targets,
        cap=settings.cap,
        beams=settings.beams,
        held_targets=settings.eval_share,
        held_inputs=settings.eval_share,
    )


def countdown_world(settings: Settings, tokenizer: Any = None) -> World:
    """See `World`. Test sets are held-out inputs (problems) and held-out targets.

    Raises HeedfulError for settings without solvable problems.
    """
    instances = instances_of(settings)
    goal, end = ID["G"], ID[END]

    def prompts(side: str, start: int, count: int) -> list[str]:
        drawn = draw(instances, side, start, count).problems.tolist()
        return [codec.prompt(row[0], row[2 : 2 + row[1]]) for row in drawn]

    def trim(ids: Sequence[int]) -> list[int]:
        return [*ids[: list(ids).index(goal) + 1], end] if goal in ids else list(ids)

    def searches(prompts: Sequence[str], tokens: int) -> Searches:
        known = [replay(prompt) for prompt in prompts]
        problems = [(found.target, found.numbers) for found in known]
        return strategies(problems, cap=settings.cap, seed=settings.seed, tokens=tokens)

    held = sorted(held_out_targets(settings.targets, settings.eval_share))
    return World(
        tokenizer=tokenizer or compact_tokenizer(),
        judge=judge,
        train=lambda start, count: prompts(SIDES[0], IMPROVE + start, count),
        validation=lambda count: prompts(SIDES[0], VALIDATE, count),
        tests={side: lambda count, side=side: prompts(side, 0, count) for side in SIDES[1:]},
        rows=lambda on, count, context: token_rows(instances, on, count, context),
        census=census,
        trim=trim,
        searches=searches,
        facts={
            "game": f"Countdown with {settings.numbers} numbers",
            "inputs": f"{settings.inputs[0]} to {settings.inputs[1]}",
            "targets": f"{settings.targets[0]} to {settings.targets[1]}, {len(held)} of them held out",
            "largest result": settings.cap or "no limit",
            "held-out problems": f"{settings.eval_share:.0%}, by a hash of target and inputs",
        },
    )


def judge(samples: Samples) -> Feedback:
    """The paper's rating under the strict verifier: 0 is not solved, and shorter searches are worth more."""
    pairs = [(prompt, str(out)) for i, prompt in enumerate(samples.inputs) for out in samples.group(i)]
    replays = [replay(f"{prompt} {text}") for prompt, text in pairs]
    score = torch.tensor([found.rating for found in replays]).view(len(samples.inputs), samples.n)
    return Feedback(score=score, notes=[found.reason for found in replays])


def census(prompt: str, completion: str) -> dict[str, float]:
    """Errors of each kind up to the first goal, and operations explored."""
    found = replay(f"{prompt} {completion}")
    return {**{name: float(n) for name, n in found.census().items()}, "explored": float(found.explored)}


def token_rows(instances: Instances, on: str, count: int, context: int) -> TokenRows:
    """The first `count` training problems with a stream of search each, or with their first solution."""
    ids: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    prompts: list[np.ndarray] = []
    for start in range(0, count, CHUNK):
        drawn = draw(instances, SIDES[0], start, min(CHUNK, count - start))
        if on == "solutions":
            rows = [solution_ids(drawn, i) for i in range(len(drawn.problems))]
            ids += [np.array(row, np.int16) for row in rows]
            lengths.append(np.array([len(row) for row in rows]))
        else:
            for part in traces(drawn.problems, drawn.strategies, drawn.seeds, cap=instances.cap, text=False):
                ids.append(part.tokens)
                lengths.append(np.diff(part.token_ends, prepend=0))
        prompts.append(_prompt_lengths(drawn))
    ends = np.cumsum(np.concatenate(lengths))
    return TokenRows(np.concatenate(ids), ends, np.concatenate(prompts), context)


def _prompt_lengths(drawn: Drawn) -> np.ndarray:
    """Tokens of `<s> T 24 N 4 9 3`; numbers from 1000 take more than one."""
    problems = drawn.problems
    numbers = np.where(np.arange(problems.shape[1] - 2) < problems[:, 1:2], problems[:, 2:], 0)
    every = np.concatenate([problems[:, :1], numbers], 1)
    more = sum(2 * (every >= 1000**k).sum(1) for k in range(1, 6))
    return 3 + 1 + problems[:, 1] + more


def solution_ids(drawn: Drawn, i: int) -> list[int]:
    """The tokens of a problem with its first solution, the optimal path of the paper: no step that leads nowhere."""
    target, count, *numbers = drawn.problems[i].tolist()
    left: tuple[int, ...] = tuple(numbers[:count])
    words = [START, codec.prompt(target, left)]
    operations = solution(drawn.solutions[i], count)
    for depth, operation in enumerate(operations):
        left = take(left, operation) or ()
        made = f"{_said(operation.left)} {operation.operator} {_said(operation.right)} = {_said(operation.result)}"
        words.append(f"E {made} {_said(*left)}")
        words.append("G" if depth + 1 == len(operations) else f"S {_said(*left)}")
    return [ID[word] for word in " ".join([*words, END]).split()]


def _said(*numbers: int) -> str:
    """Numbers as the compact language has them."""
    return codec.prompt(0, numbers).partition(" N ")[2]
