"""Rows by number: every kind, layout and format; random access; what is cached; the split by prompt."""

from __future__ import annotations

import csv
import gc
import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.data.dialogues import hh_turns, shared_beginning
from heedful.data.rows import Rows, open_rows, parse_columns, prompt_key, read, split_by_prompt
from heedful.errors import HeedfulError

Row = dict[str, Any]
FORMATS = ("jsonl", "jsonl.gz", "csv", "csv.gz", "parquet")
MESSY = 'né "quoted",\nover two lines; 水 \U0001f9ca \u0000-free\ttab'.replace("\u0000", "")


def said(role: str, content: str) -> list[Row]:
    return [{"role": role, "content": content}]


def write(folder: Path, ending: str, rows: list[Row]) -> str:
    """`rows` as a file of the format that `ending` names."""
    path = folder / f"data.{ending}"
    if ending == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
        return str(path)
    out = io.StringIO(newline="")
    if ending.startswith("csv"):
        writer = csv.writer(out)
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow(v if isinstance(v, str) else json.dumps(v) for v in row.values())
    else:
        out.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    data = out.getvalue().encode()
    path.write_bytes(gzip.compress(data) if ending.endswith(".gz") else data)
    return str(path)


def jsonl(folder: Path, *rows: Row) -> str:
    return write(folder, "jsonl", list(rows))


def only(folder: Path, kind: str, row: Row) -> Row:
    """The canonical row of one raw row."""
    return open_rows(jsonl(folder, row), kind)[0]


def refusal(folder: Path, kind: str, row: Row) -> str:
    """Why one raw row is refused, without the place."""
    path = jsonl(folder, row)
    with pytest.raises(HeedfulError) as caught:
        open_rows(path, kind)
    assert all(line.startswith(f"{path}:1: ") for line in str(caught.value).splitlines())
    return str(caught.value).replace(f"{path}:1: ", "")


# ---- every kind, layout and format


def asked(i: int) -> str:
    return f"Why does ice number {i} float, {MESSY}?"


CASES: dict[tuple[str, str], tuple[Any, Any]] = {
    ("preference", "explicit"): (
        lambda i: {"prompt": asked(i), "chosen": f"Light {i}.", "rejected": MESSY},
        lambda i: {"prompt": asked(i), "chosen": f"Light {i}.", "rejected": MESSY},
    ),
    ("preference", "implicit"): (
        lambda i: {"chosen": f"{asked(i)} Light {i}.", "rejected": f"{asked(i)} Heavy {i}."},
        lambda i: {"prompt": asked(i), "chosen": f" Light {i}.", "rejected": f" Heavy {i}."},
    ),
    ("preference", "explicit conversational"): (
        lambda i: {
            "prompt": said("system", "Be short.") + said("user", asked(i)),
            "chosen": said("assistant", f"Light {i}."),
            "rejected": said("assistant", MESSY),
        },
        lambda i: {
            "prompt": said("system", "Be short.") + said("user", asked(i)),
            "chosen": f"Light {i}.",
            "rejected": MESSY,
        },
    ),
    ("preference", "implicit conversational"): (
        lambda i: {
            "chosen": said("user", asked(i)) + said("assistant", f"Light {i}."),
            "rejected": said("user", asked(i)) + said("assistant", MESSY),
        },
        lambda i: {"prompt": said("user", asked(i)), "chosen": f"Light {i}.", "rejected": MESSY},
    ),
    ("preference", "HH"): (
        lambda i: {
            "chosen": f"\n\nHuman: Hi {i}\n\nAssistant: Hello.\n\nHuman: Why?\n\nAssistant: Light.",
            "rejected": f"\n\nHuman: Hi {i}\n\nAssistant: Hello.\n\nHuman: Why?\n\nAssistant: Because.",
        },
        lambda i: {
            "prompt": said("user", f"Hi {i}") + said("assistant", "Hello.") + said("user", "Why?"),
            "chosen": "Light.",
            "rejected": "Because.",
        },
    ),
    ("unpaired", "standard"): (
        lambda i: {"prompt": asked(i), "completion": MESSY, "label": i % 2 == 0},
        lambda i: {"prompt": asked(i), "completion": MESSY, "label": i % 2 == 0},
    ),
    ("unpaired", "conversational"): (
        lambda i: {
            "prompt": said("user", asked(i)),
            "completion": said("assistant", MESSY),
            "label": i % 2 == 0,
        },
        lambda i: {"prompt": said("user", asked(i)), "completion": MESSY, "label": i % 2 == 0},
    ),
    ("prompt_completion", "standard"): (
        lambda i: {"prompt": asked(i), "completion": MESSY},
        lambda i: {"prompt": asked(i), "completion": MESSY},
    ),
    ("prompt_completion", "conversational"): (
        lambda i: {"prompt": said("user", asked(i)), "completion": said("assistant", MESSY)},
        lambda i: {"prompt": said("user", asked(i)), "completion": MESSY},
    ),
    ("prompt", "standard"): (lambda i: {"prompt": asked(i)}, lambda i: {"prompt": asked(i)}),
    ("prompt", "conversational"): (
        lambda i: {"prompt": said("user", asked(i))},
        lambda i: {"prompt": said("user", asked(i))},
    ),
    ("prompt", "HH"): (
        lambda i: {"prompt": f"\n\nHuman: Why {i}?\n\nAssistant:"},
        lambda i: {"prompt": said("user", f"Why {i}?")},
    ),
}


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(("kind", "layout"), list(CASES))
def test_rows_come_back_canonical(tmp_path: Path, kind: str, layout: str, ending: str) -> None:
    raw, canonical = CASES[kind, layout]
    path = write(tmp_path, ending, [raw(i) for i in range(7)])
    rows = open_rows(path, kind)
    expected = [canonical(i) for i in range(7)]
    assert list(rows) == expected and len(rows) == 7 == rows.report.rows
    assert [rows[i] for i in (6, 0, -1, -7)] == [expected[i] for i in (6, 0, -1, -7)]
    for beyond in (7, -8):
        with pytest.raises(IndexError):
            rows[beyond]
    assert sum(1 for _ in read(path)) == 7
    # A canonical row is itself a row of its kind.
    again = tmp_path / "again"
    again.mkdir()
    assert list(open_rows(jsonl(again, *expected), kind)) == expected


