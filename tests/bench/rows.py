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

DEFAULT = tuple(ours(mode) for mode in ("aggregate", "stream"))
"""Attached as this kernel needs it."""

FORMS = ("fentry", "multi", "jump")
ATTACHED = tuple(ours("aggregate", f"{probes}:{form}") for probes in ("one", "pair") for form in FORMS)


BY = tuple(ours("aggregate", by=by) for by in ("comm", "cgroup"))
"""Counted by the name or the control group of their task too."""


def beside(name: str, words: tuple[str, ...], begins: str) -> Row:
    """Return the row of a command of ours that runs beside the work, and does not start it.

    Args:
        name: of the row.
        words: the command.
        begins: pattern of the line that it prints when it captures.
    """
    return Row(
        name,
        "everything",
        "watch",
        ("kalloctrace", *words),
        r"^([\d,]+) allocations in",
        lost=r"lost (\d+), missed",
        runs_work=False,
        begins=begins,
    )


WATCHED = (beside("kalloctrace live", ("live", "--plain", "--interval", "60"), "^watching "),)
"""It runs the same BPF programs as the aggregate mode, and must cost the same in the kernel."""

APART = beside("kalloctrace aggregate, apart", ("record", "-f", "-o", "{out}"), "^recording ")
"""`record` beside the work, as `live` is. Work that `record` starts itself costs some 30 instructions less on 5.10."""

OURS = (*DEFAULT, *BY, *ATTACHED, APART, *WATCHED)


def floor(form: str, reach: str) -> Row:
    """Return the row of empty programs.

    Args:
        form: of FORMS.
        reach: "one" attaches to get_page_from_freelist(), "both" to the entry function too.
    """
    return Row(
        f"empty {form}, {reach}",
        "nothing",
        "floor",
        ("floors.py", form, reach, "{work}"),
        r"^each program ran (\d+) times",
    )


FLOORS = tuple(floor(form, reach) for form in FORMS for reach in ("one", "both"))
