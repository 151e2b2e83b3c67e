# SPDX-License-Identifier: MIT
"""Logs with the newest line first, and logs that have each line twice."""

import pytest

from kalloctrace.logs.blocks import blocks
from kalloctrace.logs.messages import read_messages
from kalloctrace.logs.newest_first import in_order

FAILURE = "{}: page allocation failure: order:2, mode:0xcc0(GFP_KERNEL), nodemask=(null),cpuset=/,mems_allowed=0"
TASK = "CPU: 3 PID: 1108 Comm: {} Not tainted 6.1.100 #1"
ZONES = [
    line
    for zone in ("DMA32", "Normal")
    for line in (f"Node 0 {zone} free:5000kB min:4000kB low:5000kB high:6000kB", "lowmem_reserve[]: 0 0 0")
]
BLOCKS = ["Node 0 DMA32: 1250*4kB (U) = 5000kB", "Node 0 Normal: 1250*4kB (U) = 5000kB", "1000 pages RAM"]
OOM = [
    "{} invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
    "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
    "[    700]     0   700     5000      900    40960        0             0 sshd",
    "Memory cgroup out of memory: Killed process 700 ({}) total-vm:20000kB, anon-rss:3600kB",
]


def report(comm: str, parts: list[str] | None = None) -> list[str]:
    """Return the lines of a report, oldest first."""
    whole = [FAILURE, TASK, "Mem-Info:", *ZONES, *BLOCKS] if parts is None else parts
    return [line.format(comm) for line in whole]


def read(lines: list[str]) -> list[str]:
    """Return the texts of the messages."""
    return [message.text for message in read_messages(lines)]


@pytest.mark.parametrize("parts", [None, OOM], ids=["zones", "tasks"])
def test_newest_first(parts: list[str] | None) -> None:
    """Each report is turned round, the newest first; each line keeps its number."""
    old, new = report("old", parts), report("new", parts)
    lines = ["eth0: link up", *new[::-1], "eth0: link down", *old[::-1], "eth0: link lost"]
    assert [text for text in read(lines) if "eth0" not in text] == [*new, *old]
    numbers = {message.text: message.line for message in read_messages(lines)}
    assert (numbers[new[0]], numbers[old[0]]) == (1 + len(new), 2 + len(new) + len(old))


@pytest.mark.parametrize("parts", [None, OOM], ids=["zones", "tasks"])
def test_oldest_first(parts: list[str] | None) -> None:
    """Also where the first lines are cut off, whichever line is the first, and the last ones."""
    lines = report("old", parts) * 3
    for begin in range(len(lines) // 3 + 1):
        for end in (len(lines), len(lines) - 2):
            assert read(lines[begin:end]) == lines[begin:end]


def test_only_what_is_turned_is_turned() -> None:
    """A run of lines has its own order; one whose order is open stays as it is."""
    quiet = ["systemd[1]: Started a unit."] * 300
    lines = [*report("a")[::-1], *quiet, *report("b")]
    turned = [line for block in in_order(blocks(lines)) for line in block.lines]
    assert [line for line in turned if line not in quiet] == [*report("a"), *report("b")]
    headless = ZONES[::-1] * 200
    assert [line for block in in_order(blocks(headless)) for line in block.lines] == headless


def test_a_report_without_an_end_is_turned_in_parts() -> None:
    """Memory is constant."""
    lines = [*report("a")[::-1], *("kB" for _ in range(10_000))]
    sizes = [len(block.lines) for block in in_order(blocks(lines))]
    assert max(sizes) <= 4096
    assert sum(sizes) == len(lines)


def test_each_line_twice() -> None:
    """As two daemons print it, with the time since boot or without; it does not matter where a block of lines ends."""
    lines = [f"[{100 + at / 100:12.6f}] {line}" for at, line in enumerate(report("a") * 30)]
    bare = [f"Mar  5 10:00:00 box kernel: {line}" for line in lines]
    short = [f"Mar  5 10:00:00 box kernel: {line[15:]}" for line in lines]
    expected = report("a") * 30
    for one, other in ((lines, lines), (bare, short), (short, bare)):
        for before in ([], ["hello"]):
            twice = [each for pair in zip(one, other, strict=True) for each in pair]
            messages = [message for message in read_messages([*before, *twice]) if message.text != "hello"]
            assert [message.text for message in messages] == expected
            # A line at the end of a block may be the one without.
            assert sum(message.time is None for message in messages) * 64 <= len(twice)


def test_some_alike_lines_are_not_each_line_twice() -> None:
    """Several CPUs that fail at once print some."""
    lines = [FAILURE.format("a")] * 6 + report("a")[1:]
    assert read(lines) == lines
