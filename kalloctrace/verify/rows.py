# SPDX-License-Identifier: MIT
"""Parses the rows of a trace into the model's arguments; damaged rows are found here."""

from collections.abc import Mapping
from typing import Any

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.nodelist import parse_nodelist
from kalloctrace.model.bulk import BulkRequest
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import Context, Request

Row = Mapping[str, Any]
"""Values by column: a distinct allocation, a call of the slow path, or one of its attempts."""

DAMAGED = "the row is damaged"
_ALWAYS_CAPTURED = ("cpusets_enabled", "gfp_allowed_mask", "defrag_mode")


class DamagedRowError(Exception):
    """A row holds a value that no recorder writes."""


class ModelFailure(KalloctraceError):  # noqa: N818  (it is an error of this program, not of the user)
    """The model failed on a request: a bug, which must not look like missing data.

    Args:
        request: the request, for people.
        error: what the model raised.
    """

    def __init__(self, request: str, error: Exception) -> None:
        super().__init__(
            f"the model failed on {request}",
            f"this is a bug in kalloctrace: {type(error).__name__}: {error}",
            "report it with the trace and the traceback, which `kalloctrace --debug` prints",
        )


def node_mask(row: Row, column: str) -> int | None:
    """Return the set of nodes that a column lists, bit n for node n; None where it is null.

    Raises:
        DamagedRowError: the text is no list of nodes.
    """
    text = row[column]
    if text is None:
        return None
    try:
        return parse_nodelist(text)
    except ValueError as error:
        raise DamagedRowError(f"{column}: {error}") from error


def request_of(row: Row) -> Request:
    """Return the request of a row.

    Raises:
        DamagedRowError: its nodemask is no list of nodes.
    """
    return Request(
        entry="nolock" if row["entry"] == "nolock" else "normal",
        gfp_mask=row["gfp_mask"],
        order=row["order"],
        preferred_nid=row["preferred_nid"],
        nodemask=node_mask(row, "nodemask"),
        alloc_flags=row["entry_alloc_flags"] or 0,
    )


def bulk_request_of(row: Row) -> BulkRequest:
    """Return the request of a call of the bulk allocator.

    Raises:
        DamagedRowError: its nodemask is no list of nodes.
    """
    return BulkRequest(
        gfp_mask=row["gfp_mask"],
        preferred_nid=row["preferred_nid"],
        nodemask=node_mask(row, "nodemask"),
        nr_pages=row["nr_pages"],
        nr_populated=row["nr_populated"],
    )


def missing_facts(row: Row) -> list[str]:
    """Return the facts that a row lacks although they are captured on each kernel; only a damaged row lacks one."""
    return [column for column in _ALWAYS_CAPTURED if row[column] is None]


def context_of(kernel: Kernel, row: Row) -> Context:
    """Return the context of a row.

    Raises:
        DamagedRowError: its mems_allowed is no list of nodes, or a fact that is always captured is missing.
    """
    missing = missing_facts(row)
    if row["task_flags"] is None and kernel.features.reads_task_flags:
        missing.append("task_flags")
    if missing:
        raise DamagedRowError(f"no {', '.join(missing)}")
    return Context(
        cpusets_enabled=row["cpusets_enabled"] > 0,
        gfp_allowed_mask=row["gfp_allowed_mask"],
        task_flags=row["task_flags"] or 0,
        preempt_count=row["preempt_count"],
        softirq_disable_cnt=row["softirq_disable_cnt"] or 0,
        mems_allowed=node_mask(row, "mems_allowed"),
        defrag_mode=row["defrag_mode"],
        page_group_by_mobility_disabled=kernel.machine.page_group_by_mobility_disabled,
        numa_node_id=row["numa_node_id"],
        memcg_kmem_online=row["memcg_kmem_online"] or False,
        page_owner_inited=row["page_owner_inited"] or False,
    )


def request_text(row: Row) -> str:
    """Return the request of a row on one line, numbers as the kernel has them."""
    text = f"gfp_mask={row['gfp_mask']:#x} order={row['order']}"
    if "preferred_nid" in row:
        text = f"{row['entry']} {text} preferred_nid={row['preferred_nid']} nodemask={row['nodemask']}"
    return f"the request {text}"
