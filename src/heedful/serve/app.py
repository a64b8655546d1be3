"""The routes of the page. Every answer is a file of this package or JSON; what went wrong is said in words.

GET  /                      the page; /serve.js, /ask.js, /serve.css, /page.css and /icon.svg belong to it
GET  /api/state             all that the page shows; ?criterion= says which pair to ask about
POST /api/label             {"id", "label": 1 | 0 | 0.5, "seen", "criterion"}: takes a click, answers with the new state
POST /api/undo              {"id", "seen", "criterion"}: takes the last click back, likewise
GET  /api/export            the clicks as JSONL in heedful's preference format

`seen` is the number of labels that the page has seen. A click on a page that other clicks have overtaken is answered
with 409 and not taken. A label is on disk before its answer is sent.
"""

from __future__ import annotations

import json
from functools import partial

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from heedful.serve.answers import HANDLERS, Kinds, answer, body, file_routes, told
from heedful.serve.person_page import Overtaken, PersonPage

_FILES = {
    "/": ("page/index.html", "text/html"),
    "/serve.js": ("page/serve.js", "text/javascript"),
    "/serve.css": ("page/serve.css", "text/css"),
    "/ask.js": ("page/ask.js", "text/javascript"),
    "/page.css": ("../templates/page.css", "text/css"),
    "/icon.svg": ("page/icon.svg", "image/svg+xml"),
}
_KINDS: Kinds = {"id": str, "label": (int, float), "seen": int, "criterion": str}


def make_app(page: PersonPage) -> Starlette:
    """The app of one page. `Guard` must stand in front of it."""

    def state(request: Request) -> Response:
        return answer(request, page.state(request.query_params.get("criterion") or page.criterion))

    async def label(request: Request) -> Response:
        said = await body(request, _KINDS)
        return answer(request, await run_in_threadpool(page.label, **said))

    async def undo(request: Request) -> Response:
        said = await body(request, {name: _KINDS[name] for name in ("id", "seen", "criterion")})
        return answer(request, await run_in_threadpool(page.undo, **said))

    def export(request: Request) -> Response:
        lines = "".join(json.dumps(row) + "\n" for row in page.export())
        named = {"content-disposition": 'attachment; filename="preferences.jsonl"'}
        return Response(lines.encode(), media_type="application/jsonl", headers=named)

    return Starlette(
        routes=[
            *file_routes(_FILES),
            Route("/api/state", state),
            Route("/api/label", label, methods=["POST"]),
            Route("/api/undo", undo, methods=["POST"]),
            Route("/api/export", export),
        ],
        exception_handlers={Overtaken: partial(told, 409), **HANDLERS},
    )
