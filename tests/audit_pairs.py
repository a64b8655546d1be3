"""Generated preference pairs whose truth is known, for the tests of the audit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

GOOD = ["clear", "kind", "true", "useful", "warm", "exact"]
BAD = ["vague", "rude", "false", "empty", "cold", "wrong"]
PLAIN = [f"word{i}" for i in range(80)]


def pairs(
    count: int, *, seed: int = 0, flipped: float = 0.0, prompts: int = 0, words: int = 12
) -> list[dict[str, Any]]:
    """Pairs in which the answer with the better word wins; a share of the labels is wrong, and says so in `flipped`.

    prompts: how many different ones; 0 gives each pair its own.
    """
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        number = i % prompts if prompts else i
        sides = []
        for kind in (GOOD, BAD):
            length = int(rng.integers(words // 2, 2 * words))
            text = [*rng.choice(PLAIN, length), *rng.choice(kind, 2)]
            rng.shuffle(text)
            sides.append(" ".join(text))
        wrong = bool(rng.random() < flipped)
        chosen, rejected = sides[::-1] if wrong else sides
        about = " ".join(PLAIN[(number * k + k) % len(PLAIN)] for k in (3, 7, 11, 13))
        made.append(
            {
                "prompt": f"Question {number} of seed {seed} about {about}?",
                "chosen": chosen,
                "rejected": rejected,
                "flipped": wrong,
            }
        )
    return made


def length_pairs(count: int, *, seed: int = 0, share: float = 0.85) -> list[dict[str, Any]]:
    """Pairs of meaningless words in which the longer answer wins so often, and nothing else matters."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        short, long = sorted(rng.choice(np.arange(3, 60), 2, replace=False))
        texts = [" ".join(rng.choice(PLAIN, int(n))) for n in (short, long)]
        right = rng.random() < share
        chosen, rejected = (texts[1], texts[0]) if right else texts
        made.append(
            {"prompt": f"Say something, number {i} of {seed}.", "chosen": chosen, "rejected": rejected}
        )
    return made


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """The rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
