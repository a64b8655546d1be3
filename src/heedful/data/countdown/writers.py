"""A search as the paper's text and as tokens of the compact language, compiled; `codec` says how the two correspond."""

from __future__ import annotations

import numpy as np

from heedful.data.countdown.compiled import ZERO, entry, part
from heedful.data.countdown.searchers import (
    COUNT,
    EXHAUSTED,
    EXPLORE,
    GENERATED,
    GOAL,
    LEFT,
    MOVE,
    OPERATOR,
    ORDINAL,
    PARENT,
    RIGHT,
    STATE,
    UNEQUAL,
    WIDTH,
    doubled,
    search,
)
from heedful.data.countdown.vocabulary import END, ID, START, THOUSAND


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


SIGNS = _bytes("+*-/")
SIGN_IDS = np.array([ID[sign] for sign in "+*-/"])
AT_STATE, AT_OPERATIONS, AT_END = _bytes("Current State: "), _bytes(", Operations: ["), _bytes("]\n")
AT_EXPLORE, AT_RESULT = _bytes("Exploring Operation: "), _bytes(", Resulting Numbers: ")
AT_GENERATED, AT_BY = _bytes("Generated Node #"), _bytes(" Operation: ")
AT_MOVE = _bytes("Moving to Node #")
AT_UNEQUAL, AT_EQUAL = _bytes(" unequal: No Solution\n"), _bytes(" equal: Goal Reached\n")
AT_EXHAUSTED = _bytes("No solution found.")
LONGEST_LINE = 1024  # bytes or tokens; six numbers of 16 digits and five operations take under 500

START_ID, END_ID, T_ID, N_ID, E_ID, S_ID, M_ID, L_ID, X_ID, G_ID, F_ID, EQUALS_ID, COMMA_ID = (
    ID[token] for token in (START, END, "T", "N", "E", "S", "M", "L", "X", "G", "F", "=", ",")
)
ZERO_ID = ID["0"]


# ---- text


@part
def put(text: np.ndarray, at: int, piece: np.ndarray) -> int:
    """Each of these writes at `at` and returns where it ended."""
    for i in range(len(piece)):
        text[at + i] = piece[i]
    return at + len(piece)


@part
def put_number(text: np.ndarray, at: int, number: int) -> int:
    """In decimal."""
    digits = 1
    power = 10
    while number >= power:
        digits += 1
        power *= 10
    for i in range(at + digits - 1, at - 1, -1):
        text[i] = 48 + number % 10
        number //= 10
    return at + digits


@part
def put_list(text: np.ndarray, at: int, nodes: np.ndarray, row: int) -> int:
    """`[1, 2, 3]`."""
    text[at] = 91
    at += 1
    for i in range(nodes[row, COUNT]):
        if i:
            text[at], text[at + 1] = 44, 32
            at += 2
        at = put_number(text, at, nodes[row, i])
    text[at] = 93
    return at + 1


@part
def put_operation(text: np.ndarray, at: int, nodes: np.ndarray, row: int) -> int:
    """`1+2=3`."""
    at = put_number(text, at, nodes[row, LEFT])
    text[at] = SIGNS[nodes[row, OPERATOR]]
    at = put_number(text, at + 1, nodes[row, RIGHT])
    text[at] = 61
    return put_number(text, at + 1, nodes[row, nodes[row, COUNT] - 1])


