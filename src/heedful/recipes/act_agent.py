"""What learns and acts in a run of `heedful act`: a policy and, but for cloning, a critic; built, saved, acting."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from heedful import hub
from heedful.atomic import write_file, write_folder
from heedful.checkpoint import write_tensors
from heedful.device import pick_device
from heedful.errors import HeedfulError
from heedful.judges.action_search import SearchConfig, improve
from heedful.judges.critic import Critic, CriticConfig, Transitions, rlpd
from heedful.model_folder import is_model, read_json
from heedful.policies.actions import ActionPolicy, ActionSpace, NetworkPolicy, Observations
from heedful.policies.actions import build as actions_build
from heedful.policies.actions.build import Making
from heedful.policies.actions.language import LanguageActionPolicy
from heedful.policies.actions.observe import ObservationEncoder, ObservationSpace
from heedful.recipes.act_methods import METHODS, Method, critic_of, has_critic
from heedful.recipes.act_world import World
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.act import Config

FORMAT = "heedful-act-1"
WIDER = 0.1
"""How far beyond the data a language model's bins of a state reach, as a share of its range."""


class Entropy(nn.Module):
    """SAC's coefficient of entropy, which moves so that the policy keeps a target (Haarnoja et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.zeros(()))


@dataclass
class Agent:
    """making: what a policy of networks is made of, None for a language model. entropy: for policies that climb, the
    same in both phases."""

    method: Method
    policy: ActionPolicy
    critic: Critic | None
    making: Making | None
    device: str
    entropy: Entropy | None = None


def build_agent(cfg: Config, world: World, run: Run) -> Agent:
    """New networks, functions of the run's seed; with --start the policy of another run.

    Raises HeedfulError for options that make no policy, and for a --start of other observations or actions.
    """
    method, device = METHODS[cfg.method], pick_device(cfg.device)
    seen = _observations(world)
    making: Making | None = None
    if cfg.policy == "language":
        policy: ActionPolicy = _language(cfg, world, run, device)
    elif cfg.start:
        policy, making = _started(cfg, world)
    else:
        making = _making(cfg, seen, world.space)
        policy = actions_build.build(making, seed=run.seed_for("policy"))
    critic = _critic(cfg, seen, world.space, run) if has_critic(cfg.method) else None
    entropy = Entropy().to(device) if method.policy_step == "climb" else None
    agent = Agent(method, policy, critic, making, device, entropy)
    if isinstance(policy, NetworkPolicy):
        policy.module.to(device)
        if policy.average:
            policy.average.module.to(device)
    if critic is not None:
        critic.module.to(device)
        critic.slow.module.to(device)
    return agent


def moved(batch: Transitions, device: str) -> Transitions:
    """A batch on the device of the networks; observations follow by themselves."""
    if device == "cpu":
        return batch
    mc_return = None if batch.mc_return is None else batch.mc_return.to(device)
    return replace(
        batch,
        action=batch.action.to(device),
        reward=batch.reward.to(device),
        mask=batch.mask.to(device),
        mc_return=mc_return,
    )


# ---- acting


def search_config(cfg: Config, *, td: bool = False) -> SearchConfig:
    """How actions are improved: for acting and distillation, or for the critic's targets."""
    climbs = METHODS[cfg.method].climbs
    samples, keep, steps = (
        (cfg.td_samples, cfg.td_keep, cfg.td_climb_steps)
        if td
        else (cfg.samples, cfg.keep_best, cfg.climb_steps)
    )
    # Where nothing is climbed, the best of the ranking is all that is kept.
    return SearchConfig(
        samples, min(keep, samples) if climbs else 1, steps if climbs else 0, cfg.step_size, rule=cfg.rule
    )


def by_policy(
    agent: Agent, generator: torch.Generator, temperature: float
) -> Callable[[Observations], Tensor]:
    """Acts with one sample of the policy."""
    return lambda observations: agent.policy.act(
        observations, 1, temperature=temperature, generator=generator
    )[:, 0]


