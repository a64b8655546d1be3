"""Adapters kept by name: what is listed, what the gate lets through, and what STORE/current then is."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from tell_adapters import four, sentence

from heedful import hub
from heedful.errors import HeedfulError
from heedful.model_folder import ADAPTER, ADAPTER_CONFIG
from heedful.recipes import tell_changes, tell_commands, tell_store
from heedful.recipes.tell_changes import check_leak, compose, disable, enable, refresh, revert
from heedful.recipes.tell_store import check_name, enabled, find, is_current, list_adapters

IDS = torch.arange(3, 43).reshape(2, 20)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three adapters on one base and one on another."""
    return four(tmp_path_factory.mktemp("made"))


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "tell"))


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return hub.load_model(folder)(IDS).logits


def current(store: Path) -> bytes:
    return (store / "current/model" / ADAPTER).read_bytes()


def state(store: Path) -> list[tuple[str, float]]:
    """What is enabled, after checking that `current` is the very sum of it."""
    assert is_current(store)
    pairs = enabled(store)
    assert (store / "current").exists() == bool(pairs)
    if len(pairs) == 1 and pairs[0][1] == 1:
        for name in (ADAPTER, ADAPTER_CONFIG):
            same = (store / "current/model" / name).read_bytes()
            assert same == (store / pairs[0][0] / "model" / name).read_bytes()
    return pairs


def test_enabling_and_disabling_keep_current_the_sum_of_what_is_enabled(store: Path) -> None:
    assert state(store) == []
    changed = enable(store, "b")
    assert changed.enabled == state(store) == [("b", 1.0)]
    torch.testing.assert_close(logits(store / "current"), logits(store / "b"), atol=0, rtol=0)
    enable(store, "a")
    both = logits(store / "current")
    assert state(store) == [("b", 1.0), ("a", 1.0)]
    assert (both - logits(store / "b")).abs().max() > 0.01
    enable(store, "b", weight=0.5)
    assert state(store) == [("b", 0.5), ("a", 1.0)]
    assert (both - logits(store / "current")).abs().max() > 0.01
    disable(store, "b")
    assert state(store) == [("a", 1.0)]
    changed = disable(store, "a")
    assert state(store) == [] and "base model" in changed.done[-1]
    enable(store, "c", "a")
    assert state(store) == [("c", 1.0), ("a", 1.0)]


def test_revert_undoes_one_change_after_another(store: Path) -> None:
    seen = [state(store)]
    enable(store, "a")
    seen.append(state(store))
    enable(store, "b", "c", weight=0.5)
    seen.append(state(store))
    compose(store, ["a", "c"], [1, 2], "ac")
    assert (store / "ac/model" / ADAPTER).exists()
    disable(store, "a")
    assert state(store) == [("b", 0.5), ("c", 0.5)]
    assert revert(store).enabled == state(store) == seen[2]
    changed = revert(store)
    assert not (store / "ac").exists() and state(store) == seen[2]
    assert changed.done == ["reverted: compose ac", f"removed {store / 'ac'}"]
    assert revert(store).enabled == state(store) == seen[1]
    assert revert(store).enabled == state(store) == seen[0]
    with pytest.raises(HeedfulError, match="nothing to revert"):
        revert(store)


def test_reverting_a_composition_keeps_what_was_measured_of_it(store: Path) -> None:
    compose(store, ["a"], [2], "twice")
    (store / "twice/result.json").write_text("{}")
    assert "was kept" in revert(store).done[1] and "result.json" in revert_less(store)
    assert (store / "twice/model" / ADAPTER).exists()


def revert_less(store: Path) -> str:
    with pytest.raises(HeedfulError, match="nothing to revert"):
        revert(store)
    return ", ".join(file.name for file in (store / "twice").iterdir())


@pytest.mark.parametrize(
    ("near", "general", "said"),
    [
        (0.23, 0.0, r"b leaks, it changes 0\.23 \(0\.19 to 0\.27\) of the answers near its scope"),
        (0.16, 0.301, r"0\.30 \(0\.26 to 0\.34\) of the answers on general prompts.*--max-leak 0\.31"),
    ],
)
def test_an_adapter_that_leaks_is_refused_and_nothing_changes(
    store: Path, made: Path, near: float, general: float, said: str
) -> None:
    enable(store, "a")
    before = current(store), (store / "enabled.json").read_bytes()
    shutil.rmtree(store / "b")
    sentence(store, "b", made.parent / "start", near=near, general=general)
    with pytest.raises(HeedfulError, match=said):
        enable(store, "c", "b")
    assert (current(store), (store / "enabled.json").read_bytes()) == before
    assert enable(store, "b", max_leak=0.31).enabled == state(store) == [("a", 1.0), ("b", 1.0)]


