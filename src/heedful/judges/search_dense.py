"""Dense retrieval: passages and queries as unit vectors of an encoder, compared exactly, vectors mapped from disk.

Exact search reads every vector once for a batch of queries: no recall is lost, nothing is tuned, and a batch costs what
reading the vectors costs. A million passages of MiniLM are 1.5 GB.

Letters: N passages, Q queries, D dimensions.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from heedful.atomic import make_folder, write_file, write_folder, writing
from heedful.config import content_hash
from heedful.data.passages import Passages
from heedful.errors import HeedfulError
from heedful.judges.search import Hit, check_k
from heedful.judges.search_words import best

PART = 1024
"""Passages that are embedded together, which a kill can cost."""
BLOCK = 65_536
"""Vectors in memory at once while searching (96 MiB of MiniLM's)."""
Embed = Callable[[Sequence[str]], np.ndarray]
VECTORS = "vectors.npy"


def encoder_of(model: str, device: str) -> Embed:
    """Texts to unit vectors (n, D) float32, by `probe_models.encoder`."""
    from heedful.judges.probe_models import encoder

    return encoder(model, device)


def weights_of(model: str) -> str:
    """A hash of an encoder's weights where they are on this machine, else its name."""
    from heedful import hub
    from heedful.judges.probe_models import minilm_folder
    from heedful.manifest import sha256_of

    folder = hub.resolve(minilm_folder(model))
    if isinstance(folder, str):
        return folder
    return content_hash([sha256_of(file) for file in sorted(folder.glob("*.safetensors"))])


def build(
    passages: Passages,
    folder: Path,
    options: dict[str, Any],
    embed: Callable[[], Embed],
    told: Callable[[int], None],
) -> None:
    """Embed all passages into `folder`; parts that an earlier start has embedded are not embedded again.

    options: model, a hash of its weights and one of the passages, kept beside the index. embed: makes the encoder; not
    called when every part is there. told: called with the number of passages embedded so far.
    Raises HeedfulError when the disk is full.
    """
    parts = folder.with_name(f"{folder.name}.parts")
    make_folder(parts)
    files, encoder = [], None
    for first in range(0, len(passages), PART):
        file = parts / f"{first // PART:06d}.npy"
        if not file.exists():
            encoder = encoder or embed()
            vectors = encoder([passage.words for passage in passages.read(first, first + PART)])
            beside = io.BytesIO()
            np.save(beside, np.asarray(vectors, np.float32), allow_pickle=False)
            write_file(file, beside.getvalue())
        files.append(file)
        told(min(len(passages), first + PART))

    def fill(beside: Path) -> None:
        width = np.load(files[0], mmap_mode="r", allow_pickle=False).shape[1]
        with writing(beside):
            whole = np.lib.format.open_memmap(
                beside / VECTORS, mode="w+", dtype=np.float32, shape=(len(passages), width)
            )
            for i, file in enumerate(files):
                whole[i * PART : (i + 1) * PART] = np.load(file, allow_pickle=False)
            whole.flush()
        (beside / "options.json").write_text(json.dumps(options))

    write_folder(folder, fill)


class Dense:
    """Exact search by cosine on an index folder. See `Retriever`. The encoder is loaded at the first query."""

    def __init__(
        self, passages: Passages, folder: Path, options: dict[str, Any], *, device: str = "cpu"
    ) -> None:
        self.passages = passages
        self._options, self._device = options, device
        try:
            self._vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise HeedfulError(f"{folder} holds no vectors ({error}); make the index again") from error
        if len(self._vectors) != len(passages):
            raise HeedfulError(
                f"{folder} has {len(self._vectors):,} vectors for {len(passages):,} passages; make the index again"
            )

    @cached_property
    def _embed(self) -> Embed:
        weights = weights_of(self._options["model"])
        if weights != self._options["weights"]:
            raise HeedfulError(
                f"the encoder {self._options['model']} has other weights than when the index was made: make it again "
                "with --rebuild"
            )
        return encoder_of(self._options["model"], self._device)

    @property
    def fingerprint(self) -> str:
        """See `Retriever`."""
        return content_hash(["dense", self._options])

    def __call__(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """See `Retriever`. Scores are cosines, the same up to rounding whatever else is asked at the same time; every
        query but a blank one has k hits, if there are so many passages."""
        check_k(k)
        asked = [i for i, query in enumerate(queries) if query.strip()]
        found: list[list[Hit]] = [[] for _ in queries]
        if asked:
            numbers, scores = self.search(self._embed([queries[i] for i in asked]), k)
            for i, some, values in zip(asked, numbers, scores, strict=True):
                found[i] = [Hit(self.passages[int(n)], float(s)) for n, s in zip(some, values, strict=True)]
        return found

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(Q, k) numbers and cosines of the vectors nearest to (Q, D) queries, best first; ties to the earlier one."""
        k = min(k, len(self._vectors))
        numbers = np.zeros((len(vectors), 0), np.int64)
        scores = np.zeros((len(vectors), 0), np.float32)
        for first in range(0, len(self._vectors), BLOCK):
            near = vectors @ np.asarray(self._vectors[first : first + BLOCK]).T
            picked = np.stack([best(row, k)[0] for row in near])
            numbers = np.concatenate([numbers, picked + first], 1)
            scores = np.concatenate([scores, np.take_along_axis(near, picked, 1)], 1)
            # stable: what stands in an earlier block stays before equal scores of a later one
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            numbers, scores = (np.take_along_axis(part, order, 1) for part in (numbers, scores))
        return numbers, scores
