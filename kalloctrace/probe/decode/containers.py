# SPDX-License-Identifier: MIT
"""Finds the names of pods and containers where a kubelet writes logs.

The kubelet makes the folder /var/log/pods/NAMESPACE_POD_UID before it starts a pod's containers, and the link
/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log after it has started one (pkg/kubelet/kuberuntime/helpers.go and
legacy.go). None of these names contains an underscore.
"""

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

from kalloctrace.kernel.cgroups import Container, container_of
from kalloctrace.trace.containers import MOST_CONTAINERS, ContainerNames

_LOGS = Path("/var/log")
_POD = re.compile(r"([^_]+)_([^_]+)_([^_]+)", re.ASCII)
_CONTAINER = re.compile(r"([^_]+)_([^_]+)_([^_]+)-([0-9a-f]{64})\.log", re.ASCII)
_LOOK_SECONDS = 1.0
_MOST_LOOKS = 60
"""How often a name is looked for: a container that no kubelet started has none."""


class ContainerFinder:
    """The names of the containers whose groups a recording meets.

    Args:
        logs: the folder with the folders `pods` and `containers`.
    """

    def __init__(self, logs: Path = _LOGS) -> None:
        self._logs = logs
        self._waiting: dict[str, tuple[Container, int]] = {}
        self._found: dict[str, ContainerNames] = {}
        self._looked_at = 0.0

    def found(self, paths: Iterable[str], *, last: bool = False) -> dict[str, ContainerNames]:
        """Return the names that are found now.

        Args:
            paths: groups that were not passed before.
            last: there will be no later chance, so look although the last look is not long ago.
        """
        for path in paths:
            container = container_of(path)
            if container is not None and len(self._waiting) < MOST_CONTAINERS:
                self._waiting[path] = container, _MOST_LOOKS
        if not self._waiting or not (last or time.monotonic() - self._looked_at >= _LOOK_SECONDS):
            return {}
        self._looked_at = time.monotonic()
        pods = {
            match[3]: ContainerNames(match[1], match[2], None)
            for match in map(_POD.fullmatch, _names(self._logs / "pods"))
            if match
        }
        containers = {
            match[4]: ContainerNames(match[2], match[1], match[3])
            for match in map(_CONTAINER.fullmatch, _names(self._logs / "containers"))
            if match
        }
        new: dict[str, ContainerNames] = {}
        for path, (container, looks) in list(self._waiting.items()):
            names = containers.get(container.container_id or "") or pods.get(container.pod_uid or "")
            if names is not None and names != self._found.get(path):
                new[path] = names
            complete = names is not None and (names.container is not None or container.container_id is None)
            if complete or looks <= 1:
                del self._waiting[path]
                self._found.pop(path, None)
            else:
                self._waiting[path] = container, looks - 1
                if names is not None:
                    self._found[path] = names
        return new


def _names(folder: Path) -> list[str]:
    try:
        return [os.fsencode(name.name).decode(errors="replace") for name in folder.iterdir()]
    except OSError:
        return []
