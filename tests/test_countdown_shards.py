"""Countdown's data sets: drawing, the split, shards, packed rows, tokenizers, and the commands."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import countdown_peer as peer

from heedful.cli import main
from heedful.data.countdown import codec, lines
from heedful.data.countdown.game import STRATEGIES
from heedful.data.countdown.instances import (
    SIDES,
    Drawn,
    Instances,
    draw,
    held_out_targets,
    side_of,
    solution,
)
from heedful.data.countdown.packed import pack
from heedful.data.countdown.shards import ShardPlan, make_shard, make_shards, read_shards
from heedful.data.countdown.streams import stream, traces
from heedful.data.countdown.tokenizer import byte_tokenizer, compact_tokenizer
from heedful.errors import HeedfulError
from heedful.run import open_run

SMALL = Instances(numbers=(2, 3), inputs=(1, 30), targets=(10, 60), cap=400, beams=3, seed=5)


def keys(drawn: Drawn) -> np.ndarray:
    """(target, sorted inputs) of each problem, int64 (N, 7)."""
    return np.concatenate([drawn.problems[:, :1], np.sort(drawn.problems[:, 2:], axis=1)], axis=1)


# ---- drawing and the split


@pytest.mark.parametrize("instances", [Instances(), SMALL], ids=["paper", "small"])
def test_samples_are_those_of_plain_python(instances: Instances) -> None:
    drawn = draw(instances, "train", 1000, 40)
    options = {"seed": instances.seed, "numbers": instances.numbers, "inputs": instances.inputs}
    options |= {"targets": instances.targets, "cap": instances.cap, "beams": instances.beams}
    for i in range(40):
        target, size, *numbers = drawn.problems[i].tolist()
        theirs = peer.sample(1000 + i, **options)
        assert (target, numbers[:size]) == (theirs.target, theirs.nums)
        assert (STRATEGIES[drawn.strategies[i]], drawn.seeds[i]) == (theirs.strategy, theirs.seed)
        assert list(map(str, solution(drawn.solutions[i], size))) == theirs.solution


def test_a_sample_depends_on_its_number_alone() -> None:
    whole = draw(Instances(), "train", 0, 300)
    for start, count in [(0, 1), (299, 1), (17, 100)]:
        part = draw(Instances(), "train", start, count)
        for ours, theirs in zip(part, whole, strict=True):
            assert np.array_equal(ours, theirs[start : start + count])
    assert not np.array_equal(whole.problems, draw(Instances(seed=1), "train", 0, 300).problems)
    low, high = whole.problems[:, 2:6].min(), whole.problems[:, 2:6].max()
    assert (low, high) == (1, 99) and set(whole.strategies.tolist()) == set(range(12))


def test_no_problem_of_a_hundred_thousand_leaks() -> None:
    settings = [("train", 0, 60_000), ("heldout-inputs", 0, 20_000), ("heldout-targets", 0, 15_000)]
    settings += [("train", 7, 5_000)]
    found = [keys(draw(Instances(seed=seed), side, 0, count)) for side, seed, count in settings]
    train = {row.tobytes() for row in np.concatenate([found[0], found[3]])}
    inputs, targets = ({row.tobytes() for row in one} for one in found[1:3])
    assert not train & inputs and not train & targets and not inputs & targets
    assert len(train) > 60_000 and len(inputs) > 19_000 and len(targets) > 14_000
    held = held_out_targets((10, 100), 0.1)
    assert set(found[2][:, 0].tolist()) == held == {14, 39, 41, 57, 62, 81, 87, 89, 96}
    assert not held & {*found[0][:, 0].tolist(), *found[1][:, 0].tolist()}
    for one, side in zip(found, [*SIDES, "train"], strict=True):
        problems = [(row[0], [n for n in row[1:] if n]) for row in one[:500].tolist()]
        assert set(side_of(Instances(), problems)) == {side}
        assert side_of(Instances(), [(t, n[::-1]) for t, n in problems]) == [side] * 500


def test_held_out_inputs_are_their_share_and_every_draw_has_a_solution() -> None:
    loose = Instances(held_inputs=0, held_targets=0)
    drawn = draw(loose, "train", 0, 5000).problems.tolist()
    sides = side_of(Instances(), [(t, n[:k]) for t, k, *n in drawn])
    assert 0.08 < sides.count("heldout-targets") / 5000 < 0.12
    assert 0.08 < sides.count("heldout-inputs") / (5000 - sides.count("heldout-targets")) < 0.12
    for instances in (Instances(), SMALL, Instances(numbers=(6, 6))):
        made = draw(instances, "train", 0, 60)
        for (target, size, *numbers), steps in zip(made.problems.tolist(), made.solutions, strict=True):
            operations = solution(steps, size)
            assert lines.optimal_path(target, numbers[:size], operations)
            assert not instances.cap or max(step.result for step in operations) <= instances.cap


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"numbers": (4, 7)}, "2 to 6 numbers"),
        ({"numbers": (4, 3)}, "2 to 6 numbers"),
        ({"inputs": (5, 4)}, "the smaller one first"),
        ({"inputs": (1, 10_000)}, "too large"),
        ({"targets": (0, 9)}, "targets are from 1"),
        ({"targets": (1, 9)}, "target 1 has no heuristic mult"),
        ({"cap": 99}, "at least the largest target"),
        ({"strategy": "dfs"}, "mixture or dfs-sum"),
        ({"beams": 6}, "beams are from 1 to 5"),
        ({"held_inputs": 1.0}, "below 1"),
        ({"seed": -1}, "the seed must be"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(HeedfulError, match=told):
        Instances(**options)


def test_empty_sides_and_targets_out_of_reach_are_refused() -> None:
    for side, share in (("heldout-targets", "held_targets"), ("heldout-inputs", "held_inputs")):
        with pytest.raises(HeedfulError, match="give a share above 0"):
            draw(replace(Instances(), **{share: 0.0}), side, 0, 1)
    with pytest.raises(HeedfulError, match="there is no side 'test'"):
        draw(Instances(), "test", 0, 1)
    with pytest.raises(HeedfulError, match=r"never made 9[0-9]; widen"):
        draw(Instances(numbers=(2, 2), inputs=(1, 3), targets=(90, 99)), "train", 0, 5)


# ---- shards

PLAN = ShardPlan(SMALL, "train", 250, shard=100, tokens=True, difficulty=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.parquet"))}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("countdown") / "set"
    with open_run(folder, PLAN, seed=SMALL.seed) as run:
        assert make_shards(PLAN, run)
    return folder


def test_any_number_of_workers_and_starts_gives_the_same_bytes(shards: Path, tmp_path: Path) -> None:
    with open_run(tmp_path, PLAN, seed=SMALL.seed) as run:
        seen: list[int] = []

        def stop(done: int) -> None:
            seen.append(done)
            if done:
                raise StopIteration

        assert not make_shards(PLAN, run, on_done=stop) and seen == [0, 1]
        begun = len(contents(tmp_path))
        assert 1 <= begun < 3
        kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.parquet")}
        threads = threading.active_count()
        assert make_shards(PLAN, run, workers=3) and threading.active_count() == threads
    assert contents(tmp_path) == contents(shards) and len(contents(shards)) == 3
    assert all(file.stat().st_mtime_ns == time for file, time in kept.items())
    with pytest.raises(HeedfulError, match="other settings"):
        open_run(tmp_path, ShardPlan(SMALL, "train", 251), seed=SMALL.seed)


def test_shards_hold_what_was_drawn_and_searched(shards: Path) -> None:
    rows = [row for batch in read_shards(shards, "train", batch=64) for row in batch.to_pylist()]
    assert [row["index"] for row in rows] == list(range(250))
    tokenizer = compact_tokenizer()
    for row in rows[::7]:
        one = stream(row["target"], row["nums"], row["strategy"], row["seed"], cap=SMALL.cap)
        assert (row["stream"], row["ids"]) == (one.text, one.tokens.tolist())
        assert (row["characters"], row["tokens"]) == (len(one.text), len(one.tokens))
        assert (row["solved"], row["explored"]) == (one.solved, one.explored)
        assert [*tokenizer(codec.encode(one.text))["input_ids"], tokenizer.eos_token_id] == row["ids"]
        assert row["solutions"] > 0 and len(row["solution"]) == len(row["nums"]) - 1
        mine = row["explored_by"][STRATEGIES.index(row["strategy"])]
        assert mine == (row["explored"] if row["solved"] else 0)
        assert row["difficult"] == (not any(row["explored_by"]))
        assert (row["rating"] > 0) <= row["solved"]
    with pytest.raises(HeedfulError, match="no shards of the side heldout-inputs"):
        next(read_shards(shards, "heldout-inputs"))


def test_long_streams_are_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = ShardPlan(Instances(), "heldout-targets", 30)
    make_shard(plan, tmp_path, 0)
    whole = [row for batch in read_shards(tmp_path, plan.side) for row in batch.to_pylist()]
    monkeypatch.setattr("heedful.data.countdown.streams.BUDGET", 1000)
    make_shard(plan, tmp_path, 0)
    assert [row for batch in read_shards(tmp_path, plan.side) for row in batch.to_pylist()] == whole
    assert len(whole) == 30 and {row["target"] for row in whole} <= held_out_targets((10, 100), 0.1)


# ---- what models read


def test_packed_rows_hold_every_stream_whole_and_its_end() -> None:
    drawn = draw(Instances(numbers=(3, 3), inputs=(1, 49), cap=999), "train", 0, 1500)
    (made,) = traces(*drawn[:3], cap=999, text=False)
    packed = pack(made.tokens, made.token_ends, 256)
    starts = np.concatenate([[0], made.token_ends[:-1]])
    whole = [made.tokens[a:b][:256].tolist() for a, b in zip(starts, made.token_ends, strict=True)]
    found = []
    for ids, segments, positions in zip(packed.ids, packed.segments, packed.positions, strict=True):
        assert np.all(np.diff(np.where(segments == 0, 99, segments)) >= 0), "padding at the end"
        for segment in range(1, segments.max() + 1):
            here = segments == segment
            assert positions[here].tolist() == list(range(here.sum()))
            found.append(ids[here].tolist())
        assert not ids[segments == 0].any()
    assert sorted(found) == sorted(whole)
    assert packed.cut == sum(
        len(one) > 256 for one in (made.tokens[a:b] for a, b in zip(starts, made.token_ends))
    )
    assert (packed.segments > 0).mean() > 0.975
    ends = (packed.ids == 2) & packed.predicted
    assert ends.sum() == len(whole) - packed.cut and not ((packed.ids == 1) & packed.predicted).any()
    with pytest.raises(HeedfulError, match="at least 2 tokens"):
        pack(made.tokens, made.token_ends, 1)
    assert pack(made.tokens[:0], made.token_ends[:0], 8).ids.shape == (0, 8)


def test_tokenizers_are_loaded_by_transformers_without_a_network(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    text = stream(97, [1, 50, 2, 3], "bfs-mult-3", 3).text
    for make, written in ((compact_tokenizer, codec.encode(text)), (byte_tokenizer, text + "é ∑")):
        make().save_pretrained(tmp_path / make.__name__)
        loaded = AutoTokenizer.from_pretrained(tmp_path / make.__name__)
        ids = loaded(written)["input_ids"]
        assert loaded.decode(ids, skip_special_tokens=True) == written
        assert ids[0] == loaded.bos_token_id and loaded.unk_token_id not in ids
        assert len({loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id, loaded.unk_token_id}) == 4
        padded = loaded(["T 24", written], padding=True)
        assert padded["attention_mask"][0].count(0) == len(ids) - len(loaded("T 24")["input_ids"])
    assert len(byte_tokenizer()) == 260
    compact = compact_tokenizer()
    assert compact("T 24 N 4E 4+9")["input_ids"] == compact("T 24 N 4 E 4 + 9")["input_ids"]


# ---- the commands


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_streams_and_verify_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = [
        {"target": 24, "nums": [4, 9, 3], "strategy": "dfs-sum", "seed": None, "note": "é"},
        {"target": 83, "nums": [64, 51, 83, 81], "strategy": "bfs-mult-3", "seed": 203},
        {"target": 50, "nums": [1, 1], "strategy": "bfs-sum-1"},
    ]
    asked = write(tmp_path / "p.jsonl", problems)
    assert (
        main(["search", "streams", "--problems", str(asked), "--legacy", "--out", str(tmp_path / "s.jsonl")])
        == 0
    )
    made = read(tmp_path / "s.jsonl")
    for row, problem in zip(made, problems, strict=True):
        assert row | problem == row
        text = peer.stream(row["target"], row["nums"], row["strategy"], row.get("seed") or 0, legacy=True)
        assert row["stream"] == text and row["solved"] == ("Goal" in text)
    assert main(["search", "streams", "--problems", str(asked), "--language", "compact"]) == 0
    compact = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert codec.decode(compact[0]["stream"]) == made[0]["stream"]
    broken = {"target": 24, "nums": [4, 9, 3], "stream": made[0]["stream"].replace("9-3=6", "9-3=7")}
    checked = write(tmp_path / "c.jsonl", [*made, compact[0], broken, {**broken, "stream": "?"}])
    assert main(["search", "verify", str(checked), "--out", str(tmp_path / "v.jsonl")]) == 0
    verdicts = read(tmp_path / "v.jsonl")
    assert [row["strict"] for row in verdicts] == [True, made[1]["solved"], False, True, False, False]
    assert [row["legacy"] for row in verdicts] == [True, made[1]["solved"], False, True, False, False]
    assert verdicts[0]["note"] == "é" and verdicts[0]["rating"] == verdicts[0]["legacy_rating"] > 0
    assert verdicts[4]["errors"]["arithmetic"] > 0 and verdicts[4]["reason"].startswith("line ")
    assert "6 streams: strict" in capsys.readouterr().err
    assert main(["search", "verify", str(checked)]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == verdicts


def test_everything_wrong_with_a_file_is_told_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"target": 24, "nums": [4, 9, 3], "strategy": "dfs-sum", "stream": "x"}
    rows = [
        good,
        {**good, "target": "24"},
        {**good, "nums": [4]},
        {**good, "strategy": "x"},
        {"target": 1},
        good,
    ]
    file = write(tmp_path / "p.jsonl", rows * 6)
    assert main(["search", "streams", "--problems", str(file), "--out", str(tmp_path / "s.jsonl")]) == 1
    said = capsys.readouterr().err
    for told in ("p.jsonl:2: target: must be a whole number", "p.jsonl:3: nums: must have 2 to 6 numbers",
                 "p.jsonl:4: strategy: must be one of", "p.jsonl:5: nums: is missing", "… and 4 more"):  # fmt: skip
        assert told in said
    assert not (tmp_path / "s.jsonl").exists() and "Traceback" not in said
    assert main(["search", "verify", str(write(tmp_path / "v.jsonl", [{**good, "stream": 3}]))]) == 1
    assert "v.jsonl:1: stream: must be text" in capsys.readouterr().err
    assert main(["search", "verify", str(write(tmp_path / "e.jsonl", []))]) == 1
    assert "has no rows" in capsys.readouterr().err
    assert main(["search", "verify", str(tmp_path / "none.jsonl")]) == 1
    assert "there is no such file" in capsys.readouterr().err
    fine = write(tmp_path / "f.jsonl", [good])
    assert main(["search", "streams", "--problems", str(fine), "--out", str(fine)]) == 1
    assert "is the file that is read" in capsys.readouterr().err and read(fine) == [good]
    assert main(["search", "streams", "--problems", str(fine), "--limit", "-1"]) == 1


def test_generate_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set"
    command = [
        "search",
        "generate",
        "--out",
        str(out),
        "--samples",
        "120",
        "--shard",
        "50",
        "--numbers",
        "3",
        "3",
    ]
    assert main([*command, "--workers", "2", "--language", "both", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (
        result["samples"] == 120
        and 0.6 < result["solved"] < 1
        and set(result["solved_by_strategy"]) <= set(STRATEGIES)
    )
    rows = [row for batch in read_shards(out, "train") for row in batch.to_pylist()]
    assert result["solved"] == sum(row["solved"] for row in rows) / 120
    assert result["mean_tokens"] == sum(len(row["ids"]) for row in rows) / 120
    before = contents(out)
    (out / "train-00001.parquet").unlink()
    assert main([*command, "--language", "both", "--quiet"]) == 0
    assert contents(out) == before and len(before) == 3 and capsys.readouterr().out == ""
    assert main(command) == 1
    assert "other settings" in capsys.readouterr().err
    assert (
        main(["search", "generate", "--out", str(tmp_path / "no"), "--samples", "0", "--workers", "0"]) == 1
    )
    told = capsys.readouterr().err
    assert "--samples must be at least 1; --workers must be at least 1" in told
    assert not (tmp_path / "no").exists()
