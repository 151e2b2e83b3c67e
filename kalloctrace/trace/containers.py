# SPDX-License-Identifier: MIT
"""The names of containers that a recording found on its machine, as a trace stores them.

They are JSON in the metadata of batches without rows, by the path of the control group. Readers that do not know this
metadata skip it.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from kalloctrace.kernel.cgroups import container_of
from kalloctrace.kernel.shapes import mapping, optional, parse_json, record, text

CONTAINERS_KEY = b"kalloctrace.containers"
MOST_CONTAINERS = 1 << 16
"""In one trace; further ones are ignored."""

_MOST_BYTES = 16 << 20
_NAME = text(253)
"""Kubernetes limits the names of pods and namespaces to that of a DNS subdomain."""
_FIELDS = ("namespace", "pod", "container")
_SHAPE = mapping(text(4096), record(dict.fromkeys(_FIELDS, optional(_NAME))), MOST_CONTAINERS)


class ContainerNames(NamedTuple):
    """The names of a container; each is None if it is not known.

    Attributes:
        namespace: the namespace of the pod.
        pod: the name of the pod.
        container: the name of the container in the pod, or at the runtime.
    """

    namespace: str | None
    pod: str | None
    container: str | None


Containers = Mapping[str, ContainerNames]
"""By the path of the control group."""


def encode_containers(containers: Containers) -> str:
    """Return names as text."""
    return json.dumps({path: names._asdict() for path, names in containers.items()})


def decode_containers(data: bytes) -> dict[str, ContainerNames]:
    """Return the names of such a text.

    Raises:
        ValueError: it is damaged.
    """
    found = parse_json(data, _MOST_BYTES)
    _SHAPE(found, "")
    return {path: ContainerNames(*(names[name] for name in _FIELDS)) for path, names in found.items()}


def describe_group(path: str, containers: Containers) -> dict[str, Any]:
    """Return what is known about a control group, as JSON values: its path, and its pod and container if it has any."""
    container, names = container_of(path), containers.get(path, ContainerNames(None, None, None))
    members: dict[str, Any] = {"cgroup": path}
    if container is not None:
        members |= {"pod_uid": container.pod_uid, "container_id": container.container_id}
        members |= {"pod_namespace": names.namespace, "pod": names.pod, "container": names.container}
    return members


_SHORT_ID = 12
"""Digits of an id that docker and crictl print."""


def group_text(path: str, containers: Containers) -> str:
    """Return a control group for people: the names of its container, else its ids, else its path."""
    container, names = container_of(path), containers.get(path)
    if container is None:
        return path
    ident = container.container_id and container.container_id[:_SHORT_ID]
    if names is None:
        pod = container.pod_uid and f"pod {container.pod_uid}"
        return " ".join(filter(None, (pod, ident and f"container {ident}")))
    return "/".join(filter(None, (names.namespace, names.pod, names.container or ident)))
