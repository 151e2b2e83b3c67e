# SPDX-License-Identifier: MIT
"""What a report holds below its first line, as kernels from 2.6 to 7.3 print it."""

from pathlib import Path

import pytest

from kalloctrace.diagnose.reports.model import (
    Blocks,
    Frame,
    HugePages,
    Killed,
    LoggedFailure,
    Site,
    Slab,
    Task,
)
from kalloctrace.diagnose.reports.pairing import find_failures
from kalloctrace.logs.messages import Message, read_messages

PASTED = Path(__file__).parent / "data" / "failures" / "pasted"
FAILURE = "x: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL), nodemask=(null)"
OOM = "x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"


ZONE = ("Mem-Info:", "Node 0 DMA32 free:8kB min:16kB low:20kB high:24kB")


def found(*lines: str) -> list[LoggedFailure]:
    """Return the reports of some messages."""
    return list(find_failures(Message(number, line.strip()) for number, line in enumerate(lines, 1)))


def only(*lines: str) -> LoggedFailure:
    """Return the one report of some messages."""
    [report] = found(*lines)
    return report


TABLES = {
    "[ pid ]   uid  tgid total_vm      rss cpu oom_adj name": (
        *("[ 1046]  1066  1047   228537    95491   3     -17 apache 2",),
        Task(1046, 1047, 1066, 95491, None, None, -17, "apache 2", 228537),
    ),
    "[ pid ]   uid  tgid total_vm      rss cpu oom_adj oom_score_adj name": (
        *("[ 1399]     0  1399     2883       94  18     -17         -1000 udevd",),
        Task(1399, 1399, 0, 94, None, None, -1000, "udevd", 2883),
    ),
    "[ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name": (
        *("[27163]     0 27163   555677   265808     535        3             0 mem.py",),
        Task(27163, 27163, 0, 265808, 535 * 4096, 3, 0, "mem.py", 555677),
    ),
    "[ pid ]   uid  tgid total_vm      rss nr_ptes nr_pmds swapents oom_score_adj name": (
        *("[  273]     0   273     1579       83       7       2        9         -1000 sshd",),
        Task(273, 273, 0, 83, 9 * 4096, 9, -1000, "sshd", 1579),
    ),
    "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name": (
        *("[    332]     0   332     8529      507   106496        4             0 systemd-journal",),
        Task(332, 332, 0, 507, 106496, 4, 0, "systemd-journal", 8529),
    ),
    "[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj name": (
        *("[  10219]  1000 10219     5605      987      624      363         0    77824        8           200 st 7",),
        Task(10219, 10219, 1000, 987, 77824, 8, 200, "st 7", 5605),
    ),
}
"""The head of the table of tasks, one of its lines, and what that says."""


@pytest.mark.parametrize("head", TABLES)
def test_tables_of_tasks(head: str) -> None:
    """The table's head says what its columns are."""
    line, task = TABLES[head]
    assert only(OOM, head, line, "oom_reaper: reaped process 1 (x)").tasks == [task]
    assert only(OOM, "Tasks state (memory values in pages):", head, line, line).tasks == [task, task]
    [alone] = found(head, line)
    assert (alone.event, alone.tasks, alone.order_shown) == ("oom", [task], False)


def test_a_table_without_its_head() -> None:
    """Only what stands at the same place in every table is read then."""
    report = only(OOM, "[ 7]     1     6     5605      987      624      363         0    77824        8      200 st")
    assert report.tasks == [Task(7, 6, 1, 987, None, None, 200, "st", 5605)]
    assert only(OOM, "[ 7]     1     6     5605      987      1      -17 st").tasks[0].oom_score_adj is None
    assert only(OOM, "[ 7]     1     6     5605      987", "[ 7] 1 6 5605 x y", "[ 7] 1 2 3 4 5 6 7 8").tasks == []


