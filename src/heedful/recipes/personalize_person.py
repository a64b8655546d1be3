"""What is known of a person after their labels: for the report, for the terminal and for programs.

Letters: K heads, n labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heedful.atomic import write_file
from heedful.evals.texts import prompt_text
from heedful.judges.reweighting_diagnosis import ARMS, ENOUGH, Diagnosis
from heedful.model_folder import read_json
from heedful.recipes.audit_advice import percent
from heedful.recipes.audit_report import plain
from heedful.recipes.personalize_pairs import TIE
from heedful.recipes.personalize_store import LABELS, Person, open_person
from heedful.recipes.personalize_targets import ARM_NAMES
from heedful.report import write_report

if TYPE_CHECKING:
    from heedful.judges.personal import PersonalReward

PAGE = "page.json"
"""The page of the fit; that of the person is made of it anew after every change."""
HEAVIEST, SHOWN = 10, 100


def state(person: Person) -> dict[str, Any]:
    """What is known of the person, as `heedful personalize adapt --json` prints it."""
    reward = person.reward
    told = reward.diagnose()
    silent = ("accuracy_uniform", "loss_uniform") if comes_both_ways(person) else ()
    return {
        "labels": len(person.labels),
        "heads": len(reward.heads_),
        "effective_heads": reward.effective_heads_,
        "used": told.used,
        "why": told.why,
        "figures": plain({name: value for name, value in told.figures.items() if name not in silent}),
        "weights": {name: float(w) for name, w in heaviest(reward, len(reward.heads_))},
        "doubts": _doubts(told),
    }


def _doubts(told: Diagnosis) -> list[str]:
    """What must be seen before the reward is relied on."""
    right = told.figures.get(f"accuracy_{told.used}")
    if right is None or told.figures["labels"] < ENOUGH or right > 0.5:
        return []
    return [
        f"What is used is right on {percent(right)} of the labels when they are left out, no better than chance: give "
        "more labels before you rely on it."
    ]


def heaviest(reward: PersonalReward, count: int) -> list[tuple[str, float]]:
    """The heads with the largest weights, by name."""
    weights = reward.weights_
    order = np.argsort(-weights, kind="stable")[:count]
    return [(reward.heads_[i], float(weights[i])) for i in order]


def effective_by_label(person: Person) -> list[tuple[float, float]]:
    """(labels, effective heads) after each label, in order."""
    from heedful.judges.reweighting import Reweighting

    reward = person.reward
    weights = Reweighting(len(reward.heads_), loss=reward.loss, temperature=reward.temperature)
    points = [(0.0, weights.effective_heads)]
    for n, (first, second, label) in enumerate(reward.labels_, start=1):
        margin = reward.head_scores(first[None]) - reward.head_scores(second[None])
        weights.add(margin, [2 * label - 1 if reward.loss == "squared" else label])
        points.append((float(n), weights.effective_heads))
    return points


def comes_both_ways(person: Person) -> bool:
    """Whether the fit found that its heads come both ways: nothing is then said of their mean, which is rounding."""
    path = person.run / "fit.json"
    return path.exists() and bool(read_json(path).get("both_ways"))


def renew_page(person: Person) -> None:
    """Write the report again where labels came after it, from wherever; the fit itself writes the first one."""
    labels, page = person.run / LABELS, person.run / "report.html"
    if not labels.exists() or not (person.run / PAGE).exists():
        return
    if not page.exists() or page.stat().st_mtime_ns <= labels.stat().st_mtime_ns:
        write_page(person.run, person)


def write_page(folder: Path, person: Person | None = None) -> None:
    """Write report.json and report.html: the page of the fit, with the person's part in front when there are labels."""
    page = read_json(folder / PAGE)
    if person is None and (folder / LABELS).exists():
        person = open_person(folder)
    if person is not None and person.labels:
        page = _personal(page, person)
    write_file(folder / "report.json", (json.dumps(page, ensure_ascii=False, indent=1) + "\n").encode())
    write_report(folder)


