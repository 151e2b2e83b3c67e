# SPDX-License-Identifier: MIT
"""Runs a command while empty BPF programs are attached to the page allocator: no tracer can cost less than these.

usage: python floors.py fentry|jump|multi one|both WORD...

`one` attaches to get_page_from_freelist(), `both` to the entry function too. Before the command runs, each program is
seen to run for each allocation; the line that says so is printed at the end.
"""

import mmap
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.btf import libbpf
from kalloctrace.kernel.kcore import Kcore
from kalloctrace.kernel.live import LiveKernel
from kalloctrace.probe.attach.kprobes import Hook, Kprobes
from kalloctrace.probe.attach.links import Links
from kalloctrace.probe.attach.optprobe import CODE_BYTES, past_ftrace
from kalloctrace.probe.attach.plan import FREELIST
from kalloctrace.probe.attach.programs import (
    TRACE_FENTRY,
    TRACE_KPROBE_MULTI,
    TYPE_KPROBE,
    TYPE_TRACING,
    load_program,
)
from kalloctrace.system_calls import bpf

PAGES = 2048
"""Allocations that each program must see."""

_RAW_TRACEPOINT_OPEN = 17
"""include/uapi/linux/bpf.h"""
_EMPTY = bytes.fromhex("b700000000000000 9500000000000000")
"""r0 = 0; exit"""
_STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")


def load(kind: int, attach_type: int = 0, btf_id: int = 0) -> int:
    """Load an empty program, and return its file; arguments as of `load_program`."""
    return load_program(_EMPTY, kind, name="empty", attach_type=attach_type, btf_id=btf_id)


def attach_fentry(functions: Sequence[str]) -> list[int]:
    """Attach by trampolines; return the programs. The links stay open until the process ends."""
    programs = []
    for function in functions:
        btf_id = libbpf().libbpf_find_vmlinux_btf_id(function.encode(), TRACE_FENTRY)
        programs.append(load(TYPE_TRACING, TRACE_FENTRY, btf_id))
        bpf(_RAW_TRACEPOINT_OPEN, "<QI", 0, programs[-1])
    return programs


def attach_multi(functions: Sequence[str], kernel: LiveKernel) -> tuple[list[int], Links]:
    """Attach by a link for each function, as programs that differ are; return the programs and the links."""
    hooks = {Hook(function, f"empty_{function}"): load(TYPE_KPROBE, TRACE_KPROBE_MULTI) for function in functions}
    return list(hooks.values()), Links(hooks, kernel.address)


def attach_jumps(functions: Sequence[str], kernel: LiveKernel) -> tuple[list[int], Kprobes]:
    """Attach by kprobes; return the programs and the kprobes.

    Raises:
        OSError: the kernel did not make jumps of them.
    """

    def code(hook: Hook) -> bytes:
        return kcore.read(kernel.address(hook.function) + hook.offset, CODE_BYTES)

    with Kcore() as kcore:
        hooks = {
            Hook(function, f"empty_{function}", offset=past_ftrace(kcore.read(kernel.address(function), CODE_BYTES))): (
                load(TYPE_KPROBE)
            )
            for function in functions
        }
        kprobes = Kprobes(hooks, code)
    if len(kprobes.jumps) != len(functions):
        raise OSError(0, "the kernel does not make jumps of these kprobes")
    return list(hooks.values()), kprobes


def runs(program: int) -> int:
    """Return how often a program ran while statistics were on."""
    text = Path(f"/proc/self/fdinfo/{program}").read_text(encoding="ascii")
    found = re.search(r"^run_cnt:\s+(\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else 0


def seen(programs: Sequence[int]) -> int:
    """Make `PAGES` allocations; return how often the program ran that ran least."""
    _STATISTICS.write_text("1", encoding="ascii")
    before = [runs(program) for program in programs]
    with mmap.mmap(-1, PAGES * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        # A kernel without huge pages refuses this.
        with suppress(OSError):
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(PAGES):
            memory[page * mmap.PAGESIZE] = 1
    after = [runs(program) for program in programs]
    _STATISTICS.write_text("0", encoding="ascii")
    return min(late - early for early, late in zip(before, after, strict=True))


_REACHES: Mapping[str, int] = {"one": 1, "both": 2}


def main(way: str, reach: str, words: Sequence[str]) -> int:
    """Attach, and run the command; return its exit code."""
    kernel = LiveKernel()
    functions = (FREELIST, kernel.features.entry)[: _REACHES[reach]]
    with ExitStack() as attached:
        try:
            if way == "fentry":
                programs = attach_fentry(functions)
            elif way == "multi":
                programs, links = attach_multi(functions, kernel)
                attached.callback(links.close)
            else:
                programs, kprobes = attach_jumps(functions, kernel)
                attached.callback(kprobes.close)
        except (OSError, KalloctraceError) as error:
            why = error.why if isinstance(error, KalloctraceError) else error.strerror
            sys.stderr.write(f"error: the kernel does not attach by {way}: {why}\n")
            return 1
        found = seen(programs)
        if found < PAGES:
            sys.stderr.write(f"error: a program ran {found} times for {PAGES} allocations\n")
            return 1
        code = subprocess.run(words, check=False).returncode
    sys.stdout.write(f"each program ran {found} times for {PAGES} allocations\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
