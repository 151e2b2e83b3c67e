# SPDX-License-Identifier: MIT
"""The first lines of every report: what failed, what was slow, what was lost, and then the model's verdict."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from kalloctrace.flags.decode import decode_gfp
from kalloctrace.flags.tables import FlagTables
from kalloctrace.report.slow_time import SlowTime
from kalloctrace.report.summary import Summary, only_events, slow_path_totals
from kalloctrace.text import duration, many, share
from kalloctrace.trace.audited import audit_lines
from kalloctrace.trace.slow_split import spent_with
from kalloctrace.verify.verification import Verification

Tone = Literal["good", "bad", "doubt", "plain"]
"""good, bad: the answer to a question; doubt: an answer that something missing could change; plain: neither."""


class Line(NamedTuple):
    """A line of the headline.

    Attributes:
        text: for people.
        tone: how to colour it.
    """

    text: str
    tone: Tone


def headline(summary: Summary) -> Iterator[Line]:
    """Yield the lines about a trace, the most important first; `model_line` is the last."""
    yield _failed(summary)
    yield _slow_not_recorded(summary) if summary.slow is None else _slow(summary.slow, summary.snapshot.tables)
    yield _lost(summary)


def _failed(summary: Summary) -> Line:
    totals = slow_path_totals(summary)
    failed = summary.failed if totals is None else totals.slow_failed or 0
    count = summary.all.count
    if not count:
        return Line("no allocation was recorded", "plain")
    if failed:
        about = "about " if summary.sample > 1 else ""
        return Line(f"{about}{failed:,} of {many(count, 'allocation')} failed ({share(failed, count)})", "bad")
    if only_events(summary) or (totals is None and summary.not_followed):
        which = "it" if count == 1 else "some of them"
        return Line(f"{many(count, 'allocation')}; whether {which} failed was not recorded", "plain")
    return Line(f"none of {many(count, 'allocation')} failed", "good")


def _slow_not_recorded(summary: Summary) -> Line:
    # A call without an eligible zone leaves the slow path before it calls get_page_from_freelist again.
    if summary.slow_path:
        return Line(f"at least {summary.slow_path:,} took the slow path; their time was not recorded", "plain")
    return Line("the slow path was not recorded", "plain")


def _slow(slow: SlowTime, tables: FlagTables) -> Line:
    if not slow.calls:
        return Line("no allocation took the slow path", "good")
    text = f"{slow.calls:,} took the slow path, {duration(slow.total)} in all"
    if any(slow.parts.values()):
        text += f": {spent_with(slow.parts)}"
    if slow.slowest is not None:
        call = slow.slowest
        gfp = decode_gfp(call["given"]["gfp_mask"], tables).text
        text += f"; the slowest {duration(call['duration'])}: order {call['given']['order']}, {gfp}, {call['comm']}"
    return Line(text, "plain")


def _lost(summary: Summary) -> Line:
    totals = summary.totals
    if totals is None:
        return Line("the end of the recording is missing, so what was lost is not known", "doubt")
    numbers = {
        "lost": summary.lost or 0,
        "missed": totals.missed,
        "slow-path events lost or missed": totals.slow_lost + totals.slow_missed,
    }
    found = [f"{number:,} {name}" for name, number in numbers.items() if number]
    if totals.audit is not None and totals.audit.differs:
        return Line(f"the audit {', '.join(audit_lines(totals.audit))}", "bad")
    if not found:
        return Line("nothing was lost or missed", "good")
    return Line(f"{', '.join(found)}: there may be more than is shown here", "doubt")


def model_line(verdict: Verification) -> Line:
    """Return the line about the model's verdict."""
    numbers = f"matched {verdict.matched:,}  mismatched {verdict.mismatched:,}  unknown {verdict.unknown:,}"
    if verdict.mismatched:
        return Line(f"not as the model predicts: {numbers}", "bad")
    if not (verdict.matched or verdict.unknown):
        return Line("there is nothing to compare with the model", "plain")
    if not verdict.matched:
        return Line(f"the model can judge none of them: {numbers}", "doubt")
    if verdict.unknown:
        return Line(f"as the model predicts, where it can tell: {numbers}", "doubt")
    return Line(f"as the model predicts: {numbers}", "good")
