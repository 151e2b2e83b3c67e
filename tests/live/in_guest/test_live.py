# SPDX-License-Identifier: MIT
"""`kalloctrace live` on the running kernel: it shows what a trace of the same time contains."""

import ctypes
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.system_calls import bpf
from tests.live.capabilities import require_unprivileged
from tests.terminal import on_terminal

KALLOCTRACE = [sys.executable, "-m", "kalloctrace"]
WORKLOAD = [sys.executable, "-m", "kalloctrace.lab.workload"]
PAGES = 5_000
PROG_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD = 13, 15


@contextmanager
def capturing(begins: str, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a command, and wait until it captures; end it in any case."""
    command = [*KALLOCTRACE, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert any(line.startswith(begins) for line in process.stderr), "it did not start"
            yield process
        finally:
            process.kill()


@contextmanager
def watching(*options: str) -> Iterator["subprocess.Popen[str]"]:
    """Run `live`, and wait until it captures."""
    with capturing("watching", "live", "--json", *options) as process:
        yield process


def loaded(process: "subprocess.Popen[str]") -> list[tuple[object, ...]]:
    """Return the BPF programs of a process by type and size, and the shapes of its maps.

    The hash of a program differs between processes: its instructions hold the id of the recorder, which it leaves out.
    """
    maps = ("map_type", "key_size", "value_size", "max_entries", "map_flags")
    texts = [path.read_text() for path in Path(f"/proc/{process.pid}/fdinfo").iterdir()]
    files = [dict(line.split(":\t") for line in text.splitlines() if ":\t" in line) for text in texts]
    programs = [(file["prog_type"], *sizes(int(file["prog_id"]))) for file in files if "prog_type" in file]
    return [*sorted(programs), *sorted(tuple(file[name] for name in maps) for file in files if "map_type" in file)]


def sizes(program: int) -> tuple[int, int]:
    """Return the bytes of machine code and of BPF of a program: `struct bpf_prog_info`, include/uapi/linux/bpf.h."""
    info = ctypes.create_string_buffer(256)
    file = bpf(PROG_GET_FD_BY_ID, "<I", program)
    try:
        bpf(OBJ_GET_INFO_BY_FD, "<IIQ", file, len(info), ctypes.addressof(info))
    finally:
        os.close(file)
    machine, instructions = struct.unpack_from("<16xII", info)
    return machine, instructions


def work() -> None:
    """Allocate pages."""
    subprocess.run([*WORKLOAD, "anonymous", "--pages", str(PAGES)], check=True)


def printed(process: "subprocess.Popen[str]") -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Wait for the end; return the numbers of each interval, and all rows."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    return [one for one in lines if one["type"] == "live_totals"], [one for one in lines if one["type"] == "live"]


def verify(trace: Path) -> dict[str, Any]:
    """Return the verdict on a trace."""
    done = subprocess.run([*KALLOCTRACE, "verify", "--json", trace], capture_output=True, text=True, check=False)
    verdict: dict[str, Any] = json.loads(done.stdout)
    return verdict


@pytest.mark.parametrize("by", ["request", *(pytest.param(each, marks=pytest.mark.long) for each in ("task", "comm"))])
def test_rates_are_those_of_the_trace(tmp_path: Path, attached: Callable[[], list[str]], by: str) -> None:
    """After three intervals under load: rates, no mismatch, a clean exit, and a trace with as many calls."""
    trace = tmp_path / "live.arrows"
    before = attached()
    with watching("--by", by, "--interval", "5", "--count", "3", "-o", str(trace)) as process:
        assert len(attached()) > len(before)
        work()
        totals, rows = printed(process)
    assert attached() == before
    assert len(totals) == 3
    assert max(moment["rate"] for moment in totals) > 0
    last = totals[-1]
    assert last["count"] == sum(row["new"] for row in rows) >= PAGES
    assert (last["mismatched"], last["unknown"], last["lost"], last["missed"]) == (0, 0, 0, 0)
    if by == "comm":
        assert max(row["count"] for row in rows if row["comm"].startswith("python")) >= PAGES
    verdict = verify(trace)
    assert (verdict["allocations"], verdict["matched"], verdict["mismatched"]) == (last["count"], last["count"], 0)
    assert not verdict["truncated"]
    assert (verdict["slow"]["calls"], verdict["slow"]["failed"]) == (last["slow"], last["slow_failed"])
    assert (verdict["slow"]["mismatched"], verdict["slow"]["unknown"]) == (0, 0)


@pytest.mark.long
def test_kernel_side_is_that_of_an_aggregate(tmp_path: Path, attached: Callable[[], list[str]]) -> None:
    """`live` loads the same programs and maps at the same functions as an aggregate recording."""

    def functions() -> list[str]:
        return sorted(line.split()[0] for line in attached())

    with capturing("recording", "record", "--mode", "aggregate", "-o", str(tmp_path / "counted.arrows")) as process:
        counting = loaded(process), functions()
    with watching() as process:
        assert (loaded(process), functions()) == counting
    with watching("--by", "task") as process:
        assert loaded(process) != counting[0]
    by_name = str(tmp_path / "by-name.arrows")
    with capturing("recording", "record", "--by", "comm", "-o", by_name) as process:
        counting = loaded(process), functions()
    with watching("--by", "comm,order") as process:
        assert (loaded(process), functions()) == counting


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_cleanly(tmp_path: Path, attached: Callable[[], list[str]], number: int) -> None:
    """It prints a last interval, completes the trace, and detaches everything."""
    trace = tmp_path / "ended.arrows"
    before = attached()
    with watching("--interval", "60", "-o", str(trace)) as process:
        require_unprivileged(process.pid)
        work()
        process.send_signal(number)
        totals, _ = printed(process)
    assert attached() == before
    verdict = verify(trace)
    assert [moment["count"] for moment in totals] == [verdict["allocations"]]
    assert verdict["allocations"] >= PAGES
    assert not verdict["truncated"]


@pytest.mark.long
def test_stacks_show_callers() -> None:
    """The page faults of the workload have its name and stack."""
    with watching("--stack", "--interval", "60") as process:
        work()
        process.send_signal(signal.SIGINT)
        _, rows = printed(process)
    faults = [row for row in rows if row["stack"] and "handle_mm_fault" in row["stack"]]
    assert sum(row["count"] for row in faults if row["comm"].startswith("python")) >= PAGES


@pytest.mark.long
def test_kill_leaves_nothing_attached(attached: Callable[[], list[str]]) -> None:
    """After SIGKILL nothing stays attached."""
    before = attached()
    with watching("--interval", "60") as process:
        assert len(attached()) > len(before)
        process.kill()
        process.wait(60)
    assert attached() == before


@pytest.mark.long
def test_screen_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attached: Callable[[], list[str]]
) -> None:
    """It shows the workload, writes the session, and restores terminal and kernel."""
    monkeypatch.chdir(tmp_path)
    before = attached()
    with on_terminal([*KALLOCTRACE, "live"]) as terminal:
        terminal.wait_for(b"verdict", 120)
        work()
        terminal.send(b"w")
        terminal.wait_for(b"wrote", 60)
        terminal.send(b"q")
        assert terminal.end(60) == 0
        assert terminal.restored
    assert attached() == before
    (trace,) = tmp_path.glob(f"kalloctrace-{os.uname().release}-*.arrows")
    verdict = verify(trace)
    assert verdict["allocations"] >= PAGES
    assert verdict["matched"] == verdict["allocations"]