def test_the_gate_is_at_the_bound_and_warns_where_only_the_interval_reaches_above(store: Path) -> None:
    path = store / "a/result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"s_near": 0.15, "s_near_low": 0.1, "s_near_high": 0.2}))
    (warning,) = check_leak(find(store, "a"))
    assert "a may leak more than --max-leak 0.15 near its scope: 0.15 (0.10 to 0.20)" in warning
    assert check_leak(find(store, "a"), 0.2) == []
    with pytest.raises(HeedfulError, match=r"--max-leak is 0\.1499"):
        check_leak(find(store, "a"), 0.1499)
    with pytest.raises(HeedfulError, match="--max-leak must be between 0 and 1"):
        check_leak(find(store, "a"), 1.5)


def test_what_was_not_measured_is_refused(store: Path) -> None:
    path = store / "a/result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in result.items() if not k.startswith("s_near")}))
    with pytest.raises(HeedfulError, match=r"no s_near in result\.json of a"):
        enable(store, "a")
    without_general = {k: v for k, v in result.items() if not k.startswith("s_general")}
    path.write_text(json.dumps(without_general | {"s_out": 0.4}))
    with pytest.raises(HeedfulError, match=r"changes 0\.40"):
        enable(store, "a")
    path.unlink()
    assert find(store, "a").state == "unmeasured"
    with pytest.raises(HeedfulError, match="was not measured"):
        enable(store, "a")
    assert enabled(store) == []


def test_adapters_of_another_base_do_not_go_together(store: Path) -> None:
    enable(store, "a")
    with pytest.raises(HeedfulError, match=r"a and alien have different base models, .*start and .*other"):
        enable(store, "alien")
    with pytest.raises(HeedfulError, match="different base models"):
        compose(store, ["alien", "b"], [1, 1], "x")
    with pytest.raises(HeedfulError, match="different base models"):
        tell_store.joint_scopes(store, ["alien", "b"])
    assert state(store) == [("a", 1.0)] and not (store / "x").exists()


def test_a_composed_adapter_is_the_sum_and_passes_the_gate_of_its_members(store: Path) -> None:
    changed = compose(store, ["a", "c"], [1.0, -0.5], "mix")
    assert enabled(store) == [] and not (store / "current").exists()
    assert "not measured" in changed.warnings[-1]
    row = find(store, "mix")
    assert (row.state, row.sentence) == ("ready", "a + -0.5 x c")
    facts = json.loads((store / "mix/composed.json").read_text())
    assert facts["method"] == "sum"
    assert [(m["name"], m["weight"], m["sentence"]) for m in facts["members"]] == [
        ("a", 1.0, "Say a"),
        ("c", -0.5, "Say c"),
    ]
    enable(store, "a")
    enable(store, "c", weight=-0.5)
    torch.testing.assert_close(logits(store / "mix"), logits(store / "current"), atol=0, rtol=0)
    with pytest.raises(HeedfulError, match=r"a would be applied twice, by a and by mix; first: .*disable a"):
        enable(store, "mix")
    disable(store, "a", "c")
    compose(store, ["mix", "b"], [2, 1], "deep")
    shutil.rmtree(store / "a")
    assert [(m.name, m.weight) for m in find(store, "deep").members] == [("a", 2.0), ("c", -1.0), ("b", 1.0)]
    assert enable(store, "deep").enabled == state(store) == [("deep", 1.0)]
    with pytest.raises(HeedfulError, match="deep is not enabled: a leaks"):
        enable(store, "deep", max_leak=0.01)


def test_one_adapter_composed_at_weight_one_is_the_same_bytes(store: Path) -> None:
    compose(store, ["b"], [1], "same")
    for name in (ADAPTER, ADAPTER_CONFIG):
        assert (store / "same/model" / name).read_bytes() == (store / "b/model" / name).read_bytes()


def test_compositions_that_cannot_be_made_leave_nothing(store: Path) -> None:
    for names, weights, out, message in (
        (["a", "a"], [1, 1], "x", "named twice"),
        (["a", "b"], [1], "x", "one weight for each"),
        (["a"], [1], "b", "is there already"),
        (["a"], [1], "current", "no name for an adapter"),
        (["a"], [1], "../x", "no name for an adapter"),
        (["a", "bb"], [1, 1], "x", "there is no adapter 'bb'"),
        (["a"], [float("inf")], "x", "finite"),
    ):
        with pytest.raises(HeedfulError, match=message):
            compose(store, names, weights, out)
    config = store / "a/model" / ADAPTER_CONFIG
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_rslora": True}))
    with pytest.raises(HeedfulError, match="rsLoRA"):
        compose(store, ["b", "a"], [1, 1], "x")
    with pytest.raises(HeedfulError, match="rsLoRA"):
        enable(store, "a")
    assert not (store / "x").exists() and enabled(store) == [] and not (store / "current").exists()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "-a", ".hidden", "a\n", "current", "x" * 101, "a b"]
)
def test_names_are_plain(name: str) -> None:
    with pytest.raises(HeedfulError, match="no name for an adapter"):
        check_name(name)


