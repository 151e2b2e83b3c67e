# SPDX-License-Identifier: MIT
"""Each report of a log gets its own lines, where several CPUs write at once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kalloctrace.diagnose.reports.model import LoggedFailure
from kalloctrace.diagnose.reports.pairing import find_failures
from kalloctrace.diagnose.reports.writer import MIXED
from kalloctrace.logs.messages import Message, read_messages

PASTED = Path(__file__).parent / "data" / "failures" / "pasted"

A = "a: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL), nodemask=(null),cpuset=/,mems_allowed=0"
B = "b: page allocation failure: order:2, mode:0xcc0(GFP_KERNEL), nodemask=(null),cpuset=/,mems_allowed=0"
TASK_A = "CPU: 0 PID: 10 Comm: a Not tainted 6.1.100 #1"
TASK_B = "CPU: 1 PID: 20 Comm: b Not tainted 6.1.100 #1"
TRACE_A = ("Call Trace:", " dump_stack+0x1/0x2", " warn_alloc+0x1/0x2", " only_a+0x1/0x2 [mod_a]")
TRACE_B = ("Call Trace:", " dump_stack+0x1/0x2", " warn_alloc+0x1/0x2", " only_b+0x1/0x2 [mod_b]")


def state(free: int) -> tuple[str, ...]:
    """Return a state of memory with that many kB free."""
    return (
        "Mem-Info:",
        f"active_anon:{free} inactive_anon:0 isolated_anon:0",
        f"Node 0 Normal free:{free}kB min:40kB low:50kB high:60kB",
        "lowmem_reserve[]: 0 0 0",
        f"Node 0 Normal: {free // 4}*4kB (U) = {free}kB",
        "7 total pagecache pages",
        "Free swap  = 8kB",
        "Total swap = 16kB",
        "1000 pages RAM",
    )


def found(*lines: str) -> list[LoggedFailure]:
    """Return the reports of some lines."""
    return list(find_failures(read_messages(lines)))


def pasted(name: str) -> list[LoggedFailure]:
    """Return the reports of a file."""
    return found(*(PASTED / f"{name}.log").read_text().split("\n"))


def frees(reports: list[LoggedFailure]) -> list[tuple[str, list[int]]]:
    """Return each report's task, and the free kB of its zones."""
    return [(report.comm, [zone.kilobytes["free"] for zone in report.zones]) for report in reports]


def test_a_stall_and_an_oom() -> None:
    """Two tasks that write at once: each has its own state, and two states are no contradiction."""
    stall, oom = pasted("stall-and-oom")
    assert (stall.event, stall.comm, stall.cpu, stall.pid, stall.state_line) == ("stall", "kworker/1:1", 1, 51, 35)
    assert (oom.event, oom.comm, oom.cpu, oom.pid, oom.state_line) == ("oom", "kthreadd", 3, 2, 9)
    assert (stall.contradictions, oom.contradictions) == ([], [])
    assert [zone.kilobytes["active_file"] for zone in stall.zones] == [4, 160408]
    assert [zone.kilobytes["active_file"] for zone in oom.zones] == [4, 160132]
    assert [zone.blocks[0].number for zone in stall.zones if zone.blocks] == [2, 738]
    assert [zone.blocks[0].number for zone in oom.zones if zone.blocks] == [2, 764]
    assert [frame.function for frame in stall.trace] == ["warn_alloc"]
    assert [frame.function for frame in oom.trace] == ["out_of_memory", "__alloc_pages_slowpath"]
    assert (stall.killed, oom.killed and oom.killed.pid) == (None, 10688)
    assert (stall.mems_allowed, oom.mems_allowed, oom.swap, stall.swap) == ("0", "0", (0, 0), None)
    assert oom.state_age == pytest.approx(0.000276, abs=1e-6)


def test_an_older_state() -> None:
    """A state that is older than the failure is another one's; the failure itself then has none."""
    [report] = pasted("older-state")
    assert (report.zones, report.totals, report.nodes) == ([], {}, {})
    assert report.state_line == 3
    assert report.state_age == pytest.approx(-0.107016, abs=1e-6)


