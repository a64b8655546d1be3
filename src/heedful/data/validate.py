"""Everything that is wrong with files of rows, with file, line and field, and a summary; `heedful check`.

Errors keep a file from being used. Warnings are reported: the same pair twice, pairs that contradict each other,
prompts longer than the context.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from heedful.data.formats import Item, scan
from heedful.data.normalise import KINDS, Found, Kind, Normal, kind_of, normalise
from heedful.data.problems import Problem, format_of, place, printable, short
from heedful.errors import HeedfulError

SHOWN = 20
KEPT = 10_000
CHARACTERS_PER_TOKEN = 4


@dataclass
class Words:
    """How long a column's texts are, in words."""

    mean: float = 0.0
    longest: int = 0


@dataclass
class FileReport:
    """What was found in one file. `rows` counts faulty rows too; of `problems` only the first KEPT are kept."""

    file: str
    kind: str = "unknown"
    layouts: list[str] = field(default_factory=list)
    implicit_prompt: bool = False
    rows: int = 0
    faulty_rows: int = 0
    blank_lines: int = 0
    distinct_prompts: int = 0
    words: dict[str, Words] = field(default_factory=dict)
    errors: int = 0
    warnings: int = 0
    problems: list[Problem] = field(default_factory=list)

    def summary(self) -> str:
        """A few lines: rows, kind, lengths, counts."""
        kind = f"{self.kind} with implicit prompts" if self.implicit_prompt else self.kind
        facts = [_count(self.rows, "row"), *([kind] if self.rows else [])]
        if self.layouts:
            facts += [" and ".join(self.layouts), _count(self.distinct_prompts, "distinct prompt")]
        told = [f"{printable(self.file)}: {', '.join(facts)}"]
        if self.words:
            lengths = [f"{name} {w.mean:,.1f} (longest {w.longest:,})" for name, w in self.words.items()]
            told.append(f"  mean words: {', '.join(lengths)}")
        if self.blank_lines:
            told.append(f"  {_count(self.blank_lines, 'blank line')} passed over")
        faulty = f" in {_count(self.faulty_rows, 'row')}" if self.faulty_rows else ""
        told.append(f"  {_count(self.errors, 'error')}{faulty}, {_count(self.warnings, 'warning')}")
        return "\n".join(told)


@dataclass
class Report:
    """What was found in some files."""

    files: list[FileReport]

    @property
    def error_count(self) -> int:
        """How many errors there are in all files."""
        return sum(file.errors for file in self.files)

    @property
    def warning_count(self) -> int:
        """How many warnings there are in all files."""
        return sum(file.warnings for file in self.files)

    @property
    def problems(self) -> list[Problem]:
        """Errors and warnings, file by file; of each file the first KEPT of either."""
        return [problem for file in self.files for problem in file.problems]

    def as_dict(self) -> dict[str, Any]:
        """Everything, as plain values for JSON."""
        files = [{k: v for k, v in asdict(file).items() if k != "problems"} for file in self.files]
        problems = [{**asdict(p), "text": str(p)} for p in self.problems]
        for values in (*files, *problems):
            values |= {k: printable(v) for k, v in values.items() if isinstance(v, str)}
        return {
            "errors": self.error_count,
            "warnings": self.warning_count,
            "files": files,
            "problems": problems,
        }

    def text(self) -> str:
        """The first errors, the first warnings and the summary of each file."""
        parts = [listed(self, "error"), listed(self, "warning"), *(file.summary() for file in self.files)]
        return "\n\n".join(part for part in parts if part)


def listed(report: Report, severity: str) -> str:
    """The first SHOWN errors or warnings, a line each, and how many more there are; "" for none."""
    found = [str(problem) for problem in report.problems if problem.severity == severity][:SHOWN]
    more = (report.error_count if severity == "error" else report.warning_count) - len(found)
    return "\n".join([*found, f"… and {_count(more, f'more {severity}')}"] if more else found)


def _count(n: int, thing: str) -> str:
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"


