# SPDX-License-Identifier: MIT
"""Whether tasks can be preempted inside the kernel: it decides which attachment misses nothing."""

import re
from dataclasses import dataclass
from pathlib import Path

MODE = Path("/sys/kernel/debug/sched/preempt")
"""Which of the modes that PREEMPT_DYNAMIC offers is in force, in parentheses.

Linux kernel commit e59e10f8ef63 ("sched: Add /debug/sched_preempt") (in v5.13), here since
8a99b6833c88 ("sched: Move SCHED_DEBUG sysctl to debugfs") (in v5.13).
"""

_PREEMPTIBLE_MODES = frozenset({"full", "lazy"})


@dataclass(frozen=True)
class Preemption:
    """Whether a task inside the kernel can lose its CPU to another one, and where that was seen."""

    preemptible: bool
    evidence: str


def preemption(version: str, mode: str | None, *, rt: bool) -> Preemption:
    """Decide it from what a kernel shows.

    PREEMPT_RT and the mode in force are facts. Where the mode cannot be read, the version says how the kernel was
    built: a build without preemption names none (init/Makefile puts CONFIG_PREEMPT_BUILD, PREEMPT_DYNAMIC and
    PREEMPT_RT there), and any other can be preempted for all that is known. No symbol tells: builds with
    PREEMPT_DYNAMIC have the functions of every mode.

    Args:
        version: as `uname -v` prints it.
        mode: the content of `MODE`, None where it cannot be read.
        rt: the kernel was built with CONFIG_PREEMPT_RT.
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
    """Decide it for the running kernel; the arguments are those of `preemption`."""
    try:
        mode = MODE.read_text()
    except OSError:
        mode = None
    return preemption(version, mode, rt=rt)
