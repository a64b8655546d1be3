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

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from heedful.recipes.correct_run import Options, check, show_summary
from heedful.recipes.correct_session import open_session
from heedful.serve.answers import Kinds, Plain, received
from heedful.serve.command import Page, serve
from heedful.serve.correct_page import CorrectPage
from heedful.serve.robot_app import robot_app
from heedful.serve.speech import LONGEST, RATE, recogniser

_FILES = {
    "/": ("page/correct.html", "text/html"),
    "/correct.js": ("page/correct.js", "text/javascript"),
    "/mic.js": ("page/mic.js", "text/javascript"),
    "/correct.css": ("page/correct.css", "text/css"),
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

    async def speech(request: Request) -> Response:
        sound = await received(request, LONGEST * RATE * 2)
        return Plain({"words": await run_in_threadpool(page.listen, sound)})

    writing: dict[str, tuple[Callable[..., None], Kinds]] = {
        "/api/begin": (page.begin, {}),
        "/api/say": (page.say, {"words": str, "source": str}),
        "/api/end": (page.end, {"mark": str}),
    }
    return robot_app(page, _FILES, writing, Route("/api/speech", speech, methods=["POST"]))
