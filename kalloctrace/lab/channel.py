# SPDX-License-Identifier: MIT
"""Streams of bytes between this machine and a guest through memory that both see: both ends use this module.

QEMU shows a file to the guest as the memory of a PCI device (`ivshmem-plain`, docs/specs/ivshmem-spec.rst in QEMU). The
guest maps it through sysfs, for which no driver is needed. It uses the standard library only, and nothing else of this
package, as the guest starts it before it has the rest.
"""

import itertools
import mmap
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"kalloctrace lab\n"
"""What the memory begins with, by which the guest knows the device among others of its kind."""

_MIB = 1 << 20
_PAGE = 4096
SIZE = 32 * _MIB
"""Bytes of shared memory: a power of two, as any memory of a PCI device."""

_VENDOR, _DEVICE = "0x1af4", "0x1110"  # include/hw/pci/pci.h in QEMU: Red Hat, Qumranet; ivshmem
_WRITTEN, _READ, _CLOSED = range(3)
_HEADER_WORDS = 3


class Ring:
    """A stream with one writer and one reader, in a span of shared memory.

    The span begins with three words of the machine: the bytes written, the bytes read, and whether that was all. Each
    is stored at once and by one side only, the data before the word that says they are there: x86 keeps that order.
    """

    def __init__(self, memory: memoryview, start: int, end: int) -> None:
        """Use a span of shared memory.

        Args:
            memory: the shared memory.
            start: the span's first byte.
            end: the byte after its last one.
        """
        header = start + 8 * _HEADER_WORDS
        self._words = memory[start:header].cast("Q")
        self._data = memory[header:end]

    def write(self, chunk: bytes | memoryview) -> int:
        """Write as much as there is room for; return how many bytes that was."""
        written = self._words[_WRITTEN]
        size = len(self._data)
        count = min(len(chunk), size - (written - self._words[_READ]))
        start = written % size
        before_end = min(count, size - start)
        self._data[start : start + before_end] = chunk[:before_end]
        self._data[: count - before_end] = chunk[before_end:count]
        self._words[_WRITTEN] = written + count
        return count

    def read(self) -> bytes:
        """Return all bytes that are there."""
        read = self._words[_READ]
        size = len(self._data)
        count = self._words[_WRITTEN] - read
        start = read % size
        chunk = bytes(self._data[start : start + count])
        chunk += bytes(self._data[: count - len(chunk)])
        self._words[_READ] = read + count
        return chunk

    def close(self) -> None:
        """Say that all has been written."""
        self._words[_CLOSED] = 1

    def ended(self) -> bool:
        """Whether all has been written, and read."""
        return bool(self._words[_CLOSED]) and self._words[_READ] == self._words[_WRITTEN]

    def release(self) -> None:
        """Let go of the memory."""
        self._words.release()
        self._data.release()


@dataclass(frozen=True)
class Channel:
    """All streams of one guest.

    Attributes:
        job: to the guest: a tar archive of what it is to have and do.
        stdout: from the guest: the command's standard output.
        stderr: likewise its standard error.
        state: from the guest: lines of `release R`, then `exit N` or `failed WHY`.
        files: from the guest: a tar archive of the files that were changed.
    """

    job: Ring
    stdout: Ring
    stderr: Ring
    state: Ring
    files: Ring

    def release(self) -> None:
        """Let go of the memory."""
        for ring in (self.job, self.stdout, self.stderr, self.state, self.files):
            ring.release()


def lay_out(memory: memoryview) -> Channel:
    """Return the streams in shared memory, which is all zeroes when neither end has used it."""
    # The memory's first page holds the magic.
    ends = (_PAGE, 10 * _MIB, 14 * _MIB, 18 * _MIB, 19 * _MIB, SIZE)
    job, stdout, stderr, state, files = (Ring(memory, start, end) for start, end in itertools.pairwise(ends))
    return Channel(job, stdout, stderr, state, files)


def find_in_guest(devices: Path = Path("/sys/bus/pci/devices")) -> memoryview:
    """Map the shared memory in a guest.

    Args:
        devices: where sysfs lists the PCI devices.

    Raises:
        OSError: there is no such device, or it cannot be mapped.
    """
    for device in sorted(devices.iterdir()):
        if (_fact(device, "vendor"), _fact(device, "device")) != (_VENDOR, _DEVICE):
            continue
        # A device that no driver uses may be off.
        (device / "enable").write_text("1", encoding="ascii")
        with (device / "resource2").open("r+b", buffering=0) as file:
            memory = memoryview(mmap.mmap(file.fileno(), SIZE))
        if memory[: len(MAGIC)] == MAGIC:
            return memory
    raise OSError(f"no shared memory among the devices in {devices}")


def _fact(device: Path, name: str) -> str:
    return (device / name).read_text(encoding="ascii").strip()
