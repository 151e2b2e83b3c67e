# SPDX-License-Identifier: MIT
"""Decides what to attach to a kernel, and finds the constants of the program, before anything is loaded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, Self

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.btf import Btf
from kalloctrace.kernel.cgroups import Hierarchy, find_hierarchy
from kalloctrace.kernel.features import Features
from kalloctrace.kernel.kcore import Kcore
from kalloctrace.kernel.live import NOLOCKS, LiveKernel, has_tracepoint, nr_node_ids
from kalloctrace.probe.attach import one
from kalloctrace.probe.attach.choice import NOTHING_ASKED, Asked, Attachment, Shown, Way, choose_attachment
from kalloctrace.probe.attach.entry_code import EntryCode, OneRefusedError
from kalloctrace.probe.attach.groups import group_constants
from kalloctrace.probe.attach.joined import CALL_CAST
from kalloctrace.probe.attach.kprobes import Hook
from kalloctrace.probe.attach.links import counts_multi, counts_perf
from kalloctrace.probe.attach.optprobe import CALL_BYTES, call_sites
from kalloctrace.probe.layout import constant
from kalloctrace.trace.inferred import INFERRED, Inferred

FREELIST = "get_page_from_freelist"
PREPARE = "prepare_alloc_pages"
SLOWPATH = "__alloc_pages_slowpath"

MAX_NODEMASK_WORDS = 4
"""256 nodes: three larger nodemasks do not fit on the 512-byte stack of a BPF program."""

BULKS = ("alloc_pages_bulk_noprof", "__alloc_pages_bulk")
"""The bulk allocator, newest name first.

Linux kernel commit 387ba26fb1cb ("mm/page_alloc: add a bulk page allocator") (in v5.13),
b951aaff5035 ("mm: enable page allocation tagging") (in v6.10).
"""

Mode = Literal["aggregate", "stream", "returns"]
"""What the program records: counts of equal calls, an event for each call, or a record for each call at its return."""

By = Literal["comm", "cgroup"]
"""What aggregate mode counts calls by in addition to the request: the name of the task, or its control group."""

_BY_WORDS: Mapping[By | None, int] = {None: 0, "comm": constant("TASK_COMM_LEN") // 8, "cgroup": 1}
"""How many words `struct allocation` has for it."""

_SLOW_EVENTS = {
    "RECLAIM": "vmscan/mm_vmscan_direct_reclaim_begin",
    "COMPACTION": "compaction/mm_compaction_try_to_compact_pages",
    "OOM_VICTIM": "oom/mark_victim",
}
"""The tracepoints between two attempts of the slow path, by the constant in slow.bpf.c."""

_PART_EVENTS = {
    "COMPACTION_ZONES": ("compaction/mm_compaction_begin", "compaction/mm_compaction_end"),
    "LOCKS": ("lock/contention_begin", "lock/contention_end"),
}
"""The tracepoints at which another part of a slow-path call's time begins, by the constant in parts.bpf.c.

Linux kernel commit 16edd9b511a1 ("locking: Add lock contention tracepoints") (in v5.19).
"""

_THROTTLES: Mapping[str, Mapping[str, str]] = {
    "THROTTLED": {"reclaim_throttle": "vmscan/mm_vmscan_throttled"},
    "CONGESTED": {
        "congestion_wait": "writeback/writeback_congestion_wait",
        "wait_iff_congested": "writeback/writeback_wait_iff_congested",
    },
}
"""The functions in which direct reclaim may sleep, and the tracepoint where each has slept, by the constant.

Linux kernel commit 8cd7c588decf ("mm/vmscan: throttle reclaim until some writeback completes if congested") (in v5.16)
replaced those of CONGESTED.
"""

_PART_FUNCTIONS = {"try_to_free_pages": "on_reclaim", "out_of_memory": "on_oom"}
"""The functions with which another part begins and that have no tracepoint there, with the program of each."""

_NODEMASK_POINTERS = ("nodemask_t *", "const nodemask_t *")
_Parameters = Sequence[str | tuple[str, ...]]

_BULK_PARAMETERS: tuple[_Parameters, ...] = (
    ("gfp_t", "int", _NODEMASK_POINTERS, "int", "struct page * *"),
    ("gfp_t", "int", _NODEMASK_POINTERS, "int", "struct list_head *", "struct page * *"),
)
_NOLOCK_PARAMETERS: Mapping[str, _Parameters] = {
    "fixed": ("int", "unsigned int"),
    "gfp_flags": ("gfp_t", "int", "unsigned int"),
}

_CONTEXT_MEMBERS = (
    "zonelist",
    "nodemask",
    "preferred_zoneref",
    "migratetype",
    "highest_zoneidx",
    "spread_dirty_pages",
)

_MEMCG_KMEM = ("memcg_kmem_online_key", "memcg_kmem_enabled_key")
"""The static key that memcg_kmem_online() reads, newest name first.

