"""The lines of a stream in the paper's text, read and written.

Numbers are plain decimals without a sign or leading zeros, of at most 18 digits. What does not fit a line to the
character is unreadable: it is never guessed at, and never evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from heedful.data.countdown.game import Operation, take

NUMBER = "(?:0|[1-9][0-9]{0,17})"
OPERATION = f"{NUMBER}[-+*/]{NUMBER}={NUMBER}"
LIST = rf"\[({NUMBER}(?:, {NUMBER})*)\]"
NAME = f"({NUMBER}(?:,{NUMBER})*)"
STATE, EXPLORE, GENERATED, STEP, MOVE, UNEQUAL, GOAL, EXHAUSTED, UNREADABLE = (
    "state",
    "explore",
    "generated",
    "step",
    "move",
    "unequal",
    "goal",
    "exhausted",
    "unreadable",
)
PATTERNS = {
    STATE: rf"Current State: ({NUMBER}):{LIST}, Operations: \[((?:'{OPERATION}'(?:, '{OPERATION}')*)?)\]",
    EXPLORE: rf"Exploring Operation: ({OPERATION}), Resulting Numbers: {LIST}",
    GENERATED: rf"Generated Node #{NAME}: ({NUMBER}):{LIST} Operation: ({OPERATION})",
    # What the solution alone, the optimal path, has in its place.
    STEP: rf"Generated Node #({NUMBER}): {LIST} from Operation: ({OPERATION})",
    MOVE: f"Moving to Node #{NAME}",
    UNEQUAL: f"({NUMBER}),({NUMBER}) unequal: No Solution",
    GOAL: f"({NUMBER}),({NUMBER}) equal: Goal Reached",
    EXHAUSTED: r"No solution found\.",
}
READ = {kind: re.compile(pattern) for kind, pattern in PATTERNS.items()}
BEGINNINGS = {"C": (STATE,), "E": (EXPLORE,), "G": (GENERATED, STEP), "M": (MOVE,), "N": (EXHAUSTED,)}
OPERATION_PARTS = re.compile(rf"({NUMBER})([-+*/])({NUMBER})=({NUMBER})")
# Models are trained with such a mark at either end; the paper's code takes it away too.
END_MARK = "<|endoftext|>"


class Line(NamedTuple):
    """A line of a stream: its kind, and of the rest what that kind has.

    numbers: of a state or of what an operation leaves; of a goal test the two that are compared.
    """

    kind: str
    text: str
    target: int = -1
    numbers: tuple[int, ...] = ()
    operations: tuple[Operation, ...] = ()
    name: tuple[int, ...] = ()


def read_line(text: str) -> Line:
    """What a line says."""
    for kind in BEGINNINGS.get(text[:1], (UNEQUAL, GOAL)):
        found = READ[kind].fullmatch(text)
        if not found:
            continue
        groups = found.groups()
        if kind == STATE:
            return Line(kind, text, int(groups[0]), _numbers(groups[1]), _operations(groups[2]))
        if kind == EXPLORE:
            return Line(kind, text, -1, _numbers(groups[1]), _operations(groups[0]))
        if kind == GENERATED:
            name, target, numbers, operation = groups
            return Line(
                kind, text, int(target), _numbers(numbers), _operations(operation), _numbers(name, ",")
            )
        if kind == STEP:
            return Line(kind, text, -1, _numbers(groups[1]), _operations(groups[2]), (int(groups[0]),))
        if kind == MOVE:
            return Line(kind, text, name=_numbers(groups[0], ","))
        if kind in (UNEQUAL, GOAL):
            return Line(kind, text, numbers=(int(groups[0]), int(groups[1])))
        return Line(kind, text)
    return Line(UNREADABLE, text)


def read_lines(stream: str) -> Iterator[Line]:
    """The lines of a stream, without the mark of its end."""
    stream = stream.replace(END_MARK, "")
    lines = stream.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return map(read_line, lines)


def state(target: int, numbers: Sequence[int], operations: Sequence[Operation]) -> str:
    """The line that says where the search is; the first one is the prompt."""
    done = ", ".join(f"'{operation}'" for operation in operations)
    return f"Current State: {target}:{_list(numbers)}, Operations: [{done}]"


def explore(operation: Operation, numbers: Sequence[int]) -> str:
    """The line of an operation that is tried."""
    return f"Exploring Operation: {operation}, Resulting Numbers: {_list(numbers)}"


def generated(name: Sequence[int], target: int, numbers: Sequence[int], operation: Operation) -> str:
    """The line of a node that it led to."""
    return f"Generated Node #{_name(name)}: {target}:{_list(numbers)} Operation: {operation}"


def step(number: int, numbers: Sequence[int], operation: Operation) -> str:
    """`generated` in an optimal path."""
    return f"Generated Node #{number}: {_list(numbers)} from Operation: {operation}"


def move(name: Sequence[int]) -> str:
    """The line of a change to another node."""
    return f"Moving to Node #{_name(name)}"


def verdict(number: int, target: int) -> str:
    """The line of the goal test."""
    return (
        f"{number},{target} equal: Goal Reached"
        if number == target
        else f"{number},{target} unequal: No Solution"
    )


def optimal_path(target: int, numbers: Sequence[int], solution: Sequence[Operation]) -> str:
    """The solution without the search, as the paper's baseline is trained on it.

    Each operand is taken once. (The paper's code takes both copies of an operand that is there twice, and so spoils at
    least 1.6% of its examples.) Raises ValueError when the operations do not lead from the numbers to the target.
    """
    left, lines = tuple(numbers), [state(target, numbers, ())]
    for i, operation in enumerate(solution):
        after = take(left, operation)
        if after is None:
            raise ValueError(f"{operation} takes numbers that are not among {list(left)}")
        left = after
        lines.append(explore(operation, left))
        if len(left) > 1:
            lines += [step(i + 2, left, operation), state(target, left, solution[: i + 1])]
    if left != (target,):
        raise ValueError(f"{list(map(str, solution))} leads to {list(left)}, not to {target}")
    return "\n".join([*lines, verdict(target, target)]) + "\n"


def _list(numbers: Sequence[int]) -> str:
    return f"[{', '.join(map(str, numbers))}]"


def _name(name: Sequence[int]) -> str:
    return ",".join(map(str, name))


def _numbers(text: str, between: str = ", ") -> tuple[int, ...]:
    return tuple(map(int, text.split(between)))


def _operations(text: str) -> tuple[Operation, ...]:
    return tuple(
        Operation(int(left), operator, int(right), int(result))
        for left, operator, right, result in OPERATION_PARTS.findall(text)
    )
