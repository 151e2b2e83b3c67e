# SPDX-License-Identifier: MIT
"""Landlock: this thread, and those that it starts later, may change files in some folders only.

Linux kernel commit 265885daf3e5 ("landlock: Add syscall implementations") (in v5.13).
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from kalloctrace.system_calls import system_call

# arch/x86/entry/syscalls/syscall_64.tbl
_SYS_CREATE_RULESET = 444
_SYS_ADD_RULE = 445
_SYS_RESTRICT_SELF = 446

# include/uapi/linux/landlock.h
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_EXECUTE = 1 << 0
_WRITE_FILE = 1 << 1
_REMOVE_DIR = 1 << 4
_REMOVE_FILE = 1 << 5
_MAKE_CHAR = 1 << 6
_MAKE_DIR = 1 << 7
_MAKE_REG = 1 << 8
_MAKE_SOCK = 1 << 9
_MAKE_FIFO = 1 << 10
_MAKE_BLOCK = 1 << 11
_MAKE_SYM = 1 << 12
_REFER = 1 << 13
_TRUNCATE = 1 << 14

_REFER_VERSION = 2
_TRUNCATE_VERSION = 3

_ALWAYS = (
    *(_EXECUTE, _WRITE_FILE, _REMOVE_DIR, _REMOVE_FILE, _MAKE_CHAR, _MAKE_DIR),
    *(_MAKE_REG, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM),
)
_IN_FOLDERS = _WRITE_FILE | _REMOVE_FILE | _MAKE_REG | _TRUNCATE
_IN_FILES = _WRITE_FILE | _TRUNCATE


def version() -> int:
    """Return the version of Landlock's interface; 0 if the kernel has none, or was booted without it."""
    try:
        return system_call("landlock_create_ruleset", _SYS_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
            return 0
        raise


def restrict(folders: Iterable[Path]) -> None:
    """Forbid to run programs, and to change files anywhere but in these folders; /dev/null stays writable.

    In the folders regular files can be made, changed, renamed and removed. Files that are open stay as they are.
    The thread needs no_new_privs. There must be a Landlock: see `version`.

    Raises:
        OSError: the kernel refused, or a folder does not exist.
    """
    abi = version()
    handled = sum(_ALWAYS)
    handled |= _REFER if abi >= _REFER_VERSION else 0
    handled |= _TRUNCATE if abi >= _TRUNCATE_VERSION else 0
    attr = ctypes.create_string_buffer(struct.pack("=Q", handled), 8)
    ruleset = system_call("landlock_create_ruleset", _SYS_CREATE_RULESET, attr, len(attr), 0)
    try:
        for folder in folders:
            _allow(ruleset, folder, _IN_FOLDERS & handled)
        _allow(ruleset, Path(os.devnull), _IN_FILES & handled)
        system_call("landlock_restrict_self", _SYS_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, access: int) -> None:
    parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = ctypes.create_string_buffer(struct.pack("=Qi", access, parent))
        system_call("landlock_add_rule", _SYS_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(parent)
