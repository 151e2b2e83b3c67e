# SPDX-License-Identifier: MIT
"""The compared tools: how each runs with the work of the benchmark, and how to count what it captured.

In a command `{work}` stands for the words of the work, `{work-text}` for the work as one word, `{out}` for an output
file, and a name ending in `.bt` for that program, adapted to the running kernel.
"""

from dataclasses import dataclass

_EVENT = "kmem:mm_page_alloc"
_BPFTRACE_COUNT = r"^@.*: (\d+)$"
_EQUAL = "request, gfp, alloc_flags, alloc_context, task flags"


@dataclass(frozen=True)
class Row:
    """One way of using a tool.

    Attributes:
        name: the name in the table and in the recorded figures.
        gets: the data it gets of an allocation.
        kind: what it keeps of an allocation: `count`, `aggregate` or `stream`; or `watch`, a displayed aggregate.
        command: the command.
        captured: pattern whose first group matches numbers that add up to the captured allocations, in the output of
            the command or of `counter`.
        counter: a command that prints what was captured.
        lost: pattern of numbers that add up to the allocations the tool reports as lost, in the same output.
        runs_work: whether the tool runs the work; otherwise it is started before the work and interrupted after it.
        begins: for a tool that does not run the work, the pattern of the line that it prints when it has started.
    """

    name: str
    gets: str
    kind: str
    command: tuple[str, ...]
    captured: str
    counter: tuple[str, ...] = ()
    lost: str | None = None
    runs_work: bool = True
    begins: str = "."


def _ours(mode: str, attach: str) -> Row:
    return Row(
        f"kalloctrace {mode}, {attach}",
        "everything",
        mode,
        ("kalloctrace", "record", "-f", "-o", "{out}", "--mode", mode, "--attach", attach, "--", "{work}"),
        r"^([\d,]+) allocations in",
        lost=r"lost (\d+), missed",
    )


PEERS = (
    Row(
        "perf stat",
        "a count",
        "count",
        ("perf", "stat", "-x", ";", "-e", _EVENT, "-a", "--", "{work}"),
        rf"^(\d+);;{_EVENT}",
    ),
    Row(
        "trace-cmd record",
        "gfp, order, migratetype, pfn",
        "stream",
        ("trace-cmd", "record", "-o", "{out}", "-e", _EVENT, "{work}"),
        # Its own statistics omit the events that it reads at the end.
        r" mm_page_alloc: +()",
        counter=("trace-cmd", "report", "-i", "{out}"),
    ),
    Row(
        "perf record",
        "gfp, order, migratetype, pfn",
        "stream",
        ("perf", "record", "-o", "{out}", "-e", _EVENT, "-a", "--", "{work}"),
        rf"^{_EVENT} stats:\n +SAMPLE events: +(\d+)",
        counter=("perf", "report", "-i", "{out}", "--stats"),
    ),
    Row(
        "bpftrace tracepoint",
        "gfp, order",
        "aggregate",
        (
            *("bpftrace", "-c", "{work-text}", "-e"),
            f"tracepoint:{_EVENT} {{ @[args->gfp_flags, args->order] = count(); }}",
        ),
        _BPFTRACE_COUNT,
    ),
    Row(
        "bpftrace rawtracepoint",
        "a count",
        "count",
        ("bpftrace", "-c", "{work-text}", "-e", "rawtracepoint:mm_page_alloc { @ = count(); }"),
        _BPFTRACE_COUNT,
    ),
    Row(
        "bpftrace equal information, fentry",
        _EQUAL,
        "aggregate",
        ("bpftrace", "-c", "{work-text}", "equal-fentry.bt"),
        _BPFTRACE_COUNT,
    ),
    Row(
        "bpftrace equal information, kprobe",
        _EQUAL,
        "aggregate",
        ("bpftrace", "-c", "{work-text}", "equal-kprobe.bt"),
        _BPFTRACE_COUNT,
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

OURS = tuple(_ours(mode, attach) for mode in ("aggregate", "stream") for attach in ("fentry", "kprobe"))

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
