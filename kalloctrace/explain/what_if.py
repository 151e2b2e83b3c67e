# SPDX-License-Identifier: MIT
"""What if one input were another: the same request, answered by the same model, with one thing changed.

A setting is written as `explain --set` takes it: `cpusets`, `PF_MEMALLOC_NOFS`, `__GFP_WRITE=off`, `order=1`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, get_args

from kalloctrace.errors import KalloctraceError
from kalloctrace.explain.request import MAX_NUMNODES, U32_MAX, Answer, BadRequestError
from kalloctrace.flags.builtin import builtin_kernels
from kalloctrace.flags.decode import decode_alloc, decode_gfp, parse_flags
from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.nodelist import format_nodelist, parse_nodelist
from kalloctrace.model import page_alloc, preempt
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import ALL_NODES, Context, Entry, ImpossibleRequestError, Preparation, Request, UnknownFact

_NUMBER = re.compile(r"-?(?:0[xX][0-9a-fA-F]{1,16}|\d{1,20})", re.ASCII)
_SWITCHES = {"on": True, "off": False, "1": True, "0": False}
_HIGHER_ORDERS = (0, 1, 3, 9)
CONTEXTS: tuple[preempt.ContextName, ...] = get_args(preempt.ContextName)
_SWITCH_NAMES = ("cpusets", "defrag_mode", "page_group_by_mobility_disabled")
_VALUE_NAMES = (
    *("kernel", "gfp", "order", "nid", "nodemask", "entry", "alloc_flags", "task_flags", "context"),
    *("preempt_count", "mems_allowed", "gfp_allowed_mask", "numa_node_id"),
)


@dataclass(frozen=True, slots=True)
class Change:
    """A value that is another when the input is.

    Attributes:
        field: "outcome", or the name of what `get_page_from_freelist` receives: "gfp_mask", "ac.nodemask".
        before: the value as text.
        after: likewise.
    """

    field: str
    before: str
    after: str


def changed(answer: Answer, setting: str) -> Answer:
    """Answer the same request with one input changed.

    Args:
        answer: the request as it was.
        setting: NAME, NAME=on, NAME=off or NAME=VALUE.

    Raises:
        BadRequestError: there is no such input, it cannot have that value, or the kernel leaves it without an answer.
    """
    name, given, value = setting.partition("=")
    name = name.strip()
    try:
        kernel, request, context = _apply(answer, name, value.strip() if given else None)
        return Answer(kernel, request, context, page_alloc.alloc_pages(kernel, request, context))
    except (ImpossibleRequestError, UnknownFact) as error:
        raise BadRequestError(str(error)) from None
    except KalloctraceError as error:
        raise BadRequestError(f"{error.what}: {error.why}") from None


def candidates(answer: Answer) -> Iterator[str]:
    """Yield the settings that are worth a try: each changes one input of this request.

    Every scope and switch that the kernel knows, every gfp bit, each context, other orders, each other node, a nodemask
    and a cpuset of each single node, and the entry without locks.
    """
    yield from _other_contexts(answer.kernel, answer.context)
    yield from _other_arguments(answer.kernel, answer.request)


def _other_contexts(kernel: Kernel, context: Context) -> Iterator[str]:
    for name, bit in kernel.tables.pf:
        yield _switch(name, context.task_flags & bit)
    yield _switch("cpusets", context.cpusets_enabled)
    if context.cpusets_enabled:
        yield from (f"mems_allowed={node.nid}" for node in kernel.machine.nodes)
    if context.preempt_count is not None:
        own = _context_name(kernel, context)
        yield from (f"context={name}" for name in CONTEXTS if name != own)
    if kernel.features.defrag_mode:
        yield _switch("defrag_mode", context.defrag_mode)
    yield _switch("page_group_by_mobility_disabled", context.page_group_by_mobility_disabled)


def _other_arguments(kernel: Kernel, request: Request) -> Iterator[str]:
    orders = (*_HIGHER_ORDERS, kernel.features.max_order + 1)
    yield from (f"order={order}" for order in orders if order != request.order)
    yield from (f"nid={nid}" for nid in sorted(kernel.machine.fallback) if nid != request.preferred_nid)
    for name, bit in kernel.tables.gfp_bits:
        yield _switch(name, request.gfp_mask & bit)
    yield from (f"nodemask={node.nid}" for node in kernel.machine.nodes if request.nodemask != 1 << node.nid)
    if request.nodemask is not None:
        yield "nodemask=null"
    if kernel.features.entry_alloc_flags:
        arguments = (0, kernel.bits.alloc_nolock, kernel.bits.alloc_no_codetag)
        yield from (f"alloc_flags={flags:#x}" for flags in arguments if flags != request.alloc_flags)
    if kernel.features.nolock != "none":
        yield f"entry={'normal' if request.entry == 'nolock' else 'nolock'}"


def other_kernels(answer: Answer) -> Iterator[str]:
    """Yield a setting for each built-in kernel but the answer's own."""
    own = answer.kernel.tables
    yield from (f"kernel={name}" for name in builtin_kernels() if name != own.kernel)


