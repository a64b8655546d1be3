"""`heedful act`: any policy class improved by a critic, on offline data and then in the environment.

Policy-Agnostic RL (Mark et al. 2024, arXiv 2412.06685) is the paper behind this job: actions are improved by a critic,
and the policy learns them as it learns demonstrations. Departures from the release, each on purpose:

1. After the critic's offline training the policy is distilled once (--distill-steps); the release first does so online.
2. The critic's targets rank fewer candidates than acting does (--td-samples), drawn once for each state while the
   policy stands still. --preset paper has the release's numbers.
3. The policy learns the best improved action (--target-choice); the release draws by softmax on all but one task.
4. Online, `dql`, `calql` and `rlpd` too take their policy and critic steps in turn, episode by episode; offline, `dql`
   and `calql` learn both in one step. None has an entropy bonus in the critic's target.
5. The regulariser draws random actions between the real bounds, and IQL is complete (see `judges.critic`).
6. The rate of cloning stays what it is after its warm-up; the paper's falls by a cosine over 3M steps.

Offline data alone is enough to learn from; without an environment nothing can be measured, and the report says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.run import Run

VOLATILE = ("json", "quiet", "dry_run", "save_every", "keep", "log_every", "video")


@dataclass(frozen=True)
class Config:
    """Improve a policy from offline data (--data) and in a gymnasium environment (--env)."""

    out: str = "runs/act"
    """The run folder. The same command again resumes it."""
    data: tuple[str, ...] = ()
    """Offline data: Minari folders, D4RL's HDF5, .npz, LeRobot's Parquet, robot demonstrations of any layout that
    `heedful demos` reads, or folders of `heedful act collect`."""
    drop_faulty: bool = False
    """Leave out episodes of --data that have errors, and count them, instead of stopping."""
    unmarked_succeed: bool = False
    """Take demonstrations without rewards that do not say whether they succeeded for successes, instead of stopping."""
    env: str = ""
    """The environment: a gymnasium id, `package:ID`, or `path.py:function` that returns one."""
    env_args: tuple[str, ...] = ()
    """What it is made with, as `name=value`."""
    task: str = ""
    """What is asked for, in words, for policies that read."""
    max_steps: int = 0
    """Cut episodes after so many steps; 0: as the environment does. Also where D4RL files without timeouts were."""
    action_bounds: Literal["env", "data"] = "env"
    """Bounds of actions: the environment's (without one Minari's metadata, else the data's), or the data's."""

    method: Literal["parl", "clone", "awr", "idql", "dql", "calql", "rlpd", "rerank"] = "parl"
    """parl: learn what a critic improves. clone: imitate. awr: imitate, weighted by advantage. rerank: imitate, and act
    by the best of several samples. idql: that with IQL. dql, calql (Gaussian), rlpd (Gaussian): climb the critic."""
    policy: Literal["diffusion", "flow", "gaussian", "tokens", "language"] = "diffusion"
    """The class of the policy."""
    start: str = ""
    """A policy to go on with, of an earlier run: its folder. Give --clone-steps 0 to leave cloning out."""
    model: str = ""
    """language: the language model, a Hub id, a folder or `smollm2`."""
    lora_rank: int = 16
    """language: rank of the adapter; 0 trains all weights."""
    horizon: int = 1
    """Actions in a row that the policy gives at once."""
    width: int = 128
    """Width of the policy's network."""
    blocks: int = 2
    """Its residual blocks (diffusion, flow), hidden layers (gaussian) or attention layers (tokens)."""
    denoising_steps: int = 5
    """diffusion and flow: steps of sampling."""
    bins: int = 128
    """tokens and language: bins of each number (OpenVLA has 256)."""
    ema: float = 0.005
    """How fast the weights that act follow those that learn; 0: they are the same. Not of language, calql, rlpd."""
    dropout: float = 0.0
    """diffusion, flow: in the residual blocks."""
    images: Literal["cnn", "frozen"] = "cnn"
    """Camera images: a small network of its own, or a frozen vision model (--vision)."""
    vision: str = ""
    """The frozen vision model, a folder or Hub id."""
    image_shift: int = 4
    """Pixels by which images are moved at random in training (DrQ)."""

    clone_steps: int = 3000
    """Steps of cloning."""
    critic_steps: int = 3000
    """Offline steps of the critic (of dql and calql: with the policy)."""
    distill_steps: int = 2000
    """parl, awr: steps of the policy after the critic has learned offline."""
    rounds: int = 1
    """parl, awr: so often the two follow each other offline; each has its share of the steps."""
    online_episodes: int = 0
    """Episodes collected online; 0: offline only."""
    epoch_episodes: int = 1
    """Online: episodes that are collected before each round of updates."""
    warmup_episodes: int = 1
    """Online: episodes collected before the first update."""
    mixing: float = 0.5
    """Online: share of offline data in a batch."""
    critic_utd: float = 1.0
    """Online: steps of the critic for each step of the environment (RLPD has 20)."""
    policy_utd: float = 1.0
    """Online: steps of the policy for each step of the environment."""

    samples: int = 16
    """parl, rerank, idql: actions drawn for each observation (k)."""
    keep_best: int = 4
    """parl: of which so many are climbed from (m)."""
    climb_steps: int = 5
    """parl: gradient steps on each (T)."""
    step_size: float = 3e-3
    """parl: of a gradient step, in units of action squared by unit of Q: scale it with the rewards."""
    rule: Literal["best", "reject"] = "best"
    """parl: keep the best place on the way, or refuse steps that do not raise the value."""
    td_samples: int = 8
    """The same three for the actions in the critic's targets."""
    td_keep: int = 1
    """See --td-samples."""
    td_climb_steps: int = 2
    """See --td-samples."""
    target_choice: Literal["argmax", "softmax"] = "argmax"
    """parl: which of the improved actions the policy learns: the best, or drawn by softmax of their value in raw units,
    which hardly chooses where returns differ by little (the release does so with returns of -100 to 0)."""
    acting: Literal["argmax", "softmax"] = "argmax"
    """parl, rerank, idql: which of them is carried out online. Evaluations take the best."""

    critic: Literal["calql", "cql", "iql", "td"] = "calql"
    """parl, awr, rerank: the critic."""
    members: int = 4
    """Q-networks in its ensemble."""
    target_members: int = 2
    """Of which so many make a target; 0: all."""
    critic_width: int = 128
    """Width of their hidden layers."""
    critic_depth: int = 3
    """Their hidden layers."""
    q_target: Literal["mse", "hl_gauss"] = "mse"
    """Squared error, or a histogram over [q_min, q_max]."""
    q_min: float = -100.0
    """Lowest value of the histogram."""
    q_max: float = 0.0
    """Highest value of the histogram."""
    target_rate: float = 5e-3
    """How fast the target networks follow. A value passes from a state to the one before it about once in 1 / this
    many steps: long ways want many steps, or a higher rate."""
    gamma: float = 0.98
    """Discount of a step."""
    conservatism: float = 0.01
    """calql, cql: weight of the term that keeps unseen actions low (alpha)."""
    random_actions: int = 4
    """calql, cql: random actions in it."""
    expectile: float = 0.7
    """iql: which expectile of Q is the value; 0.9 for sparse mazes."""
    reward_scale: float = 1.0
    """Rewards are multiplied by this,"""
    reward_bias: float = 0.0
    """and this is added."""
    sparse: bool = False
    """The reward says success and nothing else: --success-reward ends the task whatever the data says, and an episode
    without it could have gone on for ever (PA-RL, on sparse tasks)."""
    success_reward: float = 1.0
    """With --sparse: the raw reward of a solved step."""
    failure_reward: float = 0.0
    """With --sparse: that of all others."""

    awr_temperature: float = 1.0
    """awr: weights are exp(advantage / this)."""
    awr_clip: float = 100.0
    """awr: largest weight."""
    q_weight: float = 1.0
    """dql: weight of Q against cloning."""
    entropy: float = 0.0
    """calql, rlpd: target entropy of an action, by number, where bounds are [-1, 1]; 0: -1 for each, as in SAC."""

    batch_size: int = 128
    """Transitions per step."""
    learning_rate: float = 3e-4
    """Of cloning."""
    distill_rate: float = 3e-4
    """Of the policy afterwards (PA-RL: 5e-5)."""
    critic_rate: float = 3e-4
    """Of the critic."""
    warmup: float = 0.0
    """Steps of warm-up of cloning, or a share when below 1."""
    clip_norm: float = 10.0
    """Largest gradient norm; 0 does not clip."""
    save_every: int = 500
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints kept."""
    log_every: int = 50
    """Steps between metric rows."""

    eval_episodes: int = 50
    """Episodes of each evaluation, always with the same seeds; 0: none."""
    eval_every: int = 10
    """Online: episodes between evaluations; 0: at the end only."""
    temperature: float = -1.0
    """Of evaluated policies; -1: 1, and for calql and rlpd 0 (their mean)."""
    parallel: int = 8
    """Evaluated episodes side by side."""
    video: int = 0
    """Film so many episodes of the end (needs PyAV and an environment that renders)."""
    seed: int = 0
    """Of everything."""
    device: str = "cpu"
    """cpu, cuda, mps or auto. Small networks are as fast on the CPU."""
    preset: Literal["laptop", "paper"] = "laptop"
    """laptop: minutes on two cores. paper: PA-RL's settings for AntMaze, for a GPU and days."""
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
        # The authors' AntMaze runs with Cal-QL: their simulation README and configurations.
        return replace(
            Config(),
            preset="paper",
            width=256,
            blocks=3,
            dropout=0.1,
            ema=0.002,
            clone_steps=3_000_000,
            critic_steps=1_000_000,
            distill_steps=0,
            online_episodes=1000,
            samples=32,
            keep_best=10,
            climb_steps=10,
            step_size=3e-4,
            td_samples=32,
            td_keep=10,
            td_climb_steps=10,
            target_choice="softmax",
            members=10,
            critic_width=256,
            critic_depth=4,
            q_target="hl_gauss",
            gamma=0.99,
            conservatism=0.005,
            random_actions=10,
            reward_bias=-1.0,
            sparse=True,
            batch_size=256,
            distill_rate=5e-5,
            warmup=2000.0,
            clip_norm=0.0,
            eval_every=50,
            save_every=10_000,
            log_every=1000,
        )
    raise HeedfulError(f"preset {name!r} is neither laptop nor paper")


