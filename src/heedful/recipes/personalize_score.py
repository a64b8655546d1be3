"""`heedful personalize score`: the personal reward of every row of a file, and how often it agrees with its labels.

Pairs that the person labelled, pairs of the same prompts, and pairs whose prompts the heads were trained on are scored
too, but no accuracy is taken on them.

Letters: n rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from heedful.atomic import write_file
from heedful.data.normalise import kind_of
from heedful.data.problems import HUB, printable
from heedful.data.rows import Rows, open_rows, prompt_key, read
from heedful.errors import HeedfulError
from heedful.evals.intervals import Interval, paired_bootstrap, share
from heedful.judges.probes import Array
from heedful.judges.reweighting_diagnosis import Used
from heedful.recipes.audit_report import plain
from heedful.recipes.personalize_data import TRAINED
from heedful.recipes.personalize_labels import scored_sides
from heedful.recipes.personalize_pairs import read_arrays
from heedful.recipes.personalize_person import comes_both_ways
from heedful.recipes.personalize_scores import scores_in
from heedful.recipes.personalize_store import Person

BATCH = 256
"""Rows featurised together."""


@dataclass
class Right:
    """Whether each arm agrees with a pair's label, 1, 0 or a half, by prompt; pairs left out of it are counted."""

    prompts: list[bytes] = field(default_factory=list)
    arms: dict[str, list[float]] = field(
        default_factory=lambda: {"personal": [], "uniform": [], "single": []}
    )
    labelled: int = 0
    trained: int = 0

    def summary(self, both_ways: bool) -> dict[str, Any]:
        """Accuracies with intervals over prompts, and what the personal reward gains.

        both_ways: heads come both ways, so that their uniform mean is rounding and nothing is said of it.
        """
        left = {"left_out_labelled": self.labelled, "left_out_trained": self.trained}
        if not self.prompts:
            return {"accuracy": None, "tested": 0, **left}
        grouped: dict[str, list[list[float]]] = {}
        for arm, values in self.arms.items():
            groups: dict[bytes, list[float]] = {}
            for prompt, value in zip(self.prompts, values, strict=True):
                groups.setdefault(prompt, []).append(value)
            grouped[arm] = list(groups.values())
        found: dict[str, Interval] = {arm: share(groups) for arm, groups in grouped.items()}
        told: dict[str, Any] = {"accuracy": plain(found["personal"])}
        for arm in ("single",) if both_ways else ("uniform", "single"):
            told[f"accuracy_{arm}"] = plain(found[arm])
            told[f"gain_over_{arm}"] = plain(paired_bootstrap(grouped[arm], grouped["personal"]))
        return told | {"tested": len(self.prompts), **left}


def score_file(
    person: Person,
    file: str,
    out: str,
    columns: Mapping[str, str],
    *,
    drop_faulty: bool = False,
) -> dict[str, Any]:
    """Score a file of pairs or of prompts with completions and write the rows with their scores to `out`, JSONL.

    A pair gets chosen_score, rejected_score, probability (that the person prefers the chosen answer) and left_out
    (labelled, trained or null: why no accuracy is taken on it); a completion gets score. Returns the counts, and for
    pairs the accuracies. Raises HeedfulError listing everything wrong in the file.
    """
    if not file.startswith(HUB) and Path(out).expanduser().absolute() == Path(file).expanduser().absolute():
        raise HeedfulError(printable(f"--out {out} would write over the file that is read"))
    rows = open_rows(file, _kind(file, columns), columns=columns, drop_faulty=drop_faulty)
    pairs = "chosen" in rows[0] if len(rows) else False
    person.refresh()
    right, lines = Right(), []
    for numbers in _batches(len(rows)):
        some = [rows[i] for i in numbers]
        made = _pairs(person, rows, numbers, some, right) if pairs else _answers(person, rows, numbers, some)
        lines += [json.dumps(row | more, ensure_ascii=False) + "\n" for row, more in zip(some, made)]
    write_file(Path(out).expanduser(), "".join(lines).encode())
    told: dict[str, Any] = {"rows": len(rows), "left_out_faulty": rows.report.faulty_rows, "out": str(out)}
    told["used"] = person.reward.diagnose().used
    return told | (right.summary(comes_both_ways(person)) if pairs else {})


