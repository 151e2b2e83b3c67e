# SPDX-License-Identifier: MIT
"""Which calls are recorded: decided inside the kernel, by constants of the program."""

from dataclasses import asdict, dataclass
from typing import Any

from kalloctrace.probe.layout import constant

_COMM_BYTES = constant("TASK_COMM_LEN")
"""One byte is the zero that ends the name."""


@dataclass(frozen=True)
class Filters:
    """What a call must be like; None asks for nothing.

    Attributes:
        pid: its process (tgid).
        comm: the name of its task.
        order: its order.
        gfp_any: a gfp mask of which it has some bit.
        gfp_all: one of which it has each bit.
        gfp_none: one of which it has no bit.
        nid: its preferred node.
        zone: the index of the zone that was preferred for it.
        alloc_flags: flags that it was prepared with, all of them.
        failed: it returned no page.
        sample: one in so many is recorded, on each CPU.
        max_rate: so many records a second at most, over all CPUs; what is beyond counts as lost.
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

    @property
    def by_result(self) -> bool:
        """Tell whether something is asked that shows only once a call is prepared, or has returned."""
        return self.failed or self.zone is not None or self.alloc_flags is not None

    def to_json(self) -> dict[str, Any]:
        """Return the filters as JSON values, null where nothing is asked for."""
        return {**asdict(self), "failed": self.failed or None}

    def constants(self) -> dict[str, int]:
        """Return the preprocessor symbols of the program."""
        symbols = {
            "TGID": self.pid,
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
