"""Generated pairs of people with two tastes, brief and long answers, for the tests of personalisation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

PLAIN = [f"word{i}" for i in range(60)]
GOOD, BAD = ["clear", "true", "useful"], ["vague", "false", "empty"]
WHO = ("brief", "wordy")


def crowd(count: int, *, seed: int = 0, who: tuple[str, ...] = WHO, prompts: int = 0) -> list[dict[str, Any]]:
    """Pairs labelled by people in turn: `brief` prefers the shorter answer, `wordy` the longer one, `good` the one with
    good words; half of the pairs differ in length and half in words, and who has no opinion goes by the good words.

    prompts: how many different ones; 0 gives each pair its own.
    """
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        short, long = sorted(rng.choice(np.arange(4, 40), 2, replace=False).tolist())
        texts = [
            " ".join([*rng.choice(PLAIN, n - 1), rng.choice(GOOD if rng.random() < 0.5 else BAD)])
            for n in (short, long)
        ]
        person = who[i % len(who)]
        first = {"brief": True, "wordy": False, "good": texts[0].split()[-1] in GOOD}[person]
        chosen, rejected = texts if first else texts[::-1]
        number = i % prompts if prompts else i
        row = {
            "prompt": f"Question {number} of seed {seed}?",
            "chosen": chosen,
            "rejected": rejected,
            "who": person,
        }
        made.append(row)
    return made


def label_of(row: Mapping[str, Any], who: str = "brief") -> int:
    """What a person says of a pool pair: 1 where the first answer is better."""
    shorter = len(row["first"].split()) < len(row["second"].split())
    return int(shorter == (who == "brief"))


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """The rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
