"""`heedful search view`: rows of a tree, text, pictures, what is refused; trees and heatmaps in the reports."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from heedful.cli import main
from heedful.data.countdown import codec
from heedful.data.countdown.replay import replay
from heedful.data.countdown.streams import Task, streams
from heedful.recipes import search_pictures, search_report, search_tree
from heedful.recipes.search_measure import Measured
from heedful.recipes.search_world import Settings, open_world
from heedful.report import drawings, write_report
from heedful.report_drawings import heatmap, standalone, tree
from heedful.run import open_run

SOLVED = "T 24 N 4 9 3 E 9 - 3 = 6 4 6 S 4 6 E 4 + 6 = 10 10 X E 4 * 6 = 24 24 G"
WRONG = "T 24 N 4 9 3 E 9 - 4 = 5 3 5 E 9 - 3 = 7 4 7 S 4 7 E 4 * 7 = 24 24 G"
MADE_UP = "T 24 N 4 9 3 E 9 - 3 = 6 4 6 M 5 5 S 4 8 E 4 * 8 = 32 32 X"
MISSED = "T 24 N 4 6 E 4 * 6 = 24 24 X E 4 + 6 = 10 10 X F"
TASKS = [
    Task(36, [4, 9, 3, 17], "dfs-sum"),
    Task(37, [4, 9, 3, 17], "bfs-mult-3"),
    Task(24, [4, 9, 3], "dfs-sum"),
    Task(97, [4, 9, 3], "bfs-sum-2"),
]
HOSTILE = "<script>document.title='pwned'</script>"


def kinds(text: str, most: int = 200) -> list[tuple[str, str]]:
    return [(row.text, row.kind) for row in search_tree.tree(replay(text), most)]


# ---- rows


def test_every_kind_of_node_is_named() -> None:
    assert kinds(SOLVED) == [
        ("24 from 4 9 3", "root"),
        ("9-3=6", "inner"),
        ("4+6=10", "dead end"),
        ("4*6=24", "goal"),
    ]
    rows = search_tree.tree(replay(SOLVED))
    assert [(row.parent, row.depth, row.step, row.way) for row in rows] == [
        (-1, 0, 0, True),
        (0, 1, 1, True),
        (1, 2, 2, False),
        (1, 2, 3, True),
    ]
    assert [row.numbers for row in rows] == ["", "4 6", "", ""]
    rows = search_tree.tree(replay(WRONG))
    assert [(row.text, row.kind) for row in rows[1:]] == [
        ("9-4=5", "not followed"),
        ("9-3=7", "inner"),
        ("4*7=24", "false goal"),
    ]
    assert rows[2].errors == ("arithmetic", "other") or "arithmetic" in rows[2].errors
    assert not any(row.way for row in rows)
    assert ("made up:", "made up") in kinds(MADE_UP)
    assert kinds(MISSED)[1] == ("4*6=24", "missed goal")
    assert kinds("nothing to see") == []


@pytest.mark.parametrize("most", [1, 7, 40, 1000])
def test_what_is_not_drawn_is_counted(most: int) -> None:
    for made in streams(TASKS):
        found = replay(made.text)
        rows = search_tree.tree(found, most)
        drawn = [row for row in rows if row.kind != "more"]
        left = [int(re.sub(r"\D", "", row.text)) for row in rows if row.kind == "more"]
        assert len(drawn) + sum(left) == len(found.nodes) and len(drawn) <= most + 4
        assert all(row.parent < i for i, row in enumerate(rows))
        assert all(row.depth == (rows[row.parent].depth + 1 if row.parent >= 0 else 0) for row in rows)
        on_way = [row.text for row in rows if row.way]
        assert on_way[1:] == [str(operation) for operation in found.solution]
        assert len({row.step for row in drawn if row.step}) == len(drawn) - 1


def test_a_stream_that_goes_down_without_end_stays_in_bounds() -> None:
    text = "T 24 N 4 9 3 " + " ".join(f"E 9 + {i} = {9 + i} 4 9 {i} S 4 9 {i}" for i in range(50))
    rows = search_tree.tree(replay(text))
    assert max(row.depth for row in rows) == search_tree.DEEPEST + 1
    assert [row.text for row in rows if row.kind == "more"] == ["42 more nodes not drawn"]


# ---- text


def test_text_needs_no_colour_and_no_more_than_ascii() -> None:
    for text in (SOLVED, WRONG, MADE_UP, MISSED):
        rows = search_tree.tree(replay(text))
        plain = search_tree.lines(rows, plain=True)
        assert all(line.isascii() for line in plain) and search_tree.legend(rows, plain=True).isascii()
        fancy, coloured = search_tree.lines(rows), search_tree.lines(rows, colour=True)
        assert [re.sub(r"\033\[[0-9;]*m", "", line) for line in coloured] == fancy != coloured
        for row, line in zip(rows, plain, strict=True):
            assert row.text in line and row.numbers in line
            assert all(kind in line for kind in row.errors) and (
                row.kind in line or row.kind in ("root", "inner", "made up")
            )
    assert search_tree.lines(search_tree.tree(replay(SOLVED))) == [
        "24 from 4 9 3",
        "└─   1 9-3=6 → 4 6   on the way to the goal",
        "   ├─   2 4+6=10  × dead end",
        "   └─   3 4*6=24  ✓ goal",
    ]
    lines = search_tree.lines(search_tree.tree(replay(WRONG)), plain=True)
    assert lines[1].startswith("|-   1 9-4=5") and lines[3].startswith("   `-   3 4*7=24")
    assert "! x false goal, error: arithmetic" in lines[3]


# ---- pictures


def test_a_tree_is_drawn_without_overlaps() -> None:
    for made in streams(TASKS):
        rows = [row.as_json() for row in search_tree.tree(replay(made.text))]
        svg = ET.fromstring(str(tree(rows, "a tree")))
        boxes = [{k: float(r.attrib[k]) for k in ("x", "y", "width", "height")} for r in svg.iter("rect")]
        assert len(boxes) == len(rows) and len(list(svg.iter("path"))) == len(rows) - 1
        width, height = (float(svg.attrib[name]) for name in ("width", "height"))
        for i, a in enumerate(boxes):
            assert a["x"] + a["width"] <= width and a["y"] + a["height"] <= height
            for b in boxes[:i]:
                apart = a["x"] >= b["x"] + b["width"] or b["x"] >= a["x"] + a["width"]
                assert apart or abs(a["y"] - b["y"]) >= a["height"]
    solved = str(tree([row.as_json() for row in search_tree.tree(replay(SOLVED))], "a tree"))
    assert solved.count('stroke-width="2"') == 2, "the way to the goal stands out"


def test_foreign_text_is_inert_in_pictures() -> None:
    rows = [
        {
            "parent": -1,
            "kind": "root",
            "text": HOSTILE,
            "numbers": HOSTILE,
            "errors": [HOSTILE],
            "step": HOSTILE,
        }
    ]
    rows += [{"parent": 7, "kind": HOSTILE}, {"parent": True, "way": True}, {}]
    for svg in (tree(rows, HOSTILE), heatmap([HOSTILE, "b"], [[1, "x"], [float("nan"), 2]], HOSTILE)):
        assert svg is not None and "<script" not in svg and "&lt;script" in svg
        ET.fromstring(str(svg))
        ET.fromstring(standalone(svg))
    long = tree([{"parent": -1, "text": "9" * 5000}], "")
    assert long is not None and len(long) < 1000


def test_a_heatmap_shows_its_numbers() -> None:
    svg = str(heatmap(["a", "b"], [[1.0, -0.126], [None, 0.004]], "alike"))
    assert re.findall(r'text-anchor="middle"[^>]*>([^<]*)<', svg) == ["1", "−.13", "–", "0"]
    fills = re.findall(r'fill="([^"]*)" fill-opacity="([0-9.]*)"', svg)
    assert (
        fills[0] == ("var(--accent)", "0.56")
        and fills[1] == ("var(--bad)", "0.12")
        and fills[2] == ("none", "0.00")
    )
    for labels, values in (([], []), (["a"], [[1, 2]]), (["a", "b"], [[1, 1]]), (["a"], ["x"])):
        assert heatmap(labels, values, "") is None


def test_a_damaged_drawing_is_left_out() -> None:
    given: list[Any] = [{}, {"kind": "tree"}, {"kind": "tree", "rows": "x"}, {"kind": "heatmap", "labels": 3}]
    assert drawings([*given, {"kind": "tree", "rows": [{"text": "a"}, 7]}])[0]["svg"].count("<rect") == 1
    assert len(drawings(given)) == 0


# ---- the command


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Streams as `search streams` and `search verify` leave them, and a run folder as `search improve` does."""
    folder = tmp_path_factory.mktemp("view")
    made = list(streams(TASKS))
    rows = [
        {"target": t.target, "nums": list(t.nums), "stream": s.text} for t, s in zip(TASKS, made, strict=True)
    ]
    (folder / "streams.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    keep(folder / "run" / "before" / "heldout-inputs", [WRONG, SOLVED])
    keep(folder / "run" / "after" / "heldout-inputs", [SOLVED, WRONG])
    keep(folder / "run" / "after" / "heldout-targets", [MADE_UP])
    keep(folder / "own" / "eval" / "heldout", ["4 3 . . | a1 2"])
    (folder / "empty").mkdir()
    return folder


def keep(folder: Path, texts: list[str]) -> None:
    folder.mkdir(parents=True)
    rows = []
    for text in texts:
        prompt, _, rest = text.partition(" E ") if text.startswith("T") else text.partition(" | ")
        rest = f"E {rest}" if text.startswith("T") else rest
        rows.append(
            {"prompt": prompt, "completions": [{"text": rest, "ids": [], "finished": True, "logp": 0.0}]}
        )
    (folder / "greedy-samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_files_are_drawn(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(f"search view {files}/streams.jsonl --problem 3".split()) == 0
    told = capsys.readouterr().out
    assert told.startswith("streams.jsonl, problem 3: 24 from 4 9 3, solved after 29 operations; no errors")
    assert "✓ goal" in told and "\033" not in told and told.count("dead end") > 10
    assert main(f"search verify {files}/streams.jsonl --out {files}/verdicts.jsonl".split()) == 0
    capsys.readouterr()
    assert main(f"search view {files}/verdicts.jsonl --problem 1 --most 9 --json".split()) == 0
    told = json.loads(capsys.readouterr().out)
    verdict = json.loads((files / "verdicts.jsonl").read_text().splitlines()[0])
    assert all(
        told[name] == verdict[name] for name in ("target", "nums", "strict", "rating", "explored", "nodes")
    )
    assert len(told["tree"]) < 30 and told["tree"][-1]["kind"] in ("goal", "more")


def test_runs_are_drawn(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for options in ("", "--problem 2", "--set before/heldout-inputs", "--set heldout-targets"):
        assert main(f"search view {files}/run {options}".split()) == 0
        told.append(capsys.readouterr().out)
    assert [text.partition(": ")[0] for text in told] == [
        "after/heldout-inputs, problem 1",
        "after/heldout-inputs, problem 2",
        "before/heldout-inputs, problem 1",
        "after/heldout-targets, problem 1",
    ]
    assert [", solved after 3" in text for text in told] == [True, False, False, False]
    assert "arithmetic" in told[1] and "arithmetic" in told[2]
    assert "made up: 4 8" in told[3] and "? a state that no operation led to" in told[3]


def test_pictures_are_written(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for ending in ("svg", "html"):
        assert main(f"search view {files}/run --out {files}/tree.{ending}".split()) == 0
        assert f"picture: {files}/tree.{ending}" in capsys.readouterr().out
    svg = ET.parse(files / "tree.svg").getroot()
    assert (
        svg.tag == "{http://www.w3.org/2000/svg}svg"
        and len(list(svg.iter("{http://www.w3.org/2000/svg}rect"))) == 4
    )
    text = (files / "tree.svg").read_text()
    assert "prefers-color-scheme:dark" in text and set(re.findall(r"var\((--[a-z-]+)\)", text)) <= set(
        re.findall(r"(--[a-z0-9-]+):", text)
    )
    page = (files / "tree.html").read_text()
    assert "Content-Security-Policy" in page and page.count("<rect") == 4 and "24 from 4 9 3" in page


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("streams.jsonl --problem 9", "has 4 problems, so there is no problem 9"),
        ("streams.jsonl --problem 0", "must be at least 1"),
        ("streams.jsonl --set heldout", "--set is for runs"),
        ("streams.jsonl --out tree.png", "must end in .svg or .html"),
        (
            "run --set nowhere",
            "has no test set 'nowhere', but after/heldout-inputs, after/heldout-targets, before/",
        ),
        ("own", "searches problems of your own; only a search of Countdown can be drawn"),
        ("empty", "keeps no streams"),
        ("missing.jsonl", "missing.jsonl"),
        ("bad.jsonl", "problem 1: stream: is missing"),
        ("none.jsonl", "there is no tree to draw"),
        ("torn", "greedy-samples.jsonl: problem 1 has no prompt with a completion"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    options: str, said: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "bad.jsonl").write_text(json.dumps({"target": 24, "nums": [4, 6]}) + "\n")
    (files / "none.jsonl").write_text(json.dumps({"target": 24, "nums": [4, 6], "stream": "hello"}) + "\n")
    (files / "torn" / "eval").mkdir(parents=True, exist_ok=True)
    (files / "torn" / "eval" / "greedy-samples.jsonl").write_text(json.dumps({"prompt": "T 24 N 4 6"}) + "\n")
    assert main(f"search view {files}/{options}".split()) == 1
    assert said in capsys.readouterr().err


# ---- reports


def measured(texts: list[str]) -> Measured:
    """As if a model had written these streams, without and with their problems."""
    pairs = [re.split(r" (?=[EFM] )", text, maxsplit=1) for text in texts]
    found = [replay(text) for text in texts]
    census = [one.census() | {"explored": one.explored} for one in found]
    counts = {name: np.array([float(one[name]) for one in census]) for name in census[0]}
    lengths = np.array([[len(text.split())] for text in texts])
    return Measured(
        [prompt for prompt, _ in pairs],
        [[rest] for _, rest in pairs],
        [[one.reason] for one in found],
        np.array([[one.rating] for one in found]),
        lengths,
        np.ones_like(lengths, dtype=bool),
        counts,
    )


def test_reports_draw_trees_budgets_errors_and_alignment(tmp_path: Path) -> None:
    world = open_world(Settings(seed=1))
    problems = [(p, [int(n) for n in p.split()[3:]]) for p in world.tests["heldout-inputs"](30)]
    tasks = [Task(int(p.split()[1]), numbers, "bfs-sum-2") for p, numbers in problems]
    after = measured([codec.encode(made.text) for made in streams(tasks, cap=400)])
    before = measured([f"{prompt} E 1 + 1 = 3 7" for prompt in after.prompts])
    assert 2 < after.solved.sum() < 28
    models = {"before": {"heldout-inputs": before}, "after": {"heldout-inputs": after}}
    cfg = SimpleNamespace(model="m", method="star", rounds=1, problems=1, n=1, seed=0, judge="")
    with open_run(tmp_path / "run", {}, seed=0) as run:
        drawn = search_pictures.pictures(models, world, 256, run)
        again = search_pictures.pictures(models, world, 256, run)
        search_report.finish_improvement(cfg, models["before"], models["after"], {}, {}, drawn, run)
    assert again == drawn and [one["kind"] for one in drawn] == ["tree", "tree", "heatmap", "heatmap"]
    solved, failed = drawn[0]["rows"], drawn[1]["rows"]
    assert any(row["kind"] == "goal" for row in solved) and not any(row["kind"] == "goal" for row in failed)
    names = drawn[2]["labels"]
    assert names[:3] == ["before", "after", "dfs-sum"] and len(names) == 14
    own = names.index("bfs-sum-2")
    correctness, states = drawn[2]["values"], drawn[3]["values"]
    assert correctness[1][own] == 1 and set(correctness[0]) == {None}, (
        "before solves none, after what its teacher does"
    )
    assert states[1][own] > 0.9 > states[1][0] > 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    errors = next(one for one in report["tables"] if one["title"] == "Errors by stream, before and after")
    assert [row[0] for row in errors["rows"]] == ["heldout-inputs, before", "heldout-inputs, after"]
    assert errors["rows"][0][1] == "1.00 ± 0.00" and errors["rows"][1][1] == "0.00 ± 0.00"
    budget = next(one for one in report["curves"] if one["title"] == "accuracy against token budget")
    assert list(budget["lines"]) == ["heldout-inputs, before", "heldout-inputs, after"]
    assert budget["lines"]["heldout-inputs, after"][-1][1] == pytest.approx(after.accuracy.estimate)
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count('<svg class="tree"') == 2 and page.count('<svg class="heatmap"') == 2
    assert "problem whose stream is of median length" in page and ">tokens<" in page
    rewritten = write_report(tmp_path / "run").read_text()
    assert rewritten.count("<rect") == page.count("<rect")


def test_problems_of_the_users_own_have_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        "".join(f'{{"prompt": "p {i}", "completion": "c"}}\n' for i in range(40))
    )
    world = open_world(Settings(data=f"{tmp_path}/rows.jsonl"))
    one = measured([SOLVED])
    with open_run(tmp_path / "run", {}, seed=0) as run:
        assert search_pictures.pictures({"model": {"heldout": one}}, world, 64, run) == []
        countdown = open_world(Settings())
        assert search_pictures.pictures({"model": {}}, countdown, 64, run) == []