@pytest.mark.parametrize("ending", FORMATS)
def test_further_columns_and_margins_are_kept(tmp_path: Path, ending: str) -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c", "margin": 2, "answer": "42"}
    made = open_rows(write(tmp_path, ending, [row]), "preference")[0]
    assert made == row | {"margin": 2.0} and type(made["margin"]) is float


def test_values_of_parquet_become_those_of_json(tmp_path: Path) -> None:
    import datetime
    import decimal

    row = {
        "prompt": "a",
        "day": datetime.date(2024, 5, 6),
        "price": decimal.Decimal("1.50"),
        "tags": ["x", None],
    }
    made = open_rows(write(tmp_path, "parquet", [row]), "prompt")[0]
    assert made == {"prompt": "a", "day": "2024-05-06", "price": "1.50", "tags": ["x", None]}
    path = write(tmp_path, "parquet", [{"prompt": "a", "image": b"\x89PNG"}])
    with pytest.raises(HeedfulError, match=r"data\.parquet:row 1: image: holds bytes, .* drop the column"):
        open_rows(path, "prompt")


@pytest.mark.parametrize(("text", "label"), [("true", True), ("False", False), ("1", True), ("0", False)])
def test_labels_of_csv(tmp_path: Path, text: str, label: bool) -> None:
    path = tmp_path / "data.csv"
    path.write_text(f"prompt,completion,label\na,b,{text}\n")
    assert open_rows(path, "unpaired")[0]["label"] is label


@pytest.mark.parametrize("value", [1, 0, 1.0, True, False])
def test_labels_of_jsonl(tmp_path: Path, value: Any) -> None:
    assert only(tmp_path, "unpaired", {"prompt": "a", "completion": "b", "label": value})["label"] is bool(
        value
    )


@pytest.mark.parametrize("value", ["true", 2, None, float("nan"), []])
def test_other_labels_are_refused(tmp_path: Path, value: Any) -> None:
    row = {"prompt": "a", "completion": "b", "label": value}
    assert refusal(tmp_path, "unpaired", row).startswith("label: must be true or false")


# ---- prompts inside the answers