def changes(before: Answer, after: Answer) -> tuple[Change, ...]:
    """Return what `get_page_from_freelist` receives otherwise; empty where nothing differs.

    Masks are compared by their bits: that two kernels call the same bits differently is no change.
    """
    first, second = received(before), received(after)
    one, other = before.preparation, after.preparation
    rejections = [(done.steps[-1].rule, done.warns) for done in (one, other) if done.outcome == "rejected"]
    if len(rejections) == 2 and rejections[0] == rejections[1]:
        # The reason names the numbers; it is the same one.
        return ()
    if first["outcome"] != second["outcome"]:
        return (Change("outcome", first["outcome"], second["outcome"]),)
    return tuple(
        Change(name, text, second[name])
        for name, text in first.items()
        if _bits(name, text) != _bits(name, second[name])
    )


def _bits(name: str, text: str) -> str:
    return text.split(" ", 1)[0] if name in {"gfp_mask", "alloc_flags"} else text


def received(answer: Answer) -> dict[str, str]:
    """Return what the stage hands on, by name, as text; of a rejected request the reason alone."""
    done, tables = answer.preparation, answer.kernel.tables
    if done.outcome == "rejected":
        return {"outcome": f"rejected{', with a warning' if done.warns else ''}: {done.reason}"}
    gfp, flags = done.gfp or 0, done.alloc_flags or 0
    preferred = done.preferred_zone
    return {
        "outcome": "prepared",
        "gfp_mask": f"{gfp:#x} {decode_gfp(gfp, tables).text}".rstrip(),
        "alloc_flags": f"{flags:#x} {decode_alloc(flags, tables).text}",
        "ac.zonelist": f"{done.zonelist_kind} of node {done.zonelist_nid}",
        "ac.nodemask": nodemask_text(done),
        "ac.preferred_zoneref": "the terminating entry: no zone is eligible"
        if preferred is None
        else f"{tables.zone_name(preferred.zone)} of node {preferred.node}",
        "ac.migratetype": f"{done.migratetype} {tables.migratetype_name(done.migratetype or 0)}",
        "ac.highest_zoneidx": f"{done.highest_zoneidx} {tables.zone_name(done.highest_zoneidx or 0)}",
        "ac.spread_dirty_pages": str(bool(done.spread_dirty_pages)).lower(),
    }


def nodemask_text(done: Preparation) -> str:
    """Return where `ac->nodemask` points and what is there."""
    if done.nodemask_value is None:
        return "NULL"
    owner = {"caller": "the caller's", "mems_allowed": "current->mems_allowed"}.get(done.nodemask or "", "")
    return f"{owner}: {nodes_text(done.nodemask_value)}"


