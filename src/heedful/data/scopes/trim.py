"""What a sentence of feedback has around its domain and its effect, and how both look without it."""

from __future__ import annotations

import re

from heedful.data.scopes.nouns import is_proper
from heedful.data.scopes.phrases import tokenise
from heedful.data.scopes.slots import section

_POLITE = re.compile(
    r"(?:(?:hey|hi|hello|ok|okay|so|also|please|pls|kindly|just|note that|remember|from now on|in (?:the )?future|"
    r"going forward|as a rule|in general|generally)[,:]?\s+)+",
    re.IGNORECASE,
)
_WISH = re.compile(
    r"(?:(?:i|we)(?:'d| would|'d really| really)? (?:want|like|need|expect) (?:for )?(?:you to|it if you|that you)|"
    r"(?:you|heedful) (?:should|must|need to|have to|ought to|can|could|are to|shall)|"
    r"(?:could|can|would|will) you(?: please)?|"
    r"(?:please )?(?:make sure|be sure|see to it|ensure)(?: that you| you| to)|"
    r"(?:remember|try|start|learn|be careful) to|let's|let us)\s+(?=\S)",
    re.IGNORECASE,
)
_MINE = re.compile(
    r"(?:i|we)(?:'d| would| really| always| only| usually| generally)* "
    r"(?:want|like|prefer|need|love|expect)\s+(?!to |it |you )",
    re.IGNORECASE,
)
_OWN_HABIT = re.compile(r"(?:i|we) (?=(?:always|never|only|usually|don't|do not|don’t)\b)", re.IGNORECASE)
_ALWAYS = re.compile(
    r"(?:please|always|usually|normally|generally|then|just|also|and|but)[,:]?\s+", re.IGNORECASE
)
_EMPTY = frozenset(section("sentences", "empty").split())


def trimmed(sentence: str) -> str:
    """A sentence without what is only polite, such as `please` or `I want you to`."""
    text = " ".join(sentence.split())
    text = re.sub(r"[\s.!?]+$", "", text)
    text = re.sub(r",?\s+(?:please|thanks|thank you)$", "", text, flags=re.IGNORECASE)
    for pattern in (_POLITE, _WISH, _POLITE, _MINE, _OWN_HABIT):
        text = pattern.sub("", text, count=1) if pattern.match(text) else text
    return text


_ASKING = re.compile(
    r"(?:(?:i|we|you|they|anyone|anybody|someone|somebody)(?:'m|'re|’m|’re| am| are)? )?"
    r"(?:(?:ever |have to |need to |want to |want you to |tell you to )*)"
    r"(?:(?:am |are )?(?:ask(?:ing|s|ed)?(?: you| me)?(?: for| to)|request(?:ing)?|want(?:ing)?|need(?:ing)?)\s+)?"
    r"(?:(?:help(?:ing)? me (?:to )?)?(?:writ(?:e|ing)|compos(?:e|ing)|draft(?:ing)?|send(?:ing)?|post(?:ing)?|"
    r"creat(?:e|ing)|mak(?:e|ing)|giv(?:e|ing)|do(?:ing)?|generat(?:e|ing)|produc(?:e|ing))(?: me| us)?\s+)?"
    r"(?=(?:an?|the|my|our|any|some|every|all)?\s*\S)",
    re.IGNORECASE,
)


def trimmed_domain(text: str, sentence: str) -> str:
    """A domain without who asks for it: `I write an email to my boss` as `an email to my boss`."""
    first = sentence.startswith(text)
    text = re.sub(r"^it comes to ", "", re.sub(r"\s+", " ", text.strip(" ,;:")))
    # `I write to my boss` keeps its verb, `I write an email to my boss` does not need it.
    if not re.match(
        r"(?:(?:i|we|you) )?(?:am |are |'m )?(?:writ|post)\w+ (?:to|on|in|about)\b", text, re.IGNORECASE
    ):
        text = _ASKING.sub("", text, count=1) or text
    text = re.sub(r"^(?:all|any)(?: of)? ", "", text, flags=re.IGNORECASE)
    return _lower(text) if first else text


def _lower(text: str) -> str:
    """`text` without the capital that only its place in the sentence gave it."""
    first = re.match(r"[^\s,.]+", text)
    if not first or not text[:1].isupper() or first[0][1:] != first[0][1:].lower() or first[0] == "I":
        return text
    return text if is_proper(first[0]) else text[:1].lower() + text[1:]


def trimmed_effect(text: str) -> str:
    """An effect without `always` and the like; "" where nothing is left that could be one."""
    text = text.strip(" ,;:-–")
    while True:
        for pattern in (_WISH, _ALWAYS):
            found = pattern.match(text)
            if found:
                text = text[found.end() :]
                break
        else:
            break
    text = re.sub(r",?\s+(?:please|always)$", "", text, flags=re.IGNORECASE).strip(" ,;:-–")
    tokens = tokenise(text)
    if not any(token.quoted or token.low not in _EMPTY for token in tokens):
        return ""
    return text if tokens[0].quoted else _lower(text)
