# SPDX-License-Identifier: MIT
"""Maps that are read and written by bpf(2). The kernel skips tracing programs of a CPU during such a call."""

import ctypes
import resource
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from kalloctrace.system_calls import bpf

# include/uapi/linux/bpf.h: enum bpf_cmd
_CREATE, _LOOKUP, _UPDATE, _DELETE, _NEXT = range(5)

_NAME_BYTES = 15


@dataclass(frozen=True)
class MapShape:
    """A map of a compiled program.

    Attributes:
        name: as the program calls it.
        kind: of `enum bpf_map_type`.
        key: the bytes of a key.
        value: the bytes of a value.
        entries: how many it has room for; of a ring buffer, its bytes.
        flags: BPF_F_*.
    """

    name: str
    kind: int
    key: int
    value: int
    entries: int
    flags: int


def create_map(shape: MapShape) -> int:
    """Create a map; return its file.

    Args:
        shape: what it is; of its name the kernel shows 15 bytes.

    Raises:
        OSError: the kernel refused.
    """
    # map_type, key_size, value_size, max_entries, map_flags, inner_map_fd, numa_node, map_name
    values = (shape.kind, shape.key, shape.value, shape.entries, shape.flags, 0, 0, shape.name.encode()[:_NAME_BYTES])
    try:
        return bpf(_CREATE, "<7I 16s", *values)
    except PermissionError:
        # Before v5.11 maps count as locked memory.
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return bpf(_CREATE, "<7I 16s", *values)


class BpfMap:
    """A map of few elements.

    Attributes:
        fd: its file.

    Args:
        fd: its file.
        key: numpy's description of a key.
        value: numpy's description of a value.
    """

    def __init__(self, fd: int, key: np.dtype[Any], value: np.dtype[Any]) -> None:
        self.fd = fd
        self._key, self._value = key, value

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401 as its dtype says
        """Return the value of a key.

        Raises:
            OSError: there is none, or the map cannot be read.
        """
        found = ctypes.create_string_buffer(self._value.itemsize)
        self._call(_LOOKUP, key, ctypes.addressof(found))
        return np.frombuffer(found.raw, self._value)[0]

    def __setitem__(self, key: Any, value: Any) -> None:  # noqa: ANN401 likewise
        """Store a value."""
        stored = ctypes.create_string_buffer(value.tobytes(), self._value.itemsize)
        self._call(_UPDATE, key, ctypes.addressof(stored))

    def __iter__(self) -> Iterator[Any]:
        """Yield the keys; one that comes or goes meanwhile may be missed."""
        at: Any = None
        while True:
            following = ctypes.create_string_buffer(self._key.itemsize)
            try:
                self._call(_NEXT, at, ctypes.addressof(following))
            except FileNotFoundError:
                return
            at = np.frombuffer(following.raw, self._key)[0]
            yield at

    def items(self) -> list[tuple[Any, Any]]:
        """Return all elements that are there from beginning to end."""
        found = []
        for key in list(self):
            with suppress(FileNotFoundError):
                found.append((key, self[key]))
        return found

    def clear(self) -> None:
        """Delete all elements."""
        for key in list(self):
            with suppress(FileNotFoundError):
                self._call(_DELETE, key, 0)

    def _call(self, command: int, key: Any, pointer: int) -> None:  # noqa: ANN401 likewise
        given = None if key is None else ctypes.create_string_buffer(key.tobytes(), self._key.itemsize)
        address = 0 if given is None else ctypes.addressof(given)
        # map_fd, key, value or next_key, flags
        bpf(command, "<I 4x QQQ", self.fd, address, pointer, 0)