def nodes_text(nodes: int) -> str:
    """Return a set of nodes in words."""
    if nodes == ALL_NODES:
        return "all nodes"
    return f"nodes {format_nodelist(nodes)}" if nodes else "no node"


def only_passes_through(before: Answer, after: Answer) -> bool:
    """Tell whether a gfp bit went straight to `get_page_from_freelist` and changed nothing else on its way."""
    one, other = before.preparation, after.preparation
    if one.gfp is None or other.gfp is None:
        return False
    asked = before.request.gfp_mask ^ after.request.gfp_mask
    found = changes(before, after)
    return bool(asked) and [change.field for change in found] == ["gfp_mask"] and one.gfp ^ other.gfp == asked


def _switch(name: str, is_on: object) -> str:
    return f"{name}=off" if is_on else name


def _apply(answer: Answer, name: str, value: str | None) -> tuple[Kernel, Request, Context]:
    kernel, request, context = answer.kernel, answer.request, answer.context
    tables = kernel.tables
    pf = dict(tables.pf)
    if name in pf:
        return kernel, request, replace(context, task_flags=_with(context.task_flags, pf[name], _on(name, value)))
    if tables.has_gfp(name):
        return kernel, replace(request, gfp_mask=_with(request.gfp_mask, tables.gfp(name), _on(name, value))), context
    if name in _SWITCH_NAMES:
        return kernel, request, _switched(kernel, context, name, value)
    if name not in _VALUE_NAMES:
        raise BadRequestError(
            f"{name!r} is no input of kernel {tables.kernel}: it may be {', '.join(pf)}, a __GFP_ name, "
            f"{', '.join(_SWITCH_NAMES)}, or one of {', '.join(f'{known}=' for known in _VALUE_NAMES)}"
        )
    if value is None:
        raise BadRequestError(f"{name} needs a value: {name}=…")
    if name == "kernel":
        return _on_kernel(answer, value)
    return kernel, _with_argument(kernel, request, name, value), _in_context(kernel, context, name, value)


def _switched(kernel: Kernel, context: Context, name: str, value: str | None) -> Context:
    if name == "defrag_mode" and not kernel.features.defrag_mode:
        raise BadRequestError(f"kernel {kernel.tables.kernel} has no sysctl vm.defrag_mode")
    switch: Mapping[str, Any] = {"cpusets_enabled" if name == "cpusets" else name: _on(name, value)}
    return replace(context, **switch)


def _with_argument(kernel: Kernel, request: Request, name: str, value: str) -> Request:  # noqa: PLR0911  (an argument a line)
    """Return the request with another argument; the same where the name is none of an argument."""
    match name:
        case "gfp":
            return replace(request, gfp_mask=parse_flags(value, kernel.tables))
        case "alloc_flags":
            return replace(request, alloc_flags=parse_flags(value, kernel.tables, "alloc_flags"))
        case "nodemask":
            return replace(request, nodemask=None if value.lower() == "null" else _nodes(name, value))
        case "entry":
            return replace(request, entry=_choice(name, value, get_args(Entry)))
        case "nid":
            return replace(request, preferred_nid=_node(kernel, value))
        case "order":
            return replace(request, order=_number(name, value, 0, U32_MAX))
        case _:
            return request


def _in_context(kernel: Kernel, context: Context, name: str, value: str) -> Context:  # noqa: PLR0911  (a fact a line)
    """Return the context with another fact; the same where the name is none of a fact."""
    match name:
        case "context":
            return _running_in(kernel, context, _choice(name, value, CONTEXTS))
        case "preempt_count":
            highest = (1 << preempt.preempt_count_bits(kernel.features)) - 1
            return replace(context, preempt_count=_number(name, value, 0, highest))
        case "mems_allowed":
            return replace(context, mems_allowed=_nodes(name, value))
        case "gfp_allowed_mask":
            return replace(context, gfp_allowed_mask=parse_flags(value, kernel.tables))
        case "task_flags":
            return replace(context, task_flags=_task_flags(kernel, value))
        case "numa_node_id":
            return replace(context, numa_node_id=_number(name, value, 0, MAX_NUMNODES - 1))
        case _:
            return context


