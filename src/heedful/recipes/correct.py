"""`heedful correct train`: from narrated demonstrations to a robot that can be told what to do, and tells itself.

Two policies learn from the same episodes. The low level follows a command; the high level says the next one, from what
was seen in the last seconds. `heedful correct run` then lets a person overwrite what the high level says, and `heedful
correct learn` teaches those words to the high level alone (Yell At Your Robot, Shi et al. 2024, arXiv 2403.12910).

Where this departs from the paper's code, each on purpose:

1. Both levels leave the same 5% of episodes out, and what is reported is measured on these (theirs: on all data).
2. The laptop's high level sees through the low level's image networks, and the robot's state too (theirs: CLIP alone).
3. The high level is asked every half second (theirs: every 4 s, a skill's mean length; here skills last 0.5 to 4 s),
   and a correction is followed for as long as its command takes in nine of ten demonstrations (theirs: 4 s).
4. Wordings of one command are summed when the high level speaks, where the data says which belong together.
5. Learning rates, sizes and steps of the laptop preset are our own; --preset paper has the paper's.
6. One frame is what a low level sees, for diffusion too (DROID's policy has two).
7. The laptop's image networks give keypoints beside their maps, and velocities are learned as what they add up to
   (theirs are positions).

See `policies.actions_act`, `policies.instruct` and `policies.override` for departures within the parts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.run import Run

VOLATILE = ("json", "quiet", "dry_run", "save_every", "keep", "log_every")


@dataclass(frozen=True)
class Config:
    """Train a low level that follows commands and a high level that gives them, from narrated demonstrations."""

    out: str = "runs/correct"
    """The run folder. The same command again resumes it."""
    data: str = ""
    """Narrated demonstrations, LeRobotDataset v3 with language columns; "": generated at PackTable."""
    cameras: tuple[str, ...] = ()
    """Cameras that the policies see; all of the data by default."""
    episodes: int = 300
    """Generated demonstrations."""
    size: tuple[int, int] = (64, 64)
    """Height and width of their pictures."""
    demo_noise: float = 0.1
    """Noise on the generated demonstrations' actions: the expert has to recover from it."""
    camera_jitter: float = 0.0
    """PackTable, afterwards: metres by which the outer camera is off its place in the demonstrations."""
    action_noise: float = 0.0
    """PackTable, afterwards: noise on every action."""
    keep_mistakes: bool = False
    """Let the low level learn what was corrected afterwards, too (an ablation)."""
    min_seconds: float = 0.4
    """The low level does not learn shorter segments."""
    held_out: float = 0.05
    """Share of the episodes that neither level learns from."""

    low: Literal["act", "diffusion"] = "act"
    """The low level: ACT, or diffusion over chunks."""
    horizon: int = 20
    """Actions of a chunk (the paper: 100, 2 s)."""
    act_steps: int = 8
    """Of which so many are carried out before the low level is asked again."""
    sentences: str = "words"
    """The sentence encoder: words (no model), minilm, or a folder or Hub id (DistilBERT in the paper)."""
    backbone: str = ""
    """Pretrained image networks of the low level, a folder or Hub id; --preset paper has EfficientNet-B3."""
    points: int = field(default=32, metadata={"before": 0})
    """Keypoints of each picture, beside its map, in a laptop's image networks; 0: none."""
    sums: bool = field(default=True, metadata={"before": False})
    """Learn numbers of an action that are named velocity_..., but the gripper's, as what they add up to in a chunk."""
    low_steps: int = 12000
    """Steps of the low level."""
    low_batch: int = 32
    """Chunks in a step."""
    low_rate: float = 1e-3
    """Learning rate of the low level,"""
    backbone_rate: float = 0.0
    """and of its image networks; 0: the same."""

    vision: str = ""
    """The high level's eyes: a frozen vision model, a folder or Hub id; "": the low level's image networks."""
    see_state: bool = True
    """The high level sees the robot's state, too."""
    history: int = 4
    """Frames that the high level sees,"""
    frame_every: float = 1.0
    """seconds apart."""
    head: Literal["cosine", "onehot"] = "cosine"
    """Commands are compared with what was seen, or each has a row of weights (an ablation)."""
    look_ahead: float = 0.4
    """Seconds: the high level learns to say what is said that much later."""
    lesson_every: float = 0.2
    """Seconds between the moments that it learns from."""
    high_episodes: int = 0
    """Episodes that the high level learns from, of those that the low level does; 0: all."""
    high_steps: int = 3000
    """Steps of the high level."""
    high_batch: int = 64
    """Moments in a step."""
    high_rate: float = 3e-4
    """Learning rate of the high level."""
    ask_every: float = 0.5
    """Seconds between two questions to the high level, when it acts."""
    hold: float = 4.0
    """Seconds for which a correction is followed, at most; else as long as its command takes in the demonstrations."""
    pre_roll: float = 2.0
    """Seconds before a correction that belong to it."""

    save_every: int = 500
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints kept."""
    log_every: int = 50
    """Steps between metric rows."""
    eval_episodes: int = 20
    """PackTable: episodes in which the pair is measured; 0: none."""
    seed: int = 0
    """Of everything."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    precision: Literal["auto", "bf16", "fp32"] = "fp32"
    """Arithmetic of training."""
    preset: Literal["laptop", "paper"] = "laptop"
    """laptop: under two hours on a core. paper: the paper's sizes, for a GPU and days; give --data."""
    dry_run: bool = False
    """Print the plan, the memory and the cost, and stop."""
    json: bool = False
    """Print result.json on standard output."""
    quiet: bool = False
    """No progress display."""


