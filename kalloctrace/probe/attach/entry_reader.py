# SPDX-License-Identifier: MIT
"""Reads the machine code of the entry: where it calls get_page_from_freelist(), and where what is gone by then is seen.

Between the entry's first instruction and that call, the compiler reuses registers. Two blocks apart from the usual way
still have what a call lacks later: the one that applies the scopes of a task (NOFS, NOIO, PIN) to the mask, and the one
that rejects a request. They are reached by a conditional jump that is hardly ever taken, so a kprobe there costs other
calls nothing. The block is known by the test before that jump, and the registers by what was moved to them since the
start of the function.
"""

from collections.abc import Mapping
from itertools import pairwise

from capstone import CsInsn
from capstone.x86 import X86_INS_AND, X86_INS_CMP, X86_INS_JA, X86_INS_JNE, X86_INS_TEST, X86_OP_IMM

from kalloctrace.kernel.features import Features
from kalloctrace.probe.attach.entry_code import (
    PF_MEMALLOC_NOFS,
    PF_MEMALLOC_NOIO,
    Addresses,
    EntryCode,
    RejectBlock,
    ScopeBlock,
    refused,
)
from kalloctrace.probe.attach.optprobe import call_sites
from kalloctrace.probe.attach.x86 import UnknownCodeError, begins_at, copied, instructions, memory, register, written

_ARGUMENTS = {"di": "gfp_mask", "si": "order", "dx": "preferred_nid", "cx": "nodemask", "r8": "alloc_flags"}
"""The registers that the entry's arguments come in: System V Application Binary Interface, AMD64."""


def read_entry_code(code: bytes, at: Addresses, features: Features) -> EntryCode:
    """Read the code of the entry.

    Args:
        code: all of it, as it is in memory.
        at: where it lies.
        features: of the kernel.

    Raises:
        OneRefusedError: the entry does not call get_page_from_freelist() exactly once.
    """
    sites = call_sites(code, at.entry, at.freelist)
    if len(sites) != 1:
        raise refused(f"the entry has {len(sites)} calls of get_page_from_freelist, and 1 is expected")
    gfp_allowed_mask = at.gfp_allowed_mask - at.entry
    try:
        before = list(instructions(code[: sites[0]]))
    except UnknownCodeError:
        return EntryCode(sites[0], None)
    return EntryCode(
        sites[0], _scope(code, before, gfp_allowed_mask), _reject(code, before, gfp_allowed_mask, features)
    )


def _scope(code: bytes, before: list[CsInsn], gfp_allowed_mask: int) -> ScopeBlock | None:
    """Return where scopes are applied: behind a test of the task's flags, after gfp_allowed_mask was."""
    masked = None
    for one, jump in pairwise(before):
        masked = _masked(one, gfp_allowed_mask) or masked
        both = PF_MEMALLOC_NOFS | PF_MEMALLOC_NOIO
        if masked is None or one.id != X86_INS_TEST or jump.id != X86_INS_JNE:
            continue
        tested, bits = one.operands
        if register(one, tested) is not None and bits.type == X86_OP_IMM and bits.imm & both == both:
            offset = _target(jump)
            return ScopeBlock(offset, masked, bits.imm) if begins_at(code, offset) else None
    return None


def _masked(one: CsInsn, gfp_allowed_mask: int) -> str | None:
    """Return the register that an instruction applies gfp_allowed_mask to; None if it does not."""
    if one.id != X86_INS_AND or memory(one, one.operands[1]) != gfp_allowed_mask:
        return None
    return register(one, one.operands[0])


def _target(jump: CsInsn) -> int:
    offset: int = jump.operands[0].imm
    return offset


def _reject(code: bytes, before: list[CsInsn], gfp_allowed_mask: int, features: Features) -> RejectBlock | None:
    """Return where a request ends whose order is too large: behind the last test of it before the mask is changed."""
    expected = {name for name in _ARGUMENTS.values() if name != "alloc_flags" or features.entry_alloc_flags}
    holding = dict(_ARGUMENTS)
    found = None
    for one, jump in pairwise(before):
        if _masked(one, gfp_allowed_mask):
            break
        if _compares(one, features.max_order, holding) and jump.id == X86_INS_JA:
            registers = {name: held for held, name in holding.items() if name in expected}
            found = RejectBlock(_target(jump), registers) if set(registers) == expected else None
        holding = _after(one, holding)
    return found if found is not None and begins_at(code, found.offset) else None


def _compares(one: CsInsn, limit: int, holding: Mapping[str, str]) -> bool:
    """Return whether an instruction compares the order with the largest one."""
    if one.id != X86_INS_CMP:
        return False
    compared, most = one.operands
    return most.type == X86_OP_IMM and most.imm == limit and holding.get(register(one, compared) or "") == "order"


def _after(one: CsInsn, holding: Mapping[str, str]) -> dict[str, str]:
    """Return which register holds which argument after an instruction; the newest one, if several do."""
    changed = written(one)
    if changed is None:
        return {}
    left = {held: name for held, name in holding.items() if held not in changed}
    copy = copied(one)
    if copy is not None and copy[0] in holding:
        left[copy[1]] = holding[copy[0]]
    return left
