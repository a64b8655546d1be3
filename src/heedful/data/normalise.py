"""One raw row to the canonical row of its kind, or everything that is wrong with it.

Canonical: `prompt` is a text or a list of messages; `chosen`, `rejected` and `completion` are texts; `label` is a
bool and `margin` a float. Further columns stay as they are. Nothing here depends on other rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from heedful.data.dialogues import hh_turns, shared_beginning
from heedful.data.formats import parse
from heedful.data.problems import Severity, named, what

Kind = Literal["preference", "unpaired", "prompt_completion", "prompt"]
Layout = Literal["standard", "conversational", "HH"]
Message = dict[str, Any]

KINDS: tuple[Kind, ...] = ("preference", "unpaired", "prompt_completion", "prompt")
COLUMNS = ("prompt", "completion", "chosen", "rejected", "label", "margin")
ROLES = ("system", "developer", "user", "assistant", "tool")


class Found(NamedTuple):
    """What is wrong with a field of a row; `field` may be empty."""

    field: str
    message: str
    severity: Severity = "error"


@dataclass
class Normal:
    """A canonical row, which is to be used only when none of `found` is an error.

    `given` holds which of the columns `prompt` and `margin`, optional in preference data, the raw row has.
    """

    row: dict[str, Any]
    layout: Layout = "standard"
    given: frozenset[str] = frozenset()
    found: list[Found] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        """Whether there is no error."""
        return not any(one.severity == "error" for one in self.found)


def kind_of(raw: Mapping[str, Any], columns: Mapping[str, str]) -> Kind | None:
    """The kind of data that a row's columns say it is; None when they are none that are known."""
    row = _renamed(raw, columns)
    if "chosen" in row or "rejected" in row:
        return "preference"
    if "completion" in row:
        return "unpaired" if "label" in row else "prompt_completion"
    return "prompt" if "prompt" in row else None


def normalise(
    raw: Mapping[str, Any], kind: Kind, columns: Mapping[str, str], *, text: bool = False
) -> Normal:
    """The canonical row of `raw`, or what is wrong with it.

    columns: the raw name of a canonical column, where they differ.
    text: all values are text (CSV), so labels, margins and lists of messages are read from text.
    """
    made = Normal(_renamed(raw, columns))
    row = made.row
    for name, theirs in columns.items():
        needed = name in NEEDS[kind] or (kind == "preference" and name == "prompt")
        if needed and name not in row:
            made.found.append(Found(name, f"the column {named(theirs)} is missing{_columns_of(raw)}"))
    for name in NEEDS[kind]:
        if name not in row and name not in columns:
            made.found.append(Found(name, f"is missing{_columns_of(raw)}"))
    if text:
        ours = NEEDS[kind] if kind != "preference" else (*NEEDS[kind], "prompt", "margin")
        row |= {name: _from_text(name, row[name], made.found) for name in ours if name in row}
    if kind == "preference":
        _preference(made)
    else:
        _prompt_and_completion(made, kind)
    prompt = row.get("prompt")
    if made.valid and isinstance(prompt, list) and prompt[-1]["role"] == "assistant":
        made.found.append(
            Found(
                "prompt", "ends with an answer of the assistant; what follows it is a second one", "warning"
            )
        )
    return made


NEEDS: dict[Kind, tuple[str, ...]] = {
    "preference": ("chosen", "rejected"),
    "unpaired": ("prompt", "completion", "label"),
    "prompt_completion": ("prompt", "completion"),
    "prompt": ("prompt",),
}