KILLS = {
    "Out of memory: Killed process 4 (cc1) total-vm:30kB, anon-rss:9kB, file-rss:4kB, shmem-rss:2kB, UID:1": (
        *(4, "cc1", 30, 9, 4, 2, None),
    ),
    "Killed process 27163 (mem.py), UID 0, total-vm:30kB, anon-rss:9kB, file-rss:4kB, shmem-rss:0kB": (
        *(27163, "mem.py", 30, 9, 4, 0, None),
    ),
    "Killed process 11726, UID 498, (my sql) total-vm:30kB, anon-rss:9kB, file-rss:4kB": (
        *(11726, "my sql", 30, 9, 4, None, None),
    ),
    "Killed process 8 (a(b) c) vsz:30kB, anon-rss:9kB, file-rss:4kB": (8, "a(b) c", 30, 9, 4, None, None),
    "Out of Memory: Killed process 8 (x).": (8, "x", None, None, None, None, None),
    "Memory cgroup out of memory: Killed process 8 (x) total-vm:30kB, anon-rss:9kB, file-rss:4kB, shmem-rss:1kB": (
        *(8, "x", 30, 9, 4, 1, "memcg"),
    ),
    "No available memory (MPOL_BIND): Killed process 8 (x).": (8, "x", None, None, None, None, "mempolicy"),
    "No available memory in cpuset: Killed process 8 (x)": (8, "x", None, None, None, None, "cpuset"),
}


@pytest.mark.parametrize("line", KILLS)
def test_who_was_killed(line: str) -> None:
    """The victim, its sizes and the limit, also if nothing else of the report is left."""
    *victim, constraint = KILLS[line]
    for report, at in ((only(OOM, line), 2), (only(line), 1)):
        assert (report.event, report.killed, report.constraint) == ("oom", Killed(at, *victim), constraint)  # type: ignore[arg-type]
        assert report.memcg == (constraint == "memcg")


def test_a_child_is_killed() -> None:
    """Up to 5.0 the first line names the victim's parent, perhaps, and the second who was killed."""
    report = only(
        OOM,
        "Out of memory: Kill process 100 (parent) score 998 or sacrifice child",
        "Killed process 101 (child) total-vm:14404kB, anon-rss:84kB, file-rss:0kB, shmem-rss:0kB",
        "Killed process 102 (shares its memory) total-vm:14404kB, anon-rss:84kB, file-rss:0kB, shmem-rss:0kB",
    )
    assert report.killed == Killed(3, 101, "child", 14404, 84, 0, 0)
    cut = only(OOM, "Out of memory: Kill process 100 (parent) score 998 or sacrifice child")
    assert cut.killed == Killed(2, 100, "parent", None, None, None, None)


def test_kills_without_their_report() -> None:
    """Each kill counts, also where the rate limit suppressed all but one line."""
    kills = [f"Out of memory: Killed process {pid} (x) total-vm:1kB, anon-rss:1kB, file-rss:0kB" for pid in (1, 2, 3)]
    reports = found(OOM, *kills)
    assert [report.killed and report.killed.pid for report in reports] == [1, 2, 3]
    assert [report.order_shown for report in reports] == [True, False, False]


def test_a_whole_cgroup_is_killed() -> None:
    """memory.oom.group kills all processes of a cgroup, for one report."""
    kill = "Memory cgroup out of memory: Killed process {} (x) total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB"
    group = "Tasks in /a are going to be killed due to memory.oom.group set"
    report = only(OOM, kill.format(7), group, kill.format(7), kill.format(8))
    assert report.killed is not None
    assert report.killed.pid == 7


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        (("Task in /a/b killed as a result of limit of /a",), "/a"),
        (("Memory limit reached of cgroup /a",), "/a"),
        (("Memory cgroup stats for /a: cache:188KB rss:1048388KB",), "/a"),
        (("Memory cgroup stats for /a:", "anon 1"), "/a"),
        (
            (
                "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=c,mems_allowed=0,oom_memcg=/a,task_memcg=/a/b",
            ),
            "/a",
        ),
        (("memory: usage 102400kB, limit 102400kB, failcnt 33",), None),
        (("Call Trace:", " out_of_memory+0x1/0x2", " mem_cgroup_out_of_memory+0xbd/0xe0"), None),
    ],
)
def test_limits_of_cgroups(lines: tuple[str, ...], path: str | None) -> None:
    """The limit of a memory cgroup, by any one of the lines that say so."""
    report = only(OOM, *lines)
    assert (report.memcg, report.constraint, report.memcg_path) == (True, "memcg", path)


