"""Rules and plain Python functions as judges: `rule:length<40w`, `rule:regex=...`, `path.py:function`.

Letters: B inputs, N samples per input.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from heedful.errors import HeedfulError
from heedful.evals.texts import sentence_count, words
from heedful.feedback import Feedback, Judge, Samples
from heedful.python_files import function_of, line_in

Columns = Callable[[Any], Mapping[str, Any]]
"""The further columns of the row a prompt came from."""
Rule = Callable[[str, Mapping[str, Any]], float | None]
"""What one answer is worth, given its row's columns; None is no opinion."""

FORMS = "length<40w, regex=PATTERN, not-regex=PATTERN, contains=TEXT, exact, exact=COLUMN"
LARGEST = torch.finfo(torch.float32).max

_LENGTH = re.compile(r"length\s*(<=|>=|==|<|>)\s*(\d+)\s*([wcs]?)")
_MEASURES: dict[str, Callable[[str], int]] = {
    "w": lambda text: len(words(text)),
    "c": len,
    "s": sentence_count,
}


def parse_judge(spec: str, *, columns: Columns | None = None) -> Judge:
    """The judge that an option names; `columns` gives the columns of a prompt's row.

    `rule:RULE`, or several joined by `;`, whose scores are added and whose failures are the notes:

    - `length<40w` (also <=, >, >=, ==; units w words, c characters, s sentences; w where none is given): 1 where it
      holds, else minus the share that is too much (of the answer) or missing (of the limit), from -1 to below 0, so
      that the worse of two failing answers scores lower
    - `regex=PATTERN`: 1 where Python's `re.search` finds it, else 0; `not-regex=PATTERN` the reverse. A semicolon
      inside a pattern is written `\\x3b`
    - `contains=TEXT`: 1 where the answer has the text, upper or lower case, else 0
    - `exact` or `exact=COLUMN`: 1 where the answer equals that column (`answer`) of the prompt's row, case and
      white space aside, else 0; no opinion where the row has no such column

    `path.py:function`: a function in TRL's reward signature, see `reward_function`. The file is a program, and it
    runs.

    Raises HeedfulError for anything else, for a pattern that does not compile, and for a file that is not there,
    does not run or has no such function.
    """
    kind, _, rest = spec.partition(":")
    if kind == "rule":
        rules = [(text.strip(), _rule(text.strip())) for text in rest.split(";") if text.strip()]
        if rules:
            return _rule_judge(rules, columns or _no_columns)
    path, colon, name = spec.rpartition(":")
    if colon and path.endswith(".py") and name:
        return reward_function(function_of(Path(path).expanduser(), name), name=spec, columns=columns)
    raise HeedfulError(f"the judge {spec!r} is neither rule:... ({FORMS}) nor path.py:function")


def reward_function(fn: Callable[..., Any], *, name: str = "", columns: Columns | None = None) -> Judge:
    """A judge from a function in TRL's reward signature, `fn(prompts, completions, **columns) -> list[float | None]`.

    It is called with keywords and equally long lists, one entry for each completion; it gets of `prompts`,
    `completions`, `completion_ids` and the columns of the prompts' rows what its parameters name, or all of them
    where it takes `**columns`. Completions are texts, or lists of one assistant message where the prompt is a list of
    messages. None and NaN are no opinion. What only a trainer has (`trainer_state`, `log_metric`) is not given.

    Raises HeedfulError for a coroutine function. The judge raises it, naming the function, when the function raises,
    needs a column that the rows do not have, or returns anything but one finite number or None each.
    """
    name = name or getattr(fn, "__name__", type(fn).__name__)
    if inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None)):  # noqa: B004
        raise HeedfulError(f"{name} is a coroutine function; a judge is a plain function")

    def judge(samples: Samples) -> Feedback:
        given = _arguments(name, fn, samples, columns or _no_columns)
        try:
            returned = fn(**given)
        except (Exception, SystemExit) as error:
            file = getattr(getattr(inspect.unwrap(fn), "__code__", None), "co_filename", "")
            line = line_in(file, error)
            raise HeedfulError(
                f"{name} raised {type(error).__name__}{f' in line {line}' if line else ''}: {error}"
            ) from error
        return Feedback(score=_scores(name, returned, samples))

    return judge


def _no_columns(prompt: Any) -> Mapping[str, Any]:
    return {}


# ---- rules


def _rule(text: str) -> Rule:
    length = _LENGTH.fullmatch(text)
    if length:
        return _length_rule(length[1], int(length[2]), length[3] or "w")
    name, equals, value = text.partition("=")
    if name in ("regex", "not-regex") and value:
        pattern, wanted = _compile(value), name == "regex"
        return lambda answer, row: float((pattern.search(answer) is not None) == wanted)
    if name == "contains" and value:
        return lambda answer, row: float(value.casefold() in answer.casefold())
    if name == "exact" and (value or not equals):
        column = value or "answer"
        return lambda answer, row: (
            float(_plain(answer) == _plain(str(row[column]))) if row.get(column) is not None else None
        )
    raise HeedfulError(f"there is no rule {text!r}; rules are {FORMS}")


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        at = getattr(error, "pos", None)
        where = "" if at is None else f" at character {at + 1}"
        raise HeedfulError(
            f"the pattern {pattern!r} does not compile: {getattr(error, 'msg', error)}{where}"
        ) from error