@pytest.mark.parametrize(("seconds", "own"), [(1.0, True), (0.9995, True), (0.9985, False), (0.5, False)])
def test_clocks_of_two_cpus_differ_a_little(seconds: float, own: bool) -> None:
    """A line may be a millisecond older than the report's first one."""
    messages = [Message(1, A, 1.0), *(Message(at, text, seconds) for at, text in enumerate(state(100), 2))]
    report = next(find_failures(messages))
    assert frees([report]) == [("a", [100] if own else [])]


def test_an_older_state_between_a_failure_and_its_own() -> None:
    """What follows at the right time is the failure's."""
    messages = [
        Message(1, A, 5.0),
        Message(2, TASK_A, 5.0),
        *(Message(at, text, 4.0) for at, text in enumerate(state(100), 3)),
        *(Message(at, text, 5.001) for at, text in enumerate(state(200), 20)),
    ]
    [report] = find_failures(messages)
    assert (frees([report]), report.state_line) == ([("a", [200])], 20)


def test_three_failures_at_once() -> None:
    """Each failure line counts, whatever is left of it, and nobody's lines are taken for certain."""
    reports = pasted("three-at-once")
    assert [(report.line, report.order) for report in reports] == [(1, 0), (2, 0), (7, 0)]
    assert [report.mask and report.mask.value for report in reports] == [0x2080020] * 3
    assert all(report.contradictions == [MIXED] for report in reports)
    assert {report.comm for report in reports} == {"", "swapper/20"}
    assert reports[1].release is not None
    assert reports[1].release.release == "4.9.0-5-amd64"


def test_first_lines_in_one_line() -> None:
    """Two CPUs that write one line are two failures."""
    one, other = found("page allocation failure: order:0page allocation failure: order:1, mode:0x2080020(GFP_ATOMIC)")
    assert (one.order, one.mask, other.order, other.mask and other.mask.value) == (0, None, 1, 0x2080020)
    first, second = found(
        "x: page allocation failure: order:0, mode:0x20 y: page allocation failure: order:1, mode:0x20"
    )
    assert [(first.comm, first.order), (second.comm, second.order)] == [("x", 0), ("y", 1)]


@pytest.mark.parametrize("name", ["a", "b"])
def test_caller_ids(name: str) -> None:
    """Where the kernel prints who calls, any mixture of lines is taken apart."""
    of_a = [f"[    1.000000][   T10] {line}" for line in (A, TASK_A, *TRACE_A, *state(100))]
    of_b = [f"[    1.000000][   T20] {line}" for line in (B, TASK_B, *TRACE_B, *state(200))]
    mixed = [line for pair in zip(of_a, of_b, strict=True) for line in pair]
    reports = {report.comm: report for report in found(*mixed)}
    report, free = reports[name], {"a": 100, "b": 200}[name]
    assert report.contradictions == []
    assert frees([report]) == [(name, [free])]
    assert [frame.function for frame in report.trace] == ["dump_stack", "warn_alloc", f"only_{name}"]
    assert report.totals["active_anon"] == free


def test_one_after_the_other() -> None:
    """A failure without its state does not take the next one's."""
    reports = found(A, TASK_A, *TRACE_A, B, TASK_B, *TRACE_B, *state(200))
    assert frees(reports) == [("a", []), ("b", [200])]
    assert [report.contradictions for report in reports] == [[], []]
    assert [report.trace[-1].function for report in reports] == ["only_a", "only_b"]


def test_the_task_that_was_named_last_writes() -> None:
    """A state follows the call trace of its task."""
    reports = found(A, B, TASK_B, *TRACE_B, *state(200), TASK_A, *TRACE_A, *state(100))
    assert frees(reports) == [("a", [100]), ("b", [200])]
    assert [report.contradictions for report in reports] == [[], []]


def test_a_state_that_may_be_either_ones() -> None:
    """Where both tasks have written, the log does not show whose state follows."""
    reports = found(A, B, TASK_A, TASK_B, *TRACE_B, *state(200))
    assert [report.contradictions for report in reports] == [[MIXED], [MIXED]]


def test_mixed_states() -> None:
    """Zones of two states that run into each other are told apart, but whose is whose is not certain."""
    pairs = [line for pair in zip(state(100), state(200), strict=True) for line in pair]
    reports = found(A, B, TASK_A, *TRACE_A, TASK_B, *TRACE_B, *pairs)
    assert sorted(free for _, (free,) in frees(reports)) == [100, 200]
    assert [report.contradictions for report in reports] == [[MIXED], [MIXED]]


