# SPDX-License-Identifier: MIT
"""How large the program's maps are, and those of them that it addresses without a look-up."""

import mmap

from kalloctrace.probe.attach.entry_code import refused
from kalloctrace.probe.attach.plan import Mode, Plan
from kalloctrace.probe.attach.programs import not_loaded
from kalloctrace.probe.layout import struct_dtype
from kalloctrace.probe.maps.percpu_buffer import buffer_bits, entry_dtype
from kalloctrace.probe.maps.single_value import LARGEST, create_single_value

RING_BYTES = 32 << 20
CACHE_BITS = 9
OVERFLOW = 65536
SPILLED_BYTES = 8 << 20
PENDING = 16384
FEW_BYTES = 4 << 20
TASK_COMMS_BYTES = 1 << 20
CGROUP_PATHS_BYTES = 1 << 20
BULK_RING_BYTES = 2 << 20
BULK_PENDING = 1024
SLOW_BYTES = 16 << 20
ZONES_BYTES = 16 << 20
SLOW_OPEN = 16384
STACKS = 16384


def size_constants(plan: Plan, cpus: int, *, stacks: bool) -> dict[str, int | str]:
    """Return the constants of the program that say how large its maps are.

    They depend on the next power of two from the number of CPUs on, so that one program serves many machines.

    Args:
        plan: what is attached to.
        cpus: how many there may be.
        stacks: stacks are captured too.
    """
    constants: dict[str, int | str] = {
        "PERCPU_BUFFER_BITS": event_bits(plan, cpus),
        "BUFFER_ENTRY_WORDS": _event_bytes(plan) // 8,
        "PENDING": PENDING,
        "CACHE_BITS": cache_bits(plan, cpus),
        "SENT_STACKS_PAGES": FEW_BYTES // mmap.PAGESIZE,
        "OVERFLOW": OVERFLOW,
        "SPILLED_PAGES": SPILLED_BYTES // mmap.PAGESIZE,
        "EVENTS_PAGES": FEW_BYTES // mmap.PAGESIZE,
        "RECORDS_PAGES": records_bytes(plan.mode) // mmap.PAGESIZE,
        "TASK_COMMS_PAGES": TASK_COMMS_BYTES // mmap.PAGESIZE,
        "CGROUP_PATHS_PAGES": CGROUP_PATHS_BYTES // mmap.PAGESIZE,
        "SLOW_PAGES": SLOW_BYTES // mmap.PAGESIZE,
        "ZONES_PAGES": ZONES_BYTES // mmap.PAGESIZE,
        "SLOW_OPEN": SLOW_OPEN,
        "BULK_PENDING": BULK_PENDING,
        "BULK_RING_PAGES": BULK_RING_BYTES // mmap.PAGESIZE,
        "NR_CPUS": power(cpus),
    }
    if stacks:
        constants["STACKS"] = STACKS
    return constants


def map_sizes(plan: Plan, cpus: int, *, stacks: bool) -> dict[str, int]:
    """Return the bytes of the maps that the program addresses without a look-up, by the constant's name.

    Args:
        plan: what is attached to.
        cpus: how many there may be.
        stacks: stacks are captured too.
    """
    lengths = plan.lengths()
    sizes = {
        "SLOTS": power(cpus) * struct_dtype("slot", lengths).itemsize,
        "FRAME_OFFSETS": struct_dtype("frame_offsets", lengths).itemsize,
    }
    if stacks:
        sizes["STACKS_SENT"] = STACKS
    if plan.one is not None:
        sizes["LOOK"] = struct_dtype("look").itemsize
    if plan.mode == "aggregate":
        sets = power(cpus) << cache_bits(plan, cpus)
        sizes["CELLS"] = sets * struct_dtype("cache_set", lengths).itemsize
    if plan.mode == "stream" and plan.one is not None:
        sizes["EVENTS"] = (power(cpus) << event_bits(plan, cpus)) * _event_bytes(plan)
    return sizes


def create_maps(plan: Plan, cpus: int, *, stacks: bool) -> dict[str, int]:
    """Create the maps of `map_sizes`; return their files by the constant's name.

    Raises:
        KalloctraceError: the kernel refused.
    """
    sizes = map_sizes(plan, cpus, stacks=stacks)
    try:
        return {name: create_single_value(name.lower(), size) for name, size in sizes.items()}
    except OSError as error:
        why = f"maps of {sum(sizes.values())} bytes: {error.strerror or error}"
        raise (not_loaded if plan.one is None else refused)(why) from error


def event_bits(plan: Plan, cpus: int) -> int:
    """Return the base-2 logarithm of the number of events that a CPU's buffer holds."""
    return buffer_bits(RING_BYTES, power(cpus), _event_bytes(plan))


def _event_bytes(plan: Plan) -> int:
    return entry_dtype(struct_dtype("event", plan.lengths())).itemsize


def power(number: int) -> int:
    """Return the smallest power of two that is not less."""
    return 1 << (number - 1).bit_length()


def cache_bits(plan: Plan, cpus: int) -> int:
    """Return the base-2 logarithm of the number of sets of a CPU's cache: fewer where all are too large for a value."""
    each = LARGEST // (power(cpus) * struct_dtype("cache_set", plan.lengths()).itemsize)
    return min(CACHE_BITS, each.bit_length() - 1)


def records_bytes(mode: Mode) -> int:
    """Return the size of the ring buffer for calls that are traced to their return; in other modes these are few."""
    return RING_BYTES if mode == "returns" else FEW_BYTES
