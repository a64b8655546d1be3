"""The state of one person in a run folder of `heedful personalize`: heads that never change, and a list of labels.

heads/              the fitted heads (`PersonalReward.save`), with the scale that the pool gives them
pool.jsonl          pairs the person may be asked about: id, prompt, first, second
pool.safetensors    features of their answers: first and second, each (P, D)
features.json       how new text becomes features
labels.jsonl        what the person said: {"id", "label": 1 | 0 | 0.5, "time"}, or {"undo": N, "time"}; only appended to
own/                features of labelled pairs that are not in the pool

The person is always rebuilt from heads/ and labels.jsonl, so a crash loses nothing. Several programs may have the same
person open: each reads what the others appended before it does anything.

Letters: P pairs of the pool, D features, K heads.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heedful.atomic import write_file
from heedful.data.problems import printable, short
from heedful.errors import HeedfulError
from heedful.journal import Journal
from heedful.recipes.personalize_pairs import (
    FIRST,
    SECOND,
    TIE,
    Array,
    Label,
    printable_lines,
    read_arrays,
    read_pool,
)

if TYPE_CHECKING:
    from heedful.judges.answer_features import AnswerFeatures
    from heedful.judges.personal import PersonalReward
    from heedful.judges.reweighting_queries import QueryPool

HEADS, POOL, FEATURES, LABELS, OWN = "heads", "pool", "features.json", "labels.jsonl", "own"
HEADS_DONE = f"{HEADS}/personal.json"
"""Written last: without it a kill has left the heads half made."""
ARRAYS_OF_STATE = (f"{HEADS}/heads.safetensors", HEADS_DONE, LABELS)
"""What decides a person's reward of given features."""


