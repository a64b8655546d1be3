"""Who answers the question from what was found: a language model, local or served."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from heedful.recipes.retrieve_pipeline import Read, Turn
from heedful.recipes.retrieve_writers import NOTHING, shown_passage

if TYPE_CHECKING:
    from heedful.policies.asking import Sampler
    from heedful.run import Run

INSTRUCTION = "Answer the question from the passages, in as few words as possible."
ANSWER = "Answer:"
ANSWER_TOKENS = 24
_LABEL = re.compile(r"^\s*(?:the\s+)?answer(?:\s+is)?\s*:\s*", re.IGNORECASE)


def reader_prompt(turn: Turn, passage_words: int) -> str:
    """What a reader is asked: the passages of the context, best first, and the question."""
    shown = [shown_passage(hit, i, passage_words) for i, hit in enumerate(turn.context, start=1)]
    found = "\n".join(shown) or NOTHING
    return f"{INSTRUCTION}\n\nPassages:\n{found}\nQuestion: {turn.question.question}\n{ANSWER}"


def written_answer(text: str) -> str:
    """The answer in a model's reply: its first line, without a label before it and a full stop at its end."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    return " ".join(_LABEL.sub("", line).split()).removesuffix(".")


def model_reader(
    model: Sampler,
    run: Run | None,
    role: str = "reader",
    *,
    passage_words: int,
    seed: int,
    quiet: bool = True,
) -> Read:
    """A model as a reader, always with the most likely tokens. In a run folder no call is made twice, and process 0
    alone may ask, inside `run.once`."""
    how: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": ANSWER_TOKENS}

    def read(turns: Sequence[Turn]) -> list[str]:
        prompts = [reader_prompt(turn, passage_words) for turn in turns]
        if run is None:
            import torch

            drawn = model.sample(prompts, 1, generator=torch.Generator().manual_seed(seed), **how)
            return [written_answer(str(output)) for output in drawn.outputs]
        from heedful.policies.calls import Calls

        texts = Calls(run, role, quiet=quiet).texts(
            model, prompts, seed=seed, readable=lambda text: bool(written_answer(text)), **how
        )
        return [written_answer(text) for text in texts]

    return read
