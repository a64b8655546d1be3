"""Free text to a command of a bank: aliases first, then words, then meaning; shown with its runner-up, or refused.

    exact, alias   the text is a command, or known to mean one
    words          the ideas of the text are those of one command (`command_words`)
    meaning        a sentence encoder finds one command near, and no idea of the text speaks against it

A cosine alone never decides on a direction: embeddings hardly tell "move left" from "move right". A text that names
one goes only to commands that name the same, and one that names none never goes to a command that is about nothing
else. How often it is right is measured in tests/test_commands.py, on phrasings written beforehand: 66 of 70 for the
bank whose other phrasings the rules were written from (all since), 35 of 45 for a bank they were not written for,
none of these taken for another command and five taken that were to be refused. Nothing here needs torch; the encoder
is any function from texts to vectors, such as `sentences.Sentences`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from heedful.errors import HeedfulError
from heedful.policies.command_words import MOVE, Ideas, Vocabulary, ideas, normalised

How = Literal["exact", "alias", "words", "meaning", ""]
WEIGHTS = {"way": 2.0, "action": 1.5, "thing": 1.5, "colour": 1.5, "relation": 0.4, "move": 0.9}
UNKNOWN = 0.6
"""What a word that means nothing counts against a match, in the units of `WEIGHTS`."""


@dataclass(frozen=True)
class Snap:
    """What a text was taken for. command: None when it was refused, and `reason` says why.

    score: of the best command, `best`, from 0 to 1, as `how` measures it; runner_up: the one after it. Scores of
    different `how` do not compare.
    """

    words: str
    command: str | None
    how: How
    best: str | None
    score: float
    runner_up: str | None
    runner_up_score: float
    reason: str = ""

    def as_row(self) -> dict[str, Any]:
        """Plain values, for a log."""
        return asdict(self)

    def __str__(self) -> str:
        """One line for the person who spoke."""
        far = self.runner_up_score <= 0
        rival = "" if far or not self.runner_up else f"; next: {self.runner_up} ({self.runner_up_score:.2f})"
        if self.command is None:
            nearest = f"; nearest: {self.best} ({self.score:.2f})" if self.best and self.score > 0 else ""
            return f"{self.words!r} not taken: {self.reason}{nearest}{rival}"
        return f"{self.words!r} -> {self.command} ({self.how}, {self.score:.2f}{rival})"


class Snapper:
    """Takes texts for commands of `bank`.

    aliases: texts and the commands they mean, such as the paraphrases of a narration. embed: texts to vectors (n, E);
    without one, words alone decide. threshold, margin: the least score of a match by words, and the least by which it
    is ahead; near, ahead: the same of a match by meaning, in cosines. Raises HeedfulError for an empty bank, an alias
    of no command, and one that means two.
    """

    def __init__(
        self,
        bank: Sequence[str],
        aliases: Mapping[str, str] | None = None,
        embed: Callable[[Sequence[str]], Any] | None = None,
        *,
        threshold: float = 0.6,
        margin: float = 0.08,
        near: float = 0.55,
        ahead: float = 0.05,
    ) -> None:
        if not bank:
            raise HeedfulError("a command bank needs at least one command")
        self.bank = tuple(dict.fromkeys(bank))
        self.embed = embed
        self.threshold, self.margin, self.near, self.ahead = threshold, margin, near, ahead
        self._known: dict[str, tuple[str, How]] = {}
        for text, command in (aliases or {}).items():
            if command not in self.bank:
                raise HeedfulError(f"the alias {text!r} means {command!r}, which is not in the bank")
            if self._known.setdefault(normalised(text), (command, "alias"))[0] != command:
                raise HeedfulError(f"the alias {text!r} means two commands")
        self._known |= {normalised(command): (command, "exact") for command in self.bank}
        self._vocabulary = Vocabulary.of(self.bank)
        self._ideas = [ideas(command, self._vocabulary) for command in self.bank]
        self._vectors: np.ndarray | None = None

    @property
    def phrases(self) -> tuple[str, ...]:
        """The commands and their aliases, as they are compared: what a recogniser of speech should listen for."""
        return tuple(self._known)

    def __call__(self, words: str) -> Snap:
        """What `words` are taken for."""
        said = normalised(words)
        if not said:
            return self._refused(words, [], "", "nothing was said")
        if said in self._known:
            command, how = self._known[said]
            return Snap(words, command, how, command, 1.0, None, 0.0)
        meant = ideas(words, self._vocabulary)
        if not meant.all and meant.denied:
            return self._refused(words, [], "", "it says only what not to do")
        if len(meant.ways) > 1 and not meant.things:
            return self._refused(words, [], "", f"it names {' and '.join(sorted(meant.ways))}")
        allowed = [i for i in range(len(self.bank)) if may_mean(meant, self._ideas[i])]
        if not allowed:
            return self._refused(words, [], "", "no command says that")
        ranked = self._ranked([overlap(meant, self._ideas[i]) for i in allowed], allowed)
        # more words that mean nothing than words that do: it may well be about something else
        if ranked[0][1] >= self.threshold and meant.unknown <= len(meant.all):
            return self._judged(words, ranked, "words", self.margin)
        if self.embed is None:
            return self._refused(words, ranked, "words", "no command is near enough")
        near = self._ranked((self._of_bank()[allowed] @ self._units([words])[0]).tolist(), allowed)
        if near[0][1] >= self.near:
            return self._judged(words, near, "meaning", self.ahead)
        return self._refused(words, near, "meaning", "no command is near enough")

    def _judged(self, words: str, ranked: list[tuple[str, float]], how: How, margin: float) -> Snap:
        if len(ranked) > 1 and ranked[0][1] - ranked[1][1] < margin:
            return self._refused(words, ranked, how, "two commands are too close")
        return _snap(words, ranked[0][0], how, ranked, "")

    def _refused(self, words: str, ranked: list[tuple[str, float]], how: How, reason: str) -> Snap:
        return _snap(words, None, how, ranked, reason)

    def _ranked(self, scores: Sequence[float], places: Sequence[int]) -> list[tuple[str, float]]:
        """Commands and scores, best first; ties in the order of the bank."""
        order = sorted(range(len(places)), key=lambda i: -scores[i])
        return [(self.bank[places[i]], float(scores[i])) for i in order]

    def _of_bank(self) -> np.ndarray:
        if self._vectors is None:
            self._vectors = self._units(self.bank)
        return self._vectors

    def _units(self, texts: Sequence[str]) -> np.ndarray:
        assert self.embed is not None
        vectors = np.asarray(self.embed(list(texts)), np.float64)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _snap(words: str, command: str | None, how: How, ranked: list[tuple[str, float]], reason: str) -> Snap:
    best, second = (ranked[i] if len(ranked) > i else (None, 0.0) for i in (0, 1))
    return Snap(words, command, how, best[0], best[1], second[0], second[1], reason)


def may_mean(said: Ideas, command: Ideas) -> bool:
    """Whether nothing that was said speaks against a command: ways, turns, actions, things or colours."""
    if command.is_nudge:
        return said.is_nudge and said.ways == command.ways and said.turns == command.turns
    if said.is_nudge or (said.ways and command.ways and not said.ways & command.ways):
        return False
    if said.colours - command.colours or said.things - command.things:
        return False
    said_actions, own = said.actions - {MOVE}, command.actions - {MOVE}
    return not said_actions or bool(said_actions & own)


def overlap(said: Ideas, command: Ideas) -> float:
    """Weighted Dice coefficient of two sets of ideas, from 0 to 1; words that mean nothing count against it."""
    whole = _weight(said) + UNKNOWN * said.unknown + _weight(command)
    shared = sum(_of(idea, command) for idea in said.all & command.all)
    return 2 * shared / whole if whole else 0.0


def _weight(some: Ideas) -> float:
    return sum(_of(idea, some) for idea in some.all)


def _of(idea: str, some: Ideas) -> float:
    if idea == MOVE:
        return WEIGHTS["move"]
    if idea in some.ways | some.turns:
        return WEIGHTS["way"]
    for name, group in (("action", some.actions), ("thing", some.things), ("colour", some.colours)):
        if idea in group:
            return WEIGHTS[name]
    return WEIGHTS["relation"]
