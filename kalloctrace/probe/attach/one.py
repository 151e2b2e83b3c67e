# SPDX-License-Identifier: MIT
"""The single probe at get_page_from_freelist(): what it needs, its constants and maps, and its program of two parts."""

import mmap
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.btf import Btf
from kalloctrace.kernel.kcore import Kcore
from kalloctrace.kernel.live import LiveKernel
from kalloctrace.probe.attach.choice import Way
from kalloctrace.probe.attach.entry_code import Addresses, EntryCode, refused
from kalloctrace.probe.attach.filters import Filters
from kalloctrace.probe.attach.joined import CAST_ALONE, join, patched
from kalloctrace.probe.attach.programs import TRACE_FENTRY, TYPE_KPROBE, TYPE_TRACING, load_program
from kalloctrace.system_calls import PR_GET_IO_FLUSHER, PR_SET_IO_FLUSHER, prctl

SHORT, LONG, SCOPE, REJECT = "one_short", "one_long", "on_scope", "on_reject"
"""The programs of one.bpf.c: the attached one, the function that it calls, and those where the entry applies scopes and
where it rejects a request."""

_CURRENT_TASK = "bpf_get_current_task_btf"
"""Linux kernel commit 3ca1032ab7ab ("bpf: Introduce bpf_get_current_task_btf()") (in v5.11)."""
_CAST = "bpf_rdonly_cast"
"""Linux kernel commit a35b9af4ec2c ("bpf: Add a kfunc to type cast from bpf uapi ctx to kernel ctx") (in v6.2)."""

# include/uapi/linux/if_packet.h
_SOL_PACKET, _PACKET_RX_RING = 263, 5
_PACKETS = Path("/proc/net/packet")
_TOO_LARGE = 11
"""More than the largest order of a kernel from 5.10 to 7.3."""
_RING_GFP = 0x52DC0
"""GFP_KERNEL | __GFP_COMP | __GFP_ZERO | __GFP_NOWARN | __GFP_NORETRY, from 5.10 to 7.3: alloc_one_pg_vec_page() in
net/packet/af_packet.c, include/linux/gfp.h and gfp_types.h."""


def require(btf: Btf, way: Way, *, returns: bool) -> None:
    """Check that the kernel has what the program needs.

    Args:
        btf: its types.
        way: how the program is attached.
        returns: calls are traced to their return.

    Raises:
        OneRefusedError: it has not.
    """
    if returns:
        raise refused("it does not see what calls return (--returns)")
    if not btf.has_function(_CURRENT_TASK):
        raise refused(f"the kernel has no {_CURRENT_TASK}(), which came with Linux 5.11")
    if way != "fentry" and not btf.has_function(_CAST):
        raise refused(f"by {way} it needs {_CAST}(), which came with Linux 6.2")


def read_entry(kernel: LiveKernel, freelist: str) -> EntryCode:
    """Read the code of the running kernel's entry from its memory.

    Args:
        kernel: the running kernel.
        freelist: the name of get_page_from_freelist().

    Raises:
        OneRefusedError: the code is not as one probe needs it, or the memory cannot be read.
    """
    entry = kernel.features.entry
    start, end = kernel.address(entry), kernel.symbols.end_of(entry)
    if end is None:
        raise refused(f"the end of {entry} is not known")
    try:
        with Kcore() as kcore:
            code = kcore.read(start, end - start)
    except KalloctraceError as error:
        raise refused(error.why) from error
    at = Addresses(start, kernel.address(freelist), kernel.address("gfp_allowed_mask"))
    try:
        from kalloctrace.probe.attach.entry_reader import read_entry_code  # noqa: PLC0415  (loads capstone)
    except ImportError as error:
        raise refused(f"capstone cannot be loaded: {error}") from error
    return as_can_be_calibrated(read_entry_code(code, at, kernel.features))