def _running_in(kernel: Kernel, context: Context, where: preempt.ContextName) -> Context:
    return replace(
        context,
        preempt_count=preempt.preempt_count(kernel.features, where),
        softirq_disable_cnt=preempt.softirq_disable_cnt(kernel.features, where),
    )


def _node(kernel: Kernel, value: str) -> int:
    nid, nodes = _number("nid", value, -1, MAX_NUMNODES - 1), sorted(kernel.machine.fallback)
    if nid not in nodes:
        raise BadRequestError(f"nid {nid} is not a node of the machine, which has {nodes}")
    return nid


def _task_flags(kernel: Kernel, value: str) -> int:
    known, flags = dict(kernel.tables.pf), 0
    for word in value.split("|"):
        flags |= known[word] if word in known else _number("task_flags", word, 0, U32_MAX)
    return flags


def _on_kernel(answer: Answer, name: str) -> tuple[Kernel, Request, Context]:
    """Put the request and its machine under another built-in kernel.

    What numbers mean follows the names: the running context is laid out as the other kernel does, and its own
    gfp_allowed_mask holds. The gfp mask stays the number that it is.
    """
    kernel, context = answer.kernel, answer.context
    known = _built_in(name)
    if known.tables.zone_type != kernel.tables.zone_type:
        raise BadRequestError(f"kernel {name} numbers its zones otherwise than this machine")
    there = known.on(kernel.machine)
    where = _context_name(kernel, context)
    if where is None:
        raise BadRequestError(f"preempt_count {context.preempt_count} has no counterpart on kernel {name}")
    pf = dict(there.tables.pf)
    flags = sum(pf.get(scope, 0) for scope, bit in kernel.tables.pf if context.task_flags & bit)
    moved = replace(context, gfp_allowed_mask=known.machine.gfp_allowed_mask, task_flags=flags)
    return there, answer.request, _running_in(there, moved, where)


@lru_cache(maxsize=64)
def _built_in(name: str) -> Kernel:
    return Kernel.of(builtin_snapshot(name))


def _context_name(kernel: Kernel, context: Context) -> preempt.ContextName | None:
    counts = (context.preempt_count, context.softirq_disable_cnt)
    features = kernel.features
    return next(
        (
            name
            for name in CONTEXTS
            if counts == (preempt.preempt_count(features, name), preempt.softirq_disable_cnt(features, name))
        ),
        None,
    )


def _with(mask: int, bits: int, on: bool) -> int:
    return mask | bits if on else mask & ~bits


def _on(name: str, value: str | None) -> bool:
    if value is None:
        return True
    if value not in _SWITCHES:
        raise BadRequestError(f"{name} is {value!r}, not on or off")
    return _SWITCHES[value]


def _choice(name: str, value: str, choices: tuple[Any, ...]) -> Any:  # noqa: ANN401  (the caller's Literal)
    if value not in choices:
        raise BadRequestError(f"{name} is {value!r}, not one of {', '.join(choices)}")
    return value


def _number(name: str, value: str, low: int, high: int) -> int:
    if not _NUMBER.fullmatch(value):
        raise BadRequestError(f"{name} is {value!r}, which is no number")
    number = int(value, 16 if "x" in value.lower() else 10)
    if not low <= number <= high:
        raise BadRequestError(f"{name} is out of range: it goes from {low} to {high:#x}")
    return number


def _nodes(name: str, value: str) -> int:
    try:
        nodes = parse_nodelist(value)
    except ValueError:
        raise BadRequestError(f"{name} is {value!r}, which is no list of nodes") from None
    if nodes >> MAX_NUMNODES:
        raise BadRequestError(f"{name} holds a node above {MAX_NUMNODES - 1}")
    return nodes
