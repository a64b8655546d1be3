"""`heedful search pretrain | improve | eval`: worlds, measures, each method's rounds, kills at any stage, Sudoku."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heedful import losses
from heedful import run as run_module
from heedful.cli import main
from heedful.data.countdown import codec
from heedful.data.countdown.instances import SIDES, side_of
from heedful.data.countdown.replay import replay
from heedful.errors import HeedfulError
from heedful.feedback import Feedback, Samples
from heedful.policies import stages
from heedful.policies.language import Completion, LanguagePolicy
from heedful.recipes import search, search_apa, search_driver, search_improve, search_report
from heedful.recipes.search_apa import Critic, Plateau
from heedful.recipes.search_measure import Measured, room
from heedful.recipes.search_world import Settings, open_world, world_of
from heedful.run import open_run

SUDOKU = Path(__file__).parent.parent / "examples" / "sudoku.py"
CLOCKS = ("time", "tokens_per_s", "seconds", "rows_per_s")
PLAIN = "--quiet --precision fp32 --device cpu"


def sudoku() -> Any:
    spec = importlib.util.spec_from_file_location("example_sudoku", SUDOKU)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's rows with one or two empty cells, and a run of `pretrain` on them that solves some."""
    folder = tmp_path_factory.mktemp("sudoku")
    arguments, sys.argv = (
        sys.argv,
        ["sudoku", "--rows", "3000", "--empty", "1", "2", "--out", f"{folder}/rows.jsonl"],
    )
    try:
        sudoku().main()
    finally:
        sys.argv = arguments
    asked = f"--data {folder}/rows.jsonl --judge {SUDOKU}:solved --size tiny --context 48 --problems 0 --tokens 150000"
    learning = "--batch-size 16 --learning-rate 4e-3"  # small steps: 64 at a time it solves hardly any yet
    command = f"search pretrain --out {folder}/run {asked} {learning} --eval-problems 60 {PLAIN}"
    assert main(command.split()) == 0
    return folder


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


# ---- another puzzle, end to end


def test_sudoku_is_learned_and_improved_from_its_verifier(trained: Path) -> None:
    got = result(trained / "run")
    assert got["rows_left_out_being_held_out"] == 300 and got["held_out_prompts"] == 300
    assert 0.05 < got["heldout_accuracy"] < 0.9 and got["heldout_unfinished"] < 0.1
    command = f"search improve --model {trained}/run --out {trained}/star --rounds 1 --problems 600"
    assert main(f"{command} --eval-problems 60 {PLAIN}".split()) == 0
    after = result(trained / "star")
    assert after["before_heldout_accuracy"] == got["heldout_accuracy"], "the same problems, greedily"
    assert 0 < after["last_round_kept"] <= after["last_round_solved"] * 600
    assert after["after_heldout_accuracy"] > 0
    page = (trained / "star" / "report.html").read_text()
    assert "Accuracy, heldout" in page and "after star" in page
    command = f"search eval --model {trained}/star --out {trained}/eval --problems 40 --n 3 {PLAIN}"
    assert main(command.split()) == 0
    tried = result(trained / "eval")
    passes = [tried[f"heldout_pass_at_{k}"] for k in (1, 2, 3)]
    assert passes == sorted(passes) and 0 < passes[2] <= 1
    low, high = tried["heldout_interval"]
    assert low <= tried["heldout_accuracy"] <= high


def test_the_example_verifier_replays_the_stream() -> None:
    example = sudoku()
    prompt = "4 3 1 . . 1 4 3 1 2 3 4 3 4 2 1"
    streams = [
        "a4 2 b1 2",
        "a4 1 b1 2",
        "a4 2",
        "a4 x b1 2 a4 2",
        "b1 2 a4 2",
        "a4 1 b1 2 a4 2 b1 2",
        "a4 2 b1 2 c1 1",
    ]
    assert example.solved([prompt] * 7, streams) == [1, 0, 0, 1, 1, 1, 0]
    assert example.solved([prompt] * 3, ["a4 2 b1", "a4 9 b1 2", "free 2"]) == [0, 0, 0]


