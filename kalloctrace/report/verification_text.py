# SPDX-License-Identifier: MIT
"""A verification as text for people."""

from collections.abc import Iterator

from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.machine import ZoneRef
from kalloctrace.trace.audited import audit_lines
from kalloctrace.trace.schema import TRACEPOINT
from kalloctrace.verify.field_text import gfp_text, value_text
from kalloctrace.verify.inferred import NOT_JUDGED
from kalloctrace.verify.slowpath.trace import SlowMismatch, SlowVerification
from kalloctrace.verify.verification import Mismatch, Verification
from kalloctrace.verify.zonelists import ZonelistMismatch

MAX_MISMATCHES = 20


def verification_lines(verdict: Verification, tables: FlagTables) -> Iterator[str]:
    """Yield the lines of a verdict: the numbers first, then each mismatch with its request."""
    yield f"{verdict.trace}: {verdict.allocations:,} allocations on {verdict.kernel}, {verdict.distinct:,} distinct"
    # The recorder's counts are at the end of the recording.
    lost, missed = ("not known",) * 2 if verdict.truncated else (f"{verdict.lost:,}", f"{verdict.missed:,}")
    yield (
        f"  matched {verdict.matched:,}  mismatched {verdict.mismatched:,}  unknown {verdict.unknown:,}"
        f"  lost {lost}  missed {missed}"
    )
    for cause in verdict.missed_causes:
        yield f"  missed: {cause}"
    for line in audit_lines(verdict.audit):
        yield f"  audit: {line}"
    if verdict.sample > 1:
        yield f"  sample: 1 call in {verdict.sample:,} was recorded; numbers are of the recorded calls"
    if verdict.bulk:
        yield f"  bulk: {verdict.bulk:,} of these calls, judged only by the pages that they returned"
    if verdict.truncated:
        why = f" ({verdict.damage})" if verdict.damage else ""
        yield f"  truncated: the end of the recording is missing{why}; judged up to the last whole batch"
    for reason, count in verdict.unknown_reasons.items():
        yield f"  unknown: {count:,} × {reason}"
    yield from not_judged_lines(verdict)
    yield from _event_lines(verdict)
    for mismatch in verdict.mismatches[:MAX_MISMATCHES]:
        yield from mismatch_lines(mismatch, tables)
    hidden = len(verdict.mismatches) + verdict.not_shown - MAX_MISMATCHES
    if hidden > 0:
        yield f"  … and {hidden:,} more mismatches; --json has all"
    if verdict.slow is not None:
        yield from _slow_lines(verdict.slow, lost if verdict.truncated else f"{verdict.slow_lost:,}", tables)
    yield from _zonelist_lines(verdict, tables)
    yield f"  {verdict.proven}"


def _slow_lines(slow: SlowVerification, lost: str, tables: FlagTables) -> Iterator[str]:
    yield (
        f"  slow path: {slow.calls:,} calls, {slow.failed:,} of them failed; {slow.attempts:,} attempts:"
        f" matched {slow.matched:,}  mismatched {slow.mismatched:,}  unknown {slow.unknown:,}  lost {lost}"
    )
    if slow.calls_mismatched or slow.calls_unknown:
        yield f"    whole calls: mismatched {slow.calls_mismatched:,}  unknown {slow.calls_unknown:,}"
    if slow.kinds:
        yield f"    {', '.join(f'{kind} {count:,}' for kind, count in slow.kinds.most_common())}"
    for reason, count in slow.unknown_reasons.most_common():
        yield f"    unknown: {count:,} × {reason}"
    for mismatch in slow.mismatches[:MAX_MISMATCHES]:
        yield from slow_mismatch_lines(mismatch, tables)
    hidden = len(slow.mismatches) + slow.not_shown - MAX_MISMATCHES
    if hidden > 0:
        yield f"    … and {hidden:,} more mismatches; --json has all"


