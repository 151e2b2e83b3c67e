# SPDX-License-Identifier: MIT
"""What differs between the slow paths of two traces."""

import copy
import tracemalloc
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.report.diff import TraceDiff, compare, side_of
from kalloctrace.report.diff_text import diff_lines
from kalloctrace.report.slowpath_counts import SlowCounts, count_slow
from kalloctrace.trace.reader import Ending, Pass, TraceReader
from kalloctrace.trace.slowpath_reader import decode_slow_calls
from kalloctrace.verify.verification import verify_counted, verify_trace
from tests import traces
from tests.traces import UNDER_PRESSURE, Row

MIB = 1 << 20


def slow_of(path: Path) -> SlowCounts:
    """Return what a trace says of the slow path, which it has."""
    with TraceReader(path) as trace:
        slow = side_of(trace).slow
    assert slow is not None
    return slow


def diff(before: Path, after: Path, threshold: float = 0.01) -> TraceDiff:
    """Compare two traces."""
    with TraceReader(before) as first, TraceReader(after) as second:
        return compare(side_of(first), side_of(second), threshold)


def changes(found: TraceDiff, aspect: str) -> list[tuple[Any, ...]]:
    """Return change, kind and both numbers of what differs."""
    return [(change.change, *change.key.values(), change.before, change.after) for change in found.by[aspect]]


def with_attempts(number: int) -> Row:
    """Return a call that the kernel made so many attempts in, and that got its page."""
    return next(call for call in traces.slow_calls() if len(call["attempts"]) == number and call["page"])


def wrong() -> Row:
    """Return a call whose only attempt has a migratetype and an index of a zone that it cannot have."""
    call = copy.deepcopy(with_attempts(1))
    call["attempts"][0].update(migratetype=99, highest_zoneidx=7)
    return call


def test_counts_are_those_of_verify() -> None:
    """Counting call by call finds the same as the whole verdict, and the flags of each attempt."""
    slow = slow_of(UNDER_PRESSURE)
    with TraceReader(UNDER_PRESSURE) as trace:
        verdict = verify_trace(trace).slow
    assert verdict is not None
    assert (slow.calls, slow.failed, slow.attempts) == (verdict.calls, verdict.failed, verdict.attempts)
    assert slow.kinds == verdict.kinds
    assert slow.verdicts["matched", None] == verdict.matched
    assert slow.alloc_flags == Counter(
        attempt["alloc_flags"] for call in traces.slow_calls() for attempt in call["attempts"]
    )
    assert slow.unseen == sum(call["page"] is None for call in traces.slow_calls())


def test_shares(tmp_path: Path) -> None:
    """Calls are a share of allocations, failed ones of calls; without any there is no share."""
    call = with_attempts(1)
    path = traces.slow(tmp_path / "a.arrows", call, call, {**call, "page": False}, {**call, "page": None})
    slow = slow_of(path)
    assert (slow.share, slow.failed_share, slow.unseen, slow.estimated) == (4.0, 0.25, 1, slow.lost != 0)
    none = slow_of(traces.slow(tmp_path / "b.arrows"))
    assert (none.calls, none.share, none.failed_share) == (0, 0.0, None)
    assert replace(none, allocations=0).to_json()["share"] is None


def test_sample_is_scaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample is taken of allocations, not of the slow path: the share is an estimate."""
    monkeypatch.setattr(TraceReader, "sample", 8)
    slow = slow_of(traces.slow(tmp_path / "a.arrows", with_attempts(1)))
    assert (slow.allocations, slow.share, slow.estimated) == (8, 0.125, True)


def test_losses_are_reported(tmp_path: Path) -> None:
    """Lost events make estimates; without the trace's end their number is not known."""
    path = traces.slow(tmp_path / "a.arrows", with_attempts(1), lost=7)
    text = "\n".join(diff_lines(diff(path, path), 10))
    lost = slow_of(path).lost
    assert lost is not None
    assert lost >= 7
    assert f"lost events {lost:,}" in text
    assert "(about 100.00% of all allocations)" in text
    assert "about: an estimate" in text
    path.write_bytes(path.read_bytes()[:-600])
    slow = slow_of(path)
    assert (slow.lost, slow.estimated) == (None, True)
    assert "lost events not known" in "\n".join(diff_lines(diff(path, path), 10))


def test_nothing_lost_is_no_estimate(tmp_path: Path) -> None:
    """Where all was recorded shares are exact, and nothing is called an estimate."""
    path = traces.slow(tmp_path / "a.arrows", with_attempts(1))
    with TraceReader(path) as trace:
        rows, totals = list(trace.counted()), trace.ending().totals
        assert totals is not None
        ending = Ending(replace(totals, slow_lost=0, slow_missed=0), truncated=False)
        verdict = replace(verify_counted(trace, rows, ending), lost=0, missed=0)
        slow = count_slow(trace, ending, verdict)
    assert slow is not None
    assert (slow.calls, slow.lost, slow.estimated) == (1, 0, False)


