# SPDX-License-Identifier: MIT
"""One input of a request set to another value, as `explain --set` takes it.

A setting is NAME, NAME=on, NAME=off or NAME=VALUE: `cpusets`, `PF_MEMALLOC_NOFS`, `__GFP_WRITE=off`, `order=1`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, get_args

from kalloctrace.errors import KalloctraceError
from kalloctrace.explain.request import Answer, BadRequestError
from kalloctrace.flags.decode import U32_MAX, parse_flags
from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.nodelist import MAX_NUMNODES, format_nodelist, parse_nodelist
from kalloctrace.model import page_alloc, preempt
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import Context, Entry, ImpossibleRequestError, Request, UnknownFact

CONTEXTS: tuple[preempt.ContextName, ...] = get_args(preempt.ContextName)

_NUMBER = re.compile(r"-?(?:0[xX][0-9a-fA-F]{1,16}|\d{1,20})", re.ASCII)
_NODE_LIST = re.compile(r"(?:\d{1,4}(?:-\d{1,4})?(?:,\d{1,4}(?:-\d{1,4})?)*)?", re.ASCII)
_SWITCHES = {"on": True, "off": False, "1": True, "0": False}
_SWITCH_NAMES = ("cpusets", "defrag_mode", "page_group_by_mobility_disabled")
_NODE_SETS = ("nodemask", "mems_allowed")
_MASKS = ("gfp", "alloc_flags", "task_flags", "gfp_allowed_mask")

Value = bool | int | str | None


@dataclass(frozen=True, slots=True)
class Setting:
    """One input and its new value.

    Attributes:
        name: the input: a PF_ or __GFP_ name, or one of those that `parse_setting` lists.
        value: on or off, a number, a mask, a set of nodes (bit n is node n), a name; None is the NULL nodemask.
    """

    name: str
    value: Value

    @property
    def text(self) -> str:
        """The setting as `explain --set` takes it."""
        if isinstance(self.value, bool):
            return self.name if self.value else f"{self.name}=off"
        if self.value is None:
            return f"{self.name}=null"
        if isinstance(self.value, int) and self.name in _NODE_SETS:
            return f"{self.name}={format_nodelist(self.value)}"
        if isinstance(self.value, int) and self.name in _MASKS:
            return f"{self.name}={self.value:#x}"
        return f"{self.name}={self.value}"


def parse_setting(kernel: Kernel, text: str) -> Setting:
    """Read a setting.

    Args:
        kernel: the kernel whose names are meant.
        text: NAME, NAME=on, NAME=off or NAME=VALUE.

    Raises:
        BadRequestError: there is no such input, or it cannot have that value.
    """
    name, has_value, value = text.partition("=")
    name, value, tables = name.strip(), value.strip(), kernel.tables
    pf = dict(tables.pf)
    if name in pf or tables.has_gfp(name) or name in _SWITCH_NAMES:
        if name == "defrag_mode" and not kernel.features.defrag_mode:
            raise BadRequestError(f"kernel {tables.kernel} has no sysctl vm.defrag_mode")
        return Setting(name, _on(name, value) if has_value else True)
    if name not in _READERS:
        raise BadRequestError(
            f"kernel {tables.kernel} has no input {name!r}: use one of {', '.join(pf)}, a __GFP_ name, "
            f"{', '.join(_SWITCH_NAMES)}, or one of {', '.join(f'{known}=' for known in _READERS)}"
        )
    if not has_value:
        raise BadRequestError(f"{name} needs a value: {name}=…")
    try:
        return Setting(name, _READERS[name](kernel, name, value))
    except KalloctraceError as error:
        raise BadRequestError(f"{error.what}: {error.why}") from None


def with_setting(answer: Answer, setting: Setting) -> Answer:
    """Answer the same request with one input changed.

    Args:
        answer: the request as it was.
        setting: the input and its value.

    Raises:
        BadRequestError: the kernel leaves the changed request without an answer.
    """
    try:
        kernel, request, context = _apply(answer, setting)
        return Answer(kernel, request, context, page_alloc.alloc_pages(kernel, request, context))
    except (ImpossibleRequestError, UnknownFact) as error:
        raise BadRequestError(str(error)) from None
    except KalloctraceError as error:
        raise BadRequestError(f"{error.what}: {error.why}") from None


_OF_REQUEST = {
    "gfp": "gfp_mask",
    "order": "order",
    "nid": "preferred_nid",
    "nodemask": "nodemask",
    "entry": "entry",
    "alloc_flags": "alloc_flags",
}
_OF_CONTEXT = {
    "cpusets": "cpusets_enabled",
    "defrag_mode": "defrag_mode",
    "page_group_by_mobility_disabled": "page_group_by_mobility_disabled",
    "preempt_count": "preempt_count",
    "mems_allowed": "mems_allowed",
    "gfp_allowed_mask": "gfp_allowed_mask",
    "task_flags": "task_flags",
    "numa_node_id": "numa_node_id",
}


def _apply(answer: Answer, setting: Setting) -> tuple[Kernel, Request, Context]:
    kernel, request, context = answer.kernel, answer.request, answer.context
    name, value = setting.name, setting.value
    new: Any = value
    pf = dict(kernel.tables.pf)
    if name in pf:
        return kernel, request, replace(context, task_flags=_with(context.task_flags, pf[name], bool(value)))
    if kernel.tables.has_gfp(name):
        mask = _with(request.gfp_mask, kernel.tables.gfp(name), bool(value))
        return kernel, replace(request, gfp_mask=mask), context
    if name in _OF_REQUEST:
        changes: Mapping[str, Any] = {_OF_REQUEST[name]: new}
        return kernel, replace(request, **changes), context
    if name in _OF_CONTEXT:
        changes = {_OF_CONTEXT[name]: new}
        return kernel, request, replace(context, **changes)
    if name == "context":
        return kernel, request, _running_in(kernel, context, new)
    return _on_kernel(answer, new)


def _running_in(kernel: Kernel, context: Context, where: preempt.ContextName) -> Context:
    return replace(
        context,
        preempt_count=preempt.preempt_count(kernel.features, where),
        softirq_disable_cnt=preempt.softirq_disable_cnt(kernel.features, where),
    )


def _on_kernel(answer: Answer, name: str) -> tuple[Kernel, Request, Context]:
    """Put the request and its machine under another built-in kernel.

    Numbers keep their meaning, not their value: the running context is laid out as the other kernel does it, and its
    own gfp_allowed_mask holds. The gfp mask keeps its value.
    """
    kernel, context = answer.kernel, answer.context
    known = _built_in(name)
    if known.tables.zone_type != kernel.tables.zone_type:
        raise BadRequestError(f"kernel {name} numbers its zones differently from this machine")
    there = known.on(kernel.machine)
    where = context_name(kernel, context)
    if where is None:
        raise BadRequestError(f"preempt_count {context.preempt_count} has no counterpart on kernel {name}")
    pf = dict(there.tables.pf)
    flags = sum(pf.get(scope, 0) for scope, bit in kernel.tables.pf if context.task_flags & bit)
    there_context = replace(context, gfp_allowed_mask=known.machine.gfp_allowed_mask, task_flags=flags)
    return there, answer.request, _running_in(there, there_context, where)


@lru_cache(maxsize=64)
def _built_in(name: str) -> Kernel:
    return Kernel.of(builtin_snapshot(name))


def context_name(kernel: Kernel, context: Context) -> preempt.ContextName | None:
    """Return the named context that has this preempt_count; None where no named one has it."""
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


def parse_number(text: str) -> int:
    """Read a decimal or 0x hex number of at most 64 bits.

    Raises:
        ValueError: the text is not such a number.
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return int(text, 16 if "x" in text.lower() else 10)


