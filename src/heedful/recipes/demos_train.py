"""`heedful demos train`: DROID's policy, diffusion over chunks of actions that follows instructions.

Khazatsky et al. 2024 (arXiv 2403.12945), section 5 and appendix: two exterior cameras, proprioception, a frozen
sentence encoder, a 1-D U-Net over 16 actions of which 8 are carried out, and co-training on a large data set (--mix)
beside one's own (--data). Departures, each on purpose:

1. The state's rotation is six numbers, where the paper's is Euler angles (`policies.droid`).
2. A sentence's vector does not count padding; colours are jittered alike in all frames of a sample.
3. The preset laptop's U-Net predicts the noise beyond what the noisy chunk says itself (--residual), which learns in
   fewer steps; the preset paper's all of it.
4. Weights of ResNet-50 are new unless --vision names a folder with ImageNet's; the paper's are ImageNet's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.run import Run

VOLATILE = ("json", "quiet", "dry_run", "save_every", "keep", "log_every", "micro_rows", "pictures_in")
TO, TP, TA = 2, 16, 8
"""Frames seen, steps of a chunk, and steps of it that are carried out."""
EXTERIOR = ("observation.images.exterior_1_left", "observation.images.exterior_2_left")


@dataclass(frozen=True)
class Config:
    """Train DROID's policy on demonstrations (--data), co-trained on other data sets (--mix)."""

    out: str = "runs/demos"
    """The run folder. The same command again resumes it."""
    data: tuple[str, ...] = ()
    """Demonstrations of what is to be learned: data sets of any layout `heedful demos` reads."""
    mix: tuple[str, ...] = ()
    """Data sets to co-train on."""
    weight: float = 0.5
    """Share of --mix in every batch (DROID: one half); within --data and --mix, data sets share by frames."""
    ranges: tuple[str, ...] = ()
    """Files of frames to learn from (`demos trim --ranges`), one for each of --data, then --mix; `-` for all frames."""
    failures: bool = False
    """Learn from episodes too whose row says that they failed."""
    cameras: tuple[str, ...] = EXTERIOR
    """The cameras that the policy sees."""
    instructions: int = 3
    """Of an episode's instructions the first so many count; one is drawn at random for each sample."""
    actions: Literal["absolute", "delta"] = "absolute"
    """What is predicted: poses to go to, or changes of the pose at each step."""
    mix_reading: Literal["cartesian", "as_is"] = "cartesian"
    """How --mix is read. cartesian: DROID's Cartesian columns. as_is: their `action` and `observation.state` of 7
    numbers, in whatever convention they have."""

    size: int = 64
    """Height and width of the pictures that are learned from."""
    crop: float = 116 / 128
    """Share of each side that is seen: at random while learning, else the middle."""
    jitter: float = 0.3
    """Largest change of brightness, contrast, saturation and hue; 0: none."""
    images: Literal["conv", "resnet"] = "conv"
    """The network of each camera: four convolutions, or ResNet-50 with group norms."""
    channels: tuple[int, ...] = (32, 64, 64, 64)
    """conv: channels of the convolutions."""
    points: int = field(default=32, metadata={"before": 0})
    """conv: keypoints of each picture, beside its map; 0: none."""
    vision: str = ""
    """resnet: a folder or Hub id of trained weights, or of another size."""
    sentences: str = "minilm"
    """The frozen sentence encoder: `minilm`, a folder or Hub id, or `words` (no model)."""
    pooling: Literal["mean", "cls", "sum"] = "mean"
    """What a sentence's vector is, of its tokens; DROID's is the sum."""
    widths: tuple[int, ...] = (64, 128, 256)
    """Of the U-Net."""
    features: int = 64
    """Numbers that a picture becomes."""
    hidden: tuple[int, ...] = (256, 128)
    """Layers that put pictures, state and sentence together."""
    denoising_steps: int = 50
    """Steps of diffusion while learning."""
    sample_steps: int = 10
    """Steps of DDIM while acting."""
    noises: int = 4
    """Noises for each sample of a batch."""
    residual: bool = True
    """The U-Net predicts what the noise is beyond the noisy chunk itself; --no-residual: all of it, as DROID's does."""
    average: float = 1e-4
    """Rate that the averaged weights' n^-0.75 comes down to."""

    steps: int = 4000
    """Training steps."""
    batch_size: int = 64
    """Samples per step."""
    learning_rate: float = 1e-4
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How it falls."""
    warmup: float = 0.0
    """Steps of warm-up, or a share when below 1."""
    weight_decay: float = 0.0
    """Of matrices."""
    clip_norm: float = 1.0
    """Largest gradient norm; 0 does not clip."""
    micro_rows: float = 0.0
    """Samples that go through the network at once; 0: all of a batch. Lower it when memory runs out."""
    pictures: Literal["jpeg", "raw"] = "jpeg"
    """How pictures are kept for training: raw is faster and takes more disk."""
    pictures_in: str = ""
    """Where they are kept, to be shared by runs; the default is OUT/pictures."""
    save_every: int = 200
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints kept."""
    log_every: int = 20
    """Steps between metric rows."""
    seed: int = 0
    """Of everything."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the forward pass."""
    preset: Literal["laptop", "paper"] = "laptop"
    """laptop: hours on two cores. paper: DROID's sizes, for a GPU and a day."""
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
            size=128,
            images="resnet",
            points=0,
            sentences="distilbert/distilbert-base-uncased",
            pooling="sum",
            widths=(256, 512, 1024),
            features=512,
            hidden=(1024, 512, 512),
            denoising_steps=100,
            noises=8,
            residual=False,
            steps=25_000,
            batch_size=128,
            save_every=1000,
            log_every=100,
        )
    raise HeedfulError(f"preset {name!r} is neither laptop nor paper")


