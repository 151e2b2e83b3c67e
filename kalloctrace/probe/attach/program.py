# SPDX-License-Identifier: MIT
"""A compiled program's maps in the kernel, and its programs with what only this boot and this process know."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from kalloctrace.probe.attach.compiled import AT, Compiled
from kalloctrace.probe.attach.programs import not_loaded
from kalloctrace.probe.layout import struct_dtype
from kalloctrace.probe.maps.bpf_map import BpfMap, create_map

LATER = ("OWN_TGID", "TGID", "CHILDREN", "ZONELIST", "ZONELIST_NOFALLBACK", "RETURN_ADDRESS")
"""The constants that differ from boot to boot or from run to run, besides all addresses of the kernel."""
_ADDRESS = "_ADDRESS"

U32, U64 = np.dtype("<u4"), np.dtype("<u8")
STACK = np.dtype(("<u8", 127))
"""PERF_MAX_STACK_DEPTH of include/uapi/linux/perf_event.h: what a map of stacks has for each."""


def split(constants: Mapping[str, int | str]) -> tuple[dict[str, int | str], dict[str, int]]:
    """Return the constants that the compiler knows, and those that are stored into the loaded program."""
    later = {name: int(value) for name, value in constants.items() if name in LATER or name.endswith(_ADDRESS)}
    return {name: value for name, value in constants.items() if name not in later}, later


class Program:
    """The maps of a compiled program, until `close`.

    Args:
        compiled: the program.
        own: the files of the maps that the program addresses without a look-up, in the order of their numbers.
        later: the values that the compiler did not know, likewise.
        lengths: the constants that record.h uses as lengths of arrays.

    Raises:
        KalloctraceError: the kernel refused a map.
    """

    def __init__(
        self, compiled: Compiled, own: Sequence[int], later: Sequence[int], lengths: Mapping[str, int]
    ) -> None:
        self._compiled, self._own, self._later, self._lengths = compiled, own, later, lengths
        self._files: list[int] = []
        try:
            for shape in compiled.maps:
                self._files.append(create_map(shape))
        except OSError as error:
            self.close()
            raise not_loaded(f"map {shape.name}: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release the maps."""
        self.close()

    def close(self) -> None:
        """Release the maps; a program that is loaded keeps those that it uses."""
        for file in self._files:
            os.close(file)
        self._files.clear()

    def file(self, name: str) -> int:
        """Return the file of a map."""
        return self._files[next(number for number, one in enumerate(self._compiled.maps) if one.name == name)]

    def map(self, name: str, value: np.dtype[Any] | str, key: np.dtype[Any] | str = U32) -> BpfMap:
        """Return a map.

        Args:
            name: as the program calls it.
            value: what its values are: a type of numpy's, or the name of a structure of record.h.
            key: likewise.
        """
        return BpfMap(self.file(name), self._dtype(key), self._dtype(value))

    def _dtype(self, kind: np.dtype[Any] | str) -> np.dtype[Any]:
        return struct_dtype(kind, self._lengths) if isinstance(kind, str) else kind

    def instructions(self, name: str) -> bytes:
        """Return a program as the kernel takes it, but for its calls of stand-ins."""
        return self._compiled.instructions(name, self._files, self._own, self._later)

    def tracepoints(self) -> dict[str, str]:
        """Return the raw tracepoint of each program that is for one."""
        return {name: name.removeprefix(AT) for name in self._compiled.programs if name.startswith(AT)}
