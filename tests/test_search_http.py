"""Search services over HTTP: what is asked, how answers are read, tries, kept answers, and what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from heedful.data.passages import Passage
from heedful.errors import HeedfulError
from heedful.judges.search_http import HttpSearch, Service, read_service

Answer = Callable[[dict[str, Any]], Any]
"""From a request's body or parameters to the JSON of the answer, or to (status, text)."""
HITS = {"results": [{"doc": {"id": 7, "title": " One ", "text": "first"}, "rank": 0.5}]}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Answer = lambda asked: HITS
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/search"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def do_GET(self) -> None:
        self.reply(dict(parse_qsl(urlsplit(self.path).query)))

    def reply(self, asked: dict[str, Any]) -> None:
        self.server.asked.append(asked)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        answer = self.server.answer(asked)
        status, text = answer if isinstance(answer, tuple) else (200, json.dumps(answer))
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def service(server: Server, **more: Any) -> Service:
    how: dict[str, Any] = {
        "url": server.url,
        "body": {"q": "{query}", "n": "{k}", "about": ["{query} in {k}", 3]},
        "hits": "results",
        "id": "doc.id",
        "title": "doc.title",
        "text": "doc.text",
        "score": "rank",
    }
    return Service(**how | more)


def search(server: Server, cache: Path | None = None, **more: Any) -> tuple[HttpSearch, list[float]]:
    waits: list[float] = []
    return HttpSearch(service(server, **more), cache=cache, pause=waits.append), waits


def plain(i: int, text: str, score: float) -> dict[str, Any]:
    return {"doc": {"id": i, "title": "", "text": text}, "rank": score}


def test_what_is_asked_and_read(server: Server) -> None:
    ours, _ = search(server)
    (found,) = ours(['who "made" {k} it?'], 4)
    assert server.asked == [{"q": 'who "made" {k} it?', "n": 4, "about": ['who "made" {k} it? in 4', 3]}]
    assert [(hit.passage, hit.score) for hit in found] == [(Passage("7", "One", "first"), 0.5)]


def test_get_sends_parameters(server: Server) -> None:
    ours, _ = search(server, method="GET", body={}, params={"q": "{query}", "size": "{k}", "lang": "en"})
    ours(["a & b"], 2)
    assert server.asked == [{"q": "a & b", "size": "2", "lang": "en"}]


def test_hits_are_sorted_cut_and_counted(server: Server) -> None:
    listed = [plain(1, "low", 1), plain(2, "high", 9), plain(3, " ", 5), plain(4, "low too", 1)]
    server.answer = lambda asked: {"results": listed}
    ours, _ = search(server)
    assert [hit.passage.id for hit in ours(["x"], 9)[0]] == ["2", "1", "4"]
    assert [hit.passage.id for hit in ours(["y"], 2)[0]] == ["2", "1"]
    assert ours.usage == {"requests": 2, "retries": 0, "cached": 0, "empty_hits": 2}
    far, _ = search(server, lower_is_better=True)
    assert [(hit.passage.id, hit.score) for hit in far(["x"], 9)[0]] == [("1", -1), ("4", -1), ("2", -9)]
    unscored, _ = search(server, score="")
    assert [hit.score for hit in unscored(["x"], 9)[0]] == [1, 1 / 2, 1 / 4]


def test_title_and_text_in_one_field(server: Server) -> None:
    # as the search server of Search-R1 answers: a list for each query, the title in quotation marks on the first line
    server.answer = lambda asked: {
        "result": [[{"document": {"contents": '"A title"\nIts text'}, "score": 2}]]
    }
    how = {"hits": "result.0", "id": "", "title": "", "text": "document.contents", "score": "score"}
    ours, _ = search(server, body={"queries": ["{query}"], "topk": "{k}"}, split="\n", **how)
    assert ours(["x"], 1)[0][0].passage == Passage("", "A title", "Its text")
    assert server.asked == [{"queries": ["x"], "topk": 1}]


def test_queries_are_asked_once_and_blank_ones_never(server: Server) -> None:
    server.answer = lambda asked: {"results": [plain(0, asked["q"], 1)]}
    ours, _ = search(server)
    found = ours(["a", "", "b", "a", "  "], 1)
    assert [[hit.passage.text for hit in hits] for hits in found] == [["a"], [], ["b"], ["a"], []]
    assert sorted(asked["q"] for asked in server.asked) == ["a", "b"]
    server.answer = lambda asked: {"results": []}
    assert ours(["nothing"], 3) == [[]]


def test_a_busy_service_is_asked_again_a_bounded_number_of_times(server: Server) -> None:
    replies: list[Any] = [(503, "busy"), (429, "slow down"), HITS]
    server.answer = lambda asked: replies.pop(0)
    ours, waits = search(server)
    assert len(ours(["x"], 1)[0]) == 1
    assert ours.usage["requests"] == 3 and ours.usage["retries"] == 2
    assert 0.5 <= waits[0] <= 0.625 and 1 <= waits[1] <= 1.25
    server.answer = lambda asked: (503, "busy")
    ours, waits = search(server, retries=2)
    with pytest.raises(HeedfulError, match=r"search failed 3 times, the last time: status 503: busy"):
        ours(["x"], 1)
    assert len(waits) == 2
    server.answer = lambda asked: (403, "who are you?")
    ours, waits = search(server)
    with pytest.raises(HeedfulError, match="refused the request, status 403: who are you"):
        ours(["x"], 1)
    assert waits == []


