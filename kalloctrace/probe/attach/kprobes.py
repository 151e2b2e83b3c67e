# SPDX-License-Identifier: MIT
"""Attaches programs to functions with kprobes of tracefs, and reads how many hits these missed.

This uses tracefs and not the kprobe events of perf_event_open(2): only a tracefs definition sets how many calls may be
active at once (maxactive), and only `kprobe_profile` shows missed hits on every kernel. The definitions of a killed
process remain, but do nothing; the next recording removes them. Whatever else ends a process removes its own: see
`detach_all`.
"""

import atexit
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from fcntl import ioctl
from pathlib import Path

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.held_file import HeldFile
from kalloctrace.kernel.live import TRACEFS
from kalloctrace.probe.attach.optprobe import is_jump
from kalloctrace.signals import uninterrupted
from kalloctrace.system_calls import PERF_TYPE_TRACEPOINT, perf_event_open

GROUP = "kalloctrace"

MAXACTIVE = 4096
"""How many calls of one function may be active with their return traced: many tasks can sleep in the allocator.

This is the largest value that the kernel accepts: KRETPROBE_MAXACTIVE_MAX, kernel/trace/trace_kprobe.c. The return of a
call beyond it is missed, and its record counts as running or overwritten.
"""

_PROFILE = re.compile(r"^\s*(?P<event>\w+)\s+(?P<hits>\d+)\s+(?P<missed>\d+)$", re.MULTILINE)
_DEFINITION = re.compile(rf"^[pr]\d*:(?P<event>{GROUP}/\w+_(?P<pid>\d+)) ", re.MULTILINE)

_OPTIMIZE_SECONDS = 5.0
"""How long to wait for jumps: the kernel first waits until every task has left the replaced instructions."""
_POLL = 0.05

# include/uapi/linux/perf_event.h
_PERF_EVENT_IOC_ENABLE = 0x2400
_PERF_EVENT_IOC_SET_BPF = 0x40042408


@dataclass(frozen=True)
class Hook:
    """One program and where it is attached.

    Attributes:
        function: symbol of the kernel.
        program: name of the function in the BPF program.
        at_return: the program runs when the function returns, not when it is entered.
        hot: the function is called for each allocation, so the cost of a hit matters.
        offset: bytes from the function's start. In a hot function an offset above 0 lets the kprobe become a jump; see
            optprobe.py.
    """

    function: str
    program: str
    at_return: bool = False
    hot: bool = True
    offset: int = 0

    def event(self, pid: int) -> str:
        """Return the name of the definition that a process makes; `kprobe_profile` shows it without the group."""
        return f"{self.program}_{pid}"

    @property
    def to_jump(self) -> bool:
        """Return whether the kprobe can become a jump."""
        return self.hot and self.offset > 0

    def definition(self, pid: int) -> str:
        """Return the line to write into `kprobe_events`."""
        kind = f"r{MAXACTIVE}" if self.at_return else "p"
        place = f"{self.function}+{self.offset}" if self.offset else self.function
        return f"{kind}:{GROUP}/{self.event(pid)} {place}\n"


def left_behind(definitions: str, alive: Iterator[int]) -> list[str]:
    """Return the definitions, as group/event, that ended recordings left behind.

    Args:
        definitions: the content of `kprobe_events`.
        alive: the ids of the existing processes.
    """
    pids = set(alive)
    return [found["event"] for found in _DEFINITION.finditer(definitions) if int(found["pid"]) not in pids]


def profile_misses(profile: str) -> dict[str, int]:
    """Return how many hits each event missed, from the content of `kprobe_profile`."""
    return {found["event"]: int(found["missed"]) for found in _PROFILE.finditer(profile)}


