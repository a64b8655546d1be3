"""The compact language: one token for each number and mark, nothing that the rest implies, and back again without loss.

    T 24 N 4 9 3            the prompt: target and numbers
    E 9 - 3 = 6 4 6         an operation that is explored and the numbers it leaves
    X / G                   one number was left: it is not the target / it is
    S 4 6                   the node just generated is entered
    M 0 1 S 4 6             another node is moved to, by name, and its numbers
    M 0 1 L 2 S 13          a finished leaf is visited again, operation 2 (from 0) of node 0,1 (legacy streams only)
    F                       no solution found

`decode(encode(text)) == text` for every stream of the searchers and for optimal paths, which are written the same way
and rendered by `decode(..., optimal=True)`. `writers` makes the same tokens without the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from heedful.data.countdown import lines
from heedful.data.countdown.game import OPERATORS, Operation
from heedful.data.countdown.vocabulary import END, SPECIAL, THOUSAND
from heedful.errors import HeedfulError

# One piece of a compact text is a special token, a run of digits, or a sign.
PIECE = re.compile(r"</?[a-z]+>|[0-9]+|[^\s0-9]")
NUMBER = re.compile("0|[1-9][0-9]{0,2}")
LONGEST = 6  # thousands in a number: 18 digits, as in the text
RESUME = frozenset("ESMF")
EXHAUSTED = "No solution found."
Name = tuple[int, ...]


def split(text: str) -> list[str]:
    """The tokens of a compact text up to its end, without special ones."""
    tokens: list[str] = []
    for token in PIECE.findall(text):
        if token == END:
            break
        if token not in SPECIAL:
            tokens.append(token)
    return tokens


def is_compact(stream: str) -> bool:
    """Whether a stream is in the compact language and not in the paper's text."""
    return split(stream[:100])[:1] == ["T"]


def prompt(target: int, numbers: Sequence[int]) -> str:
    """`T 24 N 4 9 3`."""
    return " ".join(["T", *_digits(target), "N", *_all_digits(numbers)])


def encode(text: str) -> str:
    """A stream in the paper's text as compact text.

    Raises HeedfulError, naming the line, where it would not come back the same.
    """
    tokens: list[str] = []
    explored: dict[Name, list[Operation]] = {}
    read = list(lines.read_lines(text))
    here: Name = (0,)
    named: set[Name] = {here}
    for i, line in enumerate(read):
        following = read[i + 1] if i + 1 < len(read) else None
        if line.kind == lines.STATE:
            tokens += ["S", *_all_digits(line.numbers)] if i else _prompt_tokens(line)
        elif line.kind == lines.EXPLORE:
            tokens += ["E", *_operation_tokens(line.operations[0]), *_all_digits(line.numbers)]
            explored.setdefault(here, []).append(line.operations[0])
        elif line.kind == lines.GENERATED:
            named.add(line.name)
        elif line.kind == lines.MOVE:
            before = read[i - 1]
            if before.kind != lines.GENERATED or before.name != line.name:
                tokens += ["M", *_moved(line.name, named, explored, following)]
            here = line.name
        elif line.kind in (lines.UNEQUAL, lines.GOAL):
            tokens.append("X" if line.kind == lines.UNEQUAL else "G")
        elif line.kind == lines.EXHAUSTED:
            tokens.append("F")
    compact = " ".join(tokens)
    back = decode(compact, optimal=any(line.kind == lines.STEP for line in read), lenient=True)
    if back != text:
        ours, theirs = back.split("\n"), text.split("\n")
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        shown = theirs[at][:80] if at < len(theirs) else "its end"
        raise HeedfulError(f"line {at + 1} cannot be written in the compact language: {shown!r}")
    return compact


def decode(compact: str | Sequence[str], *, optimal: bool = False, lenient: bool = False) -> str:
    """Compact text, or its tokens, as the paper's text. optimal: write it as an optimal path.

    Raises HeedfulError, naming the token, where the tokens are no stream. lenient, for what a model wrote: tokens that
    cannot be read become a line `Unreadable: ...`, a node that does not exist is moved to as it is named, and the rest
    is rendered all the same, errors in it included.
    """
    reader = _Reader(split(compact) if isinstance(compact, str) else compact, optimal, lenient)
    text: list[str] = []
    while reader.at < len(reader.tokens):
        start = reader.at
        try:
            text += reader.read()
        except _Unreadable as fault:
            if not lenient:
                raise HeedfulError(f"token {reader.at + 1} of the compact stream: {fault}") from None
            reader.at = max(reader.at, start + 1)
            while reader.peek() and reader.peek() not in RESUME:
                reader.at += 1
            text.append(f"Unreadable: {' '.join(reader.tokens[start : reader.at])}")
    ended = bool(text) and text[-1] == EXHAUSTED
    return "\n".join(text) + ("" if ended or not text else "\n")


class _Unreadable(Exception):
    """What is wrong with the token that the reader is at."""


