"""The page of `heedful correct run --person web`: routes and refusals, speech, and a person in headless Chromium."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from talking import ExpertPair

pytest.importorskip("mujoco")

from heedful.cli import main
from heedful.data.corrections import CorrectionLog
from heedful.data.episodes import open_episodes
from heedful.errors import HeedfulError
from heedful.recipes import correct_models
from heedful.recipes.correct_run import Options
from heedful.recipes.correct_session import open_session
from heedful.serve import correct_app
from heedful.serve.command import Page
from heedful.serve.correct_app import make_app
from heedful.serve.correct_page import CorrectPage
from heedful.serve.guard import CSRF, Guard, names_of
from heedful.serve.speech import Hear, recogniser

HERE = "http://127.0.0.1:8765"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync --disable-quic "
    "--use-fake-ui-for-media-stream --use-fake-device-for-media-stream"
)


@pytest.fixture(autouse=True)
def pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correct_models, "open_talker", lambda run, device="cpu": ExpertPair())


@contextmanager
def guarded(folder: Path, hear: Hear | None = None, **given: Any) -> Iterator[tuple[Guard, CorrectPage]]:
    with open_session(Options("pair", str(folder), person="web", **{"episodes": 0, **given})) as session:
        page = CorrectPage(session, hear)
        guard = Guard(make_app(page), names=names_of("127.0.0.1", (), ""), microphone=hear is not None)
        yield guard, page


@contextmanager
def browsing(
    folder: Path, hear: Hear | None = None, **given: Any
) -> Iterator[tuple[TestClient, Callable[..., Any]]]:
    """A browser without a screen, and what the page sends."""
    with (
        guarded(folder, hear, **given) as (guard, _),
        TestClient(guard, base_url=HERE, raise_server_exceptions=False) as browser,
    ):

        def post(path: str, body: Any, **headers: str) -> Any:
            own = {"origin": HERE, CSRF: guard.csrf, "content-type": "application/json", **headers}
            content = body if isinstance(body, bytes) else json.dumps(body)
            return browser.post(path, content=content, headers=own)

        until(lambda: browser.get("/api/state").json()["connected"])
        yield browser, post


def test_serve_opens_this_page_for_a_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def serve(make: Callable[[], Page], *where: Any) -> int:
        asked.extend([make(), *where])
        return 0

    monkeypatch.setattr(correct_app, "serve", serve)
    run = tmp_path / "run"
    for folder in (run, run / "model"):  # a run, and the model of one, as `correct run` takes them
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "talker.json").write_text("{}")
        asked.clear()
        out = tmp_path / f"of-{folder.name}"
        assert main(["serve", str(folder), "--out", str(out), "--port", "0", "--allow-host", "robot"]) == 0
        page, *where = asked
        assert page.told == f"{out}: 0 episodes" and where == ["127.0.0.1", 0, "", ("robot",)]


def until(true: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_episode_on_the_page(tmp_path: Path) -> None:
    with browsing(tmp_path / "d") as (browser, post):
        state = browser.get("/api/state").json()
        assert state["phase"] == "ready" and state["rows"] == [] and len(state["commands"]) == 25
        assert (
            "no episode is running" in post("/api/say", {"words": "wait", "source": "typed"}).json()["error"]
        )
        assert post("/api/begin", {}).json()["phase"] == "running"
        until(lambda: browser.get("/api/state").json()["command"] == "open the bin")
        state = post("/api/say", {"words": "go higher", "source": "typed"}).json()
        # the answer comes when it counts: the row is on the disk, and the robot follows
        assert [(r.words, r.status) for r in CorrectionLog(tmp_path / "d" / "corrections.jsonl").rows()] == [
            ("go higher", "accepted")
        ]
        assert "go higher" in state["said"] and state["rows"][0]["overridden"] == "open the bin"
        until(lambda: browser.get("/api/state").json()["by"] == "person")
        state = browser.get("/api/state").json()
        assert state["command"] == "go higher" and 0 < state["held"]["left"] <= 1 and state["undoable"]
        assert state["candidates"][0] == ["open the bin", 0.7] and state["stages"][0] == ["open", False]
        assert browser.get(f"/api/picture?camera={state['cameras'][0]}").content[:2] == b"\xff\xd8"
        assert "not taken" in post("/api/say", {"words": "sing", "source": "spoken"}).json()["said"]
        assert "taken back" in post("/api/say", {"words": "undo", "source": "typed"}).json()["said"]
        assert "already" in post("/api/begin", {}).json()["error"]
        ended = post("/api/end", {"mark": "end"}).json()
        assert ended["phase"] == "ready" and ended["done"] == 1 and [r["status"] for r in ended["rows"]] == [
            "undone", "refused"
        ]  # fmt: skip
        assert [person for _, _, person in ended["parts"]][:2] == [False, True]
        post("/api/begin", {})
        assert post("/api/end", {"mark": "drop"}).json()["said"] == "this episode was not kept"
    assert len(open_episodes(tmp_path / "d")) == 1
    rows = CorrectionLog(tmp_path / "d" / "corrections.jsonl").rows()
    assert [row.source for row in rows] == ["typed", "spoken"]


def test_refusals_of_the_page(tmp_path: Path) -> None:
    with browsing(tmp_path / "d", episodes=1) as (browser, post):
        assert post("/api/end", {"mark": "end"}).status_code == 422
        post("/api/begin", {})
        assert post("/api/say", {"words": " ", "source": "typed"}).status_code == 422
        assert post("/api/say", {"words": "wait", "source": "dreamt"}).status_code == 422
        assert post("/api/say", {"words": "wait"}).status_code == 400
        assert post("/api/end", {"mark": "never"}).status_code == 422
        assert "nothing here understands speech" in post("/api/speech", b"12").json()["error"]
        assert post("/api/say", {"words": "wait", "source": "typed"}, **{CSRF: "guess"}).status_code == 403
        assert (
            post("/api/say", {"words": "wait", "source": "typed"}, origin="http://evil.example").status_code
            == 403
        )
        assert browser.get("/api/picture?camera=nose").status_code == 422
        # half a Unicode character, and what a browser would take for markup
        sent = post("/api/say", {"words": "\ud800<img src=x>", "source": "typed"})
        assert sent.status_code == 200 and sent.json()["rows"][0]["status"] == "refused"
        assert "microphone=()" in browser.get("/").headers["permissions-policy"]
        post("/api/end", {"mark": "end"})
        assert "all episodes that were wanted" in post("/api/begin", {}).json()["error"]


def test_a_server_that_stops_keeps_no_half_episode(tmp_path: Path) -> None:
    with browsing(tmp_path / "d") as (_, post):
        post("/api/begin", {})
        post("/api/say", {"words": "wait", "source": "typed"})
    assert len(open_episodes(tmp_path / "d")) == 0
    assert [row.status for row in CorrectionLog(tmp_path / "d" / "corrections.jsonl").rows()] == ["lost"]


def test_an_error_of_the_robot_is_told_and_the_page_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with browsing(tmp_path / "d") as (browser, post):
        for error, said in ((HeedfulError("the cable is out"), "cable"), (KeyError("x"), "error of its own")):

            def fail(*given: Any, error: Exception = error) -> None:
                raise error

            with monkeypatch.context() as patch:
                patch.setattr(ExpertPair, "act", fail)
                post("/api/begin", {})
                until(lambda said=said: said in browser.get("/api/state").json()["problem"])
            assert browser.get("/api/state").json()["phase"] == "ready"
        assert post("/api/begin", {}).json()["phase"] == "running"
        assert post("/api/end", {"mark": "end"}).json()["problem"] == ""


# ---- speech


def test_sound_is_heard_and_said_as_spoken(tmp_path: Path) -> None:
    got: list[bytes] = []

    def hear(sound: bytes) -> str:
        got.append(sound)
        return "go lower"

    with browsing(tmp_path / "d", hear) as (browser, post):
        assert "microphone=(self)" in browser.get("/").headers["permissions-policy"]
        assert browser.get("/api/state").json()["speech"] is True
        assert post("/api/speech", b"\x01\x00" * 800).json() == {"words": "go lower"} and len(got[0]) == 1600
        assert post("/api/speech", b"\x00" * 400_000).status_code == 413


def test_a_recogniser_without_sphinx_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pocketsphinx", None)
    assert recogniser(["go higher"]) is None


def test_sphinx_hears_what_a_synthesiser_says() -> None:
    pytest.importorskip("pocketsphinx", reason="the extra `speech` is not installed")
    from heedful.data.pack_table.commands import WORDINGS

    hear = recogniser(list(WORDINGS))
    assert hear is not None and hear(b"") == "" and hear(bytes(16_000)) == ""
    if not (shutil.which("espeak-ng") and shutil.which("ffmpeg")):
        pytest.skip("espeak-ng and ffmpeg are needed to make speech")
    said = ["grab the red block", "take the blue block", "move left a bit", "close your hand"]
    heard = [hear(spoken(text)) for text in said]
    assert sum(a == b for a, b in zip(said, heard, strict=True)) >= 3, heard


def spoken(text: str) -> bytes:
    """A text as sound for `speech.Hear`."""
    import subprocess

    voice = subprocess.run(
        ["espeak-ng", "-v", "en-us", "-s", "140", "--stdout", text], capture_output=True, check=True
    )
    as_samples = ["ffmpeg", "-loglevel", "error", "-i", "-", "-f", "s16le", "-ar", "16000", "-ac", "1", "-"]
    return subprocess.run(as_samples, input=voice.stdout, capture_output=True, check=True).stdout


# ---- in a browser


@contextmanager
def serving(folder: Path, hear: Hear | None = None) -> Iterator[str]:
    """The page at an address, from a thread."""
    import uvicorn

    with guarded(folder, hear) as (guard, _), socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        server = uvicorn.Server(uvicorn.Config(guard, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome is installed")
def test_in_a_browser(tmp_path: Path) -> None:
    """Type a correction, see the command change, reload without loss; then take it back, and speak one."""
    from playwright.sync_api import expect, sync_playwright

    def hear(sound: bytes) -> str:
        return "go lower" if len(sound) > 1000 else ""

    with serving(tmp_path / "d", hear) as address, sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        page = opened.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(30_000)
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(address)
        page.click("#begin")
        expect(page.locator("#command")).to_have_text("open the bin")
        page.fill("#words", "go up a little")
        page.keyboard.press("Enter")
        expect(page.locator("#command")).to_have_text("go higher", timeout=3000)
        expect(page.locator("#who")).to_contain_text("You said so")
        expect(page.locator("#rows li")).to_have_count(1)
        until(lambda: page.evaluate("document.querySelector('#cameras img').naturalWidth") == 32)
        page.fill("#words", "<img src=x onerror=alert(1)>")
        page.keyboard.press("Enter")
        expect(page.locator("#rows .refused .words")).to_have_text("<img src=x onerror=alert(1)>")
        page.fill("#words", "half a sent")
        page.reload()
        expect(page.locator("#rows li")).to_have_count(2)
        expect(page.locator("#rows .accepted .words")).to_have_text("go up a little")
        assert page.input_value("#words") == "half a sent"
        expect(page.locator("#candidates li")).to_have_count(3)
        page.click("#candidates li:nth-child(3) button")
        expect(page.locator("#command")).to_have_text("wait")
        page.click("#undo")
        expect(page.locator("#rows .undone .words")).to_have_text("wait")
        page.dispatch_event("#speak", "pointerdown")
        page.wait_for_timeout(700)
        page.dispatch_event("#speak", "pointerup")
        expect(page.locator("#rows .words").first).to_have_text("“go lower”")
        page.click("[data-mark=end]")
        expect(page.locator("#command")).to_have_text("Ready")
        expect(page.locator("#rows li")).to_have_count(4)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth") and not said
        opened.close()
    rows = CorrectionLog(tmp_path / "d" / "corrections.jsonl").rows()
    assert [(r.status, r.source) for r in rows] == [
        ("accepted", "typed"), ("refused", "typed"), ("undone", "typed"), ("accepted", "spoken")
    ]  # fmt: skip
    assert open_episodes(tmp_path / "d").episode(0).meta["corrected_by"] == "web"
