"""Small data sets of demonstrations for tests: each frame can be told from every other by its colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heedful.data.episodes import Feature, Info
from heedful.data.episodes.write import EpisodeWriter

SIDE = 64
NAMES = ["height", "width", "channels"]
INFO = Info(
    fps=15,
    robot_type="panda",
    features={
        "observation.state": Feature("float32", (4,), ["x", "y", "z", "grip"]),
        "action": Feature("float32", (4,)),
        "pose": Feature("float64", (2, 3)),
        "done": Feature("bool", (1,)),
        "note": Feature("string", (1,)),
        "observation.images.top": Feature("video", (SIDE, SIDE, 3), NAMES),
        "observation.images.wrist": Feature("image", (SIDE, SIDE, 3), NAMES),
    },
)


def picture(episode: int, frame: int) -> NDArray[np.uint8]:
    """(SIDE, SIDE, 3): a gradient in red and green; blue tells the frame."""
    y, x = np.mgrid[:SIDE, :SIDE]
    blue = np.full_like(x, (episode * 61 + frame * 17) % 240 + 8)
    return np.stack([y * 3, x * 3, blue], axis=-1).astype(np.uint8)


def frame(episode: int, t: int, length: int) -> dict[str, object]:
    """One frame for `INFO`."""
    rng = np.random.default_rng([episode, t])
    return {
        "observation.state": rng.normal(size=4).astype(np.float32),
        "action": rng.normal(size=4).astype(np.float32),
        "pose": rng.normal(size=(2, 3)),
        "done": t == length - 1,
        "note": f"frame {t} ü",
        "observation.images.top": picture(episode, t),
        "observation.images.wrist": picture(episode, t),
    }


def write_episodes(
    folder: Path, lengths: Sequence[int] = (5, 7), *, info: Info = INFO, finalize: bool = True
) -> Path:
    """A data set of episodes of these lengths in `folder`."""
    writer = EpisodeWriter(folder, info)
    first = writer.info.total_episodes
    for i, length in enumerate(lengths, start=first):
        for t in range(length):
            writer.add_frame({n: v for n, v in frame(i, t, length).items() if n in info.features})
        writer.save_episode(
            [f"pick block {i % 2}", f"take block {i % 2}"], {"scene_id": i // 2, "success": i != 1}
        )
    if finalize:
        writer.finalize()
    else:
        writer.close()
    return folder


def damage_pictures(video: Path, pictures: Sequence[int]) -> None:
    """Overwrite the packets of these pictures of a file."""
    import av

    with av.open(str(video)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    raw = bytearray(video.read_bytes())
    for k in pictures:
        start, size = places[k]
        assert start is not None
        raw[start : start + size] = b"\xff" * size
    video.write_bytes(raw)