def test_mixed_traces() -> None:
    """Of traces that run into each other none is used: a function of one would be taken for the other's."""
    pairs = [line for pair in zip(TRACE_A, TRACE_B, strict=True) for line in pair]
    reports = found(A, TASK_A, B, TASK_B, *pairs)
    assert [report.trace for report in reports] == [(), ()]
    assert reports[1].contradictions == [MIXED]


def test_another_tasks_trace() -> None:
    """A warning of another task adds nothing to the report before it; a state behind it may be that task's."""
    other = ("WARNING: CPU: 2 PID: 5 at fs/x.c:1 f+0x1/0x2", "CPU: 2 PID: 5 Comm: c Not tainted 6.1.100 #1")
    [report] = found(A, TASK_A, *other, *TRACE_B, *state(100))
    assert (report.trace, report.cpu, frees([report])) == ((), 0, [("a", [100])])
    assert report.contradictions == [MIXED]
    _, headless = found(A, TASK_A, *TRACE_A, *state(100), TASK_B, *TRACE_B, *state(200))
    assert (headless.event, frees([headless])) == ("memory", [("", [200])])


def test_a_renamed_task() -> None:
    """The kernel is that of the second line, also if the task's name was replaced in one of the two."""
    [report] = pasted("renamed-task")
    assert report.release is not None
    assert (report.comm, report.release.release, report.order) == ("xxxx", "4.9.56", 10)


def test_what_is_left_of_a_prefix() -> None:
    """The second line says where the task's name begins in the first."""
    [report] = find_failures([Message(1, f"box a7 {A}"), Message(2, TASK_A)])
    assert (report.comm, report.pid, report.cpu) == ("a", 10, 0)


def test_hosts_are_kept_apart() -> None:
    """A log of several machines has one report for each."""
    messages = [Message(1, A, host="one"), Message(2, B, host="two")]
    messages += [Message(3 + at, text, host="one") for at, text in enumerate(state(100))]
    messages += [Message(30 + at, text, host="two") for at, text in enumerate(state(200))]
    reports = list(find_failures(messages))
    assert [(report.host, *frees([report])) for report in reports] == [("one", ("a", [100])), ("two", ("b", [200]))]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Missed 120 kernel messages", 120),
        ("systemd-journald[300]: Missed 7 kernel messages", 7),
        ("** 9 printk messages dropped **", 9),
        ("2 messages were lost", 0),
    ],
)
def test_lost_messages(text: str, number: int) -> None:
    """What journald or the console lost is said of the reports that it may be of."""
    whole = "SLUB: Unable to allocate memory on node -1 (gfp=0x20)", "  cache: a, object size: 1, order: 0"
    slub, oom, later = found(
        *whole, "c invoked oom-killer: gfp_mask=0xcc0, order=0", text, "b: page allocation failure: order:0, mode:0xcc0"
    )
    assert (slub.lost, oom.lost, later.lost) == (0, number, 0)


def test_suppressed_reports() -> None:
    """What the rate limit suppressed is said of the next report of its kind."""
    [oom, failure] = found(
        "warn_alloc: 12 callbacks suppressed",
        "net_ratelimit: 99 callbacks suppressed",
        "c invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        A,
    )
    assert (oom.suppressed, failure.suppressed) == (0, 12)
    [oom] = found("oom_kill_process: 132 callbacks suppressed", "c invoked oom-killer: gfp_mask=0xcc0, order=0")
    assert oom.suppressed == 132


@pytest.mark.parametrize("text", ["__ratelimit: {} callbacks suppressed", "printk: {} messages suppressed."])
def test_messages_suppressed_by_a_shared_limit(text: str) -> None:
    """Kernels up to 2.6.32 do not tell whose they were; the next caller prints the number."""
    assert [each.limited for each in found(text.format(12), A, B)] == [12, 0]
    assert [each.limited for each in found(text.format(12), "usb 1-1: reset", A)] == [0]
    assert [each.suppressed for each in found(text.format(12), A)] == [0]


def test_a_boot_ends_all_reports() -> None:
    """After a boot line nothing belongs to a report before it, and the kernel is the new one."""
    first, second = found(A, TASK_A, "Linux version 6.12.38+deb13-amd64 (x) #1 SMP", B, *state(200))
    assert (first.zones, second.release and second.release.release) == ([], "6.12.38+deb13-amd64")


