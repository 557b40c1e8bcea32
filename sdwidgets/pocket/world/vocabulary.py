"""The words of Pocket's world: which glyphs there are and what each is called.

Plain data, the long lists of it in `words.json`; knows nothing of pictures. Emoji are given as the sequences that Noto Color Emoji
draws, and names are the words that captions use. Adding a word means building the atlas again (see `atlas.py`).
"""

from __future__ import annotations

import json
from pathlib import Path

_WORDS = json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8"))

OBJECTS: dict[str, str] = {name: emoji for group in _WORDS["objects"].values() for name, emoji in group.items()}

#: Every occupation that the font draws as a woman and as a man in five skin tones -> how, and its symbol.
#: With a tool: WOMAN or MAN + tone + joiner + tool. With a sign: person + tone + joiner + gender sign.
OCCUPATIONS: dict[str, tuple[str, str]] = {name: tuple(drawn) for name, drawn in _WORDS["occupations"].items()}

GENDERS: dict[str, tuple[str, str]] = {"woman": ("👩", "♀️"), "man": ("👨", "♂️")}

# The words for the five Fitzpatrick modifiers; emoji are drawings, not people.
TONES: dict[str, str] = {
    "light skinned": "🏻", "medium light skinned": "🏼", "medium skinned": "🏽", "medium dark skinned": "🏾", "dark skinned": "🏿",
}  # fmt: skip

# sRGB, 8 bits a channel; far enough apart that a pixel decides which word is meant.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40), "orange": (247, 140, 30), "yellow": (250, 215, 50), "green": (60, 165, 70), "blue": (40, 95, 215),
    "purple": (130, 65, 180), "pink": (245, 150, 190), "black": (25, 25, 28), "white": (248, 248, 245), "gray": (140, 140, 145),
}  # fmt: skip

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "crescent")

PLURALS: dict[str, str] = _WORDS["plurals"]  # those that are not made by an "s"

#: Objects whose name is a plural already, so that they take no article.
PLURAL_NAMES = ("cherries", "grapes", "glasses", "jeans", "scissors", "footprints")

NUMBERS: tuple[str, ...] = ("zero", "one", "two", "three", "four")


def plural(noun: str) -> str:
    """The plural that captions use: "cat" -> "cats", "fox" -> "foxes"."""
    return PLURALS.get(noun, noun + "s")


def article(phrase: str) -> str:
    """`phrase` with its indefinite article: "apple" -> "an apple", "unicorn" -> "a unicorn", "small jeans" -> "small jeans"."""
    if phrase.split()[-1] in PLURAL_NAMES:
        return phrase
    vowel = phrase[0] in "aeiou" and not phrase.startswith("unicorn")
    return ("an " if vowel else "a ") + phrase


def person_emoji(occupation: str, gender: str, tone: str) -> str:
    """The emoji sequence for one person, e.g. ("astronaut", "woman", "dark skinned")."""
    kind, symbol = OCCUPATIONS[occupation]
    adult, sign = GENDERS[gender]
    joiner = "\u200d"
    return adult + TONES[tone] + joiner + symbol if kind == "tool" else symbol + TONES[tone] + joiner + sign


def person_name(occupation: str, gender: str, tone: str) -> str:
    """The words for one person: "dark skinned woman astronaut"."""
    return f"{tone} {gender} {occupation}"
