"""Shares and means with their intervals."""

from __future__ import annotations

import math
import statistics
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

    One value alone has no interval: it stands three times. Raises ValueError for none, and for values that are not above 0.
    """
    from scipy import stats  # a second to import

    values = list(values)
    if not values or min(values) <= 0:
        raise ValueError(f"a geometric mean takes values above 0, one or more, not {values}")
    logs = [math.log(value) for value in values]
    mean, low, high = [statistics.fmean(logs)] * 3
    if len(logs) > 1:
        low, high = stats.t.interval(0.95, len(logs) - 1, loc=mean, scale=stats.sem(logs))
    return math.exp(mean), math.exp(low), math.exp(high)
