"""One pass over each file of an audit: what is wrong in it, and a fingerprint of every pair.

An answer that equals its rival, and answers to different prompts, are findings of an audit and not errors: such pairs
are counted, learned from by nobody, and dropped by --clean. What else `heedful check` calls an error stops it.

Letters: N rows of a file, P distinct prompts, H hashes of a signature.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heedful.data import quality
from heedful.data.formats import Item, cannot_open, scan
from heedful.data.normalise import normalise
from heedful.data.problems import HUB, Problem, format_of, printable
from heedful.data.quality.profile import language, languages
from heedful.data.validate import Checker, Report, listed
from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.run import Run

USABLE, IDENTICAL, MISMATCH, FAULTY = 0, 1, 2, 3
FINDINGS = {
    "equals rejected": IDENTICAL,
    "messages after the prompt": MISMATCH,
    "do not begin with the same": MISMATCH,
}
"""Parts of the messages of `normalise` that are findings here."""
Tell = Callable[[int], None]


@dataclass
class Survey:
    """A file's rows as fingerprints, all (N,) but words and characters (N, 2), chosen first.

    line: its place in the file. state: USABLE, IDENTICAL, MISMATCH or FAULTY. prompt, high, low: hashes of the prompt
    and of the whole pair; side: which of its answers, put in order, is the chosen one. language: place in
    `languages()`. signature (P, H) belongs to the prompts signed (P,). A row that is not usable has zeros.
    """

    file: str
    line: NDArray[np.int64]
    state: NDArray[np.uint8]
    prompt: quality.Keys
    high: quality.Keys
    low: quality.Keys
    side: NDArray[np.bool_]
    words: NDArray[np.int32]
    characters: NDArray[np.int32]
    language: NDArray[np.uint8]
    signed: quality.Keys
    signature: NDArray[np.uint32]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which rows can be learned from."""
        return self.state == USABLE

    def of(self, name: str) -> Any:
        """An array without the rows that cannot be used."""
        return getattr(self, name)[self.usable]


ARRAYS = {
    "line": "q",
    "state": "B",
    "prompt": "Q",
    "high": "Q",
    "low": "Q",
    "side": "B",
    "words": "i",
    "characters": "i",
    "language": "B",
    "signed": "Q",
    "signature": "I",
}


class Surveyor(Checker):
    """A checker that also takes fingerprints; `arrays` holds them flat."""

    def __init__(self, file: str, columns: Mapping[str, str], *, drop_faulty: bool = False) -> None:
        super().__init__(file, "preference", columns)
        self._drop = drop_faulty
        self.arrays = {name: array(code) for name, code in ARRAYS.items()}
        self._found: list[Problem] = []
        self._seen: set[int] = set()
        self._code = {name: i for i, name in enumerate(languages())}

    def add(self, problem: Problem) -> None:
        """Keep a problem back until the whole row is known."""
        self._found.append(problem)

    def take(self, item: Item) -> bool:
        """Check the next item and take its fingerprint; whether it is a row without errors."""
        self._found = []
        good = super().take(item)
        errors = [problem for problem in self._found if problem.severity == "error"]
        states = {next((s for part, s in FINDINGS.items() if part in p.message), None) for p in errors}
        if errors and None not in states and item.row is not None:
            self._row(item.line, max(state for state in states if state is not None))
            self._found = [problem for problem in self._found if problem.severity != "error"]
            self.report.faulty_rows -= 1
        elif errors and item.row is not None and self._drop:
            self._row(item.line, FAULTY)
            self._found = [problem for problem in self._found if problem.severity != "error"]
        for problem in self._found:
            super().add(problem)
        return good

    def _row(self, line: int, state: int) -> None:
        for name in ("prompt", "high", "low", "side", "language"):
            self.arrays[name].append(0)
        for name in ("words", "characters"):
            self.arrays[name].extend((0, 0))
        self.arrays["line"].append(line)
        self.arrays["state"].append(state)

    def _measure(self, line: int, row: Mapping[str, Any]) -> None:
        prompt, chosen, rejected = row["prompt"], row["chosen"], row["rejected"]
        asked = _asked(prompt)
        key = int.from_bytes(hashlib.blake2b(asked, digest_size=8).digest(), "little")
        ordered = sorted((chosen, rejected))
        whole = hashlib.blake2b(json.dumps(ordered).encode() + asked, digest_size=16).digest()
        a = self.arrays
        a["line"].append(line)
        a["state"].append(USABLE)
        a["prompt"].append(key)
        a["high"].append(int.from_bytes(whole[:8], "little"))
        a["low"].append(int.from_bytes(whole[8:], "little"))
        a["side"].append(chosen > rejected)
        a["words"].extend((len(chosen.split()), len(rejected.split())))
        a["characters"].extend((len(chosen), len(rejected)))
        a["language"].append(self._code[language(chosen)])
        if key not in self._seen:
            self._seen.add(key)
            said = prompt if isinstance(prompt, str) else "\n".join(m["content"] for m in prompt)
            a["signed"].append(key)
            a["signature"].frombytes(quality.signature(said).tobytes())

    def _repeats(self) -> Iterator[tuple[int, int, bool]]:
        """None: the audit counts repeats itself."""
        return iter(())

    def close(self) -> dict[str, NDArray[Any]]:
        """The arrays in their shapes, after the last item; `report` is complete then."""
        self._found = []
        self.finish()
        for problem in self._found:
            super().add(problem)
        shaped = {name: np.frombuffer(a, np.dtype(ARRAYS[name])).copy() for name, a in self.arrays.items()}
        for name in ("words", "characters"):
            shaped[name] = shaped[name].reshape(-1, 2)
        shaped["signature"] = shaped["signature"].reshape(-1, quality.HASHES)
        return shaped


