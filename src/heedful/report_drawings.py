"""Pictures of the report page that are no plots: search trees and heatmaps, as inline SVG in the page's colours.

Unlike plots they carry words of the run: numbers that a model wrote, names of strategies. Every one of them is escaped
here, and bounded in length and number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from heedful.report_values import clean, number

ROW, BOX, GAP, CHARACTER = (
    24,
    20,
    30,
    7.1,
)  # pixels: a row, a node's height, between columns, the width of a digit
TEXT = 44  # longest text of a node
ROWS = 600  # most nodes of a tree
SIDE = 24  # most rows of a heatmap
CELL = 33
LOOKS = {
    # of a node's kind: frame, filling, text, dashes
    "root": ("var(--accent)", "none", "var(--ink)", ""),
    "goal": ("var(--good)", "var(--good-bg)", "var(--good)", ""),
    "false goal": ("var(--bad)", "var(--bad-bg)", "var(--bad)", ""),
    "missed goal": ("var(--bad)", "var(--bad-bg)", "var(--bad)", ""),
    "dead end": ("none", "var(--quiet-bg)", "var(--soft)", ""),
    "not followed": ("var(--soft)", "none", "var(--soft)", "3 3"),
    "made up": ("var(--bad)", "none", "var(--bad)", "3 3"),
    "more": ("none", "none", "var(--soft)", ""),
    "inner": ("var(--soft)", "none", "var(--ink)", ""),
}
MARKS = {
    "goal": "✓",
    "false goal": "✗ false",
    "missed goal": "✗ missed",
    "dead end": "×",
    "not followed": "○",
    "made up": "?",
}


def drawing(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """A drawing of report.json as the page shows it: title, note, svg. None where there is nothing to draw.

    kind "tree": "rows" of parent (a place among them or -1), kind, text, numbers, errors, step and way, parents first.
    kind "heatmap": "labels" and "values", as many rows of as many numbers from -1 to 1, null for unknown.
    """
    title = clean(given.get("title"))
    if given.get("kind") == "tree":
        svg = tree([row for row in _list(given.get("rows")) if isinstance(row, Mapping)], title)
        key = [("goal", "✓ goal"), ("dead", "× dead end"), ("open", "○ not followed"), ("error", "! error")]
    elif given.get("kind") == "heatmap":
        svg, key = heatmap(_list(given.get("labels")), _list(given.get("values")), title), []
    else:
        return None
    return {"title": title, "note": clean(given.get("note")), "svg": svg, "key": key} if svg else None


def tree(rows: Sequence[Mapping[str, Any]], label: str) -> Markup | None:
    """A tree from left to right: a column for each depth, a line for each leaf, children below their parent's line."""
    rows = rows[:ROWS]
    if not rows:
        return None
    parents = [
        p if isinstance(p, int) and -1 <= p < i else -1 for i, p in enumerate(r.get("parent") for r in rows)
    ]
    depths: list[int] = []
    for parent in parents:
        depths.append(depths[parent] + 1 if parent >= 0 else 0)
    texts = [_text(row) for row in rows]
    line = -1
    lines: list[int] = []
    begun: set[int] = set()  # parents with a child, which is on their own line
    for parent in parents:
        line += parent < 0 or parent in begun
        begun.add(parent)
        lines.append(line)
    wide = [_width(row, text) for row, text in zip(rows, texts, strict=True)]
    widths = [0.0] * (max(depths) + 1)
    for depth, width in zip(depths, wide, strict=True):
        widths[depth] = max(widths[depth], width)
    left = [2.0]
    for width in widths:
        left.append(left[-1] + width + GAP)
    ways = [bool(row.get("way")) for row in rows]
    boxes = [left[d] for d in depths]
    links, drawn = [], []
    for way in (False, True):  # the way to the goal lies above the other links
        for i, parent in enumerate(parents):
            if parent < 0 or (ways[i] and ways[parent]) != way:
                continue
            x, y, up = boxes[i], lines[i] * ROW + ROW / 2, lines[parent] * ROW + ROW / 2
            start = boxes[parent] + wide[parent]
            middle = x - GAP / 2
            path = (
                f"M{start:.0f} {up:.0f}H{middle:.0f}V{y:.0f}H{x:.0f}"
                if y != up
                else f"M{start:.0f} {up:.0f}H{x:.0f}"
            )
            stroke = (
                'stroke="var(--good)" stroke-width="2"' if way else 'stroke="var(--grid)" stroke-width="1.2"'
            )
            links.append(f'<path d="{path}" fill="none" {stroke}/>')
    for i, (row, text) in enumerate(zip(rows, texts, strict=True)):
        drawn.append(_node(row, text, boxes[i], lines[i] * ROW + (ROW - BOX) / 2, wide[i]))
    size = f"{left[-1] - GAP + 2:.0f}", f"{(line + 1) * ROW + 2}"
    return _svg("tree", *size, label, [*links, *drawn])


