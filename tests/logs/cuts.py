# SPDX-License-Identifier: MIT
"""Parts of a log as people paste them: a ring buffer that lost its start, a limit on length, grep, a screenshot."""

import re
from collections.abc import Iterator, Sequence

KINDS = {
    "the task's line": r"CPU: \d+ |Pid: \d",
    "the cpuset's line": r"\S+ cpuset=",
    "the call trace": r"Call Trace:| .*\+0x",
    "Mem-Info": r"Mem-Info:",
    "the totals": r"active_anon|\ (?:active|unevictable|slab|mapped|free|sec_)",
    "the node's line": r"Node \d+ active_anon",
    "the zones": r"Node \d+ \w+ free:",
    "lowmem_reserve": r"lowmem_reserve",
    "the free lists": r"Node \d+ \w+: ",
    "swap": r"Free swap|Total swap|\d+ pages in swap",
    "pages": r"\d+ (?:total )?page",
    "the tasks": r"\[ *\d+\] ",
    "the table's head": r"Tasks state|\[ *pid",
    "the kill": r"oom-kill:|Out of memory|Killed process",
}
"""Kinds of lines, by what they begin with."""


def cuts(lines: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield parts of a report, each with what was done to it; the first line is always there.

    Args:
        lines: the report, without a prefix.
    """
    given = list(lines)
    for count in range(1, len(given), 2):
        yield f"the first {count} lines", given[:count]
    for count in range(2, len(given), 2):
        yield f"the first line and those from {count + 1}", [given[0], *given[count:]]
    for number in range(1, len(given)):
        yield f"all but line {number + 1}", given[:number] + given[number + 1 :]
    for name, pattern in KINDS.items():
        kind = re.compile(pattern)
        yield f"all but {name}", [line for number, line in enumerate(given) if number == 0 or not kind.match(line)]
        yield f"only {name}", [line for number, line in enumerate(given) if number == 0 or kind.match(line)]
    yield "lines with Node", [line for number, line in enumerate(given) if number == 0 or "Node" in line]
    for width in (80, 100, 120, 132, 160, 200, 256):
        yield f"{width} columns", [line[:width] for line in given]
    whole = "\n".join(given)
    for end in range(len(given[0]) + 1, len(whole), 61):
        yield f"the first {end} characters", whole[:end].split("\n")


def headless(lines: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield parts of a report without its first line."""
    for count in range(1, len(lines), 2):
        yield f"from line {count + 1}", list(lines[count:])
