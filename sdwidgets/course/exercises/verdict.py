"""What a check says of an answer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """`correct` is None for an exercise that was not begun."""

    correct: bool | None
    message: str

    def __bool__(self) -> bool:
        return self.correct is True

    def __repr__(self) -> str:
        return {True: "Right. ", False: "Not yet. ", None: "Your turn. "}[self.correct] + self.message


def right(message: str) -> Verdict:
    return Verdict(True, message)


def wrong(message: str) -> Verdict:
    return Verdict(False, message)


def todo(message: str) -> Verdict:
    return Verdict(None, message)


def check(function: Callable[..., Verdict]) -> Callable[..., Verdict]:
    """A check that turns an exception of the learner's code into a verdict."""

    @functools.wraps(function)
    def checked(*args, **kwargs) -> Verdict:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            return wrong(f"Your code stopped with {type(error).__name__}: {error}")

    return checked