def _asked(prompt: Any) -> bytes:
    """What a prompt is told apart by: one message of a user is the same as its text alone."""
    if not isinstance(prompt, str) and len(prompt) == 1 and prompt[0]["role"] == "user":
        prompt = prompt[0]["content"]
    return json.dumps(prompt, sort_keys=True).encode()


def survey(
    files: list[str],
    columns: Mapping[str, str],
    run: Run,
    *,
    drop_faulty: bool = False,
    tell: Tell | None = None,
) -> list[Survey]:
    """Survey files, each once per run folder. drop_faulty: rows that can be read and have an error are counted and left
    out instead of stopping it.

    Raises HeedfulError listing what is wrong in all of them, and when one has no pair that can be used.
    """
    reports, found = [], []
    for i, file in enumerate(files):
        name = f"survey/{i}.safetensors"
        if not run.path(name).exists():
            surveyor = _look(file, columns, drop_faulty, tell)
            arrays = surveyor.close()
            reports.append(surveyor.report)
            if surveyor.report.errors:
                continue
            keep(run, name, lambda arrays=arrays: arrays)
        found.append(Survey(file, **_typed(keep(run, name, dict))))
    if any(report.errors for report in reports):
        raise HeedfulError(listed(Report(reports), "error"))
    for one in found:
        if not one.usable.any():
            raise HeedfulError(
                printable(f"{one.file}: no pair of it can be used: all are identical, mismatched or faulty")
            )
    return found


def _look(file: str, columns: Mapping[str, str], drop_faulty: bool, tell: Tell | None) -> Surveyor:
    fault = cannot_open(file)
    if fault:
        raise HeedfulError(printable(f"{file}: {fault}"))
    surveyor = Surveyor(file, columns, drop_faulty=drop_faulty)
    for count, item in enumerate(scan(file), start=1):
        surveyor.take(item)
        if tell is not None and count % 20_000 == 0:
            tell(count)
    return surveyor


def _typed(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Unsigned again, as safetensors of torch holds signed numbers."""
    return {
        name: found.astype(bool) if name == "side" else found.view(np.dtype(ARRAYS[name]))
        for name, found in arrays.items()
    }


def keep(run: Run, name: str, make: Callable[[], Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """`run.once` for arrays: made the first time, read back every time."""
    import torch

    def tensors() -> dict[str, Any]:
        return {key: torch.from_numpy(np.ascontiguousarray(_signed(value))) for key, value in make().items()}

    return {key: tensor.numpy() for key, tensor in run.once(name, tensors).items()}


def _signed(value: NDArray[Any]) -> NDArray[Any]:
    return value.view(f"i{value.itemsize}") if value.dtype.kind == "u" and value.itemsize > 1 else value


def usable_pairs(one: Survey, columns: Mapping[str, str]) -> Iterator[tuple[Any, str, str]]:
    """(prompt, chosen, rejected) of the usable rows, in order, read again from the file."""
    for _, pair in pairs_of(one, columns, one.usable):
        yield pair


def pairs_of(
    one: Survey, columns: Mapping[str, str], wanted: NDArray[np.bool_]
) -> Iterator[tuple[int, tuple[Any, str, str]]]:
    """(number of the row, (prompt, chosen, rejected)) of the wanted rows, a mask (N,) of usable ones, in order.

    Raises HeedfulError when the file is another one by now.
    """
    text = format_of(one.file).startswith("csv")
    for number, raw in rows_of(one, wanted):
        row = normalise(raw, "preference", columns, text=text).row
        yield number, (row["prompt"], row["chosen"], row["rejected"])


def rows_of(one: Survey, wanted: NDArray[np.bool_] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of the row, row as it is in the file) in order, of the wanted rows, a mask (N,), or of all.

    Raises HeedfulError when the file is another one by now.
    """
    number = -1
    for item in scan(one.file):
        if item.row is None:
            continue
        number += 1
        if number >= len(one.line) or item.line != one.line[number]:
            raise HeedfulError(printable(f"{one.file}: has changed since it was read; start again"))
        if wanted is None or wanted[number]:
            yield number, item.row


def content_of(file: str) -> str:
    """What features of a file are kept under: its content, or a Hub data set's name."""
    from pathlib import Path

    from heedful.manifest import sha256_of

    return file if file.startswith(HUB) else str(sha256_of(Path(file)))
