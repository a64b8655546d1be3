"""`heedful correct train`, `learn` and `eval`: what the two levels learn, resuming, refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import narrations as toy
import numpy as np
import pytest

from heedful.data.corrections import CorrectionLog
from heedful.data.episodes import LanguageRow
from heedful.data.narrated import open_narrated, segments_of
from heedful.data.segments import CORRECTION, INSTRUCTION, Segment
from heedful.errors import HeedfulError
from heedful.policies.actions import act as actions_act
from heedful.policies.override import PERSON, State, heard, stepped
from heedful.recipes import correct, correct_high, correct_learn, correct_low, correct_plan, correct_report
from heedful.recipes.correct_eval import attempt, measures, stage_success
from heedful.recipes.correct_learn import Learn
from heedful.recipes.correct_models import open_talker
from heedful.run import open_run

PAPER = actions_act.PAPER
TINY: dict[str, Any] = {
    "horizon": 4,
    "act_steps": 2,
    "low_steps": 50,
    "low_batch": 16,
    "low_rate": 1e-3,
    "min_seconds": 0.0,
    "held_out": 0.2,
    "history": 2,
    "frame_every": 0.2,
    "lesson_every": 0.1,
    "high_steps": 60,
    "high_batch": 16,
    "high_rate": 1e-3,
    "save_every": 20,
    "log_every": 20,
    "eval_episodes": 0,
    "quiet": True,
}


def config(out: Path, data: Path, **more: Any) -> correct.Config:
    return correct.Config(**{**TINY, "out": str(out), "data": str(data), **more})


def options(run: Path, corrections: Path | str, out: Path, **more: Any) -> Learn:
    given = {"high_steps": 40, "high_batch": 20, "high_rate": 1e-3, "save_every": 15, "eval_episodes": 0}
    given |= {"ratio": 0.3, "lesson_every": 0.1, "quiet": True}
    return Learn(str(run), str(corrections), str(out), **{**given, **more})


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """A small ACT in place of the laptop's; a saved one knows its own size."""
    sizes = {"hidden": 32, "feedforward": 64, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LAPTOP", "PAPER"):
            patch.setattr(actions_act, name, {**sizes, "latent_layers": 1, "latent": 4, "kl_weight": 10.0})
        yield


@pytest.fixture(autouse=True)
def no_page(trained: Path, learned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those two have a page; drawing it again would take longer than all else."""
    monkeypatch.setattr(correct_report, "write_report", lambda folder: folder)


@pytest.fixture(scope="module")
def data(small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write(tmp_path_factory.mktemp("narrated") / "data")


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    assert correct.main(config(out, data)) == 0
    return out


@pytest.fixture(scope="module")
def corrections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_corrections(tmp_path_factory.mktemp("corrected") / "episodes")


@pytest.fixture(scope="module")
def learned(trained: Path, corrections: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("learned") / "run"
    assert correct_learn.main(options(trained, corrections, out)) == 0
    return out


def weights(run: Path) -> list[bytes]:
    return [(run / "model" / level / "model.safetensors").read_bytes() for level in ("low", "high")]


def result_of(run: Path) -> Any:
    return json.loads((run / "report.json").read_text())


def says(run: Path, colour: tuple[int, int, int], steps: int = 4) -> Any:
    talker = open_talker(run)
    for _ in range(steps):
        talker.see(toy.seen(colour))
    return talker.propose()


# ---- training


def test_the_high_level_learns_from_some_of_the_episodes(trained: Path, data: Path, tmp_path: Path) -> None:
    from heedful.policies.actions.build import load

    def lessons(many: int) -> tuple[Any, Any]:
        cfg = config(tmp_path / f"of-{many}", data, high_episodes=many)
        with open_run(cfg.out, cfg, seed=cfg.seed, command="test") as run:
            demos = correct_low.gather(cfg, run)
            low, _ = load(trained / "model" / "low")
            making = correct_high.talking(cfg, demos)
            return correct_high.lessons_of(cfg, demos, making, low, run), demos

    whole, demos = lessons(0)
    some, _ = lessons(2)
    free = [i for i in range(len(demos.narrated.segments)) if i not in demos.held]
    assert len(free) > 2 and some.about["episodes"] == 2 + len(demos.held)
    assert 0 < int((~some.held).sum()) < int((~whole.held).sum())
    assert int(some.held.sum()) == int(whole.held.sum()) > 0
    # those of the first episodes are where they were
    first = int((~some.held).sum())
    assert [some.texts[k] for k in some.labels[~some.held]] == [
        whole.texts[k] for k in whole.labels[~whole.held][:first]
    ]
    many = len(free) + 1
    cfg = config(tmp_path / "too-many", data, high_episodes=many)
    with pytest.raises(HeedfulError, match=rf"--high-episodes {many}: there are {len(free)} episodes"):
        correct.main(cfg)
    assert not (tmp_path / "too-many" / "low").exists(), "refused before anything is trained"


def test_velocities_are_told_by_their_names(tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    from heedful.data.pack_table.expert import pack_info

    told: Any = type("Told", (), {})()
    told.episodes = type("Episodes", (), {"info": pack_info((8, 8))})()
    assert correct_low.velocities(told) == (0, 1, 2, 3)
    features = told.episodes.info.features
    for names in (None, {"axes": ["velocity_x"] * 5}, ["x", "y", "z", "yaw", "gripper"]):
        told.episodes.info.features["action"] = replace(features["action"], names=names)
        assert correct_low.velocities(told) == ()


def test_chunks_of_all_episodes() -> None:
    long, short = np.arange(14.0).reshape(7, 2), np.ones((2, 2))
    chunks = correct_low.chunks_of([long, short], 4)
    assert chunks.shape == (3, 4, 2)
    assert np.array_equal(chunks[0], long[:4]) and np.array_equal(chunks[1], long[2:6])
    assert np.array_equal(chunks[2], [[1, 1], [1, 1], [0, 0], [0, 0]])


def test_the_high_level_says_what_is_due(trained: Path) -> None:
    for colour, command in ((toy.RED, toy.LEFT), (toy.BLUE, toy.RIGHT)):
        said = says(trained, colour)
        # two wordings of a command are one, and all of the bank is there
        assert said.command == command and {c for c, _ in said.candidates} == {toy.LEFT, toy.RIGHT}
        assert sum(p for _, p in said.candidates) == pytest.approx(1.0, abs=1e-5)
        assert said.candidates[0] == (command, max(p for _, p in said.candidates))
        assert said.candidates[0][1] > 0.5


def test_the_low_level_does_what_is_said(trained: Path) -> None:
    talker = open_talker(trained)
    for text, sign in ((toy.LEFT, -1), ("to the right", 1), ("to the left", -1), (toy.RIGHT, 1)):
        action = talker.act(toy.seen(toy.GREY), text, True)
        # the mistakes that were corrected were the other way: they were not learned
        assert action.shape == (2,) and sign * action[0] > 0.4 and abs(action[1]) < 0.3


def test_a_chunk_is_carried_out_until_something_new_is_said(trained: Path) -> None:
    talker = open_talker(trained)
    asked: list[str] = []
    real = talker.low.act

    def counted(seen: Any, *args: Any, **how: Any) -> Any:
        asked.extend(seen["task"])
        return real(seen, *args, **how)

    talker.low.act = counted  # type: ignore[method-assign]
    look = toy.seen(toy.GREY)
    for command, fresh in ((toy.LEFT, True), (toy.LEFT, False), (toy.LEFT, False), (toy.RIGHT, True)):
        talker.act(look, command, fresh)
    assert asked == [toy.LEFT, toy.LEFT, toy.RIGHT]  # chunks of 2 steps; the second was dropped half done
    talker.begin()
    talker.act(look, toy.LEFT, False)
    assert len(asked) == 4  # nothing is left of the episode before
    with pytest.raises(HeedfulError, match="no frame yet"):
        talker.propose()
    with pytest.raises(HeedfulError, match="lacks top"):
        talker.see({"state": np.zeros(2)})


def test_a_correction_is_held_as_long_as_its_skill(trained: Path) -> None:
    timing = open_talker(trained).timing
    length = timing.held(toy.LEFT)
    assert 8 <= length <= 13 and timing.held("what it never heard of") == timing.hold == 60
    state = heard(State(), timing, toy.LEFT, "c1")
    for _ in range(length - 1):
        state = stepped(state, timing)
    assert state.source == PERSON and stepped(state, timing).source != PERSON
    with pytest.raises(HeedfulError, match="lengths must be at least 1"):
        replace(timing, lengths={toy.LEFT: 0})


def test_what_a_run_reports(trained: Path) -> None:
    result = json.loads((trained / "result.json").read_text())
    assert result["episodes"] == 6 and result["held_out_episodes"] == 2 and result["segments"] == 12
    assert result["segments_left_out"] == 4 and result["commands"] == 2 and result["wordings"] == 4
    assert "success" not in result
    with open_run(
        trained, config(trained, Path(result_of(trained)["data"]["demonstrations"])), seed=0
    ) as run:
        lessons = correct_high.read_lessons("lessons/0", run)
    talker = open_talker(trained)
    right = 0
    for i in (held := lessons.held.nonzero()[:, 0].tolist()):
        look = {name: value[lessons.frames[i]][None] for name, value in lessons.seen.items()}
        total: dict[str, float] = {}
        for one in talker.high.candidates(look, 9)[0]:
            command = talker.making.aliases[one.command]
            total[command] = total.get(command, 0.0) + one.probability
        said = talker.making.aliases[lessons.texts[int(lessons.labels[i])]]
        right += max(total, key=lambda c: total[c]) == said
    assert result["high_held_out_accuracy"] == pytest.approx(right / len(held), abs=1e-6)
    page = json.loads((trained / "report.json").read_text())
    assert any("not of PackTable" in w for w in page["warnings"]) and (trained / "report.html").is_file()
    snapped = open_talker(trained).snapper("To the RIGHT!")
    assert snapped.command == toy.RIGHT and snapped.how == "alias"


def test_held_out_episodes_teach_nothing(data: Path, tmp_path: Path) -> None:
    cfg = config(tmp_path / "r", data)
    with open_run(cfg.out, cfg, seed=0) as run:
        demos = correct_low.gather(cfg, run)
        assert len(demos.held) == 2 and all(not demos.kept[i] for i in demos.held)
        assert demos.dropped == {"followed by a correction": 4} and sum(map(len, demos.kept)) == 12
        everything = correct_low.gather(replace(cfg, keep_mistakes=True, held_out=0.0), run)
        assert sum(map(len, everything.kept)) == 24 and not everything.dropped
        batch = correct_low.chunk_batch(demos.narrated, [correct_low.Start(0, 1, 3, "go left")], cfg.horizon)
        assert batch.mask is not None and batch.mask.tolist() == [[True, True, False, False]]


class Killed(BaseException):
    pass


def test_a_killed_run_goes_on_to_the_same_bytes(
    trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    moments = {"low": (correct_low, "chunk_batch", 30), "eyes": (correct_high, "_looked", 1)}
    moments["high"] = (correct_high.Lessons, "batch", 35)  # type: ignore[assignment]
    for module, name, when in moments.values():
        real, count = getattr(module, name), 0

        def dying(*args: Any, real: Any = real, when: int = when, **how: Any) -> Any:
            nonlocal count
            count += 1
            if count == when:
                raise Killed
            return real(*args, **how)

        with monkeypatch.context() as patch:
            patch.setattr(module, name, dying)
            with pytest.raises(Killed):
                correct.main(config(out, data))
        assert not (out / "model").exists()
    correct.main(config(out, data))
    assert weights(out) == weights(trained)
    before = weights(out)
    correct.main(config(out, data))
    assert weights(out) == before
    with pytest.raises(HeedfulError, match="low_steps"):
        correct.main(config(out, data, low_steps=51))


def test_the_papers_parts(data: Path, corrections: Path, tmp_path: Path) -> None:
    """EfficientNet, CLIP and DistilBERT, tiny and random, from the disk: trained, opened, taught."""
    import tiny
    import torch
    from tokenizers.processors import TemplateProcessing
    from transformers import (
        CLIPVisionConfig,
        CLIPVisionModel,
        DistilBertConfig,
        DistilBertModel,
        EfficientNetConfig,
        EfficientNetModel,
    )

    torch.manual_seed(0)
    shape: dict[str, Any] = {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16}
    clip = CLIPVisionConfig(hidden_size=16, intermediate_size=32, patch_size=8, **shape)
    words = DistilBertConfig(vocab_size=420, dim=16, hidden_dim=32, n_layers=1, n_heads=2)
    net = EfficientNetConfig(
        width_coefficient=0.2, depth_coefficient=0.1, hidden_dim=256, depthwise_padding=[]
    )
    made = {"clip": CLIPVisionModel(clip), "words": DistilBertModel(words), "net": EfficientNetModel(net)}
    for name, model in made.items():
        model.save_pretrained(tmp_path / name)
    tokenizer = tiny.tokenizer(chat=False)
    first = tokenizer.eos_token
    whole = [(first, tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(f"{first} $A", None, whole)
    tokenizer.save_pretrained(tmp_path / "words")
    folders = {"backbone": "net", "vision": "clip", "sentences": "words"}
    cfg = replace(
        correct.preset("paper"),
        **{**TINY, "low_steps": 2, "low_batch": 2, "high_steps": 2, "history": 4},
        **{name: str(tmp_path / folder) for name, folder in folders.items()},
        data=str(data),
        out=str(tmp_path / "run"),
        device="cpu",
    )
    assert correct.main(cfg) == 0
    talker = open_talker(cfg.out)
    assert talker.low_making.encoder["network"] == {"pretrained": str(tmp_path / "net")}
    assert talker.high.making.layers == 6 and talker.high.making.pooling == "cls"
    assert dict(talker.high.making.observations.shapes) == {"top": (16,)}  # CLIP's vector, and no state
    assert talker.timing.every == 60 and talker.snapper.embed is None
    talker.see(toy.seen(toy.RED))
    assert talker.propose().command in toy.WAYS
    # the image networks learn ten times slower
    module: Any = talker.low.module.requires_grad_(True)
    fast, slow = correct_low._slow_eyes(module, cfg.backbone_rate)
    eyes = sum(p.numel() for p in module["encoder"].trunks.parameters())
    assert slow["lr"] == 1e-5 and "lr" not in fast and sum(p.numel() for p in slow["params"]) == eyes
    given = options(Path(cfg.out), corrections, tmp_path / "next", high_steps=2)
    assert correct_learn.main(given) == 0
    assert toy.UP in open_talker(given.out).high.bank


# ---- learning from corrections


def test_learning_what_was_said(trained: Path, learned: Path) -> None:
    assert says(trained, toy.GREEN).command != toy.UP
    assert says(learned, toy.GREEN).command == toy.UP
    for colour, command in ((toy.RED, toy.LEFT), (toy.BLUE, toy.RIGHT)):  # what it knew it still knows
        assert says(learned, colour).command == command
    assert weights(learned)[0] == weights(trained)[0] and weights(learned)[1] != weights(trained)[1]
    talker = open_talker(learned)
    assert talker.high.bank == (*open_talker(trained).high.bank, toy.UP)
    assert talker.snapper("go up").command == toy.UP
    result = json.loads((learned / "result.json").read_text())
    assert result["corrections"] == 2 and result["new_wordings"] == 1 and result["round"] == 1
    assert result["lessons"] == 2 * 13  # steps 10 to 34, every second one


def test_a_second_round_needs_the_last_run_alone(
    learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = toy.write_corrections(tmp_path / "newer", episodes=1)
    shares: list[Any] = []
    real = correct_high.learn

    def noted(cfg: Any, speaker: Any, given: Any, *args: Any, **how: Any) -> None:
        shares.extend((len(lessons), share) for lessons, share in given)
        real(cfg, speaker, given, *args, **how)

    monkeypatch.setattr(correct_high, "learn", noted)
    moved = tmp_path / "moved"
    shutil.copytree(learned, moved)
    correct_learn.main(options(moved, newer, tmp_path / "second", ratio=0.1, high_steps=2))
    old = sum(len(json.loads((moved / f"lessons/{k}.json").read_text())["texts"]) > 0 for k in (0, 1))
    assert old == 2 and [s for _, s in shares] == [0.9, 0.1] and shares[1][0] == 13
    assert shares[0][0] > 2 * 13  # demonstrations and the first round's corrections together
    assert (tmp_path / "second" / "lessons" / "2.safetensors").is_file()
    assert json.loads((tmp_path / "second" / "result.json").read_text())["round"] == 2


def test_a_killed_round_goes_on_to_the_same_bytes(
    trained: Path, learned: Path, corrections: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real, count = tmp_path / "again", correct_high.Lessons.batch, 0

    def dying(self: Any, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 20:
            raise Killed
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(correct_high.Lessons, "batch", dying)
        with pytest.raises(Killed):
            correct_learn.main(options(trained, corrections, out))
    correct_learn.main(options(trained, corrections, out))
    assert weights(out) == weights(learned)


def test_clips_that_are_not_learned_from_are_named(trained: Path, corrections: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(corrections, folder)
    log = CorrectionLog(folder / "corrections.jsonl")

    def say(episode: int, step: int, clip: tuple[int, int] | None, words: str = "go up") -> str:
        row = log.add(episode=episode, step=step, source="typed", words=words, command=toy.UP, time=0)
        if clip:
            log.keep_clip(row.id, *clip)
        return row.id

    gone = say(5, 3, (0, 10))
    longer = say(0, 20, (10, 41))
    other = say(1, 22, (10, 30))
    unspoken = say(1, 20, (10, 30), "to the left")
    say(1, 30, None)
    assert log.undo("c000002") is not None
    log.add(episode=0, step=1, source="typed", words="hm", command=None, time=0)
    narrated = open_narrated(folder)
    used, refused, left = correct_learn.sort_out(log.rows(), narrated)
    assert [row.id for row in used] == ["c000001"]
    assert [text.split(":")[0] for text in refused] == [gone, longer, other, unspoken]
    assert "episode 5 was not saved" in refused[0] and "has no step 40" in refused[1]
    assert "step 22" in refused[2] and "'to the left'" in refused[3]
    assert left == {"undone": 1, "without steps": 1, "refused": 1}
    correct_learn.main(options(trained, folder, tmp_path / "out", high_steps=1))
    page = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [w for w in page["warnings"] if w.startswith("Refused:") and longer in w]
    log.undo("c000001")
    with pytest.raises(HeedfulError, match=r"no correction to learn from.*c000003.*2 undone"):
        correct_learn.main(options(trained, folder, tmp_path / "none"))


def test_ablations_of_learning(trained: Path, corrections: Path, tmp_path: Path) -> None:
    def lessons(**more: Any) -> Any:
        given = options(trained, corrections, tmp_path / f"r{len(more)}{next(iter(more), '')}", **more)
        with open_run(given.out, given, seed=0) as run:
            return correct_learn.lessons_of(given, open_talker(trained), 1, run)

    whole, short = lessons(), lessons(no_pre_roll=True)
    assert len(whole[0]) == 26 and len(short[0]) == 16  # steps 20 to 34
    assert whole[0].texts == [toy.UP] and lessons(raw_words=True)[0].texts == ["go up"]
    given = options(trained, "", tmp_path / "equal", ratio=0.0, high_steps=3)
    correct_learn.main(given)
    result = json.loads((tmp_path / "equal" / "result.json").read_text())
    assert result["corrections"] == 0 and weights(tmp_path / "equal")[1] != weights(trained)[1]
    assert open_talker(tmp_path / "equal").high.bank == open_talker(trained).high.bank


# ---- bad input


def test_options_that_do_not_go_together() -> None:
    def wrong(**more: Any) -> str:
        with pytest.raises(HeedfulError) as found:
            correct_plan.check(replace(correct.Config(), **more))
        return str(found.value)

    assert "--act-steps can be at most --horizon" in wrong(act_steps=21)
    assert "--episodes is about generated" in wrong(data="x", episodes=3)
    assert "--low-steps must be at least 1" in wrong(low_steps=0)
    assert "--hold must be a number above 0" in wrong(hold=float("nan"))
    assert "--held-out is a share" in wrong(held_out=1.0)
    assert "--backbone is for --preset paper" in wrong(backbone="x")
    assert "--size must be at least 16 16" in wrong(size=(8, 64))
    correct_plan.check(correct.preset("paper"))
    with pytest.raises(HeedfulError, match="neither laptop nor paper"):
        correct.preset("huge")
    for more, said in (
        ({"corrections": ""}, "give --corrections"),
        ({"ratio": 2.0}, "--ratio is a share"),
        ({"out": "a"}, "--out must be another folder"),
    ):
        with pytest.raises(HeedfulError, match=said):
            correct_learn.check(replace(Learn("a", "b", "c"), **more))


def test_the_plan(
    data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions_act, "PAPER", PAPER)
    assert correct.main(replace(correct.preset("paper"), dry_run=True, out=str(tmp_path / "no"))) == 0
    told = capsys.readouterr().out
    assert "paper preset" in told and "clip-vit" in told and "nothing was run" in told
    weights = float(told.split("low level    act, ")[1].split(" M")[0].replace(",", ""))
    assert 60 < weights < 120  # two EfficientNet-B3 and a transformer of 512
    correct.main(config(tmp_path / "no", data, dry_run=True))
    told = capsys.readouterr().out
    assert "6 episodes" in told and "1 camera" in told and not (tmp_path / "no").exists()


def test_data_that_is_not_narrated(data: Path, corrections: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(HeedfulError, match="there is no camera 'side'; it has top"):
        open_narrated(data, ["side"])
    info = replace(
        toy.INFO, features={n: f for n, f in toy.INFO.features.items() if n != "observation.state"}
    )
    with toy.EpisodeWriter(tmp_path / "stateless", info) as writer:
        for _ in range(3):
            row = toy.frame(toy.RED, toy.LEFT, np.zeros(2))
            writer.add_frame({name: value for name, value in row.items() if name != "observation.state"})
        writer.save_episode("x")
    with pytest.raises(HeedfulError, match=r"there is no observation\.state"):
        open_narrated(tmp_path / "stateless")
    with toy.EpisodeWriter(tmp_path / "silent", toy.INFO) as writer:
        for i in range(2):
            for _ in range(3):
                writer.add_frame(toy.frame(toy.RED, toy.LEFT, np.full(2, np.nan if i else 0.0)))
            writer.save_episode("x", {}, [])
    with pytest.raises(
        HeedfulError, match=r"episode 0 has no row.*\n.*episode 1, observation.state: number 0"
    ):
        open_narrated(tmp_path / "silent")
    faster = toy.write(tmp_path / "faster", 1, info=replace(toy.INFO, fps=30))
    (faster / "corrections.jsonl").write_bytes((corrections / "corrections.jsonl").read_bytes())
    with pytest.raises(HeedfulError, match="30 frames a second; the run was trained at 15"):
        correct_learn.main(options(trained, faster, tmp_path / "a"))
    with pytest.raises(HeedfulError, match=r"corrections.jsonl is not there"):
        correct_learn.main(options(trained, data, tmp_path / "b"))
    with pytest.raises(HeedfulError, match="holds no trained pair"):
        open_talker(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(trained / "model", broken)
    told = json.loads((broken / "talker.json").read_text())
    (broken / "talker.json").write_text(json.dumps({**told, "hold": 0, "surprise": 1}))
    with pytest.raises(HeedfulError, match=r"talker.json is damaged.*surprise"):
        open_talker(broken)


def test_language_rows_as_segments() -> None:
    def rows(*said: tuple[str, str, int]) -> list[LanguageRow]:
        return [LanguageRow(text, style, step / 15) for style, text, step in said]

    said = rows(
        ("subtask", "a", 0), ("subtask", "b", 10), ("interjection", "no!", 10), ("interjection", "more b", 14)
    )
    assert segments_of(said, 15, 20) == [
        Segment(0, 10, "a", INSTRUCTION),
        Segment(10, 14, "b", CORRECTION),
        Segment(14, 20, "b", CORRECTION),  # said again while it was being done
    ]
    assert segments_of(rows(("subtask", "a", 5)), 15, 9) == [Segment(5, 9, "a")]
    with pytest.raises(HeedfulError, match="episode 3 has no row"):
        segments_of(rows(("interjection", "no!", 1)), 15, 9, "episode 3")
    with pytest.raises(HeedfulError, match="segment 1 has the steps 9 to 9"):
        segments_of(rows(("subtask", "a", 0), ("subtask", "b", 9)), 15, 9, "episode 3")


# ---- measuring


def test_measures_of_stages() -> None:
    def row(*done: bool) -> dict[str, Any]:
        return {
            "seed": 0,
            "success": all(done),
            "stages": dict(zip(("open", "take", "close"), done, strict=True)),
        }

    rows = [row(True, True, True), row(True, False, False), row(False, False, False), row(True, True, False)]
    found = measures(rows)
    assert found["success"]["estimate"] == 0.25 and found["open"]["estimate"] == 0.75
    assert found["take"]["estimate"] == 0.5 and found["take, if so far"]["estimate"] == pytest.approx(2 / 3)
    assert found["close, if so far"] == {**found["close, if so far"], "estimate": 0.5, "n": 2}
    # begun: 3 + 2 + 1 + 3; done: 3 + 1 + 0 + 2
    assert stage_success(rows) == pytest.approx(6 / 9)


def test_an_episode_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mujoco")
    from talking import ExpertPair

    from heedful.data import pack_table
    from heedful.data.pack_table.commands import due
    from heedful.policies.override import Timing

    table = pack_table.PackTable(size=None)
    pair: Any = ExpertPair()
    pair.body, pair.timing = table, Timing.seconds(15, every=0.2)
    pair.propose = lambda: type("Said", (), {"command": due(table), "candidates": ()})()
    found = attempt(table, pair, 7)
    assert found["success"] and all(found["stages"].values()) and found["seed"] == 7 and found["steps"] < 600
    monkeypatch.setattr(pack_table, "LONGEST", 30)
    pair.propose = lambda: type("Said", (), {"command": "wait", "candidates": ()})()
    found = attempt(table, pair, 7)
    assert not any(found["stages"].values()) and not found["success"] and found["steps"] == 30