def _personal(page: dict[str, Any], person: Person) -> dict[str, Any]:
    now = state(person)
    figures = now["figures"]
    said = [
        f"{now['labels']} labels leave {now['effective_heads']:.1f} of {now['heads']} heads.",
        f"Used: {ARM_NAMES[now['used']]}. Why: {now['why']}.",
    ]
    arms = [
        [
            ARM_NAMES[arm] + (" (used)" if arm == now["used"] else ""),
            percent(figures.get(f"accuracy_{arm}", float("nan"))),
            f"{figures[f'loss_{arm}']:.3f}" if f"loss_{arm}" in figures else "–",
        ]
        for arm in ARMS
    ]
    tables = [
        {
            "title": "Will reweighting help?",
            "note": f"each label in turn is left out and predicted from the others; {now['why']}",
            "columns": ["", "accuracy", "Brier loss"],
            "rows": arms,
        },
        {
            "title": "The heaviest heads",
            "columns": ["head", "weight"],
            "rows": [[name, f"{weight:.3f}"] for name, weight in heaviest(person.reward, HEAVIEST)],
        },
    ]
    weights = sorted(person.reward.weights_.tolist(), reverse=True)
    curves = [
        {"title": "Weights of the heads", "bars": weights, "x": "heads, the heaviest first"},
        {
            "title": "Effective number of heads",
            "lines": {"effective heads": effective_by_label(person)},
            "x": "labels",
            "note": "1 / sum of squared weights, after each label in turn",
        },
    ]
    return page | {
        "title": "Personal reward model, adapted",
        "warnings": [*now["doubts"], *page["warnings"]],
        "summary": [*said, *page["summary"]],
        "tables": [*tables, *page["tables"]],
        "curves": curves,
        "samples": [_sample(person, id, label) for id, label in list(person.labels.items())[-SHOWN:]],
        "columns": ["preferred", "not preferred"],
    }


def _sample(person: Person, id: str, label: float) -> dict[str, Any]:
    row = person.row(id)
    better, worse = ("second", "first") if label == 0 else ("first", "second")
    return {
        "input": row["prompt"],
        "before": {"text": row[better]},
        "after": {"text": row[worse]},
        "group": "labelled",
        "outcome": "tie" if label == TIE else "win",
        "label": f"{id}: " + ("a tie" if label == TIE else f"the {better} answer is better"),
    }


def in_words(person: Person, new: int | None = None, given: int | None = None) -> str:
    """What `heedful personalize adapt` prints."""
    now = state(person)
    lines = []
    if new is not None and given is not None:
        known = given - new
        lines.append(
            f"{new} new label(s)" + (f", {known} known already and not counted again" if known else "")
        )
    lines += [
        f"labels:          {now['labels']}",
        f"effective heads: {now['effective_heads']:.1f} of {now['heads']}",
        f"used:            {ARM_NAMES[now['used']]}",
        f"why:             {now['why']}",
        "heaviest heads:",
        *(f"  {weight:.3f}  {_bar(weight)}  {name}" for name, weight in heaviest(person.reward, 5)),
        *(f"warning: {doubt}" for doubt in now["doubts"]),
    ]
    return "\n".join(lines)


def _bar(weight: float) -> str:
    return ("#" * round(20 * weight)).ljust(20)


def shown_pair(row: Mapping[str, Any], width: int = 600) -> str:
    """A pair for a terminal."""
    from heedful.data.problems import printable

    def cut(text: str) -> str:
        lines = [printable(line) for line in text[:width].splitlines()]
        return "\n    ".join(lines) + (" …" if len(text) > width else "")

    return "\n".join(
        [
            f"{row['id']}",
            f"  prompt: {cut(prompt_text(row['prompt']))}",
            f"  first:  {cut(row['first'])}",
            f"  second: {cut(row['second'])}",
        ]
    )
