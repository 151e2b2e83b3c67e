# SPDX-License-Identifier: MIT
"""Whether tasks can be preempted in kernel code, which decides the attachment that misses no call."""

import re
from dataclasses import dataclass
from pathlib import Path

MODE = Path("/sys/kernel/debug/sched/preempt")
"""The preemption modes of a PREEMPT_DYNAMIC kernel, with the active one in parentheses.

Linux kernel commit e59e10f8ef63 ("sched: Add /debug/sched_preempt") (in v5.13), here since
8a99b6833c88 ("sched: Move SCHED_DEBUG sysctl to debugfs") (in v5.13).
"""

_PREEMPTIBLE_MODES = frozenset({"full", "lazy"})


@dataclass(frozen=True)
class Preemption:
    """Whether a task in kernel code can be preempted by another task, and the evidence."""

    preemptible: bool
    evidence: str


def preemption(version: str, mode: str | None, *, rt: bool) -> Preemption:
    """Return whether a kernel is preemptible.

    PREEMPT_RT and the active mode decide. If the mode cannot be read, `uname -v` shows how the kernel was built
    (init/Makefile adds CONFIG_PREEMPT_BUILD, PREEMPT_DYNAMIC and PREEMPT_RT): a kernel without PREEMPT is not
    preemptible, and any other one is assumed to be. Symbols do not help: PREEMPT_DYNAMIC kernels have the functions of
    all modes.

    Args:
        version: `uname -v`.
        mode: the content of `MODE`; None if it cannot be read.
        rt: whether the kernel was built with CONFIG_PREEMPT_RT.
    """
    if rt:
        return Preemption(preemptible=True, evidence="PREEMPT_RT")
    active = re.search(r"\((\w+)\)", mode or "")
    if active:
        return Preemption(active[1] in _PREEMPTIBLE_MODES, f"{MODE} says {active[1]}")
    built = next((word for word in version.split() if word.startswith("PREEMPT")), None)
    if built is None:
        return Preemption(preemptible=False, evidence="the version names no PREEMPT")
    return Preemption(preemptible=True, evidence=f"the version names {built}, and {MODE} cannot be read")


def read_preemption(version: str, *, rt: bool) -> Preemption:
    """Return whether the running kernel is preemptible; arguments as of `preemption`."""
    try:
        mode = MODE.read_text()
    except OSError:
        mode = None
    return preemption(version, mode, rt=rt)
