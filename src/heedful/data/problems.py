"""What is wrong and where, as one line of text that is safe to print."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]
HUB = "hub:"
ENDINGS = ("jsonl", "jsonl.gz", "csv", "csv.gz", "parquet")


@dataclass(frozen=True)
class Problem:
    """Something wrong, as text `file:line: field: message`. Line 0 is the whole file; `field` may be empty."""

    file: str
    line: int
    field: str
    message: str
    severity: Severity = "error"

    def __str__(self) -> str:
        where = f"{self.file}:{place(self.file, self.line)}" if self.line else self.file
        severity = "" if self.severity == "error" else self.severity
        return printable(": ".join(part for part in (where, severity, self.field, self.message) if part))


def format_of(path: str) -> str:
    """`hub`, one of ENDINGS, or "" when neither fits."""
    if path.startswith(HUB):
        return "hub"
    return next((ending for ending in ENDINGS if path.lower().endswith(f".{ending}")), "")


def place(file: str, line: int) -> str:
    """How a row of `file` is named: `17`, or `row 17` where there are no lines."""
    return f"row {line}" if file.startswith(HUB) or format_of(file) == "parquet" else str(line)


def printable(text: str) -> str:
    """`text` with everything escaped that a terminal would obey or cannot show; names come from untrusted files."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def named(value: Any) -> str:
    """A name from a file, quoted and of bounded length."""
    return repr(short(str(value)))


def short(name: str) -> str:
    """`name`, of bounded length."""
    return name if len(name) <= 60 else f"{name[:57]}..."


def what(value: Any) -> str:
    """The JSON name of a value's type, with its article."""
    if value is None:
        return "null"
    names: dict[type, str] = {bool: "true or false", int: "a number", float: "a number", str: "text"}
    names |= {list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")