def as_can_be_calibrated(code: EntryCode) -> EntryCode:
    """Return the code without the blocks whose probes this process cannot calibrate."""
    return replace(
        code,
        scope=code.scope if _can_be_in_scope() else None,
        reject=code.reject if _can_be_rejected() else None,
    )


def constants(kernel: LiveKernel, code: EntryCode, way: Way) -> dict[str, int | str]:
    """Return the constants of one.bpf.c, but for those of the maps and the filters.

    Args:
        kernel: the running kernel.
        code: what its entry's code shows.
        way: how the program is attached.
    """
    btf, features = kernel.btf, kernel.features
    found: dict[str, int | str] = {
        "ONE": 1,
        "RETURN_ADDRESS": kernel.address(features.entry) + code.returns_to,
    }
    if features.entry_alloc_flags:
        found["ALLOC_CONTEXT__ALLOC_FLAGS"] = btf.offset("alloc_context", "alloc_flags")
    if code.scope is not None:
        found |= {"SCOPE_GFP": code.scope.gfp_mask, "SCOPE_FLAGS": code.scope.flags}
    if code.reject is not None:
        found |= {f"REJECT_{name.upper()}": register for name, register in code.reject.registers.items()}
        found["MAX_ORDER"] = features.max_order
    if way == "fentry":
        found["BY_FENTRY"] = 1
    elif _casts_without_type(btf):
        found["UNTYPED_CAST"] = 1
    return found


def _casts_without_type(btf: Btf) -> bool:
    """Return whether bpf_rdonly_cast() accepts no type, for memory of which any bytes can be read.

    Linux kernel commit f2362a57aeff ("bpf: allow void* cast using bpf_rdonly_cast()") (in v6.17). Only trying shows it.
    """
    try:
        os.close(load_program(patched(CAST_ALONE, btf.function_id(_CAST)), TYPE_KPROBE, name="cast"))
    except OSError:
        return False
    return True


def filter_constants(kernel: LiveKernel, filters: Filters) -> dict[str, int | str]:
    """Return the constants of one.bpf.c by which calls are filtered: the zonelists of the chosen node.

    Args:
        kernel: the running kernel.
        filters: which calls are recorded.
    """
    if filters.nid is None:
        return {}
    names = {"FALLBACK": "ZONELIST", "NOFALLBACK": "ZONELIST_NOFALLBACK"}
    # A node that has none owns no call.
    none: dict[str, int | str] = dict.fromkeys(names.values(), 0)
    owned = kernel.layout.zonelist_addresses.items()
    return none | {names[kind]: address for address, (kind, nid) in owned if nid == filters.nid}


def with_cast(instructions: bytes, btf: Btf) -> bytes:
    """Return a program that calls bpf_rdonly_cast() where it called the stand-in.

    Args:
        instructions: the program, as bcc compiled it.
        btf: the kernel's types.
    """
    return patched(instructions, btf.function_id(_CAST)) if btf.has_function(_CAST) else instructions


def joined_program(instructions: Callable[[str], bytes], btf: Btf) -> bytes:
    """Return the program that is attached, with the function that it calls.

    Args:
        instructions: returns the instructions of a program by its name, as bcc compiled it.
        btf: the kernel's types.
    """
    cast = btf.function_id(_CAST) if btf.has_function(_CAST) else 0
    return join(instructions(SHORT), instructions(LONG), cast)


def load_fentry(instructions: Callable[[str], bytes], btf: Btf, function: str) -> int:
    """Load the program for the trampoline of a function, and return its file.

    Args:
        instructions: as of `joined_program`.
        btf: the kernel's types.
        function: the name of the function.

    Raises:
        OneRefusedError: the kernel refused.
    """
    code = joined_program(instructions, btf)
    try:
        return load_program(code, TYPE_TRACING, name=SHORT, attach_type=TRACE_FENTRY, btf_id=btf.function_id(function))
    except OSError as error:
        raise refused(error.strerror or str(error)) from error


