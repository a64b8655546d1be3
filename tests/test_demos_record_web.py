"""The page of `heedful demos record --web`: routes and refusals, held keys, marks; and in headless Chromium."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from heedful.data.episodes import open_episodes
from heedful.errors import HeedfulError
from heedful.recipes.demos_record import Record, record
from heedful.recipes.demos_record_session import Session
from heedful.serve.guard import CSRF, Guard, names_of
from heedful.serve.record_app import make_app
from heedful.serve.record_page import RecordPage

HERE = "http://127.0.0.1:8765"
TOY = f"{Path(__file__).with_name('toy_robot.py')}:robot"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync --disable-quic"
)


@contextmanager
def browsing(folder: Path, **given: Any) -> Iterator[tuple[TestClient, RecordPage, Callable[..., Any]]]:
    """A browser without a screen, its page, and what the page sends."""
    page = RecordPage(Record(str(folder), robot=TOY, **given))
    guard = Guard(make_app(page), names=names_of("127.0.0.1", (), ""))
    with TestClient(guard, base_url=HERE, raise_server_exceptions=False) as browser:

        def post(path: str, body: Any, **headers: str) -> Any:
            own = {"origin": HERE, CSRF: guard.csrf, "content-type": "application/json", **headers}
            return browser.post(path, content=json.dumps(body), headers=own)

        until(lambda: browser.get("/api/state").json()["connected"])
        yield browser, page, post


def until(true: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


SETUP = {
    "collector": "Ada Lovelace",
    "building": "Engine house",
    "ticked": [2, 4],
    "typed": "push it; pull  it;",
}


def test_an_episode_on_the_page(tmp_path: Path) -> None:
    with browsing(tmp_path / "s") as (browser, page, post):
        state = browser.get("/api/state").json()
        assert state["phase"] == "setup" and len(state["kinds"]) == 14 and len(state["missing"]) == 4
        assert "say first" in post("/api/begin", {"practice": False}).json()["error"]
        assert post("/api/setup", SETUP).json()["typed"] == "push it; pull it"
        state = post("/api/scene", {}).json()
        assert state["phase"] == "ready" and state["prompt"]["task"] and state["ticked"] == [2, 4]
        assert browser.get(f"/api/picture?camera={state['cameras'][0]}").content[:2] == b"\xff\xd8"
        assert post("/api/begin", {"practice": False}).json()["phase"] == "recording"
        assert "already" in post("/api/begin", {"practice": False}).json()["error"]
        assert "end it first" in post("/api/scene", {}).json()["error"]
        for _ in range(8):
            assert post("/api/keys", {"keys": ["w", "c"]}).json() == {}
            time.sleep(0.05)
        assert page.robot.at[0] > 0 and page.robot.at[6] > 0  # type: ignore[attr-defined]
        post("/api/keys", {"keys": []})
        until(lambda: page.robot.stopped)  # type: ignore[attr-defined]
        # Nothing but silence, as from a tab that was closed, stops it too.
        post("/api/keys", {"keys": ["w"]})
        until(lambda: not page.robot.stopped)  # type: ignore[attr-defined]
        until(lambda: page.robot.stopped, 2)  # type: ignore[attr-defined]
        state = post("/api/end", {"mark": "success"}).json()
        assert state["phase"] == "ready" and state["successes"] == state["saved"] == 1
        name = state["episodes"][0]["name"]
        state = post("/api/mark", {"name": name, "success": False}).json()
        assert state["episodes"][0]["success"] is False
        state = post("/api/describe", {"name": name, "texts": ["push it on", " "]}).json()
        assert state["episodes"][0]["language"] == "push it on"
        assert post("/api/begin", {"practice": True}).json()["take"]["practice"] is True
        assert post("/api/end", {"mark": "success"}).json()["saved"] == 1
    one = Session(tmp_path / "s").episodes()[0]
    data = open_episodes(one.folder)
    skipped = data.columns(0)["skip_action"]
    assert (
        data.episode(0).tasks == ("push it on",) and skipped.any() and not skipped.all() and not one.success
    )


def test_refusals_of_the_page(tmp_path: Path) -> None:
    with browsing(tmp_path / "s") as (browser, _, post):
        wrong = {
            "/api/setup": {**SETUP, "ticked": [14]},
            "/api/end": {"mark": ""},
            "/api/mark": {"name": "../../etc", "success": True},
            "/api/describe": {"name": "x", "texts": [1]},
        }
        for path, body in wrong.items():
            assert post(path, body).status_code == 422, path
        assert post("/api/setup", {**SETUP, "ticked": [True]}).status_code == 422
        assert post("/api/begin", {"practice": 1}).status_code == 400
        assert post("/api/keys", {"keys": ["w"], "more": 1}).status_code == 400
        assert post("/api/begin", {"practice": True}, **{CSRF: "guess"}).status_code == 403
        assert post("/api/begin", {"practice": True}, origin="http://evil.example").status_code == 403
        assert browser.get("/api/state", headers={"host": "evil.example"}).status_code == 421
        assert browser.get("/api/picture?camera=nose").status_code == 422
        assert browser.get("/api/state").json()["saved"] == 0


def test_a_camera_that_dies_is_told_and_the_page_goes_on(tmp_path: Path) -> None:
    with browsing(tmp_path / "s") as (browser, page, post):
        post("/api/setup", SETUP)
        post("/api/scene", {})
        page.robot.broken = "none"  # type: ignore[attr-defined]
        assert "gives no picture" in post("/api/begin", {"practice": False}).json()["error"]
        page.robot.broken = ""  # type: ignore[attr-defined]
        post("/api/begin", {"practice": False})
        page.robot.broken = "none"  # type: ignore[attr-defined]
        until(lambda: "thrown away" in browser.get("/api/state").json()["problem"])
        assert browser.get("/api/state").json()["phase"] == "ready"
        page.robot.broken = ""  # type: ignore[attr-defined]
        assert post("/api/begin", {"practice": False}).json()["phase"] == "recording"


@pytest.mark.parametrize("ending", ["success", "failure", "discard", "camera", "driver", "stop"])
def test_the_robot_stands_still_however_an_episode_on_the_page_ends(tmp_path: Path, ending: str) -> None:
    with browsing(tmp_path / "s", own_tasks=("push it",)) as (browser, page, post):
        robot: Any = page.robot
        page.keys.hold = 1000.0  # else the deadman grip would stop it too
        post("/api/setup", SETUP)
        post("/api/scene", {})
        post("/api/begin", {"practice": False})
        post("/api/keys", {"keys": ["w"]})
        until(lambda: not robot.stopped)
        if ending == "stop":
            page.stop()
            assert robot.stopped and not robot.connected
            return
        if ending == "camera":
            robot.broken = "none"
            until(lambda: "thrown away" in browser.get("/api/state").json()["problem"])
        elif ending == "driver":
            robot.at = None  # the next sum is a TypeError
            until(lambda: "error of its own" in browser.get("/api/state").json()["problem"])
        else:
            assert post("/api/end", {"mark": ending}).status_code == 200
        assert robot.stopped and robot.connected
        robot.broken = ""
        assert post("/api/begin", {"practice": True}).json()["phase"] == "recording"


def test_the_page_keeps_other_recorders_out(tmp_path: Path) -> None:
    other = Record(str(tmp_path / "s"), robot=TOY, teleop="scripted", own_tasks=("push it",))
    with browsing(tmp_path / "s") as (_, _, post):
        post("/api/setup", SETUP)
        with pytest.raises(HeedfulError, match="is in use by process"):
            record(other)
    assert record(other) == 0


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome is installed")
def test_in_a_browser(tmp_path: Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    command = [
        sys.executable,
        "-m",
        "heedful",
        "demos",
        "record",
        str(tmp_path / "s"),
        "--robot",
        TOY,
        "--web",
        "--port",
        "0",
    ]
    server = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert server.stdout is not None
    try:
        lines = []
        for line in server.stdout:
            lines.append(line)
            if line.startswith("open "):
                break
        else:
            raise AssertionError("".join(lines))
        with sync_playwright() as play:
            opened = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
            page = opened.new_page(viewport={"width": 1200, "height": 900})
            page.set_default_timeout(30_000)
            said: list[str] = []
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto(lines[-1].split()[1])
            page.fill("#collector", "Ada Lovelace")
            page.fill("#building", "Engine house")
            page.fill("#typed", "<img src=x onerror=alert(1)>")
            page.click("#form button")
            page.click("#scene")
            expect(page.locator("#task")).to_contain_text("<img src=x")
            page.click("#begin")
            expect(page.locator("#during")).to_be_visible()
            page.keyboard.down("w")
            expect(page.locator("#grip")).to_have_text("The grip is held.")
            page.wait_for_timeout(600)
            page.keyboard.up("w")
            until(lambda: page.evaluate("document.querySelector('#cameras img').naturalWidth") > 10)
            page.keyboard.press("y")
            expect(page.locator("#kept li")).to_have_count(1)
            page.click("#kept li .line button")
            expect(page.locator("#kept .verdict")).to_have_text("failure")
            page.reload()
            expect(page.locator("#kept li")).to_have_count(1)
            assert page.input_value("#collector") == "Ada Lovelace" and not said
            opened.close()
    finally:
        server.kill()
        server.wait()
    one = Session(tmp_path / "s").episodes()[0]
    action = open_episodes(one.folder).columns(0)["action"]
    assert not one.success and (action[:, 0] > 0).any() and (action[:, 1:] == 0).all()
