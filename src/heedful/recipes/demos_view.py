"""An episode to look at: a page that needs nothing else, or a recording for Rerun.

The page holds the pictures as H.264 videos, the signals as numbers and the language rows as text. Its script is fixed
and named by its hash in the page's Content-Security-Policy; what data files say enters as JSON without angle brackets
and is shown with textContent, so it stays text.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from heedful.atomic import write_file
from heedful.data.episodes import DEFAULT_FEATURES, Episodes, check_columns
from heedful.data.episodes.copy import resized
from heedful.data.episodes.video import VideoWriter
from heedful.errors import HeedfulError

PAGE = Path(__file__).parent.parent / "templates"
BATCH = 32
LINES = 16
"""Most lines in one plot."""


def signals(episodes: Episodes, i: int, columns: Sequence[str]) -> dict[str, Any]:
    """Columns of numbers of episode `i`, (T, D) each. Raises HeedfulError for a column that is not there."""
    have = [n for n in episodes.info.columns if episodes.info.features[n].dtype != "string"]
    wanted = (
        check_columns(columns, episodes.info, episodes.path)
        if columns
        else [n for n in ("action", "observation.state") if n in have]
    )
    wanted = wanted or [n for n in have if n not in DEFAULT_FEATURES][:2]
    found = {}
    for name, values in episodes.columns(i, wanted).items():
        if values.dtype == object:
            raise HeedfulError(f"column {name!r} is text and cannot be drawn; name others with --columns")
        found[name] = values.reshape(len(values), -1).astype(np.float64)
    return found


def film(episodes: Episodes, i: int, camera: str, width: int, out: Path) -> None:
    """The camera's pictures of episode `i` as a small H.264 video."""
    height, wide = episodes.info.features[camera].shape[:2]
    scale = min(1.0, width / wide)
    # Browsers play 4:2:0 only, which wants even sides.
    size = (max(2, round(height * scale / 2) * 2), max(2, round(wide * scale / 2) * 2))
    writer = VideoWriter(out, episodes.info.fps, crf=26, gop=15)
    length = episodes.episode(i).length
    try:
        for start in range(0, length, BATCH):
            for picture in episodes.frames(i, camera, range(start, min(length, start + BATCH))):
                writer.add(resized(picture, size))
    finally:
        writer.close()


class Band(NamedTuple):
    """Frames start to stop - 1 in which something holds, drawn along the time: text says what, strong sets it off."""

    start: int
    stop: int
    text: str
    strong: bool = False


class Table(NamedTuple):
    """Rows beside the video. rows: (first frame, one past the last, cells), shown as on while the time is in there."""

    title: str
    head: Sequence[str]
    rows: Sequence[tuple[int, int, Sequence[str]]]


def write_view(
    episodes: Episodes,
    i: int,
    out: Path,
    columns: Sequence[str] = (),
    width: int = 320,
    *,
    bands: Mapping[str, Sequence[Band]] | None = None,
    table: Table | None = None,
) -> Path:
    """Write the page of episode `i` and return its path. Raises HeedfulError naming what cannot be read.

    bands, table: what else is shown in step with the video, each by a title.
    """
    episode = episodes.episode(i)
    videos = {}
    with tempfile.TemporaryDirectory() as folder:
        for camera in episodes.info.cameras:
            place = Path(folder) / "film.mp4"
            film(episodes, episode.index, camera, width, place)
            videos[camera] = base64.b64encode(place.read_bytes()).decode()
    drawn = {
        name: [
            [None if not np.isfinite(v) else round(float(v), 5) for v in line] for line in values[:, :LINES].T
        ]
        for name, values in signals(episodes, episode.index, columns).items()
    }
    rows = [
        [row.timestamp, row.style or "", row.role, row.content or ""]
        for row in episodes.language(episode.index)
    ]
    told = {
        "fps": episodes.info.fps,
        "length": episode.length,
        "tasks": list(episode.tasks),
        "meta": {str(n): str(v) for n, v in episode.meta.items()},
        "signals": drawn,
        "language": rows,
        "cameras": list(videos),
        "bands": {name: [list(band) for band in some] for name, some in (bands or {}).items()},
        "table": None if table is None else table._asdict(),
    }
    data = (
        json.dumps(told, ensure_ascii=True)
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
    )
    script = (PAGE / "demos_view.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    title = html.escape(f"{episodes.path.name}, episode {episode.index}")
    films = "".join(
        f'<figure><video muted playsinline preload="auto" src="data:video/mp4;base64,{video}"></video>'
        f"<figcaption>{html.escape(camera)}</figcaption></figure>"
        for camera, video in videos.items()
    )
    style = (PAGE / "page.css").read_text(encoding="utf-8") + (PAGE / "demos_view.css").read_text(
        encoding="utf-8"
    )
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p id="tasks"></p>
<div class="films">{films}</div>
<div class="time">
<button id="play" type="button">Play</button>
<input id="at" type="range" min="0" max="{episode.length - 1}" value="0" aria-label="frame">
<output id="now"></output>
</div>
<p id="said" aria-live="polite"></p>
<div id="bands"></div>
<div id="table"></div>
<div id="signals"></div>
<h2>Language</h2>
<ol id="language"></ol>
<h2>What is known of it</h2>
<table id="meta"></table>
</main>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""
    write_file(out, page.encode("utf-8", "replace"))
    return out


def write_recording(
    episodes: Episodes, i: int, out: Path, columns: Sequence[str] = (), width: int = 320
) -> Path:
    """Write episode `i` as a Rerun recording and return its path. Raises HeedfulError where rerun-sdk is missing."""
    try:
        rr = import_module("rerun")
    except ImportError as error:
        raise HeedfulError(
            "a recording for Rerun needs rerun-sdk: pip install rerun-sdk; or write .html"
        ) from error
    episode = episodes.episode(i)
    stream = rr.RecordingStream("heedful_demos", recording_id=f"{episodes.path.name}-{episode.index}")
    stream.save(str(out))
    numbers = signals(episodes, episode.index, columns)
    spoken = episodes.language(episode.index)
    for start in range(0, episode.length, BATCH):
        part = range(start, min(episode.length, start + BATCH))
        pictures = {camera: episodes.frames(episode.index, camera, part) for camera in episodes.info.cameras}
        for k in part:
            stream.set_time("frame", sequence=k)
            stream.set_time("time", duration=k / episodes.info.fps)
            for camera, many in pictures.items():
                height, wide = many.shape[1:3]
                scale = min(1.0, width / wide)
                small = resized(many[k - start], (round(height * scale), round(wide * scale)))
                stream.log(camera.replace(".", "/"), rr.Image(small).compress(jpeg_quality=85))
            for name, values in numbers.items():
                stream.log(name.replace(".", "/"), rr.Scalars(values[k]))
            for row in spoken:
                if round(row.timestamp * episodes.info.fps) == k:
                    stream.log(f"language/{row.style or 'said'}", rr.TextLog(row.content or ""))
            if k == 0:
                for task in episode.tasks:
                    stream.log("language/task", rr.TextLog(task))
    stream.flush()
    return out
