"""`heedful reproduce`: results as files that say the same whenever they are made, resumed runs, wrong usage."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import markdown
import numpy as np
import pytest
from markdown_it import MarkdownIt

from heedful import sessions
from heedful.errors import HeedfulError
from heedful.papers import reproduce
from heedful.papers.reproduce import PAPERS, Reproduce
from heedful.papers.results import (
    Claim,
    Part,
    Plot,
    Results,
    Series,
    Table,
    joined,
    read_results,
    render,
    results_path,
    write_results,
)
from heedful.papers.results_page import escape, show, tally

CLAIMS = [
    Claim("A is best", "Table 2: .7", 0.5, (0.4, 0.6), True, "three seeds"),
    Claim("B is worst", "Figure 1", 0.25, None, False),
    Claim("C is far", "no number"),
]
PLOT = Plot("Lines", "x", "y", [Series("one", [1.0, 2.0], [0.5, None], [0.4, None], [0.6, None])])
TABLE = Table("Arms", ["arm", "score", "kept"], [["A", 0.5, True], ["B", None, False]], "a note")
RESULTS = Results(
    "c3po", "A title", CLAIMS, [TABLE], [PLOT], ["a note"], "main", "abc123", seeds=[0, 1], minutes=12.5
)


def write(results: Results, folder: Path) -> dict[str, bytes]:
    write_results(results, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- the files


def test_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = write_results(RESULTS, tmp_path)
    assert path == tmp_path / "c3po.json" and read_results(path) == RESULTS
    told = json.loads(path.read_text())
    assert list(told) == sorted(told)
    assert {"tier", "commit", "seeds", "minutes", "claims"} <= set(told)
    assert set(told["claims"][0]) == {"claim", "paper", "measured", "interval", "holds", "note"}
    assert [claim["holds"] for claim in told["claims"]] == [True, False, None]
    assert max(map(len, path.read_text().splitlines())) < 120, "one long line cannot be read or compared"


def test_the_same_results_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write(RESULTS, tmp_path / "a")
    assert set(first) == {"c3po.json", "c3po.md", "c3po-1.svg"}
    # What a plotting library likes to put into files: the day, and what the user's own settings say.
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    import matplotlib

    with matplotlib.rc_context({"lines.linewidth": 9, "axes.grid": False, "axes.facecolor": "red"}):
        assert write(RESULTS, tmp_path / "b") == first
    for name, data in first.items():
        assert not re.search(rb"\b(19|20)\d\d-\d\d-\d\d", data), name
    rewritten = tmp_path / "a" / "c3po.json"
    rewritten.with_suffix(".md").unlink()
    assert render(rewritten) == tmp_path / "a" / "c3po.md"
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == first


def test_the_page_is_made_from_the_json_alone(tmp_path: Path) -> None:
    path = write_results(RESULTS, tmp_path)
    told = json.loads(path.read_text())
    told["claims"][0]["measured"] = 0.123
    told["plots"] = []
    path.write_text(json.dumps(told))
    (tmp_path / "c3po-12.svg").write_text("an older plot")
    (tmp_path / "c3po-extra.svg").write_text("not ours")
    page = render(path).read_text()
    assert "0.123" in page and ".svg" not in page
    assert {p.name for p in tmp_path.iterdir()} == {"c3po.json", "c3po.md", "c3po-extra.svg"}


def test_numbers_no_json_has_become_null_and_numpys_become_plain(tmp_path: Path) -> None:
    odd: Any = np.float32(0.1)
    claims = [
        Claim("a", "b", math.nan, (math.inf, 1.0), None),
        Claim("c", "d", odd, (np.float64(0), np.float64(1)), bool(np.True_)),
        Claim("e", "f", 0.1 + 0.2 - 0.3, (-1e-11, 1e-11), None),
    ]
    series = Series("s", [0, 1, math.nan], [1.0, math.nan, math.inf])
    path = write_results(
        replace(RESULTS, claims=claims, plots=[replace(PLOT, series=[series])], seeds=range(2)), tmp_path
    )
    told = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert told["claims"][0]["measured"] is None and told["claims"][0]["interval"] is None
    assert told["claims"][1]["measured"] == 0.1 and told["claims"][1]["holds"] is True
    assert told["claims"][2]["measured"] == 0 and told["claims"][2]["interval"] == [-1e-11, 1e-11]
    assert told["plots"][0]["series"][0]["y"] == [1.0, None, None] and told["seeds"] == [0, 1]
    render(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda r: r["claims"][0].update(holds="yes"), "claims[0].holds"),
        (lambda r: r["claims"][0].pop("paper"), "'paper' is missing"),
        (lambda r: r.update(verdict=1), "unknown setting 'verdict'"),
        (lambda r: r.update(paper="../c3po"), "'../c3po'"),
        (lambda r: r["tables"][0]["rows"].append(["A"]), "1 values for 3 columns"),
        (lambda r: r["plots"][0]["series"][0]["y"].append(1), "3 values of y for 2 of x"),
        (lambda r: r["plots"][0]["series"][0].update(low=None), "both low and high"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, change: Callable[[Any], Any], told: str) -> None:
    path = write_results(RESULTS, tmp_path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(HeedfulError, match=re.escape(told)):
        render(path)


def test_a_file_that_is_no_json_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("<<<<<<< HEAD")
    for name in ("x.json", "y.json"):
        with pytest.raises(HeedfulError, match=name):
            render(tmp_path / name)


# ---- the page


def as_documentation(text: str) -> str:
    """The page as mkdocs reads it."""
    return markdown.markdown(text, extensions=["tables", "admonition", "toc", "pymdownx.superfences"])


def as_github(text: str) -> str:
    """The page as a reader of CommonMark with GitHub's tables does."""
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)


