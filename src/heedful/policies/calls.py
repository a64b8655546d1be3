"""Calls to a model, remembered by content: in one run folder no question is paid for twice.

`calls/<role>.jsonl` in the run folder has one line for each batch that was answered together (with a server, for each
answer), appended whole and flushed to the disk. What a kill tears is passed over and asked again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.atomic import make_folder, write_all, writing
from heedful.config import content_hash
from heedful.errors import HeedfulError
from heedful.policies.asking import PART, Sampler, clean
from heedful.progress import Progress
from heedful.run import Run, derive_seed

if TYPE_CHECKING:
    from heedful.policies.encode import Prompt
    from heedful.policies.language import LanguagePolicy
    from heedful.policies.remote import Spent

FOLDER = "calls"

Prices = Mapping[str, tuple[float, float]]
"""What a million prompt tokens and a million completion tokens cost, by the name the model has in the table."""

Entry = dict[str, Any]
Keep = Callable[[list[Entry]], None]
Ask = Callable[[list[str], list[Any], Keep], None]
"""Asks the questions of some keys, and gives the answers to `Keep` in batches as they come."""

_COUNTS = ("calls", "cached", "retried", "unparsable", "cut")
_TOKENS = ("prompt_tokens", "completion_tokens")
_FIELDS = {"key", "model", "answer", "attempt", "readable", "cut", *_TOKENS}


class Calls:
    """The answered calls of one role, such as "critic"; `asked` and `cached` count what this object was asked for.

    A call is known by the model (a local one by its weights, a served one by its name), the whole question and the
    options; at a temperature above 0 by the seed and the attempt too. What else stands in the batch plays no part.
    Process 0 alone may ask: in a job of several, that is inside `run.once` or `judge_once`. Raises HeedfulError
    elsewhere, and for a role that leads out of the run folder.
    """

    def __init__(self, run: Run, role: str, *, quiet: bool = True) -> None:
        self.role, self.quiet = role, quiet
        self.path = run.path(f"{FOLDER}/{role}.jsonl")
        self.asked = self.cached = 0
        self._rank = run.rank
        self._known: dict[str, Any] = {}
        self._read_to = 0

    def texts(
        self,
        policy: Sampler,
        questions: Sequence[Prompt],
        *,
        seed: int,
        attempt: int = 0,
        temperature: float,
        max_new_tokens: int,
        readable: Callable[[str], bool],
    ) -> list[str]:
        """The cleaned reply to each question. readable: whether a reply is of use, for the table.

        A server gets for each question a seed that is a function of the call alone; a local model draws parts of 64
        questions by a seed of all of them, so that a kill costs one part and changes nothing.
        Raises what sampling raises, with the number of answers that are kept.
        """
        from heedful.policies.remote import RemotePolicy

        how: dict[str, Any] = {"temperature": temperature, "max_new_tokens": max_new_tokens}

        def entry(key: str, question: Prompt, text: str, spent: Spent) -> Entry:
            text = clean(text)
            return _entry(policy, key, question, text, spent, attempt, readable(text))

        def remotely(keys: list[str], asked: list[Any], keep: Keep) -> None:
            def arrived(i: int, got: list[str], spent: Spent) -> None:
                keep([entry(keys[i], asked[i], got[0], spent)])

            seeds = [int(key, 16) % (2**31 - 1) for key in keys]
            remote: Any = policy
            remote.sample(asked, 1, seeds=seeds, arrived=arrived, **how)

        def in_parts(keys: list[str], asked: list[Any], keep: Keep) -> None:
            import torch

            for first in range(0, len(keys), PART):
                part = slice(first, first + PART)
                generator = torch.Generator().manual_seed(derive_seed(0, *keys[part]))
                outputs = policy.sample(asked[part], 1, generator=generator, **how).outputs
                rows = zip(keys[part], asked[part], outputs, strict=True)
                keep([entry(key, q, str(out), _spent(policy, q, out)) for key, q, out in rows])

        draw = [seed, attempt] if temperature > 0 else []
        ask = remotely if isinstance(policy, RemotePolicy) else in_parts
        return self._answers(policy, questions, {**how, "draw": draw}, ask)

    def choice_logps(
        self, policy: LanguagePolicy, questions: Sequence[Prompt], choices: Sequence[str]
    ) -> list[list[float]]:
        """Log-probability (nats) of each choice as the reply to each question, by a local model; (questions, choices).

        The tokens that all choices begin with are put to the question's and do not count. Where one choice is the
        beginning of another (1 and 10), each is closed by the end token. One forward pass over a question, whatever
        the number of choices.
        Raises HeedfulError before anything is computed when a question is longer than the model's context.
        """
        from heedful.policies.packing import Group
        from heedful.policies.remote import Spent

        ids = [list(policy.tokenizer(choice, add_special_tokens=False)["input_ids"]) for choice in choices]
        shared = next((i for i, column in enumerate(zip(*ids)) if len(set(column)) > 1), min(map(len, ids)))
        lead, rests = ids[0][:shared], [one[shared:] for one in ids]
        if any(i != j and a == b[: len(a)] for i, a in enumerate(rests) for j, b in enumerate(rests)):
            rests = [[*rest, policy.encoder.end] for rest in rests]
        longest = max(map(len, rests))

        def group(question: Prompt) -> Group:
            made = Group([*policy.encoder.prompt(question), *lead], rests)
            if len(made.prompt) + longest > policy.context:
                raise HeedfulError(
                    f"a question to the {self.role} has {len(made.prompt) + longest} tokens; the context of "
                    f"{_model(policy)} is {policy.context}: shorten the answers, or use a model with a longer context"
                )
            return made

        def ask(keys: list[str], asked: list[Any], keep: Keep) -> None:
            groups = [group(question) for question in asked]
            for first in range(0, len(keys), PART):
                part = slice(first, first + PART)
                rows = zip(
                    keys[part],
                    asked[part],
                    groups[part],
                    policy.sequence_logps(groups[part]),
                    strict=True,
                )
                keep(
                    [
                        _entry(policy, key, q, logps, Spent(len(g.prompt), 0, 0), 0, _finite(logps))
                        for key, q, g, logps in rows
                    ]
                )

        return self._answers(policy, questions, {"choices": list(choices)}, ask)

    def _answers(
        self, policy: Any, questions: Sequence[Prompt], how: Mapping[str, Any], ask: Ask
    ) -> list[Any]:
        """The answers to all questions; `ask` is called with those that are not known."""
        if self._rank != 0:
            raise HeedfulError(
                f"the {self.role} is asked by process 0 alone: call it inside run.once or judge_once"
            )
        self._read()
        who = policy.fingerprint() if hasattr(policy, "fingerprint") else _model(policy)
        keys = [content_hash([who, _rendered(policy, question), how]) for question in questions]
        missing = {key: q for key, q in zip(keys, questions, strict=True) if key not in self._known}
        cached = len(keys) - len(missing)
        if cached:
            self.cached += cached
            self._append({"model": _model(policy), "cached": cached})
        done = 0
        with Progress(self.role, len(missing), unit="calls", quiet=self.quiet or not missing) as bar:

            def keep(entries: list[Entry]) -> None:
                nonlocal done
                self._append({"calls": entries})
                self._known |= {entry["key"]: entry["answer"] for entry in entries}
                self.asked += len(entries)
                done += len(entries)
                bar.show(done, "asked")

            try:
                if missing:
                    ask(list(missing), list(missing.values()), keep)
            except HeedfulError as error:
                raise HeedfulError(
                    f"{error}\n{done} of {len(missing)} questions to the {self.role} were answered before that and "
                    f"are kept in {self.path}; the same command asks only the others"
                ) from error
        return [self._known[key] for key in keys]

    def _read(self) -> None:
        """Take in what was appended since the last look, by this object or another."""
        for line, end in _lines(self.path, self._read_to):
            self._known |= {entry["key"]: entry["answer"] for entry in line.get("calls", ())}
            self._read_to = end

    def _append(self, line: Mapping[str, Any]) -> None:
        make_folder(self.path.parent)
        data = json.dumps(line).encode() + b"\n"
        with writing(self.path):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    data = b"\n" + data  # what a kill has torn stays a line of its own
                write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def usage(run: Run, prices: Prices | None = None) -> list[dict[str, Any]]:
    """What models were asked in this run folder, over all its starts: one row for each role and model.

    calls (answered, and paid for), cached (questions whose answer was there already), retried (calls that asked
    again), unparsable (replies that could not be read), cut (replies that reached the limit of tokens), prompt_tokens
    and completion_tokens (of a local model counted here, of a served one as the server says), uncounted (calls for
    which it said nothing), cost (None without a price, and where there are uncounted calls).
    Raises HeedfulError for a price below 0.
    """
    for name, price in (prices or {}).items():
        if not (_finite(price) and min(price) >= 0):
            raise HeedfulError(f"the price of {name} is {price}; give 0 or more for a million tokens")
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    folder = run.path(FOLDER)
    for path in sorted(folder.rglob("*.jsonl")):
        role = path.relative_to(folder).with_suffix("").as_posix()
        for line, _ in _lines(path):
            for entry in line.get("calls", [line]):
                row = rows.setdefault(
                    (role, entry["model"]), dict.fromkeys((*_COUNTS, *_TOKENS, "uncounted"), 0)
                )
                if "cached" in entry:
                    row["cached"] += entry["cached"]
                    continue
                row["calls"] += 1
                row["retried"] += entry["attempt"] > 0
                row["unparsable"] += not entry["readable"]
                row["cut"] += entry["cut"]
                row["uncounted"] += any(entry[name] is None for name in _TOKENS)
                for name in _TOKENS:
                    row[name] += entry[name] or 0
    table: list[dict[str, Any]] = []
    for (role, model), row in rows.items():
        price = (prices or {}).get(model)
        cost = None
        if price is not None and not row["uncounted"]:
            cost = (row["prompt_tokens"] * price[0] + row["completion_tokens"] * price[1]) / 1e6
        table.append({"role": role, "model": model, **row, "cost": cost})
    return table


def _entry(
    policy: Any, key: str, question: Any, answer: Any, spent: Spent, attempt: int, readable: bool
) -> Entry:
    facts = {"key": key, "model": _model(policy), "question": question, "answer": answer}
    return facts | {"attempt": attempt, "readable": readable, **spent._asdict()}


def _finite(values: Sequence[float]) -> bool:
    return all(map(math.isfinite, values))


def _lines(path: Path, start: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Each line from byte `start` on that `Calls` has written, whole, and the byte after it."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        stream.seek(start)
        for data in stream:
            start += len(data)
            try:
                line = json.loads(data)
            except ValueError:
                continue
            if isinstance(line, dict) and ("calls" in line or line.keys() == {"model", "cached"}):
                entries = line.get("calls", [])
                if isinstance(entries, list) and all(
                    isinstance(e, dict) and e.keys() >= _FIELDS for e in entries
                ):
                    yield line, start


# ---- whatever writes text: a local model, a served one, a test's table


def _model(policy: Any) -> str:
    """The name in the table."""
    return getattr(policy, "model", "") or getattr(policy, "source", "") or type(policy).__name__


def _rendered(policy: Any, question: Prompt) -> Any:
    """What the model sees of a question, as far as that is known here."""
    if hasattr(policy, "encoder"):
        return policy.encoder.render(question)
    return [getattr(policy, "template", ""), question]


def _spent(policy: Any, question: Prompt, output: Any) -> Spent:
    from heedful.policies.remote import Spent

    if not hasattr(policy, "encoder"):
        return Spent(None, None, 0)
    return Spent(len(policy.encoder.prompt(question)), len(output.ids), int(not output.finished))
