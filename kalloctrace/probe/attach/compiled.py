# SPDX-License-Identifier: MIT
"""A compiled BPF program before it is loaded: its instructions and maps, without what differs from boot to boot.

Such a program can be kept, and loaded without a compiler. It names its maps by their numbers, and a value that is known
only when it is loaded, such as an address of the kernel, by that value's number.
"""

import base64
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from kalloctrace.probe.attach.joined import INSTRUCTION
from kalloctrace.probe.maps.bpf_map import MapShape

# include/uapi/linux/bpf.h: BPF_LD | BPF_IMM | BPF_DW, which has two parts, and what its source register means
_LOAD = 0x18
PSEUDO_MAP, PSEUDO_MAP_VALUE = 1, 2
PSEUDO_LATER = 9
"""The kernel knows no such meaning; `Compiled.instructions` replaces it."""

AT = "at_"
"""The name of a raw tracepoint's program is this and the name of the tracepoint; see AT_TRACEPOINT in common.bpf.c."""


@dataclass(frozen=True)
class Compiled:
    """The programs of one compilation, by their names, and their maps in the order of their numbers."""

    programs: Mapping[str, bytes]
    maps: Sequence[MapShape]

    def instructions(self, program: str, maps: Sequence[int], own: Sequence[int], later: Sequence[int]) -> bytes:
        """Return a program as the kernel takes it.

        Args:
            program: its name.
            maps: the file of each map of `maps`.
            own: the files of the maps that the program addresses without a look-up, by their numbers.
            later: the values that were not known to the compiler, by their numbers.
        """
        return b"".join(_relocated(self.programs[program], maps, own, later))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "maps": [asdict(one) for one in self.maps],
            "programs": {name: base64.b64encode(code).decode() for name, code in self.programs.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        programs = {str(name): base64.b64decode(code, validate=True) for name, code in values["programs"].items()}
        return cls(programs, [MapShape(**one) for one in values["maps"]])


def numbered(code: bytes, maps: Mapping[int, int]) -> bytes:
    """Return a program that names its maps by their numbers.

    Args:
        code: its instructions, with the files of its maps.
        maps: the number of each file.

    Raises:
        KeyError: it names another file.
    """
    numbers = {file: (PSEUDO_MAP, number) for file, number in maps.items()}
    return b"".join(
        _load(register, *numbers[value]) if source == PSEUDO_MAP else raw
        for raw, register, source, value in _loads(code)
    )


def later(number: int) -> str:
    """Return the C expression of a value that is not known to the compiler, by its number.

    The compiler cannot calculate with it.
    """
    return f"bpf_pseudo_fd({PSEUDO_LATER},{number})"


def _relocated(code: bytes, maps: Sequence[int], own: Sequence[int], later: Sequence[int]) -> Iterator[bytes]:
    for raw, register, source, value in _loads(code):
        if source == PSEUDO_MAP:
            yield _load(register, PSEUDO_MAP, maps[value])
        elif source == PSEUDO_MAP_VALUE:
            yield _load(register, PSEUDO_MAP_VALUE, own[value])
        elif source == PSEUDO_LATER:
            yield _load(register, 0, later[value])
        else:
            yield raw


def _loads(code: bytes) -> Iterator[tuple[bytes, int, int, int]]:
    """Yield each instruction; of a load of 64 bits both parts, with the register, its source and the lower half."""
    position = 0
    while position < len(code):
        opcode, registers, _, value = INSTRUCTION.unpack_from(code, position)
        size = INSTRUCTION.size * (2 if opcode == _LOAD else 1)
        source = registers >> 4 if opcode == _LOAD else 0
        yield code[position : position + size], registers & 0xF, source, value
        position += size


def _load(register: int, source: int, value: int) -> bytes:
    low, high = struct.unpack("<ii", struct.pack("<Q", value & (1 << 64) - 1))
    return INSTRUCTION.pack(_LOAD, register | source << 4, 0, low) + INSTRUCTION.pack(0, 0, 0, high)
