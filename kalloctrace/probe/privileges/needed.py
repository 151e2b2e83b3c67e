# SPDX-License-Identifier: MIT
"""Which capabilities suffice, instead of root, to record on this kernel, as `tests/live/capabilities.py` finds out."""

import os
import resource
from contextlib import suppress
from pathlib import Path

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.live import LiveKernel
from kalloctrace.probe.privileges.capabilities import Capability

_PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
_PERFMON_PARANOID = 2
"""The highest setting of the kernel itself. With Debian's higher ones (security-perf-allow-further-restriction-of-
perf_event_open.patch), CAP_PERFMON is not enough; 3 is its default."""

_IN_SYS_ADMIN = frozenset({Capability.BPF, Capability.PERFMON})
"""Capabilities that CAP_SYS_ADMIN includes: bpf_capable() and perfmon_capable() in include/linux/capability.h."""


def sufficient_capabilities(kernel: LiveKernel) -> dict[Capability, str]:
    """Return the capabilities that suffice together, and none of which can be left out, each with its purpose.

    Args:
        kernel: the running kernel.
    """
    needed = {
        Capability.DAC_OVERRIDE: "tracefs and /proc/kcore belong to root",
        Capability.SYS_RAWIO: "/proc/kcore",
        Capability.SYSLOG: "addresses in /proc/kallsyms",
    }
    paranoid = perf_event_paranoid()
    if paranoid > _PERFMON_PARANOID:
        needed[Capability.SYS_ADMIN] = f"kernel.perf_event_paranoid is {paranoid}; up to 2, cap_bpf and cap_perfmon do"
    else:
        needed |= {Capability.PERFMON: "tracing programs and perf events", Capability.BPF: "BPF programs and maps"}
    if _locks_memory(kernel):
        needed[Capability.SYS_RESOURCE] = "BPF maps count as locked memory here"
    return needed


def missing_capabilities(kernel: LiveKernel, effective: frozenset[Capability]) -> list[Capability]:
    """Return those of the sufficient capabilities that are not in effect, nor included in one that is."""
    included = _IN_SYS_ADMIN if Capability.SYS_ADMIN in effective else frozenset()
    # These files belong to root.
    owned = {Capability.DAC_OVERRIDE} if os.geteuid() == 0 else set()
    return [one for one in sufficient_capabilities(kernel) if one not in effective | included | owned]


def perf_event_paranoid() -> int:
    """Return kernel.perf_event_paranoid; the least strict setting if the kernel has none."""
    try:
        return int(_PARANOID.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return -1


def _locks_memory(kernel: LiveKernel) -> bool:
    """Return whether the limit of locked memory, which only CAP_SYS_RESOURCE can raise, holds for BPF maps.

    Linux kernel commit 80ee81e0403c ("bpf: Eliminate rlimit-based memory accounting infra for bpf maps") (in v5.11).
    """
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] == resource.RLIM_INFINITY:
        return False
    with suppress(KalloctraceError, OSError):
        return kernel.btf.has_member("bpf_map", "memory")
    return False
