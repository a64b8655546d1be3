"""`heedful serve` without a browser: every route, every kind of bad input, who may ask, what is on disk when."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serve_run import ATTACKS, events, fit_run, poison, pool_of, serving
from starlette.testclient import TestClient

from heedful.cli import main
from heedful.judges.personal import PersonalReward
from heedful.recipes.personalize_pairs import Label
from heedful.recipes.personalize_store import open_person
from heedful.serve import guard
from heedful.serve.app import make_app
from heedful.serve.command import Serve
from heedful.serve.guard import CSRF, HEADERS, Guard, names_of
from heedful.serve.person_page import CRITERIA, EXAMPLES, PersonPage, pick_examples

HERE = "http://127.0.0.1:8765"
TOKEN = "a token of more than sixteen letters"
PAGE_FILES = ("/", "/serve.js", "/serve.css", "/page.css", "/icon.svg")
ROUTES = (*PAGE_FILES, "/api/state", "/api/export")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit_run(tmp_path_factory.mktemp("fitted"))


@pytest.fixture
def run(fitted: Path, tmp_path: Path) -> Path:
    """A copy of the fitted run."""
    return Path(shutil.copytree(fitted, tmp_path / "run"))


def client(run: Path, *, token: str = "", host: str = "127.0.0.1", **options: Any) -> TestClient:
    """A browser without a screen, at the page of a run."""
    page = PersonPage(run)
    app = Guard(make_app(page), names=names_of(host, (), token), token=token)
    made = TestClient(app, base_url=HERE, raise_server_exceptions=False, **options)
    made.page, made.guard = page, app  # type: ignore[attr-defined]
    return made


def post(browser: TestClient, path: str, body: Any, **headers: str) -> Any:
    """What the page itself sends; a header that is "-" is left out."""
    own = {"origin": HERE, CSRF: browser.guard.csrf, "content-type": "application/json"}  # type: ignore[attr-defined]
    sent = {name: value for name, value in {**own, **headers}.items() if value != "-"}
    return browser.post(path, content=body if isinstance(body, bytes) else json.dumps(body), headers=sent)


def click(browser: TestClient, state: dict[str, Any], label: float | None = None) -> dict[str, Any]:
    """Answer the pair that is asked about, the shorter answer where no label is given; returns the new state."""
    pair = state["pair"]
    if label is None:
        label = 1 if len(pair["first"]) < len(pair["second"]) else 0
    body = {"id": pair["id"], "label": label, "seen": state["seen"], "criterion": state["criterion"]}
    answer = post(browser, "/api/label", body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def state_of(browser: TestClient, criterion: str = "") -> dict[str, Any]:
    answer = browser.get("/api/state", params={"criterion": criterion} if criterion else {})
    assert answer.status_code == 200, answer.text
    return answer.json()


# ---- the page


def test_every_answer_carries_the_policy(run: Path) -> None:
    browser = client(run)
    answers = [browser.get(path) for path in ROUTES]
    assert [answer.status_code for answer in answers] == [200] * len(ROUTES)
    answers += [browser.get("/nothing"), browser.get("/api/nothing"), browser.get("/api/label")]
    answers += [browser.get("/", headers={"host": "evil.example"}), post(browser, "/api/undo", b"{")]
    assert [answer.status_code for answer in answers[len(ROUTES) :]] == [404, 404, 405, 421, 400]
    for answer in answers:
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
        assert "access-control-allow-origin" not in answer.headers
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy and "*" not in policy and "default-src 'none'" in policy


def test_the_page_has_nothing_inline_and_nothing_from_outside(run: Path) -> None:
    browser = client(run)
    html, script, *_ = texts = [browser.get(path).text for path in PAGE_FILES]
    assert re.findall(r"<script[^>]*>", html) == ['<script type="module" src="/serve.js">']
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", html)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|import\(", script
    )
    for text in texts:
        outside = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text)) - {"http://www.w3.org"}
        assert not outside, outside


def test_the_state_has_all_that_the_page_shows(run: Path) -> None:
    browser = client(run)
    state = state_of(browser)
    assert state["seen"] == 0 and state["left"] == len(pool_of(run)) == 48 and state["last"] is None
    assert [head["weight"] for head in state["heads"]] == pytest.approx([1 / 20] * 20)
    assert state["effective"] == pytest.approx(20) and state["why"].startswith("There are no labels yet")
    assert len(state["examples"]) == EXAMPLES
    assert [one["begun"] for one in state["examples"]] == list(range(EXAMPLES))
    rows = {row["id"]: row for row in pool_of(run)}
    row = rows[state["pair"]["id"]]
    assert state["pair"]["prompt"] == [{"role": "", "text": row["prompt"]}]
    assert (state["pair"]["first"], state["pair"]["second"]) == (row["first"], row["second"])
    assert state_of(browser) == state, "looking changes nothing"
    assert events(run) == []


def test_five_clicks_do_what_the_engine_does_with_five_labels(run: Path) -> None:
    browser, person = client(run), open_person(run)
    reward = PersonalReward.load(run / "heads")
    state, asked, orders = state_of(browser), [], []
    for count in range(1, 6):
        asked.append(state["pair"]["id"])
        assert person.row(asked[-1]) == person.next("bald"), "the pair that is asked about is the active one"
        at = [row["id"] for row in person.pool].index(asked[-1])
        chance = reward.probability(person.first[[at]], person.second[[at]])[0]
        state = click(browser, state)
        label = events(run)[-1]["label"]
        reward.adapt(person.first[[at]], person.second[[at]], [label])
        weights = [head["weight"] for head in state["heads"]]
        assert weights == reward.weights_.tolist() and state["seen"] == count and state["left"] == 48 - count
        assert state["effective"] == pytest.approx(1 / np.square(weights).sum())
        assert state["last"]["id"] == asked[-1] and state["last"]["expected"] == pytest.approx(chance)
        told = reward.diagnose()
        assert state["used"] == told.used and state["why"].lower() == f"{told.why}.".lower()
        scores = [one["score"] for one in state["examples"]]
        assert scores == sorted(scores, reverse=True)
        orders.append([one["number"] for one in state["examples"]])
    assert len(set(asked)) == 5 and len(events(run)) == 5
    assert state["effective"] < 19 and any(order != list(range(EXAMPLES)) for order in orders)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_each_criterion_asks_and_asks_the_same_again(run: Path, criterion: str) -> None:
    browser = client(run)
    first = state_of(browser, criterion)
    again = state_of(client(run), criterion)
    assert first["criterion"] == criterion and first["pair"] == again["pair"]
    after = click(browser, first)
    assert after["criterion"] == criterion and after["pair"]["id"] != first["pair"]["id"]
    if criterion != "random":
        person = open_person(run)
        assert after["pair"]["id"] == person.next(criterion)["id"]  # type: ignore[index]


def test_random_pairs_are_spread_over_the_pool(run: Path) -> None:
    browser = client(run)
    state, places = state_of(browser, "random"), []
    order = [row["id"] for row in pool_of(run)]
    for _ in range(12):
        places.append(order.index(state["pair"]["id"]))
        state = click(browser, state)
    assert len(set(places)) == 12 and max(places) > 30 and min(places) < 16 and places != sorted(places)


def test_undo_gives_back_the_very_state(run: Path) -> None:
    browser = client(run)
    states = [state_of(browser)]
    for label in (1, 0, 0.5):
        states.append(click(browser, states[-1], label))
    assert [s["ties"] for s in states] == [0, 0, 0, 1]
    for before in reversed(states[:-1]):
        now = states.pop()
        answer = post(
            browser, "/api/undo", {"id": now["last"]["id"], "seen": now["seen"], "criterion": "bald"}
        )
        assert answer.json() == before
    told = post(browser, "/api/undo", {"id": "x", "seen": 0, "criterion": "bald"})
    assert told.status_code == 422 and told.json()["error"] == "There is nothing to undo."
    assert [event.get("undo") for event in events(run)] == [None] * 3 + [1] * 3


def test_when_all_pairs_are_answered_there_is_no_next_one(run: Path) -> None:
    rows = pool_of(run)
    for name in ("bald", "random"):
        open_person(run).take([Label(row["id"], 1.0) for row in rows[2:]])
        browser = client(run)
        state = state_of(browser, name)
        assert state["left"] == 2
        while state["pair"]:
            state = click(browser, state)
        assert state["left"] == 0 and state["seen"] == 48
        last = state["last"]["id"]
        back = post(browser, "/api/undo", {"id": last, "seen": 48, "criterion": name}).json()
        assert back["pair"]["id"] == last
        (run / "labels.jsonl").unlink()


def test_a_restart_and_a_damaged_end_lose_nothing(run: Path) -> None:
    browser = client(run)
    state = state_of(browser)
    for _ in range(3):
        state = click(browser, state)
    with (run / "labels.jsonl").open("ab") as torn:
        torn.write(b'{"id": "torn by a ki')
    again = state_of(client(run))
    known = {"csrf", "last"}
    assert {k: v for k, v in again.items() if k not in known} == {
        k: v for k, v in state.items() if k not in known
    }
    assert again["last"]["id"] == state["last"]["id"] and again["last"]["expected"] is None
    assert click(client(run), again)["seen"] == 4 and len(events(run)) == 4


def test_export_is_a_file_of_preferences(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    browser = client(run)
    state = state_of(browser)
    for label in (1, 0.5, 0):
        state = click(browser, state, label)
    answer = browser.get("/api/export")
    assert 'attachment; filename="preferences.jsonl"' in answer.headers["content-disposition"]
    exported = [json.loads(line) for line in answer.text.splitlines()]
    rows = {row["id"]: row for row in pool_of(run)}
    said = [event for event in events(run) if event["label"] != 0.5]
    assert [row["id"] for row in exported] == [event["id"] for event in said] and len(exported) == 2
    for row, event in zip(exported, said):
        better, worse = ("first", "second") if event["label"] == 1 else ("second", "first")
        pool = rows[event["id"]]
        assert (row["prompt"], row["chosen"], row["rejected"]) == (pool["prompt"], pool[better], pool[worse])
    (run / "exported.jsonl").write_bytes(answer.content)
    assert main(["check", str(run / "exported.jsonl"), "--kind", "preference"]) == 0, capsys.readouterr().out


# ---- several tabs and programs


def test_a_click_on_an_old_page_is_refused_and_not_counted(run: Path) -> None:
    one, other = client(run), client(run)
    old = state_of(other)
    new = click(one, state_of(one), 1)
    again = {"id": old["pair"]["id"], "label": 0, "seen": old["seen"], "criterion": "bald"}
    for browser in (one, other):
        answer = post(browser, "/api/label", again)
        assert answer.status_code == 409 and "elsewhere" in answer.json()["error"]
    assert len(events(run)) == 1
    assert {**state_of(other), "csrf": "", "last": ""} == {**new, "csrf": "", "last": ""}
    # the right number of labels, but a pair that has one
    answer = post(other, "/api/label", {**again, "seen": 1})
    assert answer.status_code == 409 and len(events(run)) == 1
    for body, status in (({"id": "x", "seen": 1}, 409), ({"id": old["pair"]["id"], "seen": 0}, 409)):
        assert post(other, "/api/undo", {**body, "criterion": "bald"}).status_code == status
    assert len(events(run)) == 1


def test_labels_of_the_command_line_are_seen(run: Path) -> None:
    browser = client(run)
    state = state_of(browser)
    open_person(run).label(state["pair"]["id"], 1)
    now = state_of(browser)
    assert now["seen"] == 1 and now["pair"]["id"] != state["pair"]["id"] and now["last"]["expected"] is None


def test_the_same_click_from_many_threads_is_taken_once(run: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from heedful.serve.person_page import Overtaken

    page = PersonPage(run)
    id = page.state("bald")["pair"]["id"]

    def one(label: float) -> bool:
        try:
            page.label(id, label, 0, "bald")
            return True
        except Overtaken:
            return False

    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(one, [1, 0, 0.5, 1, 0, 1, 0, 1]))
    assert sum(taken) == 1 and len(events(run)) == 1


# ---- what goes wrong

BAD: list[tuple[Any, int, str]] = [
    (b"", 400, "not JSON"),
    (b"{", 400, "not JSON"),
    (b"\xff\xfe", 400, "not JSON"),
    (b"[" * 4000, 400, "not JSON"),
    ([], 400, "an object with id, label, seen, criterion"),
    ({}, 400, "an object with id, label, seen, criterion"),
    ({"more": 1}, 400, "and nothing else"),
    ({"label": True}, 400, "label: True is of the wrong kind"),
    ({"label": "1"}, 400, "label: '1' is of the wrong kind"),
    ({"label": None}, 400, "label: None"),
    ({"label": 2}, 422, "is none of 1"),
    (b'{"id": "%s", "label": NaN, "seen": 0, "criterion": "bald"}', 422, "is none of 1"),
    (b'{"id": "%s", "label": 1e999, "seen": 0, "criterion": "bald"}', 422, "is none of 1"),
    ({"seen": 0.0}, 400, "seen: 0.0"),
    ({"seen": False}, 400, "seen: False"),
    ({"seen": -1}, 409, "elsewhere"),
    ({"seen": 10**30}, 409, "elsewhere"),
    ({"id": 7}, 400, "id: 7"),
    ({"id": ""}, 422, "there is no pair ''"),
    ({"id": "../../etc/passwd"}, 422, "there is no pair"),
    ({"id": "\ud800"}, 422, "there is no pair"),
    ({"criterion": "best"}, 422, "there is no criterion 'best'; choose one of"),
    ({"criterion": 1}, 400, "criterion: 1"),
    ({"id": "x" * 5000}, 413, "at most 4096 bytes"),
]


@pytest.mark.parametrize(("body", "status", "told"), BAD, ids=[str(b)[:40] for b, *_ in BAD])
def test_bad_input_is_refused_in_words_and_changes_nothing(
    run: Path, body: Any, status: int, told: str
) -> None:
    browser = client(run)
    state = state_of(browser)
    good = {"id": state["pair"]["id"], "label": 1, "seen": 0, "criterion": "bald"}
    if isinstance(body, dict) and body:
        sent: Any = {**good, **body}
    else:
        sent = body.replace(b"%s", good["id"].encode()) if isinstance(body, bytes) else body
    answer = post(browser, "/api/label", sent)
    assert answer.status_code == status and told in answer.json()["error"], answer.text
    assert "Traceback" not in answer.text and events(run) == [] and state_of(browser) == state


def test_other_methods_paths_and_kinds_are_refused(run: Path) -> None:
    browser = client(run)
    good = {"id": state_of(browser)["pair"]["id"], "label": 1, "seen": 0, "criterion": "bald"}
    for kind in ("text/plain", "application/x-www-form-urlencoded", "-"):
        assert post(browser, "/api/label", good, **{"content-type": kind}).status_code == 415
    for path in ("/api/state", "/", "/api/export"):
        assert post(browser, path, good).status_code == 405
    for path in ("/../app.py", "/page/serve.js", "/..%2fapp.py", "/labels.jsonl", "/api"):
        assert browser.get(path).status_code == 404
    answer = browser.get("/api/state", params={"criterion": ATTACKS[0]})
    assert answer.status_code == 422 and answer.headers["content-type"] == "application/json"
    assert events(run) == []


@pytest.mark.parametrize("call", ["fsync", "write"])
def test_a_full_disk_is_said_and_the_click_is_not_taken(
    run: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    browser = client(run)
    state = click(browser, state_of(browser))

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        body = {"id": state["pair"]["id"], "label": 1, "seen": 1, "criterion": "bald"}
        answer = post(browser, "/api/label", body)
    assert answer.status_code == 422 and "no space is left on the device" in answer.json()["error"]
    assert {**state_of(browser), "last": ""} == {**state, "last": ""} and len(events(run)) == 1
    assert click(browser, state)["seen"] == 2


def test_the_label_is_on_disk_before_the_answer_is_sent(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser, order = client(run), []
    state = state_of(browser)
    real = os.fsync
    labels = run / "labels.jsonl"

    def fsync(descriptor: int) -> None:
        if labels.exists() and os.fstat(descriptor).st_ino == labels.stat().st_ino:
            order.append(f"flushed {labels.stat().st_size > 0}")
        real(descriptor)

    inner = browser.guard.app  # type: ignore[attr-defined]

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            order.append(message["type"])
            await send(message)

        await inner(scope, receive, sending)

    browser.guard.app = watched  # type: ignore[attr-defined]
    monkeypatch.setattr(os, "fsync", fsync)
    click(browser, state)
    assert order[:2] == ["flushed True", "http.response.start"]


def test_a_damaged_file_of_labels_is_named_with_its_line(run: Path) -> None:
    browser = client(run)
    click(browser, state_of(browser))
    with (run / "labels.jsonl").open("a") as labels:
        labels.write("not json\n")
    answer = browser.get("/api/state")
    assert answer.status_code == 422 and "labels.jsonl:2: not JSON" in answer.json()["error"]


def test_an_error_of_ours_is_said_without_its_inside(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = client(run)

    def broken(criterion: str) -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setattr(browser.page, "state", broken)  # type: ignore[attr-defined]
    answer = browser.get("/api/state")
    assert answer.status_code == 500 and "an error of its own" in answer.json()["error"]
    assert "secret" not in answer.text and answer.headers["x-frame-options"] == "DENY"


def test_there_are_no_sockets(run: Path) -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), client(run).websocket_connect("/api/state"):
        pass


def test_foreign_text_is_data(run: Path) -> None:
    poison(run)
    rows = pool_of(run)
    rows[0]["second"] = "half a letter: \ud800"
    (run / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    open_person(run).take([Label(row["id"], 1.0) for row in rows[1:]])
    browser = client(run)
    state = state_of(browser)
    assert (
        state["pair"]["first"] == f"{ATTACKS[0]} first" and state["pair"]["prompt"][0]["role"] == ATTACKS[0]
    )
    assert state["pair"]["second"] == "half a letter: \ufffd"
    assert "\\u0000" not in json.dumps(state)
    click(browser, state, 1)
    exported = [json.loads(line) for line in browser.get("/api/export").text.splitlines()]
    assert exported[-1]["chosen"] == f"{ATTACKS[0]} first", "a file has what was said, to the letter"
    assert exported[-1]["rejected"] == "half a letter: \ud800"


# ---- who may ask


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8765", "localhost:8765", "LOCALHOST", "[::1]:8765", "localhost."]
)
def test_names_of_this_computer_are_answered(run: Path, host: str) -> None:
    assert client(run).get("/api/state", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8765",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "192.168.1.5",
        "127.0.0.1@evil",
        "127.0.0.1:8765:1",
        "127.0.0.1:",
        "",
        " ",
        "ip",
    ],
)
def test_other_names_are_rebinding(run: Path, host: str) -> None:
    for path in ("/", "/api/state"):
        answer = client(run).get(path, headers={"host": host})
        assert answer.status_code == 421 and "direction" not in answer.text


def test_with_a_token_numbers_and_named_hosts_are_answered(run: Path) -> None:
    names = names_of("0.0.0.0", ("Proxy.Example",), TOKEN)
    app = Guard(make_app(PersonPage(run)), names=names, token=TOKEN)
    browser = TestClient(app, base_url=HERE, headers={"authorization": f"Bearer {TOKEN}"})
    statuses = {
        host: browser.get("/api/state", headers={"host": host}).status_code
        for host in (
            "192.168.1.5:80",
            "[fe80::1]:80",
            "proxy.example",
            socket.gethostname(),
            "evil.example",
            "ip",
        )
    }
    assert list(statuses.values()) == [200, 200, 200, 200, 421, 421], statuses


FOREIGN = [
    {"origin": "http://evil.example"},
    {"origin": "http://127.0.0.1:9999"},
    {"origin": "http://localhost:8765"},
    {"origin": "null"},
    {"origin": "-"},
    {"origin": "file://127.0.0.1:8765"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {CSRF: "-"},
    {CSRF: ""},
    {CSRF: "wrong"},
    {CSRF: "ä"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=map(str, FOREIGN))
def test_only_the_page_itself_may_write(run: Path, headers: dict[str, str]) -> None:
    browser = client(run)
    state = state_of(browser)
    body = {"id": state["pair"]["id"], "label": 1, "seen": 0, "criterion": "bald"}
    headers = {name: value.encode("latin-1").decode("latin-1") for name, value in headers.items()}
    if headers.get(CSRF) == "ä":
        sent: Any = [("origin", HERE), (CSRF, b"\xe4"), ("content-type", "application/json")]
        answer = browser.post("/api/label", content=json.dumps(body), headers=sent)
    else:
        answer = post(browser, "/api/label", body, **headers)
    assert answer.status_code == 403 and "Reload the page" in answer.json()["error"]
    assert events(run) == []
    assert post(browser, "/api/label", body, **{"sec-fetch-site": "same-origin"}).status_code == 200


def test_the_number_of_a_page_is_another_one_after_each_start(run: Path) -> None:
    one, other = client(run), client(run)
    assert state_of(one)["csrf"] != state_of(other)["csrf"] and len(state_of(one)["csrf"]) >= 32


def test_without_the_token_nothing_is_told(run: Path) -> None:
    browser = client(run, token=TOKEN)
    for path in (*ROUTES, "/nothing"):
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": f"Basic {TOKEN}"},
            {"cookie": f"{browser.guard._cookie}={TOKEN}"},  # type: ignore[attr-defined]
            {"cookie": "heedful=1; ,;=\x01"},
        ):
            answer = browser.get(path, headers=headers)
            assert answer.status_code == 401 and "needs its token" in answer.text
            assert TOKEN not in answer.text and "set-cookie" not in answer.headers
        for wrong in ("wrong", "", TOKEN[:-1], TOKEN + "x"):
            assert browser.get(path, params={"token": wrong}).status_code == 401
    assert post(browser, "/api/undo", {}).status_code == 401
    assert post(browser, f"/api/undo?token={TOKEN}", {}).status_code == 401


def test_the_token_becomes_a_cookie_and_leaves_the_address(run: Path) -> None:
    browser = client(run, token=TOKEN)
    answer = browser.get("/", params={"token": TOKEN}, follow_redirects=False)
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Secure" not in cookie
    assert TOKEN not in cookie and TOKEN.replace(" ", "%20") not in cookie
    state = state_of(browser)
    assert browser.get("/").status_code == 200 and click(browser, state)["seen"] == 1
    assert state_of(client(run, token=TOKEN, cookies=dict(browser.cookies)))["seen"] == 1, (
        "also after a restart"
    )
    other = client(run, token=TOKEN[::-1], cookies=dict(browser.cookies))
    assert other.get("/").status_code == 401, "another token makes the cookie worthless"
    body = {"id": state["pair"]["id"], "seen": 1, "criterion": "bald"}
    assert post(browser, "/api/undo", body, **{CSRF: "-"}).status_code == 403, (
        "the cookie alone may not write"
    )


def test_a_bearer_may_read(run: Path) -> None:
    browser = client(run, token=TOKEN)
    assert browser.get("/api/export", headers={"authorization": f"bearer {TOKEN}"}).status_code == 200


def test_secrets_are_compared_in_constant_time(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    real: Callable[..., bool] = guard.hmac.compare_digest

    def noted(a: bytes, b: bytes) -> bool:
        compared.append(b)
        return real(a, b)

    browser = client(run, token=TOKEN)
    monkeypatch.setattr(guard.hmac, "compare_digest", noted)
    browser.get("/", params={"token": "wrong"})
    browser.get("/", headers={"authorization": "Bearer wrong"})
    browser.get("/", params={"token": TOKEN})
    post(browser, "/api/undo", {}, **{CSRF: "wrong"})
    own: Guard = browser.guard  # type: ignore[attr-defined]
    assert {TOKEN.encode(), own._pass.encode(), own.csrf.encode()} == set(compared)


# ---- examples


def test_examples_are_the_answers_to_one_prompt_where_there_are_several(run: Path) -> None:
    rows = pool_of(run)
    for row in rows[:3]:
        row["prompt"] = "The same question?"
    (run / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = pick_examples(open_person(run))
    assert {one["prompt"] for one in found} == {"The same question?"} and len(found) == 6


def test_else_they_are_answers_that_the_heads_see_differently(run: Path) -> None:
    person = open_person(run)
    found = pick_examples(person)
    assert len({one["prompt"] for one in found}) == len(found) == EXAMPLES

    def least(features: list[Any]) -> float:
        scores = person.reward.head_scores(np.stack(features))
        apart = np.square(scores[:, None] - scores[None]).sum(-1)
        return float(apart[np.triu_indices(len(scores), 1)].min())

    plain = least(list(person.first[:EXAMPLES]))
    assert least([one["features"] for one in found]) > 2 * plain


# ---- the command

REFUSED = [
    (["--host", "0.0.0.0"], "--host 0.0.0.0 can be reached from other computers: give --token auto"),
    (["--host", "::"], "can be reached from other computers"),
    (["--host", "192.0.2.1"], "can be reached from other computers"),
    (["--host", "no such name"], "can be reached from other computers"),
    (["--token", "short"], "--token has 5 characters: at least 16 are needed"),
    (["--port", "70000"], "--port 70000: a port is a number from 0 to 65535"),
    (["--port", "-1"], "--port -1"),
    (["--host", "192.0.2.1", "--token", TOKEN], "cannot listen at 192.0.2.1"),
]


@pytest.mark.parametrize(("words", "told"), REFUSED, ids=[" ".join(w) for w, _ in REFUSED])
def test_what_cannot_be_served_is_refused(
    fitted: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (["serve"], ["personalize", "serve"]):
        assert main([*name, str(fitted), *words]) == 1
        said = capsys.readouterr()
        assert said.err.startswith(f"heedful {' '.join(name)}: ") and told in said.err and said.out == ""


def test_a_port_in_use_and_a_folder_without_a_person_are_named(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(fitted), "--port", str(port)]) == 1
        assert f"port {port}" in capsys.readouterr().err
    for folder, told in ((tmp_path / "nowhere", "there is no run folder"), (tmp_path, "is no run of")):
        assert main(["serve", str(folder)]) == 1
        assert told in capsys.readouterr().err


def test_a_short_token_in_the_environment_is_refused(
    fitted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEEDFUL_TOKEN", "short")
    assert main(["serve", str(fitted)]) == 1
    assert "$HEEDFUL_TOKEN has 5 characters" in capsys.readouterr().err


def test_a_missing_extra_is_named(
    fitted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", str(fitted)]) == 1
    assert "pip install 'heedful[web]'" in capsys.readouterr().err


def test_the_page_is_on_this_computer_alone_by_default() -> None:
    assert Serve("run").host == "127.0.0.1" and Serve("run").token == ""
    assert names_of("127.0.0.1", (), "") == {"127.0.0.1", "localhost", "::1"}


def test_the_server_runs_asks_for_its_token_and_stops_on_request(run: Path) -> None:
    with serving(run, "--token", "auto", "--criterion", "variance") as (server, address):
        there = httpx.URL(address)
        token = there.params["token"]
        assert len(token) >= 32 and there.host == "127.0.0.1"
        plain = str(there.copy_with(params=None))
        assert httpx.get(plain).status_code == 401
        answer = httpx.get(f"{plain}api/state", headers={"authorization": f"Bearer {token}"})
        assert answer.json()["criterion"] == "variance" and "server" not in answer.headers
        server.send_signal(signal.SIGINT)
        assert server.stdout is not None
        rest = server.stdout.read()
        assert server.wait(10) == 0 and "stopped" in rest and "Traceback" not in rest
        assert token not in rest, "no line of a log has the token"
