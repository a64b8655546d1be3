"""`heedful retrieve eval`: how much a writer of queries finds, hop by hop, on any questions and any corpus.

Everything is compared with a second writer (`--against`; by default the question itself at every hop) on the same
questions, in pairs. Departures from LeReT's own evaluation, each on purpose: a gold title counts once, where it stands
first (the code counts every passage of that title), and what its code calls "em" is recall here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.data.hops import Question
    from heedful.judges.search import Retriever
    from heedful.recipes.retrieve_measure import Measured
    from heedful.run import Run

VOLATILE = ("json", "quiet", "max_rows", "index")


@dataclass(frozen=True)
class Config:
    """Search for the answers of many questions, hop by hop, and measure what is found."""

    run: Positional[Annotated[str, arg(metavar="RUN")]]
    """Who writes the queries: a run, a model, a server, or a rule: question, passage, title, gold."""
    questions: str = ""
    """Questions: question, gold_titles and answer, or HotpotQA's and HoVer's columns. JSONL, Parquet or CSV."""
    corpus: str = ""
    """Passages: text, title and id. JSONL (also .gz), Parquet, CSV or hub:owner/name."""
    index: str = ""
    """A folder that `heedful retrieve index` made; else the corpus is indexed in the cache, once."""
    retriever: Literal["bm25", "dense", "hybrid", "http"] = "bm25"
    """How passages are found; http asks a service (--service)."""
    service: str = ""
    """A YAML or JSON file that says how a search service is asked and its answer read."""
    out: str = "runs/retrieve-eval"
    """The run folder. The same command again resumes it."""
    against: str = "question"
    """Whom it is compared with, of the same kinds; empty compares with nobody."""
    writer_model: str = ""
    """The model to ask for where RUN is a server."""
    hops: int = 0
    """Searches for each question; 0: as RUN was trained, else as many as a question has gold passages, at most four."""
    k: int = 0
    """Passages that each search brings; 0: as RUN was trained, else 3."""
    merge: Literal["auto", "score", "rrf", "hop"] = "auto"
    """How hops are merged: by the retriever's scores, by rank fusion, or hop after hop; auto: as RUN was trained, else
    by scores."""
    repeats: Literal["auto", "skip", "keep"] = "auto"
    """Passages that an earlier hop found: skip brings the next best in their place, keep counts them among the k again;
    auto: as RUN was trained, else keep."""
    reader: str = ""
    """A model or server that answers from what was found, for exact match and F1."""
    reader_model: str = ""
    """The model to ask for where --reader is a server."""
    passage_words: int = 0
    """Words of each passage that writer and reader see; 0: as RUN was trained, else 60."""
    limit: int = 0
    """Questions to take from the file's beginning; 0 takes all."""
    max_absent: float = 0.05
    """Largest share of gold titles that the corpus may lack."""
    drop_faulty_rows: bool = False
    """Leave out passages that have errors, and count them, instead of stopping."""
    max_new_tokens: int = 32
    """Longest query."""
    max_rows: int = 256
    """Queries written at the same time."""
    seed: int = 0
    """Of a served model; local ones always take the most likely token."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the models."""
    json: bool = False
    """Print result.json on standard output."""
    quiet: bool = False
    """No progress display."""


@dataclass(frozen=True)
class Asked:
    """What is asked of whom. facts: of questions and corpus, for the report; notes: what is not as in training."""

    questions: list[Question]
    retriever: Retriever
    facts: dict[str, Any]
    notes: Sequence[str] = ()


def main(cfg: Config) -> int:
    """What `heedful retrieve eval` does; the exit status."""
    from heedful.recipes.retrieve_trained import settle
    from heedful.run import open_run

    cfg, notes = settle(cfg)
    wrong = problems(cfg)
    if wrong:
        raise HeedfulError("; ".join(wrong))
    # what is wrong with the files is found before there is a run folder that would hold on to them
    asked = replace(read_asked(cfg), notes=notes)
    files = [cfg.questions, *(file for file in (cfg.corpus, cfg.service) if file)]
    with open_run(cfg.out, cfg, seed=cfg.seed, data=files, volatile=VOLATILE) as opened:
        cfg = replace(cfg, quiet=True, json=False) if opened.rank else cfg
        result = run(cfg, opened, asked)
    tell(cfg, result)
    return 0


