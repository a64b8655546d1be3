"""The routes of the page. Every answer is a file of this package or JSON; what went wrong is said in words.

GET  /                      the page; /serve.js, /serve.css, /page.css and /icon.svg belong to it
GET  /api/state             all that the page shows; ?criterion= says which pair to ask about
POST /api/label             {"id", "label": 1 | 0 | 0.5, "seen", "criterion"}: takes a click, answers with the new state
POST /api/undo              {"id", "seen", "criterion"}: takes the last click back, likewise
GET  /api/export            the clicks as JSONL in heedful's preference format

`seen` is the number of labels that the page has seen. A click on a page that other clicks have overtaken is answered
with 409 and not taken. A label is on disk before its answer is sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from heedful.errors import HeedfulError
from heedful.serve.person_page import Overtaken, PersonPage

LARGEST_BODY = 4096
_FILES = {
    "/": ("page/index.html", "text/html"),
    "/serve.js": ("page/serve.js", "text/javascript"),
    "/serve.css": ("page/serve.css", "text/css"),
    "/page.css": ("../templates/page.css", "text/css"),
    "/icon.svg": ("page/icon.svg", "image/svg+xml"),
}
_KINDS: dict[str, type | tuple[type, ...]] = {"id": str, "label": (int, float), "seen": int, "criterion": str}


class _Wrong(HTTPException):
    """A request that no page of ours sends."""


class _Plain(JSONResponse):
    """JSON in ASCII, so that text which is not whole Unicode can be sent too."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


def make_app(page: PersonPage) -> Starlette:
    """The app of one page. `Guard` must stand in front of it."""

    def state(request: Request) -> Response:
        return _answer(request, page.state(request.query_params.get("criterion") or page.criterion))

    async def label(request: Request) -> Response:
        said = await _body(request, ("id", "label", "seen", "criterion"))
        return _answer(request, await run_in_threadpool(page.label, **said))

    async def undo(request: Request) -> Response:
        said = await _body(request, ("id", "seen", "criterion"))
        return _answer(request, await run_in_threadpool(page.undo, **said))

    def export(request: Request) -> Response:
        lines = "".join(json.dumps(row) + "\n" for row in page.export())
        named = {"content-disposition": 'attachment; filename="preferences.jsonl"'}
        return Response(lines.encode(), media_type="application/jsonl", headers=named)

    return Starlette(
        routes=[
            *(Route(path, _file(*_FILES[path])) for path in _FILES),
            Route("/api/state", state),
            Route("/api/label", label, methods=["POST"]),
            Route("/api/undo", undo, methods=["POST"]),
            Route("/api/export", export),
        ],
        exception_handlers={
            Overtaken: partial(_told, 409),
            HeedfulError: partial(_told, 422),
            HTTPException: _http,
            Exception: _broken,
        },
    )


def _file(name: str, kind: str) -> Callable[[Request], Response]:
    content = (Path(__file__).parent / name).resolve().read_bytes()
    return lambda request: Response(content, media_type=kind)


def _answer(request: Request, state: Mapping[str, Any]) -> Response:
    return _Plain({**state, "csrf": request.state.csrf})


async def _body(request: Request, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a request to write, each there and of its kind."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise _Wrong(415, "a JSON object is needed (content-type: application/json)")
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > LARGEST_BODY:
            raise _Wrong(413, f"at most {LARGEST_BODY} bytes are taken")
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _Wrong(400, f"this is not JSON: {error}") from error
    if not isinstance(said, dict) or set(said) != set(names):
        raise _Wrong(400, f"an object with {', '.join(names)} is needed, and nothing else")
    for name in names:
        if not isinstance(said[name], _KINDS[name]) or isinstance(said[name], bool):
            raise _Wrong(400, f"{name}: {said[name]!r} is of the wrong kind")
    return said


def _told(status: int, request: Request, error: Exception) -> Response:
    return _Plain({"error": str(error)}, status)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if request.url.path.startswith("/api/"):
        return _Plain({"error": error.detail}, error.status_code, error.headers)
    return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)


def _broken(request: Request, error: Exception) -> Response:
    return _Plain({"error": "the server met an error of its own; its terminal says which one"}, 500)
