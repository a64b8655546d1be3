"""`heedful act`: every method through every phase, the same bytes after SIGKILL, and better than what it cloned."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import tiny
import torch

from heedful.checkpoint import read_part
from heedful.data.point_reach import PointReach
from heedful.data.replay import Episode, ReplayBuffer
from heedful.data.transitions import Rewards, TransitionTable
from heedful.errors import HeedfulError
from heedful.fit import fit
from heedful.policies.actions import ActionSpace
from heedful.policies.actions import build as actions_build
from heedful.recipes import (
    act,
    act_agent,
    act_collect,
    act_offline,
    act_online,
    act_plan,
    act_report,
    act_steps,
)
from heedful.recipes.act import Config
from heedful.recipes.act_eval import Measured
from heedful.recipes.act_methods import METHODS
from heedful.recipes.act_world import World, open_world
from heedful.run import open_run, read_metrics
from heedful.stage import Stage

POINT = "heedful.data.point_reach:PointReach-v0"
SQUARE = ActionSpace((-1.0, -1.0), (1.0, 1.0))
SMALL: dict[str, Any] = {
    "env": POINT,
    "max_steps": 6,
    "width": 16,
    "blocks": 1,
    "denoising_steps": 2,
    "clone_steps": 3,
    "critic_steps": 4,
    "distill_steps": 3,
    "online_episodes": 2,
    "samples": 3,
    "keep_best": 2,
    "climb_steps": 1,
    "td_samples": 2,
    "td_climb_steps": 1,
    "members": 2,
    "critic_width": 16,
    "critic_depth": 1,
    "random_actions": 2,
    "batch_size": 8,
    "eval_episodes": 2,
    "log_every": 1,
    "save_every": 2,
    "quiet": True,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Episodes that go to all four corners, a quarter of them to the one that counts."""
    folder = tmp_path_factory.mktemp("act") / "corners"
    cfg = act_collect.Config(
        env=POINT,
        out=str(folder),
        behaviour=("heedful.data.point_reach:corners",),
        noise=(0.0, 0.3),
        episodes=80,
        quiet=True,
    )
    assert act_collect.main(cfg) == 0
    return str(folder)


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the page takes longer than everything else here, and has a test of its own."""
    monkeypatch.setattr(act_report, "write_report", lambda folder: folder)


def ran(cfg: Config) -> dict[str, Any]:
    cfg = act_plan.settle(cfg)
    with open_run(cfg.out, cfg, seed=cfg.seed, volatile=act.VOLATILE) as run:
        return act.run(cfg, run)


def stages(folder: Path) -> set[str]:
    return {row["stage"] for row in read_metrics(folder)}


# ---- every method, every phase, every class


PHASES = {
    "parl": {"clone", "offline/critic-0", "offline/policy-0", "online/00000/policy", "online/00000/critic"},
    "awr": {"clone", "offline/critic-0", "offline/policy-0", "online/00000/policy", "online/00000/critic"},
    "clone": {"clone"},
    "rerank": {"clone", "offline/critic-0", "online/00000/critic"},
    "idql": {"clone", "offline/critic-0", "online/00000/critic"},
    "dql": {"clone", "offline/together", "online/00000/policy", "online/00000/critic"},
    "calql": {"clone", "offline/together", "online/00000/policy", "online/00000/critic"},
    "rlpd": {"online/00000/policy", "online/00000/critic"},
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_through_every_phase_it_has(
    method: Any, data: str, tmp_path: Path, no_page: None
) -> None:
    settings = {**SMALL, "online_episodes": 0} if method == "clone" else SMALL
    result = ran(Config(out=str(tmp_path / "r"), data=(data,), method=method, **settings))
    found = stages(tmp_path / "r")
    kept = {s for s in found if s.startswith(("clone", "offline", "online/00000"))}
    assert kept == PHASES[method], found
    assert result["offline_episodes"] == 80 and result["online_episodes"] == (0 if method == "clone" else 2)
    saved = json.loads((tmp_path / "r" / "model" / "act.json").read_text())
    assert saved["method"] == method and ("critic" in saved) == (method != "clone")
    policy, making = actions_build.load(tmp_path / "r" / "model" / "policy")
    assert making.kind == ("gaussian" if method in ("calql", "rlpd") else "diffusion")
    assert policy.act({"state": torch.zeros(1, 2)}, 2, generator=torch.Generator()).shape == (1, 2, 1, 2)


@pytest.mark.parametrize("kind", ["flow", "gaussian", "tokens", "language"])
def test_parl_runs_with_every_class_of_policy(kind: Any, data: str, tmp_path: Path, no_page: None) -> None:
    more: dict[str, Any] = {}
    if kind == "language":
        more = {
            "model": str(tiny.save(tmp_path / "lm")),
            "task": "reach the corner",
            "bins": 9,
            "lora_rank": 2,
        }
        more |= {
            "batch_size": 4,
            "clone_steps": 1,
            "critic_steps": 1,
            "distill_steps": 1,
            "online_episodes": 1,
        }
        more |= {"max_steps": 2, "policy_utd": 0.5}
    result = ran(Config(out=str(tmp_path / "r"), data=(data,), policy=kind, **{**SMALL, **more}))
    assert result["online_episodes"] >= 1 and "offline_success" in result
    if kind == "language":
        said = json.loads((tmp_path / "r" / "model" / "act.json").read_text())["language"]
        assert said["bins"] == 9 and len(said["state"][0]) == 2
        # the policy that was saved is the one that goes on: bins and bounds with it
        again = Config(
            out=str(tmp_path / "s"),
            data=(data,),
            policy=kind,
            method="clone",
            start=str(tmp_path / "r"),
            **{**SMALL, **more, "clone_steps": 0, "online_episodes": 0, "bins": 128, "model": ""},
        )
        assert ran(again)["at_the_start_return"] >= 0
        kept = json.loads((tmp_path / "s" / "model" / "act.json").read_text())["language"]
        assert kept["model"] == said["model"] == more["model"], "of the first run"
        cards = [(tmp_path / n / "model/policy/README.md").read_text() for n in ("r", "s")]
        first, last = ([x for x in card.splitlines() if x.startswith("- base model: ")] for card in cards)
        assert first == last != []
        assert "policy       language, 0.0" in act_plan.describe(
            act_plan.settle(replace(again, dry_run=True))
        )


def test_chunks_other_critics_and_rounds(data: str, tmp_path: Path, no_page: None) -> None:
    cfg = Config(
        out=str(tmp_path / "r"), data=(data,), horizon=2, critic="iql", rounds=2, sparse=True, **SMALL
    )
    result = ran(
        replace(cfg, reward_bias=-1.0, q_target="hl_gauss", target_choice="softmax", acting="softmax")
    )
    assert {"offline/critic-1", "offline/policy-1"} <= stages(tmp_path / "r")
    assert result["online_steps"] <= 2 * 6
    whole = ran(Config(out=str(tmp_path / "s"), data=(data,), method="awr", critic="iql", **SMALL))
    assert whole["method"] == "awr"


def test_without_an_environment_nothing_is_measured_and_without_data_rlpd_learns(
    data: str, tmp_path: Path, no_page: None
) -> None:
    blind = {**SMALL, "env": "", "online_episodes": 0}
    result = ran(Config(out=str(tmp_path / "r"), data=(data,), **blind))
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert "Nothing was measured" in " ".join(report["warnings"]) and "offline_success" not in result
    assert "least and greatest in the data" in report["warnings"][0]
    alone = ran(Config(out=str(tmp_path / "s"), method="rlpd", **SMALL))
    assert alone["online_episodes"] == 2 and alone["offline_episodes"] == 0


# ---- SIGKILL


def killed(cfg: Config, install: Callable[[], None]) -> None:
    """Run in a fork that dies by SIGKILL where `install` says."""
    tiny.needs_forks()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            install()
            ran(cfg)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def after_saving(stage: str, step: int) -> Callable[[], None]:
    def install() -> None:
        save = Stage.save

        def saved(self: Stage, at: int, *rest: Any) -> None:
            save(self, at, *rest)
            if (self.name, at) == (stage, step):
                os.kill(os.getpid(), signal.SIGKILL)

        Stage.save = saved  # type: ignore[method-assign]

    return install


def after_adding(folder: str, count: int) -> Callable[[], None]:
    def install() -> None:
        extend = ReplayBuffer.extend

        def added(self: ReplayBuffer, episodes: Any) -> int:
            number = extend(self, episodes)
            if self.folder.name == folder and self.episodes >= count:
                os.kill(os.getpid(), signal.SIGKILL)
            return number

        ReplayBuffer.extend = added  # type: ignore[method-assign]

    return install


def bytes_of(folder: Path) -> dict[str, Any]:
    """What must be the same after any kill: weights, buffers, measurements and metric rows without clocks."""
    files = [p for part in ("model", "online", "offline", "eval", "data") for p in (folder / part).rglob("*")]
    files += [folder / "data.json", folder / "result.json"]
    rows = [{k: v for k, v in r.items() if k not in ("time", "rows_per_s")} for r in read_metrics(folder)]
    # finished stages of a chain say where their weights have gone; a meta.json has no clock in it
    kept = {str(p.relative_to(folder)): p.read_bytes() for p in files if p.is_file()}
    return {**kept, "metrics": rows}


@pytest.mark.parametrize(("method", "policy"), [("parl", "diffusion"), ("calql", "gaussian")])
def test_resumed_to_the_byte_after_sigkill_in_any_phase(
    method: Any, policy: Any, data: str, tmp_path: Path, no_page: None
) -> None:
    settings = {**SMALL, "online_episodes": 3, "warmup_episodes": 2, "eval_every": 2}
    cfg = Config(data=(data,), method=method, policy=policy, **settings)
    ran(replace(cfg, out=str(tmp_path / "whole")))
    want = bytes_of(tmp_path / "whole")
    offline = "offline/critic-0" if method == "parl" else "offline/together"
    cut = replace(cfg, out=str(tmp_path / "cut"))
    moments = [
        after_adding("data", 5),
        after_saving("clone", 2),
        after_saving(offline, 2),
        *([after_saving("offline/policy-0", 2)] if method == "parl" else []),
        after_adding("replay", 2),
        after_saving("online/00000/critic", 4),
        after_adding("replay", 3),
        after_saving("online/00001/policy", 2),
        after_saving("online/00001/critic", 4),
    ]
    for moment in moments:
        killed(cut, moment)
    ran(cut)
    got = bytes_of(tmp_path / "cut")
    assert [name for name in want if got.get(name) != want[name]] == []
    assert set(got) == set(want)


# ---- better than its clone


def test_the_distilled_policy_beats_its_clone(data: str, tmp_path: Path, no_page: None) -> None:
    """Four modes in the data, one of which is right: the clone does each as often, PA-RL's policy mostly that one."""
    cfg = Config(
        out=str(tmp_path / "r"),
        env=POINT,
        data=(data,),
        policy="tokens",
        bins=11,
        width=32,
        blocks=1,
        ema=0.0,
        critic_width=32,
        critic_depth=2,
        members=2,
        clone_steps=250,
        critic_steps=250,
        distill_steps=250,
        batch_size=64,
        learning_rate=5e-3,
        distill_rate=5e-3,
        critic_rate=3e-3,
        samples=8,
        keep_best=2,
        climb_steps=2,
        step_size=0.05,
        td_samples=4,
        td_climb_steps=1,
        gamma=0.9,
        eval_episodes=40,
        parallel=40,
        quiet=True,
        log_every=0,
    )
    result = ran(cfg)
    clone, distilled = result["cloned_success"], result["offline_success"]
    assert clone < 0.6 and distilled > clone + 0.15, result
    # the critic's choice among the clone's samples is better, too: that is what was distilled
    assert result["critic_s_choice_success"] > clone + 0.2, result