def agreed_return(seen: Mapping[int, int], expected: int) -> int:
    """Return how far below ac the return address of a first call lies, if every measured call agrees.

    Args:
        seen: how many calls had it at each distance, in bytes; 0 for calls that returned elsewhere.
        expected: how many calls were made, at least.

    Raises:
        OneRefusedError: they do not agree, or some were not seen.
    """
    calls = sum(seen.values())
    if len(seen) != 1 or 0 in seen or calls < expected:
        raise refused(
            f"of {calls} calls of this process, {expected} at least, not all returned to the place behind the entry's "
            f"call: {dict(seen)}"
        )
    return next(iter(seen))


def _can_be_in_scope() -> bool:
    """Return whether `in_scope` is possible: it needs CAP_SYS_RESOURCE."""
    try:
        prctl(PR_GET_IO_FLUSHER)
    except OSError:
        return False
    return True


def _can_be_rejected() -> bool:
    """Return whether `be_rejected` is possible without loading a module: it needs CAP_NET_RAW."""
    if not _PACKETS.exists():
        return False
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    except OSError:
        return False
    return True


@contextmanager
def in_scope() -> Iterator[None]:
    """Let this thread run in a scope, by which the kernel clears __GFP_IO and __GFP_FS in its requests.

    Raises:
        OneRefusedError: the kernel refused.
    """
    try:
        prctl(PR_SET_IO_FLUSHER, 1)
    except OSError as error:
        raise refused(f"the probe for scopes cannot be calibrated (PR_SET_IO_FLUSHER): {error.strerror}") from error
    try:
        yield
    finally:
        prctl(PR_SET_IO_FLUSHER, 0)


def check_scope(seen: Mapping[tuple[int, int], int], usual: AbstractSet[int], cleared: int, expected: int) -> None:
    """Check that the probe for scopes sees what is asked for.

    Args:
        seen: how many calls in a scope there were, by the mask that the probe saw and the one that was left of it.
        usual: the masks of the same calls without a scope.
        cleared: the bits that the scope clears.
        expected: how many such calls were made, at least.

    Raises:
        OneRefusedError: a call differs.
    """
    wrong = {masks: times for masks, times in seen.items() if masks[0] & ~cleared != masks[1]}
    known = sum(times for (asked, left), times in seen.items() if asked in usual and asked != left)
    if wrong or known < expected:
        shown = {f"{asked:#x}, left {left:#x}": times for (asked, left), times in (wrong or seen).items()}
        raise refused(f"the probe for scopes saw other requests than were made: {shown}")


def be_rejected() -> None:
    """Make a request of too large an order: a block of a packet socket's ring. The kernel then uses vmalloc."""
    size = mmap.PAGESIZE << _TOO_LARGE
    ring = struct.pack("4I", size, 1, mmap.PAGESIZE, size // mmap.PAGESIZE)
    # The request is made, whether or not the ring is.
    with suppress(OSError), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as packets:
        packets.setsockopt(_SOL_PACKET, _PACKET_RX_RING, ring)


def check_rejected(seen: Mapping[tuple[int, int, int, int], int], nodes: int) -> None:
    """Check that the probe for rejected requests saw the one that `be_rejected` makes.

    Args:
        seen: how many requests it saw, by order, mask, node and address of the nodemask.
        nodes: one more than the largest node id.

    Raises:
        OneRefusedError: it saw something else.
    """
    made = [
        times == 1 and (order, gfp_mask, nodemask) == (_TOO_LARGE, _RING_GFP, 0) and nid < nodes
        for (order, gfp_mask, nid, nodemask), times in seen.items()
    ]
    if made != [True]:
        texts = [f"order {one[0]}, gfp {one[1]:#x}, node {one[2]}, nodemask {one[3]:#x}" for one in seen]
        raise refused(f"the probe for rejected requests saw other ones than were made: {'; '.join(texts) or 'none'}")
