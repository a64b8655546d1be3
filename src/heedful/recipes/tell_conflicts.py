"""Two sentences that get in each other's way: their scopes overlap, and their effects cannot both hold.

Whether scopes overlap is read off their words, without a model. A prompt of one scope counts as lying in another
when a naive Bayes model on the words that occur in a prompt (Maron 1961), fitted to the other's in-scope prompts
against its near-scope and general ones, says so: near-scope prompts differ in one word, so plain word overlap could
not tell an email to a manager from one to a colleague.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.data.problems import printable
from heedful.errors import HeedfulError
from heedful.evals.texts import content_words, prompt_text, words
from heedful.recipes.tell_store import STORE, UNFINISHED, find, names_in, parts_of

if TYPE_CHECKING:
    from heedful.data.scopes import Scope
    from heedful.judges.effects import Effect

ENOUGH = 0.4
"""Share of a scope's prompts inside the other from which the two overlap."""
MARKED = 8.0
"""How much more often than in general prompts a word must occur in a scope to be a mark of it. Both numbers were
chosen on 23 scopes of the grammars: work emails and emails to a boss .77, recipes and cooking questions .40; pairs
that do not overlap at most .35."""
EVERYTHING = frozenset(
    re.findall(
        r"\w+", "all always any anything ask asked answer every everything question request whenever write"
    )
)
NEGATIONS = frozenset(re.findall(r"\w+", "not no never except without unless outside other than but non"))


@dataclass(frozen=True)
class Conflict:
    """Adapters `a` and `b`: how much of one scope lies in the other, how that shows, and why their effects clash."""

    a: str
    b: str
    overlap: float
    where: str
    why: str

    @property
    def warning(self) -> str:
        """One sentence for people."""
        return f"{self.a} and {self.b} clash: {self.where}, and {self.why}"


def conflicts(scopes: Mapping[str, Scope]) -> list[Conflict]:
    """Pairs of scopes that overlap and whose effects clash, by name."""
    found = []
    for a, b in combinations(scopes, 2):
        why = clash(scopes[a].effects, scopes[b].effects)
        if not why:
            continue
        share, where = overlap(scopes[a], scopes[b])
        if share >= ENOUGH:
            found.append(Conflict(a, b, share, where, why))
    return found


def store_conflicts(
    store: Path = STORE, names: Sequence[str] | None = None
) -> tuple[list[Conflict], list[str]]:
    """Conflicts between adapters of a store (all, or those named), and what could not be compared, in sentences.

    A composed adapter has the scopes of its members. Raises HeedfulError for a name that is not there.
    """
    from heedful.data.scopes import read_scope

    adapters = [find(store, name) for name in (names_in(store) if names is None else names)]
    if names is None:
        adapters = [adapter for adapter in adapters if adapter.state != UNFINISHED]
    if len(adapters) < 2:
        return [], []
    scopes: dict[str, dict[str, Scope]] = {}
    unread = []
    for adapter in adapters:
        name = adapter.name
        for part in parts_of(adapter):
            try:
                scope = read_scope(store / part / "scope.yaml")
            except HeedfulError as error:
                first = str(error).splitlines()[0].removesuffix(":")
                unread.append(f"{name} was not compared with the others: {first}")
                continue
            scopes.setdefault(name, {})[part] = scope
            if not scope.effects:
                unread.append(
                    f"{name}: no rule says what it does ({printable(scope.effect)}), so a clash would not show"
                )
    found = []
    for a, b in combinations(scopes, 2):
        for first in scopes[a].items():
            for second in scopes[b].items():
                if first[0] != second[0]:
                    pair = conflicts(dict((first, second)))
                    found += [Conflict(a, b, c.overlap, c.where, c.why) for c in pair]
    return found, list(dict.fromkeys(unread))


# ---- scopes


