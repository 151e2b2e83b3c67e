# SPDX-License-Identifier: MIT
"""The slow path of real kernels under pressure, replayed: the assertions of tests/pressure/test_slowpath.py."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.diagnose.from_trace import slow_failure, slow_start
from kalloctrace.diagnose.sentences import headline
from kalloctrace.kernel.slowpath_rules import slowpath_rules
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.slowpath.flags import MAX_RT_PRIO, mask_alloc_flags
from kalloctrace.model.slowpath.types import SlowKernel
from kalloctrace.trace.reader import TraceReader
from kalloctrace.verify.slowpath.trace import SlowJudge, verify_slow
from kalloctrace.verify.verification import verify_trace

FIXTURES = Path(__file__).parents[2] / "fixtures"
TRACES = sorted(FIXTURES.glob("*/slow.arrows"))
PARTS = sorted(FIXTURES.glob("*/slow-parts.arrows"))
STREAM = FIXTURES / "6.12" / "slow-stream.arrows"
REFUSED = {"watermark", "block", "mixed", "no_zone"}
KINDS = {
    *("first_try", "after_waking_kswapd", "retry", "with_reserves", "after_direct_reclaim", "after_draining"),
    *("after_compaction", "before_oom", "oom_nofail", "nofail"),
}
KERNELS = {"5.10", "6.1", "6.12", "7.3"}


def test_there_is_one_of_each_kernel() -> None:
    """So that nothing below is vacuous."""
    assert {trace.parent.name for trace in TRACES} == KERNELS


@pytest.mark.parametrize("path", [*TRACES, *PARTS], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_attempt_is_as_predicted(path: Path) -> None:
    """And every allocation, and what each call was given and returned."""
    with TraceReader(path) as trace:
        verdict = verify_trace(trace)
    slow = verdict.slow
    assert slow is not None
    assert slow.mismatches == []
    assert (slow.mismatched, slow.calls_mismatched, slow.unknown) == (0, 0, 0)
    assert slow.matched == slow.attempts > 5_000
    assert {"with_reserves", "before_oom", "oom_nofail", "nofail"} <= slow.kinds.keys()
    assert verdict.matched == verdict.allocations > 0


def test_every_kind_of_attempt_is_there() -> None:
    """But the one that a cpuset which changes meanwhile causes, and that of vm.defrag_mode."""
    kinds: Counter[str] = Counter()
    for path in TRACES:
        with TraceReader(path) as trace:
            slow = verify_trace(trace).slow
        assert slow is not None
        kinds += slow.kinds
    assert kinds.keys() >= KINDS


def test_damaged_calls_make_a_trace_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows can be read, and yet something is missing."""

    def read(text: bytes) -> list[dict[str, Any]]:
        raise ValueError(f"no Arrow: {text[:1]!r}")

    monkeypatch.setattr("kalloctrace.trace.reader.decode_slow_calls", read)
    with TraceReader(STREAM) as trace:
        verdict = verify_trace(trace)
    assert verdict.matched == verdict.allocations > 0
    assert verdict.truncated
    assert verdict.damage.startswith("its calls of the slow path are damaged: no Arrow")


