# SPDX-License-Identifier: MIT
"""Events of kmem:mm_page_alloc in the forms in which tools and kernels print them."""

from pathlib import Path
from typing import Any

import pytest

from kalloctrace.trace.ftrace_text import Event, EventText

DATA = Path(__file__).parent / "data" / "events"
EVENT = Event(22498450000, 0, 6429, 6429, "perf", None, 0, 0, "GFP_KERNEL", failed=False)


def read(*lines: str) -> tuple[list[Event], EventText]:
    """Return the events of a text, and its header's facts."""
    text = EventText(lines)
    return list(text.events()), text


# Each as it stands in a message or a document of somebody who used that tool.
@pytest.mark.parametrize(
    ("line", "form", "changes"),
    [
        (
            (
                "perf  6429 [000]    22.498450:             kmem:mm_page_alloc: page=0x176a17 pfn=1534487 order=0 "
                "migratetype=0 gfp_flags=GFP_KERNEL"
            ),
            "perf script",
            {},
        ),
        (
            (
                "Web Content  6429/6430  [001] .....    22.498450123:          1 kmem:mm_page_alloc: page=0x176a17 "
                "pfn=0x176a17 order=3 migratetype=1 gfp_flags=GFP_HIGHUSER_MOVABLE|__GFP_COMP"
            ),
            "perf script",
            {
                "time": 22498450123,
                "cpu": 1,
                "tid": 6430,
                "comm": "Web Content",
                "order": 3,
                "migratetype": 1,
                "gfp_flags": "GFP_HIGHUSER_MOVABLE|__GFP_COMP",
            },
        ),
        (
            (
                "  <...>-22275 [006] ....   889.213383: mm_page_alloc: page=00000000d2be5665 pfn=970744 order=0 "
                "migratetype=0 nr_free=3650 gfp_flags=GFP_HIGHUSER|__GFP_ZERO"
            ),
            "tracefs trace",
            {
                "time": 889213383000,
                "cpu": 6,
                "pid": 22275,
                "tid": 22275,
                "comm": "<...>",
                "gfp_flags": "GFP_HIGHUSER|__GFP_ZERO",
            },
        ),
        (
            (
                "  gnome-terminal-1567  [000]  4415.246506: mm_page_alloc: page=ffffea0003db9f40 pfn=1155800 order=0 "
                "migratetype=0 gfp_flags=GFP_KERNEL"
            ),
            "tracefs trace",
            {"time": 4415246506000, "pid": 1567, "tid": 1567, "comm": "gnome-terminal"},
        ),
        (
            (
                "   dd-133   [000]    18.541851: mm_page_alloc:        page=0xffffffff9e084722 pfn=0x1051a2 order=1 "
                "migratetype=0 gfp_flags=0x140cca"
            ),
            "trace-cmd report",
            {"time": 18541851000, "pid": 133, "tid": 133, "comm": "dd", "order": 1, "gfp_flags": "0x140cca"},
        ),
        (
            (
                "   <idle>-0       (-----) [003] d.h2.  5.000001: mm_page_alloc: page=0000000000000000 pfn=0x0 order=0 "
                "migratetype=0 gfp_flags=GFP_NOWAIT"
            ),
            "tracefs trace",
            {
                "time": 5000001000,
                "cpu": 3,
                "pid": 0,
                "tid": 0,
                "comm": "<idle>",
                "gfp_flags": "GFP_NOWAIT",
                "failed": True,
            },
        ),
        (
            (
                " a-b-12-77      (     76) [002] ...1.  5.1: mm_page_alloc: page=00000000d2be5665 pfn=0x7 order=0 "
                "migratetype=2 gfp_flags=none"
            ),
            "tracefs trace",
            {
                "time": 5100000000,
                "cpu": 2,
                "pid": 76,
                "tid": 77,
                "comm": "a-b-12",
                "migratetype": 2,
                "gfp_flags": "none",
            },
        ),
        (
            (
                "  dd-133   [000]    18.541851: mm_page_alloc:         pfn=0xffffffffffffffff order=0 gfp_flags=3264 "
                "migratetype=0"
            ),
            "trace-cmd report",
            {"time": 18541851000, "pid": 133, "tid": 133, "comm": "dd", "gfp_flags": "3264", "failed": True},
        ),
        (
            "dd-133 [000] ..... 123456789: mm_page_alloc: page=1 pfn=0x1 order=0 migratetype=0 gfp_flags=GFP_KERNEL",
            "tracefs trace",
            {"time": 123456789, "pid": 133, "tid": 133, "comm": "dd"},
        ),
    ],
)
def test_forms(line: str, form: str, changes: dict[str, Any]) -> None:
    """Each field is where that tool has it: hex or decimal, names or a number, with or without a process id."""
    events, text = read(line)
    assert events == [EVENT._replace(**changes)]
    assert (text.form, text.unreadable, text.lost) == (form, 0, 0)


LINE = "dd-133   [000]    18.5: mm_page_alloc: page=1 pfn=0x1 order=0 migratetype=0 gfp_flags=GFP_KERNEL"


