# SPDX-License-Identifier: MIT
"""What if one input were different: the settings worth a try for a request, and what each changes."""

from collections.abc import Iterator
from dataclasses import dataclass

from kalloctrace.explain.received import outcome_text, received
from kalloctrace.explain.request import Answer
from kalloctrace.explain.settings import CONTEXTS, Setting, context_name
from kalloctrace.flags.builtin import builtin_kernels
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import Context, Request

_ORDERS = (0, 1, 3, 9)


@dataclass(frozen=True, slots=True)
class Change:
    """A value that differs when the input does.

    Attributes:
        field: "outcome", or the name of what `get_page_from_freelist` receives: "gfp_mask", "ac.nodemask".
        before: the value as text.
        after: likewise.
    """

    field: str
    before: str
    after: str


def candidates(answer: Answer) -> Iterator[Setting]:
    """Yield the settings worth a try, each of which changes one input of this request.

    They are every scope and switch that the kernel knows, every gfp bit, each context, other orders, each other node, a
    nodemask and a cpuset of each single node, and the entry without locks.
    """
    yield from _context_settings(answer.kernel, answer.context)
    yield from _request_settings(answer.kernel, answer.request)


def _context_settings(kernel: Kernel, context: Context) -> Iterator[Setting]:
    for name, bit in kernel.tables.pf:
        yield Setting(name, not context.task_flags & bit)
    yield Setting("cpusets", not context.cpusets_enabled)
    if context.cpusets_enabled:
        yield from (Setting("mems_allowed", 1 << node.nid) for node in kernel.machine.nodes)
    if context.preempt_count is not None:
        own = context_name(kernel, context)
        yield from (Setting("context", name) for name in CONTEXTS if name != own)
    if kernel.features.defrag_mode:
        yield Setting("defrag_mode", not context.defrag_mode)
    yield Setting("page_group_by_mobility_disabled", not context.page_group_by_mobility_disabled)


def _request_settings(kernel: Kernel, request: Request) -> Iterator[Setting]:
    orders = (*_ORDERS, kernel.features.max_order + 1)
    yield from (Setting("order", order) for order in orders if order != request.order)
    yield from (Setting("nid", nid) for nid in sorted(kernel.machine.fallback) if nid != request.preferred_nid)
    for name, bit in kernel.tables.gfp_bits:
        yield Setting(name, not request.gfp_mask & bit)
    nodemasks = (1 << node.nid for node in kernel.machine.nodes)
    yield from (Setting("nodemask", nodes) for nodes in nodemasks if nodes != request.nodemask)
    if request.nodemask is not None:
        yield Setting("nodemask", None)
    if kernel.features.entry_alloc_flags:
        arguments = (0, kernel.bits.alloc_nolock, kernel.bits.alloc_no_codetag)
        yield from (Setting("alloc_flags", flags) for flags in arguments if flags != request.alloc_flags)
    if kernel.features.nolock != "none":
        yield Setting("entry", "normal" if request.entry == "nolock" else "nolock")


def other_kernels(answer: Answer) -> Iterator[Setting]:
    """Yield a setting for each built-in kernel except the answer's own."""
    own = answer.kernel.tables.kernel
    yield from (Setting("kernel", name) for name in builtin_kernels() if name != own)


def changes(before: Answer, after: Answer) -> tuple[Change, ...]:
    """Return what `get_page_from_freelist` receives differently; empty where nothing differs.

    Masks are compared by their bits, because two kernels may have different names for the same bits. Two rejections are
    equal when the same rule rejects with the same warning, whatever numbers the reasons contain.
    """
    first, second = received(before), received(after)
    if first and second:
        return tuple(
            Change(name, one.text, second[name].text) for name, one in first.items() if one.value != second[name].value
        )
    if not first and not second and _rejection(before) == _rejection(after):
        return ()
    return (Change("outcome", outcome_text(before), outcome_text(after)),)


def _rejection(answer: Answer) -> tuple[str, bool]:
    done = answer.preparation
    return done.steps[-1].rule, bool(done.warns)


def only_passes_through(before: Answer, after: Answer) -> bool:
    """Return whether a gfp bit reaches `get_page_from_freelist` as it is and changes nothing else."""
    one, other = before.preparation, after.preparation
    if one.gfp is None or other.gfp is None:
        return False
    flipped = before.request.gfp_mask ^ after.request.gfp_mask
    found = changes(before, after)
    return bool(flipped) and [change.field for change in found] == ["gfp_mask"] and one.gfp ^ other.gfp == flipped
