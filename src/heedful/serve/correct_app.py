"""The routes of the page of `heedful correct run --person web`, and its start.

GET  /                      the page; its scripts, styles and icon beside it
GET  /api/state             all that the page shows
GET  /api/picture?camera=   the newest picture of a camera (JPEG)
POST /api/begin             {}: begin an episode
POST /api/say               {"words", "source": "typed" | "spoken"}: a correction, or "undo"
POST /api/end               {"mark": "end" | "success" | "failure" | "drop"}
POST /api/speech            sound, 16 kHz mono 16 bits: answers {"words"}, which the page then says

Every POST but /api/speech answers with the new state. A correction is on the disk and counts before its answer is sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from heedful.recipes.correct_run import Options, check, show_summary
from heedful.recipes.correct_session import open_session
from heedful.serve.answers import HANDLERS, Kinds, Plain, answer, body, file_routes, received
from heedful.serve.command import Page, serve
from heedful.serve.correct_page import CorrectPage
from heedful.serve.speech import LONGEST, RATE, recogniser

_FILES = {
    "/": ("page/correct.html", "text/html"),
    "/correct.js": ("page/correct.js", "text/javascript"),
    "/ask.js": ("page/ask.js", "text/javascript"),
    "/mic.js": ("page/mic.js", "text/javascript"),
    "/controls.css": ("page/controls.css", "text/css"),
    "/correct.css": ("page/correct.css", "text/css"),
    "/page.css": ("../templates/page.css", "text/css"),
    "/icon.svg": ("page/icon.svg", "image/svg+xml"),
}


def main(options: Options) -> int:
    """Run `heedful correct run --person web` until it is stopped. Raises HeedfulError when it cannot start."""
    check(options)
    with open_session(options) as session:

        def make() -> Page:
            page = CorrectPage(session, recogniser(session.talker.snapper.phrases))
            told = f"{session.folder}: {session.done} episodes"
            return Page(
                make_app(page),
                told,
                "every correction and every saved episode is on disk",
                "the same command goes on",
                microphone=page.hear is not None,
            )

        status = serve(make, options.host, options.port, options.token, options.allow_host)
        show_summary(session)
        return status


def make_app(page: CorrectPage) -> Starlette:
    """The app of one page; the robot is reached when it starts. `Guard` must stand in front of it."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        page.start()
        yield
        await run_in_threadpool(page.stop)

    def state(request: Request) -> Response:
        return answer(request, page.state())

    def picture(request: Request) -> Response:
        return Response(page.picture(request.query_params.get("camera", "")), media_type="image/jpeg")

    async def speech(request: Request) -> Response:
        sound = await received(request, LONGEST * RATE * 2)
        return Plain({"words": await run_in_threadpool(page.listen, sound)})

    def doing(do: Callable[..., None], kinds: Kinds) -> Callable[[Request], Any]:
        async def route(request: Request) -> Response:
            said = await body(request, kinds)
            await run_in_threadpool(do, **said)
            return answer(request, await run_in_threadpool(page.state))

        return route

    writing: dict[str, tuple[Callable[..., None], Kinds]] = {
        "/api/begin": (page.begin, {}),
        "/api/say": (page.say, {"words": str, "source": str}),
        "/api/end": (page.end, {"mark": str}),
    }
    return Starlette(
        routes=[
            *file_routes(_FILES),
            Route("/api/state", state),
            Route("/api/picture", picture),
            Route("/api/speech", speech, methods=["POST"]),
            *(Route(path, doing(*what), methods=["POST"]) for path, what in writing.items()),
        ],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
