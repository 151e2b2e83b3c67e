# SPDX-License-Identifier: MIT
"""A cached root file system in memory for kernels that cannot mount this machine's files.

It is not compressed: an emulated guest copies faster than it decompresses.
"""

import fcntl
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.lab import agent, channel, cpio, host_files
from kalloctrace.lab.cpio import CpioWriter, Tree
from kalloctrace.lab.kernels import cache_directory
from kalloctrace.lab.needs import find_tool

_LOG = logging.getLogger(__name__)

GUEST_DIR = PurePosixPath("kalloctrace-lab")
"""The directory of the guest's own files in the archive."""

_HERE = Path(__file__).parent
_SCRIPTS = ("init.sh", "common.sh")
_MODULES = (_HERE.parent / "__init__.py", _HERE / "__init__.py", Path(agent.__file__), Path(channel.__file__))
_FOLDERS = ("dev", "etc", "proc", "run", "sys", "tmp", "root", "usr/bin", "var/tmp")
# The modules that select the archive's files and write it; a change rebuilds it.
_BUILDERS = (Path(__file__), Path(host_files.__file__), Path(cpio.__file__))
_BUSYBOX = "usr/bin/busybox"
_ETC = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
_DAY = 24 * 60 * 60
_NEW = ".new"
_MIB = 1 << 20
# Memory for the kernel itself and for compiling the BPF program.
_RESERVED = 400 * _MIB
_UNITS = {"": _MIB, "M": _MIB, "G": 1 << 30, "K": 1 << 10, "T": 1 << 40, "B": 1}


def archive_path() -> Path:
    """Return the path of the archive of the current files, whether it exists or not.

    Raises:
        KalloctraceError: a required package is missing.
    """
    return cache_directory() / "initramfs" / f"{_digest(host_files.required_files())}.cpio"


def build_archive() -> Path:
    """Return the archive of the current files; build it if a file has changed.

    It removes archives that have not been used for a day.

    Raises:
        KalloctraceError: a required package is missing.
    """
    archive = archive_path()
    archive.parent.mkdir(parents=True, exist_ok=True)
    with (archive.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            _LOG.info("packing the files for guests in memory")
            _build(archive)
        archive.touch()
        for old in archive.parent.iterdir():
            if old.suffix in {".cpio", _NEW} and time.time() - old.stat().st_mtime > _DAY:
                old.unlink()
    return archive


def require_memory(archive: Path, memory: str) -> None:
    """Raise a `KalloctraceError` if a machine has too little memory to unpack an archive.

    The archive and the unpacked files are in memory at the same time.

    Args:
        archive: the archive.
        memory: the machine's memory in QEMU's syntax.
    """
    number, unit = memory.rstrip("KMGTBkmgtb"), memory[-1:].upper()
    if not number.isdecimal():
        return  # QEMU reports the error
    needed = 2 * archive.stat().st_size + _RESERVED
    if int(number) * _UNITS["" if unit.isdecimal() else unit] < needed:
        raise KalloctraceError(
            f"this kernel cannot boot with {memory} of memory",
            f"it cannot mount this machine's files, so it unpacks {archive.stat().st_size // _MIB} MiB of copies in "
            "memory",
            f"give it at least {-(-needed // _MIB)} MiB: --memory {-(-needed // _MIB)}M, or larger nodes",
            Exit.USAGE,
        )


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256(os.fsencode(sys.executable))
    for path in files:
        status = path.lstat()
        target = path.readlink() if path.is_symlink() else ""
        line = f"{path}\0{status.st_mode}\0{status.st_size}\0{status.st_mtime_ns}\0{target}\0"
        digest.update(os.fsencode(line))
    for path in (_busybox(), *_MODULES, *(_HERE / name for name in _SCRIPTS), *_BUILDERS):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def _busybox() -> Path:
    found = find_tool("busybox")
    assert found is not None  # noqa: S101 (require_lab() has checked it)
    return Path(found)


def _build(archive: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=archive.parent, prefix=".", suffix=_NEW, delete=False) as stream:
        try:
            _write(stream, host_files.with_libraries(host_files.required_files()))
        except BaseException:
            Path(stream.name).unlink()
            raise
    Path(stream.name).rename(archive)


def _write(stream: IO[bytes], files: Iterable[Path]) -> None:
    tree = Tree(CpioWriter(stream))
    for path in files:
        tree.add(path)
    for name in _FOLDERS:
        tree.add_folder(name)
    tree.add_device("dev/console", 0o600, 5, 1)
    for name, text in _ETC.items():
        tree.add_data(name, text.encode())
    for name in _SCRIPTS:
        tree.add_data(GUEST_DIR / name, (_HERE / name).read_bytes())
    for module in _MODULES:
        tree.add_data(GUEST_DIR / module.relative_to(_HERE.parents[1]), module.read_bytes())
    tree.add_data(GUEST_DIR / "python", os.fsencode(sys.executable))
    busybox = _busybox()
    tree.add_data(_BUSYBOX, busybox.read_bytes(), 0o755)
    listed = subprocess.run([str(busybox), "--list"], check=True, capture_output=True, encoding="utf-8").stdout
    for applet in listed.split():
        tree.add_link(f"usr/bin/{applet}", "busybox")
    # The kernel starts /init.
    tree.add_data("init", f"#!/{_BUSYBOX} sh\n. /{GUEST_DIR}/init.sh\n".encode(), 0o755)
    tree.close()
