# SPDX-License-Identifier: MIT
"""Reads the machine code of kernel functions: where a kprobe can become a jump, and where a function calls another.

The kernel hands a kprobe at the place that ftrace uses, at a function's start, to ftrace. That takes longer than the
jump that it makes of a kprobe anywhere else (CONFIG_OPTPROBES, Documentation/trace/kprobes.rst). Right behind that
place nothing of the function has run yet: arguments and stack pointer are as at its start.
"""

_ENDBR = tuple(map(bytes.fromhex, ("f30f1efa", "660f1f00", "0f1f40d6")))
"""endbr64, and what different releases put in its place in functions that are never called through a pointer:
gen_endbr_poison() in arch/x86/include/asm/ibt.h.
"""
_UNUSED = tuple(map(bytes.fromhex, ("0f1f440000", "6666666690")))
_USED = b"\xe8"
_SITE_BYTES = 5
"""What may be at the place for ftrace: one of two long nops, or a call."""

_JUMP = b"\xe9"

CODE_BYTES = 4 + _SITE_BYTES

_CALL = 0xE8
"""x86: call with a 32-bit displacement, relative to the end of the instruction."""
CALL_BYTES = 5


def past_ftrace(code: bytes) -> int:
    """Return the offset of the instruction after the place for ftrace; 0 if the code does not begin as expected.

    Args:
        code: the first `CODE_BYTES` bytes of a function.
    """
    start = 4 if code.startswith(_ENDBR) else 0
    return start + _SITE_BYTES if code[start:].startswith((*_UNUSED, _USED)) else 0


def is_jump(code: bytes) -> bool:
    """Return whether a kprobe has become a jump, and is no breakpoint any more.

    Args:
        code: the bytes in memory at its address. The kernel's own list of kprobes calls a kprobe optimized too early.
    """
    return code.startswith(_JUMP)


def call_sites(code: bytes, address: int, target: int) -> list[int]:
    """Return the offsets of all direct calls of a function.

    Bytes inside another instruction that look like such a call are included. A match is unlikely there, and the kernel
    rejects a kprobe that is not at the start of an instruction.

    Args:
        code: the code of the calling function.
        address: the address of that code.
        target: the address of the called function.
    """
    return [
        offset
        for offset in range(len(code) - CALL_BYTES + 1)
        if code[offset] == _CALL and address + offset + CALL_BYTES + _displacement(code, offset) == target
    ]


def _displacement(code: bytes, offset: int) -> int:
    return int.from_bytes(code[offset + 1 : offset + CALL_BYTES], "little", signed=True)
