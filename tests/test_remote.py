"""A served model as a policy, against a small server in a thread: what is sent, tried again and refused."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from heedful.errors import HeedfulError
from heedful.feedback import Samples
from heedful.policies.remote import RemotePolicy, Spent
from heedful.policies.web import LONGEST_PAUSE


class Reply:
    """What the server answers: a status, headers, and a body as JSON or as it is."""

    def __init__(self, body: Any = None, status: int = 200, **headers: str) -> None:
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.status, self.headers = status, {k.replace("_", "-"): v for k, v in headers.items()}


class Server(ThreadingHTTPServer):
    """Answers each request with `answer(path, body)`; keeps every request, and the most that ran at once."""

    daemon_threads = True

    def __init__(self, answer: Callable[[str, dict[str, Any]], Reply] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer or complete
        self.requests: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.running = self.most = 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def bodies(self) -> list[dict[str, Any]]:
        return [body for _, body, _ in self.requests]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up waiting is part of some tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append((self.path, body, {k.lower(): v for k, v in self.headers.items()}))
            self.server.running += 1
            self.server.most = max(self.server.most, self.server.running)
        reply = self.server.answer(self.path, body)
        with self.server.lock:
            self.server.running -= 1
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""


def asked(body: dict[str, Any]) -> str:
    return body["prompt"] if "prompt" in body else body["messages"][-1]["content"]


def choices(path: str, texts: list[str]) -> list[dict[str, Any]]:
    if path.endswith("/chat/completions"):
        return [
            {"index": i, "message": {"role": "assistant", "content": t}, "finish_reason": "stop"}
            for i, t in enumerate(texts)
        ]
    return [{"index": i, "text": t, "finish_reason": "length"} for i, t in enumerate(texts)]


def complete(path: str, body: dict[str, Any]) -> Reply:
    """n numbered answers, which name the question."""
    texts = [f"{asked(body)}-{i}" for i in range(body["n"])]
    usage = {"prompt_tokens": 3, "completion_tokens": 2 * body["n"]}
    return Reply({"choices": choices(path, texts), "usage": usage})


def in_turn(*replies: Reply | None) -> Callable[[str, dict[str, Any]], Reply]:
    """These answers one after the other; None, and whatever comes after them, is a completion."""
    left = list(replies)
    return lambda path, body: (left.pop(0) if left else None) or complete(path, body)


@pytest.fixture(autouse=True)
def no_keys_and_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEEDFUL_API_KEY", "OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def start(answer: Callable[[str, dict[str, Any]], Reply] | None = None) -> Server:
        made.append(Server(answer))
        return made[-1]

    yield start
    for server in made:
        server.shutdown()
        server.server_close()


def policy(server: Server, **options: Any) -> tuple[RemotePolicy, list[float]]:
    """A policy on the server, and the pauses it takes, in seconds."""
    pauses: list[float] = []
    return RemotePolicy(server.url, "tiny", pause=pauses.append, **options), pauses


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- what is sent, and in which order answers come back


def test_completions_are_input_major_whatever_the_order_of_arrival(serve: Callable[..., Server]) -> None:
    second = threading.Event()

    def answer(path: str, body: dict[str, Any]) -> Reply:
        if asked(body) == "A":
            assert second.wait(10), "the other question is asked meanwhile"
        else:
            second.set()
        reply = json.loads(complete(path, body).body)
        reply["choices"].reverse()
        return Reply(reply)

    with policy(serve(answer))[0] as remote:
        samples = remote.sample(["A", "B"], 3)
    assert samples == Samples(["A", "B"], ["A-0", "A-1", "A-2", "B-0", "B-1", "B-2"], 3)


def test_prompts_go_as_messages_or_as_they_are(serve: Callable[..., Server]) -> None:
    server = serve()
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "B"}]
    with policy(server)[0] as remote:
        assert remote.sample(["A", talk]).outputs == ["A-0", "B-0"]
    sent = {path: [] for path, _, _ in server.requests}
    for path, body, _ in server.requests:
        sent[path].append(body["messages"])
    assert list(sent) == ["/v1/chat/completions"]
    assert sorted(map(len, sent["/v1/chat/completions"])) == [1, 2] and talk in sent["/v1/chat/completions"]
    with policy(server, template="none")[0] as remote:
        assert remote.sample(["A", talk]).outputs == ["A-0", "B-0"]
    last = {path: body for path, body, _ in server.requests[2:]}
    assert last["/v1/completions"]["prompt"] == "A" and last["/v1/chat/completions"]["messages"] == talk


def test_options_reach_the_server(serve: Callable[..., Server]) -> None:
    server = serve()
    with policy(server)[0] as remote:
        remote.sample(["A"], 2, temperature=0.3, top_p=0.8, max_new_tokens=17, stop=["\n", "END"])
        remote.sample(["A"])
    first, second = server.bodies()
    wanted = {
        "model": "tiny",
        "n": 2,
        "temperature": 0.3,
        "top_p": 0.8,
        "max_tokens": 17,
        "stop": ["\n", "END"],
    }
    assert {k: v for k, v in first.items() if k != "messages"} == wanted
    assert "stop" not in second and "seed" not in second and second["n"] == 1


def test_seeds_come_from_the_generator(serve: Callable[..., Server]) -> None:
    def sent(generator: torch.Generator) -> dict[str, int]:
        server = serve()
        with policy(server)[0] as remote:
            remote.sample(["A", "B", "C"], 2, generator=generator)
        return {asked(body): body["seed"] for body in server.bodies()}

    first, again, other = sent(seeded(1)), sent(seeded(1)), sent(seeded(2))
    assert first == again != other and len(set(first.values())) == 3
    assert all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in first.values())


def test_a_server_that_gives_one_completion_at_a_time_is_asked_for_the_rest(
    serve: Callable[..., Server],
) -> None:
    server = serve(lambda path, body: Reply({"choices": choices(path, [f"seed {body['seed']}"])}))
    with policy(server)[0] as remote:
        outputs = remote.sample(["A"], 3, generator=seeded()).outputs
    assert [body["n"] for body in server.bodies()] == [3, 2, 1]
    assert len(set(outputs)) == 3, "each has a seed of its own, or all would be the same"


def test_what_arrives_is_told_with_what_it_took_and_a_seed_for_each_input_is_its_own(
    serve: Callable[..., Server],
) -> None:
    def answer(path: str, body: dict[str, Any]) -> Reply:
        choice = choices(path, [f"{asked(body)} {body['seed']}"])[0] | {"finish_reason": "length"}
        usage = {"prompt_tokens": 3} | ({"completion_tokens": 2} if asked(body) == "A" else {})
        return Reply({"choices": [choice], "usage": usage})

    arrived: list[Any] = []
    with policy(serve(answer))[0] as remote:
        kept = remote.sample(
            ["A", "B"], 2, seeds=[7, 2**31 - 2], arrived=lambda *facts: arrived.append(facts)
        )
        assert remote.usage["prompt_tokens"] == 12 and remote.usage["completion_tokens"] == 4
    assert kept.outputs == ["A 7", "A 8", f"B {2**31 - 2}", "B 0"]
    assert sorted(arrived) == [
        (0, ["A 7"], Spent(3, 2, 1)),
        (0, ["A 8"], Spent(3, 2, 1)),
        (1, ["B 0"], Spent(3, None, 1)),
        (1, [f"B {2**31 - 2}"], Spent(3, None, 1)),
    ]


def test_more_completions_than_asked_for_are_cut(serve: Callable[..., Server]) -> None:
    server = serve(lambda path, body: Reply({"choices": choices(path, ["a", "b", "c"])}))
    arrived: list[int] = []
    with policy(server)[0] as remote:
        assert remote.sample(["A", "B"], 2, progress=arrived.append).outputs == ["a", "b", "a", "b"]
    assert arrived == [2, 2]


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter", None])
def test_how_a_completion_ended_does_not_change_it(reason: str | None, serve: Callable[..., Server]) -> None:
    message = {"role": "assistant", "content": "cut o"}
    server = serve(
        lambda path, body: Reply({"choices": [{"index": 0, "message": message, "finish_reason": reason}]})
    )
    with policy(server)[0] as remote:
        assert remote.sample(["A"]).outputs == ["cut o"]


def test_no_inputs_are_no_requests(serve: Callable[..., Server]) -> None:
    server = serve()
    with policy(server)[0] as remote:
        assert remote.sample([], 2).outputs == [] and server.requests == []


@pytest.mark.parametrize(
    ("given", "used"),
    [("", "/v1"), ("/", "/v1"), ("/v1", "/v1"), ("/v1/", "/v1"), ("/proxy/api", "/proxy/api")],
)
def test_the_path_of_the_url_is_v1_unless_it_has_one(
    given: str, used: str, serve: Callable[..., Server]
) -> None:
    server = serve()
    with RemotePolicy(server.url + given, "tiny") as remote:
        remote.sample(["A"])
    assert server.requests[0][0] == f"{used}/chat/completions"


# ---- how many at once


def test_the_number_of_requests_at_once_is_the_limit_and_is_reached(serve: Callable[..., Server]) -> None:
    together = threading.Barrier(3)

    def answer(path: str, body: dict[str, Any]) -> Reply:
        together.wait(10)  # breaks, and with it the test, unless three requests are there at once
        return complete(path, body)

    server = serve(answer)
    prompts = [f"Q{i}" for i in range(12)]
    with policy(server, concurrency=3)[0] as remote:
        assert remote.sample(prompts).outputs == [f"Q{i}-0" for i in range(12)]
    assert server.most == 3 and len(server.requests) == 12


# ---- what is tried again


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_busy_server_is_asked_again_later_and_later(status: int, serve: Callable[..., Server]) -> None:
    remote, pauses = policy(serve(in_turn(Reply("busy", status), Reply("busy", status))))
    assert remote.sample(["A"]).outputs == ["A-0"]
    assert len(pauses) == 2 and 0.5 <= pauses[0] <= 0.625 and 1 <= pauses[1] <= 1.25
    assert remote.usage["requests"] == 3 and remote.usage["retries"] == 2


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 8.75),
        ("0", 0, 0),
        ("86400", LONGEST_PAUSE, 1.25 * LONGEST_PAUSE),
        ("inf", LONGEST_PAUSE, 1.25 * LONGEST_PAUSE),
        ("-5", 0, 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("Fri, 31 Dec 2999 23:59:59 GMT", LONGEST_PAUSE, 1.25 * LONGEST_PAUSE),
        ("soon", 0.5, 0.625),
        ("nan", 0.5, 0.625),
    ],
)
def test_retry_after_is_kept_to_within_bounds(
    header: str, least: float, most: float, serve: Callable[..., Server]
) -> None:
    remote, pauses = policy(serve(in_turn(Reply("busy", 429, Retry_After=header))))
    assert remote.sample(["A"]).outputs == ["A-0"]
    assert len(pauses) == 1 and least <= pauses[0] <= most


def test_a_server_that_stays_away_is_named_with_its_last_answer(serve: Callable[..., Server]) -> None:
    server = serve(lambda path, body: Reply({"error": "over\n  capacity"}, 503))
    remote, pauses = policy(server, retries=2)
    with pytest.raises(HeedfulError) as refused:
        remote.sample(["A"])
    assert str(refused.value) == (
        f"{server.url}/v1/chat/completions failed 3 times, the last time: "
        'status 503: {"error": "over\\n capacity"}'
    )
    assert len(pauses) == 2 and len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_is_final(status: int, serve: Callable[..., Server]) -> None:
    server = serve(lambda path, body: Reply({"error": "no " * 200}, status))
    remote, pauses = policy(server, concurrency=1)
    with pytest.raises(HeedfulError) as refused:
        remote.sample(["A", "B", "C"])
    said = str(refused.value)
    assert said.startswith(f"{server.url}/v1/chat/completions refused the request, status {status}: ")
    assert said.endswith("…") and len(said) < 450
    assert pauses == [] and len(server.requests) < 3, "what had not been sent stays unsent"


def test_a_server_that_does_not_answer_is_waited_for_only_so_long(serve: Callable[..., Server]) -> None:
    end = threading.Event()

    def answer(path: str, body: dict[str, Any]) -> Reply:
        end.wait(10)
        return complete(path, body)

    server = serve(answer)
    remote, pauses = policy(server, timeout=0.1, retries=1)
    try:
        with pytest.raises(HeedfulError, match=r"failed 2 times, the last time: no answer \(ReadTimeout"):
            remote.sample(["A"])
    finally:
        end.set()
    assert len(pauses) == 1 and len(server.requests) == 2


def test_a_server_that_is_not_there_is_asked_again() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    pauses: list[float] = []
    remote = RemotePolicy(f"http://127.0.0.1:{port}", "tiny", retries=2, pause=pauses.append)
    with pytest.raises(HeedfulError, match=rf"127\.0\.0\.1:{port}/v1.* failed 3 times.*ConnectError"):
        remote.sample(["A"])
    assert len(pauses) == 2


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b'{"choices": ['),
        Reply(b""),
        Reply(b"\xff\xfe"),
        Reply([1, 2]),
        Reply({}),
        Reply({"choices": []}),
        Reply({"choices": None}),
        Reply({"choices": ["text"]}),
        Reply({"choices": [{"index": 0, "text": "of the other kind"}]}),
        Reply({"choices": [{"index": 0, "message": None}]}),
        Reply({"choices": [{"index": 0, "message": {"content": 3}}]}),
        Reply({"choices": choices("/chat/completions", ["a"]), "usage": {"prompt_tokens": "many"}}),
    ],
)
def test_an_answer_without_a_completion_is_shown(reply: Reply, serve: Callable[..., Server]) -> None:
    server = serve(lambda path, body: reply)
    remote, pauses = policy(server)
    with pytest.raises(HeedfulError) as refused:
        remote.sample(["A"])
    said = str(refused.value)
    assert said.startswith(f"{server.url}/v1/chat/completions sent no completion: ") and pauses == []


def test_an_answer_that_cannot_be_unpacked_is_asked_for_again(serve: Callable[..., Server]) -> None:
    remote, pauses = policy(serve(in_turn(Reply(b"no gzip", Content_Encoding="gzip"))))
    assert remote.sample(["A"]).outputs == ["A-0"] and len(pauses) == 1


def test_an_empty_message_is_an_empty_completion(serve: Callable[..., Server]) -> None:
    message = {"role": "assistant", "content": None}
    with policy(serve(lambda path, body: Reply({"choices": [{"index": 0, "message": message}]})))[
        0
    ] as remote:
        assert remote.sample(["A"]).outputs == [""]


# ---- keys


def test_the_key_is_sent_where_it_belongs(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sent(**options: Any) -> str | None:
        server = serve()
        with policy(server, **options)[0] as remote:
            remote.sample(["A"])
        return server.requests[0][2].get("authorization")

    assert sent() is None
    monkeypatch.setenv("OPENAI_API_KEY", "for-openai")
    assert sent() is None, "no other host gets it"
    monkeypatch.setenv("HEEDFUL_API_KEY", "from-file\n")
    assert sent() == "Bearer from-file"
    assert sent(api_key="given") == "Bearer given"


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://api.openai.com/v1", True),
        ("https://openai.com", True),
        ("http://api.openai.com/v1", False),
        ("https://notopenai.com", False),
        ("https://openai.com.example.org", False),
        ("https://example.org/openai.com", False),
    ],
)
def test_the_key_of_openai_is_for_its_hosts(url: str, sent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with RemotePolicy(url, "tiny") as remote:
        assert (remote._client.headers.get("Authorization") == "Bearer secret") == sent


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(status: int, serve: Callable[..., Server]) -> None:
    other = serve()
    server = serve(lambda path, body: Reply("moved", status, Location=f"{other.url}/v1/chat/completions"))
    remote, _ = policy(server, api_key="secret")
    with pytest.raises(HeedfulError, match=f"refused the request, status {status}"):
        remote.sample(["A"])
    assert other.requests == []


def test_a_key_that_cannot_be_sent_is_not_shown() -> None:
    for key in ("two\nlines", "schlüssel"):
        with pytest.raises(HeedfulError, match="API key") as refused:
            RemotePolicy("http://127.0.0.1", "tiny", api_key=key)
        assert key not in str(refused.value)


# ---- the cache, and what is counted


def test_reproducible_answers_are_asked_for_once(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve()

    def draw(prompts: list[str], generator: torch.Generator | None = None) -> RemotePolicy:
        with policy(server, cache=tmp_path / "answers")[0] as remote:
            remote.sample(prompts, 2, generator=generator)
            return remote

    draw(["A", "B"], seeded(1))
    assert len(server.requests) == 2
    again = draw(["A", "B"], seeded(1))
    assert len(server.requests) == 2 and again.usage["cached"] == 2 and again.usage["requests"] == 0
    assert again.usage["completion_tokens"] == 0, "what was paid for earlier is not counted twice"
    draw(["A", "B"], seeded(2))
    assert len(server.requests) == 4
    draw(["A"])
    draw(["A"])
    assert len(server.requests) == 6, "without a seed each call is a new sample"


def test_the_most_likely_answer_is_reproducible_without_a_seed(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve()
    for _ in range(2):
        for name in ("tiny", "large"):
            with RemotePolicy(server.url, name, cache=tmp_path) as remote:
                assert remote.sample(["Ä"], temperature=0.0).outputs == ["Ä-0"]
                remote.sample(["Ä"], temperature=0.0, max_new_tokens=9)
    assert len(server.requests) == 4, "another model and another length are other requests"


def test_a_refused_request_is_not_kept(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(in_turn(Reply({"choices": []})))
    remote, _ = policy(server, cache=tmp_path)
    with pytest.raises(HeedfulError, match="no completion"):
        remote.sample(["A"], generator=seeded())
    assert remote.sample(["A"], generator=seeded()).outputs == ["A-0"]


def test_a_damaged_answer_in_the_cache_is_named(serve: Callable[..., Server], tmp_path: Path) -> None:
    remote, _ = policy(serve(), cache=tmp_path)
    remote.sample(["A"], generator=seeded())
    (kept,) = tmp_path.glob("*.json")
    kept.write_bytes(b'["A-')
    with pytest.raises(HeedfulError, match=f"{kept.name} cannot be read back"):
        remote.sample(["A"], generator=seeded())


def test_usage_is_counted_over_calls_and_threads(serve: Callable[..., Server]) -> None:
    remote, _ = policy(serve(in_turn(Reply("busy", 500))))
    for _ in range(2):
        remote.sample([f"Q{i}" for i in range(20)], 3)
    assert remote.usage == {
        "requests": 41,
        "retries": 1,
        "cached": 0,
        "prompt_tokens": 40 * 3,
        "completion_tokens": 40 * 6,
    }


# ---- what a served model cannot do, and wrong options


def test_it_can_only_sample() -> None:
    with RemotePolicy("http://127.0.0.1:1", "tiny") as remote:
        with pytest.raises(HeedfulError, match="cannot be trained"):
            _ = remote.module
        with pytest.raises(HeedfulError, match="can only sample"):
            remote.logp(Samples(["A"], ["a"], 1))


@pytest.mark.parametrize(
    ("url", "options", "told"),
    [
        ("localhost:8000", {}, "starts with http:// or https://"),
        ("ftp://host", {}, "starts with http:// or https://"),
        ("http://", {}, "starts with http:// or https://"),
        ("http://host:port/v1", {}, "cannot be 'http://host:port/v1'"),
        ("http://host:99999", {}, "cannot be 'http://host:99999'"),
        ("http://me:secret@host", {}, "no password"),
        ("http://host/v1?version=1", {}, "without ? and #"),
        ("http://host/v1#top", {}, "without ? and #"),
        ("http://host", {"concurrency": 0}, "concurrency must be at least 1"),
        ("http://host", {"retries": -1}, "retries at least 0"),
        ("http://host", {"timeout": 0.0}, "timeout above 0"),
        ("http://host", {"template": "auto"}, "template must be chat or none"),
    ],
)
def test_options_that_cannot_be_are_refused(url: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(HeedfulError) as refused:
        RemotePolicy(url, "tiny", **options)
    assert told in str(refused.value) and "secret" not in str(refused.value)


def test_none_of_n_is_refused() -> None:
    with RemotePolicy("http://127.0.0.1:1", "tiny") as remote:
        for options in ({"n": 0}, {"max_new_tokens": 0}):
            with pytest.raises(HeedfulError, match="must be at least 1"):
                remote.sample(["A"], **options)
