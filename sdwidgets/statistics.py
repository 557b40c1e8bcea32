"""Shares and means with their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

Z = 1.96  # of a 95% interval


@dataclass(frozen=True)
class Rate:
    """`right` successes of `n`, with the 95% Wilson interval (Wilson 1927). n = 0: a rate that is not known."""

    name: str
    n: int
    right: int

    def __post_init__(self):
        if not 0 <= self.right <= self.n:
            raise ValueError(f"{self.right} of {self.n} is no share; `right` lies in 0 to n")

    @property
    def rate(self) -> float | None:
        return self.right / self.n if self.n else None

    def interval(self, z: float = Z) -> tuple[float, float]:
        """(low, high), both in 0..1: (0, 1) where nothing was counted."""
        if not self.n:
            return 0.0, 1.0
        centre = (self.right + z**2 / 2) / (self.n + z**2)
        reach = z / (self.n + z**2) * math.sqrt(self.right * (self.n - self.right) / self.n + z**2 / 4)
        return max(0.0, centre - reach), min(1.0, centre + reach)

    def numbers(self) -> dict:
        """n, rate, low and high, rounded to four places."""
        low, high = self.interval()
        return {
            "n": self.n,
            "rate": None if self.rate is None else round(self.rate, 4),
            "low": round(low, 4),
            "high": round(high, 4),
        }

    def row(self) -> dict:
        return {"name": self.name} | self.numbers()


def share(right: list[bool] | tuple[bool, ...]) -> dict:
    """`Rate.numbers` of a list of successes and failures."""
    return Rate("", len(right), sum(right)).numbers()


def binomial_tail(n: int, k: int, p: float) -> float:
    """The probability of k or more successes in n trials of probability p."""
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


def geometric_mean(values: Iterable[float]) -> tuple[float, float, float]:
    """The mean of values above 0 on a logarithmic scale, and the 95% interval of that mean by Student's t: (mean, low, high).

    One value alone has no interval: it is given three times. Of two values by the same approximation of t, which is good from five on.
    Raises ValueError for none, and for values that are not above 0.
    """
    values = list(values)
    if not values or min(values) <= 0:
        raise ValueError(f"a geometric mean takes values above 0, one or more, not {values}")
    logs = [math.log(value) for value in values]
    n, mean = len(logs), math.fsum(logs) / len(logs)
    if n == 1:
        return values[0], values[0], values[0]
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in logs) / (n - 1))
    reach = student(n - 1) * deviation / math.sqrt(n)
    return math.exp(mean), math.exp(mean - reach), math.exp(mean + reach)


def student(freedom: int, z: float = Z) -> float:
    """The quantile of Student's t that belongs to the normal quantile z, for so many degrees of freedom (Abramowitz and Stegun 26.7.5)."""
    terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))
