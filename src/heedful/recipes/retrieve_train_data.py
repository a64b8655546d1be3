"""What `heedful retrieve train` reads: questions to learn from, questions held out, the corpus and its retriever."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from heedful.data.hops import Question, check_gold, read_questions
from heedful.data.passages import plain_title
from heedful.data.problems import named, printable
from heedful.errors import HeedfulError
from heedful.judges.search import Retriever
from heedful.recipes.retrieve_open import open_search
from heedful.recipes.retrieve_pipeline import hops_for
from heedful.recipes.retrieve_train import TRAINS
from heedful.run import Run, derive_seed

if TYPE_CHECKING:
    from heedful.recipes.retrieve_train import Config

SHOWN = 10


@dataclass(frozen=True)
class Asked:
    """train, test: questions to learn from and held out; hops: searches of each. facts: for the report."""

    train: list[Question]
    test: list[Question]
    retriever: Retriever
    hops: int
    facts: dict[str, Any]


def read_asked(cfg: Config) -> Asked:
    """Read and check all files.

    Raises HeedfulError listing what is wrong with them, for questions that are on both sides, for gold titles that the
    corpus lacks, and when no question says what the reward needs to know.
    """
    questions = read_questions(cfg.questions, cfg.limit)
    if cfg.eval_questions:
        train, test = questions, read_questions(cfg.eval_questions, cfg.eval_limit)
        _refuse_shared(train, test, cfg)
    else:
        train, test = split(questions, cfg.eval_share, cfg.eval_limit, cfg.seed)
        if not train or not test:
            raise HeedfulError(
                printable(f"{cfg.questions} has {len(questions)} questions: ")
                + f"holding out {cfg.eval_share:.0%} leaves nothing to train or test on; give --eval-questions"
            )
    by_answer = cfg.reward.startswith("answer-")
    usable = [q for q in train if (q.answers if by_answer else q.gold_titles)]
    if not usable and cfg.method != "base":
        raise HeedfulError(
            printable(f"{cfg.questions}: no question has ")
            + (
                "an answer, which --reward answer-em and answer-f1 need"
                if by_answer
                else "gold titles, which --reward ap and recall need; with answers alone take --reward answer-f1"
            )
        )
    if cfg.method in TRAINS and len(usable) < cfg.iterations:
        raise HeedfulError(
            f"{len(usable)} questions cannot be split into {cfg.iterations} parts (--iterations)"
        )
    if not any(q.gold_titles for q in test) and not cfg.reader:
        raise HeedfulError(
            "the held-out questions have no gold titles, so only answers can be measured: name a model with --reader"
        )
    passages, retriever = open_search(cfg)
    facts: dict[str, Any] = {"questions": len(usable), "held_out_questions": len(test)}
    if len(usable) < len(train):
        facts["without_reward"] = len(train) - len(usable)
    if passages is not None:
        facts |= {"passages": len(passages), **passages.facts}
        for part, where in ((usable, cfg.questions), (test, cfg.eval_questions or cfg.questions)):
            facts |= check_gold(part, passages, most=cfg.max_absent, where=where)
    gold = {plain_title(title) for q in usable for title in q.gold_titles}
    facts["held_out_with_gold_of_training"] = sum(
        any(plain_title(title) in gold for title in q.gold_titles) for q in test
    )
    return Asked(usable, test, retriever, hops_for([*train, *test], cfg.hops), facts)


def split(
    questions: Sequence[Question], share: float, most: int, seed: int
) -> tuple[list[Question], list[Question]]:
    """Training and held-out questions, each in the order of the file; which are which is a function of the seed."""
    count = min(most, round(len(questions) * share))
    held = set(random.Random(derive_seed(seed, "held-out")).sample(range(len(questions)), count))
    return (
        [q for i, q in enumerate(questions) if i not in held],
        [q for i, q in enumerate(questions) if i in held],
    )


def keep_retriever(cfg: Config, asked: Asked, run: Run) -> Asked:
    """The same with a retriever that keeps a service's answers in the run folder.

    Raises HeedfulError when the run was begun with another index or service.
    """
    if cfg.retriever == "http":  # now that there is a folder to keep its answers in
        _, retriever = open_search(replace(cfg, corpus=""), run)
        asked = replace(asked, retriever=retriever)
    known = run.once("retriever.json", lambda: {"fingerprint": asked.retriever.fingerprint})
    if known != {"fingerprint": asked.retriever.fingerprint}:
        raise HeedfulError(
            f"{run.folder} was begun with another index or service than {cfg.index or cfg.corpus or cfg.service} is "
            "now; choose another output folder"
        )
    return asked


def _refuse_shared(train: Sequence[Question], test: Sequence[Question], cfg: Config) -> None:
    known = {q.question for q in train}
    both = [q for q in test if q.question in known]
    if both:
        listed = "; ".join(named(q.question) for q in both[:SHOWN])
        raise HeedfulError(
            printable(
                f"{cfg.eval_questions}: {len(both):,} of its questions are in {cfg.questions} as well: "
            )
            + f"{listed}{' …' if len(both) > SHOWN else ''}; held-out questions must not be learned from"
        )
