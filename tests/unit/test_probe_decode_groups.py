# SPDX-License-Identifier: MIT
"""The control group of a process is its group at the time of the call, and its container has the kubelet's names."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from kalloctrace.kernel.cgroups import Hierarchy
from kalloctrace.probe.decode import groups
from kalloctrace.probe.decode.comm import UNKNOWN
from kalloctrace.probe.decode.containers import ContainerFinder
from kalloctrace.probe.decode.groups import GroupPaths, TaskGroups
from kalloctrace.probe.layout import struct_dtype
from kalloctrace.trace.containers import ContainerNames

CHANGE, MADE = struct_dtype("task_comm", {}), struct_dtype("cgroup_path", {})
Structs = npt.NDArray[np.void]


class FakeRing:
    """The ring buffer of new groups."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, bytes]] = []

    def drain(self) -> Structs:
        """Return what was sent."""
        made, self.waiting = np.array(self.waiting, MADE), []
        return made


@pytest.fixture
def tree(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """Return the groups that the file system shows, which a test may change."""
    tree = {1: "/", 10: "/init.scope", 11: "/a"}

    def existing(_: Hierarchy) -> Iterator[tuple[int, str]]:
        yield from tree.items()

    monkeypatch.setattr(groups, "existing_groups", existing)
    monkeypatch.setattr(groups, "groups_of_processes", lambda _: iter([(1, "/init.scope"), (7, "/a")]))
    monkeypatch.setattr(groups, "_LOOK_SECONDS", 0.0)
    return tree


@pytest.fixture
def ring() -> FakeRing:
    """Return a ring buffer."""
    return FakeRing()


@pytest.fixture
def paths(tree: dict[int, str], ring: FakeRing) -> GroupPaths:
    """Return the paths of that machine."""
    del tree
    return GroupPaths(Hierarchy("v2", Path("/x")), ring)  # type: ignore[arg-type] # the one method that is called


def at(tasks: TaskGroups, *calls: tuple[int, int, int]) -> Sequence[str]:
    """Return the groups of calls, each a process, a CPU and a time."""
    pids, cpus, times = np.array(calls, np.uint64).T
    found: list[str] = tasks.column(pids.astype(np.uint32), cpus.astype(np.uint32), times).to_pylist()
    return found


def test_path_of_a_group(paths: GroupPaths, ring: FakeRing, tree: dict[int, str]) -> None:
    """It was there, or was made since, or was made where the program did not see it; otherwise it is unknown."""
    assert paths.path(11) == "/a"
    ring.waiting.append((12, b"/a/short\0garbage"))
    assert paths.path(12) == "/a/short"
    assert paths.path(13) == UNKNOWN
    tree[13] = "/a/missed"
    assert paths.path(13) == "/a/missed"
    assert paths.new() == ["/", "/init.scope", "/a", "/a/short", "/a/missed"]
    assert not paths.new()


def test_paths_in_a_namespace(tree: dict[int, str], ring: FakeRing) -> None:
    """Where the root that can be seen is not the hierarchy's, the kernel's paths begin elsewhere."""
    del tree[1]
    tree[500] = "/"
    paths = GroupPaths(Hierarchy("v2", Path("/x")), ring)  # type: ignore[arg-type] # as above
    ring.waiting.append((12, b"/system.slice/docker/a/short"))
    assert paths.path(12) == UNKNOWN
    tree[12] = "/a/short"
    assert paths.path(12) == "/a/short"


def test_paths_are_bounded(
    paths: GroupPaths, ring: FakeRing, tree: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups that are gone are forgotten; those that exist are found again."""
    monkeypatch.setattr(groups, "_MOST", 5)
    ring.waiting += [(20 + number, b"/gone") for number in range(40)]
    paths.drain()
    assert paths.path(21) == UNKNOWN
    assert [paths.path(group) for group in tree] == list(tree.values())


def test_groups_change_with_time(paths: GroupPaths, ring: FakeRing) -> None:
    """A new process has a group of its own; a change of a name, or of one thread, changes no group."""
    tasks = TaskGroups(Hierarchy("v2", Path("/x")), paths)
    ring.waiting.append((12, b"/b"))
    changes = [(20, 12, 7, 7), (30, 11, 9, 9), (40, 0, 7, 7), (50, 10, 8, 7), (60, 10, 9, 9)]
    tasks.update(np.array([(*change, b"x") for change in changes], CHANGE))
    calls = [(7, 0, 19), (7, 1, 20), (7, 0, 55), (9, 0, 59), (9, 0, 60), (1, 0, 60), (0, 1, 60), (99, 0, 60)]
    assert at(tasks, *calls) == ["/a", "/b", "/b", "/a", "/init.scope", "/init.scope", "/", UNKNOWN]


UID, OTHER = "1d2f3a4b-5c6d-4e7f-8a9b-0c1d2e3f4a5b", "6d2b6a2b1c0e4f5a9b8c7d6e5f4a3b2c"
ID = "0123456789abcdef" * 4


def test_names_of_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pod's name is found at once, the container's when the kubelet has made its link; each once."""
    monkeypatch.setattr("kalloctrace.probe.decode.containers._LOOK_SECONDS", 0.0)
    finder = ContainerFinder(tmp_path)
    container, pod, docker = f"/kubepods/pod{UID}/{ID}", f"/kubepods/burstable/pod{OTHER}", f"/docker/{ID[::-1]}"
    assert finder.found([container, pod, docker, "/init.scope"]) == {}
    for name in (f"shop_cart-0_{UID}", f"kube-system_etcd_{OTHER}", "damaged"):
        (tmp_path / "pods" / name).mkdir(parents=True)
    assert finder.found([]) == {
        container: ContainerNames("shop", "cart-0", None),
        pod: ContainerNames("kube-system", "etcd", None),
    }
    assert finder.found([]) == {}
    (tmp_path / "containers").mkdir()
    (tmp_path / f"containers/cart-0_shop_redis-{ID}.log").symlink_to("/missing")
    assert finder.found([]) == {container: ContainerNames("shop", "cart-0", "redis")}
    assert finder.found([]) == {}


def test_names_that_are_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are looked for once a second, for a minute; at the end once more."""
    finder = ContainerFinder(tmp_path)
    path = f"/docker/{ID}"
    assert finder.found([path]) == {}
    (tmp_path / "containers").mkdir()
    (tmp_path / f"containers/a_b_c-{ID}.log").touch()
    assert finder.found([]) == {}
    assert finder.found([], last=True) == {path: ContainerNames("b", "a", "c")}
    monkeypatch.setattr("kalloctrace.probe.decode.containers._LOOK_SECONDS", 0.0)
    (tmp_path / f"containers/a_b_c-{ID}.log").unlink()
    for _ in range(61):
        assert finder.found([path] if _ == 0 else []) == {}
    (tmp_path / f"containers/a_b_c-{ID}.log").touch()
    assert finder.found([]) == {}
