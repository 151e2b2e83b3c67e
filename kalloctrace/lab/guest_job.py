# SPDX-License-Identifier: MIT
"""The files that a job sends into a guest without 9p, and those that come back."""

import os
import shutil
import stat
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.lab import agent
from kalloctrace.lab.cpio import CpioWriter, Tree
from kalloctrace.lab.guest import command_script
from kalloctrace.lab.host_files import is_elf, linked_libraries
from kalloctrace.output.opened import OutputFile
from kalloctrace.output.temporary import temporary_folder
from kalloctrace.text import file_name

MAX_BYTES = 256 << 20
"""The maximum size of a job's files in bytes; they are in the guest's memory."""

# Directories that can be recreated or that no guest requires.
_EXCLUDED = frozenset({".git", ".hg", ".mypy_cache", ".pytest_cache", ".ruff_cache", "node_modules"})
_ENVIRONMENT = "pyvenv.cfg"
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)
# Each takes milliseconds and kilobytes here.
_MAX_MEMBERS = 20_000
_MAX_NAME = 8192


def write_job_archive(
    stream: IO[bytes], argv: Sequence[str], folders: Sequence[Path], env: Mapping[str, str], cwd: Path
) -> None:
    """Write the archive that the guest's agent unpacks.

    It holds the command, its program, this package's source, and the files below the shared directories, without
    virtual environments, repositories and caches.

    Args:
        stream: the archive.
        argv: the command.
        folders: the directories whose files come back.
        env: the command's complete environment.
        cwd: its working directory.

    Raises:
        KalloctraceError: the files are too large.
    """
    tree = Tree(CpioWriter(stream))
    tree.add_data(agent.COMMAND, command_script(argv, env, cwd))
    tree.add_data(agent.FOLDERS, b"".join(os.fsencode(folder) + b"\0" for folder in folders))
    for path in _program(argv, env):
        tree.add(path)
    size = 0
    for folder in [*_source(), *folders]:
        tree.add(folder)
        for path in _files_below(folder):
            # Another program may remove files meanwhile.
            with suppress(FileNotFoundError):
                tree.add(path)
                size += path.lstat().st_size
            if size > MAX_BYTES:
                raise KalloctraceError(
                    f"{folder} cannot be copied into this guest",
                    f"this kernel cannot mount it, and the copies would exceed {MAX_BYTES >> 20} MiB",
                    "work in a smaller directory, and give only small ones with --out",
                    Exit.USAGE,
                )
    tree.close()


def _program(argv: Sequence[str], env: Mapping[str, str]) -> list[Path]:
    """Return the program that a command starts, with its libraries; nothing if it is not found."""
    found = shutil.which(argv[0], path=env.get("PATH"))
    # Every guest has this interpreter.
    if found is None or Path(found).resolve() == Path(sys.executable).resolve():
        return []
    path = Path(found)
    return [path, *map(Path, linked_libraries([path]))] if is_elf(path) else [path]


def _source() -> list[Path]:
    """Return the directory of this program's checkout; nothing if it runs from an installed package."""
    package = Path(__file__).resolve().parents[1]
    return [package.parent] if (package.parent / "bpf").is_dir() else []


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield files, links and directories below a directory, each directory before its entries."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in _EXCLUDED:
                continue
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                if not (path / _ENVIRONMENT).exists():
                    yield path
                    yield from _files_below(path)
            elif entry.is_symlink() or stat.S_ISREG(entry.stat().st_mode):
                yield path


def unpack_results(archive: Path, folders: Sequence[Path]) -> None:
    """Unpack the files that a guest sent back over those of this machine: all of them, or none if one is refused.

    Only regular files and directories are accepted. Files get no more than rwxr-xr-x and belong to the current user;
    `tarfile.data_filter` does the same, but Python 3.11.2 (Debian 12) does not have it.

    Args:
        archive: an uncompressed tar archive with names below the root directory.
        folders: the directories it may write to.

    Raises:
        KalloctraceError: the archive is damaged, holds anything else, or would write elsewhere.
    """
    try:
        with archive.open("rb") as file:
            _check_headers(file)
        with ExitStack() as stack, tarfile.open(archive, "r:") as files:
            staging: dict[Path, Path] = {}
            staged = [_stage(files, member, folders, staging, stack) for member in files]
            for source, target in staged:
                _move(source, target)
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise KalloctraceError(
            "the guest's results cannot be unpacked",
            f"the archive is damaged, or a file cannot be written: {error}",
            "check that the directories given with --out are writable and not full, then run the command again",
        ) from error


