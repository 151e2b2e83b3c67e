# SPDX-License-Identifier: MIT
"""The facts of a machine that a measured time depends on."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@dataclass(frozen=True)
class Machine:
    """A machine, as far as times depend on it.

    Attributes:
        release: `uname -r`.
        processor: its model; "" if unknown.
        cpus: that are online.
        governor: of the frequency; None if the system does not set it.
        virtual: a hypervisor runs the kernel.
    """

    release: str
    processor: str
    cpus: int
    governor: str | None
    virtual: bool


def this_machine() -> Machine:
    """Return the facts of this machine."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    model = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    governor = _GOVERNOR.read_text(encoding="utf-8").strip() if _GOVERNOR.exists() else None
    virtual = re.search(r"^flags\s*:.*\bhypervisor\b", text, re.MULTILINE) is not None
    return Machine(os.uname().release, model[1].strip() if model else "", os.cpu_count() or 1, governor, virtual)
