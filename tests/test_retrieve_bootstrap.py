"""Few-shot prompts for writers of queries: only what was worth something is shown, the best on training questions wins;
pairs between neighbouring levels, the draw of the next hop; a beginning that prompts share is encoded once."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from heedful.data.hops import Question
from heedful.data.passages import Passage
from heedful.errors import NothingToLearn
from heedful.judges.search import Hit
from heedful.policies import prefix, sampling
from heedful.policies.language import LanguagePolicy
from heedful.recipes.retrieve_bootstrap import Search, Trace, bootstrap, candidates, successes
from heedful.recipes.retrieve_pipeline import Steps, Turn, gold_recall
from heedful.recipes.retrieve_train_pairs import Tried, choose, draw_next, echoes
from heedful.recipes.retrieve_train_sample import Trial, try_queries
from heedful.recipes.retrieve_writers import case_for, few_shot_prompt, prompt_for
from heedful.run import open_run

QUESTIONS = [Question(f"q{i}", f"where is item{i}", (f"Item{i}", f"Place{i}")) for i in range(12)]


class Titles:
    """Finds the passages whose titles stand in the query; keeps all queries."""

    fingerprint = "titles"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        self.asked += queries
        return [
            [Hit(Passage(word, word, f"about {word}"), 1.0) for word in query.split() if word[0].isupper()][
                :k
            ]
            for query in queries
        ]


# ---- pairs and the next hop, by hand


def test_pairs_join_neighbouring_levels_under_the_prompt_without_demonstrations() -> None:
    tried = [
        Tried("a", "PROMPT A", ["top", "mid", "mid two", "low"], [1.0, 0.5, 0.5, 0.0], 1),
        Tried("b", "PROMPT B", ["one", "two", "three", "four"], [0.5, 0.5, 0.5, 0.5], 0),
        Tried("c", "PROMPT C", ["", "[1] Red: red leads", "same", "same"], [1.0, 1.0, 0.5, 0.5], 2),
        Tried("d", "PROMPT D", ["x", "x", "y", "z"], [0.0, 0.0, math.nan, 1.0], 3),
    ]
    chosen = choose(tried, "adjacent")
    told = [(row["input"], row["chosen"], row["rejected"]) for row in chosen.pairs]
    assert told == [
        ("PROMPT A", "top", "mid"),
        ("PROMPT A", "top", "mid two"),
        ("PROMPT A", "mid", "low"),
        ("PROMPT A", "mid two", "low"),
        ("PROMPT D", "z", "x"),
    ]
    assert [(row["input"], row["output"]) for row in chosen.targets] == [
        ("PROMPT A", "top"),
        ("PROMPT D", "z"),
    ]
    counts = chosen.counts
    assert (counts["prompts"], counts["informative"], counts["queries"]) == (4, 2, 16)
    assert (counts["blank"], counts["echoes"], counts["repeated"], counts["unknown"]) == (1, 1, 2, 1)
    assert (counts["complete"], counts["pairs"], counts["targets"]) == (4, 5, 2)
    every = [(row["chosen"], row["rejected"]) for row in choose(tried[:1], "all").pairs]
    assert len(every) == 5 and ("top", "low") in every
    assert [(r["chosen"], r["rejected"]) for r in choose(tried[:1], "best_worst").pairs] == [("top", "low")]
    assert choose([], "adjacent").pairs == []


def test_queries_that_repeat_the_prompt_are_known() -> None:
    assert all(map(echoes, ["[2] Copper: copper is", "x Question: y", "(nothing yet)", "Found so far: it"]))
    assert not any(map(echoes, ["who asked the question", "river [near] the town", "found so far"]))


def test_the_next_hop_is_drawn_by_level_without_complete_queries() -> None:
    # levels .25 and .5 of the incomplete ones weigh .25 and .5 + .5; two queries share the lower one
    draws = Counter(draw_next([1.0, 0.25, 0.5, 0.25], random.Random(i)) for i in range(4000))
    assert set(draws) == {1, 2, 3}
    assert abs(draws[2] / 4000 - 0.8) < 0.02 and abs(draws[1] / 4000 - 0.1) < 0.02
    assert draw_next([1.0, 1.0], random.Random(0)) is None
    assert draw_next([math.nan, math.nan], random.Random(0)) is None
    assert {draw_next([0.0, 0.0], random.Random(i)) for i in range(20)} == {0, 1}


# ---- the bootstrap


def test_only_queries_that_raise_the_reward_become_demonstrations() -> None:
    def hits(*titles: str) -> list[Hit]:
        return [Hit(Passage(t, t, t), 1.0) for t in titles]

    good, late, idle = (Turn(QUESTIONS[i]) for i in range(3))
    good = good.after("Item0", hits("Item0")).after("Place0", hits("Place0"))
    late = late.after("no", hits()).after("Item1", hits("Item1"))
    idle = idle.after("Item2", hits("Item2")).after("Item2 again", hits("Item2"))
    empty = Turn(QUESTIONS[3]).after("[1] Item3", hits("Item3")).after("", hits("Place3"))
    found = successes([good, late, idle, empty], gold_recall, 60)
    assert [(t.number, t.hop) for t in found] == [(0, 1), (0, 2), (1, 2), (2, 1)]
    assert found[1].case.endswith("Search query: Place0") and "[1] Item0: Item0" in found[1].case
    assert "Place0" not in found[0].case  # what a later hop found is not shown to an earlier one
    assert successes([good], lambda turns: [math.nan] * len(turns), 60) == []


def test_candidates_show_the_hops_in_turn() -> None:
    traces = [Trace(i, 1, f"first{i}") for i in range(8)] + [Trace(0, 2, "second0"), Trace(1, 2, "second1")]
    made = candidates(traces, Search(demos=3, candidates=20), seed=1)
    assert made[0] == ("first0", "second0", "first1")
    assert len(made) == len(set(made)) and {len(demos) for demos in made} == {1, 2, 3}
    assert all(any("second" in d for d in demos) for demos in made if len(demos) > 1)
    assert made == candidates(traces, Search(demos=3, candidates=20), seed=1)
    assert made != candidates(traces, Search(demos=3, candidates=20), seed=2)
    assert candidates(traces, Search(demos=3, candidates=0), seed=1) == [made[0]]


def scripted(demos: Sequence[str], name: str) -> Any:
    """Without demonstrations it knows the first three items; with that of item1 all, with others none."""

    def write(turns: Sequence[Turn]) -> list[str]:
        numbers = [int(turn.question.id[1:]) for turn in turns]
        knows = any("item1\n" in demo for demo in demos)
        return [f"Item{n}" if knows or (not demos and n < 3) else "none" for n in numbers]

    return write


def test_random_search_takes_the_prompt_that_is_best_on_its_questions(tmp_path: Path) -> None:
    retriever = Titles()
    search = Search(demos=1, candidates=12)

    def find() -> Any:
        with open_run(tmp_path / "run", {}, seed=3) as run:
            return bootstrap(
                QUESTIONS[:5], QUESTIONS[5:9], scripted, scripted, retriever, gold_recall, search, 2, run
            )

    prompts = find()
    assert prompts[0].demos == () and prompts[0].score == 0.0
    assert "item1\n" in prompts[1].demos[0] and prompts[1].score == 0.5
    assert len(prompts) == 3 and prompts[2].score == 0.0
    shown = {demo for prompt in prompts for demo in prompt.demos}
    assert all(any(f"item{i}\n" in demo for i in range(3)) for demo in shown)
    asked = list(retriever.asked)
    assert {"Item5", "Item8"} <= set(asked) and not {"Item9", "Item10", "Item11"} & set(asked)
    assert find() == prompts and retriever.asked == asked  # everything was kept

    def hopeless(demos: Sequence[str], name: str) -> Any:
        return lambda turns: ["none"] * len(turns)

    with (
        open_run(tmp_path / "none", {}, seed=3) as run,
        pytest.raises(NothingToLearn, match="--bootstrap-rounds"),
    ):
        bootstrap(QUESTIONS[:5], QUESTIONS[5:9], hopeless, hopeless, retriever, gold_recall, search, 2, run)
    with open_run(tmp_path / "again", {}, seed=3) as run:
        again = Search(demos=1, candidates=2, rounds=1)
        found = bootstrap(
            QUESTIONS[:5], QUESTIONS[5:9], hopeless, scripted, retriever, gold_recall, again, 1, run
        )
        assert found[1].demos and run.path("bootstrap/traces1.json").exists()


def test_chat_models_see_demonstrations_as_turns() -> None:
    policy = LanguagePolicy(tiny.model(), tiny.tokenizer(), device="cpu", precision="fp32")
    hit = Hit(Passage("a", "Item1", "about Search query: Item1"), 1.0)
    demos = [case_for("where is it", [], 60, "Item0"), case_for("and this", [hit], 60, "Place1")]
    turn = Turn(QUESTIONS[2])
    messages = few_shot_prompt(policy, turn, passage_words=60, demos=demos)
    assert not isinstance(messages, str)
    assert [m["role"] for m in messages] == ["user", "assistant"] * 2 + ["user"]
    assert [m["content"] for m in messages[1::2]] == ["Item0", "Place1"]
    last = prompt_for(turn, passage_words=60)
    assert messages[0]["content"] == prompt_for(Turn(Question("x", "where is it")), passage_words=60)
    assert last.endswith(messages[-1]["content"]) and len(policy.encoder.prompt(messages)) > 50
    assert few_shot_prompt(policy, turn, passage_words=60) == last
    plain = LanguagePolicy(tiny.model(), tiny.tokenizer(chat=False), device="cpu", precision="fp32")
    told = few_shot_prompt(plain, turn, passage_words=60, demos=demos)
    assert told == prompt_for(turn, passage_words=60, demos=demos) and demos[0] in told


# ---- trying queries


def test_each_hop_tries_every_prompt_and_goes_on_from_what_was_drawn(tmp_path: Path) -> None:
    def draw(turns: Sequence[Turn], demos: Sequence[str], n: int, name: str) -> list[list[str]]:
        def queries(turn: Turn) -> list[str]:
            i = turn.question.id[1:]
            if turn.question.id == "q0":
                return [f"Item{i} Place{i}"] * n  # complete at once, whatever the prompt
            if not demos:
                return ["none"] * n
            return [f"Place{i}" if turn.context else f"Item{i}"] * n

        return [queries(turn) for turn in turns]

    retriever = Titles()
    trial = Trial(prompts=[(), ("a demonstration",)], steps=Steps(2))
    with open_run(tmp_path / "run", {}, seed=0) as run:
        harvest = try_queries(QUESTIONS[:6], draw, retriever, gold_recall, trial, run, "tried")
        count = len(retriever.asked)
        again = try_queries(QUESTIONS[:6], draw, retriever, gold_recall, trial, run, "tried")
    assert again.hops == harvest.hops and len(retriever.asked) == count
    first, second = harvest.hops
    assert [row.scores for row in first] == [[1.0, 1.0], *[[0.0, 0.5]] * 5]
    assert first[0].drawn is None and all(row.drawn == 1 for row in first[1:])
    assert [row.id for row in second] == ["q1", "q2", "q3", "q4", "q5"]
    assert all(row.scores == [0.5, 1.0] and row.drawn == 0 for row in second)
    assert all(
        "a demonstration" not in row.prompt and "Search query:" in row.prompt for row in first + second
    )
    assert "[1] Item1: about Item1" in second[0].prompt
    assert harvest.cost == {"queries": 22, "searches": 21}


def test_tried_queries_skip_what_their_turn_has_found(tmp_path: Path) -> None:
    ranked = [Hit(Passage(name, name, f"about {name}"), 9.0 - i) for i, name in enumerate("ABCD")]

    class Same:
        fingerprint = "same"

        def __call__(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
            return [ranked[:k] for _ in queries]

    trial = Trial([()], samples=2, steps=Steps(2, 1, repeats="skip"))
    questions = [Question("q", "which?", ("B", "none of these"))]
    with open_run(tmp_path / "run", {}, seed=0) as run:
        harvest = try_queries(
            questions,
            lambda turns, _, n, __: [["which"] * n] * len(turns),
            Same(),
            gold_recall,
            trial,
            run,
            "t",
        )
    assert [rows[0].scores for rows in harvest.hops] == [[0.0, 0.0], [0.5, 0.5]]
    assert "[1] A: about A" in harvest.hops[1][0].prompt


# ---- a shared beginning


def test_a_shared_beginning_is_encoded_once_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = LanguagePolicy(tiny.model(), tiny.tokenizer(), device="cpu", precision="fp32")
    start = "Name three colours of the rainbow. " * 12
    prompts = [start + end for end in ("What is red?", "Boil an egg!", "Paris", "Paris")]
    ids = [policy.encoder.prompt(p) for p in prompts]
    shared = prefix.shared_length(ids)
    assert 96 <= shared < min(map(len, ids)) and all(i[:shared] == ids[0][:shared] for i in ids)
    assert len({i[shared] for i in ids}) > 1
    assert prefix.shared_length(ids[:1]) == 0 and prefix.shared_length([i[shared:] for i in ids]) == 0
    assert prefix.shared_length([ids[2], ids[2]]) == len(ids[2]) - 1

    read: list[int] = []
    handle = policy.decoder.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].numel()), with_kwargs=True
    )

    kept: list[int] = []

    def decode(prefill: sampling.Prefill, *args: Any) -> Any:
        kept.append(prefill.keys[0].shape[2])
        return real(prefill, *args)

    real = sampling.Decode
    monkeypatch.setattr(sampling, "Decode", decode)

    def draw() -> Any:
        read.clear()
        how: dict[str, Any] = {"temperature": 0.8, "max_new_tokens": 12, "max_rows": 4}
        return policy.sample(prompts, 2, generator=torch.Generator().manual_seed(1), **how).outputs

    once = draw()
    spared = sum(read)
    monkeypatch.setattr(sampling, "shared_length", lambda prompts: 0)
    plain = draw()
    handle.remove()
    assert [o.ids for o in once] == [o.ids for o in plain] and len({o.ids for o in once}) > 4
    assert all(abs(a.logp - b.logp) < 1e-3 for a, b in zip(once, plain, strict=True))
    assert sum(read) - spared == shared * (len(prompts) - 1)
    halves = len(kept) // 2
    assert kept[:halves] == [k - shared for k in kept[halves:]], "and kept once, not with each prompt"
