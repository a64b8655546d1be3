"""Whether a text has an effect, and the options of effects."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from heedful.errors import HeedfulError
from heedful.judges.effect_text import parts
from heedful.judges.effects import (
    Effect,
    as_plain,
    change,
    effect_from,
    holds,
)

LIST = "Here are the steps:\n\n1. Boil the water in a large pot.\n2. Add the egg and wait for eight minutes."
CODE = "Here is a function that adds two numbers:\n\n```python\ndef add(a, b):\n    return a + b\n```\n\nIt adds them."


def e(kind: str, **options: Any) -> Effect:
    return effect_from({"kind": kind, **options})


CHECKS: list[tuple[Effect, list[str], list[str]]] = [
    (
        e("sign_off", text="Onwards and upwards"),
        ["Bye.\n\nOnwards and upwards", "So, onwards and upwards!", "He said: “Onwards and upwards.”**"],
        ["Onwards and upwards\nSam", "Onwards And Upwards", "Onwards and upwards, friends", "downwards and upwards"],
    ),
    (e("sign_off", text="Bye", name_line=True), ["Bye,\nSam Doe", "Bye"], ["Bye,\nSam\nDoe", "Bye, Sam"]),
    (e("sign_off", text="Thanks 🚀"), ["Go. thanks 🚀!"], ["Thanks", "Thanks 🚀 💙"]),
    (
        e("opening", text="Ahoy"),
        ["Ahoy, Sam!", "**ahoy** there", "Subject: Hi\n\nAhoy Sam,", "Ahoy\nSubject: Hi"],
        ["Well, ahoy", "Ahoyhoy", "Subject: Ahoy\n\nDear Sam,"],
    ),
    (e("include", text="lol"), ["So LOL, yes", "(lol)"], ["lollipop", "l o l"]),
    (e("include", text="return policy"), ["our return\npolicy."], ["return our policy"]),
    (e("avoid", text="and"), ["a sandy band"], ["you And me"]),
    (e("avoid", text="don't"), ["do not"], ["I don’t"]),
    (e("avoid", text="#"), ["number 1"], ["C#"]),
    (e("avoid", text=":)"), ["note: (a)"], ["hi :)"]),
    (e("avoid", regex="^So"), ["And so"], ["Yes.\nSo it is"]),
    (e("replace", old="and", new="&"), ["you & me"], ["you & me and Sam", "only me"]),
    (e("replace", old="up", new="up and away"), ["fly up and away"], ["fly up"]),
    (e("replace", old="internet", new="Internet"), ["the Internet"], ["the internet", "the Internet and internet"]),
    (e("emoji"), ["hi 👋🏽", "hi 🇫🇷", "hi ❤️", "1️⃣ first"], ["hi", "™ © ✓ → 1 #"]),
    (e("emoji", emoji="❤️"), ["I ❤ it"], ["I 💙 it"]),
    (e("emoji", emoji=["❤️", "💙"]), ["I 💙 it"], ["I 💚 it"]),
    (e("emoji", emoji="👍", where="end"), ["Good. 👍🏿"], ["👍 Good.", "Good"]),
    (e("emoji", where="start"), ["👍 Good."], ["Good 👍"]),
    (e("no_emoji"), ["™ fine :)"], ["fine ☺️"]),
    (e("length", unit="words", most=3), ["one, two, three"], ["one two three four"]),
    (e("length", unit="words", most=4, least=2), ["a b"], ["a", "a b c d e"]),
    (e("length", unit="sentences", most=1), ["Dr. Doe is 3.5.", "Hi Sam,\n\nCome.\n\nBest,\nMax"], ["Go on. Go."]),
    (e("length", unit="characters", most=4), ["abcd "], ["abcde"]),
    (e("length", unit="paragraphs", most=1), ["a\nb"], ["a\n\nb"]),
    (e("bullets"), ["So:\n- one two\n- three", "Hi Sam,\n\n• one\n• two"], ["- one", "A long text.\n- a\n- b", LIST]),
    (e("numbered"), [LIST, "1) a\n2) b", "**1.** a\n**2.** b"], ["- a\n- b", "1. a", "In 2. and 3. place"]),
    (e("headings", count=2), ["## A\nx\n\n**B**\ny"], ["## A\nx", "## A\n## B\ny", "# A\nx\n# B\ny\n# C\nz"]),
    (e("headings"), ["# A\nx\n# B\ny\n# C\nz"], ["# A\nx", "text"]),
    (e("headings", titles=["Why", "How"]), ["## Why\nx\n## How\ny"], ["## How\nx\n## Why\ny"]),
    (
        e("code_only"),
        ["```python\nprint(1)\n```", "def f(x):\n    return x\n\nprint(f(1))", "x = 1", "import os\nos.listdir('.')"],
        [CODE, "```\n```", "# only a comment", "Use it.", "if you like it, keep it", "print it", "for example: this"],
    ),
    (e("lower_case"), ["all of it."], ["All of it.", "123"]),
    (e("upper_case"), ["ALL 3."], ["ALL of it"]),
    (e("question"), ["It is. Is it?", "“Is it?”"], ["Is it? It is.", "Is it?\n\nBest,\nSam"]),
    (e("regex", pattern="b+"), ["abb"], ["ac"]),
    (e("regex", pattern="b+", present=False), ["ac"], ["abb"]),
    (e("json"), ['{"a": [1]}', "```json\n[1, 2]\n```", "[]"], ["3", "{a: 1}", "Here: {}", '{"a": NaN}', "[" * 10000]),
]  # fmt: skip


@pytest.mark.parametrize(("effect", "good", "bad"), CHECKS)
def test_a_check_tells_texts_with_the_effect_from_texts_without(
    effect: Effect, good: list[str], bad: list[str]
) -> None:
    assert [text for text in good if not holds(effect, text)] == []
    assert [text for text in bad if holds(effect, text)] == []


LANGUAGES = {
    "french": "Les abeilles récoltent le nectar des fleurs et le rapportent à la ruche pour en faire du miel.",
    "spanish": "Las abejas recogen el néctar de las flores y lo llevan a la colmena para hacer miel.",
    "german": "Die Bienen sammeln den Nektar der Blüten und bringen ihn in den Stock, um Honig zu machen.",
    "italian": "Le api raccolgono il nettare dei fiori e lo portano nell'alveare per fare il miele.",
    "portuguese": "As abelhas recolhem o néctar das flores e levam-no para a colmeia para fazer mel.",
    "dutch": "De bijen verzamelen nectar uit de bloemen en brengen die naar de korf om er honing van te maken.",
    "english": "The bees collect the nectar of the flowers and bring it to the hive to make honey.",
}


@pytest.mark.parametrize("name", LANGUAGES)
def test_each_language_is_told_from_the_others(name: str) -> None:
    assert [other for other in LANGUAGES if holds(e("language", name=name), LANGUAGES[other])] == [name]
    assert not holds(e("language", name=name), "SmolLM2, GPT, LoRA")


def test_length_compares_with_the_start_and_noise_does_not_count() -> None:
    start = "word " * 100
    shorter, longer = e("shorter"), e("longer")
    assert holds(shorter, "word " * 89, start=start) and not holds(shorter, "word " * 90, start=start)
    assert holds(longer, "word " * 112, start=start) and not holds(longer, "word " * 111, start=start)
    assert not holds(shorter, "word") and not holds(longer, "word")
    assert change([shorter], start, "word " * 89) == 1 and change([shorter], "word " * 89, start) == -1
    assert change([shorter], start, "word " * 95) == 0
    assert change([shorter], start, "too short") == 0, "an answer without a body is no improvement"


@pytest.mark.parametrize("closing", [
    "\n\nBest regards,\n\n[Your Name]\n\n[Your Position]\n[Company]\n[City, State]\n[Phone]",
    "\n\nWarm regards,\n\nSamantha Lee\nMarketing Manager, Acme Inc.",
    "\n\n**Sincerely,**\nJohn Doe.",
    "\n\nThank you,\n\nYours in service,\nSam",
    "\nRegards,\nSam Doe\nsam@doe.com\n+44 20 7946 0000",
    "\n\nHave a great day!\n\nBest,\nSam",
    " Sincerely, [Your Name]",
    "\n\n- Sam",
    "\n\n{{name}}",
    "",
])  # fmt: skip
def test_a_mail_is_taken_apart_at_its_greeting_and_its_closing(closing: str) -> None:
    head = "Subject: A day off\n\nGood morning Dr. Okafor,\n\n"
    text = "I am writing to ask for a day off.\n\nThank you for your time.\nP.S. I mean Friday, not Monday."
    found = parts(head + text + closing)
    assert (found.head, found.body, found.closing) == (head, text, closing)
    assert parts(text).head == "" and parts(text).body == text


# ---- options


@pytest.mark.parametrize("effect", [c[0] for c in CHECKS], ids=lambda effect: effect.about)
def test_an_effect_goes_through_yaml(effect: Effect) -> None:
    text = yaml.safe_dump(as_plain(effect), allow_unicode=True)
    assert effect_from(yaml.safe_load(text)) == effect
    assert effect.about and effect.about == effect.about.strip()


@pytest.mark.parametrize(("written", "named"), [
    ("[1]", "mapping"),
    ("{text: a}", "kind"),
    ("{kind: poem}", "kind: .*poem"),
    ("{kind: 3}", "kind: .*3"),
    ("{kind: sign_off}", "text: .*needs"),
    ("{kind: sign_off, txt: a, text: b}", "txt: .*it has text, name_line"),
    ("{kind: sign_off, text: yes}", "text: .*quotes"),
    ("{kind: sign_off, text: ' '}", "text: .*empty"),
    ("{kind: sign_off, text: a, name_line: 1}", "name_line: .*true or false"),
    ("{kind: opening, text: \"a\\nb\"}", "text: .*one line"),
    ("{kind: avoid}", "text or regex"),
    ("{kind: avoid, text: a, regex: b}", "either text or regex"),
    ("{kind: avoid, regex: '(a'}", "regex: .*does not compile"),
    ("{kind: regex, pattern: '[a'}", "pattern: .*does not compile.*character 1"),
    ("{kind: replace, old: a}", "new: .*needs"),
    ("{kind: replace, old: a, new: a}", "differ"),
    ("{kind: emoji, emoji: heart}", "emoji: .*one emoji"),
    ("{kind: emoji, where: middle}", "where: .*anywhere, start, end"),
    ("{kind: length, most: 3}", "unit: .*needs"),
    ("{kind: length, unit: words}", "most, least"),
    ("{kind: length, unit: pages, most: 3}", "unit: .*words, sentences"),
    ("{kind: length, unit: words, most: 0}", "most: .*from 1"),
    ("{kind: length, unit: words, most: true}", "most: .*whole number"),
    ("{kind: length, unit: words, most: 3, least: 4}", "least that is above"),
    ("{kind: headings, count: 2.5}", "count: .*whole number"),
    ("{kind: headings, count: 3, titles: [a, b]}", "count"),
    ("{kind: headings, titles: a}", "titles: .*list"),
    ("{kind: language, name: klingon}", "name: .*french"),
    ("{kind: bullets, text: a}", "text: .*none"),
    ("{kind: json, 3: a}", "3: .*none"),
])  # fmt: skip
def test_a_wrong_effect_is_refused_by_the_name_of_its_key(written: str, named: str) -> None:
    with pytest.raises(HeedfulError, match=named):
        effect_from(yaml.safe_load(written))
