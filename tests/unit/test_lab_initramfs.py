# SPDX-License-Identifier: MIT
"""Guests in memory: the format and content of their archive, and excluded files."""

import io
import os
import stat
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.lab import guest_job, host_files, initramfs
from kalloctrace.lab.cpio import CpioWriter, Tree
from kalloctrace.lab.guest import Machine, initramfs_command
from kalloctrace.lab.image import has_9p, release_of

RELEASE = "6.19.14+deb13-amd64"


def write_image(path: Path, release: str = RELEASE) -> Path:
    """Write the parts of a kernel image that contain its release."""
    image = bytearray(0x400)
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x100)
    text = f"{release} (someone@example.invalid) #1 SMP".encode()
    image[0x300 : 0x300 + len(text)] = text
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image)
    return path


def unpacked(archive: bytes, folder: Path) -> Path:
    """Unpack an archive with an independent program."""
    folder.mkdir()
    subprocess.run(["busybox", "cpio", "-idmu"], input=archive, cwd=folder, check=True, capture_output=True)
    return folder


def test_release_is_read_from_the_image(tmp_path: Path) -> None:
    """A file that is not an x86 image has none."""
    assert release_of(write_image(tmp_path / "vmlinuz")) == RELEASE
    other = tmp_path / "other"
    other.write_bytes(b"\x7fELF" + bytes(0x400))
    assert release_of(other) == ""


