# SPDX-License-Identifier: MIT
"""A seccomp filter: system calls that a recording never makes once it is attached are refused."""

import ctypes
import errno
import os
import struct

from kalloctrace.system_calls import system_call

# arch/x86/entry/syscalls/syscall_64.tbl of v6.5, which ends at `_LAST`
_SYS_SECCOMP = 317
_BPF, _OPEN, _OPENAT, _OPENAT2 = 321, 2, 257, 437
_LAST = 450
_X32 = 0x40000000
_NEVER = """
execve 59, execveat 322, ptrace 101, process_vm_readv 310, process_vm_writev 311, pidfd_getfd 438, kcmp 312,
process_madvise 440, userfaultfd 323, uselib 134, connect 42, personality 135, perf_event_open 298, add_key 248,
request_key 249, keyctl 250, io_uring_setup 425, io_uring_enter 426, io_uring_register 427, unshare 272, setns 308,
chroot 161, pivot_root 155, mount 165, umount2 166, open_tree 428, move_mount 429, fsopen 430, fsconfig 431,
fsmount 432, fspick 433, mount_setattr 442, swapon 167, swapoff 168, quotactl 179, quotactl_fd 443, acct 163,
init_module 175, finit_module 313, delete_module 176, kexec_load 246, kexec_file_load 320, reboot 169,
sethostname 170, setdomainname 171, iopl 172, ioperm 173, modify_ldt 154, settimeofday 164, clock_settime 227,
adjtimex 159, clock_adjtime 305, syslog 103, setuid 105, setgid 106, setreuid 113, setregid 114, setgroups 116,
setresuid 117, setresgid 119, setfsuid 122, setfsgid 123, open_by_handle_at 304, fanotify_init 300, creat 85,
truncate 76, link 86, linkat 265, symlink 88, symlinkat 266, mknod 133, mknodat 259, mkdir 83, mkdirat 258, rmdir 84,
chmod 90, fchmodat 268, chown 92, lchown 94, fchownat 260, setxattr 188, lsetxattr 189, removexattr 197,
lremovexattr 198, utime 132, utimes 235, futimesat 261
"""
"""Calls that fail with EPERM, by name and number: other programs, processes and namespaces, the kernel's settings,
identities, and changes of files other than writing, renaming and removing them."""

_BPF_COMMANDS = {
    "LOOKUP_ELEM": 1,
    "UPDATE_ELEM": 2,
    "DELETE_ELEM": 3,
    "GET_NEXT_KEY": 4,
    "LOOKUP_BATCH": 24,
    "OBJ_GET_INFO_BY_FD": 15,
}
"""What is allowed of bpf(2), from enum bpf_cmd in include/uapi/linux/bpf.h: reading and changing maps that are
open, and asking for the missed hits of a link that is open."""
_LINK_COMMANDS = {"LINK_CREATE": 28, "RAW_TRACEPOINT_OPEN": 17}
"""Likewise, where programs that are loaded already are attached later. None can be loaded any more."""

# include/uapi/linux/seccomp.h, include/uapi/linux/audit.h
_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2
_FLAG_TSYNC = 1
_RET_ALLOW, _RET_ERRNO = 0x7FFF0000, 0x00050000
_AUDIT_ARCH_X86_64 = 0xC000003E
_NR, _ARCH, _ARGUMENTS = 0, 4, 16
"""Offsets in struct seccomp_data."""

# include/uapi/linux/bpf_common.h
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_IF_EQUAL, _IF_AT_LEAST, _IF_ANY = 0x15, 0x35, 0x45

Instruction = tuple[int, int, int, int]
"""Code, the instructions to skip if true, those to skip if false, and the operand."""


def available() -> bool:
    """Return whether the kernel has seccomp filters."""
    action = ctypes.c_uint32(_RET_ERRNO)
    try:
        return system_call("seccomp", _SYS_SECCOMP, _GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            return False
        raise


def restrict(*, existing_files: bool, links: bool = False) -> None:
    """Refuse system calls from now on, in all threads of this process; it needs no_new_privs.

    Args:
        existing_files: allow to open an existing file for writing. Without, only new files can be opened for that.
        links: allow to attach BPF programs that are loaded.

    Raises:
        OSError: the kernel refused.
    """
    code = b"".join(
        struct.pack("=HBBI", *instruction) for instruction in program(existing_files=existing_files, links=links)
    )
    instructions = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(instructions)))
    if system_call("seccomp", _SYS_SECCOMP, _SET_MODE_FILTER, _FLAG_TSYNC, header):
        raise OSError(errno.EBUSY, "seccomp: a thread has a filter of its own")


def program(*, existing_files: bool, links: bool = False) -> list[Instruction]:
    """Return the filter; see `restrict`."""
    allow, refuse = (_RETURN, 0, 0, _RET_ALLOW), (_RETURN, 0, 0, _RET_ERRNO | errno.EPERM)
    # Calls of i386 and of x32 have other numbers.
    found: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_IF_EQUAL, 1, 0, _AUDIT_ARCH_X86_64),
        refuse,
        (_LOAD, 0, 0, _NR),
        (_IF_AT_LEAST, 0, 1, _X32),
        refuse,
        # As on a kernel that does not have the call yet, so that libraries use the older one.
        (_IF_AT_LEAST, 0, 1, _LAST + 1),
        (_RETURN, 0, 0, _RET_ERRNO | errno.ENOSYS),
    ]
    for entry in _NEVER.split(","):
        number = int(entry.split()[1])
        found += [(_IF_EQUAL, 0, 1, number), refuse]
    commands = {**_BPF_COMMANDS, **(_LINK_COMMANDS if links else {})}
    found += [(_IF_EQUAL, 0, 2 * len(commands) + 2, _BPF), (_LOAD, 0, 0, _ARGUMENTS)]
    for command in commands.values():
        found += [(_IF_EQUAL, 0, 1, command), allow]
    found.append(refuse)
    if not existing_files:
        new = os.O_CREAT | os.O_EXCL
        found += [(_IF_EQUAL, 0, 1, _OPENAT2), (_RETURN, 0, 0, _RET_ERRNO | errno.ENOSYS)]
        for number, flags in ((_OPEN, 1), (_OPENAT, 2)):
            found += [
                (_IF_EQUAL, 0, 6, number),
                (_LOAD, 0, 0, _ARGUMENTS + 8 * flags),
                (_IF_ANY, 0, 3, os.O_ACCMODE | os.O_CREAT | os.O_TRUNC),
                (_AND, 0, 0, new),
                (_IF_EQUAL, 1, 0, new),
                (_RETURN, 0, 0, _RET_ERRNO | errno.EACCES),
                allow,
            ]
    return [*found, allow]