def overlap(a: Scope, b: Scope) -> tuple[float, str]:
    """The share of one scope that lies in the other (the larger of both ways), and a clause that says so."""
    mine, yours = domain_words(a.domain), domain_words(b.domain)
    if not (words(a.domain) and words(b.domain)) or not (mine and yours):
        return 1.0, "one of them applies to everything"
    same_sign = bool(NEGATIONS & set(words(a.domain))) == bool(NEGATIONS & set(words(b.domain)))
    if same_sign and mine == yours:
        return 1.0, f"both apply to {printable(a.domain)}"
    if same_sign and (mine < yours or yours < mine):
        narrow, wide = (a, b) if yours < mine else (b, a)
        return 1.0, f"{printable(narrow.domain)!r} lies within {printable(wide.domain)!r}"
    shares = [inside(a, b), inside(b, a)]
    outer = b if shares[0] >= shares[1] else a
    inner = a if outer is b else b
    share = max(shares)
    return share, (
        f"{share:.0%} of the prompts about {printable(inner.domain)} read like those about {printable(outer.domain)}"
    )


def domain_words(domain: str) -> frozenset[str]:
    """What a domain is about: its content words in the singular, without words that fit every domain."""
    return frozenset(_stem(word) for word in content_words(domain) if word not in EVERYTHING)


def inside(a: Scope, b: Scope) -> float:
    """The share of a's in-scope test prompts that are worded like b's in-scope ones; 0 where there are none."""
    prompts = [_bag(p) for p in a.test.get("in") or a.train.get("in") or []]
    odds = _odds(b)
    # without a mark of both, the shape of a question alone would put one about dogs among those about space
    marks = {word for word in _marks(a) & _marks(b) if odds[word][0] > 0}

    def belongs(bag: frozenset[str]) -> bool:
        return bool(bag & marks) and sum(yes if word in bag else no for word, (yes, no) in odds.items()) > 0

    return sum(map(belongs, prompts)) / len(prompts) if prompts else 0.0


def _odds(scope: Scope) -> dict[str, tuple[float, float]]:
    """Of every word the log odds that a prompt is in scope when it has the word, and when it has not."""
    inner, outer = _shares(scope, "in"), _shares(scope, "near", "general")
    rare_in, rare_out = inner.pop(""), outer.pop("")
    found = {}
    for word in inner.keys() | outer.keys():
        yes, no = inner.get(word, rare_in), outer.get(word, rare_out)
        found[word] = (math.log(yes / no), math.log((1 - yes) / (1 - no)))
    return found


def _marks(scope: Scope) -> set[str]:
    inner, general = _shares(scope, "in"), _shares(scope, "general")
    return {word for word, share in inner.items() if word and share > MARKED * general.get(word, general[""])}


def _shares(scope: Scope, *kinds: str) -> dict[str, float]:
    """The smoothed share of the training prompts that have a word; under "" that of a word which none has."""
    bags = [_bag(p) for kind in kinds for p in scope.train.get(kind, [])]
    counts = Counter(word for bag in bags for word in bag)
    return {word: (count + 0.5) / (len(bags) + 1) for word, count in counts.items()} | {
        "": 0.5 / (len(bags) + 1)
    }


def _bag(prompt: Any) -> frozenset[str]:
    return frozenset(_stem(word) for word in content_words(prompt_text(prompt)))


