"""What kind of request a domain names: a message to somebody, a kind of text, a topic, code, or work on a text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from heedful.data.scopes.nouns import (
    CODE,
    DOING,
    INCOMING,
    KINDS,
    Channel,
    Kind,
    Topic,
    find_channel,
    find_kind,
    find_language,
    find_topic,
    kin,
    sort_of,
)
from heedful.data.scopes.people import Recipient, noun_group, read_recipients
from heedful.data.scopes.phrases import Phrase, noun_phrase, recipients, tokenise
from heedful.data.scopes.slots import plural, singular


@dataclass(frozen=True)
class Message:
    """Messages: the channel (None: any) and the sentence's noun for it, the recipients ((): anybody), the subject.

    `before` is what stands before the noun: work emails, thank-you notes.
    """

    channel: Channel | None
    noun: str
    recipients: tuple[Recipient, ...]
    about: str = ""
    before: str = ""


@dataclass(frozen=True)
class Writing:
    """Texts of one or several kinds, in the sentence's words; perhaps about one subject, for one audience."""

    kinds: tuple[Kind, ...]
    nouns: tuple[str, ...]
    about: str = ""
    audience: str = ""
    guessed: bool = False


@dataclass(frozen=True)
class Asked:
    """Questions about a topic, known or not; `only_questions` is false where any mention of it is meant."""

    name: str
    topic: Topic | None
    only_questions: bool = True


@dataclass(frozen=True)
class Code:
    """Code in one language; "" is any."""

    language: str


@dataclass(frozen=True)
class Work:
    """Work on a text that is given, a key of `DOING`; for translations perhaps into one language."""

    task: str
    language: str = ""


@dataclass(frozen=True)
class Incoming:
    """Answers to texts that come in, a key of `INCOMING`, as the sentence calls them: customer complaint."""

    sort: str
    noun: str
    words: tuple[str, ...] = field(default=())


Request = Message | Writing | Asked | Code | Work | Incoming

_LEAD = re.compile(
    r"^(?:(?:when|whenever|if|in|for|on|every|each|any|all|the (?:question|topic|request|answer) is)\s+)*"
    r"(?:(?:i|we|you|somebody|someone|anyone|people|they|it)(?:'m|’m|'re|’re|'s| am| are| is)?\s+)?"
    r"(?:(?:have to|need to|want to|am|are|is)\s+)?",
    re.IGNORECASE,
)
_SENDER = re.compile(
    r"(?P<who>.+?) (?:writes?|texts?|e-?mails?|messages?|asks|contacts?|DMs?)(?: to)? (?:me|us)\b",
    re.IGNORECASE,
)
_WORKING = re.compile(
    r"(?:summari[sz]|translat|proofread|paraphras|rephras|rewrit)\w*\b(?! to )", re.IGNORECASE
)
_MENTIONED = re.compile(
    r"^(.+?) (?:comes? up|is mentioned|are mentioned|is discussed|is the topic)$", re.IGNORECASE
)
_SENDING = re.compile(
    r"(?P<verb>e-?mail|text|dm|message|whatsapp|slack|writ|reply|respond|talk|speak|chat|answer|send)"
    r"(?:t?ing|s|es|e|ming)?(?: back)?(?: (?:a message|something|anything|messages))?(?: (?:to|with))?\s+(?=\S)",
    re.IGNORECASE,
)
_VERB_CHANNEL = {
    "email": "email",
    "e-mail": "email",
    "text": "text",
    "dm": "DM",
    "whatsapp": "WhatsApp message",
    "slack": "Slack message",
}
_ABOUT = re.compile(
    r"(?P<verb>ask\w*|questions?|answer\w*|talk\w*|speak\w*|chat\w*|discuss\w*|mention\w*|writ\w+|tell\w*|explain\w*|"
    r"say\w*|learn\w*|anything|something|everything|things|conversations?|topics?|it is|it's|is)?\s*"
    r"(?:you |me |us |a question |questions |something |anything )*"
    r"(?:about|on|regarding|concerning|related to|of)\s+(?P<topic>.+)$",
    re.IGNORECASE,
)
_CODE_WORD = re.compile(rf"\b(?:{'|'.join(CODE)})s?\b|\bquer(?:y|ies)\b", re.IGNORECASE)
_CLAUSE = re.compile(
    r"\b(?:i|you|we|he|she|they|it|am|are|is|was|feel|say|says|mondays?|tuesdays?|wednesdays?|thursdays?|fridays?|saturdays?|sundays?|"
    r"morning|evening|night|weekends?|work|today|tired|general|public|private)\b",
    re.IGNORECASE,
)


def read_domain(domain: str) -> Request | None:
    """What a domain such as `emails to my manager` asks for; None where no grammar can make prompts for it."""
    text = " ".join(domain.split()).strip(" .,;:")
    sender = _SENDER.match(text)
    if sender and recipients(tokenise(sender["who"]), 0):
        text = f"replies to {sender['who']}"
    text = _MENTIONED.sub(r"about \1", text)
    asked = re.search(r"\bquestions?\b", text, re.IGNORECASE)
    request = _read(_LEAD.sub("", text) or text)
    return replace(request, only_questions=True) if asked and isinstance(request, Asked) else request