def problems(cfg: Config) -> list[str]:
    """What is wrong with the options; each a sentence."""
    from heedful.recipes.retrieve_open import is_server, model_problems, search_problems

    wrong = search_problems(cfg)
    if not cfg.questions:
        wrong.append("--questions is needed: what is to be asked")
    if cfg.limit < 0 or cfg.max_rows < 1:
        wrong.append("--limit must be 0 or more and --max-rows at least 1")
    if not 0 <= cfg.max_absent <= 1:
        wrong.append("--max-absent must be from 0 to 1")
    if is_server(cfg.against):
        wrong.append("--against takes a run, a model or a rule; compare two servers with two runs")
    wrong += model_problems([("RUN", cfg.run, cfg.writer_model), ("--reader", cfg.reader, cfg.reader_model)])
    return wrong


def read_asked(cfg: Config) -> Asked:
    """The questions, the retriever, and what is known of questions and corpus.

    Raises HeedfulError listing what is wrong with the files, and for gold titles that the corpus lacks.
    """
    from heedful.data.hops import check_gold, read_questions
    from heedful.recipes.retrieve_open import open_search

    questions = read_questions(cfg.questions, cfg.limit)
    if not any(q.gold_titles for q in questions) and not cfg.reader:
        raise HeedfulError(
            f"{cfg.questions} has no gold titles, so only answers can be measured: name a model with --reader"
        )
    passages, retriever = open_search(cfg)
    facts: dict[str, Any] = {"questions": len(questions)}
    if passages is not None:
        facts |= {"passages": len(passages), **passages.facts}
        facts |= check_gold(questions, passages, most=cfg.max_absent, where=cfg.questions)
    return Asked(questions, retriever, facts)


def run(cfg: Config, run: Run, asked: Asked | None = None) -> dict[str, Any]:
    """Search, read, measure and write the report; returns result.json. Resumes where it stopped.

    cfg: as `settle` of retrieve_trained leaves it.
    """
    from heedful.recipes.retrieve_open import Models, open_reader, open_search
    from heedful.recipes.retrieve_pipeline import hops_for
    from heedful.recipes.retrieve_report import finish

    asked = asked or read_asked(cfg)
    questions, retriever = asked.questions, asked.retriever
    if cfg.retriever == "http":  # now that there is a folder to keep its answers in
        _, retriever = open_search(replace(cfg, corpus=""), run)
    known = run.once("retriever.json", lambda: {"fingerprint": retriever.fingerprint})
    if known != {"fingerprint": retriever.fingerprint}:
        raise HeedfulError(
            f"{run.folder} was begun with another index or service than {cfg.index or cfg.corpus or cfg.service} is "
            "now; choose another output folder"
        )
    hops = hops_for(questions, cfg.hops)
    models = Models(cfg)
    read = open_reader(models, cfg, run)
    sides: dict[str, Measured] = {}
    for side, spec, model in (("against", cfg.against, ""), ("run", cfg.run, cfg.writer_model)):
        if spec:
            sides[side] = _side(side, spec, model, questions, hops, retriever, read, models, cfg, run)
    return finish(cfg, sides["run"], sides.get("against"), asked.facts, run, asked.notes)


def _side(
    side: str,
    spec: str,
    model: str,
    questions: Any,
    hops: int,
    retriever: Any,
    read: Any,
    models: Any,
    cfg: Config,
    run: Run,
) -> Measured:
    from heedful.recipes.retrieve_measure import local_cost, measure, served_cost
    from heedful.recipes.retrieve_open import is_server, open_writer
    from heedful.recipes.retrieve_pipeline import Steps, walk
    from heedful.recipes.retrieve_writers import RULES

    write = open_writer(spec, model, models, cfg, run, side)
    steps = Steps(hops, cfg.k, cfg.merge, cfg.repeats)  # type: ignore[arg-type]  # settled
    turns = walk(questions, write, retriever, steps, run=run, name=side)
    cost = {}
    if is_server(spec):
        cost = served_cost(run, side)
    elif spec not in RULES:
        cost = local_cost(models.get(spec), hops, run, side)
    return measure(turns, run, side, read=read, cost=cost)


def tell(cfg: Any, result: dict[str, Any]) -> None:
    """Print what a finished job of `heedful retrieve` has to say."""
    if cfg.json:
        print(json.dumps(result, ensure_ascii=False))
    elif not cfg.quiet:
        report = json.loads((Path(cfg.out) / "report.json").read_text())
        lines = [*report["summary"], *(f"warning: {w}" for w in report["warnings"])]
        more = [f"model:  {Path(cfg.out) / 'model'}"] if (Path(cfg.out) / "model").exists() else []
        print("\n".join([*lines, "", f"report: {Path(cfg.out) / 'report.html'}", *more]))
