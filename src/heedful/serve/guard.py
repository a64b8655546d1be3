"""Who may ask the page for what. Stands in front of the app and sees every request first.

Host      must be a name of this server: a foreign name that resolves to it is DNS rebinding
token     where one is set, every request needs it: a cookie, or `Authorization: Bearer TOKEN`. The address with
          ?token= sets the cookie and is left at once, so that the token stays in no history and no screenshot.
writing   needs the origin of the page itself, and the number that the page has been given (CSRF)
answers   carry a policy: nothing inline, nothing from outside, no frame around it
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CSRF = "x-heedful-csrf"
READING = ("GET", "HEAD")
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:]+)(?::\d{1,5})?")


def names_of(host: str, allowed: Sequence[str], token: str) -> frozenset[str]:
    """The names that requests may be addressed to. "ip" stands for any number address, which cannot be rebound."""
    names = {"localhost", "127.0.0.1", "::1", host, *allowed}
    if token:
        names |= {"ip", socket.gethostname(), socket.getfqdn()}
    return frozenset(name.strip("[]").lower() for name in names if name)


class Guard:
    """An ASGI app around another one.

    names: see `names_of`. token: empty where none is needed. microphone: whether the page may listen. csrf: what the
    page must send along to write, told to the app as `request.state.csrf`; made anew for each start.
    """

    def __init__(
        self, app: ASGIApp, *, names: frozenset[str], token: str = "", microphone: bool = False
    ) -> None:
        self.app, self.names, self.token = app, names, token
        listening = {
            "permissions-policy": HEADERS["permissions-policy"].replace("microphone=()", "microphone=(self)")
        }
        self.headers = HEADERS | (listening if microphone else {})
        self.csrf = secrets.token_urlsafe(24)
        # The cookie holds what is derived from the token, not the token; servers on other ports have other cookies.
        self._cookie = f"heedful_{self._derived('name')[:8]}"
        self._pass = self._derived("pass")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        scope.setdefault("state", {})["csrf"] = self.csrf
        answer = self._refusal(scope)
        await (answer or self.app)(scope, receive, sending)

    def _refusal(self, scope: Scope) -> Response | None:
        """What to answer instead of the app; None when the app may answer."""
        headers = Headers(scope=scope)
        if not self._addressed(headers):
            return _refuse(scope, 421, "This page does not answer to that host name; see --allow-host.")
        if self.token:
            wanted = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
            given = wanted.get("token")
            if given and scope["method"] in READING and self._same(given[-1], self.token):
                return self._entered(scope)
            if given or not self._known(headers):
                return _refuse(
                    scope,
                    401,
                    "This page needs its token: open the address that `heedful serve` has printed.",
                )
        if scope["method"] not in READING and not self._own(headers):
            return _refuse(scope, 403, "This was not sent by the page itself. Reload the page and try again.")
        return None

    def _addressed(self, headers: Headers) -> bool:
        hosts = headers.getlist("host")
        found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if not found:
            return False
        name = found[1].strip("[]").lower().rstrip(".")
        return name in self.names - {"ip"} or ("ip" in self.names and _is_number(name))

    def _entered(self, scope: Scope) -> Response:
        answer = RedirectResponse("/", status_code=303)
        secure = scope.get("scheme") == "https"
        answer.set_cookie(self._cookie, self._pass, httponly=True, samesite="lax", secure=secure)
        return answer

    def _known(self, headers: Headers) -> bool:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._same(bearer.strip(), self.token):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return cookie is not None and self._same(cookie.value, self._pass)

    def _own(self, headers: Headers) -> bool:
        """Whether the page itself has sent a request to write."""
        origin = urlsplit(headers.get("origin", ""))
        return (
            origin.scheme in ("http", "https")
            and origin.netloc.lower() == headers.get("host", "").lower()
            and headers.get("sec-fetch-site", "same-origin") == "same-origin"
            and self._same(headers.get(CSRF, ""), self.csrf)
        )

    def _derived(self, what: str) -> str:
        return hmac.new(self.token.encode(), f"heedful serve {what}".encode(), hashlib.sha256).hexdigest()

    @staticmethod
    def _same(given: str, wanted: str) -> bool:
        """In a time that does not tell how much of it is right."""
        return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name.split("%")[0])
    except ValueError:
        return False
    return True


def _refuse(scope: Scope, status: int, told: str) -> Response:
    if scope["path"].startswith("/api/"):
        return JSONResponse({"error": told}, status)
    return PlainTextResponse(told + "\n", status)
