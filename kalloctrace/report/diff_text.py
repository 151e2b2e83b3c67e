# SPDX-License-Identifier: MIT
"""The differences between two traces as text for people."""

import textwrap
from collections.abc import Iterator
from typing import Any

from kalloctrace.report.diff import ASPECTS, SLOW_ASPECTS, ShareChange, Side, TraceDiff
from kalloctrace.report.slowpath_counts import SlowCounts
from kalloctrace.text import COLUMNS, printable, wrap_names

_JOINED = "\N{NO-BREAK SPACE}"
_MARKS = {"appeared": "+", "vanished": "-", "changed": "~"}
_LEGEND = """\
+ only in the second trace, - only in the first, ~ the share changed;
shares are of all allocations in the trace"""
_SLOW_LEGEND = "slow-path shares are of all its attempts, and estimates where events were lost"
_ABOUT = "about: an estimate, because calls or events were not recorded"


def diff_lines(diff: TraceDiff, top: int) -> Iterator[str]:
    """Yield the lines of a diff.

    Args:
        diff: of two traces.
        top: number of changes to show for each aspect.
    """
    sides = (diff.before, diff.after)
    slow = any(side.slow is not None for side in sides)
    for name, side in zip(("before", "after"), sides, strict=True):
        yield from _side_lines(name, side)
        if slow:
            yield from _slow_lines(side.slow)
    for aspect in (*ASPECTS, *SLOW_ASPECTS):
        if aspect.name not in diff.by:
            continue
        changes = diff.by[aspect.name]
        yield ""
        yield f"{aspect.about}: {len(changes):,} differ, {diff.same[aspect.name]:,} are the same"
        for change in changes[:top]:
            yield from _change_lines(change)
        if len(changes) > top:
            yield f"  … and {len(changes) - top:,} more; --json has all"
    yield ""
    yield from _LEGEND.splitlines()
    if all(side.slow is not None for side in sides):
        yield _SLOW_LEGEND
    if any(side.slow is not None and side.slow.estimated for side in sides):
        yield _ABOUT


def _side_lines(name: str, side: Side) -> Iterator[str]:
    yield f"{name:7} {side.trace}"
    details = [f"{side.allocations:,} allocations on {side.kernel}"]
    if side.sample > 1:
        details.append(f"a sample of 1 in {side.sample:,} calls")
    if side.truncated:
        details.append("truncated")
    if side.lost:
        details.append(f"lost {side.lost:,}")
    yield f"{'':7} {', '.join(details)}"


def _slow_lines(slow: SlowCounts | None) -> Iterator[str]:
    details = ["not recorded"] if slow is None else _slow_details(slow)
    # Break lines between details, not inside them.
    text = ", ".join(detail.replace(" ", _JOINED) for detail in details)
    for line in textwrap.wrap(f"slow path: {text}", COLUMNS, initial_indent=" " * 8, subsequent_indent=" " * 19):
        yield line.replace(_JOINED, " ")


def _slow_details(slow: SlowCounts) -> Iterator[str]:
    share, failed = slow.share, slow.failed_share
    about = "about " if slow.estimated else ""
    yield f"{slow.calls:,} calls" + ("" if share is None else f" ({about}{share:.2%} of all allocations)")
    about = "" if slow.lost == 0 else "about "
    yield f"{slow.failed:,} failed" + ("" if failed is None else f" ({about}{failed:.2%} of the calls)")
    if slow.unseen:
        yield f"{slow.unseen:,} whose return was not traced"
    yield f"{slow.attempts:,} attempts"
    yield "lost events not known" if slow.lost is None else f"lost events {slow.lost:,}"


def _change_lines(change: ShareChange) -> Iterator[str]:
    shares = f"  {_MARKS[change.change]} {change.share_before:7.2%} {change.share_after:7.2%}  "
    first, *others = wrap_names(printable(_words(change.key)), COLUMNS - len(shares))
    yield shares + first
    yield from (" " * len(shares) + line for line in others)


def _words(key: dict[str, Any]) -> str:
    if "verdict" in key:
        return key["verdict"] if key["about"] is None else f"{key['verdict']}: {key['about']}"
    words = []
    if "kind" in key:
        words.append(key["kind"])
    if "entry" in key:
        words.append("" if key["entry"] == "normal" else f"{key['entry']}: ")
        words.append(f"{key['gfp']} order {key['order']}")
    if "alloc_flags" in key:
        words.append(f"{' → ' if words else ''}{key['alloc_flags'] or 'not reached'}")
    return "".join(words)
