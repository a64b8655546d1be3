"""Small narrated demonstrations for tests: a picture's colour tells what is to be said, the words what to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heedful.data.corrections import CorrectionLog, language_events
from heedful.data.episodes import LANGUAGE_FEATURES, Feature, Info, LanguageRow
from heedful.data.episodes.write import EpisodeWriter

SIDE, FPS = 36, 15
LEFT, RIGHT, UP = "go left", "go right", "go up"
WAYS = {LEFT: (-0.8, 0.0), RIGHT: (0.8, 0.0), UP: (0.0, 0.8)}
WORDINGS = {LEFT: (LEFT, "to the left"), RIGHT: (RIGHT, "to the right")}
RED, BLUE, GREY, GREEN = (220, 20, 20), (20, 20, 220), (110, 110, 110), (20, 220, 20)
"""Red: left is said; blue: right; grey: either; green: nobody has seen it."""
INFO = Info(
    FPS,
    "toy",
    {
        "observation.images.top": Feature("image", (SIDE, SIDE, 3), ["height", "width", "channels"]),
        "observation.state": Feature("float32", (2,), ["x", "y"]),
        "action": Feature("float32", (2,), ["vx", "vy"]),
        **LANGUAGE_FEATURES,
    },
)


def seen(colour: Sequence[int], state: Sequence[float] = (0.0, 0.0)) -> dict[str, Any]:
    return {"top": np.full((SIDE, SIDE, 3), colour, np.uint8), "state": np.asarray(state, np.float32)}


def frame(colour: Sequence[int], command: str, at: np.ndarray) -> dict[str, Any]:
    picture = seen(colour)["top"]
    return {
        "observation.images.top": picture,
        "observation.state": at.astype(np.float32),
        "action": np.asarray(WAYS[command], np.float32),
    }


def write(folder: Path, episodes: int = 6, *, info: Info = INFO, corrections: bool = True) -> Path:
    """Episodes of four segments; the third is a mistake (the wrong way) and the fourth its correction."""
    with EpisodeWriter(folder, info) as writer:
        for i in range(episodes):
            rng = np.random.default_rng(i)
            at, rows, told = np.zeros(2), [], []
            step = 0
            for k in range(4):
                grey = bool(k < 2 and rng.uniform() < 0.5)
                command = (LEFT, RIGHT)[int(rng.integers(2))]
                text = WORDINGS[command][int(rng.integers(2))]
                colour = GREY if grey else RED if command == LEFT else BLUE
                said = text
                rows.append(LanguageRow(said, "subtask", step / info.fps, "assistant"))
                told.append((said, command))
                if k == 3 and corrections:
                    rows.append(LanguageRow(text, "interjection", step / info.fps))
                for _ in range(int(rng.integers(8, 14))):
                    did = ({LEFT: RIGHT, RIGHT: LEFT}[command]) if k == 2 else command
                    writer.add_frame(frame(colour, did, at))
                    at = at + np.asarray(WAYS[did]) / 10
                    step += 1
            meta = {"segment_text": [t for t, _ in told], "segment_command": [c for _, c in told]}
            writer.save_episode("move about", meta, rows)
    return folder


def write_corrections(folder: Path, episodes: int = 2, steps: int = 40) -> Path:
    """What `correct run` leaves: green all the time, and "go up" said at step 20, held for 15 steps."""
    folder.mkdir(parents=True, exist_ok=True)
    log = CorrectionLog(folder / "corrections.jsonl")
    with EpisodeWriter(folder, INFO) as writer:
        for i in range(episodes):
            at = np.zeros(2)
            row = log.add(
                episode=i,
                step=20,
                source="typed",
                words="go up",
                command=UP,
                overridden=LEFT,
                pre_roll=10,
                time=0,
            )
            log.keep_clip(row.id, 10, 35)
            for step in range(steps):
                writer.add_frame(frame(GREEN, UP if 20 <= step < 35 else LEFT, at))
            spoken = [
                LanguageRow(LEFT, "subtask", 0.0, "assistant"),
                LanguageRow(UP, "subtask", 20 / FPS, "assistant"),
                *(LanguageRow(**one) for one in language_events([row], FPS)),
            ]
            writer.save_episode("move about", {}, spoken)
    return folder