@pytest.mark.parametrize(
    ("listed", "answer"),
    [
        ("modules.dep:kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz", True),
        ("modules.dep:kernel/fs/9p/9p.ko:", True),
        ("modules.builtin:kernel/fs/9p/9p.ko", True),
        ("modules.dep:kernel/net/9p/9pnet.ko.xz:", False),
        ("modules.dep:kernel/fs/ext4/ext4.ko.xz: kernel/fs/9p/9p.ko.xz", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("image", ["boot/vmlinuz", f"usr/lib/modules/{RELEASE}/vmlinuz"])
def test_9p_is_found_among_the_modules(image: str, listed: str, answer: bool, tmp_path: Path) -> None:
    """It is found as a module or built in, in any tree, but not as a dependency."""
    path = write_image(tmp_path / image)
    modules = tmp_path / "usr/lib/modules" / RELEASE
    modules.mkdir(parents=True, exist_ok=True)
    name, _, line = listed.partition(":")
    if name:
        (modules / name).write_text(f"{line}\n", encoding="ascii")
    assert has_9p(path) is answer


def test_modules_of_another_kernel_do_not_count(tmp_path: Path) -> None:
    """Only the directory of the image's release is read."""
    path = write_image(tmp_path / "boot/vmlinuz")
    modules = tmp_path / "lib/modules/5.10.0-1-amd64"
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text("kernel/fs/9p/9p.ko:\n", encoding="ascii")
    assert not has_9p(path)


@pytest.mark.parametrize(
    ("line", "answer"),
    [("CONFIG_9P_FS=y", True), ("CONFIG_9P_FS=m", True), ("# CONFIG_9P_FS is not set", False)],
)
def test_build_tree_is_judged_by_its_configuration(line: str, answer: bool, tmp_path: Path) -> None:
    """A newly built kernel has no directory of modules."""
    path = write_image(tmp_path / "linux/arch/x86/boot/bzImage")
    (tmp_path / "linux/.config").write_text(f"CONFIG_NET=y\n{line}\n", encoding="ascii")
    assert has_9p(path) is answer


def test_archive_is_what_cpio_unpacks(tmp_path: Path) -> None:
    """The program cpio unpacks files, modes, times, links, directories, and names and contents of any length."""
    source = tmp_path / "here"
    source.mkdir()
    names = [f"{'n' * length}" for length in range(1, 9)]
    for length, name in enumerate(names):
        (source / name).write_bytes(b"c" * length)
    (source / "n").chmod(0o751)
    os.utime(source / "n", (1_000_000_000, 1_000_000_000))
    packed = io.BytesIO()
    tree = Tree(CpioWriter(packed))
    for name in names:
        tree.add(source / name)
    tree.add_data("/own/data", b"data", 0o600)
    tree.add_link("own/link", "data")
    tree.close()
    folder = unpacked(packed.getvalue(), tmp_path / "there")
    there = folder / source.relative_to("/")
    assert [(there / name).read_bytes() for name in names] == [b"c" * length for length in range(8)]
    facts = (there / "n").stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_mtime) == (0o751, 1_000_000_000)
    assert (folder / "own/link").read_bytes() == b"data"
    assert stat.S_IMODE((folder / "own/data").stat().st_mode) == 0o600


def test_links_in_paths_stay_links(tmp_path: Path) -> None:
    """Links such as /lib are kept, and their targets are added."""
    real = tmp_path / "usr/lib"
    real.mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    (real / "libx.so.1.2").write_bytes(b"x")
    (real / "libx.so.1").symlink_to("libx.so.1.2")
    packed = io.BytesIO()
    tree = Tree(CpioWriter(packed))
    tree.add(tmp_path / "lib/libx.so.1")
    tree.close()
    there = unpacked(packed.getvalue(), tmp_path / "there") / tmp_path.relative_to("/")
    assert (there / "lib").readlink() == Path("usr/lib")
    assert (there / "lib/libx.so.1").is_symlink()
    assert (there / "lib/libx.so.1").read_bytes() == b"x"


def test_first_of_a_name_is_kept(tmp_path: Path) -> None:
    """A tool of this machine is not replaced by busybox's."""
    (tmp_path / "sh").write_bytes(b"real")
    packed = io.BytesIO()
    tree = Tree(CpioWriter(packed))
    tree.add(tmp_path / "sh")
    tree.add_link(tmp_path / "sh", "busybox")
    tree.close()
    assert packed.getvalue().count(b"/sh\0") == 1
    assert b"busybox" not in packed.getvalue()


def test_required_files_are_complete() -> None:
    """They include interpreter, standard library, dependencies and compiler, but no test suite and no pip."""
    files = host_files.required_files()
    names = {str(path) for path in files}
    stdlib = sysconfig.get_path("stdlib")
    assert {sys.executable, f"{stdlib}/os.py", "/bin/sh", "/usr/bin/env"} <= names
    tails = {"/".join(path.parts[-2:]) for path in files}
    assert {"click/core.py", "numpy/__init__.py", "pyarrow/__init__.py", "psutil/__init__.py", "bcc/libbcc.py"} <= tails
    assert not [name for name in names if "/test/" in name or "/tests/" in name or "/pip/" in name or "/mypy/" in name]


def test_libraries_are_the_linked_ones() -> None:
    """The compiler's libraries are included, each once; a package's own only if something uses it."""
    files = host_files.with_libraries(host_files.required_files())
    names = [path.name for path in files]
    assert len(files) == len(set(files))
    assert any(name.startswith("libLLVM") for name in names)
    assert any(name.startswith("libclang-cpp") for name in names)
    assert {"libbcc.so.0", "libbpf.so.1", "libc.so.6", "libcapstone.so"} <= set(names)
    assert any(name.startswith("libarrow.so") for name in names)
    assert not any("flight" in name and ".so" in name for name in names)
    linked = set(host_files.linked_libraries([path for path in files if host_files.is_elf(path)]))
    assert {Path(path).name for path in linked} <= set(names)


def test_extras_are_not_required() -> None:
    """Names of extras are skipped, whatever follows them."""
    texts = ["click>=8.2", "virtme-ng>=1.42; extra == 'lab'", "colorama; sys_platform == 'win32'", "markdown-it-py"]
    assert host_files.required_names(texts) == ["click", "colorama", "markdown-it-py"]


def test_job_excludes_environments_and_repositories(tmp_path: Path) -> None:
    """The command and the files of its directories are sent, with links as links."""
    folder = tmp_path / "work"
    for name in ("sub", ".git", ".venv"):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_bytes(b"content")
    (folder / ".venv/pyvenv.cfg").touch()
    (folder / "link").symlink_to("sub/file")
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe")
    packed = io.BytesIO()
    guest_job.write_job_archive(packed, ["true"], [folder], {"PATH": os.environ["PATH"]}, folder)
    root = unpacked(packed.getvalue(), tmp_path / "there")
    there = root / folder.relative_to("/")
    assert sorted(path.relative_to(there).as_posix() for path in there.rglob("*")) == [
        "empty",
        "link",
        "sub",
        "sub/file",
    ]
    assert (root / "kalloctrace-lab/job/folders").read_bytes() == os.fsencode(folder) + b"\0"
    assert b"exec env -i" in (root / "kalloctrace-lab/job/command").read_bytes()


def test_job_contains_its_program(tmp_path: Path) -> None:
    """A program of this machine is sent with its libraries."""
    folder = tmp_path / "work"
    folder.mkdir()
    packed = io.BytesIO()
    guest_job.write_job_archive(packed, ["sort"], [folder], {"PATH": "/usr/bin:/bin"}, folder)
    root = unpacked(packed.getvalue(), tmp_path / "there")
    assert host_files.is_elf(root / "usr/bin/sort") or host_files.is_elf(root / "bin/sort")


def test_too_large_job_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the directory."""
    monkeypatch.setattr(guest_job, "MAX_BYTES", 100)
    (tmp_path / "large").write_bytes(bytes(200))
    monkeypatch.setattr(guest_job, "_source", list)
    with pytest.raises(KalloctraceError, match=str(tmp_path)) as caught:
        guest_job.write_job_archive(io.BytesIO(), ["true"], [tmp_path], {}, tmp_path)
    assert caught.value.code == Exit.USAGE


@pytest.mark.parametrize(("memory", "enough"), [("512M", False), ("1G", True), ("1024", True), ("900", False)])
def test_small_machine_is_refused_before_it_boots(memory: str, enough: bool, tmp_path: Path) -> None:
    """The error has the required memory."""
    archive = tmp_path / "archive"
    with archive.open("wb") as file:
        file.truncate(300 << 20)
    if enough:
        initramfs.require_memory(archive, memory)
        return
    with pytest.raises(KalloctraceError, match=f"with {memory} of memory") as caught:
        initramfs.require_memory(archive, memory)
    assert "--memory" in caught.value.fix
    assert caught.value.code == Exit.USAGE


def test_command_has_the_machine_s_parts(tmp_path: Path) -> None:
    """It has nodes, also without memory, distances, kernel and QEMU arguments, and virtme's emulation settings."""
    machine = Machine(
        cpus=3,
        numa=("1G,cpus=0-1", "0,cpus=2", "512"),
        numa_distance=("0,1=30",),
        append=("movablecore=512M",),
        qemu_options=("-s",),
    )
    command = initramfs_command(Path("/image"), Path("/archive"), tmp_path / "a,b", 4096, machine)
    text = " ".join(command)
    assert "-m 1536M" in text
    assert "memory-backend-ram,id=node0,size=1G -numa node,memdev=node0,cpus=0-1 -numa node,cpus=2 -object" in text
    assert "memory-backend-ram,id=node2,size=512M -numa node,memdev=node2 -numa dist,src=0,dst=1,val=30" in text
    assert f"memory-backend-file,id=shared,share=on,size=4096,mem-path={tmp_path}/a,,b" in text
    assert "rootfstype=ramfs loglevel=7 no_timer_check movablecore=512M" in text
    assert "-accel tcg,thread=multi,tb-size=512 -cpu max,avx=off" in text
    assert command[-1] == "-s"
    kvm = initramfs_command(Path("/image"), Path("/archive"), tmp_path, 4096, Machine(kvm=True))
    assert "tcg" not in " ".join(kvm)
