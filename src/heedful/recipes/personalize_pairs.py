"""Pairs as `heedful personalize` keeps them: an id, an order of the answers that says nothing, a person's label.

Letters: P pairs of the pool, D features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from heedful.data.problems import printable
from heedful.errors import HeedfulError

Array = NDArray[Any]
FIRST, SECOND, TIE = 1.0, 0.0, 0.5
"""Labels: the first answer is better, the second is, neither is."""


def pair_id(prompt: Any, one: str, other: str) -> str:
    """16 hex digits that stand for a prompt and two answers, in whichever order they come."""
    text = json.dumps([prompt, *sorted((one, other))], sort_keys=True).encode()
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def oriented(prompt: Any, one: str, other: str) -> tuple[str, str]:
    """The two answers as (first, second): an order that says nothing of which is better, and is always the same."""

    def key(answer: str) -> bytes:
        return hashlib.blake2b(json.dumps([prompt, answer], sort_keys=True).encode(), digest_size=8).digest()

    return (one, other) if key(one) <= key(other) else (other, one)


@dataclass(frozen=True)
class Label:
    """A person's word on a pair. pair: (prompt, first, second) of one that need not be in the pool. features: those of
    its two answers, (D,) each, where they are known already. where: file, line and field, for errors."""

    id: str
    label: float
    pair: tuple[Any, str, str] | None = None
    features: tuple[Array, Array] | None = None
    where: str = ""


def printable_lines(lines: Sequence[str]) -> str:
    """Messages, one a line, with everything escaped that a terminal would obey."""
    return "\n".join(map(printable, lines))


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a safetensors file. Raises HeedfulError when it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise HeedfulError(
            f"{path} cannot be read ({error}); run the `heedful personalize fit` of this folder again"
        ) from error


def read_pool(path: Path) -> list[dict[str, Any]]:
    """The rows of pool.jsonl. Raises HeedfulError with the line that is damaged."""
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            row = json.loads(line)
            if not all(isinstance(row[key], str) for key in ("id", "first", "second")):
                raise ValueError("id, first and second must be texts")
            rows.append({key: row[key] for key in ("id", "prompt", "first", "second")})
        except (ValueError, KeyError, TypeError) as error:
            raise HeedfulError(f"{path}:{number}: {type(error).__name__}: {error}") from error
    return rows
