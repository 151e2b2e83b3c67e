# SPDX-License-Identifier: MIT
"""What-if requests as JSON objects: read strictly, and answered with the preparation.

An object names a kernel, an order and, unless the entry takes none, a gfp mask. Any other key that is missing has the
kernel's usual value: task context without scope flags, cpusets off, all nodes allowed, the gfp_allowed_mask of a booted
kernel, and one node with memory in DMA, DMA32 and Normal.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from kalloctrace.errors import KalloctraceError
from kalloctrace.flags.decode import U32_MAX, decode_alloc
from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.features import Features
from kalloctrace.kernel.machine import Machine, ZoneRef, default_fallback_order, machine_of
from kalloctrace.kernel.nodelist import MAX_NUMNODES
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model import page_alloc, preempt
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import (
    ALL_NODES,
    NUMA_NO_NODE,
    Context,
    Entry,
    ImpossibleRequestError,
    Preparation,
    Request,
    UnknownFact,
)

U64_MAX = (1 << 64) - 1
_CACHED = 4096
_CACHED_TEXT = 1024
"""Characters of a machine's description up to which it is cached: larger machines take megabytes each."""

CONTEXT_KEYS = frozenset({"task_flags", "preempt_count", "context", "numa_node_id", "machine"})
"""Members of a request that describe its context and machine."""

REQUEST_KEYS = CONTEXT_KEYS | {"kernel", "entry", "gfp", "order", "preferred_nid", "nodemask", "alloc_flags"}

MACHINE_KEYS = frozenset(
    {
        *("cpusets_enabled", "mems_allowed", "gfp_allowed_mask", "page_group_by_mobility_disabled"),
        *("defrag_mode", "config_cma", "nodes", "fallback_order"),
    }
)


class BadRequestError(ValueError):
    """The object is not a valid request, or has no answer; the text says why, on one line."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A valid request, and how the kernel prepares it."""

    kernel: Kernel
    request: Request
    context: Context
    preparation: Preparation


class WhatIf:
    """Answers what-if requests; caches kernels and machines.

    Args:
        snapshot_of: resolves a kernel's name; by default to the built-in kernels.
    """

    def __init__(self, snapshot_of: Callable[[str], Snapshot] = builtin_snapshot) -> None:
        """Start with an empty cache."""
        self._snapshot_of = snapshot_of
        self._kernels: dict[str, Kernel] = {}
        self._machines: dict[tuple[str, str, str, bool], Kernel] = {}

    def answer(self, data: object) -> Answer:
        """Answer one request.

        Args:
            data: the request, as `json` reads it.

        Raises:
            BadRequestError: the request is not valid, or this kernel and machine cannot answer it.
        """
        fields = _mapping(data, "the request")
        _check_keys(fields, REQUEST_KEYS, "")
        machine = _mapping(fields.get("machine", {}), "machine")
        _check_keys(machine, MACHINE_KEYS, "machine.")
        kernel = self._kernel(_text(fields, "kernel"), machine)
        request = _request(fields, kernel)
        context = _context(fields, machine, kernel)
        try:
            preparation = page_alloc.alloc_pages(kernel, request, context)
        except (ImpossibleRequestError, UnknownFact) as error:
            raise BadRequestError(str(error)) from None
        return Answer(kernel, request, context, preparation)

    def _kernel(self, name: str, machine: Mapping[str, Any]) -> Kernel:
        base = self._kernels.get(name)
        if base is None:
            try:
                base = Kernel.of(self._snapshot_of(name))
            except KalloctraceError as error:
                raise BadRequestError(f"{error.what}: {error.why}") from None
            _keep(self._kernels, name, base)
        cma = _boolean(machine, "config_cma", default=base.features.config_cma)
        if "nodes" not in machine and "fallback_order" not in machine and cma == base.features.config_cma:
            return base
        # As text, because 1 and true are the same key of a dictionary.
        key = (name, repr(machine.get("nodes")), repr(machine.get("fallback_order")), cma)
        kernel = self._machines.get(key)
        if kernel is None:
            kernel = base.on(_machine(machine, base), replace(base.features, config_cma=cma))
            if sum(map(len, key[:3])) <= _CACHED_TEXT:
                _keep(self._machines, key, kernel)
        return kernel


def takes_gfp(features: Features, entry: str) -> bool:
    """Return whether an entry has a gfp mask among its arguments; the first one without locks had a fixed mask."""
    return entry != "nolock" or features.nolock != "fixed"


