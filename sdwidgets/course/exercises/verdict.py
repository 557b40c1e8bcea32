"""What a check says of an answer, and what checks share: was it begun, does it meet a condition, which mistake is it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np


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


class _Ended(Exception):
    """A check has its verdict."""


def check(begin: str = "") -> Callable:
    """Makes a function a check: `begin` is what it says where an argument is missing, None or `...`.

    An exception of the learner's code becomes a verdict; so does a `require` that is not met.
    """

    def decorate(function: Callable[..., Verdict]) -> Callable[..., Verdict]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args, **kwargs) -> Verdict:
            try:
                arguments = signature.bind(*args, **kwargs)
                arguments.apply_defaults()
                if begin and untouched(*arguments.arguments.values()):
                    return todo(begin)
                return function(*args, **kwargs)
            except _Ended as end:
                return end.args[0]
            except Exception as error:
                return wrong(f"Your code stopped with {type(error).__name__}: {error}")

        return checked

    return decorate


def untouched(*answers) -> bool:
    """Is one of them still as the notebook came?"""
    return any(answer is None or answer is ... for answer in answers)


def require(condition: Any, message: str) -> None:
    """Ends the check as wrong, with this message, unless the condition holds."""
    if not condition:
        raise _Ended(wrong(message))


def answer_of(function: Callable, *arguments, hint: str = "Your function returns nothing yet.") -> Any:
    """What the learner's function returns; arrays are copied for it. Ends the check where that is nothing."""
    answer = function(*(a.copy() if isinstance(a, np.ndarray) else a for a in arguments))
    if untouched(answer):
        raise _Ended(todo(hint))
    return answer


def close(answer, expected, **tolerance) -> bool:
    """Of one shape, and equal up to rounding."""
    return np.shape(answer) == np.shape(expected) and np.allclose(answer, expected, **tolerance)


def refute(answer, mistakes: Iterable[tuple[Any, str]], **tolerance) -> None:
    """Ends the check with the sentence of the first mistake, (what it gives, a sentence), that gives this answer."""
    for value, sentence in mistakes:
        require(not close(answer, value, **tolerance), sentence)