def test_call_chain_of_perf_is_a_kernel_stack() -> None:
    """Only the kernel's frames are kept, outermost first, without offsets; other events' chains are not."""
    perf = "cc 6429 [000]    22.498450:     kmem:mm_page_alloc: page=1 pfn=1 order=0 migratetype=0 gfp_flags=GFP_KERNEL"
    events, _ = read(
        perf,
        "\tffffffffbe23e32e __alloc_pages_nodemask+0x22e (/lib/modules/5.1.0-rc3+/build/vmlinux)",
        "\tffffffffbe23e400 handle_mm_fault+0x10 ([kernel.kallsyms])",
        "\t    7efdf7f7d3e8 __poll+0x18 (/usr/lib64/libc-2.28.so)",
        "",
        "cc 6429 [000]    22.5:     kmem:mm_page_free: page=1 pfn=1 order=0",
        "\tffffffffbe23e999 free_pages+0x22e ([kernel.kallsyms])",
        "",
        perf,
    )
    assert [event.stack for event in events] == ["handle_mm_fault;__alloc_pages_nodemask", None]


@pytest.mark.parametrize(
    ("header", "release"),
    [
        ("# os release : 6.1.0-49-amd64", "6.1.0-49-amd64"),
        ("Linux vm 6.18.44-fc-v669 x86_64", "6.18.44-fc-v669"),
        ("Linux host 5.10.0-46-amd64 #1 SMP Debian 5.10.262-1 (2026-07-31) x86_64", "5.10.0-46-amd64"),
    ],
)
def test_release_that_the_text_names(header: str, release: str) -> None:
    """The header of perf and trace-cmd's uname name the kernel; what comes behind the first event does not count."""
    _, text = read("cpus=2", header, LINE)
    assert text.release is not None
    assert text.release.release == release
    assert read(LINE, header)[1].release is None


def test_tracefs_is_recognised_by_its_header() -> None:
    """Its lines are those of trace-cmd, but it says which tracer it was."""
    assert read("# tracer: nop", "#", LINE)[1].form == "tracefs trace"


@pytest.mark.parametrize(("name", "form"), [("tracefs.txt", "tracefs trace"), ("trace-cmd.txt", "trace-cmd report")])
def test_lines_without_a_head_are_recognised(name: str, form: str) -> None:
    """What `trace_pipe` or grep give: the kernel puts one space after the event's name, trace-cmd pads to 20."""
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    events, text = read(*(line for line in lines if "mm_page_alloc:" in line and not line.startswith("#")))
    assert (text.form, text.unreadable) == (form, 0)
    assert events


@pytest.mark.parametrize(
    ("line", "lost"),
    [
        ("# entries-in-buffer/entries-written: 205/1205   #P:2", 1000),
        ("CPU:1 [LOST 123 EVENTS]", 123),
        ("CPU:1 [7 EVENTS DROPPED]", 7),
        ("swapper     0 [000]  22.4: PERF_RECORD_LOST lost 5", 5),
        ("# entries-in-buffer/entries-written: 205/205   #P:2", 0),
    ],
)
def test_loss_that_the_text_admits(line: str, lost: int) -> None:
    """Each tool has its own words for events that are missing."""
    assert read(line, LINE)[1].lost == lost


def test_lines_that_cannot_be_read_are_counted() -> None:
    """A line cut in the middle, and one of the function graph, which names no task; other lines are skipped."""
    graph = " 24)   |  /* mm_page_alloc: page=0000000082b1fe73 pfn=17 order=0 migratetype=1 gfp_flags=GFP_KERNEL */"
    events, text = read(
        "noise", LINE, LINE[:-30], graph, LINE.replace("order=0", "order=x"), "kmem:mm_page_alloc stats"
    )
    assert (len(events), text.unreadable, text.first_unreadable) == (1, 3, 3)


@pytest.mark.parametrize(
    ("name", "form", "stacks"),
    [
        ("perf.txt", "perf script", True),
        ("trace-cmd.txt", "trace-cmd report", False),
        ("trace-cmd-instance.txt", "trace-cmd report", False),
        ("trace-cmd-raw.txt", "trace-cmd report", False),
        ("tracefs.txt", "tracefs trace", False),
    ],
)
def test_what_tools_really_print(name: str, form: str, stacks: bool) -> None:
    """Each line with the event is one, with the fields that it shows; nothing is lost, and perf's chains are stacks."""
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    events, text = read(*lines)
    printed = [line for line in lines if "mm_page_alloc:" in line and not line.startswith("#")]
    assert (len(events), text.form, text.lost, text.unreadable) == (len(printed), form, 0, 0)
    assert len(events) > 4
    for event, line in zip(events, printed, strict=True):
        assert f"order={event.order} " in line
        assert f"gfp_flags={event.gfp_flags}" in line
        assert f"migratetype={event.migratetype}" in line
        assert f"[{event.cpu:03}]" in line
        assert f"{event.time // 10**9}.{event.time % 10**9 // 1000:06}:" in line
        assert (f"{event.comm} {event.tid} " in line) if stacks else (f" {event.comm}-{event.tid} " in line)
        assert not event.failed
        assert (event.stack is not None) == stacks
    if stacks:
        assert all((event.stack or "").endswith("__alloc_frozen_pages_noprof") for event in events)
