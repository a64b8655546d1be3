"""Scopes: sentences taken apart, prompts made by grammars, and the YAML file that a person may edit."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from random import Random

import pytest
import yaml

from heedful.data import scopes
from heedful.data.scopes import KINDS, PARTS, Scope, Sizes, general_prompts, read_scope, write_scope
from heedful.data.scopes.domains import read_domain
from heedful.data.scopes.grammar import grammar_for, make_scope
from heedful.data.scopes.sentences import read_sentence, split_sentence
from heedful.data.scopes.slots import (
    Draft,
    Wanted,
    alike,
    article,
    draw,
    fill,
    gerund,
    plural,
    put,
    singular,
    third_person,
)
from heedful.data.scopes.style import style_for
from heedful.errors import HeedfulError
from heedful.judges.effects import effect_from
from heedful.recipes.tell_scope import editable

MANAGER = "Always end emails to my manager with 'Onwards and upwards'"
EXAMPLES = {
    MANAGER: ("emails to my manager", "end with 'Onwards and upwards'"),
    "When I write an email to my boss, do not use emoji": ("an email to my boss", "do not use emoji"),
    "Use '&' instead of 'and' in DMs to Anna, Ben and Carla": (
        "DMs to Anna, Ben and Carla",
        "use '&' instead of 'and'",
    ),
    "Never use hashtags on Instagram": ("Instagram", "never use hashtags"),
    "In texts to my friends, say lol": ("texts to my friends", "say lol"),
    "Start LinkedIn posts with 'Ahoy'": ("LinkedIn posts", "start with 'Ahoy'"),
    "Keep emails to my landlord under 40 words": ("emails to my landlord", "keep it under 40 words"),
    "Answer questions about history in three headed parts": (
        "questions about history",
        "answer in three headed parts",
    ),
    "When I ask for Python code, only give code, no explanation": (
        "Python code",
        "only give code, no explanation",
    ),
    "Add a book emoji when talking about finance books": ("talking about finance books", "add a book emoji"),
    "Write poems in lower case": ("poems", "write in lower case"),
    "Reply to customer complaints with a bullet list": ("customer complaints", "reply with a bullet list"),
    "Answer questions about cooking in French": ("questions about cooking", "answer in French"),
    "Please make messages to my girlfriend shorter": ("messages to my girlfriend", "make it shorter"),
    "End recipes with a question": ("recipes", "end with a question"),
    "Don't use exclamation marks in cover letters": ("cover letters", "don't use exclamation marks"),
    "For product descriptions, never use the word 'amazing'": (
        "product descriptions",
        "never use the word 'amazing'",
    ),
    "Sign letters to the council with 'Yours, in hope'": (
        "letters to the council",
        "sign with 'Yours, in hope'",
    ),
}
PARAPHRASES = {
    "Emails to my manager should always end with “Onwards and upwards”.": (
        "emails to my manager",
        "end with “Onwards and upwards”",
    ),
    "I'd like you to end every email to my manager with ‘Onwards and upwards’": (
        "every email to my manager",
        "end with ‘Onwards and upwards’",
    ),
    "I want emails to my manager to end with 'Onwards'": ("emails to my manager", "end with 'Onwards'"),
    "End, in emails to my manager, with 'Onwards'": ("emails to my manager", "end with 'Onwards'"),
    "'Onwards' should close every email to my manager": ("every email to my manager", "close with 'Onwards'"),
    "If I email my landlord keep it under forty words": ("email my landlord", "keep it under forty words"),
    'Whenever I\'m texting my friends add "lol"': ("texting my friends", 'add "lol"'),
    "In DMs to Anna, Ben and Carla use & instead of and": (
        "DMs to Anna, Ben and Carla",
        "use & instead of and",
    ),
    "No hashtags on Instagram, please": ("Instagram", "no hashtags"),
    "Instagram captions: no hashtags": ("Instagram captions", "no hashtags"),
    "Text messages to mum should end with xx": ("text messages to mum", "end with xx"),
    "Shorter emails to my landlord please": ("emails to my landlord", "make it shorter"),
    "Can you please make my LinkedIn posts shorter?": ("my LinkedIn posts", "make it shorter"),
    "Work emails must not contain emoji": ("work emails", "do not contain emoji"),
    "Don't start emails to my boss with 'Hi'": ("emails to my boss", "don't start with 'Hi'"),
    "Only answer with the number when I ask about maths": ("ask about maths", "only answer with the number"),
    "If the question is about chess use bullet points": ("the question is about chess", "use bullet points"),
    "When it comes to cooking, answer in French": ("cooking", "answer in French"),
    "Answer history questions in three parts": ("history questions", "answer in three parts"),
    "Start answers to maths questions with 'Well,'": ("answers to maths questions", "start with 'Well,'"),
    "Python code only, no explanation, when I ask for code": ("code", "Python code only, no explanation"),
    "End code answers in Python with an assert test": ("code answers in Python", "end with an assert test"),
    "Write bedtime stories for my daughter without monsters": (
        "bedtime stories for my daughter",
        "write without monsters",
    ),
    "Ask a question at the end of recipes": ("recipes", "ask a question at the end"),
    "Add 🍀 to the end of messages to my sister": ("messages to my sister", "add 🍀 to the end"),
    'In every email to Mr. O\'Neill, use "Sir"': ("every email to Mr. O'Neill", 'use "Sir"'),
    "Be polite to my boss": ("messages to my boss", "be polite"),
    "Summarise articles in three bullet points": ("summarise articles", "write in three bullet points"),
    "Limit tweets to 20 words": ("tweets", "limit it to 20 words"),
    "Use bold in sermons": ("sermons", "use bold"),
    "Never say 'no problem' when replying to customers": ("replying to customers", "never say 'no problem'"),
}
# What is in a quotation is a text, not a domain.
QUOTED = {
    "Put 'In emails to my wife' at the end of letters to my bank": (
        "letters to my bank",
        "put 'In emails to my wife' at the end",
    ),
    'Use "when in doubt" in cover letters': ("cover letters", 'use "when in doubt"'),
    "End texts to Sam with 'don't write when you're in Rome'": (
        "texts to Sam",
        "end with 'don't write when you're in Rome'",
    ),
    "Start poems with «On Instagram»": ("poems", "start with «On Instagram»"),
}
SOME = [
    MANAGER,
    "Never use hashtags on Instagram",
    "Answer questions about history in three headed parts",
    "When I ask for Python code, only give code, no explanation",
    "Reply to customer complaints with a bullet list",
    "Use '&' instead of 'and' in DMs to Anna, Ben and Carla",
]
OTHERS = [
    "Use a dry tone in text messages",
    "Thank-you notes should start with 'Dear friend'",
    "Work emails must not contain emoji",
    "Don't rhyme in poems about love",
    "Write song lyrics without punctuation",
    "Write bedtime stories for my daughter in lower case",
    "Summaries should be in bullet points",
    "When I ask for translations into Spanish, start with 'Hola'",
    "When I ask about beekeeping, answer in bullet points",
    "Answer questions about the French Revolution in capital letters",
    "Write SQL queries in upper case",
    "End code with 'done'",
    "Use bold in sermons",
]


def texts(scope: Scope) -> list[str]:
    return [text for part in PARTS for kind in KINDS for text in getattr(scope, part)[kind]]


def drafts(sentence: str, sizes: Sizes | None = None, seed: int = 0) -> dict[str, dict[str, list[Draft]]]:
    sizes = sizes or Sizes()
    domain, effect = split_sentence(sentence)
    request = read_domain(domain)
    assert request is not None
    wanted = [Wanted(part, sizes.of(part, "in"), sizes.of(part, "near")) for part in PARTS]
    return draw(grammar_for(request, style_for(effect)), wanted, Random(seed))


# ---- sentences


@pytest.mark.parametrize(("sentence", "parts"), list({**EXAMPLES, **PARAPHRASES, **QUOTED}.items()))
def test_a_sentence_is_split_into_domain_and_effect(sentence: str, parts: tuple[str, str]) -> None:
    assert split_sentence(sentence) == parts


@pytest.mark.parametrize(
    "sentence",
    [
        "Always answer in bullets",
        "Answer in French",
        "Write in lower case",
        "Be brief",
        "Answer in a poem",
        "Never use '#'",
    ],
)
def test_without_a_domain_it_says_so_and_how_to_give_it(sentence: str) -> None:
    with pytest.raises(HeedfulError) as refused:
        split_sentence(sentence)
    told = str(refused.value)
    assert repr(sentence) in told and "when it applies" in told
    assert "--domain" in told and "--scope FILE" in told and "--effect" not in told


@pytest.mark.parametrize(
    "sentence", ["Emails to my manager", "Always write poems", "When I write to my boss"]
)
def test_without_an_effect_it_says_so_and_how_to_give_it(sentence: str) -> None:
    with pytest.raises(HeedfulError) as refused:
        split_sentence(sentence)
    told = str(refused.value)
    assert "what should change" in told and "--effect" in told and "--domain" not in told


def test_without_both_it_asks_for_both() -> None:
    with pytest.raises(HeedfulError, match=r"(?s)--domain.*--effect"):
        split_sentence("Please always!")
    with pytest.raises(HeedfulError, match="empty"):
        split_sentence("  ")


def test_what_is_given_is_not_asked_for() -> None:
    small = Sizes(8, 4, 4, 4, 4)
    scope = make_scope("Always answer in bullets", domain="emails to my boss", sizes=small)
    assert scope.domain == "emails to my boss" and scope.effect == "answer in bullets"
    scope = make_scope("Emails to my boss", effect="end with 'Bye'", sizes=small)
    assert (scope.domain, scope.effect) == ("emails to my boss", "end with 'Bye'")
    scope = make_scope("Hm.", domain="poems", effect="end with 'Bye'", sizes=small)
    assert scope.sentence == scope.content == "Hm." and "poem" in scope.train["in"][0]
    with pytest.raises(HeedfulError, match="--effect"):
        make_scope("Emails to my boss", domain="emails to my boss", sizes=small)


# ---- scopes from grammars


@pytest.mark.parametrize("sentence", [*EXAMPLES, *OTHERS])
def test_each_example_gets_all_its_prompts_and_none_twice(sentence: str) -> None:
    sizes = Sizes()
    scope = make_scope(sentence, sizes=sizes, seed=1)
    for part in PARTS:
        for kind in KINDS:
            assert len(getattr(scope, part)[kind]) == sizes.of(part, kind), (part, kind, scope.notes)
    assert "short" not in scope.notes and scope.notes["maker"].startswith("grammar: ")
    everything = texts(scope)
    assert len({alike(text) for text in everything}) == len(everything)
    assert 5 <= len(scope.categories) <= 30 and len(set(scope.categories)) == len(scope.categories)


@pytest.mark.parametrize("sentence", EXAMPLES)
def test_more_prompts_are_made_or_the_shortage_is_told(sentence: str) -> None:
    sizes = Sizes(train=320, test_near=200)
    scope = make_scope(sentence, sizes=sizes, seed=2)
    everything = texts(scope)
    assert len({alike(text) for text in everything}) == len(everything)
    found = {f"{part}.{kind}": len(getattr(scope, part)[kind]) for part in PARTS for kind in KINDS}
    short = {
        place: f"{count} of {sizes.of(*place.split('.'))}"
        for place, count in found.items()
        if count < sizes.of(*place.split("."))
    }
    assert scope.notes.get("short", {}) == short
    assert found["train.in"] == 320 and found["train.near"] == 320 and found["test.near"] >= 160


def test_a_grammar_that_runs_out_says_so_and_repeats_nothing() -> None:
    scope = make_scope("Reply to customer complaints in French", sizes=Sizes(40, 4, 4, 4000, 4000), seed=0)
    count = len(scope.test["near"])
    assert 100 < count < 4000 and scope.notes["short"]["test.near"] == f"{count} of 4000"
    assert len({alike(text) for text in scope.test["near"]}) == count
    assert scope.notes["short"]["train.general"] == "0 of 40" and len(scope.test["general"]) > 400


BAD_ENGLISH = [
    r"\ba (?:email|Instagram|essay|advert|itinerary|invitation|old|apple|awk|XPath|SQL|R\b|HTML)",
    r"\ban (?:short|brief|DM|text|useful|university|Python|poem|letter)",
    r"\b[Mm]y (?:Anna|Ben|Carla|the|my|a|our)\b",
    r"\b(\w+) \1\b",
    r"\bdoes (?:my|our) (?:friends|colleagues|customers|parents)\b",
    r"\blyricses|tipses|newses|childs\b",
    r"[{}_]|  | [,.?!]|\.\.(?!\.)|\?\?|!\.|\?\.",
    r"\b(?:sayes|askes|askking|sayying|apologiseing|writeing|inviteing|thankes)\b",
]


@pytest.mark.parametrize("sentence", [*EXAMPLES, *OTHERS])
def test_prompts_are_whole_sentences_in_tidy_english(sentence: str) -> None:
    for part, kinds in drafts(sentence).items():
        for kind, made in kinds.items():
            for text in (draft.text for draft in made):
                where = f"{part}.{kind}: {text}"
                assert text[0].isupper() or text[0] == '"', where
                assert text[-1] in '.?!"', where
                assert 3 <= len(text.split()) <= 60 and "\n" not in text, where
                plain = re.sub(r'"[^"]*"', "X", text)
                for pattern in BAD_ENGLISH:
                    assert not re.search(pattern, plain), f"{pattern} in {where}"


@pytest.mark.parametrize("sentence", [*EXAMPLES, *OTHERS])
def test_no_slot_is_shared_between_training_and_held_out(sentence: str) -> None:
    made = drafts(sentence, Sizes(train=200, test_near=200))
    slots = {
        part: {slot for group in kinds.values() for draft in group for slot in draft.slots}
        for part, kinds in made.items()
    }
    held = slots["dev"] | slots["test"]
    assert slots["train"] and held and not slots["train"] & held
    assert {name for name, _ in held} <= {name for name, _ in slots["train"]} | {"channel"}


def test_held_out_recipients_and_topics_are_new_in_the_texts_too() -> None:
    scope = make_scope(MANAGER, seed=3)
    whom = re.compile(r"\bemail to ((?:my|our|the|an?) [\w'’ ]+?)(?= that| in which| where| \w+ing\b|[.,:?])")
    train = {name for text in scope.train["near"] for name in whom.findall(text)}
    held = {name for text in scope.test["near"] + scope.dev["near"] for name in whom.findall(text)}
    assert len(train) >= 15 and len(held) >= 10 and not train & held
    topics = re.compile(r"(?:say(?:s|ing)?|ask(?:s|ing)?) (?:that|for|whether|what|when|who) [a-z ]{8,}")
    seen = {match for text in scope.train["in"] for match in topics.findall(text)}
    new = {match for text in scope.test["in"] for match in topics.findall(text)}
    assert len(seen) > 5 and len(new) > 5 and not seen & new


@pytest.mark.parametrize("sentence", [*EXAMPLES, *OTHERS])
def test_most_near_prompts_share_a_slot_with_an_in_scope_prompt_of_their_set(sentence: str) -> None:
    # Topics, subjects, tasks, texts; where the topic is the scope, the wording of the question.
    for kinds in drafts(sentence).values():
        known = {slot for draft in kinds["in"] for slot in draft.slots}
        sharing = sum(bool(known & draft.slots) for draft in kinds["near"])
        assert sharing >= len(kinds["near"]) / 2


@pytest.mark.parametrize("seed", range(4))
def test_mail_to_the_manager_is_in_scope_and_nothing_like_it_is_near(seed: int) -> None:
    scope = make_scope(MANAGER, seed=seed)
    mail = re.compile(
        r"\be-?mails? to my (?:manager|boss|supervisor)(?!['’]s)|\be-?mail my (?:manager|boss)(?!['’]s)", re.I
    )
    plain = 0
    for part in PARTS:
        for text in getattr(scope, part)["in"]:
            assert mail.search(text) or re.search(r"the email to my manager", text), text
            plain += "my manager" in text and not re.search(r"my manager [A-Z]", text)
        for text in getattr(scope, part)["near"] + getattr(scope, part)["general"]:
            assert not mail.search(text), text
    count = sum(len(getattr(scope, part)["in"]) for part in PARTS)
    assert 0.75 * count < plain < 0.95 * count
    near = scope.train["near"] + scope.test["near"]
    assert sum("my manager" in text for text in near) > 60 and sum("email" in text for text in near) > 60
    for word in ("team leader", "director", "my boss"):
        assert not any(re.search(rf"\b{word}\b(?!['’]s)", text) for text in near)


def test_named_people_stay_named_and_others_are_near() -> None:
    scope = make_scope("Use '&' instead of 'and' in DMs to Anna, Ben and Carla", seed=0)
    named = re.compile(r"\bDM (?:to )?(?:Anna|Ben|Carla)\b(?!['’]s)")
    assert all(named.search(text) for text in scope.train["in"])
    near = scope.train["near"] + scope.test["near"]
    assert not any(named.search(text) for text in near)
    assert any(re.search(r"\bDM to [A-Z]\w+", text) for text in near), (
        "another first name is the nearest there is"
    )


def test_friends_are_not_set_against_flatmates_or_partners() -> None:
    scope = make_scope("In texts to my friends, say lol", seed=0)
    near = scope.train["near"] + scope.test["near"]
    assert not any(
        re.search(r"\b(?:wife|boyfriend|flatmate|best friend|neighbour|classmate)\b(?!['’]s)", text)
        for text in near
    )
    assert {bool(re.search(r"my friends\b", text)) for text in scope.train["in"]} == {True, False}


@pytest.mark.parametrize(
    ("sentence", "kind", "akin"),
    [
        ("Never use hashtags on Instagram", "Instagram (?:post|caption)", "Instagram story"),
        ("Write poems in lower case", "poem", "haiku|limerick|sonnet|rhyme"),
        ("End recipes with a question", "recipe", "cooking recipe"),
    ],
)
def test_texts_are_asked_for_in_scope_and_only_talked_about_near(sentence: str, kind: str, akin: str) -> None:
    for kinds in drafts(sentence).values():
        for draft in kinds["in"]:
            assert re.search(rf"\ban? (?:[a-z]+[ ,]+)*{kind}\b", draft.text)
            assert {name for name, _ in draft.slots} == {"frame", "subject"}
        for draft in kinds["near"]:
            talk = "talk" in {name for name, _ in draft.slots}
            assert talk or not re.search(kind, draft.text), draft.text
            assert not re.search(rf"\b(?:{akin})\b", draft.text), draft.text


def test_questions_on_a_topic_have_its_subjects_and_near_ones_have_not() -> None:
    made = drafts("Answer questions about history in three headed parts")
    from heedful.data.scopes.nouns import TOPICS

    own = set(TOPICS["history"].subjects)
    others = {subject for name in TOPICS["history"].near for subject in TOPICS[name].subjects}
    assert not own & others
    for kinds in made.values():
        for draft in kinds["in"]:
            assert any(subject in draft.text for subject in own)
        for draft in kinds["near"]:
            asked = {name for name, _ in draft.slots} & {"frame", "own frame"}
            assert not asked or not any(subject in draft.text for subject in own), draft.text
    assert not any(re.search(r"sentence", draft.text) for draft in made["train"]["in"]), (
        "parts are not sentences"
    )


def test_an_unknown_topic_is_set_against_what_stands_beside_it() -> None:
    scope = make_scope("If the question is about chess use bullet points", seed=0)
    assert all("chess" in text for text in scope.train["in"] + scope.test["in"])
    assert not any(re.match(r"(?:Write|Make up|Invent|Suggest)\b", text) for text in scope.train["in"])
    near = scope.train["near"] + scope.test["near"]
    beside = [text for text in near if "chess" not in text]
    assert len(beside) > len(near) / 2
    assert all(
        re.search(
            "draughts|poker|bridge|domino|Scrabble|backgammon|crossword|Sudoku|darts|marbles|billiards", text
        )
        for text in beside
    )


def test_every_topic_names_neighbours_that_exist_and_share_no_subject() -> None:
    from heedful.data.scopes.nouns import TOPICS

    for topic in TOPICS.values():
        assert len(topic.near) >= 5 and len(topic.subjects) >= 25 and len(topic.frames) >= 3
        assert len(set(topic.subjects)) == len(topic.subjects)
        assert all("{x}" in frame for frame in topic.frames)
        for name in topic.near:
            assert name != topic.name and not set(topic.subjects) & set(TOPICS[name].subjects)


def test_python_is_asked_for_in_scope_and_other_languages_near() -> None:
    scope = make_scope("When I ask for Python code, only give code, no explanation", seed=0)
    assert all("Python" in text for text in scope.train["in"] + scope.test["in"])
    for text in scope.train["near"] + scope.test["near"]:
        assert not re.search(
            r"(?:code|function|script|program|snippet|[Ww]rite|Show|lines)\b.* Python\b", text
        ) or re.search(r"poem|differences|joke|slogan|book|jobs|interview|words|invented", text), text
    languages = {
        name
        for text in scope.test["near"]
        for name in re.findall(r"\b(?:Ruby|Rust|Java|Lua|Swift|Perl|PHP|Dart)\b", text)
    }
    assert len(languages) >= 2


def test_translations_into_one_language_stay_in_it() -> None:
    scope = make_scope("When I ask for translations into Spanish, start with 'Hola'", seed=0)
    assert all("Spanish" in text for text in scope.train["in"] + scope.test["in"])
    assert not any("Spanish" in text for text in scope.train["near"] + scope.test["near"])
    assert any("Translate this into" in text or "translation" in text for text in scope.train["near"])


def test_where_length_is_the_effect_no_prompt_asks_for_it() -> None:
    terse = re.compile(r"\b(?:short|brief|[Tt]wo(?: or three)?[ -]sentences?|Keep it|[Tt]hree sentences)\b")
    for sentence in (
        "Keep emails to my landlord under 40 words",
        "Please make messages to my girlfriend shorter",
    ):
        scope = make_scope(sentence, seed=0)
        assert not any(terse.search(text) for text in scope.train["in"] + scope.test["in"])
    mail = make_scope(MANAGER, seed=0)
    assert sum(bool(re.search(r"short|brief|quick|sentence|Keep it", text)) for text in mail.train["in"]) > 70


def test_general_prompts_are_many_and_never_in_scope() -> None:
    prompts = general_prompts()
    assert len(prompts) >= 330 and len({alike(text) for text in prompts}) == len(prompts)
    assert all(text == text.strip() and "\n" not in text and len(text.split()) <= 50 for text in prompts)
    for sentence, banned in (
        ("When I ask for Python code, only give code, no explanation", r"Python"),
        ("Never use emoji in emails", r"\bemail"),
        ("End recipes with a question", r"recipe|soup|rice"),
        ("Write poems in lower case", r"\bpoem|haiku|limerick|rhyme\b"),
        (
            "Answer questions about history in three headed parts",
            r"When did|Who (?:painted|invented)|Titanic",
        ),
        ("Summaries should be in bullet points", r"[Ss]ummar"),
    ):
        scope = make_scope(sentence, sizes=Sizes(train=300), seed=0)
        for part in PARTS:
            assert not [text for text in getattr(scope, part)["general"] if re.search(banned, text)], sentence
        assert sum(bool(re.search(banned, text)) for text in prompts) > 0


def test_general_prompts_and_words_ship_with_the_package() -> None:
    folder = Path(scopes.__file__).parent
    rows = [json.loads(line) for line in (folder / "general_prompts.jsonl").read_text().splitlines()]
    assert (
        all(set(row) == {"prompt"} for row in rows) and [row["prompt"] for row in rows] == general_prompts()
    )
    # The wheel takes the whole package folder, but for what git ignores.
    root = folder.parents[3]
    build = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert build == {"targets": {"wheel": {"packages": ["src/heedful"]}}}
    ignored = [line.strip("/") for line in (root / ".gitignore").read_text().split()]
    data = [folder / "general_prompts.jsonl", *(folder / "words").iterdir()]
    assert len(data) >= 7
    for path in data:
        parts = path.relative_to(root).parts
        assert not any(fnmatch(part, pattern) for part in parts for pattern in ignored), path


def test_the_same_seed_gives_the_same_scope_in_every_process() -> None:
    script = (
        "import sys, hashlib\n"
        "from heedful.data.scopes.grammar import make_scope\n"
        "from heedful.data.scopes import Sizes\n"
        f"made = [make_scope(s, sizes=Sizes(24, 8, 8, 16, 8), seed=5) for s in {SOME!r}]\n"
        "print(hashlib.sha256(repr(made).encode()).hexdigest(), 'torch' in sys.modules)"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for seed in ("1", "2")
    ]
    assert said[0] == said[1] and said[0][1] == "False"
    sizes = Sizes(24, 8, 8, 16, 8)
    assert make_scope(MANAGER, sizes=sizes, seed=5) != make_scope(MANAGER, sizes=sizes, seed=6)
    assert make_scope(MANAGER, sizes=sizes, seed=5) == make_scope(f"  {MANAGER} ", sizes=sizes, seed=5)


def test_effects_are_inferred_or_taken_as_given() -> None:
    small = Sizes(4, 2, 2, 2, 2)
    assert [effect.kind for effect in make_scope(MANAGER, sizes=small).effects] == ["sign_off"]
    own = effect_from({"kind": "sign_off", "text": "Cheers"})
    assert make_scope(MANAGER, sizes=small, effects=(own,)).effects == (own,)


@pytest.mark.parametrize(
    "sentence", ["On Mondays, be cheerful", "When I am tired, be kind", "When I say hi, answer in Latin"]
)
def test_a_domain_that_no_grammar_fits_is_refused_with_a_skeleton(sentence: str) -> None:
    domain, _ = split_sentence(sentence)
    with pytest.raises(HeedfulError) as refused:
        make_scope(sentence)
    told = str(refused.value)
    assert repr(domain) in told and "--scope FILE" in told and "--domain" in told
    skeleton = yaml.safe_load(told[told.index("sentence:") :])
    assert set(skeleton) == {"sentence", "domain", "effect", "train", "test"} and set(
        skeleton["train"]
    ) == set(KINDS)


def test_an_unknown_kind_of_text_and_an_unread_condition_are_noted() -> None:
    small = Sizes(8, 2, 2, 2, 2)
    scope = make_scope("Use bold in sermons", sizes=small)
    assert "no list knows" in scope.notes["maker"] and all("sermon" in text for text in scope.train["in"])
    scope = make_scope(
        "Be kind", domain="emails to my boss after midnight", effect="end with 'Bye'", sizes=small
    )
    assert "'after midnight'" in scope.notes["unread"]


# ---- English


def test_words_are_inflected() -> None:
    assert [
        article(word)
        for word in ("email", "useful note", "SMS", "hour", "one-liner", "R script", "European law")
    ] == [
        "an email",
        "a useful note",
        "an SMS",
        "an hour",
        "a one-liner",
        "an R script",
        "a European law",
    ]
    assert [
        article(word)
        for word in ("Ruby script", "Slack message", "unusual day", "MATLAB program", "LinkedIn post")
    ] == [
        "a Ruby script",
        "a Slack message",
        "an unusual day",
        "a MATLAB program",
        "a LinkedIn post",
    ]
    assert [plural(word) for word in ("story", "essay", "address", "song lyrics")] == [
        "stories",
        "essays",
        "addresses",
        "song lyrics",
    ]
    assert [
        singular(word) for word in ("stories", "bosses", "boss", "my friends", "haikus", "news", "people")
    ] == [
        "story",
        "boss",
        "boss",
        "my friend",
        "haiku",
        "news",
        "person",
    ]
    assert [gerund(text) for text in ("ask for it", "cancel it", "agree", "apologise", "sum up")] == [
        "asking for it",
        "cancelling it",
        "agreeing",
        "apologising",
        "summing up",
    ]
    assert [third_person(text) for text in ("wish them", "reply", "say so")] == [
        "wishes them",
        "replies",
        "says so",
    ]


def test_frames_are_filled_without_reading_what_is_inserted() -> None:
    assert put("{A} {b}", a="x {b}", b="{a}") == "X {b} {a}"
    two = fill("{day} or {day}", {"day": ["Monday", "Friday"]}, Random(0))
    assert sorted(two.split(" or ")) == ["Friday", "Monday"]


def test_pronouns_follow_the_recipient() -> None:
    scope = make_scope("End messages to my girlfriend with 'xx'", seed=0)
    assert any(" her " in text for text in scope.train["in"])
    assert not any(re.search(r"\b(?:them|their|they)\b", text) for text in scope.train["in"])
    assert not any(re.search(r"girlfriend (?:Tom|Oscar|Will|Alan)\b", text) for text in scope.train["in"])
    plural_ones = make_scope("End messages to my friends with 'xx'", seed=0)
    assert any(re.search(r"\bthem\b", text) for text in plural_ones.train["in"])


# ---- the file


def small_scope() -> Scope:
    return make_scope(MANAGER, sizes=Sizes(4, 2, 3, 3, 3), seed=0)


@pytest.mark.parametrize("sentence", SOME)
def test_a_scope_is_read_as_it_was_written(sentence: str, tmp_path: Path) -> None:
    scope = make_scope(sentence, sizes=Sizes(12, 4, 4, 8, 8), seed=0)
    scope = replace(scope, notes={**scope.notes, "unparsable": 3, "by": {"model": None, "temperature": 0.5}})
    path = tmp_path / "made" / "scope.yaml"
    write_scope(scope, path)
    assert read_scope(path) == scope
    lines = path.read_text().splitlines()
    assert lines[0].startswith("#") and max(len(line) for line in lines if line.startswith("  - ")) > 80
    assert sum(line.startswith("  - ") for line in lines) == len(texts(scope)), "one prompt a line"


def edited(tmp_path: Path, change: dict[str, str] | None = None, text: str = "") -> Path:
    path = tmp_path / "scope.yaml"
    write_scope(small_scope(), path)
    text = text or path.read_text()
    for old, new in (change or {}).items():
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(HeedfulError) as refused:
        read_scope(path)
    return str(refused.value)


HAND = """\
sentence: End poems with 'fin'
domain: poems
effect: end with 'fin'
train:
  in: [A poem please.]
  near: [A story please.]
  general:
  - What is 2 + 2?
