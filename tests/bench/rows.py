# SPDX-License-Identifier: MIT
"""The tools that `make bench` compares; in a command, a name ending in `.bt` is that program, adapted to the kernel."""

from kalloctrace.bench.tools import BPFTRACE, BPFTRACE_COUNT, EVENT, PERF_RECORD, PERF_STAT, Row, ours

_EQUAL = "request, gfp, alloc_flags, alloc_context, task flags"

PEERS = (
    PERF_STAT,
    Row(
        "trace-cmd record",
        "gfp, order, migratetype, pfn",
        "stream",
        ("trace-cmd", "record", "-o", "{out}", "-e", EVENT, "{work}"),
        # Its own statistics omit the events that it reads at the end.
        r" mm_page_alloc: +()",
        counter=("trace-cmd", "report", "-i", "{out}"),
    ),
    PERF_RECORD,
    BPFTRACE,
    Row(
        "bpftrace rawtracepoint",
        "a count",
        "count",
        ("bpftrace", "-c", "{work-text}", "-e", "rawtracepoint:mm_page_alloc { @ = count(); }"),
        BPFTRACE_COUNT,
    ),
    Row(
        "bpftrace equal information, fentry",
        _EQUAL,
        "aggregate",
        ("bpftrace", "-c", "{work-text}", "equal-fentry.bt"),
        BPFTRACE_COUNT,
    ),
    Row(
        "bpftrace equal information, kprobe",
        _EQUAL,
        "aggregate",
        ("bpftrace", "-c", "{work-text}", "equal-kprobe.bt"),
        BPFTRACE_COUNT,
    ),
    Row(
        "bcc funccount",
        "a count",
        "count",
        ("funccount-bpfcc", "get_page_from_freelist"),
        r"^\S*get_page_from_freelist\S* +(\d+)",
        runs_work=False,
    ),
    Row(
        "bcc argdist",
        "gfp",
        "aggregate",
        ("argdist-bpfcc", "-i", "1", "-C", "p::get_page_from_freelist(u32 gfp):u32:gfp"),
        r"^\s+(\d+)\s+gfp = ",
        runs_work=False,
    ),
    Row(
        "bcc trace",
        "gfp, order",
        "stream",
        ("trace-bpfcc", 'p::get_page_from_freelist(u32 gfp, u32 order) "%x %d", gfp, order'),
        r"get_page_from_freelist +()",
        runs_work=False,
    ),
)

OURS = tuple(ours(mode, attach) for mode in ("aggregate", "stream") for attach in ("fentry", "kprobe"))

WATCHED = (
    Row(
        "kalloctrace live, fentry",
        "everything",
        "watch",
        ("kalloctrace", "live", "--plain", "--interval", "60", "--attach", "fentry"),
        r"^([\d,]+) allocations in",
        lost=r"lost (\d+), missed",
        runs_work=False,
        begins="^watching ",
    ),
)
"""It runs the same BPF programs as the aggregate mode, and must cost the same in the kernel."""
