"""Films of episodes, where PyAV is installed and the environment renders."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

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


class _Filming:
    """An environment whose pictures go into a new file at each reset."""

    def __init__(self, env: Any, folder: Path, films: list[Path]) -> None:
        self.env, self.folder, self.films = env, folder, films
        self.container: Any = None

    def reset(self, *, seed: int) -> Any:
        self._end()
        result = self.env.reset(seed=seed)
        picture = self._picture()
        path = self.folder / f"episode-{len(self.films):03d}.mp4"
        rate = round(getattr(self.env, "metadata", {}).get("render_fps") or RATE)
        self.container = codec().open(str(path), "w")
        self.stream = self.container.add_stream("libx264", rate=rate)
        # Two colours of four pixels are shared: the sides have to be even.
        self.stream.height, self.stream.width = (side - side % 2 for side in picture.shape[:2])
        self.stream.pix_fmt = "yuv420p"
        self.films.append(path)
        self._write(picture)
        return result

    def step(self, action: Any) -> Any:
        result = self.env.step(action)
        self._write(self._picture())
        return result

    def close(self) -> None:
        self._end()
        self.env.close()

    def _picture(self) -> Any:
        picture = self.env.render()
        if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[-1] != 3:
            raise HeedfulError(
                "the environment gives no pictures: make it with --env-args render_mode=rgb_array, or leave --video out"
            )
        return picture

    def _write(self, picture: Any) -> None:
        part = np.ascontiguousarray(picture[: self.stream.height, : self.stream.width].astype(np.uint8))
        frame = codec().VideoFrame.from_ndarray(part, format="rgb24")
        for packet in self.stream.encode(frame):
            self.container.mux(packet)

    def _end(self) -> None:
        if self.container is not None:
            for packet in self.stream.encode(None):
                self.container.mux(packet)
            self.container.close()
            self.container = None
