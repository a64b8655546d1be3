"""`heedful serve` in headless Chromium: clicks, undo, reload, export, a killed server, several tabs, a phone, keys."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from serve_run import ATTACKS, events, fit_run, poison, pool_of, serving

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome is installed"
)
FLAGS = (
    "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --disable-quic"
)
READY = "main[aria-busy=false]"
WEIGHTS = "[...document.querySelectorAll('#bars i')].map(bar => Number(bar.dataset.weight))"
ORDER = "[...document.querySelectorAll('#ranked li')].map(item => Number(item.dataset.number))"
WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"

FOCUS = """(() => {
  const at = document.activeElement, look = getComputedStyle(at);
  return [at.id || at.className, look.outlineStyle !== "none" && parseFloat(look.outlineWidth) > 1];
})()"""
UNNAMED = """[...document.querySelectorAll("button, select, a, [role]")]
  .filter(e => !e.textContent.trim() && !e.ariaLabel && !e.labels?.length && !e.getAttribute("aria-labelledby"))
  .map(e => e.outerHTML).filter(html => !/role=.(alert|status)/.test(html))"""


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit_run(tmp_path_factory.mktemp("fitted"))


@pytest.fixture
def run(fitted: Path, tmp_path: Path) -> Path:
    """A copy of the fitted run."""
    return Path(shutil.copytree(fitted, tmp_path / "run"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield opened
        opened.close()


def open_page(browser: Browser, address: str, **options: Any) -> Page:
    """The page in a profile of its own, 1100 pixels wide unless told otherwise; what its console says is kept."""
    options = {"viewport": {"width": 1100, "height": 820}, "reduced_motion": "reduce", **options}
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(20_000)
    page.said = []  # type: ignore[attr-defined]
    page.asked = []  # type: ignore[attr-defined]
    page.on("console", lambda message: page.said.append(message.text))  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.said.append(str(error)))  # type: ignore[attr-defined]
    page.on("request", lambda request: page.asked.append(request.url))  # type: ignore[attr-defined]
    page.goto(address)
    page.wait_for_selector(READY)
    return page


def seen(page: Page, count: int) -> None:
    """Wait until the page shows so many answers, and would take a click."""
    expect(page.locator("#count")).to_have_text(re.compile(f"^{count} answered"), timeout=20_000)
    page.wait_for_selector(READY)
    page.wait_for_timeout(260)


def shown(page: Page) -> dict[str, Any]:
    """What the person sees, apart from the last click, whose expected chance is not kept over a restart."""
    texts = {name: page.inner_text(f"#{name}") for name in ("prompt", "first", "second", "effective", "why")}
    return {**texts, "weights": page.evaluate(WEIGHTS), "order": page.evaluate(ORDER)}


def shorter(page: Page) -> int:
    """1 where the first answer is the shorter one, 2 otherwise."""
    return 1 if len(page.inner_text("#first")) < len(page.inner_text("#second")) else 2


def test_five_clicks_undo_reload_export_and_a_killed_server(browser: Browser, run: Path) -> None:
    with serving(run) as (server, address):
        page = open_page(browser, address)
        states = [shown(page)]
        assert (
            states[0]["effective"] == "20.0" and page.is_disabled("#undo") and not page.is_visible("#export")
        )
        assert "There are no labels yet" in states[0]["why"]
        for count in range(1, 6):
            which, asked = shorter(page), page.inner_text("#prompt")
            if count == 1:
                page.click(f".pick-it[data-label='{2 - which}']")
            elif count == 2:
                page.click(f".choice[data-label='{2 - which}'] .name")
            elif count == 3:
                page.keyboard.press("ArrowLeft" if which == 1 else "ArrowRight")
            else:
                page.keyboard.press(str(which))
            seen(page, count)
            states.append(shown(page))
            assert states[-1]["weights"] != states[-2]["weights"] and states[-1]["prompt"] != asked
        said = [(event["id"], event["label"]) for event in events(run)]
        rows = {row["id"]: row for row in pool_of(run)}
        assert [label for _, label in said] == [
            int(len(rows[id]["first"]) < len(rows[id]["second"])) for id, _ in said
        ]
        assert [rows[id]["prompt"] for id, _ in said] == [state["prompt"] for state in states[:5]]
        assert abs(sum(states[5]["weights"]) - 1) < 1e-9
        expected = 1 / sum(w * w for w in states[5]["weights"])
        assert float(states[5]["effective"]) == pytest.approx(expected, abs=0.051) and expected < 19
        assert any(state["order"] != states[0]["order"] for state in states), "the examples are ranked anew"
        assert "the reward had put that at" in page.inner_text("#last")

        page.keyboard.press("u")
        seen(page, 4)
        assert shown(page) == states[4]
        page.reload()
        seen(page, 4)
        assert shown(page) == states[4], "after a reload"

        with page.expect_download() as download:
            page.click("#export")
        assert download.value.suggested_filename == "preferences.jsonl"
        exported = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
        assert [row["id"] for row in exported] == [id for id, _ in said[:4]]

        port = int(re.findall(r":(\d+)/", address)[0])
        server.send_signal(signal.SIGKILL)
        server.wait()
        page.keyboard.press(str(shorter(page)))
        page.wait_for_selector("#alert:not([hidden])")
        assert "The server does not answer" in page.inner_text("#alert")
        assert len(events(run)) == 6, "four answers, the fifth, and that it was taken back"
        with serving(run, port=port):
            expect(page.locator("#alert")).to_contain_text("The server is back", timeout=20_000)
            assert shown(page) == states[4], "nothing is lost, and what was not confirmed is asked again"
            page.keyboard.press(str(shorter(page)))
            seen(page, 5)
            assert shown(page) == states[5] and not page.is_visible("#alert")
        own = {url for url in page.asked if not url.startswith(address)}  # type: ignore[attr-defined]
        assert own == set(), "nothing is asked of anybody else"
        page.context.close()


def test_two_tabs_do_not_count_twice(browser: Browser, run: Path) -> None:
    with serving(run) as (_, address):
        one = open_page(browser, address)
        other = one.context.new_page()
        other.goto(address)
        other.wait_for_selector(READY)
        one.keyboard.press("1")
        seen(one, 1)
        other.keyboard.press("2")
        other.wait_for_selector("#alert:not([hidden])")
        assert "Nothing was counted twice" in other.inner_text("#alert")
        assert shown(other) == shown(one) and len(events(run)) == 1
        seen(other, 1)  # a page that has just moved under the finger takes no click for a moment
        other.keyboard.press("2")
        seen(other, 2)
        assert len(events(run)) == 2
        one.context.close()


def test_a_click_whose_answer_is_lost_on_the_way_counts_once(browser: Browser, run: Path) -> None:
    with serving(run) as (_, address):
        page = open_page(browser, address)

        def lose(route: Route) -> None:
            route.fetch()
            route.abort()

        page.route("**/api/label", lose)
        page.keyboard.press("1")
        page.wait_for_selector("#alert:not([hidden])")
        page.unroute("**/api/label")
        seen(page, 1)
        page.keyboard.press("1")
        seen(page, 2)
        assert len({event["id"] for event in events(run)}) == len(events(run)) == 2
        page.context.close()


def test_keys_alone_are_enough_and_the_focus_is_seen(browser: Browser, run: Path) -> None:
    with serving(run) as (_, address):
        page = open_page(browser, address)
        page.keyboard.press("Space")
        seen(page, 1)
        page.keyboard.press("0")
        seen(page, 2)
        page.keyboard.press("Control+1")
        page.keyboard.press("Control+u")
        assert [event["label"] for event in events(run)] == [0.5, 0.5]
        assert "2 without a winner are left out" in page.inner_text("#ties")
        visited = []
        for _ in range(9):
            page.keyboard.press("Tab")
            visited.append(page.evaluate(FOCUS))
            if visited[-1][0] == "pick-it" and len(events(run)) == 2:
                page.keyboard.press("Space")
                seen(page, 3)
                assert page.evaluate("document.activeElement.id") == "question", "and on to the next pair"
        assert [event["label"] for event in events(run)] == [0.5, 0.5, 1], "a space on a button presses it"
        names = [name for name, _ in visited]
        assert all(visible for _, visible in visited) and {
            "first",
            "second",
            "pick-it",
            "tie",
            "undo",
        } <= set(names), visited
        assert page.inner_text("#said") and page.get_attribute("#said", "aria-live") == "polite"
        page.focus("#criterion")
        page.keyboard.press("u")
        page.select_option("#criterion", "variance")
        page.wait_for_selector(READY)
        page.reload()
        page.wait_for_selector(READY)
        assert page.input_value("#criterion") == "variance" and len(events(run)) == 3
        unnamed = page.evaluate(UNNAMED)
        assert unnamed == []
        page.context.close()


@pytest.mark.parametrize("width", [360, 1100])
def test_foreign_text_runs_nothing_and_breaks_no_layout(browser: Browser, run: Path, width: int) -> None:
    poison(run)
    with serving(run, "--criterion", "random") as (_, address):
        page = open_page(browser, address, viewport={"width": width, "height": 740}, has_touch=width < 500)
        for count in range(1, len(ATTACKS) + 2):
            assert page.evaluate(WIDE) <= 0
            assert page.title().startswith("run: ")
            assert "pwned" in page.inner_text("main") or "&amp; &lt;b&gt;" in page.inner_text("main")
            page.click("button[data-label='0']:visible")
            seen(page, count)
        assert page.evaluate("document.querySelectorAll('main script, img, iframe').length") == 0
        assert page.said == []  # type: ignore[attr-defined]
        if width < 500:
            small = page.evaluate(
                "[...document.querySelectorAll('button, select, a')].filter(e => e.offsetHeight && e.offsetHeight < 40"
                " && !e.matches('.skip, #alert-close')).map(e => e.outerHTML)"
            )
            assert small == [], "large enough for a thumb"
            page.evaluate("scrollTo(0, document.body.scrollHeight)")
            page.wait_for_timeout(50)
            bars = page.evaluate("document.querySelector('#bars').getBoundingClientRect().top")
            assert 0 <= bars < 740, "the weights stay in sight"
        page.context.close()


def test_the_policy_is_in_force(browser: Browser, run: Path) -> None:
    with serving(run) as (_, address):
        page = open_page(browser, address)
        blocked = page.evaluate(
            """async () => {
              const made = document.createElement("script");
              made.append("document.title = 'pwned'");
              let markup = false;
              try { document.body.append(made) } catch { markup = true }
              try { document.body.innerHTML = "<b>x</b>" } catch { markup = true }
              const outside = await fetch("http://127.0.0.1:9/").then(() => true, () => false);
              return [document.title, markup, outside];
            }"""
        )
        assert blocked[0] != "pwned" and blocked[1:] == [True, False]
        assert any("Content Security Policy" in text for text in page.said)  # type: ignore[attr-defined]
        page.context.close()


def test_the_token_leaves_the_address_and_dark_is_dark(browser: Browser, run: Path) -> None:
    with serving(run, HEEDFUL_TOKEN="a token of sixteen letters & more") as (_, address):
        page = open_page(browser, address, color_scheme="dark")
        assert "token" in address and "token" not in page.url
        page.keyboard.press("1")
        seen(page, 1)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert sum(map(int, re.findall(r"\d+", colour))) < 150
        page.context.clear_cookies()
        page.keyboard.press("1")
        page.wait_for_selector("#alert:not([hidden])")
        assert "needs its token" in page.inner_text("#alert") and len(events(run)) == 1
        page.context.close()


def test_the_last_pair_ends_in_words(browser: Browser, run: Path) -> None:
    from heedful.recipes.personalize_pairs import Label
    from heedful.recipes.personalize_store import open_person

    open_person(run).take([Label(row["id"], 1.0) for row in pool_of(run)[1:]])
    with serving(run) as (_, address):
        page = open_page(browser, address)
        page.keyboard.press("2")
        seen(page, 48)
        assert page.inner_text("#question") == "All pairs are answered" and not page.is_visible("#pair")
        page.keyboard.press("1")
        page.keyboard.press("u")
        seen(page, 47)
        assert page.is_visible("#pair") and len(events(run)) == 49
        page.context.close()