def test_a_model_from_elsewhere_needs_problems_and_a_verifier(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "run" / "model", tmp_path / "alone")
    assert main(f"search eval --model {tmp_path}/alone --out {tmp_path}/out {PLAIN}".split()) == 1
    assert "say what it is to solve with --prompts FILE and --judge" in capsys.readouterr().err
    (tmp_path / "asked.jsonl").write_text(
        "".join(json.dumps({"prompt": p}) + "\n" for p in prompts_of(trained)[:20])
    )
    asked = f"--prompts {tmp_path}/asked.jsonl --judge {SUDOKU}:solved --problems 9 --n 0"
    assert main(f"search eval --model {tmp_path}/alone --out {tmp_path}/out {asked} {PLAIN}".split()) == 0
    assert result(tmp_path / "out")["heldout_tokens"] > 0


def prompts_of(trained: Path) -> list[str]:
    return [json.loads(line)["prompt"] for line in (trained / "rows.jsonl").read_text().splitlines()]


# ---- each method, and kills between any two stages


METHODS = {
    "star": "--rounds 2 --problems 100",
    "apa": "--rounds 3 --problems 24 --critic-rounds 1 --check-every 1 --check-problems 8 --patience 1",
    "dpo": "--rounds 2 --problems 12 --n 6",
    "grpo": "--rounds 2 --problems 12 --n 6",
}


def improve(trained: Path, out: Path, method: str) -> int:
    shared = f"--model {trained}/run --out {out} --eval-problems 12 --max-new-tokens 8 --save-every 2"
    return main(f"search improve {shared} --method {method} {METHODS[method]} {PLAIN}".split())


