# SPDX-License-Identifier: MIT
"""Static keys: switches that the kernel turns by rewriting its own code."""

from collections.abc import Collection, Iterator
from struct import iter_unpack, pack

from kalloctrace.errors import KalloctraceError
from tests.compiled.image import Image, Segment

_ENTRY = "<iiq"
"""`struct jump_entry`: code, target and key, each relative to itself; include/linux/jump_label.h:117 of 6.12.118-1."""
_CODE, _TARGET, _KEY, _SIZE = 0, 4, 8, 16

_BRANCH = 1
"""The lowest bit of the key: the site jumps while the key is off; include/linux/jump_label.h:161 of 6.12.118-1."""
_FLAGS = 3

_JMP8, _JMP32 = 0xEB, 0xE9
_NOPS = {2: bytes.fromhex("6690"), 5: bytes.fromhex("0f1f440000")}
"""BYTES_NOP2 and BYTES_NOP5 of 64 bits: arch/x86/include/asm/nops.h:57 of 6.12.118-1."""


def switched(image: Image, keys_on: Collection[str], keys_off: Collection[str]) -> Iterator[Segment]:
    """Yield the code at each site of these keys as the kernel writes it.

    Source: `__jump_label_patch` in arch/x86/kernel/jump_label.c.

    Args:
        image: the image.
        keys_on: names of keys that are enabled.
        keys_off: names of keys that are not.

    Raises:
        KalloctraceError: a key has no site, or a site no code of a kind that is known.
    """
    enabled = {image.symbols.addresses[key]: key in keys_on for key in (*keys_on, *keys_off)}
    seen = set()
    base = image.symbols.addresses["__start___jump_table"]
    table = image.between("__start___jump_table", "__stop___jump_table")
    for index, (code, target, key) in enumerate(iter_unpack(_ENTRY, table)):
        entry = base + index * _SIZE
        address = entry + _KEY + (key & ~_FLAGS)
        if address not in enabled:
            continue
        seen.add(address)
        jumps = enabled[address] != bool(key & _BRANCH)
        yield _site(image, entry + _CODE + code, entry + _TARGET + target, jumps=jumps)
    if len(seen) < len(enabled):
        raise KalloctraceError(
            f"cannot switch the static keys of {image.name}",
            f"the jump table has {len(seen)} of the {len(enabled)} keys",
            "report the version of its package",
        )


def _site(image: Image, code: int, target: int, *, jumps: bool) -> Segment:
    before = image.read(code, 5)
    if before[0] == _JMP8 or before[:2] == _NOPS[2]:
        size = 2
    elif before[0] == _JMP32 or before == _NOPS[5]:
        size = 5
    else:
        raise KalloctraceError(
            f"cannot switch the static keys of {image.name}",
            f"neither a jump nor a NOP is at {code:#x}: {before.hex()}",
            "report the version of its package",
        )
    distance = target - code - size
    jump = pack("<Bb", _JMP8, distance) if size == min(_NOPS) else pack("<Bi", _JMP32, distance)
    return Segment(code, jump if jumps else _NOPS[size])