def parse_nodes(text: str) -> int:
    """Read a list of nodes such as "0,2-3" as a bit mask.

    Raises:
        ValueError: the text is not such a list, or a range runs backwards.
    """
    if not _NODE_LIST.fullmatch(text):
        raise ValueError(text)
    return parse_nodelist(text)


def parse_task_flags(text: str, tables: FlagTables) -> int:
    """Read current->flags: a number, PF_ names, or both joined by |.

    Raises:
        ValueError: a part is neither; its argument is that part.
    """
    known = dict(tables.pf)
    flags = 0
    for part in text.split("|"):
        word = part.strip()
        flags |= known[word] if word in known else parse_number(word)
    return flags


def _with(mask: int, bits: int, on: bool) -> int:
    return mask | bits if on else mask & ~bits


def _on(name: str, value: str) -> bool:
    if value not in _SWITCHES:
        raise BadRequestError(f"{name} is {value!r}, not on or off")
    return _SWITCHES[value]


def _choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise BadRequestError(f"{name} is {value!r}, not one of {', '.join(choices)}")
    return value


def _number(name: str, text: str, low: int, high: int) -> int:
    try:
        number = parse_number(text)
    except ValueError:
        raise BadRequestError(f"{name} is {text!r}, which is not a number") from None
    return _in_range(name, number, low, high)


def _in_range(name: str, number: int, low: int, high: int) -> int:
    if not low <= number <= high:
        raise BadRequestError(f"{name} is out of range: it goes from {low} to {high:#x}")
    return number


def _task_flags(kernel: Kernel, text: str) -> int:
    try:
        flags = parse_task_flags(text, kernel.tables)
    except ValueError as error:
        raise BadRequestError(f"task_flags has {error.args[0]!r}, which is neither a number nor a PF_ name") from None
    return _in_range("task_flags", flags, 0, U32_MAX)


def _nodes(name: str, text: str) -> int:
    try:
        return parse_nodes(text)
    except ValueError:
        raise BadRequestError(f"{name} is {text!r}, which is not a list of nodes") from None


def _node(kernel: Kernel, text: str) -> int:
    nid, nodes = _number("nid", text, -1, MAX_NUMNODES - 1), sorted(kernel.machine.fallback)
    if nid not in nodes:
        raise BadRequestError(f"nid {nid} is not a node of the machine, which has {nodes}")
    return nid


_READERS: Mapping[str, Callable[[Kernel, str, str], Value]] = {
    "kernel": lambda _, __, text: text,
    "gfp": lambda kernel, _, text: parse_flags(text, kernel.tables),
    "order": lambda _, name, text: _number(name, text, 0, U32_MAX),
    "nid": lambda kernel, _, text: _node(kernel, text),
    "nodemask": lambda _, name, text: None if text.lower() == "null" else _nodes(name, text),
    "entry": lambda _, name, text: _choice(name, text, get_args(Entry)),
    "alloc_flags": lambda kernel, _, text: parse_flags(text, kernel.tables, "alloc_flags"),
    "task_flags": lambda kernel, _, text: _task_flags(kernel, text),
    "context": lambda _, name, text: _choice(name, text, CONTEXTS),
    "preempt_count": lambda kernel, name, text: _number(
        name, text, 0, (1 << preempt.preempt_count_bits(kernel.features)) - 1
    ),
    "mems_allowed": lambda _, name, text: _nodes(name, text),
    "gfp_allowed_mask": lambda kernel, _, text: parse_flags(text, kernel.tables),
    "numa_node_id": lambda _, name, text: _number(name, text, 0, MAX_NUMNODES - 1),
}
