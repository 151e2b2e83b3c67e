# SPDX-License-Identifier: MIT
"""The reports that may get more lines: which of them a line is of, and when each is over."""

from typing import Any

import pytest

from kalloctrace.diagnose.reports.model import LoggedFailure
from kalloctrace.diagnose.reports.open_reports import OpenReports
from kalloctrace.diagnose.reports.writer import Writer
from kalloctrace.flags.logforms import MaskText, ReleaseText, masks_in
from kalloctrace.logs.messages import Message

RELEASE = ReleaseText("6.1.100", "", None)


def message(line: int = 1, **more: Any) -> Message:  # noqa: ANN401
    """Return a message."""
    return Message(line, "x", **more)


def report(event: str = "failure", comm: str = "task", **more: Any) -> LoggedFailure:  # noqa: ANN401
    """Return a report."""
    return LoggedFailure(event, 1, comm, more.pop("order", 0), **more)  # type: ignore[arg-type]


def begun(*events: str, **more: Any) -> tuple[OpenReports, list[Writer]]:  # noqa: ANN401
    """Begin reports, one in each line."""
    reports, writers = OpenReports(), []
    for line, event in enumerate(events, 1):
        reports.number = line
        writers.append(reports.begin(report(event), message(line, **more)))
    return reports, writers


def test_a_report_begins() -> None:
    """With the time, the host and the kernel of its first line."""
    reports = OpenReports()
    reports.number, reports.rejecting, reports.foreign = 7, True, True
    reports.boots.named(message(8), RELEASE)
    one = reports.begin(report(), message(9, time=5.0, wall="12:00", host="alpha"))
    logged = one.report
    assert (logged.time, logged.wall, logged.host, logged.release) == (5.0, "12:00", "alpha", RELEASE)
    assert (one.opened, one.touched, one.line, one.written, one.mask) == (7, 7, 9, 5.0, None)
    assert (reports.open, reports.current, reports.foreign, reports.rejecting) == ([one], one, False, False)
    mask = next(masks_in("page allocation failure: order:0, mode:0xcc0"))
    assert reports.begin(report("cma"), message(10), mask).mask == mask


@pytest.mark.parametrize(
    ("event", "writes"),
    [
        *((event, True) for event in ("failure", "stall", "oom", "vmalloc", "vmap", "vmemmap", "warning", "memory")),
        *((event, False) for event in ("slub", "cma", "contig", "hugetlb")),
    ],
)
def test_reports_of_many_lines(event: str, writes: bool) -> None:
    """The next lines without a name are theirs."""
    reports, (failure, other) = begun("failure", event)
    assert (reports.current is other) is writes
    assert (reports.current is failure) is not writes


def test_rivals() -> None:
    """Two reports that both wait for a state, of one that prints no caller."""
    _, (first, second) = begun("failure", "stall")
    assert (first.rivals, second.rivals) == ([second], [first])
    _, (first, second) = begun("failure", "cma")
    assert (first.rivals, second.rivals) == ([], [])
    _, (first, second) = begun("failure", "stall", caller="T1")
    assert (first.rivals, second.rivals) == ([], [])


def mask(text: str = "mode:0xcc0") -> MaskText:
    """Return a mask as a line has it."""
    return next(masks_in(f"page allocation failure: order:0, {text}"))


@pytest.mark.parametrize(("first", "second"), [("vmap", "vmap"), ("vmalloc", "failure")])
def test_a_first_line_that_goes_on(first: str, second: str) -> None:
    """The reason stands before the task and the mask: one report."""
    reports = OpenReports()
    reports.number = 1
    one = reports.begin(report(first, "", size=8192, order_shown=False), message(1))
    reports.begin(report("cma"), message(1))
    reports.open.pop()
    reports.number, reports.current = 7, None
    more = report(second, "udevd", order=3, nodemask="0", cpuset="/", mems_allowed="0-1", size=None)
    assert reports.continued(more, message(9), mask())
    logged = one.report
    assert (logged.comm, logged.order, logged.order_shown, logged.size) == ("udevd", 3, True, 8192)
    assert (logged.nodemask, logged.cpuset, logged.mems_allowed) == ("0", "/", "0-1")
    assert (one.mask, one.touched, one.line) == (mask(), 7, 9)
    assert vars(reports)["current"] is one
    assert (logged.event, reports.open) == (first, [one])


@pytest.mark.parametrize(
    ("size", "text", "joined"),
    [
        (8192, "allocation failure: 8192 bytes", True),
        (4096, "allocation failure: 4096 bytes", True),
        # It asked for more than what was not found, or it got addresses and lacked pages.
        (16384, "allocation failure: 16384 bytes", False),
        (8192, "allocation failure, allocated 4096 of 8192 bytes", False),
    ],
)
def test_no_addresses_and_for_whom(size: int, text: str, *, joined: bool) -> None:
    """`alloc_vmap_area` prints the one line and its caller the other, up to 3.x without a task: one report."""
    for comm in ("udevd", ""):
        reports = OpenReports()
        reports.number = 1
        one = reports.begin(report("vmap", "", size=8192, warning_text="failed: use vmalloc="), message(1))
        # Until the task is named no line is of it.
        assert one.lacks_task
        assert not one.wants_state
        more = report("vmalloc", comm, size=size, warning_text=text, suppressed=3)
        assert reports.continued(more, message(2), mask() if comm else None) == joined
        if joined:
            assert (one.report.event, one.report.comm, one.report.size, one.report.suppressed) == (
                *("vmap", comm, size, 3),
            )
        assert reports.continued(report("failure", "insmod"), message(3), mask()) == (joined and not comm)


