# SPDX-License-Identifier: MIT
"""Who else traces the functions that are attached to, or uses BPF: each makes a recording dearer, or miss calls."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from kalloctrace.kernel.live import TRACEFS

_KPROBES = Path("/sys/kernel/debug/kprobes/list")
_PROC = Path("/proc")
_BPF_FILE = re.compile(r"anon_inode:\[?bpf[-_](?:prog|map|link)")


def tracers(functions: Iterable[str], folders: Iterable[Path] = TRACEFS, kprobes: Path = _KPROBES) -> list[str]:
    """Return what is attached to these functions, one line each, as the kernel's own lists say.

    Args:
        functions: names of the kernel's functions.
        folders: where tracefs may be mounted; `enabled_functions` lists what ftrace calls something for.
        kprobes: the list of kprobes.
    """
    names = frozenset(functions)
    found = [line for line in _lines(*(folder / "enabled_functions" for folder in folders)) if _first(line) in names]
    for line in _lines(kprobes):
        # address, k or r, function+offset, state
        words = line.split()
        if len(words) > 2 and words[2].partition("+")[0] in names:
            found.append(" ".join(words[1:]))
    return found


def bpf_processes(proc: Path = _PROC) -> list[str]:
    """Return the other processes that have BPF programs, maps or links open, as `name (pid)`.

    Args:
        proc: where procfs is mounted.
    """
    found = []
    for folder in sorted((one for one in proc.iterdir() if one.name.isdigit()), key=lambda one: int(one.name)):
        # It may end meanwhile, or belong to somebody else.
        with suppress(OSError):
            if int(folder.name) != os.getpid() and any(map(_BPF_FILE.match, _targets(folder / "fd"))):
                found.append(f"{(folder / 'comm').read_text(errors='replace').strip()} ({folder.name})")
    return found


def _targets(folder: Path) -> Iterator[str]:
    for file in folder.iterdir():
        with suppress(OSError):
            yield str(file.readlink())


def _lines(*paths: Path) -> list[str]:
    """Return the lines of the first of these files that can be read."""
    for path in paths:
        with suppress(OSError):
            return path.read_text(errors="replace").splitlines()
    return []


def _first(line: str) -> str:
    return line.split(maxsplit=1)[0] if line.strip() else ""
