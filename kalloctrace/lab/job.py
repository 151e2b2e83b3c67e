# SPDX-License-Identifier: MIT
"""What one job carries into a guest that shares no files with this machine, and what it brings back."""

import os
import shutil
import stat
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import kalloctrace
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.lab import agent
from kalloctrace.lab.cpio import NewcWriter, Tree
from kalloctrace.lab.guest import command_script
from kalloctrace.lab.host_files import is_elf, linked_libraries

MOST = 256 << 20
"""Bytes that a job may carry: they are in the guest's memory."""

# What can be made again from the rest, or is no concern of a guest's.
_LEFT_HERE = frozenset({".git", ".hg", ".mypy_cache", ".pytest_cache", ".ruff_cache", "node_modules"})
_ENVIRONMENT = "pyvenv.cfg"


def write_job_archive(
    stream: IO[bytes], argv: Sequence[str], folders: Sequence[Path], env: Mapping[str, str], cwd: Path
) -> None:
    """Write the archive that the guest's agent unpacks.

    It holds the command, the program it starts, this program's own source, and the files below the directories that
    come back; those of virtual environments, repositories and caches stay here.

    Args:
        stream: where to.
        argv: the command.
        folders: the directories whose files come back.
        env: the command's whole environment.
        cwd: its working directory.

    Raises:
        KalloctraceError: it is too much.
    """
    tree = Tree(NewcWriter(stream))
    tree.add_data(agent.COMMAND, command_script(argv, env, cwd))
    tree.add_data(agent.FOLDERS, b"".join(os.fsencode(folder) + b"\0" for folder in folders))
    for path in _program(argv, env):
        tree.add(path)
    size = 0
    for folder in [*_source(), *folders]:
        tree.add(folder)
        for path in _files_below(folder):
            # Another program may be at work there.
            with suppress(FileNotFoundError):
                tree.add(path)
                size += path.lstat().st_size
            if size > MOST:
                raise KalloctraceError(
                    f"{folder} cannot be carried into this guest",
                    f"more than {MOST >> 20} MiB would have to be, as this kernel mounts nothing of this machine",
                    "work in a directory with fewer files, and name no larger ones with --out",
                    Exit.USAGE,
                )
    tree.close()


def _program(argv: Sequence[str], env: Mapping[str, str]) -> list[Path]:
    """Return the program that a command starts, with its libraries, where there is such a file."""
    found = shutil.which(argv[0], path=env.get("PATH"))
    # Every guest has this interpreter.
    if found is None or Path(found).resolve() == Path(sys.executable).resolve():
        return []
    path = Path(found)
    return [path, *map(Path, linked_libraries([path]))] if is_elf(path) else [path]


def _source() -> list[Path]:
    """Return the directory of this program's checkout; none when it is installed like any other package."""
    package = Path(kalloctrace.__file__).resolve().parent
    return [package.parent] if (package.parent / "bpf").is_dir() else []


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield what is below a directory, itself excepted: directories before what is in them."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in _LEFT_HERE:
                continue
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                if not (path / _ENVIRONMENT).exists():
                    yield path
                    yield from _files_below(path)
            elif entry.is_symlink() or stat.S_ISREG(entry.stat().st_mode):
                yield path


def unpack_results(archive: Path, folders: Sequence[Path]) -> None:
    """Unpack what a guest sent back over what is here.

    Args:
        archive: a tar archive with names below the root directory.
        folders: the directories it may write to; anything else in it is refused.

    Raises:
        KalloctraceError: it would write elsewhere.
    """
    with tarfile.open(archive) as files:
        # Each is looked at below.
        files.extraction_filter = lambda member, _: member
        for member in files:
            _require_inside(member.name, folders)
            # A folder's mode and time stay what they are here.
            files.extract(member, "/", set_attrs=not member.isdir())


def _require_inside(name: str, folders: Sequence[Path]) -> None:
    path = Path("/", name)
    # Of the path itself only the folder: it may be a link, which is replaced and not followed.
    real = path.parent.resolve() / path.name
    if ".." in path.parts or not any(real.is_relative_to(folder) for folder in folders):
        raise KalloctraceError(
            f"{path} was not taken from the guest",
            "it lies in none of the directories that the guest may write to",
            "name its directory with --out",
        )
