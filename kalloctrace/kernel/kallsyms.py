# SPDX-License-Identifier: MIT
"""Addresses of the kernel's symbols, from /proc/kallsyms."""

import re
from bisect import bisect_right
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.held_file import HeldFile

KALLSYMS = Path("/proc/kallsyms")
MODULES = Path("/proc/modules")

_MAX_LENGTH = 1 << 16
"""The maximum length in bytes of a BPF program or trampoline, whose symbols have no known end."""

_SYMBOL = re.compile(rb"([0-9a-f]{1,16}) \S", re.ASCII)
_FUNCTION = re.compile(rb"^([0-9a-f]{1,16}) [tTwW] (\S{1,1024})(?:\t\[(\S{1,256})\])?$", re.ASCII | re.MULTILINE)
"""A name has at most KSYM_NAME_LEN bytes: 128, since 6.1 512; of a module's MODULE_NAME_LEN, less than 64."""
_START = re.compile(rb"^([0-9a-f]{1,16}) [tTwW] \S", re.ASCII | re.MULTILINE)
_MODULE = re.compile(r"(?P<name>\S+) (?P<size>\d{1,12}) \S+ \S+ \S+ 0x(?P<start>[0-9a-f]{1,16})(?: |$)", re.ASCII)


class _Function(NamedTuple):
    start: int
    name: str
    owner: str
    """The module, "bpf" or the like; empty for the kernel itself."""


class Symbols:
    """The symbols of the running kernel; of modules only the names of functions.

    Args:
        path: a file in the format of /proc/kallsyms.
        modules: a file in the format of /proc/modules, read for each address that is looked up for the first time.
    """

    def __init__(self, path: Path = KALLSYMS, modules: Path = MODULES) -> None:
        self._path = path
        self._text = path.read_bytes()
        self._modules = modules
        self._held_modules: HeldFile | None = None
        self._named: dict[int, str] = {}

    def hold_modules(self) -> None:
        """Open the file of modules now: the kernel shows addresses to whoever had the privilege then."""
        with suppress(FileNotFoundError):
            self._held_modules = HeldFile(self._modules)

    def address(self, name: str) -> int | None:
        """Return a symbol's address; None if the kernel has no such symbol.

        The type letter is ignored: the same variable is D, B, T or A on different kernels.

        Raises:
            KalloctraceError: the symbol's line has another form.
        """
        # Searching plain bytes is ten times as fast as a regular expression.
        end = self._text.find(b" " + name.encode() + b"\n")
        if end < 0:
            return None
        start = self._text.rfind(b"\n", 0, end) + 1
        symbol = _SYMBOL.fullmatch(self._text, start, end)
        if symbol is None:
            raise _damaged(self._path, f"the line of {name}")
        return int(symbol[1], 16)

    def compiled_name(self, function: str) -> str | None:
        """Return the symbol of a function, which may be a specialised clone such as `f.constprop.0`; None without one.

        `.cold` parts do not match.
        """
        name = re.escape(function.encode())
        found = re.search(rb" ((?:" + name + rb")(?:\.(?:constprop|isra|part)\.\d+)*)\n", self._text)
        return _text(found[1]) if found else None

    def empty(self) -> bool:
        """Return whether the file is empty, as where a container's mount hides it."""
        return not self._text

    def addresses_hidden(self) -> bool:
        """Return whether the file has zeroes instead of addresses (kptr_restrict, no CAP_SYSLOG)."""
        return re.search(rb"^0*[1-9a-f][0-9a-f]* [tT] ", self._text, re.MULTILINE) is None

    @cached_property
    def _functions(self) -> list[_Function]:
        """All functions, including those of modules, by ascending address."""
        return sorted(
            _Function(int(start, 16), _text(name), _text(owner)) for start, name, owner in _FUNCTION.findall(self._text)
        )

    def function_at(self, address: int) -> str:
        """Return the name of the function that contains an address.

        Returns:
            The function; `[module]` if the module was loaded after the symbols were read; the address as hex if nothing
            known contains it.
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
        inside = address < function.start + _MAX_LENGTH if function.owner else address in self._code
        return function.name if inside else f"{address:#x}"

    def _module_at(self, address: int) -> str:
        """Return the module that contains an address, or "".

        /proc/modules gives the start of a module's code and the total size of all its parts, some of which may lie
        elsewhere. If the ranges of several modules contain the address, the nearest start decides.
        """
        try:
            content = self._modules.read_bytes() if self._held_modules is None else self._held_modules.read()
        except FileNotFoundError:
            return ""
        lines = _text(content).split("\n")
        modules = [self._module(line) for line in filter(None, lines)]
        found = ((int(module["start"], 16), int(module["size"]), module["name"]) for module in modules)
        start, size, name = max((one for one in found if one[0] <= address), default=(0, 0, ""))
        return name if address < start + size else ""

    def _module(self, line: str) -> re.Match[str]:
        module = _MODULE.match(line)
        if module is None:
            raise _damaged(self._modules, "a line")
        return module

    @cached_property
    def _code(self) -> range:
        """The address range of the kernel's code, without the part that is discarded after boot."""
        return range(self.address("_stext") or 0, self.address("_etext") or 1 << 64)

    def end_of(self, function: str) -> int | None:
        """Return the address of the next function after this one; None if one of the two does not exist."""
        address = self.address(function)
        if address is None:
            return None
        # The kernel lists its own symbols by ascending address: sort_symbols() in scripts/kallsyms.c.
        line = self._text.find(b" " + function.encode() + b"\n")
        starts = (int(found[1], 16) for found in _START.finditer(self._text, line))
        return next((start for start in starts if start > address), None)


def _text(name: bytes) -> str:
    return name.decode("ascii", errors="backslashreplace")


def _damaged(path: Path, what: str) -> KalloctraceError:
    return KalloctraceError(
        f"cannot read the kernel's symbols from {path}",
        f"{what} has another form than the kernel's",
        "read the running kernel's own file, or a complete copy",
    )
