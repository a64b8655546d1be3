"""What the page shows of one person, and the two things that it does: take a click, take the last one back.

Letters: K heads, n example answers.
"""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any, get_args

import numpy as np

from heedful.errors import HeedfulError
from heedful.judges.personal import PersonalReward
from heedful.judges.reweighting_queries import Criterion
from heedful.recipes.personalize_pairs import TIE
from heedful.recipes.personalize_person import renew_page
from heedful.recipes.personalize_store import HEADS, Person, open_person
from heedful.report_values import clean, prompt_turns

CRITERIA = (*get_args(Criterion), "random")
EXAMPLES, LOOKED_AT = 8, 2000
"""Answers that are shown in their new order after each click, and those among which they are found."""
SEVERAL = 4
"""Answers to one prompt from which on the examples are those."""
EXCERPT = 600
"""Characters of an example answer."""


class Overtaken(HeedfulError):
    """A click on a page that other clicks have overtaken, in another tab or program."""


class PersonPage:
    """One person's page. Calls from several threads wait for each other.

    run: a folder of `heedful personalize fit`. criterion: which pair is asked about, where the page does not say.
    Raises HeedfulError as `open_person` does.
    """

    def __init__(self, run: Path, criterion: str = "bald") -> None:
        self.person, self.criterion = open_person(run), criterion
        self.name = Path(run).expanduser().resolve().name
        self._examples = pick_examples(self.person)
        self._begun = _places(self._examples, self.person.run / HEADS)
        self._expected: dict[str, float] = {}
        self._lock = threading.RLock()

    def progress(self) -> str:
        """How far this person has come, in words."""
        known, size = len(self.person.labels), len(self.person.pool)
        return f"{known:,} labelled, {size - self._known_in_pool():,} of {size:,} pairs left to ask about"

    def state(self, criterion: str) -> dict[str, Any]:
        """All that the page shows. Raises HeedfulError for an unknown criterion and a damaged labels.jsonl."""
        _check_criterion(criterion)
        with self._lock:
            self.person.refresh()
            reward, labels = self.person.reward, self.person.labels
            diagnosis = reward.diagnose()
            return {
                "run": clean(self.name),
                "criterion": criterion,
                "seen": len(labels),
                "left": len(self.person.pool) - self._known_in_pool(),
                "ties": sum(label == TIE for label in labels.values()),
                "pair": self._pair(criterion),
                "last": self._last(),
                "heads": [
                    {"name": clean(name), "weight": float(weight)}
                    for name, weight in zip(reward.heads_, reward.weights_, strict=True)
                ],
                "effective": reward.effective_heads_,
                "used": diagnosis.used,
                "why": clean(diagnosis.why[:1].upper() + diagnosis.why[1:] + "."),
                "examples": self._ranked(),
            }

    def label(self, id: str, label: float, seen: int, criterion: str) -> dict[str, Any]:
        """Take a click on a pair; it is on disk when this returns the new state.

        Raises Overtaken when the page was not up to date, and HeedfulError as `Person.label` does, or for an unknown
        criterion; nothing is taken then.
        """
        _check_criterion(criterion)
        with self._lock:
            self._up_to_date(seen)
            if id in self.person.labels:
                raise Overtaken("This pair has been answered already, elsewhere. Here is the next one.")
            row = self.person.row(id)
            at = next((i for i, one in enumerate(self.person.pool) if one is row), None)
            if at is not None:
                chance = self.person.reward.probability(
                    self.person.first[at : at + 1], self.person.second[at : at + 1]
                )
                self._expected[id] = float(chance[0])
            self.person.label(id, label)
            return self.state(criterion)

    def undo(self, id: str, seen: int, criterion: str) -> dict[str, Any]:
        """Take the last click back, which was on the pair `id`. Raises Overtaken when it is not the last any more."""
        _check_criterion(criterion)
        with self._lock:
            self._up_to_date(seen)
            if not self.person.labels:
                raise HeedfulError("There is nothing to undo.")
            if next(reversed(self.person.labels)) != id:
                raise Overtaken("The last answer is another one by now. Here is the present state.")
            self.person.undo()
            return self.state(criterion)

    def export(self) -> list[dict[str, Any]]:
        """What the person said, as `Person.export` has it."""
        with self._lock:
            return self.person.export()

    def ended(self) -> None:
        """Bring the run's report up to date with the clicks."""
        with self._lock:
            self.person.refresh()
            renew_page(self.person)

    # ---- inside

    def _up_to_date(self, seen: int) -> None:
        self.person.refresh()
        if seen != len(self.person.labels):
            raise Overtaken(
                "The answers have changed elsewhere (another tab or program). Nothing was counted twice; here is the "
                "present state."
            )

    def _known_in_pool(self) -> int:
        return len(self.person.labels) - len(self.person.own)

    def _pair(self, criterion: str) -> dict[str, Any] | None:
        row = self._random() if criterion == "random" else self.person.next(criterion)
        if row is None:
            return None
        turns = [{"role": role, "text": text} for role, text in prompt_turns(row["prompt"])]
        return {
            "id": row["id"],
            "prompt": turns,
            "first": clean(row["first"]),
            "second": clean(row["second"]),
        }

    def _random(self) -> dict[str, Any] | None:
        """A pair at random, the same one for the same labels: a reload or a restart does not change the question."""
        labels = self.person.labels
        left = [row for row in self.person.pool if row["id"] not in labels]
        return random.Random(json.dumps(list(labels))).choice(left) if left else None

    def _last(self) -> dict[str, Any] | None:
        """The last click: on which pair, and what the reward had expected just before, where that is known."""
        labels = self.person.labels
        if not labels:
            return None
        id = next(reversed(labels))
        row = self.person.row(id)
        asked = prompt_turns(row["prompt"])[-1][1]
        return {
            "id": id,
            "label": labels[id],
            "prompt": asked[:EXCERPT],
            "expected": self._expected.get(id),
        }

    def _ranked(self) -> list[dict[str, Any]]:
        """The example answers, the best first, each with its place before the first click."""
        if not self._examples:
            return []
        scores = self.person.reward.predict(np.stack([one["features"] for one in self._examples]))
        return [
            {
                "number": int(i),
                "prompt": self._examples[i]["prompt"],
                "text": self._examples[i]["text"],
                "score": float(scores[i]),
                "begun": self._begun[i],
            }
            for i in (-scores).argsort(kind="stable")
        ]


