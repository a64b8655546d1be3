"""Questions that need several passages: read from files, checked against the corpus they are asked of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from heedful.data.formats import cannot_open, scan
from heedful.data.passages import Passages, plain_title
from heedful.data.problems import Problem, named, printable, what
from heedful.errors import HeedfulError

COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id", "_id", "uid"),
    "question": ("question", "query", "claim", "text"),
    "gold_titles": ("gold_titles", "supporting_facts"),
    "answer": ("answer", "answers", "label"),
    "hops": ("hops", "num_hops"),
    "source": ("source", "dataset"),
}
"""What a column may be called; the first that a row has counts."""
SHOWN = 20


@dataclass(frozen=True)
class Question:
    """One question. gold_titles: the passages it needs; answers: what counts as right; either may be empty.

    hops: how many passages it needs, 0 where nobody says. source: the part of the data it belongs to.
    """

    id: str
    question: str
    gold_titles: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    hops: int = 0
    source: str = ""

    def as_row(self) -> dict[str, Any]:
        """A JSON object that `read_questions` understands."""
        row = asdict(self)
        return {**row, "gold_titles": list(self.gold_titles), "answers": list(self.answers)}


def read_questions(path: str | Path, limit: int = 0) -> list[Question]:
    """The questions of a file (JSONL, CSV, both also .gz, Parquet or the Hub); of the first `limit` rows, 0 is all.

    Columns: question; gold_titles, a list of titles, or HotpotQA's or HoVer's supporting_facts; answer; id, hops and
    source are optional. Raises HeedfulError with everything that is wrong, as file:line: 20 of it and how many more.
    """
    path = str(path)
    if fault := cannot_open(path):
        raise HeedfulError(printable(f"{path}: {fault}"))
    problems: list[Problem] = []
    questions: list[Question] = []
    ids: dict[str, int] = {}
    for item in scan(path):
        problems += item.problems
        if item.row is None:
            continue
        question, faults = _question(item.row, path, item.line, len(questions))
        if question.id in ids and not faults:
            message = f"is that of line {ids[question.id]} too: {named(question.id)}"
            faults.append(Problem(path, item.line, "id", message))
        if not faults:
            ids[question.id] = item.line
        problems += faults
        questions.append(question)
        if len(questions) == limit:
            break
    if problems:
        more = f"\n… and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
        raise HeedfulError("\n".join(map(str, problems[:SHOWN])) + more)
    if not questions:
        raise HeedfulError(printable(f"{path}: there is no question in it"))
    return questions


def _question(row: Mapping[str, Any], path: str, line: int, number: int) -> tuple[Question, list[Problem]]:
    problems: list[Problem] = []

    def value(name: str) -> Any:
        return next((row[column] for column in COLUMNS[name] if row.get(column) is not None), None)

    def wrong(name: str, message: str) -> None:
        problems.append(Problem(path, line, name, message))

    text = value("question")
    if text is None:
        wrong("question", f"is missing; the row has {', '.join(map(named, list(row)[:6])) or 'nothing'}")
    elif not isinstance(text, str) or not text.strip():
        wrong("question", "is empty" if isinstance(text, str) else f"is {what(text)}, not text")
    gold = _titles(value("gold_titles"))
    if gold is None:
        wrong("gold_titles", "is no list of titles, nor of [title, sentence] pairs")
    answer = value("answer")
    answers = [answer] if not isinstance(answer, list) else answer
    answers = [a for a in answers if a is not None and a != ""]
    if not all(isinstance(a, str | int | float) and not isinstance(a, bool) for a in answers):
        wrong("answer", "is no text and no list of texts")
    hops = value("hops")
    hops = int(hops) if isinstance(hops, str) and hops.isdecimal() else hops
    if hops is not None and (isinstance(hops, bool) or not isinstance(hops, int) or hops < 0):
        wrong("hops", f"is {what(hops)}, not a whole number of 0 or more")
    if not gold and not answers and not problems:
        wrong("gold_titles", "is missing and so is the answer: nothing says what would be right")
    if problems:
        return Question(str(number), ""), problems
    key = value("id")
    made = Question(
        id=str(number if key is None else key),
        question=" ".join(str(text).split()),
        gold_titles=tuple(gold or ()),
        answers=tuple(map(str, answers)),
        hops=int(hops or 0),
        source=str(value("source") or ""),
    )
    return made, []


def _titles(value: Any) -> list[str] | None:
    """The titles, without repeats and in order; [] where there are none, None where the value is no list of them."""
    if value is None:
        return []
    if isinstance(value, str):  # as a CSV file has a list
        try:
            value = json.loads(value) if value.strip() else []
        except ValueError:
            return None
    if isinstance(value, Mapping):  # as the Hub's HotpotQA has columns: {"title": [...], "sent_id": [...]}
        value = value.get("title")
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    titles = [
        item[0] if isinstance(item, Sequence) and not isinstance(item, str) and len(item) else item
        for item in value
    ]
    plain = [" ".join(title.split()) for title in titles if isinstance(title, str)]
    if len(plain) < len(titles) or not all(plain):
        return None
    return list(dict.fromkeys(plain))


def check_gold(
    questions: Sequence[Question], passages: Passages, *, most: float, where: str
) -> dict[str, Any]:
    """How many gold titles the corpus does not have: {"gold_titles", "absent", "questions_with_absent", "examples"}.

    most: share of the gold titles above which it is refused. Raises HeedfulError then, listing the first 20 with the
    question and, where there is one, a title that differs in capitals alone.
    """
    absent: list[tuple[Question, str]] = []
    known: dict[str, bool] = {}
    total = 0
    for question in questions:
        for title in question.gold_titles:
            total += 1
            if title not in known:
                known[title] = bool(passages.numbers(title))
            if not known[title]:
                absent.append((question, title))
    facts = {
        "gold_titles": total,
        "absent": len(absent),
        "questions_with_absent": len({question.id for question, _ in absent}),
        "examples": [title for _, title in absent[:SHOWN]],
    }
    if total and len(absent) > most * total:
        near = _other_capitals(passages, [title for _, title in absent[:SHOWN]])
        listed = [
            f"  {named(question.id)}: {title!r:.100}"
            + (f" (the corpus has {near[title]!r:.100})" if title in near else "")
            for question, title in absent[:SHOWN]
        ]
        more = f"\n  … and {len(absent) - SHOWN:,} more" if len(absent) > SHOWN else ""
        raise HeedfulError(
            printable(f"{where}: {len(absent):,} of {total:,} gold titles are not in the corpus ")
            + f"({len(absent) / total:.1%}; {most:.0%} is the most that is taken):\n"
            + "\n".join(listed)
            + more
            + "\nThese can never be found. Complete the corpus, mend the titles, or give a larger --max-absent."
        )
    return facts


def _other_capitals(passages: Passages, titles: Iterable[str]) -> dict[str, str]:
    """For an error alone: it reads the corpus."""
    wanted = {plain_title(title).casefold(): title for title in titles}
    found: dict[str, str] = {}
    for passage in passages:
        title = wanted.get(plain_title(passage.title).casefold())
        if title is not None:
            found.setdefault(title, passage.title)
    return found
