# SPDX-License-Identifier: MIT
"""Attaches programs to functions by BPF links. A link is a file: when its process ends, nothing of it is left.

A hot function is attached to by kprobe.multi, which costs less than the kprobe that an instruction inside a function
needs. The latter is an event of perf_event_open(2), which needs no definition in tracefs.
"""

import ctypes
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.btf import Btf
from kalloctrace.kernel.held_file import HeldFile
from kalloctrace.probe.attach.kprobes import Hook
from kalloctrace.probe.attach.programs import PERF_EVENT, TRACE_KPROBE_MULTI
from kalloctrace.system_calls import bpf, perf_event_open

_PMU = Path("/sys/bus/event_source/devices/kprobe/type")

# include/uapi/linux/bpf.h: enum bpf_cmd, BPF_F_KPROBE_MULTI_RETURN
_OBJ_GET_INFO_BY_FD, LINK_CREATE = 15, 28
_MULTI_RETURN = 1

_INFO_BYTES = 256
_MULTI_MISSED, _PERF_MISSED = 32, 48
"""Offsets in `struct bpf_link_info` of kprobe_multi.missed and perf_event.kprobe.missed."""

_MISSED_LINE = "missed:"

_AT_RETURN = 1
"""/sys/bus/event_source/devices/kprobe/format/retprobe: config:0"""


def kprobe_type() -> int:
    """Return the type of perf events that are kprobes.

    Raises:
        OSError: the kernel has none.
    """
    return int(_PMU.read_text())


def counts_multi(btf: Btf) -> bool:
    """Return whether the kernel has kprobe.multi, and counts the hits that it misses.

    Linux kernel commit 0dcac2725406 ("bpf: Add multi kprobe link") (in v5.18),
    e2b2cd592a6a ("bpf: Add missed value to kprobe_multi link info") (in v6.7).
    """
    return btf.has_struct("bpf_kprobe_multi_link") and btf.has_member("bpf_link_info", "kprobe_multi", "missed")


def counts_perf(btf: Btf) -> bool:
    """Return whether the kernel has links of perf events, and counts the hits that a kprobe of one misses.

    Linux kernel commit b89fbfbb854c ("bpf: Implement minimal BPF perf link") (in v5.15),
    3acf8ace6823 ("bpf: Add missed value to kprobe perf link info") (in v6.7).
    """
    return btf.has_struct("bpf_link_info") and btf.has_member("bpf_link_info", "perf_event", "kprobe", "missed")


def link_multi(program: int, address: int, *, at_return: bool = False) -> int:
    """Attach a program by kprobe.multi; return the link.

    Args:
        program: its file; it was loaded for kprobe.multi.
        address: of the function.
        at_return: the program runs when the function returns.

    Raises:
        OSError: the kernel refused.
    """
    addresses = ctypes.c_uint64(address)
    # prog_fd, target_fd, attach_type, flags; flags, cnt, syms, addrs
    head = (program, 0, TRACE_KPROBE_MULTI, 0)
    flags = _MULTI_RETURN if at_return else 0
    return bpf(LINK_CREATE, "<IIII IIQQ", *head, flags, 1, 0, ctypes.addressof(addresses))


def missed_multi(link: int) -> int:
    """Return how many hits the program of a link of kprobe.multi missed."""
    return _in_info(link, _MULTI_MISSED)


def _in_info(link: int, offset: int) -> int:
    info = ctypes.create_string_buffer(_INFO_BYTES)
    bpf(_OBJ_GET_INFO_BY_FD, "<IIQ", link, _INFO_BYTES, ctypes.addressof(info))
    found: int = struct.unpack_from("<Q", info, offset)[0]
    return found


class Links:
    """Programs attached by links, until `close`.

    Args:
        programs: the file descriptor of each hook's program, of the type kprobe; that of a hot hook was loaded for
            kprobe.multi.
        address: returns the address of a kernel's function.

    Raises:
        KalloctraceError: the kernel rejects a link.
    """

    def __init__(self, programs: Mapping[Hook, int], address: Callable[[str], int]) -> None:
        self._links: dict[Hook, int] = {}
        self._events: list[int] = []
        self._shown: dict[Hook, HeldFile] = {}
        try:
            for hook, program in programs.items():
                at = address(hook.function) + hook.offset
                link = link_multi if hook.hot else self._perf
                self._links[hook] = link(program, at, at_return=hook.at_return)
                # Open to the end: without privileges it could not be opened.
                self._shown[hook] = HeldFile(Path(f"/proc/self/fdinfo/{self._links[hook]}"))
        except BaseException as error:
            # A signal may come here too.
            self.close()
            if not isinstance(error, OSError):
                raise
            raise KalloctraceError(
                f"cannot attach to {hook.function}",
                error.strerror or str(error),
                "record with --attach pair:jump",
            ) from error

    def close(self) -> None:
        """Detach everything."""
        for file in (*self._links.values(), *self._events):
            os.close(file)
        self._links.clear()
        self._events.clear()

    def missed(self) -> dict[str, int]:
        """Return how many hits each program missed since it was attached, by the program's name.

        The file's own description has the count since da7e9c0a7fbc ("bpf: Add show_fdinfo for kprobe_multi") and
        97ebac5886d3 ("bpf: Add show_fdinfo for perf_event") (in v6.17); before, only a system call returns it.
        """
        return {hook.program: self._missed(hook) for hook in self._links}

    def _missed(self, hook: Hook) -> int:
        lines = self._shown[hook].read().decode().splitlines()
        shown = next((line for line in lines if line.startswith(_MISSED_LINE)), None)
        if shown is not None:
            return int(shown.removeprefix(_MISSED_LINE))
        return missed_multi(self._links[hook]) if hook.hot else _in_info(self._links[hook], _PERF_MISSED)

    def _perf(self, program: int, address: int, *, at_return: bool) -> int:
        # Of all threads: a program attached to it runs on every CPU, not only on the one that is named here.
        event = perf_event_open(kprobe_type(), _AT_RETURN if at_return else 0, pid=-1, cpu=0, address=address)
        self._events.append(event)
        # prog_fd, target_fd, attach_type
        return bpf(LINK_CREATE, "<III", program, event, PERF_EVENT)
