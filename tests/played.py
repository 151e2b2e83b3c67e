# SPDX-License-Identifier: MIT
"""A small recorded stream for tests of `live`: tasks, stacks, and a call with a mismatch."""

from pathlib import Path
from typing import Any

from tests.traces import source, stream

FAULT = "entry_SYSCALL_64;asm_exc_page_fault;handle_mm_fault;alloc_pages_vma;__alloc_pages_nodemask"
FORK = "do_syscall_64;kernel_clone;copy_process;__alloc_pages_nodemask"
SECOND = 1_000_000_000


def calls(*, wrong: bool = False) -> list[dict[str, Any]]:
    """Return 10, 20 and 6 calls of three seconds, from two tasks; with `wrong` the last has wrong alloc_flags."""
    _, _, row = source()
    begin = 5 * SECOND
    python = {"comm": "python", "pid": 70, "tid": 70, "stack": FAULT}
    shell = {"comm": "sh", "pid": 71, "tid": 71, "stack": FORK}
    made = [{**python, "time": begin + i * SECOND // 10} for i in range(10)]
    made += [{**python, "time": begin + SECOND + i * SECOND // 20} for i in range(15)]
    made += [{**shell, "time": begin + SECOND + i * SECOND // 20} for i in range(5)]
    made += [{**shell, "time": begin + 2 * SECOND + i * SECOND // 10} for i in range(6)]
    if wrong:
        made[-1] |= {"alloc_flags": row["alloc_flags"] ^ 0x800}
    return made


def trace(path: Path, *, wrong: bool = False) -> Path:
    """Write these calls as a stream."""
    return stream(path, *calls(wrong=wrong), recording={"stacks": True})


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now