def answer_json(name: str, answer: Answer) -> dict[str, Any]:
    """Return an answer as the JSON object of the contract.

    Args:
        name: the kernel's name in the request.
        answer: the answer.
    """
    done, tables = answer.preparation, answer.kernel.tables
    prepared = done.outcome == "prepared"
    preferred = done.preferred_zone
    return {
        "type": "preparation",
        "kernel": name,
        "outcome": done.outcome,
        "reason": done.reason,
        "warns": done.warns,
        "gfp": done.gfp,
        "alloc_flags": done.alloc_flags,
        "alloc_flags_names": None if done.alloc_flags is None else decode_alloc(done.alloc_flags, tables).names,
        "highest_zoneidx": done.highest_zoneidx,
        "zone": None if done.highest_zoneidx is None else tables.zone_name(done.highest_zoneidx),
        "migratetype": done.migratetype,
        "migratetype_name": None if done.migratetype is None else tables.migratetype_name(done.migratetype),
        "zonelist": {"kind": done.zonelist_kind, "nid": done.zonelist_nid} if prepared else None,
        "nodemask": done.nodemask,
        "preferred_zone": None if preferred is None else _zone_json(preferred, answer.kernel),
        "spread_dirty_pages": done.spread_dirty_pages,
        "steps": [{"rule": step.rule, "function": step.function, "effect": step.effect} for step in done.steps],
    }


def _zone_json(ref: ZoneRef, kernel: Kernel) -> dict[str, Any]:
    return {"node": ref.node, "zone": kernel.tables.zone_name(ref.zone)}


def _request(fields: Mapping[str, Any], kernel: Kernel) -> Request:
    entry: Entry = _choice(fields, "entry", get_args(Entry), "normal")
    nodes = kernel.machine.fallback
    if not nodes:
        raise BadRequestError("the nodes of this machine are unknown: a trace imported from another tool has none")
    nid = _integer(fields, "preferred_nid", NUMA_NO_NODE, MAX_NUMNODES - 1, default=min(nodes))
    if nid not in nodes and not (entry == "nolock" and nid == NUMA_NO_NODE):
        raise BadRequestError(f"preferred_nid {nid} is not a node of the machine, which has {sorted(nodes)}")
    return Request(
        gfp_mask=_integer(fields, "gfp", 0, U32_MAX, default=None if takes_gfp(kernel.features, entry) else 0),
        order=_integer(fields, "order", 0, U32_MAX),
        preferred_nid=nid,
        nodemask=None if fields.get("nodemask") is None else _nodes(fields["nodemask"], "nodemask"),
        alloc_flags=_integer(fields, "alloc_flags", 0, U32_MAX, default=0),
        entry=entry,
    )


def _context(fields: Mapping[str, Any], machine: Mapping[str, Any], kernel: Kernel) -> Context:
    usual = kernel.machine
    mems_allowed = machine.get("mems_allowed")
    name = _context_name(fields)
    raw = _integer(fields, "preempt_count", 0, U64_MAX) if "preempt_count" in fields else None
    return Context(
        cpusets_enabled=_boolean(machine, "cpusets_enabled", default=usual.cpusets_enabled),
        gfp_allowed_mask=_integer(machine, "gfp_allowed_mask", 0, U32_MAX, default=usual.gfp_allowed_mask),
        task_flags=_integer(fields, "task_flags", 0, U32_MAX, default=0),
        mems_allowed=_nodes(mems_allowed, "mems_allowed") if "mems_allowed" in machine else ALL_NODES,
        defrag_mode=_boolean(machine, "defrag_mode", default=usual.defrag_mode),
        page_group_by_mobility_disabled=_boolean(
            machine, "page_group_by_mobility_disabled", default=usual.page_group_by_mobility_disabled
        ),
        numa_node_id=_integer(fields, "numa_node_id", 0, MAX_NUMNODES - 1) if "numa_node_id" in fields else None,
        preempt_count=_preempt_count(raw, name, kernel, given="context" in fields),
        softirq_disable_cnt=preempt.softirq_disable_cnt(kernel.features, name),
    )


def _context_name(fields: Mapping[str, Any]) -> preempt.ContextName:
    name: preempt.ContextName = _choice(fields, "context", get_args(preempt.ContextName), "task")
    return name


