# SPDX-License-Identifier: MIT
"""Gives up, once everything is attached, what the process does not need to the end of the recording."""

import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from kalloctrace.errors import KalloctraceError
from kalloctrace.probe.privileges import landlock, seccomp
from kalloctrace.probe.privileges.capabilities import Capability, give_up_inherited, keep_only, set_aside
from kalloctrace.probe.privileges.system_calls import PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, prctl

_THREADS = Path("/proc/self/task")


def protections() -> list[str]:
    """Return what `confine` puts into force on this kernel, for people."""
    version = landlock.version()
    found = ["no_new_privs", "no capabilities to inherit"]
    if seccomp.available():
        found.append("seccomp")
    if version:
        found.append(f"Landlock {version}")
    return found


def confine(
    folders: Sequence[Path] = (),
    *,
    kept: Iterable[Capability] = (),
    maps_readable: Callable[[], bool] = lambda: True,
) -> None:
    """Give up what is not needed any more, for good. Files that are open stay usable; programs cannot be run any more.

    Files can be changed only in `folders`, where the kernel has Landlock. Otherwise, seccomp allows to open only new
    files for writing. Capabilities are given up except for those that the work turns out to need:
    CAP_BPF, where the kernel wants it for maps that are open (before 5.19, if kernel.unprivileged_bpf_disabled is set);
    CAP_DAC_OVERRIDE, to replace a file in a folder that belongs to somebody else; CAP_DAC_READ_SEARCH, where this
    program is installed in a folder that only its owner can read.

    Args:
        folders: where files will be made, replaced or removed.
        kept: capabilities that the work needs in any case.
        maps_readable: returns whether this process can read its BPF maps.

    Raises:
        KalloctraceError: the kernel refused.
    """
    threads = [(thread / "comm").read_text().strip() for thread in _THREADS.iterdir()]
    if len(threads) > 1:
        raise KalloctraceError(
            "cannot give up privileges",
            f"another thread would keep them: {' and '.join(threads)} run in this process",
            "run kalloctrace without what starts threads in it: a debugger, a profiler, sitecustomize.py",
        )
    try:
        give_up_inherited()
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        confined = landlock.version() > 0
        if confined:
            landlock.restrict(folders)
        set_aside()
        keep_only({*kept, *_needed(folders, maps_readable)})
        # Otherwise processes of the same user could take the open files, such as /proc/kcore.
        prctl(PR_SET_DUMPABLE, 0)
        if seccomp.available():
            seccomp.restrict(existing_files=confined)
    except OSError as error:
        raise KalloctraceError(
            "cannot give up privileges",
            error.strerror or str(error),
            "report the kernel's release, and the container or service that runs kalloctrace",
        ) from error


def _needed(folders: Sequence[Path], maps_readable: Callable[[], bool]) -> set[Capability]:
    needed = set()
    if not maps_readable():
        needed.add(Capability.BPF)
    if not all(os.access(folder, os.W_OK | os.X_OK, effective_ids=True) for folder in folders):
        needed.add(Capability.DAC_OVERRIDE)
    if not all(os.access(path, os.R_OK, effective_ids=True) for path in _program_files()):
        needed.add(Capability.DAC_READ_SEARCH)
    return needed


def _program_files() -> set[str]:
    """Return one file of each folder from which Python may still import a module."""
    folders = {sysconfig.get_path("stdlib"), str(Path(__file__).parents[2]), *sys.path}
    return {folder for folder in folders if folder and os.path.lexists(folder)}