class _Reader:
    """A place in the tokens, and the tree that they have described so far."""

    def __init__(self, tokens: Sequence[str], optimal: bool, lenient: bool) -> None:
        self.tokens, self.at, self.optimal, self.lenient = tokens, 0, optimal, lenient
        self.target, self.here = -1, (0,)
        self.operations: dict[Name, tuple[Operation, ...]] = {}
        self.explored: dict[Name, list[Operation]] = {}
        self.generated: dict[Name, int] = {}
        self.entered: Name | None = None  # the node just generated, which a bare S enters

    def read(self) -> list[str]:
        """The lines of the next letter and what belongs to it."""
        letter = self.take()
        if (letter == "T") != (self.target < 0):
            raise self.wrong("the prompt `T ... N ...`, once, at the beginning")
        if letter == "T":
            target = self.number()
            self.letter("N")
            numbers = self.numbers()
            self.target, self.operations[self.here] = target, ()
            return [lines.state(target, numbers, ())]
        if letter == "E":
            return self._explored()
        if letter == "S":
            name, self.entered = self.entered, None
            if name is None:
                raise self.wrong("S only after an operation that leaves several numbers, or after M")
            self.here = name
            moved = [] if self.optimal else [lines.move(name)]
            return [*moved, lines.state(self.target, self.numbers(), self.operations[name])]
        self.entered = None
        if letter == "M":
            return self._moved()
        if letter == "F":
            return [EXHAUSTED]
        raise self.wrong("one of E, S, M, F")

    def _explored(self) -> list[str]:
        operation = self.operation()
        numbers = self.numbers()
        told = [lines.explore(operation, numbers)]
        known = self.explored.setdefault(self.here, [])
        known.append(operation)
        self.entered = None
        if self.peek() in ("X", "G"):
            equal = "equal: Goal Reached" if self.take() == "G" else "unequal: No Solution"
            return [*told, f"{numbers[-1]},{self.target} {equal}"]
        ordinal = self.generated.get(self.here, 0)
        self.generated[self.here] = ordinal + 1
        name = (*self.here, ordinal)
        self.operations[name] = (*self.operations.get(self.here, ()), operation)
        self.entered = name
        if self.optimal:
            depth = len(self.operations[name])
            return [*told, lines.step(depth + 1, numbers, operation)]
        return [*told, lines.generated(name, self.target, numbers, operation)]

    def _moved(self) -> list[str]:
        name: Name = tuple(self.numbers())
        leaf: int | None = None
        if self.peek() == "L":
            self.take()
            leaf = self.number()
        self.letter("S")
        numbers = self.numbers()
        done = self.operations.get(name)
        if leaf is not None:
            known = self.explored.get(name, [])
            done = None if done is None or leaf >= len(known) else (*done, known[leaf])
            name = (*name, 0)  # the paper's code does not count leaves, so all of a node's are its child 0
        if done is None and not self.lenient:
            raise self.wrong(f"a node that was generated; {','.join(map(str, name))} was not")
        self.here = name
        return [lines.move(name), lines.state(self.target, numbers, done or ())]

    def operation(self) -> Operation:
        """`4 + 9 = 13`."""
        left = self.number()
        operator = self.take()
        if operator not in OPERATORS:
            raise self.wrong("an operator")
        right = self.number()
        self.letter("=")
        return Operation(left, operator, right, self.number())

    def numbers(self) -> list[int]:
        """One or more numbers."""
        found = [self.number()]
        while self.peek().isdigit():
            found.append(self.number())
        return found

    def number(self) -> int:
        """A number and the thousands that follow it."""
        digits = [self.digits()]
        while self.peek() == ",":
            self.take()
            digits.append(self.digits())
        if len(digits) > LONGEST or (len(digits) > 1 and not digits[0]):
            raise self.wrong("a number of at most 18 digits that does not begin with 0")
        value = 0
        for part in digits:
            value = value * THOUSAND + part
        return value

    def digits(self) -> int:
        """A number below a thousand."""
        token = self.take()
        if not NUMBER.fullmatch(token):
            raise self.wrong("a number from 0 to 999")
        return int(token)

    def letter(self, wanted: str) -> None:
        """The next token is this one."""
        if self.take() != wanted:
            raise self.wrong(wanted)

    def peek(self) -> str:
        """The next token; "" at the end."""
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        """The next token, and on."""
        token = self.peek()
        self.at += 1
        return token

    def wrong(self, wanted: str) -> _Unreadable:
        """The error for the token that was taken last."""
        self.at -= 1
        return _Unreadable(f"expected {wanted}, found {self.peek() or 'the end'!r}")


def _prompt_tokens(line: lines.Line) -> list[str]:
    return ["T", *_digits(line.target), "N", *_all_digits(line.numbers)]


def _moved(
    name: Name, named: set[Name], explored: dict[Name, list[Operation]], following: lines.Line | None
) -> list[str]:
    """The name of a node; one that was not generated is a leaf, and the state that follows tells which."""
    if name not in named and following is not None and following.operations:
        known = explored.get(name[:-1], [])
        if following.operations[-1] in known:
            place = known.index(following.operations[-1])
            return [*map(str, name[:-1]), "L", str(place)]
    return [*map(str, name)]


def _operation_tokens(operation: Operation) -> list[str]:
    left, right, result = map(_digits, (operation.left, operation.right, operation.result))
    return [*left, operation.operator, *right, "=", *result]


def _all_digits(numbers: Sequence[int]) -> list[str]:
    return [token for number in numbers for token in _digits(number)]


def _digits(number: int) -> list[str]:
    if number < THOUSAND:
        return [str(number)]
    return [*_digits(number // THOUSAND), ",", str(number % THOUSAND)]
