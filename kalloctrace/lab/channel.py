# SPDX-License-Identifier: MIT
"""Byte streams between this machine and a guest through shared memory; both sides use this module.

QEMU shows a file to the guest as the memory of a PCI device (`ivshmem-plain`, docs/specs/ivshmem-spec.rst in QEMU). The
guest maps it through sysfs without a driver. The module imports the standard library only, as the guest loads it before
the rest of this package arrives.
"""

import itertools
import mmap
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"kalloctrace lab\n"
"""The first bytes of the memory; the guest recognises the device by them."""

_MIB = 1 << 20
_PAGE = 4096
SIZE = 32 * _MIB
"""Bytes of shared memory; PCI requires a power of two."""

_VENDOR, _DEVICE = "0x1af4", "0x1110"  # include/hw/pci/pci.h in QEMU: Red Hat, Qumranet; ivshmem
_WRITTEN, _READ, _CLOSED = range(3)
_HEADER_WORDS = 3


class Ring:
    """A ring buffer in shared memory with one writer and one reader.

    It begins with three 64-bit words: bytes written, bytes read, and whether the stream is complete. Only one side
    stores each word, with one store. The writer stores data before the count; x86 keeps the order of stores.
    """

    def __init__(self, memory: memoryview, start: int, end: int) -> None:
        """Use a part of the shared memory.

        Args:
            memory: the shared memory.
            start: offset of the first byte.
            end: offset after the last byte.
        """
        header = start + 8 * _HEADER_WORDS
        self._words = memory[start:header].cast("Q")
        self._data = memory[header:end]

    def write(self, chunk: bytes | memoryview) -> int:
        """Write as much as fits; return the number of bytes written."""
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
        """Return all unread bytes."""
        read = self._words[_READ]
        size = len(self._data)
        count = self._words[_WRITTEN] - read
        start = read % size
        chunk = bytes(self._data[start : start + count])
        chunk += bytes(self._data[: count - len(chunk)])
        self._words[_READ] = read + count
        return chunk

    def close(self) -> None:
        """Mark the stream as complete."""
        self._words[_CLOSED] = 1

    def ended(self) -> bool:
        """Return whether the stream is complete and fully read."""
        return bool(self._words[_CLOSED]) and self._words[_READ] == self._words[_WRITTEN]

    def release(self) -> None:
        """Release the views of the shared memory."""
        self._words.release()
        self._data.release()


@dataclass(frozen=True)
class Channel:
    """The streams of one guest.

    Attributes:
        job: to the guest: a cpio archive of the command and its files.
        stdout: from the guest: the command's standard output.
        stderr: from the guest: its standard error.
        state: from the guest: lines `release R` and `left-out PATH`, then `exit N` or `failed WHY`.
        files: from the guest: a tar archive of created and changed files.
    """

    job: Ring
    stdout: Ring
    stderr: Ring
    state: Ring
    files: Ring

    def release(self) -> None:
        """Release the views of the shared memory."""
        for ring in (self.job, self.stdout, self.stderr, self.state, self.files):
            ring.release()


def map_channel(memory: memoryview) -> Channel:
    """Return the streams in shared memory; unused memory is all zeros."""
    # The first page holds the magic.
    ends = (_PAGE, 10 * _MIB, 14 * _MIB, 18 * _MIB, 19 * _MIB, SIZE)
    job, stdout, stderr, state, files = (Ring(memory, start, end) for start, end in itertools.pairwise(ends))
    return Channel(job, stdout, stderr, state, files)


def find_shared_memory(devices: Path = Path("/sys/bus/pci/devices")) -> memoryview:
    """Map the shared memory in a guest.

    Args:
        devices: sysfs's directory of PCI devices.

    Raises:
        OSError: there is no such device, or it cannot be mapped.
    """
    for device in sorted(devices.iterdir()):
        if (_attribute(device, "vendor"), _attribute(device, "device")) != (_VENDOR, _DEVICE):
            continue
        # A device without a driver may be disabled.
        (device / "enable").write_text("1", encoding="ascii")
        with (device / "resource2").open("r+b", buffering=0) as file:
            memory = memoryview(mmap.mmap(file.fileno(), SIZE))
        if memory[: len(MAGIC)] == MAGIC:
            return memory
    raise OSError(f"no shared memory among the devices in {devices}")


def _attribute(device: Path, name: str) -> str:
    return (device / name).read_text(encoding="ascii").strip()
