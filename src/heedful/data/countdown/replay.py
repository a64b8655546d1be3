"""Replaying a stream from its root: is the goal really reached, what went wrong, and the tree that was searched.

Strict: the numbers of every state on the way to the goal are worked out from the root, each operand taken once and each
result put back, until one number is left; so each input is used exactly once. A state that no such operations led to is
made up, and nothing that follows from it counts. Nothing is evaluated but whole numbers. What goes wrong off that way
does not make a stream wrong; the errors are counted all the same.

The kinds of error are those of the paper's census: *arithmetic*, left and right of an operation differ or the operation
is not a legal move; *formatting*, a line cannot be read; *exploration*, the search goes to a node that was never
generated, names one twice or under another parent, or explores nothing; *other*, operands that the state does not have,
numbers that the operation does not leave, a state or a verdict that contradicts what it is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from heedful.data.countdown import codec, lines
from heedful.data.countdown.game import Operation, outcome, rating, take

KINDS = ("arithmetic", "formatting", "exploration", "other")


@dataclass(slots=True)
class Node:
    """A node of the tree that a stream describes; the root is the first."""

    name: tuple[int, ...]
    """As in `#0,2,1`; of a leaf, which the text does not name, its parent's name and the ordinal it would have."""
    parent: int
    """The parent's place among the nodes; -1 for the root and for states that are made up."""
    numbers: tuple[int, ...]
    operation: Operation | None
    operations: tuple[Operation, ...]
    """All operations from the root; empty where the node is not sound."""
    line: int
    """The line that introduces it, from 1."""
    sound: bool
    """Whether it follows from the root, operation by operation."""
    errors: list[str] = field(default_factory=list)
    """The kinds of what is wrong with it."""


class Error(NamedTuple):
    """Something wrong in a stream: the line, from 1, its kind and what it is."""

    line: int
    kind: str
    message: str


@dataclass
class Replay:
    """What a stream is worth."""

    target: int
    numbers: tuple[int, ...]
    nodes: list[Node]
    errors: list[Error]
    solved: bool
    """Whether the strict verifier accepts it."""
    reason: str
    """Why not; empty where it does."""
    explored: int
    """Operations explored up to the first goal line."""

    @property
    def rating(self) -> float:
        """The paper's rating with the strict verdict; accuracy counts ratings above 0."""
        return rating(self.explored, len(self.numbers)) if self.solved else 0.0

    @property
    def solution(self) -> tuple[Operation, ...]:
        """The operations that reach the goal; empty where it is not reached."""
        return self.nodes[-1].operations if self.solved else ()

    def census(self) -> dict[str, int]:
        """How many errors of each kind."""
        found: dict[str, int] = dict.fromkeys(KINDS, 0)
        for error in self.errors:
            found[error.kind] += 1
        return found

    def states(self) -> set[tuple[int, ...]]:
        """The sorted numbers of every node without an error, for comparing which states two searches visit."""
        return {tuple(sorted(node.numbers)) for node in self.nodes if node.sound and not node.errors}


def replay(stream: str, target: int | None = None, numbers: Sequence[int] | None = None) -> Replay:
    """Replay a stream in the paper's text or in the compact language, up to its first goal line.

    target, numbers: the problem it is meant to solve; without them, that of its first line.
    """
    if codec.is_compact(stream):
        stream = codec.decode(stream, lenient=True)
    read = list(lines.read_lines(stream))
    goal = next((i for i, line in enumerate(read) if line.kind == lines.GOAL), None)
    read = read[: len(read) if goal is None else goal + 1]
    if not read or read[0].kind != lines.STATE or read[0].operations:
        known = (-1 if target is None else target, tuple(numbers or ()))
        errors = [
            Error(1, "formatting", "the first line is no problem: Current State: T:[...], Operations: []")
        ]
        return Replay(*known, [], errors, False, f"line 1: {errors[0].message}", 0)
    walk = _Walk(read[0])
    for i, line in enumerate(read[1:], 2):
        walk.take(i, line)
    explored = sum(line.kind == lines.EXPLORE for line in read)
    if not explored:
        walk.wrong(len(read), "exploration", "no operation is explored")
    root = walk.nodes[0]
    if (target is not None and target != walk.target) or (
        numbers is not None and sorted(numbers) != sorted(root.numbers)
    ):
        reason = f"line 1: it is about {walk.target}:{list(root.numbers)}, which is another problem"
    elif goal is None:
        reason = "the goal is not reached"
    else:
        reason = walk.why_not()
    return Replay(walk.target, root.numbers, walk.nodes, walk.errors, not reason, reason, explored)