def by_search(
    cfg: Config, agent: Agent, generator: torch.Generator, choice: str = "argmax"
) -> Callable[[Observations], Tensor]:
    """Acts with the best of several samples, improved where the method does that."""
    critic, how = agent.critic, search_config(cfg)
    assert critic is not None

    def act(observations: Observations) -> Tensor:
        found = improve(agent.policy, critic, observations, how, generator=generator)
        return found.best() if choice == "argmax" else found.drawn(generator)

    return act


def collecting(cfg: Config, agent: Agent, generator: torch.Generator) -> Callable[[Observations], Tensor]:
    """How the method acts while it collects."""
    if agent.method.acts == "search":
        return by_search(cfg, agent, generator, cfg.acting)
    return by_policy(agent, generator, 1.0)


# ---- building


def _observations(world: World) -> ObservationSpace:
    if world.offline is None:
        return ObservationSpace(world.shapes)
    mean, std = world.offline.moments()
    # A number that never changes in the data would blow up where it does change later.
    std = {name: tuple(s if s > 1e-4 else 1.0 for s in values) for name, values in std.items()}
    return ObservationSpace(world.shapes, mean, std)


def _making(cfg: Config, seen: ObservationSpace, space: ActionSpace) -> Making:
    climbs = METHODS[cfg.method].policy_step == "climb"
    gaussian = {"hidden": (cfg.width,) * cfg.blocks, "tanh": climbs}
    noise = {"steps": cfg.denoising_steps, "width": cfg.width, "blocks": cfg.blocks, "dropout": cfg.dropout}
    tokens = {
        "bins": cfg.bins,
        "width": cfg.width,
        "layers": cfg.blocks,
        "heads": 8 if cfg.width % 8 == 0 else 1,
    }
    head = {"gaussian": gaussian, "diffusion": noise, "flow": noise, "tokens": tokens}[cfg.policy]
    ema = 0.0 if climbs and cfg.policy == "gaussian" else cfg.ema
    return Making(cfg.policy, seen, space, head, _encoder(cfg, seen), ema)


def _encoder(cfg: Config, seen: ObservationSpace) -> dict[str, Any]:
    if not any(len(shape) == 3 for shape in seen.shapes.values()):
        return {}
    return {"images": cfg.images, "pretrained": cfg.vision, "shift": cfg.image_shift}


def _critic(cfg: Config, seen: ObservationSpace, space: ActionSpace, run: Run) -> Critic:
    config = CriticConfig(
        method=critic_of(cfg.method, cfg.critic),  # type: ignore[arg-type]
        members=cfg.members,
        target_members=min(cfg.target_members, cfg.members),
        width=cfg.critic_width,
        depth=cfg.critic_depth,
        target=cfg.q_target,
        q_min=cfg.q_min,
        q_max=cfg.q_max,
        gamma=cfg.gamma,
        target_rate=cfg.target_rate,
        alpha=cfg.conservatism,
        random_actions=cfg.random_actions,
        expectile=cfg.expectile,
    )
    if cfg.method == "rlpd":
        # Its ensemble and networks, in the sizes that all methods share.
        own = rlpd(config)
        config = replace(
            own,
            members=cfg.members,
            target_members=config.target_members,
            width=cfg.critic_width,
            depth=cfg.critic_depth,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed_for("critic encoder"))
        encoder = ObservationEncoder(seen, **_encoder(cfg, seen))
    return Critic(encoder, encoder.features, space, config, seed=run.seed_for("critic"))


