"""`heedful serve`: options that a page does not have, and the report after the page was closed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from serve_run import fit_run

from heedful.cli import main
from heedful.recipes.personalize_pairs import Label
from heedful.recipes.personalize_store import open_person


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit_run(tmp_path_factory.mktemp("fitted"))


def test_options_of_the_other_page_are_refused(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # the port, which is refused later, keeps a failure of this test from serving for ever
    assert main(["serve", str(run), "--out", "elsewhere", "--port", "-1"]) == 1
    assert "--out has no meaning here" in capsys.readouterr().err
    monkeypatch.setattr("heedful.recipes.correct_models.pair_folder", lambda run: run)
    assert main(["serve", str(run), "--criterion", "random", "--port", "-1"]) == 1
    assert "is a run of `heedful correct`" in capsys.readouterr().err


def test_the_report_has_the_clicks_when_the_server_was_stopped(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def click_and_stop(*_: Any, **__: Any) -> None:
        person = open_person(run)
        person.take([Label(row["id"], 1.0) for row in person.ask(2)])
        raise KeyboardInterrupt

    monkeypatch.setattr("uvicorn.Server.run", click_and_stop)
    assert main(["serve", str(run), "--port", "0"]) == 0
    assert "stopped" in capsys.readouterr().out
    assert "2 labels leave" in (run / "report.html").read_text()
