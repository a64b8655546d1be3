"""Reading demonstrations: random frames, 4-frame history and whole epochs, against lerobot's own reader.

    LEROBOT_PYTHON=/path/to/env/bin/python python -m benchmarks.episode_reader --pairs 3

Both read the same LeRobotDataset v3 (H.264, GOP 2, 2 cameras of 180 x 320, 3 episodes of 200 frames), one thread,
alternating, each in a fresh process. lerobot 0.4.4 decodes with torchcodec and lives in an environment of its own: it
wants an older torch. A sample is the state, the action and the pictures of both cameras. lerobot gives float32 in
[0, 1]; ours stays uint8, which is what is sent to an accelerator. Rates are camera frames for each second of processor
time, so that other programs on the machine count less; bytes a frame on disk stand beside them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent.parent
SET = Path(os.environ.get("EPISODE_READER_DATA", "~/.cache/heedful/benchmarks/episode-reader")).expanduser()
EPISODES, FRAMES, FPS = 3, 200, 15
CAMERAS = ("observation.images.exterior", "observation.images.wrist")
STEPS = (-3, -2, -1, 0)
WARM = 10


def make_set() -> None:
    """Write the data set once; pictures have texture, a moving arm and noise."""
    from heedful.data.episodes import Feature, Info
    from heedful.data.episodes.write import EpisodeWriter

    names = ["height", "width", "channels"]
    features = {c: Feature("video", (180, 320, 3), names) for c in CAMERAS}
    features |= {n: Feature("float32", (8,)) for n in ("observation.state", "action")}
    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(40, 200, (18, 32, 3)), np.ones((10, 10, 1)))
    y, x = np.mgrid[:180, :320]
    with EpisodeWriter(SET, Info(FPS, "panda", features)) as writer:
        for i in range(writer.info.total_episodes, EPISODES):
            for t in range(FRAMES):
                frame: dict[str, Any] = {n: rng.normal(size=8) for n in ("observation.state", "action")}
                for k, camera in enumerate(CAMERAS):
                    image = np.roll(texture, 20 * i * k, axis=1) + rng.normal(0, 3, (180, 320, 1))
                    at = 160 + 100 * np.sin(t / 20 + i + k)
                    image[(np.abs(x - at) < 14) & (y < 100 + 30 * np.cos(t / 15))] = 230
                    frame[camera] = np.clip(image, 0, 255).astype(np.uint8)
                writer.add_frame(frame)
            writer.save_episode(f"task {i}")


def orders(work: str, count: int, seed: int) -> list[int]:
    """Frames, by their number in the data set."""
    total = EPISODES * FRAMES
    if work == "epoch":
        return [k % total for k in range(count)]
    return np.random.default_rng(seed).integers(0, total, count).tolist()


def timed(read: Callable[[int], Any], wanted: list[int], per_item: int) -> dict[str, float]:
    """Camera frames a second of the processor, and of the clock."""
    for k in wanted[:WARM]:
        read(k)
    cpu, wall = time.process_time(), time.monotonic()
    for k in wanted[WARM:]:
        read(k)
    frames = (len(wanted) - WARM) * per_item
    return {"per_cpu_s": frames / (time.process_time() - cpu), "per_s": frames / (time.monotonic() - wall)}


def ours(work: str, count: int, seed: int, proxy: str) -> dict[str, float]:
    """Our reader."""
    from heedful.data.episodes import open_episodes
    from heedful.data.episodes.loader import Frames, Window
    from heedful.data.episodes.proxy import with_proxy

    episodes: Any = open_episodes(SET)
    size = sum(p.stat().st_size for p in SET.rglob("*.mp4")) / (EPISODES * FRAMES * len(CAMERAS))
    if proxy:
        episodes = with_proxy(episodes, SET.with_name(f"{SET.name}-{proxy}"), proxy)  # type: ignore[arg-type]
        size = episodes.bytes_per_frame
    history = len(STEPS) if work == "history" else 1
    frames = Frames(episodes, Window(cameras=CAMERAS, history=history))
    return timed(frames.__getitem__, orders(work, count, seed), history * len(CAMERAS)) | {"bytes": size}


def peer(work: str, count: int, seed: int) -> dict[str, float]:
    """lerobot's reader; runs in its own environment."""
    import torch

    torch.set_num_threads(1)
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):  # see tests/test_episodes_lerobot.py
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from lerobot.datasets.lerobot_dataset import LeRobotDataset  # type: ignore[import-not-found]

    history = len(STEPS) if work == "history" else 1
    deltas = {n: [s / FPS for s in STEPS] for n in (*CAMERAS, "observation.state")} if history > 1 else None
    dataset = LeRobotDataset("bench/episode_reader", root=SET, delta_timestamps=deltas)
    return timed(dataset.__getitem__, orders(work, count, seed), history * len(CAMERAS))


def run_child(arm: str, work: str, count: int, seed: int) -> dict[str, float]:
    """One run of one arm."""
    if arm != "lerobot":
        return ours(work, count, seed, arm.removeprefix("ours").lstrip("-"))
    python = os.environ.get("LEROBOT_PYTHON")
    if not python:
        raise SystemExit("LEROBOT_PYTHON must be the python of an environment with lerobot 0.4.4")
    program = (
        "import json; from benchmarks.episode_reader import peer; "
        f"print(json.dumps(peer({work!r}, {count}, {seed})))"
    )
    paths = {"PYTHONPATH": str(HERE), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-c", program], env={**os.environ, **paths}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def lines(pairs: int, keep: Path | None, count: int, extra: int) -> Iterator[str]:
    """The JSON lines: each kind of work, and random frames through both proxies."""
    from benchmarks.harness import alternate, line, median

    make_set()
    for work in ("random", "history", "epoch"):
        number = max(WARM + 20, count // 4) if work == "history" else count
        arms = ["lerobot", "ours"] + (["ours-jpeg", "ours-raw"] if work == "random" else [])
        found = alternate(
            "benchmarks.episode_reader",
            {f"{arm} {work}": {"arm": arm, "work": work, "count": number, "seed": 7} for arm in arms},
            pairs,
            keep,
        )
        theirs = median(found[f"lerobot {work}"], "per_cpu_s")
        for arm in arms[1:]:
            mine = found[f"{arm} {work}"]
            note = (
                f"{pairs} pairs of {number} samples, one thread, same files, {median(mine, 'bytes'):,.0f} bytes "
                f"a frame (the videos: {median(found[f'ours {work}'], 'bytes'):,.0f}); by the clock "
                f"{median(mine, 'per_s'):,.0f} and {median(found[f'lerobot {work}'], 'per_s'):,.0f}"
            )
            name = f"episode_reader_{work}{arm.removeprefix('ours').replace('-', '_')}"
            yield line(
                name, median(mine, "per_cpu_s"), theirs, "camera frames/CPU-s", note, more_is_better=True
            )


def run(pairs: int, keep: Path | None, count: int, extra: int) -> list[str]:
    """All lines."""
    return list(lines(pairs, keep, count, extra))


if __name__ == "__main__":
    from benchmarks.harness import main

    main("benchmarks.episode_reader", run_child, run, count=300)
    sys.exit(0)