def _stage(
    files: tarfile.TarFile,
    member: tarfile.TarInfo,
    folders: Sequence[Path],
    staging: dict[Path, Path],
    stack: ExitStack,
) -> tuple[Path, Path]:
    """Unpack one member into a temporary directory of the same file system; return its path there and its target.

    Args:
        files: the archive.
        member: the member.
        folders: the directories that may be written to.
        staging: the temporary directory of each, created when it is first needed.
        stack: removes these directories.
    """
    target, folder = _target(member.name, folders)
    if folder not in staging:
        staging[folder] = stack.enter_context(temporary_folder(folder))
    path = staging[folder] / target.relative_to(folder)
    if member.isdir():
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise _refused(target, "it is a directory in the guest and something else here")
        path.mkdir(parents=True, exist_ok=True)
        return path, target
    if target.is_dir() and not target.is_symlink():
        raise _refused(target, "it is a file in the guest and a directory here")
    path.parent.mkdir(parents=True, exist_ok=True)
    source = files.extractfile(member)
    assert source is not None  # noqa: S101 (it is a regular file)
    with source, OutputFile(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), file_name(target), "--out") as copy:
        shutil.copyfileobj(source, copy)
    path.chmod(member.mode & 0o755 | 0o600)
    os.utime(path, (member.mtime, member.mtime))
    return path, target


def _check_headers(file: IO[bytes]) -> None:
    """Check that an archive is one that `agent` writes: files, directories, long names, and an end.

    `tarfile` reads more than that: sparse files of any size, and names and comments as long as the archive. It takes a
    damaged header for the end.

    Args:
        file: the archive.

    Raises:
        KalloctraceError: it holds anything else, or too much.
        tarfile.TarError: it is damaged.
    """
    members = 0
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    while any(block := file.read(tarfile.BLOCKSIZE)):
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if header.type == tarfile.GNUTYPE_LONGNAME:
            sound = 0 <= header.size <= _MAX_NAME
        elif header.type in _REGULAR:
            sound = header.size >= 0
        elif header.type == tarfile.DIRTYPE:
            sound = header.size == 0
        else:
            raise _refused(Path("/", header.name), "it is neither a regular file nor a directory")
        end = file.tell() + -(-header.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        if not sound or end > size:
            raise tarfile.ReadError(f"{header.size} bytes of {header.name!r} at byte {file.tell()}")
        file.seek(end)
        members += header.type != tarfile.GNUTYPE_LONGNAME
        if members > _MAX_MEMBERS:
            raise KalloctraceError(
                "the guest's results are not copied",
                f"they are more than {_MAX_MEMBERS:,} files and directories",
                "let the command in the guest write fewer files, or one archive of them",
            )
    rest = file.read(tarfile.RECORDSIZE)
    if len(rest) < tarfile.BLOCKSIZE or any(rest):
        raise tarfile.ReadError(f"no end of archive at byte {file.tell()}")


def _move(source: Path, target: Path) -> None:
    """Move an unpacked file to its target, or create a directory; an existing directory keeps its mode and time."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # This replaces a symbolic link and does not follow it.
    source.replace(target)


def _target(name: str, folders: Sequence[Path]) -> tuple[Path, Path]:
    """Return where a member belongs, with links in its path resolved, and the directory of `folders` that holds it."""
    path = Path("/", name)
    target = path.parent.resolve() / path.name
    folder = next((folder for folder in folders if target.is_relative_to(folder)), None)
    if ".." in path.parts or folder is None:
        raise _refused(
            path, "it is in none of the directories that the guest may write to", "name its directory with --out"
        )
    return target, folder


def _refused(
    path: Path, why: str, fix: str = "let the command in the guest write regular files only"
) -> KalloctraceError:
    return KalloctraceError(f"{path} is not copied from the guest", why, fix)
