"""Run folders, configs and their differences."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.config import content_hash, difference, dump_yaml, from_plain, load_config, load_yaml, to_plain
from heedful.errors import HeedfulError
from heedful.run import Run, derive_seed, open_run, read_metrics


@dataclass(frozen=True)
class Inner:
    lr: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True)
class Settings:
    name: str
    method: Literal["dpo", "ipo"] = "dpo"
    path: Path | None = None
    limit: int | None = None
    layers: list[str] = field(default_factory=list)
    fit: Inner = Inner()


FULL = Settings("x", "ipo", Path("a/b"), 3, ["q", "v"], Inner(3e-4))


def test_a_config_comes_back_equal_from_yaml_and_json(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(dump_yaml(FULL))
    (tmp_path / "c.json").write_text(json.dumps(to_plain(FULL)))
    assert load_config(Settings, tmp_path / "c.yaml") == FULL == load_config(Settings, tmp_path / "c.json")


def test_numbers_as_people_write_them_are_read(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: x\nfit: {lr: 1e-4, betas: [0, 1]}\n")
    assert load_config(Settings, tmp_path / "c.yaml").fit == Inner(1e-4, (0.0, 1.0))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"nam": "x"}, "config: unknown setting 'nam'; did you mean 'name'?"),
        ({}, "config: the setting 'name' is missing"),
        ({"name": 3}, "config.name: text is needed, not 3"),
        ({"name": "x", "fit": {"lr": "fast"}}, "config.fit.lr: a number is needed, not 'fast'"),
        ({"name": "x", "method": "kto"}, "config.method: 'kto' is none of 'dpo', 'ipo'"),
        ({"name": "x", "limit": True}, "config.limit: a whole number is needed, not True"),
        ({"name": "x", "fit": {"betas": [1]}}, "config.fit.betas: 2 values are needed, not 1"),
        ({"name": "x", "layers": "qv"}, "config.layers: a list is needed, not 'qv'"),
    ],
)
def test_a_wrong_setting_is_named(data: dict[str, Any], message: str) -> None:
    with pytest.raises(HeedfulError) as caught:
        from_plain(Settings, data)
    assert str(caught.value) == message


def test_broken_yaml_is_located(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("a: 1\nb: [1\nc: 2\n")
    with pytest.raises(HeedfulError, match=r"c\.yaml:3: not valid YAML"):
        load_yaml(tmp_path / "c.yaml")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(min_size=1), plain, max_size=4))
def test_any_plain_config_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("c") / "c.yaml"
    path.write_text(dump_yaml(config), encoding="utf-8")
    back = load_yaml(path)
    assert back == config and difference(back, config) == [] and content_hash(back) == content_hash(config)


def test_difference_names_each_setting() -> None:
    old = {"fit": {"lr": 1e-5, "steps": 3}, "gone": 1, "same": 1}
    new = {"fit": {"lr": 2e-5, "steps": 3.0}, "same": 1, "new": "x"}
    assert difference(old, new) == ["fit.lr: 1e-05 -> 2e-05", "gone: 1 -> (absent)", "new: (absent) -> 'x'"]
    assert difference(old, new, volatile=("fit", "gone", "new")) == []
    assert (
        content_hash({"a": 1, "b": 2.0}) == content_hash({"b": 2, "a": 1.0}) != content_hash({"a": 1, "b": 3})
    )


def test_the_folder_says_what_it_was_made_with(tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_bytes(b"abc")
    for start in (1, 2):
        with open_run(tmp_path / "r", FULL, seed=3, command=["heedful", "prefer", "a b"], data=[data]) as run:
            assert run.config == to_plain(FULL) and (run.seed, run.rank, run.world) == (3, 0, 1)
        manifest = json.loads((tmp_path / "r/manifest.json").read_text())
        assert len(manifest["started"]) == start
    assert load_config(Settings, tmp_path / "r/config.yaml") == FULL
    assert manifest["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert manifest["command"] == "heedful prefer 'a b'" and manifest["seed"] == 3 and manifest["device"]
    assert manifest["data"] == {str(data): "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}


def test_a_changed_config_seed_or_data_file_is_refused_with_the_difference(tmp_path: Path) -> None:
    data = tmp_path / "d.jsonl"
    data.write_text("1")
    with open_run(tmp_path / "r", FULL, seed=0, data=[data]) as run:
        run.once("a.json", dict)
    before = (tmp_path / "r/config.yaml").read_bytes()
    changed = Settings("x", "dpo", Path("a/b"), 3, ["q"], Inner(3e-4))
    data.write_text("2")
    with pytest.raises(HeedfulError) as caught:
        open_run(tmp_path / "r", changed, seed=1, data=[data])
    for line in (
        "method: 'ipo' -> 'dpo'",
        "layers: ['q', 'v'] -> ['q']",
        "seed: 0 -> 1",
        f"data file {data}",
    ):
        assert line in str(caught.value)
    assert (tmp_path / "r/config.yaml").read_bytes() == before
    data.write_text("1")
    open_run(tmp_path / "r", changed, seed=0, volatile=("method", "layers"), data=[data]).close()
    assert load_config(Settings, tmp_path / "r/config.yaml") == changed, (
        "the file says what the last start used"
    )


def test_an_option_that_came_later_has_its_default_in_older_runs(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    older = {
        name: value for name, value in to_plain(Settings("a")).items() if name not in ("layers", "limit")
    }
    with open_run(folder, older, seed=0):
        pass
    with open_run(folder, Settings("a"), seed=0):
        pass
    with open_run(tmp_path / "other", older, seed=0) as run:
        run.log(1, {"loss": 0.5})
    with pytest.raises(HeedfulError, match="limit: None -> 3"):
        open_run(tmp_path / "other", Settings("a", limit=3), seed=0)
    with pytest.raises(HeedfulError, match=r"name: \(absent\) -> 'a'"):  # it has no default
        with open_run(tmp_path / "third", {"method": "dpo"}, seed=0) as run:
            run.log(1, {"loss": 0.5})
        open_run(tmp_path / "third", Settings("a"), seed=0)


@dataclass(frozen=True)
class Newer:
    steps: int = 3
    points: int = field(default=32, metadata={"before": 0})


def test_a_default_that_does_what_was_not_done_before_is_no_default_of_older_runs(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", {"steps": 3}, seed=0) as run:
        run.log(1, {"loss": 0.5})
    with pytest.raises(HeedfulError, match="points: 0 -> 32"):
        open_run(tmp_path / "run", Newer(), seed=0)
    with open_run(tmp_path / "run", Newer(points=0), seed=0):
        pass
    with open_run(tmp_path / "new", Newer(), seed=0):
        assert "points: 32" in (tmp_path / "new" / "config.yaml").read_text()


@pytest.mark.parametrize(
    "work", ["", "metrics.jsonl", "world.json", "pictures/1.png", "cache/rows.arrow", "sessions.json"]
)
def test_a_folder_in_which_nothing_was_done_begins_anew_with_other_settings(
    work: str, tmp_path: Path
) -> None:
    data, folder = tmp_path / "d.jsonl", tmp_path / "r"
    data.write_text("faulty")
    open_run(folder, {"a": 1}, seed=0, data=[data]).close()
    (folder / "metrics.jsonl").touch()
    if work:
        (folder / work).parent.mkdir(exist_ok=True)
        (folder / work).write_text("{}\n")
    data.write_text("mended")
    if work and not work.startswith(("cache", "sessions")):
        with pytest.raises(HeedfulError, match="a: 1 -> 2"):
            open_run(folder, {"a": 2}, seed=1, data=[data])
        return
    with open_run(folder, {"a": 2}, seed=1, data=[data]) as run:
        run.once("a.json", dict)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (
        manifest["seed"] == 1
        and len(manifest["started"]) == 1
        and load_yaml(folder / "config.yaml") == {"a": 2}
    )
    open_run(folder, {"a": 2}, seed=1, data=[data]).close()
    data.write_text("changed")
    with pytest.raises(HeedfulError, match="has changed since the run began"):
        open_run(folder, {"a": 2}, seed=1, data=[data])


def test_one_process_at_a_time(tmp_path: Path) -> None:
    program = f"from heedful.run import open_run\nopen_run({str(tmp_path / 'r')!r}, {{}}, seed=0)"
    with open_run(tmp_path / "r", {}, seed=0):
        with pytest.raises(HeedfulError, match=f"is in use by process {os.getpid()} on"):
            open_run(tmp_path / "r", {}, seed=0)
        second = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert second.returncode == 1 and f"is in use by process {os.getpid()}" in second.stderr
    open_run(tmp_path / "r", {}, seed=0).close()


def test_a_refused_start_lets_go_of_the_folder(tmp_path: Path) -> None:
    with open_run(tmp_path / "r", {"a": 1}, seed=0) as run:
        run.once("a.json", dict)
    with pytest.raises(HeedfulError):
        open_run(tmp_path / "r", {"a": 2}, seed=0)
    open_run(tmp_path / "r", {"a": 1}, seed=0).close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a.json", {"x": [0.1, 1e-300, math.inf, -0.0, "\ud800", "é\u2028\n"], "n": None, "i": 2**70}),
        ("deep/er/a.part-0003.jsonl", [{"score": 1 / 3}, {"text": "line\nline", "t": True}, {}]),
        ("empty.jsonl", []),
    ],
)
def test_once_makes_a_value_once_and_reads_it_back_identical(tmp_path: Path, name: str, value: Any) -> None:
    made = []
    for _ in range(2):
        with open_run(tmp_path, {}, seed=0) as run:
            assert run.once(name, lambda: made.append(1) or value) == value
    assert made == [1]
    assert not list(tmp_path.rglob("*.tmp"))


def test_once_keeps_tensors_to_the_bit(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 2), "nan": torch.tensor([math.nan]), "b": torch.arange(6).view(2, 3).T}
    run = open_run(tmp_path, {}, seed=0)
    first = run.once("t.safetensors", lambda: tensors)
    again = run.once("t.safetensors", dict)
    for name, tensor in tensors.items():
        assert torch.equal(first[name].nan_to_num(7), tensor.nan_to_num(7))
        assert torch.equal(again[name].nan_to_num(7), tensor.nan_to_num(7))


def test_once_leaves_nothing_when_making_fails(tmp_path: Path) -> None:
    run = open_run(tmp_path, {}, seed=0)
    with pytest.raises(ZeroDivisionError):
        run.once("a.json", lambda: 1 // 0)
    assert run.once("a.json", lambda: 5) == 5
    with pytest.raises(TypeError, match=r"b\.jsonl"):
        run.once("b.jsonl", lambda: [{"x": object()}])
    assert not run.path("b.jsonl").exists()


def test_once_names_a_damaged_file_and_a_bad_name(tmp_path: Path) -> None:
    run = open_run(tmp_path, {}, seed=0)
    run.path("a.json").write_text('{"x":')
    with pytest.raises(HeedfulError, match=r"a\.json cannot be read back .* delete it"):
        run.once("a.json", lambda: 1)
    with pytest.raises(HeedfulError, match="leads out of the run folder"):
        run.once("../a.json", lambda: 1)
    with pytest.raises(HeedfulError, match=r"must end in \.json"):
        run.once("a.pkl", lambda: 1)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("call", ["write", "fsync", "replace", "open"])
def test_a_full_or_read_only_disk_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    run = open_run(tmp_path, {}, seed=0)
    run.once("a.json", lambda: 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(code))
        with pytest.raises(HeedfulError, match=r"cannot write .*b\.json: (no space|the file|permission)"):
            run.once("b.json", lambda: 2)
    assert run.once("a.json", lambda: 3) == 1 and run.once("b.json", lambda: 4) == 4
    run.close()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(code))
        with pytest.raises(HeedfulError, match=f"cannot write {tmp_path}"):
            open_run(tmp_path, {}, seed=0)
    open_run(tmp_path, {}, seed=0).close()


def failing(code: int) -> Any:
    def fail(*_: Any, **__: Any) -> int:
        raise OSError(code, os.strerror(code))

    return fail


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(HeedfulError, match="f is a file"):
        open_run(tmp_path / "f", {}, seed=0)


def test_metrics_are_whole_rows_in_order(tmp_path: Path) -> None:
    with open_run(tmp_path, {}, seed=0) as run:
        run.log(1, {"loss": torch.tensor(0.5), "bad": math.nan}, stage="a")
        run.log(1, {"x": 2})
    rows = list(read_metrics(tmp_path))
    assert [{k: v for k, v in row.items() if k != "time"} for row in rows] == [
        {"stage": "a", "step": 1, "loss": 0.5, "bad": None},
        {"stage": "", "step": 1, "x": 2},
    ]


def test_a_torn_last_row_is_repaired(tmp_path: Path) -> None:
    with open_run(tmp_path, {}, seed=0) as run:
        run.log(1, {"x": 1})
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"stage": "", "st' + "x" * 100_000)
    assert len(list(read_metrics(tmp_path))) == 1
    with open_run(tmp_path, {}, seed=0) as run:
        run.log(2, {"x": 2})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_a_half_written_row_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(tmp_path, {}, seed=0)
    run.log(1, {"x": 1})
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:5]))
        with pytest.raises(HeedfulError, match=r"metrics\.jsonl: no space"):
            run.log(2, {"x": 2})
    run.log(2, {"x": 2})
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]


def test_rows_are_dropped_from_a_step_on_and_never_repeated(tmp_path: Path) -> None:
    def log_all(run: Run) -> None:
        for step in range(1, 5):
            run.log(step, {"loss": step}, stage="a")
            run.log(step, {"loss": step}, stage="b")

    with open_run(tmp_path, {}, seed=0) as run:
        log_all(run)
    with open_run(tmp_path, {}, seed=0) as run:
        assert run.drop_metrics("a", 3) == 2
        assert [(r["stage"], r["step"]) for r in read_metrics(tmp_path) if r["stage"] == "a"] == [
            ("a", 1),
            ("a", 2),
        ]
        log_all(run)
    keys = sorted((row["stage"], row["step"]) for row in read_metrics(tmp_path))
    assert keys == [(stage, step) for stage in "ab" for step in range(1, 5)]


def test_seeds_depend_on_everything_and_only_that(tmp_path: Path) -> None:
    run = open_run(tmp_path, {}, seed=4)
    assert run.seed_for("a", 1) == derive_seed(4, "a", 1) == 6789541985426972896
    seeds = {derive_seed(s, stage, n) for s in range(3) for stage in ("a", "b") for n in range(3)}
    assert len(seeds) == 18
    assert torch.equal(
        torch.rand(2, generator=run.generator("x")), torch.rand(2, generator=run.generator("x"))
    )