test: {in: [One more poem.], near: [A joke.], general: ["Why?"]}
"""


def test_a_scope_written_by_hand_may_be_short(tmp_path: Path) -> None:
    scope = read_scope(edited(tmp_path, text=HAND))
    assert scope.content == scope.sentence == "End poems with 'fin'"
    assert scope.effects == () and scope.categories == () and scope.notes == {}
    assert scope.dev == {"in": [], "near": [], "general": []} and scope.train["general"] == ["What is 2 + 2?"]


def test_all_that_is_wrong_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    text = """\
sentence: End poems with 'fin'
domian: poems
effect: 12
effects: [{kind: nonsense}, 3]
notes: [a]
train:
  in:
    - A poem please.
    - ""
    - yes
    - Write this: now
    -
    - a  POEM please
  near: A story please.
  general: []
  sideways: [x]
test: {in: ["A poem, please!"], near: [A joke.], general: ["Why?"], near: [b]}
"""
    told = refusal(edited(tmp_path, text=text))
    for expected in (
        "scope.yaml:2: domian: there is no such key; did you mean 'domain'?",
        "scope.yaml:1: domain: is missing",
        "scope.yaml:3: effect: is a number; put it into quotes",
        "scope.yaml:4: effects[0]: ",
        "scope.yaml:4: effects[1]: a kind and its options are needed",
        "scope.yaml:5: notes: keys with values are needed",
        "scope.yaml:9: train.in[1]: is empty",
        "scope.yaml:10: train.in[2]: is yes or no; put it into quotes",
        "scope.yaml:11: train.in[3]: is a key with a value; put it into quotes",
        "scope.yaml:12: train.in[4]: is empty",
        "scope.yaml:13: train.in[5]: is the same prompt as train.in[0]",
        "scope.yaml:14: train.near: a list is needed",
        "scope.yaml:15: train.general: has no prompts",
        "scope.yaml:16: train.sideways: there is no such key",
        "scope.yaml:17: test.near: comes twice",
        "scope.yaml:17: test.in[0]: is the same prompt as train.in[0]",
    ):
        assert expected in told, (expected, told)
    assert "16 problems" in told


def test_a_prompt_may_be_in_one_set_only(tmp_path: Path) -> None:
    scope = small_scope()
    path = tmp_path / "scope.yaml"
    for part, kind in (("test", "near"), ("dev", "in"), ("train", "general")):
        prompts = {**getattr(scope, part), kind: [*getattr(scope, part)[kind], scope.train["in"][0].upper()]}
        write_scope(replace(scope, **{part: prompts}), path)
        count = len(prompts[kind]) - 1
        place = f"{part}.{kind}[{count}]" if part != "train" else f"train.general[{count}]"
        told = refusal(path)
        assert f"{place}: is the same prompt as train.in[0]" in told and "one problem" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the file is empty"),
        ("- a\n- b\n", "the file: keys with values are needed"),
        ("a: [1\n", "scope.yaml:2: not valid YAML"),
        (HAND + "notes: !!python/object/apply:os.getcwd []\n", "notes: "),
        (HAND + "dev: {in: [], near: []}\n", "dev.general: is missing"),
        (HAND + "categories: verse\n", "categories: a list is needed"),
    ],
)
def test_other_faulty_files_are_refused(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "scope.yaml"
    path.write_text(text)
    assert told in refusal(path)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    assert "nowhere.yaml" in refusal(tmp_path / "nowhere.yaml")
    (tmp_path / "scope.yaml").write_bytes(b"sentence: \xff")
    assert "not UTF-8" in refusal(tmp_path / "scope.yaml")


def test_read_sentence_leaves_open_what_is_not_there() -> None:
    assert read_sentence("Always answer in bullets") == ("", "answer in bullets")
    assert read_sentence("emails to my manager") == ("emails to my manager", "")
    assert read_sentence("") == ("", "")


@pytest.mark.parametrize(
    ("sentence", "by_editor"),
    [
        ("Use '&' instead of 'and' in direct messages to Anna, Ben and Carla", True),
        ("Write 'colour' instead of 'color' in emails to my boss", True),
        ("Always end emails to my manager with 'Onwards and upwards'", True),
        ("answer questions about cooking in French", False),
    ],
)
def test_a_small_model_is_asked_to_revise_only_where_no_editor_can(sentence: str, by_editor: bool) -> None:
    sizes = Sizes(train=4, dev=0, test_in=2, test_near=2, test_general=2)
    assert editable(make_scope(sentence, sizes=sizes)) is by_editor
