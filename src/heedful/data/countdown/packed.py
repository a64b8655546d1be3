"""Streams of different lengths as rows of one length, with as little padding as possible."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from heedful.data.countdown.compiled import entry
from heedful.errors import HeedfulError


class Packed(NamedTuple):
    """R rows of T tokens, each with whole streams one behind the other.

    ids: int64 (R, T), padded at the end. segments: int32 (R, T), 1 for the first stream of a row, 2 for the second, 0
    for padding; a token may attend to those before it in its segment. positions: int32 (R, T), from 0 in each stream.
    cut: how many streams were longer than a row and lost their end.
    """

    ids: np.ndarray
    segments: np.ndarray
    positions: np.ndarray
    cut: int

    @property
    def predicted(self) -> np.ndarray:
        """bool (R, T): the tokens that count in the loss, the end of a stream among them, its beginning not."""
        return (self.segments > 0) & (self.positions > 0)


@entry
def places(lengths: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Best fit: for each stream, in order, its row and where in it, int64 (N,), and how many rows there are.

    A stream goes to the row with the least room that is enough, the youngest of those; lengths are at most `context`.
    """
    count = len(lengths)
    row_of, offsets, room = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int64)
    # For each room, a chain of the rows that have it.
    first, following = np.full(context + 1, -1, np.int64), np.empty(count, np.int64)
    rows = 0
    for i in range(count):
        left = lengths[i]
        while left <= context and first[left] < 0:
            left += 1
        if left > context:
            row = rows
            rows += 1
            room[row] = context
        else:
            row = first[left]
            first[left] = following[row]
        row_of[i], offsets[i] = row, context - room[row]
        room[row] -= lengths[i]
        following[row] = first[room[row]]
        first[room[row]] = row
    return row_of, offsets, rows


def pack(tokens: np.ndarray, ends: np.ndarray, context: int, *, padding: int = 0) -> Packed:
    """Lay streams out in rows of `context` tokens.

    tokens: all streams behind each other; ends: int64 (N,), where each ends. A stream longer than a row keeps its first
    `context` tokens and so has no end to be learned; such streams are counted. Rows with long streams come first.
    Raises HeedfulError for an empty stream or a context below 2.
    """
    ends = np.asarray(ends, np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]]) if len(ends) else ends
    whole = ends - starts
    if context < 2 or (len(whole) and whole.min() < 1):
        raise HeedfulError("packing needs rows of at least 2 tokens and streams of at least 1")
    lengths = np.minimum(whole, context)
    row_of, offsets = np.empty((2, len(lengths)), np.int64)
    # The longest first: what is left open is then filled by the short ones.
    falling = np.argsort(-lengths, kind="stable")
    row_of[falling], offsets[falling], rows = places(lengths[falling], context)
    ids = np.full(rows * context, padding, np.int64)
    segments, positions = np.zeros(rows * context, np.int32), np.zeros(rows * context, np.int32)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    to = np.repeat(row_of * context + offsets, lengths) + within
    ids[to] = np.asarray(tokens)[np.repeat(starts, lengths) + within]
    positions[to] = within
    order = np.lexsort((offsets, row_of))
    firsts = np.searchsorted(row_of[order], np.arange(rows))
    numbers = np.empty(len(lengths), np.int32)
    numbers[order] = np.arange(len(lengths)) - firsts[row_of[order]] + 1
    segments[to] = np.repeat(numbers, lengths)
    shape = (rows, context)
    return Packed(
        ids.reshape(shape), segments.reshape(shape), positions.reshape(shape), int((whole > context).sum())
    )
