# SPDX-License-Identifier: MIT
"""Control groups: the hierarchy that a machine uses, the groups in it, and the container that a path stands for."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_PROC = Path("/proc")
ROOT = "/"
"""The path of the group that all tasks are in at first."""


@dataclass(frozen=True)
class Hierarchy:
    """The hierarchy that says which group a task belongs to.

    Attributes:
        version: "v2", the unified hierarchy; or "v1", that of the controller memory.
        mount: the folder where it is mounted.
    """

    version: Literal["v1", "v2"]
    mount: Path


def find_hierarchy(proc: Path = _PROC) -> Hierarchy | None:
    """Return the hierarchy of this machine; None if none is mounted.

    Where memory is a controller of v1, as on a hybrid system, the unified hierarchy has no controllers.

    Args:
        proc: where procfs is mounted.
    """
    found: dict[str, Path] = {}
    for line in _lines(proc / "self/mountinfo"):
        # proc_pid_mountinfo(5): … mount point …  -  type, source, options of the superblock.
        left, separator, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        if not separator or len(fields) < 5 or len(kind) < 3:
            continue
        mount = Path(_unescaped(fields[4]))
        if kind[0] == "cgroup2":
            found.setdefault("v2", mount)
        elif kind[0] == "cgroup" and "memory" in kind[2].split(","):
            found.setdefault("v1", mount)
    if "v1" in found:
        return Hierarchy("v1", found["v1"])
    return Hierarchy("v2", found["v2"]) if "v2" in found else None


def group_of_process(hierarchy: Hierarchy, pid: int, proc: Path = _PROC) -> str | None:
    """Return the path of a process's group; None if the process has ended.

    Args:
        hierarchy: where to look.
        pid: the process.
        proc: where procfs is mounted.
    """
    for line in _lines(proc / str(pid) / "cgroup"):
        # cgroups(7): hierarchy-ID:controller-list:cgroup-path; the path may contain colons.
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if (number == "0") if hierarchy.version == "v2" else ("memory" in controllers.split(",")):
            return path.removesuffix(" (deleted)")
    return None


def groups_of_processes(hierarchy: Hierarchy, proc: Path = _PROC) -> Iterator[tuple[int, str]]:
    """Yield the id of each existing process, and the path of its group."""
    for folder in proc.glob("[0-9]*"):
        path = group_of_process(hierarchy, int(folder.name), proc)
        if path is not None:
            yield int(folder.name), path


def existing_groups(hierarchy: Hierarchy) -> Iterator[tuple[int, str]]:
    """Yield the id and the path of each existing group.

    The id is `kernfs_node.id`, which the file system shows as the inode on 64-bit kernels. Linux kernel commit
    40430452fd5d ("kernfs: use 64bit inos if ino_t is 64bit") (in v5.5).
    """
    top = os.fspath(hierarchy.mount)
    try:
        yield hierarchy.mount.stat().st_ino, ROOT
    except OSError:
        return
    waiting = [""]
    while waiting:
        path = waiting.pop()
        try:
            with os.scandir(top + path) as entries:
                found = [(entry.inode(), f"{path}/{entry.name}") for entry in entries if entry.is_dir()]
        except OSError:
            # The group was removed.
            continue
        yield from found
        waiting += [child for _, child in found]


@dataclass(frozen=True)
class Container:
    """What the path of a group says about the container of its tasks.

    Attributes:
        pod_uid: the UID of the Kubernetes pod; None outside a pod. A static pod's is a hash without dashes.
        container_id: the runtime's id of the innermost container, 64 hexadecimal digits; None for a group of a pod that
            belongs to no container.
    """

    pod_uid: str | None
    container_id: str | None


_NAME_MAX = 255
"""Bytes in the name of a group: the kernel's limit, include/uapi/linux/limits.h. A longer one is no container's."""
_HEX = "[0-9a-f]"
# The cgroupfs drivers name a folder after the id, with or without a prefix; the systemd drivers make a scope.
# containerd with the wrong driver makes one folder SLICE:PREFIX:ID.
_CONTAINER = re.compile(rf"(?:.*:)?(?:(?P<runtime>[a-z][a-z-]*)[-:])?(?P<id>{_HEX}{{64}})(?:\.scope)?", re.ASCII)
_MONITORS = ("conmon", "crio-conmon", "libpod-conmon")
"""Prefixes of groups in which a runtime watches a container from outside."""
_UID = rf"{_HEX}{{8}}(?P<dash>[-_]){_HEX}{{4}}(?:(?P=dash){_HEX}{{4}}){{2}}(?P=dash){_HEX}{{12}}|{_HEX}{{32}}"
_POD = re.compile(rf"(?:.*-)?pod(?P<uid>{_UID})(?:\.slice)?(?::.*)?", re.ASCII)


def container_of(path: str) -> Container | None:
    """Return the container of a group; None if its tasks are in none.

    Known are the paths of the kubelet's drivers systemd and cgroupfs, of docker, containerd, CRI-O, podman and nerdctl,
    each also below other groups, as in a container that runs containers.

    Args:
        path: of the group, from the root of its hierarchy.
    """
    pod = container = None
    in_kubernetes = False
    for part in path.split("/"):
        if len(part) > _NAME_MAX:
            continue
        in_kubernetes = in_kubernetes or "kubepods" in part
        if in_kubernetes and (found := _POD.fullmatch(part)):
            pod = found["uid"].replace("_", "-")
        if found := _CONTAINER.fullmatch(part):
            container = None if found["runtime"] in _MONITORS else found["id"]
    return None if pod is None and container is None else Container(pod, container)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_bytes().decode(errors="replace").splitlines()
    except OSError:
        return []


def _unescaped(text: str) -> str:
    """Return a path of mountinfo; the kernel writes space, tab, newline and backslash as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
