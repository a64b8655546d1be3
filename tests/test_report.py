"""The report page: what it says, that it is self-contained, and that foreign text stays text."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from example_run import make_run, write

from heedful.errors import HeedfulError
from heedful.report import write_comparison, write_report
from heedful.report_values import clean, comparison_row, model_title, sample_row, show_change, show_number

ATTACKS = [
    "<script>document.title='pwned'</script>",
    '"><img src=x onerror="document.title=\'pwned\'">',
    "'><svg onload=document.title='pwned'>",
    "</template></style></textarea></title><script>document.title='pwned'</script>",
    "{{ 7*7 }}{% include 'x' %}",
    "javascript:document.title='pwned'",
    "--><script>document.title='pwned'</script><!--",
    "$\\frac{</text><script>document.title='pwned'</script>}$",
    "\x00\x1b[31m\ud800\x07 control",
]


class Page(HTMLParser):
    """Every tag with its attributes, the visible text, and whether tags close in order."""

    VOID = frozenset({"meta", "link", "input", "br", "img", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open, self.unbalanced = "", [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def attacked_run(folder: Path) -> Path:
    """A run in which every text a model, a judge, a data file or a user could choose is an attack."""
    make_run(folder)
    bad = " ".join(ATTACKS)
    report = json.loads((folder / "report.json").read_text())
    report |= {"title": bad, "job": bad, "summary": [bad], "warnings": [bad], "limits": [bad]}
    report["data"] = {bad: bad, "nested": {bad: [bad, bad]}}
    report["feedback"] = {bad: {"deep": bad}}
    for row in report["comparisons"]:
        row |= {"name": bad, "note": bad, "unit": bad}
    report["comparisons"][0]["better"] = bad
    for i, sample in enumerate(report["samples"]):
        attack = ATTACKS[i % len(ATTACKS)]
        sample |= {"input": attack, "group": bad, "before": {"text": attack, "notes": bad}}
        sample["after"] = {"text": attack, "score": 1.0, "notes": bad}
    report["samples"][0]["input"] = [{"role": bad, "content": bad}]
    report["curves"] = [{"title": bad, "stage": None, "y": [bad, "loss"]}]
    write(folder / "report.json", report)
    rows = [
        {"stage": a, "step": i, "time": 0.0, bad: float(i), "loss": 1.0} for i, a in enumerate(ATTACKS * 3)
    ]
    write(folder / "metrics.jsonl", rows)
    manifest = {
        "command": [bad],
        "device": bad,
        "versions": {bad: bad},
        "data": {bad: bad},
        "started": [{"time": bad}],
    }
    write(folder / "manifest.json", manifest)
    write(folder / "result.json", {bad: bad, "x": 1})
    (folder / "config.yaml").write_text(json.dumps({bad: {bad: bad}}))
    held = [
        {"prompt": bad, "before": {"text": bad, "score": i}, "after": {"text": bad, "score": 1}}
        for i in range(9)
    ]
    write(folder / "heldout.jsonl", held)
    return folder


def test_report_says_what_a_reader_needs(tmp_path: Path) -> None:
    path = write_report(make_run(tmp_path / "run"))
    assert path == tmp_path / "run" / "report.html"
    html = path.read_text("utf-8")
    page = Page(html)
    assert page.unbalanced == [] and page.open == []
    for text in (
        "SmolLM2 learns to answer briefly",
        "Held-out answers became",
        "h_w fell by",
        "lower is better",
        "higher is better",
        "✓ better",
        "✗ worse",
        "heedful prefer --model smollm2",
        "This run was resumed once.",
        "rule:length<40w",
        "fit.batch_size",
        "0.0002",
        "transformers",
        "4f2c9d0a71b3e8",
        "cpu: x86_64, 2 threads",
        "Known limits",
        "pairs.dropped as ties",
        "tokens_per_s",
        "round0, round1",
    ):
        assert text in page.text, text
    outcomes = [attrs["class"] for tag, attrs in page.tags if tag == "article"]
    assert len(outcomes) == 16 and "sample win" in outcomes and "sample loss" in outcomes
    assert html.count("<figure>") >= 6
    labels = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg" and attrs.get("role") == "img"]
    assert any(label and label.startswith("Loss: loss 0.") for label in labels), labels
    assert "round1" in re.sub(r"(?s)<style>.*?</style>", "", html)


def test_page_is_self_contained(tmp_path: Path) -> None:
    html = write_report(make_run(tmp_path)).read_text("utf-8")
    page = Page(html)
    assert {tag for tag, _ in page.tags}.isdisjoint(
        {"script", "img", "iframe", "object", "embed", "form", "base"}
    )
    for tag, attrs in page.tags:
        for name, value in attrs.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "src", "xlink:href"):
                assert value is not None and value.startswith(("#", "data:,")), (tag, value)
    assert not re.search(r"url\((?!#)|@import|https?://", html)
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None and "default-src 'none'" in policy and "script-src" not in policy


def test_ids_are_unique_and_references_resolve(tmp_path: Path) -> None:
    html = write_report(make_run(tmp_path)).read_text("utf-8")
    page = Page(html)
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    wanted = re.findall(r'(?:href="#|url\(#|for=")([^")]+)', re.sub(r"(?s)<style>.*?</style>", "", html))
    assert wanted and set(wanted) <= set(ids)


def test_plots_take_their_colours_from_the_page(tmp_path: Path) -> None:
    html = write_report(make_run(tmp_path)).read_text("utf-8")
    plots = re.findall(r"(?s)<figure>.*?</figure>", html)
    for plot in plots:
        assert "var(--s" in plot and "currentColor" in plot
        # A fixed colour would vanish in one of the two colour schemes.
        assert not re.search(r"(?:fill|stroke): ?(?:#|rgb|black|white)", plot)
    assert "prefers-color-scheme:dark" in html


def test_foreign_text_is_escaped_everywhere(tmp_path: Path) -> None:
    html = write_report(attacked_run(tmp_path)).read_text("utf-8")
    page = Page(html)
    assert page.unbalanced == [] and page.open == []
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "img", "template", "textarea", "iframe"})
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    for attack in ATTACKS[:-1]:
        assert attack in page.text, attack
    assert "49{%" not in page.text and "{{ 7*7 }}" in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\ud800-\udfff]", html)


def test_stage_names_are_drawn_as_text(tmp_path: Path) -> None:
    """The one foreign text inside a plot: no mathematics, no markup."""
    make_run(tmp_path)
    names = ["$\\frac$", "<i>&amp;", "c\x00d"]
    write(
        tmp_path / "metrics.jsonl", [{"stage": s, "step": i, "loss": i} for s in names for i in range(1, 9)]
    )
    html = write_report(tmp_path).read_text("utf-8")
    page = Page(html)
    plots = "".join(re.findall(r"(?s)<text.*?</text>", html))
    assert "$\\frac$" in plots and "&lt;i&gt;&amp;amp;" in plots and "c\ufffdd" in plots
    assert page.unbalanced == [] and "i" not in {tag for tag, _ in page.tags}


@pytest.mark.filterwarnings("error")
def test_a_metric_of_the_first_stages_keeps_its_plot(tmp_path: Path) -> None:
    """Names of stages that begin beyond its last point would leave no room for the curve."""
    make_run(tmp_path)
    rows = [{"stage": s, "step": i, "loss": i} for s in ("first", "second", "third") for i in range(1, 31)]
    for row in rows[:8]:
        row["early"] = 1.0
    write(tmp_path / "metrics.jsonl", rows)
    html = write_report(tmp_path).read_text("utf-8")
    plots = re.findall(r"(?s)<svg.*?</svg>", html)
    assert [plot.count(">third<") for plot in plots].count(1) == 1
    assert sum(">first<" in plot for plot in plots) == 2


def test_comparison_of_two_runs(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1, shift=0.3)
    out = write_comparison(a, b, tmp_path / "out" / "compare.html")
    page = Page(out.read_text("utf-8"))
    assert page.unbalanced == []
    for text in (
        "32 held-out prompts",
        "judge score",
        "win rate",
        "words_after",
        "beta",
        "0.1",
        "0.4",
        "Settings",
    ):
        assert text in page.text, text
    assert "KL to the start model" not in page.text
    assert "judged differently" not in page.text
    assert sum(tag == "article" for tag, _ in page.tags) == 32


def test_comparison_estimates_b_minus_a(tmp_path: Path) -> None:
    for name, score in (("a", 1.0), ("b", 3.0)):
        make_run(tmp_path / name)
        held = [
            {
                "prompt": f"p{i}",
                "before": {"text": "old"},
                "after": {"text": "x " * int(score), "score": score + i},
            }
            for i in range(8)
        ]
        write(tmp_path / name / "heldout.jsonl", held)
    text = Page(write_comparison(tmp_path / "a", tmp_path / "b", tmp_path / "c.html").read_text("utf-8")).text
    assert re.search(r"judge score.*?4\.50\s+6\.50\s+\+2\s", text, re.S)
    assert re.search(r"win rate.*?50%\s+100%\s+\+50 pts", text, re.S)


def test_comparison_without_shared_prompts_says_so(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b", finished=False)
    (b / "heldout.jsonl").unlink()
    (b / "config.yaml").write_text("judge: other\n")
    text = Page(write_comparison(a, b, tmp_path / "c.html").read_text("utf-8")).text
    assert "share no held-out prompt (run B has no heldout.jsonl)" in text
    assert "judged differently" in text and "Run B has not finished" in text


def test_comparison_escapes(tmp_path: Path) -> None:
    a, b = attacked_run(tmp_path / "a"), attacked_run(tmp_path / "b")
    (b / "config.yaml").write_text(json.dumps({ATTACKS[1]: ATTACKS[0]}))
    page = Page(write_comparison(a, b, tmp_path / "c.html").read_text("utf-8"))
    assert page.unbalanced == []
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "img", "template"})


def test_unfinished_and_bare_runs_have_a_page(tmp_path: Path) -> None:
    text = Page(write_report(make_run(tmp_path / "half", finished=False)).read_text("utf-8")).text
    assert "has not finished" in text and "Implicit rewards" in text and "Learning rate" in text
    assert re.search(r"\bLoss\s+loss\b", text) and "95% interval" not in text
    bare = tmp_path / "bare"
    bare.mkdir()
    write(bare / "report.json", {})
    assert "Run bare" in Page(write_report(bare).read_text("utf-8")).text
    single = tmp_path / "single"
    single.mkdir()
    rows = [
        {"stage": "s", "step": 1, "loss": 1.0, "odd": None, "text": "x"},
        {"stage": "s", "step": 2, "loss": None},
    ]
    write(single / "metrics.jsonl", rows)
    assert Page(write_report(single).read_text("utf-8")).unbalanced == []


def test_long_runs_stay_light(tmp_path: Path) -> None:
    make_run(tmp_path)
    rows = [{"stage": "a", "step": i, "time": 0.0, "loss": 1 / (i + 1)} for i in range(20_000)]
    write(tmp_path / "metrics.jsonl", rows)
    report = json.loads((tmp_path / "report.json").read_text())
    report["samples"] = report["samples"] * 40
    report["samples"][0]["after"]["text"] = "word " * 100_000
    write(tmp_path / "report.json", report)
    path = write_report(tmp_path)
    text = path.read_text("utf-8")
    assert path.stat().st_size < 1_500_000
    assert "440 more samples" in text and "more characters in the run folder" in text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("report.json", "{", r"report.json: not readable as JSON"),
        ("report.json", "[]", r"report.json: a JSON object is needed"),
        ("report.json", '{"samples": {}}', r"report.json: 'samples' must be a list"),
        ("report.json", '{"comparisons": [3]}', r"report.json: comparisons\[0\] must be a mapping"),
        (
            "heldout.jsonl",
            '{"prompt": 1, "before": {}, "after": {}}\n{"prompt": 1}',
            r"heldout.jsonl:2: 'before'",
        ),
        ("heldout.jsonl", '{"before": {}, "after": {}}', r"heldout.jsonl:1: 'prompt' is missing"),
        ("heldout.jsonl", "nonsense", r"heldout.jsonl:1: not readable"),
        ("config.yaml", "a: [", r"config.yaml:\d+"),
    ],
)
def test_broken_files_are_located(tmp_path: Path, name: str, content: str, message: str) -> None:
    make_run(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(HeedfulError, match=message):
        write_report(tmp_path)


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HeedfulError, match="no such folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(HeedfulError, match="is no run folder"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("value", "unit", "number", "change"),
    [
        (0.5, "share", "50%", "+50 pts"),
        (0.123, "share", "12.3%", "+12.3 pts"),
        (-0.0004, "share", "0%", "0 pts"),
        (3.0, "words", "3", "+3"),
        (-12.345, "", "−12.3", "−12.3"),
        (0.004567, "", "0.00457", "+0.00457"),
        (1234567.0, "", "1\u202f234\u202f567", "+1\u202f234\u202f567"),
        (2e-5, "", "2.00e−05", "+2.00e−05"),
        (0.0, "", "0", "0"),
        (None, "", "–", "–"),
    ],
)
def test_numbers(value: float | None, unit: str, number: str, change: str) -> None:
    assert show_number(value, unit) == number
    assert show_change(value, unit) == change


@pytest.mark.parametrize(
    ("change", "interval", "better", "verdict"),
    [
        (1.0, [0.5, 1.5], "higher", "better"),
        (1.0, [0.5, 1.5], "lower", "worse"),
        (-1.0, [-1.5, -0.5], "lower", "better"),
        (1.0, [-0.5, 1.5], "higher", "unclear"),
        (1.0, [0.5, 1.5], "none", "changed"),
        (0.0, [0.0, 0.0], "higher", "same"),
        (1.0, None, "higher", ""),
        (None, None, "higher", ""),
        (1.0, [float("nan"), 2.0], "higher", ""),
    ],
)
def test_verdicts(change, interval, better: str, verdict: str) -> None:
    row = comparison_row({"name": "x", "change": change, "interval": interval, "better": better})
    assert row["verdict"] == verdict


def test_sample_outcomes() -> None:
    def outcome(before, after) -> str:
        return sample_row({"input": "q", "before": {"score": before}, "after": {"score": after}})["outcome"]

    assert [outcome(0, 1), outcome(1, 0), outcome(1, 1)] == ["win", "loss", "tie"]
    assert outcome(None, 1) == outcome(float("nan"), 1) == "unscored"
    assert clean("a\x00b\ud800") == "a\ufffdb\ufffd"


def test_no_torch_is_imported() -> None:
    code = (
        "import sys, heedful.report; sys.exit('torch' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_heading_names_a_model_without_its_whole_path() -> None:
    assert model_title("smollm2") == "smollm2" and model_title("owner/name") == "owner/name"
    assert model_title("runs/mine/model") == "runs/mine/model"
    assert model_title("/data/people/me/runs/mine/model") == "runs/mine"
    assert model_title("/data/llama") == "data/llama"
