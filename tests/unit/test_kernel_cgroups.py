# SPDX-License-Identifier: MIT
"""The hierarchy of control groups, and what their paths say about containers."""

from pathlib import Path

import pytest

from kalloctrace.kernel.cgroups import (
    Container,
    Hierarchy,
    container_of,
    existing_groups,
    find_hierarchy,
    group_of_process,
    groups_of_processes,
)

ID = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
UID = "1d2f3a4b-5c6d-4e7f-8a9b-0c1d2e3f4a5b"
UNDERSCORES = UID.replace("-", "_")
STATIC = "6d2b6a2b1c0e4f5a9b8c7d6e5f4a3b2c"
KIND = f"/system.slice/docker-{OTHER}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice"

PATHS = [
    # The kubelet's driver systemd, v2.
    (f"/kubepods.slice/kubepods-pod{UNDERSCORES}.slice/cri-containerd-{ID}.scope", UID, ID),
    (f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDERSCORES}.slice/crio-{ID}.scope", UID, ID),
    (
        f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UNDERSCORES}.slice/crio-{ID}.scope/container",
        UID,
        ID,
    ),
    (f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC}.slice/docker-{ID}.scope", STATIC, ID),
    (f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UNDERSCORES}.slice", UID, None),
    (f"/kubepods.slice/kubepods-pod{UNDERSCORES}.slice/crio-conmon-{ID}.scope", UID, None),
    ("/kubepods.slice/kubepods-burstable.slice", None, None),
    # kind: the kubelet runs below a group of its own, in a container of docker.
    (f"{KIND}/kubelet-kubepods-burstable-pod{UNDERSCORES}.slice/cri-containerd-{ID}.scope", UID, ID),
    # The kubelet's driver cgroupfs, v1 and v2.
    (f"/kubepods/burstable/pod{UID}/{ID}", UID, ID),
    (f"/kubepods/pod{UID}/{ID}", UID, ID),
    (f"/kubepods/besteffort/pod{STATIC}/{ID}", STATIC, ID),
    (f"/kubepods/besteffort/pod{UID}/crio-{ID}", UID, ID),
    (f"/kubepods/besteffort/pod{UID}/crio-conmon-{ID}", UID, None),
    (f"/kubepods/besteffort/pod{UID}", UID, None),
    # containerd with cgroupfs below a kubelet with systemd.
    (f"/system.slice/containerd.service/kubepods-burstable-pod{UNDERSCORES}.slice:cri-containerd:{ID}", UID, ID),
    (f"/kubepods-burstable-pod{UNDERSCORES}.slice:cri-containerd:{ID}", UID, ID),
    # docker.
    (f"/system.slice/docker-{ID}.scope", None, ID),
    (f"/docker/{ID}", None, ID),
    (f"/docker/{OTHER}/docker/{ID}", None, ID),
    (f"/docker/{OTHER}/kubelet/kubepods/besteffort/pod{UID}/{ID}", UID, ID),
    (f"/kubepods/burstable/pod{UID}/{OTHER}/docker/{ID}", UID, ID),
    (f"/system.slice/docker-{ID}.scope/init.scope", None, ID),
    ("/system.slice/docker.service", None, None),
    (f"/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope", None, ID),
    # containerd and nerdctl.
    (f"/system.slice/nerdctl-{ID}.scope", None, ID),
    (f"/default/{ID}", None, ID),
    ("/system.slice/containerd.service", None, None),
    # podman.
    (f"/machine.slice/libpod-{ID}.scope", None, ID),
    (f"/machine.slice/libpod-{ID}.scope/container", None, ID),
    (f"/machine.slice/libpod-conmon-{ID}.scope", None, None),
    (f"/machine.slice/machine-libpod_pod_{OTHER}.slice/libpod-{ID}.scope/container", None, ID),
    (f"/machine.slice/machine-libpod_pod_{OTHER}.slice", None, None),
    (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container", None, ID),
    (f"/libpod_parent/libpod-{ID}", None, ID),
    (f"/libpod_parent/conmon/conmon-{ID}", None, None),
    # systemd, and groups that somebody made by hand.
    ("/", None, None),
    ("/init.scope", None, None),
    ("/system.slice/ssh.service", None, None),
    ("/system.slice/system-getty.slice/getty@tty1.service", None, None),
    ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-firefox-2481.scope", None, None),
    ("/user.slice/user-1000.slice/session-2.scope", None, None),
    (f"/build/pod{UID}", None, None),
    (f"/build/{ID[:-1]}", None, None),
    (f"/build/{ID}0", None, None),
    (f"/build/{ID.upper()}", None, None),
    (f"/kubepods/pod{UID[:-1]}", None, None),
    (f"/kubepods/pod{UID.replace('-', '_', 1)}", None, None),
]


