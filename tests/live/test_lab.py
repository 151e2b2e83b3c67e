# SPDX-License-Identifier: MIT
"""Guests with real kernels."""

import os
from pathlib import Path

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.lab import run
from kalloctrace.lab.needs import lab_available
from kalloctrace.lab.run import GuestResult, run_in_guest
from kalloctrace.trace.reader import TraceReader
from kalloctrace.verify.verification import verify_trace

pytestmark = pytest.mark.live

# Prints one line per fact, so that one boot is enough.
SCRIPT = r"""
uname -r
cat /sys/devices/system/node/online
for m in /sys/kernel/tracing /sys/kernel/debug /sys/fs/bpf /sys/fs/cgroup /dev/shm; do
    grep -q " $m " /proc/mounts && echo "mounted $m"
done
[ -e "/lib/modules/$(uname -r)/modules.dep" ] && echo modules
echo to-stderr >&2
printf '%s' "$1" >result
touch /tmp/scratch && echo scratch
touch /usr/intruder 2>/dev/null || echo read-only
python3 -c 'import kalloctrace; print("imported")'
exit 7
"""
# For the guest in memory only.
IN_MEMORY = r"""
uname -r
cat given
for m in /sys/kernel/tracing /sys/kernel/debug /sys/fs/bpf /sys/fs/cgroup /dev/shm; do
    grep -q " $m " /proc/mounts && echo "mounted $m"
done
[ -e "/lib/modules/$(uname -r)" ] || echo no modules
echo to-stderr >&2
mkdir sub
printf '%s' "$1" >sub/result
head -c 30000000 /dev/zero >large
python3 -c 'import kalloctrace, pyarrow, numpy; print("imported")'
kalloctrace record -o in-memory.arrows -- python3 -m kalloctrace.lab.workload anonymous --pages 500 >&2 || exit 1
exit 7
"""
ODD = os.fsdecode(bytes(range(1, 256)))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the guest's working directory."""
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def guest(directory: Path) -> GuestResult:
    """Boot 5.10 with two nodes once, for all tests that use it."""
    missing = lab_available()
    if missing and os.environ.get("KALLOCTRACE_REQUIRE_LIVE") == "1":
        pytest.fail(f"no guest can be booted: {missing}")
    if missing:
        pytest.skip(f"no guest can be booted: {missing}")
    before = Path.cwd()
    os.chdir(directory)
    try:
        return run_in_guest(["sh", "-c", SCRIPT, "sh", ODD], kernel="5.10", numa=("1G,cpus=0", "1G,cpus=1"))
    finally:
        os.chdir(before)


def test_kernel_is_the_requested_one(guest: GuestResult) -> None:
    """The guest runs the requested kernel."""
    assert guest.release.startswith("5.10.")
    assert guest.stdout.decode().splitlines()[0] == guest.release


def test_output_and_exit_code_are_the_command_s(guest: GuestResult) -> None:
    """Output and errors are separate, complete, and free of console messages."""
    assert guest.returncode == 7
    assert guest.stderr == b"to-stderr\n"


def test_guest_has_what_tracing_needs(guest: GuestResult) -> None:
    """It has file systems, modules, two nodes, scratch space and this installation; other host files are read-only."""
    assert guest.stdout.decode().splitlines()[1:] == [
        "0-1",
        "mounted /sys/kernel/tracing",
        "mounted /sys/kernel/debug",
        "mounted /sys/fs/bpf",
        "mounted /sys/fs/cgroup",
        "mounted /dev/shm",
        "modules",
        "scratch",
        "read-only",
        "imported",
    ]


def test_files_and_arguments_are_exact(guest: GuestResult, directory: Path) -> None:
    """A file of the command arrives, and so does every byte of its argument."""
    del guest
    assert (directory / "result").read_bytes() == os.fsencode(ODD)


def test_panic_is_reported(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that panics ends at once, and the error names the panic."""
    if lab_available():
        pytest.skip(f"no guest can be booted: {lab_available()}")
    monkeypatch.chdir(directory)
    with pytest.raises(KalloctraceError) as caught:
        run_in_guest(["sh", "-c", "echo c >/proc/sysrq-trigger"], kernel="5.10", timeout=120)
    assert "Kernel panic" in caught.value.why


def test_guest_that_says_nothing_is_tried_twice(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine whose processors never start is ended after the silence, twice, and the kernel is named."""
    if lab_available():
        pytest.skip(f"no guest can be booted: {lab_available()}")
    monkeypatch.chdir(directory)
    monkeypatch.setattr(run, "_SILENCE", 3.0)
    with pytest.raises(KalloctraceError, match=r"5\.10\..* does not boot") as caught:
        run_in_guest(["true"], kernel="5.10", qemu_options=["-S"])
    assert "silent for 3 s" in caught.value.why
    assert "-cpu Nehalem" in caplog.text


def test_kernel_without_modules_records_in_memory(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel without modules gets its job, records, and returns all files exactly."""
    if lab_available():
        pytest.skip(f"no guest can be booted: {lab_available()}")
    directory = tmp_path_factory.mktemp("in-memory")
    monkeypatch.chdir(directory)
    (directory / "given").write_text("given\n", encoding="ascii")
    result = run_in_guest(["sh", "-c", IN_MEMORY, "sh", ODD], kernel="6.19")
    assert result.release.startswith("6.19.")
    assert result.stdout.decode().splitlines() == [
        result.release,
        "given",
        "mounted /sys/kernel/tracing",
        "mounted /sys/kernel/debug",
        "mounted /sys/fs/bpf",
        "mounted /sys/fs/cgroup",
        "mounted /dev/shm",
        "no modules",
        "imported",
    ]
    assert result.returncode == 7, result.stderr.decode()
    assert result.stderr.startswith(b"to-stderr\n")
    assert (directory / "sub/result").read_bytes() == os.fsencode(ODD)
    assert (directory / "large").stat().st_size == 30_000_000
    with TraceReader(directory / "in-memory.arrows") as trace:
        verdict = verify_trace(trace)
    assert verdict.matched == verdict.allocations > 0