def test_long_after() -> None:
    """A state half a minute after a report is not its own."""
    report, alone = find_failures(
        [Message(1, A, 1.0), Message(2, TASK_A, 1.0)]
        + [Message(9 + at, text, 40.0) for at, text in enumerate(state(100))]
    )
    assert (report.zones, alone.event, frees([alone])) == ([], "memory", [("", [100])])


def test_show_memory_between() -> None:
    """What a person asked for (SysRq m) is no failure's state."""
    report, shown = found(A, TASK_A, *TRACE_A, "sysrq: Show Memory", *state(100))
    assert (report.zones, shown.event, frees([shown])) == ([], "memory", [("", [100])])


def test_a_report_is_yielded_while_the_log_goes_on() -> None:
    """Memory does not grow with the log: a report waits for few lines after its last."""
    counted = 0

    def counting() -> Iterator[Message]:
        nonlocal counted
        for message in read_messages([A, TASK_A, *TRACE_A, *state(100)] * 50):
            counted += 1
            yield message

    lines = [counted for _ in find_failures(counting())]
    assert len(lines) == 50
    assert lines[10] < lines[20] < lines[30] < lines[40] < counted


def test_times() -> None:
    """Times are those of the first line, and the state's age is known from them."""
    [report] = found(*(f"[   45.{at:06}] {text}" for at, text in enumerate((A, TASK_A, *state(100)))))
    assert report.time == 45.0
    assert report.state_age == pytest.approx(2e-6, abs=1e-9)


def test_single_lines_between() -> None:
    """A line of another allocator does not end a call trace."""
    lines = (
        "alloc_contig_range: [78500, 78600) PFNs busy",
        "cma: cma_alloc: alloc failed, req-size: 9 pages, ret: -12",
    )
    report, *others = found(A, TASK_A, *TRACE_A[:2], *lines, *TRACE_A[2:], *state(100))
    assert [other.event for other in others] == ["contig", "cma"]
    assert [frame.function for frame in report.trace] == ["dump_stack", "warn_alloc", "only_a"]
    assert frees([report]) == [("a", [100])]


def test_only_the_last_lines_of_a_state() -> None:
    """Swap is read where it is all that is left of a state, but not behind an older state."""
    [report] = found(A, TASK_A, "Free swap  = 8kB", "Total swap = 16kB", "1000 pages RAM")
    assert (report.swap, report.total_ram_pages, report.state_line) == ((8, 16), 1000, None)
    messages = [Message(1, A, 5.0), *(Message(at, text, 4.0) for at, text in enumerate(state(100), 3))]
    [report] = find_failures([*messages, Message(30, "Free swap  = 8kB", 5.0)])
    assert report.swap is None


def test_states_without_blocks() -> None:
    """Reports one after the other are not mixed, whatever was cut off at their ends."""
    reports = found(A, TASK_A, *TRACE_A, *state(100)[:4], B, TASK_B, *TRACE_B, *state(200)[:4])
    assert frees(reports) == [("a", [100]), ("b", [200])]
    assert [report.contradictions for report in reports] == [[], []]
    # The log may end within a number, so its last one is not used.
    assert [zone.lowmem_reserve for report in reports for zone in report.zones] == [(0, 0, 0), None]


def test_a_state_that_goes_on_behind_another() -> None:
    """A second state in the middle of the first: whose is whose is not certain, though both are whole."""
    one, other = state(100), state(200)
    reports = found(A, TASK_A, *TRACE_A, one[0], B, TASK_B, *TRACE_B, other[0], *one[1:], *other[1:])
    assert sorted(free for _, (free,) in frees(reports)) == [100, 200]
    assert [report.contradictions for report in reports] == [[MIXED], [MIXED]]


def test_the_end_of_a_state_in_the_middle_of_another() -> None:
    """Lines that the kernel prints last do not come first."""
    one, other = state(100), state(200)
    reports = found(A, TASK_A, *TRACE_A, *one[:6], B, TASK_B, *TRACE_B, *other[:3], *one[6:], *other[3:])
    assert frees(reports) == [("a", [100]), ("b", [200])]
    assert [report.swap for report in reports] == [(8, 16), (8, 16)]
    assert MIXED in reports[1].contradictions


