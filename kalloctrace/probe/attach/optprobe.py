# SPDX-License-Identifier: MIT
"""Reads the machine code of kernel functions: where a kprobe can become a jump, and where a function calls another.

The kernel hands a kprobe at the place that ftrace uses, at a function's start, to ftrace. That takes longer than the
jump that it makes of a kprobe anywhere else (CONFIG_OPTPROBES, Documentation/trace/kprobes.rst). Right behind that
place nothing of the function has run yet: arguments and stack pointer are as at its start.
"""

_ENDBR = tuple(map(bytes.fromhex, ("f30f1efa", "660f1f00", "0f1f40d6")))
"""endbr64, and what the kernel puts in its place where it jumps to the function by no pointer: gen_endbr_poison() in
arch/x86/include/asm/ibt.h, of different releases.
"""
_UNUSED = tuple(map(bytes.fromhex, ("0f1f440000", "6666666690")))
_USED = b"\xe8"
_SITE_BYTES = 5
"""What is at the place for ftrace: a long nop, of either kind, or a call."""

_JUMP = b"\xe9"

CODE_BYTES = 4 + _SITE_BYTES

_CALL = 0xE8
"""x86: call, with a distance of 32 bits from its end."""
CALL_BYTES = 5


def past_ftrace(code: bytes) -> int:
    """Return how far the first instruction of its own lies from a function's start; 0 where that is not plain to see.

    Args:
        code: its first `CODE_BYTES` bytes.
    """
    start = 4 if code.startswith(_ENDBR) else 0
    return start + _SITE_BYTES if code[start:].startswith((*_UNUSED, _USED)) else 0


def is_jump(code: bytes) -> bool:
    """Tell whether a kprobe is a jump by now, and no breakpoint any more.

    Args:
        code: what is in memory at its place. The kernel's own list of kprobes calls it optimized before it is.
    """
    return code.startswith(_JUMP)


def call_sites(code: bytes, address: int, target: int) -> list[int]:
    """Return the offsets of all calls of a function.

    What merely looks like a call, within another instruction, is not told apart: that it names the very function is
    unlikely, and the kernel refuses a kprobe that is at no instruction's start.

    Args:
        code: a function's code.
        address: where it lies.
        target: the address of the function that is called.
    """
    return [
        offset
        for offset in range(len(code) - CALL_BYTES + 1)
        if code[offset] == _CALL and address + offset + CALL_BYTES + _distance(code, offset) == target
    ]


def _distance(code: bytes, offset: int) -> int:
    return int.from_bytes(code[offset + 1 : offset + CALL_BYTES], "little", signed=True)
