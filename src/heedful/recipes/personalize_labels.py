"""Files of a person's labels: ids of pool pairs with a label, or pairs with the preferred answer named.

A row is {"id", "label"}, where label is 1 (the first answer is better), 0 (the second) or 0.5 (neither), or a
preference pair {"prompt", "chosen", "rejected"}, in the pool or not. Where the heads are saved scores, a pair that is
not in the pool brings its own: `chosen_scores` and `rejected_scores`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from heedful.data.formats import scan
from heedful.data.normalise import normalise
from heedful.data.problems import format_of, place, printable, what
from heedful.errors import HeedfulError
from heedful.recipes.personalize_pairs import FIRST, SECOND, TIE, Label, oriented, pair_id, printable_lines
from heedful.recipes.personalize_store import Person

SHOWN = 20


def read_labels(file: str, person: Person, columns: Mapping[str, str]) -> list[Label]:
    """The labels in a file, in order. Raises HeedfulError listing every row that is none, with file, line and field."""
    found: list[Label] = []
    wrong: list[str] = []
    text = format_of(file).startswith("csv")
    for item in scan(file):
        wrong += [str(problem) for problem in item.problems]
        if item.row is not None:
            made = _label(item.row, person, columns, f"{file}:{place(file, item.line)}", text)
            if isinstance(made, Label):
                found.append(made)
            else:
                wrong += made
    if wrong:
        more = f"\nand {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise HeedfulError(printable_lines(wrong[:SHOWN]) + more)
    if not found:
        raise HeedfulError(printable(f"{file}: has no labels"))
    return found


def _label(
    row: Mapping[str, Any], person: Person, columns: Mapping[str, str], where: str, text: bool
) -> Label | list[str]:
    """The label of a row, or what is wrong with it."""
    names = {columns.get(name, name) for name in ("chosen", "rejected")}
    if names & set(row):
        return _of_pair(row, person, columns, where, text)
    id, label = row.get("id"), row.get("label")
    if not isinstance(id, str) or not id:
        told = "is missing" if id is None else f"must be text, not {what(id)}"
        return [f"{where}: id: {told}; a row has id and label, or prompt, chosen and rejected"]
    if text and isinstance(label, str):
        with suppress(ValueError):
            label = float(label)
    if isinstance(label, bool) or not isinstance(label, int | float):
        told = "is missing" if label is None else f"must be 1, 0 or 0.5, not {what(label)}"
        return [f"{where}: label: {told}"]
    return Label(id, float(label), where=where)


def _of_pair(
    row: Mapping[str, Any], person: Person, columns: Mapping[str, str], where: str, text: bool
) -> Label | list[str]:
    if row.get("label") in (TIE, str(TIE)):
        return [
            f"{where}: label: 0.5 is a tie, but chosen and rejected say which is better; give id and label"
        ]
    made = normalise(row, "preference", columns, text=text)
    errors = [one for one in made.found if one.severity == "error"]
    if errors:
        return [": ".join(part for part in (where, one.field, one.message) if part) for one in errors]
    prompt, chosen, rejected = made.row["prompt"], made.row["chosen"], made.row["rejected"]
    id = pair_id(prompt, chosen, rejected)
    first, second = oriented(prompt, chosen, rejected)
    features = None
    if not person.knows(id) and person.features().how.name == "scores":
        try:
            sides = dict(scored_sides(made.row, person.reward.heads_, where))
        except HeedfulError as error:
            return [str(error)]
        pair = (sides["chosen"], sides["rejected"])
        features = pair if first == chosen else pair[::-1]
    return Label(id, FIRST if first == chosen else SECOND, (prompt, first, second), features, where)


def scored_sides(row: Mapping[str, Any], names: Sequence[str], where: str) -> Iterator[tuple[str, Any]]:
    """(side, saved scores) of a pair's row. Raises HeedfulError with the place when they are not as they should be."""
    from heedful.recipes.personalize_scores import scores_in

    for side in ("chosen", "rejected"):
        yield side, scores_in(row, f"{side}_scores", where, names)[0]
