# SPDX-License-Identifier: MIT
"""The figures of `make bench` as Markdown tables, compared with their limits."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kalloctrace.bench.tools import Row
from tests.bench.rows import OURS, PEERS, WATCHED

Figures = Mapping[str, Any]
"""The content of recorded.json."""

CONSUMER = 400
"""Limit: instructions of a recorder per event, from the buffer to the file."""
READING = 100
"""Limit: CPU time per event of the peers' readers, as a multiple of that of `verify`."""
LARGE = 20_000_000
"""Limit: events per second and core that `verify` must read."""
SAME = 0.02
"""The relative difference of two measurements of the same."""
STARTING = 2.5
"""Limit: the duration of `decode`, as a multiple of Python importing click."""


@dataclass(frozen=True)
class Limit:
    """The maximum cost of our rows.

    Attributes:
        mode: the mode that it applies to.
        factor: the maximum fraction of the peer's figure.
        peers: prefix of the peer's name; among several rows the cheapest counts.
        aim: whether it is a goal rather than a requirement.
    """

    mode: str
    factor: float
    peers: str
    aim: bool = False

    def title(self) -> str:
        """Return the column's title."""
        return f"{'aim' if self.aim else 'limit'}: {self.factor:.2f} × {self.peers}"


LIMITS = (
    Limit("aggregate", 0.40, "perf record"),
    Limit("aggregate", 0.85, "trace-cmd record"),
    Limit("aggregate", 0.30, "bpftrace equal information"),
    Limit("aggregate", 1.00, "perf stat", aim=True),
    Limit("stream", 0.45, "perf record"),
    Limit("watch", 1 + SAME, "kalloctrace aggregate, fentry"),
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def met(value: float, limit: float) -> str:
    """Return a value, and whether it meets its limit."""
    return f"{value:.2f}, {'met' if value <= limit else '**not met**'}"


def cost_table(figures: Figures) -> str:
    """Return the overhead of each tool per allocation, one column per kernel."""
    kernels = figures["kernels"]
    bare = [f"{kernel['untraced']['least']:,.0f}" for kernel in kernels.values()]
    rows = [["(none: the allocation itself)", "", *bare]]
    rows += [
        [_name(row), row.gets, *(_cost(kernel["rows"].get(row.name)) for kernel in kernels.values())]
        for row in (*PEERS, *OURS, *WATCHED)
    ]
    return table(["tool", "what it captures", *kernels], rows)


def _name(row: Row) -> str:
    return f"**{row.name}**" if row in (*OURS, *WATCHED) else row.name


def _cost(cost: Figures | None) -> str:
    if cost is None:
        return "gap: not measured"
    if cost["gap"]:
        return f"gap: {cost['gap']}"
    lost = f", lost {cost['lost'] / (cost['lost'] + cost['captured']):.0%}" if cost["lost"] else ""
    return f"{cost['least']:,.0f} ({cost['mean']:,.0f}{lost})"


def limits_table(figures: Figures) -> str:
    """Return our rows as fractions of the peers' figures, and whether they meet their limits."""
    kernels = figures["kernels"]
    rows = [
        [row.name, limit.title(), *(_judged(kernel["rows"], row, limit) for kernel in kernels.values())]
        for row in (*OURS, *WATCHED)
        for limit in LIMITS
        if limit.mode == row.kind
    ]
    return table(["tool", "at most", *kernels], rows)


def _judged(rows: Mapping[str, Figures], row: Row, limit: Limit) -> str:
    ours = rows.get(row.name)
    if ours is None or ours["gap"]:
        return "gap: ours was not measured"
    peers = [cost["least"] for name, cost in rows.items() if name.startswith(limit.peers) and not cost["gap"]]
    if not peers:
        return "gap: the peer was not measured"
    return met(ours["least"] / min(peers), limit.factor)


def own_table(figures: Figures) -> str:
    """Return the costs of the recorder: per event, to start, and memory."""
    kernels = figures["kernels"]
    rows = []
    for name in dict.fromkeys(name for kernel in kernels.values() for name in kernel["own"]):
        row, _, part = name.partition(": ")
        lines = _CONSUMER if part == "consumer" else _START
        for what, text in lines:
            rows.append([row, what, *(_own(kernel["own"].get(name), text) for kernel in kernels.values())])
    return table(["tool", "what", *kernels], rows)


def _own(figures: Figures | None, text: Any) -> str:  # noqa: ANN401 one of the functions below
    if figures is None:
        return "gap: not measured"
    return f"gap: {figures['gap']}" if "gap" in figures else text(figures)


def _an_event(figures: Figures) -> str:
    value = figures["an event"]
    return f"{value:,.0f}, {'met' if value <= CONSUMER else '**not met**'}"


_CONSUMER = (
    (f"instructions per event, from buffer to file, including system calls (limit: {CONSUMER})", _an_event),
    ("lost events in the longer run", lambda figures: f"{figures['lost']:,} of {figures['events']:,}"),
)
_START = (
    ("million instructions until capture starts", lambda figures: f"{figures['begins'] / 1e6:,.0f}"),
    ("… of which bcc's compiler", lambda figures: f"{figures['compiles'] / 1e6:,.0f}"),
    ("resident memory while recording, MiB", lambda figures: f"{figures['VmRSS'] / 1024:,.0f}"),
    ("… of which anonymous", lambda figures: f"{figures['RssAnon'] / 1024:,.0f}"),
    ("peak resident memory, MiB", lambda figures: f"{figures['VmHWM'] / 1024:,.0f}"),
)


def reading_table(figures: Figures) -> str:
    """Return the cost of reading, and the peers' costs as multiples of ours."""
    own, *peers = figures["reading"]
    return table(
        ["command", "events", "CPU time per event", "CPU time to start", f"multiple of ours (required: {READING})"],
        [_reading(one, own) for one in (own, *peers)],
    )


def _reading(one: Figures, own: Figures) -> list[str]:
    if one["gap"]:
        return [f"`{one['command']}`", f"gap: {one['gap']}", "", "", ""]
    cells = [f"`{one['command']}`", f"{one['events']:,}", f"{one['nanoseconds']:,.1f} ns", f"{one['start']:.2f} s"]
    if one is own:
        return [*cells, "1"]
    if own["gap"]:
        return [*cells, "gap: ours was not measured"]
    times = one["nanoseconds"] / own["nanoseconds"]
    return [*cells, f"{times:,.0f}, {'met' if times >= READING else '**not met**'}"]


def large_table(large: Figures) -> str:
    """Return the cost of reading a large trace: CPU time, and wall-clock time with one core and with all."""
    return table(
        [
            "command",
            "CPU time per event",
            f"events per second and core (`verify`: at least {LARGE:,})",
            "seconds, one core",
            "seconds, all cores",
            "resident MiB",
        ],
        [_large(name, figures) for name, figures in large["readers"].items()],
    )


def _large(name: str, figures: Figures) -> list[str]:
    rate = 1 / figures["cpu"]
    judged = f", {'met' if rate >= LARGE else '**not met**'}" if name == "verify" else ""
    return [
        name,
        f"{figures['cpu'] * 1e9:,.1f} ns",
        f"{rate:,.0f}{judged}",
        f"{figures['one core']:.1f}",
        f"{figures['all cores']:.1f}",
        f"{figures['memory'] / (1 << 20):,.0f}",
    ]


def starting_table(figures: Figures) -> str:
    """Return the duration of `decode`, compared with Python importing click."""
    starting = figures["starting"]
    return table(
        ["command", "median", f"multiple of the first (limit: {STARTING})"],
        [
            ["`python -c 'import click'`", f"{starting['click'] * 1e3:,.0f} ms", "1"],
            [
                "`kalloctrace decode 0xcc0`",
                f"{starting['decode'] * 1e3:,.0f} ms",
                met(starting["decode"] / starting["click"], STARTING),
            ],
        ],
    )


METHOD = """\
Guests run in QEMU's emulator with its instruction clock (`kalloctrace lab run --icount`): one nanosecond of the guest
is one instruction, so that figures are reproducible. They count instructions, not cache misses or waiting for locks;
each step of a string instruction counts as one. The guest has one processor. The work touches and frees anonymous
memory without huge pages, with one order-0 allocation per page, after a warm-up. A figure is the minimum of all rounds
with the tool, minus the minimum of all rounds without a tool in the same boot; the figure in brackets is the same of
the means, which include the tool's own work. A tool that captured nothing has no figure."""


def page(figures: Figures) -> str:
    """Return docs/performance.md."""
    return "\n\n".join(["# What tracing costs", "Written by `make bench`; do not edit.", *_sections(figures)]) + "\n"


def _sections(figures: Figures) -> Iterator[str]:
    kernels = ", ".join(f"{name}: {kernel['release']}" for name, kernel in figures["kernels"].items())
    yield f"Measured on {figures['date']}. Kernels: {kernels}. Tools: {', '.join(figures['tools'])}."
    yield "## The overhead of a traced allocation"
    yield f"Instructions that a tool adds to each allocation.\n\n{METHOD}"
    yield cost_table(figures)
    yield "As fractions of the peers' figures (among several rows the cheapest):"
    yield limits_table(figures)
    yield (
        "The bpftrace programs with equal information are [equal-fentry.bt](../tests/bench/equal-fentry.bt) and "
        "[equal-kprobe.bt](../tests/bench/equal-kprobe.bt)."
    )
    yield "## The recorder itself"
    yield (
        "Measured in the same boots. Instructions per event are the difference between a short and a long run, which "
        "excludes start and end. The recorder shares one processor with the work, which never waits for it. bcc keeps "
        "its compiler (LLVM) loaded; resident memory that is not anonymous consists of pages of such files, which the "
        "system can reclaim."
    )
    yield own_table(figures)
    yield "## Reading a recording"
    yield (
        "One guest recorded the same work with each tool, and the machine that wrote this page read each recording: "
        "minimum CPU time of three runs, output discarded. The time of reading a nearly empty recording is subtracted. "
        "`verify` read each of its traces a hundred times in one command."
    )
    yield reading_table(figures)
    large = figures["large"]
    yield (
        f"A trace of {large['events']:,} allocations ({large['size'] / large['events']:.1f} bytes each), on the same "
        f"machine with {large['cores']} cores; `python -m tests.bench.reading` also measures the other readers. "
        "The time of reading an empty trace is subtracted from CPU time."
    )
    yield large_table(large)
    yield "## Starting"
    yield "Medians on the machine that wrote this page."
    yield starting_table(figures)


def summary(figures: Figures) -> str:
    """Return the README's section."""
    introduction = (
        "Instructions that a tool adds to each allocation: the minimum of many rounds (in brackets the mean, which "
        "includes the tool's own work). `make bench` measures it in an emulator, without caches and waiting for locks."
    )
    more = "Limits, method, memory, reading and starting: [docs/performance.md](docs/performance.md)."
    return f"{introduction}\n\n{cost_table(figures)}\n\n{more}"
