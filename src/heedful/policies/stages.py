"""Sampling and judging as stages of a run: done once, kept on disk, resumed part by part."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from heedful.feedback import Feedback, Judge, Samples
from heedful.policies.encode import Prompt
from heedful.policies.language import Completion, LanguagePolicy
from heedful.progress import Progress
from heedful.run import Run

PART = 256  # samples drawn together, which a kill may cost; a row decodes the faster the more are beside it
SMALL_PART = 4096  # the same with a small model, which draws them in seconds


def plain_sampling(*, temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0, **_: Any) -> bool:
    """Whether these options of sampling draw from the very distribution whose log-probabilities are kept."""
    return temperature == 1 and top_p == 1 and top_k == 0


def sample_once(
    policy: LanguagePolicy,
    prompts: Sequence[Prompt],
    n: int,
    name: str,
    run: Run,
    *,
    stream: str = "",
    quiet: bool = False,
    on_part: Callable[[Samples], None] | None = None,
    **how: Any,
) -> Samples:
    """`policy.sample` kept as `<name>.jsonl`, one row per prompt, drawn in parts of PART samples.

    how: temperature, top_p, top_k, max_new_tokens, stop, max_rows. What is drawn is a function of the run's seed,
    of `stream` (the name, unless two stages are to share their random numbers) and of the policy, so a resumed run
    gets the very same samples. on_part: called in rank 0 with each part as soon as it is there.
    """

    size = max(1, (SMALL_PART if getattr(policy, "small", False) else PART) // n)

    def part(first: int) -> list[dict[str, Any]]:
        chunk = list(prompts[first : first + size])
        generator = run.generator(stream or name, first)
        drawn = policy.sample(chunk, n, generator=generator, progress=shown(first), **how)
        return [
            {"prompt": p, "completions": [c.as_row() for c in drawn.outputs[i * n : (i + 1) * n]]}
            for i, p in enumerate(chunk)
        ]

    def shown(first: int) -> Callable[[int], None] | None:
        if quiet:
            return None
        begun, total = time.monotonic(), 0

        def tick(tokens: int) -> None:
            nonlocal total
            total += tokens
            rate = total / max(1e-9, time.monotonic() - begun)
            bar.show(
                first, f"{total:,} tokens of the next {min(size, len(prompts) - first)}, {rate:,.0f} tokens/s"
            )

        return tick

    with Progress(name, len(prompts), unit="prompts", quiet=quiet or run.there(f"{name}.jsonl")) as bar:

        def each(first: int, made: list[dict[str, Any]]) -> None:
            if on_part is not None and run.rank == 0:
                on_part(_as_samples(made, n))
            bar.show(min(len(prompts), first + size), "sampled")

        rows = run.in_parts(name, len(prompts), size, part, each=each)
    return _as_samples(rows, n)


def _as_samples(rows: Sequence[Mapping[str, Any]], n: int) -> Samples:
    outputs = [Completion.from_row(c) for row in rows for c in row["completions"]]
    return Samples(inputs=[row["prompt"] for row in rows], outputs=outputs, n=n)


def sample_and_judge(
    policy: LanguagePolicy,
    prompts: Sequence[Prompt],
    n: int,
    judge: Judge,
    names: tuple[str, str],
    run: Run,
    **how: Any,
) -> tuple[Samples, Feedback]:
    """`sample_once` and `judge_once` under two names, side by side: a part is judged while the next one is drawn.

    The judge sees the samples in parts, in order, and one part at a time. A reward model on the device that
    samples waits until all are drawn, since the two would only slow each other down. how: see `sample_once`.
    """
    same_device = getattr(judge, "device", None) == policy.device
    waiting: list[Future[list[dict[str, Any]]]] = []
    with ThreadPoolExecutor(1) as background:

        def submit(part: Samples) -> None:
            waiting.append(background.submit(lambda: feedback_rows(judge(part), n)))

        judged = run.path(f"{names[1]}.jsonl").exists()
        on_part = None if judged or same_device else submit
        samples = sample_once(policy, prompts, n, names[0], run, on_part=on_part, **how)
        parts = [future.result() for future in waiting]
    drawn_now = [row for rows in parts for row in rows]
    if len(drawn_now) < len(prompts):  # the samples were there already, or the judge waits
        return samples, judge_once(judge, samples, names[1], run)
    return samples, as_feedback(run.once(f"{names[1]}.jsonl", lambda: drawn_now), n)


def judge_once(judge: Judge, samples: Samples, name: str, run: Run) -> Feedback:
    """`judge(samples)` kept as `<name>.jsonl`, one row per prompt: scores (null is no opinion), notes, and the better
    output, as text or messages, where the judge offers one."""
    return as_feedback(run.once(f"{name}.jsonl", lambda: feedback_rows(judge(samples), samples.n)), samples.n)


def feedback_rows(feedback: Feedback, n: int) -> list[dict[str, Any]]:
    """One JSON object per prompt; `as_feedback` restores it."""
    rows: list[dict[str, Any]] = []
    for i, scores in enumerate(feedback.score.tolist()):
        row: dict[str, Any] = {"score": [None if s != s else s for s in scores]}
        if feedback.notes is not None:
            row["notes"] = feedback.notes[i * n : (i + 1) * n]
        if feedback.better is not None:
            offered = feedback.better[i]
            row["better"] = offered if offered is None or isinstance(offered, list) else str(offered)
        rows.append(row)
    return rows


def as_feedback(rows: Sequence[Mapping[str, Any]], n: int) -> Feedback:
    """The inverse of `feedback_rows`."""
    score = torch.tensor([[float("nan") if s is None else s for s in row["score"]] for row in rows])
    notes = [note for row in rows for note in row["notes"]] if rows and "notes" in rows[0] else None
    better = [row["better"] for row in rows] if rows and "better" in rows[0] else None
    return Feedback(score=score.view(len(rows), n), better=better, notes=notes)