def test_a_function_that_may_not_have_been_called() -> None:
    """A frame with a question mark is left from an earlier call, and says nothing of a limit."""
    report = only(OOM, "Call Trace:", " out_of_memory+0x1/0x2", " ? mem_cgroup_out_of_memory+0xbd/0xe0")
    assert (report.memcg, report.constraint) == (False, None)
    [pasted] = find_failures(read_messages((PASTED / "memcg-by-trace.log").read_text().split("\n")))
    assert (pasted.memcg, pasted.constraint, pasted.zones) == (True, "memcg", [])


CONSTRAINTS = {"NONE": "none", "CPUSET": "cpuset", "MEMORY_POLICY": "mempolicy", "MEMCG": "memcg"}


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints(name: str) -> None:
    """The OOM killer's last line names what restricted the request."""
    report = only(OOM, f"oom-kill:constraint=CONSTRAINT_{name},nodemask=3,cpuset=/c,mems_allowed=0-3,global_oom,task=x")
    assert (report.constraint, report.nodemask, report.cpuset, report.mems_allowed) == (
        *(CONSTRAINTS[name], "3", "/c", "0-3"),
    )


def test_lists_of_the_oom_killer() -> None:
    """Unreclaimable caches and the allocation profile."""
    report = only(
        OOM,
        "Mem-Info:",
        "Memory allocations:",
        "    56.0 MiB    14336 lib/xarray.c:378 func:xas_alloc",
        "     512 B        1 drivers/x.c:12 [uvcvideo] func:uvc_alloc",
        "Unreclaimable slab info:",
        "Name                      Used          Total",
        "kmalloc-1k               563KB        576KB",
        "a name                    12KB         12KB",
        "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
    )
    assert report.profile == [
        Site(56 << 20, 14336, "lib/xarray.c:378 func:xas_alloc"),
        Site(512, 1, "drivers/x.c:12 [uvcvideo] func:uvc_alloc"),
    ]
    assert report.slabs == [Slab("kmalloc-1k", 563, 576), Slab("a name", 12, 12)]


def test_the_profile_of_a_failure() -> None:
    """Since 6.10 every state ends with the callers that hold most."""
    lines = (
        FAILURE,
        "Mem-Info:",
        "active_anon:1 inactive_anon:2 isolated_anon:0",
        "5 pages RAM",
        "Memory allocations:",
    )
    report = only(*lines, "  1.50 GiB   393216 mm/slub.c:2446 func:alloc_slab_page")
    assert report.profile == [Site(3 << 29, 393216, "mm/slub.c:2446 func:alloc_slab_page")]


