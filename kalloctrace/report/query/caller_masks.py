# SPDX-License-Identifier: MIT
"""The gfp masks of calls of the slow path as their callers passed them.

A call of the slow path has the mask that the page allocator made of its caller's: the bits that the kernel allows now,
changed by the scopes of the task (memalloc_nofs_save() and others).
"""

from dataclasses import replace

from kalloctrace.model.kernel import Kernel
from kalloctrace.model.page_alloc import apply_gfp_allowed_mask
from kalloctrace.model.sched_mm import current_gfp_context
from kalloctrace.report.query.fields import Row
from kalloctrace.trace.dedup import Counted

_COLUMNS = ("gfp_mask", "order", "task_flags", "gfp_allowed_mask")
_Key = tuple[int, int, int]


class CallerMasks:
    """Finds the caller's mask: of the calls with the same order and task flags, the one that becomes this mask.

    Where two become the same one, the more frequent is taken. Where none does, as when the call itself was lost, the
    mask of the slow path is.

    Args:
        kernel: the recorded kernel.
        counted: the distinct allocations of the trace.
    """

    def __init__(self, kernel: Kernel, counted: Counted) -> None:
        self._masks: dict[_Key, int] = {}
        calls: dict[_Key, int] = {}
        for row, count in counted.by(_COLUMNS):
            gfp_mask, order, task_flags, gfp_allowed_mask = (row[name] for name in _COLUMNS)
            if task_flags is None or gfp_allowed_mask is None:
                # An event of another tool.
                continue
            context = replace(kernel.context(task_flags=task_flags), gfp_allowed_mask=gfp_allowed_mask)
            allowed, _ = apply_gfp_allowed_mask(kernel, gfp_mask, context)
            passed, _ = current_gfp_context(kernel, allowed, context)
            key = (passed, order, task_flags)
            if count > calls.get(key, 0):
                calls[key] = count
                self._masks[key] = gfp_mask

    def of(self, call: Row) -> int:
        """Return the caller's mask of a call of the slow path."""
        given = call["given"]
        mask: int = given["gfp_mask"]
        return self._masks.get((mask, given["order"], given["task_flags"]), mask)