def _language(cfg: Config, world: World, run: Run, device: str) -> LanguageActionPolicy:
    from heedful.policies.backbone import Lora
    from heedful.policies.language import LanguagePolicy

    other = [name for name in world.shapes if name != "state"]
    if other:
        raise HeedfulError(
            f"--policy language reads numbers called 'state'; the observations have {', '.join(other)}: give another "
            "--policy, which reads numbers and camera images of any name, or train a language model that reads images "
            "from Python (heedful.policies.actions.vision.VisionActionPolicy)"
        )
    lora = Lora(cfg.lora_rank, 2.0 * cfg.lora_rank) if cfg.lora_rank else None
    bins, bounds, source = cfg.bins, _state_bounds(world), cfg.model
    if cfg.start:
        folder = policy_folder(cfg.start)
        said = read_json(folder.parent / "act.json").get("language")
        if not said:
            raise HeedfulError(f"{cfg.start} holds no language model that acts")
        bins, bounds, source = said["bins"], said["state"], str(folder)
    language = LanguagePolicy.load(
        source, lora=lora, seed=run.seed_for("adapter"), template="none", precision="fp32", device=device
    )
    return LanguageActionPolicy(language, world.space, bins=bins, state=bounds)


def _state_bounds(world: World) -> tuple[list[float], list[float]]:
    assert world.offline is not None
    states = world.offline.buffer.column("observation/state")
    low, high = states.min(0).astype(float), states.max(0).astype(float)
    room = (high - low) * WIDER + 1e-3
    return (low - room).tolist(), (high + room).tolist()


def _started(cfg: Config, world: World) -> tuple[NetworkPolicy, Making]:
    policy, making = actions_build.load(policy_folder(cfg.start))
    if making.kind != cfg.policy:
        raise HeedfulError(f"{cfg.start} holds a {making.kind} policy: give --policy {making.kind}")
    if dict(making.observations.shapes) != world.shapes or making.actions != world.space:
        raise HeedfulError(
            f"{cfg.start} was made for observations {dict(making.observations.shapes)} and {making.actions}; here they "
            f"are {world.shapes} and {world.space}"
        )
    return policy, making


# ---- on disk


def policy_folder(place: str) -> Path:
    """The policy's folder of a run of `heedful act`, of its model folder, or the folder itself."""
    for folder in (Path(place) / "model" / "policy", Path(place) / "policy", Path(place)):
        if is_model(folder):
            return folder
    raise HeedfulError(f"{place} holds no policy: give a run folder of heedful act, or its model")


def save_agent(cfg: Config, agent: Agent, folder: Path) -> None:
    """Write policy/, critic/ and at last act.json, which says how the two act together."""
    told: dict[str, Any] = {
        "format": FORMAT,
        "method": cfg.method,
        "policy": cfg.policy,
        "acts": agent.method.acts,
        "search": asdict(search_config(cfg)),
        "env": cfg.env,
        "task": cfg.task,
        "actions": asdict(agent.policy.space),
    }
    if isinstance(agent.policy, LanguageActionPolicy):
        told["language"] = {
            "model": _first_model(cfg),
            "bins": len(agent.policy.edges),
            "state": agent.policy.state_bounds,
        }
    if agent.critic is not None:
        told["critic"] = asdict(agent.critic.config)

    policy = agent.policy
    if isinstance(policy, LanguageActionPolicy):
        card = {
            "title": f"A language model that acts ({cfg.method})",
            "base_model": _first_model(cfg),
            "method": cfg.method,
        }
        hub.save_model(policy.language.module, policy.language.tokenizer, folder / "policy", card=card)
    else:
        assert isinstance(policy, NetworkPolicy) and agent.making is not None
        actions_build.save(policy, agent.making, folder / "policy")
    critic = agent.critic
    if critic is not None:
        own = {n: v for n, v in critic.module.state_dict().items() if ".frozen." not in n}
        write_folder(folder / "critic", lambda beside: write_tensors(beside / "model.safetensors", own))
    write_file(folder / "act.json", (json.dumps(told, indent=1) + "\n").encode())


def _first_model(cfg: Config) -> str:
    """The language model that a chain of --start began with."""
    if not cfg.start:
        return cfg.model
    said = read_json(policy_folder(cfg.start).parent / "act.json")["language"]
    return said["model"] or cfg.model
