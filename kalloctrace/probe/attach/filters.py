# SPDX-License-Identifier: MIT
"""Filters: which calls are recorded. The BPF program applies them; they are compiled into it as constants."""

from dataclasses import asdict, dataclass
from typing import Any

from kalloctrace.probe.layout import constant

_COMM_BYTES = constant("TASK_COMM_LEN")
"""One byte is the zero that ends the name."""


@dataclass(frozen=True)
class Filters:
    """The conditions that a recorded call meets; None sets no condition.

    Attributes:
        pid: the process (tgid).
        comm: the name of the task.
        order: the order of the request.
        gfp_any: a mask; the request has at least one of its bits.
        gfp_all: a mask; the request has all of its bits.
        gfp_none: a mask; the request has none of its bits.
        nid: the preferred node of the request.
        zone: the index of the preferred zone.
        alloc_flags: a mask; the prepared alloc_flags have all of its bits.
        failed: the call returned no page.
        sample: one in this many calls is recorded, on each CPU.
        max_rate: at most this many records per second, over all CPUs. Records beyond it count as lost.
        children: the process that is recorded together with all of its descendants.
    """

    pid: int | None = None
    comm: str | None = None
    order: int | None = None
    gfp_any: int | None = None
    gfp_all: int | None = None
    gfp_none: int | None = None
    nid: int | None = None
    zone: int | None = None
    alloc_flags: int | None = None
    failed: bool = False
    sample: int | None = None
    max_rate: int | None = None
    children: int | None = None

    @property
    def by_result(self) -> bool:
        """Return whether a condition is known only after a call was prepared, or has returned."""
        return self.failed or self.zone is not None or self.alloc_flags is not None

    def to_json(self) -> dict[str, Any]:
        """Return the filters as JSON values, null for those not set."""
        return {**asdict(self), "failed": self.failed or None}

    def sources(self) -> list[str]:
        """Return the files of the BPF program that the filters need."""
        return [] if self.children is None else ["children.bpf.c"]

    def constants(self) -> dict[str, int]:
        """Return the preprocessor symbols of the program."""
        symbols = {
            "TGID": self.pid,
            "CHILDREN": self.children,
            "ORDER": self.order,
            "GFP_ANY": self.gfp_any,
            "GFP_ALL": self.gfp_all,
            "GFP_NONE": self.gfp_none,
            "PREFERRED_NID": self.nid,
            "ZONE_IDX": self.zone,
            "ALLOC_FLAGS": self.alloc_flags,
            "FAILED": 1 if self.failed else None,
            "SAMPLE": self.sample,
            "MAX_RATE": self.max_rate,
        }
        constants = {name: value for name, value in symbols.items() if value is not None}
        if self.comm is not None:
            name = self.comm.encode()[: _COMM_BYTES - 1].ljust(_COMM_BYTES, b"\0")
            constants["COMM_0"] = int.from_bytes(name[:8], "little")
            constants["COMM_1"] = int.from_bytes(name[8:], "little")
        if constants.keys() & {"ZONE_IDX", "ALLOC_FLAGS"}:
            constants["CONTEXT_FILTER"] = 1
        if constants:
            constants["FILTERS"] = 1
        return constants
