"""The verifier of the paper's code, holes included, so that published accuracies can be compared with.

It looks at the first goal line, the operation explored last before it, and the operations of the state line before
that. It never takes a number away that was used (it compares numbers with their texts), so an input may be used twice
or not at all; and with two numbers it accepts nothing, because the root's empty list counts as an operation. Where the
paper's code evaluates a model's text with `eval`, here only sums, differences, products and quotients are worked out.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from heedful.data.countdown.game import tree_size
from heedful.data.countdown.lines import END_MARK

VALID = "Valid path."
# A run of digits matches as a whole or not at all, so a search through a long one ends soon.
GOAL = re.compile(r"(?<!\d)\d+,\d+ equal: Goal Reached")
EXPLORED = re.compile(r"Exploring Operation: (.*?=\d+), Resulting Numbers: \[.*?\]")
STATE = re.compile(r"Current State: \d+:\[.*?\], Operations: \[(.*?)\]")
ROOT = re.compile(r"Current State: (\d+):\[(.*?)\]")
PIECES = re.compile(r"\s*(?:(\d+)|(.))")
LONGEST = 200  # characters of an operation; longer ones are not worked out


class PaperVerdict(NamedTuple):
    """Whether the paper's code accepts a stream, its words for it, and its rating; accuracy counts ratings above 0."""

    accepted: bool
    reason: str
    rating: float


def paper_verdict(stream: str) -> PaperVerdict:
    """What the paper's code says of a stream in its text."""
    reason = _reason(stream)
    if reason != VALID:
        return PaperVerdict(False, reason, 0.0)
    root = ROOT.match(stream.strip().split("\n")[0])
    count = root[2].count(", ") + 1 if root else 0
    operations = stream.count("Exploring Operation") + 1
    return PaperVerdict(True, reason, max(1.0 - operations / tree_size(count), 0.0))


def _reason(stream: str) -> str:
    root = ROOT.match(stream.strip().split("\n")[0])
    target, numbers = -1, list[int]()
    try:
        if root:
            target, numbers = int(root[1]), [int(n) for n in root[2].split(", ")]
    except ValueError:
        root = None
    if root is None:
        return "Invalid input: Cannot find the initial state in the first line."
    stream = stream.replace(END_MARK, "")
    goal = GOAL.search(stream)
    if not goal:
        return "No goal reached statement found."
    before = stream[: goal.start()]
    explored = EXPLORED.findall(before)
    if not explored:
        return "No operations found leading to the goal."
    try:
        predicted = int(explored[-1].split("=")[1])
    except ValueError:
        return "Couldnt parse last op"
    if predicted != target:
        return "Invalid path: Final operation does not result in target."
    states = STATE.findall(before)
    if not states:
        return "No state found before the goal."
    operations = [text.replace("'", "") for text in states[-1].split(", ")]
    for operation in [*operations, explored[-1]]:
        sides = operation.split("=")
        if len(sides) != 2:
            return "Could not split operation into lhs, rhs"
        try:
            if worked_out(sides[0]) != int(sides[1]):
                return f"Invalid operation: {operation}"
        except (ValueError, ZeroDivisionError, OverflowError) as error:
            return f"Error in evaluating operation {operation}: {error}"
        for number in re.findall(r"\d+", sides[0]):
            if int(number) not in numbers:
                return f"Invalid operation: {operation}, number {number} not available in {numbers}"
        numbers.append(int(sides[1]))
    return VALID


def worked_out(text: str) -> float:
    """The value of a sum with + - * / and brackets, as Python gives it. Raises ValueError for anything else."""
    if len(text) > LONGEST:
        raise ValueError("too long")
    pieces: list[int | str] = []
    for digits, sign in PIECES.findall(text.strip()):
        if len(digits) > 1 and digits.startswith("0") and int(digits):
            raise ValueError("a number begins with 0")
        pieces.append(int(digits) if digits else sign)
    value, rest = _sum(pieces)
    if rest:
        raise ValueError(f"{rest[0]!r} is out of place")
    return value


def _sum(pieces: list[int | str]) -> tuple[float, list[int | str]]:
    value, pieces = _product(pieces)
    while pieces and pieces[0] in ("+", "-"):
        sign = pieces[0]
        other, pieces = _product(pieces[1:])
        value = value + other if sign == "+" else value - other
    return value, pieces


def _product(pieces: list[int | str]) -> tuple[float, list[int | str]]:
    value, pieces = _factor(pieces)
    while pieces and pieces[0] in ("*", "/"):
        sign = pieces[0]
        other, pieces = _factor(pieces[1:])
        value = value * other if sign == "*" else value / other
    return value, pieces


def _factor(pieces: list[int | str]) -> tuple[float, list[int | str]]:
    if not pieces:
        raise ValueError("it ends too soon")
    first, rest = pieces[0], pieces[1:]
    if isinstance(first, int):
        return first, rest
    if first in ("+", "-"):
        value, rest = _factor(rest)
        return (-value if first == "-" else value), rest
    if first == "(":
        value, rest = _sum(rest)
        if not rest or rest[0] != ")":
            raise ValueError("a bracket is not closed")
        return value, rest[1:]
    raise ValueError(f"{first!r} is out of place")
