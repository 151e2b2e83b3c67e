# SPDX-License-Identifier: MIT
"""What is read out of a kernel log, in the forms of kernels from 2.6 to 7.3."""

from pathlib import Path

import pytest

from kalloctrace.diagnose.reports.model import LoggedFailure, LoggedZone, zone_layouts
from kalloctrace.diagnose.reports.pairing import find_failures
from kalloctrace.logs.messages import read_messages

DATA = Path(__file__).parent / "data" / "failures"

HEADER = "x: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL), nodemask=(null)"
ZONE = "Node 0 Normal free:100kB min:40kB low:50kB high:60kB"
RESERVE = "lowmem_reserve[]: 0 0 0 0 0"
BLOCKS = "Node 0 Normal: 5*4kB (U) 10*8kB (UME) = 100kB"


def read(name: str) -> list[LoggedFailure]:
    """Return the reports of a file."""
    return list(find_failures(read_messages((DATA / name).read_text().split("\n"))))


def only(*lines: str) -> LoggedFailure:
    """Return the one report of some lines."""
    [report] = find_failures(read_messages(lines))
    return report


FAILURE = "page allocation failure: order"
HEADERS = {
    f"kworker/0:1: {FAILURE}:4, mode:0x40cc0(GFP_KERNEL|__GFP_COMP), nodemask=(null),cpuset=/,mems_allowed=0-1": (
        *("failure", "kworker/0:1", 4, 0x40CC0, "(null)", "0-1"),
    ),
    f"a b: {FAILURE}:0, mode:0xcc0(GFP_KERNEL), nodemask=0,2-3,cpuset=/a,mems_allowed=0-3": (
        *("failure", "a b", 0, 0xCC0, "0,2-3", "0-3"),
    ),
    "ifconfig: page allocation failure. order:5, mode:0x8020": ("failure", "ifconfig", 5, 0x8020, None, None),
    "DOM Worker: page allocation stalls for 10646ms, order:0, mode:0x24280ca(GFP_HIGHUSER_MOVABLE|__GFP_ZERO)": (
        *("stall", "DOM Worker", 0, 0x24280CA, None, None),
    ),
    "db: page allocation stall for 11 secs: order:0, mode:0xcc0(GFP_KERNEL) nodemask=(null),cpuset=d,mems_allowed=1": (
        *("stall", "db", 0, 0xCC0, "(null)", "1"),
    ),
    "a.out invoked oom-killer: gfp_mask=0x100cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0": (
        *("oom", "a.out", 0, 0x100CCA, None, None),
    ),
    "pool invoked oom-killer: gfp_mask=0x14200ca(GFP_HIGHUSER_MOVABLE), nodemask=1, order=0, oom_score_adj=0": (
        *("oom", "pool", 0, 0x14200CA, "1", None),
    ),
    "bash invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=-1, oom_score_adj=0": (
        *("oom", "bash", -1, 0xCC0, None, None),
    ),
    "swapper invoked oom-killer: gfp_mask=0x80d1, order=0, oomkilladj=0": ("oom", "swapper", 0, 0x80D1, None, None),
}