def check(
    files: Sequence[str | Path],
    kind: str = "auto",
    columns: Mapping[str, str] | None = None,
    context: int | None = None,
) -> Report:
    """Read files to their ends and report everything that is wrong, and what is in them.

    kind: `auto` goes by the columns of the first row that has known ones.
    columns: the name in the files of a canonical column, where they differ (see `rows.parse_columns`).
    context: prompts of more tokens are reported; tokens are estimated, at 4 characters each.
    Raises HeedfulError when no file, no such kind or no possible context is given, never for what is in a file.
    """
    if not files:
        raise HeedfulError("give at least one file to check")
    if context is not None and context < 1:
        raise HeedfulError(f"the context must be at least 1 token, not {context}")
    reports = []
    for file in files:
        checker = Checker(str(file), kind, columns, context)
        for item in scan(str(file)):
            checker.take(item)
        reports.append(checker.finish())
    return Report(reports)


class Checker:
    """Checks one file, item by item, for `check` and `rows.open_rows`.

    It keeps 32 bytes a row: a hash of the prompt, a hash of the whole, and the line. `unreadable` tells that a part
    of the file could not be read at all, so that nobody knows what is missing.
    """

    def __init__(
        self, file: str, kind: str, columns: Mapping[str, str] | None = None, context: int | None = None
    ) -> None:
        if kind != "auto" and kind not in KINDS:
            raise HeedfulError(f"there is no kind of data {kind!r}; choose one of auto, {', '.join(KINDS)}")
        self.kind: Kind | None = next((known for known in KINDS if known == kind), None)
        self.report = FileReport(file)
        self.unreadable = False
        self._columns, self._context = columns or {}, context
        self._text = format_of(file).startswith("csv")
        self._given: tuple[int, frozenset[str]] | None = None
        self._prompts, self._high, self._low, self._marks = (array("Q") for _ in range(4))
        self._words: dict[str, list[int]] = {}
        self._warnings: list[Problem] = []

    def take(self, item: Item) -> bool:
        """Check the next item; whether it is a row without errors."""
        faulty = self.report.faulty_rows
        if item.row is not None:
            self.report.rows += 1
            self._check(item.line, item.row)
            return self.report.faulty_rows == faulty
        elif item.problems:
            # A file that cannot be opened has no row that is faulty.
            in_row = item.problems[0].line > 0
            self.unreadable = True
            self.report.rows += in_row
            self.report.faulty_rows += in_row
            for problem in item.problems:
                self.add(problem)
        else:
            self.report.blank_lines += 1
        return False

    def add(self, problem: Problem) -> None:
        """Report a problem."""
        report = self.report
        if problem.severity == "error":
            report.errors += 1
            if report.errors <= KEPT:
                report.problems.append(problem)
        else:
            report.warnings += 1
            if report.warnings <= KEPT:
                self._warnings.append(problem)

    def _check(self, line: int, raw: Mapping[str, Any]) -> None:
        report = self.report
        if self.kind is None:
            self.kind = kind_of(raw, self._columns)
        if self.kind is None:
            names = ", ".join(repr(short(str(name))) for name in list(raw)[:8]) or "none"
            message = f"no column has a known name; the columns are {names} (map them with --columns)"
            self.add(Problem(report.file, line, "", message))
            report.faulty_rows += 1
            return
        made = normalise(raw, self.kind, self._columns, text=self._text)
        if made.valid:
            self._compare_columns(line, made)
        for one in made.found:
            self.add(Problem(report.file, line, one.field, one.message, one.severity))
        if not made.valid:
            report.faulty_rows += 1
            return
        if made.layout not in report.layouts:
            report.layouts.append(made.layout)
        self._measure(line, made.row)

    def _compare_columns(self, line: int, made: Normal) -> None:
        """A prompt that is missing once must not be guessed from the answers, nor a margin be left out once."""
        if self.kind != "preference":
            return
        if self._given is None:
            self._given = line, made.given
            self.report.implicit_prompt = "prompt" not in made.given
        first, given = self._given
        if given == made.given:
            return
        where = self._name(first)
        made.found += [
            Found(name, f"is missing here, but not on {where}") for name in sorted(given - made.given)
        ]
        made.found += [
            Found(name, f"is missing on {where}, but not here") for name in sorted(made.given - given)
        ]

    def _name(self, line: int) -> str:
        name = place(self.report.file, line)
        return name if name.startswith("row") else f"line {name}"

    def _measure(self, line: int, row: Mapping[str, Any]) -> None:
        prompt = row["prompt"]
        said = prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)
        texts = {"prompt": said} | {name: row[name] for name in ANSWERS[self.kind or "prompt"]}
        for name, text in texts.items():
            words = len(text.split())
            total = self._words.setdefault(name, [0, 0, 0])
            total[:] = total[0] + 1, total[1] + words, max(total[2], words)
        tokens = -(-len(said) // CHARACTERS_PER_TOKEN)
        if self._context is not None and tokens > self._context:
            message = (
                f"is about {tokens:,} tokens (estimated at {CHARACTERS_PER_TOKEN} characters a token); "
                f"the context is {self._context:,}"
            )
            self.add(Problem(self.report.file, line, "prompt", message, "warning"))
        # Two pairs that contradict each other have the same answers, so those go into the hash in one order.
        answers = sorted(row[name] for name in ANSWERS[self.kind or "prompt"])
        side = (
            bool(row["label"])
            if self.kind == "unpaired"
            else self.kind == "preference" and row["chosen"] > row["rejected"]
        )
        asked = json.dumps(prompt, sort_keys=True).encode()
        whole = hashlib.blake2b(json.dumps(answers).encode() + asked, digest_size=16).digest()
        self._prompts.frombytes(hashlib.blake2b(asked, digest_size=8).digest())
        self._high.frombytes(whole[:8])
        self._low.frombytes(whole[8:])
        self._marks.append(line << 1 | side)

    def finish(self) -> FileReport:
        """What was found; call it once, after the last item."""
        report = self.report
        if not report.rows and not report.errors:
            blank = "has only blank lines" if report.blank_lines else "has no rows"
            self.add(Problem(report.file, 0, "", blank))
        if len(self._marks):
            import numpy as np

            report.distinct_prompts = len(np.unique(np.frombuffer(self._prompts, np.uint64)))
        for line, other, same in self._repeats():
            told, other_name = MESSAGES[self.kind or "prompt"][not same], self._name(other)
            self.add(Problem(report.file, line, "", told.format(other_name), "warning"))
        report.problems += sorted(self._warnings, key=lambda problem: problem.line)
        report.kind = self.kind or "unknown"
        report.words = {
            name: Words(round(total / n, 1), most) for name, (n, total, most) in self._words.items()
        }
        return report

    def _repeats(self) -> Iterator[tuple[int, int, bool]]:
        """(line, an earlier line, whether it says the same rather than the opposite)."""
        if len(self._marks) < 2:
            return
        import numpy as np

        high, low, marks = (np.frombuffer(part, np.uint64) for part in (self._high, self._low, self._marks))
        order = np.lexsort((marks, low, high))
        equal = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
        firsts: dict[int, int] = {}
        before = -2
        for i in np.flatnonzero(equal).tolist():
            if i != before + 1:
                mark = int(marks[order[i]])
                firsts = {mark & 1: mark >> 1}
            mark = int(marks[order[i + 1]])
            line, side = mark >> 1, mark & 1
            yield line, firsts.get(side, firsts.get(1 - side, 0)), side in firsts
            firsts.setdefault(side, line)
            before = i


ANSWERS: dict[Kind, tuple[str, ...]] = {
    "preference": ("chosen", "rejected"),
    "unpaired": ("completion",),
    "prompt_completion": ("completion",),
    "prompt": (),
}
MESSAGES: dict[Kind, tuple[str, str]] = {
    "preference": ("the same pair as {}", "contradicts {}: chosen and rejected have changed places"),
    "unpaired": ("the same row as {}", "contradicts {}: the label is the other one"),
    "prompt_completion": ("the same row as {}", ""),
    "prompt": ("the same prompt as {}", ""),
}
