# SPDX-License-Identifier: MIT
"""What a user sees of a recording under way: which rows, in which order."""

from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.live.filter import parse_filter
from kalloctrace.live.table import (
    By,
    Known,
    LiveRow,
    LiveTable,
    SortName,
    arranged,
    descends,
    live_table,
    members,
    sort_names,
)
from kalloctrace.trace.observation import Observation


class View:
    """A table of the last moment, and how it is looked at.

    Attributes:
        snapshot: of the recording.
        known: its allocations.
        by: what a row stands for.
        sort: the column that the rows are sorted by.
        descending: from the largest down.
        filter: the words that rows must fit.
        table: the last moment; None before the first.

    Args:
        snapshot: of the recording.
        by: what a row stands for.
        sort: the column to sort by.
        words: the filter.

    Raises:
        KalloctraceError: the filter makes no sense.
    """

    def __init__(self, snapshot: Snapshot, by: By = "request", sort: SortName = "rate", words: str = "") -> None:
        self.snapshot = snapshot
        self.known = Known(snapshot)
        self.by: By = by
        self.sort: SortName = sort
        self.descending = descends(sort)
        self.table: LiveTable | None = None
        self._before: Observation | None = None
        self._now: Observation | None = None
        self.set_filter(words)

    def update(self, seen: Observation, *, whole: bool = False, held: bool = False) -> None:
        """Take in a moment.

        Args:
            seen: the moment.
            whole: rates are those of the whole recording, as nothing more will come.
            held: the table stays what it was.
        """
        self.known.learn(seen)
        self._before, self._now = None if whole else self._now, seen
        if not held:
            self.refresh()

    def rows(self) -> list[LiveRow]:
        """Return the rows that are shown, in their order."""
        if self.table is None:
            return []
        chosen = [row for row in self.table.rows if self._condition(row)]
        return arranged(chosen, self.sort, self.snapshot.tables, descending=self.descending)

    def members(self, row: LiveRow) -> list[tuple[int, int]]:
        """Return the allocations that a row is made of, and their counts."""
        return [] if self._now is None else members(self.known, self._now, row, self.by)

    def set_filter(self, words: str) -> None:
        """Show only the rows that fit.

        Raises:
            KalloctraceError: the words make no sense; the filter stays what it was.
        """
        self._condition = parse_filter(words, self.snapshot.tables)
        self.filter = words

    def set_by(self, by: By) -> None:
        """Let the rows stand for something else."""
        self.by = by
        if self.sort not in sort_names(by):
            self.set_sort("rate")
        self.refresh()

    def set_sort(self, name: SortName) -> None:
        """Sort by a column, the other way round where it is the one already."""
        self.descending = not self.descending if name == self.sort else descends(name)
        self.sort = name

    def next_sort(self, step: int) -> None:
        """Sort by the next column to the right, or to the left."""
        names = sort_names(self.by)
        self.set_sort(names[(names.index(self.sort) + step) % len(names)])

    def refresh(self) -> None:
        """Make the table of the last moment."""
        if self._now is not None:
            self.table = live_table(self.known, self._before, self._now, self.by)
