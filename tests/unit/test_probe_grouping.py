# SPDX-License-Identifier: MIT
"""Equal records get equal numbers, and no others do."""

import time

import numpy as np
import pytest

from kalloctrace.probe.maps.grouping import Grouper
from kalloctrace.probe.maps.structs import Words, words_of

PAIR = np.dtype([("one", "<u8"), ("other", "<u8")])


def records(*pairs: tuple[int, int]) -> Words:
    """Return records of two words."""
    return words_of(np.array(list(pairs), PAIR))


def test_numbers_follow_the_first_meeting() -> None:
    """Each new record is returned once."""
    grouper = Grouper(PAIR)
    numbers, new = grouper.numbers(records((7, 7), (1, 2), (7, 7)))
    assert numbers.tolist() == [0, 1, 0]
    assert new.tolist() == [(7, 7), (1, 2)]
    numbers, new = grouper.numbers(records((1, 2), (3, 4), (3, 4), (7, 7)))
    assert numbers.tolist() == [1, 2, 2, 0]
    assert new.tolist() == [(3, 4)]


def test_no_records_are_no_groups() -> None:
    """Before and after others."""
    grouper = Grouper(PAIR)
    for _ in range(2):
        numbers, new = grouper.numbers(records()[:0])
        assert (len(numbers), len(new)) == (0, 0)
        grouper.numbers(records((1, 2)))


def test_many_records_are_distinguished() -> None:
    """As a dictionary would."""
    chance = np.random.default_rng(1)
    some = chance.integers(0, 40, (5000, 2)).astype(np.uint64)
    grouper = Grouper(PAIR)
    seen: dict[object, int] = {}
    for start in range(0, len(some), 500):
        part = some[start : start + 500]
        numbers, _ = grouper.numbers(part)
        for pair, number in zip(map(tuple, part.tolist()), numbers.tolist(), strict=True):
            assert seen.setdefault(pair, number) == number
    assert sorted(seen.values()) == list(range(len(seen)))


def test_records_of_the_same_hash_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal hashes do not prove equal records."""
    monkeypatch.setattr(Grouper, "_hash", lambda _, words: np.zeros(len(words), np.uint64))
    grouper = Grouper(PAIR)
    for _ in range(2):
        numbers, _ = grouper.numbers(records((1, 2), (3, 4), (1, 2), (5, 6)))
        assert numbers.tolist() == [0, 1, 0, 2]


def test_runs_end_where_they_end() -> None:
    """Also in long spans."""
    lengths = np.random.default_rng(2).integers(1, 700, 30)
    rows = np.repeat(np.arange(30, dtype=np.uint64) % 7, lengths)
    numbers, _ = Grouper(PAIR).numbers(np.stack([rows, rows], axis=1))
    assert numbers.tolist() == rows.tolist()


@pytest.mark.parametrize("columns", [2, 3, 8, 19, 24])
def test_bytes_around_a_record_are_ignored(columns: int) -> None:
    """For any width of a row and any position of the record in it."""
    chance = np.random.default_rng(3)
    for first in range(columns - 1):
        rows = chance.integers(0, 2, (300, columns)).astype(np.uint64)
        numbers, new = Grouper(PAIR).numbers(rows, first)
        assert [tuple(new[number]) for number in numbers] == [tuple(row) for row in rows[:, first : first + 2].tolist()]


def test_records_of_the_same_hash_are_found_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the record that has the hash is new or known."""
    monkeypatch.setattr(Grouper, "_hash", lambda _, words: words[:, 0].copy())
    grouper = Grouper(PAIR)
    chance = np.random.default_rng(4)
    some = chance.integers(0, 30, (6000, 2)).astype(np.uint64)
    known: list[object] = []
    for start in range(0, len(some), 200):
        numbers, new = grouper.numbers(some[start : start + 200])
        known += new.tolist()
        assert [known[number] for number in numbers] == list(map(tuple, some[start : start + 200].tolist()))
    assert len(known) == len(set(known))


def test_time_is_linear_in_new_records() -> None:
    """The work for 8,000 new records does not depend on how many are known."""
    some = np.random.default_rng(5).integers(0, 1 << 60, (64_000, 2)).astype(np.uint64)
    grouper = Grouper(PAIR)
    times = []
    for start in range(0, len(some), 8000):
        began = time.process_time()
        for at in range(start, start + 8000, 100):
            grouper.numbers(some[at : at + 100])
        times.append(time.process_time() - began)
    assert sum(times[4:]) < 3 * sum(times[:4]) + 0.1
    assert sum(times) < 2
