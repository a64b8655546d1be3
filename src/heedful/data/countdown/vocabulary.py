"""The tokens of the compact language and their ids."""

from __future__ import annotations

# What a stream says, a letter each. T target, N numbers, E explored operation, S the state that is entered, M another
# node that is moved to, L the leaf of a node (legacy only), X not the target, G the goal, F no solution.
PAD, START, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
SPECIAL = (PAD, START, END, UNKNOWN)
WORDS = ("T", "N", "E", "S", "M", "L", "X", "G", "F", "=", ",")
# Numbers are one token up to 999. A larger one is written in thousands: `12 , 345`.
THOUSAND = 1000
TOKENS = (*SPECIAL, *WORDS, *"+*-/", *map(str, range(THOUSAND)))
ID = {token: i for i, token in enumerate(TOKENS)}
