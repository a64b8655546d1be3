"""The vocabulary in which people ask for an effect: verbs, fillers, numbers, and names of signs."""

from __future__ import annotations

import re


def word_set(text: str) -> frozenset[str]:
    """The words of a text, one or more white-space characters apart."""
    return frozenset(text.split())


_UP_TO_TWENTY = """one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty"""
NUMBERS = {word: n for n, word in enumerate(_UP_TO_TWENTY.split(), start=1)} | {
    "a single": 1,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "eighty": 80,
    "a hundred": 100,
}
NUMBER = rf"(?:\d+|{'|'.join(sorted(NUMBERS, key=len, reverse=True))})"

_NOUNS = """answer answers reply replies response responses email emails e-mail e-mails mail mails letter letters
    message messages text texts note notes post posts caption captions comment comments tweet tweets output outputs
    summary summaries report reports essay essays story stories poem poems lyrics song songs description descriptions
    article articles review reviews conversation conversations content dm dms chat chats ad ads
    invitation invitations instruction instructions completion completions"""
_NOUN = "|".join(sorted(_NOUNS.split(), key=len, reverse=True))

# Words that say nothing about which effect is meant. What is left of a clause when the words of an effect are taken
# out must be made of these; otherwise the clause asks for more than was understood.
FILLERS = word_set(f"""
    {_NOUNS} please always make makes making sure be to it them they this that these those all everything
    every each any your my our their the a an in into as with by for from of on and so do does give gives
    giving write writes writing written reply replying respond responds responding answer answering use uses
    using keep keeps keeping should must have has need needs want would like you i we me us is are stay put
    format formatted form style only just simply totally completely entirely strictly exclusively try out
    whole entire complete return returns returning produce provide show present display structure structured
    organise organize split divide send sending create compose deliver type typing set at least some few
    more lots plenty bit ever again time times now then when whenever thing things anything there here will
    go ensure ensures remember become stick add adds adding include includes including contain contains
    containing insert inserting length long total both also nice possible speak kindly can could let turn
    turned convert put across throughout i'd i'll you'll we'd you're they're it's them too actual actually
    really either one single ought but model its itself sprinkle very much extremely quite throw slip
    language translate translated
    """)
PHRASE_FILLERS = FILLERS | word_set("""
    word words phrase phrases line lines sentence sentences saying say says expression term terms symbol
    sign character characters string exact exactly literally literal following own separate new very
    somewhere once called reading reads goes which ends body mention mentions mentioning state print instead
    paragraph abbreviation acronym slang name tag letters letter punctuation mark right somebody people
    appear appears appearing featured work weave quote refer utter call feature incorporate employ mix
    between remark wish ever anywhere off up
    """)

NEGATION = re.compile(
    r"\b(?:never(?: ever)?|not|don't|do not|doesn't|no|without(?: any)?|avoid(?:s|ing)?|stop|quit|refrain from|skip|"
    r"omit|delete|drop(?! in\b)|forbid(?:den)?|banned|taboo|prohibited|leave out|leaving out|cut out|"
    r"ban|remove|shouldn't|mustn't|can't|cannot|zero|free of|get rid of|nor)\b",
    re.IGNORECASE,
)
END = re.compile(
    r"\b(?:end|ends|ending|close|closes|closing|finish|finishes|finishing|conclude|concludes|concluding|"
    r"sign(?:s|ed|ing)?[- ]?offs?|sign(?:s|ed|ing)?|signature|wrap(?:s|ping)? up|round off|last|final|finally|bottom|"
    r"append|appended|appending|farewell|goodbye|valediction)\b",
    re.IGNORECASE,
)
START = re.compile(
    r"\b(?:start|starts|starting|begin|begins|beginning|open|opens|opening|first|top|lead|leads|greet|greets|"
    r"front|prepend|kick off|salutation|preface|prefix)\b",
    re.IGNORECASE,
)
INCLUDE = re.compile(
    r"\b(?:includ\w+|mention\w*|says?|saying|us(?:e|es|ing)|writ\w+|adds?|adding|contain\w*|work in|put|insert\w*|"
    r"throw in|slip in|drop in|sprinkle|feature\w*|incorporate|quote|have|has|call|utter|employ|type|print|state|"
    r"with|appears?|weave|mix in|refer)\b",
    re.IGNORECASE,
)
EACH = re.compile(
    r"\b(?:each|every|per|all|of (?:the|your)(?=\s+\w+s\b)|after|between|before)\s+(?:\w+\s+)?"
    r"(?:sentence|paragraph|line|word|bullet|point|item|section|heading|step)s?\b"
    r"|\b(?:start|begin|end|finish|open|close)(?:ing)?\s+(?:sentences|paragraphs|lines)\b",
    re.IGNORECASE,
)
"""Effects on each sentence or line, which no kind checks."""

