"""`heedful demos train`: the policy learns from what it will see and do; resumed exactly; bad input is named."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from transformers import DistilBertConfig, DistilBertModel, ResNetConfig, ResNetModel

from heedful.data.episodes import Feature, Info, open_episodes
from heedful.data.episodes.policy import CLOSED, GRIP, POSE, TOLD, PolicyEpisodes, instructions_of
from heedful.data.episodes.write import EpisodeWriter
from heedful.data.table.arm import add_pose, pose_change
from heedful.errors import HeedfulError
from heedful.policies.actions.build import build
from heedful.policies.actions.chunks import executed
from heedful.policies.droid import action_of, command_of, state_of, without_moving
from heedful.recipes import demos_train, demos_train_data, demos_train_plan
from heedful.recipes.demos_train import EXTERIOR, Config
from heedful.recipes.demos_train_report import open_trained
from heedful.run import open_run

SIDE = 20
SMALL = Config(
    size=16,
    crop=1.0,
    channels=(8, 8),
    sentences="words",
    widths=(8, 16),
    features=8,
    hidden=(16,),
    denoising_steps=5,
    sample_steps=2,
    noises=1,
    steps=6,
    batch_size=4,
    precision="fp32",
    device="cpu",
    save_every=2,
    log_every=1,
    quiet=True,
)


def columns(convention: str = "droid") -> dict[str, Feature]:
    shown = {
        camera: Feature("video", (SIDE, SIDE, 3), ["height", "width", "channels"]) for camera in EXTERIOR
    }
    if convention == "other":
        return {**shown, "observation.state": Feature("float32", (7,)), "action": Feature("float32", (7,))}
    sizes = {POSE: 6, CLOSED: 1, TOLD: 6, GRIP: 1}
    return {**shown, **{name: Feature("float32", (size,)) for name, size in sizes.items()}}


def pose(episode: int, t: int) -> np.ndarray:
    """A different one at every frame; the gripper looks down, where the first angle is now pi and now -pi."""
    roll = np.pi - 0.01 if (episode + t) % 2 else -np.pi + 0.01
    return np.array([0.4 + 0.01 * t, 0.1 * episode, 0.3, roll, 0.02 * t, 0.1], np.float32)


def frame(episode: int, t: int, convention: str = "droid") -> dict[str, Any]:
    """What is shown tells which frame it is: blue is 10 t + 60 episode."""
    picture = np.full((SIDE, SIDE, 3), 10 * t + 60 * episode, np.uint8)
    if convention == "other":
        numbers = {
            "observation.state": np.append(pose(episode, t), 1.0),
            "action": np.array([0.01, -0.02, 0, 0, 0, 0.003 * t, 1.0]),
        }
    else:
        numbers = {POSE: pose(episode, t), CLOSED: [0.25], TOLD: pose(episode, t + 1), GRIP: [float(t > 3)]}
    return {**dict.fromkeys(EXTERIOR, picture), **{k: np.asarray(v, np.float32) for k, v in numbers.items()}}


def write(
    folder: Path, lengths: tuple[int, ...] = (9, 7, 8), *, convention: str = "droid", **more: Any
) -> Path:
    """Episode 2 failed; the first has three instructions and the others one."""
    features = more.pop("features", columns(convention))
    with EpisodeWriter(folder, Info(more.pop("fps", 15), "franka", features)) as writer:
        for i, length in enumerate(lengths):
            for t in range(length):
                row = frame(i, t, convention) | more
                writer.add_frame({k: v for k, v in row.items() if k in features})
            told = [f"do {i}", f"please do {i}", f"now {i}"] if i == 0 else [f"do {i}"]
            writer.save_episode(told, {"is_episode_successful": i != 2})
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("sets")
    return SimpleNamespace(
        root=root, own=write(root / "own"), other=write(root / "other", (6, 5), convention="other")
    )


def config(sets: SimpleNamespace, out: Path | str = "unused", **more: Any) -> Config:
    return replace(SMALL, data=(str(sets.own),), out=str(out), **more)


def trained(cfg: Config) -> dict[str, bytes]:
    """Run it; the files of the policy."""
    with open_run(cfg.out, cfg, seed=cfg.seed, volatile=demos_train.VOLATILE) as run:
        demos_train.run(cfg, run)
    return {path.name: path.read_bytes() for path in sorted((Path(cfg.out) / "model").iterdir())}


# ---- conventions


def test_an_action_is_what_droid_calls_it_and_comes_back() -> None:
    rng = np.random.default_rng(0)
    at, to = (rng.uniform(-1, 1, (20, 6)) * [0.5, 0.5, 0.5, 3, 1.4, 3] for _ in range(2))
    grip = rng.uniform(size=(20, 1))
    np.testing.assert_allclose(action_of(to, grip, at), np.concatenate([to, grip], 1), atol=1e-6)
    changes = action_of(to, grip, at, "delta")
    np.testing.assert_allclose(
        changes[:, :6], [pose_change(b, a) for b, a in zip(to, at, strict=True)], atol=1e-5
    )
    back = command_of(changes, at, "delta")
    np.testing.assert_allclose(
        back[:, :6], [add_pose(c[:6], a) for c, a in zip(changes, at, strict=True)], atol=1e-5
    )
    np.testing.assert_allclose(back, np.concatenate([to, grip], 1), atol=1e-5)
    np.testing.assert_array_equal(command_of(changes, at), changes.astype(np.float64))


def test_a_state_does_not_jump_where_an_angle_does() -> None:
    a, b = (state_of([0.4, 0, 0.3, sign * (np.pi - 1e-4), 0, 0], [0.5]) for sign in (1, -1))
    assert a.shape == (10,) and a[-1] == 0.5
    np.testing.assert_allclose(a, b, atol=1e-3)


def test_beyond_the_ends_of_an_episode_nobody_moves() -> None:
    actions = np.arange(21, dtype=np.float32).reshape(3, 7)
    stay = without_moving(actions, np.array([True, False, True]))
    assert stay[[0, 2], :6].max() == 0 and stay[:, 6].tolist() == [6, 13, 20]
    np.testing.assert_array_equal(stay[1], actions[1])


# ---- what is learned


def test_the_step_that_is_done_first_is_that_of_the_newest_frame(sets: SimpleNamespace) -> None:
    """A chunk begins at the older frame; `executed` with past=1 must give the action of the newer one."""
    learned = demos_train_data.open_sources(config(sets))
    rows = np.array([[0, 0, 0], [1, 0, 5], [2, 0, 9 + 3]], np.int32)
    batch = demos_train_data.collate(config(sets), learned, rows, 0)
    first = executed(batch.actions, steps=8, past=1)[:, 0]
    for action, (episode, t) in zip(first, ((0, 0), (0, 5), (1, 3)), strict=True):
        np.testing.assert_allclose(action[:6], pose(episode, t + 1), atol=1e-6)
        assert action[6] == float(t > 3)
    shown = batch.observations[EXTERIOR[1]].float().mean((2, 3, 4))
    np.testing.assert_allclose(shown, [[0, 0], [40, 50], [80, 90]], atol=6)
    states = batch.observations["state"]
    np.testing.assert_allclose(states[1], state_of([pose(0, 4), pose(0, 5)], [[0.25], [0.25]]), atol=1e-6)
    assert batch.actions.shape == (3, 16, 7) and batch.mask is None
    last = torch.tensor(pose(0, 9)).expand(11, 6)  # the place where the episode ended is kept
    torch.testing.assert_close(batch.actions[1, 5:, :6], last)


def test_deltas_stop_at_the_end(sets: SimpleNamespace) -> None:
    cfg = config(sets, actions="delta")
    batch = demos_train_data.collate(
        cfg, demos_train_data.open_sources(cfg), np.array([[0, 0, 5]], np.int32), 0
    )
    moved = batch.actions[0, :, 0]
    np.testing.assert_allclose(moved[:5], 0.01, atol=1e-6)
    assert moved[5:].abs().max() == 0 and (batch.actions[0, :, 6] == 1).all()


def test_numbers_cover_every_source_and_the_gripper_stays(sets: SimpleNamespace) -> None:
    cfg = config(sets, mix=(str(sets.other),), mix_reading="as_is", failures=True)
    learned = demos_train_data.open_sources(cfg)
    assert [len(s.frames) for s in learned.sources] == [24, 11]
    low, high = np.array(learned.low), np.array(learned.high)
    encoded = []
    for source in learned.sources:
        for i in range(len(source.frames.episodes)):
            action = source.frames.episodes.columns(i, ["action"])["action"]
            assert (action >= low - 1e-5).all() and (action <= high + 1e-5).all()
            encoded.append(learned.numbers.encode(torch.from_numpy(action)))
    numbers = torch.cat(encoded)
    assert numbers.shape[1] == 10 and numbers.abs().max() < 1 + 1e-4
    assert (numbers[:, 0].amin() + 1).abs() < 1e-4 and (numbers[:, 0].amax() - 1).abs() < 1e-4
    assert {0.0, 1.0} == set(numbers[:, -1].tolist()), "the gripper is left as it is"
    # the other set's action is read as it stands: 7 numbers, of another convention
    other = learned.sources[1].frames.episodes.columns(0, ["action"])["action"]
    np.testing.assert_allclose(other[2], [0.01, -0.02, 0, 0, 0, 0.006, 1.0], atol=1e-6)
    alone = demos_train_data.open_sources(config(sets))
    assert alone.numbers.encode(torch.from_numpy(other)).abs().max() > 2, (
        "the test would not see ranges of one"
    )


def test_draws_keep_the_weight_and_the_instruction_is_the_draws(sets: SimpleNamespace) -> None:
    cfg = config(sets, mix=(str(sets.other),), mix_reading="as_is", weight=0.25, steps=250)
    learned = demos_train_data.open_sources(cfg)
    table = demos_train_data.draws(cfg, learned, 0)
    assert table.shape == (1000, 3) and Counter(table[:, 1].tolist()) == {0: 750, 1: 250}
    assert table[:, 0].tolist() == list(range(1000)) and set(table[table[:, 1] == 0, 2].tolist()) == set(
        range(16)
    )
    rows = np.stack([np.arange(60), np.zeros(60, int), np.zeros(60, int)], 1).astype(np.int32)

    def tasks(cfg: Config, rows: Any, seed: int = 0) -> list[str]:
        return demos_train_data.collate(cfg, learned, rows, seed).observations["task"]

    said = tasks(cfg, rows)
    assert min(Counter(said).values()) > 8 and set(said) == {"do 0", "please do 0", "now 0"}
    assert tasks(cfg, rows[::-1])[::-1] == said and tasks(cfg, rows, 1) != said
    assert set(tasks(replace(cfg, instructions=1), rows)) == {"do 0"}


def test_failures_and_idle_frames_are_left_out(sets: SimpleNamespace, tmp_path: Path) -> None:
    file = tmp_path / "ranges.json"
    file.write_text(json.dumps({"0": [[2, 4], [6, 9]], "1": [], "2": [[0, 8]]}))
    learned = demos_train_data.open_sources(config(sets, ranges=(str(file),)))
    source = learned.sources[0]
    assert [source.frames.place(k) for k in range(len(source.frames))] == [(0, t) for t in (2, 3, 6, 7, 8)]
    assert source.facts["failed episodes left out"] == 1 and source.said[2] == ()
    assert len(demos_train_data.open_sources(config(sets, failures=True)).sources[0].frames) == 24
    file.write_text(json.dumps({"0": [[2, 40]], "1": [], "2": []}))
    with pytest.raises(HeedfulError, match=r"episode 0 of .* ends at frame 9, before 40"):
        demos_train_data.open_sources(config(sets, ranges=(str(file),)))


def test_a_residual_network_that_says_nothing_takes_the_chunk_for_noise(sets: SimpleNamespace) -> None:
    """Learning and sampling add the same share of the noisy chunk; without it the network is all there is."""
    cfg = config(sets, denoising_steps=4, size=SIDE)
    learned = demos_train_data.open_sources(cfg)
    for residual in (True, False):
        making = demos_train_plan.making_of(replace(cfg, residual=residual), learned)
        policy: Any = build(making)
        head = policy.module["head"]
        last = head.net.out[-1]
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
        scene = policy.module["encoder"](
            demos_train_data.collate(cfg, learned, np.zeros((64, 3), np.int32), 0).observations
        )
        x = torch.randn(64, 1, 160, generator=torch.Generator().manual_seed(0))
        for step in range(4):
            said = head._noise(head.net.condition(scene), x, step)
            torch.testing.assert_close(said, residual * (1 - head.kept[step]).sqrt() * x)
        torch.manual_seed(0)
        loss, _ = head.loss(scene, torch.zeros(64, 160), torch.ones(64, 160, dtype=torch.bool))
        # of a chunk of zeros x is sqrt(1 - kept) e, so that kept e is left of the noise e
        wanted = 160 * (float(head.kept.square().mean()) if residual else 1.0)
        assert float(loss.detach()) == pytest.approx(wanted, rel=0.25)


# ---- a run


def test_a_run_that_was_stopped_ends_with_the_same_bytes(
    sets: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more: dict[str, Any] = {"mix": (str(sets.other),), "mix_reading": "as_is", "jitter": 0.3, "crop": 0.8}
    whole = trained(config(sets, tmp_path / "whole", **more))
    assert {"average.safetensors", "model.safetensors", "config.json"} <= set(whole)
    assert whole["average.safetensors"] != whole["model.safetensors"]
    cfg, collate, calls = config(sets, tmp_path / "cut", **more), demos_train_data.collate, []

    def stops(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return collate(*given)

    monkeypatch.setattr(demos_train_data, "collate", stops)
    with pytest.raises(KeyboardInterrupt):
        trained(cfg)
    assert trained(cfg) == whole and len(calls) == 4 + 4, "it goes on from the checkpoint at step 2"
    page = (tmp_path / "cut" / "report.html").read_text()
    assert "co-trained on other" in page and "failed, left out" in page
    policy, acting = open_trained(tmp_path / "cut")
    assert (acting.cameras, acting.size, acting.drawn, acting.steps) == (EXTERIOR, 16, (SIDE, SIDE), 8)
    seen = demos_train_data.collate(cfg, demos_train_data.open_sources(cfg), np.zeros((2, 3), np.int32), 0)
    with pytest.raises(HeedfulError, match="shape"):
        policy.act(seen.observations, generator=torch.Generator())  # pictures of 20, where 16 are learned


def test_changed_data_is_refused(sets: SimpleNamespace, tmp_path: Path) -> None:
    data = write(tmp_path / "data", (6, 6))
    cfg = replace(config(sets, tmp_path / "run"), data=(str(data),))
    before = trained(cfg)
    facts = json.loads((tmp_path / "run" / "data.json").read_text())
    assert facts["numbers"].pop("sums") == []  # a run from before there were any
    (tmp_path / "run" / "data.json").write_text(json.dumps(facts))
    assert trained(cfg) == before
    with EpisodeWriter(data, open_episodes(data).info) as writer:
        for t in range(5):
            writer.add_frame(frame(0, t))
        writer.save_episode("do it again")
    with pytest.raises(HeedfulError, match=r"the data has changed since .*data"):
        trained(cfg)


# ---- the paper's size


def test_the_papers_preset_runs_with_small_networks_of_its_kind(
    sets: SimpleNamespace, tmp_path: Path
) -> None:
    """A ResNet with group norms from a folder, DistilBERT's sum over tokens, 128 pixels, crop 116."""
    ResNetModel(
        ResNetConfig(embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1], layer_type="bottleneck")
    ).save_pretrained(tmp_path / "resnet")
    DistilBertModel(
        DistilBertConfig(vocab_size=420, dim=32, n_layers=1, n_heads=2, hidden_dim=32)
    ).save_pretrained(tmp_path / "distilbert")
    tiny.tokenizer(chat=False).save_pretrained(tmp_path / "distilbert")
    paper = demos_train.preset("paper")
    assert (paper.size, round(paper.crop * paper.size), paper.batch_size, paper.steps) == (
        128,
        116,
        128,
        25_000,
    )
    assert (paper.widths, paper.features, paper.hidden) == ((256, 512, 1024), 512, (1024, 512, 512))
    assert (paper.images, paper.pooling, paper.noises, paper.learning_rate) == ("resnet", "sum", 8, 1e-4)
    cfg = replace(
        paper,
        **{n: getattr(SMALL, n) for n in ("widths", "features", "hidden", "precision", "device", "quiet")},
        data=(str(sets.own),),
        out=str(tmp_path / "run"),
        steps=1,
        batch_size=2,
        vision=str(tmp_path / "resnet"),
        sentences=str(tmp_path / "distilbert"),
    )
    trained(cfg)
    policy, _ = open_trained(tmp_path / "run")
    network: Any = policy.module["encoder"]  # type: ignore[index]
    assert network.language == 32 and network.sentences.pooling == "sum"
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in policy.module.modules())
    assert network.cameras == list(EXTERIOR) and network._cut(EXTERIOR[0]) == (116, 116)


