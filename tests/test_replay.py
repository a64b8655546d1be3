"""The replay buffer: what was added is there whatever happened, transitions and chunks by hand, mixed batches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_worker import SHAPES, made

from heedful import atomic
from heedful.data.replay import Episode, ReplayBuffer
from heedful.data.transitions import JoinedTables, Rewards, TransitionTable, mixed_indices
from heedful.errors import HeedfulError
from heedful.policies.actions import ActionSpace
from heedful.policies.actions.build import Making, build
from heedful.policies.actions.cache import CandidateCache
from heedful.policies.actions.observe import ObservationSpace

SPACE = ActionSpace((-1.0, -1.0), (1.0, 1.0))


def filled(folder: Path, episodes: int) -> ReplayBuffer:
    buffer = ReplayBuffer(folder, SHAPES, 2)
    for number in range(buffer.episodes, episodes):
        assert buffer.add(made(number)) == number
    return buffer


def same(buffer: ReplayBuffer, episodes: int) -> None:
    assert buffer.episodes == episodes
    for number in range(episodes):
        got, wanted = buffer.episode(number), made(number)
        for name in SHAPES:
            np.testing.assert_array_equal(got.observations[name], wanted.observations[name])
        for name in ("action", "reward", "terminal"):
            np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))
        assert got.info == wanted.info


# ---- what was added is there


def test_episodes_come_back_as_they_were(tmp_path: Path) -> None:
    same(filled(tmp_path / "r", 5), 5)
    same(ReplayBuffer(tmp_path / "r", SHAPES, 2), 5)
    # appending goes on, and a buffer that is open sees it
    buffer = filled(tmp_path / "r", 9)
    same(buffer, 9)
    assert buffer.rows == sum(made(i).steps + 1 for i in range(9))
    buffer.truncate(4)
    same(buffer, 4)
    same(filled(tmp_path / "r", 6), 6)


def test_sigkill_at_any_moment_loses_no_episode_that_was_added(tmp_path: Path) -> None:
    folder, said = tmp_path / "r", -1
    for pause in (0.0, 0.02, 0.05):
        worker = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "replay_worker.py"), str(folder)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert worker.stdout is not None
        for _ in range(3):
            line = worker.stdout.readline()
            said = int(line)
        time.sleep(pause)
        os.kill(worker.pid, signal.SIGKILL)
        rest = worker.stdout.read().split()
        worker.wait()
        said = int(rest[-1]) if rest else said
        buffer = ReplayBuffer(folder, SHAPES, 2)
        # one more may have been written whole without having been said
        assert said + 1 <= buffer.episodes <= said + 2
        same(buffer, buffer.episodes)


@pytest.mark.parametrize(
    ("stop", "before"), [*[(n, 0) for n in range(28)], *[(n, 3) for n in range(1, 28, 5)]]
)
def test_a_write_that_fails_anywhere_leaves_the_buffer_as_it_was(
    stop: int, before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the n-th call of the system, whichever it is."""
    buffer, calls = filled(tmp_path / "r", before), 0

    def failing(name: str) -> Any:
        real = getattr(os, name)

        def call(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == stop + 1:
                raise OSError(28, "No space left on device")
            return real(*args)

        return call

    with monkeypatch.context() as patched:
        for name in ("open", "write", "fsync", "lseek"):
            patched.setattr(atomic.os, name, failing(name))
        try:
            buffer.add(made(before))
            finished = True
        except HeedfulError as error:
            assert "no space is left" in str(error)
            finished = False
    same(buffer, before + finished)
    again = ReplayBuffer(tmp_path / "r", SHAPES, 2)
    same(again, before + finished)
    same(filled(tmp_path / "r", 5), 5)
    assert finished == (calls <= stop) and (stop < 26 or finished)


def test_several_episodes_at_once_are_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "one", 5)
    buffer = filled(tmp_path / "many", 1)
    assert buffer.extend([made(i) for i in range(1, 5)]) == 1 and buffer.extend([]) == 5
    same(buffer, 5)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "many" / path.name).read_bytes()
    # one that is wrong, or a disk that is full at the log, keeps all of them out
    with pytest.raises(HeedfulError, match="episode 6, reward"):
        buffer.extend([made(5), spoiled(reward=np.full(STEPS, np.nan))])
    with monkeypatch.context() as patched:
        patched.setattr(buffer, "_append", lambda lines: buffer.column("nothing there"))
        with pytest.raises(KeyError):
            buffer.extend([made(5), made(6)])
    same(ReplayBuffer(tmp_path / "many", SHAPES, 2), 5)