def test_totals_nodes_and_the_rest() -> None:
    """The numbers of the machine and of each node."""
    report = only(
        FAILURE,
        "Mem-Info:",
        "active_anon:4558 inactive_anon:469552 isolated_anon:0#012 active_file:7 inactive_file:8 isolated_file:9",
        "slab_reclaimable:1 slab_unreclaimable:47744",
        "sec_pagetables:5 bounce:0",
        "free:137 free_pcp:6 free_cma:4",
        "Node 0 active_anon:680832kB isolated(anon):12kB shmem_thp: 44kB pages_scanned:561618 all_unreclaimable? yes",
        "Node 1 active_anon:1kB all_unreclaimable? no",
        "Node 0 DMA: 1*4kB (U) = 4kB",
        "Node 0 hugepages_total=1 hugepages_free=2 hugepages_surp=3 hugepages_size=1048576kB",
        "82262 total pagecache pages",
        "3 pages in swap cache",
        "Swap cache stats: add 1, delete 1, find 0/0",
        "Free swap  = 84kB",
        "Total swap = 25165820kB",
        "524157 pages RAM",
        "0 pages HighMem/MovableOnly",
        "81 pages reserved",
        "16 pages cma reserved",
        "2 pages hwpoisoned",
    )
    assert report.totals == {
        "active_anon": 4558,
        "inactive_anon": 469552,
        "isolated_anon": 0,
        "active_file": 7,
        "inactive_file": 8,
        "isolated_file": 9,
        "slab_reclaimable": 1,
        "slab_unreclaimable": 47744,
        "sec_pagetables": 5,
        "bounce": 0,
        "free": 137,
        "free_pcp": 6,
        "free_cma": 4,
        "pagecache": 82262,
        "swap_cache": 3,
        "cma_reserved": 16,
        "hwpoisoned": 2,
    }
    assert report.nodes == {
        0: {"active_anon": 680832, "isolated_anon": 12, "shmem_thp": 44, "all_unreclaimable": 1},
        1: {"active_anon": 1, "all_unreclaimable": 0},
    }
    assert (report.swap, report.total_ram_pages, report.reserved_pages) == ((84, 25165820), 524157, 81)
    assert report.hugepages == [HugePages(0, 1, 2, 3, 1048576)]


@pytest.mark.parametrize(
    "other", ["BUG: soft lockup - CPU#1 stuck for 67s! [cc1:7]", "eth0: link down", "usb 1-1: reset"]
)
def test_a_message_of_another_cpu_within_a_line(other: str) -> None:
    """What it cuts off is unknown: 50000 pages are not 500, and "_file:400000" is no counter."""
    report = only(
        FAILURE,
        "Mem-Info:",
        f"active_anon:100000 inactive_anon:500{other}",
        f" active_file:300000 inactive{other}_file:400000 isolated_file:0",
        f"Node 0 active_anon:400000kB inactive{other}_anon:200kB active_file:1200kB",
        f"Node 0 DMA32 free:15360kB boost:0kB min:164kB l{other}ow:204kB high:240kB",
        f"lowmem_reserve[]: 0 0 39{other}",
        f"Node 0 DMA32: 0*4kB 0*8kB 10*16kB {other}0*32kB = 160kB",
    )
    [zone] = report.zones
    counters = ("active_anon", "inactive_anon", "active_file", "inactive_file", "isolated_file")
    assert [report.totals.get(name) for name in counters] == [100000, None, 300000, None, 0]
    assert [report.nodes[0].get(name) for name in counters[:3]] == [400000, None, 1200]
    assert [zone.kilobytes.get(name) for name in ("free", "min", "low", "high")] == [15360, 164, None, 240]
    assert (zone.lowmem_reserve, zone.blocks) == (None, None)


@pytest.mark.parametrize(
    "other", ["BUG: soft lockup - CPU#1 stuck for 67s! [cc1:7]", "eth0: link down", "<0>WARNING: x"]
)
def test_a_message_of_another_cpu_behind_a_first_line(other: str) -> None:
    """The failure counts; its mask is unknown where the other line may have changed it."""
    report = only(f"x: page allocation failure: order:2{other}", "CPU: 1 PID: 7 Comm: x Not tainted 4.12.0 #1", *ZONE)
    assert (report.event, report.comm, report.order, report.mask) == ("failure", "x", 2, None)
    report = only(f"x: page allocation failure: order:2, mode:0x20{other}")
    assert (report.order, report.mask and report.mask.value) == (2, 0x20 if other.startswith("<") else None)