def _length_rule(sign: str, limit: int, unit: str) -> Rule:
    # The lengths that satisfy the rule; the nearest of them is what others are measured against.
    low, high = {
        "<": (0, limit - 1),
        "<=": (0, limit),
        ">": (limit + 1, math.inf),
        ">=": (limit, math.inf),
        "==": (limit, limit),
    }[sign]
    if high < low:
        raise HeedfulError(f"no answer has length{sign}{limit}{unit}")
    measure = _MEASURES[unit]

    def rule(answer: str, row: Mapping[str, Any]) -> float:
        length = measure(answer)
        if length > high:
            return (high - length) / length
        if length < low:
            return (length - low) / low
        return 1.0

    return rule


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _rule_judge(rules: Sequence[tuple[str, Rule]], columns: Columns) -> Judge:
    def judge(samples: Samples) -> Feedback:
        scores: list[float] = []
        notes: list[str] = []
        for i, prompt in enumerate(samples.inputs):
            row = columns(prompt)
            for output in samples.group(i):
                said = [(text, rule(str(output), row)) for text, rule in rules]
                known = [score for _, score in said if score is not None]
                scores.append(math.fsum(known) if known else math.nan)
                failed = [text for text, score in said if score is not None and score < 1]
                notes.append("fails " + "; ".join(failed) if failed else "")
        return Feedback(score=torch.tensor(scores).view(len(samples.inputs), samples.n), notes=notes)

    return judge


# ---- functions


def _arguments(name: str, fn: Callable[..., Any], samples: Samples, columns: Columns) -> dict[str, list[Any]]:
    """The keywords a function is called with. Raises HeedfulError when it needs others."""
    prompts = [prompt for prompt in samples.inputs for _ in range(samples.n)]
    rows = [row for row in map(columns, samples.inputs) for _ in range(samples.n)]
    found = list(dict.fromkeys(key for row in rows for key in row))
    given: dict[str, list[Any]] = {key: [row.get(key) for row in rows] for key in found}
    given["prompts"] = prompts
    given["completions"] = [
        str(output) if isinstance(prompt, str) else [{"role": "assistant", "content": str(output)}]
        for prompt, output in zip(prompts, samples.outputs, strict=True)
    ]
    if all(hasattr(output, "ids") for output in samples.outputs):
        given["completion_ids"] = [list(output.ids) for output in samples.outputs]
    parameters = inspect.signature(fn).parameters.values()
    if any(p.kind is p.POSITIONAL_ONLY for p in parameters):
        raise HeedfulError(f"{name} takes arguments by position; a judge is called with keywords")
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    wanted = [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]
    missing = [key for key in wanted if key not in given]
    if missing:
        raise HeedfulError(
            f"{name} needs {', '.join(missing)}: the prompts' rows have no such column "
            f"(they have {', '.join(found) or 'none but the prompt'})"
        )
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return given
    return {key: values for key, values in given.items() if key in {p.name for p in parameters}}


def _scores(name: str, returned: Any, samples: Samples) -> torch.Tensor:
    """(B, N) from what a function returned. Raises HeedfulError naming the first completion it does not fit."""
    returned = returned.tolist() if hasattr(returned, "tolist") else returned
    if not isinstance(returned, list | tuple):
        raise HeedfulError(f"{name} returned {type(returned).__name__}; a list of numbers is needed")
    count = len(samples.outputs)
    if len(returned) != count:
        raise HeedfulError(
            f"{name} returned {len(returned)} scores for {count} completions; give one for each (None: no opinion)"
        )
    scores = []
    for i, score in enumerate(returned):
        score = _number(score)
        where = f"for completion {i % samples.n + 1} of prompt {i // samples.n + 1}"
        if score is not None and not isinstance(score, int | float):
            raise HeedfulError(f"{name} returned {score!r:.60} {where}; a number or None is needed")
        if score is not None and abs(score) > LARGEST:
            raise HeedfulError(
                f"{name} returned {score!r:.60} {where}; use a finite number, or None for no opinion"
            )
        scores.append(math.nan if score is None else float(score))
    return torch.tensor(scores).view(len(samples.inputs), samples.n)


def _number(score: Any) -> Any:
    """A number of numpy or torch as one of Python; everything else, an array of several too, as it is."""
    try:
        return score.item() if hasattr(score, "item") else score
    except (ValueError, RuntimeError):
        return score
