# SPDX-License-Identifier: MIT
"""Where a kprobe becomes a jump: behind the place at a function's start that ftrace uses.

There the kernel hands a kprobe to ftrace, which takes longer than the jump that it makes of one anywhere else
(CONFIG_OPTPROBES, Documentation/trace/kprobes.rst). Nothing of the function has run at that place either: arguments and
stack pointer are as at its start.
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
