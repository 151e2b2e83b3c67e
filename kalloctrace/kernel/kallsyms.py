# SPDX-License-Identifier: MIT
"""Addresses of the kernel's symbols, from /proc/kallsyms."""

import re
from bisect import bisect_right
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

KALLSYMS = Path("/proc/kallsyms")
MODULES = Path("/proc/modules")

_LONGEST = 1 << 16
"""What no BPF program and no trampoline is longer than, bytes: their symbols have no end."""


class _Function(NamedTuple):
    start: int
    name: str
    owner: str
    """The module, "bpf" and the like, or empty for the kernel itself."""


class Symbols:
    """The symbols of the running kernel itself; those of modules are left out, but for the names of functions.

    Args:
        path: the file to read, in the form of /proc/kallsyms.
        modules: the file that says which modules there are, in the form of /proc/modules; it is read when it is needed.
    """

    def __init__(self, path: Path = KALLSYMS, modules: Path = MODULES) -> None:
        self._text = path.read_bytes()
        self._modules = modules
        self._named: dict[int, str] = {}

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

    def compiled_name(self, function: str) -> str | None:
        """Return the symbol of a function that the compiler may have specialised, as `f.constprop.0`; None without one.

        Its part for what hardly ever happens (`f.cold`) is none.
        """
        name = re.escape(function.encode())
        found = re.search(rb" ((?:" + name + rb")(?:\.(?:constprop|isra|part)\.\d+)*)\n", self._text)
        return found[1].decode() if found else None

    def addresses_hidden(self) -> bool:
        """Tell whether the kernel shows zeroes instead of addresses (kptr_restrict, no CAP_SYSLOG)."""
        return re.search(rb"^0*[1-9a-f][0-9a-f]* [tT] ", self._text, re.MULTILINE) is None

    @cached_property
    def _functions(self) -> list[_Function]:
        """All functions, those of modules too, ascending by address."""
        found = re.findall(rb"^([0-9a-f]+) [tTwW] (\S+)(?:\t\[(\S+)\])?$", self._text, re.MULTILINE)
        return sorted(_Function(int(start, 16), name.decode(), owner.decode()) for start, name, owner in found)

    def function_at(self, address: int) -> str:
        """Return the name of the function that an address lies in.

        Returns:
            `[module]` for a module that came after the symbols were read; the address itself where nothing is known to
            lie there.
        """
        name = self._named.get(address)
        if name is None:
            name = self._named[address] = self._name_of(address)
        return name

    def _name_of(self, address: int) -> str:
        index = bisect_right(self._functions, address, key=lambda function: function.start) - 1
        function = self._functions[index] if index >= 0 else _Function(0, "", "")
        module = self._module_at(address)
        if module:
            return function.name if function.owner == module else f"[{module}]"
        inside = address < function.start + _LONGEST if function.owner else address in self._code
        return function.name if inside else f"{address:#x}"

    def _module_at(self, address: int) -> str:
        """Return the module that an address belongs to, empty where none does.

        What /proc/modules says of a module is where its code begins, and the size of all its parts, of which others may
        lie elsewhere: so of several modules the nearest.
        """
        try:
            lines = [line.split() for line in self._modules.read_text("ascii").splitlines()]
        except FileNotFoundError:
            return ""
        found = ((int(words[5], 16), int(words[1]), words[0]) for words in lines)
        start, size, name = max((one for one in found if one[0] <= address), default=(0, 0, ""))
        return name if address < start + size else ""

    @cached_property
    def _code(self) -> range:
        """The kernel's code; what is discarded after the boot lies behind."""
        return range(self.address("_stext") or 0, self.address("_etext") or 1 << 64)

    def end_of(self, function: str) -> int | None:
        """Return the address of what follows a function, None where the kernel has no such function."""
        address = self.address(function)
        if address is None:
            return None
        return self._functions[bisect_right(self._functions, address, key=lambda one: one.start)].start
