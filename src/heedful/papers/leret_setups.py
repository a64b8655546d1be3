"""What LeReT is tried on: a generated world, FOLDOC, and real multi-hop questions; their files, and who starts there.

A setup has one corpus; every seed has questions of its own to learn from and to be tested on (of the real questions:
another split). Where the data, or a package, are not at hand, `missing` says so.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from heedful.data.hops import Question, read_questions
from heedful.errors import HeedfulError
from heedful.papers.leret_writer import Writer, make_practised, make_writer, perfect_reader
from heedful.run import Run, derive_seed

if TYPE_CHECKING:
    from heedful.recipes.retrieve_pipeline import Read

Kind = Literal["world", "foldoc", "real"]
REAL = "multihop"
"""The folder of the real questions in ../shared/data."""


@dataclass(frozen=True)
class Data:
    """kind: which; train, dev, test: questions of a seed (dev: of the first seed alone, to choose learning rates by);
    entities, lengths: of a generated world; writer: how its start model is made, else it is SmolLM2; practice: on how
    many questions of another world SmolLM2 practises first."""

    kind: Kind
    train: int
    test: int
    dev: int = 0
    entities: int = 1200
    lengths: tuple[int, ...] = (2, 3)
    writer: Writer | None = None
    practice: int = 0


@dataclass(frozen=True)
class Files:
    """What a run of `heedful retrieve train` is given."""

    corpus: str
    train: str
    test: str
    dev: str
    read: Read | None


def shared_folder() -> Path | None:
    """The real questions beside the checkout, or None where they are not."""
    places = (Path(__file__).resolve().parents[4], Path.cwd().resolve().parent)
    found = [place / "shared" / "data" / REAL for place in places]
    return next(
        (f for f in found if (f / "train.jsonl").is_file() and (f / "corpus.jsonl.gz").is_file()), None
    )


def missing(data: Data, retriever: str) -> str:
    """Why nothing can be run here with a setup and a retriever; "" where it can."""
    from heedful.data.hops.foldoc import FOLDER, INSTALL, installed

    if data.kind == "foldoc" and not installed():
        return f"FOLDOC is not installed in {FOLDER}; on Debian and Ubuntu: {INSTALL}"
    if data.kind == "real" and shared_folder() is None:
        return f"the real questions are not beside the checkout, in ../shared/data/{REAL}"
    if importlib.util.find_spec("bm25s") is None:
        return "the package bm25s is not installed, which the extra retrieve has"
    from heedful.judges.probe_models import minilm_folder
    from heedful.smollm2 import packaged_gguf

    try:
        if retriever == "dense":
            minilm_folder()
        if data.writer is None:
            packaged_gguf()
    except HeedfulError as error:
        return str(error)
    return ""


def files(data: Data, setup: str, seed: int, run: Run) -> Files:
    """The files of a seed, written where they are not there yet."""
    place = f"{setup}/seed{seed}"
    sides: dict[str, list[Question]]
    if data.kind == "real":
        sides = split(real_questions(), data, seed)
        corpus, read = str(_shared("corpus.jsonl.gz")), None
    else:
        source, read = _source(data)
        corpus = str(run.path(f"{setup}/corpus.jsonl"))
        run.once(f"{setup}/corpus.jsonl", lambda: [passage._asdict() for passage in source.passages])
        sides = {
            "train": source.questions("train", seed * data.train, data.train),
            "test": source.questions("test", seed * data.test, data.test),
            "dev": source.questions("dev", 0, data.dev),
        }
    for side, some in sides.items():
        run.once(f"{place}/{side}.jsonl", lambda some=some: [q.as_row() for q in some])
    paths = {side: str(run.path(f"{place}/{side}.jsonl")) for side in ("train", "test", "dev")}
    return Files(corpus, **paths, read=read)


def _shared(name: str) -> Path:
    folder = shared_folder()
    if folder is None:
        raise HeedfulError(
            f"../shared/data/{REAL} is not beside the checkout any more; it was when this run began"
        )
    return folder / name


def real_questions() -> list[Question]:
    """All of them. Raises HeedfulError when they are not beside the checkout."""
    return read_questions(_shared("train.jsonl"))


def split(questions: Sequence[Question], data: Data, seed: int) -> dict[str, list[Question]]:
    """Real questions to learn from and to be tested on, each kind of question in both in the same share."""
    sides: dict[str, list[Question]] = {"train": [], "test": [], "dev": []}
    by_source: dict[str, list[Question]] = {}
    for question in questions:
        by_source.setdefault(question.source, []).append(question)
    for source, some in sorted(by_source.items()):
        random.Random(derive_seed(seed, "split", source)).shuffle(some)
        part = round(data.test / len(by_source))
        sides["test"] += some[:part]
        sides["train"] += some[part : part + round(data.train / len(by_source))]
    random.Random(derive_seed(seed, "order")).shuffle(sides["train"])  # the bootstrap takes the first ones
    return sides


def model(
    data: Data, setup: str, files: Files, run: Run, *, hops: int, k: int, passage_words: int, demos: int
) -> str:
    """The start model: SmolLM2, with practice or without, or the small writer, made from the training questions."""
    if data.practice:
        how = {"hops": hops, "k": k, "passage_words": passage_words, "demos": demos}
        name = f"{setup}/practised"
        return str(make_practised(data.entities, data.lengths, data.practice, **how, run=run, name=name))
    if data.writer is None:
        return "smollm2"
    from heedful.data.hops.world import World
    from heedful.judges.search_index import cached_index

    world = World(0, data.entities, data.lengths)
    questions = read_questions(files.train)
    _, retriever = cached_index(files.corpus, "bm25", quiet=True)
    made = make_writer(
        world, questions, retriever, data.writer, hops=hops, k=k, run=run, name=f"{setup}/writer"
    )
    return str(made)


@dataclass(frozen=True)
class _Source:
    passages: Any
    ask: Any
    counts: dict[str, int]

    def questions(self, side: str, first: int, count: int) -> list[Question]:
        """Questions first to first + count - 1 of a side. Raises HeedfulError when there are not so many."""
        if first + count > self.counts[side]:
            raise HeedfulError(
                f"there are {self.counts[side]:,} {side} questions, not {first + count:,}: take fewer seeds"
            )
        return [self.ask(side, i) for i in range(first, first + count)]


def _source(data: Data) -> tuple[_Source, Read]:
    if data.kind == "world":
        from heedful.data.hops.world import World

        world = World(0, data.entities, data.lengths)
        counts = {side: world.question_count(side) for side in ("train", "dev", "test")}
        return _Source(world, world.question, counts), perfect_reader(world)
    from heedful.data.hops.foldoc import load_foldoc
    from heedful.recipes.retrieve_pipeline import found_titles

    foldoc = load_foldoc()
    every = {side: foldoc.questions(side) for side in ("train", "dev", "test")}
    source = _Source(
        foldoc.passages(), lambda side, i: every[side][i], {side: len(some) for side, some in every.items()}
    )
    return source, lambda turns: [foldoc.read(turn.question, found_titles(turn)) for turn in turns]
