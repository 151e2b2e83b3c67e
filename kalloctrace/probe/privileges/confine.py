# SPDX-License-Identifier: MIT
"""Gives up, once everything is attached, what the process does not need to the end of the recording."""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from kalloctrace.errors import KalloctraceError
from kalloctrace.probe.privileges import landlock, seccomp
from kalloctrace.probe.privileges.capabilities import Capability, give_up_inherited, keep_only, permitted, set_aside
from kalloctrace.probe.privileges.threads import thread_names
from kalloctrace.system_calls import PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, prctl

_INCLUDED_IN = {
    Capability.BPF: Capability.SYS_ADMIN,
    Capability.DAC_READ_SEARCH: Capability.DAC_OVERRIDE,
}
"""Kept where the caller has not got the narrower capability."""


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
    files_later: bool = False,
    maps_readable: Callable[[], bool] = lambda: True,
    attaches_later: bool = False,
    in_other_thread: Callable[[Callable[[], None]], None] | None = None,
) -> list[str]:
    """Give up what is not needed any more, for good. Files that are open stay usable; programs cannot be run any more.

    Files can be changed only in `folders`, where the kernel has Landlock. Otherwise, seccomp allows to open only new
    files for writing. Capabilities are given up except for those that the work turns out to need:

    - CAP_BPF, where the kernel wants it for open maps: before 5.19, if kernel.unprivileged_bpf_disabled is set;
    - CAP_DAC_OVERRIDE, to make or replace files in a folder that belongs to somebody else, and CAP_CHOWN, to give them
      to the user who called sudo;
    - CAP_DAC_READ_SEARCH, where this program is installed in a folder that only its owner can read.

    Args:
        folders: where files will be made, replaced or removed.
        kept: capabilities that the work needs in any case.
        files_later: files will be made or replaced there; otherwise those that are open are enough.
        maps_readable: returns whether this process can read its BPF maps.
        attaches_later: BPF programs that are loaded will be attached.
        in_other_thread: runs a function in the other thread of this process; None if there is none.

    Returns:
        The names of threads that were started by somebody else, and keep their capabilities.

    Raises:
        KalloctraceError: the kernel refused.
    """
    strangers = len(thread_names()) - (1 if in_other_thread is None else 2)
    try:
        with_landlock = landlock.version() > 0
        give_up_inherited()
        _restrict_thread(folders if with_landlock else None)
        set_aside()
        needed = {*kept, *_needed(folders if files_later else (), maps_readable)}
        needed |= {_INCLUDED_IN[one] for one in needed - permitted() if one in _INCLUDED_IN}
        keep_only(needed)

        def follow() -> None:
            give_up_inherited()
            _restrict_thread(folders if with_landlock else None)
            keep_only(needed)

        if in_other_thread is not None:
            in_other_thread(follow)
        # Otherwise processes of the same user could take the open files, such as /proc/kcore.
        prctl(PR_SET_DUMPABLE, 0)
        if seccomp.available():
            seccomp.restrict(existing_files=with_landlock, links=attaches_later)
    except OSError as error:
        raise KalloctraceError(
            "cannot give up privileges",
            error.strerror or str(error),
            "report the kernel's release, and the container or service that runs kalloctrace",
        ) from error
    return thread_names() if strangers > 0 else []


def _restrict_thread(folders: Sequence[Path] | None) -> None:
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if folders is not None:
        landlock.restrict(folders)


def _needed(folders: Sequence[Path], maps_readable: Callable[[], bool]) -> set[Capability]:
    needed = set()
    if not maps_readable():
        needed.add(Capability.BPF)
    for folder in folders:
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            needed.add(Capability.DAC_OVERRIDE)
            needed |= {Capability.CHOWN} if str(folder.stat().st_uid) == os.environ.get("SUDO_UID") else set()
    if not all(os.access(path, os.R_OK, effective_ids=True) for path in _program_files()):
        needed.add(Capability.DAC_READ_SEARCH)
    return needed


def _program_files() -> set[str]:
    """Return one file of each folder from which Python may still import a module."""
    # Not from sysconfig, which would import a module that may not be readable now.
    folders = {str(Path(os.__file__).parent), str(Path(__file__).parents[2]), *sys.path}
    return {folder for folder in folders if folder and os.path.lexists(folder)}
