# SPDX-License-Identifier: MIT
"""Calls and pages by task and stack: the part of a stream that is counted row by row."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.report.amount import Amount
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.dedup import KEYS
from kalloctrace.trace.results import pages_of
from kalloctrace.trace.schema import ALLOCATION
from kalloctrace.trace.slow_tally import OTHERS

Groups = dict[tuple[Any, ...], Amount]

MOST_CALLERS = 200_000
"""Tasks that are counted separately, and as many stacks: a recording of days has millions of processes."""


class Callers:
    """Calls and pages of each task and each stack, over all batches of a stream.

    Attributes:
        tasks: by comm and pid; those beyond a limit are (OTHERS, None).
        stacks: by stack; (None,) for calls without one, and (OTHERS,) for those beyond a limit.
        first: time of the first call in ns; None without calls.
        last: time of the last call in ns.
    """

    def __init__(self) -> None:
        self.tasks: Groups = {}
        self.stacks: Groups = {}
        self.first: int | None = None
        self.last = 0
        self._allocations = pa.array([], ALLOCATION)
        self._pages = np.zeros(0)

    def add(self, rows: RowBatch) -> None:
        """Count the rows of a batch that has the columns time, pid, comm and stack."""
        pages = self._pages_of(rows)
        # Rows are in order of time for each CPU only.
        times = rows.task_columns["time"].to_numpy()
        self.first = min(int(times.min()), int(times.max()) if self.first is None else self.first)
        self.last = max(int(times.max()), self.last)
        self._add_tasks(rows.task_columns["comm"], rows.task_columns["pid"].to_numpy(), pages)
        self._add_stacks(rows.task_columns["stack"], pages)

    def add_counts(self, rows: RowBatch) -> None:
        """Count the rows of a batch of an aggregate that has the column comm."""
        comm: pa.DictionaryArray = rows.task_columns["comm"]
        codes = comm.indices.to_numpy()
        weights = np.ones(len(codes)) if rows.counts is None else rows.counts.astype(np.float64)
        counts = np.bincount(codes, weights)
        pages = np.bincount(codes, weights * self._pages_of(rows))
        for code in np.flatnonzero(counts).tolist():
            name = comm.dictionary[code].as_py(), None
            group = name if name in self.tasks or len(self.tasks) < MOST_CALLERS else (OTHERS, None)
            self.tasks.setdefault(group, Amount()).add(Amount(int(counts[code]), int(pages[code])))

    def _pages_of(self, rows: RowBatch) -> npt.NDArray[np.float64]:
        if rows.allocations is not self._allocations:
            self._allocations = rows.allocations
            table = pa.Table.from_arrays(rows.allocations.flatten(), names=KEYS)
            # float64 because bincount() adds up floats; exact below 2^53.
            self._pages = pages_of(table).to_numpy().astype(np.float64)
        return self._pages[rows.indices]

    def _add_tasks(self, comm: pa.DictionaryArray, pid: npt.NDArray[np.int32], pages: npt.NDArray[np.float64]) -> None:
        names = comm.dictionary
        codes = comm.indices.to_numpy().astype(np.int64) << 32 | pid.view(np.uint32)

        def task(code: int) -> tuple[str, int]:
            return names[code >> 32].as_py(), _signed(code & 0xFFFFFFFF)

        _add(self.tasks, (OTHERS, None), task, codes, pages)

    def _add_stacks(self, stack: pa.DictionaryArray, pages: npt.NDArray[np.float64]) -> None:
        texts, none = stack.dictionary, len(stack.dictionary)
        codes = stack.indices.fill_null(none).to_numpy()
        _add(self.stacks, (OTHERS,), lambda code: (None if code == none else texts[code].as_py(),), codes, pages)


def _add(
    groups: Groups,
    others: tuple[Any, ...],
    key: Callable[[int], tuple[Any, ...]],
    codes: npt.NDArray[Any],
    pages: npt.NDArray[np.float64],
) -> None:
    """Add rows to their groups.

    Args:
        groups: the groups.
        others: the group of those for which there is no room.
        key: returns the group of a code.
        codes: the code of each row.
        pages: the pages of each row.
    """
    # Add up runs of equal codes first: a task usually makes several calls in a row.
    runs = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
    distinct = pa.array(codes[runs]).dictionary_encode()
    of_runs = distinct.indices.to_numpy()
    counts = np.bincount(of_runs, np.diff(runs, append=len(codes)))
    sums = np.bincount(of_runs, np.add.reduceat(pages, runs))
    for code, count, amount in zip(distinct.dictionary.to_pylist(), counts.tolist(), sums.tolist(), strict=True):
        group = key(code)
        if group not in groups and len(groups) >= MOST_CALLERS:
            group = others
        groups.setdefault(group, Amount()).add(Amount(int(count), int(amount)))


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word
