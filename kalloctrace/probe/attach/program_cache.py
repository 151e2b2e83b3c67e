# SPDX-License-Identifier: MIT
"""Keeps compiled programs, so that a later start needs no compiler.

A program is kept under the build id of the kernel and a hash of all that the compiler was given. It is used again only
if both are the same, its content is whole, and nobody but root or this user can have written it.
"""

import hashlib
import json
import os
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from kalloctrace.errors import KalloctraceError
from kalloctrace.output.files import complete_output
from kalloctrace.probe.attach.compiled import Compiled
from kalloctrace.probe.attach.compiler import compile_apart, flags_of, source_text
from kalloctrace.probe.attach.program import Program, split
from kalloctrace.probe.layout import bpf_folder

CACHE_VARIABLE = "KALLOCTRACE_PROGRAMS"
"""The folder of compiled programs; empty for none. A service gets CACHE_DIRECTORY from systemd."""
_SYSTEMD_VARIABLE = "CACHE_DIRECTORY"
_DEFAULT = "/var/cache/kalloctrace"
_SUFFIX = ".program"
"""A digest on the first line, then JSON."""

_NOTES = Path("/sys/kernel/notes")
_NOTE = struct.Struct("<III")
"""include/uapi/linux/elf.h: struct elf32_note; name and content follow, padded to 4 bytes each."""
_BUILD_ID = (b"GNU\0", 3)
"""The name and type of NT_GNU_BUILD_ID."""

_FOLDER_MODE = 0o700
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def build_program(
    sources: Sequence[str], constants: Mapping[str, int | str], own: Mapping[str, int], lengths: Mapping[str, int]
) -> Program:
    """Return the program of these files, compiled now or earlier, with its maps in the kernel.

    Args:
        sources: the files, in the order in which they are joined.
        constants: the preprocessor symbols.
        own: the files of the maps that the program addresses without a look-up, by their names.
        lengths: the constants that record.h uses as lengths of arrays.

    Raises:
        KalloctraceError: it cannot be compiled, or the kernel refused a map.
    """
    compiled = obtain(*compiler_input(sources, constants, own))
    return Program(compiled, list(own.values()), list(split(constants)[1].values()), lengths)


def compiler_input(
    sources: Sequence[str], constants: Mapping[str, int | str], own: Iterable[str]
) -> tuple[str, list[str]]:
    """Return the text and the flags that the compiler is given; the arguments are those of `build_program`."""
    known, later = split(constants)
    return source_text(sources), flags_of(known, list(own), list(later))


def obtain(text: str, flags: Sequence[str]) -> Compiled:
    """Return a compiled program, from the folder if it is there.

    Args:
        text: its source.
        flags: the compiler's.

    Raises:
        KalloctraceError: it cannot be compiled.
    """
    path = kept_path(text, flags)
    kept = None if path is None else read_kept(path)
    if kept is not None:
        return kept
    compiled = compile_apart(text, flags)
    if path is not None:
        # A folder that cannot be written to makes the next start as slow as this one, no more.
        with suppress(KalloctraceError, OSError):
            path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            _keep(path, compiled)
    return compiled


def kept_path(text: str, flags: Sequence[str]) -> Path | None:
    """Return where a program is kept; None if it is not, as there is no folder, or the kernel shows no build id.

    Args:
        text: its source.
        flags: the compiler's.
    """
    folder = _folder()
    if folder is None:
        return None
    given = hashlib.sha256(json.dumps([text, list(flags), *_headers()]).encode())
    return folder / f"{given.hexdigest()}{_SUFFIX}"


def kept_programs() -> list[Path]:
    """Return the files of the programs that are kept for the running kernel."""
    folder = _folder()
    return [] if folder is None else [path for path in folder.glob(f"*{_SUFFIX}") if read_kept(path) is not None]


def _folder() -> Path | None:
    folder = os.environ.get(CACHE_VARIABLE, os.environ.get(_SYSTEMD_VARIABLE, _DEFAULT))
    build_id = running_build_id()
    return Path(folder) / build_id if folder and build_id is not None else None


def running_build_id() -> str | None:
    """Return the build id of the running kernel in hexadecimal digits; None if it has none."""
    return build_id_of(_NOTES.read_bytes()) if _NOTES.exists() else None


def build_id_of(notes: bytes) -> str | None:
    """Return a kernel's build id in hexadecimal digits, from the content of /sys/kernel/notes; None if it has none."""
    position = 0
    while position + _NOTE.size <= len(notes):
        name_bytes, content_bytes, kind = _NOTE.unpack_from(notes, position)
        name_at = position + _NOTE.size
        content_at = name_at + _padded(name_bytes)
        if (notes[name_at : name_at + name_bytes], kind) == _BUILD_ID:
            return notes[content_at : content_at + content_bytes].hex() or None
        position = content_at + _padded(content_bytes)
    return None


def read_kept(path: Path) -> Compiled | None:
    """Return the program that is kept there; None if there is none, it is damaged, or others may have written it."""
    try:
        if any(not _is_trusted(one.stat()) for one in (path, path.parent)):
            return None
        digest, _, content = path.read_bytes().partition(b"\n")
        if hashlib.sha256(content).hexdigest().encode() != digest:
            return None
        return Compiled.from_json(json.loads(content))
    except (OSError, KeyError, TypeError, ValueError):
        return None


def _keep(path: Path, compiled: Compiled) -> None:
    content = json.dumps(compiled.to_json(), separators=(",", ":")).encode()
    with complete_output(path, overwrite=True, private=True) as file:
        file.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def _is_trusted(there: os.stat_result) -> bool:
    return there.st_uid in (0, os.geteuid()) and not there.st_mode & _OTHERS_WRITE


def _headers() -> Iterator[str]:
    """Yield what the program may include, by name and content."""
    for path in sorted(bpf_folder().rglob("*.h")):
        yield str(path.relative_to(bpf_folder()))
        yield path.read_text()


def _padded(size: int) -> int:
    return -(-size // 4) * 4
