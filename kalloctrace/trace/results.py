# SPDX-License-Identifier: MIT
"""What calls returned: their outcome, their pages, and which of them a question selects by it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kalloctrace.trace.schema import TRACEPOINT

PAGE_SIZE = 4096
"""Bytes in a page; x86-64 has no other."""
OUTCOMES: Mapping[bool | None, str] = {True: "page", False: "failed", None: "not recorded"}
"""What a call returned, by the column "page"; a call that never reached get_page_from_freelist() is "rejected"."""

_FAILED_OUTCOMES = ("rejected", "failed")
_LARGEST_ORDER = 31
"""Larger orders are capped: only a damaged file has them, and the number of pages must fit into int64."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which calls are selected by what they returned, and how long they took.

    Attributes:
        failed: only calls that returned no page.
        slower_than: only calls that were longer than this in the slow path, ns; None for all.
    """

    failed: bool = False
    slower_than: int | None = None

    @property
    def only_slow(self) -> bool:
        """Return whether only calls of the slow path are counted: the others have no duration."""
        return self.slower_than is not None

    def counts_slow_calls(self, *, followed: bool) -> bool:
        """Return whether calls are counted by their slow path: no other part of the recording selects them.

        Args:
            followed: every call shows what it returned.
        """
        return self.only_slow or (self.failed and not followed)

    def missing(self, recording: Mapping[str, Any]) -> tuple[str, str, str] | None:
        """Return what is impossible in a trace, why, and how to get it; None if the trace has what this selects by.

        Args:
            recording: how the trace was made.
        """
        if self.only_slow and not recording.get("slow"):
            return "select slow calls", *no_slow_path(recording)
        if self.failed and not knows_failures(recording):
            return "select failed calls", *no_outcome()
        return None


EVERY_CALL = Selection()


def knows_failures(recording: Mapping[str, Any]) -> bool:
    """Return whether it is known which calls returned no page.

    Args:
        recording: how the trace was made.
    """
    # The first recorders followed every call to its return, and did not write so.
    followed_all = recording.get("returns", recording.get("mode") == "stream")
    return bool(recording.get("slow") or recording.get("imported") or followed_all)


def no_outcome() -> tuple[str, str]:
    """Return why a trace does not show which calls failed, and how to get it."""
    return "what its calls returned was not recorded", "record it without --no-slow, or with --mode stream --returns"


def missing_to_sort(by: str, recording: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Return why calls cannot be sorted by their failures or time, as `Selection.missing` does.

    Args:
        by: failed, time, or what every trace has.
        recording: how the trace was made.
    """
    if by == "time" and not recording.get("slow"):
        return "sort by time", *no_slow_path(recording)
    if by == "failed" and not knows_failures(recording):
        return "sort by failed", *no_outcome()
    return None


def no_slow_path(recording: Mapping[str, Any]) -> tuple[str, str]:
    """Return why a trace has no calls of the slow path, and how to get them.

    Args:
        recording: how the trace was made.
    """
    if recording.get("imported"):
        return "the events of another tool do not show the slow path", "record it with kalloctrace record"
    return "its slow path was not recorded", "record it without --no-slow"


def nanoseconds(milliseconds: float | None) -> int | None:
    """Return the limit of a selection that is given in ms, in ns; None where there is none."""
    return None if milliseconds is None else int(milliseconds * 1e6)


def slow_call_failed(call: Mapping[str, Any]) -> bool:
    """Return whether a call with the columns of SLOW returned no page."""
    return call["page"] is False


def slow_call_ns(call: Mapping[str, Any]) -> int:
    """Return how long a call with the columns of SLOW took; 0 where its return was not captured."""
    duration: int = call["duration"] or 0
    return duration


def outcomes_of(allocations: pa.Table) -> pa.ChunkedArray:
    """Return what each distinct allocation returned, as far as it was recorded; see `OUTCOMES`.

    Args:
        allocations: with the columns entry, freelist_calls and page.
    """
    bulk = pc.equal(allocations["entry"], "bulk")
    rejected = pc.fill_null(pc.and_not(pc.equal(allocations["freelist_calls"], 0), bulk), fill_value=False)
    known = pc.is_valid(allocations["page"])
    without_page = pc.if_else(rejected, "rejected", pc.if_else(known, OUTCOMES[False], OUTCOMES[None]))
    return pc.if_else(pc.fill_null(allocations["page"], fill_value=False), OUTCOMES[True], without_page)


def failed_of(outcomes: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return which outcomes are those of calls that returned no page."""
    return pc.is_in(outcomes, pa.array(_FAILED_OUTCOMES))


def followed(allocations: pa.Table, outcomes: pa.ChunkedArray) -> bool:
    """Return whether every call shows what it returned.

    Args:
        allocations: with the columns page and entry.
        outcomes: theirs.
    """
    # Of another tool's event no return is expected.
    known = pc.or_(pc.is_valid(allocations["page"]), pc.equal(allocations["entry"], TRACEPOINT))
    return pc.all(pc.or_(known, pc.equal(outcomes, "rejected"))).as_py() is not False


def pages_of(allocations: pa.Table) -> pa.ChunkedArray:
    """Return the pages that one call of each allocation got, as int64.

    Args:
        allocations: with the columns order, page, entry, freelist_calls and bulk_seen.
    """
    zero = pa.scalar(0, pa.int64())
    order = pc.min_element_wise(allocations["order"], pa.scalar(_LARGEST_ORDER, pa.uint32())).cast(pa.int64())
    # Where the return was not traced, assume that a call got its pages unless it was rejected.
    got = pc.coalesce(allocations["page"], pc.greater(allocations["freelist_calls"], 0))
    pages = pc.if_else(got, pc.shift_left(pa.scalar(1, pa.int64()), order), zero)
    taken = pc.coalesce(allocations["bulk_seen"].cast(pa.int64()), zero)
    return pc.if_else(pc.equal(allocations["entry"], "bulk"), taken, pages)


def slow_call_bytes(order: int, *, failed: bool) -> int:
    """Return the bytes that a call of the slow path got."""
    return 0 if failed else PAGE_SIZE << min(order, _LARGEST_ORDER)