def _renamed(raw: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """A file without the mapped column keeps its own: one mapping serves all the files of a job."""
    taken = {theirs for theirs in columns.values() if theirs in raw}
    row = {k: v for k, v in raw.items() if k not in taken and columns.get(k, "") not in taken}
    return row | {name: raw[theirs] for name, theirs in columns.items() if theirs in raw}


def _columns_of(raw: Mapping[str, Any]) -> str:
    names = [named(name) for name in raw]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f" (the row has {', '.join(names[:8])}{more})" if names else " (the row is empty)"


def _from_text(name: str, value: Any, found: list[Found]) -> Any:
    """What the text of a CSV cell stands for; the text itself when it stands for nothing else."""
    if not isinstance(value, str):
        return value
    if name == "label":
        return {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower(), value)
    if name == "margin":
        try:
            return float(value) if value.strip() else None
        except ValueError:
            return value
    if not re.match(r'\s*\[\s*\{\s*"(role|content)"\s*:', value):
        return value
    wrapped, field, message = parse(b'{"":' + value.encode() + b"}")
    if wrapped is None:
        found.append(
            Found(name, f"holds messages that cannot be read: {f'{field} ' if field else ''}{message}")
        )
        return value
    return wrapped[""]


# ---- kinds


def _prompt_and_completion(made: Normal, kind: Kind) -> None:
    row, found = made.row, made.found
    prompt, answer = _text(row, "prompt", found), None
    if kind != "prompt":
        answer = _text(row, "completion", found)
    if kind == "unpaired" and "label" in row:
        row["label"] = _label(row["label"], found)
    if found or prompt is None:
        return
    if isinstance(answer, list):
        made.layout = "conversational"
        row["completion"] = _answer(answer, "completion", found)
    dialogue = _hh_prompt(prompt, found) if isinstance(prompt, str) else None
    if dialogue is not None:
        made.layout, prompt = "HH", dialogue
        if isinstance(answer, str):
            row["completion"] = answer.strip()
    elif isinstance(prompt, list):
        made.layout = "conversational"
    elif isinstance(answer, list):
        prompt = [{"role": "user", "content": prompt}]
    row["prompt"] = prompt


def _preference(made: Normal) -> None:
    row, found = made.row, made.found
    made.given = frozenset(name for name in ("prompt", "margin") if row.get(name) is not None)
    prompt = _text(row, "prompt", found) if "prompt" in made.given else None
    chosen = _text(row, "chosen", found)
    rejected = _text(row, "rejected", found)
    _margin(row, found)
    if chosen is not None and chosen == rejected:
        found.append(Found("chosen", "equals rejected"))
    if chosen is None or rejected is None or found:
        return
    if isinstance(chosen, str) and isinstance(rejected, str):
        dialogues = hh_turns(chosen), hh_turns(rejected)
        if dialogues[0] is not None and dialogues[1] is not None:
            made.layout = "HH"
            chosen = _messages(dialogues[0], "chosen", found)
            rejected = _messages(dialogues[1], "rejected", found)
            if chosen is None or rejected is None:
                return
    if isinstance(chosen, list) and isinstance(rejected, list):
        if made.layout == "standard":
            made.layout = "conversational"
        _conversations(row, prompt, chosen, rejected, found)
    elif isinstance(chosen, list) or isinstance(rejected, list):
        found.append(Found("rejected", f"is {what(rejected)}, but chosen is {what(chosen)}"))
    else:
        _texts(made, prompt, chosen, rejected)


def _conversations(
    row: dict[str, Any],
    prompt: str | list[Message] | None,
    chosen: list[Message],
    rejected: list[Message],
    found: list[Found],
) -> None:
    if not isinstance(prompt, list):
        shared = 0
        most = min(len(chosen), len(rejected)) - 1
        while shared < most and chosen[shared] == rejected[shared]:
            shared += 1
        if shared:
            # As in TRL: some data sets repeat the first question as a text; the conversation says more.
            prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
        elif isinstance(prompt, str):
            prompt = _hh_prompt(prompt, found) or [{"role": "user", "content": prompt}]
        else:
            found.append(
                Found("prompt", "is missing, and chosen and rejected do not begin with the same message")
            )
            return
    answers = _answer(chosen, "chosen", found), _answer(rejected, "rejected", found)
    if answers[0] == answers[1] and not found:
        found.append(Found("chosen", "equals rejected"))
    row["prompt"], row["chosen"], row["rejected"] = prompt, *answers


def _texts(made: Normal, prompt: str | list[Message] | None, chosen: str, rejected: str) -> None:
    row, found = made.row, made.found
    if prompt is None:
        cut = shared_beginning(chosen, rejected)
        if not chosen[:cut].strip():
            found.append(
                Found("prompt", "is missing, and chosen and rejected do not begin with the same words")
            )
            return
        prompt, chosen, rejected = chosen[:cut], chosen[cut:], rejected[cut:]
    elif isinstance(prompt, list):
        made.layout = "conversational"
    else:
        dialogue = _hh_prompt(prompt, found)
        if dialogue is not None:
            made.layout, prompt = "HH", dialogue
            chosen, rejected = chosen.strip(), rejected.strip()
            if chosen == rejected:
                found.append(Found("chosen", "equals rejected"))
    row["prompt"], row["chosen"], row["rejected"] = prompt, chosen, rejected


# ---- values


def _text(row: dict[str, Any], name: str, found: list[Found]) -> str | list[Message] | None:
    """The text or the messages in a column; None when they are wrong, or missing, which is found before."""
    value = row.get(name)
    if isinstance(value, str):
        if value.strip():
            return value
        found.append(Found(name, "is empty"))
    elif isinstance(value, list):
        return _messages(value, name, found)
    elif name in row:
        found.append(Found(name, f"must be text or a list of messages, not {what(value)}"))
    return None


def _messages(value: list[Any], name: str, found: list[Found]) -> list[Message] | None:
    before = len(found)
    if not value:
        found.append(Found(name, "is empty"))
    for i, message in enumerate(value):
        where = f"{name}[{i}]"
        if not isinstance(message, dict):
            found.append(Found(where, f"must be a message with role and content, not {what(message)}"))
            continue
        if "role" not in message or "content" not in message:
            found.append(Found(where, f"must have role and content{_columns_of(message)}"))
            continue
        role, content = message["role"], message["content"]
        if role not in ROLES:
            told = named(role) if isinstance(role, str) else what(role)
            found.append(Found(f"{where}.role", f"must be one of {', '.join(ROLES)}, not {told}"))
        if not isinstance(content, str):
            found.append(Found(f"{where}.content", f"must be text, not {what(content)}"))
        elif not content.strip():
            found.append(Found(f"{where}.content", "is empty"))
    if len(found) > before:
        return None
    # Parquet gives every message all the keys that any message has.
    return [{k: v for k, v in message.items() if v is not None} for message in value]


def _answer(messages: list[Message], name: str, found: list[Found]) -> str:
    if len(messages) != 1:
        found.append(
            Found(name, f"has {len(messages)} messages after the prompt; it must be one, of the assistant")
        )
    elif messages[0]["role"] != "assistant":
        found.append(Found(name, f"must be a message of the assistant, not of the {messages[0]['role']}"))
    return messages[-1]["content"]


def _label(value: Any, found: list[Found]) -> bool:
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    told = named(value) if isinstance(value, str) else what(value)
    found.append(
        Found("label", f"must be true or false, not {'another number' if told == 'a number' else told}")
    )
    return False


def _margin(row: dict[str, Any], found: list[Found]) -> None:
    value = row.get("margin")
    if value is None:
        row.pop("margin", None)
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        found.append(
            Found(
                "margin", f"must be a number, not {named(value) if isinstance(value, str) else what(value)}"
            )
        )
        return
    try:
        row["margin"] = float(value)
    except OverflowError:
        row["margin"] = math.inf
    if not math.isfinite(row["margin"]):
        found.append(Found("margin", "must be a finite number"))


def _hh_prompt(text: str, found: list[Found]) -> list[Message] | None:
    turns = hh_turns(text)
    if turns is None:
        return None
    if turns[-1] == {"role": "assistant", "content": ""}:
        turns.pop()
    return _messages(turns, "prompt", found)
