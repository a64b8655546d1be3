"""The tree of a search as rows to draw, and as text for a terminal; `heedful.report_drawings` makes pictures of rows.

A stream can name thousands of nodes, so what is drawn is bounded: the first nodes that were explored, all of the way to
the goal, and how many others there are below each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from heedful.data.countdown.replay import Node, Replay

MOST = 200
DEEPEST = 8
"""Six numbers take five operations; a stream that claims more goes on without end."""
ROOT, GOAL, FALSE_GOAL, MISSED, DEAD_END = "root", "goal", "false goal", "missed goal", "dead end"
INNER, OPEN, MADE_UP, MORE = "inner", "not followed", "made up", "more"
MARKS = {GOAL: "✓", FALSE_GOAL: "✗", MISSED: "✗", DEAD_END: "×", OPEN: "○", MADE_UP: "?", MORE: "…"}
PLAIN_MARKS = {GOAL: "+", FALSE_GOAL: "x", MISSED: "x", DEAD_END: "x", OPEN: "o", MADE_UP: "?", MORE: "..."}
COLOURS = {GOAL: "1;32", FALSE_GOAL: "31", MISSED: "31", DEAD_END: "2", OPEN: "36", MADE_UP: "31", MORE: "2"}
ERROR, WAY = "31", "32"


class Row(NamedTuple):
    """A node as it is drawn; rows are in the order of a walk through the tree, parents first.

    parent: its parent's place among the rows, -1 for none. depth: 0 for a root. kind: ROOT to MORE. text: the
    operation, or what else the node is. numbers: what is left. errors: their kinds. step: which operation of the search
    it was, from 1; 0 for none. way: whether it is on the way to a goal that is really reached.
    """

    parent: int
    depth: int
    kind: str
    text: str
    numbers: str = ""
    errors: tuple[str, ...] = ()
    step: int = 0
    way: bool = False

    def as_json(self) -> dict[str, Any]:
        """The row as report.json has it."""
        return {**self._asdict(), "errors": list(self.errors)}


def tree(found: Replay, most: int = MOST) -> list[Row]:
    """The rows of a replayed stream: at most `most` nodes beside the way to the goal, and a row for each gap.

    Nodes are taken in the order in which they were explored, so a node is never drawn without its parents. States that
    no operation led to are roots of their own. A stream whose first line is no problem has no rows.
    """
    nodes = found.nodes
    if not nodes:
        return []
    way = _way(found)
    depth = [0] * len(nodes)
    children: list[list[int]] = [[] for _ in nodes]
    for i, node in enumerate(nodes):
        if node.parent >= 0:
            depth[i] = depth[node.parent] + 1
            children[node.parent].append(i)
    roots = [i for i, node in enumerate(nodes) if node.parent < 0]
    kept = {i for i in range(len(nodes)) if (i < most or i in way) and depth[i] <= DEEPEST}
    below = [int(i not in kept) for i in range(len(nodes))]
    for i in reversed(range(len(nodes))):
        if i not in kept and nodes[i].parent >= 0:
            below[nodes[i].parent] += below[i]
    steps: dict[int, int] = {}
    for i, node in enumerate(nodes):
        if node.operation is not None:
            steps[i] = len(steps) + 1
    rows: list[Row] = []
    # What is still to be drawn, the next on top: a node and its parent's row; ~node for what is left out below it.
    todo = [(i, -1) for i in reversed(roots) if i in kept]
    while todo:
        i, parent = todo.pop()
        if i < 0:
            rows.append(_more(below[~i], parent, depth[~i] + 1))
            continue
        rows.append(
            Row(
                parent,
                depth[i],
                _kind(found, i, bool(children[i])),
                _text(found, i),
                _left(nodes[i]),
                tuple(nodes[i].errors),
                steps.get(i, 0),
                i in way,
            )
        )
        here = len(rows) - 1
        if below[i]:
            todo.append((~i, here))
        todo += [(child, here) for child in reversed(children[i]) if child in kept]
    lost = sum(below[i] for i in roots if i not in kept)
    if lost:
        rows.append(_more(lost, -1, 0))
    return rows


def lines(rows: Sequence[Row], *, colour: bool = False, plain: bool = False) -> list[str]:
    """The tree as lines of text. colour: with the codes of a terminal. plain: in ASCII.

    Every node has a mark or a word for what it is, so nothing is lost without colour.
    """
    bar, tee, elbow, arrow = ("|  ", "|- ", "`- ", "->") if plain else ("│  ", "├─ ", "└─ ", "→")
    marks = PLAIN_MARKS if plain else MARKS
    last: dict[int, int] = {row.parent: i for i, row in enumerate(rows)}
    before: list[str] = []  # what stands before the children of each row
    told = []
    for i, row in enumerate(rows):
        closes = last[row.parent] == i
        above = before[row.parent] if row.parent >= 0 else ""
        before.append(above + ("" if row.parent < 0 else "   " if closes else bar))
        lead = above + ("" if row.parent < 0 else elbow if closes else tee)
        said = " ".join(
            part for part in (row.text, f"{arrow} {row.numbers}" if row.numbers and row.text else "") if part
        )
        if row.kind == MADE_UP:
            said = f"{row.text} {row.numbers}"
        code = COLOURS.get(row.kind, "")
        mark = marks.get(row.kind, "")
        word = row.kind if row.kind in (GOAL, FALSE_GOAL, MISSED, DEAD_END, OPEN) else ""
        if row.kind == MORE:
            said, mark = f"{mark} {said}", ""
        if row.way and row.kind != GOAL:
            code, word = WAY, "on the way to the goal" if row.step else ""
        if row.errors:
            code, word = ERROR, f"{word}, error: {', '.join(row.errors)}".removeprefix(", ")
            mark = "!" if not mark or row.kind == DEAD_END else f"! {mark}"
        text = f"{said}  {mark} {word}".rstrip() if mark or word else said
        step = f"{row.step:>3} " if row.step else ""
        told.append(f"{lead}\033[{code}m{step}{text}\033[0m" if colour and code else f"{lead}{step}{text}")
    return told


def legend(rows: Sequence[Row], *, plain: bool = False) -> str:
    """What the marks that are drawn mean."""
    marks = PLAIN_MARKS if plain else MARKS
    kinds = {row.kind for row in rows}
    said = ["numbers at the left: the order of exploring"]
    if OPEN in kinds:
        said.append(f"{marks[OPEN]} no operation was tried from it")
    if any(row.errors for row in rows):
        said.append("! an error")
    if MADE_UP in kinds:
        said.append(f"{marks[MADE_UP]} a state that no operation led to")
    return "; ".join(said)


def _way(found: Replay) -> set[int]:
    """The places of the nodes from the root to the goal; empty where it is not reached."""
    way: set[int] = set()
    at = len(found.nodes) - 1 if found.solved else -1
    while at >= 0:
        way.add(at)
        at = found.nodes[at].parent
    return way


def _kind(found: Replay, i: int, entered: bool) -> str:
    node = found.nodes[i]
    if not i:
        return ROOT
    if node.operation is None:
        return MADE_UP
    if entered:
        return INNER
    if node.numbers == (found.target,):
        if found.solved and i == len(found.nodes) - 1:
            return GOAL
        return MISSED if node.sound and node.errors else FALSE_GOAL
    return DEAD_END if len(node.numbers) < 2 else OPEN


def _text(found: Replay, i: int) -> str:
    node: Node = found.nodes[i]
    if not i:
        return f"{found.target} from {_numbers(node.numbers)}"
    if node.operation is None:
        return "made up:"
    return str(node.operation)


def _left(node: Node) -> str:
    """What an operation leaves, where that is more than its result."""
    told = node.operation is not None and node.numbers == (node.operation.result,)
    return "" if told or node.line == 1 else _numbers(node.numbers)


def _numbers(numbers: Sequence[int], most: int = 8) -> str:
    shown = [str(n) for n in numbers[:most]]
    return (
        " ".join([*shown, f"and {len(numbers) - most} more"] if len(numbers) > most else shown) or "nothing"
    )


def _more(count: int, parent: int, depth: int) -> Row:
    return Row(parent, depth, MORE, f"{count:,} more {'node' if count == 1 else 'nodes'} not drawn")
