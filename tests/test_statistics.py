"""Intervals of shares and means."""

from __future__ import annotations

import math

import pytest

from sdwidgets.statistics import geometric_mean


def test_a_geometric_mean_has_an_interval_symmetric_in_its_logarithm():
    mean, low, high = geometric_mean([1.0, 2.0, 4.0, 8.0, 16.0, 2.0])
    assert mean == pytest.approx(2 ** (11 / 6)) and low * high == pytest.approx(mean**2)
    assert math.log(high / mean) == pytest.approx(2.571 * math.log(2) * math.sqrt(2.1667 / 6), rel=1e-3)
    assert geometric_mean([3.0]) == pytest.approx((3.0, 3.0, 3.0))
    for wrong in ([], [1.0, 0.0]):
        with pytest.raises(ValueError, match="values above 0"):
            geometric_mean(wrong)