def _read(text: str) -> Request | None:
    return (
        _code(text)
        or (_worked(text) if _WORKING.match(text) else None)
        or _sent(text)
        or _noun(text)
        or _about(text)
        or _worked(text)
        or _named_topic(text)
        or _guessed(text)
    )


def unread_part(domain: str) -> str:
    """What a domain says after the phrase that `read_domain` goes by: `after five` of `letters to Ada after five`."""
    tokens = tokenise(domain)
    phrase = next((found for i in range(len(tokens)) if (found := noun_phrase(tokens, i))), None)
    if (
        phrase is None
        or phrase.end >= len(tokens)
        or sort_of(phrase.head) in ("code", "language", "asked", "work")
    ):
        return ""
    return domain[tokens[phrase.end].start :].strip()


def _code(text: str) -> Request | None:
    language = find_language(text)
    asked = re.search(r"\b(?:questions?|about|explain\w*|talk\w*)\b", text, re.IGNORECASE)
    if language and asked and not _CODE_WORD.search(text):
        return Asked(language, None)
    if language or re.fullmatch(
        rf"(?:(?:any|all|my|some|the) )?{_CODE_WORD.pattern}(?: answers?)?", text, re.IGNORECASE
    ):
        return Code(language)
    return None


def _sent(text: str) -> Request | None:
    """`write to my boss`, `texting my friends`."""
    verb = _SENDING.match(text)
    tokens = tokenise(text[verb.end() :]) if verb else []
    found = recipients(tokens, 0) if tokens else None
    whole = noun_phrase(tokenise(text), 0)
    if not verb or not found or noun_phrase(tokens, 0) or (whole and whole.roles):
        return None
    whom = text[verb.end() :][: tokens[found.end - 1].end]
    rest = text[verb.end() :][tokens[found.end - 1].end :].strip()
    about = re.match(r"(?:about|on|regarding)\s+(.+)", rest)
    noun = _VERB_CHANNEL.get(verb["verb"].lower(), "")
    noun = "reply" if verb["verb"].lower() in ("reply", "respond", "answer") else noun
    if rest and not about and not noun:
        platform = re.match(r"on (\w+)$", rest)
        noun = platform[1] if platform and find_channel(platform[1]) else ""
    return Message(
        find_channel(noun) if noun else None, noun, read_recipients(whom), about[1] if about else ""
    )


def _noun(text: str) -> Request | None:
    tokens = tokenise(text)
    phrase = next((found for i in range(len(tokens)) if (found := noun_phrase(tokens, i))), None)
    if phrase is None:
        return None
    sort = sort_of(phrase.head)
    answered = singular(phrase.head.lower()) in ("reply", "response", "answer")
    if answered and noun_phrase(tokenise(phrase.role("to")), 0):
        return read_domain(phrase.role("to"))
    if sort == "channel" and find_kind(_whole(phrase)) is None:
        return _message(phrase)
    if sort == "incoming" and not phrase.role("of", "about"):
        return _incoming(phrase)
    if sort in ("kind", "post", "channel", "incoming"):
        return _writing(phrase)
    if sort == "work":
        return _worked(text)
    if sort == "asked":
        return _asked(phrase)
    return None


def _whole(phrase: Phrase) -> str:
    return f"{phrase.before} {phrase.head}".strip()


def _message(phrase: Phrase) -> Message:
    channel = find_channel(phrase.head)
    # Texts as text, DMs as DM: the sentence's own noun, as the list spells it.
    noun = singular(phrase.head).lower()
    noun = next(name for name in (channel.nouns if channel else ()) if name.lower() == noun)
    platform = phrase.role("on")
    if platform and find_channel(platform):
        channel = find_channel(platform)
        noun = channel.nouns[0] if channel else noun
    whom = phrase.role("to", "for", "with")
    if not whom and phrase.role("from"):
        # Messages that came in from somebody are answered.
        channel, noun, whom = find_channel("reply"), "reply", phrase.role("from")
    before = phrase.before or phrase.role("of")
    if not whom and noun_group(singular(before)):
        # Customer emails, client messages.
        whom, before = before, ""
    at_work = "work" if phrase.role("at", "for") == "work" else ""
    people = read_recipients(whom) if whom and whom != "work" else ()
    return Message(channel, noun, people, phrase.role("about"), before or at_work)


