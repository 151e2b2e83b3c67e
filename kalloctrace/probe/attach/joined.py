# SPDX-License-Identifier: MIT
"""Joins two BPF programs that bcc compiled apart: one calls the other as a function of its own.

bcc does not link functions, and does not know functions of the kernel. The programs call stand-ins, which are found and
replaced here.
"""

import struct
from collections.abc import Iterator

CALL_LONG = 0x7FFF0001
"""The stand-in in one.bpf.c for the second program."""
CALL_CAST = 0x7FFF0002
"""Likewise for bpf_rdonly_cast()."""

# include/uapi/linux/bpf.h: struct bpf_insn, BPF_JMP | BPF_CALL
INSTRUCTION = struct.Struct("<BBhi")
_CALL = 0x85
_MOVE, _EXIT = 0xB7, 0x95
_PSEUDO_CALL = 1
_PSEUDO_KFUNC_CALL = 2

CAST_ALONE = b"".join(
    INSTRUCTION.pack(opcode, register, 0, value)
    for opcode, register, value in ((_MOVE, 1, 0), (_MOVE, 2, 0), (_CALL, 0, CALL_CAST), (_MOVE, 0, 0), (_EXIT, 0, 0))
)
"""A program that only calls bpf_rdonly_cast(), without a type."""


def join(short: bytes, long: bytes, rdonly_cast: int) -> bytes:
    """Return one program that begins with the first one, in which it calls the second one as a function.

    Args:
        short: the instructions of the program that is attached.
        long: the instructions of the function.
        rdonly_cast: the BTF id of bpf_rdonly_cast(); not used where no program calls it.

    Raises:
        ValueError: the first program does not call the second one.
    """
    start = len(short) // INSTRUCTION.size
    joined = patched(short + long, rdonly_cast, start)
    if joined[: len(short)] == short:
        raise ValueError("the first program calls no other")
    return joined


def patched(code: bytes, rdonly_cast: int, long: int = 0) -> bytes:
    """Return a program with its calls of the stand-ins replaced.

    Args:
        code: its instructions.
        rdonly_cast: the BTF id of bpf_rdonly_cast().
        long: the number of the instruction with which the function that `CALL_LONG` stands for begins.
    """
    return b"".join(_patched(code, rdonly_cast, long))


def _patched(code: bytes, rdonly_cast: int, long: int) -> Iterator[bytes]:
    for position, (opcode, registers, offset, value) in enumerate(INSTRUCTION.iter_unpack(code)):
        source, number = registers >> 4, value
        if opcode == _CALL and value == CALL_LONG:
            source, number = _PSEUDO_CALL, long - position - 1
        elif opcode == _CALL and value == CALL_CAST:
            source, number = _PSEUDO_KFUNC_CALL, rdonly_cast
        yield INSTRUCTION.pack(opcode, registers & 0xF | source << 4, offset, number)
