"""BM25 over an index on disk, in the format of bm25s (Lù 2024, arXiv 2407.03618), which any bm25s program can open.

The index is built here part by part: words are counted for some thousand passages at a time, which is what a kill can
cost, and the parts are laid out in one pass each. So memory stays bounded, and the result does not depend on the parts.
Scores are those of bm25s's method "lucene": idf * tf / (tf + k1 * (1 - b + b * length / mean length)).

Letters: N passages, V different words, E pairs of a passage and a word in it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from heedful.atomic import make_folder, write_file, write_folder, writing
from heedful.config import content_hash
from heedful.data.passages import Passages
from heedful.errors import HeedfulError
from heedful.judges.search import Hit, check_k

PART = 20_000
"""Passages whose words are counted together."""
INSTALL = "pip install -c constraints.txt 'heedful[retrieve]'"
FEW = 32
"""Hits that are found by as many passes over all scores."""
COMPILED_FROM = 50_000
"""Passages from which on compiling the scorer, some seconds once a process, pays for itself."""
_WORD = re.compile(r"\b\w\w+\b")


def _bm25s() -> Any:
    # bm25s starts JAX where that is installed, and JAX takes three quarters of a GPU's memory; it is not used here.
    hidden = "jax" not in sys.modules
    if hidden:
        sys.modules["jax"] = None  # type: ignore[assignment]
    try:
        import bm25s
    except ImportError as error:
        raise HeedfulError(f"BM25 needs the package bm25s, which is not installed; run: {INSTALL}") from error
    finally:
        if hidden:
            del sys.modules["jax"]
    return bm25s


@lru_cache(maxsize=4)
def word_reader(language: str) -> Callable[[str], list[str]]:
    """From a text to its words: two characters or more, in lower case, without stop words, stemmed.

    language: one of Snowball's, such as english or german; "none" keeps every word as it is. Stop words are those of
    bm25s, which has lists for thirteen languages. Raises HeedfulError for an unknown language.
    """
    if language == "none":
        return lambda text: _WORD.findall(text.lower())
    stopwords = _bm25s().stopwords
    try:
        import Stemmer
    except ImportError as error:
        raise HeedfulError(
            f"stems of words need the package PyStemmer, which is not installed; run: {INSTALL}"
        ) from error
    if language not in Stemmer.algorithms():
        known = ", ".join(["none", *Stemmer.algorithms()])
        raise HeedfulError(f"there is no stemmer for {language!r}; choose one of {known}")
    stemmer = Stemmer.Stemmer(language, 0)
    listed = getattr(stopwords, f"STOPWORDS_{'EN' if language == 'english' else language.upper()}", ())
    stems = _Stems(dict.fromkeys(listed, ""))
    stems.stem = stemmer.stemWord

    def read(text: str) -> list[str]:
        return [stem for stem in map(stems.__getitem__, _WORD.findall(text.lower())) if stem]

    return read


class _Stems(dict[str, str]):
    """The stem of each word, "" for a stop word; found once."""

    stem: Callable[[str], str]

    def __missing__(self, word: str) -> str:
        self[word] = found = self.stem(word)
        return found


class _Numbers(dict[str, int]):
    """Words in the order in which they were first asked for."""

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number


# ---- building


def build(passages: Passages, folder: Path, options: dict[str, Any], told: Callable[[int], None]) -> None:
    """Write the index of all passages into `folder`; parts that an earlier start has counted are not counted again.

    options: language, k1, b, and a hash of the passages, kept beside the index. told: called with the number of
    passages counted so far.
    Raises HeedfulError for options out of their range and when the disk is full.
    """
    if not options["k1"] >= 0 or not 0 <= options["b"] <= 1:
        raise HeedfulError(
            f"k1 must be 0 or more and b from 0 to 1, not {options['k1']:g} and {options['b']:g}"
        )
    read = word_reader(options["language"])
    parts = folder.with_name(f"{folder.name}.parts")
    make_folder(parts)
    files = []
    for first in range(0, len(passages), PART):
        file = parts / f"{first // PART:06d}.safetensors"
        if not file.exists():
            write_file(file, _count(passages, first, read))
        files.append(file)
        told(min(len(passages), first + PART))
    write_folder(folder, lambda beside: _lay_out(files, beside, len(passages), options))


def _count(passages: Passages, first: int, read: Callable[[str], list[str]]) -> bytes:
    """The words of a part: "words", V of them joined by line breaks; of each passage its "length", of each of E pairs
    "passage", "word" and "count", by passage and word."""
    from safetensors.numpy import save

    numbers = _Numbers()
    ids: list[int] = []
    lengths: list[int] = []
    for passage in passages.read(first, first + PART):
        found = read(passage.words)
        lengths.append(len(found))
        ids += map(numbers.__getitem__, found)
    where = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    pairs, counts = np.unique(where * max(1, len(numbers)) + np.array(ids, np.int64), return_counts=True)
    passage, word = np.divmod(pairs, max(1, len(numbers)))
    return save(
        {
            "words": np.frombuffer("\n".join(numbers).encode() or b"\n", np.uint8),
            "length": np.array(lengths, np.int32),
            "passage": passage.astype(np.int32),
            "word": word.astype(np.int32),
            "count": counts.astype(np.int32),
        }
    )


def _lay_out(files: Sequence[Path], folder: Path, count: int, options: dict[str, Any]) -> None:
    from safetensors.numpy import load_file

    words: set[str] = set()
    for file in files:
        words |= set(_words(load_file(file)["words"]))
    # in alphabetical order, so that the same corpus gives the same bytes whatever the parts were
    vocabulary = {word: i for i, word in enumerate(sorted(words))}
    df = np.zeros(len(vocabulary), np.int64)
    total = 0
    for file in files:
        part = load_file(file)
        total += int(part["length"].sum())
        df += np.bincount(_renumbered(part, vocabulary)[part["word"]], minlength=len(vocabulary))
    if not len(vocabulary):
        raise HeedfulError(
            "no passage has a word of two characters that is no stop word; try --language none"
        )
    mean = total / count
    idf = np.log(1 + (count - df + 0.5) / (df + 0.5))
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(df)])
    data = _mapped(folder / "data.csc.index.npy", np.float32, int(starts[-1]))
    indices = _mapped(folder / "indices.csc.index.npy", np.int32, int(starts[-1]))
    free = starts[:-1].copy()
    first = 0
    for file in files:
        part = load_file(file)
        word = _renumbered(part, vocabulary)[part["word"]]
        if not len(word):
            first += len(part["length"])
            continue
        order = np.argsort(word, kind="stable")
        sorted_words = word[order]
        begins = np.flatnonzero(np.r_[True, sorted_words[1:] != sorted_words[:-1]])
        runs = np.diff(np.r_[begins, len(sorted_words)])
        place = free[sorted_words] + np.arange(len(order)) - np.repeat(begins, runs)
        free[sorted_words[begins]] += runs
        tf, passage = part["count"][order].astype(np.float64), part["passage"][order]
        length = part["length"][passage]
        norm = options["k1"] * (1 - options["b"] + options["b"] * length / mean)
        data[place] = idf[sorted_words] * tf / (tf + norm)
        indices[place] = passage + first
        first += len(part["length"])
    data.flush()
    indices.flush()
    np.save(folder / "indptr.csc.index.npy", starts, allow_pickle=False)
    (folder / "vocab.index.json").write_text(
        json.dumps(vocabulary | {"": len(vocabulary)}, ensure_ascii=False)
    )
    told = {"k1": options["k1"], "b": options["b"], "delta": 0.5, "method": "lucene", "idf_method": "lucene"}
    told |= {"dtype": "float32", "int_dtype": "int32", "num_docs": count, "backend": "numpy"}
    (folder / "params.index.json").write_text(json.dumps({**told, "version": _bm25s().__version__}))
    (folder / "options.json").write_text(json.dumps(options))


def _mapped(path: Path, kind: Any, size: int) -> Any:
    with writing(path):
        return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(size,))


def _words(joined: np.ndarray) -> list[str]:
    return [word for word in joined.tobytes().decode().split("\n") if word]


def _renumbered(part: dict[str, np.ndarray], vocabulary: dict[str, int]) -> np.ndarray:
    return np.array([vocabulary[word] for word in _words(part["words"])], np.int64)


# ---- searching


class Bm25:
    """BM25 on an index folder; its arrays stay on disk and are mapped into memory. See `Retriever`."""

    def __init__(self, passages: Passages, folder: Path, options: dict[str, Any]) -> None:
        self.passages = passages
        self._options = options
        self._read = word_reader(options["language"])
        try:
            self._index = _bm25s().BM25.load(
                folder, mmap=True, backend="numba" if len(passages) >= COMPILED_FROM else "numpy"
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HeedfulError(f"{folder} holds no BM25 index ({error}); make it again") from error

    @property
    def fingerprint(self) -> str:
        """See `Retriever`."""
        return content_hash(["bm25", self._options])

    def __call__(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """See `Retriever`. A word that occurs twice in a query counts twice; ties go to the earlier passage."""
        check_k(k)
        numbers, scores = self.search(queries, k)
        return [
            [Hit(self.passages[int(n)], float(s)) for n, s in zip(*found, strict=True) if s > 0]
            for found in zip(numbers, scores, strict=True)
        ]

    def search(self, queries: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """(Q, k) passage numbers and scores, best first; where there are fewer hits, the scores of the rest are 0."""
        k = min(k, len(self.passages))
        numbers, scores = np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k), np.float32)
        for i, query in enumerate(queries):
            ids = self._index.get_tokens_ids(self._read(query))
            if ids:
                numbers[i], scores[i] = best(self._index.get_scores_from_ids(ids), k)
        return numbers, scores


def best(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k highest of (N,) scores, best first, as (numbers, scores); of equal ones those that come first."""
    if k >= len(scores):
        order = np.argsort(-scores, kind="stable")
    elif (
        k <= FEW
    ):  # a pass for each of them, which finds the first of equal ones, is cheaper than a partition
        left = scores.copy()
        order = np.zeros(k, np.int64)
        for i in range(k):
            order[i] = left.argmax()
            left[order[i]] = -np.inf
    else:
        bound = np.partition(scores, len(scores) - k)[len(scores) - k]
        above = np.flatnonzero(scores > bound)
        level = np.flatnonzero(scores == bound)[: k - len(above)]
        order = np.concatenate([above[np.argsort(-scores[above], kind="stable")], level])
    return order, scores[order]
