# SPDX-License-Identifier: MIT
"""The figures of `make bench` as Markdown, and held against what is demanded of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.rows import OURS, PEERS, WATCHED, Row

Figures = Mapping[str, Any]
"""What run.py wrote into recorded.json."""

CONSUMER = 400
"""Instructions that a recorder may take for an event, from the buffer it lies in all the way into the file."""
READING = 100
LARGE = 20_000_000
"""How many times the CPU time of `verify` the peers' readers are to take for an event."""
SAME = 0.02
"""By how much two measurements of the same differ."""
STARTING = 2.5
"""How many times the start of Python with click alone `decode` may take."""


@dataclass(frozen=True)
class Limit:
    """What a row of ours may cost at most.

    Attributes:
        mode: the mode that it holds for.
        factor: the part of the peer's figure.
        peers: beginning of the peer's name; of several rows that are here the cheapest counts.
        aim: whether it is an aim rather than a demand.
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
    """Return a value beside its limit, and in words whether it keeps to it."""
    return f"{value:.2f}, {'met' if value <= limit else '**not met**'}"


def cost_table(figures: Figures) -> str:
    """Return what each tool adds to an allocation, a column a kernel."""
    kernels = figures["kernels"]
    bare = [f"{kernel['untraced']['least']:,.0f}" for kernel in kernels.values()]
    rows = [["(none: what an allocation takes)", "", *bare]]
    rows += [
        [_name(row), row.gets, *(_cost(kernel["rows"].get(row.name)) for kernel in kernels.values())]
        for row in (*PEERS, *OURS, *WATCHED)
    ]
    return table(["tool", "what it gets", *kernels], rows)


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
    """Return our rows as parts of the peers' figures, and whether they keep to what is demanded."""
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
    """Return what the recorder itself takes: for an event, to start, and of memory."""
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
    (f"instructions an event, from buffer to file, system calls too (limit: {CONSUMER})", _an_event),
    ("events lost of those of the longer run", lambda figures: f"{figures['lost']:,} of {figures['events']:,}"),
)
_START = (
    ("million instructions until capture begins", lambda figures: f"{figures['begins'] / 1e6:,.0f}"),
    ("… of these bcc's compiler", lambda figures: f"{figures['compiles'] / 1e6:,.0f}"),
    ("resident memory while it records, MiB", lambda figures: f"{figures['VmRSS'] / 1024:,.0f}"),
    ("… of that its own (anonymous)", lambda figures: f"{figures['RssAnon'] / 1024:,.0f}"),
    ("resident memory at most, MiB", lambda figures: f"{figures['VmHWM'] / 1024:,.0f}"),
)


def reading_table(figures: Figures) -> str:
    """Return what reading takes, and how many times ours the others take."""
    own, *peers = figures["reading"]
    return table(
        ["command", "events", "CPU time an event", "CPU time to start", f"times ours (demanded: {READING})"],
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
    """Return what reading a large trace takes: CPU, and the clock with one core and with all."""
    return table(
        [
            "command",
            "CPU time an event",
            f"events a second a core (`verify`: at least {LARGE:,})",
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
    """Return what `decode` takes beside Python with click."""
    starting = figures["starting"]
    return table(
        ["command", "median", f"times the first (limit: {STARTING})"],
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
Guests run in QEMU's emulator under its instruction clock (`kalloctrace lab run --icount`): a nanosecond of the guest's
is an instruction, so that figures repeat. They count instructions, not cache misses, nor waiting for locks; each step
of a string instruction counts as one. There is one processor. The work touches and gives back anonymous memory, without
huge pages, one order-0 allocation a page, and is warmed up first. A figure is the least of all rounds under the tool,
minus the least of all rounds without any in the same boot; in brackets the same of the means, in which what the tool
itself does meanwhile is included. A tool that captured nothing has no figure."""


def page(figures: Figures) -> str:
    """Return docs/performance.md."""
    return "\n\n".join(["# What tracing costs", "Written by `make bench`; do not edit.", *_sections(figures)]) + "\n"


def _sections(figures: Figures) -> Iterator[str]:
    kernels = ", ".join(f"{name}: {kernel['release']}" for name, kernel in figures["kernels"].items())
    yield f"Measured on {figures['date']}. Kernels: {kernels}. Tools: {', '.join(figures['tools'])}."
    yield "## An allocation that is traced"
    yield f"Instructions that a tool adds to each allocation.\n\n{METHOD}"
    yield cost_table(figures)
    yield "As parts of the peers' figures (of several rows the cheapest):"
    yield limits_table(figures)
    yield (
        "The program of equal information is [equal-fentry.bt](../tests/bench/equal-fentry.bt) and "
        "[equal-kprobe.bt](../tests/bench/equal-kprobe.bt)."
    )
    yield "## The recorder itself"
    yield (
        "In the same boots. Instructions an event are the difference between a short run and a long one, so that start "
        "and end are not in it. One processor is shared with the work, which never waits for it. bcc keeps its "
        "compiler (LLVM) loaded; what is resident and not its own are pages of such files, which the system may take "
        "back."
    )
    yield own_table(figures)
    yield "## Reading a recording"
    yield (
        "One guest recorded the same work with each tool, and each recording was read on the machine that made this "
        "page: CPU time, least of three, output to nowhere. The time of reading next to no events is subtracted. "
        "`verify` read its trace, and that with next to none, a hundred times in one command."
    )
    yield reading_table(figures)
    large = figures["large"]
    yield (
        f"A trace of {large['events']:,} allocations ({large['size'] / large['events']:.1f} bytes each), on the same "
        f"machine with {large['cores']} cores; `python tests/bench/reading.py` prints this for the other readers too. "
        "The time of reading none is subtracted from CPU time."
    )
    yield large_table(large)
    yield "## Starting"
    yield "On the machine that made this page, medians."
    yield starting_table(figures)


def summary(figures: Figures) -> str:
    """Return the README's section."""
    said = (
        "Instructions that a tool adds to each allocation, smallest of many rounds (in brackets the mean, with what "
        "the tool itself does meanwhile). `make bench` measures it in an emulator: no caches, and no waiting for locks."
    )
    more = "Limits, method, memory, reading and starting: [docs/performance.md](docs/performance.md)."
    return f"{said}\n\n{cost_table(figures)}\n\n{more}"
