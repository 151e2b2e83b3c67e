# SPDX-License-Identifier: MIT
"""Calls of the slow path as the fast path had them: the mask of their callers, the alloc_flags, the stack.

A call of the slow path has the mask that the page allocator made of its caller's: the bits that the kernel allows now,
changed by the scopes of the task (memalloc_nofs_save() and others).
"""

from dataclasses import replace

from kalloctrace.model.kernel import Kernel
from kalloctrace.model.page_alloc import alloc_pages, apply_gfp_allowed_mask
from kalloctrace.model.sched_mm import current_gfp_context
from kalloctrace.model.types import ImpossibleRequestError, UnknownFact
from kalloctrace.trace.dedup import Counted
from kalloctrace.verify.rows import Row
from kalloctrace.verify.slowpath.trace import context_of_call, request_of_call

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

    def of(self, given: Row) -> int:
        """Return the caller's mask of a call of the slow path.

        Args:
            given: the call's column of this name.
        """
        mask: int = given["gfp_mask"]
        return self._masks.get((mask, given["order"], given["task_flags"]), mask)


def fast_path_alloc_flags(kernel: Kernel, call: Row) -> int | None:
    """Return the alloc_flags of a call's fast path, which are not recorded with it; None if the model cannot tell.

    Args:
        kernel: the recorded kernel.
        call: the call, or another one with the same arguments.
    """
    try:
        return alloc_pages(kernel, request_of_call(call), context_of_call(kernel, call)).alloc_flags
    except (UnknownFact, ImpossibleRequestError):
        return None


def from_entry(entry: str, stack: str | None) -> str | None:
    """Return a stack without the functions further in than the page allocator's entry, as the call itself has it."""
    if stack is None:
        return None
    frames = stack.split(";")
    return ";".join(frames[: len(frames) - frames[::-1].index(entry)]) if entry in frames else stack