@pytest.mark.parametrize(
    ("a", "b", "prompt"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is"),
        ("What is pi? 3.14", "What is pi? 3.2", "What is pi?"),
        ("Why? Because.", "Why? Bed.", "Why?"),
        ("Q: why?\nA: x", "Q: why?\nB: x", "Q: why?\n"),
        ("2 + 2?\n4", "2 + 2? four", "2 + 2?"),
        ("Say it: yes", "Say it: yes sir", "Say it:"),
        ("Say it: yes sir", "Say it: yes", "Say it:"),
        ("Why? Light  ", "Why? Light", "Why?"),
        ("冰为什么浮?轻", "冰为什么浮?重", "冰为什么浮?"),
        ("word", "worse", ""),
        ("yes", "no", ""),
        ("yes", "yes sir", ""),
        ("", "x", ""),
    ],
)
def test_shared_beginnings_end_between_words(a: str, b: str, prompt: str) -> None:
    assert a[: shared_beginning(a, b)] == prompt
    assert b[: shared_beginning(b, a)] == prompt


@settings(deadline=None)
@given(st.text("ab .\n水", max_size=30), st.text("ab .\n水", max_size=8), st.text("ab .\n水", max_size=8))
def test_shared_beginnings_leave_two_answers(start: str, a: str, b: str) -> None:
    a, b = start + a, start + b
    cut = shared_beginning(a, b)
    assert a[:cut] == b[:cut]
    if cut:
        assert a[cut:].strip() and b[cut:].strip()
        inside = a[cut - 1].isascii() and a[cut - 1].isalpha() and a[cut].isascii() and a[cut].isalpha()
        assert not inside


def test_a_prompt_is_not_guessed_from_answers_that_begin_differently(tmp_path: Path) -> None:
    assert "prompt: is missing" in refusal(tmp_path, "preference", {"chosen": "yes", "rejected": "no"})
    chat = {"chosen": said("assistant", "yes"), "rejected": said("assistant", "no")}
    assert "prompt: is missing" in refusal(tmp_path, "preference", chat)


def test_a_missing_prompt_is_an_error_where_others_have_one(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "chosen": "The ice is light.", "rejected": "The ice is cold."}
    without = {k: v for k, v in row.items() if k != "prompt"}
    path = jsonl(tmp_path, row, without, row | {"prompt": None, "chosen": "The sea."})
    with pytest.raises(HeedfulError) as caught:
        open_rows(path, "preference")
    told = "prompt: is missing here, but not on line 1"
    assert str(caught.value).splitlines() == [f"{path}:2: {told}", f"{path}:3: {told}"]
    with pytest.raises(HeedfulError, match=r":2: prompt: is missing on line 1, but not here$"):
        open_rows(jsonl(tmp_path, without, row), "preference")


def test_a_text_prompt_beside_conversations(tmp_path: Path) -> None:
    whole = {
        "prompt": "Why?",
        "chosen": said("user", "Why?") + said("assistant", "a"),
        "rejected": said("user", "Why?") + said("assistant", "b"),
    }
    answers = {"prompt": "Why?", "chosen": said("assistant", "a"), "rejected": said("assistant", "b")}
    for row in (whole, answers):
        assert only(tmp_path, "preference", row) == {
            "prompt": said("user", "Why?"),
            "chosen": "a",
            "rejected": "b",
        }


def test_an_hh_prompt_beside_plain_answers(tmp_path: Path) -> None:
    row = {"prompt": "\n\nHuman: Why?\n\nAssistant:", "chosen": " a", "rejected": " b"}
    assert only(tmp_path, "preference", row) == {
        "prompt": said("user", "Why?"),
        "chosen": "a",
        "rejected": "b",
    }


def test_only_dialogues_are_read_as_dialogues() -> None:
    assert hh_turns("Human: no answer") is None
    assert hh_turns("As the\n\nHuman: and\n\nAssistant: said") is None
    assert hh_turns("\n\nHuman: a\n\nb Human: c\n\nAssistant: d") == [
        *said("user", "a\n\nb Human: c"),
        *said("assistant", "d"),
    ]