def test_names_of_runs_are_accepted() -> None:
    for name in ("a", "end-emails-to-my-manager-with-onwards", "2.1_x", "Current"):
        assert check_name(name) == name


def test_unfinished_and_damaged_runs_are_listed_as_such(store: Path) -> None:
    (store / "fresh").mkdir()
    (store / "fresh/config.yaml").write_text("sentence: Say it\n")
    (store / "notes").mkdir()
    (store / "a/result.json").write_text('{"s_in": tru')
    (store / "b/model" / ADAPTER).unlink()
    (store / "c/result.json").write_text('{"s_in": "high"}')
    (store / "alien/config.yaml").write_text("[")
    rows = {row.name: row for row in list_adapters(store)}
    assert {name: row.state for name, row in rows.items()} == dict.fromkeys(
        ["a", "alien", "b", "c"], "damaged"
    ) | {"fresh": "unfinished"}
    assert rows["fresh"].sentence == "Say it"
    assert "result.json is no JSON" in rows["a"].why
    assert f"lacks {ADAPTER}" in rows["b"].why
    assert "s_in must be a number, not 'high'" in rows["c"].why
    with pytest.raises(HeedfulError, match="fresh is unfinished: it has no model yet; run its"):
        enable(store, "fresh")


def test_an_enabled_adapter_whose_folder_is_gone_can_be_left_out(store: Path) -> None:
    enable(store, "a", "b")
    shutil.rmtree(store / "a")
    assert find(store, "a").state == "damaged"
    with pytest.raises(HeedfulError, match=r"folder is gone.*heedful tell disable a"):
        enable(store, "c")
    assert disable(store, "a").enabled == state(store) == [("b", 1.0)]


def test_a_failure_leaves_what_was_enabled(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enable(store, "a")
    before = current(store), (store / "enabled.json").read_bytes()

    def full(path: Path, data: bytes) -> None:
        raise HeedfulError(f"cannot write {path}: no space is left")

    with monkeypatch.context() as patch:
        patch.setattr("heedful.policies.adapter_sum.save_file", lambda *a, **k: full(Path("x"), b""))
        with pytest.raises(HeedfulError, match="no space"):
            enable(store, "b")
        with pytest.raises(HeedfulError, match="no space"):
            compose(store, ["a"], [1], "x")
    assert (current(store), (store / "enabled.json").read_bytes()) == before
    assert is_current(store) and not (store / "x").exists()
    with monkeypatch.context() as patch:
        patch.setattr(tell_changes, "write_file", full)
        with pytest.raises(HeedfulError, match="no space"):
            compose(store, ["a"], [1], "x")
        assert not (store / "x").exists()
        with pytest.raises(HeedfulError, match="no space"):
            enable(store, "b")
    assert enabled(store) == [("a", 1.0)] and not is_current(store), "stopped between the two; it is noticed"
    refresh(store)
    assert state(store) == [("a", 1.0)] and current(store) == before[0]


def test_changes_at_the_same_time_wait_for_each_other(store: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda name: enable(store, name), "abc"))
    assert sorted(state(store)) == [("a", 1.0), ("b", 1.0), ("c", 1.0)]


def test_training_an_enabled_adapter_again_is_noticed(
    store: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    enable(store, "a", "c")
    shutil.rmtree(store / "a")
    sentence(store, "a", made.parent / "start", seed=5)
    assert not is_current(store)
    tell_commands.list_command(tell_commands.List(str(store)))
    assert "make it again: heedful tell enable a" in capsys.readouterr().out
    enable(store, "a")
    assert state(store) == [("a", 1.0), ("c", 1.0)]


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"enabled": {"a": 1}, "history": []}',
        '{"enabled": [], "history": 3}',
        '{"enabled": [{"name": "../x", "weight": 1}], "history": []}',
        '{"enabled": [{"name": "a"}], "history": []}',
    ],
)
def test_a_damaged_state_is_said_with_the_file(store: Path, text: str) -> None:
    (store / "enabled.json").write_text(text)
    with pytest.raises(HeedfulError, match=r"enabled\.json"):
        list_adapters(store)
    with pytest.raises(HeedfulError, match=r"enabled\.json"):
        enable(store, "a")


def test_unknown_names_come_with_the_near_one(store: Path) -> None:
    with pytest.raises(HeedfulError, match="did you mean alien"):
        enable(store, "alein")
    with pytest.raises(HeedfulError, match="'a' is not enabled; enabled are: none"):
        disable(store, "a")
    with pytest.raises(HeedfulError, match="at least one adapter"):
        enable(store)
    with pytest.raises(HeedfulError, match="--weight"):
        enable(store, "a", weight=0)
    assert "measured at weight 1, not 1.5" in enable(store, "a", weight=1.5).warnings[0]