@pytest.mark.parametrize("line", HEADERS)
def test_header(line: str) -> None:
    """The first line of a report is read in each of its forms."""
    report = only(line)
    assert report.mask is not None
    read_from_it = (report.event, report.comm, report.order, report.mask.value, report.nodemask, report.mems_allowed)
    assert read_from_it == HEADERS[line]


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "<4>",
        "[12345.678901] ",
        "<4>[    5.000000] ",
        "[   14.017417][    T1] ",
        "[  +0.002367] ",
        "[Fri Apr 17 19:55:54 2026] ",
        "Jan  9 01:21:31 host kernel: [13432.114704] ",
        "Jan  9 01:21:31 host kernel: ",
        "2026-04-17T19:55:54.123456+02:00 host kernel: ",
        "kernel: [ 1477.960064] ",
        "[638074.104526] kernel: ",
        "> > [   17.575984] ",
        "    [  123.456789] ",
        ">   [  123.456789][    C1] ",
        "| [  123.456789] ",
        "kern  :warn  : [  123.456789] ",
        "kern  :warn  : 2026-11-26T12:37:26,123456+00:00 ",
        "2026-11-26T12:37:26,123456+00:00 ",
        "[  123.456789 <    0.000012>] ",
        "[Nov26 12:37] ",
        "Nov 26 12:37:26.123456 host kernel: ",
        "Nov 26 12:37:26 my-host.example kern.warn kernel[12]: ",
        "Thu 2026-11-26 12:37:26 UTC host kernel: ",
        "[  123.456789] host kernel: ",
        "<4>1 2026-11-26T12:37:26.123456+01:00 host kernel - - - [  123.456789] ",
    ],
)
def test_prefix(prefix: str) -> None:
    """What dmesg, journals and mail put before the lines is taken off."""
    report = only(*(prefix + line for line in (HEADER, ZONE, RESERVE, BLOCKS)))
    assert report.comm == "x"
    [zone] = report.zones
    assert zone.kilobytes == {"free": 100, "min": 40, "low": 50, "high": 60}
    assert zone.lowmem_reserve == (0, 0, 0, 0, 0)
    assert zone.blocks is not None
    assert [(block.number, block.size) for block in zone.blocks] == [(5, 4), (10, 8)]
    assert zone.blocks[1].types == frozenset({"MIGRATE_UNMOVABLE", "MIGRATE_MOVABLE", "MIGRATE_RECLAIMABLE"})


def test_release_follows() -> None:
    """The release is that of the report itself."""
    report = only(HEADER, "CPU: 0 PID: 1 Comm: x Not tainted 5.10.0-46-amd64 #1 Debian 5.10.262-1")
    assert report.release is not None
    assert report.release.release == "5.10.0-46-amd64"


def test_release_of_the_boot() -> None:
    """Without one of its own a report has the release that the log named before."""
    report = only("Linux version 6.12.38+deb13-amd64 (x) #1 SMP", HEADER)
    assert report.release is not None
    assert report.release.release == "6.12.38+deb13-amd64"


def test_another_task_line_is_not_its_own() -> None:
    """A line of another task names this one's CPU only if it follows at once: people rename tasks."""
    other = "CPU: 0 PID: 1 Comm: other Not tainted 5.10.0-46-amd64 #1"
    report = only(HEADER, "Call Trace:", other)
    assert (report.cpu, report.release_line) == (None, 3)
    renamed = only(HEADER, other)
    assert renamed.release is not None
    assert (renamed.release.release, renamed.comm, renamed.pid) == ("5.10.0-46-amd64", "x", None)


def test_wrapped_lines_are_joined() -> None:
    """A log that a mail program wrapped is read like the one before."""
    [report] = read("5.13-order7-atomic-wrapped.log")
    assert (report.order, report.mask and report.mask.value, report.nodemask) == (7, 0x40A20, "(null)")
    assert report.release is not None
    assert report.release.release == "5.13.14"
    assert [zone.zone for zone in report.zones] == ["DMA", "DMA32", "Normal"]
    assert [zone.kilobytes["reserved_highatomic"] for zone in report.zones] == [0, 16384, 0]
    assert [zone.kilobytes["free_cma"] for zone in report.zones] == [0, 0, 0]
    assert [len(zone.blocks or ()) for zone in report.zones] == [11, 11, 11]
    assert report.contradictions == []


def test_reports_of_several_cpus_are_kept_apart() -> None:
    """Where the kernel prints who calls, lines that run into each other find their reports."""
    web, db = read("made-two-nodes.log")
    assert [(zone.node, zone.zone) for zone in web.zones] == [(0, "Normal"), (1, "DMA32"), (1, "Normal")]
    assert [(zone.node, zone.zone) for zone in db.zones] == [(0, "Normal"), (1, "Normal")]
    assert [zone.kilobytes["free"] for zone in db.zones] == [400000, 39000]
    assert (db.event, db.waited) == ("stall", "11 secs")


def test_lines_that_run_into_each_other_are_not_guessed() -> None:
    """Pieces of lines that belong to nobody are left alone."""
    [report] = read("4.19-interleaved.log")
    assert report.zones == []


def test_several_reports() -> None:
    """Each report of a log has its own zones."""
    first, second = read("6.19-lowmem-reserve.log")
    assert (first.line, second.line) == (2, 22)
    assert [zone.kilobytes["free"] for zone in first.zones] == [11264, 377040, 14684]
    assert [zone.kilobytes["free"] for zone in second.zones] == [11264, 376580, 20084]