def heatmap(labels: Sequence[Any], values: Sequence[Any], label: str) -> Markup | None:
    """A square of numbers from -1 to 1; the stronger the colour the larger, negative ones in another colour."""
    labels = [clean(label)[:TEXT] for label in labels[:SIDE]]
    grid = [[number(v) for v in row] if isinstance(row, list | tuple) else [] for row in values][:SIDE]
    if not labels or len(grid) != len(labels) or any(len(row) != len(labels) for row in grid):
        return None
    margin = 10 + CHARACTER * max(map(len, labels))
    top = margin * 0.8
    parts = []
    for i, (said, row) in enumerate(zip(labels, grid, strict=True)):
        y = top + i * (CELL - 9)
        parts.append(
            f'<text x="{margin - 6:.0f}" y="{y + 16:.0f}" text-anchor="end" fill="var(--ink)">{escape(said)}</text>'
        )
        x = margin + i * CELL + 20
        parts.append(
            f'<text transform="translate({x:.0f} {top - 5:.0f}) rotate(-50)" fill="var(--ink)">{escape(said)}</text>'
        )
        for j, value in enumerate(row):
            parts.append(_cell(margin + j * CELL, y, value, f"{said}, {labels[j]}"))
    width, height = margin + len(labels) * CELL + 0.6 * margin, top + len(labels) * (CELL - 9) + 2
    return _svg("heatmap", f"{width:.0f}", f"{height:.0f}", label, parts)


def standalone(svg: Markup) -> str:
    """The drawing as a file of its own, with the page's colours in it, light and dark."""
    page = (Path(__file__).parent / "templates" / "page.css").read_text("utf-8")
    light, dark = re.findall(r":root\{([^}]*)\}", page)[:2]
    style = f"svg{{{light};background:var(--paper)}}@media (prefers-color-scheme:dark){{svg{{{dark}}}}}"
    opening, _, rest = svg.partition(">")
    return f'{opening} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{rest}\n'


def _svg(kind: str, width: str, height: str, label: str, parts: Sequence[str]) -> Markup:
    head = (
        f'<svg class="{kind}" role="img" aria-label="{escape(label)}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="12">'
    )
    return Markup(f"{head}{''.join(parts)}</svg>")


def _list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else []


def _text(row: Mapping[str, Any]) -> str:
    """What stands in a node, bounded."""
    said = clean(row.get("text"))
    numbers = clean(row.get("numbers"))
    if numbers:
        said += f" {numbers}" if row.get("kind") == "made up" else f" → {numbers}"
    mark = MARKS.get(str(row.get("kind")), "")
    errors = row.get("errors")
    wrong = f"! {', '.join(map(clean, errors))}" if errors and isinstance(errors, list) else ""
    if len(said) > TEXT:
        said = f"{said[: TEXT - 1]}…"
    return "  ".join(part for part in (said, mark, wrong[:TEXT]) if part)


def _width(row: Mapping[str, Any], text: str) -> float:
    each = CHARACTER * (1.08 if row.get("way") else 1.0)  # the way to the goal is in bold
    return each * len(text) + (3.2 * CHARACTER if row.get("step") else 0.0) + 14


def _node(row: Mapping[str, Any], text: str, x: float, y: float, width: float) -> str:
    frame, filling, ink, dashes = LOOKS.get(str(row.get("kind")), LOOKS["inner"])
    weight = ""
    if row.get("way"):
        frame, weight = "var(--good)", ' font-weight="600"'
    if row.get("errors"):
        frame, filling, ink = "var(--bad)", "var(--bad-bg)", "var(--bad)"
    dash = f' stroke-dasharray="{dashes}"' if dashes else ""
    box = (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{BOX}" rx="5" fill="{filling}" '
        f'stroke="{frame}"{dash}/>'
    )
    step, at = row.get("step"), x + 7
    said = ""
    if step:
        said = f'<text x="{at:.0f}" y="{y + 14:.0f}" font-size="9.5" fill="var(--soft)">{escape(clean(step))}</text>'
        at += 3.2 * CHARACTER
    return f'{box}{said}<text x="{at:.0f}" y="{y + 14.5:.1f}" fill="{ink}"{weight}>{escape(text)}</text>'


def _cell(x: float, y: float, value: float | None, about: str) -> str:
    shown, fill, opacity = "–", "none", 0.0
    if value is not None:
        value = min(1.0, max(-1.0, value))
        shown = re.sub(r"^(-?)0\.", r"\1.", f"{value:.2f}").replace("-", "−")
        shown = {".00": "0", "−.00": "0", "1.00": "1", "−1.00": "−1"}.get(shown, shown)
        fill, opacity = ("var(--accent)" if value >= 0 else "var(--bad)"), 0.06 + 0.5 * abs(value)
    return (
        f'<g><title>{escape(about)}: {shown}</title><rect x="{x:.1f}" y="{y:.1f}" width="{CELL - 1.5}" '
        f'height="{CELL - 10.5}" rx="2" fill="{fill}" fill-opacity="{opacity:.2f}"/><text x="{x + CELL / 2 - 1:.1f}" '
        f'y="{y + 15.5:.1f}" text-anchor="middle" font-size="10.5" fill="var(--ink)">{shown}</text></g>'
    )
