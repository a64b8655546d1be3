"""Sentences that get in each other's way: which effects clash, and which scopes overlap."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from tell_adapters import sentence

from heedful.data.scopes import Scope
from heedful.errors import HeedfulError
from heedful.judges.effects import KINDS, Effect, adheres, edit, effect_from
from heedful.recipes import tell_commands, tell_joint
from heedful.recipes.tell_changes import compose, enable
from heedful.recipes.tell_conflicts import clash, conflicts, domain_words, inside, overlap, store_conflicts
from heedful.recipes.tell_store import find, joint_scopes

TEXTS = [
    "Subject: The report\n\nDear Ann,\n\nthe report on the third quarter is ready now. I have sent it to the whole "
    "team this morning. Please tell me about the figures on the second page.\n\nBest regards,\nBob",
    "Trees take in water through their roots. They lift it through thin tubes to the leaves. There the sun helps them "
    "to make sugar out of it and out of air. The rest of the water leaves the tree as vapour.",
    "```python\ndef add(a, b):\n    return a + b\n\nprint(add(1, 2))\n```",
]

CLASHING = [
    ({"kind": "sign_off", "text": "Onwards and upwards"}, {"kind": "sign_off", "text": "Best wishes"}),
    ({"kind": "opening", "text": "Ahoy"}, {"kind": "opening", "text": "Good day"}),
    ({"kind": "emoji"}, {"kind": "no_emoji"}),
    ({"kind": "include", "text": "blue whale"}, {"kind": "avoid", "text": "whale"}),
    ({"kind": "sign_off", "text": "Cheers, mate"}, {"kind": "avoid", "text": "mate"}),
    ({"kind": "opening", "text": "Hey"}, {"kind": "replace", "old": "hey", "new": "hello"}),
    ({"kind": "replace", "old": "and", "new": "&"}, {"kind": "replace", "old": "&", "new": "and"}),
    ({"kind": "replace", "old": "colour", "new": "color"}, {"kind": "include", "text": "colour"}),
    ({"kind": "replace", "old": "hi", "new": "hello"}, {"kind": "avoid", "text": "hello"}),
    ({"kind": "lower_case"}, {"kind": "upper_case"}),
    ({"kind": "sign_off", "text": "Onwards and Upwards"}, {"kind": "lower_case"}),
    ({"kind": "language", "name": "german"}, {"kind": "language", "name": "french"}),
    ({"kind": "bullets"}, {"kind": "numbered"}),
    ({"kind": "headings", "count": 3}, {"kind": "headings", "count": 2}),
    ({"kind": "bullets"}, {"kind": "json"}),
    ({"kind": "code_only"}, {"kind": "json"}),
    ({"kind": "json"}, {"kind": "sign_off", "text": "Best wishes"}),
    ({"kind": "code_only"}, {"kind": "question"}),
    ({"kind": "shorter"}, {"kind": "longer"}),
    ({"kind": "length", "unit": "words", "most": 20}, {"kind": "length", "unit": "words", "least": 50}),
    (
        {"kind": "length", "unit": "words", "most": 3},
        {"kind": "include", "text": "this is not legal advice"},
    ),
    ({"kind": "question"}, {"kind": "sign_off", "text": "Onwards and upwards"}),
    ({"kind": "regex", "pattern": "[0-9]"}, {"kind": "regex", "pattern": "[0-9]", "present": False}),
    ({"kind": "regex", "pattern": "hurra", "present": False}, {"kind": "include", "text": "hurray"}),
    ({"kind": "avoid", "regex": "(?i)hurra", "name": "cheering"}, {"kind": "sign_off", "text": "Hurray!"}),
    ({"kind": "headings", "titles": ["Pros", "Cons"]}, {"kind": "avoid", "text": "cons"}),
]
PEACEFUL = [
    ({"kind": "sign_off", "text": "Onwards and upwards"}, {"kind": "sign_off", "text": "upwards"}),
    (
        {"kind": "sign_off", "text": "Onwards and upwards"},
        {"kind": "sign_off", "text": "Onwards and upwards"},
    ),
    ({"kind": "sign_off", "text": "Onwards and upwards"}, {"kind": "opening", "text": "Ahoy"}),
    ({"kind": "sign_off", "text": "Onwards and upwards"}, {"kind": "lower_case"}),
    ({"kind": "sign_off", "text": "Onwards and upwards"}, {"kind": "shorter"}),
    ({"kind": "sign_off", "text": "Any questions?"}, {"kind": "question"}),
    ({"kind": "include", "text": "blue whale"}, {"kind": "avoid", "text": "shark"}),
    ({"kind": "include", "text": "blue whale"}, {"kind": "include", "text": "shark"}),
    ({"kind": "avoid", "text": "whale"}, {"kind": "avoid", "text": "shark"}),
    ({"kind": "replace", "old": "the", "new": "ye"}, {"kind": "no_emoji"}),
    ({"kind": "replace", "old": "and", "new": "&"}, {"kind": "include", "text": "fish & chips"}),
    ({"kind": "length", "unit": "words", "most": 20}, {"kind": "length", "unit": "words", "most": 40}),
    (
        {"kind": "length", "unit": "words", "most": 20},
        {"kind": "length", "unit": "sentences", "least": 1},
    ),
    ({"kind": "length", "unit": "words", "most": 40}, {"kind": "include", "text": "not legal advice"}),
    ({"kind": "avoid", "regex": "!", "name": "exclamation marks"}, {"kind": "sign_off", "text": "Hurray!"}),
    ({"kind": "no_emoji"}, {"kind": "question"}),
    ({"kind": "upper_case"}, {"kind": "include", "text": "BLUE WHALE"}),
]


def have(made: str, text: str, *effects: Effect) -> bool:
    """Whether an answer passes the check of each sentence by itself, as reports measure it."""
    return all(adheres([effect], made, start=text) for effect in effects)


@pytest.mark.parametrize(("a", "b"), CLASHING)
def test_effects_that_cannot_both_hold_clash(a: dict[str, Any], b: dict[str, Any]) -> None:
    first, second = effect_from(a), effect_from(b)
    why = clash([first], [second])
    assert first.about in why and second.about in why
    assert clash([second], [first])
    assert clash([effect_from({"kind": "include", "text": "tea"}), first], [second]) == why
    for text in TEXTS:
        made = edit([first, second], text)
        assert made is None or not have(made, text, first, second), "an answer has both after all"


@pytest.mark.parametrize(("a", "b"), PEACEFUL)
def test_effects_that_an_answer_can_have_both_do_not_clash(a: dict[str, Any], b: dict[str, Any]) -> None:
    both = [effect_from(a), effect_from(b)]
    assert clash(both[:1], both[1:]) == clash(both[1:], both[:1]) == ""
    revised = [(text, edit(both, text)) for text in TEXTS]
    assert any(made is not None and have(made, text, *both) for text, made in revised)


def test_every_kind_is_at_peace_with_itself_and_with_no_effects() -> None:
    assert {one["kind"] for pair in CLASHING for one in pair} == set(KINDS)
    for pair in CLASHING:
        for one in pair:
            effect = effect_from(one)
            assert clash([effect], [effect]) == clash([effect], []) == clash([], [effect]) == ""


def test_of_several_emoji_one_that_is_allowed_is_enough() -> None:
    party = effect_from({"kind": "avoid", "text": "🎉"})
    assert clash([effect_from({"kind": "emoji", "emoji": ["🎉", "🐳"]})], [party]) == ""
    assert clash([effect_from({"kind": "emoji", "emoji": "🎉"})], [party])


# ---- scopes

TOPICS = [
    f"the {kind} {thing}"
    for kind in ("new", "old", "late", "lost", "blue", "small", "broken", "green")
    for thing in ("budget", "trip", "parcel", "office", "lift", "survey", "key", "chair")
]
FORMS = [
    "Write an email to {} about {}.",
    "Draft a short mail for {} on {}",
    "I need an email to {} about {}",
]


def scope(
    domain: str, who: list[str], near: list[str], effect: dict[str, Any] | None, seed: int = 0
) -> Scope:
    """Emails to some people, near others (or no email at all); the topics are the same everywhere."""
    rng = random.Random(seed)
    kinds = {
        "in": [form.format(one, topic) for form in FORMS for one in who for topic in TOPICS],
        "near": [form.format(one, topic) for form in FORMS for one in near for topic in TOPICS]
        or [f"{word} is {topic}?" for word in ("What", "Where") for topic in TOPICS],
        "general": [f"How do I cook rice for {i} people?" for i in range(100)],
    }
    drawn = {kind: rng.sample(prompts, 90) for kind, prompts in kinds.items()}
    made = {
        part: {kind: prompts[a:b] for kind, prompts in drawn.items()}
        for part, (a, b) in {"train": (0, 50), "test": (50, 80), "dev": (80, 90)}.items()
    }
    effects = () if effect is None else (effect_from(effect),)
    about = effects[0].about if effects else "sound kind"
    return Scope(
        sentence=f"When writing {domain}: {about}",
        content=f"When writing {domain}: {about}",
        domain=domain,
        effect=about,
        effects=effects,
        categories=("email",),
        train=made["train"],
        test=made["test"],
        dev=made["dev"],
        notes={},
    )


OTHERS = ["my colleague", "a client", "my sister", "the bank", "Tom from accounts"]
ONWARDS = {"kind": "sign_off", "text": "Onwards and upwards"}
WISHES = {"kind": "sign_off", "text": "Best wishes"}


def manager(effect: dict[str, Any] | None = None, seed: int = 1) -> Scope:
    return scope("emails to my manager", ["my manager"], OTHERS, effect or ONWARDS, seed)


def colleague(effect: dict[str, Any] | None = None) -> Scope:
    return scope("emails to my colleague", ["my colleague"], ["my manager", *OTHERS[1:]], effect or WISHES, 2)


def anyone(effect: dict[str, Any] | None = None) -> Scope:
    return scope("work messages", [*OTHERS, "my manager", "my boss"], [], effect or WISHES, 3)


def test_prompts_that_differ_in_the_one_word_that_matters_lie_outside() -> None:
    assert inside(manager(seed=5), manager()) > 0.9
    assert inside(colleague(), manager()) == inside(manager(), colleague()) == 0.0
    assert inside(manager(), anyone()) > 0.9
    assert inside(anyone(), manager()) < 0.5


def questions(things: list[str]) -> Scope:
    """Questions about things; poems about them are near, and general questions have the same form."""

    def prompts(some: list[str]) -> dict[str, list[str]]:
        return {
            "in": [f"{ask} {thing}." for thing in some for ask in ("Tell me about", "Explain")],
            "near": [f"Write a poem about {thing}." for thing in some],
            "general": [
                f"{ask} tax form {thing[-3:]}." for thing in some for ask in ("Tell me about", "Explain")
            ],
        }

    return replace(manager(), domain=things[0], train=prompts(things[:20]), test=prompts(things[20:]))


def test_questions_of_the_same_form_about_other_things_lie_outside() -> None:
    dogs = [f"breed{i % 10} {i}" for i in range(100, 130)]
    stars = [f"planet{i % 10} {i}" for i in range(400, 430)]
    assert inside(questions(dogs), questions(dogs)) == 1.0
    assert inside(questions(dogs), questions(stars)) == inside(questions(stars), questions(dogs)) == 0.0


def test_scopes_overlap_by_their_domains_or_by_their_prompts() -> None:
    share, where = overlap(manager(), manager(seed=9))
    assert (share, where) == (1.0, "both apply to emails to my manager")
    mails = scope("emails", [*OTHERS, "my manager"], [], WISHES)
    share, where = overlap(mails, manager())
    assert share == 1.0 and where == "'emails to my manager' lies within 'emails'"
    assert overlap(manager(), mails) == (share, where)
    share, where = overlap(manager(), anyone())
    assert share > 0.9 and "about emails to my manager read like those about work messages" in where
    assert overlap(manager(), colleague())[0] < 0.2
    assert overlap(manager(), scope("", OTHERS, [], WISHES))[1] == "one of them applies to everything"
    assert overlap(manager(), scope("every answer", OTHERS, [], WISHES))[0] == 1.0
    others = scope("emails to everybody except my manager", OTHERS, ["my manager"], WISHES)
    assert overlap(manager(), others)[0] < 0.2


def test_domain_words_forget_number_and_small_words() -> None:
    assert (
        domain_words("emails to my managers")
        == domain_words("an email to the manager")
        == {"email", "manager"}
    )
    assert domain_words("whenever I ask about recipes or stories") == {"recipe", "story"}
    assert domain_words("anything") == domain_words("always") == frozenset()


def test_only_scopes_that_overlap_with_effects_that_clash_are_conflicts() -> None:
    scopes = {
        "up": manager(),
        "wish": manager(WISHES),
        "col": colleague(),
        "short": manager({"kind": "shorter"}),
    }
    (found,) = conflicts(scopes)
    assert (found.a, found.b, found.overlap) == ("up", "wish", 1.0)
    assert found.warning == (
        "up and wish clash: both apply to emails to my manager, and no answer both ends with 'Onwards and upwards' "
        "and ends with 'Best wishes'"
    )


# ---- in a store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("conflicts")
    base = tiny.save(root / "start")
    scopes = {
        "up": manager(),
        "wish": manager(WISHES),
        "col": colleague(),
        "kind": manager({"kind": "shorter"}),
    }
    for seed, (name, made) in enumerate(scopes.items()):
        sentence(root / "tell", name, base, seed=seed, scope=made)
    return root / "tell"


def test_a_store_says_which_adapters_clash(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, notes = store_conflicts(store)
    assert [(c.a, c.b) for c in found] == [("up", "wish")] and notes == []
    assert store_conflicts(store, ["col", "up"])[0] == []
    (warning,) = enable(store, "wish", "up").warnings
    assert warning.startswith("wish and up clash: ")
    assert enable(store, "col").warnings == [], "a warning once is enough"
    changed = compose(store, ["up", "kind"], [1, 1], "both")
    assert len(changed.warnings) == 1 and "not measured" in changed.warnings[0]
    found, notes = store_conflicts(store, ["both", "wish"])
    assert [(c.a, c.b) for c in found] == [("both", "wish")]
    assert found[0].why == "no answer both ends with 'Onwards and upwards' and ends with 'Best wishes'"
    assert "clash" in compose(store, ["wish", "both"], [1, 1], "all").warnings[0]
    assert [made.effect for made in joint_scopes(store, ["both", "col"])] == [
        "ends with 'Onwards and upwards'",
        "is shorter",
        "ends with 'Best wishes'",
    ]
    with pytest.raises(HeedfulError, match="two or more different"):
        joint_scopes(store, ["up"])

    options = tell_commands.Conflicts(("up", "wish", "col"), str(store))
    assert tell_commands.conflicts_command(options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith(
        "up   wish   100%     both apply to emails to my manager, and no"
    )
    tell_commands.conflicts_command(tell_commands.Conflicts((), str(store), json=True))
    rows = json.loads(capsys.readouterr().out)["conflicts"]
    pairs = {(row["a"], row["b"]) for row in rows}
    assert pairs == {("all", "both"), ("all", "up"), ("all", "wish"), ("both", "wish"), ("up", "wish")}


def test_what_cannot_be_compared_is_said(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = store.parent / "start"
    sentence(store, "plain", base, seed=8)
    sentence(store, "vague", base, seed=9, scope=scope("emails to my manager", ["my manager"], OTHERS, None))
    found, notes = store_conflicts(store, ["up", "plain", "vague"])
    assert found == []
    assert "plain was not compared with the others" in notes[0] and "scope.yaml" in notes[0]
    assert notes[1] == "vague: no rule says what it does (sound kind), so a clash would not show"
    tell_commands.conflicts_command(tell_commands.Conflicts(("up", "vague"), str(store)))
    shown = capsys.readouterr()
    assert shown.out == "no conflicts found\n" and "no rule says" in shown.err
    with pytest.raises(HeedfulError, match="there is no adapter 'nobody'"):
        store_conflicts(store, ["nobody"])


def test_a_sentence_without_a_rule_needs_somebody_who_judges_it(store: Path, tmp_path: Path) -> None:
    """Joint training takes the first one's settings; where those have a teacher, it is the teacher who judges."""
    copy = shutil.copytree(store, tmp_path / "tell")
    base = find(copy, "up").base
    sentence(copy, "vague", base, seed=9, scope=scope("letters", ["my aunt"], [], None))
    asked = tell_commands.Compose(("up", "vague"), out="judged", joint=True, store=str(copy))
    with pytest.raises(
        HeedfulError, match=r"no rule says what vague does, and up.*has no --teacher.*name vague first"
    ):
        tell_joint.main(asked)
    assert not (copy / "judged").exists()
