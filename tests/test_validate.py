"""Everything wrong with a file is found at once, with its place; nothing in a file makes the check fail."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heedful.data import formats, problems, validate
from heedful.data.rows import open_rows
from heedful.data.validate import check
from heedful.errors import HeedfulError

Row = dict[str, Any]
PAIR: Row = {"prompt": "Why does ice float?", "chosen": "It is light.", "rejected": "Because."}


def write(path: Path, *rows: Row | str | bytes) -> str:
    """A JSONL file of rows and of raw lines."""
    lines = (
        r if isinstance(r, bytes) else (r if isinstance(r, str) else json.dumps(r)).encode() for r in rows
    )
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return str(path)


def told(path: str, **options: Any) -> list[str]:
    """The problems of a file, without its name."""
    found = [str(problem) for problem in check([path], **options).problems]
    assert all(text.startswith(f"{path}:") for text in found)
    return [text.removeprefix(f"{path}:").strip() for text in found]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pairs.jsonl"


# ---- what is found


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"chosen": ""}, "chosen: is empty"),
        ({"chosen": " \n"}, "chosen: is empty"),
        ({"prompt": ""}, "prompt: is empty"),
        ({"rejected": 3}, "rejected: must be text or a list of messages, not a number"),
        ({"rejected": None}, "rejected: must be text or a list of messages, not null"),
        ({"rejected": {}}, "rejected: must be text or a list of messages, not an object"),
        ({"prompt": True}, "prompt: must be text or a list of messages, not true or false"),
        ({"chosen": "Because."}, "chosen: equals rejected"),
        ({"margin": float("nan")}, "margin: must be a finite number"),
        ({"margin": 10**400}, "margin: must be a finite number"),
        ({"margin": "2"}, "margin: must be a number, not '2'"),
        ({"margin": True}, "margin: must be a number, not true or false"),
    ],
)
def test_each_fault_is_found(file: Path, change: Row, text: str) -> None:
    assert told(write(file, PAIR | change)) == [f"1: {text}"]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('{"prompt": "a"', "not JSON: Expecting ',' delimiter (column 15)"),
        ("hello", "not JSON: Expecting value (column 1)"),
        ("[1]", "a JSON object is needed, not a list"),
        ("null", "a JSON object is needed, not null"),
        ('"text"', "a JSON object is needed, not text"),
        ('{"prompt": "a", "prompt": "b"}', "prompt: is there twice"),
        ('{"prompt": [{"role": "user", "role": "user", "content": "a"}]}', "role: is there twice"),
        ('{"prompt": "a\\ud800b"}', "prompt: holds half a character (a lone surrogate)"),
        ('{"prompt": "a", "x": {"\\uDFFF": 1}}', "x: holds half a character (a lone surrogate)"),
        ('{"prompt": "a", "\\ud800": 1}', "\\ud800: holds half a character (a lone surrogate)"),
        ('{"prompt": "a", "x": ' + "[" * 100_000, "is nested more than 64 deep"),
        ('{"prompt": "a", "x": ' + "[" * 500 + "]" * 500 + "}", "is nested more than 64 deep"),
        ('{"prompt": "a", "x": ' + "9" * 5000 + "}", "a number has too many digits"),
        ('{"prompt": "a\x00b"}', "not JSON: Invalid control character at (column 14)"),
        (b'{"prompt": "a\xff"}', "not UTF-8 (byte 14 of the line)"),
        (b'{"prompt": "\xed\xa0\x80"}', "not UTF-8 (byte 13 of the line)"),
        ("{}", "no column has a known name; the columns are none (map them with --columns)"),
        ('{"q": "a"}', "no column has a known name; the columns are 'q' (map them with --columns)"),
    ],
)
def test_lines_that_cannot_be_read(file: Path, line: str | bytes, text: str) -> None:
    assert told(write(file, line, {"prompt": "fine"})) == [f"1: {text}"]


def test_what_is_odd_but_right(file: Path) -> None:
    deep = '{"prompt": "a", "x": ' + "[" * 60 + "]" * 60 + "}"
    lines = [
        '{"prompt": "\\ud83e\\uddca \\u0000"}',
        '{"prompt": "b", "x": NaN}',
        deep,
        '{"prompt": "[[{{' + "[" * 200 + '"}',
    ]
    path = write(file, *lines)
    assert told(path) == []
    assert open_rows(path, "prompt")[0]["prompt"] == "\U0001f9ca \x00"


def test_a_line_that_never_ends_is_not_held(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "LONGEST_ROW", 2**20)
    file.write_bytes(b'{"prompt": "' + b"a" * 3 * 2**20 + b'"}\n{"prompt": ""}\n')
    assert told(str(file)) == ["1: the line is longer than 1 MiB", "2: prompt: is empty"]


def test_all_faults_of_all_files_are_found_at_once(tmp_path: Path) -> None:
    a = write(
        tmp_path / "a.jsonl", PAIR | {"chosen": "", "rejected": 3}, "", "{", {"prompt": "a", "chosen": 1}
    )
    b = write(tmp_path / "b.jsonl", PAIR | {"prompt": ""})
    report = check([a, b, str(tmp_path / "c.jsonl")])
    assert [str(problem) for problem in report.problems] == [
        f"{a}:1: chosen: is empty",
        f"{a}:1: rejected: must be text or a list of messages, not a number",
        f"{a}:3: not JSON: Expecting property name enclosed in double quotes (column 2)",
        f"{a}:4: rejected: is missing (the row has 'prompt', 'chosen')",
        f"{a}:4: chosen: must be text or a list of messages, not a number",
        f"{b}:1: prompt: is empty",
        f"{tmp_path}/c.jsonl: there is no such file",
    ]
    assert report.error_count == 7 and report.files[0].faulty_rows == 3 and report.files[0].rows == 3


def test_the_first_twenty_are_shown_and_the_rest_counted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "KEPT", 30)
    path = write(file, *[PAIR | {"chosen": ""}] * 43)
    report = check([path])
    lines = report.text().split("\n\n")[0].splitlines()
    assert lines == [f"{path}:{i}: chosen: is empty" for i in range(1, 21)] + ["… and 23 more errors"]
    assert report.error_count == 43 == report.as_dict()["errors"] and len(report.problems) == 30


def test_names_from_a_file_cannot_drive_the_terminal(file: Path) -> None:
    path = write(file, {"\x1b[31mred\n": 1}, {"prompt": [{"role": "\x1b[2J", "content": "a"}]})
    text = check([path]).text()
    assert "\x1b" not in text and "\\x1b[31mred\\n" in text and "'\\x1b[2J'" in text


# ---- repeated and contradictory rows


def test_repeated_and_contradictory_pairs_are_reported(file: Path) -> None:
    swapped = PAIR | {"chosen": PAIR["rejected"], "rejected": PAIR["chosen"]}
    other = PAIR | {"prompt": "Another?"}
    path = write(file, PAIR, other, "", PAIR, swapped, swapped, other | {"id": 1}, PAIR | {"chosen": "New."})
    assert told(path) == [
        "4: warning: the same pair as line 1",
        "5: warning: contradicts line 1: chosen and rejected have changed places",
        "6: warning: the same pair as line 5",
        "7: warning: the same pair as line 2",
    ]
    report = check([path])
    assert (report.error_count, report.warning_count) == (0, 4)
    assert open_rows(path, "preference").report.warnings == 4


@pytest.mark.parametrize(
    ("row", "change", "text"),
    [
        ({"prompt": "a", "completion": "b", "label": True}, {}, "the same row as line 1"),
        (
            {"prompt": "a", "completion": "b", "label": True},
            {"label": 0},
            "contradicts line 1: the label is the other one",
        ),
        ({"prompt": "a", "completion": "b"}, {}, "the same row as line 1"),
        ({"prompt": "a"}, {}, "the same prompt as line 1"),
    ],
)
def test_repeated_rows_of_other_kinds(file: Path, row: Row, change: Row, text: str) -> None:
    assert told(write(file, row, row | change)) == [f"2: warning: {text}"]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("pq"), st.sampled_from("ab"), st.sampled_from("ab")), max_size=12))
def test_repeats_are_those_of_a_plain_count(file: Path, triples: list[tuple[str, str, str]]) -> None:
    triples = [triple for triple in triples if triple[1] != triple[2]]
    expected, seen = [], {}
    for line, (prompt, chosen, rejected) in enumerate(triples, 1):
        if (prompt, chosen, rejected) in seen:
            expected.append((line, f"the same pair as line {seen[prompt, chosen, rejected]}"))
        elif (prompt, rejected, chosen) in seen:
            expected.append((line, f"contradicts line {seen[prompt, rejected, chosen]}"))
        seen.setdefault((prompt, chosen, rejected), line)
    path = write(file, *({"prompt": p, "chosen": c, "rejected": r} for p, c, r in triples))
    found = [p for p in check([path]).problems if p.severity == "warning"]
    assert [(p.line, p.message.split(":")[0]) for p in found] == expected


# ---- reported beside errors


def test_long_prompts_are_reported(file: Path) -> None:
    chat = [{"role": "user", "content": "x" * 41}]
    path = write(file, {"prompt": "x" * 40}, {"prompt": "y" * 41}, {"prompt": chat})
    message = "warning: prompt: is about 11 tokens (estimated at 4 characters a token); the context is 10"
    assert told(path, context=10) == [f"2: {message}", f"3: {message}"]
    assert told(path) == [] and check([path], context=10).error_count == 0


def test_a_prompt_that_ends_with_an_answer_is_reported(file: Path) -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert told(write(file, {"prompt": chat})) == [
        "1: warning: prompt: ends with an answer of the assistant; what follows it is a second one"
    ]


# ---- the summary


def test_the_summary(tmp_path: Path) -> None:
    chat = {
        "chosen": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}],
        "rejected": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "d e f"}],
    }
    hh = {"chosen": "\n\nHuman: a\n\nAssistant: b c d", "rejected": "\n\nHuman: a\n\nAssistant: c"}
    path = write(tmp_path / "a.jsonl", chat, "", hh, {"chosen": ""})
    assert check([path]).files[0].summary().splitlines() == [
        f"{path}: 3 rows, preference with implicit prompts, conversational and HH, 2 distinct prompts",
        "  mean words: prompt 1.5 (longest 2), chosen 2.0 (longest 3), rejected 2.0 (longest 3)",
        "  1 blank line passed over",
        "  2 errors in 1 row, 0 warnings",
    ]
    other = write(tmp_path / "b.jsonl", {"prompt": "a", "completion": "b", "label": False})
    report = check([path, other])
    assert report.text().endswith("\n  0 errors, 0 warnings")
    found = json.loads(json.dumps(report.as_dict()))
    assert [part["kind"] for part in found["files"]] == ["preference", "unpaired"]
    assert found["problems"][0] == {
        "file": path,
        "line": 4,
        "field": "rejected",
        "message": "is missing (the row has 'chosen')",
        "severity": "error",
        "text": f"{path}:4: rejected: is missing (the row has 'chosen')",
    }


def test_the_kind_can_be_given(file: Path) -> None:
    path = write(file, PAIR)
    assert check([path]).files[0].kind == "preference"
    assert check([path], kind="prompt").error_count == 0
    assert told(path, kind="unpaired") == [
        "1: completion: is missing (the row has 'prompt', 'chosen', 'rejected')",
        "1: label: is missing (the row has 'prompt', 'chosen', 'rejected')",
    ]
    assert told(path, columns={"prompt": "q", "chosen": "good"}) == []
    with pytest.raises(HeedfulError, match="no kind of data 'pairs'"):
        check([path], kind="pairs")
    with pytest.raises(HeedfulError, match="at least one file"):
        check([])
    with pytest.raises(HeedfulError, match="at least 1 token"):
        check([path], context=0)


# ---- files


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "empty.csv").touch()
    (tmp_path / "header.csv").write_text("prompt\n")
    (tmp_path / "blank.jsonl").write_text("\n \n\n")
    (tmp_path / "data.json").write_text("[]")
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    with gzip.open(tmp_path / "empty.jsonl.gz", "wb"):
        pass
    expected = {
        "absent.jsonl": "there is no such file",
        "folder.jsonl": "is a folder; name the files in it",
        "pipe.jsonl": "is not a regular file",
        "data.json": "the name must end in one of .jsonl, .jsonl.gz, .csv, .csv.gz, .parquet, or be hub:owner/name",
        "empty.jsonl": "has no rows",
        "empty.csv": "has no rows",
        "header.csv": "has no rows",
        "empty.jsonl.gz": "has no rows",
        "blank.jsonl": "has only blank lines",
        "nul\0.jsonl": "cannot be opened: embedded null byte",
    }
    for name, text in expected.items():
        path = f"{tmp_path}/{name}"
        shown = path.replace("\0", "\\x00")
        report = check([path])
        assert [str(problem) for problem in report.problems] in (
            [f"{shown}: {text}"],
            [f"{shown}: there is no such file"],
        )
        assert report.text().startswith(f"{shown}: ")
        with pytest.raises(HeedfulError, match=re.escape(f"{shown}: ")):
            open_rows(path, "prompt")


def test_damaged_gzip_files(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl.gz"
    draw = random.Random(0)
    rows = [{"prompt": draw.randbytes(200).hex()} for _ in range(400)]
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())

    def found(data: bytes) -> tuple[int, str]:
        path.write_bytes(data)
        report = check([str(path)])
        assert report.error_count
        if "breaks off" in report.problems[-1].message:  # what a flipped bit makes may well have more lines
            assert report.files[0].rows <= 401
        return report.problems[-1].line, report.problems[-1].message

    line, message = found(whole[: len(whole) // 2])
    assert 100 < line < 300 and message == "the compressed file breaks off here"
    assert found(whole[:-4]) == (401, "the compressed file breaks off here")
    assert found(whole + b"garbage") == (401, "other data follows the compressed part")
    assert found(b'{"prompt": "a"}\n') == (1, "is not a gzip file")
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    assert found(bytes(damaged))[1].startswith(("the compressed file is damaged", "not", "prompt"))
    damaged = bytearray(whole)
    damaged[-8] ^= 255
    assert found(bytes(damaged))[1].startswith(
        "the compressed file is damaged here or before (CRC check failed"
    )
    path.write_bytes(whole + whole)
    assert check([str(path)]).files[0].rows == 800


def test_lines_of_csv(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(
        b'prompt,completion\n"one\ntwo\n\nfour","a, b"\n,empty\n\nshort\n"x","y",z\n'
        b'bad \xff,y\n"in\n\xfe","y"\n"a"b,c\nfine,""\nlast,"never\nclosed\n'
    )
    assert told(str(path)) == [
        "6: prompt: is empty",
        "8: has 1 fields, but the header has 2",
        "9: has 3 fields, but the header has 2",
        "10: not UTF-8 (byte 5 of the line)",
        "12: not UTF-8 (byte 1 of the line)",
        "13: not CSV: ',' expected after '\"'",
        "14: completion: is empty",
        "15: a quote is opened and not closed",
    ]
    report = check([str(path)]).files[0]
    assert (report.rows, report.blank_lines) == (9, 1)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"prompt,prompt\na,b\n", ["1: prompt: is there twice"]),
        (b"prom\xffpt\na\n", ["1: not UTF-8 (byte 5 of the line)"]),
        (b"\xef\xbb\xbfprompt\r\na\r\n", []),
        (b"prompt\n" + b"a" * 300_000 + b"\n", []),
        (b"prompt\na\x00b\n", []),
        (b'prompt\n"[{""role"": ""user"", ""content"": ""\\ud800""}]"\n', ["2: prompt: holds messages that"]),
        (b'prompt\n"[{""role"": ""user"""\n', ["2: prompt: holds messages that cannot be read: not JSON"]),
        (b"prompt,completion,label\na,b,maybe\n", ["2: label: must be true or false, not 'maybe'"]),
        (b"prompt,chosen,rejected,margin\na,b,c,wide\n", ["2: margin: must be a number, not 'wide'"]),
        (b"prompt,chosen,rejected,margin\na,b,c,nan\n", ["2: margin: must be a finite number"]),
    ],
)
def test_cells_of_csv(tmp_path: Path, data: bytes, found: list[str]) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(data)
    texts = told(str(path))
    assert len(texts) == len(found)
    assert all(text.startswith(start) for text, start in zip(texts, found, strict=True))