def test_damaged_calls_are_not_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls before the damage are counted, and the trace is reported as truncated."""
    path = traces.slow(tmp_path / "a.arrows", *traces.slow_calls()[:9])

    def read(text: bytes) -> Iterator[Row]:
        yield from decode_slow_calls(text)
        raise ValueError("no more")

    monkeypatch.setattr("kalloctrace.trace.reader.decode_slow_calls", read)
    with TraceReader(path) as trace:
        side = side_of(trace)
    assert side.slow is not None
    assert (side.truncated, side.slow.calls, side.slow.lost) == (True, 9, None)


def test_attempts_that_come_and_go(tmp_path: Path) -> None:
    """Their kinds and flags are compared by the share of all attempts, largest diff first."""
    one, many = with_attempts(1), with_attempts(4)
    before = traces.slow(tmp_path / "a.arrows", *[one] * 8)
    after = traces.slow(tmp_path / "b.arrows", *[one] * 4, many)
    found = diff(before, after)
    shares = [abs(change.share_after - change.share_before) for change in found.by["slow_kind"]]
    assert shares == sorted(shares, reverse=True)
    kinds, flags = changes(found, "slow_kind"), changes(found, "slow_alloc_flags")
    for rows in (kinds, flags):
        assert {row[0] for row in rows} == {"appeared", "changed"}
        assert sum(row[-2] for row in rows) == 8
        assert sum(row[-1] for row in rows) == 8
    assert all(name.startswith("ALLOC_") for row in flags for name in row[1].split("|"))
    assert {row[0] for row in changes(diff(after, before), "slow_kind")} == {"vanished", "changed"}
    far = diff(before, after, threshold=0.9)
    assert {row[0] for row in changes(far, "slow_kind")} == {"appeared"}
    assert far.same["slow_kind"] == found.same["slow_kind"] + 1


def test_verdicts_on_attempts(tmp_path: Path) -> None:
    """A new mismatch appears with each field that differs; unknown is no match."""
    one = with_attempts(1)
    before = traces.slow(tmp_path / "a.arrows", *[one] * 4)
    after = traces.slow(tmp_path / "b.arrows", *[one] * 3, wrong())
    assert sorted(changes(diff(before, after), "slow_verdict"), key=str) == [
        ("appeared", "mismatched", "highest_zoneidx", 0, 1),
        ("appeared", "mismatched", "migratetype", 0, 1),
        ("changed", "matched", None, 4, 3),
    ]


def test_nothing_to_compare(tmp_path: Path) -> None:
    """Recorded without a call is not the same as not recorded."""
    none, some = traces.slow(tmp_path / "a.arrows"), traces.slow(tmp_path / "b.arrows", with_attempts(1))
    assert {row[0] for row in changes(diff(none, some), "slow_kind")} == {"appeared"}
    assert "slow_kind" not in diff(none, traces.RECORDED).by
    assert diff(none, traces.RECORDED).after.to_json()["slow"] is None


@pytest.mark.parametrize("factor", [1, 1_000, 1_000_000])
def test_large_numbers_fit(factor: int) -> None:
    """Lines are broken between details; none is wider than 80 characters."""
    found = diff(UNDER_PRESSURE, UNDER_PRESSURE)
    slow = found.before.slow
    assert slow is not None
    names = ("calls", "failed", "unseen", "attempts")
    large = replace(slow, lost=factor, **{name: getattr(slow, name) * factor for name in names})
    text = "\n".join(diff_lines(replace(found, before=replace(found.before, slow=large)), 10))
    assert max(len(line) for line in text.splitlines() if ".arrows" not in line) <= 80
    assert f"{slow.calls * factor:,} calls" in text


def test_memory_does_not_grow_with_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are not kept, not even those that mismatch."""
    path = traces.slow(tmp_path / "a.arrows", with_attempts(1))
    call = wrong()

    def calls() -> Generator[Row, None, Ending]:
        yield from (copy.deepcopy(call) for _ in range(2_000))
        return ending

    monkeypatch.setattr(TraceReader, "slow_calls", lambda _: Pass(calls()))
    with TraceReader(path) as trace:
        ending = trace.ending()
        verdict = verify_counted(trace, list(trace.counted()), ending)
        tracemalloc.start()
        try:
            slow = count_slow(trace, ending, verdict)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert slow is not None
    assert slow.verdicts["mismatched", "migratetype"] == 2_000
    assert peak < MIB