def main(cfg: Config) -> int:
    """What `heedful act` does; the exit status."""
    import json

    from heedful.recipes import act_plan
    from heedful.run import open_run

    cfg = act_plan.settle(cfg)
    if cfg.dry_run:
        print(act_plan.describe(cfg))
        return 0
    files = [*cfg.data, *([cfg.start] if cfg.start else [])]
    with open_run(cfg.out, cfg, seed=cfg.seed, data=files, volatile=VOLATILE) as opened:
        if opened.world > 1:
            raise HeedfulError("heedful act runs in one process: start one for each seed instead of torchrun")
        result = run(cfg, opened)
    if cfg.json:
        print(json.dumps(result, ensure_ascii=False))
    elif not cfg.quiet:
        print(act_plan.closing(Path(cfg.out)))
    return 0


def run(cfg: Config, run: Run) -> dict[str, Any]:
    """Clone, learn offline, learn online, measuring in between; save the policy and the report; returns result.json.

    Every stage is kept in the run folder: a second call goes on where the first one stopped, within any phase.
    """
    from heedful.recipes import act_agent, act_eval, act_offline, act_online, act_report, act_world

    world = act_world.open_world(cfg, run)
    agent = act_agent.build_agent(cfg, world, run)
    measured = act_eval.Measured(cfg, world, agent, run)
    act_offline.clone(cfg, world, agent, run)
    measured.policy("cloned" if act_offline.clones(cfg, world, agent) else "at the start")
    act_offline.learn(cfg, world, agent, run, measured)
    history = act_online.learn(cfg, world, agent, run, measured)
    films = act_eval.film(cfg, world, agent, run)
    return act_report.finish(cfg, world, agent, measured, history, films, run)
