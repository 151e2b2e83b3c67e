# SPDX-License-Identifier: MIT
"""Parts of reading a report: possible zones, call traces, whose a line can be, which report follows from another."""

from typing import Any

import pytest

from kalloctrace.diagnose.reports.boots import Boot
from kalloctrace.diagnose.reports.fallbacks import with_fallbacks
from kalloctrace.diagnose.reports.model import Frame, LoggedFailure, LoggedZone, Task, zone_layouts
from kalloctrace.diagnose.reports.proc import ProcFile
from kalloctrace.diagnose.reports.tasks import Lists
from kalloctrace.diagnose.reports.traces import frames_in, is_incomplete, is_mixed, trace_begins, trace_ends
from kalloctrace.diagnose.reports.writer import MIXED, Writer, elapsed
from kalloctrace.diagnose.reports.zones import StateLine, state_line
from kalloctrace.logs.messages import Message


def test_what_a_report_does_not_say() -> None:
    """Numbers and names are None, lists are empty; the first line alone says what it says."""
    report = LoggedFailure("failure", 7, "task", 3)
    said = {"event": "failure", "line": 7, "comm": "task", "order": 3, "order_shown": True}
    lists = ("zones", "contradictions", "tasks", "slabs", "profile", "hugepages")
    empty = {
        **{name: [] for name in lists},
        **{name: {} for name in ("totals", "nodes", "places", "memcg_stats", "_named")},
        "trace": (),
        "trace_lines": (),
        "host": "",
        "suppressed": 0,
        "limited": 0,
        "lost": 0,
        "memcg": False,
        "memcg_counter": "",
        "memcg_v1": False,
        "kills_group": False,
        "in_pages": False,
    }
    assert vars(report) == {**dict.fromkeys(vars(report)), **said, **empty}
    assert {name for name, value in vars(report).items() if value is None} == {
        *("mask", "nodemask", "cpuset", "mems_allowed", "release", "release_line", "waited", "memcg_limit"),
        *("time", "wall", "cpu"),
        *("pid", "constraint", "memcg_path", "size", "pages", "swap", "total_ram_pages", "reserved_pages", "killed"),
        *("state_line", "state_age", "warning_text", "errno", "cache", "cma_area", "cma_pages", "panic"),
        *("no_victim", "cma_largest"),
    }
    assert report == LoggedFailure("failure", 7, "task", 3)
    assert "_named" not in repr(report)
    other = LoggedFailure("failure", 7, "task", 3)
    other.zone(0, "DMA")
    other.zones.clear()
    assert report == other
    assert vars(LoggedZone(1, "DMA")) == {
        "node": 1,
        "zone": "DMA",
        "kilobytes": {},
        "lowmem_reserve": None,
        "blocks": None,
    }


def test_a_report_that_has_begun() -> None:
    """Nothing of it is read."""
    one = writer()
    begun = {"report": one.report, "first": one.first, "mask": None, "opened": 3, "touched": 3, "line": 1}
    begun["boot"] = one.boot
    flags = dict.fromkeys(("named", "interrupted", "early", "tracing", "trace_over"), False)
    nothing = {"written": None, "interrupts": None, "zone": None, "state": 0, "place": (0, 0, 0)}
    kept = {"keys": set(), "trace": [], "trace_lines": [], "rivals": [], "lists": Lists(), "file": ProcFile()}
    parts = ["totals", "nodes", "hugepages", "swap", "total_ram_pages", "profile", "tasks", "slabs"]
    unplaced = [*parts, "memcg_limit", "memcg_stats", "constraint"]
    assert vars(one) == {**begun, **flags, **nothing, **kept, "unplaced": unplaced}
    lists = dict.fromkeys(("slabs", "profile", "stats", "final", "group"), False)
    assert vars(Lists()) == {"columns": None, **lists}
    assert vars(ProcFile()) == {"zone": None, "per_node": False, "block_types": False, "order": None, "sites": {}}


def layouts(length: int, *names: str) -> list[tuple[str, ...]]:
    """Return the possible zones of a kernel that shows these, with a lowmem_reserve of that length."""
    return list(zone_layouts([LoggedZone(0, name, {}, (0,) * length) for name in names]))