def left(folder: Path) -> dict[str, str]:
    """What must be the same after a kill."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if k not in CLOCKS} for row in rows]
    found = {str(f.relative_to(folder)): f.read_bytes().hex() for f in folder.rglob("*.safetensors")}
    found |= {name: (folder / name).read_text() for name in ("result.json", "report.json")}
    found["metrics"] = json.dumps(sorted(rows, key=json.dumps))
    return found


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_improvement_ends_the_same(
    method: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "commit", lambda: None)
    assert improve(trained, tmp_path / "whole", method) == 0
    want = left(tmp_path / "whole")
    once, kills, through = run_module.Run.once, 0, False

    class Killed(BaseException):
        pass

    # The k-th thing that is kept is the last one before the process dies, for k = 1, 6, 11, ...
    for start in range(1, 60, 5):
        done = 0

        def dying(self: Any, name: str, make: Callable[[], Any], start: int = start) -> Any:
            nonlocal done
            fresh = not self.path(name).exists()
            value = once(self, name, make)
            done += fresh
            if fresh and done == start:
                raise Killed
            return value

        monkeypatch.setattr(run_module.Run, "once", dying)
        out, through = tmp_path / "trial", False
        try:
            through = improve(trained, out, method) == 0
        except Killed:
            kills += 1
        finally:
            monkeypatch.setattr(run_module.Run, "once", once)
        if kills % 2 and not through:
            continue  # goes on from here, and is killed once more
        assert through or improve(trained, out, method) == 0
        got = left(out)
        assert got.keys() == want.keys()
        assert [name for name in want if got[name].replace("trial", "whole") != want[name]] == []
        if through:
            break  # fewer things are kept than would be needed for a kill
        shutil.rmtree(out)
    assert through and kills >= 3


def test_star_fine_tunes_the_base_in_every_round(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from heedful.policies import decoder

    base = {k: v.clone() for k, v in LanguagePolicy.load(str(trained / "run")).module.state_dict().items()}
    begun: list[bool] = []
    seen: list[list[Any]] = []
    fit_tokens = decoder.fit_tokens

    def noted(stage: str, policy: LanguagePolicy, rows: Any, *rest: Any, **more: Any) -> None:
        begun.append(all(torch.equal(p, base[name]) for name, p in policy.module.state_dict().items()))
        seen.append([rows[i]["group"] for i in range(len(rows))])
        fit_tokens(stage, policy, rows, *rest, **more)

    monkeypatch.setattr(decoder, "fit_tokens", noted)
    assert improve(trained, tmp_path / "star", "star") == 0
    assert begun == [True, True]
    verify, policy = sudoku().solved, LanguagePolicy.load(str(trained / "run"), template="none")
    for groups in seen:
        assert groups and len({(tuple(g.prompt), tuple(g.completions[0])) for g in groups}) == len(groups)
        texts = [(policy.encoder.decode(g.prompt), policy.encoder.decode(g.completions[0])) for g in groups]
        assert set(verify([p for p, _ in texts], [t for _, t in texts])) == {1.0}
        assert all(g.completions[0][-1] == policy.encoder.end for g in groups)
    rounds = [json.loads((tmp_path / "star" / f"round{r}" / "round.json").read_text()) for r in (0, 1)]
    assert [len(groups) for groups in seen] == [record["kept"] for record in rounds]


def test_the_driver_is_grpo_and_dpo() -> None:
    cfg = search_improve.settle(search_improve.Config(method="grpo", clip=0.3))
    driver = search_driver.driver_config(cfg, 77)
    assert (driver.method, driver.value_coef, driver.baseline, driver.clip) == ("ppo", 0.0, "group", 0.3)
    assert (driver.rounds, driver.prompts_per_round, driver.n, driver.max_new_tokens) == (60, 32, 8, 77)
    assert driver.lora_rank == 0 and driver.learning_rate == 1e-4
    driver = search_driver.driver_config(search_improve.settle(search_improve.Config(method="dpo")), 9)
    assert (driver.method, driver.pairs, driver.beta, driver.rounds) == ("dpo", "best_worst", 0.1, 20)


# ---- apa


def test_apa_rounds_hold_what_the_paper_says(trained: Path, tmp_path: Path) -> None:
    policy = LanguagePolicy.load(
        str(trained / "run"), template="none", small=True, precision="fp32", device="cpu"
    )
    world = open_world(world_of(str(trained / "run")), policy.tokenizer)
    cfg = search_improve.settle(replace(search_improve.Config(), method="apa", problems=20, quiet=True))
    critic = Critic(policy, 0)
    with open_run(tmp_path, {}, seed=0) as run:
        samples, feedback = search_improve.draw(cfg, policy, world, 0, run)
        rows, record = search_apa.round_rows(cfg, policy, policy, critic, samples, feedback, 0, run)
    advantage = torch.tensor([a for row in rows for a in row["advantage"][0]])
    lengths = [len(out.ids) for out in samples.outputs]
    assert len(advantage) == sum(lengths)
    assert float(advantage.mean()) == pytest.approx(0, abs=1e-5)
    assert float(advantage.square().mean()) == pytest.approx(1, abs=1e-3)
    scores = feedback.score.flatten().tolist()
    assert 0 < sum(scores) < 20, "some solved, some not"
    for row, score, size in zip(rows, scores, lengths, strict=True):
        # a new critic says 0 everywhere: a token's return is the score, less 0.95 for each token to the end
        assert row["target"][0] == pytest.approx(
            [score * 0.95 ** (size - 1 - t) for t in range(size)], abs=1e-6
        )
    drawn = sum(out.logp for out in samples.outputs)
    assert sum(x for row in rows for x in row["old"][0]) == pytest.approx(drawn, abs=1e-3)
    assert record["kl"] == pytest.approx(0, abs=1e-3) and record["score"] == pytest.approx(np.mean(scores))


def test_apa_learns_what_its_loss_says(trained: Path) -> None:
    """At the reference the gradient is that of -2 A / lambda log pi, a mean over tokens; the critic's is apart."""
    policy = LanguagePolicy.load(
        str(trained / "run"), template="none", small=True, precision="fp32", device="cpu"
    )
    critic = Critic(policy, 0)
    groups = [
        policy.group(p, [t])
        for p, t in ((prompts_of(trained)[0], "a1 2"), (prompts_of(trained)[1], "b1 2 c1 3"))
    ]
    with torch.no_grad():
        logp, mask = policy.logp_groups(groups)
    torch.manual_seed(0)
    gain, target = torch.randn(mask.shape), torch.randn(mask.shape)
    batch = {"groups": groups, "old": logp, "advantage": gain, "target": target}
    loss, told = search_apa.objective(policy, critic, lam=2.0, value_coef=10.0)(batch)
    weight: Any = policy.transformer.model.layers[1].mlp.up_proj.weight  # type: ignore[union-attr]
    (ours,) = torch.autograd.grad(loss, weight, retain_graph=True)
    again, _ = policy.logp_groups(groups)
    (expected,) = torch.autograd.grad((-gain * again * mask).sum() / mask.sum(), weight)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-4)
    assert float(told["log_ratio_squared"]) == pytest.approx(0, abs=1e-8)
    squares = float((target.square() * mask).sum() / mask.sum())
    assert float(loss) == pytest.approx(
        float((gain.square() * mask).sum() / mask.sum()) / 4 + 5 * squares, abs=1e-4
    )
    last: Any = critic.head[2]
    (own,) = torch.autograd.grad(loss, last.bias)
    assert float(own) == pytest.approx(-10 * float((target * mask).sum() / mask.sum()), abs=1e-4)


