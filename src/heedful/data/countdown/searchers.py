"""The twelve searchers of the paper, compiled: two depth-first, ten breadth-first with a beam.

A search fills three arrays. `nodes`, int64 (N, 12), has a row for every child that was kept: up to six numbers, how
many they are, the parent's row, the operation (index in `OPERATORS`, left, right; the result is the last number), and
the ordinal among its parent's children that its name ends in. `scores`, float64 (N,), has the heuristic. `events`,
int64 (M,), is the search in order, `row * 8 + kind`; `writers` turns it into text or tokens.

Order is that of the paper's code to the last tie: stable sorts, and the sift of Python's heapq.
Legacy: the breadth-first searchers also put finished leaves back and visit them again, which makes most of their text.
"""

from __future__ import annotations

import numpy as np

from heedful.data.countdown.compiled import ONE, ZERO, part
from heedful.data.countdown.twister import seed_twister, shuffle

COUNT, PARENT, OPERATOR, LEFT, RIGHT, ORDINAL, WIDTH = 6, 7, 8, 9, 10, 11, 12
STATE, MOVE, EXPLORE, GENERATED, UNEQUAL, GOAL, EXHAUSTED = range(7)
MOST_CHILDREN = 60  # six numbers: 15 pairs, 4 operations


@part
def move(a: int, b: int, operator: int) -> tuple[bool, int, int, int]:
    """(legal, left, right, result) of operator 0 to 3 on the pair (a, b), a before b in the state."""
    if operator == 0:
        return True, a, b, a + b
    if operator == 1:
        return True, a, b, a * b
    left, right = (b, a) if a <= b else (a, b)
    if operator == 2:
        return True, left, right, left - right
    if right == 0 or left % right != 0:
        return False, left, right, 0
    return True, left, right, left // right


@part
def divisor_distances(target: int) -> np.ndarray:
    """int64 (target + 1,): how far each number is from the nearest divisor of `target` in 2..target."""
    near = np.full(target + 1, target + 2, np.int64)
    for i in range(2, target + 1):
        if target % i == 0:
            near[i] = 0
    for i in range(1, target + 1):
        near[i] = min(near[i], near[i - 1] + 1)
    for i in range(target - 1, -1, -1):
        near[i] = min(near[i], near[i + 1] + 1)
    return near


@part
def distance(number: int, target: int, near: np.ndarray) -> int:
    """One number's part of the heuristic: to the target (`near` is empty), or to its nearest divisor."""
    if len(near) == 0 or number > target:
        return abs(number - target)
    return near[number]


@part
def expand(
    nodes: np.ndarray,
    scores: np.ndarray,
    start: int,
    at: int,
    target: int,
    near: np.ndarray,
    cap: int,
    beam: int,
    drafts: np.ndarray,
) -> int:
    """Append the children of row `at` that are kept, best first, from row `start` on; returns how many.

    beam 0 keeps those with a score up to the target (depth-first), else the best `beam` are kept. cap: the largest
    result that is a legal move; 0 is no limit. drafts: int64 (60, 5), scratch.
    """
    count = nodes[at, COUNT]
    whole = 0
    for i in range(count):
        whole += distance(nodes[at, i], target, near)
    kept = 0
    for i in range(count - 1):
        a = nodes[at, i]
        for j in range(i + 1, count):
            b = nodes[at, j]
            rest = whole - distance(a, target, near) - distance(b, target, near)
            for operator in range(4):
                legal, left, right, result = move(a, b, operator)
                if not legal or (cap > 0 and result > cap):
                    continue
                total = rest + distance(result, target, near)
                score = float(total) if len(near) > 0 else total / (count - 1)
                if beam == 0 and score > target:
                    continue
                place = kept
                while place > 0 and scores[start + place - 1] > score:
                    place -= 1
                if beam > 0 and place >= beam:
                    continue
                if beam == 0 or kept < beam:
                    kept += 1
                for k in range(kept - 1, place, -1):
                    scores[start + k] = scores[start + k - 1]
                    for field in range(5):
                        drafts[k, field] = drafts[k - 1, field]
                scores[start + place] = score
                drafts[place, 0] = i * 8 + j
                drafts[place, 1] = operator
                drafts[place, 2] = left
                drafts[place, 3] = right
                drafts[place, 4] = result
    for k in range(kept):
        row = start + k
        i, j = drafts[k, 0] >> 3, drafts[k, 0] & 7
        filled = 0
        for source in range(count):
            if source != i and source != j:
                nodes[row, filled] = nodes[at, source]
                filled += 1
        nodes[row, filled] = drafts[k, 4]
        nodes[row, COUNT] = count - 1
        nodes[row, PARENT] = at
        nodes[row, OPERATOR] = drafts[k, 1]
        nodes[row, LEFT] = drafts[k, 2]
        nodes[row, RIGHT] = drafts[k, 3]
        nodes[row, ORDINAL] = k
    return kept


