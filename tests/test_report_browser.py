"""The report in headless Chromium: foreign text runs nothing, with and without the content policy."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from example_run import make_run
from test_report import ATTACKS, attacked_run

from heedful.report import write_comparison, write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no chromium, chromium-browser or google-chrome is installed"
)

_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --virtual-time-budget=3000"
)
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
# Runs in the page when the content policy is taken away: what the layout did.
_PROBE = """<script>
const seen = () => [...document.querySelectorAll("article")].filter(a => a.offsetHeight > 0).length;
const all = seen(); document.querySelector("#f-loss").checked = true;
document.documentElement.dataset.probe = JSON.stringify({all, losses: seen(),
  wide: document.documentElement.scrollWidth - document.documentElement.clientWidth});
</script></body>"""


def dump(path: Path, folder: Path, *, size: str = "1200,2400") -> str:
    """The document after scripts had their chance, as HTML."""
    assert BROWSER is not None
    profile = folder / f"profile-{path.stem}"
    command = [BROWSER, *_FLAGS.split(), f"--user-data-dir={profile}", f"--window-size={size}", "--dump-dom"]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, timeout=180, check=False)
    text = done.stdout.decode("utf-8", "replace")
    assert "</html>" in text, done.stderr.decode("utf-8", "replace")[-2000:]
    return text


def without_policy(path: Path, probe: str = "</body>") -> Path:
    """A copy whose only wall is escaping."""
    html, count = _POLICY.subn("", path.read_text("utf-8"))
    assert count == 1
    copy = path.with_name(f"open-{path.name}")
    copy.write_text(html.replace("</body>", probe), "utf-8")
    return copy


def test_the_browser_would_run_a_script(tmp_path: Path) -> None:
    """Else the tests below would pass whatever the page does."""
    page = tmp_path / "control.html"
    page.write_text(f"<!doctype html><html><title>calm</title><body><p>{ATTACKS[0]}</p></body></html>")
    assert "<title>pwned</title>" in dump(page, tmp_path)


@pytest.mark.parametrize("policy", [True, False])
def test_foreign_text_is_inert(tmp_path: Path, policy: bool) -> None:
    run = attacked_run(tmp_path / "run")
    other = attacked_run(tmp_path / "other")
    for path in (write_report(run), write_comparison(run, other, tmp_path / "compare.html")):
        html = dump(path if policy else without_policy(path), tmp_path)
        title = re.search(r"(?s)<title>(.*?)</title>", html)
        assert title and title.group(1) != "pwned"
        assert not re.search(r"<(script|img|template|iframe)[\s>]", html)
        assert "&lt;script&gt;document.title='pwned'" in html


def test_policy_stops_what_escaping_would_miss(tmp_path: Path) -> None:
    """The second wall alone: an unescaped script put into the finished page does not run."""
    path = write_report(make_run(tmp_path / "run"))
    attack = "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\"></body>"
    path.write_text(path.read_text("utf-8").replace("</body>", attack), "utf-8")
    assert "<title>SmolLM2 learns to answer briefly</title>" in dump(path, tmp_path)


@pytest.mark.parametrize("width", [1200, 500])
def test_filters_work_and_nothing_overflows(tmp_path: Path, width: int) -> None:
    run = make_run(tmp_path / "run")
    html = dump(without_policy(write_report(run), _PROBE), tmp_path, size=f"{width},2400")
    probe = re.search(r'data-probe="([^"]*)"', html)
    assert probe, "the probe did not run"
    values = dict(re.findall(r"(\w+)&quot;:(-?\d+)", probe.group(1)))
    assert values["all"] == "16" and 0 < int(values["losses"]) < 16
    assert int(values["wide"]) <= 0
