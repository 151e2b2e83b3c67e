# SPDX-License-Identifier: MIT
"""Compares how often one probe and the pair saw each call, by every field that one probe sees."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kalloctrace.probe.decode.allocations import CALLER, MEMS_ALLOWED, NODEMASK, OTHER
from kalloctrace.probe.maps.overflow import Seen

_NODES = CALLER | MEMS_ALLOWED | OTHER


@dataclass(frozen=True)
class Compared:
    """The result of a comparison; see the attributes of the same names of `Audited`."""

    one: int
    pair: int
    differing: int
    fields: dict[str, int]


@dataclass(frozen=True)
class Comparison:
    """What one probe does not see, and the comparison leaves out.

    Attributes:
        scopes: it sees what calls in a scope ask for.
        hardwall: __GFP_HARDWALL, which it infers while cpusets are on.
        interrupt_mask: the bits of preempt_count that mean "not in task context"; the others are the probes' own too.
    """

    scopes: bool
    hardwall: int
    interrupt_mask: int

    def compare(self, one: Seen, pair: Seen) -> Compared:
        """Compare what both saw."""
        columns = [self._columns(allocations) for allocations, _ in (one, pair)]
        counts = [values.tolist() for _, values in (one, pair)]
        whole = [_counted(list(zip(*shown.values(), strict=True)), n) for shown, n in zip(columns, counts, strict=True)]
        fields = {
            name: _difference(*(_counted(shown[name], n) for shown, n in zip(columns, counts, strict=True)))
            for name in columns[0]
        }
        return Compared(
            sum(counts[0]), sum(counts[1]), _difference(*whole), {name: n for name, n in fields.items() if n}
        )

    def _columns(self, allocations: npt.NDArray[np.void]) -> dict[str, list[object]]:
        """Return the values of each field, without what one probe does not see."""
        left = allocations["freelist_gfp_mask"]
        # It does not see bits outside gfp_allowed_mask.
        asked = allocations["gfp_mask"] & allocations["gfp_allowed_mask"] if self.scopes else left
        # Nor, while cpusets are on, whether this bit was asked for.
        asked = np.where(allocations["switches"] != 0, asked & ~np.uint32(self.hardwall) | left & self.hardwall, asked)
        present = allocations["present"]
        # Which of the nodemasks ac has follows from its address, and from the caller's argument, which it does not see.
        kind = np.where(present & _NODES, (present | _NODES) & ~np.uint32(NODEMASK), present)
        shown = {
            name: _values(allocations[name])
            for name in allocations.dtype.names or ()
            if name not in ("gfp_mask", "present", "preempt_count", "preferred_nid", "nodemask_nodes")
        }
        return shown | {
            "gfp_mask": asked.tolist(),
            "present": kind.tolist(),
            "preempt_count": (allocations["preempt_count"] & self.interrupt_mask).tolist(),
        }


def _values(column: npt.NDArray[Any]) -> list[object]:
    return column.tolist() if column.ndim == 1 else [tuple(words) for words in column.tolist()]


def _counted(values: list[object], counts: list[int]) -> Counter[object]:
    counted: Counter[object] = Counter()
    for value, count in zip(values, counts, strict=True):
        counted[value] += count
    return counted


def _difference(one: Counter[object], pair: Counter[object]) -> int:
    return sum(abs(one[value] - pair[value]) for value in one.keys() | pair.keys())