READERS = (as_documentation, as_github)


class Shown(HTMLParser):
    """Tags with attributes, and the text of each table row's cells, as a reader's browser gets them."""

    def __init__(self, text: str, read: Callable[[str], str] = as_documentation) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.in_cell = False
        self.feed(read(text))
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.in_cell:
            self.rows[-1][-1] += data


def test_the_page_has_every_claim_with_its_verdict(tmp_path: Path) -> None:
    page = write_results(RESULTS, tmp_path).with_suffix(".md").read_text()
    shown = Shown(page)
    assert shown.rows[0] == ["claim", "paper", "measured", "95% interval", "holds", "note"]
    assert shown.rows[1] == ["A is best", "Table 2: .7", "0.5", "0.4 … 0.6", "holds", "three seeds"]
    assert shown.rows[2] == ["B is worst", "Figure 1", "0.25", "–", "does not hold", ""]
    assert shown.rows[3] == ["C is far", "no number", "–", "–", "not run", ""]
    assert shown.rows[4:] == [["arm", "score", "kept"], ["A", "0.5", "yes"], ["B", "–", "no"]]
    assert "1 of 3 claims hold, 1 does not, 1 was not run in this tier." in shown.text
    assert "Tier main, commit abc123, seeds 0, 1, 12.5 minutes." in shown.text
    assert [attrs["src"] for tag, attrs in shown.tags if tag == "img"] == ["c3po-1.svg"]


def test_tallies_are_sentences() -> None:
    assert tally([]) == "There are no claims yet."
    assert tally(CLAIMS[:1]) == "1 of 1 claims hold."
    assert (
        tally([CLAIMS[1]] * 2 + [CLAIMS[2]] * 2)
        == "0 of 4 claims hold, 2 do not, 2 were not run in this tier."
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0015351, "0.00154"),
        (0.000684, "0.000684"),
        (1.0, "1"),
        (-0.25, "−0.25"),
        (12.345, "12.3"),
        (1234, "1\u202f234"),
        (1.5e-7, "1.50e−07"),
        (0.0, "0"),
        (math.nan, "–"),
        (None, "–"),
    ],
)
def test_numbers_are_shown_with_three_digits(value: float | None, text: str) -> None:
    assert show(value) == text


HOSTILE = [
    "a | b || c",
    "a\\|b \\\\| c",
    "two\nlines\r\n\r\n# and a heading",
    "<script>alert(1)</script> <img src=x onerror=alert(1)>",
    "&lt;b&gt; &#124; &amp;",
    "![x](https://example.org/x.svg) [y](javascript:alert(1))",
    "**bold** _it_ *it* `code` ~~gone~~ $x_1$",
    "```\nfence",
    "# heading",
    "- item",
    "1. item",
    "2) item",
    "+ item",
    "> quote",
    "::: heedful.losses",
    "!!! note",
    "=== rule",
    "--- | ---",
    "[ref]: https://example.org",
    "https://example.org www.example.org <https://example.org>",
    "\x00\x1b[31m\ud800 control",
    "\u2028\u0085line ends",
]


