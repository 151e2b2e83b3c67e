# SPDX-License-Identifier: MIT
"""Building a kernel module for one of Debian's kernels, from its headers packages, without installing them."""

import fcntl
import hashlib
import logging
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.lab.apt import Suite
from kalloctrace.lab.kernels import Kernel, cache_directory, obtain
from kalloctrace.lab.local_packages import LocalPackages
from kalloctrace.lab.needs import require_fetch
from kalloctrace.lab.series import KernelName, Package
from tests.kmod import toolchain

_LOG = logging.getLogger(__name__)

_SOURCES = ("Kbuild", "*.c", "*.h")
_PART = re.compile(r"\blinux-(?:headers|kbuild)-\d[^\s,]*")
_ABSOLUTE_INCLUDE = re.compile(r"^include /usr/src/", re.MULTILINE)
_RELATIVE_INCLUDE = "include $(dir $(lastword $(MAKEFILE_LIST)))../"
_ABSOLUTE_OUTPUT = re.compile(r"^KBUILD_OUTPUT *=.*$", re.MULTILINE)
_RELATIVE_OUTPUT = "KBUILD_OUTPUT := $(CURDIR)"
_NO_LIBRARY = re.compile(r"error while loading shared libraries: (lib[^\s:]+): cannot open")
_OLD_LIBRARY = re.compile(r"version `(GLIBC_[\d.]+)' not found")
_NEW_OPTION = re.compile(r"unrecognized command-line option '([^']+)'")
_LIBRARIES = {"libelf.so.1": "libelf1", "libz.so.1": "zlib1g"}
_COMPLAINT = re.compile(r"\*\*\* (?!\[)|\berror: |\bERROR: |: not found")


class NoHeadersError(KalloctraceError):
    """The suites hold no headers for a kernel: they are gone, or not there yet."""


def build_module(source: Path, kernel: str | Kernel) -> Path:
    """Return a module built for a kernel.

    It is built once for each state of its source and each build of the kernel, in the user's cache, where a guest
    finds it.

    Args:
        source: the directory of its `Kbuild` and its C files.
        kernel: a name such as `5.10`, or what `obtain` returned.

    Raises:
        KalloctraceError: the kernel's headers cannot be had, or the module cannot be built with them.
    """
    files = source_files(source)
    if not isinstance(kernel, Kernel):
        kernel = obtain(kernel)
    if not kernel.version:
        raise KalloctraceError(
            f"no module can be built for {kernel.name}",
            "it is an image without a package, so nothing tells which headers are its own",
            "name a kernel such as 5.10",
            Exit.USAGE,
        )
    with _lock():
        place = _modules() / _build_name(kernel) / digest(files)
        if not place.is_dir():
            require_fetch()
            _build(files, kernel, place)
    return next(place.glob("*.ko"))


def source_files(source: Path) -> list[Path]:
    """Return the files a module is built from.

    Raises:
        KalloctraceError: there is no Kbuild file among them.
    """
    files = sorted(path for pattern in _SOURCES for path in source.glob(pattern) if not path.name.endswith(".mod.c"))
    if not any(path.name == "Kbuild" for path in files):
        raise KalloctraceError(
            f"{source} is no kernel module's source",
            "it has no file named Kbuild",
            "name the directory of the module's Kbuild and C files",
        )
    return files


def digest(files: Iterable[Path]) -> str:
    """Return a name for the state of files."""
    state = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        state.update(f"{path.name}\0{len(content)}\0".encode())
        state.update(content)
    return state.hexdigest()[:16]


def headers(kernel: Kernel) -> Path:
    """Return the directory that modules for a kernel are built in, fetched and unpacked if it is not there yet.

    Raises:
        NoHeadersError: there are none for this kernel.
        KalloctraceError: they could not be fetched.
    """
    tree = _headers_root(kernel)
    if not tree.is_dir():
        tree.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=tree.parent, prefix=".unpack-") as directory:
            unpacked = Path(directory) / "tree"
            for file in _fetch(kernel, Path(directory)):
                subprocess.run(["dpkg-deb", "--extract", str(file), str(unpacked)], check=True)
            make_relative(unpacked)
            unpacked.rename(tree)
    return tree / f"usr/src/linux-headers-{kernel.release}"