def _writing(phrase: Phrase) -> Writing:
    about = phrase.role("about", "of")
    audience = phrase.role("for", "to")
    if sort_of(phrase.head) == "post" and not phrase.role("on"):
        kinds = tuple(kind for kind in KINDS if kind.family in ("instagram", "facebook", "tweet", "linkedin"))
        return Writing(kinds, tuple(kind.names[0] for kind in kinds), about, audience)
    if phrase.role("on") and find_kind(phrase.role("on")):
        kind = find_kind(phrase.role("on"))
        return Writing((kind,), _platform_nouns(kind), about, audience) if kind else Writing((), ())
    if sort_of(phrase.head) == "incoming":
        wanted = f"{singular(about)} {singular(phrase.head)}"
        kind = find_kind(wanted) or find_kind(phrase.head)
        return (
            Writing((kind,), (wanted if find_kind(wanted) else kind.names[0],)) if kind else Writing((), ())
        )
    kind = find_kind(_whole(phrase)) or find_kind(phrase.head)
    if kind is None:
        return Writing((), (_whole(phrase),), about, audience, guessed=True)
    noun = singular(_whole(phrase))
    if noun.lower() in (name.lower() for name in kind.names):
        noun = next(name for name in kind.names if name.lower() == noun.lower())
        if noun in _PLATFORMS:
            return Writing((kind,), _platform_nouns(kind), about, audience)
    if kind.mass and singular(kind.names[0]) == noun:
        noun = kind.names[0]
    return Writing((kind,), (_bare(noun),), about, audience)


def _bare(noun: str) -> str:
    return re.sub(r"^(?:my|our|your|the|any|every|each|all|an?|short) (?!story)", "", noun)


_PLATFORMS = (
    "Instagram",
    "LinkedIn",
    "Facebook",
    "TikTok",
    "YouTube",
    "Reddit",
    "Mastodon",
    "Bluesky",
    "Twitter",
)


def _platform_nouns(kind: Kind) -> tuple[str, ...]:
    """What one writes there: Instagram is a place, an Instagram post a text."""
    return tuple(name for name in kind.names[:2] if name not in _PLATFORMS)


def _asked(phrase: Phrase) -> Request | None:
    name = phrase.role("about", "of", "to")
    if name and phrase.role("to"):
        return read_domain(name)
    name = name or phrase.before
    if noun_group(singular(name)):
        return Incoming("questions", f"{singular(name)} question", ("question",))
    if phrase.role("from"):
        return Incoming("questions", f"question from {_single(phrase.role('from'))}", ("question",))
    return Asked(name, find_topic(name)) if name else None


def _single(people: str) -> str:
    return people if re.match(r"(?:my|the|our|an?) ", people) else re.sub(r"^", "a ", singular(people))


def _incoming(phrase: Phrase) -> Incoming:
    head = singular(phrase.head.lower())
    sort = next(key for key, words in INCOMING.items() if head in words)
    noun = f"{phrase.before} {head}".strip()
    if phrase.role("from"):
        noun = f"{noun} from {_single(phrase.role('from'))}"
    return Incoming(sort, noun, (head,))


def _about(text: str) -> Request | None:
    found = _ABOUT.match(text)
    if not found or not found["topic"]:
        return None
    verb = (found["verb"] or "").lower()
    name = re.sub(r"^(?:the topic of|the subject of|anything about) ", "", found["topic"])
    questions = verb.startswith(("ask", "question", "answer", "explain", "is", "it"))
    return Asked(name, find_topic(name), questions)


def _worked(text: str) -> Request | None:
    for task, words in DOING.items():
        if re.search(
            rf"\b(?:{'|'.join(map(re.escape, words))})(?:s|es|ing|ed)?\b|\b{plural(words[0])}\b",
            text,
            re.IGNORECASE,
        ):
            into = re.search(r"\b(?:in)?to ([A-Z]\w+)", text)
            return Work(task, into[1] if into and task == "translation" else "")
    if re.search(r"\bcomplain", text):
        who = re.match(r"(?:an? |the |my |our )?(\w+)", text)
        named = singular(who[1].lower()) if who and noun_group(who[1]) else "customer"
        return Incoming("complaints", f"{named} complaint", ("complaint",))
    return None


def _named_topic(text: str) -> Request | None:
    text = re.sub(r"^(?:discuss|mention|explain)(?:ing|s)? ", "", text, flags=re.IGNORECASE)
    topic = find_topic(text)
    if topic and topic.name == "advice":
        return Asked(topic.name, topic)
    if topic or kin(text):
        return Asked(topic.name if topic else text, topic, only_questions=False)
    return None


def _guessed(text: str) -> Request | None:
    """A noun that no list knows is taken for a kind of text: sermons, wedding vows, a ransom note."""
    words = re.sub(r"^(?:my|our|your|the|any|every|each|all|some|an?) ", "", text).split()
    if (
        not 1 <= len(words) <= 4
        or _CLAUSE.search(text)
        or not all(re.match(r"[\w-]+$", word) for word in words)
    ):
        return None
    several = singular(words[-1]) != words[-1]
    if not several and not re.match(r"an? |every |each |any ", text):
        return None
    return Writing((), (singular(" ".join(words)),), guessed=True)
