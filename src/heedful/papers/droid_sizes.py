"""What is trained for DROID, on which data, and how much of it: by tier of the reproduction.

All arms learn the same demonstrations of one held-out scene, with the same number of optimiser steps. Co-training arms
take half of every batch from another data set, so what they see of the demonstrations is half a batch a step:

none     half a batch of the demonstrations, nothing else: the same exposure to them
none-2x  a whole batch of the demonstrations: twice that exposure
diverse  half and half with many scenes, few episodes each
narrow   half and half with as many episodes of three scenes
oxe      half and half with as many episodes of other scenes, in another convention and before fixed cameras
full     half and half with twice as many scenes, and so twice as many episodes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from heedful.papers.results import Tier

Knobs = Mapping[str, Any]
CO_TRAINING, SENSITIVITY = "co-training", "sensitivity"
DATA_SEED = 500
"""Of the data sets that are co-trained on, which all seeds share; demonstrations and scene are each seed's own."""


@dataclass(frozen=True)
class Arm:
    """mix: the data set beside the demonstrations, "" for none; weight: its share; half: whether batches are halved;
    idle: whether idle frames are learned; train: further options of `heedful demos train`."""

    about: str
    mix: str = ""
    weight: float = 0.5
    half: bool = False
    idle: bool = True
    train: Knobs = field(default_factory=dict)


ARMS: dict[str, dict[str, Arm]] = {
    CO_TRAINING: {
        "none": Arm("no co-training", half=True),
        "none-2x": Arm("no co-training, twice the exposure"),
        "diverse": Arm("many scenes", "diverse"),
        "narrow": Arm("three scenes", "narrow"),
        "oxe": Arm("another convention, fixed cameras", "oxe", train={"mix_reading": "as_is"}),
        "full": Arm("twice as many scenes", "full"),
    },
    SENSITIVITY: {
        "mix-25": Arm("many scenes, a quarter of a batch", "diverse", weight=0.25),
        "mix-75": Arm("many scenes, three quarters of a batch", "diverse", weight=0.75),
        "filtered": Arm("many scenes, without idle frames", "diverse", idle=False),
        "one-instruction": Arm("many scenes, one instruction", "diverse", train={"instructions": 1}),
        "delta": Arm("many scenes, changes of the pose", "diverse", train={"actions": "delta"}),
    },
}
"""By setup. What the second one varies is the arm `diverse` of the first."""


@dataclass(frozen=True)
class Size:
    """per_scene: episodes of a scene, by data set; episodes: the first so many of each set, 0: all. train, evaluate:
    options of the two commands, of all arms alike."""

    per_scene: Mapping[str, int]
    episodes: Mapping[str, int]
    picture: int
    train: Knobs
    evaluate: Knobs


SMALL: Knobs = {
    "size": 48,
    "channels": (16, 32, 64, 64),
    "widths": (32, 64, 128),
    "noises": 1,
    "jitter": 0.1,
    "pictures": "raw",
    "batch_size": 64,
    "learning_rate": 1e-3,
    "warmup": 100.0,
    "precision": "fp32",
    "device": "cpu",
    "log_every": 50,
}
SIZES: dict[Tier, Size] = {
    # Too little to learn from; shows that every arm runs.
    "smoke": Size(
        {"diverse": 1, "narrow": 1, "oxe": 1, "full": 1},
        {"diverse": 2, "narrow": 2, "oxe": 2, "full": 3, "in_domain": 2},
        24,
        {
            **SMALL,
            "size": 16,
            "channels": (8, 8),
            "widths": (8, 16),
            "sentences": "words",
            "batch_size": 4,
            "steps": 2,
        },
        {"episodes": 1, "settings": ("as_shown", "camera"), "max_steps": 8},
    ),
    "main": Size(
        {"diverse": 5, "narrow": 100, "oxe": 5, "full": 5},
        {},
        48,
        {**SMALL, "steps": 4000},
        {"episodes": 6, "max_steps": 220},
    ),
}
