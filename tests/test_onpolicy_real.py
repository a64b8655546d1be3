"""SmolLM2's part of the on-policy paper on made-up verdicts: the split, what is measured, claims, the whole path."""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heedful import run as run_module
from heedful.papers import onpolicy, onpolicy_real, onpolicy_real_claims
from heedful.papers import rlaif_verdicts as verdicts
from heedful.papers.onpolicy_real import METHODS, Size, split
from heedful.papers.onpolicy_real_claims import ABSENT, arms_table, claims, judged, real_part
from heedful.papers.results import Claim
from heedful.papers.scratch import ANSWERS
from heedful.run import open_run


@pytest.fixture(autouse=True)
def no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "commit", lambda: None)


def verdict(i: int, chosen: str = "Yes, it is so.", rejected: str = "No.") -> dict[str, Any]:
    return {"prompt_id": i, "prompt": f"Is it so, number {i}?", "chosen": chosen, "rejected": rejected}


# ---- the split


def test_no_prompt_is_in_two_parts_and_long_answers_are_left_to_the_evaluator() -> None:
    rows = [verdict(i, chosen=f"Yes, {k}.") for i in range(30) for k in range(4)]
    rows += [verdict(i, chosen="word " * 80) for i in range(30, 40)]
    rows += [verdict(40, chosen="word " * 101), verdict(41, chosen=" "), verdict(42, rejected="")]
    rows += [{**verdict(43), "prompt": "word " * 61}]
    parts = split(rows, Size(pairs=21, held_out=5, held_answers=1, rounds=1, tokens=8, arms=()), seed=0)
    ids = {name: {row["prompt_id"] for row in part} for name, part in parts.items()}
    assert not ids["held"] & ids["train"] and not (ids["held"] | ids["train"]) & ids["evaluator"]
    assert len(ids["held"]) == 5 and len(parts["train"]) == 21
    counts = Counter(row["prompt_id"] for name in ("held", "train") for row in parts[name])
    assert set(counts.values()) == {1, 2} and sum(count == 1 for count in counts.values()) == 1
    assert ids["evaluator"] >= set(range(30, 40)) and not ids["evaluator"] & {40, 41, 42, 43}
    assert len(parts["evaluator"]) == 4 * (30 - 5 - 11) + 10
    other = split(rows, Size(pairs=21, held_out=5, held_answers=1, rounds=1, tokens=8, arms=()), seed=1)
    assert {row["prompt_id"] for row in other["held"]} != ids["held"]


def test_the_shared_data_is_as_large_as_the_main_tier_needs() -> None:
    folder = verdicts.data_folder()
    if folder is None:
        pytest.skip(ABSENT)
    size = onpolicy_real.SIZES["main"]
    parts = split(verdicts.read(folder / verdicts.VERDICTS), size, 0)
    prompts = {name: {row["prompt"] for row in part} for name, part in parts.items()}
    assert len(parts["train"]) == size.pairs and len(prompts["held"]) == size.held_out
    assert not prompts["held"] & prompts["train"] and len(parts["evaluator"]) > 1000
    assert not prompts["evaluator"] & (prompts["held"] | prompts["train"])
    assert size.pairs % (size.rounds * onpolicy_real.BATCH) == 0, "as many steps on-policy as offline"


# ---- what is measured


def test_held_out_answers_are_put_together_by_prompt_and_judged(tmp_path: Path) -> None:
    def row(prompt: str, before: str, after: str, gain: float) -> str:
        sides = {"before": (before, 0.0), "after": (after, gain)}
        made = {
            side: {"text": text, "score": score, "words": len(text.split()), "notes": ""}
            for side, (text, score) in sides.items()
        }
        return json.dumps({"prompt": prompt, **made}) + "\n"

    texts = [("q1", "One.", "One and two and three.", 1.0), ("q1", "One two.", "One two.", 0.0)]
    texts += [("q2", "Long words are here too.", "Short.", -1.0)]
    (tmp_path / "heldout.jsonl").write_text("".join(row(*text) for text in texts))
    features = verdicts.counted(lambda text: text)(["x"] * 4, ["a", "a b c", "a b c d e f", "a b"])
    evaluator = verdicts.Reward(
        weights=[1.0] + [0.0] * (features.shape[1] - 1),
        scale=[1.0] * features.shape[1],
        centre=[0.0] * features.shape[1],
        basis=np.eye(features.shape[1]).tolist(),
        ridge=1.0,
    )
    found = onpolicy_real.held(tmp_path, vars(evaluator))
    assert [one["prompt"] for one in found] == ["q1", "q2"]
    first, second = found
    assert first["words_before"] == [1, 2] and first["words_after"] == [5, 2]
    assert first["score_after"] == [1.0, 0.0] and second["score_after"] == [-1.0]
    # this evaluator counts words: p is the odds of one more than them
    assert first["p"] == pytest.approx([6 / 8, 0.5]) and second["p"] == pytest.approx([2 / 8])


# ---- claims


def result(gain: float, p: float, longer: float, h: tuple[float, float], prompts: int = 40) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    held = []
    for i in range(prompts):
        noise = rng.normal()
        held.append(
            {
                "prompt": f"q{i:02}",
                "score_before": [noise],
                "score_after": [noise + gain + 0.05 * (i % 3)],
                "words_before": [20],
                "words_after": [20 + longer + i % 5],
                "p": [min(1.0, p + 0.02 * (i % 3))],
            }
        )
    h_w, h_l = h
    told = {"h_w": h_w, "h_l": h_l, "h_w_minus_h_l": h_w - h_l, "judge_score": gain}
    spans = {f"{k}_change": v for k, v in told.items()} | {
        f"{k}_change_low": v - 0.01 for k, v in told.items()
    }
    spans |= {f"{k}_change_high": v + 0.01 for k, v in told.items()}
    more = {"held_out_pairs": 60.0, "kl": 1.0, "preference_accuracy": 0.6, "held": held}
    return {**told, **spans, **more, "answer_length_before": 20.0, "answer_length_after": 20.0 + longer}


