"""What a short spoken command says, as a few ideas: which way, which action, which things, which colours.

English, written for table-top robots; what a bank of commands calls its things is taken from the bank itself.
Embeddings hardly tell "left" from "right", so these rules decide wherever such words are said.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

WAYS = ("left", "right", "up", "down", "forward", "back")
OPPOSITE = {
    "left": "right",
    "right": "left",
    "up": "down",
    "down": "up",
    "forward": "back",
    "back": "forward",
}
TURNS = ("clockwise", "counterclockwise")
COLOURS = (
    *("red", "green", "blue", "yellow", "orange", "purple"),
    *("pink", "black", "white", "grey", "brown"),
)
RELATIONS = ("in", "on", "over", "under", "off")
MOVE = "move"

CONTRACTIONS = {
    "n't": " not",
    "'s": " is",
    "'re": " are",
    "'m": " am",
    "'ll": " will",
    "'ve": " have",
    "'d": " would",
}
PHRASES: tuple[tuple[str, str], ...] = (
    # what is said of a place is not yet where to go
    (r"\b(all|that is|thats|you are|is that|just|not quite) right\b(?! (of|there|block|side))", " , "),
    (r"\balright\b|\bright (now|away|here|there|on|then)\b", " , "),
    (r"\b(i|you|he|she|we|they|who|is|are|was|were|what|anything|nothing|much|time) left\b(?! of)", " unknown "),
    (r"\bleft (my|over|behind|here|there|this|that|it|out|off)\b", " unknown "),
    (
        r"\btoo (?:far |much )?(?:over )?(?:to )?(?:the |my |your )?(left|right|forward|back|up|down)(?:wards?)?\b",
        r" opposite_\1 ",
    ),
    (r"\btoo high\b", " opposite_up "),
    (r"\btoo low\b", " opposite_down "),
    (r"\b(counter|anti)[ -]?clock ?wise\b|\bccw\b", " counterclockwise "),
    (r"\bclock wise\b|\bcw\b", " clockwise "),
    (r"\b(away from|further from) (me|you|us)\b", " forward "),
    (r"\b(towards?|closer to|nearer to|nearer) (me|you|us)\b", " back "),
    (r"\bback (up|off|away)\b", " back "),
    (r"\b(hold|hang) on\b|\bhold (it|still)\b|\bslow down\b|\bstay (there|still|put)\b", " wait "),
    (r"\b(try|do) (it |that |this )?again\b", " again "),
    (r"\b(once more|one more (time|try|go)|another (try|go|attempt)|from the (top|start) again)\b", " again "),
    (r"\blet (?:it |that |them |this )?go(?: of)?\b", " release "),
    (r"\bgo (back )?home\b|\bback home\b", " home "),
    (r"\b(home|start|starting|rest|resting|initial) (position|pose|place)\b", " home "),
    (r"\b(take|get|grab|catch) hold of\b", " pick "),
    (r"\b(?:put|place|set) (?:it |that |this |them |that one )?back\b", " putback "),
    (r"\b(?:put|place|set) (the (?:\w+ ){1,3})back\b", r" putback \1 "),
    (r"\b(put|set|lay|place) (?:it |that |this |them )?down\b", " setdown "),
    (r"\b(pick|lift|take|grab) (up )", r" \1 "),
    (r"\b(pick|take|lift|grab)((?: \w+){1,4}) up\b", r" \1\2 "),
    (r"\bopen up\b", " open "),
    (r"\b(put|get) (?:it |that |them )?(away|inside|into)\b", r" put in "),
)  # fmt: skip
"""Patterns and what stands for them, applied in this order to lower-case text."""
MEANINGS: Mapping[str, str] = {
    word: idea
    for idea, words in {
        "left": "leftward leftwards",
        "right": "rightward rightwards",
        "up": "higher upward upwards raise rise ascend",
        "down": "lower downward downwards descend sink",
        "forward": "forwards ahead onward onwards",
        "back": "backward backwards reverse retreat closer nearer",
        MOVE: "go going goes shift nudge slide scoot budge come head reach approach travel bring hover get moves",
        "turn": "rotate twist spin roll swivel",
        "open": "uncover unseal",
        "close": "shut seal",
        "pick": "grab grasp take fetch collect seize catch lift picks",
        "place": "put stick insert drop load pack stow places",
        "push": "press shove pushes",
        "pull": "drag tug",
        "release": "ungrip unclench ungrasp loosen",
        "grip": "squeeze clench clamp",
        "again": "retry redo repeat",
        "wait": "stop pause halt freeze hold pardon",
        "home": "homing",
        "shake": "wiggle jiggle",
        "pour": "tip",
        "in": "into inside",
        "on": "onto",
        "over": "above",
        "under": "below beneath underneath",
        "grey": "gray",
        "purple": "violet",
    }.items()
    for word in words.split()
}
"""Words that stand for another."""
THINGS: Mapping[str, tuple[str, ...]] = {
    "bin": ("box", "container", "basket", "crate", "bucket", "tub"),
    "box": ("bin", "container", "crate", "carton"),
    "cube": ("block", "brick"),
    "block": ("cube", "brick"),
    "ball": ("sphere",),
    "cylinder": ("tube",),
    "lid": ("cover", "cap"),
    "gripper": ("fingers", "hand", "claw", "jaws", "grippers"),
    "table": ("desk", "tabletop"),
    "cup": ("mug", "glass"),
    "drawer": ("tray",),
    "sponge": ("scrubber",),
    "pen": ("marker", "sharpie"),
    "bag": ("sack", "pouch"),
}
"""What else a bank's things are called, where the bank does not mean something else by that word."""
SELF = frozenset(["arm", "hand", "wrist", "robot", "self", "yourself", "elbow", "fingers", "gripper"])
PRONOUNS = frozenset(["it", "that", "this", "one", "them"])
_IGNORED = """
a an the to of for with at from and or then please okay ok could can would will you your my me i we us now just some bit
little tad touch slightly more further farther far much way too very quite so but also be is are am do does did have has
need want should lets let um uh er erm hmm hey robot gently carefully slowly quickly there here thing object piece item
guy wrong first next think maybe wards side direction not no yes than by as if until keep still its
"""
IGNORED = frozenset(_IGNORED.split())
REPAIRS = re.compile(
    r"(?:,| )*\b(?:no wait|wait no|no no|no sorry|sorry|i mean|i meant|scratch that|oops|actually|no)\b(?:,| )*"
)
NEGATIONS = frozenset(["not", "never", "dont"])
BREAKS = frozenset((",", "but"))
GRAB_VERBS = frozenset(("lift", "raise"))