def _preempt_count(raw: int | None, name: preempt.ContextName, kernel: Kernel, *, given: bool) -> int:
    """Return the raw preempt_count of a request; `given` says whether the request names its context."""
    named = preempt.preempt_count(kernel.features, name)
    highest = (1 << preempt.preempt_count_bits(kernel.features)) - 1
    if raw is None:
        return named
    if raw > highest:
        raise BadRequestError(f"preempt_count is out of range: it goes from 0 to {highest:#x}")
    if given and raw != named:
        raise BadRequestError(f"preempt_count {raw:#x} is not context {name!r} ({named:#x}): give one of them")
    return raw


def _machine(data: Mapping[str, Any], base: Kernel) -> Machine:
    if "nodes" in data:
        nodes = {
            _nid_key(nid, "nodes"): _zones(zones, base)
            for nid, zones in _mapping(data["nodes"], "machine.nodes").items()
        }
        if not nodes:
            raise BadRequestError("machine.nodes is empty: a machine has at least one node")
    elif "fallback_order" in data:
        nodes = {node.nid: [zone.index for zone in node.zones if zone.present_pages] for node in base.machine.nodes}
    else:
        return base.machine
    order = {nid: default_fallback_order(nid, nodes) for nid in nodes}
    for key, given in _mapping(data.get("fallback_order", {}), "machine.fallback_order").items():
        nid = _nid_key(key, "fallback_order")
        visited = _nids(given, f"machine.fallback_order of node {nid}")
        foreign = {nid, *visited} - nodes.keys()
        if foreign:
            raise BadRequestError(f"machine.fallback_order names {sorted(foreign)}, which machine.nodes lacks")
        if len(set(visited)) != len(visited):
            raise BadRequestError(f"machine.fallback_order of node {nid} visits a node twice")
        order[nid] = visited
    return machine_of(nodes, fallback_order=order, gfp_allowed_mask=base.machine.gfp_allowed_mask)


def _zones(names: object, kernel: Kernel) -> list[int]:
    if not isinstance(names, list):
        raise BadRequestError("machine.nodes holds a list of zone names per node")
    zones = set()
    for name in names:
        index = kernel.tables.zone_index(name) if isinstance(name, str) else None
        if index is None:
            raise BadRequestError(f"{name!r} is not a zone of this kernel")
        zones.add(index)
    return sorted(zones)


def _nid_key(text: str, where: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and int(text) < MAX_NUMNODES):
        raise BadRequestError(f"machine.{where} has the key {text!r}, which is not a node id")
    return int(text)


def _nids(value: object, name: str) -> list[int]:
    if not isinstance(value, list):
        raise BadRequestError(f"{name} is not a list of node ids")
    for nid in value:
        if type(nid) is not int or not 0 <= nid < MAX_NUMNODES:
            raise BadRequestError(f"{name} holds {nid!r}, which is not a node id from 0 to {MAX_NUMNODES - 1}")
    return value


def _nodes(value: object, name: str) -> int:
    nodes = 0
    for nid in _nids(value, name):
        nodes |= 1 << nid
    return nodes


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadRequestError(f"{name} is not an object")
    return value


def _check_keys(data: Mapping[str, Any], known: frozenset[str], prefix: str) -> None:
    unknown = data.keys() - known
    if unknown:
        raise BadRequestError(f"unknown key {', '.join(prefix + key for key in sorted(unknown))}")


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str):
        raise BadRequestError(f"{key} is missing" if key not in data else f"{key} is not a string")
    return value


def _choice(data: Mapping[str, Any], key: str, choices: tuple[Any, ...], default: str) -> Any:  # noqa: ANN401  (the caller's Literal)
    value = data.get(key, default)
    if value not in choices:
        raise BadRequestError(f"{key} is {value!r}, not one of {', '.join(choices)}")
    return value


def _integer(data: Mapping[str, Any], key: str, low: int, high: int, *, default: int | None = None) -> int:
    value = data.get(key, default)
    # isinstance() would take true and false for numbers.
    if type(value) is not int:
        raise BadRequestError(f"{key} is missing" if key not in data else f"{key} is not an integer")
    if not low <= value <= high:
        raise BadRequestError(f"{key} is out of range: it goes from {low} to {high:#x}")
    return value


def _boolean(data: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = data.get(key, default)
    if not isinstance(value, bool):
        raise BadRequestError(f"{key} is not true or false")
    return value


def _keep(cache: dict[Any, Kernel], key: object, kernel: Kernel) -> None:
    # Endless input must not fill the memory; dropped entries are rebuilt when needed.
    if len(cache) >= _CACHED:
        cache.clear()
    cache[key] = kernel
