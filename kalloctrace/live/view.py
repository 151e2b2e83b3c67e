# SPDX-License-Identifier: MIT
"""Which rows of a live table the user sees, and in which order."""

from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.live.filter import parse_filter
from kalloctrace.live.table import (
    By,
    JudgedAllocations,
    LiveRow,
    LiveTable,
    SortName,
    live_table,
    members,
    sort_names,
    sorted_rows,
    sorts_descending,
)
from kalloctrace.trace.observation import Observation


class View:
    """The table of the last observation, filtered and sorted.

    Attributes:
        snapshot: of the recording.
        allocations: the distinct allocations of the recording.
        by: what a row groups calls by.
        sort: the column that the rows are sorted by.
        descending: the largest value comes first.
        filter: the filter's text; see `parse_filter`.
        table: the table of the last observation; None before the first.

    Args:
        snapshot: of the recording.
        by: what a row groups calls by.
        sort: the column to sort by.
        words: the filter's text.

    Raises:
        KalloctraceError: the filter is not valid.
    """

    def __init__(self, snapshot: Snapshot, by: By = "request", sort: SortName = "rate", words: str = "") -> None:
        self.snapshot = snapshot
        self.allocations = JudgedAllocations(snapshot)
        self.by: By = by
        self.sort: SortName = sort
        self.descending = sorts_descending(sort)
        self.table: LiveTable | None = None
        self._before: Observation | None = None
        self._now: Observation | None = None
        self.set_filter(words)

    def update(self, seen: Observation, *, whole: bool = False, held: bool = False) -> None:
        """Take in an observation.

        Args:
            seen: the observation.
            whole: rates cover the whole recording, because it has ended.
            held: keep the table as it is.
        """
        self.allocations.update(seen)
        self._before, self._now = None if whole else self._now, seen
        if not held:
            self.refresh()

    def rows(self) -> list[LiveRow]:
        """Return the rows that pass the filter, sorted."""
        if self.table is None:
            return []
        chosen = [row for row in self.table.rows if self._condition(row)]
        return sorted_rows(chosen, self.sort, self.snapshot.tables, descending=self.descending)

    def members(self, row: LiveRow) -> list[tuple[int, int]]:
        """Return the index and count of each allocation in a row; see `members` of the table."""
        return [] if self._now is None else members(self.allocations, self._now, row, self.by)

    def set_filter(self, words: str) -> None:
        """Set the filter.

        Raises:
            KalloctraceError: the text is not a valid filter; the filter stays as it was.
        """
        self._condition = parse_filter(words, self.snapshot.tables)
        self.filter = words

    def set_by(self, by: By) -> None:
        """Group the rows by something else."""
        self.by = by
        if self.sort not in sort_names(by):
            self.set_sort("rate")
        self.refresh()

    def set_sort(self, name: SortName) -> None:
        """Sort by a column; the same column again reverses the order."""
        self.descending = not self.descending if name == self.sort else sorts_descending(name)
        self.sort = name

    def next_sort(self, step: int) -> None:
        """Sort by the next column to the right, or to the left."""
        names = sort_names(self.by)
        self.set_sort(names[(names.index(self.sort) + step) % len(names)])

    def refresh(self) -> None:
        """Build the table of the last observation."""
        if self._now is not None:
            self.table = live_table(self.allocations, self._before, self._now, self.by)