def _stem(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word


# ---- effects

ENDS, STARTS = ("sign_off", "question"), ("opening",)
SHAPES = ("bullets", "numbered", "headings", "code_only", "json")
OPPOSITES = (("shorter", "longer"), ("lower_case", "upper_case"))
UNFRAMED = ("code_only", "json")
"""Answers that have no room for words before or after."""
CASES: dict[str, Callable[[str], str]] = {"lower_case": str.lower, "upper_case": str.upper}
SOME_EMOJI = ["\N{SMILING FACE WITH SMILING EYES}"]


def clash(a: Sequence[Effect], b: Sequence[Effect]) -> str:
    """Why no answer can have the effects of both sides; empty when one can, as far as these rules tell."""
    for first in a:
        for second in b:
            if _rivals(first, second) or _forbids(first, second) or _forbids(second, first):
                return f"no answer both {printable(first.about)} and {printable(second.about)}"
    return ""


def _rivals(a: Effect, b: Effect) -> bool:
    """Whether both want the same place or the same property, and differ."""
    if a == b:
        return False
    kinds = {a.kind, b.kind}
    if any(kinds == set(pair) for pair in OPPOSITES):
        return True
    if any(a.kind in places and b.kind in places for places in (ENDS, STARTS)):
        return not (_satisfied(a, b) or _satisfied(b, a))
    if a.kind == b.kind == "language":
        return a.options != b.options
    if a.kind == b.kind == "length":
        return a.options["unit"] == b.options["unit"] and (
            _apart(a.options, b.options) or _apart(b.options, a.options)
        )
    if a.kind in SHAPES and b.kind in SHAPES:
        return a.kind != b.kind or a.options != b.options
    if kinds & set(UNFRAMED) and kinds & {*ENDS, *STARTS}:
        return True
    return _pattern(a) is not None and _pattern(a) == _pattern(b) and _wanted(a) != _wanted(b)


def _satisfied(effect: Effect, other: Effect) -> bool:
    """Whether the words that `other` writes have `effect` already: 'upwards' and 'Onwards and upwards'."""
    from heedful.judges.effects import holds

    return "text" in other.options and holds(effect, other.options["text"])


def _apart(low: Mapping[str, Any], high: Mapping[str, Any]) -> bool:
    return low.get("least", 0) > high.get("most", math.inf)


def _pattern(effect: Effect) -> str | None:
    return effect.options.get("pattern" if effect.kind == "regex" else "regex")


def _wanted(effect: Effect) -> bool:
    return effect.kind == "regex" and effect.options.get("present", True)


def _forbids(rule: Effect, writer: Effect) -> bool:
    """Whether `writer` puts words into the answer that `rule` does not allow anywhere in it."""
    written = _written(writer, CASES.get(rule.kind, str))
    return any(not any(_allowed(rule, way) for way in ways) for ways in written)


def _written(effect: Effect, case: Callable[[str], str]) -> list[list[str]]:
    """What an effect writes: of every list one of the phrases. Words in another case, or without their punctuation,
    count where the effect's own check takes them."""
    from heedful.judges.effects import holds

    options = effect.options
    if effect.kind in ("sign_off", "opening", "include"):
        bare = re.sub(r"[!?.,;:…]+", "", options["text"])
        return [[form for form in (case(options["text"]), case(bare)) if holds(effect, form)]]
    if effect.kind == "replace":
        return [[options["new"]]]
    if effect.kind == "headings":
        return [[title] for title in options.get("titles", [])]
    if effect.kind == "emoji":
        emoji = options.get("emoji") or SOME_EMOJI
        return [[emoji] if isinstance(emoji, str) else list(emoji)]
    return [["?"]] if effect.kind == "question" else []


def _allowed(rule: Effect, phrase: str) -> bool:
    """Whether an answer under `rule` may hold `phrase`; only rules that no further words can mend forbid any."""
    from heedful.judges.effects import Effect, holds

    options = rule.options
    if rule.kind in ("avoid", "no_emoji") or (rule.kind == "regex" and not options.get("present", True)):
        return holds(rule, phrase)
    if rule.kind in CASES:
        return phrase == CASES[rule.kind](phrase)
    if rule.kind == "length" and "most" in options:
        return holds(Effect("length", {"unit": options["unit"], "most": options["most"]}), phrase)
    if rule.kind == "replace":
        avoid_old = Effect("avoid", {"text": options["old"]})
        return holds(avoid_old, phrase) or holds(Effect("include", {"text": options["new"]}), phrase)
    return True
