# SPDX-License-Identifier: MIT
"""Diagnoses of reports that are made in a test, field by field."""

from typing import Any

from kalloctrace.diagnose.from_log import Failure, explain_failure
from kalloctrace.diagnose.given import Given
from kalloctrace.diagnose.reports.model import Blocks, LoggedFailure, LoggedZone
from kalloctrace.flags.logforms import ReleaseText

MARKS = {"boost": 0, "min": 2780, "low": 3472, "high": 4164, "reserved_highatomic": 0, "free_cma": 0}
"""The min watermark are 695 pages, low 868, high 1041."""


def judged(
    *zones: LoggedZone,
    event: str = "failure",
    gfp: int | tuple[str, ...] | None = 0xCC0,
    release: str = "6.1.100-amd64",
    **more: Any,  # noqa: ANN401 fields of any type
) -> Failure:
    """Return the diagnosis of a report; 0xcc0 is GFP_KERNEL.

    Args:
        zones: its zones.
        event: what it is of.
        gfp: its mask.
        release: its kernel; by default one with pages of 4 kB.
        more: further attributes of the report.
    """
    said = {"line": 1, "comm": "task", "order": 0, **more}
    logged = LoggedFailure(event, **said, zones=list(zones))  # type: ignore[arg-type]
    logged.release = ReleaseText(release, "", None)
    Given(gfp=gfp).complete(logged)
    return explain_failure(logged)


def zone(
    free: int, blocks: tuple[Blocks, ...] | None = None, *, node: int = 0, name: str = "Normal", **more: int
) -> LoggedZone:
    """Return a zone with as many free pages that keeps nothing for other zones.

    Args:
        free: pages.
        blocks: its free blocks, by order.
        node: its node.
        name: its name.
        more: further numbers of its line, in kB.
    """
    return LoggedZone(node, name, {"free": free * 4, **MARKS, **more}, (0, 0, 0, 0, 0), blocks)


def pages(count: int, *types: str) -> Blocks:
    """Return free single pages of these types."""
    return Blocks(count, 4, frozenset(f"MIGRATE_{name}" for name in types))