@pytest.mark.parametrize(("path", "pod", "container"), PATHS)
def test_container(path: str, pod: str | None, container: str | None) -> None:
    """A path says which pod and which container its tasks belong to, or that they are in none."""
    assert container_of(path) == (None if (pod, container) == (None, None) else Container(pod, container))


def test_long_path() -> None:
    """The longest path that the kernel has is read at once, whatever is in it."""
    assert container_of("/" + "pod-" * 1024 + "/" + "a:" * 2048) is None
    # No group has a name of more than 255 bytes; long ones would take quadratic time.
    assert container_of("/" + "a" * 191 + ":" + "b" * 64) is None
    assert container_of("/" + "a" * 190 + ":" + "b" * 64) == Container(None, "b" * 64)


V2 = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "39 25 0:35 / /sys/fs/cgroup/memory rw shared:15 - cgroup cgroup rw,memory"
UNIFIED = "27 25 0:24 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw"
OTHER_V1 = "40 25 0:36 / /sys/fs/cgroup/cpu,cpuacct rw shared:16 - cgroup cgroup rw,cpu,cpuacct"


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ([], None),
        (["damaged", "1 2 - 3"], None),
        ([V2], Hierarchy("v2", Path("/sys/fs/cgroup"))),
        ([UNIFIED, OTHER_V1, V1], Hierarchy("v1", Path("/sys/fs/cgroup/memory"))),
        ([UNIFIED, OTHER_V1], Hierarchy("v2", Path("/sys/fs/cgroup/unified"))),
        ([V2.replace("/sys/fs/cgroup", r"/a\040b")], Hierarchy("v2", Path("/a b"))),
    ],
)
def test_hierarchy(tmp_path: Path, mounts: list[str], expected: Hierarchy | None) -> None:
    """The hierarchy is that of memory: v1 if a v1 hierarchy has the controller, otherwise v2."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text("".join(f"{line}\n" for line in mounts))
    assert find_hierarchy(tmp_path) == expected


def test_without_procfs(tmp_path: Path) -> None:
    """Without procfs no hierarchy is found."""
    assert find_hierarchy(tmp_path) is None


def test_processes(tmp_path: Path) -> None:
    """A process's group is read in the hierarchy that is used; a process that has ended has none."""
    for pid, text in {
        1: "12:cpu,cpuacct:/c\n7:memory:/m/a:b\n0::/init.scope\n",
        20: "0::/gone.service (deleted)\n",
    }.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cgroup").write_text(text)
    (tmp_path / "30").mkdir()
    v1, v2 = Hierarchy("v1", Path("/x")), Hierarchy("v2", Path("/y"))
    assert group_of_process(v2, 1, tmp_path) == "/init.scope"
    assert group_of_process(v1, 1, tmp_path) == "/m/a:b"
    assert group_of_process(v1, 20, tmp_path) is None
    assert dict(groups_of_processes(v2, tmp_path)) == {1: "/init.scope", 20: "/gone.service"}


def test_groups(tmp_path: Path) -> None:
    """Each folder of the hierarchy is a group, whose id is its inode; files are none."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/cgroup.procs").touch()
    expected = {tmp_path.stat().st_ino: "/", **{(tmp_path / p).stat().st_ino: f"/{p}" for p in ("a", "a/b")}}
    assert dict(existing_groups(Hierarchy("v2", tmp_path))) == expected
    assert not list(existing_groups(Hierarchy("v2", tmp_path / "missing")))
