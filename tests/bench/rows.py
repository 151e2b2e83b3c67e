# SPDX-License-Identifier: MIT
"""The tools that are compared: how each is run around the benchmark's work, and how to tell what it captured.

In a command `{work}` stands for the words of the work, `{work-text}` for the same as one word, `{out}` for a file to
write, and a name that ends in `.bt` for that program, fitted to the running kernel.
"""

from dataclasses import dataclass

_EVENT = "kmem:mm_page_alloc"
_BPFTRACE_COUNT = r"^@.*: (\d+)$"
_EQUAL = "request, gfp, alloc_flags, alloc_context, task flags"


@dataclass(frozen=True)
class Row:
    """One tool in one way of using it.

    Attributes:
        name: its name in the table and in the recorded figures.
        gets: what it gets of an allocation.
        kind: `count`, `aggregate` or `stream`: what is kept of an allocation; `watch`: an aggregate that is looked at.
        command: its words.
        captured: matches each number, in its first group, that adds up to the allocations captured; in what the command
            printed, or in what `counter` prints.
        counter: a command that tells what was captured.
        lost: matches numbers that add up to the allocations that it says it lost, in the same text.
        runs_work: whether the tool itself runs the work; else it is started before and interrupted after.
        begins: where it is started before, matches what it prints when it has begun.
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
        # Its own statistics leave out what it reads at the very end.
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
"""It has the kernel do what the aggregate does, and is to cost the same there."""