@dataclass(frozen=True)
class Ideas:
    """What was said. unknown: words that mean nothing here."""

    ways: frozenset[str] = frozenset()
    turns: frozenset[str] = frozenset()
    actions: frozenset[str] = frozenset()
    things: frozenset[str] = frozenset()
    colours: frozenset[str] = frozenset()
    relations: frozenset[str] = frozenset()
    unknown: int = 0
    denied: bool = False
    """Whether something was said not to be done."""

    @property
    def all(self) -> frozenset[str]:
        """Every idea."""
        return self.ways | self.turns | self.actions | self.things | self.colours | self.relations

    @property
    def is_nudge(self) -> bool:
        """Which way, and nothing else."""
        return bool(self.ways or self.turns) and not self.things | self.actions


@dataclass
class Vocabulary:
    """The things that a bank's commands name, with what else they are called."""

    things: frozenset[str] = frozenset()
    other_names: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, commands: Iterable[str]) -> Vocabulary:
        """Every word of the commands that is no word of `MEANINGS` or `IGNORED` is a thing."""
        known = {*WAYS, *TURNS, *COLOURS, *RELATIONS, *MEANINGS, *MEANINGS.values(), *IGNORED, *PRONOUNS, ","}
        things: set[str] = set()
        for command in commands:
            things |= {word for word in tokens(command) if word not in known | _STANDINS}
        names: dict[str, str] = {}
        for thing in sorted(things):
            for other in (*THINGS.get(thing, ()), f"{thing}s"):
                if other not in things and other not in known:
                    names.setdefault(other, thing)
        return cls(frozenset(things), names)


_STANDINS = {
    *("putback", "setdown", "unknown", "unclear"),
    *(f"opposite_{way}" for way in WAYS),
}


