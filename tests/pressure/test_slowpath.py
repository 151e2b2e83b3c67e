# SPDX-License-Identifier: MIT
"""Guests under memory pressure: the model predicts every attempt, and the trace contains every logged failure."""

import json
import os
import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.diagnose.from_log import NamedKernel, explain_failure
from kalloctrace.diagnose.from_trace import slow_failure
from kalloctrace.diagnose.reports.pairing import find_failures
from kalloctrace.flags.tables import FlagTables
from kalloctrace.lab.needs import lab_available
from kalloctrace.lab.run import run_in_guest
from kalloctrace.logs.messages import read_messages
from kalloctrace.trace.reader import TraceReader
from tests.kmod.build import build_module

ROOT = Path(__file__).parents[2]
ATTEMPTS = 10_000
"""The minimum number of attempts per kernel."""
LOGGED = 3
"""The minimum number of failures in the log; the kernel limits their rate."""
KINDS = {
    *("first_try", "after_waking_kswapd", "retry", "with_reserves", "after_direct_reclaim", "after_draining"),
    *("after_compaction", "before_oom", "oom_nofail", "nofail"),
}
"""Kinds of attempts that must occur on each kernel; the one after a cpuset change cannot be forced."""

_SINCE_6_3 = ("ALLOC_NON_BLOCK", "ALLOC_MIN_RESERVE", "ALLOC_OOM", "ALLOC_NO_WATERMARKS", "ALLOC_HIGHATOMIC")


@dataclass(frozen=True)
class Guest:
    """A machine, and what must occur in its slow path.

    Attributes:
        kernel: the kernel's name in the lab.
        flags: names of alloc_flags.
        kinds: kinds of attempts in addition to `KINDS`.
        before: a shell command to run before the recording.
    """

    kernel: str
    flags: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    before: str = "true"


GUESTS = {
    "5.10": Guest(
        "5.10",
        ("ALLOC_HARDER", "ALLOC_HIGH", "ALLOC_OOM", "ALLOC_NO_WATERMARKS", "ALLOC_CPUSET", "ALLOC_KSWAPD"),
    ),
    "6.1": Guest("6.1", _SINCE_6_3),
    "6.12": Guest("6.12", _SINCE_6_3),
    "7.3": Guest("7.3", _SINCE_6_3),
    "7.3-defrag-mode": Guest(
        "7.3", (*_SINCE_6_3, "ALLOC_NOFRAGMENT"), ("without_nofragment",), "echo 1 >/proc/sys/vm/defrag_mode"
    ),
}


@dataclass(frozen=True)
class Recorded:
    """The recording of a guest under pressure.

    Attributes:
        guest: the machine.
        verdict: the output of `verify --json`.
        tables: the kernel's flags.
        kernel: the flags with the release.
        calls: the calls of the slow path.
        log: the kernel's log.
        trace: the recording.
    """

    guest: Guest
    verdict: dict[str, Any]
    tables: FlagTables
    kernel: NamedKernel
    calls: list[dict[str, Any]]
    log: list[str]
    trace: Path


@pytest.fixture(scope="module", params=GUESTS)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Recorded]:
    """Boot a kernel, and record it under memory pressure."""
    guest, folder = GUESTS[request.param], tmp_path_factory.mktemp("pressure")
    missing = lab_available()
    if missing and os.environ.get("KALLOCTRACE_REQUIRE_LIVE") == "1":
        pytest.fail(f"no guest can be booted: {'; '.join(missing)}")
    if missing:
        pytest.skip(f"NOT TESTED LIVE: no guest can be booted: {'; '.join(missing)}")
    module = build_module(ROOT / "tests" / "kmod", guest.kernel)
    trace, log = folder / "t.arrows", folder / "log"
    pressure = shlex.join(["python", "-m", "tests.kmod.pressure", "--module", str(module)])
    record = shlex.join(["kalloctrace", "record", "-o", str(trace), "--"])
    done = run_in_guest(
        ["sh", "-c", f"{guest.before}; {record} {pressure}; dmesg >{shlex.quote(str(log))}"],
        kernel=guest.kernel,
        numa=("1G,cpus=0-1", "256M"),
        writable=[folder],
        env={"PYTHONPATH": str(ROOT)},
        timeout=1500,
        stdout=sys.stdout.buffer,
        stderr=sys.stderr.buffer,
    )
    assert done.returncode == 0
    done_verify = subprocess.run(
        [sys.executable, "-m", "kalloctrace", "verify", "--json", trace], capture_output=True, text=True, check=False
    )
    with TraceReader(trace) as reader:
        snapshot, calls = reader.snapshot, list(reader.slow_calls())
    named = NamedKernel(snapshot.release, snapshot.version, snapshot.tables)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return request.param, Recorded(guest, json.loads(done_verify.stdout), snapshot.tables, named, calls, lines, trace)


@pytest.mark.live
def test_every_attempt_matches(recorded: tuple[str, Recorded]) -> None:
    """Every attempt and every allocation matches its prediction."""
    name, found = recorded
    verdict, slow = found.verdict, found.verdict["slow"]
    print(f"{name}: {verdict['allocations']:,} allocations; slow path: {slow}; lost {verdict['slow_lost']:,}")
    assert (verdict["mismatched"], verdict["zonelists"]["mismatches"]) == (0, [])
    assert slow["mismatches"] == []
    assert (slow["mismatched"], slow["calls_mismatched"], slow["unknown"]) == (0, 0, 0)
    assert slow["matched"] == slow["attempts"] >= ATTEMPTS
    assert not {*KINDS, *found.guest.kinds} - slow["kinds"].keys()


@pytest.mark.live
def test_every_flag_of_the_slow_path_occurs(recorded: tuple[str, Recorded]) -> None:
    """Each flag occurs in some attempt."""
    name, found = recorded
    alloc = dict(found.tables.alloc)
    seen = Counter(
        flag
        for call in found.calls
        for attempt in call["attempts"]
        for flag in found.guest.flags
        if attempt["alloc_flags"] & alloc[flag]
    )
    print(f"{name}: {dict(seen)}")
    assert set(seen) == set(found.guest.flags)


@pytest.mark.live
def test_every_logged_failure_is_in_the_trace(recorded: tuple[str, Recorded]) -> None:
    """Each logged failure has a call with its mask and order, and log and trace give the same conclusion."""
    name, found = recorded
    with TraceReader(found.trace) as reader:
        snapshot = reader.snapshot
    logged = [
        failure for failure in find_failures(read_messages(found.log), found.tables) if failure.event == "failure"
    ]
    refused = [call for call in found.calls if call["page"] is False]
    answers = {
        (call["given"]["gfp_mask"], call["given"]["order"]): slow_failure(snapshot, call).why for call in refused
    }
    print(f"{name}: {len(logged)} failures in the log, {len(refused)} in the trace")
    assert len(logged) >= LOGGED
    for failure in logged:
        assert failure.mask is not None
        from_trace = answers[failure.mask.value, failure.order]
        from_log = explain_failure(failure, found.kernel).why
        assert from_trace is not None
        assert from_log is not None
        assert from_log.conclusion == from_trace.conclusion, (failure.line, from_log, from_trace)
