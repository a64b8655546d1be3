"""What the pages of a robot have in common: its cameras, its state, and what a person does there.

GET  /                      the page; the files that it belongs with beside it
GET  /api/state             all that the page shows
GET  /api/picture?camera=   the newest picture of a camera (JPEG)

and a POST for each thing to do, which answers with the new state.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from heedful.serve.answers import HANDLERS, Kinds, answer, body, file_routes

SHARED = {
    "/ask.js": ("page/ask.js", "text/javascript"),
    "/controls.css": ("page/controls.css", "text/css"),
    "/page.css": ("../templates/page.css", "text/css"),
    "/icon.svg": ("page/icon.svg", "image/svg+xml"),
}
"""Files that all of these pages need."""


class RobotPage(Protocol):
    """What a page shows, and the robot behind it."""

    def start(self) -> None:
        """Reach the robot. It is called when the app starts."""
        ...

    def stop(self) -> None:
        """Let go of it."""
        ...

    def state(self) -> dict[str, Any]:
        """All that the page shows."""
        ...

    def picture(self, camera: str) -> bytes:
        """The newest picture of a camera, as JPEG. Raises HeedfulError for one that is not there."""
        ...


def robot_app(
    page: RobotPage,
    files: Mapping[str, tuple[str, str]],
    writing: Mapping[str, tuple[Callable[..., None], Kinds]],
    *more: Route,
) -> Starlette:
    """The app of one page. `Guard` must stand in front of it.

    files: its own, beside `SHARED`, as `answers.file_routes` takes them. writing: for each path what is done, and the
    names and kinds of what it is given. more: routes that answer with something else.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        page.start()
        yield
        await run_in_threadpool(page.stop)

    def state(request: Request) -> Response:
        return answer(request, page.state())

    def picture(request: Request) -> Response:
        return Response(page.picture(request.query_params.get("camera", "")), media_type="image/jpeg")

    def doing(do: Callable[..., None], kinds: Kinds) -> Callable[[Request], Any]:
        async def route(request: Request) -> Response:
            said = await body(request, kinds)
            await run_in_threadpool(do, **said)
            return answer(request, await run_in_threadpool(page.state))

        return route

    return Starlette(
        routes=[
            *file_routes({**SHARED, **files}),
            Route("/api/state", state),
            Route("/api/picture", picture),
            *more,
            *(Route(path, doing(*what), methods=["POST"]) for path, what in writing.items()),
        ],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
