# SPDX-License-Identifier: MIT
"""How certain a median is."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

FEWEST = 6
"""Repetitions from which an interval of 95 % exists."""

_OUTSIDE = 0.05


class Interval(NamedTuple):
    """A median, and the interval that holds the true one with a probability of at least 95 %.

    Attributes:
        median: of all repetitions.
        low: the interval's lower end.
        high: its upper end.
        least: the smallest round with the tool, minus the smallest rounds without it; of the best repetition.
    """

    median: float
    low: float
    high: float
    least: float


def interval(values: Sequence[float], least: float) -> Interval:
    """Return the median and its interval by order statistics, which assume nothing about the distribution.

    Args:
        values: one by repetition, at least `FEWEST`.
        least: passed on.
    """
    ordered = sorted(values)
    count = len(ordered)
    # The median lies outside with the probability that at most `cut` of `count` tosses of a coin show heads, twice.
    cut, outside = 0, 2 / 2**count
    while (outside := outside + 2 * math.comb(count, cut + 1) / 2**count) <= _OUTSIDE:
        cut += 1
    return Interval(statistics.median(ordered), ordered[cut], ordered[count - 1 - cut], least)