@part
def doubled(array: np.ndarray) -> np.ndarray:
    """A copy with as much room again. (Assigning to a slice takes numba five seconds more to compile.)"""
    wider = np.empty(2 * len(array), array.dtype)
    for i in range(len(array)):
        wider[i] = array[i]
    return wider


@part
def with_room(
    nodes: np.ndarray, scores: np.ndarray, events: np.ndarray, rows: int, noted: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The arrays, doubled where one expansion might not fit any more."""
    if rows + MOST_CHILDREN > len(nodes):
        wider = np.empty((2 * len(nodes), WIDTH), np.int64)
        for row in range(rows):
            for field in range(WIDTH):
                wider[row, field] = nodes[row, field]
        nodes, scores = wider, doubled(scores)
    if noted + 5 * MOST_CHILDREN > len(events):
        events = doubled(events)
    return nodes, scores, events


@part
def depth_first(
    nodes: np.ndarray,
    scores: np.ndarray,
    events: np.ndarray,
    target: int,
    near: np.ndarray,
    cap: int,
    limit: int,
    drafts: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int, bool]:
    """The depth-first searchers from the root in row 0: (nodes, scores, events, events used, explored, solved).

    Children by heuristic, those above the target left out; after every child but the last the state is written again.
    """
    at, first, kids, reached = (
        np.zeros(8, np.int64),
        np.zeros(8, np.int64),
        np.zeros(8, np.int64),
        np.zeros(8, np.int64),
    )
    depth, explored, all_good = ZERO, ZERO, ZERO
    rows, noted = ONE, ONE
    events[0] = STATE
    first[0] = 1
    kids[0] = expand(nodes, scores, rows, at[0], target, near, cap, all_good, drafts)
    rows += kids[0]
    while True:
        nodes, scores, events = with_room(nodes, scores, events, rows, noted)
        here = at[depth]
        if reached[depth] == kids[depth]:
            if depth == 0:
                return nodes, scores, events, noted, explored, False
            depth -= 1
            here = at[depth]
        else:
            if explored == limit and limit > 0:
                return nodes, scores, events, noted, explored, False
            child = first[depth] + reached[depth]
            reached[depth] += 1
            explored += 1
            events[noted] = child * 8 + EXPLORE
            noted += 1
            if nodes[child, COUNT] > 1:
                events[noted] = child * 8 + GENERATED
                events[noted + 1] = child * 8 + MOVE
                events[noted + 2] = child * 8 + STATE
                noted += 3
                depth += 1
                at[depth], first[depth], reached[depth] = child, rows, 0
                kids[depth] = expand(nodes, scores, rows, child, target, near, cap, all_good, drafts)
                rows += kids[depth]
                continue
            if nodes[child, 0] == target:
                events[noted] = child * 8 + GOAL
                return nodes, scores, events, noted + 1, explored, True
            events[noted] = child * 8 + UNEQUAL
            noted += 1
        if reached[depth] < kids[depth]:
            events[noted] = here * 8 + MOVE
            events[noted + 1] = here * 8 + STATE
            noted += 2


@part
def sift_down(heap: np.ndarray, scores: np.ndarray, place: int) -> None:
    """heapq's `_siftdown`: an item moves towards the root while it is less than its parent."""
    item = heap[place]
    while place > 0:
        above = (place - 1) >> 1
        if not scores[item] < scores[heap[above]]:
            break
        heap[place] = heap[above]
        place = above
    heap[place] = item


@part
def heap_push(heap: np.ndarray, scores: np.ndarray, size: int, item: int) -> int:
    """heapq's `heappush`; returns the new size."""
    heap[size] = item
    sift_down(heap, scores, size)
    return size + 1


@part
def heap_pop(heap: np.ndarray, scores: np.ndarray, size: int) -> int:
    """heapq's `heappop` of a heap of `size`, which then has one less: the smaller child rises to the leaf."""
    best = heap[0]
    size -= 1
    item, place, child = heap[size], ZERO, ONE
    while child < size:
        if child + 1 < size and not scores[heap[child]] < scores[heap[child + 1]]:
            child += 1
        heap[place] = heap[child]
        place = child
        child = 2 * place + 1
    heap[place] = item
    sift_down(heap, scores, place)
    return best


@part
def breadth_first(
    nodes: np.ndarray,
    scores: np.ndarray,
    events: np.ndarray,
    target: int,
    near: np.ndarray,
    cap: int,
    beam: int,
    seed: int,
    legacy: bool,
    limit: int,
    drafts: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int, bool]:
    """The "breadth-first" searchers, which are best-first with a beam; the result is that of `depth_first`.

    The `beam` best of one heap are taken; of each, its `beam` best children are written in a random order and put into
    the heap, where what is left over stays.
    """
    twister = np.empty(625, np.int64)
    seeded = False
    heap = np.empty(256, np.int64)
    taken, order = np.empty(beam, np.int64), np.empty(beam, np.int64)
    explored, rows, noted, root = ZERO, ONE, ZERO, ZERO
    size = heap_push(heap, scores, root, root)
    while size > 0:
        width = min(beam, size)
        for w in range(width):
            taken[w] = heap_pop(heap, scores, size)
            size -= 1
        for w in range(width):
            nodes, scores, events = with_room(nodes, scores, events, rows, noted)
            events[noted] = taken[w] * 8 + STATE
            noted += 1
            kids = expand(nodes, scores, rows, taken[w], target, near, cap, beam, drafts)
            for k in range(kids):
                order[k] = rows + k
            rows += kids
            if kids > 1:
                if not seeded:
                    seed_twister(twister, seed)
                    seeded = True
                shuffle(twister, order, kids)
            named = 0
            for k in range(kids):
                if explored == limit and limit > 0:
                    return nodes, scores, events, noted, explored, False
                child = order[k]
                nodes[child, ORDINAL] = named
                explored += 1
                events[noted] = child * 8 + EXPLORE
                noted += 1
                if nodes[child, COUNT] > 1:
                    events[noted] = child * 8 + GENERATED
                    named += 1
                elif nodes[child, 0] == target:
                    events[noted] = child * 8 + GOAL
                    return nodes, scores, events, noted + 1, explored, True
                else:
                    events[noted] = child * 8 + UNEQUAL
                noted += 1
            for k in range(1, kids):
                item, place = order[k], k
                while place > 0 and scores[order[place - 1]] > scores[item]:
                    order[place] = order[place - 1]
                    place -= 1
                order[place] = item
            if size + kids > len(heap):
                heap = doubled(heap)
            for k in range(kids):
                if legacy or nodes[order[k], COUNT] > 1:
                    size = heap_push(heap, scores, size, order[k])
            if w + 1 < width:
                events[noted] = taken[w + 1] * 8 + MOVE
                noted += 1
        if size > 0:
            events[noted] = heap[0] * 8 + MOVE
            noted += 1
    events[noted] = EXHAUSTED
    return nodes, scores, events, noted + 1, explored, False


@part
def search(
    nodes: np.ndarray,
    scores: np.ndarray,
    events: np.ndarray,
    problem: np.ndarray,
    strategy: int,
    seed: int,
    cap: int,
    legacy: bool,
    limit: int,
    drafts: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int, bool]:
    """Run strategy 0 to 11 (`game.STRATEGIES`) on a problem, int64 (8,): target, how many numbers, the numbers.

    Returns (nodes, scores, events, events used, explored, solved). limit: stop after so many operations; 0 is never.
    """
    target, count = problem[0], problem[1]
    near = divisor_distances(target) if strategy >= 6 else np.empty(0, np.int64)
    whole = 0
    for i in range(count):
        nodes[0, i] = problem[2 + i]
        whole += distance(problem[2 + i], target, near)
    nodes[0, COUNT], nodes[0, PARENT], nodes[0, OPERATOR], nodes[0, ORDINAL] = count, -1, -1, 0
    scores[0] = float(whole) if strategy >= 6 else whole / count
    beam = strategy % 6
    if beam == 0:
        return depth_first(nodes, scores, events, target, near, cap, limit, drafts)
    return breadth_first(nodes, scores, events, target, near, cap, beam, seed, legacy, limit, drafts)
