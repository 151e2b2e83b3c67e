# SPDX-License-Identifier: MIT
"""The host files that a guest without 9p requires.

A recording requires this interpreter, this package with its dependencies, bcc with the compiler's libraries, a shell,
and the shared libraries of all these.
"""

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from kalloctrace.errors import KalloctraceError
from kalloctrace.lab.needs import search_path
from kalloctrace.probe.attach.bcc_import import find_bcc

LIBRARY_CACHE = Path("/etc/ld.so.cache")
"""The dynamic linker's index of libraries; it changes with each installed library."""

_SELF = "kalloctrace"
_PACKAGES = (_SELF, "pytest")  # pytest, if installed, runs the tests that need a guest
# Libraries that bcc, kalloctrace/kernel/btf.py and capstone load by name; nothing is linked to them.
_LOADED = ("libbcc.so.0", "libbpf.so.1", "librt.so.1", "libcapstone.so")
_EXCLUDED_NAMES = frozenset(
    {
        # Test suites and build files
        "test",
        "tests",
        "include",
        "distutils",
        "f2py",
        # Standard library modules for graphical interfaces and for installing
        "ensurepip",
        "idlelib",
        "lib2to3",
        "tkinter",
        "turtledemo",
        # Packages are listed by name instead.
        "dist-packages",
        "site-packages",
    }
)
# Files for compilers and type checkers, for graphical interfaces, and Arrow's clients of remote services
_EXCLUDED_FILES = re.compile(
    r".*\.(?:a|h|hpp|lib|pxd|pyi|pyx)|.*\.opt-[12]\.pyc|config-\d.*"
    r"|(?:_tkinter|_flight|_substrait|_s3fs|_gcsfs|_azurefs|_hdfs|_pyarrow_cpp_tests|_\w*orc|_\w*encryption)\.\S*\.so"
)
_LINKED = re.compile(r"^\t(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
_LISTED = re.compile(r"^\t(\S+) \([^)]*x86-64[^)]*\) => (\S+)$", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LIBRARY = re.compile(r"lib[^.].*\.so(?:\.[\d.]+)?")
_ELF = b"\x7fELF"


def required_files() -> list[Path]:
    """Return the files that a guest requires, without their shared libraries: links as links, and no directories.

    Raises:
        KalloctraceError: a required package is missing.
    """
    stdlib = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    compiler = list(find_bcc().submodule_search_locations or ())
    files = {Path(sys.prefix, "pyvenv.cfg"), *_programs(), LIBRARY_CACHE}
    for folder in (*stdlib, *compiler):
        files.update(files_below(Path(folder)))
    for distribution in _distributions(_PACKAGES):
        files.update(_files_of(distribution))
    return sorted(path for path in files if path.is_file() or path.is_symlink())


def _programs() -> Iterator[Path]:
    """Yield the interpreter under each name in its directory, and the few tools that do not come from busybox."""
    yield from Path(sys.executable).parent.glob("python*")
    # Busybox's shell would run its built-in tools instead of the commands.
    yield from (Path("/bin/sh"), Path("/usr/bin/env"))


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files and links below a directory of Python modules, without those that no recording uses."""
    for entry in os.scandir(folder):
        if entry.name in _EXCLUDED_NAMES or _EXCLUDED_FILES.fullmatch(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(Path(entry.path))
        else:
            yield Path(entry.path)


def _distributions(names: Iterable[str]) -> list[importlib.metadata.Distribution]:
    """Return the installed packages of these names with their installed dependencies."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as error:
            if name == _SELF:
                raise KalloctraceError(
                    "cannot build a guest from this machine's files",
                    f"{name} is not installed for {sys.executable}, so its dependencies are unknown",
                    f"install it there: {sys.executable} -m pip install --editable .",
                ) from error
            # It is for another platform, such as colorama, or optional, such as pytest.
            continue
        waiting += required_names(found[name].requires or ())
    return list(found.values())


def required_names(requirements: Iterable[str]) -> list[str]:
    """Return the names of requirements, without those of extras."""
    found = (_NAME.match(text) for text in requirements if "extra ==" not in text)
    return [match[0] for match in found if match]


def _files_of(distribution: importlib.metadata.Distribution) -> Iterator[Path]:
    """Yield an installed package's files: all below its directories, which includes later compiled ones."""
    tops = set()
    for file in distribution.files or ():
        if file.parts[0] == "..":
            yield Path(os.path.normpath(str(file.locate())))
        else:
            tops.add(Path(str(file.locate())).parents[len(file.parts) - 1] / file.parts[0])
    for top in tops:
        if top.is_dir():
            yield from files_below(top)
        else:
            yield top


def with_libraries(files: Sequence[Path]) -> list[Path]:
    """Return files with the shared libraries that they require.

    Libraries inside packages, such as Arrow's, stay only if something is linked to them or loads them.
    """
    programs = [path for path in files if is_elf(path) and not _LIBRARY.fullmatch(path.name)]
    named = _libraries_by_name()
    loaded = [Path(named[name]) for name in _LOADED if name in named]
    loaded += [path for path in files if path.name in _LOADED]
    linked = {Path(path) for path in linked_libraries([*programs, *loaded])}
    kept = [path for path in files if path in linked or not _LIBRARY.fullmatch(path.name)]
    return sorted({*kept, *loaded, *linked})


def is_elf(path: Path) -> bool:
    """Return whether a file is an ELF file: a program or a shared library."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_ELF)) == _ELF


def linked_libraries(programs: Sequence[Path]) -> list[str]:
    """Return the libraries that programs or libraries are linked to, directly or indirectly, and the dynamic linker."""
    if not programs:
        return []
    # ldd exits with an error for a static program; that is not a failure.
    done = subprocess.run(["ldd", *map(str, programs)], check=False, capture_output=True, encoding="utf-8")
    return sorted({os.path.normpath(path) for path in _LINKED.findall(done.stdout)})


def _libraries_by_name() -> dict[str, str]:
    command = ["ldconfig", "--print-cache"]
    done = subprocess.run(
        command, check=True, capture_output=True, encoding="utf-8", env={**os.environ, "PATH": search_path()}
    )
    return dict(reversed(_LISTED.findall(done.stdout)))
