# SPDX-License-Identifier: MIT
"""The figures of `make bench` as Markdown tables; limits.py compares those of an allocation with their limits."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kalloctrace.bench.tools import Row
from tests.bench.rows import FLOORS, OURS, PEERS

Figures = Mapping[str, Any]
"""The content of recorded.json."""

EARLIER = "¹"
"""Marks a row that has a date of its own: it was compared with the smallest of all untraced rounds of its boot."""

CONSUMER = 400
"""Limit: instructions of a recorder per event, from the buffer to the file."""
READING = 100
"""Limit: CPU time per event of the peers' readers, as a multiple of that of `verify`."""
LARGE = 20_000_000
"""Limit: events per second and core that `verify` must read."""
STARTING = 2.5
"""Limit: the duration of `decode`, as a multiple of Python importing click."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def met(value: float, limit: float) -> str:
    """Return a value, and whether it meets its limit."""
    return f"{value:.2f}, {'met' if value <= limit else '**not met**'}"


def cost_table(figures: Figures, rows: Sequence[Row] = (*PEERS, *FLOORS, *OURS)) -> str:
    """Return the overhead of tools per allocation, one column per kernel.

    Args:
        figures: of all kernels.
        rows: the tools.
    """
    kernels = figures["kernels"]
    bare = [f"{kernel['untraced']['least']:,.0f}" for kernel in kernels.values()]
    cells = [["(none: the allocation itself)", "", *bare]]
    cells += [
        [_name(row), row.gets, *(_cost(kernel["rows"].get(row.name)) for kernel in kernels.values())] for row in rows
    ]
    return table(["tool", "what it captures", *kernels], cells)


def _name(row: Row) -> str:
    return f"**{row.name}**" if row in OURS else row.name


def _cost(cost: Figures | None) -> str:
    if cost is None:
        return "not measured"
    if cost["gap"]:
        return str(cost["gap"])
    lost = f", lost {cost['lost'] / (cost['lost'] + cost['captured']):.1%}" if cost["lost"] else ""
    return f"{cost['least']:,.0f} ({cost['mean']:,.0f}{lost}){EARLIER if 'date' in cost else ''}"


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
        return "not measured"
    return str(figures["gap"]) if "gap" in figures else text(figures)


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


def processors_table(measured: Iterable[Figures]) -> str:
    """Return, by number of processors and mode, whether everything was captured, and the recorder's memory."""
    return table(
        ["processors", "mode", "counted", "captured", "lost", "missed", "maps, MiB", "resident, MiB", "… anonymous"],
        [[f"{one['cpus']}", mode, *_processors(one[mode])] for one in measured for mode in ("aggregate", "stream")],
    )


def _processors(figures: Figures) -> list[str]:
    counted, captured = figures["counted"], figures["captured"]
    difference = "equal" if counted == captured else f"**{captured - counted:+,}**"
    return [
        f"{counted:,}",
        f"{captured:,}, {difference}",
        f"{figures['lost']:,}",
        f"{figures['missed']:,}",
        f"{figures['maps'] / (1 << 20):,.1f}",
        f"{figures['VmRSS'] / 1024:,.0f}",
        f"{figures['RssAnon'] / 1024:,.0f}",
    ]


def reading_table(figures: Figures) -> str:
    """Return the cost of reading, and the peers' costs as multiples of ours."""
    own, *peers = figures["reading"]
    return table(
        ["command", "events", "CPU time per event", "CPU time to start", f"multiple of ours (required: {READING})"],
        [_reading(one, own) for one in (own, *peers)],
    )


def _reading(one: Figures, own: Figures) -> list[str]:
    if one["gap"]:
        return [f"`{one['command']}`", one["gap"], "", "", ""]
    cells = [f"`{one['command']}`", f"{one['events']:,}", f"{one['nanoseconds']:,.1f} ns", f"{one['start']:.2f} s"]
    if one is own:
        return [*cells, "1"]
    if own["gap"]:
        return [*cells, "ours was not measured"]
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