def test_rows_of_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist([PAIR, PAIR | {"chosen": ""}, PAIR]), path)
    assert told(str(path)) == ["row 2: chosen: is empty", "row 3: warning: the same pair as row 1"]
    path.write_bytes(path.read_bytes()[:-9])
    (text,) = told(str(path))
    assert text.startswith("is not Parquet, or is damaged (")
    twice = pa.table([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"])
    pq.write_table(twice, path)
    assert told(str(path)) == ["is not Parquet, or is damaged (the column 'prompt' is there twice)"]


# ---- any damage


def originals() -> dict[str, bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"prompt": f"Why {i}, näturally?", "chosen": f"good\n{i}", "rejected": f"bad {i}"} for i in range(12)
    ]
    chats = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
        }
        for row in rows
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows + chats).encode()
    cells = "".join('"{prompt}","{chosen}",{rejected}\n'.format(**row) for row in rows).encode()
    made = {"jsonl": lines, "jsonl.gz": gzip.compress(lines), "csv": b"prompt,chosen,rejected\n" + cells}
    for name, table, how in (("parquet", rows, "snappy"), ("chat.parquet", chats, "gzip")):
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(table), out, compression=how)
        made[name] = out.getvalue()
    return made


ORIGINALS = originals()


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with bytes or lines changed, removed, doubled, exchanged or added."""
    made = data
    for _ in range(draw(st.integers(1, 3))):
        how = draw(st.sampled_from(["byte", "cut", "insert", "remove", "drop", "double", "swap"]))
        at = draw(st.integers(0, len(made)))
        if how == "byte" and at < len(made):
            made = made[:at] + draw(st.binary(min_size=1, max_size=1)) + made[at + 1 :]
        elif how == "cut":
            made = made[:at]
        elif how == "insert":
            made = made[:at] + draw(st.binary(max_size=8)) + made[at:]
        elif how == "remove":
            made = made[:at] + made[at + draw(st.integers(1, 9)) :]
        else:
            lines = made.splitlines(keepends=True) or [b""]
            i, j = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
            if how == "drop":
                del lines[i]
            elif how == "double":
                lines.insert(j, lines[i])
            else:
                lines[i], lines[j] = lines[j], lines[i]
            made = b"".join(lines)
    return made


@pytest.mark.parametrize("name", list(ORIGINALS))
@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_damage_makes_the_check_fail(tmp_path: Path, name: str, data: st.DataObject) -> None:
    path = tmp_path / f"data.{name}"
    # Lines are those of the text; what a compressed file holds is damaged within as well as without.
    if name == "jsonl.gz" and data.draw(st.booleans()):
        path.write_bytes(gzip.compress(data.draw(damaged(ORIGINALS["jsonl"]))))
    else:
        path.write_bytes(data.draw(damaged(ORIGINALS[name])))
    report = check([str(path)], kind="preference")
    for problem in report.problems:
        assert str(problem).startswith(f"{path}:") and str(problem).isprintable()
    assert report.text() and json.dumps(report.as_dict()).encode()
    try:
        rows = open_rows(path, "preference")
    except HeedfulError as error:
        assert report.error_count and all(
            line.startswith((f"{path}:", "… and ")) for line in str(error).splitlines()
        )
    else:
        assert report.error_count == 0 and len(list(rows)) == report.files[0].rows


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
ANY_ROW = st.dictionaries(
    st.sampled_from(["prompt", "chosen", "rejected", "completion", "label", "margin", "x"]),
    VALUES
    | st.sampled_from(
        ["\n\nHuman: a\n\nAssistant: b", "\n\nHuman: a\n\nAssistant:", "same words", "same word"]
    )
    | st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant"]), "content": st.sampled_from(["a", "b", ""])}
        ),
        max_size=3,
    ),
    max_size=6,
)


@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(
    st.lists(ANY_ROW, max_size=4),
    st.sampled_from(["auto", "preference", "unpaired", "prompt_completion", "prompt"]),
)
def test_no_values_make_the_check_fail(file: Path, rows: list[Row], kind: str) -> None:
    report = check([write(file, *rows)], kind=kind)
    for problem in report.problems:
        assert str(problem).startswith(f"{file}:")
    if kind == "auto":
        return
    try:
        made = list(open_rows(file, kind))
    except HeedfulError:
        assert report.error_count
        if "breaks off" in report.problems[-1].message:  # what a flipped bit makes may well have more lines
            assert report.files[0].rows <= 401
        return
    assert report.error_count == 0
    for row in made:
        answers = [row[name] for name in validate.ANSWERS[kind]]  # type: ignore[index]
        assert row["prompt"] and all(isinstance(text, str) and text.strip() for text in answers)
        assert len(set(answers)) == len(answers)


def test_a_problem_is_one_line() -> None:
    problem = problems.Problem("a.jsonl", 17, "chosen", "is empty")
    assert str(problem) == "a.jsonl:17: chosen: is empty"
    assert str(problems.Problem("a\n\udcff.jsonl", 0, "", "x")) == "a\\n\\udcff.jsonl: x"


# ---- the command

COMMAND = """
import sys
from heedful.cli import main
status = main(["check", *sys.argv[1:]])
heavy = {"torch", "transformers", "datasets", "pandas", "pyarrow"} & set(sys.modules)
print("heavy:", sorted(heavy), file=sys.stderr)
sys.exit(status)
"""


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def test_the_command_says_what_is_wrong_and_imports_little(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "a.jsonl", PAIR), write(tmp_path / "b.jsonl", PAIR, PAIR | {"chosen": ""})
    done = command(good)
    assert (done.returncode, done.stderr) == (0, "heavy: []\n")
    assert done.stdout.startswith(f"{good}: 1 row, preference, standard, 1 distinct prompt\n")
    done = command(good, bad)
    assert done.returncode == 1 and done.stdout.startswith(f"{bad}:2: chosen: is empty\n")
    done = command(bad, "--json", "--columns", "chosen=rejected", "rejected=chosen")
    assert done.returncode == 1 and json.loads(done.stdout)["problems"][0]["field"] == "rejected"
    done = command(good, "--columns", "prompt")
    assert done.returncode == 1 and "write name=column" in done.stderr


def test_checking_parquet_does_not_import_torch(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(ORIGINALS["parquet"])
    done = command(str(path))
    assert (done.returncode, done.stderr) == (0, "heavy: ['pyarrow']\n")