def test_the_state_of_old_kernels() -> None:
    """2.6: other names, and each zone says whether anything can be reclaimed."""
    old = " min:4kB low:5kB high:6kB active:1kB inactive:2kB present:9kB pages_scanned:0 all_unreclaimable? "
    report = only(
        "x: page allocation failure. order:1, mode:0x20",
        "Pid: 9, comm: x Not tainted 2.6.24-19-server #1",
        "Mem-info:",
        "Active:84372 inactive:12323 dirty:12 writeback:0 unstable:0",
        " free:1234 slab:555 mapped:6 pagetables:7 bounce:0".strip(),
        f"DMA free:8kB{old}yes",
        "lowmem_reserve[]: 0 1 1",
        f"Normal free:8kB{old}no",
        "lowmem_reserve[]: 0 0 0",
        "DMA: 2*4kB 0*8kB = 8kB",
        "Free swap:       1044184kB",
        "524288 pages of RAM",
        "8137 reserved pages",
    )
    assert (report.pid, report.cpu, report.release and report.release.release) == (9, None, "2.6.24-19-server")
    assert report.totals["active"] == 84372
    assert report.totals["slab"] == 555
    assert report.nodes == {0: {"all_unreclaimable": 0}}
    assert (report.swap, report.total_ram_pages, report.reserved_pages) == ((1044184, None), 524288, 8137)
    assert report.zones[0].blocks == (Blocks(2, 4, None), Blocks(0, 8, None))
    mixed = only(
        FAILURE, "Node 0 active_anon:7kB", f"Node 0 Normal free:8kB{old}no", f"Node 0 Movable free:8kB{old}yes"
    )
    assert mixed.nodes == {0: {"active_anon": 7, "all_unreclaimable": 0}}


FRAMES = {
    "dump_stack+0x5c/0x7b": Frame("dump_stack", None, reliable=True),
    "? vma_merge+0x2c0/0x2c0": Frame("vma_merge", None, reliable=False),
    "uvc_alloc+0x44/0x204 [uvcvideo]": Frame("uvc_alloc", "uvcvideo", reliable=True),
    "uvc_alloc+0x44/0x204 [uvcvideo 0123abcd]": Frame("uvc_alloc", "uvcvideo", reliable=True),
    "[<ffffffff81192ce9>] out_of_memory+0x219/0x460": Frame("out_of_memory", None, reliable=True),
    "<IRQ>  [<ffffffff81123daf>] ? __alloc_pages_nodemask+0x77f/0x940": (
        Frame("__alloc_pages_nodemask", None, reliable=False)
    ),
    "__alloc_pages_slowpath.constprop.88+0x938/0xad0": Frame("__alloc_pages_slowpath", None, reliable=True),
    "[c00000000478f7b0] [c0000000004b7450] warn_alloc+0x150/0x210": Frame("warn_alloc", None, reliable=True),
    "[c00000000478f780] [c000000001174678] .dump_stack_lvl+0x6c/0x9c (unreliable)": (
        Frame("dump_stack_lvl", None, reliable=False)
    ),
    "[<c009274c>] (warn_alloc_failed+0xc4/0x11c) from [<c0094a5c>] (__alloc_pages_nodemask+0x3e0/0x63c)": (
        Frame("__alloc_pages_nodemask", None, reliable=True)
    ),
    "[<c0010f00>] (unwind_backtrace) from [<bf00d9a4>] (ath_rx+0x10/0x14 [ath9k])": (
        Frame("ath_rx", "ath9k", reliable=True)
    ),
    "oom_kill_process from out_of_memory+0x218/0x34c": Frame("out_of_memory", None, reliable=True),
    "[<0000000000664a20>] handle_pte_fault+0xe0/0x200": Frame("handle_pte_fault", None, reliable=True),
    "[<802f63f2>] dump_stack+0x1e/0x3c": Frame("dump_stack", None, reliable=True),
    "([<00000000001135b4>] show_stack+0xfc/0x158)": Frame("show_stack", None, reliable=True),
    "warn_alloc (mm/page_alloc.c:3293 (discriminator 1))": Frame("warn_alloc", None, reliable=True),
    "? uvc_init (drivers/media/uvc.c:12) uvcvideo": Frame("uvc_init", "uvcvideo", reliable=False),
    "rmqueue mm/page_alloc.c:3488 [inline]": Frame("rmqueue", None, reliable=True),
}


