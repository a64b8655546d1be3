"""A model behind an OpenAI-compatible server (vLLM, llama.cpp, a hosted service) as a policy that only samples.

Letters: B inputs, N samples per input.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

import httpx
import torch

from heedful.atomic import write_file
from heedful.errors import HeedfulError
from heedful.feedback import Samples
from heedful.policies.encode import Prompt
from heedful.policies.web import beginning, persist


class Spent(NamedTuple):
    """What one request took, as the server counts it: tokens, None where it does not say.

    cut: how many of its completions ended because they reached `max_new_tokens`.
    """

    prompt_tokens: int | None
    completion_tokens: int | None
    cut: int


class RemotePolicy:
    """A served model: `sample` works, `logp` and training do not. Outputs are plain strings.

    url: the server's base, as `http://host:8000/v1` (`/v1` is added where the url has no path).
    api_key: else $HEEDFUL_API_KEY, or $OPENAI_API_KEY for https hosts of openai.com, which no other is ever sent.
    template: "chat" sends a plain-text prompt as one user message, "none" as it is to `/completions`; a list of
    messages always goes to `/chat/completions`.
    timeout: seconds without a sign of the server. retries: further tries after 408, 429, 5xx, a broken connection
    or a timeout; other refusals are final. cache: a folder of answers by content of the request, which is read
    only where the answer is reproducible: with a generator, or at temperature 0.
    `usage` counts requests, retries, cached answers, prompt_tokens and completion_tokens.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 4,
        cache: str | Path | None = None,
        template: str = "chat",
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError as error:
            raise HeedfulError(f"a server's url cannot be {url!r}: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise HeedfulError(f"a server's url starts with http:// or https://, not {url!r}")
        if parts.username or parts.password:
            raise HeedfulError("put no password into the server's url; give the key as HEEDFUL_API_KEY")
        if parts.query or parts.fragment:
            raise HeedfulError(
                f"a server's url is its base, without ? and #, not {url!r}: paths are added at its end"
            )
        if concurrency < 1 or retries < 0 or timeout <= 0:
            raise HeedfulError("concurrency must be at least 1, retries at least 0 and timeout above 0")
        if template not in ("chat", "none"):
            raise HeedfulError(f"template must be chat or none, not {template!r}")
        self.url = url.rstrip("/") + ("" if parts.path.strip("/") else "/v1")
        self.model = model
        self.concurrency = concurrency
        self.retries = retries
        self.cache = Path(cache) if cache is not None else None
        self.template = template
        self.usage: dict[str, int] = dict.fromkeys(
            ("requests", "retries", "cached", "prompt_tokens", "completion_tokens"), 0
        )
        self._pause = pause
        self._lock = threading.Lock()
        key = api_key or os.environ.get("HEEDFUL_API_KEY")
        openai = parts.hostname == "openai.com" or parts.hostname.endswith(".openai.com")
        if not key and openai and parts.scheme == "https":  # never in the open
            key = os.environ.get("OPENAI_API_KEY")
        key = (key or "").strip()
        if not (key.isascii() and key.isprintable()):
            raise HeedfulError(
                "the API key has characters that cannot be sent; is it whole, and on one line?"
            )
        self._client = httpx.Client(
            timeout=timeout,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(max_connections=concurrency),
        )

    @property
    def module(self) -> NoReturn:
        """Raises HeedfulError: the weights are on the server."""
        raise HeedfulError(
            f"{self.model} at {self.url} has no weights here: a served model cannot be trained"
        )

    def logp(self, samples: Samples) -> NoReturn:
        """Raises HeedfulError: servers return no log-probability of a text that was given to them."""
        raise HeedfulError(
            f"{self.model} at {self.url} can only sample: the server's protocol has no log-probabilities of given "
            "answers, so it cannot be a reference or be trained; load the model itself for that"
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> RemotePolicy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sample(
        self,
        inputs: Sequence[Prompt],
        n: int = 1,
        *,
        temperature: float = 1.0,
        max_new_tokens: int = 128,
        stop: Sequence[str] = (),
        top_p: float = 1.0,
        generator: torch.Generator | None = None,
        seeds: Sequence[int] | None = None,
        progress: Callable[[int], None] | None = None,
        arrived: Callable[[int, list[str], Spent], None] | None = None,
    ) -> Samples:
        """n completions for each of B inputs, input-major, each at most `max_new_tokens` tokens.

        generator: seeds for the server are drawn from it, one per completion; servers that honour `seed` then
        answer the same again. seeds: one for each input instead, below 2**31 - 1, so that what is drawn does not
        depend on the other inputs. progress: called with the number of completions that arrived. arrived: called with
        the number of the input, its completions of one request and what they took, as each answer comes, one at a
        time; what has arrived can be kept even where a later request fails.
        Raises HeedfulError naming url, status and the answer's beginning when the server refuses or stays away.
        """
        if n < 1 or max_new_tokens < 1:
            raise HeedfulError("n and max_new_tokens must be at least 1")
        options: dict[str, Any] = {"model": self.model, "temperature": temperature, "top_p": top_p}
        options |= {"max_tokens": max_new_tokens}
        if stop:
            options["stop"] = list(stop)
        requests = [self._request(prompt) for prompt in inputs]
        drawn: list[list[int]] | None = None
        if generator is not None:
            drawn = torch.randint(2**31 - 1, (len(requests), n), generator=generator).tolist()
        elif seeds is not None:
            drawn = [[(seed + i) % (2**31 - 1) for i in range(n)] for seed in seeds]

        def answer(i: int) -> list[str]:
            path, body = requests[i]
            texts: list[str] = []
            while len(texts) < n:
                # a server may give fewer than asked for; the rest is asked for again, by the rest's own seed
                more = {"n": n - len(texts)} | ({"seed": drawn[i][len(texts)]} if drawn is not None else {})
                got, spent = self._ask(path, {**body, **options, **more})
                got = got[: n - len(texts)]
                texts += got
                with self._lock:
                    if arrived is not None:
                        arrived(i, got, spent)
                    if progress is not None:
                        progress(len(got))
            return texts

        pool = ThreadPoolExecutor(min(self.concurrency, max(1, len(requests))))
        try:
            jobs = [pool.submit(answer, i) for i in range(len(requests))]
            done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
            failed = [error for job in jobs if job in done and (error := job.exception()) is not None]
            if failed:
                raise failed[0]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return Samples(inputs=list(inputs), outputs=[text for job in jobs for text in job.result()], n=n)

    def _request(self, prompt: Prompt) -> tuple[str, dict[str, Any]]:
        if not isinstance(prompt, str):
            return "/chat/completions", {"messages": [dict(m) for m in prompt]}
        if self.template == "chat":
            return "/chat/completions", {"messages": [{"role": "user", "content": prompt}]}
        return "/completions", {"prompt": prompt}

    def _ask(self, path: str, body: dict[str, Any]) -> tuple[list[str], Spent]:
        """The texts of one request and what it took, from the cache (for nothing) where they are reproducible."""
        kept = None
        if self.cache is not None and ("seed" in body or body["temperature"] == 0):
            content = json.dumps([self.url, path, body], sort_keys=True).encode()
            kept = self.cache / f"{hashlib.sha256(content).hexdigest()[:32]}.json"
            if kept.is_file():
                with self._lock:
                    self.usage["cached"] += 1
                try:
                    return json.loads(kept.read_bytes()), Spent(0, 0, 0)
                except (OSError, ValueError) as error:
                    raise HeedfulError(f"{kept} cannot be read back ({error}); delete it") from error
        texts, spent = self._texts(path, self._post(path, body))
        if kept is not None:
            with self._lock:
                write_file(kept, json.dumps(texts, ensure_ascii=False).encode())
        return texts, spent

    def _texts(self, path: str, response: httpx.Response) -> tuple[list[str], Spent]:
        try:
            answer = response.json()
            choices = sorted(answer["choices"], key=lambda c: c.get("index", 0))
            if path.startswith("/chat"):
                texts = [c["message"].get("content") or "" for c in choices]
            else:
                texts = [c["text"] for c in choices]
            if not texts or not all(isinstance(t, str) for t in texts):
                raise ValueError("no choices")
            used = answer.get("usage") if isinstance(answer.get("usage"), dict) else {}
            counts = {
                name: int(used[name]) if used.get(name) is not None else None
                for name in ("prompt_tokens", "completion_tokens")
            }
            cut = sum(c.get("finish_reason") == "length" for c in choices)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HeedfulError(f"{self.url}{path} sent no completion: {beginning(response)}") from error
        with self._lock:
            for name, count in counts.items():
                self.usage[name] += count or 0
        return texts, Spent(counts["prompt_tokens"], counts["completion_tokens"], cut)

    def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """The server's answer of status 200; tries again where that may help."""
        where = f"{self.url}{path}"

        def note(what: str) -> None:
            with self._lock:
                self.usage[what] += 1

        ask = partial(self._client.post, where, json=body)
        return persist(ask, where, retries=self.retries, pause=self._pause, note=note)
