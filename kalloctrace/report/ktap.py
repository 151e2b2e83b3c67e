# SPDX-License-Identifier: MIT
"""Verifications as KTAP, the kernel's test protocol, version 1: https://docs.kernel.org/dev-tools/ktap.html.

A trace is a test. Its subtests are the judged fields, the zonelists, the rules of which a part was not judged, and two
about gaps: `judged` (unknown allocations) and `complete` (lost, missed or truncated). Unknown is never a pass: such a
subtest is skipped, or fails with `strict`.

Checked by hand with the kernel's own parser, `tools/testing/kunit/kunit.py parse` of linux-source-6.1 6.1.192-2 and
linux-source-6.12 6.12.117-1~deb12u1: no errors, and the same tests pass, fail and are skipped.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from kalloctrace.errors import Exit
from kalloctrace.flags.tables import FlagTables
from kalloctrace.report.verification_text import (
    MAX_MISMATCHES,
    mismatch_lines,
    slow_mismatch_lines,
    zonelist_mismatch_lines,
)
from kalloctrace.trace.audited import audit_lines
from kalloctrace.verify.inferred import NOT_JUDGED
from kalloctrace.verify.verification import Verification

VERSION = "KTAP version 1"


@dataclass(frozen=True)
class _Result:
    """The result of a test.

    Attributes:
        ok: the test passed or was skipped.
        name: what was tested.
        skipped: why it was skipped; empty otherwise.
        error: why it could not run; empty otherwise.
        diagnostics: lines about the result.
    """

    ok: bool
    name: str
    skipped: str = ""
    error: str = ""
    diagnostics: tuple[str, ...] = ()

    def lines(self, number: int, indent: str = "") -> Iterator[str]:
        directive = (
            f" # SKIP {_plain(self.skipped)}" if self.skipped else f" # ERROR {_plain(self.error)}" * bool(self.error)
        )
        yield from (f"{indent}# {_one_line(line)}" for line in self.diagnostics)
        yield f"{indent}{'ok' if self.ok else 'not ok'} {number} {_plain(self.name)}{directive}"


def head(tests: int) -> list[str]:
    """Return the first lines of a run.

    Args:
        tests: number of traces.
    """
    return [VERSION, f"1..{tests}"]


def verification_ktap(number: int, verdict: Verification, tables: FlagTables, *, strict: bool) -> Iterator[str]:
    """Yield the lines of one trace.

    Args:
        number: of the test, from 1.
        verdict: on the trace.
        tables: of the recorded kernel.
        strict: gaps are failures.
    """
    subtests = [
        *_fields(verdict, tables),
        *_slow_path(verdict, tables),
        _zonelists(verdict, tables),
        *_not_judged(verdict),
        *_gaps(verdict, strict=strict),
    ]
    yield f"  {VERSION}"
    yield f"  1..{len(subtests)}"
    for position, subtest in enumerate(subtests, 1):
        yield from subtest.lines(position, "  ")
    ok = verdict.exit_code(strict=strict) == Exit.OK
    skipped = "no allocation was judged completely" if ok and not verdict.matched else ""
    summary = f"{verdict.allocations} allocations on {verdict.kernel}, {verdict.matched} matched"
    yield from _Result(ok, verdict.trace, skipped, diagnostics=(summary,)).lines(number)


def error_ktap(number: int, trace: str, why: str) -> Iterator[str]:
    """Yield the lines of a trace that cannot be verified."""
    return _Result(ok=False, name=trace, error=why).lines(number)


def _fields(verdict: Verification, tables: FlagTables) -> Iterator[_Result]:
    for name, counts in sorted(verdict.fields.items()):
        mine = [mismatch for mismatch in verdict.mismatches if mismatch.difference.field == name]
        lines = [f"equal {counts.equal}, different {counts.different}, unknown {counts.unknown}"]
        lines += [line for mismatch in mine[:MAX_MISMATCHES] for line in mismatch_lines(mismatch, tables)]
        judged = counts.equal + counts.different
        skipped = "" if judged else "a needed fact was not captured"
        yield _Result(not counts.different, name, skipped, diagnostics=tuple(lines))


def _slow_path(verdict: Verification, tables: FlagTables) -> Iterator[_Result]:
    slow = verdict.slow
    if slow is None:
        return
    lines = [
        f"{slow.calls} calls, {slow.failed} failed; attempts: {slow.matched} matched, {slow.mismatched} mismatched"
    ]
    lines += [line for mismatch in slow.mismatches[:MAX_MISMATCHES] for line in slow_mismatch_lines(mismatch, tables)]
    skipped = "" if slow.matched or slow.mismatches else "no attempt was judged"
    yield _Result(not slow.mismatches, "slow_path", skipped, diagnostics=tuple(lines))


def _zonelists(verdict: Verification, tables: FlagTables) -> _Result:
    zonelists = verdict.zonelists
    lines = [line for mismatch in zonelists.mismatches for line in zonelist_mismatch_lines(mismatch, tables)]
    return _Result(not zonelists.mismatches, "zonelists", zonelists.reason, diagnostics=tuple(lines))


def _not_judged(verdict: Verification) -> Iterator[_Result]:
    """Yield a skipped test for each rule of which a part was not judged; the fields show the judged parts."""
    for rule, count in verdict.not_judged.most_common():
        skipped = f"{NOT_JUDGED[rule]}: inferred in {count} of {verdict.allocations} allocations"
        yield _Result(ok=True, name=f"rule_{rule}", skipped=skipped)


def _gaps(verdict: Verification, *, strict: bool) -> Iterator[_Result]:
    counts = [(verdict.unknown, verdict.allocations, "allocations")]
    unknown_reasons = [*verdict.unknown_reasons.items()]
    if (slow := verdict.slow) is not None:
        counts += [
            (slow.unknown, slow.attempts, "attempts"),
            (slow.calls_unknown, slow.calls, "calls of the slow path"),
        ]
        unknown_reasons += slow.unknown_reasons.items()
    unknown = ", ".join(f"{count} of {total} {what} are unknown" for count, total, what in counts if count)
    reasons = tuple(f"unknown: {count} × {reason}" for reason, count in unknown_reasons)
    gaps = {
        "lost": verdict.lost,
        "missed": verdict.missed,
        "lost in the slow path": verdict.slow_lost,
        "truncated": int(verdict.truncated),
        "different in the audit": verdict.audit.differing if verdict.audit is not None and verdict.audit.differs else 0,
    }
    missing = ", ".join(f"{name} {count}" for name, count in gaps.items() if count)
    causes = (
        *(f"missed: {cause}" for cause in verdict.missed_causes),
        *(f"audit: {line}" for line in audit_lines(verdict.audit)),
    )
    for name, gap, lines in (("judged", unknown, reasons), ("complete", missing, causes)):
        if strict and gap:
            yield _Result(ok=False, name=name, diagnostics=(*lines, gap))
        else:
            yield _Result(ok=True, name=name, skipped=gap, diagnostics=lines)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    """Return a text that contains no directive."""
    return _one_line(text).replace("#", "_")