@pytest.mark.parametrize("line", FRAMES)
def test_frames(line: str) -> None:
    """A line of a call trace, of each architecture."""
    assert only(FAILURE, "Call Trace:", line).trace == (FRAMES[line],)


@pytest.mark.parametrize(
    "line",
    [
        "RIP: 0010:__alloc_pages_nodemask+0x2ec/0x330",
        "NIP [c000000000395038] __alloc_pages_nodemask+0x3b8/0x1780",
        "pc : __alloc_pages+0x1e8/0xad2",
        "epc : __alloc_pages+0x1e8/0xad2",
        "R10: 00000000199be844 R11: 0000000000000246 R12: 0000000000004000",
        "ffff8f7a177c3bb0 ffffffffab31c193 ffffffffab7c19e0 0000000000000000",
        "Hardware name: Example (board)",
        "Modules linked in: uvcvideo videobuf2",
        "9fa0:                   02327c68 000005e8 00000009 0237d3c8",
        "<TASK>",
    ],
)
def test_what_is_no_frame(line: str) -> None:
    """Registers, stacks and modules are no calls."""
    assert only(FAILURE, "Call Trace:", line).trace == ()


def test_whole_traces() -> None:
    """The first frame may stand behind "Call Trace:", old kernels print several in a line, and a trace has an end."""
    report = only(
        FAILURE,
        "Call Trace: <IRQ> <ffffffff8015e1d2>{__alloc_pages+789}",
        "<ffffffff80160f7f>{:ext3:ext3_readpage+12}",
        "Code: 8b 54 24",
        "later+0x1/0x2",
    )
    assert report.trace == (
        Frame("__alloc_pages", None, reliable=True),
        Frame("ext3_readpage", "ext3", reliable=True),
    )
    assert only(FAILURE, "Call Trace:[<80012345>] show+0x1/0x2", "[<80012346>] b+0x1/0x2").trace == (
        *(Frame("show", None, reliable=True), Frame("b", None, reliable=True)),
    )
    long = only(FAILURE, "Call Trace:", *(f"f{at}+0x1/0x2" for at in range(1000)))
    assert len(long.trace) == 256


def test_zones_alone() -> None:
    """Without a first line it is the state of memory."""
    zone = "Node 0 Normal free:100kB min:40kB low:50kB high:60kB"
    report = only(zone, "lowmem_reserve[]: 0 0 0", "Node 0 Normal: 5*4kB (U) 10*8kB (UME) = 100kB")
    assert (report.event, report.line, report.state_line, report.order_shown) == ("memory", 1, 1, False)
    assert report.zones[0].kilobytes["free"] == 100
    assert report.zones[0].lowmem_reserve == (0, 0, 0)
    assert found("lowmem_reserve[]: 0 0 0", "Node 0 Normal: 5*4kB (U)", "sysrq: Show Memory") == []


def test_two_states_alone() -> None:
    """Two readings are two states."""
    state = (
        "Mem-Info:",
        "Node 0 Normal free:{}kB min:40kB low:50kB high:60kB",
        "5 total pagecache pages",
        "9 pages RAM",
    )
    reports = found(*(line.format(free) for free in (1, 2) for line in state))
    assert [(report.event, report.zones[0].kilobytes["free"]) for report in reports] == [("memory", 1), ("memory", 2)]


ZONEINFO = """Node 0, zone   Normal
  per-node stats
      nr_active_anon 10
      nr_slab_unreclaimable 7
      nr_page_table_pages 3
      workingset_refault_anon 9
  pages free     25
        boost    1
        min      2
        low      3
        high     4
        promo    5
        present  100
        managed  90
        cma      6
        protection: (0, 2811, 7849)
      nr_zone_active_file 8
      nr_zone_inactive_file 9
      nr_free_cma  5
  pagesets
    cpu: 0
              count:    1
              high:     378
Node 0, zone  Movable
  pages free     0
        min      0
        low      0
        high     0
        protection: (0, 0, 0)
"""


