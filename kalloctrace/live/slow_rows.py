# SPDX-License-Identifier: MIT
"""Which rows of a live table the calls of the slow path belong to."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from kalloctrace.live.keys import RequestKey
from kalloctrace.model.kernel import Kernel
from kalloctrace.trace.dedup import KEYS, Counted
from kalloctrace.trace.observation import Observation
from kalloctrace.trace.schema import COUNT
from kalloctrace.trace.tally import counts_of
from kalloctrace.verify.slowpath.fast_path import CallerMasks, fast_path_alloc_flags


class SlowRequests:
    """Finds the request of a call of the slow path, as its caller made it.

    Args:
        kernel: the recorded kernel.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._known = 0
        self._requests: dict[int, RequestKey] = {}

    def of(self, seen: Observation) -> Mapping[int, RequestKey]:
        """Return the request of each number in `SlowCounts.given`."""
        given = seen.slow.given
        if self._known != len(seen.rows.allocations):
            # The caller's mask is that of a call, which may be among the new ones.
            self._known = len(seen.rows.allocations)
            self._requests.clear()
        missing = [number for number in range(len(given)) if number not in self._requests]
        if missing:
            counts = counts_of(seen.rows)
            present = np.flatnonzero(counts)
            table = pa.Table.from_arrays(seen.rows.allocations.take(pa.array(present)).flatten(), names=KEYS)
            masks = CallerMasks(self._kernel, Counted(table.append_column(COUNT.name, pa.array(counts[present]))))
            self._requests |= {number: self._request(given[number], masks) for number in missing}
        return self._requests

    def _request(self, given: Mapping[str, Any], masks: CallerMasks) -> RequestKey:
        return RequestKey(
            "normal",
            masks.of(given),
            given["order"],
            given["preferred_node"],
            given["preferred_zone"],
            given["migratetype"],
            fast_path_alloc_flags(self._kernel, {"given": given}),
        )
