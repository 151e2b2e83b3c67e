# SPDX-License-Identifier: MIT
"""The statistics of a fleet: against published tables, and against chance."""

import math

import numpy as np
import pytest

from kalloctrace.fleet.statistics import (
    ALARM,
    Counts,
    adjusted,
    counting_variance,
    half_width,
    log_odds,
    number_of_tests,
    outliers,
    paired,
    two_sided,
    unpaired,
)


@pytest.mark.parametrize(
    ("freedom", "chance", "t"),
    [(2, 0.05, 4.303), (4, 0.05, 2.776), (4, 0.001, 8.610), (10, 0.01, 3.169), (30, 0.001, 3.646), (120, 0.05, 1.980)],
)
def test_students_t(freedom: int, chance: float, t: float) -> None:
    """As in the tables that every book has, to some percent."""
    assert two_sided(t, freedom) == pytest.approx(chance, rel=0.2)
    if chance == 0.05:
        assert half_width(freedom) == pytest.approx(t, rel=0.06)


def test_chances_of_many_tests() -> None:
    """Holm's own example: the smallest of three counts three times, and none becomes less than one before it."""
    assert adjusted([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjusted([0.9, 0.8]) == [1.0, 1.0]
    assert adjusted([]) == []


def test_an_interval_has_the_true_value() -> None:
    """In about 95 of 100 cases, with few hosts and with many, with the same ones and with others."""
    random = np.random.default_rng(1)
    for hosts in (4, 30):
        for compare in (paired, unpaired):
            found = [compare(random.normal(0, 1, hosts), random.normal(1, 1, hosts), 0.0) for _ in range(400)]
            share = np.mean([one.low <= 1 <= one.high for one in found])
            assert 0.92 <= share <= 0.99, (hosts, compare)


def test_equal_hosts_are_as_uncertain_as_counting() -> None:
    """A rare value that no host of one side has may have been missed; one that all hosts always have is certain."""
    whole = np.full(5, 1000)
    none, few, every = np.zeros(5, np.int64), np.full(5, 1), whole

    def compared(before: Counts, after: Counts) -> float:
        counting = counting_variance(before, whole) + counting_variance(after, whole)
        return paired(before / whole, after / whole, counting).p_value

    assert compared(none, few) > ALARM
    assert compared(none, every) < 1e-6
    assert compared(none, none) == 1


def test_few_hosts_that_agree_by_chance_are_no_difference() -> None:
    """Five hosts without a value that a tenth of the others has: the spread of the others counts."""
    before = np.where(np.arange(1000) % 10 == 0, 0.3, 0.0)
    assert unpaired(before, np.zeros(5), 0.0).p_value > ALARM


@pytest.mark.parametrize("tail", ["normal", "exponential", "lognormal", "two roles", "rare"])
def test_peers_of_any_spread_give_no_alarm(tail: str) -> None:
    """In at most 2 of 100 fleets, whatever distribution the peers have."""
    random, alarms = np.random.default_rng(1), 0
    for _ in range(300):
        values, noise = np.zeros(100), np.zeros(100)
        match tail:
            case "normal":
                values = random.normal(size=100)
            case "exponential":
                values = random.exponential(size=100)
            case "lognormal":
                values = random.lognormal(0, 0.3, 100)
            case "two roles":
                values = np.where(random.random(100) < 0.3, 0, 3) + random.normal(0, 0.2, 100)
            case "rare":
                values, noise = log_odds(random.poisson(3 * random.lognormal(0, 1, 100)), np.full(100, 300))
        alarms += bool(outliers(values, noise, ALARM / number_of_tests(100)))
    assert alarms <= 6


def test_outliers_are_found() -> None:
    """One above and three below, alone or together; none that counting alone explains."""
    random = np.random.default_rng(1)
    values = random.normal(0, 1, 100)
    values[[3, 50, 51, 52]] = 15, -20, -20.5, -21
    found = outliers(values, np.zeros(100), ALARM / number_of_tests(100))
    assert [index for index, _ in found] == [3, 50, 51, 52]
    assert all(chance < ALARM for _, chance in found)
    assert outliers(values, np.full(100, 5.0), ALARM / number_of_tests(100)) == []


def test_log_odds() -> None:
    """Half a call more on each side: no share is without end."""
    values, noise = log_odds(np.array([0, 50, 100]), np.array([100, 100, 100]))
    assert values.tolist() == pytest.approx([math.log(0.5 / 100.5), 0, math.log(100.5 / 0.5)])
    assert noise[1] == pytest.approx(0.2, rel=0.01)