class Kprobes:
    """Programs attached with kprobes, until `close`.

    Args:
        programs: the file descriptor of each hook's program, loaded as BPF_PROG_TYPE_KPROBE.
        code: returns the bytes in the kernel's memory at a hook's address.

    Raises:
        KalloctraceError: tracefs is not mounted, or the kernel rejects a probe.
    """

    def __init__(self, programs: Mapping[Hook, int], code: Callable[[Hook], bytes]) -> None:
        self._pid = os.getpid()
        self._folder = _tracefs()
        # Open to the end, as the privilege to open them may be given up before. Truncating would remove every
        # definition, also those of other tools.
        self._definitions = os.open(self._folder / "kprobe_events", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._profile = HeldFile(self._folder / "kprobe_profile")
        self._files: dict[Hook, int] = {}
        self._defined: list[str] = []
        for event in left_behind((self._folder / "kprobe_events").read_text(), _processes()):
            self._remove(event)
        _all.append(self)
        try:
            for hook, program in programs.items():
                self._attach_where_possible(hook, program)
            if not self._all_jumps(code):
                for hook in [hook for hook in self._files if hook.to_jump]:
                    self._detach(hook)
                    self._attach(replace(hook, offset=0), programs[hook])
        except BaseException as error:
            # A signal may come here too.
            self.close()
            if not isinstance(error, OSError):
                raise
            raise KalloctraceError(
                f"cannot attach a kprobe to {hook.function}",
                error.strerror or str(error),
                "see the kernel log (dmesg) for the reason, or record with --attach fentry",
            ) from error

    @property
    def jumps(self) -> list[str]:
        """Return the functions whose kprobe has become a jump."""
        return [hook.function for hook in self._files if hook.to_jump]

    def _all_jumps(self, code: Callable[[Hook], bytes]) -> bool:
        """Wait until all kprobes that can become a jump have become one; return False after a time limit."""
        deadline = time.monotonic() + _OPTIMIZE_SECONDS
        while not all(is_jump(code(hook)) for hook in self._files if hook.to_jump):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL)
        return True

    def close(self) -> None:
        """Detach everything."""
        for hook in list(self._files):
            os.close(self._files.pop(hook))
        for event in list(self._defined):
            self._undefine(event)
        if self in _all:
            _all.remove(self)

    def missed(self) -> dict[str, int]:
        """Return how many hits each program missed since it was attached, by the program's name.

        The kernel skips a kprobe that is hit in an interrupt while another kprobe's handler runs on the same CPU.
        For a return, calls beyond `MAXACTIVE` count as missed too, on kernels that count them:
        Linux kernel commit dfea08a2116f ("tracing/kprobes: 'nmissed' not showed correctly for kretprobe") (in v5.17).
        """
        misses = profile_misses(self._profile.read().decode())
        return {hook.program: misses[hook.event(self._pid)] for hook in self._files}

    def _attach_where_possible(self, hook: Hook, program: int) -> None:
        try:
            self._attach(hook, program)
        except OSError:
            if not hook.to_jump:
                raise
            self._attach(replace(hook, offset=0), program)

    def _attach(self, hook: Hook, program: int) -> None:
        event = f"{GROUP}/{hook.event(self._pid)}"
        # Before it exists, as the process may be aborted.
        self._defined.append(event)
        try:
            # A file of whose number nobody knows would keep the definition.
            with uninterrupted():
                self._write(hook.definition(self._pid))
                number = int((self._folder / "events" / event / "id").read_text())
                # Of all threads: a program attached to it runs on every CPU, not only on the one that is named here.
                self._files[hook] = perf_event_open(PERF_TYPE_TRACEPOINT, number, pid=-1, cpu=0, wakes=True)
        except OSError:
            self._undefine(event)
            raise
        file = self._files[hook]
        try:
            ioctl(file, _PERF_EVENT_IOC_SET_BPF, program)
            ioctl(file, _PERF_EVENT_IOC_ENABLE, 0)
        except OSError:
            self._detach(hook)
            raise

    def _detach(self, hook: Hook) -> None:
        os.close(self._files.pop(hook))
        self._undefine(f"{GROUP}/{hook.event(self._pid)}")

    def _undefine(self, event: str) -> None:
        self._remove(event)
        self._defined.remove(event)

    def _remove(self, event: str) -> None:
        # A definition without its process does nothing, and the next recording tries again.
        with suppress(OSError):
            self._write(f"-:{event}\n")

    def _write(self, line: str) -> None:
        os.write(self._definitions, line.encode())


_all: list[Kprobes] = []


def detach_all() -> None:
    """Detach everything, before the process ends.

    An exception, such as that of a signal, does so on its way, unless it comes while a context is entered or left.
    """
    for kprobes in _all.copy():
        kprobes.close()


atexit.register(detach_all)


def _tracefs() -> Path:
    for folder in TRACEFS:
        if (folder / "kprobe_events").exists():
            return folder
    raise KalloctraceError(
        "cannot attach kprobes",
        "tracefs is not mounted, or the kernel has no CONFIG_KPROBE_EVENTS",
        "mount it: mount -t tracefs nodev /sys/kernel/tracing; or record with --attach fentry",
    )


def _processes() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
