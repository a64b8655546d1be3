"""`heedful audit --clean OUT.jsonl`: the rows that are kept, and beside them the dropped ones with their reasons."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heedful.atomic import appearing
from heedful.data import quality
from heedful.data.problems import place
from heedful.recipes.audit_learn import Learned, Split
from heedful.recipes.audit_measure import label_confidence
from heedful.recipes.audit_survey import FAULTY, IDENTICAL, MISMATCH, USABLE, Survey, rows_of

if TYPE_CHECKING:
    from heedful.recipes.audit import Config


def dropped_path(out: str) -> Path:
    """Where the dropped rows of a cleaned file go."""
    return Path(out).with_suffix(".dropped.jsonl")


def reasons(cfg: Config, one: Survey, rows: Split, learned: Learned) -> list[tuple[str, str]]:
    """(kind, reason) of each row of the file, ("", "") for those that stay.

    The first pair of a repeat stays, and of pairs that contradict each other those of the majority.
    """
    usable = np.flatnonzero(one.usable)
    found = quality.repeats(one.of("high"), one.of("low"), one.of("side"))
    confidence = label_confidence(learned.crossed)
    made = [("", "")] * len(one.line)
    for row, state in enumerate(one.state.tolist()):
        if state == IDENTICAL:
            made[row] = "identical", "chosen and rejected are the same"
        elif state == MISMATCH:
            made[row] = "mismatched", "chosen and rejected answer different prompts"
        elif state == FAULTY:
            made[row] = "faulty", "has errors; heedful check lists them"
    for k, row in enumerate(usable.tolist()):
        if rows.contaminated[k]:
            made[row] = "in_eval", f"the prompt is in the evaluation file {cfg.eval}"
        elif found.outvoted[k]:
            made[row] = "contradictory", "as many pairs or more prefer the other one of these two answers"
        elif found.same_as[k] >= 0:
            first = int(one.line[usable[found.same_as[k]]])
            made[row] = "duplicate", f"the same pair as {place(one.file, first)}"
        elif confidence[k] < cfg.clean_below:
            made[row] = (
                "mislabelled",
                f"likely mislabelled: the cross-validated probe gives it {confidence[k]:.3f}",
            )
    return made


def write(
    cfg: Config,
    surveys: Sequence[Survey],
    splits: Sequence[Split],
    learned: Learned,
) -> dict[str, int]:
    """Write both files, each whole or not at all, and return how many rows were kept and dropped, by reason.

    Raises HeedfulError when one cannot be written, or the audited file has changed.
    """
    one = surveys[0]
    why = reasons(cfg, one, splits[0], learned)
    confidence = dict(
        zip(np.flatnonzero(one.state == USABLE).tolist(), label_confidence(learned.crossed).tolist())
    )
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        kept = stack.enter_context(appearing(Path(cfg.clean)))
        dropped = stack.enter_context(appearing(dropped_path(cfg.clean)))
        for number, raw in rows_of(one):
            kind, reason = why[number]
            counts["dropped" if kind else "kept"] += 1
            if not kind:
                kept.write(_line(raw))
                continue
            counts[kind] += 1
            note: dict[str, Any] = {"line": int(one.line[number]), "kind": kind, "reason": reason}
            if number in confidence:
                note["confidence"] = round(confidence[number], 4)
            dropped.write(_line({**note, "row": raw}))
    return {"kept": 0, "dropped": 0, **counts}


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"
