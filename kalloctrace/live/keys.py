# SPDX-License-Identifier: MIT
"""What identifies the rows of a live table: a request and its preparation, a task and its stack."""

from typing import NamedTuple

from kalloctrace.trace.schema import TRACEPOINT


class RequestKey(NamedTuple):
    """A request and its preparation, as far as a row shows them.

    Attributes:
        entry: as in the trace.
        gfp_mask: argument of the entry.
        order: argument of the entry.
        node: of the preferred zone; None where the request was rejected or no zone is eligible.
        zone: index of the preferred zone; -1 where the zone is not known.
        migratetype: None where the request was rejected.
        alloc_flags: of the first attempt; None where the request was rejected.
    """

    entry: str
    gfp_mask: int
    order: int
    node: int | None
    zone: int | None
    migratetype: int | None
    alloc_flags: int | None

    @property
    def rejected(self) -> bool:
        """Return whether get_page_from_freelist() was not called.

        The bulk allocator never calls it, and another tool's event does not show it: False for both.
        """
        return self.alloc_flags is None and self.entry not in {"bulk", TRACEPOINT}


class TaskKey(NamedTuple):
    """The task and stack of a call; None for what is not known, or not part of the row."""

    comm: str | None = None
    pid: int | None = None
    stack: str | None = None