def expected(text: str) -> str:
    return " ".join(re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", text).split())


def of_texts(text: str) -> Results:
    """Results in which everything a person or a model may write is `text`."""
    lines = [Series(text, [1.0, 2.0], [1.0, 2.0]), Series("_" + text, [1.0], [1.0])]
    return replace(
        RESULTS,
        title=text,
        claims=[Claim(text, text, 1.0, None, True, text)],
        tables=[Table(text, [text, "b"], [[text, text]], text)],
        plots=[Plot(text, text, text, lines, text)],
        notes=[text, text],
        commit=text,
    )


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("harmless")
    return write_results(of_texts("t"), folder).with_suffix(".md").read_text()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text_wherever_it_stands(text: str, harmless: str, tmp_path: Path) -> None:
    results = of_texts(text)
    path = write_results(results, tmp_path)
    assert read_results(path) == results
    page = path.with_suffix(".md").read_text()
    line = expected(text)
    for read in READERS:
        shown, like = Shown(page, read), Shown(harmless, read)
        assert [tag for tag, _ in shown.tags] == [tag for tag, _ in like.tags], "it adds and ends no element"
        assert shown.rows[1] == [line, line, "1", "–", "holds", line]
        assert shown.rows[2:] == [[line, "b"], [line, line]]
        assert shown.text.count(line) >= 10
    assert len(page.splitlines()) == len(harmless.splitlines())
    assert "<" not in page and "$" not in page and "://" not in page

    root = ET.fromstring((tmp_path / "c3po-1.svg").read_bytes())
    names = {node.tag.rpartition("}")[2] for node in root.iter()}
    assert names.isdisjoint({"script", "image", "img", "a", "foreignObject"})
    texts = [" ".join("".join(node.itertext()).split()) for node in root.iter() if node.tag.endswith("}text")]
    line, hidden = (label if len(label) <= 60 else label[:59] + "…" for label in (line, expected("_" + text)))
    assert texts.count(line) == 3 and hidden in texts, "both axes, and both lines in the legend"


def test_escaping_leaves_ordinary_text_readable() -> None:
    assert escape("S_in of C3PO is at most .5 (DPO: 0.3)") == r"S\_in of C3PO is at most .5 (DPO: 0.3)"
    assert escape("3 of 5, see #4") == "3 of 5, see #4"


def test_plots_draw_gaps_bands_and_single_points(tmp_path: Path) -> None:
    x = [float(i) for i in range(30)]
    band = Series("band", x, x, [v - 1 for v in x], [v + 1 for v in x])
    for name, series in {
        "band": [band],
        "line": [replace(band, low=None, high=None)],
        "gap": [replace(band, low=None, high=None, y=[None if 5 < v < 9 else v for v in x])],
        "point": [Series("p", [1.0], [2.0])],
        "empty": [Series("none", [], [])],
        "nothing": [],
    }.items():
        write_results(replace(RESULTS, plots=[replace(PLOT, series=series)]), tmp_path / name)
    svg = {path.name: (path / "c3po-1.svg").read_text() for path in tmp_path.iterdir()}
    for text in svg.values():
        ET.fromstring(text)
    assert svg["band"].count("fill-opacity: 0.2") > svg["line"].count("fill-opacity: 0.2") == 0
    strokes = {name: re.findall(r"stroke: #0072b2[^>]*stroke-width: 1.5", text) for name, text in svg.items()}
    assert len(strokes["line"]) == 2, "the line, and its sample in the legend"
    whole, cut = (
        re.findall(r'<path d="([^"]*)" clip-path[^>]*stroke: #0072b2', svg[n]) for n in ("line", "gap")
    )
    assert whole[0].count("M ") == 1 and cut[0].count("M ") == 2


def test_parts_are_joined_in_their_order() -> None:
    whole = joined("c3po", "T", [Part(CLAIMS[:1], [TABLE]), Part(), Part(CLAIMS[1:], [], [PLOT], ["n"])])
    assert whole == Results("c3po", "T", CLAIMS, [TABLE], [PLOT], ["n"])


# ---- the command


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A paper whose one stage counts how often it is made."""
    module = SimpleNamespace(TITLE="A title", SEEDS={"smoke": 1, "main": 2}, made=[], fail=False, seconds=0.0)

    def run(tier: str, seeds: Any, run: Any, until: float | None = None) -> Results:
        module.until = until
        for seed in seeds:
            run.once(f"stage/seed{seed}.json", lambda seed=seed: module.made.append(seed) or seed)
        clock[0] += module.seconds
        if module.fail:
            raise RuntimeError("killed")
        claim = Claim("It runs", "p. 1", float(len(seeds)), None, True)
        return Results("fake", module.TITLE, [claim, *CLAIMS[1:]])

    clock = [1000.0]
    module.run = run
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setitem(PAPERS, "fake", "heedful.papers.fake")
    monkeypatch.setattr(reproduce.importlib, "import_module", lambda name: module)
    monkeypatch.setattr(sessions.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sessions, "commit", lambda: "aaa")
    yield module


def options(tmp_path: Path, **changes: Any) -> Reproduce:
    return replace(Reproduce("fake", out=str(tmp_path / "results"), work=str(tmp_path / "work")), **changes)


def test_minutes_become_a_time_after_which_nothing_is_begun(paper: Any, tmp_path: Path) -> None:
    assert reproduce.main(options(tmp_path)) == 0 and paper.until is None
    assert reproduce.main(options(tmp_path, minutes=2.0)) == 0 and paper.until == 1000.0 + 120


def test_reproduce_writes_and_tells_the_results(
    paper: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce.main(options(tmp_path)) == 0
    told = capsys.readouterr().out
    assert re.search(r"^holds +It runs$", told, re.MULTILINE)
    assert re.search(r"^does not hold +B is worst$", told, re.MULTILINE)
    assert re.search(r"^not run +C is far$", told, re.MULTILINE)
    assert "fake.smoke.md" in told
    results = read_results(tmp_path / "results" / "fake.smoke.json")
    assert (results.tier, results.commit, results.seeds) == ("smoke", "aaa", [0])
    assert reproduce.main(options(tmp_path, json=True)) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "A title"


def test_minutes_add_up_over_starts_and_failures(paper: Any, tmp_path: Path) -> None:
    paper.seconds, paper.fail = 60.0, True
    with pytest.raises(RuntimeError):
        reproduce.main(options(tmp_path))
    assert not (tmp_path / "results").exists()
    paper.seconds, paper.fail = 30.0, False
    reproduce.main(options(tmp_path))
    path = tmp_path / "results" / "fake.smoke.json"
    assert read_results(path).minutes == pytest.approx(1.5)
    paper.seconds = 0.0
    reproduce.main(options(tmp_path))
    assert read_results(path).minutes == pytest.approx(1.5)
    assert paper.made == [0], "the finished stage is not made again"


def test_a_kill_loses_little_of_the_time(paper: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the block runs the clock is noted; a process killed there leaves this file."""
    import threading

    from heedful.run import open_run

    seconds, noted = [0.0], threading.Event()
    monkeypatch.setattr(sessions.time, "monotonic", lambda: seconds[0])
    real = sessions.write_file

    def write_and_tell(path: Path, data: bytes) -> None:
        real(path, data)
        if b"120.0" in data:
            noted.set()

    monkeypatch.setattr(sessions, "write_file", write_and_tell)
    with open_run(tmp_path / "run", {}, seed=0) as run, sessions.session(run, every=0.01):
        assert sessions.spent(run.folder).minutes == 0
        seconds[0] = 120.0
        assert noted.wait(30)
        assert sessions.spent(run.folder).minutes == 2


def test_commits_of_all_starts_are_told(
    paper: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reproduce.main(options(tmp_path))
    assert "earlier commits" not in capsys.readouterr().err
    monkeypatch.setattr(sessions, "commit", lambda: "bbb")
    reproduce.main(options(tmp_path))
    assert read_results(tmp_path / "results" / "fake.smoke.json").commit == "aaa, bbb"
    assert "keeps what earlier commits made (aaa)" in capsys.readouterr().err


def test_more_seeds_keep_those_that_are_done(paper: Any, tmp_path: Path) -> None:
    for seeds in (2, 3, 1):
        reproduce.main(options(tmp_path, seeds=seeds))
        assert read_results(tmp_path / "results" / "fake.smoke.json").seeds == list(range(seeds))
    assert paper.made == [0, 1, 2]
    reproduce.main(options(tmp_path, tier="main"))
    assert paper.made == [0, 1, 2, 0, 1], "each tier has its own folder and number of seeds"


def test_smoke_results_never_replace_those_of_the_main_tier(paper: Any, tmp_path: Path) -> None:
    reproduce.main(options(tmp_path, tier="main"))
    folder = tmp_path / "results"
    main = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(main) == {"fake.json", "fake.md"}
    reproduce.main(options(tmp_path))
    assert {path.name: path.read_bytes() for path in folder.iterdir()}.items() >= main.items()
    paper.made.clear()
    with pytest.raises(HeedfulError, match="holds results of the main tier"):
        reproduce.main(options(tmp_path, seeds=5, out=str(folder / "fake.json")))
    assert paper.made == [], "it is refused before anything runs"
    with pytest.raises(HeedfulError, match="holds results of the main tier"):
        write_results(replace(RESULTS, paper="fake", tier="smoke"), folder / "fake.json")
    assert (folder / "fake.json").read_bytes() == main["fake.json"]


def test_out_may_name_the_file(paper: Any, tmp_path: Path) -> None:
    reproduce.main(options(tmp_path, out=str(tmp_path / "mine.json")))
    assert read_results(tmp_path / "mine.json").tier == "smoke" and (tmp_path / "mine.md").exists()
    assert results_path("c3po", "main", "d") == Path("d/c3po.json")
    assert results_path("c3po", "smoke", "d") == Path("d/c3po.smoke.json")


def test_render_runs_nothing(paper: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(HeedfulError, match=r"fake\.json or .*fake\.smoke\.json; run heedful reproduce fake"):
        reproduce.main(options(tmp_path, render=True))
    for tier in ("main", "smoke"):
        reproduce.main(options(tmp_path, tier=tier))
    paper.made.clear()
    pages = [tmp_path / "results" / name for name in ("fake.md", "fake.smoke.md")]
    before = [page.read_bytes() for page in pages]
    for page in pages:
        page.write_text("an older page")
    capsys.readouterr()
    assert reproduce.main(options(tmp_path, render=True)) == 0
    assert capsys.readouterr().out.splitlines() == [str(page) for page in pages]
    assert [page.read_bytes() for page in pages] == before and paper.made == []


def test_the_main_tier_does_not_run_in_ci(
    paper: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(HeedfulError, match="does not run in continuous integration"):
        reproduce.main(options(tmp_path, tier="main"))
    assert paper.made == [] and not (tmp_path / "work").exists()
    reproduce.main(options(tmp_path))
    monkeypatch.setenv("CI", "false")
    reproduce.main(options(tmp_path, tier="main"))


def test_an_unknown_paper_and_a_negative_number_of_seeds_are_refused(paper: Any, tmp_path: Path) -> None:
    with pytest.raises(
        HeedfulError,
        match=r"no paper 'c4po'; known: c3po, rlaif, datacentric, onpolicy, hyre, sos, leret, parl, yay, droid, fake",
    ):
        reproduce.main(options(tmp_path, paper="c4po"))
    with pytest.raises(HeedfulError, match="--seeds is -1"):
        reproduce.main(options(tmp_path, seeds=-1))
    assert not (tmp_path / "work").exists()


def test_every_paper_is_in_the_table_and_in_the_help() -> None:
    import ast
    import importlib
    import inspect

    body = ast.parse(inspect.getsource(Reproduce)).body[0]
    assert isinstance(body, ast.ClassDef)
    told = next(
        after.value.value
        for before, after in zip(body.body, body.body[1:])
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name)
        if before.target.id == "paper"
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    )
    assert told == f"One of: {', '.join(PAPERS)}."
    for name, module in PAPERS.items():
        found = importlib.import_module(module)
        assert isinstance(found.TITLE, str) and set(found.SEEDS) == {"smoke", "main"} and callable(found.run)
        assert Results(name, found.TITLE).paper == name
