# SPDX-License-Identifier: MIT
"""The control groups of tasks at any time of a recording: those at its start, and each change since."""

import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from kalloctrace.kernel.cgroups import ROOT, Hierarchy, existing_groups, groups_of_processes
from kalloctrace.probe.decode.comm import UNKNOWN, TaskHistory
from kalloctrace.probe.maps.ringbuf import Ring

_MOST = 1 << 16
"""Groups whose path is kept; each takes some hundred bytes."""
_LOOK_SECONDS = 1.0
"""How often to look for an unknown group in the file system."""
_ROOT_ID = 1
"""kernfs gives the root of a hierarchy this id, kernfs_create_root() in fs/kernfs/dir.c."""


class GroupPaths:
    """The paths of control groups by their ids.

    The program sends the path of each new group, so that those of short-lived groups are known too. Where a cgroup
    namespace hides the root of the hierarchy, these paths begin elsewhere and are not used.

    Args:
        hierarchy: where the groups are.
        made: the ring buffer of `struct cgroup_path`.
    """

    def __init__(self, hierarchy: Hierarchy, made: Ring) -> None:
        self._hierarchy = hierarchy
        self._made = made
        self._paths = dict(existing_groups(hierarchy))
        self._from_root = self._paths.get(_ROOT_ID) == ROOT
        self._new = list(self._paths.values())
        self._looked_at = time.monotonic()

    def drain(self) -> None:
        """Read the groups that were made; call this several times per second."""
        made = self._made.drain()
        if self._from_root:
            for group, path in zip(made["id"].tolist(), made["path"].tolist(), strict=True):
                self._add(group, path.split(b"\0", 1)[0].decode(errors="replace"))

    def path(self, group: int) -> str:
        """Return the path of a group; `UNKNOWN` if it is not known."""
        if group not in self._paths:
            self.drain()
        if group not in self._paths and time.monotonic() - self._looked_at >= _LOOK_SECONDS:
            self._look()
        return self._paths.get(group, UNKNOWN)

    def new(self) -> list[str]:
        """Return the paths that became known since the last call of this method."""
        new, self._new = self._new, []
        return new

    def _look(self) -> None:
        self._looked_at = time.monotonic()
        for group, path in existing_groups(self._hierarchy):
            if group not in self._paths:
                self._add(group, path)

    def _add(self, group: int, path: str) -> None:
        if len(self._paths) >= _MOST:
            # Those that still exist are found again.
            self._paths.clear()
        self._paths[group] = path
        self._new.append(path)


class TaskGroups(TaskHistory):
    """The history of the control group of each process.

    Args:
        hierarchy: where the groups are.
        paths: their paths.
    """

    def __init__(self, hierarchy: Hierarchy, paths: GroupPaths) -> None:
        self._hierarchy = hierarchy
        self._paths = paths
        super().__init__()

    def running(self) -> Iterator[tuple[int, str]]:
        """Yield the id and the group of each existing process."""
        return groups_of_processes(self._hierarchy)

    def idle(self, cpu: int) -> str:
        """Return the group of an idle task."""
        del cpu
        return ROOT

    def update(self, changes: npt.NDArray[np.void]) -> None:
        """Add changes.

        Args:
            changes: `struct task_comm` of record.h, in any order. One without a group is a name's; one of a thread that
                is not the first of its process does not change the process's group.
        """
        of_processes = changes[(changes["cgroup"] != 0) & (changes["tid"] == changes["pid"])]
        self.add(of_processes["pid"], of_processes["time"], map(self._paths.path, of_processes["cgroup"].tolist()))
