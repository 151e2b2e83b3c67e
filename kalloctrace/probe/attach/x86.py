# SPDX-License-Identifier: MIT
"""x86-64 machine code of the kernel: its instructions, and the registers that they move and change."""

from collections.abc import Iterator
from itertools import chain

from capstone import CS_ARCH_X86, CS_GRP_CALL, CS_MODE_64, Cs, CsError, CsInsn
from capstone.x86 import X86_INS_CMPXCHG, X86_INS_MOV, X86_INS_MOVSXD, X86_OP_MEM, X86_OP_REG, X86_REG_RIP, X86Op

_LETTERS = {name: (f"{name}l", f"{name}h", f"{name}x", f"e{name}x", f"r{name}x") for name in "abcd"}
_POINTERS = {name: (f"{name}l", name, f"e{name}", f"r{name}") for name in ("si", "di", "bp", "sp")}
_NUMBERED = {name: (name, f"{name}d", f"{name}w", f"{name}b") for name in (f"r{number}" for number in range(8, 16))}
_WHOLE = {
    part: name
    for name, parts in chain(
        ((f"{letter}x", parts) for letter, parts in _LETTERS.items()), _POINTERS.items(), _NUMBERED.items()
    )
    for part in parts
}
"""The general register that each name is a part of, as `struct pt_regs` names it."""

_WHOLE_ARGUMENT = 4
"""Bytes of the smallest arguments of the functions that are read here."""


class UnknownCodeError(Exception):
    """The code has an instruction that is not known, or ends within one. The text of the error has its bytes."""


def instructions(code: bytes, start: int = 0) -> Iterator[CsInsn]:
    """Yield the instructions from an offset on, in the order in which they lie in memory.

    Addresses, also those of jumps and calls, are offsets in the code.

    Raises:
        UnknownCodeError: an instruction is not known, or the code ends within one.
    """
    decoder = Cs(CS_ARCH_X86, CS_MODE_64)
    decoder.detail = True
    end = start
    for one in decoder.disasm(code[start:], start):
        end = one.address + one.size
        yield one
    if end < len(code):
        raise UnknownCodeError(code[end : end + 15].hex(" "))


def begins_at(code: bytes, offset: int) -> bool:
    """Return whether the bytes at an offset are an instruction."""
    return any(True for _ in Cs(CS_ARCH_X86, CS_MODE_64).disasm(code[offset : offset + 15], offset, 1))


def register(one: CsInsn, operand: X86Op) -> str | None:
    """Return the general register that an operand is, or is a part of; None if it is something else."""
    return _WHOLE.get(one.reg_name(operand.reg)) if operand.type == X86_OP_REG else None


def memory(one: CsInsn, operand: X86Op) -> int | None:
    """Return the offset in the code of an operand that is addressed relative to the instruction; None for others."""
    if operand.type != X86_OP_MEM or operand.mem.base != X86_REG_RIP:
        return None
    offset: int = one.address + one.size + operand.mem.disp
    return offset


def copied(one: CsInsn) -> tuple[str, str] | None:
    """Return which register an instruction moves to which other one; None if it moves none."""
    if one.id not in (X86_INS_MOV, X86_INS_MOVSXD) or one.operands[1].size < _WHOLE_ARGUMENT:
        return None
    to, source = (register(one, operand) for operand in one.operands)
    return None if to is None or source is None else (source, to)


def written(one: CsInsn) -> frozenset[str] | None:
    """Return the general registers that an instruction changes; None if that is not known, so that it may be all."""
    # Capstone 5 leaves rax out of what cmpxchg changes.
    if one.group(CS_GRP_CALL) or one.id == X86_INS_CMPXCHG:
        return None
    try:
        _, changed = one.regs_access()
    except CsError:
        return None
    names = (one.reg_name(number) for number in changed)
    return frozenset(_WHOLE[name] for name in names if name in _WHOLE)