@pytest.mark.parametrize(
    ("kind", "row", "told"),
    [
        (
            "preference",
            {
                "prompt": said("user", "q"),
                "chosen": said("assistant", "a") + said("user", "b"),
                "rejected": said("assistant", "c"),
            },
            "chosen: has 2 messages after the prompt; it must be one, of the assistant",
        ),
        (
            "preference",
            {"prompt": "q", "chosen": said("user", "a"), "rejected": said("assistant", "c")},
            "chosen: must be a message of the assistant, not of the user",
        ),
        (
            "preference",
            {
                "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
                "rejected": "\n\nHuman: a\n\nAssistant: e\n\nHuman: c\n\nAssistant: f",
            },
            "chosen: has 3 messages after the prompt",
        ),
        (
            "preference",
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant:"},
            "rejected[1].content: is empty",
        ),
        (
            "preference",
            {"prompt": "q", "chosen": "a", "rejected": said("assistant", "b")},
            "rejected: is a list, but chosen is text",
        ),
        ("prompt", {"prompt": []}, "prompt: is empty"),
        ("prompt", {"prompt": ["hi"]}, "prompt[0]: must be a message with role and content, not text"),
        (
            "prompt",
            {"prompt": [{"from": "human"}]},
            "prompt[0]: must have role and content (the row has 'from')",
        ),
        ("prompt", {"prompt": said("human", "a")}, "prompt[0].role: must be one of system, "),
        (
            "prompt",
            {"prompt": [{"role": "user", "content": None}]},
            "prompt[0].content: must be text, not null",
        ),
    ],
)
def test_conversations_that_cannot_be_used(tmp_path: Path, kind: str, row: Row, told: str) -> None:
    assert told in refusal(tmp_path, kind, row)


# ---- column names


def test_columns_are_mapped(tmp_path: Path) -> None:
    columns = parse_columns(("prompt=instruction", "chosen = good", "rejected=a=b"))
    assert columns == {"prompt": "instruction", "chosen": "good", "rejected": "a=b"}
    path = jsonl(tmp_path, {"instruction": "q", "good": "a", "a=b": "c", "chosen": "old", "id": 7})
    assert open_rows(path, "preference", columns)[0] == {
        "prompt": "q",
        "chosen": "a",
        "rejected": "c",
        "id": 7,
    }
    with pytest.raises(HeedfulError, match="prompt: the column 'instruction' is missing"):
        open_rows(jsonl(tmp_path, {"good": "x a", "a=b": "x b"}), "preference", columns)


def test_columns_can_change_places(tmp_path: Path) -> None:
    columns = parse_columns(("chosen=rejected", "rejected=chosen"))
    path = jsonl(tmp_path, {"prompt": "q", "chosen": "a", "rejected": "b"})
    assert open_rows(path, "preference", columns)[0] == {"prompt": "q", "chosen": "b", "rejected": "a"}


def test_a_file_without_the_mapped_column_keeps_its_own(tmp_path: Path) -> None:
    assert open_rows(jsonl(tmp_path, {"prompt": "q"}), "prompt", {"prompt": "instruction"})[0] == {
        "prompt": "q"
    }


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (("prompt",), "write name=column"),
        (("=x",), "write name=column"),
        (("prompt=",), "write name=column"),
        (("promt=x",), "did you mean 'prompt'"),
        (("zzz=x",), "known: prompt, completion, chosen, rejected, label, margin"),
        (("prompt=a", "prompt=b"), "prompt is mapped twice"),
        (("prompt=a", "chosen=a"), "a is mapped twice"),
    ],
)
def test_bad_mappings_are_refused(columns: tuple[str, ...], told: str) -> None:
    with pytest.raises(HeedfulError, match=told):
        parse_columns(columns)


# ---- access


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n\n  \t\n{"prompt": "b"}\n\n{"prompt": "c"}')
    rows = open_rows(path, "prompt")
    assert [rows[i]["prompt"] for i in range(3)] == ["a", "b", "c"] and rows.report.blank_lines == 3


def test_errors_are_listed_up_to_twenty(tmp_path: Path) -> None:
    path = jsonl(tmp_path, *({"prompt": ""} for _ in range(33)))
    with pytest.raises(HeedfulError) as caught:
        open_rows(path, "prompt")
    lines = str(caught.value).splitlines()
    assert lines[:20] == [f"{path}:{i}: prompt: is empty" for i in range(1, 21)]
    assert lines[20:] == ["… and 13 more errors"]