# ---- the parts of a step


def made(data: str, tmp_path: Path, **more: Any) -> tuple[Config, Any, Any, Any]:
    cfg = act_plan.settle(Config(out=str(tmp_path / "r"), data=(data,), **{**SMALL, **more}))
    run = open_run(cfg.out, cfg, seed=0)
    world = open_world(cfg, run)
    return cfg, world, act_agent.build_agent(cfg, world, run), run


@pytest.mark.parametrize(("method", "policy"), [("dql", "diffusion"), ("calql", "gaussian")])
def test_climbing_moves_the_policy_up_and_leaves_the_critic_alone(
    method: Any, policy: Any, data: str, tmp_path: Path
) -> None:
    cfg, world, agent, run = made(
        data, tmp_path, method=method, policy=policy, q_weight=100.0 if method == "dql" else 1.0
    )
    with run:
        with torch.no_grad():
            agent.critic.module["q"].last.weight.mul_(300)
        entropy = agent.entropy
        with torch.no_grad():
            entropy.log.fill_(-5.0)  # else it is entropy that the policy climbs
        loss = act_steps.climbing_loss(cfg, agent)
        batch = world.offline.batch(torch.arange(32))
        optimizer = torch.optim.Adam(agent.policy.module.parameters(), lr=3e-3)
        seen = []
        for step in range(60):
            torch.manual_seed(step)
            value, metrics = loss(batch)
            value.backward()
            assert all(p.grad is None and p.requires_grad for p in agent.critic.module.parameters())
            optimizer.step()
            optimizer.zero_grad()
            seen.append(float(metrics["value"]))
        assert np.mean(seen[-10:]) > np.mean(seen[:10]) + 0.05, seen
        # too little entropy or too much: the coefficient has a gradient of the right sign
        if method == "calql":
            entropy.log.grad = None
            value, metrics = loss(batch)
            value.backward()
            assert entropy.log.grad is not None
            assert np.sign(float(entropy.log.grad)) == np.sign(float(metrics["entropy"]) + 2.0)