def headers_packages(packages: Iterable[Package], kernel: Kernel) -> list[Package]:
    """Return the packages that make up a kernel's headers, of the kernel's own version.

    Raises:
        NoHeadersError: some are missing.
    """
    known = {package.name: package for package in packages if package.version == kernel.version}
    name = f"linux-headers-{kernel.release}"
    names = [name, *_PART.findall(known[name].depends)] if name in known else [name]
    missing = [part for part in names if part not in known]
    if missing:
        raise NoHeadersError(
            f"the headers of {kernel.release} cannot be had",
            f"there is no {' and no '.join(missing)} {kernel.version} any more, or not yet",
            "fetch a newer kernel with `kalloctrace lab fetch --refresh`, or set KALLOCTRACE_KERNEL_CACHE to a folder "
            "that holds the packages",
        )
    return [known[part] for part in names]


def make_relative(tree: Path) -> None:
    """Have the headers find each other below a directory of ours instead of in /usr/src."""
    for makefile in tree.glob("usr/src/linux-headers-*/Makefile"):
        text = makefile.read_text(encoding="utf-8")
        text = _ABSOLUTE_OUTPUT.sub(_RELATIVE_OUTPUT, _ABSOLUTE_INCLUDE.sub(_RELATIVE_INCLUDE, text))
        makefile.write_text(text, encoding="utf-8")


def explain(output: str) -> tuple[str, str]:
    """Return why a build failed and how to fix that, by what it printed."""
    if match := _NO_LIBRARY.search(output):
        package = _LIBRARIES.get(match[1])
        return f"the kernel's build tools need {match[1]}", f"install {package or 'the package that has it'}"
    if match := _OLD_LIBRARY.search(output):
        return (
            f"the kernel's build tools need a C library with {match[1]}, newer than this machine's",
            "build on the Debian release that has this kernel, or choose an older kernel",
        )
    if match := _NEW_OPTION.search(output):
        return f"this machine's gcc does not know {match[1]}", "install a newer compiler, or choose an older kernel"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    why = next((line for line in lines if _COMPLAINT.search(line)), lines[-1] if lines else "make said nothing")
    return why, "see what make printed above; is the module's source right for this kernel?"


def _fetch(kernel: Kernel, into: Path) -> Sequence[Path]:
    """Return the headers' packages as files: from the folder of packages if it has them all, or downloaded."""
    local = LocalPackages.from_environment()
    if local is not None:
        try:
            packages = headers_packages(local.packages(), kernel)
        except NoHeadersError as error:
            _LOG.info("KALLOCTRACE_KERNEL_CACHE has no headers for %s: %s", kernel.release, error.why)
        else:
            return local.files(packages)
    suite = Suite(KernelName.parse(kernel.name).suites, cache_directory() / "apt")
    suite.update()
    return suite.download(headers_packages(suite.packages(), kernel), into)


def _build(files: Iterable[Path], kernel: Kernel, place: Path) -> None:
    """Build a module in a directory of its own, which then becomes its place."""
    tree = headers(kernel)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".build-") as directory:
        for file in files:
            shutil.copy(file, directory)
        _LOG.info("building a module for %s", kernel.release)
        done = subprocess.run(
            toolchain.make_command(tree, _headers_root(kernel), Path(directory)),
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=toolchain.environment(),
        )
        modules = list(Path(directory).glob("*.ko"))
        if done.returncode != 0 or len(modules) != 1:
            _LOG.error("%s", done.stdout.rstrip())
            why, fix = explain(done.stdout)
            raise KalloctraceError("the module could not be built", why, fix)
        result = Path(directory) / "result"
        result.mkdir()
        modules[0].rename(result / modules[0].name)
        result.rename(place)


def _headers_root(kernel: Kernel) -> Path:
    return cache_directory() / "headers" / _build_name(kernel)


def _build_name(kernel: Kernel) -> str:
    return f"{kernel.release}_{kernel.version}"


def _modules() -> Path:
    directory = cache_directory() / "modules"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@contextmanager
def _lock() -> Iterator[None]:
    """Keep two from building at once."""
    with (_modules() / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