def test_half_a_line_and_half_an_episode_are_cut_off(tmp_path: Path) -> None:
    filled(tmp_path / "r", 3)
    with (tmp_path / "r" / "episodes.jsonl").open("ab") as log:
        log.write(b'{"rows": 7, "see')
    with (tmp_path / "r" / "column-00.bin").open("ab") as column:
        column.write(b"\0" * 11)
    same(ReplayBuffer(tmp_path / "r", SHAPES, 2), 3)
    same(filled(tmp_path / "r", 5), 5)


def test_a_damaged_or_different_folder_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "r", 3)
    with pytest.raises(HeedfulError, match="describes other columns"):
        ReplayBuffer(tmp_path / "r", {"state": (4,)}, 2)
    path = tmp_path / "r" / "column-02.bin"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(HeedfulError, match=r"column-02\.bin has .* bytes of"):
        ReplayBuffer(tmp_path / "r", SHAPES, 2)
    (tmp_path / "r" / "episodes.jsonl").write_text("no json\n")
    with pytest.raises(HeedfulError, match=r"episodes\.jsonl is damaged"):
        ReplayBuffer(tmp_path / "r", SHAPES, 2)


def spoiled(**change: Any) -> Episode:
    return replace(made(2), **change)


STEPS = made(2).steps


@pytest.mark.parametrize(
    ("episode", "said"),
    [
        (spoiled(reward=np.full(STEPS, np.nan)), "episode 0, reward, step 0: nan is not finite"),
        (
            spoiled(action=np.zeros((STEPS, 3))),
            rf"action has the shape \({STEPS}, 3\); \({STEPS}, 2\) is expected",
        ),
        (spoiled(terminal=np.zeros(0)), r"terminal has the shape \(0,\)"),
        (spoiled(terminal=np.full(STEPS, 0.5)), "terminals are yes or no"),
        (
            spoiled(observations={"state": np.zeros((STEPS + 1, 3))}),
            "observes state; state, front are expected",
        ),
        (
            spoiled(observations=made(2).observations | {"state": np.zeros((STEPS, 3))}),
            "observation 'state' has the shape",
        ),
        (
            spoiled(observations=made(2).observations | {"front": np.full((STEPS + 1, 3, 4, 4), 0.5)}),
            "an image is whole numbers",
        ),
        (Episode({}, np.zeros((0, 2)), np.zeros(0), np.zeros(0)), "has no step"),
    ],
)
def test_bad_episodes_are_refused(episode: Episode, said: str, tmp_path: Path) -> None:
    buffer = ReplayBuffer(tmp_path / "r", SHAPES, 2)
    with pytest.raises(HeedfulError, match=said):
        buffer.add(episode)
    assert buffer.episodes == 0


# ---- transitions


def small(
    folder: Path, rewards: list[list[float]], terminals: list[list[bool]] | None = None
) -> ReplayBuffer:
    """Episodes whose states and actions count on: state t of all is t, its action t / 100."""
    buffer, at = ReplayBuffer(folder, {"state": (1,)}, 1), 0
    for i, reward in enumerate(rewards):
        steps = len(reward)
        states = np.arange(at, at + steps + 1, dtype=np.float32)[:, None]
        ends = np.array(terminals[i]) if terminals else np.zeros(steps, bool)
        buffer.add(Episode({"state": states}, states[:-1] / 100, np.array(reward), ends))
        at += steps + 1
    return buffer


