# SPDX-License-Identifier: MIT
"""A kernel image: its bytes, its symbols and its types."""

import tempfile
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.btf import Btf

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
        name: the requested name of the kernel: `6.12`.
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
