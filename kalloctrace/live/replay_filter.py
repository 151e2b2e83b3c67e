# SPDX-License-Identifier: MIT
"""Selects the calls of a replayed trace as a capture with the same filters would."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.probe.attach.filters import Filters
from kalloctrace.probe.decode.slowpath import matches_filter
from kalloctrace.trace.decode import RowBatch

Bools = npt.NDArray[np.bool_]


class ReplayFilter:
    """Selects calls by their task and their request.

    Args:
        filters: what a call must meet; conditions on the result of the preparation are ignored.
    """

    def __init__(self, filters: Filters) -> None:
        self._filters = filters

    def rows(self, batch: RowBatch) -> Bools:
        """Return which rows of a batch are selected."""
        chosen: Bools = self._allocations(batch.allocations)[batch.indices]
        filters = self._filters
        if filters.pid is not None:
            chosen &= batch.task_columns["pid"].to_numpy() == filters.pid
        if filters.comm is not None:
            comm = batch.task_columns["comm"]
            named = np.array([name.as_py() == filters.comm for name in comm.dictionary], np.bool_)
            chosen &= named[comm.indices.to_numpy()]
        return chosen

    def slow_call(self, call: Mapping[str, Any]) -> bool:
        """Return whether a call of the slow path is selected."""
        return matches_filter(self._filters, call)

    def _allocations(self, allocations: pa.StructArray) -> Bools:
        filters = self._filters
        gfp = allocations.field("gfp_mask").to_numpy()
        chosen = np.ones(len(allocations), np.bool_)
        if filters.gfp_any is not None:
            chosen &= (gfp & filters.gfp_any) != 0
        if filters.gfp_all is not None:
            chosen &= (gfp & filters.gfp_all) == filters.gfp_all
        if filters.gfp_none is not None:
            chosen &= (gfp & filters.gfp_none) == 0
        for name, value in (("order", filters.order), ("preferred_nid", filters.nid)):
            if value is not None:
                chosen &= allocations.field(name).to_numpy(zero_copy_only=False) == value
        return chosen