def test_zones_of_a_kernel() -> None:
    """Normal and Movable are always there; HighMem is of 32 bits, DMA32 and Device are of 64."""
    assert layouts(2, "Normal") == [("Normal", "Movable")]
    assert layouts(3, "Normal") == [
        ("DMA", "Normal", "Movable"),
        ("DMA32", "Normal", "Movable"),
        ("Normal", "HighMem", "Movable"),
        ("Normal", "Movable", "Device"),
    ]
    assert layouts(3, "DMA") == [("DMA", "Normal", "Movable")]
    assert layouts(4, "HighMem") == [("DMA", "Normal", "HighMem", "Movable")]
    assert layouts(5, "Normal") == [("DMA", "DMA32", "Normal", "Movable", "Device")]
    assert layouts(6, "Normal") == []
    assert layouts(4, "HighMem", "DMA32") == []
    # Before 2.6.23 there is no Movable, and HighMem is there with 64 bits too.
    assert layouts(1, "Normal") == [("Normal",)]
    assert layouts(1, "DMA") == []
    assert layouts(3, "DMA", "Normal", "HighMem") == [("DMA", "Normal", "HighMem")]
    assert layouts(4, "HighMem", "DMA", "DMA32", "Normal") == [("DMA", "DMA32", "Normal", "HighMem")]
    assert layouts(4, "HighMem", "DMA", "Movable", "Normal") == [("DMA", "Normal", "HighMem", "Movable")]
    assert layouts(3, "DMA", "DMA32", "Normal") == [("DMA", "DMA32", "Normal")]


def test_zones_without_a_reserve() -> None:
    """Nothing is known then, nor where two kernels' lines are mixed."""
    assert zone_layouts([LoggedZone(0, "Normal")]) == ()
    assert zone_layouts([]) == ()
    mixed = [LoggedZone(0, "Normal", {}, (0, 0)), LoggedZone(0, "DMA", {}, (0, 0, 0))]
    assert zone_layouts(mixed) == ()
    one = [LoggedZone(0, "Normal", {}, (0, 0, 0)), LoggedZone(0, "DMA")]
    assert zone_layouts(one) == (("DMA", "Normal", "Movable"),)


def test_a_zone_is_created_once() -> None:
    """By its node and name."""
    report = LoggedFailure("failure", 1, "task", 0)
    first = report.zone(1, "DMA")
    assert report.zone(1, "DMA") is first
    assert report.zone(0, "DMA") is not first
    assert [(zone.node, zone.zone) for zone in report.zones] == [(1, "DMA"), (0, "DMA")]


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("Call Trace:", ""),
        ("Call trace: a+0x1/0x2", "a+0x1/0x2"),
        ("Backtrace: ", ""),
        ("Trace:", ""),
        ("Call Trace", None),
        ("My Call Trace:", None),
    ],
)
def test_the_begin_of_a_trace(text: str, rest: str | None) -> None:
    """As the architectures write it."""
    assert trace_begins(text) == rest


@pytest.mark.parametrize(
    ("text", "ends"),
    [("---[ end trace 12 ]---", True), ("Code: 48 8b", True), ("Mem-Info:", True), (" a+0x1/0x2", False), ("", False)],
)
def test_the_end_of_a_trace(text: str, ends: bool) -> None:
    """Lines that stand behind it."""
    assert trace_ends(text) is ends


def frame(function: str, module: str | None = None, *, reliable: bool = True) -> Frame:
    """Return a frame."""
    return Frame(function, module, reliable)


@pytest.mark.parametrize(
    ("text", "frames"),
    [
        ("a+0x1/0x2", [frame("a")]),
        ("a+0x1/0x2 [mod-x]", [frame("a", "mod-x")]),
        ("? a+0x1/0x2", [frame("a", reliable=False)]),
        ("?a+0x1/0x2", [frame("a", reliable=False)]),
        ("a.isra.0+0x1/0x2", [frame("a")]),
        ("[c0000000] [c00000000478f7b0] .a+0x1/0x2 (unreliable)", [frame("a", reliable=False)]),
        ("<IRQ> a+0x1/0x2", [frame("a")]),
        ("[<ffffffff81192ce9>] a+0x1/0x2", [frame("a")]),
        ("(a) from [<c0010f00>] (b+0x10/0x14)", [frame("b")]),
        ("[<c0010f00>] (a+0x1/0x2) from [<c0010f00>] (b+0x10/0x14 [mod])", [frame("b", "mod")]),
        ("a+0x1", []),
        ("a+1/2", []),
        ("nothing", []),
        ("<ffffffff8015e1d2>{a+789} <ffffffff80160f7f>{:ext3:b+12}", [frame("a"), frame("b", "ext3")]),
        ("<ffffffff8015e1d2>{a}", []),
    ],
)
def test_frames(text: str, frames: list[Frame]) -> None:
    """Whether within a trace or not."""
    for within in (True, False):
        assert list(frames_in(text, within=within)) == frames