def paper() -> dict[str, Any]:
    """AlpacaFarm's figures, and win rates that are not length."""
    return {
        "judges": {},
        "sft": result(-0.01, 0.6, 0.0, (0.0105, 0.0105 + 0.01)),
        "dpo": result(0.135, 0.7, 5.0, (-0.05, -0.088)),
        "ipo": result(0.1, 0.7, 5.0, (-0.02, -0.05)),
        "dpo_online": result(0.3, 0.8, 5.0, (-0.01, -0.05)),
    }


def test_the_papers_own_figures_fulfil_its_claims() -> None:
    found = claims(paper(), "main", True)
    assert len(found) == 11 and all(claim.holds for claim in found), [c.claim for c in found if not c.holds]
    lead = found[0]
    assert lead.measured == pytest.approx(0.145) and lead.interval is not None
    assert "interval over 40 prompts" in lead.note and "60 pairs" in found[-1].note


def test_reversed_results_do_not_hold_and_what_was_not_run_says_so() -> None:
    done = paper()
    done["dpo"], done["sft"] = done["sft"], done["dpo"]
    found = claims(done, "main", True)

    def holds(text: str) -> list[bool | None]:
        return [claim.holds for claim in found if text in claim.claim]

    assert holds("DPO ends higher than Pref-FT") == [False] and holds("DPO separates") == [False]
    assert holds("DPO lowers") == [False] and holds("Pref-FT raises") == [False]
    del done["dpo_online"]
    left = [claim for claim in claims(done, "main", True) if claim.measured is None]
    assert len(left) == 3 and all(claim.note == "not run yet" for claim in left)
    assert all(c.measured is None and "smoke" in c.note for c in claims(paper(), "smoke", True))


def test_a_gain_that_is_length_alone_does_not_hold_at_equal_length() -> None:
    rng = np.random.default_rng(1)
    done = paper()
    for row in done["dpo"]["held"]:
        longer = float(rng.normal(8, 10))
        row["words_after"] = [20 + longer]
        row["p"] = [1 / (1 + float(np.exp(-longer / 8)))]
    found = {claim.claim: claim for claim in claims(done, "main", True)}
    claim = next(c for text, c in found.items() if "evaluator DPO beats the start" in text)
    plain = np.mean([row["p"] for row in done["dpo"]["held"]])
    assert plain > 0.65 and claim.measured == pytest.approx(0.5, abs=0.05) and not claim.holds
    assert judged(done["dpo"], "score").wins.shape == (40, 1)
    table = arms_table(done)
    assert [row[0] for row in table.rows] == [name for name, _ in METHODS.values()]


def test_without_the_data_every_claim_is_not_run_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "data_folder", lambda: None)
    with open_run(tmp_path / "run", {}, seed=0) as run:
        part = real_part("main", [0, 1], run)
    assert [claim.note for claim in part.claims] == [ABSENT] * 11 and not part.tables
    assert all(isinstance(claim, Claim) and claim.holds is None for claim in part.claims)
    assert ABSENT in part.notes[0]


# ---- end to end


def test_the_whole_path_on_made_up_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "data"
    (shared / "preferences").mkdir(parents=True)
    rows = [verdict(i, ANSWERS[i % 4], ANSWERS[(i + k) % 4]) for i in range(40) for k in (1, 2)]
    with gzip.open(shared / verdicts.VERDICTS, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    monkeypatch.setattr(verdicts, "data_folder", lambda: shared)
    size = Size(pairs=24, held_out=3, held_answers=1, rounds=1, tokens=8, arms=("dpo_online",))
    monkeypatch.setitem(onpolicy_real.SIZES, "smoke", size)
    with open_run(tmp_path / "run", {}, seed=0) as run:
        late = real_part("smoke", [0], run, time.monotonic() - 1)
        assert not late.tables and not run.path("real").exists()
        part = real_part("smoke", [0], run)
        result = json.loads(run.path("real/seed0/dpo_online.json").read_text())
        assert result["method"] == "dpo" and result["rounds"] == 1 and len(result["held"]) == 3
        assert result["held_out_pairs"] == 6 and len(result["held"][0]["p"]) == 1
        judges = json.loads(run.path("real/seed0/judges.json").read_text())
        assert judges["prompts"] == {"held": 3, "train": 12, "evaluator": 25}
        assert set(judges["accuracy"]) == {"the reward model", "the evaluator", "the longer answer"}
        assert [len(table.rows) for table in part.tables] == [1, 3]
        assert part.notes == ["Real preferences: 1 of 1 runs are done, one seed."]
        monkeypatch.setattr(onpolicy_real, "finished", lambda *a: pytest.fail("run again"))
        assert real_part("smoke", [0], run) == part


def test_the_parts_take_the_seeds_that_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[str, list[int]] = {}

    def part(name: str) -> Any:
        def make(tier: Any, seeds: Any, run: Any, until: Any = None) -> Any:
            taken[name] = list(seeds)
            return onpolicy_real_claims.Part()

        return make

    for name in ("bandit_part", "lengths_part", "gold_part", "real_part"):
        monkeypatch.setattr(onpolicy, name, part(name))
    results = onpolicy.run("main", range(5), None)  # type: ignore[arg-type]
    assert results.paper == "onpolicy" and results.claims  # those of the theory
    assert taken["bandit_part"] == [0, 1, 2, 3, 4] and taken["lengths_part"] == taken["gold_part"] == [
        0,
        1,
        2,
    ]