def test_the_fixed_point_of_apa_is_the_tilted_reference() -> None:
    """On a table of one state: ref exp(A / lambda), where that is already a distribution."""
    ref = torch.tensor([0.5, 0.3, 0.2]).log()
    wanted = torch.tensor([0.25, 0.45, 0.3]).log()
    gain = 2.0 * (wanted - ref)
    logits = ref.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    mask = torch.ones(3, 1, dtype=torch.bool)
    for _ in range(400):
        loss, _ = losses.apa_loss(logits.log_softmax(-1)[:, None], ref[:, None], mask, gain[:, None], lam=2.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(logits.detach().log_softmax(-1), wanted, atol=1e-3, rtol=0)


def test_a_plateau_is_a_number_of_looks_without_a_better_average() -> None:
    rising, flat = Plateau(3), Plateau(3)
    assert not any(rising.take(0.1 * i) for i in range(30))
    assert [flat.take(0.5) for _ in range(8)] == [False, False, False, True, False, False, True, False]
    noisy = Plateau(2)
    assert [noisy.take(s) for s in (0.5, 0.9, 0.1, 0.2, 0.9)] == [False, False, False, True, False]
    assert noisy.average == pytest.approx(0.7 * (0.7 * (0.7 * (0.7 * 0.5 + 0.27) + 0.03) + 0.06) + 0.27)


def test_the_reference_is_refreshed_on_a_plateau(trained: Path, tmp_path: Path) -> None:
    assert improve(trained, tmp_path / "apa", "apa") == 0
    rows = [json.loads(line) for line in (tmp_path / "apa" / "metrics.jsonl").read_text().splitlines()]
    looks = [row for row in rows if row["stage"] == "looks"]
    files = sorted(f.name for f in (tmp_path / "apa").glob("reference*.safetensors"))
    assert files == [f"reference{row['step']}.safetensors" for row in looks if row["refreshed"]]
    assert len(looks) == 3 and result(tmp_path / "apa")["reference_refreshed"] == len(files)
    assert {"value_loss", "log_ratio_squared", "apa"} <= {name for row in rows for name in row}
    critic = [row["loss"] for row in rows if row["stage"] == "critic"]
    assert critic and np.isfinite(critic).all()


# ---- Countdown as a world


@pytest.fixture(scope="module")
def countdown() -> Any:
    return open_world(Settings(seed=5))


@pytest.mark.parametrize("on", ["streams", "solutions"])
def test_countdown_rows_are_streams_that_the_verifier_knows(on: str, countdown: Any) -> None:
    rows = countdown.rows(on, 200, 256)
    decode = countdown.tokenizer.decode
    solved = 0
    for row in rows:
        prompt, completion = row["group"].prompt, row["group"].completions[0]
        text = decode(prompt, skip_special_tokens=True)
        assert countdown.tokenizer(text)["input_ids"] == prompt and text.split()[0] == "T"
        whole = f"{text} {decode(completion, skip_special_tokens=True)}"
        found, last = replay(whole), len(codec.decode(whole, lenient=True).splitlines())
        ended = completion[-1] == countdown.tokenizer.eos_token_id
        assert ended != (len(prompt) + len(completion) == 256)
        # what is cut off at the context may break off in the middle of its last line, and only there is it wrong
        assert {error.line for error in found.errors} <= (set() if ended else {last})
        solved += found.solved
    assert solved == 200 if on == "solutions" else 90 < solved < 200
    assert on == "streams" or rows.tokens == 200 * 27


def test_prompts_of_large_numbers_are_as_long_as_the_tokenizer_makes_them() -> None:
    world = open_world(Settings(inputs=(900, 1100), targets=(1900, 2100), cap=0, numbers=2))
    rows = world.rows("solutions", 60, 64)
    lengths = set()
    for row in rows:
        prompt = row["group"].prompt
        text = world.tokenizer.decode(prompt, skip_special_tokens=True)
        assert world.tokenizer(text)["input_ids"] == prompt
        assert replay(
            f"{text} {world.tokenizer.decode(row['group'].completions[0], skip_special_tokens=True)}"
        ).solved
        lengths.add(len(prompt))
    assert len(lengths) > 2


def test_problems_of_countdown_are_on_their_sides(countdown: Any) -> None:
    from heedful.recipes.search_countdown import instances_of

    def parsed(prompts: list[str]) -> list[tuple[int, list[int]]]:
        words = [prompt.split() for prompt in prompts]
        return [(int(w[1]), [int(x) for x in w[3:]]) for w in words]

    instances = instances_of(Settings(seed=5))
    asked = [("train", countdown.train(40, 60)), ("train", countdown.validation(60))]
    asked += [(name, prompts(60)) for name, prompts in countdown.tests.items()]
    for side, prompts in asked:
        assert set(side_of(instances, parsed(prompts))) == {side}
    assert countdown.train(40, 60)[20:] == countdown.train(60, 40) != countdown.validation(40)
    assert tuple(countdown.tests) == SIDES[1:]


def test_the_verifier_of_countdown_scores_and_counts(countdown: Any) -> None:
    prompt = "T 24 N 4 9 3"
    right, wrong = "E 9 - 3 = 6 4 6 S 4 6 E 4 * 6 = 24 24 G", "E 9 - 3 = 7 4 7 S 4 7 E 4 * 7 = 24 24 G"
    feedback = countdown.judge(Samples([prompt], [right, wrong, ""], 3))
    assert feedback.score[0].tolist() == [pytest.approx(1 - 3 / 48), 0, 0]
    assert feedback.notes is not None and not feedback.notes[0] and feedback.notes[1]
    counted = countdown.census(prompt, wrong)
    assert counted["arithmetic"] == 2 and counted["explored"] == 2
    ids = countdown.tokenizer(f"{right} X F", add_special_tokens=False)["input_ids"]
    whole = countdown.tokenizer(right, add_special_tokens=False)["input_ids"]
    assert countdown.trim(ids) == [*whole, countdown.tokenizer.eos_token_id]
    assert countdown.trim(whole[:5]) == whole[:5]


def test_pretraining_on_countdown_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"search pretrain --out {tmp_path}/run --size tiny --problems 60 --tokens 3000 --batch-size 16"
    command += " --eval-problems 6 --max-new-tokens 12 --precision fp32 --device cpu --quiet --json"
    assert main(command.split()) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told == result(tmp_path / "run")
    assert told["training_rows"] == 60 and {"heldout_inputs_accuracy", "heldout_targets_arithmetic"} <= set(
        told
    )
    again = world_of(str(tmp_path / "run"))
    assert again == world_of(str(tmp_path / "run" / "model")) and again.targets == (10, 40) and not again.data
    weights = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    more = command.replace(f"{tmp_path}/run", f"{tmp_path}/more") + f" --model {tmp_path}/run"
    assert main(more.split()) == 0
    assert (tmp_path / "more" / "model" / "model.safetensors").read_bytes() != weights


# ---- measures and options


def test_pass_at_k_is_the_share_of_choices_that_hold_a_solution() -> None:
    score = np.array([[0, 1, 0, 0.5], [0, 0, 0, 0], [1, 1, 1, np.nan]])
    tokens = np.array([[9, 5, 9, 9], [9, 9, 9, 9], [2, 3, 4, 1]])
    one = Measured(["a", "b", "c"], [[""] * 4] * 3, [[""] * 4] * 3, score, tokens, tokens < 9)
    for k in (1, 2, 3, 4):
        expected = [
            np.mean([any(solved[list(c)]) for c in combinations(range(4), k)]) for solved in one.solved
        ]
        assert one.pass_at(k).tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match="pass@5 of 4"):
        one.pass_at(5)
    assert one.accuracy.estimate == pytest.approx(5 / 12)
    curve = dict(one.by_budget())
    assert (curve[2], curve[4], curve[5], curve[9]) == tuple(pytest.approx(n / 12) for n in (1, 3, 4, 5))
    assert one.numbers()["unfinished"] == pytest.approx(7 / 12)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--method star --lam 3", "--lam is an option of apa, not of star"),
        ("--method dpo --clip 0.1", "--clip is an option of grpo"),
        ("--method grpo --n 1", "--n must be at least 2"),
        ("--temperature 0", "--temperature must be above 0"),
        ("--batch-size 0", "--batch-size must be at least 1"),
        ("--method dpo --betas 0.5 0.6", "--betas is an option of star and apa, not of dpo"),
        ("--method dpo --beta -1", "--beta must be above 0"),
        ("--method grpo --clip 0", "--clip must be above 0"),
        ("--method apa --gae-lambda 5", "--gae-lambda must be from 0 to 1"),
        ("--above nan", "--above must be a number"),
        ("--rounds -7 --learning-rate -1", "--learning-rate must not be below 0"),
        ("--model nowhere", "was not made by `heedful search`"),
    ],
)
def test_options_of_improve_that_mean_nothing_are_refused(
    options: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(f"search improve --out {tmp_path}/x {options}".split()) == 1
    assert said in capsys.readouterr().err and not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--judge rule:exact", "--judge goes with --data"),
        ("--prompts p.jsonl", "give --data too"),
        ("--data d.jsonl --on solutions", "--on solutions is for Countdown"),
        ("--problems 0", "say how many"),
        ("--eval-share 1", "--eval-share must be above 0 and below 1"),
        ("--targets 10 5", "targets are from 1"),
    ],
)
def test_options_of_pretrain_that_mean_nothing_are_refused(
    options: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(f"search pretrain --out {tmp_path}/x {options}".split()) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "gives", "said"),
    [
        ("--method star", "0.0", "round 0: none of 8 streams is solved, so"),
        ("--method star --above 2", "1.0", "none of 8 streams is solved above --above 2"),
        ("--method star --max-new-tokens 1", "1.0", "none of the 8 solved streams of 8 comes to its end"),
        ("--method star", "None", "gave no opinion on any of 8 streams"),
        (
            "--method apa",
            "None",
            "the critic's own streams: the verifier gave no opinion on any of 40 streams",
        ),
        ("--method apa --critic-rounds 0", "None", "round 0: the verifier gave no opinion on any of 8"),
    ],
)
def test_a_method_without_anything_to_learn_from_says_why(
    options: str, gives: str, said: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = tmp_path / "judge.py"
    judge.write_text(f"def score(prompts, completions, **columns):\n    return [{gives}] * len(prompts)\n")
    command = (
        f"search improve --model {trained}/run --judge {judge}:score --out {tmp_path}/x --eval-problems 0"
    )
    assert main(f"{command} --rounds 2 --problems 8 --quiet {options}".split()) == 1
    assert said in capsys.readouterr().err


def test_streams_that_are_all_worth_the_same_have_no_advantage(trained: Path, tmp_path: Path) -> None:
    policy = LanguagePolicy.load(
        str(trained / "run"), template="none", small=True, precision="fp32", device="cpu"
    )
    prompt = "4 3 1 . . 1 4 3 1 2 3 4 3 4 2 1"
    drawn = [policy.encoder.completion(prompt, text) for text in ("a4 2 b1 2", "a4 2", "b1 2", "a4 1")]
    samples = Samples([prompt], [Completion("", tuple(ids), True, -1.0) for ids in drawn], 4)
    cfg = search_improve.settle(search_improve.Config(method="apa"))
    critic = search_apa.Critic(policy, 0)
    torch.nn.init.normal_(critic.head[2].weight)
    for name, scores in (("same", [1.0] * 4), ("not", [1.0, 0.0, 0.0, 0.0])):
        with open_run(tmp_path / name, {}, seed=0) as run:
            rows, _ = search_apa.round_rows(
                cfg, policy, policy, critic, samples, Feedback(score=torch.tensor([scores])), 1, run
            )
        assert any(any(row["advantage"][0]) for row in rows) == (name == "not")


@pytest.mark.parametrize("option", ["--judge rule:exact", "--eval-prompts nowhere.jsonl"])
def test_countdown_has_its_own_verifier_and_test_sets(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "world.json").write_text("{}")
    for job in ("improve", "eval"):
        assert main(f"search {job} --model {tmp_path}/run --out {tmp_path}/x {option}".split()) == 1
        told = capsys.readouterr().err
        assert f"{option.split()[0]} goes with problems of your own" in told and "give --prompts too" in told


def test_rows_that_a_model_cannot_read_or_hold_are_named(tmp_path: Path) -> None:
    def world(*rows: tuple[str, str], tokenizer: Any = None) -> Any:
        told = [{"prompt": p, "completion": c} for p, c in (*rows, *((f"p {i}", "c") for i in range(20)))]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
        return open_world(Settings(data=f"{tmp_path}/rows.jsonl", seed=1), tokenizer)

    made = world().tokenizer
    assert world(("p 3 5", "c c"), tokenizer=made)
    several = [("p 1 2", "c"), ("p 2 1", "c"), ("p 2 2", "c")]  # one may be held out
    for rows in ([("p zebra", "c")], [(prompt, "quux") for prompt, _ in several]):
        with pytest.raises(HeedfulError, match=r"rows.jsonl:[123]: .*no token for '(zebra|quux)'"):
            world(*rows, tokenizer=made)
    long = world(*((prompt + " 1" * 40, "c") for prompt, _ in several))
    with pytest.raises(
        HeedfulError, match=r"rows.jsonl:[123]: the prompt has 4\d tokens, and a row holds 16.*--cont"
    ):
        long.rows("", 0, 16)


def test_a_problem_that_fills_the_context_is_refused(trained: Path) -> None:
    policy = LanguagePolicy.load(
        str(trained / "run"), template="none", small=True, precision="fp32", device="cpu"
    )
    assert room(policy, ["1 2", "1 2 3"], 0) == policy.context - 4
    with pytest.raises(
        HeedfulError, match=r"a problem has 61 tokens, and the model's context 48.*begins '1 1"
    ):
        room(policy, ["1 2", "1 " * 60], 5)


def test_held_out_prompts_of_files_are_never_trained_on(tmp_path: Path) -> None:
    rows = [{"prompt": f"p {i % 30}", "completion": f"c {i}", "answer": str(i % 30)} for i in range(90)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    world = open_world(Settings(data=f"{tmp_path}/rows.jsonl", judge="rule:exact", eval_share=0.2))
    held, validation = set(world.tests["heldout"](99)), set(world.validation(99))
    trained = {
        world.tokenizer.decode(row["group"].prompt, skip_special_tokens=True) for row in world.rows("", 0, 16)
    }
    lap = world.train(0, 30 - 6 - len(validation))
    assert len(held) == 6 and not held & trained and not held & validation and not held & set(lap)
    assert len(set(lap)) == len(lap) and not validation & set(lap)
    assert sorted(world.train(len(lap), len(lap))) == sorted(lap) != world.train(len(lap), len(lap))
    feedback = world.judge(Samples([lap[0]], [lap[0].split()[1], "no"], 2))
    assert isinstance(feedback, Feedback) and feedback.score[0].tolist() == [1.0, 0.0], (
        "columns reach the judge"
    )
    (tmp_path / "held.jsonl").write_text(json.dumps({"prompt": "p 3"}) + "\n")
    with pytest.raises(HeedfulError, match=r"held.jsonl: 1 prompts are also in"):
        open_world(Settings(data=f"{tmp_path}/rows.jsonl", eval_prompts=f"{tmp_path}/held.jsonl"))
    silent = open_world(Settings(data=f"{tmp_path}/rows.jsonl"))
    with pytest.raises(HeedfulError, match="give a verifier with --judge"):
        silent.judge(Samples(["p 1"], ["x"], 1))


def test_a_small_model_draws_large_parts() -> None:
    assert stages.SMALL_PART > 8 * stages.PART and search.preset("main").tokens == 30_000_000
    assert math.isclose(search_apa.DECAY, 0.7)


def test_what_is_shown_of_a_stream_without_an_opinion_is_json() -> None:
    one = Measured(
        prompts=["p"], texts=[["c"]], reasons=[[""]], score=np.array([[np.nan]]), tokens=np.array([[1]]),
        finished=np.array([[True]]), counts={},
    )  # fmt: skip
    shown = [*search_report.examples({"t": one}), *search_report.pairs_shown({"t": one}, {"t": one})]
    assert [shown[0]["after"]["score"], shown[1]["before"]["score"]] == [None, None]
    json.dumps(shown, allow_nan=False)
