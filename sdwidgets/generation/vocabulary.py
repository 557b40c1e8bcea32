"""The words that a model was trained on, where its folder says so in a `words.json`: which words of a prompt it hardly saw, and what is near."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

FILE, MAX_BYTES = "words.json", 2_000_000
RARE = 10  # captions; a word of fewer is named as rarely seen
WORD = re.compile(r"[^\W\d_]+")  # as `caption_words` counts them


class Vocabulary(NamedTuple):
    """captions: word in small letters -> in how many training captions it stands. examples: prompts that the model draws well."""

    captions: dict[str, int]
    examples: tuple[str, ...]

    def unfamiliar(self, prompt: str, near: int = 2) -> list[tuple[str, int, list[str]]]:
        """[(word, in how many training captions it stands, at most `near` more frequent words that are written alike), ...] for each word of
        a prompt that training showed in fewer than `RARE` captions."""
        words = dict.fromkeys(word.lower() for word in WORD.findall(prompt))
        frequent = [word for word, count in self.captions.items() if count >= RARE]
        return [
            (word, self.captions.get(word, 0), get_close_matches(word, frequent, n=near, cutoff=0.75))
            for word in words
            if self.captions.get(word, 0) < RARE
        ]


def caption_words(captions: Iterable[str]) -> dict[str, int]:
    """Word in small letters -> in how many of these captions it stands, the most frequent first."""
    counts: dict[str, int] = {}
    for caption in captions:
        for word in set(WORD.findall(caption.lower())):
            counts[word] = counts.get(word, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def find_vocabulary(pipe: DiffusionPipeline) -> Vocabulary | None:
    """That of a pipeline's folder; None where it has none, as every model of the web-scale kind: nobody has a list of its words."""
    file = Path(str(getattr(pipe, "name_or_path", None))) / FILE
    try:
        return _read(str(file), file.stat().st_mtime_ns)
    except (OSError, ValueError):
        return None


@functools.lru_cache(maxsize=8)
def _read(file: str, _changed: int) -> Vocabulary:
    if Path(file).stat().st_size > MAX_BYTES:
        raise ValueError(f"{file} is no list of words: it is too large")
    found = json.loads(Path(file).read_text(encoding="utf-8"))
    found = found if isinstance(found, dict) else {}
    captions, examples = found.get("captions"), found.get("examples", [])
    if not isinstance(captions, dict) or not all(isinstance(count, int) for count in captions.values()):
        raise ValueError(f'{file} needs "captions": word -> number of captions')
    if not isinstance(examples, list) or not all(isinstance(prompt, str) for prompt in examples):
        raise ValueError(f'"examples" of {file} is a list of prompts')
    return Vocabulary(captions, tuple(examples))