class Person:
    """A person: their reward, what they said, and what to ask them next. Made by `open_person`."""

    def __init__(
        self,
        run: Path,
        reward: PersonalReward,
        pool: list[dict[str, Any]],
        first: Array,
        second: Array,
        device: str = "auto",
    ) -> None:
        self.run, self.reward, self.pool, self._device = run, reward, pool, device
        self.first, self.second = first, second
        self.labels: dict[str, float] = {}
        """What they said, by id, in order."""
        self.own: dict[str, dict[str, Any]] = {}
        """Labelled pairs that are not in the pool, as rows of it."""
        self._place = {row["id"]: i for i, row in enumerate(pool)}
        self._own_features: dict[str, tuple[Array, Array]] = {}
        self._lock = threading.RLock()
        self._features: AnswerFeatures | None = None
        self._pool: QueryPool | None = None
        self._journal = Journal(run / LABELS, self._apply)

    # ---- what the person says

    def label(self, id: str, label: float) -> bool:
        """Take a label: 1 the first answer is better, 0 the second, 0.5 neither. False: that very label was known.

        Raises HeedfulError for an id that is not in the pool, for another number, and where the pair has another label
        already (undo it first).
        """
        return self.take([Label(id, label)]) == 1

    def take(self, labels: Sequence[Label]) -> int:
        """Take labels, all or none of them; returns how many were new. What is known already is not counted again.

        Raises HeedfulError naming every label that cannot be taken, with its place.
        """
        return self.change(labels)[1]

    def change(self, labels: Sequence[Label], *, undo: int = 0) -> tuple[list[str], int]:
        """Take the last `undo` labels back and then these, all of it or nothing: (ids taken back, how many were new).

        Raises HeedfulError as `take` does, and where there are fewer labels to take back.
        """
        with self._lock, self._journal.writing_to() as append:
            if undo > len(self.labels):
                raise HeedfulError(
                    f"{undo} labels cannot be taken back: there are only {len(self.labels)} labels"
                )
            gone = list(reversed(self.labels))[:undo]
            new = self._new(labels, gone)
            self._keep_features(new)
            now = round(time.time(), 3)
            events: list[dict[str, Any]] = [{"undo": undo, "time": now}] if undo else []
            for one in new:
                event: dict[str, Any] = {"id": one.id, "label": one.label, "time": now}
                if one.id not in self._place and one.pair is not None:
                    event |= dict(zip(("prompt", "first", "second"), one.pair, strict=True))
                events.append(event)
            if events:
                append(events)
        return gone, len(new)

    def undo(self) -> str | None:
        """Take the last label back and return the id of its pair; None when there is none."""
        with self._lock, self._journal.writing_to() as append:
            if not self.labels:
                return None
            last = next(reversed(self.labels))
            append([{"undo": 1, "time": round(time.time(), 3)}])
        return last

    def refresh(self) -> None:
        """Read what was appended to labels.jsonl since, by this program or another one.

        Raises HeedfulError with the line when the file is damaged.
        """
        with self._lock:
            self._journal.refresh()

    # ---- what to ask

    def next(self, criterion: str = "bald") -> dict[str, Any] | None:
        """The pair of the pool to ask about now; None when all have been."""
        return next(iter(self.ask(1, criterion)), None)

    def ask(self, n: int, criterion: str = "bald") -> list[dict[str, Any]]:
        """The `n` pairs of the pool to ask about next, the most telling first; labelled ones are left out.

        criterion: entropy, bald or variance, under the current weights. Raises HeedfulError for another one.
        """
        with self._lock:
            self.refresh()
            known = [self._place[id] for id in self.labels if id in self._place]
            count = min(n, len(self.pool) - len(known))
            if count < 1:
                return []
            if self._pool is None:
                self._pool = self.reward.query_pool(self.first, self.second)
            chosen = self.reward.query(self._pool, criterion=criterion, batch=count, exclude=known)  # type: ignore[arg-type]
            return [self.pool[i] for i in chosen]

    def knows(self, id: str) -> bool:
        """Whether a pair is in the pool, or was labelled."""
        return id in self._place or id in self.own

    def row(self, id: str) -> dict[str, Any]:
        """A pair by its id, of the pool or labelled. Raises HeedfulError when there is none."""
        with self._lock:
            if id in self._place:
                return self.pool[self._place[id]]
            if id in self.own:
                return self.own[id]
        raise HeedfulError(self._unknown(id))

    # ---- what it is good for

    def export(self) -> list[dict[str, Any]]:
        """What the person said, in order, as rows of heedful's preference format, with id and label beside.

        Ties are left out: the format has none (labels.jsonl keeps them).
        """
        with self._lock:
            self.refresh()
            rows = []
            for id, label in self.labels.items():
                if label != TIE:
                    row = self.row(id)
                    better, worse = ("first", "second") if label == FIRST else ("second", "first")
                    rows.append(
                        {"prompt": row["prompt"], "chosen": row[better], "rejected": row[worse]}
                        | {"id": id, "label": label}
                    )
            return rows

    def featurise(self, prompt: Any, answers: Sequence[str]) -> Array:
        """Features of answers to a prompt, (n, D); the first call loads the model, if there is one.

        Raises HeedfulError where the heads are saved scores: new text has none.
        """
        return self.features().of(prompt, answers)

    def features(self) -> AnswerFeatures:
        """How text becomes features here."""
        from heedful.judges.answer_features import AnswerFeatures

        with self._lock:
            if self._features is None:
                self._features = AnswerFeatures.load(self.run, device=self._device)
            return self._features

    def score(self, prompt: Any, answers: Sequence[str]) -> Array:
        """The personal reward of answers to a prompt, (n,)."""
        with self._lock:
            self.refresh()
            return self.reward.predict(self.featurise(prompt, answers))

    # ---- labels.jsonl

    def _new(self, labels: Sequence[Label], gone: Sequence[str]) -> list[Label]:
        """Those that are not known yet, each once. gone: the ids of labels that count no longer.

        Raises HeedfulError listing all that cannot be taken.
        """
        new: dict[str, Label] = {}
        wrong: list[str] = []
        before = {id: label for id, label in self.labels.items() if id not in gone}
        own = set(self.own) - set(gone)
        for one in labels:
            told = self._refuse(one, before.get(one.id), own)
            if told:
                wrong.append(f"{one.where}: {told}" if one.where else told)
            elif one.id not in before:
                new[one.id] = one
                before[one.id] = one.label
                own.add(one.id)
        if wrong:
            more = f"\nand {len(wrong) - 20} more" if len(wrong) > 20 else ""
            raise HeedfulError(printable_lines(wrong[:20]) + more)
        return list(new.values())

    def _refuse(self, one: Label, before: float | None, own: Container[str]) -> str:
        """Why a label cannot be taken; empty when it can. before: the label that its pair has. own: labelled pairs
        outside the pool."""
        if one.label not in (FIRST, SECOND, TIE) or isinstance(one.label, bool):
            return (
                f"label: {one.label!r} is none of 1 (first is better), 0 (second is better) and 0.5 (neither)"
            )
        if before is not None and before != one.label:
            return f"label: {one.id} has the label {before:g} already, not {one.label:g}; undo that one first"
        if one.id not in self._place and one.id not in own and one.pair is None:
            return f"id: {self._unknown(one.id)}"
        return ""

    def _unknown(self, id: str) -> str:
        return (
            f"there is no pair {short(id)!r} in {self.run / POOL}.jsonl ({len(self.pool):,} pairs); give ids that "
            "`heedful personalize query` prints, or rows with prompt, chosen and rejected"
        )

    def _apply(self, entries: Iterable[tuple[dict[str, Any], str]]) -> None:
        """Lines of labels.jsonl that follow what was applied before."""
        fresh: list[str] = []
        try:
            for event, where in entries:
                self._check(event, where)
                if "undo" in event:
                    for _ in range(event["undo"]):
                        id, _ = self.labels.popitem()
                        if fresh:
                            fresh.pop()
                        else:
                            self.reward.undo(1)
                        self.own.pop(id, None)
                elif event["id"] not in self.labels:
                    if "first" in event:
                        self.own[event["id"]] = {
                            key: event[key] for key in ("id", "prompt", "first", "second")
                        }
                    self.labels[event["id"]] = float(event["label"])
                    fresh.append(event["id"])
        finally:  # the reward keeps step with the labels also where a line further down is damaged
            if fresh:
                sides = [self._features_of(id) for id in fresh]
                first, second = (np.stack([side[i] for side in sides]) for i in (0, 1))
                self.reward.adapt(first, second, np.array([self.labels[id] for id in fresh]))

    def _check(self, event: dict[str, Any], where: str) -> None:
        """Raises HeedfulError for a line that this program would not have written."""
        if not ("undo" in event or {"id", "label"} <= set(event)):
            raise HeedfulError(f"{where}: neither a label (id, label) nor an undo; remove the line")
        if "undo" in event:
            if type(event["undo"]) is not int or not 1 <= event["undo"] <= len(self.labels):
                raise HeedfulError(
                    f"{where}: undo: {event['undo']!r}, with {len(self.labels)} labels before it"
                )
            return
        pair = (event["prompt"], event["first"], event["second"]) if "first" in event else None
        id = str(event["id"])
        told = self._refuse(Label(id, event["label"], pair), self.labels.get(id), self.own)
        if told:
            raise HeedfulError(f"{where}: {told}")

    # ---- features of labelled pairs

    def _features_of(self, id: str) -> tuple[Array, Array]:
        """(first, second) of a labelled pair, (D,) each."""
        if id in self._place:
            at = self._place[id]
            return self.first[at], self.second[at]
        if id not in self._own_features:
            for path in sorted((self.run / OWN).glob("*.safetensors")):
                for name, array in read_arrays(path).items():
                    self._own_features.setdefault(name, (array[0], array[1]))
        if id not in self._own_features:  # the folder was not copied along
            row = self.own[id]
            made = self.featurise(row["prompt"], [row["first"], row["second"]])
            self._own_features[id] = (made[0], made[1])
        return self._own_features[id]

    def _keep_features(self, new: Sequence[Label]) -> None:
        """Features of pairs outside the pool go to disk before their labels do."""
        outside = [
            one
            for one in new
            if one.id not in self._place and (one.features is not None or one.id not in self._own_features)
        ]
        unknown = [one.pair for one in outside if one.features is None and one.pair is not None]
        made = iter(zip(*self.features().of_pairs(unknown), strict=True)) if unknown else iter(())
        arrays = {
            one.id: np.stack(one.features if one.features is not None else next(made)).astype(np.float32)
            for one in outside
        }
        if arrays:
            from safetensors.numpy import save

            name = hashlib.blake2b(json.dumps(sorted(arrays)).encode(), digest_size=8).hexdigest()
            write_file(self.run / OWN / f"{name}.safetensors", save(arrays))
            self._own_features |= {id: (array[0], array[1]) for id, array in arrays.items()}