def test_frames_with_lines_of_the_source() -> None:
    """Other texts look the same, so that they count within a trace only."""
    for text, expected in (
        ("a (mm/x.c:12)", frame("a")),
        ("? a (mm/x.c:12 (discriminator 1)) mod", frame("a", "mod", reliable=False)),
        ("a mm/x.c:12 [inline]", frame("a")),
    ):
        assert list(frames_in(text, within=True)) == [expected]
        assert list(frames_in(text, within=False)) == []


DUMPING = ("dump_backtrace", "show_stack", "show_trace", "dump_stack", "dump_stack_lvl", "__dump_stack")
REPORTING = ("warn_alloc", "warn_alloc_failed", "dump_header")


def test_two_traces_that_run_into_each_other() -> None:
    """What prints a trace stands at its beginning, and once."""
    for name in (*DUMPING, *REPORTING):
        assert is_mixed([frame(name)], frame(name)), name
        assert not is_mixed([], frame(name))
        assert not is_mixed([frame(name, reliable=False)], frame(name))
        assert not is_mixed([frame(name)], frame(name, reliable=False))
        # Behind other functions only a dumper is out of place.
        assert is_mixed([frame("kmalloc")], frame(name)) is (name in DUMPING)
        assert not is_mixed([frame("kmalloc", reliable=False)], frame(name))
    assert not is_mixed([frame("dump_stack")], frame("show_stack"))
    assert not is_mixed([frame("kmalloc")], frame("kmalloc"))


def test_a_trace_without_who_called() -> None:
    """All of it are functions of the report."""
    assert is_incomplete([])
    assert is_incomplete([frame(name) for name in (*DUMPING, *REPORTING)])
    assert not is_incomplete([frame("dump_stack"), frame("kmalloc")])


def test_elapsed() -> None:
    """Between times of one clock: those since boot and those of the day are too far apart."""
    assert elapsed(5.0, 7.5) == 2.5
    assert elapsed(7.5, 5.0) == -2.5
    assert elapsed(None, 5.0) is None
    assert elapsed(5.0, None) is None
    assert elapsed(0.0, 1e6) == 1e6
    assert elapsed(0.0, 1e6 + 1) is None
    assert elapsed(1e6 + 1, 0.0) is None


def message(text: str = "", **more: Any) -> Message:  # noqa: ANN401
    """Return a message."""
    return Message(more.pop("line", 9), text, **more)


def writer(event: str = "failure", **more: Any) -> Writer:  # noqa: ANN401
    """Return a report whose first line stands in line 1."""
    report = LoggedFailure(event, 1, "task", 0)  # type: ignore[arg-type]
    return Writer(report, message(line=1, **more), Boot(), None, 3, 3, 1)


@pytest.mark.parametrize(
    ("mine", "its", "same"),
    [
        ({}, {}, True),
        ({"caller": "T1"}, {}, True),
        ({}, {"caller": "T1"}, True),
        ({"caller": "T1"}, {"caller": "T1"}, True),
        ({"caller": "T1"}, {"caller": "T2"}, False),
        ({"host": "a"}, {}, True),
        ({}, {"host": "a"}, True),
        ({"host": "a"}, {"host": "a"}, True),
        ({"host": "a"}, {"host": "b"}, False),
        ({"caller": "T1", "host": "a"}, {"caller": "T1", "host": "b"}, False),
    ],
)
def test_whose_a_message_can_be(mine: dict[str, str], its: dict[str, str], same: bool) -> None:
    """By caller and host, as far as they are printed."""
    assert writer(**mine).same_caller(message(**its)) is same
    assert writer(**mine).may_write(message(**its)) is same
    early = writer(time=5.0, **mine)
    assert not early.may_write(message(time=4.9, **its))


