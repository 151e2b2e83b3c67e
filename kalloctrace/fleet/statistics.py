# SPDX-License-Identifier: MIT
"""How sure a difference is. What is counted is hosts, not calls: the calls of one host are alike.

Two rules keep false alarms away: no spread is taken to be less than what counting alone makes, and what is tested many
times must be that much surer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Numbers: TypeAlias = npt.NDArray[np.float64]
Counts: TypeAlias = npt.NDArray[np.int64]

ALARM = 0.01
"""How often a fleet in which nothing is wrong gives any alarm."""
INTERVAL = 0.95
"""The share of intervals that have the true value."""
LEAST_HOSTS = 3
"""Hosts that a difference needs on each side."""
LEAST_PEERS = 10
"""Hosts of one kind that are needed to call one of them unlike the others."""
_MOST_ALIKE = 5
"""Outliers that may stand together."""
_TAIL = 20
"""Hosts next to an outlier that show how far apart hosts are out there."""


@dataclass(frozen=True)
class Estimate:
    """A difference of means with its uncertainty.

    Attributes:
        value: after less before.
        low: lower end of its 95 % interval.
        high: upper end.
        p_value: the probability of a difference as large as this one without any, for this test alone.
    """

    value: float
    low: float
    high: float
    p_value: float


def two_sided(t: float, freedom: int) -> float:
    """Return the probability that the size of Student's t is at least this, to about a tenth of it.

    Wallace (1959) turns t into a normal deviate.
    """
    deviate = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
    return math.erfc(deviate / math.sqrt(2))


def half_width(freedom: int) -> float:
    """Return the t of the 95 % interval: the inverse of `two_sided`."""
    deviate = NormalDist().inv_cdf((1 + INTERVAL) / 2) * (8 * freedom + 3) / (8 * freedom + 1)
    return math.sqrt(freedom * math.expm1(deviate * deviate / freedom))


def _estimate(value: float, variance: float, freedom: int) -> Estimate:
    error = math.sqrt(variance)
    if not error:
        return Estimate(value, value, value, 1.0 if not value else 0.0)
    width = half_width(freedom) * error
    return Estimate(value, value - width, value + width, two_sided(value / error, freedom))


def paired(before: Numbers, after: Numbers, counting: float) -> Estimate:
    """Compare hosts with themselves.

    Args:
        before: a value of each host, at least two.
        after: likewise, in the same order.
        counting: the variance of the mean difference that counting alone makes.
    """
    change = after - before
    variance = max(float(change.var(ddof=1)) / len(change), counting)
    return _estimate(float(change.mean()), variance, len(change) - 1)


def unpaired(before: Numbers, after: Numbers, counting: float) -> Estimate:
    """Compare hosts with others.

    A few hosts can agree by chance, where what they do is rare. So the larger spread stands for both sides.

    Args:
        before: a value of each host, at least two.
        after: likewise.
        counting: the variance of the difference of the means that counting alone makes.
    """
    spread = max(float(before.var(ddof=1)), float(after.var(ddof=1)))
    variance = max(spread * (1 / len(before) + 1 / len(after)), counting)
    return _estimate(float(after.mean() - before.mean()), variance, min(len(before), len(after)) - 1)


def counting_variance(part: Counts, whole: Counts) -> float:
    """Return the variance of the mean share of hosts that counting alone makes, with half a call more on each side."""
    share = (part.sum() + 0.5) / (whole.sum() + 1)
    return float(share * (1 - share) * (1 / whole).sum() / len(whole) ** 2)


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Return the p-values for all tests together, after Holm (1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    found, most = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        most = max(most, min(1.0, p_values[index] * (len(p_values) - place)))
        found[index] = most
    return found


def log_odds(part: Counts, whole: Counts) -> tuple[Numbers, Numbers]:
    """Return the logarithms of the odds of shares, with half a call more on each side, and what counting makes of them.

    Shares from far below 1 % up to nearly 100 % have even spreads so.
    """
    yes, no = part + 0.5, whole - part + 0.5
    return np.log(yes / no), np.sqrt(1 / yes + 1 / no)


def number_of_tests(hosts: int) -> int:
    """Return how many tests `outliers` makes of so many hosts."""
    return 2 * _alike(hosts)


def _alike(hosts: int) -> int:
    return max(1, min(_MOST_ALIKE, hosts // 20))


def outliers(values: Numbers, noise: Numbers, level: float) -> list[tuple[int, float]]:
    """Return the hosts that stand apart at either end, with the probability of such a gap.

    The gap between the outermost hosts and the next one is compared with the gaps between the twenty behind it. The
    gaps in the tail of any usual distribution are as those of an exponential one (Rényi 1953), so that a tail which is
    long by nature gives no alarm. Nor does a gap that counting alone explains.

    Args:
        values: of each host, at least LEAST_PEERS.
        noise: the standard deviation that counting makes of each.
        level: the largest probability that is an alarm, for one test.
    """
    found: dict[int, float] = {}
    for sign in (1, -1):
        order = np.argsort(-sign * values, kind="stable")
        most = _alike(len(values))
        tail = min(_TAIL, len(values) // 2 - most)
        ordered = sign * values[order]
        gaps = ordered[:-1] - ordered[1:]
        scaled = gaps * np.arange(1, len(values))
        for apart in range(1, most + 1):
            gap = float(gaps[apart - 1])
            behind = float(scaled[apart : apart + tail].sum())
            by_peers = (1 + float(scaled[apart - 1]) / behind) ** -tail if behind else 0.0
            error = math.hypot(float(noise[order[:apart]].max()), float(noise[order[apart]]))
            by_counting = math.erfc(gap / error / math.sqrt(2)) if error else 0.0
            chance = max(by_peers, by_counting) if gap else 1.0
            if chance <= level:
                for index in order[:apart].tolist():
                    found[index] = min(found.get(index, 1.0), chance)
    return sorted(found.items())
