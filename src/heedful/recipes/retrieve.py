"""`heedful retrieve index | ask | generate`: options, and what the terminal shows. `eval` is in retrieve_eval.

The job is LeReT's (Hsu et al. 2024, arXiv 2410.23214): to search a corpus in several hops, and to learn by trying what
to search for. So far here: corpora and their indexes, the pipeline, and how well any writer of queries does in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.recipes.retrieve_pipeline import Turn

EXCERPT = 160
"""Characters of a hit that the terminal shows."""


@dataclass(frozen=True)
class Index:
    """Make a corpus searchable, once. The same command again goes on where it stopped, or finds the index done."""

    corpus: Positional[Annotated[str, arg(metavar="CORPUS")]]
    """Passages: text, title and id. JSONL (also .gz), Parquet, CSV or hub:owner/name."""
    out: str = "runs/index"
    """The folder of the index."""
    retriever: Literal["bm25", "dense", "hybrid"] = "bm25"
    """What it is for; hybrid makes both parts."""
    language: str = "english"
    """bm25: of stems and stop words, as Snowball calls it; none takes words as they are."""
    k1: float = 0.9
    """bm25: how soon further occurrences of a word stop counting."""
    b: float = 0.4
    """bm25: how much long passages are marked down, 0 to 1."""
    model: str = "minilm"
    """dense: the encoder, minilm or a folder or Hub id of the same layout."""
    drop_faulty_rows: bool = False
    """Leave out passages that have errors, and count them, instead of stopping."""
    rebuild: bool = False
    """Make it anew where it is of another corpus or has other options."""
    device: str = "auto"
    """dense: cpu, cuda, mps or auto."""
    json: bool = False
    """Print what was found as JSON."""
    quiet: bool = False
    """No progress display."""


@dataclass(frozen=True)
class Ask:
    """Search for the answer to one question, and show each hop's query and what it found."""

    run: Positional[Annotated[str, arg(metavar="RUN")]]
    """Who writes the queries: a run, a model, an OpenAI-compatible server, or a rule: question, passage, title."""
    question: Positional[Annotated[str, arg(metavar="QUESTION")]]
    """The question."""
    corpus: str = ""
    """Passages: text, title and id. JSONL (also .gz), Parquet, CSV or hub:owner/name."""
    index: str = ""
    """A folder that `heedful retrieve index` made; else the corpus is indexed in the cache, once."""
    retriever: Literal["bm25", "dense", "hybrid", "http"] = "bm25"
    """How passages are found; http asks a service (--service)."""
    service: str = ""
    """A YAML or JSON file that says how a search service is asked and its answer read."""
    writer_model: str = ""
    """The model to ask for where RUN is a server."""
    hops: int = 0
    """Searches; 0: as RUN was trained, else 2."""
    k: int = 0
    """Passages that each search brings; 0: as RUN was trained, else 3."""
    merge: Literal["auto", "score", "rrf", "hop"] = "auto"
    """How hops are merged: by the retriever's scores, by rank fusion, or hop after hop; auto: as RUN was trained, else
    by scores."""
    repeats: Literal["auto", "skip", "keep"] = "auto"
    """Passages that an earlier hop found: skip brings the next best in their place, keep counts them among the k again;
    auto: as RUN was trained, else keep."""
    reader: str = ""
    """A model or server that answers from what was found."""
    reader_model: str = ""
    """The model to ask for where --reader is a server."""
    passage_words: int = 0
    """Words of each passage that writer and reader see; 0: as RUN was trained, else 60."""
    drop_faulty_rows: bool = False
    """Leave out passages that have errors, and count them, instead of stopping."""
    max_new_tokens: int = 32
    """Longest query."""
    seed: int = 0
    """Of a served model; local ones always take the most likely token."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the models."""
    json: bool = False
    """Print as JSON."""
    quiet: bool = False
    """No progress display."""


@dataclass(frozen=True)
class Generate:
    """Write a corpus and questions to try things on: a generated world of linked things, or FOLDOC where installed."""

    out: str = "runs/world"
    """The folder for corpus.jsonl, train.jsonl, dev.jsonl and test.jsonl."""
    source: Literal["world", "foldoc"] = "world"
    """world: generated, two to four passages a question. foldoc: a dictionary of computing, two passages a question."""
    entities: int = 5000
    """world: how many things, with one passage each."""
    hops: tuple[int, ...] = (2, 3, 4)
    """world: passages that a question needs; lengths are taken in turn."""
    form: Literal["question", "claim"] = "question"
    """world: questions, or claims that are right or wrong."""
    train: int = 600
    """Training questions."""
    dev: int = 100
    """Questions for decisions; no passage that they need is needed by the others."""
    test: int = 300
    """Test questions, likewise."""
    seed: int = 0
    """world: of everything."""
    json: bool = False
    """Print what was written as JSON."""


def index(options: Index) -> int:
    """Run `heedful retrieve index`."""
    from heedful.device import pick_device
    from heedful.judges.search_index import build_index

    passages = build_index(
        options.corpus,
        options.out,
        options.retriever,
        bm25={"language": options.language, "k1": options.k1, "b": options.b},
        dense={"model": options.model},
        device=pick_device(options.device),
        drop_faulty=options.drop_faulty_rows,
        rebuild=options.rebuild,
        quiet=options.quiet,
    )
    facts = passages.facts
    if options.json:
        print(json.dumps({**facts, "index": options.out, "retriever": options.retriever}, ensure_ascii=False))
        return 0
    print(f"{len(passages):,} passages in {options.out}, for {options.retriever}")
    for name, said in (
        ("left_out", "faulty passages were left out"),
        ("without_title", "passages have no title"),
        ("titles_again", "passages have a title that another has"),
    ):
        if facts[name]:
            print(f"{facts[name]:,} {said}")
    return 0


