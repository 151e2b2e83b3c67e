# SPDX-License-Identifier: MIT
"""What differs between two traces as text for people."""

from collections.abc import Iterator
from typing import Any

from kalloctrace.report.difference import ASPECTS, Difference, Shift, Side
from kalloctrace.report.summary_text import printable, wrap_names

WIDTH = 80
_MARKS = {"appeared": "+", "vanished": "-", "changed": "~"}
_LEGEND = """\
+ only in the second trace, - only in the first, ~ in another share of it;
shares are of all allocations of their trace"""


def difference_lines(difference: Difference, top: int) -> Iterator[str]:
    """Yield the lines that tell what differs.

    Args:
        difference: of two traces.
        top: shifts of each aspect to show.
    """
    yield from _side_lines("before", difference.before)
    yield from _side_lines("after", difference.after)
    for aspect in ASPECTS:
        shifts = difference.by[aspect.name]
        yield ""
        yield f"{aspect.about}: {len(shifts):,} differ, {difference.same[aspect.name]:,} do not"
        for shift in shifts[:top]:
            yield from _shift_lines(shift)
        if len(shifts) > top:
            yield f"  … and {len(shifts) - top:,} more; --json has all"
    yield ""
    yield _LEGEND


def _side_lines(name: str, side: Side) -> Iterator[str]:
    yield f"{name:7} {printable(side.trace)}"
    details = [f"{side.allocations:,} allocations on {side.kernel}"]
    if side.sample > 1:
        details.append(f"a sample of 1 call in {side.sample:,}")
    if side.truncated:
        details.append("truncated")
    if side.lost:
        details.append(f"lost {side.lost:,}")
    yield f"{'':7} {', '.join(details)}"


def _shift_lines(shift: Shift) -> Iterator[str]:
    shares = f"  {_MARKS[shift.change]} {shift.share_before:7.2%} {shift.share_after:7.2%}  "
    first, *others = wrap_names(printable(_words(shift.key)), WIDTH - len(shares))
    yield shares + first
    yield from (" " * len(shares) + line for line in others)


def _words(key: dict[str, Any]) -> str:
    if "verdict" in key:
        return key["verdict"] if key["about"] is None else f"{key['verdict']}: {key['about']}"
    words = []
    if "entry" in key:
        words.append("" if key["entry"] == "normal" else f"{key['entry']}: ")
        words.append(f"{key['gfp']} order {key['order']}")
    if "alloc_flags" in key:
        words.append(f"{' → ' if words else ''}{key['alloc_flags'] or 'not reached'}")
    return "".join(words)
