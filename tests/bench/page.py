# SPDX-License-Identifier: MIT
"""docs/performance.md and the README's section, written from the figures of `make bench`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from kalloctrace.bench.tools import PERF_RECORD, PERF_STAT, Row
from tests.bench import limits
from tests.bench.rows import DEFAULT, FLOORS, OURS, PEERS, WATCHED
from tests.bench.tables import (
    EARLIER,
    Figures,
    cost_table,
    large_table,
    own_table,
    processors_table,
    reading_table,
    starting_table,
)
from tests.section import write_section

_ROOT = Path(__file__).resolve().parents[2]
PAGE = _ROOT / "docs" / "performance.md"
README = _ROOT / "README.md"
BEGIN = "<!-- what it costs: written by make bench -->"
END = "<!-- end of what it costs -->"

METHOD = """\
Guests run in QEMU's emulator with its instruction clock (`kalloctrace lab run --icount`): one nanosecond of the guest
is one instruction, so that figures are reproducible. They count instructions, not cache misses or waiting for locks;
each step of a string instruction counts as one. The guest has one processor. The work touches and frees anonymous
memory without huge pages, with one order-0 allocation per page, after a warm-up.

The untraced figure moves within a boot, as pages come from elsewhere (from 6.1 on by some 60 instructions). So the work
runs without a tool right before and right after each tool, and a figure is the smallest round with the tool, minus the
average of the smallest rounds of these two runs. The figure in brackets is the same of the means, which include the
tool's own work. A tool that captured nothing has no figure. A tool that is installed and does not run is not on this
kernel; the cell says why. {drift}"""


def write(figures: Figures) -> None:
    """Write the page and the README's section.

    Raises:
        KalloctraceError: the README lacks the markers of the section.
    """
    write_section(README, BEGIN, END, summary(figures))
    PAGE.write_text(page(figures), encoding="utf-8")


def page(figures: Figures) -> str:
    """Return docs/performance.md."""
    return "\n\n".join(["# What tracing costs", "Written by `make bench`; do not edit.", *_sections(figures)]) + "\n"


def _sections(figures: Figures) -> Iterator[str]:
    kernels = ", ".join(f"{name}: {one['release']} ({one['date']})" for name, one in figures["kernels"].items())
    yield f"Measured on {figures['date']}. Kernels: {kernels}. Tools: {', '.join(figures['tools'])}."
    yield "## The overhead of a traced allocation"
    yield f"Instructions that a tool adds to each allocation.\n\n{METHOD.format(drift=_drift(figures))}"
    yield cost_table(figures)
    yield from _earlier(figures)
    yield (
        "`kalloctrace` without an attachment chooses one; `one:` and `pair:` are what `--attach` takes. The empty "
        "programs do nothing, at `get_page_from_freelist` (one) or at the entry function too (both): no tracer that is "
        "attached there can cost less. fentry loses calls where the kernel can be preempted (6.17 and later). Work "
        "that `record` starts costs some 30 instructions less than work beside it (apart); `live` is always beside it."
    )
    yield (
        "The bpftrace programs with equal information are [equal-fentry.bt](../tests/bench/equal-fentry.bt) and "
        "[equal-kprobe.bt](../tests/bench/equal-kprobe.bt)."
    )
    yield "## Limits"
    yield "Everything captured, only figures of one boot compared; in brackets the figure and the most that it may be."
    yield limits.limits_table(figures)
    yield "## The recorder itself"
    dates = ", ".join(sorted({kernel["own_date"] for kernel in figures["kernels"].values() if kernel["own"]}))
    yield (
        f"Measured on {dates}. Instructions per event are the difference between a short and a long run, which "
        "excludes start and end. The recorder shares one processor with the work, which never waits for it. bcc keeps "
        "its compiler (LLVM) loaded; resident memory that is not anonymous consists of pages of such files, which the "
        "system can reclaim."
    )
    yield own_table(figures)
    if "processors" in figures:
        yield "## Many processors"
        (release,) = {one["release"] for one in figures["processors"]}
        yield (
            f"`make bench-processors` recorded one process with a thread on each processor, on {release}, while `perf "
            "stat` counted the allocations of the same process. Captured and counted must be equal. Memory is the "
            "recorder's, while it recorded: its BPF maps, as the kernel charges them, and its resident memory, which "
            "includes the pages of those maps that it has read, and the compiler."
        )
        yield processors_table(figures["processors"])
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


def _earlier(figures: Figures, rows: Sequence[Row] = (*PEERS, *FLOORS, *OURS)) -> Iterator[str]:
    """Return what the mark of earlier figures means, if these rows have any."""
    found = [kernel["rows"].get(row.name, {}) for kernel in figures["kernels"].values() for row in rows]
    dates = sorted({row["date"] for row in found if "date" in row})
    if dates:
        yield (
            f"{EARLIER} Measured on {', '.join(dates)} in another boot, and compared with the smallest round (in "
            "brackets: the mean) of all untraced runs of that boot. These tools have not changed."
        )


def _drift(figures: Figures) -> str:
    """Return how far these two runs differed, as a sentence."""
    found = [
        row["drift"]
        for kernel in figures["kernels"].values()
        for row in kernel["rows"].values()
        if not row["gap"] and "date" not in row
    ]
    return f"Here these two differed by at most {max(found):,.0f}, on average by {sum(found) / len(found):,.1f}."


def summary(figures: Figures) -> str:
    """Return the README's section."""
    introduction = (
        "Instructions that a tool adds to each allocation: the smallest of many rounds (in brackets the mean, which "
        "includes the tool's own work), without caches and waiting for locks."
    )
    more = (
        "`make bench` measures it in an emulator, `kalloctrace bench` on your machine. Limits, method, all tools and "
        "kernels: [docs/performance.md](docs/performance.md)."
    )
    rows = (PERF_STAT, PERF_RECORD, *DEFAULT, *WATCHED)
    shown = {**figures, "kernels": {name: figures["kernels"][name] for name in _SHOWN if name in figures["kernels"]}}
    return f"{introduction}\n\n{cost_table(shown, rows)}\n\n{' '.join([more, *_earlier(shown, rows)])}"


_SHOWN = ("5.10", "6.12", "7.3")
