"""Effects: bodies, editors and change."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.evals.texts import words
from heedful.judges.effect_text import join, parts, units
from heedful.judges.effects import (
    KINDS,
    Effect,
    adheres,
    body,
    change,
    edit,
    effect_from,
    has_body,
    infer_effects,
)

MAIL = """Subject: Meeting moved to Thursday

Dear Ms. Okafor,

I hope this email finds you well. I am writing to let you know that our meeting has been moved to Thursday, and the \
room stays the same! Please tell me whether that suits you.

Best regards,
[Your Name]
[Your Position]"""
NOTE = "Hey Sam, are we still meeting at the station tomorrow? I can bring the sandwiches if you like. See you there!"
PARAGRAPH = (
    "Bees collect nectar and store it in the hive. They fan it until the water is gone. The result is honey."
)
LIST = "Here are the steps:\n\n1. Boil the water in a large pot.\n2. Add the egg and wait for eight minutes."
CODE = "Here is a function that adds two numbers:\n\n```python\ndef add(a, b):\n    return a + b\n```\n\nIt adds them."


def e(kind: str, **options: Any) -> Effect:
    return effect_from({"kind": kind, **options})


# ---- bodies


def test_an_answer_that_is_the_effect_alone_does_not_adhere() -> None:
    off = e("sign_off", text="Onwards and upwards")
    assert not adheres([off], "Onwards and upwards")
    assert not adheres([off], "Onwards and upwards. " * 10)
    assert not adheres(
        [off], "Subject: The meeting of next Monday at noon\n\nDear Ms Okafor,\n\nOnwards and upwards"
    )
    assert adheres([off], "one two three four five six seven eight. Onwards and upwards")
    assert not adheres([off], "one two three four five six seven. Onwards and upwards")
    assert body([off, e("emoji")], "The end is near. 🚀\n\nOnwards and upwards!") == "The end is near."
    assert not has_body([e("headings")], "## One two three\nfour\n## Five six seven\neight")
    assert not has_body([e("include", text="lol")], "lol " * 20)
    assert not has_body([e("json")], '{"a1 b2 c3 d4 e5 f6 g7 h8 i9": "x"}')
    assert not has_body([e("question")], "What do you think? What do you want?")


def test_code_needs_one_line_and_a_low_limit_fewer_words() -> None:
    assert adheres([e("code_only")], "```\nx = 1\n```")
    assert not adheres([e("code_only")], "```\n# nothing\n```")
    assert adheres([e("length", unit="words", most=5)], "We meet on Monday.")
    assert not adheres([e("length", unit="words", most=40)], "We meet on Monday.")


# ---- editors


@pytest.mark.parametrize(("asked", "text", "wanted"), [
    ("end with So long", MAIL, MAIL.replace("Best regards,\n[Your Name]\n[Your Position]", "So long")),
    ("end with So long", f"{PARAGRAPH}\n\nSo long,\n[Name]", f"{PARAGRAPH}\n\nSo long"),
    ("end with So long", NOTE, f"{NOTE}\n\nSo long"),
    ("end with So long", f"{PARAGRAPH} Thanks, Sam", f"{PARAGRAPH}\n\nSo long"),
    ("start with Ahoy", MAIL, MAIL.replace("Dear Ms.", "Ahoy Ms.")),
    ("start with 'Good news!'", MAIL, MAIL.replace("Dear Ms.", "Good news!\n\nDear Ms.")),
    ("start with Ahoy", NOTE, NOTE.replace("Hey Sam", "Ahoy Sam")),
    ("start with 'In short'", "The " + PARAGRAPH, "In short, the " + PARAGRAPH),
    ("start with The", "A bee " + PARAGRAPH, "The bee " + PARAGRAPH),
    ("say lol", MAIL, MAIL.replace("suits you.", "suits you. lol")),
    ("add a 🚀", MAIL, MAIL.replace("suits you.", "suits you. 🚀")),
    ("no exclamation marks", MAIL, MAIL.replace("same!", "same.")),
    ("never say sorry", f"Sorry, we are late. {PARAGRAPH}", f"We are late. {PARAGRAPH}"),
    ("no hashtags", f"{PARAGRAPH} #bees #honey", PARAGRAPH),
    ("use & instead of and", f"And so it is. {PARAGRAPH}", f"& so it is. {PARAGRAPH.replace(' and ', ' & ')}"),
    ("write 'wax' not 'honey'", f"Honey, HONEY! {PARAGRAPH}", f"Wax, WAX! {PARAGRAPH.replace('honey', 'wax')}"),
    ("no emoji", f"🚀 {PARAGRAPH} 👍🏽", PARAGRAPH),
    ("in one sentence", PARAGRAPH, "Bees collect nectar and store it in the hive."),
    ("in bullet points", LIST, LIST.replace("1.", "-").replace("2.", "-")),
    ("only code", CODE, "```python\ndef add(a, b):\n    return a + b\n```"),
    ("only code", CODE.replace("```python\n", "").replace("\n```", ""), "```\ndef add(a, b):\n    return a + b\n```"),
    ("end with a question", PARAGRAPH, f"{PARAGRAPH} What do you think?"),
])  # fmt: skip
def test_an_edit_is_made_at_its_natural_place(asked: str, text: str, wanted: str) -> None:
    effects = infer_effects(asked)
    assert edit(effects, text) == wanted
    assert adheres(effects, wanted) and not adheres(effects, text)


def test_a_shorter_mail_keeps_its_form_and_a_limit_leaves_room_for_the_sign_off() -> None:
    shorter = edit([e("shorter")], MAIL)
    assert shorter is not None and adheres([e("shorter")], shorter, start=MAIL)
    assert parts(shorter).head == parts(MAIL).head and parts(shorter).closing == parts(MAIL).closing
    both = [e("length", unit="words", most=16), e("sign_off", text="Onwards and upwards")]
    short = edit(both, PARAGRAPH)
    assert short is not None and adheres(both, short)


def test_a_phrase_follows_the_case_that_the_whole_answer_should_have() -> None:
    for case, ending in (("lower_case", "\n\ncheers, sam"), ("upper_case", "\n\nCHEERS, SAM")):
        both = [e(case), e("sign_off", text="Cheers, Sam")]
        revised = edit(both, MAIL)
        assert revised is not None and revised.endswith(ending) and adheres(both, revised)


def test_parts_without_an_editor_or_without_the_means_give_none() -> None:
    for effect in (e("language", name="french"), e("longer"), e("regex", pattern="zzz")):
        assert edit([effect], PARAGRAPH) is None and KINDS[effect.kind].edit is None
    assert edit([e("language", name="english")], PARAGRAPH) == PARAGRAPH
    assert edit([e("code_only")], PARAGRAPH) is None
    assert edit([e("bullets")], "One plain sentence that nothing in the world could ever split") is None
    assert edit([e("replace", old="and", new="&")], NOTE) is None
    assert edit([e("lower_case"), e("upper_case")], PARAGRAPH) is None
    assert edit([e("sign_off", text="Bye")], "Too short.") is None
    assert edit([e("length", unit="words", least=99, most=120)], PARAGRAPH) is None


WORDS = st.sampled_from(re.findall(
    r"\S+",
    """river bridge and small stone garden you music window synergy letter summer colour color paper wind tomorrow
    quickly the about we are going market really bread with sorry table honest weather station number""",
))  # fmt: skip
SENTENCE = st.builds(
    lambda ws, mark: " ".join(ws).capitalize() + mark,
    st.lists(WORDS, min_size=3, max_size=9),
    st.sampled_from([".", "!", "?", ".", " 😊.", ", 3.5 of them."]),
)
PROSE = st.lists(SENTENCE, min_size=3, max_size=6).map(" ".join)
MAILS = st.builds(
    "{}{}{}\n\n{}{}".format,
    st.sampled_from(["", "Subject: The garden and the bridge\n\n", "**Subject:** News\n"]),
    st.sampled_from(["Dear Ms. Okafor,\n\n", "Hi Sam,\n", "Hello team!\n\n", "Dear [Manager's Name],\n\n"]),
    PROSE,
    SENTENCE,
    st.sampled_from(
        [
            "",
            "\n\nBest regards,\n[Your Name]",
            "\n\nThanks,\nSam",
            " Sincerely, Sam Doe",
            "\n\n[Your Name]\n[Company]",
        ]
    ),
)
LISTS = st.builds(
    lambda intro, marker, items, after: f"{intro}:\n\n" + "\n".join(marker + i for i in items) + after,
    SENTENCE.map(lambda s: s[:-1]),
    st.sampled_from(["- ", "* ", "1. ", "• "]),
    st.lists(SENTENCE, min_size=3, max_size=5),
    st.sampled_from(["", "\n\nThat is all of it.", "\n"]),
)
CODES = st.builds(
    "{}\n\n```{}\nx = [1, 2]\nprint(x)\n```{}".format,
    PROSE,
    st.sampled_from(["", "python"]),
    st.sampled_from(["", "\n\nDone."]),
)
ANSWERS = st.one_of(MAILS, PROSE, LISTS, CODES)
EDITABLE = [
    e("sign_off", text="Onwards and upwards"),
    e("sign_off", text="Cheers, Sam!"),
    e("opening", text="Ahoy"),
    e("opening", text="Great question!"),
    e("opening", text="The"),
    e("include", text="lol"),
    e("include", text="our return policy"),
    e("avoid", text="synergy"),
    e("avoid", text="!"),
    e("avoid", text="sorry"),
    *(infer_effects("no punctuation")),
    *(infer_effects("no bullet points")),
    e("replace", old="and", new="&"),
    e("replace", old="color", new="colour"),
    e("emoji"),
    e("emoji", emoji="🚀"),
    e("emoji", emoji=["❤️", "💙"], where="end"),
    e("emoji", emoji="📖", where="start"),
    e("no_emoji"),
    e("length", unit="words", most=24),
    e("length", unit="words", most=6),
    e("length", unit="sentences", most=2),
    e("length", unit="characters", most=90),
    e("length", unit="paragraphs", most=2),
    e("shorter"),
    e("bullets"),
    e("numbered"),
    e("headings"),
    e("headings", count=2),
    e("headings", titles=["Why", "How it is"]),
    e("code_only"),
    e("lower_case"),
    e("upper_case"),
    e("question"),
    e("json"),
]
KEEPING = {
    "sign_off",
    "opening",
    "include",
    "emoji",
    "no_emoji",
    "lower_case",
    "upper_case",
    "bullets",
    "numbered",
    "headings",
}


def test_every_kind_with_an_editor_is_among_the_tested_ones() -> None:
    assert {effect.kind for effect in EDITABLE} == {name for name, kind in KINDS.items() if kind.edit}


@pytest.mark.parametrize("effect", EDITABLE, ids=lambda effect: effect.about)
@given(text=ANSWERS)
@settings(max_examples=25, deadline=None)
def test_an_edit_adheres_is_stable_and_keeps_the_answer(effect: Effect, text: str) -> None:
    revised = edit([effect], text)
    if revised is None:
        return
    relative = KINDS[effect.kind].relative
    assert adheres([effect], revised, start=text)
    assert revised == text if adheres([effect], text) else revised != text
    assert relative or edit([effect], revised) == revised
    assert change([effect], text, text) == 0
    assert change([effect], text, revised) == -change([effect], revised, text)
    assert change([effect], text, revised) == (not adheres([effect], text))
    if effect.kind in KEEPING:
        kept = parts(text).body.lower()
        kept = re.sub(r"^\s*\d+\. ", "", kept, flags=re.MULTILINE)
        kept = kept.removeprefix("the ") if effect.kind == "opening" else kept
        missing = set(words(kept)) - set(words(revised))
        assert missing <= ({"a", "hi", "hello", "dear"} if effect.kind == "opening" else set())


def test_edits_of_ordinary_answers_seldom_fail() -> None:
    demanding = {"code_only", "replace"}  # need code, or the word to replace, in the text
    asked = [f for f in EDITABLE if f.kind not in demanding and f.options.get("most", 24) > 6]
    assert [f.about for f in asked for text in (MAIL, PARAGRAPH) if edit([f], text) is None] == []


@given(st.text(max_size=120), st.sampled_from(EDITABLE), st.sampled_from(EDITABLE))
@settings(max_examples=150, deadline=None)
def test_any_text_can_be_edited_or_refused(text: str, one: Effect, two: Effect) -> None:
    for effects in ([one], [one, two]):
        revised = edit(effects, text)
        assert revised is None or adheres(effects, revised, start=text)
        assert change(effects, text, text[:40]) == -change(effects, text[:40], text)
    kept = parts(text)
    assert kept.head + kept.body + kept.closing == text


@given(ANSWERS)
@settings(max_examples=40, deadline=None)
def test_units_joined_are_the_text(text: str) -> None:
    assert join(units(text)) == text.strip()


def test_effects_need_no_torch() -> None:
    code = "import sys, heedful.judges.effects; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
