"""Emoji in a text, and the emoji a person means by a name such as "heart" or "thumbs up"."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# Below U+2600 the characters are signs and arrows, which are emoji only where a selector U+FE0F says so.
_SIGNS = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u21aa\u24c2\u25aa-\u25fe\u2934\u2935\u2b05-\u2b07"
    "\u3030\u303d\u3297\u3299"
)
_ALWAYS = (
    "\u231a\u231b\u2328\u23cf\u23e9-\u23f3\u23f8-\u23fa\u2600-\u2604\u260e\u2611\u2614\u2615\u2618\u261d\u2620"
    "\u2622\u2623\u2626\u262a\u262e\u262f\u2638-\u263a\u2640\u2642\u2648-\u2653\u265f\u2660\u2663\u2665\u2666"
    "\u2668\u267b\u267e\u267f\u2692-\u2697\u2699\u269b\u269c\u26a0\u26a1\u26a7\u26aa\u26ab\u26b0\u26b1\u26bd"
    "\u26be\u26c4\u26c5\u26c8\u26ce\u26cf\u26d1\u26d3\u26d4\u26e9\u26ea\u26f0-\u26f5\u26f7-\u26fa\u26fd\u2702"
    "\u2705\u2708-\u270d\u270f\u2712\u2714\u2716\u271d\u2721\u2728\u2733\u2734\u2744\u2747\u274c\u274e"
    "\u2753-\u2755\u2757\u2763\u2764\u2795-\u2797\u27a1\u27b0\u27bf\u2b1b\u2b1c\u2b50\u2b55"
    "\U0001f004\U0001f0cf\U0001f170\U0001f171\U0001f17e\U0001f17f\U0001f18e\U0001f191-\U0001f19a"
    "\U0001f201-\U0001f251\U0001f300-\U0001f64f\U0001f680-\U0001f6ff\U0001f7e0-\U0001f7f0"
    "\U0001f90c-\U0001f9ff\U0001fa70-\U0001faff"
)
_ONE = rf"(?:[{_SIGNS}]\ufe0f|[{_ALWAYS}](?:\ufe0f|[\U0001f3fb-\U0001f3ff])?)"
PATTERN = rf"(?:[\U0001f1e6-\U0001f1ff]{{2}}|[0-9#*]\ufe0f?\u20e3|{_ONE}(?:\u200d{_ONE})*)"
"""One emoji as a regular expression: with skin tone, joined ones and flags as one."""

DEFAULT = "😊"
_EMOJI = re.compile(PATTERN)
_VARIANT = re.compile("[\ufe0f\U0001f3fb-\U0001f3ff]")

# Several of one meaning: a person who asks for "a heart" is content with any of them. The first is written.
_NAMES = {
    "heart": "❤️ 💕 💖 💗 💓 💘 💙 💚 💛 💜 🧡 💝 💞 💟 🖤 🤍 🤎 ❣️ ♥️",
    "red heart": "❤️ ♥️",
    "smile": "😊 🙂 😀 😃 😄 😁 ☺️",
    "smiling face": "😊 🙂 😀 😃 😄 😁 ☺️",
    "smiley": "😊 🙂 😀 😃 😄 😁 ☺️",
    "smiley face": "😊 🙂 😀 😃 😄 😁 ☺️",
    "happy face": "😊 🙂 😀 😃 😄 😁 ☺️",
    "happy": "😊 🙂 😀 😃 😄 😁 ☺️",
    "book": "📖 📚 📕 📗 📘 📙 📓",
    "books": "📚 📖 📕 📗 📘 📙 📓",
    "rocket": "🚀",
    "rocket ship": "🚀",
    "kiss": "😘 💋 😗 😚 😙",
    "kissing": "😘 😗 😚 😙",
    "wink": "😉",
    "winking": "😉",
    "laughing": "😂 🤣 😆",
    "laugh": "😂 🤣 😆",
    "crying laughing": "😂 🤣",
    "thumbs up": "👍",
    "thumbs-up": "👍",
    "thumb": "👍",
    "thumbs down": "👎",
    "clap": "👏",
    "clapping": "👏",
    "clapping hands": "👏",
    "wave": "👋",
    "waving": "👋",
    "waving hand": "👋",
    "prayer": "🙏",
    "praying hands": "🙏",
    "folded hands": "🙏",
    "muscle": "💪",
    "hug": "🤗",
    "star": "⭐ 🌟",
    "sparkle": "✨",
    "party": "🎉 🥳 🎊",
    "tada": "🎉",
    "confetti": "🎊 🎉",
    "celebration": "🎉 🥳 🎊",
    "fire": "🔥",
    "flame": "🔥",
    "check mark": "✅ ✔️ ☑️",
    "checkmark": "✅ ✔️ ☑️",
    "tick": "✅ ✔️ ☑️",
    "sun": "☀️ 🌞",
    "moon": "🌙 🌕 🌛",
    "flower": "🌸 🌼 🌺 🌻 🌷",
    "tree": "🌳 🌲 🌴",
    "christmas tree": "🎄",
    "cat": "🐱 🐈",
    "dog": "🐶 🐕",
    "coffee": "☕",
    "beer": "🍺 🍻",
    "cake": "🎂 🍰",
    "light bulb": "💡",
    "lightbulb": "💡",
    "idea": "💡",
    "money": "💰 💵 💸",
    "earth": "🌍 🌎 🌏",
    "globe": "🌍 🌎 🌏",
    "world": "🌍 🌎 🌏",
    "music": "🎵 🎶",
    "sad": "😢 🙁 😞",
    "crying": "😢 😭",
    "robot": "🤖",
    "warning": "⚠️",
    "gift": "🎁",
    "100": "💯",
    "hundred": "💯",
    "lightning": "⚡",
    "bee": "🐝",
    "soccer": "⚽",
    "football": "⚽ 🏈",
    "leaf": "🍃 🍂 🍁",
    "hand": "✋ 👋",
}
PLAIN_NAMES = frozenset(
    ["heart", "red heart", "smiley", "smiley face", "smile", "thumbs up", "rocket", "wink", "tada", "kiss"]
)
"""Names that mean the emoji even where nobody said "emoji"."""


def found(text: str) -> list[tuple[int, int]]:
    """(start, end) of every emoji."""
    return [m.span() for m in _EMOJI.finditer(text)]


def plain(emoji: str) -> str:
    """An emoji without skin tone and presentation selector, for comparing."""
    return _VARIANT.sub("", emoji)


def only_emoji(text: str) -> list[str]:
    """The emoji of a text that has nothing else but white space; [] for any other text."""
    spans = found(text)
    rest = _EMOJI.sub("", text).strip()
    return [text[a:b] for a, b in spans] if spans and not rest else []


def matching(text: str, wanted: Sequence[str]) -> list[tuple[int, int]]:
    """(start, end) of the emoji of a text that are among the wanted ones; of all where none is named."""
    keys = {plain(emoji) for emoji in wanted}
    return [(a, b) for a, b in found(text) if not keys or plain(text[a:b]) in keys]


def named(name: str) -> list[str]:
    """The emoji that a name means, the best known first; [] for a name that means none.

    The common names are listed here; the others are those of Unicode ("penguin", "pizza").
    """
    name = " ".join(name.lower().split())
    for form in (name, name.removesuffix("s"), name.removesuffix(" face"), name.removesuffix("es")):
        if form in _NAMES:
            return _NAMES[form].split()
    for form in (name, name.removesuffix("s")):
        for unicode_name in (form, f"{form} face", f"{form} sign", f"slice of {form}", f"{form} symbol"):
            try:
                emoji = unicodedata.lookup(unicode_name.upper())
            except KeyError:
                continue
            if only_emoji(emoji):
                return [emoji]
    return []
