# SPDX-License-Identifier: MIT
"""The kernel's memory, read through /proc/kcore: an ELF core file whose segments are the kernel's mappings."""

import os
import struct
from pathlib import Path
from typing import Self

from kalloctrace.errors import KalloctraceError

KCORE = Path("/proc/kcore")

_ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_PT_LOAD = 1


class Kcore:
    """Reads of kernel memory by address.

    Args:
        path: the core file.

    Raises:
        KalloctraceError: the file cannot be opened, or is no 64-bit core.
    """

    def __init__(self, path: Path = KCORE) -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise KalloctraceError(
                f"cannot read the kernel's memory through {path}",
                error.strerror or str(error),
                "run as root, on a kernel with CONFIG_PROC_KCORE and no lockdown=confidentiality",
            ) from error
        header = _ELF_HEADER.unpack(os.pread(self._fd, _ELF_HEADER.size, 0))
        start, count = header[5], header[10]
        table = os.pread(self._fd, _PROGRAM_HEADER.size * count, start)
        self._segments = [
            (vaddr, offset, size)
            for kind, _, offset, vaddr, _, size, _, _ in _PROGRAM_HEADER.iter_unpack(table)
            if kind == _PT_LOAD
        ]

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        os.close(self._fd)

    def read(self, address: int, size: int) -> bytes:
        """Read bytes at a kernel virtual address.

        Raises:
            KalloctraceError: no segment holds the address, or it is not readable.
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
        """Read an unsigned 64-bit value."""
        return int.from_bytes(self.read(address, 8), "little")

    def u32(self, address: int) -> int:
        """Read an unsigned 32-bit value."""
        return int.from_bytes(self.read(address, 4), "little")

    def s32(self, address: int) -> int:
        """Read a signed 32-bit value."""
        return int.from_bytes(self.read(address, 4), "little", signed=True)