def main(cfg: Config) -> int:
    """What `heedful demos train` does; the exit status."""
    from heedful.recipes import demos_train_plan as plan
    from heedful.recipes.plan import closing
    from heedful.run import open_run

    plan.check(cfg)
    if cfg.dry_run:
        print(plan.describe(cfg))
        return 0
    with open_run(cfg.out, cfg, seed=cfg.seed, data=plan.files_of(cfg), volatile=VOLATILE) as opened:
        if opened.world > 1:
            raise HeedfulError("heedful demos train runs in one process, not under torchrun")
        result = run(cfg, opened)
    print(json.dumps(result, ensure_ascii=False) if cfg.json else closing(Path(cfg.out), result))
    return 0


def run(cfg: Config, run: Run) -> dict[str, Any]:
    """Read, train, save; returns result.json. A second call goes on where the first one stopped."""
    from heedful.device import pick_device
    from heedful.fit import fit
    from heedful.policies.actions.build import build
    from heedful.policies.actions.chunks import chunk_objective
    from heedful.recipes import demos_train_data, demos_train_plan, demos_train_report

    learned = demos_train_data.open_sources(cfg)
    demos_train_plan.same_data(learned, run)
    demos_train_data.keep_pictures(cfg, learned, run)
    making = demos_train_plan.making_of(cfg, learned)
    policy: Any = build(making, seed=run.seed_for("weights") % 2**31)
    device = pick_device(cfg.device)
    policy.module.to(device)
    policy.average.module.to(device)
    rows: Any = demos_train_data.draws(cfg, learned, run.seed)
    fit(
        "train",
        chunk_objective(policy),
        policy.module,
        rows,
        demos_train_plan.fit_settings(cfg, device),
        run,
        collate=lambda rows: demos_train_data.collate(cfg, learned, rows, run.seed),
        after_step=policy.after_step,
        state=policy.state(),
    )
    return demos_train_report.finish(cfg, learned, policy, making, run)
