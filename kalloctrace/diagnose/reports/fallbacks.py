# SPDX-License-Identifier: MIT
"""Which report follows from the one before it."""

from collections.abc import Iterable, Iterator

from kalloctrace.diagnose.reports.model import LoggedFailure

_SECONDS, _LINES = 0.01, 5
"""How near two reports of one request are: in seconds if both have a time, else in lines."""


def with_fallbacks(reports: Iterable[LoggedFailure]) -> Iterator[LoggedFailure]:
    """Yield the reports; a WARNING right after a failed CMA request gets the number of its pages.

    `dma_alloc_contiguous` returns NULL if `cma_alloc` fails, and its callers then ask the page allocator for the same
    number of pages: kernel/dma/direct.c and kernel/dma/contiguous.c of Linux 4.16 to 7.3.
    """
    before: LoggedFailure | None = None
    for report in reports:
        if before is not None and before.event == "cma" and report.event == "warning" and _is_near(before, report):
            report.pages = before.pages
        before = report
        yield report


def _is_near(before: LoggedFailure, report: LoggedFailure) -> bool:
    if before.time is not None and report.time is not None:
        return 0 <= report.time - before.time <= _SECONDS
    return report.line - before.line <= _LINES
