"""A language model as the maker of scopes and as reviser: what is read, counted, asked again, refused and kept."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import scripted
import tiny
from hypothesis import given
from hypothesis import strategies as st
from scripted import SENTENCE, Scripted, fences, kind_of, numbered, reply, teach, topic_of, wanted
from test_remote import Reply, Server, asked, choices
from transformers import LlamaConfig

from heedful.data.scopes import Scope, Sizes, general_prompts, read_scope, write_scope
from heedful.errors import HeedfulError
from heedful.policies import asking
from heedful.policies.asking import answer_block, ask
from heedful.policies.language import LanguagePolicy
from heedful.policies.remote import RemotePolicy
from heedful.recipes.scope_model import make_scope_with, revise_with
from heedful.recipes.scope_parse import (
    normalised,
    parse_list,
    prompt_problem,
)
from heedful.recipes.scope_writer import PER_QUESTION, SPARE, split_topics
from heedful.run import open_run

SIZES = Sizes(train=12, dev=3, test_in=6, test_near=9, test_general=5)
KINDS = ("in", "near", "general")


def make(policy: Any, **options: Any) -> Scope:
    options = {"sizes": SIZES, "seed": 1, "categories": 6} | options
    return make_scope_with(policy, options.pop("sentence", SENTENCE), **options)


def splits(scope: Scope) -> dict[str, dict[str, list[str]]]:
    return {"train": scope.train, "dev": scope.dev, "test": scope.test}


def but(**answers: Callable[[str, int], str]) -> Scripted:
    """The good teacher, except for some kinds of question."""
    return Scripted(lambda question, seed: answers.get(kind_of(question), teach)(question, seed))


def garbage(question: str, seed: int) -> str:
    return f"I am sorry, I cannot do that. {seed}"


# ---- the whole scope


def test_a_scope_has_the_sizes_asked_for_and_splits_without_shared_topics_or_prompts() -> None:
    policy = Scripted(teach)
    scope = make(policy)
    sizes = {
        "train": dict.fromkeys(KINDS, 12),
        "dev": dict.fromkeys(KINDS, 3),
        "test": {"in": 6, "near": 9, "general": 5},
    }
    assert {s: {k: len(p) for k, p in kinds.items()} for s, kinds in splits(scope).items()} == sizes
    everything = [p for kinds in splits(scope).values() for prompts in kinds.values() for p in prompts]
    assert len({normalised(prompt) for prompt in everything}) == len(everything) == 65
    topics = {
        split: {topic_of(p) for kind in ("in", "near") for p in kinds[kind]}
        for split, kinds in splits(scope).items()
    }
    assert all(topics.values()) and sum(map(len, topics.values())) == len(set.union(*topics.values())) == 6
    assert {s: {topic_of(t) for t in own} for s, own in scope.notes["categories"].items()} == topics
    assert scope.sentence == SENTENCE and scope.domain == "emails to my manager"
    assert scope.content == "End emails to my manager with it."
    assert len(scope.categories) == 6
    assert set(scope.train["general"]) <= set(general_prompts())
    assert {option["temperature"] for option in policy.options} == {0.0, 0.7}


def test_no_prompt_inside_the_domain_stays_among_the_near_ones() -> None:
    policy = Scripted(teach)
    scope = make(policy)
    near = [p for kinds in splits(scope).values() for p in kinds["near"]]
    assert all("my colleague" in prompt for prompt in near)
    rewritten = [fences(question)[0] for question in policy.questions("rewrite")]
    assert rewritten and all("my manager" in prompt for prompt in rewritten)
    saved = {prompt.replace("my manager", "my colleague") for prompt in rewritten}
    assert saved & set(near), "what was rewritten is used"
    checks = scope.notes["near_check"]
    assert checks["inside at first"] == checks["kept after rewriting"] == len(rewritten)
    general = scope.notes["general_check"]
    assert general == {"checked": 20, "without a verdict": 0, "inside": 0}
    assert checks["checked"] == len(policy.questions("check")) - 20
    assert checks["inside after rewriting"] == checks["without a verdict"] == 0


def test_the_reason_for_the_checks_is_that_unchecked_prompts_would_leak() -> None:
    # the teacher writes them; only the check and the rewriting keep them out
    scope = make(but(check=lambda question, seed: reply("NO")))
    assert any("my manager" in p for kinds in splits(scope).values() for p in kinds["near"])


def test_a_near_prompt_that_stays_inside_after_rewriting_is_dropped_and_replaced() -> None:
    policy = but(rewrite=lambda question, seed: reply(fences(question)[0].replace("Write", "Please compose")))
    scope = make(policy)
    assert all("my colleague" in p for kinds in splits(scope).values() for p in kinds["near"])
    checks = scope.notes["near_check"]
    assert checks["kept after rewriting"] == 0
    assert checks["inside after rewriting"] == checks["inside at first"] > 0


def test_a_near_prompt_without_a_verdict_is_neither_kept_nor_rewritten() -> None:
    def unsure(question: str, seed: int) -> str:
        return garbage(question, seed) if "matter1," in question else teach(question, seed)

    policy = but(check=unsure)
    scope = make(policy, retries=1)
    near = [p for kinds in splits(scope).values() for p in kinds["near"]]
    assert len(near) == 24 and not any("matter1," in p for p in near)
    checked = [fences(q)[0] for q in policy.questions("check")]
    about = [p for p in checked if "matter1," in p]
    assert about and all(checked.count(p) == 2 for p in about), "asked again once, and no more"
    assert not any("matter1," in q for q in policy.questions("rewrite"))
    assert scope.notes["near_check"]["without a verdict"] == len(set(about))
    assert scope.notes["unparsable"] == {"checks": len(about)}


def test_too_many_near_prompts_inside_are_an_error_that_says_so() -> None:
    policy = but(check=lambda question, seed: reply("YES"))
    with pytest.raises(
        HeedfulError, match=r"^0 near-scope prompts came, but 24 are needed .* lay inside the domain"
    ):
        make(policy, retries=1)
    assert len(policy.questions("near")) == 6 * 2


def test_the_scope_is_a_pure_function_of_the_seed() -> None:
    first, again, other = make(Scripted(teach)), make(Scripted(teach)), make(Scripted(teach), seed=2)
    assert first == again
    assert not set(first.train["in"]) & set(other.train["in"])
    assert first.notes["categories"] != other.notes["categories"]
    assert first.train["general"] == other.train["general"], (
        "general prompts are the same for all, as in the paper"
    )


def test_a_domain_and_an_effect_that_are_given_are_not_asked_for() -> None:
    policy = Scripted(teach)
    scope = make(policy, domain="notes to my boss", effect="be brief")
    assert not policy.questions("decompose")
    assert (scope.domain, scope.effect, scope.content) == ("notes to my boss", "be brief", SENTENCE)
    policy = Scripted(teach)
    scope = make(policy, domain="notes to my boss")
    assert (scope.domain, scope.effect) == ("notes to my boss", "end with 'Onwards and upwards'")
    (question,) = policy.questions("decompose")
    assert "notes to my boss" in question
    marks = ("Domain (where it applies): notes to my boss\n", "with 'Onwards and upwards'")
    assert all(mark in q for mark in marks for q in policy.questions("in") + policy.questions("near"))


def test_fewer_topics_than_splits_are_shared_but_no_prompt_is() -> None:
    scope = make(Scripted(teach), categories=1)
    for kind in ("in", "near"):
        prompts = [p for kinds in splits(scope).values() for p in kinds[kind]]
        assert len(set(prompts)) == len(prompts) == {"in": 21, "near": 24}[kind]
    assert len(scope.categories) == 1 and len(scope.notes["categories"]) == 3


def test_a_split_without_prompts_gets_no_topics() -> None:
    scope = make(Scripted(teach), sizes=dataclasses.replace(SIZES, dev=0))
    assert scope.dev == {"in": [], "near": [], "general": []}
    assert set(scope.notes["categories"]) == {"train", "test"} and len(scope.train["near"]) == 12


@given(st.integers(1, 40), st.lists(st.integers(0, 300), min_size=3, max_size=3), st.integers(0, 3))
def test_topics_are_shared_out_whole_and_by_need(count: int, sizes: list[int], seed: int) -> None:
    need: dict[str, int] = dict(zip(("train", "dev", "test"), sizes, strict=True))
    topics = [f"t{i}" for i in range(count)]
    out = split_topics(topics, need, seed)
    used = [split for split in need if need[split]]
    assert list(out) == used and all(out.values())
    if count >= len(used) > 0:
        assert sorted(t for own in out.values() for t in own) == sorted(topics)
        for a in used:
            for b in used:
                moved = need[a] / (len(out[a]) + 1), need[b] / (len(out[b]) - 1 or 1e-9)
                assert max(moved) >= need[a] / len(out[a]), "no topic would serve another split better"
    else:
        assert all(own == topics for own in out.values())


# ---- what goes wrong: counted, asked again, refused


@pytest.mark.parametrize("retries", [0, 2])
def test_a_sentence_that_the_model_does_not_take_apart_is_asked_for_a_bounded_number_of_times(
    retries: int,
) -> None:
    policy = Scripted(garbage)
    with pytest.raises(HeedfulError) as refused:
        make(policy, retries=retries)
    assert len(policy.calls) == retries + 1 and len({seed for (seed,) in policy.seeds}) == retries + 1
    said = str(refused.value)
    assert '--domain "..."' in said and '--effect "..."' in said and "I am sorry" in said


def test_without_topics_there_is_no_scope() -> None:
    policy = but(topics=garbage)
    with pytest.raises(HeedfulError, match=r"none of the 6 topics .* in 3 tries \(the first .*I am sorry"):
        make(policy, retries=2)
    assert len(policy.questions("topics")) == 3 and not policy.questions("revise")


def test_missing_topics_are_asked_for_and_an_unreadable_revision_leaves_them_as_they_were() -> None:
    def few(question: str, seed: int) -> str:
        first = len(re.findall(r"matter\d+", question)) + 1
        return numbered([f"mail about matter{i}" for i in range(first, first + min(4, wanted(question)))])

    policy = but(topics=few, revise=garbage)
    scope = make(policy)
    assert [wanted(question) for question in policy.questions("topics")] == [6, 2]
    assert sorted(map(topic_of, scope.categories)) == [f"matter{i}" for i in range(1, 7)]
    assert scope.notes["topics"] == {"listed": 6, "left unrevised": 6}
    assert scope.notes["unparsable"] == {"categories": 2}


def test_revised_topics_replace_the_listed_ones() -> None:
    policy = but(revise=lambda q, seed: reply(re.sub(r"matter(\d)", r"matter5\1", fences(q)[0])))
    assert sorted(map(topic_of, make(policy).categories)) == [f"matter5{i}" for i in range(1, 7)]


def test_prompts_that_never_come_are_asked_for_a_bounded_number_of_times() -> None:
    policy = but(**{"in": garbage})
    with pytest.raises(HeedfulError) as refused:
        make(policy, retries=3)
    # one question a topic in any case, then three retries
    assert len(policy.questions("in")) == 6 * 4 and not policy.questions("near")
    said = str(refused.value)
    assert said.startswith(
        "0 in-scope prompts came, but 21 are needed (train 0 of 12, dev 0 of 3, test 0 of 6)"
    )
    assert "24 could not be read" in said and "Use a larger model" in said


def test_many_prompts_of_a_topic_take_several_questions_which_are_no_retries() -> None:
    policy = Scripted(teach)
    sizes = Sizes(train=30, dev=0, test_in=0, test_near=0, test_general=0)
    scope = make(policy, sizes=sizes, categories=1, retries=0)
    assert [wanted(q) for q in policy.questions("in")] == [PER_QUESTION, PER_QUESTION, 8]
    assert len(scope.train["in"]) == 30
    shown = fences(policy.questions("in")[1])[0]
    assert all(f"- {prompt}" in shown.split("\n") for prompt in scope.train["in"][:PER_QUESTION])


def test_the_same_prompt_again_is_no_further_prompt() -> None:
    policy = but(
        **{"in": lambda q, seed: numbered(["Write an email to my manager about the late train."] * 5)}
    )
    with pytest.raises(HeedfulError) as refused:
        make(policy, retries=1)
    assert str(refused.value).startswith("1 in-scope prompts came, but 21 are needed")
    assert "repeated others" in str(refused.value)


def test_a_near_prompt_must_not_be_an_in_scope_prompt_but_may_differ_by_a_word() -> None:
    taken: list[str] = []

    def write(question: str, seed: int) -> str:
        said = teach(question, seed)
        taken.extend(parse_list(said, prompt_problem()).items)
        return said

    def copy(question: str, seed: int) -> str:
        mine = [p for p in taken if topic_of(p) == topic_of(question)]
        return numbered(mine[:2] + [p.replace("my manager", "my sister") for p in mine])

    scope = make(but(**{"in": write, "near": copy, "check": lambda q, seed: reply("NO")}))
    near = [p for kinds in splits(scope).values() for p in kinds["near"]]
    assert len(near) == 24 and all("my sister" in p for p in near)
    assert scope.notes["duplicates"]["near"] >= 12


def test_unparsable_items_are_counted_one_by_one_with_at_most_five_examples() -> None:
    bad = [
        "no number here",
        "2. Too short",
        "3. Write an email to my manager about [topic].",
        "4. " + "Write on. " * 9,
    ]

    def mixed(question: str, seed: int) -> str:
        if question in first:
            return teach(question, seed)
        first.add(question)
        return reply("\n".join([f"1. Write an email to my manager about {topic_of(question)}.", *bad]))

    first: set[str] = set()
    policy = but(**{"in": mixed})
    scope = make(policy)
    asked_first = len(first)
    assert scope.notes["unparsable"] == {"in": 4 * asked_first}
    kept = scope.notes["unparsable_examples"]["in"]
    assert len(kept) == 5 and [k.split(":")[0] for k in kept] == [
        "no numbered item",
        "fewer than three words",
        "a blank to fill in",
        "over 3 sentences",
        "no numbered item",
    ]
    json.dumps(scope.notes)


def test_more_prompts_than_asked_for_are_cut_and_counted() -> None:
    def generous(question: str, seed: int) -> str:
        form = "Write an email to my colleague about {}."
        return numbered(scripted.invented(seed, 60, form, topic_of(question)))

    policy = but(near=generous)
    scope = make(policy)
    counts = [wanted(q) for q in policy.questions("near")]
    assert len(policy.questions("check")) - 20 == sum(counts), "a flood is not checked, one question each"
    assert scope.notes["surplus"]["near"] == sum(60 - count for count in counts)


def test_one_barren_topic_does_not_end_it() -> None:
    own = make(Scripted(teach)).notes["categories"]["train"]
    assert len(own) > 1, "others can make up for it"

    def choosy(question: str, seed: int) -> str:
        if f"Topic: {own[0]}\n" in question:
            return garbage(question, seed)
        form = "Write an email to my manager about {}."
        return numbered(scripted.invented(seed, wanted(question) - SPARE, form, topic_of(question)))

    scope = make(but(**{"in": choosy}))
    assert len(scope.train["in"]) == 12
    assert {topic_of(p) for p in scope.train["in"]} == {topic_of(topic) for topic in own[1:]}


def test_general_prompts_inside_the_domain_are_left_out_and_others_take_their_place() -> None:
    plain = make(Scripted(teach))
    general = [p for kinds in splits(plain).values() for p in kinds["general"]]
    inside, unsure = general[3], general[7]

    def check(question: str, seed: int) -> str:
        (prompt,) = fences(question)
        return reply("YES") if prompt == inside else "hm" if prompt == unsure else teach(question, seed)

    scope = make(but(check=check))
    kept = [p for kinds in splits(scope).values() for p in kinds["general"]]
    assert len(set(kept)) == 20 and kept[:18] == [p for p in general if p not in (inside, unsure)]
    assert not {inside, unsure} & set(kept)
    assert scope.notes["general_check"] == {"checked": 22, "without a verdict": 1, "inside": 1}


def test_too_few_general_prompts_outside_the_domain_are_an_error_after_all_were_checked() -> None:
    def check(question: str, seed: int) -> str:
        (prompt,) = fences(question)
        return reply("YES") if prompt in general_prompts() else teach(question, seed)

    policy = but(check=check)
    with pytest.raises(
        HeedfulError, match="20 general prompts are needed, but the package has 0 that the model"
    ):
        make(policy)
    checked = [fences(question)[0] for question in policy.questions("check")]
    assert sorted(p for p in checked if p in general_prompts()) == sorted(general_prompts())


def test_a_scope_file_gives_the_same_scope_back(tmp_path: Path) -> None:
    scope = make(Scripted(teach))
    write_scope(scope, tmp_path / "scope.yaml")
    assert read_scope(tmp_path / "scope.yaml") == scope


def test_too_many_general_prompts_are_refused_before_the_model_is_asked() -> None:
    policy = Scripted(teach)
    with pytest.raises(HeedfulError, match="100017 general prompts are needed"):
        make(policy, sizes=dataclasses.replace(SIZES, test_general=100_002))
    assert policy.calls == []


@pytest.mark.parametrize(
    "options", [{"retries": -1}, {"categories": 0}, {"sentence": " \n"}, {"sentence": "a " * 999}]
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    policy = Scripted(teach)
    with pytest.raises(HeedfulError):
        make(policy, **options)
    assert policy.calls == []


# ---- kept stages


def test_a_second_call_asks_nothing_and_gives_the_same_scope(tmp_path: Path) -> None:
    with open_run(tmp_path, {}, seed=1) as run:
        first = make(Scripted(teach), run=run)
    assert (tmp_path / "scope" / "categories.json").is_file()
    silent = Scripted(garbage)
    with open_run(tmp_path, {}, seed=1) as run:
        assert make(silent, run=run) == first
    assert silent.calls == []


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = Scripted(teach)
    scope = make(whole)

    class Killed(BaseException):
        """Not an error that anything catches."""

    made = Scripted(teach)
    starts = 0
    while True:
        starts += 1
        policy = Scripted(teach)
        left = [2]

        def answer(question: str, seed: int, policy: Scripted = policy, left: list[int] = left) -> str:
            if len(policy.calls) > left[0]:
                raise Killed
            return teach(question, seed)

        policy.answer = answer
        try:
            with open_run(tmp_path, {}, seed=1) as run:
                resumed = make(policy, run=run)
        except Killed:
            made.calls += policy.calls[:-1]
            continue
        made.calls += policy.calls
        break
    assert starts > 2 and made.calls == whole.calls and resumed == scope


def test_kept_replies_to_other_questions_are_not_taken_for_these(tmp_path: Path) -> None:
    with open_run(tmp_path, {}, seed=1) as run:
        make(Scripted(teach), run=run)
        with pytest.raises(HeedfulError, match=r"scope/categories\.json does not hold .* delete it"):
            make(Scripted(teach), run=run, effect="be brief", domain="letters to my aunt")
        (tmp_path / "scope" / "categories.json").write_text('["by hand"]')
        with pytest.raises(HeedfulError, match=r"scope/categories\.json does not hold"):
            make(Scripted(teach), run=run)


def test_questions_are_kept_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PART", 2)
    policy = Scripted(lambda question, seed: reply(f"{question} {seed}"))
    with open_run(tmp_path, {}, seed=1) as run:
        replies = ask(policy, list("abcde"), answer_block, seed=3, name="x/y", run=run)
    assert (
        policy.calls == [["a", "b"], ["c", "d"], ["e"]]
        and len({s for part in policy.seeds for s in part}) == 5
    )
    assert [str(value)[0] for value in replies.values] == list("abcde")
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == [
        "y.json",
        "y.part-0001.json",
        "y.part-0002.json",
    ]


# ---- a served model, and a local one that cannot write


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("HEEDFUL_API_KEY", "OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    lost: list[str] = []

    def answer(path: str, body: dict[str, Any]) -> Reply:
        question = asked(body)
        if kind_of(question) == "in" and len(lost) < 2:
            lost.append(question)
            return Reply({"choices": choices(path, ["1. Without any tags"])})
        return Reply({"choices": choices(path, [teach(question, body["seed"])])})

    made = Server(answer)
    yield made
    made.shutdown()
    made.server_close()


def test_a_served_model_makes_a_scope(server: Server, tmp_path: Path) -> None:
    with RemotePolicy(server.url, "teacher") as policy, open_run(tmp_path, {}, seed=1) as run:
        scope = make(policy, run=run)
        sent = len(server.requests)
        assert make(policy, run=run) == scope and len(server.requests) == sent
    assert [len(kinds["near"]) for kinds in splits(scope).values()] == [12, 3, 9]
    assert scope.notes["model"] == "teacher" and scope.notes["unparsable"] == {"in": 2}
    assert {path for path, _, _ in server.requests} == {"/v1/chat/completions"}
    assert {body["temperature"] for body in server.bodies()} == {0.0, 0.7}


def test_a_model_that_writes_gibberish_is_an_error_and_no_traceback() -> None:
    config = LlamaConfig(
        vocab_size=420,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    policy = LanguagePolicy(tiny.model(config=config), tiny.tokenizer(), device="cpu", precision="fp32")
    with pytest.raises(HeedfulError, match="did not take"):
        make(policy, retries=1, max_new_tokens=8)
    revised = revise_with(policy, ["Why?"], ["So."], "be brief", seed=0, retries=1, max_new_tokens=8)
    assert revised == [None] and revised.counts["unparsable"] == 2


# ---- revision


def test_revisions_are_the_answers_between_the_tags_and_the_rest_is_none() -> None:
    def answer(question: str, seed: int) -> str:
        request, before, effect = fences(question)
        assert effect == "end with 'Onwards and upwards'" and "domain" not in question.lower()
        return {
            "q0": reply(f"{before}\n\nOnwards and upwards", "The ending is missing."),
            "q1": garbage(question, seed),
            "q2": reply(before),
            "q3": "",
            "q4": reply("one") + reply("two"),
        }[request]

    policy = Scripted(answer)
    revised = revise_with(
        policy,
        [f"q{i}" for i in range(5)],
        ["Dear Ann,\nhello"] * 5,
        "end with 'Onwards and upwards'",
        seed=0,
        retries=2,
    )
    assert revised == ["Dear Ann,\nhello\n\nOnwards and upwards", None, "Dear Ann,\nhello", None, None]
    assert [len(call) for call in policy.calls] == [5, 3, 3], "only what could not be read is asked for again"
    assert revised.counts == {"revised": 2, "unchanged": 1, "unrevised": 3, "unparsable": 9}
    assert len(revised.examples) == 5 and isinstance(revised, list)


def test_a_revision_that_comes_at_the_second_try_counts_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    tries: list[int] = []

    def late(question: str, seed: int) -> str:
        tries.append(seed)
        return reply(f"better {seed}") if len(tries) > 1 else "<answer>\ncut of"

    def revise(policy: Scripted) -> Any:
        with open_run(tmp_path, {}, seed=1) as run:
            return revise_with(policy, ["q"], ["a"], "be better", seed=7, run=run)

    first = revise(Scripted(late))
    assert first == [f"better {tries[1]}"] and tries[0] != tries[1] and first.counts["unparsable"] == 1
    silent = Scripted(garbage)
    assert revise(silent) == first and silent.calls == []


def test_revisions_need_as_many_answers_as_prompts_and_an_effect() -> None:
    with pytest.raises(HeedfulError, match="2 prompts but 1 answers"):
        revise_with(Scripted(garbage), ["a", "b"], ["c"], "be brief", seed=0)
    with pytest.raises(HeedfulError, match="no effect"):
        revise_with(Scripted(garbage), ["a"], ["c"], " ", seed=0)
    assert revise_with(Scripted(garbage), [], [], "be brief", seed=0) == []


# ---- what users and models write is material


ODD = "Use {domain} and {0} with \"%s\" in 'a {b}' when I say so"


def test_braces_quotes_and_tags_in_the_sentence_reach_the_model_unchanged() -> None:
    policy = but(
        decompose=lambda q, seed: reply(
            json.dumps({"content": ODD, "domain": '{x}\'s "y" %d', "effect": ODD})
        )
    )
    tagged = f"{ODD} </answer>"
    scope = make(policy, sentence=tagged)
    assert fences(policy.questions("decompose")[0])[0] == scope.sentence == tagged
    assert (scope.domain, scope.effect, scope.content) == ('{x}\'s "y" %d', ODD, ODD)
    assert all('{x}\'s "y" %d' in question for question in policy.questions("near"))
