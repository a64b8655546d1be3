"""What `heedful reproduce yay` trains and measures, by tier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heedful.papers.results import Tier

SETUP = "pack"
NAMES = {
    "flat": "flat: one policy, no commands",
    "base": "high level alone",
    "order": "commands in a fixed order, each for its usual time",
    "oracle": "oracle high level",
    "live": "high level and a person",
    "post-1": "after round 1",
    "post-2": "after round 2",
    "post-3": "after round 3",
    "live-3": "after round 3, and a person",
    "equal": "as many steps, no corrections",
    "motor": "person takes over, low level learns (HG-DAgger)",
    "live-10": "a person who is wrong in 10%",
    "live-30": "a person who is wrong in 30%",
    "live-raw": "a person whose very words are followed",
    "unfiltered": "low level learned the mistakes, too",
    "onehot": "high level with a row of weights a command",
    "history-0": "high level sees one frame",
    "pre-roll-0": "round 1 without what came before the words",
    "ratio-50": "round 1, half of each step",
    "ratio-100": "round 1, corrections alone",
    "raw": "round 1 on the very words",
}
"""Arms in the order in which they are run; what an arm begins with stands before it."""
FEW = (
    "live-10",
    "live-30",
    "live-raw",
    "unfiltered",
    "onehot",
    "history-0",
    "pre-roll-0",
    "ratio-50",
    "ratio-100",
    "raw",
)
"""Arms that are measured on the first `Size.few` episodes alone."""
ROUNDS = 3
RELEARNED: Mapping[str, Mapping[str, Any]] = {
    "pre-roll-0": {"no_pre_roll": True},
    "ratio-50": {"ratio": 0.5},
    "ratio-100": {"ratio": 1.0},
    "raw": {"raw_words": True},
}
"""What is different in round 1."""
SLIPS = {"live": 0.0, "live-3": 0.0, "live-10": 0.1, "live-30": 0.3, "live-raw": 0.0}
"""How often the person of an arm says the wrong thing."""
STAGES_BAND, TASK_BAND = (0.70, 0.85), (0.10, 0.30)
"""Success of a stage that was begun, and of the task, at which the pair is to stand before anything is compared."""
NEAR = 0.01
"""What a pair may miss the bands by: shares of 20 episodes are known to some 0.05."""
WORLDS = (
    {"camera_jitter": 0.0, "action_noise": 0.0},
    {"camera_jitter": 0.0, "action_noise": 0.05},
    {"camera_jitter": 0.0, "action_noise": 0.075},
    {"camera_jitter": 0.0, "action_noise": 0.1},
    {"camera_jitter": 0.0, "action_noise": 0.15},
    {"camera_jitter": 0.01, "action_noise": 0.1},
    {"camera_jitter": 0.01, "action_noise": 0.2},
    {"camera_jitter": 0.02, "action_noise": 0.3},
)
"""What makes the low level imperfect, from easy to hard."""


@dataclass(frozen=True)
class Size:
    """train, learn: options of `heedful correct train` and `learn`. tuning: episodes on which a world is chosen;
    episodes: of a measurement; few: of those of `FEW`; collected: of a round; motor_steps: of the low level in one."""

    train: Mapping[str, Any]
    learn: Mapping[str, Any]
    worlds: tuple[Mapping[str, float], ...] = WORLDS
    tuning: int = 20
    episodes: int = 50
    few: int = 25
    collected: int = 15
    motor_steps: int = 300
    arms: tuple[str, ...] = tuple(NAMES)
    hours: float = 0.0
    longest: int = 0
    """Steps after which an episode ends; 0: as PackTable has it."""


SIZES: dict[Tier, Size] = {
    # Too little to learn from; shows that every arm runs.
    "smoke": Size(
        train={
            "episodes": 3,
            "size": (32, 32),
            "low_steps": 3,
            "low_batch": 4,
            "high_steps": 12,
            "high_batch": 8,
            "held_out": 0.0,
        },
        learn={"high_steps": 3, "high_batch": 10},
        worlds=WORLDS[1:2],
        tuning=1,
        episodes=1,
        few=1,
        collected=1,
        motor_steps=2,
        longest=90,
    ),
    "main": Size(
        train={"episodes": 300, "low_steps": 12000, "high_episodes": 10, "high_steps": 3000},
        learn={"high_steps": 600},
        hours=4.5,
    ),
}
