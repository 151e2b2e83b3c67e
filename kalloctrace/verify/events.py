# SPDX-License-Identifier: MIT
"""Judges an event of kmem:mm_page_alloc that another tool recorded.

The event has the order, the prepared migratetype, and the mask after gfp_allowed_mask, the task's scope and the cpuset
changed it. Mask and migratetype come from the same mobility bits, also after the slow path. An event without a
mismatch stays unknown, because zones, nodes, alloc_flags and the original mask are not in it.

Source: mm/page_alloc.c, trace_mm_page_alloc() in linux-source-5.10 5.10.262-1:5057, 6.1.192-2:5680, 6.12.117-1:4878,
7.2.13-1:5382, 7.3.4-1~bpo13+1:5482.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from kalloctrace.model.gfp import gfp_migratetype
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import Context
from kalloctrace.trace.schema import TRACEPOINT
from kalloctrace.verify.compare import Difference, FieldVerdict, RowVerdict
from kalloctrace.verify.rows import ModelFailure, Row, request_text

NOT_SHOWN = "an event of kmem:mm_page_alloc shows order, mask and migratetype alone"


@dataclass(frozen=True)
class EventJudge:
    """Judges the events of one trace.

    Attributes:
        kernel: the kernel that was recorded; only gfp_allowed_mask of its machine is used.
        grouped: some event has a migratetype other than 0, so the kernel groups pages by mobility. It does not on a
            machine with a few MiB.
    """

    kernel: Kernel
    grouped: bool

    @classmethod
    def of(cls, kernel: Kernel, rows: Iterable[Row]) -> Self:
        """Return the judge of the events among the rows of a trace."""
        return cls(kernel, any(row["entry"] == TRACEPOINT and row["migratetype"] for row in rows))

    def __call__(self, row: Row) -> RowVerdict:
        """Judge an event.

        Raises:
            ModelFailure: the model failed on this event.
        """
        differences, fields = [], {}
        try:
            compared = list(self._compare(row))
        except Exception as error:
            raise ModelFailure(request_text(row), error) from error
        for difference, verdict in compared:
            fields[difference.field] = verdict
            if verdict == "different":
                differences.append(difference)
        return RowVerdict(tuple(differences), "" if differences else NOT_SHOWN, fields)

    def _compare(self, row: Row) -> Iterator[tuple[Difference, FieldVerdict]]:
        kernel, order, gfp_mask = self.kernel, row["order"], row["gfp_mask"]
        largest = kernel.features.max_order
        effect = f"a request of an order above {largest} is rejected, and leaves no event"
        yield _compared(Difference("order", min(order, largest), order, "order", effect))
        allowed = kernel.machine.gfp_allowed_mask
        effect = f"gfp_allowed_mask has at most the bits {allowed:#x}"
        yield _compared(Difference("gfp_mask", gfp_mask & allowed, gfp_mask, "gfp_allowed_mask", effect))
        context = Context(cpusets_enabled=False, gfp_allowed_mask=allowed)
        migratetype, step = gfp_migratetype(kernel, gfp_mask, context)
        difference = Difference("migratetype", migratetype, row["migratetype"], step.rule, step.effect)
        explained = not self.grouped and row["migratetype"] == 0 != migratetype
        yield (difference, "unknown") if explained else _compared(difference)


def _compared(difference: Difference) -> tuple[Difference, FieldVerdict]:
    return (difference, "equal" if difference.expected == difference.observed else "different")
