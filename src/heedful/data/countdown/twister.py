"""Python's `random`: the Mersenne Twister as `random.seed(n)` and `random.shuffle` use it (Matsumoto, Nishimura 1998).

The paper's breadth-first searcher shuffles with it, so the same seed must give the same order. Everything is int64:
no product here reaches 2**63.
"""

from __future__ import annotations

import numpy as np

from heedful.data.countdown.compiled import part

SIZE, MIDDLE = 624, 397
MASK = 0xFFFFFFFF


@part
def seed_twister(state: np.ndarray, seed: int) -> None:
    """Put `random.seed(seed)` into `state`, int64 (625,): 624 words and how many are used up."""
    seed = abs(seed)
    low, high = seed & MASK, seed >> 32
    words = 2 if high else 1
    state[0] = 19650218
    for i in range(1, SIZE):
        state[i] = (1812433253 * (state[i - 1] ^ (state[i - 1] >> 30)) + i) & MASK
    i, j = 1, 0
    for _ in range(SIZE):
        key = low if j == 0 else high
        state[i] = ((state[i] ^ ((state[i - 1] ^ (state[i - 1] >> 30)) * 1664525)) + key + j) & MASK
        i += 1
        j += 1
        if i == SIZE:
            state[0] = state[SIZE - 1]
            i = 1
        if j == words:
            j = 0
    for _ in range(SIZE - 1):
        state[i] = ((state[i] ^ ((state[i - 1] ^ (state[i - 1] >> 30)) * 1566083941)) - i) & MASK
        i += 1
        if i == SIZE:
            state[0] = state[SIZE - 1]
            i = 1
    state[0] = 0x80000000
    state[SIZE] = SIZE


@part
def next_word(state: np.ndarray) -> int:
    """The next 32 random bits."""
    if state[SIZE] == SIZE:
        for i in range(SIZE):
            y = (state[i] & 0x80000000) | (state[(i + 1) % SIZE] & 0x7FFFFFFF)
            state[i] = state[(i + MIDDLE) % SIZE] ^ (y >> 1) ^ (0x9908B0DF if y & 1 else 0)
        state[SIZE] = 0
    y = int(state[int(state[SIZE])])
    state[SIZE] += 1
    y ^= y >> 11
    y ^= (y << 7) & 0x9D2C5680
    y ^= (y << 15) & 0xEFC60000
    return y ^ (y >> 18)


@part
def shuffle(state: np.ndarray, items: np.ndarray, count: int) -> None:
    """`random.shuffle` of the first `count` items."""
    for last in range(count - 1, 0, -1):
        n = last + 1
        bits = 0
        while n >> bits:
            bits += 1
        other = next_word(state) >> (32 - bits)
        while other >= n:
            other = next_word(state) >> (32 - bits)
        items[last], items[other] = items[other], items[last]