def slow_mismatch_lines(mismatch: SlowMismatch, tables: FlagTables) -> Iterator[str]:
    """Yield the lines about a mismatch in the slow path."""
    difference, given = mismatch.difference, mismatch.call["given"]
    which = f"attempt {mismatch.number}" if mismatch.number else mismatch.step
    yield f"    mismatch: {which}, {difference.field}"
    yield f"      expected {value_text(difference.field, difference.expected, tables)}"
    yield f"      observed {value_text(difference.field, difference.observed, tables)}"
    yield f"      rule     {difference.rule}: {difference.effect}"
    yield f"      request  {gfp_text(given['gfp_mask'], tables)}, order {given['order']}, of {mismatch.call['comm']}"


def not_judged_lines(verdict: Verification) -> Iterator[str]:
    """Yield a line for each rule of which a part was not judged, because a fact that it needs is inferred."""
    for rule, count in verdict.not_judged.most_common():
        yield f"  not judged: {count:,} × {rule}: {NOT_JUDGED[rule]}; it is inferred"


def _event_lines(verdict: Verification) -> Iterator[str]:
    if verdict.events:
        for name, counts in verdict.fields.items():
            yield f"  {name}: equal {counts.equal:,}  different {counts.different:,}  unknown {counts.unknown:,}"


def _zonelist_lines(verdict: Verification, tables: FlagTables) -> Iterator[str]:
    zonelists = verdict.zonelists
    if zonelists.reason:
        yield f"  zonelists: not predicted, {zonelists.reason}"
        return
    yield f"  zonelists: nodes {zonelists.nodes:,}  mismatched {len(zonelists.mismatches):,}"
    for mismatch in zonelists.mismatches[:MAX_MISMATCHES]:
        yield from zonelist_mismatch_lines(mismatch, tables)
    hidden = len(zonelists.mismatches) - MAX_MISMATCHES
    if hidden > 0:
        yield f"  … and {hidden:,} more zonelists; --json has all"


def zonelist_mismatch_lines(mismatch: ZonelistMismatch, tables: FlagTables) -> Iterator[str]:
    """Yield the lines about a zonelist that differs from the prediction."""
    yield f"  mismatch: zonelist {mismatch.kind} of node {mismatch.nid}"
    yield f"    expected {zonelist_text(mismatch.expected, tables)}"
    yield f"    observed {zonelist_text(mismatch.observed, tables)}"
    yield f"    rule     {mismatch.rule}"


def zonelist_text(refs: tuple[ZoneRef, ...] | None, tables: FlagTables) -> str:
    """Return the entries of a zonelist as text; None stands for a missing list."""
    if refs is None:
        return "no list"
    return ", ".join(f"{tables.zone_name(ref.zone)} of node {ref.node}" for ref in refs) or "no zone"


def mismatch_lines(mismatch: Mismatch, tables: FlagTables) -> Iterator[str]:
    """Yield the lines about a field that differs, with its request."""
    request, difference = mismatch.request, mismatch.difference
    yield f"  mismatch: {mismatch.count:,} × {difference.field}"
    yield f"    expected {value_text(difference.field, difference.expected, tables)}"
    yield f"    observed {value_text(difference.field, difference.observed, tables)}"
    yield f"    rule     {difference.rule}: {difference.effect}"
    if request["entry"] == TRACEPOINT:
        yield f"    event    {gfp_text(request['gfp_mask'], tables)}, order {request['order']}"
        return
    nodemask = "NULL" if request["nodemask"] is None else request["nodemask"]
    yield (
        f"    request  {gfp_text(request['gfp_mask'], tables)}, order {request['order']}, "
        f"node {request['preferred_nid']}, nodemask {nodemask}"
    )
    yield (
        f"    context  task_flags {_captured(request['task_flags'])}, "
        f"preempt_count {_captured(request['preempt_count'])}, "
        f"mems_allowed {_captured(request['mems_allowed'])}, cpusets_enabled {request['cpusets_enabled']}"
    )


def _captured(value: int | str | None) -> str:
    if value is None:
        return "not captured"
    return f"{value:#x}" if isinstance(value, int) else value