Linux kernel commit f7a449f77960 ("mm: memcontrol: rename memcg_kmem_enabled()") (in v6.3).
"""


_ENTRY_ONLY = "fprobe_ftrace_entry"
"""What a kernel has whose kprobe.multi uses ftrace, and not the function graph tracer, where no return is traced.

Linux kernel commit 2c67dc457bc6 ("tracing: fprobe: optimization for entry only case") and cd06078a38aa ("tracing:
fprobe: use ftrace if CONFIG_DYNAMIC_FTRACE_WITH_ARGS"): after 6.19, in 7.1. Before, a hit costs more than a jump.
"""


class UnknownPrototypeError(Exception):
    """An optional function has an unknown prototype. The text of the error is that prototype."""


@dataclass(frozen=True)
class Plan:
    """The functions to attach to and the constants to compile in.

    Attributes:
        entry: the function that contains the preparation stage.
        nolock: the entry without locks, if it has its own preparation stage; None otherwise.
        bulk: the bulk allocator; None if the kernel has none.
        prepare: `prepare_alloc_pages` is not inlined and is traced too.
        slow: the offset in the entry, in bytes, of its call of the slow path; None if the slow path is not traced.
        left_out: the unknown prototypes of functions that are not traced for that reason.
        constants: preprocessor symbols of the BPF program.
        mode: what the program records.
        attachment: how the functions are attached to.
        parts: the functions with which another part of a slow-path call's time begins, with the program of each.
        one: the entry's code, if one probe is attached and not the pair.
        hierarchy: whose control groups are recorded; None if none are.
        by: what calls are counted by in addition to the request; None for nothing.
        audit: how the pair is attached beside one probe for an audit; None if there is none.
    """

    entry: str
    nolock: str | None
    bulk: str | None
    prepare: bool
    slow: int | None
    left_out: tuple[str, ...]
    constants: Mapping[str, int | str]
    mode: Mode
    attachment: Attachment
    parts: Mapping[str, str] = field(default_factory=dict)
    one: EntryCode | None = None
    hierarchy: Hierarchy | None = None
    by: By | None = None
    audit: Way | None = None

    @property
    def inferred(self) -> tuple[Inferred, ...]:
        """Return the facts that are inferred; see `kalloctrace.trace.inferred`."""
        if self.one is None:
            return ()
        return tuple(fact for fact in INFERRED if fact != "scope_bits" or self.one.scope is None)

    @property
    def attach(self) -> str:
        """Return how the functions are attached to, as the trace names it: `pair:multi` and the like."""
        return str(self.attachment)

    def because(self, refusal: KalloctraceError) -> Self:
        """Return the plan with the reason why the pair is attached."""
        reason = f"{self.attachment.reason}; one probe is refused: {refusal.why}"
        return replace(self, attachment=replace(self.attachment, reason=reason))

    def without_bulk(self) -> Self:
        """Return the plan without the bulk allocator."""
        return replace(self, bulk=None, constants={n: v for n, v in self.constants.items() if n != "BULK"})

    def without_slow(self) -> Self:
        """Return the plan without the slow path."""
        return replace(self, slow=None, constants={n: v for n, v in self.constants.items() if n != "SLOW"})

    def with_audit(self, way: Way, calls: int) -> Self:
        """Return the plan, of one probe, with the pair that audits it.

        Args:
            way: how that pair is attached.
            calls: how many different calls it can count.
        """
        by_fentry = {"AUDIT_BY_FENTRY": 1} if way == "fentry" else {}
        return replace(self, audit=way, constants={**self.constants, "AUDIT": calls, **by_fentry})

    def attached(self) -> list[str]:
        """Return the functions that are attached to."""
        optional = (self.nolock, self.bulk, PREPARE if self.prepare else None)
        entry = () if self.one is not None else (self.entry,)
        return [*entry, FREELIST, *(name for name in optional if name is not None)]

    def sources(self) -> list[str]:
        """Return the files of the BPF program, in the order in which they are joined."""
        parts = {
            "common": True,
            "cgroup": self.hierarchy is not None,
            "parts": self.slow is not None,
            "slow": self.slow is not None,
            "bulk": self.bulk,
            "nolock": self.nolock,
            "context": self.mode != "returns",
            self.mode: self.mode != "returns",
            "pair": self.mode != "returns" and self.one is None,
            "one": self.one is not None,
            "audit": self.audit is not None,
            "alloc": self.mode == "returns",
            "prepare": self.prepare,
            "fentry" if self.attachment.way == "fentry" else "kprobe": True,
        }
        return [f"{name}.bpf.c" for name, included in parts.items() if included]

    def hooks(self) -> list[Hook]:
        """Return where kprobes are attached: of functions unless these have trampolines, and of places inside."""
        hooks = []
        if self.slow is not None:
            # Not at the function itself: not every kernel allows that (in Debian's 5.10 ftrace does not know it). Both
            # addresses are reached only by the slow path.
            hooks = [
                Hook(self.entry, "on_slowpath", hot=False, offset=self.slow),
                Hook(self.entry, "on_slowpath_return", hot=False, offset=self.slow + CALL_BYTES),
                *(Hook(function, program, hot=False) for function, program in self.parts.items()),
            ]
        if self.one is not None and self.one.scope is not None:
            hooks.append(Hook(self.entry, one.SCOPE, hot=False, offset=self.one.scope.offset))
        if self.one is not None and self.one.reject is not None:
            hooks.append(Hook(self.entry, one.REJECT, hot=False, offset=self.one.reject.offset))
        if self.prepare:
            hooks.append(Hook(PREPARE, "on_prepare", hot=False))
            hooks.append(Hook(PREPARE, "on_prepared", at_return=True, hot=False))
        return hooks if self.attachment.way == "fentry" else [*hooks, *self._function_hooks()]

    def trampolines(self) -> list[Hook]:
        """Return where trampolines are attached, but for that of one probe."""
        if self.attachment.way != "fentry":
            return []
        return [hook for hook in self._function_hooks() if hook.program != one.SHORT]

    def _function_hooks(self) -> list[Hook]:
        entries = {"nolock": self.nolock, "bulk": self.bulk}
        hooks = [Hook(FREELIST, "on_freelist" if self.one is None else one.SHORT)]
        if self.one is None:
            entries["entry"] = self.entry
        for name, function in entries.items():
            if function is not None:
                hooks.append(Hook(function, f"on_{name}"))
                if name != "entry" or self.mode == "returns":
                    hooks.append(Hook(function, f"on_{name}_return", at_return=True))
        return hooks

    def lengths(self) -> dict[str, int]:
        """Return the constants that record.h uses as lengths of arrays."""
        names = ("NODEMASK_WORDS", "ALLOC_CONTEXT_WORDS", "ZONE_WORDS", "BY_WORDS")
        return {name: int(self.constants[name]) for name in names}


def prototype(btf: Btf, function: str) -> str:
    """Return a function's type as C text, such as `struct page * f(gfp_t, unsigned int, int, nodemask_t *)`."""
    parameters = btf.parameters(function)
    if parameters is None:
        return f"{function}: not described"
    return f"{btf.return_type(function)} {function}({', '.join(parameters)})"


def check_prototypes(btf: Btf, features: Features) -> None:
    """Check that the functions have the prototypes that the program expects, before anything is attached.

    Raises:
        KalloctraceError: a function is missing or has another type.
    """
    entry: list[str | tuple[str, ...]] = ["gfp_t", "unsigned int", "int", _NODEMASK_POINTERS]
    if features.entry_alloc_flags:
        entry.append("unsigned int")
    _check(btf, features.entry, entry)
    _check(btf, FREELIST, ["gfp_t", "unsigned int", "int", "const struct alloc_context *"])


def _check(btf: Btf, function: str, expected: list[str | tuple[str, ...]]) -> None:
    found = btf.parameters(function)
    if found is None:
        raise KalloctraceError(
            f"cannot attach to {function}",
            "the kernel's BTF describes no such function",
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y and a supported release; see: kalloctrace doctor",
        )
    if not _fits(found, expected) or btf.return_type(function) != "struct page *":
        parameters = ", ".join(one if isinstance(one, str) else one[0] for one in expected)
        raise KalloctraceError(
            f"will not attach to {function}",
            f"its prototype is {prototype(btf, function)}, expected struct page * {function}({parameters})",
            "nothing was attached; this kernel is not supported yet, report its release",
        )


def _fits(found: Sequence[str], expected: _Parameters) -> bool:
    return len(found) == len(expected) and all(
        got in one if isinstance(one, tuple) else got == one for got, one in zip(found, expected, strict=True)
    )


def find_nolock(btf: Btf, features: Features) -> str | None:
    """Return the entry without locks if it has its own preparation stage, otherwise None.

    Raises:
        UnknownPrototypeError: its prototype is unknown.
    """
    parameters = _NOLOCK_PARAMETERS.get(features.nolock)
    if parameters is None:
        return None
    function = next(name for name, kind in NOLOCKS.items() if kind == features.nolock and btf.has_function(name))
    if not _fits(btf.parameters(function) or (), parameters) or btf.return_type(function) != "struct page *":
        raise UnknownPrototypeError(prototype(btf, function))
    return function


def find_bulk(btf: Btf) -> str | None:
    """Return the bulk allocator, None if the kernel has none.

    Raises:
        UnknownPrototypeError: its prototype is unknown.
    """
    function = next((name for name in BULKS if btf.has_function(name)), None)
    if function is None:
        return None
    found = btf.parameters(function) or ()
    if not any(_fits(found, known) for known in _BULK_PARAMETERS) or btf.return_type(function) != "long unsigned int":
        raise UnknownPrototypeError(prototype(btf, function))
    return function


def find_slow(kernel: LiveKernel) -> int | None:
    """Return the offset in the entry, in bytes, of its call of the slow path; None unless there is exactly one call."""
    slow = kernel.symbols.compiled_name(SLOWPATH)
    target = None if slow is None else kernel.symbols.address(slow)
    start, end = kernel.address(kernel.features.entry), kernel.symbols.end_of(kernel.features.entry)
    if target is None or end is None:
        return None
    with Kcore() as kcore:
        sites = call_sites(kcore.read(start, end - start), start, target)
    return sites[0] if len(sites) == 1 else None


def shown_by(kernel: LiveKernel) -> Shown:
    """Return what decides how to attach to this kernel."""
    multi = counts_multi(kernel.btf) and counts_perf(kernel.btf)
    cheap = kernel.symbols.address(_ENTRY_ONLY) is not None or (multi and not _exits_by_fgraph(kernel.btf))
    return Shown(kernel.preemption, multi, cheap)


def _exits_by_fgraph(btf: Btf) -> bool:
    """Return whether kprobe.multi is built on the function graph tracer.

    Linux kernel commit 4346ba160409 ("fprobe: Rewrite fprobe on function-graph tracer") (in v6.14) removed `rethook`.
    """
    return not btf.has_member("fprobe", "rethook")


# The checks of a recorder ask for the plan too.
@lru_cache(maxsize=2)
def make_plan(kernel: LiveKernel, mode: Mode = "aggregate", asked: Asked = NOTHING_ASKED, by: By | None = None) -> Plan:
    """Decide what to attach to, and find every constant of the program.

    Args:
        kernel: the running kernel.
        mode: what the program records.
        asked: how to attach.
        by: what aggregate mode counts calls by in addition to the request; None for nothing.

    Raises:
        KalloctraceError: a prototype is unknown, a symbol is missing, the machine has too many possible nodes, it has
            no control groups to count by, or the kernel cannot be attached to as asked.
    """
    plan = _pair_plan(kernel, mode, asked, by)
    if asked.probes == "pair":
        return plan
    try:
        return _with_one(kernel, plan)
    except OneRefusedError as error:
        if asked.probes is not None:
            raise
        return plan.because(error)


def _pair_plan(kernel: LiveKernel, mode: Mode, asked: Asked, by: By | None) -> Plan:
    btf, features = kernel.btf, kernel.features
    check_prototypes(btf, features)
    node_count = nr_node_ids()
    words = -(-node_count // 64)
    if words > MAX_NODEMASK_WORDS:
        raise KalloctraceError(
            "cannot trace this machine",
            f"it has {node_count} possible nodes; the program supports {64 * MAX_NODEMASK_WORDS}",
            "boot with fewer possible nodes: numa=off or numa=fake=, or change firmware settings",
        )
    left_out: list[str] = []
    nolock = _optional(left_out, lambda: find_nolock(btf, features))
    bulk = _optional(left_out, lambda: find_bulk(btf))
    prepare = mode == "returns" and kernel.symbols.address(PREPARE) is not None
    attachment = choose_attachment(asked, shown_by(kernel))
    constants: dict[str, int | str] = {
        "NODEMASK_WORDS": words,
        "ALLOC_CONTEXT_WORDS": btf.size("alloc_context") // 8,
        **{f"ALLOC_CONTEXT__{name.upper()}": btf.offset("alloc_context", name) for name in _CONTEXT_MEMBERS},
        "TASK_STRUCT__FLAGS": btf.offset("task_struct", "flags"),
        "TASK_STRUCT__PID": btf.offset("task_struct", "pid"),
        "TASK_STRUCT__TGID": btf.offset("task_struct", "tgid"),
        "TASK_STRUCT__MEMS_ALLOWED": btf.offset("task_struct", "mems_allowed"),
        "TASK_STRUCT__CPU": _task_cpu(btf),
        "ZONE_WORDS": btf.size("zone") // 8,
        "ZONEREF__ZONE": btf.offset("zoneref", "zone"),
        "ZONEREF__ZONE_IDX": btf.offset("zoneref", "zone_idx"),
        "PREEMPT_COUNT_ADDRESS": _preempt_count(kernel),
        "CPUSETS_ENABLED_ADDRESS": kernel.address("cpusets_enabled_key"),
        "GFP_ALLOWED_MASK_ADDRESS": kernel.address("gfp_allowed_mask"),
    }
    constants |= _feature_constants(kernel) | _without_locks(kernel)
    slow = find_slow(kernel)
    constants |= _slow_constants(kernel) if slow is not None else {}
    if nolock is not None:
        constants |= _nolock_constants(kernel)
    if bulk is not None:
        constants |= _bulk_constants(kernel, bulk)
    if mode == "returns":
        constants["RETURNS"] = 1
    elif btf.has_function("bpf_get_current_task_btf"):
        # Linux kernel commit 3ca1032ab7ab ("bpf: Introduce bpf_get_current_task_btf()") (in v5.11).
        constants["CURRENT_BTF"] = 1
    constants |= _way_constants(btf, attachment.way)
    hierarchy = find_hierarchy()
    groups = {} if hierarchy is None else group_constants(btf, hierarchy)
    constants |= groups | {"BY_WORDS": _BY_WORDS[by]}
    if by == "cgroup" and not groups:
        raise KalloctraceError(
            "cannot count calls by their control group",
            "no hierarchy of control groups is mounted, or the kernel has none",
            "mount one: mount -t cgroup2 none /sys/fs/cgroup; or count by --by comm",
        )
    if by is not None:
        constants |= {f"BY_{by.upper()}": 1, "TASK_STRUCT__COMM": btf.offset("task_struct", "comm")}
    return Plan(
        *(features.entry, nolock, bulk, prepare, slow, tuple(left_out), constants, mode, attachment),
        parts=_part_functions(kernel, constants),
        hierarchy=hierarchy if groups else None,
        by=by,
    )


def _with_one(kernel: LiveKernel, plan: Plan) -> Plan:
    """Return the plan with one probe in place of the pair.

    Raises:
        OneRefusedError: it is not possible on this kernel.
    """
    way = plan.attachment.way
    one.require(kernel.btf, way, returns=plan.mode == "returns")
    code = one.read_entry(kernel, FREELIST)
    constants = {**plan.constants, **one.constants(kernel, code, way)}
    return replace(plan, one=code, attachment=replace(plan.attachment, probes="one"), constants=constants)


def _feature_constants(kernel: LiveKernel) -> dict[str, int | str]:
    features = kernel.features
    constants: dict[str, int | str] = {}
    if features.entry_alloc_flags:
        constants["ENTRY_ALLOC_FLAGS"] = 1
    if features.defrag_mode:
        constants["DEFRAG_MODE_ADDRESS"] = kernel.address("defrag_mode")
    if features.reads_task_flags:
        constants["TASK_FLAGS"] = 1
    if features.config_preempt_rt:
        constants["TASK_STRUCT__SOFTIRQ_DISABLE_CNT"] = kernel.btf.offset("task_struct", "softirq_disable_cnt")
    return constants


def _way_constants(btf: Btf, way: Way) -> dict[str, int | str]:
    if way == "fentry":
        return {"TYPED_CONTEXT": 1}
    constants: dict[str, int | str] = {}
    if btf.has_function("bpf_rdonly_cast"):
        # Linux kernel commit a35b9af4ec2c ("bpf: Add a kfunc for generic type cast") (in v6.2).
        constants = {"RDONLY_CAST": CALL_CAST, "ALLOC_CONTEXT_ID": btf.struct_id("alloc_context")}
    if way == "multi" and _exits_by_fgraph(btf):
        constants["RETURN_BY_FGRAPH"] = btf.size("pt_regs")
    return constants


def _optional(left_out: list[str], find: Callable[[], str | None]) -> str | None:
    try:
        return find()
    except UnknownPrototypeError as error:
        left_out.append(str(error))
        return None


def _without_locks(kernel: LiveKernel) -> dict[str, int | str]:
    """Return the bit of alloc_flags that an allocation without locks has, if the kernel has one."""
    alloc = dict(kernel.tables.alloc)
    found = [alloc[name] for name in ("ALLOC_NOLOCK", "ALLOC_TRYLOCK") if name in alloc]
    return {"ALLOC_NOLOCK": found[0]} if found else {}


def _slow_constants(kernel: LiveKernel) -> dict[str, int | str]:
    btf = kernel.btf
    return {
        "SLOW": 1,
        "ZONEREF_SIZE": btf.size("zoneref"),
        "TASK_STRUCT__PRIO": btf.offset("task_struct", "prio"),
        "TASK_STRUCT__SIGNAL": btf.offset("task_struct", "signal"),
        "SIGNAL_STRUCT__OOM_MM": btf.offset("signal_struct", "oom_mm"),
        **{constant: 1 for constant, event in _SLOW_EVENTS.items() if has_tracepoint(event)},
        **{constant: 1 for constant, events in _PART_EVENTS.items() if all(map(has_tracepoint, events))},
        **{
            constant: 1
            for constant, events in _THROTTLES.items()
            if all(kernel.symbols.address(function) and has_tracepoint(event) for function, event in events.items())
        },
    }


def _part_functions(kernel: LiveKernel, constants: Mapping[str, int | str]) -> dict[str, str]:
    if "SLOW" not in constants:
        return {}
    throttles = {f: f"on_{f}" for constant, events in _THROTTLES.items() if constant in constants for f in events}
    return {f: program for f, program in (_PART_FUNCTIONS | throttles).items() if kernel.symbols.address(f) is not None}


def _nolock_constants(kernel: LiveKernel) -> dict[str, int | str]:
    constants: dict[str, int | str] = {
        "NOLOCK": 1,
        "NUMA_NODE_ADDRESS": kernel.address("numa_node"),
    }
    if kernel.features.nolock == "gfp_flags":
        constants["NOLOCK_GFP_FLAGS"] = 1
    return constants


def _bulk_constants(kernel: LiveKernel, function: str) -> dict[str, int | str]:
    constants: dict[str, int | str] = {
        "BULK": 1,
        "BULK_ARGUMENTS": len(kernel.btf.parameters(function) or ()),
    }
    keys = {"MEMCG_KMEM_ADDRESS": _MEMCG_KMEM, "PAGE_OWNER_ADDRESS": ("page_owner_inited",)}
    for name_of_key, names in keys.items():
        found = [address for name in names if (address := kernel.symbols.address(name)) is not None]
        if found:
            constants[name_of_key] = found[0]
    flags = kernel.page_flags
    if flags is not None:
        constants |= {
            "PAGE__FLAGS": kernel.btf.offset("page", "flags"),
            "NODES_PGSHIFT": flags.nodes_pgshift,
            "ZONES_PGSHIFT": flags.zones_pgshift,
            "ZONES_MASK": flags.zones_mask,
        }
    return constants


def _task_cpu(btf: Btf) -> int:
    """Return the offset of a task's CPU in `struct task_struct`.

    Linux kernel commit bcf9033e5449 ("sched: move CPU field back into thread_info if THREAD_INFO_IN_TASK=y"), in
    v5.16.
    """
    if btf.has_member("task_struct", "cpu"):
        return btf.offset("task_struct", "cpu")
    return btf.offset("task_struct", "thread_info") + btf.offset("thread_info", "cpu")


def _preempt_count(kernel: LiveKernel) -> int:
    """Return the per-CPU address of the preemption counter, without the offset of the CPU.

    Linux kernel commit 64701838bf05 ("x86/percpu: Move preempt_count next to current_task") (in v6.2) moved it into
    `struct pcpu_hot`; 6.15 made it a variable again.
    """
    if kernel.symbols.address("pcpu_hot") is not None:
        return kernel.address("pcpu_hot") + kernel.btf.offset("pcpu_hot", "preempt_count")
    return kernel.address("__preempt_count")