def test_slow_calls_are_those_of_the_rows() -> None:
    """Rows and attempts of a stream are captured separately, and agree on each call's task, request and result."""
    with TraceReader(STREAM) as trace:
        rows = [row for batch in trace.batches() for row in batch.to_pylist() if row["freelist_calls"] > 1]
        calls, totals = list(trace.slow_calls()), trace.ending().totals
    assert Counter(
        (row["tid"], row["comm"], row["stack"], row["gfp_mask"], row["order"], row["freelist_calls"] - 1, row["page"])
        for row in rows
    ) == Counter(
        (
            *(call["tid"], call["comm"], call["stack"], call["given"]["gfp_mask"], call["given"]["order"]),
            *(len(call["attempts"]), call["page"]),
        )
        for call in calls
    )
    assert all(call["stack"].endswith(";__alloc_pages_noprof") for call in calls)
    assert totals is not None
    failed = sum(call["page"] is False for call in calls)
    assert (totals.slow, totals.slow_failed, totals.slow_running) == (len(calls), failed, 0)
    assert 0 < failed < len(calls)


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.parent.name)
def test_changed_flags_are_noticed(path: Path) -> None:
    """Each attempt with one bit more or less is a mismatch, or is recognised as an attempt of another kind."""
    with TraceReader(path) as trace:
        calls = [call for call in trace.slow_calls() if call["complete"] and len(call["attempts"]) == 1][:200]
        snapshot = trace.snapshot
    judge = SlowJudge(snapshot, Kernel.of(snapshot))
    unnoticed: Counter[int] = Counter()
    for call in calls:
        for bit in (0x10, 0x20, 0x40, 0x800):
            attempt = {**call["attempts"][0], "alloc_flags": call["attempts"][0]["alloc_flags"] ^ bit}
            verdict = verify_slow(judge, [{**call, "attempts": [attempt]}])
            unnoticed[bit] += not verdict.mismatches
    assert calls
    assert not unnoticed.total()


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.parent.name)
def test_every_refusal_has_its_reason(path: Path) -> None:
    """No zone would have passed the check that the kernel made, by the zones as they were when it gave up."""
    with TraceReader(path) as trace:
        refused = [
            call
            for call in trace.slow_calls()
            if call["page"] is False and any(zone["at"] == "returns" for zone in call["zones"])
        ]
        answers = [slow_failure(trace.snapshot, call).why for call in refused]
    assert refused
    assert {answer.conclusion for answer in answers if answer is not None} <= REFUSED
    assert None not in answers


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.parent.name)
def test_every_slow_start_has_its_reason(path: Path) -> None:
    """The fast path's check fails on the zones that were copied just after it; now and then one changed meanwhile."""
    with TraceReader(path) as trace:
        seen = [call for call in trace.slow_calls() if call["page"] and call["zones"]][:1000]
        kernel = Kernel.of(trace.snapshot)
        answers = [slow_start(trace.snapshot, kernel, call).why for call in seen]
    conclusions = Counter(answer.conclusion for answer in answers if answer is not None)
    assert seen
    explained = sum(count for name, count in conclusions.items() if name in REFUSED)
    assert explained >= 0.99 * len(seen), conclusions


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.parent.name)
def test_flags_of_a_mask_alone_are_the_kernel_s(path: Path) -> None:
    """The flags that a log's mask gives are those of real kernels' first attempts, for ordinary tasks."""
    with TraceReader(path) as trace:
        calls, snapshot = list(trace.slow_calls()), trace.snapshot
    rules = slowpath_rules(snapshot.release, snapshot.version)
    assert rules is not None
    kernel = SlowKernel(Kernel.of(snapshot), rules)
    reserves = snapshot.tables.gfp("__GFP_MEMALLOC")
    found = Counter(
        (call["given"]["gfp_mask"], call["given"]["order"], call["attempts"][0]["alloc_flags"])
        for call in calls
        if call["attempts"] and call["attempts"][0]["prio"] >= MAX_RT_PRIO and not call["given"]["gfp_mask"] & reserves
    )
    assert len({gfp for gfp, _, _ in found}) > 20
    for gfp, order, flags in found:
        assert mask_alloc_flags(kernel, gfp, order)[0] == flags, (hex(gfp), order)


def test_request_of_the_fast_path_may_be_unknown() -> None:
    """Where a fact that it depends on was not captured, that is the answer."""
    with TraceReader(FIXTURES / "7.3" / "slow.arrows") as trace:
        call = next(call for call in trace.slow_calls() if call["page"] and call["zones"])
        given = {**call["given"], "cpusets_enabled": 1, "mems_allowed": None, "preempt_count": None}
        failure = slow_start(trace.snapshot, Kernel.of(trace.snapshot), {**call, "given": given})
    assert failure.why is None
    (missing,) = failure.missing
    assert missing.startswith("what the fast path asked for (not known: ")
    assert headline(failure).endswith(f": unknown, the trace lacks {missing}")


def test_report_says_why(tmp_path: Path) -> None:
    """In text and as JSON, by the real program."""
    trace = str(FIXTURES / "5.10" / "slow.arrows")
    words = [sys.executable, "-m", "kalloctrace", "report", "--failures"]
    text = subprocess.run([*words, trace], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert "any one of these would have let it pass" in text
    lines = subprocess.run([*words, "--json", trace], capture_output=True, text=True, check=True).stdout.splitlines()
    assert all(json.loads(line)["type"] == "failure" for line in lines)
    slower = [*words, "--json", "--slower-than", "10", trace]
    more = subprocess.run(slower, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(more) > len(lines)
    alone = subprocess.run(
        [sys.executable, "-m", "kalloctrace", "report", "--slower-than", "1", trace],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (alone.returncode, "--failures" in alone.stderr) == (2, True)
    page = subprocess.run(
        [*words, "--html", "page.html", trace], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (page.returncode, "--html" in page.stderr, list(tmp_path.iterdir())) == (2, True, [])
    other = str(FIXTURES / "5.10" / "one-node.arrows")
    refused = subprocess.run([*words, other], capture_output=True, text=True, check=False)
    assert (refused.returncode, "slow path was not recorded" in refused.stderr) == (1, True)
