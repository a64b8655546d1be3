"""The page of `heedful demos view` in headless Chromium: what is on it, in step, and inert."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from episode_sets import INFO, picture
from playwright.sync_api import Page, sync_playwright

from heedful.data.episodes import LANGUAGE_FEATURES, open_episodes
from heedful.data.episodes.write import EpisodeWriter
from heedful.recipes.demos_view import write_view

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome is installed"
)
TOP = "observation.images.top"
HOSTILE = "</script><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
FLAGS = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-quic"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page of an episode of 45 frames; foreign text tries to run."""
    folder = tmp_path_factory.mktemp("view")
    info = replace(
        INFO, features={"action": INFO.features["action"], TOP: INFO.features[TOP], **LANGUAGE_FEATURES}
    )
    with EpisodeWriter(folder / "set", info) as writer:
        for t in range(45):
            writer.add_frame({"action": np.sin([t / 9, t / 5, 1, np.nan]), TOP: picture(0, t)})
            if t == 30:
                writer.say("no, higher")
        writer.say("reach", "subtask", timestamp=0)
        writer.say("grasp", "subtask", timestamp=2)
        writer.save_episode(HOSTILE, {"note": HOSTILE})
    place = write_view(open_episodes(folder / "set"), 0, folder / "page.html")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        opened = browser.new_page(viewport={"width": 1000, "height": 900})
        opened.set_default_timeout(20_000)
        opened.said = []  # type: ignore[attr-defined]
        opened.on("console", lambda message: opened.said.append(message.text))  # type: ignore[attr-defined]
        opened.on("pageerror", lambda error: opened.said.append(str(error)))  # type: ignore[attr-defined]
        opened.goto(place.as_uri())
        wait(opened, "document.querySelector('video').readyState >= 2")
        yield opened
        browser.close()


def wait(page: Page, expression: str) -> None:
    """Until it is true; the page's own policy forbids the evaluation that Playwright's waiting rests on."""
    for _ in range(400):
        if page.evaluate(expression):
            return
        time.sleep(0.05)
    raise AssertionError(f"never true: {expression}")


def at(page: Page) -> tuple[int, float, str]:
    """(frame of the slider, seconds of the video, what is said)."""
    return page.evaluate(
        "[+document.getElementById('at').value, document.querySelector('video').currentTime, "
        "document.getElementById('said').textContent]"
    )


def seek(page: Page, frame: int) -> None:
    page.evaluate(
        "frame => { const at = document.getElementById('at'); at.value = frame; "
        "at.dispatchEvent(new Event('input')); }",
        frame,
    )
    wait(page, "!document.querySelector('video').seeking")


def test_foreign_text_stays_text(page: Page) -> None:
    assert page.title() == "set, episode 0" and page.said == []  # type: ignore[attr-defined]
    assert page.locator("img").count() == 0 and page.locator("#tasks").inner_text() == HOSTILE
    assert page.locator("#meta td").last.inner_text() == HOSTILE


@pytest.mark.parametrize(
    ("frame", "said"), [(3, "reach"), (31, "no, higher · grasp"), (44, "no, higher · grasp")]
)
def test_video_signals_and_language_are_in_step(page: Page, frame: int, said: str) -> None:
    seek(page, frame)
    shown, seconds, words = at(page)
    assert shown == frame and seconds == pytest.approx((frame + 0.5) / 15, abs=1e-3)
    assert sorted(words.split(" · ")) == sorted(said.split(" · "))
    x = float(page.locator("line.cursor").first.get_attribute("x1") or -1)
    assert x == pytest.approx(1000 * frame / 44, abs=0.1)
    # The pixels themselves: the video shows this very frame.
    blue = page.evaluate(
        "() => { const v = document.querySelector('video'), c = document.createElement('canvas');"
        "c.width = c.height = 8;"
        "const g = c.getContext('2d'); g.drawImage(v, 0, 0, 8, 8); const d = g.getImageData(0, 0, 8, 8).data;"
        "let s = 0; for (let k = 2; k < d.length; k += 4) s += d[k]; return s / 64; }"
    )
    errors = [abs(blue - picture(0, t)[..., 2].mean()) for t in range(max(0, frame - 3), min(45, frame + 4))]
    assert int(np.argmin(errors)) == min(3, frame)


def test_it_plays_and_stops(page: Page) -> None:
    seek(page, 0)
    page.locator("#play").click()
    wait(page, "+document.getElementById('at').value >= 6")
    page.locator("#play").click()
    shown, seconds, _ = at(page)
    assert page.locator("#play").inner_text() == "Play" and shown >= 6
    assert seconds == pytest.approx((shown + 0.5) / 15, abs=1e-3)
    page.locator("#language button").nth(1).click()
    assert at(page)[0] == 30
