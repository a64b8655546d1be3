"""`heedful personalize adapt | query | score`: options, and what the terminal shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from heedful.errors import HeedfulError

Run = Positional[Annotated[str, arg(metavar="RUN")]]


@dataclass(frozen=True)
class Adapt:
    """Fit the reward to a person: take their labels and say what they change. Without --labels, say how it stands."""

    run: Run
    """The run folder of `heedful personalize fit`."""
    labels: str = ""
    """Their labels: rows with id and label (1 first, 0 second, 0.5 neither), or with prompt, chosen and rejected."""
    undo: int = 0
    """Take back this many labels, the last ones, before --labels are taken."""
    columns: tuple[str, ...] = ()
    """Column names, as `prompt=instruction chosen=good`."""
    json: bool = False
    """Print as JSON."""


@dataclass(frozen=True)
class Query:
    """Print the pairs that a person should be asked about next: those that tell most about which heads are theirs."""

    run: Run
    """The run folder of `heedful personalize fit`."""
    n: Annotated[int, arg(aliases=["-n"])] = 5
    """How many pairs; together they are chosen to differ."""
    criterion: Literal["bald", "entropy", "variance"] = "bald"
    """What makes a pair telling: the heads disagree (bald, variance), or the answer is open (entropy)."""
    json: bool = False
    """Print one JSON object a line, to add a label to and give to `adapt`."""


@dataclass(frozen=True)
class Score:
    """Score the rows of a file with a person's reward; where they are pairs, say how often it agrees."""

    run: Run
    """The run folder of `heedful personalize fit`."""
    file: Positional[Annotated[str, arg(metavar="FILE")]]
    """Pairs (prompt, chosen, rejected), or prompts with a completion."""
    out: str = ""
    """Where to write the rows with their scores as JSONL; the default is scores.jsonl in the run folder."""
    columns: tuple[str, ...] = ()
    """Column names, as `prompt=instruction chosen=good`."""
    drop_faulty_rows: bool = False
    """Leave out rows that have errors, and count them, instead of stopping."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    json: bool = False
    """Print the result as JSON."""


def adapt(options: Adapt) -> int:
    """Run `heedful personalize adapt`."""
    from heedful.data.rows import parse_columns
    from heedful.recipes import personalize_person
    from heedful.recipes.personalize_labels import read_labels
    from heedful.recipes.personalize_store import open_person

    if options.undo < 0:
        raise HeedfulError("--undo must be 0 or more")
    person = open_person(options.run)
    columns = parse_columns(options.columns)
    given = read_labels(options.labels, person, columns) if options.labels else []
    taken, new = person.change(given, undo=options.undo)
    personalize_person.renew_page(person)
    if options.json:
        told = personalize_person.state(person) | {"new": new, "known": len(given) - new, "undone": taken}
        print(json.dumps(told, ensure_ascii=False))
        return 0
    if taken:
        print(f"taken back: {', '.join(taken)}")
    print(personalize_person.in_words(person, *((new, len(given)) if given else ())))
    return 0


def query(options: Query) -> int:
    """Run `heedful personalize query`."""
    from heedful.recipes.personalize_person import shown_pair
    from heedful.recipes.personalize_store import open_person

    if options.n < 1:
        raise HeedfulError("-n must be at least 1")
    rows = open_person(options.run).ask(options.n, options.criterion)
    if options.json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return 0
    if not rows:
        print("every pair of the pool has a label")
        return 0
    print("\n\n".join(map(shown_pair, rows)))
    print(
        '\nwrite {"id": ..., "label": 1} (first is better), 0 (second) or 0.5 (neither), one a line, then: '
        f"heedful personalize adapt {options.run} --labels FILE.jsonl"
    )
    return 0


def score(options: Score) -> int:
    """Run `heedful personalize score`."""
    from heedful.data.rows import parse_columns
    from heedful.recipes.personalize_score import in_words, score_file
    from heedful.recipes.personalize_store import open_person

    told = score_file(
        open_person(options.run, device=options.device),
        options.file,
        options.out or str(Path(options.run).expanduser() / "scores.jsonl"),
        parse_columns(options.columns),
        drop_faulty=options.drop_faulty_rows,
    )
    print(json.dumps(told, ensure_ascii=False) if options.json else in_words(told))
    return 0


COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "adapt": (Adapt, adapt),
    "query": (Query, query),
    "score": (Score, score),
}