def test_transitions_by_hand(tmp_path: Path) -> None:
    buffer = small(tmp_path / "r", [[1.0, 2.0], [3.0, 4.0, 5.0]], [[False, True], [False, False, False]])
    table = TransitionTable(buffer, ActionSpace((-1.0,), (1.0,)), Rewards(scale=2.0, bias=-1.0, gamma=0.5))
    assert len(table) == 5 and table.states == 7
    batch = table.batch(torch.tensor([4, 0, 1]))
    assert batch.observations["state"][:, 0].tolist() == [5, 0, 1]
    assert batch.next_observations["state"][:, 0].tolist() == [6, 1, 2]
    assert batch.action[:, 0, 0].tolist() == pytest.approx([0.05, 0.0, 0.01])
    assert batch.reward.tolist() == [9, 1, 3]
    assert batch.mask.tolist() == [1, 1, 0]
    assert batch.mc_return is not None and batch.index is not None and batch.next_index is not None
    assert batch.mc_return.tolist() == [9, 1 + 0.5 * 3, 3]
    assert batch.index.tolist() == [5, 0, 1] and batch.next_index.tolist() == [6, 1, 2]
    assert table.observe(batch.next_index)["state"][:, 0].tolist() == [6, 1, 2]


def test_sparse_success_ends_a_task_whatever_is_stored(tmp_path: Path) -> None:
    buffer = small(tmp_path / "r", [[0.0, 0.0, 1.0], [0.0, 0.0]], [[True, False, False], [False, True]])
    how = Rewards(bias=-1.0, gamma=0.9, success=1.0, failure=0.0)
    batch = TransitionTable(buffer, ActionSpace((-1.0,), (1.0,)), how).batch(torch.arange(5))
    assert batch.mask.tolist() == [1, 1, 0, 1, 1]
    assert batch.mc_return is not None
    assert batch.mc_return.tolist() == pytest.approx([-1.9, -1.0, 0.0, -10.0, -10.0])


def test_chunks_by_hand(tmp_path: Path) -> None:
    """Three actions at once: rewards discounted inside, cut at the end of the episode and of the task."""
    buffer = small(tmp_path / "r", [[1.0, 2.0, 4.0, 8.0], [1.0, 1.0]], [[False] * 4, [False, True]])
    table = TransitionTable(buffer, ActionSpace((-1.0,), (1.0,), horizon=3), Rewards(gamma=0.5))
    batch = table.batch(torch.arange(6))
    assert batch.reward.tolist() == [1 + 1 + 1, 2 + 2 + 2, 4 + 4, 8, 1.5, 1]
    # the critic discounts by 0.5^3: two steps want 0.5^2, one step 0.5; the end of the task nothing
    assert batch.mask.tolist() == [1, 1, 2, 4, 0, 0]
    assert batch.next_observations["state"][:, 0].tolist() == [3, 4, 4, 4, 7, 7]
    assert (batch.action[:, :, 0] * 100).round().tolist() == [
        [0, 1, 2],
        [1, 2, 3],
        [2, 3, 3],
        [3, 3, 3],
        [5, 6, 6],
        [6, 6, 6],
    ]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**20), horizon=st.integers(1, 4))
def test_chunked_targets_are_those_of_a_loop(
    tmp_path_factory: pytest.TempPathFactory, seed: int, horizon: int
) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 7, 3)
    rewards = [rng.normal(size=n).tolist() for n in lengths]
    ends = [(rng.random(n) < 0.2).tolist() for n in lengths]
    buffer = small(tmp_path_factory.mktemp("r") / "r", rewards, ends)
    table = TransitionTable(buffer, ActionSpace((-1.0,), (1.0,), horizon), Rewards(gamma=0.9))
    batch = table.batch(torch.arange(len(table)))
    after = 10 * torch.ones(len(table))
    got = batch.reward + 0.9**horizon * batch.mask * after
    wanted = []
    for reward, end in zip(rewards, ends, strict=True):
        for t in range(len(reward)):
            total, discount = 0.0, 1.0
            for i in range(t, min(t + horizon, len(reward))):
                total += discount * reward[i]
                discount *= 0.9 * (1 - end[i])
                if end[i]:
                    break
            wanted.append(total + discount * 10)
    torch.testing.assert_close(got, torch.tensor(wanted, dtype=torch.float32), rtol=1e-4, atol=1e-4)


def test_a_table_of_earlier_episodes_does_not_see_later_ones(tmp_path: Path) -> None:
    buffer = filled(tmp_path / "r", 6)
    early = TransitionTable(buffer, SPACE, Rewards(), episodes=4)
    alone = TransitionTable(filled(tmp_path / "s", 4), SPACE, Rewards())
    assert len(early) == len(alone)
    index = torch.arange(len(alone))
    for name in ("action", "reward", "mask", "mc_return", "index"):
        assert torch.equal(getattr(early.batch(index), name), getattr(alone.batch(index), name))
    with pytest.raises(HeedfulError, match="has 6 episodes, not 7"):
        TransitionTable(buffer, SPACE, Rewards(), episodes=7)
    with pytest.raises(HeedfulError, match=r"actions of .* number 0 is"):
        TransitionTable(buffer, ActionSpace((-0.01, -1.0), (0.01, 1.0)), Rewards()).batch(index)


