"""How a tokenizer reads a text: pieces of whole characters, and the words that they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LONGEST = 16  # tokens of a piece at most, where no whole character comes


class Piece(NamedTuple):
    """A run of tokens that makes whole characters: mostly one token, several for an emoji or a letter with an accent that has no token of its own."""

    text: str  # as a person reads it; "\u2423" where that is nothing to see
    first: int  # of the tokens given, from 0: the first, and one past the last
    stop: int
    word: int  # which word, from 0


def pieces(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[Piece]:
    """The pieces of token numbers without the tokenizer's own marks.

    Words are known by the tokenizer's sign for them: CLIP's at the end of one ("cat</w>"), T5's at the beginning ("\u2581cat").
    """
    raw = [str(token) for token in tokenizer.convert_ids_to_tokens(ids)]
    made, first, word = [], 0, 0
    for i, token in enumerate(raw):
        if i and i == first and token.startswith("\u2581"):
            word += 1
        ends = token.endswith("</w>") or i + 1 == len(raw)
        text = tokenizer.decode(ids[first : i + 1]).strip()
        if ends or i + 1 - first == LONGEST or "\N{REPLACEMENT CHARACTER}" not in text:
            made.append(Piece(text if text and text.isprintable() else "\u2423", first, i + 1, word))
            first = i + 1
        if token.endswith("</w>"):
            word += 1
    return made