def test_the_same_line_for_another_request() -> None:
    """Two such lines are two reports."""
    reports = OpenReports()
    reports.begin(report("vmap", "", size=8192), message(1))
    assert not reports.continued(report("vmap", "", size=8192), message(2), None)


@pytest.mark.parametrize(
    "change",
    ["none", "mask", "comm", "caller", "far", "other", "turned"],
)
def test_a_first_line_of_its_own(change: str) -> None:
    """Where the report before has its task or its mask, is far, of another caller, or of another event."""
    reports = OpenReports()
    reports.number = 1
    if change != "none":
        comm = "task" if change == "comm" else ""
        event = "failure" if change == "turned" else "vmalloc"
        caller = "T1" if change == "caller" else ""
        reports.begin(report(event, comm), message(1, caller=caller), mask() if change == "mask" else None)
    reports.number = 8 if change == "far" else 7
    event = {"other": "vmap", "turned": "vmalloc"}.get(change, "failure")
    assert not reports.continued(report(event, "udevd"), message(9, caller="T2"), mask())


def test_the_latest_report_of_an_event() -> None:
    """That a message can be of, by its caller and its time."""
    reports, (first, second, _) = begun("oom", "failure", "stall")
    assert reports.latest(message(4), "oom") is first
    assert reports.latest(message(4), "failure") is second
    assert reports.latest(message(4), "slub") is None
    reports, (first,) = begun("oom", time=5.0)
    assert reports.latest(message(4, time=4.0), "oom") is None
    reports, (first, second) = begun("failure", "failure")
    assert reports.latest(message(4), "failure") is second
    reports.close_all()
    assert reports.latest(message(4), "failure") is None


def test_whose_a_line_without_a_name_is() -> None:
    """The caller's, else that of the report whose task was named last."""
    reports, (first, second) = begun("failure", "stall")
    reports.current = first
    assert reports.writing(message(4)) is first
    assert reports.writing(message(4, caller="T1")) is second
    reports.current = None
    assert reports.writing(message(4)) is None
    reports, (first,) = begun("failure", time=5.0)
    assert reports.writing(message(4, time=4.0)) is None
    reports, (first,) = begun("failure", caller="T1")
    assert reports.writing(message(4, caller="T2")) is None


@pytest.mark.parametrize(("time", "past"), [(35.0, False), (35.1, True), (None, False), (4.0, False)])
def test_long_after_a_report(time: float | None, past: bool) -> None:
    """Half a minute later a line is not its own."""
    reports, (one,) = begun("failure", time=5.0)
    assert reports.is_past(one, message(9, time=time)) is past
    reports.close_stale(message(9, time=time))
    assert (reports.open == []) is past


@pytest.mark.parametrize(
    ("complete", "line", "over"), [(False, 2001, False), (False, 2002, True), (True, 25, False), (True, 26, True)]
)
def test_reports_that_had_no_line_for_long(complete: bool, line: int, over: bool) -> None:
    """24 lines are enough for one that is complete, 2,000 for another."""
    reports, (one,) = begun("failure")
    one.state = 3 if complete else 0
    reports.close_stale(message(line))
    assert (reports.open == []) is over


def test_reports_are_yielded_in_order() -> None:
    """One that is closed waits for those before it."""
    reports, (first, second, third) = begun("slub", "failure", "stall")
    assert not reports.done
    second.state = 3
    reports.close_stale(message(40))
    assert (reports.open, reports.done, list(reports.take())) == ([first, third], False, [])
    reports.showing = third
    reports.close_all()
    assert reports.done
    assert (reports.current, reports.showing, reports.open) == (None, None, [])
    assert list(reports.take()) == [first, second, third]
    assert not reports.done
    assert list(reports.take()) == []


def next_one(one: Writer, reports: OpenReports, event: str = "failure", at: int = 2, **more: Any) -> bool:  # noqa: ANN401
    """Return whether a report is over when another begins."""
    reports.number = at
    reports.begin(report(event), message(at, **more))
    return one not in reports.open


def test_another_report_begins() -> None:
    """One that is complete is over when it has its last lines, had no line for a while, or shows no state."""
    reports, (one,) = begun("failure")
    assert not next_one(one, reports)
    for ended, at, over in ((False, 7, False), (False, 8, True), (True, 2, True)):
        reports, (one,) = begun("failure")
        one.state = 3
        if ended:
            one.keys.add("pages RAM")
        assert next_one(one, reports, at=at) is over
    reports, (one,) = begun("hugetlb")
    assert next_one(one, reports)
    # A caller writes one report at a time, and the OOM killer kills for one task at a time.
    reports, (one,) = begun("failure", caller="T1")
    assert not next_one(one, reports, caller="T2")
    reports, (one,) = begun("failure", caller="T1")
    assert next_one(one, reports, caller="T1")
    reports, (one,) = begun("oom")
    assert next_one(one, reports, "oom")
    reports, (one,) = begun("oom", host="a")
    assert not next_one(one, reports, "oom", host="b")
    reports, (one,) = begun("oom")
    assert not next_one(one, reports, "failure")
    reports, (one,) = begun("failure")
    assert not next_one(one, reports, "oom")


def test_the_number_of_open_reports() -> None:
    """At most 64: the oldest is over then."""
    reports, writers = begun(*["failure"] * 64)
    assert reports.open == writers
    assert next_one(writers[0], reports, at=65)
    assert reports.open[:-1] == writers[1:]
