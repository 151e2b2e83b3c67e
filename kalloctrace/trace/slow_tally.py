# SPDX-License-Identifier: MIT
"""Counts calls of the slow path while they are captured or replayed: their number, and their time in it."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kalloctrace.trace.dedup import refuse_more
from kalloctrace.trace.results import slow_call_failed, slow_call_ns

OTHERS = "(others)"
"""Stands for all tasks whose names are not kept."""

_NOT_COUNTED_BY = frozenset(("prio", "oom_victim"))
"""Arguments that have no effect on the preparation of a call, and that differ from task to task."""


class SlowKey(NamedTuple):
    """What calls of the slow path are counted by.

    Attributes:
        given: the number of their arguments in `SlowCounts.given`.
        comm: the name of their task; None where tasks are not counted.
        pid: its process; None likewise.
        stack: their stack; None likewise, or where there is none.
        failed: they returned no page.
        longer: they were longer than the tally's limit.
    """

    given: int
    comm: str | None
    pid: int | None
    stack: str | None
    failed: bool
    longer: bool


def _nothing() -> npt.NDArray[np.uint64]:
    return np.zeros(0, np.uint64)


@dataclass(frozen=True)
class SlowCounts:
    """The calls of the slow path so far. Later counts of the same tally have the same keys first.

    Attributes:
        given: the arguments of calls, as the column "given" has them.
        keys: what is counted; there may be more of them than counts.
        calls: calls of each key.
        ns: their time in the slow path, in ns.
        longest: the time of the call that took longest, in ns; 0 without calls.
    """

    given: Sequence[Mapping[str, Any]] = ()
    keys: Sequence[SlowKey] = ()
    calls: npt.NDArray[np.uint64] = field(default_factory=_nothing)
    ns: npt.NDArray[np.uint64] = field(default_factory=_nothing)
    longest: int = 0


class SlowTally:
    """Counts calls of the slow path.

    Args:
        tasks: count tasks and stacks separately too.
        most: how many combinations to count separately; the tasks and stacks of later ones are counted together.
        longer_than: calls that are longer than this are counted separately, ns.
    """

    def __init__(self, *, tasks: bool, most: int, longer_than: int = 0) -> None:
        self._tasks = tasks
        self._most = most
        self._longer_than = longer_than
        self._given: list[Mapping[str, Any]] = []
        self._given_numbers: dict[tuple[Any, ...], int] = {}
        self._keys: list[SlowKey] = []
        self._key_numbers: dict[SlowKey, int] = {}
        self._calls = array("Q")
        self._ns = array("Q")
        self._longest = 0

    def add(self, call: Mapping[str, Any]) -> None:
        """Count a call, which has the columns of SLOW."""
        self.count(self.number(call), slow_call_ns(call))

    def number(self, call: Mapping[str, Any]) -> int:
        """Return the number of what a call is counted by."""
        failed, longer = slow_call_failed(call), slow_call_ns(call) > self._longer_than
        given = self._number_of_given(call["given"])
        key = SlowKey(given, None, None, None, failed, longer)
        if self._tasks:
            named = key._replace(comm=call["comm"], pid=call["pid"], stack=call["stack"])
            known = named in self._key_numbers or len(self._keys) < self._most
            key = named if known else key._replace(comm=OTHERS)
        number = self._key_numbers.setdefault(key, len(self._keys))
        if number == len(self._keys):
            self._keys.append(key)
            self._calls.append(0)
            self._ns.append(0)
        return number

    def count(self, number: int, ns: int) -> None:
        """Count a call of this number, which took so many ns."""
        self._calls[number] += 1
        self._ns[number] += ns
        self._longest = max(self._longest, ns)

    def counts(self) -> SlowCounts:
        """Return the counts so far."""
        return SlowCounts(
            self._given, self._keys, np.array(self._calls, np.uint64), np.array(self._ns, np.uint64), self._longest
        )

    def _number_of_given(self, given: Mapping[str, Any]) -> int:
        values = tuple(value for name, value in given.items() if name not in _NOT_COUNTED_BY)
        number = self._given_numbers.setdefault(values, len(self._given))
        if number == len(self._given):
            refuse_more(number + 1)
            self._given.append(given)
        return number
