# SPDX-License-Identifier: MIT
"""The cache of unpacked kernels."""

import fcntl
import json
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.lab.apt import Suite
from kalloctrace.lab.local_packages import LocalPackages
from kalloctrace.lab.needs import find_tool
from kalloctrace.lab.series import KernelName, KernelPackages, Package, newest, why_missing
from kalloctrace.output.files import complete_output

_LOG = logging.getLogger(__name__)
_DAY = 24 * 60 * 60


@dataclass(frozen=True)
class Kernel:
    """A kernel that can be booted.

    Attributes:
        name: the name or path that was requested.
        image: the kernel image; its modules, if any, are where tools expect them relative to it.
        release: `uname -r`; empty if only the image is known.
        version: the package's version; empty for an image without a package.
    """

    name: str
    image: Path
    release: str = ""
    version: str = ""


def cache_directory() -> Path:
    """Return the directory of files that this program can fetch again."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kalloctrace"


def obtain(name: str, *, refresh: bool = False) -> Kernel:
    """Return a kernel by name or path; download and unpack it if necessary.

    A name is looked up in `KALLOCTRACE_KERNEL_CACHE` first. Otherwise it stands for the newest kernel in its suites,
    which are checked once a day. If they cannot be reached, an older unpacked kernel is used, with a warning.

    Args:
        name: a name such as `6.12`, or the path of a kernel image.
        refresh: check the suites even if they were checked today.
    """
    if "/" in name:
        return _from_path(name)
    kernel_name = KernelName.parse(name)
    with _lock():
        kernel = _from_local_packages(kernel_name)
        if kernel is None and not refresh:
            kernel = _cached(kernel_name, _DAY)
        return kernel or _from_suites(kernel_name, refresh=refresh)


def resolve(name: KernelName, *, refresh: bool = False) -> KernelPackages:
    """Return the packages that a name stands for now, without downloading them.

    Raises:
        KalloctraceError: no packages are found, or the suites cannot be reached.
    """
    local = LocalPackages.from_environment()
    return (newest(local.packages(), name) if local else None) or _newest_in_suites(name, refresh=refresh)


def is_unpacked(packages: KernelPackages) -> bool:
    """Return whether the cache holds a kernel."""
    return _tree(packages.key).is_dir()


def _from_path(path: str) -> Kernel:
    image = Path(path).resolve()
    if not image.is_file():
        raise KalloctraceError(
            f"cannot boot {path}",
            "no such file exists",
            "give the path of a kernel image (bzImage or vmlinuz), or a name such as 6.12",
            Exit.USAGE,
        )
    return Kernel(path, image)


def _from_local_packages(name: KernelName) -> Kernel | None:
    local = LocalPackages.from_environment()
    found = newest(local.packages(), name) if local else None
    if local is None or found is None:
        return None
    if not is_unpacked(found):
        _unpack(local.files(found.parts), found)
    return _unpacked(name, found)


def _from_suites(name: KernelName, *, refresh: bool) -> Kernel:
    try:
        found = _fetch(name, refresh=refresh)
    except KalloctraceError as error:
        old = _cached(name, None)
        if old is None:
            raise
        _LOG.warning("warning: using the older %s: %s: %s", old.release, error.what, error.why)
        return old
    record = {
        "package": found.image.name,
        "version": found.image.version,
        "modules": found.has_modules,
        "checked": int(time.time()),
    }
    with complete_output(_record(name), overwrite=True) as file:
        file.write(json.dumps(record).encode() + b"\n")
    return _unpacked(name, found)


def _fetch(name: KernelName, *, refresh: bool) -> KernelPackages:
    """Download and unpack the newest kernel of a name unless the cache holds it."""
    found = _newest_in_suites(name, refresh=refresh)
    if not is_unpacked(found):
        with tempfile.TemporaryDirectory(dir=_kernels(), prefix=".download-") as directory:
            _unpack(_suite(name).download(found.parts, Path(directory)), found)
    return found


def _newest_in_suites(name: KernelName, *, refresh: bool) -> KernelPackages:
    suite = _suite(name)
    suite.update(refresh=refresh)
    packages = suite.packages()
    found = newest(packages, name)
    if found is None:
        raise KalloctraceError(
            f"no kernel {name} is available",
            why_missing(packages, name),
            "name another kernel, or set KALLOCTRACE_KERNEL_CACHE to a folder that holds its packages",
        )
    return found


def _cached(name: KernelName, age: int | None) -> Kernel | None:
    """Return the kernel that a name stood for at most `age` seconds ago (None: ever), if it is still unpacked."""
    try:
        record = json.loads(_record(name).read_text(encoding="utf-8"))
        image = Package(record["package"], record["version"])
        packages = KernelPackages(image, (image,), record["modules"])
        fresh = age is None or time.time() - record["checked"] < age
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return _unpacked(name, packages) if fresh and is_unpacked(packages) else None


def _unpacked(name: KernelName, packages: KernelPackages) -> Kernel:
    image = find_image(_tree(packages.key), packages.release)
    return Kernel(str(name), image, packages.release, packages.image.version)


def find_image(tree: Path, release: str) -> Path:
    """Return the kernel image in an unpacked package: in `boot/`, or since 6.19 next to its modules."""
    for path in (tree / f"boot/vmlinuz-{release}", tree / f"usr/lib/modules/{release}/vmlinuz"):
        if path.is_file():
            return path
    raise KalloctraceError(
        f"the packages of {release} contain no kernel image",
        f"{tree} has neither boot/vmlinuz-{release} nor usr/lib/modules/{release}/vmlinuz",
        f"remove {tree} to fetch it again",
    )


def _unpack(files: Iterable[Path], packages: KernelPackages) -> None:
    """Unpack packages into a temporary directory and rename it, so that a tree is complete or absent."""
    with tempfile.TemporaryDirectory(dir=_kernels(), prefix=".unpack-") as directory:
        tree = Path(directory) / "tree"
        for file in files:
            subprocess.run(["dpkg-deb", "--extract", str(file), str(tree)], check=True)
        shutil.rmtree(tree / "usr/share", ignore_errors=True)
        find_image(tree, packages.release)
        if not (tree / "lib").exists():
            # On a host without merged /usr, tools look in /lib; some packages have only /usr/lib.
            (tree / "lib").symlink_to("usr/lib")
        if packages.has_modules:
            subprocess.run([find_tool("depmod") or "depmod", "--basedir", str(tree), packages.release], check=True)
        tree.rename(_tree(packages.key))


@contextmanager
def _lock() -> Iterator[None]:
    """Serialise fetching between processes."""
    with (_kernels() / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _suite(name: KernelName) -> Suite:
    return Suite(name.suites, cache_directory() / "apt")


def _kernels() -> Path:
    directory = cache_directory() / "kernels"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _tree(key: str) -> Path:
    return _kernels() / key


def _record(name: KernelName) -> Path:
    return _kernels() / f"{name}.json"
