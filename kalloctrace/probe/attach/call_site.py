# SPDX-License-Identifier: MIT
"""Finds where one function of the kernel calls another, in its code."""

_CALL = 0xE8
"""x86: call, with a distance of 32 bits from its end."""
CALL_BYTES = 5


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