def test_moments_normalise(tmp_path: Path) -> None:
    buffer = small(tmp_path / "r", [[0.0] * 4])
    mean, std = TransitionTable(buffer, ActionSpace((-1.0,), (1.0,)), Rewards()).moments()
    assert mean["state"] == (2.0,) and std["state"][0] == pytest.approx(2**0.5)


def test_joined_tables_are_their_parts(tmp_path: Path) -> None:
    tables = [
        TransitionTable(filled(tmp_path / "a", 3), SPACE, Rewards()),
        TransitionTable(filled(tmp_path / "b", 5), SPACE, Rewards()),
    ]
    both = JoinedTables(tables)
    assert len(both) == len(tables[0]) + len(tables[1]) and both.states == tables[0].states + tables[1].states
    index = torch.randperm(len(both), generator=torch.Generator().manual_seed(0))
    batch = both.batch(index)
    for place, i in enumerate(index.tolist()):
        table, own = (tables[0], i) if i < len(tables[0]) else (tables[1], i - len(tables[0]))
        part = table.batch(torch.tensor([own]))
        for name in ("action", "reward", "mask", "mc_return"):
            assert torch.equal(getattr(batch, name)[place], getattr(part, name)[0])
        assert torch.equal(batch.next_observations["front"][place], part.next_observations["front"][0])
    # states are numbered over both: what a cache looks up is what the batch holds
    assert batch.index is not None and batch.next_index is not None
    assert torch.equal(both.observe(batch.index)["state"], batch.observations["state"])
    assert torch.equal(both.observe(batch.next_index)["state"], batch.next_observations["state"])


def test_a_cache_over_a_buffer_serves_both_states_of_a_transition(tmp_path: Path) -> None:
    table = TransitionTable(filled(tmp_path / "r", 4), SPACE, Rewards())
    policy = build(Making("gaussian", ObservationSpace({"state": (3,)}), SPACE, {"hidden": (8,)}))
    cache = CandidateCache(policy, table.observe, 3, seed=0, block=8)
    batch = table.batch(torch.arange(len(table)))
    assert batch.index is not None and batch.next_index is not None
    now, after = cache(batch.index, table.states), cache(batch.next_index, table.states)
    assert now.shape == after.shape == (len(table), 3, 1, 2)
    # the state after one step is the state before the next: drawn once
    assert cache.drawn == table.states
    assert torch.equal(after[0], now[1]) or made(0).steps == 1


def test_tasks_travel_with_their_episodes(tmp_path: Path) -> None:
    buffer = ReplayBuffer(tmp_path / "r", SHAPES, 2)
    for number, task in enumerate(("stop", "go")):
        episode = made(number)
        buffer.add(replace(episode, info={**episode.info, "task": task}))
    table = TransitionTable(buffer, SPACE, Rewards())
    batch = JoinedTables([table, table]).batch(torch.tensor([len(table), 0, 2 * len(table) - 1]))
    assert batch.observations["task"] == ["stop", "stop", "go"]


# ---- mixing


def test_batches_hold_their_share_of_each_table() -> None:
    how = {"steps": 50, "batch": 10, "generator": torch.Generator().manual_seed(0)}
    index = mixed_indices([30, 70], [0.25, 0.75], **how)  # type: ignore[arg-type]
    assert index.shape == (50, 10) and set(index.unique().tolist()) <= set(range(100))
    assert ((index < 30).sum(1) == 2).all()
    # nothing yet online: all offline
    assert (mixed_indices([30, 0], [0.5, 0.5], **how) < 30).all()  # type: ignore[arg-type]
    for sizes, shares, said in (([0, 0], [0.5, 0.5], "no transition"), ([1, 1], [0.5, 0.6], "sum to 1")):
        with pytest.raises(HeedfulError, match=said):
            mixed_indices(sizes, shares, **how)  # type: ignore[arg-type]
