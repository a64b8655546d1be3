"""Saved scores of other reward models, which can be the heads of a personal reward.

JSONL: one answer a row, {"prompt", "completion", "scores"}, where `scores` is a list, or numbers by name; rows are
found by prompt and answer. npz: an array `scores` of shape (N, 2, K) or (2N, K), chosen before rejected, for the N
pairs of the files in order, and perhaps `names` (K,).

Letters: N pairs, K heads.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heedful.data.normalise import normalise
from heedful.data.problems import place, printable, short, what
from heedful.data.rows import Rows
from heedful.errors import HeedfulError
from heedful.recipes.personalize_pairs import Array

LARGEST = float(np.finfo(np.float32).max)


class SavedScores:
    """The scores of answers by K reward models, found by text or by place. Made by `read_scores`."""

    def __init__(
        self,
        file: str,
        names: list[str],
        by_text: Mapping[bytes, Array] | None = None,
        matrix: Array | None = None,
    ) -> None:
        self.file, self.names = file, names
        self._by_text, self._matrix, self._at = by_text, matrix, 0
        self._starts: dict[str, int] = {}

    def place_files(self, files: Sequence[tuple[str, int]]) -> None:
        """Say how many pairs each file has, in order: what the rows of a matrix belong to.

        Raises HeedfulError when the matrix has another number of pairs.
        """
        at = 0
        for name, count in files:
            self._starts[name] = at
            at += count
        if self._matrix is not None and len(self._matrix) != at:
            raise HeedfulError(
                printable(
                    f"{self.file}: scores: there are {len(self._matrix):,} pairs of answers, but the files have {at:,}"
                )
            )

    def of(self, rows: Rows, numbers: Sequence[int], file: str) -> tuple[Array, Array]:
        """The scores of these pairs of a file: (chosen, rejected), (n, K) each.

        Raises HeedfulError naming the first answer that has none.
        """
        if self._matrix is not None:
            some = self._matrix[np.asarray(numbers, np.int64) + self._starts[file]]
            return some[:, 0], some[:, 1]
        found: tuple[list[Array], list[Array]] = ([], [])
        for i in numbers:
            row = rows[i]
            for side, made in zip(("chosen", "rejected"), found, strict=True):
                scores = (self._by_text or {}).get(_key(row["prompt"], row[side]))
                if scores is None:
                    raise HeedfulError(
                        printable(
                            f"{rows.where(i)}: {side}: {self.file} has no scores of this answer (rows are found by "
                            "prompt and completion)"
                        )
                    )
                made.append(scores)
        chosen, rejected = (np.array(made, np.float32).reshape(-1, len(self.names)) for made in found)
        return chosen, rejected


def scores_file(file: str) -> Path:
    """Where a file of saved scores is. Raises HeedfulError where there is none, or its name ends otherwise."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise HeedfulError(printable(f"{file}: there is no such file"))
    if not file.endswith((".npz", ".jsonl", ".jsonl.gz")):
        raise HeedfulError(printable(f"{file}: saved scores are a .jsonl or an .npz file"))
    return path


def read_scores(file: str) -> SavedScores:
    """Read a file of saved scores. Raises HeedfulError with the line or the array that is wrong."""
    path = scores_file(file)
    return _matrix(path) if path.suffix == ".npz" else _rows(str(path))


def _matrix(path: Path) -> SavedScores:
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = dict(found)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise HeedfulError(printable(f"{path}: cannot be read as npz ({error})")) from error
    if "scores" not in arrays:
        raise HeedfulError(printable(f"{path}: has no array `scores`, only {', '.join(arrays) or 'nothing'}"))
    scores = arrays["scores"]
    if scores.dtype.kind not in "iuf":
        raise HeedfulError(printable(f"{path}: scores: numbers are needed, not {scores.dtype}"))
    scores = scores.astype(np.float32)
    if scores.ndim == 2 and len(scores) % 2 == 0:
        scores = scores.reshape(-1, 2, scores.shape[1])
    if scores.ndim != 3 or scores.shape[1] != 2 or scores.shape[2] < 2:
        raise HeedfulError(
            printable(
                f"{path}: scores: the shape is {arrays['scores'].shape}; (pairs, 2, heads) or (2 x pairs, heads) is "
                "needed, with two heads or more"
            )
        )
    if not np.isfinite(scores).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(scores))[0])
        raise HeedfulError(
            printable(f"{path}: scores: pair {at[0] + 1} has a value that is no finite number")
        )
    names = [str(name) for name in arrays.get("names", ())] or _numbered(scores.shape[2])
    if len(names) != scores.shape[2]:
        raise HeedfulError(
            printable(f"{path}: names: there are {len(names)}, but {scores.shape[2]} columns of scores")
        )
    return SavedScores(str(path), names, matrix=scores)


def _rows(file: str) -> SavedScores:
    from heedful.data.formats import scan

    found: dict[bytes, Array] = {}
    names: list[str] = []
    for item in scan(file):
        if item.problems:
            raise HeedfulError(str(item.problems[0]))
        if item.row is None:
            continue
        where = f"{file}:{place(file, item.line)}"
        made = normalise(item.row, "prompt_completion", {})
        errors = [one for one in made.found if one.severity == "error"]
        if errors:
            raise HeedfulError(printable(f"{where}: {errors[0].field}: {errors[0].message}"))
        scores, called = scores_in(item.row, "scores", where, names)
        names = names or called
        key = _key(made.row["prompt"], made.row["completion"])
        if key in found and not np.array_equal(found[key], scores):
            raise HeedfulError(printable(f"{where}: scores: this answer has other scores further up"))
        found[key] = scores
    if not found:
        raise HeedfulError(printable(f"{file}: has no rows"))
    if len(names) < 2:
        raise HeedfulError(printable(f"{file}: scores: two heads or more are needed"))
    return SavedScores(file, names, by_text=found)


def scores_in(
    row: Mapping[str, Any], column: str, where: str, names: Sequence[str]
) -> tuple[Array, list[str]]:
    """The numbers in a column of a row, (K,), in the order of `names` (empty: as they come), and their names.

    Raises HeedfulError with the place when they are missing, no finite numbers, too few, or of other heads.
    """
    value = row.get(column)
    told = printable(f"{where}: {column}: ")
    if isinstance(value, Mapping):
        called = list(map(str, value))
        if names and set(called) != set(names):
            odd = sorted(set(called) ^ set(names))[0]
            raise HeedfulError(f"{told}the heads are other ones than before: {printable(short(odd))!r}")
        called = list(names) or called
        numbers = [value[name] for name in called]
    elif isinstance(value, list):
        numbers, called = value, list(names) or _numbered(len(value))
    else:
        raise HeedfulError(f"{told}a list of numbers, or numbers by name, is needed, not {what(value)}")
    if len(numbers) != len(called):
        raise HeedfulError(f"{told}there are {len(numbers)} scores, but {len(called)} heads")
    for name, number in zip(called, numbers, strict=True):
        if type(number) not in (int, float) or not abs(number) <= LARGEST:
            raise HeedfulError(f"{told}{printable(short(name))} is no finite number of 32 bits")
    return np.array(numbers, np.float32), called


def _numbered(count: int) -> list[str]:
    return [f"head {i + 1}" for i in range(count)]


def _key(prompt: Any, answer: str) -> bytes:
    return hashlib.blake2b(json.dumps([prompt, answer], sort_keys=True).encode(), digest_size=16).digest()