def preset(name: str) -> Config:
    """The defaults of a preset. Raises HeedfulError for an unknown name."""
    if name == "laptop":
        return Config()
    if name == "paper":
        return replace(
            Config(),
            preset="paper",
            horizon=100,
            act_steps=100,
            sentences="distilbert-base-uncased",
            points=0,
            backbone="google/efficientnet-b3",
            low_steps=2_200_000,  # 30,000 epochs of 1170 episodes, 16 in a step
            low_batch=16,
            low_rate=1e-4,
            backbone_rate=1e-5,
            vision="openai/clip-vit-base-patch32",
            see_state=False,
            lesson_every=0.4,
            high_steps=275_000,  # 15,000 epochs of 1170 episodes, 64 in a step
            high_rate=1e-4,
            ask_every=4.0,
            save_every=5000,
            log_every=500,
            device="auto",
            precision="auto",
        )
    raise HeedfulError(f"preset {name!r} is neither laptop nor paper")


def main(cfg: Config) -> int:
    """What `heedful correct train` does; the exit status."""
    from heedful.recipes import correct_plan, correct_report
    from heedful.run import open_run

    correct_plan.check(cfg)
    if cfg.dry_run:
        print(correct_plan.describe(cfg))
        return 0
    with open_run(cfg.out, cfg, seed=cfg.seed, data=[cfg.data] * bool(cfg.data), volatile=VOLATILE) as opened:
        if opened.world > 1:
            raise HeedfulError("heedful correct runs in one process: start it without torchrun")
        result = run(cfg, opened)
    correct_report.tell(cfg, result)
    return 0


def run(cfg: Config, run: Run) -> dict[str, Any]:
    """Gather demonstrations, train the low level, freeze it, train the high level, measure both; returns result.json.

    Every stage is kept in the run folder: a second call goes on where the first one stopped.
    """
    from heedful.recipes import correct_eval, correct_high, correct_low, correct_report
    from heedful.recipes.correct_models import Talker, save_talker

    demos = correct_low.gather(cfg, run)
    low, making = correct_low.train(cfg, demos, run)
    talking = correct_high.talking(cfg, demos)
    lessons = correct_high.lessons_of(cfg, demos, talking, low, run)
    high = correct_high.train(cfg, lessons, talking.aliases, run)
    talker = Talker(talking, low, making, high)
    save_talker(talker, run.path("model"))
    taken = correct_eval.measured(talker, cfg.eval_episodes, "evaluation", run)
    return correct_report.finish_training(cfg, demos, talker, lessons, taken, run)
