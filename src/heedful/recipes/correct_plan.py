"""Before a run of `heedful correct train`: what does not go together, and what it will cost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.errors import HeedfulError
from heedful.recipes.plan import hours
from heedful.recipes.settings import out_of_range

if TYPE_CHECKING:
    from heedful.recipes.correct import Config

AT_LEAST_ONE = (
    *("episodes", "horizon", "act_steps", "low_steps", "low_batch", "history", "high_steps", "high_batch"),
    "keep",
)
NOT_NEGATIVE = (
    *(
        "demo_noise",
        "camera_jitter",
        "action_noise",
        "min_seconds",
        "backbone_rate",
        "look_ahead",
        "pre_roll",
    ),
    *("high_episodes", "save_every", "log_every", "eval_episodes"),
)
ABOVE_ZERO = ("low_rate", "high_rate", "frame_every", "lesson_every", "ask_every", "hold")
STEPS, STEP_SECONDS = 350, 0.007
"""Of an episode at PackTable, and what one costs, physics and two pictures (measured on one core)."""
FLOPS = 5e10
"""Operations a second of such a core; small networks reach no more."""
GPU_FLOPS = 1e14
SMALLEST = 16
"""Pixels along a side below which the image networks see nothing."""


def check(cfg: Config) -> None:
    """Raises HeedfulError with the reason for every pair of options that has no meaning."""
    wrong = out_of_range(cfg, at_least_one=AT_LEAST_ONE, not_negative=NOT_NEGATIVE, above_zero=ABOVE_ZERO)
    if not 0 <= cfg.held_out < 1:
        wrong.append("--held-out is a share, 0 or more and below 1")
    if cfg.act_steps > cfg.horizon:
        wrong.append("--act-steps can be at most --horizon")
    if cfg.points < 0:
        wrong.append("--points is 0 or more")
    if min(cfg.size) < SMALLEST:
        wrong.append(f"--size must be at least {SMALLEST} {SMALLEST}")
    if cfg.data:
        from heedful.recipes.correct import preset

        given = preset(cfg.preset)
        wrong += [
            f"--{name.replace('_', '-')} is about generated demonstrations: leave it out with --data"
            for name in ("episodes", "size", "demo_noise")
            if getattr(cfg, name) != getattr(given, name)
        ]
    if cfg.backbone and cfg.preset == "laptop":
        wrong.append("--backbone is for --preset paper: the laptop's image networks are always new")
    if cfg.backbone_rate and not cfg.backbone:
        wrong.append("--backbone-rate has no meaning without --backbone")
    if not cfg.sentences:
        wrong.append("--sentences names the encoder of commands: words, minilm, a folder or a Hub id")
    if wrong:
        raise HeedfulError("; ".join(wrong))


def describe(cfg: Config) -> str:
    """The plan, the memory and the cost; nothing is trained, downloaded or generated."""
    from heedful.policies import instruct
    from heedful.policies.actions import ActionSpace
    from heedful.policies.actions import build as actions_build
    from heedful.policies.actions.chunks import bound_numbers
    from heedful.policies.actions.observe import ObservationSpace
    from heedful.policies.instruct import SpeakerMaking

    episodes, steps, shapes, numbers, said = _data(cfg)
    seen = ObservationSpace({**shapes, "state": (numbers[0],)})
    space = ActionSpace((-1.0,) * numbers[1], (1.0,) * numbers[1], cfg.horizon)
    make = actions_build.act_making if cfg.low == "act" else actions_build.unet_making
    # The sentence encoder and pretrained weights are not loaded for this; sizes differ by a projection.
    network = {"points": cfg.points} if cfg.preset == "laptop" else {}
    low: Any = actions_build.build(
        make(seen, space, bound_numbers(space), size=cfg.preset, sentences="words", network=network)
    ).module
    eyes = sum(p.numel() for p in low["encoder"].parameters())
    weights = sum(p.numel() for p in low.parameters())
    paper = cfg.preset == "paper"
    encoder = low["encoder"]
    width = 768 if cfg.vision else math.prod(next(iter(encoder.maps.values()))) + encoder.places
    sizes = {k: v for k, v in instruct.PAPER.items() if k not in ("images", "pooling")} if paper else {}
    looked = ObservationSpace(dict.fromkeys(shapes, (width,)), history=cfg.history)
    high = sum(
        p.numel() for p in instruct.build(SpeakerMaking(looked, ("wait",), **sizes)).module.parameters()
    )

    places = sum(h * w for _, h, w in encoder.maps.values()) + len(shapes) * (encoder.places > 0)
    image = sum(_image_flops(paper, shape) for shape in shapes.values())
    tokens = cfg.history * len(shapes)
    frames = steps / max(1.0, cfg.lesson_every * 15)
    work = {
        "low level": cfg.low_steps * cfg.low_batch * (6 * (weights - eyes) * (3 + places) + 3 * image),
        "frames looked at": frames * (image if not cfg.vision else len(shapes) * 9e9),
        "high level": cfg.high_steps * cfg.high_batch * 6 * high * tokens,
    }
    flops = sum(work.values())
    table = (0 if cfg.data else steps) + cfg.eval_episodes * 600
    memory = 16 * (weights + high) + cfg.low_batch * 40 * image / 100
    disk = steps * sum(map(math.prod, shapes.values())) + 2 * frames * width * len(shapes)
    return "\n".join(
        [
            f"plan ({cfg.preset} preset)",
            f"  data         {said}: {episodes:,} episodes, {steps:,} steps, {len(shapes)} camera(s)",
            f"  low level    {cfg.low}, {weights / 1e6:,.2f} M weights ({eyes / 1e6:,.2f} M of image networks), chunks "
            f"of {cfg.horizon}; {cfg.low_steps:,} steps of {cfg.low_batch}",
            f"  high level   {high / 1e6:,.2f} M weights on {cfg.vision or 'the eyes of the low level'}, {cfg.history} "
            f"frames {cfg.frame_every:g} s apart; {cfg.high_steps:,} steps of {cfg.high_batch}",
            f"  sentences    {cfg.sentences}",
            f"  evaluation   {cfg.eval_episodes} episodes (PackTable alone)",
            "memory",
            f"  networks about {memory / 2**30:.2f} GiB; pictures and what is seen of them about {disk / 2**30:.2f} "
            "GiB on disk",
            "cost",
            *(f"  {name:<17} {value / 1e15:,.3f} PFLOP" for name, value in work.items()),
            f"  time         about {hours(flops / FLOPS + table * STEP_SECONDS)} on one CPU core, of which PackTable "
            f"{hours(table * STEP_SECONDS)}; {hours(flops / GPU_FLOPS + table * STEP_SECONDS)} with a data-centre GPU",
            "nothing was run (--dry-run)",
        ]
    )


def _data(cfg: Config) -> tuple[int, int, dict[str, tuple[int, ...]], tuple[int, int], str]:
    """Episodes, steps, shapes of pictures, numbers of (state, action), and what it is called."""
    if not cfg.data:
        names = ("top", "wrist")
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(names, (3, *cfg.size))
        return cfg.episodes, cfg.episodes * STEPS, shapes, (5, 5), "generated at PackTable"
    from heedful.data.narrated import open_narrated

    narrated = open_narrated(Path(cfg.data), cfg.cameras)
    features = narrated.episodes.info.features
    shapes = {n: (features[c].shape[2], *features[c].shape[:2]) for n, c in narrated.cameras.items()}
    widths = (narrated.states[0].shape[1], narrated.actions[0].shape[1])
    return len(narrated.segments), sum(map(len, narrated.actions)), shapes, widths, cfg.data


def _image_flops(paper: bool, shape: tuple[int, ...]) -> float:
    """Of one picture: EfficientNet-B3 has 3.7 GFLOP at 300 x 300, the laptop's convolutions 17 MFLOP at 64 x 64."""
    _, height, width = shape
    return 3.7e9 * height * width / 300**2 if paper else 17e6 * height * width / 64**2
