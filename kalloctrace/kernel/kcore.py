# SPDX-License-Identifier: MIT
"""Reads the kernel's memory from /proc/kcore, an ELF core file whose segments are the kernel's mappings."""

import os
import struct
from pathlib import Path
from typing import Self

from kalloctrace.errors import KalloctraceError

KCORE = Path("/proc/kcore")

MASKED = "is empty: a container's mount hides it"
UNMASK = (
    "run it outside the container, or unmask it: --security-opt systempaths=unconfined (Docker) or unmask=ALL (Podman)"
)

_ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_PT_LOAD = 1
_MAGIC = b"\x7fELF\x02"
"""The first bytes of an ELF file of class ELFCLASS64."""


class Kcore:
    """Reads kernel memory by address.

    Args:
        path: the core file.

    Raises:
        KalloctraceError: the file cannot be opened, or is not a 64-bit ELF core.
    """

    def __init__(self, path: Path = KCORE) -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise KalloctraceError(
                f"cannot read the kernel's memory through {path}",
                f"{path} is missing: CONFIG_PROC_KCORE is off",
                "use a kernel built with CONFIG_PROC_KCORE=y (Debian's are)",
            ) from error
        except OSError as error:
            raise KalloctraceError(
                f"cannot read the kernel's memory through {path}",
                f"{path}: {error.strerror or error}",
                "run as root, on a kernel without lockdown=confidentiality",
            ) from error
        if not os.pread(self._fd, 1, 0):
            os.close(self._fd)
            raise KalloctraceError(f"cannot read the kernel's memory through {path}", f"{path} {MASKED}", UNMASK)
        try:
            self._segments = _segments(self._fd)
        except (ValueError, struct.error) as error:
            os.close(self._fd)
            raise KalloctraceError(
                f"cannot read the kernel's memory through {path}",
                f"it is not a 64-bit ELF core file: {error}",
                "use the /proc/kcore of the running kernel",
            ) from error

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        os.close(self._fd)

    def read(self, address: int, size: int) -> bytes:
        """Return the bytes at a kernel virtual address.

        Raises:
            KalloctraceError: no segment contains the whole range, or the range is not readable.
        """
        for vaddr, offset, length in self._segments:
            if vaddr <= address and address + size <= vaddr + length:
                data = os.pread(self._fd, size, offset + address - vaddr)
                if len(data) == size:
                    return data
        raise KalloctraceError(
            "cannot read the kernel's memory",
            f"{size} bytes at {address:#x} are in no readable segment of the core file",
            "report the kernel's release and where its package comes from",
        )

    def u64(self, address: int) -> int:
        """Return the unsigned 64-bit value at an address."""
        return int.from_bytes(self.read(address, 8), "little")

    def u32(self, address: int) -> int:
        """Return the unsigned 32-bit value at an address."""
        return int.from_bytes(self.read(address, 4), "little")

    def s32(self, address: int) -> int:
        """Return the signed 32-bit value at an address."""
        return int.from_bytes(self.read(address, 4), "little", signed=True)


def _segments(fd: int) -> list[tuple[int, int, int]]:
    """Return address, file offset and size of each loadable segment."""
    header = _ELF_HEADER.unpack(os.pread(fd, _ELF_HEADER.size, 0))
    if not header[0].startswith(_MAGIC):
        raise ValueError(f"it begins with {header[0][: len(_MAGIC)]!r}")
    start, count = header[5], header[10]
    table = os.pread(fd, _PROGRAM_HEADER.size * count, start)
    if len(table) < _PROGRAM_HEADER.size * count:
        raise ValueError("its program headers are truncated")
    return [
        (vaddr, offset, size)
        for kind, _, offset, vaddr, _, size, _, _ in _PROGRAM_HEADER.iter_unpack(table)
        if kind == _PT_LOAD
    ]
