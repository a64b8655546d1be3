"""Features of answers that linear heads read: made for training pairs once, and for new text in the same way later.

tfidf: TF-IDF of words, reduced by truncated SVD (Deerwester et al. 1990). minilm, lm: as in `probes` and
`probe_models`. reward: the state under the head of a sequence-classification reward model, its trunk. Beside them,
where wanted, a few counts of how an answer is written, since a person's taste is often one of length or form.

What was learned from the training pairs is kept as features.json and features.safetensors.

Letters: N pairs, n answers, W words kept, R raw features, D features.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from heedful.errors import HeedfulError
from heedful.evals.texts import sentence_count, words
from heedful.judges import probes
from heedful.judges.probes import Array, Featurise, Pair

Name = Literal["tfidf", "minilm", "lm", "reward", "scores"]
JSON, ARRAYS = "features.json", "features.safetensors"
REDUCED = 20_000
"""Pairs that the SVD is learned from."""
_LIST = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}\s", re.MULTILINE)
STYLE: dict[str, Callable[[str], float]] = {
    "words": lambda text: len(words(text)),
    "sentences": sentence_count,
    "paragraphs": lambda text: len(text.split("\n\n")),
    "list items": lambda text: len(_LIST.findall(text)),
    "headings": lambda text: len(_HEADING.findall(text)),
    "bold": lambda text: text.count("**") // 2,
    "code": lambda text: text.count("`"),
    "questions": lambda text: text.count("?"),
    "exclamations": lambda text: text.count("!"),
    "letters a word": lambda text: sum(map(len, w := words(text))) / max(1, len(w)),
}
"""How an answer is written; the logarithm of one more than each is a feature."""


@dataclass(frozen=True)
class How:
    """Which features: name, the model behind them, whether STYLE stands beside them, the size of the SVD."""

    name: Name = "tfidf"
    model: str = ""
    style: bool = True
    dimensions: int = 128
    precision: str = "auto"


def cache_key(name: str, model: str = "", *, two: bool = False, precision: str = "auto") -> str:
    """What raw features depend on beside the pairs. two: pairs of words too.

    Raises HeedfulError when the package that minilm needs is missing.
    """
    if name == "tfidf":
        return f"words {1 + two} {probes.HASHED} 1"
    if name == "minilm":
        from heedful.judges.probe_models import minilm_folder

        return f"minilm {minilm_folder(model)} 1"
    return f"{'states' if name == 'lm' else 'pooled'} {model} {precision} 1"


def weights_of(name: str, model: str) -> str:
    """What raw features depend on where `model` is a folder, in which another model may be tomorrow: its content."""
    if name not in ("minilm", "lm", "reward") or not Path(model or "-").expanduser().is_dir():
        return ""
    from heedful.hub import resolve
    from heedful.manifest import sha256_of

    return f" {sha256_of(Path(resolve(model)))}"


def pair_features(
    name: str, model: str = "", *, two: bool = False, precision: str = "auto", device: str = "auto"
) -> Featurise:
    """What makes raw features of pairs. Raises HeedfulError when its model cannot be loaded."""
    if name == "tfidf":
        return lambda pairs: probes.count_words(pairs, two=two)
    from heedful.device import pick_device
    from heedful.judges import probe_models

    if name == "minilm":
        return probe_models.embed_pairs(probe_models.encoder(model, pick_device(device)))
    make = probe_models.state_pairs if name == "lm" else probe_models.pooled_pairs
    return make(model, device=device, precision=precision)


def style(answers: Iterable[str]) -> Array:
    """(n, len(STYLE)): the logarithm of one more than each measure."""
    rows = [[measure(text) for measure in STYLE.values()] for text in answers]
    return np.log1p(np.asarray(rows, np.float32).reshape(len(rows), len(STYLE)))


class AnswerFeatures:
    """Turns prompts and answers into features (n, D), always in the same way."""

    def __init__(self, how: How, arrays: Mapping[str, Array], *, device: str = "auto") -> None:
        self.how, self.arrays, self.device = how, dict(arrays), device
        self._make: Featurise | None = None

    @property
    def size(self) -> int:
        """D."""
        return len(self.arrays["scale"])

    @property
    def about(self) -> str:
        """What the features are, in words."""
        kinds = {
            "tfidf": f"TF-IDF of words, {self.size - self._beside} directions of an SVD",
            "minilm": f"{self.how.model or 'all-MiniLM-L6-v2'} embeddings",
            "lm": f"mean hidden states of {self.how.model}",
            "reward": f"the state under the head of {self.how.model}",
            "scores": "saved scores of other reward models",
        }
        return kinds[self.how.name] + (f" and {len(STYLE)} counts of style" if self._beside else "")

    @property
    def _beside(self) -> int:
        return len(STYLE) if self.how.style and self.how.name != "scores" else 0

    @classmethod
    def learn(
        cls,
        how: How,
        parts: Sequence[Path],
        train: Array,
        pairs: Sequence[Pair],
        *,
        seed: int = 0,
        device: str = "auto",
    ) -> AnswerFeatures:
        """Learn what there is to learn from the training pairs: words and their SVD, and the scale of each feature.

        parts: cached raw features of all N pairs; train: mask (N,) of those to learn from; pairs: those, in order.
        Every feature has mean zero over the training answers, and is divided by the root mean square of its difference
        between the two answers of a pair; those of the SVD by one number for all, which keeps their order of size.
        Counts of style are cut to the range they have in the training answers: a policy that is tuned to such a reward
        would leave it. Labels play no part.
        """
        arrays: dict[str, Array] = {}
        if how.name == "tfidf":
            arrays |= _learn_words(parts, train, how.dimensions, seed)
        if how.style:
            counts = style(answer for pair in pairs for answer in pair[1:])
            arrays |= {"style_low": counts.min(0), "style_high": counts.max(0)}
        one = np.ones(1, np.float32)
        made = cls(how, arrays | {"scale": one, "mean": 0 * one}, device=device)
        chosen, rejected = made.placed(parts, train, pairs)
        scale = np.sqrt(np.mean((chosen - rejected).astype(np.float64) ** 2, 0))
        if how.name == "tfidf":
            reduced = slice(0, len(arrays["components"]))
            scale[reduced] = np.sqrt(np.mean(scale[reduced] ** 2))
        arrays["scale"] = np.where(scale > 1e-8, scale, 1.0).astype(np.float32)
        arrays["mean"] = (0.5 * (chosen.mean(0, np.float64) + rejected.mean(0, np.float64))).astype(
            np.float32
        )
        return cls(how, arrays, device=device)

    def placed(self, parts: Sequence[Path], mask: Array, pairs: Iterable[Pair]) -> tuple[Array, Array]:
        """Features of cached pairs: (chosen, rejected), (n, D) each. mask (N,): which; pairs: those, in order."""
        sides: tuple[list[Array], list[Array]] = ([], [])
        for part, kept in probes.masked(parts, mask):
            for side, made in zip(("chosen", "rejected"), sides, strict=True):
                made.append(self._raw(part, side, kept))
        chosen, rejected = (np.concatenate(made) for made in sides)
        if self._beside:
            some = list(pairs)
            chosen, rejected = (
                np.concatenate([made, self._style(pair[i] for pair in some)], 1)
                for i, made in ((1, chosen), (2, rejected))
            )
        return self._scaled(chosen), self._scaled(rejected)

    def of_pairs(self, pairs: Sequence[Pair]) -> tuple[Array, Array]:
        """Features of the two answers of each pair, (n, D) each.

        Raises HeedfulError where the heads are saved scores, which new text does not have.
        """
        if self.how.name == "scores":
            raise HeedfulError(
                "the heads of this run are saved scores of other reward models, so new text cannot be scored by them: "
                "give the answers' scores with the rows (`scores`, or `chosen_scores` and `rejected_scores`)"
            )
        if self._make is None:
            self._make = pair_features(
                self.how.name, self.how.model, precision=self.how.precision, device=self.device
            )
        part = self._make(pairs)
        kept = np.ones(len(pairs), bool)
        sides = [self._raw(part, side, kept) for side in ("chosen", "rejected")]
        if self._beside:
            sides = [
                np.concatenate([made, self._style(p[i] for p in pairs)], 1) for i, made in enumerate(sides, 1)
            ]
        return self._scaled(sides[0]), self._scaled(sides[1])

    def of(self, prompt: Any, answers: Sequence[str]) -> Array:
        """Features of answers to one prompt, (n, D)."""
        return self.of_answers([(prompt, answer) for answer in answers])

    def of_answers(self, answers: Sequence[tuple[Any, str]]) -> Array:
        """Features of (prompt, answer) pairs, (n, D). Two that follow one another are encoded together if they answer
        the same prompt."""
        pairs: list[Pair] = []
        places: list[tuple[int, int]] = []
        for prompt, answer in answers:
            if places and places[-1][1] == 0 and pairs[-1][0] == prompt:
                pairs[-1] = (prompt, pairs[-1][1], answer)
                places.append((len(pairs) - 1, 1))
            else:
                pairs.append((prompt, answer, answer))
                places.append((len(pairs) - 1, 0))
        if not pairs:
            return np.zeros((0, self.size), np.float32)
        sides = np.stack(self.of_pairs(pairs))
        return np.stack([sides[side, i] for i, side in places])

    def _scaled(self, raw: Array) -> Array:
        return (raw - self.arrays["mean"]) / self.arrays["scale"]

    def _style(self, answers: Iterable[str]) -> Array:
        return np.clip(style(answers), self.arrays["style_low"], self.arrays["style_high"])

    def _raw(self, part: dict[str, Array], side: str, kept: Array) -> Array:
        if self.how.name != "tfidf":
            return part[side][kept].astype(np.float32)
        return np.asarray(
            probes.weighted(part, side, kept, self._space) @ self.arrays["components"].T, np.float32
        )

    @cached_property
    def _space(self) -> probes.Space:
        columns = self.arrays["columns"]
        idf, column = np.zeros(probes.HASHED, np.float32), np.full(probes.HASHED, -1, np.int32)
        idf[columns], column[columns] = self.arrays["idf"], np.arange(len(columns))
        return probes.Space(idf, column, len(columns))

    # ---- on disk

    def save(self, folder: Path) -> None:
        """Write features.json and features.safetensors."""
        from safetensors.numpy import save

        from heedful.atomic import write_file

        write_file(folder / ARRAYS, save({name: np.ascontiguousarray(a) for name, a in self.arrays.items()}))
        write_file(folder / JSON, (json.dumps({**asdict(self.how), "size": self.size}) + "\n").encode())

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto") -> AnswerFeatures:
        """Read them back. Raises HeedfulError naming the file that is missing or damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        from heedful.config import from_plain
        from heedful.model_folder import read_json

        told = read_json(folder / JSON)
        told.pop("size", None)
        how = from_plain(How, told, str(folder / JSON))
        try:
            return cls(how, load_file(folder / ARRAYS), device=device)
        except (OSError, SafetensorError) as error:
            raise HeedfulError(
                f"{folder / ARRAYS} cannot be read ({error}); run the `heedful personalize fit` of this folder again"
            ) from error


def _learn_words(parts: Sequence[Path], train: Array, dimensions: int, seed: int) -> dict[str, Array]:
    """The words of the training answers, their weights, and the SVD of a part of these answers.

    Raises HeedfulError when no word is in two answers.
    """
    from scipy import sparse
    from sklearn.decomposition import TruncatedSVD

    space = probes.learn_space(parts, train)
    assert space.idf is not None
    if space.width < 2:
        raise HeedfulError("the training answers share no words: TF-IDF needs some; use --features minilm")
    some = train & (np.cumsum(train) <= REDUCED)
    rows = [
        probes.weighted(part, side, kept, space)
        for part, kept in probes.masked(parts, some)
        for side in ("chosen", "rejected")
    ]
    stacked: Any = sparse.vstack(rows).tocsr()
    size = max(1, min(dimensions, space.width - 1, stacked.shape[0] - 1))
    svd: Any = TruncatedSVD(size, random_state=seed % 2**32)
    svd.fit(stacked)
    columns = np.flatnonzero(space.idf).astype(np.int32)
    return {
        "columns": columns,
        "idf": space.idf[columns],
        "components": svd.components_.astype(np.float32),
    }
