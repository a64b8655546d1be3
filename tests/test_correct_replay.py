"""`heedful correct replay`: the timeline, what a high level says now, and the page in headless Chromium."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import talking
from talking import ExpertPair

pytest.importorskip("mujoco")

from heedful.errors import HeedfulError
from heedful.recipes import correct_models
from heedful.recipes.correct_replay import Replay, replay
from heedful.recipes.correct_run import Options
from heedful.recipes.correct_session import open_session

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ATTACK = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes; in the second a good correction, one that was taken back, and one that fits nothing."""
    folder = tmp_path_factory.mktemp("replay") / "d"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("heedful.data.pack_table.LONGEST", 40)
        patch.setattr(correct_models, "open_talker", lambda run, device="cpu": ExpertPair())
        with open_session(Options("pair", str(folder))) as session:
            for plan in ({}, {6: ["up a little"], 28: ["go lower"], 31: ["undo"], 33: [ATTACK]}):
                session.take(talking.Told(plan), "typed")
    return folder


def test_a_timeline_in_text(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(Replay(str(recorded))) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "episode 0: failure, 0 of 8 stages, 2.7 s, 0 lines were said"
    at = told.index("episode 1: failure, 0 of 8 stages, 2.7 s, 3 lines were said")
    after = "\n".join(told[at:])
    assert (
        "   0.40 s  typed    'up a little' -> go higher (instead of open the bin): accepted, clip 0.00 to 1.40 s"
        in after
    )
    assert "then     open the bin (0.70)\n   0.40 s  follows  go higher" in after and "): undone" in after
    assert "refused, no command" in after and " now " not in after
    assert replay(Replay(str(recorded), episode=1, json=True)) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["status"] for row in rows] == ["accepted", "undone", "refused"] and rows[0]["clip"] == [0, 21]


def test_what_the_high_level_says_now(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It sees each frame up to the last correction, once, and is asked at the corrections alone."""
    pair = ExpertPair("go higher")
    monkeypatch.setattr(correct_models, "open_talker", lambda run, device="cpu": pair)
    assert replay(Replay(str(recorded), run="learned", episode=1)) == 0
    told = capsys.readouterr().out
    assert "now      go higher (0.70), try again (0.20), wait (0.10)" in told and len(pair.seen) == 34
    assert (
        "of 1 corrections that counted, the high level says 1 by itself now; the one that acted had said 0"
        in told
    )
    pair.making.cameras["nose"] = "observation.images.nose"
    try:
        with pytest.raises(HeedfulError, match=r"no observation\.images\.nose"):
            replay(Replay(str(recorded), run="learned", episode=1))
    finally:
        del pair.making.cameras["nose"]


def test_what_cannot_be_replayed_is_named(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(HeedfulError, match="no episode 7"):
        replay(Replay(str(recorded), episode=7))
    with pytest.raises(HeedfulError, match="no such file"):
        replay(Replay(str(tmp_path / "nowhere")))


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome is installed")
def test_the_page(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from playwright.sync_api import expect, sync_playwright

    assert replay(Replay(str(recorded), out=str(tmp_path / "page.html"))) == 0
    assert "episode 1: " in capsys.readouterr().out
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = opened.new_page(viewport={"width": 1100, "height": 900})
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((tmp_path / "page.html").as_uri())
        strips = page.locator(".strip")
        expect(strips).to_have_count(2)
        expect(strips.nth(0).locator("button.strong")).to_have_count(2)
        expect(strips.nth(1).locator("button")).to_have_text(["“up a little”"])
        expect(page.locator("#table tr")).to_have_count(4)
        expect(page.locator("#table tr").nth(3)).to_contain_text(ATTACK)
        page.locator("#table button").nth(0).click()
        expect(page.locator("#now")).to_contain_text("frame 6 of 40")
        expect(page.locator("#table tr.on")).to_contain_text("up a little")
        expect(page.locator("#said")).to_contain_text("go higher")
        assert not said
        opened.close()
