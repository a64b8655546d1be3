"""Videos of different encoders in one data set: merged, trimmed, recorded on, packed, and every picture what it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from episode_sets import INFO, frame, picture

from heedful.data.episodes import open_episodes
from heedful.data.episodes.copy import Piece, copy_pieces
from heedful.data.episodes.video import Video, cut_video, join_videos
from heedful.data.episodes.write import EpisodeWriter
from heedful.errors import HeedfulError

TOP = "observation.images.top"
FILMED = replace(INFO, features={n: INFO.features[n] for n in ("action", TOP)})
LENGTH = 12


def film(folder: Path, episodes: range = range(2), **encode: Any) -> Path:
    """A data set whose episode i looks like `picture(i, t)`; recorded on where it is there."""
    with EpisodeWriter(folder, FILMED, **encode) as writer:
        for i in episodes:
            for t in range(LENGTH):
                writer.add_frame({n: frame(i, t, LENGTH)[n] for n in FILMED.features})
            writer.save_episode("look", {"of": i})
    return folder


def apart(folder: Path, episode: int, of: int, start: int = 0) -> float:
    """The largest mean difference of a picture, in levels of grey, from what was filmed."""
    there = open_episodes(folder)
    length = there.episode(episode).length
    seen = there.frames(episode, TOP, range(length)).astype(float)
    wanted = [picture(of, start + t).astype(float) for t in range(length)]
    return max(float(np.abs(a - b).mean()) for a, b in zip(seen, wanted, strict=True))


def videos(folder: Path) -> list[Path]:
    return sorted((folder / "videos").rglob("*.mp4"))


@pytest.mark.parametrize("other", [{"crf": 35}, {"codec": "av1"}], ids=["crf", "codec"])
def test_merged_sets_of_different_encoders_keep_their_pictures(other: dict[str, Any], tmp_path: Path) -> None:
    a, b = film(tmp_path / "a"), film(tmp_path / "b", **other)
    pieces = [Piece(s, e) for s in (0, 1) for e in (0, 1)]
    counts = copy_pieces([open_episodes(a), open_episodes(b)], pieces, tmp_path / "m", made_by="test")
    assert counts["videos copied"] == 4 and counts["videos encoded"] == 0
    assert [apart(tmp_path / "m", e, e % 2) < 12 for e in range(4)] == [True] * 4
    assert len(videos(tmp_path / "m")) == 2, "a file for each way of encoding"


def test_trimmed_at_any_frame_and_encoded_otherwise(tmp_path: Path) -> None:
    source = open_episodes(film(tmp_path / "a"))
    pieces = [Piece(0, 0, ((0, 6),)), Piece(0, 0, ((3, 9),)), Piece(0, 1, ((4, 10),))]
    counts = copy_pieces([source], pieces, tmp_path / "t", made_by="test", encode={"crf": 35})
    assert counts["videos copied"] == 2 and counts["videos encoded"] == 1
    for e, (of, start) in enumerate(((0, 0), (0, 3), (1, 4))):
        assert apart(tmp_path / "t", e, of, start) < 12


def test_recorded_on_with_other_options(tmp_path: Path) -> None:
    film(tmp_path / "a", range(2))
    film(tmp_path / "a", range(2, 4), crf=35)
    film(tmp_path / "a", range(4, 6), codec="av1")
    assert len(open_episodes(tmp_path / "a")) == 6
    assert all(apart(tmp_path / "a", e, e) < 12 for e in range(6))
    assert len(videos(tmp_path / "a")) == 3


def test_av1_is_packed_copied_and_trimmed_without_encoding(tmp_path: Path) -> None:
    source = open_episodes(film(tmp_path / "a", range(3), codec="av1"))
    assert len(videos(source.path)) == 1 and source.info.features[TOP].info["video.codec"] == "av1"  # type: ignore[index]
    pieces = [Piece(0, 0), Piece(0, 1, ((4, 8),)), Piece(0, 2, ((0, 2), (6, 10)))]
    counts = copy_pieces([source], pieces, tmp_path / "t", made_by="test")
    assert counts["videos copied"] == 3
    made = open_episodes(tmp_path / "t")
    for e, frames in enumerate((range(12), range(4, 8), [0, 1, 6, 7, 8, 9])):
        np.testing.assert_array_equal(
            made.frames(e, TOP, range(made.episode(e).length)), source.frames(e, TOP, list(frames))
        )


def test_videos_from_elsewhere_are_merged_with_ours(tmp_path: Path) -> None:
    """x264 without pictures that depend on later ones, as other programs write it, and MPEG-4."""
    for name, codec, options in (("h264", "libx264", {"bf": "0", "g": "4"}), ("mpeg4", "mpeg4", {"g": "4"})):
        theirs = film(tmp_path / name)
        (file,) = videos(theirs)
        with av.open(str(file), "w", format="mp4") as container:
            stream = container.add_stream(codec, rate=15, options=options)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            shown = [picture(e, t) for e in range(2) for t in range(LENGTH)]
            for packet in (p for one in shown for p in stream.encode(av.VideoFrame.from_ndarray(one))):
                container.mux(packet)
            container.mux(stream.encode())
        ours = film(tmp_path / f"ours-{name}")
        pieces = [Piece(s, e) for s in (0, 1) for e in (0, 1)]
        out = tmp_path / f"merged-{name}"
        copy_pieces([open_episodes(ours), open_episodes(theirs)], pieces, out, made_by="test")
        assert [apart(out, e, e % 2) < 20 for e in range(4)] == [True] * 4


def test_videos_of_different_encoders_are_not_joined_in_one_file(tmp_path: Path) -> None:
    parts = [videos(film(tmp_path / str(crf), crf=crf))[0] for crf in (23, 35)]
    with pytest.raises(HeedfulError, match=r"was encoded otherwise than .*23"):
        join_videos(parts, [24, 24], 15, tmp_path / "joined.mp4")


def test_a_cut_begins_at_a_key_frame_or_not_at_all(tmp_path: Path) -> None:
    (file,) = videos(film(tmp_path / "a"))
    assert not cut_video(Video(file), [(3, 5)], 15, tmp_path / "no.mp4")
    assert not (tmp_path / "no.mp4").exists()


@pytest.mark.parametrize("share", [0.3, 0.97])
def test_a_video_cut_anywhere_is_no_traceback(share: float, tmp_path: Path) -> None:
    (file,) = videos(film(tmp_path / "a"))
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(HeedfulError, match=str(file)):
        cut_video(Video(file), [(0, 2)], 15, tmp_path / "no.mp4")
