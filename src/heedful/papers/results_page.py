"""The page of a reproduction as Markdown, for GitHub and for the documentation alike.

Claims, notes and cells may quote what a model wrote, so every text is escaped: nothing in it can end a table's cell,
start a heading or become HTML.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from heedful.papers.results import verdict
from heedful.report_values import clean, number

if TYPE_CHECKING:
    from heedful.papers.results import Claim, Plot, Results, Table

# Entities where one of the two readers (GitHub, Python-Markdown) does not know the backslash.
_ENTITIES = {char: f"&#{ord(char)};" for char in "|$~`\\"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_BACKSLASHED = {char: f"\\{char}" for char in "*_[]"}
_ESCAPES = str.maketrans(_ENTITIES | _BACKSLASHED)
# What begins a block at the start of a line: headings, lists, rules, admonitions (!), mkdocstrings (:).
_STARTS = re.compile(r"[#\-+=:!?]|\d+(?=[.)])")
_LINKED = re.compile(r"(?i)(?<![a-z0-9])(https?|ftp|www)([:.])")


def page(results: Results, source: str, plots: Sequence[str]) -> str:
    """The page; `source` is the JSON file's name, `plots` are the names of the plots' files, in order."""
    blocks = [
        f"# {escape(results.title)}",
        f"*Made from `{source}` by `heedful reproduce {results.paper} --render`; changes here are lost.*",
        _facts(results),
        f"**{tally(results.claims)}**",
    ]
    if results.claims:
        blocks += ["## Claims", claims_table(results.claims)]
    for table in results.tables:
        blocks += [f"## {escape(table.title)}", _table(table), *_paragraph(table.note)]
    for plot, name in zip(results.plots, plots, strict=True):
        blocks += [f"## {escape(plot.title)}", _image(plot, name), *_paragraph(plot.note)]
    if results.notes:
        blocks += ["## Notes", "\n".join(f"- {escape(note)}" for note in results.notes)]
    return "\n\n".join(blocks) + "\n"


def escape(text: Any) -> str:
    """Text on one line that Markdown shows as it is, wherever it stands."""
    line = " ".join(clean(text).split())
    start = _STARTS.match(line)
    held = ""
    if start:
        # After digits it is the point or bracket that makes a list.
        end = start.end() + start.group().isdigit()
        held = "".join(char if char.isdigit() else f"&#{ord(char)};" for char in line[:end])
        line = line[end:]
    # GitHub makes links of bare addresses; one inside a quoted answer should stay text.
    escaped = _LINKED.sub(lambda found: f"{found[1]}&#{ord(found[2])};", line.translate(_ESCAPES))
    return held + escaped


def tally(claims: Sequence[Claim]) -> str:
    """How many of the claims hold, in a sentence."""
    count = Counter(map(verdict, claims))
    failing, undecided, missing = (count[name] for name in ("does not hold", "undecided", "not run"))
    parts = [f"{count['holds']} of {len(claims)} claims hold"]
    parts += [f"{failing} {'do' if failing > 1 else 'does'} not"] if failing else []
    parts += [f"{undecided} {'are' if undecided > 1 else 'is'} undecided"] if undecided else []
    parts += [f"{missing} {'were' if missing > 1 else 'was'} not run in this tier"] if missing else []
    return (", ".join(parts) if claims else "There are no claims yet") + "."


def show(value: Any) -> str:
    """A number with three significant digits, a dash for what is none: 0.00154, 12.3, 1 234."""
    found = number(value)
    if found is None:
        return "–"
    if found and not 1e-4 <= abs(found) < 1e7:
        text = f"{found:.2e}"
    elif abs(found) >= 1000:
        text = f"{found:,.0f}".replace(",", "\u202f")
    else:
        text = f"{found:.3g}"
    return text.replace("-", "−")


def show_interval(interval: tuple[float, float] | None) -> str:
    """`0.120 … 0.340`, or a dash."""
    return "–" if interval is None else " … ".join(map(show, interval))


def claims_table(claims: Sequence[Claim]) -> str:
    """The claims as a Markdown table."""
    columns = ["claim", "paper", "measured", "95% interval", "holds", "note"]
    return _rows(
        columns,
        [
            [
                escape(claim.claim),
                escape(claim.paper),
                show(claim.measured),
                show_interval(claim.interval),
                verdict(claim) if claim.holds is not False else f"**{verdict(claim)}**",
                escape(claim.note),
            ]
            for claim in claims
        ],
        right={2, 3},
    )


def _facts(results: Results) -> str:
    seeds = f"seed{'s' if len(results.seeds) > 1 else ''} {', '.join(map(str, results.seeds)) or 'none'}"
    commit = escape(results.commit or "unknown")
    return f"Tier {results.tier}, commit {commit}, {seeds}, {show(results.minutes)} minutes."


def _table(table: Table) -> str:
    numeric = {
        i
        for i in range(len(table.columns))
        if table.rows and all(row[i] is None or number(row[i]) is not None for row in table.rows)
    }
    rows = [[_cell(value) for value in row] for row in table.rows]
    return _rows([escape(name) for name in table.columns], rows, numeric)


def _cell(value: Any) -> str:
    if isinstance(value, str | bool):
        return escape(value)
    return show(value)


def _rows(columns: Sequence[str], rows: Sequence[Sequence[str]], right: set[int]) -> str:
    rule = ["---:" if i in right else "---" for i in range(len(columns))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, rule, *rows])


def _image(plot: Plot, name: str) -> str:
    names = ", ".join(escape(series.name) for series in plot.series)
    return f"![{escape(plot.y_label)} over {escape(plot.x_label)}: {names}]({name})"


def _paragraph(text: str) -> list[str]:
    return [escape(text)] if text.strip() else []
