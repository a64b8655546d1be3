"""Requests to a server that may be slow, busy or gone: tried again where that may help, a bounded number of times."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable

import httpx

from heedful.errors import HeedfulError

LONGEST_PAUSE = 60.0
"""Seconds; a server that asks for more in Retry-After is asked again after this long."""


def persist(
    ask: Callable[[], httpx.Response],
    where: str,
    *,
    retries: int,
    pause: Callable[[float], None] = time.sleep,
    note: Callable[[str], None] = lambda what: None,
) -> httpx.Response:
    """The server's answer of status 200 to `ask`, which is called again after 408, 429, 5xx, a broken connection or a
    timeout; other refusals are final.

    where: what errors call the server. note: called with "requests" and "retries" as they happen.
    Raises HeedfulError naming the server, the status and the answer's beginning when it refuses or stays away.
    """
    problem = ""
    for attempt in range(retries + 1):
        asked: float | None = None
        note("requests")
        try:
            response = ask()
        except httpx.InvalidURL as error:
            raise HeedfulError(f"{where}: {error}") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            problem = f"no answer ({type(error).__name__}: {error})"
        else:
            if response.status_code == 200:
                return response
            problem = f"status {response.status_code}: {beginning(response)}"
            if response.status_code not in (408, 429) and response.status_code < 500:
                raise HeedfulError(f"{where} refused the request, {problem}")
            asked = retry_after(response)
        if attempt == retries:
            break
        note("retries")
        # jitter keeps the threads of a batch from coming back all at once
        pause(min(LONGEST_PAUSE, asked if asked is not None else 0.5 * 2**attempt) * random.uniform(1, 1.25))
    raise HeedfulError(f"{where} failed {retries + 1} times, the last time: {problem}")


def beginning(response: httpx.Response) -> str:
    """The first 300 characters of an answer on one line, for messages."""
    text = " ".join(response.text.split())
    return text[:300] + ("…" if len(text) > 300 else "") if text else "(empty answer)"


def retry_after(response: httpx.Response) -> float | None:
    """Seconds the server asks to wait (RFC 9110, section 10.2.3: a number or a date); None when it does not."""
    value = response.headers.get("Retry-After", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if seconds == seconds else None
