"""What every page of this server has in common: files of the package, JSON in and out, and errors in words."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from heedful.errors import HeedfulError

LARGEST_BODY = 4096
Kinds = dict[str, type | tuple[type, ...]]
"""The fields of a request, each of its kind. A truth value is no number."""


class Wrong(HTTPException):
    """A request that no page of ours sends."""


class Plain(JSONResponse):
    """JSON in ASCII, so that text which is not whole Unicode can be sent too."""

    def render(self, content: Any) -> bytes:
        """As bytes; what JSON does not have, such as NaN, is an error."""
        return json.dumps(content, allow_nan=False).encode()


def file_routes(files: Mapping[str, tuple[str, str]]) -> list[Route]:
    """A route for each file of this package: (name, content type) by path."""
    return [Route(path, _file(*files[path])) for path in files]


def _file(name: str, kind: str) -> Callable[[Request], Response]:
    content = (Path(__file__).parent / name).resolve().read_bytes()
    return lambda request: Response(content, media_type=kind)


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """A picture (H, W, 3) as a file."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=85)
    return out.getvalue()


def answer(request: Request, state: Mapping[str, Any]) -> Response:
    """A state as JSON, with the number that the page needs to write."""
    return Plain({**state, "csrf": request.state.csrf})


async def received(request: Request, most: int) -> bytes:
    """What was sent. Raises Wrong for more than `most` bytes."""
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > most:
            raise Wrong(413, f"at most {most} bytes are taken")
    return data


async def body(request: Request, kinds: Kinds) -> dict[str, Any]:
    """The fields of a request to write, each there and of its kind. Raises Wrong for anything else."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise Wrong(415, "a JSON object is needed (content-type: application/json)")
    data = await received(request, LARGEST_BODY)
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Wrong(400, f"this is not JSON: {error}") from error
    if not isinstance(said, dict) or set(said) != set(kinds):
        raise Wrong(400, f"an object with {', '.join(kinds) or 'no field'} is needed, and nothing else")
    for name, kind in kinds.items():
        if not isinstance(said[name], kind) or (isinstance(said[name], bool) and kind is not bool):
            raise Wrong(400, f"{name}: {said[name]!r} is of the wrong kind")
    return said


def told(status: int, request: Request, error: Exception) -> Response:
    """An error in words."""
    return Plain({"error": str(error)}, status)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if request.url.path.startswith("/api/"):
        return Plain({"error": error.detail}, error.status_code, error.headers)
    return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)


def _broken(request: Request, error: Exception) -> Response:
    return Plain({"error": "the server met an error of its own; its terminal says which one"}, 500)


HANDLERS: dict[Any, Callable[[Request, Exception], Response]] = {
    HeedfulError: partial(told, 422),
    HTTPException: _http,
    Exception: _broken,
}
"""What is answered where something went wrong."""