def test_a_state_before_the_end_of_a_trace() -> None:
    """A state that begins where its task has not shown who asked may be that of one which has."""
    reports = found(A, TASK_A, *TRACE_A, B, TASK_B, *TRACE_B[:3], *state(100)[:3], TRACE_B[3], *state(100)[3:])
    assert MIXED in reports[1].contradictions


def test_a_state_after_the_victim() -> None:
    """The OOM killer shows the state before it kills, so a state behind that is another report's."""
    oom = "b invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
    kill = "Out of memory: Killed process 20 (b) total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB"
    reports = found(A, TASK_A, *TRACE_A, oom, TASK_B, *TRACE_B, kill, *state(100))
    assert frees(reports) == [("a", [100]), ("b", [])]


def test_two_clocks() -> None:
    """Lines with the time of the day between lines with the time since boot are the report's own."""
    day = 1.7e9
    times = (5.0, 5.0, day, 5.1, day + 40, 5.2, 5.2, 5.2, 5.2, 5.2, 5.2)
    [report] = find_failures(Message(at, text, times[at]) for at, text in enumerate((A, TASK_A, *state(100))))
    assert (frees([report]), report.swap, report.state_age) == ([("a", [100])], (8, 16), None)


def test_task_before_vmalloc() -> None:
    """What stands before "vmalloc" behind a stamp is a task's name, not a host's; a host may stand before it."""
    text = "vmalloc: allocation failure: 4096 bytes, mode:0xcc0(GFP_KERNEL), nodemask=(null)"
    for prefix in ("[  167.478916] ", "[  167.478916] box: "):
        [report] = found(f"{prefix}task0: {text}")
        assert report.comm == "task0"
    [report] = found(f"[  167.478916] box: {A}")
    assert (report.comm, report.event) == ("a", "failure")


def test_panic_of_another_task() -> None:
    """The trace of a panic tells nothing of who asked; that of panic_on_warn does, if the warning is the report."""
    trace = ("Call Trace:", " dump_stack+0x1/0x2", " panic+0x1/0x2", " other_driver+0x1/0x2 [other]")
    [report] = found(A, "CPU: 1 PID: 20 Comm: b Not tainted 6.1.100 #1", *trace)
    assert (report.comm, report.trace) == ("a", ())
    [warning] = found("WARNING: CPU: 1 PID: 20 at mm/page_alloc.c:9 __alloc_pages+0x1/0x2", TASK_B, *trace)
    assert [frame.function for frame in warning.trace] == ["dump_stack", "panic", "other_driver"]


def test_the_trace_of_another_report_behind_a_beginning() -> None:
    """What follows b's "Call Trace:" is the end of a's, as it does not begin with the functions that print."""
    reports = found(A, TASK_A, *TRACE_A[:3], B, TASK_B, TRACE_B[0], TRACE_A[3], *state(100), *TRACE_B[1:], *state(200))
    assert [report.contradictions for report in reports if report.event == "failure"] == [[MIXED], [MIXED]]


def test_one_more_state_than_reports() -> None:
    """Task b began while a's state was not whole; the rest of its own state begins one of its own."""
    whole, other = state(100), state(200)
    reports = found(A, TASK_A, *TRACE_A, *whole[:2], B, TASK_B, *TRACE_B, other[0], *whole[2:], *other[1:])
    assert [report.contradictions for report in reports if report.event == "failure"] == [[MIXED], [MIXED]]


def test_two_ends_of_a_state() -> None:
    """A machine has one number of pages; where the ends of two states differ, one is another report's."""
    [report] = found(A, TASK_A, *state(100), "Free swap  = 8kB", "2000 pages RAM")
    assert (report.total_ram_pages, report.contradictions) == (1000, [MIXED])


@pytest.mark.parametrize(
    ("first", "second"),
    [("Web Content", "Web Content"), ("Web Content", "web1: Web Content"), ("Content", "Content")],
)
def test_the_line_of_the_cpuset(first: str, second: str) -> None:
    """A host may stand before the name."""
    begin = f"{first}: page allocation failure: order:0, mode:0x14000c0(GFP_KERNEL), nodemask=(null)"
    # At the very end of a log the list may be cut.
    for name, nodes in ((second, "0-1"), ("other", None)):
        [report] = found(begin, f"{name} cpuset=/ mems_allowed=0-1", "Call Trace:")
        assert report.mems_allowed == nodes