def test_the_coefficient_of_entropy_is_one_and_goes_on_online(
    data: str, tmp_path: Path, no_page: None
) -> None:
    settings = {**SMALL, "online_episodes": 1, "distill_rate": 0.1, "eval_episodes": 0}
    ran(Config(out=str(tmp_path / "r"), data=(data,), method="calql", **settings))
    learned = float(read_part(tmp_path / "r/offline/together/final", "model")["entropy.log"].exp())
    assert abs(learned - 1) > 0.2
    rows = [r for r in read_metrics(tmp_path / "r") if r["stage"] == "online/00000/policy"]
    assert rows[0]["step"] == 1 and rows[0]["coefficient"] == pytest.approx(learned)
    assert rows[-1]["coefficient"] != rows[0]["coefficient"]


def test_target_networks_follow_at_the_rate_that_was_asked_for(data: str, tmp_path: Path) -> None:
    _, _, agent, run = made(data, tmp_path, target_rate=0.25)
    with run, torch.no_grad():
        learns = agent.critic.module["q"].last.weight
        before = learns.clone()
        learns.add_(1.0)
        agent.critic.after_step(0)
        torch.testing.assert_close(agent.critic.slow.module["q"].last.weight, before + 0.25)


def test_weights_of_advantage_by_hand(data: str, tmp_path: Path) -> None:
    cfg, world, agent, run = made(data, tmp_path, method="awr", awr_temperature=0.5, awr_clip=3.0)
    with run:
        with torch.no_grad():
            agent.critic.module["q"].last.weight.mul_(300)
        batch = world.offline.batch(torch.arange(20))
        drawn = agent.policy.act(batch.observations, 2, generator=torch.Generator().manual_seed(0))
        weight = act_steps.advantage_weights(cfg, agent.critic, batch, drawn)
        features = agent.critic.encode(batch.observations)
        q = agent.critic.score(features, batch.action[:, None])[:, 0]
        value = agent.critic.score(features, drawn).mean(1)
        torch.testing.assert_close(weight, ((q - value) / 0.5).exp().clamp(max=3.0))
        assert weight.max() <= 3.0 and weight.std() > 0.05


