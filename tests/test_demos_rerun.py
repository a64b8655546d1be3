"""An episode as a recording for Rerun, told to a stand-in of rerun-sdk (half a gigabyte) that notes what is logged."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from episode_sets import INFO, frame, picture

from heedful.data.episodes import LANGUAGE_FEATURES, Info, LanguageRow, open_episodes
from heedful.data.episodes.write import EpisodeWriter
from heedful.recipes.demos_view import write_recording

LENGTH = 40
"""More than pictures are read at once."""


class Stream:
    """`rerun.RecordingStream`: {path: [(frame, seconds, kind, value)]}."""

    def __init__(self, name: str, *, recording_id: str) -> None:
        self.name, self.id = name, recording_id
        self.now: dict[str, float] = {}
        self.logged: dict[str, list[tuple[float, float, str, Any]]] = defaultdict(list)
        made.append(self)

    def save(self, path: str) -> None:
        self.path = path

    def set_time(self, name: str, *, sequence: int | None = None, duration: float | None = None) -> None:
        assert (sequence is None) != (duration is None)
        self.now[name] = sequence if duration is None else duration  # type: ignore[assignment]

    def log(self, path: str, what: tuple[str, Any]) -> None:
        self.logged[path].append((self.now["frame"], self.now["time"], *what))

    def flush(self) -> None:
        Path(self.path).write_text("\n".join(self.logged))


class Image:
    def __init__(self, pixels: Any) -> None:
        self.pixels = pixels

    def compress(self, *, jpeg_quality: int) -> tuple[str, Any]:
        return "picture", self.pixels


made: list[Stream] = []


@pytest.fixture
def rerun(monkeypatch: pytest.MonkeyPatch) -> None:
    made.clear()
    module = ModuleType("rerun")
    module.__dict__.update(
        RecordingStream=Stream,
        Image=Image,
        Scalars=lambda value: ("numbers", value),
        TextLog=lambda text: ("text", text),
    )
    monkeypatch.setitem(sys.modules, "rerun", module)


@pytest.mark.usefixtures("rerun")
def test_every_frame_number_and_word_is_logged_at_its_time(tmp_path: Path) -> None:
    info = Info(fps=INFO.fps, robot_type="x", features={**INFO.features, **LANGUAGE_FEATURES})
    with EpisodeWriter(tmp_path / "set", info) as writer:
        for t in range(LENGTH):
            writer.add_frame(frame(0, t, LENGTH))
        said = LanguageRow("not that one", timestamp=7 / 15)
        writer.save_episode("pick it up", {}, [said])
    out = write_recording(open_episodes(tmp_path / "set"), 0, tmp_path / "e.rrd", width=32)
    (stream,) = made
    assert out.exists() and stream.path == str(out)
    assert stream.logged["language/interjection"] == [(7, pytest.approx(7 / 15), "text", "not that one")]
    assert stream.logged["language/task"] == [(0, 0, "text", "pick it up")]
    for camera in ("observation/images/top", "observation/images/wrist"):
        shown = stream.logged[camera]
        assert [at for at, *_ in shown] == list(range(LENGTH)) and shown[33][3].shape == (32, 32, 3)
        assert abs(shown[33][3].astype(float) - picture(0, 33)[::2, ::2].astype(float)).mean() < 12
    numbers = [value for *_, value in stream.logged["action"]]
    np.testing.assert_allclose(
        np.stack(numbers), np.stack([frame(0, t, LENGTH)["action"] for t in range(LENGTH)])
    )
    assert [seconds for _, seconds, *_ in stream.logged["action"]] == pytest.approx(np.arange(LENGTH) / 15)
