"""Questions to a model whose replies a program reads: cleaned, parsed strictly, asked again a bounded number of times.

A reply is some reasoning and then one result between `<answer>` and `</answer>`. What a model writes is untrusted:
it is never run or formatted into, it is cut at a length, and control characters are removed from it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from heedful.config import content_hash
from heedful.errors import HeedfulError
from heedful.run import derive_seed

if TYPE_CHECKING:
    import torch

    from heedful.feedback import Samples
    from heedful.policies.calls import Calls
    from heedful.run import Run

T = TypeVar("T")

OPEN, CLOSE = "<answer>", "</answer>"
FORMAT = (
    f"Think first, in a few sentences. Then write your result between the tags {OPEN} and {CLOSE}. "
    f"Use each of the two tags once, and write nothing after {CLOSE}."
)
"""What every question says about the form of its reply."""

LONGEST = 40_000
"""Characters of a reply that are kept; a longer one has lost its closing tag and is unparsable."""
PART = 64
"""Questions whose replies share a file of the run."""
EXAMPLES = 5
EXCERPT = 200

_BREAKS = re.compile(r"\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
# Marks that reorder what a person sees would let a scope show one thing and hold another.
_HIDDEN = frozenset("\ufeff\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Sampler(Protocol):
    """Whatever writes text: `LanguagePolicy`, `RemotePolicy`, or a test's table."""

    def sample(
        self,
        inputs: Sequence[Any],
        n: int,
        *,
        temperature: float,
        generator: torch.Generator,
        max_new_tokens: int,
    ) -> Samples:
        """n completions for each input, input-major."""
        ...


@dataclass
class Replies(Generic[T]):
    """What came back. values: one for each question, None where no reply could be read.

    unparsable: replies that could not be read, those that were asked for again included; examples: up to five
    of them, shortened.
    """

    values: list[T | None]
    unparsable: int = 0
    examples: list[str] = field(default_factory=list)


def clean(text: str) -> str:
    """The text without control characters, lone surrogates and marks of direction; every line break as `\\n`."""
    text = _BREAKS.sub("\n", text[: 2 * LONGEST])
    kept = (
        c for c in text if c in "\n\t" or (unicodedata.category(c) not in ("Cc", "Cs") and c not in _HIDDEN)
    )
    return "".join(kept)[:LONGEST]


def one_line(text: str) -> str:
    """The cleaned text with every stretch of white space as one space."""
    return " ".join(clean(text).split())


def excerpt(text: str) -> str:
    """At most 200 characters on one line, for messages and notes."""
    line = one_line(text)
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…"


def fenced(text: str) -> str:
    """The text between two fences that do not occur in it, so that it cannot pretend to end early."""
    text = clean(text)
    fence = "~~~"
    while fence in text:
        fence += "~"
    return f"{fence}\n{text}\n{fence}"


def answer_block(reply: str) -> str | None:
    """What stands between the tags of a reply, outer blank lines removed.

    None unless each tag occurs exactly once, in order, with something between them and nothing after them. What a
    reasoning model writes up to `</think>` does not count.
    """
    reply = clean(reply).rpartition("</think>")[2]
    if reply.count(OPEN) != 1 or reply.count(CLOSE) != 1:
        return None
    _, _, rest = reply.partition(OPEN)
    inner, closed, after = rest.partition(CLOSE)
    if not closed or after.strip() or not inner.strip():
        return None
    return inner.strip("\n").rstrip()


def parse_choice(reply: str, choices: Sequence[str]) -> str | None:
    """The one of the choices that the reply's answer is, in capitals or not; None for anything else."""
    block = answer_block(reply)
    said = block.strip().upper() if block is not None else ""
    return said if said in choices else None


def ask(
    policy: Sampler,
    questions: Sequence[Any],
    parse: Callable[[str], T | None],
    *,
    seed: int,
    name: str,
    run: Run | None = None,
    calls: Calls | None = None,
    retries: int = 3,
    temperature: float = 0.7,
    greedy_first: bool = False,
    max_new_tokens: int = 512,
) -> Replies[T]:
    """Ask every question; ask again, at most `retries` times and with fresh random streams, where `parse` gives None.

    greedy_first: the first try is at temperature 0, the others at `temperature`. In a run the replies are kept as
    `name.json`, `name.retry-1.json`, ... (in parts of 64 questions), and a resumed program asks nothing twice.
    calls: where replies are kept by content instead, whatever the name and the batch.
    Raises HeedfulError for negative retries, when kept replies belong to other questions, and what sampling raises.
    """
    if retries < 0:
        raise HeedfulError(f"retries must be 0 or more, not {retries}")

    def readable(text: str) -> bool:
        return parse(text) is not None

    replies: Replies[T] = Replies([None] * len(questions))
    left = list(range(len(questions)))
    for attempt in range(retries + 1):
        if not left:
            break
        options = {
            "temperature": 0.0 if greedy_first and not attempt else temperature,
            "max_new_tokens": max_new_tokens,
        }
        again = name if not attempt else f"{name}.retry-{attempt}"
        batch = [questions[i] for i in left]
        if calls is None:
            texts = _sampled(policy, batch, seed, again, run, options)
        else:
            texts = calls.texts(policy, batch, seed=seed, attempt=attempt, readable=readable, **options)
        for i, text in zip(left, texts, strict=True):
            replies.values[i] = parse(text)
            if replies.values[i] is None:
                replies.unparsable += 1
                if len(replies.examples) < EXAMPLES:
                    replies.examples.append(excerpt(text) or "(empty)")
        left = [i for i in left if replies.values[i] is None]
    return replies


def _sampled(
    policy: Sampler, questions: list[Any], seed: int, name: str, run: Run | None, options: dict[str, Any]
) -> list[str]:
    texts: list[str] = []
    for part, first in enumerate(range(0, len(questions), PART)):
        batch = questions[first : first + PART]
        file = f"{name}.json" if not part else f"{name}.part-{part:04}.json"

        def make(batch: list[Any] = batch, part: int = part) -> dict[str, Any]:
            import torch

            generator = torch.Generator().manual_seed(derive_seed(seed, name, part))
            samples = policy.sample(batch, 1, generator=generator, **options)
            return {"asked": content_hash(batch), "replies": [clean(str(text)) for text in samples.outputs]}

        kept = make() if run is None else run.once(file, make)
        # only a file can differ: one that another version of the questions, or a person, has written
        fits = isinstance(kept, dict) and kept.get("asked") == content_hash(batch)
        texts_of = kept.get("replies") if fits else None
        if not isinstance(texts_of, list) or [type(t) for t in texts_of] != [str] * len(batch):
            where = run.path(file) if run is not None else file
            raise HeedfulError(
                f"{where} does not hold the replies to these questions; delete it and run the same command again"
            )
        texts += texts_of
    return texts
