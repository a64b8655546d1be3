"""Effects from the words in which a person asks for them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.judges.effects import (
    as_plain,
    effect_from,
    holds,
    infer_effects,
)

ONWARDS = {"kind": "sign_off", "text": "Onwards and upwards"}


def p(kind: str, **options: Any) -> dict[str, Any]:
    return {"kind": kind, **options}


CLAUSES: list[tuple[str, list[dict[str, Any]]]] = [
    *(
        (clause, [ONWARDS])
        for clause in (
            "end with 'Onwards and upwards'",
            "Always end with ‘Onwards and upwards’.",
            "please end emails with “Onwards and upwards”",
            'make sure it ends with "Onwards and upwards"',
            "close with Onwards and upwards",
            "they should finish with Onwards and upwards please",
            "end with ''Onwards and upwards''",
            "sign off with `Onwards and upwards`",
            "put 'Onwards and upwards' at the very end",
            "'Onwards and upwards' should be the last line",
            'use "Onwards and upwards" as the sign-off',
            "the last line should be Onwards and upwards",
            "conclude by writing 'Onwards and upwards' instead of 'Best regards'",
        )
    ),
    ("sign off with “Cheers, Sam”", [p("sign_off", text="Cheers, Sam")]),
    ("sign off with Cheers, Sam", [p("sign_off", text="Cheers, Sam")]),
    ("end with 'That's all'", [p("sign_off", text="That's all")]),
    ("end with 'Cheers' and my name", [p("sign_off", text="Cheers", name_line=True)]),
    ("end with Stay safe and keep smiling", [p("sign_off", text="Stay safe and keep smiling")]),
    ("start with the word Ahoy", [p("opening", text="Ahoy")]),
    ('always begin with "Great question!"', [p("opening", text="Great question!")]),
    ("make the first word The", [p("opening", text="The")]),
    ("use 'The' as the first word", [p("opening", text="The")]),
    ("say lol", [p("include", text="lol")]),
    ("include the word 'lol'", [p("include", text="lol")]),
    ("mention “our return policy” somewhere", [p("include", text="our return policy")]),
    ("say please and thank you", [p("include", text="please and thank you")]),
    ("call me 'Captain'", [p("include", text="Captain")]),
    ("never use the word 'synergy'", [p("avoid", text="synergy")]),
    ("don’t say ‘sorry’", [p("avoid", text="sorry")]),
    ("stop saying basically", [p("avoid", text="basically")]),
    ("never say synergy or leverage", [p("avoid", text="synergy"), p("avoid", text="leverage")]),
    ("avoid the words 'synergy' and 'leverage'", [p("avoid", text="synergy"), p("avoid", text="leverage")]),
    ("no '#'", [p("avoid", text="#")]),
    ("avoid exclamation marks", [p("avoid", text="!", name="exclamation marks")]),
    ("without exclamation marks", [p("avoid", text="!", name="exclamation marks")]),
    ("use '&' instead of 'and'", [p("replace", old="and", new="&")]),
    ("use & instead of and", [p("replace", old="and", new="&")]),
    ("replace 'and' with '&'", [p("replace", old="and", new="&")]),
    ("don't write 'and', write '&'", [p("replace", old="and", new="&")]),
    ("write 'colour' not 'color'", [p("replace", old="color", new="colour")]),
    ("write 'colour', never 'color'", [p("replace", old="color", new="colour")]),
    ("do not use emoji", [p("no_emoji")]),
    ("keep it emoji-free", [p("no_emoji")]),
    ("use emojis", [p("emoji")]),
    ("always add a 🚀", [p("emoji", emoji="🚀")]),
    ("add a penguin emoji", [p("emoji", emoji="🐧")]),
    ("end with a thumbs up emoji", [p("emoji", emoji="👍", where="end")]),
    ("keep them under 40 words", [p("length", unit="words", most=39)]),
    ("don't use more than 40 words", [p("length", unit="words", most=40)]),
    ("limit answers to 40 words", [p("length", unit="words", most=40)]),
    ("40 words max", [p("length", unit="words", most=40)]),
    ("answer in one sentence", [p("length", unit="sentences", most=1)]),
    ("in two sentences", [p("length", unit="sentences", most=2)]),
    ("at most 280 characters", [p("length", unit="characters", most=280)]),
    ("exactly three sentences", [p("length", unit="sentences", least=3, most=3)]),
    ("between 20 and 40 words", [p("length", unit="words", least=20, most=40)]),
    ("be shorter", [p("shorter")]),
    ("keep it short", [p("shorter")]),
    ("write more concisely", [p("shorter")]),
    ("don't be so wordy", [p("shorter")]),
    ("be more detailed", [p("longer")]),
    ("in bullet points", [p("bullets")]),
    ("use bullet points instead of paragraphs", [p("bullets")]),
    ("as a numbered list", [p("numbered")]),
    ("reply in three headed parts", [p("headings", count=3)]),
    ("use headings", [p("headings")]),
    ("under the headings 'Why' and 'How'", [p("headings", titles=["Why", "How"])]),
    ("only give code, no explanation", [p("code_only")]),
    ("just the code", [p("code_only")]),
    ("reply with nothing but Python code", [p("code_only")]),
    ("write everything in lower case", [p("lower_case")]),
    ("no capital letters", [p("lower_case")]),
    ("in ALL CAPS", [p("upper_case")]),
    ("finish by asking a question", [p("question")]),
    ("end with a question", [p("question")]),
    ("answer in French", [p("language", name="french")]),
    ("don't forget to end with 'Cheers'", [p("sign_off", text="Cheers")]),
    ("sign off with 'Onwards and upwards' on its own line", [ONWARDS]),
    ("start with 'Ahoy', not with 'Hello'", [p("opening", text="Ahoy")]),
    ("start and end with 'Ahoy'", [p("opening", text="Ahoy"), p("sign_off", text="Ahoy")]),
    ("drop the word 'very'", [p("avoid", text="very")]),
    ("avoid using the # symbol", [p("avoid", text="#")]),
    ("never mention Bob", [p("avoid", text="Bob")]),
    ("use the ampersand instead of 'and'", [p("replace", old="and", new="&")]),
    ("substitute '&' for 'and'", [p("replace", old="and", new="&")]),
    ('say "y\'all" instead of “you guys”', [p("replace", old="you guys", new="y'all")]),
    ("in three sections with headings", [p("headings", count=3)]),
    ("reply only in German please", [p("language", name="german")]),
    ("match the regex '^Dear'", [p("regex", pattern="^Dear")]),
    ("reply in JSON", [p("json")]),
    # several
    ("end with 'Cheers' and never say 'synergy'", [p("sign_off", text="Cheers"), p("avoid", text="synergy")]),
    ("never say 'synergy' and end with 'Cheers'", [p("avoid", text="synergy"), p("sign_off", text="Cheers")]),
    ("no emojis, answer with a question", [p("no_emoji"), p("question")]),
    ("include a rocket emoji and the word 'launch'", [p("emoji", emoji="🚀"), p("include", text="launch")]),
    ("say 'Hi' at the start and 'Bye' at the end", [p("opening", text="Hi"), p("sign_off", text="Bye")]),
    ("one sentence in French", [p("length", unit="sentences", most=1), p("language", name="french")]),
    ("end with 'Onwards and upwards' and use no emoji", [ONWARDS, p("no_emoji")]),
    ("end with Onwards and upwards and never use emoji", [ONWARDS, p("no_emoji")]),
    ("be shorter, with no emoji", [p("shorter"), p("no_emoji")]),
    ("no emoji, in bullet points", [p("no_emoji"), p("bullets")]),
    (
        "open with 'Ahoy' and close with 'Bye and farewell'",
        [p("opening", text="Ahoy"), p("sign_off", text="Bye and farewell")],
    ),
]


@pytest.mark.parametrize(("clause", "wanted"), CLAUSES)
def test_an_effect_is_inferred_from_the_words_of_a_person(clause: str, wanted: list[dict[str, Any]]) -> None:
    assert [as_plain(effect) for effect in infer_effects(clause)] == wanted


@pytest.mark.parametrize(("asked", "has", "lacks"), [
    ("no hashtags", "tags: see issue #", "so #happy"),
    ("no punctuation", "don't stop at 3.5 or 10:30", "Stop, now"),
    ("no bullet points", "one - two", "one\n- two"),
    ("never start with 'Sure'", "I am sure.", "Sure, I can."),
    ("don't end with a question", "Why? Because.", "Because. Why?"),
    ("no heart emojis", "a 🚀 flies", "a 💙 beats"),
    ("no links", "see the site", "see https://a.example"),
    ("don't use contractions", "The cat's owner does not know", "She doesn’t know"),
    ("end with 'Bye' or 'Ciao'", "That is all. Ciao!", "Bye, that is all."),
    ("add a hashtag", "so #happy", "so happy"),
])  # fmt: skip
def test_what_is_inferred_as_a_pattern_means_what_was_asked(asked: str, has: str, lacks: str) -> None:
    (effect,) = infer_effects(asked)
    assert holds(effect, has) and not holds(effect, lacks)


@pytest.mark.parametrize("clause", [
    "", "be funny", "sound like a pirate", "use a 'friendly' tone", "end with a summary", "open with a joke",
    "avoid jargon", "mention the deadline", "include an example", "answer in Polish", "'Onwards and upwards'",
    "end with 'Onwards' and be funny", "end each sentence with lol", "keep every sentence under 9 words",
    "answer the question", "add an emoji at the end of every sentence", "never give only code", "write short sentences",
    "end with 'Cheers' or else", "never end without 'Cheers'", "end with 'Cheers' and 'Bye'", "use emojis for fun",
    "close with a line about the weather", "make the first word bold", "use French for greetings", "use 3 examples",
    "use British English", "avoid jargon, slang", "don't start sentences with 'I'", "write in French and English",
    "change the tone to formal", "use humour instead of facts", "say that we are closed", "end with 'x' " * 80,
])  # fmt: skip
def test_a_clause_that_is_not_understood_as_a_whole_gives_no_effect(clause: str) -> None:
    assert infer_effects(clause) == []


@given(st.from_regex(r"[A-Z][a-z]{1,6}( (and|or|never|with|no|end) [a-z]{1,6}){0,3}", fullmatch=True))
@settings(max_examples=40, deadline=None)
def test_a_quoted_text_is_never_split(text: str) -> None:
    for left, right in ("''", '""', "“”", "‘’"):
        assert [as_plain(f) for f in infer_effects(f"end with {left}{text}{right}")] == [
            p("sign_off", text=text)
        ]
        assert [as_plain(f) for f in infer_effects(f"never say {left}{text}{right}, no emoji")] == [
            p("avoid", text=text),
            p("no_emoji"),
        ]


@given(st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_text_can_be_a_clause(text: str) -> None:
    for effect in infer_effects(text) + infer_effects(f"end with {text}"):
        assert effect_from(as_plain(effect)) == effect and effect.about


def test_the_words_for_an_effect_say_what_it_asks() -> None:
    assert infer_effects("end with 'Onwards and upwards'")[0].about == "ends with 'Onwards and upwards'"
    assert effect_from(p("sign_off", text="That's all")).about == 'ends with "That\'s all"'
    assert effect_from(p("length", unit="sentences", most=1)).about == "has at most 1 sentence"
    assert infer_effects("no hashtags")[0].about == "has no hashtags"
    assert effect_from(p("emoji", emoji="🚀", where="end")).about == "has a 🚀 at the end"
