"""The routes of the page of `heedful demos record --web`, and its start.

GET  /                      the page; its scripts, styles and icon beside it
GET  /api/state             all that the page shows
GET  /api/picture?camera=   the newest picture of a camera (JPEG)
POST /api/setup             {"collector", "building", "ticked": [0..13], "typed": "one; another"}
POST /api/scene, /api/next  {}: the scene has changed; draw another task
POST /api/begin             {"practice": false}
POST /api/keys              {"keys": ["w", " "]}: what is held at this moment, several times a second
POST /api/end               {"mark": "success" | "failure" | "discard"}
POST /api/mark              {"name", "success"}: revise an episode
POST /api/describe          {"name", "texts"}: say in words what it shows

Every POST but /api/keys answers with the new state; an episode is on disk before the answer to /api/end is sent.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from heedful.recipes.demos_record import Record
from heedful.serve.answers import Kinds, Plain, body
from heedful.serve.command import Page, serve
from heedful.serve.record_page import RecordPage
from heedful.serve.robot_app import robot_app

_FILES = {
    "/": ("page/record.html", "text/html"),
    "/record.js": ("page/record.js", "text/javascript"),
    "/record.css": ("page/record.css", "text/css"),
}


def main(options: Record) -> int:
    """Run `heedful demos record --web` until it is stopped. Raises HeedfulError when it cannot start."""

    def make() -> Page:
        page = RecordPage(options)
        told = f"{page.session.folder}: {len(page.session.episodes())} episodes"
        return Page(make_app(page), told, "every saved episode is on disk", "the same command goes on")

    return serve(make, options.host, options.port, options.token, options.allow_host)


def make_app(page: RecordPage) -> Starlette:
    """The app of one page; the robot is reached when it starts. `Guard` must stand in front of it."""

    async def keys(request: Request) -> Response:
        page.held((await body(request, {"keys": list}))["keys"])
        return Plain({})

    writing: dict[str, tuple[Callable[..., None], Kinds]] = {
        "/api/setup": (page.set_up, {"collector": str, "building": str, "ticked": list, "typed": str}),
        "/api/scene": (page.new_scene, {}),
        "/api/next": (page.next_task, {}),
        "/api/begin": (page.begin, {"practice": bool}),
        "/api/end": (page.end, {"mark": str}),
        "/api/mark": (page.mark, {"name": str, "success": bool}),
        "/api/describe": (page.describe, {"name": str, "texts": list}),
    }
    return robot_app(page, _FILES, writing, Route("/api/keys", keys, methods=["POST"]))
