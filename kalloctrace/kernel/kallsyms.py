# SPDX-License-Identifier: MIT
"""Addresses of the kernel's symbols, from /proc/kallsyms."""

import re
from bisect import bisect_right
from functools import cached_property
from pathlib import Path

KALLSYMS = Path("/proc/kallsyms")


class Symbols:
    """The symbols of the running kernel itself; those of modules are left out.

    Args:
        path: the file to read, in the form of /proc/kallsyms.
    """

    def __init__(self, path: Path = KALLSYMS) -> None:
        self._text = path.read_bytes()

    def address(self, name: str) -> int | None:
        """Return a symbol's address, None where the kernel has no such symbol.

        The type letter is not looked at: the same variable is D, B, T or A on different kernels.
        """
        # As plain bytes: a pattern takes ten times as long for each of the many names that are asked for.
        end = self._text.find(b" " + name.encode() + b"\n")
        if end < 0:
            return None
        start = self._text.rfind(b"\n", 0, end) + 1
        return int(self._text[start:end].split()[0], 16)

    def compiled(self, function: str) -> str | None:
        """Return the symbol of a function that the compiler may have specialised, as `f.constprop.0`; None without one.

        Its part for what hardly ever happens (`f.cold`) is none.
        """
        name = re.escape(function.encode())
        found = re.search(rb" ((?:" + name + rb")(?:\.(?:constprop|isra|part)\.\d+)*)\n", self._text)
        return found[1].decode() if found else None

    def hidden(self) -> bool:
        """Tell whether the kernel shows zeroes instead of addresses (kptr_restrict, no CAP_SYSLOG)."""
        return re.search(rb"^0*[1-9a-f][0-9a-f]* [tT] ", self._text, re.MULTILINE) is None

    @cached_property
    def _functions(self) -> tuple[list[int], list[str]]:
        """All functions, those of modules too, ascending by address."""
        found = re.findall(rb"^([0-9a-f]+) [tTwW] (\S+)", self._text, re.MULTILINE)
        pairs = sorted((int(address, 16), name.decode()) for address, name in found)
        return [address for address, _ in pairs], [name for _, name in pairs]

    def function_at(self, address: int) -> str:
        """Return the name of the function that an address lies in, the address itself where none does."""
        starts, names = self._functions
        index = bisect_right(starts, address) - 1
        return names[index] if index >= 0 else f"{address:#x}"

    def end_of(self, function: str) -> int | None:
        """Return the address of what follows a function, None where the kernel has no such function."""
        address = self.address(function)
        starts, _ = self._functions
        return None if address is None else starts[bisect_right(starts, address)]