POLITE = re.compile(
    rf"""(?:please|kindly|always|just|also|then|and|but|to|so|,|make\ sure\ (?:to|that\ you|that\ it|you|it|they|that)
    |(?:don't|do\ not|never)\ (?:forget|fail|neglect)\ to|be\ sure\ to|remember\ to|try\ to
    |ensure(?:\ that)?(?:\ you|\ it|\ they)?|can\ you|could\ you|would\ you|let's
    |i(?:\ want|\ need|\ would\ like|'d\ like)(?:\ you|\ it|\ them|\ the\ model)?\ to
    |(?:you|it|they|we)\ (?:should|must|need\ to|needs\ to|have\ to|has\ to|ought\ to)|should|must
    |(?:(?:the|my|your|our|all|every|each|any)\ )*(?:{_NOUN})\ (?:should|must|needs?\ to|has\ to|have\ to|ought\ to))
    (?:\s+|(?<=,))""",
    re.IGNORECASE | re.VERBOSE,
)
"""What may stand before the verb of a clause and changes nothing."""

OBJECT = (
    rf"(?:(?:the|my|your|our|his|her|all|every|each|any|these|those|this|that|them|it|everything|of|such|one|off|"
    rf"out|things|always|only|{_NOUN})\s+){{0,6}}"
)
"""What a verb such as "end" may have between itself and "with"."""

# First words of an unquoted text that is described rather than given, and words anywhere in it.
MEANT = word_set("""
    a an the my your our their his her its some any something anything nothing everything it one two three
    four five more less what how why that if when where whether who to in by there as so like only them this
    both
    """)
DESCRIBED = word_set("""
    question questions summary joke jokes greeting greetings conclusion note quote quotation tone statement
    emoji emojis recap takeaway takeaways example examples fact facts action paragraph line sentence
    sentences list words bold italics capital lowercase remark reminder proverb pun compliment introduction
    apology feedback pleasantries
    context humour humor rhyme details advice encouragement enthusiasm warning disclaimer sources references
    hashtag hashtags
    """)
SLANG = word_set("""
    lol haha hahaha omg btw tbh imo imho fyi asap ok okay um uh hmm hey hi yo bro dude mate yay wow oops
    lmao rofl idk ikr smh brb ttyl xoxo tldr y'all gonna wanna cheers ahoy arr arrr howdy
    """)
LANGUAGES = {
    "french": "french français francais",
    "spanish": "spanish español espanol castellano",
    "german": "german deutsch",
    "italian": "italian italiano",
    "portuguese": "portuguese português portugues",
    "dutch": "dutch nederlands",
    "english": "english",
}

# name -> (how it is asked for, a sign or None, a pattern). The pattern says what counts where it is no single sign.
SIGNS: dict[str, tuple[str, str | None, str]] = {
    "hashtags": (r"hash[- ]?tags?", None, r"(?<!\w)#\w+"),
    "hash signs": (r"hash(?:es)?(?: signs?| marks?| symbols?)?|pound signs?", "#", "#"),
    "exclamation marks": (r"exclamation(?: marks?| points?| signs?)?|exclamations", "!", "!"),
    "question marks": (r"question marks?", "?", r"\?"),
    "semicolons": (r"semi-?colons?", ";", ";"),
    "colons": (r"colons?", ":", ":"),
    "commas": (r"commas?", ",", ","),
    "em dashes": (r"(?:em|long)[- ]?dash(?:es)?|dashes", "—", "—"),
    "parentheses": (r"parenthes[ei]s|round brackets|brackets", None, r"[()]"),
    "ellipses": (r"ellips[ei]s|dot dot dot", None, r"…|\.{3,}"),
    "quotation marks": (r"quotation marks?|quote marks?|quotes", None, r"[\"“”]|(?<!\w)['‘]|['’](?!\w)"),
    "asterisks": (r"asterisks?|stars?", "*", r"\*"),
    "ampersands": (r"ampersands?", "&", "&"),
    "full stops": (r"full stops?|periods?", ".", r"\.(?!\w)"),
    "punctuation": (
        r"punctuation(?: marks?| at all)?",
        None,
        r"[;!?…\"“”()\[\]{}—–]|[.,:](?!\d)|(?<!\w)['‘’-]|['’-](?!\w)",
    ),
    "links": (r"links?|urls?|web addresses", None, r"https?://\S+|\bwww\.\S+"),
    "digits": (r"digits?|numerals?|numbers?|figures", None, r"\d+"),
    "contractions": (r"contractions?", None, r"\b\w+(?:n['’]t|['’](?:re|ve|ll|m|d))\b"),
    "markdown": (r"markdown(?: formatting)?", None, r"^#{1,6}[ \t]+|\*\*|__|^[ \t]*[-*][ \t]+|`+"),
    "bold text": (r"bold(?: text| type| face| words)?", None, r"\*\*|__"),
    "code blocks": (r"code (?:blocks?|fences?)|fenced code", None, r"^```.*$"),
}


def number(text: str) -> int:
    """A number in digits or words."""
    text = " ".join(text.lower().split())
    return int(text) if text.isdigit() else NUMBERS[text]
