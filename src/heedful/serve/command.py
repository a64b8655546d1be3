"""`heedful serve RUN`, and under its other name `heedful personalize serve RUN`: options, and the server around a page.

Without a token the page can be reached from this computer alone. With one it may be bound anywhere, and every request
needs the token; it travels in the clear unless a proxy with TLS or an SSH tunnel stands in front.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from tyro.conf import Positional, arg

from heedful.data.problems import printable
from heedful.errors import HeedfulError

SHORTEST_TOKEN = 16
VARIABLE = "HEEDFUL_TOKEN"


@dataclass(frozen=True)
class Serve:
    """The web page of a run: one person picks the better of two answers, or corrects a robot in words."""

    run: Positional[Annotated[str, arg(metavar="RUN")]]
    """A run folder of `heedful personalize fit`, or of `heedful correct train` or `learn`."""
    port: int = 8765
    """The port; 0 takes any that is free."""
    host: str = "127.0.0.1"
    """The address to listen at. Only this computer reaches the default; another one needs --token."""
    token: str = ""
    """A secret of 16 or more characters that every request must know; `auto` makes one. Else $HEEDFUL_TOKEN, if set."""
    allow_host: tuple[str, ...] = ()
    """More names that the page is reached by, such as that of a proxy; others are refused (DNS rebinding)."""
    criterion: Literal["bald", "entropy", "variance", "random"] = "bald"
    """personalize: which pair is asked about next, until another choice is made on the page."""
    out: str = "runs/corrections"
    """correct: where episodes and corrections go; see `heedful correct run --person web`, which has more options."""


def main(options: Serve) -> int:
    """Run `heedful serve` until it is stopped. Raises HeedfulError when it cannot start."""
    from heedful.recipes.correct_models import pair_folder

    if pair_folder(options.run) is not None:
        _refuse(options, "criterion", "heedful correct")
        return _correct(options)
    _refuse(options, "out", "heedful personalize")

    def make() -> Page:
        from heedful.serve.app import make_app
        from heedful.serve.person_page import PersonPage

        page = PersonPage(Path(options.run), options.criterion)
        told = f"{printable(page.name)}: {page.progress()}"
        stopped = "the same command goes on where this one ended"
        return Page(make_app(page), told, "every click is on disk", stopped, ended=page.ended)

    return serve(make, options.host, options.port, options.token, options.allow_host)


def _refuse(options: Serve, name: str, job: str) -> None:
    """Raises HeedfulError where an option was given that the page of this job does not have."""
    if getattr(options, name) != getattr(Serve(options.run), name):
        raise HeedfulError(f"--{name} has no meaning here: {printable(options.run)} is a run of `{job}`")


def _correct(options: Serve) -> int:
    from heedful.recipes.correct_run import Options
    from heedful.serve.correct_app import main

    there = {name: getattr(options, name) for name in ("run", "out", "port", "host", "token", "allow_host")}
    return main(Options(person="web", episodes=0, **there))


@dataclass(frozen=True)
class Page:
    """An app and what the terminal says: of it, of what is safe, and when it has been stopped.

    microphone: whether the page may listen. ended: done once it has been stopped.
    """

    app: Any
    told: str
    safe: str
    stopped: str
    microphone: bool = False
    ended: Callable[[], None] = lambda: None


def serve(
    make: Callable[[], Page], host: str, port: int, token: str = "", allow_host: Sequence[str] = ()
) -> int:
    """Serve a page until it is stopped; it is made once host, port and token are found to make sense.

    Raises HeedfulError when it cannot start.
    """
    secret = _token(token)
    if not 0 <= port <= 65535:
        raise HeedfulError(f"--port {port}: a port is a number from 0 to 65535")
    if not secret and not _loopback(host):
        raise HeedfulError(
            f"--host {host} can be reached from other computers: give --token auto as well, or keep 127.0.0.1"
        )
    try:
        import uvicorn

        from heedful.serve.guard import Guard, names_of
    except ModuleNotFoundError as error:
        raise HeedfulError(
            f"the page needs the extra `web` ({error.name} is missing): pip install 'heedful[web]'"
        ) from error
    page = make()
    with _listening(host, port) as listener:
        taken = listener.getsockname()[1]
        guard = Guard(
            page.app, names=names_of(host, allow_host, secret), token=secret, microphone=page.microphone
        )
        config = uvicorn.Config(
            guard,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=3,
        )
        print(page.told, flush=True)
        print(f"open {_address(host, taken, secret)}   (Ctrl-C stops; {page.safe})", flush=True)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            page.ended()
            print(f"stopped; {page.stopped}")
    return 0


def _token(given: str) -> str:
    token = given or os.environ.get(VARIABLE, "")
    if token == "auto":
        return secrets.token_urlsafe(24)
    if token and len(token) < SHORTEST_TOKEN:
        where = "--token" if given else f"${VARIABLE}"
        raise HeedfulError(
            f"{where} has {len(token)} characters: at least {SHORTEST_TOKEN} are needed, or `auto`"
        )
    return token


def _loopback(host: str) -> bool:
    """Whether only this computer reaches a host: an address or a name, of which every address must be loopback."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(
        ipaddress.ip_address(str(one[4][0]).split("%")[0]).is_loopback for one in found
    )


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise HeedfulError(f"--host {host}: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise HeedfulError(
            f"cannot listen at {host} port {port} ({error.strerror}): choose another --port, or 0 for any that is free"
        ) from error
    return listener


def _address(host: str, port: int, token: str) -> str:
    """What to open in a browser. Of a host that stands for all addresses, this computer's name."""
    if host in ("0.0.0.0", "::", ""):
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"?token={quote(token, safe='')}" if token else "")
