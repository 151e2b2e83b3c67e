# SPDX-License-Identifier: MIT
"""The page size of the kernel that printed a log, which most reports do not name."""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from kalloctrace.diagnose.reports.model import LoggedFailure

PAGE_KB = 4
"""The page size of x86_64 in kB, and the one that is assumed where nothing shows another."""

PAGE_SIZES_KB = (4, 8, 16, 64)
"""What kernels use: 8 on alpha and sparc64; 16 on arm64, mips and loongarch; 64 on arm64 and powerpc."""


class PageSize(NamedTuple):
    """The page size in kB, and how it is known; `unknown` is an assumption."""

    kilobytes: int
    certainty: Literal["certain", "likely", "unknown"]


KNOWN = PageSize(PAGE_KB, "certain")
"""That of x86_64."""

_X86 = re.compile(r"x86_64|amd64|i[3-6]86|(?<![a-z])(?:686|586)(?![a-z])")
_FLAVOURS = (
    (re.compile(r"(?<![\d.])64k(?![a-z0-9])|64kb"), 64),
    (re.compile(r"(?<![\d.])16k(?![a-z0-9])|asahi|rpi-2712"), 16),
    # Red Hat's arm64 kernels have pages of 4 kB from release 9 on.
    (re.compile(r"el[78].*aarch64|ppc64|powerpc64"), 64),
    (re.compile(r"sparc64|alpha"), 8),
)


def page_size(logged: LoggedFailure, given: int | None = None) -> PageSize:
    """Return the page size of a report's kernel.

    The lists of free blocks show it; so do counters that are printed both in pages and in kB, such as the address space
    of the process that the OOM killer killed. The names of some kernels' flavours make one likely. Files of /proc print
    pages, and do not show their size.

    Args:
        logged: the report.
        given: the page size in kB, if the user names it.
    """
    if logged.in_pages:
        return PageSize(given or PAGE_KB, "unknown" if given is None else "certain")
    listed = next((zone.blocks[0].size for zone in logged.zones if zone.blocks), None)
    if listed:
        return PageSize(listed, "certain")
    if given is not None:
        return PageSize(given, "certain")
    counted = next(_by_counters(logged), None)
    if counted is not None:
        return PageSize(counted, "certain")
    release = logged.release.release.lower() if logged.release is not None else ""
    if _X86.search(release):
        return KNOWN
    flavour = next((size for pattern, size in _FLAVOURS if pattern.search(release)), None)
    return PageSize(PAGE_KB, "unknown") if flavour is None else PageSize(flavour, "likely")


_ENOUGH = 64
"""Pages of a counter below which two numbers may agree by chance."""


def _by_counters(logged: LoggedFailure) -> Iterator[int]:
    """Yield the page sizes by which a total in pages is exactly the sum of its parts in kB."""
    free = [zone.kilobytes["free"] for zone in logged.zones if "free" in zone.kilobytes]
    sums = [("free", sum(free))] if len(free) == len(logged.zones) else []
    for name in ("active_anon", "inactive_anon", "active_file", "inactive_file", "unevictable"):
        parts = [node[name] for node in logged.nodes.values() if name in node]
        parts = parts or [zone.kilobytes[name] for zone in logged.zones if name in zone.kilobytes]
        sums.append((name, sum(parts)))
    counted = [(logged.totals.get(name, 0), kilobytes) for name, kilobytes in sums]
    killed = logged.killed
    if killed is not None and killed.total_vm_kb is not None:
        # A memory cgroup's report has nothing else.
        counted += [(task.total_vm_pages, killed.total_vm_kb) for task in logged.tasks if task.pid == killed.pid]
    for pages, kilobytes in counted:
        yield from (size for size in PAGE_SIZES_KB if pages >= _ENOUGH and kilobytes == pages * size)
