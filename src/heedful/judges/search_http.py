"""Any search service that speaks JSON as a retriever: what is sent and where the hits lie is a small YAML or JSON file.

    url: http://localhost:8000/search
    body: {query: "{query}", top_k: "{k}"}
    hits: results
    title: document.title
    text: document.text
    score: score

Requests are tried again a bounded number of times and answers are kept, as a served model's are (policies/remote).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from heedful.atomic import write_file
from heedful.config import content_hash, load_config
from heedful.data.passages import Passage
from heedful.data.problems import printable, what
from heedful.errors import HeedfulError
from heedful.judges.search import Hit, check_k
from heedful.policies.web import beginning, persist


@dataclass(frozen=True)
class Service:
    """How a service is asked and its answer read. A path such as `hits.0.text` names keys, and places in lists."""

    url: str
    """Where requests go."""
    method: Literal["POST", "GET"] = "POST"
    """GET sends `params` alone."""
    body: dict[str, Any] = field(default_factory=dict)
    """JSON to send; "{query}" and "{k}" in its texts are filled in, a text that is nothing else becomes the value."""
    params: dict[str, Any] = field(default_factory=dict)
    """Parameters of the url, filled in likewise."""
    headers: dict[str, str] = field(default_factory=dict)
    """More headers. A secret does not belong here: see `key_from`."""
    key_from: str = ""
    """The environment variable that holds a key to send."""
    key_header: str = "Authorization"
    """The header the key is sent in."""
    key_prefix: str = "Bearer "
    """What stands before it there."""
    hits: str = ""
    """Path to the list of hits; empty: the answer is the list."""
    id: str = ""
    """Path in a hit to its identifier; empty: it has none."""
    title: str = ""
    """Path in a hit to its title; empty: there is none, or it stands at the beginning of the text (`split`)."""
    text: str = "text"
    """Path in a hit to its text."""
    score: str = ""
    """Path in a hit to its score; empty: 1 / rank."""
    split: str = ""
    """What stands between a title and the text, where one field has both, as " | " or a line break."""
    lower_is_better: bool = False
    """Scores are distances; they are negated."""
    concurrency: int = 8
    """Requests at the same time."""
    timeout: float = 30.0
    """Seconds without a sign of the service."""
    retries: int = 4
    """Further tries after 408, 429, 5xx, a broken connection or a timeout."""


def read_service(path: str | Path) -> Service:
    """The mapping in a YAML or JSON file. Raises HeedfulError naming file and key."""
    return check_service(load_config(Service, Path(path)), str(path))


def check_service(service: Service, where: str) -> Service:
    """The same service. Raises HeedfulError for what cannot be asked."""
    try:
        parts = urlsplit(service.url)
        _ = parts.port
    except ValueError as error:
        raise HeedfulError(f"{where}: url: cannot be {service.url!r}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise HeedfulError(f"{where}: url: must start with http:// or https://, not {service.url!r}")
    if parts.username or parts.password:
        raise HeedfulError(f"{where}: url: put no password into it; see key_from")
    if service.concurrency < 1 or service.retries < 0 or not service.timeout > 0:
        raise HeedfulError(f"{where}: concurrency must be at least 1, retries at least 0 and timeout above 0")
    if service.method == "GET" and service.body:
        raise HeedfulError(f"{where}: body: a GET request has none; use params")
    if "{query}" not in json.dumps([service.body, service.params]):
        raise HeedfulError(f'{where}: neither body nor params has a place for the query: write "{{query}}"')
    if not service.text:
        raise HeedfulError(f"{where}: text: the path to the text of a hit is needed")
    return service


class HttpSearch:
    """A search service as a retriever; see `Retriever` and `Service`. A context manager.

    cache: a folder of answers by content of the request. pause: how to wait between tries.
    `usage` counts requests, retries, cached answers, and hits without text, which are left out.
    """

    def __init__(
        self,
        service: Service,
        *,
        cache: str | Path | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.service = check_service(service, "the search service")
        self.cache = Path(cache) if cache is not None else None
        self.usage: dict[str, int] = {"requests": 0, "retries": 0, "cached": 0, "empty_hits": 0}
        self._pause = pause
        self._lock = threading.Lock()
        headers = dict(service.headers)
        if service.key_from:
            key = os.environ.get(service.key_from, "").strip()
            if not key or not (key.isascii() and key.isprintable()):
                raise HeedfulError(
                    f"the environment variable {service.key_from} holds no key that can be sent"
                )
            headers[service.key_header] = service.key_prefix + key
        self._client = httpx.Client(
            timeout=service.timeout,
            headers=headers,
            limits=httpx.Limits(max_connections=service.concurrency),
        )

    @property
    def fingerprint(self) -> str:
        """See `Retriever`; of the mapping. What the service itself holds is not known here."""
        how = replace(self.service, key_from="", concurrency=1, timeout=1.0, retries=0)
        return content_hash(["http", how])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> HttpSearch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """See `Retriever`. Equal queries are asked once.

        Raises HeedfulError when the service refuses or stays away, with the number of answers that are kept, and when
        its answers do not fit the mapping.
        """
        check_k(k)
        asked = list(dict.fromkeys(query for query in queries if query.strip()))
        pool = ThreadPoolExecutor(min(self.service.concurrency, max(1, len(asked))))
        try:
            jobs = {query: pool.submit(self._search, query, k) for query in asked}
            done, _ = wait(jobs.values(), return_when=FIRST_EXCEPTION)
            failed = [error for job in done if (error := job.exception()) is not None]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        if failed:
            if self.cache is None or not isinstance(failed[0], HeedfulError):
                raise failed[0]
            well = sum(
                job.done() and not job.cancelled() and job.exception() is None for job in jobs.values()
            )
            raise HeedfulError(
                f"{failed[0]}\n{well} of {len(asked)} queries were answered and are kept in {self.cache}; the same "
                "command asks only the others"
            ) from failed[0]
        return [jobs[query].result()[:k] if query in jobs else [] for query in queries]

    def _search(self, query: str, k: int) -> list[Hit]:
        values = {"{query}": query, "{k}": k}
        request = {"url": self.service.url, "method": self.service.method}
        request |= {
            "json": _filled(self.service.body, values),
            "params": _filled(self.service.params, values),
        }
        kept = None
        if self.cache is not None:
            content = json.dumps([self.fingerprint, request], sort_keys=True).encode()
            kept = self.cache / f"{hashlib.sha256(content).hexdigest()[:32]}.json"
            if kept.is_file():
                with self._lock:
                    self.usage["cached"] += 1
                try:
                    return [Hit.from_row(row) for row in json.loads(kept.read_bytes())]
                except (OSError, ValueError, KeyError, TypeError) as error:
                    raise HeedfulError(f"{kept} cannot be read back ({error}); delete it") from error
        if self.service.method == "GET":
            del request["json"]
        hits = self._read(self._ask(request))
        if kept is not None:
            with self._lock:
                write_file(kept, json.dumps([hit.as_row() for hit in hits], ensure_ascii=False).encode())
        return hits

    def _ask(self, request: dict[str, Any]) -> httpx.Response:
        def note(name: str) -> None:
            with self._lock:
                self.usage[name] += 1

        return persist(
            partial(self._client.request, **request),
            self.service.url,
            retries=self.service.retries,
            pause=self._pause,
            note=note,
        )

    def _read(self, response: httpx.Response) -> list[Hit]:
        try:
            answer = response.json()
        except ValueError as error:
            raise HeedfulError(f"{self.service.url} sent no JSON: {beginning(response)}") from error
        listed = _at(answer, self.service.hits, self.service.url)
        if not isinstance(listed, list):
            raise HeedfulError(
                f"{self.service.url}: hits: {self.service.hits!r} is {what(listed)} in the answer, not a list: "
                f"{beginning(response)}"
            )
        hits = [self._hit(item, rank) for rank, item in enumerate(listed, start=1)]
        full = [hit for hit in hits if hit.passage.text]
        with self._lock:
            self.usage["empty_hits"] += len(hits) - len(full)
        return sorted(full, key=lambda hit: -hit.score)

    def _hit(self, item: Any, rank: int) -> Hit:
        service, where = self.service, f"{self.service.url}: hit {rank}"

        def value(path: str, kinds: tuple[type, ...]) -> Any:
            found = _at(item, path, where)
            if isinstance(found, bool) or not isinstance(found, kinds):
                raise HeedfulError(f"{where}: {path!r} is {what(found)}")
            return found

        text = value(service.text, (str,)).strip()
        title = str(value(service.title, (str,))).strip() if service.title else ""
        if service.split and not service.title and service.split in text:
            title, _, text = (part.strip() for part in text.partition(service.split))
            title = title.strip('"')
        score = float(value(service.score, (int, float))) if service.score else 1 / rank
        if not math.isfinite(score):
            raise HeedfulError(f"{where}: {service.score!r} is {score}, not a number to sort by")
        key = str(value(service.id, (str, int))) if service.id else ""
        return Hit(Passage(key, title, text), -score if service.lower_is_better else score)


def _filled(template: Any, values: Mapping[str, Any]) -> Any:
    """The template with its places filled in. Nothing is formatted: a query with braces in it stays what it is."""
    if isinstance(template, Mapping):
        return {key: _filled(item, values) for key, item in template.items()}
    if isinstance(template, list | tuple):
        return [_filled(item, values) for item in template]
    if not isinstance(template, str):
        return template
    if template in values:
        return values[template]
    return template.replace("{k}", str(values["{k}"])).replace("{query}", values["{query}"])


def _at(value: Any, path: str, where: str) -> Any:
    """What lies at a dotted path. Raises HeedfulError naming the first part that is not there."""
    for part in path.split(".") if path else []:
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            have = ", ".join(map(str, list(value)[:8])) if isinstance(value, Mapping) else what(value)
            raise HeedfulError(printable(f"{where}: there is no {part!r} of {path!r}; there is {have}"))
    return value