def test_younger_reports() -> None:
    """A message may be a millisecond older than the first line, as the clocks of CPUs differ."""
    assert not writer(time=5.0).is_younger(message(time=5.0 - 0.0009))
    assert writer(time=5.0).is_younger(message(time=5.0 - 0.0011))
    assert not writer(time=5.0).is_younger(message(time=6.0))
    assert not writer(time=5.0).is_younger(message())
    assert not writer().is_younger(message(time=1.0))


def test_what_a_line_touches() -> None:
    """Its number, its line and its time; and the place of each part that it began."""
    one = writer()
    one.report.totals["free"] = 1
    one.touch(7, message(line=20, time=5.0))
    assert (one.touched, one.line, one.written) == (7, 20, 5.0)
    one.report.tasks.append(Task(1, 1, 0, 1, None, None, 0, "x", 1))
    one.touch(8, message(line=21))
    assert (one.touched, one.line, one.written) == (8, 21, 5.0)
    one.report.totals["dirty"] = 1
    one.touch(9, message(line=22))
    assert one.report.places == {"totals": 20, "tasks": 21}


@pytest.mark.parametrize(
    ("state", "in_pages", "shows"),
    [(0, False, False), (1, False, True), (2, False, True), (3, False, False), (1, True, False)],
)
def test_whether_a_state_goes_on(state: int, in_pages: bool, shows: bool) -> None:
    """Between its first line and what follows the free blocks."""
    one = writer(caller="T1")
    one.state, one.report.in_pages = state, in_pages
    assert one.may_show(message()) is shows
    assert not one.may_show(message(caller="T2"))


def line(text: str) -> StateLine:
    """Return a line of a state."""
    found = state_line(text)
    assert found is not None
    return found


ZONES = {"DMA": "Node 0 DMA free:1kB", "Normal": "Node 0 Normal free:1kB", "other": "Node 1 DMA free:1kB"}


def showing(*texts: str) -> Writer:
    """Return a report that has these lines of its state."""
    one = writer()
    one.state = 1
    for text in texts:
        read = line(text)
        if read.key:
            one.keys.add(read.key)
        one.place = max(one.place, read.place)
        if read.kind == "zone":
            one.zone = one.report.zone(int(read.match["node"]), read.match["zone"])
        elif read.kind == "reserve" and one.zone is not None:
            one.zone.lowmem_reserve = (0,)
    return one


RESERVE = "lowmem_reserve[]: 0 1"
BLOCKS = {name: f"{text.partition(' free')[0]}: 1*4kB = 4kB" for name, text in ZONES.items()}


@pytest.mark.parametrize(
    ("before", "text", "continues"),
    [
        ((), ZONES["DMA"], True),
        ((ZONES["DMA"],), ZONES["Normal"], True),
        ((ZONES["DMA"],), ZONES["DMA"], False),
        # Zones come in the order of their nodes, and of enum zone_type.
        ((ZONES["Normal"],), ZONES["DMA"], False),
        ((ZONES["Normal"],), ZONES["other"], True),
        ((ZONES["other"],), ZONES["Normal"], False),
        # One lowmem_reserve follows each zone.
        ((), RESERVE, False),
        ((ZONES["DMA"],), RESERVE, True),
        ((ZONES["DMA"], RESERVE), RESERVE, False),
        # Free blocks are of zones that were shown, and nothing before them comes again.
        ((ZONES["DMA"],), BLOCKS["DMA"], True),
        ((ZONES["DMA"],), BLOCKS["Normal"], False),
        ((ZONES["DMA"], BLOCKS["DMA"]), BLOCKS["DMA"], False),
        ((ZONES["DMA"], ZONES["Normal"], BLOCKS["Normal"]), BLOCKS["DMA"], False),
        ((ZONES["DMA"], BLOCKS["DMA"]), ZONES["Normal"], False),
        ((ZONES["DMA"],), "active_anon:1 x:2", False),
        (("active_anon:1 x:2",), "free:1 x:2", True),
        (("active_anon:1 x:2",), "active_anon:1 x:2", False),
        ((ZONES["other"],), "Node 0 active_anon:1kB", False),
        (("Node 1 active_anon:1kB",), "Node 0 active_anon:1kB", True),
        ((BLOCKS["other"],), "Node 0 hugepages_total=1 hugepages_free=2 hugepages_surp=3 hugepages_size=4kB", True),
    ],
)
def test_the_next_line_of_a_state(before: tuple[str, ...], text: str, continues: bool) -> None:
    """In the order in which `show_free_areas` prints them, each once."""
    assert showing(*before).continues(line(text)) is continues


