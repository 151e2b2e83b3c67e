# SPDX-License-Identifier: MIT
"""A kernel image: its bytes, its symbols and its types."""

import subprocess
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from struct import iter_unpack

from elftools.elf.elffile import ELFFile

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.btf import Btf
from kalloctrace.lab.kernels import Kernel, cache_directory

KERNEL_BASE = 0xFFFF_FFFF_8000_0000
"""`__START_KERNEL_map`: arch/x86/include/asm/page_64_types.h:50 of 6.12.118-1."""


@dataclass(frozen=True)
class Segment:
    """Bytes of the image and the address at which the kernel runs them."""

    address: int
    content: bytes


@dataclass(frozen=True)
class Symbols:
    """The symbol table of an image.

    Attributes:
        addresses: of all symbols, by name. Of several with one name the lowest.
        starts: all addresses of symbols, ascending.
        names: at each of `starts`, the names of the symbols there.
        parts: by function, what a compiler made of it: itself, and with suffixes as `.constprop.0.cold`.
    """

    addresses: dict[str, int]
    starts: list[int]
    names: list[tuple[str, ...]]
    parts: dict[str, list[str]]

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, int]]) -> "Symbols":
        """Make the table from names and addresses."""
        addresses: dict[str, int] = {}
        at: dict[int, list[str]] = {}
        parts: dict[str, list[str]] = {}
        for address, name in sorted((address, name) for name, address in pairs):
            at.setdefault(address, []).append(name)
            if name not in addresses:
                addresses[name] = address
                parts.setdefault(name.partition(".")[0], []).append(name)
        return cls(addresses, list(at), [tuple(names) for names in at.values()], parts)

    def at(self, address: int) -> tuple[str, ...]:
        """Return the names of the symbols at an address, none where no symbol is."""
        index = bisect_right(self.starts, address) - 1
        return self.names[index] if index >= 0 and self.starts[index] == address else ()

    def holding(self, address: int) -> str:
        """Return the name of the function that holds an address."""
        return self.names[bisect_right(self.starts, address) - 1][0]

    def extent(self, name: str) -> tuple[int, int]:
        """Return where a function begins and where the next symbol does."""
        start = self.addresses[name]
        return start, self.starts[bisect_right(self.starts, start)]


@dataclass(frozen=True)
class Image:
    """A kernel image.

    Attributes:
        name: of the kernel, as it was asked for: `6.12`.
        version: of its package: `6.12.118-1`.
        segments: its bytes.
        symbols: its symbols.
    """

    name: str
    version: str
    segments: tuple[Segment, ...]
    symbols: Symbols

    @property
    def release(self) -> str:
        """The release that the package was made from: `6.12.118`."""
        return self.version.partition("-")[0]

    def read(self, address: int, size: int) -> bytes:
        """Return bytes of the image.

        Raises:
            KalloctraceError: it has none at that address.
        """
        for segment in self.segments:
            offset = address - segment.address
            if 0 <= offset <= len(segment.content) - size:
                return segment.content[offset : offset + size]
        raise KalloctraceError(
            f"cannot read the image of {self.name}",
            f"no segment holds {size} bytes at {address:#x}",
            "report the version of its package",
        )

    def between(self, start: str, stop: str) -> bytes:
        """Return the bytes between two symbols."""
        first = self.symbols.addresses[start]
        return self.read(first, self.symbols.addresses[stop] - first)

    @cached_property
    def btf(self) -> Btf:
        """The types of the kernel."""
        with tempfile.NamedTemporaryFile(suffix=".btf") as file:
            file.write(self.between("__start_BTF", "__stop_BTF"))
            file.flush()
            return Btf(Path(file.name))


def load(kernel: Kernel) -> Image:
    """Read the image of a kernel.

    Args:
        kernel: from `kalloctrace.lab.kernels.obtain`.
    """
    with _symbolized(kernel).open("rb") as file:
        elf = ELFFile(file)
        segments = tuple(
            Segment(segment["p_vaddr"], segment.data())
            for segment in elf.iter_segments()
            if segment["p_type"] == "PT_LOAD" and segment["p_vaddr"] >= KERNEL_BASE
        )
        table, names = (elf.get_section_by_name(name).data() for name in (".symtab", ".strtab"))
    return Image(kernel.name, kernel.version, segments, Symbols.of(_named(table, names)))


def _named(table: bytes, names: bytes) -> Iterator[tuple[str, int]]:
    """Yield the names and addresses of a symbol table: `Elf64_Sym`, of which there are some 200,000."""
    for name, _info, _other, _section, value, _size in iter_unpack("<IBBHQQ", table):
        if name:
            yield names[name : names.index(b"\0", name)].decode(), value


def _symbolized(kernel: Kernel) -> Path:
    """Return the image as an ELF file with the kernel's own symbol table, which takes most of a minute to make."""
    path = cache_directory() / "elf" / f"{kernel.release}_{kernel.version}.elf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".make-") as directory:
            made = Path(directory) / path.name
            command = [sys.executable, "-m", "vmlinux_to_elf.scripts.vmlinux_to_elf", str(kernel.image), str(made)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode or not made.exists():
                last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:200]
                raise KalloctraceError(
                    f"cannot find the symbols of {kernel.image}", f"vmlinux-to-elf: {last}", "try another kernel"
                )
            made.rename(path)
    return path