def test_batches_are_functions_of_seed_and_name_and_mix_as_told() -> None:
    batches = act_steps.Batches([50, 10], [0.25, 0.75], 5, 16, 0, "s")
    assert len(batches) == 5 and torch.equal(
        batches[3], act_steps.Batches([50, 10], [0.25, 0.75], 9, 16, 0, "s")[3]
    )
    assert not torch.equal(batches[3], batches[2])
    assert not torch.equal(batches[3], act_steps.Batches([50, 10], [0.25, 0.75], 5, 16, 0, "t")[3])
    assert all(int((row < 50).sum()) == 4 for row in batches)
    assert [act_offline.share_of(10, r, 3) for r in range(3)] == [4, 3, 3]


@pytest.mark.parametrize("method", ["parl", "awr", "dql", "calql", "rlpd"])
def test_online_batches_and_steps_are_mixed_and_counted_as_asked_for(
    method: Any, data: str, tmp_path: Path, no_page: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy that climbs has batches like the critic's; the others' are even over all transitions."""
    drawn: dict[str, Any] = {}

    def fitted(stage: str, loss: Any, module: Any, rows: Any, *rest: Any, **more: Any) -> None:
        drawn[stage] = rows
        fit(stage, loss, module, rows, *rest, **more)

    monkeypatch.setattr(act_online, "fit", fitted)
    settings = {**SMALL, "batch_size": 64, "warmup_episodes": 2, "eval_episodes": 0}
    settings |= {"mixing": 0.25, "critic_utd": 2.0, "policy_utd": 0.5}
    ran(Config(out=str(tmp_path / "r"), data=(data,), method=method, **settings))
    collected = json.loads((tmp_path / "r" / "online/00000/collected.json").read_text())["steps"]
    last = {row["stage"]: row["step"] for row in read_metrics(tmp_path / "r")}
    assert last["online/00000/critic"] == 2 * collected
    assert last["online/00000/policy"] == round(collected / 2)
    offline = len(TransitionTable(ReplayBuffer(Path(data) / "data", {"state": (2,)}, 2), SQUARE, Rewards()))
    even = round(64 * offline / (offline + collected))
    assert even > 48 and set(drawn) == {"online/00000/critic", "online/00000/policy"}
    for stage, share in (("critic", 16), ("policy", 16 if METHODS[method].policy_step == "climb" else even)):
        batches = drawn[f"online/00000/{stage}"]
        assert [(len(rows), int((rows < offline).sum())) for rows in batches] == [(64, share)] * len(batches)
        assert all(int(rows.max()) < offline + collected for rows in batches)


# ---- environments


class Breaking(gym.Env[Any, Any]):
    """Raises at the third step of episodes whose seed a number divides."""

    def __init__(self, every: int = 3) -> None:
        self.inner, self.every = PointReach(), every
        self.observation_space, self.action_space = self.inner.observation_space, self.inner.action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.bad, self.steps = bool(seed is not None and seed % self.every == 0), 0
        return self.inner.reset(seed=seed)

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.bad and self.steps == 3:
            raise RuntimeError("the simulator exploded")
        return self.inner.step(action)


def test_an_environment_that_breaks_costs_that_episode_and_too_many_stop(
    data: str, tmp_path: Path, no_page: None
) -> None:
    file = tmp_path / "world.py"
    file.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_act import Breaking\ndef make(every=1):\n    return Breaking(every)\n"
    )
    settings = {**SMALL, "env": f"{file}:make", "online_episodes": 8, "eval_episodes": 0, "method": "rerank"}
    settings |= {"critic_utd": 0.2}
    result = ran(Config(out=str(tmp_path / "r"), data=(data,), env_args=("every=7",), **settings))
    broken = result["broken_episodes"]
    assert 1 <= broken <= 2 and result["online_episodes"] == 8 - broken
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert "the simulator exploded" in " ".join(report["warnings"])
    with pytest.raises(
        HeedfulError, match=r"3 of 3 episodes collected online broke.*\n.*the simulator exploded"
    ):
        ran(Config(out=str(tmp_path / "s"), data=(data,), env_args=("every=1",), **settings))


def test_a_corrected_environment_goes_on_with_the_same_command(
    data: str, tmp_path: Path, no_page: None
) -> None:
    file = tmp_path / "world.py"
    start = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_act import Breaking\n"
    file.write_text(f"{start}def make():\n    return Breaking(1)\n")
    settings = {**SMALL, "env": f"{file}:make", "online_episodes": 5, "eval_episodes": 0, "method": "rerank"}
    cfg = Config(out=str(tmp_path / "r"), data=(data,), **settings)
    for _ in range(2):  # broken as before: the same episode says so at once
        with pytest.raises(HeedfulError, match=r"3 of 3 episodes collected online broke"):
            act.main(cfg)
        assert len(list((tmp_path / "r" / "online").glob("*/collected.json"))) == 2
    file.write_text(f"{start}def make():\n    return Breaking(1_000_000_007)\n")
    assert act.main(cfg) == 0
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert result["broken_episodes"] == 2 and result["online_episodes"] == 3
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert "world.py has changed since the run began" in " ".join(report["warnings"])


def test_collected_data_is_a_function_of_its_settings(data: str, tmp_path: Path) -> None:
    buffer = ReplayBuffer(Path(data) / "data", {"state": (2,)}, 2)
    result = json.loads((Path(data) / "result.json").read_text())
    assert result["episodes"] == buffer.episodes == 80 and 0.1 <= result["success"] <= 0.45
    assert [info["noise"] for info in buffer.infos[:4]] == [0.0, 0.3, 0.0, 0.3]
    page = (Path(data) / "report.html").read_text()
    assert "returns, the highest first" in page and "point_reach:corners" in page
    fewer = act_collect.Config(
        env=POINT,
        out=str(tmp_path / "c"),
        behaviour=("heedful.data.point_reach:corners",),
        noise=(0.0, 0.3),
        episodes=4,
        quiet=True,
    )
    act_collect.main(fewer)
    short = ReplayBuffer(tmp_path / "c" / "data", {"state": (2,)}, 2)
    for i in range(4):
        assert np.array_equal(short.episode(i).action, buffer.episode(i).action)
    table = TransitionTable(short, SQUARE, Rewards())
    assert len(table) == short.rows - 4
    with pytest.raises(HeedfulError, match=r"give --env.*at least 1"):
        act_collect.main(act_collect.Config(episodes=0))


# ---- the page, the plan, what is refused


def test_the_report_renders(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = Config(out=str(tmp_path / "r"), data=(data,), eval_every=1, **{**SMALL, "quiet": False})
    assert act.main(cfg) == 0
    told = capsys.readouterr()
    assert "Cloned (the policy alone)" in told.out and "tells little" in told.out
    assert "measured after 1 episodes (search)" in told.err
    page = (tmp_path / "r" / "report.html").read_text()
    for text in ("success rate, the policy alone", "cloned → online", "return online", "PointReach-v0"):
        assert text in page, text
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert [row[0] for row in report["tables"][0]["rows"]][:2] == ["cloned", "critic's choice"]
    assert report["data"]["offline episodes"] == 80 and report["data"]["offline success rate"].endswith("%")


@pytest.mark.parametrize(
    ("offline", "online", "warned"),
    [
        (1.5, -9.0, ["Offline"]),  # calm online, but not before
        (0.1, 0.9, []),  # 0.9 above a mixed mean near 3.8 is below the 5 that was reached online
        (0.1, 1.5, ["Online"]),
        (None, 1.5, ["Online"]),
        (0.1, None, []),
    ],
)
def test_the_critic_is_too_optimistic_by_the_returns_of_each_phase(
    offline: float | None, online: float | None, warned: list[str], data: str, tmp_path: Path
) -> None:
    cfg, world, _, run = made(data, tmp_path, mixing=0.25, method="dql", gamma=0.99)
    with run:
        buffer = ReplayBuffer(run.path("online/replay"), world.shapes, 2)
        action, terminal = np.zeros((1, 2), np.float32), np.ones(1, bool)
        buffer.add(Episode({"state": np.zeros((2, 2), np.float32)}, action, np.full(1, 5.0), terminal))
        for stage, gap in (("offline/together", offline), ("online/00000/critic", online)):
            if gap is not None:
                run.log(1, {"q_minus_return": gap}, stage=stage)
        found = act_report._optimism(cfg, world, [{"episodes": 1}], run)
    assert [text.split(",")[0] for text in found] == warned
    assert all(f"({'1' if 'Offline' in text else '5'}): it is too optimistic" in text for text in found)


def test_the_same_episodes_are_measured_every_time(data: str, tmp_path: Path) -> None:
    cfg, world, agent, run = made(data, tmp_path, eval_episodes=5)
    with run:
        measured = Measured(cfg, world, agent, run)
        measured.policy("one")
        measured.search("two")
        seeds = [[e["seed"] for e in m.episodes] for m in measured.taken]
        assert seeds[0] == seeds[1] and len(set(seeds[0])) == 5
        rows = act_report._changes(measured)
    assert rows and rows[0]["note"] == "one → two"


def test_the_plan_says_what_it_costs(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert act.main(Config(data=(data,), env=POINT, online_episodes=5, dry_run=True)) == 0
    text = capsys.readouterr().out
    assert "80 episodes" in text and "nothing was run" in text and "2 numbers seen, 2 in an action" in text
    paper = replace(act.preset("paper"), data=(data,), env=POINT)
    assert "3,000,000 steps of cloning" in act_plan.describe(act_plan.settle(paper))
    assert act.preset("laptop") == Config()
    with pytest.raises(HeedfulError, match="neither laptop nor paper"):
        act.preset("phone")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"data": ()}, "begins with offline data: give --data"),
        ({"data": (), "env": ""}, "give --data .*, --env"),
        ({"env": "", "online_episodes": 3}, "--online-episodes needs an environment"),
        ({"method": "calql", "policy": "tokens"}, "calql is for gaussian policies, not for tokens"),
        ({"method": "idql", "policy": "gaussian"}, "idql is for diffusion and flow policies"),
        ({"method": "idql", "critic": "td"}, "--critic has no meaning with idql"),
        ({"method": "clone", "online_episodes": 3}, "clone does not learn online"),
        ({"method": "rlpd"}, "give --online-episodes"),
        ({"keep_best": 9, "samples": 8}, "--keep-best can be at most --samples"),
        ({"success_reward": 4.0}, "need --sparse"),
        ({"policy": "language"}, "needs --model"),
        ({"model": "smollm2"}, "--model is for --policy language"),
        ({"awr_temperature": 0.5}, "--awr-temperature has no meaning with parl"),
        ({"gamma": 1.0}, "--gamma must be"),
        ({"target_rate": 0.0}, "--target-rate must be above 0"),
        ({"mixing": float("nan")}, "--mixing is a share"),
        ({"critic_utd": float("nan")}, "--critic-utd must be a number"),
        ({"images": "frozen"}, "needs --vision"),
    ],
)
def test_what_does_not_go_together_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(HeedfulError, match=said):
        act_plan.settle(replace(Config(data=("d",), env=POINT), **more))


def test_shapes_that_do_not_match_the_environment_are_told(data: str, tmp_path: Path, no_page: None) -> None:
    cfg = Config(out=str(tmp_path / "r"), data=(data,), env_args=("moving=true",), **SMALL)
    with pytest.raises(HeedfulError, match=r"state: a row has the shape \(2,\); \(4,\) is expected"):
        ran(cfg)
    done = ran(
        Config(out=str(tmp_path / "s"), data=(data,), method="clone", **{**SMALL, "online_episodes": 0})
    )
    assert done["cloned_length"] <= 6
    other = Config(out=str(tmp_path / "t"), data=(data,), start=str(tmp_path / "s"), **SMALL)
    wrong = (
        ({"policy": "flow"}, "holds a diffusion policy: give --policy diffusion"),
        ({"horizon": 3}, "was made for observations"),
        ({"start": str(tmp_path)}, "holds no policy"),
    )
    for i, (change, said) in enumerate(wrong):
        with pytest.raises(HeedfulError, match=said):
            ran(replace(other, out=str(tmp_path / f"wrong{i}"), **change))
    # another seed: the weights that act are the ones that were saved
    ran(replace(other, clone_steps=0, seed=5, critic_steps=0, online_episodes=0))
    first, second = (
        actions_build.load(tmp_path / n / "model" / "policy")[0].fingerprint() for n in ("s", "t")
    )
    assert first == second


def test_a_histogram_that_does_not_hold_the_returns_is_refused(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def opened(name: str, **more: Any) -> list[str]:
        settings = {**SMALL, "q_target": "hl_gauss", "quiet": False, **more}
        cfg = act_plan.settle(Config(out=str(tmp_path / name), data=(data,), **settings))
        with open_run(cfg.out, cfg, seed=0) as run:
            return open_world(cfg, run).warnings

    said = (
        r"discounted returns \(0 to 1\) lie outside .*--q-min -100 to --q-max 0\).*give --q-min and --q-max"
    )
    with pytest.raises(HeedfulError, match=said):
        opened("as-defaults")
    with pytest.raises(HeedfulError, match="next to nothing"):
        opened("most", reward_bias=3.0, q_max=3.5)
    assert "lie outside" not in capsys.readouterr().err
    assert (
        "lie outside the critic's histogram (--q-min -1 to --q-max 0.95)"
        in opened("partly", q_min=-1.0, q_max=0.95)[0]
    )
    assert "warning: " in capsys.readouterr().err
    assert (
        opened("inside", q_max=1.0) == opened("never-solved", sparse=True, reward_bias=-1.0, gamma=0.99) == []
    )
    assert opened("no-critic", method="clone", online_episodes=0) == opened("mse", q_target="mse") == []


def test_a_language_model_is_told_who_reads_images(tmp_path: Path) -> None:
    cfg = Config(policy="language", model="m", task="go", data=("d",))
    world = World(None, {"images.top": (3, 8, 8)}, SQUARE, Rewards(), None)
    with (
        open_run(tmp_path, cfg, seed=0) as run,
        pytest.raises(HeedfulError, match=r"have images\.top: give another --policy.*VisionActionPolicy"),
    ):
        act_agent.build_agent(cfg, world, run)


def test_films_of_the_end_and_a_run_that_goes_on_without_them(
    data: str, tmp_path: Path, no_page: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av", reason="films need PyAV")
    settings = {**SMALL, "method": "clone", "online_episodes": 0, "eval_episodes": 1}
    with pytest.raises(
        HeedfulError, match="gives no pictures: make it with --env-args render_mode=rgb_array"
    ):
        act.main(Config(out=str(tmp_path / "r"), data=(data,), video=2, **settings))
    assert not (tmp_path / "r").exists(), "refused before anything is learned"
    cfg = Config(data=(data,), video=2, env_args=("render_mode=rgb_array",), **settings)

    def report(name: str, **change: Any) -> dict[str, Any]:
        assert act.main(replace(cfg, out=str(tmp_path / name), **change)) == 0
        assert (tmp_path / name / "model" / "act.json").exists()
        return json.loads((tmp_path / name / "report.json").read_text())

    names = [f"video/episode-00{i}.mp4" for i in range(2)]
    assert report("r")["feedback"]["films"] == names
    assert all((tmp_path / "r" / name).stat().st_size > 0 for name in names)
    assert len(report("r", video=1)["feedback"]["films"]) == 1, "as many as are asked for now"

    render, taken = PointReach.render, []

    def lost(self: PointReach) -> Any:
        taken.append(1)
        if len(taken) > 2:
            raise RuntimeError("the display is gone")
        return render(self)

    monkeypatch.setattr(PointReach, "render", lost)
    told = report("s")
    assert "films" not in told["feedback"]
    said = r"Filming failed \(HeedfulError\): .*episode 0, step 0: RuntimeError: the display is gone"
    assert any(re.match(said, text) for text in told["warnings"]), told["warnings"]
    # the same run can be finished without films, and with them once the environment renders
    assert not any("Filming" in text for text in report("s", video=0)["warnings"])
    monkeypatch.setattr(PointReach, "render", render)
    assert report("s")["feedback"]["films"] == names


def test_films_need_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(HeedfulError, match="films need PyAV"):
        act_plan.settle(Config(data=("d",), env=POINT, video=1))


def test_a_run_of_several_processes_is_refused(
    monkeypatch: pytest.MonkeyPatch, data: str, tmp_path: Path
) -> None:
    class Opened(SimpleNamespace):
        def __enter__(self) -> Opened:
            return self

        def __exit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr("heedful.run.open_run", lambda *a, **k: Opened(world=2, rank=0))
    with pytest.raises(HeedfulError, match="runs in one process"):
        act.main(Config(out=str(tmp_path / "r"), data=(data,), **SMALL))


def test_online_history_counts_what_broke() -> None:
    told = [{"broken": ["episode 0, step 1: x"]}, {"broken": []}]
    act_online._enough(told, 10)
    with pytest.raises(HeedfulError, match="3 of 3 episodes"):
        act_online._enough([{"broken": ["a"]}] * 3, 3)