@pytest.mark.parametrize("ending", FORMATS)
def test_faulty_rows_are_left_out_when_asked_for(tmp_path: Path, ending: str) -> None:
    rows = [{"prompt": f"p{i}", "chosen": "a", "rejected": "a" if i in (1, 4) else "b"} for i in range(6)]
    path = write(tmp_path, ending, rows)
    with pytest.raises(HeedfulError, match="chosen: equals rejected"):
        open_rows(path, "preference", cache=tmp_path / "cache")
    for _ in range(2):
        kept = open_rows(path, "preference", cache=tmp_path / "cache", drop_faulty=True)
        assert [row["prompt"] for row in kept] == ["p0", "p2", "p3", "p5"]
        assert kept.report.faulty_rows == 2 and kept.report.rows == 6
    with pytest.raises(HeedfulError):
        open_rows(path, "preference", cache=tmp_path / "cache")


def test_nothing_is_left_out_of_what_cannot_be_read(tmp_path: Path) -> None:
    good = json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"})
    (tmp_path / "broken.jsonl").write_text(f"{good}\n{{broken\n")
    (tmp_path / "all.jsonl").write_text(json.dumps({"prompt": "p", "chosen": "a", "rejected": "a"}) + "\n")
    for name in ("broken", "all"):
        with pytest.raises(HeedfulError, match=name):
            open_rows(tmp_path / f"{name}.jsonl", "preference", drop_faulty=True)


def test_where_names_the_line_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(['{"prompt": "a"}', "", "", '{"prompt": "b"}', '{"prompt": "c"}']) + "\n")
    rows = open_rows(path, "prompt")
    assert [rows.where(i) for i in range(3)] == [f"{path}:{line}" for line in (1, 4, 5)]
    packed = write(tmp_path, "parquet", [{"prompt": "a"}, {"prompt": "b"}])
    assert open_rows(packed, "prompt").where(1) == f"{packed}:row 2"


def test_a_prompt_key_is_of_the_whole_prompt() -> None:
    prompts = ["a", "b", said("user", "a"), said("system", "a"), [*said("user", "a"), *said("user", "b")]]
    assert len({prompt_key(p) for p in prompts}) == 5
    assert prompt_key({"content": "a", "role": "user"}) == prompt_key({"role": "user", "content": "a"})


def test_read_stops_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt"\n')
    found = read(path)
    assert next(found) == {"prompt": "a"}
    with pytest.raises(HeedfulError, match=r"data\.jsonl:2: not JSON"):
        next(found)


def test_there_are_four_kinds(tmp_path: Path) -> None:
    with pytest.raises(HeedfulError, match="no kind of rows 'pairs'"):
        open_rows(jsonl(tmp_path, {"prompt": "a"}), "pairs")


def test_a_file_that_changes_is_not_read_on(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"prompt": "aaaa"}, {"prompt": "bbbb"})
    rows = open_rows(path, "prompt")
    Path(path).write_text('{"prompt": "changed"}\n{"prompt": "changed"}\n')
    with pytest.raises(HeedfulError, match="has changed since it was checked"):
        rows[1]


def test_a_file_that_grows_or_goes_while_it_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from heedful.data import rows

    path = Path(jsonl(tmp_path, {"prompt": "a"}))
    checked = rows._checked

    def grow(checker: Any) -> Any:
        path.write_text(path.read_text() + '{"prompt": "b"}\n')
        return checked(checker)

    def go(checker: Any) -> Any:
        path.unlink()
        return checked(checker)

    monkeypatch.setattr(rows, "_checked", grow)
    with pytest.raises(HeedfulError, match="was changed while it was read"):
        open_rows(path, "prompt")
    monkeypatch.setattr(rows, "_checked", go)
    with pytest.raises(HeedfulError, match=r"cannot be read: .*No such file"):
        open_rows(path, "prompt")


def test_threads_share_rows(tmp_path: Path) -> None:
    rows = open_rows(jsonl(tmp_path, *({"prompt": f"p{i}"} for i in range(200))), "prompt")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: rows[i]["prompt"], range(200)))
    assert found == [f"p{i}" for i in range(200)]


# ---- the cache


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("ending", ["jsonl.gz", "csv", "parquet"])
def test_the_cache_is_written_once_and_named_by_content(tmp_path: Path, ending: str) -> None:
    cache = tmp_path / "run" / "cache"
    path = write(tmp_path, ending, [{"prompt": "a", "completion": "b"}])
    assert open_rows(path, "prompt", cache=cache)[0] == {"prompt": "a", "completion": "b"}
    (name,) = entries(cache)
    before = (cache / name).stat()
    assert open_rows(path, "prompt_completion", cache=cache)[0] == {"prompt": "a", "completion": "b"}
    after = (cache / name).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    write(tmp_path, ending, [{"prompt": "c", "completion": "b"}])
    assert open_rows(path, "prompt", cache=cache)[0]["prompt"] == "c"
    assert len(entries(cache)) == 2


