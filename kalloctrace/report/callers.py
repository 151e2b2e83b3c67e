# SPDX-License-Identifier: MIT
"""Who allocated, and when: the part of a stream that must be counted row by row."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.report.amount import Amount, pages_of
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.dedup import KEYS
from kalloctrace.trace.schema import ALLOCATION

Groups = dict[tuple[Any, ...], Amount]


class Callers:
    """Calls and pages of each task and of each stack, over all batches of a stream.

    Attributes:
        tasks: by name and pid.
        stacks: by stack; (None,) is for calls that have none.
        first: time of the first call, ns; None without any.
        last: time of the last one, ns.
    """

    def __init__(self) -> None:
        self.tasks: Groups = {}
        self.stacks: Groups = {}
        self.first: int | None = None
        self.last = 0
        self._allocations = pa.array([], ALLOCATION)
        self._pages = np.zeros(0)

    def add(self, rows: RowBatch) -> None:
        """Count the rows of a batch, which has the columns time, pid, comm and stack."""
        if rows.allocations is not self._allocations:
            self._allocations = rows.allocations
            table = pa.Table.from_arrays(rows.allocations.flatten(), names=KEYS)
            # As numbers that bincount() adds up: exact below 2^53.
            self._pages = pages_of(table).to_numpy().astype(np.float64)
        pages = self._pages[rows.indices]
        # Each CPU's rows are in order of time, those of all CPUs together need not be.
        times = rows.task_columns["time"].to_numpy()
        self.first = min(int(times.min()), int(times.max()) if self.first is None else self.first)
        self.last = max(int(times.max()), self.last)
        self._add_tasks(rows.task_columns["comm"], rows.task_columns["pid"].to_numpy(), pages)
        self._add_stacks(rows.task_columns["stack"], pages)

    def _add_tasks(self, comm: pa.DictionaryArray, pid: npt.NDArray[np.int32], pages: npt.NDArray[np.float64]) -> None:
        names = comm.dictionary
        codes = comm.indices.to_numpy().astype(np.int64) << 32 | pid.view(np.uint32)
        _add(self.tasks, lambda code: (names[code >> 32].as_py(), _signed(code & 0xFFFFFFFF)), codes, pages)

    def _add_stacks(self, stack: pa.DictionaryArray, pages: npt.NDArray[np.float64]) -> None:
        texts, none = stack.dictionary, len(stack.dictionary)
        codes = stack.indices.fill_null(none).to_numpy()
        _add(self.stacks, lambda code: (None if code == none else texts[code].as_py(),), codes, pages)


def _add(
    groups: Groups, key: Callable[[int], tuple[Any, ...]], codes: npt.NDArray[Any], pages: npt.NDArray[np.float64]
) -> None:
    """Add rows to their groups.

    Args:
        groups: what to add to.
        key: returns the group that a code stands for.
        codes: of each row.
        pages: of each row.
    """
    # A task mostly makes several calls in a row, and these are added up first: that is quicker than looking each up.
    runs = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
    met = pa.array(codes[runs]).dictionary_encode()
    of_runs = met.indices.to_numpy()
    counts = np.bincount(of_runs, np.diff(runs, append=len(codes)))
    sums = np.bincount(of_runs, np.add.reduceat(pages, runs))
    for code, count, amount in zip(met.dictionary.to_pylist(), counts.tolist(), sums.tolist(), strict=True):
        groups.setdefault(key(code), Amount()).add(Amount(int(count), int(amount)))


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word