@part
def ancestry(nodes: np.ndarray, row: int, path: np.ndarray) -> int:
    """The rows from the first move to `row` into `path`, and how many they are."""
    length = 0
    while nodes[row, PARENT] >= 0:
        path[length] = row
        length += 1
        row = nodes[row, PARENT]
    for i in range(length // 2):
        path[i], path[length - 1 - i] = path[length - 1 - i], path[i]
    return length


@part
def put_name(text: np.ndarray, at: int, nodes: np.ndarray, row: int, path: np.ndarray) -> int:
    """`0,2,1`."""
    text[at] = 48
    at += 1
    for i in range(ancestry(nodes, row, path)):
        text[at] = 44
        at = put_number(text, at + 1, nodes[path[i], ORDINAL])
    return at


@part
def put_event(
    text: np.ndarray, at: int, nodes: np.ndarray, row: int, kind: int, target: int, path: np.ndarray
) -> int:
    """One line of the paper's text."""
    if kind == STATE:
        at = put_number(text, put(text, at, AT_STATE), target)
        text[at] = 58
        at = put(text, put_list(text, at + 1, nodes, row), AT_OPERATIONS)
        for i in range(ancestry(nodes, row, path)):
            if i:
                text[at], text[at + 1] = 44, 32
                at += 2
            text[at] = 39
            at = put_operation(text, at + 1, nodes, path[i])
            text[at] = 39
            at += 1
        return put(text, at, AT_END)
    if kind == EXPLORE:
        at = put_operation(text, put(text, at, AT_EXPLORE), nodes, row)
        at = put_list(text, put(text, at, AT_RESULT), nodes, row)
    elif kind == GENERATED:
        at = put_name(text, put(text, at, AT_GENERATED), nodes, row, path)
        text[at], text[at + 1] = 58, 32
        at = put_number(text, at + 2, target)
        text[at] = 58
        at = put_operation(text, put(text, put_list(text, at + 1, nodes, row), AT_BY), nodes, row)
    elif kind == MOVE:
        at = put_name(text, put(text, at, AT_MOVE), nodes, row, path)
    elif kind == EXHAUSTED:
        return put(text, at, AT_EXHAUSTED)
    else:
        at = put_number(text, at, nodes[row, 0])
        text[at] = 44
        at = put_number(text, at + 1, target)
        return put(text, at, AT_EQUAL if kind == GOAL else AT_UNEQUAL)
    text[at] = 10
    return at + 1


# ---- tokens


@part
def note_number(tokens: np.ndarray, at: int, number: int) -> int:
    """One token, or the thousands apart."""
    if number < THOUSAND:
        tokens[at] = ZERO_ID + number
        return at + 1
    at = note_number(tokens, at, number // THOUSAND)
    tokens[at] = COMMA_ID
    tokens[at + 1] = ZERO_ID + number % THOUSAND
    return at + 2


@part
def note_list(tokens: np.ndarray, at: int, nodes: np.ndarray, row: int) -> int:
    """The numbers of a node."""
    for i in range(nodes[row, COUNT]):
        at = note_number(tokens, at, nodes[row, i])
    return at


@part
def note_name(
    tokens: np.ndarray, at: int, nodes: np.ndarray, row: int, path: np.ndarray, leaf_place: int
) -> int:
    """`0 2 1`; of a leaf its parent's name, L, and which of the parent's explored operations it is."""
    tokens[at] = ZERO_ID
    at += 1
    length = ancestry(nodes, row, path)
    for i in range(length - (1 if leaf_place >= 0 else 0)):
        tokens[at] = ZERO_ID + nodes[path[i], ORDINAL]
        at += 1
    if leaf_place >= 0:
        tokens[at], tokens[at + 1] = L_ID, ZERO_ID + leaf_place
        at += 2
    return at


@part
def same_operation(nodes: np.ndarray, a: int, b: int) -> bool:
    """Whether two children of one parent read alike."""
    return (
        nodes[a, LEFT] == nodes[b, LEFT]
        and nodes[a, RIGHT] == nodes[b, RIGHT]
        and nodes[a, OPERATOR] == nodes[b, OPERATOR]
    )


@part
def place_of_leaf(nodes: np.ndarray, events: np.ndarray, now: int, leaf: int) -> int:
    """Which of its parent's explored operations, from 0, reads like the leaf; the events before `now` are searched."""
    place = 0
    for e in range(now):
        row, kind = events[e] >> 3, events[e] & 7
        if kind == EXPLORE and nodes[row, PARENT] == nodes[leaf, PARENT]:
            if same_operation(nodes, row, leaf):
                return place
            place += 1
    return place


@part
def note_event(
    tokens: np.ndarray, at: int, nodes: np.ndarray, events: np.ndarray, now: int, path: np.ndarray
) -> int:
    """The tokens of one event; what the others imply is left out."""
    row, kind = events[now] >> 3, events[now] & 7
    if kind == EXPLORE:
        tokens[at] = E_ID
        at = note_number(tokens, at + 1, nodes[row, LEFT])
        tokens[at] = SIGN_IDS[nodes[row, OPERATOR]]
        at = note_number(tokens, at + 1, nodes[row, RIGHT])
        tokens[at] = EQUALS_ID
        at = note_number(tokens, at + 1, nodes[row, int(nodes[row, COUNT]) - 1])
        return note_list(tokens, at, nodes, row)
    if kind == MOVE:
        if events[now - 1] != row * 8 + GENERATED:
            tokens[at] = M_ID
            leaf = place_of_leaf(nodes, events, now, row) if nodes[row, COUNT] == 1 else -1
            at = note_name(tokens, at + 1, nodes, row, path, leaf)
        tokens[at] = S_ID
        return note_list(tokens, at + 1, nodes, row)
    if kind in (UNEQUAL, GOAL, EXHAUSTED):
        tokens[at] = X_ID if kind == UNEQUAL else G_ID if kind == GOAL else F_ID
        return at + 1
    return at


# ---- many problems


@entry
def trace(
    problems: np.ndarray,
    strategies: np.ndarray,
    seeds: np.ndarray,
    cap: int,
    legacy: bool,
    limit: int,
    with_text: bool,
    with_tokens: bool,
    budget: int,
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Search and write, one problem after the other, until `budget` bytes of text and tokens are exceeded.

    problems: int64 (N, 8), see `search`. Returns how many are done and, for these, explored operations and solved (0 or
    1), int64 (N,), text as bytes and where each one ends, int64 (N,), and the same for the tokens, int16.
    """
    count = len(problems)
    explored, solved = np.zeros(count, np.int64), np.zeros(count, np.int64)
    text, tokens = (
        np.empty(2**16 if with_text else 0, np.uint8),
        np.empty(2**13 if with_tokens else 0, np.int16),
    )
    text_ends, token_ends = np.zeros(count, np.int64), np.zeros(count, np.int64)
    nodes, scores = np.empty((512, WIDTH), np.int64), np.empty(512, np.float64)
    events, drafts, path = np.empty(2048, np.int64), np.empty((64, 5), np.int64), np.empty(8, np.int64)
    at, noted, done, root = ZERO, ZERO, 0, ZERO
    while done < count and (done == 0 or at + 2 * noted <= budget):
        problem = problems[done]
        nodes, scores, events, length, explored[done], found = search(
            nodes,
            scores,
            events,
            problem,
            strategies[done],
            seeds[done],
            cap,
            legacy,
            limit,
            drafts,
        )
        solved[done] = 1 if found else 0
        if with_text:
            for e in range(length):
                if at + LONGEST_LINE > len(text):
                    text = doubled(text)
                at = put_event(text, at, nodes, events[e] >> 3, events[e] & 7, problem[0], path)
        if with_tokens:
            for e in range(-1, length):
                if noted + LONGEST_LINE > len(tokens):
                    tokens = doubled(tokens)
                if e < 0:
                    tokens[noted], tokens[noted + 1] = START_ID, T_ID
                    noted = note_number(tokens, noted + 2, problem[0])
                    tokens[noted] = N_ID
                    noted = note_list(tokens, noted + 1, nodes, root)
                else:
                    noted = note_event(tokens, noted, nodes, events, e, path)
            tokens[noted] = END_ID
            noted += 1
        text_ends[done], token_ends[done] = at, noted
        done += 1
    return (
        done,
        explored[:done],
        solved[:done],
        text[:at],
        text_ends[:done],
        tokens[:noted],
        token_ends[:done],
    )