def test_a_dead_service_says_so(server: Server) -> None:
    server.shutdown()
    server.server_close()
    ours, waits = search(server, retries=2)
    with pytest.raises(
        HeedfulError, match=r"127\.0\.0\.1:\d+/search failed 3 times.*no answer \(ConnectError"
    ):
        ours(["x"], 1)
    assert len(waits) == 2


def test_answers_are_kept_and_only_the_others_are_asked_again(server: Server, tmp_path: Path) -> None:
    server.answer = lambda asked: (
        (500, "down") if asked["q"] == "b" else {"results": [plain(0, asked["q"], 1)]}
    )
    ours, _ = search(server, tmp_path / "kept", retries=0, concurrency=1)
    with pytest.raises(
        HeedfulError, match=r"\d of 3 queries were answered and are kept in .*kept; the same"
    ) as told:
        ours(["a", "b", "c"], 1)
    kept = int(str(told.value).split("\n")[1][0])  # c may be on its way when b fails
    assert kept == len(list((tmp_path / "kept").glob("*.json"))) and kept in (1, 2)
    server.answer = lambda asked: {"results": [plain(0, asked["q"], 1)]}
    server.asked.clear()
    again, _ = search(server, tmp_path / "kept", retries=0)
    found = again(["a", "b", "c"], 1)
    assert [hits[0].passage.text for hits in found] == ["a", "b", "c"]
    assert sorted(asked["q"] for asked in server.asked) == ["b", "c"][: 3 - kept]
    assert again.usage["cached"] == kept
    server.shutdown()
    assert again(["c", "a"], 1) == [found[2], found[0]]
    other, _ = search(server, tmp_path / "kept", retries=0, score="")
    assert other.fingerprint != again.fingerprint, "what was read in another way is not mixed in"
    next((tmp_path / "kept").glob("*.json")).write_text("{")
    with pytest.raises(HeedfulError, match=r"cannot be read back .*; delete it"):
        again(["a", "b", "c"], 1)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((200, "<html>"), "sent no JSON: <html>"),
        ({"hits": []}, "there is no 'results' of 'results'; there is hits"),
        ({"results": {"a": 1}}, "hits: 'results' is an object in the answer, not a list"),
        ({"results": [{"doc": {"text": "t"}}]}, "hit 1: there is no 'title' of 'doc.title'; there is text"),
        (
            {"results": [HITS["results"][0], {"doc": {"title": "", "text": 3, "id": 1}}]},
            "hit 2: 'doc.text' is a",
        ),
        ({"results": [plain(1, "t", float("nan"))]}, "hit 1: 'rank' is nan, not a number to sort by"),
    ],
)
def test_answers_that_do_not_fit_the_mapping(answer: Any, told: str, server: Server) -> None:
    server.answer = lambda asked: answer
    ours, _ = search(server)
    with pytest.raises(HeedfulError, match=told):
        ours(["x"], 1)


def test_a_key_is_sent_and_never_shown(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCH_KEY", "secret")
    ours, _ = search(server, key_from="SEARCH_KEY", headers={"X-Team": "blue"})
    ours(["x"], 1)
    assert server.headers[0]["authorization"] == "Bearer secret" and server.headers[0]["x-team"] == "blue"
    assert ours.fingerprint == search(server, headers={"X-Team": "blue"})[0].fingerprint
    monkeypatch.setenv("SEARCH_KEY", " ")
    with pytest.raises(HeedfulError, match="SEARCH_KEY holds no key"):
        search(server, key_from="SEARCH_KEY")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("url: localhost:8000", "url: must start with http"),
        ("url: http://a:b@host/", "url: put no password into it"),
        ("url: http://host:port/", "url: cannot be"),
        ("url: http://host\nmethod: GET\nbody: {q: '{query}'}", "body: a GET request has none"),
        ("url: http://host\nbody: {q: query}", "neither body nor params has a place for the query"),
        ("url: http://host\nbody: {q: '{query}'}\ntext: ''", "text: the path to the text"),
        ("url: http://host\nbody: {q: '{query}'}\nretries: -1", "retries at least 0"),
        ("url: http://host\nbodi: {}", "unknown setting 'bodi'; did you mean 'body'"),
        ("- url", "settings by name are needed"),
    ],
)
def test_a_faulty_service_file_is_told(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(text)
    with pytest.raises(HeedfulError, match=rf"service\.yaml.*{told}"):
        read_service(file)


def test_a_service_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(
        "url: http://localhost:8000/search\nbody: {query: '{query}', top_k: '{k}'}\nhits: results\n"
    )
    made = read_service(file)
    assert made.body == {"query": "{query}", "top_k": "{k}"} and made.text == "text" and made.retries == 4
    with pytest.raises(HeedfulError, match=r"cannot read .*none\.yaml"):
        read_service(tmp_path / "none.yaml")
