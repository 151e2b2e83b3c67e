# SPDX-License-Identifier: MIT
"""Which kernel printed a report, where the log does not say so in the report's own lines."""

from collections.abc import Iterable

from kalloctrace.diagnose.reports.boots import Boots
from kalloctrace.diagnose.reports.pairing import find_failures
from kalloctrace.flags.logforms import ReleaseText
from kalloctrace.logs.messages import Message, read_messages

FAILURE = "{}: page allocation failure: order:2, mode:0xcc0(GFP_KERNEL), nodemask=(null),cpuset=/,mems_allowed=0"
JOURNAL = "-- Boot 0123456789abcdef0123456789abcdef --"


def at(seconds: float, comm: str, release: str | None = None, host: str = "") -> list[str]:
    """Return a report, with the line that names its kernel or without it."""
    prefix = f"Mar  5 10:00:00 {host} kernel: " if host else ""
    lines = [FAILURE.format(comm)]
    if release is not None:
        lines.append(f"CPU: 1 PID: 7 Comm: {comm} Not tainted {release} #1")
    return [f"{prefix}[{seconds:12.6f}] {line}" for line in [*lines, "1000 pages RAM"]]


def kernels(*parts: Iterable[str]) -> list[tuple[str, str | None, int | None]]:
    """Return the task of each report, its kernel, and the later line that names it."""
    lines = [line for part in parts for line in part]
    return [
        (report.comm, report.release.release if report.release else None, report.release_line)
        for report in find_failures(read_messages(lines))
    ]


def test_a_later_line_of_the_same_boot_names_it() -> None:
    """Also the output of uname, or of cat /proc/version, below the log: no boot begins there."""
    assert kernels(at(10, "a"), at(20, "b", "6.1.0")) == [("a", "6.1.0", 4), ("b", "6.1.0", None)]
    for below in ("Linux box 6.1.0 #1 SMP x86_64 GNU/Linux", "Linux version 6.1.0 (gcc) #1 SMP"):
        assert kernels(at(10, "a"), [below]) == [("a", "6.1.0", 3)]
    assert kernels(["Linux box 6.1.0 #1 SMP"], at(1, "a", host="h")) == [("a", "6.1.0", None)]


def test_no_other_boot_names_it() -> None:
    """A first line of a kernel, a clock that begins anew, a journal's own line, or another mail."""
    last = at(20, "b", "6.8.1")
    for between in (["[    0.000000] Linux version 6.8.1 (gcc) #1 SMP"], [], ["-- Reboot --"], [JOURNAL]):
        assert kernels(at(5000, "a"), between, last) == [("a", None, None), ("b", "6.8.1", None)]
        assert kernels(at(5000, "a", "5.10.1"), between[1:], at(20, "b")) == [("a", "5.10.1", None), ("b", None, None)]
    mails = kernels(at(10, "a", "5.10.1"), ["", "Message-ID: <2@example.org>", ""], at(20, "b"))
    assert mails == [("a", "5.10.1", None), ("b", None, None)]
    named = kernels(at(10, "a"), at(20, "b", "6.1.0"), ["[    0.000000] Linux version 6.8.1 (gcc) #1"], at(9, "c"))
    assert named == [("a", "6.1.0", 4), ("b", "6.1.0", None), ("c", "6.8.1", None)]


def test_without_times_a_first_line_begins_a_boot() -> None:
    """It may be a person's, but then the kernel is only left open."""
    failure = [FAILURE.format("a"), "Call Trace:"]
    assert kernels(failure, ["Linux version 6.8.1 (gcc) #1 SMP"]) == [("a", None, None)]
    assert kernels(failure, ["CPU: 1 PID: 7 Comm: b Not tainted 5.10.1 #1"]) == [("a", "5.10.1", 3)]


def test_each_host_has_its_own() -> None:
    """The kernel of one machine is not another's."""
    both = kernels(at(10, "a", "5.10.1", "x"), at(20, "b", host="y"), at(30, "c", "6.6.1", "y"), at(31, "d", host="x"))
    assert both == [("a", "5.10.1", None), ("b", "6.6.1", 7), ("c", "6.6.1", None), ("d", "5.10.1", None)]
    boot = ["Mar  5 10:00:00 y kernel: [    0.000000] Linux version 6.8.1 (gcc) #1 SMP"]
    x, y = at(10, "a", "5.10.1", "x"), at(10, "b", "6.6.1", "y")
    zone = ["Mar  5 10:00:00 x kernel: [   10.000009] Node 0 Normal free:4kB min:40kB low:50kB high:60kB"]
    [first, _] = find_failures(read_messages([*x, *y, *boot, *zone]))
    assert [each.zone for each in first.zones] == ["Normal"]


def test_many_reports_wait_for_their_kernel() -> None:
    """But not all of a log: memory is constant."""
    parts = [line for number in range(300) for line in at(number, "a")]
    found = kernels(parts, at(400, "b", "6.1.0"))
    named = [kernel for _, kernel, _ in found]
    assert named == [None] * named.count(None) + ["6.1.0"] * named.count("6.1.0")
    assert 256 <= named.count("6.1.0") < 300


def test_many_hosts() -> None:
    """Of more than some hosts the latest are known."""
    boots = Boots()
    for number in range(200):
        message = Message(number, "x", host=f"h{number}")
        boots.named(message, ReleaseText(f"6.1.{number}", "", "x"))
        assert boots.of(message).release == ReleaseText(f"6.1.{number}", "", "x")
    assert boots.of(Message(1, "x", host="h1")).release is None