def open_person(run: str | Path, *, device: str = "auto") -> Person:
    """The person of a run folder that `heedful personalize fit` has written, with all labels so far.

    Raises HeedfulError when there is no such folder, it is another kind of run or unfinished, or a file is damaged.
    """
    from heedful.judges.personal import PersonalReward

    run = Path(run).expanduser()
    needed = (FEATURES, f"{POOL}.jsonl", f"{POOL}.safetensors", HEADS, HEADS_DONE)
    if not run.is_dir():
        raise HeedfulError(printable(f"there is no run folder {run}; make one: heedful personalize fit"))
    missing = [name for name in needed if not (run / name).exists()]
    if missing:
        begun = (run / FEATURES).exists() or (run / f"{POOL}.jsonl").exists()
        told = (
            "is unfinished: run its command again"
            if begun
            else "is no run of `heedful personalize fit`: make one"
        )
        raise HeedfulError(printable(f"{run} {told} ({missing[0]} is missing)"))
    arrays, pool = read_arrays(run / f"{POOL}.safetensors"), read_pool(run / f"{POOL}.jsonl")
    reward = PersonalReward.load(run / HEADS)
    if reward.labels_:
        reward.undo(len(reward.labels_))  # what counts stands in labels.jsonl
    first, second = arrays["first"], arrays["second"]
    if not len(first) == len(second) == len(pool):
        raise HeedfulError(
            f"{run / POOL}.safetensors has {len(first)} pairs, {POOL}.jsonl has {len(pool)}; fit again"
        )
    return Person(run, reward, pool, first, second, device)