class _Walk:
    """Where in the tree a stream is while its lines are read."""

    def __init__(self, root: lines.Line) -> None:
        self.target = root.target
        self.nodes = [Node((0,), -1, root.numbers, None, (), 1, True)]
        self.errors: list[Error] = []
        self.here: int | None = 0  # the state that operations start from; None where no line says
        self.last: int | None = None  # the node that the line before explored
        self.entered: int | None = None  # the node of an optimal path that the line before generated
        self.moved: tuple[int, ...] | None = None  # the node that the line before moved to
        self.named: dict[tuple[int, ...], list[int]] = {(0,): [0]}
        self.generated: set[tuple[int, ...]] = {(0,)}
        self.children: dict[int, int] = {}
        self.sound: dict[tuple[Operation, ...], int] = {(): 0}

    def wrong(self, line: int, kind: str, message: str, node: int | None = None) -> None:
        """Note an error; a node has one of each kind at most."""
        if node is not None:
            if kind in self.nodes[node].errors:
                return
            self.nodes[node].errors.append(kind)
        self.errors.append(Error(line, kind, message))

    def take(self, i: int, line: lines.Line) -> None:
        """Read line `i`."""
        last, entered, moved = self.last, self.entered, self.moved
        self.last = self.entered = self.moved = None
        if line.kind == lines.STATE:
            self.state(i, line, entered, moved)
        elif line.kind == lines.EXPLORE:
            self.explore(i, line)
        elif line.kind in (lines.GENERATED, lines.STEP):
            self.generate(i, line, last)
        elif line.kind == lines.MOVE:
            self.here, self.moved = None, line.name
            if line.name not in self.named:
                self.wrong(i, "exploration", f"node #{_name(line.name)} was never generated")
        elif line.kind in (lines.UNEQUAL, lines.GOAL):
            self.verdict(i, line, last)
        elif line.kind == lines.UNREADABLE:
            self.here = None
            self.wrong(i, "formatting", "it cannot be read")

    def state(self, i: int, line: lines.Line, entered: int | None, moved: tuple[int, ...] | None) -> None:
        """A state is the node moved to, or in an optimal path the one just generated."""
        meant = self.named.get(moved, []) if moved is not None else [] if entered is None else [entered]
        match = next((n for n in meant if self.shows(line, n)), None)
        if match is None:
            match = self.sound.get(line.operations)
            if match is None or not self.shows(line, match):
                match = len(self.nodes)
                self.nodes.append(Node(moved or (), -1, line.numbers, None, (), i, False))
            made_up = match if match == len(self.nodes) - 1 and not self.nodes[match].sound else None
            if meant:
                self.wrong(i, "other", "the state is not that of the node", made_up)
            else:
                self.wrong(i, "exploration", "a state of no node", made_up)
        self.here = match

    def shows(self, line: lines.Line, n: int) -> bool:
        """Whether a state line is that of a node."""
        node = self.nodes[n]
        done = node.operations if node.sound else line.operations
        return (
            line.target == self.target
            and line.operations == done
            and sorted(line.numbers) == sorted(node.numbers)
        )

    def explore(self, i: int, line: lines.Line) -> None:
        """A child of the state, sound where the state is and the operation keeps the rules."""
        parent = -1 if self.here is None else self.here
        above = self.nodes[parent]
        (operation,) = line.operations
        name = () if parent < 0 else (*above.name, self.children.get(parent, 0))
        node = Node(name, parent, line.numbers, operation, (), i, False)
        self.nodes.append(node)
        n = len(self.nodes) - 1
        if outcome(operation.left, operation.operator, operation.right) != operation.result:
            self.wrong(i, "arithmetic", f"{operation} is wrong, or no legal move", n)
        if parent < 0:
            self.wrong(i, "exploration", "an operation without a state", n)
        else:
            left = take(above.numbers, operation)
            if left is None:
                self.wrong(i, "other", f"{operation} takes numbers that {list(above.numbers)} lacks", n)
            elif sorted(left) != sorted(line.numbers):
                self.wrong(i, "other", f"{operation} leaves {list(left)}, not {list(line.numbers)}", n)
            if above.sound and not node.errors:
                node.sound, node.operations = True, (*above.operations, operation)
                self.sound.setdefault(node.operations, n)
        self.last = n

    def generate(self, i: int, line: lines.Line, last: int | None) -> None:
        """The line that names the child just explored."""
        if last is None:
            self.wrong(i, "exploration", "a node that no operation led to")
            return
        node = self.nodes[last]
        if line.numbers != node.numbers or line.operations[0] != node.operation:
            self.wrong(i, "other", "the node is not what the operation led to", last)
        if line.kind == lines.STEP:
            self.entered = last
            return
        if line.target != self.target:
            self.wrong(i, "other", f"the target is {self.target}, not {line.target}", last)
        if node.parent >= 0 and line.name[:-1] != self.nodes[node.parent].name:
            self.wrong(i, "exploration", f"#{_name(line.name)} is no child of the state", last)
        elif line.name in self.generated:
            self.wrong(i, "exploration", f"there is a node #{_name(line.name)} already", last)
        self.generated.add(line.name)
        node.name = line.name
        self.named.setdefault(line.name, []).append(last)
        self.children[node.parent] = self.children.get(node.parent, 0) + 1

    def verdict(self, i: int, line: lines.Line, last: int | None) -> None:
        """The goal test of the child just explored."""
        if last is None:
            self.wrong(i, "other", "a verdict on no operation")
            return
        node = self.nodes[last]
        right = line.numbers == (node.numbers[0], self.target) and len(node.numbers) == 1
        if not right or (node.numbers[0] == self.target) != (line.kind == lines.GOAL):
            self.wrong(i, "other", f"the verdict does not fit {list(node.numbers)}", last)
        # Legacy streams visit leaves again, under the name that they would have had.
        self.named.setdefault(node.name, []).append(last)
        self.last = last if line.kind == lines.GOAL else None

    def why_not(self) -> str:
        """Why the goal line that was read last is not true; "" where it is."""
        if self.last is None:
            return f"line {self.errors[-1].line}: the goal line follows no operation"
        node = self.nodes[self.last]
        if node.sound and not node.errors and node.numbers == (self.target,):
            return ""
        way = [node]
        while way[-1].parent >= 0:
            way.append(self.nodes[way[-1].parent])
        first = next(node for node in reversed(way) if node.errors)
        told = next(error for error in self.errors if error.line >= first.line)
        return f"line {told.line}: {told.message}"


def _name(name: Sequence[int]) -> str:
    return ",".join(map(str, name))