def test_the_plan_counts_what_would_be_trained(
    sets: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = config(sets, mix=(str(sets.own),), dry_run=True)
    assert demos_train.main(cfg) == 0
    told = capsys.readouterr().out
    assert "2 episodes, 16 frames to learn from, 50% of a batch" in told and "nothing was run" in told
    counted = demos_train_plan._counted(cfg, demos_train_data.open_sources(cfg))
    wider = demos_train_plan._counted(replace(cfg, sentences="minilm"), demos_train_data.open_sources(cfg))
    assert wider["parameters"] - counted["parameters"] == (384 - 128) * 16
    assert counted["flops"] > 0 and counted["kept"] > 0
    many = demos_train_plan._counted(replace(cfg, noises=8), demos_train_data.open_sources(cfg))
    assert many["flops"] > 2 * counted["flops"] and many["kept"] > 2 * counted["kept"]


# ---- bad input


def test_bad_data_is_named(sets: SimpleNamespace, tmp_path: Path) -> None:
    def refused(match: str, **more: Any) -> None:
        with pytest.raises(HeedfulError, match=match):
            demos_train_data.open_sources(replace(config(sets), **more))

    refused(
        "there is no camera 'observation.images.top'; it has .*exterior_1_left",
        cameras=("observation.images.top",),
    )
    slow = write(tmp_path / "slow", (5,), fps=10)
    refused(r"different rates \(.*own 15, .*slow 10 frames a second\)", mix=(str(slow),))
    some = {name: feature for name, feature in columns().items() if name != TOLD}
    without = write(tmp_path / "without", (5,), features=some)
    refused("without has no actions .* column 'action.cartesian_position' is missing", data=(str(without),))
    refused("own has no states .*'observation.state' is missing", mix=(str(sets.own),), mix_reading="as_is")
    failed = write(tmp_path / "failed", (5, 5, 5))
    rows = {i: open_episodes(failed).episode(i) for i in range(3)}
    assert [row.meta["is_episode_successful"] for row in rows.values()] == [True, True, False]
    wide = write(tmp_path / "wide", (5,), features={**columns("other"), "action": Feature("float32", (8,))},
                 convention="other", action=np.zeros(8, np.float32))  # fmt: skip
    refused(r"column 'action' has frames of \(8,\), not \(7,\)", mix=(str(wide),), mix_reading="as_is")


def test_an_episode_without_words_or_with_numbers_that_are_none(sets: SimpleNamespace) -> None:
    of = open_episodes(sets.own)

    class Silent(PolicyEpisodes):
        def episode(self, i: int) -> Any:
            return replace(of.episode(i), tasks=(" ",))

    view = Silent(of, EXTERIOR)
    with pytest.raises(HeedfulError, match=r"own: episode 1 has no instruction"):
        instructions_of(view, 1)

    class Numberless:
        path, info, layout = of.path, of.info, of.layout

        def __len__(self) -> int:
            return 3

        def __getattr__(self, name: str) -> Any:
            return getattr(of, name)

        def columns(self, *given: Any) -> Any:
            found = {name: values.copy() for name, values in of.columns(*given).items()}
            found[TOLD][2] = np.nan
            return found

    with pytest.raises(
        HeedfulError, match=r"own: episode 0, frame 3: 'action.cartesian_position' is not finite"
    ):
        PolicyEpisodes(Numberless(), EXTERIOR).columns(0, ["action"], 1, 6)  # type: ignore[arg-type]


def test_options_that_make_no_sense_are_refused(sets: SimpleNamespace) -> None:
    for more, match in (
        ({"data": ()}, "--data is needed"),
        ({"weight": 1.5}, "--weight is a share"),
        ({"ranges": ("a", "b")}, "2 files for 1 data sets"),
        ({"mix_reading": "as_is"}, "about --mix"),
        ({"steps": 0, "crop": 0.0}, "--steps must be at least 1; --crop"),
        ({"vision": "x"}, "--images resnet"),
        ({"cameras": (EXTERIOR[0], EXTERIOR[0])}, "--cameras"),
    ):
        with pytest.raises(HeedfulError, match=match):
            demos_train_plan.check(replace(config(sets), **more))
    with pytest.raises(HeedfulError, match="holds no finished run"):
        open_trained(sets.root)
