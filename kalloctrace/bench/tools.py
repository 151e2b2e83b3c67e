# SPDX-License-Identifier: MIT
"""The compared tools: how each traces some work, and how to count what it captured.

In a command `{work}` stands for the words of the work, `{work-text}` for the work as one word, and `{out}` for an
output file.
"""

import re
from dataclasses import dataclass

EVENT = "kmem:mm_page_alloc"
BPFTRACE_COUNT = r"^@.*: (\d+)$"


class Gap(Exception):  # noqa: N818  (the tables call it a gap)
    """A tool is not installed, fails, or captures nothing."""


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


def ours(mode: str, attach: str = "auto", by: str | None = None) -> Row:
    """Return a row of `kalloctrace record`.

    Args:
        mode: `--mode`.
        attach: `--attach`; with "auto" it chooses how to attach.
        by: `--by`.
    """
    counted_by = () if by is None else ("--by", by)
    told = [f"kalloctrace {mode}", *([] if attach == "auto" else [attach]), *([] if by is None else [f"by {by}"])]
    return Row(
        ", ".join(told),
        "everything",
        mode,
        ("kalloctrace", "record", "-f", "-o", "{out}", "--mode", mode, "--attach", attach, *counted_by, "--", "{work}"),
        r"^([\d,]+) allocations in",
        lost=r"lost (\d+), missed",
    )


PERF_STAT = Row(
    "perf stat",
    "a count",
    "count",
    ("perf", "stat", "-x", ";", "-e", EVENT, "-a", "--", "{work}"),
    rf"^(\d+);;{EVENT}",
)
PERF_RECORD = Row(
    "perf record",
    "gfp, order, migratetype, pfn",
    "stream",
    # -B: what it does at the end, to find the files of the samples, takes a minute in a guest.
    ("perf", "record", "-B", "-o", "{out}", "-e", EVENT, "-a", "--", "{work}"),
    rf"^{EVENT} stats:\n +SAMPLE events: +(\d+)",
    counter=("perf", "report", "-i", "{out}", "--stats"),
)
BPFTRACE = Row(
    "bpftrace tracepoint",
    "gfp, order",
    "aggregate",
    (
        *("bpftrace", "-c", "{work-text}", "-e"),
        f"tracepoint:{EVENT} {{ @[args->gfp_flags, args->order] = count(); }}",
    ),
    BPFTRACE_COUNT,
)


def numbers(pattern: str | None, text: str) -> int:
    """Return the sum of the numbers that a pattern matches in a text; a match without a number counts as one."""
    found = re.findall(pattern, text, re.MULTILINE) if pattern else []
    return sum(int(number.replace(",", "")) if number else 1 for number in found)


_SIGN = re.compile(r"error|fatal|cannot|does not|unable|not supported", re.IGNORECASE)
_SHOUTED = re.compile(r"^(?:.*\b(?:fatal(?: error)?|error|warning)\b: *)+", re.IGNORECASE)


def reason(text: str) -> str:
    """Return the line of a tool's output with the error, without words such as `FATAL:` or the place in its program.

    That is the first line that mentions an error, or the last.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["it printed nothing"]
    found = next((line for line in lines if _SIGN.search(line)), lines[-1])
    return _SHOUTED.sub("", found) or found