def ask(options: Ask) -> int:
    """Run `heedful retrieve ask`."""
    from heedful.data.hops import Question
    from heedful.policies.asking import one_line
    from heedful.recipes.retrieve_open import (
        Models,
        model_problems,
        open_reader,
        open_search,
        open_writer,
        search_problems,
    )
    from heedful.recipes.retrieve_pipeline import Steps, Turn, hop
    from heedful.recipes.retrieve_trained import settle

    options, notes = settle(options, hops=2)
    wrong = search_problems(options)
    wrong += model_problems(
        [
            ("RUN", options.run, options.writer_model),
            ("--reader", options.reader, options.reader_model),
        ]
    )
    if options.hops < 1:
        wrong.append("--hops must be at least 1")
    if options.retriever == "http" and options.corpus:
        wrong.append("--corpus has no part in --retriever http")
    if not options.question.strip():
        wrong.append("the question is blank")
    if options.run == "gold":
        wrong.append("the rule gold needs to know what is gold, which no single question says")
    if wrong:
        raise HeedfulError("; ".join(wrong))
    _, retriever = open_search(options)
    models = Models(options)
    write = open_writer(options.run, options.writer_model, models, options, None, "")
    read = open_reader(models, options, None)
    steps = Steps(options.hops, options.k, options.merge, options.repeats)  # type: ignore[arg-type]  # settled
    turn = Turn(Question("asked", " ".join(options.question.split())), steps)
    if not options.json:
        print("".join(f"note: {one_line(note)}\n" for note in notes), end="")
    for _ in range(options.hops):
        turn = hop([turn], write, retriever)[0]
        if not options.json:
            print("\n".join(_hop_lines(turn)), flush=True)
    answer = read([turn])[0] if read is not None else None
    if options.json:
        found = [
            {"query": query, "hits": [hit.as_row() for hit in hits]}
            for query, hits in zip(turn.queries, turn.found, strict=True)
        ]
        told = {"question": turn.question.question, "hops": found}
        told |= {"context": [hit.as_row() for hit in turn.context], "answer": answer, "notes": notes}
        print(json.dumps(told, ensure_ascii=False))
    elif answer is not None:
        print(f"answer: {answer or '(none)'}")
    return 0


def _hop_lines(turn: Turn) -> Iterator[str]:
    """The last hop of a turn as the terminal shows it; what others wrote is made printable."""
    from heedful.policies.asking import one_line

    yield f"hop {len(turn.queries)}: {one_line(turn.queries[-1]) or '(blank)'}"
    for rank, hit in enumerate(turn.found[-1], start=1):
        title, text = one_line(hit.passage.title), one_line(hit.passage.text)
        yield f"  {rank}. {title or '(no title)'}  ({hit.score:.2f})"
        yield f"     {text[:EXCERPT]}{'…' if len(text) > EXCERPT else ''}"
    if not turn.found[-1]:
        yield "  nothing was found"


def generate(options: Generate) -> int:
    """Run `heedful retrieve generate`."""
    from heedful.atomic import write_folder
    from heedful.data.hops.foldoc import load_foldoc
    from heedful.data.hops.world import World

    wrong = []
    if options.source == "foldoc":
        plain = Generate()
        wrong = [
            f"--{name} has no part in --source foldoc"
            for name in ("entities", "hops", "form", "seed")
            if getattr(options, name) != getattr(plain, name)
        ]
    counts = {"train": options.train, "dev": options.dev, "test": options.test}
    if min(counts.values()) < 0:
        wrong.append("--train, --dev and --test must be 0 or more")
    place = Path(options.out).expanduser()
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        wrong.append(f"{place} is there and not empty; choose another folder with --out")
    if wrong:
        raise HeedfulError("; ".join(wrong))
    if options.source == "world":
        world = World(options.seed, options.entities, options.hops)
        passages: Any = world
        sides = {side: world.questions(side, n, options.form) for side, n in counts.items() if n}  # type: ignore[arg-type]
    else:
        foldoc = load_foldoc()
        passages = foldoc.passages()
        sides = {side: foldoc.questions(side, n) for side, n in counts.items() if n}  # type: ignore[arg-type]

    def fill(beside: Path) -> None:
        with (beside / "corpus.jsonl").open("w", encoding="utf-8") as out:
            for passage in passages:
                out.write(json.dumps(passage._asdict(), ensure_ascii=False) + "\n")
        for side, questions in sides.items():
            lines = (json.dumps(question.as_row(), ensure_ascii=False) + "\n" for question in questions)
            (beside / f"{side}.jsonl").write_text("".join(lines), encoding="utf-8")

    write_folder(place, fill)
    told = {"out": str(place), "passages": len(passages), **{side: len(q) for side, q in sides.items()}}
    print(json.dumps(told) if options.json else "\n".join(f"{name}: {value}" for name, value in told.items()))
    return 0


COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "index": (Index, index),
    "ask": (Ask, ask),
    "generate": (Generate, generate),
}