def normalised(text: str) -> str:
    """Lower case, plain apostrophes, contractions written out, commas for every pause, single spaces."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    for short, long in CONTRACTIONS.items():
        text = text.replace(short, long)
    text = re.sub(r"[.;:!?,]+|\s-\s|[–—]", " , ", text)
    text = re.sub(r"[^\w ,]", " ", text)
    return re.sub(r"\s+", " ", text).strip(" ,")


@cache
def tokens(text: str) -> tuple[str, ...]:
    """Words of a text, with phrases replaced by what stands for them."""
    said = normalised(text)
    for pattern, stand_in in PHRASES:
        said = re.sub(pattern, stand_in, said)
    return tuple(said.split())


def ideas(text: str, vocabulary: Vocabulary) -> Ideas:
    """What a text says, after self-corrections ("left, no, right") and negations ("not the red one").

    "it" stands for a thing that was named in a part that was taken back.
    """
    said = normalised(text)
    parts = [part for part in REPAIRS.split(said) if part.strip(" ,")]
    read = [_positive(part, vocabulary) for part in parts] or [(_none(), frozenset(), False)]
    last = next((i for i in range(len(read) - 1, -1, -1) if read[i][0].all), len(read) - 1)
    found, before, pronoun = read[last]
    things = before | frozenset().union(*(r[0].things | r[1] for r in read[:last]))
    if pronoun and not found.things and not found.is_nudge and things:
        found = _framed(found, things, frozenset())
    return found


def _none() -> Ideas:
    return Ideas()


def _positive(part: str, vocabulary: Vocabulary) -> tuple[Ideas, frozenset[str], bool]:
    """(what is wanted, things that were named only to be denied, whether "it" is said) of one part."""
    kept: list[str] = []
    denied: list[str] = []
    scope: set[str] | None = None
    negated = False
    for word in tokens(part):
        if word in NEGATIONS:
            scope, negated = set(), True
            continue
        group = _group(_idea(word, vocabulary), vocabulary)
        if scope is not None and (word in BREAKS or (group and group in scope)):
            scope = None
        if scope is not None:
            if group:
                scope.add(group)
            denied.append(word)
        else:
            kept.append(word)
    found = _read(kept, vocabulary, negated)
    return found, _read(denied, vocabulary, False).things, bool(PRONOUNS & set(kept))


def _idea(word: str, vocabulary: Vocabulary) -> str:
    if word in vocabulary.things:
        return word
    if word in vocabulary.other_names:
        return vocabulary.other_names[word]
    if word in MEANINGS:
        return MEANINGS[word]
    if word.startswith("opposite_"):
        return OPPOSITE[word.removeprefix("opposite_")]
    return word


def _group(idea: str, vocabulary: Vocabulary) -> str:
    if idea in WAYS or idea in TURNS:
        return "way"
    if idea in COLOURS:
        return "colour"
    if idea in vocabulary.things:
        return "thing"
    return "action" if idea in _ACTIONS else ""


_ACTIONS = frozenset((*(set(MEANINGS.values()) - {*WAYS, *RELATIONS, *COLOURS}), "putback", "setdown"))


def _read(words: list[str], vocabulary: Vocabulary, denied: bool) -> Ideas:
    unknown, found = 0, []
    known = sorted({*MEANINGS, *vocabulary.things, *vocabulary.other_names, *WAYS, *TURNS, *COLOURS})
    for word in words:
        idea = _idea(word, vocabulary)
        if idea not in _ACTIONS and not _group(idea, vocabulary) and idea not in RELATIONS:
            if word in IGNORED or word in PRONOUNS or word in SELF or word in BREAKS:
                continue
            close = difflib.get_close_matches(word, known, 1, 0.84) if len(word) >= 5 else []
            if not close:
                unknown += 1
                continue
            idea = _idea(close[0], vocabulary)
        found.append(idea)
    chosen = frozenset(found)
    raw = Ideas(
        chosen & frozenset(WAYS),
        chosen & frozenset(TURNS),
        chosen & _ACTIONS,
        chosen & vocabulary.things,
        chosen & frozenset(COLOURS),
        chosen & frozenset(RELATIONS),
        unknown,
        denied,
    )
    return _framed(raw, frozenset(), frozenset(words))


def _framed(said: Ideas, more_things: frozenset[str], words: frozenset[str]) -> Ideas:
    """Ideas that mean another one together: to open the fingers is to release, to drop nothing in particular too."""
    ways, turns, actions = said.ways, said.turns, said.actions
    things, relations = said.things | more_things, said.relations
    hand = things & {"gripper"}
    others = things - {"gripper"}
    if actions & {"open", "close"} and hand and not others:
        actions = (actions - {"open"}) | ({"release"} if "open" in actions else set())
        things = things - hand if "release" in actions else things
    if "grip" in actions and not others:
        actions, things = (actions - {"grip"}) | {"close"}, things | {"gripper"}
    elif "grip" in actions:
        actions = (actions - {"grip"}) | {"pick"}
    if "drop" in words and not relations and not ways:
        actions = (actions - {"place"}) | {"release"}
    if GRAB_VERBS & words and not others and not said.colours and (SELF & words or things & {"gripper"}):
        actions, ways, things = actions - {"pick"}, ways | {"up"}, things - {"gripper"}
    if "lift" in words and "lid" in things:
        actions = (actions - {"pick"}) | {"open"}
    if "lid" in things and relations & {"off", "on"} and not actions - {"pick", "place", MOVE, "putback"}:
        actions = frozenset({"open"} if "off" in relations else {"close"})
        things, relations = frozenset({"lid"}), relations - {"off", "on"}
    if {"open", "close"} & actions and things == {"bin"} and "lid" not in words:
        things = frozenset({"lid"})  # to open the bin is to open its lid
    if actions & {"turn"} and turns:
        actions = actions - {"turn"}
    if (ways or turns) and not things:
        actions = actions - {MOVE, "push", "pull", "place"}  # how it is moved says nothing of which way
    if relations & {"in"} and others - {"bin"} and "bin" in things and not actions - {MOVE}:
        actions = frozenset({"place"})
    return Ideas(
        frozenset(ways),
        turns,
        frozenset(actions),
        frozenset(things),
        said.colours,
        frozenset(relations),
        said.unknown,
        said.denied,
    )
