# SPDX-License-Identifier: MIT
"""Who allocated, and when: the part of a stream that must be counted row by row."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.report.amount import Amount, pages_of
from kalloctrace.trace.distinct import KEYS
from kalloctrace.trace.encoded import Encoded
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

    def add(self, rows: Encoded) -> None:
        """Count the rows of a batch, which has the columns time, pid, comm and stack."""
        if rows.allocations is not self._allocations:
            self._allocations = rows.allocations
            table = pa.Table.from_arrays(rows.allocations.flatten(), names=KEYS)
            # As numbers that bincount() adds up: exact below 2^53.
            self._pages = pages_of(table).to_numpy().astype(np.float64)
        pages = self._pages[rows.indices]
        # Each CPU's rows are in order of time, those of all CPUs together need not be.
        times = rows.who["time"].to_numpy()
        self.first = min(int(times.min()), int(times.max()) if self.first is None else self.first)
        self.last = max(int(times.max()), self.last)
        self._add_tasks(rows.who["comm"], rows.who["pid"].to_numpy(), pages)
        self._add_stacks(rows.who["stack"], pages)

    def _add_tasks(self, comm: pa.DictionaryArray, pid: npt.NDArray[np.int32], pages: npt.NDArray[np.float64]) -> None:
        names = comm.indices.to_numpy().astype(np.int64)
        tasks = pa.array(names << 32 | pid.view(np.uint32)).dictionary_encode()
        keys = tasks.dictionary.to_numpy()
        pids = keys.astype(np.uint32).view(np.int32)
        texts = comm.dictionary.take(pa.array(keys >> 32)).to_pylist()
        _add(self.tasks, lambda code: (texts[code], int(pids[code])), tasks.indices.to_numpy(), pages)

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
    counts, sums = np.bincount(codes), np.bincount(codes, pages)
    for code in np.flatnonzero(counts).tolist():
        groups.setdefault(key(code), Amount()).add(Amount(int(counts[code]), int(sums[code])))