def test_memory_cgroup() -> None:
    """An OOM kill by the limit of a cgroup is distinguished from one by the zones."""
    [report] = read("memcg-oom.log")
    assert report.memcg
    limited = only(
        "x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "memory: usage 102400kB, limit 102400kB, failcnt 33",
    )
    assert (limited.memcg, limited.memcg_limit) == (True, (102400, 102400))


def test_oom_summary() -> None:
    """The OOM killer's last line contains the nodemask and the cpuset."""
    report = only(
        "a.out invoked oom-killer: gfp_mask=0x100cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0",
        "oom-kill:constraint=CONSTRAINT_MEMORY_POLICY,nodemask=1,cpuset=/,mems_allowed=0-2,global_oom,task=a.out",
    )
    assert (report.nodemask, report.cpuset, report.mems_allowed) == ("1", "/", "0-2")


def test_cpuset_on_a_line_of_its_own() -> None:
    """Kernels before 4.19 print the cpuset on the next line."""
    [report] = read("4.14-oom.log")
    assert (report.nodemask, report.cpuset, report.mems_allowed) == ("(null)", "/", "0")


@pytest.mark.parametrize(
    ("blocks", "contradiction"),
    [
        ("Node 0 Normal: 5*4kB (U) 10*8kB (UME) = 104kB", "add up to 100 kB, but 104 kB is printed"),
        ("Node 0 Normal: 5*4kB (U) 10*8kB (UME)", "is cut off"),
        ("Node 0 Normal: 5*4kB (U) 10*16kB (UME) = 180kB", "are not listed by order"),
        ("Node 0 Normal: 5*0kB (U) 10*0kB (UME) = 0kB", "are not listed by order"),
    ],
)
def test_blocks_that_contradict_themselves(blocks: str, contradiction: str) -> None:
    """A list of blocks that does not add up is named and not used."""
    report = only(HEADER, ZONE, blocks)
    assert report.zones[0].blocks is None
    assert contradiction in report.contradictions[0]


def test_a_zone_shown_twice() -> None:
    """A zone that is shown again with other numbers is named."""
    report = only(HEADER, ZONE, RESERVE, ZONE.replace("100", "999"), "lowmem_reserve[]: 0 0 7 7 7")
    assert report.zones[0].kilobytes["free"] == 100
    assert report.zones[0].lowmem_reserve == (0, 0, 0, 0, 0)
    assert "shown twice" in report.contradictions[0]


def test_control_characters() -> None:
    """Colours of a terminal and control characters are no part of a task's name."""
    assert only("\x1b[31mevil\x07: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL)").comm == "evil"


def test_no_report() -> None:
    """Text without a failure has none, whatever else it holds."""
    lines = ["page allocation", "Normal free: 7", "\x00\ufffd", "9" * 5000 + "*4kB"]
    assert list(find_failures(read_messages(lines))) == []


@pytest.mark.parametrize(
    ("zones", "reserve", "layouts"),
    [
        (("DMA", "DMA32", "Normal"), 5, [("DMA", "DMA32", "Normal", "Movable", "Device")]),
        (("DMA", "DMA32", "Normal"), 4, [("DMA", "DMA32", "Normal", "Movable")]),
        (("DMA", "Normal"), 3, [("DMA", "Normal", "Movable")]),
        (("DMA", "Normal", "HighMem"), 4, [("DMA", "Normal", "HighMem", "Movable")]),
        (
            ("DMA", "Normal"),
            4,
            [
                ("DMA", "DMA32", "Normal", "Movable"),
                ("DMA", "Normal", "HighMem", "Movable"),
                ("DMA", "Normal", "Movable", "Device"),
            ],
        ),
        (("Normal",), 9, []),
    ],
)
def test_layouts(zones: tuple[str, ...], reserve: int, layouts: list[tuple[str, ...]]) -> None:
    """The zones of a kernel follow from those it prints and from the length of lowmem_reserve."""
    shown = [LoggedZone(0, name, lowmem_reserve=(0,) * reserve) for name in zones]
    assert sorted(zone_layouts(shown)) == sorted(layouts)
