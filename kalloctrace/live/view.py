# SPDX-License-Identifier: MIT
"""Which rows of a live table the user sees, and in which order."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.live.filter import parse_filter
from kalloctrace.live.grouped import Fields, group_key, grouped
from kalloctrace.live.history import History
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
from kalloctrace.trace.inferred import inferred_of
from kalloctrace.trace.missed_text import missed_causes
from kalloctrace.trace.observation import Observation
from kalloctrace.trace.results import EVERY_CALL, Selection, missing_to_sort

_CAPTURE_FIX = "leave out --alloc-flags, with which it cannot be; kalloctrace doctor says what this kernel allows"


class View:
    """The table of the last observation, filtered and sorted.

    Attributes:
        snapshot: of the recording.
        allocations: the distinct allocations of the recording.
        by: what a row groups calls by.
        fields: rows are added up by these fields, after the filter; None if they are not.
        sort: the column that the rows are sorted by.
        descending: the largest value comes first.
        filter: the filter's text; see `parse_filter`.
        selection: the calls that rows count.
        table: the table of the last observation; None before the first.
        history: the rates of the last intervals.
        recording: how the recording is made; empty until `describe`.

    Args:
        snapshot: of the recording.
        by: what a row groups calls by.
        sort: the column to sort by.
        words: the filter's text.
        fields: the fields to add rows up by, which `by` has; None for none.
        selection: the calls that rows count.

    Raises:
        KalloctraceError: the filter is not valid.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        by: By = "request",
        sort: SortName = "rate",
        words: str = "",
        fields: Fields | None = None,
        *,
        selection: Selection = EVERY_CALL,
    ) -> None:
        self.snapshot = snapshot
        self.allocations = JudgedAllocations(snapshot)
        self.by: By = by
        self.fields = fields
        self.sort: SortName = sort
        self.descending = sorts_descending(sort)
        self.selection = selection
        # As the recording counts them apart.
        self._longer_than = selection.slower_than or 0
        self.table: LiveTable | None = None
        self.history = History()
        self.recording: Mapping[str, Any] = {}
        self._capturing = False
        self._before: Observation | None = None
        self._now: Observation | None = None
        self.set_filter(words)

    @property
    def missed_causes(self) -> list[str]:
        """Return why probe hits were missed so far, in words."""
        return [] if self.table is None else list(missed_causes(self.table.totals, self.recording))

    def describe(self, recording: Mapping[str, Any], *, capturing: bool = False) -> None:
        """Take in how the recording is made, which is known once it is attached.

        Args:
            recording: how it is made.
            capturing: it is made now; otherwise it is a trace.

        Raises:
            KalloctraceError: it lacks what the rows are selected or sorted by (exit code 2).
        """
        self._capturing = capturing
        self._refuse(self.selection.missing(recording) or missing_to_sort(self.sort, recording))
        self.recording = recording
        self.allocations.inferred = inferred_of(recording)

    def update(self, seen: Observation, *, whole: bool = False, held: bool = False) -> None:
        """Take in an observation.

        Args:
            seen: the observation.
            whole: rates cover the whole recording, because it has ended.
            held: keep the table as it is.
        """
        self.allocations.update(seen)
        if not whole:
            self.history.add(self._now, seen)
        self._before, self._now = None if whole else self._now, seen
        if not held:
            self.refresh()

    def rows(self) -> list[LiveRow]:
        """Return the rows that pass the filter, sorted."""
        if self.table is None:
            return []
        chosen = self._filtered(self.table)
        if self.fields is not None:
            chosen = grouped(chosen, self.fields)
        return sorted_rows(chosen, self.sort, self.snapshot.tables, descending=self.descending)

    def members(self, row: LiveRow) -> list[tuple[int, int]]:
        """Return the index and count of each allocation in a row; see `members` of the table."""
        if self._now is None or self.table is None:
            return []
        fields, sums = self.fields, Counter[int]()
        if fields is None:
            return members(self.allocations, self._now, row, self.by)
        for part in self._filtered(self.table):
            if group_key(part, fields) == row.key:
                sums.update(dict(members(self.allocations, self._now, part, self.by)))
        return sorted(sums.items(), key=lambda item: (not self.allocations.judged(item[0]).differences, -item[1]))

    def _filtered(self, table: LiveTable) -> list[LiveRow]:
        return [row for row in table.rows if self._condition(row)]

    def set_filter(self, words: str) -> None:
        """Set the filter.

        Raises:
            KalloctraceError: the text is not a valid filter; the filter stays as it was.
        """
        self._condition = parse_filter(words, self.snapshot.tables)
        self.filter = words

    @property
    def restrictions(self) -> list[str]:
        """Return which calls and rows are shown, in words; empty if all are."""
        selection = self.selection
        longer = selection.slower_than
        return [
            *(["only failed calls"] if selection.failed else []),
            *([f"only calls longer than {longer / 1e6:g} ms in the slow path"] if longer is not None else []),
            *([f"filter: {self.filter}"] if self.filter else []),
        ]

    def toggle_failed(self) -> None:
        """Count only failed calls, or all again.

        Raises:
            KalloctraceError: the recording does not show which calls failed.
        """
        self._select(replace(self.selection, failed=not self.selection.failed))

    def toggle_slow(self) -> None:
        """Count only calls that took longer in the slow path than the recording counts apart, or all again.

        Raises:
            KalloctraceError: the recording has no slow path.
        """
        limit = self._longer_than if self.selection.slower_than is None else None
        self._select(replace(self.selection, slower_than=limit))

    def _select(self, selection: Selection) -> None:
        self._refuse(selection.missing(self.recording))
        self.selection = selection
        self.refresh()

    def set_by(self, by: By) -> None:
        """Group the rows by something else."""
        self.by, self.fields = by, None
        if self.sort not in sort_names(by):
            self.set_sort("rate")
        self.refresh()

    def set_sort(self, name: SortName) -> None:
        """Sort by a column; the same column again reverses the order."""
        self.descending = not self.descending if name == self.sort else sorts_descending(name)
        self.sort = name

    def sort_largest_first(self, name: SortName) -> None:
        """Sort by a column, the largest value first.

        Raises:
            KalloctraceError: the recording does not have its values.
        """
        self._refuse(missing_to_sort(name, self.recording))
        self.sort, self.descending = name, True

    def next_sort(self, step: int) -> None:
        """Sort by the next column to the right, or to the left."""
        names = sort_names(self.by, self.fields)
        self.set_sort(names[(names.index(self.sort) + step) % len(names)])

    def refresh(self) -> None:
        """Build the table of the last observation."""
        if self._now is not None:
            self.table = live_table(self.allocations, self._before, self._now, self.by, self.selection)

    def _refuse(self, missing: tuple[str, str, str] | None) -> None:
        """Raise the error for what the recording lacks, if it lacks something."""
        if missing is not None:
            what, why, fix = missing
            raise KalloctraceError(f"cannot {what}", why, _CAPTURE_FIX if self._capturing else fix, Exit.USAGE)