def test_plain_jsonl_is_read_where_it_lies(tmp_path: Path) -> None:
    open_rows(jsonl(tmp_path, {"prompt": "a"}), "prompt", cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_nothing_is_left_of_a_faulty_file(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl.gz", [{"prompt": "a"}, {"prompt": ""}])
    with pytest.raises(HeedfulError):
        open_rows(path, "prompt", cache=tmp_path / "cache")
    assert entries(tmp_path / "cache") == []


def test_a_full_disk_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    path = write(tmp_path, "jsonl.gz", [{"prompt": "a"}])
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HeedfulError, match=r"cannot write .*cache/rows-.*no space is left"):
        open_rows(path, "prompt", cache=tmp_path / "cache")
    assert entries(tmp_path / "cache") == []


def test_a_damaged_cache_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl.gz", [{"prompt": "a"}, {"prompt": "b"}])
    open_rows(path, "prompt", cache=tmp_path)
    (cached,) = tmp_path.glob("rows-*.jsonl")
    cached.write_text('{"prompt": "a"}\n')
    with pytest.raises(HeedfulError, match=r"has 1 rows, not 2 as .*delete it"):
        open_rows(path, "prompt", cache=tmp_path)


def test_what_a_killed_process_left_goes_when_it_is_old(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl.gz", [{"prompt": "a"}])
    open_rows(path, "prompt", cache=tmp_path / "cache")
    (name,) = entries(tmp_path / "cache")
    (tmp_path / "cache" / name).unlink()
    for token, age in (("old", 10**6), ("new", 0)):
        left = tmp_path / "cache" / f".{name}.{token}.tmp"
        left.touch()
        os.utime(left, (left.stat().st_mtime - age,) * 2)
    open_rows(path, "prompt", cache=tmp_path / "cache")
    assert entries(tmp_path / "cache") == [f".{name}.new.tmp", name]


def test_without_a_cache_a_temporary_folder_goes_with_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    rows: Rows | None = open_rows(write(tmp_path, "csv", [{"prompt": "a"}]), "prompt")
    assert rows is not None and rows[0] == {"prompt": "a"} and len(entries(scratch)) == 1
    del rows
    gc.collect()
    assert entries(scratch) == []
    with pytest.raises(HeedfulError):
        open_rows(write(tmp_path, "csv", [{"prompt": ""}]), "prompt")
    assert entries(scratch) == []


# ---- the Hub


def test_hub_data_is_streamed_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    calls = []

    def load_dataset(name: str, *, split: str, streaming: bool) -> Iterator[Row]:
        calls.append((name, split, streaming))
        return iter([{"prompt": "a", "n": 1}, {"prompt": "b", "n": 2}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert [row["n"] for row in open_rows("hub:owner/name:test", "prompt", cache=tmp_path)] == [1, 2]
    assert list(open_rows("hub:owner/name:test", "prompt", cache=tmp_path))[1] == {"prompt": "b", "n": 2}
    assert calls == [("owner/name", "test", True)]
    assert sum(1 for _ in read("hub:owner/name")) == 2
    assert calls[1:] == [("owner/name", "train", True)]


def test_hub_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load_dataset(*_: Any, **__: Any) -> Iterator[Row]:
        raise ConnectionError("offline mode is enabled\nmore")

    def breaks(*_: Any, **__: Any) -> Iterator[Row]:
        yield {"prompt": ""}
        raise TimeoutError("too slow")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        HeedfulError, match=r"^hub:a/b: cannot be read .*download the file.*\(offline mode is enabled\)$"
    ):
        open_rows("hub:a/b", "prompt")
    monkeypatch.setattr(datasets, "load_dataset", breaks)
    with pytest.raises(HeedfulError) as caught:
        open_rows("hub:a/b", "prompt")
    first, second = str(caught.value).splitlines()
    assert first == "hub:a/b:row 1: prompt: is empty" and second.startswith("hub:a/b:row 2: cannot be read")
    with pytest.raises(HeedfulError, match="is named hub:owner/name or hub:owner/name:split"):
        open_rows("hub:a/b/c", "prompt")


# ---- the split


PROMPTS = st.lists(st.integers(0, 12), max_size=40)


def numbered(numbers: list[int]) -> list[Row]:
    return [{"prompt": f"p{n}" if n % 2 else said("user", f"p{n}")} for n in numbers]


def texts(rows: list[Row], indices: Any) -> set[str]:
    return {json.dumps(rows[i]["prompt"]) for i in indices}


@settings(deadline=None, max_examples=60)
@given(PROMPTS, st.floats(0.01, 0.99), st.integers(0, 2**40), st.randoms(use_true_random=False))
def test_the_split_is_by_prompt(numbers: list[int], share: float, seed: int, random: Any) -> None:
    rows = numbered(numbers)
    train, held = split_by_prompt(rows, share, seed)
    assert sorted([*train, *held]) == list(range(len(rows)))
    assert not texts(rows, train) & texts(rows, held)
    distinct = len(set(numbers))
    wanted = min(max(1, round(share * distinct)), distinct - 1) if distinct >= 2 else 0
    assert len(texts(rows, held)) == wanted
    shuffled = random.sample(rows, len(rows))
    assert texts(shuffled, split_by_prompt(shuffled, share, seed)[1]) == texts(rows, held)
    repeated = rows + rows[:3]
    assert texts(repeated, split_by_prompt(repeated, share, seed)[1]) == texts(rows, held)


def test_the_split_depends_on_the_seed_and_stays_the_same() -> None:
    rows = numbered(list(range(100)))
    splits = {seed: list(split_by_prompt(rows, 0.1, seed)[1]) for seed in range(5)}
    assert all(len(held) == 10 for held in splits.values()) and len({*map(tuple, splits.values())}) == 5
    # As written down on the day this was made: a resumed run must find the split it began with.
    assert splits[0] == [14, 30, 34, 47, 48, 56, 74, 76, 85, 98]


def test_a_share_is_between_0_and_1() -> None:
    with pytest.raises(HeedfulError, match="between 0 and 1"):
        split_by_prompt([], 1.5, 0)


# ---- memory

SMALL = """
import resource, sys
from heedful.data.rows import open_rows, split_by_prompt
from heedful.data.validate import check
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
small, large = sys.argv[1:]
def everything(path):
    assert check([path]).error_count == 0
    rows = open_rows(path, "prompt_completion")
    split_by_prompt(rows, 0.1, 0)
    return sum(len(row["prompt"]) for row in rows), rows[len(rows) // 2]
everything(small)
before = peak()
everything(large)
print(peak() - before)
"""


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "parquet"])
def test_a_large_file_never_sits_in_memory(tmp_path: Path, ending: str) -> None:
    size = 60_000_000
    text = "the same old words " * 500

    def rows(n: int) -> Iterator[Row]:
        return ({"prompt": f"{i} {text}", "completion": text} for i in range(n))

    (tmp_path / "small").mkdir()
    small = write(tmp_path / "small", ending, list(rows(10)))
    large = tmp_path / f"large.{ending}"
    count = size // (2 * len(text))
    if ending == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        # One row group: what is written at once must not be read at once.
        pq.write_table(pa.Table.from_pylist(list(rows(count))), large, use_dictionary=False)
    else:
        with gzip.open(large, "wt", 1) if ending.endswith(".gz") else large.open("w") as stream:
            for row in rows(count):
                stream.write(json.dumps(row) + "\n")
    done = subprocess.run(
        [sys.executable, "-c", SMALL, small, str(large)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < size / 4


# ---- two processes at once

TOGETHER = """
import sys
from heedful.data.rows import open_rows
rows = open_rows(sys.argv[1], "prompt", cache=sys.argv[2])
assert [row["prompt"] for row in rows] == [f"p{i}" for i in range(3000)]
"""


def test_processes_may_make_the_same_cache_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl.gz", [{"prompt": f"p{i}"} for i in range(3000)])
    command = [sys.executable, "-c", TOGETHER, path, str(tmp_path / "cache")]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    for process in started:
        assert process.wait(60) == 0, process.communicate()[1]
    assert len(entries(tmp_path / "cache")) == 1