def _check_criterion(criterion: str) -> None:
    if criterion not in CRITERIA:
        raise HeedfulError(f"there is no criterion {clean(criterion)!r}; choose one of {', '.join(CRITERIA)}")


def _places(examples: list[dict[str, Any]], heads: Path) -> list[int]:
    """Which place each example had before the first label."""
    if not examples:
        return []
    reward = PersonalReward.load(heads)
    reward.undo(len(reward.labels_))
    scores = reward.predict(np.stack([one["features"] for one in examples]))
    return [int(place) for place in (-scores).argsort(kind="stable").argsort(kind="stable")]


def pick_examples(person: Person) -> list[dict[str, Any]]:
    """Answers of the pool whose order shows what the reward likes, with their features.

    The answers to one prompt where some prompt has SEVERAL, else answers to different prompts that the heads see as
    differently as can be (greedy farthest points of the scores of the heads; Gonzalez 1985).
    """
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    for i, row in enumerate(person.pool[:LOOKED_AT]):
        group = groups.setdefault(json.dumps(row["prompt"], sort_keys=True), {})
        for side, features in (("first", person.first[i]), ("second", person.second[i])):
            asked = prompt_turns(row["prompt"])[-1][1]
            known = {"prompt": asked[:EXCERPT], "text": clean(row[side])[:EXCERPT], "features": features}
            group.setdefault(row[side], known)
    largest = max(groups.values(), key=len, default={})
    if len(largest) >= SEVERAL:
        return list(largest.values())[:EXAMPLES]
    answers = [one for group in groups.values() for one in group.values()]
    prompts = [key for key, group in groups.items() for _ in group]
    if not answers:
        return []
    scores = person.reward.head_scores(np.stack([one["features"] for one in answers]))
    distance = np.square(scores - scores.mean(0)).sum(1)
    chosen: list[int] = []
    while len(chosen) < EXAMPLES and distance.max() > 0:
        chosen.append(int(distance.argmax()))
        nearest = np.square(scores - scores[chosen[-1]]).sum(1)
        distance = nearest if len(chosen) == 1 else np.minimum(distance, nearest)
        distance[[i for i, prompt in enumerate(prompts) if prompt == prompts[chosen[-1]]]] = 0
    return [answers[i] for i in chosen]
