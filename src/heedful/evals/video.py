"""Films of episodes, where PyAV is installed and the environment renders."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.atomic import make_folder
from heedful.errors import HeedfulError
from heedful.evals.control import Act, roll_out

RATE = 20
"""Frames a second where the environment does not say."""


def codec() -> Any:
    """PyAV. Raises HeedfulError with what to install where it is missing."""
    try:
        return import_module("av")
    except ImportError as error:
        raise HeedfulError("films need PyAV: pip install av, or leave --video out") from error


def check_renders(make: Callable[[], Any]) -> None:
    """Open an environment for one picture. Raises HeedfulError where it gives none, or cannot be reset."""
    env = make()
    try:
        env.reset(seed=0)
        _picture(env)
    except HeedfulError:
        raise
    except Exception as error:
        raise HeedfulError(
            f"--video: the environment gives no picture: {type(error).__name__}: {error}; leave --video out"
        ) from error
    finally:
        with suppress(Exception):
            env.close()


def record(
    make: Callable[[], Any],
    act: Act,
    folder: Path,
    *,
    episodes: int,
    seed: int,
    max_steps: int,
    task: str = "",
) -> list[Path]:
    """Film the first `episodes` of an evaluation (the same seeds) as `episode-000.mp4` and on, H.264.

    Raises HeedfulError without PyAV, and for an environment without pictures (gymnasium's render_mode "rgb_array").
    """
    codec()
    make_folder(folder)
    films: list[Path] = []
    found = roll_out(
        lambda: _Filming(make(), folder, films),
        act,
        episodes=episodes,
        seed=seed,
        max_steps=max_steps,
        parallel=1,
        task=task,
    )
    if found.broken:
        raise HeedfulError(f"filming: {found.broken[0]}")
    return films


class Film:
    """A video being written, H.264: the pictures that `add` is given, until `close`."""

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, round(rate)
        self._container: Any = None

    def add(self, picture: NDArray[np.uint8]) -> None:
        """One more picture (H, W, 3); all have the size of the first."""
        if self._container is None:
            self._container = codec().open(str(self.path), "w")
            self._stream = self._container.add_stream("libx264", rate=self.rate)
            # Two colours of four pixels are shared: the sides have to be even.
            self._stream.height, self._stream.width = (side - side % 2 for side in picture.shape[:2])
            self._stream.pix_fmt = "yuv420p"
        part = np.ascontiguousarray(picture[: self._stream.height, : self._stream.width].astype(np.uint8))
        self._send(codec().VideoFrame.from_ndarray(part, format="rgb24"))

    def close(self) -> None:
        """Write what is left; a film without pictures leaves no file."""
        if self._container is not None:
            self._send(None)
            self._container.close()
            self._container = None

    def _send(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


class _Filming:
    """An environment whose pictures go into a new file at each reset."""

    def __init__(self, env: Any, folder: Path, films: list[Path]) -> None:
        self.env, self.folder, self.films = env, folder, films
        self.film: Film | None = None

    def reset(self, *, seed: int) -> Any:
        self._end()
        result = self.env.reset(seed=seed)
        picture = _picture(self.env)
        path = self.folder / f"episode-{len(self.films):03d}.mp4"
        self.film = Film(path, getattr(self.env, "metadata", {}).get("render_fps") or RATE)
        self.film.add(picture)
        self.films.append(path)
        return result

    def step(self, action: Any) -> Any:
        result = self.env.step(action)
        assert self.film is not None
        self.film.add(_picture(self.env))
        return result

    def close(self) -> None:
        self._end()
        self.env.close()

    def _end(self) -> None:
        if self.film is not None:
            self.film.close()
            self.film = None


def _picture(env: Any) -> Any:
    picture = env.render()
    if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[-1] != 3:
        raise HeedfulError(
            "the environment gives no pictures: make it with --env-args render_mode=rgb_array, or leave --video out"
        )
    return picture
