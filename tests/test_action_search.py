"""Action search: never worse than what went in, inside the bounds, and what a policy distilled from it becomes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heedful.errors import HeedfulError
from heedful.judges import action_search
from heedful.judges.action_search import Found, SearchConfig, climb, improve, search, searched_loss
from heedful.judges.critic import Critic, CriticConfig, Transitions
from heedful.policies.actions import ActionPolicy, ActionSpace, rows
from heedful.policies.actions.build import Making, build
from heedful.policies.actions.language import LanguageActionPolicy
from heedful.policies.actions.observe import ObservationEncoder, ObservationSpace
from heedful.policies.language import LanguagePolicy

SPACE = ActionSpace((-1.0, -2.0), (1.0, 4.0), horizon=2)
STATE = ObservationSpace({"state": (3,)})
SMALL = CriticConfig(members=3, width=16, depth=2, target_members=0, random_actions=4)
quick = settings(max_examples=25, deadline=None)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def critic(config: CriticConfig = SMALL, seed: int = 0, space: ActionSpace = SPACE) -> Critic:
    encoder = ObservationEncoder(STATE)
    made = Critic(encoder, encoder.features, space, config, seed=seed)
    with torch.no_grad():
        for p in made.module.parameters():
            p.mul_(2.0)
        made.module["q"].last.weight.mul_(200)  # type: ignore[index, union-attr]
        for p in made.slow.module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator(seed)))
    return made


def states(b: int, seed: int = 0) -> dict[str, Tensor]:
    return {"state": torch.randn(b, 3, generator=generator(seed))}


# ---- what always holds


@quick
@given(
    seed=st.integers(0, 2**20),
    step=st.sampled_from([0.0, 1e-3, 0.1, 10.0, 1e6]),
    steps=st.integers(0, 4),
    keep=st.integers(1, 4),
    rule=st.sampled_from(["best", "reject"]),
    over=st.sampled_from(["mean", "min"]),
    target=st.booleans(),
    data=st.booleans(),
)
def test_what_comes_out_is_worth_at_least_what_went_in(
    seed: int, step: float, steps: int, keep: int, rule: Any, over: Any, target: bool, data: bool
) -> None:
    made, observations = critic(seed=seed % 5), states(3, seed)
    candidates = SPACE.uniform(3, 4, generator=generator(seed))
    action = SPACE.uniform(3, generator=generator(seed + 1)) if data else None
    config = SearchConfig(4, keep, steps, step, rule=rule, over=over, target_critic=target)
    found = search(made, observations, candidates, config, data_action=action)
    with torch.no_grad():
        features = made.encode(observations)
        value, before = made.score(features, found.actions), made.score(features, candidates)
    kept = keep + (1 if data and keep == 1 else 0)
    assert found.actions.shape == (3, kept, 2, 2) and found.value.shape == found.before.shape == (3, kept)
    torch.testing.assert_close(found.value, value, rtol=1e-4, atol=1e-4)
    assert (found.value >= found.before).all()
    low, high = SPACE.bounds(found.actions)
    assert (found.actions >= low).all() and (found.actions <= high).all()
    best = made.score(features, found.best()[:, None])[:, 0]
    torch.testing.assert_close(best, value.amax(-1), rtol=1e-4, atol=1e-4)
    if not data or keep > 1:
        assert (best >= before.amax(-1) - 1e-4).all()
    if action is not None:
        assert (best >= made.score(features, action[:, None])[:, 0] - 1e-4).all()
    # the critic itself is left as it was
    assert all(p.grad is None for p in made.module.parameters()) and made.module.training


def quadratic(centre: Tensor, curve: Tensor) -> Any:
    return lambda actions: -(curve * (actions - centre).square()).sum((-1, -2))


@quick
@given(seed=st.integers(0, 2**20), step=st.sampled_from([0.05, 0.3, 1.5]), steps=st.integers(1, 6))
def test_climbing_is_the_released_loop_and_the_papers(seed: int, step: float, steps: int) -> None:
    """Against a loop over one candidate at a time, on a hill steep enough to be overshot."""
    g = generator(seed)
    score = quadratic(SPACE.uniform(1, 1, generator=g), 0.1 + torch.rand(1, 1, 2, 2, generator=g) * 2)
    start = SPACE.uniform(2, 3, generator=g)
    for rule in ("best", "reject"):
        config = SearchConfig(3, 3, steps, step, rule=rule)  # type: ignore[arg-type]
        actions, value, before = climb(score, start, config, clip=SPACE.clip)
        for b in range(2):
            for n in range(3):
                here = start[b, n].clone()
                seen = [(score(here[None, None]).item(), here)]
                for _ in range(steps):
                    here = here.detach().requires_grad_()
                    (slope,) = torch.autograd.grad(score(here[None, None]).sum(), here)
                    there = SPACE.clip((here + step * slope).detach())
                    if rule == "best":
                        seen.append((score(there[None, None]).item(), there))
                        here = there
                    elif score(there[None, None]) > score(here[None, None]):
                        here = there
                        seen.append((score(there[None, None]).item(), there))
                top = max(v for v, _ in seen)
                assert value[b, n].item() == pytest.approx(top, rel=1e-4, abs=1e-5)
                assert before[b, n].item() == pytest.approx(seen[0][0], rel=1e-4, abs=1e-5)
        torch.testing.assert_close(score(actions), value, rtol=1e-4, atol=1e-5)


def test_small_steps_climb_a_hill_to_its_top() -> None:
    top = torch.tensor([[[[0.3, 1.0], [-0.2, 3.0]]]])
    actions, *_ = climb(
        quadratic(top, torch.ones(2, 2)),
        SPACE.uniform(2, 3, generator=generator()),
        SearchConfig(3, 3, 60, 0.2),
        clip=SPACE.clip,
    )
    assert (actions - top).abs().max() < 1e-3
    # a top out of bounds is reached as far as the bounds go
    actions, *_ = climb(
        quadratic(top + 9, torch.ones(2, 2)),
        SPACE.uniform(2, 3, generator=generator()),
        SearchConfig(3, 3, 60, 0.2),
        clip=SPACE.clip,
    )
    assert torch.equal(actions, torch.tensor([[1.0, 4.0], [1.0, 4.0]]).expand(2, 3, -1, -1))


# ---- global search


def test_the_best_are_kept_in_order_and_the_data_takes_the_place_of_the_worst() -> None:
    made, observations = critic(), states(5)
    candidates, data = SPACE.uniform(5, 6, generator=generator(1)), SPACE.uniform(5, generator=generator(2))
    with torch.no_grad():
        value = made.score(made.encode(observations), candidates)
    config = SearchConfig(6, 3, steps=0)
    found = search(made, observations, candidates, config)
    for b in range(5):
        order = sorted(range(6), key=lambda i, b=b: -float(value[b, i]))[:3]
        assert torch.equal(found.actions[b], candidates[b, order])
    with_data = search(made, observations, candidates, config, data_action=data)
    assert torch.equal(with_data.actions, torch.cat([found.actions[:, :2], data[:, None]], 1))
    # a single one is kept beside it: PA-RL's release would lose the global search
    one = search(made, observations, candidates, SearchConfig(6, 1, steps=0), data_action=data)
    assert torch.equal(one.actions, torch.stack([found.best(), data], 1))
    # global search off: only the data's action is climbed from
    alone = search(made, observations, None, SearchConfig(0, 1, steps=2, step_size=0.1), data_action=data)
    assert alone.actions.shape == (5, 1, 2, 2) and (alone.value >= alone.before).all()


@pytest.mark.parametrize("target", [False, True])
def test_climbing_some_observations_at_a_time_is_climbing_all(
    monkeypatch: pytest.MonkeyPatch, target: bool
) -> None:
    made, observations = critic(), states(7)
    candidates = SPACE.uniform(7, 4, generator=generator(1))
    config = SearchConfig(4, 2, steps=3, step_size=0.05, target_critic=target)
    whole = search(made, observations, candidates, config)
    seen, plain = [], action_search.climb
    monkeypatch.setattr(action_search, "CLIMBED_ROWS", 3 * 2 * 2)
    monkeypatch.setattr(
        action_search,
        "climb",
        lambda f, a, *rest, **named: seen.append(len(a)) or plain(f, a, *rest, **named),
    )
    parts = search(made, observations, candidates, config)
    assert seen == [2, 2, 2, 1]
    torch.testing.assert_close(parts.actions, whole.actions)
    torch.testing.assert_close(parts.value, whole.value)
    assert float(whole.metrics()["gain"]) > 1e-3


def test_drawing_by_softmax_follows_the_values() -> None:
    actions = SPACE.uniform(1, 3, generator=generator()).expand(6000, -1, -1, -1)
    value = torch.tensor([[0.0, 1.0, 2.0]]).expand(6000, -1)
    found = Found(actions, value, value)
    for temperature in (1.0, 0.25):
        drawn = found.drawn(generator(), temperature)
        seen = torch.stack([(drawn == actions[0, i]).all(-1).all(-1).float().mean() for i in range(3)])
        torch.testing.assert_close(seen, (value[0] / temperature).softmax(-1), rtol=0, atol=0.025)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: SearchConfig(4, 5), "keep 5 of 4 samples"),
        (lambda: SearchConfig(rule="worst"), "rule best or reject"),  # type: ignore[arg-type]
        (
            lambda: search(critic(), states(2), SPACE.uniform(2, 3), SearchConfig(4, 2)),
            "3 candidates for each",
        ),
        (lambda: search(critic(), states(2), None, SearchConfig(0, 1)), "needs the data's action"),
        (
            lambda: Found(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1), torch.zeros(1, 1)).drawn(
                generator(), 0.0
            ),
            "above 0",
        ),
    ],
)
def test_what_is_refused(call: Any, said: str) -> None:
    with pytest.raises(HeedfulError, match=said):
        call()


def test_a_critic_that_has_broken_is_told() -> None:
    made = critic()
    with torch.no_grad():
        made.module["q"].last.bias.fill_(float("nan"))  # type: ignore[index, union-attr]
    with pytest.raises(HeedfulError, match="value of an action is not finite"):
        search(made, states(2), SPACE.uniform(2, 4), SearchConfig(4, 2))


# ---- the critic's step


@pytest.mark.parametrize("method", ["td", "calql", "iql"])
def test_the_critic_learns_from_what_the_search_would_do(method: Any) -> None:
    made = critic(replace(SMALL, method=method))
    data = Transitions(
        states(4, 1),
        SPACE.uniform(4, generator=generator(2)),
        torch.randn(4, generator=generator(3)),
        torch.ones(4),
        states(4, 4),
        torch.zeros(4),
    )
    now, after = SPACE.uniform(4, 5, generator=generator(5)), SPACE.uniform(4, 5, generator=generator(6))
    config = SearchConfig(5, 2, 2, 0.05)
    torch.manual_seed(0)
    loss, _ = searched_loss(made, data, now, after, config)
    later = search(made, data.next_observations, after, config).best()
    both = torch.stack([later, search(made, data.observations, now, config).best()], 1)
    torch.manual_seed(0)
    wanted, _ = made.loss(data, next_action=later, policy_actions=both, copies=4)
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert made.module["q"].last.weight.grad is not None  # type: ignore[index, union-attr]


# ---- a bandit with four modes

ROOM = ActionSpace((-1.0, -1.0), (1.0, 1.0))
MODES = torch.tensor([[0.6, 0.6], [0.6, -0.6], [-0.6, 0.6], [-0.6, -0.6]])
WIDTH = 0.08
ALPHA = 0.1


def reward(actions: Tensor) -> Tensor:
    """1 at the first mode, falling off around it; (..., 1, 2) -> (...)."""
    return (-(actions[..., 0, :] - MODES[0]).square().sum(-1) / 0.18).exp()


@pytest.fixture(scope="module")
def bandit() -> tuple[Tensor, Critic]:
    """Actions of all four modes alike, and a critic that has seen what they brought and is wary of all others.

    Without the conservative term, the best of many samples is soon one that the critic has never seen the like of.
    """
    g = generator(0)
    which = torch.arange(256) % 4
    actions = ROOM.clip((MODES[which] + WIDTH * torch.randn(256, 2, generator=g))[:, None])
    encoder = ObservationEncoder(ObservationSpace({"state": (1,)}))
    config = CriticConfig(method="calql", members=3, width=32, depth=2, alpha=ALPHA)
    made = Critic(encoder, 1, ROOM, config, seed=0)
    optimizer = torch.optim.Adam(made.module.parameters(), lr=3e-3)
    nothing, worth = {"state": torch.zeros(256, 1)}, reward(actions)
    data = Transitions(nothing, actions, worth, torch.zeros(256), nothing, worth)
    for step in range(150):
        torch.manual_seed(step)
        loss, _ = made.loss(data, next_action=actions, policy_actions=ROOM.uniform(256, 2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        q = made.score(torch.zeros(1, 1), MODES[None, :, None])[0]
    assert q.argmax() == 0 and q[0] > q[1:].max() + 0.5
    return actions, made


CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "gaussian": ("gaussian", {"hidden": (32,)}),
    "tanh gaussian": ("gaussian", {"hidden": (32,), "tanh": True}),
    "diffusion": ("diffusion", {"width": 32, "blocks": 2, "dropout": 0.0}),
    "flow": ("flow", {"width": 32, "blocks": 2}),
    "tokens": ("tokens", {"width": 32, "layers": 1, "heads": 2, "bins": 21}),
}


def learn(policy: ActionPolicy, observations: Any, actions: Tensor, steps: int, lr: float, size: int) -> None:
    trained = [p for p in policy.module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=lr)
    for step in range(steps):
        torch.manual_seed(step)
        index = torch.randint(len(actions), (size,))
        loss, _ = policy.loss(rows(observations, index), actions[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        policy.after_step(step + 1)


def driven(
    policy: ActionPolicy, critic: Critic, data: Tensor, *, steps: int, lr: float, size: int = 64
) -> list[float]:
    """Mean reward of the raw policy: of the clone, and after each of two rounds of improving and distilling."""
    observations = {"state": torch.zeros(len(data), 1), "task": ["go"] * len(data)}
    learn(policy, observations, data, 2 * steps, lr, size)

    def worth(seed: int) -> float:
        return reward(policy.act(rows(observations, [0]), 256, generator=generator(seed))).mean().item()

    seen, config = [worth(1)], SearchConfig(samples=24, keep=3, steps=5, step_size=0.01)
    for number in range(2):
        found = improve(policy, critic, observations, config, generator=generator(number), data_action=data)
        assert (found.value >= found.before).all()
        learn(policy, observations, found.best(), steps, lr, size)
        seen.append(worth(2))
    return seen


@pytest.mark.parametrize("kind", CLASSES)
def test_distillation_drives_every_class_to_the_best_mode(kind: str, bandit: tuple[Tensor, Critic]) -> None:
    data, made = bandit
    name, head = CLASSES[kind]
    ema = 0.05 if kind in ("diffusion", "flow") else 0.0
    policy = build(Making(name, ObservationSpace({"state": (1,)}), ROOM, head, ema=ema))
    worth = driven(policy, made, data, steps=60, lr=5e-3)
    # the clone does all four, so about a quarter of what it does is right
    assert worth[0] < 0.45, worth
    assert worth[2] > 0.75 and worth[1] > worth[0] + 0.1, worth


def test_distillation_drives_a_language_model_to_the_best_mode(bandit: tuple[Tensor, Critic]) -> None:
    data, made = bandit
    model = tiny.model()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(4)
    language = LanguagePolicy(model, tiny.tokenizer(), device="cpu", precision="fp32")
    policy = LanguageActionPolicy(language, ROOM, bins=12, state=([-1.0], [1.0]))
    worth = driven(policy, made, data[:24], steps=15, lr=5e-3, size=12)
    assert worth[0] < 0.5 and worth[2] > 0.75, worth