def test_a_whole_state() -> None:
    """It has the free blocks of each of its zones."""
    assert not showing().whole
    assert not showing(ZONES["DMA"]).whole
    assert showing(ZONES["DMA"], BLOCKS["DMA"]).whole
    assert not showing(ZONES["DMA"], ZONES["Normal"], BLOCKS["Normal"]).whole
    assert showing(ZONES["DMA"], ZONES["Normal"], BLOCKS["DMA"], BLOCKS["Normal"]).whole
    assert not showing(BLOCKS["DMA"]).whole


@pytest.mark.parametrize(("key", "ended"), [("pages RAM", True), ("pages of RAM", True), ("pages reserved", False)])
def test_an_ended_state(key: str, ended: bool) -> None:
    """Its last lines are read."""
    one = writer()
    assert not one.ended
    one.keys.add(key)
    assert one.ended is ended


def test_reports_that_are_mixed() -> None:
    """It is said once."""
    one = writer()
    one.mixed()
    one.mixed()
    assert one.report.contradictions == [MIXED]


@pytest.mark.parametrize(
    ("event", "wants"),
    [
        *((event, True) for event in ("failure", "stall", "oom", "vmalloc", "vmap", "vmemmap")),
        *((event, False) for event in ("slub", "cma", "contig", "warning", "hugetlb", "memory")),
    ],
)
def test_reports_with_a_state(event: str, wants: bool) -> None:
    """It comes before the tasks and the victim."""
    assert writer(event).wants_state is wants
    for change in ("state", "tasks", "killed", "columns"):
        one = writer(event)
        if change == "state":
            one.state = 1
        elif change == "columns":
            one.lists.columns = ["pid"]  # type: ignore[assignment]
        else:
            setattr(one.report, change, [1] if change == "tasks" else 1)
        assert not one.wants_state


def test_complete_reports() -> None:
    """Nothing of them is to come."""
    oom = writer("oom")
    assert not oom.complete
    oom.state = 3
    assert not oom.complete
    oom.lists.final = True
    assert oom.complete
    failure = writer()
    assert not failure.complete
    failure.state = 3
    assert failure.complete
    blocks = showing(ZONES["DMA"], BLOCKS["DMA"])
    assert not blocks.complete
    blocks.state = 2
    assert blocks.complete
    partly = showing(ZONES["DMA"], ZONES["Normal"], BLOCKS["Normal"])
    partly.state = 2
    assert not partly.complete
    assert [writer(event).complete for event in ("contig", "hugetlb", "slub", "cma", "warning")] == [
        *(True, True, False, False, False),
    ]
    cma = writer("cma")
    cma.report.cma_pages = (1, 2)
    assert cma.complete


def pair(
    lines: int = 5, *, events: tuple[str, str] = ("cma", "warning"), times: tuple[Any, Any] = (None, None)
) -> int | None:
    """Return the pages that a WARNING gets from the CMA request before it."""
    first = LoggedFailure(events[0], 10, "task", 0, pages=19_200, time=times[0])  # type: ignore[arg-type]
    second = LoggedFailure(events[1], 10 + lines, "task", 0, time=times[1])  # type: ignore[arg-type]
    found = list(with_fallbacks([first, second]))
    assert found == [first, second]
    return second.pages


def test_a_request_that_follows_from_another() -> None:
    """Within five lines, or a hundredth of a second."""
    assert pair() == 19_200
    assert pair(6) is None
    assert pair(events=("cma", "failure")) is None
    assert pair(events=("contig", "warning")) is None
    assert pair(99, times=(5.0, 5.0)) == 19_200
    assert pair(99, times=(5.0, 5.0099)) == 19_200
    assert pair(times=(5.0, 5.0101)) is None
    assert pair(times=(5.0, 4.9)) is None
    # Where one has no time the lines decide.
    assert pair(times=(5.0, None)) == 19_200
    assert pair(6, times=(None, 5.0)) is None


def test_only_the_report_right_before() -> None:
    """Another one between them has nothing to do with it."""
    cma = LoggedFailure("cma", 10, "task", 0, pages=19_200)
    warning = LoggedFailure("warning", 12, "task", 0)
    list(with_fallbacks([cma, LoggedFailure("failure", 11, "task", 0), warning]))
    assert warning.pages is None