@pytest.mark.parametrize("page_kb", [4, 64])
def test_zoneinfo(page_kb: int) -> None:
    """/proc/zoneinfo has pages; kB follow from the page size."""
    [report] = find_failures(read_messages(ZONEINFO.split("\n")), page_kb=page_kb)
    normal, movable = report.zones
    assert (report.event, report.in_pages, report.state_line) == ("memory", True, 1)
    pages = {"free": 25, "boost": 1, "min": 2, "low": 3, "high": 4, "present": 100, "managed": 90}
    pages.update(active_file=8, inactive_file=9, free_cma=5)
    assert normal.kilobytes == {name: number * page_kb for name, number in pages.items()}
    assert (normal.lowmem_reserve, movable.lowmem_reserve) == ((0, 2811, 7849), (0, 0, 0))
    assert report.nodes == {
        0: {"active_anon": 10 * page_kb, "slab_unreclaimable": 7 * page_kb, "pagetables": 3 * page_kb}
    }
    both = list(find_failures(read_messages((ZONEINFO * 2).split("\n"))))
    assert [len(report.zones) for report in both] == [2, 2]


def test_buddyinfo() -> None:
    """/proc/buddyinfo has blocks by order, without their types; a second reading is another state."""
    text = "Node 0, zone      DMA      1      0      3 \nNode 1, zone   Normal    934   3020      0 \n"
    one, other = find_failures(read_messages((text * 2).split("\n")))
    for report in (one, other):
        assert [(zone.node, zone.zone) for zone in report.zones] == [(0, "DMA"), (1, "Normal")]
        assert report.zones[0].blocks == (Blocks(1, 4, None), Blocks(0, 8, None), Blocks(3, 16, None))
    completed = only(*ZONEINFO.strip().split("\n"), "Node 0, zone   Normal    25   0      0")
    assert completed.zones[0].blocks == (Blocks(25, 4, None), Blocks(0, 8, None), Blocks(0, 16, None))
    assert completed.zones[0].kilobytes["free"] == 100


def test_pagetypeinfo() -> None:
    """/proc/pagetypeinfo has the types of the blocks; its counts of pageblocks are no free blocks."""
    report = only(
        "Page block order: 9",
        "Free pages count per migrate type at order       0      1",
        "Node    0, zone   Normal, type    Unmovable      3      0",
        "Node    0, zone   Normal, type      Movable      0 >100000",
        "Node    0, zone   Normal, type   HighAtomic      1      1",
        "Number of blocks type     Unmovable      Movable  Reclaimable   HighAtomic      Isolate",
        "Node 0, zone   Normal          536         5786          526            0            0",
    )
    assert report.zones[0].blocks == (
        Blocks(4, 4, frozenset({"MIGRATE_UNMOVABLE", "MIGRATE_HIGHATOMIC"})),
        Blocks(100001, 8, frozenset({"MIGRATE_MOVABLE", "MIGRATE_HIGHATOMIC"})),
    )


def test_page_owner() -> None:
    """page_owner tells who holds pages: the first function that is no part of the allocator."""
    page = ("Page allocated via order {}, mask 0xcc0(GFP_KERNEL), pid 1, tgid 1 (x), ts 1 ns", "PFN 0x1 type Unmovable")
    stack = (" post_alloc_hook+0x1/0x2", " __alloc_pages_noprof+0x1/0x2", " {}+0x1/0x2 [mod]", " outer+0x1/0x2", "")
    lines = [
        line.format(filled)
        for order, function in ((0, "small"), (3, "large"), (0, "small"))
        for part, filled in ((page, order), (stack, function))
        for line in part
    ]
    report = only(*lines)
    assert (report.event, report.in_pages) == ("memory", True)
    assert report.profile == [Site(8 * 4096, 1, "large [mod]"), Site(2 * 4096, 2, "small [mod]")]
