# SPDX-License-Identifier: MIT
"""What will be attached to a kernel, with which constants, decided before anything is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.btf import Btf
from kalloctrace.kernel.features import Features
from kalloctrace.kernel.live import LiveKernel, nr_node_ids

FREELIST = "get_page_from_freelist"
PREPARE = "prepare_alloc_pages"

MAX_NODEMASK_WORDS = 4
"""256 nodes: three nodemasks of more words do not fit on the 512 bytes of a BPF program's stack."""

_NODEMASK_POINTERS = ("nodemask_t *", "const nodemask_t *")


@dataclass(frozen=True)
class Plan:
    """The functions to attach to and the constants to compile in.

    Attributes:
        entry: the function that carries the preparation stage.
        prepare: `prepare_alloc_pages` is a function of its own on this kernel, so it is traced too.
        constants: preprocessor symbols of the BPF program.
    """

    entry: str
    prepare: bool
    constants: Mapping[str, int | str]

    def lengths(self) -> dict[str, int]:
        """Return the constants that `struct record` uses as lengths of arrays."""
        return {name: int(self.constants[name]) for name in ("NODEMASK_WORDS", "ALLOC_CONTEXT_WORDS")}


def prototype(btf: Btf, function: str) -> str:
    """Return a function's type as C text, such as `struct page * f(gfp_t, unsigned int, int, nodemask_t *)`."""
    parameters = btf.parameters(function)
    if parameters is None:
        return f"{function}: not described"
    return f"{btf.returns(function)} {function}({', '.join(parameters)})"


def check_prototypes(btf: Btf, features: Features) -> None:
    """Compare the functions with what the program takes them for, before anything is attached to them.

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
            "check that the kernel has CONFIG_DEBUG_INFO_BTF=y and that its release is supported: kalloctrace doctor",
        )
    fits = len(found) == len(expected) and all(
        got in want if isinstance(want, tuple) else got == want for got, want in zip(found, expected, strict=True)
    )
    if not fits or btf.returns(function) != "struct page *":
        wanted = ", ".join(want if isinstance(want, str) else want[0] for want in expected)
        raise KalloctraceError(
            f"will not attach to {function}",
            f"its prototype is {prototype(btf, function)}, expected struct page * {function}({wanted})",
            "nothing was attached; report the kernel's release, its rules must be learnt first",
        )


def make_plan(kernel: LiveKernel) -> Plan:
    """Decide what to attach to and find every constant of the program.

    Raises:
        KalloctraceError: a prototype differs, a symbol is missing, or the machine has too many nodes.
    """
    btf, features = kernel.btf, kernel.features
    check_prototypes(btf, features)
    node_count = nr_node_ids()
    words = -(-node_count // 64)
    if words > MAX_NODEMASK_WORDS:
        raise KalloctraceError(
            "cannot trace this machine",
            f"it may have {node_count} nodes, the program has room for {64 * MAX_NODEMASK_WORDS}",
            "boot with fewer possible nodes (numa=fake=, firmware settings)",
        )
    prepare = kernel.symbols.address(PREPARE) is not None
    constants: dict[str, int | str] = {
        "ENTRY": features.entry,
        "NODEMASK_WORDS": words,
        "ALLOC_CONTEXT_WORDS": btf.size("alloc_context") // 8,
        "ALLOC_CONTEXT__NODEMASK": btf.offset("alloc_context", "nodemask"),
        "ALLOC_CONTEXT__PREFERRED_ZONEREF": btf.offset("alloc_context", "preferred_zoneref"),
        "TASK_STRUCT__FLAGS": btf.offset("task_struct", "flags"),
        "TASK_STRUCT__MEMS_ALLOWED": btf.offset("task_struct", "mems_allowed"),
        "ZONEREF__ZONE": btf.offset("zoneref", "zone"),
        "ZONEREF__ZONE_IDX": btf.offset("zoneref", "zone_idx"),
        "PREEMPT_COUNT_ADDRESS": _preempt_count(kernel),
        "CPUSETS_ENABLED_ADDRESS": kernel.address("cpusets_enabled_key"),
        "GFP_ALLOWED_MASK_ADDRESS": kernel.address("gfp_allowed_mask"),
    }
    if features.entry_alloc_flags:
        constants["ENTRY_ALLOC_FLAGS"] = 1
    if features.defrag_mode:
        constants["DEFRAG_MODE_ADDRESS"] = kernel.address("defrag_mode")
    if prepare:
        constants["PREPARE_ALLOC_PAGES"] = 1
    return Plan(features.entry, prepare, constants)


def _preempt_count(kernel: LiveKernel) -> int:
    """Return the address (before the CPU's offset is added) of the preemption counter.

    Linux kernel commit 64701838bf05 ("x86/percpu: Move preempt_count next to current_task") (in v6.2) moved it into
    `struct pcpu_hot`; 6.15 made it a variable again.
    """
    if kernel.symbols.address("pcpu_hot") is not None:
        return kernel.address("pcpu_hot") + kernel.btf.offset("pcpu_hot", "preempt_count")
    return kernel.address("__preempt_count")