def _kind(file: str, columns: Mapping[str, str]) -> str:
    """preference or prompt_completion, by the first row. Raises HeedfulError when it is neither."""
    from heedful.data.formats import cannot_open

    fault = cannot_open(file)
    if fault:
        raise HeedfulError(printable(f"{file}: {fault}"))
    first = next(iter(read(file)), None)
    if first is None:
        raise HeedfulError(printable(f"{file}: has no rows"))
    kind = kind_of(first, columns)
    if kind in (None, "prompt"):
        names = ", ".join(list(first)[:8])
        raise HeedfulError(
            printable(
                f"{file}: rows with prompt, chosen and rejected, or with prompt and completion, are needed; the first "
                f"row has {names or 'no columns'} (see --columns)"
            )
        )
    return "preference" if kind == "preference" else "prompt_completion"


def _batches(count: int) -> Iterator[range]:
    for at in range(0, count, BATCH):
        yield range(at, min(count, at + BATCH))


def _pairs(
    person: Person, rows: Rows, numbers: range, some: list[dict[str, Any]], right: Right
) -> Iterator[dict[str, Any]]:
    """What is added to each pair."""
    if person.features().how.name == "scores":
        sides = [
            dict(scored_sides(row, person.reward.heads_, rows.where(i))) for i, row in zip(numbers, some)
        ]
        chosen, rejected = (np.stack([side[name] for side in sides]) for name in ("chosen", "rejected"))
    else:
        chosen, rejected = person.features().of_pairs(
            [(row["prompt"], row["chosen"], row["rejected"]) for row in some]
        )
    reward = person.reward
    used: dict[str, Used | None] = {"personal": None, "uniform": "uniform", "single": "single"}
    margins = {arm: reward.predict(chosen, way) - reward.predict(rejected, way) for arm, way in used.items()}
    scores = reward.predict(chosen), reward.predict(rejected)
    probability = reward.probability(chosen, rejected)
    known, trained = _labelled_prompts(person), _trained_prompts(person)
    for at, row in enumerate(some):
        key = prompt_key(row["prompt"])
        why = "labelled" if key in known else None
        if why is None and int.from_bytes(key[:8], "little") in trained:
            why = "trained"
        if why is None:
            right.prompts.append(key)
            for arm, values in margins.items():
                right.arms[arm].append(float(0.5 * (1 + np.sign(values[at]))))
        else:
            setattr(right, why, getattr(right, why) + 1)
        yield {
            "chosen_score": float(scores[0][at]),
            "rejected_score": float(scores[1][at]),
            "probability": float(probability[at]),
            "left_out": why,
        }


def _answers(
    person: Person, rows: Rows, numbers: range, some: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """What is added to each completion."""
    if person.features().how.name == "scores":
        found: Array = np.stack(
            [
                scores_in(row, "scores", rows.where(i), person.reward.heads_)[0]
                for i, row in zip(numbers, some)
            ]
        )
    else:
        found = person.features().of_answers([(row["prompt"], row["completion"]) for row in some])
    return ({"score": float(value)} for value in person.reward.predict(found))


def _labelled_prompts(person: Person) -> set[bytes]:
    return {prompt_key(person.row(id)["prompt"]) for id in person.labels}


def _trained_prompts(person: Person) -> set[int]:
    """The hashes that a fit has kept of the prompts it trained on."""
    path = person.run / TRAINED
    if not path.exists():
        return set()
    return set(read_arrays(path)["prompts"].view(np.uint64).tolist())


def in_words(told: Mapping[str, Any]) -> str:
    """The result as `heedful personalize score` prints it."""
    from heedful.recipes.personalize_report import shown, shown_points
    from heedful.recipes.personalize_targets import ARM_NAMES

    lines = [
        f"scored {told['rows']:,} rows with the {ARM_NAMES[told['used']]}: {printable(str(told['out']))}"
    ]
    if told["left_out_faulty"]:
        lines.append(f"faulty rows left out: {told['left_out_faulty']:,}")
    if "tested" in told:
        left = f"{told['left_out_labelled']} labelled, {told['left_out_trained']} trained on"
        if told["accuracy"] is None:
            lines.append(
                f"accuracy: none can be given; the prompts of all pairs were seen ({left}, by prompt)"
            )
        else:
            lines += [
                f"accuracy on {told['tested']:,} pairs (left out by prompt: {left})",
                f"  personal reward  {shown(told['accuracy'])}",
            ]
            for arm, name in (("uniform", "uniform mean"), ("single", "single head ")):
                if f"accuracy_{arm}" in told:
                    gain = shown_points(told[f"gain_over_{arm}"])
                    lines.append(
                        f"  {name}     {shown(told[f'accuracy_{arm}'])}; personal less this: {gain} points"
                    )
    return "\n".join(lines)
