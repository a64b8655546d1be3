"""`heedful tell list | enable | disable | compose | revert`, from their arguments to what they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tyro
from tell_adapters import four

from heedful.errors import HeedfulError
from heedful.recipes import tell_commands


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return four(tmp_path)


def run(name: str, *arguments: str) -> int:
    options, command = tell_commands.COMMANDS[name]
    chosen: Any = tyro.cli(options, args=list(arguments))
    return command(chosen)


def test_the_commands_work_from_their_arguments(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ("--store", str(store))
    assert run("enable", "a", "b", *at) == 0
    assert f"{store / 'current'} is now a + b; try it" in capsys.readouterr().out
    assert run("compose", "a", "c", "--out", "ac", "--weights", "0.5", "-2", *at) == 0
    assert "composed ac = 0.5 x a + -2 x c" in capsys.readouterr().out
    assert run("list", *at) == 0
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines[0].split()) == "name in use S_in S_near S_general minutes base sentence"
    assert [line.split()[0] for line in lines[1:]] == ["a", "ac", "alien", "b", "c"]
    assert lines[1][lines[0].index("S_near") :].startswith("0.05 (0.01 to 0.09)")
    assert lines[1].split()[-4:] == ["7.2", "start", "Say", "a"]
    assert lines[2].endswith("0.5 x a + -2 x c")
    assert run("list", "--json", *at) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows["current_is_up_to_date"] is True
    assert rows["adapters"][0]["s_near"] == {
        "value": 0.05,
        "low": pytest.approx(0.01),
        "high": pytest.approx(0.09),
    }
    assert [row["enabled"] for row in rows["adapters"]] == [True, False, False, True, False]
    assert rows["adapters"][0]["leak"] == 0.05 and rows["adapters"][1]["leak"] is None
    assert run("disable", "a", "--json", *at) == 0
    assert json.loads(capsys.readouterr().out)["enabled"] == [["b", 1.0]]
    assert run("revert", *at) == 0
    assert "reverted: disable a" in capsys.readouterr().out
    with pytest.raises(HeedfulError, match="leaks"):
        run("enable", "c", "--max-leak", "0.01", *at)


def test_joint_training_goes_to_its_own_function(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("heedful.recipes.tell_joint.main", lambda options: seen.append(options) or 7)
    assert run("compose", "a", "b", "--out", "ab", "--joint", "--store", str(store)) == 7
    assert [(options.names, options.out) for options in seen] == [(("a", "b"), "ab")]
    assert not (store / "ab").exists(), "nothing is added up"
    with pytest.raises(HeedfulError, match="--weights has no meaning with --joint"):
        run("compose", "a", "--out", "x", "--joint", "--weights", "2", "--store", str(store))


def test_an_empty_store_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--store", str(tmp_path / "none")) == 0
    assert "no adapters in" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()
